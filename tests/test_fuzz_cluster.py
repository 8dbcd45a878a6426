"""Campaigns over a Dask cluster of several local workers, one of which is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import pytest
from dask.distributed import Client, LocalCluster

from ggml_rpc_ref.fuzz import Ended, Found, Generator, Goal, Options, Progressed, Store, campaign
from ggml_rpc_ref.fuzz.choose import Chooser
from ggml_rpc_ref.fuzz.events import PASSED_ON, Learned
from ggml_rpc_ref.fuzz.jobs import Merged
from tests.support.sabotage import SABOTAGES, InProcess

# a task whose worker dies is lost, not had again by another one; and a worker must be able to start servers
CONFIG = {"distributed.scheduler.allowed-failures": 0, "distributed.worker.daemon": False}
WORKERS = 3


class Killer(threading.Thread):
    """Kills a worker once it has a task."""

    def __init__(self, client: Any) -> None:
        super().__init__(daemon=True)
        self.client, self.pids, self.killed = client, client.run(os.getpid), 0

    def run(self) -> None:
        while not self.killed:
            for address, tasks in self.client.processing().items():
                if tasks and not self.killed:
                    self.killed = self.pids[address]
                    os.kill(self.killed, signal.SIGKILL)
            time.sleep(0.05)


class Done:
    """A task that has been had at once, in this process."""

    status = "finished"

    def __init__(self, result: campaign.Piece) -> None:
        self._result = result

    def done(self) -> bool:
        return True

    def result(self) -> campaign.Piece:
        return self._result


class Here:
    """A cluster of one worker that is this process; it notes what its tasks were told."""

    def __init__(self) -> None:
        self.told: list[Goal] = []

    def scheduler_info(self) -> dict[str, Any]:
        return {"workers": ["here"]}

    def submit(self, function: Any, goal: Goal, known: Any, **_: Any) -> Done:
        self.told.append(goal)
        return Done(function(goal, known))


def test_a_task_goes_on_from_what_the_others_have_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions that led to something new, and the outcomes that are new no more."""
    monkeypatch.setattr(campaign, "PIECE", 0.7)
    monkeypatch.setattr(campaign, "LOOK", 0.0)
    server, here = InProcess(tmp_path, SABOTAGES["graph.node-unique"]), Here()
    server.start()
    try:
        goal = Goal(endpoint=f"{server.endpoint.host}:{server.endpoint.port}", options=Options(max_time=4.0, shrink=0.0, tries=1))
        merged = Merged(Store(), 1)
        list(campaign._pieces(here, goal, merged))
    finally:
        server.stop()
    first, *others = here.told
    assert first.before == Learned()
    assert others
    for earlier, later in pairwise(here.told):
        assert later.before.states > earlier.before.states
        kept = {(s.seed, *(note.what for note in s.notes)) for s in later.before.corpus}
        assert len(kept) == len(later.before.corpus) <= PASSED_ON
    seeds = {session.seed.split("/")[1] for session in others[-1].before.corpus}
    assert seeds >= {str(number) for number in range(len(others))}  # of every task before
    chooser = Chooser(Generator(), "x", corpus=others[-1].before.corpus)
    known = {session.seed for session in others[-1].before.corpus}
    assert sum(chooser.next().seed in known for _ in range(200)) > 5


def test_a_campaign_outlives_a_worker_that_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(campaign, "PIECE", 1.0)
    server = InProcess(tmp_path / "cache", SABOTAGES["graph.node-unique"])
    server.start()
    endpoint = f"{server.endpoint.host}:{server.endpoint.port}"
    options = Options(max_time=5.0, mutations=("links.nodes",), ops=("ADD",), always_model=True, shrink=0.0, tries=1)
    goal, store = Goal(endpoint=endpoint, options=options), Store(tmp_path / "finds")
    finds: list[Found] = []
    counts: list[int] = []
    try:
        with (
            dask.config.set(CONFIG),
            LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as local,
            Client(local) as client,
        ):
            killer = Killer(client)
            killer.start()  # at once: on a slow machine the first pieces may be the last ones
            for event in campaign.run_on(local.scheduler_address, goal, store):
                if isinstance(event, Found):
                    finds.append(event)
                if isinstance(event, Progressed):
                    counts.append(event.count.messages)
            client.wait_for_workers(WORKERS)
            assert killer.killed
            assert killer.killed not in client.run(os.getpid).values()
    finally:
        server.stop()
    assert isinstance(event, Ended)
    assert (event.why, event.is_interrupted) == ("", False)
    assert len(killer.pids) == WORKERS
    (lost,) = [record.getMessage() for record in caplog.records if record.name == campaign.__name__]
    assert lost.startswith("a piece of the campaign is lost, and the others go on: ")
    assert event.count.messages == counts[-1] > counts[0] > 0
    # every piece finds it, it is kept once
    assert [found.find.rule for found in finds] == ["graph.node-unique"]
    assert len(list((tmp_path / "finds").glob("*.json"))) == 1
