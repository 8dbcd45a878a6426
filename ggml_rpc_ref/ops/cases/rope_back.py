"""Inputs worth trying on ROPE_BACK."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since
from ggml_rpc_ref.ops.cases.shared.rotation import YARN, Value, rotation, since_imrope
from ggml_rpc_ref.ops.shared.rotation import IMROPE, MROPE, NEOX, NORMAL, VISION


def cases() -> Iterator[Case]:
    """Cases of each mode; interleaved sections came later than the others."""
    yield from since_imrope("ROPE_BACK", _cases())


def _cases() -> Iterator[Case]:
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
    yield rotation("one-factor", Operand("F32", (6, 2, 3)), NORMAL, 2, factors="uniform:0.5:8")
    yield from since("ROPE_BACK.offset", _later())


def _later() -> Iterator[Case]:
    for name, mode in (("normal", NORMAL), ("neox", NEOX)):
        yield rotation(f"{name}-offset", Operand("F32", (80, 3, 5)), mode, 32, {"n_offs": 14})
