"""GRAPH_RECOMPUTE: which graph it computes, on which data, and when there is none to compute."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ggml_rpc_ref.conformance.arena import Arena, pack, recompute
from ggml_rpc_ref.conformance.case import case
from ggml_rpc_ref.conformance.peer import Subject
from ggml_rpc_ref.spec.messages import FreeBuffer, RpcTensor

# ----------------------------------------------------------------------------------------------------------- recompute


def _doubling(arena: Arena, values: Sequence[float]) -> tuple[RpcTensor, RpcTensor]:
    """Return a leaf and a node that doubles it, computed."""
    left = arena.leaf([len(values)], values)
    node = arena.node("ADD", [left, left], [len(values)])
    arena.compute(node)
    return left, node


@case("graph.recompute/same-data")
def recompute_same(subject: Subject) -> None:
    """A graph computed, its result overwritten, then GRAPH_RECOMPUTE: the result is there again."""
    arena = Arena(subject.connect())
    _, node = _doubling(arena, [1, 2])
    arena.peer.write(node, bytes(8))
    arena.peer.tell(arena.again())
    arena.expect(node, [2, 4])


@case("graph.recompute/new-data-100")
def recompute_new(subject: Subject) -> None:
    """A graph computed, then its input overwritten and GRAPH_RECOMPUTE sent, a hundred times: each time the new sum."""
    arena = Arena(subject.connect())
    left, node = _doubling(arena, [1, 2])
    for turn in range(100):
        arena.peer.write(left, pack("F32", [turn, -turn]))
        arena.peer.tell(arena.again())
        arena.expect(node, [2 * turn, -2 * turn])


@case("graph.recompute/last-of-two")
def recompute_last(subject: Subject) -> None:
    """Graph A, then graph B computed, both results overwritten, then GRAPH_RECOMPUTE: B's result is there again, A's is not."""
    # two arenas on one connection, which stores the last graph only
    arena, other = (Arena(peer) for peer in [subject.connect()] * 2)
    _, first = _doubling(arena, [1, 2])
    _, second = _doubling(other, [5, 6])
    for node in (first, second):
        arena.peer.write(node, bytes(8))
    arena.peer.tell(arena.again())
    other.expect(second, [10, 12])
    arena.expect(first, [0, 0])


@case("graph.recompute/per-device")
def recompute_per_device(subject: Subject) -> None:
    """A graph on each of two devices, computed in turn, then GRAPH_RECOMPUTE on the first: the first's result is there again."""
    device = subject.other_device()
    peer = subject.connect()
    first, second = Arena(peer), Arena(peer, device=device)
    _, node = _doubling(first, [1, 2])
    left = second.leaf([2], [7, 8])
    other = second.node("ADD", [left, left], [2])
    second.compute(other, device=device)
    peer.write(node, bytes(8))
    peer.write(other, bytes(8))
    peer.tell(first.again())
    first.expect(node, [2, 4])
    second.expect(other, [0, 0])


@case("graph.recompute/per-connection")
def recompute_per_connection(subject: Subject) -> None:
    """A graph on each of two connections, computed in turn, then GRAPH_RECOMPUTE on the first: its own result is there again."""
    first = Arena(subject.connect())
    _, node = _doubling(first, [1, 2])
    second = Arena(subject.connect_second())
    _, other = _doubling(second, [7, 8])
    first.peer.write(node, bytes(8))
    second.peer.write(other, bytes(8))
    first.peer.tell(first.again())
    first.expect(node, [2, 4])
    second.expect(other, [0, 0])


@case("graph.recompute/after-other-buffer-freed")
def recompute_after_other_free(subject: Subject) -> None:
    """A graph computed, a buffer freed that it does not use, then GRAPH_RECOMPUTE: computed again."""
    arena = Arena(subject.connect())
    unused = arena.peer.alloc(4096)
    _, node = _doubling(arena, [1, 2])
    arena.peer.takes(FreeBuffer(remote_ptr=unused.remote_ptr))
    arena.peer.write(node, bytes(8))
    arena.peer.tell(arena.again())
    arena.expect(node, [2, 4])


