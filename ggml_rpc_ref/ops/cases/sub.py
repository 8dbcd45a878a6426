"""Inputs worth trying on SUB."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case
from ggml_rpc_ref.ops.cases.shared.arithmetic import arithmetic_cases


def cases() -> Iterator[Case]:
    """The cases of every arithmetic op."""
    yield from arithmetic_cases("SUB")
