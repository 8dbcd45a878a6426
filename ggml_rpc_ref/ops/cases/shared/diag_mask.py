"""What the cases of DIAG_MASK_INF and DIAG_MASK_ZERO share."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def diag_mask_cases() -> Iterator[Case]:
    """Square, wide and tall matrices; n_past within and beyond; batches; gaps; in place; NaN on both sides."""
    for n_past in (0, 1, 3, 5, 7, 100):
        yield triangle(f"past-{n_past}", Operand("F32", (6, 5)), n_past)
    yield triangle("wide", Operand("F32", (33, 3, 2, 2)), 4)
    yield triangle("tall", Operand("F32", (3, 33, 2)), 0)
    yield triangle("special", Operand("F32", (16, 16), fill="special"), 2)
    yield triangle("in-place", Operand("F32", (6, 5, 2, 2)), 1, in_place=True)
    yield triangle("in-place-gaps", Operand("F32", (6, 5, 3), nb=(4, 32, 160, 480)), 1, in_place=True)
    yield triangle("empty", Operand("F32", (0, 5)), 1)


def triangle(id: str, x: Operand, n_past: int, in_place: bool = False) -> Case:
    """Return a case whose destination follows from x."""
    dst = Operand("F32", x.ne, nb=x.nb if in_place else None, alias="src0" if in_place else "")
    return Case(id, dst, (x,), {"n_past": n_past})
