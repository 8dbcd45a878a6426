"""Every kernel on a GPU made of threads, held to the oracle: the op vectors' inputs, drawn shapes, several orders of the threads.

A kernel that a case needs and that is not there is computed by the oracle, so each test says how many cases the GPU must take.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from ggml_rpc_ref.backends import DeviceFault, Step, never
from ggml_rpc_ref.backends.cuda import attention, compiler, launches, plans, products
from ggml_rpc_ref.backends.cuda import backend as cuda
from ggml_rpc_ref.backends.cuda.backend import Cuda
from ggml_rpc_ref.backends.cuda.device import PREFIX
from ggml_rpc_ref.backends.cuda.launches import PLANNERS
from ggml_rpc_ref.backends.cuda.plans import Limits
from ggml_rpc_ref.blocks import CAN_QUANTISE
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops import ops_of
from ggml_rpc_ref.ops.cases import cases_of, recipes
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.op import FLOATS, Node
from ggml_rpc_ref.ops.shared.matmul import WEIGHTS
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.versions import DEFAULT, NEWEST, PROFILES, V2_0_0, V4_0_0, Version
from ggml_rpc_ref.tensor import Tensor, contiguous_nb
from tests.support.gpu import compile_kernels, library
from tests.support.gpu.devices import Card
from tests.support.gpu.judge import free, judge, kernels_of, moved
from tests.support.seeds import SEED
from tests.test_native_ops import ACTIVATIONS, draw, edge_node

FORWARD, BACKWARD, SHUFFLED = 0, 1, 2 + SEED
ORDERS = (FORWARD, BACKWARD, SHUFFLED)


@cache
def backend(order: int) -> Cuda:
    return Card(order).backend


def node_of(name: str, case: Case, version: Version = DEFAULT) -> Node:
    op = ops_of(version)[name]
    return op.check(*recipes.build(name, case), op.pack(case.params))


def f32(*ne: int, fill: str = "normal") -> Operand:
    return Operand("F32", ne, fill=fill)


CHANGING = [Case(f"to {t}", Operand(t, (64, 3)), (f32(64, 3),)) for t in ("F16", "Q8_0")]
"""Copies that change the type, which no vector of DUP does."""
MORE = {"DUP": CHANGING}


@cache
def cases(name: str) -> tuple[tuple[Case, Version], ...]:
    """Return the cases of an op that compute something; those that other versions have with one of them."""
    found = {case.id: (case, DEFAULT) for case in (*cases_of(name), *MORE.get(name, ()))}
    for version in (NEWEST, V2_0_0, V4_0_0):
        found = {case.id: (case, version) for case in cases_of(name, version)} | found
    return tuple((case, version) for case, version in found.values() if 0 not in case.dst.quad)


COMPUTED = {
    "ACC": 14, "ADD": 49, "ADD1": 18, "ADD_ID": 10, "ADD_REL_POS": 10, "ARANGE": 9, "ARGMAX": 18, "ARGSORT": 26, "CLAMP": 22,
    "COL2IM_1D": 26, "CONCAT": 32, "CONT": 20, "CONV_2D": 25, "CONV_2D_DW": 23, "CONV_3D": 19, "CONV_TRANSPOSE_1D": 21,
    "CONV_TRANSPOSE_2D": 28, "COS": 14, "COUNT_EQUAL": 10, "CPY": 137, "CROSS_ENTROPY_LOSS": 12, "CROSS_ENTROPY_LOSS_BACK": 8,
    "CUMSUM": 8, "DIAG": 6, "DIAG_MASK_INF": 11, "DIAG_MASK_ZERO": 11, "DIV": 31, "DSV4_HC_COMB": 14, "DSV4_HC_POST": 12,
    "DSV4_HC_PRE": 15, "DUP": 13, "FILL": 12, "FLASH_ATTN_BACK": 12, "FLASH_ATTN_EXT": 84, "GATED_DELTA_NET": 48,
    "GATED_LINEAR_ATTN": 13, "GET_REL_POS": 9, "GET_ROWS": 36, "GET_ROWS_BACK": 11, "GLU": 89, "GROUP_NORM": 12, "IM2COL": 30,
    "IM2COL_3D": 20, "IM2COL_BACK": 19, "L2_NORM": 20, "LEAKY_RELU": 13, "LIGHTNING_INDEXER": 40, "LOG": 14, "MEAN": 10,
    "MUL": 30, "MUL_MAT": 152, "MUL_MAT_ID": 77, "NORM": 21, "OPT_STEP_ADAMW": 9, "OPT_STEP_SGD": 8, "OUT_PROD": 46, "PAD": 36,
    "PAD_REFLECT_1D": 10, "POOL_1D": 23, "POOL_2D": 30, "POOL_2D_BACK": 22, "REPEAT": 15, "REPEAT_BACK": 11, "RMS_NORM": 10,
    "RMS_NORM_BACK": 10, "ROLL": 23, "ROPE": 80, "ROPE_BACK": 24, "RWKV_WKV6": 11, "RWKV_WKV7": 6, "SCALE": 20, "SET": 29,
    "SET_ROWS": 27, "SILU_BACK": 10, "SIN": 14, "SOFT_MAX": 40, "SOFT_MAX_BACK": 9, "SOLVE_TRI": 13, "SQR": 14, "SQRT": 14,
    "SSM_CONV": 10, "SSM_SCAN": 24, "SUB": 30, "SUM": 26, "SUM_ROWS": 10, "TIMESTEP_EMBEDDING": 21, "TOP_K": 10, "TRI": 21,
    "UNARY": 219, "UPSCALE": 90, "WIN_PART": 9, "WIN_UNPART": 14,
}  # fmt: skip
"""Op to how many of its cases the GPU computes; the oracle has the others."""


def test_every_file_of_kernels_is_used_and_counted() -> None:
    assert set(PLANNERS) == set(COMPUTED) == {op.upper() for op in compiler.ops()}


def test_every_meaning_of_every_version_is_known() -> None:
    """And has a case, but for types and strides that only another version takes."""
    changes = {change for version in PROFILES for op in ops_of(version).values() for change in op.changes}
    assert changes == cuda.CHANGES
    tried = {change for name in COMPUTED for _, version in cases(name) for change in ops_of(version)[name].changes}
    assert changes == tried


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", COMPUTED)
def test_results_are_the_oracles(name: str, order: int) -> None:
    taken = 0
    for case, version in cases(name):
        try:
            taken += judge(backend(order), node_of(name, case, version), case.tolerance)
        except AssertionError as error:
            raise AssertionError(f"{case.id}: {error}") from None
    assert taken == COMPUTED[name]


@pytest.mark.parametrize("order", [0, 1])
def test_an_exchange_sort_leaves_nan_where_it_is(order: int) -> None:
    """No recorded case of the versions that sort so has one."""
    case = Case("made here", Operand("I32", (100, 5)), (f32(100, 5, fill="special"),), {"order": order})
    assert judge(backend(FORWARD), node_of("ARGSORT", case, V2_0_0))


@pytest.mark.parametrize("name", COMPUTED)
def test_any_shape_layout_place_and_value(name: str) -> None:
    """What test_native_ops.py draws: other lengths, gaps, dimensions in another order, odd numbers, results over a source."""
    op = ops_of(NEWEST)[name]
    for number in range(4):
        if (drawn := draw(op, 1000 * number + SEED)) is None:
            continue
        node, case = drawn
        try:
            judge(backend(ORDERS[number % len(ORDERS)]), node, case.tolerance)
        except AssertionError as error:
            raise AssertionError(f"{case}: {error}") from None
        except Violation:  # an index that is out of range now
            with pytest.raises(Violation, match=r"graph\.index"):
                op.oracle(node)


@pytest.mark.parametrize(("name", "kind"), [pair for pair in ACTIVATIONS if pair[0] in COMPUTED])
def test_activations_and_norms_at_the_edges_of_float32(name: str, kind: str) -> None:
    """What test_native_ops.py draws for them: NaN and infinities where the oracle has them."""
    for number in range(6):
        node = edge_node(name, kind, 1000 * number + SEED)
        try:
            assert judge(backend(FORWARD), node)
        except AssertionError as error:
            raise AssertionError(f"{number}: {node.dst.dtype.name} {node.dst.ne}: {error}") from None


IN_TURN = [
    "ARGMAX", "ARGSORT", "COUNT_EQUAL", "CROSS_ENTROPY_LOSS", "CROSS_ENTROPY_LOSS_BACK", "FLASH_ATTN_BACK", "GROUP_NORM", "L2_NORM",
    "MEAN", "NORM", "RMS_NORM_BACK", "ROLL", "SOFT_MAX_BACK", "SUM", "SUM_ROWS", "TOP_K",
]  # fmt: skip
"""An op of one thread a result, and those whose blocks compute rows or groups, or leave parts."""


@pytest.mark.parametrize("name", IN_TURN)
def test_few_blocks_compute_all_in_turn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there are more rows than a launch has blocks: what the row before left in shared memory has been read."""
    for module, limit, few in ((plans, "MOST_BLOCKS", 2), (launches, "MOST_PARTS", 2), (launches, "RANKS", 0)):
        monkeypatch.setattr(module, limit, few)
    card = Card(SHUFFLED)
    taken = sum(judge(card.backend, node_of(name, case, version), case.tolerance) for case, version in cases(name))
    card.gpu.close()
    assert taken == COMPUTED[name]


