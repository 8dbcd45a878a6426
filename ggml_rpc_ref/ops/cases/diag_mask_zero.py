"""Inputs worth trying on DIAG_MASK_ZERO."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case
from ggml_rpc_ref.ops.cases.shared.diag_mask import diag_mask_cases


def cases() -> Iterator[Case]:
    """The cases of both diagonal masks."""
    yield from diag_mask_cases()
