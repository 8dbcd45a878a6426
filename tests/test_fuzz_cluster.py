"""Campaigns over a Dask cluster of several local workers, one of which is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import dask
import pytest
from dask.distributed import Client, LocalCluster

from ggml_rpc_ref.fuzz import Began, Ended, Found, Goal, Options, Progressed, Store, campaign
from tests.support.sabotage import SABOTAGES, InProcess

# a task whose worker dies is lost, not had again by another one; and a worker must be able to start servers
CONFIG = {"distributed.scheduler.allowed-failures": 0, "distributed.worker.daemon": False}
WORKERS = 3


def test_a_campaign_outlives_a_worker_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "PIECE", 1.0)
    server = InProcess(tmp_path / "cache", SABOTAGES["graph.node-unique"])
    server.start()
    endpoint = f"{server.endpoint.host}:{server.endpoint.port}"
    options = Options(max_time=4.0, mutations=("links.nodes",), ops=("ADD",), always_model=True, shrink=0.0, tries=1)
    goal, store = Goal(endpoint=endpoint, options=options), Store(tmp_path / "finds")
    before = after = 0
    victim: int | None = None
    finds: list[Found] = []
    try:
        with (
            dask.config.set(CONFIG),
            LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as local,
            Client(local) as client,
        ):
            pids = set(client.run(os.getpid).values())
            for event in campaign.run_on(local.scheduler_address, goal, store):
                match event:
                    case Began():
                        # all three have a piece at a time; what this one has is lost
                        victim = pids.copy().pop()
                        os.kill(victim, signal.SIGKILL)
                    case Found():
                        finds.append(event)
                    case Progressed(count):
                        before, after = before or count.messages, count.messages
            client.wait_for_workers(WORKERS)
            assert victim not in client.run(os.getpid).values()
    finally:
        server.stop()
    assert isinstance(event, Ended)
    assert (event.why, event.is_interrupted) == ("", False)
    assert len(pids) == WORKERS
    assert after == event.count.messages > before > 0
    # every piece finds it, it is kept once
    assert [found.find.rule for found in finds] == ["graph.node-unique"]
    assert len(list((tmp_path / "finds").glob("*.json"))) == 1
