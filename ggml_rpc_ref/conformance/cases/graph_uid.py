"""Graphs with numbers of their own, uids: which one GRAPH_RECOMPUTE computes, and how many a device stores. And use_count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ggml_rpc_ref.conformance import marks
from ggml_rpc_ref.conformance.arena import Arena, pack, recompute
from ggml_rpc_ref.conformance.case import case
from ggml_rpc_ref.conformance.peer import Subject
from ggml_rpc_ref.spec.messages import MAX_STORED_GRAPHS, GraphCompute, GraphRecompute, RpcTensor


def _doubling(arena: Arena, values: Sequence[float], uid: int) -> tuple[RpcTensor, RpcTensor]:
    """Return a leaf and a node that doubles it, computed as a graph of this uid."""
    left = arena.leaf([len(values)], values)
    node = arena.node("ADD", [left, left], [len(values)])
    arena.peer.tell(arena.graph(node, uid=uid))
    return left, node


# ----------------------------------------------------------------------------------------------------------- use_count


@case("graph.use-count/{}", each={"0": 0, "1": 1, "100": 100, "2-31-less-1": 2**31 - 1, "minus-1": -1, "minus-2-31": -(2**31)})
def any_use_count(subject: Subject, uses: int) -> None:
    """A graph of two nodes whose tensors all have use_count {}: computed as ever."""
    arena = Arena(subject.connect())
    left = arena.leaf([2], [1, 2])
    first = arena.node("ADD", [left, left], [2])
    second = arena.node("MUL", [first, left], [2])
    for tensor in (left, first, second):
        arena.change(tensor, use_count=uses)
    arena.compute(first, second)
    arena.expect(second, [2, 8])
    arena.expect(first, [2, 4])


# ------------------------------------------------------------------------------------------------------- recompute-uid


@case("graph.recompute-uid/first-of-two")
def first_of_two(subject: Subject) -> None:
    """Two graphs with uids 1 and 2, both results overwritten, GRAPH_RECOMPUTE of 1: the first's result is there again, alone."""
    peer = subject.connect()
    arena, other = Arena(peer), Arena(peer)
    _, first = _doubling(arena, [1, 2], 1)
    _, second = _doubling(other, [5, 6], 2)
    for node in (first, second):
        peer.write(node, bytes(8))
    peer.tell(recompute(peer.version, uid=1))
    arena.expect(first, [2, 4])
    other.expect(second, [0, 0])
    peer.tell(recompute(peer.version, uid=2))
    other.expect(second, [10, 12])


@case("graph.recompute-uid/{}", each={"2-63": 2**63, "2-64-less-1": 2**64 - 1})
def uid_of_any_size(subject: Subject, uid: int) -> None:
    """A graph with uid {}, its result overwritten, GRAPH_RECOMPUTE: the result is there again."""
    arena = Arena(subject.connect())
    _, node = _doubling(arena, [1, 2], uid)
    arena.peer.write(node, bytes(8))
    arena.peer.tell(arena.again(uid=uid))
    arena.expect(node, [2, 4])


@case("graph.recompute-uid/replaced")
def replaced_under_its_uid(subject: Subject) -> None:
    """Two graphs under one uid, both results overwritten, GRAPH_RECOMPUTE: the second's result is there again, alone."""
    peer = subject.connect()
    arena, other = Arena(peer), Arena(peer)
    _, first = _doubling(arena, [1, 2], 9)
    _, second = _doubling(other, [5, 6], 9)
    for node in (first, second):
        peer.write(node, bytes(8))
    peer.tell(recompute(peer.version, uid=9))
    other.expect(second, [10, 12])
    arena.expect(first, [0, 0])


@case("graph.recompute-uid/new-data-20")
def new_data(subject: Subject) -> None:
    """Two graphs, their inputs overwritten and both computed again in turn, twenty times: each time the new sums."""
    peer = subject.connect()
    arenas = [Arena(peer), Arena(peer)]
    pairs = [_doubling(arena, [1, 2], uid) for uid, arena in enumerate(arenas, 1)]
    for turn in range(20):
        for uid, (left, _) in enumerate(pairs, 1):
            peer.write(left, pack("F32", [turn * uid, -turn]))
            peer.tell(recompute(peer.version, uid=uid))
        for uid, ((_, node), arena) in enumerate(zip(pairs, arenas, strict=True), 1):
            arena.expect(node, [2 * turn * uid, -2 * turn])


