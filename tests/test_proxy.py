"""The proxy: no byte changed however the stream is cut, ends passed on, exchanges explained and recorded, bad bytes forwarded."""

from __future__ import annotations

import logging
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ggml_rpc_ref
from ggml_rpc_ref.client.client import connect
from ggml_rpc_ref.commands.ending import POLITE
from ggml_rpc_ref.commands.parsing import parse_delays, parse_listen
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.files.recording import Direction, Recorder, read
from ggml_rpc_ref.net.stream import Endpoint, free_port, parse_endpoint
from ggml_rpc_ref.protocol.codec import is_fixed, minimum_size
from ggml_rpc_ref.protocol.fnv import definition
from ggml_rpc_ref.proxy.follow import Exchange, Follower, describe
from ggml_rpc_ref.proxy.proxy import Proxy
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.server import Server
from ggml_rpc_ref.spec.messages import REQUESTS, DeviceCount, GetAlignment, GetTensor, Hello, SetTensor, by_number, command_name
from ggml_rpc_ref.spec.versions import DEFAULT

UP, DOWN = Direction.TO_SERVER, Direction.TO_CLIENT
HELLO = b"\x0e" + bytes(8)
HELLO_REPLY = struct.pack("<Q3B", 3, 3, 6, 1)
ALIGNMENT = struct.pack("<BQI", 1, 4, 0)
ALIGNMENT_REPLY = struct.pack("<QQ", 8, 32)
TENSOR = (
    struct.pack("<QIQ4I4I", 1, 24, 7, 6, 1, 1, 1, 1, 6, 6, 6)
    + bytes(68 + 4 + 80 + 16)
    + struct.pack("<Q", 9)
    + b"x\x1b".ljust(68, b"\0")
)
SET = struct.pack("<BQ", 6, 304 + 6) + TENSOR + bytes(8) + b"foobar"
GET = struct.pack("<BQ", 8, 312) + TENSOR + struct.pack("<QQ", 0, 6)
GET_REPLY = struct.pack("<Q", 6) + b"foobar"
COMPUTE = struct.pack("<BQIIQI", 10, 24 + 296 - 4, 0, 1, 1, 1) + TENSOR
CONVERSATION = [
    (UP, HELLO), (DOWN, HELLO_REPLY), (UP, ALIGNMENT), (DOWN, ALIGNMENT_REPLY), (UP, SET), (UP, COMPUTE), (UP, GET),
    (DOWN, GET_REPLY),
]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ following


PIECES = [(1, 1), (2, 2), (7, 7), (300, 300), (10**6, 10**6), (10**6, 1), (1, 10**6)]


@pytest.mark.parametrize("pieces", PIECES, ids=lambda pieces: f"{pieces[0]} bytes up, {pieces[1]} down")
def test_a_conversation_is_followed_however_it_is_cut(pieces: tuple[int, int]) -> None:
    told: list[Exchange] = []
    follower = Follower(3, tell=told.append)
    begun: list[str] = []
    for direction, data in CONVERSATION:
        piece = pieces[direction]
        for start in range(0, len(data), piece):
            begun += [cls.__name__ for cls in follower.feed(direction, memoryview(data)[start : start + piece])]
    assert follower.violation is None
    assert begun == ["Hello", "GetAlignment", "SetTensor", "GraphCompute", "GetTensor"]
    assert [line.split(" in ")[0] for line in map(describe, told)] == [
        "#3 HELLO (0 B) → major=3 minor=6 patch=1 (3 B)",
        "#3 GET_ALIGNMENT device=0 (4 B) → alignment=32 (8 B)",
        "#3 SET_TENSOR tensor=x\\x1b:I8[6, 1, 1, 1] offset=0 (310 B), no reply",
        "#3 GRAPH_COMPUTE device=0 1 nodes, 1 tensors (316 B), no reply",
        "#3 GET_TENSOR tensor=x\\x1b:I8[6, 1, 1, 1] offset=0 size=6 (312 B) → data (6 B)",
    ]


def test_a_long_conversation_leaves_nothing_behind() -> None:
    follower = Follower(1)
    for direction, data in CONVERSATION:
        follower.feed(direction, memoryview(data))
    assert follower.violation is None
    assert follower.order.waiting == 0


