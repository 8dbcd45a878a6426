"""A server under watch: how it died, what it uses, and the next one ready before it is needed."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ggml_rpc_ref.conformance.target import Spawned, Target
from ggml_rpc_ref.fuzz import preload
from ggml_rpc_ref.fuzz.edges import Edges
from ggml_rpc_ref.fuzz.introduce import version_of

MEMORY: Final = 4 * 2**30
"""Bytes of address space that a server which we start may have: what it wants beyond that is out of proportion."""
SHADOW: Final = 2**43
"""Bytes of address space that nothing but a sanitizer's shadow takes: such a server limits itself by its options."""
KEPT_OUTPUT: Final = 2**15
"""Characters of a server's output that are kept."""
_NUMBERS: Final = re.compile(r"0x[0-9a-f]+|\d+")
FORKING: Final = 2.0
"""Seconds that a forking server may take for a new child."""
_TICK: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True, slots=True)
class Death:
    """How a server died.

    Attributes:
        how: signal or exit status, with its last words.
        signal: the signal's name, or "exit N".
        place: where, as well as is known: file and line, or a function.
        frames: functions of its own on the stack, innermost first.
    """

    how: str
    signal: str
    place: str
    frames: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process uses: bytes of memory now and at most, seconds of processor."""

    now: int = 0
    peak: int = 0
    seconds: float = 0.0


class Watched:
    """The server that is fuzzed; a fresh one takes the place of one that died.

    Args:
        make: makes a target; called again for each further server that is to be ready at the same time.
        spares: servers that wait for the first one's death; only of use where the target is ours to start.
        memory: bytes of address space for a server that we start; 0: any.
        edges: that it has taken, where it is told to note them.
    """

    def __init__(self, make: Callable[[], Target], spares: int = 1, memory: int = MEMORY, edges: Edges | None = None) -> None:
        self._make, self._memory, self._spares, self.edges = make, memory, spares, edges
        self.target = make()
        self.starts = 0
        self._ready: list[tuple[threading.Thread, Target, list[BaseException]]] = []
        self._child: int | None = None
        self._forks = False
        self._printed, self._seen, self._born = "", 0, 0

    @property
    def restartable(self) -> bool:
        """Whether a dead server can be replaced."""
        return self.target.restartable

    def start(self) -> None:
        """Start the first server.

        Raises:
            ConnectionError, Misuse: as the target's `start`.
        """
        self._start(self.target)
        self._look_for_child()
        self._prepare()

    def _look_for_child(self) -> None:
        """Take note of the process that serves, where the server forks: at one of its first connections, if at all."""
        self._child, self._born = None, 0
        if isinstance(self.target, Spawned) and self.target.environ.get(preload.FORK):
            for _ in range(5):
                with contextlib.suppress(ConnectionError, TimeoutError):
                    version_of(self.target.endpoint, 1.0)
                if (child := self._new_child(self.target)) is not None:
                    self._child = child
                    break
                time.sleep(0.02)
        self._forks = self._child is not None
        self._forget_output()

    def _start(self, target: Target) -> None:
        target.start()
        self.starts += 1
        if not self._memory or not isinstance(target, Spawned) or not (pid := target.pid) or not hasattr(resource, "prlimit"):
            return
        with contextlib.suppress(OSError, ValueError, IndexError):  # it has died already, or has a lower limit
            size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
            if size < SHADOW:
                resource.prlimit(pid, resource.RLIMIT_AS, (self._memory, self._memory))

    def _prepare(self) -> None:
        """Start spare servers in threads."""
        while self.restartable and not self._forks and len(self._ready) < self._spares:
            spare, errors = self._make(), list[BaseException]()

            def begin(spare: Target = spare, errors: list[BaseException] = errors) -> None:
                try:
                    self._start(spare)
                except Exception as error:
                    errors.append(error)

            thread = threading.Thread(target=begin, daemon=True)
            thread.start()
            self._ready.append((thread, spare, errors))

    def renew(self) -> None:
        """Go on with a fresh server, where it is ours to start.

        Raises:
            ConnectionError, Misuse: where it does not start.
        """
        if not self.restartable or self._forked_again():
            return
        old = self.target
        if self._ready:
            thread, self.target, errors = self._ready.pop(0)
            thread.join()
            old.stop()
            if errors:
                raise errors[0]
        else:
            self._start(old)
        self._look_for_child()
        self._prepare()

    def _forked_again(self) -> bool:
        """Whether a forking server has a new child that serves; one that hangs is killed for it."""
        old, target = self._child, self.target
        if not self._forks or not isinstance(target, Spawned) or target.death():
            return False
        assert old is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(old, signal.SIGKILL)  # where it died by itself it is no longer there, and its parent has waited for it
        end = time.monotonic() + FORKING
        while time.monotonic() < end:
            if (child := self._new_child(target)) not in (old, None):
                self._child = child
                self.starts += 1
                self._forget_output()
                return True
            time.sleep(0.001)
        return False

    def _new_child(self, target: Spawned) -> int | None:
        """Return the process that has begun to serve since the last one was found; None where none has.

        What was printed before is not read again: after some thousand deaths it is megabytes.
        """
        with target.log.open("rb") as file:
            file.seek(self._born)
            data = file.read()
        lines = data[: data.rfind(b"\n") + 1]  # the last one may not have come to its end
        child = preload.serving(lines.decode(errors="replace"))
        if child is not None:
            self._born += len(lines)
        return child

    def stop(self) -> None:
        """End all of them."""
        for thread, spare, _ in self._ready:
            thread.join()
            spare.stop()
        self._ready.clear()
        self.target.stop()

    # ------------------------------------------------------------------------------------------------------------ looking

    def death(self, patience: float = 0.0) -> Death | None:
        """Return how the server died; None while it lives, or where we can't see its process.

        Args:
            patience: seconds that it may still take to be gone.
        """
        end = time.monotonic() + patience
        while True:
            output = self._output()
            forked, how = preload.died(output), self.target.death()
            if forked or how:
                break
            if time.monotonic() >= end:
                return None
            time.sleep(0.002)
        by = forked or how.partition(";")[0].removeprefix("killed by ").replace("exit status", "exit")
        if forked:
            output = output[: output.index("ggml-rpc-ref died by")]
        words = preload.last_words(output)
        return Death(f"{by}{f'; {words}' if words else ''}", by, preload.place(output), preload.frames(output))

    def _output(self) -> str:
        """Return the last of what the server has printed since it was last renewed."""
        target = self.target
        if not isinstance(target, Spawned):
            return ""
        with contextlib.suppress(OSError):
            if target.log.stat().st_size > self._seen:
                with target.log.open("rb") as file:
                    file.seek(self._seen)
                    data = file.read()
                self._seen += len(data)
                self._printed = (self._printed + data.decode(errors="replace"))[-KEPT_OUTPUT:]
        return self._printed

    @property
    def said(self) -> str:
        """The last line that the server has printed, numbers left out: what novelty is judged by."""
        return _NUMBERS.sub("#", preload.last_words(self._output())[:80])

    def _forget_output(self) -> None:
        """Take what has been printed so far for that of a server that is gone."""
        self._printed, self._seen = "", 0
        if isinstance(self.target, Spawned) and self._forks:
            self._seen = self.target.log.stat().st_size

    @property
    def pid(self) -> int | None:
        """Id of the process that serves."""
        return self._child or self.target.pid

    def usage(self) -> Usage:
        """Return what the server's process uses; zeros where that can't be seen."""
        pid = self.pid
        if pid is None:
            return Usage()
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return Usage()
        sizes = {line.partition(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith("Vm")}
        kib = {name: int(value) * 1024 for name, value in sizes.items()}
        return Usage(kib.get("VmRSS", 0), kib.get("VmHWM", 0), (int(times[11]) + int(times[12])) / _TICK)

    def worked(self) -> float:
        """Return the seconds of processor that the server's process has used; 0.0 where that can't be seen."""
        return self.usage().seconds

    def forget_peak(self) -> None:
        """Let the most memory used begin anew."""
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")
