"""Fleets: the file that names them, several judged at a time, an interrupted run that goes on, one report of all."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ggml_rpc_ref.conformance import fleet
from ggml_rpc_ref.conformance.crews import _Judge
from ggml_rpc_ref.conformance.fleet import Member, judge_member, read
from ggml_rpc_ref.conformance.report import Outcome
from ggml_rpc_ref.errors import Misuse
from tests.support.command import run_command

SCHEMAS = Path(__file__).parent.parent / "ggml_rpc_ref" / "conformance" / "schema"
FLEET = """
[defaults]
timeout = 20
only = ["device.count", "session.hello-version"]

[[servers]]
name = "ours of 8.0.0"
version = "8.0.0"
only = ["device.count"]

[[servers]]
name = "ours"

[[servers]]
endpoint = "127.0.0.1:9"
"""
CLIENTS = f"""
[[servers]]
name = "a client"
client = "{sys.executable} -m ggml_rpc_ref.client.scenario {{endpoint}} --as 2.0.0"
only = ["frame.requests", "tensor.zero-filled"]

[[servers]]
name = "no client"
client = "/nowhere/client {{endpoint}}"
only = ["frame.requests"]
"""


def conform(*words: str) -> tuple[int, str, str]:
    done = run_command("conform", *words)
    return done.returncode, done.stdout, done.stderr


def rows(content: dict[str, Any]) -> list[tuple[str, int, int]]:
    return [(row["name"], row["exit_status"], len(row["report"]["cases"])) for row in content["servers"]]


def test_several_servers_have_one_report_and_a_second_run_goes_on(tmp_path: Path) -> None:
    file, keep, page, data = (tmp_path / name for name in ("fleet.toml", "keep", "fleet.html", "fleet.json"))
    file.write_text(FLEET)
    jsonschema.validate(tomllib.loads(FLEET), json.loads((SCHEMAS / "targets.json").read_text()))
    words = ("--targets", str(file), "--keep", str(keep), "--report", str(page), "--report", str(data))
    code, printed, progress = conform(*words)
    assert code == 3
    assert "ours: conformant; protocol 3.6.1" in printed
    assert "127.0.0.1:9: unreachable; can't connect to 127.0.0.1:9" in printed
    assert "judged before" not in progress
    content = json.loads(data.read_text())
    jsonschema.validate(content, json.loads((SCHEMAS / "fleet.json").read_text()))
    for row in content["servers"]:
        jsonschema.validate(row["report"], json.loads((SCHEMAS / "report.json").read_text()))
    found = rows(content)
    assert [(name, status) for name, status, _ in found] == [("ours of 8.0.0", 0), ("ours", 0), ("127.0.0.1:9", 3)]
    assert found[1][2] > found[0][2] > 0 == found[2][2]
    text = page.read_text()
    assert text.count("ours of 8.0.0") > 3
    assert "can&#39;t connect to 127.0.0.1:9" in text
    # a case that only the second server was asked is that one's
    (block,) = re.findall(r'<details id="session.hello-version/.*?</details>', text, re.DOTALL)
    assert re.findall(r"<h4><code>(.*?)</code>", block) == ["ours"]

    _, _, again = conform(*words)
    assert "ours: judged before" in again
    assert "ours of 8.0.0: judged before" in again
    assert "127.0.0.1:9: judged before" not in again
    assert rows(json.loads(data.read_text())) == found


def test_clients_are_judged_beside_servers(tmp_path: Path) -> None:
    file, data, page = (tmp_path / name for name in ("fleet.toml", "fleet.json", "fleet.html"))
    file.write_text(FLEET.partition("[[servers]]\nendpoint")[0] + CLIENTS)
    jsonschema.validate(tomllib.loads(file.read_text()), json.loads((SCHEMAS / "targets.json").read_text()))
    code, printed, _ = conform("--targets", str(file), "--report", str(data), "--report", str(page))
    assert code == 3
    assert "a client: conformant; protocol 2.0.0, 3 cases: 3 PASS" in printed
    assert "no client: unreachable; can't start /nowhere/client" in printed
    content = json.loads(data.read_text())
    jsonschema.validate(content, json.loads((SCHEMAS / "fleet.json").read_text()))
    assert [row["report"]["target"]["party"] for row in content["servers"]] == ["server", "server", "client", "client"]
    text = page.read_text()
    assert ">server or client<" in text
    assert 'data-label="protocol">2.0.0<' in text  # without a number of devices


def test_a_result_is_of_no_use_once_it_is_judged_otherwise(tmp_path: Path) -> None:
    kept, member = fleet.Kept(tmp_path), Member("a", only=("device.count",))
    row = fleet.row_of(member, fleet.Outcome.CONFORMANT, "")
    kept.add(member, row)
    assert kept.find(member) == row
    assert kept.find(Member("a", only=("device.index",))) is None
    kept.add(member, fleet.row_of(member, fleet.Outcome.INTERRUPTED, ""))
    assert kept.find(member) == row
    next(tmp_path.iterdir()).write_text(json.dumps(row)[:-5])
    assert kept.find(member) is None


def test_a_failure_is_heard_unless_it_is_expected(tmp_path: Path) -> None:
    silent = "import socket; s = socket.create_server(('127.0.0.1', {port})); [s.accept() for _ in range(999)]"
    expect = tmp_path / "expect.json"
    expect.write_text("{}")
    lines: list[str] = []
    member = Member("silent", spawn=f'{sys.executable} -c "{silent}"', timeout=0.2, only=("device.count",), expect=str(expect))
    row = judge_member(member, lines.append)
    assert (row["exit_status"], lines) == (3, [])
    assert "HELLO" in row["error"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not a fleet: it has a list `servers`"),
        ("servers = 3", "is not a fleet"),
        ("[[servers]]\nport = 5", "server 1: 'port' means nothing; known are name, endpoint, spawn,"),
        ("[[servers]]\ntimeout = 'long'", "server 1: timeout can't be 'long'"),
        ("[[servers]]\njobs = true", "server 1: jobs can't be 'True'"),
        ("[[servers]]\nonly = [3]", "server 1: only can't be '[3]'"),
        ("[[servers]]\njobs = 0", "timeout is to be above 0, jobs and repeat at least 1"),
        ("[[servers]]\nendpoint = 'a:b'", "server 1 (a:b): "),
        ("[[servers]]\nspawn = 'rpc-server'", "must hold {port}"),
        ("[[servers]]\nendpoint = '127.0.0.1:1'\nspawn = 'x {port}'", "one of endpoint, spawn and client"),
        ("[[servers]]\nclient = 'x {endpoint}'\nspawn = 'x {port}'", "one of endpoint, spawn and client"),
        ("[[servers]]\nclient = 'x'", "must hold {endpoint}"),
        ("[[servers]]\nclient = 'x \"{endpoint}'", "No closing quotation"),
        ("[[servers]]\nclient = 'x {endpoint}'\nonly = ['device.index']", "no case and no rule matches 'device.index'"),
        ("[[servers]]\nprofile = 'most'", "--profile most: there is full"),
        ("[[servers]]\nversion = '9.9.9'", "version 9.9.9: known are 1.0.0"),
        ("[[servers]]\nonly = ['device.nothing']", "device.nothing"),
        ("[[servers]]\nexpect = 'nowhere.json'", "can't read"),
        ("[[servers]]\n[[servers]]", "another one is called ggml-rpc-ref serve; give each a `name`"),
        ("[[servers]", "can't be read as TOML"),
    ],
)
def test_a_file_that_is_no_fleet_is_said_to_be_none(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(text)
    with pytest.raises(Misuse) as caught:
        read(file)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_says_the_same_as_toml(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(FLEET)
    (tmp_path / "a.json").write_text(json.dumps(tomllib.loads(FLEET)))
    assert read(tmp_path / "a.json") == read(tmp_path / "a.toml")


@pytest.mark.parametrize("words", [("127.0.0.1:9",), ("--report", "a.sarif")])
def test_what_is_for_one_server_is_refused_for_many(tmp_path: Path, words: Sequence[str]) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(FLEET)
    code, _, said = conform("--targets", str(file), *words)
    assert (code, said.count("\n")) == (2, 1)


@pytest.mark.parametrize(("is_interrupted", "outcome"), [(True, Outcome.INTERRUPTED), (False, Outcome.TOOL_FAILED)])
def test_a_judge_that_ends_before_it_could_say_anything(is_interrupted: bool, outcome: Outcome) -> None:
    judge = _Judge(Member("a", endpoint="127.0.0.1:1"))
    if is_interrupted:
        judge.interrupt()
    else:
        judge._process.kill()
    row = judge.lost()
    judge.kill()
    assert row["exit_status"] == outcome
