"""What NORM, RMS_NORM and L2_NORM share: each row by itself is scaled, and an eps keeps the divisor from 0."""

from collections.abc import Callable

import numpy as np

from ggml_rpc_ref.ops.cost import by_row
from ggml_rpc_ref.ops.op import Later, Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.elementwise import map_rows
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows, require_dense_rows
from ggml_rpc_ref.ops.tolerance import FLOAT32
from ggml_rpc_ref.tensor import Array, F32Array


def require_norm(node: Node) -> None:
    """Refuse differing dimensions, gaps within rows, a negative or NaN eps."""
    require_strided_norm(node)
    require_dense_rows(node, node.source(0))
    require_contiguous_rows(node, node.dst)


def require_strided_norm(node: Node) -> None:
    """Refuse differing dimensions, a negative or NaN eps."""
    node.require(node.dst.ne == node.source(0).ne, f"ne {node.source(0).ne} as the source", node.dst.ne)
    node.require(node.f32("eps") >= 0.0, "eps >= 0", node.f32("eps"))


def norm_op(
    name: str, function: Callable[[F32Array, np.float32], Array], source: str, eps: str, later: tuple[Later, ...] = ()
) -> Op:
    """Return the row of an op that scales each row.

    Args:
        name: the op's name.
        function: rows along the last axis and eps, to the scaled rows.
        source: description of the source.
        eps: description of the parameter.
        later: what the op is in later versions.
    """

    def oracle(node: Node) -> None:
        eps = np.float32(node.f32("eps"))
        map_rows(node, lambda rows: function(rows, eps))

    params = (Param("eps", "f32", 0, eps),)
    sources, types = (Source("x", ("F32",), source),), ("F32",)
    return Op(name, sources, types, require_norm, oracle, FLOAT32, params, in_place=(0,), cost=by_row, later=later)
