"""The graph builder: what it sends against the genuine client's recorded graph, and what its ops compute on both servers."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ggml_rpc_ref import upstream
from ggml_rpc_ref.client.client import connect
from ggml_rpc_ref.client.devices import Device
from ggml_rpc_ref.client.graph import Graph, as_records
from ggml_rpc_ref.client.sent_graphs import SentGraphs
from ggml_rpc_ref.client.tensors import RemoteTensor, sources_first
from ggml_rpc_ref.client.words import quad
from ggml_rpc_ref.errors import Misuse, Unsupported
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import Graph as WireGraph
from ggml_rpc_ref.server.handlers import Session
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.server import Server
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.messages import REQUESTS, FreeBuffer, GraphCompute, RpcTensor, command_name
from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES, Version
from ggml_rpc_ref.tensor import contiguous_nb

FRAMES = Path(__file__).parents[1] / "vectors" / "upstream-3.6.1-llama-cpp-python-0.3.20" / "frames.json"


# ------------------------------------------------------------------------------------------------------------- no server


class Space:
    """Memory that is numbers only."""

    def __init__(self, remote_ptr: int, base: int, size: int) -> None:
        self.remote_ptr, self.base, self.size = remote_ptr, base, size


class Nowhere:
    """A device without a server."""

    index, alignment = 3, 32

    def __init__(self, version: Version = DEFAULT) -> None:
        self.version, self.rooms, self.sent = version, list[Space](), list[WireGraph]()

    def alloc(self, size: int) -> Space:
        self.rooms.append(Space(len(self.rooms) + 1, 2**40 * (len(self.rooms) + 1), size))
        return self.rooms[-1]

    def alloc_size(self, tensor: RemoteTensor) -> int:
        return tensor.nbytes + 1000

    def shares_connection(self, other: object) -> bool:
        return other is self

    def write(self, tensor: RemoteTensor, data: Any, offset: int = 0) -> None:
        raise AssertionError("nothing is to be written")

    def read(self, tensor: RemoteTensor, offset: int, size: int) -> Any:
        raise AssertionError("nothing is to be read")

    def compute(self, graph: WireGraph) -> None:
        self.sent.append(graph)

    def leaf(self, dtype: str, *ne: int) -> RemoteTensor:
        row = BY_NAME[dtype]
        leaf = RemoteTensor(self, row, quad(ne), contiguous_nb(row, quad(ne)), len(ne))
        leaf.buffer = self.alloc(leaf.nbytes)
        return leaf


@pytest.fixture
def home() -> Nowhere:
    return Nowhere()


def as_recorded() -> tuple[Graph, dict[str, Any]]:
    """The graph of vectors/tools/record_frames.py built with ours, and its fields as recorded."""
    recorded = next(
        frame["fields"]
        for connection in json.loads(FRAMES.read_text())["connections"]
        for frame in connection["frames"]
        if frame["command"] == "GRAPH_COMPUTE"
    )
    home = Nowhere()
    graph = Graph(home)
    weights, x, wide = home.leaf("Q8_0", 96, 5), home.leaf("F32", 96, 3), home.leaf("F32", 7, 4, 2)
    x.flags, wide.flags = 1, 4
    # the genuine builder visits depth first, so its order of nodes is that of the sources
    product = graph.mul_mat(weights, x)
    graph.nodes.append(wide)  # ggml lists a leaf with the flag PARAM among the nodes
    window = graph.view(wide, 5, 3, nb=(4, 28, 84, 84), offset=124)
    scaled = graph.scale(graph.rms_norm(graph.add(product, window), 1e-6), -2.5, 0.125)
    straight = graph.cont(graph.transpose(scaled))
    straight.flags |= 2
    q, positions, factors = home.leaf("F32", 32, 2, 3), home.leaf("I32", 3), home.leaf("F32", 8)
    rope = {"n_dims": 16, "mode": 2, "n_ctx_orig": 8192, "freq_base": 1e6, "freq_scale": 0.25, "ext_factor": 1.0}
    more = {"attn_factor": 1.5, "beta_fast": 32.0, "beta_slow": 2.0}
    rotated = graph.op("ROPE", [q, positions, factors], params=rope | more)
    heads = graph.permute(rotated, 0, 2, 1, 3)
    k, v, mask, sinks = home.leaf("F16", 32, 8, 2), home.leaf("F16", 32, 8, 2), home.leaf("F16", 8, 3), home.leaf("F32", 2)
    attention: dict[str, Any] = {"scale": 0.1768, "max_bias": 0.0, "logit_softcap": 30.0, "prec": 10}
    graph.op("FLASH_ATTN_EXT", [heads, k, v, mask, sinks], params=attention, ne=(32, 2, 3), dtype="F32")
    elsewhere = home.leaf("F16", 9, 8, 7, 6)
    elsewhere.buffer = None
    graph.reshape(elsewhere, 72, 42)
    graph.cpy(home.leaf("F32", 4, 3), home.leaf("F16", 4, 3))
    return graph, recorded


def test_a_graph_is_sent_as_the_genuine_client_sends_it() -> None:
    """Order of nodes and tensors, geometry, ops, parameters, flags, sources; ids and addresses are each client's own."""
    graph, recorded = as_recorded()
    graph._place()
    sent = graph.encode()
    theirs = {record["id"]: index for index, record in enumerate(recorded["tensors"])}
    ours = {int(number): index for index, number in enumerate(sent.tensors["id"])}
    assert [ours[int(node)] for node in sent.nodes] == [theirs[node] for node in recorded["nodes"]]
    for name in ("type", "ne", "nb", "op", "op_params", "flags", "view_offs"):
        assert sent.tensors[name].tolist() == [record[name] for record in recorded["tensors"]], name
    # ids become places in the list, 0 stays what no tensor has
    assert [[ours.get(id_) for id_ in src] for src in sent.tensors["src"].tolist()] == [
        [theirs.get(id_) for id_ in record["src"]] for record in recorded["tensors"]
    ]
    assert [ours.get(id_) for id_ in sent.tensors["view_src"].tolist()] == [
        theirs.get(record["view_src"]) for record in recorded["tensors"]
    ]


