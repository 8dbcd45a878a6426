"""Try whether a client of one version can work with a server: a short conversation of every kind of request, and how it ends.

    trial("127.0.0.1:50052", Version(3, 6, 1)).outcome          # works, closed, refused or broken

The client keeps to its version as one of llama.cpp does, whatever the server names. What is computed is compared, because two
versions may agree on every size and not on the numbers of ops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from ggml_rpc_ref.client.client import Client, connect
from ggml_rpc_ref.client.devices import Device
from ggml_rpc_ref.client.graph import Graph
from ggml_rpc_ref.client.tensors import RemoteTensor
from ggml_rpc_ref.errors import Misuse, Unsupported, Violation
from ggml_rpc_ref.spec.messages import REQUESTS, GraphRecompute, MemsetTensor, SetTensor2d
from ggml_rpc_ref.spec.versions import Version


class Outcome(StrEnum):
    """How a client and a server get on."""

    WORKS = "works"
    """Every request does what it should."""
    CLOSED = "closed"
    """The server closes the connection on HELLO, which has another form in its version."""
    REFUSED = "refused"
    """The client ends the conversation when it hears the server's version."""
    BROKEN = "broken"
    """The client accepts the version, and something goes wrong later."""


class Trial(NamedTuple):
    """How a trial ended.

    Attributes:
        outcome: the kind.
        step: the request at which it ended; "" where everything works.
        sign: what the client noticed there: "closed", "silence", "out of step" or "wrong numbers".
    """

    outcome: Outcome
    step: str = ""
    sign: str = ""


class _Wrong(Exception):  # noqa: N818  (the finding)
    """Numbers are not what they should be."""


def trial(endpoint: str, version: Version, timeout: float = 3.0) -> Trial:
    """Return how a client of a version gets on with a server.

    Args:
        endpoint: the server.
        version: the client's.
        timeout: seconds after which a silence is one.
    """
    step = "HELLO"
    try:
        with connect(endpoint, proto=version, timeout=timeout, connect_timeout=timeout) as client:
            for name, take in _steps(client):
                step = name
                take()
    except Unsupported:
        if step != "HELLO":
            raise
        return Trial(Outcome.REFUSED, step)
    except (ConnectionError, TimeoutError, Violation, _Wrong, Misuse) as error:
        return Trial(Outcome.CLOSED if step == "HELLO" else Outcome.BROKEN, step, _sign(error))
    return Trial(Outcome.WORKS)


def _sign(error: Exception) -> str:
    match error:
        case TimeoutError():
            return "silence"
        case ConnectionError():
            return "closed"
        case _Wrong():
            return "wrong numbers"
    return "out of step"


def _steps(client: Client) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what is tried, in the order of a stock client."""
    yield "DEVICE_COUNT", lambda: client.devices[0]
    device = client.devices[0]
    yield "GET_ALIGNMENT", lambda: device.alignment
    yield "GET_MAX_SIZE", lambda: device.max_size
    yield "GET_DEVICE_MEMORY", device.memory
    left = RemoteTensors(device)
    yield "SET_TENSOR", left.upload
    yield "GET_TENSOR", left.check_upload
    # rows of 96 are padded on some devices, so a stock client asks for their size
    yield "GET_ALLOC_SIZE", lambda: device.tensor(np.ones((2, 96), np.float32), "Q8_0").numpy()
    yield "GRAPH_COMPUTE", left.compute
    again = "GRAPH_RECOMPUTE" if client.version >= REQUESTS[GraphRecompute].since else "GRAPH_COMPUTE"
    yield again, left.compute_again
    if client.version >= REQUESTS[MemsetTensor].since:
        yield "MEMSET_TENSOR", left.clear
    if client.version >= REQUESTS[SetTensor2d].since:
        yield "SET_TENSOR_2D", left.write_column
    yield "BUFFER_CLEAR", lambda: _cleared(device)
    yield "GET_DEVICE_MEMORY", device.memory


def _cleared(device: Device) -> None:
    with device.alloc(64) as buffer:
        buffer.clear(7)


class RemoteTensors:
    """What the steps work on."""

    def __init__(self, device: Device) -> None:
        self.device, self.values = device, np.arange(6, dtype=np.float32).reshape(2, 3)
        self.tensor: RemoteTensor
        self.graph: Graph
        self.nodes: list[RemoteTensor] = []

    def upload(self) -> None:
        """Write an array."""
        self.tensor = self.device.tensor(self.values)

    def check_upload(self) -> None:
        """Read it back."""
        _expect(self.tensor, self.values)

    def compute(self) -> None:
        """Compute ops from both ends of the op table."""
        graph = self.graph = self.device.graph()
        twice = graph.add(self.tensor, self.tensor)
        self.nodes = [twice, graph.mul_mat(self.tensor, self.tensor), graph.neg(twice)]
        graph.compute()
        self._check()

    def compute_again(self) -> None:
        """Compute the same on other data."""
        self.values = self.values + 1
        self.tensor.write(self.values)
        self.graph.compute()
        self._check()

    def _check(self) -> None:
        for node, want in zip(self.nodes, (2 * self.values, self.values @ self.values.T, -2 * self.values), strict=True):
            _expect(node, want)

    def clear(self) -> None:
        """Set all bytes to 0."""
        self.tensor.memset(0)
        _expect(self.tensor, np.zeros_like(self.values))

    def write_column(self) -> None:
        """Write the first column."""
        self.tensor.write_rows(np.array([5, 6], np.float32), 2, 12)
        _expect(self.tensor, np.array([[5, 0, 0], [6, 0, 0]]))


def _expect(tensor: RemoteTensor, want: object) -> None:
    if not np.array_equal(tensor.numpy(), np.asarray(want)):
        raise _Wrong
