"""Record what the genuine ggml 3.6.1 makes of blocks, and which blocks it makes of floats: the witness under blocks/.

    .venv/bin/python -m vectors.tools.record_blocks                       # the build in ~/.cache/ggml-rpc-ref
    .venv/bin/python -m vectors.tools.record_blocks --lib DIR --out DIR   # another build, another place
    .venv/bin/python -m vectors.tools.record_blocks --build 8.0.0         # the types that 8.0.0 has and 3.6.1 has not

The functions are called in the library itself, through ctypes, by way of its own tables: `to_float` of ggml_get_type_traits
(libggml-base), `from_float` of ggml_get_type_traits_cpu (libggml-cpu, what CPY, SET_ROWS and DUP call). Two exceptions:
Q8_K's `to_float` is null, but dequantize_row_q8_K is exported; and F16 is recorded from `from_float_ref`, because the one of
the CPU backend treats a NaN's payload differently in the last elements of a row. Nothing of ggml_rpc_ref takes part.

Written are `inputs.json`, the floats that are quantised, and one `<TYPE>.json` each. Arrays are little-endian, as base64 of
zlib. The layouts below serve only to put interesting bits in interesting places.
"""

from __future__ import annotations

import argparse
import base64
import ctypes
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]

CACHE = Path.home() / ".cache/ggml-rpc-ref/upstream/3.6.1"
OUT = Path(__file__).resolve().parents[1] / "upstream-3.6.1-llama-cpp-python-0.3.20" / "blocks"
PACKAGE = "llama-cpp-python 0.3.20 (protocol 3.6.1)"
LATER = {"8.0.0": ("xllamacpp 2026.10.11549 (protocol 8.0.0)", "upstream-8.0.0-xllamacpp-2026.10.11549", 43, ("Q1_0", "Q2_0"))}
"""Later builds whose types are recorded: package, directory below vectors/, GGML_TYPE_COUNT, types; inputs are those of 3.6.1."""
ENCODING = "base64 of zlib of the little-endian array: blocks uint8, values float32"
SEED = 20261122

# --- the genuine library ------------------------------------------------------------------------------------------------


