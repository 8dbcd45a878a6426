"""Mutations of the order of messages: exchanged, left out, repeated; buffers freed too early, graphs computed again too late."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from ggml_rpc_ref.fuzz.mutations.table import insert, mutation, pick
from ggml_rpc_ref.fuzz.packet import handle, meaning
from ggml_rpc_ref.fuzz.session import Note, Session
from ggml_rpc_ref.fuzz.tensors import block
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.spec.messages import (
    AllocBuffer,
    BufferClear,
    BufferGetBase,
    DeviceCount,
    FreeBuffer,
    GetAlignment,
    GetMaxSize,
    GetTensor,
    GraphRecompute,
    SetTensor,
    by_number,
    command_name,
    has_field,
)


@mutation("order.exchange")
def exchange(rng: Random, session: Session) -> Note | None:
    """Exchange two messages."""
    if len(session.steps) < 2:
        return None
    one, two = sorted(rng.sample(range(len(session.steps)), 2))
    steps = session.steps
    if steps[one].connection != steps[two].connection:
        return None
    steps[one], steps[two] = (replace(steps[i], mutated=True, expected=None) for i in (two, one))
    return Note("order.exchange", steps[one].label(session.version).partition(" of ")[0], f"steps {one} and {two} exchanged")


@mutation("order.drop")
def drop(rng: Random, session: Session) -> Note | None:
    """Leave out a message: an upload, so that a graph computes on what is there, or any other."""
    index = pick(rng, session, SetTensor) if rng.random() < 0.6 else rng.randrange(len(session.steps)) if session.steps else None
    # the buffers must be cleared at the start: what they hold before is not the server's fault
    if index is None or len(session.steps) < 2 or isinstance(session.steps[index].message, BufferClear):
        return None
    gone = session.steps.pop(index)
    return Note("order.drop", gone.label(session.version).partition(" of ")[0], f"step {index} left out")


@mutation("order.repeat")
def repeat(rng: Random, session: Session) -> Note | None:
    """Say a message again, at once or later, once or many times."""
    if not session.steps:
        return None
    index = rng.randrange(len(session.steps))
    step, times = replace(session.steps[index], mutated=True, expected=None), rng.choice((1, 1, 2, 50))
    later = index + 1 if rng.random() < 0.5 else rng.randrange(index + 1, len(session.steps) + 1)
    session.steps[later:later] = [step] * times
    return Note("order.repeat", step.label(session.version).partition(" of ")[0], f"{times} times more")


@mutation("order.free")
def free(rng: Random, session: Session) -> Note | None:
    """Free a buffer that is still used afterwards, perhaps twice."""
    if not session.buffers or not session.steps:
        return None
    buffer = rng.choice(session.buffers)
    there = [index for index, step in enumerate(session.steps) if step.connection == buffer.connection] or [0]
    index = rng.choice(there) + rng.randrange(2)
    for _ in range(rng.choice((1, 1, 2))):
        insert(session, index, FreeBuffer(remote_ptr=handle(buffer.number)), buffer.connection)
    return Note("order.free", "FREE_BUFFER", f"buffer {buffer.number} freed before it was last used")


@mutation("order.free-recompute")
def free_recompute(rng: Random, session: Session) -> Note | None:
    """Free a buffer after its graph, compute that again, and say nothing more: all that follows would be refused anyway."""
    index = pick(rng, session, Graph)
    if index is None or session.connections > 1 or GraphRecompute not in _commands(session):
        return None
    graph: Any = session.steps[index].message
    used = [found[1] for data in graph.tensors["data"].tolist() if (found := meaning(data))]
    if not used:
        return None
    del session.steps[index + 1 :]
    uid = graph.uid if has_field(GraphRecompute, "uid", session.version) else 0
    insert(session, index + 1, FreeBuffer(remote_ptr=handle(used[0])), 0)
    insert(session, index + 2, GraphRecompute(device=graph.device, uid=uid), 0)
    return Note("order.free-recompute", "GRAPH_RECOMPUTE", f"after buffer {used[0]} was freed")


def _commands(session: Session) -> set[type]:
    return {row.cls for row in by_number(session.version).values()}


@mutation("order.recompute")
def recompute(rng: Random, session: Session) -> Note | None:
    """Compute a graph again: before there is one, after its buffer is freed, after a refused one, or for another device."""
    if not session.steps or GraphRecompute not in _commands(session):
        return None
    index = rng.randrange(len(session.steps) + 1)
    device = rng.choice((0, 0, 0, 1))
    found = [step.message.uid for step in session.steps if isinstance(step.message, Graph)]
    uid = (found or [1])[-1] if has_field(GraphRecompute, "uid", session.version) else 0
    connection = session.steps[min(index, len(session.steps) - 1)].connection
    insert(session, index, GraphRecompute(device=device, uid=uid), connection)
    return Note("order.recompute", "GRAPH_RECOMPUTE", f"of device {device}, as step {index}")


@mutation("order.moved")
def moved(rng: Random, session: Session) -> Note | None:
    """Use a handle on another connection than its own, where the session has two; else any handle twice as late."""
    index = pick(rng, session, FreeBuffer, BufferClear, BufferGetBase, SetTensor, Graph)
    if index is None or session.connections < 2:
        return None
    step: Any = session.steps.pop(index)
    other = rng.choice([c for c in range(session.connections) if c != step.connection])
    session.steps.append(replace(step, connection=other, mutated=True, expected=None))
    return Note("order.moved", step.label(session.version).partition(" of ")[0], f"said on connection {other}")


@mutation("order.leave")
def leave(rng: Random, session: Session) -> Note | None:
    """Reset the connection once all is said, without reading a reply."""
    if session.leaves or not session.steps:
        return None
    session.leaves = True
    return Note("order.leave", "the connection", "reset before any reply is read")


@mutation("order.many")
def many(rng: Random, session: Session) -> Note | None:
    """Allocate many buffers and free none."""
    if not session.steps:
        return None
    count, size = rng.choice((16, 256, 1000)), rng.choice((0, 1, 4096, 2**20))
    connection = session.steps[-1].connection
    for _ in range(count):
        insert(session, len(session.steps), AllocBuffer(size=size), connection)
    return Note("order.many", "ALLOC_BUFFER", f"{count} buffers of {size} bytes")


@mutation("order.stale")
def stale(rng: Random, session: Session) -> Note | None:
    """Use a buffer of another connection, which has ended or not, on a new one."""
    if not session.buffers or session.headless or session.short or session.connections > 3:
        return None
    buffer, new = rng.choice(session.buffers), session.connections
    whole = block(buffer.number, 0, 64)
    wanted = rng.choice(
        (
            BufferGetBase(remote_ptr=handle(buffer.number)), BufferClear(remote_ptr=handle(buffer.number), value=1),
            FreeBuffer(remote_ptr=handle(buffer.number)), GetTensor(tensor=whole, offset=0, size=64),
            SetTensor(tensor=whole, offset=0, data=bytes(64)),
        )
    )  # fmt: skip
    session.apart = rng.random() < 0.5
    insert(session, len(session.steps), wanted, new)
    return Note(
        "order.stale",
        command_name(type(wanted)),
        f"of buffer {buffer.number} of {'a connection that has ended' if session.apart else 'another connection'}",
    )


@mutation("order.count")
def count(rng: Random, session: Session) -> Note | None:
    """Ask some times for what must not change."""
    if not session.steps:
        return None
    commands = _commands(session)
    wanted = DeviceCount() if DeviceCount in commands and rng.random() < 0.5 else rng.choice((GetAlignment(), GetMaxSize()))
    connection = session.steps[0].connection
    for _ in range(rng.choice((2, 5, 20))):
        insert(session, 0, wanted, connection)
    return Note("order.count", command_name(type(wanted)), "asked several times")
