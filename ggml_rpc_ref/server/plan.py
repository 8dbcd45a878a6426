"""Checked nodes become a Plan: each is given to the device's backend or to the oracle, and the backend compiles them all at once.

A plan can be run any number of times (GRAPH_RECOMPUTE), each time on the bytes that are there then.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ggml_rpc_ref.backends import Backend, Cancelled, InC, Run, Step, never
from ggml_rpc_ref.backends.oracle import by_oracle
from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server.memory import AT_ONCE, Buffer, Memory
from ggml_rpc_ref.server.validate import MAX_STEPS, CheckedGraph, check
from ggml_rpc_ref.spec.versions import DEFAULT, Version

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Plan:
    """A graph that has been checked and compiled.

    Attributes:
        make_steps: returns `steps`.
        buffers: the buffers that its tensors lie in; once one of them is freed, the plan must not be run.
        compiled: what the backend made of the steps; None once it has been dismantled.
        held: the steps that exist for as long as the plan does; none where `make_steps` makes them when it is asked.
    """

    make_steps: Callable[[], tuple[Step, ...]]
    buffers: frozenset[Buffer]
    compiled: Run | None
    held: list[Step] = field(default_factory=list)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The nodes to compute, in order, each with the name of the backend that computes it."""
        return self.make_steps()

    def run(self, cancelled: Cancelled = never) -> None:
        """Compute every node in order, on the bytes that are there now.

        Args:
            cancelled: asked between steps and, within one, between parts of its work; once it returns True the rest is left.

        Raises:
            Stopped: where it was cancelled.
            Violation: graph.index, for an index out of range among a tensor's contents; graph.op-supported, where memory runs out.
        """
        assert self.compiled is not None
        self.compiled(cancelled)

    def in_c(self) -> tuple[int, int] | None:
        """Return how C runs it again; None where Python has to (`backends.InC`)."""
        return self.compiled.in_c() if isinstance(self.compiled, InC) else None

    def go_on(self, outcome: int, cancelled: Cancelled = never) -> None:
        """Go on from where C has come to; raises as `run`."""
        assert isinstance(self.compiled, InC)
        self.compiled.go_on(outcome, cancelled)

    def dismantle(self) -> None:
        """Give the memory back in parts; it can't be run after that.

        Freeing a plan of 30,000 steps in one go holds the GIL, and with it every other connection, for 20 ms.
        """
        self.compiled = None
        while self.held:
            del self.held[-AT_ONCE:]

    def ops_by_backend(self) -> dict[str, Counter[str]]:
        """Return for each backend the ops that it computes, and how many steps each has."""
        counts: dict[str, Counter[str]] = {}
        for step in self.steps:
            counts.setdefault(step.backend, Counter())[step.node.op.name] += 1
        return counts


def make_plan(graph: Graph, memory: Memory, backend: Backend, version: Version = DEFAULT, max_steps: int = MAX_STEPS) -> Plan:
    """Check a graph and compile it for a backend.

    Args:
        graph: as it came.
        memory: the buffers of the connection that it came on.
        backend: what computes its nodes.
        version: decides which op a number means.
        max_steps: elementary steps that the graph may take.

    Raises:
        Violation: for the first rule that the graph breaks; nothing has been computed then.
    """
    return compile_plan(check(graph, memory, version, max_steps), backend)


def compile_plan(graph: CheckedGraph, backend: Backend) -> Plan:
    """Compile a checked graph for a backend; what that lacks the oracle computes, and the plan and the debug log say so."""
    steps = assign(graph.nodes, backend)
    plan = Plan(lambda: tuple(steps), graph.buffers, backend.compile(steps), steps)
    if log.isEnabledFor(logging.DEBUG):
        for name, ops in plan.ops_by_backend().items():
            if name != backend.name:
                listed = ", ".join(f"{op} {count}" for op, count in sorted(ops.items()))
                log.debug("%d of %d steps run on %s instead of %s: %s", ops.total(), len(steps), name, backend.name, listed)
    return plan


def assign(nodes: Iterable[Node], backend: Backend) -> list[Step]:
    """Return each node as a step of the backend where it supports the node, else as one of the oracle."""
    return [Step(node, backend.name) if backend.supports(node) else by_oracle(node) for node in nodes]
