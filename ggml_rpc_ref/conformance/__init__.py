"""The conformance suite: cases by rule, a runner that survives the server's crashes, and reports.

    report = run(Given(Endpoint("127.0.0.1", 50052)), select())
    print("\\n".join(as_text(report)))

Imports nothing of our own server. They share the table of messages and the codec; cases of literal bytes use neither.
"""

from __future__ import annotations

from ggml_rpc_ref.conformance.case import CASES, Case
from ggml_rpc_ref.conformance.cases import SECTIONS
from ggml_rpc_ref.conformance.choosing import select, tags, topics
from ggml_rpc_ref.conformance.diagnosis import PROFILES, Ability, Diagnosis, State, check_profile
from ggml_rpc_ref.conformance.events import CaseBegan, CaseEnded, Diagnosed, Ended, Event, Introduced, Report, Result, Started
from ggml_rpc_ref.conformance.expect import Baseline, Expected, load, surprises, written
from ggml_rpc_ref.conformance.report import Outcome, as_json, case_as_json, outcome
from ggml_rpc_ref.conformance.runner import Options, WrongVersion, judge, run
from ggml_rpc_ref.conformance.showing import show
from ggml_rpc_ref.conformance.target import Given, Spawned, Target, embedded, from_command
from ggml_rpc_ref.conformance.text import ability_lines, as_text, is_expected, verdict_lines
from ggml_rpc_ref.conformance.verdict import NO_FAULT, Verdict

assert SECTIONS  # importing them has filled CASES

__all__ = [
    "CASES",
    "NO_FAULT",
    "PROFILES",
    "Ability",
    "Baseline",
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
    "check_profile",
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
    "tags",
    "topics",
    "verdict_lines",
    "written",
]
