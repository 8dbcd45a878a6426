"""What of a client's a server refuses, and which rule for clients it broke with that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ggml_rpc_ref.conformance.clients.heard import Run
from ggml_rpc_ref.conformance.verdict import Broken
from ggml_rpc_ref.errors import Violation

OURS: Final = frozenset({"frame.size-bounded", "graph.cost", "graph.op-supported"})
"""Rules by which a server refuses what it does not grant or can't compute: no fault of the client's."""

BROKEN_BY: Final[tuple[tuple[str, str], ...]] = (
    ("session.hello", "session.says-hello"),
    ("frame.", "frame.requests"),
    ("graph.size-exact", "frame.requests"),
    ("device.", "device.named"),
    ("buffer.", "buffer.own-handles"),
    ("tensor.buffer-known", "buffer.own-handles"),
    ("tensor.", "tensor.valid"),
    ("data.", "data.valid"),
    ("graph.recompute", "graph.recompute-sent"),
    ("graph.uid", "graph.recompute-sent"),
    ("graph.", "graph.valid"),
    ("comm.", "comm.valid"),
)
"""How the id begins of a rule by which a server refuses, to the client's rule; the first that fits counts."""


def rule_of(violation: Violation) -> str:
    """Return the rule for clients that one who must be refused has broken; "" for what is not their fault."""
    if violation.rule in OURS:
        return ""
    if violation.field == "Hello size":
        return "session.says-hello"
    return next(rule for start, rule in BROKEN_BY if violation.rule.startswith(start))


def require_none(rule: str, runs: Iterable[Run]) -> None:
    """Require that a client has broken no rule of servers' that stands for this one of clients'.

    Raises:
        Broken.
    """
    for run in runs:
        for talk, violation in run.violations():
            if rule_of(violation) == rule:
                last = talk.asked[-1].command if talk.asked else "nothing"
                raise Broken(
                    "requests that a server takes", f"after {last} on connection {talk.number} it had to refuse: {violation}"
                )
