"""A GPU made of threads: the kernels of backends/cuda compiled by g++, and a `Device` that runs them.

    gpu = Emulated(library())          # a Device; order 0: threads forward, 1: backward, more: drawn from it
    backend = Cuda(CudaMemory(lambda: gpu))

emulated.h has what runs a block's threads. The kernels are the same files that nvcc compiles; what is inline PTX there has a twin
that computes the same (kernels/shared/mma.cuh).
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from threading import Lock, RLock
from typing import Any

from ggml_rpc_ref.backends import DeviceFault
from ggml_rpc_ref.backends.cuda.device import MAP_BYTES, PREFIX, Launch, TensorMap

HERE = Path(__file__).parent
CUDA = HERE.parents[2] / "ggml_rpc_ref" / "backends" / "cuda" / "kernels"
SHARED = HERE.parents[2] / "ggml_rpc_ref" / "backends" / "native" / "kernels" / "shared"
SWIZZLE, MAP_MARK = 128, 0x70616D
"""Bytes in which pieces of 16 change places; what a tensor map ends with."""
FLAGS = [
    "-std=c++17", "-O1", "-ffp-contract=off", "-fno-math-errno", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-strict-aliasing",
    # a GPU refuses a misaligned access: here it is an illegal instruction, which the launch catches
    "-fsanitize=alignment", "-fsanitize-undefined-trap-on-error", "-Wno-unused-function",
]  # fmt: skip


def compile_kernels(to: Path, kernels: Path = CUDA, ops: Sequence[str] = ()) -> Path:
    """Compile kernels into a library.

    Args:
        to: where the library goes.
        kernels: the folder that they lie in.
        ops: files to compile; (): all.

    Raises:
        RuntimeError: with the compiler's words.
    """
    # one translation unit: the shared headers once, each op in a namespace of its own
    headers = "".join(f'#include "{path.name}"\n' for path in sorted((kernels / "shared").glob("*.cuh")))
    names = ops or sorted(path.stem for path in kernels.glob("*.cu"))
    unit = to.with_suffix(".cpp")
    unit.write_text(headers + "".join(f'namespace op_{op} {{\n#include "{op}.cu"\n}}\n' for op in names))
    includes = [f"-I{kernels}", f"-I{kernels / 'shared'}", f"-I{SHARED}"]
    command = ["g++", *FLAGS, "-include", str(HERE / "emulated.h"), *includes, str(unit), "-o", str(to)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    unit.unlink()
    if done.returncode:
        raise RuntimeError(done.stderr)
    return to


def kept(sources: Sequence[Path], name: str, make: Callable[[Path], Path]) -> Path:
    """Return what is made of sources, once for each state of them; the processes of a test run share it.

    Args:
        sources: files.
        name: of what is made; older ones of that name are removed.
        make: makes it at a path that it gets.
    """
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources))).hexdigest()[:16]
    # each checkout has its own: with other sources it would remove what this one is about to read
    checkout = hashlib.sha256(bytes(HERE)).hexdigest()[:8]
    folder = Path(tempfile.gettempdir()) / f"ggml-rpc-ref-emulated-{os.getuid()}-{checkout}"
    folder.mkdir(mode=0o700, exist_ok=True)
    made = folder / f"{digest}-{name}"
    # one process makes it, the others wait for what it makes
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            for other in folder.glob(f"*-{name}"):
                other.unlink(missing_ok=True)
            make(folder / f"{os.getpid()}-{name}").rename(made)
    return made


@cache
def library() -> Path:
    """Return all kernels as a library."""
    sources = [*(CUDA / "shared").glob("*.cuh"), *CUDA.glob("*.cu"), *SHARED.glob("*.h"), *HERE.glob("*.h"), Path(__file__)]
    return kept(sources, "kernels.so", compile_kernels)


class Emulated:
    """A GPU made of threads.

    Args:
        path: the library with its kernels.
        order: how the threads of a block take turns.
        total: bytes of its memory.
        capability: compute capability times ten.
        processors: multiprocessors.
    """

    _one_at_a_time = RLock()

    def __init__(self, path: Path, order: int = 0, total: int = 2**30, capability: int = 90, processors: int = 4) -> None:
        self.capability, self.processors = capability, processors
        self.name, self.order, self.total = "a GPU made of threads", order, total
        self._library = ctypes.CDLL(str(path))
        self._library.emulated_launch.restype = ctypes.c_char_p
        self._library.emulated_allocate.restype = ctypes.c_void_p
        self._sizes: dict[int, int] = {}
        self._lock = Lock()
        self.launched: list[str] = []
        self.recordings = 0
        self.dead = ""

    # ------------------------------------------------------------------------------------------------------------ memory

    def memory(self) -> tuple[int, int]:
        self._alive()
        return self.total - sum(self._sizes.values()), self.total

    def allocate(self, size: int) -> int:
        self._alive()
        if size > self.memory()[0]:
            raise MemoryError
        address = self._library.emulated_allocate(ctypes.c_size_t(size))
        if not address:
            raise MemoryError
        with self._lock:
            self._sizes[address] = size
        ctypes.memset(address, 0xA5, size)
        return int(address)

    def release(self, address: int) -> None:
        self._alive()
        with self._lock:
            size = self._sizes.pop(address)
        self._library.emulated_free(ctypes.c_void_p(address), ctypes.c_size_t(size))

    def fill(self, address: int, value: int, size: int) -> None:
        ctypes.memset(self._range(address, size), value, size)

    def upload(self, address: int, data: memoryview) -> None:
        size = data.nbytes
        ctypes.memmove(self._range(address, size), bytes(data), size)

    def download(self, address: int, room: memoryview) -> None:
        room[:] = ctypes.string_at(self._range(address, room.nbytes), room.nbytes)

    def copy(self, to: int, source: int, size: int) -> None:
        assert to + size <= source or source + size <= to, "ranges that overlap"
        ctypes.memmove(self._range(to, size), self._range(source, size), size)

    def pinned(self, size: int) -> memoryview:
        return memoryview(bytearray(b"\xa5" * size))

    def begin_upload(self, address: int, data: memoryview) -> Later:
        """As late as a GPU could do it: what fills the pinned memory again too soon is seen."""
        return Later(lambda: self.upload(address, data))

    def begin_download(self, address: int, room: memoryview) -> Later:
        return Later(lambda: self.download(address, room))

    def _range(self, address: int, size: int) -> int:
        """Refuse what a driver would: a range that lies in no allocation."""
        self._alive()
        with self._lock:
            inside = any(begin <= address and address + size <= begin + max(1, have) for begin, have in self._sizes.items())
        assert inside, f"{size} bytes at {address:#x} are in no allocation"
        return address

    def _alive(self) -> None:
        if self.dead:
            raise DeviceFault(self.dead)

    # ----------------------------------------------------------------------------------------------------------- kernels

    def tensor_map(self, address: int, of: TensorMap) -> bytes:
        """Refuse what cuTensorMapEncodeTiled does (cuda.h says what); return `struct emulated_map` of hopper.h."""
        self._alive()
        assert address % 16 == 0, "a tensor map of a misaligned address"
        assert of.dtype in ("F16", "BF16")
        assert all(0 < n <= 2**32 for n in of.ne), of.ne
        assert all(nb % 16 == 0 and 0 <= nb < 2**40 for nb in of.nb), of.nb
        assert all(0 < n <= 256 for n in of.box), of.box
        # the bytes that change places; a box of fewer would leave gaps between its rows
        assert 2 * of.box[0] == SWIZZLE, of.box
        packed = struct.pack("<8Q6IQ", address, *of.ne, *of.nb, *of.box, SWIZZLE, 2, MAP_MARK)
        return packed.ljust(MAP_BYTES, b"\0")

    def record(self, launches: Sequence[Launch]) -> Replayed:
        self._alive()
        self.recordings += 1
        return Replayed(self, [(launch, getattr(self._library, PREFIX + launch.kernel)) for launch in launches])

    def run(self, launch: Launch, function: Any) -> None:
        self._alive()
        self.launched.append(launch.kernel)
        grid, block = (ctypes.c_uint * 3)(*launch.grid), (ctypes.c_uint * 3)(launch.block, 1, 1)
        room = ctypes.create_string_buffer(len(launch.argument) + MAP_BYTES)
        argument = ctypes.c_void_p(-(-ctypes.addressof(room) // MAP_BYTES) * MAP_BYTES)
        ctypes.memmove(argument, launch.argument, len(launch.argument))
        with self._one_at_a_time:
            fault = self._start(function, grid, block, launch.shared, argument, self.order)
        if fault:
            self.dead = f"{launch.kernel}: {fault.decode()}"
            raise DeviceFault(self.dead)

    @property
    def _start(self) -> Any:
        """What runs a kernel: it returns NULL, or what went wrong."""
        return self._library.emulated_launch

    def close(self) -> None:
        for address, size in self._sizes.items():
            self._library.emulated_free(ctypes.c_void_p(address), ctypes.c_size_t(size))
        self._sizes.clear()
        self.dead = self.dead or "it is closed"


class Later:
    """A copy that is done when somebody waits for it."""

    def __init__(self, copy: Callable[[], None]) -> None:
        self._copies: Iterator[Callable[[], None]] = iter([copy])

    def wait(self) -> None:
        for copy in self._copies:
            copy()


class Replayed:
    """Launches that run one after the other when somebody waits for them."""

    def __init__(self, device: Emulated, launches: Sequence[tuple[Launch, Any]]) -> None:
        self._device, self._launches = device, launches
        self._started = False

    def start(self) -> None:
        self._started = True

    def wait(self) -> None:
        assert self._started, "waited for what was not started"
        self._started = False
        for launch, function in self._launches:
            self._device.run(launch, function)
