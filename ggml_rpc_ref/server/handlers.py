"""What a server does with each request: one function per request, message in, reply out. No sockets, no bytes of the wire.

    host = Host([Device("oracle", "numpy", Oracle(HostMemory(2**30)))])
    with Session(host) as session:
        reply = session.handle(AllocBuffer(device=0, size=4096))

`Host` is what all connections share, `Session` what one connection has: its buffers and, for each device, the plan of the graph
that it computed last. A bad request raises a Violation; the connection is over then, and `close` frees what it had.
All bytes belong to the memory of a device's backend; a handler touches them through a `Region`.

The bytes of SET_TENSOR and GET_TENSOR are not handled here but moved by the owner of the channel, to `destination` and from
`source`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from ggml_rpc_ref.backends import Backend, Cancelled, never
from ggml_rpc_ref.backends.memory import DeviceMemory
from ggml_rpc_ref.errors import Unsupported, Violation
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server.budget import ARRIVING, KEPT, Budget, Share
from ggml_rpc_ref.server.memory import ALIGNMENT, MAX_BUFFERS, Buffer, Memory, Region
from ggml_rpc_ref.server.plan import make_plan
from ggml_rpc_ref.server.tensor_cache import TensorCache
from ggml_rpc_ref.spec.messages import (
    NO_REPLY,
    REQUESTS,
    AllocBuffer,
    AllocBufferReply,
    BufferClear,
    BufferGetBase,
    BufferGetBaseReply,
    CopyTensor,
    CopyTensorReply,
    DeviceCount,
    DeviceCountReply,
    Empty,
    FreeBuffer,
    GetAlignment,
    GetAlignmentReply,
    GetAllocSize,
    GetAllocSizeReply,
    GetDeviceMemory,
    GetDeviceMemoryReply,
    GetMaxSize,
    GetMaxSizeReply,
    GetTensor,
    GraphCompute,
    GraphComputeReply,
    GraphRecompute,
    Hello,
    HelloReply,
    InitTensor,
    RpcTensor,
    SetTensor,
    SetTensorHash,
    SetTensorHashReply,
    by_number,
    command_name,
)
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES, Version
from ggml_rpc_ref.tensor import MAX_BYTES, Tensor

log = logging.getLogger(__name__)


class Runnable(Protocol):
    """A checked graph that can be computed, as `plan.Plan` is."""

    @property
    def buffers(self) -> frozenset[Buffer]:
        """The buffers that its tensors lie in."""

    def run(self, cancelled: Cancelled) -> None:
        """Compute it on the bytes that are there now, until it is done or cancelled (then it raises `backends.Stopped`)."""


MakePlan = Callable[[Graph, Memory, Backend, Version], Runnable]


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
        make_plan: checks and compiles a graph.
        graph_memory: memory for graphs that arrive and plans that are kept.
        max_buffers: live buffers that one connection may have; one more is answered with (0, 0).
    """

    devices: Sequence[Device]
    tensors: TensorCache | None = None
    version: Version = DEFAULT
    make_plan: MakePlan = make_plan
    graph_memory: Budget = field(default_factory=Budget)
    max_buffers: int = MAX_BUFFERS

    def __post_init__(self) -> None:
        """Refuse a version that this server would not serve right.

        Raises:
            Unsupported: for a version that is not known, has a request without a handler here, or no one op table.
        """
        if self.version not in PROFILES:
            raise Unsupported(f"this server can't speak {self.version}: known are {', '.join(map(str, PROFILES))}")
        if not op_table(self.version):
            raise Unsupported(f"this server can't speak {self.version}: its builds number ops differently")
        for row in by_number(self.version).values():
            if row.cls not in Session.handlers and row.cls not in (SetTensor, GetTensor, GraphCompute):
                raise Unsupported(f"this server can't speak {self.version}: it does not answer {command_name(row.cls)}")