BAD_INDEX = {
    "ADD_ID": (Case("", f32(8, 3, 2), (f32(8, 3, 2), f32(8, 5), Operand("I32", (3, 2), fill="index:5"))), 2, 5),
    "GET_ROWS": (Case("", f32(8, 3), (f32(8, 5), Operand("I32", (3,), fill="index:5"))), 1, 5),
    "GET_ROWS_BACK": (Case("", f32(8, 5), (f32(8, 3), Operand("I32", (3,), fill="index:5"))), 1, 5),
    "MUL_MAT_ID": (Case("", f32(8, 2, 3), (f32(4, 8, 5), f32(4, 2, 3), Operand("I32", (2, 3), fill="index:5"))), 2, 5),
    "SET_ROWS": (Case("", f32(8, 5), (f32(8, 3), Operand("I32", (3,), fill="index:5"))), 1, 5),
    "SSM_SCAN": (
        Case(
            "", f32(2 * 3 * 2 * 3 + 4 * 2 * 3 * 3),
            (f32(4, 2, 3, 5), f32(2, 3, 2, 3), f32(3, 2, 3), f32(1, 3), f32(4, 1, 2, 3), f32(4, 1, 2, 3),
             Operand("I32", (3,), fill="index:5")),
        ), 6, 5,
    ),
}  # fmt: skip
"""Op to a case, the slot of its indices, and how many rows there are."""


