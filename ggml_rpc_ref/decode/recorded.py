"""Recordings to streams."""

from __future__ import annotations

from pathlib import Path

from ggml_rpc_ref.decode.inputs import Source
from ggml_rpc_ref.decode.model import Fault
from ggml_rpc_ref.decode.streams import Conversation, Lost, Stream
from ggml_rpc_ref.errors import Damaged
from ggml_rpc_ref.files import recording
from ggml_rpc_ref.protocol.connection import Role


def read(path: Path) -> Source:
    """Put the chunks of a recording together; where it breaks off, what came before remains.

    Raises:
        Misuse: for a file that can't be read. What is damaged is the source's `fault`.
    """
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
