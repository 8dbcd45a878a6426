"""Reproducers: what was sent when a fault was found, as a file that `replay` plays and as a script that needs Python only.

    made = reproducer.make(record, id="data.copy/onto-itself", about="…")   # record: of `TranscriptPiece`
    print(made.as_json())
    print(reproducer.as_python(made))
    outcome = reproducer.replay(made, Endpoint("127.0.0.1", 50052), timeout=5.0)

Pointers, which every server chooses anew, become names: what a reply to ALLOC_BUFFER or BUFFER_GET_BASE brings, and what is later
sent that equals a handle or lies in the range of a buffer. A file has the form of a vector's conversation (`files.conversation`)
with two things more: "finish", the end of our sending, and "got", what the server did.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from ggml_rpc_ref.errors import NOT_OF_ITS_FORM, Misuse
from ggml_rpc_ref.files.conversation import Exactly, Named, Piece, Repeated, expand, piece_as_json, piece_from_json, size_of
from ggml_rpc_ref.net.stream import DeadlineMissed, Endpoint, PeerClosed, Stream, open_stream
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.messages import REQUESTS, BufferGetBase, Hello, by_number, fields
from ggml_rpc_ref.spec.versions import DEFAULT, Version
from ggml_rpc_ref.spec.wire import Array, Counted, Int, Record

FORM: Final = "ggml-rpc-ref reproducer"
"""What a file says of itself."""
MARGIN: Final = 65536
"""Bytes on both sides of a buffer within which a number is taken for an address near it."""
SMALLEST: Final = 2**20
"""Below this a number is taken for a handle or an address only where a message has one."""
MOST: Final = 2**22
"""Bytes of pieces above which no reproducer is made: it would be a file of megabytes."""
BLOCK: Final = 4096
"""Bytes that are looked for again and again, so that data of one pattern stay short."""
ALLOC, BASE = "ALLOC_BUFFER", "BUFFER_GET_BASE"


@dataclass(frozen=True, slots=True)
class Move:
    """One step.

    Attributes:
        connection: its number, from 1.
        act: "send"; "finish": no more will be sent; "reset"; "got": what the server sent, did, or failed to do.
        pieces: of "send" and "got".
        command: of "send": the messages; of "got": whose reply it begins.
        end: of "got": "end" where the server ended the connection, "nothing" where nothing more came in time.
    """

    connection: int
    act: str
    pieces: tuple[Piece, ...] = ()
    command: str = ""
    end: str = ""


@dataclass(frozen=True, slots=True)
class Reproducer:
    """A conversation in which a server showed a fault.

    Attributes:
        id: the case's.
        about: what is sent, what must happen and what happened.
        moves: in order.
        deadly: whether the server answered no new connection afterwards.
        hello: the bytes of a HELLO that the server answers.
    """

    id: str
    about: str
    moves: tuple[Move, ...]
    deadly: bool = False
    hello: bytes = b"\x0e" + bytes(8)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        head = {"form": FORM, "id": self.id, "about": self.about, "deadly": self.deadly, "hello": self.hello.hex()}
        return {**head, "steps": list(map(_move_as_json, self.moves))}

    def text(self) -> str:
        """Return the text of a file."""
        return json.dumps(self.as_json(), indent=1) + "\n"


# ---------------------------------------------------------------------------------------------------------------- making


@dataclass(slots=True)
class _Names:
    """The numbers that the server has chosen so far, and the names that they get."""

    handles: dict[int, str] = field(default_factory=dict)
    ranges: list[tuple[int, int, str]] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)

    def handle(self, number: int, size: int) -> Named:
        """Name the handle of a new buffer."""
        name = f"buf{len(self.sizes)}"
        self.sizes[name], self.handles[number] = size, name
        return Named(f"{name}.remote_ptr")

    def base(self, number: int, handle: int) -> Piece:
        """Name the address of the buffer whose handle was asked about."""
        if not number or handle not in self.handles:
            return Exactly(number.to_bytes(8, "little"))
        name = self.handles[handle]
        self.ranges.append((number, self.sizes[name], name))
        return Named(f"{name}.base")

    def found(self, data: bytes, version: Version) -> dict[int, Named]:
        """Return offset to name for each number in the data that is a handle, or an address in or near a buffer."""
        places = {at: small for at, field in _pointer_fields(data, version) if (small := self._small(field, data, at))}
        for shift in range(8):
            words = np.frombuffer(data, "<u8", max(0, (len(data) - shift) // 8), shift)
            for number, name in self.handles.items():
                if number >= SMALLEST:
                    places |= {shift + 8 * int(at): Named(f"{name}.remote_ptr") for at in np.flatnonzero(words == number)}
            for base, size, name in self.ranges:
                if base >= SMALLEST:
                    near = np.flatnonzero(words - np.uint64(base - MARGIN) < size + 2 * MARGIN)
                    places |= {shift + 8 * int(at): Named(f"{name}.base", int(words[at]) - base) for at in near}
        return places

    def _small(self, field: str, data: bytes, at: int) -> Named | None:
        """Name a number below SMALLEST that a message has in a field for a handle or an address; None: it is neither."""
        (number,) = _HANDLE.unpack_from(data, at)
        if field != "data":
            return Named(f"{self.handles[number]}.remote_ptr") if number < SMALLEST and number in self.handles else None
        # `data` 0 means that there is no address; of two buffers in a row the address is that of the one it lies in
        ranges = [row for row in self.ranges if row[0] < SMALLEST] if number else []
        outside, base, name = min(((max(base - number, number - base - size + 1, 0), base, name) for base, size, name in ranges),
                                  default=(MARGIN, 0, ""))  # fmt: skip
        return Named(f"{name}.base", number - base) if outside < MARGIN else None


def make(record: Iterable[Any], id: str, about: str, *, deadly: bool = False, version: Version = DEFAULT) -> Reproducer:
    """Return the reproducer of a conversation.

    Args:
        record: its pieces in order, with `connection`, `verb` ("sent", "got"), `what` and `data`, as a `TranscriptPiece` of
            `conformance.peer` has them.
        id: the case's.
        about: see `Reproducer`.
        deadly: see `Reproducer`.
        version: the protocol version.

    Raises:
        Misuse: where it would be too large.
    """
    made = Reproducer(id, about, tuple(_moves(record, version)), deadly, codec.encode_request(Hello(), version))
    if sum(len(piece.data) for move in made.moves for piece in move.pieces if isinstance(piece, Exactly | Repeated)) > MOST:
        raise Misuse(f"{id}: what was sent is too large for a reproducer, more than {MOST >> 20} MiB")
    return made


def _moves(record: Iterable[Any], version: Version) -> Iterator[Move]:
    names, asked, heads = _Names(), dict[int, list[int]](), set[int]()
    for number, verb, what, data in record:
        if verb == "sent" and not data:
            yield Move(number, {"FIN": "finish", "RST": "reset"}.get(what, "finish"))
        elif verb == "sent":
            asked.setdefault(number, []).extend(_handles_asked_about(data))
            yield Move(number, "send", tuple(_pieces(data, names.found(data, version))), what)
        else:
            # the size field of a reply comes first, and its payload in a piece of its own
            is_payload = number in heads
            heads ^= {number}
            pieces = _reply(names, asked.setdefault(number, []), what, data) if is_payload else list(_pieces(data, {}))
            end = what if what in ("end", "nothing", "nothing more") else ""
            if data or end:  # a payload of no bytes says nothing
                yield Move(number, "got", tuple(pieces), "" if end else what, "nothing" if end.startswith("nothing") else end)


_HEAD, _HANDLE = codec.REQUEST_HEAD, struct.Struct("<Q")
_ASKS_BASE: Final = REQUESTS[BufferGetBase].number


_POINTERS: Final = ("remote_ptr", "buffer", "data")


def _pointer_fields(data: bytes, version: Version) -> Iterator[tuple[int, str]]:
    """Yield where a piece that begins with a message has handles and addresses, each with the field's name."""
    at, requests = 0, by_number(version)
    while at + _HEAD.size <= len(data):
        command, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if command in requests:
            yield from _pointers_of(requests[command].cls, data[: at + size], at, version)
        at += size


