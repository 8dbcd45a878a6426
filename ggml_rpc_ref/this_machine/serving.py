"""The counterpart of ggml_backend_rpc_start_server; beside it, `Server` serves inside a `with`."""

from __future__ import annotations

import threading
from pathlib import Path

from ggml_rpc_ref.backends import registry
from ggml_rpc_ref.client.words import whole
from ggml_rpc_ref.net.stream import parse_endpoint
from ggml_rpc_ref.server.host import AUTO_WORD, make_host
from ggml_rpc_ref.server.server import Server


def rpc_start_server(
    endpoint: str,
    cache_dir: Path | str | None = None,
    n_threads: int = 0,
    devices: str = registry.AUTO,
    *,
    proto: str = AUTO_WORD,
    stop: threading.Event | None = None,
) -> None:
    """Serve until the program is interrupted, as ggml_backend_rpc_start_server (ggml-rpc.h) does.

    Args:
        endpoint: "HOST:PORT" to listen on.
        cache_dir: where large uploads are kept; None: nowhere.
        n_threads: threads that compute one node together; 0: half the cores.
        devices: names of backends, separated by commas.
        proto: the protocol versions spoken, as `serve --proto` has them.
        stop: when it is set, the server ends and this returns; for a program that serves in a thread.

    Raises:
        Misuse: where the endpoint can't be listened on, or a device is unknown.
        KeyboardInterrupt: where Ctrl-C ends it, after the server has ended.
    """
    n_threads = whole(n_threads, "n_threads")
    where = parse_endpoint(endpoint)
    cache = None if cache_dir is None else Path(cache_dir)
    host = make_host(devices, cache_dir=cache, threads=n_threads, proto=proto)
    ended = stop or threading.Event()
    with Server(host, where.host, where.port):
        # with a time-out: without one, a wait in the main thread holds back Ctrl-C on some systems
        while not ended.wait(0.5):
            pass
