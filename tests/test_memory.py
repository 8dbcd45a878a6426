"""Handles, address ranges and the bounds rule; float32 copies of weights and when they go stale."""

from __future__ import annotations

import gc
import weakref
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggml_rpc_ref.backends import memory as host_memory
from ggml_rpc_ref.backends.copies import WeightCopies
from ggml_rpc_ref.backends.memory import HostAllocation, HostMemory
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.server.memory import ALIGNMENT, Buffer, Memory
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.messages import RpcTensor
from ggml_rpc_ref.spec.versions import DEFAULT, Version
from ggml_rpc_ref.tensor import contiguous_nb

GIB = 2**30
HUGE = 2**62


def sparse(size: int) -> npt.NDArray[np.uint8]:
    """An array that claims any size and has one byte of memory: addresses are real, contents are not."""
    return np.broadcast_to(np.zeros(1, np.uint8), (size,))


def data_of(buffer: Buffer) -> npt.NDArray[np.uint8]:
    """A buffer's bytes in place."""
    assert buffer.allocation.data is not None
    return buffer.allocation.data


def memory(total: int = HUGE, version: Version = DEFAULT) -> Memory:
    return Memory([HostMemory(total, sparse)], version=version)


def allocated(size: int, where: Memory | None = None) -> tuple[Memory, Buffer]:
    where = memory() if where is None else where
    buffer = where.alloc(0, size)
    assert buffer is not None
    return where, buffer


def wire(
    buffer: Buffer, offset: int, ne: tuple[int, ...] = (8, 1, 1, 1), dtype: str = "F32", nb: tuple[int, ...] | None = None
) -> RpcTensor:
    row, address = BY_NAME[dtype], (buffer.base + offset) % 2**64
    a, b, c, d = ne
    strides = contiguous_nb(row, (a, b, c, d)) if nb is None else nb
    return RpcTensor(id=1, type=row.number, buffer=buffer.remote_ptr, ne=ne, nb=strides, data=address, name=b"x\0junk")


# ----------------------------------------------------------------------------------------------------------------- handles


def test_handles_are_never_zero_aligned_and_not_addresses() -> None:
    store = memory()
    buffers = [store.alloc(0, size) for size in (1, 31, 4096, 2**33, 1)]
    handles = {buffer.remote_ptr for buffer in buffers if buffer}
    assert len(handles) == 5
    for buffer in buffers:
        assert buffer is not None
        assert 0 < buffer.remote_ptr < 2**64
        assert 0 < buffer.base < 2**63
        assert buffer.base % ALIGNMENT == 0
        assert buffer.base != data_of(buffer).ctypes.data


def test_handles_and_addresses_are_not_used_again() -> None:
    store, seen, ranges = memory(), set(), []
    for _ in range(200):
        _, buffer = allocated(5000, store)
        seen.add(buffer.remote_ptr)
        ranges.append((buffer.base, buffer.base + buffer.size))
        store.free(buffer.remote_ptr)
    assert len(seen) == 200
    assert all(end < start for (_, end), (start, _) in pairwise(ranges))


def test_a_buffer_of_no_bytes_has_a_handle_and_no_address() -> None:
    store, buffer = allocated(0)
    assert (buffer.base, buffer.size, len(store)) == (0, 0, 1)
    assert buffer.remote_ptr != 0


@given(st.lists(st.integers(0, 2**40), min_size=2, max_size=20))
def test_address_ranges_are_disjoint_with_a_page_between(sizes: list[int]) -> None:
    store = memory()
    buffers = [allocated(size, store)[1] for size in sizes]
    ranges = sorted((buffer.base, buffer.base + buffer.size) for buffer in buffers if buffer.size)
    assert all(end + 4096 <= start for (_, end), (start, _) in pairwise(ranges))


@pytest.mark.parametrize("handle", [0, 1, 2**64 - 1])
def test_handles_that_are_none(handle: int) -> None:
    store, _ = allocated(1)
    for use in (store.buffer, store.free):
        with pytest.raises(Violation) as caught:
            use(handle)
        assert (caught.value.rule, caught.value.value) == ("buffer.known", hex(handle))


