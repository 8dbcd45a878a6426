"""A target for the conformance suite: our server, sabotaged or not, in this process."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.backends.oracle import Oracle
from ggml_rpc_ref.net.stream import Endpoint, parse_endpoint
from ggml_rpc_ref.server.handlers import Device, Host
from ggml_rpc_ref.server.server import Server
from ggml_rpc_ref.server.tensor_cache import TensorCache
from tests.support.sabotage.table import Sabotage


class InProcess:
    """Our server with two devices and a cache.

    Args:
        cache: folder of the cache.
        sabotage: what is wrong with the server; None: nothing.
        memory: bytes of each device.
    """

    restartable = False
    name = "a server in this process"

    def __init__(self, cache: Path, sabotage: Sabotage | None = None, memory: int = 2**30) -> None:
        wrong = sabotage or Sabotage()
        devices = [Device(f"oracle {n}", "numpy", Oracle(HostMemory(memory))) for n in range(2)]
        connection = type("Sabotaged", (wrong.connection,), {})  # so that what a class remembers ends with this server
        kind = type("Sabotaged", (Server,), {"session_type": wrong.session, "connection_type": connection})
        self._server: Server = kind(Host(devices, tensors=TensorCache(cache), version=wrong.version))
        self.endpoint: Endpoint = parse_endpoint(self._server.endpoint)

    @property
    def pid(self) -> int:
        """This process."""
        return os.getpid()

    def wait_until_left(self) -> None:
        """Wait until no connection is open any more: what the server logs of one comes after its end."""
        end = time.monotonic() + 20
        while self._server.connections and time.monotonic() < end:
            time.sleep(0.001)

    def start(self) -> None:
        """Begin to listen."""
        self._server.__enter__()

    def death(self) -> str:
        """Return how the server died: it can't, it is this process."""
        return ""

    def log_size(self) -> int:
        """Return 0: what it logs goes where this process logs."""
        return 0

    def log_lines(self, since: int) -> list[str]:
        """Return nothing."""
        return []

    def twin(self) -> InProcess:
        """Return this one: there is no other."""
        return self

    def stop(self) -> None:
        """End the server."""
        self._server.shutdown()
