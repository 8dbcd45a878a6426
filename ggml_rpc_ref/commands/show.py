"""The command `show`."""

from __future__ import annotations

from typing import Annotated

import typer


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="For instance data.in-tensor, SET_TENSOR, MUL_MAT or Q4_K.")],
) -> None:
    """Explain a rule or a case with what servers do, a command, an op or a type, and list its cases."""
    from ggml_rpc_ref import conformance

    for line in conformance.show(name):
        typer.echo(line)
