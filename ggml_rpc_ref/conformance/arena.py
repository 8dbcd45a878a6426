"""Tensors and graphs to send: a buffer on the server, and the tensors that a case places in it.

The tensors lie in the middle of the buffer, at least `MARGIN` bytes from both ends: the few bytes beside a
tensor that a careless server reads or writes still belong to the case, so no case can be used as an attack.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import replace

from ggml_rpc_ref.conformance.bisect import first_wrong
from ggml_rpc_ref.conformance.peer import Buffer, Peer
from ggml_rpc_ref.conformance.verdict import Broken
from ggml_rpc_ref.ops import OPS
from ggml_rpc_ref.ops.tolerance import EXACT
from ggml_rpc_ref.spec.dtypes import BY_NAME, BY_NUMBER
from ggml_rpc_ref.spec.messages import FLAG_COMPUTE, MAX_OP_PARAMS, BufferClear, GraphCompute, GraphRecompute, RpcTensor, has_field
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.versions import Version

ALIGNMENT = 64
"""Every tensor of an arena begins at a multiple of this many bytes; enough for every device seen."""
MARGIN = 4096
"""Bytes of the buffer before the first tensor and after the last one."""
UID = 0x0123456789ABCDEF
"""The number that the graphs of cases have where graphs have one, unless a case needs others."""
ROUNDED = 1e-5
"""How far, as a part of it, a number may be off that float32 arithmetic has rounded, in whatever order."""
SHOWN = 16
"""Numbers of a tensor that a message shows."""
GUARD = 0xA5
"""The value of every byte of a fresh arena."""

CODES = {"F32": "f", "F16": "e", "F64": "d", "I8": "b", "I16": "h", "I32": "i", "I64": "q"}
"""Plain ggml_type to `struct` code."""


def pack(type: str, values: Sequence[float]) -> bytes:
    """Return the bytes of numbers of a plain type."""
    return struct.pack(f"<{len(values)}{CODES[type]}", *values)


def unpack(type: str, data: bytes) -> list[float]:
    """Return the numbers that bytes of a plain type hold."""
    return list(struct.unpack(f"<{len(data) // BY_NAME[type].size}{CODES[type]}", data))


def strides(type: str, ne: Sequence[int]) -> tuple[int, int, int, int]:
    """Return the nb of a contiguous tensor."""
    row = BY_NAME[type].size * (ne[0] // BY_NAME[type].block)
    return (BY_NAME[type].size, row, row * ne[1], row * ne[1] * ne[2])


def nbytes(tensor: RpcTensor) -> int:
    """Return the bytes from a tensor's first element to the end of its last; for tensors whose type is known."""
    dtype = BY_NUMBER[tensor.type]
    if 0 in tensor.ne:
        return 0
    # ggml_nbytes of ggml.c, for block types too, whose nb[0] is the size of a block
    blocks = (tensor.ne[0] // dtype.block, *tensor.ne[1:])
    return dtype.size + sum((n - 1) * b for n, b in zip(blocks, tensor.nb, strict=True))


def quad(ne: Sequence[int]) -> tuple[int, int, int, int]:
    """Pad dimensions with 1 to four."""
    a, b, c, d = (*ne, 1, 1, 1)[:4]
    return (a, b, c, d)


def tensor_in(buffer: Buffer, ne: Sequence[int] = (16,), type: str = "F32", offset: int = 0) -> RpcTensor:
    """Return a contiguous tensor that begins `offset` bytes into a buffer."""
    return RpcTensor(
        id=1,
        type=BY_NAME[type].number,
        buffer=buffer.remote_ptr,
        ne=quad(ne),
        nb=strides(type, quad(ne)),
        data=buffer.base + offset,
    )


def words(text: bytes, count: int) -> tuple[int, ...]:
    """Return op_params that begin with these bytes."""
    return struct.unpack(f"<{count}i", text.ljust(4 * count, b"\0"))


def recompute(version: Version, device: int = 0, uid: int = UID) -> GraphRecompute:
    """Return a GRAPH_RECOMPUTE; the uid is left out where the version has none."""
    return GraphRecompute(device=device, uid=uid if has_field(GraphRecompute, "uid", version) else 0)


class Arena:
    """A buffer, and tensors in it.

    Args:
        peer: the connection that it belongs to.
        size: bytes of the buffer, margins included.
        device: index of the buffer's device.
        guarded: whether every byte of it is GUARD at first.

    Attributes:
        tensors: those placed so far, by id.
        next: offset of the next one.
        listed: ids of the nodes of the last graph.
    """

    def __init__(self, peer: Peer, size: int = 65536, device: int = 0, *, guarded: bool = True) -> None:
        self.peer, self.buffer = peer, peer.alloc(size, device)
        self.tensors: dict[int, RpcTensor] = {}
        self.listed: tuple[int, ...] = ()
        self.next = MARGIN
        # a known value all over, so that a byte written where none may be shows
        if guarded and "BUFFER_CLEAR" in peer.subject.facts.useless:
            peer.write(tensor_in(self.buffer, [size], "I8"), bytes([GUARD]) * size)
        elif guarded:
            peer.takes(BufferClear(remote_ptr=self.buffer.remote_ptr, value=GUARD))

    def leaf(self, ne: Sequence[int], values: Sequence[float] | bytes = (), type: str = "F32") -> RpcTensor:
        """Add a tensor that holds values, or guard bytes if none are given."""
        placed = tensor_in(self.buffer, ne, type, self.next)
        self.next += (nbytes(placed) + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        if self.next + MARGIN > self.buffer.size:
            raise ValueError(f"this arena of {self.buffer.size} bytes is full")
        added = self.add(placed)
        data = values if isinstance(values, bytes) else pack(type, values) if values else b""
        if data:
            self.peer.write(added, data)
        return added

    def node(
        self,
        op: str,
        src: Sequence[RpcTensor | None],
        ne: Sequence[int],
        type: str = "F32",
        params: Sequence[int] | bytes = (),
    ) -> RpcTensor:
        """Add a tensor that is to be computed.

        Args:
            op: name of the ggml_op.
            src: its sources by slot.
            ne: its dimensions.
            type: its ggml_type.
            params: op_params, as int32 or as raw bytes.
        """
        numbers = words(params, MAX_OP_PARAMS) if isinstance(params, bytes) else (*params, *[0] * MAX_OP_PARAMS)[:MAX_OP_PARAMS]
        return self.change(
            self.leaf(ne, type=type),
            op=self.peer.subject.op(op),
            src=tuple(s.id if s else 0 for s in src),
            op_params=(self.peer.subject.kind(op, numbers[0]), *numbers[1:]),
            flags=FLAG_COMPUTE,
        )

    def view(self, op: str, whole: RpcTensor, ne: Sequence[int], nb: Sequence[int] | None = None, offset: int = 0) -> RpcTensor:
        """Add a view of another tensor: VIEW, RESHAPE, PERMUTE or TRANSPOSE."""
        type = BY_NUMBER[whole.type].name
        shown = replace(whole, ne=quad(ne), nb=strides(type, quad(ne)) if nb is None else quad(nb), data=whole.data + offset)
        links = {"view_src": whole.id, "view_offs": offset, "src": (whole.id,), "flags": FLAG_COMPUTE}
        return self.change(self.add(shown), op=self.peer.subject.op(op), **links)

    def add(self, tensor: RpcTensor) -> RpcTensor:
        """Add a tensor under a new id."""
        # from 0x1000 on: cases name the first two by number (graph.source-known, graph.acyclic)
        return self._put(replace(tensor, id=0x1000 + len(self.tensors)))

    def change(self, tensor: RpcTensor, **fields: object) -> RpcTensor:
        """Replace a tensor by one with other fields, and return that."""
        return self._put(replace(tensor, **fields))  # type: ignore[arg-type]

    def _put(self, tensor: RpcTensor) -> RpcTensor:
        self.tensors[tensor.id] = tensor
        return tensor

    def graph(self, *nodes: RpcTensor, device: int = 0, uid: int = UID) -> GraphCompute:
        """Return the GRAPH_COMPUTE of these nodes, with all tensors of the arena; uid 0 where the version has none."""
        number = uid if has_field(GraphCompute, "uid", self.peer.version) else 0
        ids = tuple(n.id for n in nodes)
        self.listed = ids
        return GraphCompute(device=device, uid=number, nodes=ids, tensors=tuple(self.tensors.values()))

    def again(self, device: int = 0, uid: int = UID) -> GraphRecompute:
        """Return the GRAPH_RECOMPUTE of what `graph` was sent with."""
        return recompute(self.peer.version, device, uid)

    def compute(self, *nodes: RpcTensor, device: int = 0) -> None:
        """Demand that the server computes these nodes."""
        self.peer.tell(self.graph(*nodes, device=device))

    def refuses(self, *nodes: RpcTensor) -> None:
        """Demand that the server refuses to compute these nodes."""
        self.peer.refuses(self.graph(*nodes))

    def values(self, tensor: RpcTensor) -> list[float]:
        """Read the numbers of a contiguous tensor from the server."""
        type = BY_NUMBER[tensor.type].name
        return unpack(type, self.peer.read(tensor, nbytes(tensor)))

    def expect(self, tensor: RpcTensor, values: Sequence[float], tolerance: float = 0.0, rule: str = "") -> None:
        """Demand that a tensor holds these numbers, each as near as `is_near` says.

        What an op with a tolerance has computed may at least be off by ROUNDED, whatever `tolerance` says.
        """
        found = self.values(tensor)
        name = op_table(self.peer.version)[tensor.op]
        if name in OPS and OPS[name].tolerance != EXACT:
            tolerance = max(tolerance, ROUNDED)
        near = [is_near(f, v, tolerance) for f, v in zip(found, values, strict=True)]
        if not all(near):
            # of those that are wrong the one that is furthest off; NaN is further off than anything
            worst = max((at for at in range(len(near)) if not near[at]), key=lambda at: _distance(found[at], values[at]))
            count = near.count(False)
            more = f"; {count} of {len(near)} elements are wrong" if len(near) > 1 else ""
            both = f"all: {_few(found)} in place of {_few(values)}" if len(near) <= SHOWN else f"they begin {_few(found)}"
            raise Broken(
                f"element {worst} to be {values[worst]:.7g}", f"it is {found[worst]:.7g}{more}; {both}{self._blame()}", rule
            )

    def _blame(self) -> str:
        """Return which node of a graph of several is wrong, where one can be found."""
        if len(self.listed) < 2:
            return ""
        nodes = [self.tensors[id] for id in self.listed]
        try:
            said = first_wrong(nodes, self.tensors, op_table(self.peer.version), lambda t: self.peer.read(t, nbytes(t)))
        except Broken:
            return ""  # the connection is over
        return f"; the first wrong node is {said}" if said else ""


def is_near(found: float, wanted: float, tolerance: float = ROUNDED) -> bool:
    """Whether a number is within `tolerance` times the wanted one's magnitude (times 1 where that is smaller)."""
    # equality first: the difference of two infinities is NaN
    return found == wanted or abs(found - wanted) <= tolerance * max(1.0, abs(wanted))


def _distance(found: float, wanted: float) -> float:
    distance = abs(found - wanted) / max(1.0, abs(wanted))
    return math.inf if math.isnan(distance) else distance


def _few(values: Sequence[float]) -> str:
    shown = ", ".join(f"{v:.7g}" for v in values[:SHOWN])
    return f"[{shown}{', …' if len(values) > SHOWN else ''}]"
