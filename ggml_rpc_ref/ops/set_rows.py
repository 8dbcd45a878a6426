"""SET_ROWS: rows written into a tensor at given indices.

    dst[i0, src1[i, j mod r, k mod s], j, k] = src0[i0, i, j, k]

src0: F32, ne = (n, m, r2, r3), dense rows. src1: I64 or I32, ne = (m, r, s, 1) with r2 a multiple of r and r3 of s, any
strides; each 0 <= index < rows. src2: what is written to; dst is a view of it (older clients leave it out). dst: F32, F16, BF16,
I32 or a block type that the CPU backend can write, ne = (n, rows, r2, r3), dense rows; other rows stay as they are. Where an index
occurs twice in a matrix, the later row stays. Rounding as in CPY, to I32 as well. Empty: nothing is written, and no index is
checked.

Source: ggml_set_rows in ggml.c, ggml_compute_forward_set_rows in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.op import ANY, FLOATS, WRITABLE_BLOCKS, Node, Op, Source, before, later
from ggml_rpc_ref.ops.shared.indices import checked_indices
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows
from ggml_rpc_ref.ops.shared.slabs import part, row_blocks
from ggml_rpc_ref.ops.tolerance import EXACT
from ggml_rpc_ref.tensor import allocate

TYPES = (*FLOATS, *WRITABLE_BLOCKS, "I32")
"""Those with a from_float on the CPU: type_traits_cpu in ggml-cpu.c."""


def shape(node: Node) -> None:
    """Refuse dimensions that do not fit together, gaps within rows, a src2 that dst is not a view of."""
    src0, src1, src2, dst = node.source(0), node.source(1), node.optional(2), node.dst
    n, m, r2, r3 = src0.ne
    _, r, s, _ = src1.ne
    node.require(src1.ne == (m, r, s, 1), f"src1.ne ({m}, r, s, 1)", src1.ne, at=src1)
    node.require(r > 0 and s > 0 and r2 % r == 0 and r3 % s == 0, f"src1 that repeats to {r2} by {r3} matrices", (r, s), at=src1)
    node.require(dst.ne == (n, dst.ne[1], r2, r3), f"ne ({n}, rows, {r2}, {r3})", dst.ne)
    node.require(n % dst.dtype.block == 0, f"src0.ne[0] a multiple of {dst.dtype.block}", n, at=src0)
    require_contiguous_rows(node, src0, dst)
    if src2 is not None:
        node.require(
            (dst.dtype, dst.ne, dst.nb) == (src2.dtype, src2.ne, src2.nb),
            "type, ne and nb of src2",
            (dst.dtype.name, dst.ne, dst.nb),
        )


def oracle(node: Node) -> None:
    """Convert the rows, then put them where the indices say."""
    src0, dst = node.source(0), node.dst
    index = checked_indices(node, 1, dst.ne[1])[0]
    for block in row_blocks(src0.ne):
        # first to dst's type in memory of their own: what the indices move are then bytes, of block types as of all others
        rows = allocate(dst.dtype, part(src0, block).ne)
        rows.store(part(src0, block).values())
        k, j = (np.arange(indices.start, indices.stop) for indices in block[:2])
        into = index[k[:, None] % len(index), j % index.shape[1], block[2]]
        # of an index that occurs twice numpy keeps the last assignment, as upstream's loop over rows does
        dst.array[k[:, None, None], j[:, None], into] = rows.array


OP = Op(
    name="SET_ROWS",
    sources=(
        Source("rows", ("F32",), "ne = (n, m, r2, r3)"),
        Source("indices", ("I64", "I32"), "ne = (m, r, s, 1), each below rows of dst"),
        Source("into", ANY, "what dst is a view of", optional=True),
    ),
    types=TYPES,
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    unread=(2,),
    later=(later("SET_ROWS.f16", takes={0: ("F16",)}),),
    earlier=(before("SET_ROWS.i32", without={1: ("I32",)}, types=TYPES[:-1]),),
)
