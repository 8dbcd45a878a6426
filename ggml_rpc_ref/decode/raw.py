"""One stream of bytes, as it is or written as hex text, to a conversation with one side."""

from __future__ import annotations

import re
from pathlib import Path

from ggml_rpc_ref.decode.inputs import EMPTY, Source, mapped
from ggml_rpc_ref.decode.model import Fault
from ggml_rpc_ref.decode.streams import Conversation, Lost, Stream
from ggml_rpc_ref.protocol.connection import Role


def read_bytes(path: Path, role: Role) -> Source:
    """Read a file of the bytes that one side sent.

    Raises:
        OSError: where it can't be read.
    """
    data = mapped(path)
    return Source("raw", [Conversation(sides={role: Stream.of(data)})], None if data else EMPTY)


def read_hex(path: Path, role: Role) -> Source:
    """Read a file of the bytes that one side sent, as hex text.

    Raises:
        OSError: where it can't be read.
    """
    data, fault = from_hex(path.read_bytes())
    stream = Stream.of(memoryview(data))
    stream.lost = Lost.because(fault) if fault else None
    return Source("hex", [Conversation(sides={role: stream})], fault or (None if data else EMPTY))


def from_hex(text: bytes) -> tuple[bytes, Fault | None]:
    """Return the bytes that hex text stands for, up to what is wrong with it; white space, ":", "," and #-comments are skipped."""
    bare = re.sub(rb"#[^\n]*|[\s:,]", lambda found: b" " * len(found[0]), text)  # as long as the text: offsets stay right
    wrong = re.search(rb"[^0-9a-fA-F ]", bare)
    good = bare[: wrong.start()] if wrong else bare
    digits = good.replace(b" ", b"")
    data = bytes.fromhex(digits[: len(digits) // 2 * 2].decode())
    if wrong:
        problem = f"{wrong[0].decode('latin-1')!a} is not a hexadecimal digit"
        return data, Fault("character", problem, "hex.digit", wrong.start())
    if len(digits) % 2:
        return data, Fault("last byte", "has one hexadecimal digit; it needs two", "hex.pair", len(good.rstrip()) - 1)
    return data, None
