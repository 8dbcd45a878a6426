"""What is said when a server goes."""

from __future__ import annotations

from collections.abc import Sequence


class ServerLost(ConnectionError):  # noqa: N818  (an outcome, after which one goes on without it)
    """A server does not answer any more, and what it held is gone.

    Attributes:
        endpoint: the server.
        tensors: names of the weights and states that lay there.
        size: their bytes.
        again: whether all of them can be filled again from files or arrays; if not, states among them begin as zeros.
    """

    def __init__(self, endpoint: str, tensors: Sequence[str], size: int, again: bool, reason: object) -> None:
        self.endpoint, self.tensors, self.size, self.again = endpoint, tuple(tensors), size, again
        some = ", ".join(self.tensors[:3]) + (" …" if len(self.tensors) > 3 else "")
        lost = f"lost are {len(tensors)} tensors ({some}), {size} bytes" if tensors else "it held no weights or states"
        rest = "" if again else ", of which states begin as zeros again"
        super().__init__(
            f"{endpoint} is gone: {reason}; {lost}; nothing of this computation counts;"
            f" scheduler.without({endpoint!r}) goes on with the others{rest}"
        )
