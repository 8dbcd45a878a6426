"""Where genuine builds lie, and how the commands that make them are run: cache directory, lock, logged command, progress."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ggml_rpc_ref.errors import Misuse, Unsupported


class Failed(Misuse):
    """The genuine library, or a command that builds it, failed: one sentence, with its last words or the log's name."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long step is: `done` of `total` parts (0 of 0 where that can't be known) after `elapsed` seconds in all."""

    step: str
    done: int
    total: int
    elapsed: float


OnProgress = Callable[[Progress], None]


def ignore_progress(_: Progress) -> None:
    """Show nothing."""


def cache_home() -> Path:
    """Return this project's cache directory: $XDG_CACHE_HOME/ggml-rpc-ref, or ~/.cache/ggml-rpc-ref.

    A relative XDG_CACHE_HOME is ignored, as the XDG base directory specification asks.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "ggml-rpc-ref"


@contextmanager
def locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock that `path` names, waiting for another process that holds it; `on_wait` is called about once a second.

    The operating system lets go of the lock when its holder ends, however it ends, so that no lock is ever stale.
    """
    try:
        import fcntl
    except ImportError:
        raise Unsupported("genuine builds can be made on Linux and macOS only") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                on_wait()
                time.sleep(1)
        yield


def run_logged(command: Sequence[str], log: Path, on_line: Callable[[str], None], env: Mapping[str, str]) -> int:
    """Run a command, append its output to `log`, give each line to `on_line`, and return the exit status.

    The command gets a session of its own, so that whatever it has started (pip starts cmake, ninja and compilers) ends
    with it when this function is interrupted.
    """
    with log.open("a", errors="replace") as file:
        file.write(f"$ {' '.join(command)}\n")
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(env),
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    file.write(line)
                    file.flush()
                    on_line(line.rstrip())
                return process.wait()
            except BaseException:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise


def make_venv(root: Path, log: Path) -> Path:
    """Make a fresh virtual environment with pip at `root`, which must not exist, and return its Python."""
    if importlib.util.find_spec("ensurepip") is None:
        raise Misuse(
            "this Python can't make virtual environments because ensurepip is missing: install it first, "
            "on Debian and Ubuntu with `apt-get install python3-venv`"
        )
    status = run_logged([sys.executable, "-m", "venv", str(root)], log, lambda _: None, os.environ)
    if status != 0:
        raise Failed(f"no virtual environment could be made in {root} (exit status {status}): see {log}")
    return python_of(root)


def python_of(root: Path) -> Path:
    """Return the path of a virtual environment's Python."""
    return root / "bin" / "python"


def remove(root: Path) -> None:
    """Delete a directory and all that is in it, where it exists."""
    if root.exists():
        shutil.rmtree(root)
