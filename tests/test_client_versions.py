"""What the client does in versions other than the default: uids of graphs, use_count, MEMSET_TENSOR, rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from ggml_rpc_ref import connect
from ggml_rpc_ref.client.client import Client
from ggml_rpc_ref.client.sent_graphs import MOST
from ggml_rpc_ref.errors import Misuse, Unsupported
from ggml_rpc_ref.protocol.graph import Graph as WireGraph
from ggml_rpc_ref.server.handlers import Session
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.server import Server
from ggml_rpc_ref.spec.messages import GraphRecompute, MemsetTensor

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@contextmanager
def talking(version: str) -> Iterator[tuple[Client, list[Any]]]:
    """A client of our server of a version, and the graphs, recomputations and memsets that the server was asked for."""
    seen: list[Any] = []

    class Spy(Session):
        def handle(self, message: Any) -> Any:
            if isinstance(message, WireGraph | GraphRecompute | MemsetTensor):
                seen.append(message)
            return super().handle(message)

    kind = type("Noted", (Server,), {"session_type": Spy})
    with kind(make_host("oracle", memory=2**26, proto=version)) as server, connect(server.endpoint) as client:
        assert str(client.version) == version
        yield client, seen


def sent(seen: list[Any]) -> list[tuple[str, int]]:
    """Name and uid of each request so far, which are forgotten."""
    found = [("again" if isinstance(message, GraphRecompute) else "graph", message.uid) for message in seen]
    seen.clear()
    return found


def test_graphs_of_one_device_are_each_computed_again() -> None:
    with talking("8.0.0") as (client, seen):
        device = client.devices[0]
        first, second = device.graph(), device.graph()
        doubled, tripled = first.scale(device.tensor(X), 2.0), second.scale(device.tensor(X), 3.0)
        for graph in (first, second, first, second):
            graph.compute()
        assert (doubled.numpy() == 2 * X).all()
        assert (tripled.numpy() == 3 * X).all()
        assert sent(seen) == [("graph", 1), ("graph", 2), ("again", 1), ("again", 2)]
        device.alloc(64).free()  # a server may drop graphs with a buffer
        first.compute()
        client.devices[0].memory()
        assert sent(seen) == [("graph", 1)]


def test_before_uids_the_last_graph_counts() -> None:
    with talking("7.0.0") as (client, seen):
        device = client.devices[0]
        first, second = device.graph(), device.graph()
        first.scale(device.tensor(X), 2.0)
        second.scale(device.tensor(X), 3.0)
        for graph in (first, first, second, first):
            graph.compute()
        device.memory()
        assert sent(seen) == [("graph", 0), ("again", 0), ("graph", 0), ("graph", 0)]


def test_uids_are_few_and_used_again() -> None:
    """So that no server comes to the 1,024 at which it drops them all, however it counts."""
    with talking("8.0.0") as (client, seen):
        device = client.devices[0]
        leaf, graphs = device.tensor(X), [device.graph() for _ in range(MOST + 2)]
        for number, graph in enumerate(graphs):
            graph.scale(leaf, float(number))
            graph.compute()
        graphs[1].compute()  # its uid was taken by the last graph
        graphs[-1].compute()
        device.memory()
        found = sent(seen)
    assert [uid for _, uid in found[:MOST]] == list(range(1, MOST + 1))
    assert found[MOST:] == [("graph", 1), ("graph", 2), ("graph", 3), ("again", 2)]


@pytest.mark.parametrize(("version", "counts"), [("5.1.0", [2, 1, 0]), ("8.0.0", [2, 1, 0])])
def test_how_often_a_tensor_is_a_source_is_sent(version: str, counts: list[int]) -> None:
    """A leaf that is both sources of a sum, the sum once, and the result not at all; views by their src, not by their view_src."""
    with talking(version) as (client, seen):
        device = client.devices[0]
        graph, leaf = device.graph(), device.tensor(X)
        graph.neg(graph.add(leaf, leaf))
        graph.compute()
        device.memory()
        assert seen[0].tensors["use_count"].tolist() == counts
        seen.clear()
        other, square = device.graph(), device.tensor(np.ones((2, 2), np.float32))
        other.cont(other.transpose(square))
        other.compute()
        device.memory()
        assert seen[0].tensors["use_count"].tolist() == [1, 1, 0]
    with talking("5.0.0") as (client, seen):
        device = client.devices[0]
        graph, leaf = device.graph(), device.tensor(X)
        graph.add(leaf, leaf)
        graph.compute()
        device.memory()
        assert "use_count" not in seen[0].tensors.dtype.names
        assert bytes(seen[0].tensors["padding"][0]) == bytes(4)


@pytest.mark.parametrize("version", ["5.0.0", "6.0.0", "8.0.0"])
def test_bytes_are_set_on_the_server(version: str) -> None:
    with talking(version) as (client, seen):
        tensor = client.devices[0].tensor(np.arange(10, dtype=np.int8))
        tensor.memset(7, 2, 3)
        assert tensor.numpy().tolist() == [0, 1, 7, 7, 7, 5, 6, 7, 8, 9]
        tensor.memset(255, 8)
        assert tensor.numpy().tolist()[7:] == [7, -1, -1]
        assert [(message.offset, message.size, message.value) for message in seen] == [(2, 3, 7), (8, 2, 255)]
        for offset, size in ((0, 11), (8, 3), (11, None), (-1, 1)):
            with pytest.raises(Misuse):
                tensor.memset(0, offset, size)
        with pytest.raises(Misuse, match="from 0 to 255"):
            tensor.memset(256)


def test_rows_are_written_and_read() -> None:
    with talking("8.0.0") as (client, _):
        tensor = client.devices[0].tensor(X)
        tensor.write_rows(np.array([8, 9], np.float32), 2, 12, 4)
        assert tensor.numpy().tolist() == [[0, 8, 2], [3, 9, 5]]
        column = tensor.read_rows(4, 2, 12, 8)
        assert (column.shape, column.view(np.float32).ravel().tolist()) == ((2, 4), [2, 5])
        # the last row would end a byte past the tensor's 24; rows that overlap; none; not of equal length
        for rows in (
            (4, 2, 12, 9),
            (4, 3, 12, 0),
            (24, 2, 12, 0),
            (4, 2, 3, 0),
            (0, 2, 12, 0),
            (4, 0, 12, 0),
            (4, 2, 2**64 - 1, 0),
        ):
            with pytest.raises(Misuse):
                tensor.read_rows(*rows)
        for data, n_copies, stride, offset in ((bytes(8), 2, 12, 9), (bytes(8), 0, 12, 0), (bytes(9), 2, 12, 0), (b"", 2, 12, 0)):
            with pytest.raises(Misuse):
                tensor.write_rows(data, n_copies, stride, offset)
        assert client.devices[0].memory()  # nothing of it was sent


def test_what_a_version_lacks_is_not_sent() -> None:
    with talking("3.6.1") as (client, _):
        tensor = client.devices[0].tensor(X)
        with pytest.raises(Unsupported, match=r"MEMSET_TENSOR came with protocol 5\.0\.0, and 127\S+ speaks 3\.6\.1"):
            tensor.memset(0)
        with pytest.raises(Unsupported, match=r"SET_TENSOR_2D came with protocol 8\.0\.0"):
            tensor.write_rows(bytes(8), 2, 12)
        with pytest.raises(Unsupported, match=r"GET_TENSOR_2D came with protocol 8\.0\.0"):
            tensor.read_rows(4, 2, 12)
        assert client.devices[0].memory()
