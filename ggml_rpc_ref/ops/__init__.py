"""The oracle: every ggml operation in numpy, one file per op. This list is explicit, so that a new op shows in the diff."""

from ggml_rpc_ref.ops import rms_norm
from ggml_rpc_ref.ops.op import Op

_MODULES = (
    rms_norm,
)  # fmt: skip

OPS: dict[str, Op] = {module.OP.name: module.OP for module in _MODULES}
"""Op name (ggml's, without GGML_OP_) to its row."""
