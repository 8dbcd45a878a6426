"""Graphs: counts, ids, links, ops and flags.

Where tensors lie: `graph_placement`; graphs that are computed again: `graph_stored`; nodes that no op can mean: `graph_nodes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vectors.tools.malformed import graph_placement, graph_stored
from vectors.tools.malformed.case import CLOSES, Case, Seen, accepted, refused
from vectors.tools.malformed.good_graph import ADD, LEFT, MAP_CUSTOM1, MISSING, SUMS, TOTAL, VIEW, start
from vectors.tools.malformed.protocol import (
    COMPUTE,
    Piece,
    Request,
    Tensor,
    graph,
    read,
    say,
    tensor,
    u32,
    u64,
)


def cases() -> Iterator[Case]:
    """Yield every case but those of `graph_nodes`."""
    yield from size_exact()
    yield from ids()
    yield from nodes()
    yield from sources()
    yield from acyclic()
    yield from deep()
    yield from graph_placement.null_data()
    yield from ops()
    yield from graph_placement.views()
    yield from flags_and_empty()
    yield from graph_stored.cases()


# ------------------------------------------------------------------------------------------------------------ counts

IGNORES = Seen(("FAIL",), "demands only that the message is not shorter than its counts, and computes")


def size_exact() -> Iterator[Case]:
    """Counts that do not fill the message."""
    records = [*LEFT.pieces, *TOTAL.pieces]
    short = Seen(("PASS",), "sees that the message is shorter than its counts and closes the connection")
    messages: dict[str, tuple[list[Piece], str, Seen]] = {
        "trailing-byte": ([u32(0, 1), u64(2), u32(2), *records, b"\0"], "one byte after the last tensor", IGNORES),
        "trailing-tensor": ([u32(0, 1), u64(2), u32(2), *records, bytes(296)], "one tensor more than n_tensors says", IGNORES),
        "last-byte-missing": (
            [u32(0, 1), u64(2), u32(2), *records[:-1], bytes(67)],
            "a last tensor record of 295 bytes instead of 296",
            short,
        ),
        "last-tensor-missing": ([u32(0, 1), u64(2), u32(2), *LEFT.pieces], "one tensor fewer than n_tensors says", short),
        "one-tensor-less": ([u32(0, 1), u64(2), u32(1), *records], "an n_tensors that is one too small", IGNORES_NODE),
        "one-tensor-more": ([u32(0, 1), u64(2), u32(3), *records], "an n_tensors that is one too large", short),
        "one-node-more": ([u32(0, 2), u64(2), u32(2), *records], "an n_nodes that is one too large", short),
        "nodes-2-32-less-1": ([u32(0, 2**32 - 1), u64(2), u32(2), *records], "an n_nodes of 2^32-1", short),
        "nodes-2-31": (
            [u32(0, 2**31), u64(2), u32(2), *records],
            "an n_nodes of 2^31: the size of that many ids is 0 in 32-bit arithmetic",
            short,
        ),
        "nodes-2-29": (
            [u32(0, 2**29), u64(2), u32(2), *records],
            "an n_nodes of 2^29: the size of that many ids is 0 in 32-bit arithmetic",
            short,
        ),
        "tensors-2-32-less-1": ([u32(0, 1), u64(2), u32(2**32 - 1), *records], "an n_tensors of 2^32-1", short),
        "tensors-2-29": (
            [u32(0, 1), u64(2), u32(2**29), *records],
            "an n_tensors of 2^29: the size of that many records is 0 in 32-bit arithmetic",
            short,
        ),
    }
    for words, (payload, what, seen) in messages.items():
        yield refused(
            f"graph.size-exact/{words}",
            f"GRAPH_COMPUTE with {what}: the counts and the length of the message contradict each other. A server that believes"
            " the counts reads past the message.",
            "OBS-7 SEC-23" if "-2-" in words else "OBS-7",
            "silent-desync" if seen is IGNORES else "out-of-bounds-read",
            [*start(), say(Request("GRAPH_COMPUTE", payload))],
            seen,
        )


IGNORES_NODE = Seen(("PASS",), "finds no tensor of the node's id among those counted and closes the connection")

# ------------------------------------------------------------------------------------------------------------ ids, links


def ids() -> Iterator[Case]:
    """Records without an id, and two of one id."""
    unnoticed = Seen(("FAIL",), "does not look at it, and computes")
    yield refused(
        "graph.tensor-id/leaf",
        'A valid graph with one more record, whose id is 0. In links 0 means "no tensor", so nothing can refer to this record.',
        "SEC-06",
        "null-pointer",
        [*start(), say(graph([2], [LEFT, TOTAL, replace(LEFT, id=0)]))],
        unnoticed,
    )
    yield refused(
        "graph.tensor-id/node",
        "A graph whose node has id 0, both in the list of nodes and in its record. A lookup of 0 gives no tensor, and planning"
        " dereferences a null pointer.",
        "SEC-06",
        "null-pointer",
        [*start(), say(graph([0], [LEFT, replace(TOTAL, id=0)]))],
        unnoticed,
    )
    second = {"same-record": LEFT, "other-record": tensor(1028, [1], id=1)}
    for words, record in second.items():
        yield refused(
            f"graph.tensor-unique/{words}",
            "A graph with two records of the same id. Which of them a link means is undefined, and the server may check one"
            " and use the other.",
            "OBS-7",
            "silent-wrong-result type-confusion",
            [*start(), say(graph([2], [LEFT, record, TOTAL]))],
            Seen(("FAIL",), "takes the first and computes"),
        )


NULL_NODE = Seen(("CRASH",), "takes the null of an id 0 for a node; planning reads through it, and the process ends by SIGSEGV")


def nodes() -> Iterator[Case]:
    """Nodes that name no record, or one twice."""
    both = [LEFT, TOTAL]
    lists: dict[str, tuple[list[int], list[Tensor], str, Seen]] = {
        "0-without-tensors": ([0], [], "the id 0 alone, with no tensor records at all: twenty bytes", NULL_NODE),
        "0": ([0], both, "the id 0 as its only node", NULL_NODE),
        "0-behind-a-good-one": ([2, 0], both, "the id 0 after a valid node", NULL_NODE),
        "missing": ([MISSING], both, "an id that no record has", CLOSES),
        "missing-behind-a-good-one": ([2, MISSING], both, "an id that no record has, after a valid node", CLOSES),
        "2-64-less-1": ([2**64 - 1], both, "the id 2^64-1, which no record has", CLOSES),
    }
    for words, (listed, records, what, seen) in lists.items():
        yield refused(
            f"graph.node-known/{words}",
            f"A graph whose list of nodes holds {what}. The lookup finds no tensor, and planning dereferences a null pointer.",
            "SEC-06" if 0 in listed else "SEC-08",
            "null-pointer",
            [*start(), say(graph(listed, records))],
            seen,
        )
    for words, times in {"twice": 2, "a-hundred-times": 100}.items():
        yield refused(
            f"graph.node-unique/{words}",
            f"A graph that lists its one node {words.replace('-', ' ')}: it would be computed that many times, and tables with"
            " one entry per tensor are indexed past their end.",
            "OBS-5",
            "out-of-bounds-write silent-wrong-result",
            [*start(), say(graph([2] * times, [LEFT, TOTAL]))],
            Seen(("FAIL",), "computes the node as often as it is listed"),
        )


def sources() -> Iterator[Case]:
    """Links that name no record."""
    unreached = Seen(("FAIL",), "resolves only what a node reaches, and computes")
    graphs: dict[str, tuple[list[Tensor], str, Seen]] = {
        "first": ([LEFT, replace(TOTAL, src=(MISSING, 1))], "a node's first source", CLOSES),
        "tenth": ([LEFT, replace(TOTAL, src=(1, 1, *[0] * 7, MISSING))], "a node's tenth source", CLOSES),
        "view-src": ([LEFT, replace(TOTAL, view_src=MISSING)], "a node's view_src", CLOSES),
        "of-a-leaf": ([replace(LEFT, src=(MISSING,)), TOTAL], "a source of a leaf", CLOSES),
        "of-an-unused-tensor": (
            [LEFT, TOTAL, tensor(3072, [4], id=3, src=(MISSING,))],
            "a source of a record that no node reaches",
            unreached,
        ),
    }
    for words, (records, what, seen) in graphs.items():
        yield refused(
            f"graph.source-known/{words}",
            f"A graph in which {what} is an id that no record has. A lookup that is not checked ends the process, or gives a"
            " null pointer that a kernel dereferences.",
            "SEC-08",
            "null-pointer",
            [*start(), say(graph([2], records))],
            seen,
        )


RING = Seen(("FAIL",), "enters a tensor into its map before its sources, so that a ring closes without notice, and computes")


def acyclic() -> Iterator[Case]:
    """Rings of links."""
    second = tensor(3072, [4], id=3, op=ADD, src=(2, 1), flags=COMPUTE)
    first_view = tensor(1024, [4], id=4, op=VIEW, src=(5,), view_src=5)
    second_view = tensor(1024, [4], id=5, op=VIEW, src=(4,), view_src=4)
    leaves = [replace(LEFT, id=10 + n, src=(10 + (n + 1) % 3,)) for n in range(3)]
    graphs: dict[str, tuple[list[int], list[Tensor], str, Seen]] = {
        "self": ([2], [LEFT, replace(TOTAL, src=(2, 1))], "A node is its own first source", RING),
        "self-view": ([2], [LEFT, replace(TOTAL, view_src=2)], "A node is a view of itself", RING),
        "two-nodes": ([2, 3], [LEFT, replace(TOTAL, src=(3, 1)), second], "Two nodes are each other's source", RING),
        "two-views": (
            [2],
            [LEFT, first_view, second_view, replace(TOTAL, src=(4, 1))],
            "Two tensors are views of each other, and a node uses one",
            RING,
        ),
        "three-unused": (
            [2],
            [LEFT, TOTAL, *leaves],
            "Three tensors that no node reaches are each other's sources in a cycle",
            RING,
        ),
    }
    for words, (listed, records, what, seen) in graphs.items():
        yield refused(
            f"graph.acyclic/{words}",
            f"{what}: no order of computation exists, and a walk along the links never ends or exhausts the stack.",
            "SEC-24",
            "stack-overflow silent-wrong-result",
            [*start(), say(graph(listed, records))],
            seen,
        )


def deep() -> Iterator[Case]:
    """A chain of views, users first: the longest that fits into a file; how much longer it may be, `conform` shows."""
    chain = [tensor(1024, [4], id=1000 + n, op=VIEW, src=(1001 + n,), view_src=1001 + n) for n in range(200)]
    chain[-1] = replace(chain[-1], src=(1,), view_src=1)
    total = replace(TOTAL, src=(1000, 1))
    yield accepted(
        "graph.deep/chain-of-200-views",
        "Nothing is wrong: 200 views, each of the next one, listed before what they are views of. A server that follows links"
        " by recursion needs stack for each of them; 300,000 exhaust it.",
        "SEC-24",
        "stack-overflow over-strict",
        [*start(), say(graph([2], [total, *chain, LEFT])), *read(TOTAL, SUMS)],
    )


# ------------------------------------------------------------------------------------------------------------ ops


def ops() -> Iterator[Case]:
    """Ops that no table has, and ops whose parameters are addresses of functions."""
    for words, number in {"first-unknown": 96, "127": 127, "2-31": 2**31, "2-32-less-1": 2**32 - 1}.items():
        yield refused(
            f"graph.op-known/{words}",
            f"A node to be computed whose op is {number}; 3.6.1 has 0 to 95. The number would index a table of kernels past its"
            " end.",
            "OBS-7 FUN-16",
            "out-of-bounds-read abort-in-release",
            [*start(), say(graph([2], [LEFT, replace(TOTAL, op=number)]))],
            Seen(("CRASH",), "planning knows no such op and aborts the process"),
        )
    calls = Seen(("CRASH",), "calls the function at the address that op_params hold, here 0")
    for index, name in enumerate(("map-custom1", "map-custom2", "map-custom3", "custom")):
        yield refused(
            f"graph.op-custom/{name}",
            f"A node with op {name.upper().replace('-', '_')}, whose parameters hold the address of a function in the client's"
            " memory. A server that computes it runs whatever code the client chooses.",
            "SEC-05",
            "function-pointer",
            [*start(), say(graph([2], [LEFT, replace(TOTAL, op=MAP_CUSTOM1 + index)]))],
            calls,
        )
    yield refused(
        "graph.op-custom/not-computed",
        "A node with op MAP_CUSTOM1 but without flag COMPUTE, so that nothing would call the function yet. It is refused all"
        " the same: no client has a use for it.",
        "SEC-05",
        "function-pointer",
        [*start(), say(graph([2], [LEFT, replace(TOTAL, op=MAP_CUSTOM1, flags=0)]))],
        Seen(("FAIL",), "does not look at the op of a node without COMPUTE"),
    )


# ------------------------------------------------------------------------------------------------------------ accepted


def flags_and_empty() -> Iterator[Case]:
    """Flags that nobody knows, graphs that compute nothing."""
    yield accepted(
        "graph.flag-compute/unknown-flags",
        "Nothing is wrong: a node with COMPUTE and every other bit of flags set. The other flags mean nothing to a server.",
        "OBS-7",
        "over-strict",
        [*start(), say(graph([2], [LEFT, replace(TOTAL, flags=0x7FFFFFFF)])), *read(TOTAL, SUMS)],
    )
    yield accepted(
        "graph.flag-compute/every-flag-but-compute",
        "A node with flags INPUT, OUTPUT, PARAM and LOSS but without COMPUTE: it is accepted and not computed, so its bytes do"
        " not change.",
        "OBS-7",
        "silent-wrong-result over-strict",
        [*start(), say(graph([2], [LEFT, replace(TOTAL, flags=15)])), *read(TOTAL, b"\xee" * 16)],
    )
    for words, records in {"no-tensors": [], "tensors-only": [LEFT, TOTAL]}.items():
        yield accepted(
            f"graph.empty/{words}",
            "Nothing is wrong: a graph without nodes. Nothing is computed and no byte changes.",
            "OBS-7",
            "should over-strict",
            [*start(), say(graph([], records)), *read(TOTAL, b"\xee" * 16)],
        )
