"""For each rule a server that breaks exactly that rule, made from ours by overriding one behaviour.

Most rules are refusals: `Lenient` swallows our own Violation of that rule and goes on as if nothing were wrong, so that a case of
rule X which our server refuses for another reason Y shows as well. The other rules get a small lie of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import numpy as np

from ggml_rpc_ref.backends import Backend
from ggml_rpc_ref.backends.oracle import Oracle
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.net.stream import Endpoint, parse_endpoint
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.connection import NEED_DATA, Connection, Event, NeedData, Role, _State
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.protocol.order import Order
from ggml_rpc_ref.server.executor import Plan, make_plan
from ggml_rpc_ref.server.handlers import Device, Host, Region, Runnable, Session
from ggml_rpc_ref.server.memory import Buffer, DeviceMemory, Memory, WireTensor
from ggml_rpc_ref.server.server import Server
from ggml_rpc_ref.server.tensor_cache import TensorCache
from ggml_rpc_ref.spec.messages import (
    NO_REPLY,
    REQUESTS,
    AllocBuffer,
    AllocBufferReply,
    BufferClear,
    CopyTensor,
    CopyTensorReply,
    DeviceCount,
    DeviceCountReply,
    Empty,
    FreeBuffer,
    GetAlignment,
    GetAlignmentReply,
    GetAllocSize,
    GetAllocSizeReply,
    GetDeviceMemory,
    GetDeviceMemoryReply,
    GetMaxSize,
    GetMaxSizeReply,
    GetTensor,
    GraphCompute,
    GraphRecompute,
    Hello,
    HelloReply,
    InitTensor,
    RpcTensor,
    SetTensor,
    SetTensorHash,
    SetTensorHashReply,
)
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.versions import DEFAULT, Version

OPS = op_table()
SMALL = 2**20

NO_CASE = {"session.version-accepted": "a rule for clients: a server can't break it"}
"""Rules that no case on a server can judge, and why."""


@dataclass(frozen=True)
class Sabotage:
    """What is wrong with a server.

    Attributes:
        session: answers the requests.
        connection: reads and writes the messages.
        planner: checks and compiles graphs.
        timeout: seconds for one answer; short where the sabotage is that none comes.
    """

    session: type[Session] = Session
    connection: type[Connection] = Connection
    planner: Callable[..., Runnable] = make_plan
    timeout: float = 10.0


SABOTAGES: dict[str, Sabotage] = {}
"""Rule id to what breaks it."""


# ------------------------------------------------------------------------------------------------- refusals not made


GIVEN: dict[int, Memory] = {}
"""Handle to the memory of the connection that was given it, for every handle of the servers here, the freed ones too."""


class Registers(Session):
    """A session whose handles are known to the others."""

    def handle(self, message: object) -> object:
        reply = super().handle(message)
        if isinstance(reply, AllocBufferReply) and reply.remote_ptr:
            GIVEN[reply.remote_ptr] = self.memory
        return reply


def is_foreign(memory: Memory, handle: int) -> bool:
    """Whether a handle was given to another connection."""
    return GIVEN.get(handle, memory) is not memory


class Lenient(Registers):
    """A session that does not refuse what breaks one rule."""

    rule: ClassVar[str] = ""

    def handle(self, message: object) -> object:
        try:
            return super().handle(message)
        except Violation as broken:
            if not self.lets_pass(broken, message):
                raise
            return some_reply(message)

    def destination(self, message: SetTensor, size: int) -> Region:
        try:
            return super().destination(message, size)
        except Violation as broken:
            if size > SMALL or not self.lets_pass(broken, message):
                raise
            return Region(Buffer(0, 0, 0, np.zeros(size, np.uint8)), 0, size)

    def source(self, message: GetTensor) -> memoryview:
        try:
            return super().source(message)
        except Violation as broken:
            if not self.lets_pass(broken, message):
                raise
            return memoryview(bytes(min(message.size, SMALL)))

    def lets_pass(self, broken: Violation, message: object) -> bool:
        """Whether to go on: what reaches into another connection is another rule's business."""
        return broken.rule == self.rule and not any(is_foreign(self.memory, handle) for handle in handles(message))


