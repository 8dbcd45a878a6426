"""Progress of a build, read from the lines that pip and ninja print."""

from __future__ import annotations

import re
import time

from ggml_rpc_ref.upstream.process import OnProgress, Progress

_NINJA = re.compile(r"\s*\[(\d+)/(\d+)\] ")
_PIP_STEPS = (
    (re.compile(r"\s*Collecting "), "downloading"),
    (re.compile(r"\s*Installing build dependencies: started"), "fetching build tools"),
    (re.compile(r"\s*Building wheel for .*started"), "compiling"),
    (re.compile(r"\s*Installing collected packages: "), "installing"),
)


class Clock:
    """Turns the lines of pip and ninja into progress, with the time since it was made."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._start = time.monotonic()

    def tell(self, step: str, done: int = 0, total: int = 0) -> None:
        """Report a step."""
        self._on_progress(Progress(step, done, total, time.monotonic() - self._start))

    def read_line(self, line: str) -> None:
        """Report what a line shows, if it shows anything."""
        if ninja := _NINJA.match(line):
            self.tell("compiling", int(ninja[1]), int(ninja[2]))
        for pattern, step in _PIP_STEPS:
            if pattern.match(line):
                self.tell(step)
