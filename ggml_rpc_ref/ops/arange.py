"""ARANGE: evenly spaced numbers.

    dst[i] = start + step * i     for i from 0 to ceil((stop - start) / step) - 1

No sources. dst: F32, contiguous, exactly that many elements (the quotient in float32). A client makes stop > start; steps down
work as well. Parameters that are NaN, or a step of 0, name no number of elements and are refused.

Source: ggml_arange in ggml.c, ggml_compute_forward_arange_f32 in ggml-cpu/ops.cpp.
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.op import FLOAT32, Case, Node, Op, Operand, Param


def shape(node: Node) -> None:
    """Refuse a result with gaps, or of another number of elements."""
    start, stop, step = (np.float32(node.f32(name)) for name in ("start", "stop", "step"))
    with np.errstate(all="ignore"):
        steps = float(np.ceil((stop - start) / step))
    node.require(steps == node.dst.nelements, f"{steps} elements", node.dst.nelements)
    node.require(node.dst.is_contiguous and node.dst.nb[0] == 4, "a contiguous result", node.dst.nb)


def oracle(node: Node) -> None:
    """Compute the formula in float64 of the float32 parameters."""
    count = np.arange(node.dst.nelements).reshape(node.dst.shape)
    with np.errstate(all="ignore"):
        node.dst.store(node.f32("start") + node.f32("step") * count)


def cases() -> Iterator[Case]:
    """Steps up, down, fractional, tiny; a stop on and off the grid; several dimensions."""
    ranges = {
        "ten": (0.0, 10.0, 1.0, 10), "fraction": (0.0, 1.0, 0.125, 8), "off-grid": (1.0, 7.5, 2.0, 4),
        "negative-start": (-3.0, 3.0, 0.5, 12),
        "down": (5.0, 0.0, -0.5, 10), "large": (1e6, 1e6 + 64, 1.0, 64), "tenths": (0.0, 5.0, 0.1, 50), "one": (2.0, 2.5, 1.0, 1),
    }  # fmt: skip
    for name, (start, stop, step, n) in ranges.items():
        yield Case(name, Operand("F32", (n,)), (), {"start": start, "stop": stop, "step": step})
    yield Case("matrix", Operand("F32", (4, 3)), (), {"start": 0.0, "stop": 12.0, "step": 1.0})


OP = Op(
    name="ARANGE",
    sources=(),
    types=("F32",),
    params=(Param("start", "f32", 0, "the first"), Param("stop", "f32", 1, "beyond the last"), Param("step", "f32", 2, "distance")),
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=FLOAT32,
)
