"""What came of a run of a client: its requests, connection by connection, and how its process ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ggml_rpc_ref.conformance.clients.script import Script
from ggml_rpc_ref.conformance.peer import TranscriptPiece
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.protocol.graph import Graph, request_class
from ggml_rpc_ref.spec.messages import Hello, Message, command_name
from ggml_rpc_ref.spec.versions import Version

ABORTED = 6
"""SIGABRT: how a process ends itself."""
MEMORY_FAULTS = {4: "SIGILL", 7: "SIGBUS", 8: "SIGFPE", 10: "SIGBUS", 11: "SIGSEGV"}
"""Signals by which the system ends a process for what it did. By number: 10 is macOS's SIGBUS."""


@dataclass(slots=True)
class Asked:
    """A request that came.

    Attributes:
        connection: the number of its connection, counted over all endpoints from 1.
        message: the request, without data; a GRAPH_COMPUTE as a `Graph`.
        at: `time.monotonic` when its last byte had come.
        size: bytes of data that came with it.
        reply: what was answered; None for nothing.
        replied: `time.monotonic` when the reply, or its last piece, was about to be sent; 0 without one.
        after_fault: whether it came when this connection could not go on any more.
        data_hash: FNV-1a 64 of its data, where it follows a SET_TENSOR_HASH that was answered with 0.
    """

    connection: int
    message: Any
    at: float
    size: int = 0
    reply: Any = None
    replied: float = 0.0
    after_fault: bool = False
    data_hash: int | None = None

    @property
    def cls(self) -> type:
        """The request's class in the table."""
        return request_class(self.message)

    @property
    def command(self) -> str:
        """ggml's name of the command."""
        return command_name(self.cls)


@dataclass(slots=True)
class Conversation:
    """One connection of the client.

    Attributes:
        number: counted over all endpoints from 1.
        endpoint: which of our endpoints it came to, from 0.
        version: the version that was spoken.
        asked: its requests.
        violation: what the client did that a server refuses.
        is_cut: whether the client ended it within a message.
        told_at: `time.monotonic` when a fault was told on it; 0: none was.
        record: what was said, for the transcript.
    """

    number: int
    endpoint: int
    version: Version
    asked: list[Asked] = field(default_factory=list)
    violation: Violation | None = None
    is_cut: bool = False
    told_at: float = 0.0
    record: list[TranscriptPiece] = field(default_factory=list)

    @property
    def opened(self) -> bool:
        """Whether HELLO was said as it should be."""
        return bool(self.asked) and self.asked[0].cls is Hello

    @property
    def goes_on(self) -> bool:
        """Whether anything came after HELLO."""
        return len(self.asked) > 1 or (self.opened and self.violation is not None)

    def all(self, cls: type) -> list[Asked]:
        """Return the requests of a class."""
        return [asked for asked in self.asked if asked.cls is cls]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a client's process ended.

    Attributes:
        status: exit status, negative for a signal's number; None where we can't see it, or it had to be killed.
        hung: whether it had not ended in time.
        lines: the last lines that it printed.
        visible: whether it is a process of ours.
    """

    status: int | None = None
    hung: bool = False
    lines: tuple[str, ...] = ()
    visible: bool = True

    @property
    def death(self) -> str:
        """How it ended, as half a sentence; "" where we can't see it."""
        if not self.visible:
            return ""
        how = "it did not end in time" if self.hung else f"exit status {self.status}"
        if self.status is not None and self.status < 0:
            how = f"it was killed by {MEMORY_FAULTS.get(-self.status) or f'signal {-self.status}'}"
            if self.status == -ABORTED:
                how = "it ended itself by SIGABRT"
        return how + (f"; its last output: {self.lines[-1]}" if self.lines else "")


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the client against a script.

    Attributes:
        script: what was played.
        version: what was spoken.
        conversations: its connections, in the order in which they came.
        ended: how its process ended.
        told: how many replies were changed.
    """

    script: Script
    version: Version
    conversations: tuple[Conversation, ...]
    ended: Ended
    told: int

    @property
    def works(self) -> bool:
        """Whether the client got through: it ended well as far as we see, it went on after HELLO, and nothing had to be refused."""
        seen = any(talk.goes_on for talk in self.conversations)
        return seen and self.ended.status in (0, None) and not self.ended.hung and not any(self.violations())

    def violations(self) -> Iterator[tuple[Conversation, Violation]]:
        """Yield what a server refuses; a HELLO of another form is not among it where a later connection had the right one."""
        for talk in self.conversations:
            if talk.violation is not None and not self._is_negotiation(talk):
                yield talk, talk.violation

    def _is_negotiation(self, talk: Conversation) -> bool:
        form = talk.violation is not None and talk.violation.field == "Hello size"
        return form and any(later.opened for later in self.conversations if later.number > talk.number)

    def asked(self, cls: type | None = None) -> Iterator[Asked]:
        """Yield the requests of all connections, or those of a class."""
        for talk in self.conversations:
            yield from (asked for asked in talk.asked if cls is None or asked.cls is cls)

    def commands(self) -> dict[str, int]:
        """Return how often each command came."""
        counts: dict[str, int] = {}
        for asked in self.asked():
            counts[asked.command] = counts.get(asked.command, 0) + 1
        return counts

    def after_fault(self) -> list[Asked]:
        """Return what came on a connection that could not go on."""
        return [asked for asked in self.asked() if asked.after_fault]

    def record(self) -> tuple[TranscriptPiece, ...]:
        """Return what was said on all connections."""
        return tuple(said for talk in self.conversations for said in talk.record)


def graphs(run: Run) -> Iterator[Graph]:
    """Yield the graphs that were sent."""
    yield from (asked.message for asked in run.asked() if isinstance(asked.message, Graph))


def records_of(asked: Asked) -> Iterator[Message]:
    """Yield the tensor records of a request other than GRAPH_COMPUTE, absent sources left out."""
    for name in ("tensor", "src", "dst"):
        if (tensor := getattr(asked.message, name, None)) is not None:
            yield tensor
    yield from (source for source in getattr(asked.message, "srcs", ()) if source.id)
