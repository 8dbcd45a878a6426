"""Inputs worth trying on OPT_STEP_ADAMW."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand

SETTINGS = "values:0.001,0.9,0.999,1e-8,0.01,10,1000"
"""Those of a first step, with the bias corrections 1 / (1 - beta)."""


def cases() -> Iterator[Case]:
    """Sizes around vector widths, settings of a first and a late step, gaps, special values."""
    for n in (1, 7, 16, 33):
        yield step(f"n{n}", Operand("F32", (n, 3, 2, 2)))
    yield step("late", Operand("F32", (33, 3)), "values:0.1,0.9,0.95,1e-6,0,1.5,1.1")
    yield step("decay", Operand("F32", (33, 3)), "values:0.5,0.5,0.5,0.1,1.5,2,2")
    yield step("zero-eps", Operand("F32", (33, 3)), "values:0.5,0.5,0.5,0,0,2,2")
    yield step("gaps", Operand("F32", (5, 3, 2), nb=(4, 32, 128, 256)))
    yield step("special", Operand("F32", (16, 4), fill="special"))


def step(id: str, w: Operand, settings: str = SETTINGS) -> Case:
    """Return a case: v, a mean of squares, is not negative."""
    like = Operand("F32", w.ne, nb=w.nb)
    squares = Operand("F32", w.ne, nb=w.nb, fill="uniform:0:2")
    dst = Operand("F32", w.ne, nb=w.nb, alias="src0")
    return Case(id, dst, (w, like, like, squares, Operand("F32", (7,), fill=settings)))
