"""The suite finds what is wrong and nothing else: on our server, on servers that break one rule each, on processes that die."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ggml_rpc_ref import connect, upstream
from ggml_rpc_ref.commands.conform import JudgingOptions, exit_code, judge_and_report, judge_every_version
from ggml_rpc_ref.commands.ending import POLITE, as_ctrl_c
from ggml_rpc_ref.commands.exit_codes import ExitCode
from ggml_rpc_ref.conformance import (
    CASES,
    NO_FAULT,
    Case,
    CaseBegan,
    CaseEnded,
    Ended,
    Event,
    Given,
    Introduced,
    Options,
    Report,
    Result,
    Spawned,
    Started,
    Verdict,
    as_json,
    as_text,
    from_command,
    load,
    run,
    select,
    show,
    surprises,
)
from ggml_rpc_ref.conformance import judge as judge_events
from ggml_rpc_ref.conformance import runner as runner_module
from ggml_rpc_ref.conformance.peer import Facts, Subject
from ggml_rpc_ref.conformance.runner import introduce
from ggml_rpc_ref.conformance.verdict import Broken, NotJudged
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.net.stream import Endpoint, free_port, parse_endpoint
from ggml_rpc_ref.server.handlers import Session
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.server import Limits, Server
from ggml_rpc_ref.spec import observed as package
from ggml_rpc_ref.spec.messages import REQUESTS, AllocBuffer, AllocBufferReply
from ggml_rpc_ref.spec.observed import observed
from ggml_rpc_ref.spec.rules import FOR_SERVERS, RULES
from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES, V3_5_0, V3_6_1, V8_0_0, Version
from ggml_rpc_ref.upstream.rpc_server import spawn_command
from tests.support.command import run_command
from tests.support.sabotage import SABOTAGES, InProcess, Sabotage

HERE = Path(__file__).parent
SLOW = "graph.deep/chain-of-300000"
FAKE = [sys.executable, str(HERE / "support" / "fake_server.py"), "{port}"]


def quick() -> list[Case]:
    return [case for case in select() if case.id != SLOW]


def judge(target: Any, cases: Sequence[Case], timeout: float = 10.0) -> Report:
    """Judge without a diagnosis: test_diagnosis.py has that."""
    return run(target, cases, Options(timeout=timeout, profile=""))


def broken_rules(report: Report) -> set[str]:
    return {result.rule for result in report.results if result.verdict not in NO_FAULT}


def said(report: Report) -> str:
    return "\n".join(as_text(report))


# ---------------------------------------------------------------------------------------------------------- the registry


def test_ids_are_those_that_were_given_out() -> None:
    """An id never changes and never goes: people cite it and pin it. A new case adds a line to the file."""
    given = (HERE / "conformance_ids.txt").read_text().split()
    assert sorted(CASES) == sorted(given)


def test_every_case_says_what_it_is() -> None:
    for case in CASES.values():
        assert re.fullmatch(r"[a-z]+\.[a-z-]+/[a-z0-9]+(-[a-z0-9]+)*", case.id), case.id
        assert re.fullmatch(r"[A-Z][^{}]{20,170}\.", case.doc), f"{case.id}: {case.doc}"
        assert case.rule.id == case.id.split("/")[0]


def test_sentences_use_ggmls_names_and_no_words_of_ids() -> None:
    assert CASES["device.index/get-max-size-first-too-large"].doc.startswith("GET_MAX_SIZE for device number DEVICE_COUNT, ")
    assert CASES["tensor.type-known/copy-tensor-src-255"].doc.startswith("COPY_TENSOR (src) whose tensor has type 255, ")
    assert "type IQ2_XXS:" in CASES["data.round-trip/type-iq2-xxs"].doc
    assert "the tensor, size 2^64-1: refused" in CASES["data.in-tensor/get-size-2-64-less-1"].doc
    assert "the tensor, one-past-end: refused" in CASES["data.in-tensor/get-one-past-end"].doc


def test_every_rule_has_a_case_and_a_sabotage() -> None:
    judged = {case.rule.id for case in CASES.values()}
    assert judged == set(FOR_SERVERS)
    assert judged == set(SABOTAGES)


def test_every_command_has_a_good_path_and_wrong_sizes() -> None:
    presence = [id for id in CASES if id.startswith("frame.reply-presence/")]
    sizes = {id.split("/")[1].rpartition("-")[0] for id in CASES if id.startswith("frame.size-fixed/")}
    # every command of every version but COMM_ALLREDUCE, for which it takes a second server, and "nothing unasked"
    assert len(presence) == len(REQUESTS) - 1 + 1
    # all but SET_TENSOR, SET_TENSOR_2D and GRAPH_COMPUTE, whose size varies
    assert len(sizes & {id.split("/")[1] for id in presence}) == len(REQUESTS) - 1 - 3


# ----------------------------------------------------------------------------------------------------------- our server


@dataclass(frozen=True)
class Own:
    """All cases of a version on our server in this process.

    Attributes:
        version: what it spoke.
        asked: the cases.
        report: what became of them.
        refusals: case to the rules that the server said it refused for.
    """

    version: Version
    asked: list[Case]
    report: Report
    refusals: dict[str, set[str]]


@pytest.fixture(scope="module", params=[V3_6_1, V8_0_0], ids=str)
def own(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Own:
    version: Version = request.param
    asked = [case for case in (select() if version == V3_6_1 else quick()) if case.present(version)]
    refusals: dict[str, set[str]] = {}
    current = [""]  # before the first case: the newest form of HELLO may be refused

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if getattr(record, "event", "") == "refused":
                refusals.setdefault(current[-1], set()).add(record.rule)  # type: ignore[attr-defined]

    def named(case: Case) -> Case:
        def ask(subject: Subject) -> None:
            target.wait_until_left()
            current.append(case.id)
            case.run(subject)

        return replace(case, run=ask)

    log, listener = logging.getLogger("ggml_rpc_ref.server"), Listener()
    log.addHandler(listener)
    target = InProcess(tmp_path_factory.mktemp("cache"), Sabotage(version=version))
    try:
        report = judge(target, [named(case) for case in asked], timeout=30.0)
    finally:
        log.removeHandler(listener)
    return Own(version, asked, report, refusals)


def test_our_server_passes_every_case(own: Own) -> None:
    assert broken_rules(own.report) == set(), said(own.report)
    assert Counter(result.verdict for result in own.report.results) == {Verdict.PASS: len(own.asked)}, said(own.report)


@pytest.mark.parametrize("version", [version for version in PROFILES if version not in (V3_6_1, V8_0_0)], ids=str)
def test_our_server_passes_a_case_of_every_rule_at_every_version(version: Version, tmp_path: Path) -> None:
    """All cases of all versions take minutes: `conform --as every`."""
    chosen = [case for case in one_of_each(version) if case.present(version)]
    report = judge(InProcess(tmp_path, Sabotage(version=version)), chosen)
    assert Counter(result.verdict for result in report.results) == {Verdict.PASS: len(chosen)}, said(report)
    assert len(chosen) >= 50


ALSO_REFUSED_AS: dict[str, set[str]] = {
    "frame.size-bounded": {"data.in-tensor", "graph.size-exact"},
    "session.survives": {"buffer.known"},
    "session.frees": {"buffer.known", "tensor.buffer-known"},
    "session.isolated": {"buffer.known", "tensor.buffer-known", "graph.null-data", "graph.recompute-stored"},
    "buffer.freed-once": {"buffer.known"},
    "graph.recompute-freed": {"graph.recompute-stored"},
    "graph.uid-store": {"graph.recompute-stored"},
}
"""Rules whose cases another rule may refuse first, because what is sent breaks both."""


def test_our_server_refuses_each_case_for_its_own_rule(own: Own) -> None:
    """So a case breaks nothing but the rule that it names."""
    strays = {
        id: rules - {CASES[id].rule.id} - ALSO_REFUSED_AS.get(CASES[id].rule.id, set()) for id, rules in own.refusals.items() if id
    }
    assert {id: rules for id, rules in strays.items() if rules} == {}


def test_what_says_that_it_is_refused_is(own: Own) -> None:
    """So no such case passes without having asked."""
    promised = {case.id for case in own.asked if re.search(r": refused(;|\.| too)", case.doc)}
    assert promised - set(own.refusals) == set()
    assert len(promised) > (340 if own.version == V3_6_1 else 400)


# ------------------------------------------------------------------------------------------------------------- sabotage


def one_of_each(version: Version) -> list[Case]:
    """The first case of every rule, those left out that take a tenth of a second; the complete runs below have them."""
    slow = re.compile(
        r"data\.(hash-hit|cache-flag.*)/.*|session\.survives/.*-20|graph\.(deep/.*0000|uid-store/.*)|comm\.sum-large/.*"
        r"|frame\.segmentation/byte-by-byte"
    )
    asked = (case for case in reversed(quick()) if case.present(version) and not slow.fullmatch(case.id))
    return list({case.rule.id: case for case in asked}.values())


NEVER_ANSWER = {"frame.size-bounded", "session.survives"}
"""Rules whose sabotaged server leaves someone without an answer: that is a HANG, and another exit status than a FAIL's."""


