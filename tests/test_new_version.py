"""CONTRIBUTING's diff makes a new protocol version: a copy of the package to which it is applied speaks the version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.diffs import apply

ROOT = Path(__file__).parent.parent

PROGRAM = """
import socket
import struct

import numpy as np

import ggml_rpc_ref
from ggml_rpc_ref.derive import PARTS
from ggml_rpc_ref.spec.versions import AUTO, PROFILES, Version

NEW = Version(9, 0, 0)
assert max(PROFILES) == AUTO[1] == NEW

def frame(command, payload=b""):
    return struct.pack("<BQ", command, len(payload)) + payload

def ask(sock, request):
    sock.sendall(request)
    (size,) = struct.unpack("<Q", sock.recv(8, socket.MSG_WAITALL))
    return sock.recv(size, socket.MSG_WAITALL)

# by hand: HELLO of 24 bytes is answered by the new version, SET_TENSOR has one more byte before its data, FREE_BUFFER is answered
with ggml_rpc_ref.Server(memory=2**20) as server:
    host, _, port = server.endpoint.rpartition(":")
    with socket.create_connection((host, int(port))) as sock:
        assert ask(sock, frame(14, bytes(24))) == bytes([9, 0, 0]) + bytes(25)
        pointer, _ = struct.unpack("<QQ", ask(sock, frame(0, struct.pack("<IQ", 0, 64))))
        (base,) = struct.unpack("<Q", ask(sock, frame(3, struct.pack("<Q", pointer))))
        tensor = struct.pack("<QIQ4I4I", 1, 24, pointer, 4, 1, 1, 1, 1, 4, 4, 4) + bytes(4 + 64 + 4 + 80 + 16)
        tensor += struct.pack("<Q", base) + bytes(64 + 4)
        sock.sendall(frame(6, tensor + struct.pack("<BQB", 0, 0, 7) + b"abcd"))
        assert ask(sock, frame(8, tensor + struct.pack("<QQ", 0, 4))) == b"abcd"
        assert ask(sock, frame(4, struct.pack("<Q", pointer))) == b""
        assert ask(sock, frame(15)) == struct.pack("<I", 1)

    # by our client, which takes what the server says
    with ggml_rpc_ref.connect(server.endpoint) as client:
        assert client.version == NEW, client.version
        device = client.devices[0]
        a = device.tensor(np.array([1, 2, 3], np.float32))
        assert np.asarray(a + a).tolist() == [2, 4, 6]
    assert "9.0.0" in ggml_rpc_ref.probe(server.endpoint).text() if hasattr(ggml_rpc_ref, "probe") else True

# in the texts
assert "since 9.0.0" in PARTS["SET_TENSOR"]()
assert "| 9.0.0 |" in PARTS["versions"]()
"""


def test_the_diff_makes_a_version_that_is_spoken(tmp_path: Path) -> None:
    text = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (diff,) = re.findall(r"```diff\n(.*?)```", text, re.DOTALL)
    shutil.copytree(ROOT / "ggml_rpc_ref", tmp_path / "ggml_rpc_ref", ignore=shutil.ignore_patterns("__pycache__", "schema"))
    apply(diff, tmp_path)
    assert sum(line.startswith("+") for line in diff.splitlines()) < 10
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
