"""Which builds of ik_llama.cpp a server is one of: its tensor record grew several times while HELLO went on saying 3.5.2.

GET_ALLOC_SIZE changes nothing, and a request whose size is not the expected one is closed before it is read; so it is asked with a
record of each size that has been, on a new connection each time, and the one that is answered is the server's. The 64-bit record is
followed by those of 16 sources.

Source: rpc_server of ik_llama.cpp's ggml-rpc.cpp through its history; the first size was seen on a server built from the sdists of
ik-llama-cpp-python 0.1.0 to 0.1.5.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from ggml_rpc_ref.net.stream import Endpoint, PeerClosed, open_stream
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.dialects import IK_RECORDS
from ggml_rpc_ref.spec.messages import REQUESTS, GetAllocSize, Hello

_NARROW, _WIDE = struct.Struct("<QIQ4I4I"), struct.Struct("<QIQ4Q4Q")
"""The fields up to nb, with 32 and 64 bits: id, type, buffer, ne, nb."""
_SOURCES = 16


def record_size(where: Endpoint, left: Callable[[], float]) -> int | None:
    """Return the bytes of a server's tensor record; None where it answers none of the sizes known.

    Args:
        where: the server, which has answered HELLO as a fork of that name does.
        left: gives the seconds that may still be spent.

    Raises:
        ConnectionError, TimeoutError: where it does not answer HELLO again.
    """
    return next((size for size in IK_RECORDS if _answers(where, size, left)), None)


def _answers(where: Endpoint, size: int, left: Callable[[], float]) -> bool:
    with open_stream(where.host, where.port, left()) as stream:
        stream.send(codec.REQUEST_HEAD.pack(REQUESTS[Hello].number, 0), timeout=left())
        (reply,) = codec.REPLY_HEAD.unpack(stream.receive_exactly(codec.REPLY_HEAD.size, left()))
        stream.receive_exactly(min(reply, 64), left())
        payload = _question(size)
        try:
            stream.send(codec.REQUEST_HEAD.pack(REQUESTS[GetAllocSize].number, len(payload)), payload, timeout=left())
            return stream.receive_exactly(16, left())[:8] == codec.REPLY_HEAD.pack(8)
        except PeerClosed:
            return False


def _question(size: int) -> bytes:
    """Return a GET_ALLOC_SIZE of one F32 element on device 0, with a record of so many bytes."""
    is_wide = size == IK_RECORDS[-1]
    fields = (_WIDE if is_wide else _NARROW).pack(1, 0, 0, 1, 1, 1, 1, 4, 4, 4, 4)
    return struct.pack("<I", 0) + fields.ljust(size, b"\0") + bytes(size * _SOURCES * is_wide)
