"""The tensor record: its type, its dimensions and strides, and where it lies; in each command that carries one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from vectors.tools.malformed.case import Case, Seen, accepted, refused
from vectors.tools.malformed.protocol import (
    COMPUTE,
    F32,
    I8,
    MXFP4,
    NVFP4,
    Q4_0,
    Q4_K,
    Q6_K,
    Q8_0,
    Request,
    Step,
    Tensor,
    Type,
    address,
    at_least,
    buffer,
    copy_tensor,
    f32,
    free,
    get_alloc_size,
    get_tensor,
    graph,
    handle,
    hear,
    hello,
    init_tensor,
    opened,
    quad,
    read,
    say,
    set_tensor,
    set_tensor_hash,
    strides,
    tensor,
    u32,
    u64,
    write,
)

OTHER = tensor(4096, [4], id=8)
"""A good tensor that a request needs beside the bad one."""
SUM = tensor(5120, [4], id=9, op=2, src=(8, 8), flags=COMPUTE)


def _in_graph(bad: Tensor) -> Request:
    leaf = replace(bad, id=7)
    return graph([9], [leaf, OTHER, replace(SUM, src=(8, 8, 7))])


CARRIERS: dict[str, Callable[[Tensor], Request]] = {
    "set-tensor": lambda bad: set_tensor(bad, bytes(4)),
    "set-tensor-hash": set_tensor_hash,
    "get-tensor": lambda bad: get_tensor(bad, 4),
    "copy-tensor-src": lambda bad: copy_tensor(bad, replace(OTHER, ne=(512, 1, 1, 1), nb=(4, 2048, 2048, 2048))),
    "copy-tensor-dst": lambda bad: copy_tensor(OTHER, bad),
    "init-tensor": init_tensor,
    "get-alloc-size": get_alloc_size,
    "get-alloc-size-src": lambda bad: get_alloc_size(OTHER, [replace(bad, id=7)]),
    "graph-leaf": _in_graph,
}
"""Where a tensor is carried to the request that carries this one there."""
DATA_CARRIERS = ("set-tensor", "set-tensor-hash", "get-tensor", "copy-tensor-src", "copy-tensor-dst")

HASH_LATE = Seen(("FAIL",), "answers 0 as soon as its cache has no such data, before it looks at the tensor")
SOURCE_LATE = Seen(("FAIL",), "takes a source that it can't decode for an absent one, and answers")


def cases() -> Iterator[Case]:
    """Yield every case of the section."""
    yield from type_known()
    yield from block_multiple()
    yield from buffer_known()
    yield from in_buffer()
    yield from empty()
    yield from init()
    yield from alloc_size()


# ------------------------------------------------------------------------------------------------------------ types

DEAD = (4, 5, 31, 32, 33, 36, 37, 38)
"""Type numbers whose type was removed: blocks of no elements and no bytes."""


def _in(words: str) -> str:
    """Return a carrier's words for a sentence."""
    for part in ("src", "dst"):
        if words.endswith(f"-{part}"):
            return f"{words.removesuffix(f'-{part}').upper().replace('-', '_')}'s {part}"
    return "A GRAPH_COMPUTE's record" if words == "graph-leaf" else f"{words.upper().replace('-', '_')}'s tensor"


