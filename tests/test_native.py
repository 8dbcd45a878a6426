"""The C kernels against what the genuine 3.6.1 server computed, in every variant that this machine runs.

A kernel that a case needs and that is not there is computed by the oracle, so each test says how many cases C must take.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from ggml_rpc_ref.backends import Step, Stopped, never
from ggml_rpc_ref.backends.half import ThroughFloat32
from ggml_rpc_ref.backends.memory import HostAllocation, HostMemory
from ggml_rpc_ref.backends.native import DIRECTORY, Native, backend, detail, unavailable
from ggml_rpc_ref.backends.native.library import VARIANTS, Library, kernel_ops, load
from ggml_rpc_ref.backends.native.sources import fingerprint
from ggml_rpc_ref.backends.registry import BACKENDS
from ggml_rpc_ref.backends.upstream_cpu import UpstreamCpu
from ggml_rpc_ref.blocks import CAN_QUANTISE
from ggml_rpc_ref.derive import declarations, grids, numbers
from ggml_rpc_ref.errors import Misuse, Violation
from ggml_rpc_ref.ops import OPS, cost, ops_of
from ggml_rpc_ref.ops.cases import cases_of, recipes
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.compare import compare_tensors, element_bytes
from ggml_rpc_ref.ops.op import FLOATS, WRITABLE_BLOCKS, Node
from ggml_rpc_ref.ops.shared.matmul import VEC_DOT_TYPE, WEIGHTS
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.versions import Version
from ggml_rpc_ref.tensor import PlainStorage, Tensor, allocate
from tests.support.seeds import SEED

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=f"native: {unavailable()}")

WITNESS = Path(__file__).parents[1] / "vectors" / "upstream-3.6.1-llama-cpp-python-0.3.20" / "ops"
HERE = [name for name in VARIANTS if not isinstance(load(name), str)]
"""Variants that this processor runs."""


@cache
def native(variant: str, threads: int = 2) -> Native:
    return Native(HostMemory(0), threads=threads, variant=variant)


@cache
def recorded(name: str) -> Any:
    return json.loads((WITNESS / f"{name.lower()}.json").read_text())["cases"]


def cases(name: str) -> Iterator[tuple[Case, dict[str, bytes]]]:
    """Yield the recorded cases of an op that compute something, and what the genuine server left in each memory."""
    for case, entry in zip(cases_of(name), recorded(name), strict=True):
        if 0 not in case.dst.quad:
            yield case, {slot: zlib.decompress(base64.b64decode(text)) for slot, text in entry["expected"].items()}


def memory(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    assert isinstance(tensor.storage, PlainStorage)
    return tensor.storage.data


def compute(backend: Native, node: Node) -> None:
    backend.compile([Step(node, backend.name)])(never)


def judge(name: str, case: Case, expected: dict[str, bytes], backend: Native) -> bool:
    """Compute a case if the backend has a kernel for it; fail unless each memory holds what is expected, and nothing else moved."""
    op = OPS[name]
    dst, src = recipes.build(name, case)
    node = op.check(dst, src, op.pack(case.params))
    if not backend.supports(node):
        return False
    tensors = {f"src{slot}": tensor for slot, tensor in enumerate(src) if tensor is not None}
    if not case.dst.alias:
        tensors["dst"] = dst
    before = {slot: memory(tensor).copy() for slot, tensor in tensors.items()}
    compute(backend, node)
    owner = case.dst.alias or "dst"
    for slot, tensor in tensors.items():
        result = dst if slot == owner else tensor
        untouched = ~element_bytes(result) if slot in expected else np.ones(len(before[slot]), bool)
        assert np.array_equal(memory(tensor)[untouched], before[slot][untouched]), f"{case.id}: {slot}: other bytes were changed"
        if slot in expected:
            guard = bytes([recipes.GUARD_BYTE]) * recipes.GUARD
            want = replace(result, storage=PlainStorage(np.frombuffer(guard + expected[slot] + guard, np.uint8)))
            mismatch = compare_tensors(want, result, case.tolerance or op.tolerance)
            assert mismatch is None, f"{case.id}: {slot}: {mismatch}"
    return True


LEFT = {"ADD": 2, "FLASH_ATTN_EXT": 1, "MUL_MAT": 1}
"""Op to how many of its recorded cases are left to the oracle; of other ops C computes all."""
COMPUTED = [name for name in kernel_ops() if name in OPS]


@pytest.mark.parametrize("variant", HERE)
@pytest.mark.parametrize("name", COMPUTED)
def test_results_are_those_recorded(name: str, variant: str) -> None:
    taken = [judge(name, case, expected, native(variant)) for case, expected in cases(name)]
    assert taken
    assert taken.count(False) == LEFT.get(name, 0)


@pytest.mark.parametrize("threads", [1, 3, 8])
def test_results_are_the_same_for_any_number_of_threads(threads: int) -> None:
    differing = Counter[str]()
    for name in COMPUTED:
        for case, _ in cases(name):
            results = []
            for used in (native(HERE[0]), native(HERE[0], threads)):
                dst, src = recipes.build(name, case)
                node = OPS[name].check(dst, src, OPS[name].pack(case.params))
                if used.supports(node):
                    compute(used, node)
                    results.append(memory(dst).tobytes())
            differing[name] += len(set(results)) > 1
    assert not +differing


# ---------------------------------------------------------------------------------------------------------- the run time


def f32(*ne: int, fill: str = "normal") -> Operand:
    return Operand("F32", ne, fill=fill)


def node(name: str, dst: Operand, *src: Operand, **params: Any) -> Node:
    case = Case("made here", dst, src, params)
    built = recipes.build(name, case)
    return OPS[name].check(*built, OPS[name].pack(params))


def test_a_large_node_is_shared_by_the_threads() -> None:
    large = node("ADD", f32(1000, 3000), f32(1000, 3000), f32(1000))
    compute(native(HERE[0], 4), large)
    assert np.array_equal(large.dst.array, large.source(0).array + large.source(1).array)


def test_a_run_stops_between_nodes_and_within_a_large_one() -> None:
    backend = native(HERE[0])
    large = node("ADD", f32(4096, 4096), f32(4096, 4096, fill="zeros"), f32(4096))
    run = backend.compile([Step(large, "native")] * 60)
    asked = iter(range(10))
    with pytest.raises(Stopped):
        run(lambda: next(asked) > 0)
    assert next(asked) == 2, "asked before it began, and again after the first slice of time"
    run(never)
    assert np.array_equal(large.dst.array, large.source(0).array + large.source(1).array)


def test_a_plan_may_mix_kernels_and_the_oracle() -> None:
    backend = native(HERE[0])
    first = node("ADD", f32(8), f32(8), f32(8))
    middle = OPS["LOG"].check(node("LOG", f32(8), f32(8)).dst, (first.dst,), bytes(64))
    last = OPS["MUL"].check(node("MUL", f32(8), f32(8), f32(8)).dst, (middle.dst, middle.dst), bytes(64))
    steps = [Step(first, "native"), Step(middle, "oracle", lambda: OPS["LOG"].oracle(middle)), Step(last, "native")]
    backend.compile(steps)(never)
    with np.errstate(invalid="ignore"):
        wanted = np.square(np.log(first.source(0).array + first.source(1).array))
    assert np.allclose(last.dst.array, wanted, rtol=1e-5, equal_nan=True)


def test_memory_is_told_what_was_written() -> None:
    heap = HostMemory(1 << 20)
    backend = Native(heap)
    allocation = heap.allocate(256)
    assert allocation is not None
    told: list[tuple[int, int]] = []
    heap.changed = lambda _, start, stop: told.append((start, stop))
    add = node("ADD", f32(8), f32(8), f32(8))
    elsewhere = Node(add.dst.at(allocation, 64), add.src, add.op_params, add.op)
    compute(backend, elsewhere)
    assert told == [(64, 96)]


def test_a_result_over_a_source_is_left_to_the_oracle() -> None:
    """Element for element it may lie there, one element further it may not."""
    add = node("ADD", f32(8), f32(8), f32(8))
    storage = PlainStorage(np.zeros(64, np.uint8))
    for offset, taken in ((0, True), (4, False), (32, True)):
        moved = Node(add.dst.at(storage, offset), (add.source(0).at(storage, 0), add.src[1]), add.op_params, add.op)
        assert native(HERE[0]).supports(moved) is taken, offset


# ------------------------------------------------------------------------------------------------------------- the build


@pytest.mark.parametrize(("name", "params"), [
    ("CONV_TRANSPOSE_1D", {"s0": 1, "p0": 0, "d0": 1}), ("CONV_TRANSPOSE_2D", {"stride": 1}),
])  # fmt: skip
@pytest.mark.parametrize(("threads", "most", "taken"), [(2, 2**20, True), (2, 2**18, False), (16, 2**20, False)])
def test_a_kernel_that_needs_more_than_is_granted_is_left_to_the_oracle(
    name: str, params: dict[str, Any], threads: int, most: int, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thread keeps the product of two lengths here: 158 KiB; of 2^15 and 2^15 it is 4 GiB, the operands 256 KiB."""
    monkeypatch.setattr(cost, "GRANT", most)
    made = node(name, f32(399), f32(200), f32(200), **params)
    assert Native(HostMemory(0), threads=threads).supports(made) is taken


