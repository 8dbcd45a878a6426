"""Split big operands, so that the float32 copies that an op makes stay small.

A reference may be slow, but must not need several times the model's memory: what is converted or computed at a time is limited
to `SLAB_BYTES`.
"""

from collections.abc import Iterator

from ggml_rpc_ref.tensor import F32Array, Quad, Tensor

SLAB_BYTES = 32 << 20
"""About how many bytes of float32 an op converts or computes at a time."""

RowBlock = tuple[slice, slice, slice]


def rows_per_slab(bytes_per_row: int) -> int:
    """Return how many rows of that size fit a slab, at least one."""
    # at least one: a row larger than a slab is not split, and a row may have no elements
    return max(1, SLAB_BYTES // max(1, bytes_per_row))


def slabs(tensor: Tensor) -> Iterator[tuple[int, int, F32Array]]:
    """Yield (first row, end row, float32 values) of parts that cover ne[1], in all matrices of a tensor at once.

    An F32 is one part, in place; other types are converted part by part, so that a quantised weight is never unpacked as a whole.
    """
    ne0, ne1, ne2, ne3 = tensor.ne
    if tensor.dtype.name == "F32":
        yield 0, ne1, tensor.values()
        return
    step = rows_per_slab(4 * ne0 * ne2 * ne3)
    for start in range(0, ne1, step):
        stop = min(start + step, ne1)
        yield start, stop, tensor.rows(start, stop).values()


def row_blocks(ne: Quad) -> Iterator[RowBlock]:
    """Yield index triples (ne3, ne2, ne1) that cover all rows of a tensor in blocks of at most a slab, or one row."""
    ne0, ne1, ne2, ne3 = ne
    # most tensors: one numpy call instead of one for each matrix
    if 4 * ne0 * ne1 * ne2 * ne3 <= SLAB_BYTES:
        yield whole(ne)
        return
    step = rows_per_slab(4 * ne0)
    for i3 in range(ne3):
        for i2 in range(ne2):
            for start in range(0, ne1, step):
                yield slice(i3, i3 + 1), slice(i2, i2 + 1), slice(start, min(start + step, ne1))


def whole(ne: Quad) -> RowBlock:
    """Return the block of all rows."""
    return slice(ne[3]), slice(ne[2]), slice(ne[1])


def matrix(tensor: Tensor, i2: int, i3: int = 0) -> Tensor:
    """Return one matrix of a tensor in place: its ne[0] and ne[1] at the given indices of ne[2] and ne[3]."""
    offset = tensor.offset + i2 * tensor.nb[2] + i3 * tensor.nb[3]
    return Tensor(tensor.dtype, (tensor.ne[0], tensor.ne[1], 1, 1), tensor.nb, tensor.storage, offset, tensor.name)
