"""Mutations of graphs: geometry, links, ops and parameters, and where tensors lie."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any, Final

import numpy as np

from ggml_rpc_ref.fuzz.mutations.table import Editor, insert, mutation, odd, odd_float, signed, wrap
from ggml_rpc_ref.fuzz.packet import address, handle, meaning
from ggml_rpc_ref.fuzz.session import PER_CONNECTION, Note, Session
from ggml_rpc_ref.fuzz.tensors import block
from ggml_rpc_ref.ops import ops_of
from ggml_rpc_ref.spec.dtypes import BY_NUMBER, DEAD_NUMBERS, DType, type_count, types
from ggml_rpc_ref.spec.messages import MAX_DIMS, MAX_OP_PARAMS, MAX_SRC, GetTensor, GraphCompute, SetTensor, fields
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.tensor import contiguous_nb, extent

UNKNOWN: Final = 0xDEAD0000
"""An id that no tensor has."""
MOST_TENSORS: Final = 4096
MOST_WIDE: Final = 2**24
"""Bytes of an operand that is made wide."""
MOST_READ: Final = 2**21
"""Bytes of it that are uploaded or read."""


# ------------------------------------------------------------------------------------------------------------- geometry


@mutation("geometry.ne")
def ne(rng: Random, session: Session) -> Note | None:
    """Change one dimension of a tensor, its strides as they were."""
    edit = Editor(rng, session)
    if edit.is_empty:
        return None
    axis = rng.randrange(MAX_DIMS)
    old = int(edit.record["ne"][axis])
    edit.record["ne"][axis] = new = odd(rng, old)
    return edit.done("geometry.ne", f"{edit.role}.ne[{axis}] {old} -> {new}")


@mutation("geometry.resize")
def resize(rng: Random, session: Session) -> Note | None:
    """Change one dimension of a tensor, the strides as they must be then."""
    edit = Editor(rng, session)
    if edit.is_empty or int(edit.record["type"]) not in BY_NUMBER:
        return None
    axis, dtype = rng.randrange(MAX_DIMS), BY_NUMBER[int(edit.record["type"])]
    old = int(edit.record["ne"][axis])
    new = rng.choice((0, 1, 2, max(1, old - 1), old + 1, old * 2, max(1, old // 2), old + dtype.block, odd(rng, old))) & 0xFFFFFFFF
    edit.record["ne"][axis] = new
    a, b, c, d = edit.record["ne"].tolist()
    edit.record["nb"] = np.array(contiguous_nb(dtype, (a, b, c, d)), dtype=object) & 0xFFFFFFFF
    return edit.done("geometry.resize", f"{edit.role}.ne[{axis}] {old} -> {new}, strides to match")


@mutation("geometry.wide")
def wide(rng: Random, session: Session) -> Note | None:
    """Make the rows of a node much longer, those of sources as long as they were too, all of it in a larger buffer.

    Where they are not larger than MOST_READ, the sources get numbers and the result is read: a fault that begins at a length would
    not be seen otherwise.
    """
    edit = Editor(rng, session)
    home = None if edit.is_empty else meaning(int(edit.node["data"]))
    buffer = home and next((b for b in session.buffers if b.number == home[1]), None)
    if not buffer:
        return None
    old, more = int(edit.node["ne"][0]), rng.choice((1000, 1024, 5000, 5000, 70_000, 2**20))
    padding, step = (_param(session, edit.target, name) for name in ("p0", "s0"))
    rows = [edit.node]
    if padding is None:
        sources = [edit.tensors[edit.by_id[id_]] for id_ in edit.node["src"].tolist() if id_ in edit.by_id]
        rows += [row for row in sources if int(row["ne"][0]) == old and not row["view_src"]]
    else:
        # the result of a window that moves over an image is made longer by zeros around that
        zeros = int(edit.node["op_params"][padding]) + more * (int(edit.node["op_params"][step]) if step is not None else 1) // 2
        edit.node["op_params"][padding] = signed(zeros & 0xFFFFFFFF)  # the step may be any number by now
        more -= more % 2
    end, uploads = buffer.size, list[SetTensor]()
    download: GetTensor | None = None
    for row in rows:
        dtype = BY_NUMBER.get(int(row["type"]))
        if dtype is None or dtype.block > 1024:
            return None
        length = old + more - more % dtype.block
        if length >= 2**32:  # another mutation has been here
            return None
        row["ne"][0] = length
        a, b, c, d = row["ne"].tolist()
        nb = contiguous_nb(dtype, (a, b, c, d))
        if not 0 < nb[3] * d < MOST_WIDE:
            return None
        row["nb"], row["data"], row["view_src"] = nb, address(buffer.number, end), 0
        if nb[3] * d <= MOST_READ:
            place = block(buffer.number, end, nb[3] * d)
            if row is edit.node:
                download = GetTensor(tensor=place, offset=0, size=nb[3] * d)
            elif dtype.name in ("F32", "F16"):
                uploads.append(SetTensor(tensor=place, offset=0, data=_numbers(rng, dtype, nb[3] * d)))
        end += -(-nb[3] * d // 4096) * 4096
    session.buffers = tuple(replace(b, size=end + 4096) if b is buffer else b for b in session.buffers)
    assert edit.index is not None
    index, connection = edit.index, session.steps[edit.index].connection
    note = edit.done("geometry.wide", f"{len(rows)} operands with {more} more elements a row")
    if download is not None:
        insert(session, index + 1, download, connection)
    for upload in uploads:
        insert(session, index, upload, connection)
    return note


def _numbers(rng: Random, dtype: DType, size: int) -> bytes:
    """Return bytes of normally distributed F32 or F16."""
    numbers = np.random.default_rng(rng.getrandbits(32)).standard_normal(size // dtype.size)
    return numbers.astype(np.float32 if dtype.name == "F32" else np.float16).tobytes()


def _param(session: Session, op: str, name: str) -> int | None:
    """Return the slot of an op's parameter; None where it has none of the name."""
    row = ops_of(session.version).get(op)
    return next((param.slot for param in row.params if param.name == name), None) if row else None


