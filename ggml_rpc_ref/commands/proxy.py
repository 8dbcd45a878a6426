"""The command `proxy`: options to a Proxy and a recording, then forward until a signal."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ggml_rpc_ref.commands.ending import POLITE, ending

if TYPE_CHECKING:
    from ggml_rpc_ref.proxy.proxy import Proxy

log = logging.getLogger(__name__)


def proxy(
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where clients connect; port 0: any free one.")],
    upstream: Annotated[str, typer.Option(metavar="HOST:PORT", help="The server.")],
    record: Annotated[Path | None, typer.Option(metavar="FILE", help="Write every byte to this file, for decode.")] = None,
    leave_out: Annotated[
        str, typer.Option(metavar="SIZE", help="With --record: of data over this size keep length and hash. (default: keep all)")
    ] = "",
    explain: Annotated[bool, typer.Option("--explain", help="Print one line for each message.")] = False,
    delay: Annotated[
        list[str] | None, typer.Option(metavar="CMD=MS", help="Hold these requests back so long; may be repeated.")
    ] = None,
) -> None:
    """Forward between clients and a server, and say or record what passes; changes no byte. Ends with Ctrl-C."""
    import ggml_rpc_ref
    from ggml_rpc_ref.commands.log import start_log
    from ggml_rpc_ref.commands.parsing import parse_delays, parse_listen, parse_size
    from ggml_rpc_ref.files.recording import Recorder
    from ggml_rpc_ref.net.stream import parse_endpoint
    from ggml_rpc_ref.proxy.proxy import Proxy

    writer = start_log("info", as_json=False)
    where, server, delays = parse_listen(listen), parse_endpoint(upstream), parse_delays(delay or [])
    limit = parse_size(leave_out) if leave_out else None
    with contextlib.ExitStack() as stack:
        recorder = None
        if record is not None:
            tool = f"ggml-rpc-ref {ggml_rpc_ref.__version__} proxy"
            recorder = stack.enter_context(Recorder(record, endpoint=str(server), tool=tool, leave_out_over=limit))
        run(Proxy(server, where.host, where.port, recorder=recorder, explain=explain, delays=delays))
    if not writer.drain():
        os._exit(0)  # nobody reads standard error: its thread can't be stopped


def run(proxy: Proxy) -> None:
    """Forward until SIGINT, SIGTERM or SIGHUP; a second signal ends the process at once."""

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        proxy.stop()

    ending(end, signal.SIGINT, *POLITE)
    log.info("forwarding %s to %s", proxy.endpoint, proxy.upstream)
    if not proxy.is_loopback:
        log.warning("the protocol has no authentication: anyone who can reach %s can use %s", proxy.endpoint, proxy.upstream)
    proxy.serve_forever()
