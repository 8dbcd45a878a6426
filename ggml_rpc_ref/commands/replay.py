"""The command `replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ggml_rpc_ref.commands.exit_codes import ExitCode
from ggml_rpc_ref.commands.options import LONGEST_TIMEOUT, Judged, Spawn
from ggml_rpc_ref.errors import Misuse


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A reproducer, as `conform --reproduce` writes it.")],
    target: Judged = "",
    spawn: Spawn = "",
    times: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="N", help="How often; the last line says how often it was the same.")
    ] = 1,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=LONGEST_TIMEOUT, metavar="SECONDS", help="How long one answer may take.")
    ] = 5.0,
) -> None:
    """Play a reproducer against a server; 1: it ends as was recorded, so the fault is still there, 0: it does not."""
    from ggml_rpc_ref.commands.conform import choose_target
    from ggml_rpc_ref.golden import reproducer

    try:
        made = reproducer.parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misuse(f"can't read {file}: {error.strerror}") from None
    except (Misuse, UnicodeDecodeError) as error:
        raise Misuse(f"{file}: {error}") from None
    server, same = choose_target(target, spawn), 0
    typer.echo(made.about)
    try:
        for turn in range(times):
            if turn == 0 or server.restartable:
                server.start()
            outcome = reproducer.replay(made, server.endpoint, timeout)
            same += outcome.is_same
            if turn == 0:
                typer.echo("\n".join(outcome.lines))
    finally:
        server.stop()
    typer.echo(f"the same as recorded in {same} of {times} run{'s' * (times != 1)}")
    raise typer.Exit(ExitCode.NON_CONFORMANT if same else ExitCode.OK)
