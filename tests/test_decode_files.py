"""What `decode` makes of files: vectors, damaged ones of every kind, large ones, pipes, and what can't be read or written."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import struct
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ggml_rpc_ref import conformance, decode
from ggml_rpc_ref.commands import decode as command
from ggml_rpc_ref.commands import main as cli
from ggml_rpc_ref.decode import Options
from ggml_rpc_ref.decode.sources import kind_of
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.files import recording
from ggml_rpc_ref.spec.files import FILE_RULES
from ggml_rpc_ref.spec.rules import RULES
from tests.support.seeds import SEED, seeded

HELLO, HELLO_REPLY = bytes([14]) + bytes(8), b"\x03" + bytes(7) + b"\x03\x06\x01"
DEVICE_COUNT, COUNT_REPLY = bytes([15]) + bytes(8), b"\x04" + bytes(7) + b"\x02\0\0\0"
RECORDING_START = (
    b"ggml-rpc recording 1\n"
    b'{"schema_version": 1, "protocol": "3.6.1", "endpoint": "[::1]:50052", "started": "2026-01-01T00:00:00Z", "tool": "t"}\n'
)
VECTORS = Path(__file__).parents[1] / "vectors" / "upstream-3.6.1-llama-cpp-python-0.3.20"
FRAMES = VECTORS / "frames.json"
SCHEMA = json.loads((Path(decode.__file__).parent / "output.schema.json").read_text())


def chunk(direction: int, data: bytes, connection: int = 1) -> bytes:
    return struct.pack("<QBIQ", 0, direction, connection, len(data)) + data


def run(path: object, capsys: pytest.CaptureFixture[str], **wanted: Any) -> tuple[int, str, list[str]]:
    """Exit code, output, lines of words."""
    code = command.run(str(path), Options(**wanted))
    out, err = capsys.readouterr()
    return code, out, err.splitlines()


def document(path: object, capsys: pytest.CaptureFixture[str], **wanted: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(path, capsys, as_json=True, **wanted)[1])
    jsonschema.Draft202012Validator(SCHEMA).validate(found)
    return found


@pytest.fixture
def put(tmp_path: Path) -> Any:
    def write(data: bytes | str, name: str = "input") -> Path:
        path = tmp_path / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    return write


# ------------------------------------------------------------------------------------------------------------- vectors


def test_genuine_frames_are_decoded(capsys: pytest.CaptureFixture[str]) -> None:
    """Every request and reply of frames.json, under its name, in order, and the numbers that were recorded beside the bytes."""
    found = document(FRAMES, capsys)
    recorded = json.loads(FRAMES.read_text())["connections"]
    assert (found["kind"], found["faults"], found["notes"]) == ("vector", [], [])
    rows = [
        (number, name, side["fields"])
        for number, connection in enumerate(recorded, 1)
        for frame in connection["frames"]
        for name, side in ((frame["command"], frame), (f"{frame['command']} reply", frame["reply"]))
        if side is not None
    ]
    assert [(message["connection"], message["name"]) for message in found["messages"]] == [row[:2] for row in rows]
    for message, (_, _, fields) in zip(found["messages"], rows, strict=True):
        numbers = {name: value for name, value in fields.items() if isinstance(value, int)}
        values = {field["name"]: field.get("value") for field in message["fields"][1 if "reply" in message["name"] else 2 :]}
        assert {name: values[name] for name in numbers} == numbers


SESSION = {
    "bindings": {"buf0": {"by": "server", "value": "0x1122334455667788"}, "buf0.base": {"by": "server", "value": "0x1000"}},
    "steps": [
        {"connection": 1, "command": "HELLO", "send": ["0e0000000000000000"]},
        {"connection": 1, "command": "HELLO", "receive": ["0300000000000000030601"]},
        {"connection": 1, "command": "ALLOC_BUFFER", "send": ["000c00000000000000", "00000000", "0001000000000000"]},
        {"connection": 1, "receive": ["1000000000000000", "${buf0}", {"at_least": 256, "width": 8}]},
        {"connection": 1, "command": "BUFFER_GET_BASE", "send": ["030800000000000000", "${buf0}"]},
        {"connection": 1, "receive": ["0800000000000000", "${buf0.base}+64"]},
        {"connection": 1, "send": ["062805000000000000", {"repeat": "00", "times": 304}, {"omitted": 1016, "fnv1a": "ab" * 8}]},
        {"connection": 2, "send": ["0e0000000000000000"]},
        {"connection": 1, "close": "end"},
    ],
}


def test_a_session_vector_is_decoded_with_the_recorded_values(put: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(put(json.dumps(SESSION)), capsys)
    assert (found["kind"], found["faults"]) == ("vector", [])
    assert [(message["connection"], message["name"]) for message in found["messages"]] == [
        (1, "HELLO"), (1, "HELLO reply"), (1, "ALLOC_BUFFER"), (1, "ALLOC_BUFFER reply"), (1, "BUFFER_GET_BASE"),
        (1, "BUFFER_GET_BASE reply"), (1, "SET_TENSOR"), (2, "HELLO"),
    ]  # fmt: skip
    assert [field["value"] for field in found["messages"][3]["fields"]] == [16, 0x1122334455667788, 256]
    assert found["messages"][5]["fields"][1]["value"] == 0x1000 + 64
    assert found["messages"][6]["fields"][-1]["word"] == "left out; FNV-1a 64 0xabababababababab"


def test_the_cases_of_a_vector_are_told_apart(put: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bad = {
        "id": "frame.command-known/200\x1b[2J",
        "bindings": {},
        "steps": [{"connection": 1, "send": ["c8"]}, {"connection": 1, "refused": True}],
    }
    code, _, err = run(put(json.dumps({"cases": [{**SESSION, "id": "good/one"}, bad]})), capsys)
    assert (code, len(err)) == (1, 1)
    assert err[0].startswith(
        "ggml-rpc-ref: case frame.command-known/200\\x1b[2J, connection 1, client's bytes, offset 0 (0x0): command is 200"
    )


def _changed(at: int, row: Any) -> str:
    return json.dumps({**SESSION, "steps": [*SESSION["steps"][:at], row]})  # type: ignore[misc]


DAMAGED_VECTORS = {
    "empty-object-cut": ("{", 0, "offset 1 (0x1): JSON breaks off", "vector.json"),
    "cut": (json.dumps(SESSION)[:400], 0, "JSON breaks off or is not JSON: ", "vector.json"),
    "not-utf-8": (b'{"a": "\xff"}', 0, "offset 7 (0x7): JSON is not UTF-8", "vector.json"),
    "deep": ('{"a": ' + "[" * 100_000, 0, "offset 0 (0x0): JSON can't be read: RecursionError", "vector.json"),
    "long-number": ('{"a": ' + "9" * 5000 + "}", 0, "offset 0 (0x0): JSON can't be read: ValueError", "vector.json"),
    "odd-hex": (_changed(2, {"connection": 1, "send": ["0"]}), 2, "steps[2] does not follow the schema", "vector.schema"),
    "unbound": (_changed(2, {"connection": 1, "send": ["${buf9}"]}), 2, "steps[2] does not follow the schema", "vector.schema"),
    "no-object": (_changed(2, 7), 2, "steps[2] does not follow the schema", "vector.schema"),
    "endless": (
        _changed(2, {"connection": 1, "send": [{"repeat": "00", "times": 10**15}]}), 2, "steps[2] does not follow", "vector.schema"
    ),
    "connection-no-number": (_changed(2, {"connection": [1], "send": ["0e"]}), 2, "steps[2] does not follow", "vector.schema"),
    "size-no-number": (
        _changed(2, {"connection": 1, "send": [{"omitted": "7", "fnv1a": "0"}]}), 2, "steps[2] does not follow", "vector.schema"
    ),
    "size-below-0": (
        _changed(2, {"connection": 1, "send": [{"omitted": -7, "fnv1a": "0"}]}), 2, "steps[2] does not follow", "vector.schema"
    ),
    "endless-number": (
        _changed(2, {"connection": 1, "receive": [{"at_least": 1, "width": 10**15}]}), 2, "steps[2] does not", "vector.schema"
    ),
    "no-bindings": (json.dumps({"steps": SESSION["steps"]}), 0, "bindings does not follow the schema: KeyError", "vector.schema"),
    "frames": (
        '{"connections": [{"frames": [{"number": 14, "payload": "", "reply": {"payload": "030601"}}, {"number": 256}]}]}',
        2, "connections[0].frames[1] does not follow the schema", "vector.schema",
    ),
    "reply-no-object": (
        '{"connections": [{"frames": [{"number": 14, "payload": "", "reply": []}]}]}',
        0, "connections[0].frames[0] does not follow the schema", "vector.schema",
    ),
    "frames-of-numbers": ('{"connections": [1, {"frames": 2}]}', 0, "connections[0].frames does not follow", "vector.schema"),
    "connections-no-list": ('{"connections": 7}', 0, "connections does not follow the schema", "vector.schema"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED_VECTORS)
def test_damaged_vectors(put: Any, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """What came before is there; then one sentence with the place and the rule."""
    data, messages, said, rule = DAMAGED_VECTORS[name]
    code, out, err = run(put(data), capsys, kind="vector")
    assert (code, out.count("->"), len(err)) == (1, messages, 1)
    assert said in err[0]
    assert f"[{rule}: {FILE_RULES[rule].sentence.rstrip('.')}]" in err[0]


def test_vectors_without_messages_say_what_is_meant_for_them() -> None:
    with pytest.raises(Misuse, match=r"enums\.json holds no messages; `ggml-rpc-ref vectors verify`"):
        command.run(str(VECTORS / "enums.json"), Options())


# ----------------------------------------------------------------------------------------------- every kind, damaged


def capture_bytes(tmp_path: Path) -> bytes:
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw
    from scapy.utils import wrpcapng

    rows = [(40000, 50052, 1, HELLO + DEVICE_COUNT), (50052, 40000, 9, HELLO_REPLY + COUNT_REPLY)]
    ends = {40000: "10.0.0.1", 50052: "10.0.0.2"}
    packets = [
        Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        / IP(src=ends[source], dst=ends[to])
        / TCP(sport=source, dport=to, seq=seq, flags="PA")
        / Raw(data)
        for source, to, seq, data in rows
    ]
    wrpcapng(str(tmp_path / "c"), packets)
    return (tmp_path / "c").read_bytes()


def genuine_talk() -> tuple[bytes, bytes]:
    """Both directions of the connection that has a graph."""
    up, down = b"", b""
    for frame in json.loads(FRAMES.read_text())["connections"][-1]["frames"]:
        if "payload" not in frame:
            break
        payload = bytes.fromhex(frame["payload"])
        up += struct.pack("<BQ", frame["number"], len(payload)) + payload
        if frame["reply"]:
            reply = bytes.fromhex(frame["reply"]["payload"])
            down += struct.pack("<Q", len(reply)) + reply
    return up, down


def inputs(tmp_path: Path) -> dict[str, bytes]:
    up, down = genuine_talk()
    pieces = [(0, up[at : at + 999]) for at in range(0, len(up), 999)] + [(1, down)]
    left_out = chunk(0, b"\x06" + struct.pack("<Q", 304 + 1000) + bytes(304), 2) + chunk(2, struct.pack("<QQ", 1000, 7), 2)
    found = {
        "raw": up,
        "hex": up[:2000].hex(" ").encode() + b" # that is all\n",
        "recording": RECORDING_START + b"".join(chunk(direction, data) for direction, data in pieces) + left_out,
        "vector": json.dumps(SESSION).encode(),
        "frames": FRAMES.read_bytes()[:60_000],
    }
    if importlib.util.find_spec("scapy"):
        found["pcap"] = capture_bytes(tmp_path)
    return found


def harmed(data: bytes, chance: random.Random) -> bytes:
    """Cut off, changed, or with a stretch doubled or missing."""
    way, harm = chance.randrange(5), bytearray(data)
    a, b = sorted(chance.randrange(len(data)) for _ in range(2))
    match way:
        case 0:
            del harm[a:]
        case 1:
            for _ in range(chance.randint(1, 8)):
                harm[chance.randrange(len(harm))] = chance.randrange(256)
        case 2:
            del harm[a : min(b, a + 64)]
        case 3:
            harm[a:a] = harm[a : min(b, a + 64)]
        case _:
            harm[a : a + 8] = chance.choice([b"\xff" * 8, bytes(8), b"\0" * 7 + b"\x80"])
    return bytes(harm)


FORMS: tuple[dict[str, Any], ...] = ({}, {"as_json": True}, {"graph": "text"}, {"graph": "dot"}, {"full": True})


@pytest.mark.parametrize("seed", range(8))
def test_harmed_files_get_a_sentence_and_never_a_traceback(
    put: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    """Exit code 0 or 1; with 1 comes one sentence with the id of a rule; JSON stays JSON."""
    chance = random.Random(seeded(seed))
    files = inputs(tmp_path)
    outcomes: dict[str, set[int]] = {kind: set() for kind in files}
    for kind, data in files.items():
        for turn in range(12):
            wanted = FORMS[turn % len(FORMS)]
            path = put(harmed(data, chance))
            forced = {} if turn % 2 else {"kind": "vector" if kind == "frames" else kind}
            try:
                code, out, err = run(path, capsys, **wanted, **forced)
            except Misuse:  # a document that is sound, and whose one name that matters is not what it was
                assert kind in ("frames", "vector")
                continue
            outcomes[kind].add(code)
            said = [line for line in err if "[" in line]
            assert code == len(said[:1]) <= 1, (kind, err)
            assert len([line for line in said if any(f"[{rule}: " in line for rule in (*RULES, *FILE_RULES))]) == code
            if wanted.get("as_json"):
                jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(out))
                assert bool(json.loads(out)["faults"]) is (code == 1)
    assert all(1 in codes for codes in outcomes.values()), outcomes


ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**70,
    1e300,
    "",
    "0",
    "zz",
    "${buf0}",
    "${buf0}+9",
    [],
    [[]],
    {},
    {"repeat": "00", "times": 3},
)
"""What may stand in a document in place of what belongs there."""


def replaced(document: Any, chance: random.Random) -> Any:
    """Return a document with one of its parts replaced or taken away."""
    copy = json.loads(json.dumps(document))
    at = copy
    while True:
        key = chance.choice(list(at) if isinstance(at, dict) else range(len(at)))
        inner = at[key]
        if isinstance(inner, dict | list) and inner and chance.random() < 0.8:
            at = inner
        elif isinstance(at, dict) and chance.random() < 0.3:
            del at[key]
            return copy
        else:
            at[key] = chance.choice(ODD)
            return copy


@pytest.mark.parametrize("seed", range(4))
def test_vectors_with_odd_parts_get_a_sentence(put: Any, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    chance = random.Random(seeded(seed))
    frames = json.loads(FRAMES.read_text())
    frames["connections"] = [{"frames": row["frames"][:4]} for row in frames["connections"][:3]]
    codes = []
    for document in [{"cases": [{**SESSION, "id": "x/y"}] * 2}, SESSION, frames] * 40:
        path = put(json.dumps(replaced(document, chance)))
        try:
            code, _, err = run(path, capsys, kind="vector")
        except Misuse:  # the name that says what the file holds is gone
            continue
        codes.append(code)
        assert code in (0, 1)
        assert sum("[" in line for line in err) == code, err
    assert min(codes.count(0), codes.count(1)) >= 5, codes


@pytest.mark.parametrize("kind", ["raw", "hex", "recording", "pcap", "vector"])
def test_random_bytes_taken_for_any_kind(put: Any, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    chance = random.Random(f"{kind}{SEED or ''}")
    starts = {
        "recording": RECORDING_START,
        "pcap": b"\xd4\xc3\xb2\xa1\x02\0\x04\0" + bytes(8) + b"\xff\xff\0\0\x01\0\0\0",
        "vector": b"{",
    }
    for size in (1, 2, 21, 40, 400):
        for start in (b"", starts.get(kind, b"")):
            code, _, err = run(put(start + chance.randbytes(size)), capsys, kind=kind)
            assert code in (0, 1)
            assert sum("[" in line for line in err) == code


@pytest.mark.parametrize(
    ("ends", "rule"),
    [
        (b"", "recording.message-whole"),
        (chunk(0, b"", 2), "recording.message-whole"),  # the end of another connection
        (chunk(0, b""), "frame.complete"),
        (chunk(1, b""), "frame.complete"),
    ],
    ids=["none", "elsewhere", "client", "server"],
)
def test_who_broke_a_recorded_message_off(put: Any, capsys: pytest.CaptureFixture[str], ends: bytes, rule: str) -> None:
    """The sender, where the end of the connection was recorded; otherwise the recorder, and no peer did anything wrong."""
    code, out, err = run(put(RECORDING_START + chunk(0, HELLO + DEVICE_COUNT[:5]) + chunk(1, HELLO_REPLY) + ends), capsys)
    assert (code, out.count("->")) == (1, 3)
    assert err[0].startswith("ggml-rpc-ref: connection 1, client's bytes, offset 10 (0xa): size is cut off")
    assert f"[{rule}: " in err[0]


# ------------------------------------------------------------------------------------------------- what is in the notes


@pytest.mark.parametrize(
    ("said", "note"),
    [
        ((3, 6, 1), None),
        ((1, 0, 0), "protocol 1.0.0: its layouts are from its sources and not held to recorded bytes, as 3.6.1's are"),
        ((3, 6, 0), None),
        ((2, 0, 0), None),
    ],
    ids=str,
)
def test_other_versions_are_noted(put: Any, capsys: pytest.CaptureFixture[str], said: tuple[int, ...], note: str | None) -> None:
    data = RECORDING_START + chunk(0, HELLO) + chunk(1, b"\x03" + bytes(7) + bytes(said))
    code, _, err = run(put(data), capsys)
    assert (code, len(err)) == (0, 0 if note is None else 1)
    assert note is None or err[0].endswith(note)


def test_ops_without_names_are_shown_by_number(put: Any, capsys: pytest.CaptureFixture[str]) -> None:
    up, _ = genuine_talk()
    at = up.index(b"\x0a", 21_000)
    found = run(put(up[at:]), capsys, graph="text", version=(2, 0, 0))
    assert found[0] == 1  # 2.0.0 has no device in its graphs
    record = bytearray(296)
    record[0], record[52] = 9, 200
    payload = b"\x01\0\0\0\x09" + bytes(7) + b"\x01\0\0\0" + record
    _, out, _ = run(put(b"\x0a" + struct.pack("<Q", len(payload)) + payload), capsys, graph="text", version=decode_version("2.0.0"))
    assert "%0 = unknown op 200()" in out


def decode_version(text: str) -> Any:
    from ggml_rpc_ref.spec.versions import Version

    return Version.parse(text)


def test_requests_without_a_reply_are_noted(put: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A refusal leaves no bytes: the output says so, and it is not a fault."""
    free = b"\x04\x08" + bytes(7) + b"\x01" + bytes(7)
    talk = chunk(0, HELLO + free) + chunk(1, HELLO_REPLY) + chunk(1, b"")
    code, _, err = run(put(RECORDING_START + talk), capsys)
    assert (code, len(err)) == (0, 1)
    assert err[0].startswith("ggml-rpc-ref: connection 1: FREE_BUFFER at offset 9 got no reply: refused")
    code, _, err = run(put(RECORDING_START + talk + chunk(0, HELLO + DEVICE_COUNT, 2) + chunk(1, HELLO_REPLY, 2)), capsys)
    assert "got no reply (and on 1 more connections)" in err[0]


