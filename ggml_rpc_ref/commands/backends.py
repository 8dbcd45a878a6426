"""The command `backends`: what can compute here, and why the rest can't."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def backends(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List the devices that `serve -d` can offer, and why one can't be used on this machine."""
    from ggml_rpc_ref.backends.registry import ROWS
    from ggml_rpc_ref.spec.opcodes import CUSTOM_OPS, VIEW_OPS, op_table
    from ggml_rpc_ref.spec.versions import NEWEST

    # of the table that the kernels are listed by, without what computes nothing
    computed = set(op_table(NEWEST)) - VIEW_OPS - CUSTOM_OPS
    rows = [
        {
            "name": row.name,
            "description": row.doc,
            "unavailable": row.unavailable() or None,
            "detail": row.detail() or None,
            "ops": len(computed & row.kernels().keys()),
        }
        for row in ROWS
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        state = row["unavailable"] or f"computes {row['ops']} of {len(computed)} ops itself, the oracle the rest"
        detail = f"; {row['detail']}" if row["detail"] else ""
        typer.echo(f"{row['name']}: {row['description']}; {state}{detail}")
