"""Fixtures for tests against a genuine llama.cpp (see `tests.support.requirements` for where it isn't installed), and the seeds."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings

from ggml_rpc_ref import upstream
from ggml_rpc_ref.errors import Misuse
from tests.support.requirements import lacking
from tests.support.seeds import SEED

T = TypeVar("T")

# The same examples each time unless another seed is asked for, and no verdict that depends on how busy the machine is.
settings.register_profile("suite", derandomize=SEED == 0, deadline=None, database=None, print_blob=True)
settings.load_profile("suite")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let children be interrupted; give Hypothesis the seed, before its own plugin reads the option."""
    # a shell's background jobs and nohup ignore these, and children would inherit that: the tests that interrupt one would wait
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if SEED:
        config.option.hypothesis_seed = str(SEED)


def pytest_report_header() -> str:
    return f"GGML_RPC_REF_SEED={SEED}"


def genuine(find: Callable[[], T]) -> T:
    """Return what `find` finds; without it the test can't run."""
    try:
        return find()
    except Misuse as missing:
        lacking(str(missing))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses the genuine library, so that `-m "not upstream"` leaves out all of them."""
    for item in items:
        if "upstream_build" in getattr(item, "fixturenames", ()):
            item.add_marker("upstream")


@pytest.fixture(scope="session")
def upstream_build() -> upstream.Build:
    """The genuine build of protocol 3.6.1."""
    return genuine(lambda: upstream.find("3.6.1"))


@pytest.fixture
def upstream_server(upstream_build: upstream.Build) -> Iterator[upstream.Server]:
    """A genuine 3.6.1 server on a free loopback port, with one CPU device and no cache."""
    with upstream.server(upstream_build.protocol) as server:
        yield server


@pytest.fixture(scope="session")
def gemma_model(upstream_build: upstream.Build) -> Path:
    """Gemma 3 270M in Q4_K_M as a GGUF file."""
    return genuine(upstream.find_model)
