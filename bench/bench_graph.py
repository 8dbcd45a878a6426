"""What a graph costs apart from its arithmetic, on our server and on the genuine 3.6.1 server: `pytest bench/bench_graph.py`.

Each server is a process of its own with one thread. A time covers one request and a GET_TENSOR of 4 bytes that waits for it;
where a graph is only checked, it covers sending a graph whose last node is bad until the server closes the connection.

    new graph       1,000 ADD of rows of 4 floats: received, checked, compiled and computed
    recompute       the same graph once more: computed
    checked         as many nodes as one of Gemma 3 270M's graphs has, of its shapes and types: received and checked

GGML_RPC_REF_OTHER_PYTHON=/path/to/python measures another checkout, installed for that Python, in the same run.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from bench.servers import ask, connect, genuine, other, ours, place
from ggml_rpc_ref.net.stream import Stream
from ggml_rpc_ref.ops import OPS
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.messages import (
    FLAG_COMPUTE,
    GetAlignment,
    GetAlignmentReply,
    GetTensor,
    GraphCompute,
    GraphRecompute,
    RpcTensor,
)
from ggml_rpc_ref.spec.opcodes import GLU_OPS, op_table
from ggml_rpc_ref.tensor import contiguous_nb, extent

OP = {name: number for number, name in enumerate(op_table())}
COUNT = 1000
"""Nodes of the graph of additions."""
LAYERS, WIDTH, HIDDEN, HEAD, HEADS, TOKENS, CONTEXT = 18, 640, 2048, 256, 4, 1, 512
"""Dimensions of Gemma 3 270M, for a single token."""


@pytest.fixture(scope="module", params=[ours, other, genuine], ids=lambda server: server.__name__)
def endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    with request.param() as endpoint:
        yield endpoint


class Builder:
    """Places tensors one after another in a buffer, and lists the nodes among them."""

    def __init__(self, buffer: RpcTensor) -> None:
        self.buffer, self.end = buffer, 0
        self.tensors: list[RpcTensor] = []
        self.nodes: list[int] = []

    def leaf(self, dtype: str, *ne: int) -> RpcTensor:
        a, b, c, d = (*ne, 1, 1, 1)[:4]
        row, id = BY_NAME[dtype], len(self.tensors) + 1
        nb = contiguous_nb(row, (a, b, c, d))
        place = RpcTensor(
            id=id, type=row.number, buffer=self.buffer.buffer, ne=(a, b, c, d), nb=nb, data=self.buffer.data + self.end
        )
        self.end += -(-extent(row, (a, b, c, d), nb) // 32) * 32
        self.tensors.append(place)
        return place

    def node(self, op: str, ne: tuple[int, ...], /, *src: RpcTensor, into: RpcTensor | None = None, **params: Any) -> RpcTensor:
        """Add the result of an op: an F32 in memory of its own, or in another tensor's; POOL_2D has a parameter of the name op."""
        place = self.leaf("F32", *ne) if into is None else replace(into, id=len(self.tensors) + 1)
        op_params = struct.unpack("<16i", OPS[op].pack(params))
        result = replace(place, op=OP[op], flags=FLAG_COMPUTE, src=tuple(t.id for t in src), op_params=op_params)
        self.tensors[result.id - 1 :] = [result]
        self.nodes.append(result.id)
        return result

    def view(self, op: str, of: RpcTensor, ne: tuple[int, int, int, int], nb: tuple[int, int, int, int]) -> RpcTensor:
        id = len(self.tensors) + 1
        self.tensors.append(
            replace(of, id=id, op=OP[op], ne=ne, nb=nb, src=(of.id,), op_params=(0,) * 16, view_src=of.id, view_offs=0)
        )
        self.nodes.append(id)
        return self.tensors[-1]

    def graph(self) -> bytes:
        return codec.encode_request(GraphCompute(nodes=tuple(self.nodes), tensors=tuple(self.tensors)))


def additions(stream: Stream) -> tuple[bytes, bytes]:
    """A graph of COUNT additions, each of a row to the sum before; and a GET_TENSOR that waits for the last one."""
    build = Builder(place(stream, 2**20))
    total, row = build.leaf("F32", 4), build.leaf("F32", 4)
    for _ in range(COUNT):
        total = build.node("ADD", (4,), total, row)
    return build.graph(), codec.encode_request(GetTensor(tensor=total, offset=0, size=4))


def like_gemma(stream: Stream) -> bytes:
    """A graph of Gemma's shapes whose last node lacks a source."""
    build = Builder(place(stream, 2**28))
    x, positions, index = build.leaf("F32", WIDTH, TOKENS), build.leaf("I32", TOKENS), build.leaf("I64", TOKENS)
    mask = build.leaf("F16", CONTEXT, TOKENS)
    for _ in range(LAYERS):
        x = layer(build, x, positions, index, mask)
    build.node("ADD", (WIDTH, TOKENS), x)
    return build.graph()


