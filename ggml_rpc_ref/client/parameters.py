"""The parameters of an op as a caller gives them: by name, enum values by ggml's names, and what may be left out.

Defaults are what ggml's shorter constructors pass on (ggml.c of 3.6.1: ggml_rope, ggml_soft_max, ggml_scale …) or what switches a
part off; enum values are ggml.h's.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ggml_rpc_ref.client.words import suggestion
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.ops.op import Op, Param
from ggml_rpc_ref.spec.messages import MAX_OP_PARAMS

Value = str | int | float | Sequence[int | float]
Params = Mapping[str, Value]
Numbers = Mapping[str, Any]

XIELU = ("alpha_n", "alpha_p", "beta", "eps")
SWIGLU_OAI = ("alpha", "limit")

DEFAULTS: dict[str, dict[str, Any]] = {
    "ACC": {"inplace": 0},
    "ADD_REL_POS": {"inplace": 0},
    "CONV_TRANSPOSE_1D": {"p0": 0, "d0": 1},
    "DSV4_HC_PRE": {"scale": 1.0, "gated": 0},
    "FLASH_ATTN_EXT": {"max_bias": 0.0, "logit_softcap": 0.0, "prec": 0},  # neither slopes nor a bound
    "GATED_DELTA_NET": {"snapshots": 1},
    "GLU": {"swapped": 0, "alpha": 0.0, "limit": 0.0},
    "MUL_MAT": {"prec": 0, "hint": 0},
    "PAD": {"circular": 0},
    # ggml_rope: no sections, no YaRN
    "ROPE": {"n_ctx_orig": 0, "freq_base": 10000.0, "freq_scale": 1.0, "ext_factor": 0.0, "attn_factor": 1.0}
    | {"beta_fast": 0.0, "beta_slow": 0.0, "sections": (0, 0, 0, 0), "n_offs": 0},
    "SCALE": {"bias": 0.0},
    "SET": {"inplace": 0},
    "SOFT_MAX": {"scale": 1.0, "max_bias": 0.0},
    "SSM_SCAN": {"snapshots": 1},
    "UNARY": dict.fromkeys(XIELU, 0.0),
}
DEFAULTS["ROPE_BACK"] = DEFAULTS["ROPE"]
# what a graph builder chooses where ggml's constructor has no default: the usual epsilon of the norms
DEFAULTS |= {op: {"eps": 1e-6} for op in ("NORM", "RMS_NORM", "GROUP_NORM", "L2_NORM")}
"""Op to the parameters that may be left out. Every other one must be given: a silent 0 would make ROPE return its input."""

NEEDED_BY_KIND: dict[tuple[str, str], tuple[str, ...]] = {
    ("UNARY", "XIELU"): XIELU,
    ("GLU", "SWIGLU_OAI"): SWIGLU_OAI,
    ("GLU", "SWIGLU_CLAMP"): ("limit",),
}
"""(op, kind) to parameters that have a meaning, and no default, for this kind alone."""

_ROPE = {"normal": 0, "neox": 2, "mrope": 8, "vision": 24, "imrope": 40}
_POOL = {"max": 0, "avg": 1}
_PREC = {"default": 0, "f32": 10}
ENUMS: dict[tuple[str, str], dict[str, int]] = {
    ("ARGSORT", "order"): {"asc": 0, "desc": 1},
    ("FLASH_ATTN_EXT", "prec"): _PREC,
    ("MUL_MAT", "prec"): _PREC,
    ("POOL_1D", "op"): _POOL,
    ("POOL_2D", "op"): _POOL,
    ("POOL_2D_BACK", "op"): _POOL,
    ("ROPE", "mode"): _ROPE,
    ("ROPE_BACK", "mode"): _ROPE,
    ("TRI", "type"): {"upper_diag": 0, "upper": 1, "lower_diag": 2, "lower": 3},
    ("UPSCALE", "mode"): {"nearest": 0, "bilinear": 1, "bicubic": 2},
}
"""(op, parameter) to ggml.h's names of its values, in lower case and without their prefix; kinds are in `spec.opcodes`."""


