"""What ops share that compute each element of the result by itself: part by part, so that a big tensor needs no big temporaries."""

from collections.abc import Callable, Iterator

import numpy as np

from ggml_rpc_ref.ops.op import Case, Node, Operand
from ggml_rpc_ref.ops.shared.slabs import Block, row_blocks, whole
from ggml_rpc_ref.tensor import Array, F32Array, Tensor

UNARY_TYPES = frozenset({("F32", "F32"), ("F16", "F16"), ("BF16", "BF16"), ("F16", "F32"), ("BF16", "F32")})
"""(source, result) types of upstream's one-operand kernels (unary_op in ggml-cpu/unary-ops.cpp)."""


def require_unary(node: Node) -> None:
    """Refuse what upstream's one-operand kernels assert against: other dimensions, other pairs of types, gaps within a row."""
    src0, dst = node.source(0), node.dst
    node.require(dst.ne == src0.ne, f"ne {src0.ne} as the source", dst.ne)
    pair = (src0.dtype.name, dst.dtype.name)
    node.require(pair in UNARY_TYPES, "types F32, F16 or BF16 on both sides, or F16 or BF16 to F32", pair)
    require_dense_rows(node, src0, dst)


def require_dense_rows(node: Node, *tensors: Tensor) -> None:
    """Refuse tensors whose nb[0] is not the size of an element (or block)."""
    for tensor in tensors:
        node.require(tensor.nb[0] == tensor.dtype.size, f"nb[0] == {tensor.dtype.size}", tensor.nb[0])


def has_even_rows(tensor: Tensor) -> bool:
    """Whether all rows, over ne[1], ne[2] and ne[3], are nb[1] apart.

    Kernels that count rows in one loop and step by nb[1] need it; for others they would read somewhere else.
    """
    _, ne1, ne2, ne3 = tensor.ne
    _, nb1, nb2, nb3 = tensor.nb
    return (ne2 == 1 or nb2 == ne1 * nb1) and (ne3 == 1 or nb3 == ne1 * ne2 * nb1)


def require_even_rows(node: Node, *tensors: Tensor) -> None:
    """Refuse tensors whose rows are not dense and evenly spaced (ggml_is_contiguous_1 in ggml.c)."""
    for tensor in tensors:
        node.require(tensor.rows_are_contiguous, f"nb[0] == {tensor.dtype.size}", tensor.nb[0])
        node.require(has_even_rows(tensor), "rows that are nb[1] apart throughout", tensor.nb)


def part(tensor: Tensor, block: Block) -> Tensor:
    """Return the rows of a tensor that an index triple (ne3, ne2, ne1) names, in place."""
    if block == whole(tensor.ne):
        return tensor
    starts, counts = [s.start or 0 for s in block], [s.stop - (s.start or 0) for s in block]
    offset = tensor.offset + sum(start * stride for start, stride in zip(starts, reversed(tensor.nb[1:]), strict=True))
    ne = (tensor.ne[0], counts[2], counts[1], counts[0])
    return Tensor(tensor.dtype, ne, tensor.nb, tensor.storage, offset, tensor.name)


def map_values(node: Node, function: Callable[[F32Array], Array], slot: int = 0) -> None:
    """Store function(values of the source) in a destination of the same dimensions; NaN and overflow raise no warnings."""
    values = node.source(slot).values()
    for block in row_blocks(node.dst.ne):
        with np.errstate(all="ignore"):
            part(node.dst, block).store(function(values[block]))


def unary_cases(fill: str) -> Iterator[Case]:
    """Yield row lengths around vector widths, every pair of types, strides on either side, in place, special values."""
    for n in (1, 7, 64, 129):
        yield Case(f"n{n}", Operand("F32", (n, 2)), (Operand("F32", (n, 2), fill=fill),))
    for source, result in sorted(UNARY_TYPES - {("F32", "F32")}):
        yield Case(f"{source}-{result}".lower(), Operand(result, (33, 3)), (Operand(source, (33, 3), fill=fill),))
    for dtype in ("F32", "F16"):
        yield Case(f"special-{dtype}".lower(), Operand(dtype, (16, 8)), (Operand(dtype, (16, 8), fill="special"),))
    plain, permuted = Operand("F32", (9, 4, 3, 2), fill=fill), (4, 108, 36, 432)
    yield Case("permuted", Operand("F32", plain.ne), (Operand("F32", plain.ne, permuted, fill),))
    yield Case("dst-permuted", Operand("F32", plain.ne, permuted), (plain,))
    yield Case("gaps", Operand("F32", plain.ne, (4, 48, 192, 640)), (Operand("F32", plain.ne, (4, 40, 200, 600), fill),))
    yield Case("in-place", Operand("F32", plain.ne, alias="src0"), (plain,))
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 3)),))
