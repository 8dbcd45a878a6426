"""SET_ROWS: rows written into a tensor at given indices.

    dst[i0, src1[i, j mod r, k mod s], j, k] = src0[i0, i, j, k]

src0: F32, ne = (n, m, r2, r3), rows dense. src1: I64 or I32, ne = (m, r, s, 1) with r2 a multiple of r and r3 of s, any strides;
each 0 <= index < rows. src2: what is written to; dst is a view of it (older clients leave it out). dst: F32, F16, BF16 or a block
type that the CPU backend can write, ne = (n, rows, r2, r3), rows dense; other rows stay as they are. Where an index occurs twice in
a matrix, the later row stays. Rounding as in CPY. Empty: nothing is written, and no index is looked at.

Source: ggml_set_rows in ggml.c, ggml_compute_forward_set_rows_f32 in ggml-cpu/ops.cpp.
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.op import ANY, EXACT, FLOATS, WRITABLE_BLOCKS, Case, Node, Op, Operand, Source
from ggml_rpc_ref.ops.shared.elementwise import part, require_dense_rows
from ggml_rpc_ref.ops.shared.indices import checked_indices
from ggml_rpc_ref.ops.shared.slabs import row_blocks
from ggml_rpc_ref.tensor import allocate


def shape(node: Node) -> None:
    """Refuse dimensions that do not fit together, gaps within rows, a src2 that dst is no view of."""
    src0, src1, src2, dst = node.source(0), node.source(1), node.optional(2), node.dst
    n, m, r2, r3 = src0.ne
    _, r, s, _ = src1.ne
    node.require(src1.ne == (m, r, s, 1), f"src1.ne ({m}, r, s, 1)", src1.ne)
    node.require(r > 0 and s > 0 and r2 % r == 0 and r3 % s == 0, f"src1 that repeats to {r2} by {r3} matrices", (r, s))
    node.require(dst.ne == (n, dst.ne[1], r2, r3), f"ne ({n}, rows, {r2}, {r3})", dst.ne)
    node.require(n % dst.dtype.block == 0, f"src0.ne[0] a multiple of {dst.dtype.block}", n)
    require_dense_rows(node, src0, dst)
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
        rows = allocate(dst.dtype, part(src0, block).ne)
        rows.store(src0.array[block])
        for k, j in np.ndindex(rows.shape[:2]):
            k3, j2 = (block[0].start or 0) + k, (block[1].start or 0) + j
            dst.array[k3, j2, index[k3 % len(index), j2 % index.shape[1], block[2]]] = rows.array[k, j]


def cases() -> Iterator[Case]:
    """Every type; both widths of index; batches; broadcast and strided indices; repeated indices; gaps between rows; nothing."""
    for dtype in (*FLOATS, *WRITABLE_BLOCKS):
        yield _case(dtype.lower(), (256, 3), 5, dtype)
    yield _case("i32", (7, 4), 9, "F32", index="I32")
    yield _case("batches", (6, 4, 3, 2), 9, "F16", (4, 3, 2))
    yield _case("indices-broadcast", (6, 4, 4, 6), 9, "F32", (4, 2, 3))
    yield _case("indices-for-all", (6, 4, 3, 2), 9, "F16", (4,))
    yield _case("special", (32, 4), 5, "F16", fill="special")
    yield _case("special-q8_0", (32, 4), 5, "Q8_0", fill="values:0,-0.0,1e-40,1e-20,127,-128,1e4,3e4")
    strided = Operand("I64", (4, 3, 2), nb=(48, 16, 256, 512), fill="permutation")
    target = Operand("F32", (5, 9, 3, 2), nb=(4, 24, 256, 1024))
    source = Operand("F32", (5, 4, 3, 2), nb=(4, 32, 160, 512))
    yield Case("gaps", Operand("F32", target.ne, target.nb, alias="src2"), (source, strided, target))
    permuted = Operand("F32", (5, 4, 3), nb=(4, 60, 20, 240))
    index = Operand("I64", (4, 3), fill="permutation")
    yield Case("permuted-source", Operand("F16", (5, 9, 3), alias="src2"), (permuted, index, Operand("F16", (5, 9, 3))))
    twice = (Operand("F32", (6, 4)), Operand("I64", (4,), fill="values:2,0,2,1"), Operand("F32", (6, 3)))
    yield Case("an-index-twice", Operand("F32", (6, 3), alias="src2"), twice)
    yield Case("without-src2", Operand("F32", (6, 3)), twice[:2])
    none = (Operand("F32", (6, 0)), Operand("I64", (0,), fill="index:1"), Operand("F32", (6, 3)))
    yield Case("no-rows", Operand("F32", (6, 3), alias="src2"), none)


def _case(
    name: str, ne: tuple[int, ...], rows: int, dtype: str, index_ne: tuple[int, ...] = (), fill: str = "normal", index: str = "I64"
) -> Case:  # fmt: skip
    target = Operand(dtype, (ne[0], rows, *ne[2:]))
    indices = Operand(index, index_ne or ne[1:2], fill="permutation")
    return Case(name, Operand(dtype, target.ne, alias="src2"), (Operand("F32", ne, fill=fill), indices, target))


OP = Op(
    name="SET_ROWS",
    sources=(
        Source("rows", ("F32",), "ne = (n, m, r2, r3)"),
        Source("indices", ("I64", "I32"), "ne = (m, r, s, 1), each below rows of dst"),
        Source("into", ANY, "what dst is a view of", optional=True),
    ),
    types=FLOATS + WRITABLE_BLOCKS,
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=EXACT,
    in_place=True,
)
