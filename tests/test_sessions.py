"""Recordings made session vectors: conversations from their bytes, expected steps written by hand, and the bytes given back."""

from __future__ import annotations

import json
import re
import struct
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import jsonschema
import numpy as np
import numpy.typing as npt
import pytest

import ggml_rpc_ref
from ggml_rpc_ref import golden as vectors
from ggml_rpc_ref import upstream
from ggml_rpc_ref.conformance import Given, Options, run
from ggml_rpc_ref.errors import Damaged, Misuse
from ggml_rpc_ref.files import conversation as script
from ggml_rpc_ref.files.recording import Recorder, read
from ggml_rpc_ref.golden import play
from ggml_rpc_ref.golden.known_bytes import MOST_STRETCHES, Known, Ranges
from ggml_rpc_ref.golden.omitted import Files
from ggml_rpc_ref.golden.session import Labels, faults, make
from ggml_rpc_ref.net.stream import parse_endpoint
from ggml_rpc_ref.protocol.fnv import definition
from ggml_rpc_ref.proxy.proxy import Proxy
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.server import Server
from ggml_rpc_ref.spec.versions import PROFILES, Version
from tests.support.command import run_command
from tests.support.seeds import seeded
from vectors.tools import record_sessions

HERE = Path(__file__).parent.parent / "vectors"
SCHEMA = json.loads((HERE / "schema" / "sessions.json").read_text())
RECORDINGS = sorted(HERE.glob("upstream-*/sessions/*.recording"))
VERSIONS = sorted({path.parents[1].name.split("-")[1] for path in RECORDINGS})
assert len(RECORDINGS) == 14 + 7 * len(VERSIONS[1:])
STARTED = "2026-11-22T05:00:00.000+00:00"
HEADER = {"schema_version": 1, "protocol": "3.6.1", "endpoint": "a:1", "started": STARTED, "tool": "t"}
START = b"ggml-rpc recording 1\n" + json.dumps(HEADER).encode() + b"\n"
UP, DOWN = 0, 1
LEFT_OUT = 2

# ------------------------------------------------------------------------------------------- conversations from their bytes

HELLO, HELLO_REPLY = "0e0000000000000000", "0300000000000000030601"
HANDLE, BASE, ID = 0x5500000000000010, 0x7F00000000001000, 0x7FFF00000000ABC0
F32, F16, I32, Q8_0 = 0, 1, 26, 8


class Talk:
    """A recording that is being written, chunk by chunk, by the format's own description."""

    def __init__(self) -> None:
        self.chunks: list[tuple[int, int, bytes]] = []

    def up(self, data: bytes, connection: int = 1) -> Talk:
        self.chunks.append((UP, connection, data))
        return self

    def down(self, data: bytes, connection: int = 1) -> Talk:
        self.chunks.append((DOWN, connection, data))
        return self

    def left_out(self, direction: int, size: int, fnv1a: int, connection: int = 1) -> Talk:
        self.chunks.append((direction | LEFT_OUT, connection, struct.pack("<QQ", size, fnv1a)))
        return self

    def ends(self, *directions: int, connection: int = 1) -> Talk:
        self.chunks += [(direction, connection, b"") for direction in directions]
        return self

    def hello(self, connection: int = 1) -> Talk:
        return self.up(bytes.fromhex(HELLO), connection).down(bytes.fromhex(HELLO_REPLY), connection)

    def buffer(self, handle: int = HANDLE, base: int = BASE, size: int = 4096, connection: int = 1, granted: int = 4096) -> Talk:
        self.ask(0, struct.pack("<IQ", 0, size), struct.pack("<QQ", handle, granted), connection)
        return self.ask(3, struct.pack("<Q", handle), struct.pack("<Q", base), connection)

    def ask(self, command: int, payload: bytes, reply: bytes | None = b"", connection: int = 1) -> Talk:
        self.up(request(command, payload), connection)
        return self if reply is None else self.down(answer(reply), connection)

    def set(self, record: bytes, data: bytes, offset: int = 0) -> Talk:
        return self.up(request(6, record + struct.pack("<Q", offset) + data))

    def get(self, record: bytes, data: bytes, offset: int = 0) -> Talk:
        return self.ask(8, record + struct.pack("<QQ", offset, len(data)), data)

    def compute(self, nodes: list[int], *records: bytes) -> Talk:
        counts = struct.pack(f"<II{len(nodes)}QI", 0, len(nodes), *nodes, len(records))
        return self.ask(10, counts + b"".join(records), None)

    @property
    def bytes(self) -> bytes:
        rows = enumerate(self.chunks)
        return START + b"".join(struct.pack("<QBIQ", at, way, number, len(data)) + data for at, (way, number, data) in rows)

    def write(self, directory: Path, name: str = "talk.recording") -> Path:
        path = directory / name
        path.write_bytes(self.bytes)
        return path


def request(command: int, payload: bytes) -> bytes:
    return struct.pack("<BQ", command, len(payload)) + payload


def answer(payload: bytes) -> bytes:
    return struct.pack("<Q", len(payload)) + payload


def tensor(
    id: int = ID, type: int = F32, ne: tuple[int, ...] = (4,), at: int = 0, *, buffer: int = HANDLE, data: int | None = None,
    nb: tuple[int, ...] | None = None, op: int = 0, src: tuple[int, ...] = (), view_src: int = 0, flags: int = 16,
) -> bytes:  # fmt: skip
    """An rpc_tensor, laid out by hand."""
    ne = (*ne, 1, 1, 1)[:4]
    size = {F32: 4, F16: 2, I32: 4, Q8_0: 34}[type]
    row = ne[0] // 32 * 34 if type == Q8_0 else ne[0] * size
    strides = nb or (size, row, row * ne[1], row * ne[1] * ne[2])
    sources = (*src, *[0] * 10)[:10]
    place = (BASE + at) if data is None else data
    fields = (id, type, buffer, *ne, *strides, op, *[0] * 16, flags, *sources, view_src, 0, place, b"t", b"")
    return struct.pack("<QIQ4I4II16ii10QQQQ64s4s", *fields)


def steps(directory: Path, talk: Talk, **labels: Any) -> list[Any]:
    session = make(talk.write(directory), Labels(**labels))
    assert session.faults == ()
    jsonschema.Draft202012Validator(SCHEMA).validate(session.content)
    check_bytes(directory / "talk.recording", session.content)
    return [shown(step) for step in session.content["steps"]]


def shown(step: Any) -> tuple[Any, ...]:
    """A step on one line: connection, command, act, pieces."""
    act = next(key for key in ("send", "receive", "refused", "close") if key in step)
    return step["connection"], step.get("command", ""), act, step[act]