class Session:
    """One connection's share of a server: what its requests refer to.

    Args:
        host: what it shares with the others.

    Attributes:
        handlers: request class to the function that answers it; a subclass may replace some.
        memory: its buffers.
        plans: for each device that has computed a graph, the plan of the last one.
        cancelled: asked between the steps of a graph whether to stop; set by the owner of the connection.
        peer: who is at the other end, for the log; set by the owner of the connection.
        tensors: the tensor cache, or this client's part of it; set by the owner of the connection.
        graph_memory: what its plans, and a graph that is arriving, have of the host's memory for graphs.
    """

    handlers: dict[type, Callable[[Session, Any], object]]

    def __init__(self, host: Host) -> None:
        self.host = host
        self.memory = Memory([device.memory for device in host.devices], host.version, host.max_buffers)
        self.plans: dict[int, Runnable] = {}
        self.graph_memory, self._plan_sizes = Share(host.graph_memory), dict[int, int]()
        self.peer = ""
        self.tensors = host.tensors
        self.cancelled: Cancelled = never

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def handle(self, message: object) -> object:
        """Do what a request asks for and return its reply: a record, or NO_REPLY.

        Args:
            message: any request but SetTensor and GetTensor, for which see `destination` and `source`; GRAPH_COMPUTE as
                `Graph`.

        Raises:
            Violation: for what the request must not ask for; call `close` then.
        """
        return self.handlers[type(message)](self, message)

    def destination(self, message: SetTensor, size: int) -> Region:
        """Return where the data of a SET_TENSOR belong; once they are there, call `placed` with the same region.

        Args:
            message: the request, without its data.
            size: bytes of data that follow.

        Raises:
            Violation: as `region`.
        """
        return self.region(message.tensor, message.offset, size)

    def placed(self, region: Region) -> object:
        """Take note that all the data of a SET_TENSOR are in their place, and return its reply, as `handle` does."""
        if self.tensors is not None:
            self.tensors.save(region.read())
        return self.done(SetTensor)

    def source(self, message: GetTensor) -> Region:
        """Return where the bytes lie that a GET_TENSOR asks for.

        Raises:
            Violation: as `region`.
        """
        return self.region(message.tensor, message.offset, message.size)

    def region(self, wire: RpcTensor, offset: int, size: int) -> Region:
        """Return a range of a tensor's bytes.

        Args:
            wire: the tensor.
            offset: bytes from the tensor's first one.
            size: bytes.

        Raises:
            Violation: as `placed_tensor`; data.offset-wrap, data.in-tensor.
        """
        tensor, buffer = self.placed_tensor(wire)
        # Python's sum does not wrap, so the next check would refuse this too; it is apart because upstream's wraps (OBS-3)
        if wire.data + offset > MAX_BYTES:
            raise Violation("data.offset-wrap", "offset", offset, f"it leaves 64 bits when added to the address {wire.data:#x}")
        if offset > tensor.nbytes:
            raise Violation("data.in-tensor", "offset", offset, f"the tensor has {tensor.nbytes} bytes")
        if offset + size > tensor.nbytes:
            raise Violation("data.in-tensor", "size", size, f"from offset {offset} the tensor has {tensor.nbytes - offset} bytes")
        start = tensor.offset + offset
        return Region(buffer.allocation, start, start + size)

    def placed_tensor(self, wire: RpcTensor, name: str = "tensor") -> tuple[Tensor, Buffer]:
        """Return a tensor that lies in a live buffer of this connection, and the buffer.

        Raises:
            Violation: tensor.type-known, tensor.block-multiple, tensor.in-buffer, tensor.buffer-known.
        """
        tensor = self.memory.tensor(wire, name)
        buffer = self.memory.buffer(wire.buffer, "tensor.buffer-known", f"{name}.buffer")
        return tensor, buffer

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
        reply = REQUESTS[request].reply(self.host.version)
        if reply is GraphComputeReply:
            return GraphComputeReply(result=0)
        return reply if reply is NO_REPLY else Empty()

    def hold_graph(self, arrived: int) -> None:
        """Count the memory for a graph of which so many bytes have arrived; 0: for the plans alone.

        Raises:
            Violation: frame.size-bounded, where there is no room for it.
        """
        if not self.graph_memory.resize(sum(self._plan_sizes.values()) + ARRIVING * arrived):
            budget = self.graph_memory.budget
            detail = f"a connection's graphs have {budget.per_share} bytes of memory, {budget.used} of {budget.total} are taken"
            raise Violation("frame.size-bounded", "GraphCompute size", f"{arrived} bytes so far", detail)

    def keep_plan(self, device: int, plan: Runnable, size: int) -> None:
        """Keep a plan made from a graph of `size` bytes for GRAPH_RECOMPUTE."""
        self.plans[device], self._plan_sizes[device] = plan, KEPT * size

    def drop_plan(self, device: int) -> None:
        """Forget a device's plan, if it has one; its memory is given back by the next `hold_graph`.

        Not here: what a graph that is being taken has already been given must not be free for others in between.
        """
        self.plans.pop(device, None)
        self._plan_sizes.pop(device, None)

    def close(self) -> None:
        """Free every buffer and forget every plan: the connection is over."""
        self.plans.clear()
        self._plan_sizes.clear()
        self.graph_memory.resize(0)
        self.memory.close()


