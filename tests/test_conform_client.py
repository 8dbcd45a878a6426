"""Clients under test: rules, cases, clients that break one rule each, genuine ones, and the command."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import jsonschema
import pytest

from ggml_rpc_ref import upstream
from ggml_rpc_ref.client import scenario
from ggml_rpc_ref.commands.main import main as cli_main
from ggml_rpc_ref.conformance import NO_FAULT, Case, Outcome, Report, Verdict, as_text, load, outcome, select, show, surprises
from ggml_rpc_ref.conformance.clients import program as program_module
from ggml_rpc_ref.conformance.clients.cases import CLIENT_CASES
from ggml_rpc_ref.conformance.clients.heard import Ended
from ggml_rpc_ref.conformance.clients.judging import Options, SpeaksNothing, judge
from ggml_rpc_ref.conformance.clients.program import ByHand, Command, Program
from ggml_rpc_ref.errors import Misuse, Unsupported, Violation
from ggml_rpc_ref.net.stream import PeerClosed
from ggml_rpc_ref.server import communicator
from ggml_rpc_ref.spec.rules import FOR_CLIENTS
from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES, V8_0_0, Version
from tests.support import requirements
from tests.support.mini_client import APART, Died, Here, Link, Mini
from tests.support.sabotage_clients import SABOTAGED

HERE = Path(__file__).parent
CALM = 0.01
FEW = [
    "*/honest", "frame.complete", "session.says-hello", "tensor.zero-filled", "device.named",
    "frame.reply-checked/get-alignment-one-more", "frame.reply-missing/get-tensor-closed",
    "frame.segmentation/each-byte-of-replies",
    "session.version-accepted/higher-major", "session.speaks-older", "session.client-caps", "session.unharmed/get-alignment-0",
    "session.lives/get-tensor-cut-off", "device.aligned", "device.within-max-size", "buffer.alloc-refused/first", "tensor.room",
    "data.hash-asked/no-cache", "data.hash-large", "data.copy-refused", "graph.status/failed", "comm.refused",
]  # fmt: skip
"""One or a few cases of each rule: of those that differ in the command alone, one."""


def judged(
    program: Program, cases: Sequence[Case], version: Version | None, timeout: float = 60.0, address: str = "127.0.0.1"
) -> Report:
    """Judge a client in this process."""
    report = Report(known=CLIENT_CASES)
    for event in judge(program, cases, Options(timeout, version, ((address, 0), (address, 0)), calm=CALM)):
        report.take(event)
    return report


def broken_rules(report: Report) -> set[str]:
    return {result.rule for result in report.results if result.verdict not in NO_FAULT}


def verdicts(report: Report) -> Counter[str]:
    return Counter(result.verdict.value for result in report.results)


# ---------------------------------------------------------------------------------------------------------- the registry


def test_ids_are_those_that_were_given_out() -> None:
    """An id never changes and never goes: people cite it and pin it. A new case adds a line to the file."""
    given = (HERE / "client_case_ids.txt").read_text().split()
    assert sorted(CLIENT_CASES) == sorted(given)


def test_every_case_says_what_it_is() -> None:
    for case in CLIENT_CASES.values():
        assert re.fullmatch(r"[a-z]+\.[a-z-]+/[a-z0-9]+(-[a-z0-9]+)*", case.id), case.id
        assert re.fullmatch(r"[A-Z][^{}]{20,170}\.", case.doc), f"{case.id}: {case.doc}"
        assert case.rule.binds in ("client", "both")


def test_every_rule_for_clients_has_a_case_and_a_sabotage() -> None:
    assert {case.rule.id for case in CLIENT_CASES.values()} == set(FOR_CLIENTS) == set(SABOTAGED)


def test_rules_say_whom_they_bind() -> None:
    for rule in FOR_CLIENTS.values():
        if rule.binds == "client":
            assert re.search(r"\b(client|GRAPH_RECOMPUTE|use_count|SET_TENSOR_HASH)\b", rule.sentence), rule.id


# ------------------------------------------------------------------------------------------------------------ sabotages


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers that wait for each other do so for a moment only."""
    monkeypatch.setattr(communicator, "LISTENS", 0.5)
    monkeypatch.setattr(communicator, "TRIES", 0.5)


