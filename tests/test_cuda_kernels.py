"""Every kernel on a GPU made of threads, held to the oracle: the op vectors' inputs, drawn shapes, several orders of the threads.

A kernel that a case needs and that is not there is computed by the oracle, so each test says how many cases the GPU must take.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from ggml_rpc_ref.backends import DeviceFault
from ggml_rpc_ref.backends.cuda import compiler
from ggml_rpc_ref.backends.cuda.backend import Cuda
from ggml_rpc_ref.backends.cuda.device import PREFIX
from ggml_rpc_ref.backends.cuda.launches import PLANNERS, Limits
from ggml_rpc_ref.blocks import CAN_QUANTISE
from ggml_rpc_ref.ops import OPS
from ggml_rpc_ref.ops.cases import cases_of, recipes
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.op import FLOATS, Node
from ggml_rpc_ref.ops.shared.matmul import WEIGHTS
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.spec.dtypes import BY_NAME
from tests.support.gpu import compile_kernels, library
from tests.support.gpu.devices import Card
from tests.support.gpu.judge import judge
from tests.support.seeds import SEED

FORWARD, BACKWARD, SHUFFLED = 0, 1, 2 + SEED
ORDERS = (FORWARD, BACKWARD, SHUFFLED)


@cache
def backend(order: int) -> Cuda:
    return Card(order).backend


def node_of(name: str, case: Case) -> Node:
    return OPS[name].check(*recipes.build(name, case), OPS[name].pack(case.params))


def f32(*ne: int, fill: str = "normal") -> Operand:
    return Operand("F32", ne, fill=fill)


CHANGING = [Case(f"to {t}", Operand(t, (64, 3)), (f32(64, 3),)) for t in ("F16", "Q8_0")]
"""Copies that change the type, which no vector of DUP does."""
MORE = {"DUP": CHANGING}


def cases(name: str) -> Iterator[Case]:
    """Yield the cases of an op that compute something."""
    return (case for case in (*cases_of(name), *MORE.get(name, ())) if 0 not in case.dst.quad)


COMPUTED = {
    "ADD": 30, "CONT": 20, "COS": 14, "CPY": 133, "DIV": 31, "DUP": 13, "FLASH_ATTN_EXT": 81, "GET_ROWS": 34, "GLU": 55, "LOG": 14,
    "MUL": 30, "MUL_MAT": 131, "MUL_MAT_ID": 73, "RMS_NORM": 10, "ROPE": 58, "ROPE_BACK": 18, "SCALE": 16, "SET_ROWS": 19,
    "SIN": 14, "SOFT_MAX": 40, "SQR": 14, "SQRT": 14, "SUB": 30, "UNARY": 207,
}  # fmt: skip
"""Op to how many of its cases the GPU computes; the oracle has the others."""


def test_every_file_of_kernels_is_used_and_counted() -> None:
    assert set(PLANNERS) == set(COMPUTED) == {op.upper() for op in compiler.ops()}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", COMPUTED)
def test_results_are_the_oracles(name: str, order: int) -> None:
    taken = 0
    for case in cases(name):
        try:
            taken += judge(backend(order), node_of(name, case), case.tolerance)
        except AssertionError as error:
            raise AssertionError(f"{case.id}: {error}") from None
    assert taken == COMPUTED[name]


# ------------------------------------------------------------------------------------------------------- kernels that are wrong

SABOTAGES = {
    "missing barrier": ("RMS_NORM", "shared/kernel.cuh", "= x;\n    __syncthreads();\n    double total", "= x;\n    double total"),
    "one element too many": ("SCALE", "scale.cu", "elements_of(&g.dst))", "elements_of(&g.dst) + 1)"),
    "one row too few": ("MUL_MAT", "mul_mat.cu", "i < elements_of(&g.dst); i", "i < elements_of(&g.dst) - 1; i"),
    "wrong stride": ("GET_ROWS", "get_rows.cu", "at(table, 0, index, p.i2, p.i3)", "at(table, 0, index, p.i3, p.i2)"),
    "missing mask": ("SOFT_MAX", "soft_max.cu", "present(mask) ? at(mask", "0 ? at(mask"),
    "what was summed is not scaled": ("FLASH_ATTN_EXT", "flash_attn_ext.cu", "total = total * factor + (", "total = total + ("),
    "overwritten before all have read": ("SOFT_MAX", "shared/kernel.cuh", "__syncthreads(); /* what the last", "/* what the last"),
    "a barrier that a thread misses": ("RMS_NORM", "shared/kernel.cuh", "warp_sum_double(x);", "x; if (threadIdx.x) return 0;"),
    "minimum left out": ("MUL_MAT", "shared/rounded.cuh", " - s.minimum * x[c].sum[unit];", ";"),
    "weights of the tile before": ("MUL_MAT", "mul_mat.cu", "__syncthreads();\n#pragma unroll\n", "#pragma unroll\n"),
    "rows of a fragment exchanged": ("MUL_MAT", "mul_mat.cu", "group + 8 * (q % 2)]", "group + 8 * (1 - q % 2)]"),
    "a read beyond the end": ("ADD", "shared/elementwise.cuh", "at_repeated(&g.src[1], p));", "at_repeated(&g.src[1], p) + 4096);"),
    "misaligned": ("SCALE", "scale.cu", "f32_at(at_place(&g.src[0], p))", "f32_at(at_place(&g.src[0], p) + 1)"),
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
        for case in cases(op):
            judge(backend, node_of(op, case), case.tolerance)
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
            "MUL_MAT", Case("made here", f32(37, columns), (Operand(weights, (768, 37), fill=fill), f32(768, columns)))
        )
        assert judge(backend(SHUFFLED), product, Tolerance(nmse=NEAR.get(weights, 5e-5))), columns


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
    for capability, kernels in ((90, ("mul_mat_narrow", "mul_mat_f16")), (75, ("mul_mat_naive",))):
        plan = PLANNERS["MUL_MAT"](product, Limits(capability, 4))
        assert plan is not None
        assert tuple(call.kernel for call in plan.calls) == kernels


def test_every_kernel_is_one_that_some_case_needs() -> None:
    """A kernel that nothing plans would be proven by nothing. Types that no vector has are taken by the test above."""
    exported = subprocess.run(["nm", "-D", "--defined-only", str(library())], capture_output=True, text=True, check=True).stdout
    there = {name.removeprefix(PREFIX) for line in exported.splitlines() if (name := line.split()[-1]).startswith(PREFIX)}
    planned = {kernel for name in COMPUTED for case in cases(name) for kernel in _planned(node_of(name, case))}
    products = [(t, n) for t in WEIGHTS for n in (1, 3, 21)]
    for weights, n in products:
        planned |= set(
            _planned(node_of("MUL_MAT", Case("", f32(4, n), (Operand(weights, (256, 4), fill=fill_of(weights)), f32(256, n)))))
        )
    assert there == planned


def _planned(node: Node) -> list[str]:
    plan = PLANNERS[node.op.name](node, Limits(90, 4))
    return [] if plan is None else [call.kernel for call in plan.calls]


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
