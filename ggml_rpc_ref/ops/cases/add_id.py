"""Inputs worth trying on ADD_ID."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Row lengths around vector widths; several tokens; a batch; strided indices; gaps; in place; special values."""
    for n in (1, 7, 32, 65):
        yield _case(f"n{n}", Operand("F32", (n, 3, 2)), Operand("F32", (n, 5)))
    x, b = Operand("F32", (9, 4, 3, 2)), Operand("F32", (9, 6))
    yield _case("batch", x, b)
    yield _case("special", Operand("F32", (16, 4), fill="special"), Operand("F32", (16, 6), fill="special"))
    yield _case("gaps", Operand("F32", x.ne, (4, 40, 200, 640)), Operand("F32", b.ne, (4, 48, 288, 288)))
    indices = Operand("I32", (4, 3), (12, 4, 48, 48), "index:6")
    yield Case("indices-transposed", Operand("F32", x.ne), (x, b, indices))
    yield Case("in-place", Operand("F32", x.ne, alias="src0"), (x, b, Operand("I32", (4, 3), fill="index:6")))
    yield Case("indices-further-matrices", Operand("F32", x.ne), (x, b, Operand("I32", (4, 3, 2, 3), fill="index:6")))
    yield _case("empty", Operand("F32", (0, 3)), Operand("F32", (0, 2)))


def _case(name: str, x: Operand, b: Operand) -> Case:
    return Case(name, Operand("F32", x.ne, x.nb), (x, b, Operand("I32", x.quad[1:3], fill=f"index:{b.ne[1]}")))
