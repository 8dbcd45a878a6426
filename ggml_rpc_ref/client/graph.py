"""A graph builder: tensors on a remote device, ops over them, one message that computes them.

    a, b = device.tensor(numpy_a), device.tensor(numpy_b)
    graph = device.graph()
    c = graph.mul_mat(a, b)
    graph.compute()
    print(c.numpy())

Dimensions are ggml's: `ne[0]` is the length of a row, numpy's last axis. An array of shape (rows, columns) has ne (columns, rows).
The message looks like a stock client's: nodes in execution order with the flag COMPUTE; tensors depth first, sources before the
tensor, each once (ggml-rpc.cpp of 3.6.1, serialize_graph). Nothing here uses a socket: a `TensorDevice` moves the bytes.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.client.constructors import Result, result
from ggml_rpc_ref.client.named_ops import NamedOps
from ggml_rpc_ref.client.parameters import Numbers, Params, complete, packed, packed_raw
from ggml_rpc_ref.client.tensors import RemoteTensor, TensorDevice, op_number, sources_first
from ggml_rpc_ref.client.words import (
    NUMPY_NAMES,
    DTypeLike,
    as_array,
    check_layout,
    dtype_row,
    encoded_name,
    quad,
    suggestion,
    whole,
    whole_numbers,
)
from ggml_rpc_ref.errors import Misuse, Violation
from ggml_rpc_ref.ops import canonical_ops
from ggml_rpc_ref.ops.op import Op
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import Graph as WireGraph
from ggml_rpc_ref.spec.messages import FLAG_COMPUTE, RpcTensor
from ggml_rpc_ref.spec.opcodes import GGML_OP
from ggml_rpc_ref.spec.versions import Version
from ggml_rpc_ref.tensor import Array, Quad, contiguous_nb, extent

Operand = RemoteTensor | npt.ArrayLike
"""A tensor, or what numpy makes an array of, which is then sent to the graph's device."""
NAMES = frozenset(row.name for row in GGML_OP)
SIZED_BY_THE_SERVER = {"FLASH_ATTN_EXT", "MUL_MAT_ID"}
"""Ops for which a stock client asks GET_ALLOC_SIZE: a server may want more memory than the result has bytes (llama.cpp #15966)."""


