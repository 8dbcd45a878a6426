"""GROUP_NORM: groups of channels shifted to mean 0 and scaled to variance 1.

    dst[i] = (src0[i] - mean) / sqrt(mean of (src0 - mean)² + eps)     over each group

A group is ceil(channels / n_groups) neighbours along ne[2], the last one perhaps fewer, with all of ne[0] and ne[1]; each ne[3]
by itself. src0, dst: F32, the same ne, dense rows; may share memory. n_groups at least 1; above the number of channels, each is
a group. A group with NaN or an infinity becomes NaN throughout. A negative eps may make roots of negative numbers, NaN. Empty:
nothing is computed.

Source: ggml_compute_forward_group_norm_f32 in ggml-cpu/ops.cpp (sums in double, mean and differences in float).
"""

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.layout import require_dense_rows
from ggml_rpc_ref.ops.tolerance import FLOAT32


def shape(node: Node) -> None:
    """Refuse differing dimensions, gaps within rows, fewer than one group or more than upstream can count."""
    node.require(node.dst.ne == node.source(0).ne, f"ne {node.source(0).ne} as the source", node.dst.ne)
    groups = node.i32("n_groups")
    # upstream computes (channels + n_groups - 1) / n_groups in int (ggml_compute_forward_group_norm_f32)
    node.require(1 <= groups <= 2**31 - node.dst.ne[2], "n_groups >= 1, and no overflow of int when channels are added", groups)
    require_dense_rows(node, node.source(0), node.dst)


def oracle(node: Node) -> None:
    """Compute the formula group by group; the mean is rounded to float32, because the differences are taken from that."""
    x, target, eps = node.source(0).values(), node.dst.array, np.float32(node.f32("eps"))
    channels = node.dst.ne[2]
    # rounded up as upstream's: the last group may have fewer channels, and later ones none
    per_group = -(-channels // node.i32("n_groups"))
    for i3 in range(node.dst.ne[3]):
        for start in range(0, channels, per_group):
            group = (i3, slice(start, start + per_group))
            with np.errstate(all="ignore"):
                y = x[group] - np.float32(np.mean(x[group], dtype=np.float64))
                variance = np.float32(np.mean(np.square(y), dtype=np.float64))
                target[group] = y * (np.float32(1) / np.sqrt(variance + eps))


OP = Op(
    name="GROUP_NORM",
    sources=(Source("x", ("F32",), "ne = (w, h, channels, batch)"),),
    types=("F32",),
    params=(Param("n_groups", "i32", 0, "how many groups, at least 1"), Param("eps", "f32", 1, "added to the variance")),
    shape=shape,
    oracle=oracle,
    tolerance=FLOAT32,
    in_place=True,
)