@pytest.mark.parametrize("rule", SABOTAGES)
def test_the_rule_that_a_server_breaks_is_named_and_no_other(rule: str, tmp_path: Path) -> None:
    sabotage = SABOTAGES[rule]
    # half of the other rules: each is asked about half of the sabotaged servers
    others = one_of_each(sabotage.version)[list(SABOTAGES).index(rule) % 2 :: 2]
    chosen = {case.id: case for case in (*others, *(case for case in quick() if case.rule.id == rule))}
    report = judge(InProcess(tmp_path, sabotage), list(chosen.values()), sabotage.timeout)
    assert broken_rules(report) == {rule}, said(report)
    assert exit_code(report) == (4 if rule in NEVER_ANSWER else 0 if RULES[rule].level == "SHOULD" else 1)


@pytest.mark.parametrize(("rule", "count"), [("buffer.known", 14), ("tensor.in-buffer", 36), ("graph.shape", 120)])
def test_of_all_cases_none_accuses_another_rule(rule: str, count: int, tmp_path: Path) -> None:
    report = judge(InProcess(tmp_path, SABOTAGES[rule]), quick())
    assert broken_rules(report) == {rule}, said(report)
    assert sum(result.verdict is Verdict.FAIL for result in report.results) == count


# ------------------------------------------------------------------------------------------------- processes that die


def fake(behaviour: str) -> Spawned:
    return Spawned(f"a fake that will {behaviour}", [*FAKE, behaviour])


