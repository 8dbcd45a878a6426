"""The events of a run; every report is made from them.

    report = Report()
    for event in judge(target, cases):
        report.take(event)

An interrupt is an event like any other: what was judged before it is in the report.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import assert_never

from ggml_rpc_ref.conformance.case import CASES, Case
from ggml_rpc_ref.conformance.diagnosis import Diagnosis
from ggml_rpc_ref.conformance.peer import TRANSCRIPT_LINES, Facts, TranscriptPiece
from ggml_rpc_ref.conformance.verdict import Verdict
from ggml_rpc_ref.spec.rules import Party


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one case.

    Attributes:
        case: the case.
        verdict: its verdict.
        rule: id of the rule that was found broken: the case's own, unless the case came upon another one on its way.
        expected: what should have happened; "" where nothing is wrong.
        actual: what happened, or why the case was not judged.
        duration: seconds.
        record: what was sent and received; only where something is wrong.
        server_said: the last lines that the server printed during the case, where we started it and something is wrong; where a
            client is judged, those of the client.
        death: how its process ended, where it did.
        waits_for: the command that does not work and that the case needs, where it was not judged for that.
        failed: how many of its runs found a fault.
        runs: how often it was run.
    """

    case: Case
    verdict: Verdict
    rule: str
    expected: str = ""
    actual: str = ""
    duration: float = 0.0
    record: tuple[TranscriptPiece, ...] = ()
    server_said: tuple[str, ...] = ()
    death: str = ""
    waits_for: str = ""
    failed: int = 0
    runs: int = 1

    @property
    def transcript(self) -> tuple[str, ...]:
        """The last messages in both directions, abbreviated, one per line."""
        return tuple(map(str, self.record[-TRANSCRIPT_LINES:]))

    @property
    def detail(self) -> str:
        """Expected and actual behaviour in one sentence."""
        return f"expected {self.expected}; {self.actual}" if self.expected else self.actual


@dataclass(frozen=True, slots=True)
class Started:
    """The run begins: the target's name, the number of cases, the time in UTC, and what the target is."""

    target: str
    cases: int
    time: datetime
    party: Party = "server"


@dataclass(frozen=True, slots=True)
class Introduced:
    """The target runs and has answered HELLO and DEVICE_COUNT; so many of the cases are for its version."""

    facts: Facts
    cases: int


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """It is known what the target does."""

    diagnosis: Diagnosis


@dataclass(frozen=True, slots=True)
class CaseBegan:
    """A case is about to be run."""

    case: Case


@dataclass(frozen=True, slots=True)
class CaseEnded:
    """A case has its verdict."""

    result: Result


@dataclass(frozen=True, slots=True)
class Ended:
    """The run is over and the target stopped; interrupted: not all cases were run."""

    is_interrupted: bool = False


Event = Started | Introduced | Diagnosed | CaseBegan | CaseEnded | Ended


@dataclass(slots=True)
class Report:
    """A run so far, collected from its events.

    Attributes:
        target: the name of the server, or of the client.
        party: which of them it is.
        facts: what is known of it; None before it has answered.
        diagnosis: what the server does; None where it was not looked at.
        started: when, in UTC.
        results: in the order in which they came.
        known: all ids that a case has, whether or not it was run.
        planned: the number of cases to run.
        is_interrupted: whether the run was interrupted.
    """

    target: str = ""
    facts: Facts | None = None
    diagnosis: Diagnosis | None = None
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    results: list[Result] = field(default_factory=list)
    known: Collection[str] = field(default_factory=lambda: CASES)
    planned: int = 0
    is_interrupted: bool = False
    party: Party = "server"

    def take(self, event: Event) -> None:
        """Add what an event says."""
        match event:
            case Started():
                self.target, self.planned, self.started, self.party = event.target, event.cases, event.time, event.party
            case Introduced():
                self.facts, self.planned = event.facts, event.cases
            case Diagnosed():
                self.diagnosis = event.diagnosis
            case CaseBegan():
                pass  # nothing to report until it has a verdict
            case CaseEnded():
                self.results.append(event.result)
            case Ended():
                self.is_interrupted = event.is_interrupted
            case _:
                assert_never(event)
