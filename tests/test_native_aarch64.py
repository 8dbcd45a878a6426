"""The C kernels for 64-bit ARM: compiled without a warning, and held to what is recorded and to the oracle, in an emulator.

The oracle runs on this machine; only the kernels are emulated (`tests.support.emulated`). What tests of kernels there are for this
machine's processor are played again with them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggml_rpc_ref.backends import Step, never
from ggml_rpc_ref.backends.half import ThroughFloat32
from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.backends.native import library
from ggml_rpc_ref.backends.upstream_cpu import UpstreamCpu
from ggml_rpc_ref.ops import ops_of
from ggml_rpc_ref.ops.cases.case import Operand
from ggml_rpc_ref.spec.versions import NEWEST
from tests import test_native, test_native_ops
from tests.support.emulated import BUILD, COMPILER, EMULATOR, VARIANTS, Emulated, Objects, compile_all
from tests.support.guarded import Place
from tests.test_native import COMPUTED, LEFT, PACKED, cases, close, compute, f32, judge, memory, node

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no aarch64-linux-gnu-gcc (Debian: gcc-aarch64-linux-gnu)")
needs_emulator = pytest.mark.skipif(EMULATOR is None, reason="no qemu-aarch64 (Debian: qemu-user-static)")


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """The compiled kernels, the same for all processes of a run of pytest: the first that wants them compiles them."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "aarch64"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return compile_all(shared)


@pytest.fixture
def emulated(objects: Objects, request: pytest.FixtureRequest) -> Iterator[Callable[..., Emulated]]:
    """Make a backend of a variant, or of a program; they end with the test."""
    made = list[Emulated]()

    def make(variant: str | Path, place: Place = Place.END, **options: Any) -> Emulated:
        made.append(Emulated(variant if isinstance(variant, Path) else objects.link(variant), place, **options))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


def test_both_lists_of_variants_are_the_same() -> None:
    built = {processor: set(variants) for processor, variants in BUILD["PROCESSORS"].items()}
    assert built == {processor: set(variants) for processor, variants in library.PROCESSORS.items()}


@needs_compiler
def test_every_variant_compiles_without_a_warning(objects: Objects) -> None:
    """Each source, and each once more for the variants whose instructions it asks about."""
    assert set(objects.made) == {"common", *VARIANTS}
    assert {len(objects.made[variant]) for variant in VARIANTS} == {len(objects.made["plain"])}
    assert len(objects.made["plain"]) > 60


@needs_compiler
@needs_emulator
@pytest.mark.parametrize(("variant", "cpu", "code"), [
    ("plain", "cortex-a53", 0), ("neon", "cortex-a53", 0), ("dotprod", "cortex-a53", 5), ("dotprod", "cortex-a76", 0),
])  # fmt: skip
def test_a_variant_says_whether_the_processor_has_its_instructions(variant: str, cpu: str, code: int, objects: Objects) -> None:
    """Cortex-A53 is ARMv8.0, A76 ARMv8.2 with products of bytes; 5 is what the program says where `runs_here` is false."""
    assert Emulated(objects.link(variant), cpu=cpu).close() == code


@needs_compiler
@needs_emulator
@pytest.mark.parametrize("place", Place)
@pytest.mark.parametrize("variant", VARIANTS)
def test_results_are_those_recorded(variant: str, place: Place, emulated: Callable[..., Emulated]) -> None:
    """Every op, with each operand where an untouchable page ends or begins, or at an odd address."""
    backend = emulated(variant, place)
    for name in COMPUTED:
        taken = [judge(name, case, expected, backend) for case, expected in cases(name)]
        assert taken.count(False) == LEFT.get(name, 0), name


@needs_compiler
@needs_emulator
@pytest.mark.parametrize("variant", VARIANTS)
def test_any_shape_layout_place_and_value(variant: str, emulated: Callable[..., Emulated]) -> None:
    backend: Any = emulated(variant)
    for name, op in ops_of(NEWEST).items():
        if name in test_native_ops.COMPUTED_OPS:
            for number in range(3):
                assert not (wrong := test_native_ops.surprise(backend, op, 1000 * number)), f"{name}: {wrong}"


PLAYED = (
    test_native.test_products_round_activations_as_upstream_does,
    test_native.test_sums_of_the_largest_levels_do_not_overflow,
    test_native.test_a_row_that_can_not_be_rounded_is_multiplied_as_it_is,
    test_native.test_levels_that_only_a_client_rounds_to,
    test_native.test_quantising_is_the_oracles_bit_for_bit,
    test_native.test_fill_ends_with_its_row,
    test_native.test_products_of_any_shape,
    test_native.test_attention_of_any_shape,
    test_native_ops.test_meanings_of_some_versions_are_the_oracles,
    test_native_ops.test_long_rows,
    test_native_ops.test_nothing_is_computed_of_a_node_with_a_bad_index,
)
"""Tests of this processor's kernels that are played again with the others."""


