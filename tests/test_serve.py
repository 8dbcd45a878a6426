"""The command `serve`: its options, its log, its signals. The process is a real one, started as a user starts it."""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ggml_rpc_ref.backends import machine
from ggml_rpc_ref.backends.oracle import Oracle
from ggml_rpc_ref.commands import serve
from ggml_rpc_ref.commands.ending import POLITE
from ggml_rpc_ref.commands.log import Allowance, JsonFormatter, LogWriter, TextFormatter, start_log
from ggml_rpc_ref.commands.parsing import parse_network, parse_size
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.net.stream import free_port
from ggml_rpc_ref.server import host
from ggml_rpc_ref.server.host import cache_directory, make_host
from ggml_rpc_ref.server.server import Server
from tests.support.command import run_command

HELLO = struct.pack("<BQ", 14, 0)
MUL_MAT = 29
HELLO_REPLY = struct.pack("<Q3B", 3, 3, 6, 1)

# ----------------------------------------------------------------------------------------------------------------- options

SIZES = [
    ("512", 536_870_912), ("512M", 536_870_912), ("8G", 8_589_934_592), ("8GiB", 8_589_934_592), ("1.5g", 1_610_612_736),
    ("64k", 65_536), ("1T", 1_099_511_627_776), ("0", 0),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), SIZES)
def test_sizes(text: str, wanted: int) -> None:
    assert parse_size(text) == wanted


