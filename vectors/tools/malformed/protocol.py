"""The protocol's bytes, laid out with `struct` from SPEC.md's tables, and the steps of a conversation.

Nothing here may import ggml_rpc_ref: these bytes are to find mistakes in its tables and codec, not to repeat them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

Piece = bytes | str | dict[str, Any]
"""Bytes; a u64 by name, "${buf0.base}+64"; or what only the JSON has a word for, {"repeat": …}, {"at_least": …}."""
Step = dict[str, Any]

COMMANDS: Final = {
    "ALLOC_BUFFER": 0, "GET_ALIGNMENT": 1, "GET_MAX_SIZE": 2, "BUFFER_GET_BASE": 3, "FREE_BUFFER": 4, "BUFFER_CLEAR": 5,
    "SET_TENSOR": 6, "SET_TENSOR_HASH": 7, "GET_TENSOR": 8, "COPY_TENSOR": 9, "GRAPH_COMPUTE": 10, "GET_DEVICE_MEMORY": 11,
    "INIT_TENSOR": 12, "GET_ALLOC_SIZE": 13, "HELLO": 14, "DEVICE_COUNT": 15, "GRAPH_RECOMPUTE": 16,
    # of later versions
    "MEMSET_TENSOR": 17, "SET_TENSOR_2D": 18, "GET_TENSOR_2D": 19, "COMM_INIT": 20, "COMM_ALLREDUCE": 21, "COMM_FREE": 22,
}  # fmt: skip
SILENT: Final = {"SET_TENSOR", "GRAPH_COMPUTE", "GRAPH_RECOMPUTE"}
"""Requests without a reply at 3.6.1."""
COMPUTE: Final = 16
"""The flag of a node that is to be computed."""


class Type(NamedTuple):
    """A ggml_type: its number, elements and bytes per block."""

    number: int
    block: int
    size: int


F32, F16, I8, I32, I64 = Type(0, 1, 4), Type(1, 1, 2), Type(24, 1, 1), Type(26, 1, 4), Type(27, 1, 8)
Q4_0, Q8_0, Q4_K, Q6_K = Type(2, 32, 18), Type(8, 32, 34), Type(12, 256, 144), Type(14, 256, 210)
MXFP4, NVFP4 = Type(39, 32, 17), Type(40, 64, 36)


def u32(*values: int) -> bytes:
    """Return numbers as u32 each."""
    return struct.pack(f"<{len(values)}I", *values)


def u64(*values: int) -> bytes:
    """Return numbers as u64 each."""
    return struct.pack(f"<{len(values)}Q", *values)


def i32(*values: int) -> bytes:
    """Return numbers as i32 each."""
    return struct.pack(f"<{len(values)}i", *values)


def i64(*values: int) -> bytes:
    """Return numbers as i64 each."""
    return struct.pack(f"<{len(values)}q", *values)


def f32(*values: float) -> bytes:
    """Return numbers as F32 each."""
    return struct.pack(f"<{len(values)}f", *values)


def zeros(count: int) -> Piece:
    """Return zero bytes, written as a repetition where they are many."""
    return bytes(count) if count <= 64 else {"repeat": "00", "times": count}


def handle(buffer: str) -> str:
    """Return the remote_ptr of a buffer, by name."""
    return f"${{{buffer}.remote_ptr}}"


def address(buffer: str, offset: int = 0) -> str:
    """Return the address at an offset in a buffer, by name."""
    return f"${{{buffer}.base}}" + (f"{offset:+d}" if offset else "")


# ------------------------------------------------------------------------------------------------------------ tensors


@dataclass(frozen=True)
class Tensor:
    """An RpcTensor, 296 bytes."""

    id: int = 1
    type: int = 0
    buffer: int | str = 0
    ne: tuple[int, ...] = (1, 1, 1, 1)
    nb: tuple[int, ...] = (4, 4, 4, 4)
    op: int = 0
    op_params: bytes = b""
    flags: int = 0
    src: tuple[int, ...] = ()
    view_src: int = 0
    view_offs: int = 0
    data: int | str = 0
    name: bytes = b""
    padding: bytes = b""

    @property
    def pieces(self) -> list[Piece]:
        """The record, with names where buffer and data are names."""
        src = (*self.src, *[0] * 10)[:10]
        return [
            struct.pack("<QI", self.id, self.type),
            _u64(self.buffer),
            struct.pack("<4I4II64si", *self.ne, *self.nb, self.op, self.op_params, self.flags),
            struct.pack("<10QQQ", *src, self.view_src, self.view_offs),
            _u64(self.data),
            struct.pack("<64s4s", self.name, self.padding),
        ]


def _u64(value: int | str) -> Piece:
    return u64(value) if isinstance(value, int) else value


def quad(ne: Sequence[int]) -> tuple[int, ...]:
    """Return dimensions padded with 1 to four."""
    return (*ne, 1, 1, 1)[:4]


def strides(type: Type, ne: Sequence[int]) -> tuple[int, ...]:
    """Return the nb of a tensor without gaps."""
    row = type.size * (quad(ne)[0] // type.block)
    return (type.size, row, row * quad(ne)[1], row * quad(ne)[1] * quad(ne)[2])


def tensor(offset: int = 0, ne: Sequence[int] = (16,), type: Type = F32, in_: str = "buf0", **fields: Any) -> Tensor:
    """Return a contiguous tensor at an offset in a buffer; other fields as given."""
    placed: dict[str, Any] = {
        "type": type.number,
        "buffer": handle(in_),
        "ne": quad(ne),
        "nb": strides(type, ne),
        "data": address(in_, offset),
    }
    return Tensor(**(placed | fields))


# ------------------------------------------------------------------------------------------------------------ requests


class Request(NamedTuple):
    """A request: command and payload; `says`: a size field that is wrong."""

    command: str
    payload: list[Piece]
    says: int | None = None

    @property
    def pieces(self) -> list[Piece]:
        """The whole message."""
        size = size_of(self.payload) if self.says is None else self.says
        return [struct.pack("<BQ", COMMANDS[self.command], size), *self.payload]


def size_of(pieces: Sequence[Piece]) -> int:
    """Return how many bytes pieces are on the wire."""
    return sum(map(_size, pieces))


def _size(piece: Piece) -> int:
    match piece:
        case {"repeat": data, "times": times}:
            return len(data) // 2 * int(times)
        case {"width": width}:
            return int(width)
        case {"any": data}:
            return len(data) // 2
    return 8 if isinstance(piece, str) else len(piece)


def set_tensor(target: Tensor, data: bytes | Piece, offset: int = 0, says: int | None = None) -> Request:
    """Return a SET_TENSOR."""
    return Request("SET_TENSOR", [*target.pieces, u64(offset), data], says)


def get_tensor(source: Tensor, size: int, offset: int = 0) -> Request:
    """Return a GET_TENSOR."""
    return Request("GET_TENSOR", [*source.pieces, u64(offset, size)])


def set_tensor_hash(target: Tensor, hash: int = 0x0102030405060708, offset: int = 0) -> Request:
    """Return a SET_TENSOR_HASH, of a hash that no data sent here has."""
    return Request("SET_TENSOR_HASH", [*target.pieces, u64(offset, hash)])


def copy_tensor(src: Tensor, dst: Tensor) -> Request:
    """Return a COPY_TENSOR."""
    return Request("COPY_TENSOR", [*src.pieces, *dst.pieces])


def init_tensor(target: Tensor) -> Request:
    """Return an INIT_TENSOR."""
    return Request("INIT_TENSOR", target.pieces)


def get_alloc_size(target: Tensor, srcs: Sequence[Tensor] = (), device: int = 0) -> Request:
    """Return a GET_ALLOC_SIZE; absent sources are zeros."""
    records = [piece for src in srcs for piece in src.pieces]
    return Request("GET_ALLOC_SIZE", [u32(device), *target.pieces, *records, zeros(296 * (10 - len(srcs)))])


def graph(nodes: Sequence[int], tensors: Sequence[Tensor], device: int = 0) -> Request:
    """Return a GRAPH_COMPUTE."""
    records = [piece for record in tensors for piece in record.pieces]
    return Request("GRAPH_COMPUTE", [u32(device, len(nodes)), u64(*nodes), u32(len(tensors)), *records])


def recompute(device: int = 0) -> Request:
    """Return a GRAPH_RECOMPUTE."""
    return Request("GRAPH_RECOMPUTE", [u32(device)])


def alloc_buffer(size: int, device: int = 0) -> Request:
    """Return an ALLOC_BUFFER."""
    return Request("ALLOC_BUFFER", [u32(device), u64(size)])


def on_buffer(command: str, which: int | str, more: bytes = b"") -> Request:
    """Return a BUFFER_GET_BASE, FREE_BUFFER or BUFFER_CLEAR."""
    return Request(command, [_u64(which), more])


HELLO: Final = Request("HELLO", [])
DEVICE_COUNT: Final = Request("DEVICE_COUNT", [])

# ------------------------------------------------------------------------------------------------------------ steps


def say(*requests: Request, on: int = 1) -> Step:
    """Return the step that sends requests, in one piece where they are several."""
    command = requests[0].command if len(requests) == 1 else ""
    return raw([piece for request in requests for piece in request.pieces], command, on)


def raw(pieces: Sequence[Piece], command: str = "", on: int = 1) -> Step:
    """Return the step that sends any bytes."""
    return {"connection": on} | ({"command": command} if command else {}) | {"send": _as_json(pieces)}


def hear(command: str, *payload: Piece, on: int = 1) -> Step:
    """Return the step that receives a reply."""
    return {"connection": on, "command": command, "receive": _as_json([u64(size_of(payload)), *payload])}


def refusal(on: int = 1) -> Step:
    """Return the step that waits for the end of the connection, without another byte."""
    return {"connection": on, "refused": True}


def end(on: int = 1, how: str = "end") -> Step:
    """Return the step that ends a connection from the client's side."""
    return {"connection": on, "close": how}


