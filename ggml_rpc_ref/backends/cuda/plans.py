"""How a node is computed, in kernels and threads; and what planners of several files share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ggml_rpc_ref.backends.cuda.device import TensorMap
from ggml_rpc_ref.ops.op import Node

THREADS: Final = 256
"""Threads of a block, unless a kernel wants others."""
WARP: Final = 32
"""Threads that a GPU runs in step."""
MOST_BLOCKS: Final = 2**16
"""Blocks of a launch whose threads take several results each where there are more."""
TENSOR_CORES: Final = 80
"""The least compute capability whose tensor cores take BF16, and that copies into shared memory on the side."""
HOPPER: Final = 90
"""The one compute capability that has wgmma: a later one has other instructions in its place."""


@dataclass(frozen=True, slots=True)
class Call:
    """One kernel of a node.

    Attributes:
        kernel: its name.
        grid: blocks along x, y and z.
        block: threads of a block.
        shared: bytes of dynamic shared memory.
        more: `more` of its argument.
        maps: tensor maps of its argument, each with the slot of the source that it is of; None: of the scratch memory.
    """

    kernel: str
    grid: tuple[int, int, int]
    block: int = THREADS
    shared: int = 0
    more: tuple[int, ...] = ()
    maps: tuple[tuple[int | None, TensorMap], ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """How a node is computed.

    Attributes:
        calls: its kernels, in order; none for a node that has nothing to compute.
        scratch: bytes of scratch memory that they need.
    """

    calls: tuple[Call, ...]
    scratch: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a GPU is able to do, as far as the choice of kernels depends on it.

    Attributes:
        capability: compute capability times ten.
        processors: multiprocessors.
        wgmma: whether products by warpgroups, where the capability has them, may be used.
    """

    capability: int
    processors: int
    wgmma: bool = True


Planner = Callable[[Node, Limits], Plan | None]
"""Returns the kernels for a node; None where there is none for its types or layout."""


def blocks(count: int, threads: int = THREADS) -> tuple[int, int, int]:
    """Return a grid with a thread for each of so many results."""
    return (min(-(-count // threads), MOST_BLOCKS), 1, 1)


def in_turn(count: int) -> tuple[int, int, int]:
    """Return a grid with a block for each of so many rows; each block computes several where there are more than a launch has."""
    return (min(count, MOST_BLOCKS), 1, 1)


def each(kernel: str, count: int, more: tuple[int, ...] = ()) -> Plan:
    """Return the plan of a kernel with a thread for each result."""
    return Plan((Call(kernel, blocks(count), more=more),) if count else ())


def rows(kernel: str, node: Node, shared: int = 0) -> Plan:
    """Return the plan of a kernel with a block for each row of the result."""
    count = node.dst.nrows if node.dst.nelements else 0
    threads = min(THREADS, -(-max(t.ne[0] for t in (node.dst, node.source(0))) // WARP) * WARP)
    return Plan((Call(kernel, in_turn(count), threads, shared),) if count else ())


MOST_ALONE: Final = 2**24
"""Elementary steps (`Op.cost`) that a thread computes for its results: a launch can't be stopped, and one thread alone is slow."""


def is_long(node: Node, threads: int) -> bool:
    """Whether each of so many threads would compute for long."""
    return node.op.cost(node).steps > max(1, threads) * MOST_ALONE


def each_of(node: Node, count: int) -> Plan | None:
    """Return the plan of a kernel with a thread for each of so many results; None where each of them takes long."""
    return None if is_long(node, count) else each(node.op.name.lower(), count)
