"""The graphs of bench/bench_latency.py can be asked for: each is built, and its nodes have a meaning for their ops."""

from __future__ import annotations

import pytest

from bench import bench_latency
from bench.bench_graph import Builder
from ggml_rpc_ref.ops import OPS
from ggml_rpc_ref.spec.dtypes import BY_NUMBER
from ggml_rpc_ref.spec.messages import RpcTensor
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.tensor import Tensor


@pytest.mark.parametrize("name", [name for name in bench_latency.GRAPHS if not name.startswith("new graph")])
def test_each_graph_has_a_meaning(name: str) -> None:
    """POOL_2D has a parameter of the name that a node's op had."""
    build = Builder(RpcTensor(buffer=1))
    bench_latency.GRAPHS[name](build)
    by_id = {tensor.id: tensor for tensor in build.tensors}
    assert build.nodes
    assert build.end <= bench_latency.ROOM
    for id in build.nodes:
        node = by_id[id]
        op = OPS[op_table()[node.op]]
        params = b"".join(word.to_bytes(4, "little", signed=True) for word in node.op_params)
        op.check_geometry(geometry(node), tuple(geometry(by_id[source]) for source in node.src if source), params)


def geometry(tensor: RpcTensor) -> Tensor:
    """Return a tensor of the wire without memory."""
    return Tensor(BY_NUMBER[tensor.type], tensor.ne, tensor.nb)
