"""Handles, address ranges and the bounds rule: what a peer may touch, and how that is decided.

A handle (`remote_ptr`) and an address (`base_ptr`) are made-up numbers of one connection, never process addresses (llama.cpp
#14882): the client only adds offsets to them. Address ranges are aligned, far apart and never reused within a connection, so a
stale address can't land in a younger buffer.

The bytes themselves belong to the memory of the device's backend (`backends.memory`). Here a request's tensor becomes a range of an
allocation, or a Violation.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.backends.memory import Allocation, DeviceMemory
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.spec.dtypes import DType, types
from ggml_rpc_ref.spec.rules import RULES
from ggml_rpc_ref.spec.versions import DEFAULT, Version
from ggml_rpc_ref.tensor import Quad, Tensor, extent

ALIGNMENT: Final = 32
"""Bytes; what upstream's CPU device answers (TENSOR_ALIGNMENT in ggml-impl.h)."""
PAGE: Final = 4096
"""Bytes; bases are multiples of it, and at least one page lies between two buffers."""
LAST_ADDRESS: Final = 2**63
"""No buffer lies beyond it, so that address arithmetic of a client fits into signed 64 bits."""
MAX_BUFFERS: Final = 4096
"""Live buffers of a connection unless said otherwise; stock clients have a dozen. Each costs the server about 500 bytes beside its
own, also one of no bytes (472 B each, 38,000 of them a second, in issue 9)."""
AT_ONCE: Final = 4096
"""Records of a graph that one call turns into Python's objects, or frees: it holds the GIL, and other clients wait for it."""


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


class Place(NamedTuple):
    """A `WireTensor` taken from a graph's records."""

    type: int
    buffer: int
    ne: tuple[int, ...]
    nb: tuple[int, ...]
    data: int
    name: bytes


class Buffer:
    """What a peer calls a buffer.

    Attributes:
        remote_ptr: its handle; never 0.
        base: address of its first byte; 0 for a buffer of no bytes.
        device: index of the device.
        allocation: its bytes.
    """

    def __init__(self, remote_ptr: int, base: int, device: int, allocation: Allocation) -> None:
        self.remote_ptr, self.base, self.device, self.allocation = remote_ptr, base, device, allocation

    @property
    def size(self) -> int:
        """Bytes."""
        return self.allocation.size

    def offset_of(self, address: int, size: int) -> int | None:
        """Return where in the buffer a range of addresses begins, or None unless all of it lies in this buffer. The bounds rule.

        Python's integers don't wrap, so comparing sums is safe here. Source of the rule: SEC-01, OBS-1, OBS-3.
        """
        inside = self.base <= address and address + size <= self.base + self.size
        return address - self.base if inside else None


class Bounds(NamedTuple):
    """What a tensor is and where it lies, for requests that don't compute with it.

    Attributes:
        dtype: row of its type.
        ne, nb: dimensions and strides in bytes, ggml's order.
        buffer: the live buffer that it lies in; None where it names none.
        offset: where in the buffer its first byte lies.
        nbytes: bytes from the first to the last element (ggml_nbytes).
    """

    dtype: DType
    ne: Quad
    nb: Quad
    buffer: Buffer | None
    offset: int
    nbytes: int