def _as_json(pieces: Sequence[Piece]) -> list[Any]:
    """Return pieces as the JSON has them, neighbouring bytes in one."""
    joined: list[Any] = []
    for piece in pieces:
        if isinstance(piece, bytes) and joined and isinstance(joined[-1], bytes):
            joined[-1] += piece
        elif piece != b"":
            joined.append(piece)
    return [piece.hex() if isinstance(piece, bytes) else piece for piece in joined]


def at_least(least: int, width: int = 8) -> Piece:
    """Return the piece of a reply that is a number not below this one."""
    return {"at_least": least, "width": width}


def hello(on: int = 1) -> list[Step]:
    """Return HELLO and its reply, 3.6.1."""
    return [say(HELLO, on=on), hear("HELLO", bytes([3, 6, 1]), on=on)]


def alive(on: int = 1) -> list[Step]:
    """Return DEVICE_COUNT and its reply, which shows that nothing was refused or answered too much before it."""
    return [say(DEVICE_COUNT, on=on), hear("DEVICE_COUNT", at_least(1, 4), on=on)]


def buffer(name: str = "buf0", size: int = 8192, *, exactly: bool = False, on: int = 1) -> list[Step]:
    """Return what makes a buffer and asks where it is; exactly: it must have no byte more than asked for."""
    granted = u64(size) if exactly else at_least(size)
    return [
        say(alloc_buffer(size), on=on),
        hear("ALLOC_BUFFER", handle(name), granted, on=on),
        say(on_buffer("BUFFER_GET_BASE", handle(name)), on=on),
        hear("BUFFER_GET_BASE", address(name), on=on),
    ]


def opened(size: int = 8192, *, exactly: bool = False) -> list[Step]:
    """Return HELLO and a first buffer, buf0."""
    return [*hello(), *buffer("buf0", size, exactly=exactly)]


def free(name: str, on: int = 1) -> list[Step]:
    """Return FREE_BUFFER and its empty reply."""
    return [say(on_buffer("FREE_BUFFER", handle(name)), on=on), hear("FREE_BUFFER", on=on)]


def write(target: Tensor, data: bytes | Piece, offset: int = 0, on: int = 1) -> Step:
    """Return a SET_TENSOR."""
    return say(set_tensor(target, data, offset), on=on)


def read(source: Tensor, data: bytes, offset: int = 0, on: int = 1) -> list[Step]:
    """Return a GET_TENSOR and the reply that it must have."""
    return [say(get_tensor(source, len(data), offset), on=on), hear("GET_TENSOR", data, on=on)]
