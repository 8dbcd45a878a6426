"""Nodes that their op does not allow: missing sources, types, shapes, parameters, and indices among the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from vectors.tools.malformed.case import Case, Seen, refused
from vectors.tools.malformed.protocol import (
    COMPUTE,
    F16,
    F32,
    I32,
    I64,
    Q8_0,
    Step,
    Tensor,
    Type,
    f32,
    graph,
    handle,
    hear,
    i32,
    i64,
    on_buffer,
    opened,
    recompute,
    say,
    tensor,
    write,
)

ADD, ADD_ID, ACC, RMS_NORM, MUL_MAT, MUL_MAT_ID, SCALE, SET, CPY, CONT, VIEW, GET_ROWS, SET_ROWS = (
    2, 3, 5, 25, 29, 30, 32, 33, 34, 35, 37, 40, 42,
)  # fmt: skip
SOFT_MAX, ROPE, FLASH_ATTN_EXT, SSM_SCAN, GATED_DELTA_NET, UNARY, GLU = 46, 48, 73, 76, 85, 86, 95
"""Numbers of ops at 3.6.1."""
OPS = {
    ADD: "ADD", ADD_ID: "ADD_ID", ACC: "ACC", RMS_NORM: "RMS_NORM", MUL_MAT: "MUL_MAT", MUL_MAT_ID: "MUL_MAT_ID", SCALE: "SCALE",
    SET: "SET", CONT: "CONT", GET_ROWS: "GET_ROWS", SOFT_MAX: "SOFT_MAX", ROPE: "ROPE", FLASH_ATTN_EXT: "FLASH_ATTN_EXT",
    SSM_SCAN: "SSM_SCAN", GATED_DELTA_NET: "GATED_DELTA_NET", UNARY: "UNARY", GLU: "GLU",
}  # fmt: skip
SIZE, FIRST, APART = 65536, 16384, 1024
"""Bytes of the buffer, where its first tensor lies, and how far apart they lie: what a careless server touches is the client's."""


class Source(NamedTuple):
    """A source: its dimensions, its bytes (none: zeros) and its type."""

    ne: Sequence[int]
    data: bytes = b""
    type: Type = F32


class Node(NamedTuple):
    """A node to compute: its op, its sources by slot, its dimensions, parameters and type."""

    op: int
    src: Sequence[Source | None]
    ne: Sequence[int]
    params: bytes = b""
    type: Type = F32
    fields: dict[str, Any] = {}  # noqa: RUF012 -- nothing changes it


def laid_out(node: Node) -> tuple[list[Step], list[Tensor]]:
    """Return the steps before a graph of one node, and its records: the sources, then the node, with ids from 1."""
    steps = [*opened(SIZE), say(on_buffer("BUFFER_CLEAR", handle("buf0"), b"\0")), hear("BUFFER_CLEAR")]
    records: list[Tensor] = []
    ids = []
    for source in node.src:
        if source is not None:
            records.append(tensor(FIRST + APART * len(records), source.ne, source.type, id=len(records) + 1))
            steps += [write(records[-1], source.data)] if source.data else []
        ids.append(len(records) if source is not None else 0)
    place = FIRST + APART * len(records)
    links: dict[str, Any] = {"id": len(records) + 1, "op": node.op, "op_params": node.params, "src": tuple(ids), "flags": COMPUTE}
    records.append(tensor(place, node.ne, node.type, **(links | node.fields)))
    return steps, records


def computing(node: Node) -> list[Step]:
    """Return the conversation that has a node computed."""
    steps, records = laid_out(node)
    return [*steps, say(graph([records[-1].id], records))]


def cases() -> Iterator[Case]:
    """Yield every case about what a node means."""
    yield from arity()
    yield from types()
    yield from shapes()
    yield from regions()
    yield from rows_written()
    yield from indices()


# ------------------------------------------------------------------------------------------------------------ sources

FOUR = Source([4], f32(1, 2, 3, 4))
ROPE_PARAMS = i32(0, 2, 0, 0, 0) + f32(10000, 1, 0, 1, 32, 1)
NULL = Seen(("CRASH",), "counts no sources; kernel or planner reads through the null one, and the process ends by SIGSEGV")


