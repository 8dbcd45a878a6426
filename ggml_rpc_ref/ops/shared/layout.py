"""Rules about strides that many ops share, and whether one tensor broadcasts to another."""

from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.tensor import Tensor


def require_dense_rows(node: Node, *tensors: Tensor) -> None:
    """Refuse operands whose nb[0] is not the size of an element (of a block, for a block type).

    Even if ne[0] is 1, where no such stride is taken: upstream's kernels assert nb[0] all the same.
    """
    for tensor in tensors:
        size = tensor.dtype.size
        if tensor.nb[0] != size:
            node.require(False, f"{node.operand(tensor)}.nb[0] == {size} (dense rows)", tensor.nb[0], at=tensor)


def require_contiguous_rows(node: Node, *tensors: Tensor) -> None:
    """Refuse operands with gaps between the elements of a row; one element has none (ggml_is_contiguous_rows in ggml.c)."""
    for tensor in tensors:
        if not tensor.rows_are_contiguous:
            node.require(False, f"{node.operand(tensor)}.nb[0] == {tensor.dtype.size} (dense rows)", tensor.nb[0], at=tensor)


def require_even_rows(node: Node, *tensors: Tensor) -> None:
    """Refuse operands whose rows have gaps or are not evenly spaced (ggml_is_contiguous_1 in ggml.c)."""
    require_contiguous_rows(node, *tensors)
    for tensor in tensors:
        node.require(has_even_rows(tensor), "rows that are nb[1] apart throughout", tensor.nb, at=tensor)


def has_even_rows(tensor: Tensor) -> bool:
    """Whether all rows, over ne[1], ne[2] and ne[3], are nb[1] apart.

    Kernels that count rows in one loop and step by nb[1] would otherwise read somewhere else.
    """
    _, ne1, ne2, ne3 = tensor.ne
    _, nb1, nb2, nb3 = tensor.nb
    return (ne2 == 1 or nb2 == ne1 * nb1) and (ne3 == 1 or nb3 == ne1 * ne2 * nb1)


def can_repeat(small: Tensor, large: Tensor) -> bool:
    """Whether small broadcasts to large: each of its dimensions divides large's (ggml_can_repeat in ggml.c)."""
    if small.nelements == 0 or large.nelements == 0:
        return small.nelements == large.nelements
    return all(n % m == 0 for m, n in zip(small.ne, large.ne, strict=True))
