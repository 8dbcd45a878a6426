"""Inputs worth trying on CONT."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.tensor import Quad


def cases() -> Iterator[Case]:
    """Every permutation kind for wide and narrow types, other dimensions, gaps, blocks by rows, special values."""
    for dtype, size in (("F32", 4), ("F16", 2), ("BF16", 2), ("I32", 4), ("I64", 8), ("I8", 1), ("I16", 2), ("F64", 8)):
        transposed: Quad = (size * 5, size, size * 35, size * 70)
        source = Operand(dtype, (7, 5, 2), nb=transposed, fill="normal:20")
        yield Case(f"transposed-{dtype.lower()}", Operand(dtype, (7, 5, 2)), (source,))
    permuted = Operand("F32", (6, 3, 4, 2), nb=(4, 96, 24, 288))
    yield Case("permuted", Operand("F32", permuted.ne), (permuted,))
    yield Case("permuted-flat", Operand("F32", (144,)), (permuted,))
    yield Case("permuted-other-dims", Operand("F32", (9, 8, 2)), (permuted,))
    yield Case("reversed-axes", Operand("F32", (2, 3, 4, 5)), (Operand("F32", (2, 3, 4, 5), nb=(240, 80, 20, 4)),))
    yield Case("gaps", Operand("F16", (6, 4, 3, 2)), (Operand("F16", (6, 4, 3, 2), nb=(2, 16, 80, 256)),))
    yield Case("broadcast-row", Operand("F32", (6, 4)), (Operand("F32", (6, 4), nb=(4, 0, 0, 0)),))
    yield Case("contiguous", Operand("F32", (6, 4)), (Operand("F32", (6, 4)),))
    yield Case("special-transposed", Operand("F32", (8, 16)), (Operand("F32", (8, 16), nb=(64, 4, 512, 512), fill="special"),))
    for dtype, block in (("Q4_0", 18), ("Q8_0", 34), ("Q5_1", 24)):
        rows = Operand(dtype, (64, 3, 4), nb=(block, block * 8, block * 2, block * 24))
        yield Case(f"rows-permuted-{dtype.lower()}", Operand(dtype, rows.ne), (rows,))
    yield Case("k-quant-gaps", Operand("Q4_K", (256, 3)), (Operand("Q4_K", (256, 3), nb=(144, 288, 864, 864)),))
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 3)),))
