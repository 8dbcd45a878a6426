"""Every message, one class each, requests in command-number order: the declaration from which codec and tables are derived.

A field is an annotation: type, wire type, meaning. `Since(v)` marks a field from the first version that has it, `Until(v)` a
field up to the first version without it. A request's row adds its command number, ggml's name of the command, and its replies,
each with the version from which it holds: a record, `Empty` (eight zero bytes on the wire: a size and nothing after it) or
`NO_REPLY`.

Two more facts of a message follow from its row, so that a new bulk message is a row and nothing else: a record whose last field is
a `Tail` carries data (`carries_data`), which need not pass through the codec; and `reply_size` names the fields of a request whose
product is the number of bytes that its reply carries.

Source: the packed structures of ggml-rpc.cpp through its history; vectors/upstream-3.6.1-*/frames.json holds 3.6.1 to bytes
recorded from the genuine library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass
from dataclasses import Field as DataclassField
from enum import Enum
from functools import cache
from math import prod
from typing import Annotated, Any, ClassVar, Protocol, TypeVar, dataclass_transform, get_type_hints

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
    present,
)
from ggml_rpc_ref.spec.wire import I32, U8, U32, U64, Array, Chars, Counted, Record, Tail, Wire

# GGML_MAX_DIMS, _SRC, _NAME and _OP_PARAMS of ggml.h; the last one counts bytes there (64) and int32 here
MAX_DIMS = 4
MAX_SRC = 10
MAX_NAME = 64
MAX_OP_PARAMS = 16
CAPS_SIZE = 24
"""Bytes of a connection's transport capabilities (RPC_CONN_CAPS_SIZE in transport.h)."""

T = TypeVar("T")


class Message(Protocol):
    """An instance of any class below: a request, a reply or a record inside one."""

    __dataclass_fields__: ClassVar[dict[str, DataclassField[Any]]]


@dataclass(frozen=True, slots=True)
class Since:
    """The first version that has the field."""

    version: Version


@dataclass(frozen=True, slots=True)
class Until:
    """The first version without the field."""

    version: Version


class NoReply(Enum):
    """The type of NO_REPLY."""

    NO_REPLY = "no reply"


NO_REPLY = NoReply.NO_REPLY
"""The server writes nothing and the client reads nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Empty:
    """A reply without payload: only its size, 0, is sent."""


Reply = type | NoReply


@dataclass(frozen=True, slots=True)
class Field:
    """A field as the readers of the table see it.

    Attributes:
        name: of the field, upstream's where it has one.
        wire: how it is written.
        doc: its meaning.
        since: the first version that has it.
        until: the first version without it; None: every version since has it.
        default: the value of a message that does not set it; `dataclasses.MISSING` where it must be set.
    """

    name: str
    wire: Wire
    doc: str
    since: Version
    until: Version | None
    default: object = MISSING

    def present(self, version: Version) -> bool:
        """Whether messages of a version hold this field."""
        return present(version, self.since, self.until)


@dataclass(frozen=True, slots=True)
class Request:
    """A request's row: what the table says beside its fields.

    Attributes:
        cls: the request's class.
        number: of the command.
        name: ggml's name of the command without the prefix RPC_CMD_.
        since: the first version that has it.
        replies: each reply with the first version that gives it.
        reply_size: the request's fields whose product is the size of its reply; () where the reply's class says the size.
    """

    cls: type
    number: int
    name: str
    since: Version
    replies: tuple[tuple[Version, Reply], ...]
    reply_size: tuple[str, ...] = ()

    def reply(self, version: Version) -> Reply:
        """Return the reply that a version gives: the last one listed that is not newer."""
        # the replies are listed oldest first
        return [reply for since, reply in self.replies if since <= version][-1]

    def moves_data(self, version: Version) -> bool:
        """Whether the request or its reply carries data."""
        reply = self.reply(version)
        return carries_data(self.cls) or (isinstance(reply, type) and carries_data(reply))

    def bytes_asked(self, value: Callable[[str], int]) -> int:
        """Return how many bytes the reply to one request carries.

        Args:
            value: gives the request's value of a field by name.
        """
        return prod(int(value(name)) for name in self.reply_size)


REQUESTS: dict[type, Request] = {}
"""Request class to its row, in command-number order."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(cls: type[T]) -> type[T]:
    """Make a class of the table a record: frozen, keyword-only."""
    # frozen for mypy alone: `frozen=True` sets each field by a call, and a server reads four tensors for one GET_ALLOC_SIZE
    # (95 µs of CPU with it, 75 without)
    return dataclass(slots=True, kw_only=True, unsafe_hash=True)(cls)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def request(
    number: int,
    name: str,
    *,
    reply: Reply | tuple[tuple[Version, Reply], ...],
    reply_size: tuple[str, ...] = (),
    since: Version = V1_0_0,
) -> Callable[[type[T]], type[T]]:
    """Make a class of the table a request; the arguments are those of its row, `Request`."""

    def declare(cls: type[T]) -> type[T]:
        made = record(cls)
        replies = reply if isinstance(reply, tuple) else ((since, reply),)
        # by `made`: slots=True has made another class than the one declared
        REQUESTS[made] = Request(made, number, name, since, replies, reply_size)
        return made

    return declare


