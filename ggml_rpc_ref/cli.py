"""The command line: one thin function per command; what it does lives in the module that it calls.

Words go to stderr, results to stdout. Exit codes: 0 ok, 1 non-conformant (or bad input of decode and vectors), 2 usage,
3 unreachable or unknown version, 4 the server under test crashed or hung, 5 our own fault, 130 interrupted.
"""

from __future__ import annotations

import sys
from importlib.metadata import version as package_version
from typing import Annotated

import typer

from ggml_rpc_ref.errors import Misuse, Unsupported, Violation

OK, NON_CONFORMANT, USAGE, UNREACHABLE, CRASHED, OUR_FAULT, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130

app = typer.Typer(
    name="ggml-rpc-ref",
    help="The reference for ggml's RPC protocol: serve it, probe it, judge a server's conformance.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ggml-rpc-ref {package_version('ggml-rpc-ref')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Take options that come before the command."""


def main() -> None:
    """Run the command line; every failure is one sentence on stderr and a documented exit code, never a traceback."""
    try:
        app(standalone_mode=True)
    except (Misuse, Unsupported) as error:
        _fail(str(error), USAGE)
    except Violation as error:
        _fail(f"the peer broke the protocol: {error}", UNREACHABLE)
    except ConnectionError as error:
        _fail(str(error), UNREACHABLE)
    except TimeoutError as error:
        _fail(str(error), UNREACHABLE)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except Exception as error:
        _fail(f"internal error, please report it: {type(error).__name__}: {error}", OUR_FAULT)


def _fail(sentence: str, code: int) -> None:
    typer.echo(f"ggml-rpc-ref: {sentence}", err=True)
    sys.exit(code)
