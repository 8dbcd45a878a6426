"""Conversations that exist already, as sessions to begin with: recordings, vectors, finds, and raw bytes of a client.

What the server chose in them becomes made-up numbers, so that it can be said to another one: what a reply to ALLOC_BUFFER or
BUFFER_GET_BASE brought, where a message has a handle or an address. Each connection is a session of its own, a long one several.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ggml_rpc_ref.errors import NOT_OF_ITS_FORM, Misuse, Violation
from ggml_rpc_ref.files import conversation, recording
from ggml_rpc_ref.files.conversation import Omitted, Script
from ggml_rpc_ref.files.recording import Direction, LeftOut
from ggml_rpc_ref.fuzz.packet import Packet, address, handle, spots_of
from ggml_rpc_ref.fuzz.plan import HEAD, plan_of
from ggml_rpc_ref.fuzz.session import Buffer, Note, Session, Step
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import decode_request
from ggml_rpc_ref.spec.messages import AllocBuffer, AllocBufferReply, BufferGetBase, BufferGetBaseReply, Hello, Message
from ggml_rpc_ref.spec.versions import Version

MOST: Final = 2**26
"""Bytes of the largest file that is read."""
LARGEST: Final = 2**18
"""Bytes of the largest message that is taken over, and of data that were left out of a recording and are taken for zeros."""
ROOM: Final = 2**24
"""Bytes of all buffers of a session: they are allocated anew each time that it is had."""
LENGTH: Final = 24
"""Messages of a session; what follows is another one with the same buffers."""
MARGIN: Final = 4096
"""Bytes beside a buffer that are still taken for its addresses."""

Talk = tuple[bytes, bytes]
"""What the client said on a connection, and what the server answered."""


def sessions_of(paths: Iterable[Path], version: Version, devices: int = 1) -> list[Session]:
    """Return the sessions in files, and in all files below directories.

    Args:
        paths: recordings, vectors or finds (.json), anything else being raw bytes from HELLO on; in a directory what is none of
            these, or speaks another version, is passed over.
        version: the protocol version that the server speaks.
        devices: how many it has.

    Raises:
        Misuse: where a path is not there or can't be read, and where there is no session in any of them.
    """
    given, found = list(paths), list[Session]()
    for given_path in given:
        if not given_path.exists():
            raise Misuse(f"--seeds {given_path}: there is no such file or directory")
        for path in [given_path] if given_path.is_file() else sorted(p for p in given_path.rglob("*") if p.is_file()):
            for name, talk in _talks(path, version):
                found += _Reader(name, version, devices).sessions(*talk)
    if given and not found:
        raise Misuse(f"--seeds {given[0]}: no conversation of protocol {version} is in it")
    return found


def _talks(path: Path, version: Version) -> Iterator[tuple[str, Talk]]:
    """Yield a name and what was said for each connection in a file; nothing where it has none of the version."""
    try:
        if path.stat().st_size > MOST:
            return
        start = path.read_bytes()[: len(recording.MAGIC)]
        if recording.is_recording(start):
            yield from _of_recording(path, version)
        elif path.suffix == ".json":
            yield from _of_json(path, version)
        elif start[:1] == b"\x0e":
            yield path.name, (path.read_bytes(), b"")
    except OSError as error:
        raise Misuse(f"can't read {path}: {error.strerror}") from None


def _of_recording(path: Path, version: Version) -> Iterator[tuple[str, Talk]]:
    said: dict[int, tuple[bytearray, bytearray]] = {}
    with contextlib.suppress(Misuse):  # one that breaks off is taken up to there
        if recording.read_header(path).protocol == str(version):
            for chunk in recording.read(path):
                way = said.setdefault(chunk.connection, (bytearray(), bytearray()))[chunk.direction is Direction.TO_CLIENT]
                way += bytes(chunk.size) if chunk.left_out and chunk.size <= LARGEST else chunk.data
                if chunk.left_out and chunk.size > LARGEST:
                    break
    for number, (ours, theirs) in said.items():
        yield f"{path.name}#{number}", (bytes(ours), bytes(theirs))


def _of_json(path: Path, version: Version) -> Iterator[tuple[str, Talk]]:
    with contextlib.suppress(*NOT_OF_ITS_FORM):  # no conversation, or none of ours
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["protocol"] != str(version):
            return
        for row in content.get("cases", [content]):
            yield from _of_script(conversation.from_json(row, "reason" if "reason" in row else "about"))


def _of_script(script: Script) -> Iterator[tuple[str, Talk]]:
    """Yield what was said on each connection; names without a value get made-up numbers, one buffer for each stem."""
    stems = list(dict.fromkeys(name.partition(".")[0] for name in script.bindings))
    values = {name: row.value if row.value is not None else _made_up(name, stems) for name, row in script.bindings.items()}
    said: dict[int, tuple[bytearray, bytearray]] = {}
    for step in script.steps:
        way = said.setdefault(step.connection, (bytearray(), bytearray()))[step.act == "receive"]
        if any(isinstance(piece, Omitted) and piece.size > LARGEST for piece in step.pieces) or _size(step) > MOST:
            break
        for piece in step.pieces:
            data = conversation.recorded(piece, values)
            way += bytes(data.size) if isinstance(data, LeftOut) else data
    for number, (ours, theirs) in said.items():
        yield f"{script.id}#{number}", (bytes(ours), bytes(theirs))


def _size(step: conversation.Step) -> int:
    return conversation.size_of(step.pieces)


def _made_up(name: str, stems: list[str]) -> int:
    number = stems.index(name.partition(".")[0])
    return address(number) if name.endswith(".base") else handle(number)


@dataclass(slots=True)
class _Reader:
    """Turns what was said on a connection into sessions."""

    name: str
    version: Version
    devices: int
    buffers: list[Buffer] = field(default_factory=list)
    handles: dict[int, int] = field(default_factory=dict)
    bases: dict[int, int] = field(default_factory=dict)
    is_opening: bool = True

    def sessions(self, ours: bytes, theirs: bytes) -> Iterator[Session]:
        """Yield the sessions; none where its buffers are too large."""
        hello = HEAD + codec.minimum_size(Hello, self.version)
        if ours[:1] != b"\x0e" or len(ours) <= hello:
            return
        answered = codec.REPLY_HEAD.size + int.from_bytes(theirs[:8], "little")
        steps = list(self._steps(ours[hello:], theirs[answered:]))
        if sum(buffer.size for buffer in self.buffers) > ROOM:
            return
        for start in range(0, len(steps), LENGTH):
            part = steps[start : start + LENGTH]
            note = Note("seed", part[0].label(self.version).partition(" of ")[0], f"as in {self.name}")
            yield Session(f"{self.name}/{start}", self.version, tuple(self.buffers), part, [note])

    def _steps(self, ours: bytes, theirs: bytes) -> Iterator[Step]:
        plan, at = plan_of(ours, self.version), 0
        ends = [*(due.start for due in plan.dues[1:]), _end(plan.dues[-1].start, ours) if plan.dues else 0]
        for due, end in zip(plan.dues, ends, strict=False):
            data, reply = ours[due.start : end], theirs[at + codec.REPLY_HEAD.size : at + due.reply]
            at += due.reply
            if due.cls is AllocBuffer and self._allocate(data[HEAD:], reply):
                continue
            if due.cls is BufferGetBase and self._place(data[HEAD:], reply):
                continue
            self.is_opening = False
            if len(data) <= LARGEST:
                yield Step(0, self._message(due.cls, data))
        left = ours[ends[-1] :]
        if 0 < len(left) <= LARGEST and plan.dues:
            yield Step(0, Packet(left), mutated=True)

    def _allocate(self, payload: bytes, reply: bytes) -> bool:
        """Take note of a buffer; without replies only of those that are allocated before anything else, as in a corpus."""
        request: AllocBuffer = codec.decode(AllocBuffer, payload, self.version)
        number = len(self.buffers)
        if len(reply) == 16:
            given: AllocBufferReply = codec.decode(AllocBufferReply, reply, self.version)
            if not given.remote_ptr:
                return False
            self.handles[given.remote_ptr] = number
        elif not self.is_opening:
            return False
        if request.size > ROOM:
            return False
        self.buffers.append(Buffer(number, request.size, min(request.device, self.devices - 1)))
        return True

    def _place(self, payload: bytes, reply: bytes) -> bool:
        request: BufferGetBase = codec.decode(BufferGetBase, payload, self.version)
        number = self.handles.get(request.remote_ptr)
        if number is None or len(reply) != 8:
            return not reply
        self.bases[number] = codec.decode(BufferGetBaseReply, reply, self.version).base_ptr
        return True

    def _message(self, cls: type, data: bytes) -> Message | Packet:
        """Return a message with made-up numbers where it has the server's."""
        told = bytearray(data)
        for spot in spots_of(cls, data, self.version):
            (value,) = struct.unpack_from("<Q", told, spot)
            if (number := self._made_up(value)) is not None:
                struct.pack_into("<Q", told, spot, number)
        try:
            return decode_request(cls, bytes(told[HEAD:]), self.version)
        except Violation:
            return Packet(bytes(told))

    def _made_up(self, value: int) -> int | None:
        if value in self.handles:
            return handle(self.handles[value])
        sizes: Mapping[int, int] = {buffer.number: buffer.size for buffer in self.buffers}
        for number, base in self.bases.items():
            if base - MARGIN <= value <= base + sizes.get(number, 0) + MARGIN:
                return address(number, value - base)
        return None


def _end(start: int, data: bytes) -> int:
    """Return where the message ends that begins at an offset."""
    return start + HEAD + int.from_bytes(data[start + 1 : start + HEAD], "little")
