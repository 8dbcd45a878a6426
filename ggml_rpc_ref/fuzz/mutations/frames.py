"""Mutations of bytes: commands, sizes, counts, cut and glued messages. A length that lies is not followed by its bytes."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from ggml_rpc_ref.fuzz.mutations.table import insert, mutation, odd, packed, pick, put
from ggml_rpc_ref.fuzz.packet import Packet, joined
from ggml_rpc_ref.fuzz.plan import HEAD, sentinel
from ggml_rpc_ref.fuzz.session import Buffer, Note, Session
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import Graph, graph_nodes_offset
from ggml_rpc_ref.spec.messages import CAPS_SIZE, Hello, by_number, has_field


def _any(rng: Random, session: Session) -> int | None:
    return rng.randrange(len(session.steps)) if session.steps else None


@mutation("frame.size")
def size(rng: Random, session: Session) -> Note | None:
    """Change a message's size field."""
    index = _any(rng, session)
    if index is None:
        return None
    packet, label = packed(session, index), session.steps[index].label(session.version)
    old = int.from_bytes(packet.template[1:HEAD], "little")
    new = odd(rng, old, 64)
    put(session, index, packet.with_bytes(1, new.to_bytes(8, "little")))
    return Note("frame.size", label.partition(" of ")[0], f"size {old} -> {new}")


@mutation("frame.command")
def command(rng: Random, session: Session) -> Note | None:
    """Change a message's command."""
    index = _any(rng, session)
    if index is None:
        return None
    packet, label = packed(session, index), session.steps[index].label(session.version)
    known = [*by_number(session.version)]
    new = rng.choice(known if rng.random() < 0.7 else (max(known) + 1, 127, 128, 255))
    if rng.random() < 0.3:
        # with nothing after it: a server that takes it for another command may have one without a payload
        insert(session, index, Packet(codec.REQUEST_HEAD.pack(new, 0)), session.steps[index].connection)
        return Note("frame.command", label.partition(" of ")[0], f"command {new} with no payload before it")
    put(session, index, packet.with_bytes(0, bytes([new])))
    return Note("frame.command", label.partition(" of ")[0], f"command -> {new}")


@mutation("frame.counts")
def counts(rng: Random, session: Session) -> Note | None:
    """Change one of a graph's two counts."""
    index = pick(rng, session, Graph)
    if index is None:
        return None
    graph, packet = session.steps[index].message, packed(session, index)
    assert isinstance(graph, Graph)
    first = HEAD + graph_nodes_offset(session.version) - 4
    at = rng.choice((first, first + 4 + 8 * len(graph.nodes)))
    old = int.from_bytes(packet.template[at : at + 4], "little")
    # some counts whose product with the size of a record wraps round 2^32 to the right number of bytes
    new = rng.choice((odd(rng, old), (old + 2**29) % 2**32, (old + 2**30) % 2**32, (old + 2**31) % 2**32))
    put(session, index, packet.with_bytes(at, new.to_bytes(4, "little")))
    return Note("frame.counts", "GRAPH_COMPUTE", f"number of {'nodes' if at == first else 'tensors'} {old} -> {new}")


@mutation("frame.cut")
def cut(rng: Random, session: Session) -> Note | None:
    """Leave out the end of a message, with or without saying so in its size."""
    index = _any(rng, session)
    if index is None:
        return None
    packet, label = packed(session, index), session.steps[index].label(session.version)
    length = len(packet.template)
    if not length:  # all of it was cut off before
        return None
    kept = rng.randrange(length) if rng.random() < 0.5 else max(0, length - rng.choice((1, 4, 8, 296)))
    shorter = packet.cut(0, kept)
    says = kept >= HEAD and rng.random() < 0.6
    if says:
        shorter = shorter.with_bytes(1, (kept - HEAD).to_bytes(8, "little"))
    put(session, index, shorter)
    return Note("frame.cut", label.partition(" of ")[0], f"{kept} of {length} bytes{', the size to match' if says else ''}")