def test_the_declarations_are_those_of_the_rows() -> None:
    assert (DIRECTORY / "declared.h").read_text() == declarations()
    assert (DIRECTORY / "kernels" / "shared" / "numbers.h").read_text() == numbers()
    assert (DIRECTORY / "kernels" / "shared" / "grids.h").read_text() == grids()


def test_an_unknown_variant_is_named() -> None:
    with pytest.raises(Misuse, match=f"GGML_RPC_REF_NATIVE names 'mmx': choose from {', '.join(VARIANTS)}"):
        Native(HostMemory(0), variant="mmx")


def test_the_variant_that_is_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GGML_RPC_REF_NATIVE", "plain")
    others = [name for name in HERE if name != "plain"]
    assert detail() == "variant plain" + f", and {' and '.join(others)} if asked for" * bool(others)
    assert BACKENDS["native"].detail() == detail()
    monkeypatch.setenv("GGML_RPC_REF_NATIVE", "mmx")
    assert not BACKENDS["native"].detail()


def test_a_module_that_is_not_there_says_why() -> None:
    assert load("mmx") == "not built, because there was no C compiler when this was installed"


@pytest.mark.parametrize("made_from", [None, lambda: "0123456789abcdef"])
def test_a_module_of_other_sources_says_so(made_from: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was compiled before modules carried a number, and one with another number."""
    here = load("plain")
    assert isinstance(here, Library)
    lib = SimpleNamespace(runs_here=here.lib.runs_here, **({} if made_from is None else {"made_from": made_from}))
    module = SimpleNamespace(lib=lib, ffi=SimpleNamespace(string=lambda text: text.encode()))
    monkeypatch.setitem(sys.modules, "ggml_rpc_ref.backends.native._plain", module)
    why = load.__wrapped__("plain")
    assert why == "it was compiled from other sources than those that are here: install the package again"


def test_the_number_of_the_sources_changes_with_any_of_them(tmp_path: Path) -> None:
    shutil.copytree(DIRECTORY, tmp_path / "native", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    before = fingerprint(tmp_path / "native")
    assert before == fingerprint(DIRECTORY)
    for name in ("build.py", "declared.h", "kernels/add.c", "kernels/shared/half.h"):
        (tmp_path / "native" / name).write_text((DIRECTORY / name).read_text() + " ")
        assert before != (before := fingerprint(tmp_path / "native")), name


def test_the_plain_variant_is_there() -> None:
    assert "plain" in HERE


# ------------------------------------------------------------------------------------------- products, type by type


@pytest.mark.parametrize("variant", HERE)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_products_round_activations_as_upstream_does(weights: str, variant: str) -> None:
    """Far nearer than the op's tolerance, which allows for the rounding itself; few and many columns take different paths."""
    fill = "normal" if weights in FLOATS or BY_NAME[weights] in CAN_QUANTISE else "blocks"
    rounding = UpstreamCpu(HostMemory(0), 1, ThroughFloat32())
    for columns in (1, 3, 8, 21):
        product = node("MUL_MAT", f32(37, columns), Operand(weights, (768, 37), fill=fill), f32(768, columns))
        compute(native(variant), product)
        found = product.dst.array.astype(np.float64)
        rounding.compile([Step(product, "upstream-cpu")])(never)
        error = np.sum(np.square(found - product.dst.array)) / np.sum(np.square(found))
        assert error < NEAR.get(weights, 1e-12), f"{columns} columns"


@dataclass
class Packing:
    """A backend that packs weights, and a product whose weights lie in a buffer of their own, its other operands in another."""

    backend: Native
    product: Node
    weights: HostAllocation

    def compute(self) -> Any:
        """A run of a plan of its own, as when a client sends the graph again."""
        compute(self.backend, self.product)
        return self.product.dst.array.copy()

    def wanted(self) -> Any:
        """What upstream's roundings give for the bytes that are there."""
        result = allocate(self.product.dst.dtype, self.product.dst.ne)
        UpstreamCpu(HostMemory(0), 1, ThroughFloat32()).compile([Step(replace(self.product, dst=result), "upstream-cpu")])(never)
        return result.array


def packing(variant: str, weights: str = "Q8_0", rows: int = 37, columns: int = 1, copies: int = 2**20) -> Packing:
    made = node("MUL_MAT", f32(rows, columns), Operand(weights, (160, rows), fill="normal"), f32(160, columns))
    backend = Native(HostMemory(2**20), copies, 3, variant)
    uploaded, others = (backend.memory.allocate(2**16) for _ in range(2))
    assert uploaded is not None
    assert others is not None

    def moved(tensor: Tensor, allocation: HostAllocation, offset: int) -> Tensor:
        there = tensor.at(allocation, offset)
        there.array[...] = tensor.array
        return there

    w, x = moved(made.source(0), uploaded, 32), moved(made.source(1), others, 2**15)
    return Packing(backend, Node(made.dst.at(others, 0), (w, x), made.op_params, made.op), uploaded)


PACKED = ("Q8_0", "Q5_0", "Q4_0")
"""Types that are packed."""
PACKING = {name: group for name, group in {"avx512": 16, "avx2": 8, "dotprod": 8, "neon": 8}.items() if name in HERE}
"""Variants that pack, and how many rows they lay side by side."""


def close(found: Any, wanted: Any) -> bool:
    return bool(np.sum(np.square(found - wanted)) <= 1e-12 * np.sum(np.square(wanted)))


@pytest.mark.parametrize("variant", HERE)
@pytest.mark.parametrize("weights", [*PACKED, "Q4_1"])
def test_packed_weights_give_what_the_others_give(weights: str, variant: str) -> None:
    """Rows that fill no group, one and several columns, one that can't be rounded; the second use packs them."""
    for rows, columns in ((8, 1), (37, 1), (45, 3), (16, 7)):
        world = packing(variant, weights, rows, columns)
        first, second, third = (world.compute() for _ in range(3))
        assert world.backend.packed is not None
        tiled = variant == "avx512" and columns >= 4
        assert (world.backend.packed.used > 0) == (weights in PACKED and rows >= PACKING.get(variant, rows + 1) and not tiled)
        assert np.sum(np.square(first - world.wanted())) <= NEAR.get(weights, 1e-12) * np.sum(np.square(first))
        assert close(second, first)
        assert np.array_equal(third, second)


@pytest.mark.parametrize("variant", PACKING)
@pytest.mark.parametrize("weights", PACKED)
@pytest.mark.parametrize("value", [np.nan, 1e30])
def test_packed_weights_meet_rows_that_can_not_be_rounded(weights: str, value: float, variant: str) -> None:
    world = packing(variant, weights, columns=2)
    world.product.source(1).array[0, 0, 1, ::7] = value
    first, second = world.compute(), world.compute()
    assert world.backend.packed is not None
    assert world.backend.packed.used
    assert np.array_equal(first[0, 0, 1], second[0, 0, 1], equal_nan=True), "neither is packed"
    assert close(second[0, 0, 0], first[0, 0, 0])


@pytest.mark.parametrize("variant", PACKING)
def test_packed_weights_have_the_largest_levels(variant: str) -> None:
    """Products are added in sixteen bits: levels of -128, which only a client sets, and both ends of the other types."""
    for weights, byte in (("Q8_0", 0x80), ("Q8_0", 0x7F), ("Q5_0", 0xFF), ("Q5_0", 0), ("Q4_0", 0xFF), ("Q4_0", 0)):
        world = packing(variant, weights)
        row = world.product.source(0)
        size = row.dtype.size
        assert world.weights.data is not None
        blocks = world.weights.data[row.offset : row.offset + row.nbytes].reshape(-1, size)
        blocks[:, 2:] = byte
        world.product.source(1).array[...] = 1
        world.product.source(1).array[..., ::3] = -1
        first, second = world.compute(), world.compute()
        assert close(second, first), (weights, byte)
        assert close(first, world.wanted()), (weights, byte)


@pytest.mark.parametrize("variant", PACKING)
def test_packed_weights_follow_the_clients_bytes(variant: str) -> None:
    """After an upload the old copy is not used any more, neither by a new plan nor by one that runs again."""
    world = packing(variant)
    packed = world.backend.packed
    assert packed is not None
    plan = world.backend.compile([Step(world.product, "native")])
    for _ in range(3):
        plan(never)
    assert packed.used
    before = world.product.dst.array.copy()
    weights = world.product.source(0)
    other = node("MUL_MAT", f32(37, 1), Operand("Q8_0", (160, 37), fill="uniform:1:2"), f32(160, 1)).source(0)
    world.weights.upload(weights.offset, memory(other)[other.offset : other.offset + other.nbytes].data)
    assert not packed.used
    plan(never)
    assert not close(world.product.dst.array, before)
    assert close(world.product.dst.array, world.wanted())
    for _ in range(2):
        assert close(world.compute(), world.wanted())
    assert packed.used
    world.weights.free()
    assert not packed.used


@pytest.mark.parametrize("variant", PACKING)
def test_weights_that_a_graph_writes_are_not_packed(variant: str) -> None:
    world = packing(variant)
    packed = world.backend.packed
    assert packed is not None
    for _ in range(2):
        world.compute()
    assert packed.used
    beside = node("SCALE", f32(4), f32(4), scale=2.0)
    written = Node(beside.dst.at(world.weights, 2**15), beside.src, beside.op_params, beside.op)
    compute(world.backend, written)
    assert not packed.used
    for _ in range(3):
        assert close(world.compute(), world.wanted())
    assert not packed.used


@pytest.mark.parametrize("variant", PACKING)
def test_packed_weights_keep_to_their_room_and_give_way(variant: str) -> None:
    world = packing(variant)
    packed, kind = world.backend.packed, world.backend.geometries.of(world.product)
    assert packed is not None
    assert kind is not None
    assert kind.packed == {8: 4 * 1408, 16: 2 * 2752}[PACKING[variant]], "groups of rows, each a whole number of 64 bytes"
    packed.limit = kind.packed - 1
    for _ in range(3):
        assert close(world.compute(), world.wanted())
    assert not packed.used
    packed.limit = kind.packed
    world.compute()
    assert packed.used == kind.packed
    world.backend.memory._make = lambda size: (_ for _ in ()).throw(MemoryError) if packed.used else np.zeros(size, np.uint8)
    assert world.backend.memory.allocate(100) is not None
    assert not packed.used
    assert close(world.compute(), world.wanted())


NEAR = {"F16": 1e-6, "BF16": 1e-5, "Q4_1": 1e-6, "Q5_1": 1e-6}
"""Where upstream rounds what the kernels don't: F32 activations to the weights' type, a block's sum to F16."""


@pytest.mark.parametrize("variant", HERE)
@pytest.mark.parametrize("weights", [name for name in WRITABLE_BLOCKS if name in WEIGHTS])
def test_sums_of_the_largest_levels_do_not_overflow(weights: str, variant: str) -> None:
    """Tiles add several products in sixteen bits; here each has the largest level that the type has, and 127."""
    rounding = UpstreamCpu(HostMemory(0), 1, ThroughFloat32())
    for low, high in ((-1, 1), (1, -1), (0, 1)):
        fill = f"values:{low}" + f",{high}" * 255
        product = node("MUL_MAT", f32(16, 8), Operand(weights, (256, 16), fill=fill), f32(256, 8, fill="values:1"))
        product.source(1).array[0, 0, 4:] = -1
        assert native(variant).supports(product)
        compute(native(variant), product)
        found = product.dst.array.copy()
        rounding.compile([Step(product, "upstream-cpu")])(never)
        assert np.allclose(found, product.dst.array, rtol=1e-3), (low, high)


@pytest.mark.parametrize("variant", HERE)
@pytest.mark.parametrize("columns", [2, 9])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, 1e-38, 0.0])
def test_a_row_that_can_not_be_rounded_is_multiplied_as_it_is(variant: str, columns: int, value: float) -> None:
    product = node("MUL_MAT", f32(5, columns), Operand("Q8_0", (64, 5)), f32(64, columns))
    product.source(1).array[0, 0, 1] = value
    compute(native(variant), product)
    found = product.dst.array.copy()
    with np.errstate(all="ignore"):
        product.op.oracle(product)
    assert np.allclose(found[0, 0, 1], product.dst.array[0, 0, 1], rtol=1e-5, atol=1e-35, equal_nan=True)
    assert np.isfinite(found[0, 0, [0, *range(2, columns)]]).all()


