/* Numbers of types, ops and kinds, and a reader for each op parameter. Written by `ggml-rpc-ref gen`. */
#pragma once
#include <stdint.h>
#include <string.h>

#ifndef READER /* CUDA has words of its own for both */
#define READER static inline
#define TABLE static const
#endif

enum ggml_type {
    GGML_TYPE_F32 = 0,
    GGML_TYPE_F16 = 1,
    GGML_TYPE_Q4_0 = 2,
    GGML_TYPE_Q4_1 = 3,
    GGML_TYPE_Q5_0 = 6,
    GGML_TYPE_Q5_1 = 7,
    GGML_TYPE_Q8_0 = 8,
    GGML_TYPE_Q8_1 = 9,
    GGML_TYPE_Q2_K = 10,
    GGML_TYPE_Q3_K = 11,
    GGML_TYPE_Q4_K = 12,
    GGML_TYPE_Q5_K = 13,
    GGML_TYPE_Q6_K = 14,
    GGML_TYPE_Q8_K = 15,
    GGML_TYPE_IQ2_XXS = 16,
    GGML_TYPE_IQ2_XS = 17,
    GGML_TYPE_IQ3_XXS = 18,
    GGML_TYPE_IQ1_S = 19,
    GGML_TYPE_IQ4_NL = 20,
    GGML_TYPE_IQ3_S = 21,
    GGML_TYPE_IQ2_S = 22,
    GGML_TYPE_IQ4_XS = 23,
    GGML_TYPE_I8 = 24,
    GGML_TYPE_I16 = 25,
    GGML_TYPE_I32 = 26,
    GGML_TYPE_I64 = 27,
    GGML_TYPE_F64 = 28,
    GGML_TYPE_IQ1_M = 29,
    GGML_TYPE_BF16 = 30,
    GGML_TYPE_TQ1_0 = 34,
    GGML_TYPE_TQ2_0 = 35,
    GGML_TYPE_MXFP4 = 39,
    GGML_TYPE_NVFP4 = 40,
    GGML_TYPE_Q1_0 = 41,
    GGML_TYPE_Q2_0 = 42,
};

#define TYPES 43

/* Elements of a block. */
TABLE int16_t type_block[TYPES] = {
    1, /* F32 */
    1, /* F16 */
    32, /* Q4_0 */
    32, /* Q4_1 */
    0,
    0,
    32, /* Q5_0 */
    32, /* Q5_1 */
    32, /* Q8_0 */
    32, /* Q8_1 */
    256, /* Q2_K */
    256, /* Q3_K */
    256, /* Q4_K */
    256, /* Q5_K */
    256, /* Q6_K */
    256, /* Q8_K */
    256, /* IQ2_XXS */
    256, /* IQ2_XS */
    256, /* IQ3_XXS */
    256, /* IQ1_S */
    32, /* IQ4_NL */
    256, /* IQ3_S */
    256, /* IQ2_S */
    256, /* IQ4_XS */
    1, /* I8 */
    1, /* I16 */
    1, /* I32 */
    1, /* I64 */
    1, /* F64 */
    256, /* IQ1_M */
    1, /* BF16 */
    0,
    0,
    0,
    256, /* TQ1_0 */
    256, /* TQ2_0 */
    0,
    0,
    0,
    32, /* MXFP4 */
    64, /* NVFP4 */
    128, /* Q1_0 */
    64, /* Q2_0 */
};

/* Bytes of a block. */
TABLE int16_t type_size[TYPES] = {
    4, /* F32 */
    2, /* F16 */
    18, /* Q4_0 */
    20, /* Q4_1 */
    0,
    0,
    22, /* Q5_0 */
    24, /* Q5_1 */
    34, /* Q8_0 */
    36, /* Q8_1 */
    84, /* Q2_K */
    110, /* Q3_K */
    144, /* Q4_K */
    176, /* Q5_K */
    210, /* Q6_K */
    292, /* Q8_K */
    66, /* IQ2_XXS */
    74, /* IQ2_XS */
    98, /* IQ3_XXS */
    50, /* IQ1_S */
    18, /* IQ4_NL */
    110, /* IQ3_S */
    82, /* IQ2_S */
    136, /* IQ4_XS */
    1, /* I8 */
    2, /* I16 */
    4, /* I32 */
    8, /* I64 */
    8, /* F64 */
    56, /* IQ1_M */
    2, /* BF16 */
    0,
    0,
    0,
    54, /* TQ1_0 */
    66, /* TQ2_0 */
    0,
    0,
    0,
    17, /* MXFP4 */
    36, /* NVFP4 */
    18, /* Q1_0 */
    18, /* Q2_0 */
};

