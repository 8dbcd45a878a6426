"""The command line: it assembles the commands, one file each, and turns every failure into a sentence and an exit code.

Messages go to standard error, results to standard output. The modules of the commands import what they need when they are called:
`--help` and completion must not wait for numpy and the ops.
"""

from __future__ import annotations

import errno
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ggml_rpc_ref.commands import cases, upstream, vectors
from ggml_rpc_ref.commands.backends import backends
from ggml_rpc_ref.commands.conform import conform
from ggml_rpc_ref.commands.conform_client import conform_client
from ggml_rpc_ref.commands.decode import decode
from ggml_rpc_ref.commands.devices import devices
from ggml_rpc_ref.commands.diff import diff, report
from ggml_rpc_ref.commands.ending import as_ctrl_c
from ggml_rpc_ref.commands.exit_codes import ExitCode
from ggml_rpc_ref.commands.fuzz import fuzz
from ggml_rpc_ref.commands.fuzz_client import fuzz_client
from ggml_rpc_ref.commands.gen import gen
from ggml_rpc_ref.commands.interop import interop
from ggml_rpc_ref.commands.output import discard_output, fail, open_streams
from ggml_rpc_ref.commands.probe import probe
from ggml_rpc_ref.commands.proxy import proxy
from ggml_rpc_ref.commands.replay import replay
from ggml_rpc_ref.commands.run import run
from ggml_rpc_ref.commands.serve import serve
from ggml_rpc_ref.commands.show import show
from ggml_rpc_ref.commands.skew import skew
from ggml_rpc_ref.commands.status import status
from ggml_rpc_ref.errors import Damaged, Misuse, Unsupported, Violation

LACKING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
"""What is said where the system has no more descriptors, memory or processes to give."""


class _Commands(TyperGroup):
    """All commands; where the reader leaves, they end before typer would end them with 1, which is a verdict."""

    def invoke(self, ctx: Any) -> Any:
        """Run one."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            discard_output()
            raise typer.Exit(ExitCode.READER_LEFT) from None


app = typer.Typer(
    name="ggml-rpc-ref",
    cls=_Commands,
    help="The reference for ggml's RPC protocol: serve it, probe it, judge a server's conformance.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    import ggml_rpc_ref

    if wanted:
        typer.echo(f"ggml-rpc-ref {ggml_rpc_ref.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take options that come before the command."""


for command in (
    serve,
    status,
    backends,
    conform,
    conform_client,
    fuzz,
    fuzz_client,
    replay,
    show,
    probe,
    proxy,
    gen,
    decode,
    skew,
    interop,
):
    app.command()(command)
app.command()(devices)
app.command()(run)
app.command()(diff)
app.command()(report)
app.add_typer(cases.app, name="cases")
app.add_typer(upstream.app, name="upstream")
app.add_typer(vectors.app, name="vectors")


def main() -> None:
    """Run the command line; every failure is one sentence on stderr and a documented exit code, never a traceback."""
    open_streams()
    try:
        _run()
    except Damaged as error:
        fail(str(error), ExitCode.NON_CONFORMANT)
    except (Misuse, Unsupported) as error:
        fail(str(error), ExitCode.USAGE)
    except Violation as error:
        fail(f"the peer broke the protocol: {error}", ExitCode.UNREACHABLE)
    except (ConnectionError, TimeoutError) as error:
        fail(str(error), ExitCode.UNREACHABLE)
    except OSError as error:
        discard_output()
        # without a file's name it came of printing, unless the system lacks what has nothing to do with that
        what = error.filename or ("the system" if error.errno in LACKING else "standard output")
        fail(f"{what}: {error.strerror or error}", ExitCode.USAGE)
    except KeyboardInterrupt:
        fail("interrupted", ExitCode.INTERRUPTED)
    except Exception as error:
        fail(f"internal error, please report it: {type(error).__name__}: {error}", ExitCode.OUR_FAULT)


def _run() -> None:
    as_ctrl_c()
    try:
        app(standalone_mode=True)
    finally:
        try:
            sys.stdout.flush()  # here, where a full disk becomes a sentence, not at the interpreter's end, where it is a traceback
        except BrokenPipeError:
            discard_output()  # all is done, and the exit code is known
