"""`probe`: what it sends and shows, and that no server can hold it, fill its memory, or crash it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ggml_rpc_ref import upstream
from ggml_rpc_ref.client import probe as client
from ggml_rpc_ref.client.probe import DeviceReport, Report, probe
from ggml_rpc_ref.commands.probe import print_report
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.server import Server
from ggml_rpc_ref.spec.versions import V3_6_1
from tests.support.command import run_command

MIB = 2**20
WELCOME = b"\x03" + bytes(7) + b"\x03\x06\x01"
NUMBER_32 = b"\x08" + bytes(7) + b"\x20" + bytes(7)
COUNT_1 = b"\x04" + bytes(7) + b"\1\0\0\0"


@contextlib.contextmanager
def serving(script: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that runs a script on its one connection and then closes it; a script that can't send the rest is not a failure."""

    def serve(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock, contextlib.suppress(OSError):
            sock.settimeout(10)
            script(sock)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(20)
        assert not thread.is_alive()


def answers(*replies: bytes) -> Callable[[socket.socket], None]:
    """A script that answers the requests one after another, whatever they are."""

    def script(sock: socket.socket) -> None:
        for reply in replies:
            size = int.from_bytes(sock.recv(9, socket.MSG_WAITALL)[1:], "little")
            sock.recv(size, socket.MSG_WAITALL)
            sock.sendall(reply)

    return script


def probe_as_3_6_1(endpoint: str, timeout: float = 10.0) -> Report:
    """Probe a script, which knows one form of HELLO and one connection; test_negotiation.py has the rest."""
    return client.probe(endpoint, timeout, V3_6_1)


def own() -> Server:
    return Server(make_host("oracle,oracle", memory=3 * MIB))


# -------------------------------------------------------------------------------------------------------- what it reports


def test_our_server() -> None:
    with own() as server:
        endpoint = server.endpoint
        report = probe(endpoint)
    device = {"free": 3 * MIB, "total": 3 * MIB, "alignment": 32, "max_size": 3 * MIB}
    assert json.loads(report.to_json()) == {
        "schema_version": 1, "endpoint": endpoint, "protocol": "3.6.1", "device_count": 2,
        "devices": [{"index": 0, **device}, {"index": 1, **device}], "error": None, "dialect": None, "transport": None,
    }  # fmt: skip
    assert report.text().splitlines() == [
        f"{endpoint}: protocol 3.6.1 (llama.cpp b8487 to b8672), 2 devices",
        "device      free     total  alignment  largest buffer",
        "     0  3.00 MiB  3.00 MiB         32        3.00 MiB",
        "     1  3.00 MiB  3.00 MiB         32        3.00 MiB",
    ]


def test_the_genuine_server(upstream_server: upstream.Server) -> None:
    report = probe(upstream_server.endpoint)
    assert (report.protocol, report.device_count, report.error) == ("3.6.1", 1, None)
    (device,) = report.devices
    assert (device.alignment, device.max_size) == (32, 2**64 - 1)
    assert 0 < device.free <= device.total
    assert report.text().endswith("no limit")


def test_nothing_but_questions_is_sent() -> None:
    sent = b""

    def script(sock: socket.socket) -> None:
        nonlocal sent
        for reply in (
            WELCOME,
            COUNT_1,
            b"\x10" + bytes(23),
            b"\x08" + bytes(7) + b"\x20" + bytes(7),
            b"\x08" + bytes(7) + b"\xff" * 8,
        ):
            head = sock.recv(9, socket.MSG_WAITALL)
            sent += head + sock.recv(int.from_bytes(head[1:], "little"), socket.MSG_WAITALL)
            sock.sendall(reply)
        sent += sock.recv(1)

    with serving(script) as endpoint:
        assert probe_as_3_6_1(endpoint).devices == [DeviceReport(0, 0, 0, 32, 2**64 - 1)]
    device = b"\x04" + bytes(7) + bytes(4)
    assert sent == b"\x0e" + bytes(8) + b"\x0f" + bytes(8) + b"\x0b" + device + b"\x01" + device + b"\x02" + device


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (3 * 2**39, "1.50 TiB"), (2**63, "8.00 EiB"), (2**64 - 1, "no limit")],
)
def test_sizes_for_people(size: int, text: str) -> None:
    report = Report("x:1", "3.6.1", 1, [DeviceReport(0, 0, 0, 32, size)])
    assert report.text().endswith(f" {text}")


