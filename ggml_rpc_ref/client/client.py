"""A client: connect to a server, ask for memory, send tensors, compute.

    with connect("127.0.0.1:50052") as client:
        device = client.devices[0]
        print(device.memory(), device.tensor(numpy_array).numpy())

What the protocol says is `Connection`'s, what the socket does is `Stream`'s; here are the steps of a conversation and what to say
when one fails. Whatever fails ends the connection: replies carry no id, so after a lost one nothing can be told apart.

One lock guards each request and its reply, so threads may share a client; a step of several requests (upload with its hash) is one
too. Errors: Violation where the server's bytes break the protocol, ConnectionError where it ends the connection, TimeoutError where
it does not answer in time, Unsupported where its version doesn't fit, Misuse where the caller asked for what can't be.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, Self

import numpy as np

from ggml_rpc_ref.client.devices import Buffered, Bytes, Device, Devices
from ggml_rpc_ref.errors import Misuse, Unsupported, Violation
from ggml_rpc_ref.net.stream import SEEN, DeadlineMissed, PeerClosed, Stream, open_stream, parse_endpoint
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.connection import NEED_DATA, Connection, DataBegins, Event, Reply, Role
from ggml_rpc_ref.protocol.fnv import fnv1a
from ggml_rpc_ref.protocol.graph import Graph as WireGraph
from ggml_rpc_ref.spec.messages import (
    NO_REPLY,
    REQUESTS,
    DeviceCount,
    GetTensor,
    GraphCompute,
    Hello,
    RpcTensor,
    SetTensor,
    SetTensorHash,
    command_name,
    has_field,
)
from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES, Version, accepts

HASH_THRESHOLD = 10 * 2**20
"""Bytes: a stock client asks SET_TENSOR_HASH first when one call sends more than this (HASH_THRESHOLD in ggml-rpc.cpp)."""


def connect(
    endpoint: str,
    *,
    timeout: float = 60.0,
    connect_timeout: float = 10.0,
    proto: Version | str = DEFAULT,
    hashing: bool = True,
) -> Client:
    """Connect to a server and say HELLO.

    Args:
        endpoint: "host:port", "[::1]:port", or either without port.
        timeout: seconds that one answer may take; a reply to data may wait for a whole graph.
        connect_timeout: seconds for name and connection, and then for the answer to HELLO.
        proto: the version that this client speaks; the server's may be older within its major version.
        hashing: whether uploads over 10 MiB ask first whether the server has the data.

    Raises:
        Misuse: for an endpoint or version that is none.
        ConnectionError, TimeoutError: where nobody answers.
        Unsupported: where the server's version doesn't fit; the sentence names both.
        Violation: where what answers does not speak this protocol.
    """
    try:
        own = proto if isinstance(proto, Version) else Version.parse(proto)
    except ValueError as error:
        raise Misuse(str(error)) from None
    if own not in PROFILES:
        raise Misuse(f"protocol {own} is not known here; known are {', '.join(map(str, PROFILES))}")
    where = parse_endpoint(endpoint)
    client = Client(open_stream(where.host, where.port, connect_timeout), own, hashing=hashing)
    try:
        client.greet(connect_timeout)
    except BaseException:
        client.close()
        raise
    client.timeout = timeout
    return client


class Client:
    """A connection to a server, made by `connect`.

    Attributes:
        own_version: the protocol version of this client.
        server_version: what the server said in HELLO.
        timeout: seconds that one answer may take.
        hashing: whether large uploads ask SET_TENSOR_HASH first.
    """

    def __init__(self, stream: Stream, own_version: Version = DEFAULT, *, hashing: bool = True) -> None:
        self.own_version = self.server_version = own_version
        self.hashing = hashing
        self._stream, self._connection = stream, Connection(Role.CLIENT, own_version)
        self.lock = threading.RLock()
        self._over = ""
        self._unconfirmed: deque[str] = deque(maxlen=3)  # commands sent since the last reply that have none
        self._devices: Sequence[Device] | None = None

    @property
    def endpoint(self) -> str:
        """The server, as "host:port"."""
        return str(self._stream.endpoint)

    @property
    def version(self) -> Version:
        """The protocol version that is spoken: the server's."""
        return self._connection.version

    @property
    def timeout(self) -> float:
        """Seconds that one answer may take."""
        return self._stream.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._stream.timeout = seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the server frees what it held."""
        self._over = self._over or f"the connection to {self.endpoint} has been closed"
        self._stream.close()

    # ----------------------------------------------------------------------------------------------------------- HELLO

    def greet(self, timeout: float) -> None:
        """Say HELLO and decide whether the server's version fits; once, before anything else."""
        self.timeout = timeout
        reply = self.request(Hello())
        self.server_version = server = Version(reply.major, reply.minor, reply.patch)
        if not accepts(self.own_version, server):
            self._over = f"HELLO: {self.endpoint} speaks protocol {server}, this client {self.own_version}"
            raise Unsupported(f"{self._over}; the major versions must be equal, and the server's minor version not the higher one")
        # the server's layouts hold from here on; a version that is not known here has those of the last one before it
        self._connection.agree(max(version for version in PROFILES if version <= server))

    # -------------------------------------------------------------------------------------------------------- requests

    def request(self, message: Any) -> Any:
        """Send any request but SET_TENSOR and GET_TENSOR, which have methods; return the reply, or None where there is none."""
        command = command_name(type(message))
        if REQUESTS[type(message)].moves_data(self.version):
            raise Misuse(f"{command} moves data: use set_tensor or get_tensor")
        with self.lock, self._step(command):
            self._stream.send(self._connection.send(message))
            if REQUESTS[type(message)].reply(self.version) is NO_REPLY:
                self._unconfirmed.append(command)
                return None
            event = self._next_event()
            assert isinstance(event, Reply)
            return event.message

    def set_tensor(self, tensor: RpcTensor, offset: int, data: Buffered) -> None:
        """Write bytes into a tensor, sent from where they lie; over 10 MiB ask first whether the server has them."""
        view = _bytes_of(data)
        with self.lock:
            is_large = self.hashing and len(view) > HASH_THRESHOLD
            if is_large and self.request(SetTensorHash(tensor=tensor, offset=offset, hash=fnv1a(view))).result:
                return
            cache_flag = int(is_large and has_field(SetTensor, "cache_flag", self.version))
            self._set_tensor(SetTensor(tensor=tensor, offset=offset, cache_flag=cache_flag), view)

    def _set_tensor(self, message: SetTensor, view: memoryview) -> None:
        with self._step("SET_TENSOR"):
            self._stream.send(self._connection.send_with_data(message, len(view)), view)
            if REQUESTS[SetTensor].reply(self.version) is not NO_REPLY:
                self._next_event()
            else:
                self._unconfirmed.append("SET_TENSOR")

    def get_tensor(self, tensor: RpcTensor, offset: int, size: int) -> Bytes:
        """Read bytes of a tensor, received straight into the array that is returned."""
        data = np.empty(size, np.uint8)
        with self.lock, self._step("GET_TENSOR"):
            self._stream.send(self._connection.send(GetTensor(tensor=tensor, offset=offset, size=size)))
            event = self._next_event()
            assert isinstance(event, DataBegins)
            if size:  # reads are never longer than what is wanted, so none of the data has come yet
                self._stream.receive_into(data.data)
                self._connection.data_placed(size)
            self._next_event()
        return data

    def compute(self, graph: WireGraph) -> None:
        """Compute a graph; versions up to 3.0.0 say whether it went well, later ones show it only at the next reply.

        Raises:
            Unsupported: where the server says that it could not.
        """
        with self.lock, self._step("GRAPH_COMPUTE"):
            self._stream.send(self._connection.send_graph(graph))
            if REQUESTS[GraphCompute].reply(self.version) is NO_REPLY:
                self._unconfirmed.append("GRAPH_COMPUTE")
                return
            event = self._next_event()
            assert isinstance(event, Reply)
        if event.message.result != 0:
            raise Unsupported(f"GRAPH_COMPUTE: {self.endpoint} could not compute the graph, status {event.message.result}")

    def _next_event(self) -> Event:
        while (event := self._connection.next_event()) is NEED_DATA:
            self._connection.receive(self._stream.receive_exactly(self._connection.wanted))
        if isinstance(event, Reply | DataBegins):
            self._unconfirmed.clear()
        return event

    # ---------------------------------------------------------------------------------------------------------- errors

    @contextlib.contextmanager
    def _step(self, command: str) -> Iterator[None]:
        """Say of whatever goes wrong inside in which step, with whom and after which bytes; the connection is over then."""
        if self._over:
            raise ConnectionError(f"{command}: {self._over}")
        try:
            yield
        except (PeerClosed, DeadlineMissed, Violation) as error:
            self._stream.close()
            self._fail(command, error)
        except (Misuse, Unsupported):
            raise  # nothing has been sent
        except BaseException:
            # interrupted between a request and its reply: what comes next could not be told apart
            self._over = f"the connection to {self.endpoint} is over since {command} was interrupted"
            self._stream.close()
            raise

    def _fail(self, command: str, error: PeerClosed | DeadlineMissed | Violation) -> NoReturn:
        sentence = f"{self._what(command, error)}; {self._seen(error)}"
        self._over = f"the connection to {self.endpoint} is over since {command} failed"
        match error:
            case PeerClosed():
                raise ConnectionError(sentence) from None
            case DeadlineMissed():
                raise TimeoutError(sentence) from None
            case Violation():
                detail = f"{error.detail}; {command} to {self.endpoint}, {self._seen(error)}"
                raise Violation(error.rule, error.field, error.value, detail, error.offset) from None

    def _what(self, command: str, error: Exception) -> str:
        who = f"{command}: {self.endpoint}"
        if isinstance(error, DeadlineMissed):
            busy = "; an rpc-server answers one client at a time" if command == "HELLO" else ""
            return f"{command}: {error}{busy}"
        if command == "HELLO":
            own = codec.minimum_size(Hello, self.own_version)
            others = "from 4.0.0 on" if own == 0 else "before 4.0.0"
            return (
                f"{who} closed the connection instead of answering a HELLO of {own} bytes (protocol {self.own_version}); "
                f"servers {others} do so"
            )
        unanswered = ", ".join(dict.fromkeys(self._unconfirmed))
        earlier = f" or what went before it without reply ({unanswered})" if unanswered else ""
        return f"{who} closed the connection instead of answering; it refused {command}{earlier}, or died: its log may say why"

    def _seen(self, error: Exception) -> str:
        seen = (self._connection.pending + getattr(error, "seen", b""))[:SEEN]
        text = f" ({seen.decode()!r})" if seen.isascii() and seen.decode().isprintable() else ""
        return f"bytes seen: {seen.hex(' ')}{text}" if seen else "no byte had come"

    # --------------------------------------------------------------------------------------------------------- devices

    @property
    def devices(self) -> Sequence[Device]:
        """The server's devices, asked for once."""
        with self.lock:
            if self._devices is None:
                old = self.version < REQUESTS[DeviceCount].since
                count = 1 if old else self.request(DeviceCount()).device_count
                if count == 0:
                    raise Violation("device.count", "device_count", 0, f"{self.endpoint} has no device")
                self._devices = Devices(self, count)
            return self._devices

    def forget_graphs(self) -> None:
        """Send graphs in full again: a server may drop stored ones when a buffer is freed (llama.cpp #24292)."""
        for device in self._devices.made.values() if isinstance(self._devices, Devices) else ():
            device.last_graph = b""


def _bytes_of(data: Buffered) -> memoryview:
    """Return the bytes of what may be an array, in place."""
    if isinstance(data, np.ndarray):
        if not data.flags.c_contiguous:
            raise Misuse("data must lie without gaps: pass numpy.ascontiguousarray(data)")
        return data.reshape(-1).view(np.uint8).data
    view = memoryview(data)
    return view.cast("B") if view.nbytes else memoryview(b"")
