"""What is known of clients and servers of all versions: tried again between our own ends, and told in SPEC.md."""

from __future__ import annotations

import logging
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from ggml_rpc_ref import upstream
from ggml_rpc_ref.client.trial import Outcome, trial
from ggml_rpc_ref.commands import skew as commands_skew
from ggml_rpc_ref.commands.main import app
from ggml_rpc_ref.derive.skew import skew as told
from ggml_rpc_ref.protocol.negotiation import breaks
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.server import Server
from ggml_rpc_ref.spec import skew
from ggml_rpc_ref.spec.skew import OURS, as_json, from_json, tried
from ggml_rpc_ref.spec.versions import PROFILES, V3_6_1, Version, accepts
from ggml_rpc_ref.upstream import trials
from tests.support.sabotage import SABOTAGES, InProcess
from tests.support.versions import HELLO_0, answers, reply, says, serving

RUN = CliRunner()
COUNT_1 = reply(b"\x01\0\0\0")


def version(text: str) -> Version:
    return Version.parse(text)


def test_every_pair_of_our_own_has_been_tried() -> None:
    ours = {(row.client, row.speaks): row for row in tried() if row.server == row.by == OURS}
    assert len(ours) == len(PROFILES) ** 2
    for (client, server), row in ours.items():
        # upstream's rule, and HELLO's form, in numbers of their own
        same_form = (client < (4, 0, 0)) == (server < (4, 0, 0))
        expected = {"closed"} if not same_form else {"works", "broken"} if accepts(client, server) else {"refused"}
        assert row.outcome in expected, row
        assert (row.outcome == "broken") == (row.outcome != "refused" and same_form and bool(list(breaks(client, server)))), row


def test_a_client_works_with_every_server_of_its_own_version() -> None:
    """Genuine ones included: those that were installed when the file was written."""
    assert {row.outcome for row in tried() if row.client == row.speaks} == {"works"}
    assert len({row.speaks for row in tried() if row.server != OURS}) >= 10
    assert len({row.client for row in tried() if row.by != OURS}) >= 10


def test_genuine_ends_do_with_ours_as_our_other_end_does() -> None:
    ours = {(row.client, row.speaks): row for row in tried() if row.server == row.by == OURS}
    others = [
        row
        for row in tried()
        if (row.outcome, row.step) != (ours[row.client, row.speaks].outcome, ours[row.client, row.speaks].step)
    ]
    assert others == []


def test_the_command_finds_it_as_it_is_known() -> None:
    arguments = ["skew", "--check", "--ours-only"]
    for text in ("3.0.0", "3.6.1", "4.0.1", "8.0.0"):
        arguments += ["--client", text]
    done = RUN.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert logging.getLogger("ggml_rpc_ref.server").level == logging.NOTSET  # silent for that time only
    assert len(done.output.splitlines()) == 4 * len(PROFILES)
    assert "client 3.6.1 on ours's server" not in done.output
    assert "client 3.6.1 on our server of 3.5.0: broken at GET_ALLOC_SIZE: closed" in done.output


def test_the_command_names_a_pair_that_gets_on_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        replace(row, outcome="works", step="", sign="") if (row.client, row.speaks) == (V3_6_1, version("3.5.0")) else row
        for row in tried()
    ]
    monkeypatch.setattr(skew, "tried", lambda: tuple(rows))
    done = RUN.invoke(app, ["skew", "--check", "--ours-only", "--client", "3.6.1", "--server", "3.5.0"])
    assert done.exit_code == 1
    assert "broken at GET_ALLOC_SIZE: closed; known is: client 3.6.1 on our server of 3.5.0: works" in done.output
    monkeypatch.setattr(skew, "tried", lambda: ())
    done = RUN.invoke(app, ["skew", "--check", "--ours-only", "--client", "3.6.1", "--server", "3.5.0"])
    assert done.exit_code == 1
    assert "it was not tried before" in done.output


