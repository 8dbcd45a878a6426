"""Our own code under the same fire: the server in this process, the decoder, and every reader of files.

Nothing that a peer sends may raise anything but a Violation, nothing that a file holds anything but Damaged or another Misuse; a
message must mean the same however it is cut up; and after each session all memory must have been given back.
"""

from __future__ import annotations

import json
import struct
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from ggml_rpc_ref.backends import Backend
from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.backends.oracle import Oracle
from ggml_rpc_ref.decode import Options as DecodeOptions
from ggml_rpc_ref.decode import decode_file, text
from ggml_rpc_ref.errors import Misuse, Unsupported
from ggml_rpc_ref.files.recording import Direction, Recorder
from ggml_rpc_ref.fuzz.choose import Chooser
from ggml_rpc_ref.fuzz.converse import End, Heard
from ggml_rpc_ref.fuzz.finds import Find, as_json, text_of
from ggml_rpc_ref.fuzz.generate import Generator
from ggml_rpc_ref.fuzz.inside import Handled, Inside, Line, bytes_of
from ggml_rpc_ref.fuzz.judge import Kind, against, suspicions
from ggml_rpc_ref.fuzz.plan import HEAD, plan_of
from ggml_rpc_ref.fuzz.replay import load
from ggml_rpc_ref.fuzz.seeds import sessions_of
from ggml_rpc_ref.fuzz.session import Session
from ggml_rpc_ref.fuzz.variants import variants
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.server.handlers import Session as ServerSession
from ggml_rpc_ref.spec.messages import Hello, HelloReply
from ggml_rpc_ref.spec.versions import DEFAULT, Version

Reader = Callable[[Path], object]
FILES: Final = 0.05
"""The part of the rounds that go to the decoder and the readers of files."""
VARIANTS: Final = 500
CLOCK: Final = 16
"""Rounds between two looks at the time that was used, which on some systems takes as long as a round."""
CUT_UP: Final = 0.05
"""The part of the sessions that are had a second time, cut up."""


@dataclass(slots=True)
class Defect:
    """An exception, or another fault, of ours.

    Attributes:
        key: what makes two the same: exception, file and line.
        words: what happened.
        what: the session's changes, or the reader and the file's first bytes.
        seen: how often it was come upon.
    """

    key: tuple[str, ...]
    words: str
    what: str
    seen: int = 1


@dataclass(slots=True)
class Sums:
    """What was done, for sums over many runs.

    Attributes:
        seconds: of processor.
        sessions, messages: that our server had; of a message that is a variant it has the state that the session left.
        variants: how many of the messages are variants.
        files: that were read.
        outcomes: rule by which a session ended, or "accepted", to how often.
    """

    seconds: float = 0.0
    sessions: int = 0
    messages: int = 0
    variants: int = 0
    files: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    def add_to(self, path: Path) -> None:
        """Add these to the sums that a file keeps, one entry for each version of the program's file format."""
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"schema_version": 1}
        for name in ("seconds", "sessions", "messages", "variants", "files"):
            content[name] = round(content.get(name, 0) + getattr(self, name), 1)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


