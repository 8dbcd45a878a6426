"""Where two servers meet: one listens for a while on a port, the other connects to it. Nothing here knows what they then do.

Whoever can reach the port may come first, so the one that listens takes nobody but addresses it was told to expect, and of those
the first that sends the greeting; one that connects and says nothing costs nobody else anything.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.net.channel import Channel
from ggml_rpc_ref.net.sockets import listen

TICK: Final = 0.05
"""Seconds after which a wait asks whether it is cancelled, and between two tries to connect."""
WAITING: Final = 16
"""Connections that may have come without having said their greeting; the next one is closed."""

Stop = Callable[[], bool]
"""Says whether to give up."""


class Met(NamedTuple):
    """A peer that has come.

    Attributes:
        channel: the connection, blocking.
        greeting: the first bytes that it sent, as many as were asked for; empty where we were the one to connect.
    """

    channel: Channel
    greeting: bytes


def await_peer(address: str, port: int, greeting: int, seconds: float, expected: Callable[[str], bool], stop: Stop) -> Met | None:
    """Listen until somebody has come and sent a greeting.

    Args:
        address: where to listen.
        port: TCP port.
        greeting: its length in bytes.
        seconds: how long.
        expected: whether a peer of this address may come.
        stop: asked several times a second whether to give up.

    Returns:
        None where the port can't be bound, or nobody came.
    """
    try:
        listeners = listen(address, port)
    except Misuse:
        return None
    end, here = time.monotonic() + seconds, dict[socket.socket, bytearray]()
    try:
        with selectors.DefaultSelector() as selector:
            for listener in listeners:
                selector.register(listener, selectors.EVENT_READ)
            while time.monotonic() < end and not stop():
                for key, _ in selector.select(TICK):
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    if sock in listeners:
                        _let_in(sock, here, selector, expected)
                    elif _greets(sock, here, selector, greeting):
                        return Met(_blocking(sock), bytes(here.pop(sock)))
        return None
    finally:
        for sock in (*listeners, *here):
            sock.close()


def _let_in(
    listener: socket.socket,
    here: dict[socket.socket, bytearray],
    selector: selectors.BaseSelector,
    expected: Callable[[str], bool],
) -> None:
    try:
        sock, address = listener.accept()
    except OSError:  # it has gone again
        return
    if len(here) >= WAITING or not expected(address[0]):
        sock.close()
        return
    sock.setblocking(False)
    here[sock] = bytearray()
    selector.register(sock, selectors.EVENT_READ)


def _greets(sock: socket.socket, here: dict[socket.socket, bytearray], selector: selectors.BaseSelector, greeting: int) -> bool:
    """Receive more of a greeting; return whether it is complete. Nothing behind it is read."""
    try:
        data = sock.recv(greeting - len(here[sock]))
    except BlockingIOError:
        return False
    except OSError:
        data = b""
    here[sock] += data
    complete = len(here[sock]) == greeting
    if complete or not data:
        selector.unregister(sock)
    if not data:
        del here[sock]
        sock.close()
    return complete


def seek_peer(host: str, port: int, seconds: float, expected: Callable[[str], bool], stop: Stop) -> Met | None:
    """Connect to a peer that may not be listening yet; None where it does not within `seconds`, or its address is not expected."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stop():
        with contextlib.suppress(OSError, UnicodeError):
            found = [str(where[0]) for *_, where in socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)]
            address = next(filter(expected, found), None)
            if address is None:
                return None
            sock = socket.create_connection((address, port), timeout=max(TICK, min(1.0, end - time.monotonic())))
            return Met(_blocking(sock), b"")
        time.sleep(TICK)
    return None


def _blocking(sock: socket.socket) -> Channel:
    sock.setblocking(True)
    return Channel(sock)
