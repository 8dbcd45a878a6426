"""Mutations of the other requests: their tensors, ranges, handles and devices."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any, Final

from ggml_rpc_ref.fuzz.mutations.graphs import odd_handle, words
from ggml_rpc_ref.fuzz.mutations.table import insert, mutation, odd, pick, put, wrap
from ggml_rpc_ref.fuzz.packet import Packet, address, meaning
from ggml_rpc_ref.fuzz.session import Buffer, Note, Session
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.spec.dtypes import type_count
from ggml_rpc_ref.spec.messages import MAX_DIMS, AllocBuffer, CopyTensor, RpcTensor, command_name, fields

RANGES: Final = ("offset", "size", "n_copies", "stride", "hash", "value", "cache_flag")


def _with_field(rng: Random, session: Session, *names: str) -> tuple[int, Any, str] | None:
    """Return (index, message, field) of a random step that is not a graph and has one of the fields."""
    found = []
    for index, step in enumerate(session.steps):
        if not isinstance(step.message, Graph | Packet | Buffer):
            there = {row.name for row in fields(type(step.message), session.version)}
            found += [(index, step.message, name) for name in names if name in there]
    return rng.choice(found) if found else None


def _note(name: str, message: Any, what: str) -> Note:
    return Note(name, command_name(type(message)), what)


@mutation("range.field")
def field(rng: Random, session: Session) -> Note | None:
    """Change an offset, a size, a stride or a count."""
    found = _with_field(rng, session, *RANGES)
    if found is None:
        return None
    index, message, name = found
    old = int(getattr(message, name))
    new = odd(rng, old, 8 if name in ("value", "cache_flag") else 64)
    put(session, index, replace(message, **{name: new}))
    return _note("range.field", message, f"{name} {old} -> {new}")


@mutation("range.none")
def none(rng: Random, session: Session) -> Note | None:
    """Move nothing: a size or a number of rows of 0, and no data."""
    found = (rng.random() < 0.7 and _with_field(rng, session, "n_copies")) or _with_field(rng, session, "n_copies", "size")
    if not found:
        return None
    index, message, name = found
    name = rng.choice(("n_copies", "size")) if hasattr(message, "n_copies") else name
    data = {"data": b""} if hasattr(message, "data") else {}
    put(session, index, replace(message, **{name: 0}, **data))
    return _note("range.none", message, f"{name} {getattr(message, name)} -> 0")


@mutation("range.wrap")
def range_wrap(rng: Random, session: Session) -> Note | None:
    """Choose an offset that wraps round 2^64 to just before the tensor, or to another address in the buffer."""
    found = _with_field(rng, session, "offset")
    if found is None:
        return None
    index, message, _ = found
    back = rng.choice((1, 4, 64, 256, 4096))
    put(session, index, replace(message, offset=2**64 - back))
    return _note("range.wrap", message, f"offset -{back}")


@mutation("range.alloc")
def alloc(rng: Random, session: Session) -> Note | None:
    """Ask for a buffer of another size, mostly one that nobody can give."""
    if not session.steps:
        return None
    size = rng.choice((2**64 - 1, 2**63, 2**63 - 1, 2**62, 2**48, 2**40, 2**64 - 64, 2**31, rng.randrange(10_000)))
    index = rng.randrange(len(session.steps))
    insert(session, index, AllocBuffer(size=size), session.steps[index].connection)
    return Note("range.alloc", "ALLOC_BUFFER", f"of {size} bytes")


@mutation("range.copy")
def copy(rng: Random, session: Session) -> Note | None:
    """Copy something else, or to somewhere else: what another request names."""
    index = pick(rng, session, CopyTensor)
    other = _with_field(rng, session, "tensor", "src", "dst")
    if index is None or other is None:
        return None
    message: Any = session.steps[index].message
    name = rng.choice(("src", "dst"))
    put(session, index, replace(message, **{name: getattr(other[1], other[2])}))
    return _note("range.copy", message, f"{name} is what {command_name(type(other[1]))} names")


@mutation("handle.remote_ptr")
def remote_ptr(rng: Random, session: Session) -> Note | None:
    """Name another buffer, or none."""
    found = _with_field(rng, session, "remote_ptr")
    if found is None:
        return None
    index, message, _ = found
    new = wrap(odd_handle(rng, session, message.remote_ptr))
    put(session, index, replace(message, remote_ptr=new))
    return _note("handle.remote_ptr", message, f"remote_ptr -> {words(new)}")


@mutation("handle.device")
def device(rng: Random, session: Session) -> Note | None:
    """Name a device that may not be there."""
    found = _with_field(rng, session, "device")
    if found is None:
        return None
    index, message, _ = found
    new = rng.choice((1, 2, 16, 255, 2**31, 2**32 - 1))
    put(session, index, replace(message, device=new))
    return _note("handle.device", message, f"device {message.device} -> {new}")


@mutation("handle.uid")
def uid(rng: Random, session: Session) -> Note | None:
    """Name another graph to compute again."""
    found = _with_field(rng, session, "uid")
    if found is None:
        return None
    index, message, _ = found
    others = [step.message.uid for step in session.steps if isinstance(step.message, Graph)] or [0]
    new = rng.choice((others[0], others[0], others[-1], rng.choice(others), 0, odd(rng, message.uid, 64)))
    if new == message.uid:
        return None
    put(session, index, replace(message, uid=new))
    return _note("handle.uid", message, f"uid {message.uid} -> {new}")


# -------------------------------------------------------------------------------------------------------------- tensors


@mutation("tensor.field")
def tensor_field(rng: Random, session: Session) -> Note | None:
    """Change one field of the tensor that a request names."""
    found = _with_field(rng, session, "tensor", "src", "dst")
    if found is None:
        return None
    index, message, name = found
    tensor: RpcTensor = getattr(message, name)
    changed, what = _changed(rng, session, tensor)
    put(session, index, replace(message, **{name: changed}))
    return _note("tensor.field", message, f"{name}.{what}")


@mutation("tensor.srcs")
def srcs(rng: Random, session: Session) -> Note | None:
    """Change one field of a source in GET_ALLOC_SIZE, or its op."""
    found = _with_field(rng, session, "srcs")
    if found is None:
        return None
    index, message, _ = found
    slot = rng.randrange(max(1, len(message.srcs)))
    if slot >= len(message.srcs) or rng.random() < 0.2:
        op = odd(rng, message.tensor.op)
        put(session, index, replace(message, tensor=replace(message.tensor, op=op)))
        return _note("tensor.srcs", message, f"tensor.op -> {op}")
    changed, what = _changed(rng, session, message.srcs[slot])
    put(session, index, replace(message, srcs=(*message.srcs[:slot], changed, *message.srcs[slot + 1 :])))
    return _note("tensor.srcs", message, f"srcs[{slot}].{what}")


def _changed(rng: Random, session: Session, tensor: RpcTensor) -> tuple[RpcTensor, str]:
    match rng.randrange(6):
        case 0 | 1:
            name = rng.choice(("ne", "nb"))
            axis, values = rng.randrange(MAX_DIMS), list(getattr(tensor, name))
            values[axis] = odd(rng, values[axis])
            return _with(tensor, name, tuple(values)), f"{name}[{axis}] -> {values[axis]}"
        case 2:
            new = rng.choice((rng.randrange(type_count(session.version)), type_count(session.version), odd(rng, tensor.type)))
            return replace(tensor, type=new), f"type -> {new}"
        case 3:
            new = wrap(odd_handle(rng, session, tensor.buffer))
            return replace(tensor, buffer=new), f"buffer -> {words(new)}"
        case 4:
            return _moved(rng, session, tensor)
        case _:
            name = rng.choice(("id", "view_offs", "view_src", "op"))
            new = odd(rng, getattr(tensor, name), 32 if name == "op" else 64)
            return _with(tensor, name, new), f"{name} -> {new}"


def _with(tensor: RpcTensor, name: str, value: Any) -> RpcTensor:
    return replace(tensor, **{name: value})


def _moved(rng: Random, session: Session, tensor: RpcTensor) -> tuple[RpcTensor, str]:
    known = meaning(tensor.data)
    shift = rng.choice((1, -1, 4, -4, 64, -64, odd(rng, 64, 24)))
    if known and rng.random() < 0.5:
        size = next((b.size for b in session.buffers if b.number == known[1]), 0)
        shift = address(known[1], size) - tensor.data - rng.choice((0, 1, 4, 64))
    new = wrap(tensor.data + shift) if rng.random() < 0.9 else rng.choice((0, 2**64 - 1, 2**64 - 64, 2**47))
    return replace(tensor, data=new), f"data moved {shift:+d}" if new == tensor.data + shift else f"data -> {new:#x}"
