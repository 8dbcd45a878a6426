"""Servers that break a rule of the section "data"."""

from __future__ import annotations

from typing import Any

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.server.handlers import Session
from ggml_rpc_ref.server.session import Area, Download, Upload
from ggml_rpc_ref.spec.messages import CopyTensor, RpcTensor, SetTensorHash, SetTensorHashReply
from tests.support.sabotage.sessions import apart, flip
from tests.support.sabotage.table import answering, break_session, lenient

BF16 = 30

lenient("data.in-tensor", "data.offset-wrap", "data.copy-fits")


@break_session("data.round-trip")
class SpoilsBf16(Session):
    """The last byte of a BF16 tensor comes back with a bit changed."""

    def source(self, message: Download) -> Area:
        data = bytearray(super().source(message).read())
        if message.tensor.type == BF16:
            data[-1] ^= 1
        return apart(data)


@break_session("data.partial")
class SpoilsTheRest(Session):
    """Writing into the middle of a tensor changes its first byte too."""

    def destination(self, message: Upload, size: int) -> Area:
        region = super().destination(message, size)
        tensor, _ = self.placed_tensor(message.tensor)
        if size and message.offset and message.offset + size < tensor.nbytes:
            flip(self, message.tensor.data, message.tensor.buffer)
        return region


@break_session("data.empty")
class RefusesNothing(Session):
    """A range of no bytes at the end of a tensor is refused, as upstream does at the end of a buffer."""

    def region(self, wire: RpcTensor, offset: int, size: int, rule: str = "data.in-tensor") -> Any:
        region = super().region(wire, offset, size, rule)
        if size == 0 and 0 < self.placed_tensor(wire)[0].nbytes == offset:
            raise Violation("data.empty", "size", 0)
        return region


def spoil_hit(session: Session, message: SetTensorHash, right: SetTensorHashReply) -> SetTensorHashReply:
    """Change the first byte of data that came from the cache."""
    if right.result:
        flip(session, message.tensor.data, message.tensor.buffer)
    return right


def spoil_copy(session: Session, message: CopyTensor, right: object) -> object:
    """Change the first byte of a copy."""
    flip(session, message.dst.data, message.dst.buffer)
    return right


answering("data.hash-miss", SetTensorHash, lambda s, m, r: SetTensorHashReply(result=1))
answering("data.hash-hit", SetTensorHash, spoil_hit)
answering("data.copy", CopyTensor, spoil_copy)
