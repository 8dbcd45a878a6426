"""Playing conversations: each kind of piece and step against a server that answers as it is told, and the command on our own."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from ggml_rpc_ref.conformance import Given, Options, Verdict, run
from ggml_rpc_ref.conformance.events import Report
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.files.conversation import Omitted, piece_from_json, size_of
from ggml_rpc_ref.golden import omitted, play
from ggml_rpc_ref.golden.omitted import Files
from ggml_rpc_ref.net.stream import Endpoint
from tests.support.command import run_command

HELLO, DEVICE_COUNT = "0e" + 8 * "00", "0f" + 8 * "00"
HELLO_REPLY, COUNT_REPLY = "0300000000000000030601", "040000000000000001000000"
OPENING = [
    {"connection": 1, "command": "HELLO", "send": [HELLO]},
    {"connection": 1, "command": "HELLO", "receive": [HELLO_REPLY]},
]


class Answering:
    """A server of 3.6.1 that answers HELLO and DEVICE_COUNT, and other commands as it is told: bytes of a whole reply, None: it
    hangs, b"": it closes."""

    def __init__(self, answers: dict[int, bytes | None]) -> None:
        self.answers = {14: bytes.fromhex(HELLO_REPLY), 15: bytes.fromhex(COUNT_REPLY)} | answers
        self.received: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = Endpoint("127.0.0.1", self.listener.getsockname()[1])
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.converse, args=(self.listener.accept()[0],), daemon=True).start()

    def converse(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while len(head := self.take(connection, 9)) == 9:
                payload = self.take(connection, int.from_bytes(head[1:], "little"))
                self.received.append(head + payload)
                answer = self.answers.get(head[0], b"")
                if answer is None:
                    self.take(connection, 1)
                if not answer:
                    return
                connection.sendall(answer)

    @staticmethod
    def take(connection: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size and (piece := connection.recv(size - len(data))):
            data += piece
        return data


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Answering]:
    made = Answering(getattr(request, "param", {}))
    yield made
    made.listener.close()


def vectors(tmp_path: Path, *steps: Any, bindings: Any = None, flags: tuple[str, ...] = ()) -> Path:
    """A directory with one session of these steps."""
    folder = tmp_path / "upstream-of-none" / "sessions"
    folder.mkdir(parents=True)
    names = {name: {"by": "server"} for name in re.findall(r"\$\{(.*?)\}", json.dumps(steps))} | (bindings or {})
    provenance = dict.fromkeys(("client", "server", "cpu", "command"), "nobody") | {
        "recorded": "2026-01-01T00:00:00", "recording": "tried.recording", "sha256": 64 * "0",
    }  # fmt: skip
    content = {"schema_version": 1, "protocol": "3.6.1", "provenance": provenance, "id": "tried", "about": "What is tried.",
               "flags": flags, "bindings": names, "steps": [*OPENING, *steps]}  # fmt: skip
    (folder / "tried.json").write_text(json.dumps(content))
    return tmp_path


def judged(server: Answering, directory: Path, data: Files | None = None) -> Any:
    report: Report = run(
        Given(server.endpoint), list(play.cases(directory, Files([]) if data is None else data)), Options(timeout=0.05)
    )
    (result,) = report.results
    return result


def sent(command: int, *pieces: Any, size: int | None = None, connection: int = 1) -> dict[str, Any]:
    total = size_of(map(piece_from_json, pieces)) if size is None else size
    return {"connection": connection, "command": "GET_TENSOR", "send": [struct.pack("<BQ", command, total).hex(), *pieces]}


def got(*pieces: Any, size: int, command: str = "GET_TENSOR") -> dict[str, Any]:
    return {"connection": 1, "command": command, "receive": [struct.pack("<Q", size).hex(), *pieces]}


def reply(payload: bytes) -> bytes:
    return struct.pack("<Q", len(payload)) + payload


ONE, TWO = struct.pack("<Q", 0x1122334455667788), struct.pack("<Q", 0x1122334455667788 + 64)
FLOATS, CLOSE = struct.pack("<3f", 1.0, -2.0, np.nan), struct.pack("<3f", 1.01, -2.0, np.nan)
PIECES = [
    ("exact", ["aabb"], b"\xaa\xbb", ""),
    ("exact, other byte", ["aabb"], b"\xaa\xbc", "to hold bb (from 1 bytes on) at byte 8; got bc"),
    ("too short", ["aabb"], b"\xaa", "to have 2 bytes; its size field says 1"),
    ("too long", ["aabb"], b"\xaa\xbb\xcc", "to have 2 bytes; its size field says 3"),
    ("a name twice", ["${buf0.base}", "${buf0.base}+64"], ONE + TWO, ""),
    ("a name, first with an offset", ["${buf0.base}+64", "${buf0.base}"], TWO + ONE, ""),
    ("a name with two values", ["${buf0.base}", "${buf0.base}"], ONE + TWO, "to hold buf0.base+0, 0x1122334455667788 at byte 16"),
    ("at least, equal", [{"at_least": 256, "width": 8}], struct.pack("<Q", 256), ""),
    ("at least, above", [{"at_least": 256, "width": 4}], struct.pack("<I", 2**32 - 1), ""),
    ("at least, below", [{"at_least": 256, "width": 8}], struct.pack("<Q", 255), "to hold at least 256 at byte 8; got 255"),
    ("anything", [{"any": "00000000"}], b"abcd", ""),
    ("anything, other size", [{"any": "00000000"}], b"abc", "to have 4 bytes"),
    ("repeated", [{"repeat": "ab", "times": 3}], b"\xab\xab\xab", ""),
    ("repeated, not to the end", [{"repeat": "ab", "times": 3}], b"\xab\xab\xac", "to hold ab (from 2 bytes on)"),
    ("hash", [{"omitted": 1, "fnv1a": "af63dc4c8601ec8c"}], b"a", ""),
    ("other hash", [{"omitted": 1, "fnv1a": "af63dc4c8601ec8c"}], b"b", "to hold data with the hash af63dc4c8601ec8c"),
    ("near", [{"values": FLOATS.hex(), "type": "F32", "nmse": 1e-3}], CLOSE, ""),
    ("far", [{"values": FLOATS.hex(), "type": "F32", "nmse": 1e-6}], CLOSE, "mean squared error of 1e-06"),
    ("no NaN", [{"values": FLOATS.hex(), "type": "F32", "nmse": 1.0}], struct.pack("<3f", 1, -2, 0), "class at [2,0,0,0]"),
    ("half", [{"values": "003c", "type": "F16", "nmse": 1e-6}], struct.pack("<e", 1.0), ""),
]  # fmt: skip


@pytest.mark.parametrize(("pieces", "payload", "words"), [row[1:] for row in PIECES], ids=[row[0] for row in PIECES])
def test_each_kind_of_piece_is_compared(tmp_path: Path, pieces: list[Any], payload: bytes, words: str) -> None:
    server = Answering({8: reply(payload)})
    expected = sum(len(bytes.fromhex(p)) if isinstance(p, str) and "$" not in p else 8 for p in pieces)
    sizes = {"any": 4, "repeat": 3, "omitted": 1, "values": 12}
    for key, size in sizes.items():
        expected = next((size for p in pieces if isinstance(p, dict) and key in p), expected)
    if pieces[0] == {"at_least": 256, "width": 4}:
        expected = 4
    if isinstance(pieces[0], dict) and pieces[0].get("type") == "F16":
        expected = 2
    result = judged(server, vectors(tmp_path, sent(8), got(*pieces, size=expected)))
    server.listener.close()
    assert result.verdict is (Verdict.PASS if not words else Verdict.DESYNC if "to have" in words else Verdict.FAIL), result.detail
    assert words in result.detail
    assert ("step 4 (GET_TENSOR)" in result.detail) == bool(words)


def test_names_go_out_with_their_values(tmp_path: Path) -> None:
    server = Answering({0: reply(ONE), 6: reply(b"")})
    steps = [
        sent(0), got("${buf0.remote_ptr}", size=8, command="ALLOC_BUFFER"),
        sent(6, "${buf0.remote_ptr}", "${buf0.remote_ptr}+64", "${tensor0}-1", {"repeat": "0a0b", "times": 2}), got("", size=0),
    ]  # fmt: skip
    result = judged(server, vectors(tmp_path, *steps, bindings={"tensor0": {"by": "client", "value": "0x10"}}))
    assert result.verdict is Verdict.PASS, result.detail
    assert server.received[-4:-2][1][9:] == ONE + TWO + struct.pack("<Q", 15) + bytes.fromhex("0a0b0a0b")


def test_data_that_is_omitted_comes_from_a_file_or_the_vector_is_skipped(tmp_path: Path) -> None:
    server = Answering({6: reply(b"")})
    directory = vectors(tmp_path, sent(6, {"omitted": 5, "fnv1a": "a430d84680aabd0b"}), got("", size=0))
    result = judged(server, directory)
    assert (result.verdict, "--data FILE" in result.detail) == (Verdict.SKIP, True)
    result = judged(server, directory, Files([], otherwise=[tmp_path / "none"]))
    assert (result.verdict, f"and can't read {tmp_path / 'none'}" in result.detail) == (Verdict.SKIP, True)
    (tmp_path / "other").write_bytes(b"HELLO")
    (tmp_path / "blob").write_bytes(b"hello")
    result = judged(server, directory, Files([tmp_path / "other", tmp_path / "blob"]))
    assert result.verdict is Verdict.PASS, result.detail
    assert any(request[9:] == b"hello" for request in server.received)


REFUSED = [
    ({}, Verdict.PASS, ""),
    ({20: reply(b"")}, Verdict.FAIL, "it was answered with 8 bytes"),
    ({20: bytes.fromhex(COUNT_REPLY)}, Verdict.FAIL, "it was accepted: the next request was answered"),
    ({20: None}, Verdict.HANG, "neither an end nor an answer came in time"),
]


@pytest.mark.parametrize(("answers", "verdict", "words"), REFUSED, ids=["closed", "answered", "taken", "hanging"])
def test_a_refusal_is_an_end_without_a_byte(tmp_path: Path, answers: dict[int, bytes | None], verdict: Verdict, words: str) -> None:
    result = judged(Answering(answers), vectors(tmp_path, sent(20), {"connection": 1, "refused": True}))
    assert (result.verdict, words in result.detail) == (verdict, True), result.detail


def test_where_a_reply_should_be_and_the_connection_ends(tmp_path: Path) -> None:
    result = judged(Answering({}), vectors(tmp_path, sent(8), got("aa", size=1)))
    assert (result.verdict, result.rule) == (Verdict.FAIL, "frame.reply-presence")
    assert "the connection was closed" in result.detail


@pytest.mark.parametrize("how", ["end", "reset"])
def test_closing_and_opening_again(tmp_path: Path, how: str) -> None:
    again = [step | {"connection": 2} for step in OPENING]
    result = judged(Answering({}), vectors(tmp_path, {"connection": 1, "close": how}, *again))
    assert result.verdict is Verdict.PASS, result.detail


def test_what_the_server_lacks_is_no_fault(tmp_path: Path) -> None:
    result = judged(Answering({}), vectors(tmp_path / "a", flags=("two-devices",)))
    assert (result.verdict, result.detail) == (Verdict.UNSUPPORTED, "it has one device")
    steps = [sent(7), got("01", size=1, command="SET_TENSOR_HASH")]
    result = judged(Answering({7: reply(b"\0")}), vectors(tmp_path / "b", *steps, flags=("needs-cache",)))
    assert (result.verdict, result.detail) == (Verdict.UNSUPPORTED, "it keeps no cache")
    whole = {"connection": 1, "command": "SET_TENSOR_HASH"}
    for number, (expected, given, words) in enumerate(
        [("01", b"\0", "it keeps no cache"), ("00", b"\1", "its cache has the data")]
    ):
        steps = [sent(7), whole | {"receive": ["0100000000000000" + expected]}]
        result = judged(Answering({7: reply(given)}), vectors(tmp_path / str(number), *steps, flags=("needs-cache",)))
        assert (result.verdict, words in result.detail) == (Verdict.UNSUPPORTED, True)


# ------------------------------------------------------------------------------------------------------- data in files


def test_data_is_found_by_size_and_hash(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    (tmp_path / "empty").write_bytes(b"")
    files = Files([tmp_path / "a", tmp_path / "empty"])
    assert bytes(files[Omitted(5, 0xA430D84680AABD0B)]) == b"hello"  # the hash: FNV-1a 64 of "hello", published with the function
    assert Omitted(5, 1) not in files
    assert Omitted(6, 0xA430D84680AABD0B) not in files
    assert Omitted(5, 0xA430D84680AABD0B) in Files([tmp_path / "empty"], otherwise=[tmp_path / "a"])


def test_tensors_of_a_gguf_are_found(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", "llama")
    writer.add_tensor("first", np.frombuffer(b"abcdefgh", np.float32))
    writer.add_tensor("second", np.frombuffer(b"hello, you!!", np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    wanted = 0xCBF29CE484222325
    for byte in b"hello, you!!":
        wanted = (wanted ^ byte) * 0x100000001B3 % 2**64
    assert bytes(Files([tmp_path / "tiny.gguf"])[Omitted(12, wanted)]) == b"hello, you!!"


@pytest.mark.parametrize("content", [b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 40], ids=["cut off", "nonsense"])
def test_a_broken_gguf_has_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.gguf").write_bytes(content)
    with pytest.raises(Misuse, match=r"broken\.gguf is not a complete GGUF"):
        Files([tmp_path / "broken.gguf"])
    with pytest.raises(Misuse, match="can't read"):
        Files([tmp_path / "none"])


@pytest.mark.parametrize(("kind", "why"), [(4, "an array of 1099511627776 UINT32 runs past"), (8, ""), (9, "")])
def test_a_gguf_with_an_array_beyond_its_end_has_a_sentence(tmp_path: Path, kind: int, why: str) -> None:
    """Of numbers, of texts, of arrays."""
    array = struct.pack("<QsIIQ", 1, b"a", 9, kind, 2**40)
    (tmp_path / "endless.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + array + bytes(64))
    with pytest.raises(Misuse, match=rf"endless\.gguf is not a complete GGUF: .*{why}"):
        Files([tmp_path / "endless.gguf"])


def test_a_gguf_that_is_read_for_long_has_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(omitted, "LONGEST", 0.01)
    (tmp_path / "slow.gguf").write_bytes(b"GGUF")
    with pytest.raises(Misuse, match=r"slow\.gguf is not a complete GGUF: reading it did not end within 0\.01 s"):
        Files([tmp_path / "slow.gguf"])


# --------------------------------------------------------------------------------------------------------- the command


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command("vectors", "play", *arguments)


def test_the_command_plays_on_our_own_server(tmp_path: Path) -> None:
    directory = vectors(tmp_path, {"connection": 1, "command": "DEVICE_COUNT", "send": [DEVICE_COUNT]}, got("02000000", size=4))
    ran = command("--directory", str(directory), "--json")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["counts"] == {"PASS": 1}
    assert found["cases"][0]["id"] == "sessions/tried"


def test_the_command_plays_the_file_of_one_session(tmp_path: Path) -> None:
    directory = vectors(tmp_path, {"connection": 1, "command": "DEVICE_COUNT", "send": [DEVICE_COUNT]}, got("02000000", size=4))
    own = (directory / "upstream-of-none" / "sessions" / "tried.json").rename(tmp_path / "own.json")
    ran = command("--directory", str(own))
    assert (ran.returncode, "1 cases, 1 PASS" in ran.stdout) == (0, True), ran.stderr
    own.write_text('{"id": "own"}')
    ran = command("--directory", str(own))
    assert (ran.returncode, "own.json is damaged: JSON has a fault: $: " in ran.stderr) == (1, True)


def test_the_command_fails_names_the_step_and_knows_expected_failures(tmp_path: Path) -> None:
    directory = vectors(tmp_path, {"connection": 1, "command": "DEVICE_COUNT", "send": [DEVICE_COUNT]}, got("03000000", size=4))
    ran = command("--directory", str(directory))
    assert (ran.returncode, "step 4 (GET_TENSOR)" in ran.stdout, "Traceback" in ran.stderr) == (1, True, False)
    known = tmp_path / "known.json"
    known.write_text(json.dumps({"sessions/tried": {"verdict": "FAIL", "reason": "two devices"}}))
    assert command("--directory", str(directory), "--expect", str(known)).returncode == 0
    known.write_text(json.dumps({f"sessions/{id}": {"verdict": "FAIL", "reason": "x"} for id in ("tried", "gone")}))
    ran = command("--directory", str(directory), "--expect", str(known))
    assert (ran.returncode, "sessions/gone: no case has this id" in ran.stdout) == (1, True)


def test_the_command_lists_and_selects(tmp_path: Path) -> None:
    directory = vectors(tmp_path)
    ran = command("--directory", str(directory), "--list", "--only", "sessions")
    assert (ran.returncode, ran.stdout) == (0, "sessions/tried  MUST: What is tried.\n")
    ran = command("--directory", str(directory), "--list", "--only", "sessions/other")
    assert (ran.returncode, "no vector and no rule matches 'sessions/other'" in ran.stderr) == (2, True)
    ran = command("--directory", str(tmp_path / "none"))
    assert (ran.returncode, "holds no vectors" in ran.stderr, "Traceback" in ran.stderr) == (2, True, False)
