"""A real GPU as a `Device`: pycuda, and for CUDA graphs and tensor maps, which pycuda lacks, the driver's own library by ctypes.

The tests run it, and pycuda with it, on a stand-in for the driver's library that is as strict as its documentation
(tests/support/gpu/driver.cpp).
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from mmap import mmap
from threading import Lock, RLock
from typing import Any
from weakref import finalize

from ggml_rpc_ref.backends import DeviceFault
from ggml_rpc_ref.backends.cuda import compiler
from ggml_rpc_ref.backends.cuda.device import MAP_BYTES, PREFIX, Launch, TensorMap
from ggml_rpc_ref.errors import Misuse

RELAXED = 2
"""CU_STREAM_CAPTURE_MODE_RELAXED: other threads' allocations don't disturb what is being recorded."""
OUT_OF_MEMORY = 2
"""CUDA_ERROR_OUT_OF_MEMORY."""
NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: else a copy without a stream would spoil what any thread is recording, and wait for all that runs."""
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
    try:
        count = cuda.Device.count()
        major, minor = cuda.Device(index).compute_capability() if index < count else (0, 0)
    except cuda.Error as error:
        raise Misuse(f"the CUDA driver does not say what it has: {error}") from None
    if index >= count:
        raise Misuse(f"there {'is' if count == 1 else 'are'} {count} GPU{'s' * (count != 1)} here, counted from 0")
    return int(10 * major + minor)


def unavailable(index: int = 0) -> str:
    """Return in one sentence why a GPU can't be used; nothing where it can."""
    try:
        return compiler.unusable(capability(index))
    except Misuse as error:
        return str(error)


