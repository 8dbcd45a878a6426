"""Recordings: bytes in the file as documented, read back chunk by chunk, and what a damaged file gets."""

from __future__ import annotations

import json
import struct
import threading
import time
from pathlib import Path

import pytest

from ggml_rpc_ref.errors import Damaged, Misuse
from ggml_rpc_ref.files.recording import Chunk, Direction, LeftOut, Recorder, is_recording, read, read_header
from ggml_rpc_ref.spec.files import FILE_RULES

UP, DOWN = Direction.TO_SERVER, Direction.TO_CLIENT
HEADER = b'{"schema_version": 1, "protocol": "3.6.1", "endpoint": "a:1", "started": "s", "tool": "t"}\n'
START = b"ggml-rpc recording 1\n" + HEADER
ONE = bytes.fromhex("0700000000000000 00 03000000 0200000000000000") + b"hi"
NONE = bytes.fromhex("0800000000000000 01 03000000 0000000000000000")
SKIPPED = bytes.fromhex("0900000000000000 03 04000000 1000000000000000") + struct.pack("<QQ", 5, 0xAF63DC4C8601EC8C)


def bare(path: Path) -> list[tuple[int, int, bytes, LeftOut | None]]:
    return [(chunk.direction, chunk.connection, chunk.data, chunk.left_out) for chunk in read(path)]


def test_a_file_from_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_bytes(START + ONE + NONE + SKIPPED)
    assert is_recording(path.read_bytes())
    assert (read_header(path).endpoint, read_header(path).protocol) == ("a:1", "3.6.1")
    assert list(read(path)) == [
        Chunk(7, UP, 3, b"hi"),
        Chunk(8, DOWN, 3, b""),
        Chunk(9, DOWN, 4, b"", LeftOut(5, 0xAF63DC4C8601EC8C)),
    ]
    assert [chunk.size for chunk in read(path)] == [2, 0, 5]


