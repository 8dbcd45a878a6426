"""Inputs worth trying on DSV4_HC_POST."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since
from ggml_rpc_ref.tensor import Quad

NON_FINITE = "values:1,-2,nan,0.5,3,-0.25,inf,2,-1,0.125,-inf,4,-0.0,1.5,-3"
APART: tuple[Quad, ...] = ((8, 96, 400, 400), (4, 48, 160, 900), (16, 4, 100, 100), (16, 4, 80, 400), (12, 108, 4, 4000))
"""Strides of x, residual, post (3, T), comb and result of (9, 3, 3)."""


def _case(name: str, n: int, streams: int, tokens: int, *, comb: bool = True, fill: str = "normal", apart: bool = False) -> Case:
    """Return a case; comb: whether there is one; apart: no operand is contiguous."""
    nbs = APART if apart else (None,) * 5
    sources = (
        Operand("F32", (n, tokens), nbs[0], fill),
        Operand("F32", (n, streams, tokens), nbs[1], fill),
        Operand("F32", (streams, tokens), nbs[2]),
        Operand("F32", (streams, streams, tokens), nbs[3]) if comb else None,
    )
    return Case(name, Operand("F32", (n, streams, tokens), nbs[4]), sources)


def cases() -> Iterator[Case]:
    """Numbers of streams and tokens, lengths around vector widths, strides everywhere, special values; without a matrix."""
    yield from _all(comb=True)
    yield from since("DSV4_HC_POST.no-comb", _all(comb=False))


def _all(*, comb: bool) -> Iterator[Case]:
    tail = "" if comb else "-without-comb"
    for n, streams, tokens in ((1, 1, 1), (7, 4, 3), (65, 4, 2), (33, 5, 9)):
        yield _case(f"n{n}-streams{streams}-tokens{tokens}{tail}", n, streams, tokens, comb=comb)
    yield _case(f"apart{tail}", 9, 3, 3, comb=comb, apart=True)
    yield _case(f"special{tail}", 16, 4, 8, comb=comb, fill=NON_FINITE)
