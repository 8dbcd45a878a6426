"""A proxy that stands between a client and a server: forwards every byte as it is, follows, tells and records.

    with Proxy(Endpoint("127.0.0.1", 50052)) as proxy:
        print(proxy.endpoint)

Two threads a connection, one for each direction; each receives into one buffer of its own and sends from there. A side's end of
sending (FIN) is passed on as such, a reset as a reset, and no deadline is kept beyond the one for reaching the server.

Bytes are noted, sent on, and then followed in the order in which they were noted, while their receiver is at work already; a reply
is never followed before its request. Only who asks for delays has them followed first. What can't be followed is forwarded as well.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ggml_rpc_ref.files.recording import Direction, Recorder
from ggml_rpc_ref.net.channel import Channel, connect
from ggml_rpc_ref.net.listening import Listener
from ggml_rpc_ref.net.stream import Endpoint
from ggml_rpc_ref.proxy.follow import Exchange, Follower, describe

log = logging.getLogger(__name__)

ROOM: Final = 2**20
"""Bytes received at once."""
REACH: Final = 10.0
"""Seconds that the server may take to accept a connection."""


class Proxy(Listener["_Pair"]):
    """A proxy that forwards each connection to a server and back; as a `Listener` it begins and ends.

    Args:
        upstream: the server.
        address: IPv4 or IPv6 address or host name to bind.
        port: TCP port; 0: one that the kernel chooses.
        recorder: gets every byte; closed by whoever made it.
        explain: log one line for each message.
        delays: request class to seconds that its bytes wait before they are sent on; what was received with them waits as well.

    Raises:
        Misuse: where the address can't be bound.
    """

    def __init__(
        self,
        upstream: Endpoint,
        address: str = "127.0.0.1",
        port: int = 0,
        *,
        recorder: Recorder | None = None,
        explain: bool = False,
        delays: Mapping[type, float] | None = None,
    ) -> None:
        super().__init__(address, port)
        self.upstream, self.recorder, self.explain, self.delays = upstream, recorder, explain, dict(delays or {})
        self._accepted = 0

    def _conversation(self, channel: Channel, name: str) -> _Pair:
        self._accepted += 1
        return _Pair(self, self._accepted, channel, name)


@dataclass(slots=True)
class _Part:
    """Bytes that were received at once, none at the end of sending; where they lie, when they came, how long they wait."""

    direction: Direction
    view: memoryview
    time_ns: int
    delay: float = 0.0


class _Pair:
    """A connection from the client and the one to the server that belongs to it."""

    def __init__(self, proxy: Proxy, number: int, client: Channel, name: str) -> None:
        self.proxy, self.number, self.name = proxy, number, name
        self.client = client
        self.server: Channel | None = None
        self.is_reset = False
        self.follower: Follower | None = Follower(number, proxy.recorder, self._tell if proxy.explain else None)
        self._warned = False
        # every part is put here before it is sent, so a request stands before its reply; nobody sends with the lock held
        self._passing: deque[_Part] = deque()
        self._lock = threading.Lock()

    def converse(self) -> None:
        """Forward in both directions until both have ended, and close both."""
        try:
            self._forward_both()
        finally:
            self._close()

    def turn_away(self, reason: str) -> None:
        """End the connection before the server is asked for one."""
        log.warning("connection %d: from %s, could not be served: %s", self.number, self.name, reason)
        self._close()

    def _forward_both(self) -> None:
        log.info("connection %d: from %s", self.number, self.name)
        try:
            self.server = connect(self.proxy.upstream, REACH)
        except OSError as error:
            log.warning("connection %d: can't reach %s: %s", self.number, self.proxy.upstream, error.strerror or error)
            self.is_reset = True
            return
        for channel in (self.client, self.server):
            channel.set_up()
        if self.proxy.stopping:
            return
        back = threading.Thread(target=self._forward, args=(self.server, self.client, Direction.TO_CLIENT), daemon=True)
        back.start()
        self._forward(self.client, self.server, Direction.TO_SERVER)
        back.join()
        log.info("connection %d: %s", self.number, "reset" if self.is_reset else "ended")

    def _forward(self, source: Channel, target: Channel, direction: Direction) -> None:
        room = memoryview(bytearray(ROOM))
        while True:
            try:
                count = source.receive(room)
            except OSError:
                self.is_reset = True
                self._note_end(direction)
                target.stop_receiving()  # the other thread waits for bytes from it
                return
            if not count:
                break
            try:
                self._pass(direction, room[:count], target)
            except OSError:
                self.is_reset = True  # the other thread, which receives from this target, finds its end by itself
                return
        if not self.is_reset:  # else this end is our own doing: it is the other side that has reset the connection
            self._note_end(direction)
            target.finish_sending()

    def _note_end(self, direction: Direction) -> None:
        self._passing.append(_Part(direction, memoryview(b""), time.monotonic_ns()))
        self._follow_all()

    def _pass(self, direction: Direction, view: memoryview, target: Channel) -> None:
        """Send bytes on and have them followed; afterwards, they may be overwritten."""
        part = _Part(direction, view, time.monotonic_ns())
        self._passing.append(part)
        if self.proxy.delays:
            self._follow_all()
            time.sleep(part.delay)
        try:
            target.send(view)
        finally:
            self._follow_all()

    # --------------------------------------------------------------------------------------------------------- following

    def _follow_all(self) -> None:
        """Follow what has been received; what this thread received is then done with, whichever thread has followed it."""
        with self._lock:
            while self._passing:
                try:
                    self._follow(self._passing.popleft())
                except OSError as error:
                    self._stop_recording(error)

    def _follow(self, part: _Part) -> None:
        if self.follower is None:
            return
        if not part.view:
            self.follower.end(part.direction, part.time_ns)
            return
        begun = self.follower.feed(part.direction, part.view, part.time_ns)
        if self.proxy.delays:
            part.delay = sum(self.proxy.delays.get(cls, 0.0) for cls in begun)
        violation = self.follower.violation
        if violation is not None and not self._warned:
            self._warned = True
            log.warning("connection %d: can't be followed any more, only forwarded: %s", self.number, violation)

    def _stop_recording(self, error: OSError) -> None:
        self.follower = None
        log.error("connection %d: recording has stopped, forwarding goes on: %s", self.number, error.strerror or error)

    def _tell(self, exchange: Exchange) -> None:
        log.info("%s", describe(exchange))

    # ------------------------------------------------------------------------------------------------------------ ending

    def hang_up(self) -> None:
        """End both connections, from another thread; the ones that forward notice."""
        for channel in (self.client, self.server):
            if channel is not None:
                channel.hang_up()

    def _close(self) -> None:
        """Close both connections, with a reset if that is how one of them ended."""
        for channel in (self.client, self.server):
            if channel is not None:
                channel.close(reset=self.is_reset)
