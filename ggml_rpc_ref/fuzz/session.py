"""A session: what one client, or several at a time, say to a server from HELLO to the end, with made-up handles.

HELLO and the allocation of the session's buffers come first and are not among the steps, since everything else needs the numbers
that the server chooses there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ggml_rpc_ref.fuzz.packet import Packet
from ggml_rpc_ref.fuzz.parts import Part
from ggml_rpc_ref.protocol.graph import Graph, request_class
from ggml_rpc_ref.spec.messages import AllocBuffer, Message, by_number, command_name, has_field
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

    def request(self, version: Version) -> AllocBuffer:
        """Return what allocates it."""
        return AllocBuffer(device=self.device if has_field(AllocBuffer, "device", version) else 0, size=self.size)


@dataclass(frozen=True, slots=True)
class Peer:
    """The other server of a sum, which we play: whom a COMM_INIT with this port meets.

    Attributes:
        port: where rank 0 listens; chosen with the session, so that its bytes are the same each time.
        rank: the fuzzed server's own; where it is 0 we connect to it, else it connects to us.
        says: all that we send, capabilities first.
        leaves: whether we end the connection as soon as all is said; else we end our sending, and read until the session's end.
    """

    port: int
    rank: int
    says: bytes
    leaves: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self) | {"says": self.says.hex()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Peer:
        """Return the peer in a JSON object.

        Raises:
            KeyError, TypeError, ValueError: for one that is none.
        """
        if not 0 < int(row["port"]) < 2**16:
            raise ValueError(f"port {row['port']}")
        return cls(int(row["port"]), int(row["rank"]), bytes.fromhex(row["says"]), bool(row["leaves"]))


@dataclass(slots=True)
class Step:
    """Something that a client sends.

    Attributes:
        connection: index of the connection, from 0.
        message: a request, or a packet of any bytes; a `Buffer`: it is allocated now, which waits for all replies before.
        expected: what its reply's data must be: these bytes, or what the oracle leaves in a part's image; None: not judged.
        mutated: whether a mutation has changed or added it.
        origin: the request that it was before the first mutation; None where it was not changed, or was none.
    """

    connection: int
    message: Message | Packet | Buffer
    expected: Part | bytes | None = None
    mutated: bool = False
    origin: Message | None = None
    _packet: Packet | None = field(default=None, init=False, repr=False, compare=False)

    def packet(self, version: Version) -> Packet:
        """Return its bytes, which are made once: neither the step's message nor its session's version ever changes."""
        if self._packet is None:
            match self.message:
                case Packet():
                    self._packet = self.message
                case Buffer():
                    self._packet = Packet.of(self.message.request(version), version)
                case message:
                    self._packet = Packet.of(message, version)
        return self._packet

    def label(self, version: Version) -> str:
        """Return the name of its command, with the ops of a graph."""
        if isinstance(self.message, Packet):
            row = by_number(version).get(self.message.template[0]) if self.message.template else None
            return row.name if row else RAW
        if isinstance(self.message, Buffer):
            return command_name(AllocBuffer)
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
        caps: HELLO's conn_caps, where the version has them; empty: zeros.
        apart: whether a connection ends before the next one begins.
        short: bytes that are missing at the end of what is said on the first connection; nothing is said after them.
        peers: the other servers of its sums.
        focus: the op that it is about; "": any.
    """

    seed: str
    version: Version = DEFAULT
    buffers: tuple[Buffer, ...] = ()
    steps: list[Step] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    cut: int = 0
    headless: bool = False
    leaves: bool = False
    caps: bytes = b""
    apart: bool = False
    short: int = 0
    peers: tuple[Peer, ...] = ()
    focus: str = ""

    @property
    def connections(self) -> int:
        """How many connections it has."""
        return 1 + max((*(b.connection for b in self.buffers), *(s.connection for s in self.steps)), default=0)

    def of(self, connection: int) -> Iterator[Step]:
        """Yield the steps of one connection."""
        return (step for step in self.steps if step.connection == connection)

    def spoken(self, connection: int) -> list[Step]:
        """Return the steps of one connection that are messages: those that a plan of its bytes has."""
        return [step for step in self.of(connection) if not isinstance(step.message, Buffer)]

    @property
    def all_buffers(self) -> tuple[Buffer, ...]:
        """All buffers, those included that are allocated on the way."""
        return (*self.buffers, *(step.message for step in self.steps if isinstance(step.message, Buffer)))

    def with_steps(self, steps: list[Step]) -> Session:
        """Return a session of other steps, without the buffers of connections that have none left."""
        left = {step.connection for step in steps}
        return replace(self, steps=steps, buffers=tuple(b for b in self.buffers if b.connection in left))