@pytest.mark.parametrize("beyond", [-1, 0], ids=["negative", "beyond"])
@pytest.mark.parametrize("name", BAD_INDEX)
def test_an_index_out_of_range_is_refused(name: str, beyond: int) -> None:
    """In the oracle's words; and no kernel reads what the index names."""
    case, slot, count = BAD_INDEX[name]
    node = node_of(name, case)
    bad = count if beyond == 0 else -1
    node.source(slot).array[..., -1] = bad
    there = moved(node, backend(BACKWARD))
    try:
        assert backend(BACKWARD).supports(there)
        with pytest.raises(Violation, match=rf"graph.index.*src\[{slot}\].*{bad}.*need 0 <= index < {count}"):
            backend(BACKWARD).compile([Step(there, "cuda")])(never)
    finally:
        free(there)


def test_momenta_that_share_memory_are_the_oracles() -> None:
    """Which of two threads writes last is nobody's to say."""
    case = next(case for case in cases_of("OPT_STEP_ADAMW") if case.dst.quad[0] > 1)
    node = node_of("OPT_STEP_ADAMW", case)
    assert kernels_of(backend(FORWARD), node)
    first = node.source(2)
    shifted = first.at(first.storage, first.offset + 4, "second")
    tangled = Node(node.dst, (*node.src[:3], shifted, *node.src[4:]), node.op_params, node.op)
    assert not kernels_of(backend(FORWARD), tangled)


# ------------------------------------------------------------------------------------------------------- kernels that are wrong

