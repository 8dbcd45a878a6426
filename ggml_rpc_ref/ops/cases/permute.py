"""Inputs worth trying on PERMUTE."""

from collections.abc import Iterator
from itertools import permutations

from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.shared.views import permuted
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.tensor import contiguous_nb


def cases() -> Iterator[Case]:
    """Every permutation of four different dimensions; rows of blocks."""
    x = Operand("F32", (5, 4, 3, 2))
    for axes in permutations(range(4)):
        nb = permuted(contiguous_nb(BY_NAME["F32"], x.quad), axes)
        name = "axes-" + "".join(str(axis) for axis in axes)
        yield Case(name, Operand("F32", permuted(x.quad, axes), nb, alias="src0"), (x,), {"axes": axes})
    blocks = Operand("Q8_0", (32, 4, 3))
    nb = permuted(contiguous_nb(BY_NAME["Q8_0"], blocks.quad), (0, 2, 1, 3))
    yield Case("blocks", Operand("Q8_0", (32, 3, 4), nb, alias="src0"), (blocks,), {"axes": (0, 2, 1, 3)})
