"""ROPE_BACK: rotate pairs of elements back, the gradient of ROPE.

    as ROPE, with -sin(angle) in place of sin(angle)

Sources, parameters, types and modes are ROPE's; src0 is the gradient of the result. It undoes ROPE where attn_factor is 1 and
YaRN is off; otherwise the factor s applies once more, as a gradient's must.

Source: ggml_compute_forward_rope_back in ggml-cpu/ops.cpp, ggml_rope_ext_back and ggml_rope_multi_back in ggml.c.
"""

from collections.abc import Iterator

from ggml_rpc_ref.ops.op import Case, Node, Op, Operand
from ggml_rpc_ref.ops.rope import ANGLES, IMROPE, MROPE, NEOX, NORMAL, PARAMS, SOURCES, VISION, YARN, Value, rotate, rotation, shape


def oracle(node: Node) -> None:
    """Rotate backwards."""
    rotate(node, forward=False)


def cases() -> Iterator[Case]:
    """Each mode and type once, YaRN, factors, a partial rotation, in place; ROPE has the fine print."""
    sections: dict[str, Value] = {"sections": (8, 12, 10, 2)}
    modes = {"normal": (NORMAL, 64), "neox": (NEOX, 64), "mrope": (MROPE, 64), "imrope": (IMROPE, 64), "vision": (VISION, 32)}
    for name, (mode, n_dims) in modes.items():
        for dtype in ("F32", "F16"):
            x = Operand(dtype, (64, 2, 5, 2))
            yield rotation(f"{name}-{dtype.lower()}", x, mode, n_dims, sections)
        yield rotation(f"{name}-yarn", Operand("F32", (64, 2, 5)), mode, n_dims, YARN | sections, factors="uniform:0.5:8")
        yield rotation(f"{name}-in-place", Operand("F32", (64, 2, 5)), mode, n_dims, sections, in_place=True)
    yield rotation("partial", Operand("F32", (80, 3, 5), nb=(4, 384, 1280, 8000)), NEOX, 32)


OP = Op(
    name="ROPE_BACK",
    sources=SOURCES,
    types=("F32", "F16"),
    params=PARAMS,
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=ANGLES,
    in_place=True,
)