/* Places in the newest version's table; on the wire an op may have another number. */

enum ggml_op {
    GGML_OP_NONE = 0,
    GGML_OP_DUP = 1,
    GGML_OP_ADD = 2,
    GGML_OP_ADD_ID = 3,
    GGML_OP_ADD1 = 4,
    GGML_OP_ACC = 5,
    GGML_OP_SUB = 6,
    GGML_OP_MUL = 7,
    GGML_OP_DIV = 8,
    GGML_OP_SQR = 9,
    GGML_OP_SQRT = 10,
    GGML_OP_LOG = 11,
    GGML_OP_SIN = 12,
    GGML_OP_COS = 13,
    GGML_OP_SUM = 14,
    GGML_OP_SUM_ROWS = 15,
    GGML_OP_CUMSUM = 16,
    GGML_OP_MEAN = 17,
    GGML_OP_ARGMAX = 18,
    GGML_OP_COUNT_EQUAL = 19,
    GGML_OP_REPEAT = 20,
    GGML_OP_REPEAT_BACK = 21,
    GGML_OP_CONCAT = 22,
    GGML_OP_SILU_BACK = 23,
    GGML_OP_NORM = 24,
    GGML_OP_RMS_NORM = 25,
    GGML_OP_RMS_NORM_BACK = 26,
    GGML_OP_GROUP_NORM = 27,
    GGML_OP_L2_NORM = 28,
    GGML_OP_MUL_MAT = 29,
    GGML_OP_MUL_MAT_ID = 30,
    GGML_OP_OUT_PROD = 31,
    GGML_OP_SCALE = 32,
    GGML_OP_SET = 33,
    GGML_OP_CPY = 34,
    GGML_OP_CONT = 35,
    GGML_OP_RESHAPE = 36,
    GGML_OP_VIEW = 37,
    GGML_OP_PERMUTE = 38,
    GGML_OP_TRANSPOSE = 39,
    GGML_OP_GET_ROWS = 40,
    GGML_OP_GET_ROWS_BACK = 41,
    GGML_OP_SET_ROWS = 42,
    GGML_OP_DIAG = 43,
    GGML_OP_DIAG_MASK_INF = 44,
    GGML_OP_DIAG_MASK_ZERO = 45,
    GGML_OP_SOFT_MAX = 46,
    GGML_OP_SOFT_MAX_BACK = 47,
    GGML_OP_ROPE = 48,
    GGML_OP_ROPE_BACK = 49,
    GGML_OP_CLAMP = 50,
    GGML_OP_CONV_TRANSPOSE_1D = 51,
    GGML_OP_IM2COL = 52,
    GGML_OP_IM2COL_BACK = 53,
    GGML_OP_IM2COL_3D = 54,
    GGML_OP_COL2IM_1D = 55,
    GGML_OP_CONV_2D = 56,
    GGML_OP_CONV_3D = 57,
    GGML_OP_CONV_2D_DW = 58,
    GGML_OP_CONV_TRANSPOSE_2D = 59,
    GGML_OP_POOL_1D = 60,
    GGML_OP_POOL_2D = 61,
    GGML_OP_POOL_2D_BACK = 62,
    GGML_OP_UPSCALE = 63,
    GGML_OP_PAD = 64,
    GGML_OP_PAD_REFLECT_1D = 65,
    GGML_OP_ROLL = 66,
    GGML_OP_ARANGE = 67,
    GGML_OP_TIMESTEP_EMBEDDING = 68,
    GGML_OP_ARGSORT = 69,
    GGML_OP_TOP_K = 70,
    GGML_OP_LEAKY_RELU = 71,
    GGML_OP_TRI = 72,
    GGML_OP_FILL = 73,
    GGML_OP_FLASH_ATTN_EXT = 74,
    GGML_OP_FLASH_ATTN_BACK = 75,
    GGML_OP_SSM_CONV = 76,
    GGML_OP_SSM_SCAN = 77,
    GGML_OP_WIN_PART = 78,
    GGML_OP_WIN_UNPART = 79,
    GGML_OP_GET_REL_POS = 80,
    GGML_OP_ADD_REL_POS = 81,
    GGML_OP_RWKV_WKV6 = 82,
    GGML_OP_GATED_LINEAR_ATTN = 83,
    GGML_OP_RWKV_WKV7 = 84,
    GGML_OP_SOLVE_TRI = 85,
    GGML_OP_GATED_DELTA_NET = 86,
    GGML_OP_LIGHTNING_INDEXER = 87,
    GGML_OP_DSV4_HC_COMB = 88,
    GGML_OP_DSV4_HC_PRE = 89,
    GGML_OP_DSV4_HC_POST = 90,
    GGML_OP_UNARY = 91,
    GGML_OP_MAP_CUSTOM1 = 92,
    GGML_OP_MAP_CUSTOM2 = 93,
    GGML_OP_MAP_CUSTOM3 = 94,
    GGML_OP_CUSTOM = 95,
    GGML_OP_CROSS_ENTROPY_LOSS = 96,
    GGML_OP_CROSS_ENTROPY_LOSS_BACK = 97,
    GGML_OP_OPT_STEP_ADAMW = 98,
    GGML_OP_OPT_STEP_SGD = 99,
    GGML_OP_GLU = 100,
};

