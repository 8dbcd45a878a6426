"""Inputs worth trying on OPT_STEP_SGD."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Sizes around vector widths, settings, gaps, special values."""
    for n in (1, 7, 16, 33):
        yield step(f"n{n}", Operand("F32", (n, 3, 2, 2)))
    yield step("no-decay", Operand("F32", (33, 3)), "values:0.5,0")
    yield step("decay", Operand("F32", (33, 3)), "values:0.5,1.5")
    yield step("gaps", Operand("F32", (5, 3, 2), nb=(4, 32, 128, 256)))
    yield step("special", Operand("F32", (16, 4), fill="special"))


def step(id: str, w: Operand, settings: str = "values:0.001,0.01") -> Case:
    """Return a case."""
    dst = Operand("F32", w.ne, nb=w.nb, alias="src0")
    return Case(id, dst, (w, Operand("F32", w.ne, nb=w.nb), Operand("F32", (2,), fill=settings)))
