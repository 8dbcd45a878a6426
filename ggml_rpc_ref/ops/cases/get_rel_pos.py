"""Inputs worth trying on GET_REL_POS."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Both types, sizes, special values, further matrices."""
    for dtype in ("F16", "BF16"):
        for c, n in ((1, 1), (5, 4), (64, 7)):
            yield Case(f"{dtype.lower()}-{c}-by-{n}", Operand("F16", (c, n, n)), (Operand(dtype, (c, 2 * n - 1)),))
        special = Operand(dtype, (33, 5), fill="special")
        yield Case(f"{dtype.lower()}-special", Operand("F16", (33, 3, 3)), (special,))
    yield Case("only-the-first-matrix", Operand("F16", (5, 3, 3)), (Operand("F16", (5, 5, 2, 3)),))
