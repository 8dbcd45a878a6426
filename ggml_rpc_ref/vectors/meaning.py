"""What no schema can say of conversations: rules that exist, outcomes waited for, names bound before use, flags described."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ggml_rpc_ref.spec.rules import RULES
from ggml_rpc_ref.vectors.script import Named, Script, Step, from_json

Contents = Mapping[str, tuple[str, Any]]
"""File, as "directory/name.json" below that of the vectors, to its kind and content."""


def faults(contents: Contents) -> Iterator[str]:
    """Yield what is wrong in files that their schemas allow, a sentence each."""
    for where, (kind, content) in contents.items():
        for about, case in _conversations(kind, content):
            script = from_json(case, about)
            wrong = [*_order(script), *(_case(where, case, script) if kind == "malformed" else ())]
            yield from (f"{where}: {script.id}: {fault}" for fault in wrong)
    yield from _flags(contents)


def _conversations(kind: str, content: Any) -> Iterator[tuple[str, Any]]:
    """Yield the JSON of each conversation in a file, with the field that says what it shows."""
    if kind == "sessions":
        yield "about", content
    elif kind == "malformed":
        yield from (("reason", case) for case in content["cases"])


def _case(where: str, case: Any, script: Script) -> Iterator[str]:
    """Yield what is wrong with a malformed case's rule and outcome."""
    rule = case["rule"]
    if rule not in RULES:
        yield f"the rule {rule!r} does not exist"
    if not script.id.startswith(f"{rule}/"):
        yield f"its id does not begin with its rule, {rule!r}"
    if not where.endswith(f"/{rule.split('.')[0]}.json"):
        yield f"a case of {rule!r} does not belong in this file"
    refusals = [step for step in script.steps if step.act == "refused"]
    if (case["outcome"] == "refused") is not bool(refusals):
        yield f"its outcome is {case['outcome']!r}, and {'a' if refusals else 'no'} step waits for a refusal"


def _order(script: Script) -> Iterator[str]:
    """Yield what is wrong with the order of a conversation's steps, and with its names."""
    known, used, over = {name for name, row in script.bindings.items() if row.by == "client"}, set[str](), set[int]()
    for number, step in enumerate(script.steps, 1):
        if step.connection in over:
            yield f"step {number} comes after the end of connection {step.connection}"
        if step.act in ("refused", "close"):
            over.add(step.connection)
        names = _names(step)
        used |= names
        if step.act == "receive":
            known |= names
        elif unknown := names - known:
            yield f"step {number} sends {sorted(unknown)}, which nothing has bound by then"
    if used != set(script.bindings):
        yield f"its steps use other names than it binds: {sorted(used ^ set(script.bindings))}"


def _names(step: Step) -> set[str]:
    return {piece.name for piece in step.pieces if isinstance(piece, Named)}


def _flags(contents: Contents) -> Iterator[str]:
    """Yield a sentence for each flag that is used and not described, and the other way round."""
    described = {flag for kind, content in contents.values() if kind == "flags" for flag in content["flags"]}
    used: dict[str, str] = {}
    for where, (kind, content) in contents.items():
        for _, case in _conversations(kind, content):
            used |= dict.fromkeys(case.get("flags", ()), f"{where}: {case['id']}")
    yield from (f"{used[flag]}: the flag {flag!r} is not described in flags.json" for flag in sorted(used.keys() - described))
    yield from (f"flags.json: nothing has the flag {flag!r}" for flag in sorted(described - used.keys()))
