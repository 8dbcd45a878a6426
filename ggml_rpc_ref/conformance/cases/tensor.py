"""The tensor record: its type, its dimensions and strides, and where it lies.

Each kind of bad tensor is sent in each command that carries one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ggml_rpc_ref.conformance import marks
from ggml_rpc_ref.conformance.arena import Arena, nbytes, quad, tensor_in
from ggml_rpc_ref.conformance.case import case
from ggml_rpc_ref.conformance.peer import Buffer, Peer, Subject
from ggml_rpc_ref.conformance.verdict import Broken, require
from ggml_rpc_ref.spec.dtypes import BY_NAME, DEAD_NUMBERS
from ggml_rpc_ref.spec.messages import (
    CopyTensor,
    FreeBuffer,
    GetAllocSize,
    GetTensor,
    InitTensor,
    RpcTensor,
    SetTensor,
    SetTensorHash,
)
from ggml_rpc_ref.spec.versions import Version

Carry = Callable[[Peer, RpcTensor, RpcTensor], object]
"""Makes the request that carries a bad tensor; the third argument is a good one in another buffer."""


def _graph_leaf(peer: Peer, bad: RpcTensor, good: RpcTensor) -> object:
    arena = Arena(peer)
    leaf, other = arena.add(bad), arena.leaf([4], [1.0] * 4)
    total = arena.node("ADD", [other, other], [4])
    return arena.graph(arena.change(total, src=(other.id, other.id, leaf.id)))


def _alloc_size_src(peer: Peer, bad: RpcTensor, good: RpcTensor) -> object:
    # any id but 0, with which it would stand for an absent source and not be read (rpc_server::get_alloc_size)
    return GetAllocSize(tensor=good, srcs=(replace(bad, id=7),))


CARRIERS: dict[str, Carry] = {
    "set-tensor": lambda peer, bad, good: SetTensor(tensor=bad, offset=0, data=bytes(4)),
    "set-tensor-hash": lambda peer, bad, good: SetTensorHash(tensor=bad, offset=0, hash=0x0102030405060708),
    "get-tensor": lambda peer, bad, good: GetTensor(tensor=bad, offset=0, size=4),
    "copy-tensor-src": lambda peer, bad, good: CopyTensor(src=bad, dst=good),
    "copy-tensor-dst": lambda peer, bad, good: CopyTensor(src=good, dst=bad),
    "init-tensor": lambda peer, bad, good: InitTensor(tensor=bad),
    "get-alloc-size": lambda peer, bad, good: GetAllocSize(tensor=bad),
    "get-alloc-size-src": _alloc_size_src,
    "graph-leaf": _graph_leaf,
}
"""Command to how it carries a tensor."""


def _carried_since(carry: Carry) -> Version | None:
    return marks.field_since(GetAllocSize, "srcs") if carry is _alloc_size_src else None


# ---------------------------------------------------------------------------------------------------------- type-known


@case("tensor.type-known/{}-255", each=CARRIERS, since=_carried_since)
def type_255(subject: Subject, carry: Carry) -> None:
    """{} whose tensor has type 255, which no build has: refused."""
    _refused_with(subject, carry, type=255)


@case("tensor.type-known/{}-dead", each=CARRIERS, since=_carried_since)
def type_4(subject: Subject, carry: Carry) -> None:
    """{} whose tensor has type 4, the number of a removed type (block size 0): refused."""
    _refused_with(subject, carry, type=4)


# from the newest version's count on: a type may come while a version is current (spec.dtypes)
@case("tensor.type-known/number-{}", each={str(n): n for n in (*DEAD_NUMBERS, 43, 128, 2**31, 2**32 - 1)}, may_crash=True)
def bad_number(subject: Subject, number: int) -> None:
    """SET_TENSOR on a tensor of type {}, which no version has, or which none has any more: refused."""
    if number < 2**16:
        subject.need_upstreams_numbers("types")
    _refused_with(subject, CARRIERS["set-tensor"], type=number)


def _refused_with(subject: Subject, carry: Carry, **fields: object) -> None:
    """Demand that a request is refused whose small tensor is valid except for these fields."""
    peer = subject.connect()
    bad = replace(tensor_in(peer.alloc(8192), [4], offset=1024), **fields)  # type: ignore[arg-type]
    peer.refuses(carry(peer, bad, tensor_in(peer.alloc(8192), [16])))


# ------------------------------------------------------------------------------------------------------ block-multiple

NOT_A_MULTIPLE = {"q4-0-of-1": ("Q4_0", 1), "q4-0-of-48": ("Q4_0", 48), "q8-0-of-33": ("Q8_0", 33), "q6-k-of-255": ("Q6_K", 255)}


def _broken_row(buffer: Buffer, type: str, ne0: int) -> RpcTensor:
    """Return a block-typed tensor whose row ends within a block; its strides leave room for the whole block."""
    dtype = BY_NAME[type]
    row = dtype.size * (ne0 // dtype.block + 1)
    return replace(tensor_in(buffer, [dtype.block], type, 1024), ne=quad([ne0]), nb=(dtype.size, row, row, row))


@case("tensor.block-multiple/{}-q4-0-of-48", each=CARRIERS, may_crash=True, since=_carried_since)
def broken_row_in(subject: Subject, carry: Carry) -> None:
    """{} whose tensor is Q4_0 with 48 elements in a row, one block and a half: refused."""
    peer = subject.connect()
    peer.refuses(carry(peer, _broken_row(peer.alloc(8192), "Q4_0", 48), tensor_in(peer.alloc(8192), [16])))


@case("tensor.block-multiple/{}", each=NOT_A_MULTIPLE, may_crash=True)
def broken_row(subject: Subject, row: tuple[str, int]) -> None:
    """GET_TENSOR of 4 bytes of a tensor whose row ends within a block, {}: refused."""
    peer = subject.connect()
    peer.refuses(GetTensor(tensor=_broken_row(peer.alloc(8192), *row), offset=0, size=4))


# -------------------------------------------------------------------------------------------------------- buffer-known


def _only(*names: str) -> dict[str, Carry]:
    return {name: CARRIERS[name] for name in names}


DATA_CARRIERS = _only("set-tensor", "set-tensor-hash", "get-tensor", "copy-tensor-src", "copy-tensor-dst")


@case("tensor.buffer-known/{}-null", each=DATA_CARRIERS)
def null_buffer(subject: Subject, carry: Carry) -> None:
    """{} whose tensor names buffer 0: refused."""
    _refused_with(subject, carry, buffer=0)


@case("tensor.buffer-known/{}-null-no-data", each=DATA_CARRIERS)
def null_buffer_and_data(subject: Subject, carry: Carry) -> None:
    """{} whose tensor names buffer 0 and address 0: refused."""
    _refused_with(subject, carry, buffer=0, data=0)


@case("tensor.buffer-known/{}-never-given", each=DATA_CARRIERS)
def unknown_buffer(subject: Subject, carry: Carry) -> None:
    """{} whose tensor names a handle that was never returned, with the address of a live buffer: refused."""
    _refused_with(subject, carry, buffer=2**64 - 8)


@case("tensor.buffer-known/{}-freed", each=DATA_CARRIERS)
def freed_buffer(subject: Subject, carry: Carry) -> None:
    """{} whose tensor lies in a buffer that has been freed: refused."""
    peer = subject.connect()
    good, gone = tensor_in(peer.alloc(8192), [16]), peer.alloc(8192)
    peer.takes(FreeBuffer(remote_ptr=gone.remote_ptr))
    peer.refuses(carry(peer, tensor_in(gone, [4], offset=1024), good))


# ----------------------------------------------------------------------------------------------------------- in-buffer

SIZE = 4096

Place = Callable[[Buffer], RpcTensor]

OUTSIDE: dict[str, Place] = {
    "byte-before": lambda b: replace(tensor_in(b, [4]), data=b.base - 1),
    "byte-behind": lambda b: tensor_in(b, [4], offset=b.size - 15),
    "at-end": lambda b: tensor_in(b, [4], offset=b.size),
    "too-long": lambda b: tensor_in(b, [b.size + 1], "I8"),
    "address-0": lambda b: replace(tensor_in(b, [4]), data=0),
    "address-wraps": lambda b: replace(tensor_in(b, [4]), data=2**64 - 8),
    "stride-leaves": lambda b: replace(tensor_in(b, [4, 2]), nb=(4, b.size - 15, b.size, b.size)),
    "last-stride-leaves": lambda b: replace(tensor_in(b, [1, 1, 1, 2]), nb=(4, 4, 4, b.size - 3)),
    "block-row-leaves": lambda b: replace(tensor_in(b, [32, 2], "Q8_0"), nb=(34, b.size - 33, b.size, b.size)),
    # each (ne-1)*nb is 2^62, so that the four of them make 2^64 and the sum wraps to the size of one element (OBS-4)
    "sum-of-strides-wraps": lambda b: replace(tensor_in(b), ne=(2**31 + 1,) * 4, nb=(2**31,) * 4),
}
"""A tensor whose bytes are not all in its buffer; none leaves it by more than a few bytes that anyone would touch."""


@case("tensor.in-buffer/{}", each=OUTSIDE, may_crash=True)
def outside(subject: Subject, place: Place) -> None:
    """GET_TENSOR of 4 bytes of a tensor that lies partly outside its buffer, {}: refused."""
    peer = subject.connect()
    peer.refuses(GetTensor(tensor=place(peer.alloc(SIZE)), offset=0, size=4))


@case("tensor.in-buffer/{}-byte-behind", each=CARRIERS, may_crash=True, since=_carried_since)
def one_byte_behind(subject: Subject, carry: Carry) -> None:
    """{} whose tensor ends one byte past the end of its buffer: refused."""
    peer = subject.connect()
    peer.refuses(carry(peer, OUTSIDE["byte-behind"](peer.alloc(SIZE)), tensor_in(peer.alloc(SIZE), [4])))


@case("tensor.in-buffer/{}-byte-before", each=CARRIERS, may_crash=True, since=_carried_since)
def one_byte_before(subject: Subject, carry: Carry) -> None:
    """{} whose tensor begins one byte before its buffer: refused."""
    peer = subject.connect()
    peer.refuses(carry(peer, OUTSIDE["byte-before"](peer.alloc(SIZE)), tensor_in(peer.alloc(SIZE), [4])))


@case("tensor.in-buffer/graph-second-of-its-kind", may_crash=True)
def second_of_its_kind_behind(subject: Subject) -> None:
    """GRAPH_COMPUTE with a source of a type, ne and nb that one before it has, ending one byte behind its buffer: refused."""
    arena = Arena(subject.connect())
    numbers = arena.leaf([4], [1.0, 2.0, 3.0, 4.0])
    total = arena.node("ADD", [numbers, numbers], [4])
    second = arena.add(replace(numbers, data=arena.buffer.base + arena.buffer.size - 15))
    arena.refuses(arena.change(total, src=(numbers.id, numbers.id, second.id)))


KINDS: dict[str, tuple[str, tuple[int, int, int, int]]] = {
    "rows": ("F32", (4, 2, 1, 1)),
    "matrices": ("F32", (4, 1, 2, 1)),
    "in-dimension-3": ("F32", (4, 1, 1, 2)),
    "blocks": ("Q8_0", (64, 1, 1, 1)),
    "rows-of-blocks": ("Q8_0", (32, 2, 1, 1)),
}
"""Words to a type and dimensions, each with its end in another place than the others'."""