#define OPS 101

enum ggml_unary_op {
    GGML_UNARY_OP_ABS = 0,
    GGML_UNARY_OP_SGN = 1,
    GGML_UNARY_OP_NEG = 2,
    GGML_UNARY_OP_STEP = 3,
    GGML_UNARY_OP_TANH = 4,
    GGML_UNARY_OP_ELU = 5,
    GGML_UNARY_OP_RELU = 6,
    GGML_UNARY_OP_SIGMOID = 7,
    GGML_UNARY_OP_GELU = 8,
    GGML_UNARY_OP_GELU_QUICK = 9,
    GGML_UNARY_OP_SILU = 10,
    GGML_UNARY_OP_HARDSWISH = 11,
    GGML_UNARY_OP_HARDSIGMOID = 12,
    GGML_UNARY_OP_EXP = 13,
    GGML_UNARY_OP_EXPM1 = 14,
    GGML_UNARY_OP_SOFTPLUS = 15,
    GGML_UNARY_OP_GELU_ERF = 16,
    GGML_UNARY_OP_XIELU = 17,
    GGML_UNARY_OP_FLOOR = 18,
    GGML_UNARY_OP_CEIL = 19,
    GGML_UNARY_OP_ROUND = 20,
    GGML_UNARY_OP_TRUNC = 21,
};

enum ggml_glu_op {
    GGML_GLU_OP_REGLU = 0,
    GGML_GLU_OP_GEGLU = 1,
    GGML_GLU_OP_SWIGLU = 2,
    GGML_GLU_OP_SWIGLU_OAI = 3,
    GGML_GLU_OP_GEGLU_ERF = 4,
    GGML_GLU_OP_GEGLU_QUICK = 5,
    GGML_GLU_OP_SWIGLU_CLAMP = 6,
};

/* Rows of `spec.op_changes`, by number. */