# ----------------------------------------------------------------------------------------------------- the bytes given back


def check_bytes(path: Path, content: Any) -> None:
    """Hold a session to its recording: with what was recorded in the names' places it is the same bytes, on all connections."""
    assert list(as_recorded(content).values()) == list(as_recorded_in(path).values())


def as_recorded(content: Any) -> dict[tuple[int, str], list[Any]]:
    written = script.from_json(content)
    values = {name: binding.value for name, binding in written.bindings.items() if binding.value is not None}
    sides: dict[tuple[int, str], list[Any]] = defaultdict(list)
    for step in written.steps:
        sides[step.connection, "up"] += []
        sides[step.connection, "down" if step.act == "receive" else "up"] += [
            p for piece in step.pieces for p in one(piece, values)
        ]
    return {key: joined(parts) for key, parts in sides.items() if joined(parts) != [b""]}


def one(piece: script.Piece, values: dict[str, int]) -> Iterator[Any]:
    match piece:
        case script.Anything(data) | script.Near(data):
            yield data
        case script.AtLeast(least, width, recorded):
            yield (least if recorded is None else recorded).to_bytes(width, "little")
        case script.Omitted(size, fnv1a):
            yield size, fnv1a
        case _:
            yield from map(bytes, script.expand([piece], values, {}))


def as_recorded_in(path: Path) -> dict[tuple[int, str], list[Any]]:
    sides: dict[tuple[int, str], list[Any]] = defaultdict(list)
    for chunk in read(path):
        sides[chunk.connection, "up"] += []
        part: Any = (chunk.left_out.size, chunk.left_out.fnv1a) if chunk.left_out else chunk.data
        if chunk.left_out and chunk.left_out.fnv1a == hash_of_zeros(chunk.left_out.size):
            part = bytes(chunk.left_out.size)
        sides[chunk.connection, "down" if chunk.direction else "up"].append(part)
    return {key: joined(parts) for key, parts in sides.items() if joined(parts) != [b""]}


def joined(parts: list[Any]) -> list[Any]:
    found: list[Any] = [b""]
    for part in parts:
        if isinstance(part, tuple):
            found += [part, b""]
        else:
            found[-1] += part
    return found


def hash_of_zeros(size: int) -> int:
    """FNV-1a 64 of `size` zero bytes: the definition's exclusive or changes nothing, so a power of its factor is left."""
    return 0xCBF29CE484222325 * pow(0x100000001B3, size, 2**64) % 2**64


def name_of(path: Path) -> str:
    """The name of a session where it is played, without "sessions/"."""
    version = path.parents[1].name.split("-")[1]
    return path.stem if version == "3.6.1" else f"{version}/{path.stem}"


@pytest.mark.parametrize("path", RECORDINGS, ids=name_of)
def test_every_recording_comes_back_byte_by_byte(path: Path) -> None:
    check_bytes(path, json.loads(path.with_suffix(".json").read_text()))


# ------------------------------------------------------------------------------------------------------------ by hand


def test_a_conversation_from_its_bytes(tmp_path: Path) -> None:
    record, data = tensor(at=64), struct.pack("<4f", 1, 2, 3, 4)
    talk = Talk().hello().ask(15, b"", struct.pack("<I", 3)).ask(11, bytes(4), struct.pack("<QQ", 5, 7)).buffer()
    talk.set(record, data).get(record, data[4:12], 4).ask(4, struct.pack("<Q", HANDLE)).ends(UP, DOWN)
    session = make(talk.write(tmp_path), Labels(id="by-hand", about="All by hand.", client="c", server="s", cpu="p", command="m"))
    ne, nb, op, flags = "04000000" + 3 * "01000000", "04000000" + 3 * "10000000", 68 * "00", "10000000"
    fields = ["${tensor0}", "00000000", "${buf0.remote_ptr}", ne + nb + op + flags + 96 * "00", "${buf0.base}+64"]
    last = (b"t" + bytes(67)).hex()
    assert session.content == {
        "schema_version": 1,
        "id": "by-hand",
        "protocol": "3.6.1",
        "about": "All by hand.",
        "flags": [],
        "provenance": {
            "client": "c", "server": "s", "cpu": "p", "recorded": STARTED, "command": "m",
            "recording": "by-hand.recording", "sha256": session.content["provenance"]["sha256"],
        },
        "bindings": {
            "buf0.remote_ptr": {"by": "server", "value": "0x5500000000000010"},
            "buf0.base": {"by": "server", "value": "0x7f00000000001000"},
            "tensor0": {"by": "client", "value": "0x7fff00000000abc0"},
        },
        "steps": [
            {"connection": 1, "command": "HELLO", "send": ["0e0000000000000000"]},
            {"connection": 1, "command": "HELLO", "receive": ["0300000000000000030601"]},
            {"connection": 1, "command": "DEVICE_COUNT", "send": ["0f0000000000000000"]},
            {"connection": 1, "command": "DEVICE_COUNT",
             "receive": ["0400000000000000", {"at_least": 1, "width": 4, "recorded": 3}]},
            {"connection": 1, "command": "GET_DEVICE_MEMORY", "send": ["0b040000000000000000000000"]},
            {"connection": 1, "command": "GET_DEVICE_MEMORY",
             "receive": ["1000000000000000", {"any": "05000000000000000700000000000000"}]},
            {"connection": 1, "command": "ALLOC_BUFFER", "send": ["000c00000000000000000000000010000000000000"]},
            {"connection": 1, "command": "ALLOC_BUFFER",
             "receive": ["1000000000000000", "${buf0.remote_ptr}", {"at_least": 4096, "width": 8}]},
            {"connection": 1, "command": "BUFFER_GET_BASE", "send": ["030800000000000000", "${buf0.remote_ptr}"]},
            {"connection": 1, "command": "BUFFER_GET_BASE", "receive": ["0800000000000000", "${buf0.base}"]},
            {"connection": 1, "command": "SET_TENSOR", "send": ["064001000000000000", *fields, last + "00" * 8 + data.hex()]},
            {"connection": 1, "command": "GET_TENSOR",
             "send": ["083801000000000000", *fields, last + "04000000000000000800000000000000"]},
            {"connection": 1, "command": "GET_TENSOR", "receive": ["0800000000000000" + "0000004000004040"]},
            {"connection": 1, "command": "FREE_BUFFER", "send": ["040800000000000000", "${buf0.remote_ptr}"]},
            {"connection": 1, "command": "FREE_BUFFER", "receive": ["0000000000000000"]},
            {"connection": 1, "close": "end"},
        ],
    }  # fmt: skip
    jsonschema.Draft202012Validator(SCHEMA).validate(session.content)
    check_bytes(tmp_path / "talk.recording", session.content)


