"""The report of a run: its outcome, as text for people and as JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum, auto
from itertools import groupby
from typing import Any

import ggml_rpc_ref
from ggml_rpc_ref.conformance.case import CASES, Case
from ggml_rpc_ref.conformance.events import Report, Result
from ggml_rpc_ref.conformance.expect import Expected, surprises
from ggml_rpc_ref.conformance.verdict import NO_FAULT, Verdict
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.files import FILE_RULES
from ggml_rpc_ref.spec.observed import observed
from ggml_rpc_ref.spec.rules import RULES, Rule
from ggml_rpc_ref.spec.versions import DEFAULT

SCHEMA_VERSION = 1
"""Incremented when a field of the JSON output changes its meaning or is removed; new fields may be added at any time."""


class Outcome(Enum):
    """The result of a whole run."""

    CONFORMANT = auto()
    """No MUST is broken; a SHOULD may be."""
    NON_CONFORMANT = auto()
    """A MUST is broken, or the expected failures did not come as expected."""
    CRASHED = auto()
    """The server crashed or hung."""
    TOOL_FAILED = auto()
    """A case ended with a defect of ours."""
    INTERRUPTED = auto()
    """Not all cases were run."""


def outcome(report: Report, expected: Mapping[str, Expected] | None = None) -> Outcome:
    """Return the outcome of a run; with expected failures, only what differs from them counts."""
    if report.is_interrupted:
        return Outcome.INTERRUPTED
    known = expected or {}
    new = [r for r in report.results if r.case.id not in known or r.verdict not in known[r.case.id].verdicts]
    # a SHOULD may be broken, but a crash counts whatever level of rule the case was about
    verdicts = {r.verdict for r in new if level(r) == "MUST" or r.verdict in (Verdict.CRASH, Verdict.HANG, Verdict.ERROR)}
    # a defect of ours comes first: it makes the other verdicts doubtful
    if Verdict.ERROR in verdicts:
        return Outcome.TOOL_FAILED
    if verdicts & {Verdict.CRASH, Verdict.HANG}:
        return Outcome.CRASHED
    if verdicts - NO_FAULT or (expected is not None and surprises(report.results, expected, report.known)):
        return Outcome.NON_CONFORMANT
    return Outcome.CONFORMANT


def level(result: Result) -> str:
    """Return the level of the rule that a result is about: MUST, SHOULD or MAY."""
    return RULES[result.rule].level


def counts(results: Iterable[Result]) -> dict[str, int]:
    """Return the number of cases with each verdict, in the order of the verdicts, without zeros."""
    found = Counter(result.verdict for result in results)
    return {verdict.value: found[verdict] for verdict in Verdict if found[verdict]}


# ---------------------------------------------------------------------------------------------------------------- text


def as_text(report: Report, expected: Mapping[str, Expected] | None = None, summary: Iterable[str] = ()) -> Iterator[str]:
    """Yield lines: each rule that is broken or was not judged with its cases; then unexpected results, the summary, and counts."""
    for rule, results in _by_rule(report.results):
        yield f"{rule.id} ({rule.level}): {rule.sentence}"
        yield from _lines(results, expected or {})
        yield ""
    if expected is not None:
        yield from (f"unexpected: {sentence}" for sentence in surprises(report.results, expected, report.known))
    yield from summary
    if report.is_interrupted:
        yield f"interrupted: {len(report.results)} of {report.planned} cases were judged"
    yield _total(report)


def _by_rule(results: Iterable[Result]) -> Iterator[tuple[Rule, list[Result]]]:
    shown = [result for result in results if result.verdict is not Verdict.PASS]
    for id, rule in RULES.items():
        if mine := [result for result in shown if result.rule == id]:
            yield rule, mine


def _lines(results: Iterable[Result], expected: Mapping[str, Expected]) -> Iterator[str]:
    """Yield a line a case, below an unexpected failure its doc; consecutive cases skipped for one reason share a line."""
    for (verdict, reason), alike in groupby(results, key=lambda r: (r.verdict, r.detail if r.verdict in NO_FAULT else r)):
        group = list(alike)
        if verdict in NO_FAULT and len(group) > 1:
            yield f"  {verdict:<11} {group[0].case.id} and {len(group) - 1} more: {reason}"
            continue
        for result in group:
            detour = "" if result.rule == result.case.rule.id else " (met on the way)"
            known = " [expected]" if result.case.id in expected and verdict in expected[result.case.id].verdicts else ""
            yield f"  {verdict:<11} {result.case.id}{detour}: {result.detail}{known}"
            if verdict not in NO_FAULT and not known:
                yield f"              {result.case.doc}"


def _total(report: Report) -> str:
    found = ", ".join(f"{number} {verdict}" for verdict, number in counts(report.results).items())
    should = sum(level(r) != "MUST" for r in report.results if r.verdict not in NO_FAULT)
    note = f" ({should} of them of a SHOULD)" if should else ""
    who = report.target
    if report.facts is not None:
        count = report.facts.device_count
        who += f", protocol {report.facts.version}, {count} device{'s' * (count != 1)}"
    return f"{who}: {len(report.results)} cases, {found or 'none run'}{note}"


# ---------------------------------------------------------------------------------------------------------------- JSON


def as_json(report: Report, exit_status: int, expected: Mapping[str, Expected] | None = None) -> dict[str, Any]:
    """Return the whole report as one JSON object; `exit_status` is the command line's number for its outcome."""
    facts = report.facts
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "ggml-rpc-ref", "version": ggml_rpc_ref.__version__},
        "target": {
            "name": report.target,
            "protocol": None if facts is None else str(facts.version),
            "device_count": None if facts is None else facts.device_count,
        },
        "started": report.started.isoformat(timespec="seconds"),
        "counts": counts(report.results),
        "unexpected": None if expected is None else surprises(report.results, expected, report.known),
        "exit_status": int(exit_status),
        "cases": [_result_as_json(result) for result in report.results],
    }


