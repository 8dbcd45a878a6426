"""Reproducers of clients' faults: the same fault again against the file and against the script, none from a client without it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ggml_rpc_ref.commands.failure import is_of_client, replay_to_client
from ggml_rpc_ref.conformance import NO_FAULT, Case, Result
from ggml_rpc_ref.conformance.clients import reproducer
from ggml_rpc_ref.conformance.clients.cases import CLIENT_CASES
from ggml_rpc_ref.conformance.clients.judging import Options, judge
from ggml_rpc_ref.conformance.events import Report
from ggml_rpc_ref.conformance.peer import TranscriptPiece
from ggml_rpc_ref.errors import Misuse
from tests.support.mini_client import APART, Here, Mini
from tests.support.sabotage_clients import SABOTAGED

RULES = ["frame.reply-checked", "frame.reply-missing", "session.version-accepted", "session.lives", "graph.status", "comm.refused"]
"""Rules of what a client does about a reply."""


def failure(rule: str) -> Result:
    """Return the first failure that a client which breaks a rule shows."""
    it, report = SABOTAGED[rule], Report(known=CLIENT_CASES)
    cases: list[Case] = [case for case in CLIENT_CASES.values() if case.rule.id == rule and case.present(it.version)]
    for event in judge(Here(it.kind, it.version), cases[:12], Options(20.0, it.version, calm=0.01)):
        report.take(event)
    return next(result for result in report.results if result.verdict not in NO_FAULT)


def made_of(result: Result) -> reproducer.Reproducer:
    return reproducer.make(result.record, result.case.id, result.detail, str(result.verdict))


@pytest.mark.parametrize("rule", RULES)
def test_the_client_does_it_again_and_another_does_not(rule: str) -> None:
    it = SABOTAGED[rule]
    made = reproducer.parse(made_of(failure(rule)).text())
    again = reproducer.replay(made, Here(it.kind, it.version), 20.0)
    assert again.is_same, again.lines
    right = reproducer.replay(made, Here(Mini, it.version), 20.0)
    assert not right.is_same, right.lines


@pytest.mark.parametrize("rule", ["frame.requests", "tensor.zero-filled"])
def test_what_requests_hold_is_left_to_the_case(rule: str) -> None:
    made = made_of(failure(rule))
    assert made.ended == ""
    with pytest.raises(Misuse, match=f"conform-client --only {made.id} judges it"):
        reproducer.replay(made, Here(Mini, SABOTAGED[rule].version), 20.0)


def test_the_script_is_a_server_that_says_what_came(tmp_path: Path) -> None:
    rule = "frame.reply-missing"
    it, made = SABOTAGED[rule], made_of(failure(rule))
    path = tmp_path / "server.py"
    path.write_text(reproducer.as_python(made, path.name))
    assert len(reproducer.SCRIPT.splitlines()) <= 42
    for ports in ([], ["x"]):
        bare = subprocess.run([sys.executable, str(path), *ports], capture_output=True, text=True, check=False)
        assert (bare.returncode, "PORT [PORT]" in bare.stderr, "Traceback" in bare.stderr) == (1, True, False)
    line = [sys.executable, "-u", str(path), "0", "0"]
    script = path.read_text().replace("127.0.0.1", APART)
    path.write_text(
        script.replace("]\n\n\ndef serve", "]\nprint(*(s.getsockname()[1] for s in servers), flush=True)\n\n\ndef serve")
    )
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        ports = server.stdout.readline().split()
        Here(it.kind, it.version).run([f"{APART}:{port}" for port in ports], 20.0, None)
        out = server.stdout.read()
        assert server.wait(20) == 0
    recorded = [words for line in made.lines for words in line.requests]
    assert [
        row.partition(" - recorded: ")[2] for row in out.splitlines() if "command" in row and "more than" not in row
    ] == recorded
    assert f"recorded: {made.about}" in out


CLIENT = """
import socket, sys
host, port = sys.argv[1].split(":")
peer = socket.create_connection((host, int(port)), 10)
peer.sendall(bytes.fromhex({request!r}))
peer.recv(100)
sys.exit({status})
"""


def test_replay_runs_a_command_and_tells_whether_it_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hello = "0e" + 8 * "00"
    record = [
        TranscriptPiece(1, "got", "HELLO", b""),
        TranscriptPiece(1, "sent", "", b"\x01"),
        TranscriptPiece(1, "got", "end", b""),
        TranscriptPiece(0, "got", "the client ended well", b""),
    ]
    path = tmp_path / "failure.json"
    path.write_text(reproducer.make(record, "an.id/here", "It says so.", "FAIL").text())
    assert is_of_client(path)
    for request, status, code in ((hello, 0, 1), (hello, 3, 0), ("0b" + 8 * "00", 0, 0)):
        client = tmp_path / "client.py"
        client.write_text(CLIENT.format(request=request, status=status))
        command = shlex.join([sys.executable, str(client), "{endpoint}"])
        assert replay_to_client(path, command, 2, 20.0, as_json=True) == code
        assert json.loads(capsys.readouterr().out)["same"] == 2 * code


def test_what_is_too_large_or_no_reproducer_is_said() -> None:
    with pytest.raises(Misuse, match="a reply is too large for a reproducer"):
        reproducer.make([TranscriptPiece(1, "sent", f"{reproducer.CUT}100000 bytes", b"1")], "an.id/here", "", "FAIL")
    for text in (
        "{}",
        "[]",
        "",
        '{"form": "ggml-rpc-ref reproducer of a client", "connections": [{"endpoint": 0, "steps": [{"reply": "x"}]}]}',
        '{"form": "ggml-rpc-ref reproducer of a client", "connections": [{"endpoint": 1e999, "steps": []}]}',
    ):
        with pytest.raises(Misuse, match="not a reproducer"):
            reproducer.parse(text)
