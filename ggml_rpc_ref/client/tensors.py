"""A tensor on a device of a server, and what it asks of that device.

Nothing here uses a socket: a `TensorDevice` moves the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.client.operators import Operators
from ggml_rpc_ref.client.words import U32, DTypeLike, as_array, encoded_name
from ggml_rpc_ref.errors import Misuse, Unsupported
from ggml_rpc_ref.ops import OPS
from ggml_rpc_ref.protocol.graph import Graph as WireGraph
from ggml_rpc_ref.spec.dtypes import DType
from ggml_rpc_ref.spec.messages import MAX_NAME, MAX_OP_PARAMS, RpcTensor, has_field
from ggml_rpc_ref.spec.opcodes import kinds, op_table
from ggml_rpc_ref.spec.versions import NEWEST, Version
from ggml_rpc_ref.tensor import NUMPY_TYPES, Array, PlainStorage, Quad, Tensor, extent

_ids = count(1)
NO_PARAMS = bytes(4 * MAX_OP_PARAMS)


class TensorBuffer(Protocol):
    """A buffer on a server, as far as a tensor needs it."""

    @property
    def remote_ptr(self) -> int:
        """Its handle."""

    @property
    def base(self) -> int:
        """Its address."""


class TensorDevice(Protocol):
    """A device of a server, as far as tensors and graphs need it."""

    index: int

    @property
    def version(self) -> Version:
        """The protocol version of the connection."""

    @property
    def alignment(self) -> int:
        """The alignment of tensors, in bytes."""

    def shares_connection(self, other: TensorDevice) -> bool:
        """Whether a handle of the other device's buffers means the same buffer to this one."""

    def alloc(self, size: int) -> TensorBuffer:
        """Allocate a buffer of at least `size` bytes."""

    def alloc_size(self, tensor: RemoteTensor) -> int:
        """Ask how many bytes a tensor needs."""

    def place(self, tensor: RemoteTensor) -> None:
        """Give a tensor memory of its own."""

    def tensor(self, array: npt.ArrayLike, dtype: DTypeLike = "", name: str = "") -> RemoteTensor:
        """Return a tensor that holds an array."""

    def write(self, tensor: RemoteTensor, data: Any, offset: int = 0) -> None:
        """Write bytes into a tensor."""

    def read(self, tensor: RemoteTensor, offset: int, size: int) -> Array:
        """Read bytes of a tensor, as uint8."""

    def copy(self, source: RemoteTensor, target: RemoteTensor) -> bool:
        """Copy the bytes of a tensor into another on the server; False where the server can't."""

    def memset(self, tensor: RemoteTensor, value: int, offset: int = 0, size: int | None = None) -> None:
        """Set bytes of a tensor."""

    def write_rows(self, tensor: RemoteTensor, data: Any, n_copies: int, stride: int, offset: int = 0) -> None:
        """Write rows of equal length into a tensor."""

    def read_rows(self, tensor: RemoteTensor, size: int, n_copies: int, stride: int, offset: int = 0) -> Array:
        """Read rows of equal length, as uint8."""

    def compute(self, graph: WireGraph) -> None:
        """Compute a graph."""

    def express(self, op: str, src: Sequence[Any], params: dict[str, Any] | None) -> RemoteTensor:
        """Return a node that belongs to no graph."""

    def evaluate(self, tensor: RemoteTensor) -> None:
        """Compute a node that belongs to no graph."""


