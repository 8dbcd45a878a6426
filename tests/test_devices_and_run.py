"""The commands `devices` and `run`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import ggml_rpc_ref
from ggml_rpc_ref import upstream
from ggml_rpc_ref.commands.main import main
from ggml_rpc_ref.models.gemma3 import Gemma3
from tests.support import tiny_models


@dataclass
class Ran:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Ran]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line in this process: the start of another takes longer than most of these commands."""

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["ggml-rpc-ref", *arguments])
        try:
            main()
            code: object = 0
        except SystemExit as ended:
            code = ended.code or 0
        assert isinstance(code, int)
        return Ran(int(code), *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def endpoints() -> Iterator[list[str]]:
    """A server of 3.6.1 with two devices, and one of 8.0.0."""
    with (
        ggml_rpc_ref.Server("oracle,oracle", memory=2**26, proto="3.6.1") as one,
        ggml_rpc_ref.Server(memory=2**27, proto="8.0.0") as two,
    ):
        yield [one.endpoint, two.endpoint]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Gemma 3 that knows letters."""
    path = tmp_path_factory.mktemp("models") / "gemma3.gguf"
    tiny_models.write("gemma3", path, vocabulary=True)
    return path


def test_devices_of_several_servers(endpoints: list[str], command: Command) -> None:
    shown = command("devices", *endpoints)
    headings, *lines = shown.stdout.splitlines()
    assert headings.split() == ["device", "server", "protocol", "free", "MiB", "total", "MiB", "supports"]
    # ops without the four custom ones, and types without the numbers that have been removed: enums.json of each build
    assert [line.split("  ") for line in map(squeezed, lines)] == [
        ["RPC0", f"{endpoints[0]}, device 0", "3.6.1", "64", "64", "92 ops, 33 types"],
        ["RPC1", f"{endpoints[0]}, device 1", "3.6.1", "64", "64", "92 ops, 33 types"],
        ["RPC2", f"{endpoints[1]}, device 0", "8.0.0", "128", "128", "97 ops, 35 types"],
    ]
    read = json.loads(command("devices", "--json", *endpoints).stdout)
    assert [row["total"] for row in read["devices"]] == [2**26, 2**26, 2**27]
    assert read["errors"] == []


def squeezed(line: str) -> str:
    while "   " in line:
        line = line.replace("   ", "  ")
    return line


def test_devices_that_are_not_there(endpoints: list[str], command: Command) -> None:
    down = command("devices", endpoints[1], "127.0.0.1:1")
    assert down.returncode == 3
    assert "can't connect to 127.0.0.1:1" in down.stderr
    assert endpoints[1] in down.stdout  # what answers is shown all the same
    twice = command("devices", endpoints[0], endpoints[0])
    assert (twice.returncode, twice.stderr) == (2, f"ggml-rpc-ref: {endpoints[0]} is listed twice\n")


def test_run_says_what_the_stock_client_says(model: Path, upstream_build: upstream.Build, command: Command) -> None:
    """The same text from the same servers, over two of them; progress and the splits on standard error."""
    with upstream.server("3.6.1", threads=1) as one, upstream.server("3.6.1", threads=1) as two:
        both = [one.endpoint, two.endpoint]
        said = upstream.generate("3.6.1", rpc=both, prompt="a small test", n_predict=6, model=model, n_ctx=256)
        ran = command(
            "run",
            str(model),
            "--rpc",
            ",".join(both),
            "--tensor-split",
            "3,1",
            "--prompt",
            "a small test",
            "-n",
            "6",
            "-c",
            "256",
            "-d",
            "oracle",
            "--explain",
        )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.removesuffix("\n") == said.text
    assert "upload: " in ran.stderr
    assert "split 2: RPC0[" in ran.stderr


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--rpc", "ONE,ONE"], 2, "is listed twice"),
        (["--rpc", "127.0.0.1:1"], 3, "can't connect to 127.0.0.1:1"),
        (["--rpc", "ONE", "--tensor-split", "1,2,3,4,5"], 2, "5 proportions do not fit 2 servers' devices"),
        (["--rpc", "ONE", "--tensor-split", "1,x"], 2, "write numbers with commas between"),
        (["-c", "4"], 2, "a prompt of 3 tokens and 32 more do not fit in a context of 4: give -c"),
        (["-d", "gpu"], 2, "there is no device 'gpu'"),
    ],
)
def test_what_run_refuses(
    options: list[str], code: int, sentence: str, endpoints: list[str], model: Path, command: Command
) -> None:
    ran = command("run", str(model), "--prompt", "ab", *[option.replace("ONE", endpoints[0]) for option in options])
    assert (ran.returncode, ran.stdout) == (code, "")
    assert sentence in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_run_refuses_a_model_that_is_too_large_before_anything_is_sent(model: Path, command: Command) -> None:
    with ggml_rpc_ref.Server(memory=2**18) as small:
        ran = command("run", str(model), "--rpc", small.endpoint, "--prompt", "ab", "-d", "oracle", "-c", "256", "-n", "2")
        assert ran.returncode == 2
        assert "bytes free and needs" in ran.stderr
        assert "do not fit" in ran.stderr
        assert small.state()["devices"][0]["free"] == 2**18


@pytest.mark.parametrize(
    ("proto", "options", "sentence"),
    [
        ("1.0.0", ["--tensor-split", "1"], "speaks 1.0.0, which has no SET_ROWS: it can't keep keys and values"),
        ("3.6.1", ["--tensor-split", "0,0"], "each must be 0 or more, and one of them more than 0"),
    ],
)
def test_what_can_be_known_before_is_refused_before_anything_is_uploaded(
    proto: str, options: list[str], sentence: str, model: Path, command: Command
) -> None:
    with ggml_rpc_ref.Server("oracle", memory=2**26, proto=proto) as server:
        ran = command(
            "run", str(model), "--rpc", server.endpoint, "--prompt", "ab", "-d", "oracle", "-n", "2", "-c", "256", *options
        )
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert sentence in ran.stderr


def test_run_says_how_to_go_on_without_a_server(model: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text so far stays, and the sentence begins on a line of its own."""
    with ggml_rpc_ref.Server(memory=2**26) as one, ggml_rpc_ref.Server(memory=2**26) as two:
        real, fed = Gemma3.feed, list[int]()

        def feed(self: Gemma3, tokens: Sequence[int]) -> Any:
            fed.append(len(tokens))
            if len(fed) == 3:
                two.stop()
            return real(self, tokens)

        monkeypatch.setattr(Gemma3, "feed", feed)
        both = [one.endpoint, two.endpoint]
        ran = command(
            "run",
            str(model),
            "--rpc",
            ",".join(both),
            "--prompt",
            "ab",
            "-d",
            "oracle",
            "-n",
            "9",
            "-c",
            "256",
            "--tensor-split",
            "1,1",
        )
    assert ran.returncode == 3
    assert ran.stdout.endswith("\n")
    last = ran.stderr.splitlines()[-1]
    assert f"{both[1]} is gone: " in last
    assert re.search(r"lost are \d+ tensors \(.*\), \d+ bytes; nothing of this computation counts", last)
    assert last.endswith(f"; run again with --rpc {both[0]}")


def test_run_needs_a_model_it_can_build(tmp_path: Path, command: Command) -> None:
    path = tmp_path / "llama.gguf"
    tiny_models.write("llama", path, vocabulary=True)
    ran = command("run", str(path), "--prompt", "ab", "-d", "oracle")
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "is a model of the architecture llama: only gemma3 is built here" in ran.stderr
    path.write_bytes(b"GGUF")
    assert "can't be read as a GGUF" in command("run", str(path), "--prompt", "ab").stderr
