"""How to be fast: each backend turns a checked node into something to call. Optional, replaceable, never imported by ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ggml_rpc_ref.ops.op import Node


class Backend(Protocol):
    """Something that can compute nodes."""

    name: str

    def compile(self, node: Node) -> Callable[[], None]:
        """Return what computes the node each time it is called, on the bytes that its sources hold then."""
