"""Inputs worth trying on DSV4_HC_COMB."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.tensor import Quad


def _case(
    name: str, tokens: int, n_iter: int, eps: float = 1e-6, *, scale: int = 3, fill: str = "normal",
    nbs: tuple[Quad | None, Quad | None] = (None, None),
) -> Case:  # fmt: skip
    """Return a case; scale: how many numbers it has; nbs: strides of mixes and result."""
    sources = (Operand("F32", (24, tokens), nbs[0], fill), Operand("F32", (scale,), fill="uniform:0.5:2"), Operand("F32", (24,)))
    return Case(name, Operand("F32", (4, 4, tokens), nbs[1]), sources, {"eps": eps, "n_iter": n_iter})


def cases() -> Iterator[Case]:
    """Numbers of tokens and iterations, values of eps, strides on both sides, far and special logits, nothing."""
    for tokens in (1, 2, 33):
        yield _case(f"tokens-{tokens}", tokens, 20)
    for n_iter in (1, 2, 100):
        yield _case(f"iterations-{n_iter}", 3, n_iter)
    yield _case("eps-zero", 3, 5, 0.0)
    yield _case("eps-large", 3, 5, 0.5)
    yield _case("more-scales", 3, 5, scale=7)
    yield _case("far-apart", 5, 20, fill="normal:30")
    yield _case("mixes-apart", 3, 5, nbs=((8, 256, 768, 768), None))
    yield _case("mixes-transposed", 3, 5, nbs=((12, 4, 288, 288), None))
    yield _case("dst-permuted", 3, 5, nbs=(None, (16, 4, 64, 192)))
    yield _case("special", 24, 3, fill="special")
    yield _case("no-tokens", 0, 3)
