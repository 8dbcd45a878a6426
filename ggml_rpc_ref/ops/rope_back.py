"""ROPE_BACK: rotate pairs of elements back, the gradient of ROPE.

    as ROPE, with -sin(angle) in place of sin(angle)

Sources, parameters, types and modes are ROPE's; src0 is the gradient of the result. It undoes ROPE where attn_factor is 1 and
YaRN is off; otherwise the factor s applies once more, as it must in a gradient.

Source: ggml_compute_forward_rope_back in ggml-cpu/ops.cpp, ggml_rope_ext_back and ggml_rope_multi_back in ggml.c.
"""

from ggml_rpc_ref.ops.op import Node, Op
from ggml_rpc_ref.ops.shared.rotation import ANGLES, PARAMS, SOURCES, require_rotation, rotate, with_offset, without_imrope


def oracle(node: Node) -> None:
    """Rotate backwards."""
    rotate(node, forward=False)


OP = Op(
    name="ROPE_BACK",
    sources=SOURCES,
    types=("F32", "F16"),
    params=PARAMS,
    shape=require_rotation,
    oracle=oracle,
    tolerance=ANGLES,
    in_place=(0,),
    later=(with_offset("ROPE_BACK"),),
    earlier=(without_imrope("ROPE_BACK"),),
)
