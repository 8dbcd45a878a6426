"""A server's devices and buffers, as a client sees them.

Made by `Client.devices`; each method is one request, or the few that a stock client would send.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.client.channel import Buffered, Bytes, Channel
from ggml_rpc_ref.client.device_info import DeviceInfo
from ggml_rpc_ref.client.graph import Graph, RemoteTensor, quad
from ggml_rpc_ref.errors import Misuse, Violation
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import Graph as WireGraph
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.messages import (
    REQUESTS,
    AllocBuffer,
    BufferClear,
    BufferGetBase,
    CopyTensor,
    FreeBuffer,
    GetAllocSize,
    GraphRecompute,
    InitTensor,
    RpcTensor,
    has_field,
)
from ggml_rpc_ref.tensor import NUMPY_TYPES, allocate, contiguous_nb

PADDED_TO = 512
"""Elements: for rows of a block type whose length is not a multiple of this, a stock client sends GET_ALLOC_SIZE and INIT_TENSOR
(ggml-rpc.cpp)."""
NUMPY_NAMES = {np.dtype(layout): name for name, layout in NUMPY_TYPES.items() if name != "BF16"}


class Devices(Sequence["Device"]):
    """As many devices as the server reported, each created when it is accessed: the server may have reported 2^32 - 1."""

    def __init__(self, client: Channel, count: int) -> None:
        self._client, self._count, self._made = client, count, dict[int, Device]()

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Device: ...
    @overload
    def __getitem__(self, index: slice) -> list[Device]: ...
    def __getitem__(self, index: int | slice) -> Device | list[Device]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(self._count))]
        at = range(self._count)[index]
        return self._made.setdefault(at, Device(self._client, at))


class Device(DeviceInfo):
    """A device of a server: what it has, and the buffers, tensors and graphs on it."""

    def alloc(self, size: int) -> RemoteBuffer:
        """Allocate a buffer.

        Raises:
            Misuse: where the server has not enough memory.
            Violation: where the buffer is smaller than asked for.
        """
        reply = self.client.request(AllocBuffer(device=self.index, size=size))
        if reply.remote_ptr == 0:
            raise Misuse(f"{self} has no room for {size} bytes")
        if reply.remote_size < size:
            raise Violation("buffer.alloc-size", "remote_size", reply.remote_size, f"{size} bytes were asked for")
        return RemoteBuffer(self.client, reply.remote_ptr, reply.remote_size)

    # --------------------------------------------------------------------------------------------------------- tensors

    def empty(
        self, dtype: str, ne: Sequence[int], name: str = "", buffer: RemoteBuffer | None = None, offset: int = 0
    ) -> RemoteTensor:
        """Return an uninitialised tensor, dimensions in ggml's order, in a buffer of its own or at an offset in the one given."""
        row, dims = BY_NAME[dtype], quad(ne)
        tensor = RemoteTensor(self, row, dims, contiguous_nb(row, dims), len(ne), name)
        padded = row.is_quantised and dims[0] % PADDED_TO != 0
        size = self.alloc_size(tensor) if padded else tensor.nbytes
        tensor.buffer, tensor.offset = self.alloc(size) if buffer is None else buffer, offset
        if padded:
            self.client.request(InitTensor(tensor=tensor.wire()))
        return tensor

    def tensor(
        self, array: npt.ArrayLike, dtype: str = "", name: str = "", buffer: RemoteBuffer | None = None, offset: int = 0
    ) -> RemoteTensor:
        """Return a tensor that holds an array; shape (…, rows, columns) becomes ne (columns, rows, …).

        Args:
            array: up to four axes. Sent without a copy if C-contiguous and of the type wanted.
            dtype: the ggml type to convert or quantise to. (default: that of the array)
            name: for the server's logs.
            buffer, offset: where to put it. (default: a buffer of its own)

        Raises:
            Misuse: where no ggml type holds the array's elements.
        """
        values = np.asarray(array)
        dtype = dtype or NUMPY_NAMES.get(values.dtype, "")
        if dtype not in BY_NAME:
            raise Misuse(f"no ggml type holds {values.dtype}: name one with dtype=, or use one of {', '.join(NUMPY_TYPES)}")
        tensor = self.empty(dtype, values.shape[::-1], name, buffer, offset)
        if dtype != NUMPY_NAMES.get(values.dtype):
            converted = allocate(tensor.dtype, tensor.ne)
            converted.store(values.reshape(converted.shape))
            values = converted.array
        self.write(tensor, np.ascontiguousarray(values))
        return tensor

    def write(self, tensor: RemoteTensor, data: Buffered, offset: int = 0) -> None:
        """Write bytes into a tensor, beginning at byte `offset`."""
        self.client.set_tensor(_placed(tensor), offset, data)

    def read(self, tensor: RemoteTensor, offset: int, size: int) -> Bytes:
        """Read bytes of a tensor."""
        return self.client.get_tensor(_placed(tensor), offset, size)

    def copy(self, source: RemoteTensor, target: RemoteTensor) -> bool:
        """Copy the bytes of a tensor into another on the server; False where the server can't."""
        return bool(self.client.request(CopyTensor(src=_placed(source), dst=_placed(target))).result)

    def init_tensor(self, tensor: RemoteTensor) -> None:
        """Have the device initialise a tensor's memory, padding included."""
        self.client.request(InitTensor(tensor=_placed(tensor)))

    def alloc_size(self, tensor: RemoteTensor) -> int:
        """Ask how many bytes a tensor needs, given its sources."""
        absent = codec.zero_record(RpcTensor)
        has_srcs = has_field(GetAllocSize, "srcs", self.client.version)
        sources = tuple(absent if source is None else source.wire() for source in tensor.src) if has_srcs else ()
        size: int = self.client.request(GetAllocSize(device=self.index, tensor=tensor.wire(), srcs=sources)).alloc_size
        return size

    # ---------------------------------------------------------------------------------------------------------- graphs

    def graph(self) -> Graph:
        """Return an empty graph on this device."""
        return Graph(self)

    def compute(self, graph: WireGraph) -> None:
        """Compute a graph; if it is the one that was sent last, send GRAPH_RECOMPUTE instead."""
        payload = graph.encode(self.version)
        with self.client.lock:
            stored = self.client.stored_graphs
            if payload == stored.get(self.index) and self.version >= REQUESTS[GraphRecompute].since:
                self.client.request(GraphRecompute(device=self.index))
            else:
                stored.pop(self.index, None)  # whether the server still has it is unknown if sending fails
                self.client.compute(graph)
                stored[self.index] = payload


