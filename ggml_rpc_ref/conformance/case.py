"""What a conformance case is: an id, the rule it judges, one sentence, and a function that talks to the server under test.

A case's id is its rule's id, a slash, and words: `data.offset-wrap/set-near-2-64`. Ids never change and never come back with
another meaning, so that they can be cited and stand in files of expected failures. The function returns where the rule holds and
raises `Broken` where it does not; it is told nothing of who the server is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ggml_rpc_ref.conformance.peer import Subject
from ggml_rpc_ref.spec.rules import RULES, Rule


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
