"""The tool tests/mutation.py: it makes each change once, the suite kills what a peer can see, and what it can't see survives."""

from __future__ import annotations

import ast

import pytest

from tests import mutation

CODE = """
LIMIT = 5
def f(a, b=3):
    "Doc 7."
    if a < b and a:
        raise ValueError(f"text {a + 1}")
    log.info("not this %d", 4)
    return a + 2
"""


def changed(number: int) -> str:
    return ast.unparse(mutation.Changer(number).visit(ast.parse(CODE)))


def test_each_change_is_made_once_and_nothing_else() -> None:
    changer = mutation.Changer()
    changer.visit(ast.parse(CODE))
    assert [what for _, what in changer.made] == [
        "`a < b and a` the other way round",
        "`a < b and a` with Or",
        "`a < b` with LtE",
        "without `raise ValueError(f'text {a + 1}')`",
        "`a + 2` with Sub",
        "3 for 2",
    ]
    texts = {changed(number) for number in range(6)}
    assert len(texts) == 6
    assert ast.unparse(ast.parse(CODE)) not in texts
    assert "if a <= b and a:" in changed(2)
    assert "        pass" in changed(3)
    assert all("LIMIT = 5" in text and "b=3" in text and "Doc 7." in text and "4)" in text for text in texts)


def test_a_change_that_a_peer_sees_is_killed() -> None:
    mutant = next(m for m in mutation.mutants(["backends/memory.py"]) if "the other way round" in m.what)
    assert mutation.killer(mutant, play=False) != ""


@pytest.mark.parametrize("module", mutation.MODULES)
def test_every_module_has_mutants(module: str) -> None:
    assert len(mutation.mutants([module])) > 2
