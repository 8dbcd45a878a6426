"""Inputs worth trying on SET."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.cases.shared.regions import region_cases


def cases() -> Iterator[Case]:
    """The cases of every region, of both types; special values."""
    for dtype in ("F32", "I32"):
        for case in region_cases(dtype):
            yield Case(f"{case.id}-{dtype}".lower(), case.dst, case.src, case.params)
    special = Operand("F32", (16, 6), fill="special")
    params = {"nb1": 64, "nb2": 384, "nb3": 384, "offset": 16}
    for dtype, other in (("F32", "I32"), ("I32", "F32")):
        src = (Operand(dtype, (7, 5)), Operand(other, (7, 2)))
        yield Case(f"{other}-into-{dtype}".lower(), Operand(dtype, (7, 5)), src, {"nb1": 28, "nb2": 140, "nb3": 140, "offset": 28})
    yield Case("special", Operand("F32", special.ne), (special, Operand("F32", (12, 5), fill="special")), params)