def test_what_is_written_has_the_documented_bytes(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with Recorder(path, endpoint="h:2", tool="me") as recorder:
        recorder.write(UP, 1, memoryview(b"abc"))
        recorder.write(UP, 1, b"")
        recorder.end(DOWN, 0x01020304)
    magic, header, chunks = path.read_bytes().split(b"\n", 2)
    assert magic == b"ggml-rpc recording 1"
    assert {**json.loads(header), "started": ""} == {
        "schema_version": 1, "protocol": "3.6.1", "endpoint": "h:2", "started": "", "tool": "me"
    }  # fmt: skip
    assert chunks[8:24] == bytes.fromhex("00 01000000 0300000000000000") + b"abc"
    assert chunks[32:] == bytes.fromhex("01 04030201 0000000000000000")
    assert 0 < int.from_bytes(chunks[:8], "little") <= int.from_bytes(chunks[24:32], "little") < 60e9


def test_times_are_those_given_and_never_run_backwards(tmp_path: Path) -> None:
    with Recorder(tmp_path / "r") as recorder:
        start = time.monotonic_ns() + 10**9  # a second from now, so that it is after the recorder's start
        recorder.write(UP, 1, b"a", start + 200)
        recorder.write(DOWN, 1, b"b", start + 100)
        recorder.end(UP, 1, start + 300)
    times = [chunk.time_ns for chunk in read(tmp_path / "r")]
    assert [time_ns - times[0] for time_ns in times] == [0, 0, 100]
    assert 10**9 <= times[0] < 60 * 10**9


@pytest.mark.parametrize("cuts", [(), (1,), (3, 4), (2, 6, 7)], ids=str)
def test_long_data_is_left_out_however_it_is_cut(tmp_path: Path, cuts: tuple[int, ...]) -> None:
    path, stream = tmp_path / "r", b"foobar" + b"next"
    with Recorder(path, leave_out_over=5) as recorder:
        recorder.write(UP, 1, b"head")
        recorder.begin_data(UP, 1, 6)
        for start, stop in zip((0, *cuts), (*cuts, len(stream)), strict=True):
            recorder.write(UP, 1, stream[start:stop])
            recorder.write(DOWN, 1, b"x")
    ups = [row for row in bare(path) if row[0] == UP]
    assert ups[:2] == [(0, 1, b"head", None), (0, 1, b"", LeftOut(6, 0x85944171F73967E8))]  # FNV-1a 64 of "foobar", as published
    assert b"".join(row[2] for row in ups[2:]) == b"next"


def test_short_data_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with Recorder(path, leave_out_over=6) as recorder:
        recorder.begin_data(UP, 1, 6)
        recorder.write(UP, 1, b"foobar")
    assert bare(path) == [(0, 1, b"foobar", None)]


def test_data_that_breaks_off_is_recorded_as_far_as_it_came(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with Recorder(path, leave_out_over=0) as recorder:
        recorder.begin_data(UP, 1, 100)
        recorder.write(UP, 1, b"a")
        recorder.end(UP, 1)
    assert bare(path) == [(0, 1, b"", LeftOut(1, 0xAF63DC4C8601EC8C)), (0, 1, b"", None)]  # FNV-1a 64 of "a", as published


def test_chunks_of_several_threads_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with Recorder(path) as recorder:
        threads = [
            threading.Thread(target=lambda n=n: [recorder.write(UP, n, bytes([n]) * 1000) for _ in range(50)])  # type: ignore[misc]
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(bare(path)) == sorted([(0, n, bytes([n]) * 1000, None) for n in range(4) for _ in range(50)])


def test_every_truncation_gives_what_is_whole_and_one_sentence(tmp_path: Path) -> None:
    path, whole = tmp_path / "r", START + ONE + NONE + SKIPPED
    ends = [len(START), len(START + ONE), len(START + ONE + NONE)]
    for length in range(len(START), len(whole)):
        path.write_bytes(whole[:length])
        got: list[int] = []  # filled as far as the file goes, whatever is raised then
        if length in ends:
            got.extend(chunk.time_ns for chunk in read(path))
        else:
            start = max(end for end in ends if end <= length)
            with pytest.raises(Damaged, match=rf"offset {start} is damaged: chunk breaks off: .* \[recording\.chunk-"):
                got.extend(chunk.time_ns for chunk in read(path))
        assert got == [7, 8][: sum(end <= length for end in ends[1:])]


def test_what_is_whole_comes_before_the_sentence(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_bytes(START + ONE + NONE + SKIPPED[:-1])
    chunks = read(path)
    assert [next(chunks).time_ns, next(chunks).time_ns] == [7, 8]
    with pytest.raises(Misuse, match="16 bytes, of which 15 are there"):
        next(chunks)


CHUNKS = len(START)


@pytest.mark.parametrize(
    ("content", "offset", "field", "rule", "problem"),
    [
        (b"", 0, "first line", "recording.magic", "is not 'ggml-rpc recording 1'"),
        (b"ggml-rpc recording 2\n" + HEADER, 0, "first line", "recording.magic", "is not 'ggml-rpc recording 1'"),
        (b"ggml-rpc recording 1\n", 21, "second line", "recording.header", "is not the JSON object"),
        (b"ggml-rpc recording 1\n[]\n", 21, "second line", "recording.header", "is not the JSON object"),
        (b"ggml-rpc recording 1\n{}\n", 21, "second line", "recording.header", "is not the JSON object"),
        (START[:-1], 21, "second line", "recording.header", "is not the JSON object"),
        (START[:21] + b"[" * 60_000 + b"\n", 21, "second line", "recording.header", "is not the JSON object"),
        (START[:21] + b" " * 2**16 + HEADER, 21, "second line", "recording.header", "is not the JSON object"),
        (START[:21] + HEADER.replace(b"1,", b"2,", 1), 21, "schema_version", "recording.header", "is 2; this program"),
        (START + bytes(8) + b"\x04" + bytes(12), CHUNKS + 8, "direction", "recording.direction", "is 4; 0 to 3 are possible"),
        (START + bytes(8) + b"\x02" + bytes(12), CHUNKS + 13, "length", "recording.left-out", "is 0; what stands for data"),
        (START + ONE[:20], CHUNKS, "chunk", "recording.chunk-head", "breaks off: 20 of the 21"),
        (START + bytes(13) + b"\xff" * 8, CHUNKS, "chunk", "recording.chunk-whole", "breaks off: 18446744073709551615 bytes, of"),
    ],
    ids=["empty", "magic", "no-header", "no-object", "no-fields", "no-newline", "deep", "long", "schema", "direction", "left-out",
         "head", "length"],
)  # fmt: skip
def test_what_is_damaged_gets_a_sentence_with_place_and_rule(
    tmp_path: Path, content: bytes, offset: int, field: str, rule: str, problem: str
) -> None:
    path = tmp_path / "r"
    path.write_bytes(content)
    with pytest.raises(Damaged) as raised:
        list(read(path))
    damage = raised.value
    assert (damage.offset, damage.field, damage.rule) == (offset, field, rule)
    assert damage.problem.startswith(problem)
    assert str(damage) == f"{path} at offset {offset} is damaged: {field} {damage.problem} [{rule}]"
    assert rule in FILE_RULES


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="can't read"):
        list(read(tmp_path / "none"))
    with pytest.raises(Misuse, match="can't write"):
        Recorder(tmp_path / "none" / "r")