class Graph(NamedOps):
    """Nodes that one message computes, in the order in which they were added.

    Sources may lie on any device of the same server: those of other devices are copied before each computation.

    Args:
        device: the device that computes them.
        gathers: whether it takes in what operators have made of a node's sources.

    Attributes:
        device: the device that computes them.
        nodes: the tensors to compute.
    """

    def __init__(self, device: TensorDevice, *, gathers: bool = True) -> None:
        self.device, self.nodes = device, list[RemoteTensor]()
        self._gathers = gathers
        self._copies = dict[int, RemoteTensor]()  # id of a tensor on another device to the copy of it on this one

    def __repr__(self) -> str:
        return f"<graph of {len(self.nodes)} node{'' if len(self.nodes) == 1 else 's'} on {self.device!r}>"

    # ---------------------------------------------------------------------------------------------------------- any op

    def op(
        self,
        op: str,
        src: Sequence[Operand | None],
        *,
        params: Params | bytes | None = None,
        ne: Sequence[int] | None = None,
        dtype: DTypeLike | None = None,
        nb: Sequence[int] | None = None,
        view_of: RemoteTensor | None = None,
        view_offs: int = 0,
        name: str = "",
    ) -> RemoteTensor:
        """Add a node of any op.

        Args:
            op: ggml's name, without GGML_OP_, in any case.
            src: sources by slot; None leaves a slot empty. An array is sent in a type that the slot takes: its own, else I32 for
                whole numbers that fit, else F32.
            params: op_params by the names in the op's row, enum values also by ggml's names; or up to 64 bytes. Those that ggml's
                constructor has no default for must be given.
            ne, dtype: dimensions and type of the result. (default: as ggml's constructor makes them)
            nb: strides of the result. (default: contiguous)
            view_of: the tensor whose memory the result shares instead of having its own.
            view_offs: byte offset in that tensor.
            name: for the server's logs.

        Raises:
            Misuse: where the op's rules, as `ops` has them, forbid it.
            Unsupported: where the server's version does not have the op or the type.
        """
        op = _known_op(op)
        encoded_name(name)
        op_number(op, self.device.version)
        row = canonical_ops(self.device.version).get(op)
        raw, numbers = _parameters(op, row, params)
        sources = self._sources(op, src)
        _require_sources(op, row, sources)
        made = result(op, sources, numbers)
        node = self._shaped(op, sources, made, ne, dtype, name)
        if made is not None and made.view_of is not None and view_of is None:
            view_of = src[made.view_of]  # type: ignore[assignment]
            node.nb = sources[made.view_of].nb  # type: ignore[union-attr]
        if view_of is not None:
            if not isinstance(view_of, RemoteTensor) or view_of.device is not self.device:
                raise Misuse(f"{op}: its result must share the memory of a tensor on {self.device}")
            node.view_src, node.view_offs = view_of.owner, view_of.view_offs + whole(view_offs, f"{op}: view_offs")
        node.nb, node.op_params = node.nb if nb is None else _four(op, nb), raw
        check_layout(node.dtype, node.ne, node.nb, node.shape if ne is None else node.ne[: node.ndim])
        _check_view(node)
        _check(node, row)
        for source in sources if self._gathers else ():
            if source is not None:
                self.take_in(source)
        self.nodes.append(node)
        return node

    def _shaped(
        self,
        op: str,
        sources: tuple[RemoteTensor | None, ...],
        made: Result | None,
        ne: Sequence[int] | None,
        dtype: DTypeLike | None,
        name: str,
    ) -> RemoteTensor:
        """Return a node of the dimensions and type that were asked for, else those that the constructor makes."""
        if made is None:
            first = next((source for source in sources if source is not None), None)
            if first is None and (ne is None or dtype is None):
                raise Misuse(f"{op} has no source, so ne and dtype must be given")
            if ne is None:
                raise Misuse(f"{op}: neither sources nor parameters tell the result's dimensions, so ne must be given")
            made = Result((), "" if first is None else first.dtype.name)
        shown = made.ne if ne is None else whole_numbers(ne, f"{op}: ne")
        row, dims = dtype_row(made.dtype if dtype is None else dtype, self.device.version), quad(shown)
        node = RemoteTensor(self.device, row, dims, contiguous_nb(row, dims), len(shown), name or op.lower(), op=op, src=sources)
        node.flags = FLAG_COMPUTE
        return node

    # ---------------------------------------------------------------------------------------------------------- sources

    def _sources(self, op: str, src: Sequence[Operand | None]) -> tuple[RemoteTensor | None, ...]:
        listed = src if isinstance(src, list | tuple) else None
        if listed is None:
            raise Misuse(f"{op}: src must be a list of tensors, not {type(src).__name__}")
        limit = len(codec.zero_record(RpcTensor).src)
        if len(listed) > limit:
            raise Misuse(f"{op}: {len(listed)} sources; a tensor has {limit}")
        while listed and listed[-1] is None:
            listed = listed[:-1]
        return tuple(self._source(op, slot, source) for slot, source in enumerate(listed))

    def _source(self, op: str, slot: int, source: Operand | None) -> RemoteTensor | None:
        if source is None:
            return None
        if not isinstance(source, RemoteTensor):
            return self._sent(op, slot, source)
        if source.device is self.device:
            return source
        if not self.device.shares_connection(source.device):
            raise Misuse(
                f"{op}: {source.name or 'a source'} belongs to another connection: every source must be on the graph's"
                f" device or another of its server, {self.device}"
            )
        return self._copied(source)

    def _sent(self, op: str, slot: int, values: npt.ArrayLike) -> RemoteTensor:
        """Send an array in a type that the slot takes."""
        op_row = canonical_ops(self.device.version).get(op)
        rows = op_row.sources if op_row else ()
        what, takes = f"{op}: src[{slot}]", rows[slot].types if slot < len(rows) else ()
        array = as_array(values, what)
        own = NUMPY_NAMES.get(array.dtype, "") if isinstance(values, np.ndarray | np.generic) else ""
        if own in takes:
            return self.device.tensor(array)
        fits = array.dtype.kind in "iu" and (array.size == 0 or (array.min() >= -(2**31) and array.max() < 2**31))
        if fits and "I32" in takes:
            return self.device.tensor(array, "I32")
        if "F32" in takes:
            return self.device.tensor(array, "F32")
        raise Misuse(f"{what} takes {', '.join(takes) or 'no array'}: {array.dtype} of shape {array.shape} can't be sent as that")

    def _copied(self, source: RemoteTensor) -> RemoteTensor:
        """Return what stands on this device for a tensor of another one."""
        owner = source.owner
        if owner.id not in self._copies:
            copy = RemoteTensor(self.device, owner.dtype, owner.ne, owner.nb, owner.ndim, owner.name, stands_for=owner)
            self.device.place(copy)
            self._copies[owner.id] = copy
        copy = self._copies[owner.id]
        if source is owner:
            return copy
        view = RemoteTensor(self.device, source.dtype, source.ne, source.nb, source.ndim, source.name, op="VIEW", src=(copy,))
        view.view_src, view.view_offs = copy, source.view_offs
        view.op_params = canonical_ops(self.device.version)["VIEW"].pack({"offset": source.view_offs})
        return view

    def take_in(self, tensor: RemoteTensor) -> None:
        """Add the nodes that operators made and that a tensor needs."""
        if not tensor.loose or tensor.is_ready:
            return
        for needed in sources_first([tensor]):
            if needed.loose and not needed.is_ready:
                needed.loose = False
                self.nodes.append(needed)

    # ---------------------------------------------------------------------------------------------------- named by hand

    def reshape(self, x: Operand, *ne: int, name: str = "") -> RemoteTensor:
        """View the same elements with other dimensions (ggml's order)."""
        x = self._here("RESHAPE", x)
        return self.op("RESHAPE", [x], ne=ne, dtype=x.dtype, view_of=x, name=name)

    def view(self, x: Operand, *ne: int, nb: Sequence[int] | None = None, offset: int = 0, name: str = "") -> RemoteTensor:
        """View a part of x: dimensions and strides in ggml's order, offset in bytes."""
        x, params = self._here("VIEW", x), {"offset": whole(offset, "VIEW: offset")}
        return self.op("VIEW", [x], params=params, ne=ne, dtype=x.dtype, nb=nb, view_of=x, view_offs=offset, name=name)

    def permute(self, x: Operand, *axes: int, name: str = "") -> RemoteTensor:
        """Reorder dimensions: dimension i of x becomes dimension axes[i] of the result (ggml_permute)."""
        if set(axes) != {0, 1, 2, 3} or len(axes) != 4:
            raise Misuse(f"permute: {axes} is not a permutation of 0, 1, 2, 3")
        x = self._here("PERMUTE", x)
        ne, nb = ([values[axes.index(place)] for place in range(4)] for values in (x.ne, x.nb))
        used = max((place + 1 for place in range(4) if ne[place] != 1), default=0)
        shown = ne[: max(used, x.ndim)]
        return self.op("PERMUTE", [x], params={"axes": axes}, ne=shown, dtype=x.dtype, nb=nb, view_of=x, name=name)

    def transpose(self, x: Operand, name: str = "") -> RemoteTensor:
        """View with rows and columns exchanged; nothing is copied."""
        x = self._here("TRANSPOSE", x)
        ne, nb = (x.ne[1], x.ne[0], *x.ne[2:]), (x.nb[1], x.nb[0], *x.nb[2:])
        return self.op("TRANSPOSE", [x], ne=ne[: max(2, x.ndim)], dtype=x.dtype, nb=nb, view_of=x, name=name)

    def _here(self, op: str, x: Operand) -> RemoteTensor:
        """Return what a view is made of, on this device."""
        found = self._source(op, 0, x)
        if found is None:
            raise Misuse(f"{op} needs a tensor, not None")
        return found

    # --------------------------------------------------------------------------------------------------------- compute

    def compute(self) -> None:
        """Compute every node on the server, results in newly allocated memory there; each call computes them again.

        The server does not answer, so a failure shows at the next request, for example in `numpy`.

        Raises:
            Misuse: where a source has no data: a node of another graph that has not been computed.
        """
        # every source is looked at before the nodes get memory and the graph is sent
        members = {node.id for node in self.nodes}
        for tensor in sources_first(self.nodes):
            if tensor.stands_for is not None:
                self._refresh(tensor, tensor.stands_for)
            elif tensor.id not in members:
                tensor.require_ready()
        self._place()
        self.device.compute(self.encode())
        for node in self.nodes:
            node.computed = True

    def _refresh(self, copy: RemoteTensor, original: RemoteTensor) -> None:
        """Bring a copy of another device's tensor up to date."""
        original.require_ready()
        if not self.device.copy(original, copy):  # the server can't copy between these two devices
            self.device.write(copy, original.device.read(original, 0, original.nbytes))

    def encode(self) -> WireGraph:
        """Return the message, with its tensors in a stock client's order."""
        version, tensors = self.device.version, list(sources_first(self.nodes))
        # as ggml_visit_parents counts them: once for each slot that names it, and a view's view_src not at all
        uses = Counter(source.id for tensor in tensors for source in tensor.src if source is not None)
        records = as_records([tensor.wire(uses[tensor.id]) for tensor in tensors], version)
        return WireGraph(self.device.index, np.array([node.id for node in self.nodes], "<u8"), records)

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