@mutation("geometry.swap")
def swap(rng: Random, session: Session) -> Note | None:
    """Exchange two dimensions, and perhaps their strides."""
    edit = Editor(rng, session)
    if edit.is_empty:
        return None
    one, two = rng.sample(range(MAX_DIMS), 2)
    names = ("ne", "nb") if rng.random() < 0.5 else ("ne",)
    for name in names:
        edit.record[name][[one, two]] = edit.record[name][[two, one]]
    return edit.done("geometry.swap", f"{edit.role}: {' and '.join(names)} of dimensions {one} and {two} exchanged")


@mutation("geometry.nb")
def nb(rng: Random, session: Session) -> Note | None:
    """Change one stride of a tensor."""
    edit = Editor(rng, session)
    if edit.is_empty:
        return None
    axis = rng.randrange(MAX_DIMS)
    old = int(edit.record["nb"][axis])
    edit.record["nb"][axis] = new = odd(rng, old)
    return edit.done("geometry.nb", f"{edit.role}.nb[{axis}] {old} -> {new}")


@mutation("geometry.hidden")
def hidden(rng: Random, session: Session) -> Note | None:
    """Change the stride of a dimension of one element, which no sum over the elements shows, to one that is far, or negative."""
    edit = Editor(rng, session)
    if edit.is_empty:
        return None
    axes = [axis for axis in range(MAX_DIMS) if edit.record["ne"][axis] == 1]
    if not axes:
        return None
    axis, new = rng.choice(axes), rng.choice((2**31, 2**31 - 8, 2**32 - 64, 2**32 - 8, 2**32 - 4, 2**24, 0))
    old = int(edit.record["nb"][axis])
    edit.record["nb"][axis] = new
    return edit.done("geometry.hidden", f"{edit.role}.nb[{axis}] {old} -> {new}, of one element")


