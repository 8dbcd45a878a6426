"""Inputs worth trying on MEAN."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case
from ggml_rpc_ref.ops.cases.shared.row_sums import row_sum_cases


def cases() -> Iterator[Case]:
    """The cases of every sum over rows."""
    yield from row_sum_cases()
