"""GROUP_NORM: groups of channels shifted to mean 0 and scaled to variance 1.

    dst[i] = (src0[i] - mean) / sqrt(mean of (src0 - mean)² + eps)     over each group

A group is ceil(channels / n_groups) neighbours along ne[2], the last one perhaps fewer, with all of ne[0] and ne[1]; each ne[3]
by itself. src0, dst: F32, the same ne, dense rows; may share memory. n_groups at least 1; above the number of channels, each is
a group. A group with NaN or an infinity becomes NaN throughout. A negative eps may make roots of negative numbers, NaN. Empty:
nothing is computed.

Source: ggml_compute_forward_group_norm_f32 in ggml-cpu/ops.cpp (sums in double, mean and differences in float).
"""

from math import prod

import numpy as np

from ggml_rpc_ref.ops.cost import Cost, elements
from ggml_rpc_ref.ops.op import Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows, require_dense_rows
from ggml_rpc_ref.ops.shared.slabs import row_blocks
from ggml_rpc_ref.ops.tolerance import FLOAT32
from ggml_rpc_ref.tensor import Array, F32Array


def shape(node: Node) -> None:
    """Refuse differing dimensions, gaps within rows, fewer than one group or more than upstream can count."""
    node.require(node.dst.ne == node.source(0).ne, f"ne {node.source(0).ne} as the source", node.dst.ne)
    groups = node.i32("n_groups")
    # upstream computes (channels + n_groups - 1) / n_groups in int (ggml_compute_forward_group_norm_f32)
    node.require(1 <= groups <= 2**31 - node.dst.ne[2], "n_groups >= 1, and no overflow of int when channels are added", groups)
    require_dense_rows(node, node.source(0))
    require_contiguous_rows(node, node.dst)


def oracle(node: Node) -> None:
    """Compute the formula, as many groups at a time as fit a slab; the last one of each ne[3], which may be smaller, by itself."""
    channels, eps = node.dst.ne[2], np.float32(node.f32("eps"))
    # rounded up as upstream's: the last group may have fewer channels, and later ones none
    per_group = -(-channels // node.i32("n_groups"))
    whole = channels // per_group * per_group
    for part in (slice(0, whole), slice(whole, channels)):
        x, target = (_grouped(tensor.array[:, part], per_group) for tensor in (node.source(0), node.dst))
        count, groups, *one = x.shape
        for i3, _, group in row_blocks((prod(one), groups, 1, count)):
            with np.errstate(all="ignore"):
                target[i3, group] = _normalised(x[i3, group], eps)


def _grouped(array: Array, channels: int) -> Array:
    """Return a view (ne3, groups, channels of one, ne1, ne0) of an array (ne3, channels, ne1, ne0); fewer are one group."""
    channels = min(channels, array.shape[1]) or 1
    return array.reshape(array.shape[0], array.shape[1] // channels, channels, *array.shape[2:])


def _normalised(x: F32Array, eps: np.float32) -> F32Array:
    """Return the formula of some groups; the mean is rounded to float32, because the differences are taken from that."""
    y = x - np.mean(x, axis=(2, 3, 4), dtype=np.float64, keepdims=True).astype(np.float32)
    variance = np.mean(np.square(y), axis=(2, 3, 4), dtype=np.float64, keepdims=True).astype(np.float32)
    return np.asarray(y * (np.float32(1) / np.sqrt(variance + eps)), np.float32)


def cost(node: Node) -> Cost:
    """Return the cost: one group at a time, and a loop over them."""
    channels, groups = node.dst.ne[2], min(node.i32("n_groups"), node.dst.ne[2])
    group = node.dst.ne[0] * node.dst.ne[1] * -(-channels // max(1, groups))
    return Cost(12 * group, elements(node))


OP = Op(
    name="GROUP_NORM",
    sources=(Source("x", ("F32",), "ne = (w, h, channels, batch)"),),
    types=("F32",),
    params=(Param("n_groups", "i32", 0, "how many groups, at least 1"), Param("eps", "f32", 1, "added to the variance")),
    shape=shape,
    oracle=oracle,
    tolerance=FLOAT32,
    in_place=(0,),
    cost=cost,
)
