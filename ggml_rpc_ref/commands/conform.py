"""What the commands `conform` and `vectors play` do, and their --list: results on standard output, progress on standard error."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ggml_rpc_ref.conformance import (
    CASES,
    NO_FAULT,
    Case,
    Given,
    Options,
    Result,
    Target,
    as_json,
    as_text,
    case_as_json,
    embedded,
    exit_status,
    from_command,
    load,
    run,
)
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.net.stream import parse_endpoint

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was asked for on the command line; `ggml-rpc-ref conform --help` says what each means."""

    timeout: float = 5.0
    expect: Path | None = None
    owned: bool = False
    as_json: bool = False


def choose(endpoint: str, spawn: str) -> Target:
    """Return the target that was named: one that runs, one to start, or our own server.

    Raises:
        Misuse: for both, or an endpoint or command that can't be.
    """
    if endpoint and spawn:
        raise Misuse("give either HOST:PORT or --spawn, not both")
    if endpoint:
        return Given(parse_endpoint(endpoint))
    return from_command(spawn) if spawn else embedded()


def list_cases(cases: Sequence[Case], wishes: Wishes) -> int:
    """Print the cases that would be run."""
    if wishes.as_json:
        print(json.dumps({"schema_version": 1, "cases": [case_as_json(case) for case in cases]}, indent=1))
        return 0
    for case in cases:
        print(f"{case.id}  {case.rule.level}{', may crash' if case.may_crash else ''}: {case.doc}")
    print(f"{len(cases)} cases of {len({case.rule.id for case in cases})} rules", file=sys.stderr)
    return 0


def conform(
    target: Target,
    cases: Sequence[Case],
    wishes: Wishes,
    known: Collection[str] = CASES,
    summary: Callable[[Sequence[Result]], Iterable[str]] = lambda _: (),
) -> int:
    """Judge a target by these cases, print the report, and return the exit status.

    Args:
        target: whom.
        cases: by what.
        wishes: how, and what is printed.
        known: the ids that an expected failure may have.
        summary: gives lines to print above the counts, where the report is text.
    """
    expected = load(wishes.expect) if wishes.expect else None
    # SIGTERM would end us without a word, and leave a server behind that nobody owns
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(INTERRUPTED))
    with _progress(target.name, cases) as on_result:
        report = run(target, cases, Options(wishes.timeout, wishes.owned), on_result)
    report.known = known
    if wishes.as_json:
        print(json.dumps(as_json(report, expected), indent=1))
    else:
        print("\n".join(as_text(report, expected, summary(report.results))))
    return exit_status(report, expected)


@contextmanager
def _progress(name: str, cases: Sequence[Case]) -> Iterator[Callable[[Result], None] | None]:
    """Show a bar on a terminal, with what is wrong above it as it is found; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # rich itself honours NO_COLOR
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=len(cases))

        def advance(result: Result) -> None:
            if result.verdict not in NO_FAULT:
                bar.console.print(f"{result.verdict} {result.case.id}", markup=False, highlight=False)
            bar.advance(task)

        yield advance
