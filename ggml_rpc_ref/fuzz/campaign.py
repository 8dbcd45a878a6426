"""A campaign over many machines: pieces of it are tasks of a Dask cluster (extra `dask`).

Each task is a campaign of some seconds with sessions of its own, on a server that the worker starts. What it finds comes back and
is kept here, with the sessions that led to something new; the next tasks are told what is known and go on from those sessions. A
worker that dies loses its piece and nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ggml_rpc_ref.cluster import cluster
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.fuzz.events import Began, Count, Ended, Event, Found, Learned, Progressed
from ggml_rpc_ref.fuzz.finds import Find, Key, Store, bare
from ggml_rpc_ref.fuzz.jobs import Goal, Merged

log = logging.getLogger(__name__)
PIECE: Final = 20.0
"""Seconds of a task."""
LOOK: Final = 0.5
"""Seconds between two looks at the tasks."""
ATTEMPTS: Final = 5
"""Tasks in a row that may fail before the campaign is given up."""


@dataclass(slots=True)
class Piece:
    """What became of a task.

    Attributes:
        began: what it met; None: nothing.
        finds: what it found.
        count: what it did.
        why: why it ended early.
        learned: what the next tasks go on from.
    """

    began: Began | None = None
    finds: list[Find] = field(default_factory=list)
    count: Count = field(default_factory=Count)
    why: str = ""
    learned: Learned = field(default_factory=Learned)


def piece(goal: Goal, known: tuple[Key, ...]) -> Piece:
    """Have a campaign; return what became of it. Runs on a worker."""
    done = Piece()
    try:
        for event in goal.campaign(Store(known=dict.fromkeys(known))):
            match event:
                case Began():
                    done.began = event
                case Found(find):
                    done.finds.append(bare(find))
                case Ended():
                    done.count, done.why, done.learned = event.count, event.why, event.learned
    except (ConnectionError, TimeoutError, Misuse) as error:
        done.why = str(error)
    return done


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
    learned = goal.before
    while (left := goal.options.max_time - (time.monotonic() - begun)) > 0 or running:
        while left > 0 and failures < ATTEMPTS and len(running) < max(1, len(client.scheduler_info()["workers"])):
            part = goal.part(number)
            number += 1
            part = replace(part, options=replace(part.options, max_time=min(PIECE, left)), before=learned)
            running[client.submit(piece, part, tuple(merged.store.known), pure=False, retries=0)] = number
        time.sleep(LOOK)
        for future in [future for future in running if future.done()]:
            its = running.pop(future)
            if future.status == "finished":
                failures, done = 0, future.result()
                learned = learned.plus(done.learned)
                yield from _taken(merged, its, done, time.monotonic() - begun)
            else:
                failures += 1  # its worker died: what it had found in this piece is lost, no other piece
                log.warning("a piece of the campaign is lost, and the others go on: %s", future.exception(), extra={"piece": its})
                merged.why = merged.why if failures < ATTEMPTS else f"{failures} tasks in a row failed: {future.exception()}"
        if failures >= ATTEMPTS:
            return


def _taken(merged: Merged, number: int, done: Piece, seconds: float) -> Iterator[Event]:
    if done.began is None:
        merged.why = merged.why or done.why
        return
    yield from merged.take(number, done.began)
    for find in done.finds:
        find.seconds = seconds
        yield from merged.take(number, Found(find))
    done.count.seconds = seconds
    yield from merged.take(number, Progressed(done.count, 0))
