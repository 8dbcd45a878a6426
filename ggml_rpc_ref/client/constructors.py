"""What ggml's constructors make of a node of an op: dimensions and type of the result.

The rows of `ops` say which nodes have a meaning; which one ``ggml_mul_mat(ctx, a, b)`` makes only ggml.c knows. Each entry here is
what the constructor of that name does (ggml.c of 3.6.1); ops that are not named in `RESULTS` make a result of the type and
dimensions of their first source.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ggml_rpc_ref.client.parameters import Numbers
from ggml_rpc_ref.spec.dtypes import DType
from ggml_rpc_ref.tensor import Quad


class Operand(Protocol):
    """A source, as far as the result depends on it."""

    @property
    def dtype(self) -> DType:
        """Its type."""

    @property
    def ne(self) -> Quad:
        """Its dimensions."""

    @property
    def nb(self) -> Quad:
        """Its strides."""

    @property
    def ndim(self) -> int:
        """How many of the dimensions its user sees."""


Operands = Sequence[Any]
"""Sources by slot; None where a slot is empty. They are `Operand`s, but an op's row says which are there, not the type."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a constructor makes.

    Attributes:
        ne: dimensions; as many as its user sees.
        dtype: name of its type.
        view_of: the source slot whose memory it shares; None: memory of its own.
    """

    ne: tuple[int, ...]
    dtype: str
    view_of: int | None = None


def _seen(ne: Sequence[int], *sources: Operand) -> tuple[int, ...]:
    """Cut trailing dimensions of length 1 that none of the sources shows."""
    used = max((place + 1 for place, length in enumerate(ne) if length != 1), default=0)
    return tuple(ne[: max(used, *(source.ndim for source in sources))])


def _as(slot: int, *, view: bool = False, dtype: str = "") -> Callable[[Operands, Numbers], Result]:
    """Return the constructor of a result like one source."""

    def make(src: Operands, _: Numbers) -> Result:
        source = src[slot]
        return Result(source.ne[: source.ndim], dtype or source.dtype.name, slot if view else None)

    return make


def _region(src: Operands, params: Numbers) -> Result:
    """The result of ACC, SET and ADD_REL_POS: a's memory where it is updated in place."""
    return Result(src[0].ne[: src[0].ndim], src[0].dtype.name, 0 if params["inplace"] else None)


def _mul_mat(src: Operands, _: Numbers) -> Result:
    a, b = src[:2]
    return Result((a.ne[1], *b.ne[1:])[: max(a.ndim, b.ndim, 2)], "F32")


def _out_prod(src: Operands, _: Numbers) -> Result:
    a, b = src[:2]
    return Result((a.ne[0], b.ne[0], *b.ne[2:])[: max(a.ndim, b.ndim, 2)], "F32")


def _get_rows(src: Operands, _: Numbers) -> Result:
    table, indices = src[:2]
    ne = (table.ne[0], *indices.ne[:3])[: max(2, 1 + indices.ndim)]
    # ggml_get_rows: I32 stays I32, every other type becomes F32
    return Result(ne, "I32" if table.dtype.name == "I32" else "F32")


def _set_rows(src: Operands, params: Numbers) -> Result | None:
    return _as(2, view=True)(src, params) if len(src) > 2 else None


def _concat(src: Operands, params: Numbers) -> Result:
    a, b = src[:2]
    ne, dim = list(a.ne), params["dim"]
    if 0 <= dim < 4:  # the shape rule refuses others
        ne[dim] += b.ne[dim]
    return Result(_seen(ne, a, b), a.dtype.name)


def _glu(src: Operands, _: Numbers) -> Result:
    x = src[0]
    n = x.ne[0] if len(src) > 1 and src[1] is not None else x.ne[0] // 2
    return Result((n, *x.ne[1:])[: max(x.ndim, 1)], x.dtype.name)


def _rows(ne0: int, x: Operand, dtype: str = "F32") -> Result:
    return Result((ne0, *x.ne[1:])[: max(x.ndim, 1)], dtype)


