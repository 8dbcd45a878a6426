"""Inputs worth trying on TRI."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Every type on several sizes, batches, special values, gaps in the result, in place, nothing."""
    for name, kind in (("upper-diag", 0), ("upper", 1), ("lower-diag", 2), ("lower", 3)):
        for n in (1, 2, 17):
            yield Case(f"{name}-n{n}", Operand("F32", (n, n, 2, 2)), (Operand("F32", (n, n, 2, 2)),), {"type": kind})
        special = Operand("F32", (16, 16), fill="special")
        yield Case(f"{name}-special", Operand("F32", special.ne), (special,), {"type": kind})
        yield Case(f"{name}-in-place", Operand("F32", (5, 5, 3), alias="src0"), (Operand("F32", (5, 5, 3)),), {"type": kind})
    yield Case("dst-gaps", Operand("F32", (5, 5, 3), nb=(4, 32, 192, 576)), (Operand("F32", (5, 5, 3)),), {"type": 0})
    yield Case("empty", Operand("F32", (0, 0, 3)), (Operand("F32", (0, 0, 3)),), {"type": 0})
