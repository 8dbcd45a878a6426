"""Several cases at a time: on servers of their own where we start them, else on the one server as long as none may die of it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

from ggml_rpc_ref.conformance.case import Case
from ggml_rpc_ref.conformance.events import CaseBegan, CaseEnded, Result

Judge = Callable[[Case], Result]
"""Judges one case; each thread has one of its own."""


def spread_over_one(cases: Sequence[Case], judge: Judge) -> Iterator[CaseBegan | CaseEnded]:
    """Judge one case after another in this thread, which an interrupt may end in the middle of a case."""
    for case in cases:
        yield CaseBegan(case)
        yield CaseEnded(judge(case))


def spread(cases: Sequence[Case], judges: Sequence[Judge]) -> Iterator[CaseBegan | CaseEnded]:
    """Judge cases by as many threads as there are judges, and yield what happens as it happens.

    Closing the iterator, or an interrupt, lets each thread end the case that it is at, and waits for that.
    """
    waiting, events, is_over = deque(cases), SimpleQueue[CaseBegan | CaseEnded | BaseException | None](), threading.Event()

    def work(judge: Judge) -> None:
        try:
            while waiting and not is_over.is_set():
                case = waiting.popleft()
                events.put(CaseBegan(case))
                events.put(CaseEnded(judge(case)))
        except IndexError:
            events.put(None)  # another thread took the last one
        except BaseException as error:
            events.put(error)  # for the thread that waits for all of them
        else:
            events.put(None)

    threads = [threading.Thread(target=work, args=(judge,), name=f"judge {number}") for number, judge in enumerate(judges)]
    for thread in threads:
        thread.start()
    try:
        running = len(threads)
        while running:
            event = events.get()
            if isinstance(event, BaseException):
                raise event
            if event is None:
                running -= 1
            else:
                yield event
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
