"""The wire, ours beside the genuine 3.6.1 server's, over loopback with one client: `pytest bench/bench_wire.py`.

Both servers are processes of their own. Each row of a group is one server; what counts is the ratio within a group in one run, as
absolute figures drift between machines and hours. Bytes per second: 64 MiB over the time shown.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from ggml_rpc_ref import codec, upstream
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.fnv import fnv1a
from ggml_rpc_ref.net.stream import Stream, open_stream, parse_endpoint
from ggml_rpc_ref.spec.messages import (
    AllocBuffer,
    AllocBufferReply,
    BufferGetBase,
    BufferGetBaseReply,
    GetAlignment,
    GetAlignmentReply,
    GetAllocSize,
    GetAllocSizeReply,
    GetTensor,
    Hello,
    HelloReply,
    RpcTensor,
    SetTensor,
)

BULK = 64 * 2**20
"""Bytes of a bulk transfer."""
LOGITS = 2**20
"""Bytes of one token's logits of Gemma 3: 262144 float32."""
I8 = 24

Benchmark = Callable[..., object]


@contextmanager
def ours() -> Iterator[str]:
    command = [sys.executable, "-m", "ggml_rpc_ref", "serve", "-p", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["endpoint"]
        finally:
            process.terminate()


@contextmanager
def genuine() -> Iterator[str]:
    try:
        upstream.find("3.6.1")
    except Misuse as missing:
        pytest.skip(str(missing))
    with upstream.server("3.6.1", threads=2) as server:
        yield server.endpoint


@pytest.fixture(scope="module", params=[ours, genuine], ids=lambda server: server.__name__)
def endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    with request.param() as endpoint:
        yield endpoint


def connect(endpoint: str) -> Stream:
    stream = open_stream(*parse_endpoint(endpoint))
    ask(stream, codec.encode_request(Hello()), HelloReply)
    return stream


def ask(stream: Stream, request: bytes, reply: type) -> object:
    stream.send(request)
    return codec.decode(reply, stream.receive_exactly(8 + codec.minimum_size(reply))[8:])


@pytest.fixture
def stream(endpoint: str) -> Iterator[Stream]:
    with connect(endpoint) as stream:
        yield stream


@pytest.fixture
def tensor(stream: Stream) -> RpcTensor:
    """A tensor of BULK bytes in a buffer of its own, whose pages have been touched."""
    buffer = ask(stream, codec.encode_request(AllocBuffer(size=BULK)), AllocBufferReply)
    assert isinstance(buffer, AllocBufferReply)
    base = ask(stream, codec.encode_request(BufferGetBase(remote_ptr=buffer.remote_ptr)), BufferGetBaseReply)
    assert isinstance(base, BufferGetBaseReply)
    tensor = RpcTensor(id=1, type=I8, buffer=buffer.remote_ptr, ne=(BULK, 1, 1, 1), nb=(1, BULK, BULK, BULK), data=base.base_ptr)
    upload(stream, tensor, np.random.default_rng(1).integers(0, 256, BULK, np.uint8).data)
    return tensor


SENTINEL = codec.encode_request(GetAlignment())


def upload(stream: Stream, tensor: RpcTensor, data: memoryview) -> None:
    """SET_TENSOR, which has no reply, and then a request that has one."""
    request = codec.encode(SetTensor(tensor=tensor, offset=0))
    stream.send(codec.request_head(SetTensor, len(request) + len(data)) + request, data)
    ask(stream, SENTINEL, GetAlignmentReply)


def download(stream: Stream, request: bytes, room: memoryview) -> None:
    stream.send(request)
    stream.receive_exactly(8)
    stream.receive_into(room)


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