SABOTAGES = {
    "missing barrier": ("RMS_NORM", "shared/kernel.cuh", "= x;\n    __syncthreads();\n    double total", "= x;\n    double total"),
    "one element too many": ("SCALE", "scale.cu", "elements_of(&g.dst))", "elements_of(&g.dst) + 1)"),
    "one row too few": ("MUL_MAT", "mul_mat.cu", "i < elements_of(&g.dst); i", "i < elements_of(&g.dst) - 1; i"),
    "wrong stride": ("GET_ROWS", "get_rows.cu", "at(table, 0, index, p.i2, p.i3)", "at(table, 0, index, p.i3, p.i2)"),
    "missing mask": ("SOFT_MAX", "soft_max.cu", "present(mask) ? at(mask", "0 ? at(mask"),
    "overwritten before all have read": ("SOFT_MAX", "shared/kernel.cuh", "__syncthreads(); /* what the last", "/* what the last"),
    "a barrier that a thread misses": ("RMS_NORM", "shared/kernel.cuh", "warp_sum_double(x);", "x; if (threadIdx.x) return 0;"),
    "minimum left out": ("MUL_MAT", "shared/rounded.cuh", "fmaf(-s[r][0].minimum, low + high, sum[r][c])", "sum[r][c]"),
    "weights of the tile before": ("MUL_MAT", "shared/product_tile.cuh", "__syncthreads(); /* this stage", "/* this stage"),
    "rows of a fragment exchanged": (
        "MUL_MAT", "shared/product_tile.cuh", "wi + 16 * m + lane % 16,", "wi + 16 * m + (lane + 8) % 16,",
    ),
    "a read beyond the end": ("ADD", "shared/elementwise.cuh", "at_repeated(&g.src[1], p));", "at_repeated(&g.src[1], p) + 4096);"),
    "a window too many": ("POOL_2D_BACK", "shared/pooling.cuh", "beyond / w->stride + 1", "beyond / w->stride"),
    "a part forgotten": ("SUM", "shared/parts.cuh", "SHARE(i, g->more[0])", "SHARE(i, g->more[0] - 1)"),
    "places that are not yet exchanged": ("ARGSORT", "shared/ranking.cuh", "{\n            __syncthreads();\n", "{\n"),
    "ranks that are not all sorted": ("TOP_K", "shared/ranking.cuh", "    __syncthreads();\n    return r;", "    return r;"),
    "the last of each warp": ("ARGMAX", "shared/kernel.cuh", "    __syncthreads();\n    int64_t most", "    int64_t most"),
    "a state that another thread has changed": ("RWKV_WKV7", "rwkv_wkv7.cu", "w.state + w.own * w.size", "w.state"),
    "misaligned": ("SCALE", "scale.cu", "at_place(&g.src[0], p))", "at_place(&g.src[0], p) + 1)"),
}  # fmt: skip
"""What is wrong, to the op, the file, what stands in it, and what stands there instead."""


@pytest.mark.parametrize("what", SABOTAGES)
def test_a_wrong_kernel_is_found(what: str, tmp_path: Path) -> None:
    op, file, right, wrong = SABOTAGES[what]
    kernels = shutil.copytree(compiler.DIRECTORY, tmp_path / "kernels")
    text = (kernels / file).read_text()
    assert text.count(right) == 1
    (kernels / file).write_text(text.replace(right, wrong))
    path = compile_kernels(tmp_path / "wrong.so", kernels, [op.lower()])
    assert any(_is_wrong(op, Card(order, path=path).backend) for order in ORDERS), "nobody noticed"


def _is_wrong(op: str, backend: Cuda) -> bool:
    try:
        for case, version in cases(op):
            judge(backend, node_of(op, case, version), case.tolerance)
    except (AssertionError, DeviceFault):
        return True
    return False


# --------------------------------------------------------------------------------------------------- products, type by type


@pytest.mark.parametrize("weights", WEIGHTS)
def test_products_are_nearer_than_upstreams_rounding(weights: str) -> None:
    """Far nearer than the op's tolerance: one row, a few, and many take different kernels."""
    fill = "normal" if weights in FLOATS or BY_NAME[weights] in CAN_QUANTISE else "blocks"
    for columns in (1, 3, 8, 21):
        product = node_of(
            "MUL_MAT", Case("made here", f32(100, columns), (Operand(weights, (768, 100), fill=fill), f32(768, columns)))
        )
        assert judge(backend(SHUFFLED), product, Tolerance(nmse=NEAR.get(weights, 5e-5))), columns


@pytest.mark.parametrize("weights", sorted(products.ROUNDED))
def test_weights_are_unpacked_as_they_are(weights: str) -> None:
    """With whole numbers, of which 32 at a time have one of 127, no rounding to eight bits changes anything."""

    def whole(node: Node) -> Node:
        x = node.source(1).array
        x[...] = np.random.default_rng(7).integers(-127, 128, x.shape)
        x[..., ::32] = 127
        return node

    exact, packed = Tolerance(nmse=1e-11), Operand(weights, (768, 37), fill=fill_of(weights))
    for columns in (1, 3):
        assert judge(
            backend(FORWARD), whole(node_of("MUL_MAT", Case("made here", f32(37, columns), (packed, f32(768, columns))))), exact
        )
    experts = replace(packed, ne=(768, 9, 3)), f32(768, 2, 3), Operand("I32", (2, 3), fill="index:3")
    assert judge(backend(FORWARD), whole(node_of("MUL_MAT_ID", Case("made here", f32(9, 2, 3), experts))), exact)