def test_a_server_gone_after_its_first_hello_is_unreachable() -> None:
    def answer_once(listener: socket.socket) -> None:
        with listener:
            connection, _ = listener.accept()
        with connection:
            connection.recv(9, socket.MSG_WAITALL)
            connection.sendall(bytes([3, 0, 0, 0, 0, 0, 0, 0, 3, 6, 1]))

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=answer_once, args=(listener,))
    thread.start()
    with pytest.raises(ConnectionError, match="refused"):
        runner_module.introduce(Endpoint("127.0.0.1", listener.getsockname()[1]), 10)
    thread.join()


UNKNOWN, AFTER = CASES["frame.command-known/17"], CASES["session.hello-once/at-once"]
GOOD = [CASES["device.count/at-least-1"], CASES["frame.command-known/unfinished"]]


@pytest.mark.parametrize(
    ("behaviour", "verdict", "words"),
    [
        ("exit", Verdict.CRASH, "exit status 7; last output: that was too much"),
        ("kill", Verdict.CRASH, "killed by SIGKILL"),
        ("hang", Verdict.HANG, "neither an end nor an answer"),
        ("hang-all", Verdict.HANG, "does not answer"),
    ],
)
def test_a_crash_or_hang_is_the_cases_own_and_the_next_gets_a_fresh_server(behaviour: str, verdict: Verdict, words: str) -> None:
    timeout = 0.5 if verdict is Verdict.HANG else 10.0
    report = judge(fake(behaviour), [GOOD[0], UNKNOWN, *GOOD], timeout)
    assert [result.verdict for result in report.results] == [Verdict.PASS, verdict, Verdict.PASS, Verdict.PASS], said(report)
    assert words in report.results[1].detail
    assert report.results[1].rule == "frame.command-known"
    assert exit_code(report) == 4


