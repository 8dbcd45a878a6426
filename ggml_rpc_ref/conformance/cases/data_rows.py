"""Data, continued: rows at equal distances, which SET_TENSOR_2D writes and GET_TENSOR_2D reads."""

from __future__ import annotations

from typing import NamedTuple

from ggml_rpc_ref.conformance.arena import GUARD, Arena, tensor_in
from ggml_rpc_ref.conformance.case import case
from ggml_rpc_ref.conformance.peer import Peer, Subject
from ggml_rpc_ref.conformance.verdict import Broken, Verdict, require
from ggml_rpc_ref.spec.messages import GetTensor2d, RpcTensor, SetTensor2d

WHOLE = 256
"""Bytes of the tensor that the rows lie in."""
PATTERN = bytes(range(256))


class Rows(NamedTuple):
    """Rows in a tensor, as the two requests name them."""

    offset: int
    size: int
    n_copies: int
    stride: int

    def write(self, tensor: RpcTensor, data: bytes) -> SetTensor2d:
        """Return the request that writes them."""
        return SetTensor2d(tensor=tensor, data=data, **self._asdict())

    def read(self, tensor: RpcTensor) -> GetTensor2d:
        """Return the request that reads them."""
        return GetTensor2d(tensor=tensor, **self._asdict())

    def over(self, data: bytes, rows: bytes) -> bytes:
        """Return data with these rows written into it, one after another."""
        changed = bytearray(data)
        for index in range(self.n_copies):
            at = self.offset + index * self.stride
            changed[at : at + self.size] = rows[index * self.size :][: self.size]
        return bytes(changed)

    def of(self, data: bytes) -> bytes:
        """Return the rows as they lie in data."""
        starts = (self.offset + index * self.stride for index in range(self.n_copies))
        return b"".join(data[at : at + self.size] for at in starts)


GOOD: dict[str, Rows] = {
    "column": Rows(4, 4, 16, 16),
    "one-row": Rows(16, 48, 1, 0),
    "one-row-of-any-stride": Rows(16, 48, 1, 2**63),
    "without-gaps": Rows(32, 8, 16, 8),
    "up-to-the-end": Rows(6, 10, 16, 16),
    "single-bytes": Rows(0, 1, 86, 3),
    "all": Rows(0, 64, 4, 64),
}
"""Rows that are inside a tensor of 256 bytes and apart."""


