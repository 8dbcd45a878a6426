"""Inputs worth trying on SSM_CONV."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.cases.shared.convolution import NON_FINITE
from ggml_rpc_ref.tensor import Quad


def _case(
    name: str, d_conv: int, d_inner: int, tokens: int, sequences: int = 1, *, nbs: tuple[Quad | None, Quad | None] = (None, None),
    fill: str = "normal",
) -> Case:  # fmt: skip
    """Return a case; nbs are the strides of src0 and of the result."""
    x = Operand("F32", (d_conv - 1 + tokens, d_inner, sequences), nbs[0], fill)
    return Case(name, Operand("F32", (d_inner, tokens, sequences), nbs[1]), (x, Operand("F32", (d_conv, d_inner))))


def cases() -> Iterator[Case]:
    """Kernel lengths, one and many tokens, sequences, sequences and results apart, special values."""
    for d_conv in (1, 3, 4, 9):
        yield _case(f"kernel-{d_conv}", d_conv, 17, 5, 2)
    yield _case("one-token", 4, 33, 1)
    yield _case("many-tokens", 4, 7, 131)
    yield _case("one-channel", 4, 1, 6, 3)
    yield _case("special", 2, 16, 16, fill=NON_FINITE)
    yield _case("apart", 4, 5, 3, 2, nbs=((4, 24, 160, 320), (4, 32, 128, 256)))
    yield _case("one-element", 3, 1, 1)
