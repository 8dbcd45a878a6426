"""Servers that break a rule about the uids of graphs, or about use_count."""

from __future__ import annotations

from dataclasses import replace

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server.handlers import Host, Session
from ggml_rpc_ref.spec.messages import MAX_STORED_GRAPHS, NO_REPLY, GraphRecompute
from tests.support.sabotage.table import break_session, lenient

lenient("graph.uid-zero")


@break_session("graph.use-count")
class BelievesUseCount(Session):
    """A graph with a tensor that is used less than never is refused."""

    def handle(self, message: object) -> object:
        if isinstance(message, Graph) and (message.tensors["use_count"] < 0).any():
            raise Violation("graph.use-count", "use_count", -1)
        return super().handle(message)


class CountsUids(Session):
    """A session that knows the uids of the graphs that have come.

    Attributes:
        uids: in order, each once.
    """

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.uids: list[int] = []

    def handle(self, message: object) -> object:
        reply = super().handle(message)
        if isinstance(message, Graph) and message.uid not in self.uids:
            self.uids.append(message.uid)
        return reply


@break_session("graph.recompute-uid")
class TakesTheLatest(CountsUids):
    """Of two graphs of a connection the later is computed again, whichever is meant."""

    def handle(self, message: object) -> object:
        if isinstance(message, GraphRecompute) and len(self.uids) == 2 and message.uid == self.uids[0] != 0:
            message = replace(message, uid=self.uids[1])
        return super().handle(message)


@break_session("graph.uid-store")
class ForgetsNoUid(CountsUids):
    """A graph that was dropped because there were too many is answered as if it were there."""

    def handle(self, message: object) -> object:
        try:
            return super().handle(message)
        except Violation:
            if isinstance(message, GraphRecompute) and len(self.uids) > MAX_STORED_GRAPHS:
                return NO_REPLY
            raise
