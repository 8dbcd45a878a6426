"""Inputs worth trying on PAD."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since, until
from ggml_rpc_ref.tensor import Quad


def _case(name: str, x: Quad, padding: tuple[int, ...], *, circular: int = 0, nb: Quad | None = None, fill: str = "normal") -> Case:
    """Return the case of a source and paddings (lp0, rp0, lp1, rp1 …)."""
    result = tuple(n + padding[2 * dim] + padding[2 * dim + 1] for dim, n in enumerate(x))
    return Case(name, Operand("F32", result), (Operand("F32", x, nb, fill),), {"padding": padding, "circular": circular})


def cases() -> Iterator[Case]:
    """Every side of every dimension, zeros and circular, cutting off, views, special values, empty sources."""
    for case in _cases():
        padding = case.params["padding"]
        assert isinstance(padding, tuple)
        assert case.src[0] is not None
        if case.params["circular"]:
            yield from since("PAD.circular", [case])
        elif case.src[0].nb is not None and case.src[0].nb[0] != 4:
            yield from since("PAD.strides", [case])
        elif any(padding[0::2]):
            yield from since("PAD.before", [case])
        else:
            yield case
    yield from until("PAD.before", _behind())


def _behind() -> Iterator[Case]:
    """Without parameters: the result's size says how many zeros follow."""
    for name, x, result, nb in (
        ("behind", (5, 4, 3, 3), (8, 6, 3, 5), None),
        ("behind-view", (5, 4, 3, 2), (7, 4, 4, 2), (4, 32, 160, 640)),
        ("behind-cut-off", (5, 4, 3, 2), (3, 9, 2, 2), None),
    ):
        yield Case(name, Operand("F32", result), (Operand("F32", x, nb, "special"),), {})


def _cases() -> Iterator[Case]:
    for circular in (0, 1):
        word = "circular" if circular else "zeros"
        for side in range(8):
            padding = tuple(3 if side == other else 0 for other in range(8))
            yield _case(f"{word}-side-{side}", (5, 4, 3, 3), padding, circular=circular)
        yield _case(f"{word}-all-sides", (5, 4, 3, 8), (1, 2, 3, 4, 2, 5, 7, 1), circular=circular)
        yield _case(f"{word}-none", (5, 4, 3, 2), (0,) * 8, circular=circular)
        yield _case(f"{word}-cut-off", (9, 8, 3, 2), (-2, 1, 1, -3, 0, -1, -1, 2), circular=circular)
        yield _case(f"{word}-view", (5, 4, 3, 2), (1, 2, 0, 3, 1, 0, 0, 1), circular=circular, nb=(4, 32, 160, 640))
        yield _case(f"{word}-permuted", (5, 4, 3, 2), (1, 2, 0, 3, 1, 0, 0, 1), circular=circular, nb=(96, 24, 8, 4))
        yield _case(f"{word}-special", (31, 4, 1, 1), (2, 2, 1, 1, 0, 0, 0, 0), circular=circular, fill="special")
        yield _case(f"{word}-far-right", (3, 2, 1, 1), (0, 11, 0, 7, 0, 0, 0, 0), circular=circular)
    yield _case("any-other-number-is-circular", (3, 2, 1, 1), (1, 2, 0, 0, 0, 0, 0, 0), circular=-5)
    yield _case("zeros-around-nothing", (0, 2, 1, 1), (1, 2, 0, 0, 0, 0, 0, 0))
    yield _case("zeros-one-element", (1, 1, 1, 1), (0,) * 8)
