"""What a server says of itself: its log of connections, SIGUSR1, and the command `status` over its local socket."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.backends.oracle import Oracle
from ggml_rpc_ref.net.local import asked, offered, runtime_directory
from ggml_rpc_ref.server.handlers import Device, Host
from ggml_rpc_ref.server.metrics import amount
from ggml_rpc_ref.server.server import Server
from tests.support.command import run_command
from tests.test_serve import connect, next_event, serving
from tests.test_server import adding, eventually, floats, frame, get_tensor, logged, set_tensor
from tests.test_server import connect as connect_to

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory of the test's own, with a short name: a socket's path has 108 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="run") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


def status(*options: str) -> tuple[int, str, str]:
    done = run_command("status", *options)
    return done.returncode, done.stdout, done.stderr


# ---------------------------------------------------------------------------------------------------------- the local socket


def test_a_text_is_made_anew_for_each_that_asks() -> None:
    texts = iter(["one", "two" * 100_000])
    with offered("toy", lambda: next(texts)):
        assert list(asked("toy")) == ["one"]
        assert list(asked("toy")) == ["two" * 100_000]
        assert list(asked("other")) == []
    assert list(asked("toy")) == []
    assert list(runtime_directory().iterdir()) == []


def test_only_this_user_can_ask() -> None:
    with offered("toy", lambda: "") as path:
        assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_others_can_enter_is_not_used() -> None:
    runtime_directory().chmod(0o755)
    with pytest.raises(PermissionError, match="for this user alone"):
        runtime_directory()


def test_a_dead_process_leaves_no_socket_for_long() -> None:
    path = runtime_directory() / "toy-1.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    assert path.exists()
    assert list(asked("toy")) == []
    assert not path.exists()


def test_without_a_runtime_directory_it_is_in_the_temporary_one(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(tempfile, "tempdir", str(runtime))
    assert runtime_directory() == runtime / f"ggml-rpc-ref-{os.getuid()}"


# ----------------------------------------------------------------------------------------------------------- the process


def test_status_shows_a_server_and_its_connections(tmp_path: Path) -> None:
    with serving("-d", "oracle", "-m", "1M", "--cache-dir", str(tmp_path)) as (process, port), connect(port) as sock:
        code, out, _ = status("--json")
        assert code == 0
        (state,) = json.loads(out)["servers"]
        peer = "{}:{}".format(*sock.getsockname())
        assert (state["pid"], state["endpoint"]) == (process.pid, f"127.0.0.1:{port}")
        assert state["devices"] == [{"name": "oracle", "total": 2**20, "free": 2**20}]
        assert (state["cache"]["size"], state["cache"]["limit"]) == (0, 32 * 2**30)
        assert [(c["peer"], c["messages"], c["received"], c["sent"]) for c in state["connections"]] == [(peer, 1, 9, 11)]
        code, out, _ = status("-p", str(port))
        assert code == 0
        assert f"{peer} (3.6.1): idle for" in out
        assert "protocol 3.6.1 or 8.0.0, up for" in out
        assert "1 MiB of 1 MiB free" in out
        assert status("-p", str(port % 65535 + 1))[0] == 3


def test_status_without_a_server() -> None:
    code, out, err = status()
    assert (code, out) == (3, "")
    assert "no server of this user runs" in err


def test_a_server_without_a_place_for_its_socket_serves(runtime: Path) -> None:
    (runtime / "ggml-rpc-ref").write_text("in the way")
    with serving() as (process, port), connect(port):
        assert "can't see this server" in next_event(process, "log")["message"]


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no SIGUSR1")
def test_a_signal_has_the_state_logged() -> None:
    with serving() as (process, port), connect(port) as sock:
        for _ in range(50):  # also just after the answer, when it is about to wait
            process.send_signal(signal.SIGUSR1)
            state = next_event(process, "state")["state"]
            assert [c["peer"] for c in state["connections"]] == ["{}:{}".format(*sock.getsockname())]
        with connect(port):
            pass


# -------------------------------------------------------------------------------------------------------- the log of a peer


def by_event(caplog: pytest.LogCaptureFixture, event: str) -> list[Any]:
    return [record for record in caplog.records if getattr(record, "event", "") == event]


def test_a_connection_is_logged_when_it_opens_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "ggml_rpc_ref")
    with Server(Host([Device("one", "for tests", Oracle(HostMemory(2**20)))])) as server:
        with connect_to(server) as client:
            peer = "{}:{}".format(*client.socket.getsockname())
            assert eventually(lambda: bool(by_event(caplog, "opened")))
            a, _, c, compute = adding(client)
            messages = [set_tensor(a, floats(1, 2, 3, 4)), compute, frame(16, bytes(4)), get_tensor(c, 0, 16)]
            client.send(b"".join(messages))
            assert client.reply() == floats(1, 2, 3, 4)
        assert logged(caplog, "it closed the connection")
    (opened,), (ended,) = by_event(caplog, "opened"), by_event(caplog, "ended")
    assert (opened.getMessage(), opened.levelno) == (f"opened {peer}", logging.INFO)
    assert (ended.peer, ended.levelno) == (peer, logging.INFO)
    received = sum(map(len, messages)) + 9 + (9 + 12) + (9 + 8)
    sent = 11 + (8 + 16) + (8 + 8) + (8 + 16)
    work = ended.work
    assert (work["messages"], work["received"], work["sent"], work["graphs"]) == (7, received, sent, 2)
    assert 0 < work["computing"] < work["seconds"]
    assert f"7 messages, {amount(received)} received, {sent} B sent, 2 graphs in" in ended.getMessage()
    said = [record.getMessage().split(": ")[1] for record in by_event(caplog, "message")]
    assert [line.split(" in ")[0] for line in said] == [
        "HELLO", "ALLOC_BUFFER", "BUFFER_GET_BASE", "SET_TENSOR of 16 bytes", "GRAPH_COMPUTE of 1 nodes", "GRAPH_RECOMPUTE",
        "GET_TENSOR",
    ]  # fmt: skip


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**20, "1 MiB"), (2**40, "1024 GiB")])
def test_amounts(size: int, text: str) -> None:
    assert amount(size) == text
