"""Sums of two servers: COMM_INIT, COMM_ALLREDUCE and COMM_FREE of ours, with a genuine one, and with peers that misbehave.

What must come out is computed here with struct and bit arithmetic, not by what the server uses.
"""

from __future__ import annotations

import logging
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from ipaddress import ip_network

import numpy as np
import numpy.typing as npt
import pytest

from ggml_rpc_ref import upstream
from ggml_rpc_ref.errors import Misuse, Unsupported
from ggml_rpc_ref.net.stream import free_port
from ggml_rpc_ref.server import communicator
from ggml_rpc_ref.server.communicator import Meeting
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.server import Server
from ggml_rpc_ref.spec.versions import NEWEST
from tests.support.raw_client import ALLREDUCE, COMM_FREE, COMM_INIT, FACTS, Client, connected, floats, frame, refusals, tensor

F32Array = npt.NDArray[np.float32]
F32, F16, I8, BF16 = 0, 1, 24, 30
CAPS = bytes(24)
"""Capabilities of a peer that has TCP alone."""


@contextmanager
def own(caplog: pytest.LogCaptureFixture, devices: str = "oracle") -> Iterator[Server]:
    caplog.set_level(logging.INFO, "ggml_rpc_ref")
    with Server(make_host(devices, memory=2**24, proto="8.0.0")) as server:
        yield server
    assert "internal error" not in caplog.text


@contextmanager
def client_of(endpoint: str) -> Iterator[Client]:
    with connected(endpoint, FACTS["8.0.0"]) as client:
        yield client


def init(rank: int, port: int, *, device: int = 0, world: int = 2, host: bytes = b"") -> bytes:
    return frame(COMM_INIT, struct.pack("<IIII64s", device, rank, world, port, host))


def reduce(where: bytes, device: int = 0) -> bytes:
    return frame(ALLREDUCE, struct.pack("<I", device) + where)


def joined(first: Client, second: Client) -> None:
    """Set up a communicator as a stock client does: both requests before either reply."""
    port = free_port()
    first.send(init(0, port))
    second.send(init(1, port, host=b"127.0.0.1"))
    assert (first.reply(), second.reply()) == (b"\1", b"\1")


def placed(client: Client, values: F32Array) -> bytes:
    buffer, base = client.alloc(max(32, values.nbytes))
    where = tensor(buffer, base, len(values))
    client.write(where, values.tobytes())
    return where