# -------------------------------------------------------------------------------------------------------------- the server


def hello(session: Session, _: Hello) -> HelloReply:
    """Answer with the version that this server speaks."""
    major, minor, patch = session.host.version
    return HelloReply(major=major, minor=minor, patch=patch)


def device_count(session: Session, _: DeviceCount) -> DeviceCountReply:
    """Answer with the number of devices."""
    return DeviceCountReply(device_count=len(session.host.devices))


def get_device_memory(session: Session, request: GetDeviceMemory) -> GetDeviceMemoryReply:
    """Answer with a device's total memory, and how much of it no buffer of any connection uses now."""
    memory = session.device(request.device).memory
    return GetDeviceMemoryReply(free_mem=memory.free, total_mem=memory.total)


def get_alignment(session: Session, request: GetAlignment) -> GetAlignmentReply:
    """Answer with what the addresses of tensors must be multiples of."""
    session.device(request.device)
    return GetAlignmentReply(alignment=ALIGNMENT)


def get_max_size(session: Session, request: GetMaxSize) -> GetMaxSizeReply:
    """Answer with the largest size of a buffer: the device's total memory."""
    return GetMaxSizeReply(max_size=session.device(request.device).memory.total)


# ----------------------------------------------------------------------------------------------------------------- buffers


def alloc_buffer(session: Session, request: AllocBuffer) -> AllocBufferReply:
    """Allocate a buffer, its bytes all zero; if there is no room the reply is (0, 0) and the connection goes on."""
    session.device(request.device)
    buffer = session.memory.alloc(request.device, request.size)
    if buffer is None:
        log.info(
            "no room for a buffer of %d bytes on device %d, asked for by %s",
            request.size,
            request.device,
            session.peer or "a peer",
            extra={"event": "no room", "peer": session.peer},
        )
        return AllocBufferReply(remote_ptr=0, remote_size=0)
    return AllocBufferReply(remote_ptr=buffer.remote_ptr, remote_size=buffer.size)


def buffer_get_base(session: Session, request: BufferGetBase) -> BufferGetBaseReply:
    """Answer with the address of a buffer's first byte."""
    return BufferGetBaseReply(base_ptr=session.memory.buffer(request.remote_ptr).base)


def free_buffer(session: Session, request: FreeBuffer) -> object:
    """Free a buffer, and drop every stored plan that uses it (graph.recompute-freed)."""
    buffer = session.memory.free(request.remote_ptr)
    # a list, because drop_plan takes away from the dictionary
    for device in [device for device, plan in session.plans.items() if buffer in plan.buffers]:
        session.drop_plan(device)
    session.hold_graph(0)
    return session.done(FreeBuffer)


def buffer_clear(session: Session, request: BufferClear) -> object:
    """Set every byte of a buffer."""
    session.memory.buffer(request.remote_ptr).allocation.clear(request.value)
    return session.done(BufferClear)


# ----------------------------------------------------------------------------------------------------------------- tensors


def set_tensor_hash(session: Session, request: SetTensorHash) -> SetTensorHashReply:
    """Write data that the cache has under this hash and answer 1; answer 0 where it has none that fit.

    The tensor is checked before the cache is asked, so that what is refused does not depend on what the cache holds. (Upstream
    looks at the tensor only if it has the data; a stock client sends a good tensor either way.)
    """
    tensor, _ = session.placed_tensor(request.tensor)
    # max: an offset past the end must reach the check of `region`, which names it, not become a negative size
    room = session.region(request.tensor, request.offset, max(0, tensor.nbytes - request.offset))
    cache = session.tensors
    if cache is None:
        return SetTensorHashReply(result=0)
    count = room.load(lambda data: cache.load(request.hash, data))
    return SetTensorHashReply(result=0 if count is None else 1)


