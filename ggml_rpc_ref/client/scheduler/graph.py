"""The builder of graphs that have no device yet: the scheduler decides where each node is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.client.devices import Device
from ggml_rpc_ref.client.graph import Graph, Operand, stays_loose
from ggml_rpc_ref.client.parameters import Params
from ggml_rpc_ref.client.scheduler.leaves import Input, Placed
from ggml_rpc_ref.client.tensors import RemoteTensor, TensorDevice
from ggml_rpc_ref.client.words import NUMPY_NAMES, DTypeLike, as_array, check_layout, dtype_row, encoded_name, quad, whole_numbers
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.versions import Version
from ggml_rpc_ref.tensor import NUMPY_TYPES, Array, allocate, contiguous_nb

INPUT, OUTPUT = 1, 2
"""ggml's flags of tensors (GGML_TENSOR_FLAG_INPUT and _OUTPUT of ggml.h)."""


class Owner(Protocol):
    """What the tensors of scheduled graphs ask of their scheduler."""

    def compute(self, graph: ScheduledGraph) -> None:
        """Compute a graph."""

    def read(self, tensor: RemoteTensor, offset: int, size: int) -> Array:
        """Read bytes of a tensor."""

    def write(self, tensor: RemoteTensor, data: Array, offset: int) -> None:
        """Write bytes of a weight or a state."""


class Anywhere:
    """What scheduled tensors have in place of a device: they are on whichever backend the scheduler chooses.

    Args:
        owner: the scheduler.
        version: the version whose ops and types graphs are built with.
    """

    index, alignment = 0, 1

    def __init__(self, owner: Owner, version: Version) -> None:
        self.owner, self.version = owner, version
        self._adopted: dict[int, RemoteTensor] = {}

    def __repr__(self) -> str:
        return "<any backend of the scheduler>"

    def shares_connection(self, other: TensorDevice) -> bool:
        """Whether two tensors belong to the same scheduler."""
        return other is self

    def graph(self) -> ScheduledGraph:
        """Return an empty graph."""
        return ScheduledGraph(self)

    def leaf(self, dtype: DTypeLike, ne: Sequence[int], name: str, flags: int = 0) -> RemoteTensor:
        """Return a leaf without data."""
        row, dims = dtype_row(dtype, self.version), quad(shown := whole_numbers(ne, "ne"))
        encoded_name(name)
        check_layout(row, dims, contiguous_nb(row, dims), shown)
        return RemoteTensor(self, row, dims, contiguous_nb(row, dims), len(shown), name, flags=flags)

    def input(self, dtype: DTypeLike, ne: Sequence[int], name: str = "") -> RemoteTensor:
        """Return a leaf whose data the caller writes before each computation."""
        made = self.leaf(dtype, ne, name, INPUT)
        made.buffer = Input()
        return made

    def tensor(self, array: npt.ArrayLike, dtype: DTypeLike = "", name: str = "") -> RemoteTensor:
        """Return an input that holds an array."""
        values = as_array(array, "the array")
        wanted = dtype or NUMPY_NAMES.get(values.dtype, "")
        if not wanted:
            raise Misuse(f"no ggml type holds {values.dtype}: name one with dtype=")
        made = self.input(wanted, values.shape[::-1], name)
        if values.dtype != np.dtype(NUMPY_TYPES.get(made.dtype.name, "V1")):
            converted = allocate(made.dtype, made.ne)
            converted.store(values.reshape(converted.shape))
            values = converted.array
        self.write(made, np.ascontiguousarray(values))
        return made

    def adopt(self, tensor: RemoteTensor) -> RemoteTensor:
        """Return a leaf that stands for a tensor on a backend."""
        if tensor.id not in self._adopted:
            if not isinstance(tensor.device, Device):
                raise Misuse(f"{tensor.name or 'a source'} belongs to another scheduler")
            tensor.require_ready()
            usage = getattr(tensor.owner.buffer, "usage", "")
            leaf = RemoteTensor(self, tensor.dtype, tensor.ne, tensor.nb, tensor.ndim, tensor.name)
            leaf.buffer = Placed(tensor, weights=usage == "weights")
            self._adopted[tensor.id] = leaf
        return self._adopted[tensor.id]

    # ------------------------------------------------------------------------------------------------ what tensors ask for

    def write(self, tensor: RemoteTensor, data: Any, offset: int = 0) -> None:
        """Keep bytes of an input until a graph is computed; write those of a weight or state where it lies."""
        flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        match tensor.owner.buffer:
            case Placed():
                self.owner.write(tensor, flat, offset)
            case Input() as kept:
                if kept.data is None or not kept.data.flags.writeable:
                    kept.data = np.zeros(tensor.owner.nbytes, np.uint8)
                start = tensor.view_offs + offset
                kept.data[start : start + len(flat)] = flat
            case _:
                raise Misuse(f"{tensor.name or 'the tensor'} is computed: only inputs, weights and states can be written")

    def read(self, tensor: RemoteTensor, offset: int, size: int) -> Array:
        """Read bytes of a tensor, wherever it is."""
        return self.owner.read(tensor, offset, size)

    def express(self, op: str, src: Sequence[Any], params: dict[str, Any] | None) -> RemoteTensor:
        """Return a node that belongs to no graph."""
        graph = ScheduledGraph(self, gathers=False)
        node = graph.transpose(*src) if op == "TRANSPOSE" else graph.op(op, src, params=params)
        node.loose = True
        return node

    def evaluate(self, tensor: RemoteTensor) -> None:
        """Compute a node that belongs to no graph, and keep its value here."""
        graph = ScheduledGraph(self)
        with stays_loose(graph):
            graph.take_in(tensor)
            graph.output(tensor)
            graph.compute()
        data = self.read(tensor, 0, tensor.nbytes)
        tensor.op, tensor.src, tensor.view_src, tensor.view_offs, tensor.flags = "NONE", (), None, 0, INPUT
        tensor.op_params, tensor.buffer = bytes(len(tensor.op_params)), Input(data)

    def _nowhere(self, *_: Any, **__: Any) -> NoReturn:
        raise Misuse("a tensor of a scheduled graph has no device of its own: do this with the device's own tensors")

    alloc = alloc_size = place = copy = memset = write_rows = read_rows = compute = _nowhere


