"""Build llama-cpp-python, its llama.cpp included, with pip into a virtual environment: 6 to 8 minutes on two cores."""

from __future__ import annotations

import os
from pathlib import Path

from ggml_rpc_ref.spec.packages import Package
from ggml_rpc_ref.upstream.clock import Clock
from ggml_rpc_ref.upstream.process import Failed, make_venv, run_logged

CMAKE_ARGS = "-DGGML_RPC=ON -DLLAVA_BUILD=OFF"


def build(package: Package, root: Path, log: Path, clock: Clock) -> None:
    """Make the environment in `root`, which must not exist.

    Raises:
        Failed: where pip fails; the sentence names the log.
    """
    clock.tell("making an environment")
    python = make_venv(root, log)
    # --no-cache-dir: pip's cache of wheels it has built does not look at CMAKE_ARGS, so one without RPC could come from it.
    # --verbose: only then does pip pass on ninja's lines.
    command = [str(python), "-m", "pip", "install", "--verbose", "--no-cache-dir", "--no-input", "--progress-bar=off"]
    command += ["--disable-pip-version-check", "--no-binary", package.name, f"{package.name}=={package.version}"]
    status = run_logged(command, log, clock.read_line, os.environ | {"CMAKE_ARGS": CMAKE_ARGS})
    if status != 0:
        raise Failed(f"building {package} failed (pip's exit status {status}): see {log}")
