"""A client in every protocol version, by bytes that are laid out here from what is known of each version.

Nothing here asks our codec or tables what a version has: `FACTS` says it, transcribed from the released sources of each.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

ALLOC, ALIGNMENT, MAX_SIZE, BASE, FREE, CLEAR, SET, HASH, GET, COPY, COMPUTE, DEVICE_MEMORY, INIT, ALLOC_SIZE, HELLO = range(15)
COUNT, RECOMPUTE, MEMSET, SET_2D, GET_2D, COMM_INIT, ALLREDUCE, COMM_FREE = range(15, 23)
F32, I8 = 0, 24
COMPUTE_FLAG = 16


@dataclass(frozen=True)
class Facts:
    """What one version does that not all do.

    Attributes:
        hello: bytes of HELLO's payload.
        device: whether requests about devices begin with a device.
        commands: number of the first command that is unknown.
        set_reply: whether SET_TENSOR is answered.
        status: whether GRAPH_COMPUTE is answered, with one byte.
        acknowledged: whether FREE_BUFFER, BUFFER_CLEAR, INIT_TENSOR and MEMSET_TENSOR are answered.
        sources: whether GET_ALLOC_SIZE carries the sources.
        cache_flag: whether SET_TENSOR has one.
        uid: whether graphs have one.
        unary: number of the op UNARY.
        gelu_erf: number of its kind GELU_ERF; None: there is none.
    """

    hello: int
    device: bool
    commands: int
    set_reply: bool
    status: bool
    acknowledged: bool
    sources: bool
    cache_flag: bool
    uid: bool
    unary: int
    gelu_erf: int | None


FACTS = {
    "1.0.0": Facts(0, False, 15, True, True, True, False, False, False, 74, None),
    "2.0.0": Facts(0, False, 15, False, True, True, False, False, False, 78, 14),
    "3.0.0": Facts(0, True, 16, False, True, True, False, False, False, 80, 14),
    "3.5.0": Facts(0, True, 17, False, False, True, False, False, False, 85, 16),
    "3.6.0": Facts(0, True, 17, False, False, True, True, False, False, 85, 16),
    "3.6.1": Facts(0, True, 17, False, False, True, True, False, False, 86, 16),
    "4.0.0": Facts(24, True, 17, False, False, True, True, False, False, 86, 16),
    "4.0.1": Facts(24, True, 17, False, False, True, True, False, False, 87, 16),
    "4.0.2": Facts(24, True, 17, False, False, True, True, False, False, 88, 16),
    "4.0.3": Facts(24, True, 17, False, False, True, True, False, False, 91, 16),
    "5.0.0": Facts(24, True, 18, False, False, True, True, False, False, 91, 16),
    "5.1.0": Facts(24, True, 18, False, False, True, True, False, False, 91, 16),
    "6.0.0": Facts(24, True, 18, False, False, False, True, False, False, 91, 16),
    "7.0.0": Facts(24, True, 18, False, False, False, True, True, False, 91, 16),
    "8.0.0": Facts(24, True, 23, False, False, False, True, True, True, 91, 16),
}
EMPTY = bytes(8)


def frame(command: int, payload: bytes = b"") -> bytes:
    return struct.pack("<BQ", command, len(payload)) + payload


def tensor(
    buffer: int, data: int, ne: int, *, id: int = 1, type: int = F32, op: int = 0, kind: int = 0, src: int = 0,
    flags: int = COMPUTE_FLAG, last: bytes = bytes(4),
) -> bytes:  # fmt: skip
    """The 296 bytes of a row of `ne` elements."""
    size = 4 if type == F32 else 1
    head = struct.pack("<QIQ4I4I", id, type, buffer, ne, 1, 1, 1, size, size * ne, size * ne, size * ne)
    return head + struct.pack("<Ii60xi10QQQQ64s", op, kind, flags, src, *[0] * 9, 0, 0, data, b"row") + last


@dataclass
class Client:
    """A connection that has said HELLO."""

    socket: socket.socket
    facts: Facts
    greeting: bytes = b""
    received: bytearray = field(default_factory=bytearray)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (more := self.socket.recv(size - len(data))):
            data += more
        return data

    def reply(self) -> bytes:
        return self.receive(struct.unpack("<Q", self.receive(8))[0])

    def ask(self, request: bytes) -> bytes:
        self.send(request)
        return self.reply()

    def in_step(self) -> None:
        """Every byte that came was a reply to something: GET_ALIGNMENT is answered with its own."""
        assert self.ask(frame(ALIGNMENT, self.on())) == struct.pack("<Q", 32)

    def closed(self) -> bool:
        """Whether the server ends the connection without another byte."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def on(self, device: int = 0) -> bytes:
        return struct.pack("<I", device) if self.facts.device else b""

    def alloc(self, size: int) -> tuple[int, int]:
        remote_ptr, given = struct.unpack("<QQ", self.ask(frame(ALLOC, self.on() + struct.pack("<Q", size))))
        assert given == size
        return remote_ptr, struct.unpack("<Q", self.ask(frame(BASE, struct.pack("<Q", remote_ptr))))[0]

    def tell(self, request: bytes, *, answered: bool) -> None:
        """Send a request that is answered with nothing, by eight zero bytes or by none."""
        self.send(request)
        if answered:
            assert self.receive(8) == EMPTY

    def write(self, where: bytes, data: bytes, offset: int = 0, cache_flag: int = 0) -> None:
        flag = bytes([cache_flag]) if self.facts.cache_flag else b""
        self.tell(frame(SET, where + flag + struct.pack("<Q", offset) + data), answered=self.facts.set_reply)

    def read(self, where: bytes, size: int, offset: int = 0) -> bytes:
        return self.ask(frame(GET, where + struct.pack("<QQ", offset, size)))

    def compute(self, tensors: list[bytes], nodes: list[int], uid: int = 0) -> None:
        number = struct.pack("<Q", uid) if self.facts.uid else b""
        ids = struct.pack(f"<I{len(nodes)}QI", len(nodes), *nodes, len(tensors))
        self.send(frame(COMPUTE, self.on() + number + ids + b"".join(tensors)))
        if self.facts.status:
            assert self.reply() == b"\0"

    def recompute(self, uid: int = 0) -> None:
        self.send(frame(RECOMPUTE, self.on() + (struct.pack("<Q", uid) if self.facts.uid else b"")))


@contextmanager
def connected(endpoint: str, facts: Facts) -> Iterator[Client]:
    host, _, port = endpoint.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as sock:
        client = Client(sock, facts)
        client.greeting = client.ask(frame(HELLO, bytes(facts.hello)))
        yield client


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The rules that the log names."""
    return [record.rule for record in caplog.records if hasattr(record, "rule")]


def floats(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)
