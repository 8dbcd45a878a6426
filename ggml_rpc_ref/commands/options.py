"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.transport import DEFAULT_PORT

LOOPBACK = "127.0.0.1"
LONGEST_TIMEOUT = 86_400
"""Seconds. A socket takes no time-out above 2^31 ms, and a session of `vectors play` may take twelve times the one given."""


def server_named(context: typer.Context, parameter: typer.CallbackParam, value: str) -> str:
    """Refuse a server that is named by nothing, as a variable of a shell's that is not set names it.

    Left out, it is one of ours that is judged, and found right.

    Raises:
        Misuse.
    """
    if not value and str(context.get_parameter_source(str(parameter.name))).endswith("COMMANDLINE"):
        option = parameter.opts[0]
        raise Misuse(f"{option if option.startswith('-') else 'HOST:PORT'} is empty: name a server, or leave it out")
    return value


Port = Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="TCP port; 0: any free one.")]
Server = Annotated[
    str,
    typer.Argument(metavar="HOST:PORT", help=f"A server; [::1]:{DEFAULT_PORT} for IPv6; port {DEFAULT_PORT} if left out."),
]
Judged = Annotated[
    str,
    typer.Argument(
        metavar="[HOST:PORT]", callback=server_named, help="A server that is running; without it our own is started and judged."
    ),
]
Spawn = Annotated[
    str,
    typer.Option(
        metavar="'CMD … {port}'", callback=server_named, help="Start this server on loopback, and again after each crash."
    ),
]
Expect = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Known failures, id to verdict and reason; anything else fails the run.")
]
Owned = Annotated[
    bool, typer.Option("--i-own-this-target", help="Also send what is known to crash servers to one on another machine.")
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Only these: an id of a case or rule (with *, ?), level:MUST, tag:may-crash, command:SET_TENSOR, op:MUL_MAT, "
        "type:Q4_K, version:3.6.1; may be repeated.",
    ),
]
Skip = Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Not these; as --only.")]
Profile = Annotated[
    str,
    typer.Option(
        metavar="PROFILE",
        help="What is asked of the server: full; inference or minimal: what these need; found: the commands that it answers.",
    ),
]
Listing = Annotated[bool, typer.Option("--list", help="List the cases that would be run, and end.")]
As = Annotated[
    str,
    typer.Option(
        "--as",
        metavar="VERSION",
        help="Behave as a client of this protocol version, by its HELLO and its rule. (default: what the server speaks)",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
