"""Inputs worth trying on each op, one file per op and of its name.

Tests, the recorder of vectors and the text of SPEC.md read them. A server does not: `ggml_rpc_ref.ops` never imports this package.
"""

from functools import cache
from importlib import import_module

from ggml_rpc_ref.ops.cases.case import Case
from ggml_rpc_ref.spec.opcodes import CUSTOM_OPS


@cache
def cases_of(op: str) -> tuple[Case, ...]:
    """Return the cases of an op, always the same ones in the same order; none for the custom ops, which nothing computes.

    Args:
        op: ggml's name without the prefix GGML_OP_.

    Raises:
        ModuleNotFoundError: where no op has that name.
    """
    return () if op in CUSTOM_OPS else tuple(import_module(f"{__name__}.{op.lower()}").cases())