class Ourselves:
    """Fuzzes our own code in this process.

    Args:
        version: the protocol version.
        seed: of all choices.
        devices: of the server.
        readers: name to what reads a file of any kind, and raises nothing but Misuse or Unsupported where it is damaged.
        samples: kind of file to its suffix and content, beside those that are made of sessions.
        make: makes the backend of each device; every session is then had with the oracle too, and compared. None: the oracle alone.
        variants: of the messages of each connection, which are said after them.
    """

    def __init__(
        self,
        version: Version = DEFAULT,
        seed: str = "0",
        devices: int = 2,
        readers: Mapping[str, Reader] | None = None,
        samples: Mapping[str, tuple[str, Any]] | None = None,
        make: Callable[[HostMemory], Backend] | None = None,
        variants: int = VARIANTS,
    ) -> None:
        self.variants = variants
        self.version, self.rng, self.readers = version, Random(seed), dict(READERS if readers is None else readers)
        self.samples = dict(samples or {})
        self.inside = Inside(version, devices, make=make or Oracle)
        self.oracle = Inside(version, devices) if make else None
        self.chooser = Chooser(Generator(version, devices), seed)
        self.sums = Sums()
        self.defects: dict[tuple[str, ...], Defect] = {}

    def run(self, seconds: float, most: int = 0) -> Iterator[Defect]:
        """Yield each new defect.

        Args:
            seconds: how long.
            most: messages after which to end; 0: any number.
        """
        begun, used, rounds = time.monotonic(), time.process_time(), 0
        with tempfile.TemporaryDirectory(prefix="ggml-rpc-ref-fuzz-") as directory:
            while time.monotonic() - begun < seconds and not (most and self.sums.messages >= most):
                session = self.chooser.next()
                found = self._file(session, Path(directory) / "file") if self.rng.random() < FILES else self._session(session)
                rounds += 1
                if rounds % CLOCK == 0:
                    self.sums.seconds = time.process_time() - used
                for defect in found:
                    if self._is_new(defect):
                        yield defect
        self.sums.seconds = time.process_time() - used

    def _is_new(self, defect: Defect) -> bool:
        known = self.defects.setdefault(defect.key, defect)
        known.seen += known is not defect
        return known is defect

    # ----------------------------------------------------------------------------------------------------------- the server

    def _session(self, session: Session) -> Iterator[Defect]:
        what = "; ".join(f"{note.target}: {note.what}" for note in session.notes) + f" (seed {session.seed})"
        crashes: list[Defect] = []
        said = self.inside.have(session, lambda ours, sent: crashes.extend(self._varied(ours, sent, what)))
        self.sums.sessions += 1
        self.sums.messages += len(session.steps)
        yield from crashes
        self.sums.outcomes.update(one.violation.rule if one.violation else "accepted" for one in said)
        for one in said:
            if one.crash is not None:
                yield defect_of(one.crash, what)
        if self.oracle is not None and not (session.headless or session.short) and not any(one.crash for one in said):
            yield from self._compared(session, said, self.oracle.have(session), what)
        if not self.inside.is_clean:
            yield Defect(("not given back",), "memory was not given back at the end of a session", what)
        if self.rng.random() < CUT_UP and session.connections == 1 and self._differs_cut_up(session):
            yield Defect(("segmentation",), "a session means something else where it is cut up", what)

    def _varied(self, ours: ServerSession, sent: bytes, what: str) -> Iterator[Defect]:
        """Say variants of what a connection was sent to what it has left; yield what is raised that is no Violation."""
        line = Line(ours, self.version, is_open=True)
        for data in variants(self.rng, messages_of(sent, self.version), self.version, self.variants):
            line.receive(data)
            self.sums.messages += 1
            self.sums.variants += 1
            if line.said.crash is not None:
                yield defect_of(line.said.crash, f"{data.hex()} after {what}")
            if line.said.violation is not None:
                self.sums.outcomes[line.said.violation.rule] += 1
            if line.is_over or line.said.left:
                line = Line(ours, self.version, is_open=True)
            line.said.answers.clear()

    def _compared(self, session: Session, said: Sequence[Handled], right: Sequence[Handled], what: str) -> Iterator[Defect]:
        """Yield what the backend computes otherwise than the oracle, or refuses otherwise."""
        heard = [heard_of(bytes_of(session, connection, {}), one, self.version) for connection, one in enumerate(said)]
        for found in (*suspicions(session, heard), *against(session, heard, right)):
            yield Defect((found.kind.value, found.rule, found.subject), found.words, what)
        for one, other in zip(said, right, strict=True):
            ends = [ending.violation.rule if ending.violation else "accepted" for ending in (one, other)]
            if ends[0] != ends[1]:
                yield Defect(("ends otherwise", *ends), f"it ends by {ends[0]}, with the oracle by {ends[1]}", what)

    def _differs_cut_up(self, session: Session) -> bool:
        """Whether a session without buffers of its own gets other answers where it comes in pieces."""
        data = bytes_of(session, 0, {})
        whole, pieces = (ServerSession(self.inside.host) for _ in range(2))
        with whole, pieces:
            one, other = Line(whole, self.version), Line(pieces, self.version)
            one.hello()
            other.hello()
            one.receive(data)
            at = 0
            while at < len(data):
                size = self.rng.choice((1, 2, 8, 9, 100, 4096))
                other.receive(data[at : at + size])
                at += size
            rules = [line.said.violation.rule if line.said.violation else "" for line in (one, other)]
            return rules[0] != rules[1] or len(one.said.answers) != len(other.said.answers)

    # ------------------------------------------------------------------------------------------------------------- files

    def _file(self, session: Session, path: Path) -> Iterator[Defect]:
        kind = self.rng.choice([*WRITERS, *self.samples])
        path = self.written(session, kind, path)
        if path.suffix == ".json" and self.rng.random() < 0.6:
            path.write_text(json.dumps(damaged_tree(self.rng, json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
        else:
            path.write_bytes(damaged(self.rng, path.read_bytes()))
        data = path.read_bytes()
        self.sums.files += 1
        yield from self.read(path, f"{kind} of {len(data)} bytes: {data[:32].hex()}…")

    def written(self, session: Session, kind: str, path: Path) -> Path:
        """Write a good file of a kind, of a session where it is one of those; return its path, which ends as such files do."""
        if kind in self.samples:
            suffix, content = self.samples[kind]
            path = path.with_suffix(suffix)
            path.write_bytes(content if isinstance(content, bytes) else _text(content).encode())
        else:
            suffix, write = WRITERS[kind]
            path = path.with_suffix(suffix)
            write(session, path)
        return path

    def read(self, path: Path, what: str) -> Iterator[Defect]:
        """Have every reader read a file; yield what it raises but may not."""
        for name, read in self.readers.items():
            try:
                read(path)
            except (Misuse, Unsupported):
                pass  # said in a sentence
            except Exception as error:
                yield defect_of(error, f"{name}: {what}")


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content)


def defect_of(error: Exception, what: str) -> Defect:
    """Return the defect that an exception is, known by its type and where it was raised in our code."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "ggml_rpc_ref" in frame.filename]
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
    return Defect((type(error).__name__, where), f"{type(error).__name__} at {where}: {error}", what)


def messages_of(sent: bytes, version: Version) -> list[bytes]:
    """Return the whole, well-framed messages at the beginning of bytes."""
    found = []
    for due in plan_of(sent, version).dues:
        _, size = codec.REQUEST_HEAD.unpack_from(sent, due.start)
        found.append(sent[due.start : due.start + HEAD + size])
    return found


def heard_of(sent: bytes, said: Handled, version: Version = DEFAULT) -> Heard:
    """Return what a connection in this process got as if it had been heard."""
    replies = b"".join(answer.reply for answer in said.answers)
    end = End.CLOSED if said.violation else End.DONE
    return Heard(sent=sent, plan=plan_of(sent, version), replies=replies, end=end)


def decoded(path: Path) -> None:
    """Decode a file to its last line."""
    found = decode_file(path, DecodeOptions())
    for message in found.messages:
        for line in text.lines(message, with_connection=True):
            str(line)


def damaged(rng: Random, data: bytes) -> bytes:
    """Return bytes with a few of them changed, left out, repeated or added."""
    out = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(6):
            case 0:
                out[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                out[at : at + 8] = rng.choice((b"\xff" * 8, bytes(8), rng.randbytes(8), b"\x7f" + b"\xff" * 7))
            case 2:
                del out[at : at + rng.choice((1, 4, 8, 100))]
            case 3:
                out[at:at] = rng.randbytes(rng.choice((1, 4, 8, 100)))
            case 4:
                del out[at:]
            case _:
                out[at:at] = out[at : at + 64]
    return bytes(out)


ODD_VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    -1,
    0,
    2**64,
    1.5,
    1e400,
    "",
    "x",
    "\x1b[2J",
    "${buf0.base}+1",
    [],
    {},
    [[]],
    {"repeat": "00", "times": 10**15},
)
"""Values that stand for another in a JSON file."""


def damaged_tree(rng: Random, content: Any) -> Any:
    """Return JSON with one value of it changed, left out, or put twice."""
    places = list(_places(content))
    if not places:
        return rng.choice(ODD_VALUES)
    home, key = rng.choice(places)
    match rng.randrange(4):
        case 0:
            del home[key]
        case 1 if isinstance(home, list):
            home.insert(key, home[key])
        case 2:
            home[key] = json.loads(json.dumps(rng.choice(places)[0]))
        case _:
            home[key] = rng.choice(ODD_VALUES)
    return content


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container in a JSON value with each of its keys."""
    for key in list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ():
        yield content, key
        yield from _places(content[key])


def _write_raw(session: Session, path: Path) -> None:
    path.write_bytes(codec.encode_request(Hello(), session.version) + bytes_of(session, 0, {}))


def _write_hex(session: Session, path: Path) -> None:
    path.write_text((codec.encode_request(Hello(), session.version) + bytes_of(session, 0, {})).hex(" ", 16))


def _write_find(session: Session, path: Path) -> None:
    path.write_text(text_of(as_json(Find(Kind.DEFECT, ("x",), "a find", "", [session]))))


def _write_recording(session: Session, path: Path) -> None:
    with Recorder(path, endpoint="127.0.0.1:50052", protocol=str(session.version)) as recorder:
        recorder.write(Direction.TO_SERVER, 1, codec.encode_request(Hello(), session.version))
        recorder.write(Direction.TO_SERVER, 1, bytes_of(session, 0, {}))
        recorder.write(Direction.TO_CLIENT, 1, codec.encode_reply(_hello_reply(session.version), session.version))


def _hello_reply(version: Version) -> HelloReply:
    major, minor, patch = version
    return HelloReply(major=major, minor=minor, patch=patch)


def _write_pcap(session: Session, path: Path) -> None:
    """Write a capture of the client's bytes: Ethernet, IPv4, TCP, one segment for each piece."""
    data = codec.encode_request(Hello(), session.version) + bytes_of(session, 0, {})
    packets, number = [], 1
    for flags, piece in ((2, b""), *((24, data[at : at + 1400]) for at in range(0, len(data), 1400))):
        tcp = struct.pack(">HHIIBBHHH", 40000, 50052, number, 1, 0x50, flags, 65535, 0, 0) + piece
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0, b"\x7f\0\0\1", b"\x7f\0\0\1")
        frame = bytes(12) + b"\x08\0" + ip + tcp
        packets.append(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)
        number += len(piece) or 1
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1) + b"".join(packets))


WRITERS: Final[dict[str, tuple[str, Callable[[Session, Path], None]]]] = {
    "raw": (".raw", _write_raw),
    "hex": (".txt", _write_hex),
    "find": (".json", _write_find),
    "recording": (".recording", _write_recording),
    "pcap": (".pcap", _write_pcap),
}
"""Kind of file to its suffix, and to what writes one of a session."""
READERS: Final[dict[str, Reader]] = {"decode": decoded, "replay": load, "seeds": lambda path: sessions_of([path], DEFAULT)}
"""Name to what reads a file in this room; the command adds those of others."""
