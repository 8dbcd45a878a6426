"""Section "buffer" for clients: handles, and buffers that are not granted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ggml_rpc_ref.conformance.clients.bench import Bench
from ggml_rpc_ref.conformance.clients.buffers import records
from ggml_rpc_ref.conformance.clients.case import client_case
from ggml_rpc_ref.conformance.clients.heard import Asked
from ggml_rpc_ref.conformance.clients.refused import require_none
from ggml_rpc_ref.conformance.clients.script import EVERY, Change, Script
from ggml_rpc_ref.conformance.verdict import Broken, require
from ggml_rpc_ref.spec.messages import BufferClear, BufferGetBase, FreeBuffer

NAMES_ONE = (BufferGetBase, BufferClear, FreeBuffer)
"""Requests about a buffer; in any other, buffer 0 means that a tensor lies in none."""


@client_case("buffer.own-handles/honest")
def own_handles(bench: Bench) -> None:
    """To an honest server every handle is one that its own connection was given and has not freed."""
    require_none("buffer.own-handles", [bench.honest()])


@client_case("buffer.own-handles/two-endpoints")
def own_handles_of_two(bench: Bench) -> None:
    """With two servers, no handle of the one is used on the other."""
    bench.require_two()
    run = bench.honest()
    given: dict[int, int] = {}
    for talk in run.conversations:
        for asked in talk.asked:
            for handle in _handles(asked):
                other = given.get(handle)
                require(other in (None, talk.endpoint), "handles of this server", f"one of the other server's, in {asked.command}")
            pointer = getattr(asked.reply, "remote_ptr", 0)
            if pointer:
                given[pointer] = talk.endpoint


def _handles(asked: Asked) -> list[int]:
    pointer = getattr(asked.message, "remote_ptr", 0)
    return [handle for handle in (pointer, *(int(record["buffer"]) for record in records(asked))) if handle]


@client_case("buffer.alloc-refused/first")
def first_alloc_refused(bench: Bench) -> None:
    """The first ALLOC_BUFFER is answered with (0, 0): nothing is sent about a buffer 0; the client fails or gets on without it."""
    _require_no_buffer_0(bench, Change("ALLOC_BUFFER", 1, answer=_none))


@client_case("buffer.alloc-refused/second")
def second_alloc_refused(bench: Bench) -> None:
    """The second ALLOC_BUFFER is answered with (0, 0): nothing is sent about a buffer 0; the client fails or gets on without it."""
    if bench.honest().commands().get("ALLOC_BUFFER", 0) < 2:  # its run would have nothing to be answered so
        bench.require_sends("a second ALLOC_BUFFER")
    _require_no_buffer_0(bench, Change("ALLOC_BUFFER", 2, answer=_none))


@client_case("buffer.alloc-refused/every")
def every_alloc_refused(bench: Bench) -> None:
    """Every ALLOC_BUFFER is answered with (0, 0): nothing is sent about a buffer 0, and the client says that it can't go on."""
    run = _require_no_buffer_0(bench, Change("ALLOC_BUFFER", EVERY, answer=_none))
    require(run.ended.status != 0, "an error", "the client ended as though it had got memory")


def _none(_: Any, honest: Any) -> Any:
    return replace(honest, remote_ptr=0, remote_size=0)


def _require_no_buffer_0(bench: Bench, change: Change) -> Any:
    run = bench.run(Script(changes=(change,)))
    for asked in run.asked():
        if asked.cls in NAMES_ONE and asked.message.remote_ptr == 0:
            raise Broken("nothing about a buffer that was not granted", f"{asked.command} came with handle 0")
    for talk, violation in run.violations():
        raise Broken("requests that a server takes", f"on connection {talk.number} it had to refuse: {violation}")
    return run