@pytest.mark.parametrize("variant", HERE)
@pytest.mark.parametrize("columns", [1, 40])
@pytest.mark.parametrize("weights", [name for name, partner in VEC_DOT_TYPE.items() if partner in ("Q8_0", "Q8_K")])
def test_levels_that_only_a_client_rounds_to(weights: str, columns: int, variant: str) -> None:
    """Rounding gives no level of -128, which has no magnitude in eight bits; bytes from a client may hold it."""
    partner = VEC_DOT_TYPE[weights]
    row, start = (8 * 34, 2) if partner == "Q8_0" else (292, 4)
    fill = "normal" if weights in WRITABLE_BLOCKS else "blocks"
    product = node(
        "MUL_MAT", f32(16, columns), Operand(weights, (256, 16), fill=fill), Operand(partner, (256, columns), fill="blocks")
    )
    source = product.source(1)
    assert source.storage is not None
    source.storage.data[source.offset :][: columns * row].reshape(columns, row)[:, start : start + 32 : 3] = 0x80
    compute(native(variant), product)
    found = product.dst.array.copy()
    product.op.oracle(product)
    assert np.allclose(found, product.dst.array, rtol=1e-4, atol=1e-5 * np.abs(product.dst.array).max())


@pytest.mark.parametrize("name", ["GET_ROWS", "SET_ROWS"])
def test_an_index_out_of_range_is_refused_in_the_oracles_words(name: str) -> None:
    into = Operand("F32", (8, 4), alias="src2")
    indices = Operand("I32", (3,), fill="values:0,4,1")
    parts = (f32(8, 3), f32(8, 4), indices) if name == "GET_ROWS" else (into, f32(8, 3), indices, f32(8, 4))
    bad = node(name, *parts)
    with pytest.raises(Violation, match=r"graph.index.*src\[1\]\[1,0,0,0\].*4.*need 0 <= index < 4"):
        compute(native(HERE[0]), bad)


