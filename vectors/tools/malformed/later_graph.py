"""Graphs of 8.0.0: the uids that they are stored under, and use_count."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from vectors.tools.malformed.case import Case, accepted
from vectors.tools.malformed.good_graph import ADD, LEFT, NUMBERS, SUMS, TOTAL
from vectors.tools.malformed.later_protocol import MOST_GRAPHS, graph, hello, opened, recompute, refused, write
from vectors.tools.malformed.protocol import COMPUTE, Request, f32, read, say, tensor

OTHER, DOUBLE = tensor(3072, [4], id=3), tensor(4096, [4], id=4, op=ADD, src=(3, 3), flags=COMPUTE)
"""A second graph, like the first."""
ZERO, NUMBERS_2, SUMS_2 = bytes(16), f32(5, 6, 7, 8), f32(10, 12, 14, 16)
START = [*opened(), write(LEFT, NUMBERS), write(TOTAL, ZERO), write(OTHER, NUMBERS_2), write(DOUBLE, ZERO)]


def cases() -> Iterator[Case]:
    """Yield every case of the section."""
    yield from use_count()
    yield from recompute_uid()
    yield from uid_zero()
    yield from uid_store()


def _first(uid: int) -> Request:
    return graph([2], [LEFT, TOTAL], uid)


def _second(uid: int) -> Request:
    return graph([4], [OTHER, DOUBLE], uid)


def use_count() -> Iterator[Case]:
    """Numbers of uses that are wrong."""
    for words, uses in {"0": 0, "2-31-less-1": 2**31 - 1, "minus-1": -1, "minus-2-31": -(2**31)}.items():
        tensors = [replace(record, padding=struct.pack("<i", uses)) for record in (LEFT, TOTAL)]
        yield accepted(
            f"graph.use-count/{words}",
            f"Tensors with a use_count of {uses}, which is not how often they are used. The graph is computed"
            " all the same: a server"
            " that frees or merges by this number gives wrong results.",
            "SEC-35",
            "over-strict silent-wrong-result",
            [*START, say(graph([2], tensors, 1)), *read(TOTAL, SUMS)],
        )


def recompute_uid() -> Iterator[Case]:
    """Which of two graphs is computed again."""
    clear = [write(TOTAL, ZERO), write(DOUBLE, ZERO)]
    yield accepted(
        "graph.recompute-uid/first-of-two",
        "Nothing is wrong: two graphs with uids 1 and 2, then GRAPH_RECOMPUTE of 1. A server that takes the"
        " latest computes the wrong"
        " one.",
        "FUN-03",
        "silent-wrong-result",
        [*START, say(_first(1)), say(_second(2)), *clear, say(recompute(1)), *read(TOTAL, SUMS), *read(DOUBLE, ZERO)],
    )
    yield accepted(
        "graph.recompute-uid/replaced",
        "Nothing is wrong: two graphs under the same uid, then GRAPH_RECOMPUTE of it, which means the second one.",
        "FUN-03",
        "silent-wrong-result",
        [*START, say(_first(9)), say(_second(9)), *clear, say(recompute(9)), *read(DOUBLE, SUMS_2), *read(TOTAL, ZERO)],
    )
    yield accepted(
        "graph.recompute-uid/2-64-less-1",
        "Nothing is wrong: a graph with the uid 2^64-1, then GRAPH_RECOMPUTE of it. A server that cuts uids to"
        " 32 bits, or has a use of"
        " its own for -1, finds nothing.",
        "FUN-03",
        "over-strict",
        [*START, say(_first(2**64 - 1)), *clear, say(recompute(2**64 - 1)), *read(TOTAL, SUMS)],
    )


def uid_zero() -> Iterator[Case]:
    """The uid that stands for none."""
    yield accepted(
        "graph.uid-zero/computed",
        "Nothing is wrong: a graph with the uid 0, which is computed and not stored.",
        "FUN-03",
        "over-strict",
        [*START, say(_first(0)), *read(TOTAL, SUMS)],
    )
    for words, before in {"not-stored": [], "among-others": [say(_second(5))]}.items():
        yield refused(
            f"graph.uid-zero/{words}",
            "A graph with the uid 0, then GRAPH_RECOMPUTE of uid 0. Such a graph is not stored, so there is none to compute.",
            "FUN-03 SEC-10",
            "null-pointer silent-wrong-result",
            [*START, *before, say(_first(0)), say(recompute(0))],
        )


def uid_store() -> Iterator[Case]:
    """As many graphs as are stored, and one more; all of them are graphs of no nodes."""
    for words, count in {"full": MOST_GRAPHS, "one-more": MOST_GRAPHS + 1}.items():
        fill = [*hello(), say(*[graph([], [], uid) for uid in range(1, count + 1)])]
        if words == "full":
            yield accepted(
                "graph.uid-store/full",
                "Nothing is wrong: 1,024 graphs, each with a uid of its own, then GRAPH_RECOMPUTE of the first one. A device of a"
                " connection stores so many.",
                "FUN-03",
                "over-strict",
                [*fill, say(recompute(1))],
            )
        else:
            yield refused(
                "graph.uid-store/one-more",
                "1,025 graphs, each with a uid of its own, then GRAPH_RECOMPUTE of the first one. All that"
                " were stored have been dropped"
                " before the last one came; a server that stores without end can be filled by anyone.",
                "FUN-03 SEC-10",
                "unbounded-allocation",
                [*fill, say(recompute(1))],
            )