enum change {
    CHANGE_PAD_BEFORE = 0,
    CHANGE_SSM_SCAN_GROUPS = 1,
    CHANGE_TIMESTEP_EMBEDDING_ODD = 2,
    CHANGE_FLASH_ATTN_EXT_HIDDEN = 3,
    CHANGE_SET_ROWS_I32 = 4,
    CHANGE_ADD_I32 = 5,
    CHANGE_CPY_I32 = 6,
    CHANGE_CPY_BF16 = 7,
    CHANGE_ARGSORT_TIES = 8,
    CHANGE_ROPE_IMROPE = 9,
    CHANGE_ROPE_BACK_IMROPE = 10,
    CHANGE_UPSCALE_MODES = 11,
    CHANGE_PAD_CIRCULAR = 12,
    CHANGE_PAD_STRIDES = 13,
    CHANGE_POOL_1D_WINDOWS = 14,
    CHANGE_POOL_1D_NAN = 15,
    CHANGE_POOL_2D_NAN = 16,
    CHANGE_ADD_GAPS = 17,
    CHANGE_SUB_GAPS = 18,
    CHANGE_MUL_GAPS = 19,
    CHANGE_DIV_GAPS = 20,
    CHANGE_UNARY_ROWS = 21,
    CHANGE_SQR_ROWS = 22,
    CHANGE_SQRT_ROWS = 23,
    CHANGE_LOG_ROWS = 24,
    CHANGE_SIN_ROWS = 25,
    CHANGE_COS_ROWS = 26,
    CHANGE_IM2COL_F16 = 27,
    CHANGE_CONV_TRANSPOSE_2D_F32 = 28,
    CHANGE_FILL_F16 = 29,
    CHANGE_MUL_MAT_HINT = 30,
    CHANGE_GATED_DELTA_NET_STATE_SLOTS = 31,
    CHANGE_CONCAT_BLOCKS = 32,
    CHANGE_NORM_STRIDES = 33,
    CHANGE_L2_NORM_STRIDES = 34,
    CHANGE_GATED_DELTA_NET_SNAPSHOTS = 35,
    CHANGE_SET_ROWS_F16 = 36,
    CHANGE_CONV_2D_DW_F16 = 37,
    CHANGE_OUT_PROD_F16 = 38,
    CHANGE_IM2COL_KERNEL = 39,
    CHANGE_IM2COL_3D_KERNEL = 40,
    CHANGE_IM2COL_BACK_F16 = 41,
    CHANGE_SSM_SCAN_SNAPSHOTS = 42,
    CHANGE_ROPE_OFFSET = 43,
    CHANGE_ROPE_BACK_OFFSET = 44,
    CHANGE_CONCAT_ROWS = 45,
    CHANGE_CONV_TRANSPOSE_2D_IMAGES = 46,
    CHANGE_UNARY_BF16 = 47,
    CHANGE_GLU_BF16 = 48,
    CHANGE_SCALE_BF16 = 49,
    CHANGE_DSV4_HC_PRE_SCALE = 50,
    CHANGE_DSV4_HC_POST_NO_COMB = 51,
    CHANGE_MUL_MAT_F16_ACTIVATIONS = 52,
    CHANGE_CLAMP_STRIDES = 53,
};

READER int32_t acc_nb1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER int32_t acc_nb2(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}
READER int32_t acc_nb3(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 2, sizeof value);
    return value;
}
READER int32_t acc_offset(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 3, sizeof value);
    return value;
}
READER int32_t acc_inplace(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 4, sizeof value);
    return value;
}

READER int32_t add_rel_pos_inplace(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER float arange_start(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER float arange_stop(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}
READER float arange_step(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 2, sizeof value);
    return value;
}

READER int32_t argsort_order(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER float clamp_min(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER float clamp_max(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}

READER int32_t col2im_1d_s0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER int32_t col2im_1d_oc(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}
READER int32_t col2im_1d_p0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 2, sizeof value);
    return value;
}

READER int32_t concat_dim(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER int32_t conv_2d_s0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER int32_t conv_2d_s1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}
READER int32_t conv_2d_p0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 2, sizeof value);
    return value;
}
READER int32_t conv_2d_p1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 3, sizeof value);
    return value;
}
READER int32_t conv_2d_d0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 4, sizeof value);
    return value;
}
READER int32_t conv_2d_d1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 5, sizeof value);
    return value;
}

READER int32_t conv_2d_dw_s0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER int32_t conv_2d_dw_s1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}
READER int32_t conv_2d_dw_p0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 2, sizeof value);
    return value;
}
READER int32_t conv_2d_dw_p1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 3, sizeof value);
    return value;
}
READER int32_t conv_2d_dw_d0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 4, sizeof value);
    return value;
}
READER int32_t conv_2d_dw_d1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 5, sizeof value);
    return value;
}

READER int32_t conv_3d_s0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER int32_t conv_3d_s1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}
READER int32_t conv_3d_s2(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 2, sizeof value);
    return value;
}
READER int32_t conv_3d_p0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 3, sizeof value);
    return value;
}
READER int32_t conv_3d_p1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 4, sizeof value);
    return value;
}
READER int32_t conv_3d_p2(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 5, sizeof value);
    return value;
}
READER int32_t conv_3d_d0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 6, sizeof value);
    return value;
}
READER int32_t conv_3d_d1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 7, sizeof value);
    return value;
}
READER int32_t conv_3d_d2(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 8, sizeof value);
    return value;
}
READER int32_t conv_3d_c(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 9, sizeof value);
    return value;
}
READER int32_t conv_3d_n(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 10, sizeof value);
    return value;
}
READER int32_t conv_3d_oc(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 11, sizeof value);
    return value;
}

READER int32_t conv_transpose_1d_s0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER int32_t conv_transpose_1d_p0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}
READER int32_t conv_transpose_1d_d0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 2, sizeof value);
    return value;
}

