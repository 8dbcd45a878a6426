"""The map, ggml_rpc_ref/README.md, against the code: its rooms, the files it names, its examples applied to a copy and run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.diffs import apply

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ggml_rpc_ref"
MAP = (PACKAGE / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text below a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", MAP, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def test_the_map_names_every_room_and_no_other() -> None:
    named = re.findall(r"^\| `([^`]+)` \|", section("Rooms"), re.MULTILINE)
    there = {f"{path.name}/" for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    there |= {path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("__")}
    assert len(named) == len(set(named))
    assert set(named) == there


def test_every_file_that_the_map_names_is_there() -> None:
    text = re.sub(r"```diff.*?```", "", MAP, flags=re.DOTALL)
    named = set(re.findall(r"\b(?:\w+/)+\w+\.(?:py|md)\b", text))
    assert len(named) > 15
    assert {name for name in named if not (PACKAGE / name).exists() and not (ROOT / name).exists()} == set()


# ---------------------------------------------------------------------------------------------------------- the examples


SERVED = """
import numpy as np
import ggml_rpc_ref
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.server import Server

def computed(name, *arrays, device="oracle"):
    with Server(make_host(device, memory=2**24)) as server, ggml_rpc_ref.connect(server.endpoint) as client:
        on = client.devices[0]
        graph = on.graph()
        result = graph.op(name, [on.tensor(array) for array in arrays])
        graph.compute()
        return result.numpy()

x = np.array([1, -2, 3, 0.5], np.float32)
"""

ADDITIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "message": (
        ("message",),
        SERVED
        + """
from ggml_rpc_ref.decode.messages import Reader
from ggml_rpc_ref.decode.streams import Conversation, Stream
from ggml_rpc_ref.protocol.connection import Role
from ggml_rpc_ref.spec.messages import Echo
from ggml_rpc_ref.spec.versions import DEFAULT

with Server(make_host()) as server, ggml_rpc_ref.connect(server.endpoint) as client:
    assert client.request(Echo(number=2**63 + 5)).number == 2**63 + 5
stream = Stream.of(bytes([99, 8, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]))
(message,) = Reader(Conversation(sides={Role.CLIENT: stream}), DEFAULT, False).requests()
assert (message.name, message.value("number")) == ("ECHO", 7)
""",
    ),
    "version": (
        ("version",),
        """
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.messages import GetAlignment
from ggml_rpc_ref.spec.versions import PROFILES, Version

new = Version(9, 0, 0)
assert max(PROFILES) == new
assert codec.encode_request(GetAlignment(device=1, usage=3), new) == bytes([1, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 3])
assert codec.encode_request(GetAlignment(device=1)) == bytes([1, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])
""",
    ),
    "op": (
        ("op",),
        SERVED
        + """
from ggml_rpc_ref.ops.cases import cases_of

assert computed("CUBE", x).tolist() == [1, -8, 27, 0.125]
assert len(cases_of("CUBE")) > 5
""",
    ),
    "backend": (
        ("backend",),
        SERVED
        + """
import logging

logging.basicConfig(level=logging.DEBUG)
assert computed("ADD", x, x, device="adder").tolist() == [2, -4, 6, 1]
assert computed("MUL", x, x, device="adder").tolist() == [1, 4, 9, 0.25]
""",
    ),
    "kernel": (
        ("backend", "kernel"),
        SERVED
        + """
from ggml_rpc_ref.backends import registry

assert computed("MUL", x, x, device="adder").tolist() == [1, 4, 9, 0.25]
assert list(registry.find("adder").kernels()) == ["ADD", "MUL"]
""",
    ),
    "case": (
        ("case",),
        """
from ggml_rpc_ref.conformance import Verdict, embedded, run, select

(result,) = run(embedded(), select(("device.count/three-times",))).results
assert result.verdict is Verdict.PASS
""",
    ),
    "command": (
        ("command",),
        """
import sys
from ggml_rpc_ref.commands.main import main

sys.argv = ["ggml-rpc-ref", "versions"]
main()
""",
    ),
}
"""What is added: the sections whose examples it takes, in order, and a program that uses it."""

SAID = {"backend": "1 of 1 steps run on oracle instead of adder: MUL 1", "command": "3.6.1\n"}
"""What the program must have printed."""


@pytest.mark.parametrize("kind", ADDITIONS)
def test_what_the_map_says_of_adding_things_is_so(kind: str, tmp_path: Path) -> None:
    sections, program = ADDITIONS[kind]
    shutil.copytree(PACKAGE, tmp_path / "ggml_rpc_ref", ignore=shutil.ignore_patterns("__pycache__", "schema"))
    for title in sections:
        (diff,) = re.findall(r"```diff\n(.*?)```", section(title), re.DOTALL)
        apply(diff, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert SAID.get(kind, "") in done.stdout + done.stderr


def test_the_map_shows_each_addition() -> None:
    titles = re.findall(r"^### (.*)$", MAP, re.MULTILINE)
    assert titles == list(ADDITIONS)
