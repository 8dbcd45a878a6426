"""Graphs whose tensors lie where they must not: without a live buffer, or as views outside of what they show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from vectors.tools.malformed.case import CLOSES, Case, Seen, accepted, refused
from vectors.tools.malformed.good_graph import ADD, CONT, LEFT, SUMS, TOTAL, VIEW, start
from vectors.tools.malformed.protocol import (
    COMPUTE,
    Step,
    Tensor,
    address,
    buffer,
    f32,
    free,
    graph,
    handle,
    opened,
    read,
    say,
    tensor,
    write,
)

USED_NULL = Seen(("CRASH",), "accepts a tensor with neither buffer nor address; the kernel reads or writes through it")


def null_data() -> Iterator[Case]:
    """Tensors without a live buffer, with and without an address."""
    gone = [*start(), *buffer("buf1"), *free("buf1")]
    stale = replace(LEFT, buffer=handle("buf1"), data=address("buf1", 1024))
    whole = tensor(2048, [4], id=3, buffer=0)
    unused = tensor(3072, [4], id=3, buffer=0)
    graphs: dict[str, tuple[list[Tensor], list[Step], str, Seen]] = {
        "src-without-buffer": ([replace(LEFT, buffer=0), TOTAL], start(), "a source with an address and no buffer", CLOSES),
        "node-without-buffer": ([LEFT, replace(TOTAL, buffer=0)], start(), "a node with an address and no buffer", CLOSES),
        "view-src-without-buffer": (
            [LEFT, whole, replace(TOTAL, view_src=3)],
            start(),
            "a view_src with an address and no buffer",
            CLOSES,
        ),
        "unused-without-buffer": (
            [LEFT, TOTAL, unused],
            start(),
            "a record, which no node reaches, with an address and no buffer",
            Seen(("FAIL",), "looks at what a node reaches only, and computes"),
        ),
        "src-in-unknown-buffer": (
            [replace(LEFT, buffer=2**64 - 8), TOTAL], start(), "a source with an address and a handle that was never given", CLOSES,
        ),
        "node-in-unknown-buffer": (
            [LEFT, replace(TOTAL, buffer=2**64 - 8)], start(), "a node with an address and a handle that was never given", CLOSES,
        ),
        "src-in-freed-buffer": ([stale, TOTAL], gone, "a source in a buffer that has been freed", CLOSES),
    }  # fmt: skip
    for words, (records, before, what, seen) in graphs.items():
        yield refused(
            f"graph.null-data/{words}",
            f"A graph with {what}. A server that checks bounds only for tensors with a buffer does not check this one, and its"
            " kernels read or write at whatever address the client names.",
            "SEC-04",
            "out-of-bounds-write out-of-bounds-read" + " stale-handle" * ("freed" in words),
            [*before, say(graph([2], records))],
            seen,
        )
    nowhere: dict[str, Any] = {"buffer": 0, "data": 0}
    for words, records in {
        "nowhere-read": [replace(LEFT, **nowhere), TOTAL],
        "nowhere-written": [LEFT, replace(TOTAL, **nowhere)],
    }.items():
        yield refused(
            f"graph.null-data/{words}",
            "A graph that computes with a tensor that has neither buffer nor address, which is how clients send tensors of"
            " other servers: the kernel would dereference a null pointer.",
            "FUN-01 SEC-04",
            "null-pointer",
            [*start(), say(graph([2], records))],
            USED_NULL,
        )
    yield from _nowhere()


def _nowhere() -> Iterator[Case]:
    nowhere = tensor(0, [4], id=3, buffer=0, data=0)
    idle = tensor(3072, [4], id=4, op=ADD, src=(3, 3))
    good: dict[str, tuple[list[int], list[Tensor], str]] = {
        "nowhere-unused": ([2], [LEFT, TOTAL, nowhere], "a tensor that has neither buffer nor address, which no node uses"),
        "nowhere-without-elements": (
            [2],
            [LEFT, TOTAL, replace(nowhere, ne=(0, 1, 1, 1))],
            "a tensor that has neither buffer nor address nor elements",
        ),
        "nowhere-not-computed": (
            [4, 2],
            [LEFT, TOTAL, nowhere, idle],
            "a tensor that has neither buffer nor address, which only a node without COMPUTE uses",
        ),
        "nowhere-viewed": (
            [2],
            [LEFT, TOTAL, nowhere, replace(nowhere, id=4, op=VIEW, src=(3,), view_src=3)],
            "a tensor that has neither buffer nor address, and a view of it, which no node uses",
        ),
    }
    for words, (listed, records, what) in good.items():
        yield accepted(
            f"graph.null-data/{words}",
            f"Nothing is wrong: a graph with {what}. Clients send tensors of other servers in this form; refusing them breaks"
            " models that are split over servers.",
            "FUN-01",
            "over-strict",
            [*start(), say(graph(listed, records)), *read(TOTAL, SUMS)],
        )


# ------------------------------------------------------------------------------------------------------------ views

UNCHECKED = Seen(("FAIL",), "takes view_src and view_offs as they come, and computes")
WHOLE = tensor(1024, [8], id=1)
"""Eight numbers, of which views show the last four; there is room of the client's own around."""


def _view(at: int, view_offs: int, **fields: Any) -> Tensor:
    return replace(tensor(at, [4], id=2, op=VIEW, src=(1,), view_src=1, view_offs=view_offs), **fields)


def views() -> Iterator[Case]:
    """Views that do not lie inside what they are views of."""
    elsewhere = _view(1040, 16, buffer=handle("buf1"), data=address("buf1", 1040))
    bad: dict[str, tuple[Tensor, str]] = {
        "one-element-past-end": (_view(1044, 20), "ends 4 bytes after them"),
        "whole-past-end": (_view(1088, 64), "begins 32 bytes after their end"),
        "data-not-at-offset": (_view(1036, 16), "lies 4 bytes before the place that view_offs says"),
        "offset-not-at-data": (_view(1040, 20), "has a view_offs that is 4 bytes past where it lies"),
        "offset-2-64-less-4": (_view(1020, 2**64 - 4), "has a view_offs of 2^64-4, that is, lies 4 bytes before them"),
        "longer": (_view(1024, 0, ne=(9, 1, 1, 1), nb=(4, 36, 36, 36)), "has nine elements"),
        "stride-leaves": (_view(1040, 16, ne=(2, 2, 1, 1), nb=(4, 60, 120, 120)), "has a second row that lies after their end"),
        "other-buffer": (elsewhere, "lies in another buffer"),
    }
    for words, (view, what) in bad.items():
        count = view.ne[0] * view.ne[1]
        copy = tensor(4096, [count], id=3, op=CONT, src=(2,), flags=COMPUTE)
        more = buffer("buf1") if words == "other-buffer" else []
        yield refused(
            f"graph.view/{words}",
            f"A view of eight floats that {what}. A server that checks one of the two positions and uses the other reads or"
            " writes out of bounds.",
            "OBS-9",
            "out-of-bounds-read out-of-bounds-write" + " integer-wrap" * ("2-64" in words),
            [*opened(), write(WHOLE, f32(*range(8))), *more, say(graph([2, 3], [WHOLE, view, copy]))],
            UNCHECKED,
        )
    outside = tensor(1040, [4], id=2, op=ADD, src=(1, 1), view_src=1, view_offs=16, flags=COMPUTE)
    yield refused(
        "graph.view/result-behind-its-view-src",
        "An ADD in place whose result, a view of its source, begins where the source ends.",
        "OBS-9",
        "out-of-bounds-write",
        [*start(), say(graph([2], [LEFT, outside]))],
        UNCHECKED,
    )
