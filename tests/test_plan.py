"""The seam for backends: who computes which step, in what order, on whose memory; and a run that stops between steps."""

from __future__ import annotations

import json
import logging
import struct
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from ggml_rpc_ref.backends import Cancelled, Run, Step, Stopped, never, registry
from ggml_rpc_ref.backends.memory import Allocation, ByCopies, HostMemory
from ggml_rpc_ref.backends.oracle import Oracle
from ggml_rpc_ref.backends.staging import Stage
from ggml_rpc_ref.conformance import Verdict, run, select
from ggml_rpc_ref.errors import Misuse, Violation
from ggml_rpc_ref.ops import canonical_ops, cost, ops_of
from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.protocol.codec import encode
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server import plan as plans
from ggml_rpc_ref.server import validate
from ggml_rpc_ref.server.handlers import Device
from ggml_rpc_ref.server.memory import Buffer, Memory
from ggml_rpc_ref.server.plan import Plan, make_plan
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.messages import FLAG_COMPUTE, GraphCompute, RpcTensor
from ggml_rpc_ref.spec.opcodes import CUSTOM_OPS, VIEW_OPS, op_table
from ggml_rpc_ref.spec.versions import DEFAULT, NEWEST
from ggml_rpc_ref.tensor import Tensor
from tests.support.command import run_command
from tests.support.sabotage import InProcess

OP = {name: number for number, name in enumerate(op_table())}
ROW = 16
"""Bytes of a vector of four F32."""


class Elsewhere(ByCopies):
    """An allocation whose bytes the server can't reach in place; it counts what moves."""

    data = None

    def __init__(self, memory: ElsewhereMemory, size: int) -> None:
        self.memory, self.content = memory, bytearray(size)

    @property
    def size(self) -> int:
        return len(self.content)

    def upload(self, start: int, data: memoryview) -> None:
        self.memory.uploads += 1
        self.content[start : start + len(data)] = data

    def download(self, start: int, stop: int) -> memoryview:
        self.memory.downloads += 1
        return memoryview(bytes(self.content[start:stop]))

    def copy(self, start: int, source: Allocation, first: int, last: int) -> None:
        if isinstance(source, Elsewhere):
            self.memory.copies += 1
            self.content[start : start + last - first] = source.content[first:last]
        else:
            self.upload(start, source.download(first, last))

    def clear(self, value: int) -> None:
        self.content[:] = bytes([value]) * self.size

    def written(self, start: int, stop: int) -> None:
        raise AssertionError("nothing of this memory can be written in place")

    def free(self) -> None:
        self.memory.free += self.size


class ElsewhereMemory:
    """A device's memory of its own."""

    def __init__(self, total: int) -> None:
        self.total = self.free = total
        self.uploads = self.downloads = self.copies = 0

    def allocate(self, size: int) -> Elsewhere | None:
        if size > self.free:
            return None
        self.free -= size
        return Elsewhere(self, size)


def add(node: Node) -> None:
    node.dst.array[...] = node.source(0).array + node.source(1).array


def negate_square(node: Node) -> None:
    """Not what SQR is, so that it shows who computed it."""
    node.dst.array[...] = -(node.source(0).array ** 2)


class Toy:
    """A backend of two ops that runs a graph in one call."""

    name = "toy"
    KERNELS: Mapping[str, Callable[[Node], None]] = {"ADD": add, "SQR": negate_square}

    def __init__(self, memory: Any) -> None:
        self.memory = memory
        self.compiled: list[list[Step]] = []
        self.runs = 0

    def supports(self, node: Node) -> bool:
        in_place = node.dst.storage is not None and node.dst.storage.data is not None
        return in_place and node.op.name in self.KERNELS

    def compile(self, steps: Sequence[Step]) -> Run:
        self.compiled.append(list(steps))

        def run(cancelled: Cancelled) -> None:
            self.runs += 1
            for step in steps:
                if cancelled():
                    raise Stopped
                if step.compute is None:
                    self.KERNELS[step.node.op.name](step.node)
                else:
                    step.compute()

        return run


