"""Recordings of conversations: a file with every byte that passed, its time, direction and connection.

    ggml-rpc recording 1\\n                        the magic line
    {"schema_version": 1, "protocol": ...}\\n      one line of JSON: the header
    <QBIQ> bytes  <QBIQ> bytes  ...               chunks, in the order in which they were taken

A chunk is a head of 21 bytes, packed and little-endian, and its payload. The head: nanoseconds since the start (u64), direction
(u8), number of the connection (u32, from 1), bytes of payload (u64). Bit 0 of the direction is 0 from client to server, 1 from
server to client.

- A chunk of no bytes: this side has ended its sending.
- Bit 1 of the direction (value 2) marks data that were left out: the payload is 16 bytes, `<QQ`: how many bytes passed, and their
  FNV-1a 64 hash. Only the data of a message (of SET_TENSOR, of GET_TENSOR's reply) are left out, and only as a whole; the fields
  before them and every other byte of the conversation are kept.

Chunk boundaries have no meaning: a chunk is what the recorder happened to receive at once.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from enum import IntEnum
from io import BufferedReader
from pathlib import Path
from typing import Any, Final, Self

from ggml_rpc_ref.errors import NOT_OF_ITS_FORM, Damaged, Misuse
from ggml_rpc_ref.protocol.fnv import Fnv1a
from ggml_rpc_ref.spec.versions import DEFAULT

MAGIC: Final = b"ggml-rpc recording 1\n"
"""The first line of every recording."""
CHUNK_HEAD: Final = struct.Struct("<QBIQ")
"""Nanoseconds since the start, direction, connection, bytes of payload."""
LEFT_OUT_BODY: Final = struct.Struct("<QQ")
"""Bytes left out, and their hash."""
LONGEST_HEADER: Final = 2**16
"""Bytes of the longest header line that is read."""
MOST_COPIED: Final = 2**16
"""Chunks of up to this many bytes are copied into memory; longer ones are views of the mapped file."""
_LEFT_OUT: Final = 2

Readable = bytes | bytearray | memoryview


class Direction(IntEnum):
    """Which way bytes went."""

    TO_SERVER = 0
    TO_CLIENT = 1


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a recording.

    Attributes:
        schema_version: 1; it will be raised when an older reader can't read the file any more.
        protocol: the version that the recorder followed, e.g. "3.6.1".
        endpoint: the server, as HOST:PORT.
        started: start time, as ISO 8601 in UTC; the times of chunks count from here.
        tool: the program that wrote the file.
    """

    schema_version: int
    protocol: str
    endpoint: str
    started: str
    tool: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Data that passed but are not in the file: `size` bytes with the FNV-1a 64 hash `fnv1a`."""

    size: int
    fnv1a: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes that passed.

    Attributes:
        time_ns: nanoseconds since the start.
        direction: which way.
        connection: number of the connection, from 1.
        data: the bytes, a view of the file where they are many; empty where the side ended its sending, or data were left out.
        left_out: the data that were left out, or None.
    """

    time_ns: int
    direction: Direction
    connection: int
    data: bytes | memoryview
    left_out: LeftOut | None = None

    @property
    def size(self) -> int:
        """How many bytes passed."""
        return len(self.data) if self.left_out is None else self.left_out.size


# -------------------------------------------------------------------------------------------------------------- writing


