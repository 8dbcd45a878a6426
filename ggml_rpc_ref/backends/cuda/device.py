"""What the backend needs of a GPU, and nothing else: memory, copies, kernels, and a list of launches that runs again and again.

`driver.py` has it for a real one; the tests have one made of threads. Everything else of this folder is written against this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

OLDEST: Final = 75
"""The least compute capability, times ten, that the kernels are compiled for: Turing."""
PREFIX: Final = "kernel_"
"""What the name of a kernel's function begins with."""


MAP_BYTES: Final = 128
"""Bytes of a tensor map (CUtensorMap of cuda.h), and what they lie at multiples of."""


@dataclass(frozen=True, slots=True)
class TensorMap:
    """Four dimensions of 16-bit numbers, boxes of which are brought to shared memory, with zeros beyond the ends.

    It is what cuTensorMapEncodeTiled is told, but for the address.

    Attributes:
        dtype: "F16" or "BF16".
        ne: lengths.
        nb: bytes from one index to the next, of dimensions 1 to 3; multiples of 16.
        box: lengths of a box; the first is 64, 128 bytes, in which pieces of 16 change places (CU_TENSOR_MAP_SWIZZLE_128B).
    """

    dtype: str
    ne: tuple[int, int, int, int]
    nb: tuple[int, int, int]
    box: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel to run.

    Attributes:
        op: name of its file, "rms_norm".
        kernel: name of the kernel in it; the function's has PREFIX before it.
        grid: blocks along x, y and z.
        block: threads of a block; a multiple of 32.
        shared: bytes of dynamic shared memory of a block.
        argument: the node, as `struct geometry` or, with tensor maps, `struct mapped_geometry`.
    """

    op: str
    kernel: str
    grid: tuple[int, int, int]
    block: int
    shared: int
    argument: bytes


class Recorded(Protocol):
    """Launches that were recorded once, in order."""

    def start(self) -> None:
        """Begin to run all of them; each begins when the one before it has ended."""

    def wait(self) -> None:
        """Return once all of them have run since the last `start`.

        Raises:
            DeviceFault: where one of them failed.
        """


class Transfer(Protocol):
    """A copy between pinned and device memory that is under way."""

    def wait(self) -> None:
        """Return once it is done."""


class Device(Protocol):
    """A GPU with a context of its own. Each method may be called by several threads, and may raise `backends.DeviceFault`."""

    @property
    def name(self) -> str:
        """What it is, for people."""

    @property
    def capability(self) -> int:
        """Compute capability times ten: 75, 80, 90."""

    @property
    def processors(self) -> int:
        """Multiprocessors."""

    def memory(self) -> tuple[int, int]:
        """Return (free, total) bytes of the device, as its driver says."""

    def allocate(self, size: int) -> int:
        """Return the address of `size` new bytes, at least one, aligned to 256, of any content.

        Raises:
            MemoryError: where there is no room.
        """

    def release(self, address: int) -> None:
        """Free what `allocate` returned."""

    def fill(self, address: int, value: int, size: int) -> None:
        """Set bytes."""

    def upload(self, address: int, data: memoryview) -> None:
        """Copy from host memory; done when it returns."""

    def download(self, address: int, room: memoryview) -> None:
        """Copy to host memory; done when it returns."""

    def copy(self, to: int, source: int, size: int) -> None:
        """Copy within the device; the two ranges don't overlap."""

    def pinned(self, size: int) -> memoryview:
        """Return page-locked host memory, for transfers that go on while the processor does something else."""

    def begin_upload(self, address: int, data: memoryview) -> Transfer:
        """Begin to copy from pinned memory."""

    def begin_download(self, address: int, room: memoryview) -> Transfer:
        """Begin to copy to pinned memory."""

    def tensor_map(self, address: int, of: TensorMap) -> bytes:
        """Return MAP_BYTES by which a kernel names a tensor at that address, a multiple of 16."""

    def record(self, launches: Sequence[Launch]) -> Recorded:
        """Return launches that can be run again and again."""

    def close(self) -> None:
        """Give everything back; never raises."""
