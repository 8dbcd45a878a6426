"""Weights and states on their backends: what goes where, whether it fits, and how it gets there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ggml_rpc_ref.client.buffers import RemoteBuffer
from ggml_rpc_ref.client.devices import Device
from ggml_rpc_ref.client.scheduler.leaves import Placed, Source
from ggml_rpc_ref.client.scheduler.lost import Guard
from ggml_rpc_ref.client.scheduler.plan import is_padded
from ggml_rpc_ref.client.tensors import RemoteTensor
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.dtypes import DType, type_count

MOST_AT_ONCE = 2**30
"""Bytes of a buffer for several weights: a server may have no room for one of all of them in one piece."""


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight that lies in a file or an array.

    Attributes:
        dtype: row of its ggml type.
        ne: dimensions, in ggml's order.
        source: returns its bytes; asked again when its server is gone.
    """

    dtype: DType
    ne: tuple[int, ...]
    source: Source


@dataclass(slots=True)
class Wanted:
    """A leaf that is to lie on a backend.

    Attributes:
        leaf: the scheduled tensor.
        device: where.
        placed: what is known of it: whether it is a weight, what fills it.
        reserve: bytes that will be wanted on the same backend later.
    """

    leaf: RemoteTensor
    device: Device
    placed: Placed
    reserve: int = 0

    @property
    def name(self) -> str:
        """Its name, for people."""
        return self.leaf.name or f"a tensor of shape {self.leaf.shape}"


Uploaded = Callable[[Device, str, int], None]
"""Called for each weight that has arrived: the backend, its name, its bytes."""


def upload(wanted: Sequence[Wanted], guard: Guard, progress: Uploaded) -> None:
    """Allocate memory for leaves and fill it, on all servers at the same time.

    Raises:
        Misuse: before anything is sent, where a version lacks a type or a backend lacks memory.
        ServerLost: where a server goes meanwhile.
    """
    here, by_device = list[Wanted](), dict[int, list[Wanted]]()
    for one in wanted:
        if _is_in_place(one):
            here.append(one)
        else:
            by_device.setdefault(id(one.device), []).append(one)
    complaints = []
    for some in by_device.values():
        with guard(some[0].device):
            complaints += _lacking(some[0].device, some)
    if complaints:
        raise Misuse("; ".join(complaints))
    with ThreadPoolExecutor(max(1, len(by_device)), "upload") as pool:
        running = [pool.submit(_upload_to, some[0].device, some, guard, progress) for some in by_device.values()]
    failures = [failure for one in running if (failure := one.exception()) is not None]
    if failures:
        raise failures[0]
    for one in here:
        one.leaf.buffer = one.placed
        progress(one.device, one.name, one.leaf.nbytes)


def _is_in_place(wanted: Wanted) -> bool:
    """Have a backend of this machine use the bytes of a mapped file where they are, and say whether it does."""
    if not wanted.device.is_local or wanted.placed.source is None:
        return False
    data = wanted.placed.source()
    buffer = wanted.device.buffer_from_host_ptr(data) if isinstance(data, np.memmap) else None
    if buffer is None:
        return False
    wanted.placed.tensor = _made(wanted)
    wanted.placed.tensor.buffer = buffer
    return True


def _made(wanted: Wanted) -> RemoteTensor:
    """Return the tensor as it is on its backend, without memory yet."""
    leaf = wanted.leaf
    return RemoteTensor(wanted.device, leaf.dtype, leaf.ne, leaf.nb, leaf.ndim, leaf.name)


def _lacking(device: Device, wanted: Sequence[Wanted]) -> list[str]:
    """Return what does not fit on a device and by how much, if anything.

    Raises:
        Misuse: for a tensor that it could never hold.
    """
    free, missing = device.memory().free, list[str]()
    for one in wanted:
        if one.leaf.dtype.number >= type_count(device.version):
            raise Misuse(f"{device.name} speaks {device.version}, which has no type {one.leaf.dtype.name} for {one.name}")
        if one.leaf.nbytes > device.max_size:
            raise Misuse(f"{one.name} has {one.leaf.nbytes} bytes, and {device.name} has no buffers over {device.max_size}")
    reserved = sum(one.reserve for one in wanted)
    needed, room = reserved + sum(one.leaf.nbytes for one in wanted), free
    for one in wanted:
        room -= one.leaf.nbytes + one.reserve
        if room < 0:
            missing.append(one.name)
    if not missing:
        return []
    some = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    states = f" ({reserved} of them for states)" if reserved else ""
    return [f"{device.name} has {free} bytes free and needs {needed}{states}, {needed - free} too many: {some} do not fit"]


def _upload_to(device: Device, wanted: Sequence[Wanted], guard: Guard, progress: Uploaded) -> None:
    with guard(device):
        for buffer_of in _portions(device, wanted):
            _fill(device, buffer_of, progress)


def _portions(device: Device, wanted: Sequence[Wanted]) -> Iterable[list[tuple[Wanted, int, int]]]:
    """Yield leaves that share a buffer, each with its offset and the bytes that the server wants for it."""
    most, portion, end = min(device.max_size, MOST_AT_ONCE), list[tuple[Wanted, int, int]](), 0
    for one in wanted:
        made = one.placed.tensor = _made(one)
        size = device.alloc_size(made) if is_padded(made) else made.nbytes
        size = -(-max(size, 1) // device.alignment) * device.alignment
        if portion and end + size > most:
            yield portion
            portion, end = [], 0
        portion.append((one, end, size))
        end += size
    if portion:
        yield portion


def _fill(device: Device, portion: Sequence[tuple[Wanted, int, int]], progress: Uploaded) -> None:
    _, offset, size = portion[-1]
    buffer: RemoteBuffer = device.alloc(offset + size)
    if any(one.placed.source is None for one, _, _ in portion):
        buffer.clear(0)
    for one, at, _ in portion:
        tensor = one.placed.tensor
        tensor.buffer, tensor.offset = buffer, at
        if is_padded(tensor):
            device.init_tensor(tensor)
        if one.placed.source is not None:
            device.write(tensor, one.placed.source())
            progress(device, one.name, tensor.nbytes)
        # only now: until its bytes are there, a graph must not take it for data
        one.leaf.buffer = one.placed
