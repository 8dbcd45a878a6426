"""The command `conform`, and what `vectors play` shares with it: results on standard output, progress on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ggml_rpc_ref.commands.exit_codes import ExitCode
from ggml_rpc_ref.commands.options import LONGEST_TIMEOUT, AsJson, Expect, Judged, Listing, Only, Owned, Profile, Skip, Spawn
from ggml_rpc_ref.commands.output import print_error, print_json
from ggml_rpc_ref.commands.writing import NOTHING, Writing, shortened
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.versions import DEFAULT

if TYPE_CHECKING:
    from ggml_rpc_ref.conformance import Case, Event, Expected, Report, Result, Target
    from ggml_rpc_ref.spec.versions import Version


EVERY = "every"
"""The word for all versions, one after the other."""


def conform(
    target: Judged = "",
    spawn: Spawn = "",
    only: Only = None,
    skip: Skip = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="What reports call the server. (default: its address or command)")] = "",
    timeout: Annotated[
        float, typer.Option(min=0.1, max=LONGEST_TIMEOUT, metavar="SECONDS", help="How long one answer may take.")
    ] = 5.0,
    profile: Profile = "full",
    repeat: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Run each case N times; the worst verdict counts.")] = 1,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=64, metavar="N", help="Judge N cases at a time.")] = 1,
    expect: Expect = None,
    write_expect: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write what was found, for --expect; reasons that it has are kept."),
    ] = None,
    report: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Also write the report as .json, .xml (JUnit), .sarif or .html; may be repeated."),
    ] = None,
    reproduce: Annotated[
        Path | None, typer.Option(metavar="DIRECTORY", help="Write a file for `replay` and a script for each failure.")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what was sent and received, and what the server printed.")
    ] = False,
    targets: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Judge the servers and clients that this file names (TOML or JSON); the options here hold for all."
        ),
    ] = None,
    at_once: Annotated[int, typer.Option(min=1, max=256, metavar="N", help="With --targets: N servers at a time.")] = 4,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIRECTORY", help="With --targets: keep each server's result here, so that the same command goes on."),
    ] = None,
    dask: Annotated[
        str, typer.Option(metavar="ADDRESS", help="With --targets: judge on the cluster of this Dask scheduler; local: start one.")
    ] = "",
    i_own_this_target: Owned = False,
    list_cases: Listing = False,
    own: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="VERSION",
            help="Behave as a client of this protocol version, by its HELLO and its rule; without a server, judge our own at this "
            f"version, or at all of them, one after the other: {EVERY}. (default: what the server speaks; our own: {DEFAULT})",
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Judge a server by every rule of the protocol; 0: conformant, 1: not, 4: it crashed or hung."""
    from ggml_rpc_ref.commands.fleet import Crew, judge_fleet
    from ggml_rpc_ref.commands.parsing import parse_own
    from ggml_rpc_ref.conformance import CASES, check_profile, select
    from ggml_rpc_ref.conformance.fleet import Member, read

    check_profile(profile)
    if targets is not None:
        if target or spawn or name or write_expect or reproduce:
            raise Misuse("--targets names the servers: HOST:PORT, --spawn, --name, --write-expect and --reproduce are for one")
        common = Member(
            version=own,
            timeout=timeout,
            jobs=jobs,
            repeat=repeat,
            profile=profile,
            owned=i_own_this_target,
            expect=str(expect or ""),
            only=_words(only),
            skip=_words(skip),
        )
        members = read(targets, common)
        raise typer.Exit(judge_fleet(members, Crew(at_once, dask, keep, tuple(report or ()), as_json)))
    cases, writing = select(_words(only), _words(skip)), Writing(tuple(report or ()), write_expect, reproduce)
    if list_cases:
        raise typer.Exit(print_cases(cases, as_json=as_json))
    options = JudgingOptions(timeout, expect, i_own_this_target, as_json, profile, repeat, verbose, writing, jobs)
    if own == EVERY:
        if target or spawn or expect or as_json or writing != NOTHING:
            raise Misuse(f"--as {EVERY} judges our own server, several times: give it no server, and no file or form of a report")
        raise typer.Exit(judge_every_version(cases, options, name, CASES))
    version = parse_own(own)
    server = choose_target(target, spawn, version)
    server.name = name or server.name
    raise typer.Exit(judge_and_report(server, cases, replace(options, own=version), CASES))


def _words(patterns: list[str] | None) -> tuple[str, ...]:
    return tuple(patterns or ())


@dataclass(frozen=True, slots=True)
class JudgingOptions:
    """Options of the commands that judge a server; `ggml-rpc-ref conform --help` explains them."""

    timeout: float = 5.0
    expect: Path | None = None
    owned: bool = False
    as_json: bool = False
    profile: str = ""
    repeat: int = 1
    verbose: bool = False
    writing: Writing = NOTHING
    jobs: int = 1
    own: Version | None = None


def judge_every_version(cases: Sequence[Case], options: JudgingOptions, name: str, known: Collection[str]) -> ExitCode:
    """Judge our own server at each version, oldest first, and return the worst exit code; an interrupt ends all of it."""
    from ggml_rpc_ref.conformance import embedded
    from ggml_rpc_ref.spec.versions import PROFILES

    worst = ExitCode.OK
    for version in PROFILES:
        server = embedded(version)
        server.name = f"{name or server.name} --proto {version}"
        code = judge_and_report(server, cases, replace(options, own=version), known)
        worst = max(worst, code)
        if code == ExitCode.INTERRUPTED:
            break
    return worst


