"""Arguments and options that several commands have, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Judged = Annotated[
    str, typer.Argument(metavar="[HOST:PORT]", help="A server that runs already; without it our own is started and judged.")
]
Spawn = Annotated[str, typer.Option(metavar="'CMD … {port}'", help="Start this server on loopback, and again after each crash.")]
Expect = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Known failures, id to verdict and reason; anything else fails the run.")
]
Owned = Annotated[
    bool, typer.Option("--i-own-this-target", help="Also send what is known to crash servers to one on another machine.")
]
Listing = Annotated[bool, typer.Option("--list", help="Say what would be asked, and end.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