def _result_as_json(result: Result) -> dict[str, Any]:
    """Return the object of one result; what was expected, what happened and the transcript only where something is wrong."""
    row: dict[str, Any] = {
        "id": result.case.id,
        "verdict": result.verdict.value,
        "level": level(result),
        "rule": result.case.rule.id,
        "detail": result.detail,
        "duration": round(result.duration, 4),
    }
    if result.verdict not in NO_FAULT:
        row |= {
            "broken_rule": result.rule,
            "expected": result.expected,
            "actual": result.actual,
            "transcript": list(result.transcript),
        }
    return row


def case_as_json(case: Case) -> dict[str, Any]:
    """Return the object of one case in `--list --json`."""
    return {
        "id": case.id,
        "rule": case.rule.id,
        "level": case.rule.level,
        "may_crash": case.may_crash,
        "what": case.doc,
    }


# ------------------------------------------------------------------------------------------------------------- looking


def show(name: str) -> Iterator[str]:
    """Yield lines that explain a rule, a case and its rule, or a rule of the files around the protocol.

    Raises:
        Misuse: for an unknown id.
    """
    if name in FILE_RULES:
        yield from (name, f"  {FILE_RULES[name].sentence}", '  SPEC.md, chapter "Files around the protocol", describes the files')
        return
    rule = CASES[name].rule if name in CASES else RULES.get(name)
    if rule is None:
        elsewhere = "`ggml-rpc-ref conform --list` lists them; a vector explains itself in its file"
        raise Misuse(f"no rule and no case has the id {name!r}; {elsewhere}")
    if name in CASES:
        yield from (name, f"  {CASES[name].doc}", "")
    yield f"{rule.id} ({rule.level})"
    yield f"  {rule.sentence}"
    yield f"  our server:          {rule.outcome}"
    yield f"  genuine rpc-server:  {observed().rules.get(rule.id, f'{DEFAULT} is not bound by it')}"
    if name not in CASES:
        yield from (f"  {case.id}  {case.doc}" for case in CASES.values() if case.rule is rule)