def arity() -> Iterator[Case]:
    """Nodes that lack a source."""
    lacking = {
        "add-without-second": Node(ADD, [FOUR], [4]),
        "add-without-any": Node(ADD, [], [4]),
        "add-with-a-gap": Node(ADD, [None, FOUR, FOUR], [4]),
        "mul-mat-without-second": Node(MUL_MAT, [FOUR], [1]),
        "mul-mat-id-without-ids": Node(MUL_MAT_ID, [Source([2, 2, 3]), Source([2, 1, 1])], [2, 2, 1]),
        "get-rows-without-indices": Node(GET_ROWS, [Source([2, 3])], [2, 2]),
        "rms-norm-without-any": Node(RMS_NORM, [], [4], f32(0)),
        "soft-max-without-any": Node(SOFT_MAX, [], [4], f32(1, 0)),
        "rope-without-positions": Node(ROPE, [FOUR], [4], ROPE_PARAMS),
        "cont-without-any": Node(CONT, [], [4]),
        "flash-attn-ext-without-keys": Node(FLASH_ATTN_EXT, [Source([64])], [64], f32(1, 0, 0)),
    }
    for words, node in lacking.items():
        yield refused(
            f"graph.arity/{words}",
            f"A node with op {OPS[node.op]} without a source that the op needs: the kernel would dereference a null pointer.",
            "SEC-32",
            "null-pointer",
            computing(node),
            NULL,
        )


# ------------------------------------------------------------------------------------------------------------ types

ABORTS = Seen(("CRASH",), "does not look at types on arrival; the kernel asserts, and the process aborts")


def types() -> Iterator[Case]:
    """Types that an op does not take."""
    misread = Seen(("FAIL",), "reads the source as the type that the op expects, whatever it says, and computes")
    odd = {
        "get-rows-float-indices": (Node(GET_ROWS, [Source([2, 3]), Source([2])], [2, 2]), misread),
        "rope-float-positions": (Node(ROPE, [Source([2]), Source([1])], [2], ROPE_PARAMS), ABORTS),
        "mul-mat-i32-vector": (Node(MUL_MAT, [Source([2]), Source([2], type=I32)], [1]), ABORTS),
        "rms-norm-i32": (Node(RMS_NORM, [Source([2], type=I32)], [2], f32(0)), ABORTS),
        "soft-max-i64": (Node(SOFT_MAX, [Source([2], type=I64)], [2], f32(1, 0)), ABORTS),
        "scale-q8-0": (Node(SCALE, [Source([32], type=Q8_0)], [32], f32(1, 0), Q8_0), ABORTS),
        "unary-i32": (Node(UNARY, [Source([2], type=I32)], [2], i32(2)), ABORTS),
        "flash-attn-ext-f32-mask": (
            Node(
                FLASH_ATTN_EXT,
                [Source([64]), Source([64], type=F16), Source([64], type=F16), Source([1, 64])],
                [64],
                f32(1, 0, 0),
            ),
            misread,
        ),
    }
    for words, (node, seen) in odd.items():
        yield refused(
            f"graph.type/{words}",
            f"A node with op {OPS[node.op]} and an operand of a type that the op does not take: the kernel aborts, or reads the"
            " bytes as another type.",
            "FUN-16",
            "type-confusion abort-in-release",
            computing(node),
            seen,
        )


# ------------------------------------------------------------------------------------------------------------ shapes

ASSERTS = Seen(("CRASH",), "does not look at shapes on arrival; the kernel asserts, and the process aborts")
BEYOND = Seen(("FAIL",), "does not look at shapes on arrival; the kernel reads what lies behind, and computes")