def test_a_server_that_is_not_ours_is_given_up_when_it_is_gone() -> None:
    port = free_port()
    command = [part.replace("{port}", str(port)) for part in (*FAKE, "exit")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        report = judge(Given(Endpoint("127.0.0.1", port)), [GOOD[0], UNKNOWN, *GOOD])
    assert [result.verdict for result in report.results] == [Verdict.PASS, Verdict.CRASH, Verdict.SKIP, Verdict.SKIP]
    assert exit_code(report) == 4
    assert "frame.command-known/17" in report.results[2].detail


def test_a_server_that_never_listens_is_unreachable() -> None:
    with pytest.raises(ConnectionError, match=r"ended before it listened: exit status 3; last output: no"):
        judge(Spawned("a dud", [sys.executable, "-c", "print('no'); raise SystemExit(3)", "{port}"]), GOOD)


def test_a_server_that_aborts_under_us_runs_no_debugger() -> None:
    target = Spawned("asked", [sys.executable, "-c", "import os; print('no stack:', os.environ['GGML_NO_BACKTRACE'])"])
    try:
        with pytest.raises(ConnectionError, match=r"last output: no stack: 1$"):
            target.start()
    finally:
        target.stop()


def test_the_command_that_upstream_prints_is_a_server_for_spawn(upstream_build: upstream.Build) -> None:
    printed = run_command("upstream", "command", upstream_build.name, "--devices", 3, "--cache").stdout.strip()
    target = from_command(printed)
    try:
        for _ in range(2):
            target.start()
            assert introduce(target.endpoint, 5.0).device_count == 3
        assert "genuine.py" in printed.split()[2]  # nothing of the command line stands between
    finally:
        target.stop()


def test_another_version_is_named_with_ours() -> None:
    with pytest.raises(ConnectionError, match=r"can't be judged: it speaks protocol 9\.2\.0, and this program 1\.0\.0, .*8\.0\.0$"):
        judge(fake("new"), GOOD)


def test_the_spawned_process_is_gone_afterwards() -> None:
    target = fake("close")
    judge(target, GOOD)
    assert target.pid is None


# ---------------------------------------------------------------------------------------------------- runner and verdicts


def invented(ask: Callable[[Subject], None], rule: str = "data.copy", **fields: Any) -> Case:
    return Case(f"{rule}/invented", "Asks something invented for a test.", ask, **fields)


def _raise(error: Exception) -> Callable[[Subject], None]:
    def ask(subject: Subject) -> None:
        raise error

    return ask


@pytest.mark.parametrize(
    ("error", "verdict", "rule", "words"),
    [
        (Broken("this", "that"), "FAIL", "data.copy", "expected this; that"),
        (Broken("this", "that", "device.count"), "FAIL", "device.count", "expected this; that"),
        (Broken("this", "that", verdict=Verdict.HANG), "HANG", "data.copy", "expected this; that"),
        (NotJudged("it has no such thing"), "UNSUPPORTED", "data.copy", "it has no such thing"),
        (NotJudged("we can't see it", Verdict.SKIP), "SKIP", "data.copy", "we can't see it"),
        (ZeroDivisionError("oops"), "ERROR", "data.copy", "ZeroDivisionError at test_conformance.py"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_case_raises_becomes_its_verdict(error: Exception, verdict: str, rule: str, words: str) -> None:
    (result,) = judge(fake("close"), [invented(_raise(error))]).results
    assert (result.verdict, result.rule) == (verdict, rule)
    assert words in result.detail


# ------------------------------------------------------------------------------------------------------------ interrupts


def test_events_tell_a_run_as_it_happens() -> None:
    events = list(judge_events(fake("close"), GOOD[:1], Options(profile="")))
    assert [type(event) for event in events] == [Started, Introduced, CaseBegan, CaseEnded, Ended]
    started, introduced, began, ended, last = events
    assert (started, last) == (Started("a fake that will close", 1, started.time), Ended(is_interrupted=False))
    assert (introduced.facts.version, introduced.facts.device_count) == (V3_6_1, 1)
    assert (began.case, ended.result.verdict) == (GOOD[0], Verdict.PASS)


def interrupting(number: signal.Signals) -> list[Case]:
    """A case that passes, one in which a signal comes, one that is never reached."""
    return [GOOD[0], invented(lambda subject: signal.raise_signal(number)), GOOD[1]]


def test_an_interrupt_is_an_event_and_the_server_is_stopped() -> None:
    target = fake("close")
    events = list(judge_events(target, interrupting(signal.SIGINT), Options(profile="")))
    assert [type(event) for event in events] == [Started, Introduced, CaseBegan, CaseEnded, CaseBegan, Ended]
    assert events[-1] == Ended(is_interrupted=True)
    assert target.pid is None


def test_a_run_that_only_reports_hands_the_interrupt_on() -> None:
    with pytest.raises(KeyboardInterrupt):
        run(fake("close"), interrupting(signal.SIGINT), Options(profile=""))


@pytest.fixture
def ending() -> Iterator[None]:
    """What the command line does with signals."""
    before = {number: signal.getsignal(number) for number in POLITE}
    as_ctrl_c()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("ending")
@pytest.mark.parametrize("number", [signal.SIGINT, *POLITE])
@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupted_run_reports_what_was_judged(
    number: signal.Signals, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    options = JudgingOptions(as_json=as_json)
    assert judge_and_report(fake("close"), interrupting(number), options, CASES) == 130
    out, err = capsys.readouterr()
    assert err == "ggml-rpc-ref: interrupted\n"
    if as_json:
        found = json.loads(out)
        assert (found["exit_status"], found["counts"], [row["id"] for row in found["cases"]]) == (130, {"PASS": 1}, [GOOD[0].id])
        jsonschema.validate(found, SCHEMA)
    else:
        interrupted, total = out.splitlines()
        assert interrupted == "interrupted: 1 of 3 cases were judged"
        assert total == "a fake that will close, protocol 3.6.1, 1 device: 1 cases, 1 PASS"


@pytest.mark.usefixtures("ending")
def test_an_interrupt_between_two_cases_loses_nothing_either(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def take(report: Report, event: Event) -> None:
        plain(report, event)
        if isinstance(event, CaseEnded):
            raise KeyboardInterrupt

    plain = Report.take
    monkeypatch.setattr(Report, "take", take)
    target = fake("close")
    assert judge_and_report(target, GOOD, JudgingOptions(), CASES) == 130
    assert "interrupted: 1 of 2 cases were judged" in capsys.readouterr().out
    assert target.pid is None


@pytest.mark.usefixtures("ending")
def test_an_interrupt_before_the_server_answers_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    target = fake("close")
    target.start = lambda: signal.raise_signal(signal.SIGINT)  # type: ignore[method-assign]
    assert judge_and_report(target, GOOD, JudgingOptions(), CASES) == 130
    assert capsys.readouterr().out.splitlines()[-1] == "a fake that will close: 0 cases, none run"
    assert judge_and_report(target, GOOD, JudgingOptions(as_json=True), CASES) == 130
    assert json.loads(capsys.readouterr().out)["target"] == {
        "name": "a fake that will close",
        "party": "server",
        "protocol": None,
        "device_count": None,
    }


# ------------------------------------------------------------------------------------------------------------- permission


def test_a_case_that_may_crash_needs_leave_on_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "is_loopback", lambda host: False)
    case = invented(lambda subject: None, may_crash=True)
    (result,) = judge(fake("close"), [case]).results
    assert result.verdict is Verdict.SKIP
    assert "--i-own-this-target" in result.detail
    (result,) = run(fake("close"), [case], Options(owned=True, profile="")).results
    assert result.verdict is Verdict.PASS


def test_a_failure_shows_what_was_said() -> None:
    report = judge(fake("exit"), [UNKNOWN])
    assert report.results[0].transcript[0].startswith("1 sent 9 literal bytes 9 bytes 0e0000")
    assert any(line.startswith("1 got the reply to HELLO 11 bytes 0300") for line in report.results[0].transcript)


def made(*verdicts: tuple[str, Verdict], rule: str = "") -> Report:
    """A report of cases with these ids and verdicts."""
    results = [Result(CASES[id], verdict, rule or CASES[id].rule.id, "this", "that", 0.5) for id, verdict in verdicts]
    return Report("a server", Facts(V3_6_1), results=results)


SHOULD, MUST, OTHER = "data.empty/set-at-end", "data.copy/same-buffer", "data.copy/onto-itself"


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ([(MUST, Verdict.PASS)], 0),
        ([(MUST, Verdict.FAIL)], 1),
        ([(MUST, Verdict.DESYNC)], 1),
        ([(SHOULD, Verdict.FAIL)], 0),
        ([(SHOULD, Verdict.CRASH)], 4),
        ([(MUST, Verdict.UNSUPPORTED), (OTHER, Verdict.SKIP)], 0),
        ([(MUST, Verdict.FAIL), (OTHER, Verdict.CRASH)], 4),
        ([(MUST, Verdict.HANG)], 4),
        ([(MUST, Verdict.CRASH), (OTHER, Verdict.ERROR)], 5),
        ([], 0),
    ],
)
def test_exit_status(verdicts: list[tuple[str, Verdict]], status: int) -> None:
    assert exit_code(made(*verdicts)) == status


# -------------------------------------------------------------------------------------------------------------- expected


def expectations(tmp_path: Path, rows: object) -> dict[str, Any]:
    path = tmp_path / "expected.json"
    path.write_text(json.dumps(rows))
    return load(path)


def row(verdict: str | list[str]) -> dict[str, object]:
    return {"verdict": verdict, "reason": "known"}


@pytest.mark.parametrize(
    ("verdict", "expected", "status", "news"),
    [
        (Verdict.FAIL, {MUST: row("FAIL")}, 0, ""),
        (Verdict.CRASH, {MUST: row("CRASH")}, 0, ""),
        (Verdict.SKIP, {MUST: row("FAIL")}, 0, ""),
        (Verdict.FAIL, {}, 1, f"{MUST}: FAIL, which is not expected"),
        (Verdict.PASS, {MUST: row("FAIL")}, 1, f"{MUST}: PASS where FAIL is expected (known)"),
        (Verdict.CRASH, {MUST: row("FAIL")}, 4, f"{MUST}: CRASH where FAIL is expected (known)"),
        (Verdict.UNSUPPORTED, {MUST: row("FAIL")}, 0, ""),
        (Verdict.CRASH, {MUST: row(["FAIL", "CRASH"])}, 0, ""),
        (Verdict.PASS, {MUST: row(["FAIL", "CRASH"])}, 1, f"{MUST}: PASS where FAIL or CRASH is expected (known)"),
        (Verdict.PASS, {"data.copy/gone": row("FAIL")}, 1, "data.copy/gone: no case has this id"),
        (Verdict.PASS, {OTHER: row("FAIL")}, 0, ""),  # not run, so nothing is known of it
    ],
)
def test_expected_failures_are_strict(verdict: Verdict, expected: dict[str, Any], status: int, news: str, tmp_path: Path) -> None:
    report, known = made((MUST, verdict)), expectations(tmp_path, expected)
    assert surprises(report.results, known) == ([news] if news else [])
    assert exit_code(report, known) == status


@pytest.mark.parametrize(
    "rows",
    [[], {"a": {}}, {"a": row("MAYBE")}, {"a": row(["FAIL", "MAYBE"])}, {"a": row([])}, {"a": "FAIL"}, {"a": {"verdict": "FAIL"}}],
)
def test_a_file_of_another_form_is_misuse(rows: object, tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="not a file of expected failures"):
        expectations(tmp_path, rows)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x89PNG\r\n" + bytes(range(128, 256)) * 4, "byte 0 is not UTF-8"),
        (b"[" * 100_000, "its JSON can't be read"),
        (b'{"a": ' + b"9" * 5000 + b"}", "its JSON can't be read"),
        (b'{"a"', "line 1 is not JSON: Expecting ':' delimiter"),
        (b"[]", "it is not a JSON object"),
        (json.dumps({"\x1b[2J": row("MAYBE")}).encode(), r"'\x1b[2J' has no verdict that a case may have"),
        (json.dumps({"a" * 9999: row("B" * 9999)}).encode(), "has no verdict that a case may have"),
        (b'{"a": {"verdict": "FAIL"}}', "'a' has no reason"),
        (b'{"a": "FAIL"}', "'a' is not an object with a verdict and a reason"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_of_another_form_is_named_not_printed(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "expected.json"
    path.write_bytes(data)
    with pytest.raises(Misuse, match="not a file of expected failures") as caught:
        load(path)
    sentence = str(caught.value).replace(str(path), "FILE")
    assert said in sentence
    assert sentence.isprintable()
    assert len(sentence) < 250


def test_a_missing_file_is_misuse(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="can't read"):
        load(tmp_path / "nowhere.json")


@pytest.mark.parametrize("how", ["not-allowed", "full"])
def test_a_server_that_turns_clients_away(how: str) -> None:
    """It closes without a byte: the sentence names the reasons that a client can't tell apart."""
    allow = [ip_network("192.0.2.0/24")] if how == "not-allowed" else []
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(make_host(memory=2**20), allow=allow, limits=Limits(connections=1)))
        if how == "full":
            stack.enter_context(connect(server.endpoint))
        with pytest.raises(ConnectionError, match="a server that does not take clients from this address, or is full, does so"):
            runner_module.introduce(parse_endpoint(server.endpoint), 5.0)


# --------------------------------------------------------------------------------------------------------------- reports


def test_text_has_each_failure_and_what_was_asked_under_its_rule() -> None:
    report = made(
        (MUST, Verdict.FAIL), (OTHER, Verdict.PASS), (SHOULD, Verdict.FAIL), ("frame.size-bounded/set-tensor-2-63", Verdict.CRASH)
    )
    assert said(report).splitlines() == [
        f"frame.size-bounded (MUST): {RULES['frame.size-bounded'].sentence}",
        "  CRASH       frame.size-bounded/set-tensor-2-63: expected this; that",
        f"              {CASES['frame.size-bounded/set-tensor-2-63'].doc}",
        "",
        f"data.empty (SHOULD): {RULES['data.empty'].sentence}",
        f"  FAIL        {SHOULD}: expected this; that",
        f"              {CASES[SHOULD].doc}",
        "",
        f"data.copy (MUST): {RULES['data.copy'].sentence}",
        f"  FAIL        {MUST}: expected this; that",
        f"              {CASES[MUST].doc}",
        "",
        "a server, protocol 3.6.1, 1 device: 4 cases, 1 PASS, 2 FAIL, 1 CRASH (1 of them of a SHOULD)",
    ]


def test_text_says_where_a_case_stumbled_over_another_rule() -> None:
    text = said(made((MUST, Verdict.DESYNC), rule="frame.reply-presence"))
    assert text.splitlines()[0].startswith("frame.reply-presence (MUST): ")
    assert f"  DESYNC      {MUST} (met on the way): expected this; that" in text.splitlines()


def test_text_tells_expected_failures_from_news(tmp_path: Path) -> None:
    known = expectations(tmp_path, {MUST: row("FAIL"), OTHER: row("FAIL")})
    lines = list(as_text(made((MUST, Verdict.FAIL), (OTHER, Verdict.PASS)), known))
    assert f"  FAIL        {MUST}: expected this; that [expected]" in lines
    assert f"              {CASES[MUST].doc}" not in lines
    assert f"unexpected: {OTHER}: PASS where FAIL is expected (known)" in lines


SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["schema_version", "tool", "target", "diagnosis", "started", "counts", "unexpected", "exit_status", "cases"],
    "additionalProperties": False,
    "properties": {
        "schema_version": {"const": 1},
        "tool": {"type": "object", "required": ["name", "version"]},
        "target": {
            "type": "object",
            "required": ["name", "protocol", "device_count"],
            "properties": {"protocol": {"type": ["string", "null"], "pattern": r"^\d+\.\d+\.\d+$"}},
        },
        "diagnosis": {"type": ["object", "null"]},
        "started": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$"},
        "counts": {"type": "object", "propertyNames": {"enum": list(Verdict)}, "additionalProperties": {"type": "integer"}},
        "unexpected": {"type": ["array", "null"], "items": {"type": "string"}},
        "exit_status": {"enum": [0, 1, 4, 5, 130]},
        "cases": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "verdict", "level", "rule", "detail", "duration"],
                "additionalProperties": False,
                "properties": {
                    "id": {"type": "string"},
                    "verdict": {"enum": list(Verdict)},
                    "level": {"enum": ["MUST", "SHOULD", "MAY"]},
                    "rule": {"enum": list(RULES)},
                    "broken_rule": {"enum": list(RULES)},
                    "detail": {"type": "string"},
                    "what": {"type": "string"},
                    "duration": {"type": "number", "minimum": 0},
                    "expected": {"type": "string"},
                    "actual": {"type": "string"},
                    "transcript": {"type": "array", "items": {"type": "string"}, "maxItems": 40},
                    "server_said": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
                    "death": {"type": "string"},
                    "waits_for": {"type": "string"},
                    "runs": {"type": "integer"},
                    "failed": {"type": "integer"},
                },
            },
        },
    },
}


