"""Buffers: their handles, addresses and sizes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from ggml_rpc_ref.conformance.arena import Arena, tensor_in
from ggml_rpc_ref.conformance.case import case
from ggml_rpc_ref.conformance.peer import Buffer, Subject, is_silent
from ggml_rpc_ref.conformance.verdict import Broken, NotJudged, Verdict, require
from ggml_rpc_ref.spec.messages import (
    AllocBuffer,
    BufferClear,
    BufferGetBase,
    FreeBuffer,
    GetMaxSize,
)

ON_BUFFER: dict[str, Callable[[int], object]] = {
    "buffer-get-base": lambda ptr: BufferGetBase(remote_ptr=ptr),
    "free-buffer": lambda ptr: FreeBuffer(remote_ptr=ptr),
    "buffer-clear": lambda ptr: BufferClear(remote_ptr=ptr, value=0),
}
"""The requests that name a buffer by its handle."""

# --------------------------------------------------------------------------------------------------------------- known


@case("buffer.known/{}-0", each=ON_BUFFER)
def null_handle(subject: Subject, request: Callable[[int], object]) -> None:
    """{} with remote_ptr 0: refused."""
    subject.connect().refuses(request(0))


@case("buffer.known/{}-never-given", each=ON_BUFFER)
def unknown_handle(subject: Subject, request: Callable[[int], object]) -> None:
    """{} with a remote_ptr one above that of a live buffer: refused."""
    peer = subject.connect()
    peer.refuses(request(peer.alloc(4096).remote_ptr + 1))


@case("buffer.known/{}-2-64-less-1", each=ON_BUFFER)
def largest_handle(subject: Subject, request: Callable[[int], object]) -> None:
    """{} with remote_ptr 2^64-1: refused."""
    subject.connect().refuses(request(2**64 - 1))


@case("buffer.known/{}-base-as-handle", each=ON_BUFFER)
def base_as_handle(subject: Subject, request: Callable[[int], object]) -> None:
    """{} with a live buffer's base_ptr in place of its remote_ptr: refused, unless the two are the same number."""
    peer = subject.connect()
    buffer = peer.alloc(4096)
    if buffer.base == buffer.remote_ptr:
        raise NotJudged("its handles are its addresses")
    peer.refuses(request(buffer.base))


@case("buffer.known/{}-freed", each={k: v for k, v in ON_BUFFER.items() if k != "free-buffer"})
def freed_handle(subject: Subject, request: Callable[[int], object]) -> None:
    """{} with the remote_ptr of a buffer that has been freed: refused."""
    peer = subject.connect()
    remote_ptr = peer.alloc(4096).remote_ptr
    peer.takes(FreeBuffer(remote_ptr=remote_ptr))
    peer.refuses(request(remote_ptr))


# ---------------------------------------------------------------------------------------------------------- freed-once


@case("buffer.freed-once/twice")
def double_free(subject: Subject) -> None:
    """FREE_BUFFER twice on one buffer: the second is refused."""
    peer = subject.connect()
    remote_ptr = peer.alloc(4096).remote_ptr
    peer.takes(FreeBuffer(remote_ptr=remote_ptr))
    peer.refuses(FreeBuffer(remote_ptr=remote_ptr))


@case("buffer.freed-once/one-piece")
def double_free_in_one_piece(subject: Subject) -> None:
    """FREE_BUFFER twice on one buffer in one piece: the first is answered, the second refused."""
    peer = subject.connect()
    free = FreeBuffer(remote_ptr=peer.alloc(4096).remote_ptr)
    peer.send(free, free, *[subject.sentinel] * is_silent(free, peer.version))
    peer.done(free)
    peer.refused()


# --------------------------------------------------------------------------------------------------------- alloc-fails


@case("buffer.alloc-fails/{}", each={"2-64-less-1": 2**64 - 1, "2-64-less-32": 2**64 - 32, "2-63": 2**63, "2-62": 2**62})
def impossible_size(subject: Subject, size: int) -> None:
    """ALLOC_BUFFER of {} bytes, more than any machine has: answered with (0, 0), and the connection goes on."""
    peer = subject.connect()
    got = peer.ask(AllocBuffer(size=size))
    require((got.remote_ptr, got.remote_size) == (0, 0), "(0, 0)", f"({got.remote_ptr:#x}, {got.remote_size})")
    peer.alloc(64)


@case("buffer.alloc-fails/above-max-size")
def above_max_size(subject: Subject) -> None:
    """ALLOC_BUFFER of one byte more than GET_MAX_SIZE says: (0, 0), or a buffer of that size, and the connection goes on."""
    peer = subject.connect()
    size = peer.ask(GetMaxSize()).max_size + 1
    if not 1 < size < 2**64:
        raise NotJudged("it names no largest size")
    got = peer.ask(AllocBuffer(size=size))
    # no rule forbids to give more than that
    require((got.remote_ptr == 0) == (got.remote_size < size), "(0, 0) or as much", f"({got.remote_ptr:#x}, {got.remote_size})")
    if got.remote_ptr:
        peer.takes(FreeBuffer(remote_ptr=got.remote_ptr))
    peer.alloc(64)


