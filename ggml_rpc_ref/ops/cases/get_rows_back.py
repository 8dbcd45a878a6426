"""Inputs worth trying on GET_ROWS_BACK."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Both types; rows hit once, often and never; gaps; special values; nothing."""
    for dtype in ("F32", "F16"):
        for n in (1, 33):
            src = (Operand(dtype, (n, 9)), Operand("I32", (9,), fill="index:5"))
            yield Case(f"n{n}-{dtype}".lower(), Operand("F32", (n, 7)), src)
    once = (Operand("F32", (8, 5)), Operand("I32", (5,), fill="permutation"))
    yield Case("once-each", Operand("F32", (8, 5)), once)
    gaps = (Operand("F32", (8, 5), (4, 40, 200, 200)), Operand("I32", (5,), fill="values:2"))
    yield Case("gaps-all-to-one", Operand("F32", (8, 3)), gaps)
    for dtype in ("F32", "F16"):  # the index vector is a view of the first of many, as in upstream's own operator test
        src = (Operand(dtype, (40, 5)), Operand("I32", (2,), nb=(4, 20, 20, 20), fill="index:4"))
        yield Case(f"fewer-indices-{dtype}".lower(), Operand("F32", (40, 4)), src)
    yield Case("no-indices", Operand("F32", (8, 3)), (Operand("F32", (8, 5)), Operand("I32", (0,), fill="index:3")))
    special = (Operand("F32", (16, 6), fill="special"), Operand("I32", (6,), fill="index:3"))
    yield Case("special", Operand("F32", (16, 3)), special)
    yield Case("no-rows", Operand("F32", (8, 3)), (Operand("F32", (8, 0)), Operand("I32", (0,), fill="index:3")))
