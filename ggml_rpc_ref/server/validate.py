"""A received graph becomes checked nodes: everything that a peer could have got wrong is checked here, before anything is computed.

Upstream's constructors check shapes; a graph from the wire has passed through none of them (SEC-25). So each node goes through its
op's own rules again. What can't be known before, the contents of indices, the ops check as they run.

Order of the checks: ids, links, cycles, each tensor's type and place, views, then each node that will be computed. Nothing here
needs a backend: a firewall refuses the same graphs for the same reasons without being able to compute any.

Graphs of thousands of nodes have few distinct ones, so an op's rule is asked once for each distinct combination of op, parameters
and layouts (`_Rules`), and what concerns each tensor is done by numpy over the graph's records (`Memory.tensors`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops import canonical_ops, cost
from ggml_rpc_ref.ops.cost import granted
from ggml_rpc_ref.ops.op import MAX_SRC, Node, Op
from ggml_rpc_ref.ops.overlap import copy_bytes, disturbed
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server.memory import AT_ONCE, Buffer, Memory, Placed
from ggml_rpc_ref.spec.messages import FLAG_COMPUTE
from ggml_rpc_ref.spec.opcodes import CUSTOM_OPS, VIEW_OPS, kinds, op_table
from ggml_rpc_ref.spec.rules import RULES
from ggml_rpc_ref.spec.versions import DEFAULT, NEWEST, Version
from ggml_rpc_ref.tensor import Tensor

MAX_OVERLAPPING_BYTES = 2**30
"""The most that a source may come to as float32 when its elements share bytes (strides of 0, sliding windows): without a bound, a
few bytes on the wire would make the server compute on terabytes."""

MAX_STEPS = 2**44
"""Elementary steps, of about a nanosecond, that a graph may take: five hours on one core. A prompt of 512 tokens through a model
of 70 billion weights takes 2^42."""

NO_TENSOR = -1
"""The index that stands for "no tensor" among links."""


@dataclass(frozen=True, slots=True)
class CheckedGraph:
    """A graph that may be computed.

    Attributes:
        nodes: the nodes to compute, in order; views and nodes without flag COMPUTE are not among them.
        buffers: the buffers that its tensors lie in; once one of them is freed, the graph must not be computed.
    """

    nodes: tuple[Node, ...]
    buffers: frozenset[Buffer]


def check(graph: Graph, memory: Memory, version: Version = DEFAULT, max_steps: int = MAX_STEPS) -> CheckedGraph:
    """Check a graph.

    Args:
        graph: as it came.
        memory: the buffers of the connection that it came on.
        version: decides which op and kind a number means, and whether flag COMPUTE counts.
        max_steps: elementary steps that the graph may take.

    Raises:
        Violation: for the first rule that the graph breaks.
    """
    links = Links.of(graph)
    links.check_acyclic(graph.tensors["op"] == op_table(version).index("CPY"))
    placed = memory.tensors(graph.tensors)
    _check_views(graph, links, placed.tensors, version)
    checked = CheckedGraph(tuple(_nodes(graph, links, placed, version, max_steps)), placed.buffers)
    # not all at once when this returns: freeing a hundred thousand of them holds the GIL for tens of milliseconds
    while placed.tensors:
        del placed.tensors[-AT_ONCE:]
    return checked


@dataclass(frozen=True, slots=True)
class Links:
    """The ids of a graph, resolved to positions in its list of tensors.

    Attributes:
        nodes: positions of the nodes, in the order of execution.
        src: shape (n_tensors, 10), positions of the sources, NO_TENSOR where there is none.
        view_src: shape (n_tensors,), position of what each is a view of, or NO_TENSOR.
        ids: shape (n_tensors,), the ids themselves.
    """

    nodes: list[int]
    src: npt.NDArray[np.int64]
    view_src: npt.NDArray[np.int64]
    ids: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, graph: Graph) -> Links:
        """Resolve a graph's ids.

        Raises:
            Violation: graph.tensor-id, graph.tensor-unique, graph.node-known, graph.node-unique or graph.source-known.
        """
        ids = np.ascontiguousarray(graph.tensors["id"])
        # stable: of two records with one id the later one is named below
        order = np.argsort(ids, kind="stable")
        known = ids[order]
        if len(known) and known[0] == 0:
            raise Violation("graph.tensor-id", f"tensors[{order[0]}].id", 0, "0 means no tensor")
        if len(twice := np.flatnonzero(known[1:] == known[:-1])):
            raise Violation(
                "graph.tensor-unique", f"tensors[{order[twice[0] + 1]}].id", hex(known[twice[0]]), "another tensor has it"
            )
        nodes = _positions(graph.nodes, known, order, "graph.node-known", "nodes[{0}]", none_allowed=False)
        listed, counts = np.unique(nodes, return_counts=True)
        if len(again := listed[counts > 1]):
            raise Violation("graph.node-unique", "nodes", hex(ids[again[0]]), "it is listed twice")
        src = _positions(graph.tensors["src"], known, order, "graph.source-known", "tensors[{0}].src[{1}]")
        view_src = _positions(graph.tensors["view_src"], known, order, "graph.source-known", "tensors[{0}].view_src")
        return cls(nodes.tolist(), src, view_src, ids)

    def check_acyclic(self, copies: npt.NDArray[np.bool_]) -> None:
        """Refuse a graph in which a tensor is its own source through src and view_src.

        Args:
            copies: which tensors are CPY nodes; one that names itself as src[1] is what ggml_cast makes, and no cycle.

        Raises:
            Violation: graph.acyclic.
        """
        src = self.src.copy()
        src[copies & (src[:, 1] == np.arange(len(src))), 1] = NO_TENSOR
        edges = np.column_stack((src, self.view_src))
        if np.all(edges < np.arange(len(edges))[:, None]):
            return  # sources come before their users, as a stock client sends them: no cycle is possible
        # graphlib walks with a stack of its own: a chain of 300,000 sources must not end in a recursion (SEC-24)
        sorter = TopologicalSorter({index: [e for e in row if e != NO_TENSOR] for index, row in enumerate(edges.tolist())})
        try:
            sorter.prepare()
        except CycleError as error:
            position = error.args[1][0]
            raise Violation("graph.acyclic", f"tensors[{position}]", hex(self.ids[position]), "it is its own source") from None


def _positions(
    wanted: npt.NDArray[Any],
    known: npt.NDArray[np.uint64],
    order: npt.NDArray[np.int64],
    rule: str,
    field: str,
    none_allowed: bool = True,
) -> npt.NDArray[np.int64]:
    """Return where each wanted id stands in the list of tensors; NO_TENSOR for 0 where that is allowed."""
    if len(known) == 0:
        found = np.full(wanted.shape, NO_TENSOR, np.int64)
        missing = wanted != 0 if none_allowed else np.ones(wanted.shape, bool)
    else:
        # an id above all others is sought one past the end
        at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        matches = known[at] == wanted
        found = np.where(matches, order[at], NO_TENSOR)
        missing = ~matches & (wanted != 0) if none_allowed else ~matches
    if missing.any():
        where = tuple(int(axis[0]) for axis in np.nonzero(missing))
        raise Violation(rule, field.format(*where), hex(int(wanted[where])), "no tensor of this graph has this id")
    return found


def _check_views(graph: Graph, links: Links, tensors: list[Tensor], version: Version) -> None:
    """Refuse a view that does not lie inside what it is a view of (OBS-9)."""
    for index in np.flatnonzero(links.view_src != NO_TENSOR).tolist():
        view, whole, offset = tensors[index], tensors[links.view_src[index]], int(graph.tensors["view_offs"][index])
        if view.storage is None and whole.storage is None:
            continue  # both are in memory of another server or not allocated (FUN-01): no byte of them is here
        if not view.nbytes and RULES["tensor.empty-anywhere"].present(version):
            continue
        # by identity: two buffers of equal bytes are two buffers
        if view.storage is not whole.storage or view.offset != whole.offset + offset:
            raise Violation(
                "graph.view", f"tensor {view.name!r}.data", f"view_offs {offset}", "not where view_src and view_offs put it"
            )
        if offset + view.nbytes > whole.nbytes:
            raise Violation(
                "graph.view",
                f"tensor {view.name!r}.view_offs",
                offset,
                f"its {view.nbytes} bytes leave the {whole.nbytes} of view_src",
            )


def _nodes(graph: Graph, links: Links, placed: Placed, version: Version, max_steps: int) -> Iterator[Node]:
    """Yield the nodes to compute, in order.

    Raises:
        Violation: for the first node that breaks a rule.
    """
    if not links.nodes:
        return
    rules = _Rules(max_steps)
    tensors = [*placed.tensors, None]  # so that NO_TENSOR, which is -1, finds None
    # in parts: a list of all of a graph's numbers is made in one go, and other threads wait for it
    for start in range(0, len(links.nodes), AT_ONCE):
        yield from _listed(links.nodes[start : start + AT_ONCE], graph, links, placed, tensors, rules, version)


def _listed(
    nodes: list[int], graph: Graph, links: Links, placed: Placed, tensors: list[Tensor | None], rules: _Rules, version: Version
) -> Iterator[Node]:
    """Yield what `_nodes` does of some of the nodes; `tensors` ends with None, for NO_TENSOR."""
    ops, at = canonical_ops(version), np.array(nodes)
    records, src = graph.tensors[at], links.src[at]
    # has_bytes[-1] is some other tensor's; the comparison beside it hides it for NO_TENSOR
    complete = placed.has_bytes[at] & ((src == NO_TENSOR) | placed.has_bytes[src]).all(axis=1)
    used = ((src != NO_TENSOR) * np.arange(1, MAX_SRC + 1)).max(axis=1)  # slots up to the last one that is not empty
    # V, not S: numpy cuts trailing zero bytes from S
    op_params = np.ascontiguousarray(records["op_params"]).view("V64").ravel().tolist()
    columns = (records["op"].tolist(), records["flags"].tolist(), src.tolist(), used.tolist(), complete.tolist(), op_params)
    keys = node_keys(records, at, src, placed.layout)
    for index, number, flags, sources, count, has_bytes, params, key in zip(nodes, *columns, keys, strict=True):
        dst = placed.tensors[index]
        name = _computed_op(number, flags, dst, version)
        if name:
            operands = tuple([tensors[source] for source in sources[:count]])
            if not has_bytes:
                _check_bytes(name, dst, operands)
            node, _ = rules.node(ops[name], dst, operands, _op_params(name, dst, params, version), key)
            yield node


def _computed_op(number: int, flags: int, dst: Tensor, version: Version) -> str:
    """Return the name of the op that a node computes; nothing for a node that computes nothing.

    Raises:
        Violation: graph.op-custom, graph.op-known, graph.op-supported.
    """
    ops = op_table(version)
    name = ops[number] if number < len(ops) else ""
    # before the flag is looked at: a function pointer is refused also where the node would not be computed (SEC-05)
    if name in CUSTOM_OPS:
        raise Violation("graph.op-custom", f"node {dst.name!r}.op", name, "its op_params would be a function pointer")
    if not flags & FLAG_COMPUTE and RULES["graph.flag-compute"].present(version):
        return ""  # as upstream does since 2026-01-19 (llama.cpp #18550)
    if not name:
        raise Violation("graph.op-known", f"node {dst.name!r}.op", number, f"the op table has {len(ops)} ops")
    if name in VIEW_OPS or dst.nelements == 0:
        return ""  # upstream's CPU backend returns at once for both (ggml_compute_forward in ggml-cpu.c)
    if name not in canonical_ops(version):
        raise Violation("graph.op-supported", f"node {dst.name!r}.op", name, "this server has no kernel for it")
    return name


def _op_params(name: str, dst: Tensor, raw: bytes, version: Version) -> bytes:
    """Return op_params with UNARY's or GLU's kind numbered as the newest version does."""
    theirs, ours = kinds(name, version), kinds(name, NEWEST)
    if theirs == ours:
        return raw
    number = int.from_bytes(raw[:4], "little", signed=True)
    if not 0 <= number < len(theirs):
        raise Violation("graph.shape", f"node {dst.name!r}.op_params[0]", number, f"{name} has {len(theirs)} kinds")
    return ours.index(theirs[number]).to_bytes(4, "little") + raw[4:]


def _check_bytes(name: str, dst: Tensor, src: tuple[Tensor | None, ...]) -> None:
    """Refuse a node whose operands have no bytes here."""
    for field, tensor in (("dst", dst), *((f"src[{i}]", tensor) for i, tensor in enumerate(src))):
        if tensor is not None and tensor.storage is None:
            raise Violation(
                "graph.null-data", f"{name} {dst.name!r}.{field}", "null", "a computed node needs its bytes on this server"
            )


def _check_overlap(name: str, dst: Tensor, src: tuple[Tensor | None, ...]) -> None:
    """Refuse a result whose elements share bytes, and a source whose elements do beyond measure."""
    for field, tensor in (("dst", dst), *((f"src[{i}]", tensor) for i, tensor in enumerate(src))):
        if tensor is None or tensor.nelements // tensor.dtype.block * tensor.dtype.size <= tensor.nbytes:
            continue
        if tensor is dst or 4 * tensor.nelements > MAX_OVERLAPPING_BYTES:
            raise Violation("graph.shape", f"{name} {dst.name!r}.{field}.nb", tensor.nb, "its elements share bytes")


def check_node(graph: Graph, memory: Memory, operands: list[int], version: Version) -> tuple[Node, int]:
    """Check one node that computes something, of a graph whose links are known; return it and the steps that it takes.

    Args:
        graph: as it came.
        memory: the buffers of the connection.
        operands: positions of the node and of its sources, NO_TENSOR for an empty slot.
        version: as in `check`.

    Raises:
        Violation: as `check`.
    """
    dst, *src = [None if position == NO_TENSOR else memory.at(graph.tensors[position]) for position in operands]
    assert dst is not None
    while src and src[-1] is None:
        src.pop()
    record = graph.tensors[operands[0]]
    name = op_table(version)[int(record["op"])]
    _check_bytes(name, dst, tuple(src))
    params = _op_params(name, dst, record["op_params"].tobytes(), version)
    return _Rules(MAX_STEPS).node(canonical_ops(version)[name], dst, tuple(src), params, b"")


# ------------------------------------------------------------------------------------------------------ one check for many


def node_keys(
    records: npt.NDArray[Any], at: npt.NDArray[np.int64], src: npt.NDArray[np.int64], layouts: npt.NDArray[np.int64]
) -> list[bytes]:
    """Return for each node all that an op's rule on geometry looks at, as bytes: equal ones are judged alike.

    Args:
        records: of the nodes.
        at: which tensor each node is.
        src: shape (n, 10), and which ones its sources are, NO_TENSOR for an empty slot.
        layouts: of all tensors, as `memory.layouts` numbers them.
    """
    # so that an empty slot, index -1, finds a number that no layout has
    layout = np.append(layouts, NO_TENSOR)
    keys = np.zeros(len(at), [("op", "<u4"), ("layout", "<i4", 1 + MAX_SRC), ("params", "V64")])
    keys["op"], keys["params"] = records["op"], np.ascontiguousarray(records["op_params"]).view("V64").ravel()
    keys["layout"][:, 0], keys["layout"][:, 1:] = layout[at], layout[src]
    found: list[bytes] = keys.view(f"V{keys.dtype.itemsize}").tolist()
    return found


class _Rules:
    """The answers of the ops' rules on geometry for one graph's nodes, so that each distinct question is asked once."""

    def __init__(self, max_steps: int) -> None:
        # to the steps that it takes, and the bytes that it needs where it lies upon its source, if that is more than is granted
        self._accepted: dict[bytes, tuple[int, int]] = {}
        self._max_steps, self._steps = max_steps, 0

    def node(self, op: Op, dst: Tensor, src: tuple[Tensor | None, ...], op_params: bytes, key: bytes) -> tuple[Node, int]:
        """Return the node if it has a meaning for its op, and the steps that it takes.

        Raises:
            Violation: graph.arity, graph.type, graph.shape or graph.cost.
        """
        if key in self._accepted:
            node = Node(dst, src, op_params, op)
        else:
            _check_overlap(op.name, dst, src)
            node = op.check_geometry(dst, src, op_params)
            steps, spare = cost_of(node)
            copy = copy_bytes(dst)
            self._accepted[key] = steps, granted(node) - spare + copy if copy > spare else 0
        steps, aside = self._accepted[key]
        self._steps += steps
        if self._steps > self._max_steps:
            raise Violation("graph.cost", f"{op.name} {dst.name!r}", f"{self._steps} steps", f"a graph may take {self._max_steps}")
        # each time: the key says nothing of where tensors lie, and an update in place may name another tensor than its weight
        op.check_placement(node)
        if aside and disturbed(node):
            raise _too_large(node, f"{aside} bytes, {copy_bytes(dst)} bytes of it a copy of the result, which lies over its source")
        return node, steps


def check_cost(node: Node) -> int:
    """Return the steps that a node takes; refuse it if it needs much more memory than its operands."""
    return cost_of(node)[0]


def cost_of(node: Node) -> tuple[int, int]:
    """Return the steps that a node takes, and how many bytes more it may need than it does, wherever its operands lie.

    Raises:
        Violation: graph.cost, where it needs more than is granted.
    """
    temporaries, steps = node.op.cost(node)
    if temporaries > granted(node):
        raise _too_large(node, f"{temporaries} bytes")
    return steps, granted(node) - temporaries


def _too_large(node: Node, what: str) -> Violation:
    beyond = f"{cost.GRANT} beyond its operands as F32 ({granted(node) - cost.GRANT}) are granted"
    return Violation("graph.cost", f"{node.op.name} {node.dst.name!r}", what, beyond)
