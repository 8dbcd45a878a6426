"""The backend that rounds as upstream's CPU does, against the bytes recorded from it: a thousand times nearer than the oracle.

That is two things at once: proof that the oracle's distance from upstream is rounding and nothing else, for each type of weights.
The recording machine had AVX512-FP16, so its F16 arithmetic is `half.Native`.
"""

from __future__ import annotations

import base64
import json
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggml_rpc_ref.backends import Step, never
from ggml_rpc_ref.backends.half import Half, Native, ThroughFloat32
from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.backends.upstream_cpu import LOOKED_UP, UpstreamCpu, running_sum
from ggml_rpc_ref.ops import OPS
from ggml_rpc_ref.ops.cases import cases_of, recipes
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.cases.flash_attn_ext import attention
from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.spec.opcodes import GLU_OPS, UNARY_OPS
from ggml_rpc_ref.tensor import PlainStorage, Tensor
from tests.support.each import each

WITNESS = Path(__file__).parents[1] / "vectors" / "upstream-3.6.1-llama-cpp-python-0.3.20" / "ops"

SUMS_ROUNDED = 1e-6
"""Bound on the normalised squared error of products with F16 weights, which upstream
multiplies by sgemm in an order of its own."""
FLOAT_ORDER = 1e-8
"""Bound where only the order of float32 sums and the library's exp and tanh differ; a few F16 results then fall otherwise."""


def bound(case: Case) -> float:
    types = [operand.dtype for operand in case.src if operand is not None]
    return SUMS_ROUNDED if types[0] == "F16" else FLOAT_ORDER


def is_rounded(name: str, case: Case) -> bool:
    """Whether the backend computes this case otherwise than the oracle."""
    if name in ("UNARY", "GLU"):
        kinds = UNARY_OPS if name == "UNARY" else GLU_OPS
        return kinds[int(case.params["kind"])] in LOOKED_UP and case.dst.dtype == "F32"  # type: ignore[arg-type]
    return True


@pytest.mark.parametrize("name", ["MUL_MAT", "MUL_MAT_ID", "FLASH_ATTN_EXT", "GLU", "UNARY"])
def test_results_are_those_recorded_but_for_the_order_of_sums(name: str) -> None:
    pairs = zip(cases_of(name), json.loads((WITNESS / f"{name.lower()}.json").read_text())["cases"], strict=True)
    each(is_as_recorded, ((case.id, (name, case, entry)) for case, entry in pairs if is_rounded(name, case)))


def is_as_recorded(name: str, case: Case, entry: dict[str, Any]) -> None:
    dst, src = recipes.build(name, case)
    (recorded,) = (zlib.decompress(base64.b64decode(text)) for text in entry["expected"].values())
    if dst.nelements:
        run(UpstreamCpu(HostMemory(0), 1, Native()), OPS[name].check(dst, src, OPS[name].pack(case.params)))
    actual, expected = dst.values().astype(np.float64), like(dst, recorded).values().astype(np.float64)
    finite = np.isfinite(expected)
    assert np.array_equal(finite, np.isfinite(actual))
    assert np.array_equal(expected[~finite], actual[~finite], equal_nan=True)
    error = float(np.sum(np.square(actual[finite] - expected[finite])))
    assert error <= bound(case) * float(np.sum(np.square(expected[finite])))


def run(backend: UpstreamCpu, node: Node) -> None:
    """Compute a node, which must be one that the backend computes itself."""
    assert backend.supports(node)
    backend.compile([Step(node, backend.name)])(never)


def like(tensor: Tensor, content: bytes) -> Tensor:
    """The tensor's geometry over recorded bytes, which are those between the guard bytes."""
    guard = bytes(recipes.GUARD)
    storage = PlainStorage(np.frombuffer(guard + content + guard, np.uint8))
    return Tensor(tensor.dtype, tensor.ne, tensor.nb, storage, tensor.offset)


def test_a_split_sum_is_the_whole_sum_within_rounding() -> None:
    case = next(case for case in cases_of("FLASH_ATTN_EXT") if case.id == "keys-515-f16")
    results = []
    for threads in (1, 2, 3):
        dst, src = recipes.build("FLASH_ATTN_EXT", case)
        node = OPS["FLASH_ATTN_EXT"].check(dst, src, OPS["FLASH_ATTN_EXT"].pack(case.params))
        run(UpstreamCpu(HostMemory(0), threads, ThroughFloat32()), node)
        results.append(dst.values().copy())
    assert not np.array_equal(results[0], results[1])
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=0.02, atol=2e-3)


def test_f16_sums_are_rounded_at_each_step_where_the_processor_adds_in_f16() -> None:
    """4096 + 1 + 1 is 4096 in F16, whose numbers lie 4 apart there; 4098 where it is summed in float32."""
    q, k = np.zeros((1, 1, 384), np.float32), np.ones((1, 1, 384), np.float32)
    q[..., 0], q[..., 128], q[..., 256] = 4096, 1, 1
    assert Native().dots(q, k).item() == 4096
    assert ThroughFloat32().dots(q, k).item() == 4098


def test_elements_left_over_are_computed_in_float32() -> None:
    q, k = np.zeros((1, 1, 130), np.float32), np.ones((1, 1, 130), np.float32)
    q[..., 0], q[..., 128], q[..., 129] = 4096, 1, 1
    assert Native().dots(q, k).item() == 4098
    y, x, factor = np.zeros((1, 1, 129), np.float32), np.full((1, 1, 129), 3, np.float32), np.full((1, 1, 1), 1.00044, np.float32)
    # in F16 the factor is 1; in float32 the product is 3.00132, and F16 numbers lie 1/512 apart there
    assert Native().add_scaled(y, x, factor)[0, 0, [0, 128]].tolist() == [3, 3 + 1 / 512]
    assert Native().scale(x, factor)[0, 0, [0, 128]].tolist() == [3, 3 + 1 / 512]


def test_attention_takes_its_keys_and_queries_in_slabs() -> None:
    """16 heads, 32 queries and 2048 keys would take 1 GiB at once: 128 sums in float64 for each pair of query and key."""
    q, k = Operand("F32", (128, 32, 16)), Operand("F16", (128, 2048, 2))
    case = attention("slabs", q, k, k)
    dst, src = recipes.build("FLASH_ATTN_EXT", case)
    node = OPS["FLASH_ATTN_EXT"].check(dst, src, OPS["FLASH_ATTN_EXT"].pack(case.params))
    tracemalloc.start()
    try:
        run(UpstreamCpu(HostMemory(0), 1, Native()), node)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 300 * 2**20
    rounded = dst.values().copy()
    OPS["FLASH_ATTN_EXT"].oracle(OPS["FLASH_ATTN_EXT"].check(dst, src, OPS["FLASH_ATTN_EXT"].pack(case.params)))
    assert np.sum(np.square(rounded - dst.values())) < 1e-3 * np.sum(np.square(dst.values()))


@pytest.mark.parametrize("half", [ThroughFloat32(), Native()], ids=lambda half: type(half).__name__)
def test_a_hidden_key_is_skipped_whatever_its_value(half: Half) -> None:
    """Of two queries only the second sees the second key, whose value is infinite."""
    hidden = np.array([[[False, True], [False, False]]])
    scores = np.where(hidden, np.float32(-np.inf), np.float32(0))
    values = np.array([[[1], [np.inf]]], np.float32)
    with np.errstate(invalid="ignore"):  # -inf - -inf before a row's first visible key, as in attend
        _, total, weighted = running_sum(scores, hidden, values, half)
    assert total.tolist() == [[1, 2]]
    assert weighted.tolist() == [[[1], [np.inf]]]
