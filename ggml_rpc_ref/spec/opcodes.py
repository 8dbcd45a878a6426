"""The numbers of ggml_op, ggml_unary_op and ggml_glu_op by version: a number is a place in the version's table.

Upstream only ever inserts names, and each insertion shifts the numbers behind it. So each enum is one list in the order of the
newest version, every name marked with the first version that has it; the table of an older version is what is left of the list.

Until 3.6.0 names were inserted without a new version, and nothing on the wire tells builds of one version apart: a version's table
is that of its published package (2.0.0: llama-cpp-python 0.3.16), else that of its first builds. From 3.6.1 on ggml-rpc.h asserts
GGML_OP_COUNT, so that the patch grows with ggml_op (llama.cpp #20330); nothing asserts the other two enums.

Transcribed from ggml.h of each release; 3.6.1 is compared with what the genuine library calls its ops, in
vectors/upstream-3.6.1-*/enums.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from ggml_rpc_ref.spec.versions import (
    DEFAULT,
    V1_0_0,
    V2_0_0,
    V3_0_0,
    V3_5_0,
    V3_6_0,
    V3_6_1,
    V4_0_1,
    V4_0_2,
    V4_0_3,
    V6_0_0,
    Version,
    present,
)


@dataclass(frozen=True, slots=True)
class Name:
    """A name in an enum.

    Attributes:
        name: ggml's, without the enum's prefix.
        since: the first version that has it.
    """

    name: str
    since: Version


def _since(version: Version, names: str) -> Iterator[Name]:
    return (Name(name, version) for name in names.split())


GGML_OP: tuple[Name, ...] = (
    *_since(V1_0_0, "NONE DUP ADD"),
    *_since(V2_0_0, "ADD_ID"),
    *_since(V1_0_0, "ADD1 ACC SUB MUL DIV SQR SQRT LOG SIN COS SUM SUM_ROWS"),
    *_since(V3_5_0, "CUMSUM"),
    *_since(V1_0_0, "MEAN ARGMAX COUNT_EQUAL REPEAT REPEAT_BACK CONCAT SILU_BACK NORM RMS_NORM RMS_NORM_BACK GROUP_NORM L2_NORM"),
    *_since(V1_0_0, "MUL_MAT MUL_MAT_ID OUT_PROD SCALE SET CPY CONT RESHAPE VIEW PERMUTE TRANSPOSE GET_ROWS GET_ROWS_BACK"),
    *_since(V2_0_0, "SET_ROWS"),
    *_since(V1_0_0, "DIAG DIAG_MASK_INF DIAG_MASK_ZERO SOFT_MAX SOFT_MAX_BACK ROPE ROPE_BACK CLAMP CONV_TRANSPOSE_1D IM2COL"),
    *_since(V1_0_0, "IM2COL_BACK"),
    *_since(V3_0_0, "IM2COL_3D"),
    *_since(V4_0_1, "COL2IM_1D"),
    *_since(V2_0_0, "CONV_2D"),
    *_since(V3_0_0, "CONV_3D"),
    *_since(V1_0_0, "CONV_2D_DW CONV_TRANSPOSE_2D POOL_1D POOL_2D POOL_2D_BACK UPSCALE PAD PAD_REFLECT_1D"),
    *_since(V2_0_0, "ROLL"),
    *_since(V1_0_0, "ARANGE TIMESTEP_EMBEDDING ARGSORT"),
    *_since(V3_5_0, "TOP_K"),
    *_since(V1_0_0, "LEAKY_RELU"),
    *_since(V3_5_0, "TRI FILL"),
    *_since(V1_0_0, "FLASH_ATTN_EXT FLASH_ATTN_BACK SSM_CONV SSM_SCAN WIN_PART WIN_UNPART GET_REL_POS ADD_REL_POS RWKV_WKV6"),
    *_since(V1_0_0, "GATED_LINEAR_ATTN RWKV_WKV7"),
    *_since(V3_5_0, "SOLVE_TRI"),
    *_since(V3_6_1, "GATED_DELTA_NET"),
    *_since(V4_0_2, "LIGHTNING_INDEXER"),
    *_since(V4_0_3, "DSV4_HC_COMB DSV4_HC_PRE DSV4_HC_POST"),
    *_since(V1_0_0, "UNARY MAP_CUSTOM1 MAP_CUSTOM2 MAP_CUSTOM3 CUSTOM CROSS_ENTROPY_LOSS CROSS_ENTROPY_LOSS_BACK OPT_STEP_ADAMW"),
    *_since(V2_0_0, "OPT_STEP_SGD GLU"),
)
"""Names without GGML_OP_."""

OPS_DRIFTED: dict[Version, str] = {
    V2_0_0: "the table is that of llama-cpp-python 0.3.16; builds before 2025-06-18 lack ROLL, those before 06-27 SET_ROWS, "
    "before 06-29 GLU, before 06-30 CONV_2D, before 08-05 ADD_ID, before 08-14 OPT_STEP_SGD, and the last ones have CONV_3D (from "
    "08-22 on) and IM2COL_3D (from 09-04 on) in addition",
    V3_0_0: "the table is that of its first builds; CUMSUM, TRI, FILL and SOLVE_TRI came on 2025-11-13, TOP_K on 2025-11-25",
    V3_6_0: "the table is that of its first builds; GATED_DELTA_NET came on 2026-03-07",
}
"""Version whose builds have several op tables: which one is here, and how the others differ."""

KINDS: dict[str, tuple[Name, ...]] = {
    "UNARY": (
        *_since(V1_0_0, "ABS SGN NEG STEP TANH ELU RELU SIGMOID GELU GELU_QUICK SILU HARDSWISH HARDSIGMOID EXP"),
        *_since(V3_5_0, "EXPM1 SOFTPLUS"),
        *_since(V2_0_0, "GELU_ERF"),
        *_since(V3_0_0, "XIELU"),
        *_since(V3_5_0, "FLOOR CEIL ROUND TRUNC"),
    ),
    # all six came while 2.0.0 was current; SWIGLU_CLAMP was appended while 6.0.0 was: b10705 lacks it, b10809 has it
    "GLU": (*_since(V2_0_0, "REGLU GEGLU SWIGLU SWIGLU_OAI GEGLU_ERF GEGLU_QUICK"), *_since(V6_0_0, "SWIGLU_CLAMP")),
}
"""Op whose op_params[0] is a number of an enum of its own, to that enum: ggml_unary_op, ggml_glu_op."""


@cache
def op_table(version: Version = DEFAULT) -> tuple[str, ...]:
    """Return a version's ops by number; where its builds have several tables, `OPS_DRIFTED` says which one."""
    return _table(GGML_OP, version)


@cache
def kinds(op: str, version: Version = DEFAULT) -> tuple[str, ...]:
    """Return a version's kinds of UNARY or GLU by number; empty for any other op."""
    return _table(KINDS.get(op, ()), version)


def _table(names: tuple[Name, ...], version: Version) -> tuple[str, ...]:
    return tuple(row.name for row in names if present(version, row.since))


UNARY_OPS = kinds("UNARY")
"""ggml_unary_op by number, as `ops` numbers them."""

GLU_OPS = kinds("GLU")
"""ggml_glu_op by number, as `ops` numbers them."""

CUSTOM_OPS: frozenset[str] = frozenset({"MAP_CUSTOM1", "MAP_CUSTOM2", "MAP_CUSTOM3", "CUSTOM"})
"""Ops whose op_params hold function pointers (CVE-2026-78147, llama.cpp #25289): never computed."""

VIEW_OPS: frozenset[str] = frozenset({"NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE"})
"""Ops that compute nothing: their tensor shows bytes that are there already."""
