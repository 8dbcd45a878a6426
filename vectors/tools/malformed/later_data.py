"""Data of 8.0.0: MEMSET_TENSOR, the cache flag, and rows."""

from __future__ import annotations

from collections.abc import Iterator

from vectors.tools.malformed.case import Case, Seen, accepted, answered_no
from vectors.tools.malformed.later_protocol import (
    Rows,
    get_rows,
    memset_tensor,
    opened,
    refused,
    set_rows,
    set_tensor,
    write,
)
from vectors.tools.malformed.protocol import (
    Step,
    hear,
    read,
    say,
    set_tensor_hash,
    tensor,
)

T = tensor(1024)
"""64 bytes in the middle of 8,192."""
AROUND = tensor(960, [48], id=2)
"""T with 64 bytes before and behind it."""
PATTERN = bytes(range(192))
START = [*opened(), write(AROUND, PATTERN)]


def cases() -> Iterator[Case]:
    """Yield every case of the section."""
    yield from memset()
    yield from memset_in_tensor()
    yield from cache_flag()
    yield from rows()
    yield from rows_in_tensor()
    yield from rows_none()
    yield from rows_length()
    yield from rows_overlap()
    yield from rows_bounded()


def _fnv1a(data: bytes) -> int:
    """Return the FNV-1a 64 hash of data."""
    hash = 0xCBF29CE484222325
    for byte in data:
        hash = (hash ^ byte) * 0x100000001B3 % 2**64
    return hash


# ------------------------------------------------------------------------------------------------------------ memset


def memset() -> Iterator[Case]:
    """Ranges at the edges of a tensor, and of no bytes."""
    ranges = {"first-byte": (0, 1), "last-byte": (63, 1), "all": (0, 64), "nothing-at-end": (64, 0)}
    what = {
        "first-byte": "the first byte of a tensor",
        "last-byte": "the last byte of a tensor",
        "all": "a whole tensor",
        "nothing-at-end": "no byte, at the end of a tensor",
    }
    for words, (offset, size) in ranges.items():
        data = bytearray(PATTERN)
        data[64 + offset : 64 + offset + size] = b"\x5c" * size
        yield accepted(
            f"data.memset/{words}",
            f"Nothing is wrong: MEMSET_TENSOR of {what[words]}. The bytes around it stay as they were.",
            "OBS-13" if size == 0 else "SEC-01",
            "over-strict out-of-bounds-write",
            [*START, say(memset_tensor(T, offset, size, 0x5C)), *read(AROUND, bytes(data))],
        )


RANGES: dict[str, tuple[int, int, str, str]] = {
    "one-past-end": (0, 65, "all of it and the byte behind it", "OBS-2"),
    "last-and-one": (63, 2, "its last byte and the one behind it", "OBS-2"),
    "offset-at-end": (64, 1, "the byte behind its end", "OBS-2"),
    "offset-past-end": (128, 4, "4 bytes that begin 64 behind its end", "OBS-2"),
    "leaves-buffer": (0, 8192, "8,192 bytes, which leave the buffer too", "SEC-01"),
    "offset-2-63": (2**63, 4, "4 bytes at an offset of 2^63", "SEC-01"),
    "size-2-63": (0, 2**63, "2^63 bytes", "SEC-01"),
    "near-2-64": (2**64 - 8, 8, "8 bytes at an offset of 2^64-8, which lead to bytes before the tensor", "OBS-3"),
    "offset-plus-size-wraps": (32, 2**64 - 16, "2^64-16 bytes at offset 32, whose sum wraps to 16", "OBS-3"),
}
"""Words to offset, size, the range in words, and the report of the same kind; the tensor has 64 bytes."""


def memset_in_tensor() -> Iterator[Case]:
    """Ranges that leave the tensor."""
    for words, (offset, size, what, reference) in RANGES.items():
        yield refused(
            f"data.memset-in-tensor/{words}",
            f"MEMSET_TENSOR on a tensor of 64 bytes that sets {what}. What lies outside the tensor would be overwritten.",
            reference,
            "out-of-bounds-write" + " integer-wrap" * (reference == "OBS-3"),
            [*START, say(memset_tensor(T, offset, size, 0x5C))],
        )


# -------------------------------------------------------------------------------------------------------- cache flag