def test_a_genuine_build_that_is_new_here_makes_nothing_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which builds a machine has is its own affair; what is known of a build that was tried is held."""
    genuine = next(row for row in tried() if row.server != OURS and row.outcome == "works")
    monkeypatch.setattr(commands_skew, "tried_pairs", lambda *_, **__: iter([genuine]))
    assert RUN.invoke(app, ["skew", "--check"]).exit_code == 0
    monkeypatch.setattr(skew, "tried", lambda: (replace(genuine, outcome="broken"),))
    assert RUN.invoke(app, ["skew", "--check"]).exit_code == 1
    monkeypatch.setattr(skew, "tried", lambda: tuple(row for row in tried() if row.server != genuine.server))
    done = RUN.invoke(app, ["skew", "--check"])
    assert done.exit_code == 0
    assert f"{genuine.server} was not tried before" in done.output


def test_the_file_is_read_as_it_was_written() -> None:
    assert tuple(from_json(as_json(tried()))) == tried()
    path = Path(skew.__file__).parent / "skew.json"
    assert path.read_text(encoding="utf-8") == as_json(tried())


def test_what_is_told() -> None:
    text = told()
    assert re.search(r"^\| \*\*5\.1\.0\*\* \|( *\|){6} *refuses \|.*\| works \| works \| refuses \|", text, re.MULTILINE)
    assert (
        "- client 3.6.0, server 3.5.0: ends at GET_ALLOC_SIZE (closed): the server closes the connection at GET_ALLOC_SIZE, of "
        in text
    )
    assert "- client 4.0.1, server 4.0.0: ends at GRAPH_COMPUTE (closed): the server computes other ops: 42 of 97" in text


# ------------------------------------------------------------------------------------------------------------ the trial

NUMBER = reply(b"\x20" + bytes(7))


@pytest.mark.parametrize(
    ("replies", "outcome", "step", "sign"),
    [
        ((says(3, 7, 0),), Outcome.REFUSED, "HELLO", ""),
        ((says(3, 6, 1), reply(bytes(5))), Outcome.BROKEN, "DEVICE_COUNT", "out of step"),
        ((says(3, 6, 1), COUNT_1, NUMBER, reply(b"\x07")), Outcome.BROKEN, "GET_MAX_SIZE", "out of step"),
        ((says(3, 6, 1), COUNT_1, NUMBER, NUMBER), Outcome.BROKEN, "GET_DEVICE_MEMORY", "closed"),
        ((says(3, 6, 1), COUNT_1, NUMBER, NUMBER, reply(bytes(16)), reply(bytes(16))), Outcome.BROKEN, "SET_TENSOR", "out of step"),
    ],
)
def test_where_a_trial_ends(replies: tuple[bytes, ...], outcome: Outcome, step: str, sign: str) -> None:
    with serving(answers(HELLO_0, *replies)) as (endpoint, _):
        assert trial(endpoint, V3_6_1, timeout=0.5) == (outcome, step, sign)


def test_wrong_numbers_are_noticed(tmp_path: Path) -> None:
    target = InProcess(tmp_path, SABOTAGES["graph.computes"])
    target.start()
    try:
        assert trial(str(target.endpoint), V3_6_1) == (Outcome.BROKEN, "GRAPH_COMPUTE", "wrong numbers")
    finally:
        target.stop()


def test_a_server_that_closes_on_hello() -> None:
    with serving(lambda sock: None) as (endpoint, _):
        assert trial(endpoint, V3_6_1, timeout=1) == (Outcome.CLOSED, "HELLO", "closed")


# ------------------------------------------------------------------------------------------------------ genuine clients

WARNED = "print('RPC server version mismatch: 3.5.0', file=sys.stderr)"


@pytest.mark.parametrize(
    ("script", "ended"),
    [
        ("print('HELLO'); print('works')", ("works", "", "")),
        ("print('HELLO'); print('wrong numbers')", ("broken", "GRAPH_COMPUTE", "wrong numbers")),
        (f"print('HELLO'); {WARNED}; print('refused')", ("refused", "HELLO", "")),
        (f"print('HELLO', flush=True); {WARNED}; os.abort()", ("refused", "HELLO", "")),
        ("print('HELLO', flush=True); os.abort()", ("closed", "HELLO", "closed")),
        # a warning of an older client, which went on
        (f"print('GET_ALLOC_SIZE', flush=True); {WARNED}; os.abort()", ("broken", "GET_ALLOC_SIZE", "closed")),
        ("print('GRAPH_COMPUTE', flush=True); time.sleep(60)", ("broken", "GRAPH_COMPUTE", "silence")),
    ],
)
def test_how_a_genuine_client_ended(
    script: str, ended: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trial.py"
    path.write_text(f"import os, sys, time\n{script}\n")
    monkeypatch.setattr(trials, "SCRIPT", path)
    build = SimpleNamespace(python=Path(sys.executable), libraries=tmp_path)
    assert trials.trial(build, "127.0.0.1:1", timeout=2.0) == ended  # type: ignore[arg-type]


@pytest.mark.upstream
def test_a_genuine_client_works_with_our_server_of_its_version(upstream_build: upstream.Build) -> None:
    with Server(make_host("oracle", memory=2**26, proto=upstream_build.protocol)) as server:
        assert upstream.trial(upstream_build, server.endpoint) == ("works", "", "")
