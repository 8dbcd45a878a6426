"""DUP: a copy of a tensor.

    dst[k] = src0[k]     for k counting elements in ne order

src0: any type, any strides. dst: the same number of elements, src0's type or one that `copying` converts floats to; may be src0's
own memory. A client makes it with src0's type and ne only; a block type is not converted to F32 here (upstream would read a src1
that DUP has not). Empty: nothing is computed.

Source: ggml_compute_forward_dup in ggml-cpu/ops.cpp.
"""

from collections.abc import Iterator

from ggml_rpc_ref.ops.op import ANY, EXACT, Case, Node, Op, Operand, Source
from ggml_rpc_ref.ops.shared.copying import copy, require_copy


def shape(node: Node) -> None:
    """Refuse what `require_copy` refuses, and block types to F32."""
    src0 = node.source(0)
    node.require(not src0.dtype.is_quantised or node.dst.dtype == src0.dtype, f"type {src0.dtype.name}", node.dst.dtype.name)
    require_copy(node)


oracle = copy


def cases() -> Iterator[Case]:
    """Some types, gaps, in place, special values."""
    for dtype in ("F32", "F16", "BF16", "I32", "I64", "Q4_0", "Q6_K"):
        yield Case(dtype.lower(), Operand(dtype, (256, 2)), (Operand(dtype, (256, 2)),))
    yield Case("special", Operand("F32", (16, 8)), (Operand("F32", (16, 8), fill="special"),))
    gaps = Operand("F32", (6, 4, 3, 2), nb=(4, 32, 160, 512))
    yield Case("gaps", Operand("F32", gaps.ne), (gaps,))
    yield Case("in-place", Operand("F32", (7, 3), alias="src0"), (Operand("F32", (7, 3)),))
    yield Case("f32-to-q8_0", Operand("Q8_0", (64, 3)), (Operand("F32", (64, 3)),))
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 3)),))


OP = Op(
    name="DUP",
    sources=(Source("x", ANY, "any strides"),),
    types=ANY,
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=EXACT,
    in_place=True,
)
