"""The server over real sockets, with bytes laid out here by hand: refusals, order, isolation, limits, what remains afterwards."""

from __future__ import annotations

import errno
import gc
import logging
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.backends.oracle import Oracle
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.net import channel
from ggml_rpc_ref.protocol.fnv import definition
from ggml_rpc_ref.server import tensor_cache
from ggml_rpc_ref.server.budget import ARRIVING, KEPT, Budget
from ggml_rpc_ref.server.handlers import Device, Host, Session
from ggml_rpc_ref.server.served import origin
from ggml_rpc_ref.server.server import Limits, Server
from ggml_rpc_ref.server.tensor_cache import TensorCache
from ggml_rpc_ref.spec.messages import GetAlignment, by_number

MEMORY = 64 * 2**20
"""Bytes of each device here."""

ALLOC, ALIGNMENT, MAX_SIZE, BASE, FREE, CLEAR, SET, HASH, GET = range(9)
COPY, COMPUTE, DEVICE_MEMORY, INIT, ALLOC_SIZE, HELLO, COUNT, RECOMPUTE = range(9, 17)
FIXED_SIZES = {
    ALLOC: 12, ALIGNMENT: 4, MAX_SIZE: 4, BASE: 8, FREE: 8, CLEAR: 9, HASH: 312, GET: 312, COPY: 592, DEVICE_MEMORY: 4,
    INIT: 296, ALLOC_SIZE: 3260, COUNT: 0, RECOMPUTE: 4,
}  # fmt: skip
F32, Q4_0, I8 = 0, 2, 24
OP_NONE, OP_ADD, OP_CUSTOM = 0, 2, 90
HELLO_REPLY = struct.pack("<Q3B", 3, 3, 6, 1)


@pytest.fixture
def host() -> Host:
    return Host([Device(name, "for tests", Oracle(HostMemory(MEMORY))) for name in ("one", "two")])


@pytest.fixture
def server(host: Host, caplog: pytest.LogCaptureFixture) -> Iterator[Server]:
    caplog.set_level(logging.DEBUG, "ggml_rpc_ref")
    with Server(host) as server:
        yield server
    assert "internal error" not in caplog.text


def frame(command: int, payload: bytes = b"", size: int | None = None) -> bytes:
    return struct.pack("<BQ", command, len(payload) if size is None else size) + payload


Numbers = tuple[int, ...]


def tensor(
    buffer: int = 0, data: int = 0, count: int = 16, *, id: int = 1, type: int = I8, ne: Numbers = (), nb: Numbers = (),
    op: int = OP_NONE, src: Numbers = (),
) -> bytes:  # fmt: skip
    """The 296 bytes of a tensor; by default `count` bytes of type I8."""
    ne, nb = ne or (count, 1, 1, 1), nb or (1, count, count, count)
    sources = (*src, *[0] * (10 - len(src)))
    head = struct.pack("<QIQ4I4I", id, type, buffer, *ne, *nb)
    flags, view_src, view_offs = 16, 0, 0
    return head + struct.pack("<I64si10QQQQ64s4x", op, b"", flags, *sources, view_src, view_offs, data, b"a name")


def graph(nodes: list[int], tensors: list[bytes], device: int = 0) -> bytes:
    ids = struct.pack(f"<II{len(nodes)}QI", device, len(nodes), *nodes, len(tensors))
    return frame(COMPUTE, ids + b"".join(tensors))


@dataclass
class Client:
    """A raw connection that has said HELLO, unless told not to."""

    socket: socket.socket

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

    def alloc(self, size: int, device: int = 0) -> tuple[int, int]:
        """Handle and base of a new buffer."""
        remote_ptr, given = struct.unpack("<QQ", self.ask(frame(ALLOC, struct.pack("<IQ", device, size))))
        assert given == size
        return remote_ptr, struct.unpack("<Q", self.ask(frame(BASE, struct.pack("<Q", remote_ptr))))[0]

    def free_memory(self, device: int = 0) -> int:
        return int(struct.unpack("<QQ", self.ask(frame(DEVICE_MEMORY, struct.pack("<I", device))))[0])

    def rest(self) -> bytes:
        """Everything that still comes until the server ends the connection, however it does."""
        data = b""
        try:
            while more := self.socket.recv(65536):
                data += more
        except ConnectionResetError:
            pass
        return data

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def set_tensor(record: bytes, data: bytes, offset: int = 0, size: int | None = None) -> bytes:
    return frame(SET, record + struct.pack("<Q", offset) + data, size)


def get_tensor(record: bytes, offset: int, size: int) -> bytes:
    return frame(GET, record + struct.pack("<QQ", offset, size))


@contextmanager
def connect(server: Server, hello: bool = True, timeout: float = 20) -> Iterator[Client]:
    host, _, port = server.endpoint.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout) as sock:
        client = Client(sock)
        if hello:
            client.send(frame(HELLO))
            assert client.receive(11) == HELLO_REPLY
        yield client


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether it comes true within ten seconds; it is normally true at once."""
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def logged(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    """Whether the log says it by and by: a line about a connection comes after the connection's end."""
    return eventually(lambda: text in caplog.text)


# --------------------------------------------------------------------------------------------------------------- refusals


@dataclass
class Scene:
    """What a bad request may refer to: two live buffers, a freed one, one of another connection."""

    client: Client
    ptr: int
    base: int
    size: int
    freed: int
    foreign: int

    def tensor(self, **changes: Any) -> bytes:
        return tensor(**{"buffer": self.ptr, "data": self.base, **changes})


def pointer(command: int, remote_ptr: int) -> bytes:
    return frame(command, struct.pack("<Q", remote_ptr) + (b"\0" if command == CLEAR else b""))


def wrong_sizes() -> Iterator[tuple[str, str, Callable[[Scene], bytes]]]:
    for command, right in FIXED_SIZES.items():
        for size in {right - 1, right + 1, 0, 2**32, 2**63, 2**64 - 1} - {right, -1}:
            yield "frame.size-fixed", f"command {command} of {size} bytes", lambda s, c=command, n=size: frame(c, b"", n)
    for command, least in ((SET, 304), (COMPUTE, 12)):
        for size in (least - 1, 0):
            yield "frame.size-minimum", f"command {command} of {size} bytes", lambda s, c=command, n=size: frame(c, b"", n)
    for size in (512 * 2**20 + 1, 2**63, 2**64 - 1):
        yield "frame.size-bounded", f"graph of {size} bytes", lambda s, n=size: frame(COMPUTE, b"", n)
    for number in (17, 18, 24, 127, 255):
        yield "frame.command-known", f"command {number}", lambda s, n=number: frame(n)


