"""What ACC and SET share: a region of the result, laid out by op_params, that meets src1 element by element.

Source: ggml_acc_impl and ggml_set_impl in ggml.c, ggml_compute_forward_acc_f32 and …_set_f32 in ggml-cpu/ops.cpp.
"""

from dataclasses import replace

from ggml_rpc_ref.ops.op import Node, Param, elements_are_disjoint
from ggml_rpc_ref.ops.shared.layout import require_contiguous, require_dense_rows, require_type
from ggml_rpc_ref.tensor import Tensor, extent

PARAMS = (
    Param("nb1", "i32", 0, "bytes between rows of the region"),
    Param("nb2", "i32", 1, "bytes between its matrices"),
    Param("nb3", "i32", 2, "bytes between its stacks of matrices"),
    Param("offset", "i32", 3, "byte at which it begins"),
    Param("inplace", "i32", 4, "not 0: dst is src0's memory already; 0: src0 is copied to dst first"),
)


def region(tensor: Tensor, node: Node) -> Tensor:
    """Return the region of a tensor (dst or src0) that src1 meets, in place."""
    geometry = region_geometry(node)
    return replace(geometry, storage=tensor.storage, offset=tensor.offset + node.i32("offset"), name=tensor.name)


def region_geometry(node: Node) -> Tensor:
    """Return the region without memory: dst's type, src1's ne, strides by op_params."""
    dtype = node.dst.dtype
    return Tensor(dtype, node.source(1).ne, (dtype.size, node.i32("nb1"), node.i32("nb2"), node.i32("nb3")))


def require_region(node: Node) -> None:
    """Refuse gaps in src0, dst or src1's rows, a dst of another type, negative strides, a region outside dst or upon itself."""
    src0, src1, dst = node.source(0), node.source(1), node.dst
    require_type(node, src0.dtype, dst)
    node.require(dst.ne == src0.ne, f"ne {src0.ne} as src0", dst.ne)
    require_contiguous(node, src0, dst)
    require_dense_rows(node, src1)
    target, offset = region_geometry(node), node.i32("offset")
    layout = (*target.nb[1:], offset)
    # along a dimension of length 1 no stride is taken, and a client may leave there what it likes
    used = [offset, *(stride for n, stride in zip(target.ne[1:], target.nb[1:], strict=True) if n > 1)]
    node.require(min(used) >= 0, "nb1, nb2, nb3 and offset of at least 0", layout)
    node.require(all(number % dst.dtype.size == 0 for number in used), f"multiples of {dst.dtype.size}", layout)
    ne = [max(n, 1) for n in target.ne]  # upstream asserts the same of a region without elements
    end = offset + extent(dst.dtype, (ne[0], ne[1], ne[2], ne[3]), target.nb)
    node.require(end <= dst.nbytes, f"a region inside the {dst.nbytes} bytes of dst", layout)
    node.require(elements_are_disjoint(target), "a region whose elements share no bytes", layout)
