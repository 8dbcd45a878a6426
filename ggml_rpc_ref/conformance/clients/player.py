"""The server that we play: our own, with a conversation of its own so that every byte of a reply can be changed.

    with Player(hosts, script, version) as player:
        ...  # a client talks to player.endpoints
    player.conversations

The order of the conversation is `protocol.order`'s and what a request does is `server.handlers`'s; only sending is done here, by
the script. The one file of the conformance suite that imports our server.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

from ggml_rpc_ref.backends import Stopped
from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.backends.oracle import Oracle
from ggml_rpc_ref.conformance.clients.heard import Asked, Conversation
from ggml_rpc_ref.conformance.clients.reproducer import CUT, REFUSED, SECOND
from ggml_rpc_ref.conformance.clients.script import EACH_BYTE, Change, End, Script
from ggml_rpc_ref.conformance.peer import SHOWN_BYTES, TranscriptPiece
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.net.channel import Channel, Waited
from ggml_rpc_ref.net.listening import Listener
from ggml_rpc_ref.protocol.connection import NEED_DATA, Connection, Data, DataBegins, DataEnds, Request, Role
from ggml_rpc_ref.protocol.fnv import fnv1a
from ggml_rpc_ref.protocol.graph import request_class
from ggml_rpc_ref.protocol.order import Order
from ggml_rpc_ref.server.handlers import Device, Host, Session
from ggml_rpc_ref.server.tensor_cache import TensorCache
from ggml_rpc_ref.spec.messages import NO_REPLY, SetTensor, SetTensorHash, carries_data
from ggml_rpc_ref.spec.versions import Version

MEMORY: Final = 2**31
"""Bytes of each device."""
READ: Final = 2**18
KEPT: Final = 2**16
"""Bytes of a reply up to which it is kept for a reproducer."""
GAP: Final = 0.0005
"""Seconds between two pieces of a reply that is cut: more than the peer's kernel takes to hand over the first."""
SINGLY: Final = 64
"""Bytes of a reply that come one by one; what follows comes as one, since data may be megabytes."""
TICK: Final = 0.1
"""Seconds after which a wait looks whether the run is over."""
STUCK: Final = 10.0
"""Seconds that a client may leave a reply unread."""


class _Over(Exception):  # noqa: N818
    """The connection has ended."""


def make_host(version: Version, devices: int, cache: Path | None) -> Host:
    """Return what a server has: devices of the oracle's, and a cache where a folder for it is given."""
    rows = [Device(f"oracle {number}", "numpy", Oracle(HostMemory(MEMORY))) for number in range(devices)]
    return Host(rows, tensors=None if cache is None else TensorCache(cache), version=version)