class ScheduledGraph(Graph):
    """Nodes over all backends of a scheduler; built as a device's graph is, with tensors of any of them as sources.

    Attributes:
        device: stands for whichever backend it will be.
        kept: nodes whose results can be read after `compute`, beside those that no other node reads.
        plan: what the scheduler keeps of it.
    """

    device: Anywhere

    def __init__(self, device: Anywhere, *, gathers: bool = True) -> None:
        super().__init__(device, gathers=gathers)
        self.kept: list[RemoteTensor] = []
        self.plan: object = None

    def input(self, dtype: DTypeLike, ne: Sequence[int], name: str = "") -> RemoteTensor:
        """Return a tensor that the caller writes before each computation (ggml_set_input), dimensions in ggml's order."""
        return self.device.input(dtype, ne, name)

    def output(self, node: RemoteTensor) -> RemoteTensor:
        """Have a node's result stay until the next graph is computed (ggml_set_output), and return the node.

        Raises:
            Misuse: for what is no node of this scheduler's.
        """
        if not isinstance(node, RemoteTensor) or node.device is not self.device:
            raise Misuse(f"{node!r} is not a node of this scheduler's graphs")
        node.flags |= OUTPUT
        self.kept.append(node)
        return node

    def op(self, op: str, src: Sequence[Operand | None], *, params: Params | bytes | None = None, **others: Any) -> RemoteTensor:
        """Add a node of any op; see `Graph.op`."""
        listed = [self._taken(source) for source in src] if isinstance(src, list | tuple) else src
        if isinstance(others.get("view_of"), RemoteTensor):
            others["view_of"] = self._taken(others["view_of"])
        return super().op(op, listed, params=params, **others)

    def _source(self, op: str, slot: int, source: Operand | None) -> RemoteTensor | None:
        return super()._source(op, slot, self._taken(source))

    def _taken(self, source: Any) -> Any:
        if isinstance(source, RemoteTensor) and source.device is not self.device:
            return self.device.adopt(source)
        return source

    def compute(self) -> None:
        """Compute every node, each on the backend that the scheduler gives it to."""
        self.device.owner.compute(self)
