"""A minimal server for the tests of the conformance runner: a process that can hang or die.

    python tests/support/fake_server.py PORT BEHAVIOUR

HELLO and DEVICE_COUNT are answered as a 3.6.1 server does, the other commands are refused; an unknown command (17 and above) is met
by BEHAVIOUR: "close" as it should be, "exit" and "kill" end the process, "hang" leaves this connection without an answer,
"hang-all" every later one.
"new" speaks a version that nobody knows, with a HELLO of 24 bytes.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time


def main() -> None:
    port, behaviour = int(sys.argv[1]), sys.argv[2]
    with socket.create_server(("127.0.0.1", port)) as listener:
        print("listening", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                converse(connection, behaviour)


def converse(connection: socket.socket, behaviour: str) -> None:
    while len(head := receive(connection, 9)) == 9:
        payload = receive(connection, int.from_bytes(head[1:], "little"))
        if head[0] == 14 and behaviour == "new":
            if len(payload) != 24:
                return
            reply(connection, bytes([9, 2, 0, 0]) + bytes(24))
        elif head[0] == 14:
            reply(connection, bytes([3, 6, 1]))
        elif head[0] == 15:
            reply(connection, bytes([1, 0, 0, 0]))
        else:
            if head[0] > 16:
                misbehave(behaviour)
            return


def misbehave(behaviour: str) -> None:
    match behaviour:
        case "exit":
            # as glibc ends a list of callers
            print("that was too much\npython(_start+0x21)[0x55e24f8ee081]", flush=True)
            os._exit(7)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(2)
        case "hang-all":
            time.sleep(60)


def receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := connection.recv(size - len(data))):
        data += piece
    return data


def reply(connection: socket.socket, payload: bytes) -> None:
    connection.sendall(len(payload).to_bytes(8, "little") + payload)


if __name__ == "__main__":
    main()
