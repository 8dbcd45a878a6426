"""A campaign over many machines: pieces of it are tasks of a Dask cluster (extra `dask`).

Each task is a campaign of some seconds with sessions of its own, on a server that the worker starts. What it finds comes back and
is kept here; the next tasks are told what is known. A worker that dies loses its piece and nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from ggml_rpc_ref.cluster import cluster
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.fuzz.events import Began, Count, Ended, Event, Found, Progressed
from ggml_rpc_ref.fuzz.finds import Find, Key, Store, bare
from ggml_rpc_ref.fuzz.jobs import Goal, Merged

log = logging.getLogger(__name__)
PIECE: Final = 20.0
"""Seconds of a task."""
LOOK: Final = 0.5
"""Seconds between two looks at the tasks."""
ATTEMPTS: Final = 5
"""Tasks in a row that may fail before the campaign is given up."""

Piece = tuple[Began | None, list[Find], Count, str]


def piece(goal: Goal, known: tuple[Key, ...]) -> Piece:
    """Have a campaign; return what was met, what was found, what was done, and why it ended early. Runs on a worker."""
    began: Began | None = None
    finds: list[Find] = []
    count, why = Count(), ""
    try:
        for event in goal.campaign(Store(known=dict.fromkeys(known))):
            match event:
                case Began():
                    began = event
                case Found(find):
                    finds.append(bare(find))
                case Ended(count, why):
                    pass
    except (ConnectionError, TimeoutError, Misuse) as error:
        why = str(error)
    return began, finds, count, why


def run_on(address: str, goal: Goal, store: Store, workers: int = 2) -> Iterator[Event]:
    """Yield the events of a campaign on a cluster.

    Args:
        address: of a scheduler, "tcp://HOST:PORT"; "local": a cluster of `workers` processes on this machine.
        goal: what to fuzz and how; on the workers' machines, where a command of `spawn` must be installed.
        store: of the finds.
        workers: processes of a local cluster.

    Raises:
        Misuse: where Dask is not installed, or there is no such cluster.
        ConnectionError: where no task could begin.
    """
    with cluster(address, workers) as client:
        merged = Merged(store, 1)
        try:
            yield from _pieces(client, goal, merged)
        except KeyboardInterrupt:
            merged.is_interrupted = True
        if merged.began is None and merged.why:
            raise ConnectionError(merged.why)
        yield Ended(merged.count, merged.why, merged.is_interrupted)


def _pieces(client: Any, goal: Goal, merged: Merged) -> Iterator[Event]:
    """Keep every worker busy until the time is over, and yield what comes of it."""
    begun, number, failures = time.monotonic(), 0, 0
    running: dict[Any, int] = {}
    while (left := goal.options.max_time - (time.monotonic() - begun)) > 0 or running:
        while left > 0 and failures < ATTEMPTS and len(running) < max(1, len(client.scheduler_info()["workers"])):
            part = goal.part(number)
            number += 1
            part = replace(part, options=replace(part.options, max_time=min(PIECE, left)))
            running[client.submit(piece, part, tuple(merged.store.known), pure=False, retries=0)] = number
        time.sleep(LOOK)
        for future in [future for future in running if future.done()]:
            its = running.pop(future)
            if future.status == "finished":
                failures = 0
                yield from _taken(merged, its, future.result(), time.monotonic() - begun)
            else:
                failures += 1  # its worker died: what it had found in this piece is lost, no other piece
                log.warning("a piece of the campaign is lost, and the others go on: %s", future.exception(), extra={"piece": its})
                merged.why = merged.why if failures < ATTEMPTS else f"{failures} tasks in a row failed: {future.exception()}"
        if failures >= ATTEMPTS:
            return


def _taken(merged: Merged, number: int, done: Piece, seconds: float) -> Iterator[Event]:
    began, finds, count, why = done
    if began is None:
        merged.why = merged.why or why
        return
    yield from merged.take(number, began)
    for find in finds:
        find.seconds = seconds
        yield from merged.take(number, Found(find))
    count.seconds = seconds
    yield from merged.take(number, Progressed(count, 0))
