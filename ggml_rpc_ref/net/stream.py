"""One end of a TCP connection as a client uses it: bytes out, bytes in, a deadline on every call, one way to end.

    with open_stream("127.0.0.1", 50052, timeout=10) as stream:
        stream.send(b"\x0e" + bytes(8))
        print(stream.receive_exactly(11))

How a peer ends a connection depends on what its kernel had still unread: a FIN, a reset, or EPIPE on our next write. They mean the
same to a caller and are all `PeerClosed`. Nothing here knows the protocol.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import random
import selectors
import socket
import struct
import threading
import time
from typing import Any, Final, NamedTuple, Self

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.transport import DEFAULT_PORT

CHUNK = 2**20
"""Bytes: the most memory that is reserved before the bytes have arrived."""
MOST = 2**30
"""Bytes to send or receive in one call of the system: macOS refuses more than 2 GiB (llama.cpp #15188)."""
SLOWEST = 2**20
"""Bytes per second: a call may take its timeout and one more second per SLOWEST bytes that it has moved, so that a transfer of
gigabytes is not cut off, and a peer that sends a byte at a time can't hold a call for ever."""
SEEN = 64
"""Bytes of an incomplete message that an error shows."""
LONGEST = 10**6
"""Seconds, 11 days: a call that may take longer than this waits for ever. The system's timers hold no more than 2^31 ms."""


class PeerClosed(ConnectionError):  # noqa: N818  (an outcome, which a caller may well have wanted)
    """The peer has ended the connection.

    Attributes:
        count: bytes that this call had received or sent before.
        seen: the first of them, at most 64 (receiving only).
    """

    def __init__(self, sentence: str, count: int = 0, seen: bytes = b"") -> None:
        super().__init__(sentence)
        self.count, self.seen = count, seen


class DeadlineMissed(TimeoutError):  # noqa: N818
    """The peer did not answer, or take, the bytes in time.

    Attributes:
        count: bytes that this call had received or sent before.
        seen: the first of them, at most 64 (receiving only).
    """

    def __init__(self, sentence: str, count: int = 0, seen: bytes = b"") -> None:
        super().__init__(sentence)
        self.count, self.seen = count, seen


class Ending(NamedTuple):
    """How `Stream.wait_closed` ended.

    Attributes:
        closed: whether the peer ended the connection within the time.
        leftover: what came before that, its first 64 KiB.
    """

    closed: bool
    leftover: bytes


class Endpoint(NamedTuple):
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str, default_port: int = DEFAULT_PORT) -> Endpoint:
    """Return the endpoint that a text names: "host:port", "[::1]:port", or either without port.

    Raises:
        Misuse: for anything else.
    """
    if not isinstance(text, str):
        raise Misuse(f"endpoint = {text!r}: it must be a text, HOST:PORT")
    scheme, is_url, _ = text.partition("://")
    if is_url:
        raise Misuse(f"{text!r} is not an endpoint: leave out {scheme}://, and write HOST:PORT")
    if "," in text:
        raise Misuse(f"{text!r} is not an endpoint: it names several servers; write one HOST:PORT")
    host, colon, port = text.rpartition(":")
    if text.startswith("[") and text.endswith("]"):
        host, colon, port = text, "", ""
    elif not colon:
        host, port = text, ""
    bare = _without_brackets(host, text)
    if not bare or any(c.isspace() for c in bare):
        raise Misuse(f"{text!r} is not an endpoint: write HOST:PORT, for example 127.0.0.1:{default_port}")
    if not colon:
        return Endpoint(bare, default_port)
    # isascii: isdigit alone lets "²" pass, which int refuses; [:9]: int refuses text of more than 4300 digits
    if not (port.isascii() and port.isdigit() and 0 < int(port[:9]) < 65536):
        raise Misuse(f"{text!r} is not an endpoint: its port {port!r} is not a number from 1 to 65535")
    return Endpoint(bare, int(port))


def _without_brackets(host: str, text: str) -> str:
    if not host.startswith("["):
        if ":" in host:
            raise Misuse(f"{text!r} is not an endpoint: write an IPv6 address in brackets, for example [::1]:{DEFAULT_PORT}")
        return host
    address = host[1:-1]
    try:
        ipaddress.IPv6Address(address if host.endswith("]") else "")
    except ValueError:
        raise Misuse(f"{text!r} is not an endpoint: {host!r} is not an IPv6 address in brackets") from None
    return address


def parse_timeout(seconds: object, name: str = "timeout") -> float:
    """Return a time-out as a number of seconds above 0; None and infinity are both infinite.

    Raises:
        Misuse: for anything else, by the name of the argument.
    """
    if seconds is None:
        return math.inf
    try:
        number = math.nan if isinstance(seconds, str | bytes | bool) else float(seconds)  # type: ignore[arg-type]
    except OverflowError:  # an int of hundreds of digits
        return math.inf
    except (TypeError, ValueError):
        number = math.nan
    if not number > 0:  # nan included
        raise Misuse(f"{name} = {seconds!r}: give seconds above 0, or None to wait for ever")
    return number


