"""A ggml tensor bound to memory: the only place where ne/nb (ggml's order) and shape/strides (numpy's order) meet.

ggml writes dimensions fastest first: ``ne[0]`` is the length of a row and ``nb[0]`` the distance of its elements. numpy writes
them slowest first. So ``shape == (ne[3], ne[2], ne[1], ne[0])`` and ``strides == (nb[3], nb[2], nb[1], nb[0])``, always with
four dimensions. A block type's row is a row of blocks: its array has a fifth axis, the bytes of one block.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref import blocks
from ggml_rpc_ref.errors import Misuse, Violation
from ggml_rpc_ref.spec.dtypes import DType

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
F32Array = npt.NDArray[np.float32]
Quad = tuple[int, int, int, int]

MAX_BYTES = 2**64 - 1

NUMPY_TYPES: dict[str, str] = {
    "F32": "<f4", "F16": "<f2", "F64": "<f8", "BF16": "<u2", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8",
}  # fmt: skip
"""ggml_type to numpy dtype for the plain types. BF16 has no numpy type: it is seen as its 16 bits."""


class Storage(Protocol):
    """Bytes that a tensor can lie in: an allocation of a backend's memory, or a plain array in a test."""

    @property
    def data(self) -> Bytes | None:
        """The bytes in place, shape (size,); None where they do not lie in host memory."""


@dataclass(slots=True)
class PlainStorage:
    """Storage that is an array and nothing else."""

    data: Bytes


