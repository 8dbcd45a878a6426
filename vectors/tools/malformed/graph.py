"""Graphs: counts, ids, links, placement, views, and which graph is computed again. What single nodes can't mean: `graph_nodes`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from vectors.tools.malformed.case import CLOSES, Case, Seen, accepted, refused
from vectors.tools.malformed.protocol import (
    COMPUTE,
    Piece,
    Request,
    Step,
    Tensor,
    address,
    buffer,
    end,
    f32,
    free,
    graph,
    handle,
    hello,
    opened,
    read,
    recompute,
    say,
    tensor,
    u32,
    u64,
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


def cases() -> Iterator[Case]:
    """Yield every case but those of `graph_nodes`."""
    yield from size_exact()
    yield from ids()
    yield from nodes()
    yield from sources()
    yield from acyclic()
    yield from deep()
    yield from null_data()
    yield from ops()
    yield from views()
    yield from flags_and_empty()
    yield from again()
    yield from stored()
    yield from freed()


# ------------------------------------------------------------------------------------------------------------ counts

IGNORES = Seen(("FAIL",), "demands only that the message is not shorter than its counts, and computes")


def size_exact() -> Iterator[Case]:
    """Counts that do not fill the message."""
    records = [*LEFT.pieces, *TOTAL.pieces]
    short = Seen(("PASS",), "sees that the message is shorter than its counts and closes the connection")
    messages: dict[str, tuple[list[Piece], str, Seen]] = {
        "trailing-byte": ([u32(0, 1), u64(2), u32(2), *records, b"\0"], "one byte behind the last tensor", IGNORES),
        "trailing-tensor": ([u32(0, 1), u64(2), u32(2), *records, bytes(296)], "a tensor more than is counted", IGNORES),
        "last-byte-missing": ([u32(0, 1), u64(2), u32(2), *records[:-1], bytes(67)], "a last tensor of 295 bytes", short),
        "last-tensor-missing": ([u32(0, 1), u64(2), u32(2), *LEFT.pieces], "a tensor less than is counted", short),
        "one-tensor-less": ([u32(0, 1), u64(2), u32(1), *records], "a count of tensors one too small", IGNORES_NODE),
        "one-tensor-more": ([u32(0, 1), u64(2), u32(3), *records], "a count of tensors one too large", short),
        "one-node-more": ([u32(0, 2), u64(2), u32(2), *records], "a count of nodes one too large", short),
        "nodes-2-32-less-1": ([u32(0, 2**32 - 1), u64(2), u32(2), *records], "a count of 2^32-1 nodes", short),
        "nodes-2-31": ([u32(0, 2**31), u64(2), u32(2), *records], "2^31 nodes, whose bytes in 32 bits are 0", short),
        "nodes-2-29": ([u32(0, 2**29), u64(2), u32(2), *records], "2^29 nodes, whose bytes in 32 bits are 0", short),
        "tensors-2-32-less-1": ([u32(0, 1), u64(2), u32(2**32 - 1), *records], "a count of 2^32-1 tensors", short),
        "tensors-2-29": ([u32(0, 1), u64(2), u32(2**29), *records], "2^29 tensors, whose bytes in 32 bits are 0", short),
    }
    for words, (payload, what, seen) in messages.items():
        yield refused(
            f"graph.size-exact/{words}",
            f"GRAPH_COMPUTE with {what}: what the counts say and what the message holds are not the same graph, and what is read"
            " beyond it is not the client's.",
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
        "A good graph and one more record, whose id is 0: 0 means no tensor, and links to it mean none.",
        "SEC-06",
        "null-pointer",
        [*start(), say(graph([2], [LEFT, TOTAL, replace(LEFT, id=0)]))],
        unnoticed,
    )
    yield refused(
        "graph.tensor-id/node",
        "A graph whose node has id 0, in the list of nodes and in its record: looked up, it is no tensor, and planning follows a"
        " null pointer.",
        "SEC-06",
        "null-pointer",
        [*start(), say(graph([0], [LEFT, replace(TOTAL, id=0)]))],
        unnoticed,
    )
    second = {"same-record": LEFT, "other-record": tensor(1028, [1], id=1)}
    for words, record in second.items():
        yield refused(
            f"graph.tensor-unique/{words}",
            "A graph with two records of one id: which of them a link means is for the server to guess, and checks may look at the"
            " other one.",
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
        "0-without-tensors": ([0], [], "one node, id 0, and no tensor at all: twenty bytes", NULL_NODE),
        "0": ([0], both, "id 0 for its only node", NULL_NODE),
        "0-behind-a-good-one": ([2, 0], both, "id 0 behind a good node", NULL_NODE),
        "missing": ([MISSING], both, "an id that no record has", CLOSES),
        "missing-behind-a-good-one": ([2, MISSING], both, "an id that no record has, behind a good node", CLOSES),
        "2-64-less-1": ([2**64 - 1], both, "the id 2^64-1, which no record has", CLOSES),
    }
    for words, (listed, records, what, seen) in lists.items():
        yield refused(
            f"graph.node-known/{words}",
            f"A graph that names as a node {what}. Unresolved, it is a null pointer in the graph, and planning follows it.",
            "SEC-06" if 0 in listed else "SEC-08",
            "null-pointer",
            [*start(), say(graph(listed, records))],
            seen,
        )
    for words, times in {"twice": 2, "a-hundred-times": 100}.items():
        yield refused(
            f"graph.node-unique/{words}",
            f"A graph that lists its one node {words.replace('-', ' ')}: it would be computed again and again, and tables that"
            " have a place for each node get an index that is none.",
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
            f"A graph in which {what} is an id that no record has. Looked up without a check, it ends the process, or is a null"
            " pointer that a kernel follows.",
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
        "three-unused": ([2], [LEFT, TOTAL, *leaves], "Three tensors that no node reaches are a ring of sources", RING),
    }
    for words, (listed, records, what, seen) in graphs.items():
        yield refused(
            f"graph.acyclic/{words}",
            f"{what}: there is no order in which it could be computed, and a walk along the links does not end, or ends with the"
            " stack.",
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
        "Nothing is wrong: 200 views, each of the next, users before what they use. A server that follows links by calling itself"
        " needs stack for each; 300,000 of them end it.",
        "SEC-24",
        "stack-overflow over-strict",
        [*start(), say(graph([2], [total, *chain, LEFT])), *read(TOTAL, SUMS)],
    )


# ------------------------------------------------------------------------------------------------------------ placement

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
            f"A graph with {what}. Bounds that are checked only where there is a buffer are not checked here, and kernels read or"
            " write at any address that the client names.",
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
            "A graph that must compute on a tensor with neither buffer nor address, as clients send those of other servers: the"
            " kernel would follow a null pointer.",
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
            f"Nothing is wrong: a graph with {what}. Clients send tensors of other servers like that; refusing them breaks models"
            " that are split.",
            "FUN-01",
            "over-strict",
            [*start(), say(graph(listed, records)), *read(TOTAL, SUMS)],
        )


# ------------------------------------------------------------------------------------------------------------ ops


def ops() -> Iterator[Case]:
    """Ops that no table has, and ops whose parameters are addresses of functions."""
    for words, number in {"first-unknown": 96, "127": 127, "2-31": 2**31, "2-32-less-1": 2**32 - 1}.items():
        yield refused(
            f"graph.op-known/{words}",
            f"A node to be computed whose op is {number}; 3.6.1 has 0 to 95. It would index tables of kernels.",
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
            " memory. Computed, the client says what code the server runs.",
            "SEC-05",
            "function-pointer",
            [*start(), say(graph([2], [LEFT, replace(TOTAL, op=MAP_CUSTOM1 + index)]))],
            calls,
        )
    yield refused(
        "graph.op-custom/not-computed",
        "A node with op MAP_CUSTOM1 and without flag COMPUTE, which nothing would call now: refused all the same, since no client"
        " means it.",
        "SEC-05",
        "function-pointer",
        [*start(), say(graph([2], [LEFT, replace(TOTAL, op=MAP_CUSTOM1, flags=0)]))],
        Seen(("FAIL",), "does not look at the op of a node without COMPUTE"),
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
        "one-element-past-end": (_view(1044, 20), "ends 4 bytes behind it"),
        "whole-past-end": (_view(1088, 64), "begins 32 bytes behind its end"),
        "data-not-at-offset": (_view(1036, 16), "lies 4 bytes before where view_offs puts it"),
        "offset-not-at-data": (_view(1040, 20), "has a view_offs 4 bytes behind where it lies"),
        "offset-2-64-less-4": (_view(1020, 2**64 - 4), "has a view_offs of 2^64-4, by which it lies 4 bytes before"),
        "longer": (_view(1024, 0, ne=(9, 1, 1, 1), nb=(4, 36, 36, 36)), "has 9 elements of its 8"),
        "stride-leaves": (_view(1040, 16, ne=(2, 2, 1, 1), nb=(4, 60, 120, 120)), "has a second row that lies behind it"),
        "other-buffer": (elsewhere, "names another buffer and lies there"),
    }
    for words, (view, what) in bad.items():
        count = view.ne[0] * view.ne[1]
        copy = tensor(4096, [count], id=3, op=CONT, src=(2,), flags=COMPUTE)
        more = buffer("buf1") if words == "other-buffer" else []
        yield refused(
            f"graph.view/{words}",
            f"A view of eight floats that {what}. Who trusts either of the two places reads or writes what the other was checked"
            " for.",
            "OBS-9",
            "out-of-bounds-read out-of-bounds-write" + " integer-wrap" * ("2-64" in words),
            [*opened(), write(WHOLE, f32(*range(8))), *more, say(graph([2, 3], [WHOLE, view, copy]))],
            UNCHECKED,
        )
    outside = tensor(1040, [4], id=2, op=ADD, src=(1, 1), view_src=1, view_offs=16, flags=COMPUTE)
    yield refused(
        "graph.view/result-behind-its-view-src",
        "An ADD that says to compute in place of its source, and whose result begins where that ends.",
        "OBS-9",
        "out-of-bounds-write",
        [*start(), say(graph([2], [LEFT, outside]))],
        UNCHECKED,
    )


# ------------------------------------------------------------------------------------------------------------ accepted


def flags_and_empty() -> Iterator[Case]:
    """Flags that nobody knows, graphs that compute nothing."""
    yield accepted(
        "graph.flag-compute/unknown-flags",
        "Nothing is wrong: a node with COMPUTE and every other bit of flags set. The others are the client's notes.",
        "OBS-7",
        "over-strict",
        [*start(), say(graph([2], [LEFT, replace(TOTAL, flags=0x7FFFFFFF)])), *read(TOTAL, SUMS)],
    )
    yield accepted(
        "graph.flag-compute/every-flag-but-compute",
        "A node with INPUT, OUTPUT, PARAM and LOSS and without COMPUTE: it is accepted, and its bytes stay as they were.",
        "OBS-7",
        "silent-wrong-result over-strict",
        [*start(), say(graph([2], [LEFT, replace(TOTAL, flags=15)])), *read(TOTAL, b"\xee" * 16)],
    )
    for words, records in {"no-tensors": [], "tensors-only": [LEFT, TOTAL]}.items():
        yield accepted(
            f"graph.empty/{words}",
            "Nothing is wrong: a graph without nodes. It computes nothing, and nothing changes.",
            "OBS-7",
            "should over-strict",
            [*start(), say(graph([], records)), *read(TOTAL, b"\xee" * 16)],
        )


OTHER, DOUBLE = tensor(3072, [4], id=3), tensor(4096, [4], id=4, op=ADD, src=(3, 3), flags=COMPUTE)
"""A second graph, like the first."""


def again() -> Iterator[Case]:
    """GRAPH_RECOMPUTE that computes again, and what."""
    zero, first, second = bytes(16), graph([2], [LEFT, TOTAL]), graph([4], [OTHER, DOUBLE])
    yield accepted(
        "graph.recompute/last-of-two",
        "Nothing is wrong: one graph, another one, then GRAPH_RECOMPUTE, which means the last. A server that keeps the wrong one"
        " gives one context the numbers of another.",
        "FUN-03",
        "silent-wrong-result",
        [
            *start(), write(OTHER, f32(5, 6, 7, 8)), say(first), say(second), write(TOTAL, zero), write(DOUBLE, zero),
            say(recompute()), *read(DOUBLE, f32(10, 12, 14, 16)), *read(TOTAL, zero),
        ],
    )  # fmt: skip
    yield accepted(
        "graph.recompute/new-data",
        "Nothing is wrong: a graph, other data, then GRAPH_RECOMPUTE, which computes on the data as they are now.",
        "FUN-03",
        "silent-wrong-result",
        [*start(), say(first), write(LEFT, f32(5, 6, 7, 8)), say(recompute()), *read(TOTAL, f32(10, 12, 14, 16))],
    )
    yield accepted(
        "graph.recompute/other-buffer-freed",
        "Nothing is wrong: a graph, then a buffer freed that it does not use. GRAPH_RECOMPUTE still computes it.",
        "SEC-10",
        "over-strict",
        [*start(), *buffer("buf1"), say(first), *free("buf1"), write(TOTAL, zero), say(recompute()), *read(TOTAL, SUMS)],
    )


def stored() -> Iterator[Case]:
    """GRAPH_RECOMPUTE where there is nothing to compute."""
    yield refused(
        "graph.recompute-stored/none",
        "GRAPH_RECOMPUTE on a connection that has computed nothing: there is no graph, and whatever lies in its place is none.",
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
        "only-buffer": ([*begun, *free("buf0")], "its buffer freed"),
        "buffer-of-a-source": ([*apart, *free("buf1")], "the buffer of its source freed"),
        "allocated-again": ([*begun, *free("buf0"), *buffer("buf2", LARGE)], "its buffer freed and another one of that size made"),
    }
    for words, (steps, what) in ways.items():
        yield refused(
            f"graph.recompute-freed/{words}",
            f"A graph computed, {what}, then GRAPH_RECOMPUTE: computing it reads and writes memory that belongs to nobody, or to"
            " what has come there since.",
            "SEC-10",
            "stale-handle out-of-bounds-write",
            [*steps, say(recompute())],
            reused if words == "allocated-again" else seen,
        )
