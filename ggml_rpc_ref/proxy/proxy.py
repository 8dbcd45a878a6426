"""A proxy between a client and a server: forwards every byte unchanged, decodes the messages, logs and records them.

    with Proxy(Endpoint("127.0.0.1", 50052)) as proxy:
        print(proxy.endpoint)

Each connection has two threads, one per direction; each receives into a buffer of its own and sends from there. A FIN is passed on
as a FIN, a reset as a reset, and there is no deadline except for reaching the server.

Received bytes are queued, sent on, and then decoded (`follow`) in the order of the queue, while their receiver is already working
on them; a reply is never decoded before its request. With delays they are decoded first, because a delay depends on the message.
Bytes that can't be decoded are forwarded all the same.
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
    """A proxy that forwards each connection to a server and back; it starts and stops as a `Listener`.

    Args:
        upstream: the server.
        address: IPv4 or IPv6 address or host name to bind.
        port: TCP port; 0: one that the kernel chooses.
        recorder: gets every byte; the caller closes it.
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
        # without a lock: only the accepting thread comes here
        self._accepted += 1
        return _Pair(self, self._accepted, channel, name)


@dataclass(slots=True)
class _Part:
    """Bytes of one receive (none: the end of sending), where they are, when they came, and how long to delay them."""

    direction: Direction
    view: memoryview
    time_ns: int
    delay: float = 0.0


class _Pair:
    """A client's connection and the connection to the server that was made for it."""

    def __init__(self, proxy: Proxy, number: int, client: Channel, name: str) -> None:
        self.proxy, self.number, self.name = proxy, number, name
        self.client = client
        self.server: Channel | None = None
        self.is_reset = False
        self.follower: Follower | None = Follower(number, proxy.recorder, self._log_exchange if proxy.explain else None)
        self._warned = False
        # each part is queued before it is sent, so a request comes before its reply; the lock is never held while sending
        self._passing: deque[_Part] = deque()
        self._lock = threading.Lock()

    def converse(self) -> None:
        """Forward in both directions until both have ended, and close both."""
        try:
            self._forward_both()
        finally:
            self._close()

    def turn_away(self, reason: str) -> None:
        """Close the connection without connecting to the server."""
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
            # no deadlines: a server may compute for minutes, a client may be silent for hours
            channel.set_up()
        # a hang_up that came during the connect has not reached `self.server`
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
                self.is_reset = True  # the other thread receives from this target and notices its end itself
                return
        if not self.is_reset:  # otherwise we caused this end ourselves, after the other side reset the connection
            self._note_end(direction)
            target.finish_sending()

    def _note_end(self, direction: Direction) -> None:
        self._passing.append(_Part(direction, memoryview(b""), time.monotonic_ns()))
        self._follow_all()

    def _pass(self, direction: Direction, view: memoryview, target: Channel) -> None:
        """Send bytes on and decode them; afterwards they may be overwritten."""
        part = _Part(direction, view, time.monotonic_ns())
        self._passing.append(part)
        if self.proxy.delays:
            self._follow_all()
            time.sleep(part.delay)
        try:
            # what was received is in the recording even where it can't be sent on
            target.send(view)
        finally:
            self._follow_all()

    # --------------------------------------------------------------------------------------------------------- following

    def _follow_all(self) -> None:
        """Decode all queued parts, so that this thread may reuse its buffer; the other thread may have decoded some of them."""
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

    def _log_exchange(self, exchange: Exchange) -> None:
        log.info("%s", describe(exchange))

    # ------------------------------------------------------------------------------------------------------------ ending

    def hang_up(self) -> None:
        """End both connections, from another thread; the forwarding threads notice."""
        for channel in (self.client, self.server):
            if channel is not None:
                channel.hang_up()

    def _close(self) -> None:
        """Close both connections, with a reset if one of them was reset."""
        for channel in (self.client, self.server):
            if channel is not None:
                channel.close(reset=self.is_reset)
