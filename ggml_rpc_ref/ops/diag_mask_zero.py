"""DIAG_MASK_ZERO: replace the elements right of a diagonal by 0.

    dst[i3][i2][j][i] = 0 for i > n_past + j, else src0[i3][i2][j][i]

src0: F32, dense rows. dst: F32, the same ne; may be src0's own memory. n_past must not be negative. Elements that are kept are
copied bit by bit; those that are replaced may be NaN. Empty: nothing is computed. A view with gaps is accepted only in place,
and only with evenly spaced matrices, as upstream steps from one to the next by nb[2].

Source: ggml_compute_forward_diag_mask_f32 in ggml-cpu/ops.cpp.
"""

from ggml_rpc_ref.ops.shared.diag_mask import diag_mask_op

OP = diag_mask_op("DIAG_MASK_ZERO", 0.0)