# -------------------------------------------------------------------------------------------------------------- opening


def open_stream(host: str, port: int, timeout: float = 10.0) -> Stream:
    """Connect to a host by IPv4, IPv6 or name, trying each of its addresses; all of it within `timeout` seconds.

    Raises:
        ConnectionError: where the name is unknown, or no address accepts.
        DeadlineMissed: where none answers in time.
    """
    endpoint = Endpoint(host, port)
    deadline = time.monotonic() + timeout
    failure: OSError | None = None
    for family, kind, protocol, _, address in _addresses(endpoint, timeout):
        sock = socket.socket(family, kind, protocol)
        try:
            # 0 would make the socket non-blocking, and less is a ValueError
            sock.settimeout(_or_for_ever(max(0.001, deadline - time.monotonic())))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return Stream(sock, endpoint, timeout)
    if isinstance(failure, TimeoutError):
        raise DeadlineMissed(f"{endpoint} did not accept a connection within {timeout:g} s")
    reason = (failure.strerror or str(failure)) if failure else "the name has no address"
    raise ConnectionError(f"can't connect to {endpoint}: {reason}")


def _addresses(endpoint: Endpoint, timeout: float) -> list[tuple[Any, ...]]:
    """Resolve a name; in a thread, because the system's resolver takes no deadline."""
    try:
        # a numeric address never asks a name server, so it needs no thread
        return _resolve(endpoint, socket.AI_NUMERICHOST)
    except OSError:
        pass  # not a number, so it is a name
    outcome: list[list[tuple[Any, ...]] | OSError] = []

    def resolve() -> None:
        try:
            outcome.append(_resolve(endpoint))
        except OSError as error:
            outcome.append(error)

    # a resolver that hangs can't be stopped; as a daemon it does not hold up the end of the program
    worker = threading.Thread(target=resolve, daemon=True)
    worker.start()
    worker.join(_or_for_ever(timeout))
    if not outcome:
        raise DeadlineMissed(f"the name {endpoint.host!r} was not resolved within {timeout:g} s")
    if isinstance(outcome[0], OSError):
        raise ConnectionError(f"can't find the host {endpoint.host!r}: {outcome[0].strerror or outcome[0]}")
    return outcome[0]


def _resolve(endpoint: Endpoint, flags: int = 0) -> list[tuple[Any, ...]]:
    try:
        return list(socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=flags))
    except ValueError:  # the idna codec's: a label that is empty or over 63 characters; a zero byte
        raise OSError("it is not a valid host name") from None


