"""A client in C, written from SPEC.md alone: it multiplies matrices on our server and on the genuine one.

Expected numbers come from plain loops here; the client prints the shortest decimals that give each float32 back.
"""

from __future__ import annotations

import random
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ggml_rpc_ref import upstream
from ggml_rpc_ref.server.handlers import Session
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.server import Server
from tests.support import requirements

SOURCE = Path(__file__).with_name("c_client") / "matmul.c"
Matrix = list[list[float]]
Run = Callable[[str, str], subprocess.CompletedProcess[str]]

SIZES = [
    pytest.param(2, 2, 2, id="two-by-two"),
    pytest.param(1, 1, 1, id="one-number"),
    pytest.param(5, 3, 1, id="by-a-vector"),
    pytest.param(3, 7, 4, id="all-different"),
    pytest.param(129, 33, 65, id="larger"),
]
"""k, m, n: a has m rows of k numbers, b has n rows of k numbers, the result n rows of m."""


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = requirements.compiler("cc")
    path = tmp_path_factory.mktemp("c_client") / "matmul"
    warnings = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    subprocess.run([compiler, *warnings, "-O2", "-o", path, SOURCE], check=True)
    return path


@pytest.fixture
def run(program: Path) -> Run:
    def run(endpoint: str, matrices: str) -> subprocess.CompletedProcess[str]:
        host, _, port = endpoint.rpartition(":")
        command = [str(program), host, port]
        return subprocess.run(command, input=matrices, capture_output=True, text=True, timeout=60, check=False)

    return run


def rows(text: str) -> Matrix:
    return [[float(word) for word in line.split()] for line in text.splitlines()]


def written(a: Matrix, b: Matrix) -> str:
    lines = [[len(a[0]), len(a), len(b)], *a, *b]
    return "\n".join(" ".join(str(number) for number in line) for line in lines)


def product(a: Matrix, b: Matrix) -> Matrix:
    return [[sum(x * y for x, y in zip(row, weights, strict=True)) for weights in a] for row in b]


def whole_numbers(k: int, m: int, n: int) -> tuple[Matrix, Matrix]:
    """Whole numbers so small that float32 holds every sum exactly, in whatever order it is taken."""
    source = random.Random(k * 10**6 + m * 10**3 + n)
    a, b = ([[float(source.randint(-99, 99)) for _ in range(k)] for _ in range(count)] for count in (m, n))
    return a, b


def check(run: Run, endpoint: str, k: int, m: int, n: int) -> None:
    a, b = whole_numbers(k, m, n)
    done = run(endpoint, written(a, b))
    assert (done.returncode, done.stderr) == (0, "")
    assert rows(done.stdout) == product(a, b)


@pytest.mark.parametrize(("k", "m", "n"), SIZES)
def test_it_multiplies_on_our_server(run: Run, k: int, m: int, n: int) -> None:
    with Server(make_host("oracle", memory=2**20)) as server:
        check(run, server.endpoint, k, m, n)


@pytest.mark.parametrize(("k", "m", "n"), SIZES)
def test_it_multiplies_on_the_genuine_server(run: Run, upstream_server: upstream.Server, k: int, m: int, n: int) -> None:
    check(run, upstream_server.endpoint, k, m, n)


def test_fractions_arrive_whole(run: Run) -> None:
    """0.1 is not exact in float32: the result of 1 · 0.1 shows every bit."""
    (tenth,) = struct.unpack("<f", struct.pack("<f", 0.1))
    with Server(make_host("oracle", memory=2**20)) as server:
        done = run(server.endpoint, "1 2 2\n1\n-1e-20\n0.1\n1e20\n")
    expected = [[tenth, tenth * -1e-20], [1e20, -1.0]]
    assert rows(done.stdout) == [pytest.approx(row, rel=2**-22, abs=0) for row in expected]
    assert done.stdout.split()[0] == "0.100000001"


def test_its_conversation_is_that_of_the_text(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """All commands but those that move data, which the server handles elsewhere."""
    seen = []

    def noting(kind: type, handle: Callable[..., object]) -> Callable[..., object]:
        def noted(session: Session, request: object) -> object:
            seen.append(kind.__name__)
            return handle(session, request)

        return noted

    for kind, handle in Session.handlers.items():
        monkeypatch.setitem(Session.handlers, kind, noting(kind, handle))
    with Server(make_host("oracle", memory=2**20)) as server:
        check(run, server.endpoint, 3, 7, 4)
    commands = ["Hello", "DeviceCount", "GetAlignment", "AllocBuffer", "BufferGetBase", "Graph", "FreeBuffer"]
    assert seen == commands


def test_not_enough_memory_is_one_line(run: Run) -> None:
    with Server(make_host("oracle", memory=4096)) as server:
        done = run(server.endpoint, written(*whole_numbers(129, 33, 65)))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "matmul: ALLOC_BUFFER: the server has not enough memory\n"


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        pytest.param(struct.pack("<Q3B", 3, 3, 5, 0), "HELLO: the server's version is not 3.6", id="older-minor"),
        pytest.param(struct.pack("<Q3B", 3, 3, 7, 0), "HELLO: the server's version is not 3.6", id="later-minor"),
        pytest.param(struct.pack("<Q3B", 3, 4, 6, 1), "HELLO: the server's version is not 3.6", id="other-major"),
        pytest.param(struct.pack("<Q28B", 28, 3, 6, 1, *bytes(25)), "reply: not of the size that was asked for", id="28-bytes"),
        pytest.param(b"\3", "receive: the server has closed the connection", id="cut-short"),
    ],
)
def test_a_server_that_it_does_not_know_is_left(run: Run, answer: bytes, complaint: str) -> None:
    heard = []

    def serve_once(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(20)
            heard.append(connection.recv(9, socket.MSG_WAITALL))
            connection.sendall(answer)
            with suppress(OSError):  # it closes with part of the answer unread, and may have closed already
                connection.shutdown(socket.SHUT_WR)
                heard.append(connection.recv(1))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        thread = threading.Thread(target=serve_once, args=(listener,))
        thread.start()
        done = run(f"127.0.0.1:{listener.getsockname()[1]}", "1 1 1\n2\n3\n")
        thread.join()
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"matmul: {complaint}\n")
    assert b"".join(heard) == b"\x0e" + bytes(8)


@pytest.mark.parametrize("matrices", ["", "1 1", "0 1 1", "1 4097 1", "2 1 1\n1 2\n3", "1 1 1\n1\nx"])
def test_what_is_no_pair_of_matrices_is_said(run: Run, matrices: str) -> None:
    done = run("127.0.0.1:1", matrices)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("matmul: standard input: ")
