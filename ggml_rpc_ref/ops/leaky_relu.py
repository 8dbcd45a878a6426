"""LEAKY_RELU: negative elements made smaller.

    dst[i] = (x if x > 0 else 0) + slope * (x if x < 0 else 0)     for x = src0[i], in float32

src0, dst: F32 or F16, the same on both sides, the same ne, rows dense and evenly spaced; may share memory. NaN gives 0 (if slope is
finite: slope times 0 is added to every element). Empty: nothing is computed.

Source: ggml_leaky_relu in ggml.c, ggml_vec_leaky_relu_f32 in ggml-cpu/vec.h.
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.op import Case, Node, Op, Operand, Param, Source, Tolerance
from ggml_rpc_ref.ops.shared.elementwise import map_values, require_dense_rows, require_even_rows


def shape(node: Node) -> None:
    """Refuse differing types or dimensions, rows with gaps or unevenly spaced."""
    src0, dst = node.source(0), node.dst
    node.require(dst.dtype == src0.dtype, f"type {src0.dtype.name} as the source", dst.dtype.name)
    node.require(dst.ne == src0.ne, f"ne {src0.ne} as the source", dst.ne)
    require_dense_rows(node, src0, dst)
    require_even_rows(node, src0, dst)


def oracle(node: Node) -> None:
    """Compute the formula."""
    slope, zero = np.float32(node.f32("negative_slope")), np.float32(0)
    map_values(node, lambda x: np.where(x > 0, x, zero) + slope * np.where(x < 0, x, zero))


def cases() -> Iterator[Case]:
    """Both types, several slopes, special values, gaps, in place."""
    for dtype in ("F32", "F16"):
        for slope in (0.1, 0.0, -2.0, 1.5):
            x = Operand(dtype, (33, 3), fill="normal:3")
            yield Case(f"slope{slope}-{dtype}".lower(), Operand(dtype, x.ne), (x,), {"negative_slope": slope})
        odd = Operand(dtype, (16, 6), fill="special")
        yield Case(f"special-{dtype}".lower(), Operand(dtype, odd.ne), (odd,), {"negative_slope": 0.25})
    x = Operand("F32", (9, 4, 3, 2))
    yield Case("infinite-slope", Operand("F32", x.ne), (x,), {"negative_slope": float("inf")})
    yield Case("in-place", Operand("F32", x.ne, alias="src0"), (x,), {"negative_slope": 0.1})
    gaps = Operand("F32", x.ne, (4, 48, 192, 576))
    yield Case("gaps", Operand("F32", x.ne, (4, 40, 160, 480)), (gaps,), {"negative_slope": 0.1})
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 3)),), {"negative_slope": 0.1})


OP = Op(
    name="LEAKY_RELU",
    sources=(Source("x", ("F32", "F16"), "rows dense and evenly spaced"),),
    types=("F32", "F16"),
    params=(Param("negative_slope", "f32", 0, "factor of negative elements"),),
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=Tolerance(atol=1e-38, reason="with a fused multiply-add a product too small for float32 keeps its sign: -0 for 0"),
    in_place=True,
)