def enum(op: Op, param: str) -> dict[str, int]:
    """Return the names of a parameter's values; empty where it is a plain number."""
    if param == "kind":
        return {name.lower(): number for number, name in enumerate(op.kinds)}
    return ENUMS.get((op.name, param), {})


def complete(op: Op, params: Params) -> Numbers:
    """Return every parameter of an op by name, as a number or a tuple of numbers.

    Raises:
        Misuse: for a name that the op does not have, one that is missing, and a value that its slot can't hold.
    """
    known, defaults = [param.name for param in op.params], DEFAULTS.get(op.name, {})
    # what only later versions have is left out where it is what an earlier version does
    params = {name: value for name, value in params.items() if name in known or name not in defaults or value != defaults[name]}
    for name in params:
        if name not in known:
            if name in defaults:
                raise Misuse(
                    f"{op.name} has the parameter {name!r} in later versions only; this server's leaves it at {defaults[name]}"
                )
            raise Misuse(f"{op.name} has no parameter {name!r}{suggestion(str(name), known)}; it has {', '.join(known) or 'none'}")
    given = {name: value for name, value in defaults.items() if name in known}
    given |= {name: _value(op, op.param(name), value) for name, value in params.items()}
    missing = [name for name in known if name not in given] or _needed_by_kind(op, given, params)
    if missing:
        raise Misuse(f"{op.name} needs the parameter{'s' if missing[1:] else ''} {', '.join(missing)}")
    return given


def packed(op: Op, numbers: Numbers) -> bytes:
    """Return the bytes of op_params that hold parameters.

    Raises:
        Misuse: for a number that its slot can't hold.
    """
    try:
        return op.pack(numbers)
    except (OverflowError, ValueError) as error:
        raise Misuse(f"{op.name} can't take these parameters: {error}") from None


def packed_raw(op: str, params: bytes | bytearray | memoryview) -> bytes:
    """Return raw op_params, padded to their size.

    Raises:
        Misuse: for more bytes than there are.
    """
    if len(params) > 4 * MAX_OP_PARAMS:
        raise Misuse(f"{op}: op_params of {len(params)} bytes; a tensor has {4 * MAX_OP_PARAMS}")
    return bytes(params).ljust(4 * MAX_OP_PARAMS, b"\0")


def _needed_by_kind(op: Op, given: Numbers, params: Params) -> list[str]:
    names = op.kinds
    kind = given.get("kind", -1)
    needed = NEEDED_BY_KIND.get((op.name, names[kind]), ()) if 0 <= kind < len(names) else ()
    return [name for name in needed if name not in params]


def _value(op: Op, param: Param, value: Value) -> int | float | tuple[int | float, ...]:
    what = f"{op.name}: {param.name} = {value!r}"
    if isinstance(value, str):
        names = enum(op, param.name)
        if value.lower() not in names:
            many = f"one of {', '.join(names)}{suggestion(value.lower(), names)}" if names else "a number"
            raise Misuse(f"{what}: it must be {many}")
        return names[value.lower()]
    if param.count == 1:
        return _number(param, value, what)
    try:
        entries: list[Any] = list(value)  # type: ignore[arg-type]
    except TypeError:
        entries = []
    if len(entries) != param.count:
        raise Misuse(f"{what}: it must be {param.count} numbers")
    return tuple(_number(param, entry, what) for entry in entries)


def _number(param: Param, value: Any, what: str) -> int | float:
    if param.kind == "f32":
        try:
            number = float(value)
            with np.errstate(over="ignore"):
                overflows = math.isfinite(number) and not np.isfinite(np.float32(number))
        except (TypeError, ValueError, OverflowError):
            raise Misuse(f"{what}: it must be a number") from None
        if isinstance(value, str | bytes) or overflows:
            raise Misuse(f"{what}: it must be a number of F32's range")
        return number
    bits = 64 if param.kind == "i64" else 32
    try:
        whole = operator.index(value)
    except TypeError:
        raise Misuse(f"{what}: it must be a whole number") from None
    if not -(2 ** (bits - 1)) <= whole < 2 ** (bits - 1):
        raise Misuse(f"{what}: it must fit into {bits} bits")
    return whole
