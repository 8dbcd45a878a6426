"""One connection of a server: bytes to `Connection` and `Session` and back, in a thread of its own.

How a request travels: bytes from the peer's `Channel` into its `Connection`, which yields messages in order; each message to its
`Session`, which answers it; the reply's bytes from the connection back to the channel. No message is treated in a special way but
HELLO, whose size decides between the versions that the server speaks, and those whose data move past the codec: SET_TENSOR's are
received straight into the buffer, GET_TENSOR's are sent from it. The kernel's timeouts wake a waiting connection to check its
deadlines. Between messages C waits, where it was compiled, and answers by itself what has been answered before (`known`); bytes
that it does not know, and whatever goes less than smoothly, take the way described.

Whatever a peer does ends at most its own connection: its buffers are freed, then its socket is closed, and then one line in the log
says why and what it did; in this order, so that a log that nobody reads holds nothing else up. A graph that is being computed stops
between two of its steps when the server stops or the peer has gone.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

from ggml_rpc_ref.backends import DeviceFault, Stopped
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.net.again import Ending
from ggml_rpc_ref.net.channel import Channel, Peer, Waited
from ggml_rpc_ref.protocol.connection import MAX_GRAPH_SIZE, NEED_DATA, Connection, DataBegins, Request, Role
from ggml_rpc_ref.protocol.graph import Graph, request_class
from ggml_rpc_ref.protocol.order import Order
from ggml_rpc_ref.server import advice
from ggml_rpc_ref.server.communicator import Meeting
from ggml_rpc_ref.server.handlers import Host, Session
from ggml_rpc_ref.server.known import Known
from ggml_rpc_ref.server.metrics import Work
from ggml_rpc_ref.server.pace import SLOWEST, Pace
from ggml_rpc_ref.server.session import Area
from ggml_rpc_ref.spec.messages import (
    NO_REPLY,
    GraphCompute,
    GraphRecompute,
    Message,
    SetTensor,
    SetTensor2d,
    SetTensorHashReply,
    carries_data,
    command_name,
)

log = logging.getLogger(__name__)

READ: Final = 2**16
"""Bytes of messages read at once."""
NOTHING: Final = memoryview(b"")
COMPUTING: Final = (Graph, GraphRecompute)
"""Requests that are counted as graphs."""
LOOK: Final = 0.05
"""Seconds of computing after which the peer is looked at again: often enough to notice its end, seldom enough to cost nothing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a peer may take, and how much it may use.

    Attributes:
        connections: connections at the same time; one more is closed at once.
        of_one_address: those of one address (of IPv6: of one /64, which a single host may have for itself); None: half of all, but
            all of this machine's own addresses.
        hello: seconds from the connection to the end of its HELLO.
        stall: seconds without a byte in the middle of a message, or of a reply that the peer does not read.
        slowest: bytes a second that a message or a reply must make in each `stall` seconds (`Pace`).
        idle: seconds between messages; None: for ever, as stock clients need it.
        half_closed: seconds that a graph may go on once the peer has ended its sending while it may still await replies: it has
            half-closed the connection, or it is gone (TCP doesn't tell which).
        graph_size: bytes of a GRAPH_COMPUTE.
        spare_empty: seconds of idleness after which a connection without buffers is ended when the server is full and another
            one wants in.
        spare_full: the same for a connection that has buffers.
    """

    connections: int = 256
    of_one_address: int | None = None
    hello: float = 10.0
    stall: float = 60.0
    idle: float | None = None
    half_closed: float = 10.0
    graph_size: int = MAX_GRAPH_SIZE
    slowest: float = SLOWEST
    spare_empty: float = 5.0
    spare_full: float = 600.0

    def most_of(self, origin: Origin) -> int:
        """Return how many connections an address may have at the same time."""
        if self.of_one_address is not None:
            return self.of_one_address
        return self.connections if origin.is_loopback else (self.connections + 1) // 2

    @property
    def tick(self) -> float:
        """Seconds after which a waiting connection checks its deadlines: no limit is overrun by more than a quarter."""
        shortest = min(self.hello, self.stall, self.stall if self.idle is None else self.idle)
        return min(5.0, max(0.02, shortest / 4))


Origin = ipaddress.IPv4Address | ipaddress.IPv6Network
"""What counts as one peer's address."""


def origin(address: str) -> Origin:
    """Return what a peer's address counts as: of IPv6 its /64, any of whose 2^64 addresses one host can take."""
    ip = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    # a socket bound to "::" shows IPv4 peers as ::ffff:a.b.c.d
    return ip.ipv4_mapped or ipaddress.IPv6Network((ip, 128 if ip.is_loopback else 64), strict=False)


class Owner(Protocol):
    """What a connection needs of its server."""

    host: Host
    limits: Limits
    meeting: Meeting
    stopping: bool
    session_type: ClassVar[type[Session]]
    connection_type: ClassVar[type[Connection]]


class _Ended(Exception):  # noqa: N818
    """The connection is over, for the reason given."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How a connection ended, as the log says it."""

    level: int
    event: str
    text: str
    fields: dict[str, Any]


class Served:
    """One connection: its channel, its order of messages, its session.

    Args:
        server: what it is a connection of.
        channel: the accepted socket, from now on this object's.
        name: the peer's address and port.

    Attributes:
        address: the peer's address.
        origin: what the address counts as.
        ended_for: why the server has ended it, where it has.
        over: whether its end has been seen to: it takes no place any more, though it may still have to be logged.
    """

    def __init__(self, server: Owner, channel: Channel, name: str) -> None:
        self.name, self.address = name, name.rpartition(":")[0]
        self.origin = origin(self.address)
        self._work, self.ended_for, self.over = Work(), "", False
        self._server, self._limits, self._channel = server, server.limits, channel
        order: Order[Any] = Order(server.host.version, by_hello=server.host.versions)
        self._connection = server.connection_type(Role.SERVER, server.host.version, server.limits.graph_size, order)
        self._session: Session | None = None
        self._opened = False
        self._room = bytearray(READ)
        self._known: Known | None = None  # None before HELLO, and where C is not to answer
        self._batch: memoryview | None = None  # what C has handed on, as long as no more has been received after it
        self._at = 0  # where in it the message begins that is read next
        self._pace: Pace | None = None  # of the message that is arriving
        self._idle_since: float | None = self._work.opened  # None while a message arrives or is answered
        self._next_look, self._finished = 0.0, 0.0  # when to look at the peer again; since when it has ended its sending

    def converse(self) -> None:
        """Answer requests until the connection ends, then free all it had. Never raises."""
        self._log(logging.INFO, "opened", "")
        outcome = self._serve()
        self.close()
        if self.ended_for:
            outcome = _Outcome(logging.INFO, "ended", self.ended_for, {})
        spoken = f"protocol {self._connection.version}, " if self._opened else ""
        self._log(outcome.level, outcome.event, f"{outcome.text} ({spoken}{self.work})", work=self.work.as_json(), **outcome.fields)

    def _serve(self) -> _Outcome:
        try:
            with self._server.session_type(self._server.host) as session:  # freed before the peer sees the end
                self._session = session
                session.cancelled, session.peer, session.meeting = self._is_cancelled, self.name, self._server.meeting
                if self._server.host.tensors is not None:
                    session.tensors = self._server.host.tensors.for_client(self.address)
                self._channel.set_up(self._limits.tick, self._limits.tick)
                self._channel.keep_alive()
                self._answer_all(session)
        except Violation as broken:
            fields = {"rule": broken.rule, "field": broken.field, "value": str(broken.value)}
            hint = "" if self._opened else advice.for_hello(broken, self._server.host.versions)
            return _Outcome(logging.WARNING, "refused", f"{broken}{hint}", fields)
        except _Ended as end:
            hint = advice.for_leaving(self._connection.version) if self._left_after_hello() else ""
            return _Outcome(logging.INFO, "ended", f"{end}{hint}", {})
        except Stopped:
            return _Outcome(logging.INFO, "ended", "it left while a graph was being computed", {})
        except DeviceFault as fault:
            return _Outcome(logging.ERROR, "device lost", str(fault), {})
        except OSError as error:
            return _Outcome(logging.INFO, "ended", error.strerror or str(error), {})
        except Exception as error:
            # a defect of ours costs this connection only; where it lies shows at log level debug
            log.debug("where the internal error happened", exc_info=True)
            return _Outcome(logging.ERROR, "internal error", f"{type(error).__name__}: {error}", {})
        raise AssertionError("a connection ends by an exception")

    def _left_after_hello(self) -> bool:
        """Whether the peer has ended the connection and HELLO was all that it said."""
        return self.work.messages == 1 and self._connection.idle and not self.ended_for and self.work.sent > 0

    def turn_away(self, reason: str) -> None:
        """End the connection before its first byte is read."""
        self.close()
        self._log(logging.WARNING, "turned away", reason)

    def _log(self, level: int, event: str, text: str, **fields: Any) -> None:
        if not (self._server.stopping and level <= logging.INFO):
            sentence = f"{event} {self.name}: {text}" if text else f"{event} {self.name}"
            log.log(level, "%s", sentence, extra={"event": event, "peer": self.name, **fields})

    def end(self, reason: str) -> None:
        """End the connection from another thread, for a reason of the server's own."""
        self.ended_for = reason
        self.hang_up()

    def hang_up(self) -> None:
        """End the connection from another thread."""
        self._channel.hang_up()

    def close(self) -> None:
        """End the connection."""
        # before the peer can see it, which may connect again at once: a client tries another HELLO when its first is refused
        self.over = True
        # the socket may live on in a child process, so that closing alone would not end the connection
        self._channel.hang_up()
        self._channel.close()

    # ------------------------------------------------------------------------------------------------------ seen from outside

    @property
    def work(self) -> Work:
        """What it has done so far."""
        return self._work if self._known is None else self._work.plus(*self._known.answers.counts)

    @property
    def buffers(self) -> int:
        """How many live buffers it has."""
        return 0 if self._session is None else len(self._session.memory)

    def idle(self, now: float) -> float:
        """Return for how long neither a message has been arriving nor one has been answered, in seconds."""
        # read once: the connection's thread may set it to None between a test and its use
        since = self._idle_since or (self._known and self._known.answers.idle_since)
        return now - since if since else 0.0

    def state(self, now: float) -> dict[str, Any]:
        """Return what it does now and what it has done, as `Server.state` lists it."""
        session = self._session
        return {
            "peer": self.name,
            "idle": round(self.idle(now), 3),
            "buffers": self.buffers,
            "buffer_bytes": 0 if session is None else session.memory.size,
            "protocol": str(self._connection.version),
            "plans": 0 if session is None else len(session.stored),
            "graph_bytes": 0 if session is None else session.stored.memory.size,
            **self.work.as_json(),
        }

    # -------------------------------------------------------------------------------------------------------- answering

    def _answer_all(self, session: Session) -> None:
        connection = self._connection
        while True:
            event = connection.next_event()
            if event is NEED_DATA:
                connection.receive(self._next_bytes(session))
            elif isinstance(event, Request):
                self._pace = None
                request = self._request()
                self._learn(request, event.message, *self._answer(session, event.message))
            elif isinstance(event, DataBegins):
                # moves the data itself; the DataEnds that comes next needs no answer and falls through
                request = self._request()
                self._learn(request, event.message, *self._receive_data(session, event.message, event.size))

    def _next_bytes(self, session: Session) -> memoryview:
        """Return what comes next, once it is more than C answers."""
        if self._known is not None and self._connection.idle:
            self._batch, self._at = self._answer_known(session, self._known), 0
            return self._batch
        self._batch = None
        view = memoryview(self._room)
        count = self._receive_message(session, view)
        if not count:
            raise _Ended("it closed the connection")
        return view[:count]

    def _answer_known(self, session: Session, known: Known) -> memoryview:
        """Let C answer what it knows; return the first bytes that it does not, if there are any."""
        while True:
            match known.wait(self._channel.descriptor):
                case Ending.OTHER_BYTES:
                    return known.answers.take()
                case Ending.WAITED:
                    self._check_deadlines()
                case Ending.UNSENT:
                    self._send(*known.unsent())
                case Ending.TAKING:
                    self._take_rest(known)
                case Ending.RUNNING:
                    self._go_on(session, known)
                    return NOTHING
                case _:
                    raise _Ended("it closed the connection")

    def _take_rest(self, known: Known) -> None:
        """Receive the rest of the data of a request of which C has received the first, and reply."""
        self._begin()
        last, at = known.answers.last, known.answers.gone
        for room in last.owner.receive():
            while at < len(room):
                count = self._receive(room[at:], all_of_it=True)
                if not count:
                    raise _Ended("it closed the connection in the middle of a message")
                at += count
        self._pace = None
        self._send(last.reply)

    def _go_on(self, session: Session, known: Known) -> None:
        """Finish a graph that C has begun; what the peer has sent after it is received first, since it says what it waits for."""
        begun, outcome, (message, plan) = time.perf_counter(), known.answers.error, known.answers.last.owner
        self._connection.note_request(request_class(message), message)
        self._connection.receive(known.answers.take())
        plan.go_on(outcome, session.cancelled)
        known.refresh()
        self._work.computing += time.perf_counter() - begun
        self._reply(session.done(request_class(message)))

    def _request(self) -> bytes | None:
        """Return the bytes of the message that has just been read, without its data, where all of them came from C at once.

        None where they did not, or came behind a graph that Python went on with (`_go_on`).
        """
        if self._batch is None:
            return None
        end = len(self._batch) - self._connection.buffered
        return bytes(self._batch[self._at : end]) or None

    def _learn(self, request: bytes | None, message: Message, reply: bytes, area: Area | None) -> None:
        """Let C answer a request when it comes again."""
        if request is not None and self._batch is not None and self._known is not None:
            self._known.learn(request, message, reply, area)
            self._at = len(self._batch) - self._connection.buffered

    def _receive_message(self, session: Session, room: memoryview) -> int:
        """Receive more of a message, or wait for the next one."""
        if self._connection.idle:
            self._pace, self._idle_since = None, time.monotonic()
        else:
            self._begin()
            if self._connection.buffered > READ:  # only a graph has so much that does not go straight to a buffer
                session.stored.arriving(self._connection.buffered)
        count = self._receive(room)
        self._idle_since = None
        return count

    def _begin(self) -> None:
        """Take note that a message has begun, if it has not been noted before."""
        if self._pace is None:
            self._pace = Pace(self._limits.stall, self._limits.slowest)

    def _answer(self, session: Session, message: Message) -> tuple[bytes, Area | None]:
        """Answer a request; return the reply, or what of it came before the data, and where these lie."""
        if not self._opened:  # the connection lets no other request through before HELLO, whose size has decided the version
            self._opened = True
            session.speak(self._connection.version)
            self._known = Known.of(session, self._room, log)
        self._work.messages += 1
        begun = time.perf_counter()
        # the reply due tells a request whose answer is data (GET_TENSOR), not its class
        due = self._connection.order.oldest
        if due is not None and due.request is message and carries_data(due.reply):
            region = session.source(message)
            first = head = self._connection.send_with_data(due.reply(data=b""), region.size)
            for data in region.pieces():
                # the head goes in one call with the first piece
                self._send(head, data)
                head = b""
            if head:  # a region of no bytes has no pieces (data.empty)
                self._send(head)
        else:
            region, reply = None, session.handle(message)
            self._count(message, reply, time.perf_counter() - begun)
            if self._known is not None:
                self._known.refresh()
            first = self._reply(reply)
        self._debug(message, begun)
        return first, region

    def _count(self, message: Any, reply: Any, seconds: float) -> None:
        if isinstance(message, COMPUTING):
            self._work.graphs += 1
            self._work.computing += seconds
        elif isinstance(reply, SetTensorHashReply):
            self._work.cache_hits += reply.result

    def _debug(self, message: Any, begun: float, size: int | None = None) -> None:
        """Log a request that has been answered, with the time that it took; SET_TENSOR's includes receiving its data."""
        if log.isEnabledFor(logging.DEBUG):
            name = command_name(GraphCompute if isinstance(message, Graph) else type(message))
            detail = (
                f" of {len(message.nodes)} nodes" if isinstance(message, Graph) else "" if size is None else f" of {size} bytes"
            )
            took = (time.perf_counter() - begun) * 1000
            log.debug("%s: %s%s in %.3g ms", self.name, name, detail, took, extra={"event": "message", "peer": self.name})

    def _reply(self, reply: Any) -> bytes:
        sent = b"" if reply is NO_REPLY else self._connection.send(reply)
        self._send(sent)
        return sent

    def _receive_data(self, session: Session, message: SetTensor | SetTensor2d, size: int) -> tuple[bytes, Area]:
        """Receive the data of a request into the buffer; return the reply, and where they are."""
        begun = time.perf_counter()
        region = session.destination(message, size)
        for room in region.receive():
            # the receive that brought the request may have brought the first of its data along, or all of it
            at = self._connection.take_data(room)
            while at < len(room):
                self._begin()
                count = self._receive(room[at:], all_of_it=True)
                self._connection.data_placed(count)
                at += count
        self._pace = None
        self._work.messages += 1
        reply = self._reply(session.placed(message, region))
        self._debug(message, begun, size)
        return reply, region

    # ----------------------------------------------------------------------------------------------------------- moving

    def _receive(self, room: memoryview, *, all_of_it: bool = False) -> int:
        """Receive some bytes into `room`; 0 means that the peer has ended the connection where it may."""
        while True:
            try:
                count = self._channel.receive(room, all_of_it=all_of_it)
            except Waited:
                self._check_deadlines()
                continue
            if not count and not self._connection.idle:
                raise _Ended("it closed the connection in the middle of a message")
            self._work.received += count
            if self._pace is not None:
                self._pace.moved(count)
            if self._pace is not None or not self._opened:
                self._check_deadlines()  # what comes a byte at a time never waits long enough for `Waited`
            return count

    def _check_deadlines(self) -> None:
        if not self._opened:
            if self._work.seconds > self._limits.hello:
                raise _Ended(f"no HELLO came within {self._limits.hello:g} s")
        elif self._pace is not None:
            if complaint := self._pace.complaint("came"):
                raise _Ended(f"{complaint} in the middle of a message")
        elif self._limits.idle is not None and self.idle(time.monotonic()) >= self._limits.idle:
            raise _Ended(f"idle for {self._limits.idle:g} s")

    def _send(self, head: bytes | memoryview, data: memoryview | None = None) -> None:
        """Send a reply, its data straight from the buffer."""
        data = NOTHING if data is None else data
        pace: Pace | None = None
        while head or data:
            try:
                count = self._channel.send_some(head, data)
            except Waited:
                count = 0
            self._work.sent += count
            if count == len(head) + len(data):  # the usual reply goes at once, and has no deadline to check
                return
            # one assignment: the right side needs the length that the head had before
            head, data = head[count:], data[max(0, count - len(head)) :]
            pace = pace or Pace(self._limits.stall, self._limits.slowest)
            if count:
                pace.moved(count)
            if complaint := pace.complaint("was read"):
                raise _Ended(f"{complaint} in the middle of a reply")

    # -------------------------------------------------------------------------------------------------------- cancelling

    def _is_cancelled(self) -> bool:
        """Whether a graph that is being computed is to stop; asked between its steps."""
        if self._server.stopping:
            return True
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + LOOK
        peer = self._channel.peer()
        if peer is not Peer.FINISHED:
            return peer is Peer.GONE
        if self._connection.idle and not self._channel.has_unread():
            return True  # it awaits no reply and can't ask any more: nobody will see what the rest computes
        self._finished = self._finished or now
        return now - self._finished > self._limits.half_closed
