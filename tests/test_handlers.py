"""What the server does with each request, without a socket: replies, refusals by rule, and what a session leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.backends.oracle import Oracle
from ggml_rpc_ref.errors import Unsupported, Violation
from ggml_rpc_ref.protocol.fnv import definition
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server import tensor_cache
from ggml_rpc_ref.server.handlers import Device, Host, Session
from ggml_rpc_ref.server.memory import Buffer, Memory
from ggml_rpc_ref.server.session import MOVED
from ggml_rpc_ref.server.tensor_cache import TensorCache
from ggml_rpc_ref.spec.messages import (
    NO_REPLY,
    AllocBuffer,
    AllocBufferReply,
    BufferClear,
    BufferGetBase,
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
    GraphComputeReply,
    GraphRecompute,
    Hello,
    HelloReply,
    InitTensor,
    MemsetTensor,
    RpcTensor,
    SetTensor,
    SetTensorHash,
    SetTensorHashReply,
    by_number,
)
from ggml_rpc_ref.spec.versions import NEWEST, PROFILES, V3_0_0, V3_5_0, V3_6_1, V5_0_0, Version

F32, Q4_0, Q8_0, I8, DEAD_TYPE, UNKNOWN_TYPE = 0, 2, 8, 24, 4, 41
TOP = 2**64


@dataclass
class FakePlan:
    """A plan that counts its runs and may fail."""

    graph: Graph
    buffers: frozenset[Buffer]
    fails: Violation | None = None
    runs: int = 0

    def run(self, cancelled: object) -> None:
        self.runs += 1
        if self.fails:
            raise self.fails

    def dismantle(self) -> None:
        """Hold nothing."""


@dataclass
class FakePlanner:
    """Makes fake plans that use `buffers`, and remembers what it was asked for."""

    buffers: set[Buffer] = field(default_factory=set)
    fails: Violation | None = None
    asked: list[tuple[Graph, Memory, Any, Any]] = field(default_factory=list)
    plans: list[FakePlan] = field(default_factory=list)

    def __call__(self, graph: Graph, memory: Memory, backend: Any, version: Any) -> FakePlan:
        self.asked.append((graph, memory, backend, version))
        self.plans.append(FakePlan(graph, frozenset(self.buffers), self.fails))
        return self.plans[-1]


@pytest.fixture
def planner() -> FakePlanner:
    return FakePlanner()


@pytest.fixture
def host(planner: FakePlanner) -> Host:
    devices = [Device(f"d{index}", "for tests", Oracle(HostMemory(2**20 << index), copies=2**20)) for index in range(2)]
    return Host(devices, make_plan=planner)


@pytest.fixture
def session(host: Host) -> Iterator[Session]:
    with Session(host) as session:
        yield session


def alloc(session: Session, size: int = 4096, device: int = 0) -> Buffer:
    reply: Any = session.handle(AllocBuffer(device=device, size=size))
    return session.memory.buffer(reply.remote_ptr)


def data_of(buffer: Buffer) -> Any:
    """A buffer's bytes in place."""
    assert buffer.allocation.data is not None
    return buffer.allocation.data


def tensor_in(buffer: Buffer, count: int = 16, at: int = 0, **changes: Any) -> RpcTensor:
    """`count` bytes (type I8) in a buffer, from its byte `at` on, unless changed."""
    nb = (1, count, count, count)
    return replace(RpcTensor(id=1, type=I8, buffer=buffer.remote_ptr, ne=(count, 1, 1, 1), nb=nb, data=buffer.base + at), **changes)


def write(session: Session, tensor: RpcTensor, data: bytes, offset: int = 0) -> None:
    region = session.destination(SetTensor(tensor=tensor, offset=offset), len(data))
    at = 0
    for room in region.receive():
        room[:] = data[at : at + len(room)]
        at += len(room)
    session.placed(SetTensor(tensor=tensor, offset=offset), region)


def read(session: Session, tensor: RpcTensor, offset: int = 0, size: int | None = None) -> bytes:
    size = tensor.ne[0] if size is None else size
    return b"".join(session.source(GetTensor(tensor=tensor, offset=offset, size=size)).pieces())


def refused(session: Session, message: object) -> str:
    """The rule by which a message is refused."""
    with pytest.raises(Violation) as caught:
        session.handle(message)
    return caught.value.rule


