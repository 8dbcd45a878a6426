"""What the kernels, in C and in CUDA, know of how ops changed from version to version."""

from __future__ import annotations

from typing import Final

CHANGES: Final = frozenset({
    "ARGSORT.ties", "CLAMP.strides", "CONCAT.blocks", "CONCAT.rows", "CONV_2D_DW.f16", "CONV_TRANSPOSE_2D.images",
    "DSV4_HC_POST.no-comb", "DSV4_HC_PRE.scale", "FILL.f16", "FLASH_ATTN_EXT.hidden", "GATED_DELTA_NET.snapshots",
    "GATED_DELTA_NET.state-slots", "GLU.bf16", "IM2COL.kernel", "IM2COL_3D.kernel", "IM2COL_BACK.f16", "L2_NORM.strides",
    "MUL_MAT.f16-activations", "MUL_MAT.hint", "NORM.strides", "OUT_PROD.f16", "PAD.before", "POOL_1D.nan", "POOL_2D.nan",
    "ROPE.offset", "ROPE_BACK.offset", "SCALE.bf16", "SET_ROWS.f16", "SSM_SCAN.groups", "SSM_SCAN.snapshots",
    "TIMESTEP_EMBEDDING.odd", "UNARY.bf16",
})  # fmt: skip
"""Ids in `spec.op_changes` that the kernels know; nodes of an op with another change are the oracle's.

Where a change is of types or strides, a kernel knows it by taking them or not; where it is of the meaning, by `changes` of its
geometry. One that only some kernels know is taken away in the backend of the others.
"""
