"""Devices: their number, and what is asked of each."""

from __future__ import annotations

from collections.abc import Callable

from ggml_rpc_ref.conformance import marks
from ggml_rpc_ref.conformance.arena import Arena, recompute
from ggml_rpc_ref.conformance.case import case
from ggml_rpc_ref.conformance.peer import Peer, Subject
from ggml_rpc_ref.conformance.verdict import require
from ggml_rpc_ref.spec.messages import (
    AllocBuffer,
    DeviceCount,
    GetAlignment,
    GetAllocSize,
    GetDeviceMemory,
    GetMaxSize,
    GraphCompute,
    GraphRecompute,
    RpcTensor,
)
from ggml_rpc_ref.spec.versions import Version

# --------------------------------------------------------------------------------------------------------------- index

F32 = RpcTensor(id=1, ne=(4, 1, 1, 1), nb=(4, 16, 16, 16))

OnDevice = Callable[[Peer, int], object]

ON_DEVICE: dict[str, OnDevice] = {
    "alloc-buffer": lambda peer, device: AllocBuffer(device=device, size=64),
    "get-alignment": lambda peer, device: GetAlignment(device=device),
    "get-max-size": lambda peer, device: GetMaxSize(device=device),
    "graph-compute": lambda peer, device: GraphCompute(device=device, nodes=(), tensors=()),
    "get-device-memory": lambda peer, device: GetDeviceMemory(device=device),
    "get-alloc-size": lambda peer, device: GetAllocSize(device=device, tensor=F32),
    "graph-recompute": lambda peer, device: recompute(peer.version, device),
}
"""The requests that name a device, and are refused where it is none. (COMM_INIT is answered with 0.)"""


def _since(request: OnDevice) -> Version | None:
    return marks.request_since(GraphRecompute) if request is ON_DEVICE["graph-recompute"] else None


@case("device.index/{}-first-too-large", each=ON_DEVICE, since=_since)
def first_too_large(subject: Subject, request: OnDevice) -> None:
    """{} for device number DEVICE_COUNT, one above the last: refused."""
    peer = subject.connect()
    _store_graph(peer)
    peer.refuses(request(peer, subject.facts.device_count))


@case("device.index/{}-2-32-less-1", each=ON_DEVICE, since=_since)
def far_too_large(subject: Subject, request: OnDevice) -> None:
    """{} for device 2^32-1: refused."""
    peer = subject.connect()
    _store_graph(peer)
    peer.refuses(request(peer, 2**32 - 1))


def _store_graph(peer: Peer) -> None:
    """Store a graph on every device, so that GRAPH_RECOMPUTE can't be refused for lack of one."""
    for device in range(min(peer.subject.facts.device_count, 4)):
        arena = Arena(peer, device=device)
        left = arena.leaf([1], [1.0])
        arena.compute(arena.node("ADD", [left, left], [1]), device=device)


# --------------------------------------------------------------------------------------------------------------- count


@case("device.count/at-least-1")
def one_device(subject: Subject) -> None:
    """DEVICE_COUNT: at least 1."""
    count = subject.connect().ask(DeviceCount()).device_count
    require(count >= 1, "at least 1", count)


@case("device.count/does-not-change")
def same_count(subject: Subject) -> None:
    """DEVICE_COUNT five times on one connection and once on a second: the same number each time."""
    peer = subject.connect()
    counts = [peer.ask(DeviceCount()).device_count for _ in range(5)]
    peer.close()
    counts.append(subject.connect().ask(DeviceCount()).device_count)
    require(len(set(counts)) == 1, "one number", counts)


# ----------------------------------------------------------------------------------------------- memory, alignment, size


def _devices(subject: Subject) -> range:
    return range(subject.facts.device_count)


@case("device.memory/free-below-total")
def free_and_total(subject: Subject) -> None:
    """GET_DEVICE_MEMORY of every device: no more free than total."""
    peer = subject.connect()
    for device in _devices(subject):
        got = peer.ask(GetDeviceMemory(device=device))
        require(got.free_mem <= got.total_mem, "no more free than total", f"{got.free_mem} of {got.total_mem}")


@case("device.memory/after-alloc")
def free_and_total_after_alloc(subject: Subject) -> None:
    """GET_DEVICE_MEMORY while a buffer of 1 MiB is held: no more free than total."""
    peer = subject.connect()
    peer.alloc(2**20)
    after = peer.ask(GetDeviceMemory())
    require(after.free_mem <= after.total_mem, "no more free than total", f"{after.free_mem} of {after.total_mem}")


@case("device.alignment/power-of-two")
def power_of_two(subject: Subject) -> None:
    """GET_ALIGNMENT of every device: a power of two."""
    peer = subject.connect()
    for device in _devices(subject):
        got = peer.ask(GetAlignment(device=device)).alignment
        require(got.bit_count() == 1, "a power of two", got)


@case("device.alignment/of-bases")
def aligned_bases(subject: Subject) -> None:
    """Eight buffers of odd sizes on every device: each base_ptr is a multiple of the device's alignment."""
    peer = subject.connect()
    for device in _devices(subject):
        alignment = peer.ask(GetAlignment(device=device)).alignment
        for size in (1, 2, 3, 31, 33, 100, 1000, 4097):
            base = peer.alloc(size, device).base
            require(alignment > 0 and base % alignment == 0, f"a multiple of {alignment}", hex(base))


@case("device.max-size/above-0")
def max_size(subject: Subject) -> None:
    """GET_MAX_SIZE of every device: above 0."""
    peer = subject.connect()
    for device in _devices(subject):
        got = peer.ask(GetMaxSize(device=device)).max_size
        require(got > 0, "above 0", got)
