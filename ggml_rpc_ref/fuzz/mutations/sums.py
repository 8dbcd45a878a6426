"""Mutations of sums with another server: what a client asks for, and what the other server says and does."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from ggml_rpc_ref.fuzz.mutations.table import insert, mutation, odd, pick, put
from ggml_rpc_ref.fuzz.session import Note, Session
from ggml_rpc_ref.spec.dtypes import types
from ggml_rpc_ref.spec.messages import CAPS_SIZE, MAX_DIMS, CommAllreduce, CommFree, CommInit, RpcTensor, command_name


@mutation("sum.field")
def field(rng: Random, session: Session) -> Note | None:
    """Change a field of COMM_INIT, or the device of a later request."""
    index = pick(rng, session, CommInit, CommAllreduce, CommFree)
    if index is None:
        return None
    message: Any = session.steps[index].message
    name = rng.choice(("device", "rank", "world", "port", "host")) if isinstance(message, CommInit) else "device"
    if name == "host":
        new: Any = rng.choice((b"", b"\xff" * 64, b"127.0.0.1".ljust(64, b"x"), b"0.0.0.0", rng.randbytes(64), b"localhost"))
    elif name == "port":
        new = rng.choice((0, 65536, 2**31, 2**32 - 1, message.port + 65536))
    else:
        new = rng.choice((0, 1, 2, 3, odd(rng, getattr(message, name))))
    if new == getattr(message, name):
        return None
    put(session, index, replace(message, **{name: new}))
    return Note("sum.field", command_name(type(message)), f"{name} {getattr(message, name)} -> {new}")


@mutation("sum.peer")
def peer(rng: Random, session: Session) -> Note | None:
    """Let the other server say less, more or something else, leave early, or not come."""
    if not session.peers:
        return None
    at = rng.randrange(len(session.peers))
    old = session.peers[at]
    match rng.randrange(6):
        case 0:
            kept = rng.choice((0, 1, CAPS_SIZE - 1, CAPS_SIZE, rng.randrange(len(old.says) + 1)))
            new, what = replace(old, says=old.says[:kept]), f"says {kept} of {len(old.says)} bytes"
        case 1:
            kept = rng.choice((0, 1, CAPS_SIZE - 1, CAPS_SIZE, rng.randrange(len(old.says) + 1)))
            new, what = replace(old, says=old.says[:kept], leaves=True), f"says {kept} of {len(old.says)} bytes and leaves"
        case 2:
            more = rng.randbytes(rng.choice((1, 4, 64, 4096, 2**18)))
            new, what = replace(old, says=old.says + more), f"says {len(more)} bytes more"
        case 3:
            new, what = replace(old, says=rng.randbytes(len(old.says))), "says something else"
        case 4:
            new, what = replace(old, says=b"\xff" * CAPS_SIZE + old.says[CAPS_SIZE:]), "offers another transport"
        case _:
            new, what = replace(old, leaves=True), "leaves once all is said"
    session.peers = (*session.peers[:at], new, *session.peers[at + 1 :])
    return Note("sum.peer", "the other server", what)


@mutation("sum.tensor")
def tensor(rng: Random, session: Session) -> Note | None:
    """Sum a tensor that no server can sum: of another type, with gaps, of other dimensions, or in no buffer."""
    index = pick(rng, session, CommAllreduce)
    if index is None:
        return None
    message: Any = session.steps[index].message
    old: RpcTensor = message.tensor
    size = old.nb[0]
    match rng.randrange(5):
        case 0:
            other = rng.choice([*types(session.version), odd(rng, old.type)])
            new, what = replace(old, type=other), f"type {old.type} -> {other}"
        case 1:
            nb = rng.choice(((2 * size, *old.nb[1:]), (0, *old.nb[1:]), (size, odd(rng, old.nb[1]), *old.nb[2:]), (size,) * 4))
            new, what = replace(old, nb=nb), f"nb {old.nb} -> {nb}"
        case 2:
            # as many elements, but not one after the other
            half = old.ne[0] // 2
            new = replace(old, ne=(half, 2, 1, 1), nb=(2 * size, size, old.nb[2], old.nb[3]))
            what = "its elements taken in turns from two rows"
        case 3:
            new, what = replace(old, buffer=0), "in no buffer"
        case _:
            axis, dims = rng.randrange(MAX_DIMS), list(old.ne)
            dims[axis] = odd(rng, dims[axis])
            a, b, c, d = dims
            ne = (a, b, c, d)
            new, what = replace(old, ne=ne), f"ne {old.ne} -> {ne}"
    if new == old:
        return None
    put(session, index, replace(message, tensor=new))
    return Note("sum.tensor", "COMM_ALLREDUCE", what)


@mutation("sum.order")
def order(rng: Random, session: Session) -> Note | None:
    """Sum or part where there is nobody, or join again."""
    index = pick(rng, session, CommInit, CommAllreduce, CommFree)
    if index is None:
        return None
    step = session.steps[index]
    wanted: Any = rng.choice((CommFree(device=0), step.message))
    place = rng.randrange(len(session.steps) + 1)
    if rng.random() < 0.5 and isinstance(step.message, CommInit):
        del session.steps[index]
        return Note("sum.order", "COMM_INIT", f"step {index} left out")
    insert(session, place, wanted, step.connection)
    return Note("sum.order", command_name(type(wanted)), f"as step {place}")
