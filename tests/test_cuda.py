"""The backend `cuda` on a GPU made of threads: how graphs run, what moves, and what happens when a device fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggml_rpc_ref.backends import DeviceFault, Stopped, cuda, registry
from ggml_rpc_ref.backends.cuda import compiler, driver, launches
from ggml_rpc_ref.backends.cuda.backend import OUTCOME, PART, Cuda
from ggml_rpc_ref.backends.cuda.device import Launch
from ggml_rpc_ref.backends.cuda.geometry import GEOMETRY
from ggml_rpc_ref.backends.cuda.memory import PIECE, PIECES
from ggml_rpc_ref.backends.cuda.plans import Plan
from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.client.client import connect
from ggml_rpc_ref.client.scheduler.scheduler import Scheduler
from ggml_rpc_ref.conformance import Verdict, run, select
from ggml_rpc_ref.errors import Misuse, Violation
from ggml_rpc_ref.ops import cost
from ggml_rpc_ref.spec.versions import DEFAULT
from ggml_rpc_ref.this_machine.devices import local
from tests.support.gpu.devices import Card, OnCards
from tests.test_plan import ROW, World


@pytest.fixture
def card() -> Iterator[Card]:
    made = Card(limit=2**26)
    yield made
    made.gpu.close()


def sums(world: World, count: int = 1) -> Any:
    """A plan of so many ADDs one after the other: place 3 gets 1 + 2, each next one the one before and 2."""
    nodes = [world.vector(3 + n, "ADD", 2 + n if n else 1, 2) for n in range(count)]
    return world.plan(world.vector(1), world.vector(2), *nodes)


def test_a_gpu_is_a_backend_of_this_machine(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """`local("cuda")` under a scheduler: what the GPU can't compute, the last backend does."""
    monkeypatch.setattr(cuda, "unavailable", lambda index: "")
    monkeypatch.setattr(cuda.Cuda, "on_device", lambda index, name, limit: card.backend)
    here = local("cuda", memory=2**20)
    assert (here.name, here.is_local, here.memory().total) == ("cuda", True, 2**26)
    assert here.buffer_from_host_ptr(np.zeros(64, np.uint8)) is None
    with Scheduler([here, local("oracle", memory=2**20)]) as scheduler:
        weight = scheduler.weights({"w": np.eye(32, dtype=np.float32) * 2}, lambda name: here)["w"]
        graph = scheduler.graph()
        x = graph.input("F32", (32, 2), "x")
        y = graph.add(graph.mul_mat(weight, x), x)
        x.write(np.arange(64, dtype=np.float32).reshape(2, 32))
        for _ in range(2):
            graph.compute()
        np.testing.assert_array_equal(y.numpy(), 3 * np.arange(64).reshape(2, 32))
        assert [split.backend for split in scheduler.explain(graph).splits] == ["cuda"]
    assert "add" in card.gpu.launched


# --------------------------------------------------------------------------------------------------------------- plans


def test_a_plan_is_recorded_once_and_run_again(card: Card) -> None:
    world = World(card.backend)
    plan = sums(world, 3)
    assert plan.ops_by_backend() == {"cuda": {"ADD": 3}}
    for first in (1.0, 5.0):
        world.write(1, first, 0, 0, 0)
        world.write(2, 10, 20, 30, 40)
        plan.run()
        assert world.read(5) == [first + 30, 60, 90, 120]
    assert card.gpu.recordings == 1
    assert card.gpu.launched == ["add"] * 6


def test_scratch_memory_is_counted_and_given_back(card: Card) -> None:
    """It belongs to plans, which are kept: a client could store thousands of them beside all that `-m` bounds."""
    memory = card.memory
    memory.most_scratch = 2 * (2**10 + OUTCOME)
    addresses = [memory.allocate_scratch(card.gpu, 2**10 + OUTCOME) for _ in range(2)]
    with pytest.raises(MemoryError):
        memory.allocate_scratch(card.gpu, 1)
    memory.release_scratch(card.gpu, addresses.pop(), 2**10 + OUTCOME)
    world = World(card.backend)
    plans = [sums(world) for _ in range(5)]
    with pytest.raises(Violation, match="no memory to compute it"):
        plans += [sums(world) for _ in range(5)]
    plans.clear()
    assert sums(world).ops_by_backend() == {"cuda": {"ADD": 1}}


