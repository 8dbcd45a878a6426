"""What RESHAPE, VIEW, PERMUTE and TRANSPOSE share: they compute nothing; their destination shows bytes of the source.

Their only effect is geometry: which bytes of the source's memory the destination refers to. Upstream's CPU backend skips them
(ggml_op_is_empty in ggml-impl.h), whatever they contain; the rules here are what the constructors in ggml.c guarantee.
"""

from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.tensor import Quad


def require_same_type(node: Node) -> None:
    """Refuse another type than the source's."""
    src0, dst = node.source(0), node.dst
    node.require(dst.dtype == src0.dtype, f"type {src0.dtype.name} as the source", dst.dtype.name)


def require_same_memory(node: Node, offset: int = 0) -> None:
    """Refuse a destination that does not begin `offset` bytes after the source.

    Accepts any if only the geometry is known (neither has bytes here).
    """
    src0, dst = node.source(0), node.dst
    if dst.storage is None and src0.storage is None:
        return
    node.require(dst.storage is src0.storage, "the source's memory", "other memory")
    node.require(dst.offset == src0.offset + offset, f"data {offset} bytes after the source's", dst.offset - src0.offset)


def compute_nothing(node: Node) -> None:
    """Do nothing: the destination's bytes are the source's."""


def permuted(values: Quad, axes: tuple[int, ...]) -> Quad:
    """Return ne or nb with the value of axis i at place axes[i]."""
    a, b, c, d = (values[axes.index(place)] for place in range(4))
    return (a, b, c, d)
