"""Inputs worth trying on L2_NORM."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case
from ggml_rpc_ref.ops.cases.shared.norms import norm_cases


def cases() -> Iterator[Case]:
    """The cases of every norm over rows."""
    yield from norm_cases()
