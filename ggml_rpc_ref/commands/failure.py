"""Failures that `conform --reproduce` wrote, for the command `replay`."""

from __future__ import annotations

from pathlib import Path

from ggml_rpc_ref.commands.exit_codes import ExitCode
from ggml_rpc_ref.commands.output import print_json
from ggml_rpc_ref.errors import Misuse


def is_failure(path: Path) -> bool:
    """Whether a file says that it is a reproducer of `conform`; one that can't be read is none."""
    from ggml_rpc_ref.golden.reproducer import FORM

    try:
        with path.open(encoding="utf-8") as file:
            return FORM in file.read(200)
    except (OSError, UnicodeDecodeError):
        return False


def replay_failure(path: Path, target: str, spawn: str, times: int, timeout: float, *, as_json: bool) -> ExitCode:
    """Play a failure and print what the server did; 0: it ends otherwise than recorded, 1: as recorded, 4: as recorded, by dying.

    Raises:
        Misuse: where the file can't be read.
        ConnectionError, TimeoutError: where the server can't be reached at first.
    """
    from ggml_rpc_ref.commands.conform import choose_target
    from ggml_rpc_ref.golden import reproducer

    try:
        made = reproducer.parse(path.read_text(encoding="utf-8"))
    except Misuse as error:
        raise Misuse(f"{path}: {error}") from None
    server, outcomes = choose_target(target, spawn), list[reproducer.Outcome]()
    try:
        for turn in range(times):
            if turn == 0 or server.restartable:
                server.start()
            outcomes.append(reproducer.replay(made, server.endpoint, timeout))
            if made.deadly and outcomes[-1].is_same and not server.restartable:
                break  # nobody is left to ask again
    finally:
        server.stop()
    same = sum(outcome.is_same for outcome in outcomes)
    if as_json:
        print_json({"id": made.id, "about": made.about, "runs": len(outcomes), "same": same, "lines": outcomes[0].lines})
    else:
        print(f"{made.id}: {made.about}", *outcomes[0].lines, sep="\n")
        print(f"the same as recorded in {same} of {len(outcomes)} run{'s' * (len(outcomes) != 1)}")
    if not same:
        return ExitCode.OK
    return ExitCode.CRASHED if made.deadly else ExitCode.NON_CONFORMANT