# --------------------------------------------------------------------------------------------------------- hostile servers


def four_billion(sock: socket.socket) -> None:
    memory = b"\x10" + bytes(7) + bytes(16)
    number = b"\x08" + bytes(7) + b"\x01" + bytes(7)
    answers(WELCOME, b"\x04" + bytes(7) + b"\xff" * 4, *[memory, number, number] * 16)(sock)


def test_of_four_billion_devices_the_first_are_asked() -> None:
    with serving(four_billion) as endpoint:
        report = probe_as_3_6_1(endpoint)
    assert (report.device_count, len(report.devices), report.error) == (2**32 - 1, 16, None)
    assert report.headline.endswith("4294967295 devices, of which 16 were asked")


def endless(sock: socket.socket) -> None:
    sock.recv(9)
    while True:
        sock.sendall(b"\xff" * 65536)


def drip(first: bytes) -> Callable[[socket.socket], None]:
    """Some bytes at once, then four a second."""

    def script(sock: socket.socket) -> None:
        sock.recv(9)
        sock.sendall(first)
        while True:
            time.sleep(0.25)
            sock.sendall(b"\0")

    return script


def endless_after_the_answer(sock: socket.socket) -> None:
    sock.recv(9)
    sock.sendall(WELCOME + COUNT_1)
    while True:
        sock.sendall(b"\xff" * 65536)


def silent(sock: socket.socket) -> None:
    while sock.recv(100):
        pass


HOSTILE: dict[str, tuple[Callable[[socket.socket], None], str | None, str]] = {
    "closes-on-hello": (
        lambda sock: sock.recv(9) and None,
        None,
        "a HELLO of 0 bytes (protocol 3.6.1); no byte had arrived; a server of 4.0.0 to 8.0.0 does so",
    ),
    "closes-at-once": (lambda sock: None, None, "closed the connection"),
    "silent": (silent, None, "HELLO: nothing came from"),
    "endless": (endless, None, "broke the protocol: frame.size-fixed: HelloReply size is 18446744073709551615"),
    "http": (answers(b"HTTP/1.1 200 OK\r\n\r\n"), None, "bytes seen: 48 54 54 50"),
    "drip-at-once": (drip(b""), None, "HELLO: "),
    "drip-after-a-head": (drip(b"\x03" + bytes(7)), None, "HELLO: "),
    "drip-later": (drip(WELCOME + COUNT_1), "3.6.1", "GET_DEVICE_MEMORY: only"),
    "endless-later": (endless_after_the_answer, "3.6.1", "GetDeviceMemoryReply size is 18446744073709551615"),
    "another-form": (answers(b"\x03" + bytes(7) + b"\x04\x00\x00"), "4.0.0", "session.hello-version: version is 4.0.0"),
    "a-newer-minor": (
        answers(b"\x03" + bytes(7) + b"\x03\x07\x00"),
        "3.7.0",
        "speaks protocol 3.7.0, this client 3.6.1 (llama.cpp b8487 to b8672), and",
    ),
    "no-device": (answers(WELCOME, b"\x04" + bytes(11)), "3.6.1", "device.count: device_count is 0"),
    "huge-memory-reply": (answers(WELCOME, COUNT_1, b"\xff" * 8), "3.6.1", "GetDeviceMemoryReply size is 18446744073709551615"),
    "closes-later": (answers(WELCOME, COUNT_1), "3.6.1", "GET_DEVICE_MEMORY: "),
    "closes-at-once-as-a-full-server": (lambda sock: None, None, "does not take clients from this address, or is full"),
    "more-free-than-total": (
        answers(WELCOME, COUNT_1, b"\x10" + bytes(7) + b"\2" + bytes(7) + b"\1" + bytes(7), NUMBER_32, NUMBER_32),
        "3.6.1",
        "broke the protocol: device.memory: free_mem is 2; <device 0 of",
    ),
    "no-buffer-possible": (
        answers(WELCOME, COUNT_1, b"\x10" + bytes(23), NUMBER_32, b"\x08" + bytes(15)),
        "3.6.1",
        "broke the protocol: device.max-size: max_size is 0; <device 0 of",
    ),
    "alignment-0": (
        answers(WELCOME, COUNT_1, b"\x10" + bytes(23), b"\x08" + bytes(15)),
        "3.6.1",
        "device.alignment: alignment is 0",
    ),
}


