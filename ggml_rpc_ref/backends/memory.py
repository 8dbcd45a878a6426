"""Where the bytes of buffers lie. Memory belongs to a backend; host memory (numpy) is one kind of it.

A server hands out handles and addresses and checks bounds; the bytes it touches only through an `Allocation`. Host memory shows its
bytes in place (`data`), so that SET_TENSOR is received straight into a buffer; any other kind is written and read by copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Lock
from typing import Final, Protocol

import numpy as np

from ggml_rpc_ref.backends import machine
from ggml_rpc_ref.tensor import Bytes

AT_ONCE: Final = 2**20
"""Bytes copied by one call, and so the memory that a copy within the same buffer needs."""
CHUNK: Final = 2**20
"""Bytes that move at one time to or from memory that can't be reached in place."""


class Allocation(Protocol):
    """The bytes of one buffer. Ranges are offsets from its first byte, checked by the caller."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def data(self) -> Bytes | None:
        """All bytes in place, shape (size,), where they lie in host memory; else None."""

    def upload(self, start: int, data: memoryview) -> None:
        """Write bytes from `start` on."""

    def download(self, start: int, stop: int) -> memoryview:
        """Return the bytes from start to stop: in place where they lie in host memory, else a copy."""

    def receive(self, start: int, stop: int) -> Iterator[memoryview]:
        """Yield where to put the next bytes until those from start to stop are there.

        A view counts as filled when the next one is asked for.
        """

    def pieces(self, start: int, stop: int) -> Iterator[memoryview]:
        """Yield the bytes from start to stop in order; each view is good until the next one is asked for."""

    def copy(self, start: int, source: Allocation, first: int, last: int) -> None:
        """Write the bytes from `first` to `last` of another allocation, or of this one, from `start` on; they may overlap."""

    def clear(self, value: int) -> None:
        """Set every byte."""

    def written(self, start: int, stop: int) -> None:
        """Take note that the bytes from start to stop have been changed in place."""

    def free(self) -> None:
        """Give the memory back; the allocation is not used again."""


class DeviceMemory(Protocol):
    """The memory of one device, shared by every connection of a server."""

    @property
    def total(self) -> int:
        """Bytes that all live allocations together may have."""

    @property
    def free(self) -> int:
        """Bytes of them that none has."""

    def allocate(self, size: int) -> Allocation | None:
        """Return `size` bytes, all zero, or None where there is no room."""


class ByCopies:
    """`receive` and `pieces` of an allocation that is written and read by copies, a chunk at a time."""

    def receive(self: Allocation, start: int, stop: int) -> Iterator[memoryview]:
        """Yield room for the next bytes until those from start to stop are there."""
        chunk = memoryview(bytearray(min(CHUNK, stop - start)))
        for at in range(start, stop, CHUNK):
            view = chunk[: stop - at]
            yield view
            self.upload(at, view)

    def pieces(self: Allocation, start: int, stop: int) -> Iterator[memoryview]:
        """Yield the bytes from start to stop in order."""
        for at in range(start, stop, CHUNK):
            yield self.download(at, min(at + CHUNK, stop))


class HostAllocation:
    """Bytes in this process's memory.

    Args:
        data: the bytes, shape (size,).
        memory: what they were allocated from; None: they count towards no device.
    """

    def __init__(self, data: Bytes, memory: HostMemory | None = None) -> None:
        self.data, self.memory = data, memory

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)

    def upload(self, start: int, data: memoryview) -> None:
        """Write bytes from `start` on."""
        _move(self.data.data[start : start + len(data)], data)
        self.written(start, start + len(data))

    def download(self, start: int, stop: int) -> memoryview:
        """Return the bytes from start to stop, in place."""
        return self.data.data[start:stop]

    def receive(self, start: int, stop: int) -> Iterator[memoryview]:
        """Yield the bytes themselves, in one piece, so that nothing is copied."""
        # if the peer leaves in between, `written` is not called; the connection is over then, and its buffers are freed
        yield self.data.data[start:stop]
        self.written(start, stop)

    def pieces(self, start: int, stop: int) -> Iterator[memoryview]:
        """Yield the bytes in place and as one, where there are any."""
        if stop > start:
            yield self.download(start, stop)

    def copy(self, start: int, source: Allocation, first: int, last: int) -> None:
        """Write the bytes from `first` to `last` of another allocation, or of this one, from `start` on; they may overlap."""
        self.upload(start, source.download(first, last))

    def clear(self, value: int) -> None:
        """Set every byte."""
        self.data.fill(value)
        self.written(0, self.size)

    def written(self, start: int, stop: int) -> None:
        """Tell the memory's backend that the bytes from start to stop have been changed."""
        if self.memory is not None and self.memory.changed is not None:
            self.memory.changed(self, start, stop)

    @property
    def watched(self) -> bool:
        """Whether somebody has to be told now when bytes change (`written`)."""
        return self.memory is not None and self.memory.changed is not None and self.memory.watches(self)

    def free(self) -> None:
        """Give the memory back."""
        # what a backend keeps of these bytes holds this object, and so the bytes, until it is told that they have changed
        self.written(0, self.size)
        if self.memory is not None:
            self.memory.give_back(self.size)


