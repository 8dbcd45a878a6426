"""Gemma 3 270M (Q4_K_M) with a stock client, our server and the genuine 3.6.1 one: `pytest bench/bench_gemma.py`.

Each server has two threads. A round is what the client measured: of a prompt of about 500 tokens, or of one generated token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

from bench.servers import genuine, ours
from ggml_rpc_ref import upstream
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.versions import DEFAULT

THREADS, ROUNDS, TOKENS = 2, 5, 33
PROMPT = "The following is a long story about a river. " * 50 + "In the end, the river"


@pytest.fixture(scope="module", params=[ours, genuine], ids=lambda server: server.__name__)
def timings(request: pytest.FixtureRequest) -> Iterator[Callable[[], list[Any]]]:
    """What the client measured in each of ROUNDS generations, made once."""
    try:
        model = upstream.find_model()
    except Misuse as missing:
        pytest.skip(str(missing))
    with request.param(threads=THREADS) as endpoint:

        @cache
        def measured() -> list[Any]:
            made = [
                upstream.generate(str(DEFAULT), rpc=endpoint, model=model, prompt=PROMPT, n_predict=TOKENS) for _ in range(ROUNDS)
            ]
            return [generation.timings for generation in made]

        yield measured


class Clock:
    """A clock that stands still but for what others have measured."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def show(benchmark: Any, milliseconds: list[float]) -> None:
    """Make each of these times a round."""
    steps = iter(milliseconds)
    clock = benchmark._timer = Clock()

    def step() -> None:
        clock.now += next(steps) / 1e3

    benchmark.pedantic(step, rounds=len(milliseconds))


def test_prompt(benchmark: Any, timings: Callable[[], list[Any]]) -> None:
    benchmark.group = "a prompt of about 500 tokens"
    show(benchmark, [timing.prompt_ms for timing in timings()])


def test_token(benchmark: Any, timings: Callable[[], list[Any]]) -> None:
    benchmark.group = "a generated token"
    show(benchmark, [milliseconds for timing in timings() for milliseconds in timing.token_ms])
