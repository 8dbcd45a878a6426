"""Every node of the real model's graphs, on the genuine server and here, from the same bytes.

Tokens compare only what comes out at the end, where roundings have grown by a factor of 10^10 on their way through 18 layers.
This compares each of the 728 nodes of a prompt's graph and of a single token's graph by itself: before each one, our memory holds
exactly what the genuine server's holds. The oracle must lie within the op's tolerance, upstream-cpu within the order of float32
sums.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from ggml_rpc_ref import connect, upstream
from ggml_rpc_ref.backends import Backend, Step
from ggml_rpc_ref.backends.memory import HostAllocation
from ggml_rpc_ref.client.client import Client
from ggml_rpc_ref.ops.compare import compare_tensors
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server.handlers import Host
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.memory import Buffer, Memory
from ggml_rpc_ref.server.plan import Plan, compile_plan, make_plan
from ggml_rpc_ref.server.server import Server
from ggml_rpc_ref.server.validate import CheckedGraph
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.messages import AllocBuffer, BufferGetBase, FreeBuffer, GraphCompute, RpcTensor
from ggml_rpc_ref.spec.versions import Version
from ggml_rpc_ref.tensor import PlainStorage, Tensor

PROMPT = "The capital of France is the city that lies on the river"
GATED = Tolerance(nmse=1e-6, reason="GELU is looked up by F16, and what it gates scales the error of each element")
NEAR = 1e-8
"""Bound on the normalised squared error of upstream-cpu: float32 sums in another order, a few F16 results that fall otherwise."""


@dataclass
class Captured:
    """A graph as it came, the steps of its plan, and the bytes of its buffers before it ran."""

    graph: Graph
    steps: list[Step]
    before: dict[Buffer, bytes]


def capture(host: Host, model: Path) -> list[Captured]:
    """Let a stock client run the model on a server of ours; return the graphs that it sent."""
    seen: list[Captured] = []

    def remember(graph: Graph, memory: Memory, backend: Backend, version: Version) -> Plan:
        plan = make_plan(graph, memory, backend, version)
        seen.append(Captured(graph, list(plan.steps), {b: bytes(b.allocation.download(0, b.size)) for b in plan.buffers}))
        return plan

    with Server(replace(host, make_plan=remember)) as server:
        upstream.generate("3.6.1", rpc=server.endpoint, model=model, prompt=PROMPT, n_predict=2)
    return [captured for captured in seen if len(captured.graph.nodes) > 100]


class Mirror:
    """The buffers of a captured graph on the genuine server, and its tensors at their addresses there."""

    def __init__(self, client: Client, captured: Captured) -> None:
        self.client, self.remote = client, {}
        for buffer, content in captured.before.items():
            buffer.allocation.upload(0, memoryview(content))
            remote_ptr = client.request(AllocBuffer(device=0, size=buffer.size)).remote_ptr
            self.remote[buffer] = remote_ptr, client.request(BufferGetBase(remote_ptr=remote_ptr)).base_ptr
            for start in range(0, buffer.size, 2**28):
                part = np.frombuffer(buffer.allocation.download(start, min(start + 2**28, buffer.size)), np.uint8)
                client.set_tensor(self.wire(BY_NAME["I8"].number, buffer, start, len(part)), 0, part)
        owners = {buffer.remote_ptr: buffer for buffer in captured.before}
        self.tensors = {t.id: self.moved(t, owners) for t in captured.graph.message().tensors}

    def wire(self, number: int, buffer: Buffer, start: int, size: int) -> RpcTensor:
        remote_ptr, base = self.remote[buffer]
        return RpcTensor(id=1, type=number, buffer=remote_ptr, ne=(size, 1, 1, 1), nb=(1, size, size, size), data=base + start)

    def moved(self, tensor: RpcTensor, owners: dict[int, Buffer]) -> RpcTensor:
        if not tensor.buffer:
            return tensor
        buffer = owners[tensor.buffer]
        remote_ptr, base = self.remote[buffer]
        return replace(tensor, buffer=remote_ptr, data=tensor.data - buffer.base + base)

    def compute(self, node: int, into: Tensor) -> None:
        """Compute one node there and put its bytes where ours would come."""
        sources = {self.tensors[at] for at in (*self.tensors[node].src, self.tensors[node].view_src) if at and at != node}
        leaves = [replace(source, op=0, src=(0,) * 10, view_src=0, view_offs=0) for source in sources]
        message = GraphCompute(device=0, nodes=(node,), tensors=(*leaves, self.tensors[node]))
        self.client.compute(Graph.decode(codec.encode(message)))
        assert isinstance(into.storage, HostAllocation)
        received = self.client.get_tensor(self.tensors[node], 0, into.nbytes)
        into.storage.upload(into.offset, memoryview(received))

    def free(self) -> None:
        for remote_ptr, _ in self.remote.values():
            self.client.request(FreeBuffer(remote_ptr=remote_ptr))


def bytes_of(tensor: Tensor) -> bytes:
    assert isinstance(tensor.storage, HostAllocation)
    return tensor.storage.data[tensor.offset : tensor.offset + tensor.nbytes].tobytes()


def snapshot(tensor: Tensor, content: bytes) -> Tensor:
    return replace(tensor, storage=PlainStorage(np.frombuffer(content, np.uint8)), offset=0)


def error(expected: Tensor, actual: Tensor) -> float:
    """The normalised squared error; infinite where the two are not finite at the same places."""
    a, b = expected.values().astype(np.float64), actual.values().astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    return float(np.sum(np.square(a[finite] - b[finite])) / max(np.sum(np.square(a[finite])), 1e-30))


@pytest.mark.upstream
def test_each_node_of_the_models_graphs_is_what_the_genuine_server_computes(
    upstream_server: upstream.Server, gemma_model: Path
) -> None:
    backend = make_host("upstream-cpu").devices[0].backend
    graphs = capture(make_host("native"), gemma_model)  # who computes while the graphs are captured does not matter
    assert [len(captured.graph.nodes) for captured in graphs] == [728, 728]
    computed: Counter[str] = Counter()
    with connect(upstream_server.endpoint, hashing=False) as client:
        for captured in graphs:
            mirror = Mirror(client, captured)
            ids = iter(captured.graph.nodes.tolist())
            for step in captured.steps:
                node, dst = step.node, step.node.dst
                node_id = next(
                    at for at in ids if mirror.tensors[at].name.split(b"\0")[0].decode() == dst.name and mirror.tensors[at].op
                )
                before = bytes_of(dst)
                node.op.oracle(node)
                by_oracle = bytes_of(dst)
                restore(dst, before)
                compile_plan(CheckedGraph((node,), frozenset()), backend).run()
                by_rounding = bytes_of(dst)
                restore(dst, before)
                mirror.compute(node_id, dst)
                where = f"{node.op.name} {dst.name}"
                mismatch = compare_tensors(dst, snapshot(dst, by_oracle), GATED if node.op.name == "GLU" else node.op.tolerance)
                assert mismatch is None, f"{where}: {mismatch}"
                assert error(dst, snapshot(dst, by_rounding)) < NEAR, where
                computed[node.op.name] += 1
            mirror.free()
    assert set(computed) == {
        "MUL_MAT",
        "RMS_NORM",
        "MUL",
        "ROPE",
        "SET_ROWS",
        "ADD",
        "SCALE",
        "FLASH_ATTN_EXT",
        "GLU",
        "CPY",
        "GET_ROWS",
    }
    assert computed["MUL_MAT"] == 2 * (18 * 7 + 1)


def restore(tensor: Tensor, content: bytes) -> None:
    assert isinstance(tensor.storage, HostAllocation)
    tensor.storage.data[tensor.offset : tensor.offset + tensor.nbytes] = np.frombuffer(content, np.uint8)
