"""The functions that numpy lacks, against the standard library's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ggml_rpc_ref.ops.shared.activations import erf, gelu_erf, gelu_of_f32, silu


def test_erf_keeps_the_shape_and_has_the_tabled_values() -> None:
    """Abramowitz and Stegun, Handbook of Mathematical Functions, table 7.1; more digits by 50-digit arithmetic."""
    x = np.array([[0.5, 1.0], [2.0, -3.0]])[:, ::-1]
    expected = [[0.84270079294971487, 0.52049987781304654], [-0.99997790950300142, 0.99532226501895273]]
    np.testing.assert_allclose(erf(x), expected, rtol=4e-16)


@pytest.mark.parametrize(("x", "expected"), [(math.inf, 1.0), (-math.inf, -1.0), (6.5, 1.0), (-100.0, -1.0), (0.0, 0.0)])
def test_erf_at_the_ends(x: float, expected: float) -> None:
    assert erf(np.array([x]))[0] == expected


def test_erf_of_nan_is_nan_and_of_minus_zero_minus_zero() -> None:
    assert np.isnan(erf(np.array([np.nan]))[0])
    assert np.signbit(erf(np.array([-0.0]))[0])


def test_gelu_of_f32_stops_at_ten() -> None:
    values = np.array([-np.inf, -10.0, -3.0, 10.0, np.inf], np.float32)
    with np.errstate(invalid="ignore"):
        assert gelu_of_f32(values)[[0, 1, 3, 4]].tolist() == [0.0, 0.0, 10.0, np.inf]
    assert gelu_of_f32(values[2:3])[0] < 0


@pytest.mark.parametrize("value", [-3.0, -0.5, 0.0, 0.25, 4.0])
def test_gelu_erf_and_silu_by_their_definitions(value: float) -> None:
    x = np.array([value], np.float32)
    assert gelu_erf(x)[0] == pytest.approx(value / 2 * (1 + math.erf(value / math.sqrt(2))), rel=1e-14, abs=1e-300)
    assert silu(x)[0] == pytest.approx(value / (1 + math.exp(-value)), rel=1e-14, abs=1e-300)
