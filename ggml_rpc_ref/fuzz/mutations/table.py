"""The table of mutations, and what they share: numbers worth trying, and how a step of a session is picked and replaced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, Final

import numpy as np

from ggml_rpc_ref.fuzz.packet import MASK, Packet
from ggml_rpc_ref.fuzz.session import Buffer, Note, Session, Step
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.spec.messages import Message
from ggml_rpc_ref.spec.opcodes import op_table

Mutate = Callable[[Random, Session], Note | None]
"""Changes a session's steps in place (its list, not the messages); None where it has nothing to change."""

MUTATIONS: dict[str, Mutate] = {}
"""Name to mutation; the part before the dot is its family."""


def mutation(name: str) -> Callable[[Mutate], Mutate]:
    """Enter a function as a mutation."""

    def enter(function: Mutate) -> Mutate:
        assert name not in MUTATIONS, f"there are two mutations {name}"
        MUTATIONS[name] = function
        return function

    return enter


# ------------------------------------------------------------------------------------------------------------- numbers

_EDGES: Final = (
    0, 1, 2, 3, 7, 31, 32, 33, 255, 256, 4095, 4096, 65535, 65536, 2**24, 2**30, 2**31 - 1, 2**31,
    2**32 - 64, 2**32 - 8, 2**32 - 4, 2**32 - 1,  # the largest, and those that are multiples of an element's bytes
)  # fmt: skip
_WIDE: Final = (*_EDGES, 2**32, 2**32 + 1, 2**40, 2**48, 2**62, 2**63 - 1, 2**63, 2**64 - 4096, 2**64 - 64, 2**64 - 2, 2**64 - 1)


def odd(rng: Random, old: int, bits: int = 32) -> int:
    """Return a number other than `old` that fits into `bits`: an edge, a neighbour, a multiple or a single bit changed."""
    for _ in range(8):
        new = _odd(rng, old, bits) & (1 << bits) - 1
        if new != old:
            return new
    return old ^ 1


def _odd(rng: Random, old: int, bits: int) -> int:
    match rng.randrange(7):
        case 0 | 1:
            return rng.choice(_EDGES if bits <= 32 else _WIDE)
        case 2:
            return old + rng.choice((-64, -32, -8, -4, -1, 1, 2, 4, 8, 16, 64))
        case 3:
            return old * rng.choice((2, 3, 4, 256, 65536)) if old else rng.randrange(1, 64)
        case 4:
            return old // rng.choice((2, 3, 4)) if rng.random() < 0.7 else -old
        case 5:
            return old ^ 1 << rng.randrange(bits)
        case _:
            return rng.randrange(64) if rng.random() < 0.7 else rng.getrandbits(bits)


def odd_float(rng: Random) -> int:
    """Return the bits of a float32 worth trying, as a signed number."""
    values = (0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-30, 1e30, -1e30, float("inf"), float("-inf"), float("nan"), 1e9, 65536.0)
    return int(np.float32(rng.choice(values)).view(np.int32))


def signed(number: int) -> int:
    """Return 32 bits as the signed number that an int32 field takes."""
    return number - 2**32 if number & 2**31 else number


# ---------------------------------------------------------------------------------------------------------------- steps


def pick(rng: Random, session: Session, *kinds: type) -> int | None:
    """Return the index of a random step whose message is of one of these classes."""
    found = [index for index, step in enumerate(session.steps) if isinstance(step.message, kinds)]
    return rng.choice(found) if found else None


def put(session: Session, index: int, message: Message | Packet) -> None:
    """Replace the message of a step."""
    old = session.steps[index]
    origin = old.origin if old.mutated or isinstance(old.message, Packet | Buffer) else old.message
    session.steps[index] = replace(old, message=message, mutated=True, expected=None, origin=origin)


def insert(session: Session, index: int, message: Message | Packet, connection: int) -> None:
    """Add a step before another one."""
    session.steps.insert(index, Step(connection, message, mutated=True))


def packed(session: Session, index: int) -> Packet:
    """Return the bytes of a step."""
    return session.steps[index].packet(session.version)


class Editor:
    """A graph of a session, copied so that it can be changed, and one of its nodes.

    Attributes:
        tensors: its records.
        nodes: the ids of its nodes.
        node: the record of the node that is changed, or whose operand is.
        record: the record that is changed: the node or one of its operands.
        role: "dst", or "src0" to "src9".
    """

    def __init__(self, rng: Random, session: Session) -> None:
        self.rng, self.session = rng, session
        self.index = pick(rng, session, Graph)
        if self.index is None:
            return
        graph: Any = session.steps[self.index].message
        self.graph: Graph = graph
        self.tensors, self.nodes = graph.tensors.copy(), graph.nodes.copy()
        self.by_id = {int(id_): at for at, id_ in reversed(list(enumerate(self.tensors["id"].tolist())))}
        computed = [self.by_id[id_] for id_ in self.nodes.tolist() if id_ in self.by_id]
        self.at = rng.choice(computed) if computed else 0
        self.role = "dst"
        self.record: Any = None
        self.node: Any = None
        if len(self.tensors):
            self.node = self.tensors[self.at]
            self.choose()

    @property
    def is_empty(self) -> bool:
        """Whether there is no graph, or none with tensors."""
        return self.index is None or not len(self.tensors)

    def choose(self) -> None:
        """Choose an operand of the node, or the node itself."""
        slots = [slot for slot, id_ in enumerate(self.node["src"].tolist()) if id_ in self.by_id]
        if slots and self.rng.random() < 0.6:
            slot = self.rng.choice(slots)
            self.record, self.role = self.tensors[self.by_id[int(self.node["src"][slot])]], f"src{slot}"
        else:
            self.record, self.role = self.node, "dst"

    @property
    def target(self) -> str:
        """The node's op."""
        table, op = op_table(self.session.version), int(self.node["op"])
        return table[op] if op < len(table) else f"op {op}"

    def other(self) -> Any:
        """Return a random record of the graph."""
        return self.tensors[self.rng.randrange(len(self.tensors))]

    def done(self, mutation: str, what: str, target: str = "", **fields: Any) -> Note:
        """Put the changed graph in the place of the old one."""
        assert self.index is not None
        values = {"device": self.graph.device, "nodes": self.nodes, "tensors": self.tensors, "uid": self.graph.uid} | fields
        put(self.session, self.index, Graph(**values))
        return Note(mutation, target or self.target, what)


def wrap(number: int) -> int:
    """Return a number modulo 2^64."""
    return number & MASK
