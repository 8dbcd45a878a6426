"""Run cases against a target, one after another, and check after each that the server still serves.

A server that serves one client at a time can be judged too: each connection of a case is closed before the next is opened, except
in the few cases that need two at a time.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ggml_rpc_ref.conformance.case import Case
from ggml_rpc_ref.conformance.diagnosis import Diagnosis, apply, diagnose
from ggml_rpc_ref.conformance.events import Diagnosed, Ended, Event, Introduced, Report, Result, Started
from ggml_rpc_ref.conformance.parallel import spread, spread_over_one
from ggml_rpc_ref.conformance.peer import LEAVING, Facts, Subject
from ggml_rpc_ref.conformance.serving import Serving
from ggml_rpc_ref.conformance.target import Target, is_loopback
from ggml_rpc_ref.conformance.verdict import NO_FAULT, SEVERITY, Broken, NotJudged, Verdict
from ggml_rpc_ref.errors import Unsupported, Violation
from ggml_rpc_ref.net.stream import Endpoint
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.negotiation import agree, forms
from ggml_rpc_ref.spec.messages import DeviceCount, GetAlignment, Hello, HelloReply
from ggml_rpc_ref.spec.versions import Version

TIMEOUT = 5.0
"""Seconds that one answer may take by default."""
FRESH_AFTER = frozenset({Verdict.FAIL, Verdict.HANG, Verdict.DESYNC, Verdict.CRASH, Verdict.ERROR})
"""Verdicts after which a server that we started is restarted: its state may be damaged."""
LAST_LINES = 5
"""The last lines of what the server printed during a case that stand beside its failure."""


class WrongVersion(ConnectionError):  # noqa: N818  (an outcome, shown to the user as a sentence)
    """The server speaks a version that this suite can't judge."""


class NamesNoVersion(ConnectionError):  # noqa: N818
    """The server closes on every form of HELLO."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to run.

    Attributes:
        timeout: seconds that one answer may take.
        owned: whether cases that may crash the server may be sent to another machine.
        profile: what is asked of the server: a profile of `diagnosis`, or "full"; "" to judge without a diagnosis.
        repeat: how often each case is run; of several verdicts the worst counts.
        jobs: how many cases are run at a time, where the server can be started several times or serves several clients.
        own: judge the server as a client of this version sees it; None: as the version that it announces.
    """

    timeout: float = TIMEOUT
    owned: bool = False
    profile: str = "full"
    repeat: int = 1
    jobs: int = 1
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
        run = _started(target, options)
        asked = [case for case in cases if case.present(run.serving.facts.version)]
        yield Introduced(run.serving.facts, len(asked))
        if options.profile:
            yield Diagnosed(run.diagnose())
        yield from run.all(asked)
        is_interrupted = False
    except KeyboardInterrupt:
        is_interrupted = True
    finally:
        target.stop()
    # after `finally`: whoever hears it may rely on the target having ended
    yield Ended(is_interrupted)


def begin(target: Target, options: Options | None = None) -> Judging:
    """Start a target, find out what it does, and return what judges it case by case; the caller stops the target.

    Raises:
        ConnectionError, TimeoutError, Misuse: as `judge`.
    """
    options = options or Options()
    judging = _started(target, options)
    if options.profile:
        judging.diagnose()
    return judging


def _started(target: Target, options: Options) -> Judging:
    target.start()
    facts = introduce(target.endpoint, options.timeout, options.own)
    return Judging(Serving(target, facts, options.timeout), options)


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
    facts = _settled(endpoint, timeout, own)
    subject = Subject(endpoint, timeout, facts)
    try:
        peer = subject.connect()
        if facts.has(DeviceCount):
            facts.device_count = peer.ask(DeviceCount()).device_count
        else:
            facts.alignment = peer.ask(GetAlignment()).alignment
        peer.sync()
    except Broken as broken:
        raise ConnectionError(f"{endpoint} speaks protocol {facts.announced}, but: {broken}") from None
    finally:
        subject.close()
    return facts


def _settled(endpoint: Endpoint, timeout: float, own: Version | None) -> Facts:
    """Return what HELLO settles; a server of one client that turns others away is asked until it has noticed that one has left."""
    end = time.monotonic() + LEAVING
    while True:
        try:
            return _negotiated(endpoint, timeout, own)
        except NamesNoVersion:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def _negotiated(endpoint: Endpoint, timeout: float, own: Version | None) -> Facts:
    """Return what HELLO settles; it is said in each of its forms, the newest first, until one is answered."""
    problem, seen = "", b""
    for form in (own,) if own is not None else forms():
        subject = Subject(endpoint, timeout, Facts(form))
        try:
            agreed = agree(_hello_reply(subject), form, own)
            return Facts(agreed.version, announced=agreed.announced)
        except Broken as broken:
            problem, seen = broken.actual, subject.received()
            if not subject.peers:  # it does not even accept a connection
                raise ConnectionError(problem) from None
            if broken.verdict is Verdict.HANG:
                raise TimeoutError(f"{endpoint} does not answer HELLO within {timeout:g} s: {problem}") from None
        except (Unsupported, Violation) as error:
            raise WrongVersion(f"{endpoint} can't be judged: {error}") from None
        finally:
            subject.close()
    if problem and (kind := likely(seen)):
        raise ConnectionError(f"{endpoint} does not speak ggml RPC: what it answers to HELLO looks like {kind}")
    hint = "a server that does not take clients from this address, or is full, does so"
    raise NamesNoVersion(f"{endpoint} names no version ({problem}; {hint})")


