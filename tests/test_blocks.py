"""Blocks to floats and back, held to what the genuine library made of the same bytes (vectors/upstream-3.6.1-*/blocks).

Floats are compared as bits. NaN counts as equal to any NaN where arithmetic made it: which operand's payload and sign survive
is the compiler's choice (upstream's compiler turns a product with -1 into a flipped sign bit in the IQ types). The conversions
of F16 and BF16 are compared with their NaN bits.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import tracemalloc
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ggml_rpc_ref import blocks, upstream
from ggml_rpc_ref.errors import Misuse, Unsupported
from ggml_rpc_ref.spec.dtypes import BY_NAME, BY_NUMBER, DEAD_NUMBERS, DType, types
from tests.support.each import each
from tests.support.seeds import seeded
from vectors.tools import record_blocks

VECTORS = Path(__file__).parent.parent / "vectors"
WITNESS = VECTORS / "upstream-3.6.1-llama-cpp-python-0.3.20" / "blocks"
WITNESS_OF_LATER = VECTORS / "upstream-8.0.0-xllamacpp-2026.10.11549" / "blocks"

IN_3_6_1 = list(types().values())
NOT_READ_BY_UPSTREAM = {"F32", "Q8_1", "I8", "I16", "I32", "I64", "F64"}
"""Types without a routine that dequantises them."""
DEQUANTISE_CASES = 124
QUANTISE_CASES = 29
"""Recorded cases: of all types together, and of each type that upstream writes."""
WRITTEN_BY_UPSTREAM = {
    "F32", "F16", "BF16", "I32", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K",
    "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4",
}  # fmt: skip
LATER = {"Q1_0": 35, "Q2_0": 35}
"""Types that 8.0.0 has and 3.6.1 has not, to the number of their recorded cases."""

U1, F4 = np.dtype("u1"), np.dtype("<f4")


@cache
def witness(name: str) -> dict[str, Any]:
    directory = WITNESS_OF_LATER if name in LATER else WITNESS
    content: dict[str, Any] = json.loads((directory / f"{name}.json").read_text())
    return content


def unpacked(text: str, dtype: np.dtype[Any], *shape: int) -> npt.NDArray[Any]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype).reshape(shape)


def cases(direction: str) -> dict[DType, list[dict[str, str]]]:
    """Return the recorded rows of each type that has any."""
    found = {dtype: witness(dtype.name).get(direction, []) for dtype in (*IN_3_6_1, *(BY_NAME[name] for name in LATER))}
    return {dtype: rows for dtype, rows in found.items() if rows}


def inputs() -> dict[str, npt.NDArray[np.float32]]:
    return {row["case"]: unpacked(row["values"], F4, -1, 256) for row in witness("inputs")["cases"]}


def differing(got: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> list[str]:
    """Name the first elements whose bits differ, both being NaN apart."""
    wrong = (got.view(np.uint32) != expected.view(np.uint32)) & ~(np.isnan(got) & np.isnan(expected))
    return [f"{tuple(map(int, at))}: {got[tuple(at)]!r} for {expected[tuple(at)]!r}" for at in np.argwhere(wrong)[:5]]


# --- the witness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*IN_3_6_1, *(BY_NAME[name] for name in LATER)], ids=lambda dtype: dtype.name)
def test_row_of_the_type_table(dtype: DType) -> None:
    seen = witness(dtype.name)
    recorded = (seen["number"], seen["elements_per_block"], seen["bytes_per_block"], seen["is_quantized"])
    assert (dtype.number, dtype.block, dtype.size, dtype.is_quantised) == recorded


def test_no_recorded_case_is_missing() -> None:
    read = {dtype.name for dtype in IN_3_6_1 if "dequantise" in witness(dtype.name)}
    assert read == {dtype.name for dtype in IN_3_6_1} - NOT_READ_BY_UPSTREAM
    later = {name: len(witness(name)["dequantise"]) + len(witness(name)["quantise"]) for name in LATER}
    assert later == LATER
    assert sum(map(len, cases("dequantise").values())) == DEQUANTISE_CASES + 12
    written = {dtype.name: len(witness(dtype.name)["quantise"]) for dtype in IN_3_6_1 if "quantise" in witness(dtype.name)}
    assert written == dict.fromkeys(WRITTEN_BY_UPSTREAM, QUANTISE_CASES)


@pytest.mark.parametrize("name", ["IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S", "IQ1_M"])
def test_the_witness_names_every_grid_entry(name: str) -> None:
    """Under one scale, the blocks show as many different runs of magnitudes as the grid has entries."""
    entries = {"IQ2_XXS": 256, "IQ2_XS": 512, "IQ2_S": 1024, "IQ3_XXS": 256, "IQ3_S": 512, "IQ1_S": 2048, "IQ1_M": 2048}[name]
    rows = {row["case"]: row for row in witness(name)["dequantise"]}
    values = unpacked(rows["every entry"]["values"], F4, -1, 4 if name.startswith("IQ3") else 8)
    # IQ1's levels are signed and moved by an eighth
    magnitudes = np.round(values) if name.startswith("IQ1") else np.abs(values)
    assert len(np.unique(magnitudes, axis=0)) == entries


def test_every_number_below_the_count_is_live_or_dead() -> None:
    assert sorted([*BY_NUMBER, *DEAD_NUMBERS]) == list(range(43))
    assert {path.stem for path in WITNESS.glob("*.json")} == {dtype.name for dtype in IN_3_6_1} | {"inputs"}


@pytest.mark.parametrize("dtype", cases("dequantise"), ids=lambda dtype: dtype.name)
def test_dequantise_is_upstreams(dtype: DType) -> None:
    each(dequantises, ((row["case"], (dtype, row)) for row in cases("dequantise")[dtype]))


def dequantises(dtype: DType, row: dict[str, str]) -> None:
    stored = unpacked(row["blocks"], U1, -1, dtype.size)
    expected = unpacked(row["values"], F4, -1)
    assert differing(blocks.dequantise(dtype, stored), expected) == []


@pytest.mark.parametrize("dtype", cases("quantise"), ids=lambda dtype: dtype.name)
def test_quantise_is_upstreams(dtype: DType) -> None:
    each(quantises, ((row["case"], (dtype, row)) for row in cases("quantise")[dtype]))


def quantises(dtype: DType, row: dict[str, str]) -> None:
    values = inputs()[row["case"]]
    expected = unpacked(row["blocks"], U1, -1, dtype.size)
    sure = unpacked(row["sure"], U1, -1, dtype.size) if "sure" in row else np.ones_like(expected)
    got = blocks.quantise(dtype, values).reshape(-1, dtype.size)
    assert np.argwhere((got != expected) & (sure == 1)).tolist() == []


@pytest.mark.parametrize("name", sorted(WRITTEN_BY_UPSTREAM | set(LATER)))
def test_quantise_in_bulk_is_upstreams(name: str) -> None:
    """Enough values that leaving out any one step of a search shows; where it fails, test_live_quantise says which block."""
    made = blocks.quantise(BY_NAME[name], bulk())
    assert hashlib.sha256(made.tobytes()).hexdigest() == witness(name)["quantise_bulk_sha256"]


def test_bulk_input_is_the_recorded_one() -> None:
    assert hashlib.sha256(bulk().tobytes()).hexdigest() == witness("inputs")["bulk"]["sha256"]


@cache
def bulk() -> npt.NDArray[np.float32]:
    """The values of the recipe in inputs.json."""
    x = np.arange(2000 * 256 * 4, dtype=np.uint64)
    x = x * 0x9E3779B1 % 2**32
    x = (x ^ x >> 15) * 0x85EBCA77 % 2**32
    x = (x ^ x >> 13) * 0xC2B2AE3D % 2**32
    x = x ^ x >> 16
    uniform = ((x >> 8) / 2**24).astype(np.float32).reshape(2000, 256, 4)
    a, b, c, d = (uniform[:, :, k] for k in range(4))
    rows = np.empty((2000, 256), np.float32)
    rows[0::4] = a[0::4] - np.float32(0.5)
    rows[1::4] = a[1::4] * b[1::4] * c[1::4]
    rows[2::4] = (1 + b[2::4] / np.float32(16)) * np.where(a[2::4] < 0.5, np.float32(-1), np.float32(1))
    rows[3::4] = (a[3::4] + b[3::4]) + (c[3::4] + d[3::4]) - np.float32(2)
    return rows * np.exp2(np.arange(2000) % 13 - 6).astype(np.float32)[:, None]


def test_only_q8_k_and_iq4_nl_leave_bytes_to_chance() -> None:
    unsure = {name for name in WRITTEN_BY_UPSTREAM for row in witness(name)["quantise"] if "sure" in row}
    assert unsure == {"Q8_K", "IQ4_NL"}


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_all_patterns_to_float_and_all_roundings_back(name: str) -> None:
    digests = witness(name)["sha256"]
    patterns = np.arange(1 << 16, dtype="<u2")[:, None].view(np.uint8)
    values = blocks.dequantise(BY_NAME[name], patterns)
    assert hashlib.sha256(values.tobytes()).hexdigest() == digests["dequantise, all 65536 patterns ascending"]
    halves = blocks.quantise(BY_NAME[name], all_roundings(digests["lower halves"]))
    digest = hashlib.sha256(halves.tobytes()).hexdigest()
    assert digest == digests["quantise, every upper half with each of the lower halves"]


def all_roundings(lower_halves: str) -> npt.NDArray[np.float32]:
    upper = np.arange(1 << 16, dtype=np.uint32)[:, None] << np.uint32(16)
    return (upper | np.array([int(lower, 16) for lower in lower_halves.split()], np.uint32)).reshape(-1).view(np.float32)


# --- F16 and BF16 by other means ----------------------------------------------------------------------------------------


def float_bits_of_half(half: int) -> int:
    """What IEEE 754 says, by integers and Python's own half decoder; a NaN becomes quiet and keeps its payload."""
    if half & 0x7FFF > 0x7C00:
        return (half & 0x8000) << 16 | 0x7FC00000 | (half & 0x3FF) << 13
    value = struct.unpack("<e", struct.pack("<H", half))[0]
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def half_bits_of_float(bits: int) -> int:
    """What IEEE 754 says, by Python's own half encoder; a NaN becomes 0x7E00 with its sign."""
    if bits & 0x7FFFFFFF > 0x7F800000:
        return bits >> 16 & 0x8000 | 0x7E00
    value = struct.unpack("<f", struct.pack("<I", bits))[0]
    try:
        return int(struct.unpack("<H", struct.pack("<e", value))[0])
    except OverflowError:
        return bits >> 16 & 0x8000 | 0x7C00


