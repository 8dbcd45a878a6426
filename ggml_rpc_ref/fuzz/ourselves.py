"""Our own code under the same fire: the server in this process, the decoder, and every reader of files.

Nothing that a peer sends may raise anything but a Violation, nothing that a file holds anything but Damaged or another Misuse; a
message must mean the same however it is cut up; and after each session all memory must have been given back.
"""

from __future__ import annotations

import json
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from ggml_rpc_ref.decode import Options as DecodeOptions
from ggml_rpc_ref.decode import decode_file, text
from ggml_rpc_ref.errors import Misuse, Unsupported
from ggml_rpc_ref.files.recording import Direction, Recorder
from ggml_rpc_ref.fuzz.choose import Chooser
from ggml_rpc_ref.fuzz.finds import Find, as_json
from ggml_rpc_ref.fuzz.generate import Generator
from ggml_rpc_ref.fuzz.inside import Inside, Line, bytes_of
from ggml_rpc_ref.fuzz.judge import Kind
from ggml_rpc_ref.fuzz.replay import load
from ggml_rpc_ref.fuzz.session import Session
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.messages import Hello, HelloReply
from ggml_rpc_ref.spec.versions import DEFAULT, Version

FILES: Final = 0.05
"""The part of the rounds that go to the decoder and the readers of files."""
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
        sessions, messages: that our server had.
        files: that were read.
        outcomes: rule by which a session ended, or "accepted", to how often.
    """

    seconds: float = 0.0
    sessions: int = 0
    messages: int = 0
    files: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    def add_to(self, path: Path) -> None:
        """Add these to the sums that a file keeps, one entry for each version of the program's file format."""
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"schema_version": 1}
        for name in ("seconds", "sessions", "messages", "files"):
            content[name] = round(content.get(name, 0) + getattr(self, name), 1)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


class Ourselves:
    """Fuzzes our own code in this process.

    Args:
        version: the protocol version.
        seed: of all choices.
        devices: of the server.
    """

    def __init__(self, version: Version = DEFAULT, seed: str = "0", devices: int = 2) -> None:
        self.version, self.rng = version, Random(seed)
        self.inside = Inside(version, devices)
        self.chooser = Chooser(Generator(version, devices), seed)
        self.sums = Sums()
        self.defects: dict[tuple[str, ...], Defect] = {}

    def run(self, seconds: float, most: int = 0) -> Iterator[Defect]:
        """Yield each new defect.

        Args:
            seconds: how long.
            most: messages after which to end; 0: any number.
        """
        begun, used = time.monotonic(), time.process_time()
        with tempfile.TemporaryDirectory(prefix="ggml-rpc-ref-fuzz-") as directory:
            while time.monotonic() - begun < seconds and not (most and self.sums.messages >= most):
                session = self.chooser.next()
                found = self._file(session, Path(directory) / "file") if self.rng.random() < FILES else self._session(session)
                self.sums.seconds = time.process_time() - used
                for defect in found:
                    if self._is_new(defect):
                        yield defect

    def _is_new(self, defect: Defect) -> bool:
        known = self.defects.setdefault(defect.key, defect)
        known.seen += known is not defect
        return known is defect

    # ----------------------------------------------------------------------------------------------------------- the server

    def _session(self, session: Session) -> Iterator[Defect]:
        what = "; ".join(f"{note.target}: {note.what}" for note in session.notes) + f" (seed {session.seed})"
        said = self.inside.have(session)
        self.sums.sessions += 1
        self.sums.messages += len(session.steps)
        self.sums.outcomes.update(one.violation.rule if one.violation else "accepted" for one in said)
        for one in said:
            if one.crash is not None:
                yield defect_of(one.crash, what)
        if not self.inside.is_clean:
            yield Defect(("not given back",), "memory was not given back at the end of a session", what)
        if self.rng.random() < CUT_UP and session.connections == 1 and self._differs_cut_up(session):
            yield Defect(("segmentation",), "a session means something else where it is cut up", what)

    def _differs_cut_up(self, session: Session) -> bool:
        """Whether a session without buffers of its own gets other answers where it comes in pieces."""
        from ggml_rpc_ref.server.handlers import Session as ServerSession

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
        kind, write = self.rng.choice(list(WRITERS.items()))
        write(session, path)
        data = damaged(self.rng, path.read_bytes())
        path.write_bytes(data)
        self.sums.files += 1
        for read in (decoded, lambda path: load(path)):
            try:
                read(path)
            except (Misuse, Unsupported):
                pass  # said in a sentence
            except Exception as error:
                yield defect_of(error, f"{kind} of {len(data)} bytes: {data[:32].hex()}…")


def defect_of(error: Exception, what: str) -> Defect:
    """Return the defect that an exception is, known by its type and where it was raised in our code."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "ggml_rpc_ref" in frame.filename]
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
    return Defect((type(error).__name__, where), f"{type(error).__name__} at {where}: {error}", what)


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


def _write_raw(session: Session, path: Path) -> None:
    path.write_bytes(codec.encode_request(Hello(), session.version) + bytes_of(session, 0, {}))


def _write_hex(session: Session, path: Path) -> None:
    path.write_text((codec.encode_request(Hello(), session.version) + bytes_of(session, 0, {})).hex(" ", 16))


def _write_find(session: Session, path: Path) -> None:
    path.write_text(json.dumps(as_json(Find(Kind.DEFECT, ("x",), "a find", "", [session]))))


def _write_recording(session: Session, path: Path) -> None:
    with Recorder(path, endpoint="127.0.0.1:50052", protocol=str(session.version)) as recorder:
        recorder.write(Direction.TO_SERVER, 1, codec.encode_request(Hello(), session.version))
        recorder.write(Direction.TO_SERVER, 1, bytes_of(session, 0, {}))
        recorder.write(Direction.TO_CLIENT, 1, codec.encode_reply(_hello_reply(session.version), session.version))


def _hello_reply(version: Version) -> HelloReply:
    major, minor, patch = version
    return HelloReply(major=major, minor=minor, patch=patch)


WRITERS: Final[dict[str, Callable[[Session, Path], None]]] = {
    "raw": _write_raw,
    "hex": _write_hex,
    "find": _write_find,
    "recording": _write_recording,
}
"""Kind of file to what writes one of a session."""
