"""The table of sabotaged servers, and how the modules of the sections enter theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

from ggml_rpc_ref.protocol.connection import Connection
from ggml_rpc_ref.server.handlers import Session
from ggml_rpc_ref.spec.rules import RULES
from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES, Version
from tests.support.sabotage.sessions import Lenient

S = TypeVar("S", bound=type[Session])
C = TypeVar("C", bound=type[Connection])


@dataclass(frozen=True)
class Sabotage:
    """What is wrong with a server.

    Attributes:
        session: answers the requests.
        connection: reads and writes the messages.
        timeout: seconds for one answer; short where the fault is that none comes.
        version: the protocol version that it speaks.
    """

    session: type[Session] = Session
    connection: type[Connection] = Connection
    timeout: float = 10.0
    version: Version = DEFAULT


SABOTAGES: dict[str, Sabotage] = {}
"""Rule id to what breaks it."""


def _enter(rule: str, sabotage: Sabotage) -> None:
    assert rule not in SABOTAGES, f"{rule} is broken twice"
    # where the default version does not have the rule, the newest one that does
    version = DEFAULT if RULES[rule].present(DEFAULT) else max(version for version in PROFILES if RULES[rule].present(version))
    SABOTAGES[rule] = replace(sabotage, version=version)


def break_session(rule: str, timeout: float = 10.0) -> Callable[[S], S]:
    """Enter a session class as what breaks a rule."""

    def register(cls: S) -> S:
        _enter(rule, Sabotage(session=cls, timeout=timeout))
        return cls

    return register


def break_connection(rule: str, timeout: float = 10.0, session: type[Session] = Session) -> Callable[[C], C]:
    """Enter a connection class as what breaks a rule, with a session class where it takes both."""

    def register(cls: C) -> C:
        _enter(rule, Sabotage(session=session, connection=cls, timeout=timeout))
        return cls

    return register


class Answering(Session):
    """A session that changes the replies to one kind of request.

    Attributes:
        request: the kind.
        answer: gets the session, the request and the right reply, and returns the reply that is given.
        asked: how many such requests have come.
    """

    request: ClassVar[type]
    answer: ClassVar[Callable[[Any, Any, Any], object]]
    asked = 0

    def handle(self, message: object) -> object:
        """Answer as ours does, then change the reply."""
        right = super().handle(message)
        if not isinstance(message, self.request):
            return right
        self.asked += 1
        return type(self).answer(self, message, right)


def answering(rule: str, request: type, answer: Callable[[Any, Any, Any], object]) -> None:
    """Enter an `Answering` session as what breaks a rule."""
    _enter(rule, Sabotage(session=type("Answering", (Answering,), {"request": request, "answer": staticmethod(answer)})))


def lenient(*rules: str) -> None:
    """For each rule enter a session that does not refuse what breaks it."""
    for rule in rules:
        _enter(rule, Sabotage(session=type("Lenient", (Lenient,), {"rule": rule})))
