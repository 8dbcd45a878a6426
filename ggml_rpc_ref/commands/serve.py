"""The command `serve`: options to a Host and a Server, which says what it serves and runs until a signal ends it."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ggml_rpc_ref.commands.ending import POLITE, ending
from ggml_rpc_ref.commands.log import LogWriter, start_log, utc
from ggml_rpc_ref.commands.options import LOOPBACK, Port
from ggml_rpc_ref.commands.status import NAME, lines
from ggml_rpc_ref.spec.transport import DEFAULT_PORT
from ggml_rpc_ref.spec.versions import AUTO

if TYPE_CHECKING:
    from ggml_rpc_ref.server.server import Server

log = logging.getLogger(__name__)


def serve(
    host: Annotated[str, typer.Option("--host", "-H", help="Address or host name to bind.")] = LOOPBACK,
    port: Port = DEFAULT_PORT,
    cache: Annotated[
        bool,
        typer.Option("--cache", "-c", help="Keep large uploads on disk, where rpc-server -c has them; see --cache-per-client."),
    ] = False,
    threads: Annotated[int, typer.Option("--threads", "-t", min=0, help="Threads that compute one node; 0: half the cores.")] = 0,
    device: Annotated[
        str,
        typer.Option("--device", "-d", help="Devices, separated by commas; `backends` lists them. auto: native where it is built."),
    ] = "auto",
    memory: Annotated[
        str,
        typer.Option(
            "--mem",
            "-m",
            help="Memory of each device: MiB, or with suffix K, M, G, T. (default: they share half of what is available)",
            show_default=False,
        ),
    ] = "",
    allow: Annotated[
        list[str] | None, typer.Option(metavar="CIDR", help="Accept peers of this network only; may be repeated.")
    ] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Where large uploads are kept; implies --cache.")] = None,
    cache_limit: Annotated[str, typer.Option(metavar="SIZE", help="How much is kept there.")] = "32G",
    cache_per_client: Annotated[
        bool,
        typer.Option(
            "--cache-per-client",
            help="Keep the uploads of each IP address apart. Without it clients share the cache: one can put bytes under another's "
            "hash (FNV-1a is easily forged), and whoever knows a hash can read the upload.",
        ),
    ] = False,
    values_cache: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="Memory for copies of quantised weights, floats for numpy or packed for C. "
            "(default: 2G, at most an eighth of what is available)",
            show_default=False,
        ),
    ] = "",
    max_connections: Annotated[
        int, typer.Option(min=1, help="Connections at the same time; when full, an idle one gives way.")
    ] = 256,
    max_per_address: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Those of one address, of IPv6 of one /64. (default: half of --max-connections; no limit for this machine itself)",
            show_default=False,
        ),
    ] = None,
    max_steps: Annotated[
        int, typer.Option(min=1, help="Elementary steps, of about a nanosecond, that a graph may take: 2^44 are five hours.")
    ] = 2**44,
    idle_timeout: Annotated[
        float | None, typer.Option(min=0.1, metavar="SECONDS", help="End connections that are silent for so long. (default: never)")
    ] = None,
    proto: Annotated[
        str,
        typer.Option(
            metavar="VERSION",
            help=f"Protocol version; or auto: the client's HELLO chooses between {AUTO[0]} and {AUTO[1]}; or auto: and others, "
            "with commas between.",
        ),
    ] = "auto",
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    as_json: Annotated[bool, typer.Option("--json", help="Log to stdout, one JSON object a line.")] = False,
) -> None:
    """Serve ggml RPC until Ctrl-C, SIGTERM or SIGHUP, which end it with exit code 0. SIGUSR1 logs what `status` says."""
    set_blas_threads(threads)
    from ggml_rpc_ref.commands.parsing import parse_network, parse_size
    from ggml_rpc_ref.server.host import cache_directory, make_host
    from ggml_rpc_ref.server.server import Limits, Server

    writer = start_log(log_level, as_json=as_json)
    served = make_host(
        device,
        memory=parse_size(memory) if memory else None,
        cache_dir=cache_directory(cache, cache_dir),
        cache_limit=parse_size(cache_limit),
        cache_per_client=cache_per_client,
        values=parse_size(values_cache) if values_cache else None,
        max_steps=max_steps,
        proto=proto,
        threads=threads,
    )
    favour_small_requests()
    networks = [parse_network(text) for text in allow or ()]
    limits = Limits(connections=max_connections, of_one_address=max_per_address, idle=idle_timeout)
    run(Server(served, host, port, allow=networks, limits=limits), writer, as_json=as_json)


def favour_small_requests() -> None:
    """Keep one client's large graph from delaying another's small request; for a process that only serves.

    A graph of 30,000 nodes is a third of a million objects, and a full collection looks at all of them, for 60 ms at a time; with
    these thresholds it is rare, and the others look at what is new. Reference counts free what connections leave behind.
    """
    gc.collect()
    gc.freeze()  # modules and tables live as long as the process
    gc.set_threshold(5_000, 3, 3_000)
    # how long a thread that runs Python keeps the others waiting; 5 ms otherwise, and a small request needs several turns
    sys.setswitchinterval(0.001)


def set_blas_threads(threads: int) -> None:
    """Set the number of threads of numpy's BLAS; 0: half the cores, unless the environment names a number.

    BLAS reads these variables once, when numpy is imported: this comes before any import that needs numpy.
    """
    count = str(threads or max(1, (os.cpu_count() or 2) // 2))
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        if threads or name not in os.environ:
            os.environ[name] = count


def run(server: Server, writer: LogWriter, *, as_json: bool = False) -> None:
    """Announce what is served, and serve it until SIGINT, SIGTERM or SIGHUP; a second signal ends the process at once."""
    ended_by: list[signal.Signals] = []

    def end(number: int, _: object) -> None:
        ended_by.append(signal.Signals(number))
        signal.signal(number, signal.SIG_DFL)
        server.stop()

    ending(end, signal.SIGINT, *POLITE)
    if hasattr(signal, "SIGUSR1"):
        # the thread that accepts logs it: a signal handler may have interrupted the holder of a lock
        signal.signal(signal.SIGUSR1, lambda *_: server.call_soon(lambda: log_state(server)))
    ready = announcement(server)
    for line in [json.dumps(ready)] if as_json else _lines(ready):
        writer.write(line)
    if not server.is_loopback:
        log.warning("the protocol has no authentication: anyone who can reach %s can use this server", server.endpoint)
    with offering(server):
        signal.set_wakeup_fd(server.wakeup_fd, warn_on_full_buffer=False)
        try:
            server.serve_forever()
        finally:
            signal.set_wakeup_fd(-1)
    log.info("ended by %s", ended_by[0].name if ended_by else "itself")
    # a thread that is still computing, or that still writes to a pipe which nobody reads, can't be stopped: leave without it
    if not writer.drain() or server.connections:
        os._exit(0)


@contextmanager
def offering(server: Server) -> Iterator[None]:
    """Let `status` read what the server does; without a place for its socket the server does without."""
    from ggml_rpc_ref.net.local import offered

    with ExitStack() as stack:
        try:
            stack.enter_context(offered(NAME, lambda: json.dumps(server.state())))
        except (OSError, AttributeError) as error:  # AttributeError: a system without Unix sockets
            log.info("`status` can't see this server: %s", error)
        yield


def log_state(server: Server) -> None:
    """Log what the server is doing in several lines; as JSON, the first of them has all of it as its `state`."""
    state = server.state()
    for number, line in enumerate(lines(state)):
        log.info("%s", line, extra={} if number else {"event": "state", "state": state})


def announcement(server: Server) -> dict[str, Any]:
    """Return what a server says of itself when it starts, as the first JSON line has it."""
    import ggml_rpc_ref
    from ggml_rpc_ref.backends import registry

    host = server.host
    missing = {row.name: why for row in registry.ROWS if (why := row.unavailable())}
    return {
        "time": utc(time.time()),
        "level": "info",
        "event": "ready",
        "version": ggml_rpc_ref.__version__,
        "protocol": str(host.version),
        "protocols": [str(version) for version in host.versions],
        "endpoint": server.endpoint,
        "allow": [str(network) for network in server.allow],
        "cache": None if host.tensors is None else {"directory": str(host.tensors.directory), "limit": host.tensors.limit},
        "unavailable": missing,
        "devices": [
            {"name": d.name, "description": d.description, "total": d.memory.total, "free": d.memory.free} for d in host.devices
        ],
    }


def _lines(ready: dict[str, Any]) -> Sequence[str]:
    cache = ready["cache"]
    lines = [
        f"ggml-rpc-ref {ready['version']} speaks RPC protocol {_protocols(ready['protocols'])}",
        f"  endpoint: {ready['endpoint']}" + (f", for {', '.join(ready['allow'])} only" if ready["allow"] else ""),
        "  cache:    " + ("none" if cache is None else f"{cache['directory']}, up to {_mib(cache['limit'])}"),
    ]
    for index, device in enumerate(ready["devices"]):
        memory = f"{_mib(device['total'])}, {_mib(device['free'])} free"
        lines.append(f"  device {index}: {device['name']} ({device['description']}; {memory})")
    lines += [f"  {name}: {why}" for name, why in ready["unavailable"].items()]
    return lines


def _protocols(texts: Sequence[str]) -> str:
    """Return versions as people read them; of several, each with the HELLO that chooses it."""
    from ggml_rpc_ref.protocol import codec
    from ggml_rpc_ref.spec.messages import Hello
    from ggml_rpc_ref.spec.versions import Version, named

    versions = list(map(Version.parse, texts))
    if len(versions) == 1:
        return named(versions[0])
    first, *others = (f"{named(version)} to {{}} whose HELLO has {codec.minimum_size(Hello, version)}" for version in versions)
    return ", ".join([first.format("clients") + " bytes", *(other.format("those") for other in others)])


def _mib(size: int) -> str:
    return f"{size // 2**20} MiB"
