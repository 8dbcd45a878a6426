"""Every message, one class each, requests in command-number order: the declaration from which codec and tables are read.

A field is an annotation: type, wire type, meaning. `Since(v)` and `Until(v)` mark fields (and requests) that only some versions
have: since is the first version that has it, until the first that has it no more. A request's replies are listed with the version
from which each holds: a record, `Empty` (eight zero bytes on the wire: a size and nothing after it) or `NO_REPLY`.

Source: the packed structures of ggml-rpc.cpp through its history. 3.6.1 is proven by the bytes in
vectors/upstream-3.6.1-*/frames.json.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Annotated, TypeVar, dataclass_transform, get_type_hints

from ggml_rpc_ref.spec.versions import (
    DEFAULT,
    V1_0_0,
    V2_0_0,
    V3_0_0,
    V3_5_0,
    V3_6_0,
    V4_0_0,
    V5_0_0,
    V5_1_0,
    V6_0_0,
    V7_0_0,
    V8_0_0,
    Version,
)
from ggml_rpc_ref.spec.wire import I32, U8, U32, U64, Array, Chars, Counted, Record, Tail, Wire

MAX_DIMS = 4
MAX_SRC = 10
MAX_NAME = 64
MAX_OP_PARAMS = 16

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Since:
    """The first version that has the field."""

    version: Version


@dataclass(frozen=True, slots=True)
class Until:
    """The first version that has the field no more."""

    version: Version


class NoReply(Enum):
    """The type of NO_REPLY."""

    NO_REPLY = "no reply"


NO_REPLY = NoReply.NO_REPLY
"""The server writes nothing and the client reads nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Empty:
    """The reply without payload: its size, 0, is all that is sent."""


Reply = type | NoReply


@dataclass(frozen=True, slots=True)
class Field:
    """A field as a reader of the table sees it."""

    name: str
    wire: Wire
    doc: str
    since: Version
    until: Version | None

    def present(self, version: Version) -> bool:
        """Whether messages of a version hold this field."""
        return self.since <= version and (self.until is None or version < self.until)


@dataclass(frozen=True, slots=True)
class Request:
    """What the table says of a request beside its fields."""

    cls: type
    number: int
    since: Version
    replies: tuple[tuple[Version, Reply], ...]

    def reply(self, version: Version) -> Reply:
        """Return the reply that a version gives: the last one listed that is not newer."""
        return [reply for since, reply in self.replies if since <= version][-1]