@case("tensor.in-buffer/graph-second-of-its-kind-{}", each=KINDS, may_crash=True)
def second_of_a_kind_behind(subject: Subject, kind: tuple[str, tuple[int, int, int, int]]) -> None:
    """GRAPH_COMPUTE with two sources of the same type, ne and nb, {}, the second ending one byte behind its buffer: refused."""
    type, ne = kind
    arena = Arena(subject.connect())
    numbers, first = arena.leaf([4], [1.0, 2.0, 3.0, 4.0]), arena.leaf(ne, type=type)
    total = arena.node("ADD", [numbers, numbers], [4])
    second = arena.add(replace(first, data=arena.buffer.base + arena.buffer.size - nbytes(first) + 1))
    arena.refuses(arena.change(total, src=(numbers.id, numbers.id, first.id, second.id)))


@case("tensor.in-buffer/other-buffers-address", may_crash=True)
def in_another_buffer(subject: Subject) -> None:
    """GET_TENSOR of a tensor that names one live buffer and lies in the address range of another: refused."""
    peer = subject.connect()
    one, other = peer.alloc(SIZE), peer.alloc(SIZE)
    peer.refuses(GetTensor(tensor=replace(tensor_in(one, [4]), data=other.base), offset=0, size=4))


# --------------------------------------------------------------------------------------------------------------- empty

