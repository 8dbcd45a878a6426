"""The comparison that judges results must itself be seen to judge: each row is a result that is right, or wrong in one way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ggml_rpc_ref.ops.compare import compare, compare_tensors, element_bytes, normalised_error, worst_error
from ggml_rpc_ref.ops.tolerance import EXACT, FLOAT32, Tolerance
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.tensor import Tensor, allocate

NAN, INF = float("nan"), float("inf")


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(1, 1, 1, -1)


RIGHT = [
    ("the-same", (1.5, -2.0), (1.5, -2.0), EXACT),
    ("any-nan", (NAN,), (-NAN,), EXACT),
    ("infinities", (INF, -INF), (INF, -INF), FLOAT32),
    ("within-rtol", (1000.0,), (1000.009,), FLOAT32),
    ("within-atol", (0.0,), (9e-7,), FLOAT32),
    ("zeros-of-either-sign", (0.0,), (-0.0,), FLOAT32),
    ("one-off-but-small-in-the-mean", (100.0, 100.0, 1e-3), (100.0, 100.0, 1e-3 + 1e-4), FLOAT32),
    ("only-the-mean-counts", (1.0, 2.0), (1.001, 2.0), Tolerance(nmse=1e-6)),
]

WRONG = [
    ("one-bit", "bytes", (1.0,), (1.0000001,), EXACT, (0, 0, 0, 0)),
    ("sign-of-zero", "bytes", (1.0, 0.0), (1.0, -0.0), EXACT, (1, 0, 0, 0)),
    ("nan-for-a-number", "class", (1.0, 2.0), (1.0, NAN), FLOAT32, (1, 0, 0, 0)),
    ("a-number-for-nan", "class", (NAN,), (0.0,), FLOAT32, (0, 0, 0, 0)),
    ("a-large-number-for-infinity", "class", (INF,), (3e38,), FLOAT32, (0, 0, 0, 0)),
    ("the-other-infinity", "class", (INF,), (-INF,), FLOAT32, (0, 0, 0, 0)),
    ("beyond-rtol", "value", (1000.0, 1.0), (1000.1, 1.0), FLOAT32, (0, 0, 0, 0)),
    ("worst-is-named", "value", (1.0, 1.0, 1.0), (1.1, 1.5, 1.2), FLOAT32, (1, 0, 0, 0)),
    ("too-far-in-the-mean", "value", (1.0, 2.0), (1.01, 2.0), Tolerance(nmse=1e-6), (0, 0, 0, 0)),
]


@pytest.mark.parametrize(("expected", "actual", "tolerance"), [row[1:] for row in RIGHT], ids=[row[0] for row in RIGHT])
def test_right(expected: tuple[float, ...], actual: tuple[float, ...], tolerance: Tolerance) -> None:
    assert compare(array(*expected), array(*actual), tolerance) is None


@pytest.mark.parametrize(
    ("kind", "expected", "actual", "tolerance", "index"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_wrong(
    kind: str, expected: tuple[float, ...], actual: tuple[float, ...], tolerance: Tolerance, index: tuple[int, ...]
) -> None:
    mismatch = compare(array(*expected), array(*actual), tolerance)
    assert mismatch is not None
    assert (mismatch.kind, mismatch.index) == (kind, index)


def test_integers_are_never_near() -> None:
    large = np.array([2**62], np.int64).reshape(1, 1, 1, 1)
    assert compare(large, large + 1, FLOAT32) is not None
    assert compare(large, large.copy(), FLOAT32) is None


def test_the_index_is_in_ne_order() -> None:
    expected = np.zeros((2, 3, 4, 5), np.float32)
    actual = expected.copy()
    actual[1, 2, 3, 4] = 1
    mismatch = compare(expected, actual, FLOAT32)
    assert mismatch is not None
    assert mismatch.index == (4, 3, 2, 1)
    assert (mismatch.wrong, mismatch.total) == (1, 120)
    assert str(mismatch).startswith("value at [4,3,2,1]: 1.0 instead of 0.0; 1 of 120 wrong")


def stored(dtype: str, values: np.ndarray) -> Tensor:
    tensor = allocate(BY_NAME[dtype], (values.size, 1, 1, 1))
    tensor.store(values.reshape(1, 1, 1, -1))
    return tensor


@pytest.mark.parametrize(("dtype", "step", "far"), [("F16", 2.0**-10, 2.0**-8), ("BF16", 2.0**-7, 2.0**-5)])
def test_a_narrow_type_may_round_to_a_neighbour_but_no_further(dtype: str, step: float, far: float) -> None:
    one = stored(dtype, np.ones(1, np.float32))
    assert compare_tensors(one, stored(dtype, np.array([1 + step], np.float32)), FLOAT32) is None
    assert compare_tensors(one, stored(dtype, np.array([1 + step], np.float32)), EXACT) is not None
    assert compare_tensors(one, stored(dtype, np.array([1 + far], np.float32)), FLOAT32) is not None


def test_blocks_are_compared_byte_by_byte_or_by_value() -> None:
    values = np.linspace(-1, 1, 64, dtype=np.float32)
    right, wrong = stored("Q8_0", values), stored("Q8_0", values)
    wrong.array[0, 0, 0, 1, 33] ^= 1
    mismatch = compare_tensors(right, wrong, EXACT)
    assert mismatch is not None
    assert mismatch.index == (1, 0, 0, 0)
    assert str(mismatch) == "byte 33 of block [1,0,0,0]: 0x7e instead of 0x7f; 1 of 2 blocks wrong"
    assert compare_tensors(right, wrong, Tolerance(atol=0.02)) is None
    assert compare_tensors(right, wrong, Tolerance(atol=0.002)) is not None


def test_integers_of_a_tensor_are_not_taken_for_floats() -> None:
    a, b = stored("I32", np.array([16777216])), stored("I32", np.array([16777217]))
    assert compare_tensors(a, b, FLOAT32) is not None


def test_worst_error_is_relative_above_one_and_absolute_below() -> None:
    assert worst_error(stored("F32", array(1000.0, 0.5)), stored("F32", array(1001.0, 0.5))) == pytest.approx(1e-3)
    assert worst_error(stored("F32", array(0.5)), stored("F32", array(0.25))) == pytest.approx(0.25)
    assert worst_error(stored("F32", array(INF, NAN)), stored("F32", array(INF, NAN))) == 0
    assert worst_error(stored("F32", array(INF)), stored("F32", array(1.0))) == INF


def test_normalised_error_does_not_overflow() -> None:
    large = np.full(4, 1e300)
    assert normalised_error(large, large * 1.001) == pytest.approx(1e-6)


def test_element_bytes_leave_out_gaps_and_guards() -> None:
    gaps = allocate(BY_NAME["F16"], (2, 2, 1, 1), (4, 12, 24, 24), guard=3)
    assert element_bytes(gaps).nonzero()[0].tolist() == [3, 4, 7, 8, 15, 16, 19, 20]
    blocks = allocate(BY_NAME["Q4_0"], (32, 2, 1, 1), (18, 20, 40, 40))
    assert (~element_bytes(blocks)).nonzero()[0].tolist() == [18, 19]
    assert element_bytes(replace(blocks, ne=(0, 2, 1, 1))).sum() == 0
