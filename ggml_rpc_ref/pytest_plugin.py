"""A plugin for pytest: the conformance cases as tests of your own project, and fixtures to talk to a server by hand.

    # test_my_server.py
    def test_conformance(ggml_rpc_case):
        ggml_rpc_case()

    def test_something_of_mine(ggml_rpc_peer):
        assert ggml_rpc_peer.alloc(4096).size == 4096

    pytest --ggml-rpc-spawn './my-server --port {port}' --ggml-rpc-only 'data.*' -m 'not ggml_rpc_may_crash'

The package's entry point in pytest11 loads it. Each case is a test with its id, and with the markers `ggml_rpc_must` or
`ggml_rpc_should`, and `ggml_rpc_may_crash`. A broken SHOULD is an xfail; what a server lacks is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ggml_rpc_ref.conformance.case import Case
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


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each case where a function asks for `ggml_rpc_case`."""
    if "ggml_rpc_case" not in metafunc.fixturenames:
        return
    from ggml_rpc_ref.conformance import select
    from ggml_rpc_ref.errors import Misuse

    option = metafunc.config.getoption
    try:
        cases = select(option("--ggml-rpc-only"), option("--ggml-rpc-skip"))
    except Misuse as error:
        raise pytest.UsageError(str(error)) from None
    # those last that a server may die of
    rows = [pytest.param(case, id=case.id, marks=_marks(case)) for case in sorted(cases, key=lambda case: case.may_crash)]
    metafunc.parametrize("ggml_rpc_case", rows, indirect=True)


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


def _judge(judging: Judging, case: Case) -> Result:
    from ggml_rpc_ref.conformance import NO_FAULT, Verdict

    result = judging.repeated(case)
    if result.verdict is Verdict.PASS:
        return result
    if result.verdict in NO_FAULT:
        pytest.skip(f"{result.verdict}: {result.detail}")
    text = f"{result.verdict}: {result.detail}\n{case.doc}\n{result.rule} ({case.rule.level}): {case.rule.sentence}"
    if case.rule.level != "MUST" and result.verdict is Verdict.FAIL:
        pytest.xfail(text)
    pytest.fail("\n".join((text, *result.server_said, *result.transcript)), pytrace=False)