def choose_target(endpoint: str, spawn: str, own: Version | None = None) -> Target:
    """Return the server to judge: a running one, one to start, or our own.

    Raises:
        Misuse: where both are given, and for an invalid endpoint or command.
    """
    from ggml_rpc_ref.conformance import Given, embedded, from_command
    from ggml_rpc_ref.net.stream import parse_endpoint

    if endpoint and spawn:
        raise Misuse("give either HOST:PORT or --spawn, not both")
    if endpoint:
        return Given(parse_endpoint(endpoint))
    return from_command(spawn) if spawn else embedded(own)


def print_cases(cases: Sequence[Case], *, as_json: bool) -> ExitCode:
    """Print the cases that would be run."""
    from ggml_rpc_ref.conformance import case_as_json

    if as_json:
        print_json({"cases": [case_as_json(case) for case in cases]}, indent=1)
        return ExitCode.OK
    for case in cases:
        print(f"{case.id}  {case.rule.level}{', may crash' if case.may_crash else ''}: {case.doc}")
    print(f"{len(cases)} cases of {len({case.rule.id for case in cases})} rules", file=sys.stderr)
    return ExitCode.OK


def judge_and_report(
    target: Target,
    cases: Sequence[Case],
    options: JudgingOptions,
    known: Collection[str],
    summary: Callable[[Sequence[Result]], Iterable[str]] = lambda _: (),
) -> ExitCode:
    """Judge a target by these cases, print the report, and return the exit code.

    Args:
        target: the server.
        cases: the cases to run.
        options: how to judge, and what to print.
        known: the ids that an expected failure may have.
        summary: yields lines to print above the counts, where the report is text.
    """
    from ggml_rpc_ref.conformance import Options, judge

    how = Options(options.timeout, options.owned, options.profile, options.repeat, options.jobs, options.own)
    return report_on(target.name, cases, judge(target, cases, how), options, known, summary)


def report_on(
    name: str,
    cases: Sequence[Case],
    events: Generator[Event, None, None],
    options: JudgingOptions,
    known: Collection[str],
    summary: Callable[[Sequence[Result]], Iterable[str]] = lambda _: (),
) -> ExitCode:
    """Let a run go through, print and write its report, and return the exit code.

    Args:
        name: what progress calls the server, or the client, that is judged.
        cases: those of the run.
        events: of the run, which begins with the first one that is asked for.
        options: what to print and write.
        known: the ids that an expected failure may have.
        summary: yields lines to print above the counts, where the report is text.
    """
    from ggml_rpc_ref.conformance import Report, as_json, load, verdict_lines

    expected = load(options.expect) if options.expect else None
    options.writing.check()
    report = Report(known=known)
    with _progress(name, cases, expected or {}) as show:
        _collect(events, report, show, options)
    code = exit_code(report, expected)
    try:
        if options.as_json:
            print(json.dumps(as_json(report, code, expected), indent=1))
        else:
            print("\n".join(verdict_lines(report, expected, summary(report.results), verbose=options.verbose)))
    finally:  # whatever becomes of standard output: the run may have taken an hour
        options.writing.write(report, code, expected)
    if report.is_interrupted:
        print_error("interrupted")
    return code


def _collect(events: Generator[Event, None, None], report: Report, show: Callable[[Event], None], options: JudgingOptions) -> None:
    """Pass each event to the report and the progress; an interrupt ends the run, and the report keeps what was judged."""
    from ggml_rpc_ref.conformance import Diagnosed, ability_lines

    try:
        for event in events:
            report.take(event)
            show(event)
            if isinstance(event, Diagnosed) and not options.as_json:
                print("\n".join((*ability_lines(report), "")), flush=True)  # at once: it is the first answer to the user
    except KeyboardInterrupt:  # it came between two events; during one, `judge` turns it into the last event
        events.close()
        report.is_interrupted = True


def exit_code(report: Report, expected: Mapping[str, Expected] | None = None) -> ExitCode:
    """Return the exit code for the outcome of a run."""
    from ggml_rpc_ref.conformance import outcome

    return ExitCode(outcome(report, expected))


@contextmanager
def _progress(name: str, cases: Sequence[Case], expected: Mapping[str, Expected]) -> Iterator[Callable[[Event], None]]:
    """Yield a consumer of events that prints each failure to standard error as it is found, on a terminal above a bar."""
    if not sys.stderr.isatty():
        yield lambda event: _print_failure(event, expected, lambda line: print(line, file=sys.stderr, flush=True))
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ggml_rpc_ref.conformance import NO_FAULT, CaseBegan, CaseEnded, Introduced

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failures]} failures"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[case]}"),
    )
    # rich honours NO_COLOR by itself
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name[:30], total=len(cases), failures=0, case="looking at what it does")
        failures = 0

        def show(event: Event) -> None:
            nonlocal failures
            _print_failure(event, expected, lambda line: bar.console.print(line, markup=False, highlight=False))
            if isinstance(event, Introduced):
                bar.update(task, total=event.cases)
            elif isinstance(event, CaseBegan):
                bar.update(task, case=event.case.id)
            elif isinstance(event, CaseEnded):
                failures += event.result.verdict not in NO_FAULT
                bar.update(task, advance=1, failures=failures)

        yield show


def _print_failure(event: Event, expected: Mapping[str, Expected], write: Callable[[str], None]) -> None:
    """Write a line where an event is a failure that was not expected."""
    from ggml_rpc_ref.conformance import NO_FAULT, CaseEnded, is_expected

    if isinstance(event, CaseEnded) and event.result.verdict not in NO_FAULT and not is_expected(event.result, expected):
        line = f"{event.result.verdict} {event.result.case.id}: {event.result.detail}"
        write(shortened(line))
