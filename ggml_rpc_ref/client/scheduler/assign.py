"""Which backend computes each node: the rules of ggml_backend_sched_split_graph (ggml-backend.cpp), passes 1 to 4.

First what must be: a node that writes into memory on a backend runs there, and one that has weights runs where these lie. Between
such nodes the backends expand over their neighbours, the preferred ones before the last, which is this machine. What is left goes
where most of its sources are, and in the end to the first backend that can compute it. Views lie where their memory lies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ggml_rpc_ref.client.devices import Device
from ggml_rpc_ref.client.scheduler.leaves import Input, Placed
from ggml_rpc_ref.client.tensors import RemoteTensor
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.opcodes import VIEW_OPS

NONE = -1
REASONS = {
    "memory": "it writes into memory that lies there",
    "weights": "its weights lie there",
    "neighbour": "the node before or after it is there, and it can be computed there",
    "sources": "most of its sources are there",
    "view": "the memory that it shows lies there",
    "": "",
}
"""Why a node is where it is, in words."""


@dataclass(slots=True)
class Indexed:
    """A graph as numbers: nodes are 0 to n - 1 in the order of execution, and leaves come after them.

    Attributes:
        tensors: nodes, then leaves.
        n: number of nodes.
        src: for each node its sources.
        owner: for each tensor the one whose memory it lies in, itself for most.
        is_view: for each node whether it computes nothing.
        home: for each tensor the backend that it lies on before anything is computed; NONE for nodes.
        weights: for each tensor whether it lies among weights.
        alike: for each node the number of its op, types and layout, equal for nodes that a backend judges alike.
        kinds: a node of each such number.
        at: a tensor's id to its number.
    """

    tensors: list[RemoteTensor]
    n: int
    src: list[list[int]]
    owner: list[int]
    is_view: list[bool]
    home: list[int]
    weights: list[bool]
    alike: list[int]
    kinds: list[RemoteTensor]
    at: dict[int, int]

    def is_input(self, tensor: int) -> bool:
        """Whether a tensor is data of the caller, or a view of some."""
        owner = self.owner[tensor]
        return owner >= self.n and isinstance(self.tensors[owner].buffer, Input)


def index(nodes: Sequence[RemoteTensor], backends: Sequence[Device]) -> Indexed:
    """Number the tensors of a graph.

    Raises:
        Misuse: for a source that is a node of another graph, an input without data, or memory on a backend not listed.
    """
    places = {id(backend): number for number, backend in enumerate(backends)}
    tensors, at = list(nodes), {node.id: number for number, node in enumerate(nodes)}
    home, weights = [NONE] * len(nodes), [False] * len(nodes)

    def leaf(tensor: RemoteTensor) -> int:
        found = at.get(tensor.id)
        if found is None:
            found = at[tensor.id] = len(tensors)
            tensors.append(tensor)
            place, is_weight = _home(tensor, places, len(backends) - 1)
            home.append(place)
            weights.append(is_weight)
        return found

    src = [[leaf(s) for s in node.src if s is not None] for node in nodes]
    owner = [number if tensor.view_src is None else leaf(tensor.view_src) for number, tensor in enumerate(tensors)]
    owner += range(len(owner), len(tensors))
    alike, kinds = _alike(nodes, tensors, at)
    return Indexed(tensors, len(nodes), src, owner, [node.op in VIEW_OPS for node in nodes], home, weights, alike, kinds, at)


def _home(tensor: RemoteTensor, places: dict[int, int], last: int) -> tuple[int, bool]:
    match tensor.buffer:
        case Input(data=None):
            raise Misuse(f"the input {tensor.name or tensor.shape} has no data yet: write an array into it")
        case Input():
            return last, False
        case Placed() as placed:
            if id(placed.backend) not in places:
                raise Misuse(
                    f"{tensor.name or 'a source'} lies on {placed.backend!r}, which is not one of the scheduler's backends"
                )
            return places[id(placed.backend)], placed.weights
    raise Misuse(f"{tensor.name or 'a source'} is a node of another graph: read it, and write it into an input of this one")


def _alike(
    nodes: Sequence[RemoteTensor], tensors: Sequence[RemoteTensor], at: dict[int, int]
) -> tuple[list[int], list[RemoteTensor]]:
    layouts: dict[object, int] = {}
    layout = [layouts.setdefault((t.dtype.number, t.ne, t.nb), len(layouts)) for t in tensors]
    numbers: dict[object, int] = {}
    kinds: list[RemoteTensor] = []
    alike = []
    for place, node in enumerate(nodes):
        sources = [NONE if s is None else layout[at[s.id]] for s in node.src]
        key = (node.op, node.op_params, layout[place], *sources)
        number = numbers.setdefault(key, len(kinds))
        if number == len(kinds):
            kinds.append(node)
        alike.append(number)
    return alike, kinds


@dataclass(slots=True)
class Assigned:
    """Where each tensor is.

    Attributes:
        backend: for each tensor of `Indexed` a backend's number.
        reason: for each node a key of REASONS.
    """

    backend: list[int]
    reason: list[str]


def assign(graph: Indexed, backends: Sequence[Device]) -> Assigned:
    """Choose a backend for every node.

    Raises:
        Misuse: where no backend can compute a node, or the one that its memory is on can't.
    """
    judged: dict[tuple[int, int], bool] = {}

    def can(node: int, backend: int) -> bool:
        key = (graph.alike[node], backend)
        if key not in judged:
            judged[key] = backends[backend].supports_op(graph.kinds[key[0]])
        return judged[key]

    where = Assigned(list(graph.home), [""] * graph.n)
    _fixed(graph, where, can, backends)
    last, forward = len(backends) - 1, range(graph.n)
    for skipped in (last, NONE):  # the last backend expands only when the others have
        for order in (forward, reversed(forward)):
            _expand(graph, where, can, order, skipped)
    _by_sources(graph, where, can, len(backends))
    for node in forward:
        if where.backend[node] == NONE and graph.is_view[node]:
            where.backend[node], where.reason[node] = where.backend[graph.owner[node]], "view"
    return where


def _fixed(graph: Indexed, where: Assigned, can: Callable[[int, int], bool], backends: Sequence[Device]) -> None:
    """Give nodes that write into memory of a backend, or have weights on one, to that backend."""
    for node in range(graph.n):
        owner = graph.owner[node]
        if owner >= graph.n:
            place = graph.home[owner]
            if not graph.is_view[node] and isinstance(graph.tensors[owner].buffer, Input):
                raise Misuse(f"{_called(graph, node)} would write into the input {graph.tensors[owner].name!r}, which it can't")
            if not graph.is_view[node] and not can(node, place):
                raise Misuse(f"{_called(graph, node)} writes into memory on {backends[place].name}, which can't compute it")
            where.backend[node], where.reason[node] = place, "view" if graph.is_view[node] else "memory"
            continue
        if graph.tensors[node].op == "ROPE":  # its factors are too small to decide where it goes
            continue
        for source in graph.src[node]:
            place = graph.home[source]
            if graph.weights[source] and can(node, place):
                where.backend[node], where.reason[node] = place, "weights"
                break


def _expand(graph: Indexed, where: Assigned, can: Callable[[int, int], bool], order: Iterable[int], skipped: int) -> None:
    """Give each node without a backend that of the node before it in this order; one backend's nodes are not followed."""
    current = NONE
    for node in order:
        if graph.is_view[node]:
            continue
        if graph.owner[node] != node and _follows_owner(graph, where, node):
            _take_owners(graph, where, can, node)
        if where.backend[node] != NONE:
            current = NONE if where.backend[node] == skipped else where.backend[node]
        elif current != NONE and graph.owner[node] == node and can(node, current):
            where.backend[node], where.reason[node] = current, "neighbour"


