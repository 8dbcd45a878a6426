"""Products of matrices in tensor cores on a GPU made of threads, held to the oracle: tiles by mma.sync, and by wgmma on Hopper.

test_cuda_kernels.py has all recorded cases on one device. Here each case runs on three: Hopper with tiles of 128 and of 256 rows of
weights, and Ampere; and but for the recorded ones, whose tolerance is upstream's, results must be nearer (`near`).
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, seed
from hypothesis import strategies as st

from ggml_rpc_ref.backends import DeviceFault
from ggml_rpc_ref.backends.cuda import compiler, driver, products
from ggml_rpc_ref.backends.cuda.backend import Cuda
from ggml_rpc_ref.backends.cuda.device import MAP_BYTES, TensorMap
from ggml_rpc_ref.backends.cuda.geometry import GEOMETRY
from ggml_rpc_ref.backends.cuda.launches import PLANNERS
from ggml_rpc_ref.backends.cuda.plans import Limits
from ggml_rpc_ref.ops import ops_of
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.op import FLOATS, Node
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.versions import DEFAULT
from ggml_rpc_ref.tensor import PlainStorage, Tensor, contiguous_nb
from tests.support.gpu import compile_kernels
from tests.support.gpu.devices import Card
from tests.support.gpu.judge import judge, kernels_of
from tests.support.seeds import SEED
from tests.test_cuda_kernels import DRAWN, NEAR, ORDERS, SHUFFLED, cases, f32, fill_of, node_of

OP = "MUL_MAT"
DEVICES = {"Hopper, 128": (90, 64), "Hopper, 256": (90, 1), "Ampere": (80, 4)}
"""Compute capability, and multiprocessors: a single one is kept busy by the larger tiles, so many only by the smaller ones."""


@cache
def on(device: str, order: int) -> Cuda:
    capability, processors = DEVICES[device]
    return Card(order, capability=capability, processors=processors).backend


def product(weights: str, k: int, rows: int, columns: int, fill: str = "") -> Node:
    operands = Operand(weights, (k, rows), fill=fill or fill_of(weights)), f32(k, columns)
    return node_of(OP, Case("made here", f32(rows, columns), operands))


def moved_by(node: Node, slot: int, offset: int) -> Node:
    """Return the node with a source that begins so many bytes later."""
    tensor = node.source(slot)
    assert isinstance(tensor.storage, PlainStorage)
    room = PlainStorage(np.concatenate([np.zeros(offset, np.uint8), tensor.storage.data]))
    there = tensor.at(room, tensor.offset + offset, tensor.name)
    return replace(node, src=tuple(there if s == slot else t for s, t in enumerate(node.src)))


def with_nan_between(node: Node) -> Node:
    """Fill what lies between and around the rows of weights with NaN."""
    storage, rows = node.source(0).storage, node.source(0).array.copy()
    assert isinstance(storage, PlainStorage)
    storage.data[:] = 0xFF
    node.source(0).array[...] = rows
    return node


def near(node: Node) -> Tolerance:
    return Tolerance(nmse=NEAR.get(node.source(0).dtype.name, 5e-5))


def agrees(node: Node, orders: tuple[int, ...] = ORDERS) -> set[str]:
    """Fail unless all devices compute what the oracle does, in any order of their threads; return the kernels that multiply."""
    found = set()
    for device in DEVICES:
        found.add(kernels_of(on(device, orders[0]), node)[-1].removeprefix("mul_mat_"))
        for order in orders:
            assert judge(on(device, order), node, near(node)), (device, order)
    return found


# ------------------------------------------------------------------------------------------------------------------ which

CHOICES: list[tuple[str, str, int, int, int, Limits, str]] = [
    ("few-tiles", "F16", 128, 300, 200, Limits(90, 132), "wgmma_f16_128"),
    ("many-tiles", "F16", 128, 8192, 1024, Limits(90, 132), "wgmma_f16_256"),
    ("bf16", "BF16", 128, 300, 200, Limits(90, 132), "wgmma_bf16_128"),
    ("many-of-bf16", "BF16", 128, 8192, 1024, Limits(90, 132), "wgmma_bf16_256"),
    ("not-trusted", "F16", 128, 300, 200, Limits(90, 132, wgmma=False), "tile_f16"),
    ("ampere", "BF16", 128, 300, 200, Limits(80, 108), "tile_bf16"),
    ("blackwell", "F16", 128, 300, 200, Limits(100, 148), "tile_f16"),
    ("turing", "F16", 128, 300, 200, Limits(75, 40), "naive"),
    ("rows-of-odd-size", "F16", 100, 300, 200, Limits(90, 132), "tile_f16"),
    ("rows-of-16-bytes", "F16", 104, 300, 200, Limits(90, 132), "wgmma_f16_128"),
    ("one-row-of-weights", "F16", 100, 1, 200, Limits(90, 132), "wgmma_f16_128"),
    ("k-quants", "Q4_K", 256, 300, 200, Limits(90, 132), "tile_q4_k"),
    ("without-a-take", "IQ3_S", 256, 300, 200, Limits(90, 132), "tile_other"),
    ("few-columns", "F16", 128, 300, 8, Limits(90, 132), "few_f16"),
    ("one-column", "BF16", 128, 300, 1, Limits(75, 40), "vec_bf16"),
    ("float32", "F32", 128, 300, 200, Limits(90, 132), "naive"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("weights", "k", "rows", "columns", "limits", "kernel"), [c[1:] for c in CHOICES], ids=[c[0] for c in CHOICES]
)
def test_the_kernel_that_fits_is_chosen(weights: str, k: int, rows: int, columns: int, limits: Limits, kernel: str) -> None:
    plan = PLANNERS[OP](product(weights, k, rows, columns, "zeros" if weights in FLOATS else fill_of(weights)), limits)
    assert plan is not None
    assert plan.calls[-1].kernel == f"mul_mat_{kernel}"


@pytest.mark.parametrize(("offset", "kernel"), [(0, "wgmma_f16_128"), (2, "tile_f16"), (8, "tile_f16"), (16, "wgmma_f16_128")])
def test_where_weights_begin_decides_too(offset: int, kernel: str) -> None:
    """Also on a device that has seen the same geometry before."""
    node = moved_by(product("F16", 72, 40, 20), 0, offset)
    assert kernels_of(on("Hopper, 128", 0), node)[-1] == f"mul_mat_{kernel}"
    agrees(node)


@pytest.mark.parametrize(
    ("w", "x", "kernel"),
    [
        ((64, 16), (64, products.LONGEST), "wgmma_f16_256"),
        ((64, 16), (64, products.LONGEST + 1), "naive"),
        ((64, products.LONGEST + 1), (64, 16), "naive"),
        ((products.LONGEST + 64, 16), (products.LONGEST + 64, 16), "naive"),
    ],
)
def test_no_more_is_counted_than_indices_of_32_bits_do(w: tuple[int, int], x: tuple[int, int], kernel: str) -> None:
    quads = [Operand(kind, ne).quad for kind, ne in (("F32", (w[1], x[1])), ("F16", w), ("F32", x))]
    kinds = [BY_NAME[kind] for kind in ("F32", "F16", "F32")]
    dst, *src = (Tensor(kind, ne, contiguous_nb(kind, ne)) for kind, ne in zip(kinds, quads, strict=True))
    plan = PLANNERS[OP](Node(dst, tuple(src), bytes(64), ops_of(DEFAULT)[OP]), Limits(90, 132))
    assert plan is not None
    assert plan.calls[-1].kernel == f"mul_mat_{kernel}"


def test_experts_of_more_rows_than_a_launch_has_blocks_for_are_multiplied_in_turn() -> None:
    """A dimension may be as long as its stride is short: nothing here has that much memory."""
    for rows, kernel in ((products.LONGEST, "mul_mat_id_q4_0"), (products.LONGEST + 2, "mul_mat_id_naive")):
        quads = [Operand("F32", ne).quad for ne in ((rows, 2, 3), (32, rows, 4), (32, 2, 3), (2, 3))]
        kinds = [BY_NAME[kind] for kind in ("F32", "Q4_0", "F32", "I32")]
        dst, *src = (Tensor(kind, ne, contiguous_nb(kind, ne)) for kind, ne in zip(kinds, quads, strict=True))
        plan = PLANNERS["MUL_MAT_ID"](Node(dst, tuple(src), bytes(64), ops_of(DEFAULT)["MUL_MAT_ID"]), Limits(90, 132))
        assert plan is not None
        assert plan.calls[-1].kernel == kernel
        assert plan.calls[-1].grid[0] < 2**31  # what CUDA takes


def test_strides_that_no_tensor_map_holds_are_not_mapped() -> None:
    w = product("F16", 64, 16, 16).source(0)
    assert products._has_boxes(w, Limits(90, 132))
    assert not products._has_boxes(replace(w, nb=(2, 2**40, 2**41, 2**41)), Limits(90, 132))


def test_tiles_are_counted_and_blocks_are_no_more_than_multiprocessors() -> None:
    plan = PLANNERS[OP](product("F16", 64, 8192, 1000, "zeros"), Limits(90, 132))
    assert plan is not None
    assert plan.calls[-1].grid == (132, 1, 1)  # 32 by 8 tiles
    few = PLANNERS[OP](product("F16", 64, 300, 200, "zeros"), Limits(90, 132))
    assert few is not None
    assert few.calls[-1].grid == (6, 1, 1)


def test_maps_describe_the_tensors() -> None:
    """Weights as they lie; rows of src1 as mul_mat_narrow leaves them: whole groups of 32, one matrix after the other."""
    src = Operand("F16", (72, 40, 2), (2, 160, 6400, 12800), fill="normal"), f32(72, 20, 4, 3)
    plan = PLANNERS[OP](node_of(OP, Case("made here", f32(40, 20, 4, 3), src)), Limits(90, 132))
    assert plan is not None
    (first, weights), (second, rows) = plan.calls[-1].maps
    assert (first, weights) == (0, TensorMap("F16", (72, 40, 2, 1), (160, 6400, 6400), (64, 128, 1, 1)))
    assert (second, rows) == (None, TensorMap("F16", (96, 20, 12, 1), (192, 3840, 46080), (64, 128, 1, 1)))
    assert plan.scratch == 20 * 12 * (192 + 4)


# ------------------------------------------------------------------------------------------------------------------- what

RECORDED = {"Hopper, 128": {"tile": 65, "wgmma": 23}, "Hopper, 256": {"tile": 65, "wgmma": 23}, "Ampere": {"tile": 88, "wgmma": 0}}
"""Device to how many recorded cases are multiplied by each kind of kernel; the others have F32 weights or F16 activations."""


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("device", DEVICES)
def test_recorded_products_in_tensor_cores(device: str, order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of few rows too, which other kernels compute otherwise."""
    monkeypatch.setattr(products, "FEW", 0)
    capability, processors = DEVICES[device]
    card = Card(order, capability=capability, processors=processors)
    taken = {"tile": 0, "wgmma": 0}
    for case, version in cases(OP):
        node = node_of(OP, case, version)
        kind = kernels_of(card.backend, node)[-1].split("_")[2]
        if kind in taken:
            try:
                taken[kind] += judge(card.backend, node, case.tolerance)
            except AssertionError as error:
                raise AssertionError(f"{case.id}: {error}") from None
    card.gpu.close()
    assert taken == RECORDED[device]