def test_requests_sent_ahead_get_their_own_replies() -> None:
    told: list[Exchange] = []
    follower = Follower(1, tell=told.append)
    follower.feed(UP, memoryview(HELLO + ALIGNMENT + GET + ALIGNMENT))
    follower.feed(DOWN, memoryview(HELLO_REPLY + ALIGNMENT_REPLY + GET_REPLY + ALIGNMENT_REPLY))
    assert [(type(e.request).__name__, e.reply_size) for e in told] == [
        ("Hello", 3), ("GetAlignment", 8), ("GetTensor", 6), ("GetAlignment", 8)
    ]  # fmt: skip


def test_how_long_a_reply_took_is_counted_from_when_both_came() -> None:
    told: list[Exchange] = []
    follower = Follower(1, tell=told.append)
    times = [(UP, HELLO, 5), (DOWN, HELLO_REPLY, 1005), (UP, ALIGNMENT, 3000), (DOWN, ALIGNMENT_REPLY, 253_000)]
    for direction, data, time_ns in times:
        follower.feed(direction, memoryview(data), time_ns)
    assert [line.split(" in ")[1] for line in map(describe, told)] == ["1 µs", "250 µs"]


@pytest.mark.parametrize("cls", [row.cls for row in by_number().values() if is_fixed(row.cls)], ids=command_name)
def test_whole_messages_are_told_as_byte_by_byte(cls: type) -> None:
    random, reply = np.random.default_rng(4), REQUESTS[cls].reply(DEFAULT)
    payload = random.bytes(minimum_size(cls))
    if cls is GetTensor:
        payload = payload[:-8] + struct.pack("<Q", 90)
    spoken = [] if cls is Hello else [(UP, HELLO), (DOWN, HELLO_REPLY)]
    spoken.append((UP, struct.pack("<BQ", REQUESTS[cls].number, len(payload)) + payload))
    if isinstance(reply, type):
        answer = HELLO_REPLY[8:] if cls is Hello else random.bytes(90 if cls is GetTensor else minimum_size(reply))
        spoken.append((DOWN, struct.pack("<Q", len(answer)) + answer))
    told: dict[int, list[Exchange]] = {1: [], 10**6: []}
    for piece, exchanges in told.items():
        follower = Follower(1, tell=exchanges.append)
        for direction, data in spoken:
            for start in range(0, len(data), piece):
                follower.feed(direction, memoryview(data)[start : start + piece], 7)
        assert follower.violation is None
        assert [type(exchange.request) for exchange in exchanges] == ([cls] if cls is Hello else [Hello, cls])
    assert told[1] == told[10**6]


def test_data_that_look_like_a_message_are_data() -> None:
    told: list[Exchange] = []
    follower = Follower(1, tell=told.append)
    head = struct.pack("<BQ", 6, 304 + len(ALIGNMENT)) + TENSOR + bytes(8)
    for data in (HELLO, head, ALIGNMENT):
        follower.feed(UP, memoryview(data))
    follower.feed(DOWN, memoryview(HELLO_REPLY))
    assert [type(exchange.request) for exchange in told] == [SetTensor, Hello]


@pytest.mark.parametrize(
    ("spoken", "rule"),
    [
        ([(UP, ALIGNMENT)], "session.hello-first"),
        ([(UP, HELLO), (DOWN, HELLO_REPLY), (UP, HELLO)], "session.hello-once"),
        ([(UP, HELLO), (DOWN, HELLO_REPLY), (DOWN, ALIGNMENT_REPLY)], "frame.reply-presence"),
        ([(UP, HELLO), (UP, ALIGNMENT), (DOWN, HELLO_REPLY), (DOWN, struct.pack("<QQQ", 16, 1, 1))], "frame.size-fixed"),
        ([(UP, HELLO), (UP, struct.pack("<BQQ", 1, 8, 0))], "frame.size-fixed"),
        ([(UP, HELLO), (UP, GET), (DOWN, HELLO_REPLY), (DOWN, struct.pack("<Q", 5) + b"fooba")], "frame.reply-presence"),
    ],
    ids=["no hello", "hello again", "no request", "long reply", "long request", "short data"],
)
def test_whole_messages_out_of_order_are_seen(spoken: list[tuple[Direction, bytes]], rule: str) -> None:
    follower = Follower(1)
    for direction, data in spoken:
        assert follower.violation is None
        follower.feed(direction, memoryview(data))
    assert follower.violation is not None
    assert follower.violation.rule == rule


