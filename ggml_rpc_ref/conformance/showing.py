"""Explanations of rules and cases, for `ggml-rpc-ref show`."""

from __future__ import annotations

from collections.abc import Iterator

from ggml_rpc_ref.conformance.case import CASES
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.files import FILE_RULES
from ggml_rpc_ref.spec.observed import observed
from ggml_rpc_ref.spec.rules import RULES
from ggml_rpc_ref.spec.versions import DEFAULT


def show(name: str) -> Iterator[str]:
    """Yield lines that explain a rule, a case and its rule, or a rule of the files around the protocol.

    Raises:
        Misuse: for an unknown id.
    """
    if name in FILE_RULES:
        yield from (name, f"  {FILE_RULES[name].sentence}", '  SPEC.md, chapter "Files around the protocol", describes the files')
        return
    rule = CASES[name].rule if name in CASES else RULES.get(name)
    if rule is None:
        elsewhere = "`ggml-rpc-ref conform --list` lists them; a vector explains itself in its file"
        raise Misuse(f"no rule and no case has the id {name!r}; {elsewhere}")
    if name in CASES:
        yield from (name, f"  {CASES[name].doc}", "")
    yield f"{rule.id} ({rule.level})"
    yield f"  {rule.sentence}"
    yield f"  our server:          {rule.outcome}"
    yield f"  genuine rpc-server:  {observed().rules.get(rule.id, f'{DEFAULT} is not bound by it')}"
    if name not in CASES:
        yield from (f"  {case.id}  {case.doc}" for case in CASES.values() if case.rule is rule)
