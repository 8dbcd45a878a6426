"""The backend `native`: nodes that have a kernel, packed into arrays that C runs in one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from types import MappingProxyType
from typing import Any

import numpy as np

from ggml_rpc_ref.backends import Cancelled, Run, Step, Stopped, apart, disturbed, in_turn, never, out_of_memory, written_tensors
from ggml_rpc_ref.backends.memory import HostAllocation, HostMemory
from ggml_rpc_ref.backends.native.geometry import Geometries
from ggml_rpc_ref.backends.native.library import Library, kernel_ops, library
from ggml_rpc_ref.backends.oracle import in_host_memory
from ggml_rpc_ref.ops.op import MAX_SRC, Node
from ggml_rpc_ref.tensor import Array, Tensor

NAME = "native"
SLICE = 20_000_000
"""Nanoseconds that C computes before Python looks whether the run is to stop."""
AT_ONCE = 4096
"""Nodes that are packed at a time: numpy makes an array of a list without letting another thread run."""
NODE = np.dtype([("of", "u8"), ("dst", "u8"), ("src", "u8", MAX_SRC)])
"""`struct node`."""


CHANGES: frozenset[str] = frozenset()
"""Ids in `spec.op_changes` that the kernels know; nodes of an op with another change are the oracle's."""


class Native:
    """Computes nodes with C kernels.

    Args:
        memory: where its buffers lie.
        copies: bytes of what it keeps of weights beside the buffers; it keeps nothing yet.
        threads: how many threads compute a large node together; 0: half the cores.
        variant: the instructions to use; "": the fastest that this processor has, or what the environment names.
    """

    name = NAME
    threaded = True
    KERNELS = MappingProxyType(dict.fromkeys(kernel_ops(), "C"))

    def __init__(self, memory: HostMemory, copies: int = 0, threads: int = 0, variant: str = "") -> None:
        self.memory, self._library = memory, library(variant)
        self.variant, self.threads = self._library.variant, threads or max(1, (os.cpu_count() or 2) // 2)
        self._pool = self._library.ffi.gc(self._library.lib.pool_new(self.threads), self._library.lib.pool_free)
        self._geometries = Geometries(self._library)

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
        return self._geometries.of(node) is not None

    def compile(self, steps: Sequence[Step]) -> Run:
        """Return a run in which each stretch of steps with kernels is one call."""
        runs = [self._stretch(list(group), own) for own, group in groupby(steps, lambda step: step.compute is None)]
        return runs[0] if len(runs) == 1 else partial(_one_after_the_other, runs)

    def _stretch(self, steps: list[Step], own: bool) -> Run:
        if own:
            return _Stretch(self._library, self._pool, self._geometries, [step.node for step in steps])
        return in_turn([(step.node, step.compute) for step in steps if step.compute is not None])


def _one_after_the_other(runs: Sequence[Run], cancelled: Cancelled = never) -> None:
    for run in runs:
        run(cancelled)


class _Stretch:
    """Nodes that C computes in one call.

    Args:
        library: the kernels.
        pool: the threads.
        geometries: the kinds of nodes.
        nodes: what to compute, in order.
    """

    def __init__(self, library: Library, pool: Any, geometries: Geometries, nodes: list[Node]) -> None:
        self._library, self._pool, self._nodes = library, pool, nodes
        self._kinds = [geometries.of(node) for node in nodes]  # keeps them alive
        self._packed = _pack(nodes, [kind.address for kind in self._kinds if kind is not None])
        self._first = library.ffi.cast("struct node *", library.ffi.from_buffer(self._packed))
        self._writes = list(_reports(nodes))

    def __call__(self, cancelled: Cancelled = never) -> None:
        """Compute the nodes; see `Run`."""
        ffi, lib = self._library.ffi, self._library.lib
        run = ffi.new("struct run *", {"nodes": self._first, "count": len(self._nodes)})
        try:
            while True:
                if cancelled():
                    raise Stopped
                outcome = lib.run_some(self._pool, run, SLICE)
                if outcome == lib.DONE:
                    return
                if outcome != lib.TIME_IS_UP:
                    self._refuse(self._nodes[run.node], outcome == lib.BAD_INDEX)
        finally:
            lib.run_end(self._pool, run)
            for written, start, stop in self._writes:
                written(start, stop)

    def _refuse(self, node: Node, index: bool) -> None:
        """Raise the Violation for a node that a kernel gave up."""
        if not index:
            raise out_of_memory(node)
        # the oracle finds the same index, and says it in its words
        in_turn([(node, apart(node, node.op.oracle))])(never)
        raise AssertionError(f"{node.op.name} {node.dst.name!r}: its kernel refused an index that the oracle accepts")


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


def _reports(nodes: Sequence[Node]) -> Iterator[tuple[Callable[[int, int], None], int, int]]:
    """Yield what to tell memory after the nodes: which bytes of it they have written, where anyone wants to know."""
    for node in nodes:
        for tensor in written_tensors(node):
            storage = tensor.storage
            if isinstance(storage, HostAllocation) and storage.memory is not None and storage.memory.changed is not None:
                yield storage.written, tensor.offset, tensor.offset + tensor.nbytes
