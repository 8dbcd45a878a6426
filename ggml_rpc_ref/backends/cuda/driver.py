"""A real GPU as a `Device`: pycuda, and for CUDA graphs and tensor maps, which pycuda lacks, the driver's own library by ctypes.

Nothing here decides anything; what can be tested without a GPU stands in the other files.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from ggml_rpc_ref.backends import DeviceFault
from ggml_rpc_ref.backends.cuda import compiler
from ggml_rpc_ref.backends.cuda.device import MAP_BYTES, PREFIX, Launch, TensorMap
from ggml_rpc_ref.errors import Misuse

RELAXED = 2
"""CU_STREAM_CAPTURE_MODE_RELAXED: other threads' allocations don't disturb what is being recorded."""
MOST_SHARED = 48 * 1024
"""Bytes of dynamic shared memory that a kernel's blocks get without its function having been told of more."""
DATA_TYPES = {"F16": 6, "BF16": 9}
"""CU_TENSOR_MAP_DATA_TYPE_FLOAT16 and _BFLOAT16."""
SWIZZLE_128B = 3
"""CU_TENSOR_MAP_SWIZZLE_128B."""
PROMOTION_256B = 3
"""CU_TENSOR_MAP_L2_PROMOTION_L2_256B: the other half of what is brought to the cache is the next box along the rows."""


@cache
def pycuda() -> Any:
    """Return pycuda's driver module, initialised.

    Raises:
        Misuse: where pycuda or the driver is missing.
    """
    if find_spec("pycuda") is None:
        raise Misuse("pycuda is not installed: pip install 'ggml-rpc-ref[cuda]'")
    try:
        # for all to see: pycuda finds the driver's functions here where it was linked on a machine without one
        ctypes.CDLL("libcuda.so.1", mode=ctypes.RTLD_GLOBAL)
        import pycuda.driver as cuda
    except (ImportError, OSError) as error:
        raise Misuse(f"pycuda can't be loaded, for want of NVIDIA's driver most likely: {error}") from None
    try:
        cuda.init()
    except cuda.Error as error:
        raise Misuse(f"the CUDA driver does not start: {error}") from None
    return cuda


def capability(index: int) -> int:
    """Return the compute capability of a GPU, times ten.

    Raises:
        Misuse: where there is none of that index.
    """
    cuda = pycuda()
    if index >= (count := cuda.Device.count()):
        raise Misuse(f"there {'is' if count == 1 else 'are'} {count} GPU{'s' * (count != 1)} here, counted from 0")
    major, minor = cuda.Device(index).compute_capability()
    return int(10 * major + minor)


def unavailable(index: int = 0) -> str:
    """Return in one sentence why a GPU can't be used; nothing where it can."""
    try:
        return compiler.unusable(capability(index))
    except Misuse as error:
        return str(error)


