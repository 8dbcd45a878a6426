"""Inputs worth trying on LOG."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case
from ggml_rpc_ref.ops.cases.shared.elementwise import unary_cases


def cases() -> Iterator[Case]:
    """The cases of every op of one operand."""
    yield from unary_cases("uniform:0:50", "LOG.rows")
