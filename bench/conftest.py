"""Let the benchmarks import `servers` beside them (pytest's importlib mode leaves sys.path alone), and the pair of servers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from servers import connect, genuine, ours

from ggml_rpc_ref.net.stream import Stream


@pytest.fixture(scope="module", params=[ours, genuine], ids=lambda server: server.__name__)
def endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    with request.param() as endpoint:
        yield endpoint


@pytest.fixture
def stream(endpoint: str) -> Iterator[Stream]:
    with connect(endpoint) as stream:
        yield stream