def bad_devices() -> Iterator[tuple[str, str, Callable[[Scene], bytes]]]:
    more = {ALLOC: 8, ALIGNMENT: 0, MAX_SIZE: 0, DEVICE_MEMORY: 0, RECOMPUTE: 0, COMPUTE: 8, ALLOC_SIZE: 3256}
    for command, rest in more.items():
        for index in (2, 2**32 - 1):
            message = frame(command, struct.pack("<I", index) + bytes(rest))
            yield "device.index", f"command {command} on {index}", lambda s, m=message: m


def bad_pointers() -> Iterator[tuple[str, str, Callable[[Scene], bytes]]]:
    for command in (BASE, FREE, CLEAR):
        yield "buffer.known", f"command {command} null", lambda s, c=command: pointer(c, 0)
        yield "buffer.known", f"command {command} freed", lambda s, c=command: pointer(c, s.freed)
        yield "buffer.known", f"command {command} foreign", lambda s, c=command: pointer(c, s.foreign)
        yield "buffer.known", f"command {command} base", lambda s, c=command: pointer(c, s.base)


BAD_TENSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "unknown type": ("tensor.type-known", {"type": 41}),
    "dead type": ("tensor.type-known", {"type": 4}),
    "half a block": ("tensor.block-multiple", {"type": Q4_0, "ne": (16, 1, 1, 1)}),
    "past the end": ("tensor.in-buffer", {"count": 4097}),
    "wrapping sizes": ("tensor.in-buffer", {"ne": (2**32 - 1,) * 4, "nb": (2**32 - 1,) * 4}),
    "data near 2^64": ("tensor.in-buffer", {"data": 2**64 - 8}),
    "null": ("tensor.buffer-known", {"buffer": 0}),
}

DATA_COMMANDS: dict[str, Callable[[Scene, bytes], bytes]] = {
    "SET": lambda s, bad: set_tensor(bad, b""),
    "GET": lambda s, bad: get_tensor(bad, 0, 0),
    "HASH": lambda s, bad: frame(HASH, bad + bytes(16)),
    "COPY from": lambda s, bad: frame(COPY, bad + s.tensor()),
    "COPY to": lambda s, bad: frame(COPY, s.tensor() + bad),
    "INIT": lambda s, bad: frame(INIT, bad),
    "ALLOC_SIZE": lambda s, bad: frame(ALLOC_SIZE, bytes(4) + bad + bytes(2960)),
    "ALLOC_SIZE source": lambda s, bad: frame(ALLOC_SIZE, bytes(4) + tensor() + bytes(296) + bad + bytes(2368)),
}


def bad_tensors() -> Iterator[tuple[str, str, Callable[[Scene], bytes]]]:
    for command, message in DATA_COMMANDS.items():
        for name, (rule, changes) in BAD_TENSORS.items():
            if rule != "tensor.buffer-known" or command in ("SET", "GET", "HASH", "COPY from", "COPY to"):
                yield rule, f"{command} {name}", lambda s, m=message, c=changes: m(s, s.tensor(**c))
    yield "tensor.buffer-known", "SET foreign", lambda s: set_tensor(s.tensor(buffer=s.foreign), b"x")


def bad_ranges() -> Iterator[tuple[str, str, Callable[[Scene], bytes]]]:
    for offset, size, rule in (
        (0, 17, "data.in-tensor"),
        (16, 1, "data.in-tensor"),
        (17, 0, "data.in-tensor"),
        (0, 2**40, "data.in-tensor"),
        (2**64 - 16, 16, "data.offset-wrap"),
    ):
        yield rule, f"GET {offset} {size}", lambda s, o=offset, n=size: get_tensor(s.tensor(), o, n)
        yield rule, f"SET {offset} {size}", lambda s, o=offset, n=size: set_tensor(s.tensor(), b"", o, 304 + n)
    yield "data.in-tensor", "SET of 2^64-1", lambda s: set_tensor(s.tensor(), b"", 0, 2**64 - 1)
    yield "data.in-tensor", "GET of 2^64-1", lambda s: get_tensor(s.tensor(), 0, 2**64 - 1)
    yield "data.in-tensor", "HASH", lambda s: frame(HASH, s.tensor() + struct.pack("<QQ", 17, 0))
    yield "data.copy-fits", "COPY", lambda s: frame(COPY, s.tensor(count=17) + s.tensor(data=s.base + 64))


def bad_graphs() -> Iterator[tuple[str, str, Callable[[Scene], bytes]]]:
    yield "graph.size-exact", "a byte too many", lambda s: frame(COMPUTE, bytes(13))
    yield "graph.size-exact", "more nodes than bytes", lambda s: frame(COMPUTE, struct.pack("<II", 0, 2**32 - 1) + bytes(100))
    yield "graph.size-exact", "more tensors than bytes", lambda s: frame(COMPUTE, struct.pack("<III", 0, 0, 2**32 - 1) + tensor())
    yield "graph.node-known", "node 0", lambda s: graph([0], [])
    yield "graph.node-known", "unknown node", lambda s: graph([5], [s.tensor(id=6)])
    yield "graph.source-known", "unknown source", lambda s: graph([5], [s.tensor(id=5, op=OP_ADD, src=(6, 7))])
    yield "graph.tensor-id", "tensor 0", lambda s: graph([], [tensor(id=0)])
    yield "graph.null-data", "no buffer", lambda s: graph([5], [s.tensor(id=5, buffer=0)])
    yield "graph.op-custom", "custom", lambda s: graph([5], [s.tensor(id=5, op=OP_CUSTOM)])
    yield "graph.op-known", "op 96", lambda s: graph([5], [s.tensor(id=5, op=96)])
    yield "graph.recompute-stored", "no graph", lambda s: frame(RECOMPUTE, bytes(4))
    yield (
        "graph.recompute-stored",
        "freed",
        lambda s: graph([5], [s.tensor(id=5)]) + pointer(FREE, s.ptr) + frame(RECOMPUTE, bytes(4)),
    )
    yield "session.hello-once", "HELLO", lambda s: frame(HELLO)


REFUSALS = [*wrong_sizes(), *bad_devices(), *bad_pointers(), *bad_tensors(), *bad_ranges(), *bad_graphs()]


def test_no_row_has_vanished() -> None:
    assert len(REFUSALS) == 201


@pytest.fixture(scope="module")
def stage() -> Iterator[Server]:
    """One server for all refusals: that it still serves the last of them is part of the test."""
    host = Host([Device(name, "for tests", Oracle(HostMemory(MEMORY))) for name in ("one", "two")])
    with Server(host) as server:
        yield server


@pytest.fixture(scope="module")
def bystander(stage: Server) -> Iterator[tuple[Client, int, int]]:
    """A connection that must not notice any of it, with its buffer."""
    with connect(stage) as client:
        ptr, base = client.alloc(4096)
        client.send(set_tensor(tensor(ptr, base, 4096), b"\x5a" * 4096))
        yield client, ptr, base


