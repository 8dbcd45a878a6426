"""Framing: command byte, size field, payload, and which requests are answered with how much.

Several cases here send literal bytes and compare literal bytes: they judge our own codec as much as the server.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

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
    CopyTensor,
    DeviceCount,
    FreeBuffer,
    GetAlignment,
    GetAllocSize,
    GetDeviceMemory,
    GetMaxSize,
    GetTensor,
    GraphCompute,
    GraphRecompute,
    Hello,
    HelloReply,
    InitTensor,
    Message,
    SetTensor,
    SetTensorHash,
    command_name,
)
from ggml_rpc_ref.spec.versions import PROFILES, Version

HELLO = bytes.fromhex("0e 0000000000000000")
DEVICE_COUNT = bytes.fromhex("0f 0000000000000000")
GET_ALIGNMENT_0 = bytes.fromhex("01 0400000000000000 00000000")


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
    GraphRecompute: lambda a: GraphRecompute(device=0),
}
"""Request class to one that a server accepts where `_ready` has been called. HELLO has cases of its own."""


def _f32(value: float) -> bytes:
    return pack("F32", [value])


def _holds(data: bytes, values: list[float]) -> None:
    """Demand that floats that were computed are these, as nearly as float32 arithmetic is."""
    found = unpack("F32", data)
    require(all(map(is_near, found, values)), " and ".join(f"{v:g}" for v in values), " and ".join(f"{v:.9g}" for v in found))


def _words(cls: type) -> str:
    return command_name(cls).lower().replace("_", "-")


# ------------------------------------------------------------------------------------------------------- command-known


# 17: RPC_CMD_COUNT of 3.6.1; 18: RPC_CMD_NONE of 6.0.0, never sent; 24: the count of 8.0.0; 128: the sign bit
@case("frame.command-known/{}", each={"17": 17, "18": 18, "24": 24, "127": 127, "128": 128, "255": 255})
def unknown_command(subject: Subject, number: int) -> None:
    """After HELLO, command {} with size 0: refused."""
    peer = subject.open()
    peer.send(HELLO)
    peer.take(11, "the reply to HELLO")
    peer.send(bytes([number]) + bytes(8))
    peer.refused()


@case("frame.command-known/unfinished")
def unknown_command_alone(subject: Subject) -> None:
    """After HELLO, the single byte 200 without a size, and then our FIN: refused or ended, but never answered."""
    peer = subject.open()
    peer.send(HELLO)
    peer.take(11, "the reply to HELLO")
    peer.send(bytes([200]))
    peer.finish_sending()
    peer.refused()


# ---------------------------------------------------------------------------------------------------------- size-fixed


def _wrong_sizes() -> dict[str, tuple[type, int, bool]]:
    """Derive from the table: words to (request, size field, whether as many payload bytes are sent)."""
    rows: dict[str, tuple[type, int, bool]] = {}
    for cls in (*GOOD, Hello):
        if not codec.is_fixed(cls):
            continue
        right = codec.minimum_size(cls)
        sizes = {"long": right + 1} if right == 0 else {"short": right - 1, "long": right + 1, "zero": 0}
        rows |= {f"{_words(cls)}-{name}": (cls, size, True) for name, size in sizes.items()}
        rows[f"{_words(cls)}-huge"] = (cls, 2**64 - 1, False)
    return rows


@case("frame.size-fixed/{}", each=_wrong_sizes())
def wrong_size(subject: Subject, row: tuple[type, int, bool]) -> None:
    """A request that is valid except for its size field, {}: refused; a huge size is refused before any payload is sent."""
    cls, size, with_payload = row
    if cls is Hello:
        peer, good = subject.open(), b""
    else:
        peer = subject.connect()
        good = codec.encode(GOOD[cls](_ready(peer, cls)), peer.version)
    payload = good.ljust(size, b"\0")[:size] if with_payload else b""
    head = codec.REQUEST_HEAD.pack(REQUESTS[cls].number, size)
    silent = REQUESTS[cls].reply(peer.version) is NO_REPLY
    # whether a request without a reply was accepted shows only in the answer to the next one; after a huge size field that one
    # would be taken for payload
    peer.send(head + payload + DEVICE_COUNT * (silent and with_payload))
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


@case("frame.size-fixed/hello-of-4-0-0")
def hello_with_caps(subject: Subject) -> None:
    """HELLO with 24 bytes of capabilities, as clients from 4.0.0 on send it: refused, or answered in such a version."""
    peer = subject.open()
    peer.send(bytes.fromhex("0e 1800000000000000") + bytes(24))
    peer.refused(unless=_answers_hello_of(24))


@case("frame.size-fixed/get-alloc-size-of-3-5-0")
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
    },
)
def too_small(subject: Subject, row: tuple[int, int]) -> None:
    """A request of variable size whose size field is below its fixed part, {}, with that many zero bytes: refused."""
    number, size = row
    peer = subject.connect()
    peer.send(codec.REQUEST_HEAD.pack(number, size) + bytes(size) + DEVICE_COUNT)
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
    peer.send(codec.REQUEST_HEAD.pack(10, size) + bytes(12))
    peer.refused()


# ------------------------------------------------------------------------------------------------------ reply-presence


@case("frame.reply-presence/{}", each={_words(cls): cls for cls in GOOD})
def answers_exactly(subject: Subject, cls: type) -> None:
    """A valid {} and DEVICE_COUNT in one piece, then FIN: exactly the replies in the table come, then the end."""
    peer = subject.connect()
    request = GOOD[cls](_ready(peer, cls))
    peer.send(request, DeviceCount())
    peer.finish_sending()
    if REQUESTS[cls].reply(peer.version) is not NO_REPLY:
        peer.reply(request)
    peer.check_count(peer.reply(DeviceCount()))
    peer.take_end()


@case("frame.reply-presence/hello")
def answers_hello(subject: Subject) -> None:
    """HELLO as literal bytes, then FIN: eleven bytes come, a size of 3 and three bytes of version, then the end."""
    peer = subject.open()
    peer.send(HELLO)
    peer.finish_sending()
    data = peer.take(11, "the reply to HELLO")
    require(data[:8] == bytes.fromhex("0300000000000000"), "a size of 3", data[:8].hex())
    peer.take_end()


@case("frame.reply-presence/nothing-unasked")
def says_nothing_first(subject: Subject) -> None:
    """A connection on which only a FIN is sent: no byte comes back."""
    peer = subject.open()
    peer.finish_sending()
    peer.take_end()


# --------------------------------------------------------------------------------------------------------- reply-order


@case("frame.reply-order/literal")
def literal_pipeline(subject: Subject) -> None:
    """HELLO, DEVICE_COUNT and GET_ALIGNMENT as literal bytes in one piece: replies of 3, 4 and 8 bytes in that order."""
    peer = subject.open()
    peer.send(HELLO + DEVICE_COUNT + GET_ALIGNMENT_0)
    got = peer.take(11 + 12 + 16, "three replies")
    sizes = [got[0:8], got[11:19], got[23:31]]
    require(sizes == [bytes([n, *[0] * 7]) for n in (3, 4, 8)], "sizes 3, 4, 8", [size.hex() for size in sizes])


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
    for turn, (_, read) in enumerate(rounds):
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
    peer.send(*[m for x in inputs for m in (SetTensor(tensor=left, offset=0, data=_f32(x)), graph, read)])
    for x in inputs:
        _holds(peer.reply(read).data, [x + 0.5])


@case("frame.reply-order/set-recompute-get")
def recompute_in_order(subject: Subject) -> None:
    """SET_TENSOR, GRAPH_RECOMPUTE and GET_TENSOR three times in one piece: each read shows the sum of the write just before."""
    peer = subject.connect()
    arena = Arena(peer)
    left = arena.leaf([1], [1.0])
    total = arena.node("ADD", [left, left], [1])
    arena.compute(total)
    read = GetTensor(tensor=total, offset=0, size=4)
    rounds = [[SetTensor(tensor=left, offset=0, data=_f32(x)), GraphRecompute(device=0), read] for x in (3, 4, 5)]
    peer.send(*[message for turn in rounds for message in turn])
    for x in (3, 4, 5):
        _holds(peer.reply(read).data, [2 * x])


# -------------------------------------------------------------------------------------------------------- segmentation


def _conversation(peer: Peer) -> tuple[bytes, list[Message]]:
    """Return requests of every form, encoded as one piece, and those of them that are answered."""
    arena = Arena(peer)
    left = arena.leaf([2], [1.5, 2.5])
    total = arena.node("ADD", [left, left], [2])
    requests: list[Message] = [
        SetTensor(tensor=left, offset=4, data=_f32(7.0)),
        DeviceCount(),
        arena.graph(total),
        GraphRecompute(device=0),
        GetTensor(tensor=total, offset=0, size=8),
        GetAllocSize(tensor=left),
    ]
    piece = b"".join(codec.encode_request(request, peer.version) for request in requests)
    return piece, [r for r in requests if REQUESTS[type(r)].reply(peer.version) is not NO_REPLY]


def _check_conversation(peer: Peer, answered: list[Message]) -> None:
    replies = [peer.reply(request) for request in answered]
    peer.check_count(replies[0])
    _holds(replies[1].data, [3.0, 14.0])


@case("frame.segmentation/byte-by-byte")
def one_byte_at_a_time(subject: Subject) -> None:
    """SET_TENSOR, DEVICE_COUNT, GRAPH_COMPUTE, GRAPH_RECOMPUTE, GET_TENSOR and GET_ALLOC_SIZE byte by byte: each is answered."""
    peer = subject.connect()
    piece, answered = _conversation(peer)
    for at in range(len(piece)):
        peer.send(piece[at : at + 1])
    _check_conversation(peer, answered)


@case("frame.segmentation/one-piece")
def all_in_one_piece(subject: Subject) -> None:
    """The same six requests in one piece: each is answered."""
    peer = subject.connect()
    piece, answered = _conversation(peer)
    peer.send(piece)
    _check_conversation(peer, answered)


@case("frame.segmentation/cut-{}", each={"3-bytes": 3, "7-bytes": 7, "301-bytes": 301})
def cut_across(subject: Subject, step: int) -> None:
    """The same six requests in pieces of {} with a pause after every fifth: each is answered."""
    peer = subject.connect()
    piece, answered = _conversation(peer)
    for number, at in enumerate(range(0, len(piece), step)):
        peer.send(piece[at : at + step])
        if number % 5 == 4 and number < 50:
            time.sleep(0.001)  # lets the server see the piece alone
    _check_conversation(peer, answered)


@case("frame.segmentation/hello-with-pauses")
def hello_in_pieces(subject: Subject) -> None:
    """HELLO's nine bytes one by one with a pause of 5 ms after each: answered."""
    peer = subject.open()
    for byte in HELLO:
        peer.send(bytes([byte]))
        time.sleep(0.005)
    peer.take(11, "the reply to HELLO")


