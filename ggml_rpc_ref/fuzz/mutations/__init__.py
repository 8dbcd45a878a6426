"""Mutations: what turns a well-formed session into one that a careless server stumbles over. Each knows what it touches.

    note = mutate(rng, session, "geometry.ne")

The table is `MUTATIONS`; the part of a name before the dot is its family.
"""

from __future__ import annotations

from random import Random

from ggml_rpc_ref.fuzz.mutations import contents, frames, graphs, messages, order, sums
from ggml_rpc_ref.fuzz.mutations.table import MUTATIONS
from ggml_rpc_ref.fuzz.session import Note, Session

__all__ = ["MUTATIONS", "contents", "frames", "graphs", "messages", "mutate", "order", "sums"]


def mutate(rng: Random, session: Session, name: str) -> Note | None:
    """Apply a mutation to a session; None where it has nothing that this one could change."""
    note = MUTATIONS[name](rng, session)
    if note is not None:
        session.notes.append(note)
    return note
