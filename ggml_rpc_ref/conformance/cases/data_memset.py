"""Data, continued: MEMSET_TENSOR, and the flag by which SET_TENSOR lets a server keep what it carries."""

from __future__ import annotations

from ggml_rpc_ref.conformance.arena import GUARD, Arena, tensor_in
from ggml_rpc_ref.conformance.case import case
from ggml_rpc_ref.conformance.cases.data import BULK, FAR_RANGES, PATTERN, RANGES, fnv1a_of_zeros
from ggml_rpc_ref.conformance.peer import Peer, Subject
from ggml_rpc_ref.conformance.verdict import require
from ggml_rpc_ref.spec.messages import MemsetTensor, RpcTensor, SetTensor, SetTensorHash

# -------------------------------------------------------------------------------------------------------------- memset


@case(
    "data.memset/{}",
    each={"first-byte": (0, 1), "last-byte": (63, 1), "middle": (13, 20), "all": (0, 64), "nothing": (32, 0)},
)
def set_bytes(subject: Subject, row: tuple[int, int]) -> None:
    """MEMSET_TENSOR of a part of a tensor, {}: those bytes have the value, and no other byte of the tensor or around it changes."""
    offset, size = row
    arena = Arena(subject.connect())
    tensor = arena.leaf([16], PATTERN[:64])
    arena.peer.takes(MemsetTensor(tensor=tensor, offset=offset, size=size, value=0x5C))
    around = tensor_in(arena.buffer, [192], "I8", tensor.data - arena.buffer.base - 64)
    want = bytearray([GUARD] * 64 + list(range(64)) + [GUARD] * 64)
    want[64 + offset : 64 + offset + size] = bytes([0x5C] * size)
    got = arena.peer.read(around, 192)
    wrong = next((at - 64 for at in range(192) if got[at] != want[at]), None)
    require(wrong is None, "only these bytes to change, to 0x5c", f"another byte at {wrong}")


@case("data.memset/{}", each={"value-0": 0, "value-1": 1, "value-255": 255})
def set_to_value(subject: Subject, value: int) -> None:
    """MEMSET_TENSOR of a whole tensor of 10,000 bytes, {}: every byte has it."""
    peer = subject.connect()
    tensor = tensor_in(peer.alloc(10_000), [10_000], "I8")
    peer.write(tensor, bytes(range(250)) * 40)
    peer.takes(MemsetTensor(tensor=tensor, offset=0, size=10_000, value=value))
    got = peer.read(tensor, 10_000)
    require(got == bytes([value]) * 10_000, f"{value} in every byte", f"{10_000 - got.count(value)} other bytes")


@case(
    "data.memset-in-tensor/{}",
    each={**RANGES, **FAR_RANGES, "offset-plus-size-wraps": (32, 2**64 - 16), "near-2-64": (2**64 - 8, 8), "size-2-63": (0, 2**63)},
    may_crash=True,
)
def set_outside(subject: Subject, row: tuple[int, int]) -> None:
    """MEMSET_TENSOR of a range that leaves the tensor, {}: refused."""
    offset, size = row
    peer = subject.connect()
    tensor = tensor_in(peer.alloc(8192), [16], offset=1024)
    peer.refuses(MemsetTensor(tensor=tensor, offset=offset, size=size, value=1))


# ---------------------------------------------------------------------------------------------------------- cache flag


def _bulk(peer: Peer) -> RpcTensor:
    return tensor_in(peer.alloc(BULK), [BULK], "I8")


def _sent(peer: Peer, words: str, flag: int) -> tuple[bytes, int]:
    """Write data of one's own, over 10 MiB, with a cache_flag; return it and its hash."""
    head = words.encode().ljust(32, b"!")
    data = head + bytes(BULK - len(head))
    peer.tell(SetTensor(tensor=_bulk(peer), cache_flag=flag, offset=0, data=data))
    return data, fnv1a_of_zeros(head, BULK - len(head))


@case("data.cache-flag/not-kept")
def not_kept(subject: Subject) -> None:
    """SET_TENSOR of over 10 MiB with cache_flag 0, then SET_TENSOR_HASH with its hash on another tensor: answered with 0."""
    peer = subject.connect()
    _, hash = _sent(peer, "cache-flag/not-kept", 0)
    got = peer.ask(SetTensorHash(tensor=_bulk(peer), offset=0, hash=hash)).result
    require(got == 0, "0", got)


@case("data.cache-flag-set/{}", each={"1": 1, "2": 2, "128": 128, "255": 255})
def flag_of_any_value(subject: Subject, flag: int) -> None:
    """SET_TENSOR of over 10 MiB with cache_flag {}: written; where SET_TENSOR_HASH is then answered with 1, the same data again."""
    peer = subject.connect()
    tensor = tensor_in(peer.alloc(4096))
    peer.tell(SetTensor(tensor=tensor, cache_flag=flag, offset=0, data=PATTERN[:64]))
    require(peer.read(tensor, 64) == PATTERN[:64], "the bytes that were written", "other bytes")
    data, hash = _sent(peer, f"cache-flag-set/{flag}", flag)
    other = _bulk(peer)
    result = peer.ask(SetTensorHash(tensor=other, offset=0, hash=hash)).result
    require(result in (0, 1), "0 or 1", result)
    if result:
        require(peer.read(other, BULK) == data, "the data with this hash", "other bytes")
