"""The graphs of one connection that GRAPH_RECOMPUTE may compute again, and the memory that they and an arriving one have.

Up to 7.0.0 a device has one, the last that came. Since 8.0.0 a graph has a number, its uid, and a device stores graphs under as
many uids as `MAX_STORED_GRAPHS`; then the next one drops them all. Client and server count for themselves, so a uid goes on
counting when its graph is dropped with a buffer.

A plan costs several times its graph's bytes, and a client that runs for hours comes to all of these uids. Where the memory for
graphs would run out, the plans used longest ago are given up and their graphs kept as compressed bytes, from which they are made
again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.backends import Cancelled
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server.budget import ARRIVING, KEPT, Budget, Share
from ggml_rpc_ref.server.memory import Buffer
from ggml_rpc_ref.spec.messages import MAX_STORED_GRAPHS, GraphCompute, has_field
from ggml_rpc_ref.spec.versions import Version

AT_ONCE = 2**16
"""Bytes of a graph that are compared without letting another thread run."""


COMPARED: Final = 2**20
"""Bytes of the largest graph that is kept only to tell whether it comes again: a model's has some hundred thousand. A larger one
gains little, and on the oracle it would add its size to its plan's: 273 MiB instead of 215 for 200,000 ADD. Native's plans refer to
their graphs in any case."""


class Runnable(Protocol):
    """A checked graph that can be computed, as `plan.Plan` is."""

    @property
    def buffers(self) -> frozenset[Buffer]:
        """The buffers that its tensors lie in."""

    def run(self, cancelled: Cancelled) -> None:
        """Compute it on the bytes that are there now, until it is done or cancelled (then it raises `backends.Stopped`)."""

    def dismantle(self) -> None:
        """Give its memory back in parts, so that other connections are served in between; it can't be run after that."""


@dataclass(slots=True)
class _Stored:
    """A stored graph.

    Attributes:
        buffers: the buffers that it uses.
        size: bytes of the graph.
        used: when it was computed last, by a count.
        plan: its plan; None: given up.
        graph: as it came; None where it is too large to be kept for comparison alone, or once the plan has been given up.
        spare: whether the plan may be given up, to be made from the graph again.
        packed: the graph, compressed, once the plan has been given up.
    """

    buffers: frozenset[Buffer]
    size: int
    used: int
    plan: Runnable | None
    graph: Graph | None
    spare: bool
    packed: bytes = b""

    @property
    def held(self) -> int:
        """Bytes of memory."""
        return len(self.packed) if self.plan is None else KEPT * self.size

    def give_up(self) -> None:
        """Give the plan's memory back."""
        if self.plan is not None:
            self.plan.dismantle()
        self.plan = self.graph = None


