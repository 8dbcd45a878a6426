"""The command group `vectors`: list and verify the golden vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The golden vectors: list and verify them.", no_args_is_help=True)

Directory = Annotated[Path, typer.Argument(metavar="[DIRECTORY]", help="Where they lie.")]


@app.command("list")
def list_vectors(directory: Directory = Path("vectors")) -> None:
    """Print file and id of every vector."""
    from ggml_rpc_ref import vectors

    for line in vectors.list_ids(directory):
        typer.echo(line)


@app.command()
def verify(directory: Directory = Path("vectors")) -> None:
    """Check schemas, ids and form of every vector; 0: all is well, 1: not."""
    from ggml_rpc_ref import vectors

    faults = vectors.verify(directory)
    for fault in faults:
        typer.echo(f"ggml-rpc-ref: {fault}", err=True)
    typer.echo(f"{len(faults)} faults in {len(list(vectors.files(directory)))} files", err=True)
    raise typer.Exit(1 if faults else 0)
