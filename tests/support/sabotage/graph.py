"""Servers that break a rule of the section "graph"."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server.handlers import Host, Session
from ggml_rpc_ref.spec.messages import FLAG_COMPUTE, NO_REPLY, FreeBuffer, GraphRecompute
from ggml_rpc_ref.spec.opcodes import op_table
from tests.support.sabotage.sessions import SMALL, ChangesGraphs, bytes_at, nodes_of, read, write
from tests.support.sabotage.table import break_connection, break_session, lenient
from tests.support.sabotage.wire import GRAPH_COMPUTE, Rewriting, frame

OPS = op_table()

lenient(
    "graph.tensor-id",
    "graph.tensor-unique",
    "graph.node-known",
    "graph.node-unique",
    "graph.source-known",
    "graph.acyclic",
    "graph.null-data",
    "graph.op-known",
    "graph.op-custom",
    "graph.arity",
    "graph.type",
    "graph.shape",
    "graph.index",
    "graph.view",
)


@break_connection("graph.size-exact")
class IgnoresWrongCounts(Rewriting):
    """A GRAPH_COMPUTE whose counts do not match its size is ignored."""

    def may_hold(self, command: int) -> bool:
        return command == GRAPH_COMPUTE and self.begun > 0

    def holds(self, command: int, size: int) -> bool:
        return size <= SMALL

    def replaced(self, command: int, payload: bytes) -> bytes:
        try:
            Graph.decode(payload, self.version)
        except Violation as broken:
            if broken.rule == "graph.size-exact":
                return b""
        return frame(command, payload)


@break_session("graph.deep")
class WantsShallowGraphs(ChangesGraphs):
    """Graphs of many tensors are refused."""

    def changed(self, graph: Graph) -> Graph:
        if len(graph.tensors) > 10_000:
            raise Violation("graph.deep", "number of tensors", len(graph.tensors))
        return graph


@break_session("graph.op-supported")
class SkipsSquares(ChangesGraphs):
    """SQR nodes are skipped without a refusal."""

    def changed(self, graph: Graph) -> Graph:
        squares = graph.tensors["id"][graph.tensors["op"] == OPS.index("SQR")]
        return replace(graph, nodes=graph.nodes[~np.isin(graph.nodes, squares)])


@break_session("graph.cost")
class LeavesOutConvolutions(ChangesGraphs):
    """Wide CONV_2D nodes are left out without a refusal."""

    def changed(self, graph: Graph) -> Graph:
        wide = (graph.tensors["op"] == OPS.index("CONV_2D")) & (graph.tensors["ne"][:, 0] > 2**12)
        return replace(graph, nodes=graph.nodes[~np.isin(graph.nodes, graph.tensors["id"][wide])])


@break_session("graph.overlap")
class WritesBeforeItReads(ChangesGraphs):
    """The last element of a result that shares bytes with a source otherwise than in place comes out wrong."""

    def then(self, graph: Graph) -> None:
        by_id = {int(record["id"]): record for record in graph.tensors}
        for dst in (by_id[int(number)] for number in graph.nodes):
            if dst["op"] in (OPS.index("ADD"), OPS.index("CUMSUM"), OPS.index("CONT"), OPS.index("MUL_MAT")) and dst["flags"]:
                sources = [by_id[int(number)] for number in dst["src"] if number]
                if any(0 <= int(dst["data"]) - int(s["data"]) < 4 * s["ne"].prod() and self.is_askew(dst, s) for s in sources):
                    last = bytes_at(int(dst["data"]) + 4 * int(dst["ne"].prod()) - 4, int(dst["buffer"]), 4)
                    write(self, last, struct.pack("<f", 1 + struct.unpack("<f", read(self, last))[0]))

    @staticmethod
    def is_askew(dst: np.void, source: np.void) -> bool:
        alike = dst["data"] == source["data"] and (dst["nb"] == source["nb"]).all()
        return not alike or bool(dst["op"] == OPS.index("MUL_MAT"))


@break_session("graph.computes")
class MultipliesBadly(ChangesGraphs):
    """The first element of a matrix product is 1 too large."""

    def then(self, graph: Graph) -> None:
        for dst in nodes_of(graph, OPS.index("MUL_MAT")):
            if dst.flags & FLAG_COMPUTE and 0 not in dst.ne:
                first = bytes_at(dst.data, dst.buffer, 4)
                write(self, first, struct.pack("<f", 1 + struct.unpack("<f", read(self, first))[0]))


@break_session("graph.flag-compute")
class TakesAnyFlag(ChangesGraphs):
    """A node with any flag is computed."""

    def changed(self, graph: Graph) -> Graph:
        tensors = graph.tensors.copy()
        tensors["flags"] |= np.where(tensors["flags"] != 0, FLAG_COMPUTE, 0).astype("<i4")
        return replace(graph, tensors=tensors)


@break_session("graph.empty")
class WantsNodes(ChangesGraphs):
    """A graph without nodes is refused."""

    def changed(self, graph: Graph) -> Graph:
        if len(graph.nodes) == 0:
            raise Violation("graph.empty", "number of nodes", 0)
        return graph


@break_session("graph.recompute")
class OneGraphForAll(ChangesGraphs):
    """GRAPH_RECOMPUTE computes the last graph of any device."""

    last: Graph | None = None

    def handle(self, message: object) -> object:
        if isinstance(message, GraphRecompute) and message.device in self.stored.devices() and self.last is not None:
            super().handle(self.last)
            return NO_REPLY
        reply = super().handle(message)
        if isinstance(message, Graph):
            self.last = message
        return reply


class KnowsDroppedGraphs(Session):
    """A session that knows whether a stored graph was dropped because a buffer of it was freed."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.dropped = False

    def handle(self, message: object) -> object:
        before = len(self.stored)
        try:
            return super().handle(message)
        except Violation as broken:
            if broken.rule != "graph.recompute-stored" or not self.lets_pass():
                raise
            return NO_REPLY
        finally:
            self.dropped |= isinstance(message, FreeBuffer) and len(self.stored) < before

    def lets_pass(self) -> bool:
        """Whether a GRAPH_RECOMPUTE without a stored graph is ignored."""
        raise NotImplementedError


@break_session("graph.recompute-stored")
class RecomputesNothing(KnowsDroppedGraphs):
    """GRAPH_RECOMPUTE where no graph was ever stored is ignored."""

    def lets_pass(self) -> bool:
        return not self.dropped


@break_session("graph.recompute-freed")
class ForgivesFreed(KnowsDroppedGraphs):
    """GRAPH_RECOMPUTE of a graph one of whose buffers was freed is ignored."""

    def lets_pass(self) -> bool:
        return self.dropped
