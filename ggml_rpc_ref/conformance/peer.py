"""The server under test as a case sees it: connections to open, requests to send, and what must come back.

The checks that all cases share are here: how a reply is checked, what counts as a refusal, when a stream is out of step. A
refusal is the end of the connection, however TCP shows it (FIN, RST, EPIPE), before any byte of a reply. A request without a
reply is always followed by a sentinel, DEVICE_COUNT, on the same connection (GET_ALIGNMENT, where the version has no DEVICE_COUNT):
its answer distinguishes acceptance from refusal, and shows whether there was a byte too many or too few before it.

A peer keeps no `Order`, since cases break the order on purpose; `order.awaited` tells it which reply a request gets, and how large
it is.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, cast

from ggml_rpc_ref.conformance.verdict import Broken, NotJudged, Verdict
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.net.stream import DeadlineMissed, Endpoint, PeerClosed, Stream, open_stream
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.order import awaited
from ggml_rpc_ref.spec.dialects import recognised
from ggml_rpc_ref.spec.dtypes import BY_NUMBER
from ggml_rpc_ref.spec.messages import (
    NO_REPLY,
    REQUESTS,
    AllocBuffer,
    BufferGetBase,
    DeviceCount,
    DeviceCountReply,
    GetAlignment,
    GetAlignmentReply,
    GetDeviceMemory,
    GetTensor,
    GetTensorReply,
    GraphCompute,
    GraphComputeReply,
    Hello,
    HelloReply,
    Message,
    Reply,
    RpcTensor,
    SetTensor,
    by_number,
    command_name,
    has_field,
)
from ggml_rpc_ref.spec.opcodes import kinds, op_table
from ggml_rpc_ref.spec.versions import Version

T = TypeVar("T")
Literal = bytes | bytearray | memoryview
"""Bytes, which are sent as they are; messages are encoded."""

TENSOR_FIELDS = ("tensor", "src", "dst", "srcs", "tensors")
"""Fields of requests that hold tensors, one or several."""
REFUSAL = "the connection to be closed without a reply byte"
SHOWN_BYTES = 48
"""Bytes of a message that a transcript shows."""
REST_TIMEOUT = 0.05
"""Seconds to wait for the rest of an answer that should not have come: a server may send it in several pieces."""
TRANSCRIPT_LINES = 40
"""The last lines that a transcript keeps."""
LEAVING = 1.0
"""Seconds within which a server notices that a client has left."""
NOTICED = 0.01
"""Seconds that a server of one client which turns others away may take from the end of one until it takes the next."""
SECOND_CLIENT_TIMEOUT = 2.0
"""Seconds without an answer to a second client after which the server is taken to serve one client at a time."""


@dataclass(slots=True)
class Facts:
    """What is known about the server; learnt once, valid for the whole run.

    Attributes:
        version: the version whose layouts are spoken: the one that it announces, unless it is judged as another sees it.
        device_count: from its DEVICE_COUNT reply; 1 where its version has none.
        one_client: whether it left a second client waiting, or turned it away; None: not tried yet.
        turns_away: whether it closes the connection of a second client.
        pid: id of its process, where we started it.
        announced: the version in its HELLO reply; None: `version`.
        alignment: from its GET_ALIGNMENT reply, where its version has no DEVICE_COUNT.
        useless: command that does not work to why, as the diagnosis found; cases that need it are not judged.
        slowest: seconds that its slowest answer took.
        refused: ops that it refuses in graphs of one node, each with the types of its sources, as the diagnosis found.
        lacking: numbers of the types of which it refuses tensors, as the diagnosis found, but for those that all must have.
    """

    version: Version
    device_count: int = 1
    one_client: bool | None = None
    turns_away: bool = False
    pid: int | None = None
    announced: Version | None = None
    alignment: int = 0
    useless: dict[str, NotJudged] = field(default_factory=dict)
    slowest: float = 0.0
    refused: frozenset[tuple[str, tuple[str, ...]]] = frozenset()
    lacking: frozenset[int] = frozenset()

    @property
    def spoken(self) -> str:
        """The version that it announces and, where that is another one, the version that it is judged as, in words."""
        announced = self.announced or self.version
        return str(announced) if announced == self.version else f"{announced}, judged as {self.version}"

    def has(self, request: type) -> bool:
        """Whether the version has a request."""
        return REQUESTS[request].since <= self.version

    def sentinel_reply(self, sentinel: Message) -> DeviceCountReply | GetAlignmentReply:
        """Return the known answer to the sentinel."""
        if isinstance(sentinel, DeviceCount):
            return DeviceCountReply(device_count=self.device_count)
        return GetAlignmentReply(alignment=self.alignment)


@dataclass(frozen=True, slots=True)
class Buffer:
    """A buffer on the server; `size` is what it said that it granted, which may be more than was asked for."""

    remote_ptr: int
    base: int
    size: int
    device: int = 0


class TranscriptPiece(NamedTuple):
    """A piece of a case's conversation.

    Attributes:
        connection: its number within the case, from 1; 0: of none, how a client ended.
        verb: "sent" or "got".
        what: the messages that were sent; "FIN" or "RST"; how the connection stands after what was received ("end", "nothing").
        data: the bytes.
    """

    connection: int
    verb: str
    what: str
    data: bytes

    def __str__(self) -> str:
        shown = f" {len(self.data)} bytes {self.data[:SHOWN_BYTES].hex()}" if self.data else ""
        return f"{self.connection} {self.verb}{' ' * bool(self.what)}{self.what}{shown}{'…' * (len(self.data) > SHOWN_BYTES)}"


@dataclass(slots=True)
class Subject:
    """The server under test, for the length of one case.

    Attributes:
        endpoint: where it listens.
        timeout: seconds that each answer may take.
        facts: what is known about it.
        judges: the command that the case is about, which is sent whether or not it was found to work.
        peers: the connections opened so far.
        record: everything that was sent and received.
        lacks: an op of a graph that was sent, or a type, of which the diagnosis found that the server refuses it; "": none.
    """

    endpoint: Endpoint
    timeout: float
    facts: Facts
    judges: str = ""
    peers: list[Peer] = field(default_factory=list)
    record: list[TranscriptPiece] = field(default_factory=list)
    lacks: str = ""

    @property
    def transcript(self) -> tuple[str, ...]:
        """The last messages in both directions, abbreviated, one per line."""
        return tuple(map(str, self.record[-TRANSCRIPT_LINES:]))

    @property
    def sentinel(self) -> DeviceCount | GetAlignment:
        """A request that changes nothing, and whose answer is known and always the same."""
        return DeviceCount() if self.facts.has(DeviceCount) else GetAlignment()

    def received(self) -> bytes:
        """Return what was received so far, on all connections."""
        return b"".join(said.data for said in self.record if said.verb == "got")

    def open(self) -> Peer:
        """Return a new connection on which nothing has been sent."""
        try:
            stream = open_stream(*self.endpoint, timeout=self.timeout)
        except DeadlineMissed as missed:
            raise Broken("a new connection to be accepted", str(missed), verdict=Verdict.HANG) from None
        except ConnectionError as error:
            raise Broken("a new connection to be accepted", str(error)) from None
        peer = Peer(stream, self, len(self.peers) + 1)
        self.peers.append(peer)
        return peer

    def connect(self) -> Peer:
        """Return a new connection after its HELLO; the version must be the one that the run began with."""
        end = time.monotonic() + LEAVING
        while True:
            peer = self.open()
            try:
                peer.hello()
                return peer
            except Broken as broken:
                # a server of one client that turns others away may not have noticed yet that the one before has left
                alone = all(other.is_closed for other in self.peers[:-1])
                if not (broken.refused and self.facts.one_client is not False and alone and time.monotonic() < end):
                    raise
                self.peers.pop().close()
                time.sleep(REST_TIMEOUT)

    def connect_second(self) -> Peer:
        """Return a connection in addition to those that are open.

        Raises:
            NotJudged: where the server leaves a second client without an answer.
        """
        if not self.answers_second_client():
            raise NotJudged("it serves one client at a time")
        return self.connect()

    def answers_second_client(self) -> bool:
        """Whether a client is answered while another one is connected; tried once per run."""
        if self.facts.one_client is None:
            # a shorter deadline for this question alone: a server that serves one client at a time lets it pass
            keep, self.timeout = self.timeout, min(self.timeout, SECOND_CLIENT_TIMEOUT)
            try:
                self.connect().close()
                self.facts.one_client = False
            except Broken as broken:
                if broken.verdict is not Verdict.HANG and not broken.refused:
                    raise
                self.facts.one_client, self.facts.turns_away = True, broken.refused
                # it stays open: a genuine server that later answered a client that has gone would die of SIGPIPE
                self.peers[-1].is_waiting = not broken.refused
            finally:
                self.timeout = keep
        return not self.facts.one_client

    def check_alive(self) -> None:
        """Check that the server still serves: a new connection, HELLO, the sentinel."""
        peer = self.connect()
        peer.sync()
        peer.close()

    def other_device(self) -> int:
        """Return a device other than 0.

        Raises:
            NotJudged: where it has only one.
        """
        if self.facts.device_count < 2:
            raise NotJudged("it has one device")
        return 1

    def op(self, name: str) -> int:
        """Return the number of an op in the server's op table.

        Raises:
            NotJudged: where it is a fork.
        """
        self.need_upstreams_numbers("ops")
        return op_table(self.facts.version).index(name)

    def need_upstreams_numbers(self, what: str) -> None:
        """Go on only where ops or types have the numbers that upstream gave them.

        Raises:
            NotJudged: for a fork: which numbers it has given them, nothing says.
        """
        fork = recognised(self.facts.announced) if self.facts.announced is not None else None
        if fork is not None:
            raise NotJudged(f"it says {self.facts.announced}, as {fork.name} does, whose {what} have numbers of their own")

    def kind(self, op: str, number: int) -> int:
        """Return the number that the server's version has for a kind of UNARY or GLU, given ours; any other number as it is."""
        ours, theirs = kinds(op), kinds(op, self.facts.version)
        return theirs.index(ours[number]) if 0 <= number < len(ours) else number

    def close(self) -> None:
        """Close every connection, those last that the server has not served yet."""
        # False sorts before True: a waiting peer is answered only once the others have gone
        for peer in sorted(self.peers, key=lambda peer: peer.is_waiting):
            peer.close()


