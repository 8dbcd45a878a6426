"""RESHAPE: the same elements in the same order under other dimensions; computes nothing.

    dst[i] = src0[i]     for i counting elements in ne order

src0: any type, contiguous. dst: the same type and number of elements, contiguous, in src0's memory at its first byte.
Empty dimensions: both are empty.

Source: ggml_reshape in ggml.c.
"""

from collections.abc import Iterator

from ggml_rpc_ref.ops.op import ANY, EXACT, Case, Node, Op, Operand, Source
from ggml_rpc_ref.ops.shared.views import compute_nothing, require_same_memory


def shape(node: Node) -> None:
    """Refuse another type, place or number of elements than the source's, and gaps on either side."""
    src0 = node.source(0)
    require_same_memory(node)
    node.require(node.dst.nelements == src0.nelements, f"{src0.nelements} elements as the source", node.dst.nelements)
    node.require(src0.is_contiguous, "a contiguous source", src0.nb)
    node.require(node.dst.is_contiguous, "a contiguous result", node.dst.nb)


oracle = compute_nothing


def cases() -> Iterator[Case]:
    """Fewer, more and other dimensions; a block type; nothing."""
    for name, ne in {"flat": (210,), "matrix": (35, 6), "4d": (5, 3, 2, 7), "same": (7, 5, 3, 2)}.items():
        yield Case(name, Operand("F32", ne, alias="src0"), (Operand("F32", (7, 5, 3, 2)),))
    yield Case("blocks", Operand("Q8_0", (32, 6), alias="src0"), (Operand("Q8_0", (64, 3)),))
    yield Case("empty", Operand("F32", (0, 4), alias="src0"), (Operand("F32", (3, 0)),))


OP = Op(
    name="RESHAPE",
    sources=(Source("x", ANY, "contiguous"),),
    types=ANY,
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=EXACT,
    view=True,
)
