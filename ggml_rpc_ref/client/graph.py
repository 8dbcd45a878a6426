"""A small graph builder: tensors on a remote device, ops over them, one message that computes them.

    a, b = device.tensor(numpy_a), device.tensor(numpy_b)
    graph = device.graph()
    c = graph.mul_mat(a, b)
    graph.compute()
    print(c.numpy())

Dimensions are ggml's: `ne[0]` is the length of a row, numpy's last axis. An array of shape (rows, columns) has ne (columns, rows).
The message looks like a stock client's: nodes in execution order with the flag COMPUTE; tensors depth first, sources before the
tensor, each once (ggml-rpc.cpp of 3.6.1, serialize_graph). Nothing here uses a socket: a `GraphDevice` moves the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

import numpy as np

from ggml_rpc_ref.errors import Misuse, Unsupported, Violation
from ggml_rpc_ref.ops import OPS
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import Graph as WireGraph
from ggml_rpc_ref.spec.dtypes import BY_NAME, DType
from ggml_rpc_ref.spec.messages import FLAG_COMPUTE, MAX_NAME, MAX_OP_PARAMS, RpcTensor
from ggml_rpc_ref.spec.opcodes import kinds, op_table
from ggml_rpc_ref.spec.versions import Version
from ggml_rpc_ref.tensor import NUMPY_TYPES, Array, PlainStorage, Quad, Tensor, contiguous_nb, extent

Params = Mapping[str, int | float | tuple[int | float, ...]]
F32 = BY_NAME["F32"]
SIZED_BY_THE_SERVER = {"FLASH_ATTN_EXT", "MUL_MAT_ID"}
"""Ops for which a stock client asks GET_ALLOC_SIZE: a server may want more memory than the result has bytes (llama.cpp #15966)."""

_ids = count(1)


class GraphBuffer(Protocol):
    """A buffer on a server, as far as a graph needs it."""

    @property
    def remote_ptr(self) -> int:
        """Its handle."""

    @property
    def base(self) -> int:
        """Its address."""


class GraphDevice(Protocol):
    """A device of a server, as far as a graph needs it."""

    index: int

    @property
    def version(self) -> Version:
        """The protocol version of the connection."""

    @property
    def alignment(self) -> int:
        """The alignment of tensors, in bytes."""

    def alloc(self, size: int) -> GraphBuffer:
        """Allocate a buffer of at least `size` bytes."""

    def alloc_size(self, tensor: RemoteTensor) -> int:
        """Ask how many bytes a tensor needs."""

    def write(self, tensor: RemoteTensor, data: Any, offset: int = 0) -> None:
        """Write bytes into a tensor."""

    def read(self, tensor: RemoteTensor, offset: int, size: int) -> Array:
        """Read bytes of a tensor, as uint8."""

    def compute(self, graph: WireGraph) -> None:
        """Compute a graph."""


def quad(ne: Sequence[int]) -> Quad:
    """Pad dimensions with 1 to four.

    Raises:
        Misuse: for more than four dimensions, or a negative one.
    """
    if len(ne) > 4 or any(n < 0 for n in ne):
        raise Misuse(f"ne = {tuple(ne)}: a tensor has up to four dimensions, none negative")
    a, b, c, d = (*(int(n) for n in ne), 1, 1, 1, 1)[:4]
    return (a, b, c, d)


@dataclass(eq=False, slots=True)
class RemoteTensor:
    """A tensor on a device of a server: a leaf with data of its own, or a node of a graph.

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
    """

    device: GraphDevice
    dtype: DType
    ne: Quad
    nb: Quad
    ndim: int
    name: str = ""
    buffer: GraphBuffer | None = field(default=None, repr=False)
    offset: int = 0
    op: str = "NONE"
    op_params: bytes = field(default=bytes(4 * MAX_OP_PARAMS), repr=False)
    src: tuple[RemoteTensor | None, ...] = field(default=(), repr=False)
    view_src: RemoteTensor | None = field(default=None, repr=False)
    view_offs: int = 0
    flags: int = 0
    id: int = field(default_factory=lambda: next(_ids), init=False)

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

    def wire(self) -> RpcTensor:
        """Return its rpc_tensor; buffer and data are 0 until it has memory."""
        buffer = self.owner.buffer
        return RpcTensor(
            id=self.id,
            type=self.dtype.number,
            buffer=0 if buffer is None else buffer.remote_ptr,
            ne=self.ne,
            nb=self.nb,
            op=_op_number(self.op, self.device.version),
            op_params=_op_params(self.op, self.op_params, self.device.version),
            flags=self.flags,
            src=tuple(0 if source is None else source.id for source in self.src),
            view_src=0 if self.view_src is None else self.view_src.id,
            view_offs=self.view_offs,
            data=0 if buffer is None else buffer.base + self.owner.offset + self.view_offs,
            name=self.name.encode()[: MAX_NAME - 1],
        )

    def write(self, array: Array) -> None:
        """Write an array into this tensor without conversion: elements of its type, or raw bytes as uint8.

        Raises:
            Misuse: for an array of another type or size, and where the tensor is not contiguous.
        """
        if array.dtype not in (np.dtype("u1"), np.dtype(NUMPY_TYPES.get(self.dtype.name, "u1"))):
            raise Misuse(f"{self.name or 'the tensor'} has the type {self.dtype.name}, which does not hold {array.dtype}")
        if array.nbytes != self.nbytes or not self.geometry.is_contiguous:
            name = self.name or "the tensor"
            raise Misuse(f"{array.nbytes} bytes do not fill {name}: it has {self.nbytes} bytes and must be contiguous")
        self.device.write(self, np.ascontiguousarray(array))

    def numpy(self) -> Array:
        """Read the elements: plain types unchanged, BF16 and block types as float32; `ndim` axes in numpy's order."""
        stored = PlainStorage(self.device.read(self, 0, self.nbytes))
        bound = Tensor(self.dtype, self.ne, self.nb, stored, 0, self.name)
        as_floats = self.dtype.is_quantised or self.dtype.name == "BF16"
        array: Array = (bound.values() if as_floats else bound.array)[(0,) * (4 - self.ndim)]
        return array


def _op_number(op: str, version: Version) -> int:
    table = op_table(version)
    if op not in table:
        raise Unsupported(f"protocol {version} has no known number for {op}")
    return table.index(op)


def _op_params(op: str, raw: bytes, version: Version) -> tuple[int, ...]:
    """Return op_params with UNARY's or GLU's kind numbered as the server's version numbers it."""
    first, *rest = np.frombuffer(raw, "<i4").tolist()
    ours, theirs = kinds(op), kinds(op, version)
    if ours != theirs and ours[first] not in theirs:
        raise Unsupported(f"protocol {version} has no {op} {ours[first]}")
    return (first if ours == theirs else theirs.index(ours[first]), *rest)


class Graph:
    """Nodes that one message computes, in the order in which they were added.

    Attributes:
        device: the device that computes them.
        nodes: the tensors to compute.
    """

    def __init__(self, device: GraphDevice) -> None:
        self.device, self.nodes = device, list[RemoteTensor]()

    # ---------------------------------------------------------------------------------------------------------- any op

    def op(
        self,
        op: str,
        src: Sequence[RemoteTensor | None],
        *,
        params: Params | bytes = b"",
        ne: Sequence[int] | None = None,
        dtype: str | None = None,
        nb: Quad | None = None,
        view_of: RemoteTensor | None = None,
        view_offs: int = 0,
        name: str = "",
    ) -> RemoteTensor:
        """Add a node of any op.

        Args:
            op: ggml's name, without GGML_OP_.
            src: sources by slot; None leaves a slot empty.
            params: op_params by the names in the op's row, or 64 bytes.
            ne, dtype: dimensions and type of the result. (default: those of the first source)
            nb: strides of the result. (default: contiguous)
            view_of: the tensor whose memory the result shares instead of having its own.
            view_offs: byte offset in that tensor.
            name: for the server's logs.

        Raises:
            Misuse: where the op's rules, as `ops` has them, forbid it.
        """
        sources = tuple(src)
        first = next((source for source in sources if source is not None), None)
        if any(source is not None and source.device is not self.device for source in (*sources, view_of)):
            raise Misuse(f"{op}: every source must be on the graph's device")
        if first is None and (ne is None or dtype is None):
            raise Misuse(f"{op} has no source, so ne and dtype must be given")
        row = BY_NAME[dtype] if dtype else first.dtype if first else F32
        dims = quad(ne) if ne is not None else first.ne if first else quad(())
        axes = len(ne) if ne is not None else first.ndim if first else 0
        node = RemoteTensor(self.device, row, dims, nb or contiguous_nb(row, dims), axes, name or op.lower(), op=op, src=sources)
        node.op_params, node.flags = _packed(op, params), FLAG_COMPUTE
        if view_of is not None:
            node.view_src, node.view_offs = view_of.owner, view_of.view_offs + view_offs
        _check(node)
        self.nodes.append(node)
        return node

    # ---------------------------------------------------------------------------------------------------- named ones

    def mul_mat(self, a: RemoteTensor, b: RemoteTensor, name: str = "") -> RemoteTensor:
        """Matrix multiplication, ``b @ a.T`` in numpy; rows of a and b have the same length, the result is F32."""
        return self.op("MUL_MAT", [a, b], ne=(a.ne[1], *b.ne[1:])[: max(a.ndim, b.ndim, 2)], dtype="F32", name=name)

    def add(self, a: RemoteTensor, b: RemoteTensor, name: str = "") -> RemoteTensor:
        """Add element by element; b is repeated to the shape of a."""
        return self.op("ADD", [a, b], name=name)

    def mul(self, a: RemoteTensor, b: RemoteTensor, name: str = "") -> RemoteTensor:
        """Multiply element by element; b is repeated to the shape of a."""
        return self.op("MUL", [a, b], name=name)

    def scale(self, x: RemoteTensor, scale: float, bias: float = 0.0, name: str = "") -> RemoteTensor:
        """``x * scale + bias``."""
        return self.op("SCALE", [x], params={"scale": scale, "bias": bias}, name=name)

    def rms_norm(self, x: RemoteTensor, eps: float = 1e-6, name: str = "") -> RemoteTensor:
        """Divide each row by its root mean square."""
        return self.op("RMS_NORM", [x], params={"eps": eps}, name=name)

    def soft_max(
        self, x: RemoteTensor, mask: RemoteTensor | None = None, scale: float = 1.0, max_bias: float = 0.0, name: str = ""
    ) -> RemoteTensor:
        """Soft-max of each row of ``x * scale + mask``."""
        return self.op("SOFT_MAX", [x, mask] if mask else [x], params={"scale": scale, "max_bias": max_bias}, name=name)

    def get_rows(self, table: RemoteTensor, indices: RemoteTensor, name: str = "") -> RemoteTensor:
        """Gather rows, ``table[indices]`` in numpy; I32 stays I32, every other type becomes F32."""
        ne = (table.ne[0], *indices.ne[:3])[: max(2, 1 + indices.ndim)]
        return self.op("GET_ROWS", [table, indices], ne=ne, dtype="I32" if table.dtype.name == "I32" else "F32", name=name)

    def cpy(self, x: RemoteTensor, into: RemoteTensor, name: str = "") -> RemoteTensor:
        """Copy elements into a tensor, converting them to its type; the node is a view of that tensor."""
        return self.op("CPY", [x, into], ne=into.ne[: into.ndim], dtype=into.dtype.name, nb=into.nb, view_of=into, name=name)

    def cont(self, x: RemoteTensor, name: str = "") -> RemoteTensor:
        """Copy into contiguous memory."""
        return self.op("CONT", [x], name=name)

    def reshape(self, x: RemoteTensor, *ne: int, name: str = "") -> RemoteTensor:
        """View the same elements with other dimensions (ggml's order)."""
        return self.op("RESHAPE", [x], ne=ne, view_of=x, name=name)

    def view(self, x: RemoteTensor, *ne: int, nb: Quad | None = None, offset: int = 0, name: str = "") -> RemoteTensor:
        """View a part of x: dimensions and strides in ggml's order, offset in bytes."""
        return self.op("VIEW", [x], params={"offset": offset}, ne=ne, nb=nb, view_of=x, view_offs=offset, name=name)

    def permute(self, x: RemoteTensor, *axes: int, name: str = "") -> RemoteTensor:
        """Reorder dimensions: dimension i of x becomes dimension axes[i] of the result (ggml_permute)."""
        if sorted(axes) != [0, 1, 2, 3]:
            raise Misuse(f"permute: {axes} is not a permutation of 0, 1, 2, 3")
        ne, nb = ([values[axes.index(place)] for place in range(4)] for values in (x.ne, x.nb))
        used = max((place + 1 for place in range(4) if ne[place] != 1), default=0)
        return self.op("PERMUTE", [x], params={"axes": axes}, ne=ne[: max(used, x.ndim)], nb=quad(nb), view_of=x, name=name)

    def transpose(self, x: RemoteTensor, name: str = "") -> RemoteTensor:
        """View with rows and columns exchanged; nothing is copied."""
        ne, nb = (x.ne[1], x.ne[0], *x.ne[2:]), (x.nb[1], x.nb[0], *x.nb[2:])
        return self.op("TRANSPOSE", [x], ne=ne[: max(2, x.ndim)], nb=nb, view_of=x, name=name)

    # --------------------------------------------------------------------------------------------------------- compute

    def compute(self) -> None:
        """Compute every node on the server, results in newly allocated memory there; each call computes them again.

        The server does not answer, so a failure shows at the next request, for example in `numpy`.
        """
        self._place()
        self.device.compute(self.encode())

    def encode(self) -> WireGraph:
        """Return the message, with its tensors in a stock client's order."""
        version = self.device.version
        records = b"".join(codec.encode(tensor.wire(), version) for tensor in sources_first(self.nodes))
        nodes = np.array([node.id for node in self.nodes], "<u8")
        return WireGraph(self.device.index, nodes, np.frombuffer(records, codec.layout(RpcTensor, version)))

    def _place(self) -> None:
        """Allocate one buffer for all nodes that have no memory yet, each aligned as the device asks."""
        new = [node for node in self.nodes if node.view_src is None and node.buffer is None]
        end = 0
        for node in new:
            node.offset = end
            size = self.device.alloc_size(node) if node.op in SIZED_BY_THE_SERVER else node.nbytes
            end += -(-max(size, 1) // self.device.alignment) * self.device.alignment
        if new:
            buffer = self.device.alloc(end)
            for node in new:
                node.buffer = buffer


def _packed(op: str, params: Params | bytes) -> bytes:
    if isinstance(params, bytes):
        return params.ljust(4 * MAX_OP_PARAMS, b"\0")
    if op not in OPS:
        raise Misuse(f"the parameters of {op} have no names: pass op_params as bytes")
    known = [param.name for param in OPS[op].params]
    if unknown := [name for name in params if name not in known]:
        raise Misuse(f"{op} has no parameter {unknown[0]!r}; it has {', '.join(known) or 'none'}")
    return OPS[op].pack(dict(params))


def _check(node: RemoteTensor) -> None:
    """Apply the op's shape rules before a server does; a mistake then leaves the connection alive."""
    if node.op not in OPS:
        return
    try:
        sources = tuple(None if source is None else source.geometry for source in node.src)
        OPS[node.op].check(node.geometry, sources, node.op_params)
    except Violation as violation:
        raise Misuse(f"{node.op} is not possible: {violation}") from None


def sources_first(nodes: Iterable[RemoteTensor]) -> Iterator[RemoteTensor]:
    """Yield every tensor that the nodes depend on, once: depth first, sources by slot, then view_src, then the tensor itself."""
    seen: set[int] = set()
    for node in nodes:
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