def cases_for(rule: str) -> list[Case]:
    # an upload of 10 MiB takes its time, so of a client that makes one less is judged
    few = select(["*/honest"] if SABOTAGED[rule].kind.hashes else FEW, among=CLIENT_CASES)
    mine = [case for case in CLIENT_CASES.values() if case.rule.id == rule]
    return list(dict.fromkeys([*few, *(mine[:2] if len(mine) > 10 else mine)]))


@pytest.mark.parametrize("rule", SABOTAGED)
def test_a_client_that_breaks_a_rule_is_named_for_it(rule: str, quick: None) -> None:
    it = SABOTAGED[rule]
    # two servers that add up meet at 127.0.0.1
    address = "127.0.0.1" if rule.startswith("comm.") else APART
    report = judged(Here(it.kind, it.version), cases_for(rule), it.version, address=address)
    assert broken_rules(report) == {rule}, "\n".join(f"{r.case.id}: {r.detail}" for r in report.results if r.rule != rule)
    assert not report.is_interrupted


@pytest.mark.parametrize("version", [DEFAULT, V8_0_0, min(PROFILES)], ids=str)
def test_nothing_is_found_with_a_client_that_follows_the_rules(version: Version, quick: None) -> None:
    report = judged(Here(Mini, version), select(FEW, among=CLIENT_CASES), version)
    assert broken_rules(report) == set()
    assert verdicts(report)["PASS"] >= 20


def test_a_client_that_fails_with_an_honest_server_is_not_judged_further() -> None:
    report = judged(Here(SABOTAGED["graph.flag-set"].kind, DEFAULT), select(FEW, among=CLIENT_CASES), DEFAULT)
    text = "\n".join(as_text(report))
    assert "fix first: with an honest server the client fails: exit status 1; its last output: WrongError: t2;" in text
    assert outcome(report) is Outcome.NON_CONFORMANT
    assert verdicts(report)["SKIP"] > 10


# ------------------------------------------------------------------------------------------------------------ our client


class Ours:
    """The package's client doing all that it can, in this process."""

    name, endpoints = "our client", 2

    def __init__(self, version: Version | None, large: int = 2**20) -> None:
        self.version, self.large = version, large

    def run(self, endpoints: Sequence[str], timeout: float, connections: object) -> Ended:
        """Run it once."""
        try:
            scenario.run(endpoints, self.version, 10.0, large=self.large)
        except (scenario.WrongNumbersError, ConnectionError, TimeoutError, Unsupported, Violation, Misuse) as error:
            return Ended(1, lines=(f"{type(error).__name__}: {error}",))
        return Ended(0)


OURS = [
    "*/honest",
    "*/get-alignment-*",
    "*/alloc-buffer-*",
    "*/get-tensor-*",
    "device.*",
    "session.*",
    "buffer.*",
    "tensor.*",
    "data.*",
]


@pytest.mark.parametrize("version", [None, DEFAULT, V8_0_0, min(PROFILES)], ids=str)
def test_our_client_follows_every_rule_unless_it_is_told_to_speak_3_6_1(version: Version | None) -> None:
    report = judged(Ours(version), select(OURS, ["session.unharmed/device-count-2*"], CLIENT_CASES), version)
    # as a client of 3.6.1 it keeps to its version, as llama.cpp's does
    assert broken_rules(report) == ({"session.speaks-older"} if version == DEFAULT else set())
    assert verdicts(report)["PASS"] > 60


def test_our_client_asks_for_large_uploads_by_their_hash() -> None:
    report = judged(Ours(None, scenario.LARGE), select(["data.hash-*"], among=CLIENT_CASES), None)
    assert verdicts(report) == {"PASS": 5}


def test_the_newest_version_that_the_client_accepts_is_found_out() -> None:
    for version in (DEFAULT, Version(5, 1, 0), V8_0_0):
        report = judged(Here(Mini, version), select(["frame.requests"], among=CLIENT_CASES), None)
        assert report.facts is not None
        assert report.facts.version == version


def test_a_client_that_goes_on_with_nobody() -> None:
    class Silent(Mini):
        """Connects and leaves."""

        def run(self) -> None:
            Link(self, self.endpoints[0])

    with pytest.raises(SpeaksNothing, match=r"went on with no server \(tried: 8\.0\.0, .*1\.0\.0\)"):
        judged(Here(Silent, DEFAULT), select(["frame.requests"], among=CLIENT_CASES), None)


