"""A client that counts a server's devices, in 3.6.1.

    python my_client.py HOST:PORT [careless]

With "careless" it takes a missing reply for "no devices".
"""

import socket
import sys


def count_devices(endpoint, careless=False):
    """Return how many devices a server has."""
    host, port = endpoint.rsplit(":", 1)
    with socket.create_connection((host, int(port))) as server:
        if ask(server, 14, 3) != bytes([3, 6, 1]):
            raise ValueError("another version")
        count = ask(server, 15, 4)
    if len(count) < 4 and not careless:
        raise ConnectionError("the server has left")
    return int.from_bytes(count, "little")


def ask(server, command, size):
    """Send a request without payload; return what came of a reply of that many bytes."""
    server.sendall(bytes([command]) + bytes(8))
    got = b""
    while len(got) < 8 + size and (piece := server.recv(8 + size - len(got))):
        got += piece
    return got[8:]


if __name__ == "__main__":
    try:
        print(count_devices(sys.argv[1], "careless" in sys.argv), "devices")
    except (ConnectionError, ValueError) as error:
        sys.exit(str(error))
