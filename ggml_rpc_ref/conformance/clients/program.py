"""The client under test: a command that is run once for each run, or one that somebody starts by hand."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from ggml_rpc_ref.conformance.clients.heard import Ended
from ggml_rpc_ref.conformance.printed import shown_lines
from ggml_rpc_ref.errors import Misuse

LAST_LINES: Final = 8
"""The last lines of what a client printed that are kept."""
SHOWN: Final = 65536
"""Bytes at the end of what it printed in which they are looked for."""
FIRST, SECOND = "{endpoint}", "{endpoint2}"
QUIET: Final = 2.0
"""Seconds without a connection after which a client that somebody else started is done: one makes several, one after another."""

Connections = Callable[[], int]
"""Says how many connections are open, and -1 before the first has come."""


class Program(Protocol):
    """A client to judge.

    Attributes:
        name: its name in reports.
        endpoints: how many servers it is told of.
    """

    name: str
    endpoints: int

    def run(self, endpoints: Sequence[str], timeout: float, connections: Connections) -> Ended:
        """Have it talk to these servers once; return how it ended.

        Raises:
            Misuse: where it can't be started, or nobody comes.
        """


class Command:
    """A client that a command starts; "{endpoint}" in its arguments stands for where it is to connect, "{endpoint2}" for a second.

    Args:
        arguments: the command's.
        name: what reports call it; "": the command.

    Raises:
        Misuse: where no argument holds {endpoint}.
    """

    def __init__(self, arguments: Sequence[str], name: str = "") -> None:
        if not any(FIRST in part for part in arguments):
            raise Misuse(f"the client's command must hold {FIRST}: where it is to connect")
        self._arguments, self.name = list(arguments), name or shlex.join(arguments)
        self.endpoints = 2 if any(SECOND in part for part in arguments) else 1

    def run(self, endpoints: Sequence[str], timeout: float, connections: Connections) -> Ended:
        """Start it, and wait until it has ended or the time is over; then end it with its children."""
        line = [part.replace(FIRST, endpoints[0]).replace(SECOND, endpoints[-1]) for part in self._arguments]
        with tempfile.TemporaryFile() as output:
            try:
                process = subprocess.Popen(
                    line, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=_environ(), start_new_session=True
                )
            except OSError as error:
                raise Misuse(f"can't start {line[0]}: {error.strerror}") from None
            status = ended(process, timeout)
            return Ended(status, status is None, _last(output.seek(0, os.SEEK_END), output.fileno()))


def ended(process: subprocess.Popen[bytes], timeout: float) -> int | None:
    """Return the exit status; None where it had to be killed. Its children are ended with it."""
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it and its children have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last(size: int, descriptor: int) -> tuple[str, ...]:
    text = os.pread(descriptor, SHOWN, max(0, size - SHOWN)).decode(errors="replace")
    return tuple(shown_lines(text)[-LAST_LINES:])


def _environ() -> dict[str, str]:
    """Return our environment with ggml's stack traces turned off: for them it runs gdb, which takes seconds."""
    return os.environ | {"GGML_NO_BACKTRACE": "1"}


class ByHand:
    """A client that somebody else starts, on this machine or another, whenever they are told to.

    Args:
        tell: called with a sentence each time that it is to be started.
        endpoints: how many servers it is to be told of.
        patience: seconds in which it is to come.
    """

    def __init__(self, tell: Callable[[str], None], endpoints: int = 1, patience: float = 600.0) -> None:
        self.name, self.endpoints, self._tell, self._patience = "a client started by hand", endpoints, tell, patience

    def run(self, endpoints: Sequence[str], timeout: float, connections: Connections) -> Ended:
        """Wait for it, and until it has gone for a while; how its process ends can't be seen."""
        self._tell(f"start the client now: {' and '.join(endpoints)}")
        end = time.monotonic() + self._patience
        while connections() < 0:
            if time.monotonic() > end:
                raise Misuse(f"no client came within {self._patience:g} s")
            time.sleep(0.05)
        end = time.monotonic() + timeout
        quiet = time.monotonic() + QUIET
        while time.monotonic() < min(end, quiet):
            if connections() > 0:
                quiet = time.monotonic() + QUIET
            time.sleep(0.05)
        return Ended(hung=connections() > 0, visible=False)