class Player:
    """One or two servers by one script; each counts its requests with the other's.

    Args:
        hosts: what each of them has.
        script: what is different from an honest server.
        addresses: where each listens, an address and a port; 0: any free port.
        calm: seconds without a byte after which nothing of the client's is under way.

    Attributes:
        conversations: what has come so far.
        told: how many replies were changed.
        stopping: whether the run is over.
        defect: what went wrong on our side; None: nothing.

    Raises:
        Misuse: where an address can't be bound.
    """

    def __init__(self, hosts: Sequence[Host], script: Script, addresses: Sequence[tuple[str, int]], calm: float = TICK) -> None:
        self.script, self.calm = script, calm
        self.conversations: list[Conversation] = []
        self.told, self.stopping = 0, False
        self.defect: Exception | None = None
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._servers: list[_Server] = []
        try:
            for number, (host, address) in enumerate(zip(hosts, addresses, strict=True)):
                self._servers.append(_Server(self, host, number, *address))
        except BaseException:
            self.stop()
            raise

    @property
    def endpoints(self) -> list[str]:
        """Where they listen."""
        return [server.endpoint for server in self._servers]

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return sum(server.connections for server in self._servers)

    def __enter__(self) -> Self:
        for server in self._servers:
            server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End every connection and stop listening."""
        self.stopping = True
        for server in self._servers:
            server.shutdown()

    def opened(self, endpoint: int, version: Version) -> Conversation:
        """Begin the record of a connection."""
        with self._lock:
            talk = Conversation(len(self.conversations) + 1, endpoint, version)
            self.conversations.append(talk)
            return talk

    def due(self, command: str) -> Change | None:
        """Return what is different about the reply to the request that has come."""
        with self._lock:
            self._seen[command] += 1
            return self.script.change(command, self._seen[command])

    def tell(self) -> None:
        """Take note that a reply was changed."""
        with self._lock:
            self.told += 1


class _Server(Listener["_Talk"]):
    def __init__(self, player: Player, host: Host, number: int, address: str, port: int) -> None:
        super().__init__(address, port)
        self.player, self.host, self.number = player, host, number

    def _conversation(self, channel: Channel, name: str) -> _Talk:
        return _Talk(self, channel, name)


class _Talk:
    """One connection, in a thread of its own."""

    def __init__(self, server: _Server, channel: Channel, name: str) -> None:
        self.name, self._player, self._host, self._channel = name, server.player, server.host, channel
        self._talk = server.player.opened(server.number, server.host.version)
        self._connection = Connection(Role.SERVER, server.host.version, order=Order[Any](server.host.version))
        self._room = memoryview(bytearray(READ))
        self._is_over = False  # nothing more can be answered, because we have ended our sending
        self._has_to_send = False  # a SET_TENSOR_HASH was answered with 0, and no SET_TENSOR has come since
        self._is_fresh = True  # what is read now has come since a fault was told
        if server.number:
            self._note("got", SECOND)

    def hang_up(self) -> None:
        """End the connection from another thread."""
        self._channel.hang_up()

    def turn_away(self, reason: str) -> None:
        """End the connection before its first byte is read."""
        self._channel.close()

    def converse(self) -> None:
        """Answer requests until the connection ends."""
        try:
            with Session(self._host) as session:
                session.cancelled = lambda: self._player.stopping
                self._channel.set_up(min(TICK, self._player.calm), STUCK)
                self._answer_all(session)
        except Violation as broken:
            if not self._talk.told_at:  # after a fault the client is not judged by what a server refuses
                self._talk.violation = broken
            self._note("sent", "end")
        except (_Over, Stopped, Waited, OSError):
            pass
        except Exception as error:  # ours: who runs the client raises it, so that it does not look like the client's
            self._player.defect = error
        finally:
            self._channel.hang_up()
            self._channel.close()

    # ------------------------------------------------------------------------------------------------------- receiving

    def _answer_all(self, session: Session) -> None:
        data = bytearray()
        while True:
            try:
                event = self._connection.next_event()
            except Violation as broken:
                self._note("got", f"{REFUSED}{broken.rule}")
                raise
            match event:
                case Request(message):
                    self._take(session, message, memoryview(b""))
                case DataBegins():
                    data = bytearray()
                case Data(chunk):
                    data += chunk
                case DataEnds(message):
                    self._take(session, message, memoryview(data))
                case _ if event is NEED_DATA:
                    self._receive()

    def _receive(self) -> None:
        """Receive something; what comes later than the client's end is nothing."""
        while True:
            try:
                count = self._channel.receive(self._room)
                break
            except Waited:
                if self._player.stopping:
                    raise _Over from None
            except OSError:
                self._ended()
                raise
        if not count:
            self._ended()
            raise _Over
        self._is_fresh = True
        self._connection.receive(self._room[:count])

    def _ended(self) -> None:
        self._talk.is_cut = not self._connection.idle and not self._talk.told_at
        self._note("got", "end")

    # --------------------------------------------------------------------------------------------------------- answering

    def _take(self, session: Session, message: Any, data: memoryview) -> None:
        asked = Asked(
            self._talk.number, message, time.monotonic(), len(data), after_fault=self._talk.told_at > 0 and self._is_fresh
        )
        if self._has_to_send and asked.cls is SetTensor:
            asked.data_hash, self._has_to_send = fnv1a(data), False
        self._talk.asked.append(asked)
        self._note("got", asked.command + (f" and {len(data)} bytes" if data else ""))
        if self._is_over:
            return
        change = self._player.due(asked.command)
        asked.reply = self._honest(session, message, data)
        if change is not None and change.answer is not None and asked.reply is not None:
            asked.reply = change.answer(message, asked.reply)
        self._has_to_send |= asked.cls is SetTensorHash and asked.reply is not None and asked.reply.result == 0
        raw = b"" if asked.reply is None else self._connection.send(asked.reply)
        self._deliver(asked, raw, change)

    def _honest(self, session: Session, message: Any, data: memoryview) -> Any:
        """Do what a request asks for, and return its reply; None where it has none."""
        due = self._connection.order.oldest
        if carries_data(request_class(message)):
            region = session.destination(message, len(data))
            at = 0
            for room in region.receive():
                room[:] = data[at : at + len(room)]
                at += len(room)
            reply = session.placed(message, region)
        elif due is not None and carries_data(due.reply):
            return due.reply(data=b"".join(session.source(message).pieces()))
        else:
            reply = session.handle(message)
        return None if reply is NO_REPLY else reply

    def _deliver(self, asked: Asked, raw: bytes, change: Change | None) -> None:
        if change is None:
            self._send_reply(asked, raw)
            return
        if change.is_fault:
            self._await_calm()
        self._wait(change.delay)
        self._player.tell()
        if change.is_fault or change.end is not End.NOT:
            self._talk.told_at, self._is_fresh = time.monotonic(), False
        out = raw if change.alter is None else change.alter(raw)
        for piece in _pieces(out, change.cut):
            self._send_reply(asked, piece)
            if change.cut:
                time.sleep(GAP)
        self._end(change.end)

    def _send_reply(self, asked: Asked, piece: bytes) -> None:
        # before it goes: the client may have it, and ask on, before this thread runs again
        asked.replied = time.monotonic() if piece else asked.replied
        self._send(piece)

    def _end(self, end: End) -> None:
        if end is End.NOT:
            return
        self._note("sent", end.value)
        if end is End.RESET:
            self._channel.close(reset=True)
            raise _Over
        self._channel.finish_sending()
        self._is_over = True

    def _await_calm(self) -> None:
        """Receive until nothing has come for a moment; it is read as what came before the fault."""
        with contextlib.suppress(Waited):
            while count := self._channel.receive(self._room):
                self._connection.receive(self._room[:count])
            raise _Over

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._player.stopping:
            time.sleep(min(TICK, left))

    def _send(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            at += self._channel.send_some(memoryview(data)[at:])
        if data:
            self._note("sent", "", data)

    def _note(self, verb: str, what: str, data: bytes = b"") -> None:
        if len(data) > KEPT:
            what, data = f"{CUT}{len(data)} bytes", data[: SHOWN_BYTES + 1]
        self._talk.record.append(TranscriptPiece(self._talk.number, verb, what, data))


def _pieces(data: bytes, cut: int) -> list[bytes]:
    """Return a reply as it is sent: cut after some bytes, or the first of it byte by byte."""
    if cut == EACH_BYTE:
        return [*(data[at : at + 1] for at in range(min(SINGLY, len(data)))), *([data[SINGLY:]] if len(data) > SINGLY else [])]
    return [piece for piece in (data[:cut], data[cut:]) if piece] if cut else [data]
