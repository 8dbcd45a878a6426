"""Inputs worth trying on ACC."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.cases.shared.regions import region_cases


def cases() -> Iterator[Case]:
    """The cases of every region; special values."""
    yield from region_cases("F32")
    special = Operand("F32", (16, 6), fill="special")
    params = {"nb1": 64, "nb2": 384, "nb3": 384, "offset": 16}
    yield Case("special", Operand("F32", special.ne), (special, Operand("F32", (12, 5), fill="special")), params)
