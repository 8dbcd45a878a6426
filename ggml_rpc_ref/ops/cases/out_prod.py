"""Inputs worth trying on OUT_PROD."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since
from ggml_rpc_ref.ops.cases.shared.matmul import weights
from ggml_rpc_ref.ops.out_prod import TYPES


def cases() -> Iterator[Case]:
    """Every type; sizes around vector widths; broadcasting; views of both operands; empty dimensions."""
    for name in TYPES:
        yield outer(name.lower(), weights(name, (256, 5)), Operand("F32", (3, 5)))
    for m, n, k in ((1, 1, 1), (3, 5, 2), (16, 17, 33), (33, 7, 64), (130, 2, 3)):
        yield outer(f"m{m}-n{n}-k{k}", Operand("F32", (m, k)), Operand("F32", (n, k)))
    for r2, r3 in ((1, 1), (2, 1), (1, 3), (3, 2)):
        yield outer(f"broadcast-{r2}-{r3}", Operand("F32", (5, 4, 2, 2)), Operand("F32", (3, 4, 2 * r2, 2 * r3)))
    yield outer("q4_0-batches", Operand("Q4_0", (32, 4, 3, 2)), Operand("F32", (3, 4, 3, 2)))
    a, b = Operand("F32", (5, 4, 3)), Operand("F32", (7, 4, 3))
    yield outer("src0-permuted", Operand("F32", (5, 4, 3), nb=(4, 60, 20, 240)), b)
    yield outer("src1-transposed", a, Operand("F32", (7, 4, 3), nb=(16, 4, 112, 336)))
    yield outer("src1-gaps", a, Operand("F32", (7, 4, 3), nb=(8, 64, 320, 960)))
    yield outer("k0", Operand("F32", (5, 0)), Operand("F32", (7, 0)))
    yield outer("n0", Operand("F32", (5, 4)), Operand("F32", (0, 4)))
    yield outer(
        "special", Operand("F32", (4, 3), fill="values:1,nan,2,inf,3,4,5,6,7,8,-inf,-0"), Operand("F32", (2, 3), fill="uniform:1:2")
    )
    yield from since("OUT_PROD.f16", _later())


def outer(id: str, a: Operand, b: Operand) -> Case:
    """Return a case whose destination follows from its operands."""
    (m, _, _, _), (n, _, n2, n3) = a.quad, b.quad
    return Case(id, Operand("F32", (m, n, n2, n3)), (a, b))


def _later() -> Iterator[Case]:
    for m, n, k in ((1, 1, 1), (33, 7, 64), (130, 3, 2)):
        yield outer(f"f16-m{m}-n{n}-k{k}", Operand("F16", (m, k)), Operand("F32", (n, k)))
    yield outer("f16-batches", Operand("F16", (33, 4, 3, 2)), Operand("F32", (3, 4, 3, 2)))
    yield outer("f16-src1-transposed", Operand("F16", (5, 4, 3)), Operand("F32", (7, 4, 3), nb=(16, 4, 112, 336)))
