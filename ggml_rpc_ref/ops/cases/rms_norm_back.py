"""Inputs worth trying on RMS_NORM_BACK."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Row lengths around vector widths, values of eps, strides, special values."""
    for n in (1, 7, 64, 129):
        yield Case(f"n{n}", Operand("F32", (n, 3)), (Operand("F32", (n, 3)), Operand("F32", (n, 3))), {"eps": 1e-5})
    x = Operand("F32", (16, 3, 2, 2))
    for name, eps in (("eps-zero", 0.0), ("eps-large", 10.0), ("eps-negative", -3.0)):
        yield Case(name, Operand("F32", x.ne), (x, x), {"eps": eps})
    permuted, gaps = Operand("F32", (16, 3, 4), (4, 256, 64, 768)), Operand("F32", (16, 3, 4), (4, 80, 320, 1280))
    yield Case("strided", Operand("F32", (16, 3, 4), (4, 72, 240, 960)), (permuted, gaps), {"eps": 1e-6})
    special = Operand("F32", (8, 32), fill="special")
    yield Case("special", Operand("F32", special.ne), (Operand("F32", (8, 32)), special), {"eps": 1e-5})
    yield Case("zeros", Operand("F32", (8, 2)), (Operand("F32", (8, 2)), Operand("F32", (8, 2), fill="zeros")), {"eps": 1e-6})
    yield Case("empty", Operand("F32", (4, 0)), (Operand("F32", (4, 0)), Operand("F32", (4, 0))), {"eps": 1e-5})