def as_records(tensors: Sequence[RpcTensor], version: Version) -> Array:
    """Return tensors as records of a version's layout, by column: the same bytes as `codec.encode`, in a tenth of its time."""
    layout = codec.layout(RpcTensor, version)
    records = np.zeros(len(tensors), layout)
    for name in layout.names or ():
        base, shape = layout[name].base, layout[name].shape
        if base.kind == "V":  # name, and padding where a version has some
            text = b"".join(getattr(tensor, name, b"").ljust(base.itemsize, b"\0") for tensor in tensors)
            records[name] = np.frombuffer(text, base)
        elif name == "src":  # as many as there are; the other slots stay 0
            records[name] = np.array([tensor.src + (0,) * (shape[0] - len(tensor.src)) for tensor in tensors], base).reshape(
                -1, *shape
            )
        else:
            records[name] = np.array([getattr(tensor, name) for tensor in tensors], base).reshape(-1, *shape)
    return records


def express(device: TensorDevice, op: str, src: Sequence[Operand | None], params: Params | None = None) -> RemoteTensor:
    """Return a node that belongs to no graph."""
    graph = Graph(device, gathers=False)
    node = graph.transpose(*src) if op == "TRANSPOSE" else graph.op(op, src, params=params)  # type: ignore[arg-type]
    node.loose = True
    return node


