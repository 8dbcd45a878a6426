"""What the two sides of a connection sent, joined from the pieces that an input has."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ggml_rpc_ref.decode.model import Fault
from ggml_rpc_ref.files.recording import LeftOut
from ggml_rpc_ref.protocol.connection import Role

SMALL: Final = 2**16
"""Pieces of up to this many bytes are copied together with their neighbours; larger ones are kept as views."""


class Lost(NamedTuple):
    """Why a stream ends here although more bytes passed: a clause, and the id of the rule that the file breaks."""

    problem: str
    rule: str

    @classmethod
    def because(cls, fault: Fault) -> Lost:
        """Return the damage of the file as the reason."""
        return cls(f"the file's {fault.field} at offset {fault.offset} {fault.problem}", fault.rule)


@dataclass(frozen=True, slots=True)
class Mark:
    """The bytes from this offset on came as piece number `order` of the input, at `time_ns`."""

    offset: int
    order: int
    time_ns: int | None


@dataclass(frozen=True, slots=True)
class Missing:
    """Bytes that passed and that the input does not have, though what came after them is there."""

    size: int


class Stream:
    """The bytes of one direction. Offsets also count the stretches that a recording left out, or a capture lacks."""

    def __init__(self) -> None:
        self.end = 0
        """How many bytes passed."""
        self.lost: Lost | None = None
        """Why the stream ends at `end` although more bytes passed; None where no more did."""
        self.unended: Lost | None = None
        """Why a message that the stream ends in is the file's fault; None where its sender broke it off or nobody can tell."""
        self._starts: list[int] = []
        self._parts: list[bytearray | memoryview | LeftOut | Missing] = []
        self._marks: list[Mark] = []

    @classmethod
    def of(cls, data: bytes | memoryview) -> Stream:
        """Return a stream of one piece."""
        stream = cls()
        stream.append(data, 0)
        return stream

    def append(self, piece: bytes | memoryview | LeftOut | Missing, order: int, time_ns: int | None = None) -> None:
        """Append the next piece."""
        size = piece.size if isinstance(piece, LeftOut | Missing) else len(piece)
        self._marks.append(Mark(self.end, order, time_ns))
        last = self._parts[-1] if self._parts else None
        if isinstance(piece, Missing) and isinstance(last, Missing):
            self._parts[-1] = Missing(last.size + piece.size)
        elif isinstance(piece, LeftOut | Missing):
            self._put(piece)
        elif size > SMALL:
            self._put(memoryview(piece).toreadonly())
        elif isinstance(last, bytearray):
            last += piece
        else:
            self._put(bytearray(piece))
        self.end += size

    def _put(self, part: bytearray | memoryview | LeftOut | Missing) -> None:
        self._starts.append(self.end)
        self._parts.append(part)

    def view(self, at: int, size: int) -> memoryview:
        """Return the bytes from an offset on: `size` of them, or fewer where the stream ends or bytes are not there."""
        pieces: list[memoryview] = []
        index = max(bisect_right(self._starts, at) - 1, 0)
        while size > 0 and index < len(self._parts):
            part, skip = self._parts[index], at - self._starts[index]
            if isinstance(part, LeftOut | Missing):
                break
            piece = memoryview(part).toreadonly()[skip : skip + size]
            pieces.append(piece)
            at, size, index = at + len(piece), size - len(piece), index + 1
        return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))

    def count(self, at: int, size: int) -> int:
        """Return how many bytes `view` would return, without reading them."""
        index = max(bisect_right(self._starts, at) - 1, 0)
        rest = range(index, len(self._parts))
        stop = next(
            (self._starts[n] for n in rest if isinstance(self._parts[n], LeftOut | Missing) or self._starts[n] >= at + size),
            self.end,
        )
        return max(0, min(size, stop - at))

    def left_out(self, at: int) -> LeftOut | None:
        """Return the stretch that was left out and begins at exactly this offset."""
        index = bisect_right(self._starts, at) - 1
        part = self._parts[index] if index >= 0 and self._starts[index] == at else None
        return part if isinstance(part, LeftOut) else None

    def gap(self, at: int) -> int:
        """Return how many bytes are missing from an offset on, until the next one that is there; 0 where that one is."""
        index = bisect_right(self._starts, at) - 1
        part = self._parts[index] if index >= 0 else None
        return self._starts[index] + part.size - at if isinstance(part, Missing) else 0

    def lacks(self, at: int, end: int) -> int:
        """Return how many of the bytes from one offset to another are missing."""
        first, last = max(bisect_right(self._starts, at) - 1, 0), bisect_left(self._starts, end)
        rows = zip(self._starts[first:last], self._parts[first:last], strict=True)
        return sum(min(end, start + part.size) - max(at, start) for start, part in rows if isinstance(part, Missing))

    def starts_after(self, at: int) -> Iterator[int]:
        """Return the offsets from `at` on at which a piece of the input begins."""
        first = bisect_left(self._marks, at, key=lambda mark: mark.offset)
        return (self._marks[index].offset for index in range(first, len(self._marks)))

    def mark(self, at: int) -> Mark:
        """Return when the byte at an offset came."""
        return self._marks[bisect_right(self._marks, at, key=lambda mark: mark.offset) - 1]


@dataclass(slots=True)
class Conversation:
    """Both sides of a connection, as much of them as the input has.

    Attributes:
        number: the connection's number in the input.
        sides: what each side sent; a side that the input does not have has no entry.
        whole: whether the streams begin where the connection began, so that HELLO must come first.
        label: name of the connection for messages to people; "" where the input has only one.
    """

    number: int = 0
    sides: dict[Role, Stream] = field(default_factory=dict)
    whole: bool = False
    label: str = ""

    def where(self, sender: Role) -> str:
        """Return connection and side for messages to people; "" where the input has only one stream."""
        return f"{self.label}, {sender.value}'s bytes" if self.label else ""