class Peer:
    """One connection to the server under test.

    Args:
        stream: connected.
        subject: the server.
        number: of the connection within its case, for the transcript.

    Attributes:
        is_waiting: whether it has no answer because the server serves another connection first.
        is_closed: whether this end has closed it.
    """

    def __init__(self, stream: Stream, subject: Subject, number: int) -> None:
        self._stream, self.subject, self._number = stream, subject, number
        self.version, self.is_waiting, self.is_closed = subject.facts.version, False, False

    @property
    def local_host(self) -> str:
        """The address by which the server can reach this machine."""
        return self._stream.local_host

    # --------------------------------------------------------------------------------------------------------- sending

    def send(self, *what: object) -> None:
        """Send messages and literal bytes in one piece; that the server has closed the connection is noticed on reading.

        Raises:
            NotJudged: for a command that the diagnosis found not to work, unless the case is about it and it is asked for.
        """
        self.need(*(type(w) for w in what if not isinstance(w, Literal)))
        for graph in (w for w in what if isinstance(w, GraphCompute)):
            self.note_ops(graph)
        if self.subject.facts.lacking:
            self._note_types(what)
        data = b"".join(bytes(w) if isinstance(w, Literal) else codec.encode_request(cast(Message, w), self.version) for w in what)
        self._note("sent", data, ", ".join(map(_label, what)))
        try:
            self._stream.send(data)
        except PeerClosed:
            pass  # refused before everything was sent: reading will show it
        except DeadlineMissed as missed:
            raise Broken("the server to take what is sent", str(missed), verdict=Verdict.HANG) from None

    def note_ops(self, graph: GraphCompute) -> None:
        """Take note of an op that the server is known to refuse; for cases that send the graph as literal bytes.

        One that is refused with its sources is refused with more of them, too.
        """
        facts = self.subject.facts
        if not facts.refused:
            return
        names, types = op_table(facts.version), {it.id: BY_NUMBER[it.type].name for it in graph.tensors if it.type in BY_NUMBER}
        for node in (it for it in graph.tensors if it.id in graph.nodes and it.op < len(names)):
            found = tuple(types.get(id, "") for id in node.src if id)
            if any((names[node.op], found[:count]) in facts.refused for count in range(len(found) + 1)):
                self.subject.lacks = names[node.op]

    def _note_types(self, what: Sequence[object]) -> None:
        """Take note of a type that the server is known to lack."""
        for found in (getattr(message, name, ()) for message in what for name in TENSOR_FIELDS):
            for tensor in found if isinstance(found, tuple) else (found,):
                if isinstance(tensor, RpcTensor) and tensor.type in self.subject.facts.lacking:
                    self.subject.lacks = f"the type {BY_NUMBER[tensor.type].name}"

    def need(self, *requests: type) -> None:
        """Say which requests are about to be sent; for cases that send them as literal bytes.

        Raises:
            NotJudged: as `send`.
        """
        for name in map(command_name, requests):
            useless = self.subject.facts.useless.get(name)
            if useless and (name != self.subject.judges or useless.verdict is Verdict.UNSUPPORTED):
                raise useless

    def finish_sending(self) -> None:
        """End sending (FIN): no more requests will come."""
        self._note("sent", b"", "FIN")
        self._stream.finish_sending()

    def reset(self) -> None:
        """Reset the connection (RST)."""
        self._note("sent", b"", "RST")
        self._stream.reset()
        self.is_closed = True

    def close(self) -> None:
        """Close the connection. If its HELLO is not answered yet, wait for the answer: SIGPIPE would kill the genuine server."""
        if self.is_waiting:
            with contextlib.suppress(PeerClosed, DeadlineMissed):
                self._stream.receive(64)
        if self.subject.facts.turns_away and not self.is_closed:
            # the next client is turned away until the server has noticed
            self._stream.finish_sending()
            self._stream.wait_closed(LEAVING)
            time.sleep(NOTICED)
        self._stream.close()
        self.is_closed = True

    # ------------------------------------------------------------------------------------------------------- receiving

    def take(self, size: int, what: str) -> bytes:
        """Return the next `size` bytes; for cases that compare literal bytes."""
        began, facts = time.monotonic(), self.subject.facts
        try:
            data = self._stream.receive_exactly(size)
        except PeerClosed as closed:
            self._note("got", closed.seen, "end")
            end = f"the connection was closed{_after(closed.count, closed.seen)}"
            raise Broken(what, end, refused=not closed.count) from None
        except DeadlineMissed as missed:
            self._note("got", missed.seen, "nothing more")
            raise Broken(what, f"nothing came in time{_after(missed.count, missed.seen)}", verdict=Verdict.HANG) from None
        facts.slowest = max(facts.slowest, time.monotonic() - began)
        self._note("got", data, what)
        return data

    def has_answer(self) -> bool:
        """Whether something has come that was not read yet, or the end."""
        return self._stream.has_unread()

    def take_end(self) -> None:
        """Require that the server, which has answered everything, ends the connection after our FIN without another byte."""
        ending = self._stream.wait_closed()
        self._note("got", ending.leftover, "end" if ending.closed else "nothing more")
        if ending.leftover:
            raise Broken(
                "nothing after the last reply",
                f"got {_bytes(ending.leftover)} more",
                "frame.reply-presence",
                Verdict.DESYNC,
            )
        if not ending.closed:
            raise Broken("the server to end the connection after our FIN", "it stayed open", verdict=Verdict.HANG)

    def wait_end(self) -> None:
        """Wait until the server ends the connection or the deadline passes, ignoring what comes."""
        self._stream.wait_closed()

    def reply(self, request: object) -> Any:
        """Return the reply to a request that has been sent; its size must be the table's."""
        expected = f"the reply to {_label(request)}"
        cls = by_number(self.version)[request[0]].cls if isinstance(request, Literal) else type(request)
        due = awaited(cls, request, self.version)
        assert due is not None  # cases read a reply only where there is one
        cls, size = due.reply, due.size
        (announced,) = codec.REPLY_HEAD.unpack(self.take(8, expected))
        if announced != size:
            raise Broken(
                f"{expected} to have {size} bytes", f"its size field says {announced}", "frame.reply-presence", Verdict.DESYNC
            )
        payload = self.take(size, expected)
        try:
            return codec.decode(cls, payload, self.version)
        except Violation as violation:
            raise Broken(expected, str(violation), "frame.reply-presence", Verdict.DESYNC) from None

    def refused(self, unless: Callable[[bytes], bool] = lambda _: False) -> None:
        """Require that the server ends the connection without another byte.

        Args:
            unless: gets what came instead, and says whether that is allowed too.
        """
        try:
            # one receive is enough: any byte at all breaks the rule, and the rest is for the message only
            data = self._stream.receive(4096)
        except PeerClosed:
            self._note("got", b"", "end")
            return
        except DeadlineMissed:
            self._note("got", b"", "nothing")
            raise Broken(REFUSAL, "neither an end nor an answer came in time", verdict=Verdict.HANG) from None
        if not _is_whole(data):
            data += self._stream.wait_closed(REST_TIMEOUT).leftover
        self._note("got", data, "")
        if not unless(data):
            raise Broken(REFUSAL, self._meaning(data))

    def _meaning(self, data: bytes) -> str:
        """Describe bytes that came where none were allowed."""
        sentinel = codec.encode_reply(self.subject.facts.sentinel_reply(self.subject.sentinel), self.version)
        accepted = "it was accepted: the next request was answered" if data == sentinel else "it was answered"
        return f"{accepted} with {_bytes(data)}"

    # --------------------------------------------------------------------------------------------------- conversations

    def hello(self) -> None:
        """Send HELLO; the version must be the one that the run began with."""
        reply: HelloReply = self.ask(Hello())
        found = Version(reply.major, reply.minor, reply.patch)
        expected = self.subject.facts.announced or self.version
        if found != expected:
            raise Broken(f"HELLO to be answered with {expected} again", f"got {found}", "session.hello-version")

    def ask(self, request: Any) -> Any:
        """Send a request and return its reply."""
        self.send(request)
        return self.reply(request)

    def tell(self, *requests: object) -> None:
        """Send requests and a sentinel after them: the server must accept them; replies, where the version has some, are read."""
        self.send(*requests, self.subject.sentinel)
        for request in requests:
            self.done(request)
        self.in_step()

    def sync(self) -> None:
        """Send only the sentinel: the stream must be in step."""
        self.tell()

    def done(self, request: object) -> None:
        """Read the reply to a request that the server must have accepted, where there is one."""
        if is_silent(request, self.version):
            return
        reply = self.reply(request)
        if isinstance(reply, GraphComputeReply) and reply.result != 0:
            raise Broken("the graph to be computed, status 0", f"got status {reply.result}")

    def in_step(self) -> None:
        """Require that the answer to the sentinel comes next."""
        sentinel, facts = self.subject.sentinel, self.subject.facts
        got, known = self.reply(sentinel), facts.sentinel_reply(sentinel)
        if got != known:
            rule = "device.count" if isinstance(got, DeviceCountReply) else "device.alignment"
            raise Broken(f"{_label(sentinel)} to say {_said(known)} again", f"got {_said(got)}", rule, Verdict.DESYNC)

    def refuses(self, request: object) -> None:
        """Send a request that the server must refuse, followed by the sentinel if it has no reply.

        In versions in which GRAPH_COMPUTE is answered with a status, one other than 0 is a refusal too.
        """
        # no sentinel after a request with a reply, whose acceptance shows by itself; a list times a bool
        self.send(request, *[self.subject.sentinel] * is_silent(request, self.version))
        answers_status = _reply_class(request, self.version) is GraphComputeReply
        self.refused(unless=_says_failed if answers_status else lambda _: False)

    def takes(self, request: object) -> None:
        """Send a request that the server must accept, with or without a reply."""
        if is_silent(request, self.version):
            self.tell(request)
        else:
            self.send(request)
            self.done(request)

    # ------------------------------------------------------------------------------------------------------- shorthand

    def alloc(self, size: int, device: int = 0) -> Buffer:
        """Return a new buffer of at least this size.

        Raises:
            NotJudged: where the server says that it has no room for it, as it may.
        """
        got = self.ask(AllocBuffer(device=device, size=size))
        if (got.remote_ptr, got.remote_size) == (0, 0):
            raise self.no_room(size, device)
        if not got.remote_ptr or got.remote_size < size:
            raise Broken(f"a buffer of {size} bytes", f"got {got.remote_ptr:#x} of {got.remote_size}", "buffer.alloc-size")
        base = self.ask(BufferGetBase(remote_ptr=got.remote_ptr)).base_ptr
        # a server may grant more than was asked for, as ik_llama.cpp's does: its end is where the server says
        return Buffer(got.remote_ptr, base, got.remote_size, device)

    def no_room(self, size: int, device: int = 0) -> NotJudged:
        """Return why a case is not judged on a server that has answered ALLOC_BUFFER with (0, 0)."""
        free = "" if "GET_DEVICE_MEMORY" in self.subject.facts.useless else self.ask(GetDeviceMemory(device=device)).free_mem
        return NotJudged(f"no room for {size} bytes" + f", {free} free" * (free != ""))

    def write(self, tensor: RpcTensor, data: bytes, offset: int = 0, cached: bool = False) -> None:
        """Write into a tensor; `cached`: the server may keep the data in its cache, where the version has a flag for that."""
        flag = int(cached and has_field(SetTensor, "cache_flag", self.version))
        self.tell(SetTensor(tensor=tensor, cache_flag=flag, offset=offset, data=data))

    def read(self, tensor: RpcTensor, size: int, offset: int = 0) -> bytes:
        """Read from a tensor."""
        reply: GetTensorReply = self.ask(GetTensor(tensor=tensor, offset=offset, size=size))
        return reply.data

    def _note(self, verb: str, data: bytes, what: str) -> None:
        self.subject.record.append(TranscriptPiece(self._number, verb, what, data))


