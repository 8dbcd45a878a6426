"""Servers with a fault that shows in one case only: what begins at a size, what is kept too long, what is looked at too closely.

They passed the whole suite before that case was there. A row of QUIET names the cases that must fail, and no other may.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server.handlers import Host, Session
from ggml_rpc_ref.server.session import Area, Download, Upload
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.messages import (
    AllocBuffer,
    AllocBufferReply,
    BufferClear,
    CopyTensor,
    Empty,
    FreeBuffer,
    GetAllocSize,
    GetTensor,
    GraphRecompute,
    RpcTensor,
    SetTensorHash,
)
from ggml_rpc_ref.spec.opcodes import op_table
from tests.support.sabotage.sessions import Lenient, Remembers, apart, bytes_at, empty_reply, nodes_of, read, write

MIB = 2**20
OPS = op_table()
QUIET: dict[str, type[Session]] = {}
"""Words to what is wrong; the cases are in CASES."""
CASES: dict[str, set[str]] = {}
"""Words to the ids of the cases that must fail."""


def quiet(words: str, *cases: str) -> Callable[[type[Session]], type[Session]]:
    """Enter a session class under some words, and the cases that must find it."""

    def register(cls: type[Session]) -> type[Session]:
        QUIET[words], CASES[words] = cls, set(cases)
        return cls

    return register


# ------------------------------------------------------------------------------------------------ what begins at a size


@quiet("clear stops after 1 MiB", "buffer.clear/3-mib-and-5")
class ClearsTheFirst(Remembers):
    def handle(self, message: object) -> object:
        if not isinstance(message, BufferClear) or message.remote_ptr not in self.buffers:
            return super().handle(message)
        whole = self.buffers[message.remote_ptr]
        kept = read(self, whole)[MIB:] if whole.ne[0] < 8 * MIB else b""
        reply = super().handle(message)
        if kept:
            write(self, bytes_at(whole.data + MIB, whole.buffer, len(kept)), kept)
        return reply


@quiet("clear is ignored under a graph", "buffer.clear/under-a-stored-graph", "graph.computes/weights-changed-by-buffer-clear")
class KeepsUnderGraph(Session):
    computed = False

    def handle(self, message: object) -> object:
        self.computed |= isinstance(message, Graph)
        return Empty() if self.computed and isinstance(message, BufferClear) else super().handle(message)


CASES["clear is ignored under a graph"] |= {"graph.recompute/weights-changed-by-buffer-clear"}


@quiet("large buffers are not cleaned", "buffer.clean/1-mib")
class ReusesLarge(Remembers):
    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.left = b""

    def handle(self, message: object) -> object:
        if isinstance(message, FreeBuffer) and (whole := self.buffers.get(message.remote_ptr)) and whole.ne[0] == MIB:
            self.left = read(self, whole)
        reply = super().handle(message)
        if isinstance(message, AllocBuffer) and isinstance(reply, AllocBufferReply) and self.left and message.size == MIB:
            write(self, self.buffers[reply.remote_ptr], self.left)
        return reply


@quiet("reads of more than 16 MiB lose their last byte", "data.round-trip/17-mib-and-3")
class LosesTheLast(Session):
    def source(self, message: Download) -> Area:
        region = super().source(message)
        if not isinstance(message, GetTensor) or message.size <= 16 * MIB:
            return region
        data = bytearray(region.read())
        data[-1] ^= 1
        return apart(data)


class CopiesInBlocks(Session):
    """Copies more than 1 MiB block by block, in one direction."""

    backwards: ClassVar[bool]

    def handle(self, message: object) -> object:
        if not isinstance(message, CopyTensor):
            return super().handle(message)
        size = message.src.ne[0]
        if message.src.type != BY_NAME["I8"].number or size < MIB:
            return super().handle(message)
        before = read(self, bytes_at(message.src.data, message.src.buffer, size))
        reply = super().handle(message)
        shift = message.dst.data - message.src.data
        if (shift > 0) != self.backwards and 0 < abs(shift) < size:
            # what a copy in blocks of the distance leaves: the first block, or the last one, over and over
            block = before[:shift] if shift > 0 else before[shift:]
            times = -(-size // len(block))
            spoilt = (block * times)[:size] if shift > 0 else (block * times)[-size:]
            write(self, bytes_at(message.dst.data, message.dst.buffer, size), spoilt)
        return reply


quiet("large copies go forwards", "data.copy/3-mib-overlap-forward")(type("Forwards", (CopiesInBlocks,), {"backwards": False}))
quiet("large copies go backwards", "data.copy/3-mib-overlap-backward")(type("Backwards", (CopiesInBlocks,), {"backwards": True}))


@quiet("a hash hit forgets the offset", "data.hash-hit/at-an-offset")
class ForgetsOffset(Session):
    def handle(self, message: object) -> object:
        if isinstance(message, SetTensorHash) and message.offset == 4096:
            message = SetTensorHash(tensor=message.tensor, offset=0, hash=message.hash)
        return super().handle(message)


# ------------------------------------------------------------------------------------------------- what is kept too long


class Stale(Session):
    """Computes with quantised weights as they were, unless something other than `cause` has changed them.

    Attributes:
        cause: what it does not notice.
        kept: place of weights to their bytes when they were computed with.
        graphs: the last graph.
    """

    cause: ClassVar[str]

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.kept: dict[tuple[int, int], bytes] = {}
        self.graph: Graph | None = None

    def happened(self, cause: str) -> None:
        """Forget everything, unless this is what is not noticed."""
        if cause != self.cause:
            self.kept.clear()

    def destination(self, message: Upload, size: int) -> Area:
        first = message.tensor.data + message.offset
        for (buffer, data), old in self.kept.items():
            if buffer == message.tensor.buffer and first < data + len(old) and data < first + size:
                self.happened("set" if data == message.tensor.data else "another")
                break
        return super().destination(message, size)

    def handle(self, message: object) -> object:
        match message:
            case BufferClear():
                self.happened("clear")
            case CopyTensor():
                self.happened("copy")
            case SetTensorHash():
                self.happened("hash")
            case Graph() | GraphRecompute():
                return self.computed(message)
        return super().handle(message)

    def computed(self, message: Graph | GraphRecompute) -> object:
        """Compute, on the old bytes of weights that were computed with before."""
        self.graph = graph = message if isinstance(message, Graph) else self.graph
        if graph is None:
            return super().handle(message)
        if nodes_of(graph, OPS.index("CPY")):
            self.happened("graph")
            return super().handle(message)
        weights = [row for row in map(_weight, graph.tensors) if row is not None]
        now = {(w.buffer, w.data): read(self, w) for w in weights}
        for w in weights:
            write(self, w, self.kept.setdefault((w.buffer, w.data), now[w.buffer, w.data]))
        try:
            return super().handle(message)
        finally:
            for w in weights:
                write(self, w, now[w.buffer, w.data])


def _weight(row: Any) -> RpcTensor | None:
    """Return the bytes of a leaf of Q8_0."""
    if row["type"] != BY_NAME["Q8_0"].number or row["op"]:
        return None
    size = int(np.prod(row["ne"])) * 34 // 32
    return bytes_at(int(row["data"]), int(row["buffer"]), size)


for _cause, _words in {
    "set": "set-tensor",
    "copy": "copy-tensor",
    "clear": "buffer-clear",
    "another": "another-tensor",
    "graph": "a-graph",
    "hash": "a-hash-hit",
}.items():
    _cases = [f"graph.computes/weights-changed-by-{_words}"]
    _cases += [f"graph.recompute/weights-changed-by-{_words}"] if _cause not in ("graph", "hash") else []
    quiet(f"old weights after {_words}", *_cases)(type("Stale", (Stale,), {"cause": _cause}))


@quiet("an empty graph is not stored", "graph.recompute/of-an-empty-graph")
class KeepsTheLast(Session):
    def handle(self, message: object) -> object:
        is_empty = isinstance(message, Graph) and not len(message.nodes) and len(message.tensors)
        return empty_reply(message, self.version) if is_empty else super().handle(message)


# ---------------------------------------------------------------------------------------------- what is not looked at


@quiet(
    "a tenth source is not looked at",
    "tensor.type-known/get-alloc-size-tenth-source",
    "tensor.in-buffer/get-alloc-size-tenth-source",
)
class NineSources(Session):
    def handle(self, message: object) -> object:
        if isinstance(message, GetAllocSize):
            message = GetAllocSize(device=message.device, tensor=message.tensor, srcs=tuple(message.srcs)[:9])
        return super().handle(message)


class LenientOp(Lenient):
    """Does not refuse what breaks a rule in a node of one op."""

    op: ClassVar[str]

    def lets_pass(self, broken: Violation, message: object) -> bool:
        has = isinstance(message, Graph) and bool(nodes_of(message, OPS.index(self.op)))
        return has and super().lets_pass(broken, message)


for _op, _rule, _ids in (
    ("ACC", "graph.shape", ["graph.shape/acc-offset-past-end", "graph.shape/acc-offset-negative"]),
    ("SET", "graph.shape", ["graph.shape/set-offset-past-end", "graph.shape/set-offset-negative"]),
    ("GATED_DELTA_NET", "graph.shape", ["graph.shape/gated-delta-net-without-states"]),
    ("ADD_ID", "graph.index", ["graph.index/add-id-count"]),
    ("MUL_MAT_ID", "graph.index", ["graph.index/mul-mat-id-count"]),
    ("SSM_SCAN", "graph.index", ["graph.index/ssm-scan-count"]),
):
    quiet(f"{_op} is not checked", *_ids)(type("LenientOp", (LenientOp,), {"op": _op, "rule": _rule}))


@quiet("indices are read as 32 bits", "graph.index/set-rows-2-32")
class ShortIndices(Lenient):
    rule = "graph.index"

    def lets_pass(self, broken: Violation, message: object) -> bool:
        if not (rows := re.search(r"index < (\d+)", str(broken))):
            return False
        index = int(str(broken.value))
        return index >= 2**32 and index % 2**32 < int(rows[1]) and super().lets_pass(broken, message)


@quiet("strides that one batch hides are not looked at", "graph.shape/set-rows-hidden-stride")
class HiddenStride(Lenient):
    rule = "graph.shape"

    def lets_pass(self, broken: Violation, message: object) -> bool:
        far = isinstance(message, Graph) and bool((message.tensors["nb"][:, 3] >= 2**31).any())
        return far and super().lets_pass(broken, message)


class LastIsWrong(Session):
    """The last element of a node's result is 1 too large where a source is shorter in some dimension, and longer than 1 there.

    Attributes:
        op: of the node.
        longer: slot of the longer source; None: the result.
        shorter: slot of the shorter source.
    """

    op: ClassVar[str]
    longer: ClassVar[int | None]
    shorter: ClassVar[int]

    def handle(self, message: object) -> object:
        reply = super().handle(message)
        if isinstance(message, Graph):
            by_id = {int(row["id"]): row for row in message.tensors}
            for dst in nodes_of(message, OPS.index(self.op)):
                long = by_id[dst.id if self.longer is None else dst.src[self.longer]]["ne"]
                short = by_id[dst.src[self.shorter]]["ne"]
                if ((short > 1) & (short < long)).any():
                    last = bytes_at(dst.data + 4 * int(np.prod(dst.ne)) - 4, dst.buffer, 4)
                    write(self, last, struct.pack("<f", 1 + struct.unpack("<f", read(self, last))[0]))
        return reply


quiet("ADD repeats only what is single", "graph.computes/add-repeat-elements", "graph.computes/add-repeat-rows")(
    type("LastIsWrong", (LastIsWrong,), {"op": "ADD", "longer": None, "shorter": 1})
)
quiet("MUL_MAT gives weights to more than one matrix only where they are single", "graph.computes/mul-mat-broadcast-two")(
    type("LastIsWrong", (LastIsWrong,), {"op": "MUL_MAT", "longer": 1, "shorter": 0})
)


# ------------------------------------------------------------------------------------------------------- over-strictness


@quiet("odd addresses are refused", "data.round-trip/odd-address")
class WantsAlignment(Session):
    def region(self, wire: RpcTensor, offset: int, size: int, rule: str = "data.in-tensor") -> Any:
        if wire.type == BY_NAME["F32"].number and wire.data % 4 == 1:
            raise Violation("tensor.in-buffer", "data", wire.data)
        return super().region(wire, offset, size, rule)


class Strict(Session):
    """Refuses graphs in which something is not as a stock client sends it."""

    refuses: ClassVar[Callable[[Any], bool]]

    def handle(self, message: object) -> object:
        if isinstance(message, Graph) and len(message.tensors) and bool(np.any(type(self).refuses(message.tensors))):
            raise Violation("graph.op-known", "tensors", 0)
        return super().handle(message)


for _name, _id, _refuses in (
    ("ops of leaves", "graph.op-known/of-a-leaf", lambda t: (t["op"] >= len(OPS)) & (t["flags"] == 0)),
    ("op_params", "graph.computes/unused-op-params", lambda t: (t["op"] == OPS.index("ADD")) & (t["op_params"] != 0).any(axis=1)),
    ("view_offs", "graph.computes/unused-view-offs", lambda t: (t["view_src"] == 0) & (t["view_offs"] != 0)),
    ("names", "graph.computes/unused-name", lambda t: np.array([b"\0" not in bytes(name).ljust(64, b"\0") for name in t["name"]])),
    ("padding", "graph.computes/unused-padding", lambda t: np.array([any(bytes(p)) for p in t["padding"]])),
):
    quiet(f"{_name} are looked at too closely", _id)(type("Strict", (Strict,), {"refuses": staticmethod(_refuses)}))
