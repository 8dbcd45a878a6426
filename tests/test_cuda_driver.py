"""backends/cuda/driver.py and the real pycuda on a stand-in for NVIDIA's driver (tests/support/gpu/driver.cpp).

They are skipped where pycuda is not installed; .ci/run has it in a folder of its own for them.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

import numpy as np
import pytest

from bench import device_check
from ggml_rpc_ref import upstream
from ggml_rpc_ref.backends import DeviceFault
from ggml_rpc_ref.backends.cuda import Cuda, compiler, driver
from ggml_rpc_ref.backends.cuda.device import Launch, TensorMap
from ggml_rpc_ref.backends.cuda.driver import Gpu
from ggml_rpc_ref.backends.cuda.geometry import GEOMETRY
from ggml_rpc_ref.backends.cuda.memory import PIECE, PIECES, CudaMemory
from ggml_rpc_ref.errors import Misuse, Violation
from ggml_rpc_ref.ops.cases import cases_of
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.server import Server
from tests.support.gpu.driver import ORDERS, StandIn, compiled, environment, fill_cache, lacking
from tests.support.gpu.judge import judge
from tests.test_plan import World

pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking())

USERS_CACHE = os.environ.get("XDG_CACHE_HOME")
OUT_OF_MEMORY, ECC_UNCORRECTABLE, LAUNCH_FAILED, NOT_SUPPORTED = 2, 214, 719, 801
"""CUresult of cuda.h."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What XDG_CACHE_HOME is here: the kernels for capability 9.0 are in it."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        fill_cache(90)
    return folder


