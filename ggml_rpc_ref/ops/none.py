"""NONE: a tensor that nothing computes: a weight, an input, a buffer.

    dst is what it is

No sources, no op_params. Sources that a client names all the same are not looked at.

Source: ggml_op_is_empty in ggml-impl.h; ggml_compute_forward in ggml-cpu.c returns at once.
"""

from collections.abc import Iterator

from ggml_rpc_ref.ops.op import ANY, EXACT, Case, Node, Op, Operand
from ggml_rpc_ref.ops.shared.views import compute_nothing


def shape(node: Node) -> None:
    """Accept everything: a leaf may have any type, dimensions and strides."""


oracle = compute_nothing


def cases() -> Iterator[Case]:
    """A few types; nothing can go wrong but a server that writes."""
    for dtype in ("F32", "F16", "I64"):
        yield Case(f"leaf-{dtype.lower()}", Operand(dtype, (5, 3)), ())
    yield Case("leaf-q4_0", Operand("Q4_0", (64, 3)), ())
    yield Case("gaps", Operand("F32", (4, 3), nb=(8, 48, 144, 144)), ())


OP = Op(name="NONE", sources=(), types=ANY, shape=shape, oracle=oracle, cases=cases, tolerance=EXACT, view=True)