def _tensor(peer: Peer) -> tuple[Arena, RpcTensor]:
    arena = Arena(peer)
    return arena, arena.leaf([WHOLE // 4], PATTERN)


@case("data.rows/set-{}", each=GOOD)
def write_rows(subject: Subject, rows: Rows) -> None:
    """SET_TENSOR_2D, {}: the rows are there, and no byte between or around them has changed."""
    arena, tensor = _tensor(subject.connect())
    data = bytes(255 - n % 256 for n in range(rows.size * rows.n_copies))
    arena.peer.tell(rows.write(tensor, data))
    around = tensor_in(arena.buffer, [WHOLE + 128], "I8", tensor.data - arena.buffer.base - 64)
    got, want = arena.peer.read(around, WHOLE + 128), bytes([GUARD] * 64) + rows.over(PATTERN, data) + bytes([GUARD] * 64)
    wrong = next((at - 64 for at in range(len(want)) if got[at] != want[at]), None)
    require(wrong is None, "these rows to change and nothing else", f"another byte at {wrong}")


@case("data.rows/get-{}", each=GOOD)
def read_rows(subject: Subject, rows: Rows) -> None:
    """GET_TENSOR_2D, {}: the rows one after another, without what lies between them."""
    arena, tensor = _tensor(subject.connect())
    got, want = arena.peer.ask(rows.read(tensor)).data, rows.of(PATTERN)
    require(got == want, want[:16].hex(), bytes(got[:16]).hex())


@case("data.rows/{}", each={"40000-of-4-bytes": Rows(8, 4, 40_000, 52), "9-of-a-mib": Rows(3, 2**20, 9, 2**20 + 5)})
def many_rows(subject: Subject, rows: Rows) -> None:
    """SET_TENSOR_2D and GET_TENSOR_2D of more than a server moves at one go, {}: the rows, and the bytes between as they were."""
    peer, size = subject.connect(), rows.offset + rows.stride * rows.n_copies
    tensor = tensor_in(peer.alloc(size), [size], "I8")
    peer.write(tensor, bytes([GUARD]) * size)
    # no row, and no piece of a power of two, begins like another
    data = (bytes(range(251)) * (rows.size * rows.n_copies // 251 + 1))[: rows.size * rows.n_copies]
    peer.tell(rows.write(tensor, data))
    require(
        peer.read(tensor, size) == rows.over(bytes([GUARD]) * size, data), "these rows to change and nothing else", "other bytes"
    )
    require(peer.ask(rows.read(tensor)).data == data, "the rows that were written", "other bytes")


OUTSIDE: dict[str, Rows] = {
    "one-byte-past-end": Rows(7, 10, 16, 16),
    "last-row-outside": Rows(0, 16, 17, 16),
    "offset-at-end": Rows(WHOLE, 1, 1, 0),
    "offset-past-end": Rows(WHOLE + 1, 1, 1, 0),
    "row-longer-than-tensor": Rows(0, WHOLE + 1, 1, 0),
    "stride-past-end": Rows(0, 4, 2, WHOLE),
    "stride-past-buffer": Rows(0, 4, 2, 2**20),
    "offset-2-63": Rows(2**63, 4, 2, 8),
    "near-2-64": Rows(2**64 - 8, 4, 2, 8),
    # one less than n_copies, times stride, is 2^64 and wraps to 0
    "stride-2-63-wraps": Rows(0, 4, 3, 2**63),
    "stride-2-64-less-4-wraps": Rows(8, 4, 2, 2**64 - 4),
}
"""Rows that are not all inside a tensor of 256 bytes in the middle of its buffer."""


@case("data.rows-in-tensor/set-{}", each=OUTSIDE, may_crash=True)
def write_rows_outside(subject: Subject, rows: Rows) -> None:
    """SET_TENSOR_2D of rows that leave the tensor, {}: refused."""
    arena, tensor = _tensor(subject.connect())
    arena.peer.refuses(rows.write(tensor, bytes(rows.size * rows.n_copies)))


@case("data.rows-in-tensor/get-{}", each=OUTSIDE, may_crash=True)
def read_rows_outside(subject: Subject, rows: Rows) -> None:
    """GET_TENSOR_2D of rows that leave the tensor, {}: refused."""
    arena, tensor = _tensor(subject.connect())
    arena.peer.refuses(rows.read(tensor))


NONE: dict[str, Rows] = {"n-copies-0": Rows(0, 4, 0, 4), "size-0": Rows(0, 0, 4, 4), "both-0": Rows(0, 0, 0, 0)}


@case("data.rows-none/set-{}", each=NONE, may_crash=True)
def write_no_rows(subject: Subject, rows: Rows) -> None:
    """SET_TENSOR_2D without data whose rows are none, {}: refused."""
    arena, tensor = _tensor(subject.connect())
    arena.peer.refuses(rows.write(tensor, b""))


@case("data.rows-none/get-{}", each=NONE, may_crash=True)
def read_no_rows(subject: Subject, rows: Rows) -> None:
    """GET_TENSOR_2D whose rows are none, {}: refused."""
    arena, tensor = _tensor(subject.connect())
    arena.peer.refuses(rows.read(tensor))


LENGTHS: dict[str, tuple[Rows, int]] = {
    "one-byte-less": (Rows(0, 4, 8, 8), 31),
    "one-byte-more": (Rows(0, 4, 8, 8), 33),
    "none": (Rows(0, 4, 8, 8), 0),
    "one-row": (Rows(0, 4, 8, 8), 4),
    # both products are 2^64 and wrap to 0
    "product-2-64": (Rows(0, 2**32, 2**32, 0), 0),
    "product-2-64-and-4": (Rows(0, 4, 2**62 + 1, 0), 4),
}
"""Rows, and bytes of data that are not as many."""


@case("data.rows-length/{}", each=LENGTHS, may_crash=True)
def other_length(subject: Subject, row: tuple[Rows, int]) -> None:
    """SET_TENSOR_2D whose data are not as many bytes as size times n_copies, {}: refused."""
    rows, length = row
    arena, tensor = _tensor(subject.connect())
    arena.peer.refuses(rows.write(tensor, bytes(length)))


OVERLAPPING: dict[str, Rows] = {"by-half": Rows(0, 8, 8, 4), "stride-0": Rows(16, 8, 5, 0), "by-all-but-one": Rows(3, 16, 9, 1)}


@case("data.rows-overlap/set-{}", each=OVERLAPPING)
def write_overlapping(subject: Subject, rows: Rows) -> None:
    """SET_TENSOR_2D of rows that overlap, {}: where two lie, the later one is."""
    arena, tensor = _tensor(subject.connect())
    data = bytes((200 + 7 * n) % 256 for n in range(rows.size * rows.n_copies))
    arena.peer.tell(rows.write(tensor, data))
    got, want = arena.peer.read(tensor, WHOLE), rows.over(PATTERN, data)
    require(got == want, want[:32].hex(), got[:32].hex())


@case("data.rows-overlap/get-{}", each=OVERLAPPING)
def read_overlapping(subject: Subject, rows: Rows) -> None:
    """GET_TENSOR_2D of rows that overlap, {}: each as it lies."""
    arena, tensor = _tensor(subject.connect())
    got, want = arena.peer.ask(rows.read(tensor)).data, rows.of(PATTERN)
    require(got == want, want[:16].hex(), bytes(got[:16]).hex())


@case("data.rows-bounded/{}", each={"2-46-bytes": 2**38, "2-62-bytes": 2**54}, may_crash=True)
def endless_rows(subject: Subject, n_copies: int) -> None:
    """GET_TENSOR_2D of the same 256 bytes so often that the reply would have {}: refused, or answered with that size; it lives."""
    arena, tensor = _tensor(subject.connect())
    request = Rows(0, WHOLE, n_copies, 0).read(tensor)
    arena.peer.send(request)
    try:
        size = int.from_bytes(arena.peer.take(8, "a reply"), "little")
    except Broken as broken:
        if broken.verdict is Verdict.HANG:
            raise
        return  # refused; the runner checks after every case that the server lives
    require(size == WHOLE * n_copies, f"a size of {WHOLE * n_copies}", size)