def test_a_node_that_needs_more_scratch_memory_than_is_granted_is_the_oracles(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan((), scratch=2**20)
    monkeypatch.setattr("ggml_rpc_ref.backends.cuda.backend.PLANNERS", {"ADD": lambda node, limits: plan})
    assert sums(World(card.backend)).ops_by_backend() == {"cuda": {"ADD": 1}}
    for module, limit in ((cost, "GRANT"), (card.memory, "most_scratch")):
        with monkeypatch.context() as tight:
            tight.setattr(module, limit, 2**20 - 64)
            assert sums(World(Cuda(card.memory))).ops_by_backend() == {"oracle": {"ADD": 1}}


def test_a_step_without_a_kernel_runs_on_the_oracle_and_is_named(
    card: Card, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG, "ggml_rpc_ref.server.plan")
    # as the planner of an op answers for a type or a layout that its kernels do not take
    without = dict(launches.PLANNERS) | {"CROSS_ENTROPY_LOSS": lambda node, limits: None}
    monkeypatch.setattr("ggml_rpc_ref.backends.cuda.backend.PLANNERS", without)
    world = World(card.backend)
    world.write(1, 1, 2, 3, 4)
    v = world.vector
    ones = {"ne": (1, 1, 1, 1), "nb": (4, 4, 4, 4)}
    plan = world.plan(v(1), v(3, "SQR", 1), v(4, "CROSS_ENTROPY_LOSS", 3, 3, **ones), v(5, "ADD", 3, 4))
    assert [step.backend for step in plan.steps] == ["cuda", "oracle", "cuda"]
    assert caplog.messages == ["1 of 3 steps run on oracle instead of cuda: CROSS_ENTROPY_LOSS 1"]
    plan.run()
    squares = np.array([1, 4, 9, 16], np.float64)
    # -sum of y ln softmax(x), worked out apart from the op's own definition
    loss = -np.sum(squares * (squares - np.log(np.sum(np.exp(squares)))))
    assert np.allclose(world.read(5), squares + loss, rtol=1e-5)
    assert card.gpu.recordings == 2


def test_a_tensor_that_no_gpu_can_read_in_place_is_the_oracles(card: Card) -> None:
    """Elements at odd addresses: on a GPU they would end the context."""
    world = World(card.backend)
    world.write(1, 1, 2, 3, 4)
    odd = world.vector(3, "SQR", 1, data=world.buffer.base + 3 * ROW + 2)
    plan = world.plan(world.vector(1), odd)
    assert plan.ops_by_backend() == {"oracle": {"SQR": 1}}
    plan.run()
    assert np.frombuffer(world.buffer.allocation.download(3 * ROW + 2, 4 * ROW + 2), "<f4").tolist() == [1, 4, 9, 16]


def test_a_result_over_its_source_is_computed_as_if_apart(card: Card) -> None:
    world = World(card.backend)
    world.write(1, 1, 2, 3, 4)
    shifted = world.vector(3, "SQR", 1, data=world.buffer.base + ROW + 4)
    world.plan(world.vector(1), shifted).run()
    assert np.frombuffer(world.buffer.allocation.download(ROW, 2 * ROW + 4), "<f4").tolist() == [1, 1, 4, 9, 16]


def test_a_run_stops_between_recordings(card: Card) -> None:
    world = World(card.backend)
    v, base = world.vector, world.buffer.base
    plan = world.plan(v(1), v(2), *[v(1000 + n, "ADD", 1, 2, data=base + ROW * (3 + n % 200)) for n in range(600)])
    answers = iter([False, True])
    with pytest.raises(Stopped):
        plan.run(lambda: next(answers))
    assert len(card.gpu.launched) == PART
    plan.run()
    assert len(card.gpu.launched) == PART + 600


def test_an_index_out_of_range_is_refused_in_the_oracles_words(card: Card) -> None:
    world = World(card.backend)
    world.write(1, 1, 2, 3, 4)
    world.buffer.allocation.upload(2 * ROW, memoryview(np.array([0, 1, 0, 7], "<i4").tobytes()))
    v, rows = world.vector, {"ne": (1, 4, 1, 1), "nb": (4, 4, 16, 16)}
    table, indices = v(1, **rows), v(2, type=26)
    # after the step that fails nothing is computed: its index would be overwritten by a good one otherwise
    over_indices = v(5, "SQR", 1, **rows, data=world.buffer.base + 2 * ROW)
    plan = world.plan(table, indices, v(3, "GET_ROWS", 1, 2, **rows), v(4, "ADD", 3, 3, **rows), over_indices)
    assert plan.ops_by_backend() == {"cuda": {"GET_ROWS": 1, "ADD": 1, "SQR": 1}}
    with pytest.raises(Violation, match=r"graph.index.*src\[1\]\[3,0,0,0\].*7.*need 0 <= index < 4"):
        plan.run()
    assert world.read(4) == world.read(5) == [0, 0, 0, 0]
    world.buffer.allocation.upload(2 * ROW, memoryview(np.array([0, 1, 0, 3], "<i4").tobytes()))
    plan.run()
    assert world.read(3) == [1, 2, 1, 4]
    assert world.read(4) == [2, 4, 2, 8]


# --------------------------------------------------------------------------------------------------------------- memory


def test_figures_are_the_drivers(card: Card) -> None:
    assert (card.memory.total, Card().memory.total) == (2**26, 2**33)
    before = card.memory.free
    allocation = card.memory.allocate(4096)
    assert allocation is not None
    assert before - card.memory.free == 4096
    assert card.memory.allocate(2**26) is None
    allocation.free()
    assert card.memory.free == before


def test_uploads_and_downloads_of_several_pieces(card: Card) -> None:
    """Each piece of pinned memory is used again; the stand-in copies as late as it may."""
    size = PIECES * PIECE + 12345
    data = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    allocation = card.memory.allocate(size + 64)
    assert allocation is not None
    at = 0
    for room in allocation.receive(32, 32 + size):
        room[:] = data[at : at + len(room)].data
        at += len(room)
    assert at == size
    assert allocation.download(32, 32 + size) == data.data
    assert b"".join(bytes(piece) for piece in allocation.pieces(32, 32 + size)) == data.tobytes()
    assert allocation.download(0, 32) == bytes(32) == allocation.download(32 + size, 64 + size)
    allocation.free()


def test_a_peer_that_leaves_half_way_leaves_pinned_memory_usable(card: Card) -> None:
    allocation = card.memory.allocate(3 * PIECE)
    assert allocation is not None
    for room in allocation.receive(0, 3 * PIECE):
        room[:] = b"\1" * len(room)
        break
    for room in allocation.receive(0, 8):
        room[:] = b"\2" * 8
    assert allocation.download(0, 16) == b"\2" * 8 + b"\0" * 8


def test_copies_within_a_device_between_two_and_over_themselves(card: Card) -> None:
    other, host = Card(), HostMemory(2**20).allocate(64)
    one, two, far = (memory.allocate(64) for memory in (card.memory, card.memory, other.memory))
    assert one is not None
    assert two is not None
    assert far is not None
    assert host is not None
    one.upload(0, memoryview(bytes(range(64))))
    for target in (two, far, host):
        target.copy(8, one, 16, 32)
        assert bytes(target.download(0, 64)) == bytes(8) + bytes(range(16, 32)) + bytes(40)
    one.copy(8, one, 0, 32)
    assert bytes(one.download(0, 48)) == bytes(range(8)) + bytes(range(32)) + bytes(range(40, 48))
    one.copy(0, host, 8, 24)
    assert bytes(one.download(0, 16)) == bytes(range(16, 32))


# ------------------------------------------------------------------------------------------------- a device that fails


def fail(card: Card) -> None:
    """Let a kernel touch an address that is not there."""
    launch = Launch("add", "add", (1, 1, 1), 32, 0, bytes(GEOMETRY.itemsize))
    with card.memory.watched(card.gpu):
        recorded = card.gpu.record([launch])
        recorded.start()
        recorded.wait()


def test_a_kernel_fault_ends_that_context_and_a_fresh_one_is_made(card: Card, caplog: pytest.LogCaptureFixture) -> None:
    world = World(card.backend)
    plan = sums(world)
    with pytest.raises(DeviceFault, match="add: an illegal address at"):
        fail(card)
    assert "connections that have buffers on it end" in caplog.text
    for use in (plan.run, lambda: world.read(1), lambda: world.buffer.allocation.clear(0), lambda: world.write(1, 1, 2, 3, 4)):
        with pytest.raises(DeviceFault, match="lost with its context"):
            use()
    world.memory.close()
    fresh = World(card.backend)
    assert len(card.contexts) == 2
    fresh.write(1, 1, 2, 3, 4)
    sums(fresh).run()
    assert fresh.read(3) == [1, 2, 3, 4]


def test_a_lost_device_has_no_room(card: Card) -> None:
    with pytest.raises(DeviceFault):
        fail(card)
    card.gone = True
    assert card.memory.allocate(16) is None
    assert card.memory.free == 0
    card.gone = False
    assert card.memory.allocate(16) is not None


def test_a_fault_ends_its_connections_and_the_server_serves_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken, whole = Card(limit=2**26), Card(limit=2**26)
    target = OnCards(tmp_path, [broken, whole])
    target.start()
    try:
        with connect(str(target.endpoint)) as on_broken, connect(str(target.endpoint)) as on_whole:
            one, two = on_broken.devices[0].alloc(64), on_whole.devices[1].alloc(64)
            with pytest.raises(DeviceFault):
                fail(broken)
            with pytest.raises(ConnectionError, match=r"BUFFER_CLEAR: .* closed the connection"):
                one.clear(1)
            two.clear(7)
            assert on_whole.devices[1].memory().total == 2**26
        with connect(str(target.endpoint)) as again:
            assert again.devices[0].alloc(64) is not None
        assert "device lost" in [getattr(record, "event", "") for record in caplog.records]
    finally:
        target.stop()


# ------------------------------------------------------------------------------------------------------ a whole server


def test_the_suite_passes_on_gpus(tmp_path: Path) -> None:
    """Two devices; what touches memory and what computes."""
    cards = [Card(order=1, limit=2**30) for _ in range(2)]
    cases = [case for case in select(("data.*", "buffer.*", "graph.computes*", "graph.recompute*")) if case.present(DEFAULT)]
    report = run(OnCards(tmp_path, cards), cases)
    assert not {r.case.id: r.detail for r in report.results if r.verdict is not Verdict.PASS}
    assert len(report.results) == len(cases) > 200
    for card in cards:
        assert card.memory.free == card.memory.total
    # without these the server would have passed on the oracle alone
    assert {"add", "mul_mat_few_f32", "soft_max", "rope", "get_rows"} <= set(cards[0].gpu.launched)


# ------------------------------------------------------------------------------------------------------- what it lacks


def test_what_is_missing_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "nvcc", lambda: None)
    monkeypatch.setattr(compiler, "is_complete", lambda capability: False)
    assert compiler.unusable(90) == "CUDA's compiler, nvcc, is not on PATH nor in CUDA_HOME"
    assert compiler.unusable(61) == "its compute capability is 6.1, the kernels need 7.5"
    monkeypatch.setattr(compiler, "is_complete", lambda capability: True)
    assert compiler.unusable(90) == ""
    with pytest.raises(Misuse, match="nvcc, is not on PATH"):
        compiler.compile_op("add", 90)


def test_a_device_without_pycuda_is_refused_in_a_sentence() -> None:
    try:
        import pycuda.driver  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("pycuda is here")
    assert driver.unavailable() == "pycuda is not installed: pip install 'ggml-rpc-ref[cuda]'"
    with pytest.raises(Misuse, match=r"the device 'cuda:1' can't be used here: pycuda is not installed"):
        registry.find("cuda:1").make(0)
    with pytest.raises(Misuse, match="there is no device 'oracle:1'"):
        registry.find("oracle:1")


def test_a_card_of_an_index_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    class One:
        def __init__(self, index: int) -> None:
            pass

        count = staticmethod(lambda: 1)

        def compute_capability(self) -> tuple[int, int]:
            return 7, 0

    class Driver:
        Device = One

    monkeypatch.setattr(driver, "pycuda", Driver)
    assert driver.unavailable(1) == "there is 1 GPU here, counted from 0"
    assert driver.unavailable(0) == "its compute capability is 7.0, the kernels need 7.5"