def is_silent(request: object, version: Version) -> bool:
    """Whether a request gets no reply; of literal bytes the first says which request they are."""
    return _reply_class(request, version) is NO_REPLY


def _reply_class(request: object, version: Version) -> Reply | None:
    """Return what a version answers to a request; None where literal bytes are none that it has."""
    row = by_number(version).get(request[0]) if isinstance(request, Literal) else REQUESTS[type(request)]
    return row.reply(version) if row is not None else None


def _says_failed(data: bytes) -> bool:
    """Whether data are a reply to GRAPH_COMPUTE with a status other than 0."""
    return len(data) == 9 and data[:8] == codec.REPLY_HEAD.pack(1) and data[8] != 0


def _is_whole(data: bytes) -> bool:
    """Whether data begin with a complete reply: size field and payload."""
    return len(data) >= 8 and len(data) - 8 >= codec.REPLY_HEAD.unpack_from(data)[0]


def _said(reply: DeviceCountReply | GetAlignmentReply) -> int:
    return reply.device_count if isinstance(reply, DeviceCountReply) else reply.alignment


def _label(what: object) -> str:
    return f"{len(what)} literal bytes" if isinstance(what, Literal) else command_name(type(what))


def _bytes(data: bytes) -> str:
    return f"{len(data)} byte{'s' * (len(data) != 1)} ({data[:16].hex()}{'…' if len(data) > 16 else ''})"


def _after(count: int, seen: bytes) -> str:
    return f" after {count} bytes ({seen[:16].hex()})" if count else ""