LOOKS: dict[bytes, str] = {
    b"HTTP/": "HTTP",
    b"SSH-": "SSH",
    b"\x15\x03": "TLS",
    b"\x16\x03": "TLS",
    b"220": "SMTP or FTP",
    b"RFB ": "VNC",
    b"-ERR": "Redis",
    b"{": "JSON",
}
"""How the answers of servers begin that speak something else."""


def likely(data: bytes) -> str:
    """Return what a server that begins its answer so speaks; "" where that is not clear."""
    return next((name for first, name in LOOKS.items() if data.startswith(first)), "")


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
        kind = likely(subject.received())
        looks = f"; it looks like {kind}" if kind else ""
        raise ConnectionError(f"{subject.endpoint} answers HELLO with a size of {size}: it does not speak ggml RPC{looks}")
    payload = peer.take(size, "the reply to HELLO")
    if size != codec.minimum_size(HelloReply, peer.version):
        raise Broken("a reply of this form of HELLO", f"HELLO was answered with {size} bytes")
    return codec.decode(HelloReply, payload, peer.version)


# ------------------------------------------------------------------------------------------------------------ one case


@dataclass(slots=True)
class Judging:
    """Judges one case after another on a server.

    Attributes:
        serving: the server.
        options: how to judge.
    """

    serving: Serving
    options: Options

    def diagnose(self) -> Diagnosis:
        """Find out what the server does; cases that need what does not work are not judged from then on."""
        found = diagnose(self.serving)
        apply(found, self.serving.facts, self.options.profile)
        return found

    def all(self, cases: Sequence[Case]) -> Iterator[Event]:
        """Judge cases, those last that servers are known to die of: one that is not ours is to be judged by the others first."""
        harmless, deadly = ([case for case in cases if case.may_crash == it] for it in (False, True))
        if self.options.jobs < 2:
            yield from spread_over_one([*harmless, *deadly], self.repeated)
        elif self.serving.target.restartable:
            twins = [self.twin() for _ in range(self.options.jobs - 1)]
            try:
                for twin in twins:
                    twin.serving.target.start()
                yield from spread([*harmless, *deadly], [self.repeated, *(twin.repeated for twin in twins)])
            finally:
                for twin in twins:
                    twin.serving.target.stop()
        else:
            together, alone = ([case for case in harmless if _is_private(case) == it] for it in (True, False))
            yield from spread(together, [self.repeated] * (self.options.jobs if self._serves_several() else 1))
            yield from spread_over_one([*alone, *deadly], self.repeated)

    def _serves_several(self) -> bool:
        subject = self.serving.subject()
        try:
            subject.connect()
            return subject.answers_second_client()
        except Broken:
            return False
        finally:
            subject.close()

    def twin(self) -> Judging:
        """Return another one with a server of its own, which is not started yet."""
        return Judging(Serving(self.serving.target.twin(), replace(self.serving.facts), self.serving.timeout), self.options)

    def repeated(self, case: Case) -> Result:
        """Judge a case as often as is wanted, and return the worst result; where not all are the same it says how many failed."""
        results = [self.judge(case) for _ in range(self.options.repeat)]
        worst = max(results, key=lambda result: SEVERITY.index(result.verdict))
        failed = sum(result.verdict not in NO_FAULT for result in results)
        return replace(worst, failed=failed, runs=len(results), duration=sum(result.duration for result in results))

    def judge(self, case: Case) -> Result:
        """Run a case if it may be run, check the server afterwards, and return the result of both."""
        serving, target = self.serving, self.serving.target
        if serving.gone:
            return _skipped(case, serving.gone)
        if case.may_crash and not self.options.owned and not is_loopback(target.endpoint.host):
            return _skipped(case, "it may crash the server, which is on another machine: --i-own-this-target permits it")
        subject, start, mark = serving.subject(case.patience), time.monotonic(), target.log_size()
        subject.judges = case.command
        result = ask(case, subject)
        subject.close()
        # once the case's connections are closed: a server that serves one client at a time would not answer this one before
        loss = serving.loss()
        if loss is not None:
            result = _with_loss(result, loss)
        serving.note(result.verdict)
        if result.verdict in FRESH_AFTER:
            said = tuple(target.log_lines(mark)[-LAST_LINES:])
            result = replace(result, record=tuple(subject.record), server_said=said, death=target.death())
            # a loss with a rule is of a server that still answers
            serving.restore(case.id, lost=loss is not None and not loss.rule)
        return replace(result, duration=time.monotonic() - start)


def _is_private(case: Case) -> bool:
    """Whether a case looks only at what is its own connection's; other clients change the memory that is free, for instance."""
    return case.rule.id.partition(".")[0] not in ("session", "device")


def ask(case: Case, subject: Any) -> Result:
    """Run a case and return its result; a defect of ours is one of the results."""
    try:
        case.run(subject)
        return Result(case, Verdict.PASS, case.rule.id)
    except NotJudged as reason:
        return Result(case, reason.verdict, case.rule.id, actual=reason.reason, waits_for=reason.command)
    except Broken as broken:
        if broken.refused and isinstance(subject, Subject) and subject.lacks:
            why = f"it refuses {subject.lacks}, as a server may (graph.op-supported)"  # an op, or a type
            return Result(case, Verdict.UNSUPPORTED, case.rule.id, actual=why)
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
