"""Section "tensor" for clients: what their records say, and how much room tensors get."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np

from ggml_rpc_ref.conformance.clients.bench import Bench, require_right
from ggml_rpc_ref.conformance.clients.buffers import placed, records
from ggml_rpc_ref.conformance.clients.case import client_case
from ggml_rpc_ref.conformance.clients.heard import Asked, Run
from ggml_rpc_ref.conformance.clients.refused import require_none
from ggml_rpc_ref.conformance.clients.script import answering
from ggml_rpc_ref.conformance.marks import field_until
from ggml_rpc_ref.conformance.verdict import Broken, require
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.spec.messages import MAX_NAME, GetAllocSize, RpcTensor

ROOM: Final = 2**20
"""Bytes more than a tensor has: more than any client rounds up to of itself."""


@client_case("tensor.valid/honest")
def tensors_are_valid(bench: Bench) -> None:
    """To an honest server every tensor has a type of the version, whole blocks, and all its bytes in its buffer."""
    require_none("tensor.valid", [bench.honest()])


@client_case("tensor.zero-filled/name")
def names_are_filled(bench: Bench) -> None:
    """Every tensor's name ends with a zero byte, and all bytes after it are zero."""
    for asked, record in _all(bench.honest()):
        name = bytes(record["name"]).ljust(MAX_NAME, b"\0")
        text, _, rest = name.partition(b"\0")
        require(len(text) < MAX_NAME, "a name that ends with a zero byte", f"64 bytes without one in {asked.command}")
        require(not any(rest), "zeros after the name's end", f"{rest.rstrip(bytes(1))[:16].hex()} in {asked.command}")


@client_case("tensor.zero-filled/padding", until=field_until(RpcTensor, "padding"))
def padding_is_zero(bench: Bench) -> None:
    """Every tensor's padding is zero."""
    for asked, record in _all(bench.honest()):
        require(not any(bytes(record["padding"])), "zero padding", f"{bytes(record['padding']).hex()} in {asked.command}")


def _all(run: Run) -> Iterator[tuple[Asked, Any]]:
    for asked in run.asked():
        yield from ((asked, record) for record in records(asked))


@client_case("tensor.room/a-mib-more")
def room_is_given(bench: Bench) -> None:
    """GET_ALLOC_SIZE answers a MiB more than the tensor has: its place in the buffer has that much room, and the client gets on."""

    def answer(_: Any, honest: Any) -> Any:
        return replace(honest, alloc_size=honest.alloc_size + ROOM)

    run = bench.run(answering("GET_ALLOC_SIZE", answer))
    wanted = {_key(asked.message.tensor): asked.reply.alloc_size for asked in run.asked(GetAllocSize)}
    for place in placed(run):
        need = wanted.get(_key_of(place.record), 0)
        if not place.is_view and place.offset + need > place.size:
            left = place.size - place.offset
            raise Broken(f"room for {need} bytes", f"{place.name or 'a tensor'} has {left} bytes to the end of its buffer")
    require_right(run, "GET_ALLOC_SIZE asked for more room")


def _key(tensor: RpcTensor) -> tuple[Any, ...]:
    return (tensor.type, tuple(tensor.ne), tensor.op)


def _key_of(record: Any) -> tuple[Any, ...]:
    return (int(record["type"]), tuple(map(int, record["ne"])), int(record["op"]))


@client_case("tensor.uses-counted/honest")
def uses_are_counted(bench: Bench) -> None:
    """In an honest run use_count is 0 outside graphs, and in them 0 or no less than the number of the nodes' slots that name it."""
    for asked, record in _all(bench.honest()):
        if not isinstance(asked.message, Graph) and int(record["use_count"]):
            raise Broken("a use_count of 0 outside graphs", f"{int(record['use_count'])} in {asked.command}")
    for asked in bench.honest().asked():
        if isinstance(asked.message, Graph):
            _require_counted(asked.message)


def _require_counted(graph: Graph) -> None:
    nodes = set(map(int, graph.nodes))
    of_nodes = [record for record in graph.tensors if int(record["id"]) in nodes]
    uses = np.concatenate([record["src"] for record in of_nodes]) if of_nodes else np.zeros(0, np.uint64)
    for record in graph.tensors:
        counted, said = int(np.count_nonzero(uses == record["id"])), int(record["use_count"])
        # more are right: of a graph that is split, each server gets a part, and the counts of the whole
        require(said in (0, counted) or said > counted, "every use counted", f"{said} for a tensor of {counted} uses")