@mutation("geometry.type")
def type_(rng: Random, session: Session) -> Note | None:
    """Give a tensor another type, its strides perhaps to match."""
    edit = Editor(rng, session)
    if edit.is_empty:
        return None
    known, old = list(types(session.version)), int(edit.record["type"])
    none = [*DEAD_NUMBERS, type_count(session.version), odd(rng, old)]
    new = rng.choice(known if rng.random() < 0.8 else none)
    edit.record["type"] = new
    fits = new in BY_NUMBER and rng.random() < 0.6
    if fits:
        a, b, c, d = edit.record["ne"].tolist()
        edit.record["nb"] = np.array(contiguous_nb(BY_NUMBER[new], (a, b, c, d)), dtype=object) & 0xFFFFFFFF
    words = f"{edit.role}.type {_type(old)} -> {_type(new)}{', strides to match' if fits else ''}"
    return edit.done("geometry.type", words)


def _type(number: int) -> str:
    return BY_NUMBER[number].name if number in BY_NUMBER else str(number)


@mutation("geometry.alike")
def alike(rng: Random, session: Session) -> Note | None:
    """Give a tensor the type, dimensions and strides of another one of the graph."""
    edit = Editor(rng, session)
    if edit.is_empty:
        return None
    other = edit.other()
    for name in rng.choice((("type", "ne", "nb"), ("ne",), ("type",), ("ne", "nb"))):
        edit.record[name] = other[name]
    return edit.done("geometry.alike", f"{edit.role} has the layout of tensor {int(other['id']):#x}")


@mutation("geometry.view_offs")
def view_offs(rng: Random, session: Session) -> Note | None:
    """Change a view's offset."""
    edit = Editor(rng, session)
    if edit.is_empty:
        return None
    old = int(edit.record["view_offs"])
    edit.record["view_offs"] = new = odd(rng, old, 64)
    return edit.done("geometry.view_offs", f"{edit.role}.view_offs {old} -> {new}")


# ---------------------------------------------------------------------------------------------------------------- links


def _some_id(edit: Editor) -> int:
    """Return an id worth linking to."""
    rng, own = edit.rng, int(edit.node["id"])
    return rng.choice((0, own, int(edit.other()["id"]), int(edit.other()["id"]), wrap(own + 1), UNKNOWN, 2**64 - 1))


@mutation("links.src")
def src(rng: Random, session: Session) -> Note | None:
    """Change one source of a node."""
    edit = Editor(rng, session)
    if edit.is_empty:
        return None
    slot = rng.choice((0, 0, 1, 1, 2, rng.randrange(MAX_SRC)))
    edit.node["src"][slot] = new = _some_id(edit)
    return edit.done("links.src", f"src[{slot}] -> {new:#x}")


@mutation("links.drop")
def drop(rng: Random, session: Session) -> Note | None:
    """Leave out a source of a node."""
    edit = Editor(rng, session)
    slots = [] if edit.is_empty else np.flatnonzero(edit.node["src"]).tolist()
    if not slots:
        return None
    slot = rng.choice(slots)
    edit.node["src"][slot] = 0
    return edit.done("links.drop", f"without src[{slot}]")


@mutation("links.exchange")
def exchange(rng: Random, session: Session) -> Note | None:
    """Exchange two sources of a node."""
    edit = Editor(rng, session)
    if edit.is_empty:
        return None
    one, two = rng.sample(range(4), 2)
    edit.node["src"][[one, two]] = edit.node["src"][[two, one]]
    return edit.done("links.exchange", f"src[{one}] and src[{two}] exchanged")


@mutation("links.view_src")
def view_src(rng: Random, session: Session) -> Note | None:
    """Make a tensor a view of something else."""
    edit = Editor(rng, session)
    if edit.is_empty:
        return None
    edit.record["view_src"] = new = _some_id(edit)
    return edit.done("links.view_src", f"{edit.role}.view_src -> {new:#x}")


