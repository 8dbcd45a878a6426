"""Split big operands, so that the float32 copies that an op makes stay small, and a computation can be stopped between them.

A reference may be slow, but must not need several times the model's memory: what is converted or computed at a time is limited
to `SLAB_BYTES`, also where a single row is larger. Parts are as large as that allows: a tensor of many small matrices is not
walked through matrix by matrix.
"""

from collections.abc import Iterator

from ggml_rpc_ref.stopping import checkpoint
from ggml_rpc_ref.tensor import F32Array, Quad, Tensor

SLAB_BYTES = 32 << 20
"""About how many bytes of float32 an op converts or computes at a time."""

COLUMNS = 256
"""Parts of a row are multiples of so many elements: the largest block of a block type."""

RowBlock = tuple[slice, slice, slice]
"""Indices along ne3, ne2 and ne1: whole rows."""

ElementBlock = tuple[slice, slice, slice, slice]
"""Indices along ne3, ne2, ne1 and ne0."""


def rows_per_slab(bytes_per_row: int) -> int:
    """Return how many rows of that size fit a slab, at least one."""
    return max(1, SLAB_BYTES // max(1, bytes_per_row))


def spans(length: int, step: int) -> Iterator[slice]:
    """Yield slices of at most `step` that cover a length, and pass a checkpoint before each."""
    for start in range(0, length, step):
        checkpoint()
        yield slice(start, min(start + step, length))


def slabs(tensor: Tensor) -> Iterator[tuple[int, int, F32Array]]:
    """Yield (first row, end row, float32 values) of parts that cover ne[1], in all matrices of a tensor at once.

    An F32 is one part, in place; other types are converted part by part, so that a quantised weight is never unpacked as a whole.
    """
    ne0, ne1, ne2, ne3 = tensor.ne
    if tensor.dtype.name == "F32":
        yield 0, ne1, tensor.values()
        return
    for rows in spans(ne1, rows_per_slab(4 * ne0 * ne2 * ne3)):
        yield rows.start, rows.stop, tensor.rows(rows.start, rows.stop).values()


def row_blocks(ne: Quad) -> Iterator[RowBlock]:
    """Yield index triples (ne3, ne2, ne1) that cover all rows of a tensor in blocks of at most a slab, or one row.

    None for a tensor without elements: of rows of no length there may be 2^96.
    """
    if 0 in ne:
        return
    ne0, ne1, ne2, ne3 = ne
    rows = rows_per_slab(4 * ne0)
    if ne1 * ne2 * ne3 <= rows:
        checkpoint()  # most tensors: one numpy call instead of one for each matrix
        yield whole(ne)
    elif ne1 * ne2 <= rows:
        for outer in spans(ne3, rows // (ne1 * ne2)):
            yield outer, slice(0, ne2), slice(0, ne1)
    else:
        for i3 in range(ne3):
            for middle in spans(ne2, max(1, rows // ne1)):
                for inner in spans(ne1, rows):
                    yield slice(i3, i3 + 1), middle, inner


def element_blocks(ne: Quad) -> Iterator[ElementBlock]:
    """Yield index quadruples (ne3, ne2, ne1, ne0) that cover all elements in blocks of at most a slab."""
    columns = max(COLUMNS, SLAB_BYTES // 4 // COLUMNS * COLUMNS)
    for block in row_blocks(ne):
        for inner in spans(ne[0], columns):
            yield *block, inner


def whole(ne: Quad) -> RowBlock:
    """Return the block of all rows."""
    return slice(0, ne[3]), slice(0, ne[2]), slice(0, ne[1])


def part(tensor: Tensor, block: RowBlock | ElementBlock) -> Tensor:
    """Return the part of a tensor that a block's indices name, in place; columns must begin and end with a block of its type."""
    ne0, ne1, ne2, ne3 = tensor.ne
    indices = (*block, slice(0, ne0))[:4]
    # a block is in numpy's order (ne3, ne2, ne1, ne0), nb in ggml's: hence reversed, and counts from the back
    starts, counts = [s.start for s in indices], [s.stop - s.start for s in indices]
    if counts == [ne3, ne2, ne1, ne0]:
        return tensor
    starts[3] //= tensor.dtype.block
    offset = tensor.offset + sum(start * stride for start, stride in zip(starts, reversed(tensor.nb), strict=True))
    ne = (counts[3], counts[2], counts[1], counts[0])
    return Tensor(tensor.dtype, ne, tensor.nb, tensor.storage, offset, tensor.name)


def matrix(tensor: Tensor, i2: int, i3: int = 0) -> Tensor:
    """Return one matrix of a tensor in place: its ne[0] and ne[1] at the given indices of ne[2] and ne[3]."""
    offset = tensor.offset + i2 * tensor.nb[2] + i3 * tensor.nb[3]
    return Tensor(tensor.dtype, (tensor.ne[0], tensor.ne[1], 1, 1), tensor.nb, tensor.storage, offset, tensor.name)