def _windows(size: int, kernel: int, params: Numbers, axis: int) -> int:
    """How many windows fit along an axis (ggml_calc_conv_output_size); at least 0."""
    room = size + 2 * int(params[f"p{axis}"]) - int(params[f"d{axis}"]) * (kernel - 1) - 1
    # a stride of 0 is refused by the op's rule later; here it must not divide
    return max(0, room // max(1, int(params[f"s{axis}"])) + 1)


def _conv_2d(src: Operands, params: Numbers) -> Result:
    kernel, images = src[:2]
    across, down = (_windows(images.ne[axis], kernel.ne[axis], params, axis) for axis in (0, 1))
    return Result(_seen((across, down, kernel.ne[3], images.ne[3]), images), "F32")


def _conv_2d_dw(src: Operands, params: Numbers) -> Result:
    kernel, images = src[:2]
    across, down = (_windows(images.ne[axis], kernel.ne[axis], params, axis) for axis in (0, 1))
    return Result(_seen((across, down, *images.ne[2:]), images), "F32")


def _conv_3d(src: Operands, params: Numbers) -> Result:
    kernel, volumes = src[:2]
    sizes = [_windows(volumes.ne[axis], kernel.ne[axis], params, axis) for axis in (0, 1, 2)]
    return Result((*sizes, max(0, params["oc"] * params["n"])), "F32")


def _conv_transpose_1d(src: Operands, params: Numbers) -> Result:
    kernel, x = src[:2]
    return Result(((x.ne[0] - 1) * params["s0"] + kernel.ne[0], kernel.ne[1]), "F32")


def _conv_transpose_2d(src: Operands, params: Numbers) -> Result:
    kernel, images = src[:2]
    across, down = ((images.ne[axis] - 1) * params["stride"] + kernel.ne[axis] for axis in (0, 1))
    return Result(_seen((across, down, kernel.ne[2], images.ne[3]), images), "F32")


def _im2col(src: Operands, params: Numbers) -> Result:
    kernel, image = src[:2]
    dtype = "F16" if image.dtype.name == "F16" else "F32"
    across = _windows(image.ne[0], kernel.ne[0], params, 0)
    if params["is_2D"] != 1:
        return Result((kernel.ne[0] * kernel.ne[1], across, image.ne[2]), dtype)
    down = _windows(image.ne[1], kernel.ne[1], params, 1)
    return Result((kernel.ne[0] * kernel.ne[1] * kernel.ne[2], across, down, image.ne[3]), dtype)


def _im2col_3d(src: Operands, params: Numbers) -> Result:
    kernel, volumes = src[:2]
    across, down, deep = (_windows(volumes.ne[axis], kernel.ne[axis], params, axis) for axis in (0, 1, 2))
    channels = params["IC"]
    taps = kernel.ne[0] * kernel.ne[1] * kernel.ne[2] * max(0, channels)
    return Result((taps, across, down, deep * (volumes.ne[3] // max(1, channels))), "F32")


def _pooled(size: int, params: Numbers, axis: int) -> int:
    """How many windows fit (ggml_calc_pool_output_size); at least 0."""
    padding, length, stride = (int(params[f"{name}{axis}"]) for name in "pks")
    return max(0, (size + 2 * padding - length) // max(1, stride) + 1)


def _pool_1d(src: Operands, params: Numbers) -> Result:
    return _rows(_pooled(src[0].ne[0], params, 0), src[0])


def _pool_2d(src: Operands, params: Numbers) -> Result:
    x = src[0]
    return Result((*(_pooled(x.ne[axis], params, axis) for axis in (0, 1)), *x.ne[2:])[: max(2, x.ndim)], "F32")


def _pad(src: Operands, params: Numbers) -> Result:
    before, after = params["padding"][0::2], params["padding"][1::2]
    ne = [max(0, n + left + right) for n, left, right in zip(src[0].ne, before, after, strict=True)]
    return Result(_seen(ne, src[0]), "F32")


def _pad_reflect_1d(src: Operands, params: Numbers) -> Result:
    return _rows(max(0, src[0].ne[0] + params["p0"] + params["p1"]), src[0])


def _arange(_: Operands, params: Numbers) -> Result:
    # float32 throughout, as ceilf in ggml_arange: in double precision the count may be another
    start, stop, step = (np.float32(params[name]) for name in ("start", "stop", "step"))
    with np.errstate(all="ignore"):
        count = np.ceil((stop - start) / step)
    return Result((int(count) if np.isfinite(count) and count > 0 else 0,), "F32")


def _flash_attn_ext(src: Operands, _: Numbers) -> Result:
    q, v = src[0], src[2]
    return Result(_seen((v.ne[0], q.ne[2], q.ne[1], q.ne[3]), q), "F32")


def _flash_attn_back(src: Operands, _: Numbers) -> Result:
    # each gradient is padded to 16 bytes (GGML_MEM_ALIGN)
    return Result((sum(-(-4 * math.prod(t.ne) // 16) * 4 for t in src[:3]),), "F32")


def _diag(src: Operands, _: Numbers) -> Result:
    n, _one, b2, b3 = src[0].ne
    return Result((n, n, b2, b3)[: max(2, src[0].ndim)], "F32")


def _recurrence(state: int) -> Callable[[Operands, Numbers], Result]:
    def make(src: Operands, _: Numbers) -> Result:
        size, heads, tokens = src[0].ne[:3]
        return Result((size * heads, tokens + size * src[state].ne[1]), "F32")

    return make


def _gated_delta_net(src: Operands, params: Numbers) -> Result:
    size, heads, tokens, sequences = src[2].ne
    state = src[5].ne
    slots = state[1] if state[0] == size * size * heads and state[2] == sequences else 1
    return Result((size * heads, (tokens + size * params.get("snapshots", slots)) * sequences), "F32")


def _ssm_conv(src: Operands, _: Numbers) -> Result:
    x, kernel = src[:2]
    return Result((x.ne[1], max(0, x.ne[0] - kernel.ne[0] + 1), x.ne[2]), "F32")


def _ssm_scan(src: Operands, params: Numbers) -> Result:
    state, x, ids = src[0], src[1], src[6]
    return Result((math.prod(x.ne) + params.get("snapshots", 1) * math.prod(state.ne[:3]) * ids.ne[0],), "F32")


def _col2im_1d(src: Operands, params: Numbers) -> Result:
    x, channels = src[0], params["oc"]
    taps = x.ne[0] // channels if channels > 0 else 0  # the shape rule refuses none
    return Result((max(0, (x.ne[1] - 1) * params["s0"] + taps - 2 * params["p0"]), max(0, channels)), x.dtype.name)


def _lightning_indexer(src: Operands, _: Numbers) -> Result:
    q, k = src[:2]
    return Result((k.ne[2], q.ne[2], 1, q.ne[3])[: 4 if q.ne[3] != 1 else 2], "F32")


def _win_part(src: Operands, params: Numbers) -> Result:
    return Result((src[0].ne[0], *(max(0, n) for n in (params["w"], params["w"], params["npx"] * params["npy"]))), "F32")


def _get_rel_pos(src: Operands, _: Numbers) -> Result:
    n = (src[0].ne[1] + 1) // 2
    return Result((src[0].ne[0], n, n), "F16")


RESULTS: dict[str, Callable[[Operands, Numbers], Result | None]] = {
    "ACC": _region,
    "ADD_REL_POS": _region,
    "ARANGE": _arange,
    "ARGMAX": lambda src, _: Result((src[0].ne[1],), "I32"),
    "ARGSORT": _as(0, dtype="I32"),
    "COL2IM_1D": _col2im_1d,
    "CONCAT": _concat,
    "CONV_2D": _conv_2d,
    "CONV_2D_DW": _conv_2d_dw,
    "CONV_3D": _conv_3d,
    "CONV_TRANSPOSE_1D": _conv_transpose_1d,
    "CONV_TRANSPOSE_2D": _conv_transpose_2d,
    "COUNT_EQUAL": lambda *_: Result((1,), "I64"),
    "CPY": _as(1, view=True),
    "CROSS_ENTROPY_LOSS": lambda *_: Result((1,), "F32"),
    "CROSS_ENTROPY_LOSS_BACK": _as(1),
    "DIAG": _diag,
    "DSV4_HC_COMB": lambda src, _: Result((4, 4, src[0].ne[1]), "F32"),
    "DSV4_HC_POST": _as(1),
    "DSV4_HC_PRE": lambda src, _: Result((src[0].ne[0], src[0].ne[2]), "F32"),
    "FLASH_ATTN_BACK": _flash_attn_back,
    "FLASH_ATTN_EXT": _flash_attn_ext,
    "GATED_DELTA_NET": _gated_delta_net,
    "GATED_LINEAR_ATTN": _recurrence(4),
    "GET_REL_POS": _get_rel_pos,
    "GET_ROWS": _get_rows,
    "GLU": _glu,
    "IM2COL": _im2col,
    "IM2COL_3D": _im2col_3d,
    "LIGHTNING_INDEXER": _lightning_indexer,
    "MEAN": lambda src, _: _rows(1, src[0]),
    "MUL_MAT": _mul_mat,
    "MUL_MAT_ID": lambda src, _: Result((src[0].ne[1], *src[2].ne[:2]), "F32"),
    "OPT_STEP_ADAMW": _as(0, view=True),
    "OPT_STEP_SGD": _as(0, view=True),
    "OUT_PROD": _out_prod,
    "PAD": _pad,
    "PAD_REFLECT_1D": _pad_reflect_1d,
    "POOL_1D": _pool_1d,
    "POOL_2D": _pool_2d,
    "POOL_2D_BACK": _as(1),
    "RWKV_WKV6": _recurrence(5),
    "RWKV_WKV7": _recurrence(6),
    "SET": _region,
    "SET_ROWS": _set_rows,
    "SOLVE_TRI": _as(1),
    "SSM_CONV": _ssm_conv,
    "SSM_SCAN": _ssm_scan,
    "SUM": lambda src, _: Result((1,), src[0].dtype.name),
    "SUM_ROWS": lambda src, _: _rows(1, src[0]),
    "TIMESTEP_EMBEDDING": lambda src, params: Result((max(0, params["dim"]), src[0].ne[0]), "F32"),
    "WIN_PART": _win_part,
}
"""Op to what its constructor makes of sources and parameters."""

VIEWS = {"RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE"}
NE_GIVEN = frozenset({"GET_ROWS_BACK", "IM2COL_BACK", "REPEAT", "REPEAT_BACK", "TOP_K", "UPSCALE", "WIN_UNPART", *VIEWS})
"""Ops whose dimensions neither sources nor parameters tell: they must be given."""


def result(op: str, src: Operands, params: Numbers) -> Result | None:
    """Return what the constructor of an op makes; None where sources and parameters do not tell.

    Args:
        op: its name.
        src: its sources; those that the op needs are there.
        params: all its parameters.
    """
    if op in NE_GIVEN:
        return None
    if op in RESULTS:
        return RESULTS[op](src, params)
    first = next((source for source in src if source is not None), None)
    return None if first is None else Result(first.ne[: first.ndim], first.dtype.name)
