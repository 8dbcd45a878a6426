"""Sessions that several sabotages are made from, and what they need to look into messages and into buffers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, cast

import numpy as np

from ggml_rpc_ref.backends.memory import HostAllocation
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server.handlers import Host, Session
from ggml_rpc_ref.server.memory import Region
from ggml_rpc_ref.server.session import Area, Download, Upload
from ggml_rpc_ref.spec.messages import (
    NO_REPLY,
    REQUESTS,
    AllocBuffer,
    AllocBufferReply,
    BufferGetBase,
    BufferGetBaseReply,
    FreeBuffer,
    GraphCompute,
    GraphRecompute,
    RpcTensor,
)
from ggml_rpc_ref.spec.versions import Version

I8 = 24
"""ggml_type of single bytes."""
SMALL = 2**20
"""Bytes: of what is larger no room is made for a request that should have been refused."""

# ---------------------------------------------------------------------------------------------------------------- messages


def tensors_of(message: Any) -> list[RpcTensor]:
    """Return every tensor that a request other than GRAPH_COMPUTE names."""
    return [found for name in ("tensor", "src", "dst") if isinstance(found := getattr(message, name, None), RpcTensor)]


def handles_of(message: Any) -> list[int]:
    """Return every handle that a request names; 0 where a field holds none."""
    if isinstance(message, Graph):
        return [int(handle) for handle in message.tensors["buffer"]]
    return [tensor.buffer for tensor in tensors_of(message)] + [getattr(message, "remote_ptr", 0)]


def with_handles(message: Any, change: Callable[[int], int]) -> Any:
    """Return a request with each handle that it names changed."""
    if isinstance(message, Graph):
        tensors = message.tensors.copy()
        tensors["buffer"] = [change(int(handle)) for handle in tensors["buffer"]]
        return replace(message, tensors=tensors)
    changed: dict[str, object] = {}
    for name in ("tensor", "src", "dst"):
        if isinstance(tensor := getattr(message, name, None), RpcTensor):
            changed[name] = replace(tensor, buffer=change(tensor.buffer))
    if isinstance(handle := getattr(message, "remote_ptr", None), int):
        changed["remote_ptr"] = change(handle)
    return replace(message, **changed) if changed else message


def empty_reply(message: object, version: Version) -> object:
    """Return a reply of the right type with zero in every field."""
    cls = GraphCompute if isinstance(message, Graph) else type(message)
    reply: Any = REQUESTS[cls].reply(version)
    return reply if reply is NO_REPLY else codec.decode(reply, bytes(codec.minimum_size(reply, version)), version)


# ----------------------------------------------------------------------------------------------------------------- buffers


def bytes_at(address: int, buffer: int, size: int) -> RpcTensor:
    """Return a tensor of `size` bytes at an address of a buffer."""
    return RpcTensor(type=I8, buffer=buffer, ne=(size, 1, 1, 1), nb=(1, size, size, size), data=address)


def read(session: Session, tensor: RpcTensor) -> bytes:
    """Return the bytes of a tensor made by `bytes_at`."""
    return bytes(session.region(tensor, 0, tensor.ne[0]).read())


def write(session: Session, tensor: RpcTensor, data: bytes) -> None:
    """Set the bytes of a tensor made by `bytes_at`."""
    region = session.region(tensor, 0, len(data))
    region.allocation.upload(region.start, memoryview(data))


def flip(session: Session, address: int, buffer: int) -> None:
    """Change one bit of the byte at an address."""
    byte = bytes_at(address, buffer, 1)
    write(session, byte, bytes([read(session, byte)[0] ^ 1]))


def apart(data: bytes | bytearray) -> Region:
    """Return a region that holds a copy of some bytes and lies in no buffer."""
    return Region(HostAllocation(np.frombuffer(bytearray(data), np.uint8)), 0, len(data))


# ---------------------------------------------------------------------------------------------------------------- sessions


class Remembers(Session):
    """A session that keeps a list of its live buffers.

    Attributes:
        buffers: handle to the tensor of all its bytes, in the order of allocation.
        freed: handles that FREE_BUFFER has taken away.
        owners: handle to the session that was given it, for every handle of the servers here, the freed ones too.
    """

    owners: ClassVar[dict[int, Session]] = {}

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.buffers: dict[int, RpcTensor] = {}
        self.freed: set[int] = set()

    def handle(self, message: object) -> object:
        """Answer, and take note of buffers that come and go."""
        reply = super().handle(message)
        if isinstance(message, AllocBuffer) and isinstance(reply, AllocBufferReply) and reply.remote_ptr:
            base = cast(BufferGetBaseReply, super().handle(BufferGetBase(remote_ptr=reply.remote_ptr))).base_ptr
            self.buffers[reply.remote_ptr] = bytes_at(base, reply.remote_ptr, reply.remote_size)
            self.owners[reply.remote_ptr] = self
        if isinstance(message, FreeBuffer):
            self.buffers.pop(message.remote_ptr, None)
            self.freed.add(message.remote_ptr)
        return reply

    def is_foreign(self, handle: int) -> bool:
        """Whether a handle was given to another connection."""
        return self.owners.get(handle, self) is not self


class Lenient(Remembers):
    """A session that does not refuse requests that break one rule.

    A case of that rule that our server refuses for another reason is still refused, so the suite shows it.
    """

    rule: ClassVar[str] = ""

    def handle(self, message: object) -> object:
        """Answer; where the rule is broken, with an empty reply."""
        try:
            return super().handle(message)
        except Violation as broken:
            if not self.lets_pass(broken, message):
                raise
            return empty_reply(message, self.version)

    def destination(self, message: Upload, size: int) -> Area:
        """Return where data belong; where the rule is broken, memory that no client can see."""
        try:
            return super().destination(message, size)
        except Violation as broken:
            if size > SMALL or not self.lets_pass(broken, message):
                raise
            return apart(bytes(size))

    def source(self, message: Download) -> Area:
        """Return where the bytes asked for lie; where the rule is broken, zeros."""
        try:
            return super().source(message)
        except Violation as broken:
            if not self.lets_pass(broken, message):
                raise
            return apart(bytes(min(message.size, SMALL)))

    def lets_pass(self, broken: Violation, message: object) -> bool:
        """Whether to go on: a request that names another connection's buffer breaks session.isolated."""
        return broken.rule == self.rule and not any(self.is_foreign(handle) for handle in handles_of(message))


class ChangesGraphs(Session):
    """A session that computes another graph than the one that came, or does something more once it is computed."""

    graphs: dict[int, Graph]

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.graphs = {}

    def handle(self, message: object) -> object:
        """Answer; the last graph of each device is remembered for GRAPH_RECOMPUTE."""
        if isinstance(message, Graph):
            message = self.graphs[message.device] = self.changed(message)
        reply = super().handle(message)
        if isinstance(message, Graph | GraphRecompute):
            self.then(self.graphs[message.device])
        return reply

    def changed(self, graph: Graph) -> Graph:
        """Return the graph that is computed."""
        return graph

    def then(self, graph: Graph) -> None:
        """Do something after a graph was computed, or computed again."""


def nodes_of(graph: Graph, op: int) -> list[RpcTensor]:
    """Return the nodes of one op, by its number, as they came."""
    rows = graph.tensors[np.isin(graph.tensors["id"], graph.nodes) & (graph.tensors["op"] == op)]
    return [codec.decode(RpcTensor, row.tobytes()) for row in rows]