# ---------------------------------------------------------------------------------------------- quantising, bit for bit

FILLS = ("normal", "special", "normal:1e-30", "normal:1e30", "normal:1e-41", "zeros", "uniform:0:1", "uniform:-5:-4", "permutation")


@pytest.mark.parametrize("variant", HERE)
@pytest.mark.parametrize("dtype", ["F16", "BF16", *WRITABLE_BLOCKS])
def test_quantising_is_the_oracles_bit_for_bit(dtype: str, variant: str) -> None:
    for fill in FILLS:
        operands = Operand(dtype, (512, 40), alias="src1"), f32(512, 40, fill=fill), Operand(dtype, (512, 40), fill="zeros")
        copy = node("CPY", *operands)
        compute(native(variant), copy)
        found = memory(copy.dst).copy()
        copy.op.oracle(copy)
        assert np.array_equal(found, memory(copy.dst)), fill


@pytest.mark.parametrize("variant", HERE)
@pytest.mark.parametrize(("dtype", "size"), [("F32", 4), ("F16", 2)])
@pytest.mark.parametrize("ne0", [511, 512, 2051])
def test_fill_ends_with_its_row(ne0: int, dtype: str, size: int, variant: str) -> None:
    """Long rows have an instruction of their own; what lies between rows stays as it is."""
    row, op = size * (ne0 + 3), ops_of(Version(8, 0, 0))["FILL"]
    case = Case("made here", Operand(dtype, (ne0, 3), (size, row, 3 * row, 3 * row)), (Operand(dtype, (ne0, 3)),), {"c": -1.7})
    filled = op.check(*recipes.build("FILL", case), op.pack(case.params))
    start, found = filled.dst.offset, memory(filled.dst)
    found[:] = 0x55
    compute(native(variant), filled)
    value = np.array(-1.7, np.float32 if size == 4 else np.float16).tobytes()
    wanted = np.full(len(found), 0x55, np.uint8)
    for at in range(start, start + 3 * row, row):
        wanted[at : at + size * ne0] = np.frombuffer(value * ne0, np.uint8)
    assert np.array_equal(found, wanted)


