"""Judge a client: find out what it speaks, then case by case; told as the same events as the judging of a server."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from ggml_rpc_ref.conformance.case import Case
from ggml_rpc_ref.conformance.clients.bench import Bench, Play, playing
from ggml_rpc_ref.conformance.clients.heard import Run
from ggml_rpc_ref.conformance.clients.program import Program
from ggml_rpc_ref.conformance.clients.reproducer import ENDED, outcome_of
from ggml_rpc_ref.conformance.clients.script import HONEST
from ggml_rpc_ref.conformance.diagnosis import WORKING, Ability, Diagnosis, State
from ggml_rpc_ref.conformance.events import Diagnosed, Ended, Event, Introduced, Result, Started
from ggml_rpc_ref.conformance.parallel import spread, spread_over_one
from ggml_rpc_ref.conformance.peer import Facts, TranscriptPiece
from ggml_rpc_ref.conformance.runner import ask
from ggml_rpc_ref.conformance.verdict import NO_FAULT, SEVERITY
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.messages import Hello, by_number
from ggml_rpc_ref.spec.versions import PROFILES, Version

LOOPBACK = "127.0.0.1"
TIMEOUT = 20.0
"""Seconds that a run of the client may take by default."""
CALM = 0.1
"""Seconds without a byte before a fault is told."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to judge.

    Attributes:
        timeout: seconds that a run of the client may take.
        version: what it speaks; None: it is found out.
        addresses: where our servers listen, an address and a port each; 0: any free one.
        repeat: how often each case is run; of several verdicts the worst counts.
        jobs: how many runs there may be at a time.
        calm: see CALM.
    """

    timeout: float = TIMEOUT
    version: Version | None = None
    addresses: tuple[tuple[str, int], ...] = ((LOOPBACK, 0), (LOOPBACK, 0))
    repeat: int = 1
    jobs: int = 1
    calm: float = CALM


class SpeaksNothing(ConnectionError):  # noqa: N818  (an outcome, shown to the user as a sentence)
    """The client goes on with no version, so there is nothing to judge."""


def judge(program: Program, cases: Sequence[Case], options: Options | None = None) -> Generator[Event, None, None]:
    """Judge a client by those of these cases that its version has, and yield what happens.

    The first event is `Started`, the last one `Ended`; an interrupt ends the run with an `Ended` that says so.

    Raises:
        SpeaksNothing: where it goes on with no version that is known here.
        Misuse: where it can't be started, and where an address can't be bound.
    """
    options = options or Options()
    yield Started(program.name, len(cases), datetime.now(UTC), "client")
    is_interrupted = False
    with tempfile.TemporaryDirectory(prefix="ggml-rpc-ref-") as cache:
        try:
            begun = time.monotonic()
            bench = introduce(program, playing(Path(cache), options.addresses, options.calm), options)
            chosen = [case for case in cases if case.present(bench.version)]
            yield Introduced(Facts(bench.version), len(chosen))
            yield Diagnosed(_seen(bench, time.monotonic() - begun))
            yield from _spread(chosen, lambda case: repeated(bench, case, options.repeat), options.jobs)
        except KeyboardInterrupt:
            is_interrupted = True
    yield Ended(is_interrupted)


def _spread(cases: Sequence[Case], one: Callable[[Case], Result], jobs: int) -> Iterator[Event]:
    yield from spread_over_one(cases, one) if jobs < 2 else spread(cases, [one] * jobs)


# ------------------------------------------------------------------------------------------------------- introduction


def introduce(program: Program, play: Play, options: Options) -> Bench:
    """Find out what a client speaks, and let it talk to an honest server.

    HELLO's request carries no version but by its size, so servers of one version after another are played, the newest first, until
    the client says something else than HELLO. Of versions that differ in the patch alone the newest is taken.

    Raises:
        SpeaksNothing, Misuse: as `judge`.
    """
    if options.version is not None:
        return Bench(program, play, options.version, options.timeout)
    tried: list[Run] = []
    for version in _candidates():
        if tried and _sizes(tried) and codec.minimum_size(Hello, version) not in _sizes(tried):
            continue
        run = play(program, HONEST, version, options.timeout)
        if any(talk.goes_on for talk in run.conversations):
            bench = Bench(program, play, version, options.timeout)
            bench.keep(HONEST, run)
            return bench
        tried.append(run)
    raise SpeaksNothing(_speaks_nothing(tried))


def _candidates() -> list[Version]:
    """Return the newest patch of each version that is known, the newest first."""
    return sorted({max(v for v in PROFILES if v[:2] == known[:2]) for known in PROFILES}, reverse=True)


def _sizes(runs: Sequence[Run]) -> set[int]:
    """Return the sizes of HELLO that a client has said: those of the version played, or what was refused in their place."""
    sizes = set()
    for run in runs:
        for talk in run.conversations:
            if talk.violation is not None and talk.violation.field == "Hello size":
                sizes.add(int(str(talk.violation.value)))
            elif talk.opened:
                sizes.add(codec.minimum_size(Hello, talk.version))
    return sizes


def _speaks_nothing(runs: Sequence[Run]) -> str:
    last = runs[-1]
    if not last.conversations:
        return f"the client did not connect: {last.ended.death or 'nobody came'}"
    broken = next((f": {talk.violation}" for talk in last.conversations if talk.violation is not None), "")
    versions = ", ".join(str(run.version) for run in runs)
    return f"the client went on with no server (tried: {versions}){broken}; say what it speaks with --proto; {last.ended.death}"


def _seen(bench: Bench, seconds: float) -> Diagnosis:
    """Return which commands a client sends to an honest server."""
    trouble = bench.trouble()
    counts = bench.last.commands() if bench.last else {}
    names = [row.name for row in by_number(bench.version).values()]
    return Diagnosis(commands={name: _ability(counts.get(name, 0)) for name in names}, duration=seconds, trouble=trouble)


def _ability(count: int) -> Ability:
    return WORKING if count else Ability(State.LACKING, "not sent")


# ------------------------------------------------------------------------------------------------------------- one case


def repeated(bench: Bench, case: Case, times: int = 1) -> Result:
    """Judge a case as often as is wanted, and return the worst result; it says how many of its runs failed."""
    results = [judge_one(bench, case) for _ in range(times)]
    worst = max(results, key=lambda result: SEVERITY.index(result.verdict))
    failed = sum(result.verdict not in NO_FAULT for result in results)
    return replace(worst, failed=failed, runs=times, duration=sum(result.duration for result in results))


def judge_one(bench: Bench, case: Case) -> Result:
    """Judge one case."""
    mine, begun = bench.for_case(), time.monotonic()
    result = ask(case, mine)
    if result.verdict not in NO_FAULT and mine.last is not None:
        ended = mine.last.ended
        death = ended.death if _is_death(ended.status) else ""
        result = replace(result, record=(*mine.last.record(), *_reaction(mine.last)), server_said=ended.lines, death=death)
    return replace(result, duration=time.monotonic() - begun)


def _reaction(run: Run) -> Iterator[TranscriptPiece]:
    """Yield how the client ended, where what it does about a reply is the matter, and not what its requests hold."""
    how = outcome_of(run.ended)
    if how and run.told and not any(run.violations()):
        yield TranscriptPiece(0, "got", f"{ENDED}{how}", b"")


def _is_death(status: int | None) -> bool:
    return status is not None and status < 0