@pytest.fixture
def stand_in(cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[StandIn]:
    """The stand-in, which nothing may be left in when a test has ended, and on which pycuda may have nothing to complain of."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    here = StandIn(compiled())
    for name in ("ORDER", "DEVICES", "CAPABILITY", "MEMORY", "PROCESSORS", "FAULT", "STICKY", "THREADS"):
        here.set(name, None)
    yield here
    gc.collect()
    kinds = ("contexts", "current", "streams", "modules", "allocations", "pinned", "graphs", "executables")
    assert {kind: here.count(kind) for kind in kinds} == dict.fromkeys(kinds, 0)
    assert "PyCUDA" not in capfd.readouterr().err


@pytest.fixture(params=ORDERS)
def gpu(request: pytest.FixtureRequest, stand_in: StandIn) -> Iterator[Gpu]:
    stand_in.set("ORDER", request.param)
    made = Gpu(0)
    yield made
    made.close()


def in_thread(act: Callable[[], Any]) -> None:
    """Do something in a thread of its own; what it raises is raised here."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            raised.append(error)

    thread = Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def random_bytes(size: int, seed: int = 0) -> memoryview:
    return memoryview(np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes())


def held(gpu: Gpu, address: int, size: int) -> bytes:
    room = memoryview(bytearray(size))
    gpu.download(address, room)
    return bytes(room)


# --------------------------------------------------------------------------------------------------------------- memory


def test_what_the_driver_says_of_a_gpu(stand_in: StandIn) -> None:
    stand_in.set("PROCESSORS", 132)
    stand_in.set("MEMORY", 2**28)
    gpu = Gpu(0)
    assert (gpu.name, gpu.capability, gpu.processors, gpu.memory()) == ("a stand-in for a GPU", 90, 132, (2**28, 2**28))
    address = gpu.allocate(1000)
    assert gpu.memory() == (2**28 - 1024, 2**28)
    gpu.release(address)
    assert gpu.memory() == (2**28, 2**28)
    gpu.close()


def test_bytes_go_there_and_back_and_are_set_and_copied(gpu: Gpu) -> None:
    size = 100_001
    one, two = gpu.allocate(size), gpu.allocate(size)
    assert one % 256 == two % 256 == 0
    data = random_bytes(size)
    gpu.fill(two, 7, size)
    gpu.upload(one, data)
    gpu.copy(two + 3, one + 1, 5000)
    gpu.fill(one + 10, 0xFE, 20)
    assert held(gpu, one, size) == bytes(data[:10]) + b"\xfe" * 20 + bytes(data[30:])
    assert held(gpu, two, size) == b"\7" * 3 + bytes(data[1:5001]) + b"\7" * (size - 5003)
    for act in (lambda: gpu.fill(one, 1, 0), lambda: gpu.upload(one, data[:0]), lambda: gpu.copy(one, two, 0)):
        act()
    gpu.download(one, memoryview(bytearray()))
    gpu.release(one)
    gpu.release(two)


def test_an_upload_has_arrived_when_it_returns(gpu: Gpu) -> None:
    """Nothing that came after it waits for it else: kernels run on streams that know nothing of each other."""
    address, data = gpu.allocate(100), random_bytes(100)
    gpu.upload(address, data)
    assert ctypes.string_at(address, 100) == data
    gpu.fill(address, 9, 100)
    assert ctypes.string_at(address, 100) == b"\x09" * 100


def test_a_copy_that_was_begun_reads_its_memory_until_it_is_waited_for(stand_in: StandIn) -> None:
    """Else no test here could see that somebody fills it again too early."""
    for order, seen in (("late", b"2"), ("early", b"1")):
        stand_in.set("ORDER", order)
        gpu = Gpu(0)
        room, address = gpu.pinned(100), gpu.allocate(100)
        room[:] = b"1" * 100
        copy = gpu.begin_upload(address, room)
        room[:] = b"2" * 100
        copy.wait()
        copy.wait()
        assert held(gpu, address, 100) == seen * 100
        back = gpu.begin_download(address, room)
        room[:] = b"3" * 100
        back.wait()
        assert bytes(room) == (seen if order == "late" else b"3") * 100
        gpu.close()


def test_what_lies_in_no_allocation_is_refused(stand_in: StandIn) -> None:
    """The documentation's CUDA_ERROR_INVALID_VALUE."""
    gpu = Gpu(0)
    address = gpu.allocate(100)
    calls = [
        lambda: gpu.upload(address, random_bytes(101)),
        lambda: gpu.upload(address - 1, random_bytes(10)),
        lambda: gpu.download(address + 1, memoryview(bytearray(100))),
        lambda: gpu.fill(address, 1, 101),
        lambda: gpu.copy(address, address + 60, 50),
        lambda: gpu.release(address + 1),
        lambda: gpu.upload(64, random_bytes(10)),
    ]
    for call in calls:
        with pytest.raises(DeviceFault, match=r"invalid argument|CUDA_ERROR_INVALID_VALUE"):
            call()
    gpu.release(address)
    with pytest.raises(DeviceFault, match="cuMemFree_v2: CUDA_ERROR_INVALID_VALUE"):
        gpu.release(address)
    gpu.close()


def test_no_room_is_a_memory_error_and_does_no_harm(stand_in: StandIn) -> None:
    stand_in.set("MEMORY", 2**20)
    gpu = Gpu(0)
    with pytest.raises(MemoryError):
        gpu.allocate(2**20 + 1)
    address = gpu.allocate(2**20)
    with pytest.raises(MemoryError):
        gpu.allocate(1)
    stand_in.fail("cuStreamCreate", OUT_OF_MEMORY)
    with pytest.raises(MemoryError):
        gpu.fill(address, 1, 10)
    gpu.fill(address, 1, 10)
    assert held(gpu, address, 10) == b"\1" * 10
    gpu.close()


def test_a_server_gives_back_what_it_could_not_fill(stand_in: StandIn) -> None:
    memory = CudaMemory(lambda: Gpu(0))
    stand_in.fail("cuStreamCreate", OUT_OF_MEMORY)
    assert memory.allocate(1000) is None
    assert stand_in.count("allocations") == 0
    allocation = memory.allocate(1000)
    assert allocation is not None
    allocation.free()
    assert memory.free == memory.total
    memory.device().close()


def test_pieces_pass_through_pinned_memory(gpu: Gpu) -> None:
    """As the server moves a connection's bytes."""
    memory = CudaMemory(lambda: gpu)
    size = PIECES * PIECE + 12345
    data = random_bytes(size)
    allocation = memory.allocate(size + 64)
    assert allocation is not None
    at = 0
    for room in allocation.receive(32, 32 + size):
        room[:] = data[at : at + len(room)]
        at += len(room)
    assert allocation.download(32, 32 + size) == data
    assert b"".join(bytes(piece) for piece in allocation.pieces(32, 32 + size)) == bytes(data)
    assert allocation.download(0, 32) == bytes(32) == allocation.download(32 + size, 64 + size)
    allocation.copy(0, allocation, 100, 100 + PIECE)
    assert allocation.download(0, PIECE) == data[68 : 68 + PIECE]
    allocation.free()


def test_transfers_take_no_more_of_the_driver_the_more_there_are(stand_in: StandIn) -> None:
    """Streams and pinned memory are used again, also those of a peer that left half way."""
    gpu = Gpu(0)
    memory = CudaMemory(lambda: gpu)
    allocation = memory.allocate(3 * PIECE)
    assert allocation is not None

    def transfer() -> None:
        for room in allocation.receive(0, 3 * PIECE):
            room[:1] = b"1"
        for _ in allocation.receive(0, 3 * PIECE):
            break
        for _ in allocation.pieces(0, 3 * PIECE):
            break

    in_thread(transfer)
    had = stand_in.count("streams"), stand_in.count("pinned")
    for _ in range(3):
        in_thread(transfer)
    assert (stand_in.count("streams"), stand_in.count("pinned")) == had
    assert had[1] == PIECES
    gpu.close()


def test_memory_that_cannot_be_pinned_does_as_well(stand_in: StandIn) -> None:
    gpu = Gpu(0)
    for code in (NOT_SUPPORTED, OUT_OF_MEMORY):
        stand_in.fail("cuMemHostRegister_v2", code)
        room, address = gpu.pinned(100), gpu.allocate(100)
        room[:] = random_bytes(100)
        gpu.begin_upload(address, room).wait()
        assert held(gpu, address, 100) == room
    gpu.close()


# ------------------------------------------------------------------------------------------------- contexts and threads


def test_many_threads_at_once(gpu: Gpu, stand_in: StandIn) -> None:
    count, begin = 8, Barrier(8)

    def use(seed: int) -> None:
        begin.wait()
        for n in range(10):
            size = 1000 * (seed + 1) + n
            address, data, room = gpu.allocate(size), random_bytes(size, seed), gpu.pinned(size)
            copy = gpu.begin_upload(address, data)
            copy.wait()
            gpu.begin_download(address, room).wait()
            assert room == data
            gpu.release(address)

    threads = [Thread(target=use, args=(seed,)) for seed in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stand_in.count("streams") <= count
    assert stand_in.count("allocations") == 0


def test_what_threads_copy_does_not_disturb_what_another_one_records(gpu: Gpu) -> None:
    """A copy without a stream would, and both threads would lose the device."""
    address, done = gpu.allocate(1000), Event()
    gpu.finish(gpu._begin(lambda cuda, stream: None)._streams.__next__())

    def enqueue() -> None:
        def copy() -> None:
            gpu.upload(address, random_bytes(1000))
            gpu.fill(address, 1, 10)
            gpu.release(gpu.allocate(100))
            gpu.pinned(100)
            done.set()

        in_thread(copy)

    with gpu._here():
        graph = driver._instantiate(gpu._borrow(), enqueue)
    assert done.is_set()
    gpu.drop_graph(graph)


def test_a_context_ends_in_any_thread_and_only_once(stand_in: StandIn) -> None:
    """As a fault that a connection's thread sees ends the one that the main thread made, and the other way round."""
    gpus = [Gpu(0)]
    in_thread(gpus[0].close)
    assert stand_in.count("contexts") == 0
    in_thread(lambda: gpus.append(Gpu(0)))
    address = gpus[1].allocate(100)
    gpus[1].fill(address, 1, 100)
    gpus[1].close()
    gpus[1].close()
    for use in (lambda: gpus[1].fill(address, 1, 100), gpus[0].memory, lambda: gpus[0].release(1)):
        with pytest.raises(DeviceFault, match="closed"):
            use()


def test_a_context_ends_when_its_last_user_has_left(stand_in: StandIn) -> None:
    """The driver has it that no call may be under way; the stand-in ends the process if one is."""
    gpu, inside, leave = Gpu(0), Event(), Event()

    def use() -> None:
        with gpu._here():
            inside.set()
            leave.wait()
            gpu._cuda.mem_get_info()

    thread = Thread(target=use)
    thread.start()
    inside.wait()
    gpu.close()
    assert stand_in.count("contexts") == 1
    with pytest.raises(DeviceFault, match="closed"):
        gpu.memory()
    leave.set()
    thread.join()
    assert stand_in.count("contexts") == 0


def test_a_context_ends_where_another_one_is_current(stand_in: StandIn) -> None:
    """As where a collection of garbage in the midst of a call finds a GPU that nobody holds."""
    stand_in.set("DEVICES", 2)
    one, two = Gpu(0), Gpu(1)
    address = two.allocate(100)
    with two._here() as cuda:
        one.close()
        with two._here():
            pass
        assert cuda.mem_get_info()[0] == 2**32 - 256
        assert stand_in.count("current") == 1
    two.release(address)
    two.close()


@pytest.mark.parametrize("where", ["here", "in a thread"])
def test_a_context_that_cannot_even_be_made_current_ends(stand_in: StandIn, where: str, tmp_path: Path) -> None:
    """In a process of its own: what pycuda has of it stays until then."""
    act = "gpu.close()" if where == "here" else "Thread(target=gpu.close).start()"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FAILED.format(path=str(compiled()), act=act)],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


FAILED = """
from threading import Thread
from ggml_rpc_ref.backends import DeviceFault
from ggml_rpc_ref.backends.cuda.driver import Gpu
from tests.support.gpu.driver import StandIn
here = StandIn({path!r})
gpu = Gpu(0)
gpu.begin_upload(gpu.allocate(100), gpu.pinned(100))
here.fail("cuMemGetInfo_v2", 719)
try:
    gpu.memory()
except DeviceFault:
    here.set("STICKY", "all")
    {act}
while here.count("contexts"):
    pass
print(here.count("contexts"))
"""


def test_pinned_memory_outlives_its_context(stand_in: StandIn) -> None:
    """A connection's thread still receives into it when another one sees the device fail."""
    gpu = Gpu(0)
    room, address = gpu.pinned(5000), gpu.allocate(5000)
    copy = gpu.begin_upload(address, room)
    gpu.close()
    room[:] = random_bytes(5000)
    with pytest.raises(DeviceFault, match="closed"):
        copy.wait()
    assert room == random_bytes(5000)


def test_a_gpu_that_is_forgotten_leaves_nothing(stand_in: StandIn) -> None:
    gpu = Gpu(0)
    gpu.begin_upload(gpu.allocate(100), gpu.pinned(100))
    del gpu
    gc.collect()
    assert stand_in.count("contexts") == 0


LEFT = """
from threading import Thread
from ggml_rpc_ref.backends.cuda.driver import Gpu
from ggml_rpc_ref.backends.cuda.device import Launch
gpus = [Gpu(0)]
other = Thread(target=lambda: gpus.append(Gpu(1)))
other.start(); other.join()
left = [gpu.begin_upload(gpu.allocate(100), gpu.pinned(100)) for gpu in gpus]
def forever():
    with gpus[0]._here():
        import time
        time.sleep(1000)
Thread(target=forever, daemon=True).start()
print("done")
"""


def test_a_process_that_ends_in_the_midst_of_it_says_nothing(stand_in: StandIn, tmp_path: Path) -> None:
    """No abort, and no words of pycuda on a context that is still there."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LEFT],
        env=environment(tmp_path, devices=2),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


# ------------------------------------------------------------------------------------------------------ what is not there


def test_an_index_that_is_not_there(stand_in: StandIn) -> None:
    stand_in.set("DEVICES", 2)
    assert driver.unavailable(1) == ""
    assert driver.unavailable(2) == "there are 2 GPUs here, counted from 0"
    with pytest.raises(Misuse, match="there are 2 GPUs here"):
        Cuda.on_device(2)


def test_a_gpu_that_is_too_old(stand_in: StandIn) -> None:
    stand_in.set("CAPABILITY", 61)
    assert driver.unavailable() == "its compute capability is 6.1, the kernels need 7.5"


def test_a_driver_that_has_no_answer(stand_in: StandIn) -> None:
    stand_in.fail("cuDeviceGetCount", ECC_UNCORRECTABLE)
    assert driver.unavailable().startswith("the CUDA driver does not say what it has: cuDeviceGetCount failed")


@pytest.mark.parametrize(("function", "code"), [("cuCtxCreate_v4", OUT_OF_MEMORY), ("cuModuleLoadDataEx", OUT_OF_MEMORY)])
def test_a_gpu_without_room_for_a_context(stand_in: StandIn, function: str, code: int) -> None:
    """As where another program has it all."""
    stand_in.fail(function, code)
    with pytest.raises(Misuse, match=r"the device 'cuda' can't be used here: cuda:0: no room for a context: .*out of memory"):
        Cuda.on_device(0)


def test_kernels_that_the_driver_does_not_take(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(compiler, "cubins", lambda capability: {"add": b"\x7fELF"})
        with pytest.raises(DeviceFault, match="device kernel image is invalid - an image that is not PTX"):
            Gpu(0)
    monkeypatch.setattr(compiler, "cubins", lambda capability: {"add": b".version 9.0\n.target sm_100a\n"})
    with pytest.raises(DeviceFault, match="no kernel image is available"):
        Gpu(0)


def test_a_trial_that_ends_more_than_its_context(
    stand_in: StandIn, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """The products by warpgroups that a Hopper is opened with: either they are done without, or the device is."""
    stand_in.set("PROCESSORS", 1)
    stand_in.fail("cuGraphLaunch", LAUNCH_FAILED)
    backend = Cuda.on_device(0)
    assert [record.getMessage().partition(":")[0] for record in caplog.records if "wgmma" in record.getMessage()] == [
        "a stand-in for a GPU computes products without wgmma"
    ]
    backend.memory.device().close()
    stand_in.set("FAULT", "process")
    stand_in.fail("cuGraphLaunch", LAUNCH_FAILED)
    with pytest.raises(Misuse, match="can't be used here: cuda:0: cuCtxCreate failed: unspecified launch failure"):
        Cuda.on_device(0)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"devices": 0}, "the CUDA driver does not start: cuInit failed: no CUDA-capable device is detected"),
        ({"capability": 70}, "its compute capability is 7.0, the kernels need 7.5"),
    ],
)
def test_serve_says_in_a_sentence_why_not(stand_in: StandIn, tmp_path: Path, settings: dict[str, object], says: str) -> None:
    command = [sys.executable, "-m", "ggml_rpc_ref", "serve", "-d", "cuda", "-p", "0"]
    done = subprocess.run(command, env=environment(tmp_path, **settings), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [f"ggml-rpc-ref: the device 'cuda' can't be used here: {says}"]


@pytest.mark.skipif(find_library("cuda") is not None, reason="this machine has NVIDIA's driver")
def test_pycuda_without_a_driver_is_refused_in_a_sentence(stand_in: StandIn, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ggml_rpc_ref", "serve", "-d", "cuda", "-p", "0"]
    without = {name: value for name, value in environment(tmp_path).items() if name != "LD_LIBRARY_PATH"}
    done = subprocess.run(command, env=without, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "can't be loaded, for want of NVIDIA's driver most likely: libcuda.so.1" in done.stderr


# -------------------------------------------------------------------------------------------------------------- kernels


def test_tensor_maps_are_as_the_documentation_wants_them(gpu: Gpu, stand_in: StandIn) -> None:
    of = TensorMap("BF16", (200, 300, 5, 7), (400, 400 * 300, 400 * 300 * 5), (64, 128, 1, 1))
    address = gpu.allocate(2 * 200 * 300 * 5 * 7)
    expected = struct.pack("<8Q6IQ", address, *of.ne, *of.nb, *of.box, 128, 2, 0x70616D)
    assert gpu.tensor_map(address, of) == expected.ljust(128, b"\0")
    wrong = [
        (address + 8, of),
        (address, replace(of, ne=(200, 0, 5, 7))),
        (address, replace(of, ne=(200, 2**32 + 1, 5, 7))),
        (address, replace(of, nb=(408, 400 * 300, 400 * 300 * 5))),
        (address, replace(of, nb=(400, 400 * 300, 2**40))),
        (address, replace(of, box=(64, 257, 1, 1))),
        (address, replace(of, box=(72, 128, 1, 1))),
        (address, replace(of, box=(63, 128, 1, 1))),
    ]
    for at, what in wrong:
        with pytest.raises(DeviceFault, match="cuTensorMapEncodeTiled: CUDA_ERROR_INVALID_VALUE"):
            gpu.tensor_map(at, what)
    stand_in.set("CAPABILITY", 80)
    with pytest.raises(DeviceFault, match="cuTensorMapEncodeTiled: CUDA_ERROR_NOT_SUPPORTED"):
        gpu.tensor_map(address, of)


class Sum:
    """An ADD of four numbers on a GPU, as launches.

    Args:
        gpu: where it is computed.
    """

    def __init__(self, gpu: Gpu) -> None:
        self.backend = Cuda(CudaMemory(lambda: gpu))
        self.world = World(self.backend)
        v = self.world.vector
        self.plan = self.world.plan(v(1), v(2), v(3, "ADD", 1, 2))
        self.world.write(1, 1, 2, 3, 4)
        self.world.write(2, 10, 20, 30, 40)


def test_launches_are_recorded_once_and_run_again(gpu: Gpu, stand_in: StandIn) -> None:
    sums = Sum(gpu)
    assert stand_in.count("executables") == 1
    launched = stand_in.count("cuLaunchKernel")
    assert sums.world.read(3) == [0, 0, 0, 0]
    for first in (1.0, 5.0):
        sums.world.write(1, first, 2, 3, 4)
        sums.plan.run()
        assert sums.world.read(3) == [first + 10, 22, 33, 44]
    assert stand_in.count("cuLaunchKernel") == launched
    assert stand_in.count("graphs") == 0


def test_a_graph_is_freed_and_not_where_python_happens_to_forget_it(gpu: Gpu, stand_in: StandIn) -> None:
    """Its context is not current there, or another one is."""
    for _ in range(5):
        sums = Sum(gpu)
        del sums
        gc.collect()
        assert stand_in.count("executables") == 1


def test_shared_memory_is_asked_for_and_never_taken_from_other_launches(gpu: Gpu) -> None:
    """A recording has the same kernel with more, then with less of it."""
    arguments = bytes(GEOMETRY.itemsize)
    launches = [Launch("add", "add", (1, 1, 1), 32, shared, arguments) for shared in (100_000, 0, 60_000, 227 * 1024, 50_000)]
    gpu.record(launches)
    gpu.record(launches[2:3])
    with pytest.raises(DeviceFault, match="cuFuncSetAttribute failed: invalid argument"):
        gpu.record([Launch("add", "add", (1, 1, 1), 32, 227 * 1024 + 1, arguments)])


@pytest.mark.parametrize(
    ("launch", "says"),
    [
        (Launch("add", "add", (1, 1, 1), 1056, 0, bytes(GEOMETRY.itemsize)), "cuLaunchKernel failed: invalid argument"),
        (Launch("add", "add", (1, 65536, 1), 32, 0, bytes(GEOMETRY.itemsize)), "cuLaunchKernel failed: invalid argument"),
        (Launch("add", "add", (0, 1, 1), 32, 0, bytes(GEOMETRY.itemsize)), "cuLaunchKernel failed: invalid argument"),
        (Launch("add", "add", (1, 1, 1), 32, 0, bytes(8)), "cuLaunchKernel failed: too many resources"),
        (Launch("add", "not_there", (1, 1, 1), 32, 0, b""), "cuModuleGetFunction failed: named symbol not found"),
    ],
)
def test_a_launch_that_no_driver_takes(stand_in: StandIn, launch: Launch, says: str) -> None:
    gpu = Gpu(0)
    with pytest.raises(DeviceFault, match=says):
        gpu.record([launch])
    gpu.record([Launch("add", "add", (1, 1, 1), 32, 0, bytes(GEOMETRY.itemsize))])
    assert stand_in.count("graphs") == 0
    gpu.close()


def test_no_room_for_a_recording_is_no_fault(gpu: Gpu, stand_in: StandIn) -> None:
    stand_in.fail("cuGraphInstantiateWithFlags", OUT_OF_MEMORY)
    with pytest.raises(Violation, match="no memory to compute it"):
        Sum(gpu)
    sums = Sum(gpu)
    sums.plan.run()
    assert sums.world.read(3) == [11, 22, 33, 44]


@pytest.mark.parametrize("capability", [75, 80, 90])
def test_ops_are_computed_as_the_oracle_has_them(stand_in: StandIn, capability: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few of each way that launches take: several kernels, scratch memory, shared memory, tensor maps."""
    names = ("ADD", "SOFT_MAX", "ARGSORT", "SUM", "GET_ROWS", "ROPE", "FLASH_ATTN_EXT", "MUL_MAT_ID")
    monkeypatch.setattr(compiler, "ops", lambda: (*map(str.lower, names), "mul_mat"))  # the others take long to compile
    stand_in.set("CAPABILITY", capability)
    fill_cache(capability)
    gpu = Gpu(0)
    backend = Cuda(CudaMemory(lambda: gpu))
    for name in names:
        for case in islice(cases_of(name), 3):
            if 0 not in case.dst.quad:
                judge(backend, device_check.node_of(name, case), case.tolerance)
    weights = {"F16", "BF16", "Q4_K", "Q8_0"}
    for kind in sorted(weights):
        for columns in (1, 70):
            case = Case("", Operand("F32", (70, columns)), (Operand(kind, (256, 70)), Operand("F32", (256, columns))))
            assert judge(backend, device_check.node_of("MUL_MAT", case)), (kind, columns)
    gpu.close()


# ------------------------------------------------------------------------------------------------- a device that fails


class Cards:
    """Two GPUs of a server."""

    def __init__(self, stand_in: StandIn) -> None:
        stand_in.set("DEVICES", 2)
        self.memories = [CudaMemory(lambda index=index: Gpu(index)) for index in range(2)]  # type: ignore[misc]

    def close(self) -> None:
        for memory in self.memories:
            if memory._device is not None:
                memory._device.close()


@pytest.fixture
def cards(stand_in: StandIn) -> Iterator[Cards]:
    made = Cards(stand_in)
    yield made
    made.close()


def fail(memory: CudaMemory, argument: bytes = bytes(GEOMETRY.itemsize)) -> None:
    """Let a kernel touch an address that is not there."""
    device = memory.device()
    with memory.watched(device):
        recorded = device.record([Launch("add", "add", (1, 1, 1), 32, 0, argument)])
        recorded.start()
        recorded.wait()


@pytest.mark.parametrize("sticky", ["work", "all"])
@pytest.mark.parametrize("order", ORDERS[:2])
@pytest.mark.parametrize("where", ["here", "in a thread"])
def test_a_fault_ends_that_context_and_a_fresh_one_is_made(
    stand_in: StandIn, cards: Cards, sticky: str, order: str, where: str, capfd: pytest.CaptureFixture[str]
) -> None:
    stand_in.set("STICKY", sticky)
    stand_in.set("ORDER", order)
    memory, other = cards.memories
    lost, kept = memory.allocate(1000), other.allocate(1000)
    assert lost is not None
    assert kept is not None

    def act() -> None:
        with pytest.raises(DeviceFault, match=r"an illegal memory access|CUDA_ERROR_ILLEGAL_ADDRESS"):
            fail(memory)

    act() if where == "here" else in_thread(act)
    # its memory is free again
    assert stand_in.count("contexts") == stand_in.count("allocations") == 1
    with pytest.raises(DeviceFault, match="lost with its context"):
        lost.download(0, 10)
    lost.free()
    kept.clear(7)
    assert kept.download(0, 10) == b"\7" * 10
    kept.free()
    fresh = memory.allocate(1000)
    assert fresh is not None
    fresh.clear(9)
    assert fresh.download(0, 10) == b"\x09" * 10
    fresh.free()
    assert stand_in.count("contexts") == 2
    # where a driver answers with the fault for the very end of the context, pycuda says so
    complaints = capfd.readouterr().err.splitlines()
    assert complaints == [] if sticky == "work" else all("clean-up" in line or "cuCtxDetach" in line for line in complaints)


def test_every_call_after_a_fault_answers_with_it(stand_in: StandIn) -> None:
    gpu = Gpu(0)
    address, room = gpu.allocate(100), gpu.pinned(100)
    copy = gpu.begin_upload(address, room)
    recorded = gpu.record([Launch("add", "add", (1, 1, 1), 32, 0, bytes(GEOMETRY.itemsize))])
    recorded.start()
    calls: list[Callable[[], Any]] = [
        recorded.wait,
        gpu.memory,
        copy.wait,
        lambda: gpu.allocate(10),
        lambda: gpu.release(address),
        lambda: gpu.fill(address, 1, 10),
        lambda: gpu.download(address, room),
        lambda: gpu.record([]),
        recorded.start,
    ]
    for call in calls:
        with pytest.raises(DeviceFault, match=r"an illegal memory access|CUDA_ERROR_ILLEGAL_ADDRESS"):
            call()
    gpu.close()


def test_a_fault_after_which_the_process_must_be_started_again(
    stand_in: StandIn, cards: Cards, caplog: pytest.LogCaptureFixture
) -> None:
    """What cuda.h says of an illegal address; nothing is told to clients but that there is no room, and to the log once why."""
    stand_in.set("FAULT", "process")
    memory = cards.memories[0]
    with pytest.raises(DeviceFault):
        fail(memory)
    for _ in range(3):
        assert memory.allocate(100) is None
        assert memory.free == 0
    said = [record.getMessage() for record in caplog.records if "start the server again" in record.getMessage()]
    assert len(said) == 1
    assert "cuCtxCreate failed: an illegal memory access was encountered" in said[0]


@pytest.mark.parametrize("order", ORDERS)
def test_a_fault_while_others_use_the_device(stand_in: StandIn, cards: Cards, order: str) -> None:
    """Threads that copy, allocate and receive at that moment end with it too; nobody touches what is gone."""
    stand_in.set("ORDER", order)
    memory, leave = cards.memories[0], Event()
    ended: list[str] = []

    def use(seed: int) -> None:
        try:
            allocation = memory.allocate(2 * PIECE)
            assert allocation is not None
            while not leave.is_set():
                for room in allocation.receive(0, PIECE + 10):
                    room[:] = bytes([seed]) * len(room)
                assert bytes(allocation.download(0, 100)) == bytes([seed]) * 100
        except DeviceFault as fault:
            ended.append(str(fault))

    threads = [Thread(target=use, args=(seed,)) for seed in range(1, 5)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    with pytest.raises(DeviceFault):
        fail(memory)
    leave.set()
    for thread in threads:
        thread.join()
    assert len(ended) == 4
    assert stand_in.count("contexts") == 1
    fresh = memory.allocate(100)
    assert fresh is not None
    fresh.free()


# ------------------------------------------------------------------------------------------------------ a whole server


@contextmanager
def serving(folder: Path, room: str = "256M", **settings: object) -> Iterator[str]:
    """A server process whose two devices are the stand-in's; its address. It must end well, and say nothing to stderr."""
    command = [sys.executable, "-m", "ggml_rpc_ref", "serve", "-d", "cuda:0,cuda:1", "-p", "0", "-m", room, "--json"]
    given = environment(folder, devices=2, processors=2, **settings)
    log, errors = folder / "log", folder / "errors"
    with log.open("w") as out, errors.open("w") as err:
        process = subprocess.Popen(command, env=given, stdout=out, stderr=err)
    try:
        while not (lines := log.read_text().splitlines(keepends=True)) or not lines[0].endswith("\n"):
            assert process.poll() is None, errors.read_text()
            time.sleep(0.05)
        yield json.loads(lines[0])["endpoint"]
        process.terminate()
        assert (process.wait(60), errors.read_text()) == (0, "")
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("order", ["late", "early", "7"])
def test_a_server_is_conformant(stand_in: StandIn, tmp_path: Path, order: str) -> None:
    """What touches memory and what computes; several clients at a time."""
    patterns = ("data.*", "buffer.*", "graph.computes*", "graph.recompute*", "op:MUL_MAT", "op:SOFT_MAX")
    only = [word for pattern in patterns for word in ("--only", pattern)]
    with serving(tmp_path, order=order) as address:
        command = [sys.executable, "-m", "ggml_rpc_ref", "conform", address, "-j", "4", "--timeout", "60", *only]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert " FAIL" not in done.stdout
    assert not [line for line in (tmp_path / "log").read_text().splitlines() if json.loads(line)["level"] == "error"]


@pytest.mark.models
@pytest.mark.upstream
def test_a_stock_client_runs_a_real_model(stand_in: StandIn, upstream_build: object, tmp_path: Path) -> None:
    """Gemma 3 270M, two tokens: a minute and a half."""
    said = []
    with Server(make_host("native")) as server, serving(tmp_path, room="1G") as address, pytest.MonkeyPatch.context() as patch:
        # the client and the model are in the user's own cache directory
        patch.delenv("XDG_CACHE_HOME") if USERS_CACHE is None else patch.setenv("XDG_CACHE_HOME", USERS_CACHE)
        for rpc in (server.endpoint, address):
            said += upstream.generate_each("3.6.1", rpc=rpc, model=upstream.find_model(), runs=[("The", None)], n_predict=2)
    assert said[0].tokens == said[1].tokens


def test_the_command_backends_names_the_gpu(stand_in: StandIn, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ggml_rpc_ref", "backends"], env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "cuda" in done.stdout


def test_all_of_the_device_check_runs(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it measures means nothing here, and compute-sanitizer and a model take a GPU."""
    stand_in.set("PROCESSORS", 2)
    timed = device_check.timed
    monkeypatch.setattr(device_check, "timed", lambda backend, node, repeat, rounds: timed(backend, node, 2, 1))
    backend = Cuda.on_device(0)
    parts = [part for part in device_check.parts("cuda:0", 256) if part[0] not in ("Gemma 3 270M", "compute-sanitizer")]
    # each share is enough for a few of what there is to judge
    chosen = [(name, part, 0.02 if share > 0.1 else share) for name, part, share in parts]
    rows = list(device_check.check(backend, chosen, 300))
    assert {row.part: row.text for row in rows if row.state not in ("right", "measured")} == {}
    assert len(rows) == len(parts) > 20
    backend.memory.device().close()
