"""RMS_NORM: divide each row by its root mean square.

    dst[i] = src0[i] / sqrt(mean over the row of src0² + eps)

src0: F32 ne = (n, r1, r2, r3), elements of a row neighbours, rows anywhere. dst: F32, the same ne; may be src0's own memory.
A row with NaN becomes NaN; a row with an infinity, or squares that overflow float32, becomes 0 where finite and NaN where
infinite. n = 0 or no rows: nothing is computed. eps must not be negative or NaN (upstream asserts it).

Source: ggml_compute_forward_rms_norm_f32 in ggml-cpu/ops.cpp (sum of squares in double, scale in float).
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.op import FLOAT32, Case, Node, Op, Operand, Param, Source
from ggml_rpc_ref.ops.shared.elementwise import map_values, require_dense_rows
from ggml_rpc_ref.tensor import Array, F32Array


def shape(node: Node) -> None:
    """Refuse differing dimensions, rows with gaps between elements, a negative or NaN eps."""
    src0 = node.source(0)
    node.require(node.dst.ne == src0.ne, f"ne {src0.ne} as the source", node.dst.ne)
    require_dense_rows(node, src0, node.dst)
    node.require(node.f32("eps") >= 0.0, "eps >= 0", node.f32("eps"))


def oracle(node: Node) -> None:
    """Compute the formula; squares in float32 and their sum in float64, as upstream."""
    eps = np.float32(node.f32("eps"))

    def normalised(x: F32Array) -> Array:
        mean = np.sum(x * x, axis=-1, dtype=np.float64, keepdims=True) / x.shape[-1]
        scaled: Array = x * (np.float32(1) / np.sqrt(mean.astype(np.float32) + eps))
        return scaled

    map_values(node, normalised)


def cases() -> Iterator[Case]:
    """Row lengths around vector widths, broadcast-free shapes in all dimensions, gaps between rows, in place, special values."""
    for n in (1, 7, 64, 1025):
        x = Operand("F32", (n, 3, 2, 2) if n < 1000 else (n, 3))
        yield Case(f"n{n}", Operand("F32", x.ne), (x,), {"eps": 1e-6})
    x = Operand("F32", (640, 5))
    yield Case("eps-zero", Operand("F32", x.ne), (x,), {"eps": 0.0})
    yield Case("eps-large", Operand("F32", x.ne), (x,), {"eps": 10.0})
    yield Case("in-place", Operand("F32", x.ne, alias="src0"), (x,), {"eps": 1e-6})
    gaps = Operand("F32", (16, 4, 3, 2), nb=(4, 96, 480, 2048))
    yield Case("gaps", Operand("F32", gaps.ne), (gaps,), {"eps": 1e-5})
    large = Operand("F32", (16, 2), fill="values:2e19,1,-1,0.5,-3,7,1e10,0")
    yield Case("squares-overflow", Operand("F32", large.ne), (large,), {"eps": 1e-6})
    special = Operand("F32", (8, 64), fill="special")
    yield Case("special", Operand("F32", special.ne), (special,), {"eps": 1e-5})


OP = Op(
    name="RMS_NORM",
    sources=(Source("x", ("F32",), "ne = (n, r1, r2, r3)"),),
    types=("F32",),
    params=(Param("eps", "f32", 0, "added to the mean of squares, at least 0"),),
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=FLOAT32,
    in_place=True,
)
