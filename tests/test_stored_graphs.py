"""The graphs that a connection stores: what they hold of the memory for graphs, and what happens where it runs short."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server import stored_graphs
from ggml_rpc_ref.server.budget import ARRIVING, KEPT, Budget
from ggml_rpc_ref.server.memory import Buffer, Memory
from ggml_rpc_ref.server.stored_graphs import StoredGraphs
from ggml_rpc_ref.spec.messages import MAX_STORED_GRAPHS, RpcTensor
from ggml_rpc_ref.spec.versions import Version

SEVEN, EIGHT = Version(7, 0, 0), Version(8, 0, 0)
TENSORS = 10
SIZE = TENSORS * 296
"""Bytes of each graph here."""


DISMANTLED: list[int] = []
"""The uids of plans that were, in their order."""


@pytest.fixture(autouse=True)
def none_yet() -> None:
    DISMANTLED.clear()


@dataclass
class Plan:
    """Stands for a plan of a graph."""

    graph: Graph
    buffers: frozenset[Buffer] = frozenset()

    def run(self, cancelled: object) -> None:
        """Compute nothing."""

    def dismantle(self) -> None:
        """Remember it."""
        DISMANTLED.append(self.graph.uid)


@dataclass
class Maker:
    """Makes plans again, and remembers of which graphs."""

    made: list[int] = field(default_factory=list)

    def __call__(self, graph: Graph) -> Plan:
        self.made.append(int(graph.tensors["id"][0]))
        return Plan(graph)


def graph(uid: int = 0, device: int = 0) -> Graph:
    """A graph whose first tensor has the uid as its id."""
    tensors = np.zeros(TENSORS, codec.layout(RpcTensor, EIGHT))
    tensors["id"][0] = uid
    return Graph(device, np.zeros(0, "<u8"), tensors, uid)


def store(graphs: StoredGraphs, uid: int, device: int = 0, buffers: frozenset[Buffer] = frozenset()) -> None:
    new = graph(uid, device)
    graphs.make_room(new)
    graphs.store(new, Plan(new, buffers))


def ids_found(graphs: StoredGraphs, *uids: int, device: int = 0) -> list[int]:
    """The ids in the plans that are found, as those that had to be made again show them."""
    maker = Maker()
    found = [graphs.find(device, uid, maker) for uid in uids]
    return [int(plan.graph.tensors["id"][0]) for plan in found]  # type: ignore[attr-defined]


def test_a_device_without_uids_stores_the_last_graph_of_each_device() -> None:
    graphs = StoredGraphs(Budget(2**20), SEVEN)
    for device, number in ((0, 1), (1, 2), (0, 3)):
        new = graph(0, device)
        new.tensors["id"][0] = number
        graphs.make_room(new)
        graphs.store(new, Plan(new))
    assert [ids_found(graphs, 0, device=device) for device in (0, 1)] == [[3], [2]]
    assert len(graphs) == 2
    assert graphs.memory.size == 2 * KEPT * SIZE


def test_an_arriving_graph_and_stored_ones_are_counted() -> None:
    graphs = StoredGraphs(Budget(2**20), EIGHT)
    for uid in (1, 2, 3):
        store(graphs, uid)
    assert graphs.memory.size == 3 * KEPT * SIZE
    graphs.arriving(1000)
    assert graphs.memory.size == 3 * KEPT * SIZE + 1000 * ARRIVING
    store(graphs, 0)
    assert (len(graphs), graphs.memory.size) == (3, 3 * KEPT * SIZE)
    graphs.clear()
    assert (len(graphs), graphs.memory.size) == (0, 0)


def test_where_memory_is_short_the_plans_used_longest_ago_are_made_again_when_they_are_needed() -> None:
    """A client that runs for hours comes to a thousand uids; it must not be refused for that."""
    budget = Budget(2 * (3 * KEPT + ARRIVING) * SIZE)
    graphs = StoredGraphs(budget, EIGHT)
    for uid in range(1, 101):
        store(graphs, uid)
        assert graphs.memory.size <= budget.per_share
    assert len(graphs) == 100
    maker = Maker()
    for uid in (99, 100, 1, 100, 50, 1):
        plan = graphs.find(0, uid, maker)
        assert plan.graph.tensors.tobytes() == graph(uid).tensors.tobytes()  # type: ignore[attr-defined]
    assert maker.made[0] in (1, 99)
    assert 100 not in maker.made
    assert maker.made.count(50) == 1
    assert graphs.memory.size <= budget.per_share


def test_a_graph_that_finds_no_room_even_then_is_refused() -> None:
    graphs = StoredGraphs(Budget(2 * ARRIVING * SIZE - 2), EIGHT)
    with pytest.raises(Violation) as caught:
        graphs.make_room(graph(1))
    assert caught.value.rule == "frame.size-bounded"


def test_one_without_uids_is_never_given_up() -> None:
    """It has no other to make room for."""
    graphs = StoredGraphs(Budget(2 * (KEPT + ARRIVING) * SIZE - 2), SEVEN)
    store(graphs, 0, device=0)
    with pytest.raises(Violation):
        graphs.make_room(graph(0, device=1))
    assert ids_found(graphs, 0) == [0]


@pytest.mark.parametrize("at_once", [2**16, 100])
@pytest.mark.parametrize("version", [SEVEN, EIGHT], ids=str)
def test_the_same_graph_again_needs_no_new_plan(version: Version, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_graphs, "AT_ONCE", at_once)
    graphs = StoredGraphs(Budget(2**20), version)
    uid = 5 if version == EIGHT else 0
    assert graphs.take(graph(uid)) is None
    store(graphs, uid)
    other = graph(uid)
    other.tensors["data"][-1] = 64
    same = graph(uid).tensors
    longer = Graph(0, np.zeros(1, "<u8"), same, uid), Graph(0, np.zeros(0, "<u8"), same[:-1], uid)
    for different in (graph(uid, device=1), other, *longer, *([Graph(0, np.zeros(0, "<u8"), same)] if uid else [])):
        assert graphs.take(different) is None
    held, plan = graphs.memory.size, graphs.find(0, uid, Maker())
    assert graphs.take(graph(uid)) is plan
    # while it runs there is none to be recomputed
    with pytest.raises(Violation):
        graphs.find(0, uid, Maker())
    graphs.store(graph(uid), plan)
    assert graphs.find(0, uid, Maker()) is plan
    assert (len(graphs), graphs.memory.size) == (1, held)
    assert DISMANTLED == []


def test_the_same_graph_has_no_plan_any_more_once_a_buffer_is_freed_or_the_table_is_full() -> None:
    memory = Memory([HostMemory(2**20)])
    used = memory.alloc(0, 64)
    assert used is not None
    graphs = StoredGraphs(Budget(2**24), EIGHT)
    store(graphs, 1, buffers=frozenset({used}))
    graphs.drop(used)
    assert graphs.take(graph(1)) is None
    for uid in range(1, MAX_STORED_GRAPHS + 1):
        store(graphs, uid)
        same = graphs.take(graph(uid))
        # one more GRAPH_COMPUTE clears a full table, even of a uid that is in it: upstream's client counts so
        assert (same is None) == (uid == MAX_STORED_GRAPHS)
        if same is not None:
            graphs.store(graph(uid), same)
    assert len(graphs) == MAX_STORED_GRAPHS


@pytest.mark.parametrize(("version", "uid", "found"), [(SEVEN, 0, False), (EIGHT, 1, True)], ids=str)
def test_a_large_graph_is_not_kept_to_be_compared(version: Version, uid: int, found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with a uid is kept in any case: its plan may have to be made again."""
    monkeypatch.setattr(stored_graphs, "COMPARED", SIZE - 1)
    graphs = StoredGraphs(Budget(2**20), version)
    store(graphs, uid)
    assert (graphs.take(graph(uid)) is not None) is found