def bfloat_bits_of_float(bits: int) -> int:
    """The nearer of the two neighbours, of equally near ones the even; a NaN is cut off and made quiet."""
    if bits & 0x7FFFFFFF > 0x7F800000:
        return bits >> 16 | 0x40
    down, rest = divmod(bits, 1 << 16)
    return down + (rest > 0x8000 or (rest == 0x8000 and down % 2 == 1))


def test_every_half_becomes_its_float() -> None:
    got = blocks.dequantise(BY_NAME["F16"], np.arange(1 << 16, dtype="<u2")[:, None].view(np.uint8)).view(np.uint32)
    assert got.tolist() == [float_bits_of_half(half) for half in range(1 << 16)]


def test_every_bfloat_becomes_its_float() -> None:
    got = blocks.dequantise(BY_NAME["BF16"], np.arange(1 << 16, dtype="<u2")[:, None].view(np.uint8)).view(np.uint32)
    assert got.tolist() == [half << 16 for half in range(1 << 16)]


@pytest.mark.parametrize(("name", "expected"), [("F16", half_bits_of_float), ("BF16", bfloat_bits_of_float)])
def test_floats_round_as_ieee_754_says(name: str, expected: Any) -> None:
    rng = np.random.default_rng(7)
    halves = np.arange(0, 1 << 16, 3, dtype=np.uint32)
    near_ties = np.concatenate([(halves << 16) + np.uint32(step) for step in (0, 0x0FFF, 0x1000, 0x1001, 0x3000, 0x8000)])
    bits = np.concatenate([near_ties, rng.integers(0, 1 << 32, 20_000, dtype=np.uint32)])
    got = blocks.quantise(BY_NAME[name], bits.view(np.float32)).view("<u2")[:, 0]
    assert got.tolist() == [expected(int(one)) for one in bits]