def handles(message: Any) -> list[int]:
    """Every handle that a request names."""
    if isinstance(message, Graph):
        return [int(handle) for handle in message.tensors["buffer"]]
    tensors = [getattr(message, name, None) for name in ("tensor", "src", "dst")]
    return [t.buffer for t in tensors if isinstance(t, RpcTensor)] + [getattr(message, "remote_ptr", 0)]


def some_reply(message: object) -> object:
    """A reply of the right form that says nothing."""
    cls = GraphCompute if isinstance(message, Graph) else type(message)
    reply: Any = REQUESTS[cls].reply(DEFAULT)
    return reply if reply is NO_REPLY else codec.decode(reply, bytes(codec.minimum_size(reply)))


def lenient(rule: str) -> type[Lenient]:
    return type("Lenient", (Lenient,), {"rule": rule})


def tolerant_planner(rule: str) -> Callable[..., Runnable]:
    """A planner that takes a graph which breaks a rule for an empty one, in planning and in running."""

    def plan(graph: Graph, memory: Memory, backend: Backend, version: Version) -> Runnable:
        try:
            return Forgiving(make_plan(graph, memory, backend, version), rule)
        except Violation as broken:
            if broken.rule != rule or any(is_foreign(memory, handle) for handle in graph.tensors["buffer"].tolist()):
                raise
            return Plan((), frozenset())

    return plan


@dataclass(frozen=True)
class Forgiving:
    """A plan whose run stops without a word where it breaks a rule."""

    plan: Runnable
    rule: str

    @property
    def buffers(self) -> frozenset[Buffer]:
        return self.plan.buffers

    def run(self) -> None:
        try:
            self.plan.run()
        except Violation as broken:
            if broken.rule != self.rule:
                raise


