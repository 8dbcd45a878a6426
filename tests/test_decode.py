"""Decoding for people and programs: literal bytes, the genuine frames, every truncation, garbage, recordings and captures."""

from __future__ import annotations

import contextlib
import io
import json
import re
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggml_rpc_ref import decode
from ggml_rpc_ref.commands import decode as command
from ggml_rpc_ref.commands.decode import options
from ggml_rpc_ref.commands.main import app
from ggml_rpc_ref.decode import Options
from ggml_rpc_ref.decode.inputs import Kind
from ggml_rpc_ref.decode.sources import OTHER_FILES, kind_of
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.protocol.connection import Role
from ggml_rpc_ref.spec.versions import V1_0_0, V8_0_0, Version

HELLO = bytes([14]) + bytes(8)
DEVICE_COUNT = bytes([15]) + bytes(8)
ALLOC = b"\x00\x0c" + bytes(7) + b"\x01\0\0\0" + b"\0\0\x01" + bytes(5)
HELLO_REPLY = b"\x03" + bytes(7) + b"\x03\x06\x01"
COUNT_REPLY = b"\x04" + bytes(7) + b"\x02\0\0\0"
ALLOC_REPLY = b"\x10" + bytes(7) + b"\x11\x22\x33" + bytes(5) + b"\0\0\x01" + bytes(5)

FILE = Path(__file__).parents[1] / "vectors" / "upstream-3.6.1-llama-cpp-python-0.3.20" / "frames.json"
GENUINE: list[list[dict[str, Any]]] = [
    [frame for frame in connection["frames"] if "payload" in frame] for connection in json.loads(FILE.read_text())["connections"]
]


def requests_of(frames: list[dict[str, Any]]) -> bytes:
    payloads = [(frame["number"], bytes.fromhex(frame["payload"])) for frame in frames]
    return b"".join(bytes([number]) + struct.pack("<Q", len(payload)) + payload for number, payload in payloads)


def replies_of(frames: list[dict[str, Any]]) -> bytes:
    payloads = [bytes.fromhex(frame["reply"]["payload"]) for frame in frames if frame["reply"]]
    return b"".join(struct.pack("<Q", len(payload)) + payload for payload in payloads)


def run(path: Path, wanted: Options = Options()) -> tuple[int, str, str]:  # noqa: B008 (it is frozen)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command.run(str(path), wanted)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def put(tmp_path: Path) -> Any:
    def write(data: bytes, name: str = "input") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def as_json(path: Path, **wanted: Any) -> dict[str, Any]:
    code, out, err = run(path, Options(as_json=True, **wanted))
    document: dict[str, Any] = json.loads(out)
    said = err.splitlines()
    assert said[: len(document["notes"])] == [f"ggml-rpc-ref: {note}" for note in document["notes"]]
    assert (code == 0) is (document["faults"] == []) is (len(said) == len(document["notes"]))
    return document


def chunk(direction: int, data: bytes, *, connection: int = 1, time_ns: int = 0) -> bytes:
    return struct.pack("<QBIQ", time_ns, direction, connection, len(data)) + data


RECORDING_START = (
    b"ggml-rpc recording 1\n"
    b'{"schema_version": 1, "protocol": "3.6.1", "endpoint": "[::1]:50052", "started": "2026-01-01T00:00:00Z", "tool": "t"}\n'
)

# ------------------------------------------------------------------------------------------------------- literal bytes


def test_annotated_bytes_in_full(put: Any) -> None:
    assert run(put(HELLO + ALLOC)) == (
        0,
        "client -> server  HELLO  offset 0, payload 0 bytes\n"
        "  00000000  0e                         command           14 HELLO                  number of the command\n"
        "  00000001  00 00 00 00 00 00 00 00    size              0                         bytes of payload\n"
        "client -> server  ALLOC_BUFFER  offset 9, payload 12 bytes\n"
        "  00000009  00                         command           0 ALLOC_BUFFER            number of the command\n"
        "  0000000a  0c 00 00 00 00 00 00 00    size              12                        bytes of payload\n"
        "  00000012  01 00 00 00                device            1                         index below DEVICE_COUNT\n"
        "  00000016  00 00 01 00 00 00 00 00    size              65536                     bytes wanted\n",
        "",
    )


def test_json_says_the_same(put: Any) -> None:
    document = as_json(put(ALLOC))
    assert (document["schema_version"], document["kind"], document["faults"]) == (1, "raw", [])
    (message,) = document["messages"]
    assert (message["name"], message["sender"], message["offset"], message["payload_offset"]) == ("ALLOC_BUFFER", "client", 0, 9)
    assert message["fields"] == [
        {"name": "command", "offset": 0, "size": 1, "value": 0, "word": "ALLOC_BUFFER"},
        {"name": "size", "offset": 1, "size": 8, "value": 12},
        {"name": "device", "offset": 9, "size": 4, "value": 1},
        {"name": "size", "offset": 13, "size": 8, "value": 65536},
    ]


