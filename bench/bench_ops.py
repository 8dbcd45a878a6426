"""One node of each family of ops, our server and the genuine 3.6.1 one: `pytest bench/bench_ops.py`.

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
CONV_3D = {f"{what}{axis}": 1 for what in "spd" for axis in range(3)}
NEOX = {"mode": 2, "n_dims": 128, "freq_base": 1e4, "freq_scale": 1.0, "attn_factor": 1.0, "beta_fast": 32.0, "beta_slow": 1.0}
ROW = f32(2048, 256)
STATE = f32(64 * 64 * 12, 1)
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
    "attention: soft_max 512x512, 4 heads, mask": node(
        "SOFT_MAX", f32(512, 512, 4), f32(512, 512, 4), f16(512, 512, fill="mask"), scale=0.125
    ),
    "norms: norm 2048x256": node("NORM", ROW, ROW, eps=1e-6),
    "norms: l2_norm 2048x256": node("L2_NORM", ROW, ROW, eps=1e-6),
    "element-wise: clamp 2048x256": node("CLAMP", ROW, ROW, min=-0.5, max=0.5),
    "element-wise: sin 2048x256": node("SIN", ROW, f32(2048, 256, fill="uniform:-50:50")),
    "element-wise: log 2048x256": node("LOG", ROW, f32(2048, 256, fill="uniform:0:50")),
    "element-wise: scale 2048x256": node("SCALE", ROW, ROW, scale=0.5),
    "element-wise: fill 2048x256": node("FILL", ROW, ROW, c=1.5),
    "element-wise: diag_mask_inf 512x512, 8 heads": node("DIAG_MASK_INF", f32(512, 512, 8), f32(512, 512, 8), n_past=0),
    **{
        f"activations: {kind.lower()} 2048x256": node("UNARY", ROW, ROW, kind=UNARY_OPS.index(kind))
        for kind in ("TANH", "EXPM1", "SOFTPLUS", "GELU_ERF", "HARDSWISH", "RELU", "ROUND")
    },
    "copies, quantising: f32 to f16 2048x256": node("CPY", Operand("F16", (2048, 256), alias="src1"), ROW, f16(2048, 256)),
    **{
        f"copies, quantising: f32 to {dtype} 2048x32": node(
            "CPY", Operand(dtype, (2048, 32), alias="src1"), f32(2048, 32), Operand(dtype, (2048, 32), fill="zeros")
        )
        for dtype in ("Q4_0", "Q2_K", "Q6_K", "IQ4_NL")
    },
    "copies, quantising: concat 2048x256 twice": node("CONCAT", f32(2048, 512), ROW, ROW, dim=1),
    "copies, quantising: pad 64x64x64 by 1": node(
        "PAD", f32(66, 66, 64), f32(64, 64, 64), padding=(1, 1, 1, 1, 0, 0, 0, 0), circular=0
    ),
    "copies, quantising: pad_reflect_1d 2048x256 by 8": node("PAD_REFLECT_1D", f32(2064, 256), ROW, p0=8, p1=8),
    "copies, quantising: upscale 64x64x32 to 128x128x32, bilinear": node("UPSCALE", f32(128, 128, 32), f32(64, 64, 32), mode=1),
    "rows: get 128 of q4_K 2048x4096": node(
        "GET_ROWS", f32(2048, 128), Operand("Q4_K", (2048, 4096), fill="blocks"), Operand("I32", (128,), fill="index:4096")
    ),
    "rows: add_id 2048, 4 of 32, 64 tokens": node(
        "ADD_ID", f32(2048, 4, 64), f32(2048, 4, 64), f32(2048, 32), Operand("I32", (4, 64), fill="index:32")
    ),
    "rope: normal 128, 16 heads, 128 tokens": node(
        "ROPE", f32(128, 16, 128), f32(128, 16, 128), Operand("I32", (128,), fill="index:1000"), **{**NEOX, "mode": 0}
    ),
    "convolutions: conv_2d_dw 3x3, 128 channels, 56x56": node(
        "CONV_2D_DW", f32(56, 56, 128), f32(3, 3, 1, 128), f32(56, 56, 128), **CONV
    ),
    "convolutions: conv_3d 3x3x3, 16 to 32 channels, 32x32x8": node(
        "CONV_3D", f32(32, 32, 8, 32), f32(3, 3, 3, 16 * 32), f32(32, 32, 8, 16), **CONV_3D, c=16, n=1, oc=32
    ),
    "convolutions: conv_transpose_1d 16, 128 to 64 channels, 512": node(
        "CONV_TRANSPOSE_1D", f32(512 * 8 + 8, 64), f32(16, 64, 128), f32(512, 128), s0=8, p0=0, d0=1
    ),
    "convolutions: conv_transpose_2d 2x2, 64 to 32 channels, 32x32": node(
        "CONV_TRANSPOSE_2D", f32(64, 64, 32), f16(2, 2, 32, 64), f32(32, 32, 64), stride=2
    ),
    "convolutions: im2col_3d 3x3x3, 16 channels, 32x32x8": node(
        "IM2COL_3D", f32(27 * 16, 32, 32, 8), f32(3, 3, 3, 16 * 4), f32(32, 32, 8, 16), **CONV_3D, IC=16
    ),
    "convolutions: ssm_conv 4, 1536 channels, 128 tokens": node("SSM_CONV", f32(1536, 128), f32(131, 1536), f32(4, 1536)),
    "pooling: back, max 2x2, 16 channels, 128x128": node(
        "POOL_2D_BACK", f32(128, 128, 16), f32(64, 64, 16), f32(128, 128, 16), op=0, k0=2, k1=2, s0=2, s1=2
    ),
    "recurrent: rwkv_wkv6, 12 heads of 64, 32 tokens": node(
        "RWKV_WKV6", f32(768, 32 + 64), f32(64, 12, 32), f32(64, 12, 32), f32(64, 12, 32), f32(64, 12),
        f32(64, 12, 32, fill="uniform:0:1"), STATE,
    ),
    "recurrent: gated_linear_attn, 12 heads of 64, 32 tokens": node(
        "GATED_LINEAR_ATTN", f32(768, 32 + 64), f32(64, 12, 32), f32(64, 12, 32), f32(64, 12, 32),
        f32(64, 12, 32, fill="uniform:0:1"), STATE, scale=0.125,
    ),
    "recurrent: gated_delta_net, 12 heads of 64, 32 tokens": node(
        "GATED_DELTA_NET", f32(768, 32 + 64), f32(64, 12, 32, fill="normal:0.125"), f32(64, 12, 32, fill="normal:0.125"),
        f32(64, 12, 32), f32(1, 12, 32, fill="uniform:-2:0"), f32(1, 12, 32, fill="uniform:0:1"), STATE,
    ),
    "sums, orders: cumsum 2048x256": node("CUMSUM", ROW, ROW),
    "sums, orders: sum 2048x256": node("SUM", f32(1), ROW),
    "sums, orders: argmax 32000x64": node("ARGMAX", Operand("I32", (64,)), f32(32000, 64)),
    "sums, orders: top_k 40 of 32000x8": node("TOP_K", Operand("I32", (40, 8)), f32(32000, 8, fill="permutation")),
    "optimiser, back-propagation: out_prod 256x256 of 128": node("OUT_PROD", f32(256, 256), f32(256, 128), f32(256, 128)),
    "optimiser, back-propagation: sgd 1024x1024": node(
        "OPT_STEP_SGD", Operand("F32", (1024, 1024), alias="src0"), f32(1024, 1024), f32(1024, 1024),
        Operand("F32", (2,), fill="values:0.001,0.01"),
    ),
    "optimiser, back-propagation: silu_back 2048x256": node("SILU_BACK", ROW, ROW, ROW),
    "optimiser, back-propagation: soft_max_back 512x512": node(
        "SOFT_MAX_BACK", f32(512, 512), f32(512, 512), f32(512, 512, fill="uniform:0:1"), scale=1.0
    ),
    "optimiser, back-propagation: cross_entropy_loss_back 8192x32": node(
        "CROSS_ENTROPY_LOSS_BACK", f32(8192, 32), f32(1), f32(8192, 32), f32(8192, 32, fill="uniform:0:1")
    ),
    "optimiser, back-propagation: flash_attn_back 64x64, 4 heads": node(
        "FLASH_ATTN_BACK", f32(3 * 64 * 64 * 4), f32(64, 64, 4), f32(64, 64, 4), f32(64, 64, 4), f32(64, 64, 4), masked=0
    ),
    "optimiser, back-propagation: repeat_back 2048x256": node("REPEAT_BACK", f32(2048), ROW),
    "optimiser, back-propagation: get_rows_back 256 of 1024x1024": node(
        "GET_ROWS_BACK", f32(1024, 1024), f32(1024, 256), Operand("I32", (256,), fill="index:1024")
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