def bf16(values: F32Array) -> F32Array:
    """Rounded to eight bits of mantissa, ties to even, and still float32."""
    bits = values.view(np.uint32).astype(np.uint64)
    return (((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32)).view(np.float32)


def summed(first: Client, second: Client, count: int) -> tuple[list[F32Array], list[F32Array]]:
    """Reduce tensors of so many elements; return what each had and what each has."""
    rng = np.random.default_rng(count)
    had = [rng.standard_normal(count).astype(np.float32) for _ in range(2)]
    where = [placed(client, values) for client, values in zip((first, second), had, strict=True)]
    for client, place in zip((first, second), where, strict=True):
        client.send(reduce(place))
    has = [np.frombuffer(client.read(place, 4 * count), "<f4") for client, place in zip((first, second), where, strict=True)]
    return had, has


def check_sums(first: Client, second: Client, count: int) -> None:
    (a, b), (left, right) = summed(first, second, count)
    if count < 32768:
        assert left.tobytes() == right.tobytes() == (a + b).tobytes()
    else:
        # upstream's asymmetry: each adds the other's rounded elements to its own, which are not
        assert left.tobytes() == (a + bf16(b)).tobytes()
        assert right.tobytes() == (bf16(a) + b).tobytes()
        assert (left != right).mean() > 0.99
        assert (np.abs(left - right) <= (np.abs(a) + np.abs(b)) / 256 * 1.001).all()


@pytest.mark.parametrize("count", [1, 5, 32767, 32768, 300_001])
def test_two_servers_sum(count: int, caplog: pytest.LogCaptureFixture) -> None:
    with own(caplog) as one, own(caplog) as other, client_of(one.endpoint) as first, client_of(other.endpoint) as second:
        joined(first, second)
        check_sums(first, second, count)
        check_sums(first, second, 3)  # the next one is in step


@pytest.fixture(scope="module")
def genuine() -> Iterator[str]:
    try:
        with upstream.server(str(NEWEST)) as server:
            yield server.endpoint
    except (Misuse, Unsupported) as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("ours_is", [0, 1], ids=["ours-listens", "ours-connects"])
def test_one_of_ours_and_a_genuine_one_sum(ours_is: int, genuine: str, caplog: pytest.LogCaptureFixture) -> None:
    with own(caplog) as server, client_of(server.endpoint) as ours, client_of(genuine) as theirs:
        pair = (ours, theirs) if ours_is == 0 else (theirs, ours)
        joined(*pair)
        for count in (7, 32767, 32768, 100_001):
            check_sums(*pair, count)


# 1 + 2^-11 is a tie and stays 1; 65504 is the greatest F16 and stays, as the greatest BF16 does; 1 + 2^-8 is a tie in BF16
@pytest.mark.parametrize(
    ("type", "left", "right", "wanted"),
    [(F16, b"\x00\x3c\x01\x3c", b"\x00\x10\xff\x7b", b"\x00\x3c\xff\x7b"),
     (BF16, b"\x80\x3f\x81\x3f", b"\x80\x3b\x7f\x7f", b"\x80\x3f\x7f\x7f")],
    ids=["F16", "BF16"],
)  # fmt: skip
def test_other_types_are_added_through_float32(
    type: int, left: bytes, right: bytes, wanted: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with own(caplog) as one, own(caplog) as other, client_of(one.endpoint) as first, client_of(other.endpoint) as second:
        joined(first, second)
        places = []
        for client, data in ((first, left), (second, right)):
            buffer, base = client.alloc(64)
            where = bytearray(tensor(buffer, base, 2))
            where[8:12], where[36:52] = struct.pack("<I", type), struct.pack("<4I", 2, 4, 4, 4)
            client.write(bytes(where), data)
            places.append(bytes(where))
        for client, place in zip((first, second), places, strict=True):
            client.send(reduce(place))
        assert [client.read(place, 4) for client, place in zip((first, second), places, strict=True)] == [wanted, wanted]


def test_each_device_has_a_communicator_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """Device 1 of one server with device 0 of another; device 0 of the first has none."""
    with (
        own(caplog, "oracle,oracle") as one,
        own(caplog) as other,
        client_of(one.endpoint) as first,
        client_of(other.endpoint) as second,
    ):
        port = free_port()
        first.send(init(0, port, device=1))
        second.send(init(1, port, host=b"127.0.0.1"))
        assert (first.reply(), second.reply()) == (b"\1", b"\1")
        where = placed(first, np.array([1, 2], np.float32)), placed(second, np.array([3, 5], np.float32))
        first.send(reduce(where[0], device=1))
        second.send(reduce(where[1]))
        assert first.read(where[0], 8) == second.read(where[1], 8) == floats(4, 7)
        first.send(reduce(where[0], device=0))
        assert first.closed()
    assert refusals(caplog) == ["comm.needed"]


# ------------------------------------------------------------------------------------------------------------ COMM_INIT


UNMET = {
    "world-1": init(0, 9, world=1), "world-3": init(0, 9, world=3), "rank-2": init(2, 9), "rank-2-32-less-1": init(2**32 - 1, 9),
    "device-1": init(0, 9, device=1), "port-0": init(0, 0), "port-65536": init(0, 65536),
    "rank-1-port-0": init(1, 0, host=b"127.0.0.1"),
    "rank-1-port-2-32-less-1": init(1, 2**32 - 1, host=b"127.0.0.1"), "unknown-host": init(1, 9, host=b"no.such.host.invalid"),
    "no-host": init(1, 9), "host-of-64-bytes": init(1, 9, host=b"x" * 64), "host-not-ascii": init(1, 9, host=b"\xff\xfe"),
}  # fmt: skip


IMPOSSIBLE = ("world-1", "world-3", "rank-2", "rank-2-32-less-1", "device-1", "port-0", "port-65536")
"""What is answered without waiting for anybody."""


@pytest.mark.parametrize("case", UNMET)
def test_what_can_t_be_met_is_answered_with_0(case: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    # where somebody were waited for in vain, the test's own socket would run into its time-out
    wait = 60.0 if case in IMPOSSIBLE else 0.1
    monkeypatch.setattr(communicator, "TRIES", wait)
    monkeypatch.setattr(communicator, "LISTENS", wait)
    with own(caplog) as server, client_of(server.endpoint) as client:
        assert client.ask(UNMET[case]) == b"\0"
        client.in_step()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_peer_that_does_not_come(rank: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(communicator, "TRIES", 0.2)
    monkeypatch.setattr(communicator, "LISTENS", 0.2)
    with own(caplog) as server, client_of(server.endpoint) as client:
        port = free_port()
        assert client.ask(init(rank, port, host=b"127.0.0.1")) == b"\0"
        client.in_step()
        with closing(socket.socket()) as again:  # the port is free again
            again.bind(("127.0.0.1", port))


def test_a_port_that_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    with own(caplog) as server, client_of(server.endpoint) as client:
        assert client.ask(init(0, int(server.endpoint.rpartition(":")[2]))) == b"\0"
        client.in_step()


def test_a_second_init_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with own(caplog) as one, own(caplog) as other, client_of(one.endpoint) as first, client_of(other.endpoint) as second:
        joined(first, second)
        assert first.ask(init(1, 1, world=7, host=b"nowhere")) == b"\1"
        check_sums(first, second, 4)


def test_after_free_there_is_none_and_a_new_one_may_come(caplog: pytest.LogCaptureFixture) -> None:
    with own(caplog) as one, own(caplog) as other, client_of(one.endpoint) as first, client_of(other.endpoint) as second:
        for client in (first, second):
            client.send(frame(COMM_FREE, client.on()))  # there is none yet
        for _ in range(2):
            joined(first, second)
            check_sums(first, second, 4)
            for client in (first, second):
                client.send(frame(COMM_FREE, client.on()))
        first.send(reduce(placed(first, np.ones(4, np.float32))))
        assert first.closed()
    assert refusals(caplog) == ["comm.needed"]


# ---------------------------------------------------------------------------------------------------------- hostile peers


def come(port: int, *, within: float = 10.0) -> socket.socket:
    """Connect to a server that is about to listen."""
    end = time.monotonic() + within
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=10)
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.01)


def exactly(sock: socket.socket, size: int) -> bytes:
    """The next bytes; MSG_WAITALL does not wait on a socket with a time-out."""
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data


@contextmanager
def with_peer(client: Client) -> Iterator[socket.socket]:
    """Play rank 1 of a communicator whose rank 0 is the server."""
    port = free_port()
    client.send(init(0, port))
    with come(port) as peer:
        peer.sendall(bytes(range(1, 25)))  # capabilities that the server must ignore
        assert client.reply() == b"\1"
        assert exactly(peer, 24) == CAPS
        yield peer


def test_strangers_who_come_first_do_not_take_the_place(caplog: pytest.LogCaptureFixture) -> None:
    """One says nothing, one says too little and leaves, and twenty more come; the one that greets is taken."""
    with own(caplog) as server, client_of(server.endpoint) as client, ExitStack() as strangers:
        port = free_port()
        client.send(init(0, port))
        strangers.enter_context(come(port))
        with come(port) as short:
            short.sendall(b"GET / HTTP/1.1")
        time.sleep(0.1)
        with come(port) as peer:
            peer.sendall(CAPS)
            assert client.reply() == b"\1"
            where = placed(client, np.array([1], np.float32))
            client.send(reduce(where))
            assert exactly(peer, 24 + 4) == CAPS + floats(1)
            peer.sendall(floats(2))
            assert client.read(where, 4) == floats(3)


def test_a_peer_that_says_nothing_to_rank_1(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(communicator, "TRIES", 0.3)
    with own(caplog) as server, client_of(server.endpoint) as client, socket.create_server(("127.0.0.1", 0)) as silent:
        assert client.ask(init(1, silent.getsockname()[1], host=b"127.0.0.1")) == b"\0"
        client.in_step()


def test_a_peer_that_leaves_costs_the_client_its_connection(caplog: pytest.LogCaptureFixture) -> None:
    with own(caplog) as server, client_of(server.endpoint) as client, client_of(server.endpoint) as bystander:
        with with_peer(client) as peer:
            client.send(reduce(placed(client, np.ones(4, np.float32))))
            assert exactly(peer, 16) == floats(1, 1, 1, 1)
        assert client.closed()
        bystander.in_step()
    assert refusals(caplog) == ["comm.peer-lost"]


def test_a_peer_that_is_silent_costs_the_client_its_connection(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(communicator, "STALL", 0.5)
    with (
        own(caplog) as server,
        client_of(server.endpoint) as client,
        client_of(server.endpoint) as bystander,
        with_peer(client),
    ):
        client.send(reduce(placed(client, np.ones(4, np.float32))))
        bystander.in_step()
        assert client.closed()
    assert refusals(caplog) == ["comm.peer-lost"]
    assert "nothing came for 0.5 s" in caplog.text


def test_a_client_that_leaves_ends_the_wait(caplog: pytest.LogCaptureFixture) -> None:
    """In COMM_INIT, where nobody comes, and in an all-reduce, where the peer is silent."""
    with own(caplog) as server:
        with client_of(server.endpoint) as client:
            client.send(init(0, free_port()))
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with client_of(server.endpoint) as client, with_peer(client):
            client.send(reduce(placed(client, np.ones(4, np.float32))))
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.socket.close()
            end = time.monotonic() + 10
            while server.connections and time.monotonic() < end:
                time.sleep(0.01)
            assert server.connections == 0


def test_a_server_that_ends_does_not_wait(caplog: pytest.LogCaptureFixture) -> None:
    with own(caplog) as server, client_of(server.endpoint) as client:
        client.send(init(0, free_port()))
        time.sleep(0.1)
        begun = time.monotonic()
        server.shutdown()
        assert time.monotonic() - begun < 4


@pytest.mark.parametrize(
    ("ne", "changes", "rule"),
    [
        (4, {8: struct.pack("<I", I8)}, "comm.tensor"),
        (4, {12: bytes(8)}, "comm.tensor"),
        (4, {36: struct.pack("<4I", 8, 32, 32, 32)}, "comm.tensor"),
        (4, {220: bytes(8)}, "tensor.in-buffer"),
        (1000, {}, "tensor.in-buffer"),
        (4, {8: struct.pack("<I", 99)}, "tensor.type-known"),
    ],
    ids=["type", "no-buffer", "gaps", "address", "length", "unknown-type"],
)
def test_tensors_that_can_t_be_summed(ne: int, changes: dict[int, bytes], rule: str, caplog: pytest.LogCaptureFixture) -> None:
    with own(caplog) as server, client_of(server.endpoint) as client, with_peer(client) as peer:
        buffer, base = client.alloc(64)
        where = bytearray(tensor(buffer, base, ne))
        for at, data in changes.items():
            where[at : at + len(data)] = data
        client.send(reduce(bytes(where)))
        assert client.closed()
        assert peer.recv(1) == b""  # nothing of the tensor was sent
    assert refusals(caplog) == [rule]


def test_a_tensor_without_elements_is_no_sum(caplog: pytest.LogCaptureFixture) -> None:
    with own(caplog) as server, client_of(server.endpoint) as client, with_peer(client) as peer:
        buffer, base = client.alloc(64)
        client.send(reduce(tensor(buffer, base, 0)))
        client.in_step()
        peer.settimeout(0.1)
        with pytest.raises(TimeoutError):
            peer.recv(1)


def test_what_comes_counts_as_the_device_s_memory(caplog: pytest.LogCaptureFixture) -> None:
    """Up to half a device can be summed as F32: the other half takes what comes; beyond, the request is refused."""
    with own(caplog) as server, client_of(server.endpoint) as client, with_peer(client):
        buffer, base = client.alloc(2**24 - 2**16)
        client.send(reduce(tensor(buffer, base, 2**21)))  # 4 MiB of BF16 would come, 64 KiB are left
        assert client.closed()
    assert refusals(caplog) == ["comm.tensor"]


# ------------------------------------------------------------------------------------------------------------- who is met


MEETINGS = [
    (Meeting(), {"127.0.0.1": True, "127.9.9.9": True, "::ffff:127.0.0.1": True, "192.168.0.7": False, "::1": True}),
    (Meeting("0.0.0.0", loopback=False), {"192.168.0.7": True, "8.8.8.8": True}),
    (Meeting("0.0.0.0", (ip_network("10.0.0.0/8"),), loopback=False), {"10.2.3.4": True, "192.168.0.7": False, "127.0.0.1": False}),
]


@pytest.mark.parametrize(("meeting", "wanted"), MEETINGS, ids=["loopback", "open", "allow"])
def test_who_is_met(meeting: Meeting, wanted: dict[str, bool]) -> None:
    assert {address: meeting.expects(address) for address in wanted} == wanted


def test_a_server_of_this_machine_connects_to_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """At once, not after trying: an address of a network for documentation would hang."""
    with own(caplog) as server, client_of(server.endpoint) as client:
        begun = time.monotonic()
        assert client.ask(init(1, 50052, host=b"192.0.2.1")) == b"\0"
        assert time.monotonic() - begun < 2
        client.in_step()
