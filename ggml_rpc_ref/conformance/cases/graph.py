"""Graphs that must be refused, or accepted though they look odd. `graph_results` judges what good graphs compute.

Most cases take a small good graph and break one thing. What a server might read or write by mistake lies in the case's own buffer.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ggml_rpc_ref.conformance import marks
from ggml_rpc_ref.conformance.arena import GUARD, Arena, nbytes, tensor_in
from ggml_rpc_ref.conformance.case import case
from ggml_rpc_ref.conformance.peer import Subject
from ggml_rpc_ref.conformance.verdict import require
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.spec.messages import FLAG_COMPUTE, GraphCompute, RpcTensor
from ggml_rpc_ref.spec.opcodes import CUSTOM_OPS, op_table
from ggml_rpc_ref.spec.rules import RULES

MISSING = 0xDEAD
"""An id that no tensor has."""


def _sum(subject: Subject) -> tuple[Arena, RpcTensor, RpcTensor]:
    """Return an arena with a leaf of four numbers and a node that doubles them: a valid graph."""
    arena = Arena(subject.connect())
    left = arena.leaf([4], [1.0, 2.0, 3.0, 4.0])
    return arena, left, arena.node("ADD", [left, left], [4])


# ---------------------------------------------------------------------------------------------------------- size-exact


def _counts(payload: bytes, at: int, n_nodes: int | None = None, n_tensors: int | None = None) -> bytes:
    """Return the payload of a graph of one node with its counts replaced; the first of them is at offset `at`."""
    nodes = payload[at : at + 4] if n_nodes is None else struct.pack("<I", n_nodes)
    tensors = payload[at + 12 : at + 16] if n_tensors is None else struct.pack("<I", n_tensors)
    return payload[:at] + nodes + payload[at + 4 : at + 12] + tensors + payload[at + 16 :]


WRONG_COUNTS: dict[str, Callable[[bytes, int], bytes]] = {
    "trailing-byte": lambda payload, at: payload + b"\0",
    "trailing-tensor": lambda payload, at: payload + bytes(296),
    "last-byte-missing": lambda payload, at: payload[:-1],
    "last-tensor-missing": lambda payload, at: payload[:-296],
    "one-tensor-less": lambda payload, at: _counts(payload, at, n_tensors=1),
    "one-tensor-more": lambda payload, at: _counts(payload, at, n_tensors=3),
    "one-node-more": lambda payload, at: _counts(payload, at, n_nodes=2),
    "nodes-2-32-less-1": lambda payload, at: _counts(payload, at, n_nodes=2**32 - 1),
    "tensors-2-32-less-1": lambda payload, at: _counts(payload, at, n_tensors=2**32 - 1),
    # 2^31 * 8 and 2^29 * 8 have low 32 bits of 0: a product taken in 32 bits finds room for them
    "nodes-2-31": lambda payload, at: _counts(payload, at, n_nodes=2**31),
    "nodes-2-29": lambda payload, at: _counts(payload, at, n_nodes=2**29),
}


@case("graph.size-exact/{}", each=WRONG_COUNTS, may_crash=True)
def wrong_counts(subject: Subject, change: Callable[[bytes, int], bytes]) -> None:
    """A valid graph of one node and two tensors with its counts or its length changed, {}: refused."""
    arena, _, total = _sum(subject)
    version = arena.peer.version
    payload = change(codec.encode(arena.graph(total), version), codec.minimum_size(GraphCompute, version) - 8)
    arena.peer.refuses(codec.REQUEST_HEAD.pack(10, len(payload)) + payload)


# ------------------------------------------------------------------------------------------------------------------ ids


@case("graph.tensor-id/leaf", may_crash=True)
def leaf_without_id(subject: Subject) -> None:
    """A valid graph with one more tensor, whose id is 0: refused."""
    arena, left, total = _sum(subject)
    graph = arena.graph(total)
    arena.peer.refuses(replace(graph, tensors=(*graph.tensors, replace(left, id=0))))


@case("graph.tensor-id/node", may_crash=True)
def node_without_id(subject: Subject) -> None:
    """A graph whose node has id 0, in the list of nodes and in its tensor: refused."""
    arena, left, total = _sum(subject)
    arena.peer.refuses(GraphCompute(nodes=(0,), tensors=(left, replace(total, id=0))))


@case("graph.tensor-unique/{}", each={"same-record": False, "other-record": True})
def id_twice(subject: Subject, other: bool) -> None:
    """A valid graph with a second tensor of its leaf's id, {}: refused."""
    arena, left, total = _sum(subject)
    graph = arena.graph(total)
    second = replace(left, data=left.data + 4, ne=(1, 1, 1, 1)) if other else left
    arena.peer.refuses(replace(graph, tensors=(*graph.tensors, second)))


