"""REPEAT_BACK: the gradient of REPEAT: all the copies added up.

    dst[i] = sum of src0[j] over all j with j mod ne of dst = i, in every dimension

src0, dst: F32, dense rows; each dimension of src0 a multiple of dst's. IEEE rules. dst empty: nothing is computed.

Source: ggml_repeat_back in ggml.c, ggml_compute_forward_repeat_back_f32 in ggml-cpu/ops.cpp (adds in float32).
"""

from math import prod

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.layout import can_repeat, require_dense_rows
from ggml_rpc_ref.ops.shared.slabs import element_blocks, part, rows_per_slab, spans
from ggml_rpc_ref.ops.tolerance import FLOAT32
from ggml_rpc_ref.tensor import F32Array, Tensor

PART = 2**18
"""Elements that one call adds up: numpy holds the GIL for all of an accumulate along the first axis, and other clients wait."""


def shape(node: Node) -> None:
    """Refuse a source whose dimensions are not multiples of the result's, gaps within rows."""
    src0, dst = node.source(0), node.dst
    node.require(can_repeat(dst, src0), f"src0 of multiples of {dst.ne}", src0.ne, at=src0)
    require_dense_rows(node, src0, dst)


def oracle(node: Node) -> None:
    """Add copy after copy in float32, the fastest dimension first, as upstream does."""
    copies = tuple(size // n for size, n in zip(node.source(0).shape, node.dst.shape, strict=True))
    x = _by_copy(node.source(0), node.dst, copies)
    with np.errstate(all="ignore"):
        for block in element_blocks(node.dst.ne):
            target = part(node.dst, block)
            total = np.zeros((1, *target.shape), np.float32)
            for some in spans(prod(copies), min(rows_per_slab(8 * target.nelements), max(1, PART // target.nelements))):
                numbers = np.unravel_index(np.arange(some.start, some.stop), copies)
                picked = x[(..., *block)][numbers]
                if len(picked) == 1:
                    total = total + picked
                else:
                    # accumulate rounds after each step; sum would add in pairs
                    total = np.add.accumulate(np.concatenate((total, picked)), axis=0)[-1:]
            target.store(total[0])


def _by_copy(source: Tensor, dst: Tensor, copies: tuple[int, ...]) -> F32Array:
    """Return the source, in place, with four axes that count the copies before the four of the result."""
    strides = source.array.strides
    outer = tuple(n * stride for n, stride in zip(dst.shape, strides, strict=True))
    return np.lib.stride_tricks.as_strided(source.array, (*copies, *dst.shape), (*outer, *strides), writeable=False)


OP = Op(
    name="REPEAT_BACK",
    sources=(Source("grad", ("F32",), "each dimension a multiple of the result's"),),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    tolerance=FLOAT32,
)