# --------------------------------------------------------------------------------------------------------------- faults


def test_a_client_that_hangs_or_dies_is_named_for_it() -> None:
    class Hangs(Mini):
        """Waits for ever where its connection is closed."""

        def receive(self, link: Link) -> Any:
            try:
                return super().receive(link)
            except PeerClosed:
                time.sleep(3)
                raise

    class Crashes(Mini):
        """Dies by SIGSEGV where its connection is closed."""

        def receive(self, link: Link) -> Any:
            try:
                return super().receive(link)
            except PeerClosed:
                raise Died(11) from None

    cases = select(["frame.reply-missing/get-max-size-closed"], among=CLIENT_CASES)
    for kind, verdict in ((Hangs, Verdict.HANG), (Crashes, Verdict.CRASH)):
        (result,) = judged(Here(kind, DEFAULT), cases, DEFAULT, 2.0).results
        assert (result.verdict, result.rule) == (verdict, "session.unharmed")
        assert result.case.rule.id == "frame.reply-missing"


def test_a_client_that_asks_again_on_another_connection_is_right() -> None:
    class Again(Mini):
        """Does everything once more, where the server has left it."""

        def run(self) -> None:
            try:
                super().run()
            except (PeerClosed, Violation):
                super().run()

    cases = select(["frame.reply-missing/get-max-size-*", "frame.reply-checked/get-max-size-*"], among=CLIENT_CASES)
    report = judged(Here(Again, DEFAULT), cases, DEFAULT)
    assert verdicts(report) == {"PASS": 10}


# -------------------------------------------------------------------------------------------------------------- genuine

SLOW = ["frame.reply-late", "frame.segmentation/replies-cut-after", "session.unharmed/device-count-2"]


@pytest.mark.parametrize("version", ["3.6.1", "8.0.0"])
def test_what_the_genuine_clients_do(version: str) -> None:
    """Every case that does not take long, against the whole file of what is known; `conform-client --expect` does the rest."""
    build = find_or_skip(version)
    program = Command(upstream.client_command(build, ["{endpoint}", "{endpoint2}"]))
    expected = load(HERE / "upstream_expected_clients" / f"{version}.json")
    chosen = [case for case in CLIENT_CASES.values() if case.id in expected or "honest" in case.id or case.id in SAMPLE]
    chosen = [case for case in chosen if not case.id.startswith(tuple(SLOW))]
    report = judged(program, chosen, Version.parse(version))
    assert surprises(report.results, expected, CLIENT_CASES) == []
    assert not report.is_interrupted


SAMPLE = {
    "frame.reply-checked/get-tensor-one-more",
    "frame.reply-missing/alloc-buffer-reset",
    "frame.segmentation/each-byte-of-replies",
    "session.version-accepted/higher-minor",
    "data.hash-asked/full-cache",
    "buffer.alloc-refused/every",
    "tensor.room/a-mib-more",
    "comm.refused/answered-0",
}


def find_or_skip(version: str) -> upstream.Build:
    try:
        return upstream.find(version)
    except Misuse as missing:
        requirements.lacking(str(missing))


def test_pins_name_cases_and_have_been_looked_at() -> None:
    for version in ("3.6.1", "8.0.0"):
        for id, row in json.loads((HERE / "upstream_expected_clients" / f"{version}.json").read_text()).items():
            assert id in CLIENT_CASES
            assert not row["reason"].startswith("not looked at")


# ------------------------------------------------------------------------------------------------------------ the command


class Done(NamedTuple):
    """How the command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run the command in this process."""

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["ggml-rpc-ref", "conform-client", *arguments])
        monkeypatch.setattr(signal, "signal", lambda *_: None)  # the tests' process keeps its own handlers
        with pytest.raises(SystemExit) as ended:
            cli_main()
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    return run


OWN = ["--", sys.executable, "-m", "ggml_rpc_ref.client.scenario", "{endpoint}"]
CARELESS = """
import runpy
from ggml_rpc_ref.client.device_info import DeviceInfo
asks = DeviceInfo.max_size.fget
DeviceInfo.max_size = property(lambda device: asks(device) and 2**64)
runpy.run_module("ggml_rpc_ref.client.scenario", run_name="__main__")
"""
"""The same client, which asks for GET_MAX_SIZE and does not look at the answer."""