NODE_LISTS: dict[str, tuple[str, Callable[[int], tuple[int, ...]]]] = {
    "missing": ("node-known", lambda id: (MISSING,)),
    "missing-behind-good": ("node-known", lambda id: (id, MISSING)),
    "0": ("node-known", lambda id: (0,)),
    "0-behind-good": ("node-known", lambda id: (id, 0)),
    "2-64-less-1": ("node-known", lambda id: (2**64 - 1,)),
}


@case("graph.node-known/{}", each={words: make for words, (_, make) in NODE_LISTS.items()}, may_crash=True)
def unknown_node(subject: Subject, nodes: Callable[[int], tuple[int, ...]]) -> None:
    """A valid graph whose list of nodes names an id that no tensor has, {}: refused."""
    arena, _, total = _sum(subject)
    arena.peer.refuses(replace(arena.graph(total), nodes=nodes(total.id)))


@case("graph.node-known/no-tensors", may_crash=True)
def node_without_tensors(subject: Subject) -> None:
    """A graph of one node, id 0, and no tensor at all, twenty bytes long: refused."""
    subject.connect().refuses(GraphCompute(nodes=(0,), tensors=()))


@case("graph.node-unique/{}", each={"in-a-row": 2, "a-hundred-times": 100})
def node_listed_twice(subject: Subject, times: int) -> None:
    """A valid graph whose one node is listed {}: refused."""
    arena, _, total = _sum(subject)
    arena.peer.refuses(replace(arena.graph(total), nodes=(total.id,) * times))


@case(
    "graph.source-known/{}",
    each={
        "first": {"src": (MISSING, 0x1000)},
        "second": {"src": (0x1000, MISSING)},
        "tenth": {"src": (0x1000, 0x1000, 0, 0, 0, 0, 0, 0, 0, MISSING)},
        "view-src": {"view_src": MISSING},
    },
)
def unknown_source(subject: Subject, fields: dict[str, object]) -> None:
    """A valid graph whose node names as a source, {}, an id that no tensor has: refused."""
    arena, _, total = _sum(subject)
    arena.refuses(arena.change(total, **fields))


@case("graph.source-known/of-a-leaf")
def unknown_source_of_leaf(subject: Subject) -> None:
    """A valid graph whose leaf names as a source an id that no tensor has: refused."""
    arena, left, total = _sum(subject)
    arena.change(left, src=(MISSING,))
    arena.refuses(total)


@case("graph.source-known/of-an-unused-tensor")
def unknown_source_unused(subject: Subject) -> None:
    """A valid graph and an unused tensor that names as a source an id that no tensor has: refused."""
    arena, _, total = _sum(subject)
    arena.change(arena.leaf([4]), src=(MISSING,))
    arena.refuses(total)


# ------------------------------------------------------------------------------------------------------- acyclic, deep


@case(
    "graph.acyclic/{}",
    each={"self": {"src": (0x1001, 0x1000)}, "self-second": {"src": (0x1000, 0x1001)}, "self-view": {"view_src": 0x1001}},
    may_crash=True,
)
def own_source(subject: Subject, fields: dict[str, object]) -> None:
    """A node that is its own source, {}: refused."""
    arena, _, total = _sum(subject)
    arena.refuses(arena.change(total, **fields))


@case("graph.acyclic/two-nodes", may_crash=True)
def two_nodes_in_a_ring(subject: Subject) -> None:
    """Two nodes that are each other's source: refused."""
    arena, left, total = _sum(subject)
    second = arena.node("ADD", [total, left], [4])
    total = arena.change(total, src=(second.id, left.id))
    arena.refuses(total, second)


@case("graph.acyclic/two-views", may_crash=True)
def two_views_in_a_ring(subject: Subject) -> None:
    """Two tensors that are views of each other, and a node that uses one: refused."""
    arena, left, total = _sum(subject)
    first = arena.view("VIEW", left, [4])
    second = arena.view("VIEW", first, [4])
    arena.change(first, view_src=second.id, src=(second.id,))
    arena.refuses(arena.change(total, src=(second.id, left.id)))


@case("graph.acyclic/hundred-leaves", may_crash=True)
def long_ring(subject: Subject) -> None:
    """A valid graph and a hundred unused tensors whose sources form a ring: refused."""
    arena, left, total = _sum(subject)
    ring = [arena.add(left) for _ in range(100)]
    for one, next in zip(ring, [*ring[1:], ring[0]], strict=True):
        arena.change(one, src=(next.id,))
    arena.refuses(total)


