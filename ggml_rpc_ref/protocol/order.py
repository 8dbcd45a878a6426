"""The order of a conversation: whose turn it is, and which reply belongs to which request. No bytes, no sockets.

    order = Order[Message](DEFAULT)
    row = order.command(14)                     # a request begins: HELLO, or a Violation
    order.ask(row.cls, hello)                   # it has come
    order.due().check_size(3)                   # a reply begins: to the oldest request that awaits one
    order.answer()                              # it has come

These rules stand here once, for both ends of a connection (`connection`), for the proxy between them (`proxy.follow`), for reading
recordings (`decode.messages`, `golden.timeline`) and for judging a server (`conformance.peer`): HELLO comes first and only once; a
version has certain commands; replies carry no id, so a reply belongs to the oldest request that still awaits one; its class follows
from the request and the version, its size from the class or from the request; and the conversation may end only where no reply
is awaited.

Source: the request loop of rpc_serve_client in ggml-rpc.cpp, which handles one request after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Generic, NamedTuple, TypeVar

from ggml_rpc_ref.errors import Misuse, Violation
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.dialects import meanings
from ggml_rpc_ref.spec.messages import REQUESTS, Hello, NoReply, Request, by_number, carries_data, command_name
from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES, Version

T = TypeVar("T")


class Awaited(NamedTuple, Generic[T]):
    """A request that awaits its reply.

    Attributes:
        cls: the request's class.
        reply: the class of its reply.
        size: bytes of the reply's payload.
        request: the request itself, as its owner keeps it.
    """

    cls: type
    reply: type
    size: int
    request: T

    def check_size(self, size: int) -> None:
        """Refuse another size of the reply, before any byte of its payload has come.

        Raises:
            Violation: frame.reply-presence for a reply that carries data, frame.size-fixed for another.
        """
        if size == self.size:
            return
        if carries_data(self.reply):
            detail = f"{self.size} bytes were asked for"
            raise Violation("frame.reply-presence", f"{self.reply.__name__} size", size, detail)
        raise Violation("frame.size-fixed", f"{self.reply.__name__} size", size, f"this record has {self.size} bytes")


def awaited(cls: type, request: T, version: Version = DEFAULT, value: Callable[[str], int] | None = None) -> Awaited[T] | None:
    """Return what a request awaits; None where the version does not answer it.

    Args:
        cls: the request's class.
        request: the request, kept as it is.
        version: the protocol version.
        value: gives a field of the request by name; None: the request has them as attributes.
    """
    answer = _answer(cls, version)
    if answer is None:
        return None
    reply, size = answer
    if size is None:
        size = REQUESTS[cls].bytes_asked(value or partial(getattr, request))
    return Awaited(cls, reply, size, request)


@cache
def _answer(cls: type, version: Version) -> tuple[type, int | None] | None:
    """Return class and size of the reply to a request; None for the size where the request says it, None for both without reply."""
    row = REQUESTS[cls]
    reply = row.reply(version)
    if isinstance(reply, NoReply):
        return None
    return reply, None if row.reply_size else codec.minimum_size(reply, version)


def sending_hello_of(size: int) -> tuple[Version, ...]:
    """Return the versions whose clients say HELLO with a payload of this size, oldest first."""
    return tuple(version for version in PROFILES if codec.minimum_size(Hello, version) == size)


class Order(Generic[T]):
    """The order of one conversation; T is what its owner keeps of a request until the reply comes.

    Args:
        version: the protocol version that is spoken.
        from_start: whether the conversation is known from its first byte; if not, the first request may be any.
        by_hello: versions among which HELLO's size decides, for one that does not know what the client speaks before; none: the
            version is `version`.
    """

    def __init__(self, version: Version = DEFAULT, *, from_start: bool = True, by_hello: Iterable[Version] = ()) -> None:
        self._version, self._from_start, self._by_hello = version, from_start, tuple(by_hello)
        self._opened = False
        self._awaited: deque[Awaited[T]] = deque()

    @property
    def version(self) -> Version:
        """The protocol version that is spoken."""
        return self._version

    @property
    def opened(self) -> bool:
        """Whether the first request has been made: HELLO, where the conversation is known from its start."""
        return self._opened

    @property
    def waiting(self) -> int:
        """How many requests await their replies."""
        return len(self._awaited)

    @property
    def oldest(self) -> Awaited[T] | None:
        """The request to which the next reply belongs; None where none is awaited, and the conversation may end."""
        return self._awaited[0] if self._awaited else None

    # -------------------------------------------------------------------------------------------------------- version

    def agree(self, version: Version) -> None:
        """Go on in the version that HELLO's reply has announced.

        Raises:
            Misuse: where a request awaits its reply, which would be read by the wrong layout.
        """
        if self._awaited:
            raise Misuse(f"protocol {version} can't be agreed on while {command_name(self._awaited[0].cls)} awaits its reply")
        self._version = version

    def hear_hello(self, size: int) -> None:
        """Take the first of the versions `by_hello` whose HELLO has this size, unless the current version's has.

        HELLO's request carries no version; its size is the only hint (0 bytes before 4.0.0, 24 since).

        Raises:
            Violation: frame.size-fixed, where none has it; the sentence says what sends such a one.
        """
        own = codec.minimum_size(Hello, self._version)
        if size == own:
            return
        theirs = sending_hello_of(size)
        spoken = next((version for version in self._by_hello if version in theirs), None)
        if spoken is None:
            who = f"clients of {theirs[0]} to {theirs[-1]} send" if theirs else "no version known here sends"
            detail = f"{self._hello_sizes()}; {who} {size}"
            raise Violation("frame.size-fixed", "Hello size", size, detail)
        self.agree(spoken)

    def _hello_sizes(self) -> str:
        """Return which sizes of HELLO are taken, with a version for each."""
        # reversed: of several versions with one size, the first counts, the current one before all
        taken = {codec.minimum_size(Hello, version): version for version in reversed((self._version, *self._by_hello))}
        (size, version), *others = sorted(taken.items())
        return f"protocol {version} has {size} bytes" + "".join(f", {other} has {theirs}" for theirs, other in others)

    # ------------------------------------------------------------------------------------------------------- requests

    def command(self, number: int) -> Request:
        """Return the row of the request that begins with this command number.

        Raises:
            Violation: session.hello-first, session.hello-once, frame.command-known.
        """
        row = by_number(self._version).get(number)
        is_hello = row is not None and row.cls is Hello
        # before an unknown number is refused, as in rpc_serve_client: whatever comes first in place of HELLO breaks this rule
        if not self._opened and self._from_start and not is_hello:
            hello = REQUESTS[Hello]
            raise Violation("session.hello-first", "command", number, f"the first command is {hello.name} ({hello.number})")
        if self._opened and is_hello:
            raise Violation("session.hello-once", "command", number, "HELLO is said once, as the first command")
        if row is None:
            forks = "".join(f"; it is {meaning}" for meaning in meanings(number))
            detail = f"protocol {self._version} defines none of this number{forks}"
            raise Violation("frame.command-known", "command", number, detail)
        return row

    def check(self, cls: type) -> None:
        """Refuse a request that a client must not send now.

        Raises:
            Misuse: for HELLO that is not the first request, or another request that is.
        """
        # HELLO is right exactly as long as nothing has been sent, every other request from then on
        if (cls is Hello) is self._opened:
            raise Misuse(f"{command_name(cls)}: HELLO is the first request of a connection, and only the first")

    def ask(self, cls: type, request: T, value: Callable[[str], int] | None = None) -> Awaited[T] | None:
        """Note that a request has been made; return what it awaits, None where it gets no reply.

        The arguments are those of `awaited`.
        """
        self._opened = True
        due = awaited(cls, request, self._version, value)
        if due is not None:
            self._awaited.append(due)
        return due

    # -------------------------------------------------------------------------------------------------------- replies

    def due(self) -> Awaited[T]:
        """Return the request to which the reply that begins belongs.

        Raises:
            Violation: frame.reply-presence, where none awaits one.
        """
        if not self._awaited:
            raise Violation("frame.reply-presence", "reply", "there", "no request awaits one")
        return self._awaited[0]

    def answer_with(self, cls: type) -> Awaited[T]:
        """Note that the oldest request is answered with a reply of this class; return it.

        Raises:
            Misuse: where that is not the one it awaits, or none awaits any.
        """
        if not self._awaited or self._awaited[0].reply is not cls:
            raise Misuse(f"{cls.__name__} is not the reply that is due")
        return self._awaited.popleft()

    def answer(self) -> Awaited[T]:
        """Note that the oldest request has been answered; return it."""
        return self._awaited.popleft()

    def forget(self) -> None:
        """Await no more replies: the conversation is no longer followed."""
        self._awaited.clear()
