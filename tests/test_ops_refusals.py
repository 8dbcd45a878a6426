"""Every sentence of a shape rule bites: the rows of `ops.cases.unfit`, each refused in its own words and for no other reason.

The conformance cases `graph.shape/of-…` send the same rows to servers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops import OPS, ops_of
from ggml_rpc_ref.ops.cases import cases_of, recipes
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.cases.unfit import ROWS, UNFIT_OPS, Changes, Row, changed, in_words, unfit
from ggml_rpc_ref.ops.op import Op
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.versions import DEFAULT, NEWEST, PROFILES, Version
from ggml_rpc_ref.tensor import PlainStorage, Tensor, contiguous_nb


def placed(operand: Operand, memories: dict[str, PlainStorage], name: str) -> Tensor:
    """Return the operand in memory of its own, or in that which it shares; the memory is empty, since no shape rule reads it."""
    dtype = BY_NAME[operand.dtype]
    memory = memories.setdefault(operand.alias or name, PlainStorage(np.zeros(0, np.uint8)))
    return Tensor(dtype, operand.quad, operand.nb or contiguous_nb(dtype, operand.quad), memory, operand.offset)


def check(op: Op, case: Case) -> None:
    memories = dict[str, PlainStorage]()
    src = tuple(None if one is None else placed(one, memories, f"src{slot}") for slot, one in enumerate(case.src))
    op.check(placed(case.dst, memories, "dst"), src, op.pack(case.params))


def refusal(op: Op, case: Case) -> Violation | None:
    try:
        check(op, case)
    except Violation as violation:
        return violation
    return None


def one_change(op: str, name: str, changes: Changes) -> Violation:
    case = next(case for case in cases_of(op) if case.id == name)
    found = refusal(OPS[op], changed(case, Row(op, name, changes, "")))
    assert found is not None
    return found


def home(row: Row) -> tuple[Version, Case]:
    """Return the first version, of the two that most is said of and then the others, in which a row's good case has a meaning."""
    for version in dict.fromkeys((DEFAULT, NEWEST, *PROFILES)):
        if row.op in ops_of(version) and row.present(version):
            for case in cases_of(row.op, version):
                if case.id == row.case:
                    return version, case
    raise AssertionError(f"{row.op} has no case {row.case}")


@pytest.mark.parametrize("op", sorted({row.op for row in ROWS}))
def test_one_change_makes_it_meaningless(op: str) -> None:
    wrong = []
    for row in (row for row in ROWS if row.op == op):
        version, good = home(row)
        check(ops_of(version)[op], good)
        found = refusal(ops_of(version)[op], changed(good, row, version))
        if found is None or found.rule != "graph.shape" or row.words not in str(found):
            wrong.append(f"{row.case}, {in_words(row)}: {found}, not {row.words!r}")
    assert not wrong, "\n".join(wrong)


