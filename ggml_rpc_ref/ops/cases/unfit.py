"""Nodes that do not fit their op: each is a good case of the op with one change that the op's section of SPEC.md does not allow.

A row names the op, one of its cases, what is changed, and words of this reference's refusal, so that no other condition can hide
one that is missing. The conformance cases `graph.shape/of-…` send them all; tests/test_ops_refusals.py holds the ops to the words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ggml_rpc_ref.ops.cases import cases_of
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.op_changes import has
from ggml_rpc_ref.spec.opcodes import VIEW_OPS, kinds
from ggml_rpc_ref.spec.versions import DEFAULT, Version
from ggml_rpc_ref.tensor import Tensor, contiguous_nb

Changes = Mapping[str, Mapping[str, Any]]
"""Operand ("dst", "src0" …) or "params" to what is changed of it; strides follow dimensions and types unless they are given."""


class Row(NamedTuple):
    """A node that does not fit.

    Attributes:
        op: its op.
        case: id of the good case.
        changes: what is changed; kinds of UNARY and GLU are numbered as in 3.6.1.
        words: of this reference's refusal.
        until: id in `spec.op_changes` of the change since which it fits; "": none.
        since: id of the change since which it does not; "": it never did.
    """

    op: str
    case: str
    changes: Changes
    words: str
    until: str = ""
    since: str = ""

    def present(self, version: Version) -> bool:
        """Whether it does not fit in a version."""
        return (not self.since or has(version, self.since)) and not (self.until and has(version, self.until))


@dataclass(frozen=True, slots=True)
class Unfit:
    """A row in a version: the good case, and the one that does not fit."""

    row: Row
    good: Case
    node: Case


_ROWS: list[tuple[Any, ...]] = [
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
    ("IM2COL", "plain", {"dst": {"dtype": "F16"}}, "an F16 kernel for an F16 result", "IM2COL.kernel"),
    ("IM2COL", "special-f16", {"src0": {"nb": (4, 12, 24, 72)}}, "src0.nb[0] == 2", "IM2COL.kernel"),
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
    ("IM2COL_3D", "plain", {"dst": {"dtype": "F16"}}, "an F16 kernel for an F16 result", "IM2COL_3D.kernel"),
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
    (
        "CONV_2D_DW",
        "plain-cwhn",
        {"src0": {"ne": (3, 1, 1, 3), "nb": (12, 8, 12, 4)}, "dst": {"ne": (8, 11, 3, 2), "nb": (12, 96, 4, 1056)}},
        "a kernel with nb[1] >= nb[0] >= nb[2]",
    ),
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
    ("WIN_PART", "larger-than-the-image", {"dst": {"ne": (3, 7, 7, 2)}}, "need ne (3, 7, 7, 1)"),
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
    ("UNARY", "abs-bf16-bf16", {"params": {"kind": 8}}, "F32 or F16 on both sides for GELU", "UNARY.bf16"),
    ("UNARY", "abs-f16-f32", {"params": {"kind": 10}}, "F32 or F16 on both sides for SILU"),
    ("UNARY", "abs-f32-f32", {"dst": {"ne": (33, 3)}}, "ne (33, 2, 1, 1) as the source"),
    ("UNARY", "silu-permuted", {"params": {"kind": 17}}, "rows that are nb[1] apart throughout"),
    ("CLAMP", "in-place", {"src0": {"nb": (4, 36, 160, 480)}}, "rows that are nb[1] apart", "CLAMP.strides"),
    ("CLAMP", "in-place", {"dst": {"nb": (4, 36, 160, 480)}}, "rows that are nb[1] apart", "CLAMP.strides"),
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
    *((op, "n7", {"src0": {"nb": (8, 56, 168, 336)}}, "nb[0] == 4", f"{op}.strides") for op in ("NORM", "L2_NORM")),
    *((op, "n7", {"src0": {"nb": (8, 56, 168, 336)}}, "nb[0] == 4") for op in ("RMS_NORM", "RMS_NORM_BACK")),
    *((op, "n7", {"dst": {"nb": (8, 56, 168, 336)}}, "nb[0] == 4", f"{op}.strides") for op in ("NORM", "L2_NORM")),
    *((op, "n7", {"dst": {"nb": (8, 56, 168, 336)}}, "nb[0] == 4") for op in ("RMS_NORM", "RMS_NORM_BACK")),
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
    # --- ADD, more
    ("ADD", "iq3_xxs", {"dst": {"ne": (1, 2)}}, "ne (256, 2, 1, 1) in dst"),
    # --- ADD1, more
    ("ADD1", "f16-f32", {"src0": {"nb": (4, 66, 2, 132)}}, "src0.nb[0] == 2 (dense rows)"),
    ("ADD1", "q4_1", {"src1": {"dtype": "F16"}}, "src1 of type F32"),
    # --- ARANGE, more
    ("ARANGE", "down", {"params": {"step": 0.0}}, "-inf elements"),
    # --- ARGMAX, more
    ("ARGMAX", "no-rows", {"dst": {"ne": (1,)}}, "ne (0,)"),
    ("ARGMAX", "n1", {"src0": {"ne": (1, 5, 0)}}, "a matrix"),
    ("ARGMAX", "all-equal", {"src0": {"nb": (8, 4, 40, 40)}}, "src0.nb[0] == 4 (dense rows)"),
    # --- ARGSORT, more
    ("ARGSORT", "rising-empty", {"dst": {"ne": (1, 3)}}, "ne (0, 3, 1, 1) as the source"),
    ("ARGSORT", "falling-n1", {"dst": {"nb": (8, 8, 24, 48)}}, "dst.nb[0] == 4 (dense rows)"),
    ("ARGSORT", "falling-n1", {"dst": {"nb": (4, 8, 4, 4)}}, "rows that are nb[1] apart throughout"),
    ("ARGSORT", "falling-n1", {"params": {"order": 2}}, "order 0 or 1"),
    ("ARGSORT", "falling-zeros", {"src0": {"nb": (8, 4, 40, 40)}}, "src0.nb[0] == 4 (dense rows)"),
    # --- CLAMP, more
    ("CLAMP", "usual-f16", {"src0": {"nb": (10, 32, 2, 160)}}, "src0.nb[0] == 2 (dense rows)"),
    # --- COL2IM_1D, more
    ("COL2IM_1D", "a-single-element", {"params": {"oc": 1}}, "a contiguous result of ne (6, 1, 1, 1)"),
    ("COL2IM_1D", "a-single-element", {"dst": {"dtype": "F16"}}, "type F32 as the source"),
    ("COL2IM_1D", "a-single-element", {"params": {"oc": 3}}, "src0.ne[0] a multiple of 3"),
    ("COL2IM_1D", "a-single-element", {"params": {"oc": 5}}, "p0 that leaves something"),
    ("COL2IM_1D", "one-tap", {"src0": {"ne": (3, 6, 0)}}, "a matrix"),
    ("COL2IM_1D", "one-tap", {"src0": {"nb": (4, 0, 72, 72)}}, "contiguous columns"),
    ("COL2IM_1D", "special-bf16", {"dst": {"dtype": "F32"}}, "type BF16 as the source"),
    ("COL2IM_1D", "a-single-element", {"params": {"s0": 0}}, "s0 > 0, oc > 0 and p0 >= 0"),
    # --- CONCAT, more
    ("CONCAT", "i32", {"dst": {"dtype": "I8"}}, "type I32 in dst"),
    # --- CONT, more
    ("CONT", "empty", {"dst": {"ne": (1, 3)}}, "0 elements as the source"),
    ("CONT", "contiguous", {"dst": {"dtype": "I8"}}, "types that can be converted"),
    ("CONT", "rows-permuted-q8_0", {"dst": {"dtype": "I8"}}, "type Q8_0"),
    # --- CONV_2D_DW, more
    ("CONV_2D_DW", "kernel-larger-than-the-image-whcn", {"params": {"s0": 0}}, "s0 >= 1"),
    # --- CONV_3D, more
    ("CONV_3D", "kernel-larger-than-the-volume", {"params": {"s0": 0}}, "s0 >= 1"),
    # --- CONV_TRANSPOSE_2D, more
    ("CONV_TRANSPOSE_2D", "all-of-three-images-f32", {"params": {"stride": 1}}, "ne (6, 6, 2, 3)"),
    ("CONV_TRANSPOSE_2D", "all-of-three-images-f32", {"dst": {"nb": (4, 72, 36, 720)}}, "a contiguous result"),
    ("CONV_TRANSPOSE_2D", "all-of-three-images-f32", {"src0": {"ne": (3, 2, 2, 0)}}, "3 input channels in the kernel as in src1"),
    ("CONV_TRANSPOSE_2D", "all-of-three-images-f16", {"src0": {"nb": (8, 6, 2, 24)}}, "src0.nb[0] == 2 (dense rows)"),
    ("CONV_TRANSPOSE_2D", "all-of-three-images-f32", {"src0": {"nb": (4, 0, 24, 48)}}, "kernel planes without gaps"),
    ("CONV_TRANSPOSE_2D", "all-of-three-images-f32", {"params": {"stride": 0}}, "stride >= 1"),
    ("CONV_TRANSPOSE_2D", "beyond-f16", {"params": {"stride": 2}}, "ne (8, 6, 1, 1)"),
    ("CONV_TRANSPOSE_2D", "beyond-f16", {"dst": {"nb": (4, 24, 96, 96)}}, "a contiguous result"),
    ("CONV_TRANSPOSE_2D", "beyond-f16", {"src0": {"ne": (2, 2, 1, 0)}}, "3 input channels in the kernel as in src1"),
    ("CONV_TRANSPOSE_2D", "beyond-f16", {"src0": {"nb": (0, 4, 8, 8)}}, "src0.nb[0] == 2 (dense rows)"),
    ("CONV_TRANSPOSE_2D", "beyond-f16", {"src0": {"nb": (2, 0, 8, 8)}}, "kernel planes without gaps"),
    ("CONV_TRANSPOSE_2D", "beyond-f16", {"params": {"stride": 0}}, "stride >= 1"),
    # --- COUNT_EQUAL, more
    ("COUNT_EQUAL", "empty", {"dst": {"ne": (2,)}}, "one element"),
    # --- CPY, more
    ("CPY", "tq2_0-to-tq2_0", {"src0": {"nb": (132, 132, 264, 264)}}, "blocks laid out alike, or a result with gaps"),
    # --- CROSS_ENTROPY_LOSS, more
    ("CROSS_ENTROPY_LOSS", "empty-rows", {"dst": {"ne": (2,)}}, "one element"),
    ("CROSS_ENTROPY_LOSS", "n1", {"src0": {"nb": (4, 4, 0, 24)}}, "rows that are nb[1] apart throughout"),
    # --- CROSS_ENTROPY_LOSS_BACK, more
    ("CROSS_ENTROPY_LOSS_BACK", "empty", {"dst": {"ne": (1, 4)}}, "ne (0, 4, 1, 1) in dst"),
    ("CROSS_ENTROPY_LOSS_BACK", "n1", {"src0": {"ne": (0,)}}, "src0 of one element"),
    ("CROSS_ENTROPY_LOSS_BACK", "n1", {"dst": {"nb": (4, 8, 4, 24)}}, "dst contiguous"),
    ("CROSS_ENTROPY_LOSS_BACK", "n1", {"src1": {"nb": (4, 4, 0, 24)}}, "src1 contiguous"),
    # --- CUMSUM, more
    ("CUMSUM", "empty", {"dst": {"ne": (1, 3)}}, "ne (0, 3, 1, 1) as the source"),
    ("CUMSUM", "n1", {"dst": {"nb": (8, 8, 24, 48)}}, "dst.nb[0] == 4 (dense rows)"),
    ("CUMSUM", "n1", {"src0": {"nb": (8, 8, 24, 48)}}, "src0.nb[0] == 4 (dense rows)"),
    # --- DIAG, more
    ("DIAG", "empty", {"dst": {"ne": (1,)}}, "ne (0, 0, 2, 1)"),
    ("DIAG", "n1", {"dst": {"nb": (8, 8, 8, 24)}}, "dst.nb[0] == 4 (dense rows)"),
    ("DIAG", "n1", {"src0": {"ne": (1, 0, 3, 2)}}, "one row per matrix"),
    ("DIAG", "n1", {"src0": {"nb": (8, 8, 8, 24)}}, "src0.nb[0] == 4 (dense rows)"),
    # --- DIAG_MASK_INF, more
    ("DIAG_MASK_INF", "empty", {"dst": {"ne": (1, 5)}}, "ne (0, 5, 1, 1) as the source"),
    ("DIAG_MASK_INF", "in-place-gaps", {"dst": {"nb": (4, 24, 120, 0)}}, "contiguous tensors, or a view in place"),
    ("DIAG_MASK_INF", "past-0", {"params": {"n_past": -1}}, "n_past >= 0"),
    # --- DIAG_MASK_ZERO, more
    ("DIAG_MASK_ZERO", "empty", {"dst": {"ne": (1, 5)}}, "ne (0, 5, 1, 1) as the source"),
    ("DIAG_MASK_ZERO", "in-place-gaps", {"dst": {"nb": (4, 24, 120, 0)}}, "contiguous tensors, or a view in place"),
    ("DIAG_MASK_ZERO", "past-0", {"params": {"n_past": -1}}, "n_past >= 0"),
    # --- DSV4_HC_COMB, more
    ("DSV4_HC_COMB", "no-tokens", {"dst": {"ne": (4, 4)}}, "ne (4, 4, 0)"),
    ("DSV4_HC_COMB", "tokens-1", {"src0": {"ne": (0,)}}, "mixes.ne (24, T)"),
    ("DSV4_HC_COMB", "tokens-1", {"src1": {"ne": (0,)}}, "a scale of three or more"),
    ("DSV4_HC_COMB", "tokens-1", {"src2": {"ne": (0,)}}, "base.ne (24)"),
    ("DSV4_HC_COMB", "tokens-1", {"params": {"n_iter": 0}}, "n_iter >= 1"),
    # --- DSV4_HC_POST, more
    ("DSV4_HC_POST", "n1-streams1-tokens1-without-comb", {"dst": {"ne": (2,)}}, "ne (1, 1, 1, 1)"),
    ("DSV4_HC_POST", "n1-streams1-tokens1-without-comb", {"src0": {"ne": (1, 1, 0)}}, "a matrix x"),
    ("DSV4_HC_POST", "n1-streams1-tokens1", {"src3": {"ne": (0,)}}, "comb.ne (1, 1, 1)"),
    # --- DSV4_HC_PRE, more
    ("DSV4_HC_PRE", "scaled-n1-streams1-tokens1", {"dst": {"ne": (2,)}}, "ne (1, 1)"),
    ("DSV4_HC_PRE", "scaled-n1-streams1-tokens1", {"src0": {"ne": (1, 0)}}, "x.ne (n, 1 or more streams, T)"),
    ("DSV4_HC_PRE", "scaled-by-zero", {"params": {"gated": 1}}, "weights.ne (7, 4, 3, 1)"),
    ("DSV4_HC_PRE", "n7-streams4-tokens3", {"dst": {"ne": (1, 3)}}, "ne (7, 3)"),
    ("DSV4_HC_PRE", "n7-streams4-tokens3", {"src0": {"ne": (7, 0, 3)}}, "x.ne (n, 1 or more streams, T)"),
    ("DSV4_HC_PRE", "scaled-n7-streams4-tokens3", {"dst": {"ne": (1, 3)}}, "ne (7, 3)"),
    ("DSV4_HC_PRE", "scaled-n7-streams4-tokens3", {"src0": {"ne": (7, 0, 3)}}, "x.ne (n, 1 or more streams, T)"),
    ("DSV4_HC_PRE", "scaled-n7-streams4-tokens3", {"params": {"gated": 1}}, "weights.ne (7, 4, 3, 1)"),
    # --- DUP, more
    ("DUP", "in-place", {"dst": {"dtype": "I8"}}, "types that can be converted"),
    ("DUP", "f32-to-q8_0", {"dst": {"nb": (34, 69, 207, 207)}}, "a contiguous result of a block type"),
    ("DUP", "f32-to-q8_0", {"src0": {"ne": (3, 64)}}, "src0.ne[0] a multiple of 32"),
    ("DUP", "f32-to-q8_0", {"src0": {"nb": (12, 4, 768, 768)}}, "src0.nb[0] == 4 (dense rows)"),
    ("DUP", "q4_0", {"src0": {"nb": (0, 144, 288, 288)}}, "blocks laid out alike, or a result with gaps"),
    # --- FLASH_ATTN_BACK, more
    ("FLASH_ATTN_BACK", "d1-queries1-keys1-heads1-1-masked0", {"dst": {"ne": (1,)}}, "12 elements"),
    ("FLASH_ATTN_BACK", "d1-queries1-keys1-heads1-1-masked0", {"src1": {"ne": (1, 1, 0)}}, "heads of K to divide 1"),
    ("FLASH_ATTN_BACK", "d1-queries1-keys1-heads1-1-masked0", {"params": {"masked": 2}}, "masked 0 or 1"),
    ("FLASH_ATTN_BACK", "d1-queries1-keys1-heads1-1-masked0", {"src0": {"ne": (1, 2)}, "src3": {"ne": (1, 2)}}, "at least 2 keys"),
    # --- FLASH_ATTN_EXT, more
    ("FLASH_ATTN_EXT", "dk1-dv1", {"dst": {"ne": (2, 2, 2)}}, "a contiguous result of ne (1, 2, 2, 1)"),
    ("FLASH_ATTN_EXT", "queries-64-f16", {"src4": {"nb": (0, 8, 8, 8)}}, "src4.nb[0] == 4 (dense rows)"),
    ("FLASH_ATTN_EXT", "dk1-dv1", {"src2": {"ne": (1, 0)}}, "at least 33 values"),
    ("FLASH_ATTN_EXT", "dk1-dv1", {"src1": {"ne": (1, 33, 0)}}, "ne[2] to divide 2"),
    ("FLASH_ATTN_EXT", "dk1-dv1", {"params": {"max_bias": 1.0}}, "a mask where max_bias > 0"),
    ("FLASH_ATTN_EXT", "dk1-dv1", {"params": {"prec": 1}}, "prec 0 or 10"),
    ("FLASH_ATTN_EXT", "sinks", {"src4": {"ne": (0,)}}, "4 sinks, one per head"),
    ("FLASH_ATTN_EXT", "sinks", {"src4": {"ne": (4, 0)}}, "a sink for every head"),
    ("FLASH_ATTN_EXT", "mask-heads", {"src3": {"ne": (0, 3, 2)}}, "a mask of at least 17 x 3"),
    ("FLASH_ATTN_EXT", "mask-heads", {"src3": {"ne": (16, 3, 2)}}, "a mask of at least 17 x 3"),
    ("FLASH_ATTN_EXT", "mask-heads", {"src3": {"ne": (17, 2, 2)}}, "a mask of at least 17 x 3"),
    ("FLASH_ATTN_EXT", "queries-67-f32", {"src3": {"ne": (1, 67)}}, "a mask of at least 70 x 67"),
    ("FLASH_ATTN_EXT", "mask-heads", {"src3": {"ne": (17, 3, 0)}}, "ne[2] of the mask to divide 4"),
    # --- GATED_DELTA_NET, more
    ("GATED_DELTA_NET", "snapshots-no-tokens", {"params": {"snapshots": 2}}, "ne (16, 32, 1, 1)"),
    ("GATED_DELTA_NET", "snapshots-no-tokens", {"src0": {"ne": (0, 2, 0, 2)}}, "q.ne (8, .., 0, ..)"),
    ("GATED_DELTA_NET", "snapshots-no-tokens", {"src0": {"ne": (8, 0, 0, 2)}}, "q of some heads and of sequences that divide 2"),
    ("GATED_DELTA_NET", "snapshots-no-tokens", {"src1": {"ne": (0, 2, 0, 2)}}, "k.ne (8, .., 0, ..)"),
    ("GATED_DELTA_NET", "snapshots-no-tokens", {"src1": {"ne": (8, 0, 0, 2)}}, "k of some heads and of sequences that divide 2"),
    ("GATED_DELTA_NET", "snapshots-no-tokens", {"src3": {"ne": (0, 2, 0, 2)}}, "g.ne (1 or 8, 2, 0, 2)"),
    ("GATED_DELTA_NET", "snapshots-no-tokens", {"src4": {"ne": (0, 2, 0, 2)}}, "beta.ne (1, 2, 0, 2)"),
    ("GATED_DELTA_NET", "snapshots-no-tokens", {"params": {"snapshots": 0}}, "at least one snapshot"),
    ("GATED_DELTA_NET", "slots-for-each-token", {"dst": {"ne": (1,)}}, "ne (16, 36, 1, 1)"),
    ("GATED_DELTA_NET", "slots-for-each-token", {"src3": {"nb": (4, 0, 8, 32)}}, "contiguous g, beta, state and result"),
    ("GATED_DELTA_NET", "slots-for-each-token", {"src0": {"ne": (0, 2, 4)}}, "q.ne (8, .., 4, ..)"),
    ("GATED_DELTA_NET", "slots-for-each-token", {"src0": {"ne": (8, 0, 4)}}, "q of some heads and of sequences that divide 1"),
    ("GATED_DELTA_NET", "slots-for-each-token", {"src0": {"nb": (8, 4, 64, 256)}}, "src0.nb[0] == 4 (dense rows)"),
    ("GATED_DELTA_NET", "slots-for-each-token", {"src1": {"ne": (0, 2, 4)}}, "k.ne (8, .., 4, ..)"),
    ("GATED_DELTA_NET", "slots-for-each-token", {"src1": {"ne": (8, 0, 4)}}, "k of some heads and of sequences that divide 1"),
    ("GATED_DELTA_NET", "slots-for-each-token", {"src3": {"ne": (0, 2, 4)}}, "g.ne (1 or 8, 2, 4, 1)"),
    ("GATED_DELTA_NET", "slots-for-each-token", {"src4": {"ne": (0, 2, 4)}}, "beta.ne (1, 2, 4, 1)"),
    ("GATED_DELTA_NET", "snapshots-for-each-token", {"params": {"snapshots": 1}}, "ne (16, 12, 1, 1)"),
    ("GATED_DELTA_NET", "snapshots-for-each-token", {"src3": {"nb": (4, 0, 8, 32)}}, "contiguous g, beta, state and result"),
    ("GATED_DELTA_NET", "snapshots-for-each-token", {"src0": {"ne": (0, 2, 4)}}, "q.ne (8, .., 4, ..)"),
    ("GATED_DELTA_NET", "snapshots-for-each-token", {"src0": {"ne": (8, 0, 4)}}, "q of some heads and of sequences that divide 1"),
    ("GATED_DELTA_NET", "snapshots-for-each-token", {"src0": {"nb": (8, 4, 64, 256)}}, "src0.nb[0] == 4 (dense rows)"),
    ("GATED_DELTA_NET", "snapshots-for-each-token", {"src1": {"ne": (0, 2, 4)}}, "k.ne (8, .., 4, ..)"),
    ("GATED_DELTA_NET", "snapshots-for-each-token", {"src1": {"ne": (8, 0, 4)}}, "k of some heads and of sequences that divide 1"),
    ("GATED_DELTA_NET", "snapshots-for-each-token", {"src3": {"ne": (0, 2, 4)}}, "g.ne (1 or 8, 2, 4, 1)"),
    ("GATED_DELTA_NET", "snapshots-for-each-token", {"src4": {"ne": (0, 2, 4)}}, "beta.ne (1, 2, 4, 1)"),
    ("GATED_DELTA_NET", "snapshots-for-each-token", {"params": {"snapshots": 0}}, "at least one snapshot"),
    # --- GROUP_NORM, more
    ("GROUP_NORM", "special", {"dst": {"nb": (8, 4, 32, 512)}}, "dst.nb[0] == 4 (dense rows)"),
    # --- IM2COL_3D, more
    ("IM2COL_3D", "crop", {"params": {"s0": 0}}, "s0 >= 1"),
    # --- LEAKY_RELU, more
    ("LEAKY_RELU", "slope0.1-f16", {"dst": {"nb": (6, 2, 198, 198)}}, "dst.nb[0] == 2 (dense rows)"),
    ("LEAKY_RELU", "slope0.1-f16", {"src0": {"nb": (6, 66, 2, 198)}}, "src0.nb[0] == 2 (dense rows)"),
    # --- LIGHTNING_INDEXER, more
    ("LIGHTNING_INDEXER", "n1-heads1-tokens1-keys1", {"dst": {"ne": (2,)}}, "ne (1, 1, 1, 1)"),
    ("LIGHTNING_INDEXER", "n1-heads1-tokens1-keys1", {"src3": {"ne": (1, 1, 1, 0)}}, "mask.ne[3] to divide 1"),
    # --- MEAN, more
    ("MEAN", "no-rows", {"dst": {"ne": (1,)}}, "ne (1, 0, 1, 1)"),
    # --- MUL_MAT, more
    ("MUL_MAT", "f32-k1-m1-n1", {"dst": {"ne": (2,)}}, "ne (1, 1, 1, 1)"),
    ("MUL_MAT", "f32-k1-m1-n1", {"src1": {"dtype": "F16"}}, "src1 of type F32 or F32", "MUL_MAT.f16-activations"),
    ("MUL_MAT", "q8_0-broadcast-2-3", {"src1": {"dtype": "F16"}}, "src1 of type F32 or Q8_0"),
    ("MUL_MAT", "q4_k-n1", {"src1": {"dtype": "F16"}}, "src1 of type F32 or Q8_K"),
    ("MUL_MAT", "bf16-partner", {"src1": {"dtype": "F16"}}, "src1 of type F32 or BF16"),
    # --- MUL_MAT_ID, more
    ("MUL_MAT_ID", "no-tokens", {"dst": {"ne": (5, 2)}}, "ne (5, 2, 0, 1)"),
    ("MUL_MAT_ID", "q8_0-n1-used4-tokens3", {"src2": {"ne": (4, 0)}}, "choices for every token"),
    ("MUL_MAT_ID", "f16-n2-used4-tokens5", {"src2": {"ne": (1, 5)}}, "choices per token a multiple of 2"),
    ("MUL_MAT_ID", "q8_0-n1-used4-tokens3", {"src1": {"dtype": "F16"}}, "src1 of type F32 or Q8_0"),
    ("MUL_MAT_ID", "iq3_xxs-partner", {"src1": {"dtype": "F16"}}, "src1 of type F32 or Q8_K"),
    # --- OPT_STEP_ADAMW, more
    ("OPT_STEP_ADAMW", "n1", {"dst": {"ne": (2, 3, 2, 2)}}, "the weight's ne (1, 3, 2, 2) and nb (4, 4, 12, 24)"),
    ("OPT_STEP_ADAMW", "n1", {"src0": {"nb": (8, 8, 24, 48)}}, "src0.nb[0] == 4 (dense rows)"),
    ("OPT_STEP_ADAMW", "n1", {"src4": {"ne": (0,)}}, "7 settings without gaps"),
    ("OPT_STEP_ADAMW", "n1", {"src4": {"ne": (8,)}}, "7 settings without gaps"),
    # --- OPT_STEP_SGD, more
    ("OPT_STEP_SGD", "n1", {"dst": {"ne": (2, 3, 2, 2)}}, "the weight's ne (1, 3, 2, 2) and nb (4, 4, 12, 24)"),
    ("OPT_STEP_SGD", "n1", {"src0": {"nb": (8, 8, 24, 48)}}, "src0.nb[0] == 4 (dense rows)"),
    ("OPT_STEP_SGD", "n1", {"src2": {"ne": (0,)}}, "2 settings without gaps"),
    ("OPT_STEP_SGD", "n1", {"src2": {"ne": (3,)}}, "2 settings without gaps"),
    # --- OUT_PROD, more
    ("OUT_PROD", "m1-n1-k1", {"dst": {"ne": (2,)}}, "a contiguous result of ne (1, 1, 1, 1)"),
    ("OUT_PROD", "q8_0", {"src1": {"ne": (3, 5, 0)}}, "ne[2] of 1 as in src0, as Q8_0 does not broadcast"),
    ("OUT_PROD", "q6_k", {"src1": {"ne": (3, 5, 0)}}, "ne[2] of 1 as in src0, as Q6_K does not broadcast"),
    ("OUT_PROD", "iq4_nl", {"src1": {"ne": (3, 5, 0)}}, "ne[2] of 1 as in src0, as IQ4_NL does not broadcast"),
    ("OUT_PROD", "tq1_0", {"src1": {"ne": (3, 5, 0)}}, "ne[2] of 1 as in src0, as TQ1_0 does not broadcast"),
    # --- POOL_1D, more
    ("POOL_1D", "max-nan-left-out", {"dst": {"ne": (1, 2)}}, "as many outputs as windows fit"),
    ("POOL_1D", "max-nan-left-out", {"dst": {"ne": (4,)}}, "ne[1:] (2, 1, 1) as the source"),
    ("POOL_1D", "max-nan-left-out", {"dst": {"nb": (8, 4, 32, 32)}}, "dst.nb[0] == 4 (dense rows)"),
    ("POOL_1D", "max-nan-left-out", {"src0": {"nb": (8, 4, 64, 64)}}, "src0.nb[0] == 4 (dense rows)"),
    ("POOL_1D", "max-nan-left-out", {"params": {"op": 2}}, "op 0 (max) or 1 (mean)"),
    ("POOL_1D", "max-nan-left-out", {"params": {"k0": 0}}, "k0 == s0 and p0 == 0"),
    # --- POOL_2D_BACK, more
    ("POOL_2D_BACK", "max-infinities", {"params": {"s0": 0}}, "a stride of at least 1"),
    # --- REPEAT, more
    ("REPEAT", "i16", {"dst": {"dtype": "F32"}}, "type I16 as the source"),
    # --- ROLL, more
    ("ROLL", "rows-permuted", {"dst": {"nb": (12, 4, 60, 120)}}, "dst.nb[0] == 4 (dense rows)"),
    # --- ROPE, more
    ("ROPE", "no-tokens", {"dst": {"ne": (1,)}}, "ne (64, 2, 0, 1) as the source"),
    ("ROPE", "mrope-four", {"params": {"mode": 0}}, "1 positions per token"),
    ("ROPE", "normal-permuted", {"dst": {"nb": (12, 4, 192, 768)}}, "dst.nb[0] == 4 (dense rows)"),
    ("ROPE", "normal-permuted", {"dst": {"dtype": "F16"}}, "type F32 as the source"),
    ("ROPE", "normal-permuted", {"src1": {"nb": (8, 32, 32, 32)}}, "src1.nb[0] == 4 (dense rows)"),
    ("ROPE", "normal-permuted", {"params": {"n_dims": 1}}, "n_dims even and at most 16"),
    ("ROPE", "normal-permuted", {"params": {"mode": 1}}, "mode one of (0, 2, 8, 24, 40)"),
    ("ROPE", "mrope-four", {"params": {"sections": (-1, 8, 8, 8)}}, "sections of which one of the first three is above 0"),
    ("ROPE", "mrope-four", {"params": {"sections": (99, 8, 8, 8)}}, "sections of at most 64 together"),
    ("ROPE", "vision-short", {"params": {"n_dims": 0}}, "n_dims half of ne[0] in vision mode"),
    ("ROPE", "normal-offset-to-the-end", {"dst": {"ne": (1, 2, 3)}}, "ne (64, 2, 3, 1) as the source"),
    ("ROPE", "normal-offset-to-the-end", {"dst": {"nb": (8, 4, 512, 1536)}}, "dst.nb[0] == 4 (dense rows)"),
    ("ROPE", "normal-offset-to-the-end", {"dst": {"dtype": "F16"}}, "type F32 as the source"),
    ("ROPE", "normal-offset-to-the-end", {"src1": {"nb": (8, 24, 24, 24)}}, "src1.nb[0] == 4 (dense rows)"),
    ("ROPE", "imrope-offset-to-the-end", {"params": {"mode": 0}}, "1 positions per token"),
    ("ROPE", "normal-offset-to-the-end", {"params": {"n_dims": 1}}, "n_dims even and at most 64"),
    ("ROPE", "normal-offset-to-the-end", {"params": {"mode": 1}}, "mode one of (0, 2, 8, 24, 40)"),
    ("ROPE", "normal-offset-to-the-end", {"params": {"n_offs": 1}}, "n_offs even and at most 32"),
    ("ROPE", "imrope-offset-to-the-end", {"params": {"sections": (-1, 4, 4, 0)}}, "sections of which one of the first three is"),
    ("ROPE", "imrope-offset-to-the-end", {"params": {"sections": (99, 4, 4, 0)}}, "sections of at most 64 together"),
    ("ROPE", "offset-yarn-factors", {"params": {"n_dims": 99}}, "at least 49 frequency factors"),
    # --- ROPE_BACK, more
    ("ROPE_BACK", "normal-in-place", {"dst": {"ne": (1, 2, 5)}}, "ne (64, 2, 5, 1) as the source"),
    ("ROPE_BACK", "normal-in-place", {"dst": {"nb": (8, 4, 512, 2560)}}, "dst.nb[0] == 4 (dense rows)"),
    ("ROPE_BACK", "normal-in-place", {"dst": {"dtype": "F16"}}, "type F32 as the source"),
    ("ROPE_BACK", "normal-in-place", {"src1": {"nb": (8, 40, 40, 40)}}, "src1.nb[0] == 4 (dense rows)"),
    ("ROPE_BACK", "mrope-in-place", {"params": {"mode": 0}}, "1 positions per token"),
    ("ROPE_BACK", "normal-in-place", {"params": {"n_dims": 1}}, "n_dims even and at most 64"),
    ("ROPE_BACK", "normal-in-place", {"params": {"mode": 1}}, "mode one of (0, 2, 8, 24, 40)"),
    ("ROPE_BACK", "mrope-in-place", {"params": {"sections": (8, -1, 10, 2)}}, "sections of which one of the first three is"),
    ("ROPE_BACK", "mrope-in-place", {"params": {"sections": (8, 99, 10, 2)}}, "sections of at most 64 together"),
    ("ROPE_BACK", "normal-offset", {"dst": {"ne": (1, 3, 5)}}, "ne (80, 3, 5, 1) as the source"),
    ("ROPE_BACK", "normal-offset", {"dst": {"nb": (12, 4, 960, 4800)}}, "dst.nb[0] == 4 (dense rows)"),
    ("ROPE_BACK", "normal-offset", {"dst": {"dtype": "F16"}}, "type F32 as the source"),
    ("ROPE_BACK", "normal-offset", {"src1": {"nb": (8, 40, 40, 40)}}, "src1.nb[0] == 4 (dense rows)"),
    ("ROPE_BACK", "normal-offset", {"params": {"mode": -1}}, "4 positions per token"),
    ("ROPE_BACK", "normal-offset", {"params": {"n_dims": 1}}, "n_dims even and at most 80"),
    ("ROPE_BACK", "normal-offset", {"params": {"mode": 1}}, "mode one of (0, 2, 8, 24, 40)"),
    ("ROPE_BACK", "normal-offset", {"params": {"n_offs": 1}}, "n_offs even and at most 48"),
    # --- SET, more
    ("SET", "special", {"dst": {"dtype": "I32"}}, "type F32 in dst"),
    ("SET", "any-stride-of-length-1-i32", {"dst": {"dtype": "F32"}}, "type I32 in dst"),
    # --- SILU_BACK, more
    ("SILU_BACK", "empty", {"dst": {"ne": (1, 3)}}, "ne (0, 3, 1, 1) in dst"),
    ("SILU_BACK", "n1-f32", {"dst": {"dtype": "F16"}}, "type F32 in dst"),
    # --- SOFT_MAX, more
    ("SOFT_MAX", "empty", {"dst": {"ne": (1,)}}, "ne (33, 0, 2, 1) as the source"),
    ("SOFT_MAX", "n7", {"dst": {"nb": (12, 4, 84, 168)}}, "dst.nb[0] == 4 (dense rows)"),
    ("SOFT_MAX", "sinks-large", {"src2": {"nb": (8, 48, 48, 48)}}, "src2.nb[0] == 4 (dense rows)"),
    ("SOFT_MAX", "n7", {"params": {"max_bias": 1.0}}, "a mask where max_bias > 0"),
    ("SOFT_MAX", "alibi-f32-6", {"src1": {"ne": (0, 3)}}, "a mask of at least 17 x 3"),
    ("SOFT_MAX", "alibi-f32-6", {"src1": {"ne": (17, 2)}}, "a mask of at least 17 x 3"),
    ("SOFT_MAX", "alibi-f32-6", {"src1": {"ne": (34, 3)}}, "a mask of 17 columns"),
    ("SOFT_MAX", "alibi-f32-6", {"src1": {"ne": (17, 3, 0)}}, "ne[2] of the mask to divide 6"),
    ("SOFT_MAX", "sinks-large", {"src2": {"ne": (0,)}}, "6 sinks, one per head"),
    ("SOFT_MAX", "sinks-large", {"src2": {"ne": (6, 0)}}, "a sink for every head"),
    # --- SOFT_MAX_BACK, more
    ("SOFT_MAX_BACK", "empty", {"dst": {"ne": (1, 5)}}, "ne (0, 5, 1, 1) in dst"),
    ("SOFT_MAX_BACK", "n1", {"dst": {"nb": (4, 8, 4, 24)}}, "dst contiguous"),
    ("SOFT_MAX_BACK", "n1", {"src0": {"nb": (4, 4, 0, 24)}}, "src0 contiguous"),
    ("SOFT_MAX_BACK", "n1", {"params": {"max_bias": 1.0}}, "max_bias 0"),
    # --- SOLVE_TRI, more
    ("SOLVE_TRI", "empty", {"dst": {"ne": (1, 3)}}, "ne (0, 3, 1, 1) as src1"),
    ("SOLVE_TRI", "n1-k1", {"src0": {"ne": (0, 1, 2, 3)}}, "a square matrix"),
    # --- SSM_SCAN, more
    ("SSM_SCAN", "more-snapshots-than-tokens", {"params": {"snapshots": 1}}, "80 contiguous elements"),
    ("SSM_SCAN", "more-snapshots-than-tokens", {"src3": {"nb": (4, 0, 8, 8)}}, "src3 to be contiguous"),
    ("SSM_SCAN", "a-snapshot-for-each-token", {"src1": {"nb": (4, 32, 8, 8)}}, "src1 with nb[1] == 8"),
    ("SSM_SCAN", "more-snapshots-than-tokens", {"src3": {"ne": (0, 2)}}, "A.ne (1 or 8, 2)"),
    ("SSM_SCAN", "more-snapshots-than-tokens", {"src4": {"nb": (4, 33, 33, 66)}}, "src4 with distances of tokens and sequences"),
    ("SSM_SCAN", "more-snapshots-than-tokens", {"src6": {"ne": (0,)}}, "ids.ne (2)"),
    ("SSM_SCAN", "more-snapshots-than-tokens", {"params": {"snapshots": 0}}, "at least one snapshot"),
    ("SSM_SCAN", "more-snapshots-than-tokens", {"src4": {"ne": (8, 0, 2, 2)}, "src5": {"ne": (8, 0, 2, 2)}}, "groups that"),
    ("SSM_SCAN", "one-snapshot-mamba-1", {"params": {"snapshots": 2}}, "A of one row with several snapshots"),
    ("SSM_SCAN", "more-snapshots-than-tokens", {"src1": {"nb": (4, 0, 16, 32)}}, "src1 with nb[1] == 8"),
    # --- SUM, more
    ("SUM", "f32-empty", {"dst": {"ne": (2,)}}, "one element"),
    ("SUM", "f32-empty", {"dst": {"dtype": "F16"}}, "type F32 as the source"),
    ("SUM", "bf16-nan", {"dst": {"dtype": "F32"}}, "type BF16 as the source"),
    # --- SUM_ROWS, more
    ("SUM_ROWS", "no-rows", {"dst": {"ne": (1,)}}, "ne (1, 0, 1, 1)"),
    ("SUM_ROWS", "empty-rows", {"dst": {"nb": (8, 8, 24, 24)}}, "dst.nb[0] == 4 (dense rows)"),
    # --- TOP_K, more
    ("TOP_K", "n1-k1", {"dst": {"ne": (2, 3, 2)}}, "k at most 1"),
    ("TOP_K", "n1-k1", {"dst": {"ne": (1, 1, 2)}}, "ne (k, 3, 2, 1)"),
    ("TOP_K", "n1-k1", {"dst": {"nb": (8, 8, 24, 48)}}, "dst.nb[0] == 4 (dense rows)"),
    ("TOP_K", "n1-k1", {"dst": {"nb": (4, 8, 4, 4)}}, "rows that are nb[1] apart throughout"),
    ("TOP_K", "infinities", {"src0": {"nb": (8, 4, 40, 40)}}, "src0.nb[0] == 4 (dense rows)"),
    # --- TRI, more
    ("TRI", "empty", {"dst": {"ne": (1,)}}, "ne (0, 0, 3, 1) as the source"),
    ("TRI", "upper-n1", {"src0": {"ne": (0, 1, 2, 2)}}, "square matrices without gaps"),
    ("TRI", "upper-n1", {"params": {"type": 5}}, "type 0, 1, 2 or 3"),
    ("TRI", "upper-diag-n2", {"dst": {"nb": (8, 4, 16, 32)}}, "dst.nb[0] == 4 (dense rows)"),
    # --- UNARY, more
    ("UNARY", "tanh-bf16-bf16", {"dst": {"nb": (4, 2, 132, 132)}}, "dst.nb[0] == 2 (dense rows)"),
    ("UNARY", "xielu-in-place", {"dst": {"dtype": "F16"}}, "types F32, F16 or BF16 on both sides, or F16 or BF16 to F32"),
    ("UNARY", "tanh-bf16-bf16", {"src0": {"nb": (4, 66, 2, 132)}}, "src0.nb[0] == 2 (dense rows)"),
    ("UNARY", "gelu_erf-f16-f16", {"dst": {"dtype": "F32"}}, "F32 or F16 on both sides for GELU_ERF"),
    # --- what only one condition refuses
    ("DSV4_HC_POST", "n33-streams5-tokens9", {"src1": {"ne": (33, 5, 9, 2)}}, "residual.ne (33, 1 or more streams, 9)"),
    (
        "FLASH_ATTN_BACK",
        "d1-queries1-keys1-heads1-1-masked1",
        {"src1": {"ne": (1, 1, 2)}, "src2": {"ne": (1, 1, 2)}},
        "heads of K to divide 1",
    ),
    ("FLASH_ATTN_BACK", "d5-queries1-keys2-heads1-1-masked0", {"src3": {"ne": (5, 2)}}, "a gradient of ne (5, 1, 1, 1)"),
    ("GATED_DELTA_NET", "snapshots-shared-heads", {"src5": {"ne": (17, 16, 6)}}, "state.ne (16, 16, 6, 1)"),
    ("MUL_MAT_ID", "iq1_s", {"src1": {"ne": (2, 1, 4)}}, "rows of 256 elements, three dimensions"),
    ("MUL_MAT_ID", "f16-n2-used4-tokens5", {"src2": {"ne": (3, 5)}, "dst": {"ne": (5, 3, 5)}}, "choices per token a multiple of 2"),
    ("OPT_STEP_SGD", "special", {"src1": {"ne": (16, 12)}}, "the weight's ne (16, 4, 1, 1)"),
    ("OPT_STEP_ADAMW", "zero-eps", {"src1": {"ne": (33, 3, 1, 3)}}, "the weight's ne (33, 3, 1, 1)"),
    # --- what one change after another of the shape rules showed that nothing asked for
    ("ARANGE", "matrix", {"dst": {"nb": (4, 32, 96, 96)}}, "a contiguous result"),
    ("ARANGE", "one", {"dst": {"nb": (8, 8, 8, 8)}}, "dst.nb[0] == 4 (dense rows)"),
    ("COL2IM_1D", "one-tap", {"src0": {"ne": (4, 6)}}, "src0.ne[0] a multiple of 3"),
    ("CONCAT", "dim3", {"params": {"dim": -1}}, "dim from 0 to 3"),
    ("CONCAT", "i8", {"dst": {"nb": (2, 8, 64, 64)}}, "dst.nb[0] == 1 (dense rows)", "", "CONCAT.rows"),
    ("CONCAT", "i8", {"src0": {"nb": (4, 1, 12, 12)}}, "src0.nb[0] == 1 (dense rows)", "", "CONCAT.rows"),
    ("CONCAT", "dim1", {"src1": {"nb": (8, 32, 160, 320)}}, "src1.nb[0] == 4 (dense rows)", "", "CONCAT.rows"),
    ("CONV_2D_DW", "crop-cwhn", {"src0": {"nb": (8, 16, 8, 0)}}, "kernel with nb (8, 16, 8, 4)"),
    ("CONV_2D_DW", "kernel-with-infinities-cwhn", {"src0": {"nb": (8, 24, 12, 4)}}, "a kernel with nb[1] >= nb[0] >= nb[2]"),
    ("COUNT_EQUAL", "n1", {"src1": {"ne": (1, 3, 2)}}, "src1.ne (1, 3, 1, 1)"),
    ("CPY", "f32-to-f16", {"dst": {"dtype": "I32"}}, "types that can be converted", "CPY.i32"),
    ("CROSS_ENTROPY_LOSS", "n1", {"src1": {"ne": (1, 3, 2, 3)}}, "src1.ne (1, 3, 2, 2)"),
    ("CROSS_ENTROPY_LOSS", "n1", {"src0": {"nb": (8, 4, 12, 24)}}, "src0.nb[0] == 4 (dense rows)"),
    ("CROSS_ENTROPY_LOSS_BACK", "n1", {"dst": {"nb": (8, 8, 24, 48)}}, "dst contiguous"),
    ("DIAG_MASK_INF", "in-place-gaps", {"dst": {"alias": "", "offset": 0}}, "contiguous tensors, or a view in place"),
    ("DSV4_HC_POST", "special-without-comb", {"src2": {"ne": (4, 8, 2)}}, "post.ne (4, 8)"),
    ("DSV4_HC_PRE", "scaled-apart", {"src0": {"ne": (9, 3, 3, 2)}}, "x.ne (n, 1 or more streams, T)"),
    ("FILL", "f16-beyond", {"dst": {"dtype": "F32"}}, "type F16 as src0"),
    ("FLASH_ATTN_BACK", "d1-queries1-keys1-heads1-1-masked0", {"dst": {"nb": (4, 48, 4, 48)}}, "strides that do not decrease"),
    ("FLASH_ATTN_BACK", "d1-queries1-keys1-heads1-1-masked1", {"src1": {"ne": (1, 1, 1, 3)}}, "K of ne (1, keys, heads, 1)"),
    ("FLASH_ATTN_BACK", "d1-queries1-keys1-heads1-1-masked1", {"src2": {"nb": (8, 8, 8, 8)}}, "src2.nb[0] == 4 (dense rows)"),
    ("FLASH_ATTN_BACK", "d1-queries1-keys1-heads1-1-masked1", {"src2": {"ne": (1, 1, 2)}}, "V of ne (1, 1, 1, 1)"),
    ("FLASH_ATTN_EXT", "dk1-dv1", {"dst": {"nb": (8, 4, 8, 16)}}, "strides that do not decrease"),
    ("FLASH_ATTN_EXT", "dk1-dv1", {"src0": {"nb": (8, 8, 16, 16)}}, "src0.nb[0] == 4 (dense rows)"),
    ("FLASH_ATTN_EXT", "sinks-mask", {"src4": {"ne": (1,)}}, "4 sinks, one per head"),
    ("FLASH_ATTN_EXT", "scale-minus-inf-mask", {"src3": {"nb": (4, 10, 30, 30)}}, "src3.nb[0] == 2 (dense rows)"),
    ("FLASH_ATTN_EXT", "all-apart", {"src1": {"ne": (8, 5, 3, 3)}}, "ne[3] to divide 4"),
    ("FLASH_ATTN_EXT", "spoilt-k-nan", {"src3": {"ne": (8, 3, 3)}}, "ne[2] of the mask to divide 4"),
    ("GATED_DELTA_NET", "slots-for-each-token", {"src5": {"ne": (128, 4, 1, 2)}}, "state.ne (128, K, 1)"),
    ("GET_ROWS_BACK", "fewer-indices-f32", {"src1": {"nb": (8, 20, 20, 20)}}, "indices without gaps"),
    ("IM2COL", "flat-with-a-second-padding", {"src1": {"ne": (11, 5, 3)}}, "5 channels in the kernel as in src1"),
    ("IM2COL", "padding-beyond-the-image", {"src1": {"nb": (4, 16, 16, 8)}}, "image planes without gaps"),
    ("IM2COL_BACK", "dilation-zero", {"dst": {"nb": (4, 20, 80, 80)}}, "planes without gaps"),
    ("IM2COL_BACK", "dilation-zero", {"dst": {"ne": (4, 2), "nb": (4, 80, 16, 80)}}, "planes without gaps"),
    ("IM2COL_BACK", "one-element", {"dst": {"nb": (8, 4, 4, 4)}}, "dst.nb[0] == 4 (dense rows)"),
    ("IM2COL_BACK", "one-element", {"params": {"s1": 0}}, "s1 >= 1"),
    ("LIGHTNING_INDEXER", "k-q2_0", {"src2": {"ne": (4, 1)}}, "weights.ne (4, 2, 1, 1)"),
    ("LIGHTNING_INDEXER", "k-q4_0", {"src3": {"ne": (1, 2)}}, "mask.ne (5, 2, 1, ..)"),
    ("LIGHTNING_INDEXER", "k-q4_k", {"src3": {"ne": (5, 2, 1, 2)}}, "mask.ne[3] to divide 1"),
    ("LIGHTNING_INDEXER", "n1-heads1-tokens1-keys1", {"dst": {"nb": (8, 8, 8, 8)}}, "dst.nb[0] == 4 (dense rows)"),
    ("LIGHTNING_INDEXER", "n7-heads3-tokens2-keys9", {"src1": {"ne": (7, 2, 9)}}, "k.ne (7, 1, keys, 1)"),
    ("MEAN", "empty-rows", {"src0": {"nb": (8, 4, 4, 4)}}, "src0.nb[0] == 4 (dense rows)"),
    ("MUL_MAT", "f16-k1-m1-n1", {"dst": {"nb": (8, 8, 8, 8)}}, "strides that do not decrease"),
    ("MUL_MAT", "f16-k1-m1-n1", {"dst": {"nb": (4, 8, 4, 8)}}, "strides that do not decrease"),
    ("MUL_MAT", "f16-k1-m1-n1", {"src0": {"nb": (4, 4, 4, 4)}}, "src0.nb[0] == 2 (dense rows)"),
    ("MUL_MAT", "f32-k3-m5-n2", {"src0": {"ne": (3, 5, 2)}}, "ne[2] a multiple of src0's 2"),
    ("MUL_MAT", "f16-k3-m5-n2", {"src0": {"ne": (3, 5, 1, 2)}}, "ne[3] a multiple of src0's 2"),
    ("MUL_MAT", "hadamard-64", {"src1": {"dtype": "BF16"}}, "F32 or F16 by the hint"),
    ("MUL_MAT", "hadamard-64", {"src0": {"ne": (64, 32)}, "dst": {"ne": (32, 3)}}, "a square matrix of a power of 2 rows"),
    (
        "MUL_MAT",
        "hadamard-64",
        {"src0": {"ne": (48, 48)}, "src1": {"ne": (48, 3)}, "dst": {"ne": (48, 3)}},
        "a square matrix of a power of 2 rows",
    ),
    ("MUL_MAT_ID", "f32-n1-used4-tokens3", {"dst": {"nb": (4, 20, 80, 0)}}, "strides that do not decrease"),
    ("MUL_MAT_ID", "q8_0-n2-used4-tokens5", {"src0": {"nb": (0, 34, 170, 680)}}, "src0.nb[0] == 34 (dense rows)"),
    ("MUL_MAT_ID", "tq1_0", {"src2": {"ne": (2, 4, 1, 3)}}, "choices for every token"),
    ("OPT_STEP_ADAMW", "decay", {"dst": {"alias": "", "offset": 0}}, "the weight itself as result"),
    ("OPT_STEP_SGD", "special", {"dst": {"alias": "", "offset": 0}}, "the weight itself as result"),
    ("OPT_STEP_ADAMW", "gaps", {"dst": {"nb": (4, 20, 60, 120)}}, "the weight's ne (5, 3, 2, 1) and nb (4, 32, 128, 256)"),
    ("OPT_STEP_SGD", "gaps", {"dst": {"nb": (4, 20, 60, 120)}}, "the weight's ne (5, 3, 2, 1) and nb (4, 32, 128, 256)"),
    ("OPT_STEP_ADAMW", "gaps", {"src2": {"ne": (5, 3, 2, 2)}}, "the weight's ne (5, 3, 2, 1)"),
    ("OPT_STEP_ADAMW", "n1", {"src1": {"nb": (4, 4, 4, 24)}}, "the weight's ne (1, 3, 2, 2) and nb (4, 4, 12, 24)"),
    ("OUT_PROD", "broadcast-1-3", {"src0": {"ne": (5, 2, 2, 2)}}, "2 rows as in src0"),
    ("OUT_PROD", "m1-n1-k1", {"dst": {"nb": (8, 8, 8, 8)}}, "dst.nb[0] == 4 (dense rows)"),
    ("OUT_PROD", "q4_0-batches", {"src0": {"ne": (32, 4, 1, 2)}}, "ne[2] of 1 as in src0, as Q4_0 does not broadcast"),
    ("POOL_1D", "max-nan-left-out", {"params": {"k0": 1}}, "k0 == s0 and p0 == 0", "POOL_1D.windows"),
    ("POOL_1D", "mean-whole-row", {"params": {"s0": 2**31 - 1}}, "windows whose positions fit an int"),
    ("POOL_2D", "max-one-by-one", {"params": {"k1": 0}}, "a window of at least 1"),
    ("POOL_2D_BACK", "mean-infinities", {"params": {"s1": 2**30}}, "windows whose positions fit an int"),
    ("POOL_2D_BACK", "mean-padding-alone", {"params": {"p1": 2**31 - 1}}, "windows whose positions fit an int"),
    ("REPEAT_BACK", "empty", {"dst": {"ne": (1, 3)}}, "src0 of multiples of (1, 3, 1, 1)"),
    ("ROPE", "offset-yarn-factors", {"src2": {"nb": (8, 96, 96, 96)}}, "src2.nb[0] == 4 (dense rows)"),
    ("ROPE", "one-factor", {"dst": {"ne": (6, 2, 3, 2)}}, "ne (6, 2, 3, 1) as the source"),
    ("ROPE", "vision-factors", {"src2": {"ne": (31,)}}, "at least 32 frequency factors"),
    ("ROPE", "neox-yarn-half", {"params": {"mode": 40}}, "mode one of", "ROPE.imrope"),
    ("ROPE_BACK", "one-factor", {"params": {"n_dims": 4}}, "at least 2 frequency factors"),
    ("ROPE_BACK", "vision-yarn", {"src2": {"ne": (31,)}}, "at least 32 frequency factors"),
    ("SCALE", "bf16-in-place", {"dst": {"dtype": "F32"}}, "type BF16 as the source"),
    ("SET", "f32-into-i32", {"params": {"nb1": 29}}, "multiples of 4"),
    ("SET_ROWS", "without-src2", {"dst": {"ne": (6, 3, 1, 2)}}, "ne (6, rows, 1, 1)"),
    ("SOFT_MAX_BACK", "n1", {"dst": {"nb": (4, 8, 24, 48)}}, "dst contiguous"),
    ("SOLVE_TRI", "n1-k1", {"src1": {"nb": (4, 4, 2, 8)}}, "matrices without gaps"),
    ("SOLVE_TRI", "n1-k1", {"src1": {"nb": (4, 4, 4, 2)}}, "matrices without gaps"),
    ("SOLVE_TRI", "n2-k3", {"src0": {"ne": (2, 2, 2)}}, "src1.ne (k, 2, 2, 1) by src0"),
    ("SOLVE_TRI", "one-row-any-stride", {"src0": {"ne": (1, 2, 2)}}, "a square matrix"),
    ("SOLVE_TRI", "one-column-any-stride", {"dst": {"nb": (4, 8, 16, 16)}}, "matrices without gaps"),
    ("SSM_CONV", "kernel-1", {"src1": {"nb": (8, 4, 68, 68)}}, "src1.nb[0] == 4 (dense rows)"),
    ("SSM_SCAN", "dt-large-and-small", {"src4": {"ne": (8, 1, 8)}}, "ne (8, 1, 3, 1) in src4"),
    ("SSM_SCAN", "mamba-1-wide", {"src0": {"ne": (16, 3, 4), "nb": (4, 64, 192, 772)}}, "s.nb[3] == 768"),
    ("TRI", "lower-diag-n17", {"dst": {"ne": (3, 17, 2, 2)}, "src0": {"ne": (3, 17, 2, 2)}}, "square matrices without gaps"),
    ("TRI", "lower-n1", {"src0": {"nb": (4, 8, 8, 8)}}, "square matrices without gaps"),
    ("TIMESTEP_EMBEDDING", "dim-3-and-one", {"dst": {"ne": (3, 5)}}, "ne (4, 5, 1, 1)"),
    ("UPSCALE", "bilinear-same-size", {"params": {"mode": 2}}, "mode", "UPSCALE.modes"),
    ("UPSCALE", "bilinear-aligned-same-size", {"params": {"mode": 2}}, "mode", "UPSCALE.modes"),
]  # fmt: skip

ROWS: list[Row] = sorted((Row(*row) for row in _ROWS), key=lambda row: (row.op, row.case))
"""The same, those of one good case next to each other."""
UNFIT_OPS = tuple(dict.fromkeys(row.op for row in ROWS if row.op not in VIEW_OPS))
"""The ops of which a server checks nodes: those of VIEW_OPS compute nothing, and lie where graph.view says."""


def unfit(op: str, version: Version) -> Iterator[Unfit]:
    """Yield the nodes that do not fit an op in a version, those of one good case next to each other.

    Rows whose result has no elements are left out: such a node computes nothing, whatever else it says.
    """
    good = {case.id: case for case in cases_of(op, version)}
    for row in ROWS:
        if row.op == op and row.case in good and row.present(version):
            node = changed(good[row.case], row, version)
            if 0 not in node.dst.quad:
                yield Unfit(row, good[row.case], node)


def changed(good: Case, row: Row, version: Version = DEFAULT) -> Case:
    """Return the good case with a row's change; what no longer fits into the memory that it shared gets one of its own."""
    sources = tuple(
        None if source is None else _operand(source, row.changes.get(f"src{slot}", {})) for slot, source in enumerate(good.src)
    )
    dst = _operand(good.dst, row.changes.get("dst", {}))
    if dst.alias:
        owner = sources[int(dst.alias.removeprefix("src"))]
        assert owner is not None
        if dst.offset + _nbytes(dst) > _nbytes(owner):
            dst = replace(dst, alias="", offset=0)
    return replace(good, src=sources, dst=dst, params={**good.params, **_params(row, version)})


def _operand(good: Operand, change: Mapping[str, Any]) -> Operand:
    if change.keys() & {"ne", "dtype"}:
        good = replace(good, nb=None)
    return replace(good, **change)


def _nbytes(operand: Operand) -> int:
    dtype = BY_NAME[operand.dtype]
    nb = contiguous_nb(dtype, operand.quad) if operand.nb is None else operand.nb
    return Tensor(dtype, operand.quad, nb).nbytes


def _params(row: Row, version: Version) -> Mapping[str, Any]:
    """Return the parameters that a row changes, a kind with its number in a version."""
    params = dict(row.changes.get("params", {}))
    ours, theirs = kinds(row.op), kinds(row.op, version)
    if "kind" in params and params["kind"] >= 0:
        number = params["kind"]
        params["kind"] = theirs.index(ours[number]) if number < len(ours) else len(theirs)
    return params


def in_words(row: Row) -> str:
    """Return what a row changes, as a sentence has it: "src0.ne = (3, 3, 3, 11)"."""
    changes = ((name, field, value) for name, fields in row.changes.items() for field, value in fields.items())
    return ", ".join(f"{'' if name == 'params' else f'{name}.'}{field} = {value}" for name, field, value in changes)
