"""TRANSPOSE: rows and columns exchanged; computes nothing.

    dst.ne = (ne[1], ne[0], ne[2], ne[3]) of src0, nb alike

src0: any plain type, any strides. dst: the same type and memory.

Source: ggml_transpose in ggml.c.
"""

from collections.abc import Iterator

from ggml_rpc_ref.ops.op import ANY, EXACT, Case, Node, Op, Operand, Source
from ggml_rpc_ref.ops.permute import permuted
from ggml_rpc_ref.ops.shared.views import compute_nothing, require_same_memory

EXCHANGED = (1, 0, 2, 3)


def shape(node: Node) -> None:
    """Refuse a geometry that is not the source's with the first two axes exchanged."""
    src0 = node.source(0)
    require_same_memory(node)
    node.require(node.dst.ne == permuted(src0.ne, EXCHANGED), f"ne {permuted(src0.ne, EXCHANGED)}", node.dst.ne)
    node.require(node.dst.nb == permuted(src0.nb, EXCHANGED), f"nb {permuted(src0.nb, EXCHANGED)}", node.dst.nb)


oracle = compute_nothing


def cases() -> Iterator[Case]:
    """A matrix, a stack of them, narrow types, nothing."""
    yield Case("matrix", Operand("F32", (3, 7), (28, 4, 84, 84), alias="src0"), (Operand("F32", (7, 3)),))
    yield Case("stack", Operand("F16", (3, 7, 2, 2), (14, 2, 42, 84), alias="src0"), (Operand("F16", (7, 3, 2, 2)),))
    yield Case("empty", Operand("F32", (3, 0), (0, 4, 0, 0), alias="src0"), (Operand("F32", (0, 3)),))


OP = Op(
    name="TRANSPOSE",
    sources=(Source("x", ANY, "any strides"),),
    types=ANY,
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=EXACT,
    view=True,
)
