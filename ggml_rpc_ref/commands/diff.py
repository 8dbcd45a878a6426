"""The commands `diff` and `report`, on the JSON reports of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ggml_rpc_ref.commands.exit_codes import ExitCode
from ggml_rpc_ref.commands.options import AsJson
from ggml_rpc_ref.commands.output import print_json
from ggml_rpc_ref.errors import NOT_OF_ITS_FORM, Misuse

Report = Annotated[Path, typer.Argument(metavar="REPORT", help="What `conform --json` or `conform --report FILE.json` wrote.")]


def diff(before: Report, now: Report, as_json: AsJson = False) -> None:
    """Say whose verdict changed between two runs; 1: something that was in order no longer is."""
    from ggml_rpc_ref.conformance import difference

    found = difference.compare(difference.read(before), difference.read(now))
    if as_json:
        print_json(found.as_json(), indent=1)
    else:
        for line in found.lines():
            typer.echo(line)
        typer.echo(f"{len(found.broken)} broken, {len(found.mended)} mended, {len(found.other)} changed otherwise")
    raise typer.Exit(ExitCode.NON_CONFORMANT if found.broken else ExitCode.OK)


def report(
    reports: Annotated[list[Path], typer.Argument(metavar="REPORT...", help="What `conform --json` wrote, one for each server.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Ends in .html, .xml (JUnit) or .sarif.")],
) -> None:
    """Make one page of the reports of several servers, or another form of one report."""
    from ggml_rpc_ref.commands.writing import FORMS, formed, write_file
    from ggml_rpc_ref.conformance import difference

    if output.suffix not in FORMS or (output.suffix != ".html" and len(reports) > 1):
        raise Misuse(f"{output}: its name is to end in .html, or with one report in one of {', '.join(FORMS)}")
    runs = []
    for path in reports:
        difference.read(path)  # names a file that is something else
        runs.append(json.loads(path.read_text(encoding="utf-8")))
    try:
        text = formed(output.suffix, runs)
    except NOT_OF_ITS_FORM:
        raise Misuse(f"{_lacking(output.suffix, reports, runs)} is not a whole report of `ggml-rpc-ref conform --json`") from None
    write_file(output, text)


def _lacking(suffix: str, paths: list[Path], runs: list[dict[str, Any]]) -> Path:
    """Return the first of several reports of which alone this form can't be made either."""
    from ggml_rpc_ref.commands.writing import formed

    for path, run in zip(paths, runs, strict=True):
        try:
            formed(suffix, [run])
        except NOT_OF_ITS_FORM:
            return path
    return paths[0]
