"""Recordings to streams."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ggml_rpc_ref.decode.inputs import Source
from ggml_rpc_ref.decode.model import Fault
from ggml_rpc_ref.decode.streams import Conversation, Lost, Stream
from ggml_rpc_ref.errors import Damaged
from ggml_rpc_ref.files import recording
from ggml_rpc_ref.protocol.connection import Role

UNENDED: Final = Lost("the recording ends there, and says of neither side that it ended the connection", "recording.message-whole")


def read(path: Path) -> Source:
    """Put the chunks of a recording together; where it breaks off, what came before remains.

    Raises:
        Misuse: for a file that can't be read. What is damaged is the source's `fault`.
    """
    source, found = Source("recording"), dict[int, Conversation]()
    ended: set[int] = set()
    try:
        for order, chunk in enumerate(recording.read(path)):
            conversation = found.setdefault(chunk.connection, Conversation(chunk.connection, whole=True))
            role = Role.CLIENT if chunk.direction is recording.Direction.TO_SERVER else Role.SERVER
            stream = conversation.sides.setdefault(role, Stream())
            if chunk.size:
                stream.append(chunk.left_out or chunk.data, order, chunk.time_ns)
            else:
                ended.add(chunk.connection)
    except Damaged as damage:
        source.fault = Fault.in_file(damage)
    for conversation in found.values():
        conversation.sides.setdefault(Role.CLIENT, Stream())
        conversation.label = f"connection {conversation.number}"
        for stream in conversation.sides.values():
            if source.fault is not None:
                stream.lost = Lost.because(source.fault)
            elif conversation.number not in ended:
                stream.unended = UNENDED  # the recorder died, or still runs: it writes what passes as it passes
    source.conversations = list(found.values())
    return source
