"""Inputs worth trying on DSV4_HC_PRE."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since, until
from ggml_rpc_ref.ops.op import Params
from ggml_rpc_ref.tensor import Quad

APART: tuple[Quad, Quad, Quad] = ((8, 160, 800, 9000), (12, 4, 9000, 9000), (4, 64, 9000, 9000))
"""Strides of x of up to (20, 4, T), of weights (3, T) transposed, of the result of up to (16, T)."""


def _case(
    name: str, n: int, streams: int, tokens: int, params: Params | None = None, *, fill: str = "normal",
    nbs: tuple[Quad | None, Quad | None, Quad | None] = (None, None, None),
) -> Case:  # fmt: skip
    params = params or {}
    ne = (n, streams, tokens) if params.get("gated") else (streams, tokens)
    sources = (Operand("F32", (n, streams, tokens), nbs[0], fill), Operand("F32", ne, nbs[1]))
    return Case(name, Operand("F32", (n, tokens), nbs[2]), sources, params)


def cases() -> Iterator[Case]:
    """The sum alone, and with a factor and gates."""
    yield from until("DSV4_HC_PRE.scale", _sums())
    yield from since("DSV4_HC_PRE.scale", _scaled())


def _sums() -> Iterator[Case]:
    for n, streams, tokens in ((1, 1, 1), (7, 4, 3), (65, 4, 2), (33, 5, 9)):
        yield _case(f"n{n}-streams{streams}-tokens{tokens}", n, streams, tokens)
    yield _case("apart", 9, 3, 3, nbs=APART)
    yield _case("special", 16, 4, 8, fill="special")


def _scaled() -> Iterator[Case]:
    for gated in (0, 1):
        words, params = "gated" if gated else "scaled", {"scale": 0.75, "gated": gated}
        for n, streams, tokens in ((1, 1, 1), (7, 4, 3), (65, 4, 2), (33, 5, 9)):
            yield _case(f"{words}-n{n}-streams{streams}-tokens{tokens}", n, streams, tokens, params)
        yield _case(f"{words}-special", 16, 4, 8, params, fill="values:1,-2,nan,0.5,3,-0.25,inf,2,-1,0.125,-inf,4,-0.0,1.5,-3")
        yield _case(f"{words}-by-zero", 7, 4, 3, {"scale": 0.0, "gated": gated})
    yield _case("scaled-apart", 9, 3, 3, {"scale": -2.0, "gated": 0}, nbs=APART)
    yield _case("gated-apart", 9, 3, 3, {"scale": -2.0, "gated": 1}, nbs=(APART[0], (4, 40, 160, 9000), APART[2]))
    yield _case("gated-as-any-number", 7, 4, 3, {"scale": 1.0, "gated": -3})