@cache
def all_fields(cls: type) -> tuple[Field, ...]:
    """Return every field that any version has, in wire order."""
    defaults = {name: field.default for name, field in getattr(cls, "__dataclass_fields__", {}).items()}
    return tuple(_field(name, hint, defaults[name]) for name, hint in get_type_hints(cls, include_extras=True).items())


@cache
def fields(cls: type, version: Version = DEFAULT) -> tuple[Field, ...]:
    """Return the fields that a version has, in wire order."""
    return tuple(field for field in all_fields(cls) if field.present(version))


@cache
def absent_fields(cls: type, version: Version = DEFAULT) -> tuple[Field, ...]:
    """Return the fields that only other versions have."""
    return tuple(field for field in all_fields(cls) if not field.present(version))


def has_field(cls: type, name: str, version: Version) -> bool:
    """Whether a version has the field of this name."""
    return any(field.name == name for field in fields(cls, version))


@cache
def carries_data(cls: type) -> bool:
    """Whether messages of a class end in data, which may be large and need not pass through the codec."""
    return any(isinstance(field.wire, Tail) for field in all_fields(cls))


@cache
def layouts(cls: type) -> tuple[Version, ...]:
    """Return the first version of each layout that a record has had, oldest first."""
    marks = {mark for field in all_fields(cls) for mark in (field.since, field.until) if mark is not None}
    return tuple(sorted({V1_0_0, *marks}))


def _field(name: str, hint: object, default: object) -> Field:
    wire, doc, *marks = getattr(hint, "__metadata__")  # noqa: B009 (typing has no public accessor that mypy knows)
    since = next((mark.version for mark in marks if isinstance(mark, Since)), V1_0_0)
    until = next((mark.version for mark in marks if isinstance(mark, Until)), None)
    return Field(name, wire, doc, since, until, default)


@cache
def by_number(version: Version = DEFAULT) -> dict[int, Request]:
    """Return command number to request for the commands that a version has."""
    return {row.number: row for row in REQUESTS.values() if row.since <= version}


def command_name(cls: type) -> str:
    """Return ggml's name of a request's command without the prefix RPC_CMD_, e.g. "ALLOC_BUFFER"; of another class its own."""
    return REQUESTS[cls].name if cls in REQUESTS else cls.__name__


# ----------------------------------------------------------------------------------------------------------- records


@record
class RpcTensor:
    """A ggml_tensor on the wire: 296 bytes."""

    id: Annotated[int, U64, "key chosen by the client, unique within a message; 0 means no tensor"] = 0
    type: Annotated[int, U32, "ggml_type id"] = 0
    buffer: Annotated[int, U64, "remote_ptr of the buffer it lies in; 0: not in this server's memory"] = 0
    # ggml's ne and nb have 64 bits each; serialize_tensor cuts them to 32 (FUN-05)
    ne: Annotated[tuple[int, ...], Array(U32, MAX_DIMS), "elements per dimension"] = (1, 1, 1, 1)
    nb: Annotated[tuple[int, ...], Array(U32, MAX_DIMS), "bytes between neighbours per dimension"] = (0, 0, 0, 0)
    op: Annotated[int, U32, "ggml_op id, by the op table of the build"] = 0
    op_params: Annotated[tuple[int, ...], Array(I32, MAX_OP_PARAMS), "parameters of the op, raw"] = (0,) * MAX_OP_PARAMS
    flags: Annotated[int, I32, "1 INPUT, 2 OUTPUT, 4 PARAM, 8 LOSS, 16 COMPUTE"] = 0
    src: Annotated[tuple[int, ...], Array(U64, MAX_SRC), "ids of the sources, 0 where there is none"] = (0,) * MAX_SRC
    view_src: Annotated[int, U64, "id of the tensor that this one is a view of; 0: none"] = 0
    view_offs: Annotated[int, U64, "byte offset of the view in view_src"] = 0
    data: Annotated[int, U64, "address of its first byte: the buffer's base plus an offset"] = 0
    name: Annotated[bytes, Chars(MAX_NAME), "name, padded with zero bytes; for logs only"] = b""
    # use_count took padding's place, so that the record is as long as before
    padding: Annotated[bytes, Chars(4), "zero; not read", Until(V5_1_0)] = bytes(4)
    use_count: Annotated[int, I32, "number of uses of the node in the client's graph", Since(V5_1_0)] = 0


