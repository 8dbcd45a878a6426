"""The comparison by which tests, the recorder and conformance cases decide whether a result is right.

A result has the oracle's NaN and infinities in the oracle's places; over the finite rest it lies within the op's `Tolerance`.
Results in a narrow type are rounded once at the end, and two values that differ in the last bit of a float32 may round to
neighbours there: one step of the destination's type is allowed on top wherever the tolerance allows anything at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.tensor import Array, PlainStorage, Quad, Tensor

INTEGERS = ("I8", "I16", "I32", "I64")

ONE_STEP: dict[str, tuple[float, float]] = {"F16": (2.0**-10, 2.0**-24), "BF16": (2.0**-7, 2.0**-133)}
"""Type to (relative, absolute) distance of neighbouring numbers, at most."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The worst error of a result.

    Attributes:
        kind: "class" (NaN or an infinity on one side only), "value", or "bytes".
        index: position of the worst element in ne order.
        expected: the value that should be there.
        actual: the value found.
        wrong: how many elements are out of tolerance.
        total: how many elements there are.
        nmse: mean squared error over the mean square of the expected values; 0 for "class" and "bytes".
        byte: in a block type, which byte of the block at `index` the two values are; None: they are elements.
    """

    kind: str
    index: Quad
    expected: float | int
    actual: float | int
    wrong: int
    total: int
    nmse: float = 0.0
    byte: int | None = None

    def __str__(self) -> str:
        """Return the mismatch as one sentence."""
        where = ",".join(str(i) for i in self.index)
        if self.byte is not None:
            values = f"0x{int(self.actual):02x} instead of 0x{int(self.expected):02x}"
            return f"byte {self.byte} of block [{where}]: {values}; {self.wrong} of {self.total} blocks wrong"
        tail = f", nmse {self.nmse:.3g}" if self.kind == "value" else ""
        return f"{self.kind} at [{where}]: {self.actual!r} instead of {self.expected!r}; {self.wrong} of {self.total} wrong{tail}"


def compare(expected: Array, actual: Array, tolerance: Tolerance) -> Mismatch | None:
    """Return the worst mismatch of two arrays of the same shape and dtype (numpy's order, four dimensions), or None.

    Floats are compared under the tolerance; integers, and everything under a tolerance of zeros, must be the same numbers, where
    -0.0 differs from 0.0 and any NaN equals any NaN: the bits of a NaN depend on the processor.
    """
    if expected.size == 0:
        return None
    if expected.dtype.kind in "iu" or not (tolerance.rtol or tolerance.atol or tolerance.nmse):
        return _identical(expected, actual)
    finite = np.isfinite(expected) & np.isfinite(actual)
    same_class = finite | (np.isnan(expected) & np.isnan(actual)) | (expected == actual)
    if not same_class.all():
        return _mismatch("class", ~same_class, ~same_class, expected, actual)
    wanted, found = np.where(finite, expected, 0).astype(np.float64), np.where(finite, actual, 0).astype(np.float64)
    excess = np.abs(found - wanted) - (tolerance.atol + tolerance.rtol * np.abs(wanted))
    if not (excess > 0).any():
        return None
    nmse = normalised_error(wanted, found)
    return _mismatch("value", excess > 0, excess, expected, actual, nmse) if nmse > tolerance.nmse else None


def outlier(expected: Tensor, actual: Tensor, bound: float) -> Mismatch | None:
    """Return the worst mismatch of two tensors of the same geometry where an element is off by more than `bound`, or None.

    For results that a mean over all elements judges, in which one wrong element hides; NaN and infinities are not looked at.
    """
    wanted, found = (np.asarray(tensor.values(), np.float64) for tensor in (expected, actual))
    finite = np.isfinite(wanted) & np.isfinite(found)
    error = np.where(finite, np.abs(np.where(finite, found, 0) - np.where(finite, wanted, 0)), 0)
    if not (error > bound).any():
        return None
    return _mismatch("value", error > bound, error, wanted, found, normalised_error(wanted[finite], found[finite]))


def normalised_error(wanted: Array, found: Array) -> float:
    """Return the mean squared error over the mean square of the wanted values (over 1 where these are all zero)."""
    # scaled first: the square of a large float64 would overflow, that of a tiny one vanish
    scale = float(np.max(np.abs(wanted), initial=0.0)) or 1.0
    power = float(np.mean(np.square(wanted / scale))) or 1.0
    return float(np.mean(np.square((found - wanted) / scale))) / power


def _identical(expected: Array, actual: Array) -> Mismatch | None:
    same = expected == actual
    if expected.dtype.kind == "f":
        # == holds 0.0 and -0.0 for equal; a NaN of either sign is accepted by the next line
        same &= np.signbit(expected) == np.signbit(actual)
        same |= np.isnan(expected) & np.isnan(actual)
    return None if same.all() else _mismatch("bytes", ~same, ~same, expected, actual)


def _mismatch(kind: str, wrong: Array, badness: Array, expected: Array, actual: Array, nmse: float = 0.0) -> Mismatch:
    worst = np.unravel_index(int(np.argmax(badness)), badness.shape)
    i3, i2, i1, i0 = (int(i) for i in worst)
    return Mismatch(kind, (i0, i1, i2, i3), expected[worst].item(), actual[worst].item(), int(wrong.sum()), wrong.size, nmse)


def compare_tensors(expected: Tensor, actual: Tensor, tolerance: Tolerance) -> Mismatch | None:
    """Return the worst mismatch of two tensors of the same geometry, or None.

    Integers are compared as integers; a quantised tensor byte by byte under a tolerance of zeros, otherwise by its values.
    """
    name = expected.dtype.name
    exact = not (tolerance.rtol or tolerance.atol or tolerance.nmse)
    if name in INTEGERS or name == "F64":
        return compare(expected.array, actual.array, tolerance)
    if exact and expected.dtype.is_quantised:
        return _compare_blocks(expected.array, actual.array)
    if not exact and name in ONE_STEP:
        rtol, atol = ONE_STEP[name]
        tolerance = Tolerance(tolerance.rtol + rtol, tolerance.atol + atol, tolerance.nmse, tolerance.reason)
    return compare(expected.values(), actual.values(), tolerance)


def _compare_blocks(expected: Array, actual: Array) -> Mismatch | None:
    """Compare blocks byte by byte; the index is that of the block, and the values are the bytes that differ first."""
    different = (expected != actual).any(axis=-1)
    if not different.any():
        return None
    where = tuple(int(i) for i in np.argwhere(different)[0])
    byte = int(np.flatnonzero(expected[where] != actual[where])[0])
    i3, i2, i1, i0 = where
    count = int(different.sum())
    values = int(expected[where][byte]), int(actual[where][byte])
    return Mismatch("bytes", (i0, i1, i2, i3), *values, count, different.size, byte=byte)


def worst_error(expected: Tensor, actual: Tensor) -> float:
    """Return the largest |actual - expected| / max(1, |expected|) over the elements; infinity where NaN or infinities differ."""
    wanted, found = (np.asarray(t.values(), np.float64) for t in (expected, actual))
    # equal infinities are compared here: their difference is NaN
    same = (np.isnan(wanted) & np.isnan(found)) | (wanted == found)
    with np.errstate(invalid="ignore"):
        error = np.abs(found - wanted) / np.maximum(1.0, np.abs(wanted))
    error = np.where(same, 0.0, np.where(np.isfinite(error), error, np.inf))
    return float(np.max(error, initial=0.0))


def element_bytes(tensor: Tensor) -> Array:
    """Return a boolean per byte of a tensor's storage: whether it belongs to an element. Bytes that are False must not change."""
    assert tensor.storage is not None
    assert tensor.storage.data is not None
    owned = np.zeros(len(tensor.storage.data), np.uint8)
    view = Tensor(tensor.dtype, tensor.ne, tensor.nb, PlainStorage(owned), tensor.offset).array
    if tensor.dtype.block == 1 and view.size:
        # every byte of the element by itself: a 1 assigned to an element of several bytes would not set them all
        view = np.ndarray((*view.shape, view.itemsize), np.uint8, owned, tensor.offset, (*view.strides, 1))
    view[...] = 1
    return owned.astype(bool)
