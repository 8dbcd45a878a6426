"""A graph of a known kind is planned by looking only at what is different: at each token a client sends nearly the same one.

A growing context moves tensors, makes some longer and changes a parameter here and there. What was found out about ids, links and
geometry holds as before then, and numpy compares the rest: bounds, views, and results that overlap sources. Nodes whose geometry is
another are checked as always. The first graph of its kind is read the same way: of its nodes, one of each geometry is checked.

Where anything is not as it should be this gives up, and the graph goes through `check`, which is the definition and finds the words
for a refusal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from threading import Lock
from typing import Any, Final
from weakref import ReferenceType, ref

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.backends import Backend, Form, Forming, Places
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops import canonical_ops
from ggml_rpc_ref.ops.op import MAX_SRC, Node
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server.budget import Budget, Share
from ggml_rpc_ref.server.memory import AT_ONCE, Located, Memory, layouts
from ggml_rpc_ref.server.plan import Plan, assign, make_plan
from ggml_rpc_ref.server.validate import MAX_STEPS, NO_TENSOR, Links, check, check_node, node_keys
from ggml_rpc_ref.spec.messages import FLAG_COMPUTE
from ggml_rpc_ref.spec.opcodes import CUSTOM_OPS, VIEW_OPS, op_table
from ggml_rpc_ref.spec.rules import RULES
from ggml_rpc_ref.spec.versions import DEFAULT, Version

SAME: Final = ("id", "op", "flags", "src", "view_src")
"""Fields in which the tensors of two graphs must be the same, for one to be planned like the other."""
MOST: Final = 64
"""Patterns of all connections together; a client that uses several devices or batch sizes sends as many graphs in turn."""
MOST_TENSORS: Final = 2**17
"""Tensors of all patterns together, each about half a kilobyte; the memory for graphs counts them, and may allow fewer."""
FEW: Final = 4
"""Nodes whose geometry has changed; among so few it does not pay to look for some of the same geometry. 32 ADD that all become
longer are planned in 0.6 ms, one by one in 2.7."""
Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a graph that has been checked and compiled has in common with the next one; it refers to no bytes of any buffer.

    Attributes:
        nodes: ids of the nodes.
        tensors: the records.
        view_src: shape (n_tensors,), which tensor each is a view of, or NO_TENSOR.
        at: which tensor each computed node is, shape (n,).
        operands: shape (n, 1 + MAX_SRC), the same and its sources; NO_TENSOR where there is none.
        costs: elementary steps of each computed node.
        results: for each source that a node reads, which tensor the node is.
        sources: and which tensor the source.
        in_place: and whether the result may lie upon it.
        form: of the compiled run.
        located: where the tensors of the graph planned last lay, if they did; the buffers themselves are not kept.
        buffers: remote_ptr, base and size of each of those buffers.
    """

    nodes: npt.NDArray[np.uint64]
    tensors: npt.NDArray[Any]
    view_src: Indices
    at: Indices
    operands: Indices
    costs: Indices
    results: Indices
    sources: Indices
    in_place: Mask
    form: Form
    located: Located | None = None
    buffers: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def first(cls, graph: Graph, memory: Memory, backend: Forming, version: Version, max_steps: int) -> Pattern | None:
        """Return the pattern of a graph; None where `check` must look at each node, or the backend does not compute all of them."""
        try:
            links = Links.of(graph)
            links.check_acyclic(graph.tensors["op"] == op_table(version).index("CPY"))
            listed = np.array(links.nodes, np.int64)
            computes = _computing(graph.tensors[listed], version)
            if computes is None or not computes.any():
                return None
            at = listed[computes]
            operands = np.column_stack((at, links.src[at]))
            which, kinds = _kinds(graph, memory, at, links.src[at], version)
        except Violation:
            return None  # which of several is named, `check` decides
        form = backend.form([node for node, _ in kinds], which)
        if form is None:
            return None
        unread, in_place = (table[graph.tensors["op"][at]] for table in _slots(version))
        node, slot = np.nonzero((operands[:, 1:] != NO_TENSOR) & ~unread)
        results, sources = at[node], operands[node, slot + 1]
        costs = np.array([cost for _, cost in kinds], object)[which]  # of any size
        # copies: the records are views of the message, which nothing else keeps
        nodes, tensors = graph.nodes.copy(), graph.tensors.copy()
        return cls(nodes, tensors, links.view_src, at, operands, costs, results, sources, in_place[node, slot], form)

    @property
    def nbytes(self) -> int:
        """Bytes of memory, about."""
        arrays = (self.nodes, self.tensors, self.view_src, self.at, self.operands, self.costs, self.results, self.sources)
        located = 0 if self.located is None else sum(array.nbytes for array in self.located[1:])
        return sum(array.nbytes for array in arrays) + self.in_place.nbytes + self.form.nbytes + located

    def fits(self, graph: Graph) -> bool:
        """Whether a graph has the same tensors, nodes and links, whatever their sizes and places."""
        mine, theirs = self.tensors, graph.tensors
        if mine.dtype != theirs.dtype or len(mine) != len(theirs) or not np.array_equal(self.nodes, graph.nodes):
            return False
        return self._is(graph) or all(np.array_equal(mine[name], theirs[name]) for name in SAME)

    def _is(self, graph: Graph) -> bool:
        """Whether a graph that has as many tensors has the very same, byte by byte."""
        return np.array_equal(self.tensors.view(np.uint8), graph.tensors.view(np.uint8))

    def plan(self, graph: Graph, memory: Memory, backend: Backend, version: Version, max_steps: int) -> tuple[Plan, Pattern] | None:
        """Return the plan of a graph that fits, and its pattern; None where `check` must look at it."""

        def all_nodes() -> Sequence[Node]:
            return check(graph, memory, version, max_steps).nodes

        pattern, changed = self, dict[int, Node]()
        located = self._located_again(graph, memory)
        if located is None:
            found = self._look(graph, memory, version, max_steps)
            if found is None:
                return None
            located, costs, changed = found
            kept = tuple((buffer.remote_ptr, buffer.base, buffer.size) for buffer in located.buffers)
            where = located._replace(buffers=[])  # a pattern keeps no buffer's bytes alive
            pattern = replace(self, tensors=graph.tensors.copy(), costs=costs, located=where, buffers=kept)
        run = self.form.run(self._places(located), changed, all_nodes)
        if run is None:
            return None
        plan = Plan(lambda: tuple(assign(all_nodes(), backend)), frozenset(located.buffers), run)
        return plan, replace(pattern, form=run.form()) if changed else pattern

    def _located_again(self, graph: Graph, memory: Memory) -> Located | None:
        """Return where the tensors lie if this is the graph planned last and its buffers are still there: nothing is to be checked.

        Clients older than GRAPH_RECOMPUTE send a graph again with each token: one of a single node takes 0.43 ms instead of 0.92.
        """
        if self.located is None or not self._is(graph):
            return None
        found = [memory.find(remote_ptr, base, size) for remote_ptr, base, size in self.buffers]
        buffers = [buffer for buffer in found if buffer is not None]
        return self.located._replace(buffers=buffers) if len(buffers) == len(found) else None

    def _look(
        self, graph: Graph, memory: Memory, version: Version, max_steps: int
    ) -> tuple[Located, Indices, dict[int, Node]] | None:
        """Return where the tensors of a graph that fits lie, the steps of its nodes, and those nodes that are not as before."""
        located = memory.locate(graph.tensors)
        sound = located.inside.all() and self._views_lie_inside(graph, located) and not self._disturbed(graph, located)
        if not sound or _differ(self.tensors["ne"] == 0, graph.tensors["ne"] == 0).any():
            return None  # also where a tensor has become empty, or has ceased to be: an empty node is not computed
        try:
            changed = self._changed(graph, memory, version)
        except Violation:
            return None  # which of several is named, `check` decides
        costs = self.costs.copy()
        for index, (_, cost) in changed.items():
            costs[index] = cost
        return None if costs.sum() > max_steps else (located, costs, {index: node for index, (node, _) in changed.items()})

    def _views_lie_inside(self, graph: Graph, located: Located) -> bool:
        """Whether each view lies in what it is a view of, where its offset says."""
        views = np.flatnonzero(self.view_src != NO_TENSOR)
        whole, offset = self.view_src[views], graph.tensors["view_offs"][views]
        same = located.which[views] == located.which[whole]
        # the offsets of both are inside a buffer and far below 2^63, so that a difference below 0 wraps to more than any of them
        there = located.offsets[views] - located.offsets[whole] == offset
        room = located.sizes[whole]
        inside = (offset <= room) & (located.sizes[views] <= room - np.minimum(offset, room))
        return bool((same & there & inside).all())

    def _disturbed(self, graph: Graph, located: Located) -> bool:
        """Whether writing some result could change what is to be read of a source: `backends.disturbed`."""
        dst, src = self.results, self.sources
        begin, other = located.offsets[dst], located.offsets[src]
        apart = (other >= begin + located.sizes[dst]) | (begin >= other + located.sizes[src])
        near = np.flatnonzero(~apart & (located.which[dst] == located.which[src]))
        alike = (begin[near] == other[near]) & self.in_place[near]
        first, second = graph.tensors[dst[near]], graph.tensors[src[near]]
        return bool((~alike | _laid_out_otherwise(first, second)).any())

    def _changed(self, graph: Graph, memory: Memory, version: Version) -> dict[int, tuple[Node, int]]:
        """Return the nodes with other layouts or parameters than before, checked, and their steps; of many, one of each geometry
        stands for all of it.

        Raises:
            Violation: as `check`.
        """
        other = np.append(_laid_out_otherwise(self.tensors, graph.tensors), False)  # the last is what NO_TENSOR finds
        params = _differ(self.tensors["op_params"], graph.tensors["op_params"])
        changed = np.flatnonzero(other[self.operands].any(axis=1) | params[self.at])
        if len(changed) < FEW:
            return {at: check_node(graph, memory, self.operands[at].tolist(), version) for at in changed.tolist()}
        which, kinds = _kinds(graph, memory, self.at[changed], self.operands[changed, 1:], version)
        return {at: kinds[kind] for at, kind in zip(changed.tolist(), which.tolist(), strict=True)}

    def _places(self, located: Located) -> Places:
        none = self.operands == NO_TENSOR
        which, offsets = located.which[self.operands], located.offsets[self.operands]
        which[none], offsets[none] = -1, 0
        return Places([buffer.allocation for buffer in located.buffers], which, offsets)