def contiguous_nb(dtype: DType, ne: Quad) -> Quad:
    """Return the strides in bytes, ne order, of a tensor without gaps (ggml_new_tensor in ggml.c)."""
    nb1 = dtype.size * (ne[0] // dtype.block)
    return (dtype.size, nb1, nb1 * ne[1], nb1 * ne[1] * ne[2])


def extent(dtype: DType, ne: Quad, nb: Quad) -> int:
    """Return ggml_nbytes: the number of bytes from the first to the last element, gaps included; 0 if any dimension is 0.

    It is exact, because Python's integers do not wrap, and may be larger than any memory: callers compare it with a buffer's size.
    Source: ggml_nbytes in ggml.c.
    """
    if 0 in ne:
        return 0
    # written out, because a server asks this for each tensor of each request
    (ne0, ne1, ne2, ne3), (nb0, nb1, nb2, nb3) = ne, nb
    # nb[0] is a block's size; multiplied first, as ggml_nbytes does: the two orders differ where ne[0] is not whole blocks
    row = dtype.size + (ne0 - 1) * nb0 if dtype.block == 1 else ne0 * nb0 // dtype.block
    return row + (ne1 - 1) * nb1 + (ne2 - 1) * nb2 + (ne3 - 1) * nb3


@dataclass(frozen=True)
class Tensor:
    """Type, dimensions and strides of a ggml tensor, and where its bytes lie.

    Attributes:
        dtype: the ggml_type's row.
        ne: elements per dimension, ggml's order.
        nb: bytes between neighbours per dimension, ggml's order. nb[0] is bytes per element, or per block of a block type.
        storage: the bytes it lies in; None where only the geometry is known (GET_ALLOC_SIZE, a leaf of another server).
        offset: where in the storage its first byte lies.
        name: the client's name for it; for messages and logs only.
    """

    dtype: DType
    ne: Quad
    nb: Quad
    storage: Storage | None = field(default=None, repr=False, compare=False)
    offset: int = 0
    name: str = ""

    # A cached_property needs a __dict__, so the class has no slots. A graph that is computed again asks for the same arrays each
    # time, and making one takes numpy longer than adding two rows.

    @cached_property
    def nelements(self) -> int:
        """Elements in all dimensions together."""
        return prod(self.ne)

    @property
    def nrows(self) -> int:
        """Rows, i.e. the product of ne[1], ne[2] and ne[3]."""
        return self.ne[1] * self.ne[2] * self.ne[3]

    @cached_property
    def nbytes(self) -> int:
        """Bytes from the first to the last element, gaps included (ggml_nbytes)."""
        return extent(self.dtype, self.ne, self.nb)

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie without gaps in order; strides of dimensions of length 1 don't matter."""
        want = contiguous_nb(self.dtype, self.ne)
        lengths = (self.ne[0] // self.dtype.block, *self.ne[1:])
        return all(n == 1 or have == need for n, have, need in zip(lengths, self.nb, want, strict=True))

    @property
    def rows_are_contiguous(self) -> bool:
        """Whether the elements (or blocks) of a row are neighbours: nb[0] is the size of one."""
        return self.nb[0] == self.dtype.size or self.ne[0] == self.dtype.block

    @cached_property
    def shape(self) -> Quad:
        """ne in numpy's order."""
        return (self.ne[3], self.ne[2], self.ne[1], self.ne[0])

    @cached_property
    def array(self) -> Array:
        """A writable numpy view of the bytes in place, no copy.

        Returns:
            Plain types: shape (ne3, ne2, ne1, ne0), strides (nb3, nb2, nb1, nb0); BF16 as uint16.
            Block types: uint8 of shape (ne3, ne2, ne1, ne0 / block, bytes of a block).

        Raises:
            Violation: tensor.buffer-known, where the tensor has no bytes; tensor.in-buffer, where they leave the storage.
            Misuse: where its bytes do not lie in host memory.
        """
        if self.storage is None:
            raise Violation("tensor.buffer-known", self.name or "tensor", "null", "its bytes are not on this server")
        nb0, nb1, nb2, nb3 = self.nb
        if self.dtype.block == 1:
            layout, shape, strides = NUMPY_TYPES[self.dtype.name], self.shape, (nb3, nb2, nb1, nb0)
            return self._view(np.dtype(layout), shape, strides)
        blocks_shape = (*self.shape[:3], self.ne[0] // self.dtype.block, self.dtype.size)
        return self._view(np.dtype("u1"), blocks_shape, (nb3, nb2, nb1, nb0, 1))

    def _view(self, layout: np.dtype[Any], shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
        if self.storage is None or (data := self.storage.data) is None:
            raise Misuse(f"the bytes of {self.name or 'a tensor'} do not lie in host memory")
        if 0 in shape:
            try:
                return np.empty(shape, layout)
            except ValueError as error:  # numpy counts the rows of no length, and gives up beyond 2^63 bytes
                raise Violation("graph.op-supported", self.name or "tensor", self.ne, str(error)) from error
        # numpy rejects strides beyond ssize_t even along a dimension of length 1, where no stride is ever taken
        taken = tuple(s if n > 1 else 0 for n, s in zip(shape, strides, strict=True))
        try:
            return np.ndarray(shape, layout, data, self.offset, taken)
        except (ValueError, TypeError) as error:
            raise Violation("tensor.in-buffer", self.name or "tensor", self.nbytes, str(error)) from error

    def values(self) -> F32Array:
        """Return the elements as float32, shape (ne3, ne2, ne1, ne0).

        F32 is a view in place (don't write to it); every other type is converted into a new array. Integers are converted too, so
        use `array` where I32 or I64 must stay exact.
        """
        match self.dtype.name:
            case "F32":
                return self.array
            case "F16" | "F64" | "I8" | "I16" | "I32" | "I64":
                with np.errstate(over="ignore"):
                    return self.array.astype(np.float32)
            case "BF16":
                # a BF16 is the upper half of the float32 of the same value
                return (self.array.astype(np.uint32) << 16).view(np.float32)
            case _:
                return blocks.dequantise(self.dtype, self.array)

    def store(self, values: Array) -> None:
        """Write elements in this tensor's type, rounding or quantising as upstream's from_float does.

        Args:
            values: numbers of shape (ne3, ne2, ne1, ne0), or one that broadcasts to it.
        """
        target = self.array
        if values.shape != self.shape:
            values = np.broadcast_to(values, self.shape)
        if target.size == 0:
            return
        match self.dtype.name:
            case "F32" if values.dtype == np.float32:
                target[...] = values
            case "I32" if values.dtype.kind == "f":
                target[...] = to_int32(values)
            case "F32" | "F64" | "I8" | "I16" | "I32" | "I64":
                with np.errstate(over="ignore", invalid="ignore"):
                    target[...] = values
            case "F16":
                with np.errstate(over="ignore"):
                    # through float32, as from_float takes it: for float64 values the two roundings may differ from one
                    target[...] = values.astype(np.float32, copy=False).astype(np.float16)
            case "BF16":
                bits = blocks.quantise(self.dtype, _floats(values))
                target[...] = bits.view("<u2").reshape(self.shape)
            case _:
                target[...] = blocks.quantise(self.dtype, _floats(values))

    def at(self, storage: Storage | None, offset: int, name: str = "") -> Tensor:
        """Return a tensor of the same type, ne and nb elsewhere.

        What was computed from them is copied, so that the thousands of tensors of a graph cost one computation per distinct layout.
        """
        # past __init__, which a frozen dataclass makes slow; cached properties live in the same __dict__
        tensor = object.__new__(Tensor)
        tensor.__dict__.update(self._layout, storage=storage, offset=offset, name=name)
        return tensor

    @cached_property
    def _layout(self) -> dict[str, Any]:
        names = ("dtype", "ne", "nb", "nelements", "nbytes", "shape")
        return {name: getattr(self, name) for name in names}

    def rows(self, start: int, stop: int) -> Tensor:
        """Return the part of this tensor whose ne[1] index runs from start up to, not including, stop, in place."""
        ne = (self.ne[0], stop - start, self.ne[2], self.ne[3])
        return Tensor(self.dtype, ne, self.nb, self.storage, self.offset + start * self.nb[1], self.name)


def _floats(values: Array) -> Array:
    """Return values as quantisers take them: float32, contiguous; what is beyond it becomes infinite, without a warning."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, np.float32)


def to_int32(values: Array) -> Array:
    """Return C's (int32_t) of floats; what is undefined in C is -2**31, as on x86."""
    whole = np.trunc(values)
    # chosen before the cast: numpy leaves the cast of NaN and of what does not fit undefined, and comparisons with NaN are false
    return np.where((whole >= -(2.0**31)) & (whole < 2.0**31), whole, -(2.0**31)).astype(np.int32)


def allocate(dtype: DType, ne: Quad, nb: Quad | None = None, *, fill: int = 0, guard: int = 0) -> Tensor:
    """Return a tensor in memory of its own, every byte set to fill, with guard bytes before and after.

    For tests and examples; a server's tensors lie in buffers.
    """
    nb = contiguous_nb(dtype, ne) if nb is None else nb
    data = np.full(guard + extent(dtype, ne, nb) + guard, fill, np.uint8)
    return Tensor(dtype, ne, nb, PlainStorage(data), guard)
