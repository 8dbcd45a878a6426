"""The conformance suite: cases by rule, a runner that survives the server's crashes, and reports.

    report = run(Given(Endpoint("127.0.0.1", 50052)), select())
    print("\\n".join(as_text(report)))

Imports nothing of our own server. They share the table of messages and the codec; cases of literal bytes use neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from ggml_rpc_ref.conformance.case import CASES, Case
from ggml_rpc_ref.conformance.cases import SECTIONS
from ggml_rpc_ref.conformance.diagnosis import PROFILES, Ability, Diagnosis, State
from ggml_rpc_ref.conformance.events import CaseBegan, CaseEnded, Diagnosed, Ended, Event, Introduced, Report, Result, Started
from ggml_rpc_ref.conformance.expect import Expected, load, surprises
from ggml_rpc_ref.conformance.report import Outcome, as_json, case_as_json, outcome
from ggml_rpc_ref.conformance.runner import Options, WrongVersion, judge, run
from ggml_rpc_ref.conformance.showing import show
from ggml_rpc_ref.conformance.target import Given, Spawned, Target, embedded, from_command
from ggml_rpc_ref.conformance.text import ability_lines, as_text, is_expected, verdict_lines
from ggml_rpc_ref.conformance.verdict import NO_FAULT, Verdict
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.rules import RULES

assert SECTIONS  # importing them has filled CASES

__all__ = [
    "CASES",
    "NO_FAULT",
    "PROFILES",
    "Ability",
    "Case",
    "CaseBegan",
    "CaseEnded",
    "Diagnosed",
    "Diagnosis",
    "Ended",
    "Event",
    "Expected",
    "Given",
    "Introduced",
    "Options",
    "Outcome",
    "Report",
    "Result",
    "Spawned",
    "Started",
    "State",
    "Target",
    "Verdict",
    "WrongVersion",
    "ability_lines",
    "as_json",
    "as_text",
    "case_as_json",
    "embedded",
    "from_command",
    "is_expected",
    "judge",
    "load",
    "outcome",
    "run",
    "select",
    "show",
    "surprises",
    "verdict_lines",
]


def select(patterns: Sequence[str] = ()) -> list[Case]:
    """Return the cases whose id or rule id matches one of the patterns (*, ?, [...]), or all cases, in the order of the rules.

    Raises:
        Misuse: for a pattern that matches nothing.
    """
    for pattern in patterns:
        if not any(_matches(case, pattern) for case in CASES.values()):
            raise Misuse(f"no case and no rule matches {pattern!r}; --list lists them")
    chosen = [case for case in CASES.values() if not patterns or any(_matches(case, pattern) for pattern in patterns)]
    # by rule: a file need not hold its cases in that order (cases/data.py does not)
    order = list(RULES)
    return sorted(chosen, key=lambda case: order.index(case.rule.id))


def _matches(case: Case, pattern: str) -> bool:
    return fnmatchcase(case.id, pattern) or fnmatchcase(case.rule.id, pattern)
