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
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.backends.memory import Allocation, DeviceMemory, HostAllocation
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.ops.overlap import disturbed
from ggml_rpc_ref.stopping import Cancelled, Stopped, never, stoppable
from ggml_rpc_ref.tensor import Tensor, allocate

__all__ = [
    "Backend",
    "Cancelled",
    "DeviceFault",
    "Form",
    "Forming",
    "InC",
    "Places",
    "Repeatable",
    "Run",
    "Step",
    "Stopped",
    "apart",
    "disturbed",
    "in_turn",
    "never",
    "one_after_the_other",
    "out_of_memory",
    "written_tensors",
]


class DeviceFault(Exception):  # noqa: N818
    """A device has failed, and everything that it held is gone: a kernel's illegal address, a card that has dropped out.

    Connections that have buffers there end; others are served on.
    """


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

Asks whether to stop between steps and, within one, between parts of its work. Raises Stopped when cancelled; Violation
graph.index for an index out of range among a tensor's contents, graph.op-supported where memory runs out.
"""


class Places(NamedTuple):
    """Where the operands of nodes lie: the result and then each source slot, for each node.

    Attributes:
        allocations: the buffers' bytes.
        which: shape (n, 1 + MAX_SRC), indices into them; -1: no operand.
        offsets: the same shape, bytes from the beginning of each.
    """

    allocations: Sequence[Allocation]
    which: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.uint64]


class Repeatable(Protocol):
    """A run, all of its steps the backend's own, that can be made again for nodes like these."""

    def form(self) -> Form:
        """Return what it has in common with those; nothing in it keeps a buffer's bytes."""

    def __call__(self, cancelled: Cancelled = never) -> None:
        """Compute all steps; see `Run`."""


@runtime_checkable
class InC(Protocol):
    """A run that C can begin by itself when its graph comes again (`net.again`)."""

    def in_c(self) -> tuple[int, int] | None:
        """Return a function and its argument, as addresses; None while Python has to look before each run.

        `int function(void *)` returns 0 when all is computed, a negative number when nothing is and Python has to look, and else
        what `go_on` takes.
        """

    def go_on(self, outcome: int, cancelled: Cancelled = never) -> None:
        """Go on from where C has come to; see `Run`."""


class Form(Protocol):
    """What runs of nodes that differ in little more than where they lie have in common."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it has, about."""

    def run(self, places: Places, changed: Mapping[int, Node], nodes: Callable[[], Sequence[Node]]) -> Repeatable | None:
        """Return the run of nodes that are the same but for where they lie; None where they must be compiled anew.

        Args:
            places: of all nodes.
            changed: the nodes, by their place in the list, whose types, ne, nb or parameters are others, too.
            nodes: makes all of them, where one is to be named in an error.
        """


@runtime_checkable
class Forming(Protocol):
    """A backend that compiles nodes by what they have in common, without an object for each of them."""

    def form(self, kinds: Sequence[Node], which: npt.NDArray[np.int64]) -> Form | None:
        """Return the form of a run; None where the backend does not compute all of its nodes.

        Args:
            kinds: one node of each kind, a kind being op, parameters, types and layouts.
            which: shape (n,), the kind of each of the run's nodes, in order.
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
    calls = tuple(computations)

    def run(cancelled: Cancelled = never) -> None:
        # numpy's warnings off once for all steps: IEEE results are what the ops are defined by
        with np.errstate(all="ignore"), stoppable(cancelled):
            for node, compute in calls:
                if cancelled():
                    raise Stopped
                try:
                    compute()
                except MemoryError:
                    raise out_of_memory(node) from None
                finally:
                    # after each step, not at the end: a later one may multiply with what this one wrote (`WeightCopies`);
                    # also what a step wrote that was stopped or refused half way
                    _tell_written(node)

    return run


def one_after_the_other(runs: Sequence[Run], cancelled: Cancelled = never) -> None:
    """Run several stretches of a graph in order."""
    for run in runs:
        run(cancelled)


def out_of_memory(node: Node) -> Violation:
    """Return the Violation for a node whose computation ran out of memory."""
    return Violation("graph.op-supported", node.op.name, node.dst.name, "no memory to compute it")


def written_tensors(node: Node) -> list[Tensor]:
    """Return the tensors whose bytes a node changes: its result, and the sources that its op updates in place."""
    return [node.dst, *map(node.source, node.op.writes)] if node.op.writes else [node.dst]


def apart(node: Node, compute: Callable[[Node], None]) -> Callable[[], None]:
    """Return what computes a node as if all its sources were read before its result is written (rule graph.overlap).

    Only a result that shares bytes with a source is computed in memory of its own first, and not if it is the source's elements
    one for one where the op allows that, as in-place operations are.
    """
    if not disturbed(node):
        return partial(compute, node)

    def aside() -> None:
        # the elements alone: what lies in the gaps between them may be gigabytes, and is not the result's
        result = allocate(node.dst.dtype, node.dst.ne)
        result.array[...] = node.dst.array
        compute(Node(result, node.src, node.op_params, node.op))
        node.dst.array[...] = result.array

    return aside


def _tell_written(node: Node) -> None:
    """Tell host memory which of its bytes a node has written. Asked for at each run: kept calls would be a third of a plan."""
    for tensor in written_tensors(node):
        if isinstance(tensor.storage, HostAllocation):
            tensor.storage.written(tensor.offset, tensor.offset + tensor.nbytes)
