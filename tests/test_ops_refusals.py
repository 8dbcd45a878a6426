"""Every sentence of a shape rule bites: one row per thing that an op cannot mean, made from a good node by one change.

A row names the op, one of its cases, what is changed, and the words of the refusal, so that no other rule can hide a missing one.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops import OPS
from ggml_rpc_ref.ops.cases import cases_of, recipes
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.tensor import Tensor, contiguous_nb
from tests.support.each import each

Changes = dict[str, dict[str, Any]]

ROWS: list[tuple[str, str, Changes, str]] = [
    # --- IM2COL
    ("IM2COL", "plain", {"src0": {"ne": (3, 3, 4, 2)}}, "3 channels in the kernel"),
    ("IM2COL", "plain", {"src1": {"nb": (4, 44, 440, 1320)}}, "image planes without gaps"),
    ("IM2COL", "flat", {"src0": {"ne": (3, 5, 5)}}, "4 channels in the kernel"),
    ("IM2COL", "flat", {"src1": {"ne": (11, 4, 3, 2)}}, "src1.ne[3] == 1"),
    ("IM2COL", "plain", {"src0": {"ne": (13, 3, 3, 2)}, "dst": {"ne": (117, 0, 9, 2)}}, "an image at least as large as the kernel"),
    ("IM2COL", "plain", {"dst": {"ne": (27, 8, 10, 2)}}, "need ne (27, 8, 9, 2)"),
    ("IM2COL", "flat", {"dst": {"ne": (12, 8, 3)}}, "need ne (12, 9, 3, 1)"),
    ("IM2COL", "plain", {"dst": {"nb": (4, 112, 896, 8064)}}, "a contiguous result"),
    ("IM2COL", "plain", {"src1": {"dtype": "F16"}}, "an F32 image for an F32 result"),
    ("IM2COL", "plain", {"dst": {"dtype": "F16"}}, "an F16 kernel for an F16 result"),
    ("IM2COL", "special-f16", {"src0": {"nb": (4, 12, 24, 72)}}, "src0.nb[0] == 2"),
    ("IM2COL", "flat", {"src1": {"nb": (8, 88, 352, 1056)}}, "src1.nb[0] == 4"),
    ("IM2COL", "plain", {"params": {"s0": 0}}, "s0 >= 1"),
    ("IM2COL", "plain", {"params": {"s1": -1}}, "s1 >= 1"),
    # --- IM2COL_BACK
    ("IM2COL_BACK", "plain", {"src0": {"nb": (4, 112, 896, 8064)}}, "a contiguous gradient"),
    ("IM2COL_BACK", "plain", {"dst": {"nb": (8, 80, 880, 2640)}}, "nb[0] == 4"),
    ("IM2COL_BACK", "plain", {"dst": {"nb": (4, 40, 0, 0)}}, "elements share no bytes"),
    ("IM2COL_BACK", "plain", {"src0": {"ne": (27, 8, 9, 3)}}, "2 images in the gradient"),
    ("IM2COL_BACK", "plain", {"dst": {"nb": (4, 44, 484, 1452)}}, "planes without gaps"),
    ("IM2COL_BACK", "flat", {"src0": {"ne": (12, 9, 2)}}, "ne[2:] == (3, 1) in the gradient"),
    ("IM2COL_BACK", "flat", {"dst": {"ne": (11, 4, 3, 2)}}, "ne[3] == 1 in one dimension"),
    ("IM2COL_BACK", "plain", {"src0": {"ne": (28, 8, 9, 2)}}, "src0.ne[0] == 9 * 3"),
    ("IM2COL_BACK", "plain", {"params": {"s0": 0}}, "s0 >= 1"),
    # --- IM2COL_3D
    ("IM2COL_3D", "plain", {"dst": {"dtype": "F16"}}, "an F16 kernel for an F16 result"),
    ("IM2COL_3D", "plain", {"src1": {"nb": (8, 48, 240, 960)}}, "src1.nb[0] == 4"),
    ("IM2COL_3D", "two-volumes", {"params": {"IC": 7}}, "IC from 1 to src1.ne[3] = 6"),
    ("IM2COL_3D", "two-volumes", {"params": {"IC": 0}}, "IC from 1 to"),
    ("IM2COL_3D", "two-volumes", {"params": {"IC": -3}}, "IC from 1 to"),
    ("IM2COL_3D", "plain", {"src0": {"ne": (3, 3, 5, 3)}, "dst": {"ne": (135, 4, 3, 0)}}, "volumes at least as large"),
    ("IM2COL_3D", "plain", {"dst": {"ne": (81, 4, 3, 3)}}, "need ne (81, 4, 3, 2)"),
    ("IM2COL_3D", "plain", {"dst": {"nb": (4, 328, 1312, 3936)}}, "a contiguous result"),
    # --- CONV_2D
    ("CONV_2D", "plain-f32", {"src0": {"nb": (4, 12, 40, 120)}}, "a contiguous kernel"),
    ("CONV_2D", "plain-f32", {"src1": {"ne": (10, 11, 4, 2)}}, "4 channels in the kernel"),
    ("CONV_2D", "plain-f32", {"dst": {"ne": (8, 9, 4, 3)}}, "need ne (8, 9, 4, 2)"),
    ("CONV_2D", "plain-f32", {"dst": {"nb": (4, 32, 0, 288)}}, "elements share no bytes"),
    ("CONV_2D", "plain-f32", {"params": {"s1": 0}}, "s1 >= 1"),
    # --- CONV_3D
    ("CONV_3D", "plain-f32", {"params": {"c": -3, "n": -2, "oc": -4}}, "c, n and oc >= 1"),
    ("CONV_3D", "plain-f32", {"src0": {"nb": (4, 12, 36, 112)}}, "a contiguous kernel"),
    ("CONV_3D", "plain-f32", {"src0": {"ne": (3, 3, 3, 11)}}, "src0.ne[3] == 3 * 4"),
    ("CONV_3D", "plain-f32", {"src1": {"ne": (6, 5, 4, 7)}}, "src1.ne[3] == 3 * 2"),
    ("CONV_3D", "plain-f32", {"dst": {"ne": (4, 3, 2, 9)}}, "need ne (4, 3, 2, 8)"),
    ("CONV_3D", "plain-f32", {"dst": {"nb": (4, 16, 48, 0)}}, "elements share no bytes"),
    # --- CONV_2D_DW
    ("CONV_2D_DW", "plain-whcn", {"src0": {"ne": (3, 3, 2, 3)}}, "src0.ne[2:] == (1, 3)"),
    ("CONV_2D_DW", "plain-whcn", {"src0": {"ne": (3, 3, 1, 4)}}, "src0.ne[2:] == (1, 3)"),
    ("CONV_2D_DW", "plain-whcn", {"dst": {"ne": (8, 9, 3, 3)}}, "need ne (8, 9, 3, 2)"),
    ("CONV_2D_DW", "plain-whcn", {"src0": {"nb": (4, 12, 36, 40)}}, "a contiguous kernel"),
    ("CONV_2D_DW", "plain-whcn", {"dst": {"nb": (12, 96, 4, 864)}}, "a contiguous result"),
    ("CONV_2D_DW", "plain-cwhn", {"src1": {"nb": (16, 160, 4, 1760)}}, "images with nb"),
    ("CONV_2D_DW", "plain-cwhn", {"src0": {"nb": (4, 12, 36, 36)}}, "kernel with nb"),
    ("CONV_2D_DW", "plain-cwhn", {"dst": {"nb": (4, 32, 288, 864)}}, "result with nb"),
    (
        "CONV_2D_DW",
        "plain-cwhn",
        {"src1": {"ne": (1, 11, 3, 2), "nb": (4, 12, 4, 132)}, "src0": {"ne": (1, 3, 1, 3), "nb": (12, 12, 12, 4)}}
        | {"dst": {"ne": (1, 9, 3, 2), "nb": (12, 12, 4, 108)}},
        "nb[1] > nb[0] > nb[2] == 4",
    ),
    ("CONV_2D_DW", "plain-cwhn", {"src0": {"nb": (12, 36, 999, 4)}}, "nb[1] >= nb[0] >= nb[2]"),
    # --- CONV_TRANSPOSE_1D
    ("CONV_TRANSPOSE_1D", "stride-2", {"src0": {"ne": (3, 2, 4, 2)}}, "a kernel of three dimensions"),
    ("CONV_TRANSPOSE_1D", "stride-2", {"src1": {"ne": (7, 4, 2)}}, "a src1 of two"),
    ("CONV_TRANSPOSE_1D", "stride-2", {"src1": {"ne": (7, 5)}}, "5 input channels in the kernel"),
    ("CONV_TRANSPOSE_1D", "stride-2", {"src0": {"nb": (8, 24, 48, 192)}}, "need src0.nb[0] == "),
    ("CONV_TRANSPOSE_1D", "stride-2", {"src1": {"nb": (8, 56, 224, 224)}}, "need src1.nb[0] == "),
    ("CONV_TRANSPOSE_1D", "stride-2", {"params": {"p0": 1}}, "p0 == 0 and d0 == 1"),
    ("CONV_TRANSPOSE_1D", "stride-2", {"params": {"d0": 2}}, "p0 == 0 and d0 == 1"),
    ("CONV_TRANSPOSE_1D", "one-element", {"params": {"s0": -1}}, "s0 >= 1"),
    ("CONV_TRANSPOSE_1D", "stride-2", {"dst": {"ne": (14, 2)}}, "need ne (15, 2, 1, 1)"),
    ("CONV_TRANSPOSE_1D", "stride-2", {"dst": {"nb": (4, 64, 128, 128)}}, "a contiguous result"),
    # --- CONV_TRANSPOSE_2D
    ("CONV_TRANSPOSE_2D", "stride-2-f32", {"src1": {"ne": (5, 6, 5, 1)}}, "5 input channels in the kernel"),
    ("CONV_TRANSPOSE_2D", "stride-2-f32", {"src0": {"nb": (8, 24, 48, 96)}}, "need src0.nb[0] == "),
    ("CONV_TRANSPOSE_2D", "stride-2-f32", {"src1": {"nb": (8, 40, 240, 960)}}, "need src1.nb[0] == "),
    ("CONV_TRANSPOSE_2D", "stride-2-f32", {"src0": {"nb": (4, 16, 32, 64)}}, "kernel planes without gaps"),
    ("CONV_TRANSPOSE_2D", "one-pixel-f32", {"params": {"stride": 0}}, "stride >= 1"),
    ("CONV_TRANSPOSE_2D", "stride-2-f32", {"dst": {"ne": (11, 12, 2, 2)}}, "need ne (11, 12, 2, 1)"),
    ("CONV_TRANSPOSE_2D", "stride-2-f32", {"dst": {"nb": (4, 48, 576, 1152)}}, "a contiguous result"),
    # --- POOL_1D
    ("POOL_1D", "max-plain", {"params": {"op": 2}}, "op 0 (max) or 1 (mean)"),
    ("POOL_1D", "max-plain", {"dst": {"ne": (9, 3, 2, 3)}}, "ne[1:] (3, 2, 2) as the source"),
    ("POOL_1D", "max-plain", {"dst": {"ne": (13, 3, 2, 2)}}, "as many outputs as windows fit"),
    ("POOL_1D", "max-plain", {"params": {"k0": 0}}, "a window of at least 1"),
    ("POOL_1D", "max-plain", {"params": {"s0": 0}}, "a stride of at least 1"),
    ("POOL_1D", "max-plain", {"params": {"p0": 2**30, "k0": 2**31 - 1}}, "windows whose positions fit an int"),
    ("POOL_1D", "max-plain", {"src0": {"nb": (8, 80, 240, 480)}}, "need src0.nb[0] == "),
    ("POOL_1D", "max-plain", {"dst": {"nb": (8, 72, 216, 432)}}, "need dst.nb[0] == "),
    ("POOL_1D", "max-plain", {"src0": {"nb": (4, 40, 128, 256)}}, "rows that are nb[1] apart"),
    ("POOL_1D", "max-plain", {"dst": {"nb": (4, 36, 108, 220)}}, "rows that are nb[1] apart"),
    ("POOL_1D", "max-plain", {"dst": {"nb": (4, 0, 0, 0)}}, "elements share no bytes"),
    # --- POOL_2D
    ("POOL_2D", "max-plain", {"params": {"op": -1}}, "op 0 (max) or 1 (mean)"),
    ("POOL_2D", "max-plain", {"dst": {"ne": (9, 9, 3, 3)}}, "ne[2:] (3, 2) as the source"),
    ("POOL_2D", "max-plain", {"dst": {"ne": (6, 9, 3, 2)}}, "as many outputs as windows fit"),
    ("POOL_2D", "max-plain", {"dst": {"ne": (9, 12, 3, 2)}}, "as many outputs as windows fit"),
    ("POOL_2D", "max-plain", {"params": {"k1": 0}}, "a window of at least 1"),
    ("POOL_2D", "max-plain", {"params": {"s1": -1}}, "a stride of at least 1"),
    ("POOL_2D", "max-plain", {"params": {"p1": 2**30, "k1": 2**31 - 3}}, "windows whose positions fit an int"),
    (
        "POOL_2D",
        "max-plain",
        {"params": {"k0": 2**20, "p0": 2**19, "k1": 2**20, "p1": 2**19}, "dst": {"ne": (11, 12, 3, 2)}},
        "k0 * k1 < 2^31",
    ),
    (
        "POOL_2D",
        "max-plain",
        {"src0": {"ne": (0, 11, 3, 2)}, "params": {"p0": 3}, "dst": {"ne": (5, 9, 3, 2)}},
        "a source with elements",
    ),
    ("POOL_2D", "max-plain", {"dst": {"nb": (4, 40, 360, 1080)}}, "a contiguous result"),
    ("POOL_2D", "max-plain", {"src0": {"nb": (8, 80, 880, 2640)}}, "need src0.nb[0] == "),
    ("POOL_2D", "max-plain", {"src0": {"nb": (4, 40, 440, 1400)}}, "planes evenly spaced"),
    ("POOL_2D", "max-plain", {"src0": {"nb": (4, 40, 400, 1200)}}, "planes one after the other"),
    # --- POOL_2D_BACK
    ("POOL_2D_BACK", "max-plain", {"params": {"op": 2}}, "op 0 (max) or 1 (mean)"),
    ("POOL_2D_BACK", "max-plain", {"src1": {"ne": (10, 11, 2, 2)}}, "src1.ne (10, 11, 3, 2) as the result"),
    ("POOL_2D_BACK", "max-plain", {"src0": {"ne": (9, 9, 3, 3)}}, "src0.ne[2:] (3, 2) as the result"),
    ("POOL_2D_BACK", "max-plain", {"src0": {"nb": (4, 40, 360, 1080)}}, "src0 to be contiguous"),
    ("POOL_2D_BACK", "max-plain", {"src1": {"nb": (4, 44, 484, 1452)}}, "src1 to be contiguous"),
    ("POOL_2D_BACK", "max-plain", {"dst": {"nb": (4, 44, 484, 1452)}}, "dst to be contiguous"),
    ("POOL_2D_BACK", "max-plain", {"params": {"k0": 0}}, "a window of at least 1"),
    ("POOL_2D_BACK", "max-plain", {"params": {"k0": 2**16, "k1": 2**15}}, "k0 * k1 < 2^31"),
    ("POOL_2D_BACK", "max-plain", {"dst": {"ne": (10, 11, 1, 2), "nb": (4, 40, 444, 440)}}
     | {"src0": {"ne": (9, 9, 1, 2)}, "src1": {"ne": (10, 11, 1, 2)}}, "need nb[2] == 440"),
    # --- UPSCALE
    ("UPSCALE", "nearest-twice", {"params": {"mode": 3}}, "mode & 0xFF 0, 1 or 2"),
    ("UPSCALE", "nearest-twice", {"params": {"mode": 0x200}}, "antialias with bilinear only"),
    ("UPSCALE", "nearest-twice", {"params": {"mode": 0x202}}, "antialias with bilinear only"),
    ("UPSCALE", "nearest-twice", {"src0": {"ne": (0, 11, 3, 2)}}, "a source with elements"),
    ("UPSCALE", "nearest-twice", {"dst": {"nb": (0, 104, 2288, 6864)}}, "elements share no bytes"),
    # --- PAD
    ("PAD", "zeros-all-sides", {"dst": {"ne": (8, 11, 10, 17)}}, "need ne (8, 11, 10, 16)"),
    ("PAD", "zeros-none", {"dst": {"nb": (4, 24, 96, 288)}}, "a contiguous result"),
    (
        "PAD",
        "circular-none",
        {"src0": {"ne": (0, 4, 3, 2)}, "params": {"padding": (0, 5, 0, 0, 0, 0, 0, 0)}},
        "a source with elements",
    ),
    (
        "PAD",
        "circular-none",
        {"params": {"padding": (6, 0, 0, 0, 0, 0, 0, 0)}, "dst": {"ne": (11, 4, 3, 2)}},
        "left paddings of at most (5, 4, 3, 2)",
    ),
    # --- PAD_REFLECT_1D
    ("PAD_REFLECT_1D", "left", {"params": {"p0": 7}, "dst": {"ne": (14, 3)}}, "p0 and p1 from 0 to 6"),
    ("PAD_REFLECT_1D", "left", {"params": {"p0": -1}, "dst": {"ne": (6, 3)}}, "p0 and p1 from 0 to 6"),
    ("PAD_REFLECT_1D", "left", {"params": {"p0": 0, "p1": 7}, "dst": {"ne": (14, 3)}}, "p0 and p1 from 0 to 6"),
    ("PAD_REFLECT_1D", "left", {"dst": {"ne": (13, 3)}}, "need ne (12, 3, 1, 1)"),
    ("PAD_REFLECT_1D", "left", {"src0": {"nb": (8, 56, 168, 168)}}, "need src0.nb[0] == "),
    ("PAD_REFLECT_1D", "left", {"dst": {"nb": (8, 96, 288, 288)}}, "need dst.nb[0] == "),
    ("PAD_REFLECT_1D", "left", {"dst": {"nb": (4, 0, 0, 0)}}, "elements share no bytes"),
    # --- ROLL
    ("ROLL", "all", {"dst": {"ne": (7, 5, 4, 4)}}, "ne (7, 5, 4, 3) as the source"),
    ("ROLL", "all", {"params": {"shift": (7, 0, 0, 0)}}, "shifts by less than (7, 5, 4, 3)"),
    ("ROLL", "all", {"params": {"shift": (0, 0, 0, -3)}}, "shifts by less than (7, 5, 4, 3)"),
    ("ROLL", "all", {"params": {"shift": (0, -(2**31), 0, 0)}}, "shifts by less than"),
    ("ROLL", "all", {"src0": {"nb": (8, 56, 280, 1120)}}, "nb[0] == 4"),
    ("ROLL", "all", {"dst": {"nb": (4, 30, 150, 600)}}, "strides that are multiples of 4"),
    ("ROLL", "all", {"dst": {"nb": (4, 28, 0, 560)}}, "elements share no bytes"),
    # --- TIMESTEP_EMBEDDING
    ("TIMESTEP_EMBEDDING", "dim-32", {"params": {"dim": 33}}, "need ne (33, 5, 1, 1)"),
    ("TIMESTEP_EMBEDDING", "dim-32", {"params": {"dim": -32}}, "need ne (-32, 5, 1, 1)"),
    ("TIMESTEP_EMBEDDING", "dim-32", {"dst": {"ne": (32, 6)}}, "need ne (32, 5, 1, 1)"),
    ("TIMESTEP_EMBEDDING", "dim-32", {"src0": {"nb": (8, 40, 40, 40)}}, "need src0.nb[0] == "),
    ("TIMESTEP_EMBEDDING", "dim-32", {"dst": {"nb": (8, 256, 1280, 1280)}}, "need dst.nb[0] == "),
    ("TIMESTEP_EMBEDDING", "dim-32", {"dst": {"nb": (4, 0, 0, 0)}}, "elements share no bytes"),
    ("TIMESTEP_EMBEDDING", "dim-32", {"src0": {"ne": (5, 0)}}, "need steps"),
    # --- WIN_PART
    ("WIN_PART", "fits", {"params": {"w": 0}}, "w >= 1"),
    ("WIN_PART", "fits", {"src0": {"ne": (5, 8, 12, 2)}}, "src0.ne[3] == 1"),
    ("WIN_PART", "fits", {"params": {"npx": 3}}, "npx, npy == 2, 3"),
    ("WIN_PART", "fits", {"params": {"npy": 2}}, "npx, npy == 2, 3"),
    ("WIN_PART", "fits", {"dst": {"ne": (5, 4, 4, 7)}}, "need ne (5, 4, 4, 6)"),
    ("WIN_PART", "fits", {"src0": {"nb": (4, 24, 192, 2304)}}, "src0 contiguous"),
    ("WIN_PART", "fits", {"dst": {"nb": (4, 20, 84, 336)}}, "dst contiguous"),
    # --- WIN_UNPART
    ("WIN_UNPART", "fits", {"params": {"w": -4}}, "w >= 1"),
    ("WIN_UNPART", "fits", {"dst": {"ne": (6, 8, 12)}}, "need ne (5, W, H, 1)"),
    ("WIN_UNPART", "fits", {"dst": {"ne": (5, 8, 12, 2)}}, "need ne (5, W, H, 1)"),
    ("WIN_UNPART", "fits", {"src0": {"nb": (4, 24, 96, 384)}}, "src0 contiguous"),
    ("WIN_UNPART", "fits", {"dst": {"nb": (4, 24, 192, 2304)}}, "dst contiguous"),
    ("WIN_UNPART", "fits", {"src0": {"ne": (5, 4, 4, 5)}}, "src0.ne at least (C, 4, 4, 6)"),
    ("WIN_UNPART", "fits", {"src0": {"ne": (5, 3, 4, 6)}}, "src0.ne at least (C, 4, 4, 6)"),
    ("WIN_UNPART", "fits", {"src0": {"ne": (5, 4, 3, 6)}}, "src0.ne at least (C, 4, 4, 6)"),
    # --- GET_REL_POS
    ("GET_REL_POS", "f16-5-by-4", {"dst": {"ne": (5, 4, 3)}}, "need ne (5, n, n, 1)"),
    ("GET_REL_POS", "f16-5-by-4", {"dst": {"ne": (6, 4, 4)}}, "need ne (5, n, n, 1)"),
    ("GET_REL_POS", "f16-5-by-4", {"src0": {"ne": (5, 8)}}, "src0.ne[1] == 7"),
    ("GET_REL_POS", "f16-5-by-4", {"src0": {"nb": (2, 12, 84, 84)}}, "src0 contiguous"),
    ("GET_REL_POS", "f16-5-by-4", {"dst": {"nb": (2, 12, 48, 192)}}, "dst contiguous"),
    ("GET_REL_POS", "f16-5-by-4", {"src0": {"ne": (5, 7, 0)}}, "need distances"),
    # --- ADD_REL_POS
    ("ADD_REL_POS", "apart-plain", {"dst": {"ne": (16, 16, 3, 2)}}, "ne (16, 16, 3, 1) as the scores"),
    ("ADD_REL_POS", "apart-plain", {"src1": {"ne": (4, 8, 2, 3)}}, "src1.ne (4, 4, 4, 3) as src2"),
    ("ADD_REL_POS", "apart-plain", {"src1": {"ne": (4, 4, 4, 4)}, "src2": {"ne": (4, 4, 4, 4)}}, "src0.ne (16, 16, 4, ..)"),
    ("ADD_REL_POS", "apart-plain", {"src1": {"nb": (4, 20, 80, 320)}}, "contiguous tensors"),
    ("ADD_REL_POS", "apart-plain", {"src0": {"nb": (4, 68, 1088, 3264)}}, "contiguous tensors"),
    # --- SSM_CONV
    ("SSM_CONV", "kernel-4", {"src0": {"ne": (8, 17, 2, 2)}}, "a src0 of three dimensions"),
    ("SSM_CONV", "kernel-4", {"src1": {"ne": (4, 17, 2)}}, "a kernel of two"),
    ("SSM_CONV", "kernel-4", {"src1": {"ne": (4, 16)}}, "17 channels in the kernel"),
    ("SSM_CONV", "kernel-4", {"dst": {"ne": (17, 6, 2)}}, "need ne (17, 5, 2, 1)"),
    ("SSM_CONV", "kernel-4", {"src0": {"nb": (4, 36, 612, 1224)}}, "src0.nb[:2] == (4, 32)"),
    ("SSM_CONV", "kernel-4", {"src1": {"nb": (4, 20, 340, 340)}}, "a contiguous kernel"),
    ("SSM_CONV", "kernel-4", {"dst": {"nb": (8, 136, 680, 1360)}}, "nb[0] == 4"),
    ("SSM_CONV", "kernel-4", {"dst": {"nb": (4, 0, 68, 136)}}, "elements share no bytes"),
    # --- SSM_SCAN
    ("SSM_SCAN", "mamba-2", {"src1": {"ne": (4, 7, 5, 2)}}, "x.ne[:2] == (4, 6)"),
    ("SSM_SCAN", "mamba-2", {"src2": {"ne": (6, 4, 2)}}, "dt.ne (6, 5, 2)"),
    ("SSM_SCAN", "mamba-2", {"src3": {"ne": (2, 6)}}, "A.ne (1 or 64, 6)"),
    ("SSM_SCAN", "mamba-2", {"src4": {"ne": (64, 3, 5, 2)}}, "ne (64, 3, 5, 2)"),
    ("SSM_SCAN", "mamba-2", {"src5": {"ne": (64, 2, 5, 1)}}, "ne (64, 2, 5, 2)"),
    ("SSM_SCAN", "mamba-2", {"src4": {"ne": (64, 4, 5, 2)}, "src5": {"ne": (64, 4, 5, 2)}}, "groups that divide 6 heads"),
    ("SSM_SCAN", "mamba-2", {"src4": {"ne": (64, 0, 5, 2)}, "src5": {"ne": (64, 0, 5, 2)}}, "groups that divide 6 heads"),
    ("SSM_SCAN", "mamba-2", {"src6": {"ne": (3,)}}, "ids.ne (2)"),
    ("SSM_SCAN", "mamba-2", {"dst": {"ne": (3313,)}}, "3312 contiguous elements"),
    ("SSM_SCAN", "mamba-2", {"dst": {"nb": (8, 1, 1, 1)}}, "3312 contiguous elements"),
    ("SSM_SCAN", "mamba-2", {"src0": {"nb": (4, 260, 1040, 6240)}}, "src0 to be contiguous"),
    ("SSM_SCAN", "mamba-2", {"src2": {"nb": (4, 28, 140, 280)}}, "src2 to be contiguous"),
    ("SSM_SCAN", "mamba-1-wide", {"src3": {"nb": (4, 68, 272, 272)}}, "src3 to be contiguous"),
    ("SSM_SCAN", "one-slot-for-all", {"src0": {"ne": (8, 2, 2, 1), "nb": (4, 32, 64, 0)}}, "s.nb[3] == 128"),
    *(
        ("SSM_SCAN", "mamba-2", {f"src{slot}": {"nb": (8, 16, 32, 64)}}, f"src{slot}.nb[0] == 4")
        for slot in range(7)
    ),
    ("SSM_SCAN", "mamba-2", {"src1": {"nb": (4, 20, 120, 600)}}, "src1 with nb[1] == 16"),
    ("SSM_SCAN", "mamba-2", {"src4": {"nb": (4, 260, 520, 2600)}}, "src4 with nb[1] == 256"),
    ("SSM_SCAN", "mamba-2", {"src5": {"nb": (4, 260, 520, 2600)}}, "src5 with nb[1] == 256"),
    ("SSM_SCAN", "mamba-2", {"src1": {"nb": (4, 16, 97, 600)}}, "src1 with distances of tokens and sequences"),
    ("SSM_SCAN", "mamba-2", {"src5": {"nb": (4, 256, 512, 2563)}}, "src5 with distances of tokens and sequences"),
    (
        "SSM_SCAN",
        "mamba-2",
        {"src1": {"ne": (4, 6, 0, 2)}, "src2": {"ne": (6, 0, 2)}, "src4": {"ne": (64, 2, 0, 2)}}
        | {"src5": {"ne": (64, 2, 0, 2)}, "dst": {"ne": (3072,)}},
        "at least one token",
    ),
    # --- the recurrent three
    *(
        row
        for op, streams, state in (
            ("RWKV_WKV6", (1, 2, 4), "src5"),
            ("GATED_LINEAR_ATTN", (1, 2, 3), "src4"),
            ("RWKV_WKV7", (1, 2, 3, 4, 5), "src6"),
        )
        for size, heads in (((64, 2) if op == "RWKV_WKV7" else (16, 2)),)
        for tokens, sequences in (((6, 2) if op == "RWKV_WKV7" else (12, 4)),)
        for row in (
            *(
                (op, "sequences", {f"src{slot}": {"ne": (size, heads, tokens - 1)}}, f"src{slot}.ne ({size}, {heads}, {tokens},")
                for slot in streams
            ),
            (op, "sequences", {"src0": {"ne": (size, heads, tokens, 0)}}, f"src0.ne ({size}, {heads}, {tokens}, ..)"),
            *(
                (op, "sequences", {f"src{slot}": {"nb": (4, 4 * size + 4, 9999, 99999)}}, f"src{slot} to be contiguous")
                for slot in (0, *streams)
            ),
            (op, "sequences", {state: {"nb": (4, 9999, 99999, 99999)}}, f"{state} contiguous"),
            (op, "sequences", {"dst": {"nb": (4, 9999, 999999, 999999)}}, "dst contiguous"),
            (op, "sequences", {state: {"ne": (size * size * heads - 1, sequences)}}, f"a state of {size * size * heads} * ne[1]"),
            (op, "sequences", {"dst": {"ne": (size * heads, tokens + size * sequences + 1)}}, "need ne"),
            (
                op,
                "sequences",
                {state: {"ne": (size * size * heads, 5)}, "dst": {"ne": (size * heads, tokens + size * 5)}},
                f"sequences that divide {tokens} tokens",
            ),
            (
                op,
                "sequences",
                {state: {"ne": (size * size * heads, 0)}, "dst": {"ne": (size * heads, tokens)}},
                f"sequences that divide {tokens} tokens",
            ),
        )
    ),
    ("RWKV_WKV6", "sequences", {"src3": {"ne": (16, 1)}}, "a contiguous time_first of 32"),
    ("RWKV_WKV6", "sequences", {"src3": {"nb": (4, 68, 136, 136)}}, "a contiguous time_first of 32"),
    # --- GATED_DELTA_NET
    ("GATED_DELTA_NET", "one-gate", {"src0": {"ne": (15, 4, 5, 2)}}, "q.ne (16, .., 5, ..)"),
    ("GATED_DELTA_NET", "one-gate", {"src1": {"ne": (16, 4, 4, 2)}}, "k.ne (16, .., 5, ..)"),
    ("GATED_DELTA_NET", "one-gate", {"src0": {"ne": (16, 0, 5, 2)}}, "q of some heads"),
    ("GATED_DELTA_NET", "one-gate", {"src1": {"ne": (16, 4, 5, 0)}}, "k of some heads"),
    ("GATED_DELTA_NET", "one-gate", {"src1": {"ne": (16, 4, 5, 3)}}, "sequences that divide 2"),
    ("GATED_DELTA_NET", "one-gate", {"src0": {"nb": (8, 128, 512, 2560)}}, "need src0.nb[0] == "),
    ("GATED_DELTA_NET", "one-gate", {"src1": {"nb": (8, 128, 512, 2560)}}, "need src1.nb[0] == "),
    ("GATED_DELTA_NET", "one-gate", {"src2": {"nb": (8, 128, 512, 2560)}}, "need src2.nb[0] == "),
    ("GATED_DELTA_NET", "one-gate", {"src3": {"ne": (2, 4, 5, 2)}}, "g.ne (1 or 16, 4, 5, 2)"),
    ("GATED_DELTA_NET", "one-gate", {"src4": {"ne": (16, 4, 5, 2)}}, "beta.ne (1, 4, 5, 2)"),
    ("GATED_DELTA_NET", "one-gate", {"src5": {"ne": (1024, 3)}}, "a state of 2048"),
    ("GATED_DELTA_NET", "one-gate", {"dst": {"ne": (64, 43)}}, "need ne (64, 42, 1, 1)"),
    ("GATED_DELTA_NET", "one-gate", {"dst": {"ne": (64, 41)}}, "need ne (64, 42, 1, 1)"),
    *(
        ("GATED_DELTA_NET", "one-gate", {slot: {"nb": (4, 9992, 99992, 999992)}}, "contiguous g, beta, state and result")
        for slot in ("src3", "src4", "src5", "dst")
    ),
    # --- views
    ("RESHAPE", "flat", {"dst": {"dtype": "I32"}}, "type F32 as the source"),
    ("RESHAPE", "flat", {"dst": {"ne": (209,)}}, "210 elements as the source"),
    ("RESHAPE", "flat", {"src0": {"nb": (4, 32, 160, 480)}}, "a contiguous source"),
    ("RESHAPE", "flat", {"dst": {"nb": (8, 1680, 1680, 1680)}}, "a contiguous result"),
    ("VIEW", "columns", {"dst": {"dtype": "I32"}}, "type F32 as the source"),
    ("PERMUTE", "axes-1032", {"params": {"axes": (1, 1, 3, 2)}}, "axes 0 to 3, each once"),
    ("PERMUTE", "axes-1032", {"params": {"axes": (1, 0, 4, 2)}}, "axes 0 to 3, each once"),
    ("PERMUTE", "axes-1032", {"params": {"axes": (0, 1, 2, 3)}}, "need ne (5, 4, 3, 2)"),
    ("PERMUTE", "axes-1032", {"dst": {"nb": (4, 16, 80, 240)}}, "need nb (20, 4, 240, 80)"),
    ("TRANSPOSE", "matrix", {"dst": {"ne": (7, 3)}}, "need ne (3, 7, 1, 1)"),
    ("TRANSPOSE", "matrix", {"dst": {"nb": (4, 12, 84, 84)}}, "need nb (28, 4, 84, 84)"),
    # --- DUP, CONT, CPY
    ("DUP", "q4_0", {"dst": {"dtype": "F32"}}, "type Q4_0"),
    ("DUP", "f32", {"dst": {"ne": (256, 3)}}, "512 elements as the source"),
    ("DUP", "f32", {"dst": {"nb": (4, 0, 0, 0)}}, "elements share no bytes"),
    ("CONT", "contiguous", {"src0": {"ne": (32,)}, "dst": {"dtype": "Q8_0", "ne": (32,)}}, "type F32"),
    ("CONT", "rows-permuted-q4_0", {"dst": {"ne": (32, 6, 4)}}, "blocks laid out alike, or a result with gaps"),
    ("CPY", "f32-to-f16", {"src1": {"ne": (5, 7, 2)}}, "type, ne and nb of src1"),
    ("CPY", "f32-to-f16", {"src1": {"nb": (2, 16, 80, 160)}}, "type, ne and nb of src1"),
    ("CPY", "f32-to-f16", {"src1": {"dtype": "BF16"}}, "type, ne and nb of src1"),
    ("CPY", "f32-to-f16", {slot: {"dtype": "I64"} for slot in ("src1", "dst")}, "types that can be converted"),
    ("CPY", "f16-to-f32", {slot: {"dtype": "I32"} for slot in ("src1", "dst")}, "types that can be converted"),
    ("CPY", "f32-to-q4_0", {slot: {"dtype": "IQ2_XS"} for slot in ("src1", "dst")}, "types that can be converted"),
    ("CPY", "q8_0-to-f32", {"src0": {"dtype": "Q8_1"}}, "types that can be converted"),
    ("CPY", "f32-to-q8_0", {slot: {"nb": (34, 544, 1632, 1632)} for slot in ("src1", "dst")}, "contiguous result of a block type"),
    ("CPY", "f32-to-q8_0", {"src0": {"nb": (8, 2048, 6144, 6144)}}, "src0.nb[0] == 4"),
    ("CPY", "f32-to-q8_0", {"src0": {"ne": (16, 48)}}, "src0.ne[0] a multiple of 32"),
    ("CPY", "q8_0-to-f32", {slot: {"nb": (8, 2048, 4096, 4096)} for slot in ("src1", "dst")}, "nb[0] == 4"),
    ("CPY", "q8_0-to-f32", {slot: {"ne": (16, 32), "nb": (4, 128, 4096, 4096)} for slot in ("src1", "dst")}, "a multiple of 32"),
    # --- ADD, SUB, MUL, DIV
    *((op, "n7", {"src1": {"ne": (2, 3)}}, "src1 that repeats to (7, 3, 1, 1)") for op in ("ADD", "SUB", "MUL", "DIV")),
    *((op, "n7", {"src1": {"ne": (7, 6)}}, "src1 that repeats to (7, 3, 1, 1)") for op in ("ADD", "SUB", "MUL", "DIV")),
    *((op, "n7", {"dst": {"ne": (7, 6)}}, "ne (7, 3, 1, 1) as src0") for op in ("ADD", "SUB", "MUL", "DIV")),
    *((op, "n7", {"src1": {"dtype": "F16"}}, "src0, src1 and result of types") for op in ("ADD", "SUB", "MUL", "DIV")),
    *((op, "n7", {"dst": {"dtype": "F16"}}, "src0, src1 and result of types") for op in ("ADD", "SUB", "MUL", "DIV")),
    *((op, "n7", {"src0": {"nb": (8, 56, 168, 168)}}, "nb[0] == 4") for op in ("ADD", "SUB", "MUL", "DIV")),
    *((op, "n7", {"dst": {"nb": (8, 56, 168, 168)}}, "nb[0] == 4") for op in ("ADD", "SUB", "MUL", "DIV")),
    ("MUL", "n7", {"dst": {"nb": (4, 14, 42, 42)}}, "elements share no bytes"),
    ("ADD", "q4_0", {"src1": {"ne": (256,)}}, " in src1"),
    ("ADD", "q4_0", {"src1": {"dtype": "F16"}}, "src1 F32 with a block type"),
    ("ADD", "q8_0-gaps-in-place", {"dst": {"nb": (34, 340, 102, 680)}}, "nb that does not decrease"),
    ("ADD", "q4_0", {"src0": {"nb": (36, 288, 576, 576)}}, "nb[0] == 18"),
    ("ADD", "q4_0", {"src1": {"nb": (8, 2048, 4096, 4096)}}, "nb[0] == 4"),
    # --- ADD_ID, ADD1, ACC, SET
    ("ADD_ID", "n7", {"dst": {"ne": (7, 3, 3)}}, "need ne (7, 3, 2, 1)"),
    ("ADD_ID", "n7", {"src1": {"ne": (6, 5)}}, "src1.ne (7, rows, ..)"),
    ("ADD_ID", "n7", {"src1": {"ne": (7, 5, 0)}}, "src1.ne (7, rows, ..)"),
    ("ADD_ID", "n7", {"src2": {"ne": (3, 1)}}, "src2.ne (3, 2, ..)"),
    ("ADD_ID", "n7", {"src2": {"ne": (3, 2, 0)}}, "src2.ne (3, 2, ..)"),
    *(("ADD_ID", "n7", {slot: {"nb": (8, 56, 280, 560)}}, "nb[0] == 4") for slot in ("src0", "src1", "dst")),
    ("ADD1", "n7", {"src1": {"ne": (2,)}}, "src1 of one element"),
    ("ADD1", "n7", {"src1": {"dtype": "F16"}}, "src1 of type F32"),
    ("ADD1", "f16-f16", {"src1": {"dtype": "BF16"}}, "src1 of type F32 or F16"),
    ("ADD1", "f16-f16", {"dst": {"dtype": "F32"}}, "type and ne of src0"),
    ("ADD1", "n7", {"dst": {"nb": (8, 56, 168, 168)}}, "nb[0] == 4"),
    ("ADD1", "q4_0", {"dst": {"nb": (18, 288, 144, 576)}}, "nb that does not decrease"),
    ("ADD1", "q4_0", {slot: {"ne": (256, 2, 1, 2)} for slot in ("src0", "dst")}, "ne[3] == 1 with a block type"),
    *(
        (op, name, changes, words)
        for op, name in (("ACC", "rows"), ("SET", "rows-i32"))
        for changes, words in (
            ({"dst": {"ne": (11, 5, 4, 3)}}, "ne (11, 5, 4, 2) as src0"),
            ({"src0": {"nb": (4, 48, 240, 960)}}, "src0 contiguous"),
            ({"dst": {"nb": (4, 48, 240, 960)}}, "dst contiguous"),
            ({"src1": {"nb": (8, 88, 264, 264)}}, "src1.nb[0] == 4"),
            ({"params": {"nb1": -44}}, "at least 0"),
            ({"params": {"offset": -4}}, "at least 0"),
            ({"params": {"offset": 2}}, "multiples of 4"),
            ({"params": {"offset": 1632}}, "a region inside the 1760 bytes"),
            ({"params": {"nb1": 2**30}}, "a region inside the 1760 bytes"),
            ({"params": {"nb1": 40}}, "a region whose elements share no bytes"),
        )
    ),
    ("SET", "rows-i32", {"dst": {"dtype": "F32"}}, " in dst"),
    # --- one operand
    *((op, "n7", {"dst": {"ne": (7, 3)}}, "ne (7, 2, 1, 1) as the source") for op in ("SQR", "SQRT", "LOG", "SIN", "COS")),
    *((op, "n7", {"dst": {"dtype": "F16"}}, "types F32, F16 or BF16 on both sides") for op in ("SQR", "SQRT", "LOG", "SIN", "COS")),
    *((op, "n7", {"src0": {"nb": (8, 56, 112, 112)}}, "nb[0] == 4") for op in ("SQR", "SQRT", "LOG", "SIN", "COS")),
    *((op, "n7", {"dst": {"nb": (8, 56, 112, 112)}}, "nb[0] == 4") for op in ("SQR", "SQRT", "LOG", "SIN", "COS")),
    ("UNARY", "abs-f32-f32", {"params": {"kind": -1}}, "a kind below 22"),
    ("UNARY", "abs-f32-f32", {"params": {"kind": 22}}, "a kind below 22"),
    ("UNARY", "abs-bf16-bf16", {"params": {"kind": 8}}, "F32 or F16 on both sides for GELU"),
    ("UNARY", "abs-f16-f32", {"params": {"kind": 10}}, "F32 or F16 on both sides for SILU"),
    ("UNARY", "abs-f32-f32", {"dst": {"ne": (33, 3)}}, "ne (33, 2, 1, 1) as the source"),
    ("UNARY", "silu-permuted", {"params": {"kind": 17}}, "rows that are nb[1] apart throughout"),
    *(("CLAMP", "in-place", {slot: {"nb": (4, 36, 160, 480)}}, "rows that are nb[1] apart") for slot in ("src0", "dst")),
    ("CLAMP", "in-place", {"dst": {"nb": (8, 72, 288, 864)}}, "nb[0] == 4"),
    ("CLAMP", "in-place", {"dst": {"ne": (9, 4, 3, 3)}}, "ne (9, 4, 3, 2) as the source"),
    ("CLAMP", "in-place", {"dst": {"dtype": "F16"}}, "type F32 as the source"),
    *(("LEAKY_RELU", "in-place", {slot: {"nb": (4, 36, 160, 480)}}, "rows that are nb[1] apart") for slot in ("src0", "dst")),
    ("LEAKY_RELU", "in-place", {"dst": {"dtype": "F16"}}, "type F32 as the source"),
    ("LEAKY_RELU", "in-place", {"dst": {"ne": (9, 4, 3, 3)}}, "ne (9, 4, 3, 2) as the source"),
    ("SCALE", "4d", {"src0": {"nb": (4, 40, 160, 480)}}, "src0 contiguous"),
    ("SCALE", "4d", {"dst": {"nb": (4, 40, 160, 480)}}, "dst contiguous"),
    ("SCALE", "4d", {"dst": {"ne": (8, 4, 3, 3)}}, "ne (8, 4, 3, 2) as the source"),
    ("SCALE", "4d", {slot: {"ne": (8, 1, 3), "nb": (4, 96, 32, 96)} for slot in ("src0", "dst")}, "rows that are nb[1] apart"),
    ("FILL", "pi", {"src0": {"ne": (9, 4, 3)}}, "ne (9, 4, 3, 1) as src0"),
    ("FILL", "pi", {"dst": {"nb": (8, 72, 288, 864)}}, "nb[0] == 4"),
    ("ARANGE", "ten", {"dst": {"ne": (11,)}}, "10.0 elements"),
    ("ARANGE", "ten", {"params": {"step": 0.0}}, "inf elements"),
    ("ARANGE", "ten", {"params": {"step": float("nan")}}, "nan elements"),
    ("ARANGE", "ten", {"dst": {"nb": (8, 80, 80, 80)}}, "a contiguous result"),
    # --- GLU
    ("GLU", "reglu-f32", {"params": {"kind": 6}}, "a kind below 6"),
    ("GLU", "reglu-f32", {"params": {"kind": -1}}, "a kind below 6"),
    ("GLU", "reglu-f16", {"params": {"kind": 3}}, "F32 for SWIGLU_OAI"),
    ("GLU", "reglu-f32", {"dst": {"dtype": "F16"}}, "type F32 as src0"),
    ("GLU", "reglu-f32", {"dst": {"ne": (70, 3)}}, "need ne (35, 3, 1, 1)"),
    ("GLU", "reglu-f32-two", {"dst": {"ne": (17, 3)}}, "need ne (35, 3, 1, 1)"),
    ("GLU", "reglu-f32-two", {"src1": {"ne": (35, 2)}}, "src1 of src0's type and ne"),
    ("GLU", "reglu-f32-two", {"src1": {"dtype": "F16"}}, "src1 of src0's type and ne"),
    *(("GLU", "in-place", {slot: {"nb": (8, 72, 288, 288)}}, "nb[0] == 4") for slot in ("src0", "src1", "dst")),
    *(("GLU", "4d", {slot: {"nb": (4, 40, 200, 640)}}, "rows that are nb[1] apart") for slot in ("src0", "dst")),
    # --- rows
    ("GET_ROWS", "batches", {"src1": {"ne": (4, 2, 2)}}, "src1.ne (m, 3, 2, 1)"),
    ("GET_ROWS", "batches", {"src1": {"ne": (4, 3, 2, 2)}}, "src1.ne (m, 3, 2, 1)"),
    ("GET_ROWS", "batches", {"dst": {"ne": (5, 5, 3, 2)}}, "need ne (5, 4, 3, 2)"),
    ("GET_ROWS", "batches", {"dst": {"dtype": "I32"}}, "F32, or I32 from I32"),
    ("GET_ROWS", "i32", {"dst": {"dtype": "F32"}}, "F32, or I32 from I32"),
    ("GET_ROWS", "batches", {"src0": {"nb": (8, 40, 280, 840)}}, "nb[0] == 4"),
    ("GET_ROWS", "batches", {"dst": {"nb": (8, 40, 160, 480)}}, "nb[0] == 4"),
    ("GET_ROWS_BACK", "once-each", {"src0": {"ne": (8, 5, 2)}}, "a matrix"),
    ("GET_ROWS_BACK", "once-each", {"src1": {"ne": (6,)}}, "a vector of at most 5 indices"),
    ("GET_ROWS_BACK", "once-each", {"src1": {"ne": (2, 2)}}, "a vector of at most 5 indices"),
    ("GET_ROWS_BACK", "once-each", {"src1": {"nb": (8, 40, 40, 40)}}, "indices without gaps"),
    ("GET_ROWS_BACK", "once-each", {"dst": {"ne": (7, 5)}}, "need ne (8, rows)"),
    ("GET_ROWS_BACK", "once-each", {"dst": {"nb": (4, 40, 200, 200)}}, "a contiguous result"),
    ("GET_ROWS_BACK", "once-each", {"src0": {"nb": (8, 64, 320, 320)}}, "nb[0] == 4"),
    ("SET_ROWS", "batches", {"src1": {"ne": (3, 3, 2)}}, "src1.ne (4, r, s, 1)"),
    ("SET_ROWS", "batches", {"src1": {"ne": (4, 3, 2, 2)}}, "src1.ne (4, r, s, 1)"),
    ("SET_ROWS", "batches", {"src1": {"ne": (4, 2, 2)}}, "src1 that repeats to 3 by 2 matrices"),
    ("SET_ROWS", "batches", {"src1": {"ne": (4, 0, 2)}}, "src1 that repeats to 3 by 2 matrices"),
    ("SET_ROWS", "batches", {"dst": {"ne": (6, 9, 3, 3)}}, "need ne (6, rows, 3, 2)"),
    ("SET_ROWS", "batches", {"src2": {"ne": (6, 8, 3, 2)}}, "type, ne and nb of src2"),
    ("SET_ROWS", "batches", {"src2": {"dtype": "F32"}}, "type, ne and nb of src2"),
    ("SET_ROWS", "batches", {"src0": {"nb": (8, 48, 192, 576)}}, "nb[0] == 4"),
    ("SET_ROWS", "batches", {slot: {"nb": (4, 24, 216, 648)} for slot in ("src2", "dst")}, "nb[0] == 2"),
    # --- REPEAT, REPEAT_BACK, CONCAT
    ("REPEAT", "dim0", {"dst": {"ne": (8, 2, 2)}}, "multiples of src0's ne (3, 2, 2, 1)"),
    ("REPEAT", "dim0", {"src0": {"ne": (3, 0, 2)}}, "multiples of src0's ne (3, 0, 2, 1)"),
    ("REPEAT", "dim0", {"dst": {"dtype": "I32"}}, "type F32 as the source"),
    ("REPEAT", "dim0", {"dst": {"nb": (8, 72, 144, 288)}}, "nb[0] == 4"),
    ("REPEAT", "dim0", {"src0": {"nb": (8, 24, 48, 96)}}, "nb[0] == 4"),
    ("REPEAT_BACK", "dim0", {"src0": {"ne": (8, 2, 2)}}, "src0 of multiples of (3, 2, 2, 1)"),
    ("REPEAT_BACK", "dim0", {"dst": {"nb": (8, 24, 48, 96)}}, "nb[0] == 4"),
    ("REPEAT_BACK", "dim0", {"src0": {"nb": (8, 72, 144, 288)}}, "nb[0] == 4"),
    ("CONCAT", "dim1", {"params": {"dim": 4}}, "dim from 0 to 3"),
    ("CONCAT", "dim1", {"params": {"dim": -1}}, "dim from 0 to 3"),
    ("CONCAT", "dim1", {"params": {"dim": 0}}, "src1.ne as src0's but for dim 0"),
    ("CONCAT", "dim1", {"src1": {"ne": (5, 5, 2, 2)}}, "src1.ne as src0's but for dim 1"),
    ("CONCAT", "dim1", {"dst": {"ne": (4, 9, 2, 2)}}, "need ne (4, 8, 2, 2)"),
    ("CONCAT", "dim1", {"src1": {"dtype": "I32"}}, " in src1"),
    ("CONCAT", "dim1", {"dst": {"dtype": "I32"}}, " in dst"),
    # --- norms
    *(
        (op, name, {"src2": {"ne": (32, *ne)}}, "at least 32 frequency factors")
        for op, name in (("ROPE", "normal-factors"), ("ROPE_BACK", "normal-yarn"))
        for ne in ((0,), (1, 0), (1, 1, 0))
    ),
    *((op, "n16", {"params": {"eps": -1e-6}}, "eps >= 0") for op in ("NORM", "L2_NORM")),
    *((op, "n16", {"params": {"eps": float("nan")}}, "eps >= 0") for op in ("NORM", "L2_NORM")),
    ("RMS_NORM", "n7", {"params": {"eps": -1e-6}}, "eps >= 0"),
    ("RMS_NORM", "n7", {"params": {"eps": float("nan")}}, "eps >= 0"),
    *((op, "n7", {"src0": {"nb": (8, 56, 168, 336)}}, "nb[0] == 4") for op in ("NORM", "L2_NORM", "RMS_NORM", "RMS_NORM_BACK")),
    *((op, "n7", {"dst": {"nb": (8, 56, 168, 336)}}, "nb[0] == 4") for op in ("NORM", "L2_NORM", "RMS_NORM", "RMS_NORM_BACK")),
    *((op, "n7", {"dst": {"ne": (7, 9)}}, "as the source") for op in ("NORM", "L2_NORM", "RMS_NORM")),
    ("GROUP_NORM", "groups2", {"params": {"n_groups": 0}}, "n_groups >= 1"),
    ("GROUP_NORM", "groups2", {"params": {"n_groups": -2}}, "n_groups >= 1"),
    ("GROUP_NORM", "groups2", {"params": {"n_groups": 2**31 - 1}}, "no overflow of int"),
    ("GROUP_NORM", "groups2", {"dst": {"ne": (7, 3, 6, 3)}}, "ne (7, 3, 6, 2) as the source"),
    ("GROUP_NORM", "groups2", {"src0": {"nb": (8, 56, 168, 1008)}}, "nb[0] == 4"),
    ("RMS_NORM_BACK", "n7", {"src1": {"ne": (7, 2)}}, " in src1"),
    ("RMS_NORM_BACK", "n7", {"dst": {"ne": (7, 2)}}, " in dst"),
    ("SILU_BACK", "gaps", {"src1": {"ne": (9, 4, 3)}}, " in src1"),
    ("SILU_BACK", "gaps", {"src1": {"dtype": "F16"}}, " in src1"),
    *(("SILU_BACK", "gaps", {slot: {"nb": (8, 72, 288, 864)}}, "nb[0] == 4") for slot in ("src0", "src1", "dst")),
    *(("SILU_BACK", "gaps", {slot: {"nb": (4, 36, 160, 480)}}, "rows that are nb[1] apart") for slot in ("src0", "src1", "dst")),
]  # fmt: skip


def geometry(operand: Operand, change: dict[str, Any]) -> Tensor:
    """Return the operand without memory, changed; strides follow a change of dimensions or type unless they are given."""
    dtype = BY_NAME[change.get("dtype", operand.dtype)]
    a, b, c, d = (*change.get("ne", operand.quad), 1, 1, 1)[:4]
    kept = operand.nb if operand.nb and not change.keys() & {"ne", "dtype"} else contiguous_nb(dtype, (a, b, c, d))
    return Tensor(dtype, (a, b, c, d), change.get("nb", kept))


def check(op: str, case: Case, changes: Changes) -> None:
    dst = geometry(case.dst, changes.get("dst", {}))
    src = tuple(
        None if operand is None else geometry(operand, changes.get(f"src{slot}", {})) for slot, operand in enumerate(case.src)
    )
    OPS[op].check(dst, src, OPS[op].pack(case.params | changes.get("params", {})))


@pytest.mark.parametrize("op", dict.fromkeys(row[0] for row in ROWS))
def test_one_change_makes_it_meaningless(op: str) -> None:
    each(is_made_meaningless, ((f"{row[1]}, {row[2]}", row) for row in ROWS if row[0] == op))


def is_made_meaningless(op: str, name: str, changes: Changes, words: str) -> None:
    case = next(case for case in cases_of(op) if case.id == name)
    check(op, case, {})
    with pytest.raises(Violation) as caught:
        check(op, case, changes)
    assert caught.value.rule == "graph.shape"
    assert words in str(caught.value)


@pytest.mark.parametrize(("op", "name", "slot", "change"), [
    ("GET_ROWS_BACK", "once-each", 1, {"ne": (6,)}), ("GET_ROWS", "batches", 1, {"ne": (3, 9)}),
    ("SET_ROWS", "batches", 1, {"ne": (5, 9)}),
    ("MUL_MAT", "f32-n1", 1, {"ne": (7, 3)}), ("SOFT_MAX", "mask-f32-1-1", 1, {"ne": (3,)}),
    ("ROPE", "normal-factors", 2, {"ne": (1,)}),
    ("ADD", "n7", 1, {"ne": (5,)}), ("NORM", "n7", 0, {"nb": (8, 56, 168, 336)}), ("SOLVE_TRI", "n2-k3", 0, {"ne": (2, 4)}),
])  # fmt: skip
def test_a_refusal_names_the_operand_that_is_wrong(op: str, name: str, slot: int, change: dict[str, Any]) -> None:
    case = next(case for case in cases_of(op) if case.id == name)
    with pytest.raises(Violation) as caught:
        check(op, case, {f"src{slot}": change})
    assert caught.value.field == f"{op} ''.src[{slot}]"


ONE_SOURCE = [
    (op, name, next(iter(changes)), changes)
    for op, name, changes, _ in ROWS
    if len(changes) == 1 and next(iter(changes)).startswith("src")
]


def test_a_refusal_names_the_source_that_was_changed() -> None:
    """Where two operands contradict each other, one is refused and the sentence says which other one it was compared with."""
    each(names_the_source, ((f"{row[0]}-{row[1]}, {row[3]}", row) for row in ONE_SOURCE))


def names_the_source(op: str, name: str, source: str, changes: Changes) -> None:
    case = next(case for case in cases_of(op) if case.id == name)
    with pytest.raises(Violation) as caught:
        check(op, case, changes)
    named = caught.value.field == f"{op} ''.src[{source.removeprefix('src')}]"
    assert named or re.search(rf"\b{source}\b", caught.value.detail), str(caught.value)


@pytest.mark.parametrize(("op", "name", "slot", "changes"), [
    ("SILU_BACK", "gaps", 1, {"src1": {"dtype": "F16"}}), ("ADD", "n7", 0, {"src0": {"dtype": "I32"}}),
    ("ADD", "n7", 1, {"src1": {"dtype": "F16"}}), ("SQR", "n7", 0, {"src0": {"dtype": "I32"}}),
    ("CROSS_ENTROPY_LOSS_BACK", "n7", 2, {"src2": {"ne": (7, 2)}}), ("SOFT_MAX_BACK", "n7", 1, {"src1": {"ne": (7, 2)}}),
    ("CONV_TRANSPOSE_1D", "stride-2", 1, {"src1": {"ne": (7, 4, 2)}}),
    ("CONV_TRANSPOSE_1D", "stride-2", 0, {"src0": {"ne": (3, 6, 4, 2)}}),
])  # fmt: skip
def test_of_several_that_are_compared_the_wrong_one_is_named(op: str, name: str, slot: int, changes: Changes) -> None:
    case = next(case for case in cases_of(op) if case.id == name)
    with pytest.raises(Violation) as caught:
        check(op, case, changes)
    assert f".src[{slot}]" in caught.value.field


@pytest.mark.parametrize(("op", "name", "slot", "count"), [
    ("GET_ROWS", "batches", 1, 7), ("SET_ROWS", "batches", 1, 9), ("SET_ROWS", "i32", 1, 9), ("ADD_ID", "batch", 2, 6),
    ("GET_ROWS_BACK", "once-each", 1, 5), ("MUL_MAT_ID", "q8_0-n4-used4-tokens1", 2, 4), ("SSM_SCAN", "one-slot-for-all", 6, 4),
], ids=["GET_ROWS", "SET_ROWS-i64", "SET_ROWS-i32", "ADD_ID", "GET_ROWS_BACK", "MUL_MAT_ID", "SSM_SCAN"])  # fmt: skip
@pytest.mark.parametrize("value", ["-1", "count", "most", "least"])
def test_an_index_out_of_range_is_refused_and_nothing_written(op: str, name: str, slot: int, count: int, value: str) -> None:
    """A stock server reads or writes at whatever offset the index gives (llama.cpp #25765 of SSM_SCAN's ids)."""
    case = next(case for case in cases_of(op) if case.id == name)
    dst, src = recipes.build(op, case)
    index = src[slot]
    assert index is not None
    bad = {"-1": -1, "count": count, "most": np.iinfo(index.array.dtype).max, "least": np.iinfo(index.array.dtype).min}[value]
    index.array[0, 0, 0, 1] = bad
    before = dst.array.copy()
    with pytest.raises(Violation) as caught:
        OPS[op].oracle(OPS[op].check(dst, src, OPS[op].pack(case.params)))
    assert (caught.value.rule, caught.value.field, caught.value.value) == ("graph.index", f"{op}.src[{slot}][1,0,0,0]", bad)
    assert np.array_equal(dst.array, before, equal_nan=dst.dtype.name == "F32")
    index.array[0, 0, 0, 1] = count - 1
    OPS[op].oracle(OPS[op].check(dst, src, OPS[op].pack(case.params)))