# -------------------------------------------------------------------------------------------------------------- the server


def test_hello_says_the_version(session: Session) -> None:
    assert session.handle(Hello()) == HelloReply(major=3, minor=6, patch=1)


def test_devices(session: Session) -> None:
    assert session.handle(DeviceCount()) == DeviceCountReply(device_count=2)
    assert session.handle(GetAlignment(device=1)) == GetAlignmentReply(alignment=32)
    assert session.handle(GetMaxSize(device=0)) == GetMaxSizeReply(max_size=2**20)
    assert session.handle(GetMaxSize(device=1)) == GetMaxSizeReply(max_size=2**21)
    assert session.handle(GetDeviceMemory(device=1)) == GetDeviceMemoryReply(free_mem=2**21, total_mem=2**21)


EMPTY_GRAPH = Graph(0, np.zeros(0, "<u8"), np.zeros(0, "V296"))
OTHER_GRAPH = Graph(0, np.zeros(0, "<u8"), np.zeros(1, "V296"))
"""Of one tensor; only a planner that looks at nothing takes it."""

NEEDS_DEVICE = [
    AllocBuffer(device=2, size=1),
    GetAlignment(device=2),
    GetMaxSize(device=2),
    GetDeviceMemory(device=2),
    GetAllocSize(device=2, tensor=RpcTensor()),
    GraphRecompute(device=2),
    replace(EMPTY_GRAPH, device=2),
]


