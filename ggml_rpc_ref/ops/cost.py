"""What computing a node costs beyond its operands: the plan refuses what costs too much before anything is computed (graph.cost).

Both numbers follow from geometry alone. They are estimates from above for this package's own definitions; tests measure them.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ggml_rpc_ref.tensor import Tensor

CALL = 2**13
"""Steps that one round of a loop in Python counts as, a few numpy calls."""
PRODUCTS = 8
"""Products of a matrix multiplication that count as one step."""


class Operands(Protocol):
    """What the general estimates look at of a node."""

    @property
    def dst(self) -> Tensor:
        """The result."""

    @property
    def src(self) -> tuple[Tensor | None, ...]:
        """The sources by slot."""


class Cost(NamedTuple):
    """What a node costs.

    Attributes:
        temporaries: bytes that are needed at one time beside the operands and slabs of them.
        steps: elementary steps, of about a nanosecond each on one core.
    """

    temporaries: int
    steps: int


def by_element(node: Operands) -> Cost:
    """Return the cost of an op that looks at each element once, and needs nothing but slabs."""
    return Cost(0, elements(node))


def by_row(node: Operands) -> Cost:
    """Return the cost of an op that computes whole rows, of which one may be longer than a slab."""
    return Cost(24 * max(t.ne[0] for t in (node.dst, *node.src) if t is not None), elements(node))


def elements(node: Operands) -> int:
    """Return the elements of all operands together."""
    return sum(tensor.nelements for tensor in (node.dst, *node.src) if tensor is not None)