SHAPES: dict[str, tuple[Node, str, str, str, Seen]] = {
    "get-rows-batches": (
        Node(GET_ROWS, [Source([2, 3, 1]), Source([1, 2], type=I32)], [2, 1, 2]),
        "indices for two batches where the source has one", "SEC-25", "out-of-bounds-read memory-disclosure", BEYOND,
    ),
    "get-rows-result-rows": (
        Node(GET_ROWS, [Source([2, 3]), Source([2], type=I32)], [2, 3]),
        "a result of three rows for two indices", "SEC-27", "out-of-bounds-write silent-wrong-result",
        Seen(("FAIL",), "asserts it in debug builds only; the third row stays as it was"),
    ),
    "get-rows-result-row-length": (
        Node(GET_ROWS, [Source([4, 3]), Source([2], type=I32)], [2, 2]),
        "a result whose rows are shorter than the source's", "SEC-27", "out-of-bounds-write",
        Seen(("FAIL",), "asserts it in debug builds only; rows are written over one another and past the result"),
    ),
    "mul-mat-inner": (
        Node(MUL_MAT, [Source([3, 2]), FOUR], [2]),
        "rows of 3 elements to be multiplied with rows of 4", "SEC-32", "out-of-bounds-read silent-wrong-result",
        Seen(("FAIL",), "does not compare the rows' lengths, and computes"),
    ),
    "mul-mat-batches": (
        Node(MUL_MAT, [Source([2, 1, 2]), Source([2, 1, 3])], [1, 1, 3]),
        "two matrices for three batches", "SEC-32", "out-of-bounds-read", BEYOND,
    ),
    "mul-mat-result": (
        Node(MUL_MAT, [Source([2, 2]), Source([2])], [3]),
        "a result with more elements than the matrix has rows", "FUN-16", "out-of-bounds-read abort-in-release", ASSERTS,
    ),
    "add-result-larger": (
        Node(ADD, [FOUR, FOUR], [8]),
        "a result larger than its sources", "FUN-16", "out-of-bounds-read abort-in-release", ASSERTS,
    ),
    "add-second-does-not-repeat": (
        Node(ADD, [FOUR, Source([3])], [4]),
        "3 elements to be repeated along 4", "FUN-16", "out-of-bounds-read abort-in-release", ASSERTS,
    ),
    "rope-positions": (
        Node(ROPE, [Source([2, 1, 3]), Source([1], type=I32)], [2, 1, 3], ROPE_PARAMS),
        "one position for three rows", "SEC-32", "out-of-bounds-read", BEYOND,
    ),
    "soft-max-mask": (
        Node(SOFT_MAX, [Source([4, 2]), Source([2, 2])], [4, 2], f32(1, 0)),
        "a mask with rows of 2 for rows of 4", "SEC-32", "out-of-bounds-read", BEYOND,
    ),
    "flash-attn-ext-heads": (
        Node(FLASH_ATTN_EXT, [Source([64, 1, 3]), *[Source([64, 1, 2], type=F16)] * 2], [64, 3], f32(1, 0, 0)),
        "3 heads over keys of 2", "SEC-32", "out-of-bounds-read", BEYOND,
    ),
    "gated-delta-net-without-states": (
        Node(GATED_DELTA_NET, [Source([4]), Source([4]), Source([4]), Source([1]), Source([1]), Source([16])], [4]),
        "a result without room for the final states", "SEC-30", "out-of-bounds-write",
        Seen(("FAIL",), "does not look at shapes on arrival; the kernel writes the states behind the result"),
    ),
    "unary-kind": (
        Node(UNARY, [FOUR], [4], i32(99)), "the unknown kind 99", "FUN-16", "out-of-bounds-read abort-in-release", ASSERTS,
    ),
    "unary-kind-negative": (
        Node(UNARY, [FOUR], [4], i32(-1)), "the kind -1", "FUN-16", "out-of-bounds-read abort-in-release", ASSERTS,
    ),
    "glu-kind": (
        Node(GLU, [FOUR], [2], i32(99, 0)), "the unknown kind 99", "FUN-16", "out-of-bounds-read abort-in-release", ASSERTS,
    ),
    "result-in-one-place": (
        Node(ADD, [FOUR, FOUR], [4], fields={"nb": (0, 0, 0, 0)}),
        "a result whose elements all have the same address", "SEC-26", "silent-wrong-result abort-in-release", ASSERTS,
    ),
}  # fmt: skip
"""Words to a node, what is wrong with it, references, flags, and what the genuine server did."""