@contextlib.contextmanager
def stays_loose(graph: Graph) -> Iterator[None]:
    """Where a computation fails, for want of memory perhaps, give up what the graph took in, so that it can be read again later."""
    try:
        yield
    except BaseException:
        for node in graph.nodes:
            node.loose = True
        raise


def evaluate(tensor: RemoteTensor) -> None:
    """Compute a node that belongs to no graph, with those that it needs; they are data from then on.

    Their sources are let go, so that a loop that computes from its last result keeps no history.
    """
    graph = Graph(tensor.device)
    with stays_loose(graph):
        graph.take_in(tensor)
        graph.compute()
    for node in graph.nodes:
        if node.view_src is None:
            # views keep their op and source: they have no bytes of their own to be data
            node.op, node.op_params, node.src, node.flags = "NONE", bytes(len(node.op_params)), (), 0


def _known_op(op: object) -> str:
    name = op.upper() if isinstance(op, str) else ""
    if name not in NAMES:
        raise Misuse(f"no op is called {op!r}{suggestion(name, NAMES)}")
    return name


def _parameters(op: str, row: Op | None, params: Params | bytes | None) -> tuple[bytes, Numbers]:
    """Return op_params as bytes, and as numbers by name."""
    if isinstance(params, bytes | bytearray | memoryview):
        raw = packed_raw(op, params)
        return raw, {param.name: param.read(raw) for param in row.params} if row else {}
    if row:
        numbers = complete(row, params or {})
        return packed(row, numbers), numbers
    if params:
        raise Misuse(f"the parameters of {op} have no names here: pass op_params as bytes")
    return packed_raw(op, b""), {}


def _require_sources(op: str, op_row: Op | None, sources: Sequence[RemoteTensor | None]) -> None:
    for slot, row in enumerate(op_row.sources if op_row else ()):
        if not row.optional and (slot >= len(sources) or sources[slot] is None):
            raise Misuse(f"{op} is not possible: graph.arity: it needs src[{slot}], {row.name!r}")


def _four(op: str, nb: Sequence[int]) -> Quad:
    strides = whole_numbers(nb, f"{op}: nb")
    if len(strides) != 4:
        raise Misuse(f"{op}: nb = {strides}: a tensor has four strides")
    a, b, c, d = strides
    return (a, b, c, d)


def _check_view(node: RemoteTensor) -> None:
    """Refuse a view that leaves the memory it is a view of."""
    owner = node.view_src
    if owner is not None and node.view_offs + extent(node.dtype, node.ne, node.nb) > owner.nbytes:
        raise Misuse(
            f"{node.op} is not possible: it shows bytes {node.view_offs} to {node.view_offs + node.nbytes} "
            f"of {owner.name or 'a tensor'}, which has {owner.nbytes}"
        )


def _check(node: RemoteTensor, row: Op | None) -> None:
    """Apply the op's shape rules before a server does; a mistake then leaves the connection alive."""
    if row is None:
        return
    try:
        sources = tuple(None if source is None else source.geometry for source in node.src)
        row.check(node.geometry, sources, node.op_params)
    except Violation as violation:
        operands = ", ".join("None" if source is None else f"{source.dtype.name} {source.shape}" for source in node.src)
        raise Misuse(f"{node.op} is not possible: {violation}; the sources' shapes are {operands or 'none'}") from None
