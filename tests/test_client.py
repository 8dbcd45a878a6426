"""The client against our own server, the genuine one, and servers that play a script: what it sends, and says when they fail."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import ggml_rpc_ref
from ggml_rpc_ref import upstream
from ggml_rpc_ref.client.client import Client, connect
from ggml_rpc_ref.errors import Misuse, Unsupported, Violation
from ggml_rpc_ref.protocol import fnv
from ggml_rpc_ref.server.handlers import Host, Session
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.server import Server
from ggml_rpc_ref.spec.messages import REQUESTS, DeviceCount, FreeBuffer, GetTensor, RpcTensor, command_name
from ggml_rpc_ref.spec.versions import Version

MIB = 2**20


# --------------------------------------------------------------------------------------------------------- real servers


class SpySession(Session):
    """A session that notes the commands it is given."""

    seen: list[str]

    def handle(self, message: Any) -> Any:
        name = "GRAPH_COMPUTE" if type(message) not in REQUESTS else command_name(type(message))
        self.seen.append(name)
        return super().handle(message)

    def destination(self, message: Any, size: int) -> Any:
        self.seen.append("SET_TENSOR")
        return super().destination(message, size)

    def source(self, message: Any) -> Any:
        self.seen.append("GET_TENSOR")
        return super().source(message)


@contextmanager
def own_server(host: Host | None = None) -> Iterator[tuple[str, list[str]]]:
    """Our server, and the commands that it has been given."""
    seen: list[str] = []
    session = type("Noting", (SpySession,), {"seen": seen})
    with type("Noted", (Server,), {"session_type": session})(host or make_host("oracle,oracle", memory=256 * MIB)) as server:
        yield server.endpoint, seen


@pytest.fixture
def own() -> Iterator[tuple[Client, list[str]]]:
    with own_server() as (endpoint, seen), connect(endpoint, timeout=20) as client:
        seen.clear()
        yield client, seen


@pytest.fixture(params=["own", pytest.param("genuine", marks=pytest.mark.upstream)])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client of our server, then of the genuine one."""
    if request.param == "own":
        with own_server() as (endpoint, _), connect(endpoint, timeout=20) as made:
            yield made
        return
    server: upstream.Server = request.getfixturevalue("upstream_server")
    with connect(server.endpoint, timeout=20) as made:
        yield made


def test_what_a_server_has(client: Client) -> None:
    assert str(client.version) == str(client.server_version) == "3.6.1"
    device = client.devices[0]
    free, total = device.memory()
    assert 0 < free <= total
    assert device.alignment == 32
    assert device.max_size >= 256 * MIB


def test_a_buffer(client: Client) -> None:
    buffer = client.devices[0].alloc(1000)
    assert buffer.size >= 1000
    assert buffer.base % 32 == 0
    tensor = client.devices[0].empty("I8", (1000,), buffer=buffer)
    buffer.clear(7)
    assert tensor.numpy().tolist() == [7] * 1000
    buffer.free()
    with pytest.raises(Misuse, match="has been freed"):
        tensor.numpy()
    with pytest.raises(Misuse, match="has been freed"):
        buffer.free()
    assert client.devices[0].memory()


@pytest.mark.parametrize("dtype", ["f4", "f2", "f8", "i1", "i2", "i4", "i8"])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (1, 1, 4), (2, 3, 4, 5), (0, 3)], ids=str)
def test_arrays_come_back_as_they_went(client: Client, dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.arange(np.prod(shape, dtype=int)).reshape(shape) - 3).astype(dtype)
    tensor = client.devices[0].tensor(array, buffer=client.devices[0].alloc(4096))
    got = tensor.numpy()
    assert tensor.ne == (*shape[::-1], 1, 1, 1, 1)[:4]
    assert (got.shape, got.dtype) == (array.shape, array.dtype)
    assert got.tobytes() == array.tobytes()


def test_arrays_with_gaps_are_packed(client: Client) -> None:
    array = np.arange(60, dtype=np.float32).reshape(5, 12)[::2, ::-3]
    assert (client.devices[0].tensor(array).numpy() == array).all()


