"""REPEAT: a tensor laid side by side until it fills a larger one.

    dst[i] = src0[i mod ne of src0]     in every dimension

src0: F32, I32, F16, BF16 or I16, rows dense. dst: the same type, each dimension a multiple of src0's, rows dense. Bits are copied,
NaN and all. Empty: nothing is computed.

Source: ggml_repeat in ggml.c, ggml_compute_forward_repeat in ggml-cpu/ops.cpp.
"""

from collections.abc import Iterator

from ggml_rpc_ref.ops.op import EXACT, Case, Node, Op, Operand, Source, can_repeat
from ggml_rpc_ref.ops.shared.arithmetic import repeated
from ggml_rpc_ref.ops.shared.elementwise import require_dense_rows
from ggml_rpc_ref.ops.shared.slabs import row_blocks

TYPES = ("F32", "I32", "F16", "BF16", "I16")


def shape(node: Node) -> None:
    """Refuse another type than the source's, dimensions that are no multiples of it, gaps within rows."""
    src0, dst = node.source(0), node.dst
    node.require(dst.dtype == src0.dtype, f"type {src0.dtype.name} as the source", dst.dtype.name)
    node.require(can_repeat(src0, dst), f"multiples of {src0.ne}", dst.ne)
    require_dense_rows(node, src0, dst)


def oracle(node: Node) -> None:
    """Copy the bits, part by part."""
    source, target = node.source(0).array, node.dst.array
    for block in row_blocks(node.dst.ne):
        target[block] = repeated(source, target.shape, block)


def cases() -> Iterator[Case]:
    """Each dimension and all of them; every type; strides on both sides; special values."""
    small, large = (
        (3, 2, 2, 1),
        {"dim0": (9, 2, 2), "dim1": (3, 8, 2), "dim2": (3, 2, 6), "dim3": (3, 2, 2, 3), "all": (6, 4, 4, 2)},
    )
    for name, ne in large.items():
        yield Case(name, Operand("F32", ne), (Operand("F32", small),))
    for dtype in TYPES[1:]:
        yield Case(dtype.lower(), Operand(dtype, (14, 6)), (Operand(dtype, (7, 2), fill="normal:100"),))
    yield Case("scalar", Operand("F32", (5, 3)), (Operand("F32", (1,)),))
    yield Case("column", Operand("F32", (5, 3)), (Operand("F32", (1, 3)),))
    yield Case("same", Operand("F32", (5, 3)), (Operand("F32", (5, 3)),))
    yield Case("permuted", Operand("F32", (6, 4, 6)), (Operand("F32", (3, 4, 2), (4, 24, 12, 96)),))
    yield Case("gaps", Operand("F32", (6, 4), (4, 40, 200, 200)), (Operand("F32", (3, 2), (4, 20, 40, 40)),))
    yield Case("special", Operand("F32", (16, 6)), (Operand("F32", (16, 3), fill="special"),))
    yield Case("empty", Operand("F32", (0, 6)), (Operand("F32", (0, 3)),))


OP = Op(
    name="REPEAT",
    sources=(Source("x", TYPES, "each dimension divides the result's"),),
    types=TYPES,
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=EXACT,
)
