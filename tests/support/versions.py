"""Servers that play scripts, one script for each connection: for tests of how clients find out what a server speaks."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

Script = Callable[[socket.socket], None]

HELLO_0 = b"\x0e" + bytes(8)
"""HELLO as versions before 4.0.0 send it."""
HELLO_24 = b"\x0e\x18" + bytes(7) + bytes(24)
"""HELLO as versions from 4.0.0 on send it."""


def reply(payload: bytes) -> bytes:
    return len(payload).to_bytes(8, "little") + payload


def says(*version: int) -> bytes:
    """The reply to HELLO of the form that the version has."""
    return reply(bytes(version) + (bytes(25) if version[0] >= 4 else b""))


def answers(hello: bytes, *replies: bytes) -> Script:
    """Close on another first request than this HELLO; answer it and the requests after it."""

    def script(sock: socket.socket) -> None:
        if sock.recv(len(hello), socket.MSG_WAITALL) != hello:
            return
        sock.sendall(replies[0])
        for answer in replies[1:]:
            size = int.from_bytes(sock.recv(9, socket.MSG_WAITALL)[1:], "little")
            sock.recv(size, socket.MSG_WAITALL)
            sock.sendall(answer)
        sock.recv(1)  # until the client ends the connection

    return script


@contextlib.contextmanager
def serving(*scripts: Script) -> Iterator[tuple[str, list[bytes]]]:
    """A server that runs these scripts, one a connection; yields its endpoint, and the first 9 bytes that each connection sent."""
    heads: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        for script in scripts:
            with contextlib.suppress(OSError):
                sock, _ = listener.accept()
                with sock, contextlib.suppress(OSError):
                    sock.settimeout(10)
                    heads.append(sock.recv(9, socket.MSG_PEEK | socket.MSG_WAITALL))
                    script(sock)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", heads
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # so that a script that nobody connected for does not wait
            thread.join(20)
    assert not thread.is_alive()