def type_known() -> Iterator[Case]:
    """Type numbers beyond the last one, and removed ones."""
    placed = tensor(1024, [4])
    for number in DEAD:
        yield refused(
            f"tensor.type-known/dead-{number}",
            f"A tensor of type {number}, a number whose type was removed: its block has no elements, and computing with it divides"
            " by zero.",
            "SEC-09",
            "division-by-zero",
            [*opened(), say(get_tensor(replace(placed, type=number), 4))],
        )
    for words, number in {"43": 43, "128": 128, "2-31": 2**31, "2-32-less-1": 2**32 - 1}.items():
        yield refused(
            f"tensor.type-known/number-{words}",
            f"A tensor of type {number}, which is beyond the last one: its size would be read from behind the table of types.",
            "SEC-03 SEC-08",
            "out-of-bounds-read",
            [*opened(), say(get_tensor(replace(placed, type=number), 4))],
        )
    for words, carry in CARRIERS.items():
        seen = {"set-tensor-hash": HASH_LATE, "get-alloc-size-src": SOURCE_LATE}.get(
            words, Seen(("PASS",), "closes the connection")
        )
        for kind, number in {"255": 255, "dead": 4}.items():
            yield refused(
                f"tensor.type-known/{words}-{kind}",
                f"{_in(words)} has type {number}, which is {'beyond the last one' if number == 255 else 'a removed one'}. Every"
                " command that carries a tensor must check the type before it uses it.",
                "SEC-03 SEC-08 OBS-10" if words == "get-alloc-size-src" else "SEC-03 SEC-08" if number == 255 else "SEC-09",
                "out-of-bounds-read" if number == 255 else "division-by-zero",
                [*opened(), say(carry(replace(placed, type=number)))],
                seen,
            )


# ------------------------------------------------------------------------------------------------------------ blocks

BROKEN_ROWS = {
    "q4-0-of-1": (Q4_0, 1), "q4-0-of-48": (Q4_0, 48), "q8-0-of-33": (Q8_0, 33), "mxfp4-of-16": (MXFP4, 16),
    "nvfp4-of-96": (NVFP4, 96), "q4-k-of-128": (Q4_K, 128), "q6-k-of-255": (Q6_K, 255),
}  # fmt: skip
CUT_OFF = Seen(("FAIL",), "goes on with a row size that is rounded down: the assertion is there in debug builds only")


