"""What ROPE and ROPE_BACK share: the angle of each pair of elements, and the rotation by it or back; ROPE has the formulas."""

from __future__ import annotations

import math

import numpy as np

from ggml_rpc_ref.ops.op import Later, Node, Param, Source, before, later
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows, require_dense_rows
from ggml_rpc_ref.ops.shared.slabs import row_blocks
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.tensor import Array, F32Array

NORMAL, NEOX, MROPE, VISION, IMROPE = 0, 2, 8, 24, 40

MODES = (NORMAL, NEOX, MROPE, VISION, IMROPE)


TIME, HEIGHT, WIDTH, EXTRA = range(4)

SOURCES = (
    Source("x", ("F32", "F16"), "ne = (ne0, heads, tokens, batch)"),
    Source("pos", ("I32",), "ne = (tokens), or (4 * tokens) in the sectioned modes"),
    Source("freq_factors", ("F32",), "ne0 at least n_dims/2, divisors of the angles", optional=True),
)

PARAMS = (
    Param("n_dims", "i32", 1, "elements of a row that are rotated, even, 0 to ne0"),
    Param("mode", "i32", 2, "0 normal, 2 neox, 8 mrope, 24 vision, 40 imrope"),
    Param("n_ctx_orig", "i32", 4, "context length of the training, for YaRN"),
    Param("freq_base", "f32", 5, "base of the geometric row of frequencies"),
    Param("freq_scale", "f32", 6, "factor on all angles"),
    Param("ext_factor", "f32", 7, "weight of YaRN's mix; 0: no YaRN"),
    Param("attn_factor", "f32", 8, "factor on the result"),
    Param("beta_fast", "f32", 9, "turns within n_ctx_orig above which angles are not scaled"),
    Param("beta_slow", "f32", 10, "turns within n_ctx_orig below which angles are scaled in full"),
    Param("sections", "i32", 11, "pairs for time, height, width, extra", count=4),
)

OFFSET = Param("n_offs", "i32", 15, "elements of a row before those that are rotated, even; 0 in vision mode")


def with_offset(op: str) -> Later:
    """Return what ROPE or ROPE_BACK is later."""
    return later(f"{op}.offset", reads=(OFFSET,))


def without_imrope(op: str) -> Later:
    """Return what ROPE or ROPE_BACK was before it had interleaved sections."""
    return before(f"{op}.imrope", shape=require_rotation_by_runs)


def require_rotation_by_runs(node: Node) -> None:
    """Refuse what `require_rotation` does, and interleaved sections."""
    node.require(node.i32("mode") != IMROPE, f"mode one of {MODES[:-1]}", node.i32("mode"))
    require_rotation(node)


def offset(node: Node) -> int:
    """Return how many elements of a row come before those that are rotated."""
    return node.i32("n_offs") if node.op.reads("n_offs") else 0


ANGLES = Tolerance(1e-4, 1e-4, 1e-7, "angles in float32: an error of 1e-7 of the angle; another library's powf, cosf, sinf, logf")


def require_rotation(node: Node) -> None:
    """Refuse other dimensions, unknown modes, an odd or too large n_dims, too few positions or factors, sections of no length."""
    x = node.source(0)
    node.require(node.dst.ne == x.ne, f"ne {x.ne} as the source", node.dst.ne)
    node.require(node.dst.dtype == x.dtype, f"type {x.dtype.name} as the source", node.dst.dtype.name)
    require_dense_rows(node, x, node.dst)
    _check_positions(node)
    _check_params(node)


def _check_positions(node: Node) -> None:
    x, positions, factors = node.source(0), node.source(1), node.optional(2)
    axes = 4 if node.i32("mode") & MROPE else 1
    node.require(positions.ne == (axes * x.ne[2], 1, 1, 1), f"{axes} positions per token", positions.ne, at=positions)
    require_contiguous_rows(node, positions)
    if factors is not None:
        pairs = _rotated_pairs(node)
        enough = factors.ne[0] >= pairs and (factors.nelements > 0 or pairs == 0)
        node.require(enough, f"at least {pairs} frequency factors", factors.ne, at=factors)
        require_contiguous_rows(node, factors)


def _check_params(node: Node) -> None:
    ne0, mode, n_dims = node.dst.ne[0], node.i32("mode"), node.i32("n_dims")
    node.require(mode in MODES, f"mode one of {MODES}", mode)
    node.require(0 <= n_dims <= ne0 and n_dims % 2 == 0, f"n_dims even and at most {ne0}", n_dims)
    if mode == VISION:
        node.require(2 * n_dims == ne0, "n_dims half of ne[0] in vision mode", n_dims)
    first, most = offset(node), 0 if mode == VISION else ne0 - n_dims
    node.require(0 <= first <= most and first % 2 == 0, f"n_offs even and at most {most}", first)
    if mode & MROPE:
        sections = node.i32s("sections")
        node.require(min(sections) >= 0 and max(sections[:3]) > 0, "sections of which one of the first three is above 0", sections)
        node.require(sum(sections) <= ne0, f"sections of at most {ne0} together", sections)


def _rotated_pairs(node: Node) -> int:
    return node.dst.ne[0] // 2 if node.i32("mode") == VISION else node.i32("n_dims") // 2


