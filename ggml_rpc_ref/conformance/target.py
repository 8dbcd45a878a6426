"""The server under test: one at an address, one that a command starts, or our own.

A server that we start is watched: if it dies, we know how, and the next case gets a fresh one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from ggml_rpc_ref.conformance.printed import shown_lines
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.net.stream import DeadlineMissed, Endpoint, PeerClosed, free_port, open_stream
from ggml_rpc_ref.spec.versions import DEFAULT, Version

LOOPBACK = "127.0.0.1"
PORTS = 3
"""Ports on which a server is tried that ends before it listens."""
START_TIMEOUT = 60.0
"""Seconds that a server may take to accept connections after its start: importing a backend takes a while."""
DYING = 1.0
"""Seconds that a dying process may take to be gone after its connections are: the kernel writes a core first."""

LOG_SHOWN = 65536
"""Bytes at the end of what a server printed in which its last lines are looked for."""

_ENDPOINT = re.compile(r"endpoint\s*:\s*(\S+):(\d+)", re.IGNORECASE)
"""How rpc-server and our server announce their endpoint."""

_CALLER = re.compile(r"\[0x[0-9a-f]+\]$")
"""A line of the list of callers that glibc prints (backtrace_symbols_fd): what went wrong stands before it."""


class Target(Protocol):
    """A server to judge.

    Attributes:
        name: its name in reports.
        endpoint: where it listens, once it has been started.
        restartable: whether `start` gives a fresh server after a crash.
    """

    name: str
    endpoint: Endpoint
    restartable: bool

    @property
    def pid(self) -> int | None:
        """Its process id while it lives, where we started it."""

    def start(self) -> None:
        """Start a fresh server, where it is ours to start, and wait until it listens."""

    def death(self) -> str:
        """Return how it ended, or "" where it lives or we can't know."""

    def log_size(self) -> int:
        """Return how many bytes it has printed since its start, as far as we see it."""

    def log_lines(self, since: int) -> list[str]:
        """Return the lines that it has printed since then, none where we don't see them."""

    def stop(self) -> None:
        """End it, where we started it."""

    def twin(self) -> Target:
        """Return another server of the same kind, where it is ours to start."""


class Given:
    """A server that is already running."""

    restartable = False
    pid: int | None = None

    def __init__(self, endpoint: Endpoint) -> None:
        self.name, self.endpoint = str(endpoint), endpoint

    def start(self) -> None:
        """Do nothing: it is not ours to start."""

    def death(self) -> str:
        """Return "": we can't see its process."""
        return ""

    def log_size(self) -> int:
        """Return 0: we don't see what it prints."""
        return 0

    def log_lines(self, since: int) -> list[str]:
        """Return nothing: we don't see what it prints."""
        return []

    def stop(self) -> None:
        """Do nothing: it is not ours to end."""

    def twin(self) -> Given:
        """Return this one: there is no other."""
        return self


