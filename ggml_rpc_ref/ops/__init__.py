"""The oracle: every ggml operation in numpy, one file per op. This list is explicit, so that a new op shows in the diff."""

from ggml_rpc_ref.ops import (
    add,
    cont,
    cpy,
    div,
    dup,
    flash_attn_ext,
    get_rows,
    glu,
    mul,
    mul_mat,
    none,
    permute,
    reshape,
    rms_norm,
    rope,
    scale,
    set_rows,
    soft_max,
    sub,
    transpose,
    unary,
    view,
)
from ggml_rpc_ref.ops.op import Op

_MODULES = (
    add,
    cont,
    cpy,
    div,
    dup,
    flash_attn_ext,
    get_rows,
    glu,
    mul,
    mul_mat,
    none,
    permute,
    reshape,
    rms_norm,
    rope,
    scale,
    set_rows,
    soft_max,
    sub,
    transpose,
    unary,
    view,
)  # fmt: skip

OPS: dict[str, Op] = {module.OP.name: module.OP for module in _MODULES}
"""Op name (ggml's, without GGML_OP_) to its row."""
