"""Graphs over quantised weights that change between two computations: what a server has kept of them must not be used again.

Servers keep de-quantised or repacked copies of weights; whatever changes the bytes of a weight must change the next result.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

from ggml_rpc_ref.conformance.arena import ROUNDED, Arena, tensor_in
from ggml_rpc_ref.conformance.case import case
from ggml_rpc_ref.conformance.cases.data import BULK, fnv1a_of_zeros
from ggml_rpc_ref.conformance.peer import Subject
from ggml_rpc_ref.conformance.verdict import NotJudged
from ggml_rpc_ref.spec.messages import BufferClear, CopyTensor, RpcTensor, SetTensorHash

ROWS = 4
"""Rows of the weights: 32 elements each, one block of Q8_0."""


def block(quant: int) -> bytes:
    """Return a block of Q8_0 with scale 1 and 32 times the same quant."""
    return struct.pack("<e", 1.0) + bytes([quant]) * 32


Change = Callable[[Arena, RpcTensor], list[float]]
"""Changes weights, all of which were 1; returns what each row then sums up to, for a vector of 127s."""


def _by_set_tensor(arena: Arena, weights: RpcTensor) -> list[float]:
    arena.peer.write(weights, block(3), 34)
    return [4064.0, 12192.0, 4064.0, 4064.0]


def _by_copy(arena: Arena, weights: RpcTensor) -> list[float]:
    other = arena.leaf([32, ROWS], block(2) * ROWS, "Q8_0")
    if not arena.peer.ask(CopyTensor(src=other, dst=weights)).result:
        raise NotJudged("it does not copy between these")
    return [8128.0] * ROWS


def _by_clear(arena: Arena, weights: RpcTensor) -> list[float]:
    arena.peer.takes(BufferClear(remote_ptr=weights.buffer, value=0))
    return [0.0] * ROWS


def _by_another_tensor(arena: Arena, weights: RpcTensor) -> list[float]:
    # the same bytes by another name: plain bytes that begin where the second row does
    arena.peer.write(replace(tensor_in(arena.buffer, [34], "I8"), buffer=weights.buffer, data=weights.data + 34), block(2))
    return [4064.0, 8128.0, 4064.0, 4064.0]


def _by_graph(arena: Arena, weights: RpcTensor) -> list[float]:
    other = arena.leaf([32, ROWS], block(2) * ROWS, "Q8_0")
    view = arena.view("VIEW", weights, weights.ne)
    copy = arena.change(view, op=arena.peer.subject.op("CPY"), src=(other.id, weights.id))
    arena.compute(copy)
    return [8128.0] * ROWS


CHANGES: dict[str, Change] = {
    "set-tensor": _by_set_tensor,
    "copy-tensor": _by_copy,
    "buffer-clear": _by_clear,
    "another-tensor": _by_another_tensor,
    "a-graph": _by_graph,
}
"""Words to what changes the weights."""


def _weighing(subject: Subject) -> tuple[Arena, RpcTensor, RpcTensor]:
    """Return an arena, weights of its own buffer that are all 1, and a product with them that has been computed twice."""
    peer = subject.connect()
    arena, store = Arena(peer), Arena(peer)
    weights = arena.add(store.leaf([32, ROWS], block(1) * ROWS, "Q8_0"))
    vector = arena.leaf([32], [127.0] * 32)
    node = arena.node("MUL_MAT", [weights, vector], [ROWS])
    # twice: a server may keep what is used again
    for _ in range(2):
        arena.compute(node)
        arena.expect(node, [4064.0] * ROWS, ROUNDED)
    return arena, weights, node


@case("graph.computes/weights-changed-by-{}", each=CHANGES)
def computed_again(subject: Subject, change: Change) -> None:
    """MUL_MAT with Q8_0 weights computed twice, the weights changed by {}, the graph sent again: the new product."""
    arena, weights, node = _weighing(subject)
    wanted = change(arena, weights)
    arena.compute(node)
    arena.expect(node, wanted, ROUNDED)


@case("graph.recompute/weights-changed-by-{}", each={k: v for k, v in CHANGES.items() if k != "a-graph"})
def recomputed(subject: Subject, change: Change) -> None:
    """MUL_MAT with Q8_0 weights computed twice, the weights changed by {}, GRAPH_RECOMPUTE: the new product."""
    arena, weights, node = _weighing(subject)
    wanted = change(arena, weights)
    arena.peer.tell(arena.again())
    arena.expect(node, wanted, ROUNDED)


@case("graph.computes/weights-changed-by-a-hash-hit")
def weights_from_the_cache(subject: Subject) -> None:
    """MUL_MAT with Q8_0 weights at the start of 10 MiB, other weights written there by a SET_TENSOR_HASH hit: the new product."""
    peer = subject.connect()
    arena = Arena(peer)
    head = block(2) * ROWS
    store = peer.alloc(BULK)
    bulk = tensor_in(store, [BULK], "I8")
    peer.write(bulk, head + bytes(BULK - len(head)), cached=True)
    weights = arena.add(tensor_in(store, [32, ROWS], "Q8_0"))
    vector = arena.leaf([32], [127.0] * 32)
    node = arena.node("MUL_MAT", [weights, vector], [ROWS])
    peer.write(weights, block(1) * ROWS)
    arena.compute(node)
    arena.expect(node, [4064.0] * ROWS, ROUNDED)
    if not peer.ask(SetTensorHash(tensor=bulk, offset=0, hash=fnv1a_of_zeros(head, BULK - len(head)))).result:
        raise NotJudged("it keeps no such data: no cache")
    arena.compute(node)
    arena.expect(node, [8128.0] * ROWS, ROUNDED)
