"""The servers that benchmarks measure, ours and the genuine one, each a process of its own, and calls that the benchmarks share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ggml_rpc_ref import upstream
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.net.stream import Stream, open_stream, parse_endpoint
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.messages import (
    AllocBuffer,
    AllocBufferReply,
    BufferGetBase,
    BufferGetBaseReply,
    GetAlignment,
    GetAlignmentReply,
    Hello,
    HelloReply,
    RpcTensor,
    SetTensor,
)
from ggml_rpc_ref.spec.versions import DEFAULT

THREADS = 1
"""Threads of each server's arithmetic. Upstream's threads spin while they wait for each other: with two of them on two cores that
other processes use too, an ADD of 2 MiB took 0.09 ms at best and 20 ms, a time slice, at the median."""
I8 = BY_NAME["I8"].number
SENTINEL = codec.encode_request(GetAlignment())
"""A request whose reply shows that what was sent before it has been done."""
OTHER = "GGML_RPC_REF_OTHER_PYTHON"
"""The environment variable that names the Python of another checkout of this project, to measure both in one run."""


@contextmanager
def ours(python: str = sys.executable, threads: int = THREADS, device: str = "auto") -> Iterator[str]:
    """Give the endpoint of `ggml-rpc-ref serve`."""
    # -P: without it the package in the working directory would be served, whatever that Python has installed
    command = [python, "-P", "-m", "ggml_rpc_ref", "serve", "-p", "0", "-t", str(threads), "-d", device, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["endpoint"]
        finally:
            process.terminate()


@contextmanager
def other() -> Iterator[str]:
    """Give the endpoint of another checkout's `ggml-rpc-ref serve`; skip if none is named."""
    if OTHER not in os.environ:
        pytest.skip(f"{OTHER} names no other checkout's Python")
    with ours(os.environ[OTHER]) as endpoint:
        yield endpoint


@contextmanager
def genuine(threads: int = THREADS) -> Iterator[str]:
    """Give the endpoint of the genuine server; skip if it isn't installed."""
    try:
        upstream.find(str(DEFAULT))
    except Misuse as missing:
        pytest.skip(str(missing))
    with upstream.server(str(DEFAULT), threads=threads) as server:
        yield server.endpoint


def connect(endpoint: str) -> Stream:
    """Return a connection after its HELLO."""
    stream = open_stream(*parse_endpoint(endpoint))
    ask(stream, codec.encode_request(Hello()), HelloReply)
    return stream


def ask(stream: Stream, request: bytes, reply: type) -> Any:
    """Send a request and return its reply, which is of fixed size."""
    stream.send(request)
    return codec.decode(reply, stream.receive_exactly(8 + codec.minimum_size(reply))[8:])


def place(stream: Stream, size: int) -> RpcTensor:
    """Return a tensor of `size` bytes in a buffer of its own."""
    buffer: AllocBufferReply = ask(stream, codec.encode_request(AllocBuffer(size=size)), AllocBufferReply)
    base: BufferGetBaseReply = ask(stream, codec.encode_request(BufferGetBase(remote_ptr=buffer.remote_ptr)), BufferGetBaseReply)
    return RpcTensor(id=1, type=I8, buffer=buffer.remote_ptr, ne=(size, 1, 1, 1), nb=(1, size, size, size), data=base.base_ptr)


def upload(stream: Stream, tensor: RpcTensor, data: memoryview, offset: int = 0) -> None:
    """Send a SET_TENSOR, which has no reply, and wait for the reply to the request after it."""
    request = codec.encode(SetTensor(tensor=tensor, offset=offset))
    stream.send(codec.request_head(SetTensor, len(request) + len(data)) + request, data)
    ask(stream, SENTINEL, GetAlignmentReply)


def download(stream: Stream, request: bytes, room: memoryview) -> None:
    """Send a GET_TENSOR and receive its bytes into `room`."""
    stream.send(request)
    stream.receive_exactly(8)
    stream.receive_into(room)