# --------------------------------------------------------------------------------- shapes and layouts, against the oracle


@pytest.mark.parametrize("variant", HERE)
@seed(SEED)
@settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    weights=st.sampled_from(["F32", "F16", "Q8_0", "Q5_0", "Q4_K", "Q6_K", "Q2_K", "IQ4_NL"]),
    rows=st.integers(1, 40),
    columns=st.integers(1, 20),
    groups=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 2)),
    gap=st.sampled_from([0, 64]),
)
def test_products_of_any_shape(variant: str, weights: str, rows: int, columns: int, groups: tuple[int, int, int], gap: int) -> None:
    """Rows that fill no tile, matrices that broadcast, gaps between the rows of src1 and of the result."""
    (matrices, repeated, outer), k, row = groups, 256, 4 * 256 + gap
    nb = (4, row, row * columns, row * columns * matrices * repeated)
    out = 4 * rows + gap
    dst = Operand("F32", (rows, columns, matrices * repeated, outer), (4, out, out * columns, out * columns * matrices * repeated))
    src = Operand(weights, (k, rows, matrices)), Operand("F32", (k, columns, matrices * repeated, outer), nb)
    agrees(native(variant, 3), node("MUL_MAT", dst, *src))


@pytest.mark.parametrize("variant", HERE)
@seed(SEED)
@settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    kinds=st.tuples(st.sampled_from(["F32", "F16", "Q8_0"]), st.sampled_from(["F32", "F16", "Q4_0"])),
    lengths=st.tuples(st.sampled_from([32, 64, 96]), st.sampled_from([32, 64])),
    queries=st.integers(1, 12),
    keys=st.integers(1, 150),
    heads=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 2)),
    fills=st.tuples(
        st.sampled_from(["normal", "values:" + "0.5,-2," * 400 + "nan,inf,-inf"]), st.sampled_from(["mask", "normal", "zeros"])
    ),
    params=st.fixed_dictionaries(
        {"scale": st.just(0.125), "max_bias": st.sampled_from([0.0, 8.0]), "logit_softcap": st.sampled_from([0.0, 5.0])}
    ),
)
def test_attention_of_any_shape(
    variant: str,
    kinds: tuple[str, str],
    lengths: tuple[int, int],
    queries: int,
    keys: int,
    heads: tuple[int, int, int],
    fills: tuple[str, str],
    params: dict[str, float],
) -> None:
    (dk, dv), (shared, each, batch) = lengths, heads
    k, v = kinds
    attend = node(
        "FLASH_ATTN_EXT", f32(dv, shared * each, queries, batch), f32(dk, queries, shared * each, batch),
        Operand(k, (dk, keys, shared, batch)), Operand(v, (dv, keys, shared, batch), fill=fills[0] if v == "F32" else "normal"),
        Operand("F16", (keys, queries), fill=fills[1]), **params,
    )  # fmt: skip
    agrees(native(variant, 3), attend)