def last(directory: Path, talk: Talk, **labels: Any) -> Any:
    """The last reply's payload."""
    received = [pieces for _, _, act, pieces in steps(directory, talk, **labels) if act == "receive"]
    first, *others = received[-1]
    return [first[16:], *others] if first[16:] else others


def test_names_are_a_connections_and_a_handle_that_comes_again_gets_another(tmp_path: Path) -> None:
    talk = (
        Talk().hello().buffer().ask(4, struct.pack("<Q", HANDLE)).buffer(base=BASE + 64).hello(7).buffer(HANDLE, BASE, connection=7)
    )
    talk.set(tensor(at=64), b"a").ask(4, struct.pack("<Q", HANDLE), connection=7)
    found = steps(tmp_path, talk)
    bound = [pieces[1] for _, command, act, pieces in found if act == "receive" and command in ("ALLOC_BUFFER", "BUFFER_GET_BASE")]
    assert bound == [f"${{buf{n}.{part}}}" for n in (0, 1, 2) for part in ("remote_ptr", "base")]
    assert next(pieces[3:6:2] for _, command, _, pieces in found if command == "SET_TENSOR") == [
        "${buf1.remote_ptr}",
        "${buf1.base}",
    ]
    assert found[-2][:3] == (2, "FREE_BUFFER", "send")
    assert found[-2][3][1] == "${buf2.remote_ptr}"


def test_what_no_live_buffer_explains_stays_as_it_is(tmp_path: Path) -> None:
    strange = tensor(buffer=HANDLE + 1), tensor(buffer=0, data=0), tensor(buffer=0, data=0x1234), tensor(data=0)
    talk = Talk().hello().buffer()
    for record in strange:
        talk.set(record, b"")
    found = [pieces for _, command, _, pieces in steps(tmp_path, talk) if command == "SET_TENSOR"]
    assert [[piece for piece in pieces if piece.startswith("$")] for pieces in found] == [
        ["${tensor0}"], ["${tensor0}"], ["${tensor0}"], ["${tensor0}", "${buf0.remote_ptr}"],
    ]  # fmt: skip


def test_a_freed_buffer_has_no_name_any_more(tmp_path: Path) -> None:
    found = steps(tmp_path, opened().ask(4, struct.pack("<Q", HANDLE)).set(A, b"").up(request(4, struct.pack("<Q", HANDLE))))
    names = [piece for _, _, act, pieces in found[-2:] for piece in pieces if act == "send" and piece.startswith("${buf")]
    assert names == []


def test_an_address_before_its_base_and_ids_of_sources(tmp_path: Path) -> None:
    talk = Talk().hello().buffer().set(tensor(5, data=BASE - 16, src=(0, 6, 5), view_src=7), b"")
    (pieces,) = [pieces for _, command, _, pieces in steps(tmp_path, talk) if command == "SET_TENSOR"]
    names = [piece for piece in pieces if piece.startswith("$")]
    assert names == ["${tensor0}", "${buf0.remote_ptr}", "${tensor1}", "${tensor0}", "${tensor2}", "${buf0.base}-16"]


def test_a_graph_names_its_nodes(tmp_path: Path) -> None:
    talk = Talk().hello().buffer().compute([9, 8], tensor(8), tensor(9, src=(8,)))
    (pieces,) = [pieces for _, command, _, pieces in steps(tmp_path, talk) if command == "GRAPH_COMPUTE"]
    assert pieces[:3] == ["0a" + struct.pack("<QII", 620, 0, 2).hex(), "${tensor0}", "${tensor1}"]
    assert [piece for piece in pieces if "tensor" in piece][2:] == ["${tensor1}", "${tensor0}", "${tensor1}"]


BOUNDS = [
    ("alloc", (0, struct.pack("<IQ", 0, 4096), struct.pack("<QQ", HANDLE, 4096)),
     ["${buf0.remote_ptr}", {"at_least": 4096, "width": 8}]),
    ("alloc more", (0, struct.pack("<IQ", 0, 4000), struct.pack("<QQ", HANDLE, 4096)),
     ["${buf0.remote_ptr}", {"at_least": 4000, "width": 8, "recorded": 4096}]),
    ("alloc failed", (0, struct.pack("<IQ", 0, 2**62), bytes(16)), ["00" * 16]),
    ("alignment", (1, bytes(4), struct.pack("<Q", 32)), [{"any": "2000000000000000"}]),
    ("max size", (2, bytes(4), b"\xff" * 8), [{"any": "ff" * 8}]),
    ("base of nothing known", (3, struct.pack("<Q", 5), struct.pack("<Q", 6)), ["0600000000000000"]),
    ("alloc size", (13, bytes(4) + tensor(ne=(3, 2)) + bytes(2960), struct.pack("<Q", 24)), [{"at_least": 24, "width": 8}]),
    ("alloc size, more", (13, bytes(4) + tensor(type=Q8_0, ne=(64, 2)) + bytes(2960), struct.pack("<Q", 512)),
     [{"at_least": 136, "width": 8, "recorded": 512}]),
    ("copied", (9, tensor() + tensor(), b"\1"), ["01"]),
    ("hash", (7, tensor() + bytes(16), b"\0"), ["00"]),
    ("empty", (5, bytes(9), b""), []),
]  # fmt: skip


@pytest.mark.parametrize(("ask", "expected"), [row[1:] for row in BOUNDS], ids=[row[0] for row in BOUNDS])
def test_a_reply_is_what_any_right_server_answers(tmp_path: Path, ask: tuple[int, bytes, bytes], expected: list[Any]) -> None:
    assert last(tmp_path, Talk().hello().ask(*ask)) == expected


def test_the_number_of_devices_is_what_the_client_uses(tmp_path: Path) -> None:
    talk = Talk().hello().ask(15, b"", struct.pack("<I", 5)).ask(1, struct.pack("<I", 2), bytes(8))
    assert steps(tmp_path, talk)[3][3][1] == {"at_least": 3, "width": 4, "recorded": 5}
    assert make(tmp_path / "talk.recording", Labels()).content["flags"] == ["two-devices"]


# --------------------------------------------------------------------------------------------------------------- downloads

NONE, ADD, RMS_NORM, CPY, VIEW, SET_ROWS, MUL_MAT = 0, 2, 25, 34, 37, 42, 29
ZEROS, ONES = bytes(16), struct.pack("<4f", 1, 1, 1, 1)
ANY, EXACT, NEAR = (
    {"any": ONES.hex()}, ONES.hex(), {"values": ONES.hex(), "type": "F32", "nmse": 0.0005},
)  # fmt: skip
A, B, C = tensor(1), tensor(2, at=16), tensor(3, at=32)


