"""Rules about strides that many ops share, and whether one tensor broadcasts to another."""

from collections.abc import Collection

from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.spec.dtypes import DType
from ggml_rpc_ref.tensor import Quad, Tensor


def require_ne(node: Node, ne: Quad, *tensors: Tensor) -> None:
    """Refuse operands of other dimensions, each by its own name."""
    for tensor in tensors:
        node.require(tensor.ne == ne, f"ne {ne} in {node.operand(tensor)}", tensor.ne, at=tensor)


def require_type(node: Node, dtype: DType, *tensors: Tensor) -> None:
    """Refuse operands of another type, each by its own name."""
    for tensor in tensors:
        node.require(tensor.dtype == dtype, f"type {dtype.name} in {node.operand(tensor)}", tensor.dtype.name, at=tensor)


def require_contiguous(node: Node, *tensors: Tensor) -> None:
    """Refuse operands with gaps, each by its own name."""
    for tensor in tensors:
        node.require(tensor.is_contiguous, f"{node.operand(tensor)} contiguous", tensor.nb, at=tensor)


def require_types(node: Node, table: Collection[tuple[str, ...]], what: str) -> None:
    """Refuse types that are not a row of a table, and name the first operand whose type goes with none of those before it.

    Args:
        node: the node.
        table: types of the first sources by slot, then of the result.
        what: what is needed, as the end of a sentence that begins with "need".
    """
    *slots, _ = next(iter(table))
    operands = (*(node.source(slot) for slot in range(len(slots))), node.dst)
    found = tuple(tensor.dtype.name for tensor in operands)
    for end, tensor in enumerate(operands, start=1):
        node.require(any(row[:end] == found[:end] for row in table), what, found, at=tensor)


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
