"""Backends: each owns memory, says which nodes it has kernels for, and compiles a whole checked graph at once.

    steps = plan.assign(nodes, backend)     # each node a Step: the backend's own, or the oracle's with its `compute` filled in
    run = backend.compile(steps)            # once for each graph
    run(cancelled)                          # any number of times

A backend sees all steps of a graph before the first one runs, so C can run a graph in one call and CUDA can record one. Steps
that it lacks come with a function to call in their turn; nothing falls back to the oracle unseen, because each step says who
computes it.

Backends are optional and replaceable. Ops never import them; `registry` lists them and imports one only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ggml_rpc_ref.backends.memory import DeviceMemory, HostAllocation
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.tensor import Tensor

Cancelled = Callable[[], bool]
"""Whether a run is to stop before its next step; cheap, because it is asked between all of them."""


class Stopped(Exception):  # noqa: N818
    """A run was cancelled between two steps."""


def never() -> bool:
    """Return False: the run goes on to its end."""
    return False


class Step(NamedTuple):
    """One node of a plan, and what computes it.

    Attributes:
        node: what to compute.
        backend: the name of the backend that computes it.
        compute: for a step that the compiling backend lacks, what to call when its turn comes; None for the backend's own.
    """

    node: Node
    backend: str
    compute: Callable[[], None] | None = None


Run = Callable[[Cancelled], None]
"""Computes all steps in order, on the bytes that are there at the time.

Raises Stopped when cancelled; Violation graph.index for an index out of range among a tensor's contents, graph.op-supported where
memory runs out.
"""


class Backend(Protocol):
    """Something that holds tensors and computes nodes."""

    @property
    def name(self) -> str:
        """Its name in the registry."""

    @property
    def KERNELS(self) -> Mapping[str, Any]:  # noqa: N802  (a constant of each backend)
        """The ops that it computes itself: the same keys as `OPS`. The support matrix of SPEC.md is the join of the two."""

    @property
    def memory(self) -> DeviceMemory:
        """The memory that its buffers lie in."""

    def supports(self, node: Node) -> bool:
        """Whether it computes this node itself: its op, types, layout, and where its tensors lie."""

    def compile(self, steps: Sequence[Step]) -> Run:
        """Return what computes all of these steps in order, the others' (`Step.compute`) among its own."""


def in_turn(computations: Sequence[tuple[Node, Callable[[], None]]]) -> Run:
    """Return a run that calls one function for each node, and tells host memory which bytes each of them has written."""
    calls = [(node, compute, _writes(node)) for node, compute in computations]

    def run(cancelled: Cancelled = never) -> None:
        # numpy's warnings off once for all steps: IEEE results are what the ops are defined by
        with np.errstate(all="ignore"):
            for node, compute, writes in calls:
                if cancelled():
                    raise Stopped
                try:
                    compute()
                except MemoryError:
                    raise out_of_memory(node) from None
                # after each step, not at the end: a later one may multiply with what this one wrote (`WeightCopies`)
                for written, start, stop in writes:
                    written(start, stop)

    return run


def out_of_memory(node: Node) -> Violation:
    """Return the Violation for a node whose computation ran out of memory."""
    return Violation("graph.op-supported", node.op.name, node.dst.name, "no memory to compute it")


def written_tensors(node: Node) -> list[Tensor]:
    """Return the tensors whose bytes a node changes: its result, and the sources that its op updates in place."""
    return [node.dst, *map(node.source, node.op.writes)] if node.op.writes else [node.dst]


def _writes(node: Node) -> list[tuple[Callable[[int, int], None], int, int]]:
    """Return the calls that say which bytes of host memory a node has written."""
    return [
        (tensor.storage.written, tensor.offset, tensor.offset + tensor.nbytes)
        for tensor in written_tensors(node)
        if isinstance(tensor.storage, HostAllocation)
    ]
