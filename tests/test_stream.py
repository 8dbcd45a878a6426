"""The stream under the client: everything within a deadline, every end of a peer the same outcome."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.net import stream as stream_module
from ggml_rpc_ref.net.stream import DeadlineMissed, PeerClosed, Stream, open_stream, parse_endpoint

SOON = 0.05


@contextmanager
def peer(script: Callable[[socket.socket], None], host: str = "127.0.0.1", timeout: float = 5.0) -> Iterator[Stream]:
    """A stream to a listener that runs `script` with the accepted socket."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        listener.listen()

        def serve() -> None:
            accepted, _ = listener.accept()
            with accepted:
                script(accepted)

        thread = threading.Thread(target=serve)
        thread.start()
        with open_stream(host, listener.getsockname()[1], timeout) as stream:
            yield stream
        thread.join(10)
        assert not thread.is_alive()


def until_closed(sock: socket.socket) -> None:
    try:
        while sock.recv(65536):
            pass
    except ConnectionError:
        pass


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.7:1234", "10.0.0.7", 1234),
        ("localhost:1", "localhost", 1),
        ("gpu-box", "gpu-box", 50052),
        ("[::1]:65535", "::1", 65535),
        ("[fe80::1]", "fe80::1", 50052),
        ("[::ffff:1.2.3.4]:7", "::ffff:1.2.3.4", 7),
    ],
)
def test_endpoints(text: str, host: str, port: int) -> None:
    endpoint = parse_endpoint(text)
    assert (endpoint.host, endpoint.port) == (host, port)
    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "text",
    ["", ":", ":80", "h:", "h:0", "h:65536", "h:99999999999999999999", "h:-1", "h:+1", "h:x", "h: 1", "h:٣", "a b:1", "::1",
     "::1:5", "1:2:3", "[::1", "::1]", "[::1]5", "[::1]:", "[]:1", "[name]:1", "[1.2.3.4]:1", "http://h:1", "[::1]x:1"],
)  # fmt: skip
def test_texts_that_are_no_endpoint(text: str) -> None:
    with pytest.raises(Misuse, match="not an endpoint"):
        parse_endpoint(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("127.0.0.1:50052,127.0.0.1:50053", "it names several servers"),
        ("a,b", "it names several servers"),
        ("[::1]:1,[::1]:2", "it names several servers"),
        ("tcp://127.0.0.1:50052", "leave out tcp://"),
        ("http://box/", "leave out http://"),
        ("1:2:3", "an IPv6 address in brackets"),
    ],
)
def test_the_hint_is_about_what_was_written(text: str, said: str) -> None:
    with pytest.raises(Misuse, match="not an endpoint") as caught:
        parse_endpoint(text)
    assert said in str(caught.value)
    assert ("IPv6" in str(caught.value)) == ("IPv6" in said)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_bytes_arrive_as_sent(host: str) -> None:
    def echo(sock: socket.socket) -> None:
        sock.sendall(sock.recv(3, socket.MSG_WAITALL))

    with peer(echo, host) as stream:
        stream.send(b"a", bytearray(b""), memoryview(b"bc"))
        assert stream.receive_exactly(3) == b"abc"
        assert (stream.sent, stream.received) == (3, 3)
        assert stream._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_a_name_is_resolved_and_each_of_its_addresses_tried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, open_stream("localhost", listener.getsockname()[1], 5) as stream:
        accepted, _ = listener.accept()
        with accepted:
            assert stream.endpoint.host == "localhost"


def test_large_data_go_out_and_come_back_without_a_copy_of_ours() -> None:
    sent = bytes(range(256)) * 40_000

    def echo(sock: socket.socket) -> None:
        data = sock.recv(len(sent), socket.MSG_WAITALL)
        sock.sendall(data)

    with peer(echo) as stream:
        stream.send(sent[:5], memoryview(sent)[5:])
        got = bytearray(len(sent))
        stream.receive_into(memoryview(got))
        assert got == sent


def test_receive_exactly_grows_beyond_one_chunk_and_takes_no_byte_more() -> None:
    size = 2**20 + 7
    with peer(lambda sock: sock.sendall(b"\x01" * size + b"rest")) as stream:
        assert stream.receive_exactly(size) == b"\x01" * size
        assert stream.receive(100) == b"rest"