def test_json_is_as_promised() -> None:
    report = judge(fake("exit"), [GOOD[0], UNKNOWN])
    found = json.loads(json.dumps(as_json(report, exit_code(report))))
    jsonschema.validate(found, SCHEMA)
    good, bad = found["cases"]
    assert set(good) == {"id", "verdict", "level", "rule", "detail", "duration", "what"}
    assert (bad["verdict"], bad["rule"], bad["broken_rule"], bad["level"]) == (
        "CRASH",
        "frame.command-known",
        "frame.command-known",
        "MUST",
    )
    assert found["counts"] == {"PASS": 1, "CRASH": 1}
    assert found["exit_status"] == 4


def test_show_explains_rules_and_cases() -> None:
    rule = "\n".join(show("data.in-tensor"))
    assert RULES["data.in-tensor"].sentence in rule
    assert observed().rules["data.in-tensor"] in rule
    assert "data.in-tensor/set-one-past-end  SET_TENSOR of a range" in rule
    assert CASES[MUST].doc in "\n".join(show(MUST))
    with pytest.raises(Misuse, match="no rule and no case"):
        list(show("data.nothing"))


def test_patterns_choose_by_case_and_by_rule() -> None:
    assert [case.id for case in select(["data.copy/same-*"])] == [MUST]
    assert {case.rule.id for case in select(["data.copy*", "device.count"])} == {"data.copy", "data.copy-fits", "device.count"}
    with pytest.raises(Misuse, match=r"no case and no rule matches 'data\.nothing'"):
        select(["data.copy", "data.nothing"])