@case("frame.segmentation/pause-in-size-field")
def pause_in_head(subject: Subject) -> None:
    """DEVICE_COUNT cut after its command, and again within its size field, with pauses of 20 ms: answered."""
    peer = subject.connect()
    for part in (DEVICE_COUNT[:1], DEVICE_COUNT[1:5], DEVICE_COUNT[5:]):
        peer.send(part)
        time.sleep(0.02)
    peer.check_count(peer.reply(DeviceCount()))


@case("frame.segmentation/large-data")
def large_data(subject: Subject) -> None:
    """SET_TENSOR of 3 MiB in pieces of 65,521 bytes, then GET_TENSOR: the same bytes come back."""
    peer = subject.connect()
    size = 3 * 2**20
    tensor = tensor_in(peer.alloc(size), [size], "I8")
    data = bytes(range(256)) * (size // 256)
    piece = codec.encode_request(SetTensor(tensor=tensor, offset=0, data=data), peer.version)
    for at in range(0, len(piece), 65521):
        peer.send(piece[at : at + 65521])
    peer.sync()
    got = peer.read(tensor, size)
    require(got == data, "the bytes sent", "other bytes")


# ------------------------------------------------------------------------------------------------------------ complete


@case("frame.complete/{}", each={_words(cls): cls for cls in GOOD})
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
    peer.send(HELLO[:-1])
    peer.finish_sending()
    peer.refused()


@case("frame.complete/after-whole-ones")
def whole_ones_first(subject: Subject) -> None:
    """Two DEVICE_COUNT and half of a third in one piece, and then our FIN: two replies, and then the end."""
    peer = subject.connect()
    peer.send(DEVICE_COUNT * 2 + DEVICE_COUNT[:5])
    peer.finish_sending()
    for _ in range(2):
        peer.check_count(peer.reply(DeviceCount()))
    peer.take_end()
