"""The activation functions that UNARY and GLU share: mathematical definitions, and how far upstream's CPU kernels lie from them.

Source: ggml-cpu/vec.h.
"""

import math
from functools import cache

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.ops.op import Tolerance
from ggml_rpc_ref.tensor import Array

F64Array = npt.NDArray[np.float64]

TABLE = Tolerance(
    1.1e-3,
    6e-5,
    reason="upstream's CPU looks GELU and GELU_QUICK of an F32 up by F16, with F16 results: x and f(x) are rounded to 11 bits; "
    "the atol is the most, near x = -2, by which that exceeds the rtol",
)

ERF_IS_ONE = 6.0
"""From here on erf is 1 in float64 too."""


def gelu(x: Array) -> Array:
    """Return x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))), in float64."""
    x = x.astype(np.float64)
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * x * (1.0 + 0.044715 * x * x)))


def gelu_of_f32(x: Array) -> Array:
    """Return gelu as upstream defines it for F32: 0 up to -10, x from 10 on, so that infinities have finite answers or stay."""
    return np.where(x <= -10, 0.0, np.where(x >= 10, x, gelu(x)))


def gelu_quick(x: Array) -> Array:
    """Return x / (1 + exp(-1.702 x)), in float64; the product with the reciprocal, so that -inf gives NaN as upstream."""
    x = x.astype(np.float64)
    return x * (1.0 / (1.0 + np.exp(-1.702 * x)))


def gelu_erf(x: Array) -> Array:
    """Return x/2 (1 + erf(x / √2)), in float64."""
    x = x.astype(np.float64)
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


def silu(x: Array) -> Array:
    """Return x / (1 + exp(-x)), in float64."""
    x = x.astype(np.float64)
    return x / (1.0 + np.exp(-x))


def erf(x: F64Array) -> F64Array:
    """Return the error function, to about 1e-15: numpy has none."""
    z = np.minimum(np.abs(x), ERF_IS_ONE)
    complement: F64Array = np.polynomial.chebyshev.chebval(_series_argument(z), _erfc_series()) * np.exp(-z * z)
    return np.copysign(1.0 - complement, x)


@cache
def _erfc_series() -> F64Array:
    """Chebyshev coefficients of erfc(z) exp(z²) over 0 <= z <= 6, interpolated from the standard library's erfc."""

    def scaled_erfc(argument: float) -> float:
        z = 2.0 / (0.625 + 0.375 * argument) - 2.0
        return math.erfc(z) * math.exp(z * z)

    nodes = np.polynomial.chebyshev.chebpts1(31)
    series = np.polynomial.chebyshev.chebfit(nodes, [scaled_erfc(float(node)) for node in nodes], 30)
    return series.astype(np.float64)


def _series_argument(z: F64Array) -> F64Array:
    """Map z in [0, 6] to [1, -1] by 2/(2+z), under which erfc(z) exp(z²) is nearly straight."""
    return (2.0 / (2.0 + z) - 0.625) / 0.375
