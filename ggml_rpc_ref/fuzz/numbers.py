"""Whether bytes that were read back are what the model has: exactly, or as numbers within the tolerance of their ops."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.fuzz.packet import ADDRESS, Packet, meaning
from ggml_rpc_ref.fuzz.session import Session, Step
from ggml_rpc_ref.ops import ops_of
from ggml_rpc_ref.ops.compare import compare_tensors, element_bytes
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.spec.dtypes import BY_NUMBER
from ggml_rpc_ref.spec.messages import FLAG_COMPUTE, CopyTensor, GetTensor, GraphCompute, command_name
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.versions import Version
from ggml_rpc_ref.tensor import PlainStorage, Tensor, extent

LOOSE: Final = Tolerance(1e-3, 1e-4, 1e-6, "mutated shapes and contents: far from what the op's own tolerance was measured on")
NARROW: Final = Tolerance(2e-2, 1e-2, 1e-3, "quantised or half-precision operands on the way")
MOST_EXTREME: Final = 1e30
"""Numbers beyond this may overflow in one order of summation and not in another."""


def differs(session: Session, step: Step | None, wanted: bytes, found: bytes) -> str:
    """Return in words how bytes differ from the model's beyond what the ops of the session allow; "" where they don't.

    Args:
        session: all of it.
        step: the request that read them, where it is one that names its place; None: nothing is said about numbers.
        wanted: the model's.
        found: the server's.
    """
    if step is None or not isinstance(step.message, GetTensor) or len(wanted) != len(found):
        return ""
    right, got = np.frombuffer(wanted, np.uint8), np.frombuffer(found, np.uint8)
    allowed = np.zeros(len(right), bool)
    start = step.message.tensor.data + step.message.offset
    for record in results(session, step):
        tensor = placed(record, start, len(right))
        if tensor is None:
            return ""  # a result lies partly outside of what was read: it can't be judged
        words, bytes_ = _node(session, record, tensor, right, got)
        if words:
            return words
        if writes_more(session, record):
            return ""  # an op that also updates a source: which bytes these are is not followed
        allowed |= bytes_
    for first, end in moved(session, step):
        allowed[max(0, first - start) : max(0, end - start)] = True
    changed = np.flatnonzero((right != got) & ~allowed)
    if not changed.size:
        return ""
    at = int(changed[0])
    return f"{changed.size} of {len(got)} bytes differ, the first is byte {at}: {found[at]:#04x} in place of {wanted[at]:#04x}"


def results(session: Session, reader: Step) -> list[Any]:
    """Return the records of all nodes computed before a step on its connection that lie in the buffer it reads."""
    assert isinstance(reader.message, GetTensor)
    home, found = meaning(reader.message.tensor.data), []
    for step in session.of(reader.connection):
        if step is reader:
            break
        if isinstance(step.message, Graph):
            listed = set(step.message.nodes.tolist())
            for record in step.message.tensors:
                where = meaning(int(record["data"]))
                if int(record["id"]) in listed and record["flags"] & FLAG_COMPUTE and where and home and where[:2] == home[:2]:
                    found.append(record)
    return found


def moved(session: Session, reader: Step) -> list[tuple[int, int]]:
    """Return where COPY_TENSOR has put bytes of results before a step on its connection: address of the first, and behind the last.

    They are right within a tolerance only, and which of them are whole numbers is not followed.
    """
    numbers, found = list[tuple[int, int]](), list[tuple[int, int]]()
    for step in session.of(reader.connection):
        if step is reader:
            break
        match step.message:
            case Graph(nodes=nodes, tensors=tensors):
                numbers += [_range(record) for record in tensors[np.isin(tensors["id"], nodes)]]
            case CopyTensor(src=src, dst=dst) if (dtype := BY_NUMBER.get(src.type)) is not None:
                (a, b, c, d), (e, f, g, h) = src.ne, src.nb
                size = extent(dtype, (a, b, c, d), (e, f, g, h))
                if any(src.data < end and first < src.data + size for first, end in numbers):
                    place = (dst.data, dst.data + size)
                    numbers.append(place)
                    found.append(place)
    return found


def writes_more(session: Session, record: Any) -> bool:
    """Whether a node's op updates other operands beside its result."""
    table, number = op_table(session.version), int(record["op"])
    op = ops_of(session.version).get(table[number]) if number < len(table) else None
    return op is not None and bool(op.writes)


def placed(record: Any, start: int, size: int) -> Tensor | None:
    """Return a record's tensor in `size` bytes that begin at an address; None where it is not wholly in them or of unknown type."""
    dtype = BY_NUMBER.get(int(record["type"]))
    known = meaning(int(record["data"]))
    if dtype is None or known is None or known[0] != ADDRESS:
        return None
    ne, nb = tuple(record["ne"].tolist()), tuple(record["nb"].tolist())
    tensor = Tensor(dtype, ne, nb, PlainStorage(np.zeros(size, np.uint8)), int(record["data"]) - start, "dst")
    inside = tensor.offset >= 0 and tensor.offset + tensor.nbytes <= size
    if not inside and (tensor.offset + tensor.nbytes <= 0 or tensor.offset >= size):
        return Tensor(dtype, (0, 1, 1, 1), nb, tensor.storage, 0, "dst")  # elsewhere: no byte of it was read
    return tensor if inside else None


