"""How a computation that takes long is stopped: ops pass a checkpoint at each part of their work, and whoever runs them is asked.

    with stoppable(cancelled):      # cancelled: () -> bool
        op.oracle(node)             # raises Stopped at the first checkpoint at which cancelled() is true

Outside of `stoppable` a checkpoint does nothing. Each thread, and so each connection of a server, has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Cancelled = Callable[[], bool]
"""Whether a run is to stop before its next part; cheap, because it is asked between all of them."""


class Stopped(Exception):  # noqa: N818
    """A run was cancelled between two parts of its work."""


def never() -> bool:
    """Return False: the run goes on to its end."""
    return False


_cancelled: ContextVar[Cancelled] = ContextVar("cancelled", default=never)


@contextmanager
def stoppable(cancelled: Cancelled) -> Iterator[None]:
    """Ask `cancelled` at each checkpoint that this thread passes inside."""
    token = _cancelled.set(cancelled)
    try:
        yield
    finally:
        _cancelled.reset(token)


def checkpoint() -> None:
    """Stop here if the computation was cancelled.

    Raises:
        Stopped: where it was.
    """
    if _cancelled.get()():
        raise Stopped
