"""NORM: each row shifted to mean 0 and scaled to variance 1.

    dst[i] = (src0[i] - mean) / sqrt(mean of (src0 - mean)² + eps)     over each row

src0, dst: F32, the same ne, rows dense; may share memory. eps must not be negative or NaN (upstream asserts it). A row with NaN or
an infinity becomes NaN throughout. A row of equal elements becomes 0 (0 / 0 = NaN where eps is 0). Empty: nothing is computed.

Source: ggml_compute_forward_norm_f32 in ggml-cpu/ops.cpp (sum in double, mean and differences in float).
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.op import FLOAT32, Case, Node, Op, Operand, Param, Source
from ggml_rpc_ref.ops.shared.elementwise import map_values, require_dense_rows
from ggml_rpc_ref.tensor import Array, F32Array


def shape(node: Node) -> None:
    """Refuse differing dimensions, gaps within rows, a negative or NaN eps."""
    node.require(node.dst.ne == node.source(0).ne, f"ne {node.source(0).ne} as the source", node.dst.ne)
    node.require(node.f32("eps") >= 0.0, "eps >= 0", node.f32("eps"))
    require_dense_rows(node, node.source(0), node.dst)


def oracle(node: Node) -> None:
    """Compute the formula; sum and mean are rounded to float32, for the differences are taken from that."""
    eps = np.float32(node.f32("eps"))

    def normalised(x: F32Array) -> Array:
        total = np.sum(x, axis=-1, dtype=np.float64, keepdims=True).astype(np.float32)
        y = x - total / np.float32(x.shape[-1])
        variance = np.mean(np.square(y, dtype=np.float64), axis=-1, keepdims=True).astype(np.float32)
        scaled: Array = y * (np.float32(1) / np.sqrt(variance + eps))
        return scaled

    map_values(node, normalised)


def cases() -> Iterator[Case]:
    """The cases of every norm over rows."""
    yield from norm_cases()


def norm_cases() -> Iterator[Case]:
    """Yield row lengths around vector widths, values of eps, a mean far from 0, equal elements, strides, special values."""
    for n in (1, 2, 7, 16, 64, 129):
        yield Case(f"n{n}", Operand("F32", (n, 3)), (Operand("F32", (n, 3)),), {"eps": 1e-5})
    x = Operand("F32", (40, 3, 2, 2))
    for name, eps in (("eps-zero", 0.0), ("eps-large", 10.0), ("eps-infinite", float("inf"))):
        yield Case(name, Operand("F32", (40, 3)), (Operand("F32", (40, 3)),), {"eps": eps})
    yield Case("far-from-zero", Operand("F32", (40, 3)), (Operand("F32", (40, 3), fill="uniform:100:101"),), {"eps": 1e-6})
    yield Case("equal-elements", Operand("F32", (16, 2)), (Operand("F32", (16, 2), fill="values:3"),), {"eps": 1e-6})
    yield Case("zeros", Operand("F32", (16, 2)), (Operand("F32", (16, 2), fill="zeros"),), {"eps": 0.0})
    yield Case("in-place", Operand("F32", x.ne, alias="src0"), (x,), {"eps": 1e-6})
    yield Case("permuted", Operand("F32", (16, 3, 4)), (Operand("F32", (16, 3, 4), (4, 256, 64, 768)),), {"eps": 1e-6})
    yield Case(
        "gaps", Operand("F32", (16, 3, 4), (4, 80, 320, 1280)), (Operand("F32", (16, 3, 4), (4, 72, 240, 960)),), {"eps": 1e-6}
    )
    yield Case("special", Operand("F32", (8, 32)), (Operand("F32", (8, 32), fill="special"),), {"eps": 1e-5})
    yield Case("empty", Operand("F32", (4, 0)), (Operand("F32", (4, 0)),), {"eps": 1e-5})


OP = Op(
    name="NORM",
    sources=(Source("x", ("F32",), "rows dense"),),
    types=("F32",),
    params=(Param("eps", "f32", 0, "added to the variance, at least 0"),),
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=FLOAT32,
    in_place=True,
)
