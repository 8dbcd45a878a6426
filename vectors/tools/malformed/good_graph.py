"""The good graph that most cases of the section "graph" are made from by one change, and what stands before it."""

from __future__ import annotations

from typing import Final

from vectors.tools.malformed.protocol import (
    COMPUTE,
    Step,
    f32,
    opened,
    tensor,
    write,
)

ADD, CONT, VIEW, MAP_CUSTOM1 = 2, 35, 37, 87
"""Numbers of ops at 3.6.1."""

LEFT = tensor(1024, [4], id=1)
TOTAL = tensor(2048, [4], id=2, op=ADD, src=(1, 1), flags=COMPUTE)
"""A graph that is good as it stands: four numbers, and what twice of them is."""
NUMBERS, SUMS = f32(1, 2, 3, 4), f32(2, 4, 6, 8)
MISSING: Final = 0xDEAD
"""An id that no tensor has."""


def start() -> list[Step]:
    """Return what stands before a graph of LEFT and TOTAL; 0xee where the result will be."""
    return [*opened(), write(LEFT, NUMBERS), write(TOTAL, b"\xee" * 16)]
