"""Inputs worth trying on each op, one file per op and of its name.

Tests, the recorder of vectors and the text of SPEC.md read them. A server does not: `ggml_rpc_ref.ops` never imports this package.
"""

from dataclasses import replace
from functools import cache
from importlib import import_module

from ggml_rpc_ref.ops.cases.case import Case
from ggml_rpc_ref.spec import op_changes
from ggml_rpc_ref.spec.dtypes import BY_NAME, types
from ggml_rpc_ref.spec.opcodes import CUSTOM_OPS, kinds, op_table
from ggml_rpc_ref.spec.versions import DEFAULT, NEWEST, Version


@cache
def cases_of(op: str, version: Version = DEFAULT) -> tuple[Case, ...]:
    """Return the cases of an op that have a meaning in a version, always the same ones in the same order; none for custom ops.

    Args:
        op: ggml's name without the prefix GGML_OP_.
        version: a protocol version.

    Raises:
        ModuleNotFoundError: where no op has that name.
    """
    if op in CUSTOM_OPS:
        return ()
    found = import_module(f"{__name__}.{op.lower()}").cases()
    return tuple(_numbered(op, case, version) for case in found if _has_meaning(op, case, version))


def _kind(op: str, case: Case) -> str:
    """Return the name of the kind of UNARY or GLU that a case is about; its number is that of the newest version."""
    return kinds(op, NEWEST)[int(str(case.params["kind"]))]


def _numbered(op: str, case: Case, version: Version) -> Case:
    """Return a case with its kind's number in a version."""
    if not kinds(op, version):
        return case
    return replace(case, params={**case.params, "kind": kinds(op, version).index(_kind(op, case))})


def _has_meaning(op: str, case: Case, version: Version) -> bool:
    table, known = op_table(version), types(version)
    operands = [operand for operand in (case.dst, *case.src) if operand is not None]
    return (
        op in table
        and all(BY_NAME[operand.dtype].number in known for operand in operands)
        and (not kinds(op, NEWEST) or _kind(op, case) in kinds(op, version))
        and (not case.since or op_changes.has(version, case.since))
        and (not case.until or version < op_changes.OP_CHANGES[case.until].since)
    )