class _Context:
    """A context, and all of pycuda's objects that belong to it.

    pycuda's destructors find their context only where it is current, or in the thread that made it; elsewhere they leave behind
    what they should free. So nothing is left to them: what was made here is kept as long as the context is, whose end frees all.

    Args:
        cuda: pycuda's driver module.
        device: pycuda's device.
    """

    def __init__(self, cuda: Any, device: Any) -> None:
        self._cuda = cuda
        self._lock = RLock()  # a garbage collection at any place may come here again
        self._users, self._closed = 0, False
        self.kept: list[Any] = []
        self._context = device.make_context(cuda.ctx_flags.SCHED_AUTO)
        self._context.pop()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make it the calling thread's own for a while.

        Raises:
            DeviceFault: where it is closed.
        """
        with self._lock:
            if self._closed:
                raise DeviceFault("its context is closed")
            self._users += 1
        try:
            self._context.push()
            try:
                yield
            finally:
                self._pop()
        finally:
            with self._lock:
                self._users -= 1
                last = self._closed and not self._users
            if last:
                self._destroy()

    def _pop(self) -> None:
        try:
            self._context.pop()
        except self._cuda.Error:
            # as may be after a fault: pycuda keeps it on this thread's stack, and with the thread the process would end by abort()
            self._closed = True
            raise

    def close(self) -> None:
        """Destroy it once no thread uses it any more: no call may be under way then."""
        with self._lock:
            begun, self._closed = self._closed, True
            idle = not self._users
        if idle and not begun:
            self._destroy()

    def _destroy(self) -> None:
        try:
            # after a pop that failed it is still there
            if self._cuda.Context.get_current() != self._context:
                self._context.push()
            # from now on pycuda's destructors know that there is nothing left to free
            self._context.detach()
            self.kept.clear()
        except self._cuda.Error:
            # a driver that refuses to make it current after a fault. pycuda takes it for alive, so no destructor may ever run
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))
            _library().cuCtxDestroy_v2(ctypes.c_void_p(self._context.handle))


class Gpu:
    """A GPU, by a context of its own.

    Args:
        index: as the driver counts.

    Raises:
        DeviceFault: where no context can be made.
        Misuse: where its kernels can't be had.
    """

    def __init__(self, index: int) -> None:
        cuda = self._cuda = pycuda()
        self._index = index
        self.capability = capability(index)
        code = compiler.cubins(self.capability)
        try:
            with self._faults():
                device = cuda.Device(index)
                self.name = device.name()
                self.processors = int(device.get_attribute(cuda.device_attribute.MULTIPROCESSOR_COUNT))
                self._context = _Context(cuda, device)
                # also where this object is forgotten, and when the process ends
                self._end = finalize(self, self._context.close)
            with self._here():
                self._modules = {op: cuda.module_from_buffer(image) for op, image in code.items()}
                self._context.kept.append(self._modules)
        except MemoryError as error:
            raise DeviceFault(f"cuda:{index}: no room for a context: {error}") from None
        self._functions: dict[tuple[str, str], Any] = {}
        self._shared: dict[tuple[str, str], int] = {}
        self._asking = Lock()
        self._idle: list[Any] = []
        self._dropped: deque[int] = deque()

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
        with self._faults(), self._context.current():
            yield self._cuda

    # ------------------------------------------------------------------------------------------------------------ memory

    def memory(self) -> tuple[int, int]:
        """Return (free, total) bytes."""
        with self._here() as cuda:
            free, total = cuda.mem_get_info()
        return int(free), int(total)

    def allocate(self, size: int) -> int:
        """Return the address of new bytes."""
        # not by pycuda: it holds on to the interpreter while the driver waits for kernels, and only prints what fails in `free`
        address = ctypes.c_ulonglong()
        with self._here():
            _check("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value

    def release(self, address: int) -> None:
        """Free them."""
        with self._here():
            _check("cuMemFree_v2", ctypes.c_ulonglong(address))

    def fill(self, address: int, value: int, size: int) -> None:
        """Set bytes."""
        if size:
            self._begin(lambda cuda, stream: cuda.memset_d8_async(address, value, size, stream)).wait()

    def upload(self, address: int, data: memoryview) -> None:
        """Copy from host memory."""
        if len(data):
            # not memcpy_htod: from plain memory it returns before the bytes have arrived
            self.begin_upload(address, data).wait()

    def download(self, address: int, room: memoryview) -> None:
        """Copy to host memory."""
        if len(room):
            self.begin_download(address, room).wait()

    def copy(self, to: int, source: int, size: int) -> None:
        """Copy within the device."""
        if size:
            self._begin(lambda cuda, stream: cuda.memcpy_dtod_async(to, source, size, stream)).wait()

    def pinned(self, size: int) -> memoryview:
        """Return page-locked host memory, which outlives the context: somebody may still fill it when the device fails."""
        room = mmap(-1, size)
        with self._here(), suppress(MemoryError):
            address = ctypes.addressof(ctypes.c_char.from_buffer(room))
            # memory that can't be locked will do as well, only slower
            _library().cuMemHostRegister_v2(ctypes.c_void_p(address), ctypes.c_size_t(size), 0)
        # locked memory must not be unmapped
        self._context.kept.append(room)
        return memoryview(room)

    def begin_upload(self, address: int, data: memoryview) -> _Copy:
        """Begin to copy from pinned memory."""
        return self._begin(lambda cuda, stream: cuda.memcpy_htod_async(address, data, stream))

    def begin_download(self, address: int, room: memoryview) -> _Copy:
        """Begin to copy to pinned memory."""
        return self._begin(lambda cuda, stream: cuda.memcpy_dtoh_async(room, address, stream))

    def _begin(self, copy: Callable[[Any, Any], None]) -> _Copy:
        with self._here() as cuda:
            stream = self._borrow()
            copy(cuda, stream)
        return _Copy(self, stream)

    # ----------------------------------------------------------------------------------------------------------- streams

    def _borrow(self) -> Any:
        """Return a stream that nobody uses; the context is current."""
        try:
            return self._idle.pop()
        except IndexError:
            stream = self._cuda.Stream(NON_BLOCKING)
            self._context.kept.append(stream)
            return stream

    def finish(self, stream: Any) -> None:
        """Return once a borrowed stream has done all that it was given, and give it back."""
        with self._here():
            stream.synchronize()
        self._idle.append(stream)

    # ----------------------------------------------------------------------------------------------------------- kernels

    def _function(self, launch: Launch) -> Any:
        """Return a kernel, told of the shared memory that it gets; the context is current."""
        key = launch.op, launch.kernel
        if key not in self._functions:
            self._functions[key] = self._modules[launch.op].get_function(PREFIX + launch.kernel)
        function = self._functions[key]
        # never less than before, in no order of threads: recorded launches of it may have more
        with self._asking:
            if launch.shared > self._shared.get(key, MOST_SHARED):
                function.set_attribute(self._cuda.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES, launch.shared)
                self._shared[key] = launch.shared
        return function

    def tensor_map(self, address: int, of: TensorMap) -> bytes:
        """Return the driver's words for a tensor."""
        with self._here():
            return _encode(address, of)

    def record(self, launches: Sequence[Launch]) -> _Graph:
        """Return launches as a CUDA graph."""
        with self._here():
            self._drop_graphs()
            # before the recording begins: loading a kernel may wait for the device
            functions = [self._function(launch) for launch in launches]
            stream = self._borrow()
            graph = _instantiate(stream, lambda: self._enqueue(functions, launches, stream))
            self._idle.append(stream)
        return _Graph(self, graph)

    def _enqueue(self, functions: Sequence[Any], launches: Sequence[Launch], stream: Any) -> None:
        for function, launch in zip(functions, launches, strict=True):
            function._launch_kernel(launch.grid, (launch.block, 1, 1), launch.argument, launch.shared, stream)

    def launch_graph(self, graph: int) -> Any:
        """Begin to run a graph; return the borrowed stream that it runs on."""
        with self._here():
            stream = self._borrow()
            _check("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream.handle))
        return stream

    def drop_graph(self, graph: int) -> None:
        """Have a graph freed later on: this is called at any place where Python frees an object."""
        self._dropped.append(graph)

    def _drop_graphs(self) -> None:
        while self._dropped:
            with suppress(IndexError):  # another thread was faster
                _check("cuGraphExecDestroy", ctypes.c_void_p(self._dropped.popleft()))

    def close(self) -> None:
        """Destroy the context and all that it holds, once no thread uses it."""
        self._end()


class _Copy:
    """A copy on a borrowed stream."""

    def __init__(self, gpu: Gpu, stream: Any) -> None:
        self._gpu, self._streams = gpu, iter([stream])

    def wait(self) -> None:
        """Return once it is done; for the second time, at once."""
        for stream in self._streams:
            self._gpu.finish(stream)


class _Graph:
    """A CUDA graph."""

    def __init__(self, gpu: Gpu, graph: int) -> None:
        self._gpu, self._graph = gpu, graph
        self._running: list[Any] = []

    def start(self) -> None:
        """Begin to run it."""
        self._running.append(self._gpu.launch_graph(self._graph))

    def wait(self) -> None:
        """Return once it has run."""
        while self._running:
            self._gpu.finish(self._running.pop())

    def __del__(self) -> None:
        self._gpu.drop_graph(self._graph)


# ------------------------------------------------------------------------------------------------- what pycuda lacks


@cache
def _library() -> Any:
    return ctypes.CDLL("libcuda.so.1")


def _check(name: str, *arguments: Any) -> None:
    """Call a function of the driver's library.

    Raises:
        MemoryError: where it answers CUDA_ERROR_OUT_OF_MEMORY, which does no harm to the context.
        DeviceFault: where it answers anything else but CUDA_SUCCESS.
    """
    function = getattr(_library(), name, None)
    if function is None:
        raise DeviceFault(f"{name}: this driver does not have it")
    if code := function(*arguments):
        text = ctypes.c_char_p()
        _library().cuGetErrorName(code, ctypes.byref(text))
        said = f"{name}: {(text.value or b'?').decode()}"
        raise MemoryError(said) if code == OUT_OF_MEMORY else DeviceFault(said)


def _instantiate(stream: Any, enqueue: Callable[[], None]) -> int:
    """Return an executable graph of what a function gives to a stream."""
    handle, graph, runnable = ctypes.c_void_p(stream.handle), ctypes.c_void_p(), ctypes.c_void_p()
    _check("cuStreamBeginCapture_v2", handle, RELAXED)
    try:
        try:
            enqueue()
        except BaseException:
            # the stream must not stay in its recording state; what spoilt the recording tells more than that it is spoilt
            with suppress(DeviceFault):
                _check("cuStreamEndCapture", handle, ctypes.byref(graph))
            raise
        _check("cuStreamEndCapture", handle, ctypes.byref(graph))
        _check("cuGraphInstantiateWithFlags", ctypes.byref(runnable), graph, ctypes.c_ulonglong(0))
    finally:
        if graph:
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
