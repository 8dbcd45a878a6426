"""The oracle: every ggml operation in numpy, one file per op, of the op's name."""

from dataclasses import replace
from functools import cache
from importlib import import_module

from ggml_rpc_ref.ops import custom
from ggml_rpc_ref.ops.op import Op
from ggml_rpc_ref.spec.opcodes import kinds, op_table
from ggml_rpc_ref.spec.versions import DEFAULT, NEWEST, Version

# By hand rather than by listing the folder, so that a new op shows in the diff.
_NAMES = (
    "ACC",
    "ADD",
    "ADD1",
    "ADD_ID",
    "ADD_REL_POS",
    "ARANGE",
    "ARGMAX",
    "ARGSORT",
    "CLAMP",
    "COL2IM_1D",
    "CONCAT",
    "CONT",
    "CONV_2D",
    "CONV_2D_DW",
    "CONV_3D",
    "CONV_TRANSPOSE_1D",
    "CONV_TRANSPOSE_2D",
    "COS",
    "COUNT_EQUAL",
    "CPY",
    "CROSS_ENTROPY_LOSS",
    "CROSS_ENTROPY_LOSS_BACK",
    "CUMSUM",
    "DIAG",
    "DIAG_MASK_INF",
    "DIAG_MASK_ZERO",
    "DIV",
    "DSV4_HC_COMB",
    "DSV4_HC_POST",
    "DSV4_HC_PRE",
    "DUP",
    "FILL",
    "FLASH_ATTN_BACK",
    "FLASH_ATTN_EXT",
    "GATED_DELTA_NET",
    "GATED_LINEAR_ATTN",
    "GET_REL_POS",
    "GET_ROWS",
    "GET_ROWS_BACK",
    "GLU",
    "GROUP_NORM",
    "IM2COL",
    "IM2COL_3D",
    "IM2COL_BACK",
    "L2_NORM",
    "LEAKY_RELU",
    "LIGHTNING_INDEXER",
    "LOG",
    "MEAN",
    "MUL",
    "MUL_MAT",
    "MUL_MAT_ID",
    "NONE",
    "NORM",
    "OPT_STEP_ADAMW",
    "OPT_STEP_SGD",
    "OUT_PROD",
    "PAD",
    "PAD_REFLECT_1D",
    "PERMUTE",
    "POOL_1D",
    "POOL_2D",
    "POOL_2D_BACK",
    "REPEAT",
    "REPEAT_BACK",
    "RESHAPE",
    "RMS_NORM",
    "RMS_NORM_BACK",
    "ROLL",
    "ROPE",
    "ROPE_BACK",
    "RWKV_WKV6",
    "RWKV_WKV7",
    "SCALE",
    "SET",
    "SET_ROWS",
    "SILU_BACK",
    "SIN",
    "SOFT_MAX",
    "SOFT_MAX_BACK",
    "SOLVE_TRI",
    "SQR",
    "SQRT",
    "SSM_CONV",
    "SSM_SCAN",
    "SUB",
    "SUM",
    "SUM_ROWS",
    "TIMESTEP_EMBEDDING",
    "TOP_K",
    "TRANSPOSE",
    "TRI",
    "UNARY",
    "UPSCALE",
    "VIEW",
    "WIN_PART",
    "WIN_UNPART",
)  # fmt: skip

_ROWS: dict[str, Op] = {name: import_module(f"{__name__}.{name.lower()}").OP for name in _NAMES}
_ROWS |= {op.name: op for op in custom.OPS}


@cache
def ops_of(version: Version) -> dict[str, Op]:
    """Return the ops that a version has, each with the meaning that it has there: ggml's name, without GGML_OP_, to its row."""
    known = frozenset(op_table(version))  # not set(...): that name is a page of this package
    return {name: row.at(version) for name, row in _ROWS.items() if name in known}


@cache
def canonical_ops(version: Version) -> dict[str, Op]:
    """Return `ops_of` a version with the kinds of UNARY and GLU numbered as the newest version does, for the backends' kernels."""
    return {name: replace(row, kinds=kinds(name, NEWEST)) for name, row in ops_of(version).items()}


OPS: dict[str, Op] = ops_of(DEFAULT)
"""Op name to its row, as SPEC.md's running text describes it."""
