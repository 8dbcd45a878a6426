"""GLU: one half of the input gates the other by a function that op_params[0] chooses.

    dst[i] = f(x[i]) · y[i]

    0 REGLU x where x > 0, else 0 (then 0 whatever y is)      3 SWIGLU_OAI x' / (1 + e^(-alpha x')) · (y' + 1)
    1 GEGLU gelu(x)                                                with x' = min(x, limit), y' = y clamped to ±limit
    2 SWIGLU silu(x)                                          4 GEGLU_ERF gelu_erf(x)   5 GEGLU_QUICK gelu_quick(x)
    6 SWIGLU_CLAMP silu(min(x, limit)) · (y clamped to ±limit), in later versions

With src1: x = src0, y = src1, both of dst's ne. Without: src0 has rows of 2n (or 2n + 1, whose last element is not read), x is
the first n, y the second; the other way round where swapped is not 0. All: F32, or all F16 (not SWIGLU_OAI), dense, evenly
spaced rows. dst: n elements per row. NaN passes min and clamp. GEGLU of F32 is 0 where x <= -10, whatever y is. f(x) is a
float32, which is -0 where 1 + e^(-x), or 1 + tanh, or 1 + erf, overflows or vanishes as float32's: SWIGLU below -88.7, GEGLU_QUICK
below -52.1, GEGLU below -5.6, GEGLU_ERF below -5.5. There an infinite y gives NaN. Empty: nothing is computed.

GEGLU and GEGLU_QUICK look their function up by F16 on upstream's CPU: see `activations.TABLE`. What is too large or too small for
an F16 is therefore infinite or 0 there, and makes other NaN and infinities, which this oracle does not follow.

Source: ggml_glu_impl in ggml.c, ggml_compute_forward_glu in ggml-cpu/ops.cpp, ggml-cpu/vec.h.
"""

from collections.abc import Callable

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Param, Source, later
from ggml_rpc_ref.ops.shared.activations import gelu, gelu_erf, gelu_of_f32, gelu_quick, halves, silu
from ggml_rpc_ref.ops.shared.layout import require_even_rows
from ggml_rpc_ref.ops.shared.slabs import element_blocks, part
from ggml_rpc_ref.ops.tolerance import FLOAT32
from ggml_rpc_ref.tensor import Array, F32Array

GATES: dict[str, Callable[[Array], Array]] = {
    "GEGLU": gelu,
    "SWIGLU": silu,
    "GEGLU_ERF": gelu_erf,
    "GEGLU_QUICK": gelu_quick,
    "SWIGLU_CLAMP": silu,
}


TYPES: dict[str, tuple[str, ...]] = {"SWIGLU_OAI": ("F32",), "SWIGLU_CLAMP": ("F32", "F16")}
"""Kinds that do not take all types of the op, to those that they take."""


def shape(node: Node) -> None:
    """Refuse an unknown kind, differing types, halves that are not the result's size, rows with gaps or unevenly spaced."""
    number, names, src0, src1, dst = node.i32("kind"), node.op.kinds, node.source(0), node.optional(1), node.dst
    node.require(0 <= number < len(names), f"a kind below {len(names)}", number)
    node.require(dst.dtype == src0.dtype, f"type {src0.dtype.name} as src0", dst.dtype.name)
    types = TYPES.get(node.kind, node.op.types)
    node.require(dst.dtype.name in types, f"{' or '.join(types)} for {node.kind}", dst.dtype.name)
    n = src0.ne[0] if src1 is not None else src0.ne[0] // 2
    node.require(dst.ne == (n, *src0.ne[1:]), f"ne {(n, *src0.ne[1:])}", dst.ne)
    if src1 is not None:
        node.require(
            (src1.dtype, src1.ne) == (src0.dtype, src0.ne), "src1 of src0's type and ne", (src1.dtype.name, src1.ne), at=src1
        )
        require_even_rows(node, src1)
    require_even_rows(node, src0, dst)


def oracle(node: Node) -> None:
    """Gate part by part."""
    x, y = halves(node)
    for block in element_blocks(node.dst.ne):
        with np.errstate(all="ignore"):
            part(node.dst, block).store(gated(node, x[block], y[block]))


def gated(node: Node, x: F32Array, y: F32Array) -> Array:
    """Return the kind's formula of both halves; f(x) is rounded before it meets y, where that decides between infinity and NaN."""
    kind = node.kind
    if kind == "REGLU":
        # not relu(x) * y: where x <= 0, an infinite or NaN y has no effect (ggml_vec_reglu_f32)
        return np.where(x > 0, x * y, np.float32(0))
    if kind in ("SWIGLU_OAI", "SWIGLU_CLAMP"):
        x, y = clamped(x, y, np.float32(node.f32("limit")))
    if kind == "SWIGLU_OAI":
        return silu(x, node.f32("alpha")).astype(np.float32) * (y + np.float32(1))
    if kind == "GEGLU" and node.dst.dtype.name == "F32":
        return np.where(x <= -10, np.float32(0), gelu_of_f32(x).astype(np.float32) * y)
    return GATES[kind](x).astype(np.float32) * y


def clamped(x: F32Array, y: F32Array, limit: np.float32) -> tuple[F32Array, F32Array]:
    """Return min(x, limit), and y within ±limit; comparisons with NaN are false, as C's."""
    return np.where(x > limit, limit, x), np.where(y < -limit, -limit, np.where(y > limit, limit, y))


OP = Op(
    name="GLU",
    sources=(
        Source("x", ("F32", "F16"), "what the function is applied to; without y both halves of it"),
        Source("y", ("F32", "F16"), "what is gated, of x's type and ne", optional=True),
    ),
    types=("F32", "F16"),
    params=(
        Param("kind", "i32", 0, "which gate: ggml_glu_op"),
        Param("swapped", "i32", 1, "not 0: the second half of x is the gate; ignored with y"),
        Param("alpha", "f32", 2, "SWIGLU_OAI: steepness"),
        Param("limit", "f32", 3, "SWIGLU_OAI, SWIGLU_CLAMP: bound of both halves"),
    ),
    shape=shape,
    oracle=oracle,
    tolerance=FLOAT32,
    in_place=(0, 1),
    later=(later("GLU.bf16", takes={0: ("BF16",), 1: ("BF16",)}, gives=("BF16",)),),
)