def test_a_freed_handle_is_none_and_another_connections_never_was_one() -> None:
    device = HostMemory(HUGE, sparse)
    mine, other = Memory([device]), Memory([device])
    _, buffer = allocated(10, mine)
    with pytest.raises(Violation):
        other.buffer(buffer.remote_ptr)
    assert mine.free(buffer.remote_ptr) is buffer
    with pytest.raises(Violation):
        mine.free(buffer.remote_ptr)


# --------------------------------------------------------------------------------------------------------------- the cap


def test_the_cap_is_shared_by_connections_and_given_back() -> None:
    device = HostMemory(1000, sparse)
    one, two = Memory([device]), Memory([device])
    _, buffer = allocated(600, one)
    assert two.alloc(0, 401) is None
    assert device.free == 400
    allocated(400, two)
    assert device.free == 0
    assert two.alloc(0, 1) is None
    allocated(0, two)
    one.free(buffer.remote_ptr)
    two.close()
    assert (device.free, len(two)) == (1000, 0)


def test_devices_have_caps_of_their_own() -> None:
    store = Memory([HostMemory(10, sparse), HostMemory(20, sparse)])
    assert store.alloc(0, 11) is None
    buffer = store.alloc(1, 11)
    assert buffer is not None
    assert buffer.device == 1


@pytest.mark.parametrize("size", [2**47, 2**62, 2**63, 2**64 - 1])
def test_sizes_that_no_machine_has(size: int) -> None:
    """numpy raises MemoryError for some and ValueError for others; the client gets the same answer: none."""
    device = HostMemory(2**64, spare=lambda: 2**64)
    store = Memory([device])
    assert device.allocate(size) is None
    assert store.alloc(0, size) is None
    assert (device.free, len(store)) == (2**64, 0)


def test_addresses_end_before_the_sign_bit() -> None:
    store, count = Memory([HostMemory(2**70, sparse)]), 0
    while (buffer := store.alloc(0, 2**60)) is not None:
        assert buffer.base + buffer.size <= 2**63
        store.free(buffer.remote_ptr)
        count += 1
    assert count == 7


def test_fresh_bytes_are_zero_and_beyond_2_gib_are_there() -> None:
    store = Memory([HostMemory(3 * GIB)])
    _, buffer = allocated(2 * GIB + 4096, store)
    last = wire(buffer, 2 * GIB + 4096 - 32)
    tensor = store.tensor(last)
    assert not tensor.array.any()
    tensor.array[...] = 1.5
    assert data_of(buffer)[-4:].tobytes() == np.float32(1.5).tobytes()
    assert data_of(buffer)[2 * GIB + 4096 - 33] == 0


# ------------------------------------------------------------------------------------------------------- the bounds rule

SIZE = 5 * GIB + 64
INSIDE = [0, 1, 32, 2**31 - 1, 2**32 - 16, 2**32, 2**32 + 1, SIZE - 32]
OUTSIDE = [-1, -32, SIZE - 31, SIZE, SIZE + 1, 2**63, -(2**63), 2**64 - 2**42]


@pytest.mark.parametrize("offset", INSIDE)
def test_tensors_inside_a_buffer_over_4_gib(offset: int) -> None:
    store, buffer = allocated(SIZE)
    tensor = store.tensor(wire(buffer, offset))
    assert (tensor.offset, tensor.nbytes, tensor.storage) == (offset, 32, buffer.allocation)
    assert tensor.name == "x"


@pytest.mark.parametrize("offset", OUTSIDE)
def test_tensors_outside_it(offset: int) -> None:
    store, buffer = allocated(SIZE)
    with pytest.raises(Violation) as caught:
        store.tensor(wire(buffer, offset), "srcs[3]")
    assert (caught.value.rule, caught.value.field) == ("tensor.in-buffer", "srcs[3].data")


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**70), st.integers(1, 2**40))
def test_the_bounds_rule_in_other_words(address: int, size: int, length: int) -> None:
    buffer = Buffer(1, 2**41, 0, HostAllocation(sparse(length)))
    inside = address in range(2**41, 2**41 + length + 1) and address + size in range(2**41, 2**41 + length + 1)
    assert buffer.offset_of(address, size) == (address - 2**41 if inside else None)


