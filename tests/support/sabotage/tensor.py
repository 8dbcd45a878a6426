"""Servers that break a rule of the section "tensor"."""

from __future__ import annotations

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server.handlers import Session
from ggml_rpc_ref.server.session import Area, Download, Upload
from ggml_rpc_ref.spec.messages import GetAllocSize, GetAllocSizeReply, InitTensor
from tests.support.sabotage.sessions import Remembers, flip, tensors_of
from tests.support.sabotage.table import answering, break_session, lenient

lenient("tensor.type-known", "tensor.block-multiple", "tensor.buffer-known", "tensor.in-buffer")


@break_session("tensor.empty")
class RefusesEmpty(Session):
    """A tensor with a dimension of 0 is refused."""

    def handle(self, message: object) -> object:
        refuse_empty(message)
        return super().handle(message)

    def destination(self, message: Upload, size: int) -> Area:
        refuse_empty(message)
        return super().destination(message, size)

    def source(self, message: Download) -> Area:
        refuse_empty(message)
        return super().source(message)


def refuse_empty(message: object) -> None:
    """Refuse a request that names a tensor without elements."""
    shapes = message.tensors["ne"].tolist() if isinstance(message, Graph) else [t.ne for t in tensors_of(message)]
    for ne in shapes:
        if 0 in ne:
            raise Violation("tensor.empty", "ne", tuple(ne))


@break_session("tensor.empty-anywhere")
class WantsPlacesForNothing(Remembers):
    """A tensor without elements is refused where its address is outside its buffer, as before 8.0.0."""

    def handle(self, message: object) -> object:
        if isinstance(message, Graph):
            columns = [message.tensors[name].tolist() for name in ("buffer", "data", "ne")]
        else:
            columns = [[getattr(t, name) for t in tensors_of(message)] for name in ("buffer", "data", "ne")]
        for handle, address, ne in zip(*columns, strict=True):
            home = self.buffers.get(handle)
            if 0 in ne and home is not None and not home.data <= address <= home.data + home.ne[0]:
                raise Violation("tensor.in-buffer", "data", address)
        return super().handle(message)


def spoil(session: Session, message: InitTensor, right: object) -> object:
    """Change the tensor's first byte."""
    session.placed_tensor(message.tensor)
    flip(session, message.tensor.data, message.tensor.buffer)
    return right


answering("tensor.init", InitTensor, spoil)
answering("tensor.alloc-size", GetAllocSize, lambda s, m, r: GetAllocSizeReply(alloc_size=max(0, r.alloc_size - 1)))
