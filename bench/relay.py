"""A bare relay, the least that anything between a client and a server does: receive and send.

`relay.py HOST:PORT` prints where it listens. Its cost is that of the kernel and the interpreter; what a proxy costs beyond it is
the proxy's own.
"""

from __future__ import annotations

import socket
import sys
import threading

from ggml_rpc_ref.net.stream import parse_endpoint


def forward(source: socket.socket, target: socket.socket) -> None:
    room = memoryview(bytearray(2**20))
    while count := source.recv_into(room):
        target.sendall(room[:count])
    target.shutdown(socket.SHUT_WR)


def relay(client: socket.socket, server: socket.socket) -> None:
    for sock in (client, server):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for ends in ((client, server), (server, client)):
        threading.Thread(target=forward, args=ends, daemon=True).start()


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"forwarding 127.0.0.1:{listener.getsockname()[1]} to {sys.argv[1]}", file=sys.stderr, flush=True)
        while True:
            relay(listener.accept()[0], socket.create_connection(parse_endpoint(sys.argv[1])))
