"""Requests and steps as 8.0.0 has them, where they are other than those of 3.6.1 in `protocol`."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from vectors.tools.malformed import case
from vectors.tools.malformed.case import Case, Seen
from vectors.tools.malformed.protocol import (
    DEVICE_COUNT,
    Piece,
    Request,
    Step,
    Tensor,
    address,
    alloc_buffer,
    at_least,
    handle,
    hear,
    on_buffer,
    refusal,
    say,
    u32,
    u64,
)

SILENT: Final = {
    "FREE_BUFFER", "BUFFER_CLEAR", "SET_TENSOR", "GRAPH_COMPUTE", "INIT_TENSOR", "GRAPH_RECOMPUTE", "MEMSET_TENSOR",
    "SET_TENSOR_2D", "COMM_ALLREDUCE", "COMM_FREE",
}  # fmt: skip
"""Requests without a reply."""
MOST_GRAPHS: Final = 1024
"""Uids under which a device of a connection stores graphs."""


class Rows(NamedTuple):
    """Rows in a tensor: where the first one begins, bytes of each, how many, bytes from one to the next."""

    offset: int
    size: int
    n_copies: int
    stride: int


def set_tensor(target: Tensor, data: bytes | Piece, offset: int = 0, cache_flag: int = 0) -> Request:
    """Return a SET_TENSOR."""
    return Request("SET_TENSOR", [*target.pieces, struct.pack("<BQ", cache_flag, offset), data])


def memset_tensor(target: Tensor, offset: int, size: int, value: int) -> Request:
    """Return a MEMSET_TENSOR."""
    return Request("MEMSET_TENSOR", [*target.pieces, struct.pack("<QQB", offset, size, value)])


def set_rows(target: Tensor, rows: Rows, data: bytes) -> Request:
    """Return a SET_TENSOR_2D."""
    return Request("SET_TENSOR_2D", [*target.pieces, u64(*rows), data])


def get_rows(source: Tensor, rows: Rows) -> Request:
    """Return a GET_TENSOR_2D."""
    return Request("GET_TENSOR_2D", [*source.pieces, u64(*rows)])


def graph(nodes: Sequence[int], tensors: Sequence[Tensor], uid: int) -> Request:
    """Return a GRAPH_COMPUTE on device 0."""
    records = [piece for record in tensors for piece in record.pieces]
    return Request("GRAPH_COMPUTE", [u32(0), u64(uid), u32(len(nodes)), u64(*nodes), u32(len(tensors)), *records])


def recompute(uid: int) -> Request:
    """Return a GRAPH_RECOMPUTE on device 0."""
    return Request("GRAPH_RECOMPUTE", [u32(0), u64(uid)])


def comm_init(rank: int, world: int, port: int, host: bytes = b"", device: int = 0) -> Request:
    """Return a COMM_INIT."""
    return Request("COMM_INIT", [struct.pack("<4I64s", device, rank, world, port, host)])


def comm_allreduce(target: Tensor, device: int = 0) -> Request:
    """Return a COMM_ALLREDUCE."""
    return Request("COMM_ALLREDUCE", [u32(device), *target.pieces])


def comm_free(device: int = 0) -> Request:
    """Return a COMM_FREE."""
    return Request("COMM_FREE", [u32(device)])


# ------------------------------------------------------------------------------------------------------------ steps


def hello(caps: bytes = bytes(24)) -> list[Step]:
    """Return HELLO with transport capabilities, and the reply of a server that has TCP alone."""
    return [say(Request("HELLO", [caps])), hear("HELLO", bytes([8, 0, 0, 0]) + bytes(24))]


def opened(caps: bytes = bytes(24)) -> list[Step]:
    """Return HELLO and a buffer of 8,192 bytes, buf0."""
    return [
        *hello(caps),
        say(alloc_buffer(8192)),
        hear("ALLOC_BUFFER", handle("buf0"), at_least(8192)),
        say(on_buffer("BUFFER_GET_BASE", handle("buf0"))),
        hear("BUFFER_GET_BASE", address("buf0")),
    ]


def write(target: Tensor, data: bytes) -> Step:
    """Return a SET_TENSOR that no server may keep."""
    return say(set_tensor(target, data))


def refused(id: str, reason: str, references: str, flags: str, steps: Sequence[Step], seen: Seen = case.CLOSES) -> Case:
    """Return a case whose last step is refused; where that has no reply, DEVICE_COUNT is sent behind it."""
    behind = [say(DEVICE_COUNT)] if steps[-1]["command"] in SILENT else []
    return Case(id, reason, "refused", tuple(references.split()), tuple(flags.split()), seen, [*steps, *behind, refusal()])
