"""Inputs worth trying on RWKV_WKV6."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case
from ggml_rpc_ref.ops.cases.shared.recurrence import case, further
from ggml_rpc_ref.ops.rwkv_wkv6 import TIME_FIRST


def cases() -> Iterator[Case]:
    """Head sizes around vector widths, heads, tokens, sequences."""
    fills = ("normal", "normal", "normal", "normal", "uniform:0:1")
    for size in (1, 7, 16, 33, 64):
        yield case(f"head-size-{size}", size, 3, 4, 1, fills, TIME_FIRST)
    yield case("one-token", 32, 2, 1, 1, fills, TIME_FIRST)
    yield case("many-tokens", 16, 2, 67, 1, fills, TIME_FIRST)
    yield case("sequences", 16, 2, 12, 4, fills, TIME_FIRST)
    yield case("one-token-per-sequence", 16, 2, 3, 3, fills, TIME_FIRST)
    yield further(case("further-tokens", 16, 2, 3, 1, fills, TIME_FIRST))
    yield case("one-head", 16, 1, 5, 1, fills, TIME_FIRST)
