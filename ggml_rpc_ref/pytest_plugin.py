"""A plugin for pytest: the conformance cases as tests of a server or a client of your own, and fixtures for tests beside them.

    # test_my_server.py
    def test_conformance(ggml_rpc_case):
        ggml_rpc_case()

    def test_something_of_mine(ggml_rpc_peer):
        assert ggml_rpc_peer.alloc(4096).size == 4096

    pytest --ggml-rpc-spawn './my-server --port {port}' --ggml-rpc-only 'data.*' -m 'not ggml_rpc_may_crash'

    # test_my_client.py
    def test_conformance(ggml_rpc_client_case):
        ggml_rpc_client_case()

    def test_something_of_mine(ggml_rpc_play):
        assert "GRAPH_COMPUTE" in ggml_rpc_play().commands()

    def test_another_one_of_mine(ggml_rpc_server):
        server = ggml_rpc_server(Script(devices=2))
        assert my_client.count_devices(server.endpoint) == 2

    pytest --ggml-rpc-client './my-client {endpoint}' --ggml-rpc-client-only 'frame.*'

The package's entry point in pytest11 loads it. Each case is a test with its id, and with the markers `ggml_rpc_must` or
`ggml_rpc_should`, and `ggml_rpc_may_crash`. A broken SHOULD is an xfail; what a server lacks is skipped.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ggml_rpc_ref.conformance.case import Case
    from ggml_rpc_ref.conformance.clients.bench import Bench
    from ggml_rpc_ref.conformance.clients.heard import Run
    from ggml_rpc_ref.conformance.clients.program import Program
    from ggml_rpc_ref.conformance.clients.scripted import Scripted
    from ggml_rpc_ref.conformance.events import Result
    from ggml_rpc_ref.conformance.peer import Peer, Subject
    from ggml_rpc_ref.conformance.runner import Judging
    from ggml_rpc_ref.conformance.target import Target

# Nothing of ours is imported up here: pytest loads every plugin that is installed, also in projects that use none of this.

MARKERS = {
    "ggml_rpc_must": "the case judges a MUST",
    "ggml_rpc_should": "the case judges a SHOULD or a MAY",
    "ggml_rpc_may_crash": "servers are known to crash on the case",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("ggml-rpc", "conformance to ggml's RPC protocol")
    group.addoption("--ggml-rpc", metavar="HOST:PORT", default="", help="judge this server, which is running")
    group.addoption("--ggml-rpc-spawn", metavar="CMD…{port}", default="", help="start this server, and again after a crash")
    group.addoption("--ggml-rpc-only", metavar="PATTERN", action="append", default=[], help="only these cases; as conform --only")
    group.addoption("--ggml-rpc-skip", metavar="PATTERN", action="append", default=[], help="not these cases; as conform --skip")
    group.addoption("--ggml-rpc-timeout", metavar="SECONDS", type=float, default=5.0, help="how long one answer may take")
    group.addoption("--ggml-rpc-profile", metavar="PROFILE", default="full", help="full, inference, minimal or found")
    group.addoption("--ggml-rpc-client", metavar="CMD…{endpoint}", default="", help="judge this client; it is run once a case")
    group.addoption(
        "--ggml-rpc-client-only", metavar="PATTERN", action="append", default=[], help="only these cases; as conform-client --only"
    )
    group.addoption(
        "--ggml-rpc-client-skip", metavar="PATTERN", action="append", default=[], help="not these cases; as conform-client --skip"
    )
    group.addoption(
        "--ggml-rpc-client-timeout", metavar="SECONDS", type=float, default=20.0, help="how long a run of the client may take"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each case where a function asks for `ggml_rpc_case` or `ggml_rpc_client_case`."""
    from ggml_rpc_ref.errors import Misuse

    for fixture, chosen in (("ggml_rpc_case", _of_servers), ("ggml_rpc_client_case", _of_clients)):
        if fixture in metafunc.fixturenames:
            try:
                cases = chosen(metafunc.config)
            except Misuse as error:
                raise pytest.UsageError(str(error)) from None
            # those last that a server may die of
            rows = [pytest.param(case, id=case.id, marks=_marks(case)) for case in sorted(cases, key=lambda case: case.may_crash)]
            metafunc.parametrize(fixture, rows, indirect=True)


def _of_servers(config: pytest.Config) -> list[Case]:
    from ggml_rpc_ref.conformance import select

    return select(config.getoption("--ggml-rpc-only"), config.getoption("--ggml-rpc-skip"))


def _of_clients(config: pytest.Config) -> list[Case]:
    from ggml_rpc_ref.conformance import select
    from ggml_rpc_ref.conformance.clients.cases import CLIENT_CASES

    return select(config.getoption("--ggml-rpc-client-only"), config.getoption("--ggml-rpc-client-skip"), CLIENT_CASES)


def _marks(case: Case) -> list[pytest.MarkDecorator]:
    level = pytest.mark.ggml_rpc_must if case.rule.level == "MUST" else pytest.mark.ggml_rpc_should
    return [level, *[pytest.mark.ggml_rpc_may_crash] * case.may_crash]


# --------------------------------------------------------------------------------------------------------------- fixtures


@pytest.fixture(scope="session")
def ggml_rpc_target(pytestconfig: pytest.Config) -> Target:
    """The server under test, by the options; without any our own. A project may define a fixture of this name itself."""
    from ggml_rpc_ref.conformance import Given, embedded, from_command
    from ggml_rpc_ref.errors import Misuse
    from ggml_rpc_ref.net.stream import parse_endpoint

    endpoint, command = pytestconfig.getoption("--ggml-rpc"), pytestconfig.getoption("--ggml-rpc-spawn")
    if endpoint and command:
        raise pytest.UsageError("give either --ggml-rpc or --ggml-rpc-spawn, not both")
    try:
        if endpoint:
            return Given(parse_endpoint(endpoint))
        return from_command(command) if command else embedded()
    except Misuse as error:
        raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="session")
