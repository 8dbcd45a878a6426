"""The malformed vectors: as their tool writes them, linted, and played: our server refuses each for the rule that it names."""

from __future__ import annotations

import copy
import json
import logging
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ggml_rpc_ref import golden as vectors
from ggml_rpc_ref import upstream
from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.backends.oracle import Oracle
from ggml_rpc_ref.conformance import Case, CaseEnded, Given, Introduced, Options, Result, Spawned, Verdict, judge, run
from ggml_rpc_ref.golden import play, semantics
from ggml_rpc_ref.net.stream import parse_endpoint
from ggml_rpc_ref.server.handlers import Device, Host, Session, alloc_buffer
from ggml_rpc_ref.server.server import Server
from ggml_rpc_ref.spec.messages import AllocBuffer
from ggml_rpc_ref.spec.rules import FOR_SERVERS, RULES
from ggml_rpc_ref.spec.versions import DEFAULT, Version
from ggml_rpc_ref.upstream.rpc_server import spawn_command
from tests.support.each import each
from tests.support.sabotage import SABOTAGES, InProcess

HERE = Path(__file__).parent.parent / "vectors"
TOOL = "vectors.tools.make_malformed"
MALFORMED = HERE / "handmade" / "malformed"
FILES = {
    str(path.relative_to(MALFORMED).with_suffix("")): json.loads(path.read_text()) for path in sorted(MALFORMED.rglob("*.json"))
}
CASES: dict[str, Any] = {case["id"]: case for content in FILES.values() for case in content["cases"]}
PROTOCOL = {case["id"]: content["protocol"] for content in FILES.values() for case in content["cases"]}
LATER = "8.0.0"
"""The version of the cases about rules that the default version lacks."""


def plain(id: str) -> str:
    """Return a played case's id as the file has it."""
    return id.removeprefix("malformed/").removeprefix(f"{LATER}/")


PLAYED = {plain(case.id): case for case in play.cases(HERE, {}) if case.id.startswith("malformed/")}


def of(protocol: str) -> list[Case]:
    """Return the cases of a version."""
    return [case for id, case in PLAYED.items() if PROTOCOL[id] == protocol]