_UNUSED: Final = range(20_000, 32_768)
"""Ports from which no system takes one by itself: Linux takes those from 32768 on for whoever asks for any, others later ones."""


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody is listening on now, for a server that must be told one.

    One that the system would give to whoever asks for any might be a stranger's before the server is up.
    """
    for port in (*random.SystemRandom().sample(_UNUSED, 100), 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((host, port))
                return int(probe.getsockname()[1])
    raise OSError(f"no port of {host} is free")


# --------------------------------------------------------------------------------------------------------------- moving


class Stream:
    """A connected socket whose calls either complete in time or raise.

    Args:
        sock: connected; from now on this object's.
        endpoint: the peer, for messages.
        timeout: seconds that a call may take, plus one for each MiB that it moves.

    Attributes:
        peer: the address that the endpoint's name had, as text; the endpoint itself where there is none.
        sent: bytes sent so far.
        received: bytes received so far.
    """

    def __init__(self, sock: socket.socket, endpoint: Endpoint, timeout: float) -> None:
        self.endpoint, self.timeout, self.peer = endpoint, timeout, str(endpoint)
        with contextlib.suppress(OSError, TypeError):  # it has gone again, or is not a socket with addresses
            self.peer = str(Endpoint(*sock.getpeername()[:2]))
        self.sent = self.received = 0
        self._socket = sock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def local_host(self) -> str:
        """The address by which the peer can reach this machine."""
        return str(self._socket.getsockname()[0])

    def send(self, *data: bytes | bytearray | memoryview, timeout: float | None = None) -> None:
        """Send all of these, one after another, without copying them.

        Raises:
            PeerClosed, DeadlineMissed.
        """
        parts = [memoryview(part).cast("B") for part in data if memoryview(part).nbytes]
        deadline = self._deadline(timeout)
        while parts:
            try:
                self._socket.settimeout(_or_for_ever(deadline.left()))
                # header and data in one call: with TCP_NODELAY a call for the header alone would send a packet for it
                moved = self._socket.sendmsg([part[:MOST] for part in parts[:2]])
            except TimeoutError:
                raise DeadlineMissed(
                    f"{self.endpoint} took only {deadline.count} bytes within {deadline}", deadline.count
                ) from None
            except OSError as error:
                raise PeerClosed(f"{self.endpoint} closed the connection{_reason(error)}", deadline.count) from None
            deadline.count += moved
            self.sent += moved
            while parts and moved >= len(parts[0]):
                moved -= len(parts.pop(0))
            if moved:
                parts[0] = parts[0][moved:]

    def receive(self, most: int, timeout: float | None = None) -> bytes:
        """Return what comes next, 1 to `most` bytes.

        Raises:
            PeerClosed, DeadlineMissed.
        """
        data = bytearray(min(most, CHUNK))
        return bytes(data[: self._receive(memoryview(data), self._deadline(timeout))])

    def receive_exactly(self, size: int, timeout: float | None = None) -> bytes:
        """Return the next `size` bytes; memory grows with what arrives.

        Raises:
            PeerClosed, DeadlineMissed: with the bytes that had come.
        """
        deadline, data = self._deadline(timeout), bytearray()
        while deadline.count < size:
            # `size` comes from the peer: a length it only claims must not cost memory (frame.size-bounded, SEC-23)
            data += bytes(min(size - len(data), CHUNK))
            self._fill(data, deadline)
        return bytes(data)

    def receive_into(self, view: memoryview, timeout: float | None = None) -> None:
        """Fill all of `view` (bytes) with what comes next.

        Raises:
            PeerClosed, DeadlineMissed: with the bytes that had come; they are in the view.
        """
        self._fill(view, self._deadline(timeout))

    def _fill(self, room: bytearray | memoryview, deadline: _Deadline) -> None:
        """Receive what is still missing of `room`, which already holds `deadline.count` bytes."""
        # released at the end, because a bytearray that a view looks into can't grow, as receive_exactly makes it do
        with memoryview(room) as view:
            while deadline.count < len(view):
                self._receive(view[deadline.count :], deadline, bytes(view[: min(deadline.count, SEEN)]))

    def _receive(self, view: memoryview, deadline: _Deadline, seen: bytes = b"") -> int:
        """Receive some bytes; the peer's end and the deadline become the two errors of this module."""
        count = deadline.count
        try:
            self._socket.settimeout(_or_for_ever(deadline.left()))
            got = self._socket.recv_into(view[:MOST])
        except TimeoutError:
            # this clause stands before OSError's, because TimeoutError is a subclass of it
            what = f"only {count} bytes" if count else "nothing"
            raise DeadlineMissed(f"{what} came from {self.endpoint} within {deadline}", count, seen) from None
        except OSError as error:
            raise PeerClosed(f"{self.endpoint} closed the connection{_reason(error)}", count, seen) from None
        if not got:
            raise PeerClosed(f"{self.endpoint} closed the connection", count, seen)
        deadline.count += got
        self.received += got
        return got

    def _deadline(self, timeout: float | None) -> _Deadline:
        return _Deadline(self.timeout if timeout is None else timeout)

    # ---------------------------------------------------------------------------------------------------------- ending

    def finish_sending(self) -> None:
        """Say that nothing more will be sent (FIN); receiving goes on."""
        with contextlib.suppress(OSError):  # the peer was faster
            self._socket.shutdown(socket.SHUT_WR)

    def has_unread(self) -> bool:
        """Whether something can be received now: bytes, or the peer's end."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            return bool(selector.select(0))

    def wait_closed(self, timeout: float | None = None) -> Ending:
        """Wait until the peer ends the connection, in whatever way; never raises."""
        end = time.monotonic() + (self.timeout if timeout is None else timeout)
        leftover = bytearray()
        while True:
            try:
                got = self.receive(CHUNK, max(0.0, end - time.monotonic()))
            except PeerClosed:
                return Ending(True, bytes(leftover))
            except DeadlineMissed:
                return Ending(False, bytes(leftover))
            # more is read than kept: the end comes only after all of the bytes before it
            leftover += got[: max(0, 2**16 - len(leftover))]

    def reset(self) -> None:
        """Drop the connection at once: the peer gets a reset (RST), not an orderly end."""
        with contextlib.suppress(OSError):  # already gone
            # lingering on, for 0 seconds: close then drops what is unsent and sends the reset
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def hang_up(self) -> None:
        """End the connection at once, also for a call that another thread is in; a second time does nothing."""
        # a close alone would neither wake that call nor tell the peer, before the call's time is over
        with contextlib.suppress(OSError):  # already gone
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def close(self) -> None:
        """Give up this end of the connection, which ends unless another process has it too; a second time does nothing."""
        self._socket.close()


class _Deadline:
    """When a call is over: `timeout` seconds from now, and later the more bytes it has moved (`count`)."""

    def __init__(self, timeout: float) -> None:
        self.count, self._timeout, self._start = 0, timeout, time.monotonic()

    def left(self) -> float:
        left = self._start + self._timeout + self.count / SLOWEST - time.monotonic()
        # raised here, because a socket's timeout of 0 means non-blocking; callers treat it as the socket's own
        if left <= 0:
            raise TimeoutError
        return left

    def __str__(self) -> str:
        return f"{self._timeout + self.count / SLOWEST:.3g} s"


def _or_for_ever(seconds: float) -> float | None:
    """Return seconds as sockets and threads take them: None for more than their timers hold."""
    return None if seconds > LONGEST else seconds


def _reason(error: OSError) -> str:
    """Return the error in brackets, unless it is the usual reset or broken pipe."""
    return "" if isinstance(error, ConnectionError) else f" ({error.strerror or error})"
