"""The command `show`."""

from __future__ import annotations

from typing import Annotated

import typer


def show(name: Annotated[str, typer.Argument(metavar="RULE-OR-CASE", help="For instance data.in-tensor.")]) -> None:
    """Explain a rule or a case: its sentence, what our server does, what the genuine one does, and the cases."""
    from ggml_rpc_ref import conformance

    for line in conformance.show(name):
        typer.echo(line)
