"""Inputs worth trying on POOL_2D_BACK."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand
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
    fills: tuple[str, str] = ("normal", "normal"),
) -> Case:
    """Return a case; outputs are (OW, OH), by default as many as fit; fills are those of the gradient and of the forward source."""
    out_w, out_h = outputs or ((x[a] + 2 * p[a] - k[a]) // s[a] + 1 for a in (0, 1))
    values = {"op": kind, "k0": k[0], "k1": k[1], "s0": s[0], "s1": s[1], "p0": p[0], "p1": p[1]}
    sources = (Operand("F32", (out_w, out_h, x[2], x[3]), fill=fills[0]), Operand("F32", x, fill=fills[1]))
    return Case(name, Operand("F32", x), sources, dict(values))


def cases() -> Iterator[Case]:
    """Both kinds, windows that overlap and that leave gaps, paddings, ties, special values, more outputs than fit."""
    for kind, word in ((MAX, "max"), (MEAN, "mean")):
        yield _case(f"{word}-plain", kind, (10, 11, 3, 2), (2, 3))
        yield _case(f"{word}-strided", kind, (10, 11, 3, 1), (2, 3), (2, 3))
        yield _case(f"{word}-padded", kind, (7, 9, 2, 2), (3, 3), (1, 2), (1, 1))
        yield _case(f"{word}-stride-beyond-the-window", kind, (13, 11, 2, 1), (2, 1), (5, 4))
        yield _case(f"{word}-whole-plane", kind, (17, 13, 2, 1), (17, 13))
        yield _case(f"{word}-padding-alone", kind, (2, 2, 1, 1), (1, 1), (1, 1), (2, 3))
        yield _case(f"{word}-more-outputs-than-fit", kind, (5, 4, 2, 1), (2, 2), outputs=(9, 7))
        yield _case(f"{word}-ties", kind, (6, 5, 2, 1), (3, 2), fills=("normal", "values:1,2,2,0"))
        yield _case(f"{word}-special-gradient", kind, (8, 7, 2, 1), (2, 2), (2, 2), fills=("special", "normal"))
        yield _case(f"{word}-special-source", kind, (16, 15, 2, 1), (2, 2), fills=("normal", "special"))
        yield _case(f"{word}-infinities", kind, (4, 4, 1, 1), (2, 2), (2, 2), fills=("normal", "values:-inf,-inf,nan,-inf"))
