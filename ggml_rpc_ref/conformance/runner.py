"""Run cases against a target, one after another, and check after each that the server still serves.

A server that serves one client at a time can be judged too: each connection of a case is closed before the next is opened, except
in the few cases that need two at a time.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from ggml_rpc_ref.conformance.case import Case
from ggml_rpc_ref.conformance.events import CaseBegan, CaseEnded, Ended, Event, Introduced, Report, Result, Started
from ggml_rpc_ref.conformance.peer import Facts, Subject
from ggml_rpc_ref.conformance.target import DYING, Target, is_loopback
from ggml_rpc_ref.conformance.verdict import NO_FAULT, Broken, NotJudged, Verdict
from ggml_rpc_ref.errors import Unsupported, Violation
from ggml_rpc_ref.net.stream import Endpoint
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.negotiation import agree, forms
from ggml_rpc_ref.spec.messages import DeviceCount, Hello, HelloReply
from ggml_rpc_ref.spec.versions import DEFAULT, Version

JUDGED: tuple[Version, ...] = (DEFAULT,)
"""The versions that this suite can judge."""
TIMEOUT = 5.0
"""Seconds that one answer may take by default."""
FRESH_AFTER = frozenset({Verdict.FAIL, Verdict.HANG, Verdict.DESYNC, Verdict.CRASH, Verdict.ERROR})
"""Verdicts after which a server that we started is restarted: its state may be damaged."""
PAUSE = 0.05
"""Seconds between two attempts to reach a server that may be dying."""
SERVES_ON = "the server to answer a new connection afterwards"


class WrongVersion(ConnectionError):  # noqa: N818  (an outcome, shown to the user as a sentence)
    """The server speaks a version that this suite can't judge."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to run.

    Attributes:
        timeout: seconds that one answer may take.
        owned: whether cases that may crash the server may be sent to another machine.
        own: judge the server as a client of this version sees it; None: as the version that it announces.
    """

    timeout: float = TIMEOUT
    owned: bool = False
    own: Version | None = None


def judge(target: Target, cases: Sequence[Case], options: Options | None = None) -> Generator[Event, None, None]:
    """Judge a target by those of these cases that its version has, and yield what happens; it is started and stopped here.

    The first event is `Started`, the last one `Ended`. An interrupt (KeyboardInterrupt) while a case runs ends the run with an
    `Ended` that says so; the case that it interrupted has no verdict. Closing the generator stops the target.

    Raises:
        ConnectionError: where it can't be reached, or (WrongVersion) speaks a version that this suite can't judge.
        TimeoutError: where it accepts the connection but does not answer.
        Misuse: where its command can't be started.
    """
    options = options or Options()
    yield Started(target.name, len(cases), datetime.now(UTC))
    try:
        target.start()
        facts = introduce(target.endpoint, options.timeout, options.own)
        yield Introduced(facts)
        run = _Run(target, facts, options)
        for case in (case for case in cases if case.present(facts.version)):
            yield CaseBegan(case)
            yield CaseEnded(run.judge(case))
        is_interrupted = False
    except KeyboardInterrupt:
        is_interrupted = True
    finally:
        target.stop()
    # after `finally`: whoever hears it may rely on the target having ended
    yield Ended(is_interrupted)


def run(target: Target, cases: Sequence[Case], options: Options | None = None) -> Report:
    """Judge a target by these cases and return the report of a whole run.

    Raises:
        ConnectionError, TimeoutError, Misuse: as `judge`.
        KeyboardInterrupt: where the run was interrupted.
    """
    report = Report()
    for event in judge(target, cases, options):
        report.take(event)
    if report.is_interrupted:
        raise KeyboardInterrupt
    return report


# ------------------------------------------------------------------------------------------------------- introduction


def introduce(endpoint: Endpoint, timeout: float, own: Version | None = None) -> Facts:
    """Find out what the server speaks, and ask for the number of devices.

    Args:
        endpoint: where it listens.
        timeout: seconds that one answer may take.
        own: judge it as a client of this version sees it; None: as the version that it announces.

    Raises:
        ConnectionError, TimeoutError, WrongVersion: as `judge`.
    """
    facts = _negotiated(endpoint, timeout, own)
    if facts.version not in JUDGED:
        raise WrongVersion(f"{endpoint} speaks protocol {facts.announced}; this suite judges {', '.join(map(str, JUDGED))}")
    subject = Subject(endpoint, timeout, facts)
    try:
        peer = subject.connect()
        if facts.has(DeviceCount):
            facts.device_count = peer.ask(DeviceCount()).device_count
        peer.sync()
    except Broken as broken:
        raise ConnectionError(f"{endpoint} speaks protocol {facts.announced}, but: {broken}") from None
    finally:
        subject.close()
    return facts


def _negotiated(endpoint: Endpoint, timeout: float, own: Version | None) -> Facts:
    """Return what HELLO settles; it is said in each of its forms, the newest first, until one is answered."""
    problem = ""
    for form in (own,) if own is not None else forms():
        subject = Subject(endpoint, timeout, Facts(form))
        try:
            agreed = agree(_hello_reply(subject), form, own)
            return Facts(agreed.version, announced=agreed.announced)
        except Broken as broken:
            problem = broken.actual
            if not subject.peers:  # it does not even accept a connection
                raise ConnectionError(problem) from None
            if broken.verdict is Verdict.HANG:
                raise TimeoutError(f"{endpoint} does not answer HELLO within {timeout:g} s: {problem}") from None
        except (Unsupported, Violation) as error:
            raise WrongVersion(f"{endpoint} can't be judged: {error}") from None
        finally:
            subject.close()
    hint = "a server that does not take clients from this address, or is full, does so"
    raise ConnectionError(f"{endpoint} names no version ({problem}; {hint})")


def _hello_reply(subject: Subject) -> HelloReply:
    """Say HELLO in the form of the subject's version and return the reply.

    Raises:
        Broken: where it is not answered, or as a version of another form answers.
        ConnectionError: where what answers does not speak this protocol.
    """
    peer = subject.open()
    peer.send(Hello())
    size = codec.REPLY_HEAD.unpack(peer.take(8, "a reply to HELLO"))[0]
    sizes = {codec.minimum_size(HelloReply, form) for form in forms()}
    if size not in sizes:
        raise ConnectionError(f"{subject.endpoint} answers HELLO with a size of {size}: it does not speak ggml RPC")
    payload = peer.take(size, "the reply to HELLO")
    if size != codec.minimum_size(HelloReply, peer.version):
        raise Broken("a reply of this form of HELLO", f"HELLO was answered with {size} bytes")
    return codec.decode(HelloReply, payload, peer.version)


# ------------------------------------------------------------------------------------------------------------ one case


@dataclass(slots=True)
class _Run:
    """The state of a run; `gone` says why no server is left to judge, "" while there is one."""

    target: Target
    facts: Facts
    options: Options
    gone: str = ""

    def judge(self, case: Case) -> Result:
        """Run a case if it may be run, check the server afterwards, and return the result of both."""
        if self.gone:
            return _skipped(case, self.gone)
        if case.may_crash and not self.options.owned and not is_loopback(self.target.endpoint.host):
            return _skipped(case, "it may crash the server, which is on another machine: --i-own-this-target permits it")
        self.facts.pid = self.target.pid
        subject = self._subject(case.patience)
        start = time.monotonic()
        result = _ask(case, subject)
        subject.close()
        # once the case's connections are closed: a server that serves one client at a time would not answer this one before
        loss = self._loss()
        if loss is not None:
            result = _with_loss(result, loss)
        if result.verdict in FRESH_AFTER:
            # a loss with a rule is of a server that still answers
            self._restart(case, lost=loss is not None and not loss.rule)
            result = replace(result, transcript=tuple(subject.transcript))
        return replace(result, duration=time.monotonic() - start)

    def _subject(self, patience: float = 1.0) -> Subject:
        return Subject(self.target.endpoint, self.options.timeout * patience, self.facts)

    def _loss(self) -> Broken | None:
        """Return None if the server serves a new connection, and otherwise what is wrong."""
        deadline = time.monotonic() + DYING
        while True:
            if death := self.target.death():
                return Broken(SERVES_ON, f"the server died: {death}", verdict=Verdict.CRASH)
            subject = self._subject()
            try:
                subject.check_alive()
                return None
            except Broken as broken:
                # it serves, but against another rule, for instance with another version: time will not mend that
                if broken.rule:
                    return broken
                if broken.verdict is Verdict.HANG:
                    return Broken(SERVES_ON, f"it does not answer one: {broken.actual}", verdict=Verdict.HANG)
                # a dying process may still accept connections, and one that is only busy may recover: try again
                if time.monotonic() > deadline:
                    return Broken(SERVES_ON, f"it accepts none: {broken.actual}", verdict=Verdict.CRASH)
            finally:
                subject.close()
            time.sleep(PAUSE)

    def _restart(self, case: Case, lost: bool) -> None:
        """Restart the server for the next case, where we started it; otherwise give up if it is lost."""
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
    except Exception as error:  # a defect of ours must neither end the run nor look like the server's
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        return Result(case, Verdict.ERROR, case.rule.id, actual=f"{type(error).__name__} at {place}: {error}; please report it")


def _with_loss(result: Result, loss: Broken) -> Result:
    """Return a case's result after which the server did not serve: that is worse than what the case itself found."""
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