# ---------------------------------------------------------------------------------------------------------- alloc-size


@case("buffer.alloc-size/{}", each={"1": 1, "31": 31, "1000": 1000, "4097": 4097, "1-mib": 2**20, "16-mib-and-1": 2**24 + 1})
def size_given(subject: Subject, size: int) -> None:
    """ALLOC_BUFFER of {} bytes: remote_size is at least that, and the last byte can be written and read."""
    peer = subject.connect()
    got = peer.ask(AllocBuffer(size=size))
    if (got.remote_ptr, got.remote_size) == (0, 0):
        raise peer.no_room(size)
    require(got.remote_size >= size, f"at least {size} bytes", got.remote_size)
    base = peer.ask(BufferGetBase(remote_ptr=got.remote_ptr)).base_ptr
    last = tensor_in(Buffer(got.remote_ptr, base, size), [1], "I8", size - 1)
    peer.write(last, b"\x5a")
    require(peer.read(last, 1) == b"\x5a", "the byte written at the end", "another one")


# --------------------------------------------------------------------------------------------------------------- empty


@case("buffer.empty/handle")
def empty_buffer(subject: Subject) -> None:
    """ALLOC_BUFFER of 0 bytes: a handle other than 0, remote_size 0, base_ptr 0."""
    peer = subject.connect()
    got = peer.ask(AllocBuffer(size=0))
    require(got.remote_ptr != 0 and got.remote_size == 0, "a handle, and a size of 0", f"({got.remote_ptr:#x}, {got.remote_size})")
    base = peer.ask(BufferGetBase(remote_ptr=got.remote_ptr)).base_ptr
    require(base == 0, "base_ptr 0", hex(base))


@case("buffer.empty/freed")
def empty_buffer_freed(subject: Subject) -> None:
    """ALLOC_BUFFER of 0 bytes, BUFFER_CLEAR and FREE_BUFFER of it: each answered."""
    peer = subject.connect()
    remote_ptr = peer.ask(AllocBuffer(size=0)).remote_ptr
    peer.takes(BufferClear(remote_ptr=remote_ptr, value=1))
    peer.takes(FreeBuffer(remote_ptr=remote_ptr))


# ------------------------------------------------------------------------------------------------------------ disjoint


@case("buffer.disjoint/addresses")
def no_overlap(subject: Subject) -> None:
    """Sixteen buffers of 1 to 65,536 bytes: no two address ranges overlap, and no two handles are the same."""
    peer = subject.connect()
    buffers = sorted((peer.alloc(1 << number) for number in range(16)), key=lambda buffer: buffer.base)
    for low, high in pairwise(buffers):
        require(low.base + low.size <= high.base, f"{high.base:#x} behind {low.base + low.size:#x}", "an overlap")
    require(len({buffer.remote_ptr for buffer in buffers}) == 16, "sixteen handles", "one handle twice")


@case("buffer.disjoint/bytes")
def no_shared_bytes(subject: Subject) -> None:
    """Eight buffers, each filled with another byte: afterwards each holds only its own byte."""
    peer = subject.connect()
    buffers = [peer.alloc(4096) for _ in range(8)]
    for number, buffer in enumerate(buffers):
        peer.takes(BufferClear(remote_ptr=buffer.remote_ptr, value=number + 1))
    for number, buffer in enumerate(buffers):
        got = peer.read(tensor_in(buffer, [4096], "I8"), 4096)
        require(got == bytes([number + 1]) * 4096, f"{number + 1} in every byte", got[:8].hex())


# -------------------------------------------------------------------------------------------------------------- opaque


@case("buffer.opaque/not-mapped")
def not_mapped(subject: Subject) -> None:
    """Handles and base_ptr of four buffers, compared with the memory map of the server's process: none lies in it."""
    maps = Path(f"/proc/{subject.facts.pid}/maps")
    if subject.facts.pid is None or not maps.exists():
        raise NotJudged("seeing the server's memory map takes a server started by --spawn on Linux", Verdict.SKIP)
    peer = subject.connect()
    buffers = [peer.alloc(size) for size in (64, 4096, 2**20, 2**22)]
    # read once the buffers are there: the largest are mapped only then
    mapped = [tuple(int(end, 16) for end in line.split(" ", 1)[0].split("-")) for line in maps.read_text().splitlines()]
    for buffer in buffers:
        for what, number in (("remote_ptr", buffer.remote_ptr), ("base_ptr", buffer.base)):
            if any(start <= number < end for start, end in mapped):
                raise Broken("numbers that are not addresses of the process", f"{what} {number:#x} is one of its own")