ZEROS = {"ne0": (0, 4, 1, 1), "ne1": (4, 0, 1, 1), "ne2": (4, 4, 0, 1), "ne3": (4, 4, 4, 0), "all": (0, 0, 0, 0)}


def _empty(buffer: Buffer, ne: tuple[int, int, int, int]) -> RpcTensor:
    return replace(tensor_in(buffer, [4, 4, 4, 1], offset=128), ne=ne)


@case("tensor.empty/{}", each=ZEROS, may_crash=True)
def zero_dimension(subject: Subject, ne: tuple[int, int, int, int]) -> None:
    """INIT_TENSOR, GET_ALLOC_SIZE, SET_TENSOR and GET_TENSOR of 0 bytes on a tensor with a dimension of 0, {}: accepted."""
    peer = subject.connect()
    tensor = _empty(peer.alloc(SIZE), ne)
    peer.takes(InitTensor(tensor=tensor))
    peer.ask(GetAllocSize(tensor=tensor))
    try:
        peer.tell(SetTensor(tensor=tensor, offset=0, data=b""))
        require(peer.read(tensor, 0) == b"", "no bytes", "some")
    except Broken as broken:
        if not broken.refused:
            raise
        # that a range of no bytes is accepted is a SHOULD of its own
        raise Broken(broken.expected, broken.actual, "data.empty", refused=True) from None


