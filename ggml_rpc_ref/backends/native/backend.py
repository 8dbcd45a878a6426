"""The backend `native`: nodes that have a kernel, packed into arrays that C runs in one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.backends import (
    Cancelled,
    Places,
    Run,
    Step,
    Stopped,
    apart,
    disturbed,
    in_turn,
    never,
    one_after_the_other,
    out_of_memory,
    written_tensors,
)
from ggml_rpc_ref.backends.changes import CHANGES
from ggml_rpc_ref.backends.memory import HostAllocation, HostMemory
from ggml_rpc_ref.backends.native.geometry import Geometries, Geometry
from ggml_rpc_ref.backends.native.library import kernel_ops, library
from ggml_rpc_ref.backends.native.packed import Packed
from ggml_rpc_ref.backends.oracle import in_host_memory
from ggml_rpc_ref.ops.op import MAX_SRC, Node
from ggml_rpc_ref.tensor import Array, Bytes, Tensor

NAME = "native"
SLICE = 20_000_000
"""Nanoseconds that C computes before Python looks whether the run is to stop."""
AT_ONCE = 4096
"""Nodes that are packed at a time: numpy makes an array of a list without letting another thread run."""
NODE = np.dtype([("of", "u8"), ("dst", "u8"), ("src", "u8", MAX_SRC), ("packed", "u8")])
"""`struct node`."""


Report = tuple[Callable[[int, int], None], int, int]
"""Whom to tell that bytes have been written, and which: from, up to."""


class Native:
    """Computes nodes with C kernels.

    Args:
        memory: where its buffers lie.
        copies: bytes of packed weights that it may keep beside the buffers.
        threads: how many threads compute a large node together; 0: half the cores.
        variant: the instructions to use; "": the fastest that this processor has, or what the environment names.

    Attributes:
        library: the kernels.
        pool: the threads.
        geometries: the kinds of nodes.
        packed: the packed weights; None: it keeps none.
    """

    name = NAME
    threaded = True
    KERNELS = MappingProxyType(dict.fromkeys(kernel_ops(), "C"))

    def __init__(self, memory: HostMemory, copies: int = 0, threads: int = 0, variant: str = "") -> None:
        self.memory, self.library = memory, library(variant)
        self.variant, self.threads = self.library.variant, threads or max(1, (os.cpu_count() or 2) // 2)
        self.pool = self.library.ffi.gc(self.library.lib.pool_new(self.threads), self.library.lib.pool_free)
        self.geometries = Geometries(self.library, self.threads)
        self.packed = Packed(copies, self.library, self.pool, memory) if copies else None
        if self.packed is not None:
            memory.changed, memory.watches, memory.give_way = self.packed.drop, self.packed.knows, self.packed.give_way

    @property
    def description(self) -> str:
        """What computes, for people."""
        return f"C kernels, {self.variant}, {self.threads} thread{'s' * (self.threads > 1)}"

    def supports(self, node: Node) -> bool:
        """Whether there is a kernel for the op with these types and layouts, and no result lies where it would disturb sources."""
        if node.op.name not in self.KERNELS or not CHANGES.issuperset(node.op.changes):
            return False
        if not in_host_memory(node) or disturbed(node):
            return False
        return self.geometries.of(node) is not None

    def compile(self, steps: Sequence[Step]) -> Run:
        """Return a run in which each stretch of steps with kernels is one call."""
        runs = [self._stretch(list(group), own) for own, group in groupby(steps, lambda step: step.compute is None)]
        return runs[0] if len(runs) == 1 else partial(one_after_the_other, runs)

    def form(self, kinds: Sequence[Node], which: npt.NDArray[np.int64]) -> _Form | None:
        """Return the form of nodes of these kinds; None where C does not compute all of them; see `Forming`."""
        found = [self.geometries.of(node) if self.supports(node) else None for node in kinds]
        addresses = [kind.address for kind in found if kind is not None]
        if len(addresses) != len(found):
            return None
        packed = np.zeros(len(which), NODE)
        packed["of"] = np.array(addresses, np.uint64)[which]
        return _Form(self, packed, [found[kind] for kind in which.tolist()])

    def _stretch(self, steps: list[Step], own: bool) -> Run:
        if own:
            nodes = [step.node for step in steps]
            kinds = [self.geometries.of(node) for node in nodes]
            packed = _pack(nodes, [kind.address for kind in kinds if kind is not None])
            stored = (tensor.storage for node in nodes for tensor in written_tensors(node))
            written = {storage for storage in stored if isinstance(storage, HostAllocation)}
            return _Stretch(self, packed, kinds, lambda: nodes, list(self._reports(nodes)), self._weights(nodes, kinds), written)
        return in_turn([(step.node, step.compute) for step in steps if step.compute is not None])

    def listens(self, memory: HostMemory | None) -> bool:
        """Whether somebody else wants to know of each range of bytes in a memory that nodes have written."""
        if memory is None or memory.changed is None:
            return False
        return self.packed is None or memory.changed != self.packed.drop

    def _reports(self, nodes: Sequence[Node]) -> Iterator[Report]:
        """Yield what to tell memory after the nodes: which bytes of it they have written, where anyone else wants to know."""
        for node in nodes:
            for tensor in written_tensors(node):
                storage = tensor.storage
                if isinstance(storage, HostAllocation) and self.listens(storage.memory):
                    yield storage.written, tensor.offset, tensor.offset + tensor.nbytes

    def _weights(self, nodes: Sequence[Node], kinds: Sequence[Geometry | None]) -> list[Weight]:
        found = []
        for index, (node, kind) in enumerate(zip(nodes, kinds, strict=True)):
            if kind is not None and kind.packed:
                weights = node.source(0)
                if isinstance(weights.storage, HostAllocation):
                    found.append(Weight(index, weights.storage, weights.offset, kind))
        return found


class Weight(NamedTuple):
    """The weights of a node that can be multiplied packed.

    Attributes:
        node: which node.
        allocation: what they lie in.
        offset: where.
        kind: the node's.
    """

    node: int
    allocation: HostAllocation
    offset: int
    kind: Geometry


class _Stretch:
    """Nodes that C computes in one call.

    Args:
        owner: what computes.
        packed: the nodes as `struct node`, in order.
        kinds: their kinds, which this keeps alive.
        nodes: returns the nodes themselves.
        writes: whom to tell afterwards which bytes have been written.
        weights: those that can be packed.
        written: what the results lie in.
    """

    def __init__(
        self,
        owner: Native,
        packed: Array,
        kinds: list[Geometry | None],
        nodes: Callable[[], Sequence[Node]],
        writes: list[Report],
        weights: list[Weight],
        written: Iterable[HostAllocation],
    ) -> None:
        self._owner, self._packed, self._kinds, self._nodes, self._writes = owner, packed, kinds, nodes, writes
        self._weights, self._written = weights, list(written)
        self._asked, self._copies = -1, list[Bytes]()  # `Packed.changes` when everything was known; what the nodes point to
        self._library, self._pool = owner.library, owner.pool
        self._first = self._library.ffi.cast("struct node *", self._library.ffi.from_buffer(packed))
        self._again: Any = None  # `struct again`, once C has been asked for

    def form(self) -> _Form:
        """Return what the next stretch may have in common with this one; see `Repeatable`."""
        return _Form(self._owner, self._packed, self._kinds)

    def __call__(self, cancelled: Cancelled = never) -> None:
        """Compute the nodes; see `Run`."""
        self._find_copies()
        run = self._library.ffi.new("struct run *", {"nodes": self._first, "count": len(self._packed)})
        self._compute(run, self._library.lib.TIME_IS_UP, cancelled)

    def in_c(self) -> tuple[int, int] | None:
        """Return how C runs this again; see `InC`."""
        packed, ffi = self._owner.packed, self._library.ffi
        if self._writes or (packed is not None and self._asked != packed.changes):
            return None
        if self._again is None:
            run = {"nodes": self._first, "count": len(self._packed)}
            self._again = ffi.new("struct again *", {"pool": self._pool, "run": run, "nanoseconds": SLICE, "known": self._asked})
            self._again.changes = ffi.NULL if packed is None else packed.counter
        function = ffi.cast("uintptr_t", ffi.addressof(self._library.lib, "run_again"))
        return int(function), int(ffi.cast("uintptr_t", self._again))

    def go_on(self, outcome: int, cancelled: Cancelled = never) -> None:
        """Go on from where C has come to; see `InC`."""
        self._compute(self._library.ffi.addressof(self._again, "run"), outcome, cancelled)

    def _compute(self, run: Any, outcome: int, cancelled: Cancelled) -> None:
        lib = self._library.lib
        try:
            while outcome != lib.DONE:
                if outcome != lib.TIME_IS_UP:
                    self._refuse(self._nodes()[run.node], outcome == lib.BAD_INDEX)
                if cancelled():
                    raise Stopped
                outcome = lib.run_some(self._pool, run, SLICE)
        finally:
            lib.run_end(self._pool, run)
            for written, start, stop in self._writes:
                written(start, stop)

    def _find_copies(self) -> None:
        """Point the nodes to their packed weights."""
        packed = self._owner.packed
        if packed is None:
            return
        for allocation in self._written:
            packed.written_by_graph(allocation)
        if self._asked == packed.changes:
            return
        before = packed.changes
        found = [packed.find(weight.allocation, weight.offset, weight.kind) for weight in self._weights]
        self._copies = [copy for copy, _ in found if copy is not None]
        for weight, (copy, _) in zip(self._weights, found, strict=True):
            self._packed["packed"][weight.node] = 0 if copy is None else copy.__array_interface__["data"][0]
        if not any(again for _, again in found):
            self._asked = before
            if self._again is not None:
                self._again.known = before

    def _refuse(self, node: Node, index: bool) -> None:
        """Raise the Violation for a node that a kernel gave up."""
        if not index:
            raise out_of_memory(node)
        # the oracle finds the same index, and says it in its words
        in_turn([(node, apart(node, node.op.oracle))])(never)
        raise AssertionError(f"{node.op.name} {node.dst.name!r}: its kernel refused an index that the oracle accepts")


class _Form(NamedTuple):
    """A stretch without its nodes; the addresses in `packed` are not used.

    Attributes:
        owner: what computes.
        packed: the nodes as `struct node`, in order.
        kinds: their kinds.
    """

    owner: Native
    packed: Array
    kinds: list[Geometry | None]

    @property
    def nbytes(self) -> int:
        """Bytes, those of the kinds apart, which forms share."""
        return self.packed.nbytes + 8 * len(self.kinds)

    def run(self, places: Places, changed: Mapping[int, Node], nodes: Callable[[], Sequence[Node]]) -> _Stretch | None:
        """Return the same stretch elsewhere; see `Form`."""
        told = any(isinstance(a, HostAllocation) and self.owner.listens(a.memory) for a in places.allocations)
        if told or not all(self.owner.supports(node) for node in changed.values()):
            return None  # each node's writes would have to be told, or the oracle computes a node
        bases = [0 if a.data is None else a.data.__array_interface__["data"][0] for a in places.allocations]
        if 0 in bases:
            return None  # not in host memory
        # the last entry, which -1 finds, is the address of no operand
        at = np.array([*bases, 0], np.uint64)[places.which] + places.offsets
        packed, kinds = self.packed.copy(), self.kinds.copy()
        packed["dst"], packed["src"] = at[:, 0], at[:, 1:]
        for index, node in changed.items():
            kind = kinds[index] = self.owner.geometries.of(node)
            assert kind is not None
            packed["of"][index] = kind.address
        packed["packed"] = 0
        results = [places.allocations[index] for index in np.unique(places.which[:, 0]).tolist()]
        written = [allocation for allocation in results if isinstance(allocation, HostAllocation)]
        return _Stretch(self.owner, packed, kinds, nodes, [], self._weights(places, kinds), written)

    def _weights(self, places: Places, kinds: list[Geometry | None]) -> list[Weight]:
        found = []
        for index in [index for index, kind in enumerate(kinds) if kind is not None and kind.packed]:
            allocation, kind = places.allocations[places.which[index, 1]], kinds[index]
            if isinstance(allocation, HostAllocation) and kind is not None:
                found.append(Weight(index, allocation, int(places.offsets[index, 1]), kind))
        return found


def _pack(nodes: Sequence[Node], kinds: Sequence[int]) -> Array:
    """Return the array of `struct node`."""
    packed = np.zeros(len(nodes), NODE)
    packed["of"] = kinds
    bases: dict[int, int] = {}

    def address(tensor: Tensor | None) -> int:
        if tensor is None:
            return 0
        storage: Any = tensor.storage
        if (base := bases.get(id(storage))) is None:
            base = bases[id(storage)] = storage.data.__array_interface__["data"][0]
        return base + tensor.offset

    empty = [0] * MAX_SRC
    for start in range(0, len(nodes), AT_ONCE):
        part, some = packed[start : start + AT_ONCE], nodes[start : start + AT_ONCE]
        part["dst"] = [address(node.dst) for node in some]
        part["src"] = [([address(source) for source in node.src] + empty)[:MAX_SRC] for node in some]
    return packed
