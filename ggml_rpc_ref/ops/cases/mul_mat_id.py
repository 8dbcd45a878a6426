"""Inputs worth trying on MUL_MAT_ID."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.cases.shared.matmul import ROUNDED, weights
from ggml_rpc_ref.ops.shared.matmul import VEC_DOT_TYPE, WEIGHTS


def cases() -> Iterator[Case]:
    """Every type; one row for all choices and one for each; experts unused and all the same; views; empty dimensions."""
    for name in WEIGHTS:
        x = weights(name, (256, 17, 3))
        yield mixture(name.lower(), x, Operand("F32", (256, 1, 4)), 2)
        if VEC_DOT_TYPE[name] != "F32":
            yield mixture(f"{name.lower()}-partner", x, Operand(VEC_DOT_TYPE[name], (256, 2, 2)), 2)
    for name in ("F32", "F16", "Q8_0"):
        x = Operand(name, (32, 5, 4))
        for n, used, tokens in ((1, 1, 1), (1, 4, 3), (2, 4, 5), (4, 4, 1), (3, 3, 33)):
            yield mixture(f"{name.lower()}-n{n}-used{used}-tokens{tokens}", x, Operand("F32", (32, n, tokens)), used)
    yield from _view_cases()


def _view_cases() -> Iterator[Case]:
    x, y = Operand("F32", (32, 5, 4)), Operand("F32", (32, 2, 3))
    yield mixture("all-the-same", x, y, 4, "values:3")
    yield mixture("experts-gaps", Operand("F32", (32, 5, 4), nb=(4, 160, 1024, 4096)), y, 2)
    yield mixture("experts-permuted", Operand("F16", (32, 5, 4), nb=(2, 256, 64, 1280)), y, 2)
    yield mixture("rows-permuted", x, Operand("F32", (32, 2, 3), nb=(4, 384, 128, 768)), 4)
    ids = Operand("I32", (2, 3), nb=(12, 4, 24, 24), fill="index:4")
    yield Case("ids-permuted", Operand("F32", (5, 2, 3)), (x, y, ids))
    top = Operand("I32", (2, 3), nb=(4, 32, 96, 96), fill="index:4")
    yield Case("ids-gaps", Operand("F32", (5, 2, 3)), (x, y, top))
    yield Case("dst-gaps", Operand("F32", (5, 2, 3), nb=(4, 32, 96, 320)), (x, y, Operand("I32", (2, 3), fill="index:4")))
    yield mixture("no-tokens", x, Operand("F32", (32, 2, 0)), 2)


def mixture(id: str, experts: Operand, rows: Operand, used: int, choice: str = "") -> Case:
    """Return a case whose destination and choices follow from its operands."""
    (_, m, count, _), tokens = experts.quad, rows.quad[2]
    ids = Operand("I32", (used, tokens), fill=choice or f"index:{count}")
    return Case(id, Operand("F32", (m, used, tokens)), (experts, rows, ids), tolerance=ROUNDED[VEC_DOT_TYPE[experts.dtype]])
