"""GET_REL_POS: pick, for every pair of query and key position, the embedding of their distance.

    dst[i, k, q] = src0[i, q - k + n - 1]

src0: F16 or BF16, contiguous, ne = (C, 2n - 1, ..); only its first matrix is read. dst: F16, contiguous, ne = (C, n, n). The 16
bits are moved as they are: BF16's come out as the F16 that these bits mean, which is what upstream does.

Source: ggml_get_rel_pos in ggml.c; ggml_compute_forward_get_rel_pos_f16 in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import Cost, elements
from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.layout import require_contiguous
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse a result that is not square, distances that are not in the source, gaps."""
    src0, dst = node.source(0), node.dst
    n = dst.ne[1]
    node.require(dst.ne == (src0.ne[0], n, n, 1), f"ne ({src0.ne[0]}, n, n, 1)", dst.ne)
    node.require(src0.ne[1] == 2 * n - 1, f"src0.ne[1] == {2 * n - 1}", src0.ne[1], at=src0)
    require_contiguous(node, src0, dst)
    node.require(src0.nelements > 0 or dst.nelements == 0, "distances", src0.ne, at=src0)


def oracle(node: Node) -> None:
    """Gather the rows' bits."""
    if node.dst.nelements == 0:
        return
    positions = np.arange(node.dst.ne[1])
    distance = positions[:, None] - positions + len(positions) - 1
    # as integers: dst is always F16, src0 may be BF16, and the assignment of floats would convert
    node.dst.array[0].view("<u2")[...] = node.source(0).array[0, 0].view("<u2")[distance]


def cost(node: Node) -> Cost:
    """Return the cost: a distance per pair, and the rows that they pick."""
    return Cost(4 * node.dst.nelements + 24 * node.dst.nrows, elements(node))


OP = Op(
    name="GET_REL_POS",
    sources=(Source("embeddings", ("F16", "BF16"), "ne = (C, 2n - 1)"),),
    types=("F16",),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    cost=cost,
)
