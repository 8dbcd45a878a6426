"""TIMESTEP_EMBEDDING: cosines and sines of each time step at frequencies that fall from 1 to nearly 1 / max_period.

    half = dim / 2 (whole), freq[j] = exp(-ln(max_period) * j / half)
    dst[j, i] = cos(src0[i] * freq[j]), dst[half + j, i] = sin(src0[i] * freq[j]), and 0 in the last place where dim is odd

src0: F32, ne = (N, ..), elements of a row neighbours; only the first row is read. dst: F32, ne = (dim, N), elements of a row
neighbours, rows anywhere. freq and its product with the step are rounded to float32, by definition. NaN and infinities give
NaN; max_period 0 or below gives NaN.

Source: ggml_timestep_embedding in ggml.c; ggml_compute_forward_timestep_embedding_f32 in ggml-cpu/ops.cpp.
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.op import Case, Node, Op, Operand, Param, Source, Tolerance
from ggml_rpc_ref.tensor import F32Array, Quad


def shape(node: Node) -> None:
    """Refuse a result that is not dim by the number of steps, and rows with gaps."""
    steps, dst = node.source(0), node.dst
    node.require(dst.ne == (node.i32("dim"), steps.ne[0], 1, 1), f"ne ({node.i32('dim')}, {steps.ne[0]}, 1, 1)", dst.ne)
    node.require(steps.nb[0] == 4 and dst.nb[0] == 4, "elements of a row to be neighbours", (steps.nb, dst.nb))
    node.require(steps.nelements > 0 or dst.nelements == 0, "steps", steps.ne)


@np.errstate(all="ignore")
def oracle(node: Node) -> None:
    """Round to float32 where upstream has a float, and only there."""
    dst = node.dst.array[0, 0]
    if dst.size == 0:
        return
    half = node.i32("dim") // 2
    angle = node.source(0).array[0, 0, 0][:, None] * _frequencies(node.i32("max_period"), half)
    cos, sin = np.cos(angle, dtype=np.float64), np.sin(angle, dtype=np.float64)
    dst[:, :half], dst[:, half : 2 * half], dst[:, 2 * half :] = cos, sin, 0


def _frequencies(max_period: int, half: int) -> F32Array:
    """Return the frequencies, float32 of shape (half,)."""
    fall = -np.float32(np.log(np.float64(np.float32(max_period))))
    exponent = fall * np.arange(half).astype(np.float32) / np.float32(half)
    frequencies: F32Array = np.exp(exponent, dtype=np.float64).astype(np.float32)
    return frequencies


def _case(
    name: str,
    steps: int,
    dim: int,
    max_period: int = 10000,
    *,
    fill: str = "uniform:0:1000",
    dst_nb: Quad | None = None,
    rows: int = 1,
) -> Case:
    """Return a case of so many steps."""
    dst = Operand("F32", (dim, steps), dst_nb)
    return Case(name, dst, (Operand("F32", (steps, rows), fill=fill),), {"dim": dim, "max_period": max_period})


def cases() -> Iterator[Case]:
    """Even, odd and very small dims, periods, whole and broken steps, rows apart, special values."""
    for dim in (1, 2, 3, 32, 67, 256):
        yield _case(f"dim-{dim}", 5, dim)
    for period in (1, 2, 1000000, 2**31 - 1):
        yield _case(f"period-{period}", 3, 16, period)
    for period in (0, -3):
        yield _case(f"period-{period}", 3, 16, period)
    yield _case("whole-steps", 64, 8, fill="arange")
    yield _case("negative-steps", 7, 8, fill="uniform:-1000:0")
    yield _case("special", 32, 6, fill="special")
    yield _case("one-step", 1, 320, fill="values:999")
    yield _case("only-the-first-row", 5, 8, rows=3)
    yield _case("rows-apart", 5, 7, dst_nb=(4, 48, 240, 240))


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
    cases=cases,
    tolerance=Tolerance(
        1e-5,
        1e-4,
        1e-9,
        "one float32 step in exp or the product moves an angle of 1000 by 6e-5; upstream's libm may round the other way",
    ),
)
