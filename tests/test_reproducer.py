"""A failure can be replayed: pointers become names, files are read back, the fault is seen again where it is and nowhere else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ggml_rpc_ref.conformance import CASES, Options, run
from ggml_rpc_ref.conformance.peer import TranscriptPiece
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.files.conversation import Exactly, Named, Repeated
from ggml_rpc_ref.golden import reproducer
from ggml_rpc_ref.golden.reproducer import Move
from tests.support.sabotage import SABOTAGES, InProcess

HANDLE, BASE = 0x1122334455667788, 0x7F0000001000
u64 = lambda number: number.to_bytes(8, "little")  # noqa: E731

PATTERN = bytes(range(256)) * 64
RECORD = [
    TranscriptPiece(1, "sent", "HELLO", bytes.fromhex("0e 0000000000000000")),
    TranscriptPiece(1, "got", "the reply to HELLO", u64(3)),
    TranscriptPiece(1, "got", "the reply to HELLO", bytes([3, 6, 1])),
    TranscriptPiece(1, "sent", "ALLOC_BUFFER", bytes.fromhex("00 0c00000000000000 00000000 0010000000000000")),
    TranscriptPiece(1, "got", "the reply to ALLOC_BUFFER", u64(16)),
    TranscriptPiece(1, "got", "the reply to ALLOC_BUFFER", u64(HANDLE) + u64(4096)),
    TranscriptPiece(1, "sent", "BUFFER_GET_BASE", bytes.fromhex("03 0800000000000000") + u64(HANDLE)),
    TranscriptPiece(1, "got", "the reply to BUFFER_GET_BASE", u64(8)),
    TranscriptPiece(1, "got", "the reply to BUFFER_GET_BASE", u64(BASE)),
    # an address within the buffer at an odd place, one just behind it, one far away, and data of one pattern
    TranscriptPiece(1, "sent", "3 literal bytes", b"abc" + u64(BASE + 100) + u64(BASE + 4097) + u64(BASE + 2**30) + PATTERN),
    TranscriptPiece(1, "sent", "FIN", b""),
    TranscriptPiece(1, "got", "end", b"xy"),
]


def made() -> reproducer.Reproducer:
    return reproducer.make(RECORD, "data.copy/x", 'About "it".')


def test_pointers_become_names_and_patterns_repetitions() -> None:
    moves = made().moves
    assert moves[5].pieces == (Named("buf0.remote_ptr"), Exactly(u64(4096)))
    assert moves[6].pieces == (Exactly(bytes.fromhex("03 0800000000000000")), Named("buf0.remote_ptr"))
    assert moves[8].pieces == (Named("buf0.base"),)
    odd, near, behind, far, again, rest = moves[9].pieces
    assert (odd, near, behind) == (Exactly(b"abc"), Named("buf0.base", 100), Named("buf0.base", 4097))
    assert isinstance(far, Exactly)
    assert isinstance(rest, Exactly)
    # the first block holds the address, so that the pattern is found eight bytes into it
    assert far.data == u64(BASE + 2**30) + PATTERN[: 4096 - 8]
    assert again == Repeated(PATTERN[-8:] + PATTERN[:248], 48)
    assert rest.data == PATTERN[-8:]
    assert moves[10:] == (Move(1, "finish"), Move(1, "got", (Exactly(b"xy"),), end="end"))


def test_small_pointers_become_names_where_a_message_has_them() -> None:
    """A server that counts its handles from 1 is no rarity; its faults were played again with the handles of the first time."""
    record = lambda buffer, data: bytes(12) + u64(buffer) + bytes(200) + u64(data) + bytes(68)  # noqa: E731
    alloc = bytes.fromhex("00 0c00000000000000 00000000 0010000000000000")
    pieces = [
        TranscriptPiece(1, "sent", "ALLOC_BUFFER", alloc),
        TranscriptPiece(1, "got", "the reply to ALLOC_BUFFER", u64(16)),
        TranscriptPiece(1, "got", "the reply to ALLOC_BUFFER", u64(7) + u64(4096)),
        TranscriptPiece(1, "sent", "BUFFER_GET_BASE", bytes.fromhex("03 0800000000000000") + u64(7)),
        TranscriptPiece(1, "got", "the reply to BUFFER_GET_BASE", u64(8)),
        TranscriptPiece(1, "got", "the reply to BUFFER_GET_BASE", u64(0x10000)),
        TranscriptPiece(1, "sent", "ALLOC_BUFFER", alloc),
        TranscriptPiece(1, "got", "the reply to ALLOC_BUFFER", u64(16)),
        TranscriptPiece(1, "got", "the reply to ALLOC_BUFFER", u64(8) + u64(4096)),
        TranscriptPiece(1, "sent", "BUFFER_GET_BASE", bytes.fromhex("03 0800000000000000") + u64(8)),
        TranscriptPiece(1, "got", "the reply to BUFFER_GET_BASE", u64(8)),
        TranscriptPiece(1, "got", "the reply to BUFFER_GET_BASE", u64(0x11000)),
        # offset 7 and the data 7 are no handles; behind its end the second buffer's address is still its own
        TranscriptPiece(1, "sent", "SET_TENSOR", b"\6" + u64(312) + record(7, 0x10FFC) + u64(7) + u64(7)),
        TranscriptPiece(1, "sent", "GRAPH_COMPUTE", b"\12" + u64(12 + 8 + 2 * 296) + bytes(4) + b"\1\0\0\0" + u64(7) + b"\2\0\0\0"
                        + record(0, 0) + record(8, 0x12001)),
        TranscriptPiece(1, "sent", "FREE_BUFFER", bytes.fromhex("04 0800000000000000") + u64(7)),
    ]  # fmt: skip
    moves = reproducer.make(pieces, "x", "y").moves
    named = [[piece for piece in move.pieces if isinstance(piece, Named)] for move in moves if move.act == "send"]
    assert named == [
        [], [Named("buf0.remote_ptr")], [], [Named("buf1.remote_ptr")], [Named("buf0.remote_ptr"), Named("buf0.base", 0xFFC)],
        [Named("buf1.remote_ptr"), Named("buf1.base", 0x1001)], [Named("buf0.remote_ptr")],
    ]  # fmt: skip


def test_a_file_is_read_back() -> None:
    text = made().text()
    assert reproducer.parse(text) == made()
    assert json.loads(text)["form"] == "ggml-rpc-ref reproducer"


def step_of(connection: str) -> str:
    return f'{{"form": "ggml-rpc-ref reproducer", "id": "a", "about": "b", "steps": [{{"connection": {connection}, "send": []}}]}}'


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"form": "else"}', "[" * 100_000, '{"form": "ggml-rpc-ref reproducer", "steps": [1]}']
    + [step_of(number) for number in ("1e999", "-Infinity", "NaN", '"x"', "null")],
)
def test_another_file_is_refused(text: str) -> None:
    with pytest.raises(Misuse, match="not a reproducer"):
        reproducer.parse(text)


def test_a_script_without_an_endpoint_says_how_it_is_run(tmp_path: Path) -> None:
    script = tmp_path / "reproduce.py"
    script.write_text(reproducer.as_python(made()))
    done = subprocess.run([sys.executable, "-I", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "python3 reproduce.py HOST:PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_too_large_is_refused() -> None:
    noise = b"".join((n * 2654435761 % 2**32).to_bytes(4, "little") for n in range(2**20 + 1))
    with pytest.raises(Misuse, match="too large for a reproducer, more than 4 MiB"):
        reproducer.make([TranscriptPiece(1, "sent", "x", noise)], "a/b", "About.")


@pytest.mark.parametrize("rule", ["data.copy", "device.index", "frame.complete"])
def test_the_fault_is_seen_again_where_it_is_and_not_elsewhere(rule: str, tmp_path: Path) -> None:
    sabotaged = InProcess(tmp_path, SABOTAGES[rule])
    cases = [case for case in CASES.values() if case.rule.id == rule]
    report = run(sabotaged, cases, Options(timeout=2.0, profile=""))
    result = next(result for result in report.results if result.verdict == "FAIL")
    made = reproducer.parse(reproducer.make(result.record, result.case.id, result.detail).text())
    for target, expected in ((InProcess(tmp_path, SABOTAGES[rule]), True), (InProcess(tmp_path), False)):
        target.start()
        try:
            outcome = reproducer.replay(made, target.endpoint, 2.0)
            script = tmp_path / "reproduce.py"
            script.write_text(reproducer.as_python(made))
            done = subprocess.run(
                [sys.executable, "-I", script, str(target.endpoint)], capture_output=True, text=True, timeout=60, check=True
            )
        finally:
            target.stop()
        assert outcome.is_same == expected, "\n".join(outcome.lines)
        assert outcome.lines[-1] == "afterwards it serves a new connection"
        assert len(re.findall(r"^1 got ", done.stdout, re.MULTILINE)) == sum(move.act == "got" for move in made.moves)
        assert len(script.read_text().splitlines()) - len(made.moves) < 35