def node(op: int, *src: int, id: int = 9, at: int = 64, **more: Any) -> bytes:
    return tensor(id, at=at, op=op, src=src, **more)


def opened() -> Talk:
    return Talk().hello().buffer()


def filled() -> Talk:
    return opened().set(A, ONES).set(B, ONES)


def norm(talk: Talk, **more: Any) -> Talk:
    return talk.compute([9], A, node(RMS_NORM, 1, **more))


DOWNLOADS = [
    ("nobody wrote it", opened().get(C, ONES), [ANY]),
    ("written", opened().set(C, ONES).get(C, ONES), [EXACT]),
    ("written in part", opened().set(C, ONES[4:12], 4).get(C, ONES), [{"any": "0000803f"}, ONES[4:12].hex(), {"any": "0000803f"}]),
    ("cleared", opened().ask(5, struct.pack("<QB", HANDLE, 0)).get(C, ONES), [EXACT]),
    ("computed", norm(filled()).get(node(0), ONES), [NEAR]),
    ("computed, other type", norm(filled()).get(node(0, type=I32), ONES), [EXACT]),
    ("computed, halves", norm(filled()).get(node(0, type=F16, ne=(8,)), ONES), [NEAR | {"type": "F16"}]),
    ("computed, cut through a number", norm(filled()).get(node(0), ONES[:13], 2), [ONES[:13].hex()]),
    ("computed, whole numbers cut", norm(filled()).get(node(0), ONES[:12], 2), [ONES[:12].hex()]),
    ("computed beside it", norm(filled()).get(B, ONES), [EXACT]),
    ("computed, then written", norm(filled()).set(node(0), ONES).get(node(0), ONES), [EXACT]),
    ("computed, written, computed again",
     norm(filled()).set(node(0), ONES).ask(16, bytes(4), None).get(node(0), ONES), [NEAR]),
    ("computed and written", norm(filled()).get(tensor(8, ne=(8,), at=48), ONES[:4] * 8), [{"any": "0000803f" * 4},
     {"values": "0000803f" * 4, "type": "F32", "nmse": 0.0005}]),
    ("computed from what nobody wrote", norm(opened()).get(node(0), ONES), [ANY]),
    ("computed from what was computed of nothing",
     opened().compute([9, 8], A, node(RMS_NORM, 1), node(RMS_NORM, 9, id=8, at=96)).get(tensor(8, at=96), ONES), [ANY]),
    ("not computed", norm(filled(), flags=0).get(node(0), ONES), [ANY]),
    ("not a node", filled().compute([], A, node(RMS_NORM, 1)).get(node(0), ONES), [ANY]),
    ("a view computes nothing", filled().compute([9], A, node(VIEW, 1)).get(node(0), ONES), [ANY]),
    ("exact op of exact bytes", filled().compute([9], A, B, node(ADD, 1, 2)).get(node(0), ONES), [EXACT]),
    ("exact op of computed bytes",
     filled().compute([9, 8], A, node(RMS_NORM, 1), node(ADD, 9, 1, id=8, at=96)).get(tensor(8, at=96), ONES), [NEAR]),
    ("copied into what nobody wrote", filled().compute([9], A, C, node(CPY, 1, 3, at=32, view_src=3)).get(C, ONES), [EXACT]),
    ("rows set into what nobody wrote", filled().compute([9], A, B, C, node(SET_ROWS, 1, 2, 3, at=32)).get(C, ONES), [ANY]),
    ("rows set into what was written",
     filled().set(C, ONES).compute([9], A, B, C, node(SET_ROWS, 1, 2, 3, at=32)).get(C, ONES), [EXACT]),
    ("between the rows of a result",
     filled().compute([9], A, node(RMS_NORM, 1, ne=(1, 2), nb=(4, 8, 16, 16))).get(node(0), ONES),
     [{"values": "0000803f", "type": "F32", "nmse": 0.0005}, {"any": "0000803f"},
      {"values": "0000803f", "type": "F32", "nmse": 0.0005}, {"any": "0000803f"}]),
    ("copied by COPY_TENSOR", norm(filled()).ask(9, node(0) + C, b"\1").get(C, ONES), [NEAR]),
    ("COPY_TENSOR refused to copy", norm(filled()).ask(9, node(0) + C, b"\0").get(C, ONES), [ANY]),
    ("written by its hash", opened().ask(7, C + bytes(16), b"\1").get(C, ONES), [EXACT]),
    ("a hash that was not known", opened().ask(7, C + bytes(16), b"\0").get(C, ONES), [ANY]),
    ("a buffer freed and made again", filled().ask(4, struct.pack("<Q", HANDLE)).buffer().get(A, ONES), [ANY]),
    ("no buffer", filled().get(tensor(buffer=5), ONES), [ANY]),
    ("nothing", filled().get(A, b""), []),
]  # fmt: skip


@pytest.mark.parametrize(("talk", "expected"), [row[1:] for row in DOWNLOADS], ids=[row[0] for row in DOWNLOADS])
def test_a_download_is_compared_as_far_as_it_is_determined(tmp_path: Path, talk: Talk, expected: list[Any]) -> None:
    assert last(tmp_path, talk) == expected


def test_a_buffer_in_too_many_pieces_is_forgotten() -> None:
    ranges = Ranges()
    for start in range(0, 4 * MOST_STRETCHES, 4):
        ranges.put(start, start + 1, Known.EXACTLY)
    assert len(list(ranges.get(0, 4 * MOST_STRETCHES))) <= MOST_STRETCHES
    assert ranges.least(0, 1) is Known.NOTHING


def test_the_limit_is_the_callers(tmp_path: Path) -> None:
    assert last(tmp_path, norm(filled()).get(node(0), ONES), nmse=0.25) == [NEAR | {"nmse": 0.25}]


def test_requests_that_do_not_wait_for_replies(tmp_path: Path) -> None:
    ask = request(8, A + struct.pack("<QQ", 0, 16))
    talk = filled().up(ask).set(A, ZEROS).up(request(4, struct.pack("<Q", HANDLE))).up(count := request(15, b""))
    talk.down(answer(ONES) + answer(b"") + answer(struct.pack("<I", 1)))
    found = steps(tmp_path, talk)
    assert [step[1:3] for step in found[-7:]] == [
        ("GET_TENSOR", "send"), ("SET_TENSOR", "send"), ("FREE_BUFFER", "send"), ("DEVICE_COUNT", "send"),
        ("GET_TENSOR", "receive"), ("FREE_BUFFER", "receive"), ("DEVICE_COUNT", "receive"),
    ]  # fmt: skip
    assert found[-4][3] == [count.hex()]
    assert found[-3][3] == [answer(ONES).hex()]


