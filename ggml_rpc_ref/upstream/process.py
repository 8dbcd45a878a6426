"""How the genuine library's processes are run: cache directory, lock, logged command, virtual environment, and how they ended."""

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

SCRIPT = Path(__file__).with_name("genuine.py")
REFUSED = 64
"""Exit status of `genuine.py` when its last line of standard error is a sentence for the caller."""


class Failed(Misuse):
    """The genuine library, or a command that builds it, failed; the sentence holds its last output or names the log."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a long task.

    Attributes:
        step: what is being done.
        done, total: parts of the step; both 0 where the number is unknown.
        elapsed: seconds since the task began.
    """

    step: str
    done: int
    total: int
    elapsed: float


OnProgress = Callable[[Progress], None]


def ignore_progress(_: Progress) -> None:
    """Ignore it."""


def cache_home() -> Path:
    """Return this project's cache directory: $XDG_CACHE_HOME/ggml-rpc-ref, or ~/.cache/ggml-rpc-ref.

    A relative XDG_CACHE_HOME is ignored, as the XDG base directory specification asks.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "ggml-rpc-ref"


@contextmanager
def locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock that `path` names, waiting for another process that holds it; `on_wait` is called about once a second.

    The operating system releases the lock when its holder ends, however it ends, so that no lock is ever stale.
    """
    try:
        # here, as Windows has no fcntl, and everything else can be imported there
        import fcntl
    except ImportError:
        raise Unsupported("genuine builds can be made on Linux and macOS only") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    # the file is never deleted: another process may wait for this one while a third would lock a new one of the same name
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

    The command gets a session of its own, so that its children (pip starts cmake, ninja and compilers) are killed with it when
    this function is interrupted.
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
                    # so that the log can be read while the build goes on, and is complete where a signal ends us
                    file.flush()
                    on_line(line.rstrip())
                return process.wait()
            except BaseException:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise


def make_venv(root: Path, log: Path) -> Path:
    """Make a virtual environment with pip in `root`, which must not exist, and return its Python.

    Raises:
        Misuse: where this Python lacks ensurepip.
        Failed: where it can't be made.
    """
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
    """Delete a directory and its contents, if it exists."""
    if root.exists():
        shutil.rmtree(root)


def thread_count(wanted: int | None) -> int:
    """Return the number of threads to use: half the cores by default, as upstream's rpc-server.

    Raises:
        Misuse: for less than 1.
    """
    if wanted is None:
        return max(1, (os.cpu_count() or 1) // 2)
    if wanted < 1:
        raise Misuse(f"{wanted} threads can't compute: give at least 1")
    return wanted


def environment() -> dict[str, str]:
    """Return our environment without the variable that would load another llama.cpp, and with stack traces of aborts turned off.

    ik_llama.cpp does not know that variable: it runs a debugger, for seconds, where it finds one.
    """
    kept = {name: value for name, value in os.environ.items() if name != "LLAMA_CPP_LIB_PATH"}
    return kept | {"GGML_NO_BACKTRACE": "1", "PATH": os.devnull}


def ending_of(who: str, status: int, printed: str) -> str:
    """Return one sentence about how a process of the genuine library ended."""
    if status == REFUSED:
        # `genuine.refuse` has written a whole sentence
        return printed.rstrip().rpartition("\n")[2]
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
    return f"{who} {how}{last_output(printed)}"


def last_output(printed: str) -> str:
    """Return the last lines that a process printed, to be appended to a sentence about its end."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    return f"; its last output: {' | '.join(lines[-3:])}" if lines else ", without any output"
