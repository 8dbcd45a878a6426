"""Well-formed sessions: what a good client may say, of every command and op that a version has, in any order that makes sense.

    session = Generator(version, devices=2).session(seed=7)

The same seed makes the same session. Nothing in it may be refused, and what each reply holds is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from ggml_rpc_ref.fuzz.acts import ACTS
from ggml_rpc_ref.fuzz.client import Client, Material
from ggml_rpc_ref.fuzz.session import Session, Step
from ggml_rpc_ref.spec.messages import CAPS_SIZE, Hello, has_field
from ggml_rpc_ref.spec.versions import DEFAULT, Version

USUAL: Final[dict[Callable[[Client], None], float]] = {
    Client.compute: 3.0,
    Client.ask: 1.0,
    Client.copy: 1.0,
    Client.rows: 1.0,
    Client.hash: 1.0,
}
"""Act to how often it is chosen."""
_CHOICE: Final = USUAL | ACTS
BY_NAME: Final[dict[str, Callable[[Client], None]]] = {act.__name__: act for act in _CHOICE}
"""Name to act: what a session may be about, beside the ops."""
ACT_WEIGHTS: Final[dict[str, float]] = {act.__name__: weight**0.25 for act, weight in _CHOICE.items()}
"""Name of an act to how often a session is about it: the rare ones less rarely than among others."""


class Generator(Material):
    """Makes well-formed sessions.

    Args:
        version: the protocol version.
        devices: how many devices the server has.
        clients: how many connections a session may have at a time.
        ops: names of the ops to use; empty: all.
        sums: the ranks that the server may have in sums with another server, which we play; the server must be on this machine
            for rank 1, as it connects to us.

    Raises:
        Misuse: where the version has none of the ops.
    """

    def __init__(
        self, version: Version = DEFAULT, devices: int = 1, clients: int = 2, ops: Sequence[str] = (), sums: Sequence[int] = (0, 1)
    ) -> None:
        super().__init__(version, devices, ops, sums)
        self.clients = clients

    def session(self, seed: int | str, focus: str = "") -> Session:
        """Return the session of a seed.

        Args:
            seed: any.
            focus: name of an op or of an act: a short session that computes the op or does that; "": a session of anything.
        """
        rng = Random(f"{seed}/{focus}/{self.version}")
        connections = self.clients if rng.random() < 0.1 and not focus else 1
        made = [Client(self, rng, index) for index in range(connections)]
        steps: list[Step] = []
        for client in made:
            steps += _talk(client, focus)
        buffers = tuple(buffer for client in made for buffer in client.buffers())
        session = Session(str(seed), self.version, buffers, steps, focus=focus)
        if rng.random() < 0.06:
            session.cut = rng.choice((1, 1, 9, 100, 1000))
        if rng.random() < 0.02 and has_field(Hello, "conn_caps", self.version):
            session.caps = rng.randbytes(CAPS_SIZE)
        session.apart = connections > 1 and rng.random() < 0.5
        session.peers = tuple(peer for client in made for peer in client.peers)
        return session


def _talk(client: Client, focus: str) -> list[Step]:
    """Return what a client says: a graph of one op, one act, or a few acts."""
    if focus in BY_NAME:
        BY_NAME[focus](client)
    elif focus:
        client.compute(focus)
    else:
        for act in client.rng.choices(list(_CHOICE), list(_CHOICE.values()), k=client.rng.randint(1, 5)):
            act(client)
        if client.rng.random() < 0.3:
            client.free()
    return client.opening() + client.steps
