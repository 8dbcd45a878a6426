"""What can be decoded: raw bytes, hex text, recordings, captures, vectors. Each has a reader that makes conversations of it.

source = read(Path("session.rec"))
for conversation in source.conversations: ...
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from ggml_rpc_ref.decode import pcap, raw, recorded, vector
from ggml_rpc_ref.decode.inputs import Kind, Source
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


def read(path: Path, kind: Kind | None = None, *, role: Role = Role.CLIENT, port: int | None = None) -> Source:
    """Read a file.

    Args:
        path: the file.
        kind: what it is; None: told by its first bytes.
        role: who sent raw bytes or hex text.
        port: pcap: the server's port; None: the connections that begin with HELLO.

    Raises:
        Misuse: for a file that can't be read, or a pcap without the package scapy. What is damaged is the source's `fault`.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4096)
        return READERS[kind or kind_of(start)](path, role, port)
    except OSError as error:
        raise Misuse(f"can't read {path}: {error.strerror}") from None


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
