"""Servers that go: at every step of a run, killed, frozen. Each time the error names the server and what was lost, nothing half
computed is read as whole, nothing hangs, and without the server the same bits come out."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

import ggml_rpc_ref
from ggml_rpc_ref.client.scheduler.graph import ScheduledGraph
from ggml_rpc_ref.client.tensors import RemoteTensor
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.net.stream import Stream
from tests.support.seeds import seeded

WIDTH, LAYERS = 16, 3
PATIENCE = 2.0
"""Seconds that one answer of a server may take here."""


def here() -> Any:
    return ggml_rpc_ref.local("oracle", memory=2**24)


def weights() -> dict[str, Any]:
    random = np.random.default_rng(seeded(4))
    return {f"blk.{i}.w": random.standard_normal((WIDTH, WIDTH), np.float32) / 4 for i in range(LAYERS)}


class Network:
    """Layers whose results are also added to a state beside each of them, so that servers hold something no file has."""

    def __init__(self, scheduler: ggml_rpc_ref.Scheduler, endpoints: list[str]) -> None:
        self.scheduler = scheduler
        self.weights = scheduler.weights(weights(), [1] * len(endpoints))
        self.build()

    def build(self) -> None:
        self.graph: ScheduledGraph = self.scheduler.graph()
        self.x = self.graph.input("F32", (WIDTH, 2), "x")
        rows = self.graph.input("I64", (2,), "rows")
        rows.write(np.array([1, 0], np.int64))
        y: RemoteTensor = self.x
        for name, weight in self.weights.items():
            y = self.graph.mul_mat(weight, y)
            state = self.scheduler.state("F32", (WIDTH, 2), f"state of {name}", on=weight)
            y = self.graph.add(y, self.graph.set_rows(y, rows, state))
        self.y = y
        self.x.write(np.ones((2, WIDTH), np.float32))

    def run(self) -> Any:
        self.graph.compute()
        return self.y.numpy()


@cache
def alone() -> Any:
    with ggml_rpc_ref.Scheduler([here()]) as scheduler:
        return Network(scheduler, ["here"]).run()


@contextlib.contextmanager
def after(count: int, action: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Do something before the request of that number is sent; counts all of them."""
    sent, lock, real = [0], threading.Lock(), Stream.send

    def counted(stream: Stream, *parts: Any) -> None:
        with lock:
            sent[0] += 1
            now = sent[0] == count
        if now:
            action()
        real(stream, *parts)

    with monkeypatch.context() as patch:
        patch.setattr(Stream, "send", counted)
        yield sent


def whole_run(
    endpoints: list[str], victim: int, step: int, stop: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, bool]:
    """Set up a network, compute twice, read, and let a server go before a request; go on without it.

    Returns:
        how many requests were sent until then, and whether the loss was noticed before.
    """
    wanted = alone()
    backends = [*map(ggml_rpc_ref.rpc_init, endpoints), here()]
    with ggml_rpc_ref.Scheduler(backends, timeout=PATIENCE) as scheduler:
        noticed = False
        with after(step, stop, monkeypatch) as sent:
            made: list[Network] = []
            try:
                made.append(Network(scheduler, endpoints))
                for _ in range(2):
                    np.testing.assert_array_equal(made[0].run(), wanted)
            except ggml_rpc_ref.ServerLost as error:
                noticed = True
                require_named(error, endpoints[victim])
                if made:
                    with pytest.raises((Misuse, ConnectionError)):
                        made[0].y.numpy()  # not the half that was computed
        done = sent[0]
        scheduler.without(endpoints[victim])
        network = made[0] if made else Network(scheduler, endpoints[:victim] + endpoints[victim + 1 :])
        np.testing.assert_array_equal(network.run(), wanted)
        assert not [split for split in scheduler.explain(network.graph).splits if endpoints[victim] in split.backend]
    return done, noticed


def require_named(lost: ggml_rpc_ref.ServerLost, endpoint: str) -> None:
    assert lost.endpoint == endpoint
    assert f"{endpoint} is gone: " in str(lost)
    assert f"scheduler.without('{endpoint}')" in str(lost)


