"""Data: ranges that leave a tensor, copies that do not fit, and what must be accepted all the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vectors.tools.malformed.case import Case, Seen, accepted, answered_no, refused
from vectors.tools.malformed.protocol import (
    Request,
    Step,
    copy_tensor,
    get_tensor,
    hear,
    opened,
    read,
    say,
    set_tensor,
    set_tensor_hash,
    tensor,
    write,
)

T = tensor(1024)
"""64 bytes in the middle of 8,192."""
AROUND = tensor(960, [48], id=2)
"""T with 64 bytes before and behind it."""
PATTERN = bytes(range(192))


def cases() -> Iterator[Case]:
    """Yield every case of the section."""
    yield from in_tensor()
    yield from offset_wrap()
    yield from empty()
    yield from hash_miss()
    yield from copy_fits()
    yield from round_trip()


ASSERTS = Seen(
    ("CRASH",), "compares with the buffer only; ggml_backend_tensor_set or _get then asserts that the range lies in the tensor"
)
CLOSES = Seen(("PASS",), "sees that the range leaves the buffer and closes the connection")
IGNORES = Seen(("FAIL",), "compares with the buffer only, and returns for 0 bytes before it looks at the tensor")

RANGES: dict[str, tuple[int, int, str, Seen]] = {
    "one-past-end": (0, 65, "all of it and the byte after it", ASSERTS),
    "last-and-one": (63, 2, "its last byte and the one after it", ASSERTS),
    "offset-at-end": (64, 1, "the byte after its end", ASSERTS),
    "offset-past-end": (128, 4, "4 bytes, 64 bytes past its end", ASSERTS),
    "empty-past-end": (65, 0, "no bytes, one byte past its end", IGNORES),
    "leaves-buffer": (0, 8192, "8,192 bytes, which leave the buffer too", CLOSES),
    "offset-leaves-buffer": (16384, 4, "4 bytes at an offset outside the buffer", CLOSES),
    "offset-2-63": (2**63, 4, "4 bytes at an offset of 2^63", CLOSES),
}
"""Words to offset, size, the range in words, and what the genuine server did; the tensor has 64 bytes."""


def in_tensor() -> Iterator[Case]:
    """Ranges that leave the tensor, inside its buffer and beyond it."""
    for words, (offset, size, what, seen) in RANGES.items():
        beyond = "offset" in words or "leaves" in words
        yield refused(
            f"data.in-tensor/set-{words}",
            f"SET_TENSOR on a tensor of 64 bytes that writes {what}: memory outside the tensor, or outside the buffer, would be"
            " overwritten.",
            "SEC-01" if beyond and seen is CLOSES else "OBS-2",
            "out-of-bounds-write" + " abort-in-release" * (seen is ASSERTS),
            [*opened(), say(set_tensor(T, bytes(size) if size < 256 else {"repeat": "00", "times": size}, offset))],
            seen,
        )
        yield refused(
            f"data.in-tensor/get-{words}",
            f"GET_TENSOR of a tensor of 64 bytes that reads {what}: memory outside the tensor, or outside the buffer, would be"
            " disclosed.",
            "SEC-02" if beyond and seen is CLOSES else "OBS-2",
            "out-of-bounds-read memory-disclosure" + " abort-in-release" * (seen is ASSERTS),
            [*opened(), say(get_tensor(T, size, offset))],
            seen,
        )
    sizes = {"2-64-less-1": 2**64 - 1, "2-63": 2**63, "2-40": 2**40}
    for words, size in sizes.items():
        yield refused(
            f"data.in-tensor/get-size-{words}",
            f"GET_TENSOR of {size} bytes of a tensor that has 64. A server that allocates the reply before it checks can run"
            " out of memory; one whose sum wraps discloses other memory.",
            "SEC-02 OBS-12",
            "out-of-bounds-read unbounded-allocation",
            [*opened(), say(get_tensor(T, size))],
            CLOSES,
        )
    yield refused(
        "data.in-tensor/get-offset-plus-size-wraps",
        "GET_TENSOR with offset 32 and a size of 2^64-16: their sum wraps to 16, which lies inside the tensor's 64 bytes.",
        "SEC-02 OBS-3",
        "out-of-bounds-read integer-wrap unbounded-allocation",
        [*opened(), say(get_tensor(T, 2**64 - 16, 32))],
        CLOSES,
    )


def offset_wrap() -> Iterator[Case]:
    """Offsets that lead to bytes before the tensor, modulo 2^64."""
    for words, offset, seen in (
        ("near-2-64", 2**64 - 8, Seen(("FAIL",), "lets address plus offset wrap to bytes before the tensor, and does as asked")),
        (
            "2-64-less-1024",
            2**64 - 1024,
            Seen(("CRASH",), "lets address plus offset wrap; an assertion behind it aborts the process"),
        ),
    ):
        for verb, request in {"set": set_tensor(T, b"\xee" * 8, offset), "get": get_tensor(T, 8, offset)}.items():
            yield refused(
                f"data.offset-wrap/{verb}-{words}",
                f"{request.command} with an offset of 2^64-{2**64 - offset}: added to the address modulo 2^64 it gives an"
                " address before the tensor, still inside the buffer.",
                "OBS-3 SEC-01" if verb == "set" else "OBS-3 SEC-02",
                f"{'out-of-bounds-write' if verb == 'set' else 'out-of-bounds-read'} integer-wrap",
                [*opened(), say(request)],
                seen,
            )


def empty() -> Iterator[Case]:
    """Ranges of no bytes, which are accepted inside the tensor and at its end."""
    strict = Seen(("FAIL",), "closes the connection for an address that is not below the buffer's end, even for 0 bytes")
    last = tensor(0)
    for words, target, offset, before in (
        ("in-middle", T, 32, opened()), ("at-tensor-end", T, 64, opened()), ("at-buffer-end", last, 64, opened(64, exactly=True)),
    ):  # fmt: skip
        for verb, steps in {"set": [write(target, b"", offset)], "get": read(target, b"", offset)}.items():
            yield accepted(
                f"data.empty/{verb}-{words}",
                f"Nothing is wrong: {verb.upper()}_TENSOR of no bytes {words.replace('-', ' ').replace('at', 'at the')}.".replace(
                    "in middle", "in the middle of a tensor"
                ),
                "OBS-13",
                "should over-strict" + " exact-buffer-size" * (words == "at-buffer-end"),
                [*before, *steps],
                strict if words == "at-buffer-end" else Seen(("PASS",), "as expected"),
            )


def hash_miss() -> Iterator[Case]:
    """Hashes of data that no server has been sent."""
    hashes = {"never-sent": 0x0123456789ABCDEF, "0": 0, "2-64-less-1": 2**64 - 1}
    for words, hash in hashes.items():
        yield answered_no(
            f"data.hash-miss/{words}",
            f"SET_TENSOR_HASH of {hash:#018x}, the hash of nothing that was sent before. The answer is 0, and neither the"
            " tensor nor the bytes around it change.",
            "SEC-40",
            "silent-wrong-result",
            [
                *opened(),
                write(AROUND, PATTERN),
                say(set_tensor_hash(T, hash)),
                hear("SET_TENSOR_HASH", b"\0"),
                *read(AROUND, PATTERN),
            ],
        )


def copy_fits() -> Iterator[Case]:
    """Copies into less room than they need."""
    inside = Seen(("FAIL",), "compares the source with the end of the destination's buffer only, and writes past the destination")
    small, none = tensor(2048, [15], id=2), tensor(2048, [0], id=2, nb=(4, 0, 0, 0))
    targets: dict[str, tuple[Request, list[Step], str, Seen]] = {
        "into-smaller": (copy_tensor(T, small), opened(), "60 bytes, with more of the buffer after it", inside),
        "into-empty": (copy_tensor(T, none), opened(), "0 bytes, with more of the buffer after it", inside),
        "into-end": (
            copy_tensor(tensor(0), tensor(68, [15], id=2)),
            opened(128, exactly=True),
            "60 bytes at the end of the buffer",
            Seen(("PASS",), "sees that the copy leaves the buffer and closes the connection"),
        ),
        "large-into-end": (
            copy_tensor(tensor(0, [1024]), tensor(4160, [16], id=2)),
            opened(4224, exactly=True),
            "64 bytes at the end of the buffer",
            Seen(("PASS",), "sees that the copy leaves the buffer and closes the connection"),
        ),
    }
    for words, (request, before, room, seen) in targets.items():
        source = 4096 if words.startswith("large") else 64
        yield refused(
            f"data.copy-fits/{words}",
            f"COPY_TENSOR of {source} bytes into a tensor of {room}: the rest would overwrite what follows the tensor.",
            "SEC-20",
            "out-of-bounds-write" + " exact-buffer-size" * ("end" in words),
            [*before, say(request)],
            seen,
        )


def round_trip() -> Iterator[Case]:
    """Tensors with unusual values in fields that do not matter, which are accepted."""
    odd = {
        "name-without-nul": replace(T, name=b"n" * 64),
        "name-of-any-bytes": replace(T, name=bytes(range(0x80, 0xC0))),
        "padding-not-zero": replace(T, padding=b"\xff\xfe\xfd\xfc"),
        "fields-of-graphs": replace(
            T, id=0, op=2, op_params=b"\x07" * 64, flags=31, src=(5, 6, 7), view_src=9, view_offs=2**40, name=b"odd"
        ),
    }
    what = {
        "name-without-nul": "has a name of 64 bytes with no zero byte at the end",
        "name-of-any-bytes": "has a name that is not UTF-8",
        "padding-not-zero": "has padding that is not zero, as clients before 2025-05-01 leaked it",
        "fields-of-graphs": "has an op, parameters, flags and links, which mean nothing outside a graph",
    }
    for words, target in odd.items():
        yield accepted(
            f"data.round-trip/{words}",
            f"Nothing is wrong: a tensor that {what[words]}. It is written and read like any other; a server that reads the"
            " name as a C string reads past its end.",
            "SEC-35",
            "over-strict out-of-bounds-read",
            [*opened(), write(target, PATTERN[:64]), *read(target, PATTERN[:64])],
        )