@case("tensor.empty/at-end")
def empty_at_the_end(subject: Subject) -> None:
    """INIT_TENSOR of a tensor with a dimension of 0 whose address is the end of its buffer: accepted."""
    peer = subject.connect()
    buffer = peer.alloc(SIZE)
    peer.takes(InitTensor(tensor=replace(_empty(buffer, (0, 1, 1, 1)), data=buffer.base + buffer.size)))


@case("tensor.empty/in-graph")
def empty_in_graph(subject: Subject) -> None:
    """A graph that adds two tensors without elements, then two of two elements: accepted, and the latter are added."""
    arena = Arena(subject.connect())
    nothing = arena.change(arena.leaf([4]), ne=(0, 1, 1, 1))
    left = arena.leaf([2], [1.0, 2.0])
    none = arena.change(arena.node("ADD", [nothing, nothing], [4]), ne=(0, 1, 1, 1))
    total = arena.node("ADD", [left, left], [2])
    arena.compute(none, total)
    arena.expect(total, [2.0, 4.0])


@case("tensor.empty/strides-do-not-matter")
def empty_with_large_strides(subject: Subject) -> None:
    """INIT_TENSOR of a tensor with a dimension of 0 and strides of 2^32-1: accepted."""
    peer = subject.connect()
    peer.takes(InitTensor(tensor=replace(_empty(peer.alloc(SIZE), (4, 0, 4, 4)), nb=(2**32 - 1,) * 4)))


