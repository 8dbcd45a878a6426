"""How long `decode` takes for a GRAPH_COMPUTE of 1,000 nodes and 1,400 tensors, from the file to the printed text.

    .venv/bin/pytest bench/bench_decode.py --benchmark-only

The claim is that the annotated form takes under 50 ms. `full`, which walks each of the 23,800 fields, is there for comparison.
Interpreter start and imports (numpy, and the ops for `graph`) are not counted.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggml_rpc_ref.commands import decode as command
from ggml_rpc_ref.decode import Options
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.spec.messages import GraphCompute, RpcTensor
from ggml_rpc_ref.spec.opcodes import op_table

N_NODES, N_LEAVES = 1_000, 400
OPS = [op_table().index(name) for name in ("MUL_MAT", "ADD", "RMS_NORM", "MUL", "ROPE", "GET_ROWS", "GLU", "SOFT_MAX")]


def graph_frame() -> bytes:
    """A message in which every tensor has a name and an address, every node an op, two sources and flags; a third are views."""
    random = np.random.default_rng(1)
    count = N_NODES + N_LEAVES
    tensors = np.zeros(count, codec.layout(RpcTensor))
    ids = 0x7F00_0000_0000 + 368 * np.arange(count, dtype=np.uint64)
    tensors["id"], tensors["buffer"], tensors["data"] = ids, 0x5600_0000_0010, 0x5610_0000_0000 + 4096 * np.arange(count)
    tensors["ne"], tensors["nb"] = (640, 1, 4, 1), (4, 2560, 2560, 10240)
    tensors["op"][N_LEAVES:] = random.choice(OPS, N_NODES)
    tensors["flags"][N_LEAVES:] = 16
    tensors["src"][N_LEAVES:, 0] = ids[N_LEAVES - 1 : -1]
    tensors["src"][N_LEAVES:, 1] = random.choice(ids[:N_LEAVES], N_NODES)
    tensors["view_src"][N_LEAVES::3] = ids[N_LEAVES - 1 : -1 : 3]
    for place in range(count):
        tensors["name"][place] = f"blk.{place // 50}.tensor-{place}".encode().ljust(64, b"\0")
    payload = Graph(0, ids[N_LEAVES:], tensors).encode()
    return codec.request_head(GraphCompute, len(payload)) + payload


WANTED = {
    "annotated": Options(),
    "graph-text": Options(graph="text"),
    "graph-dot": Options(graph="dot"),
    "json": Options(as_json=True),
    "full": Options(full=True),
    "full-json": Options(full=True, as_json=True),
}


@pytest.mark.parametrize("name", WANTED)
def test_decode(benchmark: Any, tmp_path: Path, name: str) -> None:
    path = tmp_path / "graph"
    path.write_bytes(graph_frame())

    def show() -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert command.run(str(path), WANTED[name]) == 0
        return out.getvalue()

    assert "tensor-1399" in benchmark(show) or name == "full-json"