# ------------------------------------------------------------------------------------------------------------ data left out

FOOBAR, SEVEN_ZEROS = 0x85944171F73967E8, hash_of_zeros(7)  # FNV-1a 64 of "foobar", as published


def head(size: int) -> bytes:
    return struct.pack("<BQ", 6, 304 + size) + C + bytes(8)


@pytest.mark.parametrize("size", [0, 1, 7, 1000])
def test_the_hash_of_zeros_is_a_power(size: int) -> None:
    assert hash_of_zeros(size) == definition(bytes(size))


def test_data_left_out_is_omitted_and_zeros_are_told_by_their_hash(tmp_path: Path) -> None:
    talk = opened().up(head(6)).left_out(UP, 6, FOOBAR).up(head(7)).left_out(UP, 7, SEVEN_ZEROS).ask(15, b"", struct.pack("<I", 1))
    sent = [pieces for _, command, _, pieces in steps(tmp_path, talk) if command == "SET_TENSOR"]
    assert [pieces[-1] for pieces in sent] == [{"omitted": 6, "fnv1a": "85944171f73967e8"}, {"repeat": "00", "times": 7}]
    assert make(tmp_path / "talk.recording", Labels()).content["flags"] == ["needs-data"]


def test_a_download_left_out_is_told_by_its_hash_and_that_it_was_computed(tmp_path: Path) -> None:
    ask = request(8, node(0) + struct.pack("<QQ", 0, 6))
    for talk, notes in ((norm(filled()), 1), (filled().set(node(0), ZEROS), 0)):
        talk.up(ask).down(struct.pack("<Q", 6)).left_out(DOWN, 6, FOOBAR)
        assert last(tmp_path, talk) == [{"omitted": 6, "fnv1a": "85944171f73967e8"}]
        assert len(make(tmp_path / "talk.recording", Labels()).notes) == notes


# -------------------------------------------------------------------------------------------------------------------- ends

CUT_OFF = request(6, A)[:40]
ENDS = [
    ("the client", Talk().hello().ends(UP, DOWN), ["close"]),
    ("nobody", Talk().hello(), ["receive"]),
    ("the server, asked nothing", Talk().hello().ends(DOWN, UP), ["close"]),
    ("the server, asked something", Talk().hello().up(request(15, b"")).ends(DOWN, UP), ["send", "refused"]),
    ("the server, sent something", opened().set(C, ONES).ends(DOWN, UP), ["send", "refused"]),
    ("the client, not waiting", Talk().hello().up(request(15, b"")).ends(UP, DOWN), ["send", "close"]),
    ("the client, still answered",
     Talk().hello().up(request(15, b"")).ends(UP).down(answer(bytes(4))).ends(DOWN), ["receive", "close"]),
    ("the server, still asked", Talk().hello().up(request(15, b"")).ends(DOWN).up(request(15, b"")).ends(UP), ["send", "refused"]),
    ("in the middle of a request", Talk().hello().up(CUT_OFF).ends(UP, DOWN), ["send", "close"]),
    ("a command that there is not", Talk().hello().up(b"\xee" + bytes(20)).up(b"more").ends(DOWN, UP), ["send", "refused"]),
]  # fmt: skip


@pytest.mark.parametrize(("talk", "expected"), [row[1:] for row in ENDS], ids=[row[0] for row in ENDS])
def test_who_ends_a_connection(tmp_path: Path, talk: Talk, expected: list[str]) -> None:
    assert [act for _, _, act, _ in steps(tmp_path, talk)][-len(expected) :] == expected


def test_bytes_that_are_no_request_are_sent_as_they_are(tmp_path: Path) -> None:
    found = steps(tmp_path, Talk().hello().up(b"\xee" + bytes(20)).up(b"more").ends(DOWN))
    assert found[-2] == (1, "", "send", [(b"\xee" + bytes(20) + b"more").hex()])


def test_a_connection_ends_before_the_next_one_that_is_answered_after_it(tmp_path: Path) -> None:
    hello = bytes.fromhex(HELLO)
    one_at_a_time = Talk().hello(1).up(hello, 2).ends(UP, connection=1).down(bytes.fromhex(HELLO_REPLY), 2)
    assert [(step[0], step[2]) for step in steps(tmp_path, one_at_a_time)][2:] == [(1, "close"), (2, "send"), (2, "receive")]
    at_once = Talk().hello(1).hello(2).ends(UP, connection=1)
    assert [(step[0], step[2]) for step in steps(tmp_path, at_once)][2:] == [(2, "send"), (2, "receive"), (1, "close")]
    assert make(tmp_path / "talk.recording", Labels()).content["flags"] == ["concurrent-connections", "several-connections"]


# ---------------------------------------------------------------------------------------------------------------- generated


@pytest.mark.parametrize("seed", range(12))
def test_generated_conversations_come_back(tmp_path: Path, seed: int) -> None:
    """Several connections at once, cut at random, every command, values at random; what it means does not matter here."""
    random = Random(seeded(seed))
    streams = [generated(random) for _ in range(random.randint(1, 4))]
    path = tmp_path / "generated.recording"
    with Recorder(path, leave_out_over=random.choice([None, 10, 300])) as recorder:
        while any(streams):
            number = random.choice([at for at, stream in enumerate(streams) if stream])
            way, data, is_data = streams[number].pop(0)
            if is_data:
                recorder.begin_data(way, number + 1, len(data))
            cuts = sorted(random.choices(range(len(data) + 1), k=random.choice([0, 0, 3])))
            for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
                recorder.write(way, number + 1, data[start:stop])
    session = make(path, Labels())
    assert session.faults == ()
    jsonschema.Draft202012Validator(SCHEMA).validate(session.content)
    found, wanted = as_recorded(session.content), as_recorded_in(path)
    assert len(found) == len(wanted) == 2 * len(streams)
    assert sorted(map(str, found.values())) == sorted(map(str, wanted.values()))


