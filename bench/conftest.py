"""Fixtures: the two servers that benchmarks measure, and a connection to each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.servers import connect, genuine, ours
from ggml_rpc_ref.net.stream import Stream


@pytest.fixture(scope="module", params=[ours, genuine], ids=lambda server: server.__name__)
def endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    with request.param() as endpoint:
        yield endpoint


@pytest.fixture
def stream(endpoint: str) -> Iterator[Stream]:
    with connect(endpoint) as stream:
        yield stream
