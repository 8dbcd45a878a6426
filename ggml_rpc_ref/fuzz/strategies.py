"""Strategies for Hypothesis (extra `fuzz`): messages, graphs and sessions of the protocol, and a stateful machine for a server.

    from hypothesis import given
    from ggml_rpc_ref.fuzz import strategies as rpc

    @given(rpc.messages())
    def test_my_decoder(message): ...

    class MyServer(rpc.ServerMachine):
        def exchange(self, data): return my_server.feed(data)      # bytes of requests in, bytes of replies out

    TestMyServer = MyServer.TestCase

This module is a public interface: its names and what they give stay as they are; new keyword arguments may come.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, rule

from ggml_rpc_ref.fuzz.generate import Generator
from ggml_rpc_ref.fuzz.mutations import MUTATIONS, mutate
from ggml_rpc_ref.fuzz.packet import Packet
from ggml_rpc_ref.fuzz.session import Session
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.protocol.order import awaited
from ggml_rpc_ref.spec.messages import (
    AllocBuffer,
    AllocBufferReply,
    BufferClear,
    BufferGetBase,
    BufferGetBaseReply,
    CopyTensor,
    CopyTensorReply,
    FreeBuffer,
    GetTensor,
    GetTensorReply,
    Hello,
    HelloReply,
    Message,
    RpcTensor,
    SetTensor,
    by_number,
    fields,
)
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES, Version
from ggml_rpc_ref.spec.wire import Array, Chars, Counted, Int, Record, Tail, Wire

__all__ = ["ServerMachine", "graphs", "messages", "mutated_sessions", "records", "requests", "sessions", "tensors", "versions"]

MOST_DATA = 64
"""Bytes of data of a message."""
MOST_ENTRIES = 4
"""Entries of a counted part."""


def versions(*, with_op_table: bool = True) -> st.SearchStrategy[Version]:
    """Protocol versions; by default those whose builds agree on one op table, which graphs need."""
    return st.sampled_from([version for version in PROFILES if op_table(version) or not with_op_table])


def records(cls: type, version: Version = DEFAULT) -> st.SearchStrategy[Any]:
    """Any message or record of a class: every field any value that its wire type holds, meaningful or not."""
    return st.builds(cls, **{row.name: _values(row.wire, version) for row in fields(cls, version)})


def messages(version: Version = DEFAULT) -> st.SearchStrategy[Message]:
    """Any request of a version, its fields any values: well framed, hardly ever meaningful."""
    return st.sampled_from([row.cls for row in by_number(version).values()]).flatmap(lambda cls: records(cls, version))


def tensors(version: Version = DEFAULT) -> st.SearchStrategy[RpcTensor]:
    """Any tensor record."""
    return records(RpcTensor, version)


def _values(wire: Wire, version: Version) -> st.SearchStrategy[Any]:
    match wire:
        case Int():
            least = -(2 ** (8 * wire.width - 1)) if wire.signed else 0
            return st.integers(least, 2 ** (8 * wire.width - wire.signed) - 1)
        case Chars():
            return st.binary(min_size=wire.length, max_size=wire.length)
        case Record():
            return records(wire.cls, version)
        case Array():
            return st.tuples(*[_values(wire.of, version)] * wire.length)
        case Counted():
            return st.lists(_values(wire.of, version), max_size=MOST_ENTRIES).map(tuple)
        case Tail():
            return st.binary(max_size=MOST_DATA)


def sessions(
    version: Version = DEFAULT, *, devices: int = 1, clients: int = 2, ops: Sequence[str] = ()
) -> st.SearchStrategy[Session]:
    """Well-formed sessions: what a good client may say, with made-up handles (`Packet.rendered` puts the server's in)."""
    generator = Generator(version, devices, clients, ops)
    focus = st.sampled_from(["", *generator.names])
    return st.builds(generator.session, st.integers(0, 2**32 - 1), focus)


def mutated_sessions(
    version: Version = DEFAULT, *, devices: int = 1, mutations: Sequence[str] = (), most: int = 3
) -> st.SearchStrategy[Session]:
    """Sessions to which up to `most` mutations were applied; `notes` says which."""
    steps = st.lists(
        st.tuples(st.sampled_from(sorted(mutations or MUTATIONS)), st.integers(0, 2**32 - 1)), min_size=1, max_size=most
    )

    def applied(session: Session, drawn: list[tuple[str, int]]) -> Session:
        for name, seed in drawn:
            mutate(Random(seed), session, name)
        return session

    return st.builds(applied, sessions(version, devices=devices), steps)


def requests(version: Version = DEFAULT) -> st.SearchStrategy[Packet]:
    """Single requests of well-formed sessions as packets."""
    return sessions(version).flatmap(lambda session: st.sampled_from([step.packet(version) for step in session.steps]))


def graphs(version: Version = DEFAULT, *, ops: Sequence[str] = ()) -> st.SearchStrategy[Graph]:
    """Well-formed graphs of one op or several, with made-up addresses."""

    def of(session: Session) -> list[Graph]:
        return [step.message for step in session.steps if isinstance(step.message, Graph)]

    # a session that is about an op always has a graph
    generator = Generator(version, ops=ops)
    made = st.builds(generator.session, st.integers(0, 2**32 - 1), st.sampled_from(generator.names))
    return made.map(lambda session: of(session)[0])


class ServerMachine(RuleBasedStateMachine):
    """A conversation of allocations, writes, reads, copies, clears and frees with a server, checked against a model of bytes.

    A subclass says how to reach the server: `exchange`. `teardown` should end the connection.

    Attributes:
        version: the protocol version that is spoken.
        most: bytes of the largest buffer.
    """

    version: Version = DEFAULT
    most = 4096
    buffers = Bundle("buffers")

    def __init__(self) -> None:
        super().__init__()
        self.contents: dict[int, bytearray] = {}
        self.bases: dict[int, int] = {}

    def exchange(self, data: bytes) -> bytes:
        """Send the bytes of one request, and return the bytes of its reply (none where the version gives none)."""
        raise NotImplementedError("say in a subclass how the server is reached")

    def ask(self, request: Message) -> Any:
        """Send a request; return its reply, None where there is none."""
        due = awaited(type(request), request, self.version)
        data = self.exchange(codec.encode_request(request, self.version))
        if due is None:
            assert data == b"", "a request without a reply was answered"
            return None
        assert data[:8] == codec.REPLY_HEAD.pack(due.size), f"the reply to {type(request).__name__} has another size"
        return codec.decode(due.reply, data[8:], self.version)

    @initialize()
    def say_hello(self) -> None:
        """Say HELLO, as every connection begins."""
        said: HelloReply = self.ask(Hello())
        assert (said.major, said.minor, said.patch) == tuple(self.version)

    @rule(target=buffers, size=st.integers(1, 4096))
    def alloc(self, size: int) -> int:
        """Allocate a buffer and set all of it to a known value."""
        made: AllocBufferReply = self.ask(AllocBuffer(size=min(size, self.most)))
        assert made.remote_ptr
        assert made.remote_size >= min(size, self.most)
        assert made.remote_ptr not in self.contents
        base: BufferGetBaseReply = self.ask(BufferGetBase(remote_ptr=made.remote_ptr))
        self.bases[made.remote_ptr] = base.base_ptr
        self.contents[made.remote_ptr] = bytearray(min(size, self.most))
        self.ask(BufferClear(remote_ptr=made.remote_ptr, value=0))
        return made.remote_ptr

    def whole(self, buffer: int) -> RpcTensor:
        """Return a tensor of all bytes of a buffer."""
        size = len(self.contents[buffer])
        return RpcTensor(id=1, type=24, buffer=buffer, ne=(size, 1, 1, 1), nb=(1, size, size, size), data=self.bases[buffer])

    @rule(buffer=buffers, data=st.binary(min_size=1, max_size=64), at=st.integers(0, 2**16))
    def write(self, buffer: int, data: bytes, at: int) -> None:
        """Write some bytes somewhere."""
        content = self.contents[buffer]
        start = at % len(content)
        data = data[: len(content) - start]
        self.ask(SetTensor(tensor=self.whole(buffer), offset=start, data=data))
        content[start : start + len(data)] = data

    @rule(buffer=buffers, at=st.integers(0, 2**16), size=st.integers(0, 256))
    def read(self, buffer: int, at: int, size: int) -> None:
        """Read some bytes: they are what was written."""
        content = self.contents[buffer]
        start = at % len(content)
        size = min(size, len(content) - start)
        found: GetTensorReply = self.ask(GetTensor(tensor=self.whole(buffer), offset=start, size=size))
        assert found.data == content[start : start + size]

    @rule(buffer=buffers, value=st.integers(0, 255))
    def clear(self, buffer: int, value: int) -> None:
        """Set every byte of a buffer."""
        self.ask(BufferClear(remote_ptr=buffer, value=value))
        self.contents[buffer][:] = bytes([value]) * len(self.contents[buffer])

    @rule(source=buffers, into=buffers)
    def copy(self, source: int, into: int) -> None:
        """Copy the beginning of a buffer to that of another."""
        size = min(len(self.contents[source]), len(self.contents[into]))
        made: CopyTensorReply = self.ask(CopyTensor(src=self._part(source, size), dst=self._part(into, size)))
        if made.result:
            self.contents[into][:size] = bytes(self.contents[source][:size])

    def _part(self, buffer: int, size: int) -> RpcTensor:
        return RpcTensor(id=1, type=24, buffer=buffer, ne=(size, 1, 1, 1), nb=(1, size, size, size), data=self.bases[buffer])

    @rule(buffer=consumes(buffers))
    def free(self, buffer: int) -> None:
        """Free a buffer; it is not used again."""
        self.ask(FreeBuffer(remote_ptr=buffer))
        del self.contents[buffer], self.bases[buffer]