def test_a_plan_that_was_given_up_is_made_again_for_the_same_graph() -> None:
    graphs = StoredGraphs(Budget(2 * (KEPT + ARRIVING) * SIZE - 2), EIGHT)
    store(graphs, 1)
    store(graphs, 2)  # takes the place of the first one's plan
    assert graphs.take(graph(1)) is None
    assert graphs.take(graph(2)) is not None


def test_a_dropped_graph_is_gone_also_when_its_plan_had_been_given_up() -> None:
    memory = Memory([HostMemory(2**20)])
    used, other = memory.alloc(0, 64), memory.alloc(0, 64)
    assert used is not None
    assert other is not None
    graphs = StoredGraphs(Budget(2 * (KEPT + ARRIVING) * SIZE - 2), EIGHT)
    store(graphs, 1, buffers=frozenset({used}))
    store(graphs, 2, buffers=frozenset({other}))  # takes the place of the first one's plan
    graphs.drop(used)
    with pytest.raises(Violation) as caught:
        graphs.find(0, 1, Maker())
    assert caught.value.rule == "graph.recompute-stored"
    assert ids_found(graphs, 2) == [2]
    assert graphs.devices() == {0}
    graphs.drop(other)
    assert (len(graphs), graphs.devices(), graphs.memory.size) == (0, set(), 0)


def test_whatever_drops_a_graph_dismantles_its_plan() -> None:
    """Freed in one go, a plan of 30,000 steps would keep every other connection waiting."""
    buffer = Memory([HostMemory(2**20)], EIGHT).alloc(0, 64)
    assert buffer is not None
    graphs = StoredGraphs(Budget(), EIGHT)
    for uid in (1, 2, 3):
        store(graphs, uid, buffers=frozenset({buffer} if uid == 2 else ()))
    store(graphs, 1)
    assert DISMANTLED == [1]
    graphs.drop(buffer)
    assert DISMANTLED == [1, 2]
    graphs.clear()
    assert sorted(DISMANTLED) == [1, 1, 2, 3]
