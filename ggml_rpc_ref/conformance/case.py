"""A conformance case: an id, the rule it judges, one sentence, and a function that talks to the server under test.

A case's id is its rule's id, a slash, and words: `data.offset-wrap/set-near-2-64`. Ids never change and are never reused with
another meaning, so that they can be cited and listed in files of expected failures. The function returns if the server follows the
rule and raises `Broken` if it does not; it does not know which server it judges.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ggml_rpc_ref.conformance.peer import Subject
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.messages import REQUESTS, command_name
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.rules import RULES, Rule
from ggml_rpc_ref.spec.versions import NEWEST, Version, present


@dataclass(frozen=True, slots=True)
class Case:
    """One question to a server.

    Attributes:
        id: permanent.
        doc: what is sent and what must happen.
        run: the function; it gets the subject, or for a case about clients the bench.
        may_crash: whether servers are known to crash on it; on another machine it is run only with permission.
        patience: factor by which its answers may exceed the usual deadline.
        judges: id of its rule, where its own id does not begin with that.
        since: the first version to whose servers it is put, where that is not its rule's.
        until: the first version to whose servers it is no longer put, likewise.
    """

    id: str
    doc: str
    run: Callable[[Any], None]
    may_crash: bool = False
    patience: float = 1.0
    judges: str = ""
    since: Version | None = None
    until: Version | None = None

    @property
    def rule(self) -> Rule:
        """The rule that it judges."""
        return RULES[self.judges or self.id.partition("/")[0]]

    @property
    def command(self) -> str:
        """The command whose plainest use it judges, "" for other cases."""
        section, _, words = self.id.partition("/")
        return NAMES.get(words, "") if section == "frame.reply-presence" else ""

    def present(self, version: Version) -> bool:
        """Whether servers of a version are asked this."""
        rule = self.rule
        return present(version, self.since or rule.since, self.until or rule.until)


NAMES: Mapping[str, str] = {name.lower().replace("_", "-"): name for name in (*map(command_name, REQUESTS), *BY_NAME)} | {
    "copy-tensor-src": "COPY_TENSOR (src)",
    "copy-tensor-dst": "COPY_TENSOR (dst)",
    "get-alloc-size-src": "GET_ALLOC_SIZE (source)",
    "graph-leaf": "GRAPH_COMPUTE (leaf)",
}
"""Words of ids that name a command or a type, to the name that sentences use."""
OPS: Mapping[str, str] = {f"of-{name.lower().replace('_', '-')}": name for name in op_table(NEWEST)}
"""Words of ids that name an op, likewise."""

CASES: dict[str, Case] = {}
"""All cases by id, in the order of the sections."""

Ask = Callable[..., None]


Mark = Version | None
"""A version from which, or up to which, something is so; None: its rule's."""


def case(
    id: str,
    *,
    each: Mapping[str, Any] | None = None,
    may_crash: bool = False,
    patience: float = 1.0,
    since: Mark | Callable[[Any], Mark] = None,
    until: Mark | Callable[[Any], Mark] = None,
    among: dict[str, Case] = CASES,
) -> Callable[[Ask], Ask]:
    """Register a function as a case, or with `each` as one case for each row.

    Args:
        id: the id; with `each`, "{}" in it stands for the row's key.
        each: key to the value that the function gets as its second argument. "{}" in the docstring stands for the key as `in_words`
            writes it.
        may_crash: see `Case`.
        patience: see `Case`.
        since, until: see `Case`; with `each`, perhaps a function of the row's value.
        among: the cases that it becomes one of.
    """

    def register(ask: Ask) -> Ask:
        doc = " ".join((ask.__doc__ or "").split())
        if each is None:
            _add(among, Case(id, doc, ask, may_crash, patience, "", _mark(since), _mark(until)))
        for words, value in (each or {}).items():
            sentence = doc.replace("{}", in_words(words))
            marks = _mark(since, value), _mark(until, value)
            # partial keeps this row's value, where a lambda would see the last one's
            _add(among, Case(id.format(words), sentence, partial(_ask_row, ask, value), may_crash, patience, "", *marks))
        return ask

    return register


def _mark(mark: Mark | Callable[[Any], Mark], value: Any = None) -> Mark:
    return mark(value) if callable(mark) else mark


def in_words(words: str) -> str:
    """Return words of an id as sentences write them: commands, types and ops by ggml's names, "size-2-64-less-1" as size 2^64-1."""
    return NAMES.get(words) or OPS.get(words) or re.sub(r"-?\b2-(\d+)", r" 2^\1", words).replace("-less-", "-").strip()


def _ask_row(ask: Ask, value: Any, subject: Subject) -> None:
    ask(subject, value)


def _add(cases: dict[str, Case], new: Case) -> None:
    rule, _, words = new.id.partition("/")
    assert rule in RULES, f"{new.id}: no rule has the id {rule}"
    assert words, f"{new.id}: words are missing"
    assert new.id not in CASES, f"{new.id} is there twice"
    assert new.id not in cases, f"{new.id} is there twice"
    assert new.doc.endswith("."), f"{new.id} has no sentence"
    cases[new.id] = new