def shapes() -> Iterator[Case]:
    """Dimensions, strides and parameters that an op does not allow."""
    for words, (node, what, references, flags, seen) in SHAPES.items():
        yield refused(
            f"graph.shape/{words}",
            f"A node with op {OPS[node.op]} and {what}. The library's constructors would refuse it, but a graph from the wire"
            " has not passed through them.",
            references,
            flags,
            computing(node),
            seen,
        )


INSIDE = Seen(
    ("FAIL",), "asserts that the last corner lies inside, summed up modulo 2^64, which it does, and writes before the result"
)


def regions() -> Iterator[Case]:
    """ACC and SET with strides and offsets that lead out of the result."""
    layouts = {
        "offset-negative": ((64, 64, 64, -64), "an offset of -64"),
        "nb1-negative": ((-64, 64, 64, 0), "rows -64 bytes apart"),
        "nb2-negative": ((16, -64, 64, 0), "matrices -64 bytes apart"),
        "nb3-negative": ((16, 32, -64, 0), "stacks of matrices -64 bytes apart"),
        "offset-past-end": ((16, 32, 64, 256), "an offset where the result ends"),
    }
    for op in (ACC, SET):
        for words, (layout, what) in layouts.items():
            node = Node(op, [Source([64]), Source([4, 2, 2, 2])], [64], i32(*layout, 0))
            yield refused(
                f"graph.shape/{OPS[op].lower()}-{words}",
                f"{OPS[op]} of 32 floats into 64, with {what}: the parameters are signed, so one corner of the region inside"
                " the result does not mean that all are.",
                "SEC-29",
                "out-of-bounds-write integer-wrap",
                computing(node),
                INSIDE if words in ("offset-negative", "nb1-negative", "nb2-negative") else ASSERTS,
            )


def rows_written() -> Iterator[Case]:
    """SET_ROWS and CPY into less room than they need."""
    debug = Seen(("FAIL",), "asserts it in debug builds only, and writes past the target")
    target = Source([2, 4])
    view = {"op": VIEW, "view_src": 3}
    bad: dict[str, tuple[list[Source], dict[str, Any], str, str, Seen]] = {
        "row-length": ([Source([3, 2]), Source([2], i64(0, 3), I64)], {}, "rows of 3 into rows of 2", "SEC-26", debug),
        "row-count": (
            [Source([2, 2]), Source([1], i64(0), I64)], {}, "two rows with a single index", "SEC-26",
            Seen(("FAIL",), "reads what lies behind the one index as a second one"),
        ),
        "batches": ([Source([2, 2, 2]), Source([2], i64(0, 1), I64)], {}, "two batches into one", "SEC-26", debug),
        "fourth-dimension": (
            [Source([2, 2, 1, 2]), Source([2], i64(0, 1), I64)], {}, "two stacks of batches into one", "SEC-26", debug,
        ),
        "hidden-stride": (
            [Source([2, 2, 2]), Source([2], i64(0, 1), I64)], {"nb": (4, 8, 2**32 - 4, 2**32 - 4)},
            "two batches into a target of one batch whose nb[2] is 4 GiB", "SEC-26",
            Seen(("CRASH",), "asserts it in debug builds only, and writes 4 GiB behind the target"),
        ),
    }  # fmt: skip
    for words, (sources, fields, what, references, seen) in bad.items():
        node = Node(SET_ROWS, [*sources, target], [2, 4])
        steps, records = laid_out(node)
        whole = replace(records[2], **fields)
        result = replace(records[3], data=whole.data, view_src=view["view_src"], **fields)
        yield refused(
            f"graph.shape/set-rows-{words}",
            f"SET_ROWS of {what}: rows would be written outside the target.",
            references,
            "out-of-bounds-write",
            [*steps, say(graph([4], [*records[:2], whole, result]))],
            seen,
        )
    steps, records = laid_out(Node(CPY, [Source([8]), Source([4])], [4]))
    yield refused(
        "graph.shape/cpy-count",
        "CPY of eight elements into four: the other four would overwrite what follows the target.",
        "SEC-20",
        "out-of-bounds-write abort-in-release",
        [*steps, say(graph([3], [*records[:2], replace(records[2], data=records[1].data, view_src=2)]))],
        ASSERTS,
    )


