"""Indices among a tensor's contents, which can be checked only when the node runs."""

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops.op import Node


def checked_indices(node: Node, slot: int, count: int, matrices: int | None = None) -> npt.NDArray[np.int64]:
    """Return a source's indices, shape (ne3, ne2, ne1, ne0), if all of them are at least 0 and below count.

    Args:
        node: the node.
        slot: of the source.
        count: what the indices must be below.
        matrices: how many of its matrices, along ne2 and ne3, the op reads; None: all.

    Raises:
        Violation: graph.index, for the first one that is not.
    """
    index: npt.NDArray[np.int64] = node.source(slot).array[:matrices, :matrices].astype(np.int64)
    if index.size and (index.min() < 0 or index.max() >= count):
        where = tuple(int(i) for i in np.unravel_index(np.argmax((index < 0) | (index >= count)), index.shape))
        place = ",".join(str(i) for i in reversed(where))
        raise Violation("graph.index", f"{node.op.name}.src[{slot}][{place}]", int(index[where]), f"need 0 <= index < {count}")
    return index