@case("tensor.empty-anywhere/{}", each={"address-0": 0, "before-the-buffer": -64, "behind-the-buffer": SIZE + 64})
def empty_outside(subject: Subject, offset: int) -> None:
    """INIT_TENSOR of a tensor with a dimension of 0 whose address is outside its buffer, {}: accepted."""
    peer = subject.connect()
    buffer = peer.alloc(SIZE)
    peer.takes(InitTensor(tensor=replace(_empty(buffer, (0, 1, 1, 1)), data=buffer.base + offset if offset else 0)))


@case("tensor.empty-anywhere/in-graph")
def empty_outside_in_graph(subject: Subject) -> None:
    """A graph with a leaf without elements at address 0 of its buffer, and a sum: accepted, and the sum is computed."""
    arena = Arena(subject.connect())
    nothing = arena.change(arena.leaf([4]), ne=(0, 1, 1, 1), data=0)
    left = arena.leaf([2], [1.0, 2.0])
    none = arena.change(arena.node("ADD", [nothing, nothing], [4]), ne=(0, 1, 1, 1))
    total = arena.node("ADD", [left, left], [2])
    arena.compute(none, total)
    arena.expect(total, [2.0, 4.0])


# ---------------------------------------------------------------------------------------------------------------- init

INITIALISED = {"f32": ("F32", [4]), "q4-0": ("Q4_0", [32, 3]), "q8-0": ("Q8_0", [512, 2]), "q6-k": ("Q6_K", [256, 2])}


@case("tensor.init/{}", each=INITIALISED)
def keeps_data(subject: Subject, row: tuple[str, list[int]]) -> None:
    """SET_TENSOR, INIT_TENSOR, GET_TENSOR on a tensor of type {}: the bytes are unchanged."""
    type, ne = row
    peer = subject.connect()
    tensor = tensor_in(peer.alloc(SIZE), ne, type, 256)
    size = BY_NAME[type].size * ne[0] // BY_NAME[type].block * (ne[1] if len(ne) > 1 else 1)
    data = bytes(number % 251 for number in range(size))
    peer.write(tensor, data)
    peer.takes(InitTensor(tensor=tensor))
    require(peer.read(tensor, size) == data, "the bytes written before", "other bytes")


# ---------------------------------------------------------------------------------------------------------- alloc-size

SIZED: dict[str, tuple[str, tuple[int, ...], int]] = {
    "f32-vector": ("F32", (5,), 20),
    "f16-4d": ("F16", (3, 2, 2, 2), 48),
    "i64": ("I64", (3, 3), 72),
    "q4-0-512": ("Q4_0", (512, 2), 576),
    "q4-0-32": ("Q4_0", (32, 3), 54),
    "q6-k": ("Q6_K", (256, 4), 840),
    "large": ("F32", (4096, 4096, 16), 2**30),
}
"""Words to type, ne and ggml_nbytes, worked out by hand."""


@case("tensor.alloc-size/{}", each=SIZED)
def alloc_size(subject: Subject, row: tuple[str, tuple[int, ...], int]) -> None:
    """GET_ALLOC_SIZE of a tensor without an address, {}, twice: at least its size, and the same answer both times."""
    type, ne, size = row
    peer = subject.connect()
    tensor = replace(tensor_in(Buffer(0, 0, 0), ne, type), data=0)
    got = [peer.ask(GetAllocSize(tensor=tensor)).alloc_size for _ in range(2)]
    require(got[0] >= size, f"at least {size}", got[0])
    require(got[0] == got[1], "the same answer twice", got)


@case("tensor.alloc-size/strided")
def alloc_size_of_strided(subject: Subject) -> None:
    """GET_ALLOC_SIZE of 4 x 3 floats with rows 100 bytes apart: at least 216 bytes."""
    peer = subject.connect()
    tensor = replace(tensor_in(Buffer(0, 0, 0), [4, 3]), nb=(4, 100, 300, 300))
    got = peer.ask(GetAllocSize(tensor=tensor)).alloc_size
    require(got >= 216, "at least 216", got)