# ------------------------------------------------------------------------------------------------------------ indices


def _scan(index: int) -> Node:
    token = [Source([1, 1, 1, 1]), Source([1, 1, 1]), Source([1, 1]), Source([2, 1, 1, 1]), Source([2, 1, 1, 1])]
    return Node(SSM_SCAN, [Source([2, 1, 1, 1]), *token, Source([1], i32(index), I32)], [3])


def _picked(op: int, index: int) -> Node:
    """Return a node that picks rows 0 and `index` of three."""
    ids = Source([2], i32(0, index), I32)
    if op == GET_ROWS:
        return Node(GET_ROWS, [Source([2, 3]), ids], [2, 2])
    if op == ADD_ID:
        return Node(ADD_ID, [Source([2, 2]), Source([2, 3]), ids], [2, 2])
    if op == MUL_MAT_ID:
        return Node(MUL_MAT_ID, [Source([2, 2, 3]), Source([2, 1, 1]), ids], [2, 2])
    return _scan(index)


def indices() -> Iterator[Case]:
    """Indices among a tensor's data that are out of range."""
    aborts = Seen(("CRASH",), "the kernel asserts that an index is in range, and the process aborts")
    far = Seen(("CRASH",), "no release build looks at it; what is touched lies so far off that the process ends by SIGSEGV")
    near = {
        MUL_MAT_ID: Seen(("FAIL", "CRASH"), "asserts it in debug builds only, and counts and writes in memory beside its tables"),
        SSM_SCAN: Seen(("FAIL",), "does not look at it, and computes on what lies beside the states"),
    }
    for op in (GET_ROWS, ADD_ID, MUL_MAT_ID, SSM_SCAN):
        name = OPS[op].lower().replace("_", "-")
        rows = 1 if op == SSM_SCAN else 3
        for words, index in {"first-too-large": rows, "negative": -1, "2-31-less-1": 2**31 - 1}.items():
            yield refused(
                f"graph.index/{name}-{words}",
                f"{OPS[op]} with {index} among the indices that a tensor holds, where {rows} can be picked: the client wrote"
                " the data, and a kernel that trusts it reads wherever the client wants.",
                "SEC-28",
                "out-of-bounds-read memory-disclosure" + " out-of-bounds-write" * (op == MUL_MAT_ID),
                computing(_picked(op, index)),
                aborts if op not in near else far if index == 2**31 - 1 else near[op],
            )
    for words, index in {"first-too-large": 4, "negative": -1, "2-63-less-1": 2**63 - 1}.items():
        node = Node(SET_ROWS, [Source([2, 2]), Source([2], i64(0, index), I64), Source([2, 4])], [2, 4])
        steps, records = laid_out(node)
        records[3] = replace(records[3], data=records[2].data, view_src=3)
        yield refused(
            f"graph.index/set-rows-{words}",
            f"SET_ROWS with {index} among the indices that a tensor holds, where the target has 4 rows: a kernel that trusts it"
            " writes wherever the client wants.",
            "SEC-28 SEC-26",
            "out-of-bounds-write",
            [*steps, say(graph([4], records))],
            aborts,
        )
    steps, records = laid_out(_picked(GET_ROWS, 2))
    yield refused(
        "graph.index/spoilt-before-recompute",
        "GET_ROWS is computed with valid indices; then an index out of range is written and GRAPH_RECOMPUTE is sent. A server"
        " that checks indices only when the graph arrives does not notice.",
        "SEC-28 FUN-03",
        "out-of-bounds-read",
        [*steps, say(graph([3], records)), write(records[1], i32(0, 3)), say(recompute())],
        aborts,
    )