# ---------------------------------------------------------------------------------------------------------- command line


def command_line(*words: str) -> subprocess.CompletedProcess[str]:
    return run_command(*words)


def spawn(behaviour: str) -> list[str]:
    return ["conform", "--spawn", shlex.join([*FAKE, behaviour]), "--only", "frame.command-known/*"]


def test_the_default_judges_our_own_server() -> None:
    done = command_line("conform", "--only", "device.*", "--only", "graph.computes/add")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].startswith("what ggml-rpc-ref serve does (looked at for ")
    assert done.stdout.splitlines()[-1] == "ggml-rpc-ref serve, protocol 3.6.1, 2 devices: 22 cases, 22 PASS"


@pytest.mark.parametrize(
    ("codes", "status", "asked"),
    [({}, 0, 15), ({"3.0.0": 1, "8.0.0": 0}, 1, 15), ({"3.0.0": 4, "5.0.0": 1}, 4, 15), ({"3.0.0": 130}, 130, 3)],
)
def test_every_version_is_judged_and_the_worst_counts(
    codes: dict[str, int], status: int, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []

    def judge_one(target: Spawned, cases: object, options: JudgingOptions, known: object) -> ExitCode:
        assert target.name == f"ggml-rpc-ref serve --proto {options.own}"
        judged.append(str(options.own))
        return ExitCode(codes.get(judged[-1], 0))

    monkeypatch.setattr("ggml_rpc_ref.commands.conform.judge_and_report", judge_one)
    assert judge_every_version([], JudgingOptions(), "", CASES) == status
    assert judged == list(map(str, PROFILES))[:asked]


@pytest.mark.parametrize(
    ("words", "status", "where", "text"),
    [
        (spawn("close"), 0, "stdout", "8 cases, 8 PASS"),
        (spawn("exit"), 4, "stdout", "the server died: exit status 7"),
        ([*spawn("exit"), "--json"], 4, "stdout", '"verdict": "CRASH"'),
        (spawn("new"), 3, "stderr", "it speaks protocol 9.2.0, and this program 1.0.0, "),
        (["conform", "--as", "8.0.0", "--only", "session.caps"], 0, "stdout", "protocol 8.0.0, 2 devices: 4 cases, 4 PASS"),
        (
            [*spawn("close"), "--as", "3.0.0"],
            3,
            "stderr",
            "this client 3.0.0 (llama.cpp b6751 to b7041), and a client goes on only",
        ),
        (["conform", "--as", "9.9.9"], 2, "stderr", "--as 9.9.9: known are 1.0.0, "),
        (["conform", "--as", "every", "127.0.0.1:1"], 2, "stderr", "--as every judges our own server, several times"),
        (["conform", "--as", "every", "--report", "x.json"], 2, "stderr", "give it no server, and no file"),
        (["conform", "127.0.0.1:1", "--timeout", "1"], 3, "stderr", "ggml-rpc-ref: can't connect to 127.0.0.1:1"),
        (["conform", "127.0.0.1:0"], 2, "stderr", "is not an endpoint"),
        (["conform", "127.0.0.1:1", "--spawn", "x {port}"], 2, "stderr", "not both"),
        (["conform", "--spawn", "rpc-server -p 50052"], 2, "stderr", "must hold {port}"),
        (["conform", "--spawn", "no-such-program-anywhere {port}"], 2, "stderr", "can't start"),
        (["conform", "--only", "nothing.*"], 2, "stderr", "matches 'nothing.*'"),
        (["conform", "--expect", "/nowhere.json"], 2, "stderr", "can't read /nowhere.json"),
        (["conform", "--list", "--only", "device.count"], 0, "stdout", "device.count/at-least-1  MUST: DEVICE_COUNT: at least 1."),
        (["conform", "--list", "--json"], 0, "stdout", '"schema_version": 1'),
        (["show", "data.copy"], 0, "stdout", RULES["data.copy"].sentence),
        (["show", "data.nothing"], 2, "stderr", "no rule and no case has the id 'data.nothing'"),
    ],
    ids=lambda value: "-".join(value)[-40:] if isinstance(value, list) else "",
)
def test_command_line(words: list[str], status: int, where: str, text: str) -> None:
    done = command_line(*words)
    assert (done.returncode, text in getattr(done, where)) == (status, True), done
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("number", POLITE)
def test_a_signal_ends_the_server_too(number: signal.Signals) -> None:
    """SIGHUP comes when a terminal is closed; the server is in a session of its own, and would live on for ever."""
    words = [sys.executable, "-m", "ggml_rpc_ref", "conform", "--spawn", shlex.join([*FAKE, "hang-all"]), "--timeout", "60"]
    with subprocess.Popen([*words, "--only", "frame.command-known/17"], cwd=HERE.parent) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + 60
        while not (found := children.read_text().split()) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(30) == 130
    assert found
    assert not Path(f"/proc/{found[0]}").exists()


def test_a_terminal_that_is_closed_costs_no_report(tmp_path: Path) -> None:
    """Nothing can be said to it any more."""
    report = tmp_path / "report.json"
    words = ["conform", "--spawn", shlex.join([*FAKE, "hang-all"]), "--timeout", "60", "--report", str(report)]
    process, terminal = pty.fork()
    if not process:
        os.execv(sys.executable, [sys.executable, "-m", "ggml_rpc_ref", *words])
    children = Path(f"/proc/{process}/task/{process}/children")
    while not children.read_text():  # the server, which is started once the run has begun
        time.sleep(0.02)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 130
    assert json.loads(report.read_text())["exit_status"] == 130


def test_a_server_that_ends_at_once_is_tried_on_another_port() -> None:
    """Another process may have taken the first one."""
    script = f"mkdir {{tmp}}/tried || exec {shlex.join(FAKE)} good; exit 1"
    target = Spawned("a fake", ["sh", "-c", script])
    try:
        target.start()
        assert not target.death()
    finally:
        target.stop()


def test_a_command_is_cut_as_a_shell_would() -> None:
    assert from_command("a 'b c' {port}").name == "a 'b c' {port}"
    with pytest.raises(Misuse, match="No closing quotation"):
        from_command("a 'b {port}")


class Generous(Session):
    """Grants 32 bytes more than was asked for, and says so, as ik_llama.cpp's server does."""

    def alloc_buffer(self, request: AllocBuffer) -> AllocBufferReply:
        answer = Session.handlers[AllocBuffer]
        reply = answer(self, replace(request, size=request.size + 32 * (request.size < 2**40)))
        assert isinstance(reply, AllocBufferReply)
        return reply

    handlers = Session.handlers | {AllocBuffer: alloc_buffer}


def test_a_server_that_grants_more_than_was_asked_for_is_not_accused(tmp_path: Path) -> None:
    cases = select(["buffer.alloc-size/*", "tensor.in-buffer/*", "tensor.empty/at-end", "data.empty/*", "data.copy-fits/*"])
    report = judge(InProcess(tmp_path, Sabotage(session=Generous)), cases)
    assert broken_rules(report) == set(), said(report)
    assert len(report.results) > 30


def test_the_ops_of_a_fork_are_not_judged_by_upstreams_numbers() -> None:
    facts = Facts(V3_5_0, announced=Version(3, 5, 2))
    with pytest.raises(
        NotJudged, match=r"it says 3\.5\.2, as ik_llama\.cpp since January 2026 does, whose ops have numbers of their own"
    ):
        Subject(Endpoint("127.0.0.1", 1), 1.0, facts).op("ADD")
    with pytest.raises(NotJudged, match="whose types have numbers of their own"):
        CASES["tensor.type-known/number-31"].run(Subject(Endpoint("127.0.0.1", 1), 1.0, facts))
    assert Subject(Endpoint("127.0.0.1", 1), 1.0, replace(facts, announced=V3_5_0)).op("ADD") == 2
    assert (facts.spoken, replace(facts, announced=V3_5_0).spoken) == ("3.5.2, judged as 3.5.0", "3.5.0")


# --------------------------------------------------------------------------------------------------------------- upstream


def test_what_kills_the_genuine_server_is_marked() -> None:
    known = load(HERE / "upstream_expected.json")
    deadly = {Verdict.CRASH, Verdict.HANG}
    assert {id for id, row in known.items() if deadly.intersection(row.verdicts) and not CASES[id].may_crash} == set()


@pytest.mark.upstream
def test_the_genuine_server_fails_exactly_what_is_known_of_it(upstream_build: upstream.Build) -> None:
    """Two CPU devices and a cache, so that as much as can be is judged; one thread, because several spin while they wait.

    Each reason in the file was read in the sources of the release.
    """
    target = Spawned("genuine rpc-server", spawn_command(upstream_build))
    report, known = judge(target, select(), timeout=3.0), load(HERE / "upstream_expected.json")
    assert surprises(report.results, known) == [], said(report)
    assert exit_code(report, known) == 0


OF_BUILDS = sorted((HERE / "upstream_expected").glob("*.json"))
"""What is known of genuine builds of other versions, recorded by running all cases on them."""


@pytest.mark.parametrize("path", OF_BUILDS, ids=lambda path: path.stem)
def test_what_is_known_of_another_build_is_about_cases_of_its_version(path: Path) -> None:
    version, known = Version.parse(path.stem), load(path)
    asked = {case.id for case in select() if case.present(version)}
    assert set(known) <= asked
    # a fork is not asked what takes the numbers of ops
    assert len(known) > (150 if version in PROFILES else 100)


OBSERVED = sorted(Path(package.__file__).parent.glob("upstream-*.json"))
"""What builds were observed to do, rule by rule."""


@pytest.mark.parametrize("path", OBSERVED, ids=lambda path: path.stem)
def test_what_was_observed_of_a_build_does_not_say_that_it_does_what_it_fails(path: Path) -> None:
    version = Version.parse(path.stem.split("-")[1])
    said = observed(version).rules
    failed = {CASES[id].rule.id for id in load(HERE / f"upstream_expected{'' if version == DEFAULT else f'/{version}'}.json")}
    assert {id: said[id] for id in failed if said[id] in ("does so", "closes", "refuses")} == {}


def test_no_reason_speaks_of_another_build_alone() -> None:
    """What was seen on the build itself comes first, and then perhaps where the cause was read."""
    assert [f"{path.stem} {id}" for path in OF_BUILDS for id, row in load(path).items() if row.reason.startswith("as ")] == []


def test_the_newest_genuine_server_fails_what_is_known_of_it(newest_build: upstream.Build) -> None:
    """The rules that only it has; all others were judged when the file was recorded, and take minutes."""
    cases = [case for case in select() if case.id.startswith(("data.rows-", "comm."))]
    target = Spawned("genuine rpc-server", spawn_command(newest_build))
    report, known = judge(target, cases, timeout=3.0), load(HERE / "upstream_expected" / "8.0.0.json")
    assert surprises(report.results, known) == [], said(report)
    assert Counter(result.verdict for result in report.results)[Verdict.CRASH] == 5


@pytest.mark.parametrize("number", POLITE)
def test_a_signal_while_a_server_is_born_does_not_leave_it_behind(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes when the process is there and nobody has its number yet."""

    class Born(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            born.append(self)
            signal.raise_signal(number)

    born: list[subprocess.Popen[bytes]] = []
    before = signal.signal(number, lambda *_: sys.exit(130))
    target = fake("close")
    monkeypatch.setattr(subprocess, "Popen", Born)
    try:
        with pytest.raises(SystemExit):
            target.start()
    finally:
        signal.signal(number, before)
        target.stop()
    assert born[0].poll() is not None
