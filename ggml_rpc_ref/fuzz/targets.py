"""The server to fuzz, from what a command line says of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from ggml_rpc_ref.conformance.target import Given, Target, embedded, from_command
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.fuzz import preload
from ggml_rpc_ref.fuzz.edges import VARIABLE, Edges
from ggml_rpc_ref.fuzz.watch import MEMORY, Watched
from ggml_rpc_ref.net.stream import parse_endpoint


def watched(spawn: str = "", endpoint: str = "", memory: int = MEMORY, *, fork: bool = True) -> AbstractContextManager[Watched]:
    """Give a server to fuzz: a running one, one that a command starts, or our own; it is stopped at the end.

    Args:
        spawn: a command with {port} in it; "": none.
        endpoint: HOST:PORT of a running server; "": none.
        memory: bytes of address space that a server which we start may have; 0: any.
        fork: whether a server that died may be followed by a fork, where that can be done (`preload`).

    Raises:
        Misuse: where both are given, and for an invalid command or endpoint.
    """
    if spawn and endpoint:
        raise Misuse("give either HOST:PORT or --spawn, not both")
    return _watched(spawn, endpoint, memory, fork)


@contextmanager
def _watched(spawn: str, endpoint: str, memory: int, fork: bool) -> Iterator[Watched]:
    with tempfile.TemporaryDirectory(prefix="ggml-rpc-ref-fuzz-") as directory:
        environ = preload.environment(Path(directory), memory, fork=fork) if spawn else {}
        edges = Edges(Path(directory) / "edges") if spawn else None
        if edges is not None:
            environ[VARIABLE] = str(edges.path)

        def make() -> Target:
            if endpoint:
                return Given(parse_endpoint(endpoint))
            return from_command(spawn, environ) if spawn else embedded()

        server = Watched(make, spares=1 if spawn else 0, memory=memory if spawn else 0, edges=edges)
        try:
            yield server
        finally:
            server.stop()