@pytest.mark.parametrize("text", ["", "x", "-1", "8X", "1e3", "0x10", "1 2", "G", "∞", "1.M"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(Misuse, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(("text", "wanted"), [("10.0.0.7", "10.0.0.7/32"), ("10.1.2.3/8", "10.0.0.0/8"), ("fd00::/8", "fd00::/8")])
def test_networks(text: str, wanted: str) -> None:
    assert str(parse_network(text)) == wanted


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "example.org", "10.0.0"])
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(Misuse, match="is not a network"):
        parse_network(text)


@pytest.mark.parametrize("devices", ["oracle,oracle", "oracle/oracle", " oracle , oracle "])
def test_devices_and_memory(devices: str) -> None:
    host = make_host(devices, memory=1000)
    assert [(device.name, device.memory.total) for device in host.devices] == [("oracle", 1000)] * 2


def test_half_of_what_is_available_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without -m the cap was all of the machine's memory, and a peer that asked for it ended the process."""
    monkeypatch.setattr(machine, "available", lambda: 8 * 2**30)
    host = make_host("oracle,oracle")
    assert [device.memory.total for device in host.devices] == [2 * 2**30] * 2


@pytest.mark.parametrize(("available", "wanted"), [(64 * 2**30, 2**30), (8 * 2**30, 2**29)])
def test_copies_of_weights_take_an_eighth_at_most(available: int, wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available", lambda: available)
    backends = [device.backend for device in make_host("oracle,oracle").devices]
    assert [backend.copies.limit for backend in backends if isinstance(backend, Oracle)] == [wanted] * 2


@pytest.mark.parametrize("devices", ["", "nope", "oracle,", "Oracle"])
def test_unknown_devices(devices: str) -> None:
    with pytest.raises(Misuse, match="choose from oracle"):
        make_host(devices)


def test_no_memory_is_a_misuse() -> None:
    with pytest.raises(Misuse, match="-m"):
        make_host(memory=0)


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CACHE", str(tmp_path))
    assert cache_directory(False, None) is None
    assert cache_directory(True, None) == tmp_path / "rpc"
    assert cache_directory(False, tmp_path) == tmp_path


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(host, "default_directory", fail)
    assert cache_directory(True, None) is None


def test_an_unknown_log_level() -> None:
    with pytest.raises(Misuse, match="choose from debug"):
        start_log("loud", as_json=False)


# ----------------------------------------------------------------------------------------------------------------- the log


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("ggml_rpc_ref.x", logging.WARNING, "x.py", 1, message, None, None)


def test_words_can_t_be_forged() -> None:
    line = TextFormatter().format(record("refused: 'a\nb\x1b[2Jé'"))
    assert line.endswith("warning: refused: 'a\\x0ab\\x1b[2Jé'")


def test_json_is_one_line() -> None:
    entry = json.loads(JsonFormatter().format(record("a\nb")))
    assert "\n" not in JsonFormatter().format(record("a\nb"))
    assert (entry["level"], entry["event"], entry["message"]) == ("warning", "log", "a\nb")


class Stuck(io.StringIO):
    """A stream whose reader does not read: nothing is written until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def write(self, text: str) -> int:
        self.go.wait(20)
        return super().write(text)


def writing_to(stream: io.StringIO, **options: Any) -> LogWriter:
    writer = LogWriter(stream, **options)
    writer.setFormatter(TextFormatter())
    return writer


def test_a_log_that_nobody_reads_holds_nobody_up_and_counts_what_it_drops() -> None:
    stream = Stuck()
    writer = writing_to(stream, queued=10)
    for number in range(100):
        writer.handle(record(f"line {number}"))
    assert not writer.drain(0.05)
    assert 89 <= writer.dropped <= 90  # one line may be on its way
    dropped = writer.dropped
    stream.go.set()
    assert writer.drain(20)
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("line 0")
    assert lines[-1].endswith(f"left out {dropped} lines of the log: nobody read it")
    assert len(lines) == 100 - dropped + 1


def about(peer: str, level: int = logging.INFO) -> logging.LogRecord:
    line = record("refused")
    line.peer, line.levelno = peer, level
    return line


def test_a_peer_can_t_fill_the_log() -> None:
    stream = io.StringIO()
    writer = writing_to(stream)
    for port in range(1000):
        writer.handle(about(f"192.0.2.1:{port}"))
    writer.handle(about("192.0.2.2:5"))
    writer.handle(about("192.0.2.1:7", logging.DEBUG))
    assert writer.drain(20)
    lines = stream.getvalue().splitlines()
    kept = sum(line.endswith("refused") for line in lines)
    assert 202 <= kept < 400
    assert sum(int(line.split()[4]) for line in lines if "of 192.0.2.1: too many at once" in line) == 1002 - kept


def test_lines_come_back_at_a_rate() -> None:
    allowance = Allowance()
    assert [allowance.take("a", 0.0) for _ in range(201)] == [True] * 200 + [False]
    assert allowance.left_out(0.0) == []
    assert [told.getMessage() for told in allowance.left_out(1.0)] == ["left out 1 lines of a: too many at once"]
    assert allowance.left_out(1.0) == []
    assert [allowance.take("a", 1.0) for _ in range(21)] == [True] * 20 + [False]


def test_addresses_that_come_and_go_cost_no_memory() -> None:
    allowance = Allowance()
    for number in range(5000):
        assert allowance.take(f"10.0.{number // 256}.{number % 256}", 0.0)
    assert len(allowance._accounts) == 1024


# ------------------------------------------------------------------------------------------------------------- the process


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "ggml_rpc_ref", "serve", *options]


@contextmanager
def serving(*options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server process with JSON logs on a port that the kernel chose."""
    process = subprocess.Popen(command("-p", "0", "--json", *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["event"] == "ready"
        yield process, int(ready["endpoint"].rpartition(":")[2])
    finally:
        process.kill()
        process.communicate()


def next_event(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    """The next line of the log that tells of such an event."""
    assert process.stdout is not None
    for line in process.stdout:
        entry: dict[str, Any] = json.loads(line)
        if entry["event"] == event:
            return entry
    raise AssertionError(f"the log has ended without {event!r}")


@contextmanager
def connect(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.sendall(HELLO)
        assert sock.recv(11, socket.MSG_WAITALL) == HELLO_REPLY
        yield sock


def a_full_pipe() -> tuple[int, int]:
    """A pipe of one page, which somebody holds open and nobody reads."""
    reading, writing = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    return reading, writing


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_log_that_nobody_reads_wedges_nothing(options: tuple[str, ...]) -> None:
    """With standard error, or standard output, a full pipe every client hung after 575 refusals, and SIGTERM did nothing."""
    port = free_port()
    reading, writing = a_full_pipe()
    streams = {"stdout": writing} if options else {"stderr": writing}
    with subprocess.Popen(command("-p", str(port), *options), **streams) as process:  # type: ignore[call-overload]
        try:
            with reach(port) as old:
                for _ in range(1500):
                    with socket.create_connection(("127.0.0.1", port), 20) as sock:
                        sock.sendall(b"\xff" * 9)
                        with suppress(ConnectionResetError):
                            assert sock.recv(1) == b""
                old.sendall(struct.pack("<BQIQ", 0, 12, 0, 2**60))  # a request that is logged
                assert old.recv(24, socket.MSG_WAITALL) == struct.pack("<QQQ", 16, 0, 0)
                with connect(port):
                    process.terminate()
                    assert process.wait(20) == 0
        finally:
            process.kill()
            os.close(reading)
            os.close(writing)


def reach(port: int) -> socket.socket:
    """A connection to a server that may still be starting, on which HELLO is done."""
    end = time.monotonic() + 30
    while True:
        try:
            sock = socket.create_connection(("127.0.0.1", port), 20)
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.05)
        else:
            sock.sendall(HELLO)
            assert sock.recv(11, socket.MSG_WAITALL) == HELLO_REPLY
            return sock


@pytest.mark.parametrize("number", [signal.SIGINT, *POLITE])
def test_signals_end_it_with_0_while_a_peer_is_connected(number: signal.Signals) -> None:
    with serving() as (process, port), connect(port) as sock:
        process.send_signal(number)
        assert process.wait(10) == 0
        assert sock.recv(1) == b""
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [json.loads(line)["message"] for line in process.stdout.read().splitlines()]
        assert [line.partition(" 127")[0] for line in lines] == ["opened", f"ended by {number.name}"]
        assert process.stderr.read() == ""


def test_a_signal_does_not_wait_for_a_graph() -> None:
    """3,000 products of matrices of 512 by 512: most of a minute; the server ends within its patience for idle threads, 5 s."""
    size, count = 512 * 512 * 4, 3000
    with serving() as (process, port), connect(port) as sock:
        sock.sendall(struct.pack("<BQIQ", 0, 12, 0, 3 * size))
        _, ptr, _ = struct.unpack("<QQQ", sock.recv(24, socket.MSG_WAITALL))
        sock.sendall(struct.pack("<BQQ", 3, 8, ptr))
        _, base = struct.unpack("<QQ", sock.recv(16, socket.MSG_WAITALL))
        geometry = (512, 512, 1, 1, 4, 2048, size, size)

        def record(id: int, op: int, *src: int) -> bytes:
            sources, at = (*src, *[0] * (10 - len(src))), base + size * (min(id, 3) - 1)
            return struct.pack("<QIQ8II64si10QQQQ64s4x", id, 0, ptr, *geometry, op, b"", 16, *sources, 0, 0, at, b"")

        ids = range(3, 3 + count)
        tensors = [record(1, 0), record(2, 0), *(record(id, MUL_MAT, 1, 2) for id in ids)]
        payload = struct.pack(f"<II{count}QI", 0, count, *ids, len(tensors)) + b"".join(tensors)
        sock.sendall(struct.pack("<BQ", 10, len(payload)) + payload)
        time.sleep(1)
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert time.monotonic() - start < 4


def test_json_names_rule_field_value_and_peer() -> None:
    with serving("-m", "1K", "-d", "oracle,oracle") as (process, port):
        with connect(port) as sock:
            peer = "{}:{}".format(*sock.getsockname())
            sock.sendall(struct.pack("<BQI", 11, 4, 1))
            assert sock.recv(24, socket.MSG_WAITALL) == struct.pack("<QQQ", 16, 1024, 1024)
            sock.sendall(struct.pack("<BQI", 11, 4, 7))
            assert sock.recv(1) == b""
        entry = next_event(process, "refused")
    assert {key: entry[key] for key in ("level", "event", "peer", "rule", "field", "value")} == {
        "level": "warning", "event": "refused", "peer": peer, "rule": "device.index", "field": "device", "value": "7",
    }  # fmt: skip


def test_words_say_what_is_served(tmp_path: Path) -> None:
    options = ("-p", "0", "--allow", "127.0.0.0/8", "--cache-dir", str(tmp_path), "-m", "64", "-d", "oracle,oracle")
    with subprocess.Popen(command(*options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline().strip() for _ in range(5)]
        process.terminate()
        out, _ = process.communicate(timeout=10)
    assert "speaks RPC protocol 3.6.1 (llama.cpp b8487 to b8672) to clients whose HELLO has 0 bytes, 8.0.0 (llama.cpp" in lines[0]
    assert lines[0].endswith(") to those whose HELLO has 24")
    assert lines[1].startswith("endpoint: 127.0.0.1:")
    assert lines[1].endswith(", for 127.0.0.0/8 only")
    assert lines[2] == f"cache:    {tmp_path}, up to 32768 MiB"
    assert [line.partition(" (")[0] for line in lines[3:]] == ["device 0: oracle", "device 1: oracle"]
    assert lines[4].endswith("; 64 MiB, 64 MiB free)")
    assert out == ""


class Elsewhere(Server):
    """A server that thinks it is bound to another address than loopback, and ends at once."""

    is_loopback = False

    def serve_forever(self) -> None:
        self.shutdown()


@pytest.mark.parametrize("server_type", [Server, Elsewhere])
def test_only_another_address_than_loopback_is_warned_of(
    server_type: type[Server], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    server = server_type(make_host(memory=1000))
    server.stop()
    serve.run(server, LogWriter(io.StringIO()))
    assert ("the protocol has no authentication" in caplog.text) is (server_type is Elsewhere)


def test_options_reach_the_server(tmp_path: Path) -> None:
    options = ("--idle-timeout", "0.3", "--max-connections", "1", "--log-level", "info", "-t", "1", "--values-cache", "0")
    with serving(*options) as (process, port), connect(port) as sock:
        with socket.create_connection(("127.0.0.1", port), 20) as second:
            assert second.recv(1) == b""
        assert sock.recv(1) == b""
        assert "1 connections are open" in next_event(process, "turned away")["message"]
        assert "idle for 0.3 s" in next_event(process, "ended")["message"]


MISTAKES = [
    (["-d", "nope"], "there is no device 'nope': choose from oracle"),
    (["-m", "much"], "'much' is not a size"),
    (["--allow", "everyone"], "'everyone' is not a network"),
    (["--log-level", "loud"], "there is no log level 'loud'"),
    (["-H", "no.such.host.invalid"], "the host 'no.such.host.invalid' is unknown"),
]


@pytest.mark.parametrize(("options", "sentence"), MISTAKES, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_mistake_is_one_sentence_and_exit_code_2(options: list[str], sentence: str) -> None:
    done = run_command("serve", "-p", "0", *options)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_port_in_use_is_a_mistake() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run_command("serve", "-p", port)
    assert done.returncode == 2
    assert f"port {port} of 127.0.0.1 is in use" in done.stderr


def test_threads_are_set_before_numpy_is_imported() -> None:
    script = """
import os, sys
import ggml_rpc_ref.commands.main
assert "numpy" not in sys.modules
import importlib.abc
class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "numpy":
            print(os.environ["OPENBLAS_NUM_THREADS"], os.environ["OMP_NUM_THREADS"])
            os._exit(0)
sys.meta_path.insert(0, Watch())
sys.argv = ["x", "serve", "-t", "3"]
ggml_rpc_ref.commands.main.main()
"""
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False, env=environ)
    assert done.stdout == "3 3\n", done.stderr
