"""The oracle as a backend: ops/* as they are. Always available, always right, not fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ggml_rpc_ref.backends import Run, Step, apart, in_turn, written_tensors
from ggml_rpc_ref.backends.copies import WEIGHTED_OPS, WeightCopies, multiply
from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.backends.staging import Stage
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops import ops_of
from ggml_rpc_ref.ops.cost import granted
from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.spec.opcodes import CUSTOM_OPS
from ggml_rpc_ref.spec.versions import NEWEST

NAME = "oracle"


class Oracle:
    """Computes every node with its op's numpy definition.

    Args:
        memory: where its buffers lie.
        copies: bytes of float32 copies of quantised weights to keep.
    """

    name = NAME
    KERNELS: Mapping[str, Callable[[Node], None]] = {n: op.oracle for n, op in ops_of(NEWEST).items() if n not in CUSTOM_OPS}

    def __init__(self, memory: HostMemory, copies: int = 0) -> None:
        self.memory, self.copies = memory, WeightCopies(copies, memory)
        memory.changed = self.copies.drop

    def supports(self, node: Node) -> bool:
        """Whether all bytes of the node lie in host memory, this device's or another's."""
        return node.op.name in self.KERNELS and in_host_memory(node)

    def compile(self, steps: Sequence[Step]) -> Run:
        """Return a run that calls one numpy definition after the other."""
        return in_turn([(step.node, step.compute or self._compute(step.node)) for step in steps])

    def _compute(self, node: Node) -> Callable[[], None]:
        if node.op.name in WEIGHTED_OPS and node.source(0).dtype.is_quantised:
            return apart(node, partial(multiply, copies=self.copies))
        return apart(node, node.op.oracle)


def in_host_memory(node: Node) -> bool:
    """Whether numpy can reach all of a node's tensors in place."""
    # a loop, not all(): this is asked of each node of each new graph
    for tensor in (node.dst, *node.src):
        if tensor is not None and (tensor.storage is None or tensor.storage.data is None):
            return False
    return True


def by_oracle(node: Node) -> Step:
    """Return the step that computes a node on the oracle: in place where it lies in host memory, else on copies of its bytes.

    Raises:
        Violation: graph.cost, where the copies take more than computing it may: the gaps between two elements can be gigabytes.
    """
    if in_host_memory(node):
        return Step(node, NAME, apart(node, node.op.oracle))
    if (size := _stage(node).nbytes) > granted(node):
        what = f"{size} bytes in copies for the processor"
        raise Violation("graph.cost", f"{node.op.name} {node.dst.name!r}", what, f"{granted(node)} are granted")
    return Step(node, NAME, partial(_on_copies, node))


def _stage(node: Node) -> Stage:
    return Stage(t for t in (node.dst, *node.src) if t is not None)


def _on_copies(node: Node) -> None:
    stage = _stage(node)
    stage.download()
    moved = Node(stage.moved(node.dst), tuple(t and stage.moved(t) for t in node.src), node.op_params, node.op)
    # the copies overlap as the tensors do
    apart(moved, moved.op.oracle)()
    for tensor in written_tensors(node):
        stage.upload(tensor)
