"""What a run found: as text for people, as JSON for programs, and as an exit status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from itertools import groupby
from typing import Any

from ggml_rpc_ref.conformance.case import CASES, Case
from ggml_rpc_ref.conformance.expect import Expected, surprises
from ggml_rpc_ref.conformance.runner import Report, Result
from ggml_rpc_ref.conformance.verdict import NO_FAULT, Verdict
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.files import FILE_RULES
from ggml_rpc_ref.spec.observed import observed
from ggml_rpc_ref.spec.rules import RULES, Rule

SCHEMA_VERSION = 1
"""Grows by one when a field of the JSON output changes its meaning or goes; new fields may come any time."""

OK, NON_CONFORMANT, CRASHED, OUR_FAULT = 0, 1, 4, 5


def exit_status(report: Report, expected: Mapping[str, Expected] | None = None) -> int:
    """Return 5 where the tool failed, 4 where the server crashed or hung, 1 where a MUST is broken, otherwise 0.

    A broken SHOULD alone is 0. With expected failures only what they don't foresee counts, and being surprised is 1 at least.
    """
    known = expected or {}
    new = [r for r in report.results if r.case.id not in known or r.verdict not in known[r.case.id].verdicts]
    verdicts = {r.verdict for r in new if level(r) == "MUST" or r.verdict in (Verdict.CRASH, Verdict.HANG, Verdict.ERROR)}
    if Verdict.ERROR in verdicts:
        return OUR_FAULT
    if verdicts & {Verdict.CRASH, Verdict.HANG}:
        return CRASHED
    if verdicts - NO_FAULT or (expected is not None and surprises(report.results, expected, report.known)):
        return NON_CONFORMANT
    return OK


def level(result: Result) -> str:
    """Return the level of the rule that a result is about: MUST, SHOULD or MAY."""
    return RULES[result.rule].level


def counts(results: Iterable[Result]) -> dict[str, int]:
    """Return how many cases ended with each verdict, in the verdicts' order, those that never came left out."""
    found = Counter(result.verdict for result in results)
    return {verdict.value: found[verdict] for verdict in Verdict if found[verdict]}


# ---------------------------------------------------------------------------------------------------------------- text


def as_text(report: Report, expected: Mapping[str, Expected] | None = None, summary: Iterable[str] = ()) -> Iterator[str]:
    """Yield lines: under each rule that is broken or was not judged its cases; then surprises, the summary, and counts."""
    for rule, results in _by_rule(report.results):
        yield f"{rule.id} ({rule.level}): {rule.sentence}"
        yield from _lines(results, expected or {})
        yield ""
    if expected is not None:
        yield from (f"unexpected: {sentence}" for sentence in surprises(report.results, expected, report.known))
    yield from summary
    yield _total(report)


def _by_rule(results: Iterable[Result]) -> Iterator[tuple[Rule, list[Result]]]:
    shown = [result for result in results if result.verdict is not Verdict.PASS]
    for id, rule in RULES.items():
        if mine := [result for result in shown if result.rule == id]:
            yield rule, mine


def _lines(results: Iterable[Result], expected: Mapping[str, Expected]) -> Iterator[str]:
    """Yield a line a case, and under an unforeseen failure what was asked; cases left out in a row for one reason share a line."""
    for (verdict, reason), alike in groupby(results, key=lambda r: (r.verdict, r.detail if r.verdict in NO_FAULT else r)):
        group = list(alike)
        if verdict in NO_FAULT and len(group) > 1:
            yield f"  {verdict:<11} {group[0].case.id} and {len(group) - 1} more: {reason}"
            continue
        for result in group:
            stumbled = "" if result.rule == result.case.rule.id else " (met on the way)"
            foreseen = " [expected]" if result.case.id in expected and verdict in expected[result.case.id].verdicts else ""
            yield f"  {verdict:<11} {result.case.id}{stumbled}: {result.detail}{foreseen}"
            if verdict not in NO_FAULT and not foreseen:
                yield f"              {result.case.doc}"


def _total(report: Report) -> str:
    found = ", ".join(f"{number} {verdict}" for verdict, number in counts(report.results).items())
    should = sum(level(r) != "MUST" for r in report.results if r.verdict not in NO_FAULT)
    note = f" ({should} of them of a SHOULD)" if should else ""
    who = f"{report.target}, protocol {report.facts.version}, {report.facts.device_count} device"
    return f"{who}{'s' * (report.facts.device_count != 1)}: {len(report.results)} cases, {found or 'none run'}{note}"


# ---------------------------------------------------------------------------------------------------------------- JSON


def as_json(report: Report, expected: Mapping[str, Expected] | None = None) -> dict[str, Any]:
    """Return the whole report as one object of JSON's types."""
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "ggml-rpc-ref", "version": _tool_version()},
        "target": {
            "name": report.target,
            "protocol": str(report.facts.version),
            "device_count": report.facts.device_count,
        },
        "started": report.started.isoformat(timespec="seconds"),
        "counts": counts(report.results),
        "unexpected": None if expected is None else surprises(report.results, expected, report.known),
        "exit_status": exit_status(report, expected),
        "cases": [_result_as_json(result) for result in report.results],
    }


def _tool_version() -> str:
    try:
        return package_version("ggml-rpc-ref")
    except PackageNotFoundError:
        return "not installed"


def _result_as_json(result: Result) -> dict[str, Any]:
    """Return a case's row; `broken_rule` and `transcript` only where something is wrong."""
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
    """Return what `--list --json` says of a case."""
    return {
        "id": case.id,
        "rule": case.rule.id,
        "level": case.rule.level,
        "may_crash": case.may_crash,
        "what": case.doc,
    }


# ------------------------------------------------------------------------------------------------------------- looking


def show(name: str) -> Iterator[str]:
    """Yield lines that explain a rule, or a case and its rule, or a rule of the files around the protocol.

    Raises:
        Misuse: for an id that neither has.
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
    yield f"  genuine rpc-server:  {observed().rules[rule.id]}"
    if name not in CASES:
        yield from (f"  {case.id}  {case.doc}" for case in CASES.values() if case.rule is rule)
