"""REPEAT_BACK: the gradient of REPEAT: all the copies added up.

    dst[i] = sum of src0[j] over all j with j mod ne of dst = i, in every dimension

src0, dst: F32, dense rows; each dimension of src0 a multiple of dst's. IEEE rules. dst empty: nothing is computed.

Source: ggml_repeat_back in ggml.c, ggml_compute_forward_repeat_back_f32 in ggml-cpu/ops.cpp (adds in float32).
"""

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.elementwise import part
from ggml_rpc_ref.ops.shared.layout import can_repeat, require_dense_rows
from ggml_rpc_ref.ops.shared.slabs import row_blocks
from ggml_rpc_ref.ops.tolerance import FLOAT32


def shape(node: Node) -> None:
    """Refuse a source whose dimensions are not multiples of the result's, gaps within rows."""
    src0, dst = node.source(0), node.dst
    node.require(can_repeat(dst, src0), f"src0 of multiples of {dst.ne}", src0.ne, at=src0)
    require_dense_rows(node, src0, dst)


def oracle(node: Node) -> None:
    """Add copy after copy in float32, the fastest dimension first, as upstream does."""
    x, (n3, n2, n1, n0) = node.source(0).values(), node.dst.shape
    copies = [size // n for size, n in zip(x.shape, node.dst.shape, strict=True)]
    for block in row_blocks(node.dst.ne):
        target = part(node.dst, block)
        total = np.zeros(target.shape, np.float32)
        for k3, k2, k1, k0 in np.ndindex(*copies):
            moved = (
                _shifted(block[0], k3 * n3),
                _shifted(block[1], k2 * n2),
                _shifted(block[2], k1 * n1),
                slice(k0 * n0, (k0 + 1) * n0),
            )
            with np.errstate(all="ignore"):
                total += x[moved]
        target.store(total)


def _shifted(rows: slice, by: int) -> slice:
    return slice((rows.start or 0) + by, rows.stop + by)


OP = Op(
    name="REPEAT_BACK",
    sources=(Source("grad", ("F32",), "each dimension a multiple of the result's"),),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    tolerance=FLOAT32,
)
