"""Failures that `conform --reproduce` and `conform-client --reproduce` wrote, for the command `replay`."""

from __future__ import annotations

import shlex
from pathlib import Path

from ggml_rpc_ref.commands.exit_codes import ExitCode
from ggml_rpc_ref.commands.output import print_json
from ggml_rpc_ref.errors import Misuse


def is_failure(path: Path) -> bool:
    """Whether a file says that it is a reproducer of `conform`; one that can't be read is none."""
    from ggml_rpc_ref.golden.reproducer import FORM

    return f'"{FORM}"' in _beginning(path)


def is_of_client(path: Path) -> bool:
    """Whether a file says that it is a reproducer of `conform-client`; one that can't be read is none."""
    from ggml_rpc_ref.conformance.clients.reproducer import FORM

    return f'"{FORM}"' in _beginning(path)


def _beginning(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(200)
    except (OSError, UnicodeDecodeError):
        return ""


def replay_to_client(path: Path, command: str, times: int, timeout: float, *, as_json: bool) -> ExitCode:
    """Play a failure to a client and print what it did; 0: otherwise than recorded, 1: as recorded, 4: as recorded, by dying.

    Raises:
        Misuse: where the file can't be read, or the client can't be started.
    """
    from ggml_rpc_ref.conformance.clients import reproducer
    from ggml_rpc_ref.conformance.clients.program import Command

    try:
        made = reproducer.parse(path.read_text(encoding="utf-8"))
        program = Command(shlex.split(command))
    except (Misuse, ValueError) as error:
        raise Misuse(f"{path}: {error}") from None
    outcomes = [reproducer.replay(made, program, timeout) for _ in range(times)]
    same = _print_outcomes(made.id, made.about, [(one.lines, one.is_same) for one in outcomes], as_json=as_json)
    if not same:
        return ExitCode.OK
    return ExitCode.CRASHED if made.verdict in ("CRASH", "HANG") else ExitCode.NON_CONFORMANT


def _print_outcomes(id: str, about: str, outcomes: list[tuple[list[str], bool]], *, as_json: bool) -> int:
    """Print what came of several runs, the first of them line by line, and return how many were as recorded."""
    lines, same = outcomes[0][0], sum(is_same for _, is_same in outcomes)
    if as_json:
        print_json({"id": id, "about": about, "runs": len(outcomes), "same": same, "lines": lines})
    else:
        print(f"{id}: {about}", *lines, sep="\n")
        print(f"the same as recorded in {same} of {len(outcomes)} run{'s' * (len(outcomes) != 1)}")
    return same


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
    if not _print_outcomes(made.id, made.about, [(one.lines, one.is_same) for one in outcomes], as_json=as_json):
        return ExitCode.OK
    return ExitCode.CRASHED if made.deadly else ExitCode.NON_CONFORMANT