@pytest.mark.parametrize(
    ("ne", "nb"),
    [
        pytest.param((2**32 - 1, 2**32 - 1, 1, 1), (4, 2**32 - 4, 0, 0), id="elements-beyond-2^64"),
        pytest.param((2**32 - 1,) * 4, (2**32 - 1,) * 4, id="everything-at-its-largest"),
        pytest.param((2**31, 2, 2, 2**31), (1, 2**31, 0, 0), id="product-is-0-modulo-2^64"),
        pytest.param((8, 2, 1, 1), (4, SIZE % 2**32, 0, 0), id="second-row-a-byte-too-far"),
    ],
)
def test_extents_that_would_wrap(ne: tuple[int, ...], nb: tuple[int, ...]) -> None:
    store, buffer = allocated(2**30)
    with pytest.raises(Violation) as caught:
        store.tensor(wire(buffer, 0, ne, nb=nb))
    assert caught.value.rule == "tensor.in-buffer"


def test_strides_of_dimensions_of_length_1_are_never_taken() -> None:
    store, buffer = allocated(32)
    assert store.tensor(wire(buffer, 0, (8, 1, 1, 1), nb=(4, 2**32 - 1, 2**32 - 1, 2**32 - 1))).nbytes == 32


def test_empty_tensors_lie_anywhere_in_the_buffer_its_end_included() -> None:
    store, buffer = allocated(64)
    for offset in (0, 1, 64):
        assert store.tensor(wire(buffer, offset, (8, 0, 1, 1))).nbytes == 0
    with pytest.raises(Violation):
        store.tensor(wire(buffer, 65, (8, 0, 1, 1)))
    with pytest.raises(Violation):
        store.tensor(wire(buffer, -1, (0, 1, 1, 1)))


def test_a_tensor_in_no_live_buffer_has_geometry_only() -> None:
    store, buffer = allocated(64)
    record = wire(buffer, 10_000)
    store.free(buffer.remote_ptr)
    tensor = store.tensor(record)
    assert (tensor.storage, tensor.ne) == (None, (8, 1, 1, 1))


@pytest.mark.parametrize("number", [4, 5, 31, 32, 33, 36, 37, 38, 41, 42, 43, 2**32 - 1])
def test_types_that_this_version_does_not_know(number: int) -> None:
    """Dead numbers, and those that came after the packaged 3.6.1 (GGML_TYPE_COUNT 41)."""
    with pytest.raises(Violation) as caught:
        memory().tensor(RpcTensor(type=number))
    assert (caught.value.rule, caught.value.value) == ("tensor.type-known", number)


def test_types_are_those_of_the_version() -> None:
    assert memory(version=Version(4, 0, 0)).tensor(RpcTensor(type=41, ne=(128, 1, 1, 1))).dtype.name == "Q1_0"
    with pytest.raises(Violation):
        memory(version=Version(1, 0, 0)).tensor(RpcTensor(type=39, ne=(32, 1, 1, 1)))


@pytest.mark.parametrize(("dtype", "n"), [("Q4_0", 31), ("Q4_0", 33), ("Q6_K", 32), ("Q8_0", 1)])
def test_rows_of_half_a_block(dtype: str, n: int) -> None:
    store, buffer = allocated(1000)
    with pytest.raises(Violation) as caught:
        store.tensor(wire(buffer, 0, (n, 1, 1, 1), dtype))
    assert caught.value.rule == "tensor.block-multiple"


# ----------------------------------------------------------------------------------------------------------- copies

ROW = 34
"""Bytes of a Q8_0 block of 32 elements."""


