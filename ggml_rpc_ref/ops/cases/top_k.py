"""Inputs worth trying on TOP_K."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """k from 1 to all, row lengths around vector widths, infinities, evenly spaced rows, nothing."""
    for n, k in ((1, 1), (7, 1), (7, 2), (7, 7), (33, 5), (1025, 40), (1025, 1025)):
        yield choosing(f"n{n}-k{k}", Operand("F32", (n, 3, 2), fill="permutation"), k)
    yield choosing("normal", Operand("F32", (100, 5)), 10)
    yield choosing("infinities", Operand("F32", (5, 2), fill="values:1,inf,-inf,3e38,-2"), 3)
    yield choosing("gaps", Operand("F32", (5, 4, 2), nb=(4, 32, 128, 256)), 2)
    yield choosing("k0", Operand("F32", (5, 4)), 0)


def choosing(id: str, x: Operand, k: int) -> Case:
    """Return a case whose destination follows from x."""
    return Case(id, Operand("I32", (k, *x.quad[1:])), (x,))