@case("graph.recompute/views")
def recompute_views(subject: Subject) -> None:
    """A graph over a view computed, the bytes under the view changed, then GRAPH_RECOMPUTE: computed from the new bytes."""
    arena = Arena(subject.connect())
    whole = arena.leaf([4], [1, 2, 3, 4])
    view = arena.view("VIEW", whole, [2], offset=8)
    node = arena.node("SCALE", [view], [2], params=struct.pack("<ff", 2.0, 0.0))
    arena.compute(view, node)
    arena.peer.write(whole, pack("F32", [10, 20, 30, 40]))
    arena.peer.tell(arena.again())
    arena.expect(node, [60, 80])


@case("graph.recompute-stored/none")
def recompute_without_graph(subject: Subject) -> None:
    """GRAPH_RECOMPUTE on a connection that has computed nothing: refused."""
    peer = subject.connect()
    peer.refuses(recompute(peer.version))


@case("graph.recompute-stored/earlier-connection")
def recompute_of_earlier_connection(subject: Subject) -> None:
    """GRAPH_RECOMPUTE on a new connection after one that had computed a graph has ended: refused."""
    first = Arena(subject.connect())
    _doubling(first, [1, 2])
    first.peer.close()
    subject.connect().refuses(first.again())


@case("graph.recompute-stored/other-device")
def recompute_on_other_device(subject: Subject) -> None:
    """A graph computed on device 0, then GRAPH_RECOMPUTE for device 1, which has computed nothing: refused."""
    device = subject.other_device()
    arena = Arena(subject.connect())
    _doubling(arena, [1, 2])
    arena.peer.refuses(arena.again(device))


LARGE = 40 * 2**20
"""Bytes: more than an allocator keeps for later (glibc maps what is over 32 MiB), so that touching it once freed shows."""


@case("graph.recompute-freed/{}", each={"only-buffer": False, "with-another-graph-since": True}, may_crash=True)
def recompute_freed(subject: Subject, detour: bool) -> None:
    """A graph computed, its buffer freed, then GRAPH_RECOMPUTE, {}: refused."""
    peer = subject.connect()
    if detour:
        _doubling(Arena(peer), [7, 8])
    arena = Arena(peer, LARGE)
    _doubling(arena, [1, 2])
    peer.takes(FreeBuffer(remote_ptr=arena.buffer.remote_ptr))
    peer.refuses(recompute(peer.version))


@case("graph.recompute-freed/buffer-of-a-source", may_crash=True)
def recompute_source_freed(subject: Subject) -> None:
    """A graph whose source lies in another buffer than its result, computed, that buffer freed, then GRAPH_RECOMPUTE: refused."""
    peer = subject.connect()
    inputs, results = Arena(peer, LARGE), Arena(peer)
    left = inputs.leaf([2], [1, 2])
    # before the node: it belongs to the graph, and ids are counted from what is there, so that the node gets another
    results.tensors[left.id] = left
    node = results.node("ADD", [left, left], [2])
    results.compute(node)
    results.expect(node, [2, 4], rule="graph.computes")
    peer.takes(FreeBuffer(remote_ptr=inputs.buffer.remote_ptr))
    peer.refuses(recompute(peer.version))


@case("graph.recompute-freed/allocated-again", may_crash=True)
def recompute_freed_and_allocated(subject: Subject) -> None:
    """A graph computed, its buffer freed, another of the same size allocated, then GRAPH_RECOMPUTE: refused."""
    peer = subject.connect()
    arena = Arena(peer, LARGE)
    _doubling(arena, [1, 2])
    peer.takes(FreeBuffer(remote_ptr=arena.buffer.remote_ptr))
    peer.alloc(LARGE)
    peer.refuses(recompute(peer.version))


# --------------------------------------------------------------------------------------------------------- empty graphs


@case("graph.recompute/of-an-empty-graph")
def recompute_nothing(subject: Subject) -> None:
    """A graph computed, then one of no nodes, the first's result overwritten, then GRAPH_RECOMPUTE: it is not computed again."""
    arena = Arena(subject.connect())
    _, node = _doubling(arena, [1, 2])
    arena.compute()
    arena.peer.write(node, bytes(8))
    arena.peer.tell(arena.again())
    arena.expect(node, [0, 0])
