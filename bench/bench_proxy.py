"""What the proxy costs: the same requests straight to a server and through `ggml-rpc-ref proxy`: `pytest -s bench/bench_proxy.py`.

Goals (issue 4): an upload takes at most 15 % longer, a small round trip at most 60 µs longer. Client, proxy and server, ours or the
genuine one, are processes of their own. Direct and proxied calls alternate, so that both see the same machine; each turn has a
connection of its own, made before the clock starts, since the genuine server serves one client at a time. Medians are printed and
kept in extra_info. A bare relay (relay.py) takes its turns too: it shows what any process in between costs. The benchmark's own row
is the proxied call.

Measured on a virtual machine with two cores, while it was quiet:

- A round trip on one core takes 20 µs more with the genuine server and 29 with ours (a bare relay: 9 and 13); with --record 26
  and 37 to 52, with --explain 52 to 67 and 70 to 82. On both cores two more sleeping threads have to be woken, which costs up to
  40 µs each, depending on the host: where the bare relay added 17, 60 or 88 µs, the proxy added 21, 66 or 103.
- An upload from a client at 10 Gbit/s takes 1 to 5 % longer with either server.
- Over loopback an upload takes as long as through a bare relay: 1.14 to 1.3 times direct with the genuine server (ten quiet runs:
  1.14 to 1.20, half of them at most 1.17), 1.3 to 1.9 times with ours. Two cores allow little better: 256 MiB to ours keep client
  and server busy for 57 and 49 ms, and any relay, which receives and sends them once more, for 90 ms. Two cores need at least 98
  ms for these 196 ms; the direct upload took 67 to 98.
- Splicing instead of copying (os.splice through a pipe of 1 MiB) does not help: the relay is busy for 50 to 64 ms instead of 90,
  but the server for 80 to 86 instead of 50, since the data it copies is no longer in its core's caches. It took 1.4 to 2.4 times
  direct with ours, 1.11 to 1.21 with the genuine server. Buffers of 4 MiB or more, reading ahead of a server that can't take more
  yet, SCHED_BATCH and a lower priority for the proxy do not help either.
- With --record of everything an upload is as fast as the file can be written; with --leave-out every byte is hashed, 0.4 GB/s.
"""

from __future__ import annotations

import os
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.servers import SENTINEL, ask, connect, genuine, ours, place, upload
from ggml_rpc_ref.net.stream import Stream
from ggml_rpc_ref.spec.messages import GetAlignmentReply

BULK = 128 * 2**20
"""Bytes of an upload into a new buffer, as when a model is loaded."""
CALLS = 300
"""Round trips of a turn."""
SO_MAX_PACING_RATE = 47
"""A socket option of Linux that Python has no name for: u64, the most bytes per second that the socket sends."""
LINKS = {"loopback": 0, "10 Gbit/s": 1_250_000_000}
"""The most bytes per second that the client sends, to imitate a network; 0: no limit."""
OPTIONS: dict[str, Callable[[Path], list[str]]] = {
    "plain": lambda _: [],
    "explain": lambda _: ["--explain"],
    "record": lambda folder: ["--record", str(folder / "all")],
    "leave out": lambda folder: ["--record", str(folder / "short"), "--leave-out", "1M"],
}


@contextmanager
def between(command: list[str], folder: Path) -> Iterator[str]:
    """Run a process that prints "forwarding ENDPOINT to …"; give that endpoint."""
    log = folder / "log"
    with log.open("wb") as out, subprocess.Popen([sys.executable, *command], stderr=out) as process:
        try:
            while "forwarding " not in log.read_text():
                time.sleep(0.01)
            yield log.read_text().split("forwarding ")[1].split(" to ")[0]
        finally:
            process.terminate()


@pytest.fixture(scope="module", params=["all cores", "one core"])
def cores(request: pytest.FixtureRequest) -> Iterator[str]:
    """The cores on which client, proxy and server may run; on one core no process waits for another core to wake up."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before if request.param == "all cores" else {min(before)})
    yield request.param
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="module", params=[ours, genuine], ids=lambda server: server.__name__)
def endpoint(cores: str, request: pytest.FixtureRequest) -> Iterator[str]:
    with request.param() as endpoint:
        yield endpoint


@pytest.fixture
def endpoints(endpoint: str, options: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The server itself, a bare relay to it, and the proxy with these options."""
    proxy = ["-m", "ggml_rpc_ref", "proxy", "--listen", "127.0.0.1:0", "--upstream", endpoint, *OPTIONS[options](tmp_path)]
    commands = {"bare": [str(Path(__file__).with_name("relay.py")), endpoint], "proxied": proxy}
    with ExitStack() as stack:
        found = {"direct": endpoint}
        for name, command in commands.items():
            (tmp_path / name).mkdir()
            found[name] = stack.enter_context(between(command, tmp_path / name))
        yield found
    for recording in tmp_path.iterdir():  # gigabytes
        if recording.is_file():
            recording.unlink()


Measure = Callable[[Stream], list[float]]


def turns(endpoints: dict[str, str], measure: Measure, rounds: int) -> dict[str, float]:
    """Return the median of what each endpoint took, measured in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in endpoints}
    for _ in range(rounds):
        for name, endpoint in endpoints.items():
            with connect(endpoint) as stream:
                seconds[name] += measure(stream)
            time.sleep(0.01)  # the genuine server serves one client at a time: let it see this connection end
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def round_trips(stream: Stream) -> list[float]:
    return [timed(lambda: ask(stream, SENTINEL, GetAlignmentReply)) for _ in range(CALLS)]


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@pytest.mark.parametrize("options", ["plain", "explain", "record"])
def test_round_trip(benchmark: Any, endpoints: dict[str, str], options: str) -> None:
    micros = {name: 1e6 * median for name, median in turns(endpoints, round_trips, 10).items()}
    added = {name: micros[name] - micros["direct"] for name in ("bare", "proxied")}
    benchmark.extra_info.update(micros=micros, added=added)
    print(
        f"\ndirect {micros['direct']:.1f} µs; added by a bare relay {added['bare']:.1f} µs, by the proxy {added['proxied']:.1f} µs"
    )
    with connect(endpoints["proxied"]) as stream:
        benchmark.pedantic(ask, (stream, SENTINEL, GetAlignmentReply), rounds=100)


@pytest.mark.parametrize("link", list(LINKS))
@pytest.mark.parametrize("options", ["plain", "record", "leave out"])
def test_upload(benchmark: Any, cores: str, endpoints: dict[str, str], options: str, link: str) -> None:
    if cores == "one core":
        pytest.skip("three processes that copy as fast as they can need a core each: on one core only their sum is measured")
    data = np.random.default_rng(1).integers(0, 256, BULK, np.uint8).data

    def measure(stream: Stream) -> list[float]:
        if LINKS[link]:
            stream._socket.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, struct.pack("Q", LINKS[link]))
        tensor = place(stream, BULK)
        return [timed(lambda: upload(stream, tensor, data))]

    seconds = turns(endpoints, measure, 9)
    ratios = {name: seconds[name] / seconds["direct"] for name in ("bare", "proxied")}
    benchmark.extra_info.update(seconds=seconds, ratios=ratios)
    print(f"\ndirect {1e3 * seconds['direct']:.0f} ms; a bare relay {ratios['bare']:.2f} of it, the proxy {ratios['proxied']:.2f}")
    with connect(endpoints["proxied"]) as stream:
        benchmark.pedantic(measure, (stream,), rounds=1)