# --- conversions without an upstream routine ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stored", "expected"),
    [
        ("F32", "0000803f 0100c07f", [1.0, float("nan")]),
        ("F64", "000000000000f03f 010000000000f03f", [1.0, 1.0]),
        ("I8", "80 7f ff", [-128.0, 127.0, -1.0]),
        ("I16", "0080 ff7f", [-32768.0, 32767.0]),
        ("I32", "00000080 01000001 03000001", [-(2.0**31), 2.0**24, 2.0**24 + 4]),
        ("I64", "0000000000000080 ffffffffffffff7f 0100000100000000", [-(2.0**63), 2.0**63, 2.0**24]),
    ],
)
def test_plain_types_to_float(name: str, stored: str, expected: list[float]) -> None:
    raw = np.frombuffer(bytes.fromhex(stored), np.uint8).reshape(-1, BY_NAME[name].size)
    np.testing.assert_array_equal(blocks.dequantise(BY_NAME[name], raw), np.array(expected, np.float32))


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("F64", [1.0, -0.0], "000000000000f03f 0000000000000080"),
        ("I8", [1.9, -1.9, 300.0, float("nan")], "01 ff 2c 00"),
        ("I16", [1.9, -1.9, 70000.0, float("inf")], "0100 ffff 7011 0000"),
        ("I32", [1.9, -1.9, 3e9, float("nan")], "01000000 ffffffff 00000080 00000080"),
        ("I64", [-1.9, 2.0**40, 1e19, float("nan")], "ffffffffffffffff 0000000000010000 0000000000000080 0000000000000080"),
    ],
)
def test_floats_to_plain_types(name: str, values: list[float], expected: str) -> None:
    made = blocks.quantise(BY_NAME[name], np.array(values, np.float32))
    assert made.tobytes() == bytes.fromhex(expected)


