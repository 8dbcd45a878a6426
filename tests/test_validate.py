"""A graph is checked or a Violation; every rule of the graph section is seen to bite on a graph that is otherwise good."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.backends.oracle import Oracle
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.protocol.codec import encode
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server.memory import Memory
from ggml_rpc_ref.server.plan import make_plan
from ggml_rpc_ref.server.validate import check
from ggml_rpc_ref.spec.messages import FLAG_COMPUTE, GraphCompute, RpcTensor
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.versions import Version

OP = {name: number for number, name in enumerate(op_table())}
MISSING = 0xDEADBEEF


class World:
    """One connection's memory with a buffer of 4 KiB, and the graph y = x * w (three F32 vectors of 4), v a view of y."""

    def __init__(self) -> None:
        self.backend = Oracle(HostMemory(1 << 20))
        self.memory = Memory([self.backend.memory])
        buffer = self.memory.alloc(0, 4096)
        assert buffer is not None
        self.buffer = buffer
        self.tensors = {
            "x": self.vector(0x10, 0),
            "w": self.vector(0x20, 64),
            "y": self.vector(0x30, 128, op=OP["MUL"], flags=FLAG_COMPUTE, src=(0x10, 0x20)),
            "v": self.vector(0x40, 128, op=OP["VIEW"], flags=FLAG_COMPUTE, src=(0x30,), view_src=0x30),
        }
        self.nodes = [0x30, 0x40]
        self.floats(0)[:] = (1, 2, 3, 4)
        self.floats(64)[:] = (10, 100, 1000, 10000)

    def vector(self, id: int, offset: int, **more: object) -> RpcTensor:
        place = RpcTensor(id=id, buffer=self.buffer.remote_ptr, ne=(4, 1, 1, 1), nb=(4, 16, 16, 16), data=self.buffer.base + offset)
        return replace(place, **more)  # type: ignore[arg-type]

    def floats(self, offset: int) -> np.ndarray:
        return np.frombuffer(self.buffer.allocation.download(offset, offset + 16), "<f4")

    def change(self, which: str, **fields: object) -> None:
        self.tensors[which] = replace(self.tensors[which], **fields)  # type: ignore[arg-type]

    def graph(self) -> Graph:
        message = GraphCompute(device=0, nodes=tuple(self.nodes), tensors=tuple(self.tensors.values()))
        return Graph.decode(encode(message))

    def plan(self):  # type: ignore[no-untyped-def]
        return make_plan(self.graph(), self.memory, self.backend)


@pytest.fixture
def world() -> World:
    return World()


def test_a_plan_runs_and_runs_again_on_the_data_of_then(world: World) -> None:
    plan = world.plan()
    assert [(step.node.op.name, step.backend) for step in plan.steps] == [("MUL", "oracle")]
    assert plan.buffers == {world.buffer}
    plan.run()
    assert world.floats(128).tolist() == [10, 200, 3000, 40000]
    world.floats(0)[:] = (5, 0, -1, 2)
    plan.run()
    assert world.floats(128).tolist() == [50, 0, -1000, 20000]


def test_planning_computes_nothing(world: World) -> None:
    world.plan()
    assert world.floats(128).tolist() == [0, 0, 0, 0]


def test_a_node_without_flag_compute_is_skipped(world: World) -> None:
    world.change("y", flags=0)
    plan = world.plan()
    plan.run()
    assert plan.steps == ()
    assert world.floats(128).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("version", "mul", "view"), [("1.0.0", 6, 35), ("3.0.0", 7, 36), ("3.5.0", 7, 37), ("3.6.0", 7, 37)])
def test_before_3_6_1_nodes_are_computed_without_flag_compute(world: World, version: str, mul: int, view: int) -> None:
    """The flag is of 2026-01-19; clients of older versions never set it."""
    world.change("y", op=mul, flags=0)
    world.change("v", op=view, flags=0)
    make_plan(world.graph(), world.memory, world.backend, Version.parse(version)).run()
    assert world.floats(128).tolist() == [10, 200, 3000, 40000]


