"""The command `conform-client`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ggml_rpc_ref.commands.conform import JudgingOptions, print_cases, report_on
from ggml_rpc_ref.commands.log import servers_unlogged
from ggml_rpc_ref.commands.options import LONGEST_TIMEOUT, LOOPBACK, AsJson, Expect, Listing, Only, Skip
from ggml_rpc_ref.commands.writing import Writing
from ggml_rpc_ref.errors import Misuse

if TYPE_CHECKING:
    from ggml_rpc_ref.conformance.clients.program import Program


def conform_client(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- CMD … {endpoint}]",
            help="The client; {endpoint} becomes HOST:PORT, {endpoint2} that of a second server. It runs once for a case, "
            "or less, and should check what it gets, and end with 0 if all was right. Without it, clients are started by hand.",
        ),
    ] = None,
    listen: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[HOST]:PORT", help="Where to listen, port 0: any; given twice for two servers. (default: 127.0.0.1:0)"
        ),
    ] = None,
    only: Only = None,
    skip: Skip = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="What reports call the client. (default: its command)")] = "",
    proto: Annotated[
        str, typer.Option(metavar="VERSION", help="The protocol version that it speaks. (default: found out, the newest first)")
    ] = "",
    timeout: Annotated[
        float, typer.Option(min=0.1, max=LONGEST_TIMEOUT, metavar="SECONDS", help="How long a run of the client may take.")
    ] = 20.0,
    wait: Annotated[
        float, typer.Option(min=0.1, max=LONGEST_TIMEOUT, metavar="SECONDS", help="How long to wait for a client started by hand.")
    ] = 600.0,
    repeat: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Run each case N times; the worst verdict counts.")] = 1,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=64, metavar="N", help="Judge N cases at a time.")] = 1,
    expect: Expect = None,
    write_expect: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what was found, for --expect; reasons that it has are kept.")
    ] = None,
    report: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Also write the report as .json, .xml (JUnit), .sarif or .html; may be repeated."),
    ] = None,
    reproduce: Annotated[
        Path | None, typer.Option(metavar="DIRECTORY", help="Write a file for `replay` and a script, a server, for each failure.")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what was sent and received, and what the client printed.")
    ] = False,
    list_cases: Listing = False,
    as_json: AsJson = False,
) -> None:
    """Judge a client by every rule that binds clients: we play the server; 0: conformant, 1: not, 4: it crashed or hung."""
    from ggml_rpc_ref.commands.parsing import parse_version
    from ggml_rpc_ref.conformance import select
    from ggml_rpc_ref.conformance.clients.cases import CLIENT_CASES
    from ggml_rpc_ref.conformance.clients.judging import Options, judge

    cases = select(tuple(only or ()), tuple(skip or ()), CLIENT_CASES)
    if list_cases:
        raise typer.Exit(print_cases(cases, as_json=as_json))
    addresses = _addresses(listen or [], command is not None, jobs)
    program = _program(command, name, len(listen or []), wait)
    version = parse_version(proto) if proto else None
    how = Options(timeout, version, addresses, repeat, jobs if command else 1)
    writing = Writing(tuple(report or ()), write_expect, reproduce)
    options = JudgingOptions(expect=expect, as_json=as_json, verbose=verbose, repeat=repeat, writing=writing)
    with servers_unlogged():
        raise typer.Exit(report_on(program.name, cases, judge(program, cases, how), options, CLIENT_CASES))


def _addresses(listen: list[str], is_started: bool, jobs: int) -> tuple[tuple[str, int], ...]:
    """Return where our servers listen.

    Raises:
        Misuse: for an invalid address, or more than two; for fixed ports where several cases are judged at a time.
    """
    found = [_address(text) for text in listen]
    if len(found) > 2:
        raise Misuse(f"--listen was given {len(found)} times: a client is told of two servers at most")
    if jobs > 1 and is_started and any(port for _, port in found):
        raise Misuse("--jobs needs a port for each case: leave --listen out, or give port 0")
    if not is_started and not found:
        raise Misuse("give a client's command after --, or --listen :PORT for clients that are started by hand")
    return tuple([*found, (LOOPBACK, 0), (LOOPBACK, 0)][:2])


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit() and int(port[:9]) < 65536):
        raise Misuse(f"--listen {text!r}: write [HOST]:PORT, for example :50052 or 0.0.0.0:50052")
    return host or LOOPBACK, int(port)


def _program(command: list[str] | None, name: str, endpoints: int, wait: float) -> Program:
    """Return the client to judge.

    Raises:
        Misuse: for a command without {endpoint}.
    """
    from ggml_rpc_ref.conformance.clients.program import ByHand, Command

    if command:
        return Command(command, name)
    by_hand = ByHand(lambda text: print(text, file=sys.stderr, flush=True), endpoints, wait)
    by_hand.name = name or by_hand.name
    return by_hand