def choices(test: Any) -> Iterator[dict[str, Any]]:
    """Yield the arguments that a test is called with, `variant` apart, by its marks."""
    options = []
    for mark in test.pytestmark:
        names, values = mark.args
        if mark.name == "parametrize" and names != "variant":
            options.append([dict([(names, v)] if isinstance(names, str) else zip(names, v, strict=True)) for v in values])
    for combination in product(*options):
        yield {name: value for some in combination for name, value in some.items()}


@needs_compiler
@needs_emulator
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("test", PLAYED, ids=lambda test: test.__name__.removeprefix("test_"))
def test_played_again(test: Any, variant: str, emulated: Callable[..., Emulated], monkeypatch: pytest.MonkeyPatch) -> None:
    backend = emulated(variant)
    for module in (test_native, test_native_ops):
        monkeypatch.setattr(module, "native", lambda variant, threads=2: backend)
    for arguments in choices(test):
        test(variant=variant, **arguments)


@needs_compiler
@needs_emulator
@pytest.mark.parametrize("variant", ["neon", "dotprod"])
@pytest.mark.parametrize("weights", PACKED)
def test_packed_weights_give_what_upstreams_rounding_gives(weights: str, variant: str, emulated: Callable[..., Emulated]) -> None:
    """Rows that fill no group, one and several columns, one that can't be rounded, and levels at both ends of the type."""
    packed, other = emulated(variant, packed=True), emulated(variant)
    for rows, columns, byte in ((8, 1, 0), (37, 1, 0), (45, 3, 0), (8, 1, 0x80), (8, 1, 0x7F), (8, 1, 0xFF)):
        made = node("MUL_MAT", f32(rows, columns), Operand(weights, (160, rows)), f32(160, columns))
        row = made.source(0)
        if byte:
            memory(row)[row.offset : row.offset + row.nbytes].reshape(-1, row.dtype.size)[:, 2:] = byte
            made.source(1).array[...] = 1
            made.source(1).array[..., ::3] = -1
        results = []
        for backend in (packed, other):
            compute(backend, made)
            results.append(made.dst.array.copy())
        UpstreamCpu(HostMemory(0), 1, ThroughFloat32()).compile([Step(made, "upstream-cpu")])(never)
        assert all(close(result, made.dst.array) for result in results), (rows, columns, byte)
        assert byte or not np.array_equal(*results), "sums are in another order: else nothing was packed"


# ------------------------------------------------------------------------------------------------- kernels that are wrong

SABOTAGES = {
    "a lane twice": ("Q8_0", "tile.c", "tile_neon.h", "vzip2q_u64(a, b)", "vzip1q_u64(a, b)"),
    "a half left out": ("Q5_1", "dot.c", "dot_neon.h", "bits_times_16(bits + 2)", "bits_times_16(bits)"),
    "an offset forgotten": ("Q4_0", "dot.c", "dot_neon.h", "load_nibbles(block + 2), 8)", "load_nibbles(block + 2), 0)"),
    "another group's scale": ("Q6_K", "dot.c", "dot_neon.h", "x + 96), scale[6]", "x + 96), scale[4]"),
    "fifth bits that stay": ("Q5_K", "dot.c", "dot_neon.h", "bits[half] = vshrq_n_u8(bits[half], 2);", ""),
    "a tail left out": ("F32", "tile.c", "tile_neon.h", "i = 0; i < k; i++, row", "i = 1; i < k; i++, row"),
    "sums that do not fit": ("Q8_0", "tile.c", "products_neon.h", "fit >= 8 ? 8", "fit >= 0 ? 8"),
    "a NaN as ARM makes it": ("Q8_1", "quantise.c", "rounding.h", "x == x ? x : as_float(0xFFC00000)", "x"),
    "what fits no integer": ("Q8_0", "quantise.c", "quantise.c", "INT32_MIN & ~fits", "0 & ~fits"),
}  # fmt: skip
"""The type that shows it; the source, the file that is changed, what stands there and what shall stand there."""


@needs_compiler
@needs_emulator
@pytest.mark.parametrize("sabotage", SABOTAGES)
def test_a_wrong_kernel_is_caught(
    sabotage: str, objects: Objects, emulated: Callable[..., Emulated], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, *change = SABOTAGES[sabotage]
    backend = emulated(objects.sabotaged("neon", *change, tmp_path))
    monkeypatch.setattr(test_native, "native", lambda variant, threads=2: backend)
    rounding = test_native.test_products_round_activations_as_upstream_does, "columns"
    quantising = test_native.test_quantising_is_the_oracles_bit_for_bit, "normal|special"
    test, words = quantising if change[0] == "quantise.c" else rounding
    with pytest.raises(AssertionError, match=words):
        test(weights, "neon")
