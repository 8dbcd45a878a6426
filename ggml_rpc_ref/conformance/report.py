"""The report of a run: its outcome, and the report as JSON for programs. `text` is for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from enum import IntEnum
from typing import Any

import ggml_rpc_ref
from ggml_rpc_ref.conformance.case import Case
from ggml_rpc_ref.conformance.choosing import tags, topics
from ggml_rpc_ref.conformance.diagnosis import Diagnosis
from ggml_rpc_ref.conformance.events import Report, Result
from ggml_rpc_ref.conformance.expect import Expected, surprises
from ggml_rpc_ref.conformance.verdict import NO_FAULT, Verdict
from ggml_rpc_ref.spec.rules import RULES

SCHEMA_VERSION = 1
"""Incremented when a field of the JSON output changes its meaning or is removed; new fields may be added at any time."""


class Outcome(IntEnum):
    """The result of a whole run; its number is the exit status of the command line."""

    CONFORMANT = 0
    """No MUST is broken; a SHOULD may be."""
    NON_CONFORMANT = 1
    """A MUST is broken, or the expected failures did not come as expected."""
    UNREACHABLE = 3
    """It can't be reached, does not speak the protocol, or speaks a version that is not judged."""
    CRASHED = 4
    """The server crashed or hung."""
    TOOL_FAILED = 5
    """A case ended with a defect of ours."""
    INTERRUPTED = 130
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
    # what a broken command kept from being judged is not a success; a file of expected failures says it of the command's own case
    waits = expected is None and any(r.waits_for and r.verdict is Verdict.SKIP for r in report.results)
    # of a client that fails with an honest server some cases pass, because of what it had not come to
    waits |= report.diagnosis is not None and bool(report.diagnosis.trouble)
    if waits or verdicts - NO_FAULT or (expected is not None and surprises(report.results, expected, report.known)):
        return Outcome.NON_CONFORMANT
    return Outcome.CONFORMANT


def level(result: Result) -> str:
    """Return the level of the rule that a result is about: MUST, SHOULD or MAY."""
    return RULES[result.rule].level


def counts(results: Iterable[Result]) -> dict[str, int]:
    """Return the number of cases with each verdict, in the order of the verdicts, without zeros."""
    found = Counter(result.verdict for result in results)
    return {verdict.value: found[verdict] for verdict in Verdict if found[verdict]}


# ---------------------------------------------------------------------------------------------------------------- JSON


def as_json(report: Report, exit_status: int, expected: Mapping[str, Expected] | None = None) -> dict[str, Any]:
    """Return the whole report as one JSON object; `exit_status` is the command line's number for its outcome."""
    facts = report.facts
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "ggml-rpc-ref", "version": ggml_rpc_ref.__version__},
        "target": {
            "name": report.target,
            "party": report.party,
            "protocol": None if facts is None else str(facts.version),
            "device_count": None if facts is None else facts.device_count,
        },
        "diagnosis": None if report.diagnosis is None else _diagnosis_as_json(report.diagnosis),
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
        "what": result.case.doc,
    }
    if result.verdict not in NO_FAULT:
        row |= {
            "broken_rule": result.rule,
            "expected": result.expected,
            "actual": result.actual,
            "transcript": list(result.transcript),
            "server_said": list(result.server_said),
            "death": result.death,
        }
    if result.waits_for:
        row["waits_for"] = result.waits_for
    if result.runs > 1:
        row |= {"runs": result.runs, "failed": result.failed}
    return row


def _diagnosis_as_json(found: Diagnosis) -> dict[str, Any]:
    """Return the object of what the server does; each command, type and op with its state and what was seen."""
    rows = {"commands": found.commands, "types": found.types, "ops": found.ops}
    return {what: {name: asdict(it) for name, it in row.items()} for what, row in rows.items()} | {
        "device": found.device,
        "several_clients": found.several_clients,
        "keeps_cache": found.keeps_cache,
        "duration": round(found.duration, 3),
        "trouble": found.trouble,
    }


def case_as_json(case: Case) -> dict[str, Any]:
    """Return the object of one case in `--list --json`."""
    return {
        "id": case.id,
        "rule": case.rule.id,
        "level": case.rule.level,
        "may_crash": case.may_crash,
        "what": case.doc,
        "tags": tags(case),
        **{f"{kind}s": sorted(names) for kind, names in topics(case).items()},
    }
