"""What the cases of ROPE and ROPE_BACK share."""

from collections.abc import Iterable, Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since
from ggml_rpc_ref.ops.shared.rotation import IMROPE, MROPE, VISION

Value = int | float | tuple[int | float, ...]

PLAIN: dict[str, Value] = {
    "freq_base": 10000.0, "freq_scale": 1.0, "ext_factor": 0.0, "attn_factor": 1.0, "beta_fast": 32.0, "beta_slow": 1.0,
}  # fmt: skip
"""Parameters of a rotation without YaRN."""

YARN: dict[str, Value] = {"freq_scale": 0.25, "ext_factor": 1.0, "n_ctx_orig": 512}
"""Changes to `PLAIN` that switch YaRN on, blending over pairs 3 to 16 of 32."""


def rotation(
    id: str, x: Operand, mode: int, n_dims: int, params: dict[str, Value] | None = None,
    *, factors: str = "", positions: str = "index:1000", in_place: bool = False,
) -> Case:  # fmt: skip
    """Return a case of rotating x; params differ from `PLAIN`; factors and positions are fills."""
    tokens, axes = x.quad[2], 4 if mode & MROPE else 1
    src = [x, Operand("I32", (tokens * axes,), fill=positions)]
    if factors:
        src.append(Operand("F32", (x.ne[0] // 2 if mode == VISION else n_dims // 2,), fill=factors))
    dst = Operand(x.dtype, x.ne, nb=x.nb if in_place else None, alias="src0" if in_place else "")
    return Case(id, dst, tuple(src), PLAIN | {"mode": mode, "n_dims": n_dims} | (params or {}))


def since_imrope(op: str, cases: Iterable[Case]) -> Iterator[Case]:
    """Yield cases of ROPE or ROPE_BACK, those of interleaved sections as the change that brought them."""
    for case in cases:
        new = case.params["mode"] == IMROPE and not case.since
        yield from since(f"{op}.imrope", [case]) if new else [case]
