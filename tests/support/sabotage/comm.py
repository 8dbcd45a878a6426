"""Servers that break a rule of the section "comm"."""

from __future__ import annotations

from collections.abc import Callable

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.server.handlers import Host, Session
from ggml_rpc_ref.spec.messages import CommAllreduce, CommFree, CommInit, CommInitReply
from tests.support.sabotage.sessions import flip
from tests.support.sabotage.table import answering, break_session, lenient

BF16_FROM = 32768

lenient("comm.needed", "comm.tensor", "comm.peer-lost")

answering("comm.init", CommInit, lambda session, message, right: CommInitReply(ok=2) if right.ok else right)


def refuse_failure(session: Session, message: CommInit, right: CommInitReply) -> CommInitReply:
    """End the connection where it can't join."""
    if not right.ok:
        raise Violation("comm.init-fails", "world", message.world)
    return right


answering("comm.init-fails", CommInit, refuse_failure)


@break_session("comm.init-again")
class JoinsOnce(Session):
    """A second COMM_INIT is answered with 0."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.is_joined = False

    def handle(self, message: object) -> object:
        reply = super().handle(message)
        if isinstance(message, CommInit) and isinstance(reply, CommInitReply) and reply.ok:
            reply, self.is_joined = CommInitReply(ok=int(not self.is_joined)), True
        self.is_joined = self.is_joined and not isinstance(message, CommFree)
        return reply


def spoil_sum(matters: Callable[[int], bool]) -> Callable[[Session, CommAllreduce, object], object]:
    """Return what changes the first byte of a sum of so many elements."""

    def spoil(session: Session, message: CommAllreduce, right: object) -> object:
        if matters(message.tensor.ne[0]):
            flip(session, message.tensor.data, message.tensor.buffer)
        return right

    return spoil


answering("comm.sum", CommAllreduce, spoil_sum(lambda count: count < BF16_FROM))
answering("comm.sum-large", CommAllreduce, spoil_sum(lambda count: count >= BF16_FROM))


@break_session("comm.free")
class FreesWhatIsThere(Session):
    """COMM_FREE where there is no communicator is refused."""

    def handle(self, message: object) -> object:
        if isinstance(message, CommFree) and message.device not in self.communicators:
            raise Violation("comm.free", "device", message.device)
        return super().handle(message)