def test_q8_1_is_scale_times_level() -> None:
    block = struct.pack("<ee32b", -0.25, 99.0, *range(-16, 16))
    got = blocks.dequantise(BY_NAME["Q8_1"], np.frombuffer(block, np.uint8)[None])
    assert got.tolist() == [-0.25 * level for level in range(-16, 16)]


@pytest.mark.parametrize(("name", "value"), [("Q8_K", 0.0), ("IQ4_NL", 0.0), ("IQ4_NL", -9e-16), ("IQ4_NL", 9e-16)])
def test_blocks_that_upstream_leaves_partly_unwritten_come_out_zero(name: str, value: float) -> None:
    made = blocks.quantise(BY_NAME[name], np.full(256, value, np.float32))
    assert blocks.dequantise(BY_NAME[name], made).view(np.uint32).tolist() == [0] * 256


def test_the_sums_of_an_empty_q8_k_block_are_zero() -> None:
    assert blocks.quantise(BY_NAME["Q8_K"], np.zeros(256, np.float32)).tobytes() == bytes(292)


# --- shapes, memory, misuse ---------------------------------------------------------------------------------------------

SHAPED = [BY_NAME[name] for name in ("F16", "I64", "Q8_0", "Q4_K", "IQ3_S", "NVFP4")]


