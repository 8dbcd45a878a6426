"""Messages over loopback with one client, our server and the genuine 3.6.1 server: `pytest bench/bench_wire.py`.

Each server is a process of its own, and a row of each group. What counts is the ratio within a group in one run: absolute figures
drift between machines and hours. Bytes per second are 64 MiB divided by the time shown.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bench.servers import I8, SENTINEL, ask, connect, download, place, upload
from ggml_rpc_ref.net.stream import Stream
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.fnv import fnv1a
from ggml_rpc_ref.spec.messages import GetAlignmentReply, GetAllocSize, GetAllocSizeReply, GetTensor, RpcTensor

BULK = 64 * 2**20
"""Bytes of a bulk transfer."""
LOGITS = 2**20
"""Bytes of one token's logits of Gemma 3: 262144 float32."""

Benchmark = Callable[..., object]


@pytest.fixture
def tensor(stream: Stream) -> RpcTensor:
    """A tensor of BULK bytes in a buffer of its own, whose pages have been touched."""
    tensor = place(stream, BULK)
    upload(stream, tensor, np.random.default_rng(1).integers(0, 256, BULK, np.uint8).data)
    return tensor


def test_round_trip(benchmark: Benchmark, stream: Stream) -> None:
    benchmark.group = "smallest round trip"  # type: ignore[attr-defined]
    benchmark(ask, stream, SENTINEL, GetAlignmentReply)


def test_alloc_size(benchmark: Benchmark, stream: Stream) -> None:
    benchmark.group = "GET_ALLOC_SIZE with two sources"  # type: ignore[attr-defined]
    source = RpcTensor(id=2, type=I8, ne=(64, 64, 1, 1), nb=(1, 64, 4096, 4096))
    request = codec.encode_request(GetAllocSize(tensor=source, srcs=(source, source)))
    benchmark(ask, stream, request, GetAllocSizeReply)


def test_connection(benchmark: Benchmark, endpoint: str) -> None:
    benchmark.group = "connect, HELLO, close"  # type: ignore[attr-defined]

    def converse() -> None:
        connect(endpoint).close()

    benchmark(converse)


@pytest.mark.parametrize("size", [4096, BULK], ids=["4 KiB", "64 MiB"])
def test_upload(benchmark: Benchmark, stream: Stream, tensor: RpcTensor, size: int) -> None:
    benchmark.group = f"upload of {size} bytes"  # type: ignore[attr-defined]
    data = np.random.default_rng(2).integers(0, 256, size, np.uint8).data
    benchmark(upload, stream, tensor, data)


@pytest.mark.parametrize("size", [LOGITS, BULK], ids=["1 MiB", "64 MiB"])
def test_download(benchmark: Benchmark, stream: Stream, tensor: RpcTensor, size: int) -> None:
    benchmark.group = f"download of {size} bytes"  # type: ignore[attr-defined]
    request = codec.encode_request(GetTensor(tensor=tensor, offset=0, size=size))
    room = memoryview(bytearray(size))
    benchmark(download, stream, request, room)


def test_hash(benchmark: Benchmark) -> None:
    benchmark.group = "FNV-1a of 64 MiB"  # type: ignore[attr-defined]
    data = np.random.default_rng(3).integers(0, 256, BULK, np.uint8)
    benchmark(fnv1a, data)
