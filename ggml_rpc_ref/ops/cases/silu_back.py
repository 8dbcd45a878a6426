"""Inputs worth trying on SILU_BACK."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Both types, row lengths around vector widths, gaps, special values."""
    for dtype in ("F32", "F16"):
        for n in (1, 7, 65):
            src = (Operand(dtype, (n, 3)), Operand(dtype, (n, 3), fill="normal:4"))
            yield Case(f"n{n}-{dtype}".lower(), Operand(dtype, (n, 3)), src)
    x = Operand("F32", (9, 4, 3, 2))
    gaps = (Operand("F32", x.ne, (4, 48, 192, 576)), Operand("F32", x.ne, (4, 40, 160, 480)))
    yield Case("gaps", Operand("F32", x.ne, (4, 44, 176, 528)), gaps)
    special = Operand("F32", (16, 8), fill="special")
    yield Case("special", Operand("F32", special.ne), (Operand("F32", special.ne), special))
    for dtype in ("F32", "F16"):
        grads, far = (Operand(dtype, (35, 3), fill=f"values:{v}") for v in ("inf,-inf,1,3.4e38,-3", "-88.75,-100,-300,17,90,3,-5"))
        yield Case(f"far-{dtype}".lower(), Operand(dtype, far.ne), (grads, far))
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 3)), Operand("F32", (0, 3))))
