"""What a server has: `Host` is what all its connections share, `Session` what one of them has, its buffers and stored graphs.

    host = Host([Device("oracle", "numpy", Oracle(HostMemory(2**30)))])
    with Session(host) as session:
        reply = session.handle(AllocBuffer(device=0, size=4096))

What each request does stands in `handlers`, which fills the table `Session.handlers`. A bad request raises a Violation; the
connection is over then, and `close` frees what it had. All bytes belong to the memory of a device's backend; a handler touches them
through a `Region` or `Rows`.

The bytes of the commands that carry data are not handled there but moved by the owner of the channel, to `destination` and from
`source`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, NamedTuple, Self

from ggml_rpc_ref.backends import Backend, Cancelled, never
from ggml_rpc_ref.backends.memory import DeviceMemory, HostMemory
from ggml_rpc_ref.errors import Unsupported, Violation
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server.budget import Budget
from ggml_rpc_ref.server.communicator import Communicator, Meeting
from ggml_rpc_ref.server.memory import MAX_BUFFERS, Bounds, Buffer, Memory, Region
from ggml_rpc_ref.server.plan import make_plan
from ggml_rpc_ref.server.rows import Rows
from ggml_rpc_ref.server.stored_graphs import Runnable, StoredGraphs
from ggml_rpc_ref.server.tensor_cache import TensorCache
from ggml_rpc_ref.spec.messages import (
    NO_REPLY,
    REQUESTS,
    Empty,
    GetTensor,
    GetTensor2d,
    GraphCompute,
    GraphComputeReply,
    Hello,
    RpcTensor,
    SetTensor,
    SetTensor2d,
    by_number,
    command_name,
    has_field,
)
from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES, Version
from ggml_rpc_ref.tensor import MAX_BYTES

MakePlan = Callable[[Graph, Memory, Backend, Version], Runnable]

MAX_OVERLAPPING: Final = 2**30
"""Bytes of the largest reply to a GET_TENSOR_2D whose rows overlap: a tensor of a few bytes could be asked for for ever."""

Upload = SetTensor | SetTensor2d
"""Requests that carry data."""
Download = GetTensor | GetTensor2d
"""Requests whose replies carry data."""
Area = Region | Rows
"""Where in a buffer data belong."""


@cache
def _acknowledgement(request: type, version: Version) -> object:
    reply = REQUESTS[request].reply(version)
    if reply is GraphComputeReply:
        return GraphComputeReply(result=0)
    return reply if reply is NO_REPLY else Empty()


MOVED: Final = (SetTensor, SetTensor2d, GetTensor, GetTensor2d)
"""Requests whose data pass `Session.handle` by."""


@dataclass(frozen=True, slots=True)
class Device:
    """One device of a server.

    Attributes:
        name: what `-d` calls it.
        description: what it computes with, for people.
        backend: what holds its buffers and computes its graphs.
    """

    name: str
    description: str
    backend: Backend

    @property
    def memory(self) -> DeviceMemory:
        """The memory that its buffers share."""
        return self.backend.memory


@dataclass(frozen=True, slots=True)
class Host:
    """What all connections of a server share.

    Attributes:
        devices: at least one, by index; the same ones for the server's whole life.
        tensors: data of large uploads by hash; None: SET_TENSOR_HASH never finds any.
        version: the protocol version that is spoken.
        others: versions that are spoken instead where a client's HELLO has the size of theirs and not of `version`'s.
        make_plan: checks and compiles a graph.
        graph_memory: memory for graphs that arrive and plans that are kept.
        max_buffers: live buffers that one connection may have; one more is answered with (0, 0).
        forget: told of each connection that is over, by its memory, so that nothing is kept for its next graph.
    """

    devices: Sequence[Device]
    tensors: TensorCache | None = None
    version: Version = DEFAULT
    others: tuple[Version, ...] = ()
    make_plan: MakePlan = make_plan
    graph_memory: Budget = field(default_factory=Budget)
    max_buffers: int = MAX_BUFFERS
    forget: Callable[[Memory], None] = lambda memory: None

    def __post_init__(self) -> None:
        """Refuse a version that this server would not serve right.

        Raises:
            Unsupported: for a version that is not known or has a request without a handler here, and for two versions that no
                client's HELLO tells apart.
        """
        for version in self.versions:
            if version not in PROFILES:
                raise Unsupported(f"this server can't speak {version}: known are {', '.join(map(str, PROFILES))}")
            for row in by_number(version).values():
                if row.cls not in Session.handlers and row.cls not in (*MOVED, GraphCompute):
                    raise Unsupported(f"this server can't speak {version}: it does not answer {command_name(row.cls)}")
        sizes: dict[int, Version] = {}
        for version in self.versions:
            size = codec.minimum_size(Hello, version)
            if size in sizes:
                raise Unsupported(
                    f"a server can't choose between {sizes[size]} and {version}: their clients say HELLO with the same {size} bytes"
                )
            sizes[size] = version

    @property
    def versions(self) -> tuple[Version, ...]:
        """Every version that is spoken, the usual one first."""
        return (self.version, *self.others)


class Changes(NamedTuple):
    """Counts of what has changed.

    Attributes:
        buffers: which there are, and whether somebody is to be told when bytes of theirs change.
        graphs: which are stored.
    """

    buffers: tuple[int, ...]
    graphs: int


class Session:
    """One connection's share of a server: what its requests refer to.

    Args:
        host: what it shares with the others.

    Attributes:
        handlers: request class to the function that answers it; a subclass may replace some.
        version: the protocol version that is spoken; see `speak`.
        memory: its buffers.
        stored: the graphs that GRAPH_RECOMPUTE may compute again.
        communicators: for each device that sums tensors with another server's, the connection to it.
        cancelled: asked between the steps of a graph whether to stop; set by the owner of the connection.
        peer: who is at the other end, for the log; set by the owner of the connection.
        tensors: the tensor cache, or this client's part of it; set by the owner of the connection.
        meeting: where other servers are met; set by the owner of the connection.
    """

    handlers: dict[type, Callable[[Session, Any], object]]

    def __init__(self, host: Host) -> None:
        self.host = host
        self.speak(host.version)
        self.communicators: dict[int, Communicator] = {}
        self.peer = ""
        self.tensors = host.tensors
        self.meeting = Meeting()
        self.cancelled: Cancelled = never

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def speak(self, version: Version) -> None:
        """Speak a version from here on; before the first request that needs buffers, which HELLO is."""
        self.version = version
        self.memory = Memory([device.memory for device in self.host.devices], version, self.host.max_buffers)
        self.stored = StoredGraphs(self.host.graph_memory, version)

    def handle(self, message: object) -> object:
        """Do what a request asks for and return its reply: a record, or NO_REPLY.

        Args:
            message: any request but those that carry data (`MOVED`), for which see `destination` and `source`; GRAPH_COMPUTE as
                `Graph`.

        Raises:
            Violation: for what the request must not ask for; call `close` then.
        """
        return self.handlers[type(message)](self, message)

    # ------------------------------------------------------------------------------------------------------------- data

    def destination(self, message: Upload, size: int) -> Area:
        """Return where the data of a request belong; once they are there, call `placed` with the same region.

        Args:
            message: the request, without its data.
            size: bytes of data that follow.

        Raises:
            Violation: as `region` and `rows`; data.rows-length.
        """
        if isinstance(message, SetTensor):
            return self.region(message.tensor, message.offset, size)
        if size != message.size * message.n_copies:
            detail = f"{message.n_copies} rows of {message.size} bytes need {message.size * message.n_copies}"
            raise Violation("data.rows-length", "data", f"{size} bytes", detail)
        return self.rows(message)

    def placed(self, message: Upload, region: Area) -> object:
        """Take note that all data of a request are in their place, and return its reply, as `handle` does."""
        if self.tensors is not None and isinstance(message, SetTensor) and isinstance(region, Region) and self.keeps(message):
            self.tensors.save(region.read())
        return self.done(type(message))

    def keeps(self, message: SetTensor) -> bool:
        """Whether the data of a request go to the tensor cache as well."""
        wished = message.cache_flag != 0 or not has_field(SetTensor, "cache_flag", self.version)
        return wished and self.tensors is not None

    def source(self, message: Download) -> Area:
        """Return where the bytes lie that a request asks for.

        Raises:
            Violation: as `region` and `rows`; data.rows-bounded.
        """
        if isinstance(message, GetTensor):
            return self.region(message.tensor, message.offset, message.size)
        rows = self.rows(message)
        # rows that do not overlap are bytes of the tensor, each at most once
        if rows.overlap and rows.size > MAX_OVERLAPPING:
            raise Violation("data.rows-bounded", "n_copies", message.n_copies, f"the reply would have {rows.size} bytes")
        return rows

    def region(self, wire: RpcTensor, offset: int, size: int, rule: str = "data.in-tensor") -> Region:
        """Return a range of a tensor's bytes.

        Args:
            wire: the tensor.
            offset: bytes from the tensor's first one.
            size: bytes.
            rule: what a range that leaves the tensor breaks.

        Raises:
            Violation: as `placed_tensor`; data.offset-wrap, or the rule named.
        """
        tensor, buffer = self.placed_tensor(wire)
        # Python's sum does not wrap, so the next check would refuse this too; it is apart because upstream's wraps (OBS-3)
        if rule == "data.in-tensor" and wire.data + offset > MAX_BYTES:
            raise Violation("data.offset-wrap", "offset", offset, f"it leaves 64 bits when added to the address {wire.data:#x}")
        if offset > tensor.nbytes:
            raise Violation(rule, "offset", offset, f"the tensor has {tensor.nbytes} bytes")
        if offset + size > tensor.nbytes:
            raise Violation(rule, "size", size, f"from offset {offset} the tensor has {tensor.nbytes - offset} bytes")
        start = tensor.offset + offset
        return Region(buffer.allocation, start, start + size)

    def rows(self, message: SetTensor2d | GetTensor2d) -> Rows:
        """Return rows of a tensor's bytes.

        Raises:
            Violation: as `placed_tensor`; data.rows-none, data.rows-in-tensor.
        """
        for name in ("n_copies", "size"):
            if not getattr(message, name):
                raise Violation("data.rows-none", name, 0, "there is at least one row of at least one byte")
        span = (message.n_copies - 1) * message.stride + message.size
        whole = self.region(message.tensor, message.offset, span, "data.rows-in-tensor")
        return Rows(whole, message.size, message.n_copies, message.stride)

    def placed_tensor(self, wire: RpcTensor, name: str = "tensor") -> tuple[Bounds, Buffer]:
        """Return a tensor that lies in a live buffer of this connection, and the buffer.

        Raises:
            Violation: tensor.type-known, tensor.block-multiple, tensor.in-buffer, tensor.buffer-known.
        """
        tensor = self.memory.bounds(wire, name)
        return tensor, tensor.buffer or self.memory.buffer(wire.buffer, "tensor.buffer-known", f"{name}.buffer")

    # ------------------------------------------------------------------------------------------------------------- others

    def device(self, index: int) -> Device:
        """Return a device by the index that a request names.

        Raises:
            Violation: device.index.
        """
        if index >= len(self.host.devices):
            raise Violation("device.index", "device", index, f"this server has {len(self.host.devices)}")
        return self.host.devices[index]

    def done(self, request: type) -> object:
        """Return the reply of a request that only acknowledges it, if it has one in this version."""
        return _acknowledgement(request, self.version)

    @property
    def changes(self) -> Changes:
        """What has changed so far of what answers follow from."""
        watching = [device.memory.watching for device in self.host.devices if isinstance(device.memory, HostMemory)]
        return Changes((self.memory.changes, *watching), self.stored.changes)

    def close(self) -> None:
        """Free every buffer, forget every graph and leave every other server: the connection is over."""
        for communicator in self.communicators.values():
            communicator.close()
        self.communicators.clear()
        self.stored.clear()
        self.memory.close()
        self.host.forget(self.memory)
