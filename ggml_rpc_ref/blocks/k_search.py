"""The searches by which the K quantisers choose a scale (and a minimum) for one sub-block.

All sub-blocks are searched side by side: x has the shape (elements, sub-blocks), what a search decides per sub-block is a
row of flags. The arithmetic and its order are upstream's, so that the winner of every comparison is the same one.

Sources: make_qx_quants, make_q3_quants and make_qkx2_quants in ggml-quants.c.
"""

from __future__ import annotations

import numpy as np

from ggml_rpc_ref.blocks.common import (
    SMALLEST_MAGNITUDE,
    Ints,
    Values,
    f32,
    largest_magnitude,
    nearest_int,
    ordered_sum,
    smallest_and_largest,
)


def search_symmetric(x: Values, limit: int) -> tuple[Values, Ints]:
    """Choose a scale for levels -limit ... limit - 1, for Q6_K (make_qx_quants with weights x * x).

    Starts from the scale that maps the largest magnitude to -limit and tries 18 others around it; the best fit is the one
    with the greatest (sum of w x q)**2 / (sum of w q**2).

    Returns:
        The scale of each sub-block, and the levels plus limit, shape as x. All-zero sub-blocks have scale 0, levels 0.
    """
    magnitude, largest = largest_magnitude(x)
    weights = x * x
    levels, sum_xq, sum_qq = fit(x, weights, f32(-limit) / largest, limit)
    scale = np.where(sum_qq != 0, sum_xq / sum_qq, f32(0))
    best = scale * sum_xq
    # float32 throughout: 0.1f * 9 is not 0.9 rounded to float32
    for step in [*range(-9, 0), *range(1, 10)]:
        trial, sum_xq, sum_qq = fit(x, weights, -(f32(limit) + f32(0.1) * f32(step)) / largest, limit)
        better = (sum_qq > 0) & (sum_xq * sum_xq > best * sum_qq)
        levels = np.where(better, trial, levels)
        scale = np.where(better, sum_xq / sum_qq, scale)
        best = np.where(better, scale * sum_xq, best)
    zero = magnitude < SMALLEST_MAGNITUDE
    return np.where(zero, f32(0), scale), np.where(zero, 0, levels + limit)


def fit(x: Values, weights: Values, inverse_scale: Values, limit: int) -> tuple[Ints, Values, Values]:
    """Return the levels for a scale, the sum of weight x level and the sum of weight level**2."""
    levels = np.clip(nearest_int(inverse_scale * x), -limit, limit - 1)
    q = levels.astype(f32)
    # (w * x) * q, as make_qx_quants has it: float products round by their order, and `iq.fit_iq4` has the other one
    return levels, ordered_sum(weights * x * q), ordered_sum(weights * q * q)


def search_q3(x: Values) -> tuple[Values, Ints]:
    """Choose a scale for levels -4 ... 3, for Q3_K (make_q3_quants).

    Starts as `search_symmetric`, then goes over the elements up to five times and moves each to the level that the others'
    scale suggests, if that improves the fit.

    Returns:
        The scale of each sub-block, and the levels plus 4, shape as x. All-zero sub-blocks have scale 0, levels 0.
    """
    magnitude, largest = largest_magnitude(x)
    weights = x * x
    levels, sum_xq, sum_qq = fit(x, weights, f32(-4) / largest, 4)
    # upstream stops after a round that moves nothing; a further round then moves nothing either
    for _ in range(5):
        # `level` is a view of its row, and `improve` writes into it
        for row, w, level in zip(x, weights, levels, strict=True):
            sum_xq, sum_qq = improve(row, w, level, sum_xq, sum_qq)
    scale = np.where(sum_qq > 0, sum_xq / sum_qq, f32(0))
    zero = magnitude < SMALLEST_MAGNITUDE
    return np.where(zero, f32(0), scale), np.where(zero, 0, levels + 4)


