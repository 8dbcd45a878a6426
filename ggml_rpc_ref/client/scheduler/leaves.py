"""What a scheduled graph's leaves are: data of the caller that go to whoever needs them, or memory on one backend.

A leaf is a tensor without a device of its own. Its `buffer` is one of these two, so that a graph stays as it is when a tensor
moves to another backend.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ggml_rpc_ref.client.devices import Device
from ggml_rpc_ref.client.tensors import RemoteTensor
from ggml_rpc_ref.tensor import Array

Source = Callable[[], Array]
"""Returns a tensor's bytes, uint8, as often as it is asked: from an array that is kept, or from a file."""


@dataclass(slots=True)
class Input:
    """Bytes of the caller, sent to each backend that computes with them; ggml's flag INPUT.

    Attributes:
        data: uint8; None until something is written.
    """

    data: Array | None = None
    remote_ptr: int = 0
    base: int = 0


@dataclass(slots=True)
class Placed:
    """Memory on one backend.

    Attributes:
        tensor: the tensor there.
        weights: whether nodes go where it lies (GGML_BACKEND_BUFFER_USAGE_WEIGHTS).
        source: what it is filled from again on another backend; None: nothing has its bytes.
        state: whether it begins as zeros and is what graphs make of it, a KV cache for instance.
    """

    tensor: RemoteTensor
    weights: bool = False
    source: Source | None = None
    state: bool = False
    remote_ptr: int = 0
    base: int = 0

    @property
    def backend(self) -> Device:
        """Where it lies."""
        device = self.tensor.device
        assert isinstance(device, Device)
        return device


def kept(data: Array) -> Source:
    """Return a source that gives an array's bytes; the array is kept, not copied."""
    flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return lambda: flat
