"""What the two sides of a connection sent, put together from whatever pieces an input holds."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ggml_rpc_ref.decode.model import Fault
from ggml_rpc_ref.files.recording import LeftOut
from ggml_rpc_ref.protocol.connection import Role

SMALL: Final = 2**16
"""Bytes of a piece that is copied together with its neighbours; larger ones are looked at where they lie."""


class Lost(NamedTuple):
    """Why a stream ends here although more passed: half a sentence, and the id of the file's rule."""

    problem: str
    rule: str

    @classmethod
    def because(cls, fault: Fault) -> Lost:
        """Return that the file around the stream is damaged."""
        return cls(f"the file's {fault.field} at offset {fault.offset} {fault.problem}", fault.rule)


@dataclass(frozen=True, slots=True)
class Mark:
    """From this offset on, bytes came as the input's piece `order`, at `time_ns`."""

    offset: int
    order: int
    time_ns: int | None


class Stream:
    """The bytes of one direction, with stretches that a recording left out; offsets count those too."""

    def __init__(self) -> None:
        self.end = 0
        """Bytes that passed."""
        self.lost: Lost | None = None
        """Why the stream ends at `end` although more passed; None where it doesn't."""
        self._starts: list[int] = []
        self._parts: list[bytearray | memoryview | LeftOut] = []
        self._marks: list[Mark] = []

    @classmethod
    def of(cls, data: bytes | memoryview) -> Stream:
        """Return a stream of these bytes in one piece."""
        stream = cls()
        stream.append(data, 0)
        return stream

    def append(self, piece: bytes | memoryview | LeftOut, order: int, time_ns: int | None = None) -> None:
        """Add what came next."""
        size = piece.size if isinstance(piece, LeftOut) else len(piece)
        self._marks.append(Mark(self.end, order, time_ns))
        last = self._parts[-1] if self._parts else None
        if isinstance(piece, LeftOut) or size > SMALL:
            self._put(memoryview(piece).toreadonly() if not isinstance(piece, LeftOut) else piece)
        elif isinstance(last, bytearray):
            last += piece
        else:
            self._put(bytearray(piece))
        self.end += size

    def _put(self, part: bytearray | memoryview | LeftOut) -> None:
        self._starts.append(self.end)
        self._parts.append(part)

    def view(self, at: int, size: int) -> memoryview:
        """Return the bytes from an offset on: `size` of them, or fewer where the stream ends or something was left out."""
        pieces: list[memoryview] = []
        index = max(bisect_right(self._starts, at) - 1, 0)
        while size > 0 and index < len(self._parts):
            part, skip = self._parts[index], at - self._starts[index]
            if isinstance(part, LeftOut):
                break
            piece = memoryview(part).toreadonly()[skip : skip + size]
            pieces.append(piece)
            at, size, index = at + len(piece), size - len(piece), index + 1
        return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))

    def count(self, at: int, size: int) -> int:
        """Return how many bytes `view` would return, without looking at them."""
        index = max(bisect_right(self._starts, at) - 1, 0)
        rest = range(index, len(self._parts))
        stop = next(
            (self._starts[n] for n in rest if isinstance(self._parts[n], LeftOut) or self._starts[n] >= at + size), self.end
        )
        return max(0, min(size, stop - at))

    def left_out(self, at: int) -> LeftOut | None:
        """Return what was left out from exactly this offset on."""
        index = bisect_right(self._starts, at) - 1
        part = self._parts[index] if index >= 0 and self._starts[index] == at else None
        return part if isinstance(part, LeftOut) else None

    def mark(self, at: int) -> Mark:
        """Return when the byte at an offset came."""
        return self._marks[bisect_right(self._marks, at, key=lambda mark: mark.offset) - 1]


@dataclass(slots=True)
class Conversation:
    """Both sides of a connection, as far as the input has them.

    Attributes:
        number: the connection's number in the input.
        sides: what each sent; a side that the input does not have is missing.
        whole: whether the streams begin where the connection began, so that HELLO must come first.
        label: which connection this is, for messages; "" where there is one only.
    """

    number: int = 0
    sides: dict[Role, Stream] = field(default_factory=dict)
    whole: bool = False
    label: str = ""

    def where(self, sender: Role) -> str:
        """Name connection and side, for messages; "" where the input has one stream only."""
        return f"{self.label}, {sender.value}'s bytes" if self.label else ""