def rotate(node: Node, *, forward: bool) -> None:
    """Rotate each pair by its angle, or back by it (ROPE_BACK)."""
    x, pairs, mode = node.source(0).array, _rotated_pairs(node), node.i32("mode")
    if x.size == 0:
        return
    start, result = offset(node), node.dst.array
    middle, end = start + pairs, start + 2 * pairs
    first, second = (
        (slice(start, end, 2), slice(start + 1, end, 2)) if mode == NORMAL else (slice(start, middle), slice(middle, end))
    )
    with np.errstate(all="ignore"):
        for i3, tokens, heads in row_blocks(node.dst.ne):
            cos, sin = _cos_sin(node, tokens)
            # turning back is turning by the negative angle, whose cosine is the same
            sin = sin if forward else -sin
            block, out = x[i3, tokens, heads], result[i3, tokens, heads]
            # astype copies, so dst may be x's own memory
            a, b = block[..., first].astype(np.float32), block[..., second].astype(np.float32)
            out[..., :start], out[..., end:] = block[..., :start], block[..., end:]
            out[..., first] = a * cos - b * sin
            out[..., second] = a * sin + b * cos


def _cos_sin(node: Node, tokens: slice) -> tuple[F32Array, F32Array]:
    """Return the scaled cosines and sines of some tokens, each of shape (tokens, 1, pairs)."""
    theta, freq_scale, ext_factor = _theta(node, tokens), np.float32(node.f32("freq_scale")), np.float32(node.f32("ext_factor"))
    if (factors := node.optional(2)) is not None and theta.size:
        theta = theta / factors.array[0, 0, 0, : theta.shape[-1]]
    angle: Array = theta * freq_scale
    magnitude = np.float32(node.f32("attn_factor"))
    if ext_factor != 0:
        mix = _ramp(node, theta.shape[-1]) * ext_factor
        angle = angle * (1 - mix) + theta * mix
        magnitude = magnitude * (1 + np.float32(0.1) * np.log(1 / freq_scale))
    cos, sin = np.cos(angle, dtype=np.float64), np.sin(angle, dtype=np.float64)
    return (cos.astype(np.float32) * magnitude)[:, None], (sin.astype(np.float32) * magnitude)[:, None]


def _theta(node: Node, tokens: slice) -> Array:
    """Return position times power of theta_scale for some tokens, shape (tokens, pairs)."""
    pairs, n_dims = _rotated_pairs(node), node.i32("n_dims")
    positions = node.source(1).array[0, 0, 0].reshape(-1, node.source(0).ne[2])[:, tokens].astype(np.float32)
    if pairs == 0:
        return np.zeros((positions.shape[1], 0), np.float32)
    powers = np.full((*positions.shape, pairs), _power(node.f32("freq_base"), np.float32(-2.0) / np.float32(n_dims)), np.float32)
    powers[..., 0] = positions
    thetas: Array = np.multiply.accumulate(powers, axis=-1)  # one rounding per step, as upstream's loop has
    if len(positions) == 1:
        return np.asarray(thetas[0])
    axis, exponent = _deal(node, pairs)
    dealt: Array = thetas[axis, :, exponent].T
    return dealt


def _power(base: float, exponent: np.float32) -> np.float32:
    power: np.float32 = np.power(np.float64(base), np.float64(exponent)).astype(np.float32)
    return power


def _deal(node: Node, pairs: int) -> tuple[Array, Array]:
    """Return, per pair, the axis whose position it uses and the exponent of theta_scale (the sectioned modes)."""
    sections, mode = node.i32s("sections"), node.i32("mode")
    pair = np.arange(pairs)
    place = pair % sum(sections)
    axis = _interleaved_axis(place, sections) if mode == IMROPE else _axis_by_runs(place, sections)
    return axis, _exponents(pair, place, sections)[axis, pair] if mode == VISION else pair


def _axis_by_runs(place: Array, sections: tuple[int, ...]) -> Array:
    """Return the axis of each place: time's section, then height's and width's; extra takes the rest."""
    return np.searchsorted(np.cumsum(sections[:3]), place, side="right")


def _interleaved_axis(place: Array, sections: tuple[int, ...]) -> Array:
    """Return the axis of each place: time, height and width in turn, each up to its section's length; extra takes the rest."""
    turn = place % 3
    return np.where(place < 3 * np.array(sections)[turn], turn, EXTRA)


def _exponents(pair: Array, place: Array, sections: tuple[int, ...]) -> Array:
    """Return (axis, pair) exponents that restart where the axis' section begins.

    Where several sections begin at one place (one of them is empty), only the first of the axes restarts.
    """
    begins = np.concatenate(([0], np.cumsum(sections[:3])))
    started = np.zeros((4, len(pair)), int)
    for axis, begin in enumerate(begins):
        # ggml_mrope_cache_init (ops.cpp) tests the sections' beginnings in one chain of else if
        if begin not in begins[:axis]:
            started[axis] = np.where(place == begin, pair, 0)
    return pair - np.maximum.accumulate(started, axis=-1)


def _ramp(node: Node, pairs: int) -> Array:
    """Return, per pair, how much of the unscaled angle YaRN mixes in."""
    low, high = _correction_dims(node)
    y = (np.arange(pairs, dtype=np.float32) - low) / np.maximum(np.float32(0.001), high - low)
    ramp: Array = 1 - np.clip(y, np.float32(0), np.float32(1))
    return ramp


def _correction_dims(node: Node) -> tuple[np.float32, np.float32]:
    """Return the pair numbers between which YaRN blends; all in float32, since a last digit can decide the rounding up and down."""
    n_dims, base = node.i32("n_dims"), np.float32(node.f32("freq_base"))

    def dimension(beta: float) -> np.float32:
        turns = np.float32(node.i32("n_ctx_orig")) / (np.float32(beta) * np.float32(2) * np.float32(math.pi))
        return np.float32(np.float32(n_dims) * np.log(turns) / (np.float32(2) * np.log(base)))

    low = np.maximum(np.float32(0), np.floor(dimension(node.f32("beta_fast"))))
    high = np.minimum(np.float32(n_dims - 1), np.ceil(dimension(node.f32("beta_slow"))))
    return low, high
