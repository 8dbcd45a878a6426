"""What is said when a server goes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from ggml_rpc_ref.client.devices import Device
from ggml_rpc_ref.errors import Violation


class ServerLost(ConnectionError):  # noqa: N818  (an outcome, after which one goes on without it)
    """A server does not answer any more, and what it held is gone.

    Attributes:
        endpoint: the server.
        tensors: names of the weights and states that lay there.
        size: their bytes.
        again: whether all of them can be filled again from files or arrays; if not, states among them begin as zeros.
        what: the sentence without the next step, which is another one where no program goes on.
    """

    def __init__(self, endpoint: str, tensors: Sequence[str], size: int, again: bool, reason: object) -> None:
        self.endpoint, self.tensors, self.size, self.again = endpoint, tuple(tensors), size, again
        some = ", ".join(self.tensors[:3]) + (" …" if len(self.tensors) > 3 else "")
        lost = f"lost are {len(tensors)} tensors ({some}), {size} bytes" if tensors else "it held no weights or states"
        self.what = f"{endpoint} is gone: {reason}; {lost}; nothing of this computation counts"
        rest = "" if again else "; states begin as zeros again"
        super().__init__(f"{self.what}; scheduler.without({endpoint!r}) goes on with the others{rest}")


GONE = (ConnectionError, TimeoutError, Violation)
"""What a request ends with when its server is of no more use."""
Guard = Callable[[Device], contextlib.AbstractContextManager[None]]
"""Says, in one error, that a server is gone: whatever is asked of a backend is asked inside it."""


def guarded(lost: Callable[[Device, Exception], Exception], ended: Callable[[Device], str]) -> Guard:
    """Return a guard that raises what `lost` makes of a failure of a server's.

    Args:
        lost: returns the error to raise.
        ended: returns why the connection that a device's buffers belong to is over; nothing while it is not. A backend would
            connect anew, where handles of its old buffers may mean others.
    """

    @contextlib.contextmanager
    def guard(device: Device) -> Iterator[None]:
        try:
            if reason := ended(device):
                raise ConnectionError(reason)
            yield
        except ServerLost:
            raise
        except GONE as error:
            if device.is_local:
                raise
            raise lost(device, error) from error

    return guard