def _node(
    session: Session, record: Any, tensor: Tensor, right: npt.NDArray[np.uint8], got: npt.NDArray[np.uint8]
) -> tuple[str, npt.NDArray[np.bool_]]:
    """Return how a node's result differs, in words, and which bytes belong to it."""
    if tensor.nbytes == 0:
        return "", np.zeros(len(right), bool)
    table, number = op_table(session.version), int(record["op"])
    op = ops_of(session.version).get(table[number]) if number < len(table) else None
    wanted, found = (Tensor(tensor.dtype, tensor.ne, tensor.nb, PlainStorage(data), tensor.offset) for data in (right, got))
    bytes_ = element_bytes(wanted)
    if op is None or op.view or (right[bytes_] == got[bytes_]).all():
        return "", bytes_
    try:
        mismatch = compare_tensors(wanted, found, tolerance_for(op.tolerance, wanted))
    except Violation:
        return "", bytes_
    if mismatch is None or _is_extreme(wanted) or op.writes or _is_order(session, tensor):
        return "", bytes_
    if mismatch.kind == "bytes" and _meets_numbers(session, record):
        return "", bytes_
    shared = ", which shares bytes with a source" if _overlaps(session, record) else ""
    return f"node {op.name}{shared}: {mismatch}", bytes_


def _overlaps(session: Session, record: Any) -> bool:
    """Whether a result shares bytes with one of its sources."""
    for step in session.steps:
        if isinstance(step.message, Graph) and int(record["id"]) in step.message.tensors["id"]:
            sources = step.message.tensors[np.isin(step.message.tensors["id"], record["src"][record["src"] != 0])]
            return any(_shares(record, source) for source in sources)
    return False


def _shares(one: Any, two: Any) -> bool:
    (start, end), (first, last) = _range(one), _range(two)
    return start < last and first < end


def _range(record: Any) -> tuple[int, int]:
    dtype, start = BY_NUMBER.get(int(record["type"])), int(record["data"])
    if dtype is None:
        return start, start
    (a, b, c, d), (e, f, g, h) = record["ne"].tolist(), record["nb"].tolist()
    return start, start + extent(dtype, (a, b, c, d), (e, f, g, h))


def _is_order(session: Session, tensor: Tensor) -> bool:
    """Whether a result may be an order of numbers among which a mutation has put NaN or equal ones: several are right."""
    return tensor.dtype.name == "I32" and bool(session.notes)


def _meets_numbers(session: Session, record: Any) -> bool:
    """Whether bytes of other nodes' results may be among those of a node's result or sources.

    Those are right within a tolerance only, and a copy of them as whole numbers is not the same byte by byte: where a mutation has
    it so, and where a buffer is written by a CPY and its graph computed again, a CPY of I8 over the result of a GATED_DELTA_NET.
    """
    if session.notes and any(isinstance(step.message, CopyTensor) for step in session.steps):
        return True  # which bytes are where then is not followed
    graphs = [step.message for step in session.steps if isinstance(step.message, Graph)]
    mine = [record, *(source for graph in graphs for source in graph.tensors[np.isin(graph.tensors["id"], record["src"])])]
    others = [node for graph in graphs for node in graph.tensors[np.isin(graph.tensors["id"], graph.nodes)]]
    return any(_shares(one, node) for one in mine for node in others if node["id"] != record["id"])


def tolerance_for(own: Tolerance, tensor: Tensor) -> Tolerance:
    """Return how far off a result of a mutated node may be."""
    base = LOOSE if tensor.dtype.name in ("F32", "F64", "I32", "I64") else NARROW
    return Tolerance(max(own.rtol, base.rtol), max(own.atol, base.atol), max(own.nmse, base.nmse), base.reason)


def _is_extreme(tensor: Tensor) -> bool:
    """Whether there are NaN, infinities or huge numbers: where they arise depends on the order of summation."""
    with np.errstate(invalid="ignore", over="ignore"):
        values = np.abs(tensor.values())
    return bool((~np.isfinite(values) | (values > MOST_EXTREME)).any())


def nodes_of(session: Session) -> set[tuple[Any, ...]] | None:
    """Return what each computed node is: op, parameters, layouts, what shares bytes; None where a graph is mere bytes."""
    found: set[tuple[Any, ...]] = set()
    for step in session.steps:
        if isinstance(step.message, Packet) and step.label(session.version) == command_name(GraphCompute):
            return None
        if isinstance(step.message, Graph):
            by_id = {int(record["id"]): record for record in step.message.tensors}
            nodes = [by_id[id_] for id_ in step.message.nodes.tolist() if id_ in by_id]
            found.update(_node_key(node, by_id, session.version) for node in nodes if node["flags"] & FLAG_COMPUTE)
    return found


def _node_key(node: Any, by_id: dict[int, Any], version: Version) -> tuple[Any, ...]:
    table, number = op_table(version), int(node["op"])
    op = ops_of(version).get(table[number]) if number < len(table) else None
    read = [slot for param in op.params for slot in range(param.slot, param.slot + 2 * param.count)] if op else range(16)
    sources = [by_id.get(id_) for id_ in node["src"].tolist()]
    rows = [None if row is None else (_layout(row), _shares(node, row)) for row in sources]
    return (number, tuple(node["op_params"].tolist()[slot] for slot in read if slot < 16), _layout(node), *rows)


def _layout(record: Any) -> tuple[Any, ...]:
    return (int(record["type"]), *record["ne"].tolist(), *record["nb"].tolist())