def agrees(backend: Native, found: Node) -> None:
    """Compute a node; fail unless the result is the oracle's by the op's tolerance, and nothing else was written."""
    assert backend.supports(found)
    before = memory(found.dst).copy()
    compute(backend, found)
    after = memory(found.dst).copy()
    outside = ~element_bytes(found.dst)
    assert np.array_equal(after[outside], before[outside]), "bytes between or around the elements were changed"
    result = replace(found.dst, storage=PlainStorage(after))
    with np.errstate(all="ignore"):
        found.op.oracle(found)
    mismatch = compare_tensors(found.dst, result, found.op.tolerance)
    assert mismatch is None, str(mismatch)


# ------------------------------------------------------------------------------------------------- kernels that are wrong

SABOTAGES = {
    "off by one row": ("MUL_MAT", "mul_mat.c", "min64(TILE_ROWS, w->ne[1] - i)", "min64(TILE_ROWS - 1, w->ne[1] - i)"),
    "wrong stride": (
        "GET_ROWS",
        "get_rows.c",
        "row_at(table, node->src[0], index,",
        "row_at(table, node->src[0], index / 2,",
    ),
    "missing mask": ("SOFT_MAX", "soft_max.c", "= present(mask) ? row_at(mask", "= 0 ? row_at(mask"),
    "one element too many": ("SCALE", "scale.c", "a, n, x * scale);", "a, n + 1, x * scale);"),
}