@contextlib.contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Gives the most bytes that Python has held at once since the block began."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_server_ends_in_a_sentence(name: str) -> None:
    script, protocol, sentence = HOSTILE[name]
    with serving(script) as endpoint, traced() as peak:
        start = time.monotonic()
        report = probe_as_3_6_1(endpoint, timeout=0.5)
        assert time.monotonic() - start < 5  # ten times what was allowed: never for ever
        assert peak() < MIB
    assert report.protocol == protocol
    assert report.error is not None
    assert sentence in report.error
    assert endpoint in report.error


def test_the_time_allowed_is_for_all_answers_together() -> None:
    """Five answers, each in time by itself."""

    def slow(sock: socket.socket) -> None:
        number = b"\x08" + bytes(7) + b"\x01" + bytes(7)
        for reply in (WELCOME, COUNT_1, b"\x10" + bytes(23), number, number):
            time.sleep(0.2)
            answers(reply)(sock)

    with serving(slow) as endpoint:
        report = probe_as_3_6_1(endpoint, timeout=0.5)
    assert report.error is not None
    assert "within" in report.error


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        report = probe(f"127.0.0.1:{taken.getsockname()[1]}")
    assert report.error is not None
    assert report.error.endswith("Connection refused")
    assert report.protocol is None


def test_an_endpoint_that_is_none() -> None:
    with pytest.raises(Misuse):
        probe("nowhere:x")


# --------------------------------------------------------------------------------------------------------- the command


def command(*arguments: str) -> Any:
    return run_command("probe", *arguments)


def test_the_command_in_plain_and_in_json() -> None:
    with own() as server:
        endpoint = server.endpoint
        plain, as_json = command(endpoint), command(endpoint, "--json")
    assert (plain.returncode, plain.stderr) == (0, "")
    assert plain.stdout.startswith(f"{endpoint}: protocol 3.6.1 (llama.cpp b8487 to b8672), 2 devices\ndevice ")
    assert (as_json.returncode, as_json.stderr) == (0, "")
    assert json.loads(as_json.stdout)["schema_version"] == 1


@pytest.mark.parametrize(("arguments", "code"), [(("h:x",), 2), ((), 2), (("--timeout", "-1", "h"), 2), (("127.0.0.1:1",), 3)])
def test_exit_codes(arguments: tuple[str, ...], code: int) -> None:
    done = command(*arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr != ""


def test_what_was_learned_before_a_failure_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(answers(WELCOME, COUNT_1)) as endpoint:
        assert print_report(probe_as_3_6_1(endpoint, 1.0), as_json=False) == 3
    out, err = capsys.readouterr()
    assert out == f"{endpoint}: protocol 3.6.1 (llama.cpp b8487 to b8672), 1 device, of which 0 were asked\n"
    assert err.startswith("ggml-rpc-ref: GET_DEVICE_MEMORY: ")
    with serving(answers(b"\x03" + bytes(7) + b"\x03\x07\x00")) as endpoint:
        assert print_report(probe_as_3_6_1(endpoint, 1.0), as_json=True) == 3
    found = json.loads(capsys.readouterr().out)
    assert (found["protocol"], found["devices"]) == ("3.7.0", [])
    assert "speaks protocol 3.7.0" in found["error"]


def test_a_table_on_a_terminal() -> None:
    controller, terminal = pty.openpty()
    with own() as server, os.fdopen(controller, "rb", 0) as screen:
        subprocess.run([sys.executable, "-m", "ggml_rpc_ref", "probe", server.endpoint], stdout=terminal, check=True)
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # Linux says EIO at the end of a terminal
            while part := screen.read(4096):
                shown += part
    assert "largest buffer" in shown.decode()
    assert "┃" in shown.decode()
