"""Finds: what is kept of each, when two are the same, and how one is written down so that anyone can play it again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ggml_rpc_ref.errors import NOT_OF_ITS_FORM, Damaged, Misuse
from ggml_rpc_ref.files import conversation
from ggml_rpc_ref.files.conversation import Anything, AtLeast, Binding, Exactly, Named, Near, Piece, Step
from ggml_rpc_ref.fuzz.converse import hello
from ggml_rpc_ref.fuzz.inside import Handled, Inside
from ggml_rpc_ref.fuzz.judge import Kind, Suspicion
from ggml_rpc_ref.fuzz.marks import marks, told
from ggml_rpc_ref.fuzz.numbers import placed, results
from ggml_rpc_ref.fuzz.packet import ADDRESS, HANDLE, Packet, name
from ggml_rpc_ref.fuzz.plan import sentinel
from ggml_rpc_ref.fuzz.session import RAW, Buffer, Session
from ggml_rpc_ref.fuzz.session import Step as ConversationStep
from ggml_rpc_ref.fuzz.watch import Death
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.messages import BufferGetBase, GetTensor, HelloReply, command_name
from ggml_rpc_ref.spec.versions import Version

SCHEMA: Final = 1
NMSE: Final = 1e-5
"""How far off a right server's results may be when a find is played again."""
Key = tuple[str, ...]
"""What makes two finds the same."""


@dataclass(slots=True)
class Find:
    """Something wrong that a server did.

    Attributes:
        kind: what.
        key: finds of the same key are the same.
        about: a sentence.
        rule: id of the broken rule; "" where none has a name.
        sessions: what has to be said for it, in order; mostly one.
        target: the server's name.
        death: how it died; None where it did not.
        reproduced: how often of how many tries it happened again.
        seconds: since the campaign began.
        messages: sent before it.
        steps_before: steps of the sessions before they were shrunk.
        seen: how often it was come upon.
    """

    kind: Kind
    key: Key
    about: str
    rule: str
    sessions: list[Session]
    target: str = ""
    death: Death | None = None
    reproduced: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    messages: int = 0
    steps_before: int = 0
    seen: int = 1

    @property
    def id(self) -> str:
        """Its name: words of its key and a hash of all of it."""
        words = re.sub(r"[^a-z0-9]+", "-", "-".join(self.key).lower()).strip("-")[:60]
        return f"{words}-{hashlib.sha256(repr(self.key).encode()).hexdigest()[:6]}"

    @property
    def steps(self) -> int:
        """Messages that have to be said for it, after the openings."""
        return sum(len(session.steps) for session in self.sessions)


def bare(find: Find) -> Find:
    """Return a find without what only its campaign needs, to be sent to another process."""
    sessions = [s.with_steps([replace(step, expected=None) for step in s.steps]) for s in find.sessions]
    return replace(find, sessions=sessions)


def key_of_death(death: Death, session: Session) -> Key:
    """Return what makes two deaths the same: signal and place; without a place, what was touched."""
    where = death.place or (session.notes[-1].target if session.notes else "a well-formed session")
    return Kind.CRASH.value, death.signal, where


def key_of(found: Suspicion, session: Session) -> Key:
    """Return what makes two other finds the same: rule, and command or op."""
    subject = found.subject or (session.notes[-1].target if session.notes else "")
    if found.kind in (Kind.ACCEPTED, Kind.DESYNC, Kind.UNASKED):
        subject = subject.partition(" of ")[0]
    return found.kind.value, found.rule, subject


# ------------------------------------------------------------------------------------------------------------ on disk


