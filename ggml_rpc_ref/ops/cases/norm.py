"""Inputs worth trying on NORM."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, since
from ggml_rpc_ref.ops.cases.shared.norms import norm_cases, strided_norm_cases


def cases() -> Iterator[Case]:
    """The cases of every norm over rows."""
    yield from norm_cases()
    yield from since("NORM.strides", strided_norm_cases())
