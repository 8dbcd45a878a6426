"""The activation functions that UNARY and GLU share: mathematical definitions, and how far upstream's CPU kernels are from them.

They are computed in float64, but become 0 where float32, in which upstream computes them, loses them (`exp`, `above_minus_one`):
whether a gate passes an infinity on or makes NaN of it hangs on that.

Source: ggml-cpu/vec.h.
"""

import math

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.tensor import Array, F32Array

F64Array = npt.NDArray[np.float64]

TABLE = Tolerance(
    1.1e-3,
    6e-5,
    reason="upstream's CPU takes GELU and GELU_QUICK of an F32 from a table of F16 by F16: x and f(x) are rounded to 11 bits; "
    "the atol is the most by which that exceeds the rtol, near x = -2",
)


def exp(x: F64Array) -> F64Array:
    """Return e to the power of each element, infinite where it is in float32, above 88.7."""
    e = np.exp(x)
    return np.where(np.isinf(e.astype(np.float32)), np.inf, e)


def above_minus_one(x: F64Array) -> F64Array:
    """Return 1 + x, which is 0 where x is -1 in float32."""
    return np.where(x.astype(np.float32) == -1, 0.0, 1.0 + x)


def gelu(x: Array) -> Array:
    """Return x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))); -0 below -5.6, NaN for -inf."""
    x = x.astype(np.float64)
    return 0.5 * x * above_minus_one(np.tanh(math.sqrt(2.0 / math.pi) * x * (1.0 + 0.044715 * x * x)))


def gelu_of_f32(x: Array) -> Array:
    """Return gelu as upstream defines it for F32: 0 up to -10, x from 10 on, so that infinities have finite answers or stay."""
    # ggml_vec_gelu_f32 has the same two cases before its table; for x = -inf the formula itself would give -inf * 0 = NaN
    return np.where(x <= -10, 0.0, np.where(x >= 10, x, gelu(x)))


def gelu_quick(x: Array) -> Array:
    """Return x / (1 + exp(-1.702 x)); -0 below -52.1. The product with the reciprocal, so that -inf gives NaN as upstream."""
    x = x.astype(np.float64)
    return x * (1.0 / (1.0 + exp(-1.702 * x)))


def gelu_erf(x: Array) -> Array:
    """Return x/2 (1 + erf(x / √2)); -0 below -5.5, NaN for -inf."""
    x = x.astype(np.float64)
    return 0.5 * x * above_minus_one(erf(x / math.sqrt(2.0)))


def silu(x: Array, alpha: float = 1.0) -> Array:
    """Return x / (1 + exp(-alpha x)); -0 where alpha x is below -88.7, NaN for -inf."""
    x = x.astype(np.float64)
    return x / (1.0 + exp(-alpha * x))


def erf(x: F64Array) -> F64Array:
    """Return the error function of each element: the standard library's, since numpy has none.

    A series fitted by numpy took twice as long, and its last digits, even erf(0), depended on the processor's BLAS.
    """
    return np.fromiter(map(math.erf, x.flat), np.float64, x.size).reshape(x.shape)


def halves(node: Node) -> tuple[F32Array, F32Array]:
    """Return the operands of a GLU, each of dst's shape: what the function is applied to, and what that gates."""
    src0, src1, n = node.source(0), node.optional(1), node.dst.ne[0]
    if src1 is not None:
        return src0.values(), src1.values()
    first, second = src0.values()[..., :n], src0.values()[..., n : 2 * n]
    return (second, first) if node.i32("swapped") else (first, second)
