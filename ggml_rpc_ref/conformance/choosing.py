"""Which cases to run: by id, rule, level, tag, command, op, type or version.

    select(["data.*", "op:MUL_MAT"], skip=["tag:may-crash"])

A pattern is an id of a case or of a rule with *, ? and [...], or a kind and a word: level:MUST, tag:may-crash, command:SET_TENSOR,
op:MUL_MAT, type:Q4_K, version:3.6.1. Commands, ops and types of a case are those that its sentence or its id names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache

from ggml_rpc_ref.conformance.case import CASES, Case
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.messages import REQUESTS
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.rules import RULES
from ggml_rpc_ref.spec.versions import PROFILES, Version

SLOW = 2.0
"""Cases whose answers may take this many times the usual deadline have the tag "slow"."""


def select(patterns: Sequence[str] = (), skip: Sequence[str] = (), among: Mapping[str, Case] = CASES) -> list[Case]:
    """Return the cases that match one of the patterns, or all, without those that match one of `skip`, in the order of the rules.

    Args:
        patterns: what to choose.
        skip: what to leave out.
        among: id to case, of which to choose.

    Raises:
        Misuse: for a pattern that matches nothing.
    """
    wanted, unwanted = [_matcher(pattern, among) for pattern in patterns], [_matcher(pattern, among) for pattern in skip]
    chosen = [
        case
        for case in among.values()
        if (not wanted or any(match(case) for match in wanted)) and not any(match(case) for match in unwanted)
    ]
    # by rule: a file need not hold its cases in that order (cases/data.py does not)
    order = {id: number for number, id in enumerate(RULES)}
    return sorted(chosen, key=lambda case: order[case.rule.id])


def _matcher(pattern: str, among: Mapping[str, Case]) -> Callable[[Case], bool]:
    kind, colon, word = pattern.partition(":")
    match = _by_kind(kind, word) if colon else lambda case: matches(case, pattern)
    if not any(map(match, among.values())):
        raise Misuse(f"no case and no rule matches {pattern!r}; `ggml-rpc-ref cases list` lists them")
    return match


def matches(case: Case, pattern: str) -> bool:
    """Whether the id of a case or of its rule matches a pattern with *, ? and [...]."""
    return fnmatchcase(case.id, pattern) or fnmatchcase(case.rule.id, pattern)


def _by_kind(kind: str, word: str) -> Callable[[Case], bool]:
    name = word.upper()
    match kind:
        case "level":
            return lambda case: case.rule.level == name
        case "tag":
            return lambda case: word.lower() in tags(case)
        case "version":
            return _in_version(word)
        case "command" | "op" | "type":
            return lambda case: name in topics(case)[kind]
    raise Misuse(f"{kind}:{word}: there is {', '.join(KINDS)}")


KINDS = ("level", "tag", "version", "command", "op", "type")
"""What may stand before the colon of a pattern."""


def _in_version(word: str) -> Callable[[Case], bool]:
    try:
        version = Version.parse(word)
    except ValueError as error:
        raise Misuse(f"version:{word}: {error}") from None
    if version not in PROFILES:
        raise Misuse(f"version:{word}: known are {', '.join(map(str, PROFILES))}")
    return lambda case: case.rule.present(version)


def tags(case: Case) -> list[str]:
    """Return a case's tags: its section, "may-crash", "slow"."""
    found = [case.rule.id.partition(".")[0]]
    return found + ["may-crash"] * case.may_crash + ["slow"] * (case.patience > SLOW)


@cache
def _names() -> Mapping[str, frozenset[str]]:
    commands = frozenset(row.name for row in REQUESTS.values())
    return {"command": commands, "op": frozenset(op_table(max(PROFILES))), "type": frozenset(BY_NAME)}


@cache
def topics(case: Case) -> Mapping[str, frozenset[str]]:
    """Return the commands, ops and types that a case names in its sentence, or in capitals in its id, by kind."""
    said = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*\b", case.doc))
    # "get-rows-q8-0" of graph.computes: there the sentence does not say which op it is
    id = case.id.partition("/")[2]
    if case.id.startswith("graph."):
        parts = {name for kind in ("op", "type") for name in _names()[kind] if _is_part(name, id)}
        # MUL_MAT is not what "mul-mat-id" names
        said |= {name for name in parts if not any(name != other and f"_{name}_" in f"_{other}_" for other in parts)}
    return {kind: frozenset(said & names) for kind, names in _names().items()}


def _is_part(name: str, id: str) -> bool:
    return f"-{name.lower().replace('_', '-')}-" in f"-{id}-"


def touching(kind: str, name: str, cases: Iterable[Case] | None = None) -> list[Case]:
    """Return the cases about a command, op or type."""
    return [case for case in (CASES.values() if cases is None else cases) if name in topics(case)[kind]]