def _pointers_of(cls: type, data: bytes, at: int, version: Version) -> Iterator[tuple[int, str]]:
    for row in fields(cls, version):
        wire, times = row.wire, 1
        if isinstance(wire, Counted):
            if at + 4 > len(data):
                return
            times, wire, at = int.from_bytes(data[at : at + 4], "little"), wire.of, at + 4
        elif isinstance(wire, Array):
            times, wire = wire.length, wire.of
        if row.name in _POINTERS and isinstance(wire, Int) and at + _HANDLE.size <= len(data):
            yield at, row.name
        size = codec.wire_size(wire, version)
        if isinstance(wire, Record):  # as many as there are, whatever the count says
            for number in range(min(times, -(-(len(data) - at) // size))):
                yield from _pointers_of(wire.cls, data, at + number * size, version)
        at += times * size


def _handles_asked_about(data: bytes) -> list[int]:
    """Return the handles in the BUFFER_GET_BASE requests of a piece that begins with a message."""
    found, at = list[int](), 0
    while at + _HEAD.size <= len(data):
        command, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if command == _ASKS_BASE and size == _HANDLE.size <= len(data) - at:
            found += _HANDLE.unpack_from(data, at)
        at += size
    return found


def _reply(names: _Names, asked: list[int], what: str, data: bytes) -> list[Piece]:
    if what.endswith(ALLOC) and len(data) == 16:
        number, size = struct.unpack("<QQ", data)
        return [names.handle(number, size), Exactly(data[8:])] if number else [Exactly(data)]
    if what.endswith(BASE) and len(data) == 8 and asked:
        return [names.base(struct.unpack("<Q", data)[0], asked.pop(0))]
    return list(_pieces(data, {}))


def _pieces(data: bytes, places: dict[int, Named]) -> Iterator[Piece]:
    at = 0
    for place in sorted(places):
        if place < at:
            continue  # within the name before it
        yield from _plain(data[at:place])
        yield places[place]
        at = place + 8
    yield from _plain(data[at:])


def _plain(data: bytes) -> Iterator[Piece]:
    """Yield pieces for bytes, those of one block over and over as a repetition."""
    at = start = 0
    while at + 2 * BLOCK <= len(data):
        block, times = data[at : at + BLOCK], 1
        while data[at + times * BLOCK : at + (times + 1) * BLOCK] == block:
            times += 1
        if times > 1:
            if start < at:
                yield Exactly(data[start:at])
            short = next((block[:n] for n in (1, 256) if block == block[:n] * (BLOCK // n)), block)
            yield Repeated(short, times * BLOCK // len(short))
            start = at + times * BLOCK
        at += times * BLOCK
    if start < len(data):
        yield Exactly(data[start:])


# ------------------------------------------------------------------------------------------------------------------ JSON


def _move_as_json(move: Move) -> dict[str, Any]:
    row: dict[str, Any] = {"connection": move.connection}
    if move.command:
        row["command"] = move.command
    if move.act in ("finish", "reset"):
        return row | {"close": move.act}
    row[move.act] = list(map(piece_as_json, move.pieces))
    return row | ({"end": move.end} if move.end else {})


def parse(text: str) -> Reproducer:
    """Return the reproducer in a file's text.

    Raises:
        Misuse: for another file.
    """
    try:
        content = json.loads(text)
        if content["form"] != FORM:
            raise ValueError
        moves = tuple(map(_move_from_json, content["steps"]))
        return Reproducer(
            str(content["id"]), str(content["about"]), moves, bool(content["deadly"]), bytes.fromhex(content["hello"])
        )
    except NOT_OF_ITS_FORM:
        raise Misuse("it is not a reproducer (`conform --reproduce DIRECTORY` writes them)") from None


def _move_from_json(row: dict[str, Any]) -> Move:
    number, command = int(row["connection"]), str(row.get("command", ""))
    if "close" in row:
        return Move(number, {"finish": "finish", "reset": "reset"}[row["close"]])
    act = "send" if "send" in row else "got"
    return Move(number, act, tuple(map(piece_from_json, row[act])), command, str(row.get("end", "")))


# ---------------------------------------------------------------------------------------------------------------- script

SCRIPT = '''\
#!/usr/bin/env python3
"""{about}

python3 {name} HOST:PORT        needs Python only
"""
import socket, struct, sys

if len(sys.argv) != 2 or ":" not in sys.argv[1]:
    sys.exit(__doc__.strip())
host, port = sys.argv[1].rsplit(":", 1)
STEPS = [
{steps}]
names, open_, answered = {{}}, {{}}, b""
for number, act, *what in STEPS:
    if number not in open_:
        open_[number] = socket.create_connection((host.strip("[]"), int(port)), 10)
    peer = open_[number]
    try:
        if act == "send":
            peer.sendall(b"".join(p * n if isinstance(p, bytes) else struct.pack("<Q", (names[p] + n) % 2**64) for p, n in what))
        elif act == "close":
            peer.shutdown(socket.SHUT_WR) if what[0] == "finish" else peer.close()
        else:
            size, named = what
            answered = b""
            while len(answered) < size and (piece := peer.recv(size - len(answered))):
                answered += piece
            print(number, "got", answered[:64].hex() or "the end", "" if len(answered) == size else f"(expected {{size}} bytes)")
            names.update({{name: struct.unpack_from("<Q", answered, at)[0] for at, name in named}})
    except (OSError, struct.error) as error:
        print(number, act, "failed:", error)
print({recorded!r})
'''


def as_python(made: Reproducer, name: str = "reproduce.py") -> str:
    """Return a script that sends the same, with nothing but Python's standard library, and says what came back then."""
    about = re.sub(r'["\\]', "'", made.about)
    return SCRIPT.format(about=about, name=name, steps="".join(map(_line, made.moves)), recorded=f"recorded: {made.about}")


def _line(move: Move) -> str:
    match move.act:
        case "send":
            pieces = ", ".join(map(_literal, move.pieces))
            return f"    ({move.connection}, 'send', {pieces}),  # {move.command}\n"
        case "got":
            size = sum(map(_size, move.pieces)) or 1  # one byte more than nothing shows the end
            return f"    ({move.connection}, 'got', {size}, {_named(move.pieces)}),\n"
    return f"    ({move.connection}, 'close', {move.act!r}),\n"


def _literal(piece: Piece) -> str:
    match piece:
        case Exactly(data):
            return f"(bytes.fromhex('{data.hex()}'), 1)"
        case Repeated(data, times):
            return f"(bytes.fromhex('{data.hex()}'), {times})"
        case Named(name, offset):
            return f"({name!r}, {offset})"
    raise TypeError(f"{piece!r} can't be sent")


def _size(piece: Piece) -> int:
    match piece:
        case Exactly(data):
            return len(data)
        case Repeated(data, times):
            return len(data) * times
    return 8


def _named(pieces: Sequence[Piece]) -> list[tuple[int, str]]:
    found, at = [], 0
    for piece in pieces:
        if isinstance(piece, Named):
            found.append((at, piece.name))
        at += _size(piece)
    return found


# ---------------------------------------------------------------------------------------------------------------- replay


@dataclass(slots=True)
class Outcome:
    """What a server did when a reproducer was played.

    Attributes:
        lines: a line for each step.
        is_same: whether it ended as was recorded: the fault is still there.
    """

    lines: list[str] = field(default_factory=list)
    is_same: bool = False


def replay(made: Reproducer, endpoint: Endpoint, timeout: float) -> Outcome:
    """Play a reproducer against a server.

    Raises:
        ConnectionError, DeadlineMissed: where it accepts no connection at the beginning.
    """
    return _Replay(made, endpoint, timeout).play()


@dataclass(slots=True)
class _Replay:
    made: Reproducer
    endpoint: Endpoint
    timeout: float
    values: dict[str, int] = field(default_factory=dict)
    open: dict[int, Stream] = field(default_factory=dict)
    outcome: Outcome = field(default_factory=Outcome)

    def play(self) -> Outcome:
        """Take every step, then see whether the server still serves."""
        try:
            for move in self.made.moves:
                stream = self._stream(move.connection)
                if move.act == "got":
                    self.outcome.is_same = self._receive(stream, move)
                else:
                    self._act(stream, move)
        finally:
            for stream in self.open.values():
                stream.close()
        died = not self._serves()
        self.outcome.lines.append("afterwards it answers no new connection" if died else "afterwards it serves a new connection")
        self.outcome.is_same = died if self.made.deadly else self.outcome.is_same and not died
        return self.outcome

    def _stream(self, number: int) -> Stream:
        if number not in self.open:
            self.open[number] = open_stream(*self.endpoint, timeout=self.timeout)
        return self.open[number]

    def _act(self, stream: Stream, move: Move) -> None:
        how = "ok"
        match move.act:
            case "send":
                try:
                    stream.send(*(bytes(part) for part in expand(move.pieces, self.values, {})))
                except KeyError as name:
                    how = f"not sent: the server gave no {name.args[0]}"
                except (PeerClosed, DeadlineMissed) as error:
                    how = str(error)
            case "finish":
                stream.finish_sending()
            case "reset":
                stream.reset()
        self.outcome.lines.append(f"{move.connection} {move.act} {move.command}: {how}".replace(" :", ":"))

    def _receive(self, stream: Stream, move: Move) -> bool:
        """Receive what was recorded, and return whether the same came."""
        wanted, end, data = size_of(move.pieces), "", b""
        try:
            data = stream.receive_exactly(wanted) if wanted else b""
            if move.end or not wanted:
                data += stream.receive(64)
        except PeerClosed as closed:
            data, end = data or closed.seen, "end"
        except DeadlineMissed as missed:
            data, end = data or missed.seen, "nothing"
        # an answer where none was due may hold a handle, which is another each time: its size tells
        is_same = self._is_same(move.pieces, data) if move.command else len(data) == wanted
        is_same = is_same and end == move.end
        what = f"{len(data)} bytes {data[:32].hex()}{'…' * (len(data) > 32)}" if data else ""
        seen = " ".join(part for part in (what, {"end": "and the end", "nothing": "and then nothing"}.get(end, "")) if part)
        self.outcome.lines.append(f"{move.connection} got {seen}" + ("" if is_same else " (otherwise than recorded)"))
        return is_same

    def _is_same(self, pieces: Sequence[Piece], data: bytes) -> bool:
        at, is_same = 0, len(data) == size_of(pieces)
        for piece in pieces:
            part = data[at : at + size_of([piece])]
            if isinstance(piece, Named) and len(part) == 8:
                self.values.setdefault(piece.name, int.from_bytes(part, "little"))
            elif isinstance(piece, Exactly | Repeated):
                is_same = is_same and part == b"".join(map(bytes, expand([piece], {}, {})))
            at += len(part)
        return is_same

    def _serves(self) -> bool:
        try:
            with open_stream(*self.endpoint, timeout=self.timeout) as stream:
                stream.send(self.made.hello)
                return bool(stream.receive(1))
        except (ConnectionError, TimeoutError, KeyError):
            return False