class Gpu:
    """A GPU, by a context of its own.

    Args:
        index: as the driver counts.

    Raises:
        DeviceFault: where no context can be made.
    """

    def __init__(self, index: int) -> None:
        cuda = self._cuda = pycuda()
        self._index = index
        with self._faults():
            device = cuda.Device(index)
            self.name, self.capability = device.name(), capability(index)
            self.processors = int(device.get_attribute(cuda.device_attribute.MULTIPROCESSOR_COUNT))
            self._context = device.make_context(cuda.ctx_flags.SCHED_AUTO)
            try:
                self._modules = {op: cuda.module_from_buffer(code) for op, code in compiler.cubins(self.capability).items()}
                self._functions: dict[tuple[str, str], Any] = {}
                self._stream = cuda.Stream()
            finally:
                self._context.pop()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Turn the driver's errors into DeviceFault; out of memory into MemoryError."""
        try:
            yield
        except self._cuda.MemoryError as error:
            raise MemoryError(str(error)) from None
        except self._cuda.Error as error:
            raise DeviceFault(f"cuda:{self._index}: {error}") from None

    @contextmanager
    def _here(self) -> Iterator[Any]:
        """Make the context the calling thread's own for a while."""
        with self._faults():
            self._context.push()
            try:
                yield self._cuda
            finally:
                self._context.pop()

    # ------------------------------------------------------------------------------------------------------------ memory

    def memory(self) -> tuple[int, int]:
        """Return (free, total) bytes."""
        with self._here() as cuda:
            free, total = cuda.mem_get_info()
        return int(free), int(total)

    def allocate(self, size: int) -> int:
        """Return the address of new bytes."""
        with self._here() as cuda:
            allocation = cuda.mem_alloc(size)
            # pycuda frees what it forgets, so each allocation is kept by its address
            self._kept[int(allocation)] = allocation
            return int(allocation)

    @property
    def _kept(self) -> dict[int, Any]:
        kept: dict[int, Any] = self.__dict__.setdefault("_allocations", {})
        return kept

    def release(self, address: int) -> None:
        """Free them."""
        with self._here():
            self._kept.pop(address).free()

    def fill(self, address: int, value: int, size: int) -> None:
        """Set bytes."""
        if size:
            with self._here() as cuda:
                cuda.memset_d8_async(address, value, size, self._stream)
                self._stream.synchronize()

    def upload(self, address: int, data: memoryview) -> None:
        """Copy from host memory."""
        if len(data):
            with self._here() as cuda:
                cuda.memcpy_htod(address, data)

    def download(self, address: int, room: memoryview) -> None:
        """Copy to host memory."""
        if len(room):
            with self._here() as cuda:
                cuda.memcpy_dtoh(room, address)

    def copy(self, to: int, source: int, size: int) -> None:
        """Copy within the device."""
        if size:
            with self._here() as cuda:
                cuda.memcpy_dtod_async(to, source, size, self._stream)
                self._stream.synchronize()

    def pinned(self, size: int) -> memoryview:
        """Return page-locked host memory."""
        with self._here() as cuda:
            return memoryview(cuda.pagelocked_empty(size, np.uint8))

    def begin_upload(self, address: int, data: memoryview) -> _Copy:
        """Begin to copy from pinned memory."""
        return self._begin(lambda cuda, stream: cuda.memcpy_htod_async(address, data, stream))

    def begin_download(self, address: int, room: memoryview) -> _Copy:
        """Begin to copy to pinned memory."""
        return self._begin(lambda cuda, stream: cuda.memcpy_dtoh_async(room, address, stream))

    def _begin(self, copy: Callable[[Any, Any], None]) -> _Copy:
        with self._here() as cuda:
            stream = cuda.Stream()
            copy(cuda, stream)
        return _Copy(self, stream)

    def wait(self, stream: Any) -> None:
        """Return once a stream has done all that it was given."""
        with self._here():
            stream.synchronize()

    # ----------------------------------------------------------------------------------------------------------- kernels

    def function(self, op: str, kernel: str) -> Any:
        """Return a kernel; the context is current."""
        if (op, kernel) not in self._functions:
            self._functions[op, kernel] = self._modules[op].get_function(PREFIX + kernel)
        return self._functions[op, kernel]

    def tensor_map(self, address: int, of: TensorMap) -> bytes:
        """Return the driver's words for a tensor."""
        with self._here():
            return _encode(address, of)

    def record(self, launches: Sequence[Launch]) -> _Graph:
        """Return launches as a CUDA graph."""
        with self._here() as cuda:
            stream = cuda.Stream()
            return _Graph(self, stream, _instantiate(stream, lambda: self._enqueue(launches, stream)))

    def _enqueue(self, launches: Sequence[Launch], stream: Any) -> None:
        for launch in launches:
            function = self.function(launch.op, launch.kernel)
            if launch.shared > MOST_SHARED:
                function.set_attribute(self._cuda.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES, launch.shared)
            function._launch_kernel(launch.grid, (launch.block, 1, 1), launch.argument, launch.shared, stream)

    def launch_graph(self, graph: int, stream: Any) -> None:
        """Begin to run a graph."""
        with self._here():
            _check("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream.handle))

    def drop_graph(self, graph: int) -> None:
        """Free a graph; never raises."""
        with suppress(Exception), self._here():
            _check("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def close(self) -> None:
        """Destroy the context and all that it holds."""
        for forget in (self._functions.clear, self._modules.clear, self._kept.clear, self._context.detach):
            with suppress(Exception):  # after a fault every call answers with it
                forget()


class _Copy:
    """A copy on a stream of its own."""

    def __init__(self, gpu: Gpu, stream: Any) -> None:
        self._gpu, self._stream = gpu, stream

    def wait(self) -> None:
        """Return once it is done."""
        self._gpu.wait(self._stream)


class _Graph:
    """A CUDA graph and the stream that runs it."""

    def __init__(self, gpu: Gpu, stream: Any, graph: int) -> None:
        self._gpu, self._stream, self._graph = gpu, stream, graph

    def start(self) -> None:
        """Begin to run it."""
        self._gpu.launch_graph(self._graph, self._stream)

    def wait(self) -> None:
        """Return once it has run."""
        self._gpu.wait(self._stream)

    def __del__(self) -> None:
        self._gpu.drop_graph(self._graph)


# ------------------------------------------------------------------------------------------------- what pycuda lacks


@cache
def _library() -> Any:
    return ctypes.CDLL("libcuda.so.1")


def _check(name: str, *arguments: Any) -> None:
    """Call a function of the driver's library.

    Raises:
        DeviceFault: where it does not answer CUDA_SUCCESS.
    """
    function = getattr(_library(), name, None)
    if function is None:
        raise DeviceFault(f"{name}: this driver does not have it")
    if code := function(*arguments):
        text = ctypes.c_char_p()
        _library().cuGetErrorName(code, ctypes.byref(text))
        raise DeviceFault(f"{name}: {(text.value or b'?').decode()}")


def _instantiate(stream: Any, enqueue: Callable[[], None]) -> int:
    """Return an executable graph of what a function gives to a stream."""
    handle, graph, runnable = ctypes.c_void_p(stream.handle), ctypes.c_void_p(), ctypes.c_void_p()
    _check("cuStreamBeginCapture_v2", handle, RELAXED)
    try:
        enqueue()
    finally:
        # also after an error: the stream must not stay in its recording state
        _check("cuStreamEndCapture", handle, ctypes.byref(graph))
    try:
        _check("cuGraphInstantiateWithFlags", ctypes.byref(runnable), graph, ctypes.c_ulonglong(0))
    finally:
        _check("cuGraphDestroy", graph)
    assert runnable.value is not None
    return runnable.value


def _encode(address: int, of: TensorMap) -> bytes:
    room = ctypes.create_string_buffer(2 * MAP_BYTES)
    begin = -(-ctypes.addressof(room) // MAP_BYTES) * MAP_BYTES
    ne, nb, box = (ctypes.c_uint64 * 4)(*of.ne), (ctypes.c_uint64 * 3)(*of.nb), (ctypes.c_uint32 * 4)(*of.box)
    every, tensor = (ctypes.c_uint32 * 4)(1, 1, 1, 1), ctypes.c_void_p(address)
    # behind `every`: not interleaved; and last: zeros beyond the ends, not NaN
    options = (0, SWIZZLE_128B, PROMOTION_256B, 0)
    _check("cuTensorMapEncodeTiled", ctypes.c_void_p(begin), DATA_TYPES[of.dtype], 4, tensor, ne, nb, box, every, *options)
    return ctypes.string_at(begin, MAP_BYTES)
