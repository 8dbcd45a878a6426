"""Handles, buffers and the bounds rule: what a peer may touch, and how that is decided.

A handle (`remote_ptr`) and an address (`base_ptr`) are made-up numbers of one connection, never process addresses (llama.cpp
#14882): the client only adds offsets to them. Address ranges are aligned, far apart and never reused within a connection, so a
stale address can't land in a younger buffer.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.spec.dtypes import types
from ggml_rpc_ref.spec.versions import DEFAULT, Version
from ggml_rpc_ref.tensor import F32Array, Quad, Tensor, extent

ALIGNMENT = 32
"""Bytes; what upstream's CPU device answers (TENSOR_ALIGNMENT in ggml-impl.h)."""
PAGE = 4096
"""Bytes; bases are multiples of it, and at least one page lies between two buffers."""
LAST_ADDRESS = 2**63
"""No buffer lies beyond it, so that address arithmetic of a client fits into signed 64 bits."""

Bytes = npt.NDArray[np.uint8]
Allocate = Callable[[int], Bytes]


def zeroed(size: int) -> Bytes:
    """Return zero bytes whose pages the operating system hands out only when they are first written (calloc)."""
    return np.zeros(size, np.uint8)


class WireTensor(Protocol):
    """What of an RpcTensor says what it is and where it lies."""

    @property
    def type(self) -> int:
        """A ggml_type id."""

    @property
    def buffer(self) -> int:
        """A remote_ptr."""

    @property
    def ne(self) -> tuple[int, ...]:
        """Elements per dimension."""

    @property
    def nb(self) -> tuple[int, ...]:
        """Bytes between neighbours per dimension."""

    @property
    def data(self) -> int:
        """The address of its first byte."""

    @property
    def name(self) -> bytes:
        """Its name, padded with zero bytes."""


class DeviceMemory:
    """The memory of one device, shared by every connection of a server: a cap and what of it is taken.

    Args:
        total: bytes that all live buffers together may have.
        allocate: makes the bytes of a buffer; raises MemoryError where it can't.
    """

    def __init__(self, total: int, allocate: Allocate = zeroed) -> None:
        self.total, self._allocate, self._used, self._lock = total, allocate, 0, Lock()

    @property
    def free(self) -> int:
        """Bytes of the cap that no buffer has."""
        return self.total - self._used

    def take(self, size: int) -> Bytes | None:
        """Return new bytes, all zero, or None where the cap or the machine has no room."""
        with self._lock:
            if size > self.total - self._used:
                return None
            self._used += size
        try:
            return self._allocate(size)
        except (MemoryError, ValueError):  # ValueError is numpy's for a size that no array can have
            self.give_back(size)
            return None

    def give_back(self, size: int) -> None:
        """Count bytes as free again."""
        with self._lock:
            self._used -= size