def improve(x: Values, w: Values, level: Ints, sum_xq: Values, sum_qq: Values) -> tuple[Values, Values]:
    """Move one element of each sub-block to a better level, in place; return the sums that belong to it."""
    q = level.astype(f32)
    others_xq, others_qq = sum_xq - w * x * q, sum_qq - w * q * q
    suggested: Values = np.divide(x * others_qq, others_xq)
    moved = np.clip(nearest_int(suggested), -4, 3)
    p = moved.astype(f32)
    new_xq, new_qq = others_xq + w * x * p, others_qq + w * p * p
    better = (others_xq > 0) & (moved != level) & (new_qq > 0)
    better &= new_xq * new_xq * sum_qq > sum_xq * sum_xq * new_qq
    np.copyto(level, moved, where=better)
    return np.where(better, new_xq, sum_xq), np.where(better, new_qq, sum_qq)


def search_with_minimum(
    x: Values, weights: Values, limit: int, first: float, step: float, steps: int, *, absolute: bool
) -> tuple[Values, Values, Ints]:
    """Choose a scale and a minimum for levels 0 ... limit, for Q2_K, Q4_K and Q5_K (make_qkx2_quants).

    Starts from the range of the sub-block divided by limit, then tries the range divided by limit + first + step * i for
    i = 0 ... steps. Each fixes the levels, from which a weighted least-squares fit gives scale and minimum. The least sum of
    weighted errors wins: of absolute errors if `absolute`, else of squares.

    Returns:
        The scale, the negated minimum (0 or more) and the levels.
    """
    # from the first element on, as upstream: a NaN there stays, one further on is passed over
    low, high = smallest_and_largest(x[1:], x[0], x[0])
    low = np.where(low > 0, f32(0), low)
    sum_w, sum_x = ordered_sum(weights), ordered_sum(weights * x)

    def levels_for(numerator: f32, minimum: Values) -> Ints:
        return np.clip(nearest_int(numerator / (high - minimum) * (x - minimum)), 0, limit)

    def error(levels: Ints, scale: Values, minimum: Values) -> Values:
        difference = scale * levels.astype(f32) + minimum - x
        return ordered_sum(weights * (np.abs(difference) if absolute else difference * difference))

    # upstream's 1 / iscale: it rounds twice where (high - low) / limit would round once
    scale, minimum = f32(1) / (f32(limit) / (high - low)), low
    levels = levels_for(f32(limit), minimum)
    best = error(levels, scale, minimum)
    for i in range(steps + 1):
        # from the best minimum so far, not from the lowest element: upstream reuses the variable
        trial = levels_for(f32(first) + f32(step) * f32(i) + f32(limit), minimum)
        trial_scale, trial_minimum, solvable = least_squares(x, weights, trial.astype(f32), sum_w, sum_x)
        trial_error = error(trial, trial_scale, trial_minimum)
        better = solvable & (trial_error < best)
        best = np.where(better, trial_error, best)
        scale, minimum = np.where(better, trial_scale, scale), np.where(better, trial_minimum, minimum)
        levels = np.where(better, trial, levels)
    # Upstream returns early for equal elements, with levels and scale 0: here a span of 0 leads to the same.
    return scale, -minimum, levels


def least_squares(
    x: Values, weights: Values, q: Values, sum_w: Values, sum_x: Values
) -> tuple[Values, Values, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    """Return the scale and the minimum (at most 0) that fit x best for given levels, and where there is a solution."""
    weighted = weights * q
    sum_q, sum_qq, sum_qx = ordered_sum(weighted), ordered_sum(weighted * q), ordered_sum(weighted * x)
    determinant = sum_w * sum_qq - sum_q * sum_q
    scale = (sum_w * sum_qx - sum_x * sum_q) / determinant
    minimum = (sum_qq * sum_x - sum_q * sum_qx) / determinant
    above = minimum > 0
    return np.where(above, sum_qx / sum_qq, scale), np.where(above, f32(0), minimum), determinant > 0
