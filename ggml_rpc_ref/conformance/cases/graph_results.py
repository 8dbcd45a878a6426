"""What graphs compute, once and again, and nodes that their op does not allow. Every expected number was worked out by hand."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from ggml_rpc_ref.conformance import marks
from ggml_rpc_ref.conformance.arena import ROUNDED, Arena
from ggml_rpc_ref.conformance.case import case
from ggml_rpc_ref.conformance.peer import Subject
from ggml_rpc_ref.conformance.verdict import Broken, NotJudged
from ggml_rpc_ref.spec.messages import GraphRecompute, RpcTensor
from ggml_rpc_ref.spec.opcodes import GLU_OPS, UNARY_OPS, kinds
from ggml_rpc_ref.spec.versions import Version


class Source(NamedTuple):
    """A source of a node: its dimensions, its values and its type."""

    ne: Sequence[int]
    values: Sequence[float] | bytes
    type: str = "F32"


class Sum(NamedTuple):
    """A node to compute, and the numbers that it must then hold.

    Attributes:
        op: name of the ggml_op.
        src: its sources.
        ne: its dimensions.
        result: its elements.
        tolerance: how far each may be off, as a part of it (of 1 where it is smaller).
        params: op_params.
        type: its ggml_type.
        change: id of the change that brought this meaning of the op; "": it always had it.
    """

    op: str
    src: Sequence[Source | None]
    ne: Sequence[int]
    result: Sequence[float]
    tolerance: float = 0.0
    params: bytes = b""
    type: str = "F32"
    change: str = ""


def since(sum: Sum) -> Version:
    """Return the first version that has a node's op with this meaning, and of UNARY and GLU its kind."""
    if sum.change:
        return marks.change_since(sum.change)
    names = kinds(sum.op)
    number = struct.unpack_from("<i", sum.params)[0] if names else -1
    return marks.kind_since(sum.op, names[number]) if 0 <= number < len(names) else marks.op_since(sum.op)