def test_the_command_judges_and_writes_reports(tmp_path: Path, command: Callable[..., Done]) -> None:
    files = [tmp_path / name for name in ("report.json", "report.xml", "report.sarif", "report.html")]
    reports = [part for file in files for part in ("--report", str(file))]
    client = ["--", sys.executable, "-c", CARELESS, "{endpoint}"]
    done = command("--proto", "8.0.0", "--only", "*/honest", "--only", "device.within-max-size", *reports, *client)
    assert done.code == 0, done.err
    assert "commands  20 of 23 sent; COMM_INIT, COMM_ALLREDUCE, COMM_FREE: not sent" in done.out
    assert "device.within-max-size (SHOULD)" in done.out
    run = json.loads(files[0].read_text())
    schema = json.loads((HERE.parent / "ggml_rpc_ref" / "conformance" / "schema" / "report.json").read_text())
    jsonschema.validate(run, schema)
    assert run["target"]["party"] == "client"
    assert 'classname="device.within-max-size"' in files[1].read_text()
    assert json.loads(files[2].read_text())["runs"][0]["results"][0]["ruleId"] == "device.within-max-size"
    assert "the client printed" in files[3].read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--", "true"], 2, "the client's command must hold {endpoint}"),
        (["--", "/no/such/client", "{endpoint}"], 2, "can't start /no/such/client: No such file"),
        ([], 2, "give a client's command after --, or --listen :PORT"),
        (["--listen", "here", *OWN], 2, "--listen 'here': write [HOST]:PORT"),
        (["--listen", ":50052", "-j", "2", *OWN], 2, "--jobs needs a port for each case"),
        (["--only", "no.such/case", *OWN], 2, "no case and no rule matches 'no.such/case'"),
        (
            ["--proto", "8.0.0", "--only", "data.valid/honest", "--", "true", "{endpoint}"],
            1,
            "fix first: the client said nothing to an honest server; exit status 0; 1 case waits for it",
        ),
        (["--", "true", "{endpoint}"], 3, "the client did not connect: exit status 0"),
    ],
)
def test_what_the_command_says_to_wrong_input(arguments: list[str], code: int, sentence: str, command: Callable[..., Done]) -> None:
    done = command("--timeout", "20", *arguments)
    assert done.code == code, done.err
    assert sentence in done.err + done.out


def test_cases_are_listed_and_explained(command: Callable[..., Done]) -> None:
    listed = command("--list", "--only", "comm.*")
    assert "comm.pair/honest  MUST: COMM_INIT comes with world 2" in listed.out
    shown = "\n".join(show("frame.reply-checked/get-tensor-empty"))
    assert "our client:          raises Violation and closes" in shown
    assert "genuine client:      ends its process (SIGABRT)" in shown


def test_a_client_that_somebody_starts_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_module, "QUIET", 0.3)
    told: list[str] = []

    def start(sentence: str) -> None:
        told.append(sentence)
        Thread(target=lambda: Here(Mini, DEFAULT).run([sentence.split()[-1]], 20, None)).start()

    report = judged(ByHand(start, patience=20), select(["*/honest", "session.lives"], among=CLIENT_CASES), DEFAULT)
    assert broken_rules(report) == set()
    assert told[0].startswith("start the client now: 127.0.0.1:")
    assert len(told) == 8  # one run for what it sends, one for each way to fail
    reasons = {result.actual for result in report.results if result.case.rule.id == "session.lives"}
    assert reasons == {"how the client's process ends can't be seen"}


def test_an_interrupt_keeps_what_was_judged() -> None:
    class Interrupts(Here):
        """Is interrupted in its third run."""

        runs = 0

        def run(self, endpoints: Sequence[str], timeout: float, connections: object) -> Ended:
            self.runs += 1
            if self.runs == 3:
                raise KeyboardInterrupt
            return super().run(endpoints, timeout, connections)

    cases = select(["frame.reply-checked/get-alignment-*"], among=CLIENT_CASES)
    report = judged(Interrupts(Mini, DEFAULT), cases, DEFAULT)
    assert report.is_interrupted
    assert len(report.results) == 1
