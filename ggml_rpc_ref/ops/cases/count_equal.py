"""Inputs worth trying on COUNT_EQUAL."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Sizes around vector widths, all and none equal, views, nothing."""
    few = "index:3"
    for n in (1, 7, 33, 1025):
        yield pair(f"n{n}", Operand("I32", (n, 3), fill=few), Operand("I32", (n, 3), fill=few))
    yield pair("all", Operand("I32", (33, 3), fill="arange"), Operand("I32", (33, 3), fill="arange"))
    yield pair("none", Operand("I32", (33, 3), fill="zeros"), Operand("I32", (33, 3), fill="values:1"))
    yield pair(
        "negative",
        Operand("I32", (5,), fill="values:-1,2,-3,4,-2147483648"),
        Operand("I32", (5,), fill="values:-1,2,3,4,-2147483648"),
    )
    yield pair("transposed", Operand("I32", (5, 4), nb=(16, 4, 80, 80), fill=few), Operand("I32", (5, 4), fill=few))
    yield pair(
        "gaps", Operand("I32", (5, 4), nb=(8, 64, 256, 256), fill=few), Operand("I32", (5, 4), nb=(4, 32, 128, 128), fill=few)
    )
    yield pair("empty", Operand("I32", (0, 3), fill=few), Operand("I32", (0, 3), fill=few))


def pair(id: str, a: Operand, b: Operand) -> Case:
    """Return a case."""
    return Case(id, Operand("I64", (1,)), (a, b))