def generated(random: Random) -> list[tuple[Any, bytes, bool]]:
    """A connection: direction, bytes, whether they are a data part."""
    from ggml_rpc_ref.files.recording import Direction

    up, down = Direction.TO_SERVER, Direction.TO_CLIENT
    handles = [HANDLE + 16 * n for n in range(3)]
    found = [(up, bytes.fromhex(HELLO), False), (down, bytes.fromhex(HELLO_REPLY), False)]

    def record() -> bytes:
        ne = tuple(random.choice([0, 1, 2, 32]) for _ in range(4))
        sources = tuple(random.choice([0, random.randint(1, 9), 2**64 - 1]) for _ in range(10))
        place = random.choice([0, BASE + random.randint(-99, 4096), 2**64 - 1])
        return tensor(
            random.randint(0, 9), random.choice([F32, F16, I32, Q8_0]), ne, buffer=random.choice([0, *handles]), data=place,
            op=random.randint(0, 99), src=sources, flags=random.choice([0, 16]), view_src=random.randint(0, 3),
        )  # fmt: skip

    def sized(size: int) -> bytes:
        return random.choice([random.randbytes(size), bytes(size)])

    for _ in range(40):
        command, size, handle = random.randint(0, 16), random.randint(0, 400), struct.pack("<Q", random.choice(handles))
        device = struct.pack("<I", random.randint(0, 2))
        places = handle + struct.pack("<Q", random.choice([0, BASE, BASE + 8192]))
        graph = struct.pack("<I3QI", 3, 1, 2, 3, 3) + record() + record() + record()
        match command:
            case 0:
                rows = device + sized(8), random.choice([places, bytes(16)])
            case 1 | 2:
                rows = device, sized(8)
            case 3:
                rows = handle, places[8:]
            case 4:
                rows = handle, b""
            case 5:
                rows = handle + b"\7", b""
            case 6:
                rows = record() + struct.pack("<Q", random.randint(0, 99)), None
            case 7:
                rows = record() + bytes(16), random.choice([b"\0", b"\1"])
            case 8:
                rows = record() + struct.pack("<QQ", random.randint(0, 99), size), b""
            case 9:
                rows = record() + record(), random.choice([b"\0", b"\1"])
            case 10:
                rows = device + graph, None
            case 11:
                rows = device, sized(16)
            case 12:
                rows = record(), b""
            case 13:
                rows = device + record() * 11, sized(8)
            case 14 | 15:
                command, rows = 15, (b"", device)
            case _:
                rows = device, None
        fields, reply = rows
        data = sized(size) if command in (6, 8) else b""
        announced = struct.pack("<BQ", command, len(fields) + (len(data) if command == 6 else 0))
        found.append((up, announced + fields, False))
        found += [(up, data, True)] if command == 6 else []
        if reply is not None:
            found.append((down, struct.pack("<Q", len(reply) + (len(data) if command == 8 else 0)) + reply, False))
            found += [(down, data, True)] if command == 8 else []
    return found


# ------------------------------------------------------------------------------------------------------ a stranger's file


def test_every_truncation_gives_what_is_whole_and_one_sentence(tmp_path: Path) -> None:
    talk = filled().get(A, ONES).ends(UP, DOWN)
    whole = make(talk.write(tmp_path), Labels()).content["steps"]
    data, path = talk.bytes, tmp_path / "cut.recording"
    lengths = np.random.default_rng(seeded(1)).integers(len(START), len(data), 150)
    for length in map(int, lengths):
        path.write_bytes(data[:length])
        session = make(path, Labels())
        count = len(session.content["steps"])
        assert session.content["steps"] == whole[:count]
        assert len(session.faults) <= 1
        assert all("[recording.chunk-" in fault for fault in session.faults)


def test_bytes_changed_anywhere_give_a_vector_or_a_sentence(tmp_path: Path) -> None:
    talk = norm(filled()).up(head(6)).left_out(UP, 6, FOOBAR).get(node(0), ONES).ends(UP, DOWN)
    data, random, path = talk.bytes, Random(seeded(1)), tmp_path / "changed.recording"
    outcomes = set()
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(random.choice([1, 1, 4])):
            changed[random.randrange(len(START), len(data))] = random.choice([0, 1, 0x7F, 0xFF, random.randrange(256)])
        path.write_bytes(changed)
        try:
            session = make(path, Labels())
        except Misuse as error:
            outcomes.add(type(error))
            continue
        outcomes.add(bool(session.faults))
        if not session.faults:
            jsonschema.Draft202012Validator(SCHEMA).validate(session.content)
            assert sorted(map(str, as_recorded(session.content).values())) == sorted(map(str, as_recorded_in(path).values()))
    assert {True, False} <= outcomes


def cut(talk: Talk, direction: int, message: bytes, there: int) -> Talk:
    """A recorder that died when so many bytes of a message had passed; nothing says that either side ended."""
    talk.chunks.append((direction, 1, message[:there]))
    return talk


UPLOAD = request(6, tensor(at=64) + bytes(8) + bytes(4096))
GRAPH = request(10, struct.pack("<IIQI", 0, 1, ID, 1) + tensor(at=64))
CUTS = {
    "in the command's size": (UP, UPLOAD, 5),
    "before the payload": (UP, UPLOAD, 9),
    "after the handle": (UP, UPLOAD, 9 + 20),
    "in the address": (UP, UPLOAD, 9 + 224),
    "before the data": (UP, UPLOAD, 9 + 304),
    "in the data": (UP, UPLOAD, 1000),
    "in a graph's ids": (UP, GRAPH, 9 + 15),
    "in a graph's tensors": (UP, GRAPH, 9 + 20 + 200),
    "in a handle": (UP, request(4, struct.pack("<Q", HANDLE)), 9 + 7),
    "in a reply's size": (DOWN, answer(bytes(4)), 7),
    "in a reply": (DOWN, answer(bytes(4)), 9),
}


WITHOUT_HANDLE = {"in the command's size", "before the payload", "in a graph's ids", "in a handle"}


