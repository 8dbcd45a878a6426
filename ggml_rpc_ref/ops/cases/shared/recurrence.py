"""What the cases of RWKV_WKV6, RWKV_WKV7 and GATED_LINEAR_ATTN share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ggml_rpc_ref.ops.cases.case import Case, Operand


def case(
    name: str, size: int, heads: int, tokens: int, sequences: int, fills: Sequence[str], constant: int = -1, **params: float
) -> Case:
    """Return a case; fills are those of the streams in slot order, `constant` the slot of one that is the same for all tokens."""
    shapes = ((size, heads) if slot == constant else (size, heads, tokens) for slot in range(len(fills)))
    streams = (Operand("F32", ne, fill=fill) for ne, fill in zip(shapes, fills, strict=True))
    state = Operand("F32", (size * size * heads, sequences))
    dst = Operand("F32", (size * heads, tokens + size * sequences))
    return Case(name, dst, (*streams, state), dict(params))


def further(plain: Case) -> Case:
    """Return a case whose streams have further tokens, along a fourth dimension, which are not read."""
    *streams, state = plain.src
    more = [stream and replace(stream, ne=(*stream.quad[:3], 2)) for stream in streams]
    return replace(plain, src=(*more, state))