@dataclass(slots=True)
class Store:
    """A directory of finds. One that lies there already is not reported again.

    Attributes:
        directory: where; None: nowhere.
        known: keys of those that are there.
    """

    directory: Path | None = None
    known: dict[Key, Find | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read the keys of the finds that are there.

        Raises:
            Damaged: for a file that is none.
            Misuse: for one that can't be read.
        """
        for path in sorted(self.directory.glob("*.json")) if self.directory is not None else ():
            try:
                key = json.loads(path.read_text(encoding="utf-8"))["provenance"]["key"]
                self.known[tuple(word + "" for word in key)] = None
            except OSError as error:
                raise Misuse(f"can't read {path}: {error.strerror}") from None
            except NOT_OF_ITS_FORM:
                raise Damaged(path, None, "find", "is none of the fuzzer's: it has no key", "file.form") from None

    def add(self, find: Find) -> None:
        """Keep a find, on disk where there is a directory: as a conversation and as a script."""
        self.known[find.key] = find
        if self.directory is None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        content = as_json(find)
        (self.directory / f"{find.id}.json").write_text(text_of(content), encoding="utf-8")
        (self.directory / f"{find.id}.py").write_text(script_of(content), encoding="utf-8")


def as_json(find: Find) -> dict[str, Any]:
    """Return a find as a conversation that is written down, what a right server does included."""
    steps = tuple(steps_of(find.sessions, judged=find.kind is Kind.WRONG))
    peers = [peer.as_json() for session in find.sessions for peer in session.peers]
    death = (
        None if find.death is None else {"how": find.death.how, "place": find.death.place, "frames": list(find.death.frames[:12])}
    )
    return {
        "schema_version": SCHEMA,
        "id": find.id,
        "protocol": str(find.sessions[0].version),
        "about": "".join(letter if letter.isprintable() else "?" for letter in find.about),
        "flags": [],
        "provenance": {
            "found_by": "ggml-rpc-ref fuzz",
            "target": find.target,
            "kind": find.kind.value,
            "key": list(find.key),
            "rule": find.rule,
            "death": death,
            "changed": list(changes_of(find.sessions)),
            "reproduced": list(find.reproduced),
            "seconds": round(find.seconds, 1),
            "messages": find.messages,
            "steps": find.steps,
            "steps_before_shrinking": find.steps_before,
            "seeds": [session.seed for session in find.sessions],
        },
        "bindings": {name: {"by": row.by} for name, row in bindings_of(find.sessions).items()},
        **({"peers": peers} if peers else {}),
        "steps": [conversation.step_as_json(step) for step in steps],
    }


def text_of(content: dict[str, Any]) -> str:
    """Return the text of a find's file: as vectors of conversations are written, a step a line."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    return text.replace('{"connection"', '\n{"connection"') + "\n"


def changes_of(sessions: Sequence[Session]) -> Iterator[dict[str, Any]]:
    """Yield what mutations did, in words, and which bytes of which message are other than a good client's."""
    for session in sessions:
        for note in session.notes:
            yield {"mutation": note.mutation, "target": note.target, "what": note.what}
        for step in session.steps:
            for mark in marks(step, session.version):
                yield {"command": step.label(session.version), "field": mark.field, "what": told(mark, step, session.version)}


def bindings_of(sessions: Sequence[Session]) -> dict[str, Binding]:
    """Return the names that the sessions' buffers get; those of later sessions are numbered on."""
    found = {}
    for index, session in enumerate(sessions):
        for buffer in () if session.headless else session.all_buffers:
            for kind in (HANDLE, ADDRESS):
                found[name(_renumbered(index, buffer.number), kind)] = Binding("server", None)
    return found


def _renumbered(session: int, buffer: int) -> int:
    return 10_000 * session + buffer


def steps_of(sessions: Sequence[Session], *, judged: bool = False) -> Iterator[Step]:
    """Yield the steps of a conversation that has these sessions, with what a right server does.

    Args:
        sessions: one after the other.
        judged: whether the contents of what is read must be right, not only its size.
    """
    first = 1
    for index, session in enumerate(sessions):
        devices = 1 + max((buffer.device for buffer in session.all_buffers), default=0)
        said = Inside(session.version, devices).have(session)
        yield from _session_steps(session, said, index, first, judged)
        first += session.connections


def _session_steps(session: Session, said: Sequence[Handled], index: int, first: int, judged: bool) -> Iterator[Step]:
    closing: list[int] = []
    for connection, one in enumerate(said):
        number = first + connection
        yield from () if session.headless else _opening(session, connection, number, index)
        refused = yield from _talk(session, connection, one, (number, index), judged)
        if not refused and session.apart:
            yield Step(number, "close", how="end")
        elif not refused:
            closing.append(number)
    for number in closing:
        yield Step(number, "close", how="reset" if session.leaves else "end")


def _opening(session: Session, connection: int, number: int, index: int) -> Iterator[Step]:
    version = session.version
    yield Step(number, "send", (Exactly(codec.encode_request(hello(version, session.caps), version)),), "HELLO")
    size = codec.minimum_size(HelloReply, version)
    head: list[Piece] = [Exactly(codec.REPLY_HEAD.pack(size) + bytes(tuple(version)))]
    if size > 3:
        head.append(Anything(bytes(size - 3)))
    yield Step(number, "receive", tuple(head), "HELLO")
    for buffer in session.buffers:
        if buffer.connection == connection:
            yield from _allocation(buffer, number, version, index)


def _allocation(buffer: Buffer, number: int, version: Version, index: int) -> Iterator[Step]:
    own = _renumbered(index, buffer.number)
    yield Step(number, "send", (Exactly(codec.encode_request(buffer.request(version), version)),), "ALLOC_BUFFER")
    yield Step(
        number, "receive", (Exactly(codec.REPLY_HEAD.pack(16)), Named(name(own, HANDLE)), AtLeast(buffer.size, 8)), "ALLOC_BUFFER"
    )
    head = codec.request_head(BufferGetBase, 8, version)
    yield Step(number, "send", (Exactly(head), Named(name(own, HANDLE))), "BUFFER_GET_BASE")
    yield Step(number, "receive", (Exactly(codec.REPLY_HEAD.pack(8)), Named(name(own, ADDRESS))), "BUFFER_GET_BASE")


def _talk(session: Session, connection: int, said: Handled, numbers: tuple[int, int], judged: bool) -> Generator[Step, None, bool]:
    """Yield the steps of one connection; return whether it ends with a refusal."""
    (number, index), version = numbers, session.version
    at, answered = 0, list(said.answers)
    left = session.short if connection == 0 else 0
    for step in _shortened(session.of(connection), left, version) if left else session.of(connection):
        if isinstance(step.message, Buffer):
            yield from _allocation(step.message, number, version, index)
            continue
        packet = step.packet(version)
        at += len(packet.template)
        if packet.template:
            command = step.label(version).partition(" of ")[0]
            yield Step(number, "send", tuple(_pieces(session, connection, packet, index)), command if command != RAW else "")
        while answered and answered[0].end <= at:
            answer = answered.pop(0)
            if answer.reply and not session.leaves:
                data = answer.reply[8:]
                pieces = right_pieces(session, step, data) if judged else _any(data)
                yield Step(number, "receive", (Exactly(answer.reply[:8]), *pieces), "")
    if not left:
        last = sentinel(version)
        yield Step(number, "send", (Exactly(codec.encode_request(last, version)),), command_name(type(last)))
    if session.leaves:
        return False
    if said.violation is not None:
        yield Step(number, "refused")
        return True
    for answer in answered:
        yield Step(number, "receive", (Exactly(answer.reply[:8]), *_any(answer.reply[8:])), "")
    return False


def _shortened(steps: Iterable[ConversationStep], short: int, version: Version) -> list[ConversationStep]:
    """Return steps whose last bytes are missing."""
    left = list(steps)
    while left and short:
        packet = left.pop().packet(version)
        kept = len(packet.template) - short
        if kept > 0:
            return [*left, ConversationStep(0, packet.cut(0, kept))]
        short = -kept
    return left


def right_pieces(session: Session, step: ConversationStep, data: bytes) -> Iterator[Piece]:
    """Yield what read bytes must be: results of nodes as numbers near the model's, anything else byte for byte."""
    if not isinstance(step.message, GetTensor):
        yield from _any(data)
        return
    at = 0
    for start, stop, kind in float_results(session, step, len(data)):
        if start >= at:
            yield from (Exactly(data[at:start]),) if start > at else ()
            yield Near(data[start:stop], kind, NMSE)
            at = stop
    if at < len(data):
        yield Exactly(data[at:])


def float_results(session: Session, step: ConversationStep, size: int) -> list[tuple[int, int, str]]:
    """Return (start, stop, type) of the results of nodes in bytes that a step reads, sorted; those of one piece only."""
    assert isinstance(step.message, GetTensor)
    start, found = step.message.tensor.data + step.message.offset, []
    for record in results(session, step):
        tensor = placed(record, start, size)
        if tensor is not None and tensor.nbytes and tensor.is_contiguous and tensor.dtype.name in ("F32", "F16"):
            found.append((tensor.offset, tensor.offset + tensor.nbytes, tensor.dtype.name))
    return sorted(set(found))


def _any(data: bytes) -> Iterable[Piece]:
    return (Anything(data),) if data else ()


def _pieces(session: Session, connection: int, packet: Packet, index: int) -> list[Piece]:
    # a number of a buffer that the session does not have, or that a later connection allocates, stays made up: so it is sent
    known = set() if session.headless else {buffer.number for buffer in session.all_buffers if buffer.connection <= connection}
    places = [replace(place, buffer=_renumbered(index, place.buffer)) for place in packet.places if place.buffer in known]
    return Packet(packet.template, tuple(places)).pieces()


# ------------------------------------------------------------------------------------------------------------ scripts

_SCRIPT: Final = '''#!/usr/bin/env python3
"""{about}

python3 {name} HOST PORT    # written by ggml-rpc-ref fuzz; needs nothing but Python
"""
{imports}
if len(sys.argv) != 3: sys.exit(__doc__.strip())
{steps}
open_, known = {{}}, {{}}
{meet}for number, act, *pieces in STEPS:
    try:
        if number not in open_: open_[number] = (new := socket.create_connection(sys.argv[1:3], 10)), new.makefile("rb")
        peer, replies = open_[number]
        if act == "send":
            peer.sendall(b"".join(bytes.fromhex(piece) if isinstance(piece, str) else
                                  ((known[piece[0]] + piece[1]) % 2**64).to_bytes(8, "little") for piece in pieces))
        elif act == "receive":
            for size, *name in pieces:
                data = replies.read(size)
                if len(data) < size: sys.exit(f"connection {{number}} ended early: does the server still serve?")
                if name: known.setdefault(name[0], int.from_bytes(data, "little"))
        elif act == "refused": print("NOT refused: it answered" if replies.read(1) else "refused")
        else: peer.close(), replies.close()
    except OSError as error: print(f"connection {{number}}: {{error}}")
print("everything was said; does the server still serve?")
'''


_MEET: Final = """def meet(peer, door):
    for _ in range(500):
        try:
            other = door.accept()[0] if door else socket.create_connection((sys.argv[1], peer["port"]), 10)
            break
        except OSError: time.sleep(0.02)
    other.sendall(bytes.fromhex(peer["says"]))
    if peer["leaves"]: other.close()
    else:
        while other.recv(65536): pass
for peer in PEERS:
    door = socket.create_server(("127.0.0.1", peer["port"])) if peer["rank"] else None
    threading.Thread(target=meet, args=(peer, door), daemon=True).start()
"""


def script_of(content: dict[str, Any]) -> str:
    """Return a script of the standard library only that has a find's conversation."""
    about = content["about"].replace("\\", "/").replace('"', "'")
    changes = "".join(f"# {'changed: ' if 'field' in row else ''}{row['what']}\n" for row in content["provenance"]["changed"])
    steps = "".join(f"    {row},{f'  # {command}' if command else ''}\n" for row, command in map(_row, content["steps"]))
    about_steps = (
        "# connection; to send: bytes, and the server's numbers by name; to receive: sizes, and names of the server's numbers\n"
    )
    written, peers = f"{changes}{about_steps}STEPS = [\n{steps}]", content.get("peers", [])
    if peers:
        written += f"\nPEERS = {peers!r}  # the other servers of its sums, which this script plays"
    return _SCRIPT.format(
        about=about,
        name=f"{content['id']}.py",
        imports="import socket, sys, threading, time" if peers else "import socket, sys",
        steps=written,
        meet=_MEET if peers else "",
    )


def _row(row: Any) -> tuple[str, str]:
    """Return a step as the script has it, and its command."""
    step = conversation.step_from_json(row)
    pieces = [_sent(piece) if step.act == "send" else _received(piece) for piece in step.pieces]
    return repr((step.connection, step.act, *pieces)), step.command


def _sent(piece: Piece) -> str | tuple[str, int]:
    return (piece.name, piece.offset) if isinstance(piece, Named) else b"".join(conversation.expand([piece], {}, {})).hex()


def _received(piece: Piece) -> tuple[int] | tuple[int, str]:
    size = conversation.size_of([piece])
    return (size, piece.name) if isinstance(piece, Named) else (size,)