class RemoteBuffer:
    """A buffer on a device.

    Attributes:
        remote_ptr: its handle.
        size: bytes.
    """

    def __init__(self, client: Channel, remote_ptr: int, size: int) -> None:
        self.client, self.size = client, size
        self._remote_ptr, self._base, self._freed = remote_ptr, -1, False

    @property
    def remote_ptr(self) -> int:
        """Its handle.

        Raises:
            Misuse: after `free`.
        """
        if self._freed:
            raise Misuse("this buffer has been freed")
        return self._remote_ptr

    @property
    def base(self) -> int:
        """Address of its first byte; asked for once."""
        if self._base < 0:
            self._base = int(self.client.request(BufferGetBase(remote_ptr=self.remote_ptr)).base_ptr)
        return self._base

    def clear(self, value: int = 0) -> None:
        """Set every byte."""
        self.client.request(BufferClear(remote_ptr=self.remote_ptr, value=value))

    def free(self) -> None:
        """Free it; its handle is invalid from then on."""
        self.client.request(FreeBuffer(remote_ptr=self.remote_ptr))
        self._freed = True
        self.client.stored_graphs.clear()  # a server may drop stored graphs when a buffer is freed (llama.cpp #24292)


def _placed(tensor: RemoteTensor) -> RpcTensor:
    if tensor.owner.buffer is None:
        raise Misuse(f"{tensor.name or 'the tensor'} has no memory yet: compute its graph first")
    return tensor.wire()
