"""Finds: what is kept of each, when two are the same, and how one is written down so that anyone can play it again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ggml_rpc_ref.files import conversation
from ggml_rpc_ref.files.conversation import Anything, AtLeast, Binding, Exactly, Named, Near, Piece, Script, Step
from ggml_rpc_ref.fuzz.converse import hello
from ggml_rpc_ref.fuzz.inside import Inside, Said
from ggml_rpc_ref.fuzz.judge import Kind, Suspicion
from ggml_rpc_ref.fuzz.numbers import placed, results
from ggml_rpc_ref.fuzz.packet import ADDRESS, HANDLE, Packet, name
from ggml_rpc_ref.fuzz.plan import sentinel
from ggml_rpc_ref.fuzz.session import Buffer, Session
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
        """Read the keys of the finds that are there."""
        if self.directory is not None:
            for path in sorted(self.directory.glob("*.json")):
                content = json.loads(path.read_text(encoding="utf-8"))
                if "find" in content:
                    self.known[tuple(content["find"]["key"])] = None

    def add(self, find: Find) -> None:
        """Keep a find, on disk where there is a directory: as a conversation and as a script."""
        self.known[find.key] = find
        if self.directory is None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        content = as_json(find)
        (self.directory / f"{find.id}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        (self.directory / f"{find.id}.py").write_text(script_of(content), encoding="utf-8")


def as_json(find: Find) -> dict[str, Any]:
    """Return a find as a conversation that is written down, what a right server does included."""
    script = Script(find.id, find.about, tuple(steps_of(find.sessions, judged=find.kind is Kind.WRONG)), bindings_of(find.sessions))
    death = None if find.death is None else {"how": find.death.how, "place": find.death.place, "frames": find.death.frames[:12]}
    notes = [{"mutation": n.mutation, "target": n.target, "what": n.what} for s in find.sessions for n in s.notes]
    return {
        "schema_version": SCHEMA,
        "id": script.id,
        "about": script.about,
        "protocol": str(find.sessions[0].version),
        "find": {
            "kind": find.kind.value,
            "key": find.key,
            "rule": find.rule,
            "target": find.target,
            "death": death,
            "changed": notes,
            "reproduced": find.reproduced,
            "seconds": round(find.seconds, 1),
            "messages": find.messages,
            "steps": find.steps,
            "steps_before_shrinking": find.steps_before,
            "seeds": [session.seed for session in find.sessions],
        },
        "bindings": {name: {"by": row.by} for name, row in script.bindings.items()},
        "peers": [peer.as_json() for session in find.sessions for peer in session.peers],
        "steps": [conversation.step_as_json(step) for step in script.steps],
    }


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


def _session_steps(session: Session, said: Sequence[Said], index: int, first: int, judged: bool) -> Iterator[Step]:
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


def _talk(session: Session, connection: int, said: Said, numbers: tuple[int, int], judged: bool) -> Generator[Step, None, bool]:
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
        yield Step(number, "send", tuple(_pieces(session, packet, index)), step.label(version).partition(" of ")[0])
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


def _pieces(session: Session, packet: Packet, index: int) -> list[Piece]:
    # a number of a buffer that the session does not have stays made up, as it goes over the wire
    known = set() if session.headless else {buffer.number for buffer in session.all_buffers}
    places = [replace(place, buffer=_renumbered(index, place.buffer)) for place in packet.places if place.buffer in known]
    return Packet(packet.template, tuple(places)).pieces()


# ------------------------------------------------------------------------------------------------------------ scripts

_SCRIPT: Final = '''#!/usr/bin/env python3
"""{about}

python3 {name} HOST PORT    # written by ggml-rpc-ref fuzz; needs nothing but Python
"""
import json, re, socket, sys, threading, time
STEPS = json.loads(r"""{steps}""")
PEERS = json.loads(r"""{peers}""")  # the other servers of its sums, which this script plays
names, open_ = {{}}, {{}}
def encode(piece):
    if isinstance(piece, dict): return bytes.fromhex(piece["repeat"]) * piece["times"]
    named = re.fullmatch(r"\\$\\{{(.*)\\}}(.*)", piece)
    return ((names[named[1]] + int(named[2] or 0)) % 2**64).to_bytes(8, "little") if named else bytes.fromhex(piece)
{meet}for connection, act, pieces in STEPS:
    if connection not in open_: open_[connection] = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
    peer = open_[connection]
    try:
        if act == "send": peer.sendall(b"".join(map(encode, pieces)))
        elif act == "receive":
            for piece in pieces:
                size = 8 if isinstance(piece, str) and piece[:1] == "$" else piece["width"] if "at_least" in piece else \\
                    len(piece.get("any", "")) // 2 if isinstance(piece, dict) else len(piece) // 2
                data = b""
                while len(data) < size: data += peer.recv(size - len(data)) or sys.exit(f"connection {{connection}} ended early")
                if isinstance(piece, str) and piece[:1] == "$": names.setdefault(piece[2:-1], int.from_bytes(data, "little"))
        elif act == "refused": print("refused" if not peer.recv(1) else "NOT refused: it answered")
        else: peer.close()
    except OSError as error: print(f"connection {{connection}}: {{error}}")
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
    steps = []
    for step in content["steps"]:
        act = next(act for act in ("send", "receive", "refused", "close") if act in step)
        steps.append([step["connection"], act, step[act] if act in ("send", "receive") else []])
    about = content["about"].replace("\\", "/").replace('"', "'")
    rows = ",\n".join(json.dumps(step) for step in steps)
    peers = content.get("peers", [])
    meet = _MEET if peers else ""
    return _SCRIPT.format(about=about, name=f"{content['id']}.py", steps=f"[{rows}]", peers=json.dumps(peers), meet=meet)
