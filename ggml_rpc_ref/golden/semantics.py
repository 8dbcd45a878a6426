"""What no schema can check: rules exist, outcomes are waited for, names are bound before use, flags are described."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ggml_rpc_ref.files.conversation import Anything, AtLeast, Named, Near, Omitted, Script, Step, from_json, size_of
from ggml_rpc_ref.spec.rules import RULES
from ggml_rpc_ref.spec.versions import Version

Contents = dict[str, tuple[str, Any]]
"""File, as "directory/name.json" below that of the vectors, to its kind and content."""
MOST: Final = 2**28
"""The most bytes of a step: a line of JSON may say "times": 10^12, and both ends would have to hold them."""


def conversations(kind: str, stem: str, content: Any) -> Iterator[str]:
    """Yield what is wrong with the conversations in a file that follows its schema, a sentence each; `stem` is its name's."""
    for about, case in _conversations(kind, content):
        script = from_json(case, about)
        wrong = [*_order(script), *(_case(stem, case, script, content["protocol"]) if kind == "malformed" else ())]
        yield from (f"{script.id}: {fault}" for fault in wrong)


def _conversations(kind: str, content: Any) -> Iterator[tuple[str, Any]]:
    """Yield the JSON of each conversation in a file, with the name of the field that describes it."""
    if kind == "sessions":
        yield "about", content
    elif kind == "malformed":
        yield from (("reason", case) for case in content["cases"])


def _case(stem: str, case: Any, script: Script, protocol: str) -> Iterator[str]:
    """Yield what is wrong with a malformed case's rule and outcome."""
    rule = case["rule"]
    if rule not in RULES:
        yield f"the rule {rule!r} does not exist"
    elif not RULES[rule].present(Version.parse(protocol)):
        yield f"the rule {rule!r} does not bind servers of {protocol}"
    if not script.id.startswith(f"{rule}/"):
        yield f"its id does not begin with its rule, {rule!r}"
    if stem != rule.split(".")[0]:
        yield f"a case of {rule!r} does not belong in this file"
    refusals = [step for step in script.steps if step.act == "refused"]
    if (case["outcome"] == "refused") is not bool(refusals):
        yield f"its outcome is {case['outcome']!r}, and {'a' if refusals else 'no'} step waits for a refusal"


def _order(script: Script) -> Iterator[str]:
    """Yield what is wrong with the steps of a conversation, their order and their names."""
    if not script.about.isprintable():
        yield "its description has control characters, which a terminal would obey"
    known, used, over = {name for name, row in script.bindings.items() if row.by == "client"}, set[str](), set[int]()
    for number, step in enumerate(script.steps, 1):
        if step.connection in over:
            yield f"step {number} comes after the end of connection {step.connection}"
        if step.act in ("refused", "close"):
            over.add(step.connection)
        if (size := size_of(piece for piece in step.pieces if not isinstance(piece, Omitted))) > MOST:
            yield f"step {number} has {size:.3g} bytes, more than {MOST}"
        if step.act == "send" and any(isinstance(piece, AtLeast | Anything | Near) for piece in step.pieces):
            yield f"step {number} sends what can only be received"
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


def observed(path: Path, content: Any) -> Iterator[str]:
    """Yield what is wrong with the observations of a build: a rule for each entry, and an entry for each rule that binds it."""
    version = Version.parse(content["protocol"])
    if not path.parent.name.startswith(f"upstream-{version}-"):
        yield f"it is about protocol {version}, its directory is {path.parent.name}"
    yield from (f"the rule {rule!r} does not exist" for rule in content["rules"] if rule not in RULES)
    binding = (id for id, rule in RULES.items() if rule.present(version))
    yield from (f"it does not say what the build does about {id!r}" for id in binding if id not in content["rules"])


def flags(contents: Contents) -> Iterator[str]:
    """Yield a sentence for each flag that is used but not described, or described but not used."""
    described = {flag for kind, content in contents.values() if kind == "flags" for flag in content["flags"]}
    used: dict[str, str] = {}
    for where, (kind, content) in contents.items():
        for _, case in _conversations(kind, content):
            used |= dict.fromkeys(case.get("flags", ()), f"{where}: {case['id']}")
    yield from (f"{used[flag]}: the flag {flag!r} is not described in flags.json" for flag in sorted(used.keys() - described))
    yield from (f"flags.json: nothing has the flag {flag!r}" for flag in sorted(described - used.keys()))
