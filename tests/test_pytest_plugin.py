"""The plugin in a project of somebody else's, tests/example_project, in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = ROOT / "tests" / "example_project"
SERVER = f"{sys.executable} {PROJECT / 'my_server.py'} {{port}}"


FEW = ["--ggml-rpc-only", "device.count", "--ggml-rpc-only", "data.copy*", "--ggml-rpc-only", "data.empty"]
"""Rules whose cases stand for all: the server is started anew for each of them."""

MUST = "ggml_rpc_must and not ggml_rpc_may_crash"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    # -p finds the plugin also where this package is not installed; where it is, pytest sees that it is the same
    line = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "ggml_rpc_ref.pytest_plugin",
        "-p",
        "no:cacheprovider",
        "-v",
        "--no-header",
        *words,
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"}
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(line, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def outcomes(text: str) -> dict[str, str]:
    """Case, or test, to outcome."""
    return {
        name or test: outcome for test, name, outcome in re.findall(r"::(\w+)(?:\[(\S+)\])? (PASSED|FAILED|SKIPPED|XFAIL)", text)
    }


def test_each_case_is_a_test_with_its_verdict() -> None:
    done = run("--ggml-rpc-spawn", SERVER, *FEW, "tests/test_my_server.py")
    found = outcomes(done.stdout)
    assert done.returncode == 1, done.stdout
    assert found["device.count/at-least-1"] == "PASSED"
    assert found["data.copy/same-buffer"] == "FAILED"
    assert found["data.copy/other-device"] == "SKIPPED"
    assert found["data.empty/set-at-end"] == "XFAIL"
    assert found["test_a_buffer_of_mine"] == "PASSED"
    assert "data.copy (MUST): A COPY_TENSOR answered with 1 has copied the source's bytes into the destination." in done.stdout
    assert "1 sent COPY_TENSOR 601 bytes" in done.stdout
    assert "Traceback" not in done.stdout


def test_markers_and_options_choose_and_a_server_in_order_passes() -> None:
    done = run("--ggml-rpc-spawn", f"{SERVER} good", *FEW, "-m", MUST, "tests/test_my_server.py")
    assert done.returncode == 0, done.stdout
    found = outcomes(done.stdout)
    assert "data.copy/same-buffer" in found
    assert "data.empty/set-at-end" not in found  # a SHOULD
    assert "data.copy-fits/into-end" not in found  # may crash


def test_each_case_for_clients_is_a_test_too() -> None:
    client = f"{sys.executable} {PROJECT / 'my_client.py'} {{endpoint}}"
    done = run("--ggml-rpc-client", client, "tests/test_my_client.py")
    found = outcomes(done.stdout)
    assert done.returncode == 0, done.stdout
    assert (found["session.says-hello/first-and-once"], found["test_it_counts_the_devices"]) == ("PASSED", "PASSED")
    done = run("--ggml-rpc-client", f"{client} careless", "--ggml-rpc-client-skip", "session.*", "tests/test_my_client.py")
    assert not [id for id in outcomes(done.stdout) if id.startswith("session.")]
    assert outcomes(done.stdout)["test_it_ends_with_an_error_where_the_server_leaves"] == "FAILED"
    assert "FAILED" in {found for id, found in outcomes(done.stdout).items() if id.startswith("frame.reply-missing/")}, done.stdout
    assert "frame.reply-missing (MUST): " in done.stdout
    assert "Traceback" not in done.stdout


def test_functions_of_a_client_are_tested_without_a_command() -> None:
    done = run("tests/test_my_client.py", "-k", "function")
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_a_defect_of_the_scripted_server_is_no_fault_of_the_client(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import socket\n"
        "from ggml_rpc_ref.conformance.clients.script import answering\n"
        "def test_it(ggml_rpc_server):\n"
        "    server = ggml_rpc_server(answering('HELLO', lambda request, reply: 1 // 0))\n"
        "    host, port = server.endpoint.split(':')\n"
        "    with socket.create_connection((host, int(port))) as peer:\n"
        "        peer.sendall(bytes([14]) + bytes(8))\n"
        "        assert peer.recv(1) == b''\n"
    )
    done = run("--rootdir", str(tmp_path), str(tmp_path))
    assert "1 passed, 1 error" in done.stdout, done.stdout
    assert "ZeroDivisionError" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ggml-rpc", "127.0.0.1:1"], "can't connect to 127.0.0.1:1"),
        (["--ggml-rpc", "x:y"], "is not an endpoint"),
        (["--ggml-rpc-only", "nothing.*"], "no case and no rule matches 'nothing.*'"),
        (["--ggml-rpc-client", "no-endpoint", "tests/test_my_client.py"], "the client's command must hold {endpoint}"),
    ],
)
def test_what_is_wrong_is_a_sentence(words: list[str], said: str) -> None:
    done = run(*words, "-k", "at-least-1 or it_counts")
    assert done.returncode != 0
    assert said in done.stdout + done.stderr
    assert "INTERNALERROR" not in done.stdout + done.stderr