def _by_sources(graph: Indexed, where: Assigned, can: Callable[[int, int], bool], count: int) -> None:
    """Give what is left to the backend that can compute it and has most of its sources; of equal ones the first."""
    for node in range(graph.n):
        if where.backend[node] != NONE or graph.is_view[node]:
            continue
        if graph.owner[node] != node:
            _take_owners(graph, where, can, node)
            continue
        sources = [where.backend[graph.owner[source]] for source in graph.src[node]]
        able = [backend for backend in range(count) if can(node, backend)]
        if not able:
            raise Misuse(f"{_called(graph, node)} can't be computed on any backend")
        where.backend[node], where.reason[node] = max(able, key=lambda backend: (sources.count(backend), -backend)), "sources"


def _follows_owner(graph: Indexed, where: Assigned, node: int) -> bool:
    """Whether a node that writes into the memory of another has no backend yet, while the other has."""
    return where.backend[node] == NONE and where.backend[graph.owner[node]] != NONE


def _take_owners(graph: Indexed, where: Assigned, can: Callable[[int, int], bool], node: int) -> None:
    place = where.backend[graph.owner[node]]
    if not can(node, place):
        raise Misuse(f"{_called(graph, node)} writes into the memory of a node on a backend that can't compute it")
    where.backend[node], where.reason[node] = place, "memory"


def _called(graph: Indexed, node: int) -> str:
    tensor = graph.tensors[node]
    return f"{tensor.op} {tensor.name!r}"
