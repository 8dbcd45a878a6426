"""Accept connections, give each a thread to itself, end them all. Nothing here knows the protocol."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import queue
import selectors
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, Self, TypeVar

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.net.channel import Channel
from ggml_rpc_ref.net.sockets import address_text, listen

log = logging.getLogger(__name__)

PATIENCE: Final = 5.0
"""Seconds that `shutdown` waits for connections to end."""
SPARE: Final = 4
"""Threads that wait for the next connection: a stock client opens a hundred, one after another, to load a model, and starting a
thread is a third of what one takes that says HELLO and ends."""
QUIET: Final = 60.0
"""Seconds between two lines that say that no connection can be accepted; it is tried ten times a second."""


class Conversation(Protocol):
    """What happens on one accepted connection, whose channel it owns."""

    name: str
    """The peer, for messages."""

    def converse(self) -> None:
        """Serve the connection until it ends, in its own thread, and free everything it had."""

    def hang_up(self) -> None:
        """End the connection from another thread; `converse` notices."""

    def turn_away(self, reason: str) -> None:
        """End the connection in place of `converse`."""


C = TypeVar("C", bound=Conversation)


class _Thread(threading.Thread, Generic[C]):
    """Has one conversation after another.

    Args:
        converse: has one; whether to wait for another afterwards.
    """

    def __init__(self, converse: Callable[[_Thread[C], C], bool]) -> None:
        super().__init__(daemon=True)
        self._converse = converse
        self._given: queue.SimpleQueue[C | None] = queue.SimpleQueue()

    def give(self, conversation: C | None) -> None:
        """Give it the next conversation; None: there will be none, and it ends."""
        self._given.put(conversation)

    def run(self) -> None:
        """Have what is given."""
        while self._have(self._given.get()):
            self.name = "spare"

    def _have(self, conversation: C | None) -> bool:
        # a function of its own: a thread that waits must not keep what the last conversation had
        if conversation is None:
            return False
        self.name = f"peer {conversation.name}"
        return self._converse(self, conversation)


class Listener(ABC, Generic[C]):
    """Listens from its construction on; accepts inside `with`, after `begin`, or in `serve_forever`.

    Args:
        address: IPv4 or IPv6 address or host name to bind, every address that the name has.
        port: TCP port; 0: one that the kernel chooses.

    Attributes:
        stopping: whether `stop` has been called.

    Raises:
        Misuse: where the address can't be bound.
    """

    def __init__(self, address: str, port: int) -> None:
        self.stopping = False
        self._listeners = listen(address, port)
        self._endpoint, self._ended = address_text(self._listeners[0].getsockname()), False
        self._woken, self._wake = socket.socketpair()
        # a signal handler must not wait here; where the buffer is full, a wake-up is on its way already
        self._wake.setblocking(False)
        self._calls: deque[Callable[[], None]] = deque()
        self._accepting: threading.Thread | None = None
        self._conversations: dict[C, _Thread[C]] = {}
        self._spare: list[_Thread[C]] = []
        self._lock = threading.Lock()
        self._said_at, self._tries = -QUIET, 0

    @abstractmethod
    def _conversation(self, channel: Channel, name: str) -> C:
        """Return the conversation with a peer that has been accepted."""

    def _objection(self, address: str) -> str:
        """Return why a peer of this address is turned away; an empty string if it is accepted."""
        return ""

    def _make_room(self) -> None:
        """End what can be spared, since the system gives nothing for another connection; here nothing can."""

    @property
    def endpoint(self) -> str:
        """Where it listens, as "127.0.0.1:50052" or "[::1]:50052"; of several addresses the first."""
        return self._endpoint

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return all(ipaddress.ip_address(listener.getsockname()[0]).is_loopback for listener in self._listeners)

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._conversations)

    def conversations(self) -> list[C]:
        """Return what is open now, in the order in which it was accepted."""
        with self._lock:
            return list(self._conversations)

    # --------------------------------------------------------------------------------------------------- beginning and end

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.endpoint}{', ended' if self._ended else ''}>"

    def __enter__(self) -> Self:
        self.begin()
        return self

    def begin(self) -> None:
        """Accept in a thread of its own; a second time does nothing.

        Raises:
            Misuse: after `shutdown`.
        """
        if self._ended:
            raise Misuse(f"what listened at {self.endpoint} has ended: make another")
        if self._accepting is None:
            self._accepting = threading.Thread(target=self._accept_all, name="accept", daemon=True)
            self._accepting.start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def serve_forever(self) -> None:
        """Accept until `stop` is called, then shut down. Runs in the calling thread."""
        try:
            self._accept_all()
        finally:
            self.shutdown()

    def stop(self) -> None:
        """Ask `serve_forever` to end; may be called by a signal handler."""
        self.stopping = True
        self.call_soon(lambda: None)

    @property
    def wakeup_fd(self) -> int:
        """For `signal.set_wakeup_fd`: a signal that comes just before a wait would else be handled after it only."""
        return self._wake.fileno()

    def call_soon(self, function: Callable[[], None]) -> None:
        """Let the thread that accepts call a function; may be called by a signal handler, which must take no lock itself."""
        self._calls.append(function)
        with contextlib.suppress(OSError):  # it has ended already, or is being woken anyway
            self._wake.send(b"\0")

    def shutdown(self) -> None:
        """Stop listening and end every connection; a second time does nothing."""
        self.stop()
        self._ended = True
        # first: once it has ended, no further conversation can begin behind the loop below
        if self._accepting is not None:
            self._accepting.join()
        for listener in (*self._listeners, self._woken, self._wake):
            listener.close()
        with self._lock:  # from here on none becomes spare
            conversations, spare = dict(self._conversations), self._spare.copy()
            self._spare.clear()
        for thread in spare:
            thread.give(None)
        for conversation in conversations:
            conversation.hang_up()
        end = time.monotonic() + PATIENCE
        for thread in (*spare, *conversations.values()):
            thread.join(max(0.0, end - time.monotonic()))

    # ----------------------------------------------------------------------------------------------------------- accepting

    def _accept_all(self) -> None:
        with selectors.DefaultSelector() as selector:
            for sock in (*self._listeners, self._woken):
                selector.register(sock, selectors.EVENT_READ)
            while not self.stopping:
                for key, _ in selector.select():
                    if key.fileobj is self._woken:
                        # before the calls: one that is added after this wakes the selector again, so none is left lying
                        self._woken.recv(4096)
                        self._call_all()
                    else:
                        self._accept(key.fileobj)

    def _call_all(self) -> None:
        while self._calls:
            try:
                self._calls.popleft()()
            except Exception:
                log.exception("a function called by the accepting thread failed")

    def _accept(self, listener: Any) -> None:
        """Accept one connection; no error with it may end the loop (SEC-36)."""
        try:
            sock, address = listener.accept()
        except BlockingIOError:  # the client has closed the connection before it was accepted
            return
        except OSError as error:
            self._say_not_accepted(error, time.monotonic())
            self._make_room()
            time.sleep(0.1)  # without file descriptors or memory the next accept would fail at once too
            return
        conversation = self._conversation(Channel(sock), address_text(address))
        try:
            objection = self._objection(address[0])
            if objection:
                conversation.turn_away(objection)
            else:
                self._start(conversation)
        except Exception as error:
            conversation.turn_away(f"{type(error).__name__}: {error}")

    def _say_not_accepted(self, error: OSError, now: float) -> None:
        """Log it, but not each try: peers that hold every descriptor would fill the log's disk."""
        self._tries += 1
        if now - self._said_at >= QUIET:
            before = f" ({self._tries} tries since the last such line)" if self._tries > 1 else ""
            log.warning("a connection could not be accepted: %s%s", error.strerror, before)
            self._said_at, self._tries = now, 0

    def _start(self, conversation: C) -> None:
        with self._lock:
            thread = self._spare.pop() if self._spare else _Thread(self._converse)
            # listed before it runs: `_converse` may end, and take it off the list, at once
            self._conversations[conversation] = thread
        try:
            if not thread.is_alive():
                thread.start()
        except RuntimeError as error:  # the system gives no more threads
            self._forget(conversation)
            conversation.turn_away(str(error))
        else:
            thread.give(conversation)

    def _converse(self, thread: _Thread[C], conversation: C) -> bool:
        """Have a conversation; return whether its thread is to wait for another."""
        try:
            conversation.converse()
        finally:
            self._forget(conversation)
        with self._lock:
            stays = not self.stopping and len(self._spare) < SPARE
            if stays:
                self._spare.append(thread)
        return stays

    def _forget(self, conversation: C) -> None:
        with self._lock:
            self._conversations.pop(conversation, None)
