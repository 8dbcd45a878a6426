"""Requests that come again and are answered in C: the same answers as from Python, and none that no longer holds.

The bytes are laid out by hand (`raw_client`), and every conversation is had twice, with again.c and without it.
"""

from __future__ import annotations

import logging
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from ggml_rpc_ref.backends.native import backend, library
from ggml_rpc_ref.net import again
from ggml_rpc_ref.server import known, stored_graphs
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.served import Limits
from ggml_rpc_ref.server.server import Server
from tests.support.raw_client import (
    ALIGNMENT,
    ALLOC_SIZE,
    BASE,
    COMPUTE,
    COUNT,
    FACTS,
    FREE,
    GET,
    INIT,
    RECOMPUTE,
    SET,
    Client,
    connected,
    floats,
    frame,
    refusals,
    tensor,
)
from tests.support.requirements import lacking

NEG = 2
"""Number of the kind of UNARY, in every version."""
TIMES = 5
"""The first two are Python's."""
GET_ROWS, MUL_MAT = 40, 29
"""Their numbers in 3.6.1."""
I32, Q8_0 = 26, 8


@pytest.fixture(params=["C", "Python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each conversation with again.c, and without."""
    if request.param == "Python":
        monkeypatch.setattr(again, "compiled", None)
    elif again.compiled is None:
        lacking("again.c was not built")
    if library.unavailable():
        lacking(f"native: {library.unavailable()}")
    return str(request.param)


@contextmanager
def served(
    version: str = "3.6.1", limits: Limits | None = None, memory: int = 2**24, device: str = "native"
) -> Iterator[tuple[Server, Client]]:
    host = make_host(device, memory=memory, proto=version, threads=1)
    with Server(host, limits=limits) as server, connected(server.endpoint, FACTS[version]) as client:
        yield server, client


def answered(server: Server) -> int:
    """How many messages C has answered."""
    (one,) = server.conversations()
    return 0 if one._known is None else one._known.answers.counts[0]


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether it comes true within ten seconds: what is counted or logged comes after what the client sees."""
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def record(ptr: int, base: int, id: int, dtype: int, ne: tuple[int, int], row: int, size: int, op: int = 0, src: Any = ()) -> bytes:
    """The 296 bytes of a matrix whose rows of `row` bytes begin with an element or block of `size` bytes."""
    nb = (size, row, row * ne[1], row * ne[1])
    head = struct.pack("<QIQ4I4I", id, dtype, ptr, *ne, 1, 1, *nb)
    return head + struct.pack("<I64xi10QQQQ64s4x", op, 16, *src, *[0] * (10 - len(src)), 0, 0, base, b"row")


# ------------------------------------------------------------------------------------------------------------ conversations


@pytest.mark.parametrize("version", FACTS)
def test_what_comes_again_is_answered_again(version: str, way: str) -> None:
    """All kinds of requests that can be known, in every version: what is computed follows the data, and each is counted."""
    with served(version) as (server, client):
        facts = client.facts
        ptr, base = client.alloc(4096)
        x = tensor(ptr, base, 4)
        y = tensor(ptr, base + 64, 4, id=2, op=facts.unary, kind=NEG, src=1)
        before = server.state()["connections"][0]
        for turn in range(1, TIMES + 1):
            client.in_step()
            assert client.ask(frame(BASE, struct.pack("<Q", ptr))) == struct.pack("<Q", base)
            client.write(x, floats(turn, 2, 3, 4))
            client.write(x, floats(turn), offset=12)
            client.compute([x, y], [2], uid=7)
            assert client.read(y, 16) == floats(-turn, -2, -3, -turn)
            client.write(x, floats(10 * turn), offset=4)
            if facts.commands > RECOMPUTE:
                client.recompute(uid=7)
                assert client.read(y, 8, 4) == floats(-10 * turn, -3)
            client.tell(frame(INIT, x), answered=facts.acknowledged)
        client.in_step()
        after = server.state()["connections"][0]
        asked = TIMES * (8 + 2 * (facts.commands > RECOMPUTE)) + 1
        assert after["messages"] - before["messages"] == asked
        assert after["graphs"] == TIMES * (1 + (facts.commands > RECOMPUTE))
        assert after["computing"] > 0
        assert (answered(server) > asked // 3) == (way == "C")


def test_bytes_are_counted_alike(way: str) -> None:
    with served() as (server, client):
        ptr, base = client.alloc(2**16)
        x = tensor(ptr, base, 2**14)
        for _ in range(TIMES):
            client.write(x, bytes(1000))
            client.read(x, 2**16)
        request, hello = 9 + 296, (9, 8 + 3)
        received = hello[0] + (9 + 12) + (9 + 8) + TIMES * (request + 8 + 1000 + request + 16)
        sent = hello[1] + (8 + 16) + (8 + 8) + TIMES * (8 + 2**16)
        (one,) = server.conversations()
        assert eventually(lambda: (one.work.received, one.work.sent) == (received, sent)), one.work


@pytest.mark.parametrize("cut", [1, 8, 9, 100, 310, 1000, 2**20])
def test_messages_mean_the_same_however_they_are_cut(cut: int, way: str) -> None:
    """Several at a time, whole and in pieces, known and not."""
    with served() as (_, client):
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ptr, base = client.alloc(4096)
        x, y = tensor(ptr, base, 4), tensor(ptr, base + 64, 4, id=2, op=client.facts.unary, kind=NEG, src=1)
        ids = struct.pack("<IIQI", 0, 1, 2, 2)
        for turn in range(1, TIMES + 1):
            sent = (
                frame(SET, x + struct.pack("<Q", 0) + floats(turn, 1, 1, 1))
                + frame(COMPUTE, ids + x + y)
                + frame(GET, y + struct.pack("<QQ", 0, 8))
                + frame(COUNT)
                + frame(GET, y + struct.pack("<QQ", 4, 0))
                + frame(RECOMPUTE, bytes(4))
                + frame(ALIGNMENT, bytes(4))
            )
            for at in range(0, len(sent), cut):
                client.send(sent[at : at + cut])
            assert client.receive(16) == struct.pack("<Q", 8) + floats(-turn, -1)
            assert client.receive(12) == struct.pack("<QI", 4, 1)
            assert client.receive(24) == struct.pack("<QQQ", 0, 8, 32)


# -------------------------------------------------------------------------------------------- what does not hold any more


@pytest.mark.parametrize("what", ["base", "get", "set", "recompute", "compute"])
def test_nothing_of_a_freed_buffer_is_answered(what: str, way: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ggml_rpc_ref")
    with served() as (_, client):
        ptr, base = client.alloc(4096)
        x, y = tensor(ptr, base, 4), tensor(ptr, base + 64, 4, id=2, op=client.facts.unary, kind=NEG, src=1)
        requests = {
            "base": frame(BASE, struct.pack("<Q", ptr)),
            "get": frame(GET, x + struct.pack("<QQ", 0, 16)),
            "set": frame(SET, x + struct.pack("<Q", 0) + bytes(16)),
            "recompute": frame(RECOMPUTE, bytes(4)),
            "compute": frame(COMPUTE, struct.pack("<IIQI", 0, 1, 2, 2) + x + y),
        }
        client.compute([x, y], [2])
        for _ in range(TIMES):
            client.send(requests[what])
            if what in ("base", "get"):
                client.reply()
            client.in_step()
        client.tell(frame(FREE, struct.pack("<Q", ptr)), answered=True)
        client.send(requests[what])
        assert client.closed()
    wanted = {"base": "buffer.known", "recompute": "graph.recompute-stored", "compute": "graph.null-data"}
    assert eventually(lambda: refusals(caplog) == [wanted.get(what, "tensor.buffer-known")]), caplog.text


def test_what_an_address_means_follows_the_buffers(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """GET_ALLOC_SIZE of a tensor outside its buffer is refused, and of one whose buffer is gone it is not."""
    caplog.set_level(logging.INFO, "ggml_rpc_ref")
    with served() as (_, client):
        ptr, base = client.alloc(64)
        inside, sources = tensor(ptr, base, 16), bytes(10 * 296)
        for _ in range(TIMES):
            assert client.ask(frame(ALLOC_SIZE, client.on() + inside + sources)) == struct.pack("<Q", 64)
        client.send(frame(ALLOC_SIZE, client.on() + tensor(ptr, base, 17) + sources))
        assert client.closed()
    assert eventually(lambda: refusals(caplog) == ["tensor.in-buffer"]), caplog.text


@pytest.mark.parametrize("version", FACTS)
def test_a_size_is_known_by_what_it_follows_from(version: str, way: str) -> None:
    """As a stock client asks, for tensors that differ in ids, names, ops and parameters: and never by less than that."""
    rng = np.random.default_rng(7)
    free = [*range(8), *range(52, 220), *range(228, 296)]  # id; op to view_offs; name and what comes after it
    with served(version) as (server, client):
        ptr, base = client.alloc(4096)
        sources = [tensor(ptr, base + 64 * at, 4 + at, id=at + 2) for at in range(3)] if client.facts.sources else []

        def ask(x: bytes, others: list[bytes]) -> bytes:
            records = bytearray(b"".join((x, *others)) + bytes(296 * (7 if client.facts.sources else 0)))
            for start in range(0, 296 * (1 + len(others)), 296):
                for at in free:
                    records[start + at] = rng.integers(1, 256)
            return client.ask(frame(ALLOC_SIZE, client.on() + bytes(records)))

        def other(at: int, change: tuple[int, bytes]) -> list[bytes]:
            return [x[: change[0]] + change[1] + x[change[0] + len(change[1]) :] if at == n else x for n, x in enumerate(sources)]

        for turn in range(40):
            ne = 4 + 4 * (turn % 3)
            assert ask(tensor(ptr, base, ne), sources) == struct.pack("<Q", 4 * ne)
            assert ask(tensor(0, 0, ne), other(1, (12, bytes(8)))) == struct.pack("<Q", 4 * ne)
        # the same but for the type: ggml_nbytes of 7 I32 a byte apart is 4 + 6 * 1
        assert ask(tensor(ptr, base, 7, type=I32), sources) == struct.pack("<Q", 10)
        assert (answered(server) > 60) == (way == "C")


@pytest.mark.parametrize(
    ("place", "value", "rule"),
    [
        (8, struct.pack("<I", 999), "tensor.type-known"),
        (20, struct.pack("<I", 17), "tensor.in-buffer"),
        (36, struct.pack("<I", 8), "tensor.in-buffer"),
        (220, None, "tensor.in-buffer"),
    ],
    ids=["type", "ne", "nb", "data"],
)
@pytest.mark.parametrize("slot", [1, 10])
def test_a_source_that_was_absent_is_looked_at(
    slot: int, place: int, value: bytes | None, rule: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With id 0 a record may hold anything; what was answered then says nothing of the same record with an id."""
    caplog.set_level(logging.INFO, "ggml_rpc_ref")
    with served() as (_, client):
        ptr, base = client.alloc(64)
        value = value or struct.pack("<Q", base + 4)
        source = tensor(ptr, base, 16, id=0)
        source = source[:place] + value + source[place + len(value) :]
        records = [tensor(ptr, base, 16), *[bytes(296)] * 10]
        records[slot] = source
        for _ in range(TIMES):
            assert client.ask(frame(ALLOC_SIZE, client.on() + b"".join(records))) == struct.pack("<Q", 64)
        records[slot] = struct.pack("<Q", 9) + source[8:]
        client.send(frame(ALLOC_SIZE, client.on() + b"".join(records)))
        assert client.closed()
    assert eventually(lambda: refusals(caplog) == [rule]), caplog.text


def test_another_graph_takes_the_place_of_a_known_one(way: str) -> None:
    """RECOMPUTE is the same bytes for both."""
    with served() as (_, client):
        ptr, base = client.alloc(4096)
        x = tensor(ptr, base, 4)
        for turn in range(1, TIMES):
            for kind, wanted in ((NEG, floats(-turn)), (0, floats(turn))):  # 0: ABS
                y = tensor(ptr, base + 64, 4, id=2, op=client.facts.unary, kind=kind, src=1)
                client.write(x, floats(turn, 0, 0, 0))
                client.compute([x, y], [2])
                for _ in range(TIMES):
                    client.write(y, bytes(16))
                    client.recompute()
                    assert client.read(y, 4) == wanted


def test_a_full_table_is_cleared_by_a_known_graph(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """8.0.0: where no uid has a place, the next GRAPH_COMPUTE drops all graphs, also that of a uid that has one."""
    monkeypatch.setattr(stored_graphs, "MAX_STORED_GRAPHS", 2)
    with served("8.0.0") as (_, client):
        ptr, base = client.alloc(4096)
        x, y = tensor(ptr, base, 4), tensor(ptr, base + 64, 4, id=2, op=client.facts.unary, kind=NEG, src=1)
        for uid in (1, 2, 2, 1):  # the second 2 has dropped 1, which the last one adds again
            client.compute([x, y], [2], uid)
            client.in_step()
        client.recompute(2)
        client.in_step()
        client.compute([x, y], [2], 1)
        client.in_step()
        client.recompute(2)
        assert client.closed()


@pytest.mark.parametrize("device", ["native", "oracle"])
def test_weights_that_are_written_are_read_anew(device: str, way: str) -> None:
    """Both devices keep copies of them, packed or as float32; SET_TENSOR of them has come again before and after."""
    rows, width = 64, 64
    blocks = width // 32 * 34
    with served(device=device) as (server, client):
        ptr, base = client.alloc(2**16)
        other, there = client.alloc(2**16)
        w = record(ptr, base, 1, Q8_0, (width, rows), blocks, 34)
        x = record(other, there, 2, 0, (width, 1), 4 * width, 4)
        y = record(other, there + 4096, 3, 0, (rows, 1), 4 * rows, 4, MUL_MAT, (1, 2))
        client.write(x, floats(*[1] * width))
        for level in (1, 2, 3, 4, 5):
            row = np.full((rows * width // 32, 34), level, np.uint8)
            row[:, :2] = np.frombuffer(np.float16(0.5).tobytes(), np.uint8)
            for _ in range(3):
                client.write(w, row.tobytes())
            for turn in range(4):
                if turn % 2:
                    client.recompute()
                else:
                    client.compute([w, x, y], [3])
                found = np.frombuffer(client.read(y, 4 * rows), np.float32)
                np.testing.assert_allclose(found, 0.5 * level * width, rtol=1e-2)
        assert (answered(server) > 10) == (way == "C")


def test_an_index_that_went_wrong_is_refused(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """The graph is known, the tensor that it reads an index from is written by a known request."""
    caplog.set_level(logging.INFO, "ggml_rpc_ref")
    with served() as (server, client):
        ptr, base = client.alloc(4096)
        table = record(ptr, base, 1, 0, (4, 8), 16, 4)
        index = record(ptr, base + 1024, 2, I32, (1, 1), 4, 4)
        y = record(ptr, base + 2048, 3, 0, (4, 1), 16, 4, GET_ROWS, (1, 2))
        client.write(table, floats(*range(32)))
        for turn in range(1, TIMES + 1):
            client.write(index, struct.pack("<i", turn))
            client.compute([table, index, y], [3])
            assert client.read(y, 4) == floats(4 * turn)
        client.write(index, struct.pack("<i", 8))
        client.compute([table, index, y], [3])
        assert client.closed()
        assert eventually(lambda: refusals(caplog) == ["graph.index"]), caplog.text
        with connected(server.endpoint, FACTS["3.6.1"]) as second:
            second.in_step()


# ------------------------------------------------------------------------------------------------------ what takes its time


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """C computes for a nanosecond at a time, so that Python has to go on with each graph."""
    monkeypatch.setattr(backend, "SLICE", 1)


def chain(client: Client, ptr: int, base: int, count: int) -> tuple[list[bytes], list[int]]:
    """A graph that changes the sign of one number so many times, each time in memory of its own."""
    first = tensor(ptr, base, 1)
    nodes = [tensor(ptr, base + 16 * n, 1, id=n + 1, op=client.facts.unary, kind=NEG, src=n) for n in range(1, count + 1)]
    return [first, *nodes], list(range(2, count + 2))


@pytest.mark.usefixtures("briefly")
@pytest.mark.parametrize("version", ["2.0.0", "3.6.1"])
def test_python_goes_on_with_a_graph_that_takes_long(version: str, way: str) -> None:
    """Also where a reply is due, and requests that follow have come with it."""
    with served(version) as (server, client):
        ptr, base = client.alloc(2**16)
        tensors, nodes = chain(client, ptr, base, 150)
        last = tensors[-1]
        counted = struct.pack(f"<I{len(nodes)}QI", len(nodes), *nodes, len(tensors))
        request = frame(COMPUTE, client.on() + counted + b"".join(tensors))
        for turn in range(1, TIMES + 1):
            client.write(tensors[0], floats(turn))
            client.send(request + frame(GET, last + struct.pack("<QQ", 0, 4)) + frame(ALIGNMENT, client.on()))
            if client.facts.status:
                assert client.reply() == b"\0"
            assert client.reply() == floats(turn)
            assert client.reply() == struct.pack("<Q", 32)
        assert server.state()["connections"][0]["graphs"] == TIMES


@pytest.mark.usefixtures("briefly")
def test_a_known_graph_stops_when_the_server_does(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as (server, client):
        ptr, base = client.alloc(2**16)
        tensors, nodes = chain(client, ptr, base, 150)
        for _ in range(TIMES):
            client.compute(tensors, nodes)
            client.in_step()
        server.stopping = True
        client.compute(tensors, nodes)
        assert client.closed()


@pytest.mark.parametrize("version", ["1.0.0", "3.6.1"])
def test_a_known_upload_comes_in_pieces(version: str, way: str) -> None:
    """More than is received at once, with a pause in between; in 1.0.0 it is answered."""
    size = 300_000
    with served(version) as (server, client):
        ptr, base = client.alloc(size)
        x = tensor(ptr, base, size // 4)
        for turn in range(1, TIMES + 1):
            data = np.random.default_rng(turn).bytes(size)
            request = frame(SET, x + struct.pack("<Q", 0) + data)
            for part in (request[:1], request[1:9], request[9:200], request[200:100_000], request[100_000:]):
                client.send(part)
                time.sleep(0.01 * (turn == TIMES))
            if client.facts.set_reply:
                assert client.receive(8) == bytes(8)
            assert client.read(x, size) == data
        client.in_step()
        received = 9 + (9 + len(client.on()) + 8) + 17 + TIMES * (313 + size + 321) + (9 + len(client.on()))
        (one,) = server.conversations()
        assert eventually(lambda: one.work.received == received)


@pytest.mark.parametrize("cut", [1, 100, 1000])
@pytest.mark.parametrize("how", ["stops", "leaves"])
def test_a_known_request_that_is_not_sent_whole(how: str, cut: int, way: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ggml_rpc_ref")
    with served(limits=Limits(stall=0.2)) as (server, client):
        ptr, base = client.alloc(4096)
        x = tensor(ptr, base, 1024)
        for _ in range(TIMES):
            client.write(x, bytes(4096))
            client.in_step()
        client.send(frame(SET, x + bytes(8) + bytes(4096))[:cut])
        if how == "leaves":
            client.socket.shutdown(socket.SHUT_WR)
        assert client.closed()
        wanted = {"leaves": "it closed the connection", "stops": "nothing came for 0.2 s"}[how]
        assert eventually(lambda: f"{wanted} in the middle of a message" in caplog.text)
        with connected(server.endpoint, FACTS["3.6.1"]) as second:
            second.in_step()


def test_a_known_download_waits_for_its_reader(way: str) -> None:
    """What the socket does not take in time, Python sends on; a reader that takes long between its bytes gets all of them."""
    size = 2**24
    with served(limits=Limits(stall=2), memory=2**25) as (_, client):
        ptr, base = client.alloc(size)
        x = tensor(ptr, base, size // 4)
        data = np.random.default_rng(1).bytes(size)
        client.write(x, data)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
        for _ in range(2):
            assert client.read(x, size) == data
        client.send(frame(GET, x + struct.pack("<QQ", 0, size)))
        time.sleep(0.8)
        assert client.receive(8) == struct.pack("<Q", size)
        parts = []
        while sum(map(len, parts)) < size:
            parts.append(client.receive(min(2**22, size - sum(map(len, parts)))))
            time.sleep(0.02)
        assert b"".join(parts) == data
        client.in_step()


def test_a_known_download_that_nobody_reads_is_ended(way: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ggml_rpc_ref")
    size = 2**24
    with served(limits=Limits(stall=0.2), memory=2**25) as (_, client):
        ptr, base = client.alloc(size)
        x = tensor(ptr, base, size // 4)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
        for _ in range(2):
            client.read(x, size)
        client.send(frame(GET, x + struct.pack("<QQ", 0, size)))
        assert eventually(lambda: "in the middle of a reply" in caplog.text)


def test_a_connection_that_waits_in_c_is_idle(way: str) -> None:
    with served() as (server, client):
        for _ in range(TIMES):
            client.in_step()
        assert eventually(lambda: server.state()["connections"][0]["idle"] > 0.05)
        client.in_step()


def test_a_connection_that_waits_in_c_for_too_long_is_ended(way: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ggml_rpc_ref")
    with served(limits=Limits(idle=1)) as (_, client):
        for _ in range(3):
            client.in_step()
        assert client.closed()
        assert eventually(lambda: "idle for 1 s" in caplog.text)


def test_requests_are_logged_one_by_one_if_so_wished(way: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "ggml_rpc_ref")
    with served() as (server, client):
        for _ in range(TIMES):
            client.in_step()
        assert answered(server) == 0
    assert caplog.text.count("GET_ALIGNMENT in") == TIMES


# ---------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("size", [320, 3260])
def test_little_is_remembered(size: int, way: str) -> None:
    """Different requests, each several times: neither their number nor their bytes grow without end."""
    with served() as (server, client):
        ptr, base = client.alloc(2**20)
        for at in range(3 * again.MOST):
            x = tensor(ptr, base + 64 * at, 4)
            for _ in range(3):
                if size > 1000:
                    client.ask(frame(ALLOC_SIZE, client.on() + x + bytes(2960)))
                else:
                    client.read(x, 16)
        (one,) = server.conversations()
        if one._known is not None:
            answers = one._known.answers
            assert 0 < len(answers) <= again.MOST
            assert answers._size <= again.MOST_BYTES
            assert len(answers._views) == len(answers)
            assert len(one._known._seen) <= known.SEEN
        assert client.ask(frame(BASE, struct.pack("<Q", ptr))) == struct.pack("<Q", base)