READER int32_t conv_transpose_2d_stride(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER int32_t diag_mask_inf_n_past(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER int32_t diag_mask_zero_n_past(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER float dsv4_hc_comb_eps(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER int32_t dsv4_hc_comb_n_iter(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}

READER float dsv4_hc_pre_scale(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER int32_t dsv4_hc_pre_gated(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}

READER float fill_c(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER int32_t flash_attn_back_masked(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER float flash_attn_ext_scale(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER float flash_attn_ext_max_bias(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}
READER float flash_attn_ext_logit_softcap(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 2, sizeof value);
    return value;
}
READER int32_t flash_attn_ext_prec(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 3, sizeof value);
    return value;
}

READER int32_t gated_delta_net_snapshots(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER float gated_linear_attn_scale(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER int32_t glu_kind(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER int32_t glu_swapped(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}
READER float glu_alpha(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 2, sizeof value);
    return value;
}
READER float glu_limit(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 3, sizeof value);
    return value;
}

READER int32_t group_norm_n_groups(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER float group_norm_eps(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}

READER int32_t im2col_s0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER int32_t im2col_s1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}
READER int32_t im2col_p0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 2, sizeof value);
    return value;
}
READER int32_t im2col_p1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 3, sizeof value);
    return value;
}
READER int32_t im2col_d0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 4, sizeof value);
    return value;
}
READER int32_t im2col_d1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 5, sizeof value);
    return value;
}
READER int32_t im2col_is_2D(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 6, sizeof value);
    return value;
}

READER int32_t im2col_3d_s0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER int32_t im2col_3d_s1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}
READER int32_t im2col_3d_s2(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 2, sizeof value);
    return value;
}
READER int32_t im2col_3d_p0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 3, sizeof value);
    return value;
}
READER int32_t im2col_3d_p1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 4, sizeof value);
    return value;
}
READER int32_t im2col_3d_p2(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 5, sizeof value);
    return value;
}
READER int32_t im2col_3d_d0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 6, sizeof value);
    return value;
}
READER int32_t im2col_3d_d1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 7, sizeof value);
    return value;
}
READER int32_t im2col_3d_d2(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 8, sizeof value);
    return value;
}
READER int32_t im2col_3d_IC(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 9, sizeof value);
    return value;
}

READER int32_t im2col_back_s0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER int32_t im2col_back_s1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}
READER int32_t im2col_back_p0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 2, sizeof value);
    return value;
}
READER int32_t im2col_back_p1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 3, sizeof value);
    return value;
}
READER int32_t im2col_back_d0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 4, sizeof value);
    return value;
}
READER int32_t im2col_back_d1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 5, sizeof value);
    return value;
}
READER int32_t im2col_back_is_2D(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 6, sizeof value);
    return value;
}

READER float l2_norm_eps(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER float leaky_relu_negative_slope(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER int32_t mul_mat_prec(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER int32_t mul_mat_hint(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}

READER float norm_eps(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER int32_t pad_padding(const struct geometry *g, int i)
{
    int32_t value;
    memcpy(&value, g->op_params + 0 + 1 * i, sizeof value);
    return value;
}
READER int32_t pad_circular(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 8, sizeof value);
    return value;
}

READER int32_t pad_reflect_1d_p0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER int32_t pad_reflect_1d_p1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}

READER int32_t permute_axes(const struct geometry *g, int i)
{
    int32_t value;
    memcpy(&value, g->op_params + 0 + 1 * i, sizeof value);
    return value;
}

READER int32_t pool_1d_op(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER int32_t pool_1d_k0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}
READER int32_t pool_1d_s0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 2, sizeof value);
    return value;
}
READER int32_t pool_1d_p0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 3, sizeof value);
    return value;
}

READER int32_t pool_2d_op(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER int32_t pool_2d_k0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}
READER int32_t pool_2d_k1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 2, sizeof value);
    return value;
}
READER int32_t pool_2d_s0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 3, sizeof value);
    return value;
}
READER int32_t pool_2d_s1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 4, sizeof value);
    return value;
}
READER int32_t pool_2d_p0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 5, sizeof value);
    return value;
}
READER int32_t pool_2d_p1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 6, sizeof value);
    return value;
}