class Region(NamedTuple):
    """The bytes of an allocation from start to stop."""

    allocation: Allocation
    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many they are."""
        return self.stop - self.start

    def receive(self) -> Iterator[memoryview]:
        """Yield where to put the next bytes until the region is full; a view counts as filled when the next one is asked for."""
        return self.allocation.receive(self.start, self.stop)

    def pieces(self) -> Iterator[memoryview]:
        """Yield the bytes in order."""
        return self.allocation.pieces(self.start, self.stop)

    def read(self) -> memoryview:
        """Return the bytes, in place where they lie in host memory."""
        return self.allocation.download(self.start, self.stop)

    def load(self, load: Callable[[memoryview], int | None]) -> int | None:
        """Let a function write to the beginning of the region; it returns how many bytes it wrote, or None for nothing to keep."""
        data = self.allocation.data
        if data is not None:
            count = load(data.data[self.start : self.stop])
            self.allocation.written(self.start, self.stop)  # also after None: the function may have begun to write
            return count
        view = memoryview(bytearray(self.stop - self.start))
        if (count := load(view)) is not None:
            self.allocation.upload(self.start, view[:count])
        return count


class Memory:
    """The buffers of one connection.

    Args:
        devices: the memory of each of the server's devices.
        version: the protocol version, for the types that it knows.
        max_buffers: live buffers at the same time.

    Attributes:
        changes: how often a buffer has come or gone.
    """

    def __init__(self, devices: Sequence[DeviceMemory], version: Version = DEFAULT, max_buffers: int = MAX_BUFFERS) -> None:
        self._devices, self._version, self._types = devices, version, types(version)
        self._empty_anywhere = RULES["tensor.empty-anywhere"].present(version)
        self._max_buffers, self.changes = max_buffers, 0
        self._buffers: dict[int, Buffer] = {}
        # up to 2^46 lies in what every 64-bit user process has; a client may do signed arithmetic on it
        self._next_base = (2**40 + secrets.randbits(44)) // PAGE * PAGE

    def __len__(self) -> int:
        return len(self._buffers)

    @property
    def size(self) -> int:
        """Bytes of all live buffers together; may be asked for by another thread."""
        # list copies in one step; a generator over the dictionary fails when the connection's thread changes its size
        return sum(buffer.size for buffer in list(self._buffers.values()))

    def alloc(self, device: int, size: int) -> Buffer | None:
        """Return a new buffer of zero bytes, or None where the device, the list, or the made-up address space has no room."""
        if self._next_base + size > LAST_ADDRESS or len(self._buffers) >= self._max_buffers:
            return None
        allocation = self._devices[device].allocate(size)
        return None if allocation is None else self.take(device, allocation)

    def take(self, device: int, allocation: Allocation) -> Buffer:
        """Return a new buffer of bytes that are allocated."""
        size = allocation.size
        # never 0, which means "no buffer", and below 2^64
        remote_ptr = secrets.randbits(58) * 32 + 32
        while remote_ptr in self._buffers:
            remote_ptr += 32
        buffer = Buffer(remote_ptr, self._next_base if size else 0, device, allocation)
        # up to the next page, and one page more: the address just past a buffer is never the next one's first
        self._next_base += (size + 2 * PAGE - 1) // PAGE * PAGE
        self._buffers[remote_ptr] = buffer
        self.changes += 1
        return buffer

    def buffer(self, remote_ptr: int, rule: str = "buffer.known", field: str = "remote_ptr") -> Buffer:
        """Return a live buffer of this connection.

        Raises:
            Violation: the rule named, where no live buffer of this connection has the handle.
        """
        buffer = self._buffers.get(remote_ptr)
        if buffer is None:
            raise Violation(rule, field, hex(remote_ptr), "no live buffer of this connection has this handle")
        return buffer

    def find(self, remote_ptr: int, base: int, size: int) -> Buffer | None:
        """Return the live buffer that has all of these, if there is one."""
        buffer = self._buffers.get(remote_ptr)
        return buffer if buffer is not None and (buffer.base, buffer.size) == (base, size) else None

    def free(self, remote_ptr: int) -> Buffer:
        """Free a buffer's bytes, forget its handle, and return what it was.

        Raises:
            Violation: buffer.known.
        """
        buffer = self.buffer(remote_ptr)
        del self._buffers[remote_ptr]
        self.changes += 1
        buffer.allocation.free()
        return buffer

    def close(self) -> None:
        """Free every buffer: the connection is over."""
        for remote_ptr in list(self._buffers):
            self.free(remote_ptr)

    def tensor(self, wire: WireTensor, field: str = "tensor") -> Tensor:
        """Return a wire tensor bound to its buffer's allocation; without storage where it names no live buffer.

        Args:
            wire: an RpcTensor, or the part of one that matters here.
            field: what to call it in a Violation.

        Raises:
            Violation: as `bounds`.
        """
        dtype, ne, nb, buffer, offset, _ = self.bounds(wire, field)
        name = wire.name.split(b"\0")[0].decode("utf-8", "replace")
        return Tensor(dtype, ne, nb, None if buffer is None else buffer.allocation, offset, name)

    def bounds(self, wire: WireTensor, field: str = "tensor") -> Bounds:
        """Return what a wire tensor is and where it lies.

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
        buffer, size = self._buffers.get(wire.buffer), extent(dtype, ne, nb)
        if buffer is None:
            # allowed: leaves of other servers (FUN-01), INIT_TENSOR (FUN-21). Whatever touches bytes asks for the buffer itself
            return Bounds(dtype, ne, nb, None, 0, size)
        offset = buffer.offset_of(wire.data, size)
        if offset is None and size == 0 and self._empty_anywhere:
            offset = 0  # where nothing lies makes no difference
        if offset is None:
            raise Violation("tensor.in-buffer", f"{field}.data", hex(wire.data), _where(buffer, size))
        return Bounds(dtype, ne, nb, buffer, offset, size)

    # ---------------------------------------------------------------------------------------------------- a graph's tensors

    def tensors(self, records: npt.NDArray[Any]) -> Placed:
        """Return all tensors of a graph bound to their bytes: `tensor` for each, and graph.null-data, at numpy's speed.

        A record for which everything holds is bound here. Every other one, good or not, goes to `tensor`, which is the definition.

        Args:
            records: of `layout(RpcTensor, version)`, shape (n,).

        Raises:
            Violation: as `tensor`, and graph.null-data for an address without a live buffer; for the first record that breaks one.
        """
        found, which, fits, _ = self._bounds(records)
        layout = layouts(records)
        tensors: list[Tensor] = []
        templates: dict[int, Tensor] = {}
        for start in range(0, len(records), AT_ONCE):
            rows = slice(start, start + AT_ONCE)
            columns = (fits, layout, which, records["name"], records["data"])
            for index, (fit, number, at, name, data) in enumerate(zip(*(c[rows].tolist() for c in columns), strict=True), start):
                buffer = found[at]
                if not fit or buffer is None:
                    tensors.append(self.at(records[index]))
                    continue
                template = templates.get(number)
                if template is None:
                    template = templates[number] = self.at(records[index])
                text = name.split(b"\0", 1)[0].decode("utf-8", "replace")
                tensors.append(template.at(buffer.allocation, data - buffer.base, text))
        buffers = frozenset(buffer for buffer in found if buffer is not None)
        alive = np.array([buffer is not None for buffer in found], bool)
        return Placed(tensors, buffers, layout, alive[which] if len(which) else np.zeros(0, bool))

    def locate(self, records: npt.NDArray[Any]) -> Located:
        """Return where the tensors of a graph lie, as arrays; those that `tensor` would have to look at count as outside."""
        found, which, inside, sizes = self._bounds(records)
        bases = np.array([0 if buffer is None else buffer.base for buffer in found], np.uint64)
        buffers = [buffer for buffer in found if buffer is not None]
        return Located(buffers if len(buffers) == len(found) else [], which, records["data"] - bases[which], sizes, inside)

    def _bounds(self, records: npt.NDArray[Any]) -> tuple[list[Buffer | None], Any, npt.NDArray[np.bool_], npt.NDArray[np.uint64]]:
        """Return the buffers that records name, which of them each names, whether it lies inside, and its bytes."""
        # a graph has thousands of tensors and a few buffers: each handle is looked up once
        handles, which = np.unique(records["buffer"], return_inverse=True)
        found = [self._buffers.get(handle) for handle in handles.tolist()]
        sizes, fits = _extents(records, self._version)
        return found, which, fits & _inside(found, which, records["data"], sizes), sizes

    def at(self, record: Any) -> Tensor:
        """Return the tensor of one record of a graph.

        Raises:
            Violation: as `tensor`, and graph.null-data for an address without a live buffer.
        """
        ne, nb = tuple(record["ne"].tolist()), tuple(record["nb"].tolist())
        place = Place(int(record["type"]), int(record["buffer"]), ne, nb, int(record["data"]), bytes(record["name"]))
        tensor = self.tensor(place)
        if tensor.storage is None and place.data != 0:
            raise Violation(
                "graph.null-data", f"tensor {tensor.name!r}.data", hex(place.data), "it names no live buffer of this connection"
            )
        return tensor