# ------------------------------------------------------------------------------------------------ pipes and large files


def test_a_pipe_is_read_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    data = RECORDING_START + chunk(0, HELLO + DEVICE_COUNT * 1000)
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    writer.start()
    code, out, _ = run(tmp_path / "pipe", capsys)
    writer.join()
    assert (code, out.count("->")) == (0, 1001)


@pytest.mark.parametrize("cut", [0, 1], ids=["whole", "cut"])
@pytest.mark.parametrize("in_one", [True, False], ids=["one-chunk", "chunks"])
def test_large_data_are_not_read_into_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str], in_one: bool, cut: int) -> None:
    """A recording of 1 GiB, which takes no room on the disk: holes are zero bytes."""
    size = 2**30
    head = HELLO + b"\x06" + struct.pack("<Q", 304 + size) + bytes(304)
    step = size if in_one else 2**20
    with (tmp_path / "r").open("wb") as file:
        file.write(RECORDING_START + chunk(0, head))
        for _ in range(0, size, step):
            file.write(struct.pack("<QBIQ", 0, 0, 1, step))
            file.seek(step, 1)
        file.truncate(file.tell() - cut)
    tracemalloc.start()
    try:
        code, out, err = run(tmp_path / "r", capsys)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (code, len(err)) == (cut, cut)
    assert out.count("->") == 2
    assert peak < 8 * 2**20
    if not cut:
        assert f"{size} bytes" in out


