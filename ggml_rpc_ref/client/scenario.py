"""Every kind of request that this client has, and what comes back compared: a run of it for those who put clients to the test.

    ggml-rpc-ref conform-client -- python -m ggml_rpc_ref.client.scenario {endpoint} {endpoint2}

`run` raises what the client raises. As a command it ends with 0 where everything was right, with 1 and a sentence where not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from ggml_rpc_ref.client.client import Client, connect
from ggml_rpc_ref.client.devices import Device
from ggml_rpc_ref.client.tensors import RemoteTensor
from ggml_rpc_ref.errors import Misuse, Unsupported, Violation
from ggml_rpc_ref.spec.messages import REQUESTS, GetTensor2d, MemsetTensor
from ggml_rpc_ref.spec.versions import Version
from ggml_rpc_ref.tensor import Array

LARGE = 10 * 2**20 + 4
"""Bytes: so many are preceded by their hash."""


class WrongNumbersError(Exception):
    """What came back is not what it should be."""


def run(endpoints: Sequence[str], version: Version | None = None, timeout: float = 10.0, *, large: int = LARGE) -> None:
    """Do everything that this client does with a server, or with two.

    Args:
        endpoints: one or two servers; of two, the second computes something that the first goes on with.
        version: keep to this version, as a client of llama.cpp does; None: go on in the server's.
        timeout: seconds that one answer may take.
        large: bytes of the largest upload, a multiple of 4.

    Raises:
        WrongNumbersError: where what came back is wrong.
        ConnectionError, TimeoutError, Unsupported, Violation, Misuse: as the client.
    """
    with ExitStack() as stack:
        clients = [
            stack.enter_context(connect(endpoint, proto=version, timeout=timeout, connect_timeout=timeout))
            for endpoint in dict.fromkeys(endpoints)
        ]
        first = clients[0]
        for device in list(first.devices)[:4]:
            _look(device)
            _move(device)
            _compute(device)
        _upload(first.devices[0], large)
        _later_requests(first.devices[0])
        _move_between(first)
        if len(clients) > 1:
            _use_both(first.devices[0], clients[1].devices[0])


def _look(device: Device) -> None:
    alignment = device.alignment
    if alignment < 1 or alignment & (alignment - 1):
        raise Violation("device.alignment", "alignment", alignment, "it is not a power of two")
    if device.max_size < 1:
        raise Violation("device.max-size", "max_size", device.max_size)
    device.memory()


def _move(device: Device) -> None:
    """Place tensors side by side in a buffer, write, read, copy and clear them."""
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    step = -(-values.nbytes // device.alignment) * device.alignment
    with device.alloc(2 * step) as buffer:
        source = device.tensor(values, name="source", buffer=buffer)
        target = device.empty("F32", (6, 4), name="target", buffer=buffer, offset=step)
        if not device.copy(source, target):
            target.write(source.numpy())
        _expect(target, values)
        buffer.clear(0)
        _expect(target, np.zeros_like(values))
    # rows of 96 are padded on some devices, so a stock client asks for their size
    ones = np.ones((2, 96), np.float32)
    if not np.allclose(device.tensor(ones, "Q8_0").numpy(), ones, atol=0.01):
        raise WrongNumbersError("a tensor of Q8_0 does not hold what was written")


def _compute(device: Device) -> None:
    """Compute two graphs, with a view in one of them, and each again on other data."""
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    left = device.tensor(values, name="left")
    graph = device.graph()
    twice = graph.add(left, left)
    results = [twice, graph.mul_mat(left, left), graph.neg(graph.reshape(twice, 2, 3))]
    other = device.graph()
    scaled = other.scale(left, scale=3.0)
    for turn in range(3):
        now = values + turn
        left.write(now)
        graph.compute()
        for result, want in zip(results, (2 * now, now @ now.T, (-2 * now).reshape(3, 2)), strict=True):
            _expect(result, want)
        if turn == 1:  # so that the first graph is not the one that was sent last when it is computed again
            other.compute()
            _expect(scaled, 3 * now)
        graph.compute()
        _expect(twice, 2 * now)


def _upload(device: Device, size: int) -> None:
    values = np.arange(size // 4, dtype=np.int32)
    _expect(device.tensor(values, name="large"), values)


def _later_requests(device: Device) -> None:
    """Set bytes and rows, in the versions that have requests for it."""
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = device.tensor(values)
    if device.version >= REQUESTS[GetTensor2d].since:
        tensor.write_rows(np.array([5, 6], np.float32), 2, 12)
        values[:, 0] = 5, 6
        if tensor.read_rows(4, 2, 12).view(np.float32).ravel().tolist() != [5, 6]:
            raise WrongNumbersError("the rows that were read are not those that were written")
    if device.version >= REQUESTS[MemsetTensor].since:
        tensor.memset(0, 4, 4)
        values[0, 1] = 0
    _expect(tensor, values)


def _move_between(client: Client) -> None:
    """Copy from one device to another, where there are two."""
    if len(client.devices) > 1:
        values = np.arange(8, dtype=np.float32)
        source, target = client.devices[0].tensor(values), client.devices[1].empty("F32", (8,))
        if not client.devices[0].copy(source, target):
            target.write(source.numpy())
        _expect(target, values)


def _use_both(here: Device, there: Device) -> None:
    """Fetch a result from another server and go on with it here."""
    values = np.arange(4, dtype=np.float32)
    first = there.graph()
    part = first.scale(there.tensor(values), scale=10.0)
    first.compute()
    second = here.graph()
    total = second.add(here.tensor(values), here.tensor(part.numpy()))
    second.compute()
    _expect(total, 11 * values)


def _expect(tensor: RemoteTensor, want: Array) -> None:
    if not np.array_equal(tensor.numpy(), want):
        raise WrongNumbersError(f"{tensor.name or tensor.op} does not hold what it should")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it as a command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ggml_rpc_ref.client.scenario", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("endpoints", nargs="+", metavar="HOST:PORT", help="one server or two")
    parser.add_argument("--as", dest="version", metavar="VERSION", help="keep to this protocol version")
    chosen = parser.parse_args(arguments)
    try:
        run(chosen.endpoints, None if chosen.version is None else Version.parse(chosen.version))
    except (WrongNumbersError, ConnectionError, TimeoutError, Unsupported, Violation, Misuse, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("everything was right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
