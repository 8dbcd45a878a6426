"""Inputs worth trying on SOFT_MAX."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Row lengths around vector widths; mask types and broadcasting; slopes; sinks; views; masked-out rows; special values."""
    for n in (1, 7, 16, 33, 1025):
        yield softened(f"n{n}", Operand("F32", (n, 3, 2, 2)))
    x = Operand("F32", (33, 5, 6, 2))
    for dtype in ("F32", "F16"):
        for m2, m3 in ((1, 1), (6, 2), (3, 1), (2, 2)):
            mask = Operand(dtype, (33, 5, m2, m3))
            yield softened(f"mask-{dtype.lower()}-{m2}-{m3}", x, mask, scale=0.5)
        yield softened(f"mask-{dtype.lower()}-padded", x, Operand(dtype, (33, 32)), scale=0.5)
        yield softened(f"mask-{dtype.lower()}-hides", x, Operand(dtype, (33, 5), fill="mask"))
        for heads in (1, 2, 6, 12):
            y, far = Operand("F32", (17, 3, heads)), Operand(dtype, (17, 3), fill="uniform:-8:0")
            yield softened(f"alibi-{dtype.lower()}-{heads}", y, far, scale=0.125, max_bias=8.0)
        yield softened(f"sinks-mask-{dtype.lower()}", x, Operand(dtype, (33, 5), fill="mask"), Operand("F32", (6,)))
    yield from _other_cases(x)


def _other_cases(x: Operand) -> Iterator[Case]:
    yield softened("scale-zero", x, scale=0.0)
    yield softened("scale-negative", x, scale=-3.0)
    yield softened("bias-negative", x, Operand("F32", (33, 5)), max_bias=-8.0)
    yield softened("sinks", x, None, Operand("F32", (6,)))
    yield softened("sinks-large", x, None, Operand("F32", (6,), fill="values:50,-50,0,3,1,100"))
    yield softened("sinks-masked-out", x, Operand("F32", (33, 5), fill="values:-inf"), Operand("F32", (6,)))
    yield softened("masked-out", x, Operand("F16", (33, 5), fill="values:-inf"))
    yield softened("large", Operand("F32", (33, 5), fill="normal:1000"))
    yield softened("special", Operand("F32", (17, 24), fill="special"))
    yield softened("in-place", x, Operand("F16", (33, 5)), in_place=True)
    yield softened("gaps", Operand("F32", (16, 4, 3, 2), nb=(4, 96, 480, 2048)))
    yield softened("empty", Operand("F32", (33, 0, 2)))
    one = Operand("F32", (1,))
    yield softened("one-element", one)
    yield softened("one-element-mask-sink", one, one, one)


def softened(id: str, x: Operand, mask: Operand | None = None, sinks: Operand | None = None, *,
             scale: float = 1.0, max_bias: float = 0.0, in_place: bool = False) -> Case:  # fmt: skip
    """Return a case whose destination follows from x."""
    dst = Operand("F32", x.ne, alias="src0" if in_place else "")
    return Case(id, dst, (x, mask, sinks), {"scale": scale, "max_bias": max_bias})