@pytest.mark.parametrize(("rule", "make"), [(r, m) for r, _, m in REFUSALS], ids=[f"{r}-{name}" for r, name, _ in REFUSALS])
def test_refusal(
    stage: Server, bystander: tuple[Client, int, int], caplog: pytest.LogCaptureFixture, rule: str, make: Callable[[Scene], bytes]
) -> None:
    other, foreign, base = bystander
    before = other.free_memory()
    with connect(stage) as client:
        freed, _ = client.alloc(4096)
        assert client.ask(pointer(FREE, freed)) == b""
        ptr, at = client.alloc(4096)
        client.alloc(2**20, device=1)
        message = make(Scene(client, ptr, at, 4096, freed, foreign))
        client.send(message)
        allowed = bytes(8) if pointer(FREE, ptr) in message and rule == "graph.recompute-stored" else b""
        assert client.rest() == allowed  # no byte of a reply to the bad request
    assert (other.free_memory(0), other.free_memory(1)) == (before, MEMORY)
    assert other.ask(get_tensor(tensor(foreign, base, 4096), 0, 4096)) == b"\x5a" * 4096
    assert logged(caplog, "refused")
    records = [record for record in caplog.records if getattr(record, "event", "") == "refused"]
    assert [record.rule for record in records] == [rule]
    assert records[0].field in records[0].getMessage()
    with connect(stage):
        pass


@pytest.mark.parametrize("first", [0, 8, 13, 15, 16, 71, 255])
def test_hello_comes_first(server: Server, caplog: pytest.LogCaptureFixture, first: int) -> None:
    with connect(server, hello=False) as client:
        client.send(bytes([first]))  # its first byte suffices
        assert client.rest() == b""
    assert logged(caplog, "session.hello-first")


def test_hello_of_a_newer_client_is_refused(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with connect(server, hello=False) as client:
        client.send(frame(HELLO, bytes(24)))  # 4.0.0 and later
        assert client.rest() == b""
    assert logged(caplog, "frame.size-fixed: Hello size is 24")


def test_claimed_sizes_reserve_nothing(server: Server) -> None:
    """Each of these would take a server that believes it hundreds of megabytes, or its life (SEC-23)."""
    claims = [
        frame(SET, b"", 2**63)[:-1],
        frame(SET, b"", 2**30),
        frame(COMPUTE, b"", 512 * 2**20),
        frame(COMPUTE, struct.pack("<II", 0, 2**25), 2**28 + 12),
    ]
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in claims]
        tracemalloc.start()
        try:
            for client, claim in zip(clients, claims, strict=True):
                client.send(claim + bytes(1000))
            with connect(server):
                _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 2**21


# ----------------------------------------------------------------------------------------------------------- conversation


def adding(client: Client, device: int = 0) -> tuple[bytes, bytes, bytes, bytes]:
    """A buffer with three F32 vectors of 4: the records of a and b, that of a + b, and the graph that computes it."""
    ptr, base = client.alloc(4096, device)

    def vector(id: int, **more: Any) -> bytes:
        return tensor(ptr, base + 64 * id, id=id, type=F32, ne=(4, 1, 1, 1), nb=(4, 16, 16, 16), **more)

    a, b, c = vector(1), vector(2), vector(3, op=OP_ADD, src=(1, 2))
    return a, b, c, graph([3], [a, b, c], device)


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


@pytest.mark.parametrize("device", [0, 1])
def test_compute_and_compute_again(server: Server, device: int) -> None:
    with connect(server) as client:
        a, b, c, compute = adding(client, device)
        client.send(set_tensor(a, floats(1, 2, 3, 4)) + set_tensor(b, floats(10, 20, 30, 40)) + compute)
        assert client.ask(get_tensor(c, 0, 16)) == floats(11, 22, 33, 44)
        client.send(set_tensor(a, floats(5, 5, 5, 5)) + frame(RECOMPUTE, struct.pack("<I", device)))
        assert client.ask(get_tensor(c, 0, 16)) == floats(15, 25, 35, 45)


def conversation(client: Client) -> tuple[bytes, bytes]:
    """A dozen requests to send, and the bytes that must come back."""
    a, b, c, compute = adding(client)
    steps = [
        (frame(ALIGNMENT, bytes(4)), struct.pack("<QQ", 8, 32)),
        (set_tensor(a, floats(1, 2, 3, 4)), b""),
        (set_tensor(b, floats(1, 1, 1, 1)), b""),
        (compute, b""),
        (get_tensor(c, 0, 16), struct.pack("<Q", 16) + floats(2, 3, 4, 5)),
        (set_tensor(b, floats(7), offset=8), b""),
        (frame(RECOMPUTE, bytes(4)), b""),
        (get_tensor(c, 4, 8), struct.pack("<Q", 8) + floats(3, 10)),
        (frame(COPY, c + a), struct.pack("<QB", 1, 1)),
        (get_tensor(a, 0, 16), struct.pack("<Q", 16) + floats(2, 3, 10, 5)),
        (frame(INIT, a), bytes(8)),
        (get_tensor(a, 16, 0), bytes(8)),
        (graph([], []), b""),
        (frame(COUNT), struct.pack("<QI", 4, 2)),
    ]
    return b"".join(request for request, _ in steps), b"".join(reply for _, reply in steps)


@pytest.mark.parametrize("cut", [1, 2, 7, 100, 305, 1_000_000])
def test_messages_mean_the_same_however_they_are_cut(server: Server, cut: int) -> None:
    with connect(server) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        requests, replies = conversation(client)
        for start in range(0, len(requests), cut):
            client.send(requests[start : start + cut])
        assert client.receive(len(replies)) == replies


def test_hello_byte_by_byte(server: Server) -> None:
    with connect(server, hello=False) as client:
        for byte in frame(HELLO):
            client.send(bytes([byte]))
            time.sleep(0.001)
        assert client.receive(11) == HELLO_REPLY


def test_replies_to_what_came_before_a_half_close(server: Server) -> None:
    with connect(server) as client:
        requests, replies = conversation(client)
        client.send(requests)
        client.socket.shutdown(socket.SHUT_WR)
        assert client.rest() == replies


def test_good_requests_before_a_bad_one_are_answered(server: Server) -> None:
    with connect(server) as client:
        client.send(frame(ALIGNMENT, bytes(4)) + frame(COUNT) + frame(99))
        assert client.rest() == struct.pack("<QQQI", 8, 32, 4, 2)


def test_clients_don_t_wait_for_one_another(server: Server) -> None:
    with connect(server, hello=False), connect(server) as quiet, connect(server) as halfway:
        halfway.send(frame(SET, b"", 2**20 + 304)[:5])
        ptr, base = quiet.alloc(100)
        with connect(server) as client:
            requests, replies = conversation(client)
            client.send(requests)
            assert client.receive(len(replies)) == replies
        assert quiet.ask(get_tensor(tensor(ptr, base), 0, 4)) == bytes(4)