def cache_flag() -> Iterator[Case]:
    """Data that must not be kept, and flags of any value but 0."""
    data = b"sent with a cache_flag of 0: not to be kept, whatever the hash.."
    yield answered_no(
        "data.cache-flag/not-kept",
        "SET_TENSOR with cache_flag 0, then SET_TENSOR_HASH with the hash of the same data. The answer is 0:"
        " the client did not allow"
        " the server to keep them.",
        "SEC-39",
        "memory-disclosure",
        [*START, write(T, data), say(set_tensor_hash(T, _fnv1a(data))), hear("SET_TENSOR_HASH", b"\0"), *read(T, data)],
    )
    for flag in (2, 128, 255):
        data = bytes([flag ^ 0x55]) * 64
        yield accepted(
            f"data.cache-flag-set/{flag}",
            f"Nothing is wrong: SET_TENSOR with cache_flag {flag}, which means the same as 1. The data are written.",
            "SEC-39",
            "over-strict",
            [*START, say(set_tensor(T, data, cache_flag=flag)), *read(AROUND, PATTERN[:64] + data + PATTERN[128:])],
        )


# -------------------------------------------------------------------------------------------------------------- rows

GOOD: dict[str, tuple[Rows, str]] = {
    "column": (Rows(4, 4, 4, 16), "a column of four numbers"),
    "one-row-of-any-stride": (Rows(16, 48, 1, 2**63), "one row, with a stride of 2^63 that nothing depends on"),
    "up-to-the-end": (Rows(6, 10, 4, 16), "rows of which the last one ends with the tensor"),
}


def _over(data: bytes, rows: Rows, written: bytes) -> bytes:
    changed = bytearray(data)
    for index in range(rows.n_copies):
        at = rows.offset + index * rows.stride
        changed[at : at + rows.size] = written[index * rows.size :][: rows.size]
    return bytes(changed)


def _of(data: bytes, rows: Rows) -> bytes:
    starts = [rows.offset + index * rows.stride for index in range(rows.n_copies)]
    return b"".join(data[at : at + rows.size] for at in starts)


def _set(rows: Rows) -> list[Step]:
    """Return steps that write rows, and read what is there and around it then."""
    data = bytes(255 - n for n in range(rows.size * rows.n_copies))
    changed = PATTERN[:64] + _over(PATTERN[64:128], rows, data) + PATTERN[128:]
    return [*START, say(set_rows(T, rows, data)), *read(AROUND, changed)]


def _get(rows: Rows) -> list[Step]:
    """Return steps that read rows."""
    return [*START, say(get_rows(T, rows)), hear("GET_TENSOR_2D", _of(PATTERN[64:128], rows))]


def rows() -> Iterator[Case]:
    """Rows inside the tensor."""
    for words, (rows, what) in GOOD.items():
        yield accepted(
            f"data.rows/set-{words}",
            f"Nothing is wrong: SET_TENSOR_2D of {what}. No byte between or around the rows changes.",
            "SEC-01",
            "over-strict out-of-bounds-write",
            _set(rows),
        )
        yield accepted(
            f"data.rows/get-{words}",
            f"Nothing is wrong: GET_TENSOR_2D of {what}. The reply has the rows alone, one after another.",
            "SEC-02",
            "over-strict memory-disclosure",
            _get(rows),
        )


OUTSIDE: dict[str, tuple[Rows, str]] = {
    "one-byte-past-end": (Rows(7, 10, 4, 16), "the last row ends one byte behind the tensor"),
    "last-row-outside": (Rows(0, 16, 5, 16), "the last row begins where the tensor ends"),
    "offset-at-end": (Rows(64, 1, 1, 0), "the only row begins where the tensor ends"),
    "row-longer-than-tensor": (Rows(0, 65, 1, 0), "the only row is one byte longer than the tensor"),
    "stride-past-buffer": (Rows(0, 4, 2, 2**20), "the second row lies 1 MiB further on, outside the buffer"),
    "offset-2-63": (Rows(2**63, 4, 2, 8), "the offset is 2^63"),
    "near-2-64": (
        Rows(2**64 - 8, 4, 2, 8),
        "the offset is 2^64-8, so that the first row lies before the tensor and the second wraps",
    ),
    "stride-2-63-wraps": (Rows(0, 4, 3, 2**63), "twice the stride of 2^63 wraps to 0, and the second row is far away"),
    "stride-2-64-less-4-wraps": (Rows(8, 4, 2, 2**64 - 4), "offset plus a stride of 2^64-4 wraps to 4, as if rows went backwards"),
}
"""Words to rows that are not all inside a tensor of 64 bytes, and how."""


