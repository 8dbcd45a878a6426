"""A node computed on a device and on the oracle, byte for byte outside its result and within the op's tolerance inside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ggml_rpc_ref.backends import Step, never, written_tensors
from ggml_rpc_ref.backends.cuda.backend import Cuda
from ggml_rpc_ref.backends.cuda.memory import CudaAllocation
from ggml_rpc_ref.ops.compare import compare_tensors, element_bytes
from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.tensor import PlainStorage, Tensor


def moved(node: Node, backend: Cuda) -> Node:
    """Return the node with its tensors, and the guard bytes around them, in the device's memory."""
    placed: dict[int, CudaAllocation] = {}

    def move(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        assert isinstance(tensor.storage, PlainStorage)
        if (key := id(tensor.storage)) not in placed:
            allocation = backend.memory.allocate(len(tensor.storage.data))
            assert allocation is not None
            allocation.upload(0, tensor.storage.data.data)
            placed[key] = allocation
        return tensor.at(placed[key], tensor.offset, tensor.name)

    dst = move(node.dst)
    assert dst is not None
    return Node(dst, tuple(map(move, node.src)), node.op_params, node.op)


def contents(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return all bytes of the memory that a tensor lies in."""
    assert isinstance(tensor.storage, CudaAllocation)
    return np.frombuffer(tensor.storage.download(0, tensor.storage.size), np.uint8)


def free(node: Node) -> None:
    """Free the memory of a node that was moved."""
    for storage in {id(t.storage): t.storage for t in (node.dst, *node.src) if t is not None}.values():
        assert isinstance(storage, CudaAllocation)
        storage.free()


def kernels_of(backend: Cuda, node: Node) -> tuple[str, ...]:
    """Return the names of the kernels that compute a node; none where the oracle does."""
    there = moved(node, backend)
    try:
        kind = backend._kind(there) if backend.supports(there) else None
        return () if kind is None else tuple(call.kernel for call in kind.plan.calls)
    finally:
        free(there)


def judge(backend: Cuda, node: Node, tolerance: Tolerance | None = None) -> bool:
    """Compute a node where the backend has kernels for it; the node itself is computed by the oracle, for comparison.

    Raises:
        AssertionError: where the result is not the oracle's, or anything else was written.
    """
    there = moved(node, backend)
    try:
        if not backend.supports(there):
            return False
        backend.compile([Step(there, backend.name)])(never)
        after = {id(t): contents(t) for t in (there.dst, *there.src) if t is not None}
    finally:
        free(there)
    written = {id(t.storage) for t in written_tensors(node)}
    for here, copy in zip((node.dst, *node.src), (there.dst, *there.src), strict=True):
        if here is not None and copy is not None and id(here.storage) not in written:
            assert np.array_equal(after[id(copy)], _bytes(here)), "a source was changed"
    outside = ~element_bytes(node.dst)
    found = after[id(there.dst)]
    assert np.array_equal(found[outside], _bytes(node.dst)[outside]), "bytes between or around the elements were changed"
    with np.errstate(all="ignore"):
        node.op.oracle(node)
    mismatch = compare_tensors(node.dst, replace(node.dst, storage=PlainStorage(found)), tolerance or node.op.tolerance)
    assert mismatch is None, str(mismatch)
    return True


def _bytes(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    assert isinstance(tensor.storage, PlainStorage)
    return tensor.storage.data