class World:
    """A connection's memory on one device, with a buffer in it, and graphs whose tensors are vectors of four F32."""

    def __init__(self, backend: Any) -> None:
        self.backend, self.memory = backend, Memory([backend.memory])
        buffer = self.memory.alloc(0, 4096)
        assert buffer is not None
        self.buffer: Buffer = buffer

    def vector(self, place: int, op: str = "NONE", *src: int, **more: Any) -> RpcTensor:
        """The vector in a place of the buffer; its id is the place, counted from 1."""
        flags = 0 if op == "NONE" else FLAG_COMPUTE
        size = {"ne": (4, 1, 1, 1), "nb": (4, ROW, ROW, ROW), "data": self.buffer.base + ROW * place}
        return RpcTensor(id=place, buffer=self.buffer.remote_ptr, op=OP[op], flags=flags, src=src, **size | more)  # type: ignore[arg-type]

    def plan(self, *tensors: RpcTensor) -> Plan:
        nodes = tuple(tensor.id for tensor in tensors if tensor.flags)
        graph = Graph.decode(encode(GraphCompute(device=0, nodes=nodes, tensors=tensors)))
        return make_plan(graph, self.memory, self.backend)

    def write(self, place: int, *values: float) -> None:
        self.buffer.allocation.upload(ROW * place, memoryview(struct.pack("<4f", *values)))

    def read(self, place: int) -> list[float]:
        return list(struct.unpack("<4f", self.buffer.allocation.download(ROW * place, ROW * (place + 1))))


# ----------------------------------------------------------------------------------------------- a backend of two ops


def mixed(world: World) -> Plan:
    """Y = x + x (3), its square root (4), the square of that (5), its sum of rows (6), and both added (7)."""
    world.write(1, 2, 8, 18, 32)
    one = {"ne": (1, 1, 1, 1), "nb": (4, 4, 4, 4)}
    v = world.vector
    return world.plan(v(1), v(3, "ADD", 1, 1), v(4, "SQRT", 3), v(5, "SQR", 4), v(6, "SUM_ROWS", 5, **one), v(7, "ADD", 5, 6))


def test_a_backend_gets_the_whole_graph_at_once_and_the_oracle_computes_what_it_lacks() -> None:
    toy = Toy(HostMemory(1 << 20))
    world = World(toy)
    plan = mixed(world)
    (compiled,) = toy.compiled
    assert [(step.node.op.name, step.backend) for step in compiled] == [
        ("ADD", "toy"), ("SQRT", "oracle"), ("SQR", "toy"), ("SUM_ROWS", "oracle"), ("ADD", "toy"),
    ]  # fmt: skip
    assert [step.compute is None for step in compiled] == [True, False, True, False, True]
    assert plan.steps == tuple(compiled)
    assert plan.ops_by_backend() == {"toy": {"ADD": 2, "SQR": 1}, "oracle": {"SQRT": 1, "SUM_ROWS": 1}}
    plan.run()
    # worked out by hand: 4 16 36 64, roots 2 4 6 8, squares (the toy's, negated) -4 -16 -36 -64, sum -120
    assert world.read(5) == [-4, -16, -36, -64]
    assert world.read(7) == [-124, -136, -156, -184]
    world.write(1, 0, 0, 0, 2)
    plan.run()
    assert world.read(7) == [-4, -4, -4, -8]
    assert (toy.runs, len(toy.compiled)) == (2, 1)


def test_the_log_says_what_runs_on_the_oracle(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "ggml_rpc_ref.server.plan")
    mixed(World(Toy(HostMemory(1 << 20))))
    assert caplog.messages == ["2 of 5 steps run on oracle instead of toy: SQRT 1, SUM_ROWS 1"]
    caplog.clear()
    mixed(World(Oracle(HostMemory(1 << 20))))
    assert caplog.messages == []


# --------------------------------------------------------------------------------------------- memory that is elsewhere


def test_a_graph_runs_on_copies_of_memory_that_numpy_can_not_reach() -> None:
    memory = ElsewhereMemory(1 << 20)
    world = World(Toy(memory))
    plan = mixed(world)
    assert plan.ops_by_backend() == {"oracle": {"ADD": 2, "SQRT": 1, "SQR": 1, "SUM_ROWS": 1}}
    plan.run()
    assert world.read(5) == [4, 16, 36, 64]
    assert world.read(7) == [124, 136, 156, 184]


