"""A server's devices, as a client sees them.

Made by `Client.devices`; each method is one request, or the few that a stock client would send. What can be seen here to be a
mistake of the caller is a Misuse, and nothing is sent: a server would close the connection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.client.buffers import RemoteBuffer
from ggml_rpc_ref.client.channel import Buffered, Bytes, Channel, bytes_of
from ggml_rpc_ref.client.device_info import DeviceInfo
from ggml_rpc_ref.client.graph import Graph, evaluate, express
from ggml_rpc_ref.client.supported import supports
from ggml_rpc_ref.client.tensors import RemoteTensor, TensorDevice
from ggml_rpc_ref.client.words import (
    NUMPY_NAMES,
    DTypeLike,
    as_array,
    check_layout,
    dtype_row,
    encoded_name,
    quad,
    whole,
    whole_numbers,
)
from ggml_rpc_ref.errors import Misuse, Violation
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import Graph as WireGraph
from ggml_rpc_ref.spec.dtypes import DType
from ggml_rpc_ref.spec.messages import (
    AllocBuffer,
    CopyTensor,
    GetAllocSize,
    GetTensor2d,
    InitTensor,
    MemsetTensor,
    RpcTensor,
    SetTensor2d,
    has_field,
)
from ggml_rpc_ref.tensor import NUMPY_TYPES, Array, allocate, contiguous_nb

PADDED_TO = 512
"""Elements: for rows of a block type whose length is not a multiple of this, a stock client sends GET_ALLOC_SIZE and INIT_TENSOR
(ggml-rpc.cpp)."""
NO_MEMORY_HAS = 2**63
"""Bytes that no memory has: an answer of GET_ALLOC_SIZE of so many is an overflow of the server's, or a joke."""


class NoSuchDevice(Misuse, IndexError):  # noqa: N818  (a Misuse)
    """An index that is not below the server's number of devices."""


class Devices(Sequence["Device"]):
    """As many devices as the server reported, each created when it is accessed: the server may have reported 2^32 - 1."""

    def __init__(self, client: Channel, count: int) -> None:
        self._client, self._count, self._made = client, count, dict[int, Device]()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Device]:
        return (self[at] for at in range(self._count))

    def __repr__(self) -> str:
        return f"<{self._count} device{'' if self._count == 1 else 's'} of {self._client.endpoint}>"

    @overload
    def __getitem__(self, index: int) -> Device: ...
    @overload
    def __getitem__(self, index: slice) -> list[Device]: ...
    def __getitem__(self, index: int | slice) -> Device | list[Device]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(self._count))]
        try:
            at = range(self._count)[index]
        except (IndexError, TypeError):
            indices = "0" if self._count == 1 else f"0 to {self._count - 1}"
            raise NoSuchDevice(f"devices[{index!r}]: {self._client.endpoint} has {indices}") from None
        return self._made.setdefault(at, Device(self._client, at))


