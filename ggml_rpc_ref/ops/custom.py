"""MAP_CUSTOM1, MAP_CUSTOM2, MAP_CUSTOM3 and CUSTOM: functions of the client's own program; always refused.

op_params hold the address of a function in the client's memory. It is meaningless on a server; upstream's CPU backend calls it
anyway, which lets a client run arbitrary code (CVE-2026-78147, llama.cpp #25289). There is nothing to compute, and there are no
cases.

Source: ggml_map_custom1 … ggml_custom_4d in ggml.c, ggml_compute_forward_map_custom1 in ggml-cpu/ops.cpp.
"""

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops.op import ANY, MAX_SRC, Node, Op, Param, Source
from ggml_rpc_ref.ops.tolerance import EXACT
from ggml_rpc_ref.spec.opcodes import CUSTOM_OPS


def shape(node: Node) -> None:
    """Refuse every node.

    Raises:
        Violation: graph.op-custom.
    """
    raise Violation("graph.op-custom", f"{node.op.name} {node.dst.name!r}", "", "its op_params would be a function pointer")


def oracle(node: Node) -> None:
    """Refuse the node; `Op.check` lets none come here."""
    shape(node)


def _row(name: str) -> Op:
    sources = tuple(Source(f"x{slot}", ANY, "any", optional=True) for slot in range(MAX_SRC))
    pointer = Param("fun", "i64", 0, "address of a function in the client's program")
    return Op(name, sources, ANY, shape, oracle, tolerance=EXACT, params=(pointer,))


OPS = tuple(_row(name) for name in sorted(CUSTOM_OPS))