def copy_tensor(session: Session, request: CopyTensor) -> CopyTensorReply:
    """Copy the bytes of one tensor over those of another, also between devices.

    As upstream's CPU backend does, it copies the source's bytes as they lie, strides and all.
    """
    src, src_buffer = session.placed_tensor(request.src, "src")
    dst, dst_buffer = session.placed_tensor(request.dst, "dst")
    if src.nbytes > dst.nbytes:
        raise Violation("data.copy-fits", "dst", f"{dst.nbytes} bytes", f"the source has {src.nbytes}")
    dst_buffer.allocation.copy(dst.offset, src_buffer.allocation, src.offset, src.offset + src.nbytes)
    return CopyTensorReply(result=1)


def init_tensor(session: Session, request: InitTensor) -> object:
    """Do nothing: this memory needs no padding. A tensor without a buffer is fine as well (FUN-21)."""
    session.memory.tensor(request.tensor)
    return session.done(InitTensor)


def get_alloc_size(session: Session, request: GetAllocSize) -> GetAllocSizeReply:
    """Answer with the bytes that a tensor needs: ggml_nbytes, as upstream's CPU backend does for every op."""
    session.device(request.device)
    tensor = session.memory.tensor(request.tensor)
    for slot, wire in enumerate(request.srcs):
        # a stock client fills all slots; the absent sources are records of zeros (serialize_tensor in ggml-rpc.cpp, OBS-10)
        if wire.id != 0:
            session.memory.tensor(wire, f"srcs[{slot}]")
    if tensor.nbytes > MAX_BYTES:
        raise Violation("tensor.alloc-size", "tensor.ne", request.tensor.ne, f"its {tensor.nbytes} bytes fit into no reply")
    return GetAllocSizeReply(alloc_size=tensor.nbytes)


# ------------------------------------------------------------------------------------------------------------------ graphs


def graph_compute(session: Session, graph: Graph) -> object:
    """Check a graph, compute it, and keep its plan for GRAPH_RECOMPUTE; the device's older plan is dropped even if this fails."""
    device = session.device(graph.device)
    # before the check: a failing graph must leave no older one to be recomputed, and the older one's memory is free for this
    session.drop_plan(graph.device)
    size = graph.nodes.nbytes + graph.tensors.nbytes
    # a graph of up to `served.READ` bytes has not been counted while it arrived
    session.hold_graph(size)
    plan = session.host.make_plan(graph, session.memory, device.backend, session.host.version)
    plan.run(session.cancelled)
    # the second call only lowers what is held, since KEPT < ARRIVING: it can't be refused after the graph has been computed
    session.keep_plan(graph.device, plan, size)
    session.hold_graph(0)
    return session.done(GraphCompute)


def graph_recompute(session: Session, request: GraphRecompute) -> object:
    """Compute the device's stored plan again, on the data as they are now."""
    session.device(request.device)
    plan = session.plans.get(request.device)
    if plan is None:
        raise Violation("graph.recompute-stored", "device", request.device, "no graph is stored for it")
    plan.run(session.cancelled)
    return session.done(GraphRecompute)


Session.handlers = {
    AllocBuffer: alloc_buffer,
    GetAlignment: get_alignment,
    GetMaxSize: get_max_size,
    BufferGetBase: buffer_get_base,
    FreeBuffer: free_buffer,
    BufferClear: buffer_clear,
    SetTensorHash: set_tensor_hash,
    CopyTensor: copy_tensor,
    Graph: graph_compute,
    GetDeviceMemory: get_device_memory,
    InitTensor: init_tensor,
    GetAllocSize: get_alloc_size,
    Hello: hello,
    DeviceCount: device_count,
    GraphRecompute: graph_recompute,
}
"""In command-number order. SetTensor and GetTensor are not among them: their data move past this module."""