class Weights:
    """A buffer of Q8_0 blocks, block i of scale 1 and all quants i, and copies of them."""

    def __init__(self, limit: int, blocks: int = 8) -> None:
        device = HostMemory(HUGE)
        self.copies = WeightCopies(limit, device)
        device.changed = self.copies.drop
        self.memory = Memory([device])
        _, self.buffer = allocated(blocks * ROW, self.memory)
        for index in range(blocks):
            self.fill(index, index)

    def fill(self, index: int, quant: int) -> None:
        start = index * ROW
        data_of(self.buffer)[start : start + ROW] = np.frombuffer(np.float16(1).tobytes() + bytes([quant]) * 32, np.uint8)

    def values(self, index: int, blocks: int = 1) -> npt.NDArray[np.float32]:
        tensor = self.memory.tensor(wire(self.buffer, index * ROW, (32, blocks, 1, 1), "Q8_0"))
        return self.copies.widened(tensor).values()


def test_copies_are_kept_and_dropped_when_their_bytes_change() -> None:
    weights = Weights(10_000)
    first, second = weights.values(1), weights.values(2)
    assert first[0, 0, 0, 0] == 1
    assert np.shares_memory(weights.values(1), first)
    weights.fill(1, 50)
    weights.buffer.allocation.written(ROW, ROW + 1)
    assert weights.values(1)[0, 0, 0, 0] == 50
    assert np.shares_memory(weights.values(2), second)


@pytest.mark.parametrize(
    ("start", "stop", "stale"),
    [(0, ROW, False), (2 * ROW, 3 * ROW, False), (ROW - 1, ROW, False), (2 * ROW - 1, 2 * ROW, True), (ROW, ROW + 1, True),
     (0, 8 * ROW, True)],
)  # fmt: skip
def test_which_writes_make_a_copy_stale(start: int, stop: int, stale: bool) -> None:
    weights = Weights(10_000)
    copy = weights.values(1)
    weights.buffer.allocation.written(start, stop)
    assert (not np.shares_memory(weights.values(1), copy)) is stale


def test_copies_can_not_be_written_to() -> None:
    weights = Weights(10_000)
    with pytest.raises(ValueError, match="read-only"):
        weights.values(0)[...] = 1


def test_the_least_recently_used_copy_goes_first_and_the_limit_holds() -> None:
    weights = Weights(3 * 128)
    copies = [weights.values(index) for index in range(3)]
    assert weights.copies.used == 3 * 128
    assert np.shares_memory(weights.values(0), copies[0])
    weights.values(3)
    assert weights.copies.used == 3 * 128
    assert np.shares_memory(weights.values(0), copies[0])
    assert not np.shares_memory(weights.values(1), copies[1])


def test_a_copy_over_the_limit_is_not_kept() -> None:
    weights = Weights(127)
    assert weights.values(5)[0, 0, 0, 31] == 5
    assert weights.copies.used == 0


def test_plain_types_are_seen_in_place() -> None:
    store = Memory([HostMemory(HUGE)])
    _, buffer = allocated(32, store)
    values = store.tensor(wire(buffer, 0)).values()
    data_of(buffer)[:4] = np.frombuffer(np.float32(7).tobytes(), np.uint8)
    assert values[0, 0, 0, 0] == 7


@pytest.mark.parametrize("ne", [(32, 2, 1, 1), (32, 0, 1, 1), (0, 1, 1, 1)], ids=["some", "no-rows", "no-columns"])
def test_a_freed_buffer_leaves_nothing_behind(ne: tuple[int, ...]) -> None:
    weights = Weights(10_000)
    weights.copies.widened(weights.memory.tensor(wire(weights.buffer, 0, ne, "Q8_0")))
    gone = weakref.ref(weights.buffer.allocation)
    weights.memory.free(weights.buffer.remote_ptr)
    del weights.buffer
    gc.collect()
    assert gone() is None
    assert weights.copies.used == 0


@pytest.mark.parametrize(("start", "first"), [(0, 3), (3, 0), (0, 0), (40, 8), (8, 40)])
def test_overlapping_bytes_move_as_memmove_does_in_parts_too(monkeypatch: pytest.MonkeyPatch, start: int, first: int) -> None:
    monkeypatch.setattr(host_memory, "AT_ONCE", 7)
    content = bytes(range(100))
    allocation = HostAllocation(np.frombuffer(bytearray(content), np.uint8))
    allocation.copy(start, allocation, first, first + 50)
    expected = bytearray(content)
    expected[start : start + 50] = content[first : first + 50]
    assert allocation.data.tobytes() == expected
