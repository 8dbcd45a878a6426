"""A session: what one client, or several at a time, say to a server from HELLO to the end, with made-up handles.

HELLO and the allocation of the session's buffers come first and are not among the steps, since everything else needs the numbers
that the server chooses there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ggml_rpc_ref.fuzz.packet import Packet
from ggml_rpc_ref.fuzz.parts import Part
from ggml_rpc_ref.protocol.graph import Graph, request_class
from ggml_rpc_ref.spec.messages import Message, by_number, command_name
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.versions import DEFAULT, Version

RAW = "raw bytes"
"""The label of bytes that begin with no command."""
PER_CONNECTION = 64
"""Buffer numbers of a connection begin at this many times its index."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """A buffer that a session has from its start.

    Attributes:
        number: by which made-up numbers name it.
        size: bytes asked for.
        device: index of its device.
    """

    number: int
    size: int
    device: int = 0

    @property
    def connection(self) -> int:
        """The connection that allocates it."""
        return self.number // PER_CONNECTION


@dataclass(slots=True)
class Step:
    """Something that a client sends.

    Attributes:
        connection: index of the connection, from 0.
        message: a request, or a packet of any bytes.
        expected: what its reply's data must be: these bytes, or what the oracle leaves in a part's image; None: not judged.
        mutated: whether a mutation has changed or added it.
        origin: the request that it was before the first mutation; None where it was not changed, or was none.
    """

    connection: int
    message: Message | Packet
    expected: Part | bytes | None = None
    mutated: bool = False
    origin: Message | None = None

    def packet(self, version: Version) -> Packet:
        """Return its bytes."""
        return self.message if isinstance(self.message, Packet) else Packet.of(self.message, version)

    def label(self, version: Version) -> str:
        """Return the name of its command, with the ops of a graph."""
        if isinstance(self.message, Packet):
            row = by_number(version).get(self.message.template[0]) if self.message.template else None
            return row.name if row else RAW
        name = command_name(request_class(self.message))
        if not isinstance(self.message, Graph):
            return name
        table = op_table(version)
        ops = [table[op] if op < len(table) else str(op) for op in self.message.tensors["op"].tolist() if op]
        return f"{name} of {', '.join(dict.fromkeys(ops[:4]))}" if ops else name


@dataclass(frozen=True, slots=True)
class Note:
    """What a mutation did.

    Attributes:
        mutation: its name, e.g. "geometry.ne".
        target: the command, or the op of the graph's node, that it touched.
        what: the change, in words.
    """

    mutation: str
    target: str
    what: str

    @property
    def key(self) -> tuple[str, str]:
        """Mutation and target: what is learnt about is kept by these."""
        return self.mutation, self.target


@dataclass(slots=True)
class Session:
    """A conversation to have with a server.

    Attributes:
        seed: that it was made from, in words.
        version: the protocol version that is spoken.
        buffers: allocated at the start, on their connections.
        steps: in the order of sending.
        notes: what mutations did to it; empty for a well-formed session.
        cut: bytes of each piece in which it is sent, the first pieces of it; 0: all at once.
        headless: whether its connections begin without HELLO and allocations.
        leaves: whether its clients reset their connections once all is said, without reading a reply.
    """

    seed: str
    version: Version = DEFAULT
    buffers: tuple[Buffer, ...] = ()
    steps: list[Step] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    cut: int = 0
    headless: bool = False
    leaves: bool = False

    @property
    def connections(self) -> int:
        """How many connections it has."""
        return 1 + max((*(b.connection for b in self.buffers), *(s.connection for s in self.steps)), default=0)

    def of(self, connection: int) -> Iterator[Step]:
        """Yield the steps of one connection."""
        return (step for step in self.steps if step.connection == connection)

    def with_steps(self, steps: list[Step]) -> Session:
        """Return a session of other steps, without the buffers of connections that have none left."""
        left = {step.connection for step in steps}
        return replace(self, steps=steps, buffers=tuple(b for b in self.buffers if b.connection in left))
