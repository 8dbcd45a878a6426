"""SUM: add up all elements.

    dst = sum over all of src0

src0: F32, F16 or BF16, any strides. dst: src0's type, one element. NaN gives NaN, +inf with -inf gives NaN; a sum beyond F16's
range is infinite there. No elements: 0. Of a source whose rows have gaps (a permuted or transposed one, which ggml_sum takes and
upstream's own operator test makes) upstream's CPU adds up the neighbours of each row's first element instead: an assert against
it is not compiled into releases.

Source: ggml_compute_forward_sum_f32 (sum in double), _f16 and _bf16 (in float) in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.op import FLOATS, Node, Op, Source
from ggml_rpc_ref.ops.shared.slabs import element_blocks, part
from ggml_rpc_ref.ops.tolerance import Tolerance


def shape(node: Node) -> None:
    """Refuse a result of more than one element or of another type."""
    src0 = node.source(0)
    node.require(node.dst.ne == (1, 1, 1, 1), "one element", node.dst.ne)
    node.require(node.dst.dtype == src0.dtype, f"type {src0.dtype.name} as the source", node.dst.dtype.name)


def oracle(node: Node) -> None:
    """Add up in float64."""
    source, total = node.source(0), np.float64(0)
    with np.errstate(all="ignore"):
        for block in element_blocks(source.ne):
            total += np.sum(part(source, block).values(), dtype=np.float64)
        node.dst.store(np.asarray(total).astype(np.float32))


OP = Op(
    name="SUM",
    sources=(Source("x", FLOATS, "any ne"),),
    types=FLOATS,
    shape=shape,
    oracle=oracle,
    tolerance=Tolerance(1e-5, 1e-4, 1e-10, "F16 and BF16 are added up in float32 there"),
)
