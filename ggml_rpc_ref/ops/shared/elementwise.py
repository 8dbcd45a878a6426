"""What ops share that compute each element of the result by itself: in parts, so that a big tensor needs no big temporaries."""

from collections.abc import Callable, Iterable

import numpy as np

from ggml_rpc_ref.ops.op import FLOATS, Node, Op, Source, before
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows, require_dense_rows, require_even_rows, require_types
from ggml_rpc_ref.ops.shared.slabs import ElementBlock, RowBlock, element_blocks, part, row_blocks
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.spec.op_changes import OP_CHANGES
from ggml_rpc_ref.tensor import Array, F32Array

UNARY_TYPES = frozenset({("F32", "F32"), ("F16", "F16"), ("BF16", "BF16"), ("F16", "F32"), ("BF16", "F32")})
"""(source, result) types of upstream's one-operand kernels (unary_op in ggml-cpu/unary-ops.cpp)."""


def require_unary(node: Node, *, one_anywhere: bool = False) -> None:
    """Refuse what upstream's one-operand kernels assert against: other dimensions, other pairs of types, gaps within a row.

    Args:
        node: the node.
        one_anywhere: in a row of one element nb[0] may be anything, which some of the kernels assert all the same.
    """
    src0, dst = node.source(0), node.dst
    node.require(dst.ne == src0.ne, f"ne {src0.ne} as the source", dst.ne)
    require_types(node, UNARY_TYPES, "types F32, F16 or BF16 on both sides, or F16 or BF16 to F32")
    (require_contiguous_rows if one_anywhere else require_dense_rows)(node, src0, dst)


def require_even_unary(node: Node) -> None:
    """Refuse what `require_unary` does, and rows that are unevenly spaced."""
    require_unary(node)
    require_even_rows(node, node.source(0), node.dst)


def require_same_rows(node: Node) -> None:
    """Refuse differing types or dimensions."""
    src0, dst = node.source(0), node.dst
    node.require(dst.dtype == src0.dtype, f"type {src0.dtype.name} as the source", dst.dtype.name)
    node.require(dst.ne == src0.ne, f"ne {src0.ne} as the source", dst.ne)


def require_same_dense_rows(node: Node) -> None:
    """Refuse differing types or dimensions, rows with gaps."""
    require_same_rows(node)
    require_dense_rows(node, node.source(0), node.dst)


def require_same_even_rows(node: Node) -> None:
    """Refuse differing types or dimensions, rows with gaps or unevenly spaced (upstream steps through all rows by nb[1])."""
    require_same_rows(node)
    require_even_rows(node, node.source(0), node.dst)


def require_same_even_dense_rows(node: Node) -> None:
    """Refuse what `require_same_even_rows` does, and an nb[0] that is not an element's size even in rows of one element."""
    require_same_even_rows(node)
    require_dense_rows(node, node.source(0), node.dst)


def map_values(node: Node, function: Callable[[F32Array], Array]) -> None:
    """Store function(values of the source), element by element, in a destination of the same dimensions."""
    _map(node, function, element_blocks(node.dst.ne))


def map_rows(node: Node, function: Callable[[F32Array], Array]) -> None:
    """Store function(values of the source), whole rows along the last axis, in a destination of the same dimensions."""
    _map(node, function, row_blocks(node.dst.ne))


def _map(node: Node, function: Callable[[F32Array], Array], blocks: Iterable[RowBlock | ElementBlock]) -> None:
    source = node.source(0)
    for block in blocks:
        with np.errstate(all="ignore"):  # NaN and overflow are results like others
            part(node.dst, block).store(function(part(source, block).values()))


def unary_op(name: str, function: Callable[[F32Array], Array], tolerance: Tolerance) -> Op:
    """Return the row of an op that applies a function to each element, of the types in `UNARY_TYPES`.

    Args:
        name: the op's name.
        function: float32 values to results, which are rounded once to the result's type.
        tolerance: how near to the function's another implementation's results must be.
    """

    def oracle(node: Node) -> None:
        map_values(node, function)

    source = Source("x", FLOATS, "dense rows")
    rows = f"{name}.rows"
    earlier = (before(rows, shape=require_even_unary),) if rows in OP_CHANGES else ()
    return Op(name, (source,), FLOATS, require_unary, oracle, tolerance, in_place=(0,), earlier=earlier)
