"""The tool tests/mutation: it makes each change once, the suite kills what a peer can see, and what it can't see survives."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ggml_rpc_ref.conformance import CASES
from ggml_rpc_ref.spec.versions import DEFAULT
from tests.mutation import mutants
from tests.mutation.__main__ import EQUIVALENT, survivors
from tests.mutation.forked import Zygote
from tests.mutation.killing import Killer
from tests.mutation.reach import Question, Reach, find_out

CODE = """
LIMIT = 5
def f(a, b=3):
    "Doc 7."
    if a < b and a:
        raise ValueError(f"text {a + 1}")
    log.info("not this %d", 4)
    checkpoint()
    for rows in slabs(a, 4 * b):
        rows[b + CHUNK] = b
    if 4 * a <= SLAB_BYTES:
        return -b
    node.require(a > b, f"more than {b + 1}", 6, at=a if b else 7)
    return a.reshape(-1, 8) + 2
def cost(node):
    return 3 * node
"""


def changed(number: int) -> str:
    return ast.unparse(mutants.Changer(number).visit(ast.parse(CODE)))


def test_each_change_is_made_once_and_nothing_else() -> None:
    changer = mutants.Changer()
    changer.visit(ast.parse(CODE))
    assert [what for _, _, what in changer.made] == [
        "`a < b and a` the other way round",
        "`a < b and a` with Or",
        "`a < b` with LtE",
        "without `raise ValueError(f'text {a + 1}')`",
        "`b + CHUNK` with Sub",
        "without `node.require(a > b, f'more than {b + 1}', 6, at=a if b else `",
        "`a > b` with GtE",
        "`a.reshape(-1, 8) + 2` with Sub",
        "9 for 8",
        "3 for 2",
    ]
    texts = {changed(number) for number in range(10)}
    assert len(texts) == 10
    assert ast.unparse(ast.parse(CODE)) not in texts
    assert "if a <= b and a:" in changed(2)
    assert "        pass" in changed(3)
    assert all("LIMIT = 5" in text and "b=3" in text and "Doc 7." in text and "4)" in text for text in texts)


IDS = ("data.round-trip/type-f32", "tensor.in-buffer/set-tensor-hash-byte-behind", "graph.computes/add")
ASKED = [Question(CASES[id], DEFAULT) for id in IDS]
FATES = {
    "server/memory.py Buffer.offset_of: `self.base + self.size` with Sub": {ASKED[0].id, ASKED[2].id},
    "server/memory.py Buffer.offset_of: `address + size` with Sub": {ASKED[1].id},
    # what comes after it refuses too
    "server/memory.py Memory.bounds: without `raise Violation('tensor.in-buffer', f'{field}.data', hex(wir`": {""},
    # run by importing, so that a fresh process makes the change: no op of the version is known then
    "ops/__init__.py ops_of: `name in known` with NotIn": {ASKED[2].id},
}
"""What kills a mutant when only these cases are asked: of several whichever was the quicker before."""


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    with Zygote() as zygote:
        yield Killer(zygote, ASKED, Reach.of(list(find_out(ASKED))))


@pytest.mark.parametrize("key", FATES)
def test_a_change_is_killed_by_the_case_that_sees_it(killer: Killer, key: str) -> None:
    mutant = next(m for m in mutants.mutants([key.partition(" ")[0]]) if m.key == key)
    assert killer.fate(mutant).by in FATES[key]


def test_every_mutant_has_a_name_of_its_own() -> None:
    found = mutants.mutants(mutants.MODULES)
    assert len({mutant.key for mutant in found}) == len(found) > 5000
    assert {"server/memory.py", "protocol/codec.py", "ops/mul_mat.py"} <= {mutant.module for mutant in found}


def test_the_survivors_of_a_run_can_be_judged_again(tmp_path: Path) -> None:
    key = next(iter(FATES))
    score = tmp_path / "score.json"
    score.write_text(json.dumps({"survivors": {key: "", "server/memory.py gone: a line that is there no more": ""}}))
    assert [mutant.key for mutant in survivors(score)] == [key]


def test_the_score_that_is_kept_adds_up() -> None:
    score = json.loads((mutants.ROOT / "tests" / "mutation" / "score.json").read_text(encoding="utf-8"))
    assert score["killed"] + len(score["survivors"]) == score["mutants"] >= 300
    assert sum(score["killed_by"].values()) == sum(score["verdicts"].values()) == score["killed"]
    assert score["score"] == round(100 * score["killed"] / score["mutants"], 1)
    assert score["explained"] == sum(reason.startswith(EQUIVALENT) for reason in score["survivors"].values())