class TypeTraits(ctypes.Structure):
    """struct ggml_type_traits of ggml.h."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float_ref", ctypes.c_void_p),
    )


class CpuTypeTraits(ctypes.Structure):
    """The first member of struct ggml_type_traits_cpu of ggml-cpu.h."""

    _fields_ = (("from_float", ctypes.c_void_p),)


CONVERT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


@dataclass(frozen=True)
class GenuineType:
    """One ggml_type as the library describes it."""

    number: int
    block: int
    size: int
    is_quantized: bool
    to_float: Callable[[int, int, int], None] | None
    from_float: Callable[[int, int, int], None] | None

    def dequantise(self, blocks: Bytes) -> Values:
        """Blocks of shape (n, size) to float32 (n, block)."""
        assert self.to_float is not None
        values = np.empty((len(blocks), self.block), np.float32)
        blocks = np.ascontiguousarray(blocks)
        self.to_float(blocks.ctypes.data, values.ctypes.data, values.size)
        return values

    def quantise(self, values: Values, memory: int = 0) -> Bytes:
        """float32 as one row to blocks of shape (n, size), into memory whose bytes were `memory`."""
        assert self.from_float is not None
        assert values.dtype == np.float32
        blocks = np.full((values.size // self.block, self.size), memory, np.uint8)
        values = np.ascontiguousarray(values)
        self.from_float(values.ctypes.data, blocks.ctypes.data, values.size)
        return blocks

    def quantise_each(self, values: Values) -> tuple[Bytes, Bytes]:
        """Quantise each block on its own, behind a block that leaves traces; return the blocks and which bytes are sure.

        Some routines leave bytes as they were in the destination or in scratch memory (Q8_K's bsums and IQ4_NL's codes of
        an all-zero block). Such bytes come out differently after another predecessor and over other memory.
        """
        each = values.reshape(-1, self.block)
        ramp = np.linspace(-1, 1, self.block, dtype=np.float32)
        runs = [
            np.concatenate([self.quantise(np.stack([before, row]), memory)[1:] for row in each])
            for before, memory in ((ramp, 0x00), (-(ramp[::-1] ** 3), 0xFF), (np.roll(ramp, 7), 0x5A))
        ]
        return runs[0], ((runs[0] == runs[1]) & (runs[0] == runs[2])).astype(np.uint8)


class Genuine:
    """libggml-base and libggml-cpu of one directory."""

    def __init__(self, directory: Path) -> None:
        self.base = ctypes.CDLL(str(directory / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
        self.cpu = ctypes.CDLL(str(directory / "libggml-cpu.so"), mode=ctypes.RTLD_GLOBAL)
        self.base.ggml_get_type_traits.restype = ctypes.POINTER(TypeTraits)
        self.cpu.ggml_get_type_traits_cpu.restype = ctypes.POINTER(CpuTypeTraits)
        self.base.ggml_version.restype = self.base.ggml_commit.restype = ctypes.c_char_p
        self.cpu.ggml_cpu_init()

    def types(self, count: int = 41) -> dict[str, GenuineType]:
        """Every live type by its enumerator's name, in number order; `count` is the build's GGML_TYPE_COUNT."""
        found = {}
        for number in range(count):
            traits = self.base.ggml_get_type_traits(number).contents
            if traits.blck_size:
                found[traits.type_name.decode().upper()] = self._type(number, traits)
        return found

    def _type(self, number: int, traits: Any) -> GenuineType:
        to_float, name = traits.to_float, traits.type_name
        from_float = self.cpu.ggml_get_type_traits_cpu(number).contents.from_float
        if name == b"q8_K":
            to_float = ctypes.cast(self.base.dequantize_row_q8_K, ctypes.c_void_p).value
        if name == b"f16":
            from_float = traits.from_float_ref
        return GenuineType(
            number,
            traits.blck_size,
            traits.type_size,
            traits.is_quantized,
            CONVERT(to_float) if to_float else None,
            CONVERT(from_float) if from_float else None,
        )

    def provenance(self, package: str = PACKAGE, command: str = "") -> dict[str, str]:
        """Return which library was asked, on which machine."""
        flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[1].split("\n", 1)[0].split()
        wanted = [flag for flag in ("avx", "avx2", "f16c", "fma", "avx512f") if flag in flags]
        return {
            "package": package,
            "ggml": f"{self.base.ggml_version().decode()} ({self.base.ggml_commit().decode()})",
            "machine": "x86-64 with " + " ".join(wanted) + ", built on the machine that ran it",
            "command": f"vectors/tools/record_blocks.py{command}",
        }


def library_directory(environment: Path = CACHE) -> Path:
    """Return the directory of the ggml libraries in a virtual environment; FileNotFoundError where it has none."""
    for found in environment.glob("lib/python3*/site-packages/llama_cpp/lib"):
        if (found / "libggml-base.so").exists() and (found / "libggml-cpu.so").exists():
            return found
    raise FileNotFoundError(f"no genuine ggml libraries in {environment}")


# --- blocks to dequantise -----------------------------------------------------------------------------------------------

HALF_SCALES: dict[str, tuple[int, ...]] = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2),
    "Q5_K": (0, 2), "Q6_K": (208,), "IQ2_XXS": (0,), "IQ2_XS": (0,), "IQ2_S": (0,), "IQ3_XXS": (0,), "IQ3_S": (0,),
    "IQ1_S": (0,), "IQ4_NL": (0,), "IQ4_XS": (0,), "TQ1_0": (52,), "TQ2_0": (64,), "Q1_0": (0,), "Q2_0": (0,),
}  # fmt: skip
"""Byte offsets of the half-precision numbers of a block."""

NORMAL = np.array([0x3C00, 0xBC00, 0x2E66, 0xA123, 0x0400, 0x8401, 0x7BFF, 0xFBFF, 0x5555, 0x1234], np.uint16)
SUBNORMAL = np.array([0x0001, 0x8001, 0x03FF, 0x83FF, 0x0200, 0x0155], np.uint16)
ZERO = np.array([0x0000, 0x8000], np.uint16)
NON_FINITE = np.array([0x7C00, 0xFC00, 0x7E00, 0xFE00, 0x7C01, 0xFD55], np.uint16)
ONE = np.array([0x3C00], np.uint16)


def with_scales(name: str, blocks: Bytes, halves: npt.NDArray[np.uint16]) -> Bytes:
    """Return the blocks with their half-precision numbers set, in turn, to the given bits."""
    blocks = blocks.copy()
    chosen = np.resize(halves, len(blocks))
    if name == "IQ1_M":  # its number lies in the top four bits of four words
        words = blocks[:, 48:56].copy().view("<u2")
        words = words & 0x0FFF | (chosen[:, None] >> np.array([0, 4, 8, 12]) & 15) << 12
        blocks[:, 48:56] = words.astype("<u2").view(np.uint8)
    for place, offset in enumerate(HALF_SCALES.get(name, ())):
        blocks[:, offset : offset + 2] = np.roll(chosen, place).astype("<u2")[:, None].view(np.uint8)
    return blocks


def random_blocks(name: str, genuine: GenuineType, rng: np.random.Generator) -> Iterator[tuple[str, Bytes]]:
    """Blocks of random bits under scales of every class."""
    few = max(6, 512 // genuine.block)

    def bits(n: int) -> Bytes:
        return rng.integers(0, 256, (n, genuine.size), dtype=np.uint8)

    yield "any bits", bits(few)
    if genuine.block == 1:
        yield "many bits", bits(2000)
        return
    if name in HALF_SCALES or name == "IQ1_M":
        yield "normal scales", with_scales(name, bits(max(few, len(NORMAL))), NORMAL)
        yield "sub-normal scales", with_scales(name, bits(6), SUBNORMAL)
        yield "zero scales", with_scales(name, bits(2), ZERO)
        yield "infinite and NaN scales", with_scales(name, bits(6), NON_FINITE)


def every_entry(name: str, genuine: GenuineType, rng: np.random.Generator) -> Bytes | None:
    """Blocks that name every grid entry, byte code or scale code of a type at least once, under scale 1."""
    counter = np.arange(256, dtype=np.uint8)

    def blocks(n: int) -> Bytes:
        return np.zeros((n, genuine.size), np.uint8)

    def indices(low: slice, count: int, high: slice, fill: Callable[[int], int]) -> Bytes:
        """For each value of the high index bits, blocks whose low index bytes count through 0..255."""
        per = 256 // (low.stop - low.start)
        made = blocks(per * count)
        for value in range(count):
            part = made[per * value : per * (value + 1)]
            part[:, low] = counter.reshape(per, -1)
            part[:, high] = np.resize(np.frombuffer(fill(value).to_bytes(2, "little"), np.uint8), high.stop - high.start)
        return made

    match name:
        case "IQ2_XXS" | "IQ3_XXS":
            groups = blocks(8 if name == "IQ2_XXS" else 4)
            words = np.arange(len(groups) * 32, dtype=np.uint32).reshape(-1, 4) % 128
            signs = words[:, 0] | words[:, 1] << 7 | words[:, 2] << 14 | words[:, 3] << 21
            signs = signs.astype("<u4").reshape(len(groups), 8)
            if name == "IQ2_XXS":
                field = groups[:, 2:].reshape(-1, 8, 8)
                field[:, :, :4], field[:, :, 4:] = counter.reshape(8, 8, 4), signs[:, :, None].view(np.uint8)
                groups[:, 2:] = field.reshape(8, 64)
            else:
                groups[:, 2:66], groups[:, 66:] = counter.reshape(4, 64), signs.view(np.uint8)
            made = groups
        case "IQ2_XS":
            made = blocks(16)
            index = np.arange(512, dtype=np.uint16)
            made[:, 2:66] = (index | index % 128 << 9).astype("<u2").reshape(16, 32).view(np.uint8)
        case "IQ2_S":
            made = indices(slice(2, 34), 4, slice(66, 74), lambda high: high * 0x5555)
            made[:, 34:66] = np.resize(counter, (len(made), 32))
        case "IQ3_S":
            made = indices(slice(2, 66), 2, slice(66, 74), lambda high: high * 0xFFFF)
            made[:, 74:106] = np.resize(counter, (len(made), 32))
        case "IQ1_S":
            made = indices(slice(2, 34), 8, slice(34, 50), lambda high: high * 0o1111 | high % 2 << 15)
        case "IQ1_M":
            made = indices(slice(0, 32), 8, slice(32, 48), lambda high: high * 0x1111 | high % 2 * 0x8080)
        case "TQ1_0":
            made = blocks(6)
            made[:, :48], made[:, 48:52] = np.resize(counter, (6, 48)), rng.integers(0, 256, (6, 4))
        case "Q4_0" | "IQ4_NL":
            made = blocks(16)
            made[:, 2:] = counter.reshape(16, 16)
        case "Q1_0" | "Q2_0":
            made = blocks(16)
            made[:, 2:] = counter.reshape(16, 16)
        case "MXFP4":
            made = blocks(256)
            made[:, 0], made[:, 1:] = counter, np.arange(16) * 0x11
            return made
        case "NVFP4":
            made = blocks(64)
            made[:, :4], made[:, 4:] = counter.reshape(64, 4), np.resize(np.arange(16) * 0x11, 32)
            return made
        case _:
            return None
    return with_scales(name, made, ONE)


# --- floats to quantise -------------------------------------------------------------------------------------------------


def float_cases(rng: np.random.Generator) -> Iterator[tuple[str, Values]]:
    """Rows of 256 floats, so that every block size divides them."""

    def rows(n: int, scale: Any = 1.0) -> Values:
        return np.asarray(rng.standard_normal((n, 256)) * scale, np.float32)

    def integers(low: int, high: int, n: int) -> Values:
        return rng.integers(low, high, (n, 256)).astype(np.float32)

    signs = np.where(np.arange(256) % 2, -1, 1)
    yield "normal", rows(8)
    yield "normal of several scales", rows(6, 10.0 ** np.array([[-6], [-3], [-1], [1], [3], [6]]))
    yield "blocks of several scales", rows(3, np.repeat(10.0 ** rng.uniform(-4, 4, (3, 16)), 16, axis=1))
    yield "elements of several scales", rows(3, 10.0 ** rng.uniform(-3, 3, (3, 256)))
    yield "positive", np.abs(rows(2)) + np.float32(0.5)
    yield "negative", -np.abs(rows(2)) - np.float32(0.5)
    yield "integers, many ties", np.concatenate([integers(-7, 8, 1), integers(-127, 128, 1), integers(0, 4, 1)])
    yield "halves, many ties", integers(-15, 16, 2) / np.float32(2)
    yield "eighths of 127", np.concatenate([integers(-1016, 1017, 2) / np.float32(8)])
    yield "constants", np.repeat(rng.standard_normal((2, 8)), 32, axis=1).astype(np.float32)
    yield "zeros", np.zeros((1, 256), np.float32)
    yield "zeros of both signs", np.where(rng.random((2, 256)) < 0.5, np.float32(0), np.float32(-0.0))
    yield "a negative zero first", np.where(np.arange(256) % 32, np.float32(0), np.float32(-0.0)).reshape(1, 256)
    yield "sparse", rows(2) * (rng.random((2, 256)) < 0.04)
    yield "alternating maximum", (signs * np.array([[1], [6], [127]])).astype(np.float32)
    yield "alternating maximum, minus first", (-signs * np.array([[1], [7.5]])).astype(np.float32)
    yield "ramp", np.linspace(-3, 5, 512, dtype=np.float32).reshape(2, 256)
    yield "sub-normal", rows(2, 1e-40)
    yield "around the smallest", rows(3, 10.0 ** np.array([[-44], [-38], [-36]]))
    yield "below 1e-15", rows(2, np.repeat(10.0 ** np.array([[-17.0] * 4 + [-14] * 4, [-16, -15.0] * 4]), 32, axis=1))
    yield "huge", np.clip(rows(3), -3, 3) * np.array([[1e20], [3e36], [1e38]], np.float32)
    yield "beyond half", rows(2, np.array([[3e4], [1e6]]))
    powers = 2.0 ** rng.integers(-20, 20, (2, 256)) * np.where(rng.random((2, 256)) < 0.5, -1, 1)
    yield "powers of two", powers.astype(np.float32)
    near = np.nextafter(np.abs(powers[0]).astype(np.float32), np.float32(0))
    yield "just below powers of two", near.reshape(1, 256)
    huge_power = np.float32(2.0) ** np.repeat(np.array([-100, -60, 60, 100], np.float32), 64)
    steps = np.repeat(rng.integers(1, 90, 8), 32).astype(np.int32)
    yield "some bits below far powers of two", (huge_power.view(np.int32) - steps).view(np.float32).reshape(1, 256)
    infinite = rows(4)
    infinite[0, ::37], infinite[1, 5::61] = np.inf, -np.inf
    infinite[2, :128], infinite[3, 64:] = -np.inf, np.inf
    yield "infinities", infinite
    nan = rows(2)
    nan[0, ::41], nan[1, 31::32] = np.nan, np.nan
    yield "NaN", nan
    # the maxima that upstream takes with MAX() start again behind a NaN, and are then smaller than earlier elements
    behind = rows(2, np.array([[300], [1e30]]))
    behind[:, 254], behind[:, 255] = np.nan, 1
    yield "NaN behind large elements", behind
    largest = np.concatenate([np.linspace(0.07, 0.1, 16), np.linspace(1400, 2800, 8), 6 * 2.0 ** np.arange(-12, -4)])
    peaks = rng.uniform(-1, 1, (32, 16)) * largest[:, None]
    peaks[:, 3] = largest
    yield "runs of 16 of chosen maxima", peaks.reshape(2, 256).astype(np.float32)


BULK_ROWS = 2000
BULK_RECIPE = (
    "2000 rows of 256 elements from four uniform numbers a, b, c, d each, in [0, 1) with 24 bits: the number k of element i is "
    "x = (4 i + k) * 0x9E3779B1; x ^= x >> 15; x *= 0x85EBCA77; x ^= x >> 13; x *= 0xC2B2AE3D; x ^= x >> 16 (all modulo 2**32), "
    "then (x >> 8) / 2**24. In float32, row r has (by r % 4) a - 1/2; a * b * c; 1 + b / 16, negative where a < 1/2; or "
    "((a + b) + (c + d)) - 2; times 2**(r % 13 - 6)."
)


def bulk() -> Values:
    """Floats by BULK_RECIPE: the same on every machine, and many enough to need every step of every search."""
    x = np.arange(BULK_ROWS * 256 * 4, dtype=np.uint32) * np.uint32(0x9E3779B1)
    for shift, factor in ((15, 0x85EBCA77), (13, 0xC2B2AE3D), (16, 1)):
        x = (x ^ x >> np.uint32(shift)) * np.uint32(factor)
    uniform = (x >> np.uint32(8)).astype(np.float32) / np.float32(1 << 24)
    a, b, c, d = uniform.reshape(BULK_ROWS, 256, 4).transpose(2, 0, 1)
    one, half, two = np.float32(1), np.float32(0.5), np.float32(2)
    signed = np.where(a < half, -one, one) * (one + b / np.float32(16))
    kinds = np.stack([a - half, a * b * c, signed, ((a + b) + (c + d)) - two])
    rows = np.arange(BULK_ROWS)
    return np.asarray(np.ldexp(kinds[rows % 4, rows], (rows % 13 - 6)[:, None]), np.float32)


LOWER_HALVES = (0x0000, 0x0001, 0x0FFF, 0x1000, 0x1001, 0x1FFF, 0x2FFF, 0x3000, 0x3001, 0x7FFF, 0x8000, 0x8001, 0xFFFF)
"""Under every upper half: all roundings of BF16, and around every tie of F16 (bit 12)."""


def all_roundings() -> Values:
    """Every float32 whose lower half is one of LOWER_HALVES, in ascending order of upper, then lower half."""
    upper = np.arange(1 << 16, dtype=np.uint32)[:, None] << np.uint32(16)
    bits = np.bitwise_or(upper, np.array(LOWER_HALVES, np.uint32)).reshape(-1)
    values: Values = bits.view(np.float32)
    return values


# --- files --------------------------------------------------------------------------------------------------------------


def packed(array: npt.NDArray[Any]) -> str:
    """Encode an array as the files hold it."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(zlib.compress(little.tobytes(), 9)).decode()


