"""Servers forked from a zygote, as targets of the conformance suite."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from ggml_rpc_ref.net.stream import Endpoint
from tests.mutation.mutants import ROOT, Mutant

UP = 60.0
"""Seconds that a fork may take to listen, or an import."""


class Zygote:
    """The process that servers are forked from; a context manager.

    Args:
        mutant: a change to make before anything is imported; None: none.

    Attributes:
        imported: the lines, as "module:line", that importing the server runs.

    Raises:
        ConnectionError: where it does not come up.
    """

    def __init__(self, mutant: Mutant | None = None) -> None:
        self._out, out = os.pipe()
        words = [] if mutant is None else [mutant.module, str(mutant.number)]
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mutation.zygote", str(out), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[out],
            cwd=ROOT,
            env=environment,
        )
        os.close(out)
        self._rest = b""
        try:
            self.imported = frozenset(self.answer()["imported"])
        except ConnectionError:
            self.__exit__()
            raise

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        os.close(self._out)

    def fork(self, request: Mapping[str, Any]) -> tuple[int, int]:
        """Return port and process id of a new server.

        Raises:
            ConnectionError: where it does not come up.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(dict(request)).encode() + b"\n")
        self._process.stdin.flush()
        said = self.answer()
        return said["port"], said["pid"]

    def answer(self) -> dict[str, Any]:
        """Return the next thing that it or a server says.

        Raises:
            ConnectionError: where nothing comes.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(UP):
                    raise ConnectionError("no server within a minute")
                data = os.read(self._out, 2**20)
                if not data:
                    raise ConnectionError("it ended before it listened")
                self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return dict(json.loads(line))


class Forked:
    """A server forked from a zygote, as a `Target`.

    Args:
        zygote: what it is forked from.
        request: what the zygote is asked for.
    """

    name = "a changed server"
    restartable = True

    def __init__(self, zygote: Zygote, request: Mapping[str, Any]) -> None:
        self._zygote, self._request = zygote, request
        self.endpoint, self._pid = Endpoint("127.0.0.1", 0), 0

    @property
    def pid(self) -> int | None:
        """Its process id."""
        return self._pid or None

    def start(self) -> None:
        """Fork a fresh one; it listens when this returns."""
        self.stop()
        port, self._pid = self._zygote.fork(self._request)
        self.endpoint = Endpoint("127.0.0.1", port)

    def death(self) -> str:
        """Return "" while it lives."""
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return "its process ended"
        return ""

    def log_size(self) -> int:
        """Return 0: nobody sees what it prints."""
        return 0

    def log_lines(self, since: int) -> list[str]:
        """Return nothing."""
        return []

    def stop(self) -> None:
        """End it; killed, since it may be in an endless loop."""
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        self._pid = 0

    def twin(self) -> Forked:
        """Return another one."""
        return Forked(self._zygote, self._request)

    def lines(self) -> set[str]:
        """Return the lines that a traced one has reached since the last time."""
        os.kill(self._pid, signal.SIGUSR1)
        return set(self._zygote.answer()["lines"])
