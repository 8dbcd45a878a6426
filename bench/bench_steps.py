"""MUL_MAT of Q4_K in steps, in this process with one thread, without a server: `pytest bench/bench_steps.py`.

The rows of a group are the oracle's numpy and each set of instructions that this processor has. With one column, as when a token is
generated, and with 64, as in a prompt. The package's README takes the steps from one row to the next.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ggml_rpc_ref.backends import Step, never
from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.backends.native import Native
from ggml_rpc_ref.backends.native.library import VARIANTS, load
from ggml_rpc_ref.ops import OPS
from ggml_rpc_ref.ops.cases import recipes
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.compare import compare_tensors
from ggml_rpc_ref.ops.op import Node

LENGTH, ROWS = 2048, 640
"""Gemma 3 270M's ffn_down."""


def product(columns: int) -> Node:
    operands = Operand("Q4_K", (LENGTH, ROWS)), Operand("F32", (LENGTH, columns))
    built = recipes.build("MUL_MAT", Case("bench", Operand("F32", (ROWS, columns)), operands, {}))
    return OPS["MUL_MAT"].check(*built, bytes(64))


@pytest.mark.parametrize("columns", [1, 64])
@pytest.mark.parametrize("step", ["oracle", *reversed(VARIANTS)])
def test_product(benchmark: Any, step: str, columns: int) -> None:
    benchmark.group = f"MUL_MAT of Q4_K {LENGTH}x{ROWS}, columns: {columns}"
    node = product(columns)
    node.op.oracle(node)
    if step == "oracle":
        benchmark(node.op.oracle, node)
        return
    if isinstance(why := load(step), str):
        pytest.skip(why)
    native, other = Native(HostMemory(0), threads=1, variant=step), product(columns)
    run = native.compile([Step(other, native.name)])
    run(never)
    mismatch = compare_tensors(node.dst, other.dst, node.op.tolerance)
    assert mismatch is None, mismatch
    benchmark(run, never)
    assert np.isfinite(other.dst.array).all()