MAX_STORED_GRAPHS = 1024
"""Uids under which a device of a connection stores graphs before all are dropped (GRAPH_CACHE_MAX in ggml-rpc.cpp)."""

FLAG_INPUT, FLAG_OUTPUT, FLAG_PARAM, FLAG_LOSS, FLAG_COMPUTE = 1, 2, 4, 8, 16
"""Bits of RpcTensor.flags. Builds since 2026-01-19 compute only nodes with FLAG_COMPUTE (llama.cpp #18550)."""


@record
class HelloReply:
    """The server's protocol version."""

    major: Annotated[int, U8, "major version; a client closes if it differs from its own"]
    minor: Annotated[int, U8, "minor version; a client closes if it is above its own"]
    patch: Annotated[int, U8, "patch version; not compared, though op numbers may differ"]
    padding: Annotated[int, U8, "zero", Since(V4_0_0)] = 0
    conn_caps: Annotated[bytes, Chars(CAPS_SIZE), "transport capabilities; zero: TCP only", Since(V4_0_0)] = bytes(CAPS_SIZE)


@record
class DeviceCountReply:
    """How many devices the server has."""

    device_count: Annotated[int, U32, "number of devices; they are numbered from 0"]


@record
class AllocBufferReply:
    """The buffer allocated; 0 and 0 if that was not possible."""

    remote_ptr: Annotated[int, U64, "handle of the buffer; opaque; 0: not allocated"]
    remote_size: Annotated[int, U64, "bytes allocated"]


@record
class GetAlignmentReply:
    """What the addresses of tensors must be multiples of."""

    alignment: Annotated[int, U64, "bytes, a power of two"]


@record
class GetMaxSizeReply:
    """The largest buffer that may be asked for."""

    max_size: Annotated[int, U64, "bytes; 2^64-1: no limit"]


@record
class BufferGetBaseReply:
    """The address at which a buffer begins, as the client sees it."""

    base_ptr: Annotated[int, U64, "address; the client only adds offsets to it; 0 for a buffer of size 0"]


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

    result: Annotated[int, U8, "1: copied; 0: the backend can't copy; the client reads and writes the data itself"]


@record
class GraphComputeReply:
    """How the computation ended (up to 3.0.0; later versions don't answer)."""

    result: Annotated[int, U8, "low byte of ggml_status: 0 success, 1 aborted, 255 failed, 254 no memory"]


@record
class GetDeviceMemoryReply:
    """Memory of a device."""

    free_mem: Annotated[int, U64, "bytes that are free"]
    total_mem: Annotated[int, U64, "bytes in all"]


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
    """Whether the two servers are connected."""

    ok: Annotated[int, U8, "1: connected; 0: not, and the client does the sum itself"]


DEVICE_SINCE = Since(V3_0_0)

# ---------------------------------------------------------------------------------------------------------- requests


@request(0, "ALLOC_BUFFER", reply=AllocBufferReply)
class AllocBuffer:
    """Allocate a buffer on a device."""

    device: Annotated[int, U32, "index below DEVICE_COUNT", DEVICE_SINCE] = 0
    size: Annotated[int, U64, "bytes wanted"]


@request(1, "GET_ALIGNMENT", reply=GetAlignmentReply)
class GetAlignment:
    """Ask what a device's tensor addresses must be multiples of."""

    device: Annotated[int, U32, "index below DEVICE_COUNT", DEVICE_SINCE] = 0


