"""Inputs worth trying on CROSS_ENTROPY_LOSS_BACK."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Row lengths around vector widths, extreme logits, in place, special values."""
    for n in (1, 7, 16, 33, 1025):
        yield gradient(f"n{n}", (n, 3, 2, 2))
    yield gradient("large", (33, 4), "normal:1000")
    yield gradient("special", (8, 12), "special")
    yield gradient("in-place", (33, 4), in_place=True)
    yield gradient("empty", (0, 4))


def gradient(id: str, ne: tuple[int, ...], fill: str = "normal", in_place: bool = False) -> Case:
    """Return a case."""
    src = (Operand("F32", (1,)), Operand("F32", ne, fill=fill), Operand("F32", ne, fill="uniform:0:1"))
    return Case(id, Operand("F32", ne, alias="src1" if in_place else ""), src)
