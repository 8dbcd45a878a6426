"""The fuzzer: well-formed sessions from the tables, mutations that know what they touch, and a judge that can compute.

    for event in Campaign(watched("./my-server --port {port}"), Options(max_time=60)).run():
        ...

How a find comes about: `generate` makes a session, `mutations` change it, `converse` has it with the server, `judge` compares what
came with the framing, with the oracle's results, and with our own server in this process (`inside`); `reproduce` has it again on
fresh servers and makes it smaller; `finds` writes it down.
"""

from __future__ import annotations

from ggml_rpc_ref.fuzz.engine import Campaign, Options
from ggml_rpc_ref.fuzz.events import Began, Count, Ended, Event, Found, Progressed
from ggml_rpc_ref.fuzz.finds import Find, Store
from ggml_rpc_ref.fuzz.generate import Generator
from ggml_rpc_ref.fuzz.jobs import Goal, run
from ggml_rpc_ref.fuzz.judge import Kind
from ggml_rpc_ref.fuzz.mutations import MUTATIONS, mutate
from ggml_rpc_ref.fuzz.session import Session
from ggml_rpc_ref.fuzz.targets import watched

__all__ = [
    "MUTATIONS",
    "Began",
    "Campaign",
    "Count",
    "Ended",
    "Event",
    "Find",
    "Found",
    "Generator",
    "Goal",
    "Kind",
    "Options",
    "Progressed",
    "Session",
    "Store",
    "mutate",
    "run",
    "watched",
]