@request(2, "GET_MAX_SIZE", reply=GetMaxSizeReply)
class GetMaxSize:
    """Ask how large a device's buffers may be."""

    device: Annotated[int, U32, "index below DEVICE_COUNT", DEVICE_SINCE] = 0


@request(3, "BUFFER_GET_BASE", reply=BufferGetBaseReply)
class BufferGetBase:
    """Ask where a buffer begins."""

    remote_ptr: Annotated[int, U64, "handle of the buffer"]


@request(4, "FREE_BUFFER", reply=((V1_0_0, Empty), (V6_0_0, NO_REPLY)))
class FreeBuffer:
    """Free a buffer."""

    remote_ptr: Annotated[int, U64, "handle of the buffer"]


@request(5, "BUFFER_CLEAR", reply=((V1_0_0, Empty), (V6_0_0, NO_REPLY)))
class BufferClear:
    """Set every byte of a buffer."""

    remote_ptr: Annotated[int, U64, "handle of the buffer"]
    value: Annotated[int, U8, "what every byte becomes"]


@request(6, "SET_TENSOR", reply=((V1_0_0, Empty), (V2_0_0, NO_REPLY)))
class SetTensor:
    """Write data into a tensor."""

    tensor: Annotated[RpcTensor, Record(RpcTensor), "where to write"]
    # before the offset, not at the end: what follows moved by a byte in 7.0.0
    cache_flag: Annotated[int, U8, "not 0: the server may keep the data in its cache", Since(V7_0_0)] = 0
    offset: Annotated[int, U64, "offset into the tensor in bytes"]
    data: Annotated[bytes, Tail(), "the bytes to write"] = b""


@request(7, "SET_TENSOR_HASH", reply=SetTensorHashReply)
class SetTensorHash:
    """Write data that the server may have in its cache already."""

    tensor: Annotated[RpcTensor, Record(RpcTensor), "where to write"]
    offset: Annotated[int, U64, "offset into the tensor in bytes"]
    hash: Annotated[int, U64, "FNV-1a 64 of the data"]


@request(8, "GET_TENSOR", reply=GetTensorReply, reply_size=("size",))
class GetTensor:
    """Read data from a tensor."""

    tensor: Annotated[RpcTensor, Record(RpcTensor), "what to read"]
    offset: Annotated[int, U64, "offset into the tensor in bytes"]
    size: Annotated[int, U64, "bytes to read"]


@request(9, "COPY_TENSOR", reply=CopyTensorReply)
class CopyTensor:
    """Copy one tensor's bytes into another of the same connection."""

    src: Annotated[RpcTensor, Record(RpcTensor), "from"]
    dst: Annotated[RpcTensor, Record(RpcTensor), "to"]


@request(10, "GRAPH_COMPUTE", reply=((V1_0_0, GraphComputeReply), (V3_5_0, NO_REPLY)))
class GraphCompute:
    """Compute a graph, and from 3.5.0 on keep it for GRAPH_RECOMPUTE."""

    device: Annotated[int, U32, "index below DEVICE_COUNT", DEVICE_SINCE] = 0
    uid: Annotated[int, U64, "the client's number for this graph; 0: don't keep it", Since(V8_0_0)] = 0
    nodes: Annotated[tuple[int, ...], Counted(U64), "ids of the nodes in the order of execution"]
    tensors: Annotated[tuple[RpcTensor, ...], Counted(Record(RpcTensor)), "nodes, sources and leaves, each once"]


@request(11, "GET_DEVICE_MEMORY", reply=GetDeviceMemoryReply)
class GetDeviceMemory:
    """Ask how much memory a device has."""

    device: Annotated[int, U32, "index below DEVICE_COUNT", DEVICE_SINCE] = 0


# sent for quantised tensors whose rows are not a multiple of 512 elements, which CUDA pads (FUN-06)
@request(12, "INIT_TENSOR", reply=((V1_0_0, Empty), (V6_0_0, NO_REPLY)))
class InitTensor:
    """Let the device prepare the memory of a tensor (padding of quantised rows)."""

    tensor: Annotated[RpcTensor, Record(RpcTensor), "the tensor, placed in its buffer"]


