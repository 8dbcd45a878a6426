"""Fixtures for tests against a genuine llama.cpp (see `tests.support.requirements` for where it isn't installed), the seeds, and
how many processes share the work."""

from __future__ import annotations

import os
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

collect_ignore = ["example_project"]  # it is run by test_pytest_plugin, as a project of its own

# The same examples each time unless another seed is asked for, and no verdict that depends on how busy the machine is.
settings.register_profile("suite", derandomize=SEED == 0, deadline=None, database=None, print_blob=True)
settings.load_profile("suite")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Give the whole suite three processes for two processors, unless the command line says how many (`-n 0`: this one alone).

    A third of what the tests of two processes take is waiting: for time-outs of servers and clients that say nothing.

    A named file or test stays in this process, where output and debuggers are at hand. Before pytest-xdist reads the option.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # this is one of the processes, whose options are as undecided as those of the first
    option = config.option
    undecided = getattr(option, "numprocesses", 0) is None and option.dist == "no" and not option.tx
    attended = option.usepdb or option.trace or option.collectonly or option.capture == "no"
    if undecided and not attended and config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        option.numprocesses, option.dist = len(os.sched_getaffinity(0)) * 3 // 2 or 1, "worksteal"
        # there is more than a process for each processor: numpy's threads would wait for one another, and they wait by spinning
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


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
        if {"upstream_build", "newest_build"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("upstream")


@pytest.fixture(scope="session")
def upstream_build() -> upstream.Build:
    """The genuine build of protocol 3.6.1."""
    return genuine(lambda: upstream.find("3.6.1"))


@pytest.fixture(scope="session")
def newest_build() -> upstream.Build:
    """The genuine build of protocol 8.0.0."""
    return genuine(lambda: upstream.find("8.0.0"))


@pytest.fixture
def upstream_server(upstream_build: upstream.Build) -> Iterator[upstream.Server]:
    """A genuine 3.6.1 server on a free loopback port, with one CPU device and no cache."""
    with upstream.server(upstream_build.protocol) as server:
        yield server


@pytest.fixture(scope="session")
def gemma_model(upstream_build: upstream.Build) -> Path:
    """Gemma 3 270M in Q4_K_M as a GGUF file."""
    return genuine(upstream.find_model)
