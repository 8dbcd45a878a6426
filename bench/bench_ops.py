"""One node of each family of ops, our oracle and the genuine 3.6.1 server: `pytest bench/bench_ops.py`.

Both are servers on loopback with one thread and one client each, and the data is in their memory: a time covers one GRAPH_COMPUTE
of one node and a GET_TENSOR of 4 bytes that waits for it. What counts is the ratio of the two rows of a group: absolute times
drift between machines and hours. Each server's first result is compared with the oracle's before anything is timed. That first
run also fills our server's cache of dequantised weights, as a model's first token does.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from bench.servers import download, place, upload
from ggml_rpc_ref.net.stream import Stream
from ggml_rpc_ref.ops import OPS
from ggml_rpc_ref.ops.cases import recipes
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.compare import compare_tensors
from ggml_rpc_ref.ops.shared.activations import TABLE
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.messages import FLAG_COMPUTE, MAX_SRC, GetTensor, GraphCompute, RpcTensor
from ggml_rpc_ref.spec.opcodes import GLU_OPS, UNARY_OPS, op_table
from ggml_rpc_ref.tensor import PlainStorage, Tensor

ROUNDS = 7
DST, SRC = 1000, 2000
"""Tensor ids; sources count up from SRC by slot."""


def node(name: str, dst: Operand, /, *src: Operand | None, tolerance: Tolerance | None = None, **params: Any) -> tuple[str, Case]:
    return name, Case("bench", dst, src, params, tolerance)


def f32(*ne: int, fill: str = "normal") -> Operand:
    return Operand("F32", ne, fill=fill)


def f16(*ne: int, fill: str = "normal") -> Operand:
    return Operand("F16", ne, fill=fill)


CONV = {"s0": 1, "s1": 1, "p0": 1, "p1": 1, "d0": 1, "d1": 1}
NEOX = {"mode": 2, "n_dims": 128, "freq_base": 1e4, "freq_scale": 1.0, "attn_factor": 1.0, "beta_fast": 32.0, "beta_slow": 1.0}
ADAMW = Operand("F32", (7,), fill="values:0.001,0.9,0.999,1e-8,0.01,10,1000")

# fmt: off
NODES: dict[str, tuple[str, Case]] = {
    "matrix products: q4_0 2048x2048, 1 column": node("MUL_MAT", f32(2048, 1), Operand("Q4_0", (2048, 2048)), f32(2048, 1)),
    "matrix products: q4_0 2048x2048, 64 columns": node("MUL_MAT", f32(2048, 64), Operand("Q4_0", (2048, 2048)), f32(2048, 64)),
    "matrix products: f16 2048x2048, 64 columns": node("MUL_MAT", f32(2048, 64), f16(2048, 2048), f32(2048, 64)),
    "matrix products: 2 of 8 experts, q8_0 1024x1024, 32 tokens": node(
        "MUL_MAT_ID", f32(1024, 2, 32), Operand("Q8_0", (1024, 1024, 8)), f32(1024, 1, 32), Operand("I32", (2, 32), fill="index:8")
    ),
    "attention: flash, f16, 64 queries, 512 keys, 8 heads on 2": node(
        "FLASH_ATTN_EXT", f32(128, 8, 64), f32(128, 64, 8), f16(128, 512, 2), f16(128, 512, 2),
        f16(512, 64, fill="mask"), scale=0.0884
    ),
    "attention: flash, f16, 1 query, 2048 keys, 8 heads on 2": node(
        "FLASH_ATTN_EXT", f32(128, 8, 1), f32(128, 1, 8), f16(128, 2048, 2), f16(128, 2048, 2),
        f16(2048, 1, fill="mask"), scale=0.0884
    ),
    "attention: soft_max 512x64, 8 heads, mask": node(
        "SOFT_MAX", f32(512, 64, 8), f32(512, 64, 8), f16(512, 64, fill="mask"), scale=0.125
    ),
    "norms: rms_norm 2048x256": node("RMS_NORM", f32(2048, 256), f32(2048, 256), eps=1e-6),
    "norms: group_norm 64x64x64, 32 groups": node("GROUP_NORM", f32(64, 64, 64), f32(64, 64, 64), n_groups=32, eps=1e-6),
    "element-wise: add 2048x256 and a row": node("ADD", f32(2048, 256), f32(2048, 256), f32(2048)),
    "activations: gelu 4096x128": node("UNARY", f32(4096, 128), f32(4096, 128), kind=UNARY_OPS.index("GELU"), tolerance=TABLE),
    "activations: swiglu 4096x128": node("GLU", f32(4096, 128), f32(4096, 128), f32(4096, 128), kind=GLU_OPS.index("SWIGLU")),
    "copies, quantising: f32 to q8_0 2048x256": node(
        "CPY", Operand("Q8_0", (2048, 256), alias="src1"), f32(2048, 256), Operand("Q8_0", (2048, 256), fill="zeros")
    ),
    "copies, quantising: f32 to q4_K 2048x64": node(
        "CPY", Operand("Q4_K", (2048, 64), alias="src1"), f32(2048, 64), Operand("Q4_K", (2048, 64), fill="zeros")
    ),
    "copies, quantising: transposed f32 1024x1024": node(
        "CONT", f32(1024, 1024), Operand("F32", (1024, 1024), nb=(4096, 4, 2**22, 2**22))
    ),
    "rows: get 128 of q4_0 2048x8192": node(
        "GET_ROWS", f32(2048, 128), Operand("Q4_0", (2048, 8192), fill="blocks"), Operand("I32", (128,), fill="index:8192")
    ),
    "rows: set 128 of f16 1024x4096": node(
        "SET_ROWS", Operand("F16", (1024, 4096), alias="src2"), f32(1024, 128), Operand("I64", (128,), fill="permutation"),
        f16(1024, 4096),
    ),
    "rope: neox 128, 16 heads, 128 tokens": node(
        "ROPE", f32(128, 16, 128), f32(128, 16, 128), Operand("I32", (128,), fill="index:1000"), **NEOX
    ),
    "convolutions: conv_2d 3x3, 64 to 64 channels, 64x64": node(
        "CONV_2D", f32(64, 64, 64), f32(3, 3, 64, 64), f32(64, 64, 64), **CONV
    ),
    "convolutions: im2col 3x3, 64 channels, 64x64": node(
        "IM2COL", f32(576, 64, 64), f32(3, 3, 64, 64), f32(64, 64, 64), **CONV, is_2D=1
    ),
    "pooling: max 2x2, 32 channels, 128x128": node(
        "POOL_2D", f32(64, 64, 32), f32(128, 128, 32), op=0, k0=2, k1=2, s0=2, s1=2
    ),
    "recurrent: ssm_scan, state 16, 1536 channels, 32 tokens": node(
        "SSM_SCAN", f32(1536 * (32 + 16)), f32(16, 1, 1536), f32(1, 1536, 32), f32(1536, 32), f32(16, 1536, fill="uniform:-2:0"),
        f32(16, 1, 32), f32(16, 1, 32), Operand("I32", (1,), fill="zeros"),
    ),
    "recurrent: rwkv_wkv7, 12 heads of 64, 32 tokens": node(
        "RWKV_WKV7", f32(768, 32 + 64), f32(64, 12, 32), f32(64, 12, 32, fill="uniform:0:1"), f32(64, 12, 32), f32(64, 12, 32),
        f32(64, 12, 32, fill="normal:0.1"), f32(64, 12, 32, fill="normal:0.1"), f32(64 * 64 * 12, 1),
    ),
    "sums, orders: sum_rows 2048x512": node("SUM_ROWS", f32(1, 512), f32(2048, 512)),
    "sums, orders: argsort 2048x64": node("ARGSORT", Operand("I32", (2048, 64)), f32(2048, 64, fill="permutation"), order=1),
    "optimiser, back-propagation: adamw 1024x1024": node(
        "OPT_STEP_ADAMW", Operand("F32", (1024, 1024), alias="src0"), f32(1024, 1024), f32(1024, 1024), f32(1024, 1024),
        f32(1024, 1024, fill="uniform:0:2"), ADAMW,
    ),
    "optimiser, back-propagation: rms_norm_back 2048x256": node(
        "RMS_NORM_BACK", f32(2048, 256), f32(2048, 256), f32(2048, 256), eps=1e-5
    ),
}
# fmt: on


@dataclass
class Resident:
    """A node whose tensors lie in a server's memory.

    Attributes:
        stream: the connection.
        compute: GRAPH_COMPUTE of the node and a GET_TENSOR of 4 bytes of its result.
        dst: the result's record.
        mine: destination and sources of the same node in this process, not yet computed.
    """

    stream: Stream
    compute: bytes
    dst: RpcTensor
    mine: tuple[Tensor, tuple[Tensor | None, ...]]

    def run(self) -> None:
        self.stream.send(self.compute)
        self.stream.receive_exactly(8 + 4)

    def result(self) -> Tensor:
        """Return what the server computed."""
        dst, _ = self.mine
        data = np.zeros(dst.nbytes, np.uint8)
        request = codec.encode_request(GetTensor(tensor=self.dst, offset=0, size=dst.nbytes))
        download(self.stream, request, data.data)
        return replace(dst, storage=PlainStorage(data), offset=0)


def resident(stream: Stream, op: str, case: Case) -> Resident:
    dst, src = recipes.build(op, case)
    records = {SRC + slot: send(stream, SRC + slot, tensor) for slot, tensor in enumerate(src) if tensor is not None}
    ids = tuple(SRC + slot if tensor is not None else 0 for slot, tensor in enumerate(src))
    owner = SRC + int(case.dst.alias.removeprefix("src")) if case.dst.alias else 0
    placed = replace(records[owner], id=DST) if owner else send(stream, DST, dst)
    result = replace(
        placed, op=op_table().index(op), op_params=struct.unpack("<16i", OPS[op].pack(case.params)), flags=FLAG_COMPUTE,
        src=(*ids, *[0] * MAX_SRC)[:MAX_SRC], view_src=owner,
    )  # fmt: skip
    graph = codec.encode_request(GraphCompute(nodes=(DST,), tensors=(*records.values(), result)))
    return Resident(stream, graph + codec.encode_request(GetTensor(tensor=result, offset=0, size=4)), result, (dst, src))


def send(stream: Stream, number: int, tensor: Tensor) -> RpcTensor:
    """Put a tensor's elements into a buffer of its own on the server; return its record."""
    assert isinstance(tensor.storage, PlainStorage)
    data = tensor.storage.data[tensor.offset : tensor.offset + tensor.nbytes]
    everything = place(stream, data.size)
    upload(stream, everything, data.data)
    return replace(everything, id=number, type=tensor.dtype.number, ne=tensor.ne, nb=tensor.nb)


@pytest.mark.parametrize("name", NODES)
def test_node(benchmark: Callable[..., object], stream: Stream, name: str) -> None:
    benchmark.group = name  # type: ignore[attr-defined]
    op, case = NODES[name]
    theirs = resident(stream, op, case)
    theirs.run()
    dst, src = theirs.mine
    OPS[op].oracle(OPS[op].check(dst, src, OPS[op].pack(case.params)))
    mismatch = compare_tensors(dst, theirs.result(), case.tolerance or OPS[op].tolerance)
    assert mismatch is None, mismatch
    benchmark.pedantic(theirs.run, rounds=ROUNDS, warmup_rounds=1)  # type: ignore[attr-defined]