def _f32(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def _i32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


ONE_TO_4 = Source([4], [1, 2, 3, 4])
ROPE_PARAMS = _i32(0, 2, 0, 0, 0) + _f32(10000, 1, 0, 1, 32, 1)
"""n_dims 2, mode 0, freq_base 10000, freq_scale 1, no YaRN."""
HALF_ONE = struct.pack("<e", 1.0)
ROUNDED_ACTIVATIONS = 2e-2
"""For products with weights of block types, whose tolerance is an nmse of 5e-4, and for attention, likewise."""
HALVES = 3e-3
"""For products with weights in F16: an nmse of 1e-5."""
TABLE = 2e-3
"""For activations that upstream reads from a table of F16 (GELU, and SILU in some builds)."""


def _unary(kind: str, values: Sequence[float], result: Sequence[float], tolerance: float = ROUNDED) -> Sum:
    return Sum("UNARY", [Source([len(values)], values)], [len(values)], result, tolerance, _i32(UNARY_OPS.index(kind)))


SUMS: dict[str, Sum] = {
    "add": Sum("ADD", [ONE_TO_4, Source([4], [10, 20, 30, 40])], [4], [11, 22, 33, 44]),
    "add-broadcast-row": Sum("ADD", [Source([2, 2], [1, 2, 3, 4]), Source([2], [10, 20])], [2, 2], [11, 22, 13, 24]),
    "add-broadcast-one": Sum("ADD", [ONE_TO_4, Source([1], [0.5])], [4], [1.5, 2.5, 3.5, 4.5]),
    "add-repeat-elements": Sum("ADD", [ONE_TO_4, Source([2], [10, 20])], [4], [11, 22, 13, 24]),
    "add-repeat-rows": Sum("ADD", [Source([1, 4], [1, 2, 3, 4]), Source([1, 2], [10, 20])], [1, 4], [11, 22, 13, 24]),
    "add-specials": Sum(
        "ADD", [Source([3], [float("inf"), -0.0, 3.4e38]), Source([3], [1, -0.0, 3.4e38])], [3], [float("inf"), -0.0, float("inf")]
    ),
    "sub": Sum("SUB", [ONE_TO_4, Source([4], [4, 3, 2, 1])], [4], [-3, -1, 1, 3]),
    "mul": Sum("MUL", [ONE_TO_4, Source([4], [2, 3, 4, 5])], [4], [2, 6, 12, 20]),
    "div": Sum("DIV", [ONE_TO_4, Source([4], [2, 4, 8, 16])], [4], [0.5, 0.5, 0.375, 0.25]),
    "scale": Sum("SCALE", [ONE_TO_4], [4], [0.5, 1, 1.5, 2], params=_f32(0.5, 0)),
    "scale-and-bias": Sum("SCALE", [ONE_TO_4], [4], [1.5, 2, 2.5, 3], params=_f32(0.5, 1)),
    "mul-mat": Sum("MUL_MAT", [Source([3, 2], [1, 2, 3, 4, 5, 6]), Source([3, 2], [1, 0, -1, 2, 2, 2])], [2, 2], [-2, -2, 12, 30]),
    "mul-mat-vector": Sum("MUL_MAT", [Source([4, 1], [1, 2, 3, 4]), Source([4], [4, 3, 2, 1])], [1], [20]),
    "mul-mat-broadcast": Sum("MUL_MAT", [Source([2, 2], [1, 2, 3, 4]), Source([2, 1, 2], [1, 1, 2, -1])], [2, 1, 2], [3, 7, 0, 2]),
    # the first two matrices of src1 meet the first weights, the others the second: an index is divided; ADD takes its remainder
    "mul-mat-broadcast-two": Sum("MUL_MAT", [Source([1, 1, 2], [2, 3]), Source([1, 1, 4], [1, 2, 3, 4])], [1, 1, 4], [2, 4, 9, 12]),
    "mul-mat-f16": Sum("MUL_MAT", [Source([2, 2], [1, 2, 3, 4], "F16"), Source([2], [1, -1])], [2], [-1, -1], HALVES),
    # a block of scale 1 and quants 1 to 32; 127 everywhere quantises to itself, so that nothing is rounded: 127 * 528
    "mul-mat-q8-0": Sum(
        "MUL_MAT",
        [Source([32], HALF_ONE + bytes(range(1, 33)), "Q8_0"), Source([32], [127] * 32)],
        [1],
        [67056],
        ROUNDED_ACTIVATIONS,
    ),
    # a block of scale 1 and every nibble 9, which means 1: 127 * 32
    "mul-mat-q4-0": Sum(
        "MUL_MAT", [Source([32], HALF_ONE + b"\x99" * 16, "Q4_0"), Source([32], [127] * 32)], [1], [4064], ROUNDED_ACTIVATIONS
    ),
    "rms-norm": Sum("RMS_NORM", [Source([4], [1, 2, 2, 4])], [4], [0.4, 0.8, 0.8, 1.6], ROUNDED, _f32(0)),
    "rms-norm-two-rows": Sum("RMS_NORM", [Source([2, 2], [3, 3, 0.5, -0.5])], [2, 2], [1, 1, 1, -1], ROUNDED, _f32(0)),
    "soft-max": Sum("SOFT_MAX", [Source([4], [0, 0.6931472, 1.3862944, 0])], [4], [0.125, 0.25, 0.5, 0.125], ROUNDED, _f32(1, 0)),
    "soft-max-mask": Sum(
        "SOFT_MAX", [ONE_TO_4, Source([4], [-2, float("-inf"), -4, float("-inf")])], [4], [0.5, 0, 0.5, 0], ROUNDED, _f32(1, 0)
    ),
    "get-rows": Sum(
        "GET_ROWS", [Source([2, 3], [1, 2, 3, 4, 5, 6]), Source([4], [2, 0, 0, 1], "I32")], [2, 4], [5, 6, 1, 2, 1, 2, 3, 4]
    ),
    "get-rows-q8-0": Sum(
        "GET_ROWS", [Source([32], HALF_ONE + bytes(range(32)), "Q8_0"), Source([1], [0], "I32")], [32], list(range(32))
    ),
    "dup": Sum("DUP", [ONE_TO_4], [4], [1, 2, 3, 4]),
    "cont": Sum("CONT", [ONE_TO_4], [4], [1, 2, 3, 4]),
    "rope-position-0": Sum("ROPE", [Source([2], [3, 4]), Source([1], [0], "I32")], [2], [3, 4], ROUNDED, ROPE_PARAMS),
    "rope-position-1": Sum(
        "ROPE", [Source([2], [1, 0]), Source([1], [1], "I32")], [2], [0.5403023, 0.8414710], ROUNDED, ROPE_PARAMS
    ),
    "unary-neg": _unary("NEG", [1, -2, 0.5], [-1, 2, -0.5]),
    "unary-abs": _unary("ABS", [1, -2, 0.5], [1, 2, 0.5]),
    "unary-relu": _unary("RELU", [1, -2, 0.5], [1, 0, 0.5]),
    "unary-sigmoid": _unary("SIGMOID", [0, 1, -1], [0.5, 0.7310586, 0.2689414]),
    "unary-tanh": _unary("TANH", [0, 1, -1], [0, 0.7615942, -0.7615942]),
    "unary-exp": _unary("EXP", [0, 1, -1], [1, 2.7182818, 0.3678794]),
    "unary-silu": _unary("SILU", [0, 1, 2], [0, 0.7310586, 1.7615942], TABLE),
    "unary-gelu": _unary("GELU", [0, 1, -1], [0, 0.8411920, -0.1588080], TABLE),
    "glu-swiglu": Sum("GLU", [Source([4], [1, 2, 3, 4])], [2], [2.1931758, 7.0463767], TABLE, _i32(GLU_OPS.index("SWIGLU"), 0)),
    "glu-swiglu-split": Sum(
        "GLU", [Source([2], [1, 2]), Source([2], [3, 4])], [2], [2.1931758, 7.0463767], TABLE, _i32(GLU_OPS.index("SWIGLU"), 0)
    ),
    "glu-geglu": Sum("GLU", [Source([2], [1, 3])], [1], [2.5235760], TABLE, _i32(GLU_OPS.index("GEGLU"), 0)),
    # one key only: its weight is 1 and the result is the value's row; op_params are scale, max_bias and logit_softcap
    "flash-attn-ext-one-key": Sum(
        "FLASH_ATTN_EXT",
        [
            Source([64, 1, 1], [0.25] * 64),
            Source([64, 1, 1], [0.5] * 64, "F16"),
            Source([64, 1, 1], [float(n) for n in range(64)], "F16"),
            None,
        ],
        [64, 1, 1],
        [float(n) for n in range(64)],
        ROUNDED_ACTIVATIONS,
        _f32(0.125, 0, 0),
    ),
    # two equal keys: the mean of the two values
    "flash-attn-ext-two-keys": Sum(
        "FLASH_ATTN_EXT",
        [
            Source([64, 1, 1], [0.25] * 64),
            Source([64, 2, 1], [0.5] * 128, "F16"),
            Source([64, 2, 1], [1.0] * 64 + [4.0] * 64, "F16"),
            None,
        ],
        [64, 1, 1],
        [2.5] * 64,
        ROUNDED_ACTIVATIONS,
        _f32(0.125, 0, 0),
    ),
}
"""Words to a node and its numbers."""

EXTRAS: dict[str, Sum] = {
    "sqr": Sum("SQR", [ONE_TO_4], [4], [1, 4, 9, 16], ROUNDED),
    "sqrt": Sum("SQRT", [Source([3], [1, 4, 9])], [3], [1, 2, 3], ROUNDED),
    "log": Sum("LOG", [Source([2], [1, 2.7182818])], [2], [0, 1], ROUNDED),
    "sin": Sum("SIN", [Source([2], [0, 1])], [2], [0, 0.8414710], ROUNDED),
    "cos": Sum("COS", [Source([2], [0, 1])], [2], [1, 0.5403023], ROUNDED),
    "sum-rows": Sum("SUM_ROWS", [Source([2, 2], [1, 2, 3, 4])], [1, 2], [3, 7], ROUNDED),
    "mean": Sum("MEAN", [Source([4], [1, 2, 3, 6])], [1], [3], ROUNDED),
    "cumsum": Sum("CUMSUM", [ONE_TO_4], [4], [1, 3, 6, 10], ROUNDED),
    "argmax": Sum("ARGMAX", [Source([3, 2], [1, 5, 2, 9, 0, 3])], [2], [1, 0], type="I32"),
    "repeat": Sum("REPEAT", [Source([2], [1, 2])], [4, 2], [1, 2, 1, 2, 1, 2, 1, 2]),
    "concat": Sum("CONCAT", [Source([2], [1, 2]), Source([2], [3, 4])], [4], [1, 2, 3, 4], params=_i32(0)),
    "leaky-relu": Sum("LEAKY_RELU", [Source([2], [-2, 2])], [2], [-0.5, 2], ROUNDED, _f32(0.25)),
    "clamp": Sum("CLAMP", [ONE_TO_4], [4], [2, 2, 3, 3], params=_f32(2, 3)),
    "arange": Sum("ARANGE", [], [3], [1, 3, 5], params=_f32(1, 6, 2)),
    "diag-mask-inf": Sum("DIAG_MASK_INF", [Source([2, 2], [1, 2, 3, 4])], [2, 2], [1, float("-inf"), 3, 4], params=_i32(0)),
    "argsort": Sum("ARGSORT", [Source([3], [3, 1, 2])], [3], [1, 2, 0], params=_i32(0), type="I32"),
    "pad": Sum("PAD", [Source([2], [1, 2])], [4], [1, 2, 0, 0], params=_i32(0, 2, 0, 0, 0, 0, 0, 0)),
    "outer-product": Sum("OUT_PROD", [Source([2], [1, 2]), Source([2], [3, 4])], [2, 2], [3, 6, 4, 8], ROUNDED),
    "norm": Sum("NORM", [Source([2], [1, 3])], [2], [-1, 1], ROUNDED, _f32(0)),
}
"""The same, of which a server may lack any: computed or refused, but nothing else."""


COPIES: dict[str, Sum] = {
    "cpy-to-f16": Sum("CPY", [ONE_TO_4, Source([4], [0] * 4, "F16")], [4], [1, 2, 3, 4], type="F16"),
    "cpy-to-i32": Sum("CPY", [ONE_TO_4, Source([4], [0] * 4, "I32")], [4], [1, 2, 3, 4], type="I32", change="CPY.i32"),
    "set-rows": Sum(
        "SET_ROWS",
        [Source([2, 1], [5, 6]), Source([1], [1], "I64"), Source([2, 2], [1, 2, 3, 4])],
        [2, 2],
        [1, 2, 5, 6],
    ),
}
"""Ops whose result is their last source's bytes; only looked at, since cases of their own judge them."""


def kind(sum: Sum) -> tuple[str, tuple[str, ...]]:
    """Return the op of a node and the types of its sources, as `Facts.refused` has them."""
    return sum.op, tuple(source.type for source in sum.src if source)


def place(arena: Arena, sum: Sum) -> RpcTensor:
    """Place a node and its sources in an arena."""
    if sum.op in ("CPY", "SET_ROWS"):
        *others, target = (arena.leaf(s.ne, s.values, s.type) for s in sum.src if s)
        view = arena.view("VIEW", target, target.ne)
        return arena.change(view, op=arena.peer.subject.op(sum.op), src=(*(s.id for s in others), target.id))
    sources = [arena.leaf(s.ne, s.values, s.type) if s else None for s in sum.src]
    return arena.node(sum.op, sources, sum.ne, sum.type, sum.params)


@case("graph.computes/{}", each=SUMS, since=since)
def computes(subject: Subject, sum: Sum) -> None:
    """A graph of one node, {}: its result is the one worked out by hand; not judged where the server refuses the op."""
    arena = Arena(subject.connect())
    node = place(arena, sum)
    try:
        arena.compute(node)
    except Broken as broken:
        if not broken.refused:
            raise
        raise NotJudged(f"it refuses {sum.op}, as a server may (graph.op-supported)") from None
    arena.expect(node, sum.result, sum.tolerance)


@case("graph.op-supported/{}", each=EXTRAS, may_crash=True, since=since)
def computes_or_refuses(subject: Subject, sum: Sum) -> None:
    """A graph of one node that a server may have no kernel for, {}: refused, or computed as worked out by hand."""
    arena = Arena(subject.connect())
    node = place(arena, sum)
    _computed_or_refused(subject, arena, node, sum.result, sum.tolerance)


def _computed_or_refused(
    subject: Subject,
    arena: Arena,
    node: RpcTensor,
    result: Sequence[float],
    tolerance: float = 0.0,
    also: Sequence[RpcTensor] = (),
) -> None:
    try:
        arena.compute(*also, node)
    except Broken as broken:
        if not broken.refused:
            raise
        return  # it closed, as it may; whether it lives is looked at after every case
    arena.expect(node, result, tolerance)


@case("graph.cost/wide-convolution", may_crash=True, since=marks.op_since("CONV_2D"))
def wide_convolution(subject: Subject) -> None:
    """CONV_2D of 2^13 taps and 2^13 outputs, a row of which are 2^26 elements as IM2COL lays them out: refused, or computed."""
    taps, outputs = 2**13, 2**13
    arena = Arena(subject.connect(), size=2**20)
    kernel, image = arena.leaf([taps], [1.0] * taps), arena.leaf([outputs + taps - 1], [1.0] * (outputs + taps - 1))
    node = arena.node("CONV_2D", [kernel, image], [outputs], params=_i32(1, 1, 0, 0, 1, 1))
    _computed_or_refused(subject, arena, node, [float(taps)] * outputs)


def _over(arena: Arena, node: RpcTensor, source: RpcTensor, offset: int = 0) -> RpcTensor:
    """Return the node with its result so many bytes into a source's memory."""
    return arena.change(node, data=source.data + offset)


@case("graph.overlap/sum-shifted")
def sum_shifted(subject: Subject) -> None:
    """ADD of a vector to itself, the result one element further on: twice the elements that were there before."""
    arena, numbers = Arena(subject.connect()), [float(n) for n in range(1, 66)]
    whole = arena.leaf([65], numbers)
    first = arena.view("VIEW", whole, [64])
    node = _over(arena, arena.node("ADD", [first, first], [64]), whole, 4)
    _computed_or_refused(subject, arena, node, [2 * n for n in numbers[:64]], also=[first])


@case("graph.overlap/running-sums-shifted", since=marks.op_since("CUMSUM"))
def running_sums_shifted(subject: Subject) -> None:
    """CUMSUM with its result one element further on: sums of the elements that were there before."""
    arena = Arena(subject.connect())
    whole = arena.leaf([65], [1.0] * 65)
    first = arena.view("VIEW", whole, [64])
    node = _over(arena, arena.node("CUMSUM", [first], [64]), whole, 4)
    _computed_or_refused(subject, arena, node, [float(n) for n in range(1, 65)], also=[first])


@case("graph.overlap/product-over-a-factor")
def product_over_a_factor(subject: Subject) -> None:
    """MUL_MAT whose result lies where its second factor does: the product with the factor that was there before."""
    arena = Arena(subject.connect())
    left, right = arena.leaf([2, 2], [0, 1, 1, 0]), arena.leaf([2, 2], [1, 2, 3, 4])
    node = _over(arena, arena.node("MUL_MAT", [left, right], [2, 2]), right)
    _computed_or_refused(subject, arena, node, [2, 1, 4, 3])


@case("graph.overlap/transposed-onto-itself")
def transposed_onto_itself(subject: Subject) -> None:
    """CONT of a matrix seen through TRANSPOSE, into the matrix's own memory: its transpose."""
    arena = Arena(subject.connect())
    whole = arena.leaf([3, 3], [1, 2, 3, 4, 5, 6, 7, 8, 9])
    view = arena.view("TRANSPOSE", whole, [3, 3], [12, 4, 36, 36])
    node = _over(arena, arena.node("CONT", [view], [3, 3]), whole)
    _computed_or_refused(subject, arena, node, [1, 4, 7, 2, 5, 8, 3, 6, 9], also=[view])


# --------------------------------------------------------------------------------------------------- views, rows, graphs


@case("graph.computes/view-with-offset")
def view_with_offset(subject: Subject) -> None:
    """SCALE of a VIEW of the middle of a tensor: scales those elements."""
    arena = Arena(subject.connect())
    whole = arena.leaf([6], [1, 2, 3, 4, 5, 6])
    view = arena.view("VIEW", whole, [3], offset=8)
    node = arena.node("SCALE", [view], [3], params=_f32(10, 0))
    arena.compute(view, node)
    arena.expect(node, [30, 40, 50])


@case("graph.computes/permuted")
def permuted(subject: Subject) -> None:
    """CONT of a 3 x 2 matrix seen through PERMUTE: its transpose."""
    arena = Arena(subject.connect())
    whole = arena.leaf([3, 2], [1, 2, 3, 4, 5, 6])
    view = arena.change(arena.view("PERMUTE", whole, [2, 3], [12, 4, 24, 24]), op_params=(1, 0, 2, 3, *[0] * 12))
    node = arena.node("CONT", [view], [2, 3])
    arena.compute(view, node)
    arena.expect(node, [1, 4, 2, 5, 3, 6])


@case("graph.computes/transposed")
def transposed(subject: Subject) -> None:
    """ADD of a matrix seen through TRANSPOSE and one that is not: element by element."""
    arena = Arena(subject.connect())
    whole, other = arena.leaf([2, 2], [1, 2, 3, 4]), arena.leaf([2, 2], [10, 20, 30, 40])
    view = arena.view("TRANSPOSE", whole, [2, 2], [8, 4, 16, 16])
    node = arena.node("ADD", [other, view], [2, 2])
    arena.compute(view, node)
    arena.expect(node, [11, 23, 32, 44])


@case("graph.computes/reshaped")
def reshaped(subject: Subject) -> None:
    """MUL_MAT of a vector seen through RESHAPE as a 2 x 2 matrix."""
    arena = Arena(subject.connect())
    whole, vector = arena.leaf([4], [1, 2, 3, 4]), arena.leaf([2], [1, 10])
    view = arena.view("RESHAPE", whole, [2, 2])
    node = arena.node("MUL_MAT", [view, vector], [2])
    arena.compute(view, node)
    arena.expect(node, [21, 43])


@case("graph.computes/set-rows", since=marks.op_since("SET_ROWS"))
def set_rows(subject: Subject) -> None:
    """SET_ROWS of two rows into a matrix of four: these two change, the others do not."""
    arena = Arena(subject.connect())
    target = arena.leaf([2, 4], [0] * 8)
    rows, indices = arena.leaf([2, 2], [1, 2, 3, 4]), arena.leaf([2], [3, 1], "I64")
    arena.compute(_set_rows(arena, target, rows, indices))
    arena.expect(target, [0, 0, 3, 4, 0, 0, 1, 2])


def _set_rows(arena: Arena, target: RpcTensor, rows: RpcTensor, indices: RpcTensor) -> RpcTensor:
    view = arena.view("VIEW", target, target.ne)
    return arena.change(view, op=arena.peer.subject.op("SET_ROWS"), src=(rows.id, indices.id, target.id))


@case(
    "graph.computes/cpy-{}",
    each={"to-f16": "F16", "to-i32": "I32"},
    since=lambda type: marks.change_since("CPY.i32") if type == "I32" else None,
)
def copied_into(subject: Subject, type: str) -> None:
    """CPY of floats into a tensor of another type, {}: the numbers in that type."""
    arena = Arena(subject.connect())
    source, target = arena.leaf([4], [1, -2, 3, 4]), arena.leaf([4], type=type)
    view = arena.view("VIEW", target, [4])
    arena.compute(arena.change(view, op=subject.op("CPY"), src=(source.id, target.id)))
    arena.expect(target, [1, -2, 3, 4])


@case("graph.computes/cast")
def cast(subject: Subject) -> None:
    """CPY that names itself as its second source, as ggml_cast makes it: not a cycle, and the numbers in the other type."""
    arena = Arena(subject.connect())
    source = arena.leaf([4], [1, -2, 3, 4])
    node = arena.node("CPY", [source], [4], "F16")
    arena.compute(arena.change(node, src=(source.id, node.id)))
    arena.expect(node, [1, -2, 3, 4])


@case("graph.computes/cast-as-leaf")
def cast_of_another_graph(subject: Subject) -> None:
    """A node whose source is a cast (a CPY that names itself) that is not a node of this graph: not a cycle, its bytes are read."""
    arena = Arena(subject.connect())
    source = arena.leaf([4], [1, -2, 3, 4])
    cast = arena.leaf([4], [5, 6, 7, 8])
    cast = arena.change(cast, op=subject.op("CPY"), flags=16, src=(source.id, cast.id))
    node = arena.node("ADD", [cast, source], [4])
    arena.compute(node)
    arena.expect(node, [6, 4, 10, 12])


@case("graph.computes/view-of-a-view")
def view_of_a_view(subject: Subject) -> None:
    """A VIEW whose view_src is a VIEW itself, not what that one is a view of: accepted, and read where its data says."""
    arena = Arena(subject.connect())
    outer = arena.view("VIEW", arena.leaf([8], [float(n) for n in range(8)]), [6], offset=8)
    inner = arena.view("VIEW", outer, [2], offset=12)
    node = arena.node("CONT", [inner], [2])
    arena.compute(outer, inner, node)
    arena.expect(node, [5, 6])


@case("graph.computes/source-in-a-slot-too-many")
def slot_too_many(subject: Subject) -> None:
    """An ADD that names a tensor of integers as a third source, which ADD does not have: the sum of the first two."""
    arena = Arena(subject.connect())
    numbers, stranger = arena.leaf([2], [1, 2]), arena.leaf([3], [7, 8, 9], "I32")
    node = arena.node("ADD", [numbers, numbers, stranger], [2])
    arena.compute(node)
    arena.expect(node, [2, 4])


@case("graph.computes/strides-of-length-1")
def strides_that_lead_nowhere(subject: Subject) -> None:
    """SCALE, which wants its source contiguous, of a vector whose dimensions of length 1 have strides like a permuted view's."""
    arena = Arena(subject.connect())
    numbers = arena.leaf([4], [1, 2, 3, 4])
    numbers = arena.change(numbers, nb=(4, 400, 8, 12))
    node = arena.node("SCALE", [numbers], [4], params=_f32(3, 0))
    arena.compute(node)
    arena.expect(node, [3, 6, 9, 12])


@case("graph.computes/in-place")
def in_place(subject: Subject) -> None:
    """SCALE in place (its view_src is its source): the source's bytes are the result."""
    arena = Arena(subject.connect())
    numbers = arena.leaf([4], [1, 2, 3, 4])
    node = arena.view("VIEW", numbers, [4])
    arena.compute(arena.change(node, op=subject.op("SCALE"), op_params=struct.unpack("<16i", _f32(3, 0).ljust(64, b"\0"))))
    arena.expect(numbers, [3, 6, 9, 12], ROUNDED)


@case("graph.computes/chain-of-100")
def chain(subject: Subject) -> None:
    """A hundred ADD nodes, each adding 1 to the one before: the last holds the first number plus 100."""
    arena = Arena(subject.connect())
    one, node = arena.leaf([2], [1, 1]), arena.leaf([2], [5, 6])
    nodes = []
    for _ in range(100):
        node = arena.node("ADD", [node, one], [2])
        nodes.append(node)
    arena.compute(*nodes)
    arena.expect(node, [105, 106], 100 * ROUNDED)  # every sum may be rounded


@case("graph.computes/sources-listed-last")
def sources_last(subject: Subject) -> None:
    """A graph whose tensors are listed with the users before their sources: the same result."""
    arena = Arena(subject.connect())
    left = arena.leaf([2], [1, 2])
    first = arena.node("ADD", [left, left], [2])
    second = arena.node("MUL", [first, left], [2])
    graph = arena.graph(first, second)
    arena.peer.tell(replace(graph, tensors=graph.tensors[::-1]))
    arena.expect(second, [2, 8])


@case("graph.computes/every-device")
def on_every_device(subject: Subject) -> None:
    """An ADD on every device, in a buffer of its own: the sum."""
    peer = subject.connect()
    for device in range(subject.facts.device_count):
        arena = Arena(peer, device=device)
        left = arena.leaf([2], [1.0 + device, 2.0])
        node = arena.node("ADD", [left, left], [2])
        arena.compute(node, device=device)
        arena.expect(node, [2.0 + 2 * device, 4.0])


# --------------------------------------------------------------------------------------------------------- type, shape

BAD_TYPES: dict[str, Sum] = {
    "get-rows-float-indices": Sum("GET_ROWS", [Source([2, 3], [0] * 6), Source([1], [0])], [2], []),
    "mul-mat-i32-vector": Sum("MUL_MAT", [Source([2, 2], [0] * 4), Source([2], [0, 0], "I32")], [2], []),
    "add-into-i8": Sum("ADD", [ONE_TO_4, ONE_TO_4], [4], [], type="I8"),
    "rope-float-positions": Sum("ROPE", [Source([2], [0, 0]), Source([1], [0])], [2], [], params=ROPE_PARAMS),
    "soft-max-i64": Sum("SOFT_MAX", [Source([2], [0, 0], "I64")], [2], [], params=_f32(1, 0)),
    "rms-norm-i32": Sum("RMS_NORM", [Source([2], [0, 0], "I32")], [2], [], params=_f32(0)),
    "unary-i32": Sum("UNARY", [Source([2], [0, 0], "I32")], [2], [], params=_i32(UNARY_OPS.index("NEG"))),
    "scale-q8-0": Sum("SCALE", [Source([32], bytes(34), "Q8_0")], [32], [], params=_f32(1, 0), type="Q8_0"),
    "flash-attn-ext-f32-mask": Sum(
        "FLASH_ATTN_EXT",
        [Source([64], [0] * 64), Source([64], [0] * 64, "F16"), Source([64], [0] * 64, "F16"), Source([1, 64], [0] * 64)],
        [64],
        [],
        params=_f32(1, 0, 0),
    ),
}
"""Nodes whose types their op does not take in any backend."""


ODD_TYPES: dict[str, Sum] = {
    "add-f64": Sum("ADD", [Source([2], [1, 2], "F64"), Source([2], [3, 4], "F64")], [2], [4, 6], type="F64"),
    "mul-mat-i8": Sum("MUL_MAT", [Source([2], [1, 2], "I8"), Source([2], [3, 4])], [1], [11]),
}
"""Nodes whose types their op need not take, and what they compute where it does."""


@case("graph.type/{}", each=ODD_TYPES, may_crash=True, since=since)
def odd_type(subject: Subject, sum: Sum) -> None:
    """A node whose types its op need not take, {}: refused, or computed as worked out by hand."""
    arena = Arena(subject.connect())
    _computed_or_refused(subject, arena, place(arena, sum), sum.result, sum.tolerance)


@case("graph.type/{}", each=BAD_TYPES, may_crash=True, since=since)
def bad_type(subject: Subject, sum: Sum) -> None:
    """A node whose op does not take its types, {}: refused."""
    arena = Arena(subject.connect())
    arena.refuses(place(arena, sum))


BAD_SHAPES: dict[str, Sum] = {
    "add-3-to-4": Sum("ADD", [ONE_TO_4, Source([3], [1, 2, 3])], [4], []),
    "add-second-larger": Sum("ADD", [Source([2], [1, 2]), ONE_TO_4], [2], []),
    "add-result-larger": Sum("ADD", [ONE_TO_4, ONE_TO_4], [8], []),
    "add-result-smaller": Sum("ADD", [ONE_TO_4, ONE_TO_4], [2], []),
    "mul-mat-inner": Sum("MUL_MAT", [Source([3, 2], [0] * 6), ONE_TO_4], [2], []),
    "mul-mat-result-rows": Sum("MUL_MAT", [Source([2, 2], [0] * 4), Source([2], [0, 0])], [3], []),
    "mul-mat-result-columns": Sum("MUL_MAT", [Source([2, 2], [0] * 4), Source([2], [0, 0])], [2, 2], []),
    "mul-mat-batches": Sum("MUL_MAT", [Source([2, 1, 2], [0] * 4), Source([2, 1, 3], [0] * 6)], [1, 1, 3], []),
    "rms-norm-result": Sum("RMS_NORM", [ONE_TO_4], [8], [], params=_f32(0)),
    "scale-result": Sum("SCALE", [ONE_TO_4], [8], [], params=_f32(1, 0)),
    "soft-max-mask-too-small": Sum("SOFT_MAX", [Source([4, 2], [0] * 8), Source([2, 2], [0] * 4)], [4, 2], [], params=_f32(1, 0)),
    # llama.cpp #26825: what the constructor checks is not checked on the wire
    "get-rows-batches": Sum("GET_ROWS", [Source([2, 3, 1], [0] * 6), Source([1, 2], [0, 0], "I32")], [2, 1, 2], []),
    "get-rows-result": Sum("GET_ROWS", [Source([2, 3], [0] * 6), Source([2], [0, 1], "I32")], [2, 3], []),
    "rope-positions": Sum("ROPE", [Source([2, 1, 3], [0] * 6), Source([1], [0], "I32")], [2, 1, 3], [], params=ROPE_PARAMS),
    "cont-count": Sum("CONT", [ONE_TO_4], [8], []),
    "dup-count": Sum("DUP", [ONE_TO_4], [2], []),
    "glu-result": Sum("GLU", [ONE_TO_4], [4], [], params=_i32(GLU_OPS.index("SWIGLU"), 0)),
    "glu-kind": Sum("GLU", [ONE_TO_4], [2], [], params=_i32(99, 0)),
    "unary-kind": Sum("UNARY", [ONE_TO_4], [4], [], params=_i32(99)),
    "unary-kind-negative": Sum("UNARY", [ONE_TO_4], [4], [], params=_i32(-1)),
    "flash-attn-ext-heads": Sum(
        "FLASH_ATTN_EXT",
        [Source([64, 1, 3], [0] * 192), Source([64, 1, 2], [0] * 128, "F16"), Source([64, 1, 2], [0] * 128, "F16")],
        [64, 3, 1],
        [],
        params=_f32(1, 0, 0),
    ),
    "flash-attn-ext-key-length": Sum(
        "FLASH_ATTN_EXT",
        [Source([64], [0] * 64), Source([32], [0] * 32, "F16"), Source([64], [0] * 64, "F16")],
        [64],
        [],
        params=_f32(1, 0, 0),
    ),
}
"""Nodes whose dimensions or parameters their op does not allow."""


@case("graph.shape/{}", each=BAD_SHAPES, may_crash=True, since=since)
def bad_shape(subject: Subject, sum: Sum) -> None:
    """A node whose dimensions or parameters make no sense for its op, {}: refused."""
    arena = Arena(subject.connect())
    arena.refuses(place(arena, sum))


@case(
    "graph.shape/set-rows-{}",
    each={"row-length": ([3, 2], [2]), "row-count": ([2, 2], [1]), "batches": ([2, 2, 2], [2])},
    may_crash=True,
    since=marks.op_since("SET_ROWS"),
)
def bad_set_rows(subject: Subject, row: tuple[list[int], list[int]]) -> None:
    """SET_ROWS into a matrix of four rows of two whose rows or indices do not fit it, {} (llama.cpp #26912): refused."""
    arena = Arena(subject.connect())
    target = arena.leaf([2, 4], [0] * 8)
    rows, indices = arena.leaf(row[0]), arena.leaf(row[1], [0] * row[1][0], "I64")
    arena.refuses(_set_rows(arena, target, rows, indices))


@case("graph.shape/cpy-count", may_crash=True)
def bad_cpy(subject: Subject) -> None:
    """CPY of eight elements into four, with more buffer behind them: refused."""
    arena = Arena(subject.connect())
    source, target = arena.leaf([8], [0] * 8), arena.leaf([4], [0] * 4)
    arena.leaf([8])
    arena.refuses(arena.change(arena.view("VIEW", target, [4]), op=subject.op("CPY"), src=(source.id, target.id)))


@case("graph.shape/result-overlaps-itself", may_crash=True)
def overlapping_result(subject: Subject) -> None:
    """ADD into a tensor of four elements that all lie at one address (nb[0] is 0): refused."""
    arena = Arena(subject.connect())
    left = arena.leaf([4], [1, 2, 3, 4])
    arena.refuses(arena.change(arena.node("ADD", [left, left], [4]), nb=(0, 0, 0, 0)))


# --------------------------------------------------------------------------------------------------------------- index


@case("graph.index/get-rows-{}", each={"count": 3, "negative": -1}, may_crash=True)
def row_out_of_range(subject: Subject, index: int) -> None:
    """GET_ROWS with an index of {} into three rows that lie in the middle of their buffer: refused."""
    arena = Arena(subject.connect())
    rows, indices = arena.leaf([2, 3], [1, 2, 3, 4, 5, 6]), arena.leaf([2], [0, index], "I32")
    arena.refuses(arena.node("GET_ROWS", [rows, indices], [2, 2]))


@case("graph.index/set-rows-{}", each={"count": 4, "negative": -1}, may_crash=True, since=marks.op_since("SET_ROWS"))
def target_row_out_of_range(subject: Subject, index: int) -> None:
    """SET_ROWS with an index of {} into four rows that lie in the middle of their buffer: refused."""
    arena = Arena(subject.connect())
    target = arena.leaf([2, 4], [0] * 8)
    rows, indices = arena.leaf([2, 2], [1, 2, 3, 4]), arena.leaf([2], [0, index], "I64")
    arena.refuses(_set_rows(arena, target, rows, indices))


@case("graph.index/changed-before-recompute", may_crash=True, since=marks.request_since(GraphRecompute))
def index_spoilt_later(subject: Subject) -> None:
    """GET_ROWS with good indices, computed; then an index out of range is written and GRAPH_RECOMPUTE sent: refused."""
    arena = Arena(subject.connect())
    rows, indices = arena.leaf([2, 3], [1, 2, 3, 4, 5, 6]), arena.leaf([1], [2], "I32")
    node = arena.node("GET_ROWS", [rows, indices], [2])
    arena.compute(node)
    arena.expect(node, [5, 6], rule="graph.computes")
    arena.peer.write(indices, _i32(3))
    arena.peer.refuses(arena.again())


# ------------------------------------------------------------------------------------ regions, indices and hidden strides


def _region(op: str, *params: int) -> Sum:
    """Return ACC or SET of two numbers into four, with nb1, nb2, nb3, offset and inplace."""
    return Sum(op, [ONE_TO_4, Source([2], [10, 20])], [4], [], params=_i32(*params))


OUTSIDE_REGIONS: dict[str, Sum] = {
    "acc-offset-past-end": _region("ACC", 16, 16, 16, 12, 0),
    "acc-offset-negative": _region("ACC", 16, 16, 16, -4, 0),
    "set-offset-past-end": _region("SET", 16, 16, 16, 12, 0),
    "set-offset-negative": _region("SET", 16, 16, 16, -4, 0),
    # the constructor gives S*H by T*B + S*B numbers: here 2 by (1 + 2), of which the states are left out
    "gated-delta-net-without-states": Sum(
        "GATED_DELTA_NET",
        [
            *[Source([2, 1, 1], [1, 1])] * 3,
            Source([1, 1, 1], [0]),
            Source([1, 1, 1], [1]),
            Source([2, 2, 1], [0] * 4),
        ],
        [2, 1],
        [],
        params=_i32(1),  # one snapshot, as below
    ),
}
"""Nodes that would write outside their result."""


@case("graph.shape/{}", each=OUTSIDE_REGIONS, may_crash=True, since=since)
def region_outside(subject: Subject, sum: Sum) -> None:
    """A node that would write outside its result, {}: refused."""
    arena = Arena(subject.connect())
    arena.refuses(place(arena, sum))


@case("graph.shape/set-rows-hidden-stride", may_crash=True, since=marks.op_since("SET_ROWS"))
def hidden_stride(subject: Subject) -> None:
    """SET_ROWS of two batches into one, whose stride of 4 GiB would matter only if there were two: refused."""
    arena = Arena(subject.connect())
    target = arena.leaf([2, 4], [0] * 8)
    target = arena.change(target, nb=(4, 8, 2**32 - 8, 2**32 - 8))
    rows, indices = arena.leaf([2, 2, 2], [1] * 8), arena.leaf([2, 2], [0, 1, 2, 3], "I64")
    view = arena.view("VIEW", target, target.ne, target.nb)
    arena.refuses(arena.change(view, op=subject.op("SET_ROWS"), src=(rows.id, indices.id, target.id)))


PICKS: dict[str, Sum] = {
    "add-id": Sum("ADD_ID", [Source([2, 1, 1], [1, 2]), Source([2, 3], [0] * 6), Source([1, 1], [3], "I32")], [2, 1, 1], []),
    "mul-mat-id": Sum(
        "MUL_MAT_ID", [Source([2, 2, 3], [1] * 12), Source([2, 1, 1], [1, 2]), Source([1, 1], [3], "I32")], [2, 1, 1], []
    ),
    "ssm-scan": Sum(
        "SSM_SCAN",
        [
            Source([2, 1, 1, 1], [0, 0]),
            Source([1, 1, 1, 1], [1]),
            Source([1, 1, 1], [1]),
            Source([1, 1], [-1]),
            *[Source([2, 1, 1, 1], [1, 1])] * 2,
            Source([1], [1], "I32"),
        ],
        [3],
        [],
        params=_i32(1),  # one snapshot, which versions without that parameter do not read
    ),
}
"""Nodes with an index that is one too large, in tensors that lie in the middle of their buffer."""


@case("graph.index/{}-count", each=PICKS, may_crash=True, since=since)
def pick_out_of_range(subject: Subject, sum: Sum) -> None:
    """A node with an index among its sources that is one too large, {}: refused."""
    arena = Arena(subject.connect())
    arena.refuses(place(arena, sum))


@case("graph.index/set-rows-2-32", may_crash=True, since=marks.op_since("SET_ROWS"))
def row_number_truncated(subject: Subject) -> None:
    """SET_ROWS with an index of 2^32, which is 0 in 32 bits: refused."""
    arena = Arena(subject.connect())
    target = arena.leaf([2, 4], [0] * 8)
    rows, indices = arena.leaf([2, 1], [1, 2]), arena.leaf([1], [2**32], "I64")
    arena.refuses(_set_rows(arena, target, rows, indices))
