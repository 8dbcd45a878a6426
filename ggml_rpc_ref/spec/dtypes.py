"""One row per ggml_type: number, elements per block, bytes per block, first protocol version.

The numbers of `enum ggml_type` are never reused: a removed type leaves a hole (`DEAD_NUMBERS`), whose block size is 0 in the
builds that still list it. Which types a build knows is not tied to the protocol version: a type may come while a version is
current. `since` is then that version, unless every published package of it lacks the type.

Sources: ggml.h, ggml.c (type_traits) and ggml-common.h of the 3.6.1 release; ggml.h of later releases for the later types.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ggml_rpc_ref.spec.versions import DEFAULT, V1_0_0, V2_0_0, V3_6_1, V4_0_0, V4_0_2, Version, present


@dataclass(frozen=True, slots=True)
class DType:
    """One element type of ggml."""

    name: str
    """ggml's name without the prefix GGML_TYPE_, for instance "Q4_0"."""
    number: int
    """The ggml_type id, as the wire tensor's `type` field holds it."""
    block: int
    """Elements per block; 1 for the plain types."""
    size: int
    """Bytes per block."""
    since: Version
    """The first protocol version that has the type; 1.0.0 for those older than the version number."""

    @property
    def is_quantised(self) -> bool:
        """Whether ggml counts the type as quantised (ggml_is_quantized; the INIT_TENSOR rule asks for it).

        In ggml these are exactly the types whose block holds more than one element.
        """
        return self.block > 1


DTYPES: tuple[DType, ...] = (
    DType("F32", 0, 1, 4, V1_0_0),
    DType("F16", 1, 1, 2, V1_0_0),
    DType("Q4_0", 2, 32, 18, V1_0_0),
    DType("Q4_1", 3, 32, 20, V1_0_0),
    DType("Q5_0", 6, 32, 22, V1_0_0),
    DType("Q5_1", 7, 32, 24, V1_0_0),
    DType("Q8_0", 8, 32, 34, V1_0_0),
    DType("Q8_1", 9, 32, 36, V1_0_0),
    DType("Q2_K", 10, 256, 84, V1_0_0),
    DType("Q3_K", 11, 256, 110, V1_0_0),
    DType("Q4_K", 12, 256, 144, V1_0_0),
    DType("Q5_K", 13, 256, 176, V1_0_0),
    DType("Q6_K", 14, 256, 210, V1_0_0),
    DType("Q8_K", 15, 256, 292, V1_0_0),
    DType("IQ2_XXS", 16, 256, 66, V1_0_0),
    DType("IQ2_XS", 17, 256, 74, V1_0_0),
    DType("IQ3_XXS", 18, 256, 98, V1_0_0),
    DType("IQ1_S", 19, 256, 50, V1_0_0),
    DType("IQ4_NL", 20, 32, 18, V1_0_0),
    DType("IQ3_S", 21, 256, 110, V1_0_0),
    DType("IQ2_S", 22, 256, 82, V1_0_0),
    DType("IQ4_XS", 23, 256, 136, V1_0_0),
    DType("I8", 24, 1, 1, V1_0_0),
    DType("I16", 25, 1, 2, V1_0_0),
    DType("I32", 26, 1, 4, V1_0_0),
    DType("I64", 27, 1, 8, V1_0_0),
    DType("F64", 28, 1, 8, V1_0_0),
    DType("IQ1_M", 29, 256, 56, V1_0_0),
    DType("BF16", 30, 1, 2, V1_0_0),
    DType("TQ1_0", 34, 256, 54, V1_0_0),
    DType("TQ2_0", 35, 256, 66, V1_0_0),
    # Added 2025-08-05, while 2.0.0 was current: the older 2.0.0 builds lack it.
    DType("MXFP4", 39, 32, 17, V2_0_0),
    # Added 2026-03-11, on the second day of 3.6.1.
    DType("NVFP4", 40, 64, 36, V3_6_1),
    # Added 2026-04-06, in the last nine days of 3.6.1; the packaged 3.6.1 build (llama-cpp-python 0.3.20) lacks it.
    DType("Q1_0", 41, 128, 18, V4_0_0),
    # Added 2026-07-07: the older 4.0.1 builds lack it.
    DType("Q2_0", 42, 64, 18, V4_0_2),
)
"""Every live type, in number order."""

BY_NUMBER: dict[int, DType] = {dtype.number: dtype for dtype in DTYPES}
BY_NAME: dict[str, DType] = {dtype.name: dtype for dtype in DTYPES}

_IN_FILE_REPACKING = "repacked layout, now made by the backend at run time from the base type"

DEAD_NUMBERS: dict[int, str] = {
    4: "Q4_2, support removed",
    5: "Q4_3, support removed",
    31: f"Q4_0_4_4: {_IN_FILE_REPACKING}",
    32: f"Q4_0_4_8: {_IN_FILE_REPACKING}",
    33: f"Q4_0_8_8: {_IN_FILE_REPACKING}",
    36: f"IQ4_NL_4_4: {_IN_FILE_REPACKING}",
    37: f"IQ4_NL_4_8: {_IN_FILE_REPACKING}",
    38: f"IQ4_NL_8_8: {_IN_FILE_REPACKING}",
}
"""Numbers below the count that name no type any more, with the reason; block size and bytes are 0 in upstream's table."""


@cache
def types(version: Version = DEFAULT) -> dict[int, DType]:
    """Return number to type for the types that a version has."""
    return {dtype.number: dtype for dtype in DTYPES if present(version, dtype.since)}


@cache
def type_count(version: Version = DEFAULT) -> int:
    """Return a version's GGML_TYPE_COUNT: the first number that its builds refuse as unknown.

    The numbers in `DEAD_NUMBERS` are all older than 1.0.0, so they count in every version.
    """
    return max(*types(version), *DEAD_NUMBERS) + 1
