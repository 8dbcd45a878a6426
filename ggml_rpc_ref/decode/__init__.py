"""Bytes to annotated messages: raw bytes, hex text, recordings, captures and vectors, for people and for programs.

    decoded = decode_file(Path("session.rec"), Options())
    for message in decoded.messages: ...

Nothing that an input holds raises: what is wrong is among `decoded.faults`, and what came before it among the messages.
"""

from ggml_rpc_ref.decode.decoded import Decoded, Options, decode_file
from ggml_rpc_ref.decode.model import Fault, Item, Message

__all__ = ["Decoded", "Fault", "Item", "Message", "Options", "decode_file"]
