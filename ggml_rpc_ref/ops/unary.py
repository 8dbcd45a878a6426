"""UNARY: a function of each element, chosen by op_params[0].

    dst[i] = f(src0[i])     in float32, rounded once to dst's type

     0 ABS |x|                             11 HARDSWISH x · HARDSIGMOID(x)
     1 SGN 1, -1 or 0 (NaN: 0)             12 HARDSIGMOID min(1, max(0, (x + 3) / 6)) (NaN: 0)
     2 NEG -x                              13 EXP eˣ
     3 STEP 1 where x > 0 (NaN: 0)         14 EXPM1 eˣ - 1
     4 TANH                                15 SOFTPLUS ln(1 + eˣ), x above 20
     5 ELU x where x > 0, else eˣ - 1      16 GELU_ERF x/2 (1 + erf(x/√2))
     6 RELU x where x > 0, else 0 (NaN: 0) 17 XIELU alpha_p x² + beta x where x > 0,
     7 SIGMOID 1 / (1 + e⁻ˣ)                        else alpha_n (e^min(x, eps) - 1 - x) + beta x
     8 GELU gelu(x), see Activations       18 FLOOR   19 CEIL
     9 GELU_QUICK x / (1 + e^(-1.702 x))   20 ROUND halves away from zero
    10 SILU x / (1 + e⁻ˣ)                  21 TRUNC towards zero

src0, dst: the same ne, dense rows; may share memory. Types: F32, F16 or BF16 on both sides, or F16 or BF16 to F32; GELU,
GELU_ERF, GELU_QUICK and SILU take F32 or F16 only, the same on both sides. GELU of F32 is 0 up to -10 and x from 10 on; -inf in
the others of that family, and in GELU of F16, gives NaN. XIELU needs rows evenly spaced on both sides. Empty: nothing is
computed.

GELU and GELU_QUICK of F32 are table look-ups by F16 on upstream's CPU: see `activations.TABLE`; beyond ±65504 its GELU_QUICK
therefore overflows, which this oracle does not follow.

Source: ggml-cpu/unary-ops.cpp, ggml-cpu/vec.h, ggml_compute_forward_unary in ggml-cpu/ops.cpp.
"""

from collections.abc import Callable

import numpy as np

from ggml_rpc_ref.ops.op import FLOATS, Node, Op, Param, Source, before, later
from ggml_rpc_ref.ops.shared.activations import gelu, gelu_erf, gelu_of_f32, gelu_quick, silu
from ggml_rpc_ref.ops.shared.elementwise import map_values, require_unary
from ggml_rpc_ref.ops.shared.layout import require_even_rows, require_types
from ggml_rpc_ref.ops.tolerance import FLOAT32
from ggml_rpc_ref.tensor import Array, F32Array

Function = Callable[[F32Array], Array]


def wide(function: Callable[[Array], Array]) -> Function:
    """Return the function computed in float64."""
    return lambda x: function(x.astype(np.float64))


def hard_sigmoid(x: Array) -> Array:
    """Return min(1, max(0, (x + 3) / 6)), where NaN counts as less than 0 (C's fmaxf)."""
    clipped: Array = np.fmin(np.float32(1), np.fmax(np.float32(0), (x + np.float32(3)) / np.float32(6)))
    return clipped


def round_half_away(x: Array) -> Array:
    """Return the nearest whole number, halves away from zero (C's roundf; numpy's rounds halves to even)."""
    return np.copysign(np.floor(np.abs(x.astype(np.float64)) + 0.5), x)


