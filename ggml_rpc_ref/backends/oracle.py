"""The oracle as a backend: ops/* as they stand. Always there, always right, not fast."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ggml_rpc_ref.ops.op import Node


class Oracle:
    """Computes every node with its op's numpy definition."""

    name = "oracle"

    def compile(self, node: Node) -> Callable[[], None]:
        """Return the op's oracle, bound to the node."""
        return partial(node.op.oracle, node)