class ValueCache:
    """float32 copies of block-typed tensors (weights), least recently used out first, bounded in bytes, shared by all connections.

    Without it every MUL_MAT would de-quantise its weights anew: half a second a token for Gemma 3 270M.

    Args:
        limit: bytes of copies to keep; 0 keeps none.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.used, self._lock = limit, 0, Lock()
        self._copies: OrderedDict[tuple[Buffer, Tensor], F32Array] = OrderedDict()

    def values(self, buffer: Buffer, tensor: Tensor) -> F32Array | None:
        """Return the copy of a tensor, made now if it is new; None for one too large to keep, or without elements."""
        key = (buffer, Tensor(tensor.dtype, tensor.ne, tensor.nb, None, tensor.offset))
        with self._lock:
            if key in self._copies:
                self._copies.move_to_end(key)
                return self._copies[key]
        size = 4 * tensor.nelements
        # a copy of nothing would never be dropped, since no range of bytes meets it, and would keep its buffer alive
        if size > self.limit or size == 0:
            return None
        copy = tensor.fresh_values()
        copy.flags.writeable = False
        with self._lock:
            if key not in self._copies:
                self._copies[key] = copy
                self.used += size
                buffer.copied.append(key[1])
            while self.used > self.limit:
                (owner, shape), old = self._copies.popitem(last=False)
                self.used -= old.nbytes
                owner.copied.remove(shape)
        return copy

    def drop(self, buffer: Buffer, start: int, stop: int) -> None:
        """Forget the copies of tensors that have a byte in a range of a buffer."""
        with self._lock:
            stale = [t for t in buffer.copied if t.offset < stop and start < t.offset + t.nbytes]
            for tensor in stale:
                buffer.copied.remove(tensor)
                self.used -= self._copies.pop((buffer, tensor)).nbytes


class Buffer:
    """Bytes on a device that a peer may write and read.

    Attributes:
        remote_ptr: its handle; never 0.
        base: address of its first byte; 0 for a buffer of no bytes.
        device: index of the device.
        data: its bytes, shape (size,).
        copied: tensors in it of which the value cache has a copy.
    """

    def __init__(self, remote_ptr: int, base: int, device: int, data: Bytes, cache: ValueCache | None = None) -> None:
        self.remote_ptr, self.base, self.device, self.data = remote_ptr, base, device, data
        self.copied: list[Tensor] = []
        self._cache = cache

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)

    def offset_of(self, address: int, size: int) -> int | None:
        """Return where in `data` a range of addresses begins, or None unless all of it lies in this buffer. The bounds rule.

        Python's integers don't wrap, so comparing sums is safe here. Source of the rule: SEC-01, OBS-1, OBS-3.
        """
        inside = self.base <= address and address + size <= self.base + self.size
        return address - self.base if inside else None

    def cached_values(self, tensor: Tensor) -> F32Array | None:
        """Return the float32 copy of a block-typed tensor in this buffer, or None where none is kept."""
        if self._cache is None or not tensor.dtype.is_quantised:
            return None
        return self._cache.values(self, tensor)

    def written(self, start: int, stop: int) -> None:
        """Forget float32 copies of what has changed."""
        if self._cache is not None and self.copied:
            self._cache.drop(self, start, stop)


class Memory:
    """The buffers of one connection.

    Args:
        devices: the server's devices.
        cache: where float32 copies of weights are kept.
        version: the protocol version, for the types that it knows.
    """

    def __init__(self, devices: list[DeviceMemory], cache: ValueCache | None = None, version: Version = DEFAULT) -> None:
        self._devices, self._cache, self._types = devices, cache, types(version)
        self._buffers: dict[int, Buffer] = {}
        # up to 2^46 lies in what every 64-bit user process has; a client may do signed arithmetic on it
        self._next_base = (2**40 + secrets.randbits(44)) // PAGE * PAGE

    def __len__(self) -> int:
        return len(self._buffers)

    def alloc(self, device: int, size: int) -> Buffer | None:
        """Return a new buffer of zero bytes, or None where the device, or the made-up address space, has no room."""
        if self._next_base + size > LAST_ADDRESS:
            return None
        data = self._devices[device].take(size)
        if data is None:
            return None
        remote_ptr = secrets.randbits(58) * 32 + 32
        while remote_ptr in self._buffers:
            remote_ptr += 32
        buffer = Buffer(remote_ptr, self._next_base if size else 0, device, data, self._cache)
        self._next_base += (size + 2 * PAGE - 1) // PAGE * PAGE
        self._buffers[remote_ptr] = buffer
        return buffer

    def buffer(self, remote_ptr: int, rule: str = "buffer.known", field: str = "remote_ptr") -> Buffer:
        """Return a live buffer of this connection.

        Raises:
            Violation: the rule named, for a handle that is none.
        """
        buffer = self._buffers.get(remote_ptr)
        if buffer is None:
            raise Violation(rule, field, hex(remote_ptr), "no live buffer of this connection has this handle")
        return buffer

    def free(self, remote_ptr: int) -> Buffer:
        """Take a buffer away and return what it was.

        Raises:
            Violation: buffer.known.
        """
        buffer = self.buffer(remote_ptr)
        del self._buffers[remote_ptr]
        buffer.written(0, buffer.size)
        self._devices[buffer.device].give_back(buffer.size)
        return buffer

    def close(self) -> None:
        """Free every buffer: the connection is over."""
        for remote_ptr in list(self._buffers):
            self.free(remote_ptr)

    def tensor(self, wire: WireTensor, field: str = "tensor") -> Tensor:
        """Return a wire tensor bound to its buffer; without storage where it names no live buffer.

        Args:
            wire: an RpcTensor, or the part of one that matters here.
            field: what to call it in a Violation.

        Raises:
            Violation: tensor.type-known, tensor.block-multiple, tensor.in-buffer.
        """
        dtype = self._types.get(int(wire.type))
        if dtype is None:
            raise Violation("tensor.type-known", f"{field}.type", wire.type, "no live ggml_type has this number")
        ne, nb = _quad(wire.ne), _quad(wire.nb)
        if ne[0] % dtype.block:
            raise Violation("tensor.block-multiple", f"{field}.ne[0]", ne[0], f"a {dtype.name} block has {dtype.block} elements")
        name = wire.name.split(b"\0")[0].decode("utf-8", "replace")
        buffer = self._buffers.get(wire.buffer)
        if buffer is None:
            return Tensor(dtype, ne, nb, None, 0, name)
        size = extent(dtype, ne, nb)
        offset = buffer.offset_of(wire.data, size)
        if offset is None:
            raise Violation("tensor.in-buffer", f"{field}.data", hex(wire.data), _where(buffer, size))
        return Tensor(dtype, ne, nb, buffer, offset, name)


def _quad(numbers: tuple[int, ...]) -> Quad:
    a, b, c, d = (int(number) for number in numbers)
    return (a, b, c, d)


def _where(buffer: Buffer, size: int) -> str:
    return f"its {size} bytes are not all in its buffer [{buffer.base:#x}, {buffer.base + buffer.size:#x})"
