"""Inputs worth trying on POOL_1D."""

from collections.abc import Iterator
from dataclasses import replace

from ggml_rpc_ref.ops.cases.case import Case, Operand, since, until
from ggml_rpc_ref.ops.shared.pooling import MAX, MEAN
from ggml_rpc_ref.tensor import Quad


def _case(
    name: str,
    kind: int,
    x: Quad,
    k: int,
    s: int = 1,
    p: int = 0,
    *,
    dtype: str = "F32",
    nbs: tuple[Quad | None, Quad | None] = (None, None),
    fill: str = "normal",
) -> Case:
    """Return a case; nbs are the strides of source and result."""
    outputs = (x[0] + 2 * p - k) // s + 1
    dst = Operand("F32", (outputs, *x[1:]), nbs[1])
    return Case(name, dst, (Operand(dtype, x, nbs[0], fill),), {"op": kind, "k0": k, "s0": s, "p0": p})


def cases() -> Iterator[Case]:
    """Windows that follow one another, which every version has, and others."""
    for case in _cases():
        if case.id == "max-infinities":
            yield from since("POOL_1D.nan", [case])
            yield from until("POOL_1D.nan", [replace(case, id="max-nan-left-out")])
            continue
        tiles = case.params["k0"] == case.params["s0"] and not case.params["p0"]
        yield from [case] if tiles else since("POOL_1D.windows", [case])


def _cases() -> Iterator[Case]:
    """Both kinds, types, windows, strides, paddings, rows apart, special values, windows of padding alone."""
    for kind, word in ((MAX, "max"), (MEAN, "mean")):
        yield _case(f"{word}-plain", kind, (10, 3, 2, 2), 2)
        yield _case(f"{word}-strided", kind, (11, 3, 2, 1), 3, 2)
        yield _case(f"{word}-padded", kind, (11, 1, 3, 2), 3, 2, 1)
        yield _case(f"{word}-stride-beyond-the-window", kind, (31, 3, 1, 1), 2, 7)
        yield _case(f"{word}-f16", kind, (128, 2, 1, 3), 3, 2, 1, dtype="F16")
        yield _case(f"{word}-whole-row", kind, (131, 2, 1, 1), 131)
        yield _case(f"{word}-padding-alone", kind, (2, 2, 1, 1), 1, 1, 3)
        yield _case(f"{word}-crop", kind, (9, 2, 1, 1), 2, 1, -2)
        yield _case(f"{word}-special", kind, (64, 4, 1, 1), 2, 1, 1, fill="special")
        yield _case(f"{word}-infinities", kind, (8, 2, 1, 1), 2, 2, fill="values:-inf,-inf,nan,-inf,-inf,nan,1,nan")
        yield _case(f"{word}-rows-apart", kind, (5, 3, 2, 2), 2, nbs=((4, 32, 96, 192), (4, 24, 72, 144)))
