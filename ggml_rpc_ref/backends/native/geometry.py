"""Kinds of nodes: op, parameters, types and layouts, which nodes of one graph and of the next have in common.

A kernel plans a kind once: whether it computes it, how the work is divided, how much scratch memory it needs. A graph of
thousands of nodes has few kinds, and the next graph mostly has the same ones.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from ggml_rpc_ref.backends.native.library import Library
from ggml_rpc_ref.ops.cost import granted
from ggml_rpc_ref.ops.op import MAX_SRC, Node
from ggml_rpc_ref.spec.op_changes import OP_CHANGES
from ggml_rpc_ref.spec.opcodes import GGML_OP
from ggml_rpc_ref.tensor import Tensor

MOST_KINDS = 4096
"""Kinds that are remembered; a plan keeps those that it needs."""
MISSING: Any = object()

Key = tuple[Any, ...]


class Geometry(NamedTuple):
    """A kind of node that a kernel computes.

    Attributes:
        struct: cffi's `struct geometry *`, which owns the memory.
        address: where that lies.
        packed: bytes of its weights once they are packed (`packed.py`); 0: they can't be.
    """

    struct: Any
    address: int
    packed: int


class Geometries:
    """The kinds of nodes met so far.

    Args:
        library: the kernels.
        threads: how many compute a node together.
    """

    def __init__(self, library: Library, threads: int) -> None:
        self._library, self._threads = library, threads
        self._known: dict[Key, Geometry | None] = {}

    def of(self, node: Node) -> Geometry | None:
        """Return a node's kind; None where no kernel computes it."""
        key = (node.op.name, node.op.changes, node.op_params, *[t and (t.dtype.number, t.ne, t.nb) for t in (node.dst, *node.src)])
        found: Geometry | None = self._known.get(key, MISSING)
        if found is MISSING:
            if len(self._known) >= MOST_KINDS:
                self._known.clear()
            found = self._known[key] = self._plan(node)
        return found

    def _plan(self, node: Node) -> Geometry | None:
        ffi, lib = self._library.ffi, self._library.lib
        struct = described(ffi, node)
        if struct is None:
            return None
        if not lib.plan_geometry(struct):
            return None
        if _scratch(struct, self._threads) > granted(node):
            return None
        return Geometry(struct, int(ffi.cast("uintptr_t", struct)), int(lib.bytes_packed(struct)))


def described(ffi: Any, node: Node) -> Any | None:
    """Return a node's `struct geometry *`, not planned; None where it has no place for the node's strides."""
    sources = [*node.src, *[None] * (MAX_SRC - len(node.src))]
    values = {
        "op": op_numbers()[node.op.name],
        "n_src": len(node.src),
        "changes": sum(1 << change_numbers()[change] for change in node.op.changes),
        "dst": _layout(node.dst),
        "src": [_layout(t) for t in sources],
    }
    try:
        struct = ffi.new("struct geometry *", values)
    except OverflowError:  # strides of 2^63 and more, along dimensions of length 1
        return None
    ffi.memmove(struct.op_params, node.op_params, len(node.op_params))
    return struct


def _scratch(struct: Any, threads: int) -> int:
    """Return the bytes that a node needs beside its operands, as `scratch_of` (runtime.c): of some kernels a product of lengths."""
    return _aligned(struct.shared) + threads * _aligned(struct.own)


def _aligned(size: int) -> int:
    return -(-size // 64) * 64


def _layout(tensor: Tensor | None) -> dict[str, Any]:
    return {"type": -1} if tensor is None else {"ne": tensor.ne, "nb": tensor.nb, "type": tensor.dtype.number}


@cache
def op_numbers() -> dict[str, int]:
    """Return name to number, as `declared.h` has them."""
    return {row.name: number for number, row in enumerate(GGML_OP)}


@cache
def change_numbers() -> dict[str, int]:
    """Return id to number, as `declared.h` has them."""
    return {change: number for number, change in enumerate(OP_CHANGES)}
