"""A row of one element has no stride to take, so nb[0] may be anything there, except where upstream's kernels assert it anyway.

Which operands they assert was read in the constructors (ggml.c) and kernels (ggml-cpu/ops.cpp) of 3.6.1; each of the accepted nodes
below was computed by the genuine 3.6.1 server, with the oracle's result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops import OPS
from ggml_rpc_ref.ops.cases import cases_of, recipes
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.tensor import contiguous_nb

ANY_STRIDE = {
    "ARGMAX": "src0 dst", "ARGSORT": "src0", "FILL": "src0 dst", "GET_ROWS": "src0 src1 dst", "GET_ROWS_BACK": "src1 dst",
    "GROUP_NORM": "dst", "L2_NORM": "dst", "LEAKY_RELU": "src0 dst", "MEAN": "src0 dst", "NORM": "dst",
    "PAD_REFLECT_1D": "src0 dst", "POOL_1D": "src0 dst", "POOL_2D": "dst",
    "POOL_2D_BACK": "src0 src1 dst", "RMS_NORM": "dst", "RMS_NORM_BACK": "dst",
    "ROLL": "dst", "SCALE": "src0 dst", "SET_ROWS": "src0 src1 dst", "SILU_BACK": "src0 src1 dst", "SOFT_MAX": "src0 src1 src2 dst",
    "SSM_CONV": "dst", "TIMESTEP_EMBEDDING": "dst", "TOP_K": "src0", "TRI": "src0 dst",
}  # fmt: skip
ASSERTED = {
    "ARGSORT": "dst", "CLAMP": "src0 dst", "GET_ROWS_BACK": "src0", "GROUP_NORM": "src0", "NORM": "src0", "RMS_NORM": "src0",
    "RMS_NORM_BACK": "src0 src1", "ROLL": "src0", "SSM_CONV": "src1", "SUM_ROWS": "src0 dst", "TIMESTEP_EMBEDDING": "src0",
    "TOP_K": "dst",
}  # fmt: skip


def shrunk(case: Case) -> Iterator[Case]:
    """The case with each length of a row made 1 wherever it occurs, and no memory shared."""
    operands = [case.dst, *(source for source in case.src if source)]
    for length in sorted({operand.quad[0] for operand in operands}):
        src = tuple(source and _with_ones(source, length) for source in case.src)
        yield replace(case, dst=_with_ones(case.dst, length), src=src[:2] if case.dst.alias == "src2" else src)


def _with_ones(operand: Operand, length: int) -> Operand:
    ne = tuple(1 if n == length else n for n in operand.quad)
    return replace(operand, ne=ne, nb=None, alias="", offset=0)


def pair(name: str, slot: str) -> tuple[Case, Case]:
    """A case in which an operand has rows of one element, and the same with another nb[0] there."""
    for case in cases_of(name):
        for plain in shrunk(case) if not any(o and BY_NAME[o.dtype].is_quantised for o in (case.dst, *case.src)) else ():
            chosen = plain.dst if slot == "dst" else (*plain.src, *[None] * 3)[int(slot[3])]
            if chosen is None or chosen.quad[0] != 1 or not _is_accepted(name, plain):
                continue
            row = BY_NAME[chosen.dtype]
            other = replace(chosen, nb=(3 * row.size, *contiguous_nb(row, chosen.quad)[1:]))
            if slot == "dst":
                return plain, replace(plain, dst=other)
            return plain, replace(plain, src=tuple(other if at == int(slot[3]) else s for at, s in enumerate(plain.src)))
    raise AssertionError(f"no case of {name} can have rows of one element in {slot}")


def _is_accepted(name: str, case: Case) -> bool:
    try:
        dst, src = recipes.build(name, case)
        OPS[name].check(dst, src, OPS[name].pack(case.params))
    except Violation:
        return False
    return dst.nelements > 0


def rows(table: dict[str, str]) -> list[tuple[str, str]]:
    return [(name, slot) for name, slots in table.items() for slot in slots.split()]


@pytest.mark.parametrize(("name", "slot"), rows(ANY_STRIDE))
def test_any_stride_gives_the_same(name: str, slot: str) -> None:
    results = []
    for case in pair(name, slot):
        dst, src = recipes.build(name, case)
        OPS[name].oracle(OPS[name].check(dst, src, OPS[name].pack(case.params)))
        results.append(dst.array)
    assert np.array_equal(*results, equal_nan=results[0].dtype.kind == "f")


@pytest.mark.parametrize(("name", "slot"), rows(ASSERTED))
def test_what_upstream_asserts_is_refused(name: str, slot: str) -> None:
    _, case = pair(name, slot)
    dst, src = recipes.build(name, case)
    with pytest.raises(Violation, match=r"nb\[0\] == ") as refused:
        OPS[name].check(dst, src, OPS[name].pack(case.params))
    assert ("src[" in str(refused.value)) == (slot != "dst")


def test_further_matrices_of_what_add_id_adds_are_not_read() -> None:
    """ggml_add_id asserts nothing of them, nor of those of its indices, and its kernel reads the first."""
    case = cases_of("ADD_ID")[1]
    assert case.src[1] is not None
    dst, src = recipes.build("ADD_ID", case)
    ids = Operand("I32", (*cases_of("ADD_ID")[1].dst.quad[1:3], 2, 2), fill="index:5")
    wide = replace(case, src=(case.src[0], replace(case.src[1], ne=(*case.src[1].quad[:2], 3, 2)), ids))
    more, sources = recipes.build("ADD_ID", wide)
    assert src[1] is not None
    assert sources[1] is not None
    sources[1].array[0, 0] = src[1].array[0, 0]
    assert src[2] is not None
    assert sources[2] is not None
    sources[2].array[0, 0] = src[2].array[0, 0]
    sources[2].array[1:], sources[2].array[0, 1] = -1, 2**30  # no index of any row
    for result, operands in ((dst, src), (more, sources)):
        OPS["ADD_ID"].oracle(OPS["ADD_ID"].check(result, operands, bytes(64)))
    assert np.array_equal(dst.array, more.array)