def digest(array: npt.NDArray[Any]) -> str:
    """Return SHA-256 of the little-endian bytes."""
    return hashlib.sha256(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()).hexdigest()


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a file, without line breaks inside short lists of numbers."""
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{path.name:14} {path.stat().st_size:8,} bytes")


def record_dequantise(name: str, genuine: GenuineType) -> list[dict[str, str]]:
    """Return the cases blocks -> values of one type."""
    rng = np.random.default_rng([SEED, genuine.number])
    cases = list(random_blocks(name, genuine, rng))
    entries = every_entry(name, genuine, rng)
    if entries is not None:
        cases.append(("every entry", entries))
    return [{"case": case, "blocks": packed(blocks), "values": packed(genuine.dequantise(blocks))} for case, blocks in cases]


def record_quantise(genuine: GenuineType, inputs: list[tuple[str, Values]]) -> list[dict[str, str]]:
    """Return the cases values -> blocks of one type."""
    made = []
    for case, values in inputs:
        blocks, sure = genuine.quantise_each(values)
        row = {"case": case, "blocks": packed(blocks)}
        if not sure.all():
            row["sure"] = packed(sure)
        made.append(row)
    return made


def record_digests(genuine: GenuineType) -> dict[str, str]:
    """Return SHA-256 over all 65536 halves as floats, and over all roundings to halves, of F16 or BF16."""
    halves = np.arange(1 << 16, dtype="<u2")[:, None].view(np.uint8)
    return {
        "dequantise, all 65536 patterns ascending": digest(genuine.dequantise(halves)),
        "quantise, every upper half with each of the lower halves": digest(genuine.quantise(all_roundings())),
        "lower halves": " ".join(f"{lower:04x}" for lower in LOWER_HALVES),
    }


def main() -> None:
    """Record every type."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--lib", type=Path, help="directory of libggml-base.so and libggml-cpu.so")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--build", choices=LATER, help="a later build, of which the new types are recorded")
    arguments = parser.parse_args()
    if arguments.build:
        record_later(arguments.build)
        return
    library = Genuine(arguments.lib or library_directory())
    arguments.out.mkdir(parents=True, exist_ok=True)
    head = {"schema_version": 1, "provenance": library.provenance(), "encoding": ENCODING}

    inputs = [(case, values.astype(np.float32)) for case, values in float_cases(np.random.default_rng(SEED))]
    rows = [{"case": case, "values": packed(values)} for case, values in inputs]
    many = bulk()
    recipe = {"recipe": BULK_RECIPE, "sha256": digest(many)}
    write(arguments.out / "inputs.json", {**head, "rows_of": 256, "bulk": recipe, "cases": rows})
    for name, genuine in library.types().items():
        write(arguments.out / f"{name}.json", recorded(name, genuine, head, inputs))


