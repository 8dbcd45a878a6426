"""How upstream's CPU kernels compute with F16: through float32 on most processors, in F16 itself on those with AVX512-FP16.

The two give different numbers (a dot product of 256 elements summed in F16 is wrong in its third digit), and a build made on one
processor may not run on another. To reproduce upstream's numbers one must know which of the two computed them.

Source: GGML_F16_VEC in ggml-cpu/simd-mappings.h; ggml_vec_dot_f16 in vec.cpp; ggml_vec_mad_f16, ggml_vec_scale_f16 in vec.h.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from ggml_rpc_ref.ops.shared.slabs import rows_per_slab
from ggml_rpc_ref.tensor import Array, F32Array

LANES = 32
"""F16 numbers of a 512-bit register."""
STEP = 128
"""Elements that upstream's loops take at a time: four registers. The elements left over are computed in float32."""


class Half(Protocol):
    """Arithmetic on F16 values, which are passed as float32 arrays."""

    def dots(self, q: F32Array, k: F32Array) -> F32Array:
        """Return q @ k^T, shape (heads, queries, keys), for q (heads, queries, dk) and k (heads, keys, dk)."""

    def scale(self, y: F32Array, factor: F32Array) -> F32Array:
        """Return y times a factor that broadcasts to it, rounded to F16."""

    def add_scaled(self, y: F32Array, x: F32Array, factor: F32Array) -> F32Array:
        """Return y + x * factor, all broadcast, rounded to F16."""


def _f16(values: Array) -> F32Array:
    rounded: F32Array = values.astype(np.float16).astype(np.float32)
    return rounded


class ThroughFloat32:
    """F16 is read into float32 and rounded when it is written back."""

    def dots(self, q: F32Array, k: F32Array) -> F32Array:
        """Sum in float32."""
        product: F32Array = q @ k.swapaxes(-1, -2)
        return product

    def scale(self, y: F32Array, factor: F32Array) -> F32Array:
        """Multiply in float32, then round."""
        return _f16(y * factor)

    def add_scaled(self, y: F32Array, x: F32Array, factor: F32Array) -> F32Array:
        """Multiply and add with one rounding to float32, then round to F16."""
        # float64 stands for the fused multiply-add of float32 registers
        return _f16((y + x.astype(np.float64) * factor).astype(np.float32))


class Native:
    """F16 registers: every product-and-sum is rounded to F16 once."""

    def dots(self, q: F32Array, k: F32Array) -> F32Array:
        """Sum in F16: four registers of 32 sums each, then the registers, then halves of the one that is left."""
        step = rows_per_slab(8 * STEP * q.shape[0] * q.shape[1])
        return np.concatenate([self._dots(q, k[:, at : at + step]) for at in range(0, k.shape[1], step)], axis=-1)

    @staticmethod
    def _dots(q: F32Array, k: F32Array) -> F32Array:
        """The same for a few keys at a time, because each pair of query and key needs 128 intermediate numbers."""
        whole = q.shape[-1] // STEP * STEP
        sums = np.zeros((q.shape[0], q.shape[1], k.shape[1], STEP // LANES, LANES))
        for at in range(0, whole, STEP):
            # a fused multiply-add rounds once: in float64 the product of two F16 is exact, and the sum far finer than F16
            x, y = (t[..., at : at + STEP].reshape(*t.shape[:2], -1, LANES).astype(np.float64) for t in (q, k))
            sums = (sums + x[:, :, None] * y[:, None]).astype(np.float16).astype(np.float64)
        registers = sums.astype(np.float16)
        pairs = registers[..., :2, :] + registers[..., 2:, :]
        lanes = pairs[..., 0, :] + pairs[..., 1, :]
        while (half := lanes.shape[-1] // 2) > 0:
            lanes = lanes[..., :half] + lanes[..., half:]
        rest = q[..., whole:] @ k[..., whole:].swapaxes(-1, -2)
        dots: F32Array = lanes[..., 0].astype(np.float32) + rest
        return dots

    def scale(self, y: F32Array, factor: F32Array) -> F32Array:
        """Multiply by the factor rounded to F16; in float32 for the elements left over."""
        return self._split(y, _f16(y * _f16(factor)), _f16(y * factor))

    def add_scaled(self, y: F32Array, x: F32Array, factor: F32Array) -> F32Array:
        """Add x times the factor rounded to F16, one rounding; through float32 for the elements left over."""
        inside = _f16(y + x.astype(np.float64) * _f16(factor))
        return self._split(y, inside, _f16((y + x.astype(np.float64) * factor).astype(np.float32)))

    @staticmethod
    def _split(y: F32Array, inside: F32Array, left_over: F32Array) -> F32Array:
        """Return `inside` for the elements of whole steps, `left_over` for those after them."""
        whole = y.shape[-1] // STEP * STEP
        return inside if whole == y.shape[-1] else np.concatenate((inside[..., :whole], left_over[..., whole:]), axis=-1)


def of_this_processor() -> Half:
    """Return the arithmetic that a build made on this machine uses."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ThroughFloat32()
    return Native() if "avx512_fp16" in flags else ThroughFloat32()