def compiled(root: Path, changes: Iterable[tuple[str, str, str, str]]) -> Native:
    """Return a backend of changed kernels, compiled in a directory: (op, file, what stands there, what shall stand there)."""
    copied = root / "ggml_rpc_ref" / "backends" / "native"
    shutil.copytree(DIRECTORY, copied, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    ops = {op for op, *_ in changes}
    for path in (copied / "kernels").glob("*.c"):
        if path.stem.upper() not in ops:
            path.unlink()
    for _, name, right, wrong in changes:
        source = (copied / "kernels" / name).read_text()
        assert source.count(right) == 1, name
        (copied / "kernels" / name).write_text(source.replace(right, wrong))
    program = (
        "import runpy\n"
        "plain = runpy.run_path('ggml_rpc_ref/backends/native/build.py')['builder']('plain', alone=True)\n"
        "kwds = plain._assigned_source[3]\n"
        "kwds.update(extra_compile_args=[*kwds['extra_compile_args'], '-O1'], optional=False)\n"
        "plain.compile(tmpdir='.')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=300, check=False)
    (module,) = root.rglob("_plain*.so") or [None]
    assert module is not None, done.stderr
    spec = spec_from_file_location("_plain", module)
    assert spec is not None
    assert spec.loader is not None
    loaded = module_from_spec(spec)
    spec.loader.exec_module(loaded)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "library", lambda _: Library("plain", loaded.ffi, loaded.lib))  # type: ignore[attr-defined]
        return Native(HostMemory(0), threads=2)


@pytest.fixture(scope="module")
def sabotaged(tmp_path_factory: pytest.TempPathFactory) -> Native:
    """A backend whose kernels for four ops are wrong, each in its own way; compiled here."""
    return compiled(tmp_path_factory.mktemp("native"), SABOTAGES.values())


@pytest.mark.parametrize("sabotage", SABOTAGES)
def test_a_wrong_kernel_is_caught(sabotage: str, sabotaged: Native) -> None:
    op = SABOTAGES[sabotage][0]
    with pytest.raises(AssertionError, match="dst"):  # noqa: PT012 - one of the cases notices it
        for case, expected in cases(op):
            judge(op, case, expected, sabotaged)