class Device(DeviceInfo):
    """A device of a server: what it has, and the buffers, tensors and graphs on it."""

    is_local = False
    """Whether it is a backend of this machine, without a server."""

    @property
    def name(self) -> str:
        """What ggml calls such a backend (ggml_backend_rpc_init in ggml-rpc.cpp)."""
        return f"RPC{self.index}[{self.client.endpoint}]"

    def supports_op(self, node: RemoteTensor) -> bool:
        """Whether a server of its version has a node's op, kind and types, and takes the geometry (ggml_backend_supports_op).

        No request asks a server this. A stock client assumes that a server can compute anything; here the rules of the
        version decide.
        """
        return supports(node, self.version)

    def alloc(self, size: int) -> RemoteBuffer:
        """Allocate a buffer.

        Raises:
            Misuse: where the device has no buffers of that size, for which it is not asked, or not enough memory.
            Violation: where the buffer is smaller than asked for.
        """
        size = whole(size, "size")
        if size > self.max_size:
            raise Misuse(f"{self} has no buffers of {size} bytes: the largest has {self.max_size}")
        reply = self.client.request(AllocBuffer(device=self.index, size=size))
        if reply.remote_ptr == 0:
            raise Misuse(f"{self} has no room for {size} bytes")
        if reply.remote_size < size:
            raise Violation("buffer.alloc-size", "remote_size", reply.remote_size, f"{size} bytes were asked for")
        return RemoteBuffer(self, reply.remote_ptr, reply.remote_size)

    def buffer_from_host_ptr(self, data: Array) -> RemoteBuffer | None:
        """Return a buffer that is an array of this process itself; None: a server can't reach it."""
        return None

    # --------------------------------------------------------------------------------------------------------- tensors

    def empty(
        self, dtype: DTypeLike, ne: Sequence[int], name: str = "", buffer: RemoteBuffer | None = None, offset: int = 0
    ) -> RemoteTensor:
        """Return an uninitialised tensor, dimensions in ggml's order, in a buffer of its own or at an offset in the one given.

        Raises:
            Misuse: for an unknown type, rows that are not whole blocks, a place outside the buffer.
        """
        dims = whole_numbers(ne, "ne")
        return self._empty(dtype_row(dtype, self.version), dims, dims, name, buffer, offset)

    def tensor(
        self,
        array: npt.ArrayLike,
        dtype: DTypeLike = "",
        name: str = "",
        buffer: RemoteBuffer | None = None,
        offset: int = 0,
    ) -> RemoteTensor:
        """Return a tensor that holds an array; shape (…, rows, columns) becomes ne (columns, rows, …).

        Args:
            array: up to four axes. Sent without a copy if C-contiguous and of the type wanted.
            dtype: the ggml type to convert or quantise to: its name in any case, or a numpy dtype. (default: that of the array)
            name: for the server's logs.
            buffer, offset: where to put it. (default: a buffer of its own)

        Raises:
            Misuse: where no ggml type holds the array's elements, or the type wanted does not hold their values.
        """
        values = as_array(array, "the array")
        if _is_default(dtype) and values.dtype not in NUMPY_NAMES:
            raise Misuse(f"no ggml type holds {values.dtype}: name one with dtype=, or use one of {', '.join(NUMPY_TYPES)}")
        row = dtype_row(values.dtype if _is_default(dtype) else dtype, self.version)
        if row.name != NUMPY_NAMES.get(values.dtype):
            _require_range(values, row)
        tensor = self._empty(row, values.shape[::-1], values.shape, name, buffer, offset)
        if row.name != NUMPY_NAMES.get(values.dtype):
            converted = allocate(tensor.dtype, tensor.ne)
            converted.store(values.reshape(converted.shape))
            values = converted.array
        self.write(tensor, np.ascontiguousarray(values))
        return tensor

    def _empty(
        self, row: DType, ne: Sequence[int], shape: Sequence[int], name: str, buffer: RemoteBuffer | None, offset: int
    ) -> RemoteTensor:
        dims = quad(ne)
        encoded_name(name)
        check_layout(row, dims, contiguous_nb(row, dims), shape)
        tensor = RemoteTensor(self, row, dims, contiguous_nb(row, dims), len(shape), name)
        self.place(tensor, buffer, offset)
        return tensor

    def place(self, tensor: RemoteTensor, buffer: RemoteBuffer | None = None, offset: int = 0) -> None:
        """Give a tensor a buffer of its own, or a place in one; have the server initialise padded rows.

        Raises:
            Misuse: where the place is not inside a buffer of this device.
        """
        padded = tensor.dtype.is_quantised and tensor.ne[0] % PADDED_TO != 0
        offset = whole(offset, "offset")
        if buffer is not None and (not isinstance(buffer, RemoteBuffer) or buffer.device is not self):
            raise Misuse(f"buffer = {buffer!r}: it must be a buffer on {self!r}")
        size = self.alloc_size(tensor) if padded else tensor.nbytes
        if buffer is None and offset:
            raise Misuse(f"offset = {offset}: it needs a buffer that it is an offset in")
        if buffer is not None and offset + size > buffer.size:
            raise Misuse(f"{size} bytes at offset {offset} are not all inside a buffer of {buffer.size} bytes")
        tensor.buffer, tensor.offset = self.alloc(size) if buffer is None else buffer, offset
        if padded:
            self.client.request(InitTensor(tensor=tensor.wire()))

    def write(self, tensor: RemoteTensor, data: Buffered, offset: int = 0) -> None:
        """Write bytes into a tensor, beginning at byte `offset`.

        Raises:
            Misuse: where they do not fit into it, or it belongs to another connection.
        """
        record = self._placed(tensor)
        view = bytes_of(data)
        self.client.set_tensor(record, _in(tensor, offset, len(view)), view)

    def read(self, tensor: RemoteTensor, offset: int, size: int) -> Bytes:
        """Read bytes of a tensor.

        Raises:
            Misuse: where they are not all inside it, it has not been computed yet, or it belongs to another connection.
        """
        record = self._placed(tensor, ready=True)
        return self.client.get_tensor(record, _in(tensor, offset, whole(size, "size")), size)

    def copy(self, source: RemoteTensor, target: RemoteTensor) -> bool:
        """Copy the bytes of a tensor into another on the server; False where the server can't.

        Raises:
            Misuse: where they do not fit into it, or one of them belongs to another connection.
        """
        records = self._placed(source, ready=True), self._placed(target)
        if source.nbytes > target.nbytes:
            raise Misuse(
                f"{source.nbytes} bytes of {source.name or 'the source'}, shape {source.shape}, do not fit into "
                f"{target.name or 'the target'}, shape {target.shape}, which has {target.nbytes}"
            )
        return bool(self.client.request(CopyTensor(src=records[0], dst=records[1])).result)

    def memset(self, tensor: RemoteTensor, value: int, offset: int = 0, size: int | None = None) -> None:
        """Set bytes of a tensor to a value from 0 to 255: `size` of them from byte `offset` on; None: all that follow.

        Raises:
            Misuse: where they are not all inside it, or it belongs to another connection.
            Unsupported: where the server's version has no MEMSET_TENSOR.
        """
        self.client.require(MemsetTensor)
        record = self._placed(tensor)
        count = tensor.nbytes - whole(offset, "offset", tensor.nbytes) if size is None else whole(size, "size")
        start = _in(tensor, offset, count)
        self.client.request(MemsetTensor(tensor=record, offset=start, size=count, value=whole(value, "value", 255)))

    def write_rows(self, tensor: RemoteTensor, data: Buffered, n_copies: int, stride: int, offset: int = 0) -> None:
        """Write rows of equal length into a tensor, the first at byte `offset`, each `stride` bytes after the one before.

        Args:
            tensor: where to write.
            data: the rows, one after another.
            n_copies: how many rows they are; ggml's word.
            stride: bytes.
            offset: bytes.

        Raises:
            Misuse: where they are not all inside it, overlap, or it belongs to another connection.
            Unsupported: where the server's version has no SET_TENSOR_2D.
        """
        self.client.require(SetTensor2d)
        record, view, count = self._placed(tensor), bytes_of(data), whole(n_copies, "n_copies")
        if not count or not len(view) or len(view) % count:
            raise Misuse(f"{len(view)} bytes are not {count} rows of equal length")
        size = len(view) // count
        start = _rows_in(tensor, offset, size, count, stride)
        self.client.set_rows(SetTensor2d(tensor=record, offset=start, size=size, n_copies=count, stride=stride), view)

    def read_rows(self, tensor: RemoteTensor, size: int, n_copies: int, stride: int, offset: int = 0) -> Array:
        """Read rows of `size` bytes, the first at byte `offset`, each `stride` bytes after the one before; shape (n_copies, size).

        Raises:
            Misuse: where they are not all inside it, overlap, it is not computed yet, or belongs to another connection.
            Unsupported: where the server's version has no GET_TENSOR_2D.
        """
        self.client.require(GetTensor2d)
        record, count = self._placed(tensor, ready=True), whole(n_copies, "n_copies")
        start = _rows_in(tensor, offset, whole(size, "size"), count, stride)
        if not size or not count:
            raise Misuse(f"{count} rows of {size} bytes: there is nothing to read")
        rows = GetTensor2d(tensor=record, offset=start, size=size, n_copies=count, stride=stride)
        return self.client.get_rows(rows).reshape(count, size)

    def init_tensor(self, tensor: RemoteTensor) -> None:
        """Have the device initialise a tensor's memory, padding included."""
        self.client.request(InitTensor(tensor=self._placed(tensor)))

    def alloc_size(self, tensor: RemoteTensor) -> int:
        """Ask how many bytes a tensor needs, given its sources.

        Raises:
            Violation: where the answer is less than the tensor's own bytes, or more than any memory has.
        """
        self._require_own(tensor)
        absent = codec.zero_record(RpcTensor, self.version)
        has_srcs = has_field(GetAllocSize, "srcs", self.client.version)
        sources = tuple(absent if source is None else source.wire() for source in tensor.src) if has_srcs else ()
        size: int = self.client.request(GetAllocSize(device=self.index, tensor=tensor.wire(), srcs=sources)).alloc_size
        if not tensor.nbytes <= size < NO_MEMORY_HAS:
            detail = f"{self} was asked about a tensor of {tensor.nbytes} bytes, and no memory has {NO_MEMORY_HAS}"
            raise Violation("tensor.alloc-size", "alloc_size", size, detail)
        return size

    # ---------------------------------------------------------------------------------------------------------- graphs

    def graph(self) -> Graph:
        """Return an empty graph on this device."""
        return Graph(self)

    def compute(self, graph: WireGraph) -> None:
        """Compute a graph; if the server still has it, send GRAPH_RECOMPUTE instead."""
        self.client.compute(graph)

    def express(self, op: str, src: Sequence[Any], params: dict[str, Any] | None) -> RemoteTensor:
        """Return a node that belongs to no graph, as the operators of tensors make them."""
        return express(self, op, src, params)

    def evaluate(self, tensor: RemoteTensor) -> None:
        """Compute a node that belongs to no graph."""
        evaluate(tensor)

    # ------------------------------------------------------------------------------------------------- whose tensors

    def shares_connection(self, other: TensorDevice) -> bool:
        """Whether a handle of the other device's buffers means the same buffer to this one."""
        return isinstance(other, Device) and other.client is self.client

    def _require_own(self, tensor: RemoteTensor) -> None:
        if not isinstance(tensor, RemoteTensor):
            raise Misuse(f"{tensor!r} is not a tensor on a server: `tensor` makes one of an array")
        if not self.shares_connection(tensor.device):
            # handles and addresses are numbers: on another server the same ones may mean somebody else's bytes
            raise Misuse(f"{tensor.name or 'the tensor'} belongs to another connection: it is on {tensor.device!r}, not {self!r}")

    def _placed(self, tensor: RemoteTensor, *, ready: bool = False) -> RpcTensor:
        self._require_own(tensor)
        if tensor.owner.buffer is None or (ready and not tensor.is_ready):
            tensor.require_ready()
        return tensor.wire()