@mutation("frame.longer")
def longer(rng: Random, session: Session) -> Note | None:
    """Add bytes to a message, with or without saying so in its size."""
    index = _any(rng, session)
    if index is None:
        return None
    packet, label = packed(session, index), session.steps[index].label(session.version)
    extra = rng.randbytes(rng.choice((1, 4, 8, 64, 296)))
    longer = joined([packet, Packet(extra)])
    says = len(longer.template) >= HEAD and rng.random() < 0.6
    if says:
        longer = longer.with_bytes(1, (len(longer.template) - HEAD).to_bytes(8, "little"))
    put(session, index, longer)
    return Note("frame.longer", label.partition(" of ")[0], f"{len(extra)} bytes more{', the size to match' if says else ''}")


@mutation("frame.flip")
def flip(rng: Random, session: Session) -> Note | None:
    """Change single bytes or bits anywhere in a message."""
    index = _any(rng, session)
    if index is None:
        return None
    packet, label = packed(session, index), session.steps[index].label(session.version)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(packet.template)) if packet.template else 0
        old = packet.template[at] if packet.template else 0
        packet = packet.with_bytes(at, bytes([rng.choice((old ^ 1 << rng.randrange(8), rng.randrange(256), 0, 255))]))
    put(session, index, packet)
    return Note("frame.flip", label.partition(" of ")[0], "some bytes changed")


@mutation("frame.noise")
def noise(rng: Random, session: Session) -> Note | None:
    """Put random bytes between two messages, or the head of a message and random bytes."""
    index = _any(rng, session)
    if index is None:
        return None
    data = rng.randbytes(rng.choice((1, 8, 9, 64, 300)))
    target = "raw bytes"
    if rng.random() < 0.7:
        row = rng.choice(list(by_number(session.version).values()))
        fixed = max(len(data), codec.minimum_size(row.cls, session.version)) if rng.random() < 0.7 else len(data)
        data = codec.REQUEST_HEAD.pack(row.number, fixed) + rng.randbytes(fixed)
        target = row.name
    insert(session, index, Packet(data), session.steps[index].connection)
    return Note("frame.noise", target, f"{len(data)} random bytes")


@mutation("frame.headless")
def headless(rng: Random, session: Session) -> Note | None:
    """Begin without HELLO."""
    if session.headless or not session.steps:
        return None
    session.headless = True
    if rng.random() < 0.7:  # something that a server which does not mind could answer: it needs no buffer
        insert(session, 0, sentinel(session.version), session.steps[0].connection)
    return Note("frame.headless", session.steps[0].label(session.version).partition(" of ")[0], "said before HELLO")


@mutation("frame.hello")
def hello(rng: Random, session: Session) -> Note | None:
    """Say HELLO once more."""
    index = _any(rng, session)
    if index is None:
        return None
    insert(session, index, Hello(), session.steps[index].connection)
    return Note("frame.hello", "HELLO", "said again")


@mutation("frame.stop")
def stop(rng: Random, session: Session) -> Note | None:
    """Say nothing more in the middle of a message."""
    if session.short or session.headless or session.connections > 1 or not session.steps:
        return None
    index = rng.randrange(len(session.steps))
    last = session.steps[index]
    if isinstance(last.message, Buffer):
        return None
    length, label = len(packed(session, index).template), last.label(session.version)
    session.short = min(length, rng.choice((1, 1, 1, 2, 8, rng.randrange(1, length + 1)))) if length else 0
    if not session.short:
        return None
    del session.steps[index + 1 :]
    session.steps[index] = replace(last, mutated=True)
    return Note("frame.stop", label.partition(" of ")[0], f"the last {session.short} of its {length} bytes never come")


@mutation("frame.caps")
def caps(rng: Random, session: Session) -> Note | None:
    """Offer another transport in HELLO."""
    if session.caps or session.headless or not has_field(Hello, "conn_caps", session.version):
        return None
    session.caps = rng.choice((rng.randbytes(CAPS_SIZE), b"\1".ljust(CAPS_SIZE, b"\0"), b"\xff" * CAPS_SIZE))
    return Note("frame.caps", "HELLO", f"conn_caps {session.caps.hex()}")
