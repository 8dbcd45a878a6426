"""Several campaigns at a time on one machine, each with a server of its own, their finds and counts brought together."""

from __future__ import annotations

import multiprocessing
import queue
import signal
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.fuzz.engine import Campaign, Options
from ggml_rpc_ref.fuzz.events import Began, Count, Ended, Event, Found, Learned, Progressed
from ggml_rpc_ref.fuzz.finds import Key, Store, bare
from ggml_rpc_ref.fuzz.targets import watched

PATIENCE: Final = 15.0
"""Seconds that workers may take to end once they are to."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What to fuzz and how: all that a worker needs to be told.

    Attributes:
        spawn: command that starts a server, with {port}; "": our own, or the one at `endpoint`.
        endpoint: HOST:PORT of a running server.
        memory: bytes of address space that a server which is started may have; 0: any.
        fork: whether a server that died may be followed by a fork.
        options: how.
        before: what other parts of the campaign have learned.
    """

    spawn: str = ""
    endpoint: str = ""
    memory: int = 0
    fork: bool = True
    options: Options = field(default_factory=Options)
    before: Learned = field(default_factory=Learned)

    def campaign(self, store: Store) -> Iterator[Event]:
        """Yield the events of one campaign."""
        with watched(self.spawn, self.endpoint, self.memory, fork=self.fork) as server:
            yield from Campaign(server, self.options, store, self.before).run()

    def part(self, number: int) -> Goal:
        """Return the goal of one of several workers, from 0: other sessions; the first has those that exist already."""
        seeds = self.options.seeds if number == 0 else ()
        return replace(self, options=replace(self.options, seed=f"{self.options.seed}/{number}", seeds=seeds))


def run(goal: Goal, store: Store, jobs: int = 1) -> Iterator[Event]:
    """Yield the events of a campaign of one or more workers; the last one is `Ended`.

    Raises:
        ConnectionError, TimeoutError, Misuse: as `Campaign.run`, where no worker could begin.
    """
    if jobs == 1:
        yield from goal.campaign(store)
        return
    context = multiprocessing.get_context("spawn")
    events: Any = context.Queue()
    workers = [
        context.Process(target=_work, args=(goal.part(number), number, tuple(store.known), events), daemon=True)
        for number in range(jobs)
    ]
    for worker in workers:
        worker.start()
    merged = Merged(store, jobs)
    try:
        yield from _listen(workers, events, merged)
    except KeyboardInterrupt:
        merged.is_interrupted = True
        _end(workers)
        yield from _listen(workers, events, merged, time.monotonic() + PATIENCE)
    finally:
        _end(workers)
        for worker in workers:
            worker.join(PATIENCE)  # until it has stopped its server
            worker.kill()
    if merged.began is None and merged.why:
        raise ConnectionError(merged.why)
    yield Ended(merged.count, merged.why, merged.is_interrupted)


def _end(workers: list[Any]) -> None:
    """Tell workers to end, each once."""
    for worker in workers:
        if worker.is_alive() and not getattr(worker, "told", False):
            worker.told = True
            worker.terminate()


def _listen(workers: list[Any], events: Any, merged: Merged, deadline: float = float("inf")) -> Iterator[Event]:
    while merged.running and time.monotonic() < deadline:
        try:
            number, event = events.get(timeout=0.2)
        except queue.Empty:
            # one that was killed says nothing more; the others go on
            merged.gone({number for number, worker in enumerate(workers) if not worker.is_alive()})
            continue
        yield from merged.take(number, event)


def _work(goal: Goal, number: int, known: Collection[Key], events: Any) -> None:
    """Have a campaign and pass its events on; it ends at a SIGTERM of the parent's, which alone heeds the terminal."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for event in goal.campaign(Store(known=dict.fromkeys(known))):
            events.put((number, Found(bare(event.find)) if isinstance(event, Found) else event))
    except (ConnectionError, TimeoutError, Misuse) as error:
        events.put((number, Ended(Count(), str(error))))
    except KeyboardInterrupt:
        events.put((number, Ended(Count(), is_interrupted=True)))


class Merged:
    """What several workers say, as one campaign.

    Args:
        store: of the finds, each of which is kept once.
        jobs: how many workers there are.

    Attributes:
        running: numbers of those that have not ended.
        began: what the first of them met.
        why: why one of them ended early.
    """

    def __init__(self, store: Store, jobs: int) -> None:
        self.store, self.running = store, set(range(jobs))
        self.counts: dict[int, Count] = {}
        self.began: Began | None = None
        self.why, self.is_interrupted = "", False

    @property
    def count(self) -> Count:
        """The sum of all counts."""
        total = Count()
        for count in self.counts.values():
            total = total.plus(count)
        return total

    def gone(self, numbers: set[int]) -> None:
        """Take note that workers have died."""
        for number in numbers & self.running:
            self.running.discard(number)
            if not self.is_interrupted:  # one that was told to end before it had begun says nothing
                self.why = self.why or f"worker {number} died"

    def take(self, number: int, event: Event) -> Iterator[Event]:
        """Yield what a worker's event means for the whole."""
        match event:
            case Began():
                if self.began is None:
                    self.began = event
                    yield event
            case Found(find):
                known = self.store.known.get(find.key)
                if known is not None:
                    known.seen += find.seen
                if find.key not in self.store.known:
                    self.store.add(find)
                    yield event
            case Progressed(count):
                self.counts[number] = count
                yield Progressed(self.count, len(self.store.known))
            case Ended(count, why, is_interrupted):
                self.running.discard(number)
                if count.messages or number not in self.counts:
                    self.counts[number] = count
                self.why, self.is_interrupted = self.why or why, self.is_interrupted or is_interrupted
