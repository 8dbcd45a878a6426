"""What the command `proxy` does: options to a Proxy and a recording, then forward until a signal."""

from __future__ import annotations

import contextlib
import logging
import signal
from pathlib import Path

from ggml_rpc_ref.commands.serve import own_version, parse_size, start_log
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.files.recording import Recorder
from ggml_rpc_ref.net.stream import Endpoint, parse_endpoint
from ggml_rpc_ref.proxy.proxy import Proxy
from ggml_rpc_ref.spec.messages import REQUESTS, command_name

log = logging.getLogger(__name__)


def run(listen: str, upstream: str, record: Path | None, leave_out: str, *, explain: bool, delays: list[str]) -> None:
    """Forward until SIGINT or SIGTERM; a second signal ends the process at once.

    Raises:
        Misuse: for options that mean nothing, an address that can't be bound, a file that can't be written.
    """
    start_log("info", as_json=False)
    where, server, waits = parse_listen(listen), parse_endpoint(upstream), parse_delays(delays)
    limit = parse_size(leave_out) if leave_out else None
    with contextlib.ExitStack() as stack:
        recorder = None
        if record is not None:
            tool = f"ggml-rpc-ref {own_version()} proxy"
            recorder = stack.enter_context(Recorder(record, endpoint=str(server), tool=tool, leave_out_over=limit))
        _forward(Proxy(server, where.host, where.port, recorder=recorder, explain=explain, delays=waits))


def _forward(proxy: Proxy) -> None:
    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        proxy.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    log.info("forwarding %s to %s", proxy.endpoint, proxy.upstream)
    if not proxy.is_loopback:
        log.warning("the protocol has no authentication: whoever reaches %s can use %s", proxy.endpoint, proxy.upstream)
    proxy.serve_forever()


def parse_listen(text: str) -> Endpoint:
    """Return where to listen; without a host on 127.0.0.1, and port 0 means any free one.

    Raises:
        Misuse: for what is no endpoint.
    """
    where = f"127.0.0.1{text}" if text.startswith(":") else text
    return parse_endpoint(f"{where[:-1]}1")._replace(port=0) if where.endswith(":0") else parse_endpoint(where)


def parse_delays(texts: list[str]) -> dict[type, float]:
    """Return request class to seconds for texts like "SET_TENSOR=20", in milliseconds.

    Raises:
        Misuse: for an unknown command, or what is no number of milliseconds.
    """
    commands = {command_name(cls): cls for cls in REQUESTS}
    found: dict[type, float] = {}
    for text in texts:
        name, _, milliseconds = text.partition("=")
        if name.upper() not in commands:
            raise Misuse(f"{text!r}: there is no command {name!r}; write for instance SET_TENSOR=20")
        try:
            seconds = float(milliseconds) / 1000
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= 3600:
            raise Misuse(
                f"{text!r}: after = stands a number of milliseconds, from 0 to an hour's; write for instance SET_TENSOR=20"
            )
        found[commands[name.upper()]] = seconds
    return found
