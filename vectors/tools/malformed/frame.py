"""Framing: command byte, size field, order."""

from __future__ import annotations

from collections.abc import Iterator

from vectors.tools.malformed.case import Case, Seen, accepted, refused
from vectors.tools.malformed.protocol import (
    COMPUTE,
    Piece,
    Request,
    Step,
    copy_tensor,
    f32,
    get_alloc_size,
    get_tensor,
    graph,
    handle,
    hear,
    hello,
    init_tensor,
    opened,
    raw,
    recompute,
    say,
    set_tensor,
    set_tensor_hash,
    size_of,
    tensor,
    u32,
    u64,
    write,
    zeros,
)

LOGS_COMMAND = Seen(("PASS",), "logs 'Unknown command' with the number and closes the connection")


def cases() -> Iterator[Case]:
    """Yield every case of the section."""
    yield from command_known()
    yield from size_fixed()
    yield from size_minimum()
    yield from size_bounded()
    yield from reply_order()


def command_known() -> Iterator[Case]:
    """Command bytes that 3.6.1 does not define."""
    numbers = {
        "17": "MEMSET_TENSOR of 5.0.0 and later",
        "18": "SET_TENSOR_2D of 8.0.0, a client's internal NONE in 6.0.0 and 7.0.0",
        "23": "a client's internal NONE in 8.0.0",
        "127": "no command of any version",
        "128": "no command of any version, negative where a byte is signed",
        "255": "no command of any version, -1 where a byte is signed",
    }
    for number, meaning in numbers.items():
        yield refused(
            f"frame.command-known/{number}",
            f"Command {number} is {meaning}. A server that skips what it does not know falls out of step with what follows.",
            "SEC-33",
            "silent-desync",
            [*hello(), raw([bytes([int(number)]), u64(0)])],
            LOGS_COMMAND,
        )
    yield refused(
        "frame.command-known/memset-tensor-of-5-0-0",
        "A whole MEMSET_TENSOR as a client of 5.0.0 would send it. A server that drops only the command byte takes the rest for the"
        " next commands.",
        "SEC-33 FUN-13",
        "silent-desync",
        [*opened(), raw([bytes([17]), u64(313), *tensor(1024).pieces, u64(0, 64), b"\x01"])],
        LOGS_COMMAND,
    )
    yield refused(
        "frame.command-known/huge-size",
        "A command that nobody knows, with a size of 2^64-1 and nothing behind it: a server that makes room for the payload before"
        " it looks at the command allocates without bound, or waits for ever.",
        "SEC-33 SEC-23",
        "unbounded-allocation",
        [*hello(), raw([bytes([200]), u64(2**64 - 1)])],
        LOGS_COMMAND,
    )


# ------------------------------------------------------------------------------------------------------------ sizes

LEFT = tensor(1024, [4], id=1)
TOTAL = tensor(2048, [4], id=2, op=2, src=(1, 1), flags=COMPUTE)
STORED = [*opened(), write(LEFT, f32(1, 2, 3, 4)), say(graph([2], [LEFT, TOTAL]))]

GOOD: dict[str, list[Piece]] = {
    "ALLOC_BUFFER": [u32(0), u64(256)],
    "GET_ALIGNMENT": [u32(0)],
    "GET_MAX_SIZE": [u32(0)],
    "BUFFER_GET_BASE": [handle("buf0")],
    "FREE_BUFFER": [handle("buf0")],
    "BUFFER_CLEAR": [handle("buf0"), b"\0"],
    "SET_TENSOR_HASH": set_tensor_hash(tensor()).payload,
    "GET_TENSOR": get_tensor(tensor(), 64).payload,
    "COPY_TENSOR": copy_tensor(tensor(), tensor(128)).payload,
    "GET_DEVICE_MEMORY": [u32(0)],
    "INIT_TENSOR": init_tensor(tensor()).payload,
    "GET_ALLOC_SIZE": get_alloc_size(tensor()).payload,
    "HELLO": [],
    "DEVICE_COUNT": [],
    "GRAPH_RECOMPUTE": recompute().payload,
}
"""Command of fixed size to a payload that a server would accept."""


def _before(command: str) -> list[Step]:
    return {"HELLO": [], "GRAPH_RECOMPUTE": STORED}.get(command, opened())


def _cut(payload: list[Piece]) -> list[Piece]:
    """Return a payload without its last byte; a name of which a byte is cut becomes zeros."""
    *rest, last = payload
    return [*rest, last[:-1] if isinstance(last, bytes) else bytes(size_of([last]) - 1)]