@mutation("links.id")
def id_(rng: Random, session: Session) -> Note | None:
    """Change a tensor's id."""
    edit = Editor(rng, session)
    if edit.is_empty:
        return None
    edit.record["id"] = new = _some_id(edit)
    return edit.done("links.id", f"{edit.role}.id -> {new:#x}")


@mutation("links.nodes")
def nodes(rng: Random, session: Session) -> Note | None:
    """Change the list of nodes: one unknown, twice, left out, a leaf, in another order."""
    edit = Editor(rng, session)
    if edit.is_empty:
        return None
    listed, leaf = edit.nodes.tolist(), int(edit.other()["id"])
    new = rng.choice(
        (
            [*listed, _some_id(edit)], [*listed, *listed], listed[:-1], [leaf, *listed], listed[::-1], [],
            [*listed, *[leaf] * rng.choice((1, 16, 1000))], [int(i) for i in edit.tensors["id"]],
        )
    )  # fmt: skip
    edit.nodes = np.array(new, "<u8")
    return edit.done("links.nodes", f"{len(new)} nodes in place of {len(listed)}")


@mutation("links.tensors")
def tensors(rng: Random, session: Session) -> Note | None:
    """Leave out tensors, repeat them, turn them round, or send a great many."""
    edit = Editor(rng, session)
    if edit.is_empty:
        return None
    records, count = edit.tensors, len(edit.tensors)
    target = edit.target
    gone = np.delete(records, rng.randrange(count))
    many = np.resize(records, min(MOST_TENSORS, count * rng.choice((2, 16, 256))))
    edit.tensors = rng.choice((gone, records[:0], records[::-1].copy(), np.concatenate([records, records[:1]]), many))
    return edit.done("links.tensors", f"{len(edit.tensors)} tensors in place of {count}", target)


@mutation("links.chain")
def chain(rng: Random, session: Session) -> Note | None:
    """Put a long chain of views before a source of a node."""
    edit = Editor(rng, session)
    if edit.is_empty or edit.role == "dst":
        return None
    length = rng.choice((1000, 20_000, 100_000)) if rng.random() < 0.02 else rng.choice((2, 16))
    links = np.repeat(edit.record.reshape(1), length)
    links["id"] = UNKNOWN + np.arange(length, dtype=np.uint64)
    links["op"], links["view_src"], links["view_offs"] = op_table(session.version).index("VIEW"), edit.record["id"], 0
    links["src"] = 0
    links["src"][:, 0] = np.concatenate([edit.record["id"].reshape(1), links["id"][:-1]])
    edit.node["src"][int(edit.role.removeprefix("src"))] = links["id"][-1]
    edit.tensors = np.concatenate([edit.tensors, links])
    return edit.done("links.chain", f"{length} views before {edit.role}")


# ------------------------------------------------------------------------------------------------------------------ ops


@mutation("op.number")
def number(rng: Random, session: Session) -> Note | None:
    """Give a node another op, its operands as they were."""
    edit = Editor(rng, session)
    if edit.is_empty:
        return None
    table, old = op_table(session.version), edit.target
    new = rng.randrange(len(table)) if rng.random() < 0.9 else odd(rng, len(table))
    edit.node["op"] = new
    return edit.done("op.number", f"{old} -> {edit.target}")


@mutation("op.leaf")
def leaf_op(rng: Random, session: Session) -> Note | None:
    """Make an operand a node of some op, listed or not."""
    edit = Editor(rng, session)
    if edit.is_empty:
        return None
    target, table = edit.target, op_table(session.version)
    if rng.random() < 0.25:
        edit.record["op"] = new = odd(rng, len(table))  # nobody is to look at the op of what is no node
        return edit.done("op.leaf", f"{edit.role} has op {new}", target)
    edit.record["op"], edit.record["flags"] = rng.randrange(len(table)), 16
    edit.record["src"][0] = _some_id(edit)
    if rng.random() < 0.5:
        edit.nodes = np.concatenate([np.array([edit.record["id"]], "<u8"), edit.nodes])
    return edit.done("op.leaf", f"{edit.role} is made a {table[int(edit.record['op'])]}", target)


