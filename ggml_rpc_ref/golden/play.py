"""Play vectors against a live server: the symbolic conversations of sessions/ and handmade/malformed/, as conformance cases.

What a step sends is sent as it is, with values in place of names; a reply is compared piece by piece and binds the names that it
brings. Verdicts, the check after each case that the server lives, restarts and reports are those of `conformance`. `play_ops` plays
the vectors of ops.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from ggml_rpc_ref.conformance.case import Case
from ggml_rpc_ref.conformance.peer import Facts, Peer, Subject
from ggml_rpc_ref.conformance.verdict import Broken, NotJudged, Verdict
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.files.conversation import (
    U64,
    Anything,
    AtLeast,
    Exactly,
    Named,
    Near,
    Omitted,
    Piece,
    Repeated,
    Script,
    Step,
    expand,
    from_json,
    size_of,
)
from ggml_rpc_ref.golden import play_ops
from ggml_rpc_ref.golden.lint import files, playable, reading
from ggml_rpc_ref.ops.compare import compare
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.fnv import fnv1a
from ggml_rpc_ref.spec.versions import DEFAULT, Version
from ggml_rpc_ref.tensor import NUMPY_TYPES

PATIENCE: Final = 12.0
"""The factor on the usual deadline for the answers of a session, in which whole models are loaded and computed."""

CLAUSES: Final = {
    "HELLO": "session.hello-version",
    "DEVICE_COUNT": "device.count",
    "GET_ALIGNMENT": "device.alignment",
    "GET_MAX_SIZE": "device.max-size",
    "GET_DEVICE_MEMORY": "device.memory",
    "ALLOC_BUFFER": "buffer.alloc-size",
    "BUFFER_GET_BASE": "buffer.disjoint",
    "GET_ALLOC_SIZE": "tensor.alloc-size",
    "SET_TENSOR_HASH": "data.hash-miss",
    "GET_TENSOR": "data.round-trip",
    "COPY_TENSOR": "data.copy",
}
"""Command to the rule that its reply breaks if the size is right and the contents are wrong."""
PLAYED: Final = frozenset({"sessions", "malformed", "ops"})
"""The kinds of vectors that can be played."""
SHAPE: Final = "frame.reply-presence"
"""The rule that a reply of the wrong size breaks."""


def cases(directory: Path, data: Mapping[Omitted, memoryview]) -> Iterator[Case]:
    """Yield a case for each conversation and each op's vector in a directory.

    Args:
        directory: that of the vectors, or one file.
        data: the data that vectors omit.

    Raises:
        Damaged: for a file in which `vectors verify` would find a fault, with the first one.
        Misuse: for a file that can't be read, or if there is none.
    """
    for kind, path in files(directory):
        if kind not in PLAYED:
            continue
        content = playable(kind, path)
        with reading(path):
            if kind == "sessions":
                yield _session(content, data)
            elif kind == "malformed":
                version = Version.parse(content["protocol"])
                yield from [_malformed(row, version, data) for row in content["cases"]]
            else:
                yield from list(play_ops.cases(path, content))


def _session(content: Any, data: Mapping[Omitted, memoryview]) -> Case:
    script, version = from_json(content), Version.parse(content["protocol"])
    play = partial(_play, script, version, data, "")
    # another version's session of the same name is another conversation
    id = f"sessions/{script.id}" if version == DEFAULT else f"sessions/{version}/{script.id}"
    return Case(id, script.about, play, patience=PATIENCE, judges=SHAPE)


def _malformed(row: Any, version: Version, data: Mapping[Omitted, memoryview]) -> Case:
    script, rule = from_json(row, about="reason"), row["rule"]
    deadly = bool({"CRASH", "HANG"} & set(row["observed"]["verdict"]))
    id = f"malformed/{script.id}" if version == DEFAULT else f"malformed/{version}/{script.id}"
    return Case(id, script.about, partial(_play, script, version, data, rule), may_crash=deadly, judges=rule)


def select(found: list[Case], patterns: tuple[str, ...]) -> list[Case]:
    """Return the cases whose id, or whose rule's id, matches one of the patterns (*, ?, [...]), or all.

    A pattern that ends before a slash stands for all ids below it: "sessions", "ops/ADD".

    Raises:
        Misuse: for a pattern that matches nothing.
    """
    for pattern in patterns:
        if not any(_matches(case, pattern) for case in found):
            raise Misuse(f"no vector and no rule matches {pattern!r}; `ggml-rpc-ref vectors play --list` lists them")
    return [case for case in found if not patterns or any(_matches(case, pattern) for pattern in patterns)]


def _matches(case: Case, pattern: str) -> bool:
    return any(fnmatchcase(case.id, form) for form in (pattern, f"{pattern}/*")) or fnmatchcase(case.rule.id, pattern)


# ------------------------------------------------------------------------------------------------------------ one script


def _play(script: Script, version: Version, data: Mapping[Omitted, memoryview], rule: str, subject: Subject) -> None:
    _require_version(version, subject)
    _Player(script, data, rule, subject).play()


def _require_version(version: Version, subject: Subject) -> None:
    """Raise NotJudged unless the server speaks the version in which a conversation was recorded.

    It may speak it beside the one that it announces to others: a server can choose by the form of HELLO, which is its client's only
    sign.
    """
    facts = subject.facts
    if version == facts.version:
        return
    other = Subject(subject.endpoint, subject.timeout, Facts(version))
    try:
        other.connect()
    except Broken:
        raise NotJudged(f"it speaks protocol {facts.version}, and this conversation is one of {version}") from None
    finally:
        other.close()


@dataclass(slots=True)
class _Player:
    """The state while one script is played: the values of names, and the open connections.

    Attributes:
        rule: id of the rule that a wrong reply breaks; "": it depends on the command.
    """

    script: Script
    data: Mapping[Omitted, memoryview]
    rule: str
    subject: Subject
    values: dict[str, int] = field(default_factory=dict)
    open: dict[int, Peer] = field(default_factory=dict)

    def play(self) -> None:
        """Take every step in order."""
        self._check_prerequisites()
        chosen = ((name, binding) for name, binding in self.script.bindings.items() if binding.by == "client")
        self.values |= {name: binding.value for name, binding in chosen if binding.value is not None}
        for number, step in enumerate(self.script.steps, 1):
            try:
                self._take(step)
            except Broken as broken:
                place = f"step {number}{f' ({step.command})' if step.command else ''}"
                raise Broken(broken.expected, f"{broken.actual}; {place}", broken.rule, broken.verdict) from None

    def _check_prerequisites(self) -> None:
        """Raise NotJudged if the server, or this player, lacks what the conversation needs."""
        if "two-devices" in self.script.flags:
            self.subject.other_device()
        if "one-device" in self.script.flags and self.subject.facts.device_count != 1:
            raise NotJudged("it has more than one device")
        self._check_commands()
        for step in self.script.steps:
            for piece in step.pieces:
                if step.act == "send" and isinstance(piece, Omitted):
                    self._require_data(piece)

    def _check_commands(self) -> None:
        """Raise NotJudged if a request before the last one is of a command that the diagnosis found not to work."""
        sent = [step.command for step in self.script.steps if step.act == "send"]
        for name in sent[:-1]:
            if name in self.subject.facts.useless:
                raise self.subject.facts.useless[name]

    def _require_data(self, piece: Omitted) -> None:
        """Raise NotJudged if the data that is to be sent is not available."""
        what = f"data of {piece.size} bytes with the hash {piece.fnv1a:016x} is not in the vector"
        try:
            there = piece in self.data
        except Misuse as error:
            raise NotJudged(f"{what}, and {error}", Verdict.SKIP) from None
        if not there:
            raise NotJudged(f"{what}: --data FILE, for a model's weights its GGUF (`upstream model`)", Verdict.SKIP)

    def _take(self, step: Step) -> None:
        peer = self._peer(step)
        match step.act:
            case "send":
                peer.send(*expand(step.pieces, self.values, self.data))
            case "receive":
                self._receive(peer, step)
            case "refused":
                peer.refused()
            case "close":
                del self.open[step.connection]
                peer.reset() if step.how == "reset" else peer.close()

    def _peer(self, step: Step) -> Peer:
        if step.connection not in self.open:
            if self.open and not self.subject.answers_second_client():
                raise NotJudged("it serves one client at a time")
            self.open[step.connection] = self.subject.open()
        return self.open[step.connection]

    # ------------------------------------------------------------------------------------------------------- replies

    def _receive(self, peer: Peer, step: Step) -> None:
        what = f"the reply to {step.command}" if step.command else "a reply"
        head = codec.REPLY_HEAD
        announced, wanted = peer.take(head.size, what), size_of(step.pieces) - head.size
        (size,) = head.unpack(announced)
        if size != wanted:
            raise Broken(f"{what} to have {wanted} bytes", f"its size field says {size}", SHAPE, Verdict.DESYNC)
        reply, at = memoryview(announced + peer.take(size, what)), 0
        for piece in step.pieces:
            part = reply[at : at + size_of([piece])]
            if wrong := self._wrong(piece, part):
                self._check_abilities(step, piece, part)
                raise Broken(f"{what} to hold {wrong[0]} at byte {at}", wrong[1], self._clause(step, piece))
            at += len(part)

    def _clause(self, step: Step, piece: Piece) -> str:
        """Return the rule that a wrong piece of a reply breaks; "" for that of the case."""
        if self.rule:
            return self.rule
        return "graph.computes" if isinstance(piece, Near) else CLAUSES.get(step.command, "")

    def _check_abilities(self, step: Step, piece: Piece, part: memoryview) -> None:
        """Raise NotJudged if a difference shows only that the server lacks an ability which the conversation needs."""
        if step.command == "SET_TENSOR_HASH" and "needs-cache" in self.script.flags:
            raise NotJudged("its cache has the data from before: start it with an empty one" if part[-1] else "it keeps no cache")
        exact = step.command == "ALLOC_BUFFER" and "exact-buffer-size" in self.script.flags
        if exact and isinstance(piece, Exactly) and int.from_bytes(part, "little") > int.from_bytes(piece.data, "little"):
            raise NotJudged("it gives more bytes than it is asked for")

    def _wrong(self, piece: Piece, part: memoryview) -> tuple[str, str] | None:
        """Return what was expected and what was found, or None if they agree; bind a new name."""
        match piece:
            case Exactly(data):
                return None if part == data else _first_difference(data, part)
            case Named(name, offset):
                value = int.from_bytes(part, "little")
                bound = self.values.setdefault(name, (value - offset) % U64)
                expected = (bound + offset) % U64
                return None if value == expected else (f"{name}{offset:+d}, {expected:#x}", f"got {value:#x}")
            case Repeated(data, times):
                return None if part == data * times else _first_difference(data * times, part)
            case Omitted(_, wanted):
                found = fnv1a(part)
                return None if found == wanted else (f"data with the hash {wanted:016x}", f"its hash is {found:016x}")
            case AtLeast(least, _):
                value = int.from_bytes(part, "little")
                return None if value >= least else (f"at least {least}", f"got {value}")
            case Anything():
                return None
            case Near():
                return _far(piece, part)


def _far(piece: Near, part: memoryview) -> tuple[str, str] | None:
    wanted, found = (np.frombuffer(data, NUMPY_TYPES[piece.type]).reshape(1, 1, 1, -1) for data in (piece.recorded, part))
    mismatch = compare(wanted, found, Tolerance(rtol=0.0, atol=0.0, nmse=piece.nmse))
    if mismatch is None:
        return None
    return f"{wanted.size} numbers within a normalised mean squared error of {piece.nmse:g}", str(mismatch)


def _first_difference(wanted: bytes, found: memoryview) -> tuple[str, str]:
    at = next(index for index, (a, b) in enumerate(zip(wanted, found, strict=True)) if a != b)
    return f"{wanted[at : at + 8].hex()} (from {at} bytes on)", f"got {bytes(found[at : at + 8]).hex()}"
