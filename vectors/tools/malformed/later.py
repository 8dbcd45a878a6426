"""Sessions, tensors and sums over two servers, as far as 8.0.0 has rules for them that 3.6.1 has not."""

from __future__ import annotations

from collections.abc import Iterator

from vectors.tools.malformed.case import Case, accepted, answered_no
from vectors.tools.malformed.later_protocol import comm_allreduce, comm_free, comm_init, hello, opened, refused
from vectors.tools.malformed.protocol import address, hear, init_tensor, say, tensor

PORT = 50999
"""For requests that no server comes to use it for."""


def session() -> Iterator[Case]:
    """Yield cases of HELLO with transport capabilities, which are those of RDMA."""
    for words, caps in {"all-ones": b"\xff" * 24, "counting": bytes(range(1, 25)), "last-bit": bytes(23) + b"\x80"}.items():
        yield accepted(
            f"session.caps/{words}",
            f"HELLO with conn_caps of {caps[:3].hex()}…{caps[-1:].hex()} to a server that has TCP alone. It"
            " answers with zeros and stays"
            " on TCP; one that waits for the other transport hears nothing more.",
            "FUN-13",
            "over-strict",
            hello(caps),
        )


def tensors() -> Iterator[Case]:
    """Yield cases of tensors without elements that lie outside their buffer."""
    places: dict[str, tuple[int | str, str]] = {
        "address-0": (0, "at address 0"),
        "before-the-buffer": (address("buf0", -64), "64 bytes before its buffer"),
        "behind-the-buffer": (address("buf0", 8256), "64 bytes behind its buffer"),
    }
    for words, (place, where) in places.items():
        yield accepted(
            f"tensor.empty-anywhere/{words}",
            f"Nothing is wrong: INIT_TENSOR of a tensor without elements {where}. It has no byte that could lie outside.",
            "FUN-09",
            "over-strict",
            [*opened(), say(init_tensor(tensor(ne=[0], data=place)))],
        )


def comm() -> Iterator[Case]:
    """Yield cases of sums that need another server, and have none."""
    bad = {
        "world-0": (comm_init(0, 0, PORT), "world 0"),
        "world-1": (comm_init(0, 1, PORT), "world 1"),
        "world-3": (comm_init(0, 3, PORT), "world 3"),
        "rank-2": (comm_init(2, 2, PORT, b"127.0.0.1"), "rank 2 of 2"),
        "device-too-large": (comm_init(0, 2, PORT, device=2**32 - 1), "device 2^32-1"),
    }
    for words, (request, what) in bad.items():
        yield answered_no(
            f"comm.init-fails/{words}",
            f"COMM_INIT for {what}, which there is not: two servers, of rank 0 and 1, can make a sum. The"
            " answer is 0, and the connection"
            " goes on; a server that waits for a peer waits for ever.",
            "FUN-15" if "device" in words else "SEC-37",
            "out-of-bounds-read" if "device" in words else "resource-held",
            [*hello(), say(request), hear("COMM_INIT", b"\0")],
        )
    for words, before in {"never-joined": [], "after-free": [say(comm_free())]}.items():
        yield refused(
            f"comm.needed/{words}",
            "COMM_ALLREDUCE on a device that has no connection to another server. There is nobody to add to; a"
            " server that does not look"
            " follows a null pointer.",
            "SEC-32",
            "null-pointer",
            [*opened(), *before, say(comm_allreduce(tensor(1024)))],
        )
    yield accepted(
        "comm.free/none-there",
        "Nothing is wrong: COMM_FREE on a device that has no connection to another server. It does nothing.",
        "SEC-34",
        "over-strict null-pointer",
        [*hello(), say(comm_free()), say(comm_free())],
    )