@pytest.mark.parametrize("dtype", SHAPED, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("lead", [(), (1,), (3,), (2, 3), (2, 1, 3), (0,), (2, 0)], ids=str)
def test_leading_dimensions_are_kept(dtype: DType, lead: tuple[int, ...]) -> None:
    stored = random_blocks(dtype, *lead, 4)
    values = blocks.dequantise(dtype, stored)
    assert values.shape == (*lead, 4 * dtype.block)
    for at in np.ndindex(*lead):
        assert differing(values[at], blocks.dequantise(dtype, stored[at])) == []


@pytest.mark.parametrize("dtype", SHAPED, ids=lambda dtype: dtype.name)
def test_strides_do_not_matter(dtype: DType) -> None:
    whole = random_blocks(dtype, 3, 5, 8)
    repeated = np.broadcast_to(whole, (2, *whole.shape))
    for view in (whole[:, ::2], whole[..., ::3, :], whole.transpose(2, 0, 1, 3), whole[::-1], repeated):
        assert differing(blocks.dequantise(dtype, view), blocks.dequantise(dtype, view.copy())) == []
    spaced = np.zeros((4, dtype.size * 2), np.uint8)
    spaced[:, ::2] = whole[0, 0, :4]
    assert differing(blocks.dequantise(dtype, spaced[:, ::2]), blocks.dequantise(dtype, whole[0, 0, :4])) == []


@pytest.mark.parametrize("name", ["F16", "Q8_0", "Q4_K", "IQ4_XS"])
def test_quantise_takes_any_strides_and_dimensions(name: str) -> None:
    dtype = BY_NAME[name]
    values = np.random.default_rng(3).standard_normal((2, 512, 3)).astype(np.float32)
    turned = values.transpose(0, 2, 1)
    made = blocks.quantise(dtype, turned)
    assert made.shape == (2, 3, 512 // dtype.block, dtype.size)
    assert made.tobytes() == blocks.quantise(dtype, turned.copy()).tobytes()
    assert made[1, 2].tobytes() == blocks.quantise(dtype, turned[1, 2].copy()).tobytes()


@pytest.mark.parametrize("dtype", SHAPED, ids=lambda dtype: dtype.name)
def test_slabs_join_without_a_seam(dtype: DType, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = random_blocks(dtype, 11)
    whole = blocks.dequantise(dtype, stored)
    made = blocks.quantise(dtype, np.resize(np.nan_to_num(whole), 11 * dtype.block)) if dtype in blocks.CAN_QUANTISE else None
    monkeypatch.setattr(blocks, "SLAB_ELEMENTS", 3 * dtype.block)
    assert differing(blocks.dequantise(dtype, stored), whole) == []
    if made is not None:
        assert blocks.quantise(dtype, np.resize(np.nan_to_num(whole), 11 * dtype.block)).tobytes() == made.tobytes()


@pytest.mark.parametrize("name", ["F32", "Q8_0", "Q6_K", "IQ2_XS"])
def test_memory_stays_near_the_output(name: str) -> None:
    dtype = BY_NAME[name]
    stored = np.zeros((8 << 20) // dtype.block * dtype.size, np.uint8).reshape(-1, dtype.size)
    tracemalloc.start()
    blocks.dequantise(dtype, stored)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * (32 << 20)


def random_blocks(dtype: DType, *shape: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng([5, dtype.number]).integers(0, 256, (*shape, dtype.size), dtype=np.uint8)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((2, 33), np.uint8),
        np.zeros((2, 34), np.int8),
        np.zeros(34, np.uint8),
        np.zeros((34, 2), np.uint8),
    ],
    ids=["size", "dtype", "one dimension", "turned"],
)
def test_wrong_blocks_are_misuse(bad: npt.NDArray[Any]) -> None:
    with pytest.raises(Misuse, match=r"Q8_0 blocks must be uint8 of shape \(\.\.\., n, 34\)"):
        blocks.dequantise(BY_NAME["Q8_0"], bad)


@pytest.mark.parametrize(
    "bad", [np.zeros(33, np.float32), np.zeros(32), np.float32(1).reshape(())], ids=["length", "dtype", "scalar"]
)
def test_wrong_values_are_misuse(bad: npt.NDArray[Any]) -> None:
    with pytest.raises(Misuse, match="Q8_0 is made from float32 in rows of a multiple of 32 elements"):
        blocks.quantise(BY_NAME["Q8_0"], bad)


def test_which_types_can_be_made_and_read() -> None:
    assert {dtype.name for dtype in blocks.CAN_QUANTISE} == WRITTEN_BY_UPSTREAM | set(LATER)
    assert {dtype.name for dtype in blocks.CAN_DEQUANTISE} == {dtype.name for dtype in IN_3_6_1} | set(LATER)


@pytest.mark.parametrize("name", ["IQ2_XXS", "IQ1_M"])
def test_types_that_upstream_does_not_write_are_unsupported(name: str) -> None:
    with pytest.raises(Unsupported, match=f"no routine that writes {name}"):
        blocks.quantise(BY_NAME[name], np.zeros(256, np.float32))


# --- live ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def genuine_types(upstream_build: upstream.Build) -> dict[str, Any]:
    types: dict[str, Any] = record_blocks.Genuine(upstream_build.libraries).types()
    return types


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("dtype", IN_3_6_1, ids=lambda dtype: dtype.name)
def test_live_dequantise(dtype: DType, seed: int, genuine_types: dict[str, Any]) -> None:
    genuine = genuine_types[dtype.name]
    if genuine.to_float is None:
        assert dtype.name in NOT_READ_BY_UPSTREAM
        return
    rng = np.random.default_rng([seeded(seed), dtype.number])
    stored = rng.integers(0, 256, (100_000 // dtype.block, dtype.size), dtype=np.uint8)
    assert differing(blocks.dequantise(dtype, stored), genuine.dequantise(stored).reshape(-1)) == []


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("name", sorted(WRITTEN_BY_UPSTREAM))
def test_live_quantise(name: str, seed: int, genuine_types: dict[str, Any]) -> None:
    rng = np.random.default_rng(seeded(seed))
    scale = np.concatenate([np.ones((100, 1)), 10.0 ** rng.uniform(-14, 30, (100, 1))])
    values = (rng.standard_normal((200, 256)) * scale).astype(np.float32)
    values[50:60] = np.round(values[50:60] * 8) / 8
    values[60:70] *= rng.random((10, 256)) < 0.5
    expected = genuine_types[name].quantise(values)
    got = blocks.quantise(BY_NAME[name], values).reshape(expected.shape)
    assert np.argwhere(got != expected).tolist() == []


def test_the_recorded_files_are_what_the_recorder_writes(genuine_types: dict[str, Any]) -> None:
    rows = [
        (case, values.astype(np.float32)) for case, values in record_blocks.float_cases(np.random.default_rng(record_blocks.SEED))
    ]
    assert [(row["case"], row["values"]) for row in witness("inputs")["cases"]] == [
        (case, record_blocks.packed(v)) for case, v in rows
    ]
    for name in ("Q4_0", "Q5_K", "IQ2_XXS", "IQ1_M", "NVFP4"):
        assert witness(name).get("dequantise") == record_blocks.record_dequantise(name, genuine_types[name])
