"""Protocol 1.0.0, which no build witnesses: the vectors laid out by hand, held to the compiled layout of 2.0.0, and played.

1.0.0 and 2.0.0 differ in one thing only: until 2.0.0 SET_TENSOR had a reply, an empty one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ggml_rpc_ref import golden, upstream
from ggml_rpc_ref.conformance import Given, Options, Report, run
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.golden import play
from ggml_rpc_ref.net.stream import parse_endpoint
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.server import Server
from ggml_rpc_ref.spec import messages as m
from ggml_rpc_ref.spec.versions import V1_0_0, V2_0_0
from tests.test_witness import FOLDERS, check_replies, check_requests
from vectors.tools import make_unwitnessed

VECTORS = Path(__file__).parents[1] / "vectors"
FOLDER = VECTORS / "handmade" / str(V1_0_0)
FRAMES: list[dict[str, Any]] = json.loads((FOLDER / "frames.json").read_text())["connections"][0]["frames"]
SESSIONS = ["buffers", "devices", "graphs", "parts", "products"]


def test_the_files_are_what_the_tool_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["make_unwitnessed", str(tmp_path)])
    make_unwitnessed.main()
    written = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.json")}
    assert written == {path.relative_to(FOLDER): path.read_text() for path in FOLDER.rglob("*.json")}
    assert sorted(path.stem for path in (FOLDER / "sessions").iterdir()) == SESSIONS


def test_every_request_is_there_and_every_one_has_a_reply() -> None:
    assert {frame["number"] for frame in FRAMES} == set(range(15)) == set(m.by_number(V1_0_0))
    assert all(frame["reply"] is not None for frame in FRAMES)


def test_every_file_says_that_nothing_witnesses_it() -> None:
    for path in FOLDER.rglob("*.json"):
        content = json.loads(path.read_text())
        assert "no package of any index holds a build" in content.get("provenance", content)["not_witnessed"]


def test_the_codec_reads_and_writes_them() -> None:
    check_requests(FRAMES, V1_0_0)
    check_replies(FRAMES, V1_0_0)


def numbers_of(content: Any) -> list[int]:
    """Every number in a frame's fields."""
    below = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return [content] if isinstance(content, int) else [number for entry in below for number in numbers_of(entry)]


def test_no_two_fields_of_a_frame_are_alike_and_high_bits_are_set() -> None:
    """Exchanged fields, and a width or sign that is wrong, would not show otherwise."""
    for frame in FRAMES:
        numbers = numbers_of(frame["fields"])
        assert len(set(numbers)) == len(numbers), frame["command"]
        assert all(number < 0 or number.bit_length() in (8, 32, 64) for number in numbers), frame["command"]


def test_they_lie_as_a_compiler_lays_the_structures_of_2_0_0() -> None:
    structures = json.loads((FOLDERS[V2_0_0] / "layout.json").read_text())["structures"]
    compared = 0
    for frame in FRAMES:
        name = frame["command"].title().replace("_", "")
        for structure, side in ((name, frame), (f"{name}Reply", frame["reply"])):
            if structure in structures:
                compared += compare(structures, structure, bytes.fromhex(side["payload"]), side["fields"])
    assert compared > 250


def compare(structures: Any, structure: str, payload: bytes, fields: dict[str, Any]) -> int:
    """Compare the bytes where the compiler's structure has each field with the field, and return how many numbers there were."""
    assert structures[structure]["size"] == len(payload), structure
    compared = 0
    for name, place in structures[structure]["fields"].items():
        data, value = payload[place["offset"] :][: place["size"]], fields[name]
        if isinstance(value, dict):
            compared += compare(structures, "Tensor", data, value)
        elif isinstance(value, str):
            assert data.hex() == value, name
        else:
            entries = value if isinstance(value, list) else [value]
            width = len(data) // len(entries)
            expected = b"".join(entry.to_bytes(width, "little", signed=entry < 0) for entry in entries)
            assert data == expected, f"{structure}.{name}"
            compared += len(entries)
    return compared


def judged(endpoint: str, cases: list[Any]) -> Report:
    return run(Given(parse_endpoint(endpoint)), cases, Options(timeout=20.0, profile=""))


def test_our_server_holds_the_conversations() -> None:
    cases = [case for id in SESSIONS for case in play.cases(FOLDER / "sessions" / f"{id}.json", {})]
    assert [case.id for case in cases] == [f"sessions/1.0.0/{id}" for id in SESSIONS]
    with Server(make_host("oracle", memory=2**24, proto="1.0.0")) as server:
        report = judged(server.endpoint, cases)
    assert {result.case.id: str(result.verdict) for result in report.results} == {case.id: "PASS" for case in cases}


def test_the_reply_of_set_tensor_can_not_be_left_out() -> None:
    """A client that does not wait for it takes it for the answer to its next request."""
    with Server(make_host("oracle", memory=2**24, proto="1.0.0")) as server:
        report = judged(server.endpoint, [unanswered("parts", "1.0.0")])
    assert [(str(result.verdict), "(GET_TENSOR)" in result.detail) for result in report.results] == [("DESYNC", True)]


def unanswered(id: str, version: str) -> Any:
    """Return a conversation as one of a version, without replies to SET_TENSOR."""
    content = make_unwitnessed.session(id) | {"protocol": version}
    content["steps"] = [step for step in content["steps"] if step.get("command") != "SET_TENSOR" or "send" in step]
    for step in content["steps"]:
        if step.get("receive") == ["0300000000000000010000"]:
            step["receive"] = ["0300000000000000" + bytes(map(int, version.split("."))).hex()]
    return play._session(content, {})


@pytest.mark.upstream
def test_the_genuine_2_0_0_holds_the_same_conversations_but_for_that_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    """And but for the numbers of ops, which builds of 2.0.0 shifted without a new version."""
    numbers = json.loads((FOLDERS[V2_0_0] / "enums.json").read_text())["ops"]
    for name in ("ADD", "MUL_MAT", "UNARY"):
        monkeypatch.setattr(make_unwitnessed, name, numbers.index(name))
    try:
        upstream.find("2.0.0")
    except Misuse as missing:
        pytest.skip(str(missing))
    with upstream.server("2.0.0", threads=1) as server:
        report = judged(server.endpoint, [unanswered(id, "2.0.0") for id in SESSIONS])
    assert {result.case.id: str(result.verdict) for result in report.results} == {f"sessions/2.0.0/{id}": "PASS" for id in SESSIONS}


def test_a_conversation_laid_out_by_hand_is_no_recording(tmp_path: Path) -> None:
    folder = tmp_path / "upstream-1.0.0-none" / "sessions"
    folder.mkdir(parents=True)
    (folder / "parts.json").write_text((FOLDER / "sessions" / "parts.json").read_text())
    assert any("laid out by hand and lies among the recordings" in fault for fault in golden.verify(tmp_path))
