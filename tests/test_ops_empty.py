"""An operand without elements is refused, or the node is computed: an op's own rule must see it, for it may reach the oracle.

The tensors that a graph names may have a dimension of 0, and upstream's kernels then read whatever lies at their address.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops import OPS
from ggml_rpc_ref.ops.cases import cases_of, recipes
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.tensor import Tensor, contiguous_nb


def emptied(operand: Operand, dim: int) -> Operand:
    ne = [0 if place == dim else n for place, n in enumerate(operand.quad)]
    return replace(operand, ne=tuple(ne))


def with_empty(case: Case) -> Iterator[Case]:
    """The case with each dimension of each source set to 0, in one source and in all that have the same length there."""
    for slot, operand in enumerate(case.src):
        if operand is None:
            continue
        for dim in range(4):
            yield replace(case, src=(*case.src[:slot], emptied(operand, dim), *case.src[slot + 1 :]))
    for dim in range(4):
        yield replace(case, src=tuple(operand and emptied(operand, dim) for operand in case.src))


@pytest.mark.parametrize("name", [name for name in OPS if cases_of(name)])
def test_an_empty_source_is_refused_or_computed(name: str) -> None:
    op = OPS[name]
    for case in cases_of(name):
        for changed in with_empty(case):
            if changed.dst.alias:
                continue  # a result is no larger than the memory that it lies in
            with suppress(Violation):
                params = op.pack(changed.params)
                op.check(geometry(changed.dst), tuple(source and geometry(source) for source in changed.src), params)
                dst, src = recipes.build(name, changed)  # bytes only for those that are not refused: they are few
                if dst.nelements:
                    op.oracle(op.check(dst, src, params))


def geometry(operand: Operand) -> Tensor:
    """Return the operand without memory."""
    dtype = BY_NAME[operand.dtype]
    return Tensor(dtype, operand.quad, operand.nb or contiguous_nb(dtype, operand.quad))
