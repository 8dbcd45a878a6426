"""NONE: a tensor that is not computed: a weight, an input, a buffer.

    dst is left as it is

No sources, no op_params. Any sources that a client sends are ignored.

Source: ggml_op_is_empty in ggml-impl.h; ggml_compute_forward in ggml-cpu.c returns at once.
"""

from ggml_rpc_ref.ops.op import ANY, Node, Op
from ggml_rpc_ref.ops.shared.views import compute_nothing
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Accept everything: a leaf may have any type, dimensions and strides."""


oracle = compute_nothing

OP = Op(name="NONE", sources=(), types=ANY, shape=shape, oracle=oracle, tolerance=EXACT, view=True)