@case("graph.deep/chain-of-{}", each={"1000": 1000, "20000": 20_000}, may_crash=True, patience=4.0)
def deep_chain(subject: Subject, length: int) -> None:
    """A node whose source is the last of a chain of {} views, each the source of the next, the first listed first: computed."""
    _chain(subject, length)


@case("graph.deep/chain-of-300000", may_crash=True, patience=12.0)
def very_deep_chain(subject: Subject) -> None:
    """A node whose source is the last of a chain of 300,000 views, a message of 89 MB: computed."""
    _chain(subject, 300_000)


@case("graph.deep/users-first", may_crash=True, patience=4.0)
def deep_chain_backwards(subject: Subject) -> None:
    """The chain of 20,000 views with the last one listed first: computed."""
    _chain(subject, 20_000, backwards=True)


def _chain(subject: Subject, length: int, backwards: bool = False) -> None:
    """Send a graph whose one node adds 1 to the numbers seen through a chain of views, and check the sum."""
    arena = Arena(subject.connect())
    arena.peer.need(GraphCompute)
    numbers, ones = arena.leaf([4], [1.0, 2.0, 3.0, 4.0]), arena.leaf([4], [1.0] * 4)
    first = arena.view("VIEW", numbers, [4])
    total = arena.node("ADD", [first, ones], [4])
    arena.peer.note_ops(arena.graph(total))
    records = [
        np.frombuffer(codec.encode(t, arena.peer.version), codec.layout(RpcTensor, arena.peer.version))
        for t in arena.tensors.values()
    ]
    # as arrays: up to 300,000 records are too many to make and encode one by one
    chain = np.repeat(records[2], length)
    ids = np.arange(0x100000, 0x100000 + length, dtype=np.uint64)
    chain["id"] = ids
    chain["src"][1:, 0] = ids[:-1]
    chain["view_src"][1:] = ids[:-1]
    # frombuffer's arrays are read-only; repeat has copied the other one
    records[3] = records[3].copy()
    records[3]["src"][0, 0] = ids[-1]
    order = [records[0], records[1], chain, records[3]]
    tensors = np.concatenate([part[::-1] for part in reversed(order)] if backwards else order)
    payload = Graph(0, np.array([total.id], np.uint64), tensors).encode(arena.peer.version)
    arena.peer.tell(codec.REQUEST_HEAD.pack(10, len(payload)) + payload)
    arena.expect(total, [2.0, 3.0, 4.0, 5.0])


# ----------------------------------------------------------------------------------------------------------- null-data


@case("graph.null-data/{}-address-without-buffer", each={"src": "left", "node": "total"}, may_crash=True)
def address_without_buffer(subject: Subject, which: str) -> None:
    """A graph whose {} names buffer 0 but has an address, that of its own bytes: refused."""
    arena, left, total = _sum(subject)
    arena.change(left if which == "left" else total, buffer=0)
    arena.refuses(total)


@case("graph.null-data/unused-address-without-buffer", may_crash=True)
def unused_address_without_buffer(subject: Subject) -> None:
    """A valid graph whose node has as view_src a tensor with buffer 0 and an address, that of the node's own bytes: refused."""
    arena, _, total = _sum(subject)
    whole = arena.add(replace(total, buffer=0, op=0, src=(0,) * 10, flags=0))
    arena.refuses(arena.change(total, view_src=whole.id))


@case("graph.null-data/address-in-unknown-buffer", may_crash=True)
def address_in_unknown_buffer(subject: Subject) -> None:
    """A graph whose source names a handle that was never returned, and an address: refused."""
    arena, left, total = _sum(subject)
    arena.change(left, buffer=left.buffer ^ 0x7FF0)
    arena.refuses(total)


@case("graph.null-data/nowhere-unused")
def nowhere_unused(subject: Subject) -> None:
    """A valid graph and an unused tensor with buffer 0 and address 0: accepted and computed."""
    arena, left, total = _sum(subject)
    arena.add(replace(left, buffer=0, data=0))
    arena.compute(total)
    arena.expect(total, [2.0, 4.0, 6.0, 8.0])


# before that rule every node is computed, so that this one is refused
@case("graph.null-data/nowhere-not-computed", since=RULES["graph.flag-compute"].since)
def nowhere_not_computed(subject: Subject) -> None:
    """A valid graph with one more node, without COMPUTE, whose source has buffer 0 and address 0: accepted, the other computed."""
    arena, left, total = _sum(subject)
    nowhere = arena.add(replace(left, buffer=0, data=0))
    idle = arena.change(arena.node("ADD", [nowhere, nowhere], [4]), flags=0)
    arena.compute(idle, total)
    arena.expect(total, [2.0, 4.0, 6.0, 8.0])