@case("graph.recompute-uid/per-device")
def per_device(subject: Subject) -> None:
    """A graph on each of two devices under the same uid, GRAPH_RECOMPUTE on the first: the first's result is there again."""
    device = subject.other_device()
    peer = subject.connect()
    first, second = Arena(peer), Arena(peer, device=device)
    _, node = _doubling(first, [1, 2], 3)
    left = second.leaf([2], [7, 8])
    other = second.node("ADD", [left, left], [2])
    peer.tell(second.graph(other, device=device, uid=3))
    peer.write(node, bytes(8))
    peer.write(other, bytes(8))
    peer.tell(recompute(peer.version, uid=3))
    first.expect(node, [2, 4])
    second.expect(other, [0, 0])


@case("graph.recompute-stored/other-uid", since=marks.field_since(GraphRecompute, "uid"))
def uid_never_sent(subject: Subject) -> None:
    """A graph with uid 1, then GRAPH_RECOMPUTE of uid 2: refused."""
    arena = Arena(subject.connect())
    _doubling(arena, [1, 2], 1)
    arena.peer.refuses(arena.again(uid=2))


# ------------------------------------------------------------------------------------------------------------ uid-zero


@case("graph.uid-zero/computed")
def computed_without_uid(subject: Subject) -> None:
    """A graph of uid 0: computed."""
    arena = Arena(subject.connect())
    _, node = _doubling(arena, [1, 2], 0)
    arena.expect(node, [2, 4], rule="graph.computes")


@case("graph.uid-zero/{}", each={"not-stored": 0, "among-others": 5})
def recompute_zero(subject: Subject, other: int) -> None:
    """A graph of uid 0 after one of another uid or alone, {}, then GRAPH_RECOMPUTE of uid 0: refused."""
    arena = Arena(subject.connect())
    if other:
        _doubling(arena, [3, 4], other)
    _doubling(arena, [1, 2], 0)
    arena.peer.refuses(arena.again(uid=0))


# ----------------------------------------------------------------------------------------------------------- uid-store


def _many(arena: Arena, uids: range) -> None:
    """Send one small graph under each of these uids."""
    left = arena.leaf([1], [1.0])
    node = arena.node("ADD", [left, left], [1])
    graph: GraphCompute = arena.graph(node)
    arena.peer.tell(*[replace(graph, uid=uid) for uid in uids])


@case("graph.uid-store/all-kept", patience=4.0)
def as_many_as_are_kept(subject: Subject) -> None:
    """Graphs under 1,024 uids, then GRAPH_RECOMPUTE of the first and of the last: accepted."""
    arena = Arena(subject.connect())
    _, node = _doubling(arena, [1, 2], 1)
    _many(arena, range(2, MAX_STORED_GRAPHS + 1))
    arena.peer.write(node, bytes(8))
    arena.peer.tell(arena.again(uid=1))
    arena.expect(node, [2, 4])
    arena.peer.tell(arena.again(uid=MAX_STORED_GRAPHS))


@case("graph.uid-store/{}-dropped", each={"first": 1, "last": MAX_STORED_GRAPHS}, patience=4.0)
def one_too_many(subject: Subject, uid: int) -> None:
    """Graphs under 1,025 uids, then GRAPH_RECOMPUTE of the last: accepted; then of the {} of the 1,024 before: refused."""
    arena = Arena(subject.connect())
    _many(arena, range(1, MAX_STORED_GRAPHS + 1))
    _, node = _doubling(arena, [1, 2], MAX_STORED_GRAPHS + 1)
    arena.peer.write(node, bytes(8))
    arena.peer.tell(arena.again(uid=MAX_STORED_GRAPHS + 1))
    arena.expect(node, [2, 4])
    arena.peer.refuses(arena.again(uid=uid))