class StoredGraphs:
    """The stored graphs of a connection.

    Args:
        budget: the memory for graphs of all connections.
        version: the protocol version, which says whether graphs have uids.

    Attributes:
        memory: what the stored graphs, and one that is arriving, have of the budget.
        changes: how often a plan has come, gone, or been made again.
    """

    def __init__(self, budget: Budget, version: Version) -> None:
        self.memory, self._version = Share(budget), version
        self._by_uid = has_field(GraphCompute, "uid", version)
        # None: the graph was dropped and its uid still counts
        self._stored: dict[int, dict[int, _Stored | None]] = {}
        self._taken: _Stored | None = None
        self._clock = self.changes = 0

    def __len__(self) -> int:
        """How many graphs can be computed again; may be asked for by another thread."""
        return sum(stored is not None for graphs in list(self._stored.values()) for stored in list(graphs.values()))

    def devices(self) -> set[int]:
        """Return the devices that have a graph which can be computed again."""
        return {device for device, graphs in self._stored.items() if any(graphs.values())}

    # --------------------------------------------------------------------------------------------------------- arriving

    def arriving(self, arrived: int) -> None:
        """Count the memory for a graph of which so many bytes have arrived; 0: for the stored ones alone.

        Raises:
            Violation: frame.size-bounded, where there is no room for it.
        """
        while not self.memory.resize(self._held() + ARRIVING * arrived):
            # what only saves time before what a client may ask for again
            if not self.memory.budget.give_way() and not self._give_up_one():
                budget = self.memory.budget
                detail = f"a connection's graphs have {budget.per_share} bytes of memory, {budget.used} of {budget.total} are taken"
                raise Violation("frame.size-bounded", "GraphCompute size", f"{arrived} bytes so far", detail)

    def make_room(self, graph: Graph) -> None:
        """Drop what a graph takes the place of, and count the memory that computing it needs.

        Raises:
            Violation: as `arriving`.
        """
        graphs = self._stored.setdefault(graph.device, {})
        self.changes += 1
        if not self._by_uid:
            _clear(graphs)
        elif graph.uid:
            # also where the uid is one of them: a stock client counts alike (graph_compute in ggml-rpc.cpp)
            if len(graphs) >= MAX_STORED_GRAPHS:
                _clear(graphs)
            _drop(graphs, graph.uid)
        # what the older graph had is not given back before this: it must not be free for other connections in between
        self.arriving(_size(graph))

    def take(self, graph: Graph) -> Runnable | None:
        """Take out the plan of the stored graph whose place this one is to have, where the two are the same: it holds as it is.

        Nothing of what `make_plan` looks at can have changed since: a graph is dropped with the first of its buffers. Clients that
        know no GRAPH_RECOMPUTE, and those that try an op many times, send the same graph again and again: one of a single node
        takes 5 µs this way; finding its pattern takes 100 (`patterns`).
        """
        graphs = self._stored.get(graph.device, {})
        stored = graphs.get(graph.uid)
        # a full table is cleared by this graph, whatever it is: see `make_room`
        if stored is None or stored.plan is None or stored.graph is None or len(graphs) >= MAX_STORED_GRAPHS:
            return None
        if not (_same(stored.graph.nodes, graph.nodes) and _same(stored.graph.tensors, graph.tensors)):
            return None
        graphs[graph.uid], self._taken = None, stored  # until `store` puts it back: where running it fails, none is left
        return stored.plan

    def store(self, graph: Graph, plan: Runnable) -> None:
        """Store a graph that has been computed, unless its uid says not to."""
        taken, self._taken = self._taken, None
        if taken is not None and taken.plan is plan:
            taken.used = self._now()
            self._stored[graph.device][graph.uid] = taken
            return
        if graph.uid or not self._by_uid:
            kept = graph if self._by_uid or _size(graph) <= COMPARED else None
            stored = _Stored(plan.buffers, _size(graph), self._now(), plan, kept, spare=self._by_uid)
            self._stored[graph.device][graph.uid] = stored
            self.changes += 1
        # this only lowers what is held, since KEPT < ARRIVING: it can't be refused after the graph has been computed
        self.arriving(0)

    # -------------------------------------------------------------------------------------------------------- computing

    def find(self, device: int, uid: int, make_plan: Callable[[Graph], Runnable]) -> Runnable:
        """Return the plan of a stored graph.

        Args:
            device: index.
            uid: the graph's number; 0 in versions without.
            make_plan: makes the plan again where it was given up.

        Raises:
            Violation: graph.uid-zero, graph.recompute-stored; what `make_plan` raises.
        """
        if self._by_uid and not uid:
            raise Violation("graph.uid-zero", "uid", 0, "a graph of uid 0 is not stored")
        stored = self._stored.get(device, {}).get(uid)
        if stored is None:
            field, value = ("uid", uid) if self._by_uid else ("device", device)
            raise Violation("graph.recompute-stored", field, value, f"no graph is stored for it on device {device}")
        stored.used = self._now()
        if stored.plan is None:
            self._make_again(stored, make_plan)
        assert stored.plan is not None
        return stored.plan

    def plan(self, device: int, uid: int) -> Runnable | None:
        """Return the plan of a stored graph, which is not made again for it; None where there is none."""
        stored = self._stored.get(device, {}).get(uid)
        return None if stored is None else stored.plan

    def is_full(self, device: int) -> bool:
        """Whether the next graph of a device drops all that are stored."""
        return self._by_uid and len(self._stored.get(device, {})) >= MAX_STORED_GRAPHS

    def _make_again(self, stored: _Stored, make_plan: Callable[[Graph], Runnable]) -> None:
        self.changes += 1
        self.arriving(stored.size)
        stored.graph = Graph.decode(zlib.decompress(stored.packed), self._version)
        stored.plan, stored.packed = make_plan(stored.graph), b""
        self.arriving(0)

    # --------------------------------------------------------------------------------------------------------- dropping

    def drop(self, buffer: Buffer) -> None:
        """Drop every graph that uses a buffer (graph.recompute-freed)."""
        self.changes += 1
        for graphs in self._stored.values():
            for uid, stored in graphs.items():
                if stored is not None and buffer in stored.buffers:
                    _drop(graphs, uid)
        self.arriving(0)

    def clear(self) -> None:
        """Drop every graph and give all memory back."""
        self.changes += 1
        for graphs in self._stored.values():
            _clear(graphs)
        self._stored.clear()
        self.memory.resize(0)

    # ---------------------------------------------------------------------------------------------------------- memory

    def _alive(self) -> list[_Stored]:
        return [stored for graphs in self._stored.values() for stored in graphs.values() if stored is not None]

    def _held(self) -> int:
        return sum(stored.held for stored in self._alive())

    def _give_up_one(self) -> bool:
        """Give up the plan used longest ago; return False where there is none to give up."""
        made = [stored for stored in self._alive() if stored.plan is not None and stored.spare]
        if not made:
            return False
        oldest = min(made, key=lambda stored: stored.used)
        assert oldest.graph is not None
        # level 1: a third of level 6's time; tensor records shrink to a tenth in either
        oldest.packed = zlib.compress(oldest.graph.encode(self._version), 1)
        oldest.give_up()
        self.changes += 1
        return True

    def _now(self) -> int:
        self._clock += 1
        return self._clock


def _drop(graphs: dict[int, _Stored | None], uid: int) -> None:
    """Drop the graph of a uid, which goes on counting."""
    if (stored := graphs.get(uid)) is not None:
        stored.give_up()
    graphs[uid] = None


def _clear(graphs: dict[int, _Stored | None]) -> None:
    """Drop all graphs of a device, uids included."""
    for uid in graphs:
        _drop(graphs, uid)
    graphs.clear()


def _same(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> bool:
    """Whether two arrays of a graph have the same bytes."""
    one, other = first.view(np.uint8), second.view(np.uint8)
    if one.nbytes <= AT_ONCE:
        # as bytes, and not by numpy: 1 µs instead of 13 for a few records
        return bool(one.data == other.data)
    # numpy lets other threads run meanwhile; comparing the bytes of 100,000 tensors kept them waiting for 46 ms
    slices = (slice(at, at + AT_ONCE) for at in range(0, one.nbytes, AT_ONCE))
    return one.nbytes == other.nbytes and all(np.array_equal(one[part], other[part]) for part in slices)


def _size(graph: Graph) -> int:
    return graph.nodes.nbytes + graph.tensors.nbytes