def test_claimed_sizes_take_no_memory(put: Any, capsys: pytest.CaptureFixture[str]) -> None:
    claims = [b"\x06" + b"\xff" * 8 + bytes(304), b"\x0a" + b"\xff" * 8 + bytes(4) + b"\xff" * 4]
    for data in (*claims, RECORDING_START + bytes(13) + b"\xff" * 8, RECORDING_START + chunk(0, claims[0])):
        path = put(data)
        tracemalloc.start()
        try:
            assert run(path, capsys)[0] == 1
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()


# ----------------------------------------------------------------------------------------- what can't be read or written


def started(words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command in a shell of its own, so that its standard files can be anything."""
    command = f'"{sys.executable}" -m ggml_rpc_ref decode {words}'
    return subprocess.run(command, shell=True, check=False, capture_output=True, text=True, **options)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("{file} > /dev/full", 2, "can't write: No space left on device"),
        ("{file} >&-", 2, "can't write: standard output is closed"),
        ("- <&-", 2, "can't read -: standard input is closed"),
        ("/", 2, "can't read /: Is a directory"),
        ("{file}.none", 2, "No such file or directory"),
        ("{file} | head -n 1", 0, ""),
        ("{file} --json | head -c 9", 0, ""),
        ("- < /dev/null", 1, "offset 0 (0x0): input is empty [input.bytes: "),
        ("/dev/null", 1, "offset 0 (0x0): input is empty [input.bytes: "),
    ],
)
def test_files_that_are_none(tmp_path: Path, words: str, code: int, said: str) -> None:
    file = tmp_path / "r"
    file.write_bytes(RECORDING_START + chunk(0, HELLO + DEVICE_COUNT * 3000))
    done = started(words.format(file=file))
    assert done.returncode == code
    assert done.stderr.count("\n") == bool(said)
    assert said in done.stderr


def test_an_encoding_that_lacks_a_character(tmp_path: Path) -> None:
    file = tmp_path / "r"
    file.write_bytes(b"\x08" + struct.pack("<Q", 312) + bytes(range(256)) + bytes(56))
    done = started(str(file), env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u2026" in done.stdout


def test_a_damaged_file_is_bad_input_for_every_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Exit code 1 in every format."""
    path = tmp_path / "r"
    path.write_bytes(b"no recording\n")
    monkeypatch.setattr(cli, "app", lambda **_: recording.read_header(path))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "[recording.magic]" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------------------- kinds


def test_a_vector_is_told_from_hex() -> None:
    assert [kind_of(start) for start in (b" \n{", b"{\xff", b"0e {")] == ["vector", "raw", "hex"]


# --------------------------------------------------------------------------------------------------------------- rules

PCAP_START = b"\xd4\xc3\xb2\xa1\x02\0\x04\0" + bytes(8) + b"\xff\xff\0\0\x01\0\0\0"
PROVOKED: dict[str, tuple[str, bytes]] = {
    "input.bytes": ("raw", b""),
    "input.gzip": ("hex", b"\x1f\x8b"),
    "recording.magic": ("recording", b"ggml-rpc recording 2\n"),
    "recording.header": ("recording", b"ggml-rpc recording 1\n{}\n"),
    "recording.chunk-head": ("recording", RECORDING_START + bytes(20)),
    "recording.direction": ("recording", RECORDING_START + bytes(8) + b"\x04" + bytes(12)),
    "recording.left-out": ("recording", RECORDING_START + bytes(8) + b"\x02" + bytes(12)),
    "recording.chunk-whole": ("recording", RECORDING_START + chunk(0, HELLO)[:-1]),
    "recording.message-whole": ("recording", RECORDING_START + chunk(0, HELLO + DEVICE_COUNT[:5])),
    "capture.format": ("pcap", PCAP_START[:20]),
    "capture.block": ("pcap", b"\x0a\x0d\x0d\x0a\x08\0\0\0\x4d\x3c\x2b\x1a"),
    "capture.packet-whole": ("pcap", PCAP_START + bytes(8) + b"\x05\0\0\0\x05\0\0\0abcd"),
    "capture.stream-whole": ("pcap", b""),  # written by the test: a segment that is not there
    "capture.conversation": ("pcap", PCAP_START),
    "hex.digit": ("hex", b"0e g"),
    "hex.pair": ("hex", b"0e 0"),
    "vector.json": ("vector", b"{"),
    "vector.schema": ("vector", b"[]"),
}
"""Rule to kind and bytes of a file that breaks it."""


def test_every_rule_for_files_can_be_provoked() -> None:
    assert list(PROVOKED) == list(FILE_RULES)


@pytest.mark.parametrize("rule", PROVOKED)
def test_files_that_break_a_rule_name_it(put: Any, capsys: pytest.CaptureFixture[str], rule: str) -> None:
    kind, data = PROVOKED[rule]
    path = put(data)
    if rule == "capture.stream-whole":
        lacking_a_segment(path)
    code, _, err = run(path, capsys, kind=kind)
    assert (code, len(err)) == (1, 1)
    assert f"[{rule}: {FILE_RULES[rule].sentence.rstrip('.')}]" in err[0]
    assert "offset " in err[0]


def lacking_a_segment(path: Path) -> None:
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw
    from scapy.utils import wrpcap

    head = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src="10.0.0.1", dst="10.0.0.2")
    wrpcap(str(path), [head / TCP(sport=9, dport=50052, seq=seq, flags="PA") / Raw(HELLO) for seq in (1, 19)])


@pytest.mark.parametrize("rule", FILE_RULES)
def test_rules_for_files_are_explained_and_described(rule: str) -> None:
    assert list(conformance.show(rule))[:2] == [rule, f"  {FILE_RULES[rule].sentence}"]
    assert f'<a id="{rule}"></a>`{rule}` | {FILE_RULES[rule].sentence}' in (Path(__file__).parents[1] / "SPEC.md").read_text()
    assert rule not in RULES
