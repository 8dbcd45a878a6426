"""Inputs worth trying on GATED_LINEAR_ATTN."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case
from ggml_rpc_ref.ops.cases.shared.recurrence import case, further


def cases() -> Iterator[Case]:
    """Head sizes around vector widths, heads, tokens, sequences, scales."""
    fills = ("normal", "normal", "normal", "uniform:0:1")
    for size in (1, 7, 16, 33, 64):
        yield case(f"head-size-{size}", size, 3, 4, 1, fills, scale=size**-0.5)
    yield case("one-token", 32, 2, 1, 1, fills, scale=0.125)
    yield case("many-tokens", 16, 2, 67, 1, fills, scale=0.25)
    yield case("sequences", 16, 2, 12, 4, fills, scale=0.25)
    yield case("one-token-per-sequence", 16, 2, 3, 3, fills, scale=0.25)
    yield further(case("further-tokens", 16, 2, 3, 1, fills, scale=0.25))
    yield case("one-head", 16, 1, 5, 1, fills, scale=1.0)
    yield case("scale-negative", 16, 1, 3, 1, fills, scale=-2.0)
    yield case("scale-zero", 16, 1, 3, 1, fills, scale=0.0)