def test_conversion_on_the_way(client: Client) -> None:
    array = np.linspace(-2, 2, 96, dtype=np.float32).reshape(3, 32)
    device = client.devices[0]
    assert device.tensor(array, "F16").numpy().dtype == np.float16
    bits = array.view(np.uint32)
    to_even = bits + 0x7FFF + (bits >> 16 & 1) & 0xFFFF0000
    assert (device.tensor(array, "BF16").numpy() == to_even.view(np.float32)).all()
    assert np.abs(device.tensor(array, "Q8_0").numpy() - array).max() < 2 / 127


def test_parts(client: Client) -> None:
    device = client.devices[0]
    tensor = device.tensor(np.zeros(10, np.uint8).view(np.int8))
    device.write(tensor, b"\x05\x06", 3)
    assert device.read(tensor, 2, 4).tolist() == [0, 5, 6, 0]
    assert device.read(tensor, 9, 1).tolist() == [0]


def test_copies(client: Client) -> None:
    device = client.devices[0]
    source, target = device.tensor(np.arange(6, dtype=np.int32)), device.empty("I32", (6,))
    assert device.copy(source, target)
    assert target.numpy().tolist() == [0, 1, 2, 3, 4, 5]


def test_large_data(client: Client) -> None:
    """Over the threshold, so that the hash goes first; what comes back is what went."""
    array = np.arange(11 * MIB // 4, dtype=np.int32)
    assert (client.devices[0].tensor(array).numpy() == array).all()


def test_an_allocation_that_can_not_be_met_leaves_the_connection(client: Client) -> None:
    with pytest.raises(Misuse, match=r"no (room for|buffers of) 4611686018427387904 bytes"):
        client.devices[0].alloc(2**62)
    assert client.devices[0].memory()


def test_no_larger_buffer_is_asked_for_than_there_are(own: tuple[Client, list[str]]) -> None:
    client, seen = own
    with pytest.raises(Misuse, match=f"no buffers of {256 * MIB + 1} bytes: the largest has {256 * MIB}"):
        client.devices[0].alloc(256 * MIB + 1)
    client.devices[0].memory()
    assert seen[:-1] == ["DEVICE_COUNT", "GET_MAX_SIZE"]


def test_padded_rows_ask_as_a_stock_client_does(own: tuple[Client, list[str]]) -> None:
    client, seen = own
    device = client.devices[1]
    padded = device.tensor(np.zeros((2, 96), np.float32), "Q8_0")
    device.memory()
    allocated = ["GET_ALLOC_SIZE", "GET_MAX_SIZE", "ALLOC_BUFFER", "BUFFER_GET_BASE"]
    assert seen[:-1] == ["DEVICE_COUNT", *allocated, "INIT_TENSOR", "SET_TENSOR"]
    seen.clear()
    whole = device.tensor(np.zeros((2, 512), np.float32), "Q8_0")
    device.memory()
    assert padded is not whole  # both still here: dropped ones are freed
    assert seen[:-1] == ["ALLOC_BUFFER", "BUFFER_GET_BASE", "SET_TENSOR"]


@pytest.mark.parametrize(
    ("size", "hashing", "commands"),
    [
        (10 * MIB, True, ["SET_TENSOR"]),
        (10 * MIB + 1, True, ["SET_TENSOR_HASH", "SET_TENSOR"]),
        (10 * MIB + 1, False, ["SET_TENSOR"]),
    ],
)
def test_the_hash_goes_first_above_10_mib(own: tuple[Client, list[str]], size: int, hashing: bool, commands: list[str]) -> None:
    client, seen = own
    client.hashing = hashing
    tensor = client.devices[0].empty("I8", (size,))
    seen.clear()
    tensor.write(np.zeros(size, np.int8))
    client.devices[0].memory()
    assert seen[1:-1] == commands


def test_data_that_the_server_has_are_not_sent(tmp_path: Any) -> None:
    data = np.arange(11 * MIB, dtype=np.uint8)
    (tmp_path / f"{fnv.fnv1a(data):016x}").write_bytes(data.tobytes())
    with own_server(make_host("oracle", cache_dir=tmp_path)) as (endpoint, seen), connect(endpoint) as client:
        tensor = client.devices[0].empty("I8", (len(data),))
        tensor.write(data)
        assert "SET_TENSOR_HASH" in seen
        assert "SET_TENSOR" not in seen
        assert (tensor.numpy().view(np.uint8) == data).all()


def test_data_are_sent_and_received_without_a_copy(own: tuple[Client, list[str]]) -> None:
    client, _ = own
    client.hashing = False
    array = np.zeros(64 * MIB, np.int8)
    tensor = client.devices[0].empty("I8", array.shape)
    tracemalloc.start()
    try:
        tensor.write(array)
        assert tracemalloc.get_traced_memory()[1] < MIB
        got = tensor.numpy()
        assert tracemalloc.get_traced_memory()[1] < len(got) + MIB
    finally:
        tracemalloc.stop()


def test_devices_are_a_sequence(own: tuple[Client, list[str]]) -> None:
    client, seen = own
    assert [device.index for device in client.devices] == [0, 1]
    assert client.devices[-1] is client.devices[1]
    assert client.devices[:1] == [client.devices[0]]
    assert seen == ["DEVICE_COUNT"]
    with pytest.raises(IndexError):
        client.devices[2]


def test_threads_may_share_a_client(own: tuple[Client, list[str]]) -> None:
    client, _ = own
    failures: list[str] = []

    def work(number: int) -> None:
        device = client.devices[number % 2]
        for size in range(1, 40):
            array = np.full(size, number, np.int32)
            if (device.tensor(array).numpy() != array).any():
                failures.append(f"thread {number}, size {size}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_the_server_frees_what_a_closed_client_had() -> None:
    with own_server(make_host("oracle", memory=1000)) as (endpoint, _):
        with connect(endpoint) as client:
            kept = client.devices[0].alloc(1000)
            assert client.devices[0].memory().free == 0
        assert kept.size == 1000
        with connect(endpoint) as client:
            end = time.monotonic() + 10  # the server notices on a thread of its own
            while client.devices[0].memory().free == 0 and time.monotonic() < end:
                time.sleep(0.01)
            assert client.devices[0].alloc(1000).size == 1000


def test_a_closed_client_says_so(own: tuple[Client, list[str]]) -> None:
    client, _ = own
    client.close()
    client.close()
    with pytest.raises(ConnectionError, match=r"DEVICE_COUNT: the connection to .* has been closed"):
        client.request(DeviceCount())


@pytest.mark.parametrize("version", ["3.5.0", "3.6.0", "3.6.1"])
def test_an_older_server_is_spoken_to_in_its_layouts(version: str) -> None:
    """GET_ALLOC_SIZE has 300 bytes before 3.6.0: a server of 3.5.0 would refuse ours."""
    host = make_host("oracle")
    with own_server(Host(host.devices, version=Version.parse(version))) as (endpoint, _), connect(endpoint) as client:
        assert (str(client.server_version), str(client.version)) == (version, version)
        tensor = client.devices[0].tensor(np.ones((2, 96), np.float32), "Q8_0")
        assert (np.abs(tensor.numpy() - 1) < 1e-3).all()


def test_host_names_and_ipv6() -> None:
    with Server(make_host("oracle"), "localhost", 0) as server:
        port = server.endpoint.rpartition(":")[2]
        with connect(f"localhost:{port}") as client:
            assert client.devices[0].memory()
    with Server(make_host("oracle"), "::1", 0) as server, connect(server.endpoint) as client:
        assert client.endpoint.startswith("[::1]:")
        assert client.devices[0].memory()


def test_the_package_exports_connect_and_is_cheap_to_import() -> None:
    assert ggml_rpc_ref.connect is connect
    assert ggml_rpc_ref.__version__[0].isdigit()
    rpc = {"is_rpc", "rpc_add_server", "rpc_buffer_type", "rpc_get_device_memory", "rpc_init", "rpc_reg", "rpc_remove_server"}
    rpc |= {"rpc_start_server", "devices", "local", "Scheduler", "ServerLost"}
    assert set(ggml_rpc_ref.__all__) == rpc | {"Misuse", "Server", "Unsupported", "Violation", "__version__", "connect"}
    assert all(getattr(ggml_rpc_ref, name).__doc__ for name in rpc)
    assert set(ggml_rpc_ref.__all__) <= set(dir(ggml_rpc_ref))
    with pytest.raises(AttributeError, match="no attribute 'disconnect'"):
        _ = ggml_rpc_ref.disconnect
    code = "import sys, ggml_rpc_ref; assert not {'numpy', 'typer', 'socket'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --------------------------------------------------------------------------------------------------- what is said of misuse


@pytest.mark.parametrize("proto", ["3.6", "x", "9.9.9"])
def test_versions_that_are_none(proto: str) -> None:
    with pytest.raises(Misuse, match=r"version|protocol"):
        connect("127.0.0.1:1", proto=proto)


def test_arrays_that_fit_no_type(own: tuple[Client, list[str]]) -> None:
    device = own[0].devices[0]
    for array in (np.zeros(2, np.complex64), np.zeros(2, np.uint16), np.zeros(2, bool), ["text"]):
        with pytest.raises(Misuse, match="no ggml type holds"):
            device.tensor(array)
    with pytest.raises(Misuse, match="up to four dimensions"):
        device.tensor(np.zeros((1,) * 5, np.float32))


def test_writes_that_do_not_fit(own: tuple[Client, list[str]]) -> None:
    tensor = own[0].devices[0].tensor(np.zeros((2, 3), np.float32))
    with pytest.raises(Misuse, match=r"20 bytes do not fill"):
        tensor.write(np.zeros(5, np.float32))
    with pytest.raises(Misuse, match="does not hold float64"):
        tensor.write(np.zeros(3, np.float64))
    with pytest.raises(Misuse, match="must be contiguous"):
        own[0].devices[0].write(tensor, np.zeros(12, np.float32)[::2])
    with pytest.raises(Misuse, match="use set_tensor or get_tensor"):
        own[0].request(GetTensor(tensor=tensor.wire(), offset=0, size=1))
    assert tensor.numpy().tolist() == [[0, 0, 0], [0, 0, 0]]


# ------------------------------------------------------------------------------------------------- servers with a script

Script = Callable[[socket.socket], None]
HELLO = b"\x0e" + bytes(8)
WELCOME = b"\x03" + bytes(7) + b"\x03\x06\x01"


@contextmanager
def scripted(*steps: tuple[bytes | int, bytes | None]) -> Iterator[str]:
    """A server that for each step receives these bytes (or so many) and answers those; after the last it closes.

    The answer None is silence: it closes when the client has.
    """

    def serve(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(10)
            for expected, answer in steps:
                got = sock.recv(expected if isinstance(expected, int) else len(expected), socket.MSG_WAITALL)
                if isinstance(expected, bytes) and got != expected:
                    return  # the client said something else, and meets a closed connection
                if answer is None:
                    sock.recv(1)
                else:
                    sock.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(20)


@contextmanager
def talking(*steps: tuple[bytes | int, bytes | None]) -> Iterator[Client]:
    """A client of a scripted server, after HELLO."""
    with scripted((HELLO, WELCOME), *steps) as endpoint, connect(endpoint, proto="3.6.1") as client:
        yield client


def reply(payload: bytes) -> bytes:
    return len(payload).to_bytes(8, "little") + payload


def u64(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(8, "little") for number in numbers)


def test_a_server_that_closes_on_hello() -> None:
    """As servers from 4.0.0 on do, whose HELLO has 24 bytes."""
    sentence = (
        r"closed the connection instead of answering a HELLO of 0 bytes \(protocol 3\.6\.1\); no byte had arrived; "
        r"a server of 4\.0\.0 to 8\.0\.0 does so, and one that does not take clients from this address, or is full$"
    )
    with scripted((HELLO, b"")) as endpoint, pytest.raises(ConnectionError, match=sentence):
        connect(endpoint, proto="3.6.1")


def test_hello_of_4_has_24_bytes() -> None:
    hello = b"\x0e" + (24).to_bytes(8, "little") + bytes(24)
    with scripted((hello, reply(b"\x04\x00\x00\x00" + bytes(24)))) as endpoint, connect(endpoint, proto="4.0.3") as client:
        assert (str(client.server_version), str(client.version)) == ("4.0.0", "4.0.3")


@pytest.mark.parametrize("version", [(3, 7, 0), (2, 0, 0), (255, 0, 0)], ids=str)
def test_a_version_that_does_not_fit(version: tuple[int, int, int]) -> None:
    text = ".".join(map(str, version))
    sentence = rf"HELLO to 127\S+: it speaks protocol {text}\b.*, this client 3\.6\.1 \(llama\.cpp .*\), and a client goes on"
    with scripted((HELLO, reply(bytes(version)))) as endpoint, pytest.raises(Unsupported, match=sentence):
        connect(endpoint, proto="3.6.1")


def test_another_patch_and_an_older_minor_are_accepted() -> None:
    """As a client of llama.cpp, which has no other layouts than its own."""
    for version in ((3, 6, 250), (3, 1, 0)):
        with scripted((HELLO, reply(bytes(version)))) as endpoint, connect(endpoint, proto="3.6.1") as client:
            assert (client.server_version, str(client.version)) == (version, "3.6.1")


def test_a_server_of_another_protocol() -> None:
    with scripted((HELLO, b"HTTP/1.1 400 Bad Request\r\n")) as endpoint:
        with pytest.raises(
            Violation, match=r"HELLO to 127.0.0.1:\d+, bytes seen: 48 54 54 50 2f 31 2e 31 \('HTTP/1.1'\)"
        ) as caught:
            connect(endpoint, proto="3.6.1")
        assert caught.value.rule == "frame.size-fixed"


def test_a_hello_reply_cut_short() -> None:
    with scripted((HELLO, WELCOME[:10])) as endpoint, pytest.raises(ConnectionError, match=r"bytes seen: 03 06$"):
        connect(endpoint, proto="3.6.1")


def test_silence_at_hello() -> None:
    sentence = r"HELLO: nothing came from 127\S+ within 0.1 s; an rpc-server answers one client at a time; no byte had arrived"
    with scripted((HELLO, None)) as endpoint, pytest.raises(TimeoutError, match=sentence):
        connect(endpoint, proto="3.6.1", connect_timeout=0.1)


COUNT = b"\x0f" + bytes(8)


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        pytest.param(reply(b"\0" * 4), Violation, "device.count: device_count is 0", id="none"),
        pytest.param(reply(b"\0" * 5), Violation, "frame.size-fixed: DeviceCountReply size is 5; this record has 4", id="size"),
        pytest.param(b"\xff" * 8, Violation, "DeviceCountReply size is 18446744073709551615", id="huge"),
        pytest.param(b"\x04" + bytes(7), ConnectionError, "instead of answering; it refused DEVICE_COUNT, or died", id="cut"),
    ],
)  # fmt: skip
def test_answers_that_are_wrong(answer: bytes, error: type[Exception], sentence: str) -> None:
    with talking((COUNT, answer)) as client:
        with pytest.raises(error, match=sentence):
            _ = client.devices
        if error is not Violation or "size" in sentence:
            with pytest.raises(ConnectionError, match=r"DEVICE_COUNT: the connection to .* is over since DEVICE_COUNT failed"):
                _ = client.devices


def test_four_billion_devices_cost_nothing() -> None:
    with talking((COUNT, reply(b"\xff" * 4))) as client:
        tracemalloc.start()
        assert len(client.devices) == 2**32 - 1
        assert client.devices[2**32 - 2].index == 2**32 - 2
        assert tracemalloc.get_traced_memory()[1] < 100_000
        tracemalloc.stop()


ALIGNMENT_OF_0 = b"\x01\x04" + bytes(7) + bytes(4)


@pytest.mark.parametrize("alignment", [0, 3, 48, 2**64 - 1])
def test_an_alignment_that_is_none(alignment: int) -> None:
    with talking((COUNT, reply(b"\1\0\0\0")), (ALIGNMENT_OF_0, reply(u64(alignment)))) as client:
        device = client.devices[0]
        with pytest.raises(Violation, match=rf"device.alignment: alignment is {alignment}"):
            _ = device.alignment


def test_less_memory_than_asked_for() -> None:
    request = b"\x00\x0c" + bytes(7) + bytes(4) + u64(100)
    largest = b"\x02\x04" + bytes(7) + bytes(4)
    with talking((COUNT, reply(b"\1\0\0\0")), (largest, reply(u64(100))), (request, reply(u64(64, 99)))) as client:
        device = client.devices[0]
        with pytest.raises(Violation, match=r"buffer.alloc-size: remote_size is 99; 100 bytes were asked"):
            device.alloc(100)


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        pytest.param(reply(b"12345"), Violation, "GetTensorReply size is 5; 4 bytes were asked for; GET_TENSOR to", id="more"),
        pytest.param(reply(b"123"), Violation, "GetTensorReply size is 3", id="fewer"),
        pytest.param(u64(4) + b"12", ConnectionError, r"it refused GET_TENSOR, or died: .*; bytes seen: 31 32 \('12'\)", id="cut"),
    ],
)  # fmt: skip
def test_data_that_are_wrong(answer: bytes, error: type[Exception], sentence: str) -> None:
    with talking((9 + 312, answer)) as client, pytest.raises(error, match=sentence):
        client.get_tensor(RpcTensor(), 0, 4)


