"""The cases about clients, and how a function becomes one; `conformance.case` describes them."""

from __future__ import annotations

from functools import partial

from ggml_rpc_ref.conformance.case import Case, case

CLIENT_CASES: dict[str, Case] = {}
"""All cases about clients by id, in the order of the sections."""

client_case = partial(case, among=CLIENT_CASES)
