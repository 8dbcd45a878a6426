"""Framing: command byte, size field, payload, and which requests are answered with how much.

Several cases here send literal bytes and compare literal bytes: they judge our own codec as much as the server.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ggml_rpc_ref.conformance import marks
from ggml_rpc_ref.conformance.arena import Arena, is_near, pack, tensor_in, unpack
from ggml_rpc_ref.conformance.case import case
from ggml_rpc_ref.conformance.peer import Peer, Subject
from ggml_rpc_ref.conformance.verdict import require
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.messages import (
    NO_REPLY,
    REQUESTS,
    AllocBuffer,
    BufferClear,
    BufferGetBase,
    CommFree,
    CommInit,
    CopyTensor,
    DeviceCount,
    FreeBuffer,
    GetAlignment,
    GetAllocSize,
    GetDeviceMemory,
    GetMaxSize,
    GetTensor,
    GetTensor2d,
    GraphCompute,
    GraphRecompute,
    Hello,
    HelloReply,
    InitTensor,
    MemsetTensor,
    Message,
    SetTensor,
    SetTensor2d,
    SetTensorHash,
    command_name,
    has_field,
)
from ggml_rpc_ref.spec.versions import PROFILES, Version

HELLO = bytes.fromhex("0e 0000000000000000")
HELLO_WITH_CAPS = bytes.fromhex("0e 1800000000000000") + bytes(24)
DEVICE_COUNT = bytes.fromhex("0f 0000000000000000")
GET_ALIGNMENT = bytes.fromhex("01 0000000000000000")
GET_ALIGNMENT_0 = bytes.fromhex("01 0400000000000000 00000000")


def _hello(peer: Peer) -> tuple[bytes, int]:
    """Return HELLO as literal bytes, and the bytes of its reply, in the form that the version has."""
    return (HELLO_WITH_CAPS, 36) if has_field(Hello, "conn_caps", peer.version) else (HELLO, 11)


def _greet(peer: Peer) -> None:
    """Say HELLO as literal bytes and take the reply."""
    hello, size = _hello(peer)
    peer.send(hello)
    peer.take(size, "the reply to HELLO")


def _sentinel(peer: Peer) -> bytes:
    """Return the sentinel as literal bytes."""
    return DEVICE_COUNT if peer.subject.facts.has(DeviceCount) else GET_ALIGNMENT


# ------------------------------------------------------------------------------------------------ one good request each


def _ready(peer: Peer, cls: type) -> Arena:
    """Return an arena in which a request of this class is valid."""
    arena = Arena(peer)
    if cls in (GraphCompute, GraphRecompute):
        left = arena.leaf([4], [1, 2, 3, 4])
        total = arena.node("ADD", [left, left], [4])
        if cls is GraphRecompute:
            arena.compute(total)
    return arena


def _placed(arena: Arena) -> Any:
    return tensor_in(arena.buffer)


GOOD: dict[type, Callable[[Arena], Message]] = {
    AllocBuffer: lambda a: AllocBuffer(size=256),
    GetAlignment: lambda a: GetAlignment(),
    GetMaxSize: lambda a: GetMaxSize(),
    BufferGetBase: lambda a: BufferGetBase(remote_ptr=a.buffer.remote_ptr),
    FreeBuffer: lambda a: FreeBuffer(remote_ptr=a.buffer.remote_ptr),
    BufferClear: lambda a: BufferClear(remote_ptr=a.buffer.remote_ptr, value=0),
    SetTensor: lambda a: SetTensor(tensor=_placed(a), offset=0, data=bytes(64)),
    SetTensorHash: lambda a: SetTensorHash(tensor=_placed(a), offset=0, hash=0x1122334455667788),
    GetTensor: lambda a: GetTensor(tensor=_placed(a), offset=0, size=64),
    CopyTensor: lambda a: CopyTensor(src=_placed(a), dst=tensor_in(a.buffer, offset=128)),
    GraphCompute: lambda a: a.graph(list(a.tensors.values())[-1]),
    GetDeviceMemory: lambda a: GetDeviceMemory(),
    InitTensor: lambda a: InitTensor(tensor=_placed(a)),
    GetAllocSize: lambda a: GetAllocSize(tensor=_placed(a)),
    DeviceCount: lambda a: DeviceCount(),
    GraphRecompute: lambda a: a.again(),
    MemsetTensor: lambda a: MemsetTensor(tensor=_placed(a), offset=0, size=64, value=7),
    SetTensor2d: lambda a: SetTensor2d(tensor=_placed(a), offset=0, size=4, n_copies=8, stride=8, data=bytes(32)),
    GetTensor2d: lambda a: GetTensor2d(tensor=_placed(a), offset=0, size=4, n_copies=8, stride=8),
    # of a world of three, so that nobody listens and nobody connects
    CommInit: lambda a: CommInit(device=0, rank=0, world=3, port=0, host=b""),
    CommFree: lambda a: CommFree(device=0),
}
"""Request class to one that a server accepts where `_ready` has been called. HELLO has cases of its own, and COMM_ALLREDUCE, which
needs a second server, those of its rules."""


def _f32(value: float) -> bytes:
    return pack("F32", [value])


def _holds(data: bytes, values: list[float]) -> None:
    """Demand that floats that were computed are these, as nearly as float32 arithmetic is."""
    found = unpack("F32", data)
    require(all(map(is_near, found, values)), " and ".join(f"{v:g}" for v in values), " and ".join(f"{v:.9g}" for v in found))


def _words(cls: type) -> str:
    return command_name(cls).lower().replace("_", "-")


# ------------------------------------------------------------------------------------------------------- command-known


# 15, 16, 17: RPC_CMD_COUNT until 3.0.0, 3.5.0, 5.0.0; 18, 23: RPC_CMD_NONE of 6.0.0 and 8.0.0, never sent; 24: RPC_CMD_COUNT of
# 8.0.0; 128: the sign bit
@case(
    "frame.command-known/{}",
    each={str(number): number for number in (15, 16, 17, 18, 23, 24, 127, 128, 255)},
    until=marks.number_since,
)
def unknown_command(subject: Subject, number: int) -> None:
    """After HELLO, command {} with size 0: refused."""
    peer = subject.open()
    _greet(peer)
    peer.send(bytes([number]) + bytes(8))
    peer.refused()


@case("frame.command-known/unfinished")
def unknown_command_alone(subject: Subject) -> None:
    """After HELLO, the single byte 200 without a size, and then our FIN: refused or ended, but never answered."""
    peer = subject.open()
    _greet(peer)
    peer.send(bytes([200]))
    peer.finish_sending()
    peer.refused()


# ---------------------------------------------------------------------------------------------------------- size-fixed


WRONG_SIZES: dict[str, Callable[[int], int]] = {
    "short": lambda right: right - 1,
    "long": lambda right: right + 1,
    "zero": lambda right: 0,
    "huge": lambda right: 2**64 - 1,
}
"""Words to a wrong size field, given the right one."""


def _wrong_sizes() -> dict[str, tuple[type, str]]:
    """Derive from the table: words to a request of fixed size and what is wrong with its size field."""
    fixed = [cls for cls in (*GOOD, Hello) if codec.is_fixed(cls, max(PROFILES))]
    rows = {f"{_words(cls)}-{wrong}": (cls, wrong) for cls in fixed for wrong in WRONG_SIZES}
    # one that no version has a payload for can't be too short
    return {words: (cls, wrong) for words, (cls, wrong) in rows.items() if cls is not DeviceCount or wrong not in ("short", "zero")}


def _size_since(row: tuple[type, str]) -> Version:
    """Return the first version in which a request can have a size field that is wrong so."""
    cls, wrong = row
    return marks.payload_since(cls) if wrong in ("short", "zero") else marks.request_since(cls)


@case("frame.size-fixed/{}", each=_wrong_sizes(), since=_size_since)
def wrong_size(subject: Subject, row: tuple[type, str]) -> None:
    """A request that is valid except for its size field, {}: refused; a huge size is refused before any payload is sent."""
    cls, wrong = row
    if cls is Hello:
        peer, good = subject.open(), b""
    else:
        peer = subject.connect()
        good = codec.encode(GOOD[cls](_ready(peer, cls)), peer.version)
    size = WRONG_SIZES[wrong](codec.minimum_size(cls, peer.version))
    payload = b"" if wrong == "huge" else good.ljust(size, b"\0")[:size]
    head = codec.REQUEST_HEAD.pack(REQUESTS[cls].number, size)
    silent = REQUESTS[cls].reply(peer.version) is NO_REPLY
    # whether a request without a reply was accepted shows only in the answer to the next one; after a huge size field that one
    # would be taken for payload
    peer.send(head + payload + _sentinel(peer) * (silent and wrong != "huge"))
    peer.refused(unless=_answers_hello_of(size) if cls is Hello else lambda _: False)


def _answers_hello_of(size: int) -> Callable[[bytes], bool]:
    """Return whether bytes answer a HELLO of this size in a version that has such ones: a server may speak several versions."""

    def answers(data: bytes) -> bool:
        version = Version(*data[8:11]) if len(data) >= 11 else None
        if version not in PROFILES or codec.minimum_size(Hello, version) != size:
            return False
        length = codec.minimum_size(HelloReply, version)
        return data[:8] == codec.REPLY_HEAD.pack(length) and len(data) == 8 + length

    return answers


@case("frame.size-fixed/hello-of-4-0-0", until=marks.field_since(Hello, "conn_caps"))
def hello_with_caps(subject: Subject) -> None:
    """HELLO with 24 bytes of capabilities, as clients from 4.0.0 on send it: refused, or answered in such a version."""
    peer = subject.open()
    peer.send(HELLO_WITH_CAPS)
    peer.refused(unless=_answers_hello_of(24))


@case("frame.size-fixed/hello-of-3-6-1", since=marks.field_since(Hello, "conn_caps"))
def hello_without_caps(subject: Subject) -> None:
    """HELLO without capabilities, as clients before 4.0.0 send it: refused, or answered in such a version."""
    peer = subject.open()
    peer.send(HELLO)
    peer.refused(unless=_answers_hello_of(0))


@case("frame.size-fixed/get-alloc-size-of-3-6-0", until=marks.field_since(GetAllocSize, "srcs"))
def alloc_size_with_sources(subject: Subject) -> None:
    """GET_ALLOC_SIZE of 3,260 bytes with sources, as clients from 3.6.0 on send it: refused."""
    peer = subject.connect()
    payload = codec.encode(GetAllocSize(tensor=tensor_in(peer.alloc(64))), peer.version).ljust(3260, b"\0")
    peer.send(codec.REQUEST_HEAD.pack(13, 3260) + payload)
    peer.refused()


@case("frame.size-fixed/get-alloc-size-of-3-5-0", since=marks.field_since(GetAllocSize, "srcs"))
def alloc_size_without_sources(subject: Subject) -> None:
    """GET_ALLOC_SIZE of 300 bytes without sources, as clients up to 3.5.0 send it: refused."""
    peer = subject.connect()
    payload = codec.encode(GetAllocSize(tensor=tensor_in(peer.alloc(64))), peer.version)[:300]
    peer.send(codec.REQUEST_HEAD.pack(13, 300) + payload)
    peer.refused()


# -------------------------------------------------------------------------------------------------------- size-minimum


@case(
    "frame.size-minimum/{}",
    each={
        "set-tensor-0": (6, 0),
        "set-tensor-303": (6, 303),
        "graph-compute-0": (10, 0),
        "graph-compute-4": (10, 4),
        "graph-compute-11": (10, 11),
        "set-tensor-2d-0": (18, 0),
        "set-tensor-2d-327": (18, 327),
    },
    # 8 bytes are enough before GRAPH_COMPUTE names a device, and 18 is unknown before it is SET_TENSOR_2D
    since=lambda row: marks.field_since(GraphCompute, "device") if row == (10, 11) else marks.number_since(row[0]),
)
def too_small(subject: Subject, row: tuple[int, int]) -> None:
    """A request of variable size whose size field is below its fixed part, {}, with that many zero bytes: refused."""
    number, size = row
    peer = subject.connect()
    peer.send(codec.REQUEST_HEAD.pack(number, size) + bytes(size) + _sentinel(peer))
    peer.refused()


# -------------------------------------------------------------------------------------------------------- size-bounded

CLAIMS = {"2-64-less-1": 2**64 - 1, "2-63": 2**63, "2-40": 2**40, "256-mib": 2**28}


@case("frame.size-bounded/set-tensor-{}", each=CLAIMS, may_crash=True)
def claimed_data(subject: Subject, size: int) -> None:
    """SET_TENSOR that claims {} bytes but sends only its fixed part, for a tensor of 64: refused without waiting for more."""
    peer = subject.connect()
    tensor = tensor_in(peer.alloc(4096))
    peer.send(codec.REQUEST_HEAD.pack(6, size) + codec.encode(SetTensor(tensor=tensor, offset=0), peer.version))
    peer.refused()


@case("frame.size-bounded/graph-compute-{}", each=CLAIMS, may_crash=True)
def claimed_graph(subject: Subject, size: int) -> None:
    """GRAPH_COMPUTE that claims {} bytes, with both counts 0: refused without waiting for more."""
    peer = subject.connect()
    peer.send(codec.REQUEST_HEAD.pack(10, size) + bytes(codec.minimum_size(GraphCompute, peer.version)))
    peer.refused()


# ------------------------------------------------------------------------------------------------------ reply-presence


@case("frame.reply-presence/{}", each={_words(cls): cls for cls in GOOD}, since=marks.request_since)
def answers_exactly(subject: Subject, cls: type) -> None:
    """A valid {} and DEVICE_COUNT in one piece, then FIN: exactly the replies in the table come, then the end."""
    peer = subject.connect()
    request = GOOD[cls](_ready(peer, cls))
    peer.send(request, subject.sentinel)
    peer.finish_sending()
    peer.done(request)
    peer.in_step()
    peer.take_end()


@case("frame.reply-presence/hello")
def answers_hello(subject: Subject) -> None:
    """HELLO as literal bytes, then FIN: eleven bytes come, or 36 from 4.0.0 on, a size and as many bytes, and then the end."""
    peer = subject.open()
    hello, size = _hello(peer)
    peer.send(hello)
    peer.finish_sending()
    data = peer.take(size, "the reply to HELLO")
    require(data[:8] == bytes([size - 8, *[0] * 7]), f"a size of {size - 8}", data[:8].hex())
    peer.take_end()


@case("frame.reply-presence/nothing-unasked")
def says_nothing_first(subject: Subject) -> None:
    """A connection on which only a FIN is sent: no byte comes back."""
    peer = subject.open()
    peer.finish_sending()
    peer.take_end()


# --------------------------------------------------------------------------------------------------------- reply-order


@case("frame.reply-order/literal", since=marks.request_since(DeviceCount))
def literal_pipeline(subject: Subject) -> None:
    """HELLO, DEVICE_COUNT and GET_ALIGNMENT as literal bytes in one piece: replies of 3, 4 and 8 bytes in that order."""
    peer = subject.open()
    hello, first = _hello(peer)
    peer.send(hello + DEVICE_COUNT + GET_ALIGNMENT_0)
    got = peer.take(first + 12 + 16, "three replies")
    sizes, right = [got[at : at + 8] for at in (0, first, first + 12)], (first - 8, 4, 8)
    require(sizes == [bytes([n, *[0] * 7]) for n in right], f"sizes {right}", [size.hex() for size in sizes])


@case("frame.reply-order/get-tensor-100")
def sizes_in_order(subject: Subject) -> None:
    """A hundred GET_TENSOR of 1 to 100 bytes without waiting: the replies come in that order, with these sizes."""
    peer = subject.connect()
    tensor = tensor_in(peer.alloc(4096), [25])
    peer.write(tensor, bytes(range(100)))
    asked = [GetTensor(tensor=tensor, offset=100 - size, size=size) for size in range(1, 101)]
    peer.send(*asked)
    for request in asked:
        got = peer.reply(request).data
        require(got == bytes(range(100 - request.size, 100)), f"the last {request.size} bytes", got[:8].hex())


@case("frame.reply-order/set-get-100")
def writes_before_reads(subject: Subject) -> None:
    """SET_TENSOR and GET_TENSOR in turn a hundred times without waiting: each read shows the write just before it."""
    peer = subject.connect()
    tensor = tensor_in(peer.alloc(4096), [4])
    rounds = [
        (SetTensor(tensor=tensor, offset=0, data=bytes([turn] * 16)), GetTensor(tensor=tensor, offset=0, size=16))
        for turn in range(100)
    ]
    peer.send(*[message for pair in rounds for message in pair])
    for turn, (write, read) in enumerate(rounds):
        peer.done(write)
        require(peer.reply(read).data == bytes([turn] * 16), f"what round {turn} wrote", "another round's bytes")


@case("frame.reply-order/set-compute-get-100")
def compute_in_order(subject: Subject) -> None:
    """SET_TENSOR, GRAPH_COMPUTE and GET_TENSOR in turn a hundred times without waiting: the same results as with waiting."""
    peer = subject.connect()
    arena = Arena(peer)
    left, right = arena.leaf([1], [0.0]), arena.leaf([1], [0.5])
    total = arena.node("ADD", [left, right], [1])
    graph, read = arena.graph(total), GetTensor(tensor=total, offset=0, size=4)
    # small whole numbers are exact in float32, and so are they with 0.5 added
    inputs = [float(turn) for turn in range(100)]
    write = SetTensor(tensor=left, offset=0, data=bytes(4))
    peer.send(*[m for x in inputs for m in (replace(write, data=_f32(x)), graph, read)])
    for x in inputs:
        peer.done(write)
        peer.done(graph)
        _holds(peer.reply(read).data, [x + 0.5])


@case("frame.reply-order/set-recompute-get", since=marks.request_since(GraphRecompute))
def recompute_in_order(subject: Subject) -> None:
    """SET_TENSOR, GRAPH_RECOMPUTE and GET_TENSOR three times in one piece: each read shows the sum of the write just before."""
    peer = subject.connect()
    arena = Arena(peer)
    left = arena.leaf([1], [1.0])
    total = arena.node("ADD", [left, left], [1])
    arena.compute(total)
    read = GetTensor(tensor=total, offset=0, size=4)
    rounds = [[SetTensor(tensor=left, offset=0, data=_f32(x)), arena.again(), read] for x in (3, 4, 5)]
    peer.send(*[message for turn in rounds for message in turn])
    for x in (3, 4, 5):
        _holds(peer.reply(read).data, [2 * x])


# -------------------------------------------------------------------------------------------------------- segmentation


def _conversation(peer: Peer) -> tuple[bytes, list[Message]]:
    """Return requests of every form, encoded as one piece, and themselves."""
    arena = Arena(peer)
    left = arena.leaf([2], [1.5, 2.5])
    total = arena.node("ADD", [left, left], [2])
    arena.compute(total)  # a server that has no ADD shows it here
    requests: list[Message] = [
        SetTensor(tensor=left, offset=4, data=_f32(7.0)),
        peer.subject.sentinel,
        arena.graph(total),
        *([arena.again()] if peer.subject.facts.has(GraphRecompute) else []),
        GetTensor(tensor=total, offset=0, size=8),
        GetAllocSize(tensor=left),
    ]
    peer.need(*map(type, requests))
    return b"".join(codec.encode_request(request, peer.version) for request in requests), requests


def _check_conversation(peer: Peer, requests: list[Message]) -> None:
    for request in requests:
        if request == peer.subject.sentinel:
            peer.in_step()
        elif isinstance(request, GetTensor):
            _holds(peer.reply(request).data, [3.0, 14.0])
        else:
            peer.done(request)


@case("frame.segmentation/byte-by-byte")
def one_byte_at_a_time(subject: Subject) -> None:
    """SET_TENSOR, DEVICE_COUNT, GRAPH_COMPUTE, GRAPH_RECOMPUTE, GET_TENSOR and GET_ALLOC_SIZE byte by byte: each is answered."""
    peer = subject.connect()
    piece, requests = _conversation(peer)
    for at in range(len(piece)):
        peer.send(piece[at : at + 1])
    _check_conversation(peer, requests)


@case("frame.segmentation/one-piece")
def all_in_one_piece(subject: Subject) -> None:
    """The same six requests in one piece: each is answered."""
    peer = subject.connect()
    piece, requests = _conversation(peer)
    peer.send(piece)
    _check_conversation(peer, requests)


@case("frame.segmentation/cut-{}", each={"3-bytes": 3, "7-bytes": 7, "301-bytes": 301})
def cut_across(subject: Subject, step: int) -> None:
    """The same six requests in pieces of {} with a pause after every fifth: each is answered."""
    peer = subject.connect()
    piece, requests = _conversation(peer)
    for number, at in enumerate(range(0, len(piece), step)):
        peer.send(piece[at : at + step])
        if number % 5 == 4 and number < 50:
            time.sleep(0.001)  # lets the server see the piece alone
    _check_conversation(peer, requests)


@case("frame.segmentation/hello-with-pauses")
def hello_in_pieces(subject: Subject) -> None:
    """HELLO's bytes one by one with a pause of 5 ms after each: answered."""
    peer = subject.open()
    hello, size = _hello(peer)
    for byte in hello:
        peer.send(bytes([byte]))
        time.sleep(0.005)
    peer.take(size, "the reply to HELLO")


