"""Bytes to annotated messages: raw bytes, hex text, recordings, captures and vectors, for people and for programs.

    decoded = decode_file(Path("session.rec"), Options())
    for message in decoded.messages: ...

No content of an input raises: what is wrong with it is in `decoded.faults`, and what came before the fault in `decoded.messages`.
"""

from ggml_rpc_ref.decode.decoded import Decoded, Options, decode_file
from ggml_rpc_ref.decode.model import Fault, Item, Message

__all__ = ["Decoded", "Fault", "Item", "Message", "Options", "decode_file"]
