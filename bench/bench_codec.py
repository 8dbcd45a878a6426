"""How long each reader and writer takes for a GRAPH_COMPUTE; the graph of Gemma 3 270M has 1,009 tensors.

    .venv/bin/pytest bench/bench_codec.py --benchmark-only

The numpy-dtype reader is what the server uses on every graph; the field-by-field reader is the definition. `connection` is the
server's whole path from the bytes of a socket, in pieces of 64 KiB, to the event.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.connection import NEED_DATA, Connection, Request, Role
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.spec.messages import GetAllocSize, GraphCompute, Hello, HelloReply, RpcTensor

SIZES = [pytest.param(1_009, 728, id="1009-tensors"), pytest.param(10_000, 7_000, id="10000-tensors")]
sizes = pytest.mark.parametrize(("n_tensors", "n_nodes"), SIZES)


def graph_of(n_tensors: int, n_nodes: int) -> Graph:
    """A graph with random bytes in every field; readers do not look at the values."""
    random = np.random.default_rng(n_tensors)
    layout = codec.layout(RpcTensor)
    tensors = random.integers(0, 256, n_tensors * layout.itemsize, np.uint8).view(layout)
    return Graph(0, random.integers(1, 2**63, n_nodes, np.uint64), tensors)


@sizes
def test_decode_as_arrays(benchmark: Any, n_tensors: int, n_nodes: int) -> None:
    payload = graph_of(n_tensors, n_nodes).encode()
    assert len(benchmark(Graph.decode, payload).tensors) == n_tensors


@sizes
def test_decode_field_by_field(benchmark: Any, n_tensors: int, n_nodes: int) -> None:
    payload = graph_of(n_tensors, n_nodes).encode()
    assert len(benchmark(codec.decode_by_field, GraphCompute, payload).tensors) == n_tensors


@sizes
def test_encode_as_arrays(benchmark: Any, n_tensors: int, n_nodes: int) -> None:
    graph = graph_of(n_tensors, n_nodes)
    assert len(benchmark(graph.encode)) == 12 + 8 * n_nodes + 296 * n_tensors


@sizes
def test_encode_field_by_field(benchmark: Any, n_tensors: int, n_nodes: int) -> None:
    message = graph_of(n_tensors, n_nodes).message()
    assert len(benchmark(codec.encode, message)) == 12 + 8 * n_nodes + 296 * n_tensors


@pytest.mark.parametrize("read", [codec.decode, codec.decode_by_field], ids=["at-once", "field-by-field"])
@pytest.mark.parametrize("cls", [RpcTensor, GetAllocSize], ids=lambda cls: cls.__name__)
def test_decode_a_record(benchmark: Any, cls: type, read: Any) -> None:
    payload = np.random.default_rng(1).integers(0, 256, codec.minimum_size(cls), np.uint8).tobytes()
    assert isinstance(benchmark(read, cls, payload), cls)


@sizes
def test_connection(benchmark: Any, n_tensors: int, n_nodes: int) -> None:
    payload = graph_of(n_tensors, n_nodes).encode()
    frame = codec.request_head(GraphCompute, len(payload)) + payload
    pieces = [frame[at : at + 2**16] for at in range(0, len(frame), 2**16)]
    server = Connection(Role.SERVER)
    server.receive(codec.encode_request(Hello()))
    server.next_event()
    server.send(HelloReply(major=3, minor=6, patch=1))

    def receive() -> Any:
        for piece in pieces:
            server.receive(piece)
            event = server.next_event()
        assert server.next_event() is NEED_DATA
        return event

    assert isinstance(benchmark(receive), Request)
