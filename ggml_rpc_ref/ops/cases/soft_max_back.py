"""Inputs worth trying on SOFT_MAX_BACK."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Row lengths around vector widths, scales, in place, special values."""
    for n in (1, 7, 16, 33, 1025):
        yield gradient(f"n{n}", (n, 3, 2, 2))
    yield gradient("scale", (33, 5), scale=0.125)
    yield gradient("scale-zero", (33, 5), scale=0.0)
    yield gradient("in-place", (33, 5), in_place=True)
    yield gradient("special", (17, 24), fill="special")
    yield gradient("empty", (0, 5))


def gradient(id: str, ne: tuple[int, ...], *, scale: float = 1.0, fill: str = "normal", in_place: bool = False) -> Case:
    """Return a case; y is made of weights between 0 and 1, as SOFT_MAX would make."""
    src = (Operand("F32", ne, fill=fill), Operand("F32", ne, fill="uniform:0:1"))
    return Case(id, Operand("F32", ne, alias="src0" if in_place else ""), src, {"scale": scale, "max_bias": 0.0})