def normed(build: Builder, x: RpcTensor) -> RpcTensor:
    weight = build.leaf("F32", x.ne[0])
    return build.node("MUL", x.ne, build.node("RMS_NORM", x.ne, x, eps=1e-6), weight)


def times(build: Builder, x: RpcTensor, rows: int) -> RpcTensor:
    weight = build.leaf("Q8_0", x.ne[0], rows)
    return build.node("MUL_MAT", (rows, TOKENS), weight, x)


def turned(build: Builder, x: RpcTensor, heads: int, positions: RpcTensor) -> RpcTensor:
    split = build.view("RESHAPE", x, (HEAD, heads, TOKENS, 1), contiguous_nb(BY_NAME["F32"], (HEAD, heads, TOKENS, 1)))
    x = normed(build, split)
    settings = {"mode": 2, "n_dims": HEAD, "freq_base": 1e4, "freq_scale": 1.0, "attn_factor": 1.0, "beta_fast": 32.0}
    return build.node("ROPE", x.ne, x, positions, **settings)


def stored(build: Builder, x: RpcTensor, index: RpcTensor) -> RpcTensor:
    """Write a row into a cache; return the cache as attention reads it."""
    cache = build.leaf("F16", HEAD, CONTEXT)
    row = build.view("RESHAPE", x, (HEAD, TOKENS, 1, 1), contiguous_nb(BY_NAME["F32"], (HEAD, TOKENS, 1, 1)))
    return build.node("SET_ROWS", (), row, index, cache, into=cache)


def layer(build: Builder, x: RpcTensor, positions: RpcTensor, index: RpcTensor, mask: RpcTensor) -> RpcTensor:
    y = normed(build, x)
    q = turned(build, times(build, y, HEAD * HEADS), HEADS, positions)
    keys = stored(build, turned(build, times(build, y, HEAD), 1, positions), index)
    values = stored(build, times(build, y, HEAD), index)
    nb0, nb1, nb2, nb3 = q.nb
    q = build.view("PERMUTE", q, (HEAD, TOKENS, HEADS, 1), (nb0, nb2, nb1, nb3))
    attended = build.node("FLASH_ATTN_EXT", (HEAD, HEADS, TOKENS), q, keys, values, mask, scale=0.0625)
    ne = (HEAD * HEADS, TOKENS, 1, 1)
    joined = build.view("RESHAPE", attended, ne, contiguous_nb(BY_NAME["F32"], ne))
    x = build.node("ADD", (WIDTH, TOKENS), normed(build, times(build, joined, WIDTH)), x)
    y = normed(build, x)
    gate, up = times(build, y, HIDDEN), times(build, y, HIDDEN)
    hidden = build.node("GLU", (HIDDEN, TOKENS), gate, up, kind=GLU_OPS.index("GEGLU"))
    return build.node("ADD", (WIDTH, TOKENS), normed(build, times(build, hidden, WIDTH)), x)


def send(stream: Stream, request: bytes, wait: bytes) -> None:
    stream.send(request, wait)
    stream.receive_exactly(8 + 4)


def test_new_graph(benchmark: Callable[..., object], stream: Stream) -> None:
    benchmark.group = f"a new graph of {COUNT} ADD"  # type: ignore[attr-defined]
    benchmark(send, stream, *additions(stream))


def test_recompute(benchmark: Callable[..., object], stream: Stream) -> None:
    benchmark.group = f"recompute of {COUNT} ADD"  # type: ignore[attr-defined]
    graph, wait = additions(stream)
    send(stream, graph, wait)
    benchmark(send, stream, codec.encode_request(GraphRecompute(device=0)), wait)


def test_check(benchmark: Any, endpoint: str, request: pytest.FixtureRequest) -> None:
    if "genuine" in request.node.name:
        pytest.skip("the genuine server does not check a graph: its process would end")
    benchmark.group = "a graph like Gemma 3 270M's, checked and refused at its last node"

    def connected() -> tuple[tuple[Stream, bytes], dict[str, Any]]:
        stream = connect(endpoint)
        graph = like_gemma(stream)
        ask(stream, codec.encode_request(GetAlignment()), GetAlignmentReply)
        return (stream, graph), {}

    def refused(stream: Stream, graph: bytes) -> None:
        stream.send(graph)
        assert stream.wait_closed().closed
        stream.close()

    benchmark.pedantic(refused, setup=connected, rounds=20)
