"""Copies in host memory of tensors that lie elsewhere, so that the oracle can compute a node on the same bytes.

Tensors that overlap (views, results in place) share a copy, as they share memory on the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

import numpy as np

from ggml_rpc_ref.backends.memory import Allocation
from ggml_rpc_ref.tensor import Bytes, PlainStorage, Tensor


@dataclass(slots=True)
class _Range:
    """Bytes from start to stop of an allocation, and their copy once it is made."""

    allocation: Allocation
    start: int
    stop: int
    copy: PlainStorage | None = None


class Stage:
    """Copies of the bytes of some tensors.

    Args:
        tensors: each bound to an `Allocation`.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        # by id only to bring those of one storage together: storages have no order of their own
        ordered = sorted(tensors, key=lambda tensor: (id(tensor.storage), tensor.offset))
        self._ranges = [r for _, group in groupby(ordered, key=lambda tensor: id(tensor.storage)) for r in _merged(group)]

    @property
    def nbytes(self) -> int:
        """Bytes that the copies take, the gaps between elements included."""
        return sum(part.stop - part.start for part in self._ranges)

    def download(self) -> None:
        """Make the copies."""
        for part in self._ranges:
            part.copy = PlainStorage(_own(part.allocation.download(part.start, part.stop), part.allocation))

    def moved(self, tensor: Tensor) -> Tensor:
        """Return a tensor's counterpart in the copies."""
        part = self._range_of(tensor)
        return tensor.at(part.copy, tensor.offset - part.start, tensor.name)

    def upload(self, tensor: Tensor) -> None:
        """Write a tensor's bytes back."""
        part = self._range_of(tensor)
        start = tensor.offset - part.start
        if part.copy is not None:
            part.allocation.upload(tensor.offset, part.copy.data.data[start : start + tensor.nbytes])

    def _range_of(self, tensor: Tensor) -> _Range:
        found = (r for r in self._ranges if cast(Any, r.allocation) is tensor.storage and r.start <= tensor.offset)
        return next(r for r in found if tensor.offset + tensor.nbytes <= r.stop)


def _own(data: memoryview, allocation: Allocation) -> Bytes:
    """Return bytes that may be written: what host memory shows in place is copied, a copy is not copied again."""
    bytes_ = np.frombuffer(data, np.uint8)
    return bytes_ if allocation.data is None and bytes_.flags.writeable else bytes_.copy()


def _merged(tensors: Iterable[Tensor]) -> Iterator[_Range]:
    """Yield the ranges that tensors of one allocation, sorted by offset, cover; those that overlap or touch are one."""
    current: _Range | None = None
    for tensor in tensors:
        end = tensor.offset + tensor.nbytes
        if current is not None and tensor.offset <= current.stop:
            current.stop = max(current.stop, end)
            continue
        if current is not None:
            yield current
        current = _Range(cast(Allocation, tensor.storage), tensor.offset, end)
    if current is not None:
        yield current
