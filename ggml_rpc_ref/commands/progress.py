"""Progress of a long step on standard error: a bar on a terminal, a line per step elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from ggml_rpc_ref.upstream import OnProgress, Progress


@contextmanager
def shown_progress(what: str, stream: TextIO | None = None) -> Iterator[OnProgress]:
    """Yield a callback for `upstream.install` and `upstream.model` that shows progress on `stream` (standard error) as `what`."""
    stream = sys.stderr if stream is None else stream
    if stream.isatty():
        with _bar(what, stream) as callback:
            yield callback
    else:
        yield _Lines(what, stream)


@contextmanager
def _bar(what: str, stream: TextIO) -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(f"{what}: {{task.description}}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(progress: Progress) -> None:
            bar.update(task, description=progress.step, completed=progress.done, total=progress.total or None)

        yield show


class _Lines:
    """Prints a line when a step begins and one for each tenth of its parts: a log does not need a line for each compiled file."""

    def __init__(self, what: str, stream: TextIO) -> None:
        self._what, self._stream = what, stream
        self._last: tuple[str, int] | None = None

    def __call__(self, progress: Progress) -> None:
        tenth = progress.done * 10 // progress.total if progress.total else 0
        if (progress.step, tenth) == self._last:
            return
        self._last = progress.step, tenth
        parts = f" {progress.done}/{progress.total}" if progress.total else ""
        print(f"{self._what}: {progress.step}{parts} ({progress.elapsed:.0f} s)", file=self._stream, flush=True)