READER int32_t pool_2d_back_op(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER int32_t pool_2d_back_k0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}
READER int32_t pool_2d_back_k1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 2, sizeof value);
    return value;
}
READER int32_t pool_2d_back_s0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 3, sizeof value);
    return value;
}
READER int32_t pool_2d_back_s1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 4, sizeof value);
    return value;
}
READER int32_t pool_2d_back_p0(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 5, sizeof value);
    return value;
}
READER int32_t pool_2d_back_p1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 6, sizeof value);
    return value;
}

READER float rms_norm_eps(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER float rms_norm_back_eps(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER int32_t roll_shift(const struct geometry *g, int i)
{
    int32_t value;
    memcpy(&value, g->op_params + 0 + 1 * i, sizeof value);
    return value;
}

READER int32_t rope_n_dims(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}
READER int32_t rope_mode(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 2, sizeof value);
    return value;
}
READER int32_t rope_n_ctx_orig(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 4, sizeof value);
    return value;
}
READER float rope_freq_base(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 5, sizeof value);
    return value;
}
READER float rope_freq_scale(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 6, sizeof value);
    return value;
}
READER float rope_ext_factor(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 7, sizeof value);
    return value;
}
READER float rope_attn_factor(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 8, sizeof value);
    return value;
}
READER float rope_beta_fast(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 9, sizeof value);
    return value;
}
READER float rope_beta_slow(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 10, sizeof value);
    return value;
}
READER int32_t rope_sections(const struct geometry *g, int i)
{
    int32_t value;
    memcpy(&value, g->op_params + 11 + 1 * i, sizeof value);
    return value;
}
READER int32_t rope_n_offs(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 15, sizeof value);
    return value;
}

READER int32_t rope_back_n_dims(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}
READER int32_t rope_back_mode(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 2, sizeof value);
    return value;
}
READER int32_t rope_back_n_ctx_orig(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 4, sizeof value);
    return value;
}
READER float rope_back_freq_base(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 5, sizeof value);
    return value;
}
READER float rope_back_freq_scale(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 6, sizeof value);
    return value;
}
READER float rope_back_ext_factor(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 7, sizeof value);
    return value;
}
READER float rope_back_attn_factor(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 8, sizeof value);
    return value;
}
READER float rope_back_beta_fast(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 9, sizeof value);
    return value;
}
READER float rope_back_beta_slow(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 10, sizeof value);
    return value;
}
READER int32_t rope_back_sections(const struct geometry *g, int i)
{
    int32_t value;
    memcpy(&value, g->op_params + 11 + 1 * i, sizeof value);
    return value;
}
READER int32_t rope_back_n_offs(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 15, sizeof value);
    return value;
}

READER float scale_scale(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER float scale_bias(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}

READER int32_t set_nb1(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER int32_t set_nb2(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}
READER int32_t set_nb3(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 2, sizeof value);
    return value;
}
READER int32_t set_offset(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 3, sizeof value);
    return value;
}
READER int32_t set_inplace(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 4, sizeof value);
    return value;
}

READER float soft_max_scale(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER float soft_max_max_bias(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}

READER float soft_max_back_scale(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER float soft_max_back_max_bias(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}

READER int32_t ssm_scan_snapshots(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER int32_t timestep_embedding_dim(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER int32_t timestep_embedding_max_period(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}

READER int32_t tri_type(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER int32_t unary_kind(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER float unary_alpha_n(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}
READER float unary_alpha_p(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 2, sizeof value);
    return value;
}
READER float unary_beta(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 3, sizeof value);
    return value;
}
READER float unary_eps(const struct geometry *g)
{
    float value;
    memcpy(&value, g->op_params + 4, sizeof value);
    return value;
}

READER int32_t upscale_mode(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER int64_t view_offset(const struct geometry *g)
{
    int64_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER int32_t win_part_npx(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
READER int32_t win_part_npy(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 1, sizeof value);
    return value;
}
READER int32_t win_part_w(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 2, sizeof value);
    return value;
}

READER int32_t win_unpart_w(const struct geometry *g)
{
    int32_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER int64_t custom_fun(const struct geometry *g)
{
    int64_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER int64_t map_custom1_fun(const struct geometry *g)
{
    int64_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER int64_t map_custom2_fun(const struct geometry *g)
{
    int64_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}

READER int64_t map_custom3_fun(const struct geometry *g)
{
    int64_t value;
    memcpy(&value, g->op_params + 0, sizeof value);
    return value;
}
