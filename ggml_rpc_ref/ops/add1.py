"""ADD1: a number added to every element.

    dst[i] = src0[i] + src1[0]     in float32, rounded or quantised once to dst's type

src0: F32, F16, BF16 or a block type that the CPU backend can write, rows dense. src1: one element; F32, or src0's type where that
is F16 or BF16. dst: src0's type and ne, rows dense; may be src0's memory. With a block type dst has nb that do not decrease and
ne[3] = 1 (beyond, upstream steps by nb[0] instead of nb[3]). IEEE rules. Empty: nothing is computed.

Source: ggml_add1 in ggml.c, ggml_compute_forward_add1 in ggml-cpu/ops.cpp.
"""

from collections.abc import Iterator

from ggml_rpc_ref.ops.op import EXACT, FLOATS, READABLE_BLOCKS, WRITABLE_BLOCKS, Case, Node, Op, Operand, Source
from ggml_rpc_ref.ops.shared.elementwise import map_values, require_dense_rows

BLOCK_TYPES = tuple(name for name in WRITABLE_BLOCKS if name in READABLE_BLOCKS)


def shape(node: Node) -> None:
    """Refuse more than one number, other types or dimensions than src0's, gaps within rows; a fourth dimension of blocks."""
    src0, src1, dst = node.source(0), node.source(1), node.dst
    node.require(src1.ne == (1, 1, 1, 1), "src1 of one element", src1.ne)
    allowed = ("F32", src0.dtype.name) if src0.dtype.name in FLOATS else ("F32",)
    node.require(src1.dtype.name in allowed, f"src1 of type {' or '.join(allowed)}", src1.dtype.name)
    node.require((dst.dtype, dst.ne) == (src0.dtype, src0.ne), "type and ne of src0", (dst.dtype.name, dst.ne))
    require_dense_rows(node, src0, dst)
    if src0.dtype.is_quantised:
        node.require(sorted(dst.nb) == list(dst.nb), "nb that does not decrease", dst.nb)
        node.require(dst.ne[3] == 1, "ne[3] == 1 with a block type", dst.ne[3])


def oracle(node: Node) -> None:
    """Compute the formula."""
    number = node.source(1).values()[0, 0, 0, 0]
    map_values(node, lambda x: x + number)


def cases() -> Iterator[Case]:
    """Row lengths around vector widths, every type, in place, gaps, special values."""
    number = Operand("F32", (1,), fill="values:0.75")
    for n in (1, 7, 32, 65):
        yield Case(f"n{n}", Operand("F32", (n, 3)), (Operand("F32", (n, 3)), number))
    for dtype in ("F16", "BF16"):
        for other in ("F32", dtype):
            src = (Operand(dtype, (33, 2)), Operand(other, (1,), fill="values:0.3"))
            yield Case(f"{dtype}-{other}".lower(), Operand(dtype, (33, 2)), src)
    for dtype in BLOCK_TYPES:
        yield Case(dtype.lower(), Operand(dtype, (256, 2)), (Operand(dtype, (256, 2)), number))
    odd = Operand("F32", (16, 6), fill="special")
    for name, value in {"special": "0.5", "special-inf": "inf", "special-nan": "nan"}.items():
        yield Case(name, Operand("F32", odd.ne), (odd, Operand("F32", (1,), fill=f"values:{value}")))
    x = Operand("F32", (9, 4, 3, 2))
    yield Case("in-place", Operand("F32", x.ne, alias="src0"), (x, number))
    yield Case("gaps", Operand("F32", x.ne, (4, 40, 200, 640)), (Operand("F32", x.ne, (4, 48, 192, 576)), number))
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 3)), number))


OP = Op(
    name="ADD1",
    sources=(Source("a", FLOATS + BLOCK_TYPES, "rows dense"), Source("b", FLOATS, "one element")),
    types=FLOATS + BLOCK_TYPES,
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=EXACT,
    in_place=True,
)
