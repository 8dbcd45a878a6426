"""A server by a script, for tests of a client that runs in the same process, or wherever it is started.

with Scripted(fault("DEVICE_COUNT", end=End.FIN)) as server:
    with pytest.raises(ConnectionError):
        my_client.count_devices(server.endpoint)
assert server.heard().commands() == {"HELLO": 1, "DEVICE_COUNT": 1}
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, Self

from ggml_rpc_ref.conformance.clients.heard import Ended, Run
from ggml_rpc_ref.conformance.clients.player import TICK, Player, make_host
from ggml_rpc_ref.conformance.clients.script import HONEST, Script
from ggml_rpc_ref.spec.versions import DEFAULT, Version

LOOPBACK: Final = "127.0.0.1"
LEFT: Final = 2.0
"""Seconds in which a client's last bytes are read, and in which it may close its connections."""


class Scripted:
    """A server that plays a script to whoever connects, and keeps what it hears.

    Args:
        script: what is different from an honest server.
        version: what is spoken, where the script does not say it. (default: 3.6.1, as `spec` has it)
        cache: the folder of its cache, for scripts that have one.

    Attributes:
        script: what is played.
        version: what is spoken.
    """

    def __init__(self, script: Script = HONEST, version: Version | None = None, cache: Path | None = None) -> None:
        self.script, self.version = script, script.version or version or DEFAULT
        host = make_host(self.version, script.devices, cache if script.has_cache else None)
        self._player = Player([host], script, [(LOOPBACK, 0)], TICK)

    @property
    def endpoint(self) -> str:
        """Where it listens, HOST:PORT."""
        return self._player.endpoints[0]

    def __enter__(self) -> Self:
        self._player.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._player.stop()
        if self._player.defect is not None:  # ours, and not to be taken for the client's
            raise self._player.defect

    def heard(self) -> Run:
        """Return what has come, once the client has closed its connections, or in any case after two seconds."""
        end = time.monotonic() + LEFT
        while self._player.connections and time.monotonic() < end:
            time.sleep(0.002)
        return Run(self.script, self.version, tuple(self._player.conversations), Ended(visible=False), self._player.told)
