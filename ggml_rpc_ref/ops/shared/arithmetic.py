"""What ADD, SUB, MUL and DIV share: the same types, the same broadcasting, the same cases.

    dst[i] = src0[i] ∘ src1[i mod ne of src1]     in float32, rounded once to dst's type

Source: apply_binary_op and binary_op in ggml-cpu/binary-ops.cpp.
"""

from collections.abc import Callable, Iterator

import numpy as np

from ggml_rpc_ref.ops.op import Case, Node, Operand, can_repeat
from ggml_rpc_ref.ops.shared.elementwise import part, require_dense_rows
from ggml_rpc_ref.ops.shared.slabs import Block, row_blocks
from ggml_rpc_ref.tensor import Array, F32Array

TYPES = (
    ("F32", "F32", "F32"), ("F16", "F16", "F16"), ("BF16", "BF16", "BF16"), ("F16", "F32", "F16"), ("F16", "F32", "F32"),
    ("BF16", "F32", "BF16"), ("BF16", "F32", "F32"),
)  # fmt: skip
"""(src0, src1, dst) types that upstream computes."""


def require_arithmetic(node: Node) -> None:
    """Refuse other types, a destination of other dimensions than src0's, a src1 that does not repeat to them, gaps within rows."""
    src0, src1, dst = node.source(0), node.source(1), node.dst
    types = (src0.dtype.name, src1.dtype.name, dst.dtype.name)
    node.require(types in TYPES, f"src0, src1 and result of types {', '.join('·'.join(row) for row in TYPES)}", types)
    node.require(dst.ne == src0.ne, f"ne {src0.ne} as src0", dst.ne)
    node.require(can_repeat(src1, src0), f"src1 that repeats to {src0.ne}", src1.ne)
    require_dense_rows(node, src0, dst)


def combine(node: Node, function: Callable[[F32Array, F32Array], Array]) -> None:
    """Store function(src0, src1 repeated) in the destination."""
    x, y = node.source(0).values(), node.source(1).values()
    for block in row_blocks(node.dst.ne):
        with np.errstate(all="ignore"):
            part(node.dst, block).store(function(x[block], repeated(y, x.shape, block)))


def repeated(values: Array, shape: tuple[int, ...], block: Block) -> Array:
    """Return the part of `values` that meets the rows `block` of an array of that shape, repeated where numpy would not.

    ggml repeats a dimension of any length that divides the other; numpy only one of length 1.
    """
    if values.shape == shape:
        return values[block]
    for axis, rows in enumerate(block):
        length = values.shape[axis]
        if length == shape[axis]:
            values = values[(slice(None),) * axis + (rows,)]
        elif length > 1:
            values = np.take(values, np.arange(rows.start or 0, rows.stop) % length, axis)
    if values.shape[3] not in (1, shape[3]):
        values = np.tile(values, shape[3] // values.shape[3])
    return values


def arithmetic_cases(op: str) -> Iterator[Case]:
    """Row lengths around vector widths, broadcasting on every dimension, types, strides, in place, special values."""
    for n in (1, 7, 32, 65):
        yield _case(f"n{n}", (n, 3))
    ne = (6, 4, 3, 2)
    for name, small in {
        "scalar": (1,), "row": (6,), "column": (1, 4), "dim0": (1, 4, 3, 2), "dim1": (6, 1, 3, 2), "dim2": (6, 4, 1, 2),
        "dim3": (6, 4, 3),
        "dims12": (6, 1, 1, 2), "repeat-dim0": (2, 4, 3, 2), "repeat-dim1": (6, 2, 3, 2), "repeat-all": (3, 2, 1, 1),
    }.items():  # fmt: skip
        yield _case(f"broadcast-{name}", ne, small)
    for types in TYPES[1:]:
        yield _case("-".join(types).lower(), (19, 4, 2), (19, 1, 2), types)
    yield _case("special", (16, 12), fill="special")
    if op == "DIV":
        yield _case("by-zero", (9, 2), fill="values:0,-0.0,1,-1,inf,nan")
    yield from _strided_cases()


def _case(
    name: str, ne: tuple[int, ...], small: tuple[int, ...] = (), types: tuple[str, str, str] = TYPES[0], fill: str = "normal"
) -> Case:
    src = (Operand(types[0], ne, fill=fill), Operand(types[1], small or ne, fill=fill))
    return Case(name, Operand(types[2], ne), src)


def _strided_cases() -> Iterator[Case]:
    x = Operand("F32", (6, 4, 3, 2))
    transposed = Operand("F32", (6, 4, 3, 2), nb=(16, 4, 96, 288))
    permuted = Operand("F32", (6, 4, 3, 2), nb=(4, 72, 24, 288))
    gaps = Operand("F32", (6, 4, 3, 2), nb=(4, 32, 160, 512))
    yield Case("src1-transposed", Operand("F32", x.ne), (x, transposed))
    yield Case("src1-transposed-broadcast", Operand("F32", x.ne), (x, Operand("F32", (3, 4), nb=(16, 4, 48, 48))))
    yield Case("src0-permuted", Operand("F32", x.ne), (permuted, x))
    yield Case("gaps-everywhere", Operand("F32", x.ne, gaps.nb), (gaps, gaps))
    yield Case("dst-permuted", Operand("F32", x.ne, permuted.nb), (x, x))
    yield Case("in-place-src0", Operand("F32", x.ne, alias="src0"), (x, x))
    yield Case("in-place-src1", Operand("F32", x.ne, alias="src1"), (x, x))
    yield Case("in-place-row", Operand("F32", x.ne, alias="src0"), (x, Operand("F32", (6,))))
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 3)), Operand("F32", (0, 3))))
