"""The command group `cases`: list, explain and count the conformance cases."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Annotated

import typer

from ggml_rpc_ref.commands.options import AsJson, Only, Skip
from ggml_rpc_ref.commands.output import print_json

Clients = Annotated[bool, typer.Option("--clients", help="Those of `conform-client`, in place of those of `conform`.")]

app = typer.Typer(help="The conformance cases: list, explain, count them.", no_args_is_help=True)


@app.command("list")
def list_cases(only: Only = None, skip: Skip = None, clients: Clients = False, as_json: AsJson = False) -> None:
    """List the cases, each with its level and a sentence."""
    from ggml_rpc_ref.conformance import CASES, case_as_json, select
    from ggml_rpc_ref.conformance.clients.cases import CLIENT_CASES

    cases = select(tuple(only or ()), tuple(skip or ()), CLIENT_CASES if clients else CASES)
    if as_json:
        print_json({"cases": [case_as_json(case) for case in cases]}, indent=1)
        return
    for case in cases:
        typer.echo(f"{case.id}  {case.rule.level}{', may crash' if case.may_crash else ''}: {case.doc}")
    print(f"{len(cases)} cases of {len({case.rule.id for case in cases})} rules", file=sys.stderr)


@app.command("show")
def show_case(name: Annotated[str, typer.Argument(metavar="NAME", help="A case, rule, command, op or type.")]) -> None:
    """Explain a case, a rule, a command, an op or a type."""
    from ggml_rpc_ref import conformance

    for line in conformance.show(name):
        typer.echo(line)


@app.command()
def coverage(as_json: AsJson = False) -> None:
    """Count the rules that have cases, by level, and the cases of each rule."""
    from ggml_rpc_ref.conformance import CASES
    from ggml_rpc_ref.conformance.clients.cases import CLIENT_CASES
    from ggml_rpc_ref.spec.rules import RULES

    counts = Counter(case.rule.id for case in (*CASES.values(), *CLIENT_CASES.values()))
    levels = {level: [rule for rule in RULES.values() if rule.level == level] for level in ("MUST", "SHOULD", "MAY")}
    judged = {level: sum(counts[rule.id] > 0 for rule in rules) for level, rules in levels.items() if rules}
    if as_json:
        rows = {level: {"rules": len(levels[level]), "judged": number} for level, number in judged.items()}
        print_json({"levels": rows, "cases": {id: counts[id] for id in RULES}}, indent=1)
        return
    for rule in RULES.values():
        typer.echo(f"{counts[rule.id]:4} {rule.id} ({rule.level})")
    typer.echo(", ".join(f"{level} {number}/{len(levels[level])}" for level, number in judged.items()))
