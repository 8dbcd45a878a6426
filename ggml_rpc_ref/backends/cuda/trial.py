"""Products by warpgroups, tried on a device when it is opened: the kernel that most depends on what only the hardware can show.

The matrices are of small integers, whose sums float32 holds: in any order they are the same, so numpy's product is the one right
answer. Opening is the time for it because nobody has memory there yet: an instruction that the device refuses ends its context.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from ggml_rpc_ref.backends import DeviceFault
from ggml_rpc_ref.backends.cuda.memory import CudaAllocation, CudaMemory
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops import ops_of
from ggml_rpc_ref.ops.op import OP_PARAMS_BYTES, Node
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.versions import NEWEST
from ggml_rpc_ref.tensor import Array, Tensor, contiguous_nb

LENGTH: Final = 200
"""Elements of a row: three boxes and a part of one."""
COLUMNS: Final = 200
"""Rows of src1: a tile and a part of one."""
DTYPES: Final = ("F16", "BF16")


class Product(NamedTuple):
    """Two matrices on a device.

    Attributes:
        node: MUL_MAT.
        right: its result.
        allocations: what it lies in, the result first.
    """

    node: Node
    right: Array
    allocations: list[CudaAllocation]


def what_is_wrong(memory: CudaMemory, processors: int, compute: Callable[[Node], None]) -> str:
    """Return in a few words what is wrong with products by warpgroups; nothing where they are right.

    Args:
        memory: of a device that has them.
        processors: its multiprocessors; the larger product has tiles for all of them, of which some compute two.
        compute: computes a node there.
    """
    try:
        for dtype in DTYPES:
            for rows in (LENGTH, 256 * (processors // 2) + 264):
                if (wrong := _wrong_numbers(compute, _product(memory, dtype, rows))) is not None:
                    return f"{wrong} of {rows * COLUMNS} results of {dtype} weights are wrong"
    except (DeviceFault, MemoryError, Violation) as error:  # the last: no room for scratch memory
        return str(error)
    return ""


def _product(memory: CudaMemory, dtype: str, rows: int) -> Product:
    rng = np.random.default_rng(rows)
    w, x = (rng.integers(-4, 5, (n, LENGTH)).astype(np.float32) for n in (rows, COLUMNS))
    packed = w.astype("<f2") if dtype == "F16" else (w.view("<u4") >> 16).astype("<u2")  # BF16: the upper half of a float32
    right = x @ w.T
    placed = list[CudaAllocation]()
    try:
        for data in (np.full_like(right, np.nan), packed, x):
            placed.append(_place(memory, data))
    except BaseException:
        for allocation in placed:
            allocation.free()
        raise
    kinds = (("F32", (rows, COLUMNS, 1, 1)), (dtype, (LENGTH, rows, 1, 1)), ("F32", (LENGTH, COLUMNS, 1, 1)))
    dst, *src = (
        Tensor(BY_NAME[kind], ne, contiguous_nb(BY_NAME[kind], ne), storage)
        for (kind, ne), storage in zip(kinds, placed, strict=True)
    )
    return Product(Node(dst, tuple(src), bytes(OP_PARAMS_BYTES), ops_of(NEWEST)["MUL_MAT"]), right, placed)


def _place(memory: CudaMemory, data: Array) -> CudaAllocation:
    allocation = memory.allocate(data.nbytes)
    if allocation is None:
        raise MemoryError("there is no room to try them")
    allocation.upload(0, memoryview(data.tobytes()))
    return allocation


def _wrong_numbers(compute: Callable[[Node], None], product: Product) -> int | None:
    """Compute a product and free it; return how many results are wrong, None where none is."""
    try:
        compute(product.node)
        result = product.allocations[0]
        found = np.frombuffer(result.download(0, result.size), "<f4").reshape(product.right.shape)
    finally:
        for allocation in product.allocations:
            allocation.free()
    return int(np.count_nonzero(found != product.right)) or None
