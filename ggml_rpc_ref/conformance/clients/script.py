"""What we play to a client: an honest server, in all but the changes that a script lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ggml_rpc_ref.spec.messages import HelloReply
from ggml_rpc_ref.spec.versions import Version

Alter = Callable[[bytes], bytes]
"""Turns the bytes of an honest reply into those that are sent."""
Answer = Callable[[Any, Any], Any]
"""Gets a request and its honest reply, and returns the reply that is sent."""
EVERY = 0
"""As the number of a change: every reply to the command."""
EACH_BYTE = -1
"""As the place of a cut: every byte comes by itself."""


class End(Enum):
    """What becomes of the connection after a change."""

    NOT = "goes on"
    FIN = "is closed"
    RESET = "is reset"


@dataclass(frozen=True, slots=True)
class Change:
    """What is different from an honest server.

    Attributes:
        command: ggml's name of the command; "" for all of them.
        number: which of its requests, counted over all connections of a run from 1; EVERY: each of them.
        answer: the reply in place of the honest one, as a message.
        alter: what is done to the reply's bytes.
        delay: seconds before the reply.
        cut: bytes of the reply that come first, the rest a moment later; EACH_BYTE; 0: all at once.
        end: what becomes of the connection after the reply.
        is_fault: whether no client can go on with this connection: it is told once nothing of the client's is under way, so
            that whatever comes after it was sent in spite of it.
    """

    command: str = ""
    number: int = 1
    answer: Answer | None = None
    alter: Alter | None = None
    delay: float = 0.0
    cut: int = 0
    end: End = End.NOT
    is_fault: bool = False

    def meets(self, command: str, number: int) -> bool:
        """Whether it changes this request's reply."""
        return self.command in ("", command) and self.number in (EVERY, number)


@dataclass(frozen=True, slots=True)
class Script:
    """What is played.

    Attributes:
        version: the version that is spoken; None: the client's own.
        devices: how many each server has.
        has_cache: whether uploads of more than 10 MiB are kept, for this run and those after it.
        changes: what is different from an honest server; of several that meet a request the first one counts.
    """

    version: Version | None = None
    devices: int = 1
    has_cache: bool = False
    changes: tuple[Change, ...] = ()

    def change(self, command: str, number: int) -> Change | None:
        """Return what is different about the reply to a request."""
        return next((change for change in self.changes if change.meets(command, number)), None)


HONEST = Script()
"""Nothing is different."""


def announcing(version: Version) -> Script:
    """Return the script of a server that names a version in HELLO, whatever it speaks."""

    def answer(_: Any, honest: HelloReply) -> HelloReply:
        said = {"major": version.major, "minor": version.minor, "patch": version.patch}
        return HelloReply(**said, padding=honest.padding, conn_caps=honest.conn_caps)

    return Script(changes=(Change("HELLO", EVERY, answer=answer),))


def fault(command: str, alter: Alter | None = None, end: End = End.NOT) -> Script:
    """Return a script whose first reply to a command is one that no client can go on with."""
    return Script(changes=(Change(command, alter=alter, end=end, is_fault=True),))


def answering(command: str, answer: Answer, number: int = EVERY) -> Script:
    """Return a script in which a command is answered otherwise, in the form that the version has."""
    return Script(changes=(Change(command, number, answer=answer),))
