"""What a conformance case is: an id, the rule it judges, one sentence, and a function that talks to the server under test.

A case's id is its rule's id, a slash, and words: `data.offset-wrap/set-near-2-64`. Ids never change and never come back with
another meaning, so that they can be cited and stand in files of expected failures. The function returns where the rule holds and
raises `Broken` where it does not; it is told nothing of who the server is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any

from ggml_rpc_ref.spec.rules import RULES, Rule

if TYPE_CHECKING:
    from ggml_rpc_ref.conformance.peer import Subject


class Verdict(StrEnum):
    """What became of a case."""

    PASS = "PASS"
    """The rule holds here."""
    FAIL = "FAIL"
    """The server answered, accepted or closed where the rule says otherwise."""
    UNSUPPORTED = "UNSUPPORTED"
    """The server lacks what the case needs (a second device, a second client at a time, a cache); no fault."""
    SKIP = "SKIP"
    """Not judged: the tool was not allowed to, can't see it from where it stands, or the server is gone."""
    CRASH = "CRASH"
    """After the case the server accepted no connection any more."""
    HANG = "HANG"
    """Neither an answer nor an end of the connection came before the deadline."""
    DESYNC = "DESYNC"
    """A reply of the wrong length, one too many, or none where the next request's came: the stream is out of step."""
    ERROR = "ERROR"
    """The tool's own fault."""


NO_FAULT = frozenset({Verdict.PASS, Verdict.UNSUPPORTED, Verdict.SKIP})
"""Verdicts that say nothing against the server."""


class Broken(Exception):  # noqa: N818  (it is the server that is broken)
    """A rule does not hold.

    Args:
        expected: what should have happened, as half a sentence.
        actual: what happened.
        rule: id of the rule that is broken; "" for the one that the case judges. Another one where the case stumbled on its way,
            over a reply of the wrong length for instance.
        verdict: FAIL, HANG or DESYNC.
    """

    def __init__(self, expected: str, actual: str, rule: str = "", verdict: Verdict = Verdict.FAIL) -> None:
        self.expected, self.actual, self.rule, self.verdict = expected, actual, rule, verdict
        super().__init__(f"expected {expected}; {actual}")


class NotJudged(Exception):  # noqa: N818  (no error)
    """A case can't be judged on this server.

    Args:
        reason: why, as a sentence without its full stop.
        verdict: UNSUPPORTED where the server lacks something, SKIP where the tool does.
    """

    def __init__(self, reason: str, verdict: Verdict = Verdict.UNSUPPORTED) -> None:
        self.reason, self.verdict = reason, verdict
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Case:
    """One question to a server.

    Attributes:
        id: permanent.
        doc: what is sent and what must happen.
        run: asks it.
        may_crash: whether servers are known that die of it; on a machine that is not this one it is asked only with leave.
        patience: how many times the usual deadline its answers may take.
        judges: id of its rule, where its own id doesn't begin with that.
    """

    id: str
    doc: str
    run: Callable[[Subject], None]
    may_crash: bool = False
    patience: float = 1.0
    judges: str = ""

    @property
    def rule(self) -> Rule:
        """The rule it judges."""
        return RULES[self.judges or self.id.partition("/")[0]]


CASES: dict[str, Case] = {}
"""Case id to case, in the order of the sections."""

Ask = Callable[..., None]


def case(id: str, *, each: Mapping[str, Any] | None = None, may_crash: bool = False, patience: float = 1.0) -> Callable[[Ask], Ask]:
    """Make a function a case; with `each` as many cases as there are rows.

    Args:
        id: the id; with `each` its "{}" stands for the row's key.
        each: words to the value that the function gets as its second argument. "{}" in its docstring stands for the words.
        may_crash: see `Case`.
        patience: see `Case`.
    """

    def register(ask: Ask) -> Ask:
        doc = " ".join((ask.__doc__ or "").split())
        if each is None:
            _add(Case(id, doc, ask, may_crash, patience))
        for words, value in (each or {}).items():
            _add(Case(id.format(words), doc.replace("{}", words), partial(_ask_row, ask, value), may_crash, patience))
        return ask

    return register


def _ask_row(ask: Ask, value: Any, subject: Subject) -> None:
    ask(subject, value)


def _add(new: Case) -> None:
    rule, _, words = new.id.partition("/")
    assert rule in RULES, f"{new.id}: no rule has the id {rule}"
    assert words, f"{new.id}: words are missing"
    assert new.id not in CASES, f"{new.id} stands twice"
    assert new.doc.endswith("."), f"{new.id} has no sentence"
    CASES[new.id] = new


def require(condition: bool, expected: str, actual: object) -> None:
    """Raise Broken unless a condition holds."""
    if not condition:
        raise Broken(expected, f"got {actual}")