@pytest.mark.parametrize(
    ("direction", "data", "rule"),
    [
        (UP, b"GET / HTTP/1.1", "session.hello-first"),
        (UP, HELLO + b"\xff", "frame.command-known"),
        (UP, struct.pack("<BQ", 14, 2**63), "frame.size-fixed"),
        (DOWN, HELLO_REPLY, "frame.reply-presence"),
    ],
    ids=["http", "command", "size", "reply"],
)
def test_what_breaks_a_rule_ends_the_following_and_nothing_else(
    tmp_path: Path, direction: Direction, data: bytes, rule: str
) -> None:
    with Recorder(tmp_path / "r") as recorder:
        follower = Follower(1, recorder)
        follower.feed(direction, memoryview(data))
        follower.feed(direction, memoryview(b"more"))
    assert follower.violation is not None
    assert follower.violation.rule == rule
    assert b"".join(chunk.data for chunk in read(tmp_path / "r")) == data + b"more"


@pytest.mark.parametrize("piece", [1, 5, 10**6], ids=lambda piece: f"{piece} bytes at once")
def test_recording_leaves_out_data_and_nothing_else(tmp_path: Path, piece: int) -> None:
    with Recorder(tmp_path / "r", leave_out_over=5) as recorder:
        follower = Follower(1, recorder)
        for direction, data in CONVERSATION:
            for start in range(0, len(data), piece):
                follower.feed(direction, memoryview(data)[start : start + piece])
    left_out = [chunk.left_out for chunk in read(tmp_path / "r") if chunk.left_out]
    assert [(part.size, part.fnv1a) for part in left_out] == [(6, 0x85944171F73967E8)] * 2  # FNV-1a 64 of "foobar", as published
    for way in Direction:
        kept = b"".join(chunk.data for chunk in read(tmp_path / "r") if chunk.direction is way)
        assert kept == b"".join(data.removesuffix(b"foobar") for direction, data in CONVERSATION if direction is way)


# ----------------------------------------------------------------------------------------------------------- forwarding


class Sink:
    """A server of one connection at a time, whose other end the test holds as `peer`."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(10)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(*self.listener.getsockname()[:2])

    def accept(self) -> socket.socket:
        peer, _ = self.listener.accept()
        peer.settimeout(10)
        return peer


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    with made.listener:
        yield made


@pytest.fixture
def proxy(sink: Sink, caplog: pytest.LogCaptureFixture) -> Iterator[Proxy]:
    caplog.set_level(logging.INFO, "ggml_rpc_ref")
    with Proxy(sink.endpoint) as proxy:
        yield proxy


@pytest.fixture
def ends(proxy: Proxy, sink: Sink) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's socket and the server's, with the proxy between them."""
    with socket.create_connection(parse_endpoint(proxy.endpoint), timeout=10) as client, sink.accept() as peer:
        yield client, peer


Ends = tuple[socket.socket, socket.socket]


