"""Inputs worth trying on POOL_2D."""

from collections.abc import Iterator
from dataclasses import replace

from ggml_rpc_ref.ops.cases.case import Case, Operand, since, until
from ggml_rpc_ref.ops.shared.pooling import MAX, MEAN
from ggml_rpc_ref.tensor import Quad


def _case(
    name: str,
    kind: int,
    x: Quad,
    k: tuple[int, int],
    s: tuple[int, int] = (1, 1),
    p: tuple[int, int] = (0, 0),
    outputs: tuple[int, int] | None = None,
    *,
    dtype: str = "F32",
    nb: Quad | None = None,
    fill: str = "normal",
) -> Case:
    """Return a case; outputs are (OW, OH), by default as many as fit."""
    out_w, out_h = outputs or ((x[a] + 2 * p[a] - k[a]) // s[a] + 1 for a in (0, 1))
    values = {"op": kind, "k0": k[0], "k1": k[1], "s0": s[0], "s1": s[1], "p0": p[0], "p1": p[1]}
    return Case(name, Operand("F32", (out_w, out_h, x[2], x[3])), (Operand(dtype, x, nb, fill),), dict(values))


def cases() -> Iterator[Case]:
    """What came later, and what is no longer so, with NaN."""
    for case in _cases():
        if case.id not in ("max-special", "max-infinities"):
            yield case
            continue
        yield from since("POOL_2D.nan", [case])
        yield from until("POOL_2D.nan", [replace(case, id=f"{case.id}-nan-left-out")])


def _cases() -> Iterator[Case]:
    """Both kinds, types, windows, strides, paddings, planes apart, special values, windows of padding alone."""
    for kind, word in ((MAX, "max"), (MEAN, "mean")):
        yield _case(f"{word}-plain", kind, (10, 11, 3, 2), (2, 3))
        yield _case(f"{word}-strided", kind, (10, 11, 3, 1), (2, 3), (2, 3))
        yield _case(f"{word}-padded", kind, (7, 9, 2, 2), (3, 3), (1, 2), (1, 1))
        yield _case(f"{word}-stride-beyond-the-window", kind, (13, 11, 2, 1), (2, 1), (5, 4))
        yield _case(f"{word}-f16", kind, (10, 11, 3, 2), (3, 2), (2, 1), (1, 0), dtype="F16")
        yield _case(f"{word}-whole-plane", kind, (17, 13, 2, 1), (17, 13))
        yield _case(f"{word}-one-by-one", kind, (5, 4, 2, 1), (1, 1))
        yield _case(f"{word}-padding-alone", kind, (2, 2, 1, 1), (1, 1), (1, 1), (2, 3))
        yield _case(f"{word}-half-a-padding-more", kind, (6, 6, 1, 1), (2, 2), (1, 1), (0, 0), (6, 6))
        yield _case(f"{word}-crop", kind, (9, 8, 1, 1), (2, 2), (1, 1), (-2, -1))
        yield _case(f"{word}-special", kind, (16, 15, 2, 1), (2, 2), (1, 1), (1, 1), fill="special")
        yield _case(f"{word}-infinities", kind, (4, 4, 1, 1), (2, 2), (2, 2), fill="values:-inf,-inf,nan,-inf,-inf,-inf,-inf,nan")
        yield _case(f"{word}-planes-apart", kind, (5, 4, 2, 2), (2, 2), nb=(4, 32, 160, 320))
        yield _case(f"{word}-f16-rows-apart", kind, (5, 4, 2, 2), (2, 2), dtype="F16", nb=(2, 12, 50, 100))
