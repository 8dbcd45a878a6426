"""Listening sockets for every address of a host name; a server that restarts can bind them again at once."""

from __future__ import annotations

import errno
import socket
from typing import Any, Final

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.net.stream import Endpoint

BACKLOG: Final = 4096
"""Connections that the kernel completes before they are accepted, as many as it allows; upstream's is 1 (SEC-37).

Where they are too few, whoever connects next, perhaps not the one that made so many, waits a second for its second try.
"""


def address_text(address: Any) -> str:
    """Return a socket's address as "127.0.0.1:50052" or "[::1]:50052"."""
    # an IPv6 address has two more members, flow and scope
    return str(Endpoint(*address[:2]))


def listen(address: str, port: int) -> list[socket.socket]:
    """Return listening sockets for every address that a name has.

    Raises:
        Misuse: where the name is unknown, the port none, or none of its addresses can be bound.
    """
    if not isinstance(address, str):
        raise Misuse(f"address = {address!r}: it must be a text")
    if not isinstance(port, int) or not 0 <= port < 65536:
        raise Misuse(f"port = {port!r}: it must be a whole number from 0 to 65535")
    try:
        found = socket.getaddrinfo(address.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise Misuse(f"the host {address!r} is unknown: {getattr(error, 'strerror', None) or error}") from None
    targets = list(dict.fromkeys((family, where) for family, _, _, _, where in found))
    listeners: list[socket.socket] = []
    failure: OSError | None = None
    for family, where in targets:
        # with port 0 the kernel chooses for the first address; the others use the same port
        chosen = listeners[0].getsockname()[1] if listeners else port
        try:
            listeners.append(_listener(family, (where[0], chosen, *where[2:]), alone=len(targets) == 1))
        except OSError as error:
            failure = error
            # a name may have an IPv6 address where the machine has no IPv6: the other addresses will do
            if error.errno != errno.EADDRNOTAVAIL and error.errno != errno.EAFNOSUPPORT:
                break
    # a port taken on one address alone is an error too: clients of that address would reach another program
    if failure is not None and (not listeners or failure.errno == errno.EADDRINUSE):
        for listener in listeners:
            listener.close()
        raise _cannot_listen(address, port, failure)
    return listeners


def _listener(family: int, where: Any, *, alone: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart must not wait for TIME_WAIT (FUN-22)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not alone)  # "::" alone takes IPv4 as well
        listener.bind(where)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _cannot_listen(address: str, port: int, error: OSError) -> Misuse:
    if error.errno == errno.EADDRINUSE:
        return Misuse(f"port {port} of {address} is in use: end the program that has it, or choose another port (0: any free one)")
    return Misuse(f"can't listen on port {port} of {address}: {error.strerror or error}")