@case("frame.segmentation/pause-in-size-field")
def pause_in_head(subject: Subject) -> None:
    """DEVICE_COUNT cut after its command, and again within its size field, with pauses of 20 ms: answered."""
    peer = subject.connect()
    sentinel = _sentinel(peer)
    for part in (sentinel[:1], sentinel[1:5], sentinel[5:]):
        peer.send(part)
        time.sleep(0.02)
    peer.in_step()


@case("frame.segmentation/large-data")
def large_data(subject: Subject) -> None:
    """SET_TENSOR of 3 MiB in pieces of 65,521 bytes, then GET_TENSOR: the same bytes come back."""
    peer = subject.connect()
    size = 3 * 2**20
    tensor = tensor_in(peer.alloc(size), [size // 4])
    data = bytes(range(256)) * (size // 256)
    request = SetTensor(tensor=tensor, offset=0, data=data)
    piece = codec.encode_request(request, peer.version)
    for at in range(0, len(piece), 65521):
        peer.send(piece[at : at + 65521])
    peer.done(request)
    peer.sync()
    got = peer.read(tensor, size)
    require(got == data, "the bytes sent", "other bytes")


# ------------------------------------------------------------------------------------------------------------ complete


@case("frame.complete/{}", each={_words(cls): cls for cls in GOOD}, since=marks.request_since)
def last_byte_missing(subject: Subject, cls: type) -> None:
    """A valid request without its last byte, and then our FIN: the connection ends without an answer."""
    peer = subject.connect()
    peer.send(codec.encode_request(GOOD[cls](_ready(peer, cls)), peer.version)[:-1])
    peer.finish_sending()
    peer.refused()


@case("frame.complete/hello")
def hello_not_finished(subject: Subject) -> None:
    """HELLO without its last byte, and then our FIN: the connection ends without an answer."""
    peer = subject.open()
    peer.send(_hello(peer)[0][:-1])
    peer.finish_sending()
    peer.refused()


@case("frame.complete/after-whole-ones")
def whole_ones_first(subject: Subject) -> None:
    """Two DEVICE_COUNT and half of a third in one piece, and then our FIN: two replies, and then the end."""
    peer = subject.connect()
    sentinel = _sentinel(peer)
    peer.send(sentinel * 2 + sentinel[:5])
    peer.finish_sending()
    for _ in range(2):
        peer.in_step()
    peer.take_end()
