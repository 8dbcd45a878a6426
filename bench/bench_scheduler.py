"""The scheduler: `pytest bench/bench_scheduler.py`.

Planning a graph of 1,000 nodes, memory layout included, is counted in CPU time. Tokens are those of Gemma 3 270M (Q4_K_M), from
Python over one and two servers of a thread each, ours and genuine, beside the stock client over genuine ones; uploads are its
247 MB, no hash cache asked, to one server and to two at the same time. The client's memory beside the mapped file is printed and
kept in extra_info.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

import ggml_rpc_ref
from bench.bench_gemma import show
from bench.servers import genuine, ours
from ggml_rpc_ref import upstream
from ggml_rpc_ref.client.scheduler.graph import ScheduledGraph
from ggml_rpc_ref.client.scheduler.plan import make_plan, place
from ggml_rpc_ref.client.scheduler.scheduler import Scheduler
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.models.gemma3 import Gemma3
from ggml_rpc_ref.models.gguf_file import ModelFile
from ggml_rpc_ref.spec.versions import DEFAULT

PROMPT, TOKENS = "The capital of France is", 24
KINDS = {server.__name__: server for server in (ours, genuine)}


@pytest.fixture(scope="module")
def planned() -> Iterator[tuple[Scheduler, ScheduledGraph]]:
    """A graph of 1,000 nodes: 100 layers over two servers."""
    with ggml_rpc_ref.Server() as one, ggml_rpc_ref.Server() as two:
        backends = [ggml_rpc_ref.rpc_init(one.endpoint), ggml_rpc_ref.rpc_init(two.endpoint), ggml_rpc_ref.local("oracle")]
        with Scheduler(backends) as scheduler:
            weights = scheduler.weights({f"blk.{i}.w": np.ones((64, 64), np.float32) for i in range(100)}, [1, 1])
            graph = scheduler.graph()
            x = graph.input("F32", (64, 3), "x")
            x.write(np.ones((3, 64), np.float32))
            for layer in range(100):
                residual = x
                for _ in range(3):
                    x = graph.add(graph.rms_norm(graph.mul_mat(weights[f"blk.{layer}.w"], x), eps=1e-6), residual)
                x = graph.scale(x, 0.5)
            assert len(graph.nodes) == 1000
            yield scheduler, graph


def in_cpu_time(benchmark: Any, run: Any) -> None:
    benchmark._timer = time.process_time
    benchmark.pedantic(run, rounds=20, iterations=1, warmup_rounds=2)


def test_plan_anew(benchmark: Any, planned: tuple[Scheduler, ScheduledGraph]) -> None:
    benchmark.group = "planning 1,000 nodes (CPU time)"
    scheduler, graph = planned
    for backend in scheduler.backends:
        assert backend.alignment  # asked of each server once, not for each plan
    in_cpu_time(benchmark, lambda: place(make_plan(graph.nodes, scheduler.backends, scheduler._channels), scheduler._guard))


def test_plan_again(benchmark: Any, planned: tuple[Scheduler, ScheduledGraph]) -> None:
    benchmark.group = "planning 1,000 nodes (CPU time)"
    scheduler, graph = planned
    in_cpu_time(benchmark, lambda: scheduler.plan(graph))


@pytest.fixture(scope="module")
def file() -> ModelFile:
    try:
        return ModelFile(upstream.find_model())
    except Misuse as missing:
        pytest.skip(str(missing))


def serve(stack: ExitStack, kind: str, count: int) -> list[str]:
    return [stack.enter_context(KINDS[kind](threads=1)) for _ in range(count)]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_token(benchmark: Any, kind: str, count: int, file: ModelFile) -> None:
    benchmark.group = "a generated token"
    assert file.vocabulary is not None
    with ExitStack() as stack:
        backends = [ggml_rpc_ref.rpc_init(endpoint) for endpoint in serve(stack, kind, count)]
        scheduler = stack.enter_context(Scheduler([*backends, ggml_rpc_ref.local(threads=1)]))
        tokens = Gemma3(scheduler, file, [1] * count).generate(file.vocabulary.encode(PROMPT), TOKENS)
        next(tokens), next(tokens)  # the prompt, and the first graph of one token
        benchmark.pedantic(lambda: next(tokens), rounds=TOKENS - 2)


@pytest.mark.parametrize("count", [1, 2])
def test_token_of_the_stock_client(benchmark: Any, count: int, file: ModelFile) -> None:
    benchmark.group = "a generated token"
    with ExitStack() as stack:
        endpoints = serve(stack, "genuine", count)
        said = upstream.generate(
            str(DEFAULT), rpc=endpoints, model=file.path, prompt=PROMPT, n_predict=TOKENS, threads=1, n_ctx=1024
        )
    show(benchmark, list(said.timings.token_ms[1:]))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_upload(benchmark: Any, kind: str, count: int, file: ModelFile) -> None:
    """Two servers get twice the bytes: the model each; as long as one takes is as fast for each."""
    benchmark.group = "upload of the model to each server"
    with ExitStack() as stack:
        backends = [ggml_rpc_ref.rpc_init(endpoint) for endpoint in serve(stack, kind, count)]
        scheduler = stack.enter_context(Scheduler([*backends, ggml_rpc_ref.local("oracle")]))
        for backend in backends:
            backend.client.hashing = False
        given = {f"{name}/{number}": weight for name, weight in file.weights.items() for number in range(count)}

        def upload() -> None:
            scheduler.weights(given, lambda name: backends[int(name.rpartition("/")[2])])

        benchmark.pedantic(upload, rounds=3)


CLIENT = """
import json, re, sys, threading
from pathlib import Path
import ggml_rpc_ref
from ggml_rpc_ref.models.gemma3 import Gemma3
from ggml_rpc_ref.models.gguf_file import ModelFile
path, tokens, endpoints = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
most, over = [0], threading.Event()
def look():
    while not over.wait(0.01):
        maps = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
        sizes = [int(found[1]) for part in maps if path.name not in part and (found := re.search(r"Rss: +(\\d+)", part))]
        most[0] = max(most[0], sum(sizes) * 1024)
watch = threading.Thread(target=look)
watch.start()
file = ModelFile(path)
with ggml_rpc_ref.Scheduler([*map(ggml_rpc_ref.rpc_init, endpoints), ggml_rpc_ref.local(threads=1)]) as scheduler:
    model = Gemma3(scheduler, file, [1] * len(endpoints))
    list(model.generate(file.vocabulary.encode("The capital of France is"), tokens))
over.set()
watch.join()
print(json.dumps(most[0]))
"""
"""Runs the model, and prints the most bytes that were resident beside the mapped file, libraries included."""


@pytest.mark.parametrize("count", [1, 2])
def test_client_memory(benchmark: Any, count: int, file: ModelFile, capsys: pytest.CaptureFixture[str]) -> None:
    """The row is the whole run, upload included."""
    benchmark.group = "memory of the client beside the mapped file"
    with ExitStack() as stack:
        command = [sys.executable, "-c", CLIENT, str(file.path), "8", *serve(stack, "ours", count)]
        most = benchmark.pedantic(lambda: int(json.loads(subprocess.check_output(command))), rounds=1)
    benchmark.extra_info["most_mib"] = most / 2**20
    with capsys.disabled():
        print(f"\n{count} servers: at most {most / 2**20:.0f} MiB beside the mapped file")