@pytest.mark.parametrize(("apart", "refused"), [(4, False), (8, True), (1024, True)])
def test_copies_of_memory_elsewhere_are_bounded(apart: int, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies between two elements is copied too: for 1 GiB here 0 bytes beyond the operands are granted."""
    monkeypatch.setattr(cost, "GRANT", 0)
    world = World(Toy(ElsewhereMemory(1 << 20)))
    v = world.vector
    source = v(1, nb=(apart, 4 * apart, 4 * apart, 4 * apart))
    graph = source, v(2, "CONT", 1, data=world.buffer.base + 4080)
    if refused:
        with pytest.raises(Violation, match="in copies for the processor") as violation:
            world.plan(*graph)
        assert violation.value.rule == "graph.cost"
    else:
        world.plan(*graph).run()


def test_what_a_device_copied_is_not_copied_again() -> None:
    """But what cannot be written, or is not a copy, is."""
    elsewhere, here = Elsewhere(ElsewhereMemory(64), 64), HostMemory(64).allocate(64)
    assert here is not None
    for allocation, room, same in ((elsewhere, bytearray(16), True), (elsewhere, bytes(16), False), (here, bytearray(16), False)):
        allocation.download = lambda start, stop, room=room: memoryview(room)  # type: ignore[method-assign]
        tensor = Tensor(BY_NAME["F32"], (4, 1, 1, 1), (4, 16, 16, 16), cast(Any, allocation))
        stage = Stage([tensor])
        stage.download()
        copy = stage.moved(tensor).array
        copy[...] = 1
        assert np.shares_memory(copy, np.frombuffer(room, np.uint8)) is same


def test_results_in_place_and_views_of_memory_elsewhere() -> None:
    """A sum into its own source (3, in place of 1), then a view (4) of its first two elements into another place (5)."""
    world = World(Toy(ElsewhereMemory(1 << 20)))
    world.write(1, 1, 2, 3, 4)
    world.write(2, 10, 20, 30, 40)
    v, half = world.vector, {"ne": (2, 1, 1, 1), "nb": (4, 8, 8, 8)}
    base = world.buffer.base
    into = v(3, "ADD", 1, 2, data=base + ROW)
    view = v(4, "VIEW", 3, view_src=3, view_offs=8, **half, data=base + ROW + 8)
    world.plan(v(1), v(2), into, view, v(5, "SQR", 4, **half)).run()
    assert world.read(1) == [11, 22, 33, 44]
    assert world.read(2) == [10, 20, 30, 40]
    assert world.read(5) == [33**2, 44**2, 0, 0]


def test_what_an_op_updates_beside_its_result_is_written_back() -> None:
    """One step of AdamW writes both momenta: beta1 = beta2 = 0, so they become the gradient and its square."""
    world = World(Toy(ElsewhereMemory(1 << 20)))
    world.write(2, 1, 2, 3, 4)
    world.buffer.allocation.upload(ROW * 5, memoryview(struct.pack("<7f", 0, 0, 0, 1, 0, 1, 1)))
    v, settings = world.vector, {"ne": (7, 1, 1, 1), "nb": (4, 28, 28, 28)}
    weight = v(8, "OPT_STEP_ADAMW", 1, 2, 3, 4, 5, view_src=1, data=world.buffer.base + ROW)
    world.plan(v(1), v(2), v(3), v(4), v(5, **settings), weight).run()
    assert world.read(3) == [1, 2, 3, 4]
    assert world.read(4) == [1, 4, 9, 16]


def test_the_suite_passes_on_memory_elsewhere(tmp_path: Path) -> None:
    """Two devices; every case of sections data and buffer, and a graph."""
    memories = [ElsewhereMemory(2**33) for _ in range(2)]
    devices = [Device("toy", "for tests", Toy(memory)) for memory in memories]
    cases = [case for case in select(("data.*", "buffer.*", "graph.computes/add*")) if case.present(DEFAULT)]
    report = run(OnDevices(tmp_path, devices), cases)
    assert not {r.case.id: r.detail for r in report.results if r.verdict is not Verdict.PASS}
    assert len(report.results) == len(cases) > 60
    for memory in memories:
        assert memory.uploads > 0
        assert memory.downloads > 0
        assert memory.copies > 0
        assert memory.free == memory.total


class OnDevices(InProcess):
    """Our server with devices of the test's own."""

    def __init__(self, cache: Path, devices: list[Device]) -> None:
        super().__init__(cache)
        self._server.host = replace(self._server.host, devices=devices)


def test_an_array_of_memory_elsewhere_is_a_misuse() -> None:
    world = World(Toy(ElsewhereMemory(1 << 20)))
    with pytest.raises(Misuse, match="host memory"):
        _ = world.memory.tensor(world.vector(1)).array


# --------------------------------------------------------------------------------------------------------- cancelling


@pytest.mark.parametrize("backend", [Oracle, Toy])
def test_a_run_stops_between_steps(backend: Any) -> None:
    world = World(backend(HostMemory(1 << 20)))
    plan = mixed(world)
    with pytest.raises(Stopped):
        plan.run(lambda: world.read(4) != [0, 0, 0, 0])
    assert world.read(4) == [2, 4, 6, 8]
    assert world.read(5) == world.read(6) == world.read(7) == [0, 0, 0, 0]
    plan.run(never)
    assert world.read(7) != [0, 0, 0, 0]


# ----------------------------------------------------------------------------------------------------------- registry


def test_every_backend_names_ops_that_there_are() -> None:
    assert list(registry.BACKENDS) == ["oracle", "upstream-cpu", "native", "cuda"]
    for row in registry.ROWS:
        assert row.kernels().keys() <= ops_of(NEWEST).keys() - CUSTOM_OPS, row.name
        if row.name in ("native", "cuda") and row.unavailable():
            continue  # installed where there is no C compiler, or no GPU
        assert row.unavailable() == ""
        backend = row.make(1000, 10)
        assert (backend.name, backend.KERNELS, backend.memory.total) == (row.name, row.kernels(), 1000)
    assert registry.BACKENDS["oracle"].kernels().keys() == ops_of(NEWEST).keys() - CUSTOM_OPS


def test_auto_is_native_where_it_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for why, name in (("", "native"), ("not built", "oracle")):
        monkeypatch.setattr(registry.Row, "unavailable", lambda row, why=why: why)
        assert registry.find("auto").name == name


def test_a_backend_that_can_not_be_used_says_why() -> None:
    missing = registry.Row("cuda", "kernels on a GPU", "no_such_module", "Cuda")
    assert "no_such_module" in missing.unavailable()
    with pytest.raises(Misuse, match="the device 'cuda' can't be used here: No module named"):
        missing.make(1000)


# --------------------------------------------------------------------------------- a graph's tensors at numpy's speed


def odd_records(world: World) -> Iterator[RpcTensor]:
    """Records around every bound: types, blocks, extents that would wrap, places, buffers that are none."""
    base, ptr = world.buffer.base, world.buffer.remote_ptr
    top = 2**32 - 1
    geometries = [
        (0, (4, 1, 1, 1), (4, 16, 16, 16)), (0, (0, 3, 1, 1), (4, 16, 16, 16)), (0, (4, 1, 1, 1), (4, top, top, top)),
        (0, (1024, 1, 1, 1), (4, 4096, 4096, 4096)), (0, (1025, 1, 1, 1), (4, 4100, 4100, 4100)), (0, (top,) * 4, (top,) * 4),
        (0, (2**31, 2, 2, 2**31), (1, 2**31, 0, 0)), (24, (4096, 1, 1, 1), (1, 4096, 4096, 4096)),
        (2, (32, 2, 1, 1), (18, 18, 36, 36)),
        (2, (33, 1, 1, 1), (18, 18, 18, 18)), (2, (top - 31, top, 1, 1), (top, top, 0, 0)), (8, (0, 0, 0, 0), (0, 0, 0, 0)),
        (4, (4, 1, 1, 1), (4, 16, 16, 16)), (41, (4, 1, 1, 1), (4, 16, 16, 16)), (top, (4, 1, 1, 1), (4, 16, 16, 16)),
        (0, (2, 2**31 + 1, 1, 1), (4, 2**31, 0, 0)),
    ]  # fmt: skip
    places = [(ptr, base), (ptr, base + 4080), (ptr, base + 4081), (ptr, base + 4096), (ptr, base + 4097), (ptr, base - 1)]
    places += [(ptr, 0), (ptr, 2**64 - 8), (0, 0), (0, base), (ptr + 32, 0), (ptr + 32, base), (world.empty.remote_ptr, 0)]
    for type, ne, nb in geometries:
        for buffer, data in places:
            yield RpcTensor(id=1, type=type, buffer=buffer, ne=ne, nb=nb, data=data, name=b"odd")


def judged(bind: Callable[[], Any]) -> Any:
    try:
        tensor = bind()
    except Violation as broken:
        return str(broken)
    return (tensor, tensor.storage, tensor.nelements, tensor.nbytes, tensor.shape, tensor.name)


def test_tensors_are_bound_all_at_once_as_they_are_one_by_one() -> None:
    world = World(Oracle(HostMemory(1 << 20)))
    empty = world.memory.alloc(0, 0)
    assert empty is not None
    world.empty = empty  # type: ignore[attr-defined]
    refused = 0
    for wire in odd_records(world):
        records = Graph.decode(encode(GraphCompute(nodes=(), tensors=(wire, wire)))).tensors

        def one_by_one(wire: RpcTensor = wire) -> Any:
            tensor = world.memory.tensor(wire)
            if tensor.storage is None and wire.data:
                why = "it names no live buffer of this connection"
                raise Violation("graph.null-data", "tensor 'odd'.data", hex(wire.data), why)
            return tensor

        wanted = judged(one_by_one)
        assert judged(lambda r=records: world.memory.tensors(r).tensors[1]) == wanted, wire  # type: ignore[misc]
        refused += isinstance(wanted, str)
    assert refused == 167


def test_rules_are_asked_once_for_nodes_that_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(Oracle(HostMemory(1 << 20)))
    asked: list[Node] = []
    add = canonical_ops(DEFAULT)["ADD"]
    original = add.shape
    object.__setattr__(add, "shape", lambda node: (asked.append(node), original(node)))
    try:
        v = world.vector
        adds = [v(place, "ADD", 1, 2) for place in range(3, 100)]
        in_place = v(100, "ADD", 1, 2, data=world.buffer.base + ROW)
        other = v(101, "ADD", 1, 2, op_params=(1,) + (0,) * 15)
        plan = world.plan(v(1), v(2), *adds, in_place, other)
    finally:
        object.__setattr__(add, "shape", original)
    assert len(plan.steps) == 99
    assert len(asked) == 2


@pytest.mark.parametrize("position", [3, 50, 99])
def test_one_bad_node_among_many_alike_is_found(position: int) -> None:
    world = World(Oracle(HostMemory(1 << 20)))
    v = world.vector
    adds = {place: v(place, "ADD", 1, 2) for place in range(3, 100)}
    adds[position] = v(position, "ADD", 1, 2, ne=(2, 1, 1, 1), nb=(4, 8, 8, 8), name=b"the bad one")
    with pytest.raises(Violation, match=r"graph\.shape.*the bad one"):
        world.plan(v(1), v(2), *adds.values())


def test_an_update_elsewhere_than_in_its_weight_is_refused_though_one_in_place_was_good() -> None:
    """Where tensors lie is asked of each node by itself: it is not among what the rules of geometry look at."""
    world = World(Oracle(HostMemory(1 << 20)))
    v, settings = world.vector, {"ne": (2, 1, 1, 1), "nb": (4, 8, 8, 8)}
    leaves = (v(1), v(2), v(3, **settings))
    good = v(8, "OPT_STEP_SGD", 1, 2, 3, data=world.buffer.base + ROW)
    world.plan(*leaves, good).run()
    with pytest.raises(Violation, match=r"graph\.shape.*the weight itself"):
        world.plan(*leaves, good, v(9, "OPT_STEP_SGD", 1, 2, 3))


def test_values_are_those_of_now(world_values: World) -> None:
    """Arrays are made once for each tensor of a plan; they show the bytes, they don't keep them."""
    plan = world_values.plan(world_values.vector(1), world_values.vector(3, "SQR", 1))
    for number in (2.0, 3.0):
        world_values.write(1, number, 0, 0, 1)
        plan.run()
        assert world_values.read(3) == [number**2, 0, 0, 1]
    assert np.isfinite(world_values.read(3)).all()


@pytest.fixture
def world_values() -> World:
    return World(Oracle(HostMemory(1 << 20)))


def test_backends_counts_no_more_ops_than_there_are() -> None:
    done = run_command("backends", "--json")
    counts = {row["name"]: row["ops"] for row in json.loads(done.stdout)}
    assert counts["oracle"] == len(ops_of(NEWEST).keys() - CUSTOM_OPS - VIEW_OPS)
    assert counts["native"] == len(registry.BACKENDS["native"].kernels()) > 0


# ------------------------------------------------------------------------------------------------------------ in parts


def test_a_graph_is_checked_and_a_plan_dismantled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of two here, so that seven nodes are several: none is lost, and nothing of a dropped plan is left."""
    for module in (validate, plans):
        monkeypatch.setattr(module, "AT_ONCE", 2)
    world = World(Oracle(HostMemory(2**20)))
    chain = [world.vector(n, "ADD", n - 1, n - 1) for n in range(2, 9)]
    plan = world.plan(world.vector(1), *chain)
    world.write(1, 1, 2, 3, 4)
    plan.run()
    assert world.read(8) == [128, 256, 384, 512]
    kept = weakref.ref(plan.steps[3].node.dst)
    plan.dismantle()
    assert (plan.held, plan.compiled, kept()) == ([], None, None)
