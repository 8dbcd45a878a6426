"""The command `status`: what this user's servers on this machine are doing, read over their local sockets."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ggml_rpc_ref.commands.exit_codes import ExitCode
from ggml_rpc_ref.commands.options import AsJson
from ggml_rpc_ref.commands.output import fail, print_json

NAME = "serve"
"""What servers call their sockets."""


def status(
    port: Annotated[int | None, typer.Option("--port", "-p", min=1, max=65535, help="Only the server on this port.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what this user's servers on this machine are doing: connections, buffers, graphs, memory, cache.

    Exit code 3 where none runs.
    """
    from ggml_rpc_ref.net.local import asked

    found = [json.loads(text) for text in asked(NAME)]
    states = [state for state in found if port is None or state["endpoint"].endswith(f":{port}")]
    if not states:
        where = "" if port is None else f" on port {port}"
        fail(f"no server of this user runs{where} on this machine", ExitCode.UNREACHABLE)
    if as_json:
        print_json({"servers": states})
    else:
        sys.stdout.write("".join(f"{line}\n" for state in states for line in lines(state)))


def lines(state: dict[str, Any]) -> Iterator[str]:
    """Yield what `Server.state` returned as lines for people; the log's answer to SIGUSR1."""
    from ggml_rpc_ref.server.metrics import amount

    spoken = " or ".join(state["protocols"])
    yield f"{state['endpoint']}: pid {state['pid']}, protocol {spoken}, up for {state['seconds']:.0f} s"
    for index, device in enumerate(state["devices"]):
        yield f"  device {index}: {device['name']}, {amount(device['free'])} of {amount(device['total'])} free"
    graphs, cache = state["graph_memory"], state["cache"]
    yield f"  graphs: {amount(graphs['used'])} of {amount(graphs['total'])}"
    if cache is not None:
        yield f"  cache: {cache['files']} files, {amount(cache['size'])} of {amount(cache['limit'])}, in {cache['directory']}"
    yield f"  connections: {len(state['connections'])} of {state['max_connections']}"
    for peer in state["connections"]:
        doing = f"idle for {peer['idle']:.3g} s" if peer["idle"] else "at work"
        held = (
            f"{peer['buffers']} buffers of {amount(peer['buffer_bytes'])}, {peer['plans']} plans of {amount(peer['graph_bytes'])}"
        )
        done = f"{peer['messages']} messages, {peer['graphs']} graphs in {peer['computing']:.3g} s"
        moved = f"{amount(peer['received'])} received, {amount(peer['sent'])} sent"
        yield f"    {peer['peer']} ({peer['protocol']}): {doing}, {held}; {done}, {moved}, open for {peer['seconds']:.0f} s"
