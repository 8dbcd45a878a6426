"""Rows of bytes at equal distances in an allocation: what SET_TENSOR_2D writes and GET_TENSOR_2D reads.

Rows of some length move in place, as a `Region` does. Short ones are gathered into pieces, or scattered from them, by numpy: a
column of a matrix is a million rows of four bytes, and a system call for each would take a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ggml_rpc_ref.backends.memory import CHUNK
from ggml_rpc_ref.server.memory import Region
from ggml_rpc_ref.tensor import Array

IN_PLACE: Final = 2**16
"""Bytes of a row from which on it is received and sent where it lies."""


class Rows(NamedTuple):
    """Rows of an allocation.

    Attributes:
        whole: the bytes from the first row's first one to the last row's last one.
        length: bytes of a row.
        rows: how many, at least 1.
        stride: bytes from the beginning of one row to that of the next; below `length` they overlap.
    """

    whole: Region
    length: int
    rows: int
    stride: int

    @property
    def size(self) -> int:
        """Bytes of all rows together, those that lie in two rows twice."""
        return self.length * self.rows

    @property
    def overlap(self) -> bool:
        """Whether bytes lie in more than one row."""
        return self.rows > 1 and self.stride < self.length

    def row(self, index: int) -> Region:
        """Return one row."""
        start = self.whole.start + index * self.stride
        return Region(self.whole.allocation, start, start + self.length)

    def receive(self) -> Iterator[memoryview]:
        """Yield where to put the next bytes until all rows are full, as `Region.receive` does."""
        if self.stride == self.length or self.rows == 1:
            yield from self.whole.receive()
        elif self.length >= IN_PLACE:
            for index in range(self.rows):
                yield from self.row(index).receive()
        else:
            yield from self._scatter()

    def _scatter(self) -> Iterator[memoryview]:
        for first, count in self._pieces():
            piece = bytearray(count * self.length)
            yield memoryview(piece)
            self._write(first, count, np.frombuffer(piece, np.uint8).reshape(count, self.length))

    def _write(self, first: int, count: int, rows: Array) -> None:
        part = self._part(first, count)
        # what lies between the rows is read and written back; only this connection writes to the buffer
        under = np.frombuffer(bytearray(part.read()), np.uint8) if part.allocation.data is None else _in_place(part)
        there = self._view(under, count)
        # of a row that overlaps the next one only the bytes before that one remain; numpy would not promise which write wins
        kept = min(self.stride, self.length)
        there[:-1, :kept], there[-1] = rows[:-1, :kept], rows[-1]
        if part.allocation.data is None:
            part.allocation.upload(part.start, under.data)
        else:
            part.allocation.written(part.start, part.stop)

    def pieces(self) -> Iterator[memoryview]:
        """Yield the bytes of the rows in order, as `Region.pieces` does."""
        if self.stride == self.length or self.rows == 1:
            yield from self.whole.pieces()
        elif self.length >= IN_PLACE:
            for index in range(self.rows):
                yield from self.row(index).pieces()
        else:
            for first, count in self._pieces():
                part = self._part(first, count)
                rows = self._view(np.frombuffer(part.read(), np.uint8), count)
                yield np.ascontiguousarray(rows).reshape(-1).data

    def read(self) -> memoryview:
        """Return the bytes of the rows in order."""
        # each copied: a piece is good until the next one is asked for, and join asks for all of them first
        return memoryview(b"".join(bytes(piece) for piece in self.pieces()))

    def _pieces(self) -> Iterator[tuple[int, int]]:
        """Yield the first row and the number of rows of each piece: neither its rows nor what lies between them is much."""
        most = max(1, CHUNK // max(self.length, self.stride))
        for first in range(0, self.rows, most):
            yield first, min(most, self.rows - first)

    def _part(self, first: int, count: int) -> Region:
        start = self.whole.start + first * self.stride
        return Region(self.whole.allocation, start, start + (count - 1) * self.stride + self.length)

    def _view(self, data: Array, count: int) -> Array:
        """Return rows as shape (count, length), in place in the bytes from the first row's first one on."""
        return as_strided(data, (count, self.length), (self.stride, 1))


def _in_place(region: Region) -> Array:
    data = region.allocation.data
    assert data is not None
    return data[region.start : region.stop]