@request(13, "GET_ALLOC_SIZE", reply=GetAllocSizeReply)
class GetAllocSize:
    """Ask how many bytes a tensor needs in a buffer."""

    device: Annotated[int, U32, "index below DEVICE_COUNT", DEVICE_SINCE] = 0
    tensor: Annotated[RpcTensor, Record(RpcTensor), "the tensor; it need not be placed"]
    # a device may want room that depends on the sources (FUN-07)
    srcs: Annotated[
        tuple[RpcTensor, ...],
        Array(Record(RpcTensor), MAX_SRC),
        "its sources by slot; an absent one is 296 zero bytes",
        Since(V3_6_0),
    ] = ()


# 14 for ever: ggml-rpc.cpp asserts it, so that any version can tell another one apart
@request(14, "HELLO", reply=HelloReply)
class Hello:
    """Open the conversation: the first request of every connection, and only the first."""

    conn_caps: Annotated[bytes, Chars(CAPS_SIZE), "transport capabilities; zero: TCP only", Since(V4_0_0)] = bytes(CAPS_SIZE)


@request(15, "DEVICE_COUNT", reply=DeviceCountReply, since=V3_0_0)
class DeviceCount:
    """Ask how many devices the server has."""


@request(16, "GRAPH_RECOMPUTE", reply=NO_REPLY, since=V3_5_0)
class GraphRecompute:
    """Compute the device's stored graph again, on the data that its tensors hold now."""

    device: Annotated[int, U32, "index below DEVICE_COUNT"]
    uid: Annotated[int, U64, "the client's number for the graph", Since(V8_0_0)] = 0


@request(17, "MEMSET_TENSOR", reply=((V5_0_0, Empty), (V6_0_0, NO_REPLY)), since=V5_0_0)
class MemsetTensor:
    """Set bytes of a tensor."""

    tensor: Annotated[RpcTensor, Record(RpcTensor), "where to write"]
    offset: Annotated[int, U64, "offset into the tensor in bytes"]
    size: Annotated[int, U64, "bytes to set"]
    value: Annotated[int, U8, "what every byte becomes"]


# in 6.0.0 and 7.0.0 the number 18 is RPC_CMD_NONE, which clients use inside and never send
@request(18, "SET_TENSOR_2D", reply=NO_REPLY, since=V8_0_0)
class SetTensor2d:
    """Write rows into a tensor."""

    tensor: Annotated[RpcTensor, Record(RpcTensor), "where to write"]
    offset: Annotated[int, U64, "offset into the tensor in bytes"]
    size: Annotated[int, U64, "bytes of a row"]
    n_copies: Annotated[int, U64, "number of rows"]
    stride: Annotated[int, U64, "bytes between rows in the tensor"]
    data: Annotated[bytes, Tail(), "the rows, packed"] = b""


@request(19, "GET_TENSOR_2D", reply=GetTensor2dReply, reply_size=("size", "n_copies"), since=V8_0_0)
class GetTensor2d:
    """Read rows from a tensor."""

    tensor: Annotated[RpcTensor, Record(RpcTensor), "what to read"]
    offset: Annotated[int, U64, "offset into the tensor in bytes"]
    size: Annotated[int, U64, "bytes of a row"]
    n_copies: Annotated[int, U64, "number of rows"]
    stride: Annotated[int, U64, "bytes between rows in the tensor"]


@request(20, "COMM_INIT", reply=CommInitReply, since=V8_0_0)
class CommInit:
    """Connect two servers for reductions."""

    device: Annotated[int, U32, "index below DEVICE_COUNT"]
    rank: Annotated[int, U32, "0 listens, 1 connects"]
    world: Annotated[int, U32, "number of servers: 2"]
    port: Annotated[int, U32, "TCP port on which rank 0 listens; a stock client takes its endpoint's port plus 1000"]
    host: Annotated[bytes, Chars(64), "IPv4 address or name of rank 0, padded with zero bytes; empty for rank 0 itself"]


@request(21, "COMM_ALLREDUCE", reply=NO_REPLY, since=V8_0_0)
class CommAllreduce:
    """Add the peer's tensor to this one, on both servers."""

    device: Annotated[int, U32, "index below DEVICE_COUNT"]
    tensor: Annotated[RpcTensor, Record(RpcTensor), "changed in place; a stock client sends F32"]


@request(22, "COMM_FREE", reply=NO_REPLY, since=V8_0_0)
class CommFree:
    """End the connection of two servers."""

    device: Annotated[int, U32, "index below DEVICE_COUNT"]
