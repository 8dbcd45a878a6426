"""The command `fuzz`: options in, events out to a terminal, to lines or as JSON."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer

from ggml_rpc_ref.commands.exit_codes import ExitCode
from ggml_rpc_ref.commands.options import AsJson, Listing, Spawn, server_named
from ggml_rpc_ref.commands.output import print_error
from ggml_rpc_ref.commands.writing import make_directory
from ggml_rpc_ref.errors import Misuse

PROFILES = {"quick": 20.0, "ci": 120.0, "night": 8 * 3600.0}
"""Name to seconds."""
SEEDS = 200
"""Conversations that --corpus writes."""
POLITE = 200.0
"""Messages a second to a server on another machine unless said otherwise."""


def fuzz(
    target: Annotated[
        str,
        typer.Argument(
            metavar="[HOST:PORT]",
            callback=server_named,
            help="A server that is running; without it our own is started and fuzzed.",
        ),
    ] = "",
    spawn: Spawn = "",
    seed: Annotated[str, typer.Option(help="Of all choices; the same seed makes the same sessions.")] = "0",
    profile: Annotated[str, typer.Option(metavar="NAME", help="quick (20 s), ci (2 minutes) or night (8 hours).")] = "quick",
    max_time: Annotated[float | None, typer.Option(min=0.1, metavar="SECONDS", help="Instead of the profile's.")] = None,
    messages: Annotated[int, typer.Option(min=0, metavar="N", help="End after so many messages. (default: any number)")] = 0,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only ops or mutations of this name (with *, ?); may be repeated.")
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="No ops or mutations of this name (with *, ?); may be repeated.")
    ] = None,
    seeds: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="Begin with conversations: recordings, vectors, finds, raw bytes; may be repeated."),
    ] = None,
    finds: Annotated[
        Path | None, typer.Option(metavar="DIRECTORY", help="Where finds are written; those that lie there are known.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=600, metavar="SECONDS", help="How long an answer may take.")] = 2.0,
    rate: Annotated[float, typer.Option(min=0, metavar="N", help="Messages a second at most; 0: as many as it takes.")] = 0.0,
    shrink: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long each find may be shrunk.")] = 6.0,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=256, metavar="N", help="Workers, each with a server.")] = 1,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page about it.")] = None,
    no_fork: Annotated[
        bool, typer.Option("--no-fork", help="Start a server that died anew each time, instead of forking it at its first accept.")
    ] = False,
    inside: Annotated[
        bool, typer.Option("--inside", help="Fuzz our own server in this process, the decoder and the readers of files.")
    ] = False,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="With --inside: this backend, each session compared with the oracle's answers.")
    ] = "",
    proto: Annotated[str, typer.Option(metavar="VERSION", help="With --inside: the protocol version. (default: 3.6.1)")] = "",
    sums: Annotated[Path | None, typer.Option(metavar="FILE", help="With --inside: add what was done to the sums in it.")] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY", help="Write seeds for other fuzzers, with the numbers of a server if one is given, and end."
        ),
    ] = None,
    dask: Annotated[str, typer.Option(metavar="ADDRESS", help="Spread it over a Dask cluster; 'local': one made here.")] = "",
    i_own_this_target: Annotated[
        bool, typer.Option("--i-own-this-target", help="Fuzz a server on another machine: it may crash there.")
    ] = False,
    no_feedback: Annotated[
        bool, typer.Option("--no-feedback", help="Change no sessions further that led to something new, edges or outcomes.")
    ] = False,
    list_all: Listing = False,
    as_json: AsJson = False,
) -> None:
    """Fuzz a server: sessions with faults in them, at speed; 0: nothing found, 1: finds, 4: it crashed or hung."""
    from ggml_rpc_ref.commands.fuzz_reports import Report
    from ggml_rpc_ref.fuzz import Goal, Options, Store, run
    from ggml_rpc_ref.fuzz.campaign import run_on
    from ggml_rpc_ref.fuzz.page import page
    from ggml_rpc_ref.fuzz.watch import MEMORY

    check_target(target, i_own_this_target)
    if profile not in PROFILES:
        raise Misuse(f"--profile {profile}: there are {', '.join(PROFILES)}")
    ops, mutations = _chosen(only or [], skip or [])
    if list_all:
        print("\n".join([*mutations, *ops]))
        return
    seconds = max_time or PROFILES[profile]
    if corpus is not None:
        raise typer.Exit(_corpus(corpus, seed, spawn, target))
    if inside:
        raise typer.Exit(_inside(seed, seconds, messages, sums, device, proto))
    polite = POLITE if target and not _is_near(target) else 0.0
    options = Options(
        seed=seed, max_time=seconds, max_messages=messages, ops=ops, mutations=mutations, timeout=timeout,
        rate=rate or polite, shrink=shrink, feedback=not no_feedback,
        seeds=tuple(map(str, seeds or ())),
    )  # fmt: skip
    if finds is not None:
        make_directory(finds)
    goal = Goal(spawn, target, MEMORY, not no_fork, options)
    with Report(as_json=as_json, directory=finds) as report:
        for event in run_on(dask, goal, Store(finds), jobs) if dask else run(goal, Store(finds), jobs):
            report.take(event)
    if html is not None:
        _write(html, page(report.began, report.count, report.finds))
    raise typer.Exit(_exit_code(report.kinds, report.is_interrupted, report.why))


def _corpus(directory: Path, seed: str, spawn: str, target: str) -> ExitCode:
    """Write conversations, with the numbers of a server where one is given."""
    from ggml_rpc_ref.fuzz import watched
    from ggml_rpc_ref.fuzz.corpus import chosen_by, write
    from ggml_rpc_ref.fuzz.introduce import introduce

    try:
        if not spawn and not target:
            count = write(directory, SEEDS, seed=seed)
        else:
            with watched(spawn, target) as server:
                server.start()
                version = introduce(server.target.endpoint, 5.0).version
                count = write(directory, SEEDS, version, seed, chosen_by(server, version))
    except (ConnectionError, TimeoutError):
        raise
    except OSError as error:
        raise Misuse(f"can't write {error.filename}: {error.strerror}") from None
    print(f"{count} files in {directory}: .raw conversations for AFLNet, AFL++ and libFuzzer, and a dictionary")
    return ExitCode.OK


def _inside(seed: str, seconds: float, messages: int, sums: Path | None, device: str, proto: str) -> ExitCode:
    """Fuzz our own code; print each defect, and what was done."""
    from ggml_rpc_ref.backends import registry
    from ggml_rpc_ref.commands.parsing import parse_version
    from ggml_rpc_ref.commands.readers import READERS, SAMPLES
    from ggml_rpc_ref.fuzz.ourselves import Ourselves
    from ggml_rpc_ref.spec.versions import DEFAULT

    version = parse_version(proto) if proto else DEFAULT
    own = Ourselves(version, seed, readers=READERS, samples=SAMPLES, make=registry.maker(device, threads=2) if device else None)
    try:
        for defect in own.run(seconds, messages):
            print(f"DEFECT {defect.words}: {defect.what}", flush=True)
        interrupted = False
    except KeyboardInterrupt:
        interrupted = True
    done = own.sums
    rate = done.messages / done.seconds if done.seconds else 0.0
    print(f"{done.messages} messages in {done.sessions} sessions and {done.files} files: {rate:.0f} messages a second of processor")
    print(f"{len(own.defects)} defects; sessions ended by {len(done.outcomes)} rules")
    if sums is not None:
        done.add_to(sums)
    return ExitCode.INTERRUPTED if interrupted else ExitCode.OUR_FAULT if own.defects else ExitCode.OK


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Misuse(f"can't write {path}: {error.strerror}") from None


def _exit_code(kinds: set[str], is_interrupted: bool, why: str) -> ExitCode:
    if is_interrupted:
        print_error("interrupted; what was found before is kept")
        return ExitCode.INTERRUPTED
    if why:
        print_error(why)
    if kinds & {"crash", "hang"} or why:
        return ExitCode.CRASHED
    return ExitCode.NON_CONFORMANT if kinds else ExitCode.OK


def check_target(target: str, owned: bool) -> None:
    """Refuse a server on another machine unless its owner permits it.

    Raises:
        Misuse: where it is, and is not permitted.
    """
    if target and not _is_near(target) and not owned:
        raise Misuse(f"{target} is on another machine, where a fuzzer may crash what serves others: --i-own-this-target permits it")


def _is_near(target: str) -> bool:
    from ggml_rpc_ref.conformance.target import is_loopback
    from ggml_rpc_ref.net.stream import parse_endpoint

    return is_loopback(parse_endpoint(target).host)


def _chosen(only: list[str], skip: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the ops and mutations to use; empty: all.

    Raises:
        Misuse: for a name that neither an op nor a mutation has.
    """
    from ggml_rpc_ref.fuzz import MUTATIONS
    from ggml_rpc_ref.ops import OPS

    for pattern in (*only, *skip):
        if not any(_matches(name, [pattern]) for name in (*OPS, *MUTATIONS)):
            raise Misuse(f"no op and no mutation is called {pattern!r}; `ggml-rpc-ref fuzz --list` lists them")
    ops, mutations = (_filtered(names, only, skip) for names in (OPS, MUTATIONS))
    if not mutations:
        raise Misuse("--only and --skip leave no mutation")
    return ops, mutations


def _filtered(names: object, only: list[str], skip: list[str]) -> tuple[str, ...]:
    listed = [str(name) for name in names]  # type: ignore[attr-defined]
    wanted = [name for name in listed if _matches(name, only)] or listed
    return tuple(name for name in wanted if not _matches(name, skip))


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(name.lower(), form) for p in patterns for form in (p.lower(), f"{p.lower()}.*"))