@dataclass(eq=False, slots=True, repr=False)
class RemoteTensor(Operators):
    """A tensor on a device of a server: a leaf with data of its own, or a node of a graph.

    ``np.asarray(tensor)`` reads it; +, -, *, / and @ compute with it (see `operators`). Its memory is given back to the server when
    the last tensor in the same buffer is dropped.

    Attributes:
        device: the device it is on.
        dtype: row of its ggml type.
        ne: dimensions, in ggml's order.
        nb: strides in bytes, in ggml's order.
        ndim: number of axes that `numpy` returns.
        name: for the server's logs; the first 63 bytes are sent.
        buffer: the buffer it lies in; None until it is allocated, and for views, which lie in their view_src's.
        offset: byte offset in the buffer.
        op, op_params, src: the operation that computes it; "NONE" for a leaf.
        view_src, view_offs: the tensor it is a view of, and the byte offset in it.
        flags: ggml's: 1 INPUT, 2 OUTPUT, 4 PARAM, 16 COMPUTE.
        loose: whether an operator made it and no graph has taken it in.
        computed: whether it has been computed.
        stands_for: the tensor of another device whose bytes are copied here before each computation.
    """

    device: TensorDevice
    dtype: DType
    ne: Quad
    nb: Quad
    ndim: int
    name: str = ""
    buffer: TensorBuffer | None = None
    offset: int = 0
    op: str = "NONE"
    op_params: bytes = NO_PARAMS
    src: tuple[RemoteTensor | None, ...] = ()
    view_src: RemoteTensor | None = None
    view_offs: int = 0
    flags: int = 0
    loose: bool = False
    computed: bool = False
    stands_for: RemoteTensor | None = None
    id: int = field(default_factory=lambda: next(_ids), init=False)

    def __repr__(self) -> str:
        made = "" if self.op == "NONE" else f" of {self.op}"
        name = f" {self.name!r}" if self.name else ""
        return f"<tensor{name}{made}: {self.dtype.name} {self.shape} on {self.device!r}>"

    @property
    def nbytes(self) -> int:
        """Bytes from the first element to the end of the last (ggml_nbytes)."""
        return extent(self.dtype, self.ne, self.nb)

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions in numpy's order."""
        return self.ne[::-1][4 - self.ndim :]

    @property
    def geometry(self) -> Tensor:
        """Type, dimensions and strides without data, as the ops' shape rules take them."""
        return Tensor(self.dtype, self.ne, self.nb, None, 0, self.name)

    @property
    def owner(self) -> RemoteTensor:
        """The tensor whose memory it lies in: its view_src, or itself."""
        return self if self.view_src is None else self.view_src

    @property
    def is_ready(self) -> bool:
        """Whether its bytes on the server are what it stands for: data written, or a node computed."""
        tensor = self
        while tensor.op in OPS and OPS[tensor.op].view and tensor.op != "NONE" and tensor.src and tensor.src[0] is not None:
            tensor = tensor.src[0]
        return tensor.computed if tensor.op != "NONE" else tensor.owner.buffer is not None

    def require_ready(self) -> None:
        """Compute it if an operator made it; refuse a node of a graph that has not been computed.

        Raises:
            Misuse.
        """
        if not self.is_ready and self.loose:
            self.device.evaluate(self)
        if not self.is_ready:
            raise Misuse(f"{self.name or 'the tensor'} has no memory yet: compute its graph first")

    def wire(self, uses: int = 0) -> RpcTensor:
        """Return its rpc_tensor; buffer and data are 0 until it has memory.

        Args:
            uses: how often it is a source in the graph that it is sent with; not sent in versions without the field.

        Raises:
            Misuse: for the transposed of a block type, which no server takes.
            Unsupported: where the server's version has no number for its op or kind.
        """
        if self.ne[0] % self.dtype.block:
            raise Misuse(
                f"{self.name or 'the tensor'}, transposed, is not made of whole blocks of {self.dtype.name}: use x @ w.T alone"
            )
        buffer = self.owner.buffer
        return RpcTensor(
            id=self.id,
            type=self.dtype.number,
            buffer=0 if buffer is None else buffer.remote_ptr,
            ne=self.ne,
            nb=self.wire_nb,
            op=op_number(self.op, self.device.version),
            op_params=_op_params(self.op, self.op_params, self.device.version),
            flags=self.flags,
            src=tuple(0 if source is None else source.id for source in self.src),
            view_src=0 if self.view_src is None else self.view_src.id,
            view_offs=self.view_offs,
            data=0 if buffer is None else buffer.base + self.owner.offset + self.view_offs,
            name=encoded_name(self.name)[: MAX_NAME - 1],
            use_count=uses if has_field(RpcTensor, "use_count", self.device.version) else 0,
        )

    @property
    def wire_nb(self) -> Quad:
        """The strides cut to 32 bits, as a stock client sends them: only those of dimensions of length 1 are ever longer."""
        a, b, c, d = (stride & U32 for stride in self.nb)
        return (a, b, c, d)

    # ------------------------------------------------------------------------------------------------------------- data

    def write(self, array: npt.ArrayLike) -> None:
        """Write an array into this tensor without conversion: elements of its type, or raw bytes as uint8.

        Raises:
            Misuse: for an array of another type or size, and where the tensor is not contiguous.
        """
        name, values = self.name or "the tensor", as_array(array, "the data")
        if values.dtype not in (np.dtype("u1"), np.dtype(NUMPY_TYPES.get(self.dtype.name, "u1"))):
            raise Misuse(f"{name} has the type {self.dtype.name}, which does not hold {values.dtype}")
        if values.nbytes != self.nbytes or not self.geometry.is_contiguous:
            raise Misuse(
                f"{values.nbytes} bytes do not fill {name} of shape {self.shape}: it has {self.nbytes} bytes and must be contiguous"
            )
        self.device.write(self, np.ascontiguousarray(values))

    def numpy(self) -> Array:
        """Read the elements: plain types unchanged, BF16 and block types as float32; `ndim` axes in numpy's order.

        Raises:
            Misuse: for a node of a graph that has not been computed.
        """
        self.require_ready()
        stored = PlainStorage(self.device.read(self, 0, self.nbytes))
        bound = Tensor(self.dtype, self.ne, self.nb, stored, 0, self.name)
        as_floats = self.dtype.is_quantised or self.dtype.name == "BF16"
        array: Array = (bound.values() if as_floats else bound.array)[(0,) * (4 - self.ndim)]
        return array

    def memset(self, value: int, offset: int = 0, size: int | None = None) -> None:
        """Set bytes on the server, without sending them (`Device.memset`; from protocol 5.0.0 on)."""
        self.device.memset(self, value, offset, size)

    def write_rows(self, data: Any, n_copies: int, stride: int, offset: int = 0) -> None:
        """Write rows of bytes in one request, for instance columns of a matrix (`Device.write_rows`; from protocol 8.0.0 on)."""
        self.device.write_rows(self, data, n_copies, stride, offset)

    def read_rows(self, size: int, n_copies: int, stride: int, offset: int = 0) -> Array:
        """Read rows of bytes in one request, as uint8 (`Device.read_rows`; from protocol 8.0.0 on)."""
        return self.device.read_rows(self, size, n_copies, stride, offset)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError(f"{self.name or 'the tensor'} lies on a server: an array of it is always a copy")
        array = np.asarray(self.numpy())
        return array if dtype is None else array.astype(dtype)

    # -------------------------------------------------------------------------------------------------------- operators

    @property
    def T(self) -> RemoteTensor:  # noqa: N802  (numpy's name)
        """The matrix with rows and columns exchanged, a view.

        Raises:
            Misuse: for more than two axes.
        """
        if self.ndim > 2:
            raise Misuse(f"T of a tensor of shape {self.shape}: use graph.permute for more than two axes")
        if self.ndim < 2:
            return self
        if self.dtype.is_quantised:  # ggml has no such view; @ takes the tensor behind it
            ne, nb = (self.ne[1], self.ne[0], *self.ne[2:]), (self.nb[1], self.nb[0], *self.nb[2:])
            return RemoteTensor(self.device, self.dtype, ne, nb, 2, self.name, op="TRANSPOSE", src=(self,), view_src=self.owner)
        return self._apply("TRANSPOSE", [self])

    def _apply(self, op: str, src: Sequence[Any], params: dict[str, Any] | None = None, ndim: int | None = None) -> RemoteTensor:
        if op not in ("TRANSPOSE", "CONT"):  # of views with gaps most ops take only some
            src = [source._packed() if isinstance(source, RemoteTensor) else source for source in src]
        node = self.device.express(op, src, params)
        node.ndim = node.ndim if ndim is None else ndim
        return node

    def _packed(self) -> RemoteTensor:
        return self if self.geometry.is_contiguous or self.dtype.is_quantised else self._apply("CONT", [self])

    def _leaf(self, values: Any) -> RemoteTensor:
        return self.device.tensor(as_array(values, "an operand"), "F32")

    def _is_scalable(self) -> bool:
        return self.dtype.name == "F32" and self.geometry.is_contiguous

    def _is_smaller(self, other: Any) -> bool:
        theirs = other.shape if isinstance(other, RemoteTensor) else as_array(other, "an operand").shape
        mine = self.shape
        return len(mine) < len(theirs) or any(a < b for a, b in zip(mine[len(mine) - len(theirs) :], theirs, strict=True))

    def _transposed(self) -> RemoteTensor:
        if self.op == "TRANSPOSE" and self.src[0] is not None:
            return self.src[0]
        return self._apply("CONT", [self.T if self.ndim == 2 else self._apply("TRANSPOSE", [self])])


