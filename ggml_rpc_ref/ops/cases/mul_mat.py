"""Inputs worth trying on MUL_MAT."""

from collections.abc import Iterator
from dataclasses import replace

from ggml_rpc_ref.ops.cases.case import Case, Operand, since
from ggml_rpc_ref.ops.cases.shared.matmul import ROUNDED, weights
from ggml_rpc_ref.ops.shared.matmul import VEC_DOT_TYPE, WEIGHTS


def product(id: str, a: Operand, b: Operand, prec: int = 0) -> Case:
    """Return a case whose destination follows from its operands."""
    (_, m, _, _), (_, n, n2, n3) = a.quad, b.quad
    return Case(id, Operand("F32", (m, n, n2, n3)), (a, b), {"prec": prec} if prec else {}, ROUNDED[VEC_DOT_TYPE[a.dtype]])


def cases() -> Iterator[Case]:
    """Every pair of types; row counts around tile sizes; broadcasting; permuted and gapped operands; empty and special values."""
    for name in WEIGHTS:
        for n in (1, 5):
            yield product(f"{name.lower()}-n{n}", weights(name, (256, 33)), Operand("F32", (256, n)))
        if VEC_DOT_TYPE[name] != "F32":
            yield product(f"{name.lower()}-partner", weights(name, (256, 33)), Operand(VEC_DOT_TYPE[name], (256, 2)))
    for k, m, n in ((1, 1, 1), (3, 5, 2), (17, 16, 33), (64, 33, 17), (130, 20, 1), (640, 7, 3)):
        for name in ("F32", "F16", "BF16"):
            yield product(f"{name.lower()}-k{k}-m{m}-n{n}", Operand(name, (k, m)), Operand("F32", (k, n)))
    yield from _broadcast_cases()
    yield from _view_cases()
    yield from _edge_cases()
    yield from since("MUL_MAT.hint", _hadamard_cases())
    yield from since("MUL_MAT.f16-activations", _narrow_cases())


def _broadcast_cases() -> Iterator[Case]:
    for name in ("F32", "F16", "Q8_0"):
        for r2, r3 in ((1, 1), (4, 1), (1, 2), (2, 3)):
            a, b = Operand(name, (32, 5, 2, 2)), Operand("F32", (32, 3, 2 * r2, 2 * r3))
            yield product(f"{name.lower()}-broadcast-{r2}-{r3}", a, b)


def _view_cases() -> Iterator[Case]:
    for name, size in (("F32", 4), ("F16", 2), ("BF16", 2)):
        row = 32 * size
        swapped = Operand(name, (32, 5, 3, 2), nb=(size, 3 * row, row, 15 * row))
        gaps = Operand(name, (32, 5, 3, 2), nb=(size, 2 * row, 11 * row, 40 * row))
        plain = Operand("F32", (32, 4, 3, 2))
        yield product(f"{name.lower()}-src0-permuted", swapped, plain)
        yield product(f"{name.lower()}-src0-gaps", gaps, plain)
        turned = Operand("F32", (32, 4, 3, 2), nb=(4, 384, 128, 1536))
        yield product(f"{name.lower()}-src1-permuted", Operand(name, (32, 5, 3, 2)), turned)
        yield product(f"{name.lower()}-rows-repeated", Operand(name, (32, 5), nb=(size, 0, 0, 0)), Operand("F32", (32, 9)))
    quantised = Operand("Q4_0", (64, 4, 3), nb=(18, 108, 36, 432))
    yield product("q4_0-src0-permuted", quantised, Operand("F32", (64, 2, 3)))
    yield product("q8_0-src1-permuted", Operand("Q8_0", (64, 4, 3)), Operand("F32", (64, 2, 3), nb=(4, 768, 256, 1536)))
    dst = Operand("F32", (5, 3, 2, 2), nb=(4, 32, 128, 512))
    yield Case("dst-gaps", dst, (Operand("F32", (32, 5, 2, 2)), Operand("F32", (32, 3, 2, 2))))


def _edge_cases() -> Iterator[Case]:
    yield product("prec-f32", Operand("F16", (64, 5)), Operand("F32", (64, 3)), prec=10)
    yield product("k0", Operand("F32", (0, 5)), Operand("F32", (0, 3)))
    yield product("m0", Operand("F32", (16, 0)), Operand("F32", (16, 3)))
    yield product("n0", Operand("F32", (16, 5)), Operand("F32", (16, 0)))
    special = "values:1,2,nan,4,5,6,7,8,1,inf,3,4,5,6,7,8,1,2,-inf,4,5,6,7,8,1,2,3,-0,1e-40,6,7,8"
    for n in (1, 3):
        yield product(f"special-src0-n{n}", Operand("F32", (8, 4), fill=special), Operand("F32", (8, n), fill="uniform:1:2"))
        yield product(f"special-src1-n{n}", Operand("F32", (8, 4), fill="uniform:1:2"), Operand("F32", (8, n), fill=special))
    yield product("zeros", Operand("Q4_0", (32, 3), fill="zeros"), Operand("F32", (32, 3), fill="zeros"))
    yield product("large", Operand("Q8_0", (64, 3), fill="normal:1e4"), Operand("F32", (64, 3), fill="normal:1e4"))
    yield product("small", Operand("Q8_0", (64, 3), fill="normal:1e-3"), Operand("F32", (64, 3), fill="normal:1e-3"))


def _hadamard_cases() -> Iterator[Case]:
    for n in (1, 2, 8, 64, 256):
        case = product(f"hadamard-{n}", Operand("F32", (n, n), fill="hadamard"), Operand("F32", (n, 3)))
        yield replace(case, params={"hint": 1})
    case = product(
        "hadamard-batches", Operand("F32", (32, 32), fill="hadamard"), Operand("F32", (32, 3, 2, 2), nb=(4, 256, 128, 768))
    )
    yield replace(case, params={"hint": 1})


def _narrow_cases() -> Iterator[Case]:
    for name in ("F16", "BF16"):
        for k, m, n in ((3, 5, 2), (64, 33, 17), (130, 20, 1)):
            yield product(f"f32-by-{name}-k{k}-m{m}-n{n}".lower(), Operand("F32", (k, m)), Operand(name, (k, n)))
        yield product(f"f32-by-{name}-broadcast".lower(), Operand("F32", (32, 5, 2, 2)), Operand(name, (32, 3, 4, 6)))
    case = product("hadamard-by-f16", Operand("F32", (64, 64), fill="hadamard"), Operand("F16", (64, 3)))
    yield replace(case, params={"hint": 1})
