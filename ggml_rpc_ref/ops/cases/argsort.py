"""Inputs worth trying on ARGSORT."""

from collections.abc import Iterator
from dataclasses import replace

from ggml_rpc_ref.ops.argsort import FALLING, RISING
from ggml_rpc_ref.ops.cases.case import Case, Operand, since, until


def cases() -> Iterator[Case]:
    """Both orders: lengths around vector widths, ties in short rows, infinities, evenly spaced rows, nothing."""
    for name, order in (("rising", RISING), ("falling", FALLING)):
        for n in (1, 2, 7, 16, 33, 1025):
            yield sorting(f"{name}-n{n}", Operand("F32", (n, 3, 2), fill="permutation"), order)
        yield sorting(f"{name}-normal", Operand("F32", (100, 5)), order)
        for what, row, values in (("ties", (8, 3), "1,3,1,2,3,3,0"), ("zeros", (5, 2), "0,-0,1,-0,0,-1")):
            case = sorting(f"{name}-{what}", Operand("F32", row, fill=f"values:{values}"), order)
            yield from since("ARGSORT.ties", [case])
            yield from until("ARGSORT.ties", [replace(case, id=f"{case.id}-exchanged")])
        yield sorting(f"{name}-infinities", Operand("F32", (5, 2), fill="values:1,inf,-inf,3e38,-2"), order)
        yield sorting(f"{name}-gaps", Operand("F32", (5, 4, 2), nb=(4, 32, 128, 256)), order)
        yield sorting(f"{name}-empty", Operand("F32", (0, 3)), order)


def sorting(id: str, x: Operand, order: int) -> Case:
    """Return a case whose destination follows from x."""
    return Case(id, Operand("I32", x.ne), (x,), {"order": order})
