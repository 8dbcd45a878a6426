"""A connection without a wire: the requests of a client, answered in this process by what a server answers with.

A device of this machine is thereby the same class as one of a server, with the same checks, and a graph need not know where it
runs. Nothing is encoded but graphs, whose records a server checks as arrays. Bytes are copied once, from array to buffer or back.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.client.channel import Buffered, Bytes, Channel, bytes_of
from ggml_rpc_ref.client.sent_graphs import SentGraphs
from ggml_rpc_ref.errors import Misuse, Violation
from ggml_rpc_ref.protocol.graph import Graph as WireGraph
from ggml_rpc_ref.server.handlers import Host, Session
from ggml_rpc_ref.spec.messages import (
    GetTensor,
    GetTensor2d,
    GraphCompute,
    GraphRecompute,
    RpcTensor,
    SetTensor,
    SetTensor2d,
    has_field,
)
from ggml_rpc_ref.spec.versions import Version
from ggml_rpc_ref.tensor import Array


class LocalChannel(Channel):
    """What a client has instead of a connection for devices of this machine.

    Args:
        host: the devices; they speak the host's version.
        name: what stands for the endpoint, in sentences for people.
    """

    def __init__(self, host: Host, name: str) -> None:
        # not Channel's: there is no stream. What its other methods use is set here
        self.own_version = self.server_version = host.version
        self.server_caps, self.hashing, self._timeout, self._name = b"", False, float("inf"), name
        self._session, self._keeps = Session(host), False
        self._sent = SentGraphs(has_field(GraphCompute, "uid", host.version))
        self._lock, self._depth, self._pid = threading.RLock(), 0, os.getpid()
        self.ended = ""
        self._dropped = deque[int]()

    @property
    def endpoint(self) -> str:
        """The name of its kind of device."""
        return self._name

    @property
    def version(self) -> Version:
        """The protocol version whose layouts are spoken."""
        return self._session.version

    @property
    def timeout(self) -> float:
        """No answer is waited for here."""
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        """Kept, so that one line sets the time-out of every backend, and without effect."""
        self._timeout = float("inf") if seconds is None else seconds

    def close(self) -> None:
        """Free everything."""
        self.ended = self.ended or f"the device {self._name} has been closed"
        self._session.close()

    def greet(self, timeout: float) -> None:
        """There is nobody to greet."""

    def request(self, message: Any) -> Any:
        """Do what a request asks for, and return its reply."""
        with self.exclusively(), self._checked():
            self._forget_graphs(message)
            return self._session.handle(message)

    def set_tensor(self, tensor: RpcTensor, offset: int, data: Buffered) -> None:
        """Write bytes into a tensor."""
        view = bytes_of(data)
        self._place(SetTensor(tensor=tensor, offset=offset), view)

    def set_rows(self, message: SetTensor2d, data: Buffered) -> None:
        """Write rows into a tensor."""
        self._place(message, bytes_of(data))

    def _place(self, message: SetTensor | SetTensor2d, view: memoryview) -> None:
        with self.exclusively(), self._checked():
            area = self._session.destination(message, len(view))
            at = 0
            for part in area.receive():
                part[:] = view[at : at + len(part)]
                at += len(part)
            self._session.placed(message, area)

    def get_tensor(self, tensor: RpcTensor, offset: int, size: int) -> Bytes:
        """Return a copy of bytes of a tensor."""
        return self._copy(GetTensor(tensor=tensor, offset=offset, size=size))

    def get_rows(self, message: GetTensor2d) -> Bytes:
        """Return a copy of rows of a tensor."""
        return self._copy(message)

    def _copy(self, message: GetTensor | GetTensor2d) -> Bytes:
        with self.exclusively(), self._checked():
            return np.frombuffer(bytearray(self._session.source(message).read()), np.uint8)

    def compute(self, graph: WireGraph) -> None:
        """Compute a graph, and return when that is done; one that is stored is not checked again."""
        payload = graph.encode(self.version)
        with self.exclusively(), self._checked():
            known = self._sent.find(graph.device, payload)
            if known is not None:
                self._session.handle(GraphRecompute(device=graph.device, uid=known))
                return
            uid = self._sent.replace(graph.device)
            self._session.handle(WireGraph(graph.device, graph.nodes, graph.tensors, uid))
            self._sent.add(graph.device, payload, uid)

    def adopt(self, device: int, data: Array) -> int | None:
        """Make bytes that are in memory a buffer, without a copy, and return its handle; None where the device can't reach them."""
        memory = self._session.host.devices[device].memory
        if not isinstance(memory, HostMemory):
            return None
        with self.exclusively(), self._checked():
            return self._session.memory.take(device, memory.adopt(data)).remote_ptr

    @contextlib.contextmanager
    def _checked(self) -> Iterator[None]:
        """Turn a refusal into the caller's mistake: there is no peer, and what was there before is still there."""
        if self.ended:
            raise ConnectionError(self.ended)
        try:
            yield
        except Violation as violation:
            raise Misuse(f"the device {self._name} refuses: {violation}") from None