REFUSED_BY_SESSION = (
    "device.index",
    "tensor.type-known",
    "tensor.block-multiple",
    "tensor.buffer-known",
    "tensor.in-buffer",
    "data.in-tensor",
    "data.offset-wrap",
    "data.copy-fits",
)
REFUSED_BY_PLANNER = (
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
SABOTAGES |= {rule: Sabotage(lenient(rule)) for rule in REFUSED_BY_SESSION}
SABOTAGES |= {rule: Sabotage(Registers, planner=tolerant_planner(rule)) for rule in REFUSED_BY_PLANNER}


def break_session(rule: str, timeout: float = 10.0) -> Callable[[type[Session]], type[Session]]:
    def register(cls: type[Session]) -> type[Session]:
        SABOTAGES[rule] = Sabotage(session=cls, timeout=timeout)
        return cls

    return register


def break_connection(rule: str, timeout: float = 10.0) -> Callable[[type[Connection]], type[Connection]]:
    def register(cls: type[Connection]) -> type[Connection]:
        SABOTAGES[rule] = Sabotage(connection=cls, timeout=timeout)
        return cls

    return register


def break_planner(rule: str) -> Callable[[Callable[..., Runnable]], Callable[..., Runnable]]:
    def register(planner: Callable[..., Runnable]) -> Callable[..., Runnable]:
        SABOTAGES[rule] = Sabotage(planner=planner)
        return planner

    return register


# ------------------------------------------------------------------------------------------------------------- frame


@break_connection("frame.command-known")
class TakesAnyCommand(Connection):
    """An unknown command is taken for DEVICE_COUNT."""

    def _request_class(self, number: int) -> type:
        try:
            return super()._request_class(number)
        except Violation as broken:
            if broken.rule != "frame.command-known":
                raise
            return DeviceCount


class ForgivingSizes(Connection):
    """A size that breaks a rule is not refused: the payload is waited for, and made to fit."""

    rule: ClassVar[str]
    wrong = False

    def _check_size(self) -> None:
        try:
            self.wrong = False
            super()._check_size()
        except Violation as broken:
            if broken.rule != self.rule or self._size > SMALL:
                raise
            self.wrong = True

    def _read_payload(self) -> Any:
        if not self.wrong:
            return super()._read_payload()
        if len(self._buffer) < self._size:
            return NEED_DATA
        del self._buffer[: self._size]
        return self.take_wrong()

    def take_wrong(self) -> Any:
        raise NotImplementedError


@break_connection("frame.size-fixed")
class FitsSizes(ForgivingSizes):
    """A request of the wrong size is answered as a DEVICE_COUNT is."""

    rule = "frame.size-fixed"

    def take_wrong(self) -> Any:
        self._cls = DeviceCount
        self._state = _State.HEAD
        return self._request(DeviceCount())


@break_connection("frame.size-minimum")
class IgnoresStumps(ForgivingSizes):
    """A SET_TENSOR or GRAPH_COMPUTE that is too short is passed over."""

    rule = "frame.size-minimum"

    def take_wrong(self) -> Any:
        self._state = _State.HEAD
        return self.next_event()


@break_connection("frame.size-bounded", timeout=1.0)
class BelievesSizes(Connection):
    """All the data that a SET_TENSOR claims are waited for before its tensor is looked at, as upstream does."""

    @property
    def _payload_wanted(self) -> int:
        return self._size if self._cls is SetTensor and self._size >= 2**28 else super()._payload_wanted


@break_session("frame.reply-presence")
class AnswersUploads(Session):
    """SET_TENSOR is answered, as it was in 1.0.0."""

    def placed(self, region: Region) -> object:
        super().placed(region)
        return Empty()


SABOTAGES["frame.reply-presence"] = replace(
    SABOTAGES["frame.reply-presence"],
    connection=type(
        "SendsAnything",
        (Connection,),
        {
            "send": lambda self, m: (
                codec.encode_reply(m) if isinstance(m, Empty) and not self.order.waiting else Connection.send(self, m)
            )
        },
    ),
)


@break_session("frame.reply-order")
class WritesLate(Session):
    """The data of a SET_TENSOR are put in their place only after the next request has been answered."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.waiting: list[tuple[Region, Region]] = []

    def destination(self, message: SetTensor, size: int) -> Region:
        self.catch_up()
        region = super().destination(message, size)
        self.waiting.append((region, Region(Buffer(0, 0, 0, np.zeros(size, np.uint8)), 0, size)))
        return self.waiting[-1][1]

    def source(self, message: GetTensor) -> memoryview:
        data = memoryview(bytes(super().source(message)))
        self.catch_up()
        return data

    def handle(self, message: object) -> object:
        try:
            return super().handle(message)
        finally:
            self.catch_up()

    def catch_up(self) -> None:
        for region, written in self.waiting:
            region.bytes[:] = written.bytes
            super().placed(region)
        self.waiting.clear()

    def placed(self, region: Region) -> object:
        return NO_REPLY


@break_connection("frame.segmentation")
class WantsWholeHeads(Connection):
    """A message whose first piece is shorter than its head is given up."""

    def receive(self, data: codec.Readable) -> None:
        if self._state is _State.HEAD and not self._buffer and len(data) < self._head_size and self.order.opened:
            raise Violation("frame.segmentation", "read", len(data), "a whole head was hoped for")
        super().receive(data)


@break_connection("frame.complete")
class AnswersEarly(Connection):
    """The last byte of a message is not waited for: it is taken to be zero, and swallowed when it comes."""

    early = False

    def receive(self, data: codec.Readable) -> None:
        super().receive(data[1:] if self.early and data else data)
        self.early = False
        head = self.role is Role.SERVER and self._state is _State.HEAD
        if head and len(self._buffer) == 8 and self._buffer[0] in (14, 15):
            self._pad()  # the requests that are a head alone

    def _read_payload(self) -> Event | NeedData:
        if len(self._buffer) == self._payload_wanted - 1 and self._cls is not SetTensor:  # whose data don't come through `receive`
            self._pad()
        return super()._read_payload()

    def _pad(self) -> None:
        self._buffer += b"\0"
        self.early = True


# ----------------------------------------------------------------------------------------------------------- session


@break_connection("session.hello-first")
class NeedsNoHello(Connection):
    """Any command may come first."""

    def _request_class(self, number: int) -> type:
        if number != 14 and not self.order.opened:
            self.order = Order(self.version, from_start=False)
        return super()._request_class(number)


@break_connection("session.hello-once")
class HearsHelloAgain(Connection):
    """HELLO is answered as often as it is said."""

    def _request_class(self, number: int) -> type:
        return Hello if number == 14 else super()._request_class(number)


@break_session("session.hello-version")
class ChangesVersion(Session):
    """Every fourth connection is told another version."""

    count = 0

    def handle(self, message: object) -> object:
        if isinstance(message, Hello):
            ChangesVersion.count += 1
            return HelloReply(major=3, minor=6, patch=1 if ChangesVersion.count % 4 else 2)
        return super().handle(message)


@break_connection("session.survives", timeout=0.5)
class GivesUpAtHalves(Connection):
    """A message that is cut off in its middle ends the whole server: from then on nobody is answered."""

    dead = False

    def receive(self, data: codec.Readable) -> None:
        if not type(self).dead:
            super().receive(data)

    @property
    def idle(self) -> bool:
        if not super().idle:
            type(self).dead = True
        return super().idle


@break_session("session.frees")
class KeepsTheDead(Session):
    """What a connection leaves behind can be found by its handle afterwards."""

    graveyard: ClassVar[dict[int, Buffer]] = {}

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.memory = reaching(self.memory, lambda: self.graveyard)

    def close(self) -> None:
        self.graveyard.update(self.memory._buffers)
        super().close()


@break_session("session.isolated")
class SharesHandles(Session):
    """A handle is found on whichever connection it was given."""

    living: ClassVar[dict[int, Buffer]] = {}

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.memory = reaching(self.memory, lambda: self.living)

    def handle(self, message: object) -> object:
        reply = super().handle(message)
        if isinstance(reply, AllocBufferReply):
            self.living.update(self.memory._buffers)
        if isinstance(message, FreeBuffer):
            self.living.pop(message.remote_ptr)
        return reply

    def close(self) -> None:
        for handle in self.memory._buffers:
            self.living.pop(handle, None)
        super().close()


def reaching(memory: Memory, others: Callable[[], dict[int, Buffer]]) -> Memory:
    """A memory that looks for unknown handles elsewhere too; only to say where they begin."""

    class Reaching(Memory):
        def buffer(self, remote_ptr: int, rule: str = "buffer.known", field: str = "remote_ptr") -> Buffer:
            return others().get(remote_ptr) or super().buffer(remote_ptr, rule, field)

    memory.__class__ = Reaching
    return memory


@break_session("session.concurrent", timeout=1.0)
class OneAtATime(Session):
    """A connection is answered when the one before it has ended."""

    turn: ClassVar[Lock] = Lock()

    def __enter__(self) -> OneAtATime:
        self.turn.acquire()
        return self

    def close(self) -> None:
        super().close()
        self.turn.release()


# ------------------------------------------------------------------------------------------------------------ device


def answering(rule: str, request: type, answer: Callable[[Session, Any, Any], object]) -> None:
    """Break a rule by changing the reply to one request; `answer` gets the session, the request and the right reply."""

    def handle(self: Session, message: object) -> object:
        right = Session.handle(self, message)
        return answer(self, message, right) if isinstance(message, request) else right

    SABOTAGES[rule] = Sabotage(session=type("Answering", (Session,), {"handle": handle, "asked": 0}))


def _count_up(session: Any, message: object, right: DeviceCountReply) -> DeviceCountReply:
    session.asked += 1
    return DeviceCountReply(device_count=right.device_count + (session.asked > 3))


answering("device.count", DeviceCount, _count_up)
answering("device.memory", GetDeviceMemory, lambda s, m, r: GetDeviceMemoryReply(free_mem=r.total_mem + 1, total_mem=r.total_mem))
answering("device.alignment", GetAlignment, lambda s, m, r: GetAlignmentReply(alignment=48))
answering("device.max-size", GetMaxSize, lambda s, m, r: GetMaxSizeReply(max_size=0))


# ------------------------------------------------------------------------------------------------------------ buffer


class RemembersFreed(Lenient):
    """A session that knows which of its handles have been freed."""

    rule = "buffer.known"

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.freed: set[int] = set()

    def handle(self, message: object) -> object:
        reply = super().handle(message)
        if isinstance(message, FreeBuffer):
            self.freed.add(message.remote_ptr)
        return reply

    def frees_again(self, message: object) -> bool:
        return isinstance(message, FreeBuffer) and message.remote_ptr in self.freed


@break_session("buffer.known")
class TakesAnyHandle(RemembersFreed):
    """A request on a handle that is none is answered, except a second FREE_BUFFER."""

    def lets_pass(self, broken: Violation, message: object) -> bool:
        return not self.frees_again(message) and super().lets_pass(broken, message)


@break_session("buffer.freed-once")
class FreesTwice(RemembersFreed):
    """A second FREE_BUFFER is answered as the first was."""

    def lets_pass(self, broken: Violation, message: object) -> bool:
        return self.frees_again(message) and super().lets_pass(broken, message)


def _close_where_null(session: Session, message: AllocBuffer, right: AllocBufferReply) -> AllocBufferReply:
    if right.remote_ptr == 0:
        raise Violation("buffer.alloc-fails", "size", message.size)
    return right


answering("buffer.alloc-fails", AllocBuffer, _close_where_null)
answering(
    "buffer.alloc-size",
    AllocBuffer,
    lambda s, m, r: AllocBufferReply(remote_ptr=r.remote_ptr, remote_size=r.remote_size - (r.remote_size == 1000)),
)
answering("buffer.empty", AllocBuffer, lambda s, m, r: r if m.size else AllocBufferReply(remote_ptr=0, remote_size=0))


@break_session("buffer.disjoint")
class StacksBuffers(Session):
    """From the ninth on buffers begin where the first does."""

    def handle(self, message: object) -> object:
        reply = super().handle(message)
        buffers = list(self.memory._buffers.values())
        if isinstance(message, AllocBuffer) and len(buffers) > 8:
            buffers[-1].base = buffers[0].base
        return reply


@break_session("buffer.opaque")
class ShowsPointers(Session):
    """A handle is the address of the object that stands for the buffer."""

    def handle(self, message: object) -> object:
        reply = super().handle(message)
        if not isinstance(reply, AllocBufferReply) or not reply.remote_ptr:
            return reply
        buffer = self.memory._buffers.pop(reply.remote_ptr)
        buffer.remote_ptr = id(buffer)
        self.memory._buffers[buffer.remote_ptr] = buffer
        return AllocBufferReply(remote_ptr=buffer.remote_ptr, remote_size=reply.remote_size)


@break_session("buffer.clean")
class ReusesBytes(Session):
    """A buffer gets the bytes that the last freed one of its size had, as they are."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.left: dict[int, Any] = {}

    def handle(self, message: object) -> object:
        if isinstance(message, FreeBuffer) and message.remote_ptr in self.memory._buffers:
            data = self.memory._buffers[message.remote_ptr].data
            self.left[len(data)] = data
        reply = super().handle(message)
        if isinstance(message, AllocBuffer) and message.size in self.left:
            list(self.memory._buffers.values())[-1].data = self.left[message.size]
        return reply


@break_session("buffer.clear")
class ClearsMost(Session):
    """BUFFER_CLEAR leaves what lies behind the first 9,000 bytes."""

    def handle(self, message: object) -> object:
        if not isinstance(message, BufferClear):
            return super().handle(message)
        data = self.memory.buffer(message.remote_ptr).data
        kept = data[9000:].copy()
        reply = super().handle(message)
        data[9000:] = kept
        return reply


# ------------------------------------------------------------------------------------------------------ tensor, data


@break_session("tensor.empty")
class RefusesEmpty(Session):
    """A tensor with a dimension of 0 is refused."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)

        class Strict(Memory):
            def tensor(self, wire: WireTensor, field: str = "tensor") -> Any:
                if 0 in wire.ne:
                    raise Violation("tensor.empty", f"{field}.ne", wire.ne)
                return super().tensor(wire, field)

        self.memory.__class__ = Strict


def _spoil(session: Session, message: InitTensor, right: object) -> object:
    _, buffer = session.placed_tensor(message.tensor)
    start = message.tensor.data - buffer.base
    buffer.data[start : start + 1] ^= 0xFF
    return right


answering("tensor.init", InitTensor, _spoil)
answering(
    "tensor.alloc-size",
    GetAllocSize,
    lambda s, m, r: GetAllocSizeReply(alloc_size=max(0, r.alloc_size - 1)),
)


@break_session("data.round-trip")
class SpoilsBf16(Session):
    """The last byte of a BF16 tensor comes back with a bit changed."""

    def source(self, message: GetTensor) -> memoryview:
        data = bytearray(super().source(message))
        if message.tensor.type == 30:
            data[-1] ^= 1
        return memoryview(data)


@break_session("data.partial")
class SpoilsTheRest(Session):
    """Writing into the middle of a tensor changes its first byte too."""

    def destination(self, message: SetTensor, size: int) -> Region:
        region = super().destination(message, size)
        tensor, _ = self.placed_tensor(message.tensor)
        if size and message.offset and message.offset + size < tensor.nbytes:
            region.buffer.data[region.start - message.offset] ^= 1
        return region


@break_session("data.empty")
class RefusesNothing(Session):
    """A range of no bytes at the end of a tensor is refused, as upstream does at the end of a buffer."""

    def region(self, wire: RpcTensor, offset: int, size: int) -> Region:
        region = super().region(wire, offset, size)
        if size == 0 and 0 < self.placed_tensor(wire)[0].nbytes == offset:
            raise Violation("data.empty", "size", 0)
        return region


answering("data.hash-miss", SetTensorHash, lambda s, m, r: SetTensorHashReply(result=1))


def _spoil_hit(session: Session, message: SetTensorHash, right: SetTensorHashReply) -> SetTensorHashReply:
    if right.result:
        session.region(message.tensor, 0, 1).bytes[0] ^= 1
    return right


answering("data.hash-hit", SetTensorHash, _spoil_hit)


def _spoil_copy(session: Session, message: CopyTensor, right: CopyTensorReply) -> CopyTensorReply:
    session.region(message.dst, 0, 1).bytes[0] ^= 1
    return right


answering("data.copy", CopyTensor, _spoil_copy)


# ------------------------------------------------------------------------------------------------------------- graph


@break_connection("graph.size-exact")
class IgnoresOddGraphs(Connection):
    """A GRAPH_COMPUTE whose counts do not fill it is passed over."""

    def _read_payload(self) -> Any:
        if self._cls is not GraphCompute or self._size > SMALL:
            return super()._read_payload()
        if len(self._buffer) < self._size:
            return NEED_DATA
        try:
            return super()._read_payload()
        except Violation as broken:
            if broken.rule != "graph.size-exact":
                raise
            del self._buffer[: self._size]
            self._state = _State.HEAD
            return self.next_event()


@break_planner("graph.deep")
def shallow(graph: Graph, memory: Memory, backend: Backend, version: Version) -> Runnable:
    """Graphs of many tensors are refused."""
    if len(graph.tensors) > 10_000:
        raise Violation("graph.deep", "number of tensors", len(graph.tensors))
    return make_plan(graph, memory, backend, version)


@break_planner("graph.op-supported")
def skips_squares(graph: Graph, memory: Memory, backend: Backend, version: Version) -> Runnable:
    """SQR is passed over, as an op that a server lacks and does not say so."""
    kept = [id for id in graph.nodes.tolist() if _op_of(graph, id) != "SQR"]
    return make_plan(Graph(graph.device, np.array(kept, "<u8"), graph.tensors), memory, backend, version)


def _op_of(graph: Graph, id: int) -> str:
    found = graph.tensors["op"][graph.tensors["id"] == id]
    return OPS[found[0]] if len(found) and found[0] < len(OPS) else ""


@dataclass(frozen=True)
class Spoilt:
    """A plan after whose run something more happens."""

    plan: Plan
    then: Callable[[Plan], None]
    buffers: frozenset[Buffer] = field(default_factory=frozenset)

    def run(self) -> None:
        self.plan.run()
        self.then(self.plan)


@break_planner("graph.computes")
def multiplies_badly(graph: Graph, memory: Memory, backend: Backend, version: Version) -> Runnable:
    """The first element of a matrix product is 1 too large."""

    def spoil(plan: Plan) -> None:
        for step in plan.steps:
            if step.node.op.name == "MUL_MAT" and step.node.dst.nelements:
                step.node.dst.array.flat[0] += 1

    plan = make_plan(graph, memory, backend, version)
    return Spoilt(plan, spoil, plan.buffers)


@break_planner("graph.flag-compute")
def any_flag_will_do(graph: Graph, memory: Memory, backend: Backend, version: Version) -> Runnable:
    """A node with any flag is computed."""
    tensors = graph.tensors.copy()
    tensors["flags"] |= np.where(tensors["flags"] != 0, 16, 0).astype("<i4")
    return make_plan(Graph(graph.device, graph.nodes, tensors), memory, backend, version)


@break_planner("graph.empty")
def wants_nodes(graph: Graph, memory: Memory, backend: Backend, version: Version) -> Runnable:
    """A graph without nodes is refused."""
    if len(graph.nodes) == 0:
        raise Violation("graph.empty", "number of nodes", 0)
    return make_plan(graph, memory, backend, version)


@break_session("graph.recompute")
class OnePlanForAll(Session):
    """GRAPH_RECOMPUTE computes the last graph of whichever device."""

    last: Runnable | None = None

    def handle(self, message: object) -> object:
        if isinstance(message, GraphRecompute) and message.device in self.plans and self.last is not None:
            self.last.run()
            return NO_REPLY
        reply = super().handle(message)
        if isinstance(message, Graph):
            self.last = self.plans[message.device]
        return reply


@break_session("graph.recompute-stored")
class RecomputesNothing(Session):
    """GRAPH_RECOMPUTE where no graph was ever stored is passed over."""

    dropped = False

    def handle(self, message: object) -> object:
        before = len(self.plans)
        try:
            return super().handle(message)
        except Violation as broken:
            if broken.rule != "graph.recompute-stored" or self.dropped:
                raise
            return NO_REPLY
        finally:
            self.dropped |= isinstance(message, FreeBuffer) and len(self.plans) < before


@break_session("graph.recompute-freed")
class KeepsPlans(Session):
    """A stored graph outlives its buffers."""

    def handle(self, message: object) -> object:
        plans = dict(self.plans)
        reply = super().handle(message)
        if isinstance(message, FreeBuffer):
            self.plans = plans
        return reply


# ------------------------------------------------------------------------------------------------------------- a target


class InProcess:
    """Our server, sabotaged or not, in this process, as a target for the suite."""

    restartable = False
    name = "a server in this process"

    def __init__(self, cache: Path, sabotage: Sabotage | None = None) -> None:
        wrong = sabotage or Sabotage()
        devices = [Device(f"oracle {n}", "numpy", DeviceMemory(2**30), Oracle()) for n in range(2)]
        host = Host(devices, tensors=TensorCache(cache), make_plan=wrong.planner)
        connection = type("Sabotaged", (wrong.connection,), {})  # so that what a class remembers ends with this server
        kind = type("Sabotaged", (Server,), {"session_type": wrong.session, "connection_type": connection})
        self._server: Server = kind(host)
        self.endpoint: Endpoint = parse_endpoint(self._server.endpoint)

    @property
    def pid(self) -> int:
        return os.getpid()

    def start(self) -> None:
        self._server.__enter__()

    def death(self) -> str:
        return ""

    def stop(self) -> None:
        self._server.shutdown()


__all__ = ["NO_CASE", "SABOTAGES", "InProcess", "Sabotage"]
