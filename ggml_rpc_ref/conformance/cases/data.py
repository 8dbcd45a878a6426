"""Data: what SET_TENSOR writes, GET_TENSOR reads, COPY_TENSOR copies and SET_TENSOR_HASH saves."""

from __future__ import annotations

from dataclasses import replace

from ggml_rpc_ref.conformance import marks
from ggml_rpc_ref.conformance.arena import GUARD, Arena, tensor_in
from ggml_rpc_ref.conformance.case import case
from ggml_rpc_ref.conformance.peer import Peer, Subject
from ggml_rpc_ref.conformance.verdict import Broken, NotJudged, require
from ggml_rpc_ref.spec.dtypes import BY_NAME, types
from ggml_rpc_ref.spec.messages import (
    BufferClear,
    CopyTensor,
    DeviceCount,
    GetTensor,
    RpcTensor,
    SetTensor,
    SetTensorHash,
)
from ggml_rpc_ref.spec.versions import PROFILES

SIZE = 8192
PATTERN = bytes(range(256))

# ----------------------------------------------------------------------------------------------------------- in-tensor

RANGES: dict[str, tuple[int, int]] = {
    "one-past-end": (0, 65),
    "last-and-one": (63, 2),
    "offset-at-end": (64, 1),
    "offset-past-end": (65, 1),
    "empty-past-end": (65, 0),
}
"""Words to (offset, size) of ranges that leave a tensor of 64 bytes in the middle of its buffer."""

FAR_RANGES: dict[str, tuple[int, int]] = {
    "past-buffer": (0, SIZE),
    "offset-past-buffer": (SIZE, 1),
    "offset-2-32": (2**32, 1),
    "offset-2-63": (2**63, 1),
}
"""The same for ranges that leave the buffer too."""


@case("data.in-tensor/set-{}", each=RANGES | FAR_RANGES, may_crash=True)
def write_outside(subject: Subject, row: tuple[int, int]) -> None:
    """SET_TENSOR of a range that leaves the tensor, {}: refused."""
    offset, size = row
    peer = subject.connect()
    peer.refuses(SetTensor(tensor=tensor_in(peer.alloc(SIZE), [16], offset=1024), offset=offset, data=bytes(size)))


@case(
    "data.in-tensor/get-{}",
    each={**RANGES, **FAR_RANGES, "size-2-63": (0, 2**63), "size-2-64-less-1": (0, 2**64 - 1)},
    may_crash=True,
)
def read_outside(subject: Subject, row: tuple[int, int]) -> None:
    """GET_TENSOR of a range that leaves the tensor, {}: refused, without a single byte of it."""
    offset, size = row
    peer = subject.connect()
    peer.refuses(GetTensor(tensor=tensor_in(peer.alloc(SIZE), [16], offset=1024), offset=offset, size=size))


@case("data.in-tensor/hash-offset-past-end")
def hash_outside(subject: Subject) -> None:
    """SET_TENSOR_HASH with an offset past the tensor's end and the hash of unknown data: refused, not answered with 0."""
    peer = subject.connect()
    peer.refuses(SetTensorHash(tensor=tensor_in(peer.alloc(SIZE), [16], offset=1024), offset=65, hash=0x0123456789ABCDEF))


# --------------------------------------------------------------------------------------------------------- offset-wrap


@case("data.offset-wrap/set-{}", each={"near-2-64": 2**64 - 8, "2-64-less-1024": 2**64 - 1024}, may_crash=True)
def write_before_by_wrapping(subject: Subject, offset: int) -> None:
    """SET_TENSOR of 8 bytes with an offset, {}, by which the address wraps to bytes before the tensor in its buffer: refused."""
    peer = subject.connect()
    peer.refuses(SetTensor(tensor=tensor_in(peer.alloc(SIZE), [16], offset=1024), offset=offset, data=bytes(8)))


@case("data.offset-wrap/get-{}", each={"near-2-64": 2**64 - 8, "2-64-less-1024": 2**64 - 1024}, may_crash=True)
def read_before_by_wrapping(subject: Subject, offset: int) -> None:
    """GET_TENSOR of 8 bytes with an offset, {}, by which the address wraps to bytes before the tensor in its buffer: refused."""
    peer = subject.connect()
    peer.refuses(GetTensor(tensor=tensor_in(peer.alloc(SIZE), [16], offset=1024), offset=offset, size=8))


