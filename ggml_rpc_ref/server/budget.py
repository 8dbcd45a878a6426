"""Memory for graphs: what all connections together may use for those that arrive and those that are kept for GRAPH_RECOMPUTE.

This memory belongs to no device, so `-m` does not bound it; a graph costs several times its bytes on the wire. It is counted as the
bytes arrive, never by what a message claims to be.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Final

ARRIVING: Final = 10
"""Bytes of memory per byte of a GRAPH_COMPUTE until it is computed: itself, its arrays, what the check makes of them, the plan. The
worst graph known, in `test_a_graph_costs_no_more_than_is_counted`, takes 8."""
KEPT: Final = 7
"""Bytes of memory per byte of a GRAPH_COMPUTE whose plan is kept; that graph's takes 6."""
DEFAULT: Final = 2 * 2**30
"""Bytes for all graphs by default: half of it, one connection's share, holds a chain of 300,000 tensors (91 MB; graph.deep)."""


class Budget:
    """A number of bytes that several shares take from; no one of them more than half.

    Args:
        total: bytes.

    Attributes:
        used: bytes that the shares have.
        give_way: asks whoever holds some of it for convenience alone to give that back; returns whether it has.
    """

    def __init__(self, total: int = DEFAULT) -> None:
        self.total, self.used, self._lock = total, 0, Lock()
        self.give_way: Callable[[], bool] = lambda: False

    @property
    def per_share(self) -> int:
        """The most that one share may have: no client alone can keep the others from computing."""
        return self.total // 2

    def exchange(self, old: int, new: int) -> bool:
        """Let a share have `new` bytes in place of `old`; return False, and change nothing, where there is no room."""
        with self._lock:
            # giving back is never refused: `Session.close` and FREE_BUFFER rely on it
            if new > old and (new > self.per_share or self.used - old + new > self.total):
                return False
            self.used += new - old
            return True


class Share:
    """What one connection has of a budget.

    Attributes:
        size: bytes.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget, self.size = budget, 0

    def resize(self, size: int) -> bool:
        """Have so many bytes from now on; return False, and keep what there was, where there is no room."""
        if not self.budget.exchange(self.size, size):
            return False
        self.size = size
        return True
