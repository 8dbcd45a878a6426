"""Following conversations of other protocol versions than 3.6.1, byte by byte and in one piece."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ggml_rpc_ref.files.recording import Direction, LeftOut, Recorder, read
from ggml_rpc_ref.proxy.follow import Exchange, Follower, describe

UP, DOWN = Direction.TO_SERVER, Direction.TO_CLIENT
Turn = tuple[Direction, bytes]


def asked(number: int, payload: bytes = b"") -> Turn:
    return UP, struct.pack("<BQ", number, len(payload)) + payload


def answered(payload: bytes = b"") -> Turn:
    return DOWN, struct.pack("<Q", len(payload)) + payload


U64 = struct.Struct("<Q").pack
ALLOCATED = answered(b"\x07" + bytes(7) + b"\0\x01" + bytes(6))
TALKS: dict[str, tuple[list[Turn], list[str]]] = {
    "1.0.0": (
        [asked(14), answered(b"\1\0\0"), asked(6, bytes(304) + b"data"), answered(), asked(10, bytes(8)), answered(b"\0")],
        [
            "HELLO (0 B) → major=1 minor=0 patch=0 (3 B)",
            "SET_TENSOR tensor=0x0:F32[0, 0, 0, 0] offset=0 (308 B) → (0 B)",
            "GRAPH_COMPUTE device=0 0 nodes, 0 tensors (8 B) → result=0 (1 B)",
        ],
    ),
    "2.0.0": (
        [asked(14), answered(b"\2\0\0"), asked(1), answered(b"\x20" + bytes(7)), asked(0, b"\0\1" + bytes(6)), ALLOCATED],
        [
            "HELLO (0 B) → major=2 minor=0 patch=0 (3 B)",
            "GET_ALIGNMENT (0 B) → alignment=32 (8 B)",
            "ALLOC_BUFFER size=256 (8 B) → remote_ptr=0x7 remote_size=256 (16 B)",
        ],
    ),
    "7.0.0": (
        [asked(14, bytes(24)), answered(b"\7\0\0\0" + bytes(24)), asked(4, b"\7" + bytes(7)), asked(6, bytes(305) + b"data"),
         asked(15), answered(b"\1\0\0\0")],
        [
            "HELLO conn_caps=0 (24 B) → major=7 minor=0 patch=0 padding=0 conn_caps=0 (28 B)",
            "FREE_BUFFER remote_ptr=0x7 (8 B), no reply",
            "SET_TENSOR tensor=0x0:F32[0, 0, 0, 0] cache_flag=0 offset=0 (309 B), no reply",
            "DEVICE_COUNT (0 B) → device_count=1 (4 B)",
        ],
    ),
    "8.0.0": (
        [asked(14, bytes(24)), answered(b"\10\0\0\0" + bytes(24)),
         asked(18, bytes(296) + U64(4) + U64(3) + U64(2) + U64(640) + b"aaabbb"),  # SET_TENSOR_2D: offset, size, n_copies, stride
         asked(19, bytes(296) + U64(4) + U64(5) + U64(2) + U64(640)), answered(b"aaaaabbbbb"),
         asked(10, bytes(4) + U64(9) + bytes(8)),
         asked(16, bytes(4) + U64(9)),
         asked(20, bytes(4) + b"\1\0\0\0\2\0\0\0\x85\xc3\0\0" + b"peer".ljust(64, b"\0")), answered(b"\1"),
         asked(21, bytes(4 + 296)),
         asked(22, bytes(4)),
         asked(15), answered(b"\1\0\0\0")],
        [
            "HELLO conn_caps=0 (24 B) → major=8 minor=0 patch=0 padding=0 conn_caps=0 (28 B)",
            "SET_TENSOR_2D tensor=0x0:F32[0, 0, 0, 0] offset=4 size=3 n_copies=2 stride=640 (334 B), no reply",
            "GET_TENSOR_2D tensor=0x0:F32[0, 0, 0, 0] offset=4 size=5 n_copies=2 stride=640 (328 B) → data (10 B)",
            "GRAPH_COMPUTE device=0 0 nodes, 0 tensors (20 B), no reply",
            "GRAPH_RECOMPUTE device=0 uid=9 (12 B), no reply",
            "COMM_INIT device=0 rank=1 world=2 port=50053 host=70656572 (80 B) → ok=1 (1 B)",
            "COMM_ALLREDUCE device=0 tensor=0x0:F32[0, 0, 0, 0] (300 B), no reply",
            "COMM_FREE device=0 (4 B), no reply",
            "DEVICE_COUNT (0 B) → device_count=1 (4 B)",
        ],
    ),
}  # fmt: skip
"""What both ends send, laid out by hand from the message structures, and the lines that tell of it."""


def lines(exchanges: list[Exchange]) -> list[str]:
    return [describe(exchange).removeprefix("#1 ").partition(" in ")[0] for exchange in exchanges]


@pytest.mark.parametrize("step", [1, 8, 10_000], ids=["byte-by-byte", "eights", "whole"])
@pytest.mark.parametrize("version", TALKS)
def test_the_server_s_version_is_followed(version: str, step: int) -> None:
    talk, expected = TALKS[version]
    told: list[Exchange] = []
    follower = Follower(1, tell=told.append)
    for direction, data in talk:
        for at in range(0, len(data), step):
            follower.feed(direction, memoryview(data)[at : at + step])
    assert follower.violation is None
    assert lines(told) == expected
    assert str(follower.version) == version


LEFT_OUT = {
    "7.0.0": [LeftOut(4, 0x855B556730A34A05)],  # b"data"
    "8.0.0": [LeftOut(6, 0xBF305B41785696AC), LeftOut(10, 0x6C037CA8B4C58566)],
}
"""What a recorder leaves out, hashed by hand: FNV-1a 64, two operations a byte."""


@pytest.mark.parametrize("version", LEFT_OUT)
def test_data_of_another_version_are_left_out(tmp_path: Path, version: str) -> None:
    with Recorder(tmp_path / "r", leave_out_over=3) as recorder:
        follower = Follower(1, recorder)
        for direction, data in TALKS[version][0]:
            follower.feed(direction, memoryview(data))
    assert [chunk.left_out for chunk in read(tmp_path / "r") if chunk.left_out] == LEFT_OUT[version]


@pytest.mark.parametrize(
    ("talk", "rule"),
    [
        ([asked(14), answered(b"\x09\0\0")], "session.version-accepted"),
        ([asked(14, bytes(24)), answered(b"\x08\1\0\0" + bytes(24))], "session.version-accepted"),
        ([*TALKS["8.0.0"][0][:4], answered(b"aaaaabbbb")], "frame.reply-presence"),
        ([asked(14), asked(1), answered(b"\2\0\0")], "frame.size-fixed"),
        ([asked(14), asked(15), answered(b"\2\0\0")], "session.hello-version"),
        ([asked(14, bytes(23))], "frame.size-fixed"),
        ([asked(15, bytes(24))], "session.hello-first"),
    ],
    ids=["9.0.0", "8.1.0", "rows-too-few", "alignment-before-reply", "count-before-reply", "hello-of-23", "no-hello"],
)
def test_what_can_t_be_followed_is_let_pass(talk: list[Turn], rule: str) -> None:
    follower = Follower(1)
    for direction, data in talk:
        follower.feed(direction, memoryview(data))
    assert follower.violation is not None
    assert follower.violation.rule == rule


@pytest.mark.parametrize("limit", [None, 3], ids=["all", "left-out"])
def test_what_breaks_a_rule_behind_data_is_recorded_once(tmp_path: Path, limit: int | None) -> None:
    """Both come in one piece: the data have begun, and are in the recording, when the rest can't be followed."""
    passed = asked(6, bytes(304) + b"data")[1] + asked(99, b"rest")[1]
    with Recorder(tmp_path / "r", leave_out_over=limit) as recorder:
        follower = Follower(1, recorder)
        for direction, data in [asked(14), answered(b"\3\6\1"), (UP, passed)]:
            follower.feed(direction, memoryview(data))
    assert follower.violation is not None
    assert sum(chunk.size for chunk in read(tmp_path / "r") if chunk.direction is UP) == 9 + len(passed)
    kept = b"".join(b"data" if chunk.left_out else chunk.data for chunk in read(tmp_path / "r") if chunk.direction is UP)
    assert kept == asked(14)[1] + passed


@pytest.mark.parametrize("pieces", [1, 2], ids=["whole", "halves"])
def test_requests_that_nobody_answers_are_not_remembered_without_end(pieces: int) -> None:
    follower = Follower(1)
    for direction, data in [asked(14), answered(b"\3\6\1")]:
        follower.feed(direction, memoryview(data))
    head = memoryview(asked(15)[1])
    for number in range(4097):
        assert follower.violation is None, number
        for part in [head] if pieces == 1 else [head[:4], head[4:]]:
            follower.feed(UP, part)
    assert follower.violation is not None
    assert (follower.violation.rule, follower.violation.value) == ("frame.reply-presence", 4096)
    assert follower.order.waiting == 0