def test_nothing_is_reserved_for_what_was_only_claimed() -> None:
    with peer(lambda sock: sock.sendall(b"xy")) as stream, pytest.raises(PeerClosed) as caught:
        stream.receive_exactly(2**60)
    assert (caught.value.count, caught.value.seen) == (2, b"xy")


def close_orderly(sock: socket.socket) -> None:
    sock.sendall(b"bye")


def close_by_reset(sock: socket.socket) -> None:
    sock.sendall(b"bye")
    time.sleep(SOON)  # so that the bytes are read before the reset discards them
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("script", [close_orderly, close_by_reset])
def test_every_end_is_the_same(script: Callable[[socket.socket], None]) -> None:
    with peer(script) as stream:
        with pytest.raises(PeerClosed, match="closed the connection") as caught:
            stream.receive_exactly(8)
        assert (caught.value.count, caught.value.seen) == (3, b"bye")
        with pytest.raises(PeerClosed):
            send_on(stream)


def send_on(stream: Stream) -> None:
    for _ in range(1000):  # the first sends may still be swallowed by the kernel
        stream.send(b"x")
        time.sleep(0.001)


def test_receive_into_says_how_far_it_got() -> None:
    with peer(close_orderly) as stream, pytest.raises(PeerClosed) as caught:
        stream.receive_into(memoryview(bytearray(100)))
    assert caught.value.count == 3


def test_silence_is_a_missed_deadline() -> None:
    with peer(until_closed, timeout=SOON) as stream, pytest.raises(DeadlineMissed, match="nothing came from 127"):
        stream.receive(1)


def test_a_drip_does_not_extend_the_deadline() -> None:
    def drip(sock: socket.socket) -> None:
        try:
            while True:
                sock.sendall(b".")
                time.sleep(0.01)
        except OSError:
            pass

    with peer(drip, timeout=0.2) as stream:
        with pytest.raises(DeadlineMissed, match=r"only \d+ bytes came") as caught:
            stream.receive_exactly(10_000)
        assert 0 < caught.value.count < 10_000
        assert caught.value.seen.strip(b".") == b""


def test_a_peer_that_does_not_read_is_a_missed_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "SLOWEST", 2**30)  # the kernels' buffers swallow some 4 MiB first
    done = threading.Event()
    with peer(lambda _: done.wait(10) and None, timeout=0.2) as stream:
        with pytest.raises(DeadlineMissed, match="took only"):
            stream.send(bytes(2**26))
        done.set()


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refused
        with pytest.raises(ConnectionError, match=r"can't connect to 127\.0\.0\.1:\d+: .*refused"):
            open_stream(*taken.getsockname(), 5)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".invalid", "x..y"])
def test_unknown_names(host: str) -> None:
    with pytest.raises((ConnectionError, DeadlineMissed), match=r"host|resolved"):
        open_stream(host, 1, 5)


def test_wait_closed_keeps_what_came_before() -> None:
    with peer(close_orderly) as stream:
        assert stream.wait_closed() == (True, b"bye")


def test_wait_closed_of_a_peer_that_stays_or_talks_on() -> None:
    with peer(until_closed) as stream:
        assert stream.wait_closed(SOON) == (False, b"")

    def flood(sock: socket.socket) -> None:
        try:
            while True:
                sock.sendall(bytes(65536))
        except OSError:
            pass

    with peer(flood) as stream:
        assert stream.wait_closed(SOON) == (False, bytes(65536))


def test_finish_sending_lets_the_answer_come() -> None:
    def answer(sock: socket.socket) -> None:
        until_closed(sock)
        sock.sendall(b"all read")

    with peer(answer) as stream:
        stream.send(b"question")
        stream.finish_sending()
        assert stream.wait_closed() == (True, b"all read")


def test_reset_reaches_the_peer_as_a_reset() -> None:
    outcome: list[str] = []

    def watch(sock: socket.socket) -> None:
        try:
            sock.recv(1)
        except ConnectionResetError:
            outcome.append("reset")

    with peer(watch) as stream:
        stream.reset()
        stream.reset()
    assert outcome == ["reset"]
