"""What the two sides of a connection sent, put together from whatever pieces an input holds."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from ggml_rpc_ref.connection import Role
from ggml_rpc_ref.recording import LeftOut


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
        self.lost = ""
        """Why the stream ends at `end` although more passed; "" where it doesn't."""
        self._starts: list[int] = []
        self._parts: list[bytearray | LeftOut] = []
        self._marks: list[Mark] = []

    @classmethod
    def of(cls, data: bytes) -> Stream:
        """Return a stream of these bytes in one piece."""
        stream = cls()
        stream.append(data, 0)
        return stream

    def append(self, piece: bytes | memoryview | LeftOut, order: int, time_ns: int | None = None) -> None:
        """Add what came next."""
        size = piece.size if isinstance(piece, LeftOut) else len(piece)
        self._marks.append(Mark(self.end, order, time_ns))
        last = self._parts[-1] if self._parts else None
        if isinstance(last, bytearray) and not isinstance(piece, LeftOut):
            last += piece
        else:
            self._starts.append(self.end)
            self._parts.append(piece if isinstance(piece, LeftOut) else bytearray(piece))
        self.end += size

    def view(self, at: int, size: int) -> memoryview:
        """Return the bytes from an offset on: `size` of them, or fewer where the stream ends or something was left out."""
        index = bisect_right(self._starts, at) - 1
        part = self._parts[index] if index >= 0 else b""
        if isinstance(part, LeftOut):
            return memoryview(b"")
        first = at - self._starts[index] if index >= 0 else 0
        return memoryview(part).toreadonly()[first : first + size]

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