def record_later(build: str) -> None:
    """Record the types that a later build has and 3.6.1 has not."""
    package, directory, count, names = LATER[build]
    library, out = Genuine(CACHE.parent / build / "build/bin"), OUT.parents[1] / directory / "blocks"
    out.mkdir(parents=True, exist_ok=True)
    head = {"schema_version": 1, "provenance": library.provenance(package, f" --build {build}"), "encoding": ENCODING}
    inputs = [(case, values.astype(np.float32)) for case, values in float_cases(np.random.default_rng(SEED))]
    for name in names:
        write(out / f"{name}.json", recorded(name, library.types(count)[name], head, inputs))


def recorded(name: str, genuine: GenuineType, head: dict[str, Any], inputs: list[tuple[str, Values]]) -> dict[str, Any]:
    """Return the contents of a type's file."""
    content: dict[str, Any] = {
        **head,
        "type": name,
        "number": genuine.number,
        "elements_per_block": genuine.block,
        "bytes_per_block": genuine.size,
        "is_quantized": genuine.is_quantized,
    }
    if genuine.to_float is not None:
        content["dequantise"] = record_dequantise(name, genuine)
    if genuine.from_float is not None:
        content["quantise"] = record_quantise(genuine, inputs)
        content["quantise_bulk_sha256"] = digest(genuine.quantise(bulk()))
    if name in ("F16", "BF16"):
        content["sha256"] = record_digests(genuine)
    return content


if __name__ == "__main__":
    main()
