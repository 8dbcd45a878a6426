"""Inputs worth trying on ROPE."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since, until
from ggml_rpc_ref.ops.cases.shared.rotation import YARN, Value, rotation, since_imrope
from ggml_rpc_ref.ops.shared.rotation import IMROPE, MROPE, NEOX, NORMAL, VISION


def cases() -> Iterator[Case]:
    """Cases of each mode; interleaved sections came later than the others."""
    yield from since_imrope("ROPE", _cases())


def _cases() -> Iterator[Case]:
    """Every mode with and without YaRN and factors, both types, partial rotation, views, in place, special values."""
    for name, mode in (("normal", NORMAL), ("neox", NEOX)):
        yield from _pair_cases(name, mode)
        yield from _view_cases(name, mode)
    yield from _parameter_cases()
    for name, mode, n_dims in (("mrope", MROPE, 64), ("imrope", IMROPE, 64), ("vision", VISION, 32)):
        yield from _section_cases(name, mode, n_dims)
    wide = Operand("F32", (96, 2, 3))
    yield rotation("mrope-partial", wide, MROPE, 48, {"sections": (8, 8, 8, 0)})
    yield rotation("imrope-partial", wide, IMROPE, 48, {"sections": (9, 8, 7, 0)})
    yield rotation("one-factor", Operand("F32", (6, 2, 3)), NORMAL, 2, factors="uniform:0.5:8")
    yield from since("ROPE.offset", _later())


def _pair_cases(name: str, mode: int) -> Iterator[Case]:
    x = Operand("F32", (64, 2, 5))
    for dtype in ("F32", "F16"):
        yield rotation(f"{name}-{dtype.lower()}", Operand(dtype, (64, 3, 5, 2)), mode, 64)
        yield rotation(f"{name}-partial-{dtype.lower()}", Operand(dtype, (80, 3, 5)), mode, 34)
    yield rotation(f"{name}-two", Operand("F32", (2, 3, 5)), mode, 2)
    # with n_dims = 0 the loop that copies around the offset never ends upstream
    yield from until("ROPE.offset", [rotation(f"{name}-none", Operand("F32", (16, 3, 5)), mode, 0)])
    yield rotation(f"{name}-yarn", x, mode, 64, YARN)
    yield rotation(f"{name}-yarn-half", x, mode, 48, YARN | {"ext_factor": 0.5, "attn_factor": 1.3})
    yield rotation(f"{name}-factors", x, mode, 64, factors="uniform:0.5:8")
    yield rotation(f"{name}-yarn-factors", x, mode, 32, YARN, factors="uniform:0.5:8")
    yield rotation(f"{name}-special", Operand("F32", (32, 2, 4), fill="special"), mode, 32)


def _view_cases(name: str, mode: int) -> Iterator[Case]:
    yield rotation(f"{name}-gaps", Operand("F32", (16, 3, 4, 2), nb=(4, 96, 480, 2048)), mode, 16)
    yield rotation(f"{name}-permuted", Operand("F32", (16, 3, 4, 2), nb=(4, 256, 64, 768)), mode, 16)
    yield rotation(f"{name}-in-place", Operand("F32", (32, 3, 4, 2)), mode, 32, in_place=True)
    yield rotation(f"{name}-in-place-f16", Operand("F16", (32, 3, 4, 2)), mode, 16, in_place=True)


def _parameter_cases() -> Iterator[Case]:
    x = Operand("F32", (64, 2, 4))
    yield rotation("scale-down", x, NORMAL, 64, {"freq_scale": 0.125, "attn_factor": 0.5})
    yield rotation("base-large", x, NEOX, 64, {"freq_base": 1e6}, positions="index:30000")
    yield rotation("positions-negative", x, NEOX, 64, positions="values:-1,-7,-100,0")
    yield rotation("positions-equal", x, NEOX, 64, positions="values:42")
    yield rotation("positions-far", x, NORMAL, 64, positions="values:131071,100000,65536")
    yield rotation("no-tokens", Operand("F32", (64, 2, 0)), NORMAL, 64)
    yield rotation("yarn-betas", x, NEOX, 64, YARN | {"beta_fast": 4.0, "beta_slow": 2.0, "n_ctx_orig": 4096})
    yield rotation("yarn-negative", x, NEOX, 64, YARN | {"ext_factor": -1.0})


def _section_cases(name: str, mode: int, n_dims: int) -> Iterator[Case]:
    x = Operand("F32", (64, 2, 3, 2))
    dealt = {"three": (16, 8, 8, 0), "four": (8, 8, 8, 8), "short": (3, 2, 4, 1), "time": (32, 0, 0, 0), "no-time": (0, 5, 6, 0)}
    for label, sections in dealt.items():
        yield rotation(f"{name}-{label}", x, mode, n_dims, {"sections": sections})
    yield rotation(f"{name}-f16", Operand("F16", x.ne), mode, n_dims, {"sections": (16, 8, 8, 0)})
    yield rotation(f"{name}-yarn", x, mode, n_dims, YARN | {"sections": (16, 8, 8, 0)})
    yield rotation(f"{name}-factors", x, mode, n_dims, {"sections": (8, 8, 4, 4)}, factors="uniform:0.5:8")
    yield rotation(f"{name}-in-place", x, mode, n_dims, {"sections": (8, 8, 8, 8)}, in_place=True)


def _later() -> Iterator[Case]:
    for name, mode in (("normal", NORMAL), ("neox", NEOX), ("mrope", MROPE), ("imrope", IMROPE)):
        sections: dict[str, Value] = {"sections": (8, 4, 4, 0)}
        for dtype in ("F32", "F16"):
            yield rotation(f"{name}-offset-{dtype.lower()}", Operand(dtype, (80, 3, 5)), mode, 32, {"n_offs": 14} | sections)
        yield rotation(f"{name}-offset-to-the-end", Operand("F32", (64, 2, 3)), mode, 32, {"n_offs": 32} | sections, in_place=True)
    yield rotation("offset-yarn-factors", Operand("F32", (64, 2, 5)), NEOX, 48, YARN | {"n_offs": 2}, factors="uniform:0.5:8")