@seed(SEED)
@DRAWN
@given(
    weights=st.sampled_from(["F16", "BF16"]), k=st.one_of(st.integers(1, 40), st.sampled_from([64, 72, 136, 320, 333, 1024])),
    rows=st.one_of(st.integers(1, 70), st.sampled_from([127, 129, 256, 300])),
    columns=st.one_of(st.integers(9, 40), st.sampled_from([64, 65, 128, 150])),
    groups=st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 2), st.integers(1, 2)),
    gaps=st.tuples(st.sampled_from([0, 2, 16, 48]), st.sampled_from([0, 64]), st.sampled_from([0, 4, 8])), data=st.data(),
)  # fmt: skip
def test_products_of_any_shape(
    weights: str,
    k: int,
    rows: int,
    columns: int,
    groups: tuple[int, int, int, int],
    gaps: tuple[int, int, int],
    data: st.DataObject,
) -> None:
    """Rows that fill no tile and no box, matrices that broadcast along both dimensions, gaps between rows on all sides."""
    (n2, n3, repeat2, repeat3), order = groups, (data.draw(st.sampled_from(ORDERS)),)
    width, length, height = 2 * k + gaps[0], 4 * k + gaps[1], 4 * rows + gaps[2]
    m2, m3 = n2 * repeat2, n3 * repeat3
    node = node_of(OP, Case(
        "drawn", Operand("F32", (rows, columns, m2, m3), (4, height, height * columns, height * columns * m2)),
        (Operand(weights, (k, rows, n2, n3), (2, width, width * rows, width * rows * n2), fill="normal"),
         Operand("F32", (k, columns, m2, m3), (4, length, length * columns, length * columns * m2))),
    ))  # fmt: skip
    mapped = (width % 16 == 0 or rows == n2 == n3 == 1) and (rows > 1 or (width * rows) % 16 == 0 or n2 == n3 == 1)
    kernels = agrees(node, order)
    assert any(name.startswith("wgmma") for name in kernels) == mapped