def _is_default(dtype: object) -> bool:
    return dtype is None or (isinstance(dtype, str) and not dtype)


def _in(tensor: RemoteTensor, offset: int, size: int) -> int:
    """Return an offset from which so many bytes are inside a tensor."""
    offset = whole(offset, "offset")
    if offset + size > tensor.nbytes:
        name = tensor.name or "the tensor"
        raise Misuse(f"{size} bytes at offset {offset} are not all inside {name}: of shape {tensor.shape}, it has {tensor.nbytes}")
    return offset


def _rows_in(tensor: RemoteTensor, offset: int, size: int, count: int, stride: int) -> int:
    """Return an offset from which rows are inside a tensor and apart."""
    if count > 1 and whole(stride, "stride") < size:
        raise Misuse(f"rows of {size} bytes, {stride} apart, overlap")
    return _in(tensor, offset, (max(count, 1) - 1) * stride + size)


def _require_range(values: Array, row: DType) -> None:
    """Refuse values that an integer type does not hold; numpy would wrap them round."""
    if row.name not in ("I8", "I16", "I32", "I64") or values.size == 0:
        return
    bounds = np.iinfo(NUMPY_TYPES[row.name])
    low, high = values.min(), values.max()
    # as Python's numbers: numpy would compare uint64 with int64 as floats; a NaN fails every comparison
    if not (bounds.min <= low.item() and high.item() <= bounds.max):
        what = "NaN" if np.isnan(low) else f"values from {low} to {high}"
        raise Misuse(f"{row.name} does not hold {what}")