REQUESTS: dict[type, Request] = {}
"""Request class to its row, in command-number order."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(cls: type[T]) -> type[T]:
    """Make a class of the table a record: frozen, keyword-only."""
    return dataclass(frozen=True, slots=True, kw_only=True)(cls)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def request(number: int, reply: Reply | tuple[tuple[Version, Reply], ...], since: Version = V1_0_0) -> Callable[[type[T]], type[T]]:
    """Make a class of the table a request with this command number and these replies."""

    def declare(cls: type[T]) -> type[T]:
        made = record(cls)
        replies = reply if isinstance(reply, tuple) else ((since, reply),)
        REQUESTS[made] = Request(made, number, since, replies)
        return made

    return declare


@cache
def all_fields(cls: type) -> tuple[Field, ...]:
    """Return every field that any version has, in wire order."""
    return tuple(_field(name, hint) for name, hint in get_type_hints(cls, include_extras=True).items())


@cache
def fields(cls: type, version: Version = DEFAULT) -> tuple[Field, ...]:
    """Return the fields that a version has, in wire order."""
    return tuple(field for field in all_fields(cls) if field.present(version))


@cache
def layouts(cls: type) -> tuple[Version, ...]:
    """Return the first version of each layout that a record has had, oldest first."""
    marks = {mark for field in all_fields(cls) for mark in (field.since, field.until) if mark is not None}
    return tuple(sorted({V1_0_0, *marks}))


def _field(name: str, hint: object) -> Field:
    wire, doc, *marks = getattr(hint, "__metadata__")  # noqa: B009 (typing has no public accessor that mypy knows)
    since = next((mark.version for mark in marks if isinstance(mark, Since)), V1_0_0)
    until = next((mark.version for mark in marks if isinstance(mark, Until)), None)
    return Field(name, wire, doc, since, until)


@cache
def by_number(version: Version = DEFAULT) -> dict[int, Request]:
    """Return command number to request for the commands that a version has."""
    return {row.number: row for row in REQUESTS.values() if row.since <= version}


# ----------------------------------------------------------------------------------------------------------- records


@record
class RpcTensor:
    """A ggml_tensor on the wire: 296 bytes."""

    id: Annotated[int, U64, "key chosen by the client, unique within a message; 0 means no tensor"] = 0
    type: Annotated[int, U32, "ggml_type id"] = 0
    buffer: Annotated[int, U64, "remote_ptr of the buffer it lies in; 0: not in this server's memory"] = 0
    ne: Annotated[tuple[int, ...], Array(U32, MAX_DIMS), "elements per dimension"] = (1, 1, 1, 1)
    nb: Annotated[tuple[int, ...], Array(U32, MAX_DIMS), "bytes between neighbours per dimension"] = (0, 0, 0, 0)
    op: Annotated[int, U32, "ggml_op id, by the op table of the build"] = 0
    op_params: Annotated[tuple[int, ...], Array(I32, MAX_OP_PARAMS), "parameters of the op, raw"] = (0,) * MAX_OP_PARAMS
    flags: Annotated[int, I32, "1 INPUT, 2 OUTPUT, 4 PARAM, 8 LOSS, 16 COMPUTE"] = 0
    src: Annotated[tuple[int, ...], Array(U64, MAX_SRC), "ids of the sources, 0 where there is none"] = (0,) * MAX_SRC
    view_src: Annotated[int, U64, "id of the tensor that this one is a view of; 0: none"] = 0
    view_offs: Annotated[int, U64, "byte offset of the view in view_src"] = 0
    data: Annotated[int, U64, "address of its first byte: the buffer's base plus an offset"] = 0
    name: Annotated[bytes, Chars(MAX_NAME), "name, padded with zero bytes; for messages only"] = b""
    padding: Annotated[bytes, Chars(4), "zero; not read", Until(V5_1_0)] = bytes(4)
    use_count: Annotated[int, I32, "uses of the node inside the client's graph", Since(V5_1_0)] = 0


FLAG_INPUT, FLAG_OUTPUT, FLAG_PARAM, FLAG_LOSS, FLAG_COMPUTE = 1, 2, 4, 8, 16
"""Bits of RpcTensor.flags. Builds since 2026-01-19 compute only nodes with FLAG_COMPUTE (llama.cpp #18550)."""


@record
class HelloReply:
    """The server's protocol version."""

    major: Annotated[int, U8, "major version; a client closes where it is not its own"]
    minor: Annotated[int, U8, "minor version; a client closes where it is above its own"]
    patch: Annotated[int, U8, "patch: op numbers may differ; not compared"]
    padding: Annotated[int, U8, "zero", Since(V4_0_0)] = 0
    conn_caps: Annotated[bytes, Chars(24), "transport capabilities; zero: TCP only", Since(V4_0_0)] = bytes(24)


@record
class DeviceCountReply:
    """How many devices the server has."""

    device_count: Annotated[int, U32, "devices are numbered from 0 to this, less one"]


@record
class AllocBufferReply:
    """The buffer made; 0 and 0 where it could not be."""

    remote_ptr: Annotated[int, U64, "handle of the buffer; opaque; 0: not allocated"]
    remote_size: Annotated[int, U64, "bytes allocated"]


@record
class GetAlignmentReply:
    """What addresses of tensors must be multiples of."""

    alignment: Annotated[int, U64, "bytes, a power of two"]


@record
class GetMaxSizeReply:
    """The largest buffer that may be asked for."""

    max_size: Annotated[int, U64, "bytes; 2^64-1: no limit"]


@record
class BufferGetBaseReply:
    """Where a buffer begins in the server's address space, as the client is to see it."""

    base_ptr: Annotated[int, U64, "address; the client only adds offsets to it; 0 for a buffer of no bytes"]


@record
class SetTensorHashReply:
    """Whether the server had the data."""

    result: Annotated[int, U8, "1: it had the data and wrote it; 0: send the data"]


@record
class GetTensorReply:
    """The bytes asked for."""

    data: Annotated[bytes, Tail(), "exactly the `size` bytes of the request"]


@record
class CopyTensorReply:
    """Whether the copy was made."""

    result: Annotated[int, U8, "1: copied; 0: the backend can't, the client copies through itself"]


@record
class GraphComputeReply:
    """What became of the graph (until 3.0.0; later versions don't answer)."""

    result: Annotated[int, U8, "low byte of ggml_status: 0 success, 1 aborted, 255 failed, 254 no memory"]


@record
class GetDeviceMemoryReply:
    """Memory of a device."""

    free_mem: Annotated[int, U64, "bytes"]
    total_mem: Annotated[int, U64, "bytes"]


@record
class GetAllocSizeReply:
    """What a tensor needs in a buffer."""

    alloc_size: Annotated[int, U64, "bytes, at least ggml_nbytes of the tensor"]


@record
class GetTensor2dReply:
    """The rows asked for, packed."""

    data: Annotated[bytes, Tail(), "n_copies rows of `size` bytes"]


@record
class CommInitReply:
    """Whether the two servers reached one another."""

    ok: Annotated[int, U8, "1: connected"]


DEVICE_SINCE = Since(V3_0_0)

# ---------------------------------------------------------------------------------------------------------- requests


@request(0, reply=AllocBufferReply)
class AllocBuffer:
    """Reserve memory on a device."""

    device: Annotated[int, U32, "index below DEVICE_COUNT", DEVICE_SINCE] = 0
    size: Annotated[int, U64, "bytes wanted"]


@request(1, reply=GetAlignmentReply)
class GetAlignment:
    """Ask what a device's tensor addresses must be multiples of."""

    device: Annotated[int, U32, "index below DEVICE_COUNT", DEVICE_SINCE] = 0


@request(2, reply=GetMaxSizeReply)
class GetMaxSize:
    """Ask how large a device's buffers may be."""

    device: Annotated[int, U32, "index below DEVICE_COUNT", DEVICE_SINCE] = 0


@request(3, reply=BufferGetBaseReply)
class BufferGetBase:
    """Ask where a buffer begins."""

    remote_ptr: Annotated[int, U64, "handle of the buffer"]


@request(4, reply=((V1_0_0, Empty), (V6_0_0, NO_REPLY)))
class FreeBuffer:
    """Give a buffer back."""

    remote_ptr: Annotated[int, U64, "handle of the buffer"]


@request(5, reply=((V1_0_0, Empty), (V6_0_0, NO_REPLY)))
class BufferClear:
    """Set every byte of a buffer."""

    remote_ptr: Annotated[int, U64, "handle of the buffer"]
    value: Annotated[int, U8, "the byte"]


@request(6, reply=((V1_0_0, Empty), (V2_0_0, NO_REPLY)))
class SetTensor:
    """Write data into a tensor."""

    tensor: Annotated[RpcTensor, Record(RpcTensor), "where to write"]
    cache_flag: Annotated[int, U8, "1: the server may keep the data in its cache", Since(V7_0_0)] = 0
    offset: Annotated[int, U64, "bytes into the tensor"]
    data: Annotated[bytes, Tail(), "the bytes to write"] = b""


@request(7, reply=SetTensorHashReply)
class SetTensorHash:
    """Write data that the server may have in its cache already."""

    tensor: Annotated[RpcTensor, Record(RpcTensor), "where to write"]
    offset: Annotated[int, U64, "bytes into the tensor"]
    hash: Annotated[int, U64, "FNV-1a 64 of the data"]


@request(8, reply=GetTensorReply)
class GetTensor:
    """Read data from a tensor."""

    tensor: Annotated[RpcTensor, Record(RpcTensor), "what to read"]
    offset: Annotated[int, U64, "bytes into the tensor"]
    size: Annotated[int, U64, "bytes to read"]


@request(9, reply=CopyTensorReply)
class CopyTensor:
    """Copy one tensor's bytes into another of the same connection."""

    src: Annotated[RpcTensor, Record(RpcTensor), "from"]
    dst: Annotated[RpcTensor, Record(RpcTensor), "to"]


@request(10, reply=((V1_0_0, GraphComputeReply), (V3_5_0, NO_REPLY)))
class GraphCompute:
    """Compute a graph, and from 3.5.0 on keep it for GRAPH_RECOMPUTE."""

    device: Annotated[int, U32, "index below DEVICE_COUNT", DEVICE_SINCE] = 0
    uid: Annotated[int, U64, "the client's number for this graph; 0: don't keep it", Since(V8_0_0)] = 0
    nodes: Annotated[tuple[int, ...], Counted(U64), "ids of the nodes in the order of execution"]
    tensors: Annotated[tuple[RpcTensor, ...], Counted(Record(RpcTensor)), "nodes, sources and leaves, each once"]


@request(11, reply=GetDeviceMemoryReply)
class GetDeviceMemory:
    """Ask how much memory a device has."""

    device: Annotated[int, U32, "index below DEVICE_COUNT", DEVICE_SINCE] = 0


@request(12, reply=((V1_0_0, Empty), (V6_0_0, NO_REPLY)))
class InitTensor:
    """Let the device prepare the memory of a tensor (padding of quantised rows)."""

    tensor: Annotated[RpcTensor, Record(RpcTensor), "the tensor, placed in its buffer"]


@request(13, reply=GetAllocSizeReply)
class GetAllocSize:
    """Ask how many bytes a tensor needs in a buffer."""

    device: Annotated[int, U32, "index below DEVICE_COUNT", DEVICE_SINCE] = 0
    tensor: Annotated[RpcTensor, Record(RpcTensor), "the tensor; it need not be placed"]
    srcs: Annotated[
        tuple[RpcTensor, ...],
        Array(Record(RpcTensor), MAX_SRC),
        "its sources by slot; an absent one is 296 zero bytes",
        Since(V3_6_0),
    ] = ()


@request(14, reply=HelloReply)
class Hello:
    """Open the conversation: the first request of every connection, and only the first."""

    conn_caps: Annotated[bytes, Chars(24), "transport capabilities; zero: TCP only", Since(V4_0_0)] = bytes(24)


@request(15, reply=DeviceCountReply, since=V3_0_0)
class DeviceCount:
    """Ask how many devices the server has."""


@request(16, reply=NO_REPLY, since=V3_5_0)
class GraphRecompute:
    """Compute the device's stored graph again, on the data that its tensors hold now."""

    device: Annotated[int, U32, "index below DEVICE_COUNT"]
    uid: Annotated[int, U64, "which graph", Since(V8_0_0)] = 0


@request(17, reply=((V5_0_0, Empty), (V6_0_0, NO_REPLY)), since=V5_0_0)
class MemsetTensor:
    """Set bytes of a tensor."""

    tensor: Annotated[RpcTensor, Record(RpcTensor), "where"]
    offset: Annotated[int, U64, "bytes into the tensor"]
    size: Annotated[int, U64, "how many bytes"]
    value: Annotated[int, U8, "the byte"]


@request(18, reply=NO_REPLY, since=V8_0_0)
class SetTensor2d:
    """Write rows into a tensor."""

    tensor: Annotated[RpcTensor, Record(RpcTensor), "where to write"]
    offset: Annotated[int, U64, "bytes into the tensor"]
    size: Annotated[int, U64, "bytes of a row"]
    n_copies: Annotated[int, U64, "number of rows"]
    stride: Annotated[int, U64, "bytes between rows in the tensor"]
    data: Annotated[bytes, Tail(), "the rows, packed"] = b""


@request(19, reply=GetTensor2dReply, since=V8_0_0)
class GetTensor2d:
    """Read rows from a tensor."""

    tensor: Annotated[RpcTensor, Record(RpcTensor), "what to read"]
    offset: Annotated[int, U64, "bytes into the tensor"]
    size: Annotated[int, U64, "bytes of a row"]
    n_copies: Annotated[int, U64, "number of rows"]
    stride: Annotated[int, U64, "bytes between rows in the tensor"]


@request(20, reply=CommInitReply, since=V8_0_0)
class CommInit:
    """Connect two servers for reductions."""

    device: Annotated[int, U32, "index below DEVICE_COUNT"]
    rank: Annotated[int, U32, "0 listens, 1 connects"]
    world: Annotated[int, U32, "number of servers: 2"]
    port: Annotated[int, U32, "TCP port of rank 0"]
    host: Annotated[bytes, Chars(64), "host of rank 0, padded with zero bytes"]


@request(21, reply=NO_REPLY, since=V8_0_0)
class CommAllreduce:
    """Add the peer's tensor to this one, on both servers."""

    device: Annotated[int, U32, "index below DEVICE_COUNT"]
    tensor: Annotated[RpcTensor, Record(RpcTensor), "F32, changed in place"]


@request(22, reply=NO_REPLY, since=V8_0_0)
class CommFree:
    """End the connection of two servers."""

    device: Annotated[int, U32, "index below DEVICE_COUNT"]


def command_name(cls: type) -> str:
    """Return ggml's name of a request's command without the prefix RPC_CMD_, e.g. "ALLOC_BUFFER"."""
    return re.sub("(?<!^)(?=[A-Z]|2d)", "_", cls.__name__).upper()