class Located(NamedTuple):
    """Where a graph's tensors lie.

    Attributes:
        buffers: the live buffers that they name; none where not all of them live.
        which: shape (n,), indices into them.
        offsets: shape (n,), bytes from the beginning of each one's buffer.
        sizes: shape (n,), their bytes.
        inside: shape (n,), whether each lies in a live buffer and is laid out as a tensor can be.
    """

    buffers: list[Buffer]
    which: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.uint64]
    inside: npt.NDArray[np.bool_]


class Placed(NamedTuple):
    """A graph's tensors, bound to their bytes.

    Attributes:
        tensors: one for each record.
        buffers: the live buffers that they name.
        layout: shape (n,), the same number for two tensors of the same type, ne and nb; counted from 0.
        has_bytes: shape (n,), whether the tensor lies in a live buffer.
    """

    tensors: list[Tensor]
    buffers: frozenset[Buffer]
    layout: npt.NDArray[np.int64]
    has_bytes: npt.NDArray[np.bool_]


@cache
def _type_sizes(version: Version) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Return elements per block and bytes per block by type number, 0 for a number that a version does not have; the last is 0."""
    rows = types(version)
    blocks, sizes = (np.zeros(max(rows) + 2, np.uint64) for _ in range(2))
    for number, dtype in rows.items():
        blocks[number], sizes[number] = dtype.block, dtype.size
    return blocks, sizes


def _extents(records: npt.NDArray[Any], version: Version) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """Return ggml_nbytes of each record, and whether its type is known, its rows are whole blocks and the number is exact."""
    blocks, sizes = _type_sizes(version)
    number = np.minimum(records["type"], len(blocks) - 1)
    block, size = blocks[number], sizes[number]
    fits = block > 0
    block = np.maximum(block, 1)
    ne, nb = records["ne"].astype(np.uint64), records["nb"].astype(np.uint64)
    fits &= ne[:, 0] % block == 0
    # products of two 32-bit numbers are exact in 64 bits, their sum may wrap: float64 tells where it comes near
    # for ne = 0 the difference wraps; `empty` below replaces what comes of it
    steps = (ne - np.uint64(1)) * nb
    steps[:, 0] = np.where(block == 1, steps[:, 0], ne[:, 0] * nb[:, 0] // block)
    first = np.where(block == 1, size, np.uint64(0))
    empty = (ne == 0).any(axis=1)
    # 2^62 and not 2^64: far more distance than float64's rounding error; `tensor` decides what lies between, exactly
    fits &= empty | (steps.astype(np.float64).sum(axis=1) < 2.0**62)
    return np.where(empty, np.uint64(0), first + steps.sum(axis=1, dtype=np.uint64)), fits


def _inside(
    found: list[Buffer | None], which: npt.NDArray[np.intp], data: npt.NDArray[np.uint64], sizes: npt.NDArray[np.uint64]
) -> npt.NDArray[np.bool_]:
    """Return for each record whether `Buffer.offset_of` would find it inside its buffer; no sum here can wrap."""
    if not found:
        return np.zeros(len(data), bool)
    base = np.array([0 if buffer is None else buffer.base for buffer in found], np.uint64)[which]
    room = np.array([0 if buffer is None else buffer.size for buffer in found], np.uint64)[which]
    alive = np.array([buffer is not None for buffer in found], bool)[which]
    # wraps where data < base, which the next line excludes; the minimum keeps room - offset from wrapping
    offset = data - base
    inside: npt.NDArray[np.bool_] = alive & (data >= base) & (offset <= room) & (sizes <= room - np.minimum(offset, room))
    return inside


def layouts(records: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return a number for each record, the same for two of the same type, ne and nb; counted from 0."""
    keys = np.empty((len(records), 9), "<u4")
    keys[:, 0], keys[:, 1:5], keys[:, 5:] = records["type"], records["ne"], records["nb"]
    numbers: dict[bytes, int] = {}
    each = keys.view("V36").ravel()
    listed = [
        numbers.setdefault(key, len(numbers))
        for start in range(0, len(each), AT_ONCE)
        for key in each[start : start + AT_ONCE].tolist()
    ]
    return np.array(listed, np.int64)


def _quad(numbers: tuple[int, ...]) -> Quad:
    a, b, c, d = numbers
    return (int(a), int(b), int(c), int(d))


def _where(buffer: Buffer, size: int) -> str:
    return f"its {size} bytes are not all in its buffer [{buffer.base:#x}, {buffer.base + buffer.size:#x})"
