"""What a server does with each request: one function per request, message in, reply out. No sockets, no bytes of the wire.

A function gets the `Session` of the connection and the request, and returns the reply: a record, or NO_REPLY. A bad request raises
a Violation.
"""

from __future__ import annotations

import logging

import numpy as np

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server import communicator
from ggml_rpc_ref.server.memory import ALIGNMENT
from ggml_rpc_ref.server.session import Device, Host, Session
from ggml_rpc_ref.spec.messages import (
    AllocBuffer,
    AllocBufferReply,
    BufferClear,
    BufferGetBase,
    BufferGetBaseReply,
    CommAllreduce,
    CommFree,
    CommInit,
    CommInitReply,
    CopyTensor,
    CopyTensorReply,
    DeviceCount,
    DeviceCountReply,
    FreeBuffer,
    GetAlignment,
    GetAlignmentReply,
    GetAllocSize,
    GetAllocSizeReply,
    GetDeviceMemory,
    GetDeviceMemoryReply,
    GetMaxSize,
    GetMaxSizeReply,
    GraphCompute,
    GraphRecompute,
    Hello,
    HelloReply,
    InitTensor,
    MemsetTensor,
    SetTensorHash,
    SetTensorHashReply,
)
from ggml_rpc_ref.tensor import MAX_BYTES

__all__ = ["Device", "Host", "Session"]

log = logging.getLogger(__name__)

# -------------------------------------------------------------------------------------------------------------- the server


def hello(session: Session, _: Hello) -> HelloReply:
    """Answer with the version that this server speaks."""
    major, minor, patch = session.version
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
    """Free a buffer, and drop every stored graph that uses it (graph.recompute-freed)."""
    session.stored.drop(session.memory.free(request.remote_ptr))
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


def memset_tensor(session: Session, request: MemsetTensor) -> object:
    """Set bytes of a tensor."""
    for room in session.region(request.tensor, request.offset, request.size, "data.memset-in-tensor").receive():
        np.frombuffer(room, np.uint8).fill(request.value)
    return session.done(MemsetTensor)


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
    session.memory.bounds(request.tensor)
    return session.done(InitTensor)


def get_alloc_size(session: Session, request: GetAllocSize) -> GetAllocSizeReply:
    """Answer with the bytes that a tensor needs: ggml_nbytes, as upstream's CPU backend does for every op."""
    session.device(request.device)
    tensor = session.memory.bounds(request.tensor)
    for slot, wire in enumerate(request.srcs):
        # a stock client fills all slots; the absent sources are records of zeros (serialize_tensor in ggml-rpc.cpp, OBS-10)
        if wire.id != 0:
            session.memory.bounds(wire, f"srcs[{slot}]")
    if tensor.nbytes > MAX_BYTES:
        raise Violation("tensor.alloc-size", "tensor.ne", request.tensor.ne, f"its {tensor.nbytes} bytes fit into no reply")
    return GetAllocSizeReply(alloc_size=tensor.nbytes)


# ------------------------------------------------------------------------------------------------------------------ graphs


def graph_compute(session: Session, graph: Graph) -> object:
    """Check a graph, compute it, and store it for GRAPH_RECOMPUTE; what was stored in its place is dropped even if this fails."""
    device = session.device(graph.device)
    plan = session.stored.take(graph)
    if plan is None:
        # before the check: a failing graph must leave no older one to be recomputed, and the older one's memory is free for this
        session.stored.make_room(graph)
        plan = session.host.make_plan(graph, session.memory, device.backend, session.version)
    plan.run(session.cancelled)
    session.stored.store(graph, plan)
    return session.done(GraphCompute)


def graph_recompute(session: Session, request: GraphRecompute) -> object:
    """Compute a stored graph again, on the data as they are now."""
    device = session.device(request.device)
    plan = session.stored.find(
        request.device, request.uid, lambda graph: session.host.make_plan(graph, session.memory, device.backend, session.version)
    )
    plan.run(session.cancelled)
    return session.done(GraphRecompute)


# ---------------------------------------------------------------------------------------------------------- another server


def comm_init(session: Session, request: CommInit) -> CommInitReply:
    """Connect a device with one of another server and answer 1; answer 0 where that can't be done, and go on."""
    if request.device in session.communicators:
        return CommInitReply(ok=1)
    if request.device >= len(session.host.devices) or request.world != communicator.WORLD or request.rank >= request.world:
        return CommInitReply(ok=0)
    found = communicator.meet(request, session.meeting, session.cancelled)
    if found is None:
        return CommInitReply(ok=0)
    session.communicators[request.device] = found
    return CommInitReply(ok=1)


def comm_allreduce(session: Session, request: CommAllreduce) -> object:
    """Add the other server's tensor to this one."""
    device = session.device(request.device)
    peer = session.communicators.get(request.device)
    if peer is None:
        raise Violation("comm.needed", "device", request.device, "it has no communicator: COMM_INIT comes first")
    tensor = session.memory.tensor(request.tensor)
    buffer = session.memory.buffer(request.tensor.buffer, "comm.tensor", "tensor.buffer")
    peer.add(tensor, buffer.allocation, device.memory, session.cancelled)
    return session.done(CommAllreduce)


def comm_free(session: Session, request: CommFree) -> object:
    """End a device's connection with another server, if it has one."""
    session.device(request.device)
    peer = session.communicators.pop(request.device, None)
    if peer is not None:
        peer.close()
    return session.done(CommFree)


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
    MemsetTensor: memset_tensor,
    CommInit: comm_init,
    CommAllreduce: comm_allreduce,
    CommFree: comm_free,
}
"""In command-number order. Those that carry data are not among them: their data move past this module (`session.MOVED`)."""