@case("graph.null-data/nowhere-{}", each={"read": "left", "written": "total"}, may_crash=True)
def nowhere_computed(subject: Subject, which: str) -> None:
    """A graph that must compute on a tensor with buffer 0 and address 0, which is {}: refused."""
    arena, left, total = _sum(subject)
    arena.change(left if which == "left" else total, buffer=0, data=0)
    arena.refuses(total)


# ----------------------------------------------------------------------------------------------------------------- ops


@case("graph.op-known/{}", each={"first-unknown": -1, "127": 127, "2-31": 2**31, "2-32-less-1": 2**32 - 1}, may_crash=True)
def unknown_op(subject: Subject, number: int) -> None:
    """A node to be computed whose op, {}, is not in the op table of the server's version: refused."""
    arena, _, total = _sum(subject)
    arena.refuses(arena.change(total, op=len(op_table(subject.facts.version)) if number < 0 else number))


@case("graph.op-custom/{}", each={name.lower().replace("_", "-"): name for name in sorted(CUSTOM_OPS)}, may_crash=True)
def custom_op(subject: Subject, name: str) -> None:
    """A node with op {}, whose op_params (here all 0) would be a function pointer: refused."""
    arena, _, total = _sum(subject)
    arena.refuses(arena.change(total, op=subject.op(name)))


@case("graph.op-custom/not-computed")
def custom_op_not_computed(subject: Subject) -> None:
    """A node with op MAP_CUSTOM1 and without flag COMPUTE: refused too."""
    arena, _, total = _sum(subject)
    arena.refuses(arena.change(total, op=subject.op("MAP_CUSTOM1"), flags=0))


ARITIES: dict[str, tuple[str, int]] = {
    "add-without-second": ("ADD", 1),
    "add-without-any": ("ADD", 0),
    "mul-mat-without-second": ("MUL_MAT", 1),
    "scale-without-any": ("SCALE", 0),
    "rms-norm-without-any": ("RMS_NORM", 0),
    "get-rows-without-indices": ("GET_ROWS", 1),
    "soft-max-without-any": ("SOFT_MAX", 0),
    "rope-without-positions": ("ROPE", 1),
    "cont-without-any": ("CONT", 0),
    "flash-attn-ext-without-keys": ("FLASH_ATTN_EXT", 1),
}


@case("graph.arity/{}", each=ARITIES, may_crash=True)
def source_lacking(subject: Subject, row: tuple[str, int]) -> None:
    """A node that lacks a source which its op needs, {}: refused."""
    op, count = row
    arena, left, _ = _sum(subject)
    arena.refuses(arena.node(op, [left] * count, [4]))


@case("graph.arity/gap", may_crash=True)
def gap_in_sources(subject: Subject) -> None:
    """An ADD whose sources are in slots 1 and 2 with slot 0 empty: refused."""
    arena, left, _ = _sum(subject)
    arena.refuses(arena.node("ADD", [None, left, left], [4]))


# ---------------------------------------------------------------------------------------------------------------- view


def _shifted(view: RpcTensor, by: int) -> dict[str, object]:
    return {"view_offs": view.view_offs + by, "data": view.data + by}


BAD_VIEWS: dict[str, Callable[[RpcTensor], dict[str, object]]] = {
    "one-element-past-end": lambda view: _shifted(view, 4),
    "whole-past-end": lambda view: _shifted(view, 64),
    "data-not-at-offset": lambda view: {"data": view.data + 4},
    "offset-not-at-data": lambda view: {"view_offs": view.view_offs + 4},
    "offset-2-64-less-4": lambda view: {"view_offs": 2**64 - 4, "data": view.data - 4},
    "longer-than-whole": lambda view: {"ne": (9, 1, 1, 1)},
    "stride-leaves-whole": lambda view: {"ne": (2, 2, 1, 1), "nb": (4, 60, 120, 120)},
}
"""Words to what is changed in a VIEW of the last four of eight floats."""


@case("graph.view/{}", each=BAD_VIEWS, may_crash=True)
def bad_view(subject: Subject, change: Callable[[RpcTensor], dict[str, object]]) -> None:
    """A VIEW of the last four of eight floats with one thing wrong, {}: refused."""
    arena = Arena(subject.connect())
    whole = arena.leaf([8], [float(n) for n in range(8)])
    arena.leaf([64])  # room of our own behind it
    view = arena.view("VIEW", whole, [4], offset=16)
    view = arena.change(view, **change(view))
    arena.refuses(view, arena.node("CONT", [view], view.ne))


