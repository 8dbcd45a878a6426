"""Inputs worth trying on NORM."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since
from ggml_rpc_ref.ops.cases.shared.norms import norm_cases, strided_norm_cases


def cases() -> Iterator[Case]:
    """The cases of every norm over rows."""
    yield from norm_cases()
    # its square overflows a float32, the mean of squares would not
    large = Operand("F32", (9, 2), fill="values:1,-2,0.5,1,3,-1,2,0,2.5e19")
    yield Case("square-overflows", Operand("F32", large.ne), (large,), {"eps": 1e-5})
    yield from since("NORM.strides", strided_norm_cases())