def size_fixed() -> Iterator[Case]:
    """Each request of fixed size, one byte too short, one too long, empty, and with a size that nothing can have."""
    for command, good in GOOD.items():
        right = size_of(good)
        words = command.lower().replace("_", "-")
        wrong = {"long": (right + 1, [*good, b"\0"])}
        if right:
            wrong |= {"short": (right - 1, _cut(good)), "zero": (0, [])}
        for kind, (size, payload) in wrong.items():
            yield refused(
                f"frame.size-fixed/{words}-{kind}",
                f"{command} has {right} bytes, and this one says {size}. A server that accepts it reads fields that never came,"
                " or takes the bytes left over for the next command.",
                "SEC-33",
                "silent-desync",
                [*_before(command), say(Request(command, payload, size))],
            )
        yield refused(
            f"frame.size-fixed/{words}-huge",
            f"{command} has {right} bytes, and this one says 2^64-1, with nothing behind it: the size is to be refused before"
            " anything is allocated or waited for.",
            "SEC-33 SEC-23",
            "unbounded-allocation",
            [*_before(command), say(Request(command, [], 2**64 - 1))],
            sentinel=False,
        )
    yield from _of_other_versions()


def _of_other_versions() -> Iterator[Case]:
    yield refused(
        "frame.size-fixed/hello-of-4-0-0",
        "HELLO with 24 bytes of capabilities, as clients from 4.0.0 on say it. This version's HELLO has none; answered, two ends"
        " would speak different layouts.",
        "OBS-14 FUN-13",
        "silent-desync",
        [say(Request("HELLO", [bytes(24)]))],
    )
    yield refused(
        "frame.size-fixed/get-alloc-size-of-3-5-0",
        "GET_ALLOC_SIZE of 300 bytes, as clients up to 3.5.0 say it, without sources: ten tensors would be read that never came.",
        "SEC-33 FUN-13",
        "out-of-bounds-read",
        [*opened(), say(Request("GET_ALLOC_SIZE", [u32(0), *tensor().pieces]))],
    )


def size_minimum() -> Iterator[Case]:
    """Requests of variable size that are shorter than their fixed part."""
    for command, size, fixed in (
        ("SET_TENSOR", 0, 304), ("SET_TENSOR", 303, 304),
        ("GRAPH_COMPUTE", 0, 12), ("GRAPH_COMPUTE", 4, 12), ("GRAPH_COMPUTE", 11, 12),
    ):  # fmt: skip
        yield refused(
            f"frame.size-minimum/{command.lower().replace('_', '-')}-{size}",
            f"{command} begins with {fixed} bytes, and this one has {size}: what is read beyond them lies behind the message.",
            "SEC-33",
            "out-of-bounds-read",
            [*hello(), say(Request(command, [zeros(size)]))],
        )


CLAIMS = {"2-64-less-1": 2**64 - 1, "2-63": 2**63, "2-40": 2**40}
DIES = Seen(("CRASH",), "resizes a vector to the size field; std::length_error is not caught and ends the process")
CATCHES = Seen(
    ("PASS",), "resizes a vector to the size field; std::bad_alloc, which this machine throws then, is caught: it closes"
)


def size_bounded() -> Iterator[Case]:
    """Sizes and counts far beyond what follows, at the levels that have had different effects."""
    for words, size in CLAIMS.items():
        seen = DIES if size >= 2**63 else CATCHES
        yield refused(
            f"frame.size-bounded/set-tensor-{words}",
            f"SET_TENSOR that claims {size} bytes for a tensor of 64, of which the fixed part follows and no more. A server that"
            " makes room for the claim can be ended, or filled, by 313 bytes.",
            "SEC-23",
            "unbounded-allocation",
            [*opened(), say(set_tensor(tensor(1024), b"", says=size))],
            seen,
            sentinel=False,
        )
        yield refused(
            f"frame.size-bounded/graph-compute-{words}",
            f"GRAPH_COMPUTE that claims {size} bytes and whose counts are 0. A server that makes room for the claim can be ended,"
            " or filled, by 21 bytes.",
            "SEC-23",
            "unbounded-allocation",
            [*hello(), say(Request("GRAPH_COMPUTE", [u32(0, 0, 0)], size))],
            seen,
            sentinel=False,
        )


# ------------------------------------------------------------------------------------------------------------ order


def reply_order() -> Iterator[Case]:
    """Requests in one piece."""
    data, sums = f32(5, 6, 7, 8), f32(10, 12, 14, 16)
    yield accepted(
        "frame.reply-order/set-compute-get-in-one-piece",
        "Nothing is wrong: SET_TENSOR, GRAPH_COMPUTE and GET_TENSOR come without waiting. A server that lets one overtake another,"
        " or that refuses what it has not asked for yet, gives wrong numbers or none.",
        "FUN-23",
        "over-strict silent-wrong-result",
        [
            *STORED,
            say(set_tensor(LEFT, data), graph([2], [LEFT, TOTAL]), get_tensor(TOTAL, 16)),
            hear("GET_TENSOR", sums),
        ],
    )