def test_rows_are_many_and_each_once() -> None:
    assert len(ROWS) >= 830
    assert len({(row.op, row.case, in_words(row)) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("op", UNFIT_OPS)
def test_what_does_not_fit_is_refused_in_every_version(op: str) -> None:
    """A row says of itself since when it fits; in each version with the op there is something to ask."""
    for version in (version for version in PROFILES if op in ops_of(version)):
        rows = list(unfit(op, version))
        assert rows, version
        assert [in_words(one.row) for one in rows if refusal(ops_of(version)[op], one.node) is None] == [], version


@pytest.mark.parametrize(("op", "name", "slot", "change"), [
    ("GET_ROWS_BACK", "once-each", 1, {"ne": (6,)}), ("GET_ROWS", "batches", 1, {"ne": (3, 9)}),
    ("SET_ROWS", "batches", 1, {"ne": (5, 9)}),
    ("MUL_MAT", "f32-n1", 1, {"ne": (7, 3)}), ("SOFT_MAX", "mask-f32-1-1", 1, {"ne": (3,)}),
    ("ROPE", "normal-factors", 2, {"ne": (1,)}),
    ("ADD", "n7", 1, {"ne": (5,)}), ("NORM", "n7", 0, {"nb": (8, 56, 168, 336)}), ("SOLVE_TRI", "n2-k3", 0, {"ne": (2, 4)}),
])  # fmt: skip
def test_a_refusal_names_the_operand_that_is_wrong(op: str, name: str, slot: int, change: dict[str, Any]) -> None:
    assert one_change(op, name, {f"src{slot}": change}).field == f"{op} ''.src[{slot}]"


def with_one_source_changed() -> Iterator[tuple[Row, str]]:
    for row in ROWS:
        source, *others = row.changes
        if not others and source.startswith("src"):
            yield row, source


def test_a_refusal_names_the_source_that_was_changed() -> None:
    """Where two operands contradict each other, one is refused and the sentence says which other one it was compared with."""
    wrong = []
    for row, source in with_one_source_changed():
        version, good = home(row)
        found = refusal(ops_of(version)[row.op], changed(good, row, version))
        assert found is not None
        named = found.field == f"{row.op} ''.src[{source.removeprefix('src')}]"
        if not named and not re.search(rf"\b{source}\b", found.detail):
            wrong.append(f"{row.op} {in_words(row)}: {found}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("op", "name", "slot", "changes"), [
    ("SILU_BACK", "gaps", 1, {"src1": {"dtype": "F16"}}), ("ADD", "n7", 0, {"src0": {"dtype": "I32"}}),
    ("ADD", "n7", 1, {"src1": {"dtype": "F16"}}), ("SQR", "n7", 0, {"src0": {"dtype": "I32"}}),
    ("CROSS_ENTROPY_LOSS_BACK", "n7", 2, {"src2": {"ne": (7, 2)}}), ("SOFT_MAX_BACK", "n7", 1, {"src1": {"ne": (7, 2)}}),
    ("CONV_TRANSPOSE_1D", "stride-2", 1, {"src1": {"ne": (7, 4, 2)}}),
    ("CONV_TRANSPOSE_1D", "stride-2", 0, {"src0": {"ne": (3, 6, 4, 2)}}),
])  # fmt: skip
def test_of_several_that_are_compared_the_wrong_one_is_named(op: str, name: str, slot: int, changes: Changes) -> None:
    assert f".src[{slot}]" in one_change(op, name, changes).field


@pytest.mark.parametrize(("op", "name", "slot", "count"), [
    ("GET_ROWS", "batches", 1, 7), ("SET_ROWS", "batches", 1, 9), ("SET_ROWS", "i32", 1, 9), ("ADD_ID", "batch", 2, 6),
    ("GET_ROWS_BACK", "once-each", 1, 5), ("MUL_MAT_ID", "q8_0-n4-used4-tokens1", 2, 4), ("SSM_SCAN", "one-slot-for-all", 6, 4),
], ids=["GET_ROWS", "SET_ROWS-i64", "SET_ROWS-i32", "ADD_ID", "GET_ROWS_BACK", "MUL_MAT_ID", "SSM_SCAN"])  # fmt: skip
@pytest.mark.parametrize("value", ["-1", "count", "most", "least"])
def test_an_index_out_of_range_is_refused_and_nothing_written(op: str, name: str, slot: int, count: int, value: str) -> None:
    """A stock server reads or writes at whatever offset the index gives (llama.cpp #25765 of SSM_SCAN's ids)."""
    case = next(case for case in cases_of(op) if case.id == name)
    dst, src = recipes.build(op, case)
    index = src[slot]
    assert index is not None
    bad = {"-1": -1, "count": count, "most": np.iinfo(index.array.dtype).max, "least": np.iinfo(index.array.dtype).min}[value]
    index.array[0, 0, 0, 1] = bad
    before = dst.array.copy()
    with pytest.raises(Violation) as caught:
        OPS[op].oracle(OPS[op].check(dst, src, OPS[op].pack(case.params)))
    assert (caught.value.rule, caught.value.field, caught.value.value) == ("graph.index", f"{op}.src[{slot}][1,0,0,0]", bad)
    assert np.array_equal(dst.array, before, equal_nan=dst.dtype.name == "F32")
    index.array[0, 0, 0, 1] = count - 1
    OPS[op].oracle(OPS[op].check(dst, src, OPS[op].pack(case.params)))
