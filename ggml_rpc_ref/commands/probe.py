"""The command `probe`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ggml_rpc_ref.commands.exit_codes import ExitCode
from ggml_rpc_ref.commands.options import LONGEST_TIMEOUT, As, AsJson, Server
from ggml_rpc_ref.commands.output import print_error

if TYPE_CHECKING:
    from ggml_rpc_ref.client.probe import Report


def probe(
    target: Server,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=LONGEST_TIMEOUT, metavar="SECONDS", help="How long all of it may take.")
    ] = 10.0,
    own: As = "",
    as_json: AsJson = False,
) -> None:
    """Ask a server for its version, devices, memory, alignment and largest buffer; changes nothing on it."""
    from ggml_rpc_ref.client import probe as client
    from ggml_rpc_ref.commands.parsing import parse_own

    raise typer.Exit(print_report(client.probe(target, timeout, parse_own(own)), as_json=as_json))


def print_report(report: Report, *, as_json: bool) -> ExitCode:
    """Print the report to standard output and what went wrong to standard error; return the exit code."""
    if as_json:
        print(report.to_json())
    elif report.protocol is not None:
        _print_for_people(report)
    if report.error is None:
        return ExitCode.OK
    print_error(report.error)
    return ExitCode.UNREACHABLE


def _print_for_people(report: Report) -> None:
    """Print a table on a terminal, plain lines elsewhere."""
    if not sys.stdout.isatty():
        print(report.text())
        return
    from rich.console import Console
    from rich.table import Table

    headings, *rows = report.rows()
    table = Table(title=report.headline, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table if rows else report.headline)  # rich honours NO_COLOR by itself