def test_many_clients_at_once_keep_their_own_data(server: Server) -> None:
    wrong: list[object] = []

    def work(seed: int) -> None:
        try:
            with connect(server) as client:
                a, b, c, compute = adding(client, seed % 2)
                client.send(set_tensor(b, floats(seed, seed, seed, seed)))
                for step in range(25):
                    client.send(set_tensor(a, floats(step, 0, 0, 1)) + compute)
                    if client.ask(get_tensor(c, 0, 16)) != floats(seed + step, seed, seed, seed + 1):
                        wrong.append((seed, step))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert eventually(lambda: server.connections == 0)
    assert [device.memory.free for device in server.host.devices] == [MEMORY, MEMORY]


# ------------------------------------------------------------------------------------------------------------------- data


def untouched(size: int) -> npt.NDArray[np.uint8]:
    """Zero bytes whose pages are there when they are written: for tests that need the addresses rather than the memory."""
    return np.zeros(size, np.uint8)


def test_a_buffer_beyond_4_gib(caplog: pytest.LogCaptureFixture) -> None:
    """Its pages are not touched but at the far end, so it costs next to nothing."""
    size = 2**32 + 2**20
    host = Host([Device("large", "for tests", Oracle(HostMemory(size, untouched)))])
    with Server(host) as server, connect(server) as client:
        ptr, base = client.alloc(size)
        # one dimension holds at most 2^32 - 1: two rows, each a little over 2 GiB
        row = size // 2
        whole = tensor(ptr, base, ne=(row, 2, 1, 1), nb=(1, row, size - 2**32, size - 2**32))
        client.send(set_tensor(whole, b"the far end", offset=size - 11))
        assert client.ask(get_tensor(whole, size - 12, 12)) == b"\0the far end"
        assert client.ask(get_tensor(tensor(ptr, base + size - 16), 5, 11)) == b"the far end"
        assert client.ask(get_tensor(whole, 2**31 - 4, 8)) == bytes(8)


