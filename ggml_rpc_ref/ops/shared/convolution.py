"""What the convolutions share: windows times kernels, and how near to such sums a result must be."""

import numpy as np

from ggml_rpc_ref.ops.cost import CALL, PRODUCTS, Cost, elements
from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.ops.shared.sliding_window import BLOCK_BYTES, Axes, output_blocks
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.tensor import Array

SUM_OF_PRODUCTS = Tolerance(1e-5, 2e-5, 1e-10, "float32 sums of products in another order; the atol covers products that cancel")

F16_SUM_OF_PRODUCTS = Tolerance(
    1e-5, 2e-5, 1e-5, "with an F16 kernel, sums of 128 products and more are summed in F16 on processors with AVX512-FP16"
)


@np.errstate(all="ignore")
def convolve(images: Array, kernels: Array, axes: Axes, result: Array) -> None:
    """Write the convolution of images with kernels.

    Args:
        images: shape (n, channels, depth, height, width).
        kernels: shape (outputs, channels * taps); where they are float16 the images are rounded to it.
        axes: the windows along depth, height and width.
        result: shape (n, outputs, depth, height, width), written in place.
    """
    if kernels.size == 0 or result.size == 0:
        result[...] = 0
        return
    weights = kernels.astype(np.float64)
    for block in output_blocks(images, axes):
        part = result[block.images, :, block.depth, block.rows]
        taps = block.values.reshape(len(block.values), weights.shape[1], part.shape[2] * part.shape[3])
        part[...] = (weights @ taps.astype(kernels.dtype, copy=False).astype(np.float64)).reshape(part.shape)


def convolution_cost(node: Node, axes: Axes, channels: int) -> Cost:
    """Return what convolving costs: kernels and a row of windows as float64 at the least, and a gather for each tap and block."""
    kernel, (depth, height, width) = node.source(0), axes
    taps = depth.kernel * height.kernel * width.kernel
    row = width.outputs * channels * taps
    blocks = 1 + depth.outputs * (node.dst.nelements // max(1, depth.outputs)) * channels * taps * 8 // BLOCK_BYTES
    products = node.dst.nelements * channels * taps
    return Cost(8 * kernel.nelements + 20 * row, elements(node) + products // PRODUCTS + taps * blocks * CALL)
