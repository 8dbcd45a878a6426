"""The server's sockets: listen, a thread per connection, bytes to `Connection` and `Session` and back.

    with Server(host, "127.0.0.1", 0) as server:
        print(server.endpoint)

No message is known here but the two whose data move past the codec: SET_TENSOR's are received straight into the buffer,
GET_TENSOR's are sent from it. A small request costs one recv and one send; sockets block, and the kernel's own timeouts
(SO_RCVTIMEO, SO_SNDTIMEO) wake us to look at the clock, because Python's would cost a poll per call.

Whatever a peer does ends at most its own connection: its buffers are freed, then its socket is closed, and one line in the log
says why.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.net.listening import Listener
from ggml_rpc_ref.net.sockets import timeval
from ggml_rpc_ref.protocol.connection import MAX_GRAPH_SIZE, NEED_DATA, Connection, DataBegins, Request, Role
from ggml_rpc_ref.server.handlers import Host, Session
from ggml_rpc_ref.spec.messages import NO_REPLY, Message, SetTensor, carries_data

log = logging.getLogger(__name__)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

READ: Final = 2**16
"""Bytes of messages read at once."""
MOST: Final = 2**30
"""Bytes of data moved by one call: macOS refuses more than 2 GiB (llama.cpp #15188)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a peer may take, and how much it may hold.

    Attributes:
        connections: connections at the same time; one more is closed at once.
        hello: seconds from the connection to the end of its HELLO.
        stall: seconds without a byte in the middle of a message, or of a reply that the peer does not read.
        idle: seconds between messages; None: for ever, as stock clients need it.
        graph_size: bytes of a GRAPH_COMPUTE.
    """

    connections: int = 256
    hello: float = 10.0
    stall: float = 60.0
    idle: float | None = None
    graph_size: int = MAX_GRAPH_SIZE

    @property
    def tick(self) -> float:
        """Seconds after which a waiting connection looks at the clock: no limit is overrun by more than a quarter."""
        shortest = min(self.hello, self.stall, self.stall if self.idle is None else self.idle)
        return min(5.0, max(0.02, shortest / 4))


class Server(Listener["_Peer"]):
    """A server that answers each connection by itself; as a `Listener` it begins and ends.

    Args:
        host: what is served.
        address: IPv4 or IPv6 address or host name to bind, every address that the name has.
        port: TCP port; 0: one that the kernel chooses.
        allow: networks that peers may come from; none: any.
        limits: what a peer may take.

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

    def _conversation(self, sock: socket.socket, name: str) -> _Peer:
        return _Peer(self, sock, name)

    def _objection(self, address: str) -> str:
        if not self._is_allowed(address):
            return "its address is not allowed"
        return f"{self.connections} connections are open" if self.connections >= self.limits.connections else ""

    def _is_allowed(self, address: str) -> bool:
        ip = ipaddress.ip_address(address)
        mapped = getattr(ip, "ipv4_mapped", None) or ip
        return not self.allow or any(ip in network or mapped in network for network in self.allow)


class _Ended(Exception):  # noqa: N818
    """The conversation is over, for the reason given; early, where the peer should not have ended it there."""

    def __init__(self, reason: str, *, early: bool = True) -> None:
        super().__init__(reason)
        self.early = early


class _Peer:
    """One connection: its socket, its order of messages, its session."""

    def __init__(self, server: Server, sock: socket.socket, name: str) -> None:
        self.name = name
        self._server, self._limits, self._socket = server, server.limits, sock
        self._connection = server.connection_type(Role.SERVER, server.host.version, server.limits.graph_size)
        self._opened = False
        self._since, self._silent = time.monotonic(), 0.0

    def converse(self) -> None:
        """Answer requests until the connection ends, for whatever reason, and leave nothing behind. Never raises."""
        try:
            with self._server.session_type(self._server.host) as session:  # freed before the peer sees the end
                self._prepare()
                self._answer_all(session)
        except Violation as broken:
            self._log(logging.WARNING, "refused", str(broken), rule=broken.rule, field=broken.field, value=str(broken.value))
        except _Ended as end:
            self._log(logging.INFO if end.early else logging.DEBUG, "ended", str(end))
        except OSError as error:
            self._log(logging.INFO, "ended", error.strerror or str(error))
        except Exception as error:
            # a defect of ours costs this connection only; where it lies is for who turns the log level up
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

    def _prepare(self) -> None:
        tick = self._limits.tick
        self._socket.setblocking(True)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # an idle peer whose machine died must not stay
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(tick))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(self._limits.stall))

    def hang_up(self) -> None:
        """End the connection from another thread."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection."""
        self.hang_up()
        self._socket.close()

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
        self._opened = True  # the first request is a HELLO, or none of them gets here
        due = self._connection.order.oldest
        if due is not None and due.request is message and carries_data(due.reply):
            data = session.source(message)
            self._send(self._connection.send_with_data(due.reply(data=b""), len(data)), data)
        else:
            self._reply(session.handle(message))

    def _reply(self, reply: Any) -> None:
        if reply is not NO_REPLY:
            self._send(self._connection.send(reply))

    def _receive_data(self, session: Session, message: SetTensor, size: int) -> None:
        """Receive the data of a SET_TENSOR into their place."""
        region = session.destination(message, size)
        room = region.bytes
        at = self._connection.take_data(room)
        while at < size:
            count = self._receive(room[at : at + MOST], socket.MSG_WAITALL)
            self._connection.data_placed(count)
            at += count
        self._reply(session.placed(region))

    # ----------------------------------------------------------------------------------------------------------- moving

    def _receive(self, room: memoryview, flags: int = 0) -> int:
        """Receive some bytes into `room`; 0 means that the peer has ended the conversation where it may."""
        while True:
            try:
                count = self._socket.recv_into(room, 0, flags)
            except BlockingIOError:
                self._look_at_the_clock()
                continue
            self._silent = 0.0
            if not count and not self._connection.idle:
                raise _Ended("it closed the connection in the middle of a message")
            if not self._opened:
                self._look_at_the_clock()
            return count

    def _look_at_the_clock(self) -> None:
        self._silent += self._limits.tick
        if not self._opened:
            if time.monotonic() - self._since > self._limits.hello:
                raise _Ended(f"no HELLO came within {self._limits.hello:g} s")
        elif not self._connection.idle:
            if self._silent >= self._limits.stall:
                raise _Ended(f"nothing came for {self._limits.stall:g} s in the middle of a message")
        elif self._limits.idle is not None and self._silent >= self._limits.idle:
            raise _Ended(f"idle for {self._limits.idle:g} s")

    def _send(self, head: bytes, data: memoryview | None = None) -> None:
        """Send a reply, with its data from where they lie."""
        try:
            if not data:
                self._socket.sendall(head)
                return
            sent = self._socket.sendmsg((head, data[:MOST])) - len(head)
            if sent < 0:
                self._socket.sendall(head[sent:])
                sent = 0
            while sent < len(data):
                sent += self._socket.send(data[sent : sent + MOST])
        except BlockingIOError:
            raise _Ended(f"it did not read its reply for {self._limits.stall:g} s") from None
