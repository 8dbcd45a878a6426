"""Inputs worth trying on ARANGE."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


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
