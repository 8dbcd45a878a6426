"""Campaigns over a Dask cluster of several local workers, one of which is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import dask
import pytest
from dask.distributed import Client, LocalCluster

from ggml_rpc_ref.fuzz import Ended, Found, Goal, Options, Progressed, Store, campaign
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
            for event in campaign.run_on(local.scheduler_address, goal, store):
                if isinstance(event, Found):
                    finds.append(event)
                if isinstance(event, Progressed):
                    counts.append(event.count.messages)
                    if len(counts) == 1:
                        killer.start()
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
