"""ROPE: rotate pairs of elements by angles that grow with the position (rotary position embedding).

For token t of dimension 2 (position p = pos[t]) and pair number j:

    theta = p * theta_scale^j / freq_factors[j],   theta_scale = freq_base^(-2 / n_dims)
    angle = freq_scale * theta                                                    where ext_factor = 0, else (YaRN)
    angle = freq_scale * theta * (1 - mix) + theta * mix,   mix = ext_factor * ramp(j)
    dst[a] = x[a] cos(angle) * s - x[b] sin(angle) * s
    dst[b] = x[a] sin(angle) * s + x[b] cos(angle) * s,   s = attn_factor, times 1 + 0.1 ln(1 / freq_scale) under YaRN

ramp(j) = 1 - (j - low) / max(0.001, high - low), clamped to [0, 1], falls from 1 to 0 between two pair numbers: low =
floor(c(beta_fast)), at least 0, and high = ceil(c(beta_slow)), at most n_dims - 1, with c(beta) = n_dims * ln(n_ctx_orig /
(2 pi beta)) / (2 ln(freq_base)).

mode says which elements form pair j and which position it uses:
    0 normal: (2j, 2j + 1).   2 neox: (j, j + n_dims/2).
    8 mrope, 40 imrope: as neox, but pos holds four positions per token (time, height, width, extra: pos[t + axis * tokens]) and
    `sections` assigns the pairs to the four. With S = their sum and q = j mod S: mrope gives each axis a run of q of its
    section's length; imrope gives q to time, height, width in turn (q mod 3) while q < 3 * that section, the rest to extra.
    24 vision: the pairs are (j, j + n_dims) for j < n_dims = ne0/2, assigned as in mrope, and the powers of theta_scale restart
    where an axis' section begins; where several begin at one q (one is empty), only the first of these axes restarts.
Elements from n_dims on are copied (none in vision mode). In the sectioned modes one of the first three sections is above 0, none
below, and their sum at most ne0.

src0: F32 or F16, ne = (ne0, heads, tokens, batch), dense rows. src1: I32 positions, ne = (tokens) or (4 * tokens). src2
(optional): F32 freq_factors, ne0 at least n_dims/2. dst: src0's type and ne; may be src0's own memory. The angles are computed
in float32 and by repeated multiplication, as upstream does: at large positions that determines the result, so it is part of the
definition. A NaN or an infinity stays within its pair. Negative positions rotate the other way.

Source: ggml_compute_forward_rope_flt, ggml_rope_cache_init, ggml_mrope_cache_init, rope_yarn in ggml-cpu/ops.cpp;
ggml_rope_impl, ggml_rope_yarn_corr_dims in ggml.c.
"""

from ggml_rpc_ref.ops.op import Node, Op
from ggml_rpc_ref.ops.shared.rotation import ANGLES, PARAMS, SOURCES, require_rotation, rotate, with_offset, without_imrope


def oracle(node: Node) -> None:
    """Rotate forwards."""
    rotate(node, forward=True)


OP = Op(
    name="ROPE",
    sources=SOURCES,
    types=("F32", "F16"),
    params=PARAMS,
    shape=require_rotation,
    oracle=oracle,
    tolerance=ANGLES,
    in_place=(0,),
    later=(with_offset("ROPE"),),
    earlier=(without_imrope("ROPE"),),
)