def test_a_refusal_of_what_has_no_reply_names_it(own: tuple[Client, list[str]]) -> None:
    """SET_TENSOR past the tensor is refused in silence; the next request meets the closed connection."""
    client, _ = own
    device = client.devices[0]
    tensor = device.tensor(np.zeros(4, np.int8))
    client.set_tensor(tensor.wire(), 0, b"12345")  # below what checks ranges
    with pytest.raises(
        ConnectionError, match=r"it refused GET_DEVICE_MEMORY or an earlier request without a reply \(SET_TENSOR\), or died"
    ):
        device.memory()


def test_a_reply_confirms_what_went_before_it(own: tuple[Client, list[str]]) -> None:
    client, _ = own
    client.devices[0].tensor(np.zeros(4, np.int8))
    client.devices[0].memory()
    with pytest.raises(ConnectionError, match=r"it refused FREE_BUFFER, or died"):
        client.request(FreeBuffer(remote_ptr=1))


def test_after_a_failure_the_socket_is_closed() -> None:
    with talking((COUNT, reply(b"\0" * 5))) as client:
        with pytest.raises(Violation):
            _ = client.devices
        assert client._stream._socket.fileno() == -1


def test_the_time_for_answers_is_another_than_that_for_connecting() -> None:
    with (
        scripted((HELLO, WELCOME), (COUNT, None)) as endpoint,
        connect(endpoint, proto="3.6.1", timeout=0.1, connect_timeout=9) as client,
    ):
        assert client.timeout == 0.1