class Adopted(HostAllocation):
    """Bytes that somebody else has in this process's memory: a mapped file, for instance. They count towards no limit."""

    def free(self) -> None:
        """Have what was made from them forgotten; they are somebody else's to give back."""
        self.written(0, self.size)


def _move(target: memoryview, data: memoryview) -> None:
    """Copy bytes that may lie in the same memory, a part at a time: what overlaps is copied by way of a copy of the part."""
    to, of = np.frombuffer(target, np.uint8), np.frombuffer(data, np.uint8)
    starts = range(0, len(of), AT_ONCE)
    # from the end where the target lies behind the data, as memmove does: no part may be overwritten before it is copied
    behind = len(of) > 0 and to.ctypes.data > of.ctypes.data
    for at in reversed(starts) if behind else starts:
        # numpy's copy lets other threads run, a memoryview's does not, and other clients wait for it
        to[at : at + AT_ONCE] = of[at : at + AT_ONCE]


class HostMemory:
    """A share of this machine's memory: a limit, and how much of it is taken.

    Args:
        total: bytes that all live allocations together may have.
        make: makes the bytes of an allocation; raises MemoryError where it can't. They must be there when it returns, not only
            promised: no later write may find them missing.
        spare: returns how many bytes the machine could still give.

    Attributes:
        changed: called with each range of bytes that has changed; for a backend that keeps something made from them.
        watches: whether that backend keeps something made from an allocation's bytes.
        watching: how often it has begun to do so.
        give_way: asks that backend to give back what it keeps; returns whether it has.
    """

    def __init__(
        self, total: int, make: Callable[[int], Bytes] = machine.resident, spare: Callable[[], int] = machine.spare
    ) -> None:
        self.total, self._make, self._spare, self._used, self._lock = total, make, spare, 0, Lock()
        self.changed: Callable[[HostAllocation, int, int], None] | None = None
        self.watches: Callable[[HostAllocation], bool] = lambda allocation: True
        self.watching = 0
        self.give_way: Callable[[], bool] = lambda: False

    @property
    def free(self) -> int:
        """Bytes that no allocation has and the machine still has."""
        return min(self.total - self._used, self._spare())

    def allocate(self, size: int) -> HostAllocation | None:
        """Return `size` zero bytes, or None where the limit or the machine has no room."""
        with self._lock:
            if size > self.total - self._used:
                return None
            # counted before the bytes are made, so that the lock need not be held while gigabytes of pages are touched
            self._used += size
        try:
            return HostAllocation(self._made(size), self)
        except (MemoryError, ValueError):  # ValueError is numpy's for a size that no array can have
            self.give_back(size)
            return None

    def _made(self, size: int) -> Bytes:
        try:
            return self._make(size)
        except MemoryError:
            if not self.give_way():
                raise
            return self._make(size)

    def adopt(self, data: Bytes) -> HostAllocation:
        """Return bytes that are there already as an allocation, without a copy."""
        return Adopted(data, self)

    def give_back(self, size: int) -> None:
        """Count bytes as free again."""
        with self._lock:
            self._used -= size