def rows_in_tensor() -> Iterator[Case]:
    """Rows that leave the tensor."""
    for words, (rows, what) in OUTSIDE.items():
        wraps = " integer-wrap" * ("wraps" in words or "near" in words)
        yield refused(
            f"data.rows-in-tensor/set-{words}",
            f"SET_TENSOR_2D into a tensor of 64 bytes: {what}. What lies outside the tensor would be overwritten.",
            "SEC-01 OBS-3" if wraps else "SEC-01",
            "out-of-bounds-write" + wraps,
            [*START, say(set_rows(T, rows, bytes(rows.size * rows.n_copies)))],
        )
        yield refused(
            f"data.rows-in-tensor/get-{words}",
            f"GET_TENSOR_2D from a tensor of 64 bytes: {what}. What lies outside the tensor would be shown.",
            "SEC-02 OBS-3" if wraps else "SEC-02",
            "out-of-bounds-read memory-disclosure" + wraps,
            [*START, say(get_rows(T, rows))],
        )


NONE = {"n-copies-0": Rows(0, 4, 0, 4), "size-0": Rows(0, 0, 4, 4), "both-0": Rows(0, 0, 0, 0)}


def rows_none() -> Iterator[Case]:
    """No rows, or rows of no bytes."""
    for words, rows in NONE.items():
        for verb, request in {"set": set_rows(T, rows, b""), "get": get_rows(T, rows)}.items():
            yield refused(
                f"data.rows-none/{verb}-{words}",
                f"{request.command} of {rows.n_copies} rows of {rows.size} bytes. There is nothing to do, and a server that reckons"
                " with one row less than none goes far astray.",
                "OBS-13",
                "integer-wrap",
                [*START, say(request)],
            )


LENGTHS: dict[str, tuple[Rows, int, str]] = {
    "one-byte-less": (Rows(0, 4, 8, 8), 31, "8 rows of 4 bytes, and data of 31 bytes"),
    "one-byte-more": (Rows(0, 4, 8, 8), 33, "8 rows of 4 bytes, and data of 33 bytes"),
    "none": (Rows(0, 4, 8, 8), 0, "8 rows of 4 bytes, and no data"),
    "one-row": (Rows(0, 4, 8, 8), 4, "8 rows of 4 bytes, and data for one of them"),
    "product-2-64": (Rows(0, 2**32, 2**32, 0), 0, "2^32 rows of 2^32 bytes, a product that wraps to 0, and no data"),
    "product-2-64-and-4": (Rows(0, 4, 2**62 + 1, 0), 4, "2^62+1 rows of 4 bytes, a product that wraps to 4, and data of 4 bytes"),
}
"""Words to rows, and a number of bytes of data that is not theirs."""


def rows_length() -> Iterator[Case]:
    """Data of another length than the rows have."""
    for words, (rows, length, what) in LENGTHS.items():
        yield refused(
            f"data.rows-length/{words}",
            f"SET_TENSOR_2D of {what}. A server that trusts the number of rows reads past the end of the message.",
            "SEC-33 OBS-3" if "product" in words else "SEC-33",
            "out-of-bounds-read" + " integer-wrap" * ("product" in words),
            [*START, say(set_rows(T, rows, bytes(length)))],
        )


OVERLAPPING = {"by-half": Rows(0, 8, 8, 4), "stride-0": Rows(16, 8, 5, 0), "by-all-but-one": Rows(3, 16, 9, 1)}


def rows_overlap() -> Iterator[Case]:
    """Rows that begin before the one before them has ended."""
    for words, rows in OVERLAPPING.items():
        how = f"{rows.n_copies} rows of {rows.size} bytes with a stride of {rows.stride}, so that they overlap"
        yield accepted(
            f"data.rows-overlap/set-{words}",
            f"Nothing is wrong: SET_TENSOR_2D of {how}. Where two rows lie, the later one remains.",
            "SEC-01",
            "over-strict silent-wrong-result",
            _set(rows),
        )
        yield accepted(
            f"data.rows-overlap/get-{words}",
            f"Nothing is wrong: GET_TENSOR_2D of {how}. Each row is read as it lies.",
            "SEC-02",
            "over-strict silent-wrong-result",
            _get(rows),
        )


def rows_bounded() -> Iterator[Case]:
    """One row so often that no machine could hold the reply."""
    for words, power in {"2-56-bytes": 50, "2-62-bytes": 56}.items():
        yield refused(
            f"data.rows-bounded/{words}",
            f"GET_TENSOR_2D of the same 64 bytes 2^{power} times: every row lies in the tensor, and the reply"
            " would have more bytes than"
            " any machine has.",
            "OBS-12",
            "unbounded-allocation",
            [*START, say(get_rows(T, Rows(0, 64, 2**power, 0)))],
            Seen(("CRASH",), "makes room for the whole reply; std::bad_alloc ends the process"),
        )
