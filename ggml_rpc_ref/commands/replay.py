"""The command `replay`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from ggml_rpc_ref.commands.exit_codes import ExitCode
from ggml_rpc_ref.commands.options import AsJson, Spawn, server_named
from ggml_rpc_ref.commands.output import print_error, print_json
from ggml_rpc_ref.errors import Damaged, Misuse


def replay(
    find: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="What `fuzz --finds`, `conform --reproduce` or `conform-client --reproduce` wrote."),
    ],
    target: Annotated[str, typer.Argument(metavar="[HOST:PORT]", callback=server_named, help="A server that is running.")] = "",
    client: Annotated[
        str,
        typer.Option(
            metavar="'CMD … {endpoint}'",
            help="Of `conform-client`: the client, to which the server's part is played; {endpoint2} too.",
        ),
    ] = "",
    spawn: Spawn = "",
    times: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="How often to play it.")] = 1,
    timeout: Annotated[float, typer.Option(min=0.1, max=600, metavar="SECONDS", help="How long an answer may take.")] = 5.0,
    i_own_this_target: Annotated[
        bool, typer.Option("--i-own-this-target", help="Play it to a server on another machine: it may crash there.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Play a find of `fuzz` or a failure of `conform` again; 0: the fault is gone, 1: it is there, 4: it crashes or hangs."""
    from ggml_rpc_ref.commands.failure import is_failure, is_of_client, replay_failure, replay_to_client
    from ggml_rpc_ref.commands.fuzz import check_target
    from ggml_rpc_ref.fuzz import watched
    from ggml_rpc_ref.fuzz.replay import load

    if is_of_client(find):
        if target or spawn or not client:
            raise Misuse(f"{find} is played to a client: give its command with --client 'CMD … {{endpoint}}'")
        raise typer.Exit(replay_to_client(find, client, times, timeout, as_json=as_json))
    if client:
        raise Misuse(f"{find} is played to a server, not to a client")
    if not target and not spawn:
        raise Misuse("replay needs a server: HOST:PORT of one that runs, or --spawn 'CMD … {port}'")
    check_target(target, i_own_this_target)
    if is_failure(find):
        raise typer.Exit(replay_failure(find, target, spawn, times, timeout, as_json=as_json))
    try:
        written = load(find)
    except Damaged as error:  # a usage error: exit code 1 would say that the fault is there
        made_by = "`fuzz --finds`, `conform --reproduce` and `conform-client --reproduce`"
        raise Misuse(f"{error}; `replay` plays what {made_by} wrote") from None
    with watched(spawn, target, fork=False) as server:
        outcomes = _played(server, written, times, timeout)
    if as_json:
        print_json({"find": written.script.id, "outcomes": outcomes})
    else:
        print(f"{written.script.id}: {written.script.about}")
        for sentence, count in Counter(outcome["words"] for outcome in outcomes).items():
            print(f"{count} of {times} times: {sentence}")
    raise typer.Exit(_exit_code(outcomes))


def _played(server: Any, written: Any, times: int, timeout: float) -> list[dict[str, str]]:
    from ggml_rpc_ref.fuzz.introduce import introduce
    from ggml_rpc_ref.fuzz.replay import Player

    server.start()
    introduce(server.target.endpoint, timeout)
    outcomes = []
    for number in range(times):
        if number and server.restartable:
            server.renew()
        outcomes.append(_outcome(server, Player(server.target.endpoint, timeout).play(written.script, written.peers), timeout))
        if outcomes[-1]["result"] == "crash" and not server.restartable:
            break
    return outcomes


def _outcome(server: Any, differences: list[str], timeout: float) -> dict[str, str]:
    from ggml_rpc_ref.fuzz.introduce import introduce

    if death := server.death(0.5 if differences else 0.05):
        return {"result": "crash", "words": f"the server dies: {death.how}{f' in {death.place}' if death.place else ''}"}
    try:
        introduce(server.target.endpoint, timeout)
    except (ConnectionError, TimeoutError) as error:
        death = server.death(1.0)
        if death or isinstance(error, ConnectionError):
            return {"result": "crash", "words": f"the server dies: {death.how if death else error}"}
        return {"result": "hang", "words": f"the server serves no more: {error}"}
    if differences:
        return {"result": "differs", "words": "; ".join(differences[:3])}
    return {"result": "right", "words": "it does as a right server does"}


def _exit_code(outcomes: list[dict[str, str]]) -> ExitCode:
    results = {outcome["result"] for outcome in outcomes}
    if results & {"crash", "hang"}:
        print_error("the find is still there")
        return ExitCode.CRASHED
    return ExitCode.NON_CONFORMANT if "differs" in results else ExitCode.OK