def op_number(op: str, version: Version) -> int:
    """Return an op's number in a version.

    Raises:
        Unsupported: where it has none.
    """
    table = op_table(version)
    if op not in table:
        raise Unsupported(f"protocol {version} has no known number for {op}")
    return table.index(op)


def _op_params(op: str, raw: bytes, version: Version) -> tuple[int, ...]:
    """Return op_params with UNARY's or GLU's kind numbered as the server's version numbers it."""
    first, *rest = np.frombuffer(raw, "<i4").tolist()
    ours, theirs = kinds(op, NEWEST), kinds(op, version)
    if ours != theirs and ours[first] not in theirs:
        raise Unsupported(f"protocol {version} has no {op} {ours[first]}")
    return (first if ours == theirs else theirs.index(ours[first]), *rest)


def sources_first(nodes: Iterable[RemoteTensor]) -> Iterator[RemoteTensor]:
    """Yield every tensor that the nodes depend on, once: depth first, sources by slot, then view_src, then the tensor itself."""
    seen: set[int] = set()
    for node in nodes:
        # a stack of our own: a chain of thousands of nodes is deeper than Python's recursion goes
        path = [(node, _needs(node))]
        while path:
            tensor, needs = path[-1]
            following = next((need for need in needs if need.id not in seen), None)
            if following is not None:
                path.append((following, _needs(following)))
                continue
            path.pop()
            if tensor.id not in seen:
                seen.add(tensor.id)
                yield tensor


def _needs(tensor: RemoteTensor) -> Iterator[RemoteTensor]:
    return (need for need in (*tensor.src, tensor.view_src) if need is not None)