def test_a_time_out_in_the_middle() -> None:
    with talking((COUNT, None)) as client:
        client.timeout = 0.1
        with pytest.raises(TimeoutError, match=r"DEVICE_COUNT: nothing came from .* within 0.1 s; no byte had arrived"):
            _ = client.devices


def test_a_close_ends_the_request_of_another_thread() -> None:
    """At once, not when its time is over; and the server is not said to have done it."""
    with talking((COUNT, None)) as client:
        client.timeout = None
        sent, raised = client._stream.sent, list[Exception]()

        def ask() -> None:
            try:
                client.request(DeviceCount())
            except Exception as error:
                raised.append(error)

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        while client._stream.sent == sent:
            time.sleep(0.01)
        client.close()
        asking.join(20)
        assert [type(error) for error in raised] == [ConnectionError]
        assert str(raised[0]) == f"DEVICE_COUNT: the connection to {client.endpoint} has been closed, by another thread"


def test_an_interrupt_ends_the_connection(own: tuple[Client, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reply may come later, and would be taken for another's."""
    client, _ = own

    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(client._stream, "receive_exactly", interrupted)
    with pytest.raises(KeyboardInterrupt):
        client.request(DeviceCount())
    with pytest.raises(ConnectionError, match="is over since DEVICE_COUNT was interrupted"):
        client.request(DeviceCount())
