"""The server's sockets: listen, a thread per connection, bytes to `Connection` and `Session` and back.

    with Server(host, "127.0.0.1", 0) as server:
        print(server.endpoint)

How a request travels: bytes from the peer's `Channel` into its `Connection`, which yields messages in order; each message to its
`Session`, which answers it; the reply's bytes from the connection back to the channel. No message is known here but the two whose
data move past the codec: SET_TENSOR's are received straight into the buffer, GET_TENSOR's are sent from it. The kernel's timeouts
wake a waiting connection to check its deadlines.

Whatever a peer does ends at most its own connection: its buffers are freed, then its socket is closed, and one line in the log
says why. A graph that is being computed stops between two of its steps when the server stops or the peer has gone.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from ggml_rpc_ref.backends import Stopped
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.net.channel import Channel, Peer, Waited
from ggml_rpc_ref.net.listening import Listener
from ggml_rpc_ref.protocol.connection import MAX_GRAPH_SIZE, NEED_DATA, Connection, DataBegins, Request, Role
from ggml_rpc_ref.server.handlers import Host, Session
from ggml_rpc_ref.spec.messages import NO_REPLY, Message, SetTensor, carries_data

log = logging.getLogger(__name__)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

READ: Final = 2**16
"""Bytes of messages read at once."""
LOOK: Final = 0.05
"""Seconds of computing after which the peer is looked at again: often enough to notice its end, seldom enough to cost nothing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a peer may take, and how much it may use.

    Attributes:
        connections: connections at the same time; one more is closed at once.
        hello: seconds from the connection to the end of its HELLO.
        stall: seconds without a byte in the middle of a message, or of a reply that the peer does not read.
        idle: seconds between messages; None: for ever, as stock clients need it.
        half_closed: seconds that a graph may go on once the peer has ended its sending while it may still await replies: it has
            half-closed the connection, or it is gone (TCP doesn't tell which).
        graph_size: bytes of a GRAPH_COMPUTE.
    """

    connections: int = 256
    hello: float = 10.0
    stall: float = 60.0
    idle: float | None = None
    half_closed: float = 10.0
    graph_size: int = MAX_GRAPH_SIZE

    @property
    def tick(self) -> float:
        """Seconds after which a waiting connection checks its deadlines: no limit is overrun by more than a quarter."""
        shortest = min(self.hello, self.stall, self.stall if self.idle is None else self.idle)
        return min(5.0, max(0.02, shortest / 4))


class Server(Listener["_Served"]):
    """A server that answers each connection in its own thread; it starts and stops as a `Listener`.

    Args:
        host: what is served.
        address: IPv4 or IPv6 address or host name to bind, every address that the name has.
        port: TCP port; 0: one that the kernel chooses.
        allow: networks that peers may come from; empty: any.
        limits: what a peer may take and use.

    Attributes:
        session_type: what answers the requests of one connection; a test may break a rule in a subclass.
        connection_type: what reads and writes the messages of one connection.

    Raises:
        Misuse: where the address can't be bound.
    """

    session_type: ClassVar[type[Session]] = Session
    connection_type: ClassVar[type[Connection]] = Connection

    def __init__(
        self, host: Host, address: str = "127.0.0.1", port: int = 0, *, allow: Sequence[Network] = (), limits: Limits | None = None
    ) -> None:
        super().__init__(address, port)
        self.host, self.allow, self.limits = host, tuple(allow), limits or Limits()

    def _conversation(self, channel: Channel, name: str) -> _Served:
        return _Served(self, channel, name)

    def _objection(self, address: str) -> str:
        if not self._is_allowed(address):
            return "its address is not allowed"
        return f"{self.connections} connections are open" if self.connections >= self.limits.connections else ""

    def _is_allowed(self, address: str) -> bool:
        ip = ipaddress.ip_address(address)
        mapped = getattr(ip, "ipv4_mapped", None) or ip
        return not self.allow or any(ip in network or mapped in network for network in self.allow)


class _Ended(Exception):  # noqa: N818
    """The connection is over, for the reason given; early if the peer should not have ended it there."""

    def __init__(self, reason: str, *, early: bool = True) -> None:
        super().__init__(reason)
        self.early = early


class _Served:
    """One connection: its channel, its order of messages, its session."""

    def __init__(self, server: Server, channel: Channel, name: str) -> None:
        self.name = name
        self._server, self._limits, self._channel = server, server.limits, channel
        self._connection = server.connection_type(Role.SERVER, server.host.version, server.limits.graph_size)
        self._opened = False
        self._since, self._silent = time.monotonic(), 0.0
        self._next_look, self._finished = 0.0, 0.0  # when to look at the peer again; since when it has ended its sending

    def converse(self) -> None:
        """Answer requests until the connection ends, then free all it had. Never raises."""
        try:
            with self._server.session_type(self._server.host) as session:  # freed before the peer sees the end
                session.cancelled = self._is_cancelled
                self._channel.set_up(self._limits.tick, self._limits.stall)
                self._channel.keep_alive()
                self._answer_all(session)
        except Violation as broken:
            self._log(logging.WARNING, "refused", str(broken), rule=broken.rule, field=broken.field, value=str(broken.value))
        except _Ended as end:
            self._log(logging.INFO if end.early else logging.DEBUG, "ended", str(end))
        except Stopped:
            self._log(logging.INFO, "ended", "it left while a graph was being computed")
        except OSError as error:
            self._log(logging.INFO, "ended", error.strerror or str(error))
        except Exception as error:
            # a defect of ours costs this connection only; where it lies shows at log level debug
            self._log(logging.ERROR, "internal error", f"{type(error).__name__}: {error}")
            log.debug("where the internal error happened", exc_info=True)
        finally:
            self.close()

    def turn_away(self, reason: str) -> None:
        """End the connection before its first byte is read."""
        self._log(logging.WARNING, "turned away", reason)
        self.close()

    def _log(self, level: int, event: str, text: str, **fields: str) -> None:
        if not (self._server.stopping and level <= logging.INFO):
            log.log(level, "%s %s: %s", event, self.name, text, extra={"event": event, "peer": self.name, **fields})

    def hang_up(self) -> None:
        """End the connection from another thread."""
        self._channel.hang_up()

    def close(self) -> None:
        """End the connection."""
        # the socket may live on in a child process, so that closing alone would not end the connection
        self._channel.hang_up()
        self._channel.close()

    # -------------------------------------------------------------------------------------------------------- answering

    def _answer_all(self, session: Session) -> None:
        connection, room = self._connection, memoryview(bytearray(READ))
        while True:
            event = connection.next_event()
            if event is NEED_DATA:
                count = self._receive(room)
                if not count:
                    raise _Ended("it closed the connection", early=False)
                connection.receive(room[:count])
            elif isinstance(event, Request):
                self._answer(session, event.message)
            elif isinstance(event, DataBegins):
                self._receive_data(session, event.message, event.size)

    def _answer(self, session: Session, message: Message) -> None:
        self._opened = True  # the connection lets no other request through before HELLO
        due = self._connection.order.oldest
        if due is not None and due.request is message and carries_data(due.reply):
            region = session.source(message)
            head = self._connection.send_with_data(due.reply(data=b""), region.stop - region.start)
            for data in region.pieces():
                self._send(head, data)
                head = b""
            if head:
                self._send(head)
        else:
            self._reply(session.handle(message))

    def _reply(self, reply: Any) -> None:
        if reply is not NO_REPLY:
            self._send(self._connection.send(reply))

    def _receive_data(self, session: Session, message: SetTensor, size: int) -> None:
        """Receive the data of a SET_TENSOR into the buffer."""
        region = session.destination(message, size)
        for room in region.receive():
            at = self._connection.take_data(room)
            while at < len(room):
                count = self._receive(room[at:], all_of_it=True)
                self._connection.data_placed(count)
                at += count
        self._reply(session.placed(region))

    # ----------------------------------------------------------------------------------------------------------- moving

    def _receive(self, room: memoryview, *, all_of_it: bool = False) -> int:
        """Receive some bytes into `room`; 0 means that the peer has ended the connection where it may."""
        while True:
            try:
                count = self._channel.receive(room, all_of_it=all_of_it)
            except Waited:
                self._check_deadlines(self._limits.tick)
                continue
            self._silent = 0.0
            if not count and not self._connection.idle:
                raise _Ended("it closed the connection in the middle of a message")
            if not self._opened:
                self._check_deadlines(0.0)  # a HELLO that comes a byte at a time has no more time than another
            return count

    def _check_deadlines(self, waited: float) -> None:
        self._silent += waited
        if not self._opened:
            if time.monotonic() - self._since > self._limits.hello:
                raise _Ended(f"no HELLO came within {self._limits.hello:g} s")
        elif not self._connection.idle:
            if self._silent >= self._limits.stall:
                raise _Ended(f"nothing came for {self._limits.stall:g} s in the middle of a message")
        elif self._limits.idle is not None and self._silent >= self._limits.idle:
            raise _Ended(f"idle for {self._limits.idle:g} s")

    def _send(self, head: bytes, data: memoryview | None = None) -> None:
        """Send a reply, its data straight from the buffer."""
        try:
            self._channel.send(head, data)
        except Waited:
            raise _Ended(f"it did not read its reply for {self._limits.stall:g} s") from None

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