@pytest.mark.parametrize("weights", ["F16", "BF16"])
def test_tiles_that_follow_each_other(weights: str) -> None:
    """Three by five of them; on one multiprocessor, a block computes all, and its ring goes round many times."""
    kernels = agrees(product(weights, 520, 300, 530), (SHUFFLED,))
    assert kernels == {f"{kind}_{weights.lower()}{size}" for kind, size in (("wgmma", "_128"), ("wgmma", "_256"), ("tile", ""))}


def test_blocks_of_smaller_tiles_compute_several() -> None:
    """Six of 128 rows of weights on four multiprocessors, where three of 256 would leave one idle."""
    card, node = Card(SHUFFLED), product("F16", 200, 768, 100)
    assert kernels_of(card.backend, node)[-1] == "mul_mat_wgmma_f16_128"
    assert judge(card.backend, node, near(node))
    card.gpu.close()


@pytest.mark.parametrize("weights", sorted(products.PACKED | {"IQ3_S", "TQ2_0"}))
def test_weights_that_are_unpacked_on_the_way(weights: str) -> None:
    """Two by two tiles, of which only the first is whole; more stages than there is room for at a time."""
    node = product(weights, 256, 140, 150)
    assert kernels_of(on("Ampere", SHUFFLED), node)[-1].startswith("mul_mat_tile")
    assert judge(on("Ampere", SHUFFLED), node, near(node))


@pytest.mark.parametrize("weights", ["F16", "BF16"])
def test_many_rows_of_tiles_are_each_computed_once(weights: str) -> None:
    """More than blocks compute at a time (TOGETHER), so that the last band is a smaller one."""
    agrees(product(weights, 16, 280, 128 * 17 + 3), (SHUFFLED,))


