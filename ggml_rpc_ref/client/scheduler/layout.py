"""Where in a backend's compute buffer each tensor lies, so that memory is used again once nothing reads what is in it.

What ggml-alloc does for ggml_backend_sched. A tensor lives from the split or node that writes it to the last node that reads it, or
its copy's; outputs live to the end.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple


class Need(NamedTuple):
    """Memory that a tensor needs.

    Attributes:
        key: whose.
        size: bytes.
        begins: number of the node before which it must be there.
        ends: number of the last node that reads it.
    """

    key: int
    size: int
    begins: int
    ends: int


def lay_out(needs: list[Need], alignment: int) -> tuple[dict[int, int], int]:
    """Return an offset for each key, and the bytes that all of them take together.

    Args:
        needs: by `begins`.
        alignment: of each offset, in bytes.
    """
    free: list[tuple[int, int]] = []  # offset and size of gaps, by offset, no two of them adjacent
    ending: list[tuple[int, int, int]] = []  # end of life, offset, size
    offsets: dict[int, int] = {}
    top = highest = 0
    for key, wanted, begins, ends in needs:
        while ending and ending[0][0] < begins:
            _, offset, size = heapq.heappop(ending)
            top = _give_back(free, offset, size, top)
        size = -(-max(wanted, 1) // alignment) * alignment
        offset, top = _take(free, size, top) if free else (top, top + size)
        offsets[key] = offset
        if top > highest:
            highest = top
        heapq.heappush(ending, (ends, offset, size))
    return offsets, highest


def _take(free: list[tuple[int, int]], size: int, top: int) -> tuple[int, int]:
    """Return the offset of the smallest gap that is large enough, else of the end; and where the end is then."""
    fitting = [(gap, at) for at, (_, gap) in enumerate(free) if gap >= size]
    if not fitting:
        return top, top + size
    gap, at = min(fitting)
    offset = free[at][0]
    if gap == size:
        del free[at]
    else:
        free[at] = (offset + size, gap - size)
    return offset, top


def _give_back(free: list[tuple[int, int]], offset: int, size: int, top: int) -> int:
    """Make a gap, joined with its neighbours; return where the end is then."""
    at = 0
    while at < len(free) and free[at][0] < offset:
        at += 1
    if at < len(free) and free[at][0] == offset + size:
        size += free.pop(at)[1]
    if at > 0 and free[at - 1][0] + free[at - 1][1] == offset:
        offset, size = free[at - 1][0], free.pop(at - 1)[1] + size
        at -= 1
    if offset + size == top:
        return offset
    free.insert(at, (offset, size))
    return top
