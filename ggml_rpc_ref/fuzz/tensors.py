"""Tensors of sessions, with made-up handles and addresses."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ggml_rpc_ref.fuzz.packet import address, handle
from ggml_rpc_ref.spec.dtypes import BY_NAME, DType
from ggml_rpc_ref.spec.messages import RpcTensor

I8: Final = BY_NAME["I8"].number
F32: Final = BY_NAME["F32"].number


def block(buffer: int, offset: int, size: int) -> RpcTensor:
    """Return a tensor of plain bytes in a buffer."""
    return RpcTensor(
        id=1, type=I8, buffer=handle(buffer), ne=(size, 1, 1, 1), nb=(1, size, size, size), data=address(buffer, offset)
    )


def row_of(dtype: DType, blocks: int, buffer: int, offset: int) -> RpcTensor:
    """Return a tensor of one row of blocks (of elements, where a block is one) in a buffer."""
    size = blocks * dtype.size
    return RpcTensor(
        id=1, type=dtype.number, buffer=handle(buffer), ne=(blocks * dtype.block, 1, 1, 1), nb=(dtype.size, size, size, size),
        data=address(buffer, offset),
    )  # fmt: skip


ZEROS: Final = RpcTensor(ne=(0, 0, 0, 0))
"""An absent source."""


def tensor_of(record: Any) -> RpcTensor:
    """Return a record of a graph as a message's tensor."""
    values: dict[str, Any] = {}
    for name in record.dtype.names:
        value = record[name]
        values[name] = (
            value.tobytes()
            if isinstance(value, np.void)
            else tuple(value.tolist())
            if isinstance(value, np.ndarray)
            else int(value)
        )
    return RpcTensor(**values)
