"""What the optimiser steps share: a weight that is updated in place, by tensors of the same layout."""

from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.ops.shared.layout import require_dense_rows
from ggml_rpc_ref.tensor import Tensor


def require_result_like_weight(node: Node) -> None:
    """Refuse a destination of other dimensions or strides than the weight's."""
    dst, weight = node.dst, node.source(0)
    node.require((dst.ne, dst.nb) == (weight.ne, weight.nb), f"the weight's ne {weight.ne} and nb {weight.nb}", (dst.ne, dst.nb))


def require_result_is_weight(node: Node) -> None:
    """Refuse a destination that is not the weight's memory: upstream updates src0 and ignores its result's memory."""
    dst, weight = node.dst, node.source(0)
    node.require(dst.storage is weight.storage and dst.offset == weight.offset, "the weight itself as result", dst.name)


def require_like_weight(node: Node, *tensors: Tensor) -> None:
    """Refuse tensors of another layout than the weight's: upstream uses the weight's strides for all of them."""
    weight = node.source(0)
    require_dense_rows(node, weight)
    for tensor in tensors:
        same_nb = all(n == 1 or have == want for n, have, want in zip(weight.ne, tensor.nb, weight.nb, strict=True))
        node.require(
            tensor.ne == weight.ne and same_nb, f"the weight's ne {weight.ne} and nb {weight.nb}", (tensor.ne, tensor.nb), at=tensor
        )


def require_settings(node: Node, settings: Tensor, count: int) -> None:
    """Refuse settings of another number, or with gaps."""
    node.require(settings.nelements == count and settings.is_contiguous, f"{count} settings without gaps", settings.ne, at=settings)