# --------------------------------------------------------------------------------------------------------------- clean


@case("buffer.clean/reused")
def nothing_left_over(subject: Subject) -> None:
    """A buffer of 1,024 bytes filled with 0x5c and freed, then another of that size: it holds none of those bytes."""
    peer = subject.connect()
    for _ in range(8):
        old = peer.alloc(1024)
        peer.takes(BufferClear(remote_ptr=old.remote_ptr, value=0x5C))
        peer.takes(FreeBuffer(remote_ptr=old.remote_ptr))
        new = peer.alloc(1024)
        got = peer.read(tensor_in(new, [1024], "I8"), 1024)
        left = got.count(0x5C)
        # a byte or two may be there by chance
        require(left < 64, "no byte of the freed buffer", f"{left} of 1024 bytes are what the freed one held")


# --------------------------------------------------------------------------------------------------------------- clear


@case("buffer.clear/{}", each={"0": 0, "1": 1, "90": 90, "255": 255})
def cleared(subject: Subject, value: int) -> None:
    """BUFFER_CLEAR of 10,000 bytes with {}: every byte has that value."""
    peer = subject.connect()
    buffer = peer.alloc(10_000)
    tensor = tensor_in(buffer, [10_000], "I8")
    peer.write(tensor, bytes(range(250)) * 40)
    peer.takes(BufferClear(remote_ptr=buffer.remote_ptr, value=value))
    got = peer.read(tensor, 10_000)
    require(got == bytes([value]) * 10_000, f"{value} in every byte", f"{10_000 - got.count(value)} other bytes")


@case("buffer.clear/only-this-one")
def clears_one(subject: Subject) -> None:
    """BUFFER_CLEAR of one buffer: its neighbours keep their bytes."""
    peer = subject.connect()
    arenas = [Arena(peer, 16384) for _ in range(3)]
    leaves = [arena.leaf([4], [1.0, 2.0, 3.0, 4.0]) for arena in arenas]
    peer.takes(BufferClear(remote_ptr=arenas[1].buffer.remote_ptr, value=0))
    arenas[0].expect(leaves[0], [1.0, 2.0, 3.0, 4.0])
    arenas[1].expect(leaves[1], [0.0, 0.0, 0.0, 0.0])
    arenas[2].expect(leaves[2], [1.0, 2.0, 3.0, 4.0])


# ---------------------------------------------------------------------------------------- what begins at a size, or later

LARGE = 3 * 2**20 + 5
"""Bytes: servers treat what is larger than a mebibyte in another way."""


@case("buffer.clear/3-mib-and-5")
def clears_much(subject: Subject) -> None:
    """BUFFER_CLEAR of 3 MiB and 5 bytes: every byte has that value, the last one too."""
    peer = subject.connect()
    buffer = peer.alloc(LARGE)
    tensor = tensor_in(buffer, [LARGE], "I8")
    peer.write(tensor, b"\x5a" * LARGE)
    peer.takes(BufferClear(remote_ptr=buffer.remote_ptr, value=7))
    got = peer.read(tensor, LARGE)
    require(got == b"\x07" * LARGE, "7 in every byte", f"{LARGE - got.count(7)} other bytes")


@case("buffer.clear/under-a-stored-graph")
def clears_under_a_graph(subject: Subject) -> None:
    """BUFFER_CLEAR of the buffer of a graph that has been computed: every byte has that value."""
    arena = Arena(subject.connect())
    left = arena.leaf([4], [1.0, 2.0, 3.0, 4.0])
    total = arena.node("ADD", [left, left], [4])
    arena.compute(total)
    arena.peer.takes(BufferClear(remote_ptr=arena.buffer.remote_ptr, value=9))
    for tensor in (left, total):
        got = arena.peer.read(tensor, 16)
        require(got == b"\x09" * 16, "9 in every byte", got.hex())


@case("buffer.clean/1-mib")
def nothing_left_over_of_much(subject: Subject) -> None:
    """A buffer of 1 MiB filled with 0x5c and freed, then another of that size: it holds none of those bytes."""
    peer = subject.connect()
    size = 2**20
    old = peer.alloc(size)
    peer.takes(BufferClear(remote_ptr=old.remote_ptr, value=0x5C))
    peer.takes(FreeBuffer(remote_ptr=old.remote_ptr))
    got = peer.read(tensor_in(peer.alloc(size), [size], "I8"), size)
    left = got.count(0x5C)
    # some may be there by chance: one in 256, if the bytes are random
    require(left < size // 128, "no byte of the freed buffer", f"{left} of {size} bytes are what the freed one held")