@case("tensor.alloc-size/beyond-64-bits")
def alloc_size_beyond_any_answer(subject: Subject) -> None:
    """GET_ALLOC_SIZE of two dimensions and strides of 2^32-1, which make 2^65 bytes, more than the reply can hold: refused."""
    most = 2**32 - 1
    tensor = replace(tensor_in(Buffer(0, 0, 0), [1, most, most]), nb=(4, most, most, most), data=0)
    subject.connect().refuses(GetAllocSize(tensor=tensor))


@case("tensor.alloc-size/placed")
def alloc_size_of_placed(subject: Subject) -> None:
    """GET_ALLOC_SIZE of 16 floats that lie in a buffer: at least 64 bytes."""
    peer = subject.connect()
    got = peer.ask(GetAllocSize(tensor=tensor_in(peer.alloc(SIZE), [16]))).alloc_size
    require(got >= 64, "at least 64", got)


@case("tensor.alloc-size/with-sources", since=marks.field_since(GetAllocSize, "srcs"))
def alloc_size_with_sources(subject: Subject) -> None:
    """GET_ALLOC_SIZE of a FLASH_ATTN_EXT with its four sources: at least the 256 bytes of its result."""
    peer = subject.connect()
    nowhere = Buffer(0, 0, 0)
    query, key = tensor_in(nowhere, [64, 1, 1]), tensor_in(nowhere, [64, 32, 1], "F16")
    mask = tensor_in(nowhere, [32, 64], "F16")
    tensor = replace(tensor_in(nowhere, [64, 1, 1]), op=subject.op("FLASH_ATTN_EXT"), src=(2, 3, 4, 5))
    srcs = tuple(replace(src, id=number) for number, src in enumerate((query, key, key, mask), 2))
    got = peer.ask(GetAllocSize(tensor=tensor, srcs=srcs)).alloc_size
    require(got >= 256, "at least 256", got)


@case("tensor.alloc-size/every-device")
def alloc_size_on_devices(subject: Subject) -> None:
    """GET_ALLOC_SIZE of 16 floats on every device: at least 64 bytes."""
    peer = subject.connect()
    for device in range(subject.facts.device_count):
        got = peer.ask(GetAllocSize(device=device, tensor=tensor_in(Buffer(0, 0, 0), [16]))).alloc_size
        require(got >= 64, "at least 64", got)


# ------------------------------------------------------------------------------------------------- the last of ten sources


def _in_slot_ten(bad: RpcTensor, good: RpcTensor) -> GetAllocSize:
    """Return GET_ALLOC_SIZE of a tensor whose tenth source is bad and whose others are absent."""
    absent = RpcTensor(id=0, ne=(0, 0, 0, 0), nb=(0, 0, 0, 0))
    return GetAllocSize(tensor=good, srcs=(*[absent] * 9, replace(bad, id=7)))


@case("tensor.type-known/get-alloc-size-tenth-source", since=marks.field_since(GetAllocSize, "srcs"))
def tenth_source_type(subject: Subject) -> None:
    """GET_ALLOC_SIZE whose tenth source has type 255, which no build has: refused."""
    peer = subject.connect()
    good = tensor_in(peer.alloc(SIZE), [4])
    peer.refuses(_in_slot_ten(replace(good, type=255), good))


@case("tensor.in-buffer/get-alloc-size-tenth-source", may_crash=True, since=marks.field_since(GetAllocSize, "srcs"))
def tenth_source_outside(subject: Subject) -> None:
    """GET_ALLOC_SIZE whose tenth source ends one byte past the end of its buffer: refused."""
    peer = subject.connect()
    buffer = peer.alloc(SIZE)
    peer.refuses(_in_slot_ten(OUTSIDE["byte-behind"](buffer), tensor_in(buffer, [4])))
