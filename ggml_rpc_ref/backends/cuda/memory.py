"""Buffers in a GPU's memory. They are plain allocations, never managed memory, which the driver may move behind our back.

A connection's bytes pass through pinned memory in pieces: while one piece is copied to the device the next one arrives.

After a fault all that the old context held is lost: each allocation of it raises DeviceFault when it is used, which ends the
connection that has it, and the next ALLOC_BUFFER makes a fresh context.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import RLock
from typing import Final

from ggml_rpc_ref.backends import DeviceFault
from ggml_rpc_ref.backends.cuda.device import Device
from ggml_rpc_ref.backends.memory import Allocation

log = logging.getLogger(__name__)

PIECE: Final = 4 * 2**20
"""Bytes of pinned memory that are filled or sent at a time."""
PIECES: Final = 3
"""How many of them a transfer has: one that is filled or sent, one that is copied, one that comes next."""


class CudaAllocation:
    """Bytes of one device.

    Args:
        memory: what they were allocated from.
        device: the context that they belong to.
        address: of the first.
        size: how many they are.
    """

    data = None

    def __init__(self, memory: CudaMemory, device: Device, address: int, size: int) -> None:
        self.memory, self.device, self.address, self.size = memory, device, address, size

    def upload(self, start: int, data: memoryview) -> None:
        """Write bytes from `start` on."""
        with self.memory.watched(self.device):
            self.device.upload(self.address + start, data)

    def download(self, start: int, stop: int) -> memoryview:
        """Return a copy of the bytes from start to stop."""
        room = memoryview(bytearray(stop - start))
        with self.memory.watched(self.device):
            self.device.download(self.address + start, room)
        return room

    def receive(self, start: int, stop: int) -> Iterator[memoryview]:
        """Yield room for the bytes from start to stop, piece by piece; one is copied to the device while the next one is filled."""
        with self.memory.watched(self.device), self.memory.staging(self.device) as pieces, ExitStack() as under_way:
            waits: list[Callable[[], None]] = []
            for number, at in enumerate(range(start, stop, PIECE)):
                if number >= len(pieces):
                    waits[number - len(pieces)]()  # this piece of pinned memory is free again
                room = pieces[number % len(pieces)][: min(PIECE, stop - at)]
                yield room
                waits.append(self.device.begin_upload(self.address + at, room).wait)
                # also where the peer leaves half way: pinned memory is given on, and the buffer freed
                under_way.callback(waits[-1])

    def pieces(self, start: int, stop: int) -> Iterator[memoryview]:
        """Yield the bytes from start to stop, piece by piece; the next one is copied while one is sent."""
        with self.memory.watched(self.device), self.memory.staging(self.device) as pieces, ExitStack() as under_way:
            ahead: deque[tuple[Callable[[], None], memoryview]] = deque()
            for number, at in enumerate(range(start, stop, PIECE)):
                room = pieces[number % len(pieces)][: min(PIECE, stop - at)]
                ahead.append((self.device.begin_download(self.address + at, room).wait, room))
                under_way.callback(ahead[-1][0])
                # one fewer than there are pieces: the one that was yielded last may still be sent
                if len(ahead) == len(pieces) - 1:
                    yield _arrived(*ahead.popleft())
            while ahead:
                yield _arrived(*ahead.popleft())

    def copy(self, start: int, source: Allocation, first: int, last: int) -> None:
        """Write the bytes from `first` to `last` of another allocation, or of this one, from `start` on; they may overlap."""
        size = last - first
        if isinstance(source, CudaAllocation) and source.device is self.device:
            apart = source is not self or abs(start - first) >= size
            if apart:
                with self.memory.watched(self.device):
                    self.device.copy(self.address + start, source.address + first, size)
                return
        self.upload(start, source.download(first, last))

    def clear(self, value: int) -> None:
        """Set every byte."""
        with self.memory.watched(self.device):
            self.device.fill(self.address, value, self.size)

    def written(self, start: int, stop: int) -> None:
        """Do nothing: no byte here can be changed in place."""

    def free(self) -> None:
        """Give the memory back."""
        self.memory.give_back(self)


def _arrived(wait: Callable[[], None], room: memoryview) -> memoryview:
    wait()
    return room


class CudaMemory:
    """The memory of one GPU.

    Args:
        open_device: makes a context on it; raises DeviceFault where that can't be done (any more).
        limit: bytes that all live allocations together may have; None: what the device has.

    Attributes:
        most_scratch: bytes that kernels of all plans together may have beside the allocations, for as long as the plans are kept.
    """

    def __init__(self, open_device: Callable[[], Device], limit: int | None = None) -> None:
        # scratch memory is given back where Python frees a plan, which may be within any of the methods here
        self._open, self._limit, self._lock = open_device, limit, RLock()
        self._device: Device | None = open_device()
        self._is_gone = False  # no fresh context could be made, and that has been said
        self._used = self._scratch = 0
        self._idle: list[list[memoryview]] = []  # of the current context
        self.description = self._device.name
        self._total = self._device.memory()[1]
        self.most_scratch = 2**30 + self.total // 8

    @property
    def total(self) -> int:
        """Bytes that all live allocations together may have."""
        return self._total if self._limit is None else min(self._limit, self._total)

    @property
    def free(self) -> int:
        """Bytes that no allocation has and the driver says are free; 0 while the device is lost."""
        try:
            device = self.device()
            with self.watched(device):
                return min(self.total - self._used, device.memory()[0])
        except DeviceFault:
            return 0

    def device(self) -> Device:
        """Return the context, a fresh one after a fault.

        Raises:
            DeviceFault: where none can be made.
        """
        with self._lock:
            if self._device is None:
                try:
                    self._device = self._open()
                except DeviceFault as fault:
                    if not self._is_gone:
                        log.error("no fresh context on %s, start the server again: %s", self.description, fault)
                    self._is_gone = True
                    raise
                log.warning("a fresh context on %s", self._device.name)
                self._is_gone = False
            return self._device

    def is_current(self, device: Device) -> bool:
        """Whether a context has not been lost."""
        return device is self._device

    def allocate(self, size: int) -> CudaAllocation | None:
        """Return `size` zero bytes, or None where there is no room, or no device any more."""
        with self._lock:
            if size > self.total - self._used:
                return None
            self._used += size
        try:
            device = self.device()
            with self.watched(device):
                # a buffer of no bytes has an address of its own, too
                address = device.allocate(max(1, size))
                try:
                    device.fill(address, 0, size)
                except MemoryError:  # not the context's end, so the bytes would stay
                    device.release(address)
                    raise
            return CudaAllocation(self, device, address, size)
        except (MemoryError, DeviceFault):
            with self._lock:
                self._used -= size
            return None

    def give_back(self, allocation: CudaAllocation) -> None:
        """Free an allocation's bytes; those of a lost context are gone already."""
        with self._lock:
            self._used -= allocation.size
        if self.is_current(allocation.device):
            # a fault is logged, and frees a buffer as well
            with suppress(DeviceFault), self.watched(allocation.device):
                allocation.device.release(allocation.address)

    def allocate_scratch(self, device: Device, size: int) -> int:
        """Return the address of bytes for kernels, which hold anything.

        Raises:
            MemoryError: where plans have too much of it, or the device has no more.
            DeviceFault: where the device has failed.
        """
        with self._lock:
            if self._scratch + size > self.most_scratch:
                raise MemoryError
            self._scratch += size
        try:
            with self.watched(device):
                return device.allocate(size)
        except (MemoryError, DeviceFault):
            with self._lock:
                self._scratch -= size
            raise

    def release_scratch(self, device: Device, address: int, size: int) -> None:
        """Give back what `allocate_scratch` returned; a lost context's is gone already."""
        with self._lock:
            self._scratch -= size
        if self.is_current(device):
            # a fault is logged, and frees this as well
            with suppress(DeviceFault), self.watched(device):
                device.release(address)

    @contextmanager
    def watched(self, device: Device) -> Iterator[None]:
        """Refuse a context that has been lost, and notice where one is lost within the `with`.

        Raises:
            DeviceFault: in either case.
        """
        if not self.is_current(device):
            raise DeviceFault("what it held was lost with its context")
        try:
            yield
        except DeviceFault as fault:
            self._lose(device, str(fault))
            raise

    def _lose(self, device: Device, why: str) -> None:
        """Drop a context that has failed; others may have seen it first."""
        with self._lock:
            if self._device is not device:
                return
            self._device = None
            self._idle.clear()
        log.error("%s failed: %s; connections that have buffers on it end, a fresh context is made for the next", device.name, why)
        device.close()

    @contextmanager
    def staging(self, device: Device) -> Iterator[list[memoryview]]:
        """Lend pieces of pinned memory: kept ones if there are any, because making them takes longer than most transfers."""
        with self._lock:
            pieces = self._idle.pop() if self._idle else None
        if pieces is None:
            pieces = [device.pinned(PIECE) for _ in range(PIECES)]
        try:
            yield pieces
        finally:
            # also where the peer leaves half way: what is under way has been waited for
            with self._lock:
                if self.is_current(device):
                    self._idle.append(pieces)
