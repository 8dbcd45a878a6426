"""PERMUTE: the same elements with their dimensions in another order; computes nothing.

    dst.ne[axis[i]] = src0.ne[i], dst.nb[axis[i]] = src0.nb[i]

src0: any type, any strides. dst: the same type and memory. Axis i of the source becomes axis axis[i] of the result.

Source: ggml_permute in ggml.c.
"""

from collections.abc import Iterator
from itertools import permutations

from ggml_rpc_ref.ops.op import ANY, EXACT, Case, Node, Op, Operand, Param, Source
from ggml_rpc_ref.ops.shared.views import compute_nothing, require_same_memory
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.tensor import Quad, contiguous_nb


def shape(node: Node) -> None:
    """Refuse axes that are no permutation, and a geometry that is not the source's under it."""
    src0, axes = node.source(0), node.i32s("axes")
    require_same_memory(node)
    node.require(sorted(axes) == [0, 1, 2, 3], "axes 0 to 3, each once", axes)
    node.require(node.dst.ne == permuted(src0.ne, axes), f"ne {permuted(src0.ne, axes)}", node.dst.ne)
    node.require(node.dst.nb == permuted(src0.nb, axes), f"nb {permuted(src0.nb, axes)}", node.dst.nb)


oracle = compute_nothing


def permuted(values: Quad, axes: tuple[int, ...]) -> Quad:
    """Return ne or nb with the value of axis i at place axes[i]."""
    a, b, c, d = (values[axes.index(place)] for place in range(4))
    return (a, b, c, d)


def cases() -> Iterator[Case]:
    """Every permutation of four different dimensions; rows of blocks."""
    x = Operand("F32", (5, 4, 3, 2))
    for axes in permutations(range(4)):
        nb = permuted(contiguous_nb(BY_NAME["F32"], x.quad), axes)
        name = "axes-" + "".join(str(axis) for axis in axes)
        yield Case(name, Operand("F32", permuted(x.quad, axes), nb, alias="src0"), (x,), {"axes": axes})
    blocks = Operand("Q8_0", (32, 4, 3))
    nb = permuted(contiguous_nb(BY_NAME["Q8_0"], blocks.quad), (0, 2, 1, 3))
    yield Case("blocks", Operand("Q8_0", (32, 3, 4), nb, alias="src0"), (blocks,), {"axes": (0, 2, 1, 3)})


OP = Op(
    name="PERMUTE",
    sources=(Source("x", ANY, "any strides"),),
    types=ANY,
    params=(Param("axes", "i32", 0, "where each axis of x goes, a permutation of 0 to 3", count=4),),
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=EXACT,
    view=True,
)
