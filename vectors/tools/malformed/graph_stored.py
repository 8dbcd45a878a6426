"""GRAPH_RECOMPUTE: which graph is stored, and what freeing its buffers does to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from vectors.tools.malformed.case import Case, Seen, accepted, refused
from vectors.tools.malformed.good_graph import ADD, LEFT, NUMBERS, SUMS, TOTAL, start
from vectors.tools.malformed.protocol import (
    COMPUTE,
    buffer,
    end,
    f32,
    free,
    graph,
    hello,
    opened,
    read,
    recompute,
    say,
    tensor,
    write,
)

OTHER, DOUBLE = tensor(3072, [4], id=3), tensor(4096, [4], id=4, op=ADD, src=(3, 3), flags=COMPUTE)
"""A second graph, like the first."""


def cases() -> Iterator[Case]:
    """Yield every case of a graph that is computed again."""
    yield from again()
    yield from stored()
    yield from freed()


def again() -> Iterator[Case]:
    """GRAPH_RECOMPUTE that computes again, and what."""
    zero, first, second = bytes(16), graph([2], [LEFT, TOTAL]), graph([4], [OTHER, DOUBLE])
    yield accepted(
        "graph.recompute/last-of-two",
        "Nothing is wrong: one graph, another one, then GRAPH_RECOMPUTE, which computes the last one. A server that keeps"
        " another one gives one context the results of a different one.",
        "FUN-03",
        "silent-wrong-result",
        [
            *start(), write(OTHER, f32(5, 6, 7, 8)), say(first), say(second), write(TOTAL, zero), write(DOUBLE, zero),
            say(recompute()), *read(DOUBLE, f32(10, 12, 14, 16)), *read(TOTAL, zero),
        ],
    )  # fmt: skip
    yield accepted(
        "graph.recompute/new-data",
        "Nothing is wrong: a graph, other data, then GRAPH_RECOMPUTE, which computes with the data as they are now.",
        "FUN-03",
        "silent-wrong-result",
        [*start(), say(first), write(LEFT, f32(5, 6, 7, 8)), say(recompute()), *read(TOTAL, f32(10, 12, 14, 16))],
    )
    yield accepted(
        "graph.recompute/other-buffer-freed",
        "Nothing is wrong: a graph is computed, then a buffer that it does not use is freed. GRAPH_RECOMPUTE still computes it.",
        "SEC-10",
        "over-strict",
        [*start(), *buffer("buf1"), say(first), *free("buf1"), write(TOTAL, zero), say(recompute()), *read(TOTAL, SUMS)],
    )


def stored() -> Iterator[Case]:
    """GRAPH_RECOMPUTE where there is nothing to compute."""
    yield refused(
        "graph.recompute-stored/none",
        "GRAPH_RECOMPUTE on a connection that has computed nothing: no graph is stored.",
        "SEC-10",
        "null-pointer",
        [*hello(), say(recompute())],
    )
    yield refused(
        "graph.recompute-stored/of-an-earlier-connection",
        "GRAPH_RECOMPUTE after a connection that had computed a graph has ended: that graph, and its buffers, are gone.",
        "SEC-10 FUN-03",
        "stale-handle",
        [*start(), say(graph([2], [LEFT, TOTAL])), end(), *hello(2), say(recompute(), on=2)],
    )


LARGE: Final = 40 * 2**20
"""Bytes: more than an allocator keeps for later (glibc maps what is over 32 MiB), so that touching it once freed shows."""


def freed() -> Iterator[Case]:
    """GRAPH_RECOMPUTE after a buffer of the stored graph has been freed."""
    begun = [*opened(LARGE), write(LEFT, NUMBERS), say(graph([2], [LEFT, TOTAL])), *read(TOTAL, SUMS)]
    left, total = tensor(1024, [4], in_="buf1", id=1), TOTAL
    apart = [*opened(), *buffer("buf1", LARGE), write(left, NUMBERS), say(graph([2], [left, total])), *read(total, SUMS)]
    seen = Seen(("CRASH",), "keeps the graph and computes in memory that was given back: the process ends by SIGSEGV")
    reused = Seen(
        ("FAIL", "CRASH"), "keeps the graph and computes in memory that was given back, and that the new buffer may have got"
    )
    ways = {
        "only-buffer": ([*begun, *free("buf0")], "its buffer is freed"),
        "buffer-of-a-source": ([*apart, *free("buf1")], "the buffer of its source is freed"),
        "allocated-again": (
            [*begun, *free("buf0"), *buffer("buf2", LARGE)],
            "its buffer is freed and another one of the same size allocated",
        ),
    }
    for words, (steps, what) in ways.items():
        yield refused(
            f"graph.recompute-freed/{words}",
            f"A graph is computed, {what}, then GRAPH_RECOMPUTE is sent: a server that computes it reads and writes freed"
            " memory, or memory that has been allocated again.",
            "SEC-10",
            "stale-handle out-of-bounds-write",
            [*steps, say(recompute())],
            reused if words == "allocated-again" else seen,
        )
