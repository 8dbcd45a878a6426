"""A server at the end of a slow cable that loses packets and is cut: the same bits, an error that names it, and nothing hangs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.two_networks import PATIENCE


def test_a_cable_that_loses_packets_and_is_cut() -> None:
    """Across two network namespaces; skipped where this user can't make them."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("network namespaces need unshare and ip (util-linux, iproute2)")
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-m", "tests.support.two_networks"]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    if "lacking" in said:
        pytest.skip(said["lacking"])
    assert all(said["over the cable"])
    assert said["lost"] > 0  # the cable did lose packets on the way to these
    assert said["named"] == said["endpoint"]
    assert said["tensors"]
    assert f"{said['endpoint']} is gone" in said["sentence"]
    assert said["seconds"] < 10 * PATIENCE
    assert said["without"]
    assert said["again"]
