"""What computing a node costs beyond its operands: the plan refuses what costs too much before anything is computed (graph.cost).

Both numbers follow from geometry alone. They are estimates from above for this package's own definitions; tests measure them. What
a backend's kernels need beside the operands is the backend's to say, and bounded by the same grant.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ggml_rpc_ref.tensor import Tensor

GRANT = 2**30
"""Bytes that computing a node may need at one time beyond its operands as float32."""
CALL = 2**13
"""Steps that one round of a loop in Python counts as, a few numpy calls."""
PRODUCTS = 8
"""Products of a matrix multiplication that count as one step."""
QUANTISED = 200
"""Steps to quantise an element: 20 to 210 ns, by the type."""
SEARCHED = {"Q2_K": 700, "Q3_K": 700, "Q4_K": 700, "Q5_K": 700, "Q6_K": 700, "IQ4_XS": 700}
"""The same for types whose scales are searched for among many: 330 to 720 ns."""


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


def granted(node: Operands) -> int:
    """Return the bytes that computing a node may need at one time beside its operands: as much as they are as F32, and 1 GiB.

    The server refuses a node that needs more here (graph.cost); a backend leaves one to the oracle that needs more there.
    """
    return sum(4 * tensor.nelements for tensor in (node.dst, *node.src) if tensor is not None) + GRANT


def by_element(node: Operands) -> Cost:
    """Return the cost of an op that looks at each element once, and needs nothing but slabs."""
    return Cost(0, elements(node))


def by_row(node: Operands) -> Cost:
    """Return the cost of an op that computes whole rows, of which one may be longer than a slab."""
    return Cost(24 * max(t.ne[0] for t in (node.dst, *node.src) if t is not None), elements(node))


def elements(node: Operands) -> int:
    """Return the steps of an op that looks at each element of its operands once: one for each, more if the result is quantised."""
    dst = node.dst
    quantising = dst.nelements * SEARCHED.get(dst.dtype.name, QUANTISED) if dst.dtype.is_quantised else 0
    return quantising + sum(tensor.nelements for tensor in (dst, *node.src) if tensor is not None)