@pytest.mark.parametrize("message", NEEDS_DEVICE, ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("index", [2, 2**32 - 1])
def test_a_device_that_is_none_is_refused(session: Session, message: Any, index: int) -> None:
    assert refused(session, replace(message, device=index)) == "device.index"


def test_free_memory_is_what_is_left_for_everybody(host: Host) -> None:
    with Session(host) as one, Session(host) as other:
        alloc(one, 1000, device=1)
        buffer = alloc(one, 24, device=1)
        assert other.handle(GetDeviceMemory(device=1)) == GetDeviceMemoryReply(free_mem=2**21 - 1024, total_mem=2**21)
        assert other.handle(GetDeviceMemory(device=0)) == GetDeviceMemoryReply(free_mem=2**20, total_mem=2**20)
        one.handle(FreeBuffer(remote_ptr=buffer.remote_ptr))
        assert other.handle(GetDeviceMemory(device=1)) == GetDeviceMemoryReply(free_mem=2**21 - 1000, total_mem=2**21)


def test_every_request_of_the_version_has_a_handler() -> None:
    handled = {cls for cls in Session.handlers if cls is not Graph}
    assert handled | {*MOVED, GraphCompute} == {row.cls for row in by_number(NEWEST).values()}


def test_a_version_with_more_requests_is_not_served(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(Session.handlers, MemsetTensor)
    with pytest.raises(Unsupported, match="MEMSET_TENSOR"):
        replace(host, version=V5_0_0)


def test_two_versions_with_the_same_hello_are_not_served_together(host: Host) -> None:
    assert replace(host, version=V3_0_0, others=(V5_0_0,)).versions == (V3_0_0, V5_0_0)
    with pytest.raises(
        Unsupported, match=r"can't choose between 3\.0\.0 and 3\.6\.1: their clients say HELLO with the same 0 bytes"
    ):
        replace(host, version=V3_0_0, others=(V5_0_0, V3_6_1))


def test_a_version_that_nobody_knows_is_not_served(host: Host) -> None:
    with pytest.raises(Unsupported, match=r"can't speak 3\.7\.0: known are 1\.0\.0, "):
        replace(host, version=Version(3, 7, 0))


@pytest.mark.parametrize("version", PROFILES, ids=str)
def test_every_version_is_served(host: Host, version: Version) -> None:
    with Session(replace(host, version=version)) as session:
        assert session.memory.alloc(0, 64) is not None


# ----------------------------------------------------------------------------------------------------------------- buffers


@pytest.mark.parametrize("size", [2**20 + 1, 2**40, 2**63, 2**64 - 1])
def test_no_room_is_no_refusal(session: Session, size: int) -> None:
    assert session.handle(AllocBuffer(device=0, size=size)) == AllocBufferReply(remote_ptr=0, remote_size=0)
    assert alloc(session, 2**20).size == 2**20


def test_a_buffer_of_no_bytes(session: Session) -> None:
    reply: Any = session.handle(AllocBuffer(device=0, size=0))
    assert reply.remote_ptr != 0
    assert reply.remote_size == 0
    assert session.handle(BufferGetBase(remote_ptr=reply.remote_ptr)).base_ptr == 0  # type: ignore[attr-defined]


def test_a_base_is_aligned_and_not_the_processs_own(session: Session) -> None:
    buffer = alloc(session)
    base = session.handle(BufferGetBase(remote_ptr=buffer.remote_ptr)).base_ptr  # type: ignore[attr-defined]
    assert base % 32 == 0
    assert base != data_of(buffer).ctypes.data


@pytest.mark.parametrize("request_class", [BufferGetBase, FreeBuffer, BufferClear])
@pytest.mark.parametrize("case", ["null", "unknown", "freed", "foreign"])
def test_a_handle_that_is_none_is_refused(host: Host, session: Session, request_class: Any, case: str) -> None:
    with Session(host) as other:
        freed = alloc(session)
        session.handle(FreeBuffer(remote_ptr=freed.remote_ptr))
        live = alloc(session).remote_ptr
        remote_ptr = {"null": 0, "unknown": live ^ 32, "freed": freed.remote_ptr, "foreign": alloc(other).remote_ptr}[case]
        more = {"value": 1} if request_class is BufferClear else {}
        assert refused(session, request_class(remote_ptr=remote_ptr, **more)) == "buffer.known"
        assert data_of(session.memory.buffer(live)).any() == 0


def test_clear_sets_every_byte_of_that_buffer_only(session: Session) -> None:
    buffer, other = alloc(session, 100), alloc(session, 100)
    assert session.handle(BufferClear(remote_ptr=buffer.remote_ptr, value=0xAB)) == Empty()
    assert data_of(buffer).tobytes() == b"\xab" * 100
    assert data_of(other).tobytes() == bytes(100)


def test_free_frees(session: Session) -> None:
    buffer = alloc(session, 100)
    assert session.handle(FreeBuffer(remote_ptr=buffer.remote_ptr)) == Empty()
    assert session.host.devices[0].memory.free == 2**20


def test_the_end_frees_everything(host: Host) -> None:
    with Session(host) as session:
        for device in (0, 1, 1):
            alloc(session, 5000, device)
    assert [device.memory.free for device in host.devices] == [2**20, 2**21]


# -------------------------------------------------------------------------------------------------------------------- data


def test_what_was_set_is_got(session: Session) -> None:
    tensor = tensor_in(alloc(session), 16, at=32)
    write(session, tensor, bytes(range(16)))
    assert read(session, tensor) == bytes(range(16))
    assert read(session, tensor, 5, 3) == bytes([5, 6, 7])


def test_a_part_is_written_and_nothing_around_it(session: Session) -> None:
    buffer = alloc(session, 48)
    session.handle(BufferClear(remote_ptr=buffer.remote_ptr, value=0xEE))
    write(session, tensor_in(buffer, 16, at=16), b"abc", offset=2)
    assert data_of(buffer).tobytes() == b"\xee" * 18 + b"abc" + b"\xee" * 27


@pytest.mark.parametrize(("offset", "size"), [(0, 0), (16, 0), (0, 16), (15, 1)])
def test_ranges_inside_the_tensor(session: Session, offset: int, size: int) -> None:
    buffer = alloc(session, 48)
    for at in (0, 32):
        assert len(read(session, tensor_in(buffer, 16, at), offset, size)) == size


OUTSIDE = [
    (0, 17, "data.in-tensor"),
    (16, 1, "data.in-tensor"),
    (17, 0, "data.in-tensor"),
    (1, 16, "data.in-tensor"),
    (0, TOP - 1, "data.in-tensor"),
    (8, TOP - 8, "data.in-tensor"),
    (2**32, 1, "data.in-tensor"),
    (TOP - 1, 1, "data.offset-wrap"),
    (TOP - 16, 16, "data.offset-wrap"),
    (TOP - 32, 40, "data.offset-wrap"),
]


@pytest.mark.parametrize(("offset", "size", "rule"), OUTSIDE)
@pytest.mark.parametrize("command", ["SET", "GET"])
def test_a_range_that_leaves_the_tensor_is_refused(session: Session, command: str, offset: int, size: int, rule: str) -> None:
    tensor = tensor_in(alloc(session, 4096), 16, at=64)
    act = {
        "SET": lambda: session.destination(SetTensor(tensor=tensor, offset=offset), size),
        "GET": lambda: session.source(GetTensor(tensor=tensor, offset=offset, size=size)),
    }[command]
    with pytest.raises(Violation) as caught:
        act()
    assert (caught.value.rule, caught.value.field) == (rule, "offset" if offset > 16 else "size")


def bad_tensors(buffer: Buffer) -> dict[str, tuple[RpcTensor, str]]:
    """Tensors that no data command may accept, and the rule."""
    good = tensor_in(buffer)
    end = buffer.base + buffer.size
    return {
        "unknown type": (replace(good, type=UNKNOWN_TYPE), "tensor.type-known"),
        "huge type": (replace(good, type=2**32 - 1), "tensor.type-known"),
        "dead type": (replace(good, type=DEAD_TYPE), "tensor.type-known"),
        "half a block": (replace(good, type=Q4_0, ne=(16, 1, 1, 1)), "tensor.block-multiple"),
        "null buffer": (replace(good, buffer=0), "tensor.buffer-known"),
        "null buffer and data": (replace(good, buffer=0, data=0), "tensor.buffer-known"),
        "unknown buffer": (replace(good, buffer=buffer.remote_ptr + 32), "tensor.buffer-known"),
        "before the buffer": (replace(good, data=buffer.base - 1), "tensor.in-buffer"),
        "past the end": (replace(good, data=end - 15), "tensor.in-buffer"),
        "data near 2^64": (replace(good, data=TOP - 8), "tensor.in-buffer"),
        "data 0": (replace(good, data=0), "tensor.in-buffer"),
        "stride": (replace(good, ne=(1, 2, 1, 1), nb=(1, buffer.size, 1, 1)), "tensor.in-buffer"),
        "sizes that wrap": (replace(good, ne=(2**32 - 1,) * 4, nb=(2**32 - 1,) * 4), "tensor.in-buffer"),
        "empty but outside": (replace(good, ne=(0, 1, 1, 1), data=end + 1), "tensor.in-buffer"),
    }


BAD = list(bad_tensors(Buffer(32, 4096, 0, np.zeros(64, np.uint8))))


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("command", ["SET", "GET", "HASH", "COPY from", "COPY to"])
def test_a_bad_tensor_is_refused_by_every_data_command(session: Session, command: str, bad: str) -> None:
    buffer = alloc(session, 64)
    tensor, rule = bad_tensors(buffer)[bad]
    act = {
        "SET": lambda: session.destination(SetTensor(tensor=tensor, offset=0), 0),
        "GET": lambda: session.source(GetTensor(tensor=tensor, offset=0, size=0)),
        "HASH": lambda: session.handle(SetTensorHash(tensor=tensor, offset=0, hash=0)),
        "COPY from": lambda: session.handle(CopyTensor(src=tensor, dst=tensor_in(buffer))),
        "COPY to": lambda: session.handle(CopyTensor(src=tensor_in(buffer), dst=tensor)),
    }[command]
    with pytest.raises(Violation) as caught:
        act()
    assert caught.value.rule == rule


def test_a_foreign_buffer_is_refused(host: Host, session: Session) -> None:
    with Session(host) as other:
        foreign = alloc(other)
        with pytest.raises(Violation, match=r"^tensor\.buffer-known"):
            read(session, tensor_in(foreign))


def test_a_stale_address_does_not_reach_a_younger_buffer(session: Session) -> None:
    old = alloc(session)
    session.handle(FreeBuffer(remote_ptr=old.remote_ptr))
    young = alloc(session)
    with pytest.raises(Violation, match=r"^tensor\.in-buffer"):
        read(session, replace(tensor_in(old), buffer=young.remote_ptr))


@pytest.mark.parametrize("at", [0, 64])
def test_a_tensor_without_elements_has_no_bytes(session: Session, at: int) -> None:
    tensor = tensor_in(alloc(session, 64), at=at, ne=(0, 1, 1, 1))
    write(session, tensor, b"")
    assert read(session, tensor, 0, 0) == b""
    with pytest.raises(Violation, match=r"^data\.in-tensor"):
        read(session, tensor, 0, 1)


# -------------------------------------------------------------------------------------------------------------------- copy


def test_copy(session: Session) -> None:
    one, other = alloc(session, 64, device=0), alloc(session, 64, device=1)
    write(session, tensor_in(one), bytes(range(16)))
    assert session.handle(CopyTensor(src=tensor_in(one), dst=tensor_in(other, at=8))) == CopyTensorReply(result=1)
    assert data_of(other).tobytes() == bytes(8) + bytes(range(16)) + bytes(40)


@pytest.mark.parametrize(("start", "to"), [(0, 5), (5, 0), (3, 3)])
def test_copy_onto_itself_behaves_as_memmove(session: Session, start: int, to: int) -> None:
    buffer = alloc(session, 32)
    before = bytes(range(32))
    write(session, tensor_in(buffer, 32), before)
    session.handle(CopyTensor(src=tensor_in(buffer, 16, start), dst=tensor_in(buffer, 16, to)))
    wanted = bytearray(before)
    wanted[to : to + 16] = before[start : start + 16]
    assert data_of(buffer).tobytes() == wanted


def test_copy_of_less_leaves_the_rest(session: Session) -> None:
    buffer = alloc(session, 64)
    write(session, tensor_in(buffer, 4), b"abcd")
    session.handle(CopyTensor(src=tensor_in(buffer, 4), dst=tensor_in(buffer, 16, at=32)))
    assert data_of(buffer)[32:].tobytes() == b"abcd" + bytes(28)


def test_copy_that_does_not_fit_is_refused(session: Session) -> None:
    buffer = alloc(session, 64)
    assert refused(session, CopyTensor(src=tensor_in(buffer, 17), dst=tensor_in(buffer, 16, at=32))) == "data.copy-fits"
    assert not data_of(buffer).any()


# -------------------------------------------------------------------------------------------------- INIT and GET_ALLOC_SIZE


def test_init_leaves_the_data(session: Session) -> None:
    buffer = alloc(session, 4096)
    session.handle(BufferClear(remote_ptr=buffer.remote_ptr, value=7))
    tensor = tensor_in(buffer, type=Q8_0, ne=(96, 1, 1, 1), nb=(34, 102, 102, 102))
    assert session.handle(InitTensor(tensor=tensor)) == Empty()
    assert set(data_of(buffer).tobytes()) == {7}


def test_init_without_a_buffer_is_accepted(session: Session) -> None:
    assert session.handle(InitTensor(tensor=RpcTensor(id=1, type=Q8_0, ne=(96, 1, 1, 1)))) == Empty()


PLACED_WRONG = ["unknown type", "dead type", "half a block", "past the end", "sizes that wrap"]


@pytest.mark.parametrize("bad", PLACED_WRONG)
@pytest.mark.parametrize("command", ["INIT", "ALLOC_SIZE", "ALLOC_SIZE source"])
def test_init_and_alloc_size_refuse_bad_tensors(session: Session, command: str, bad: str) -> None:
    tensor, rule = bad_tensors(alloc(session, 64))[bad]
    message = {
        "INIT": InitTensor(tensor=tensor),
        "ALLOC_SIZE": GetAllocSize(tensor=tensor),
        "ALLOC_SIZE source": GetAllocSize(tensor=RpcTensor(id=1), srcs=(RpcTensor(), replace(tensor, id=2))),
    }[command]
    assert refused(session, message) == rule


# type, ne, nb, ggml_nbytes worked out by hand
ALLOC_SIZES = [
    (F32, (4, 3, 2, 1), (4, 16, 48, 96), 96),
    (F32, (4, 3, 1, 1), (4, 100, 300, 300), 216),
    (Q8_0, (64, 2, 1, 1), (34, 68, 136, 136), 136),
    (F32, (0, 3, 1, 1), (4, 16, 48, 48), 0),
    (I8, (2**32 - 1, 1, 1, 1), (1, 1, 1, 1), 2**32 - 1),
]


@pytest.mark.parametrize(("kind", "ne", "nb", "wanted"), ALLOC_SIZES)
def test_alloc_size_is_nbytes(session: Session, kind: int, ne: tuple[int, ...], nb: tuple[int, ...], wanted: int) -> None:
    tensor = RpcTensor(id=1, type=kind, ne=ne, nb=nb, op=29, src=(5, 6))
    sources = (RpcTensor(id=5, type=Q8_0, ne=(32, 1, 1, 1)), RpcTensor(type=DEAD_TYPE))  # id 0: absent, whatever else it says
    assert session.handle(GetAllocSize(device=1, tensor=tensor, srcs=sources)) == GetAllocSizeReply(alloc_size=wanted)


def test_alloc_size_beyond_64_bits_is_refused(session: Session) -> None:
    tensor = RpcTensor(id=1, type=I8, ne=(2**32 - 1,) * 4, nb=(2**32 - 1,) * 4)
    assert refused(session, GetAllocSize(tensor=tensor)) == "tensor.alloc-size"


# -------------------------------------------------------------------------------------------------------------------- hash


@pytest.fixture
def caching(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setattr(tensor_cache, "THRESHOLD", 8)
    with Session(replace(host, tensors=TensorCache(tmp_path))) as session:
        yield session


DATA = b"sixteen bytes ok"
HASH = definition(DATA)


def ask(session: Session, tensor: RpcTensor, offset: int = 0, digest: int = HASH) -> int:
    reply = session.handle(SetTensorHash(tensor=tensor, offset=offset, hash=digest))
    assert isinstance(reply, SetTensorHashReply)
    return reply.result


def test_without_a_cache_nothing_is_there(session: Session) -> None:
    buffer = alloc(session)
    write(session, tensor_in(buffer, 16), DATA)
    assert ask(session, tensor_in(buffer, 16, at=32)) == 0


def test_what_was_uploaded_is_there(caching: Session) -> None:
    buffer = alloc(caching, 64)
    assert ask(caching, tensor_in(buffer)) == 0
    assert not data_of(buffer).any()
    write(caching, tensor_in(buffer), DATA)
    assert ask(caching, tensor_in(buffer, 32, at=32), offset=8) == 1
    assert data_of(buffer)[32:].tobytes() == bytes(8) + DATA + bytes(8)


def test_a_part_is_kept_by_its_own_hash(caching: Session) -> None:
    buffer = alloc(caching, 64)
    write(caching, tensor_in(buffer, 32), DATA, offset=16)
    assert ask(caching, tensor_in(buffer, 16, at=32)) == 1


@pytest.mark.parametrize(("count", "offset"), [(15, 0), (16, 1), (0, 0)])
def test_data_that_do_not_fit_are_a_miss(caching: Session, count: int, offset: int) -> None:
    buffer = alloc(caching, 64)
    write(caching, tensor_in(buffer), DATA)
    assert ask(caching, tensor_in(buffer, count, at=32), offset) == 0
    assert not data_of(buffer)[32:].any()


@pytest.mark.parametrize(("offset", "rule"), [(17, "data.in-tensor"), (TOP - 16, "data.offset-wrap")])
def test_an_offset_outside_is_refused(caching: Session, offset: int, rule: str) -> None:
    assert refused(caching, SetTensorHash(tensor=tensor_in(alloc(caching)), offset=offset, hash=HASH)) == rule


# ----------------------------------------------------------------------------------------------------------- float copies


@pytest.fixture
def remembering(session: Session) -> tuple[Session, Buffer, RpcTensor]:
    """A session with a Q8_0 tensor of 32 elements in a buffer, all of scale 1 and quants 3."""
    buffer = alloc(session, 4096)
    tensor = tensor_in(buffer, type=Q8_0, ne=(32, 1, 1, 1), nb=(34, 34, 34, 34))
    write(session, tensor, np.float16(1).tobytes() + b"\x03" * 32)
    return session, buffer, tensor


def values(session: Session, tensor: RpcTensor) -> set[float]:
    """The elements as device 0 multiplies with them."""
    backend: Any = session.host.devices[0].backend
    return set(backend.copies.widened(session.memory.tensor(tensor)).values().ravel().tolist())


@pytest.mark.parametrize("change", ["SET", "CLEAR", "COPY"])
def test_float_copies_follow_the_bytes(remembering: tuple[Session, Buffer, RpcTensor], change: str) -> None:
    session, buffer, tensor = remembering
    other = replace(tensor, data=tensor.data + 1024)
    write(session, other, np.float16(1).tobytes() + b"\x05" * 32)
    assert values(session, tensor) == {3.0}
    match change:
        case "SET":
            write(session, tensor, b"\x05" * 32, offset=2)
            assert values(session, tensor) == {5.0}
        case "CLEAR":
            session.handle(BufferClear(remote_ptr=buffer.remote_ptr, value=0))
            assert values(session, tensor) == {0.0}
        case "COPY":
            session.handle(CopyTensor(src=other, dst=tensor))
            assert values(session, tensor) == {5.0}


def test_float_copies_are_gone_with_the_session(host: Host) -> None:
    backend: Any = host.devices[0].backend
    copies = backend.copies
    with Session(host) as session:
        tensor = tensor_in(alloc(session), type=Q8_0, ne=(32, 1, 1, 1), nb=(34, 34, 34, 34))
        values(session, tensor)
        assert copies.used == 128
    assert copies.used == 0


# ------------------------------------------------------------------------------------------------------------------ graphs


def test_a_graph_is_planned_run_and_run_again(session: Session, planner: FakePlanner) -> None:
    graph = replace(EMPTY_GRAPH, device=1)
    assert session.handle(graph) is NO_REPLY
    assert planner.asked == [(graph, session.memory, session.host.devices[1].backend, V3_6_1)]
    assert session.handle(GraphRecompute(device=1)) is NO_REPLY
    assert [plan.runs for plan in planner.plans] == [2]


def test_recompute_takes_the_last_graph_of_its_device(session: Session, planner: FakePlanner) -> None:
    for graph in (EMPTY_GRAPH, replace(EMPTY_GRAPH, device=1), replace(OTHER_GRAPH, device=1)):
        session.handle(graph)
    session.handle(GraphRecompute(device=1))
    assert [plan.runs for plan in planner.plans] == [1, 1, 2]


def test_the_same_graph_again_is_planned_once(session: Session, planner: FakePlanner) -> None:
    for graph in (EMPTY_GRAPH, EMPTY_GRAPH, OTHER_GRAPH, EMPTY_GRAPH, EMPTY_GRAPH, replace(EMPTY_GRAPH, device=1)):
        session.handle(graph)
    session.handle(GraphRecompute(device=0))
    assert [plan.runs for plan in planner.plans] == [2, 1, 3, 1]


def test_recompute_without_a_graph_is_refused(host: Host, session: Session) -> None:
    assert refused(session, GraphRecompute(device=0)) == "graph.recompute-stored"
    session.handle(replace(EMPTY_GRAPH, device=1))
    assert refused(session, GraphRecompute(device=0)) == "graph.recompute-stored"
    with Session(host) as other:
        assert refused(other, GraphRecompute(device=1)) == "graph.recompute-stored"


def test_freeing_a_buffer_drops_the_plans_that_use_it(session: Session, planner: FakePlanner) -> None:
    used, unrelated = alloc(session), alloc(session)
    planner.buffers = {used}
    session.handle(EMPTY_GRAPH)
    planner.buffers = {unrelated}
    session.handle(replace(EMPTY_GRAPH, device=1))
    session.handle(FreeBuffer(remote_ptr=used.remote_ptr))
    session.handle(GraphRecompute(device=1))
    assert refused(session, GraphRecompute(device=0)) == "graph.recompute-stored"


@pytest.mark.parametrize("when", ["planning", "running", "running again"])
def test_a_graph_that_fails_leaves_none_behind(session: Session, planner: FakePlanner, when: str) -> None:
    session.handle(EMPTY_GRAPH)
    failure = Violation("graph.index", "GET_ROWS.src[1]", 7)

    def plan(*_: object) -> FakePlan:
        raise failure

    match when:
        case "planning":
            object.__setattr__(session.host, "make_plan", plan)
        case "running":
            planner.fails = failure
        case "running again":
            planner.plans[0].fails = failure
    assert refused(session, EMPTY_GRAPH if when == "running again" else OTHER_GRAPH) == "graph.index"
    assert refused(session, GraphRecompute(device=0)) == "graph.recompute-stored"


REPLIES = [
    (V3_0_0, EMPTY_GRAPH, GraphComputeReply(result=0)),
    (V3_5_0, EMPTY_GRAPH, NO_REPLY),
    (V3_6_1, InitTensor(tensor=RpcTensor()), Empty()),
]


@pytest.mark.parametrize(("version", "message", "reply"), REPLIES, ids=["status", "no reply", "empty"])
def test_the_versions_table_decides_the_reply(host: Host, version: Any, message: object, reply: object) -> None:
    with Session(replace(host, version=version)) as session:
        assert session.handle(message) == reply
