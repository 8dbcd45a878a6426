"""What ggml's constructors make of sources and parameters, against the results of every op's cases, which upstream accepted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ggml_rpc_ref.client.constructors import NE_GIVEN, RESULTS, result
from ggml_rpc_ref.client.parameters import DEFAULTS, ENUMS, NEEDED_BY_KIND
from ggml_rpc_ref.ops import OPS, ops_of
from ggml_rpc_ref.ops.cases import cases_of
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.opcodes import CUSTOM_OPS, KINDS
from ggml_rpc_ref.spec.versions import NEWEST
from tests.support.each import each

OTHER_TYPES = {"ADD", "CONT", "COS", "DIV", "DUP", "IM2COL", "IM2COL_3D", "LOG", "MUL", "SIN", "SQR", "SQRT", "SUB", "UNARY"}
"""Ops whose callers may choose another type for the result than the constructor does."""
OTHER_DIMENSIONS = {
    "ARANGE-matrix",  # what ggml_arange never makes
    "CONT-permuted-flat",  # ggml_cont_2d and the like
    "CONT-permuted-other-dims",
    "POOL_2D-max-half-a-padding-more",  # ggml_pool_2d takes its padding as a float
    "POOL_2D-mean-half-a-padding-more",
}
"""Cases whose callers chose dimensions."""


NEW = ops_of(NEWEST)


def operand(given: Operand | None) -> Any:
    if given is None:
        return None
    dims = given.quad
    return SimpleNamespace(dtype=BY_NAME[given.dtype], ne=dims, nb=given.nb, ndim=len(given.ne))


def made(op: str, case: Case) -> Any:
    row = OPS[op] if op in OPS and case in cases_of(op) else NEW[op]
    zeros = {param.name: 0 if param.count == 1 else (0,) * param.count for param in row.params}
    return result(op, [operand(source) for source in case.src], zeros | dict(case.params))


CASES = {
    op: {case.id: case for case in (*cases_of(op), *cases_of(op, NEWEST))} for op in NEW if op not in CUSTOM_OPS and op != "NONE"
}


@pytest.mark.parametrize("op", CASES)
def test_results_are_those_that_upstream_has(op: str) -> None:
    each(is_upstreams, ((name, (op, case)) for name, case in CASES[op].items()))


def is_upstreams(op: str, case: Case) -> None:
    found = made(op, case)
    if found is None:
        assert op in NE_GIVEN or (op == "FILL" and not any(case.src)) or (op == "SET_ROWS" and len(case.src) < 3)
        return
    padded = (*found.ne, 1, 1, 1, 1)[:4]
    if op == "SSM_SCAN":  # any shape of so many elements will do
        assert found.ne[0] == case.dst.quad[0] * case.dst.quad[1] * case.dst.quad[2] * case.dst.quad[3]
    else:
        assert (padded == case.dst.quad) == (f"{op}-{case.id}" not in OTHER_DIMENSIONS)
    assert found.dtype == case.dst.dtype or op in OTHER_TYPES


def test_as_many_cases_as_ever_are_looked_at() -> None:
    assert sum(map(len, CASES.values())) > 2500


def test_the_tables_name_ops_parameters_and_kinds_that_there_are() -> None:
    assert set(DEFAULTS) | set(RESULTS) | NE_GIVEN | {op for op, _ in ENUMS} <= set(NEW)
    names = {(op, param.name) for op in NEW for param in NEW[op].params}
    assert {(op, name) for op, values in DEFAULTS.items() for name in values} | set(ENUMS) <= names
    assert {op for op, _ in NEEDED_BY_KIND} <= set(KINDS)
    for (op, kind), needed in NEEDED_BY_KIND.items():
        assert kind in NEW[op].kinds
        assert {(op, name) for name in needed} <= names