def test_a_server_that_goes_at_any_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request of a run with two servers, and each of the two: its connection ends, and no other is accepted."""
    for victim in (0, 1):
        noticed: list[bool] = []
        while True:
            with ggml_rpc_ref.Server(memory=2**22) as one, ggml_rpc_ref.Server(memory=2**22) as two:
                end = (one, two)[victim].shutdown
                done, lost = whole_run([one.endpoint, two.endpoint], victim, len(noticed) + 1, end, monkeypatch)
            if done <= len(noticed):
                break
            noticed.append(lost)
        assert len(noticed) > 40
        # what it is not asked for any more, at the end, can't show that it is gone
        assert noticed == sorted(noticed, reverse=True)
        assert sum(noticed) > 35


SERVER = """
import sys
import ggml_rpc_ref
with ggml_rpc_ref.Server("oracle", memory=2**22) as server:
    print(server.endpoint, flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        try:
            yield started, started.stdout.readline().strip()
        finally:
            started.kill()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_is_killed_or_frozen(how: signal.Signals) -> None:
    wanted = alone()
    with process() as (victim, gone), ggml_rpc_ref.Server(memory=2**22) as other:
        backends = [ggml_rpc_ref.rpc_init(gone), ggml_rpc_ref.rpc_init(other.endpoint), here()]
        with ggml_rpc_ref.Scheduler(backends, timeout=PATIENCE) as scheduler:
            network = Network(scheduler, [gone, other.endpoint])
            np.testing.assert_array_equal(network.run(), wanted)
            victim.send_signal(how)
            if how == signal.SIGKILL:
                victim.wait(30)
            else:  # until it has really stopped
                os.waitid(os.P_PID, victim.pid, os.WSTOPPED | os.WNOWAIT)
            begun = time.monotonic()
            with pytest.raises(ggml_rpc_ref.ServerLost) as lost:
                network.run()
            assert time.monotonic() - begun < 20 * PATIENCE  # it ends by itself
            said = str(lost.value)
            assert f"{gone} is gone" in said
            assert "blk.0.w" in said
            assert "states begin as zeros again" in said
            held = sum(4 * WIDTH * WIDTH for name in lost.value.tensors if name.startswith("blk")) + sum(
                4 * WIDTH * 2 for name in lost.value.tensors if name.startswith("state")
            )
            assert lost.value.size == held > 0
            np.testing.assert_array_equal(scheduler.without(gone) and network.run(), wanted)
            if how == signal.SIGSTOP:
                victim.send_signal(signal.SIGCONT)
                scheduler.add(ggml_rpc_ref.rpc_init(gone))
                np.testing.assert_array_equal(network.run(), wanted)
                assert [backend.name for backend in scheduler.backends][1] == f"RPC0[{gone}]"


def test_a_server_that_goes_while_others_compute() -> None:
    """Independent splits in threads: the error is that server's, and every thread comes back."""
    with ggml_rpc_ref.Server(memory=2**22) as one, ggml_rpc_ref.Server(memory=2**22) as two:
        three = ggml_rpc_ref.Server(memory=2**22)
        with three:
            a, b, c = (ggml_rpc_ref.rpc_init(server.endpoint) for server in (one, two, three))
            scheduler = ggml_rpc_ref.Scheduler([a, b, c, here()], timeout=PATIENCE)
            given = {name: np.eye(8, dtype=np.float32) for name in "abc"}
            placed = scheduler.weights(given, lambda name: {"a": a, "b": b, "c": c}[name])
            graph = scheduler.graph()
            x = graph.input("F32", (8, 2), "x")
            left, right = graph.mul_mat(placed["a"], x), graph.mul_mat(placed["b"], x)
            both = graph.add(graph.mul_mat(placed["c"], left), right)
            x.write(np.ones((2, 8), np.float32))
            graph.compute()
            assert scheduler.explain(graph).parallel
        with scheduler:
            with pytest.raises(ggml_rpc_ref.ServerLost, match=c.endpoint):
                computed(graph, both)
            scheduler.without(c)
            graph.compute()
            np.testing.assert_array_equal(both.numpy(), np.full((2, 8), 2))


def test_an_older_result_is_not_read_for_the_one_that_failed() -> None:
    """Both graphs' results lie on servers that answer; only what is computed between them is lost."""
    with ggml_rpc_ref.Server(memory=2**22) as one:
        two = ggml_rpc_ref.Server(memory=2**22)
        with two:
            a, b = ggml_rpc_ref.rpc_init(one.endpoint), ggml_rpc_ref.rpc_init(two.endpoint)
            scheduler = ggml_rpc_ref.Scheduler([a, b, here()], timeout=PATIENCE)
            placed = scheduler.weights(
                {"a": np.eye(8, dtype=np.float32), "b": np.eye(8, dtype=np.float32)}, lambda name: a if name == "a" else b
            )
            graph = scheduler.graph()
            x = graph.input("F32", (8, 2), "x")
            first = graph.output(graph.mul_mat(placed["a"], x, name="first"))
            last = graph.mul_mat(placed["a"], graph.mul_mat(placed["b"], first), name="last")
            x.write(np.ones((2, 8), np.float32))
            np.testing.assert_array_equal(computed(graph, last), np.ones((2, 8)))
        with scheduler:
            x.write(np.zeros((2, 8), np.float32))
            with pytest.raises(ggml_rpc_ref.ServerLost):
                graph.compute()
            for node in (first, last):
                with pytest.raises(Misuse, match="compute its graph first"):
                    node.numpy()


def test_a_server_that_took_the_place_of_another_gets_none_of_its_messages() -> None:
    """A backend connects anew by itself; handles of buffers on the connection that ended may mean others there."""
    with ggml_rpc_ref.Server(memory=2**22) as first:
        backend, port = ggml_rpc_ref.rpc_init(first.endpoint), int(first.endpoint.rpartition(":")[2])
        scheduler = ggml_rpc_ref.Scheduler([backend, here()], timeout=PATIENCE)
        weight = scheduler.weights({"w": np.eye(8, dtype=np.float32)}, [1])["w"]
        graph = scheduler.graph()
        y = graph.mul_mat(weight, weight)  # without anything to send first, which would be refused by itself
        graph.compute()
    with ggml_rpc_ref.Server(memory=2**22, port=port), scheduler:
        with pytest.raises(ggml_rpc_ref.ServerLost):
            y.numpy()
        others = [backend.tensor(np.full((8, 8), 7, np.float32)) for _ in range(4)]  # on a connection to the new server
        with pytest.raises(ggml_rpc_ref.ServerLost, match=r"the connection to .* is over"):
            graph.compute()
        for other in others:
            np.testing.assert_array_equal(other.numpy(), np.full((8, 8), 7))
        scheduler.without(backend).add(backend)
        np.testing.assert_array_equal(computed(graph, y), np.eye(8))


def test_what_had_arrived_on_a_server_that_goes_during_an_upload_is_named() -> None:
    """And only that: neither what was still to be sent there, nor what is on others."""
    with ggml_rpc_ref.Server(memory=2**24) as one, ggml_rpc_ref.Server(memory=2**24) as two:
        a, b = ggml_rpc_ref.rpc_init(one.endpoint), ggml_rpc_ref.rpc_init(two.endpoint)
        with ggml_rpc_ref.Scheduler([a, b, here()], timeout=PATIENCE) as scheduler:
            other = scheduler.weights({"other": np.ones((4, 4), np.float32)}, lambda name: a)["other"]
            arrived: list[str] = []

            def count(device: Any, name: str, size: int) -> None:
                arrived.append(name)
                if len(arrived) == 2:
                    two.shutdown()

            # in one piece none of them fits in what a socket holds for a peer that has gone
            given = {f"blk.{i}.w": np.ones((512, 512), np.float32) for i in range(4)}
            with pytest.raises(ggml_rpc_ref.ServerLost, match=rf"{b.endpoint} is gone.*lost are 2 tensors") as lost:
                scheduler.weights(given, lambda name: b, progress=count)
            assert (lost.value.tensors, lost.value.size) == (("blk.0.w", "blk.1.w"), 2 * 512 * 512 * 4)
            scheduler.without(b)  # nobody has a handle of them, so they are not uploaded again
            assert a.memory().free == a.memory().total - other.nbytes
            np.testing.assert_array_equal(other.numpy(), np.ones((4, 4)))


@pytest.mark.parametrize("what", ["write", "split by memory", "explain", "a state", "add"])
def test_whatever_is_asked_next_names_the_server(what: str) -> None:
    with ggml_rpc_ref.Server(memory=2**22) as one, ggml_rpc_ref.Server(memory=2**22) as two, ggml_rpc_ref.Server() as three:
        a, b, c = (ggml_rpc_ref.rpc_init(server.endpoint) for server in (one, two, three))
        with ggml_rpc_ref.Scheduler([a, b, here()], timeout=PATIENCE) as scheduler:
            weight = scheduler.weights({"w": np.eye(8, dtype=np.float32)}, lambda name: a)["w"]
            graph = scheduler.graph()
            graph.mul_mat(weight, weight)
            asked: dict[str, Callable[[], Any]] = {
                "write": lambda: list(map(weight.write, [np.zeros((8, 8), np.float32)] * 3)),
                "split by memory": lambda: scheduler.weights({"blk.0.v": np.ones((2, 2), np.float32)}),
                "explain": lambda: scheduler.explain(graph),
                "a state": lambda: scheduler.state("F32", (8, 8), on=a),
                "add": lambda: scheduler.add(c).compute(graph),
            }
            one.shutdown()
            if what in ("explain", "add"):  # of a plan and of a new backend nothing is sent: it has to be known already
                with pytest.raises(ggml_rpc_ref.ServerLost):
                    weight.numpy()
            with pytest.raises(ggml_rpc_ref.ServerLost) as lost:
                asked[what]()
            assert (lost.value.endpoint, lost.value.tensors) == (a.endpoint, ("w",))
            scheduler.without(a)
            np.testing.assert_array_equal(weight.numpy(), np.eye(8))


def test_two_servers_that_go_are_taken_out_one_after_the_other() -> None:
    """The second is found to be gone while the first is taken out: the scheduler is as it was, and then goes on without both."""
    with ggml_rpc_ref.Server(memory=2**22) as one, ggml_rpc_ref.Server(memory=2**22) as two:
        a, b = ggml_rpc_ref.rpc_init(one.endpoint), ggml_rpc_ref.rpc_init(two.endpoint)
        with ggml_rpc_ref.Scheduler([a, b, here()], timeout=PATIENCE) as scheduler:
            network = Network(scheduler, [a.endpoint, b.endpoint])
            network.run()
            one.shutdown()
            two.shutdown()
            with pytest.raises(ggml_rpc_ref.ServerLost, match=f"{a.endpoint} is gone"):
                network.run()
            with pytest.raises(ggml_rpc_ref.ServerLost, match=f"{b.endpoint} is gone"):
                scheduler.without(a)
            assert scheduler.backends[:2] == [a, b]
            scheduler.without(b).without(a)
            np.testing.assert_array_equal(network.run(), alone())


def test_who_gets_what_a_lost_server_had_can_be_said() -> None:
    """By the free memory of the others unless something else is wanted: here this machine, as the other has no room."""
    with ggml_rpc_ref.Server(memory=2**22) as one, ggml_rpc_ref.Server(memory=2**12) as two:
        a, b, local = ggml_rpc_ref.rpc_init(one.endpoint), ggml_rpc_ref.rpc_init(two.endpoint), here()
        with ggml_rpc_ref.Scheduler([a, b, local]) as scheduler:
            weight = scheduler.weights({"w": np.ones((64, 64), np.float32)}, lambda name: a)["w"]
            with pytest.raises(Misuse, match=r"w has 16384 bytes, and RPC0.* has no buffers over 4096"):
                scheduler.without(a)
            scheduler.without(a, lambda name: local)
            np.testing.assert_array_equal(weight.numpy(), np.ones((64, 64)))
            assert b.memory().free == b.memory().total


def computed(graph: ScheduledGraph, node: RemoteTensor) -> Any:
    graph.compute()
    return node.numpy()


def test_a_backend_of_another_scheduler_is_not_taken_out() -> None:
    with (
        ggml_rpc_ref.Server(memory=2**22) as one,
        ggml_rpc_ref.Scheduler([ggml_rpc_ref.rpc_init(one.endpoint), here()]) as scheduler,
    ):
        with pytest.raises(Misuse, match=r"127.0.0.1:1 is not a server of this scheduler"):
            scheduler.without("127.0.0.1:1")
        with pytest.raises(Misuse, match="is listed twice"):
            scheduler.add(ggml_rpc_ref.rpc_init(one.endpoint))


def test_what_does_not_fit_elsewhere_is_said_and_nothing_changes() -> None:
    with ggml_rpc_ref.Server(memory=2**22) as one, ggml_rpc_ref.Server(memory=2**14) as two:
        a, b = ggml_rpc_ref.rpc_init(one.endpoint), ggml_rpc_ref.rpc_init(two.endpoint)
        with ggml_rpc_ref.Scheduler([a, b, here()]) as scheduler:
            given = {f"blk.{i}.w": np.ones((64, 48), np.float32) for i in range(2)}
            large = scheduler.weights(given, lambda name: a)["blk.1.w"]
            with pytest.raises(Misuse, match=r"free and needs 24576, 8192 too many: blk.1.w do not fit"):
                scheduler.without(a)
            assert len(scheduler.backends) == 3
            np.testing.assert_array_equal(large.numpy(), np.ones((64, 48), np.float32))
