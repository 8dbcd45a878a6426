"""What the cases of NORM and L2_NORM share."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def norm_cases() -> Iterator[Case]:
    """Yield row lengths around vector widths, values of eps, a mean far from 0, equal elements, strides, special values."""
    for n in (1, 2, 7, 16, 64, 129):
        yield Case(f"n{n}", Operand("F32", (n, 3)), (Operand("F32", (n, 3)),), {"eps": 1e-5})
    x = Operand("F32", (40, 3, 2, 2))
    for name, eps in (("eps-zero", 0.0), ("eps-large", 10.0), ("eps-infinite", float("inf"))):
        yield Case(name, Operand("F32", (40, 3)), (Operand("F32", (40, 3)),), {"eps": eps})
    yield Case("far-from-zero", Operand("F32", (40, 3)), (Operand("F32", (40, 3), fill="uniform:100:101"),), {"eps": 1e-6})
    yield Case("equal-elements", Operand("F32", (16, 2)), (Operand("F32", (16, 2), fill="values:3"),), {"eps": 1e-6})
    yield Case("zeros", Operand("F32", (16, 2)), (Operand("F32", (16, 2), fill="zeros"),), {"eps": 0.0})
    yield Case("in-place", Operand("F32", x.ne, alias="src0"), (x,), {"eps": 1e-6})
    yield Case("permuted", Operand("F32", (16, 3, 4)), (Operand("F32", (16, 3, 4), (4, 256, 64, 768)),), {"eps": 1e-6})
    yield Case(
        "gaps", Operand("F32", (16, 3, 4), (4, 80, 320, 1280)), (Operand("F32", (16, 3, 4), (4, 72, 240, 960)),), {"eps": 1e-6}
    )
    yield Case("special", Operand("F32", (8, 32)), (Operand("F32", (8, 32), fill="special"),), {"eps": 1e-5})
    yield Case("empty", Operand("F32", (4, 0)), (Operand("F32", (4, 0)),), {"eps": 1e-5})


def strided_norm_cases() -> Iterator[Case]:
    """Yield rows whose elements lie apart, on either side and on both."""
    ne, apart, turned = (16, 3, 4), (8, 136, 408, 1632), (48, 4, 12, 768)
    for name, source, result in (("src", apart, None), ("dst", None, turned), ("both", turned, apart)):
        yield Case(f"elements-apart-{name}", Operand("F32", ne, result), (Operand("F32", ne, source),), {"eps": 1e-6})
    yield Case(
        "elements-apart-special",
        Operand("F32", (8, 32)),
        (Operand("F32", (8, 32), (128, 4, 1024, 1024), "special"),),
        {"eps": 1e-5},
    )