def test_hex_text_is_told_from_bytes(put: Any) -> None:
    text = b"0e 0000:0000 0000,0000 # HELLO, not 0f\n0f0000000000000000\n"
    document = as_json(put(text))
    assert (document["kind"], [message["name"] for message in document["messages"]]) == ("hex", ["HELLO", "DEVICE_COUNT"])


@pytest.mark.parametrize(
    ("text", "said", "messages"),
    [
        (b"0e00000000000000000", "offset 18 (0x12): last byte has one hexadecimal digit; it needs two [hex.pair: ", 1),
        (b"0e0000000000000000 zz", "offset 19 (0x13): character 'z' is not a hexadecimal digit [hex.digit: ", 1),
    ],
    ids=["odd", "no-digit"],
)
def test_bad_hex_text(put: Any, text: bytes, said: str, messages: int) -> None:
    code, out, err = run(put(text))
    assert (code, out.count("->"), err.count("\n")) == (1, messages, 1)
    assert err.startswith(f"ggml-rpc-ref: {said}")


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (HELLO, "raw"),
        (b"", "raw"),
        (b"0e 00", "hex"),
        (b"ggml-rpc recording 1\n{", "recording"),
        (b"\xd4\xc3\xb2\xa1", "pcap"),
        (b"\x0a\x0d\x0d\x0a\x1c\0\0\0\x4d\x3c\x2b\x1a", "pcap"),
        (b"\x0a\x0d\x0d\x0a\0\0\0\0\0", "raw"),
    ],
)
def test_kinds_by_first_bytes(start: bytes, kind: str) -> None:
    assert kind_of(start) == kind


