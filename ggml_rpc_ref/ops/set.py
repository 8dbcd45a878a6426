"""SET: src1 written over a region of src0.

    dst = src0; then region(dst)[i] = src1[i]

src0, src1, dst: all F32 or all I32. src0, dst: the same ne, contiguous. src1: rows dense. The region begins at byte `offset` of
dst, has src1's ne and the strides (4, nb1, nb2, nb3), lies inside dst, and no two of its elements share bytes; the four numbers are
multiples of 4, none negative. With inplace not 0, src0 is not copied first: a client then makes dst a view of it. Bits are copied,
NaN and all. src1 empty: a copy. dst empty: nothing is computed.

Source: ggml_compute_forward_set in ggml-cpu/ops.cpp.
"""

from collections.abc import Iterator

from ggml_rpc_ref.ops.op import EXACT, Case, Node, Op, Operand, Source
from ggml_rpc_ref.ops.shared.regions import PARAMS, region, region_cases, require_region

shape = require_region


def oracle(node: Node) -> None:
    """Take src1 aside, so that it does not matter which memories are the same."""
    values = node.source(1).array.copy()
    if not node.i32("inplace"):
        node.dst.array[...] = node.source(0).array
    region(node.dst, node).array[...] = values


def cases() -> Iterator[Case]:
    """The cases of every region, of both types; special values."""
    for dtype in ("F32", "I32"):
        for case in region_cases(dtype):
            yield Case(f"{case.id}-{dtype}".lower(), case.dst, case.src, case.params)
    odd = Operand("F32", (16, 6), fill="special")
    params = {"nb1": 64, "nb2": 384, "nb3": 384, "offset": 16}
    yield Case("special", Operand("F32", odd.ne), (odd, Operand("F32", (12, 5), fill="special")), params)


OP = Op(
    name="SET",
    sources=(Source("a", ("F32", "I32"), "contiguous"), Source("b", ("F32", "I32"), "the region's ne, a's type")),
    types=("F32", "I32"),
    params=PARAMS,
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=EXACT,
    in_place=True,
)
