"""The interop matrix of servers and clients: a small one is made here; of the full one the picture is drawn from its data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ggml_rpc_ref.conformance import interop
from ggml_rpc_ref.derive.interop import picture
from ggml_rpc_ref.spec.rules import FOR_CLIENTS, RULES
from ggml_rpc_ref.spec.versions import PROFILES
from tests.support.command import run_command

BENCH = Path(__file__).parent.parent / "bench"
SVG = "{http://www.w3.org/2000/svg}"


def test_a_small_matrix_of_our_own_ends(tmp_path: Path) -> None:
    files = [tmp_path / f"matrix.{form}" for form in ("json", "html", "svg")]
    words = ["interop", "--ours-only", "--version", "2.0.0", "--only", "device.index", "--only", "buffer.alloc-size/1"]
    words += ["--only", "frame.requests/*"]
    for file in files:
        words += ["--report", str(file)]
    done = subprocess.run([sys.executable, "-m", "ggml_rpc_ref", *words], capture_output=True, text=True, timeout=300, check=False)
    said = [f"{name}: conformant; protocol 2.0.0, 1 cases: 1 PASS\n" for name in ("ours 2.0.0", "ours 2.0.0, client")]
    assert (done.returncode, done.stdout) == (0, "".join(said))
    matrix = json.loads(files[0].read_text())
    (row,) = matrix["servers"]
    assert (row["whose"], row["protocol"], row["levels"], row["sections"]) == (
        "ours",
        "2.0.0",
        {"MUST": [1, 1]},
        {"buffer": [1, 1]},
    )
    (client,) = matrix["clients"]
    assert (client["whose"], client["protocol"], client["sections"]) == ("ours", "2.0.0", {"frame": [1, 1]})
    (pair,) = matrix["pairs"]
    assert (pair["server"], pair["speaks"], pair["client"], pair["outcome"]) == ("ours", "2.0.0", "2.0.0", "works")
    assert "ours 2.0.0" in files[1].read_text()
    assert files[2].read_text() == picture(matrix)


def case(rule: str, verdict: str, level: str = "MUST") -> dict[str, Any]:
    return {"rule": rule, "broken_rule": rule, "verdict": verdict, "level": level}


def test_patterns_that_match_no_client_judge_none() -> None:
    done = run_command("interop", "--ours-only", "--version", "2.0.0", "--only", "buffer.alloc-size/1")
    assert (done.returncode, done.stdout) == (0, "ours 2.0.0: conformant; protocol 2.0.0, 1 cases: 1 PASS\n")
    wrong = run_command("interop", "--ours-only", "--only", "buffer.alloc-size/1", "--only", "nobody.knows")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "no case and no rule matches 'nobody.knows'" in wrong.stderr


def test_a_server_comes_down_to_shares_and_broken_rules() -> None:
    cases = [
        case("data.copy", "PASS"),
        case("data.copy", "UNSUPPORTED"),
        case("data.in-tensor", "FAIL") | {"broken_rule": "session.survives"},
        case("data.in-tensor", "CRASH") | {"broken_rule": "session.survives"},
        case("session.concurrent", "FAIL", "SHOULD"),
    ]
    report = {"cases": cases, "counts": {}, "target": {"party": "server", "protocol": "3.6.1", "device_count": 1}}
    row = interop.row_of({"name": "a", "exit_status": 4, "error": "", "report": report})
    assert row["levels"] == {"MUST": [1, 3], "SHOULD": [0, 1]}
    assert row["sections"] == {"data": [1, 3], "session": [0, 1]}
    assert row["broken"] == {"session.concurrent": "FAIL", "session.survives": "CRASH"}


@pytest.fixture(scope="module")
def full() -> Any:
    return json.loads((BENCH / "interop.json").read_text(encoding="utf-8"))


def test_the_picture_is_drawn_from_the_data(full: Any) -> None:
    assert (BENCH / "interop.svg").read_text(encoding="utf-8") == picture(full)


def test_the_full_matrix_has_our_server_of_each_version_and_genuine_ones(full: Any) -> None:
    names = [row["name"] for row in full["servers"]]
    assert names[: len(PROFILES)] == [f"ours {version}" for version in PROFILES]
    assert sum(name.startswith("llama.cpp ") for name in names) >= 2
    assert {rule for row in full["servers"] for rule in row["broken"]} <= set(RULES)
    # ours breaks nothing; what others break stands in the file as it was found
    assert {row["name"]: row["broken"] for row in full["servers"] if row["whose"] == "ours" and row["broken"]} == {}


def test_the_full_matrix_has_our_client_of_each_version_and_genuine_ones(full: Any) -> None:
    names = [row["name"] for row in full["clients"]]
    assert names[: len(PROFILES)] == [f"ours {version}, client" for version in PROFILES]
    assert sum(name.startswith("llama.cpp ") for name in names) >= 2
    assert {rule for row in full["clients"] for rule in row["broken"]} <= set(FOR_CLIENTS)
    # ours breaks no MUST
    broken = {rule for row in full["clients"] if row["whose"] == "ours" for rule in row["broken"]}
    assert {rule for rule in broken if RULES[rule].level == "MUST"} == set()


def test_the_picture_shows_every_server_and_each_number(full: Any) -> None:
    root = ElementTree.fromstring(picture(full))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    for row in (*full["servers"], *full["clients"]):
        assert row["name"] in texts
        for passed, judged in row["sections"].values():
            assert f"{passed}/{judged}" in texts
    view = [float(number) for number in root.attrib["viewBox"].split()]
    for rect in root.iter(f"{SVG}rect"):
        assert float(rect.attrib.get("x", 0)) + float(rect.attrib["width"]) <= view[2]
        assert float(rect.attrib.get("y", 0)) + float(rect.attrib["height"]) <= view[3]
