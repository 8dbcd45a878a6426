"""The command `fuzz-client`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from ggml_rpc_ref.commands.exit_codes import ExitCode
from ggml_rpc_ref.commands.log import servers_unlogged
from ggml_rpc_ref.commands.options import AsJson
from ggml_rpc_ref.commands.output import print_error
from ggml_rpc_ref.commands.writing import make_directory


def fuzz_client(
    command: Annotated[list[str], typer.Argument(metavar="-- CMD … {endpoint}", help="The client; {endpoint} becomes HOST:PORT.")],
    max_time: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How long to go on.")] = 120.0,
    timeout: Annotated[float, typer.Option(min=0.1, max=3600, metavar="SECONDS", help="How long the client may take.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Of the order of the lies.")] = 0,
    lie: Annotated[
        list[str] | None, typer.Option(metavar="NAME@COMMAND#N", help="Tell only this lie, as a find names it; may be repeated.")
    ] = None,
    finds: Annotated[Path | None, typer.Option(metavar="DIRECTORY", help="Where finds are written.")] = None,
    proto: Annotated[str, typer.Option(metavar="VERSION", help="The protocol version that the server speaks.")] = "",
    as_json: AsJson = False,
) -> None:
    """Fuzz a client: our server tells it one lie each time; 0: it bore all, 1: a traceback, 4: it crashed or hung."""
    from ggml_rpc_ref.commands.parsing import parse_version
    from ggml_rpc_ref.fuzz.clients import Behaviour, write
    from ggml_rpc_ref.fuzz.clients import fuzz_client as run
    from ggml_rpc_ref.fuzz.liar import parse_lie
    from ggml_rpc_ref.spec.versions import DEFAULT

    version = parse_version(proto) if proto else DEFAULT
    if finds is not None:
        make_directory(finds)
    lies = [parse_lie(text, version) for text in lie or []]
    known: dict[tuple[str, ...], Behaviour] = {}
    results: Counter[str] = Counter()
    interrupted = False
    try:
        with servers_unlogged():
            for found in run(command, max_time, lies=lies, seed=seed, timeout=timeout, version=version):
                results[found.result] += 1
                if as_json:
                    print(json.dumps(found.as_json(command)), flush=True)
                if found.is_find and found.key not in known:
                    known[found.key] = found
                    if finds is not None:
                        write(finds, found, command)
                    if not as_json:
                        where = f" in {found.place}" if found.place else ""
                        print(f"{found.result.upper()} {found.lie}: {found.how}{where}", flush=True)
    except KeyboardInterrupt:
        interrupted = True
    counts = ", ".join(f"{number} {result}" for result, number in results.most_common())
    print(f"{sum(results.values())} lies: {counts or 'none told'}; {len(known)} finds", file=sys.stderr)
    raise typer.Exit(_exit_code({found.result for found in known.values()}, interrupted))


def _exit_code(kinds: set[str], interrupted: bool) -> ExitCode:
    if interrupted:
        print_error("interrupted")
        return ExitCode.INTERRUPTED
    if kinds & {"crash", "hang"}:
        return ExitCode.CRASHED
    return ExitCode.NON_CONFORMANT if kinds else ExitCode.OK
