"""Graphs like one before: planned again by what is different, and never otherwise than `make_plan` would."""

from __future__ import annotations

import gc
import struct
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, seed, settings
from hypothesis import strategies as st

from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.backends.native import Native, unavailable
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops import OPS
from ggml_rpc_ref.protocol.codec import encode
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server import patterns
from ggml_rpc_ref.server.budget import ARRIVING, Budget
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.memory import Buffer, Memory
from ggml_rpc_ref.server.patterns import Planner
from ggml_rpc_ref.server.plan import Plan, make_plan
from ggml_rpc_ref.server.session import Session
from ggml_rpc_ref.server.stored_graphs import StoredGraphs
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.messages import FLAG_COMPUTE, GraphCompute, RpcTensor
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.versions import DEFAULT
from ggml_rpc_ref.tensor import contiguous_nb
from tests.support.seeds import SEED

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=f"native: {unavailable()}")

OP = {name: number for number, name in enumerate(op_table())}
ROOM = 2**16
PLACE = 2048
"""Bytes that each tensor of a graph has for itself."""


class World:
    """A connection's memory, a buffer in it, and graphs of the kind that a growing context sends."""

    def __init__(self) -> None:
        self.backend = Native(HostMemory(4 * ROOM), threads=1)
        self.memory = Memory([self.backend.memory])
        self.buffer = self.allocate()
        self.planner = Planner()

    def allocate(self) -> Buffer:
        buffer = self.memory.alloc(0, ROOM)
        assert buffer is not None
        return buffer

    def tensor(self, id: int, op: str = "NONE", *src: int, ne: tuple[int, ...], dtype: str = "F32", **more: Any) -> RpcTensor:
        lengths = (*ne, 1, 1, 1)[:4]
        nb = contiguous_nb(BY_NAME[dtype], lengths)  # type: ignore[arg-type]
        fields = {"buffer": self.buffer.remote_ptr, "data": self.buffer.base + PLACE * id, "ne": lengths, "nb": nb}
        flags = 0 if op == "NONE" else FLAG_COMPUTE
        return RpcTensor(id=id, type=BY_NAME[dtype].number, op=OP[op], flags=flags, src=src, **(fields | more))  # type: ignore[arg-type]

    def graph(self, keys: int = 8, eps: float = 1e-6, seen: int = 4, **place: Any) -> Graph:
        """Rows are normed, added in place and multiplied with some keys, of which a view is copied."""
        t = self.tensor
        params = struct.unpack("<16i", OPS["RMS_NORM"].pack({"eps": eps}))
        tensors = [
            t(1, ne=(32, 2), **place), t(2, ne=(32, keys), dtype="F16"), t(3, "RMS_NORM", 1, ne=(32, 2), op_params=params),
            t(4, "ADD", 3, 1, ne=(32, 2), data=self.buffer.base + PLACE * 3), t(5, "MUL_MAT", 2, 4, ne=(keys, 2)),
            t(6, "VIEW", 5, ne=(seen, 2), nb=(4, 4 * keys, 8 * keys, 8 * keys), data=self.buffer.base + PLACE * 5,
              view_src=5),
            t(7, "CONT", 6, ne=(seen, 2)),
        ]  # fmt: skip
        return Graph.decode(encode(GraphCompute(nodes=(3, 4, 5, 6, 7), tensors=tuple(tensors))))

    def result(self, plan: Plan) -> bytes:
        """What the buffer holds after a run on bytes that are always the same."""
        data = self.buffer.allocation.data
        assert data is not None
        data[:] = 0
        data[PLACE : 2 * PLACE].view(np.float32)[:] = np.linspace(-1, 1, PLACE // 4)
        data[2 * PLACE : 3 * PLACE].view(np.float16)[:] = np.linspace(-2, 3, PLACE // 2)
        plan.run()
        return data.tobytes()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many graphs have been checked node by node so far, and how many single nodes."""
    counts = {"make_plan": 0, "check_node": 0}

    def counting(name: str) -> Callable[..., Any]:
        real = getattr(patterns, name)

        def counted(*arguments: Any) -> Any:
            counts[name] += 1
            return real(*arguments)

        return counted

    for name in counts:
        monkeypatch.setattr(patterns, name, counting(name))
    return counts


def outcome(make: Callable[[], Plan], world: World) -> tuple[Any, ...]:
    """What a plan is, or the words of its refusal."""
    try:
        plan = make()
    except Violation as broken:
        return broken.rule, str(broken)
    steps = [(s.node.op.name, s.backend, s.node.dst, s.node.src, s.node.op_params) for s in plan.steps]
    return steps, plan.buffers, world.result(plan)


@pytest.mark.parametrize("other", [{}, {"keys": 24, "seen": 5}, {"eps": 0.5}, {"keys": 4, "eps": 1.0}])
def test_a_graph_like_the_last_one_is_not_checked_anew(world: World, checked: dict[str, int], other: dict[str, Any]) -> None:
    world.planner(world.graph(), world.memory, world.backend)
    assert checked == {"make_plan": 0, "check_node": 4}, "each kind of node once"
    plan = world.planner(world.graph(**other), world.memory, world.backend)
    assert checked["make_plan"] == 0
    assert checked["check_node"] < 8
    fresh = make_plan(world.graph(**other), world.memory, world.backend)
    assert world.result(plan) == world.result(fresh)
    assert np.array_equal(plan.compiled._packed, fresh.compiled._packed)  # type: ignore[attr-defined]
    assert [step.node for step in plan.steps] == [step.node for step in fresh.steps]


def test_of_many_nodes_that_have_changed_one_of_each_geometry_is_checked(world: World, checked: dict[str, int]) -> None:
    def graph(longer: int) -> Graph:
        rows = [world.tensor(j, ne=(4 * j + longer, 2)) for j in (1, 2)]
        for i in range(3, 12):
            j = 1 + i % 2
            rows.append(world.tensor(i, "ADD" if i % 3 else "MUL", j, j, ne=(4 * j + longer, 2)))
        return Graph.decode(encode(GraphCompute(nodes=tuple(range(3, 12)), tensors=tuple(rows))))

    world.planner(graph(0), world.memory, world.backend)
    assert checked == {"make_plan": 0, "check_node": 4}
    plan = world.planner(graph(4), world.memory, world.backend)
    assert checked == {"make_plan": 0, "check_node": 8}
    fresh = make_plan(graph(4), world.memory, world.backend)
    assert np.array_equal(plan.compiled._packed, fresh.compiled._packed)  # type: ignore[attr-defined]
    assert world.result(plan) == world.result(fresh)
    assert [step.node for step in plan.steps] == [step.node for step in fresh.steps]


def test_a_graph_in_another_buffer_is_computed_there(world: World, checked: dict[str, int]) -> None:
    world.planner(world.graph(), world.memory, world.backend)
    first, world.buffer = world.buffer, world.allocate()
    plan = world.planner(world.graph(), world.memory, world.backend)
    assert checked == {"make_plan": 0, "check_node": 4}
    assert plan.buffers == {world.buffer}
    before = first.allocation.data.copy()  # type: ignore[union-attr]
    assert any(world.result(plan)[3 * PLACE :])
    assert np.array_equal(first.allocation.data, before)  # type: ignore[arg-type]


def mutated(graph: Graph, row: int, field: str, index: int, value: int) -> Graph:
    tensors = graph.tensors.copy()
    whole = tensors[field]
    if whole.ndim > 1:
        whole[row, index % whole.shape[1]] = value
    else:
        whole[row] = value
    return Graph(graph.device, graph.nodes, tensors)


@seed(SEED)
@settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    changes=st.lists(
        st.one_of(
            st.tuples(st.integers(0, 6), st.sampled_from(["ne", "nb", "type", "op_params", "view_offs"]), st.integers(0, 3),
                      st.sampled_from([0, 1, 2, 4, 8, 16, 30, 32, 64, 128, 2**31, 2**32 - 1])),
            st.tuples(st.integers(0, 6), st.sampled_from(["id", "op", "flags", "src", "view_src", "buffer"]), st.integers(0, 1),
                      st.integers(0, 16)),
            st.tuples(st.integers(0, 6), st.just("data"), st.just(0), st.integers(-2, 34).map(lambda n: n * PLACE // 2)),
        ),
        min_size=1, max_size=3,
    ),
    like=st.booleans(),
    few=st.sampled_from([0, patterns.FEW]),
)  # fmt: skip
def test_any_other_graph_comes_out_as_make_plan_has_it(changes: list[tuple[int, str, int, int]], like: bool, few: int) -> None:
    """Whatever is changed in whichever tensors, in a graph like one before or the first: the same steps and bytes, or refusal."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patterns, "FEW", few)  # the changed nodes are looked at one by one, or those of one geometry together
        _comes_out_as_make_plan_has_it(changes, like)


def _comes_out_as_make_plan_has_it(changes: list[tuple[int, str, int, int]], like: bool) -> None:
    world = World()
    if like:
        world.planner(world.graph(), world.memory, world.backend)
    graph = world.graph()
    for row, field, index, value in changes:
        number = value + world.buffer.base if field == "data" else value
        limit = np.iinfo(graph.tensors[field].dtype)
        graph = mutated(graph, row, field, index, min(max(number, int(limit.min)), int(limit.max)))
    wanted = outcome(lambda: make_plan(graph, world.memory, world.backend), world)
    event("refused" if isinstance(wanted[0], str) else "planned")
    for _ in range(3):  # also where it has become the graph planned last
        assert outcome(lambda: world.planner(graph, world.memory, world.backend), world) == wanted


@pytest.mark.parametrize(
    ("row", "field", "value"),
    [
        (6, "data", PLACE * 5 + 8), (2, "data", PLACE + 4), (5, "view_offs", 4), (5, "data", PLACE * 5 + 4), (0, "data", ROOM),
        (4, "ne", 0),
    ],
)  # fmt: skip
def test_what_numpy_finds_is_looked_at_again(world: World, checked: dict[str, int], row: int, field: str, value: int) -> None:
    """A result over part of a source, a view in the wrong place, a tensor outside, an empty node."""
    world.planner(world.graph(), world.memory, world.backend)
    graph = mutated(world.graph(), row, field, 0, value + (world.buffer.base if field == "data" else 0))
    wanted = outcome(lambda: make_plan(graph, world.memory, world.backend), world)
    assert outcome(lambda: world.planner(graph, world.memory, world.backend), world) == wanted
    assert checked["make_plan"] == 1


def test_a_node_that_was_empty_is_computed_once_it_is_not(world: World) -> None:
    world.planner(world.graph(seen=0), world.memory, world.backend)
    plan = world.planner(world.graph(seen=4), world.memory, world.backend)
    assert world.result(plan) == world.result(make_plan(world.graph(seen=4), world.memory, world.backend))


def test_the_graph_planned_last_is_not_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(**other: Any) -> Plan:
        return world.planner(world.graph(**other), world.memory, world.backend)

    wanted = world.result(plan(keys=16))
    assert world.result(plan(keys=16)) == wanted
    with monkeypatch.context() as patched:
        patched.setattr(Memory, "locate", lambda *_: pytest.fail("it was looked at"))
        assert world.result(plan(keys=16)) == wanted
    assert world.result(plan(keys=8)) != wanted
    assert world.result(plan(keys=16)) == wanted


@pytest.mark.parametrize("times", [1, 3])
def test_a_graph_whose_buffer_is_freed_is_refused(world: World, times: int) -> None:
    graph = world.graph()
    for _ in range(times):
        world.planner(graph, world.memory, world.backend)
    world.memory.free(world.buffer.remote_ptr)
    with pytest.raises(Violation, match=r"graph\.null-data"):
        world.planner(graph, world.memory, world.backend)


def test_steps_are_counted_again(world: World) -> None:
    small = Planner(max_steps=3000)
    small(world.graph(), world.memory, world.backend)
    with pytest.raises(Violation, match=r"graph\.cost"):
        small(world.graph(keys=64), world.memory, world.backend)


def test_nothing_keeps_the_bytes_of_a_freed_buffer(world: World) -> None:
    world.planner(world.graph(), world.memory, world.backend)
    for _ in range(2):
        world.planner(world.graph(keys=16), world.memory, world.backend)
    kept = weakref.ref(world.buffer.allocation)
    world.memory.free(world.buffer.remote_ptr)
    del world.buffer
    gc.collect()
    assert kept() is None


def test_patterns_are_bounded_and_go_with_their_connection(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "MOST_TENSORS", 20)
    for eps in range(4):
        world.planner(Graph(0, world.graph().nodes[: 1 + eps], world.graph().tensors), world.memory, world.backend)
    known = world.planner._known
    assert sum(len(k.pattern.tensors) for k in known) <= 20
    assert len(known) == 2
    assert world.planner._memory.size == sum(k.pattern.nbytes for k in known)
    another = Memory([world.backend.memory])
    world.memory.close()
    world.memory = another
    world.buffer = world.allocate()
    gc.collect()
    world.planner(world.graph(), world.memory, world.backend)
    assert len(world.planner._known) == 1


def test_patterns_are_counted_and_make_room_for_graphs(world: World) -> None:
    """What they have is about what Python says that it has; a graph that would find no room gets theirs."""
    budget = Budget(2**20)
    planner = Planner(budget=budget)
    graph = world.graph()
    many = Graph(0, graph.nodes, np.concatenate((graph.tensors, unused(graph, 300))))
    planner(graph, world.memory, world.backend)
    gc.collect()
    tracemalloc.start()
    planner(many, world.memory, world.backend)
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (_, known) = planner._known
    assert 0.9 * known.pattern.nbytes < kept < 1.5 * known.pattern.nbytes
    assert budget.used == sum(k.pattern.nbytes for k in planner._known)
    stored = StoredGraphs(budget, DEFAULT)
    for _ in range(2):
        stored.arriving((2**19 - 1000) // ARRIVING)
        assert budget.used < 2**20
        stored = StoredGraphs(budget, DEFAULT)
    assert not planner._known
    with pytest.raises(Violation, match=r"frame\.size-bounded"):
        stored.arriving(2**18 // ARRIVING)


def unused(graph: Graph, count: int) -> Any:
    """Tensors that no node names."""
    more = np.repeat(graph.tensors[:1], count)
    more["id"] = 1000 + np.arange(count)
    return more


def test_a_pattern_that_there_is_no_room_for_is_not_kept(world: World) -> None:
    planner = Planner(budget=Budget(2000))
    planner(world.graph(), world.memory, world.backend)
    assert not planner._known
    assert planner._memory.budget.used == 0


def test_a_connection_that_is_over_leaves_no_pattern() -> None:
    host = make_host("native", memory=2**20)
    with Session(host) as session:
        buffer = session.memory.alloc(0, ROOM)
        assert buffer is not None
        world = World()
        world.buffer = buffer
        session.handle(world.graph())
        assert host.graph_memory.used > session.stored.memory.size
    assert host.graph_memory.used == 0