def test_data_move_in_several_calls(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done beyond 1 GiB, at a thousandth of the size."""
    monkeypatch.setattr("ggml_rpc_ref.net.channel.MOST", 2**20)
    size = 5 * 2**20 + 12345
    data = np.random.default_rng(5).integers(0, 256, size, np.uint8).tobytes()
    with connect(server) as client:
        ptr, base = client.alloc(size)
        client.send(set_tensor(tensor(ptr, base, size), data))
        assert client.ask(get_tensor(tensor(ptr, base, size), 0, size)) == data


def test_a_large_download_arrives_whole(server: Server) -> None:
    size = 32 * 2**20
    data = np.random.default_rng(6).integers(0, 256, size, np.uint8).tobytes()
    with connect(server) as client:
        ptr, base = client.alloc(size)
        client.send(set_tensor(tensor(ptr, base, size), data))
        request = get_tensor(tensor(ptr, base, size), 0, size)
        client.send(request + request + frame(ALIGNMENT, bytes(4)))
        assert client.reply() == data
        assert client.reply() == data
        assert client.reply() == struct.pack("<Q", 32)


DATA = b"tensor data that is kept" * 100


@pytest.fixture
def caching(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(tensor_cache, "THRESHOLD", 1000)
    with Server(replace(host, tensors=TensorCache(tmp_path))) as server:
        yield server


@pytest.mark.parametrize("damage", ["", "corrupt", "truncate", "lengthen", "remove"])
def test_uploads_are_found_again_unless_damaged(caching: Server, tmp_path: Path, damage: str) -> None:
    digest = definition(DATA)
    with connect(caching) as client:
        ptr, base = client.alloc(4096)
        client.send(set_tensor(tensor(ptr, base, len(DATA)), DATA))
        client.ask(frame(ALIGNMENT, bytes(4)))
    path = tmp_path / f"{digest:016x}"
    match damage:
        case "corrupt":
            path.write_bytes(b"T" + DATA[1:])
        case "truncate":
            path.write_bytes(DATA[:-1])
        case "lengthen":
            path.write_bytes(DATA + bytes(10_000))
        case "remove":
            path.unlink()
    with connect(caching) as client:
        ptr, base = client.alloc(4096)
        record = tensor(ptr, base, 4000)
        assert client.ask(frame(HASH, record + struct.pack("<QQ", 96, digest))) == (b"\0" if damage else b"\1")
        wanted = bytes(4000) if damage else bytes(96) + DATA + bytes(4000 - 96 - len(DATA))
        assert client.ask(get_tensor(record, 0, 4000)) == wanted


def from_address(server: Server, address: str, stack: ExitStack) -> Client:
    """A connection from another address of this machine."""
    try:
        where = ("127.0.0.1", int(server.endpoint.rpartition(":")[2]))
        client = Client(stack.enter_context(socket.create_connection(where, 20, (address, 0))))
    except OSError:
        pytest.skip("this machine has one loopback address")
    client.send(frame(HELLO))
    assert client.receive(11) == HELLO_REPLY
    return client


@pytest.mark.parametrize("per_client", [False, True])
def test_an_upload_is_found_by_other_clients_unless_they_are_kept_apart(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_client: bool
) -> None:
    monkeypatch.setattr(tensor_cache, "THRESHOLD", 1000)
    tensors = TensorCache(tmp_path, per_client=per_client)
    with Server(replace(host, tensors=tensors)) as server, ExitStack() as stack:
        clients = [from_address(server, address, stack) for address in ("127.0.0.1", "127.0.0.2", "127.0.0.1")]
        records = [tensor(*client.alloc(4096), len(DATA)) for client in clients]
        clients[0].send(set_tensor(records[0], DATA))
        assert is_served(clients[0])
        asked = [
            client.ask(frame(HASH, r + struct.pack("<QQ", 0, definition(DATA)))) for client, r in zip(clients, records, strict=True)
        ]
        assert asked == [b"\1", b"\0" if per_client else b"\1", b"\1"]


# ------------------------------------------------------------------------------------------------------- peers that misbehave


def test_a_hundred_resets(server: Server) -> None:
    for _ in range(100):
        with connect(server, hello=False) as client:
            client.reset()
    with connect(server) as client:
        assert client.free_memory() == MEMORY
    assert eventually(lambda: server.connections == 0)


@pytest.mark.parametrize("count", range(9))
def test_half_a_hello(server: Server, count: int) -> None:
    with connect(server, hello=False) as client:
        client.send(frame(HELLO)[:count])
    with connect(server):
        pass
    assert eventually(lambda: server.connections == 0)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_peer_that_vanishes_in_an_upload_leaves_nothing(server: Server, how: str) -> None:
    with connect(server) as client:
        ptr, base = client.alloc(2**20)
        client.send(set_tensor(tensor(ptr, base, 2**20), bytes(1000), size=304 + 2**20))
        if how == "reset":
            client.reset()
    assert eventually(lambda: server.host.devices[0].memory.free == MEMORY)


def test_a_peer_that_asks_for_much_and_vanishes(server: Server) -> None:
    """Writing to a closed socket must not end the process with SIGPIPE (SEC-38)."""
    for how in ("close", "reset"):
        with connect(server) as client:
            ptr, base = client.alloc(2**23)
            client.send(get_tensor(tensor(ptr, base, 2**23), 0, 2**23) * 4)
            assert client.receive(8) == struct.pack("<Q", 2**23)
            if how == "reset":
                client.reset()
        assert eventually(lambda: server.connections == 0)
    with connect(server) as client:
        assert client.free_memory() == MEMORY


IMPATIENT = Limits(hello=0.3, stall=0.3, idle=0.5)


@pytest.fixture
def impatient(host: Host, caplog: pytest.LogCaptureFixture) -> Iterator[Server]:
    caplog.set_level(logging.INFO, "ggml_rpc_ref")
    with Server(host, limits=IMPATIENT) as server:
        yield server


@pytest.mark.parametrize("sent", [b"", b"\x0e\0\0"], ids=["nothing", "half"])
def test_a_peer_that_never_says_hello_is_dropped(impatient: Server, caplog: pytest.LogCaptureFixture, sent: bytes) -> None:
    with connect(impatient, hello=False) as client:
        client.send(sent)
        assert client.rest() == b""
    assert logged(caplog, "no HELLO came within 0.3 s")


def test_a_hello_that_drips_is_dropped(impatient: Server, caplog: pytest.LogCaptureFixture) -> None:
    with connect(impatient, hello=False) as client:
        for byte in frame(HELLO):
            time.sleep(0.06)  # nine of them take longer than HELLO may
            with suppress(OSError):
                client.send(bytes([byte]))
        assert client.rest() == b""
    assert logged(caplog, "no HELLO came within 0.3 s")


def test_a_message_that_stops_is_dropped(impatient: Server, caplog: pytest.LogCaptureFixture) -> None:
    with connect(impatient) as client:
        ptr, base = client.alloc(2**20)
        client.send(set_tensor(tensor(ptr, base, 2**20), bytes(1000), size=304 + 2**20))
        assert client.rest() == b""
    assert logged(caplog, "nothing came for 0.3 s in the middle of a message")
    assert impatient.host.devices[0].memory.free == MEMORY


def test_a_slow_message_that_goes_on_is_served(host: Host) -> None:
    """Two windows' time, and in each more bytes than it takes."""
    with Server(host, limits=Limits(stall=0.4, slowest=10)) as server, connect(server) as client:
        ptr, base = client.alloc(16)
        message = set_tensor(tensor(ptr, base), b"slow but alive!!")
        for start in range(0, len(message), 40):
            client.send(message[start : start + 40])
            time.sleep(0.1)
        assert client.ask(get_tensor(tensor(ptr, base), 0, 16)) == b"slow but alive!!"


def dripping(size: int) -> Iterator[tuple[str, Callable[[int, int], bytes]]]:
    """Messages of which never enough comes to be answered or refused: a head, a fixed part, data, a graph."""
    yield "head", lambda ptr, base: frame(ALIGNMENT)[:1]
    yield "fixed part", lambda ptr, base: set_tensor(tensor(ptr, base), b"")[:20]
    yield "data", lambda ptr, base: set_tensor(tensor(ptr, base, size), b"", size=304 + size)
    yield "graph", lambda ptr, base: frame(COMPUTE, struct.pack("<II", 0, 2**20), 2**23 + 12)


DRIPPING = list(dripping(2**16))


@pytest.mark.parametrize("begin", [begin for _, begin in DRIPPING], ids=[name for name, _ in DRIPPING])
def test_a_message_that_drips_is_dropped(
    impatient: Server, caplog: pytest.LogCaptureFixture, begin: Callable[[int, int], bytes]
) -> None:
    """A byte now and then kept a connection for ever, when only silence was limited."""
    with connect(impatient) as client:
        ptr, base = client.alloc(2**16)
        client.send(begin(ptr, base))
        over = threading.Event()

        def drip() -> None:
            while not over.wait(0.06):
                with suppress(OSError):
                    client.send(b"\0")

        dripper = threading.Thread(target=drip)
        dripper.start()
        try:
            assert client.rest() == b""
        finally:
            over.set()
            dripper.join()
    assert logged(caplog, "bytes came in 0.3 s in the middle of a message")
    assert eventually(lambda: impatient.host.devices[0].memory.free == MEMORY)


def test_an_idle_peer_is_dropped_if_so_wished(impatient: Server, caplog: pytest.LogCaptureFixture) -> None:
    with connect(impatient) as client:
        assert client.rest() == b""
    assert logged(caplog, "idle for 0.5 s")


def test_an_idle_peer_is_kept_otherwise(host: Host) -> None:
    with Server(host, limits=Limits(hello=0.1, stall=0.1)) as server, connect(server) as client:
        time.sleep(0.5)
        assert client.free_memory() == MEMORY


def test_a_peer_that_does_not_read_is_dropped(impatient: Server, caplog: pytest.LogCaptureFixture) -> None:
    size = 2**25
    with connect(impatient) as client:
        ptr, base = client.alloc(size)
        client.send(get_tensor(tensor(ptr, base, size), 0, size))
        assert eventually(lambda: impatient.connections == 0)
    assert logged(caplog, "nothing was read for 0.3 s in the middle of a reply")
    assert impatient.host.devices[0].memory.free == MEMORY


def test_a_peer_that_reads_in_drips_is_dropped(impatient: Server, caplog: pytest.LogCaptureFixture) -> None:
    size = 2**25
    with connect(impatient) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ptr, base = client.alloc(size)
        client.send(get_tensor(tensor(ptr, base, size), 0, size))
        end = time.monotonic() + 20
        while impatient.connections and time.monotonic() < end:
            with suppress(OSError):
                client.receive(64)
            time.sleep(0.01)
        assert impatient.connections == 0
    assert logged(caplog, "in the middle of a reply")


def test_a_peer_that_asks_and_never_reads_is_dropped(impatient: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Replies that are each sent at once fill the socket's buffers as well."""
    with connect(impatient) as client:
        ptr, base = client.alloc(2**14)
        client.socket.settimeout(0.1)
        end = time.monotonic() + 20
        while impatient.connections and time.monotonic() < end:
            with suppress(OSError):
                client.send(get_tensor(tensor(ptr, base, 2**14), 0, 2**14) * 100)
        assert impatient.connections == 0
    assert logged(caplog, "in the middle of a")


def test_the_kernel_probes_an_idle_peer_within_minutes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as sock:
        channel.Channel(sock).keep_alive()
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for name, value in channel.PROBES.items():
            if hasattr(socket, name):
                assert sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value
    assert channel.KEPT <= 180


# --------------------------------------------------------------------------------------------------------- a server that is full


@pytest.fixture
def small(host: Host, caplog: pytest.LogCaptureFixture) -> Iterator[Server]:
    """A server with two places, whose idle connections without buffers may go at once."""
    caplog.set_level(logging.INFO, "ggml_rpc_ref")
    with Server(host, limits=Limits(connections=2, spare_empty=0.0)) as server:
        yield server


def is_served(client: Client) -> bool:
    """Whether it gets an answer, to a request that every message before it must have been answered for."""
    try:
        return client.free_memory() <= MEMORY
    except (OSError, struct.error):
        return False


def all_idle(server: Server) -> bool:
    """Whether every connection waits for its next message by and by: a reply may be here before its thread is back at waiting."""
    return eventually(lambda: all(served.idle(time.monotonic()) > 0 for served in server.conversations()))


def test_who_sees_the_end_of_a_connection_may_take_its_place(host: Host) -> None:
    """However long the log of its end takes: a client whose newest HELLO is refused tries an older one at once."""

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if getattr(record, "event", "") == "refused":
                time.sleep(0.5)

    log, slow = logging.getLogger("ggml_rpc_ref.server"), Slow()
    log.addHandler(slow)
    try:
        with Server(host, limits=Limits(connections=1)) as server:
            with connect(server, hello=False) as first:
                first.send(bytes([0xFF]) + bytes(8))
                assert first.rest() == b""
            with connect(server) as second:
                assert is_served(second)
    finally:
        log.removeHandler(slow)


def test_the_idlest_connection_goes_when_a_full_server_is_asked(small: Server, caplog: pytest.LogCaptureFixture) -> None:
    with connect(small) as one, connect(small) as two:
        assert is_served(one)
        assert all_idle(small)
        assert is_served(two)
        assert all_idle(small)
        with connect(small) as three:
            assert is_served(three)
            assert one.rest() == b""
            assert is_served(two)
    assert logged(caplog, "and the server was full")


def test_a_connection_with_buffers_may_think_for_long(small: Server, caplog: pytest.LogCaptureFixture) -> None:
    """A stock client is silent between two tokens; where none is spare the new one is turned away."""
    with connect(small) as one, connect(small) as two:
        one.alloc(16)
        assert all_idle(small)
        with connect(small) as three:
            assert two.rest() == b""
            assert is_served(one)
            three.alloc(16)
            with connect(small, hello=False) as four:
                assert four.rest() == b""
            assert is_served(one)
            assert is_served(three)
    assert logged(caplog, "2 connections are open")


def test_a_connection_with_buffers_goes_at_last(host: Host) -> None:
    with Server(host, limits=Limits(connections=1, spare_full=0.2)) as server, connect(server) as one:
        one.alloc(16)
        with connect(server, hello=False) as two:
            assert two.rest() == b""
        time.sleep(0.3)
        with connect(server) as three:
            assert one.rest() == b""
            assert is_served(three)


def test_of_two_addresses_the_one_with_more_connections_gives_way(host: Host) -> None:
    with Server(host, limits=Limits(connections=3, spare_empty=0.0)) as server, ExitStack() as stack:
        alone = from_address(server, "127.0.0.2", stack)
        crowd = []
        for _ in range(6):
            assert all_idle(server)
            crowd.append(stack.enter_context(connect(server)))
        assert is_served(alone)
        assert [is_served(client) for client in crowd] == [False] * 4 + [True] * 2


def test_an_address_has_so_many_places(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """However busy they all are: connections that never rest would keep everybody else out."""
    caplog.set_level(logging.INFO, "ggml_rpc_ref")
    limits = Limits(connections=5, of_one_address=2, spare_empty=0.0, spare_full=3600.0)
    with Server(host, limits=limits) as server, ExitStack() as stack:
        busy = [stack.enter_context(connect(server)) for _ in range(2)]
        for client in busy:
            client.alloc(16)
        assert stack.enter_context(connect(server, hello=False)).rest() == b""
        assert logged(caplog, "2 connections of its address are open")
        other = from_address(server, "127.0.0.2", stack)
        assert all(map(is_served, (*busy, other)))
        assert all_idle(server)  # before the next one comes: the one idle longest is the one that goes
        idle = from_address(server, "127.0.0.2", stack)
        assert is_served(idle)
        assert all_idle(server)
        newest = from_address(server, "127.0.0.2", stack)
        assert is_served(newest)
        assert [is_served(client) for client in (*busy, other, idle)] == [True, True, False, True]
    assert logged(caplog, "and its address had no place left")


@pytest.mark.parametrize(("address", "most"), [
    ("10.0.0.1", 4), ("[::ffff:10.0.0.1]", 4), ("2001:db8::1", 4), ("fe80::1%eth0", 4), ("127.0.0.1", 7), ("[::1]", 7),
    ("::ffff:127.0.0.1", 7),
])  # fmt: skip
def test_an_address_has_half_of_all_places_unless_it_is_this_machines(address: str, most: int) -> None:
    assert Limits(connections=7).most_of(origin(address)) == most
    assert Limits(connections=7, of_one_address=2).most_of(origin(address)) == 2
    assert Limits(connections=1).most_of(origin(address)) == 1


@pytest.mark.parametrize(("one", "other", "same"), [
    ("2001:db8::1", "[2001:db8::ffff:0:0:2]", True),
    ("2001:db8::1", "2001:db8:0:1::1", False), ("10.0.0.1", "::ffff:10.0.0.1", True),
    ("10.0.0.1", "10.0.0.2", False),
])  # fmt: skip
def test_a_host_may_choose_among_ipv6_addresses(one: str, other: str, same: bool) -> None:
    assert (origin(one) == origin(other)) is same


def test_a_connection_that_computes_is_not_idle() -> None:
    backend = Slow(HostMemory(MEMORY))
    limits = Limits(connections=1, spare_empty=0.0, spare_full=0.0)
    with Server(Host([Device("slow", "for tests", backend)]), limits=limits) as server, connect(server) as client:
        client.send(long_graph(client)[0])
        assert backend.begun.wait(20)
        with connect(server, hello=False) as other:
            assert other.rest() == b""
        assert server.connections == 1


# -------------------------------------------------------------------------------------------- memory that belongs to no device


@pytest.mark.parametrize("size", [0, 1])
def test_buffers_are_counted(host: Host, size: int) -> None:
    """A handle costs memory beside its bytes; there was no end to those of no bytes."""
    with Server(replace(host, max_buffers=3)) as server, connect(server) as client, connect(server) as other:
        asked = frame(ALLOC, struct.pack("<IQ", 0, size))
        handles = [struct.unpack("<QQ", client.ask(asked)) for _ in range(5)]
        assert [handle != 0 for handle, _ in handles] == [True] * 3 + [False] * 2
        assert handles[3] == (0, 0)
        assert client.ask(pointer(FREE, handles[0][0])) == b""
        assert struct.unpack("<QQ", client.ask(asked))[0] != 0
        assert struct.unpack("<QQ", other.ask(asked))[0] != 0


def empty_graph(count: int, device: int = 0) -> bytes:
    """A graph of tensors that nothing computes."""
    return graph([], [tensor(id=id + 1) for id in range(count)], device)


def test_graphs_that_arrive_are_counted_as_they_come(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing for the claim of 100 MiB; what has come is counted, and goes with its connection."""
    budget = Budget(8 * 2**20)
    with Server(replace(host, graph_memory=budget)) as server, connect(server) as other:
        with connect(server) as client:
            client.send(frame(COMPUTE, struct.pack("<II", 0, 13 * 2**20), 104 * 2**20 + 12) + bytes(2**17))
            assert eventually(lambda: ARRIVING * 2**17 <= budget.used < (ARRIVING + 1) * 2**17)
            with suppress(OSError):
                client.send(bytes(2**22))
            assert client.rest() == b""
        assert logged(caplog, "frame.size-bounded")
        assert eventually(lambda: budget.used == 0)
        other.send(empty_graph(100))
        assert is_served(other)


def test_plans_that_are_kept_are_counted(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """Each connection may keep a plan for each device, as long as all together stay within the budget."""
    size = len(empty_graph(100)) - 9 - 12
    budget = Budget(2 * (KEPT + ARRIVING) * size)
    with Server(replace(host, graph_memory=budget)) as server, connect(server) as one, connect(server) as two:
        for client in (one, two):
            client.send(empty_graph(100))
            assert is_served(client)
        one.send(empty_graph(100))  # takes the place of the first
        assert is_served(one)
        assert budget.used == 2 * KEPT * size
        one.send(empty_graph(100, device=1))
        assert is_served(one)
        assert budget.used == 3 * KEPT * size
        with connect(server) as three:
            three.send(empty_graph(140))
            assert three.rest() == b""
        assert logged(caplog, "frame.size-bounded")
        ptr, base = two.alloc(16)
        two.send(graph([], [tensor(ptr, base)]))  # small, in place of the one before
        two.send(pointer(FREE, ptr))
        assert two.reply() == b""
        assert budget.used == 2 * KEPT * size  # a plan that a freed buffer drops is not counted any more
    assert eventually(lambda: budget.used == 0)


def costly_graph(ptr: int, base: int, count: int) -> bytes:
    """A graph as dear to its server as we could make one: every layout another, sources after their users, names of no text."""
    tensors = []
    for id in range(1, count + 1):
        src = (min(id + 1, count + 10), min(id + 8, count + 10))
        record = tensor(ptr, base + 64, id=id, type=F32, ne=(4, 1, 1, 1), nb=(4, 16, 16 + 4 * id, 16 + 8 * id), op=OP_ADD, src=src)
        tensors.append(record[:228] + b"\xff" * 64 + record[292:])
    tensors += [tensor(ptr, base, id=count + 1 + more, type=F32, ne=(4, 1, 1, 1), nb=(4, 16, 16, 16)) for more in range(10)]
    return graph(list(range(1, count + 1)), tensors)


def test_a_graph_costs_no_more_than_is_counted(host: Host) -> None:
    with Server(host) as server, connect(server) as client:
        message = costly_graph(*client.alloc(4096), 2000)
        gc.collect()
        tracemalloc.start()
        try:
            client.send(message)
            assert is_served(client)
            kept, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert 0.5 * ARRIVING < peak / len(message) < ARRIVING
    assert 0.5 * KEPT < kept / len(message) < KEPT


# ------------------------------------------------------------------------------------------------------- our own misfortunes


class Faulty(Server):
    """A server with a defect in one handler."""

    class _Session(Session):
        @staticmethod
        def _fail(session: Session, request: object) -> object:
            raise KeyError("a defect")

        handlers = Session.handlers | {GetAlignment: _fail}

    session_type = _Session


def test_a_defect_of_ours_costs_one_connection(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ggml_rpc_ref")
    with Faulty(host) as server, connect(server) as other:
        with connect(server) as client:
            client.alloc(4096)
            client.send(frame(ALIGNMENT, bytes(4)))
            assert client.rest() == b""
        assert other.free_memory() == MEMORY
    assert logged(caplog, "KeyError: 'a defect'")
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is None


def test_a_socket_that_can_t_be_set_up_costs_one_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = socket.socket.setsockopt

    def fail(self: socket.socket, *args: Any) -> None:
        if args[:2] == (socket.SOL_SOCKET, socket.SO_RCVTIMEO):
            raise OSError(errno.EINVAL, "Invalid argument")
        genuine(self, *args)

    with monkeypatch.context() as patch, connect(server, hello=False) as client:
        patch.setattr(socket.socket, "setsockopt", fail)
        with connect(server, hello=False) as client:
            assert client.rest() == b""
    with connect(server):
        pass


def test_accept_without_descriptors_is_survived(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    genuine, failures = socket.socket.accept, [OSError(errno.EMFILE, "Too many open files"), BlockingIOError()]

    def fail(self: socket.socket) -> Any:
        if failures:
            raise failures.pop()
        return genuine(self)

    monkeypatch.setattr(socket.socket, "accept", fail)
    with connect(server):
        pass
    assert not failures
    assert "Too many open files" in caplog.text
    assert caplog.text.count("could not be accepted") == 1


def test_where_descriptors_run_out_before_places_an_idle_connection_gives_way_and_the_log_says_so_once(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With `ulimit -n 64` a peer that held 50 connections kept everybody out for as long as it liked, for ten lines a second."""
    caplog.set_level(logging.INFO, "ggml_rpc_ref")
    genuine, tries = socket.socket.accept, list[int]()

    with Server(host, limits=Limits(connections=100, spare_empty=0.0)) as server, connect(server) as first:
        assert all_idle(server)

        def accept(self: socket.socket) -> Any:
            tries.append(len(server.conversations()))
            if tries[-1] or len(tries) < 4:
                raise OSError(errno.EMFILE, "Too many open files")
            return genuine(self)

        monkeypatch.setattr(socket.socket, "accept", accept)
        with connect(server) as second:
            assert is_served(second)
            assert first.rest() == b""
    assert logged(caplog, "no descriptor was left for another connection")
    assert caplog.text.count("could not be accepted") == 1
    assert len(tries) >= 4


def test_no_more_threads_costs_one_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with connect(server, hello=False) as client:
            assert client.rest() == b""
    with connect(server):
        assert server.connections == 1


# ------------------------------------------------------------------------------------------------------------ who may come in


NETWORKS = [(["127.0.0.0/8"], True), (["10.0.0.0/8", "127.0.0.1/32"], True), (["10.0.0.0/8", "::1/128"], False)]


@pytest.mark.parametrize(("networks", "welcome"), NETWORKS)
def test_allowed_networks(host: Host, caplog: pytest.LogCaptureFixture, networks: list[str], welcome: bool) -> None:
    with Server(host, allow=[ip_network(text) for text in networks]) as server, connect(server, hello=False) as client:
        if welcome:
            client.send(frame(HELLO))
            assert client.receive(11) == HELLO_REPLY
        else:
            assert client.rest() == b""
            assert logged(caplog, "its address is not allowed")


ADDRESSES = [
    ("127.0.0.1", "127.0.0.0/8", True),
    ("::ffff:127.0.0.1", "127.0.0.0/8", True),
    ("::ffff:10.0.0.1", "127.0.0.0/8", False),
    ("fe80::1%eth0", "fe80::/10", True),
    ("::1", "127.0.0.0/8", False),
    ("::ffff:10.0.0.1", "::/0", True),
]


@pytest.mark.parametrize(("address", "network", "welcome"), ADDRESSES)
def test_addresses_as_they_come(host: Host, address: str, network: str, welcome: bool) -> None:
    with Server(host, allow=[ip_network(network)]) as server:
        assert server._is_allowed(address) is welcome


def test_one_connection_too_many(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    with Server(host, limits=Limits(connections=2)) as server:
        with connect(server) as one, connect(server) as two:
            with connect(server, hello=False) as three:
                assert three.rest() == b""
            assert logged(caplog, "2 connections are open")
            assert one.free_memory() == two.free_memory() == MEMORY
        assert eventually(lambda: server.connections == 0)
        with connect(server):
            pass


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("address", ["::1", "[::1]", "localhost", "127.0.0.1"])
def test_addresses_to_bind(host: Host, address: str) -> None:
    if ":" in address and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with Server(host, address) as server:
        assert server.is_loopback
        where = (address.strip("[]"), int(server.endpoint.rpartition(":")[2]))
        with socket.create_connection(where, 20) as sock:
            sock.sendall(frame(HELLO))
            assert Client(sock).receive(11) == HELLO_REPLY


def test_a_port_in_use_is_a_misuse(server: Server, host: Host) -> None:
    port = int(server.endpoint.rpartition(":")[2])
    with pytest.raises(Misuse, match=f"port {port} of 127.0.0.1 is in use"):
        Server(host, port=port)


@pytest.mark.parametrize("address", ["no.such.host.invalid", "192.0.2.1", "a" * 70 + ".b", "\0"])
def test_an_address_that_is_none_of_ours_is_a_misuse(host: Host, address: str) -> None:
    with pytest.raises(Misuse):
        Server(host, address)


def test_a_restart_binds_at_once(host: Host) -> None:
    with Server(host) as first, connect(first) as client:
        port = int(first.endpoint.rpartition(":")[2])
        client.alloc(4096)
        first.shutdown()  # the server ends the connection, so that its side is what stays in TIME_WAIT
        assert client.rest() == b""
        assert host.devices[0].memory.free == MEMORY
        with Server(host, port=port) as second, connect(second) as again:
            assert again.free_memory() == MEMORY


def test_shutdown_does_not_wait_for_a_computation(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ggml_rpc_ref.net.listening.PATIENCE", 0.2)
    computing, enough = threading.Event(), threading.Event()

    class Slow:
        buffers: frozenset[Any] = frozenset()

        def run(self, cancelled: object) -> None:
            computing.set()
            enough.wait(20)

        def dismantle(self) -> None:
            """Hold nothing."""

    with Server(replace(host, make_plan=lambda *_: Slow())) as server, connect(server) as client:
        client.send(graph([], []))
        assert computing.wait(20)
        start = time.monotonic()
        server.shutdown()
        assert time.monotonic() - start < 10
        enough.set()
    assert eventually(lambda: server.connections == 0)


# ------------------------------------------------------------------------------------------------------ graphs given up


class Slow(Oracle):
    """A backend each of whose steps takes 10 ms, and counts."""

    def __init__(self, memory: HostMemory) -> None:
        super().__init__(memory)
        self.steps = 0
        self.begun = threading.Event()

    def _compute(self, node: Any) -> Callable[[], None]:
        def compute() -> None:
            self.steps += 1
            self.begun.set()
            time.sleep(0.01)

        return compute


@pytest.fixture
def slow() -> Iterator[tuple[Server, Slow]]:
    backend = Slow(HostMemory(MEMORY))
    with Server(Host([Device("slow", "for tests", backend)]), limits=Limits(half_closed=0.3)) as server:
        yield server, backend


LONG = 3000
"""Steps of a graph that would take the slow backend 30 seconds."""


def long_graph(client: Client) -> tuple[bytes, bytes]:
    """Additions of the same two vectors, and the record of one result."""
    ptr, base = client.alloc(4096)

    def vector(id: int, **more: Any) -> bytes:
        return tensor(ptr, base + 16 * min(id, 3), id=id, type=F32, ne=(4, 1, 1, 1), nb=(4, 16, 16, 16), **more)

    results = [vector(id, op=OP_ADD, src=(1, 2)) for id in range(3, 3 + LONG)]
    return graph(list(range(3, 3 + LONG)), [vector(1), vector(2), *results]), results[0]


@pytest.mark.parametrize("how", ["close", "reset", "close with a request waiting"])
def test_a_graph_stops_when_its_client_leaves(slow: tuple[Server, Slow], how: str) -> None:
    server, backend = slow
    with connect(server) as client:
        compute, result = long_graph(client)
        client.send(compute)
        if how.endswith("waiting"):
            client.send(get_tensor(result, 0, 16))
        assert backend.begun.wait(20)
        if how == "reset":
            client.reset()
    start = time.monotonic()
    assert eventually(lambda: server.connections == 0)
    assert time.monotonic() - start < 5
    assert backend.steps < LONG // 2
    assert backend.memory.free == MEMORY


def test_a_half_closed_client_gets_the_reply_to_a_short_graph(slow: tuple[Server, Slow]) -> None:
    server, backend = slow
    with connect(server) as client:
        *_, c, compute = adding(client)
        client.send(compute * 5 + get_tensor(c, 0, 16))
        client.socket.shutdown(socket.SHUT_WR)
        assert client.rest() == struct.pack("<Q", 16) + bytes(16)
    assert backend.steps == 5


def test_a_client_that_waits_is_not_cancelled(slow: tuple[Server, Slow]) -> None:
    server, backend = slow
    with connect(server) as client:
        *_, c, compute = adding(client)
        client.send(compute * 60 + get_tensor(c, 0, 16))  # 0.6 s: longer than a half-closed one would be given
        assert client.reply() == bytes(16)
    assert backend.steps == 60


def test_a_graph_stops_when_the_server_does(slow: tuple[Server, Slow]) -> None:
    server, backend = slow
    with connect(server) as client:
        client.send(long_graph(client)[0])
        assert backend.begun.wait(20)
        start = time.monotonic()
        server.shutdown()
        assert time.monotonic() - start < 2
        assert server.connections == 0
        assert client.rest() == b""
    assert backend.steps < LONG // 2


def test_the_table_of_sizes_here_covers_every_fixed_request() -> None:
    assert set(FIXED_SIZES) | {SET, COMPUTE, HELLO} == set(by_number())