def fill_of(weights: str) -> str:
    """The recipe for a type: random blocks of one that nothing here writes."""
    return "normal" if weights in FLOATS or BY_NAME[weights] in CAN_QUANTISE else "blocks"


NEAR = {"F32": 1e-12, "F16": 1e-7, "BF16": 5e-6}
"""Weights that are not multiplied with eight bits of an activation."""


@pytest.mark.parametrize("weights", ["Q8_0", "Q4_K", "F16"])
@pytest.mark.parametrize("columns", [1, 2, 9])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e35, 70000.0, 1e-38, 0.0])
def test_a_row_that_can_not_be_rounded(weights: str, columns: int, value: float) -> None:
    """NaN and infinities where the oracle has them, and in that row only."""
    operands = Operand(weights, (256, 5)), f32(256, columns)
    product = node_of("MUL_MAT", Case("made here", f32(5, columns), operands))
    product.source(1).array[0, 0, columns - 1, :32] = value
    assert judge(backend(FORWARD), product)


@pytest.mark.parametrize("k", [64, 4096, 8192 + 256])
def test_long_rows_are_shared_by_warps(k: int) -> None:
    product = node_of("MUL_MAT", Case("made here", f32(6, 2), (Operand("Q4_0", (k, 6)), f32(k, 2))))
    assert judge(backend(BACKWARD), product, Tolerance(nmse=5e-5))
    chosen = Operand("I32", (2, 3), fill="index:3")
    experts = node_of("MUL_MAT_ID", Case("made here", f32(6, 2, 3), (Operand("Q4_0", (k, 6, 3)), f32(k, 2, 3), chosen)))
    assert judge(backend(BACKWARD), experts, Tolerance(nmse=5e-5))