def test_the_files_are_what_the_tool_writes_without_anything_of_ours(tmp_path: Path) -> None:
    """The tool is run from a copy, where nothing else of this repository is; -S: nothing that is installed can be imported."""
    copied, out = tmp_path / "copy", tmp_path / "out"
    shutil.copytree(HERE / "tools", copied / "vectors" / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    ran = subprocess.run([sys.executable, "-S", "-E", "-m", TOOL, out], cwd=copied, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    written, kept = ({path.relative_to(top): path.read_bytes() for path in top.rglob("*.json")} for top in (out, MALFORMED))
    assert written == kept


def test_there_is_a_file_for_each_section() -> None:
    assert {Path(file).name for file in FILES} == {rule.partition(".")[0] for rule in RULES}
    assert all(content["protocol"] == (LATER if "/" in file else str(DEFAULT)) for file, content in FILES.items())
    assert sum(len(content["cases"]) for content in FILES.values()) == len(CASES)
    assert set(PLAYED) == set(CASES)


def test_cases_of_a_later_version_are_about_rules_that_the_default_one_lacks() -> None:
    later = {case["rule"] for id, case in CASES.items() if PROTOCOL[id] == LATER}
    assert later
    assert not any(RULES[rule].present(DEFAULT) for rule in later)


NO_VECTOR = {
    "frame.reply-presence": "good requests; every case ends with a request whose reply shows one too many or too few",
    "frame.segmentation": "how TCP cuts a message up is nothing that bytes say",
    "frame.complete": "who cuts a message off by leaving can't see whether it is answered; that the server lives: session.survives",
    "session.hello-version": "a good request, in every case",
    "device.count": "a good request, in every case",
    "device.memory": "a good request",
    "device.alignment": "a good request",
    "device.max-size": "a good request",
    "buffer.alloc-size": "a good request, in nearly every case",
    "buffer.disjoint": "addresses differ from run to run, and steps can't compare two of them",
    "buffer.opaque": "what the server's own addresses are can't be seen in bytes",
    "buffer.clean": "no bytes that a new buffer shows are wrong but a freed one's",
    "buffer.clear": "a good request",
    "data.partial": "good requests",
    "data.hash-hit": "depends on what a server keeps; upstream keeps only what has more than 10 MiB",
    "data.copy": "a good request, that a server may answer with 0",
    "graph.op-supported": "a server may compute the op or refuse the graph: no outcome is the right one",
    "graph.cost": "what a server grants is its own",
    "graph.overlap": "good graphs that a server may refuse",
    "graph.computes": "good graphs: ops/ and sessions/",
    "comm.init": "takes a second server, and steps can only be those of a client",
    "comm.init-again": "takes a communicator, and so a second server",
    "comm.tensor": "takes a communicator, and so a second server: without one any COMM_ALLREDUCE is refused, for comm.needed",
    "comm.sum": "takes a second server",
    "comm.sum-large": "takes a second server",
    "comm.peer-lost": "takes a second server, which leaves",
}
"""Rules without a malformed case, and why."""


def test_every_rule_has_a_case_or_a_reason() -> None:
    """Whether the MUSTs about a server's input are covered; what needs no wrong input is told apart here."""
    covered = {case["rule"] for case in CASES.values()}
    assert covered | set(NO_VECTOR) == set(FOR_SERVERS)
    assert not covered & set(NO_VECTOR)


def test_refusals_that_our_table_promises_have_a_refused_case() -> None:
    refused = {case["rule"] for case in CASES.values() if case["outcome"] == "refused"}
    promised = {rule.id for rule in RULES.values() if rule.outcome == "refuses"}
    assert {"frame.command-known", "graph.shape"} <= promised
    assert promised - set(NO_VECTOR) <= refused


ADDRESSES = (
    r"https://www\.cve\.org/CVERecord\?id=CVE-20\d\d-\d{4,6}",
    r"https://github\.com/ggml-org/(llama\.cpp|ggml)/(issues|pull)/\d+",
    r"GHSA(-[0-9a-z]{4}){3}",
    r"(SEC|OBS|FUN)-\d\d?",
)


def test_references_can_be_followed() -> None:
    """Ids of reports are those of SPEC.md's appendix, which names the CVE or the number that stands beside."""
    text = (HERE.parent / "SPEC.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ((?:SEC|OBS|FUN)-\d+) \|(.*)$", text, re.M))
    for case in CASES.values():
        for reference in case["references"]:
            assert any(re.fullmatch(form, reference) for form in ADDRESSES), reference
        named = [row for id, row in rows.items() if id in case["references"]]
        assert len(named) == sum(bool(re.fullmatch(ADDRESSES[-1], id)) for id in case["references"]), case["id"]
        for number in re.findall(r"CVE-[0-9-]+|(?<=issues/)\d+|(?<=pull/)\d+|GHSA-\S+", " ".join(case["references"])):
            assert any(number in row for row in named), f"{case['id']}: the appendix does not name {number} at its ids"


def test_every_cve_of_the_record_has_a_case() -> None:
    text = (HERE.parent / "SPEC.md").read_text(encoding="utf-8")
    cited = {reference.rpartition("=")[2] for case in CASES.values() for reference in case["references"]}
    listed = set(re.findall(r"CVE-\d+-\d+", text))
    assert listed
    assert listed - cited == set()


def test_no_case_asks_the_player_for_much() -> None:
    """Whole conversations stay small, so that any player can hold them: 1 MiB sent and 4 MiB received at most."""
    sent = {id: sum(map(weight, case["steps"])) for id, case in CASES.items()}
    assert max(sent.values()) < 2**20


def weight(step: Any) -> int:
    pieces = step.get("send", ())
    return sum(len(p["repeat"]) * p["times"] // 2 if isinstance(p, dict) else len(p) // 2 for p in pieces)


# ------------------------------------------------------------------------------------------------------------------ lint


def small() -> dict[str, tuple[str, Any]]:
    """A file with a refused case and an accepted one, and the flags that they have, as the lint takes them."""
    content = copy.deepcopy(FILES["data"])
    first = next(case for case in content["cases"] if case["outcome"] == "refused")
    second = next(case for case in content["cases"] if case["outcome"] == "accepted")
    content["cases"] = [first, second]
    flags = {flag: {"description": "a", "effect": "b"} for flag in (*first["flags"], *second["flags"])}
    return {"handmade/malformed/data.json": ("malformed", content), "flags.json": ("flags", {"schema_version": 1, "flags": flags})}


SPOILT: list[tuple[Callable[[Any, Any], Any], str]] = [
    (lambda case, _: case.update(rule="data.in-tenser"), "the rule 'data.in-tenser' does not exist"),
    (lambda case, _: case.update(id="data.empty/one-past-end"), "its id does not begin with its rule, 'data.in-tensor'"),
    (lambda case, _: case.update(id="data.rows/a", rule="data.rows"), "the rule 'data.rows' does not bind servers of 3.6.1"),
    (lambda case, _: case.update(id="graph.view/a", rule="graph.view"), "a case of 'graph.view' does not belong in this file"),
    (lambda case, _: case.update(outcome="accepted"), "its outcome is 'accepted', and a step waits for a refusal"),
    (lambda _, case: case.update(outcome="refused"), "its outcome is 'refused', and no step waits for a refusal"),
    (lambda case, _: case["flags"].append("harmless"), "the flag 'harmless' is not described in flags.json"),
    (lambda _, case: case.update(flags=[]), "flags.json: nothing has the flag 'should'"),
    (lambda case, _: case["steps"].append(case["steps"][0]), "comes after the end of connection 1"),
    (lambda case, _: case["steps"].pop(3), "sends ['buf0.remote_ptr'], which nothing has bound by then"),
    (lambda case, _: case["bindings"].update({"buf9.base": {"by": "server"}}), "other names than it binds: ['buf9.base']"),
    (lambda case, _: case["bindings"].pop("buf0.base"), "other names than it binds: ['buf0.base']"),
    (lambda case, _: case.update(reason="\x1b[2J"), "its description has control characters"),
    (lambda case, _: case["steps"][0].update(send=[{"any": "00"}]), "step 1 sends what can only be received"),
    (
        lambda case, _: case["steps"][0].update(send=[{"repeat": "00", "times": 10**12}]),
        "step 1 has 1e+12 bytes, more than 268435456",
    ),
]


@pytest.mark.parametrize(("spoil", "fault"), SPOILT, ids=[fault for _, fault in SPOILT])
def test_the_lint_sees(spoil: Callable[[Any, Any], Any], fault: str) -> None:
    contents = small()
    assert said_of(contents) == []
    spoil(*contents["handmade/malformed/data.json"][1]["cases"])
    assert any(fault in sentence for sentence in said_of(contents))


def said_of(contents: semantics.Contents) -> list[str]:
    cases = [semantics.conversations(kind, Path(name).stem, content) for name, (kind, content) in contents.items()]
    return [fault for faults in (*cases, semantics.flags(contents)) for fault in faults]


def test_the_lint_is_part_of_verify(tmp_path: Path) -> None:
    for kind in ("malformed", "flags"):
        (tmp_path / "schema").mkdir(exist_ok=True)
        (tmp_path / "schema" / f"{kind}.json").write_text((HERE / "schema" / f"{kind}.json").read_text())
    contents = small()
    contents["handmade/malformed/data.json"][1]["cases"][0]["outcome"] = "accepted"
    for name, (kind, content) in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(vectors.canonical(kind, content))
    (tmp_path / "ids.txt").write_text("".join(f"{line}\n" for line in vectors.list_ids(tmp_path)))
    (fault,) = vectors.verify(tmp_path)
    assert "and a step waits for a refusal" in fault


# ------------------------------------------------------------------------------------------------------------ our server


@pytest.fixture(scope="module")
def own() -> dict[str, tuple[Result, set[str]]]:
    """Every case on our server with one device: what became of it, and the rules that the server said it refused for."""
    rules: list[str] = []
    results: dict[str, tuple[Result, set[str]]] = {}

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            rules.extend([record.rule] if hasattr(record, "rule") else ())

    log, listener = logging.getLogger("ggml_rpc_ref.server"), Listener()
    log.addHandler(listener)
    try:
        for version in (DEFAULT, Version.parse(LATER)):
            with Server(Host([Device("oracle", "numpy", Oracle(HostMemory(2**30)))], version=version)) as server:
                for result in judged(server, of(str(version)), rules):
                    results[plain(result.case.id)] = result, set(rules)
                    rules.clear()
    finally:
        log.removeHandler(listener)
    return results


def judged(server: Server, cases: list[Case], rules: list[str]) -> Iterator[Result]:
    """Yield each result when its connections are over, with nothing in rules of what came before the first case."""
    for event in judge(Given(parse_endpoint(server.endpoint)), cases, Options(timeout=30.0, profile="")):
        if isinstance(event, CaseEnded | Introduced):
            settle(server)
        if isinstance(event, CaseEnded):
            yield event.result
        elif isinstance(event, Introduced):
            rules.clear()  # of forms of HELLO that this version does not have


def settle(server: Server) -> None:
    end = time.monotonic() + 20
    while server.connections and time.monotonic() < end:  # a connection is logged after its end
        time.sleep(0.001)


REFUSED_AS = {
    "frame.size-bounded/set-tensor-2-64-less-1": "data.in-tensor",
    "frame.size-bounded/set-tensor-2-63": "data.in-tensor",
    "frame.size-bounded/set-tensor-2-40": "data.in-tensor",
    "session.survives/neighbour-unharmed": "buffer.known",
    "session.frees/buffer-get-base": "buffer.known",
    "session.frees/free-buffer": "buffer.known",
    "session.frees/set-tensor": "tensor.buffer-known",
    "session.frees/get-tensor": "tensor.buffer-known",
    "session.isolated/buffer-get-base": "buffer.known",
    "session.isolated/free-buffer": "buffer.known",
    "session.isolated/buffer-clear": "buffer.known",
    "session.isolated/set-tensor": "tensor.buffer-known",
    "session.isolated/set-tensor-hash": "tensor.buffer-known",
    "session.isolated/get-tensor": "tensor.buffer-known",
    "session.isolated/copy-tensor-src": "tensor.buffer-known",
    "session.isolated/copy-tensor-dst": "tensor.buffer-known",
    "session.isolated/graph-compute": "graph.null-data",
    "buffer.freed-once/at-once": "buffer.known",
    "buffer.freed-once/beside-another": "buffer.known",
    "graph.recompute-freed/only-buffer": "graph.recompute-stored",
    "graph.recompute-freed/buffer-of-a-source": "graph.recompute-stored",
    "graph.recompute-freed/allocated-again": "graph.recompute-stored",
    "graph.uid-store/one-more": "graph.recompute-stored",
}
"""Cases that our server refuses for another rule, which what is sent breaks as well: a handle that is freed, or another's,
is one that it does not know, and a graph that was dropped is not stored."""


def test_our_server_does_as_each_case_says_and_for_its_rule(own: dict[str, tuple[Result, set[str]]]) -> None:
    each(is_as_the_case_says, ((id, (id, *own[id])) for id in CASES))


def is_as_the_case_says(id: str, result: Result, rules: set[str]) -> None:
    assert result.verdict is Verdict.PASS, result.detail
    assert rules == ({REFUSED_AS.get(id, CASES[id]["rule"])} if CASES[id]["outcome"] == "refused" else set())


def test_what_is_refused_for_another_rule_is_known(own: dict[str, tuple[Result, set[str]]]) -> None:
    assert {id for id, (_, rules) in own.items() if rules - {CASES[id]["rule"]}} == set(REFUSED_AS)


def generous(session: Session, request: AllocBuffer) -> object:
    return alloc_buffer(session, replace(request, size=request.size + 64 * (0 < request.size < 2**60)))


class Generous(Session):
    """64 bytes more in each buffer than were asked for, which no rule forbids."""

    handlers: ClassVar = Session.handlers | {AllocBuffer: generous}


class GenerousServer(Server):
    session_type = Generous


def test_a_server_of_another_kind_is_judged_by_what_fits_it() -> None:
    """Two devices, and buffers with room behind: only the cases that say that they need otherwise are left out."""
    verdicts: dict[str, Verdict] = {}
    for version in (DEFAULT, Version.parse(LATER)):
        host = Host([Device(f"oracle {n}", "numpy", Oracle(HostMemory(2**30))) for n in range(2)], version=version)
        with GenerousServer(host) as server:
            report = run(Given(parse_endpoint(server.endpoint)), of(str(version)), Options(timeout=30.0))
        verdicts |= {plain(result.case.id): result.verdict for result in report.results}
    assert set(verdicts) == set(CASES)
    odd = {id for id, case in CASES.items() if {"one-device", "exact-buffer-size"} & set(case["flags"])}
    assert {id for id, verdict in verdicts.items() if verdict is Verdict.UNSUPPORTED} == odd
    assert {id: verdict for id, verdict in verdicts.items() if id not in odd and verdict is not Verdict.PASS} == {}


UNNOTICED = {
    "data.cache-flag": "that server keeps what has more than 10 MiB, which these cases do not send",
    "data.round-trip": "that server spoils BF16; these cases are about fields that do not matter",
    "graph.deep": "that server refuses graphs of more than 10,000 tensors; a file can't hold them",
    "graph.recompute": "that server takes one device's graph for another's; these cases use one device",
}
"""Rules whose broken server in tests/support/sabotage the vectors don't notice, and why."""


@pytest.mark.parametrize("rule", sorted({case["rule"] for case in CASES.values()}))
def test_a_server_that_breaks_the_rule_is_noticed(rule: str, tmp_path: Path) -> None:
    sabotage = SABOTAGES[rule]
    cases = [case for case in PLAYED.values() if case.rule.id == rule]
    report = run(InProcess(tmp_path, sabotage), cases, Options(timeout=sabotage.timeout, profile=""))  # not looked at first
    wrong = [result for result in report.results if result.verdict is not Verdict.PASS]
    assert {result.rule for result in wrong} == (set() if rule in UNNOTICED else {rule})


# ---------------------------------------------------------------------------------------------------- the genuine server


@pytest.mark.upstream
def test_the_genuine_server_does_as_was_observed(upstream_build: upstream.Build) -> None:
    found = played_as_observed(upstream_build, str(DEFAULT))
    assert Counter(found.values())["CRASH"] > 80


@pytest.mark.upstream
def test_the_genuine_server_of_the_later_version_does_as_was_observed(newest_build: upstream.Build) -> None:
    found = played_as_observed(newest_build, LATER)
    assert Counter(found.values())["PASS"] > 70


def played_as_observed(build: upstream.Build, version: str) -> dict[str, str]:
    """Play a version's cases against its genuine server, each as was observed; return the verdicts by id."""
    target = Spawned("genuine rpc-server", spawn_command(build, devices=1, cached=False))
    report = run(target, of(version), Options(timeout=3.0, profile=""))  # all of them, whatever it lacks
    found = {plain(result.case.id): str(result.verdict) for result in report.results}
    assert {result.detail for result in report.results if result.verdict is Verdict.SKIP} == set()
    assert {id: verdict for id, verdict in found.items() if verdict not in CASES[id]["observed"]["verdict"]} == {}
    return found
