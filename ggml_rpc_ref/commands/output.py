"""How commands write: sentences to standard error, JSON to standard output, nothing once nobody reads it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from typing import NoReturn

import typer

from ggml_rpc_ref.commands.exit_codes import ExitCode

STANDARD_ERROR = 2
"""The last number of a standard stream."""


def open_streams() -> None:
    """Give each standard stream that the caller has closed the null device.

    Else what is opened next, a socket or a recording, would take its number and get what libraries print there, and `print` would
    send the sentences for a standard error that is closed to standard output.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        pass
    os.close(number)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (for as long as the process lives)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def is_closed() -> bool:
    """Whether the caller has closed standard output."""
    return sys.stdout is None or getattr(sys.stdout, "name", "") == os.devnull


def print_error(sentence: object) -> None:
    """Print one sentence to standard error, under the program's name."""
    # a file's name, or what a server says, may hold control characters, which a terminal would obey
    plain = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in str(sentence))
    typer.echo(f"ggml-rpc-ref: {plain}", err=True)


def fail(sentence: str, code: ExitCode) -> NoReturn:
    """Print one sentence to standard error and end the process."""
    print_error(sentence)
    sys.exit(code)


def print_json(document: Mapping[str, object], indent: int | None = None) -> None:
    """Print one JSON object, with the `schema_version` 1 unless it has its own."""
    print(json.dumps({"schema_version": 1, **document}, indent=indent))


def is_coloured() -> bool:
    """Whether standard output takes colours: a terminal, and no NO_COLOR (https://no-color.org) in the environment."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def discard_output() -> None:
    """Discard what is still buffered for standard output, so that the interpreter does not complain about it when it ends."""
    with contextlib.suppress(OSError):  # no descriptor is left for that
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
