"""Blocks to float32 and back, for every ggml_type, bit for bit as upstream does it.

One file per family: plain, legacy (Q4_0 ... Q8_1), k (Q2_K ... Q8_K), iq, ternary (TQ1_0, TQ2_0), fp4 (MXFP4, NVFP4), few_bits
(Q1_0, Q2_0). Each shows its block layouts and formulas, declares a numpy dtype per block and lists its codecs in `FORMATS`.

What is tested: tests/test_blocks.py compares with vectors/upstream-3.6.1-*/blocks, recorded from the genuine library. A NaN
counts as equal to any NaN there, because which of two NaN operands survives depends on the compiler. For the same reason a
block made from NaNs with unusual payload bits can differ from upstream's (seen with Q4_K and Q5_K only); blocks made from
finite numbers, infinities and the default NaN do not.
"""

from __future__ import annotations

import numpy as np

from ggml_rpc_ref.blocks import few_bits, fp4, iq, k, legacy, plain, ternary
from ggml_rpc_ref.blocks.common import BlockFormat, Bytes, Values
from ggml_rpc_ref.errors import Misuse, Unsupported
from ggml_rpc_ref.spec.dtypes import BY_NAME, DType
from ggml_rpc_ref.stopping import checkpoint

FORMATS: dict[str, BlockFormat] = {
    **plain.FORMATS,
    **legacy.FORMATS,
    **k.FORMATS,
    **iq.FORMATS,
    **ternary.FORMATS,
    **fp4.FORMATS,
    **few_bits.FORMATS,
}
"""The codec of each type, by name."""

CAN_DEQUANTISE: frozenset[DType] = frozenset(BY_NAME[name] for name in FORMATS)
"""Types that `dequantise` takes: all that are not removed."""

CAN_QUANTISE: frozenset[DType] = frozenset(
    BY_NAME[name] for name, row in FORMATS.items() if row.quantise is not None and name not in plain.C_CASTS
)
"""Types that upstream's CPU backend writes (its from_float): all but IQ1, IQ2, IQ3, I8, I16, I64 and F64.

Upstream quantises IQ1, IQ2 and IQ3 offline only: CPY and SET_ROWS have no routine for them, nor does `quantise`.
`quantise` does write the other four, by C's cast.
"""

SLAB_ELEMENTS = 1 << 18
"""Elements converted at a time: 1 MiB of float32, so that temporaries stay in the cache and memory stays bounded."""


def dequantise(dtype: DType, blocks: Bytes) -> Values:
    """Convert blocks to float32, bit for bit as upstream's dequantize_row_* (ggml-quants.c).

    Args:
        dtype: the blocks' type.
        blocks: uint8 of shape (..., n_blocks, dtype.size), of any strides.

    Returns:
        float32 of shape (..., n_blocks * dtype.block), contiguous, newly allocated.

    Raises:
        Misuse: blocks is not uint8 or its last axis is not dtype.size.
        Unsupported: the type has no codec here.
    """
    codec = _format(dtype)
    if blocks.dtype != np.uint8 or blocks.ndim < 2 or blocks.shape[-1] != dtype.size:
        raise Misuse(f"{dtype.name} blocks must be uint8 of shape (..., n, {dtype.size}), not {_describe(blocks)}")
    flat = blocks.reshape(-1, dtype.size)
    values = np.empty((len(flat), dtype.block), np.float32)
    step = SLAB_ELEMENTS // dtype.block
    # NaN and infinite scales are legal block content: no warnings about their results
    with np.errstate(all="ignore"):
        for start in range(0, len(flat), step):
            checkpoint()
            # a view as records needs contiguous bytes, and `blocks` may have any strides
            slab = np.ascontiguousarray(flat[start : start + step]).view(codec.layout)[:, 0]
            values[start : start + step] = codec.dequantise(slab)
    return values.reshape(*blocks.shape[:-2], blocks.shape[-2] * dtype.block)


def quantise(dtype: DType, values: Values) -> Bytes:
    """Convert float32 to blocks, bit for bit as the genuine x86-64 server's CPY and SET_ROWS write them.

    That is upstream's reference routine (quantize_row_*_ref), except where the family's file says otherwise (Q8_0, Q8_1).

    Args:
        dtype: the type to make.
        values: float32 of shape (..., n), n a multiple of dtype.block, of any strides.

    Returns:
        uint8 of shape (..., n // dtype.block, dtype.size), contiguous, newly allocated.

    Raises:
        Misuse: values is not float32 or n is not a multiple of the block.
        Unsupported: upstream's CPU backend does not write the type either (IQ1, IQ2, IQ3).
    """
    codec = _format(dtype)
    if codec.quantise is None:
        raise Unsupported(f"upstream's CPU backend has no routine that writes {dtype.name}")
    if values.dtype != np.float32 or values.ndim < 1 or values.shape[-1] % dtype.block:
        raise Misuse(f"{dtype.name} is made from float32 in rows of a multiple of {dtype.block} elements, not {_describe(values)}")
    n_blocks = values.shape[-1] // dtype.block
    flat = values.reshape(-1, dtype.block)
    blocks = np.empty((len(flat), dtype.size), np.uint8)
    step = SLAB_ELEMENTS // dtype.block
    with np.errstate(all="ignore"):
        for start in range(0, len(flat), step):
            checkpoint()  # a slab of an op, 2^23 elements, takes Q4_K 6 s
            made = codec.quantise(flat[start : start + step])
            blocks[start : start + step] = made[:, None].view(np.uint8)
    return blocks.reshape(*values.shape[:-1], n_blocks, dtype.size)


def _format(dtype: DType) -> BlockFormat:
    if dtype.name not in FORMATS:
        raise Unsupported(f"no codec for {dtype.name}, a type of protocol {dtype.since} and later")
    return FORMATS[dtype.name]


def _describe(array: Bytes | Values) -> str:
    return f"{array.dtype} of shape {array.shape}"
