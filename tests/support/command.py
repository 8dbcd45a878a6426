"""The command line, run as a user runs it, in a process of its own that need not import everything anew.

A fresh interpreter takes most of a second of processor before it looks at its arguments, and the tests run some hundreds of them.
So one process imports the libraries once, and each command is a fork of it (`python -m tests.support.command` is that process).
What a test says of the start itself (what is imported, an early interrupt) has to start an interpreter.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import ggml_rpc_ref

ROOT = Path(__file__).parent.parent.parent
COMMAND = (sys.executable, "-m", "ggml_rpc_ref")
"""The command line in a fresh interpreter."""
PRELOADED = (
    *("numpy", "rich.console", "rich.live", "rich.progress", "rich.table", "typer.main"),
    *(f"ggml_rpc_ref.{name}" for name in ("commands.main", "conformance.cases", "decode", "fuzz", "golden", "server", "upstream")),
    "typer._adapters",  # imported with the first option; it costs 0.2 s where pydantic is installed
)
_LOCK = Lock()


def run_command(
    *words: object, cwd: Path = ROOT, env: Mapping[str, str] | None = None, timeout: float = 120.0, stdout: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `ggml-rpc-ref WORDS…` and return its exit status and what it printed; standard input is empty.

    Args:
        words: the arguments.
        cwd: where it runs.
        env: variables beside this process's.
        timeout: seconds after which it is killed.
        stdout: where its standard output goes; None: into what is returned.

    Raises:
        subprocess.TimeoutExpired: when it was.
    """
    arguments = [str(word) for word in words]
    with tempfile.TemporaryDirectory() as directory:
        order = {
            "words": arguments,
            "cwd": str(cwd),
            "env": {**os.environ, **(env or {})},
            "out": str(stdout or f"{directory}/out"),
            "err": f"{directory}/err",
            "timeout": timeout,
        }
        with _LOCK:
            forker = _forker()
            assert forker.stdin is not None
            assert forker.stdout is not None
            forker.stdin.write(json.dumps(order) + "\n")
            forker.stdin.flush()
            status = json.loads(forker.stdout.readline())
        out = "" if stdout else Path(directory, "out").read_bytes().decode(errors="replace")
        err = Path(directory, "err").read_bytes().decode(errors="replace")
    if status is None:
        raise subprocess.TimeoutExpired(arguments, timeout, out, err)
    return subprocess.CompletedProcess(arguments, status, out, err)


@cache
def _forker() -> subprocess.Popen[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.command"],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # an interrupt of the tests ends them, and they end it
    )

    def end() -> None:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()

    atexit.register(end)
    return process


# ------------------------------------------------------------------------------------------------------- the other process


def _serve() -> None:
    """Fork once for each line of standard input, and answer with the exit status; null for a command that was killed."""
    for name in PRELOADED:
        with suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(order)
        signal.signal(signal.SIGALRM, lambda *_, child=child: os.kill(child, signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, order["timeout"])
        _, status = os.waitpid(child, 0)
        late = signal.setitimer(signal.ITIMER_REAL, 0)[0] == 0
        code = os.waitstatus_to_exitcode(status)
        print(json.dumps(None if late and code == -signal.SIGKILL else code), flush=True)


def _become(order: dict[str, Any]) -> None:
    """Be the command: never returns."""
    code: object = 1
    try:
        os.setpgid(0, 0)
        os.chdir(order["cwd"])
        os.environ.clear()
        os.environ.update(order["env"])
        for number, (name, flags) in enumerate([("/dev/null", os.O_RDONLY), (order["out"], 0), (order["err"], 0)]):
            file = os.open(name, flags if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(file, number)
            os.close(file)
        sys.modules["__main__"].__package__ = "ggml_rpc_ref"  # from which its usage takes its name
        sys.argv = [str(Path(ggml_rpc_ref.__file__).parent / "__main__.py"), *order["words"]]
        from ggml_rpc_ref.__main__ import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code
    finally:
        if code is None or isinstance(code, int):
            status = code or 0
        else:
            print(code, file=sys.stderr)
            status = 1
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        # not exit: what this process inherited is not its to clean up. Threads that a command leaves behind end here too
        os._exit(status)


if __name__ == "__main__":
    _serve()
