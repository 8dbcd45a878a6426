"""How fast the fuzzer is: pipelined sessions beside a loop that waits for each answer, and our own server in this process.

    .venv/bin/pytest bench/bench_fuzz.py --benchmark-only

Each round has the same sessions; the number of messages a second is in `extra_info`.
"""

from __future__ import annotations

import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.servers import genuine
from ggml_rpc_ref.fuzz import Generator
from ggml_rpc_ref.fuzz.converse import End, Speaker, allocated, opened
from ggml_rpc_ref.fuzz.inside import Inside
from ggml_rpc_ref.fuzz.ourselves import Ourselves
from ggml_rpc_ref.fuzz.plan import plan_of
from ggml_rpc_ref.fuzz.session import Buffer, Session
from ggml_rpc_ref.net.stream import Endpoint, open_stream, parse_endpoint

SESSIONS = 100


@pytest.fixture(scope="module")
def sessions() -> list[Session]:
    generator = Generator(clients=1)
    return [generator.session(f"bench/{number}") for number in range(SESSIONS)]


@pytest.fixture(scope="module")
def endpoint() -> object:
    with genuine() as address:
        yield parse_endpoint(address)


def messages_of(sessions: list[Session]) -> int:
    return sum(len(session.steps) for session in sessions)


def one_by_one(endpoint: Endpoint, session: Session) -> None:
    """What a simple fuzzer does: send a message, wait for its answer, send the next."""
    with open_stream(*endpoint) as stream:
        numbers = opened(stream, session.buffers, session.version)
        for step in session.steps:
            if isinstance(step.message, Buffer):
                numbers |= allocated(stream, [step.message], session.version)
                continue
            data = step.packet(session.version).rendered(numbers)
            stream.send(data)
            for due in plan_of(data, session.version).dues:
                if due.reply:
                    stream.receive_exactly(due.reply)


def test_pipelined(benchmark: BenchmarkFixture, sessions: list[Session], endpoint: Endpoint) -> None:
    speaker = Speaker(endpoint, 10.0)

    def have_all() -> None:
        for session in sessions:
            assert speaker.have(session)[0].end is End.DONE

    benchmark(have_all)
    benchmark.extra_info["messages_a_second"] = messages_of(sessions) / benchmark.stats.stats.median


def test_one_message_after_the_other(benchmark: BenchmarkFixture, sessions: list[Session], endpoint: Endpoint) -> None:
    def have_all() -> None:
        for session in sessions:
            one_by_one(endpoint, session)

    benchmark(have_all)
    benchmark.extra_info["messages_a_second"] = messages_of(sessions) / benchmark.stats.stats.median


def test_in_process(benchmark: BenchmarkFixture, sessions: list[Session]) -> None:
    inside = Inside()

    def have_all() -> None:
        for session in sessions:
            inside.have(session)

    benchmark(have_all)
    benchmark.extra_info["messages_a_second"] = messages_of(sessions) / benchmark.stats.stats.median


def test_ourselves(benchmark: BenchmarkFixture) -> None:
    """What `fuzz --inside` does of servers: sessions are made, changed, had and followed by their variants."""
    own = Ourselves(readers={})

    def have_some() -> None:
        assert list(own.run(60.0, own.sums.messages + 20_000)) == []

    before, used = own.sums.messages, time.process_time()
    benchmark.pedantic(have_some, rounds=5)
    benchmark.extra_info["messages_a_second_of_processor"] = (own.sums.messages - before) / (time.process_time() - used)


def test_making_sessions(benchmark: BenchmarkFixture) -> None:
    generator = Generator(clients=1)

    def make_all() -> int:
        found = [generator.session(f"bench/{number}") for number in range(SESSIONS)]
        return sum(len(step.packet(session.version).template) for session in found for step in session.steps)

    benchmark(make_all)