def test_views_lie_where_what_they_show_lies() -> None:
    graph, _ = as_recorded()
    graph._place()
    sent = graph.encode()
    place = {int(tensor["id"]): tensor for tensor in sent.tensors}
    assert np.count_nonzero(sent.tensors["view_src"]) == 5
    for tensor in sent.tensors:
        if tensor["view_src"]:
            shown = place[int(tensor["view_src"])]
            assert not shown["view_src"]  # views of views name the tensor that has the memory
            assert tensor["buffer"] == shown["buffer"]
            assert int(tensor["data"]) == (int(shown["data"]) + int(tensor["view_offs"]) if shown["buffer"] else 0)


def test_a_view_of_a_view_counts_from_the_memory(home: Nowhere) -> None:
    graph, x = Graph(home), home.leaf("F32", 10, 10)
    inner = graph.view(graph.view(x, 10, 5, offset=40), 4, 2, nb=(4, 40, 80, 80), offset=8)
    assert (inner.view_src, inner.view_offs, inner.src[0]) == (x, 48, graph.nodes[0])
    assert inner.op_params[:4] == struct.pack("<i", 8)


def test_results_lie_side_by_side_aligned_in_one_buffer(home: Nowhere) -> None:
    graph, x = Graph(home), home.leaf("F32", 3, 3)
    before = len(home.rooms)
    nodes = [graph.scale(x, 1.0), graph.add(x, x), graph.transpose(x), graph.mul(x, x)]
    graph.compute()
    graph.compute()
    assert [room.size for room in home.rooms[before:]] == [192]
    assert [node.offset for node in nodes if node.view_src is None] == [0, 64, 128]
    assert nodes[2].owner is x


