"""For each rule a server that breaks exactly that rule, made from ours by changing one thing that a client can see.

    report = run(InProcess(cache, SABOTAGES["buffer.clean"]), cases)  # names buffer.clean and no other rule

One module for each section of the rules (frame, session, device, buffer, tensor, data, graph, comm) enters its servers into
SABOTAGES, as servers of the default version, or where that lacks the rule, of the newest that has it.
Two seams are used, and nothing private of the product: a `Session` gets messages and returns replies, a `Connection` gets bytes and
returns events.
"""

from __future__ import annotations

from tests.support.sabotage import buffer, comm, data, data_rows, device, frame, graph, graph_uid, session, tensor
from tests.support.sabotage.table import SABOTAGES, Sabotage
from tests.support.sabotage.target import InProcess

SECTIONS = (frame, session, device, buffer, tensor, data, data_rows, graph, graph_uid, comm)

__all__ = ["SABOTAGES", "SECTIONS", "InProcess", "Sabotage"]
