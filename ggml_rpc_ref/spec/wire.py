"""The wire types, a closed set: readers of the table are functions that match on them and end in `assert_never`.

Everything on the wire is little-endian and packed: no gaps, no alignment (`#pragma pack(1)` in ggml-rpc.cpp).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Int:
    """An integer of 1, 4 or 8 bytes."""

    width: int
    signed: bool = False


@dataclass(frozen=True, slots=True)
class Chars:
    """A fixed number of raw bytes."""

    length: int


@dataclass(frozen=True, slots=True)
class Record:
    """Another record of the table, inline."""

    cls: type


@dataclass(frozen=True, slots=True)
class Array:
    """A fixed number of elements of one type."""

    of: Int | Record
    length: int


@dataclass(frozen=True, slots=True)
class Counted:
    """A u32 count, then that many elements of one type."""

    of: Int | Record


@dataclass(frozen=True, slots=True)
class Tail:
    """Raw bytes up to the end of the message; allowed only as the last field."""


Wire = Int | Chars | Record | Array | Counted | Tail

U8 = Int(1)
U32 = Int(4)
U64 = Int(8)
I32 = Int(4, signed=True)