FAULTS = {
    "unknown-command": (
        HELLO + b"\xc8",
        "offset 9 (0x9): command is 200: protocol 3.6.1 defines none of this number "
        "[frame.command-known: A server refuses a command byte that its version does not define]",
    ),
    "hello-twice": (HELLO + HELLO, "offset 9 (0x9): command is 14: HELLO is said once, as the first command [session.hello-once: "),
    "fixed-size": (
        b"\x01\x05" + bytes(7) + bytes(5),
        "offset 1 (0x1): size is 5: this record has 4 bytes [frame.size-fixed: ",
    ),
    "other-version": (b"\x0e\x18" + bytes(7) + bytes(24), "size is 24: this record has 0 bytes; it fits protocol 4.0.0, 4.0.1"),
    "minimum-size": (b"\x06\x08" + bytes(7) + bytes(8), "size is 8: its fixed part has 304 bytes [frame.size-minimum: "),
    "cut-command": (HELLO[:4], "offset 1 (0x1): size is cut off: the bytes end after 3 of its 8 [frame.complete: "),
    "cut-field": (ALLOC[:-1], "offset 13 (0xd): size is cut off: the bytes end after 7 of its 8 [frame.complete: "),
    "node-count": (
        b"\x0a\x14" + bytes(7) + bytes(4) + b"\xff\xff\xff\xff" + bytes(12),
        "offset 13 (0xd): number of nodes is 4294967295: the message has 20 bytes [graph.size-exact: ",
    ),
    "tensor-count": (
        b"\x0a\x0c" + bytes(7) + bytes(8) + b"\x01\0\0\0",
        "offset 17 (0x11): number of tensors is 1: message of 12 bytes; the counts fill 308 [graph.size-exact: ",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_name_offset_field_and_rule(put: Any, name: str) -> None:
    data, said = FAULTS[name]
    code, out, err = run(put(data))
    assert code == 1
    assert said in err
    assert err.startswith("ggml-rpc-ref: offset ")
    assert err.count("\n") == 1
    assert "!! " in out


def test_what_came_before_a_fault_is_printed(put: Any) -> None:
    _, out, _ = run(put(HELLO + DEVICE_COUNT + ALLOC[:15]))
    assert "HELLO" in out
    assert "DEVICE_COUNT" in out
    assert out.splitlines()[-2:] == [
        "  0000001b  01 00 00 00                device            1                         index below DEVICE_COUNT",
        "  !! size is cut off: the bytes end after 2 of its 8 [frame.complete]",
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_an_empty_input(put: Any, as_json: bool) -> None:
    code, _, err = run(put(b""), Options(as_json=as_json))
    said = "offset 0 (0x0): input is empty [input.bytes: There is at least one byte to decode]"
    assert (code, err) == (1, f"ggml-rpc-ref: {said}\n")


def test_replies_alone_are_told_by_their_size(put: Any) -> None:
    document = as_json(put(HELLO_REPLY + ALLOC_REPLY + bytes(8)), role=Role.SERVER)
    assert [message["name"] for message in document["messages"]] == [
        "HELLO reply, by its size",
        "ALLOC_BUFFER or GET_DEVICE_MEMORY reply, by its size",
        "FREE_BUFFER or BUFFER_CLEAR or INIT_TENSOR reply, without payload",
    ]
    assert [field["value"] for field in document["messages"][0]["fields"]] == [3, 3, 6, 1]


@pytest.mark.parametrize(
    ("version", "name", "shown"),
    [(V1_0_0, "GET_TENSOR reply, by its size", "data"), (V8_0_0, "GET_TENSOR or GET_TENSOR_2D reply, by its size", "payload")],
    ids=str,
)
def test_data_alone_are_shown_by_every_reply_that_may_carry_them(put: Any, version: Version, name: str, shown: str) -> None:
    (message,) = as_json(put(b"\x05" + bytes(7) + b"hello"), role=Role.SERVER, version=version)["messages"]
    assert (message["name"], message["fault"]) == (name, None)
    assert [(field["name"], field["value"]) for field in message["fields"]] == [("size", 5), (shown, b"hello".hex())]


def test_versions_have_their_own_layouts(put: Any) -> None:
    document = as_json(put(b"\x10\x0c" + bytes(7) + b"\x01\0\0\0\x07" + bytes(7)), version=V8_0_0)
    assert [field["value"] for field in document["messages"][0]["fields"][2:]] == [1, 7]


def test_names_from_a_peer_reach_no_terminal_raw(put: Any) -> None:
    record = bytearray(296)
    record[0] = 1
    record[228:240] = b'\x1b[2J"\\\xff\x07abc'
    _, out, _ = run(put(b"\x0c\x28\x01" + bytes(6) + bytes(record)))
    assert '"\\x1b[2J\\x22\\x5c\\xff\\x07abc"' in out
    assert out.replace("\n", "").isprintable()


# ------------------------------------------------------------------------------------------------------ genuine frames


@pytest.mark.parametrize("index", range(len(GENUINE)))
def test_genuine_requests_have_the_recorded_values(put: Any, index: int) -> None:
    document = as_json(put(requests_of(GENUINE[index])), full=True)
    assert len(document["messages"]) == len(GENUINE[index])
    for message, frame in zip(document["messages"], GENUINE[index], strict=True):
        assert message["name"] == frame["command"]
        assert values_of(message["fields"][2:]) == expected(frame["fields"])


def values_of(fields: list[dict[str, Any]]) -> dict[str, Any]:
    """Nested values; the counts of arrays, which the recorded fields lack, left out."""
    found: dict[str, Any] = {}
    for field in fields:
        if field["name"].startswith("number of"):
            continue
        inner = field.get("fields")
        if inner is None:
            found[field["name"]] = field["value"]
        elif inner[0]["name"].endswith("[0]"):
            found[field["name"]] = [values_of(entry["fields"]) for entry in inner]
        else:
            found[field["name"]] = values_of(inner)
    return found


def expected(fields: dict[str, Any]) -> dict[str, Any]:
    """The recorded fields; of data only the first 64 bytes, as in the output."""
    return {name: value[:128] if name == "data" and isinstance(value, str) else value for name, value in fields.items()}


def test_the_genuine_fields_lie_where_they_are_said_to(put: Any) -> None:
    """Every leaf's bytes, cut from the input by its offset and size, are its value; and leaves fill each message without gaps."""
    data = requests_of(GENUINE[5])
    for message in as_json(put(data), full=True)["messages"]:
        at = message["offset"]
        for leaf in leaves(message["fields"]):
            assert leaf["offset"] == at
            at += leaf["size"]
            if isinstance(leaf["value"], int):
                raw = data[leaf["offset"] : at]
                assert leaf["value"] in (int.from_bytes(raw, "little"), int.from_bytes(raw, "little", signed=True))
        assert at == message["payload_offset"] + message["payload_size"]


def leaves(fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [leaf for field in fields for leaf in (leaves(field["fields"]) if "fields" in field else [field])]


def test_the_short_form_has_the_same_values(put: Any) -> None:
    path = put(requests_of(GENUINE[5]))
    short, full = (
        next(message for message in as_json(path, full=full)["messages"] if message["name"] == "GRAPH_COMPUTE")
        for full in (False, True)
    )
    tensors = short["fields"][-1]["fields"]
    assert len(tensors) == 25
    assert [tensor["value"] for tensor in tensors] == values_of(full["fields"])["tensors"]
    assert [tensor["offset"] for tensor in tensors] == [tensor["offset"] for tensor in full["fields"][-1]["fields"]]


def test_a_graph_as_text(put: Any) -> None:
    code, out, _ = run(put(requests_of(GENUINE[5])), Options(graph="text"))
    lines = out.splitlines()
    assert (code, lines[0]) == (0, "graph 0, connection 0, offset 21378: device 1, 13 nodes, 25 tensors")
    assert lines[1] == '     0  %2 = MUL_MAT(%0, %1, prec=0)  F32 [5, 3]  "product"  COMPUTE'
    assert lines[3] == '     2  %4 = VIEW(%3, offset=124)  F32 [5, 3]  "window"  view of %3 + 124  COMPUTE'
    assert '  %6 = RMS_NORM(%5, eps=1e-06)  F32 [5, 3]  "norm"  COMPUTE' in out
    assert lines[14] == "  not computed:"
    assert lines[15] == '        %0 = NONE()  Q8_0 [96, 5]  "blk.7.ffn_down.weight"'
    assert len(lines) == 1 + 13 + 1 + 12


DOT_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[A-Za-z_]\w*|-?\d+(?:\.\d+)?|->|[][{}=;,])')
"""One token of Graphviz's language; what comes between is white space."""


def statements(dot: str) -> list[tuple[str, str, dict[str, str]]]:
    """Read the part of Graphviz's language that has digraphs, subgraphs, nodes, edges and attributes.

    Returns:
        Start, end ("" for a node), attributes of each node and edge.
    """
    found: list[tuple[str, str, dict[str, str]]] = []
    tokens, at = [], 0
    while dot[at:].strip():
        token = DOT_TOKEN.match(dot, at)
        assert token, f"no token at {dot[at : at + 40]!r}"
        tokens.append(token[1])
        at = token.end()
    tokens.reverse()

    def take(*wanted: str) -> str:
        token = tokens.pop()
        assert not wanted or token in wanted, (token, wanted, tokens[-5:])
        return token

    def attributes() -> dict[str, str]:
        row: dict[str, str] = {}
        while tokens[-1] == "[":
            take("[")
            while tokens[-1] != "]":
                name, _, row[name] = take(), take("="), take()
                if tokens[-1] in ",;":
                    take()
            take("]")
        return row

    def block() -> None:
        take("{")
        while tokens[-1] != "}":
            name = take()
            if name == "subgraph":
                take()
                block()
            elif tokens[-1] == "=":
                take("=")
                take()
            else:
                end = (take("->"), take())[1] if tokens[-1] == "->" else ""
                found.append((name, end, attributes()))
            if tokens[-1] == ";":
                take(";")
        take("}")

    take("digraph")
    take()
    block()
    assert not tokens
    return found


def test_a_graph_as_dot(put: Any) -> None:
    code, out, _ = run(put(requests_of(GENUINE[5])), Options(graph="dot"))
    rows = statements(out)
    nodes = {start: row for start, end, row in rows if not end and start not in ("node", "edge")}
    edges = {(start, end): row for start, end, row in rows if end}
    assert code == 0
    assert nodes["g0_2"] == {"label": r'"%2 MUL_MAT\nF32 [5, 3]\nproduct"'}
    assert edges["g0_2", "g0_5"] == {"label": '"0"'}
    assert edges["g0_3", "g0_4"] == {"label": '"0, +124"', "style": "dashed"}
    leaf = next(start for start, end in edges if end == "g0_2" and edges[start, end] == {"label": '"0"'})
    assert nodes[leaf] == {"label": r'"%0\nQ8_0 [96, 5]\nblk.7.ffn_down.weight"', "style": "rounded"}
    assert {end for pair in edges for end in pair} <= set(nodes)
    assert sum("style" not in row for row in nodes.values()) == 13
    assert nodes["g0_3"]["label"].endswith(r'\ngr\\xc3\\xb6\\xc3\\x9fer als ASCII"')  # a backslash is written twice there


def test_a_graph_with_ids_that_lead_nowhere(put: Any) -> None:
    record = bytearray(296)
    record[0], record[52], record[124] = 9, 2, 7  # id 9, op ADD, src[0] = 7
    payload = bytes(4) + b"\x02\0\0\0" + b"\x05" + bytes(7) + b"\x09" + bytes(7) + b"\x01\0\0\0" + record
    path = put(b"\x0a" + struct.pack("<Q", len(payload)) + payload)
    _, out, _ = run(path, Options(graph="text"))
    assert "   0  missing 0x5\n" in out
    assert "%0 = ADD(missing 0x7)" in out
    _, out, _ = run(path, Options(graph="dot"))
    rows = statements(out)
    assert ('"g0_missing 0x5"', "", {"label": '"missing 0x5"'}) in rows
    assert ('"g0_0 0x7"', "", {"label": '"missing 0x7"'}) in rows
    assert ('"g0_0 0x7"', "g0_0", {"label": '"0"'}) in rows


# --------------------------------------------------------------------------------------------- truncated and corrupted


def test_genuine_bytes_cut_off_anywhere_small(put: Any) -> None:
    """After each byte: whole messages are there, and a fault names the offset where the bytes run out."""
    data = requests_of(GENUINE[2]) + ALLOC
    ends = [len(requests_of(GENUINE[2][:count])) for count in range(1, len(GENUINE[2]) + 1)]
    for size in range(1, len(data)):
        document = as_json(put(data[:size]))
        whole = sum(end <= size for end in ends)
        assert len(document["messages"]) == whole + (size not in ends), size
        if size not in ends:
            (fault,) = document["faults"]
            assert fault["rule"] == "frame.complete"
            assert fault["offset"] <= size
            assert fault["sentence"]


def test_genuine_bytes_cut_off_in_a_graph(put: Any) -> None:
    (frame,) = (frame for frame in GENUINE[5] if frame["command"] == "GRAPH_COMPUTE")
    data = requests_of([frame])
    for size in [*range(1, 420), *range(420, len(data), 37)]:
        for full in (False, True):
            (message,) = as_json(put(data[:size]), full=full)["messages"]
            assert message["fault"]["rule"] == "frame.complete"
            assert size - 296 < message["fault"]["offset"] <= size


@given(data=st.binary(max_size=400), first=st.integers(0, 23), role=st.sampled_from(Role), full=st.booleans())
def test_garbage_is_no_reason_to_fail(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, first: int, role: Role, full: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage"
    for content in (data, bytes([first]) + struct.pack("<Q", len(data)) + data, RECORDING_START + data, b"\x01 1" + data):
        path.write_bytes(content)
        # the bytes by which other files begin are named, unless the kind is given: tests/test_captures.py
        kind: Kind | None = "raw" if content.startswith(tuple(OTHER_FILES)) else None
        document = as_json(path, role=role, full=full, kind=kind)
        code, _, err = run(path, Options(role=role, full=full, kind=kind))
        assert code == (1 if document["faults"] else 0)
        assert err.count("\n") == code


@given(st.integers(0, 31_000), st.integers(1, 255))
def test_one_wrong_byte_in_genuine_requests(tmp_path_factory: pytest.TempPathFactory, at: int, flip: int) -> None:
    data = bytearray(requests_of(GENUINE[5]))
    data[at] ^= flip
    path = tmp_path_factory.getbasetemp() / "flipped"
    path.write_bytes(data)
    for wanted in (Options(), Options(graph="text"), Options(graph="dot")):
        code, out, err = run(path, wanted)
        assert err.count("\n") == code
        if wanted.graph == "dot":
            statements(out)


# ---------------------------------------------------------------------------------------------------------- recordings


def test_a_recording_is_told_in_order(put: Any) -> None:
    chunks = [
        chunk(0, HELLO[:3], time_ns=1_500_000_000),
        chunk(0, HELLO, connection=2),
        chunk(0, HELLO[3:] + DEVICE_COUNT),
        chunk(1, HELLO_REPLY + COUNT_REPLY[:5]),
        chunk(1, COUNT_REPLY[5:]),
        chunk(0, b""),
    ]
    code, out, err = run(put(RECORDING_START + b"".join(chunks)))
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if not line.startswith("  ")] == [
        "connection 1  client -> server  HELLO  offset 0, payload 0 bytes  at 1.500000 s",
        "connection 2  client -> server  HELLO  offset 0, payload 0 bytes  at 0.000000 s",
        "connection 1  client -> server  DEVICE_COUNT  offset 9, payload 0 bytes  at 0.000000 s",
        "connection 1  server -> client  HELLO reply  offset 0, payload 3 bytes  at 0.000000 s",
        "connection 1  server -> client  DEVICE_COUNT reply  offset 11, payload 4 bytes  at 0.000000 s",
    ]


def test_a_message_has_the_time_of_its_first_byte(put: Any) -> None:
    chunks = [
        chunk(0, HELLO, time_ns=1),
        chunk(1, HELLO_REPLY, time_ns=2),
        chunk(0, DEVICE_COUNT[:1], time_ns=3),
        chunk(0, DEVICE_COUNT[1:], time_ns=4),
        chunk(1, COUNT_REPLY, time_ns=5),
    ]
    messages = as_json(put(RECORDING_START + b"".join(chunks)))["messages"]
    assert [(message["name"], message["time_ns"]) for message in messages] == [
        ("HELLO", 1),
        ("HELLO reply", 2),
        ("DEVICE_COUNT", 3),
        ("DEVICE_COUNT reply", 5),
    ]


@pytest.mark.parametrize("index", range(len(GENUINE)))
def test_genuine_replies_have_the_recorded_values(put: Any, index: int) -> None:
    """With the requests beside them, replies are what they are."""
    chunks = chunk(0, requests_of(GENUINE[index])) + chunk(1, replies_of(GENUINE[index]))
    document = as_json(put(RECORDING_START + chunks))
    replies = [message for message in document["messages"] if message["sender"] == "server"]
    answered = [frame for frame in GENUINE[index] if frame["reply"]]
    assert [message["name"] for message in replies] == [f"{frame['command']} reply" for frame in answered]
    for message, frame in zip(replies, answered, strict=True):
        assert values_of(message["fields"][1:]) == expected(frame["reply"]["fields"])


def test_a_recording_names_the_server_s_version(put: Any) -> None:
    hello, reply = b"\x0e\x18" + bytes(31), b"\x1c" + bytes(7) + b"\x08\0\0\0" + bytes(24)
    document = as_json(put(RECORDING_START + chunk(0, hello) + chunk(1, reply)))
    assert [message["payload_size"] for message in document["messages"]] == [24, 28]


SET_TENSOR = b"\x06" + struct.pack("<Q", 304 + 1000) + b"\x01" + bytes(303)


def test_data_left_out_of_a_recording(put: Any) -> None:
    chunks = [chunk(0, HELLO + SET_TENSOR), chunk(2, struct.pack("<QQ", 1000, 0xAB)), chunk(0, DEVICE_COUNT)]
    document = as_json(put(RECORDING_START + b"".join(chunks)))
    assert [message["name"] for message in document["messages"]] == ["HELLO", "SET_TENSOR", "DEVICE_COUNT"]
    assert document["messages"][1]["fields"][-1] == {
        "name": "data",
        "offset": 9 + 9 + 304,
        "size": 1000,
        "word": "left out; FNV-1a 64 0x00000000000000ab",
    }


@pytest.mark.parametrize(
    ("chunks", "said"),
    [
        ([chunk(0, DEVICE_COUNT)], "connection 1, client's bytes, offset 0 (0x0): command is 15: the first command is HELLO"),
        (
            [chunk(1, HELLO_REPLY)],
            "connection 1, server's bytes, offset 0 (0x0): reply is there: no request awaits one [frame.reply-",
        ),
        (
            [chunk(0, HELLO), chunk(1, COUNT_REPLY)],
            "server's bytes, offset 0 (0x0): size is 4: this record has 3 bytes [frame.size-",
        ),
        (
            [chunk(0, HELLO + SET_TENSOR), chunk(2, struct.pack("<QQ", 999, 0)), chunk(0, b"")],
            "offset 1321 (0x529): data is cut off: the bytes end after 999 of its 1000 [frame.complete",
        ),
        (
            [chunk(0, HELLO + ALLOC), chunk(0, HELLO)[:-1]],
            "offset 190 (0xbe): chunk breaks off: 9 bytes, of which 8 are there [recording.chunk-whole: ",
        ),
        (
            [chunk(0, HELLO + ALLOC[:-2]), b"\0\0"],
            "offset 22 (0x16): size is cut off: the bytes end after 6 of its 8; the file's chunk at offset 188 breaks off: 2 of "
            "the 21 bytes that begin it [recording.chunk-head: ",
        ),
        (
            [chunk(0, HELLO), b"\0" * 8 + b"\x09" + bytes(12)],
            "offset 177 (0xb1): direction is 9; 0 to 3 are possible [recording.direction: ",
        ),
    ],
    ids=["no-hello", "reply-to-nothing", "wrong-reply", "left-out-short", "cut-chunk", "cut-message", "bad-direction"],
)
def test_recordings_with_faults(put: Any, chunks: list[bytes], said: str) -> None:
    code, out, err = run(put(RECORDING_START + b"".join(chunks)))
    assert code == 1
    assert said in err
    assert err.count("\n") == 1
    assert out.startswith("connection 1  ")


@pytest.mark.parametrize("data", [HELLO + ALLOC[:-1], HELLO + b"\xc8"], ids=["cut-off", "unknown-command"])
def test_replies_behind_a_fault_of_the_client_s_are_no_fault(put: Any, data: bytes) -> None:
    """Which requests they answer is not known any more; their sizes tell what they may be."""
    document = as_json(put(RECORDING_START + chunk(0, data) + chunk(1, HELLO_REPLY + ALLOC_REPLY + COUNT_REPLY)))
    assert [message["name"] for message in document["messages"] if message["sender"] == "server"] == [
        "HELLO reply",
        "ALLOC_BUFFER or GET_DEVICE_MEMORY reply, by its size",
        "DEVICE_COUNT reply, by its size",
    ]
    assert [fault["where"] for fault in document["faults"]] == ["connection 1, client's bytes"]


def test_a_reply_of_other_length_than_asked_for(put: Any) -> None:
    get = b"\x08" + struct.pack("<Q", 312) + b"\x01" + bytes(303) + struct.pack("<Q", 5)
    data = chunk(0, HELLO + get) + chunk(1, HELLO_REPLY + b"\x04" + bytes(7) + b"abcd")
    _, _, err = run(put(RECORDING_START + data))
    assert "offset 11 (0xb): size is 4: 5 bytes were asked for [frame.reply-presence" in err


def test_a_recording_cut_off_anywhere(put: Any) -> None:
    whole = RECORDING_START + chunk(0, HELLO + ALLOC) + chunk(1, HELLO_REPLY + ALLOC_REPLY)
    for size in range(22, len(whole)):
        code, _, err = run(put(whole[:size]))
        boundary = size in (len(RECORDING_START), len(RECORDING_START) + 21 + len(HELLO + ALLOC))
        assert (code, err.count("\n")) == ((0, 0) if boundary else (1, 1)), size


# ------------------------------------------------------------------------------------------------------------ captures

CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 50052)


def segment(sender: tuple[str, int], seq: int, data: bytes = b"", flags: str = "PA") -> Any:
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw

    to = SERVER if sender == CLIENT else CLIENT
    head = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src=sender[0], dst=to[0])
    packet = head / TCP(sport=sender[1], dport=to[1], seq=seq % 2**32, flags=flags)
    return packet / Raw(data) if data else packet


def capture(path: Path, packets: list[Any]) -> Path:
    from scapy.utils import wrpcap

    for number, packet in enumerate(packets):
        packet.time = 1_000 + number
    wrpcap(str(path), packets)
    return path


SYNS = ((CLIENT, 99, b"", "S"), (SERVER, 499, b"", "SA"))
SAID = HELLO + DEVICE_COUNT + ALLOC


def names(path: Path, **wanted: Any) -> list[str]:
    return [message["name"] for message in as_json(path, **wanted)["messages"]]


CONVERSATIONS = {
    "plain": [(CLIENT, 100, SAID), (SERVER, 500, HELLO_REPLY + COUNT_REPLY + ALLOC_REPLY)],
    "sent-again": [
        (CLIENT, 100, SAID[:9]),
        (SERVER, 500, HELLO_REPLY),
        (CLIENT, 100, b"?" * 9),
        (CLIENT, 104, b"?" * 5 + SAID[9:]),
        (SERVER, 511, COUNT_REPLY + ALLOC_REPLY),
    ],
    "out-of-order": [
        (CLIENT, 120, SAID[20:]),
        (CLIENT, 110, SAID[10:20]),
        (CLIENT, 100, SAID[:10]),
        (SERVER, 500, HELLO_REPLY + COUNT_REPLY + ALLOC_REPLY),
    ],
    "keep-alive": [
        (CLIENT, 100, SAID),
        (CLIENT, 99 + len(SAID), b"\0"),
        (SERVER, 500, HELLO_REPLY + COUNT_REPLY + ALLOC_REPLY),
    ],
}


@pytest.mark.parametrize("shift", [0, 2**32 - 110], ids=["", "wraps"])
@pytest.mark.parametrize(
    ("name", "syns"),
    # without SYN nobody knows where bytes that come out of order begin
    [(name, syns) for name in CONVERSATIONS for syns in (True, False) if syns or name != "out-of-order"],
    ids=lambda value: value if isinstance(value, str) else "from-syn" if value else "without-syn",
)
def test_captures(tmp_path: Path, name: str, shift: int, syns: bool) -> None:
    rows = [*SYNS, *CONVERSATIONS[name]] if syns else CONVERSATIONS[name]
    path = capture(tmp_path / "x.pcap", [segment(sender, seq + shift, *rest) for sender, seq, *rest in rows])
    assert sorted(names(path)) == sorted(
        ["HELLO", "DEVICE_COUNT", "ALLOC_BUFFER", "HELLO reply", "DEVICE_COUNT reply", "ALLOC_BUFFER reply"]
    )


def test_padding_of_short_frames_is_no_data(tmp_path: Path) -> None:
    """An empty segment fills 54 bytes of an Ethernet frame of 60."""
    from scapy.layers.l2 import Ether

    rows = [*SYNS, (CLIENT, 100, b"", "A"), (CLIENT, 100, HELLO)]
    packets = [Ether(bytes(segment(*row)).ljust(60, b"\xaa")) for row in rows]
    assert names(capture(tmp_path / "x.pcap", packets)) == ["HELLO"]


@pytest.mark.parametrize("link", ["Ether", "CookedLinux", "Loopback"])
@pytest.mark.parametrize("form", ["wrpcap", "wrpcapng"])
@pytest.mark.parametrize("ip", ["IP", "IPv6"])
def test_forms_of_captures(tmp_path: Path, link: str, form: str, ip: str) -> None:
    from scapy import utils
    from scapy.layers import inet, inet6, l2
    from scapy.packet import Raw

    net = inet.IP(src="10.0.0.1", dst="10.0.0.2") if ip == "IP" else inet6.IPv6(src="::1", dst="::2")
    kinds = {"Ether": l2.Ether, "CookedLinux": l2.CookedLinux, "Loopback": l2.Loopback}
    head = kinds[link](**({"type": 30} if (link, ip) == ("Loopback", "IPv6") else {}))
    path = tmp_path / "x"
    getattr(utils, form)(str(path), [head / net / inet.TCP(sport=9, dport=50052, seq=7, flags="PA") / Raw(HELLO)])
    assert kind_of(path.read_bytes()) == "pcap"
    assert names(path) == ["HELLO"]
    path.write_bytes(path.read_bytes()[:-3])
    code, _, err = run(path)
    assert code == 1
    assert "breaks off" in err


def test_packets_that_were_captured_in_part(tmp_path: Path) -> None:
    from scapy.layers.l2 import Ether

    whole = [segment(*row) for row in [*SYNS, (CLIENT, 100, SAID), (CLIENT, 100 + len(SAID), DEVICE_COUNT)]]
    packets = [*whole[:2], Ether(bytes(whole[2])[: 54 + 13]), whole[3]]
    code, out, err = run(capture(tmp_path / "x.pcap", packets))
    assert (code, out.count("->")) == (1, 3)
    assert f"the capture lacks the next {len(SAID) - 13} bytes of the TCP stream" in err
    assert "more)" not in err


def test_a_capture_with_a_lost_packet(tmp_path: Path) -> None:
    rows = [*SYNS, (CLIENT, 100, SAID[:20]), (CLIENT, 130, SAID[30:])]
    path = capture(tmp_path / "x.pcap", [segment(*row) for row in rows])
    code, out, err = run(path)
    assert code == 1
    assert "DEVICE_COUNT" in out
    assert "size is cut off: the bytes end after 1 of its 8; the capture lacks the next 10 bytes of the TCP stream" in err


def test_other_connections_of_a_capture_are_left_out(tmp_path: Path) -> None:
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw

    web = Ether() / IP(src="10.0.0.1", dst="10.0.0.9") / TCP(sport=40001, dport=80, seq=1) / Raw(b"GET / HTTP/1.1\r\n\r\n")
    path = capture(tmp_path / "x.pcap", [web, *(segment(*row) for row in [*SYNS, (CLIENT, 100, HELLO)])])
    code, out, err = run(path)
    assert (code, out.count("->")) == (0, 1)
    assert err.startswith("ggml-rpc-ref: 1 of 2 TCP connections are not beginning with HELLO")
    code, out, err = run(path, Options(port=80))
    assert (code, "!! command is 71" in out) == (1, True)


@pytest.mark.parametrize("syns", [True, False], ids=["from-syn", "without-syn"])
def test_hello_comes_first_where_the_capture_has_the_beginning(tmp_path: Path, syns: bool) -> None:
    rows = [*(SYNS if syns else ()), (CLIENT, 100, DEVICE_COUNT)]
    code, _, err = run(capture(tmp_path / "x.pcap", [segment(*row) for row in rows]), Options(port=50052))
    assert (code, "[session.hello-first: " in err) == ((1, True) if syns else (0, False))


def test_two_connections_between_the_same_ends(tmp_path: Path) -> None:
    rows = [*SYNS, (CLIENT, 100, HELLO), (CLIENT, 999, b"", "S"), (CLIENT, 1000, HELLO + DEVICE_COUNT)]
    path = capture(tmp_path / "x.pcap", [segment(*row) for row in rows])
    found = [(message["connection"], message["name"]) for message in as_json(path)["messages"]]
    assert found == [(1, "HELLO"), (2, "HELLO"), (2, "DEVICE_COUNT")]


def test_a_capture_cut_off_anywhere(tmp_path: Path) -> None:
    path = capture(tmp_path / "x.pcap", [segment(*row) for row in [*SYNS, (CLIENT, 100, HELLO), (SERVER, 500, HELLO_REPLY)]])
    whole = path.read_bytes()
    for size in [*range(4, 60, 5), *range(60, len(whole), 13)]:
        path.write_bytes(whole[:size])
        code, _, err = run(path)
        assert (code, err.count("\n")) == (1, 1), size


def test_captures_without_scapy_say_how_to_get_it(put: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "scapy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "scapy", None)
    with pytest.raises(Misuse, match=r"pip install 'ggml-rpc-ref\[pcap\]'"):
        decode.decode_file(put(b"\xd4\xc3\xb2\xa1" + bytes(20)), Options())


# -------------------------------------------------------------------------------------------------------- command line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"kind": "elf"}, "--as elf: it is one of raw, hex, recording, pcap"),
        ({"role": "peer"}, "--role peer: it is client or server"),
        ({"proto": "3.6"}, "--proto: '3.6' is not a version like 3.6.1"),
        ({"proto": "9.9.9"}, "--proto 9.9.9: known are 1.0.0, "),
        ({"graph": "svg"}, "--graph svg: it is text or dot"),
        ({"graph": "dot", "as_json": True}, "--graph and --json: choose one"),
    ],
)
def test_words_that_are_none(words: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"kind": "", "role": "client", "proto": "", "port": None, "graph": "", "full": False, "as_json": False}
    with pytest.raises(Misuse) as raised:
        options(**{**given, **words})
    assert str(raised.value).startswith(said)


def test_words_that_are_understood() -> None:
    assert options("hex", "server", "8.0.0", 7, "dot", full=True, as_json=False) == Options(
        "hex", Role.SERVER, Version(8, 0, 0), 7, True, "dot", False
    )


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="No such file"):
        command.run(str(tmp_path / "none"), Options())


def test_the_command_reads_standard_input() -> None:
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, ["decode", "-", "--json"], input=HELLO)
    assert (result.exit_code, json.loads(result.stdout)["messages"][0]["name"]) == (0, "HELLO")
    assert CliRunner().invoke(app, ["decode", "-"], input=HELLO[:3]).exit_code == 1


@pytest.mark.parametrize("no_colour", [False, True])
def test_colours_on_a_terminal_unless_unwanted(put: Any, monkeypatch: pytest.MonkeyPatch, no_colour: bool) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    if no_colour:
        monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    with contextlib.redirect_stdout(out):
        assert command.run(str(put(HELLO)), Options()) == 0
    assert ("\x1b[" in out.getvalue()) is not no_colour
    assert "HELLO" in out.getvalue()