@mutation("op.params")
def params(rng: Random, session: Session) -> Note | None:
    """Change one parameter of a node."""
    edit = Editor(rng, session)
    if edit.is_empty:
        return None
    slot = rng.choice((0, 0, 1, 2, 3, 4, 5, rng.randrange(MAX_OP_PARAMS)))
    old = int(edit.node["op_params"][slot])
    new = odd_float(rng) if rng.random() < 0.3 else signed(odd(rng, old & 0xFFFFFFFF))
    edit.node["op_params"][slot] = new
    return edit.done("op.params", f"op_params[{slot}] {old} -> {new}")


@mutation("op.params-all")
def params_all(rng: Random, session: Session) -> Note | None:
    """Set all parameters of a node to one value, to random bits, or to those of another node."""
    edit = Editor(rng, session)
    if edit.is_empty:
        return None
    random_bits = [signed(rng.getrandbits(32)) for _ in range(MAX_OP_PARAMS)]
    small = [rng.randrange(-3, 9) for _ in range(MAX_OP_PARAMS)]
    edit.node["op_params"] = rng.choice((0, -1, 1, 2**31 - 1, -(2**31), random_bits, small, small, edit.other()["op_params"]))
    return edit.done("op.params-all", "all op_params changed")


@mutation("op.flags")
def flags(rng: Random, session: Session) -> Note | None:
    """Change a tensor's flags."""
    edit = Editor(rng, session)
    if edit.is_empty:
        return None
    old = int(edit.record["flags"])
    edit.record["flags"] = new = rng.choice((0, 1, 2, 4, 8, 16, 31, -1, signed(odd(rng, old & 0xFFFFFFFF))))
    return edit.done("op.flags", f"{edit.role}.flags {old} -> {new}")


@mutation("op.device")
def device(rng: Random, session: Session) -> Note | None:
    """Send the graph to another device."""
    edit = Editor(rng, session)
    if edit.is_empty or "device" not in _names(session):
        return None
    new = rng.choice((1, 2, 16, 2**31, 2**32 - 1))
    return edit.done("op.device", f"device {edit.graph.device} -> {new}", device=new)


def _names(session: Session) -> set[str]:
    return {row.name for row in fields(GraphCompute, session.version)}


@mutation("op.rest")
def rest(rng: Random, session: Session) -> Note | None:
    """Change what servers hardly look at: the name, the padding or the use count."""
    edit = Editor(rng, session)
    if edit.is_empty:
        return None
    name = edit.tensors.dtype.names[-1]
    if rng.random() < 0.5:
        edit.record["name"] = np.void(rng.choice((b"A" * 64, b"%s%n" * 16, rng.randbytes(64))))
        return edit.done("op.rest", f"{edit.role}.name fills its 64 bytes")
    value: Any = rng.choice((rng.getrandbits(31), 2**31 - 1, *([] if edit.tensors.dtype[name].kind == "V" else [-1, -(2**31)])))
    edit.record[name] = np.void(value.to_bytes(4, "little")) if edit.tensors.dtype[name].kind == "V" else value
    return edit.done("op.rest", f"{edit.role}.{name} -> {value}")


# ------------------------------------------------------------------------------------------------------------ placement


@mutation("place.data")
def data(rng: Random, session: Session) -> Note | None:
    """Move a tensor within its buffer, to its ends, beyond them, onto another tensor, or into the wild."""
    edit = Editor(rng, session)
    if edit.is_empty:
        return None
    old = int(edit.record["data"])
    new = wrap(_elsewhere(edit, old))
    edit.record["data"] = new
    moved = new - old if abs(new - old) < 2**40 else f"to {new:#x}"
    return edit.done("place.data", f"{edit.role}.data moved {moved}")


