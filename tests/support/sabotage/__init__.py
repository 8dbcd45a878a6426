"""For each rule a server that breaks exactly that rule, made from ours by changing one thing that a client can see.

    report = run(InProcess(cache, SABOTAGES["buffer.clean"]), cases)  # names buffer.clean and no other rule

One module for each section of the rules (frame, session, device, buffer, tensor, data, graph) enters its servers into SABOTAGES.
Two seams are used, and nothing private of the product: a `Session` gets messages and returns replies, a `Connection` gets bytes and
returns events.
"""

from __future__ import annotations

from tests.support.sabotage import buffer, data, device, frame, graph, session, tensor
from tests.support.sabotage.table import NO_CASE, SABOTAGES, Sabotage
from tests.support.sabotage.target import InProcess

SECTIONS = (frame, session, device, buffer, tensor, data, graph)

__all__ = ["NO_CASE", "SABOTAGES", "SECTIONS", "InProcess", "Sabotage"]