def receive(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return bytes(data)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not happen within 10 s"
        time.sleep(0.005)


def test_bytes_of_no_protocol_pass_both_ways_and_the_log_says_so_once(
    ends: Ends, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    random = np.random.default_rng(1).integers(0, 256, 3 * 2**20, np.uint8).tobytes()
    for source, target in (ends, ends[::-1], ends):
        sender = threading.Thread(target=source.sendall, args=(random,))
        sender.start()
        assert receive(target, len(random)) == random
        sender.join()
    assert caplog.text.count("can't be followed any more, only forwarded: session.hello-first") == 1


@pytest.mark.parametrize("way", [0, 1], ids=["from the client", "from the server"])
def test_the_end_of_sending_is_passed_on_and_the_other_way_stays_open(ends: Ends, way: int) -> None:
    source, target = ends[way], ends[1 - way]
    source.sendall(b"last")
    source.shutdown(socket.SHUT_WR)
    assert receive(target, 10) == b"last"
    target.sendall(b"answer")
    assert receive(source, 6) == b"answer"


@pytest.mark.parametrize("way", [0, 1], ids=["from the client", "from the server"])
def test_a_reset_is_passed_on(ends: Ends, proxy: Proxy, way: int) -> None:
    source, target = ends[way], ends[1 - way]
    source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    source.close()
    with pytest.raises(ConnectionResetError):
        target.recv(1)
    wait_until(lambda: proxy.connections == 0)


@pytest.mark.parametrize("way", [UP, DOWN], ids=["from the client", "from the server"])
def test_a_reset_is_recorded_as_the_end_of_who_has_reset(sink: Sink, tmp_path: Path, way: Direction) -> None:
    path = tmp_path / "r"
    with (
        Recorder(path) as recorder,
        Proxy(sink.endpoint, recorder=recorder) as proxy,
        socket.create_connection(parse_endpoint(proxy.endpoint), timeout=10) as client,
        sink.accept() as peer,
    ):
        client.sendall(HELLO)
        assert receive(peer, len(HELLO)) == HELLO
        leaving = (client, peer)[way]
        leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        leaving.close()
        wait_until(lambda: proxy.connections == 0)
    assert [(chunk.direction, chunk.data) for chunk in read(path)] == [(UP, HELLO), (way, b"")]


def test_large_data_passes_whole_and_is_still_followed(sink: Sink, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ggml_rpc_ref")
    data = np.random.default_rng(3).integers(0, 256, 9 * 2**20 + 3, np.uint8).tobytes()
    stream = HELLO + struct.pack("<BQ", 6, 304 + len(data)) + TENSOR + bytes(8) + data + ALIGNMENT
    with (
        Proxy(sink.endpoint, explain=True) as proxy,
        socket.create_connection(parse_endpoint(proxy.endpoint), timeout=10) as client,
        sink.accept() as peer,
    ):
        sender = threading.Thread(target=client.sendall, args=(stream,))
        sender.start()
        assert receive(peer, len(stream)) == stream
        sender.join()
        peer.sendall(HELLO_REPLY + ALIGNMENT_REPLY)
        wait_until(lambda: "GET_ALIGNMENT device=0 (4 B) → alignment=32 (8 B)" in caplog.text)
    assert f"I8[6, 1, 1, 1] offset=0 ({304 + len(data)} B), no reply" in caplog.text


@pytest.mark.parametrize("way", [0, 1], ids=["from the client", "from the server"])
def test_a_reset_in_the_middle_of_large_data_is_passed_on(ends: Ends, proxy: Proxy, way: int) -> None:
    client, peer = ends
    head = HELLO + struct.pack("<BQ", 6, 304 + 2**30) + TENSOR + bytes(8) + bytes(3 * 2**20)
    sender = threading.Thread(target=client.sendall, args=(head,))
    sender.start()
    assert receive(peer, len(head)) == head
    sender.join()
    ends[way].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ends[way].close()
    with pytest.raises(ConnectionResetError):
        ends[1 - way].recv(1)
    wait_until(lambda: proxy.connections == 0)


def test_both_ends_gone_leave_nothing(ends: Ends, proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    for sock in ends:
        sock.close()
    wait_until(lambda: proxy.connections == 0)
    assert "connection 1: ended" in caplog.text


def test_a_server_that_is_not_there_is_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ggml_rpc_ref")
    with Proxy(Endpoint("127.0.0.1", free_port())) as proxy:
        # it may be connect itself that fails, where the reset is the faster
        with pytest.raises(ConnectionResetError), socket.create_connection(parse_endpoint(proxy.endpoint), timeout=10) as client:
            client.recv(1)
        wait_until(lambda: proxy.connections == 0)
    assert "can't reach 127.0.0.1:" in caplog.text


def test_a_server_that_does_not_read_does_not_stop_its_replies(ends: Ends) -> None:
    """A client that sends without reading, and a server that sends without reading: neither direction waits for the other."""
    client, peer = ends
    sender = threading.Thread(target=client.sendall, args=(bytes(32 * 2**20),))
    sender.start()
    time.sleep(0.05)
    peer.sendall(b"x" * 2**20)
    assert receive(client, 2**20) == b"x" * 2**20
    assert len(receive(peer, 32 * 2**20)) == 32 * 2**20
    sender.join()


def test_no_more_threads_costs_one_connection(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with socket.create_connection(parse_endpoint(proxy.endpoint), timeout=10) as client:
            assert client.recv(1) == b""
    assert "could not be served: can't start new thread" in caplog.text
    assert proxy.connections == 0


def test_shutdown_ends_open_connections(sink: Sink) -> None:
    with Proxy(sink.endpoint) as proxy:
        client = socket.create_connection(parse_endpoint(proxy.endpoint), timeout=10)
        peer = sink.accept()
    with client, peer:
        assert client.recv(1) == peer.recv(1) == b""


def test_delayed_requests_wait_and_others_do_not(sink: Sink) -> None:
    with (
        Proxy(sink.endpoint, delays={GetAlignment: 0.2}) as proxy,
        socket.create_connection(parse_endpoint(proxy.endpoint)) as client,
        sink.accept() as peer,
    ):
        client.sendall(HELLO)
        assert receive(peer, len(HELLO)) == HELLO
        start = time.monotonic()
        client.sendall(ALIGNMENT)
        assert receive(peer, len(ALIGNMENT)) == ALIGNMENT
        assert time.monotonic() - start >= 0.2


def test_a_recording_that_cannot_go_on_does_not_stop_the_forwarding(sink: Sink, caplog: pytest.LogCaptureFixture) -> None:
    with (
        Recorder(Path("/dev/null")) as recorder,
        Proxy(sink.endpoint, recorder=recorder) as proxy,
        socket.create_connection(parse_endpoint(proxy.endpoint), timeout=10) as client,
        sink.accept() as peer,
    ):
        full = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
        recorder._file, spare = full.fileno(), recorder._file
        client.sendall(HELLO)
        assert receive(peer, len(HELLO)) == HELLO
        wait_until(lambda: "recording has stopped" in caplog.text)
        recorder._file = spare
        full.close()
    assert caplog.text.count("recording has stopped, forwarding goes on: No space left on device") == 1


def test_a_request_is_recorded_before_its_reply_though_both_are_sent_on_first(sink: Sink, tmp_path: Path) -> None:
    class Hesitant(deque[Any]):
        """Takes its time over requests, so that a reply could overtake one that was not put here before it was sent."""

        def append(self, part: Any) -> None:
            if part.direction is UP:
                time.sleep(0.05)
            super().append(part)

    with Recorder(tmp_path / "r") as recorder, Proxy(sink.endpoint, recorder=recorder) as proxy:
        with socket.create_connection(parse_endpoint(proxy.endpoint), timeout=10) as client, sink.accept() as peer:
            (pair,) = proxy._conversations
            pair._passing = Hesitant()
            for question, answer in ((HELLO, HELLO_REPLY), (ALIGNMENT, ALIGNMENT_REPLY)):
                client.sendall(question)
                assert receive(peer, len(question)) == question
                peer.sendall(answer)
                assert receive(client, len(answer)) == answer
        wait_until(lambda: proxy.connections == 0)
    recorded = [(chunk.direction, chunk.data) for chunk in read(tmp_path / "r")]
    assert recorded[:4] == [(UP, HELLO), (DOWN, HELLO_REPLY), (UP, ALIGNMENT), (DOWN, ALIGNMENT_REPLY)]


# -------------------------------------------------------------------------------------------------------- conversations


def chunks_of(path: Path, direction: Direction) -> bytes:
    return b"".join(chunk.data for chunk in read(path) if chunk.direction is direction)


@pytest.fixture(params=["own", pytest.param("genuine", marks=pytest.mark.upstream)])
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "own":
        with Server(make_host("oracle", memory=2**28)) as server:
            yield server.endpoint
    else:
        yield request.getfixturevalue("upstream_server").endpoint


def test_a_client_computes_through_the_proxy(server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ggml_rpc_ref")
    array = np.random.default_rng(2).integers(-9, 9, (300, 300)).astype(np.float32)
    path = tmp_path / "r"
    with Recorder(path, leave_out_over=1000) as recorder, Proxy(parse_endpoint(server), recorder=recorder, explain=True) as proxy:
        with connect(proxy.endpoint, timeout=20) as client:
            device = client.devices[0]
            graph = device.graph()
            product = graph.mul_mat(device.tensor(array), device.tensor(array))
            graph.compute()
            assert (product.numpy() == array @ array.T).all()  # whole numbers below 2**24, so exact in any order
        wait_until(lambda: proxy.connections == 0)
    # connection 1 tried the newest form of HELLO, which a server of 3.6.1 does not answer
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("#2 ")]
    assert [line.split()[1] for line in told][:2] == ["HELLO", "DEVICE_COUNT"]
    assert sum("SET_TENSOR tensor=" in line and "(360304 B), no reply" in line for line in told) == 2
    assert sum("GRAPH_COMPUTE device=0 1 nodes, 3 tensors" in line for line in told) == 1
    assert sum("GET_TENSOR" in line and "→ data (360000 B) in " in line for line in told) == 1
    assert "forwarded" not in caplog.text
    left_out = [(chunk.direction, chunk.left_out) for chunk in read(path) if chunk.left_out]
    digest = definition(array.tobytes())
    assert [(way, part.size) for way, part in left_out] == [(UP, 360000)] * 2 + [(DOWN, 360000)]
    assert [part.fnv1a for _, part in left_out][:2] == [digest] * 2
    assert [chunk.size for chunk in read(path)][-1] == 0


def test_every_byte_is_recorded(server: str, tmp_path: Path) -> None:
    requests = HELLO + ALIGNMENT * 3
    with Recorder(tmp_path / "r") as recorder, Proxy(parse_endpoint(server), recorder=recorder) as proxy:
        with socket.create_connection(parse_endpoint(proxy.endpoint), timeout=10) as client:
            client.sendall(requests)
            replies = receive(client, len(HELLO_REPLY) + 3 * 16)
        wait_until(lambda: proxy.connections == 0)
    assert b"".join(chunk.data for chunk in read(tmp_path / "r") if chunk.direction is UP) == requests
    assert b"".join(chunk.data for chunk in read(tmp_path / "r") if chunk.direction is DOWN) == replies


# ---------------------------------------------------------------------------------------------------------- command line


@pytest.mark.parametrize("number", [signal.SIGINT, *POLITE])
def test_the_command_forwards_records_and_ends_with_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    path = tmp_path / "r"
    with Server(make_host("oracle", memory=2**28)) as server:
        command = [sys.executable, "-m", "ggml_rpc_ref", "proxy", "--listen", "127.0.0.1:0", "--upstream", server.endpoint]
        with subprocess.Popen([*command, "--record", str(path), "--explain"], stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            endpoint = process.stderr.readline().split("forwarding ")[1].split(" to ")[0]
            with ggml_rpc_ref.connect(endpoint, proto="3.6.1") as client:
                assert client.request(DeviceCount()).device_count == 1
            wait_until(lambda: path.read_bytes().endswith(bytes(8)))
            process.send_signal(number)
            lines = process.stderr.read()
            assert process.wait(20) == 0
    assert "#1 DEVICE_COUNT (0 B) → device_count=1 (4 B) in " in lines
    assert "Traceback" not in lines
    assert sum(chunk.size for chunk in read(path)) > 40


def test_delays_are_read() -> None:
    assert parse_delays(["set_tensor=20", "GET_ALIGNMENT=0.5"]) == {SetTensor: 0.02, GetAlignment: 0.0005}


@pytest.mark.parametrize("text", ["SET_TENSORS=1", "=1", "SET_TENSOR", "SET_TENSOR=x", "SET_TENSOR=-1", "SET_TENSOR=nan"])
def test_delays_that_mean_nothing(text: str) -> None:
    with pytest.raises(Misuse, match="write for instance SET_TENSOR=20"):
        parse_delays([text])


def test_where_to_listen() -> None:
    assert parse_listen("127.0.0.1:0") == ("127.0.0.1", 0)
    assert parse_listen(":0") == ("127.0.0.1", 0)
    assert parse_listen(":50053") == ("127.0.0.1", 50053)
    assert parse_listen("[::1]:7") == ("::1", 7)
    with pytest.raises(Misuse, match="not an endpoint"):
        parse_listen("a b:0")