def ggml_rpc_judging(ggml_rpc_target: Target, pytestconfig: pytest.Config) -> Iterator[Judging]:
    """The server under test, started, and looked at: what it does is known."""
    from ggml_rpc_ref.conformance.runner import Options, begin

    options = Options(pytestconfig.getoption("--ggml-rpc-timeout"), profile=pytestconfig.getoption("--ggml-rpc-profile"))
    try:
        yield begin(ggml_rpc_target, options)
    except (ConnectionError, TimeoutError) as error:
        pytest.fail(str(error), pytrace=False)
    finally:
        ggml_rpc_target.stop()


@pytest.fixture
def ggml_rpc_case(request: pytest.FixtureRequest, ggml_rpc_judging: Judging) -> Callable[[], Result]:
    """One case: call it to judge the server by it."""
    return lambda: _judge(ggml_rpc_judging, request.param)


@pytest.fixture
def ggml_rpc_subject(ggml_rpc_judging: Judging) -> Iterator[Subject]:
    """The server under test for a test of your own; connections are closed at its end."""
    subject = ggml_rpc_judging.serving.subject()
    try:
        yield subject
    finally:
        subject.close()


@pytest.fixture
def ggml_rpc_peer(ggml_rpc_subject: Subject) -> Peer:
    """A connection to the server under test after its HELLO: `ask`, `tell`, `refuses`, `alloc`, `write`, `read`."""
    return ggml_rpc_subject.connect()


# ------------------------------------------------------------------------------------------------------ of clients


@pytest.fixture(scope="session")
def ggml_rpc_client(pytestconfig: pytest.Config) -> Program:
    """The client under test, by the option. A project may define a fixture of this name itself."""
    from ggml_rpc_ref.conformance.clients.program import Command
    from ggml_rpc_ref.errors import Misuse

    command = pytestconfig.getoption("--ggml-rpc-client")
    if not command:
        raise pytest.UsageError("say what the client under test is: --ggml-rpc-client './my-client {endpoint}'")
    try:
        return Command(shlex.split(command))
    except (Misuse, ValueError) as error:
        raise pytest.UsageError(f"--ggml-rpc-client: {error}") from None


@pytest.fixture(scope="session")
def ggml_rpc_bench(ggml_rpc_client: Program, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The client under test with what plays servers to it; what it speaks is known."""
    from ggml_rpc_ref.conformance.clients import judging
    from ggml_rpc_ref.conformance.clients.bench import playing
    from ggml_rpc_ref.errors import Misuse

    options = judging.Options(pytestconfig.getoption("--ggml-rpc-client-timeout"))
    play = playing(tmp_path_factory.mktemp("ggml-rpc-cache"), options.addresses, options.calm)
    try:
        return judging.introduce(ggml_rpc_client, play, options)
    except (judging.SpeaksNothing, Misuse) as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def ggml_rpc_client_case(request: pytest.FixtureRequest, ggml_rpc_bench: Bench) -> Callable[[], Result]:
    """One case: call it to judge the client by it."""
    return lambda: _judge_client(ggml_rpc_bench, request.param)


@pytest.fixture
def ggml_rpc_play(ggml_rpc_bench: Bench) -> Callable[..., Run]:
    """Runs the client against a server for a test of your own: an honest one, or that of a `Script`; returns what was heard."""
    from ggml_rpc_ref.conformance.clients.script import HONEST

    bench = ggml_rpc_bench
    return lambda script=HONEST: bench.play(bench.program, script, script.version or bench.version, bench.timeout)


@pytest.fixture
def ggml_rpc_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Scripted]]:
    """Starts a server for a client that the test calls itself: an honest one, or that of a `Script`; it ends with the test.

    `ggml_rpc_server(script, version="8.0.0")` returns one with `endpoint`, and `heard()`: what the client has sent.
    """
    from ggml_rpc_ref.conformance.clients.script import HONEST, Script
    from ggml_rpc_ref.conformance.clients.scripted import Scripted
    from ggml_rpc_ref.spec.versions import Version

    with ExitStack() as running:

        def start(script: Script = HONEST, version: str = "") -> Scripted:
            spoken = Version.parse(version) if version else None
            cache = tmp_path_factory.mktemp("ggml-rpc-cache") if script.has_cache else None
            return running.enter_context(Scripted(script, spoken, cache))

        yield start


def _judge_client(bench: Bench, case: Case) -> Result:
    from ggml_rpc_ref.conformance.clients.judging import judge_one

    if not case.present(bench.version):
        pytest.skip(f"no case for clients of {bench.version}")
    return _in_order(judge_one(bench, case), case)


def _judge(judging: Judging, case: Case) -> Result:
    return _in_order(judging.repeated(case), case)


def _in_order(result: Result, case: Case) -> Result:
    """Return a result that is in order, and end the test as its verdict says otherwise."""
    from ggml_rpc_ref.conformance import NO_FAULT, Verdict

    if result.verdict is Verdict.PASS:
        return result
    if result.verdict in NO_FAULT:
        pytest.skip(f"{result.verdict}: {result.detail}")
    text = f"{result.verdict}: {result.detail}\n{case.doc}\n{result.rule} ({case.rule.level}): {case.rule.sentence}"
    if case.rule.level != "MUST" and result.verdict is Verdict.FAIL:
        pytest.xfail(text)
    pytest.fail("\n".join((text, *result.server_said, *result.transcript)), pytrace=False)