@case("data.in-tensor/get-offset-plus-size-wraps", may_crash=True)
def offset_and_size_wrap(subject: Subject) -> None:
    """GET_TENSOR with offset 32 and a size of 2^64-16, whose sum wraps to 16: refused."""
    peer = subject.connect()
    peer.refuses(GetTensor(tensor=tensor_in(peer.alloc(SIZE), [16], offset=1024), offset=32, size=2**64 - 16))


# ---------------------------------------------------------------------------------------------------------- round-trip


def _round_trip(peer: Peer, tensor: RpcTensor, data: bytes) -> None:
    peer.write(tensor, data)
    got = peer.read(tensor, len(data))
    if got != data:
        wrong = next(at for at in range(len(data)) if got[at] != data[at])
        raise Broken("the bytes that were written", f"byte {wrong} of {len(data)} is {got[wrong]:#x} in place of {data[wrong]:#x}")


BASIC_TYPES = {"F32", "F16", "I32"}
"""Types without which no model's graph can be computed; the others a server may lack."""


@case(
    "data.round-trip/type-{}",
    each={dtype.name.lower().replace("_", "-"): dtype.name for dtype in types(max(PROFILES)).values()},
    since=lambda name: BY_NAME[name].since,
)
def round_trip(subject: Subject, type: str) -> None:
    """SET_TENSOR and GET_TENSOR of 256 elements of type {}: the same bytes; not judged where the server lacks the type."""
    if type not in BASIC_TYPES:
        subject.need_upstreams_numbers("types")
    peer = subject.connect()
    dtype = BY_NAME[type]
    size = dtype.size * 256 // dtype.block
    tensor, data = tensor_in(peer.alloc(SIZE), [256], type, 512), (PATTERN * 8)[3 : 3 + size]
    try:
        _round_trip(peer, tensor, data)
    except Broken as broken:
        if not broken.refused or type in BASIC_TYPES:
            raise
        raise NotJudged(f"it has no type {type}") from None