@pytest.mark.parametrize("weights", ["F16", "BF16"])
@pytest.mark.parametrize("between", ["rows", "matrices"])
def test_weights_whose_dimensions_lie_in_another_order(weights: str, between: str) -> None:
    """Rows of two matrices in turn, as keys of several heads lie."""
    nb = (2, 288, 144, 288 * 40) if between == "matrices" else (2, 144, 144 * 40, 144 * 80)
    operands = Operand(weights, (72, 40, 2), nb, fill="normal"), f32(72, 20, 2)
    kernels = agrees(node_of(OP, Case("made here", f32(40, 20, 2), operands)))
    assert f"wgmma_{weights.lower()}_128" in kernels


@pytest.mark.parametrize("weights", ["F16", "BF16"])
def test_what_lies_between_rows_is_not_multiplied(weights: str) -> None:
    """NaN there would show: a box of 64 elements goes beyond the end of a row of 72."""
    operands = Operand(weights, (72, 40), (2, 176, 7040, 7040), fill="normal"), f32(72, 20)
    node = with_nan_between(node_of(OP, Case("made here", f32(40, 20), operands)))
    assert f"wgmma_{weights.lower()}_128" in agrees(node)


@pytest.mark.parametrize("weights", ["F16", "BF16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e35, 70000.0, 1e-38, 1e-45, 0.0])
def test_a_row_of_odd_numbers(weights: str, value: float) -> None:
    """NaN and infinities where the oracle has them, and in that row only; F16's range is no limit."""
    node = product(weights, 136, 70, 140)
    node.source(1).array[0, 0, 133, :32] = value
    node.source(1).array[0, 0, 5, :] = value
    for device in DEVICES:
        assert judge(on(device, SHUFFLED), node)


@pytest.mark.parametrize("exponent", [-140, -100, 0, 100, 120])
def test_rows_of_any_size_are_as_near(exponent: int) -> None:
    """They are divided by a power of two for F16, whose products are multiplied with it again: all of it exact where float32 is."""
    node = product("F16", 64, 24, 20)
    node.source(0).array[...] = np.ldexp(np.float32(1), np.arange(24) % 8 - 3)[:, None]
    node.source(1).array[...] = np.ldexp(np.float32(1), exponent)
    for device in DEVICES:
        assert judge(on(device, SHUFFLED), node, Tolerance(nmse=1e-15))


# --------------------------------------------------------------------------------------------------- kernels that are wrong

ROUNDED, SHARING, ROWS = "rounded.cuh", "sharing.cuh", "../mul_mat.cu"
TILE, BOXES, WGMMA, MAPS = "product_tile.cuh", "product_wgmma.cuh", "wgmma.cuh", "tensor_maps.cuh"
SABOTAGES = {
    "a piece that is not there": (ROUNDED, "        wait_for_groups<1>();\n", ""),
    "a piece that other lanes have not brought": (ROUNDED, "__syncwarp(); /* all lanes' copies", "/* all lanes' copies"),
    "a piece that is overwritten too soon": (ROUNDED, "        __syncwarp(); /* it has been used */\n", ""),
    "the piece before": (ROUNDED, "        half = 1 - half;\n", ""),
    "a piece of the next warp": (ROUNDED, "piece += warps", "piece++"),
    "another piece's rounded row": (ROUNDED, "y[c] = {x[c].level + piece * PIECE,", "y[c] = {x[c].level,"),
    "the same sixteen twice": (ROUNDED, "(int)(place | APART)", "(int)place"),
    "what is to be taken from levels": (ROUNDED, "y.w, -sum))));", "y.w, 0))));"),
    "a minimum": (ROUNDED, "fmaf(-s[r][1].minimum, high, sum[r][c])", "sum[r][c]"),
    "a group that can't be rounded": (ROUNDED, "float scale = strange ? NAN : ", "float scale = "),
    "NaN that is not looked at": (ROWS, "odd = again ? ", "odd = 0 ? "),
    "the other row's weights": (ROWS, "b->w[0] + n / COLUMNS * w->nb[1]", "b->w[0]"),
    "a warp's sums alone": (SHARING, "        for (int other = warp + 1;", "        for (int other = warp + 4;"),
    "sums that are not all there": (SHARING, "    __syncthreads();\n", ""),
    "rows of the next group": (SHARING, "+ group) * ROWS", "+ group) * ROWS + 1"),
    "a stage that is not there": (TILE, "        wait_for_groups<PRODUCT_STAGES - 2>();\n", ""),
    "a stage waited for too late": (TILE, "wait_for_groups<PRODUCT_STAGES - 2>", "wait_for_groups<PRODUCT_STAGES - 1>"),
    "a stage filled too soon": (TILE, "__syncthreads(); /* this stage", "/* this stage"),
    "a stage filled twice": (TILE, "        free_stage = stage;\n", ""),
    "a ring one stage too short": (TILE, "stage + 1 < PRODUCT_STAGES ?", "stage + 1 < PRODUCT_STAGES - 1 ?"),
    "pieces that change places one way": (TILE, "wi + 16 * m + lane % 16,", "wi + 16 * m + lane % 16 + 2 - lane % 16 / 2 % 2 * 4,"),
    "rows of src1 exchanged": (TILE, "lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2", "lane % 16, 2 * step + lane / 16"),
    "what lies behind a row": (TILE, "to[k] = element + k < side->length ?", "to[k] = true ?"),
    "rows behind the last": (TILE, "if (row >= side->count || element", "if (element"),
    "another row's exponent": (TILE, "narrow_exponents(&g)[row0 + j]", "narrow_exponents(&g)[row0]"),
    "a weight's minimum": (TILE, "taken.scale, taken.minimum, x + 8)", "taken.scale, 0, x + 8)"),
    "another swizzle": (WGMMA, "| 1ull << 62", "| 2ull << 62"),
    "no swizzle": (WGMMA, "| 1ull << 62", ""),
    "an offset of four rows": (WGMMA, "(uint64_t)(SWIZZLE_EIGHT >> 4) << 32", "(uint64_t)(SWIZZLE_EIGHT >> 5) << 32"),
    "sixteen numbers that are eight": (WGMMA, "(uint64_t)(bytes >> 4)", "(uint64_t)(bytes >> 5)"),
    "eight rows that begin anywhere": (BOXES, "(beyond ? SWIZZLE_EIGHT - beyond : 0)", "0"),
    "the rows of the other warpgroup": (BOXES, "group * WGMMA_ROWS * SWIZZLE_ROW", "(1 - group) * WGMMA_ROWS * SWIZZLE_ROW"),
    "boxes that nobody waits for": (BOXES, "            barrier_wait(&ring->full[at.stage], at.parity);\n", ""),
    "the parity of the phase before": (BOXES, "full[at.stage], at.parity)", "full[at.stage], at.parity ^ 1)"),
    "a stage that is not waited for": (BOXES, "            barrier_wait_or_trap(&ring->empty[at.stage], at.parity ^ 1);\n", ""),
    "a parity that stays": (BOXES, "        p->parity ^= 1;\n", ""),
    "a ring that one side makes shorter": (
        BOXES, "before = at.stage;\n", "before = at.stage;\n            if (at.stage == PRODUCT_RING - 2) advance(&at);\n",
    ),
    "a stage given back too soon": (BOXES, "wait_for_products<N, 1>(d);", "wait_for_products<N, 2>(d);"),
    "products that are not there": (BOXES, "        wait_for_products<N, 0>(d);\n", ""),
    "products of no group": (BOXES, "            close_products();\n", ""),
    "registers that are not fenced": (BOXES, "            begin_products<N>(d);\n", ""),
    "too few bytes announced": (BOXES, "sizeof ring->stage[0])", "sizeof ring->stage[0].rows)"),
    "an arrival of each warpgroup only": (BOXES, "PRODUCT_GROUPS * WARPGROUP / WARP);\n        }", "PRODUCT_GROUPS);\n        }"),
    "barriers that copies can't see": (BOXES, "        barriers_are_made();\n", ""),
    "barriers that threads can't see": (BOXES, "    __syncthreads(); /* all threads see the barriers */\n", ""),
    "sums of the tile before": (BOXES, "            d[i] = 0;", "            d[i] = tile == blockIdx.x ? 0 : d[i];"),
    "the matrix of weights of another": (BOXES, "p.matrix % (int)x->ne[2] / repeat2", "p.matrix % (int)x->ne[2] % (int)w->ne[2]"),
    "a band too high": (BOXES, "min64(TOGETHER, down - first)", "TOGETHER"),
    "pairs that are none": (BOXES, "(uint64_t)dst->nb[3]) & 7) == 0", "(uint64_t)dst->nb[3]) & 3) == 0"),
    "the exponent of another row": (BOXES, "[p.matrix * rows + j]", "[p.matrix * rows + j0]"),
    "columns exchanged": (BOXES, "= {low, high};", "= {high, low};"),
}  # fmt: skip
"""What is wrong, to the header, what stands in it, and what stands there instead."""
AGAIN = {"a group that can't be rounded", "NaN that is not looked at", "the other row's weights"}
"""Those that results of NaN show, which are multiplied again."""


def some() -> Iterator[tuple[str, Node]]:
    """Yield nodes that together reach every line of the kernels, and the devices that compute them."""
    for weights in ("F16", "Q4_1"):
        yield "Ampere", spread(product(weights, 320, 140, 150))
    # an odd number of results in a row, so that only every other row begins at a multiple of 8 bytes
    broadcast = f32(39, 20, 4, 2), (Operand("F16", (72, 39, 2, 2), (2, 176, 6864, 13728), fill="normal"), f32(72, 20, 4, 2))
    for device in ("Ampere", "Hopper, 128"):
        yield device, with_nan_between(node_of(OP, Case("made here", *broadcast)))
    # three pieces of a row for one warp, or shared by several; one or a few rows of src1
    yield "Hopper, 256", product("Q4_1", 4736, 39, 1)
    yield "Ampere", product("Q5_K", 6400, 39, 1)
    yield "Hopper, 256", product("Q6_K", 6400, 39, 3)
    uneven = f32(140, 20), (Operand("F16", (75, 140), (2, 160, 22400, 22400), fill="normal"), f32(75, 20))
    yield "Ampere", with_nan_between(node_of(OP, Case("made here", *uneven)))
    yield "Hopper, 128", spread(product("F16", 640, 150, 140))
    yield "Hopper, 256", spread(product("F16", 72, 300, 128 * 17 + 3))


def again() -> Iterator[tuple[str, Node]]:
    """Yield nodes with groups of src1 that can't be rounded, for which rows are multiplied as they are."""
    for columns, part in ((1, slice(None)), (3, slice(32, 64))):
        few = product("Q6_K", 512, 39, columns)
        few.source(1).array[0, 0, -1, part] *= np.float32(1e-41)
        yield "Ampere", few


def spread(node: Node) -> Node:
    """Rows of src1 of very different sizes."""
    node.source(1).array[...] *= np.float32(2) ** (np.arange(node.source(1).ne[1]) % 30 - 15)[:, None]
    return node


LEFT_OUT = {
    "rounded.cuh": r"X\((?!q4_1|q5_k|q6_k)\w+, [^)]*\)",
    "../mul_mat.cu": r"(?m)^.*\bbf16\b.*$",
}
"""What these nodes have no use for, so that the copies are compiled sooner."""


def changed(file: str, right: str, wrong: str, folder: Path) -> Path:
    """Return a library of the op's kernels with one change; NaN is multiplied again for those of AGAIN only: else it must show."""
    shared = shutil.copytree(compiler.DIRECTORY, folder / "kernels") / "shared"
    if (file, right, wrong) not in [SABOTAGES[what] for what in AGAIN]:
        text = (shared / ROWS).read_text()
        assert text.count("odd = again ? ") == 1
        (shared / ROWS).write_text(text.replace("odd = again ? ", "odd = 0 ? "))
    text = (shared / file).read_text()
    assert text.count(right) == 1
    (shared / file).write_text(text.replace(right, wrong))
    for name, pattern in LEFT_OUT.items():
        (shared / name).write_text(re.sub(pattern, "", (shared / name).read_text()))
    return compile_kernels(folder / "changed.so", shared.parent, [OP.lower()])


def is_wrong(path: Path, order: int, nodes: Callable[[], Iterator[tuple[str, Node]]] = some) -> bool:
    for device, node in nodes():
        capability, processors = DEVICES[device]
        card = Card(order, path=path, capability=capability, processors=processors)
        try:
            assert judge(card.backend, node, near(node))
        except (AssertionError, DeviceFault):
            return True
        finally:
            card.gpu.close()
    return False


def test_the_nodes_that_find_them_are_computed_right(tmp_path: Path) -> None:
    path = changed(TILE, "#pragma once", "#pragma once", tmp_path)
    assert not any(is_wrong(path, order) for order in ORDERS)


@pytest.mark.parametrize("what", SABOTAGES)
def test_a_wrong_kernel_is_found(what: str, tmp_path: Path) -> None:
    path = changed(*SABOTAGES[what], tmp_path)
    assert any(is_wrong(path, order, again if what in AGAIN else some) for order in ORDERS), "nobody noticed"


WRONG_MAPS: dict[str, Callable[[TensorMap], TensorMap]] = {
    "no zeros behind a row": lambda of: replace(of, ne=(-(-of.ne[0] // 64) * 64, *of.ne[1:])),
    "no zeros behind the last row": lambda of: replace(of, ne=(of.ne[0], 4096, *of.ne[2:])),
    "zeros in a row": lambda of: replace(of, ne=(of.ne[0] - 32, *of.ne[1:])),
    "a matrix too few": lambda of: replace(of, ne=(*of.ne[:2], max(1, of.ne[2] - 1), of.ne[3])),
    "strides exchanged": lambda of: replace(of, nb=(of.nb[0], of.nb[2], of.nb[1])),
    "another stride of rows": lambda of: replace(of, nb=(of.nb[0] + 16, *of.nb[1:])),
    "another box": lambda of: replace(of, box=(64, 64, 1, 1)),
    "another box of as many": lambda of: replace(of, box=(64, of.box[1] // 8, 8, 1)),
}


UNSEEN = {"no zeros behind a row", "no zeros behind the last row", "strides exchanged"}
"""Of src1's rows: they end with zeros of their own, what follows the last is of no result, and they have no fourth dimension."""


@pytest.mark.parametrize(
    ("what", "which"), [*((what, "weights") for what in WRONG_MAPS), *((what, "rows") for what in WRONG_MAPS if what not in UNSEEN)]
)
def test_a_wrong_map_is_found(what: str, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN lies behind each row of weights, and behind the last of them there is no memory."""
    card = Card(capability=90, processors=64)
    right = card.gpu.tensor_map

    def wrong(address: int, of: TensorMap) -> bytes:
        # weights have four dimensions here
        return right(address, WRONG_MAPS[what](of) if (of.ne[3] == 2) == (which == "weights") else of)

    monkeypatch.setattr(card.gpu, "tensor_map", wrong)
    operands = Operand("F16", (72, 39, 2, 2), (2, 176, 6864, 13728), fill="normal"), f32(72, 20, 4, 2)
    node = with_nan_between(node_of(OP, Case("made here", f32(39, 20, 4, 2), operands)))
    with pytest.raises((AssertionError, DeviceFault)):
        judge(card.backend, node, near(node))


# ------------------------------------------------------------------------------------------------- a device that is not trusted


def tried(card: Card, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what is logged of a trial."""
    caplog.clear()
    card.backend.try_wgmma()
    return [record.getMessage() for record in caplog.records if record.name.endswith("cuda.backend")]


@pytest.mark.parametrize("processors", [4, 7])
def test_a_device_that_computes_right_is_trusted(processors: int, caplog: pytest.LogCaptureFixture) -> None:
    """Both types and both sizes of tiles were tried, and nothing is left of it."""
    card, node = Card(SHUFFLED, processors=processors), product("F16", 64, 40, 20)
    assert tried(card, caplog) == []
    kernels = [kernel for kernel in card.gpu.launched if kernel != "mul_mat_narrow"]
    assert kernels == [f"mul_mat_wgmma_{kind}_{size}" for kind in ("f16", "bf16") for size in (128, 256)]
    assert card.memory.free == card.memory.total
    assert kernels_of(card.backend, node)[-1] == "mul_mat_wgmma_f16_128"


@pytest.mark.parametrize("capability", [80, 100])
def test_a_device_without_them_is_not_asked(capability: int, caplog: pytest.LogCaptureFixture) -> None:
    card = Card(capability=capability)
    assert tried(card, caplog) == []
    assert card.gpu.launched == []


def test_wrong_numbers_are_said_and_tiles_are_used_from_then_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, node = Card(), product("F16", 64, 40, 20)
    assert kernels_of(card.backend, node)[-1] == "mul_mat_wgmma_f16_128"
    run = card.gpu.run

    def wrong_by_one(launch: Any, function: Any) -> None:
        run(launch, function)
        if launch.kernel == "mul_mat_wgmma_bf16_256":
            address = int(np.frombuffer(launch.argument[: GEOMETRY.itemsize], GEOMETRY)["dst"]["data"][0])
            ctypes.c_float.from_address(address + 4 * 777).value += 1

    monkeypatch.setattr(card.gpu, "run", wrong_by_one)
    (said,) = tried(card, caplog)
    assert said == "a GPU made of threads computes products without wgmma: 1 of 155200 results of BF16 weights are wrong"
    assert kernels_of(card.backend, node)[-1] == "mul_mat_tile_f16"
    assert judge(card.backend, node, near(node))


def test_a_fault_in_the_trial_is_said_and_a_fresh_context_uses_tiles(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an instruction that the device does not have would be one."""
    card, node = Card(), product("BF16", 64, 40, 20)
    run = card.gpu.run

    def refuse(launch: Any, function: Any) -> None:
        if "wgmma" in launch.kernel:
            raise DeviceFault("an illegal instruction")
        run(launch, function)

    monkeypatch.setattr(card.gpu, "run", refuse)
    assert tried(card, caplog) == ["a GPU made of threads computes products without wgmma: an illegal instruction"]
    assert judge(card.backend, node, near(node))
    assert len(card.contexts) == 2
    assert card.gpu.launched == ["mul_mat_narrow", "mul_mat_tile_bf16"]


@pytest.mark.parametrize("limit", [1000, 200_000], ids=["none", "for the first matrix"])
def test_a_device_without_room_for_the_trial_uses_tiles(limit: int, caplog: pytest.LogCaptureFixture) -> None:
    """It keeps nothing of what there was room for."""
    card = Card(limit=limit)
    assert tried(card, caplog) == ["a GPU made of threads computes products without wgmma: there is no room to try them"]
    assert card.memory.free == card.memory.total


def test_a_device_is_tried_when_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anybody has memory on it: a fault in the trial would end its context."""
    card = Card()
    monkeypatch.setattr(driver, "Gpu", lambda index: card.gpu)
    opened = Cuda.on_device(0)
    assert {"mul_mat_wgmma_f16_128", "mul_mat_wgmma_bf16_256"} <= set(card.gpu.launched)
    assert kernels_of(opened, product("F16", 64, 40, 20))[-1] == "mul_mat_wgmma_f16_128"


# ------------------------------------------------------------------------------------------------------------ a real driver


class Library:
    """What of the driver's library makes a tensor map; it keeps what it was asked."""

    def __init__(self, answer: int) -> None:
        self.answer, self.asked = answer, list[Any]()

    def cuTensorMapEncodeTiled(self, to: ctypes.c_void_p, *arguments: Any) -> int:  # noqa: N802
        assert to.value is not None
        assert to.value % 64 == 0
        ctypes.memset(to.value, 0x5A, MAP_BYTES)
        self.asked = [[*a] if isinstance(a, ctypes.Array) else a.value if isinstance(a, ctypes.c_void_p) else a for a in arguments]
        return self.answer

    def cuGetErrorName(self, code: int, text: Any) -> None:  # noqa: N802
        text._obj.value = b"CUDA_ERROR_INVALID_VALUE"


OF = TensorMap("BF16", (72, 40, 2, 1), (160, 6400, 6400), (64, 128, 1, 1))


def test_the_driver_is_asked_for_a_tensor_map(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(0)
    monkeypatch.setattr(driver, "_library", lambda: library)
    assert driver._encode(0x7F0000001230, OF) == b"\x5a" * MAP_BYTES
    # BF16, four dimensions; where, how long, how far apart, a box, every element; not interleaved, 128 bytes, 256 bytes, zeros
    assert library.asked == [9, 4, 0x7F0000001230, [72, 40, 2, 1], [160, 6400, 6400], [64, 128, 1, 1], [1, 1, 1, 1], 0, 3, 3, 0]


def test_a_tensor_map_that_the_driver_refuses_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_library", lambda: Library(1))
    with pytest.raises(DeviceFault, match="cuTensorMapEncodeTiled: CUDA_ERROR_INVALID_VALUE"):
        driver._encode(4096, OF)
    monkeypatch.setattr(driver, "_library", object)
    with pytest.raises(DeviceFault, match="cuTensorMapEncodeTiled: this driver does not have it"):
        driver._encode(4096, OF)


def cuda_header() -> Path | None:
    """Return where cuda.h is: beside the compiler."""
    compiled = subprocess.run(
        [compiler.nvcc() or "true", "--dryrun", "-E", "x.cu"], capture_output=True, text=True, check=False
    ).stderr
    folders = re.findall(r'-I"?([^"\s]+)"?', compiled)
    return next((Path(folder) for folder in folders if (Path(folder) / "cuda.h").exists()), None)


@pytest.mark.skipif(cuda_header() is None, reason="CUDA's headers are not here")
def test_numbers_of_the_driver_are_those_of_its_header(tmp_path: Path) -> None:
    want = {
        "CU_TENSOR_MAP_DATA_TYPE_FLOAT16": driver.DATA_TYPES["F16"], "CU_TENSOR_MAP_DATA_TYPE_BFLOAT16": driver.DATA_TYPES["BF16"],
        "CU_TENSOR_MAP_SWIZZLE_128B": driver.SWIZZLE_128B, "CU_TENSOR_MAP_L2_PROMOTION_L2_256B": driver.PROMOTION_256B,
        "CU_TENSOR_MAP_INTERLEAVE_NONE": 0, "CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE": 0, "sizeof(CUtensorMap)": MAP_BYTES,
    }  # fmt: skip
    unit = tmp_path / "numbers.cpp"
    checks = "".join(f'static_assert({name} == {value}, "{name}");\n' for name, value in want.items())
    unit.write_text(f"#include <cuda.h>\n{checks}static_assert({MAP_BYTES} % alignof(CUtensorMap) == 0);\n")
    command = ["g++", "-std=c++17", "-fsyntax-only", f"-I{cuda_header()}", str(unit)]
    subprocess.run(command, check=True)


# ------------------------------------------------------------------------------------------------------------------- nvcc


@pytest.mark.skipif(compiler.nvcc() is None, reason="CUDA's compiler, nvcc, is not here")
def test_nothing_is_spilt_and_as_many_blocks_fit_as_are_planned() -> None:
    """For Hopper: 65536 registers and 227 KiB of shared memory of a multiprocessor, 1 KiB of it kept back for each block."""
    kernels = {kernel.kernel.removeprefix("mul_mat_"): kernel for kernel in compiler.usage(OP.lower(), 90)}
    assert {name: kernel.spills for name, kernel in kernels.items() if kernel.spills or kernel.stack} == {}
    tiles = [kernel for name, kernel in kernels.items() if name.startswith("tile")]
    assert len(tiles) == len(products.PACKED) + 3
    # registers are given out by eight a thread
    assert max(-(-kernel.registers // 8) * 8 for kernel in tiles) * products.TILE_THREADS * 2 <= 65536
    assert max(kernel.shared for kernel in tiles) == 0
    assert 2 * (products.TILE_SHARED + 1024) <= 99 * 1024  # what the smallest card with these tensor cores has (8.6)
    for size in products.BOX_WEIGHTS:
        for kind in ("f16", "bf16"):
            kernel = kernels[f"wgmma_{kind}_{size}"]
            assert -(-kernel.registers // 8) * 8 * products.WGMMA_THREADS <= 65536
            assert kernel.registers > size // 2  # the sums lie in registers
            assert kernel.shared == 0


@pytest.mark.skipif(compiler.nvcc() is None, reason="CUDA's compiler, nvcc, is not here")
def test_products_by_warpgroups_are_not_waited_for_one_by_one() -> None:
    """As ptxas makes it, and says so, where registers or paths are not as it wants them."""
    assert "serialized" not in compiler.compile_op(OP.lower(), 90, ("-Xptxas", "-v")).messages