@pytest.mark.parametrize(("version", "unary", "kind"), [("3.0.0", 80, 14), ("3.6.1", 86, 16), ("4.0.3", 91, 16)])
def test_a_kind_of_unary_is_what_the_version_calls_so(world: World, version: str, unary: int, kind: int) -> None:
    """GELU_ERF moved from 14 to 16 when EXPM1 and SOFTPLUS were inserted."""
    world.change("y", op=unary, op_params=(kind, *[0] * 15), src=(0x10,))
    world.nodes = [0x30]
    make_plan(world.graph(), world.memory, world.backend, Version.parse(version)).run()
    wanted = [0.5 * x * (1 + math.erf(x / math.sqrt(2))) for x in (1, 2, 3, 4)]
    np.testing.assert_allclose(world.floats(128), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("version", "op", "kind", "rule"),
    [
        ("3.0.0", 80, 16, "graph.shape"),  # UNARY has 16 kinds there
        ("3.0.0", 80, -1, "graph.shape"),
        ("3.6.1", 95, 6, "graph.shape"),  # SWIGLU_CLAMP in later versions
        ("7.0.0", 100, 7, "graph.shape"),
    ],
)
def test_a_kind_that_the_version_does_not_have_is_refused(world: World, version: str, op: int, kind: int, rule: str) -> None:
    world.change("y", op=op, op_params=(kind, *[0] * 15), src=(0x10, 0x20))
    world.nodes = [0x30]
    with pytest.raises(Violation) as caught:
        make_plan(world.graph(), world.memory, world.backend, Version.parse(version))
    assert caught.value.rule == rule


def test_a_graph_without_nodes_is_a_plan_without_steps(world: World) -> None:
    world.nodes, world.tensors = [], {}
    plan = world.plan()
    assert plan.steps == ()
    assert plan.buffers == frozenset()


def test_a_leaf_of_another_server_is_accepted_where_no_node_touches_it(world: World) -> None:
    world.tensors["elsewhere"] = RpcTensor(id=0x50, ne=(4, 1, 1, 1), nb=(4, 16, 16, 16))
    world.plan().run()
    assert world.floats(128).tolist() == [10, 200, 3000, 40000]


def test_an_empty_node_is_not_computed(world: World) -> None:
    world.change("x", ne=(0, 1, 1, 1))
    world.change("y", ne=(0, 1, 1, 1))
    world.change("v", ne=(0, 1, 1, 1))
    assert world.plan().steps == ()


def test_the_order_of_tensors_does_not_matter(world: World) -> None:
    world.tensors = dict(reversed(world.tensors.items()))
    world.plan().run()
    assert world.floats(128).tolist() == [10, 200, 3000, 40000]


def test_a_cast_names_itself_as_its_second_source(world: World) -> None:
    world.change("y", op=OP["CPY"], src=(0x10, 0x30))
    world.plan().run()
    assert world.floats(128).tolist() == [1, 2, 3, 4]


def _set(which: str, **fields: object) -> Callable[[World], None]:
    return lambda world: world.change(which, **fields)


def _nodes(*ids: int) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.nodes = list(ids)

    return change


def _free(world: World) -> None:
    world.memory.free(world.buffer.remote_ptr)


