"""Weights packed for products with few columns, as a token needs them, beside the client's own bytes (`kernels/shared/packed.h`).

A weight is packed when it is multiplied so for the second time: a model's are at its second token, others would not repay it. Only
buffers are looked at that no graph has written to: what a client uploads once and then reads, as stock clients do with weights.
Where there is no room for one more it stays as it is; when the machine's memory runs out all copies go.
"""

from __future__ import annotations

from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import numpy as np

from ggml_rpc_ref.backends import machine
from ggml_rpc_ref.backends.memory import HostAllocation, HostMemory
from ggml_rpc_ref.backends.native.geometry import Geometry
from ggml_rpc_ref.backends.native.library import Library
from ggml_rpc_ref.tensor import Bytes

ALIGNMENT = 64

Place = tuple[int, int, int, int]
"""A weight within its allocation: offset, number of its type, ne[0], ne[1]."""


class Packed:
    """The packed weights of all connections.

    Args:
        limit: bytes that they may have together.
        library: the kernels.
        pool: the threads.
        memory: what the allocations are of.

    Attributes:
        counter: `changes`, where C looks at it: what `find` has said before it counted is to be asked for again.
    """

    def __init__(self, limit: int, library: Library, pool: Any, memory: HostMemory) -> None:
        self.limit, self._memory = limit, memory
        self.counter = library.ffi.new("int64_t *")
        self._library, self._pool, self._lock = library, pool, Lock()
        self._copies: WeakKeyDictionary[HostAllocation, dict[Place, Bytes | None]] = WeakKeyDictionary()  # None: seen once
        self._written: WeakSet[HostAllocation] = WeakSet()

    @property
    def changes(self) -> int:
        """How often one has gone."""
        return int(self.counter[0])

    @property
    def used(self) -> int:
        """Bytes that the copies have."""
        return sum(len(copy) for copies in list(self._copies.values()) for copy in list(copies.values()) if copy is not None)

    def find(self, allocation: HostAllocation, offset: int, kind: Geometry) -> tuple[Bytes | None, bool]:
        """Return a weight's copy, None where it has none; and whether it is worth asking again before `changes` has changed.

        Args:
            allocation: what it lies in.
            offset: where.
            kind: of the node that multiplies it, which can use a copy.
        """
        if allocation in self._written:
            return None, False
        layout = kind.struct.src[0]
        place = (offset, layout.type, layout.ne[0], layout.ne[1])
        with self._lock:
            copies = self._copies.setdefault(allocation, {})
            if place not in copies:
                self._memory.watching += not copies
                copies[place] = None
                return None, True
            if (copy := copies[place]) is not None:
                return copy, False
            if kind.packed > min(self.limit - self.used, machine.spare()):
                return None, False
        return self._pack(allocation, place, kind), False

    def _pack(self, allocation: HostAllocation, place: Place, kind: Geometry) -> Bytes:
        # without the lock, which is for the tables alone: an allocation is one connection's, whose one thread is here
        room = np.empty(kind.packed + ALIGNMENT, np.uint8)
        copy = room[-_address(room) % ALIGNMENT :][: kind.packed]
        cast = self._library.ffi.cast
        weights, to = cast("uint8_t *", _address(allocation.data) + place[0]), cast("uint8_t *", _address(copy))
        self._library.lib.pack_weights(self._pool, kind.struct, weights, to)
        with self._lock:
            self._copies.setdefault(allocation, {})[place] = copy
        return copy

    def knows(self, allocation: HostAllocation) -> bool:
        """Whether weights of an allocation have been seen, so that changes of its bytes have to be told (`drop`)."""
        return allocation in self._copies

    def drop(self, allocation: HostAllocation, start: int, stop: int) -> None:
        """Forget the copies of an allocation of which any bytes have changed: a client writes its weights, then reads them."""
        if allocation in self._copies:
            with self._lock:
                self._forget(allocation)

    def written_by_graph(self, allocation: HostAllocation) -> None:
        """Keep no copies of an allocation that graphs write to."""
        if allocation not in self._written:
            with self._lock:
                self._written.add(allocation)
                self._forget(allocation)

    def give_way(self) -> bool:
        """Forget all copies; return whether there were any."""
        with self._lock:
            before = self.changes
            for allocation in list(self._copies):
                self._forget(allocation)
            return self.changes > before

    def _forget(self, allocation: HostAllocation) -> None:
        self.counter[0] += any(copy is not None for copy in self._copies.pop(allocation, {}).values())


def _address(data: Bytes) -> int:
    address: int = data.__array_interface__["data"][0]
    return address