def _broken_row(type: Type, ne0: int) -> Tensor:
    """Return a tensor whose row ends within a block; its strides leave room for the whole block."""
    row = type.size * (ne0 // type.block + 1)
    return replace(tensor(1024, [type.block], type), ne=quad([ne0]), nb=(type.size, row, row, row))


def block_multiple() -> Iterator[Case]:
    """Rows of block types that end within a block."""
    for words, (type, ne0) in BROKEN_ROWS.items():
        yield refused(
            f"tensor.block-multiple/{words}",
            f"GET_TENSOR of a tensor of type {type.number} with {ne0} elements in a row, where a block has {type.block}: it is no"
            " whole number of blocks, and its size, rounded down, is less than what is read.",
            "SEC-07",
            "out-of-bounds-read abort-in-debug",
            [*opened(), say(get_tensor(_broken_row(type, ne0), 4))],
            BEYOND_TENSOR if ne0 == 1 else CUT_OFF,
        )
    for words, carry in CARRIERS.items():
        seen = {"set-tensor-hash": HASH_LATE}.get(words, CUT_OFF)
        yield refused(
            f"tensor.block-multiple/{words}-q4-0-of-48",
            f"{_in(words)} is Q4_0 with 48 elements in a row, a block and a half. Debug builds abort; release builds take"
            " it for one block.",
            "SEC-07",
            "out-of-bounds-read abort-in-debug",
            [*opened(), say(carry(_broken_row(Q4_0, 48)))],
            seen,
        )


BEYOND_TENSOR = Seen(
    ("CRASH",), "a row of less than a block has 0 bytes, and the assertion that the range lies inside the tensor aborts the process"
)

# ------------------------------------------------------------------------------------------------------------ buffers


def buffer_known() -> Iterator[Case]:
    """Tensors that lie in no live buffer, in the commands that move data."""
    placed = tensor(1024, [4])
    tensors: dict[str, tuple[Tensor, list[Step], str, str]] = {
        "null": (replace(placed, buffer=0, data=0), opened(), "no buffer and no address", "SEC-21"),
        "null-with-address": (replace(placed, buffer=0), opened(), "no buffer, and yet an address", "SEC-21 SEC-01 SEC-02"),
        "never-given": (replace(placed, buffer=2**64 - 8), opened(), "a handle that was never given", "SEC-21"),
        "freed": (
            replace(placed, buffer=handle("buf1"), data=address("buf1", 1024)),
            [*opened(), *buffer("buf1"), *free("buf1")],
            "the handle of a buffer that has been freed",
            "SEC-21 SEC-34",
        ),
    }
    for words in DATA_CARRIERS:
        for kind, (bad, before, what, references) in tensors.items():
            yield refused(
                f"tensor.buffer-known/{words}-{kind}",
                f"{_in(words)} has {what}. There are no such bytes, or they are another tensor's by now; a server that"
                " goes on follows a null or stale pointer.",
                references,
                "null-pointer" if "null" in kind else "stale-handle",
                [*before, say(CARRIERS[words](bad))],
                HASH_LATE if words == "set-tensor-hash" else Seen(("PASS",), "closes the connection"),
            )


ASSERTS = Seen(
    ("CRASH",), "deserialize_tensor compares the tensor with its buffer in a GGML_ASSERT, which aborts release builds too"
)

OUTSIDE: dict[str, tuple[Tensor, str]] = {
    "byte-before": (tensor(-1, [4]), "begins one byte before its buffer"),
    "byte-behind": (tensor(4096 - 15, [4]), "ends one byte behind its buffer"),
    "at-end": (tensor(4096, [4]), "begins where its buffer ends"),
    "too-long": (tensor(0, [4097], I8), "has one byte more than its buffer"),
    "far-behind": (tensor(2**40, [4]), "lies 2^40 bytes behind its buffer"),
    "address-0": (tensor(0, [4], data=0), "lies at address 0"),
    "address-wraps": (tensor(0, [4], data=2**64 - 8), "begins 8 bytes before 2^64, so that its end wraps to 8"),
    "stride-leaves": (tensor(0, [4, 2], nb=(4, 4081, 4096, 4096)), "has rows 4,081 bytes apart, and the second leaves the buffer"),
    "last-stride-leaves": (tensor(0, [1, 1, 1, 2], nb=(4, 4, 4, 4093)), "leaves the buffer by its last stride"),
    "stride-2-32-less-1": (tensor(0, [4, 2], nb=(4, 2**32 - 1, 16, 16)), "has rows 4 GiB apart"),
    "block-row-leaves": (
        tensor(0, [32, 2], Q8_0, nb=(34, 4063, 4096, 4096)),
        "has a second row of a block whose end leaves the buffer",
    ),
    "sum-of-strides-wraps": (
        tensor(0, ne=(2**31 + 1,) * 4, nb=(2**31,) * 4),
        "spans four times 2^62 bytes, which summed up in 64 bits wrap to the 4 of one element",
    ),
}
"""Words to a tensor that is not all in a buffer of 4,096 bytes, and how."""
EXACT = {"byte-behind", "at-end", "too-long", "stride-leaves", "last-stride-leaves", "block-row-leaves"}
"""Those that would lie inside if a server gave a few bytes more than asked for."""


def in_buffer() -> Iterator[Case]:
    """Tensors that are not all in their buffer."""
    for words, (bad, what) in OUTSIDE.items():
        wraps = "wrap" in words
        yield refused(
            f"tensor.in-buffer/{words}",
            f"GET_TENSOR of a tensor that {what}. A server that answers shows memory that is not the client's; one that asserts"
            " ends its process.",
            "SEC-02 OBS-4" if words.startswith("sum") else "SEC-02 FUN-05 OBS-1" if "2-32" in words else "SEC-02 OBS-1",
            " ".join(
                ["out-of-bounds-read", "memory-disclosure", "abort-in-release"]
                + ["integer-wrap"] * wraps
                + ["exact-buffer-size"] * (words in EXACT)
            ),
            [*opened(4096, exactly=words in EXACT), say(get_tensor(bad, 4))],
            Seen(("FAIL",), "sums up in 64 bits, which wrap to 4, and answers") if words.startswith("sum") else ASSERTS,
        )
    for words, carry in CARRIERS.items():
        if words == "get-tensor":
            continue  # above
        reference = {"set-tensor": "SEC-01 OBS-1", "copy-tensor-src": "SEC-02 OBS-1", "copy-tensor-dst": "SEC-20 OBS-1"}
        yield refused(
            f"tensor.in-buffer/{words}-byte-behind",
            f"{_in(words)} ends one byte past its buffer. A server that accepts it touches that byte; one that asserts ends its"
            " process.",
            reference.get(words, "OBS-1"),
            "out-of-bounds-write abort-in-release exact-buffer-size",
            [*hello(), *buffer("buf0"), *buffer("buf1", 4096, exactly=True), say(carry(tensor(4096 - 15, [4], in_="buf1")))],
            HASH_LATE if words == "set-tensor-hash" else ASSERTS,
        )
    yield refused(
        "tensor.in-buffer/set-tensor-address-0",
        "SET_TENSOR on a tensor that names a live buffer and lies at address 0. A server that accepts it writes wherever the"
        " client says.",
        "SEC-01 OBS-1",
        "out-of-bounds-write abort-in-release",
        [*opened(), say(set_tensor(tensor(0, [4], data=0), bytes(4)))],
        ASSERTS,
    )
    yield refused(
        "tensor.in-buffer/other-buffers-address",
        "GET_TENSOR of a tensor that names one live buffer and lies at an address in another one: the handle vouches for nothing.",
        "SEC-02 OBS-1",
        "out-of-bounds-read abort-in-release",
        [*opened(), *buffer("buf1"), say(get_tensor(tensor(1024, [4], data=address("buf1", 1024)), 4))],
        ASSERTS,
    )
    yield refused(
        "tensor.in-buffer/buffer-of-no-bytes",
        "GET_TENSOR of 4 floats in a buffer of no bytes, at its address, 0.",
        "SEC-02 SEC-42 OBS-1",
        "out-of-bounds-read null-pointer abort-in-release",
        [
            *hello(),
            say(Request("ALLOC_BUFFER", [u32(0), u64(0)])),
            hear("ALLOC_BUFFER", handle("buf0"), u64(0)),
            say(get_tensor(tensor(0, [4], data=0), 4)),
        ],
        ASSERTS,
    )


# ------------------------------------------------------------------------------------------------------------ no bytes

NOTHING = tensor(1024, (4, 0, 4, 4), nb=(4, 16, 0, 0))


def empty() -> Iterator[Case]:
    """Tensors with a dimension of 0, which every command accepts."""
    huge = replace(NOTHING, nb=(2**32 - 1,) * 4)
    guard = tensor(1024, [4], id=2)
    for words, steps in {
        "set-tensor": [write(NOTHING, b"")],
        "get-tensor": read(NOTHING, b""),
        "set-tensor-hash": [say(set_tensor_hash(NOTHING)), hear("SET_TENSOR_HASH", b"\0")],
        "copy-tensor": [say(copy_tensor(NOTHING, NOTHING)), hear("COPY_TENSOR", {"any": "01"})],
        "init-tensor": [say(init_tensor(NOTHING)), hear("INIT_TENSOR")],
        "get-alloc-size": [say(get_alloc_size(NOTHING)), hear("GET_ALLOC_SIZE", at_least(0))],
        "strides-2-32-less-1": [say(init_tensor(huge)), hear("INIT_TENSOR")],
        "first-dimension": [say(init_tensor(replace(NOTHING, ne=(0, 4, 4, 4)))), hear("INIT_TENSOR")],
        "every-dimension": [say(init_tensor(replace(NOTHING, ne=(0, 0, 0, 0)))), hear("INIT_TENSOR")],
    }.items():
        yield accepted(
            f"tensor.empty/{words}",
            "Nothing is wrong: a tensor with a dimension of 0 has no bytes, whatever its strides say. Servers that computed ne-1 in"
            " unsigned numbers took it for a huge one and died.",
            "FUN-09 OBS-4",
            "over-strict integer-wrap",
            [*opened(), write(guard, f32(1, 2, 3, 4)), *steps, *read(guard, f32(1, 2, 3, 4))],
        )
    yield accepted(
        "tensor.empty/at-end",
        "Nothing is wrong: a tensor without bytes whose address is the end of its buffer.",
        "FUN-09 OBS-13",
        "over-strict exact-buffer-size",
        [*opened(4096, exactly=True), say(init_tensor(replace(NOTHING, data=address("buf0", 4096)))), hear("INIT_TENSOR")],
    )
    nothing = replace(NOTHING, id=3, op=2, src=(1, 1), flags=COMPUTE)
    left, total = tensor(2048, [4], id=5), tensor(3072, [4], id=6, op=2, src=(5, 5), flags=COMPUTE)
    yield accepted(
        "tensor.empty/graph-compute",
        "Nothing is wrong: a graph that adds two tensors without elements, and then two with four, whose sum is right.",
        "FUN-09 FUN-01",
        "over-strict integer-wrap",
        [
            *opened(),
            write(left, f32(1, 2, 3, 4)),
            say(graph([3, 6], [NOTHING, nothing, left, total])),
            *read(total, f32(2, 4, 6, 8)),
        ],
    )


# ------------------------------------------------------------------------------------------------------------ the rest


def init() -> Iterator[Case]:
    """INIT_TENSOR that is to be accepted."""
    row, data = tensor(1024, [32, 3], Q8_0), bytes(range(102))
    yield accepted(
        "tensor.init/keeps-data",
        "Nothing is wrong: INIT_TENSOR of rows that a device may pad. The data written before are as they were.",
        "FUN-06",
        "over-strict silent-wrong-result",
        [*opened(), write(row, data), say(init_tensor(row)), hear("INIT_TENSOR"), *read(row, data)],
    )
    yield accepted(
        "tensor.init/no-buffer",
        "Nothing is wrong: INIT_TENSOR of a tensor without a buffer and without an address, which has nothing to prepare.",
        "FUN-21",
        "over-strict null-pointer",
        [*hello(), say(init_tensor(Tensor(type=F32.number))), hear("INIT_TENSOR")],
    )


def alloc_size() -> Iterator[Case]:
    """GET_ALLOC_SIZE near the limits of its numbers, and of ops whose sources are absent."""
    wide = Tensor(ne=(1, 1, 1, 3), nb=(4, 4, 4, 2**32 - 1))
    yield accepted(
        "tensor.alloc-size/beyond-32-bits",
        "Nothing is wrong: three elements 2^32-1 bytes apart span 8,589,934,594 bytes. Computed in 32 bits the answer is a few"
        " bytes, and a client places too much there.",
        "FUN-05",
        "integer-wrap over-strict",
        [*hello(), say(get_alloc_size(wide)), hear("GET_ALLOC_SIZE", at_least(2 * (2**32 - 1) + 4))],
    )
    padded = Tensor(type=Q8_0.number, ne=(32, 3, 1, 1), nb=strides(Q8_0, (32, 3)))
    yield accepted(
        "tensor.alloc-size/rows-to-be-padded",
        "Nothing is wrong: GET_ALLOC_SIZE of three rows of one block, which a device may pad. An answer below their 102 bytes has a"
        " client place the next tensor over them.",
        "FUN-06",
        "silent-wrong-result",
        [*hello(), say(get_alloc_size(padded)), hear("GET_ALLOC_SIZE", at_least(102))],
    )
    yield refused(
        "tensor.alloc-size/beyond-64-bits",
        "GET_ALLOC_SIZE of a tensor that spans more than 2^64 bytes, which no answer can say. Summed up in 64 bits it wraps to a"
        " size that a client would trust.",
        "OBS-4",
        "integer-wrap",
        [*hello(), say(get_alloc_size(Tensor(ne=(2**32 - 1,) * 4, nb=(2**32 - 1,) * 4)))],
        Seen(("FAIL",), "sums up in 64 bits, which wrap, and answers"),
    )
    for words, op in {"mul-mat-id": 30, "flash-attn-ext": 73, "top-k": 69}.items():
        yield accepted(
            f"tensor.alloc-size/{words}-without-sources",
            f"GET_ALLOC_SIZE of op {op} whose sources are all absent. Devices that want room behind such a result look at them; the"
            " answer is still a size, and not a null pointer followed.",
            "OBS-10 FUN-07",
            "null-pointer",
            [*hello(), say(get_alloc_size(tensor(0, [64], buffer=0, data=0, op=op))), hear("GET_ALLOC_SIZE", at_least(256))],
        )