@case("data.round-trip/{}", each={"1-byte": 1, "1-mib-and-3": 2**20 + 3, "10-mib-and-1": 10 * 2**20 + 1})
def round_trip_of_size(subject: Subject, size: int) -> None:
    """SET_TENSOR and GET_TENSOR of {}: the same bytes."""
    peer = subject.connect()
    _round_trip(peer, tensor_in(peer.alloc(size), [size], "I8"), (PATTERN * (size // 256 + 1))[:size])


@case("data.round-trip/strided")
def round_trip_strided(subject: Subject) -> None:
    """SET_TENSOR and GET_TENSOR over all of a tensor with gaps between its rows: the same bytes, gaps included."""
    peer = subject.connect()
    tensor = replace(tensor_in(peer.alloc(SIZE), [4, 3]), nb=(4, 40, 120, 120))
    _round_trip(peer, tensor, PATTERN[:96])


@case("data.round-trip/name-without-nul")
def round_trip_long_name(subject: Subject) -> None:
    """A tensor whose name is 64 bytes other than 0: handled like any other."""
    peer = subject.connect()
    _round_trip(peer, replace(tensor_in(peer.alloc(SIZE)), name=b"n" * 64), PATTERN[:64])


@case("data.round-trip/name-of-any-bytes")
def round_trip_odd_name(subject: Subject) -> None:
    """A tensor whose name is the bytes 0x80 to 0xbf, which are not UTF-8: handled like any other."""
    peer = subject.connect()
    _round_trip(peer, replace(tensor_in(peer.alloc(SIZE)), name=bytes(range(0x80, 0xC0))), PATTERN[:64])


@case("data.round-trip/padding-not-zero", until=marks.field_until(RpcTensor, "padding"))
def round_trip_padding(subject: Subject) -> None:
    """A tensor whose padding is not zero, as clients before 2025-05-01 sent it: handled like any other."""
    peer = subject.connect()
    _round_trip(peer, replace(tensor_in(peer.alloc(SIZE)), padding=b"\xff\xfe\xfd\xfc"), PATTERN[:64])


@case("data.round-trip/unused-fields")
def round_trip_unused_fields(subject: Subject) -> None:
    """A tensor with an op, op_params, flags, src and view_src outside any graph: handled like one without."""
    peer = subject.connect()
    odd = {"op": 2, "op_params": (7,) * 16, "flags": 31, "src": (5, 6), "view_src": 9, "view_offs": 2**40, "id": 0}
    _round_trip(peer, replace(tensor_in(peer.alloc(SIZE)), **odd), PATTERN[:64])  # type: ignore[arg-type]


@case("data.round-trip/every-device")
def round_trip_on_devices(subject: Subject) -> None:
    """SET_TENSOR and GET_TENSOR in a buffer of every device: the same bytes."""
    peer = subject.connect()
    for device in range(subject.facts.device_count):
        _round_trip(peer, tensor_in(peer.alloc(SIZE, device), offset=64), PATTERN[device : device + 64])


# ------------------------------------------------------------------------------------------------------------- partial


def _guarded(peer: Peer) -> tuple[Arena, RpcTensor]:
    """Return a tensor of 64 bytes that holds 0 to 63."""
    arena = Arena(peer)
    return arena, arena.leaf([16], PATTERN[:64])


@case("data.partial/set-{}", each={"first-byte": (0, 1), "last-byte": (63, 1), "middle": (13, 20), "all": (0, 64)})
def write_part(subject: Subject, row: tuple[int, int]) -> None:
    """SET_TENSOR of a part of a tensor, {}: that part changes, and no other byte of the tensor or around it."""
    offset, size = row
    peer = subject.connect()
    arena, tensor = _guarded(peer)
    peer.write(tensor, bytes([0xEE] * size), offset)
    around = tensor_in(arena.buffer, [192], "I8", tensor.data - arena.buffer.base - 64)
    want = bytearray([GUARD] * 64 + list(range(64)) + [GUARD] * 64)
    want[64 + offset : 64 + offset + size] = bytes([0xEE] * size)
    got = peer.read(around, 192)
    require(got == bytes(want), "only the part to change", f"other bytes, first at {_first_difference(got, want)}")


@case("data.partial/get-{}", each={"first-byte": (0, 1), "last-byte": (63, 1), "middle": (13, 20), "all": (0, 64)})
def read_part(subject: Subject, row: tuple[int, int]) -> None:
    """GET_TENSOR of a part of a tensor, {}: that part."""
    offset, size = row
    peer = subject.connect()
    _, tensor = _guarded(peer)
    got = peer.read(tensor, size, offset)
    require(got == PATTERN[offset : offset + size], PATTERN[offset : offset + size].hex(), got.hex())


def _first_difference(got: bytes, want: bytes | bytearray) -> int:
    """Return the first index at which two byte strings of the same length differ, counted from the tensor's first byte."""
    return next((at - 64 for at in range(len(want)) if got[at] != want[at]), 0)


# --------------------------------------------------------------------------------------------------------------- empty

NOWHERE: dict[str, int] = {"at-start": 0, "in-middle": 32, "at-end": 64}


@case("data.empty/set-{}", each=NOWHERE)
def write_nothing(subject: Subject, offset: int) -> None:
    """SET_TENSOR of 0 bytes {} of a tensor: accepted, and nothing changes."""
    peer = subject.connect()
    _, tensor = _guarded(peer)
    peer.write(tensor, b"", offset)
    require(peer.read(tensor, 64) == PATTERN[:64], "unchanged bytes", "other bytes")


@case("data.empty/get-{}", each=NOWHERE)
def read_nothing(subject: Subject, offset: int) -> None:
    """GET_TENSOR of 0 bytes {} of a tensor: a reply of size 0."""
    peer = subject.connect()
    _, tensor = _guarded(peer)
    require(peer.read(tensor, 0, offset) == b"", "no bytes", "some")


@case("data.empty/{}-at-buffer-end", each={"set": True, "get": False})
def nothing_at_buffer_end(subject: Subject, write: bool) -> None:
    """SET_TENSOR or GET_TENSOR ({}) of 0 bytes at the end of a tensor that ends where its buffer does: accepted."""
    peer = subject.connect()
    buffer = peer.alloc(64)
    tensor = tensor_in(buffer, offset=buffer.size - 64)
    if write:
        peer.write(tensor, b"", 64)
    else:
        peer.read(tensor, 0, 64)


# -------------------------------------------------------------------------------------------------- hash-miss, hash-hit

BULK = 10 * 2**20 + 256
"""Bytes: just over what a client asks for by hash first, and a server keeps in its cache (HASH_THRESHOLD in ggml-rpc.cpp)."""


def fnv1a_of_zeros(head: bytes, zeros: int) -> int:
    """Return FNV-1a 64 of some bytes and as many zero bytes after them: each zero byte is one multiplication by the prime."""
    # the constants once more: cases do without the protocol's code, which would agree with itself (test_architecture)
    value = 0xCBF29CE484222325
    for byte in head:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value * pow(0x100000001B3, zeros, 2**64) % 2**64


@case("data.hash-miss/{}", each={"never-sent": 0x0123456789ABCDEF, "0": 0, "2-64-less-1": 2**64 - 1})
def unknown_hash(subject: Subject, hash: int) -> None:
    """SET_TENSOR_HASH with a hash of which no data is known, {}: answered with 0, and the tensor's bytes are unchanged."""
    peer = subject.connect()
    _, tensor = _guarded(peer)
    got = peer.ask(SetTensorHash(tensor=tensor, offset=0, hash=hash)).result
    require(got == 0, "0", got)
    require(peer.read(tensor, 64) == PATTERN[:64], "unchanged bytes", "other bytes")


@case("data.hash-hit/same-data")
def known_hash(subject: Subject) -> None:
    """SET_TENSOR of over 10 MiB, then SET_TENSOR_HASH with its hash on another tensor: if answered with 1, the same bytes."""
    # data of this case's own: a server's cache may still hold what another case has sent
    peer, head = subject.connect(), b"hash-hit/same-data".ljust(32, b"!")
    data = head + bytes(BULK - len(head))
    first, second = (tensor_in(peer.alloc(BULK), [BULK], "I8") for _ in range(2))
    peer.write(first, data, cached=True)
    _ask_cache(peer, second, fnv1a_of_zeros(head, BULK - len(head)))
    require(peer.read(second, BULK) == data, "the data with this hash", "other bytes")


@case("data.hash-hit/other-connection")
def known_hash_elsewhere(subject: Subject) -> None:
    """SET_TENSOR of over 10 MiB; on a later connection SET_TENSOR_HASH with its hash: if answered with 1, the same bytes."""
    peer, head = subject.connect(), b"hash-hit/other-connection".ljust(32, b"!")
    data = head + bytes(BULK - len(head))
    peer.write(tensor_in(peer.alloc(BULK), [BULK], "I8"), data, cached=True)
    peer.close()
    peer = subject.connect()
    tensor = tensor_in(peer.alloc(BULK), [BULK], "I8")
    _ask_cache(peer, tensor, fnv1a_of_zeros(head, BULK - len(head)))
    require(peer.read(tensor, BULK) == data, "the data with this hash", "other bytes")


def _ask_cache(peer: Peer, tensor: RpcTensor, hash: int) -> None:
    result = peer.ask(SetTensorHash(tensor=tensor, offset=0, hash=hash)).result
    if result == 0:
        raise NotJudged("it keeps no such data: no cache")
    require(result == 1, "0 or 1", result)


@case("data.in-tensor/hash-hit-too-long", may_crash=True)
def known_hash_too_long(subject: Subject) -> None:
    """SET_TENSOR_HASH of data that the server has, on a tensor of 64 bytes in a large buffer: nothing is written past its end."""
    peer, head = subject.connect(), b"hash-hit-too-long".ljust(32, b"!")
    buffer, hash = peer.alloc(BULK), fnv1a_of_zeros(head, BULK - len(head))
    bulk, small = tensor_in(buffer, [BULK], "I8"), tensor_in(buffer, [16])
    peer.write(bulk, head + bytes(BULK - len(head)), cached=True)
    _ask_cache(peer, bulk, hash)
    peer.takes(BufferClear(remote_ptr=buffer.remote_ptr, value=GUARD))
    request = SetTensorHash(tensor=small, offset=0, hash=hash)
    try:
        peer.ask(request)
    except Broken as broken:
        if not broken.refused:
            raise
        return  # refused; the runner checks after every case that the server lives
    require(peer.read(bulk, 4096, 64) == bytes([GUARD]) * 4096, "nothing written past the tensor's end", "something")


# ---------------------------------------------------------------------------------------------------- copy, copy-fits


def _copied(peer: Peer, src: RpcTensor, dst: RpcTensor, size: int) -> None:
    """Demand that COPY_TENSOR, if answered with 1, has copied."""
    want = peer.read(src, size)
    result = peer.ask(CopyTensor(src=src, dst=dst)).result
    require(result in (0, 1), "0 or 1", result)
    if result == 0:
        raise NotJudged("it does not copy between these")
    require(peer.read(dst, size) == want, "the source's bytes", "others")


@case("data.copy/same-buffer")
def copy_within(subject: Subject) -> None:
    """COPY_TENSOR from one tensor to another in the same buffer: if answered with 1, the bytes are there."""
    peer = subject.connect()
    arena, tensor = _guarded(peer)
    _copied(peer, tensor, arena.leaf([16]), 64)


@case("data.copy/other-buffer")
def copy_across(subject: Subject) -> None:
    """COPY_TENSOR into another buffer: if answered with 1, the bytes are there and those around them unchanged."""
    peer = subject.connect()
    _, tensor = _guarded(peer)
    other = Arena(peer)
    target = other.leaf([16])
    _copied(peer, tensor, target, 64)
    around = tensor_in(other.buffer, [192], "I8", target.data - other.buffer.base - 64)
    got = peer.read(around, 192)
    require(got[:64] + got[128:] == bytes([GUARD]) * 128, "unchanged bytes around it", "others")


@case("data.copy/other-device", since=marks.request_since(DeviceCount))
def copy_to_device(subject: Subject) -> None:
    """COPY_TENSOR into a buffer of another device: if answered with 1, the bytes are there."""
    peer = subject.connect()
    _, tensor = _guarded(peer)
    _copied(peer, tensor, tensor_in(peer.alloc(SIZE, subject.other_device())), 64)


@case("data.copy/onto-itself")
def copy_onto_itself(subject: Subject) -> None:
    """COPY_TENSOR of a tensor onto itself: its bytes are unchanged."""
    peer = subject.connect()
    _, tensor = _guarded(peer)
    _copied(peer, tensor, tensor, 64)


@case("data.copy/{}", each={"overlap-forward": (0, 16), "overlap-backward": (16, 0)})
def copy_overlapping(subject: Subject, row: tuple[int, int]) -> None:
    """COPY_TENSOR between tensors of 64 bytes that share 48, {}: if answered with 1, the destination holds what the source held."""
    peer = subject.connect()
    buffer = peer.alloc(SIZE)
    peer.write(tensor_in(buffer, [80], "I8"), PATTERN[:80])
    _copied(peer, tensor_in(buffer, [16], offset=row[0]), tensor_in(buffer, [16], offset=row[1]), 64)


@case("data.copy/into-larger")
def copy_into_larger(subject: Subject) -> None:
    """COPY_TENSOR of 64 bytes into a tensor of 128: if answered with 1, its first 64 bytes are the source's, the rest unchanged."""
    peer = subject.connect()
    arena, tensor = _guarded(peer)
    target = arena.leaf([32])
    _copied(peer, tensor, target, 64)
    got = peer.read(target, 64, 64)
    require(got == bytes([GUARD]) * 64, "the rest unchanged", got[:8].hex())


@case("data.copy-fits/into-smaller", may_crash=True)
def copy_into_smaller(subject: Subject) -> None:
    """COPY_TENSOR of 64 bytes into a tensor of 60 with more buffer behind it: refused."""
    peer = subject.connect()
    arena, tensor = _guarded(peer)
    peer.refuses(CopyTensor(src=tensor, dst=arena.leaf([15])))


@case("data.copy-fits/into-end", may_crash=True)
def copy_into_end(subject: Subject) -> None:
    """COPY_TENSOR of 64 bytes into a tensor of 60 at the end of its buffer: refused."""
    peer = subject.connect()
    _, tensor = _guarded(peer)
    buffer = peer.alloc(64)
    peer.refuses(CopyTensor(src=tensor, dst=tensor_in(buffer, [15], offset=buffer.size - 60)))


@case("data.copy-fits/into-empty", may_crash=True)
def copy_into_empty(subject: Subject) -> None:
    """COPY_TENSOR of 64 bytes into a tensor with a dimension of 0: refused."""
    peer = subject.connect()
    arena, tensor = _guarded(peer)
    peer.refuses(CopyTensor(src=tensor, dst=arena.change(arena.leaf([16]), ne=(0, 1, 1, 1))))


# -------------------------------------------------------------------------------------------- what begins at a size


@case("data.round-trip/17-mib-and-3")
def round_trip_of_much(subject: Subject) -> None:
    """SET_TENSOR and GET_TENSOR of 17 MiB and 3 bytes, each in one piece: the same bytes."""
    peer, size = subject.connect(), 17 * 2**20 + 3
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    _round_trip(peer, tensor_in(peer.alloc(size), [size], "I8"), data)


MUCH: dict[str, tuple[int, int, int]] = {
    "3-mib-overlap-forward": (3, 0, 4096),
    "3-mib-overlap-backward": (3, 4096, 0),
    # more than a server may copy at one go
    "17-mib-overlap-forward": (17, 0, 4096),
    "17-mib-overlap-backward": (17, 4096, 0),
}
"""Words to a length in MiB, and where source and destination begin."""


@case("data.copy/{}", each=MUCH)
def copy_much_overlapping(subject: Subject, row: tuple[int, int, int]) -> None:
    """COPY_TENSOR between tensors that share all but 4,096 bytes, {}: if answered with 1, it holds the source's."""
    (mib, *places), peer = row, subject.connect()
    size = mib * 2**20
    buffer = peer.alloc(size + 4096)
    whole = tensor_in(buffer, [size + 4096], "I8")
    # a period that no copy in blocks of a power of two repeats by chance
    peer.write(whole, (bytes(range(251)) * (size // 251 + 32))[: size + 4096])
    _copied(peer, tensor_in(buffer, [size], "I8", places[0]), tensor_in(buffer, [size], "I8", places[1]), size)


@case("data.hash-hit/at-an-offset")
def known_hash_at_an_offset(subject: Subject) -> None:
    """SET_TENSOR_HASH with an offset of 4,096 into a larger tensor, of known data: they are there, and nothing else changed."""
    peer, head = subject.connect(), b"hash-hit/at-an-offset".ljust(32, b"!")
    buffer, hash = peer.alloc(BULK + 8192), fnv1a_of_zeros(head, BULK - len(head))
    whole = tensor_in(buffer, [BULK + 8192], "I8")
    data = head + bytes(BULK - len(head))
    peer.write(tensor_in(buffer, [BULK], "I8"), data, cached=True)
    peer.takes(BufferClear(remote_ptr=buffer.remote_ptr, value=GUARD))
    # what is known is BULK bytes: the tensor must end where they do
    target = replace(whole, ne=(BULK + 4096, 1, 1, 1), nb=(1, *[BULK + 4096] * 3))
    result = peer.ask(SetTensorHash(tensor=target, offset=4096, hash=hash)).result
    if result == 0:
        raise NotJudged("it keeps no such data: no cache")
    got = peer.read(whole, BULK + 8192)
    wanted = bytes([GUARD]) * 4096 + data + bytes([GUARD]) * 4096
    if got != wanted:
        raise Broken("the data from byte 4096 on, and nothing else changed", f"other bytes, first at {_first(got, wanted)}")


def _first(got: bytes, wanted: bytes) -> int:
    return next((at for at in range(len(wanted)) if got[at : at + 1] != wanted[at : at + 1]), 0)


# --------------------------------------------------------------------------------------------------- not too strict


@case("data.round-trip/odd-address")
def round_trip_at_odd_address(subject: Subject) -> None:
    """SET_TENSOR and GET_TENSOR on a tensor of floats whose address is odd: the same bytes."""
    peer = subject.connect()
    _round_trip(peer, tensor_in(peer.alloc(SIZE), [16], offset=1025), PATTERN[7:71])
