"""What can be decoded: raw bytes, hex text, recordings, pcap files, vectors; each becomes conversations.

source = read(Path("session.rec"))
for conversation in source.conversations: ...
"""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from ggml_rpc_ref.decode.model import Fault
from ggml_rpc_ref.decode.streams import Conversation, Lost, Stream
from ggml_rpc_ref.errors import Damaged, Misuse
from ggml_rpc_ref.files import recording
from ggml_rpc_ref.protocol.connection import Role

Kind = Literal["raw", "hex", "recording", "pcap", "vector"]
KINDS: Final[tuple[Kind, ...]] = ("raw", "hex", "recording", "pcap", "vector")

PCAP_MAGICS: Final = (b"\xa1\xb2\xc3\xd4", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x4d\x3c\xb2\xa1")
"""How pcap files begin: microseconds or nanoseconds, in either byte order."""
PCAPNG_MAGIC: Final = b"\x0a\x0d\x0d\x0a"
PCAPNG_ORDER: Final = (b"\x1a\x2b\x3c\x4d", b"\x4d\x3c\x2b\x1a")
"""Bytes 8 to 12 of a pcapng file; its first four alone could begin a GRAPH_COMPUTE."""

HEX_STARTS: Final = frozenset(bytes([byte]) for byte in b"0123456789abcdefABCDEF#")
"""How hex text begins, white space aside: a digit or a comment."""


@dataclass(slots=True)
class Source:
    """An input, read.

    Attributes:
        kind: what it is.
        conversations: what its connections sent, in order of their beginning.
        fault: what is wrong with the file itself; None: nothing.
        notes: what a reader of the result should know, one sentence each.
    """

    kind: Kind
    conversations: list[Conversation] = field(default_factory=list)
    fault: Fault | None = None
    notes: list[str] = field(default_factory=list)


def read(path: Path, kind: Kind | None = None, *, role: Role = Role.CLIENT, port: int | None = None) -> Source:
    """Read a file.

    Args:
        path: the file.
        kind: what it is; None: told from its first bytes.
        role: who sent raw bytes or hex text.
        port: pcap: the server's port; None: the connections that begin with HELLO.

    Raises:
        Misuse: for a file that can't be read, or a pcap without the package scapy. What is damaged is the source's `fault`.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4096)
        kind = kind or kind_of(start)
        if kind == "recording":
            return _recording(path)
        if kind == "pcap":
            from ggml_rpc_ref.decode import pcap  # the one door to scapy

            return pcap.read(path, port)
        if kind == "vector":
            from ggml_rpc_ref.decode import vector

            return vector.read(path)
        return _hex(path.read_bytes(), role) if kind == "hex" else _raw(path, role)
    except OSError as error:
        raise Misuse(f"can't read {path}: {error.strerror}") from None


def kind_of(start: bytes) -> Kind:
    """Tell what an input is by its first bytes: no command has a number that is a printable character."""
    if recording.is_recording(start):
        return "recording"
    if start[:4] in PCAP_MAGICS or (start[:4] == PCAPNG_MAGIC and start[8:12] in PCAPNG_ORDER):
        return "pcap"
    text = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start)
    if text and start.lstrip()[:1] == b"{":
        return "vector"
    return "hex" if text and start.strip()[:1] in HEX_STARTS else "raw"


EMPTY: Final = Fault("input", "is empty", "input.bytes", 0)


def _raw(path: Path, role: Role) -> Source:
    data = mapped(path)
    return Source("raw", [Conversation(sides={role: Stream.of(data)})], None if data else EMPTY)


def _hex(text: bytes, role: Role) -> Source:
    data, fault = from_hex(text)
    stream = Stream.of(memoryview(data))
    stream.lost = Lost.because(fault) if fault else None
    return Source("hex", [Conversation(sides={role: stream})], fault or (None if data else EMPTY))


def mapped(path: Path) -> memoryview:
    """Return a file's bytes without reading them into memory.

    Raises:
        OSError: where it can't be read.
    """
    with path.open("rb") as file:
        if file.seek(0, 2) == 0:  # nothing can't be mapped
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def from_hex(text: bytes) -> tuple[bytes, Fault | None]:
    """Return the bytes that hex text writes, and what is wrong with the rest; white space, ":", "," and #-comments are skipped."""
    bare = re.sub(rb"#[^\n]*|[\s:,]", lambda found: b" " * len(found[0]), text)
    wrong = re.search(rb"[^0-9a-fA-F ]", bare)
    good = bare[: wrong.start()] if wrong else bare
    digits = good.replace(b" ", b"")
    data = bytes.fromhex(digits[: len(digits) // 2 * 2].decode())
    if wrong:
        return data, Fault("character", f"{wrong[0].decode('latin-1')!a} is no hexadecimal digit", "hex.digit", wrong.start())
    if len(digits) % 2:
        return data, Fault("last byte", "has one hexadecimal digit; it needs two", "hex.pair", len(good.rstrip()) - 1)
    return data, None


def _recording(path: Path) -> Source:
    """Put the chunks of a recording together; where it breaks off, what came before remains."""
    source, found = Source("recording"), dict[int, Conversation]()
    try:
        for order, chunk in enumerate(recording.read(path)):
            conversation = found.setdefault(chunk.connection, Conversation(chunk.connection, whole=True))
            role = Role.CLIENT if chunk.direction is recording.Direction.TO_SERVER else Role.SERVER
            stream = conversation.sides.setdefault(role, Stream())
            if chunk.size:
                stream.append(chunk.left_out or chunk.data, order, chunk.time_ns)
    except Damaged as damage:
        source.fault = Fault.in_file(damage)
    for conversation in found.values():
        conversation.sides.setdefault(Role.CLIENT, Stream())
        conversation.label = f"connection {conversation.number}"
        if source.fault is not None:
            for stream in conversation.sides.values():
                stream.lost = Lost.because(source.fault)
    source.conversations = list(found.values())
    return source
