"""A connected TCP socket as a server or a proxy uses it: blocking, without Python's timeouts; its caller counts what has moved.

A small request costs one recv and one send. Where a call must not wait for ever, the kernel's own timeouts (SO_RCVTIMEO,
SO_SNDTIMEO) end it, because Python's would cost a poll for each call. A client's end of a connection is `stream.Stream`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from enum import Enum
from typing import Final

from ggml_rpc_ref.net.stream import MOST, Endpoint

PROBES: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPALIVE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""Seconds of silence before the first probe (macOS calls it TCP_KEEPALIVE), seconds between probes, and how many go unanswered."""
KEPT: Final = PROBES["TCP_KEEPIDLE"] + PROBES["TCP_KEEPINTVL"] * PROBES["TCP_KEEPCNT"]
"""Seconds after which a peer that answers no probe is gone."""
PEER_FINISHED: Final[int] = getattr(select, "POLLRDHUP", 0)
"""The event of a FIN, seen even while bytes before it are unread; only Linux has it."""


class Waited(Exception):  # noqa: N818
    """Nothing moved within the kernel's timeout."""


class Peer(Enum):
    """What is known of the other end without reading."""

    THERE = "there"
    FINISHED = "finished"
    """It has ended its sending (FIN). It may still read: TCP does not tell a half-closed connection from a closed one."""
    GONE = "gone"
    """The connection is reset, or both directions are shut down."""


class Channel:
    """One connection.

    Args:
        sock: connected; from now on this object's.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._poll = select.poll()
        self._poll.register(sock, PEER_FINISHED)  # errors and hang-ups are reported in any case

    @property
    def descriptor(self) -> int:
        """The socket's number, for what waits on it in C; it stays this object's."""
        return self._socket.fileno()

    def set_up(self, receive_timeout: float | None = None, send_timeout: float | None = None) -> None:
        """Make the socket block, send small messages at once, and time out in the kernel.

        Args:
            receive_timeout: seconds after which a receive that got nothing raises `Waited`; None: never.
            send_timeout: seconds after which a send that moved nothing raises `Waited`; None: never.

        Raises:
            OSError: where the connection has ended already.
        """
        self._socket.setblocking(True)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option, seconds in ((socket.SO_RCVTIMEO, receive_timeout), (socket.SO_SNDTIMEO, send_timeout)):
            if seconds is not None:
                self._socket.setsockopt(socket.SOL_SOCKET, option, _timeval(seconds))

    def keep_alive(self) -> None:
        """Let the kernel probe an idle peer, so that one whose machine died is gone within `KEPT` rather than Linux' two hours."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in PROBES.items():
            if hasattr(socket, name):
                self._socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def receive(self, room: memoryview, *, all_of_it: bool = False) -> int:
        """Receive into `room`; return how many bytes, 0 once the peer has ended its sending.

        Args:
            room: where to put them.
            all_of_it: wait until `room` is full, as far as the timeout lets it.

        Raises:
            Waited, OSError.
        """
        try:
            # the socket blocks: EAGAIN (BlockingIOError) can only be the kernel's timeout
            return self._socket.recv_into(room[:MOST], 0, socket.MSG_WAITALL if all_of_it else 0)
        except BlockingIOError:
            raise Waited from None

    def send(self, data: bytes | memoryview) -> None:
        """Send all of it.

        Raises:
            Waited, OSError.
        """
        try:
            self._socket.sendall(data)
        except BlockingIOError:
            raise Waited from None

    def send_some(self, head: bytes | memoryview, data: bytes | memoryview = b"") -> int:
        """Send the beginning of `head` and then `data`, from where they lie, in one call; return how many bytes went.

        Raises:
            Waited, OSError.
        """
        try:
            return self._socket.sendmsg((head, data[:MOST])) if data else self._socket.send(head[:MOST])
        except BlockingIOError:
            raise Waited from None

    def peer(self) -> Peer:
        """Return what is known of the other end; reads nothing and never waits."""
        events = self._poll.poll(0)
        if not events:
            return Peer.THERE
        return Peer.GONE if events[0][1] & (select.POLLHUP | select.POLLERR | select.POLLNVAL) else Peer.FINISHED

    def has_unread(self) -> bool:
        """Whether bytes have come that nobody has received yet; none is received by this."""
        try:
            # after a FIN this is b"", so a peer that has only ended its sending counts as having nothing unread
            return bool(self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    # ------------------------------------------------------------------------------------------------------------ ending

    def finish_sending(self) -> None:
        """Say that nothing more will be sent (FIN); receiving goes on."""
        with contextlib.suppress(OSError):  # gone already
            self._socket.shutdown(socket.SHUT_WR)

    def stop_receiving(self) -> None:
        """End the receiving of another thread on this channel; the peer notices nothing."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def hang_up(self) -> None:
        """End the connection in both directions, from any thread; who waits in a call wakes up."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self, *, reset: bool = False) -> None:
        """Close the socket.

        Args:
            reset: let the peer get a reset (RST), not an orderly end.
        """
        if reset:
            with contextlib.suppress(OSError):
                # lingering on, for 0 seconds: close then drops what is unsent and sends the reset
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


def connect(endpoint: Endpoint, timeout: float) -> Channel:
    """Connect within `timeout` seconds; what is done with the channel then has no deadline.

    Raises:
        OSError: where nothing accepts.
    """
    sock = socket.create_connection(endpoint, timeout=timeout)
    sock.settimeout(None)
    return Channel(sock)


def _timeval(seconds: float) -> bytes:
    """Return seconds as setsockopt takes them for SO_RCVTIMEO and SO_SNDTIMEO."""
    # all zero would mean never; callers give at least 0.02 s (`Limits.tick`)
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