@case("graph.view/other-buffer", may_crash=True)
def view_in_other_buffer(subject: Subject) -> None:
    """A VIEW that names another buffer than its view_src, and lies there: refused."""
    arena = Arena(subject.connect())
    whole = arena.leaf([8], [float(n) for n in range(8)])
    elsewhere = tensor_in(arena.peer.alloc(4096), [8])
    view = arena.change(arena.view("VIEW", whole, [8]), buffer=elsewhere.buffer, data=elsewhere.data)
    arena.refuses(view, arena.node("CONT", [view], [8]))


@case("graph.view/of-an-inplace-result", may_crash=True)
def result_outside_its_view_src(subject: Subject) -> None:
    """An ADD in place (view_src is its first source) whose result begins 4 bytes past that source's end: refused."""
    arena, left, total = _sum(subject)
    arena.leaf([64])
    arena.refuses(arena.change(total, view_src=left.id, data=left.data + nbytes(left), view_offs=16))


# --------------------------------------------------------------------------------------------------- flags, empty graph


@case("graph.flag-compute/{}", each={"no-flag": 0, "every-other-flag": 15})
def not_computed(subject: Subject, flags: int) -> None:
    """A node with {}, and so without COMPUTE (16): accepted, and its bytes stay unchanged."""
    arena, _, total = _sum(subject)
    arena.compute(arena.change(total, flags=flags))
    got = arena.peer.read(total, 16)
    require(got == bytes([GUARD]) * 16, "unchanged bytes", got.hex())


@case("graph.flag-compute/one-of-two")
def one_of_two_computed(subject: Subject) -> None:
    """Two nodes of which the second lacks COMPUTE: the first is computed, the second is not."""
    arena, left, total = _sum(subject)
    idle = arena.change(arena.node("MUL", [left, left], [4]), flags=1)
    arena.compute(total, idle)
    arena.expect(total, [2.0, 4.0, 6.0, 8.0])
    require(arena.peer.read(idle, 16) == bytes([GUARD]) * 16, "unchanged bytes", "other bytes")


@case("graph.flag-compute/with-others")
def computed_with_other_flags(subject: Subject) -> None:
    """A node with every flag, COMPUTE among them: computed."""
    arena, _, total = _sum(subject)
    arena.compute(arena.change(total, flags=15 | FLAG_COMPUTE))
    arena.expect(total, [2.0, 4.0, 6.0, 8.0])


@case("graph.empty/no-tensors")
def nothing_at_all(subject: Subject) -> None:
    """A graph of no nodes and no tensors: accepted."""
    subject.connect().tell(GraphCompute(nodes=(), tensors=()))


@case("graph.empty/tensors-only")
def no_nodes(subject: Subject) -> None:
    """A graph of two tensors and no nodes: accepted, and nothing is computed."""
    arena, _, total = _sum(subject)
    arena.compute()
    require(arena.peer.read(total, 16) == bytes([GUARD]) * 16, "unchanged bytes", "other bytes")


# --------------------------------------------------------------------------------------------------------- not too strict


@case("graph.op-known/of-a-leaf")
def unknown_op_of_a_leaf(subject: Subject) -> None:
    """A valid graph whose leaf, which is not a node, has an op that no table has: accepted, and the node computed."""
    arena, left, total = _sum(subject)
    arena.change(left, op=len(op_table(subject.facts.version)) + 1)
    arena.compute(total)
    arena.expect(total, [2.0, 4.0, 6.0, 8.0])


IGNORED: dict[str, dict[str, object]] = {
    "op-params": {"op_params": (0x7FFFFFFF, -1, *[0x55AA55AA] * 14)},
    "view-offs": {"view_offs": 2**40},
    "name": {"name": b"n" * 64},
    "padding": {"padding": b"\xff\xfe\xfd\xfc"},
}
"""Words to fields of an ADD that mean nothing there."""


@case(
    "graph.computes/unused-{}",
    each=IGNORED,
    until=lambda fields: marks.field_until(RpcTensor, "padding") if "padding" in fields else None,
)
def unused_fields(subject: Subject, fields: dict[str, object]) -> None:
    """An ADD with something in a field that means nothing there, {}: computed."""
    arena, left, total = _sum(subject)
    arena.change(left, **{name: value for name, value in fields.items() if name != "op_params"})
    arena.compute(arena.change(total, **fields))
    arena.expect(total, [2.0, 4.0, 6.0, 8.0])
