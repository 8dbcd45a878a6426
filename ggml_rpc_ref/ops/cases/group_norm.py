"""Inputs worth trying on GROUP_NORM."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Even and uneven groups, one, as many as channels and more; batches; gaps; in place; special values."""
    x = Operand("F32", (7, 3, 6, 2))
    for groups in (1, 2, 4, 6, 9):
        yield Case(f"groups{groups}", Operand("F32", x.ne), (x,), {"n_groups": groups, "eps": 1e-6})
    yield Case("eps-zero", Operand("F32", x.ne), (x,), {"n_groups": 3, "eps": 0.0})
    yield Case("eps-large", Operand("F32", x.ne), (x,), {"n_groups": 3, "eps": 2.0})
    yield Case("eps-negative", Operand("F32", x.ne), (x,), {"n_groups": 3, "eps": -5.0})
    yield Case("in-place", Operand("F32", x.ne, alias="src0"), (x,), {"n_groups": 2, "eps": 1e-6})
    gaps = Operand("F32", x.ne, (4, 32, 96, 640))
    yield Case("gaps", Operand("F32", x.ne, (4, 40, 128, 768)), (gaps,), {"n_groups": 2, "eps": 1e-6})
    special = Operand("F32", (4, 2, 16), fill="special")
    yield Case("special", Operand("F32", special.ne), (special,), {"n_groups": 8, "eps": 1e-6})
    yield Case(
        "far-from-zero",
        Operand("F32", (9, 5, 4)),
        (Operand("F32", (9, 5, 4), fill="uniform:100:101"),),
        {"n_groups": 2, "eps": 1e-6},
    )
    yield Case("empty", Operand("F32", (4, 3, 0)), (Operand("F32", (4, 3, 0)),), {"n_groups": 2, "eps": 1e-6})
