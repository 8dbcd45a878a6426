"""Inputs worth trying on SET_ROWS."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since
from ggml_rpc_ref.ops.op import FLOATS, WRITABLE_BLOCKS


def cases() -> Iterator[Case]:
    """Every type; both widths of index; batches; broadcast and strided indices; repeated indices; gaps between rows; nothing."""
    for dtype in (*FLOATS, *WRITABLE_BLOCKS):
        yield _case(dtype.lower(), (256, 3), 5, dtype)
    yield from since("SET_ROWS.i32", [_case("i32", (7, 4), 9, "F32", index="I32")])
    yield from since("SET_ROWS.i32", _to_i32())
    yield _case("batches", (6, 4, 3, 2), 9, "F16", (4, 3, 2))
    yield _case("indices-broadcast", (6, 4, 4, 6), 9, "F32", (4, 2, 3))
    yield _case("indices-for-all", (6, 4, 3, 2), 9, "F16", (4,))
    yield _case("special", (32, 4), 5, "F16", fill="special")
    yield _case("special-q8_0", (32, 4), 5, "Q8_0", fill="values:0,-0.0,1e-40,1e-20,127,-128,1e4,3e4")
    strided = Operand("I64", (4, 3, 2), nb=(48, 16, 256, 512), fill="permutation")
    target = Operand("F32", (5, 9, 3, 2), nb=(4, 24, 256, 1024))
    source = Operand("F32", (5, 4, 3, 2), nb=(4, 32, 160, 512))
    yield Case("gaps", Operand("F32", target.ne, target.nb, alias="src2"), (source, strided, target))
    permuted = Operand("F32", (5, 4, 3), nb=(4, 60, 20, 240))
    index = Operand("I64", (4, 3), fill="permutation")
    yield Case("permuted-source", Operand("F16", (5, 9, 3), alias="src2"), (permuted, index, Operand("F16", (5, 9, 3))))
    twice = (Operand("F32", (6, 4)), Operand("I64", (4,), fill="values:2,0,2,1"), Operand("F32", (6, 3)))
    yield Case("an-index-twice", Operand("F32", (6, 3), alias="src2"), twice)
    yield Case("without-src2", Operand("F32", (6, 3)), twice[:2])
    none = (Operand("F32", (6, 0)), Operand("I64", (0,), fill="index:1"), Operand("F32", (6, 3)))
    yield Case("no-rows", Operand("F32", (6, 3), alias="src2"), none)
    yield from since("SET_ROWS.f16", _later())


def _case(
    name: str, ne: tuple[int, ...], rows: int, dtype: str, index_ne: tuple[int, ...] = (), fill: str = "normal", index: str = "I64"
) -> Case:  # fmt: skip
    target = Operand(dtype, (ne[0], rows, *ne[2:]))
    indices = Operand(index, index_ne or ne[1:2], fill="permutation")
    return Case(name, Operand(dtype, target.ne, alias="src2"), (Operand("F32", ne, fill=fill), indices, target))


def _to_i32() -> Iterator[Case]:
    yield _case("to-i32", (7, 4), 9, "I32", fill="normal:100")
    yield _case(
        "to-i32-special", (7, 4), 9, "I32", fill="values:nan,inf,-inf,3e9,-3e9,2147483648,0.99,-0.99,2147483520,-2147483648"
    )


def _later() -> Iterator[Case]:
    def case(name: str, dtype: str, ne: tuple[int, ...], fill: str = "normal", index: str = "I64") -> Case:
        target = Operand(dtype, (ne[0], 9, *ne[2:]))
        src = (Operand("F16", ne, fill=fill), Operand(index, ne[1:2], fill="permutation"), target)
        return Case(name, Operand(dtype, target.ne, alias="src2"), src)

    yield case("f16-rows", "F16", (7, 4, 3, 2))
    yield case("f16-rows-special", "F16", (32, 4), "special")
    yield case("f16-rows-i32", "F16", (7, 4), index="I32")
    for dtype in ("F32", "BF16", "Q8_0", "Q4_K"):
        yield case(f"f16-rows-to-{dtype}".lower(), dtype, (256, 4))