FUNCTIONS: dict[str, Function] = {
    "ABS": np.abs,
    "SGN": lambda x: np.where(x > 0, 1.0, np.where(x < 0, -1.0, 0.0)),
    "NEG": np.negative,
    "STEP": lambda x: np.where(x > 0, 1.0, 0.0),
    "TANH": wide(np.tanh),
    "ELU": wide(lambda x: np.where(x > 0, x, np.expm1(x))),
    "RELU": lambda x: np.where(x > 0, x, 0.0),
    "SIGMOID": wide(lambda x: 1.0 / (1.0 + np.exp(-x))),
    "GELU": gelu,
    "GELU_QUICK": gelu_quick,
    "SILU": silu,
    "HARDSWISH": lambda x: x * hard_sigmoid(x),
    "HARDSIGMOID": hard_sigmoid,
    "EXP": wide(np.exp),
    "EXPM1": wide(np.expm1),
    # above 20 upstream returns x itself (ggml_compute_softplus_f32 in ggml-impl.h)
    "SOFTPLUS": wide(lambda x: np.where(x > 20, x, np.log1p(np.exp(x)))),
    "GELU_ERF": gelu_erf,
    "FLOOR": np.floor,
    "CEIL": np.ceil,
    "ROUND": round_half_away,
    "TRUNC": np.trunc,
}
"""All but XIELU, which has parameters."""

VEC_KINDS = frozenset({"GELU", "GELU_ERF", "GELU_QUICK", "SILU"})
"""Kinds with kernels of their own in ops.cpp and vec.h, which do not assert nb[0]."""


def shape(node: Node) -> None:
    """Refuse an unknown kind, types that the kind does not take, other dimensions, gaps within rows."""
    _check(node, ("F32", "F16"))


def shape_with_bf16(node: Node) -> None:
    """Refuse what `shape` does, BF16 apart."""
    _check(node, FLOATS)


def shape_of_even_rows(node: Node) -> None:
    """Refuse what `shape` does, and rows that are unevenly spaced."""
    shape(node)
    require_even_rows(node, node.source(0), node.dst)


def _check(node: Node, of_vec_kinds: tuple[str, ...]) -> None:
    number, names = node.i32("kind"), node.op.kinds
    node.require(0 <= number < len(names), f"a kind below {len(names)}", number)
    require_unary(node, one_anywhere=node.kind in VEC_KINDS)
    if node.kind in VEC_KINDS:
        require_types(node, [(name, name) for name in of_vec_kinds], f"{' or '.join(of_vec_kinds)} on both sides for {node.kind}")
    if node.kind == "XIELU":
        require_even_rows(node, node.source(0), node.dst)


def oracle(node: Node) -> None:
    """Compute the function of each element."""
    kind = node.kind
    if kind == "XIELU":
        map_values(node, lambda x: xielu(node, x))
    elif kind == "GELU" and node.dst.dtype.name == "F32":
        map_values(node, gelu_of_f32)
    else:
        map_values(node, FUNCTIONS[kind])


def xielu(node: Node, x: F32Array) -> Array:
    """Return XIELU with the node's parameters; in float32, so that it overflows where upstream does."""
    alpha_n, alpha_p, beta, eps = (np.float32(node.f32(name)) for name in ("alpha_n", "alpha_p", "beta", "eps"))
    # fmin rather than minimum: C's fminf, which upstream calls, ignores a NaN
    negative = (np.expm1(np.fmin(x, eps)) - x) * alpha_n + beta * x
    return np.where(x > 0, alpha_p * x * x + beta * x, negative)


OP = Op(
    name="UNARY",
    sources=(Source("x", FLOATS, "dense rows"),),
    types=FLOATS,
    params=(
        Param("kind", "i32", 0, "which function: ggml_unary_op"),
        Param("alpha_n", "f32", 1, "XIELU: factor where x <= 0 (beta + softplus of the model's parameter)"),
        Param("alpha_p", "f32", 2, "XIELU: factor where x > 0 (softplus of the model's parameter)"),
        Param("beta", "f32", 3, "XIELU: linear factor"),
        Param("eps", "f32", 4, "XIELU: upper bound of x in the exponential"),
    ),
    shape=shape,
    oracle=oracle,
    tolerance=FLOAT32,
    in_place=(0,),
    later=(later("UNARY.bf16", shape=shape_with_bf16),),
    earlier=(before("UNARY.rows", shape=shape_of_even_rows),),
)
