"""What the cases of ADD, SUB, MUL and DIV share."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since
from ggml_rpc_ref.ops.shared.arithmetic import TYPES


def arithmetic_cases(op: str) -> Iterator[Case]:
    """Row lengths around vector widths, broadcasting on every dimension, types, strides, in place, special values."""
    for n in (1, 7, 32, 65):
        yield _case(f"n{n}", (n, 3))
    ne = (6, 4, 3, 2)
    for name, small in {
        "scalar": (1,), "row": (6,), "column": (1, 4), "dim0": (1, 4, 3, 2), "dim1": (6, 1, 3, 2), "dim2": (6, 4, 1, 2),
        "dim3": (6, 4, 3),
        "dims12": (6, 1, 1, 2), "repeat-dim0": (2, 4, 3, 2), "repeat-dim1": (6, 2, 3, 2), "repeat-all": (3, 2, 1, 1),
    }.items():  # fmt: skip
        yield _case(f"broadcast-{name}", ne, small)
    for types in TYPES[1:]:
        yield _case("-".join(types).lower(), (19, 4, 2), (19, 1, 2), types)
    yield _case("special", (16, 12), fill="special")
    if op == "DIV":
        yield _case("by-zero", (9, 2), fill="values:0,-0.0,1,-1,inf,nan")
    for case in _strided_cases():
        yield from since(f"{op}.gaps", [case]) if case.id == "src1-transposed-broadcast" else [case]


def _case(
    name: str, ne: tuple[int, ...], small: tuple[int, ...] = (), types: tuple[str, str, str] = TYPES[0], fill: str = "normal"
) -> Case:
    src = (Operand(types[0], ne, fill=fill), Operand(types[1], small or ne, fill=fill))
    return Case(name, Operand(types[2], ne), src)


def _strided_cases() -> Iterator[Case]:
    x = Operand("F32", (6, 4, 3, 2))
    transposed = Operand("F32", (6, 4, 3, 2), nb=(16, 4, 96, 288))
    permuted = Operand("F32", (6, 4, 3, 2), nb=(4, 72, 24, 288))
    gaps = Operand("F32", (6, 4, 3, 2), nb=(4, 32, 160, 512))
    yield Case("src1-transposed", Operand("F32", x.ne), (x, transposed))
    yield Case("src1-transposed-broadcast", Operand("F32", x.ne), (x, Operand("F32", (3, 4), nb=(16, 4, 48, 48))))
    yield Case("src0-permuted", Operand("F32", x.ne), (permuted, x))
    yield Case("gaps-everywhere", Operand("F32", x.ne, gaps.nb), (gaps, gaps))
    yield Case("dst-permuted", Operand("F32", x.ne, permuted.nb), (x, x))
    yield Case("in-place-src0", Operand("F32", x.ne, alias="src0"), (x, x))
    yield Case("in-place-src1", Operand("F32", x.ne, alias="src1"), (x, x))
    yield Case("in-place-row", Operand("F32", x.ne, alias="src0"), (x, Operand("F32", (6,))))
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 3)), Operand("F32", (0, 3))))