def test_ops_that_want_more_room_are_asked_about(home: Nowhere) -> None:
    graph, _ = as_recorded()
    home = graph.device  # type: ignore[assignment]
    graph._place()
    attended = next(node for node in graph.nodes if node.op == "FLASH_ATTN_EXT")
    assert home.rooms[-1].size >= attended.offset + attended.nbytes + 1000


def test_sources_come_first_each_once(home: Nowhere) -> None:
    graph, x = Graph(home), home.leaf("F32", 4)
    a = graph.scale(x, 2.0)
    b = graph.add(a, x)
    c = graph.add(b, a)
    assert list(sources_first([c, b])) == [x, a, b, c]
    y, into = home.leaf("F32", 4), home.leaf("F16", 4)
    d = graph.cpy(y, into)
    assert list(sources_first([d])) == [y, into, d]


def test_a_chain_of_many_thousands(home: Nowhere) -> None:
    """No recursion: Python's stack ends at a thousand."""
    graph, x = Graph(home), home.leaf("F32", 1)
    for _ in range(5_000):
        x = graph.scale(x, 1.0)
    assert len(list(sources_first([x]))) == 5_001


def test_what_is_sent_is_a_whole_message(home: Nowhere) -> None:
    graph, x = Graph(home), home.leaf("F32", 4)
    graph.scale(x, 2.0, name="ü" * 60)
    graph.compute()
    message = codec.decode(GraphCompute, home.sent[0].encode())
    assert (message.device, len(message.nodes), len(message.tensors)) == (3, 1, 2)
    assert message.tensors[1].name == ("ü" * 31).encode() + b"\xc3\0"  # 63 bytes, as snprintf cuts them
    assert message.tensors[1].flags == 16


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        pytest.param(lambda g, x: g.mul_mat(x, g.transpose(x)), r"MUL_MAT is not possible: graph\.shape", id="shape"),
        pytest.param(lambda g, x: g.op("CLAMP", [x], params={"low": 1.0}), "no parameter 'low'; it has min, max", id="name"),
        pytest.param(lambda g, x: g.op("GLU", [None], params={}), "GLU needs the parameter kind", id="kind"),
        pytest.param(lambda g, x: g.op("FILL", [None], params={"c": 1}), "FILL has no source, so ne and dtype must", id="source"),
        pytest.param(lambda g, x: g.op("REPEAT", [x]), "REPEAT: neither sources nor parameters tell", id="ne"),
        pytest.param(lambda g, x: g.op("ADD", [x]), r"ADD is not possible: graph\.arity", id="arity"),
        pytest.param(lambda g, x: g.op("GET_ROWS", [x, x]), r"GET_ROWS is not possible: graph\.type", id="type"),
        pytest.param(lambda g, x: g.permute(x, 0, 1, 2, 2), "is not a permutation", id="permute"),
        pytest.param(lambda g, x: g.reshape(x, 5, 2), r"RESHAPE is not possible", id="reshape"),
        pytest.param(lambda g, x: g.reshape(x, 1, 2, 3, 2, 1), "up to four dimensions", id="five"),
        pytest.param(lambda g, x: g.add(x, Nowhere().leaf("F32", 4, 3)), "every source must be on the graph", id="home"),
        pytest.param(lambda g, x: g.op("NOT_AN_OP", [x], params={"a": 1}), "no op is called 'NOT_AN_OP'", id="op"),
        pytest.param(lambda g, x: g.op("DSV4_HC_PRE", [x]), "no known number for DSV4_HC_PRE", id="later-op"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_said_at_once(home: Nowhere, build: Callable[[Graph, RemoteTensor], object], sentence: str) -> None:
    graph = Graph(home)
    with pytest.raises((Misuse, Unsupported), match=sentence):
        build(graph, home.leaf("F32", 4, 3))


def test_kinds_get_the_number_of_the_version() -> None:
    """GELU_ERF is 16 since EXPM1 and SOFTPLUS were inserted before it; 3.0.0 has no CEIL."""
    for version, number in ((Version(3, 0, 0), 14), (Version(3, 5, 0), 16), (DEFAULT, 16)):
        home = Nowhere(version)
        node = Graph(home).op("UNARY", [home.leaf("F32", 4)], params={"kind": 16})
        assert node.wire().op_params[0] == number
    home = Nowhere(Version(3, 0, 0))
    with pytest.raises(Unsupported, match=r"protocol 3\.0\.0 has no UNARY CEIL"):
        Graph(home).op("UNARY", [home.leaf("F32", 4)], params={"kind": 19}).wire()


def test_ops_get_the_number_of_the_version() -> None:
    for version, number in (
        (Version(2, 0, 0), 87),
        (Version(3, 0, 0), 89),
        (Version(3, 5, 0), 94),
        (DEFAULT, 95),
        (Version(7, 0, 0), 100),
    ):
        home = Nowhere(version)
        node = Graph(home).op("GLU", [home.leaf("F32", 8, 2)], params={"kind": 2}, ne=(4, 2))
        assert node.wire().op == number
    old = Nowhere(Version(1, 0, 0))
    with pytest.raises(Unsupported, match=r"protocol 1\.0\.0 has no known number for GLU"):
        Graph(old).op("GLU", [old.leaf("F32", 8, 2)], params={"kind": 2}, ne=(4, 2)).wire()


# ------------------------------------------------------------------------------------------------------- on both servers


class SpySession(Session):
    """A session that notes the commands it is given."""

    seen: list[str]

    def handle(self, message: Any) -> Any:
        self.seen.append("GRAPH_COMPUTE" if type(message) not in REQUESTS else command_name(type(message)))
        return super().handle(message)


def spied_server(seen: list[str], devices: str = "oracle,oracle") -> Server:
    """Our server, which notes its commands."""
    session = type("Noting", (SpySession,), {"seen": seen})
    return type("Noted", (Server,), {"session_type": session})(make_host(devices))


@pytest.fixture(params=["own", pytest.param("genuine", marks=pytest.mark.upstream)])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    if request.param == "own":
        with Server(make_host("oracle")) as server, connect(server.endpoint) as client:
            yield client.devices[0]
        return
    server: upstream.Server = request.getfixturevalue("upstream_server")
    with connect(server.endpoint) as client:
        yield client.devices[0]


RANDOM = np.random.default_rng(20261122)
A, B = (RANDOM.standard_normal(shape).astype(np.float32) for shape in ((5, 64), (3, 64)))
X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def near(got: npt.NDArray[Any], want: npt.NDArray[Any]) -> None:
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_two_matrices_in_ten_lines(device: Device) -> None:
    a, b = device.tensor(A), device.tensor(B)
    graph = device.graph()
    c = graph.mul_mat(a, b)
    graph.compute()
    near(c.numpy(), B @ A.T)


def soft_max(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


MASK = np.where(np.arange(12).reshape(3, 4) % 3, 0, -np.inf).astype(np.float32)

IDS = np.array([[2, 0], [1, 1]], np.int32)

OPS: dict[str, tuple[Callable[[Device, Graph, RemoteTensor], RemoteTensor], npt.NDArray[Any]]] = {
    "add": (lambda d, g, x: g.add(x, x), X + X),
    "add-row": (lambda d, g, x: g.add(x, d.tensor(X[0, 0])), X + X[0, 0]),
    "mul": (lambda d, g, x: g.mul(x, x), X * X),
    "scale": (lambda d, g, x: g.scale(x, -2.0, 0.5), X * -2 + 0.5),
    "rms-norm": (lambda d, g, x: g.rms_norm(x, 1e-3), X / np.sqrt((X**2).mean(-1, keepdims=True) + np.float32(1e-3))),
    "soft-max": (lambda d, g, x: g.soft_max(x, scale=0.5), soft_max(X * 0.5)),
    "soft-max-mask": (lambda d, g, x: g.soft_max(x, d.tensor(MASK)), soft_max(X + MASK)),
    "permute": (lambda d, g, x: g.cont(g.permute(x, 0, 2, 1, 3)), np.ascontiguousarray(X.transpose(1, 0, 2))),
    "permute-cycle": (lambda d, g, x: g.cont(g.permute(x, 1, 2, 0, 3)), np.ascontiguousarray(X.transpose(1, 2, 0))),
    "permuted-view": (lambda d, g, x: g.permute(x, 0, 2, 1, 3), X.transpose(1, 0, 2)),
    "transpose": (lambda d, g, x: g.cont(g.transpose(x)), np.ascontiguousarray(X.transpose(0, 2, 1))),
    "transposed-view": (lambda d, g, x: g.transpose(x), X.transpose(0, 2, 1)),
    "view": (lambda d, g, x: g.cont(g.view(x, 2, 3, nb=(4, 16, 48, 96), offset=8)), X[0, :, 2:4]),
    "view-in-place": (lambda d, g, x: g.view(x, 2, 3, nb=(4, 16, 48, 96), offset=8), X[0, :, 2:4]),
    "reshape": (lambda d, g, x: g.reshape(x, 12, 2), X.reshape(2, 12)),
    "get-rows": (lambda d, g, x: g.get_rows(x, d.tensor(IDS)), np.stack([X[0][[2, 0]], X[1][[1, 1]]])),
    "cpy": (lambda d, g, x: g.cpy(x, d.empty("F16", (4, 3, 2))), X.astype(np.float16)),
    "any-op": (lambda d, g, x: g.op("CLAMP", [x], params={"min": 3.0, "max": 7.0}), X.clip(3, 7)),
}  # fmt: skip


@pytest.mark.parametrize("name", OPS)
def test_ops_mean_on_a_server_what_numpy_means(device: Device, name: str) -> None:
    build, want = OPS[name]
    graph = device.graph()
    result = build(device, graph, device.tensor(X))
    graph.compute()
    near(result.numpy(), want)


def test_cpy_writes_into_the_tensor(device: Device) -> None:
    into = device.tensor(np.zeros((2, 3, 4), np.float32))
    graph = device.graph()
    graph.cpy(device.tensor(X), into)
    graph.compute()
    near(into.numpy(), X)


def test_weights_of_a_block_type(device: Device) -> None:
    a, b = device.tensor(A, "Q8_0"), device.tensor(B)
    graph = device.graph()
    c = graph.mul_mat(a, b)
    graph.compute()
    assert np.abs(c.numpy() - B @ A.T).max() < 0.3


def test_recompute_takes_the_data_as_they_are_now(device: Device) -> None:
    a, b = device.tensor(A), device.tensor(B)
    graph = device.graph()
    c = graph.mul_mat(a, b)
    graph.compute()
    b.write(3 * B)
    graph.compute()
    near(c.numpy(), 3 * B @ A.T)


def test_a_result_is_read_only_after_it_has_memory(device: Device) -> None:
    x = device.tensor(X)
    node = device.graph().scale(x, 2.0, name="later")
    more = device.graph()
    more.add(node, node)
    for read in (node.numpy, lambda: device.read(node, 0, 4), (node + 1).numpy, more.compute):
        with pytest.raises(Misuse, match="later has no memory yet: compute its graph first"):
            read()


def test_an_unchanged_graph_is_not_sent_again() -> None:
    seen: list[str] = []
    with spied_server(seen) as server, connect(server.endpoint) as client:
        one, two = client.devices

        def sent(action: Callable[[], None]) -> list[str]:
            seen.clear()
            action()
            one.memory()
            return [name for name in seen if name.startswith("GRAPH")]

        graphs = []
        for device in (one, one, two):
            graphs.append(device.graph())
            graphs[-1].scale(device.tensor(X), 2.0)
        first, second, elsewhere = graphs
        assert sent(first.compute) == ["GRAPH_COMPUTE"]
        assert sent(first.compute) == ["GRAPH_RECOMPUTE"]
        assert sent(elsewhere.compute) == ["GRAPH_COMPUTE"]
        assert sent(first.compute) == ["GRAPH_RECOMPUTE"]  # each device keeps its own
        assert sent(second.compute) == ["GRAPH_COMPUTE"]
        assert sent(first.compute) == ["GRAPH_COMPUTE"]
        first.scale(first.nodes[0], 3.0)
        assert sent(first.compute) == ["GRAPH_COMPUTE"]
        one.alloc(1).free()
        assert sent(first.compute) == ["GRAPH_COMPUTE"]  # freeing may have dropped it
        near(first.nodes[1].numpy(), 6 * X)


def test_what_is_known_of_the_stored_graph_is_true_whoever_sent_it() -> None:
    """Requests below the builder replace or drop the server's graph too; recomputing it then gave another graph's results."""
    seen: list[str] = []
    with spied_server(seen) as server, connect(server.endpoint) as client:
        device = client.devices[0]
        first, second = device.graph(), device.graph()
        doubled, tripled = first.scale(device.tensor(X), 2.0), second.scale(device.tensor(X), 3.0)
        second.compute()
        first.compute()
        client.request(codec.decode(GraphCompute, second.encode().encode()))  # beside the builder
        doubled.src[0].write(X + 5)  # type: ignore[union-attr]
        tripled.src[0].write(X + 2)  # type: ignore[union-attr]
        first.compute()
        near(doubled.numpy(), 2 * (X + 5))
        client.compute(second.encode())
        near(tripled.numpy(), 3 * (X + 2))
        doubled.src[0].write(X + 1)  # type: ignore[union-attr]
        first.compute()
        near(doubled.numpy(), 2 * (X + 1))
        near(tripled.numpy(), 3 * (X + 2))
        buffer = device.alloc(64)
        client.request(FreeBuffer(remote_ptr=buffer.remote_ptr))
        seen.clear()
        first.compute()
        device.memory()
        assert "GRAPH_COMPUTE" in seen
        buffer._drop.detach()


def test_no_buffer_is_freed_between_looking_for_a_stored_graph_and_recomputing_it() -> None:
    """Python may run a finalizer just there, and the server would drop the graph with the buffer."""
    seen: list[str] = []
    with spied_server(seen) as server, connect(server.endpoint) as client:
        device = client.devices[0]
        graph = device.graph()
        doubled = graph.scale(device.tensor(X), 2.0)
        graph.compute()
        buffer = device.alloc(64)
        buffer._drop.detach()

        kept = client._sent

        class Dropping(SentGraphs):
            def find(self, device: int, payload: bytes) -> int | None:
                client.drop_buffer(buffer.remote_ptr)
                return kept.find(device, payload)

        client._sent = Dropping(by_uid=False)
        seen.clear()
        graph.compute()
        client._sent = kept
        near(doubled.numpy(), 2 * X)
        assert seen == ["GRAPH_RECOMPUTE", "FREE_BUFFER"]


@pytest.mark.parametrize("version", PROFILES, ids=str)
def test_records_by_column_are_those_field_by_field(version: Version) -> None:
    """Extreme numbers in every field, fewer sources than slots, a name that fills its field."""
    blank = codec.zero_record(RpcTensor, version)
    full = replace(
        blank,
        id=2**64 - 1,
        type=2**32 - 1,
        buffer=2**63,
        ne=(2**32 - 1, 0, 3, 4),
        nb=(5, 6, 7, 2**32 - 1),
        op=8,
        op_params=(-(2**31), 2**31 - 1, *range(14)),
        flags=-1,
        src=(2**64 - 1, 0, 9),
        view_src=10,
        view_offs=2**64 - 1,
        data=2**64 - 2,
        name=bytes(range(1, 64)),
    )
    records = [full, blank, replace(full, id=1, name="ä".encode(), src=())]
    assert as_records(records, version).tobytes() == b"".join(codec.encode(record, version) for record in records)
    assert as_records([], version).shape == (0,)
