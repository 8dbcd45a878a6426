"""TIMESTEP_EMBEDDING: cosines and sines of each time step at frequencies that fall from 1 to nearly 1 / max_period.

    half = dim / 2 (whole), freq[j] = exp(-ln(max_period) * j / half)
    dst[j, i] = cos(src0[i] * freq[j]), dst[half + j, i] = sin(src0[i] * freq[j]), and 0 in the last place where dim is odd

src0: F32, ne = (N, ..), dense rows; only the first row is read. dst: F32, ne = (dim, N), dense rows. freq and its product with
the step are rounded to float32, by definition. NaN and infinities give NaN; max_period 0 or below gives NaN.

Source: ggml_timestep_embedding in ggml.c; ggml_compute_forward_timestep_embedding_f32 in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import Cost, elements
from ggml_rpc_ref.ops.op import Node, Op, Param, Source, before
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows, require_dense_rows
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.tensor import F32Array


def shape(node: Node) -> None:
    """Refuse a result that is not dim by the number of steps, and rows with gaps."""
    _check(node, node.i32("dim"))


def shape_of_even_rows(node: Node) -> None:
    """Refuse what `shape` does, with a result of one more element where dim is odd."""
    _check(node, node.i32("dim") + node.i32("dim") % 2)


def _check(node: Node, row: int) -> None:
    steps, dst = node.source(0), node.dst
    node.require(dst.ne == (row, steps.ne[0], 1, 1), f"ne ({row}, {steps.ne[0]}, 1, 1)", dst.ne)
    require_dense_rows(node, steps)
    require_contiguous_rows(node, dst)
    node.require(steps.nelements > 0 or dst.nelements == 0, "steps", steps.ne, at=steps)


def oracle(node: Node) -> None:
    """Put 0 in the place that an odd dim leaves."""
    dim = node.i32("dim")
    _embed(node)
    node.dst.array[0, 0, :, dim // 2 * 2 :] = 0


def oracle_of_even_rows(node: Node) -> None:
    """Put 0 behind an odd dim, and leave its last place as it is."""
    dim = node.i32("dim")
    _embed(node)
    node.dst.array[0, 0, :, dim:] = 0


@np.errstate(all="ignore")
def _embed(node: Node) -> None:
    """Round to float32 where upstream has a float, and only there."""
    dst = node.dst.array[0, 0]
    if dst.size == 0:
        return
    half = node.i32("dim") // 2
    angle = node.source(0).array[0, 0, 0][:, None] * _frequencies(node.i32("max_period"), half)
    cos, sin = np.cos(angle, dtype=np.float64), np.sin(angle, dtype=np.float64)
    dst[:, :half], dst[:, half : 2 * half] = cos, sin


def _frequencies(max_period: int, half: int) -> F32Array:
    """Return the frequencies, float32 of shape (half,)."""
    fall = -np.float32(np.log(np.float64(np.float32(max_period))))
    # from left to right, as C evaluates -logf(max_period) * j / half: float32 rounds after each
    exponent = fall * np.arange(half).astype(np.float32) / np.float32(half)
    frequencies: F32Array = np.exp(exponent, dtype=np.float64).astype(np.float32)
    return frequencies


def cost(node: Node) -> Cost:
    """Return the cost: angles, cosines and sines at once."""
    return Cost(16 * node.dst.nelements, elements(node))


OP = Op(
    name="TIMESTEP_EMBEDDING",
    sources=(Source("timesteps", ("F32",), "ne = (N)"),),
    types=("F32",),
    params=(
        Param("dim", "i32", 0, "elements of an embedding"),
        Param("max_period", "i32", 1, "steps after which the slowest wave has nearly turned once"),
    ),
    shape=shape,
    oracle=oracle,
    tolerance=Tolerance(
        1e-5,
        1e-4,
        1e-9,
        "one float32 step in exp or the product moves an angle of 1000 by 6e-5; upstream's libm may round the other way",
    ),
    cost=cost,
    earlier=(before("TIMESTEP_EMBEDDING.odd", shape=shape_of_even_rows, oracle=oracle_of_even_rows),),
)