BROKEN = [
    ("graph.tensor-id", "id-0", _set("x", id=0)),
    ("graph.tensor-unique", "same-id", _set("w", id=0x10)),
    ("graph.node-known", "missing", _nodes(0x30, MISSING)),
    ("graph.node-known", "zero", _nodes(0x30, 0)),
    ("graph.node-unique", "twice", _nodes(0x30, 0x40, 0x30)),
    ("graph.source-known", "src", _set("y", src=(0x10, MISSING))),
    ("graph.source-known", "ninth-src", _set("y", src=(0x10, 0x20, 0, 0, 0, 0, 0, 0, 0, MISSING))),
    ("graph.source-known", "view-src", _set("v", view_src=MISSING)),
    ("graph.acyclic", "self", _set("y", src=(0x30, 0x20))),
    ("graph.acyclic", "self-second", _set("y", src=(0x10, 0x30))),
    ("graph.acyclic", "copy-of-itself", _set("y", op=OP["CPY"], src=(0x30, 0x30))),
    ("graph.acyclic", "two", _set("x", src=(0x40,))),
    ("graph.acyclic", "by-view-src", _set("y", view_src=0x40)),
    ("tensor.type-known", "beyond", _set("x", type=41)),
    ("tensor.type-known", "dead", _set("x", type=4)),
    ("tensor.type-known", "huge", _set("x", type=2**32 - 1)),
    ("tensor.block-multiple", "q4_0", _set("x", type=2)),
    ("tensor.in-buffer", "before", lambda world: world.change("x", data=world.buffer.base - 1)),
    ("tensor.in-buffer", "behind", lambda world: world.change("x", data=world.buffer.base + 4096 - 15)),
    ("tensor.in-buffer", "wraps", lambda world: world.change("x", data=2**64 - 8)),
    ("tensor.in-buffer", "strides", _set("x", ne=(4, 2, 1, 1), nb=(4, 2**32 - 1, 16, 16))),
    ("graph.null-data", "no-buffer", _set("x", buffer=0)),
    ("graph.null-data", "unknown-buffer", _set("x", buffer=MISSING)),
    ("graph.null-data", "freed-buffer", _free),
    ("graph.null-data", "source-elsewhere", _set("x", buffer=0, data=0)),
    ("graph.null-data", "result-elsewhere", lambda world: (_set("y", buffer=0, data=0)(world), _set("v", buffer=0, data=0)(world))),
    ("graph.view", "offset", _set("v", view_offs=4)),
    ("graph.view", "elsewhere", lambda world: world.change("v", data=world.buffer.base)),
    ("graph.view", "beyond", _set("v", ne=(5, 1, 1, 1))),
    ("graph.op-known", "first-unknown", _set("y", op=96)),
    ("graph.op-known", "huge", _set("y", op=2**32 - 1)),
    *(
        ("graph.op-custom", name.lower(), _set("y", op=OP[name]))
        for name in ("MAP_CUSTOM1", "MAP_CUSTOM2", "MAP_CUSTOM3", "CUSTOM")
    ),
    ("graph.op-custom", "without-flag-compute", _set("y", op=OP["CUSTOM"], flags=0)),
    ("graph.arity", "no-second", _set("y", src=(0x10,))),
    ("graph.arity", "no-first", _set("y", src=(0, 0x20))),
    ("graph.type", "i64", _set("y", type=27, nb=(8, 32, 32, 32))),
    ("graph.shape", "shorter", lambda world: (_set("y", ne=(2, 1, 1, 1))(world), _set("v", ne=(2, 1, 1, 1))(world))),
    ("graph.shape", "result-shares-bytes", lambda world: (_set("y", nb=(0, 0, 0, 0))(world), _set("v", ne=(1, 1, 1, 1))(world))),
]


@pytest.mark.parametrize(("rule", "change"), [row[0::2] for row in BROKEN], ids=[f"{row[0]}-{row[1]}" for row in BROKEN])
def test_a_broken_graph_is_refused_by_name(world: World, rule: str, change: Callable[[World], object]) -> None:
    world.plan()
    change(world)
    with pytest.raises(Violation) as caught:
        world.plan()
    assert caught.value.rule == rule
    assert world.floats(128).tolist() == [0, 0, 0, 0]


def test_a_source_that_shares_bytes_beyond_measure_is_refused(world: World) -> None:
    world.change("x", ne=(2**31, 1, 1, 1), nb=(0, 0, 0, 0))
    with pytest.raises(Violation, match=r"graph\.shape.*share bytes"):
        world.plan()


@pytest.mark.parametrize("forward", [True, False], ids=["sources-first", "users-first"])
def test_a_chain_of_100000_sources_is_planned_without_recursion(forward: bool) -> None:
    """SEC-24: upstream's create_node recurses once per link."""
    count = 100_000
    world = World()
    record = np.frombuffer(encode(world.tensors["x"]), Graph.decode(encode(GraphCompute(nodes=(), tensors=()))).tensors.dtype)
    tensors = np.repeat(record, count)
    ids = np.arange(1, count + 1, dtype=np.uint64)
    tensors["id"] = ids
    tensors["src"][:, 0] = ids - 1
    tensors = tensors if forward else tensors[::-1].copy()
    graph = Graph(0, np.array([count], np.uint64), tensors)
    assert check(graph, world.memory).nodes == ()
    tensors["src"][ids == 1, 0] = count
    if not forward:
        tensors["src"][-1, 0] = count
    with pytest.raises(Violation, match=r"graph\.acyclic"):
        check(graph, world.memory)


def test_running_out_of_memory_is_a_refusal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(node: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Oracle, "_compute", lambda self, node: lambda: no_memory(node))
    with pytest.raises(Violation, match=r"graph\.op-supported"):
        world.plan().run()