@pytest.mark.parametrize("where", CUTS)
def test_a_recording_cut_off_inside_a_message_is_not_all_of_it(tmp_path: Path, where: str) -> None:
    direction, message, there = CUTS[where]
    talk = opened() if direction == UP else opened().up(request(15, b""))
    whole = make(talk.write(tmp_path), Labels())
    path = cut(talk, direction, message, there).write(tmp_path)
    session = make(path, Labels())
    assert session.content["steps"] == whole.content["steps"]
    (fault,) = session.faults
    assert "[recording.message-whole: " in fault
    done = command(path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize("where", [where for where in CUTS if CUTS[where][0] == UP])
@pytest.mark.parametrize("who", [UP, DOWN], ids=["client", "server"])
def test_a_message_that_its_sender_broke_off_has_names_for_its_pointers(tmp_path: Path, where: str, who: int) -> None:
    """The end of the connection is recorded, so this is what happened; it is played with the handles of the server at hand."""
    _, message, there = CUTS[where]
    talk = cut(opened(), UP, message, there).ends(who)
    found = steps(tmp_path, talk)
    assert found[-2][2] == "send"
    assert found[-1][2] == ("close" if who == UP else "refused")
    text = json.dumps(found[-2])
    assert not [number for number in (HANDLE, BASE + 64, ID) if struct.pack("<Q", number).hex() in text]
    assert ("${buf0.remote_ptr}" in text) == (where not in WITHOUT_HANDLE)
    assert ("${buf0.base}+64" in text) == (where in ("before the data", "in the data"))


def swapped(talk: Talk) -> Talk:
    talk.chunks[-2:] = reversed(talk.chunks[-2:])
    return talk


STRANGE = [
    ("a reply before what it answers", swapped(filled().get(node(0), ONES)), "before what asked for it", 8),
    ("a reply of the wrong size", Talk().hello().ask(15, b"", bytes(5)), "4 bytes", 3),
    ("a reply to nothing", Talk().hello().down(answer(b"")), "no request awaits one", 2),
    ("a reply cut off", Talk().hello().up(request(15, b"")).down(answer(bytes(4))[:9]).ends(DOWN), "frame.complete", 4),
    ("more left out than the data", opened().up(head(6)).left_out(UP, 7, FOOBAR), "recording.left-out", 6),
    ("less left out than the data", opened().up(head(6)).left_out(UP, 5, FOOBAR).ends(UP), None, 8),
]  # fmt: skip


@pytest.mark.parametrize(("talk", "words", "count"), [row[1:] for row in STRANGE], ids=[row[0] for row in STRANGE])
def test_what_can_not_be_followed_ends_a_connection(tmp_path: Path, talk: Talk, words: str | None, count: int) -> None:
    session = make(talk.write(tmp_path), Labels())
    assert len(session.content["steps"]) == count, [shown(step) for step in session.content["steps"]]
    assert len(session.faults) == (words is not None)
    assert words is None or words in session.faults[0]


def test_another_protocol_version_several_and_no_message(tmp_path: Path) -> None:
    older = Talk().up(bytes.fromhex(HELLO)).down(answer(b"\3\0\0"))
    assert make(older.write(tmp_path), Labels()).content["protocol"] == "3.0.0"
    with pytest.raises(Misuse, match=r"holds conversations of the protocols 3\.0\.0, 3\.6\.1; a session is of one$"):
        make(older.hello(connection=2).write(tmp_path), Labels())
    with pytest.raises(Misuse, match="holds no message"):
        make(Talk().write(tmp_path), Labels())
    (tmp_path / "none").write_bytes(b"GGUF")
    with pytest.raises(Damaged, match=r"recording\.magic"):
        make(tmp_path / "none", Labels())


# ------------------------------------------------------------------------------------------------------------ the two forms


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A session and its recording; the session's path."""
    session = make(norm(filled()).get(node(0), ONES).write(tmp_path, "pair.recording"), Labels(nmse=0.125, flags=("large",)))
    (tmp_path / "pair.json").write_text(session.text)
    return tmp_path / "pair.json"


FORMS: list[tuple[str, Any, list[str]]] = [
    ("in order", lambda content: None, []),
    ("renamed", lambda content: content.update(id="other"), ["its id 'other' is not the name of the file"]),
    ("a step", lambda content: content["steps"].pop(3), ["steps is not what `vectors record` makes of pair.recording: 4"]),
    ("a value", lambda content: content["bindings"]["buf0.base"].update(value="0x1"), ["bindings is not what .*: buf0.base"]),
    ("a flag", lambda content: content["flags"].remove("computed-values"), ["flags is not what"]),
    ("the hash", lambda content: content["provenance"].update(sha256=64 * "0"), ["provenance is not what .*: sha256"]),
    ("no recording", lambda content: content["provenance"].update(recording="gone.recording"), ["gone.recording is not there"]),
]


@pytest.mark.parametrize(("spoil", "expected"), [row[1:] for row in FORMS], ids=[row[0] for row in FORMS])
def test_both_forms_say_the_same(pair: Path, spoil: Any, expected: list[str]) -> None:
    content = json.loads(pair.read_text())
    spoil(content)
    found = [
        fault for fault in faults(pair, content) if expected != ["its id 'other' is not the name of the file"] or "id" in fault
    ]
    assert len(found) == len(expected)
    assert all(re.search(pattern, fault) for pattern, fault in zip(expected, found, strict=True)), found


def test_a_damaged_recording_is_seen(pair: Path) -> None:
    recording = pair.with_suffix(".recording")
    recording.write_bytes(recording.read_bytes()[:-3])
    assert any("recording.chunk-whole" in fault for fault in faults(pair, json.loads(pair.read_text())))
    recording.write_bytes(b"none")
    assert any("recording.magic" in fault for fault in faults(pair, json.loads(pair.read_text())))


# ------------------------------------------------------------------------------------------------- the genuine, once more


@pytest.mark.upstream
@pytest.mark.parametrize("id", ["views", "recompute", "two-clients", "hash-cache"])
def test_a_second_recording_says_the_same(
    id: str, tmp_path: Path, upstream_build: upstream.Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_sessions, "PORT", 0)  # any port: only llama.cpp's names of tensors tell it
    recorded = record_sessions.folder(upstream_build) / f"{id}.json"
    monkeypatch.setattr(record_sessions, "VECTORS", tmp_path)
    record_sessions.record(upstream_build, id, record_sessions.SESSIONS[id])
    again = record_sessions.folder(upstream_build) / f"{id}.json"
    first, second = (json.loads(path.read_text()) for path in (recorded, again))
    assert without_computed(first["steps"]) == without_computed(second["steps"])
    assert_near(computed(first["steps"]), computed(second["steps"]))
    assert list(first["bindings"]) == list(second["bindings"])
    assert (first["flags"], first["about"]) == (second["flags"], second["about"])
    assert first["bindings"] != second["bindings"], "addresses differ from run to run"


def without_computed(value: Any) -> Any:
    """JSON without what is recorded where anything may stand, and without computed numbers."""
    match value:
        case {"any": str(recorded)}:
            return {"any": len(recorded)}
        case {"values": str(recorded), **rest}:
            return rest | {"values": len(recorded)}
        case dict():
            return {key: without_computed(entry) for key, entry in value.items()}
        case list():
            return [without_computed(entry) for entry in value]
    return value


def computed(value: Any) -> list[tuple[npt.NDArray[np.float32], float]]:
    """Every piece of computed numbers in JSON, with the error that it may have."""
    match value:
        case {"values": str(recorded), "type": "F32", "nmse": nmse}:
            return [(np.frombuffer(bytes.fromhex(recorded), "<f4"), nmse)]
        case dict():
            return [found for entry in value.values() for found in computed(entry)]
        case list():
            return [found for entry in value for found in computed(entry)]
    return []


def assert_near(wanted: list[tuple[npt.NDArray[np.float32], float]], found: list[tuple[npt.NDArray[np.float32], float]]) -> None:
    """Another processor rounds in another order, so numbers are near, and as near as the vector says."""
    for (a, nmse), (b, _) in zip(wanted, found, strict=True):
        assert np.square(a - b, dtype=np.float64).sum() <= nmse * np.square(a, dtype=np.float64).sum()


def verdicts(endpoint: str, data: Files, *names: str) -> dict[str, str]:
    """Play the sessions of these names."""
    # file by file: a directory would have all that is in it checked first, the ops too
    paths = [path.with_suffix(".json") for path in RECORDINGS if name_of(path) in names]
    report = run(Given(parse_endpoint(endpoint)), [*chain(*(play.cases(path, data) for path in paths))], Options(timeout=10))
    return {result.case.id.removeprefix("sessions/"): result.verdict.value for result in report.results}


def of(version: str) -> dict[str, str]:
    """The names of a version's sessions, and what is said of a right server that has all but the model's data."""
    names = [name_of(path) for path in RECORDINGS if path.parents[1].name.split("-")[1] == version]
    return {name: "SKIP" if name == "gemma-3-270m" else "PASS" for name in names}


@pytest.mark.upstream
def test_the_genuine_server_plays_them(tmp_path: Path, upstream_build: upstream.Build) -> None:
    with upstream.server(upstream_build.protocol, devices=2, cache_dir=tmp_path) as server:
        assert verdicts(server.endpoint, Files([]), *of("3.6.1")) == of("3.6.1")


@pytest.mark.parametrize("version", [version for version in VERSIONS if Version.parse(version) in PROFILES])
def test_our_server_plays_those_of_the_version_that_it_speaks(version: str, tmp_path: Path) -> None:
    devices = "oracle" if version == "2.0.0" else "oracle,oracle"
    with Server(make_host(devices, cache_dir=tmp_path, proto=version)) as server:
        assert verdicts(server.endpoint, Files([]), *of(version)) == of(version)


def test_a_server_plays_those_of_both_versions_that_hello_decides_between_and_of_no_other() -> None:
    with Server(make_host("oracle,oracle", proto="auto")) as server:
        found = verdicts(server.endpoint, Files([]), "views", "8.0.0/views", "7.0.0/views")
    assert found == {"views": "PASS", "8.0.0/views": "PASS", "7.0.0/views": "UNSUPPORTED"}


@pytest.mark.upstream
def test_our_server_plays_the_model_with_its_weights(gemma_model: Path) -> None:
    with Server(make_host("auto")) as server:  # the oracle takes half a minute
        assert verdicts(server.endpoint, Files([gemma_model]), "gemma-3-270m") == {"gemma-3-270m": "PASS"}


# --------------------------------------------------------------------------------------------------------------- the command


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_command("vectors", "record", *arguments)


def test_the_command_prints_or_writes(tmp_path: Path) -> None:
    path, output = filled().get(A, ONES).write(tmp_path, "My Talk.recording"), tmp_path / "out.json"
    printed = command(path)
    assert (printed.returncode, printed.stderr) == (0, "")
    content = json.loads(printed.stdout)
    assert (content["id"], content["provenance"]["recording"]) == ("my-talk", "my-talk.recording")
    assert vectors.canonical("sessions", content) == printed.stdout
    ran = command(path, "--output", output, "--id", "x", "--about", "y", "--client", "c", "--server", "s", "--flag", "large")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    content = json.loads(output.read_text())
    assert (content["id"], content["about"], content["flags"], content["provenance"]["client"]) == ("x", "y", ["large"], "c")


def test_the_command_on_what_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "cut.recording"
    path.write_bytes(filled().bytes[:-7])
    ran = command(path)
    assert (ran.returncode, len(json.loads(ran.stdout)["steps"])) == (1, 7)
    assert "recording.chunk-whole" in ran.stderr
    path.write_bytes(b"GGUF")
    for arguments, code, words in (
        ((path,), 1, "recording.magic"),
        ((tmp_path / "none",), 2, "can't read"),
        ((path, "--id", "A b"), 2, "'A b': ids and flags are made of a-z, 0-9 and -"),
    ):
        ran = command(*arguments)
        assert (ran.returncode, ran.stdout, words in ran.stderr, "Traceback" in ran.stderr) == (code, "", True, False)
        assert len(ran.stderr.splitlines()) == 1


def test_rows_that_were_moved_are_played_again(tmp_path: Path) -> None:
    """SET_TENSOR_2D and GET_TENSOR_2D of 8.0.0: what was written or computed is compared, row by row, and nothing else."""
    path = tmp_path / "rows.rec"
    with ggml_rpc_ref.Server(memory=2**24, proto="8.0.0") as server:
        with (
            Recorder(path, protocol="8.0.0") as recorder,
            Proxy(parse_endpoint(server.endpoint), recorder=recorder) as proxy,
            ggml_rpc_ref.connect(proxy.endpoint, timeout=30) as client,
        ):
            device = client.devices[0]
            x = device.empty("F32", (4, 4))
            x.write_rows(np.arange(4, dtype=np.float32), 2, 32)  # the first two elements of the rows 0 and 2
            assert x.read_rows(8, 2, 32).view(np.float32).tolist() == [[0, 1], [2, 3]]
            x.read_rows(16, 2, 32)  # with the other two of each, which nobody has written
            y = device.tensor(np.ones((4, 4), np.float32)) + 1
            y.read_rows(4, 4, 16)
        session = make(path, Labels())
        check_bytes(path, session.content)
        said = [step[3] for step in map(shown, session.content["steps"]) if step[1:3] == ("GET_TENSOR_2D", "receive")]
        vector = tmp_path / "rows.json"
        vector.write_text(session.text)
        (again,) = play.cases(vector, session.content)
        results = run(Given(parse_endpoint(server.endpoint)), [again], Options(timeout=20)).results
        assert [str(result.verdict) for result in results] == ["PASS"]
    nobodys, two = {"any": "0000000000000000"}, {"values": "00000040", "type": "F32", "nmse": 5e-4}
    assert said == [
        ["1000000000000000000000000000803f0000004000004040"],
        ["2000000000000000000000000000803f", nobodys, "0000004000004040", nobodys],
        ["1000000000000000", two, two, two, two],
    ]
