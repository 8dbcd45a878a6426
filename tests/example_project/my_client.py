"""A client that counts a server's devices, in 3.6.1.

    python my_client.py HOST:PORT [careless]

With "careless" it takes a missing reply for "no devices".
"""

import socket
import sys


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    with socket.create_connection((host, int(port))) as server:
        if ask(server, 14, 3) != bytes([3, 6, 1]):
            return "another version"
        count = ask(server, 15, 4)
    if len(count) < 4 and "careless" not in sys.argv:
        return "the server has left"
    print(int.from_bytes(count, "little"), "devices")
    return 0


def ask(server, command, size):
    """Send a request without payload; return what came of a reply of that many bytes."""
    server.sendall(bytes([command]) + bytes(8))
    got = b""
    while len(got) < 8 + size and (piece := server.recv(8 + size - len(got))):
        got += piece
    return got[8:]


if __name__ == "__main__":
    sys.exit(main())
