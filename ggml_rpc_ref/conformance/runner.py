"""Run cases against a target, one after another, and find out after each whether the server still serves.

A server that serves one client at a time is judged like any other: every connection of a case is closed before the next is opened,
except in the few cases that are about two.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from ggml_rpc_ref.conformance.case import CASES, Case
from ggml_rpc_ref.conformance.peer import Facts, Subject
from ggml_rpc_ref.conformance.target import DYING, Target, is_loopback
from ggml_rpc_ref.conformance.verdict import NO_FAULT, Broken, NotJudged, Verdict
from ggml_rpc_ref.net.stream import Endpoint
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.messages import DeviceCount, Hello, layouts
from ggml_rpc_ref.spec.versions import DEFAULT, Version

JUDGED: tuple[Version, ...] = (DEFAULT,)
"""The versions whose rules this suite knows."""
TIMEOUT = 5.0
"""Seconds that one answer may take unless said otherwise."""
FRESH_AFTER = frozenset({Verdict.FAIL, Verdict.HANG, Verdict.DESYNC, Verdict.CRASH, Verdict.ERROR})
"""Verdicts after which a server that we started is started anew: it may have been harmed."""
PAUSE = 0.05
SERVES_ON = "the server to answer a new connection afterwards"


class WrongVersion(ConnectionError):  # noqa: N818  (an outcome that the caller shows as a sentence)
    """The server speaks a version that this suite does not judge."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one case.

    Attributes:
        case: which.
        verdict: what.
        rule: id of the rule that was found broken: the case's own, unless it stumbled over another on its way.
        expected: what should have happened; "" where nothing is wrong.
        actual: what happened, or why it was not judged.
        duration: seconds.
        transcript: what went to and fro, abbreviated; only where something is wrong.
    """

    case: Case
    verdict: Verdict
    rule: str
    expected: str = ""
    actual: str = ""
    duration: float = 0.0
    transcript: tuple[str, ...] = ()

    @property
    def detail(self) -> str:
        """What is to be said of it in one sentence."""
        return f"expected {self.expected}; {self.actual}" if self.expected else self.actual


@dataclass(slots=True)
class Report:
    """A run: against whom, and what became of each case.

    Attributes:
        target: the server, as it is called.
        facts: what is known of it.
        started: when.
        results: in the order in which they came.
        known: the ids that cases have, those that were not run among them.
    """

    target: str
    facts: Facts
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    results: list[Result] = field(default_factory=list)
    known: Collection[str] = field(default_factory=lambda: CASES)


@dataclass(frozen=True, slots=True)
class Options:
    """How to run.

    Attributes:
        timeout: seconds that one answer may take.
        owned: whether cases that may crash the server are allowed on another machine.
    """

    timeout: float = TIMEOUT
    owned: bool = False


def run(
    target: Target, cases: Sequence[Case], options: Options | None = None, on_result: Callable[[Result], None] | None = None
) -> Report:
    """Judge a target by these cases; it is started and ended here.

    Raises:
        ConnectionError: where it can't be reached, or (WrongVersion) speaks a version that is not judged here.
        TimeoutError: where it accepts the connection but does not answer.
    """
    options = options or Options()
    try:
        target.start()
        facts = introduce(target.endpoint, options.timeout)
        report = Report(target.name, facts)
        run = _Run(target, facts, options)
        for case in cases:
            report.results.append(run.judge(case))
            if on_result is not None:
                on_result(report.results[-1])
        return report
    finally:
        target.stop()


# ------------------------------------------------------------------------------------------------------- first contact


def introduce(endpoint: Endpoint, timeout: float) -> Facts:
    """Say HELLO and count the devices.

    Raises:
        ConnectionError, TimeoutError, WrongVersion.
    """
    found = _version(endpoint, timeout)
    judged = ", ".join(map(str, JUDGED))
    if found not in JUDGED:
        raise WrongVersion(f"{endpoint} speaks protocol {found}; this suite judges {judged}")
    facts = Facts(found)
    subject = Subject(endpoint, timeout, facts)
    peer = subject.open()
    try:
        peer.hello()
        facts.device_count = peer.ask(DeviceCount()).device_count
    except Broken as broken:
        raise ConnectionError(f"{endpoint} says protocol {found}, but: {broken}") from None
    finally:
        subject.close()
    return facts


def _version(endpoint: Endpoint, timeout: float) -> Version:
    """Return the version that HELLO says: asked in each form that HELLO has had, oldest first."""
    said = ""
    for form in layouts(Hello):
        subject = Subject(endpoint, timeout, Facts(form))
        try:
            peer = subject.open()
            peer.send(Hello())
            size = codec.REPLY_HEAD.unpack(peer.take(8, "a reply to HELLO"))[0]
            if not 3 <= size <= 64:
                raise ConnectionError(f"{endpoint} answers HELLO with a size of {size}: it speaks no ggml RPC")
            return Version(*peer.take(size, "the reply to HELLO")[:3])
        except Broken as broken:
            said = broken.actual
            if not subject.peers:
                raise ConnectionError(said) from None
            if broken.verdict is Verdict.HANG:
                raise TimeoutError(f"{endpoint} does not answer HELLO within {timeout:g} s: {said}") from None
        finally:
            subject.close()
    judged = ", ".join(map(str, JUDGED))
    raise ConnectionError(f"{endpoint} names no version ({said}); this suite judges {judged}")


# ------------------------------------------------------------------------------------------------------------ one case


@dataclass(slots=True)
class _Run:
    """The state of a run: whether there is still a server to judge."""

    target: Target
    facts: Facts
    options: Options
    gone: str = ""

    def judge(self, case: Case) -> Result:
        """Run a case where it may be run, look after the server, and say what became of both."""
        if self.gone:
            return _skipped(case, self.gone)
        if case.may_crash and not self.options.owned and not is_loopback(self.target.endpoint.host):
            return _skipped(case, "it may crash the server, which is on another machine: --i-own-this-target gives leave")
        self.facts.pid = self.target.pid
        subject = self._subject(case.patience)
        start = time.monotonic()
        result = _ask(case, subject)
        subject.close()
        loss = self._loss()
        if loss is not None:
            result = _made_worse(result, loss)
        if result.verdict in FRESH_AFTER:
            self._renew(case, lost=loss is not None and not loss.rule)
            result = replace(result, transcript=tuple(subject.transcript))
        return replace(result, duration=time.monotonic() - start)

    def _subject(self, patience: float = 1.0) -> Subject:
        return Subject(self.target.endpoint, self.options.timeout * patience, self.facts)

    def _loss(self) -> Broken | None:
        """Return None where the server serves a new connection, and otherwise what is wrong."""
        deadline = time.monotonic() + DYING
        while True:
            if death := self.target.death():
                return Broken(SERVES_ON, f"the server died: {death}", verdict=Verdict.CRASH)
            subject = self._subject()
            try:
                subject.check_alive()
                return None
            except Broken as broken:
                if broken.rule:
                    return broken
                if broken.verdict is Verdict.HANG:
                    return Broken(SERVES_ON, f"it does not answer one: {broken.actual}", verdict=Verdict.HANG)
                # a dying process may still accept; one that is only busy gets a second chance
                if time.monotonic() > deadline:
                    return Broken(SERVES_ON, f"it accepts none: {broken.actual}", verdict=Verdict.CRASH)
            finally:
                subject.close()
            time.sleep(PAUSE)

    def _renew(self, case: Case, lost: bool) -> None:
        """Have a fresh server for the next case: the old one may have been harmed."""
        if self.target.restartable:
            try:
                self.target.start()
            except ConnectionError as error:
                self.gone = f"after {case.id} it did not start again: {error}"
        elif lost:
            self.gone = f"the server was lost in {case.id}"


def _ask(case: Case, subject: Subject) -> Result:
    try:
        case.run(subject)
        return Result(case, Verdict.PASS, case.rule.id)
    except NotJudged as reason:
        return Result(case, reason.verdict, case.rule.id, actual=reason.reason)
    except Broken as broken:
        return Result(case, broken.verdict, broken.rule or case.rule.id, broken.expected, broken.actual)
    except Exception as error:  # a defect of ours must not end the run, nor look like the server's
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        return Result(case, Verdict.ERROR, case.rule.id, actual=f"{type(error).__name__} at {place}: {error}; please report it")


def _made_worse(result: Result, loss: Broken) -> Result:
    """Return a case's result where the server was not well after it: that outweighs what the case itself found."""
    if loss.rule and result.verdict not in NO_FAULT:
        return result
    before = f"{result.actual}; then " if result.expected else ""
    return replace(
        result,
        verdict=loss.verdict,
        rule=loss.rule or result.case.rule.id,
        expected=result.expected or loss.expected,
        actual=before + loss.actual,
    )


def _skipped(case: Case, reason: str) -> Result:
    return Result(case, Verdict.SKIP, case.rule.id, actual=reason)
