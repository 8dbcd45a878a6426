"""Inputs worth trying on TIMESTEP_EMBEDDING."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since, until
from ggml_rpc_ref.tensor import Quad


def _case(
    name: str,
    steps: int,
    dim: int,
    max_period: int = 10000,
    *,
    fill: str = "uniform:0:1000",
    dst_nb: Quad | None = None,
    rows: int = 1,
    spare: int = 0,
) -> Case:
    """Return a case of so many steps; spare: elements of a result's row beyond dim."""
    dst = Operand("F32", (dim + spare, steps), dst_nb)
    return Case(name, dst, (Operand("F32", (steps, rows), fill=fill),), {"dim": dim, "max_period": max_period})


def cases() -> Iterator[Case]:
    """Even, odd and very small dims, periods, whole and broken steps, rows apart, special values."""
    for dim in (1, 2, 3, 32, 67, 256):
        case = _case(f"dim-{dim}", 5, dim)
        yield from since("TIMESTEP_EMBEDDING.odd", [case]) if dim % 2 else [case]
    for dim in (1, 3, 67):
        yield from until("TIMESTEP_EMBEDDING.odd", [_case(f"dim-{dim}-and-one", 5, dim, spare=1)])
    for period in (1, 2, 1000000, 2**31 - 1):
        yield _case(f"period-{period}", 3, 16, period)
    for period in (0, -3):
        yield _case(f"period-{period}", 3, 16, period)
    yield _case("whole-steps", 64, 8, fill="arange")
    yield _case("negative-steps", 7, 8, fill="uniform:-1000:0")
    yield _case("special", 32, 6, fill="special")
    yield _case("one-step", 1, 320, fill="values:999")
    yield _case("only-the-first-row", 5, 8, rows=3)
    yield from since("TIMESTEP_EMBEDDING.odd", [_case("rows-apart", 5, 7, dst_nb=(4, 48, 240, 240))])
