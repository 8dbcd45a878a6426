"""Neighbours of one backend become a split: pass 5 of ggml_backend_sched_split_graph (ggml-backend.cpp).

What a split reads that does not lie on its backend is its inputs, each copied once to that backend, however many of its splits
read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ggml_rpc_ref.client.scheduler.assign import Assigned, Indexed

MOST_INPUTS = 30
"""Inputs of one split (GGML_SCHED_MAX_SPLIT_INPUTS)."""


@dataclass(slots=True)
class Split:
    """A stretch of nodes that one backend computes.

    Attributes:
        backend: its number.
        first, last: its nodes, `last` not among them.
        inputs: tensors that are copied to the backend before it is computed.
        written: inputs of the graph on this machine's own backend, where they have to be written but not copied.
        exports: tensors that splits of other connections read, and that are read for them when this one is computed.
        makers: for inputs that are handed over so, the number of the split that does it.
    """

    backend: int
    first: int
    last: int
    inputs: list[int] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    exports: list[int] = field(default_factory=list)
    makers: dict[int, int] = field(default_factory=dict)


def cut(graph: Indexed, where: Assigned) -> list[Split]:
    """Cut a graph into splits, in the order of execution."""
    splits: list[Split] = []
    copied: set[tuple[int, int]] = set()  # a tensor, and the backend that has a copy of it
    for node in range(graph.n):
        if graph.is_view[node]:
            continue
        backend = where.backend[node]
        # where a tensor lies is where its memory lies: a view's backend is its owner's
        foreign = [s for s in graph.src[node] if where.backend[graph.owner[s]] != backend]
        if not splits or splits[-1].backend != backend or (foreign and _begins_anew(graph, splits[-1], foreign, copied)):
            if splits:
                splits[-1].last = node
            splits.append(Split(backend, node if splits else 0, graph.n))
        for source in foreign:
            if (source, backend) not in copied:
                copied.add((source, backend))
                splits[-1].inputs.append(source)
        for source in graph.src[node]:
            if where.backend[graph.owner[source]] == backend and graph.is_input(source) and (source, backend) not in copied:
                copied.add((source, backend))
                splits[-1].written.append(source)
    return splits


def _begins_anew(graph: Indexed, split: Split, foreign: list[int], copied: set[tuple[int, int]]) -> bool:
    """Whether a node begins a new split of the same backend: copies of weights are many bytes, and inputs are counted."""
    if not split.inputs:
        return False
    return any(
        # a weight only if it is read as a whole, as upstream, whose views have no buffer usage of their own
        graph.weights[source] or (len(split.inputs) >= MOST_INPUTS and (source, split.backend) not in copied)
        for source in foreign
    )