class Spawned:
    """A server that we start, watch, and start again after a crash.

    Args:
        name: its name in reports.
        command: its arguments; "{port}" in them stands for a free port, chosen for each start (without it the server must choose
            one and print its endpoint), "{tmp}" for a directory that is removed with the target.
        environ: variables of its environment beside ours.
    """

    restartable = True

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        self.name, self.endpoint, self._command = name, Endpoint(LOOPBACK, 0), list(command)
        self.environ = _environ() | dict(environ or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._log = Path(os.devnull)

    @property
    def pid(self) -> int | None:
        """The process id, while it lives."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start a fresh process and wait until it accepts connections.

        Another process may take the chosen port before the server does; where it ends at once, it is tried on others.

        Raises:
            Misuse: where the command can't be started.
            ConnectionError: where it does not accept any.
        """
        for attempt in range(1, PORTS + 1):
            try:
                self._start()
                return
            except ConnectionError:
                if attempt == PORTS or not self.death():
                    raise

    def _start(self) -> None:
        self._end()
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="ggml-rpc-ref-conform-")
            self._log = Path(self._directory.name) / "server.log"
        port = free_port(LOOPBACK)
        # without {port} in its command the server says in its log which one it has chosen
        chosen = Endpoint(LOOPBACK, port) if any("{port}" in part for part in self._command) else None
        command = [part.replace("{port}", str(port)).replace("{tmp}", self._directory.name) for part in self._command]
        with self._log.open("wb") as log:
            try:
                # in a session of its own, so that a wrapper script's children can be killed with it
                with _signals_deferred():
                    self._process = subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=self.environ
                    )
            except OSError as error:
                raise Misuse(f"can't start {shlex.join(command)}: {error.strerror}") from None
        self._await(chosen)

    def _await(self, endpoint: Endpoint | None) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if end := self.death():
                raise ConnectionError(f"{self.name} ended before it listened: {end}")
            endpoint = endpoint or self._announced()
            if endpoint and _answers(endpoint):
                self.endpoint = endpoint
                return
            time.sleep(0.02)
        raise ConnectionError(f"{self.name} did not listen within {START_TIMEOUT:g} s{self._last_line()}")

    def _announced(self) -> Endpoint | None:
        found = _ENDPOINT.search(self._log.read_text(errors="replace"))
        return Endpoint(found[1], int(found[2])) if found else None

    def death(self) -> str:
        """Return how the process ended, with the last line it printed; "" while it lives."""
        status = self._process.poll() if self._process else None
        if status is None:
            return ""
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return how + self._last_line()

    @property
    def log(self) -> Path:
        """The file that its output goes to."""
        return self._log

    def log_size(self) -> int:
        """Return how many bytes this process has printed."""
        return self._log.stat().st_size if self._log.is_file() else 0

    def log_lines(self, since: int) -> list[str]:
        """Return the lines that this process has printed since then, without directories and empty lines."""
        if not self._log.is_file():
            return []
        with self._log.open("rb") as log:
            # a server may print megabytes: the end is what counts
            log.seek(max(since, self.log_size() - LOG_SHOWN))
            text = log.read().decode(errors="replace")
        return shown_lines(text)

    def _last_line(self) -> str:
        lines = [line for line in self.log_lines(0) if not _CALLER.search(line)]
        return f"; last output: {lines[-1].strip()}" if lines else ""

    def twin(self) -> Spawned:
        """Return a server that the same command starts."""
        return Spawned(self.name, self._command)

    def stop(self) -> None:
        """End it and remove its log."""
        self._end()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            # the group, and even where its leader has died: a wrapper script's children may live on. Not permitted: a command
            # that runs as another user (sudo), or on macOS a group in which only a dead process is left
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2.0)
                return


@contextlib.contextmanager
def _signals_deferred() -> Iterator[None]:
    """Defer what ends us until the child's pid is stored: a signal before that would leave the child running."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and only it receives signals
        return
    deferred: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: deferred.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for received in deferred:
            signal.raise_signal(received)


def embedded(version: Version | None = None) -> Spawned:
    """Return our own server as a target: `serve` on a free port, the fastest device and the oracle, a cache removed with it.

    Args:
        version: what it speaks; None: the default version.
    """
    options = ["-p", "0", "-d", "auto,oracle", "-c", "--cache-dir", "{tmp}", "--proto", str(version or DEFAULT)]
    return Spawned("ggml-rpc-ref serve", [sys.executable, "-m", "ggml_rpc_ref", "serve", *options])


def from_command(text: str, environ: Mapping[str, str] | None = None) -> Spawned:
    """Return a target that a command line starts; "{port}" in it stands for the port, `environ` is added to our environment.

    Raises:
        Misuse: for a command without "{port}", or with unbalanced quotes.
    """
    try:
        command = shlex.split(text)
    except ValueError as error:
        raise Misuse(f"--spawn {text!r}: {error}") from None
    if not any("{port}" in part for part in command):
        raise Misuse(f"--spawn {text!r} must hold {{port}}: the port to listen on, on {LOOPBACK}")
    return Spawned(text, command, environ)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine's loopback, by name or address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _answers(endpoint: Endpoint) -> bool:
    """Whether a server listens there and has handled a HELLO in some way.

    Connecting alone is not enough: with a backlog of 1 (upstream's) a connection still in the queue makes the kernel drop the next
    one, which TCP retries a second later.
    """
    try:
        with open_stream(*endpoint, timeout=1.0) as stream, contextlib.suppress(PeerClosed, DeadlineMissed):
            # HELLO as literal bytes; a server of 4.0.0 and later closes on it, which is an answer too
            stream.send(b"\x0e" + bytes(8))
            stream.receive_exactly(11)
    except (ConnectionError, DeadlineMissed):
        return False
    return True


def _environ() -> dict[str, str]:
    """Return our environment with ggml's stack traces turned off: for them it runs gdb, which delays a dying server by seconds."""
    return os.environ | {"GGML_NO_BACKTRACE": "1"}
