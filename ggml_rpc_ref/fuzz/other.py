"""The other server of a sum, played by us: it comes, says what it is to say, and stays or leaves."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Final

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.fuzz.session import Peer
from ggml_rpc_ref.net.door import Door
from ggml_rpc_ref.net.stream import DeadlineMissed, PeerClosed, Stream, open_stream

TICK: Final = 0.01
"""Seconds between two tries to reach a server that does not listen yet."""
MOST: Final = 2**20
"""Bytes of what it sends that are read."""


class Other:
    """Plays one peer in a thread of its own, until it is closed.

    Args:
        peer: what it does.
        host: where the fuzzed server is.
        timeout: seconds that meeting it may take.
    """

    def __init__(self, peer: Peer, host: str, timeout: float) -> None:
        self._peer, self._host, self._timeout = peer, host, timeout
        self._over = threading.Event()
        self._stream: Stream | None = None
        self._door: Door | None = None
        with contextlib.suppress(Misuse):  # the port is in use: nobody comes, which a server must bear as well
            self._door = Door("127.0.0.1", peer.port) if peer.rank else None
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the connection, if it is there."""
        self._over.set()
        self._thread.join(self._timeout + 1.0)
        if self._door is not None:
            self._door.__exit__()

    def _play(self) -> None:
        with contextlib.suppress(PeerClosed, DeadlineMissed):
            stream = self._met()
            if stream is None:
                return
            with stream:
                stream.send(self._peer.says)
                stream.finish_sending()  # who wants more need not wait for it in vain
                read = 0
                while not self._peer.leaves and not self._over.is_set() and read < MOST:
                    with contextlib.suppress(DeadlineMissed):
                        read += len(stream.receive(2**16, timeout=TICK))

    def _met(self) -> Stream | None:
        """Return the connection with the fuzzed server; None where it does not come, or the session is over."""
        end = time.monotonic() + self._timeout
        while not self._over.is_set() and time.monotonic() < end:
            with contextlib.suppress(ConnectionError, TimeoutError):
                if self._peer.rank == 0:
                    return open_stream(self._host, self._peer.port, self._timeout)
                if self._door is not None:
                    return self._door.accept(TICK)
            time.sleep(TICK)
        return None