class Recorder:
    """Writes a recording; may be used by several threads, one at a time for each direction of a connection.

    Args:
        path: the file; an existing one is replaced.
        endpoint: the server, as HOST:PORT.
        tool: the program that records.
        protocol: the version that is expected.
        leave_out_over: data of more bytes than this are replaced by their length and hash (a chunk whose direction has bit 1
            set); None: every byte is kept. The caller announces with `begin_data` where data begin.

    Each chunk is one write to the file, so what passed before a crash is in it.

    Raises:
        Misuse: where the file can't be opened or takes nothing.
    """

    def __init__(
        self,
        path: Path,
        *,
        endpoint: str = "",
        tool: str = "ggml-rpc-ref",
        protocol: str = str(DEFAULT),
        leave_out_over: int | None = None,
    ) -> None:
        self.leave_out_over = leave_out_over
        self._skipped: dict[tuple[int, int], _Skipped] = {}
        self._lock = threading.Lock()
        header = Header(1, protocol, endpoint, datetime.now(UTC).isoformat(timespec="milliseconds"), tool)
        try:
            # a descriptor, not a file object: what a buffer holds would be lost in a crash, and each chunk is to be one write
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        except OSError as error:
            raise Misuse(f"can't write the recording {path}: {error.strerror}") from None
        self._start, self._now = time.monotonic_ns(), 0
        try:
            self._put(MAGIC, json.dumps(asdict(header)).encode() + b"\n")
        except OSError as error:  # the disk is full
            self.close()
            raise Misuse(f"can't write the recording {path}: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, direction: Direction, connection: int, data: Readable, time_ns: int | None = None) -> None:
        """Append bytes that passed, at a time of `time.monotonic_ns` or now; for no bytes append nothing.

        Raises:
            OSError: where the file takes no more; the recording is readable up to there.
        """
        view = memoryview(data)
        key = (connection, int(direction))
        skipped = self._skipped.get(key)
        if skipped is not None:
            view = view[skipped.take(view) :]
            if skipped.left == 0:
                self._write_skipped(direction, connection, time_ns)
        if len(view):
            self._chunk(int(direction), connection, view, time_ns)

    def begin_data(self, direction: Direction, connection: int, size: int) -> None:
        """Announce that the next `size` bytes of this direction are data, which may be left out."""
        if self.leave_out_over is not None and size > self.leave_out_over:
            self._skipped[connection, int(direction)] = _Skipped(size)

    def end(self, direction: Direction, connection: int, time_ns: int | None = None) -> None:
        """Append that this side has ended its sending, at a time of `time.monotonic_ns` or now."""
        # data cut off by the end: what came of them stands in the file before it
        if (connection, int(direction)) in self._skipped:
            self._write_skipped(direction, connection, time_ns)
        self._chunk(int(direction), connection, memoryview(b""), time_ns)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
            self._file = -1

    def _write_skipped(self, direction: Direction, connection: int, time_ns: int | None) -> None:
        skipped = self._skipped.pop((connection, int(direction)))
        body = LEFT_OUT_BODY.pack(skipped.count, skipped.hash.value)
        self._chunk(int(direction) | _LEFT_OUT, connection, memoryview(body), time_ns)

    def _chunk(self, direction: int, connection: int, view: memoryview, time_ns: int | None) -> None:
        with self._lock:
            # closed while a connection is still forwarded: what passes from then on is not recorded
            if self._file >= 0:
                # two threads may get here in another order than they took their times; times in the file never decrease
                self._now = max(self._now, (time_ns or time.monotonic_ns()) - self._start)
                self._put(CHUNK_HEAD.pack(self._now, direction, connection, len(view)), view)

    def _put(self, head: bytes, body: Readable) -> None:
        parts = [memoryview(head), memoryview(body)]
        while parts:
            written = os.writev(self._file, parts)
            # writev may take a part of what it is given; >=, so that a body of no bytes goes with its head
            while parts and written >= len(parts[0]):
                written -= len(parts.pop(0))
            if parts:
                parts[0] = parts[0][written:]


class _Skipped:
    """Data that are being left out: how many bytes are still to come, and the hash of those that came."""

    def __init__(self, size: int) -> None:
        self.left, self.count, self.hash = size, 0, Fnv1a()

    def take(self, view: memoryview) -> int:
        """Hash the bytes that belong to the data; return how many those were."""
        count = min(self.left, len(view))
        self.hash.update(view[:count])
        self.left -= count
        self.count += count
        return count


# -------------------------------------------------------------------------------------------------------------- reading


def is_recording(start: bytes) -> bool:
    """Whether a file that begins with these bytes is a recording."""
    return start.startswith(MAGIC)


def read_header(path: Path) -> Header:
    """Return the header of a recording.

    Raises:
        Damaged: for a file that is not a recording.
        Misuse: for a file that can't be read.
    """
    with _open(path) as file:
        return _header(file, path)


def read(path: Path) -> Iterator[Chunk]:
    """Yield every whole chunk of a recording, in the order of the file.

    Raises:
        Damaged: for a file that is not a recording; after the last whole chunk where the file breaks off or is damaged, with the
            offset of the damage and the rule.
        Misuse: for a file that can't be read.
    """
    with _open(path) as file:
        _header(file, path)
        at = file.tell()
        # mmap refuses an empty file, but this one has a header; it keeps a descriptor of its own when `file` is closed
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))  # unmapped with the last view of it
    while at < len(view):
        chunk, end = _chunk(view, path, at)
        yield chunk
        at = end


def _chunk(view: memoryview, path: Path, at: int) -> tuple[Chunk, int]:
    """Return the chunk that begins at an offset, and where the next one does."""
    start = at + CHUNK_HEAD.size
    if start > len(view):
        there = f"breaks off: {len(view) - at} of the {CHUNK_HEAD.size} bytes that begin it"
        raise Damaged(path, at, "chunk", there, "recording.chunk-head")
    time_ns, direction, connection, length = CHUNK_HEAD.unpack_from(view, at)
    if direction > (Direction.TO_CLIENT | _LEFT_OUT):
        raise Damaged(path, at + 8, "direction", f"is {direction}; 0 to 3 are possible", "recording.direction")
    if direction & _LEFT_OUT and length != LEFT_OUT_BODY.size:
        problem = f"is {length}; what stands for data left out has {LEFT_OUT_BODY.size} bytes"
        raise Damaged(path, at + 13, "length", problem, "recording.left-out")
    end = start + length
    if end > len(view):
        there = f"breaks off: {length} bytes, of which {len(view) - start} are there"
        raise Damaged(path, at, "chunk", there, "recording.chunk-whole")
    if direction & _LEFT_OUT:
        left_out = LeftOut(*LEFT_OUT_BODY.unpack_from(view, start))
        return Chunk(time_ns, Direction(direction & 1), connection, b"", left_out), end
    data = view[start:end] if length > MOST_COPIED else bytes(view[start:end])
    return Chunk(time_ns, Direction(direction), connection, data), end


def _open(path: Path) -> BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise Misuse(f"can't read {path}: {error.strerror}") from None


def _header(file: BufferedReader, path: Path) -> Header:
    if file.readline(len(MAGIC)) != MAGIC:
        raise Damaged(path, 0, "first line", f"is not {MAGIC.decode().strip()!r}", "recording.magic")
    line = file.readline(LONGEST_HEADER)
    try:
        found: Any = json.loads(line) if line.endswith(b"\n") else None
        header = Header(**{row.name: found[row.name] for row in fields(Header)})
    # TypeError: no line end within the limit, or JSON that is not an object
    except NOT_OF_ITS_FORM:
        problem = "is not the JSON object that says what the recording is"
        raise Damaged(path, len(MAGIC), "second line", problem, "recording.header") from None
    if header.schema_version != 1:
        problem = f"is {header.schema_version!r}; this program reads version 1"
        raise Damaged(path, len(MAGIC), "schema_version", problem, "recording.header")
    return header