def _elsewhere(edit: Editor, old: int) -> int:
    rng, known = edit.rng, meaning(old)
    match rng.randrange(5):
        case 0:
            return rng.choice((0, 1, 4096, 2**47, 2**63, 2**64 - 1, 2**64 - 64))
        case 1:
            return int(edit.other()["data"])
        case 2 if known:
            size = next((b.size for b in edit.session.buffers if b.number == known[1]), 0)
            return address(known[1], rng.choice((0, size, size - 1, size - 4, -4, size - 64)))
        case 3:
            return old + rng.choice((1, 2, 3, -1, 4, -4, 64, -64))
        case _:
            return old + odd(rng, 64, rng.choice((8, 16, 24)))


@mutation("place.buffer")
def buffer(rng: Random, session: Session) -> Note | None:
    """Name another buffer, or none, as the one that a tensor lies in."""
    edit = Editor(rng, session)
    if edit.is_empty:
        return None
    edit.record["buffer"] = new = wrap(odd_handle(rng, session, int(edit.record["buffer"])))
    if new == 0 and rng.random() < 0.5:
        edit.record["data"] = 0
    return edit.done("place.buffer", f"{edit.role}.buffer -> {words(new)}")


def odd_handle(rng: Random, session: Session, old: int) -> int:
    """Return a handle that is not the right one."""
    known = meaning(old)
    connection = known[1] // PER_CONNECTION if known else 0
    others = [b.number for b in session.buffers]
    strangers = [n for n in others if n // PER_CONNECTION != connection] or others or [0]
    return rng.choice(
        (0, 1, old + 1, old - 1, old + 8, old ^ 1 << 4, handle(rng.choice(strangers)), handle(rng.choice(strangers)),
         address(rng.choice(others or [0])), 2**64 - 1, 0x7F0000000000)
    )  # fmt: skip


def words(number: int) -> str:
    """Return a handle in words."""
    known = meaning(number)
    return f"buffer {known[1]}'s {'address' if known[0] else 'handle'}{known[2]:+d}" if known else f"{number:#x}"


@mutation("place.overlap")
def overlap(rng: Random, session: Session) -> Note | None:
    """Let the result share bytes with a source: in place, askew, or by the last byte."""
    edit = Editor(rng, session)
    slots = [] if edit.is_empty else [id_ for id_ in edit.node["src"].tolist() if id_ in edit.by_id]
    if not slots:
        return None
    source = edit.tensors[edit.by_id[rng.choice(slots)]]
    shift = rng.choice((0, 0, 4, 8, 64, -4, 1))
    edit.node["data"], edit.node["buffer"] = wrap(int(source["data"]) + shift), source["buffer"]
    return edit.done("place.overlap", f"dst lies {shift:+d} bytes from a source")


@mutation("place.shrink")
def shrink(rng: Random, session: Session) -> Note | None:
    """Let a tensor end exactly at, or just beyond, the end of its buffer."""
    edit = Editor(rng, session)
    known = None if edit.is_empty else meaning(int(edit.record["data"]))
    if known is None or int(edit.record["type"]) not in BY_NUMBER:
        return None
    size = next((b.size for b in session.buffers if b.number == known[1]), 0)
    (a, b, c, d), (e, f, g, h) = edit.record["ne"].tolist(), edit.record["nb"].tolist()
    length = extent(BY_NUMBER[int(edit.record["type"])], (a, b, c, d), (e, f, g, h))
    beyond = rng.choice((0, 1, 4, 64))
    edit.record["data"] = wrap(address(known[1], size - min(length, size) + beyond))
    return edit.done("place.shrink", f"{edit.role} ends {beyond} bytes beyond its buffer")
