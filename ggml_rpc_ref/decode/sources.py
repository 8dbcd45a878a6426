"""What can be decoded: raw bytes, hex text, recordings, captures, vectors. Each has a reader that makes conversations of it.
Any of them may be compressed with gzip, as Wireshark writes captures.

source = read(Path("session.rec"))
for conversation in source.conversations: ...
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from ggml_rpc_ref.decode import pcap, raw, recorded, vector
from ggml_rpc_ref.decode.inputs import Kind, Source
from ggml_rpc_ref.decode.scratch import GZIP_MAGIC, unpacked
from ggml_rpc_ref.decode.streams import Lost
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.files import recording
from ggml_rpc_ref.protocol.connection import Role

READERS: Final[dict[Kind, Callable[[Path, Role, int | None], Source]]] = {
    "raw": lambda path, role, _: raw.read_bytes(path, role),
    "hex": lambda path, role, _: raw.read_hex(path, role),
    "recording": lambda path, *_: recorded.read(path),
    "pcap": lambda path, _, port: pcap.read(path, port),
    "vector": lambda path, *_: vector.read(path),
}
"""Kind of input to its reader, which gets the path, who sent raw bytes, and the server's port in captures."""
KINDS: Final = tuple(READERS)

HEX_STARTS: Final = frozenset(bytes([byte]) for byte in b"0123456789abcdefABCDEF#")
"""How hex text begins, white space aside: a digit or a comment."""


_COMPRESSED: Final = "is compressed with {0}: `{0} -dc {{}} | ggml-rpc-ref decode -` decodes what is in it"
_MODIFIED: Final = (
    "is a capture with the modified pcap header of old Linux systems: `editcap -F pcap {} NEW` (of Wireshark) writes a plain one"
)
OTHER_FILES: Final = {
    GZIP_MAGIC: "is compressed with gzip twice: unpack it once",
    b"\x28\xb5\x2f\xfd": _COMPRESSED.format("zstd"),
    b"\xfd7zXZ\0": _COMPRESSED.format("xz"),
    b"BZh": _COMPRESSED.format("bzip2"),
    b"\x04\x22\x4d\x18": _COMPRESSED.format("lz4"),
    b"PK\3\4": "is a ZIP archive: unpack it, and decode what is in it",
    b"\xa1\xb2\xcd\x34": _MODIFIED,
    b"\x34\xcd\xb2\xa1": _MODIFIED,
    b"snoop\0\0\0": "is a capture of Solaris's snoop: `editcap -F pcap {} NEW` (of Wireshark) makes a pcap file of it",
    b"GGUF": "is a GGUF model, not bytes of the protocol",
    b"\x7fELF": "is a program (ELF), not bytes of the protocol",
}
"""How other files begin, and what is said of each. Read as a request's command and size, none of these beginnings can be right."""


def read(path: Path, kind: Kind | None = None, *, role: Role = Role.CLIENT, port: int | None = None) -> Source:
    """Read a file.

    Args:
        path: the file.
        kind: what it is; None: told by its first bytes.
        role: who sent raw bytes or hex text.
        port: pcap: the server's port; None: the connections that begin with HELLO.

    Raises:
        Misuse: for a file that can't be read, one that says by its first bytes that it is something else (unless `kind` is given),
            and a pcap without the package scapy. What is damaged is the source's `fault`.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4096)
        if kind == "raw" or not start.startswith(GZIP_MAGIC):
            return _read(path, path, start, kind, role, port)
        with unpacked(path) as (copy, fault):
            with copy.open("rb") as file:
                start = file.read(4096)
            source = _read(copy, path, start, kind, role, port)
    except OSError as error:
        raise Misuse(f"can't read {path}: {error.strerror}") from None
    if fault is not None:
        source.fault = fault
        for conversation in source.conversations:
            for stream in conversation.sides.values():
                stream.lost = Lost.because(fault)
    return source


def _read(path: Path, name: Path, start: bytes, kind: Kind | None, role: Role, port: int | None) -> Source:
    """Read a file that is not compressed, or the unpacked copy of one; `name` is the file that was asked for.

    Raises:
        Misuse: for a file that says by its first bytes that it is something else, unless it is told what to take it for.
    """
    for signature, problem in OTHER_FILES.items() if kind is None else ():
        if start.startswith(signature):
            raise Misuse(f"{name} {problem.format(name)}")
    return READERS[kind or kind_of(start)](path, role, port)


def kind_of(start: bytes) -> Kind:
    """Tell what an input is by its first bytes: no command has a number that is a printable character."""
    if recording.is_recording(start):
        return "recording"
    if pcap.is_capture(start):
        return "pcap"
    text = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start)
    if text and start.lstrip()[:1] == b"{":
        return "vector"
    return "hex" if text and start.strip()[:1] in HEX_STARTS else "raw"