def _computing(records: npt.NDArray[Any], version: Version) -> Mask | None:
    """Return which nodes compute something; None where one is not to be served, or has a rule on its place in memory."""
    custom, view, plain = _sorts(version)
    numbers = records["op"]
    if (numbers >= len(custom)).any():
        return None
    asked = np.bool_(not RULES["graph.flag-compute"].present(version)) | (records["flags"] & FLAG_COMPUTE != 0)
    computes: Mask = asked & ~view[numbers] & (records["ne"] != 0).all(axis=1)
    return None if custom[numbers].any() or (computes & ~plain[numbers]).any() else computes


def _kinds(graph: Graph, memory: Memory, at: Indices, src: Indices, version: Version) -> tuple[Indices, list[tuple[Node, int]]]:
    """Return of which geometry each node is, and for each geometry one node of it, checked, and its steps.

    Raises:
        Violation: as `check`.
    """
    layout, numbers = layouts(graph.tensors), dict[bytes, int]()
    which: list[int] = []
    for start in range(0, len(at), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        keys = node_keys(graph.tensors[at[part]], at[part], src[part], layout)
        which += [numbers.setdefault(key, len(numbers)) for key in keys]
    found = np.array(which, np.int64)
    _, firsts = np.unique(found, return_index=True)
    return found, [check_node(graph, memory, [at[first], *src[first].tolist()], version) for first in firsts.tolist()]


def _laid_out_otherwise(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> Mask:
    """Return for each pair of records whether type, ne or nb differ."""
    found: Mask = (first["type"] != second["type"]) | _differ(first["ne"], second["ne"]) | _differ(first["nb"], second["nb"])
    return found


def _differ(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> Mask:
    """Return for each row whether it is another than in the other array."""
    if np.array_equal(first, second):  # the usual case, for which no sum along rows is needed
        return np.zeros(len(first), bool)
    found: Mask = (first != second).any(axis=1)
    return found


@cache
def _sorts(version: Version) -> tuple[Mask, Mask, Mask]:
    """Return by op number which ops are refused, which compute nothing, and which do without a rule on where the result lies."""
    ops, names = canonical_ops(version), op_table(version)
    plain = [name in ops and ops[name].placement is None and not ops[name].writes for name in names]
    return np.isin(names, list(CUSTOM_OPS)), np.isin(names, list(VIEW_OPS)), np.array(plain)


@cache
def _slots(version: Version) -> tuple[Mask, Mask]:
    """Return by op number which source slots an op does not read, and which its result may lie upon."""
    ops, names = canonical_ops(version), op_table(version)
    unread, in_place = np.zeros((len(names), MAX_SRC), bool), np.zeros((len(names), MAX_SRC), bool)
    for number, name in enumerate(names):
        if name in ops:
            unread[number, list(ops[name].unread)] = True
            in_place[number, list(ops[name].in_place)] = True
    return unread, in_place


@dataclass(frozen=True, slots=True)
class Known:
    """A pattern, and what its graph came for; the connection may have ended.

    Attributes:
        memory: the connection's buffers.
        backend: what computes it.
        version: the protocol version.
        pattern: the pattern.
    """

    memory: ReferenceType[Memory]
    backend: Backend
    version: Version
    pattern: Pattern


class Planner:
    """Makes plans, and remembers what the next graph of a connection may have in common with those before.

    Args:
        max_steps: elementary steps that a graph may take.
        budget: the memory for graphs, which counts what is remembered; where it runs short, what is remembered makes room.
    """

    def __init__(self, max_steps: int = MAX_STEPS, budget: Budget | None = None) -> None:
        self._max_steps, self._lock = max_steps, Lock()
        self._known: list[Known] = []  # used longest ago first
        self._memory = Share(budget or Budget())
        self._memory.budget.give_way = self.give_way

    def __call__(self, graph: Graph, memory: Memory, backend: Backend, version: Version = DEFAULT) -> Plan:
        """Check a graph and compile it, as `make_plan` does.

        Raises:
            Violation: for the first rule that the graph breaks; nothing has been computed then.
        """
        if not isinstance(backend, Forming):
            return make_plan(graph, memory, backend, version, self._max_steps)
        limits = version, self._max_steps
        old = self._like(graph, memory, backend, version)
        if old is None or (made := old.pattern.plan(graph, memory, backend, *limits)) is None:
            old, first = None, Pattern.first(graph, memory, backend, *limits)
            if first is None or (made := first.plan(graph, memory, backend, *limits)) is None:
                return make_plan(graph, memory, backend, *limits)
        plan, pattern = made
        self._remember(Known(ref(memory), backend, version, pattern), old)
        return plan

    def _like(self, graph: Graph, memory: Memory, backend: Backend, version: Version) -> Known | None:
        """Return the pattern that a graph fits."""
        with self._lock:
            mine = [k for k in self._known if k.memory() is memory and k.backend is backend and k.version == version]
        return next((known for known in reversed(mine) if known.pattern.fits(graph)), None)

    def _remember(self, new: Known, old: Known | None) -> None:
        """Put a pattern last, in the place of an old one, and drop what there is no room for."""
        with self._lock:
            self._known = [k for k in self._known if k is not old and k.memory() is not None] + [new]
            while self._known and not self._fits():
                del self._known[0]

    def _fits(self) -> bool:
        if len(self._known) > MOST or sum(len(k.pattern.tensors) for k in self._known) > MOST_TENSORS:
            return False
        return self._count()

    def _count(self) -> bool:
        return self._memory.resize(sum(k.pattern.nbytes for k in self._known))

    def forget(self, memory: Memory) -> None:
        """Drop the patterns of a connection, which is over."""
        with self._lock:
            self._known = [k for k in self._known if k.memory() is not memory]
            self._count()  # fewer bytes than before: never refused

    def give_way(self) -> bool:
        """Drop all patterns; return whether that has given memory back."""
        with self._lock:
            self._known.clear()
            return self._memory.size > 0 and self._count()
