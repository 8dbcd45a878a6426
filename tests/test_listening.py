"""A listener's threads: one conversation after another in each, none of which keeps anything of the last one."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ggml_rpc_ref.net.channel import Channel
from ggml_rpc_ref.net.listening import SPARE, Listener
from ggml_rpc_ref.net.stream import parse_endpoint


class Echo:
    """A conversation: sends back what comes, until b"x", which is an error, or the end."""

    def __init__(self, channel: Channel, name: str) -> None:
        self.name, self._channel, self.thread = name, channel, 0

    def converse(self) -> None:
        self.thread = threading.get_ident()
        room = memoryview(bytearray(1))
        try:
            while self._channel.receive(room):
                if room == b"x":
                    raise ZeroDivisionError
                self._channel.send(threading.current_thread().name.encode() + b"\n")
        finally:
            self._channel.close()

    def hang_up(self) -> None:
        self._channel.hang_up()

    def turn_away(self, reason: str) -> None:
        self._channel.close()


class Echoes(Listener[Echo]):
    def __init__(self) -> None:
        super().__init__("127.0.0.1", 0)
        self.seen: list[weakref.ref[Echo]] = []

    def _conversation(self, channel: Channel, name: str) -> Echo:
        echo = Echo(channel, name)
        self.seen.append(weakref.ref(echo))
        return echo

    @property
    def spare(self) -> int:
        return len(self._spare)


@pytest.fixture
def echoes() -> Iterator[Echoes]:
    with Echoes() as listener:
        yield listener


def soon(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "not within 10 s"
        time.sleep(0.001)


@contextlib.contextmanager
def connected(echoes: Echoes) -> Iterator[socket.socket]:
    with socket.create_connection(parse_endpoint(echoes.endpoint)) as sock:
        yield sock


def said(sock: socket.socket, byte: bytes = b"a") -> bytes:
    sock.sendall(byte)
    return sock.recv(100)


def test_one_thread_has_one_conversation_after_another_under_the_name_of_its_peer(echoes: Echoes) -> None:
    before = threading.active_count()
    for _ in range(50):
        with connected(echoes) as sock:
            host, port = sock.getsockname()
            assert said(sock) == f"peer {host}:{port}\n".encode()
        soon(lambda: echoes.spare)
    assert threading.active_count() == before + 1


def test_a_waiting_thread_keeps_nothing_of_its_last_conversation(echoes: Echoes) -> None:
    with connected(echoes) as sock:
        said(sock)
    soon(lambda: echoes.spare)
    gc.collect()
    soon(lambda: echoes.seen[0]() is None)


def test_many_at_a_time_have_a_thread_each_and_few_of_these_stay(echoes: Echoes) -> None:
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connected(echoes)) for _ in range(3 * SPARE)]
        assert len({said(sock) for sock in socks}) == 3 * SPARE
        assert threading.active_count() == before + 3 * SPARE
    soon(lambda: threading.active_count() == before + SPARE)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_an_error_ends_gets_no_other_conversation(echoes: Echoes) -> None:
    for _ in range(3):
        with connected(echoes) as sock:
            assert said(sock, b"x") == b""
        soon(lambda: not echoes.connections)
        with connected(echoes) as sock:
            assert said(sock).startswith(b"peer ")
        soon(lambda: echoes.spare)


def test_no_thread_is_left_after_the_end() -> None:
    before = threading.active_count()
    with Echoes() as echoes:
        with connected(echoes) as first, connected(echoes) as second:
            said(first), said(second)
        soon(lambda: echoes.spare == 2)
        with connected(echoes) as sock:
            said(sock)  # one waits, one is in a conversation when the listener ends
            echoes.shutdown()
            assert threading.active_count() == before


def test_a_burst_of_connections_waits_in_the_kernel(echoes: Echoes) -> None:
    """Where its queue is full, a connection is tried again after a second, perhaps that of a peer who made one only."""
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    if most < 512:
        pytest.skip(f"this system queues {most} connections at most")
    with contextlib.ExitStack() as stack:
        busy = threading.Event()
        echoes.call_soon(busy.wait)  # whoever accepts is at something else
        stack.callback(busy.set)
        for _ in range(300):
            stack.enter_context(socket.create_connection(parse_endpoint(echoes.endpoint), timeout=30))
