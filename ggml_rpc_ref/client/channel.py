"""Requests and replies over one connection, and what to say when one fails.

`Connection` knows the protocol and `Stream` the socket; a channel joins them: it sends a request, waits for its reply, and when
something goes wrong names the command, the server and the bytes seen. Any failure ends the connection: replies carry no id, so
after a lost one no later reply could be matched to its request.

One lock guards each request and its reply, so that threads may share a channel; a step of several requests (an upload preceded by
its hash) holds it throughout. Processes can't share one: a fork has the same socket, and would read the answers to the other's
requests. Errors: Violation where the server's bytes break the protocol, ConnectionError where it closes the connection,
TimeoutError where it does not answer in time, Unsupported where its version does not fit, Misuse for a mistake of the caller.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NoReturn, Self

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.client.sent_graphs import SentGraphs
from ggml_rpc_ref.errors import Misuse, Unsupported, Violation
from ggml_rpc_ref.net.stream import SEEN, DeadlineMissed, PeerClosed, Stream, parse_timeout
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.connection import NEED_DATA, Connection, DataBegins, Event, Reply, Role
from ggml_rpc_ref.protocol.fnv import fnv1a
from ggml_rpc_ref.protocol.graph import Graph as WireGraph
from ggml_rpc_ref.protocol.negotiation import agree, forms
from ggml_rpc_ref.spec.messages import (
    NO_REPLY,
    REQUESTS,
    FreeBuffer,
    GetTensor,
    GetTensor2d,
    GraphCompute,
    GraphRecompute,
    Hello,
    HelloReply,
    RpcTensor,
    SetTensor,
    SetTensor2d,
    SetTensorHash,
    command_name,
    has_field,
)
from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES, Version

Bytes = npt.NDArray[np.uint8]
Buffered = bytes | bytearray | memoryview | npt.NDArray[Any]

HASH_THRESHOLD = 10 * 2**20
"""Bytes: a stock client sends SET_TENSOR_HASH first when one call uploads more than this (HASH_THRESHOLD in ggml-rpc.cpp)."""


class HelloRefused(ConnectionError):  # noqa: N818  (an outcome: the other form of HELLO may be answered)
    """The server does not take this form of HELLO: it closed the connection, or answered as it would answer another form."""


class Channel:
    """A connection to a server.

    Args:
        stream: connected.
        version: the version in whose form HELLO is said.
        keeps: whether to go on in that version, as a client of llama.cpp does, and not in the server's.
        hashing: see the attribute.

    Attributes:
        own_version: the version in whose form HELLO was said.
        server_version: the version that the server named in HELLO; None before it has.
        server_caps: the transport capabilities that it offered there, which are never taken up: this client stays on TCP.
        timeout: seconds that one answer may take.
        hashing: whether large uploads ask SET_TENSOR_HASH first.
        ended: why no more requests can be sent; empty while they can.
    """

    def __init__(self, stream: Stream, version: Version = DEFAULT, *, keeps: bool = False, hashing: bool = True) -> None:
        self.own_version = version
        self.server_version: Version | None = None
        self.server_caps = b""
        self.hashing = hashing
        self._keeps = keeps
        self._stream, self._connection = stream, Connection(Role.CLIENT, version)
        # re-entrant: set_tensor holds it while its SET_TENSOR_HASH, a request of its own, takes it again
        self._lock, self._depth, self._pid = threading.RLock(), 0, os.getpid()
        self.ended = ""
        self._unconfirmed: deque[str] = deque(maxlen=3)  # commands sent since the last reply that have none
        self._sent = SentGraphs(has_field(GraphCompute, "uid", version))
        self._dropped: deque[int] = deque()  # handles of buffers that nobody can use any more

    @property
    def endpoint(self) -> str:
        """The server, as "host:port"."""
        return str(self._stream.endpoint)

    @property
    def peer(self) -> str:
        """The address that the server's name had, as "host:port"."""
        return self._stream.peer

    @property
    def version(self) -> Version:
        """The protocol version whose layouts are spoken."""
        return self._connection.version

    @property
    def timeout(self) -> float:
        """Seconds that one answer may take."""
        return self._stream.timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._stream.timeout = parse_timeout(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<connection to {self.endpoint}, {'ended' if self.ended else f'protocol {self.version}'}>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled: of two objects with one socket, each would read the other's answers."""
        raise Misuse(f"the connection to {self.endpoint} can't be copied or pickled: connect again where it is needed")

    def close(self) -> None:
        """End the connection; the server frees what it held. A request of another thread ends with a ConnectionError."""
        self.ended = self.ended or f"the connection to {self.endpoint} has been closed"
        if self.is_inherited:  # the process that it belongs to goes on with it
            self._stream.close()
        else:
            self._stream.hang_up()

    @property
    def is_inherited(self) -> bool:
        """Whether another process connected, of which this one is a fork."""
        return os.getpid() != self._pid

    def require_own_process(self) -> None:
        """Refuse another process than the one that connected.

        Raises:
            Misuse.
        """
        if self.is_inherited:
            raise Misuse(f"this connection to {self.endpoint} belongs to process {self._pid}: connect again in the forked one")

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """Keep other threads' requests out, for a step of several requests.

        Raises:
            Misuse: in another process than the one that connected.
        """
        # before the lock: a fork may have copied it while another thread held it, and then nobody here would release it
        self.require_own_process()
        with self._lock:
            self._depth += 1
            try:
                # only here: a buffer freed between a step's requests could take the stored graph along that the step relies on
                if self._depth == 1:
                    self._free_dropped()
                yield
            finally:
                self._depth -= 1

    def drop_buffer(self, remote_ptr: int) -> None:
        """Have a buffer freed before the next request.

        For finalizers, which Python may run in any thread and in the middle of a request, so that nothing can be sent there.
        """
        # no lock: a finalizer must not wait for another thread's request, and a deque's append needs none
        self._dropped.append(remote_ptr)

    def _free_dropped(self) -> None:
        while self._dropped and not self.ended:
            self.request(FreeBuffer(remote_ptr=self._dropped.popleft()))

    # ----------------------------------------------------------------------------------------------------------- HELLO

    def greet(self, timeout: float) -> None:
        """Say HELLO and settle the version; once, before any other request.

        Raises:
            HelloRefused: where the server takes another form of HELLO.
            Unsupported: where its version does not fit.
            Violation: where it breaks the protocol, for instance by naming a version whose HELLO has another form.
        """
        self.timeout = timeout
        reply = self.request(Hello())
        self.server_version, self.server_caps = Version(reply.major, reply.minor, reply.patch), reply.conn_caps
        own = self.own_version if self._keeps else None
        try:
            self._connection.agree(agree(reply, self.own_version, own).version)
            self._sent = SentGraphs(has_field(GraphCompute, "uid", self.version))
        except (Unsupported, Violation) as error:
            self.ended = f"HELLO: {self.endpoint} speaks protocol {self.server_version}, which does not fit"
            self._stream.close()
            if isinstance(error, Violation):
                raise
            raise Unsupported(f"HELLO to {self.endpoint}: {error}") from None

    # -------------------------------------------------------------------------------------------------------- requests

    def request(self, message: Any) -> Any:
        """Send a request and return its reply, or None where it has none.

        Raises:
            Misuse: for requests that move data, which have methods of their own.
        """
        command = command_name(type(message))
        if REQUESTS[type(message)].moves_data(self.version):
            raise Misuse(f"{command} moves data: use set_tensor or get_tensor")
        with self.exclusively(), self._step(command):
            payload = self._connection.send(message)
            # after encoding, which may refuse the message: then nothing was sent, and the server still has its graphs
            self._forget_graphs(message)
            self._stream.send(payload)
            if REQUESTS[type(message)].reply(self.version) is NO_REPLY:
                self._unconfirmed.append(command)
                return None
            event = self._next_event()
            assert isinstance(event, Reply)
            return event.message

    def _forget_graphs(self, message: Any) -> None:
        """Give up the belief in stored graphs that a request may replace or drop."""
        if isinstance(message, FreeBuffer):
            self._sent.forget()  # a server may drop stored graphs when a buffer is freed (llama.cpp #24292)
        elif isinstance(message, GraphCompute):
            self._sent.forget(message.device)

    def set_tensor(self, tensor: RpcTensor, offset: int, data: Buffered) -> None:
        """Write bytes into a tensor, sent without a copy; over 10 MiB ask first whether the server already has them."""
        view = bytes_of(data)
        with self.exclusively():
            is_large = self.hashing and len(view) > HASH_THRESHOLD
            if is_large and self.request(SetTensorHash(tensor=tensor, offset=offset, hash=fnv1a(view))).result:
                return
            cache_flag = int(is_large and has_field(SetTensor, "cache_flag", self.version))
            self._set_tensor(SetTensor(tensor=tensor, offset=offset, cache_flag=cache_flag), view)

    def _set_tensor(self, message: SetTensor | SetTensor2d, view: memoryview) -> None:
        command = command_name(type(message))
        with self._step(command):
            self._stream.send(self._connection.send_with_data(message, len(view)), view)
            if REQUESTS[type(message)].reply(self.version) is not NO_REPLY:
                self._next_event()
            else:
                self._unconfirmed.append(command)

    def set_rows(self, message: SetTensor2d, data: Buffered) -> None:
        """Write rows into a tensor, sent without a copy.

        Raises:
            Unsupported: where the version has no SET_TENSOR_2D.
        """
        view = bytes_of(data)
        with self.exclusively():
            self.require(SetTensor2d)
            self._set_tensor(message, view)

    def get_rows(self, message: GetTensor2d) -> Bytes:
        """Read rows of a tensor, received directly into the array that is returned (uint8).

        Raises:
            Unsupported: where the version has no GET_TENSOR_2D.
        """
        with self.exclusively():
            self.require(GetTensor2d)
            return self._get_data(message, message.size * message.n_copies)

    def require(self, request: type) -> None:
        """Refuse a request that the version does not have.

        Raises:
            Unsupported.
        """
        row = REQUESTS[request]
        if self.version < row.since:
            raise Unsupported(f"{row.name} came with protocol {row.since}, and {self.endpoint} speaks {self.version}")

    def get_tensor(self, tensor: RpcTensor, offset: int, size: int) -> Bytes:
        """Read bytes of a tensor, received directly into the array that is returned (uint8)."""
        with self.exclusively():
            return self._get_data(GetTensor(tensor=tensor, offset=offset, size=size), size)

    def _get_data(self, message: GetTensor | GetTensor2d, size: int) -> Bytes:
        data = np.empty(size, np.uint8)
        with self._step(command_name(type(message))):
            self._stream.send(self._connection.send(message))
            event = self._next_event()
            assert isinstance(event, DataBegins)
            if size:  # no read asks for more than the size field here, so none of the data has arrived yet
                self._stream.receive_into(data.data)
                self._connection.data_placed(size)
            self._next_event()
        return data

    def compute(self, graph: WireGraph) -> None:
        """Compute a graph; one that its device still has, by GRAPH_RECOMPUTE.

        Early versions answer with a status; in later ones a failure shows only at the next reply.

        Raises:
            Unsupported: where the server answers that it failed, or is of a patch that we don't know.
        """
        if not self._keeps and self.server_version not in PROFILES:
            raise Unsupported(
                f"protocol {self.server_version} is none of upstream's known here, and its ops may have other numbers"
            )
        payload = graph.encode(self.version)
        with self.exclusively():
            known = self._sent.find(graph.device, payload)
            if known is not None and self.version >= REQUESTS[GraphRecompute].since:
                self.request(GraphRecompute(device=graph.device, uid=known))
                return
            # forgotten before, noted after: whether the server has it is unknown if sending fails
            uid = self._sent.replace(graph.device)
            self._compute(replace(graph, uid=uid))
            self._sent.add(graph.device, payload, uid)

    def _compute(self, graph: WireGraph) -> None:
        with self._step("GRAPH_COMPUTE"):
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
        """Add command, server and bytes seen to any error raised inside, and end the connection."""
        if self.ended:
            raise ConnectionError(f"{command}: {self.ended}")
        try:
            yield
        except (PeerClosed, DeadlineMissed, Violation) as error:
            self._stream.close()
            self._fail(command, error)
        except (Misuse, Unsupported):
            raise  # raised before anything was sent: the connection is still usable
        except BaseException:
            # interrupted between a request and its reply: the next reply could not be matched to its request
            self.ended = f"the connection to {self.endpoint} is over since {command} was interrupted"
            self._stream.close()
            raise

    def _fail(self, command: str, error: PeerClosed | DeadlineMissed | Violation) -> NoReturn:
        if self.ended:
            raise ConnectionError(f"{command}: {self.ended}, by another thread") from None
        sentence = f"{self._what(command, error)}; {self._seen(error)}"
        self.ended = f"the connection to {self.endpoint} is over since {command} failed"
        if command == "HELLO" and self._is_other_form(error):
            raise HelloRefused(sentence) from None
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
            size = codec.minimum_size(Hello, self.own_version)
            return f"{who} closed the connection instead of answering a HELLO of {size} bytes (protocol {self.own_version})"
        unanswered = ", ".join(dict.fromkeys(self._unconfirmed))
        earlier = f" or an earlier request without a reply ({unanswered})" if unanswered else ""
        return f"{who} closed the connection instead of answering; it refused {command}{earlier}, or died: its log may say why"

    def _is_other_form(self, error: PeerClosed | DeadlineMissed | Violation) -> bool:
        """Whether HELLO ended as it does at a server that knows another form of it."""
        if isinstance(error, Violation):
            # it took HELLO without a look at its size, and answers as its version does
            return error.rule == "frame.size-fixed" and error.value in {codec.minimum_size(HelloReply, form) for form in forms()}
        return isinstance(error, PeerClosed) and not self._connection.pending and not error.seen

    def _seen(self, error: Exception) -> str:
        seen = (self._connection.pending + getattr(error, "seen", b""))[:SEEN]
        text = f" ({seen.decode()!r})" if seen.isascii() and seen.decode().isprintable() else ""
        return f"bytes seen: {seen.hex(' ')}{text}" if seen else "no byte had arrived"


def bytes_of(data: Buffered) -> memoryview:
    """Return a view of the bytes of a buffer or array, without a copy.

    Raises:
        Misuse: where they do not lie one after the other, or it has none.
    """
    if isinstance(data, np.ndarray):
        if data.dtype.hasobject:
            raise Misuse("data must be numbers or bytes, not an array of objects")
        if not data.flags.c_contiguous:
            raise Misuse("data must be contiguous: pass numpy.ascontiguousarray(data)")
        return data.reshape(-1).view(np.uint8).data
    try:
        view = memoryview(data)
    except TypeError:
        raise Misuse(f"data must be an array or bytes, not {type(data).__name__}") from None
    if not view.c_contiguous:
        raise Misuse("data must be contiguous: pass bytes(data)")
    # memoryview can't cast a view with a 0 in its shape
    return view.cast("B") if view.nbytes else memoryview(b"")
