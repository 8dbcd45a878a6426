"""GROUP_NORM: groups of channels shifted to mean 0 and scaled to variance 1.

    dst[i] = (src0[i] - mean) / sqrt(mean of (src0 - mean)² + eps)     over each group

A group is ceil(channels / n_groups) neighbours along ne[2], the last one perhaps fewer, with all of ne[0] and ne[1]; each ne[3] by
itself. src0, dst: F32, the same ne, rows dense; may share memory. n_groups at least 1; above the number of channels, each is a
group. A group with NaN or an infinity becomes NaN throughout. A negative eps may make roots of negative numbers, NaN. Empty:
nothing is computed.

Source: ggml_compute_forward_group_norm_f32 in ggml-cpu/ops.cpp (sums in double, mean and differences in float).
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.op import FLOAT32, Case, Node, Op, Operand, Param, Source
from ggml_rpc_ref.ops.shared.elementwise import require_dense_rows


def shape(node: Node) -> None:
    """Refuse differing dimensions, gaps within rows, fewer than one group or more than upstream can count."""
    node.require(node.dst.ne == node.source(0).ne, f"ne {node.source(0).ne} as the source", node.dst.ne)
    groups = node.i32("n_groups")
    node.require(1 <= groups <= 2**31 - node.dst.ne[2], "n_groups >= 1, and no overflow of int when channels are added", groups)
    require_dense_rows(node, node.source(0), node.dst)


def oracle(node: Node) -> None:
    """Compute the formula group by group; the mean is rounded to float32, for the differences are taken from that."""
    x, target, eps = node.source(0).values(), node.dst.array, np.float32(node.f32("eps"))
    channels = node.dst.ne[2]
    per_group = -(-channels // node.i32("n_groups"))
    for i3 in range(node.dst.ne[3]):
        for start in range(0, channels, per_group):
            group = (i3, slice(start, start + per_group))
            with np.errstate(all="ignore"):
                y = x[group] - np.float32(np.mean(x[group], dtype=np.float64))
                variance = np.float32(np.mean(np.square(y), dtype=np.float64))
                target[group] = y * (np.float32(1) / np.sqrt(variance + eps))


def cases() -> Iterator[Case]:
    """Even and uneven groups, one, as many as channels and more; batches; gaps; in place; special values."""
    x = Operand("F32", (7, 3, 6, 2))
    for groups in (1, 2, 4, 6, 9):
        yield Case(f"groups{groups}", Operand("F32", x.ne), (x,), {"n_groups": groups, "eps": 1e-6})
    yield Case("eps-zero", Operand("F32", x.ne), (x,), {"n_groups": 3, "eps": 0.0})
    yield Case("eps-large", Operand("F32", x.ne), (x,), {"n_groups": 3, "eps": 2.0})
    yield Case("eps-negative", Operand("F32", x.ne), (x,), {"n_groups": 3, "eps": -5.0})
    yield Case("in-place", Operand("F32", x.ne, alias="src0"), (x,), {"n_groups": 2, "eps": 1e-6})
    gaps = Operand("F32", x.ne, (4, 32, 96, 640))
    yield Case("gaps", Operand("F32", x.ne, (4, 40, 128, 768)), (gaps,), {"n_groups": 2, "eps": 1e-6})
    special = Operand("F32", (4, 2, 16), fill="special")
    yield Case("special", Operand("F32", special.ne), (special,), {"n_groups": 8, "eps": 1e-6})
    yield Case(
        "far-from-zero",
        Operand("F32", (9, 5, 4)),
        (Operand("F32", (9, 5, 4), fill="uniform:100:101"),),
        {"n_groups": 2, "eps": 1e-6},
    )
    yield Case("empty", Operand("F32", (4, 3, 0)), (Operand("F32", (4, 3, 0)),), {"n_groups": 2, "eps": 1e-6})


OP = Op(
    name="GROUP_NORM",
    sources=(Source("x", ("F32",), "ne = (w, h, channels, batch)"),),
    types=("F32",),
    params=(Param("n_groups", "i32", 0, "how many groups, at least 1"), Param("eps", "f32", 1, "added to the variance")),
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=FLOAT32,
    in_place=True,
)
