"""Inputs worth trying on RWKV_WKV7."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case
from ggml_rpc_ref.ops.cases.shared.recurrence import case, further


def cases() -> Iterator[Case]:
    """Head sizes that upstream can compute, heads, tokens, sequences; a and b small, as l2 norms make them: states stay small."""
    fills = ("normal", "uniform:0:1", "normal", "normal", "normal:0.1", "normal:0.1")
    yield case("one-token", 64, 2, 1, 1, fills)
    yield case("head-size-128", 128, 1, 2, 1, fills)
    yield case("many-tokens", 64, 1, 33, 1, fills)
    yield case("sequences", 64, 2, 6, 2, fills)
    yield further(case("further-tokens", 64, 1, 3, 1, fills))
    yield case("one-token-per-sequence", 64, 1, 3, 3, fills)
