"""Judge the servers of a fleet at the same time: each in a process of its own on this machine, or as tasks of a cluster."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from ggml_rpc_ref.cluster import cluster
from ggml_rpc_ref.conformance.fleet import Member, judge_member, row_of
from ggml_rpc_ref.conformance.report import Outcome

PATIENCE = 20.0
"""Seconds that a judge may take to end after it was told to: it ends its case and stops its server."""
LOOK = 0.5
"""Seconds between two looks at a cluster's tasks."""


class Heard(NamedTuple):
    """A line about a server: a failure, as it is found."""

    member: Member
    line: str


class Judged(NamedTuple):
    """A server's row of the report."""

    member: Member
    row: dict[str, Any]


def judge_here(members: Sequence[Member], at_once: int) -> Generator[Heard | Judged, None, None]:
    """Judge servers in processes of this machine, and yield what comes of it.

    An interrupt (KeyboardInterrupt) is passed on to the judges, whose rows then hold what was judged before; those servers that
    were not begun have no row.

    Args:
        members: the servers.
        at_once: how many are judged at a time.
    """
    waiting, running = deque(members), dict[Connection, _Judge]()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                judge = _Judge(waiting.popleft())
                running[judge.end] = judge
            yield from _hear(running, None)
    except KeyboardInterrupt:
        for judge in running.values():
            judge.interrupt()
        deadline = time.monotonic() + PATIENCE
        while running and time.monotonic() < deadline:
            yield from _hear(running, deadline)
        for judge in running.values():
            yield Judged(judge.member, row_of(judge.member, Outcome.INTERRUPTED, "its judge did not end"))
    finally:
        for judge in running.values():
            judge.kill()


class _Judge:
    """A process that judges one server."""

    def __init__(self, member: Member) -> None:
        context = multiprocessing.get_context("spawn")
        self.member, self._interrupted = member, False
        self.end, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_judge, args=(member, theirs))
        self._process.start()
        theirs.close()

    def interrupt(self) -> None:
        """Tell it to end."""
        self._interrupted = True
        if self._process.is_alive():
            self._process.terminate()

    def kill(self) -> None:
        """End it now."""
        self._process.kill()
        self.join()

    def join(self) -> None:
        """Wait for its end."""
        self._process.join()
        self.end.close()

    def lost(self) -> dict[str, Any]:
        """Return the row of a server whose judge has died."""
        self._process.join(PATIENCE)
        if self._interrupted:  # before it could heed that
            return row_of(self.member, Outcome.INTERRUPTED, "interrupted")
        why = f"the process that judged it ended with {self._process.exitcode}"
        return row_of(self.member, Outcome.TOOL_FAILED, why)


def _hear(running: dict[Connection, _Judge], deadline: float | None) -> Iterator[Heard | Judged]:
    for end in wait(list(running), None if deadline is None else max(0.0, deadline - time.monotonic())):
        assert isinstance(end, Connection)
        judge = running[end]
        try:
            said = end.recv()
        except EOFError:
            said = judge.lost()
        if isinstance(said, str):
            yield Heard(judge.member, said)
            continue
        del running[end]
        judge.join()
        yield Judged(judge.member, said)


def _judge(member: Member, out: Connection) -> None:
    """Judge a server and pass on what comes; a SIGTERM of the parent's ends the run, and the parent alone heeds the terminal."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # servers that we play refuse what a client does wrong, which is what is looked for
    logging.getLogger("ggml_rpc_ref.server").setLevel(logging.CRITICAL)
    out.send(judge_member(member, out.send))


def judge_on(address: str, members: Sequence[Member], workers: int) -> Generator[Heard | Judged, None, None]:
    """Judge servers on a Dask cluster, and yield what comes of it; an endpoint is one that the workers reach.

    Args:
        address: of a scheduler, "tcp://HOST:PORT"; "local": a cluster of `workers` processes on this machine.
        members: the servers.
        workers: processes of a local cluster.

    Raises:
        Misuse: where Dask is not installed, or there is no such cluster.
    """
    with cluster(address, workers) as client:
        running = {client.submit(judge_member, member, pure=False, retries=0): member for member in members}
        try:
            while running:
                for future in [future for future in running if future.done()]:
                    member = running.pop(future)
                    if future.status == "finished":
                        yield Judged(member, future.result())
                    else:  # its worker died
                        yield Judged(
                            member, row_of(member, Outcome.TOOL_FAILED, f"the task that judged it failed: {future.exception()}")
                        )
                time.sleep(LOOK if running else 0)
        except KeyboardInterrupt:
            client.cancel(list(running))
            for member in running.values():
                yield Judged(member, row_of(member, Outcome.INTERRUPTED, "interrupted"))