def test_an_older_card_gets_kernels_that_it_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turing has no tensor cores for BF16, and the kernel for them would trap there."""
    product = node_of("MUL_MAT", Case("made here", f32(37, 21), (Operand("F16", (64, 37)), f32(64, 21))))
    for capability, kernels in ((80, ("mul_mat_narrow", "mul_mat_tile_f16")), (75, ("mul_mat_naive",))):
        plan = PLANNERS["MUL_MAT"](product, Limits(capability, 4))
        assert plan is not None
        assert tuple(call.kernel for call in plan.calls) == kernels


@pytest.mark.parametrize(
    ("name", "dst", "src"),
    [
        ("CUMSUM", (2**25,), [(2**25,)]),
        ("REPEAT_BACK", (1,), [(2**25,)]),
        ("SOLVE_TRI", (1, 2**14), [(2**14, 2**14), (1, 2**14)]),
        ("OUT_PROD", (1, 1), [(1, 2**28), (1, 2**28)]),
        ("GET_ROWS_BACK", (1, 4), [(1, 2**25), (2**25,)]),
    ],
)
def test_what_one_thread_would_compute_for_long_is_the_oracles(name: str, dst: tuple[int, ...], src: list[tuple[int, ...]]) -> None:
    """A launch can't be stopped; numpy on a processor is faster than one thread of a GPU."""
    for shrunk in (1, 64):
        sizes = [tuple(max(1, n // shrunk) if n > 4 else n for n in ne) for ne in (dst, *src)]
        quads = [Operand("F32", ne).quad for ne in sizes]
        tensors = [Tensor(BY_NAME["F32"], ne, contiguous_nb(BY_NAME["F32"], ne)) for ne in quads]
        node = Node(tensors[0], tuple(tensors[1:]), bytes(64), ops_of(DEFAULT)[name])
        assert (PLANNERS[name](node, Limits(90, 4)) is None) == (shrunk == 1)


def test_every_kernel_is_one_that_some_case_needs() -> None:
    """A kernel that nothing plans would be proven by nothing. Types that no vector has are taken by the test above."""
    exported = subprocess.run(["nm", "-D", "--defined-only", str(library())], capture_output=True, text=True, check=True).stdout
    there = {name.removeprefix(PREFIX) for line in exported.splitlines() if (name := line.split()[-1]).startswith(PREFIX)}
    planned = {kernel for name in COMPUTED for case in cases(name) for kernel in _planned(node_of(name, *case))}
    products = [(t, n) for t in WEIGHTS for n in (1, 3, 21)]
    for weights, n in products:
        planned |= set(
            _planned(node_of("MUL_MAT", Case("", f32(4, n), (Operand(weights, (256, 4), fill=fill_of(weights)), f32(256, n)))))
        )
    for n in attention.TILE_HEADS:
        kv = Operand("F16", (n, 4))
        planned |= set(_planned(node_of("FLASH_ATTN_EXT", Case("", f32(n, 1, 64), (f32(n, 64), kv, kv), {"scale": 1.0}))))
    assert there == planned


def _planned(node: Node) -> list[str]:
    """Return the kernels that compute a node on Hopper, with several multiprocessors and with one, or on Ampere."""
    plans = [PLANNERS[node.op.name](node, limits) for limits in (Limits(90, 4), Limits(90, 1), Limits(80, 4))]
    return [call.kernel for plan in plans if plan is not None for call in plan.calls]


# ------------------------------------------------------------------------------------------------------------ drawn shapes

DRAWN = settings(max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck))
LENGTHS = st.integers(1, 70)
FEW = st.integers(1, 3)


def agrees(name: str, dst: Operand, *src: Operand | None, **params: Any) -> None:
    """Fail unless the GPU computes what the oracle does, in any order of its threads."""
    for order in ORDERS:
        assert judge(backend(order), node_of(name, Case("drawn", dst, src, params)))


@seed(SEED)
@DRAWN
@given(
    st.sampled_from(["ADD", "MUL", "SUB", "DIV"]), LENGTHS, LENGTHS, FEW, FEW,
    st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()), st.sampled_from([0, 4, 64]),
)  # fmt: skip
def test_elementwise_of_any_shape(op: str, n: int, rows: int, a: int, b: int, repeat: tuple[bool, ...], gap: int) -> None:
    """The second operand repeated along any dimensions, gaps between the rows."""
    ne, row = (n, rows, a, b), 4 * n + gap
    nb = (4, row, row * rows, row * rows * a)
    second = [1 if once else length for once, length in zip(repeat, ne, strict=True)]
    agrees(op, Operand("F32", ne, nb), Operand("F32", ne, nb), f32(*second))


@seed(SEED)
@DRAWN
@given(
    st.sampled_from(["RMS_NORM", "SOFT_MAX"]), st.one_of(LENGTHS, st.integers(200, 700)), LENGTHS, FEW,
    st.sampled_from(["normal", "normal:100", "special"]),
)  # fmt: skip
def test_rows_of_any_length(op: str, n: int, rows: int, heads: int, fill: str) -> None:
    params = {"eps": 1e-6} if op == "RMS_NORM" else {"scale": 0.25, "max_bias": 0.0}
    agrees(op, f32(n, rows, heads), f32(n, rows, heads, fill=fill), **params)


OF_ROWS = {
    "NORM": {"eps": 1e-6}, "L2_NORM": {"eps": 1e-6}, "CUMSUM": {}, "SUM_ROWS": {}, "MEAN": {}, "ARGMAX": {}, "TOP_K": {},
    "ARGSORT": {"order": 0}, "SOFT_MAX_BACK": {"scale": 0.5}, "RMS_NORM_BACK": {"eps": 1e-6},
    "GROUP_NORM": {"n_groups": 3, "eps": 1e-6},
}  # fmt: skip
"""Op to parameters."""


@seed(SEED)
@DRAWN
@given(st.sampled_from(list(OF_ROWS)), st.one_of(LENGTHS, st.integers(200, 400)), st.integers(1, 5), FEW, st.data())
def test_more_rows_of_any_length(op: str, n: int, rows: int, heads: int, data: st.DataObject) -> None:
    fill = data.draw(st.sampled_from(["permutation", "normal", *(["special"] if op in ("ARGMAX", "CUMSUM", "SUM_ROWS") else [])]))
    src: tuple[Operand, ...] = (f32(n, rows, heads, fill=fill),)
    dst = f32(n, rows, heads)
    if op in ("SUM_ROWS", "MEAN"):
        dst = f32(1, rows, heads)
    elif op == "ARGMAX":
        src, dst = (f32(n, rows, fill=fill),), Operand("I32", (rows,))
    elif op in ("ARGSORT", "TOP_K"):
        dst = Operand("I32", (data.draw(st.integers(1, n)) if op == "TOP_K" else n, rows, heads))
    elif op.endswith("_BACK"):
        src += (f32(n, rows, heads),)
    agrees(op, dst, *src, **OF_ROWS[op])


@seed(SEED)
@DRAWN
@given(
    op=st.sampled_from(["ACC", "SET"]), ne=st.tuples(*[st.integers(1, 6)] * 4), order=st.permutations([1, 2, 3]),
    inplace=st.booleans(), data=st.data(),
)  # fmt: skip
def test_regions_that_lie_anyhow(op: str, ne: tuple[int, ...], order: list[int], inplace: bool, data: st.DataObject) -> None:
    """Every other row, columns of matrices as matrices of rows: each dimension of the region runs along one of the result."""
    along, part, nb, offset = [0, *order], [], [], 0
    size = [4 * int(np.prod(ne[:dim])) for dim in range(4)]
    for dim in along:
        step = data.draw(st.integers(1, 2)) if dim else 1
        first = data.draw(st.integers(0, ne[dim] - 1))
        part.append(data.draw(st.integers(1, (ne[dim] - 1 - first) // step + 1)))
        nb.append(step * size[dim])
        offset += first * size[dim]
    params = {"nb1": nb[1], "nb2": nb[2], "nb3": nb[3], "offset": offset, "inplace": int(inplace)}
    agrees(op, f32(*ne), f32(*ne), f32(*part), **params)


@seed(SEED)
@DRAWN
@given(
    op=st.sampled_from(["CONV_2D", "IM2COL", "IM2COL_BACK", "CONV_2D_DW", "POOL_2D", "POOL_2D_BACK"]),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(FEW, FEW),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(FEW, FEW),
    channels=st.tuples(FEW, FEW, FEW),
    kind=st.integers(0, 1),
)
def test_windows_of_any_shape(
    op: str,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    channels: tuple[int, int, int],
    kind: int,
) -> None:
    pools, (inputs, outputs, images) = op.startswith("POOL"), channels
    reach = [k if pools else d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = tuple(max(n, r) for n, r in zip(size, reach, strict=True))  # so that at least one window fits
    fit = [(n + 2 * p - r) // s + 1 for n, p, r, s in zip(size, padding, reach, stride, strict=True)]
    params = {f"{word}{axis}": pair[axis] for word, pair in (("s", stride), ("p", padding)) for axis in (0, 1)}
    params |= (
        {f"k{axis}": kernel[axis] for axis in (0, 1)} | {"op": kind} if pools else {f"d{axis}": dilation[axis] for axis in (0, 1)}
    )
    image, taps = f32(*size, inputs, images), kernel[0] * kernel[1]
    match op:
        case "CONV_2D":
            agrees(op, f32(*fit, outputs, images), f32(*kernel, inputs, outputs), image, **params)
        case "CONV_2D_DW":
            agrees(op, f32(*fit, inputs, images), f32(*kernel, 1, inputs), image, **params)
        case "IM2COL":
            agrees(op, f32(taps * inputs, *fit, images), f32(*kernel, inputs, outputs), image, **params, is_2D=1)
        case "IM2COL_BACK":
            agrees(op, image, f32(taps * inputs, *fit, images), f32(*kernel, inputs, outputs), **params, is_2D=1)
        case "POOL_2D":
            agrees(op, f32(*fit, inputs, images), image, **params)
        case _:
            agrees(op, image, f32(*fit, inputs, images), image, **params)


@seed(SEED)
@DRAWN
@given(
    op=st.sampled_from(["RWKV_WKV6", "RWKV_WKV7", "GATED_LINEAR_ATTN", "GATED_DELTA_NET"]), size=st.integers(1, 40), heads=FEW,
    tokens=st.integers(1, 4), sequences=FEW,
)  # fmt: skip
def test_recurrences_of_any_shape(op: str, size: int, heads: int, tokens: int, sequences: int) -> None:
    """Small numbers: what a state takes in must not outgrow float32."""
    stream, rows = f32(size, heads, tokens * sequences, fill="normal:0.2"), (tokens + size) * sequences
    state, params = f32(size * size * heads, sequences, fill="normal:0.2"), {"scale": 0.5} if op == "GATED_LINEAR_ATTN" else {}
    src = [stream] * {"RWKV_WKV6": 5, "RWKV_WKV7": 6, "GATED_LINEAR_ATTN": 4}.get(op, 0)
    if op == "RWKV_WKV6":
        src[3] = f32(size * heads)
    if op == "GATED_DELTA_NET":
        value = f32(size, heads, tokens, sequences, fill="normal:0.2")
        src = [value, value, value, f32(1, heads, tokens, sequences), f32(1, heads, tokens, sequences, fill="uniform:0:1")]
    agrees(op, f32(size * heads, rows), *src, state, **params)


@seed(SEED)
@DRAWN
@given(
    weights=st.sampled_from(["F32", "F16", "BF16", "Q8_0", "Q4_K", "Q6_K", "IQ3_S"]),
    rows=st.integers(1, 70),
    columns=st.one_of(st.integers(1, 12), st.integers(60, 70)),
    groups=st.tuples(st.integers(1, 2), FEW, st.integers(1, 2)),
    gap=st.sampled_from([0, 64]),
)
def test_products_of_any_shape(weights: str, rows: int, columns: int, groups: tuple[int, int, int], gap: int) -> None:
    """Rows that fill no tile, matrices that broadcast, gaps between the rows of src1 and of the result."""
    (matrices, repeated, outer), k, row = groups, 256, 4 * 256 + gap
    nb = (4, row, row * columns, row * columns * matrices * repeated)
    out = 4 * rows + gap
    dst = Operand("F32", (rows, columns, matrices * repeated, outer), (4, out, out * columns, out * columns * matrices * repeated))
    fill = "blocks" if weights == "IQ3_S" else "normal"  # upstream writes no IQ3_S
    agrees(
        "MUL_MAT",
        dst,
        Operand(weights, (k, rows, matrices), fill=fill),
        Operand("F32", (k, columns, matrices * repeated, outer), nb),
    )


@seed(SEED)
@DRAWN
@given(
    weights=st.sampled_from(["F32", "F16", "Q8_0", "Q4_K", "Q6_K"]), rows=st.integers(1, 20), experts=st.integers(1, 8),
    used=st.integers(1, 4), tokens=st.integers(1, 8), each=st.booleans(),
)  # fmt: skip
def test_products_with_experts_of_any_shape(weights: str, rows: int, experts: int, used: int, tokens: int, each: bool) -> None:
    chosen = Operand("I32", (used, tokens), fill=f"index:{experts}")
    src = Operand(weights, (256, rows, experts)), f32(256, used if each else 1, tokens), chosen
    agrees("MUL_MAT_ID", f32(rows, used, tokens), *src)


@seed(SEED)
@DRAWN
@given(
    kinds=st.tuples(st.sampled_from(["F32", "F16", "Q8_0"]), st.sampled_from(["F32", "F16", "Q4_0"])),
    lengths=st.tuples(st.sampled_from([32, 64, 96]), st.sampled_from([32, 64])),
    queries=st.integers(1, 12),
    keys=st.integers(1, 150),
    heads=st.tuples(st.integers(1, 2), FEW, st.integers(1, 2)),
    mask=st.sampled_from(["mask", "normal", "zeros"]),
    params=st.fixed_dictionaries(
        {"scale": st.just(0.125), "max_bias": st.sampled_from([0.0, 8.0]), "logit_softcap": st.sampled_from([0.0, 5.0])}
    ),
)
def test_attention_of_any_shape(
    kinds: tuple[str, str],
    lengths: tuple[int, int],
    queries: int,
    keys: int,
    heads: tuple[int, int, int],
    mask: str,
    params: dict[str, float],
) -> None:
    (dk, dv), (shared, each, batch), (k, v) = lengths, heads, kinds
    agrees(
        "FLASH_ATTN_EXT", f32(dv, shared * each, queries, batch), f32(dk, queries, shared * each, batch),
        Operand(k, (dk, keys, shared, batch)), Operand(v, (dv, keys, shared, batch)), Operand("F16", (keys, queries), fill=mask),
        **params,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------- nvcc


@pytest.mark.skipif(compiler.nvcc() is None, reason="CUDA's compiler, nvcc, is not here")
@pytest.mark.parametrize("op", ["rms_norm", "cos"])
def test_nvcc_compiles(op: str) -> None:
    """Two files for Hopper; `bench/device_check.py --compile` compiles all of them for each architecture."""
    for kernel in compiler.usage(op, 90):
        assert 0 < kernel.registers <= 255
        assert kernel.spills == 0, f"{kernel.kernel} spills {kernel.spills} bytes"
