"""The scheduler: the same graph over 1, 2, 3 and 16 servers gives the same bits."""

from __future__ import annotations

import contextlib
import gc
import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import ggml_rpc_ref
from ggml_rpc_ref.client.devices import Device
from ggml_rpc_ref.client.scheduler import scheduler as scheduler_module
from ggml_rpc_ref.client.scheduler.graph import ScheduledGraph
from ggml_rpc_ref.client.scheduler.layout import Need, lay_out
from ggml_rpc_ref.client.scheduler.leaves import Placed
from ggml_rpc_ref.client.scheduler.splitting import by_split
from ggml_rpc_ref.client.tensors import RemoteTensor
from ggml_rpc_ref.errors import Misuse
from tests.support.seeds import seeded

LAYERS, WIDTH, ROWS = 6, 32, 3


@contextlib.contextmanager
def servers(count: int, devices: str = "oracle", **options: Any) -> Iterator[list[Device]]:
    """Servers in this process, each with one backend unless `devices` names several."""
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(ggml_rpc_ref.Server(devices, memory=2**26, **options)) for _ in range(count)]
        yield [ggml_rpc_ref.rpc_init(server.endpoint, index) for server in started for index in range(len(server.host.devices))]


def here() -> Device:
    return ggml_rpc_ref.local("oracle", memory=2**26)


def arrays() -> dict[str, Any]:
    """Weights of a small network, and what is put into it."""
    random = np.random.default_rng(seeded(15))
    made = {f"blk.{i}.w": random.standard_normal((WIDTH, WIDTH), np.float32) / 6 for i in range(LAYERS)}
    made |= {f"blk.{i}.scale": random.standard_normal((1, WIDTH), np.float32) for i in range(LAYERS)}
    return made


def network(scheduler: ggml_rpc_ref.Scheduler, split: Any) -> tuple[ScheduledGraph, RemoteTensor, RemoteTensor]:
    """Six layers with a residual connection, views, an in-place-free cache of rows, and an input that all layers read."""
    weights = scheduler.weights(arrays(), split)
    graph = scheduler.graph()
    x = graph.input("F32", (WIDTH, ROWS), "x")
    shared = graph.input("F32", (WIDTH, 1), "shared")
    hidden: RemoteTensor = x
    for layer in range(LAYERS):
        normed = graph.mul(graph.rms_norm(hidden, eps=1e-6), weights[f"blk.{layer}.scale"], name=f"normed-{layer}")
        made = graph.mul_mat(weights[f"blk.{layer}.w"], normed, name=f"made-{layer}")
        halves = graph.reshape(made, WIDTH // 2, 2, ROWS)
        turned = graph.cont(graph.permute(halves, 1, 0, 2, 3))
        hidden = graph.add(graph.add(hidden, graph.reshape(turned, WIDTH, ROWS)), shared, name=f"hidden-{layer}")
    shared.write(np.linspace(-1, 1, WIDTH, dtype=np.float32).reshape(1, WIDTH))
    return graph, x, hidden


def values(seed: int) -> Any:
    return np.random.default_rng(seeded(seed)).standard_normal((ROWS, WIDTH), np.float32)


def by_numpy(x: Any) -> Any:
    """The network in float64, by the formulas."""
    given, hidden = arrays(), x.astype(np.float64)
    for layer in range(LAYERS):
        normed = hidden / np.sqrt((hidden**2).mean(1, keepdims=True) + 1e-6) * given[f"blk.{layer}.scale"]
        made = (normed @ given[f"blk.{layer}.w"].T.astype(np.float64)).reshape(ROWS, 2, WIDTH // 2)
        hidden = hidden + made.transpose(0, 2, 1).reshape(ROWS, WIDTH) + np.linspace(-1, 1, WIDTH)
    return hidden


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_the_same_bits_on_any_number_of_servers(count: int) -> None:
    with ggml_rpc_ref.Scheduler([here()]) as alone:
        graph, x, hidden = network(alone, [1])
        x.write(values(1))
        graph.compute()
        wanted = hidden.numpy()
    np.testing.assert_allclose(wanted, by_numpy(values(1)), rtol=2e-4)
    with servers(count) as backends, ggml_rpc_ref.Scheduler([*backends, here()]) as scheduler:
        graph, x, hidden = network(scheduler, [1] * count)
        for seed in (2, 1):  # the second time from the plan that is kept
            x.write(values(seed))
            graph.compute()
        np.testing.assert_array_equal(hidden.numpy(), wanted)
        used = {split.backend for split in scheduler.explain(graph).splits}
        assert len(used) == min(count, LAYERS)


def forbidden(*_: Any, **__: Any) -> None:
    raise AssertionError("this was not to be called")


def test_two_devices_of_one_server_copy_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """COPY_TENSOR: nothing of the graph passes through this machine but its inputs."""
    with servers(1, "oracle,oracle") as backends, ggml_rpc_ref.Scheduler([*backends, here()]) as scheduler:
        graph, x, hidden = network(scheduler, [1, 1])
        x.write(values(1))
        with monkeypatch.context() as patch:
            patch.setattr(Device, "read", forbidden)
            graph.compute()
        np.testing.assert_allclose(hidden.numpy(), by_numpy(values(1)), rtol=2e-4)
        copies = [row for split in scheduler.explain(graph).splits for row in split.inputs if row.source != "the caller's array"]
        assert [(row.name, row.how) for row in copies] == [(name, "within the server, from") for name in ("rms_norm", "hidden-3")]


def test_a_graph_that_is_computed_again_is_not_planned_or_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is memory asked for: only inputs, and what passes from one server to the other, is sent."""
    with servers(2) as (a, b), ggml_rpc_ref.Scheduler([a, b, here()]) as scheduler:
        graph, x, hidden = network(scheduler, [1, 1])
        x.write(values(2))
        graph.compute()
        sent = [backend.client._stream.sent for backend in (a, b)]
        monkeypatch.setattr(scheduler_module, "make_plan", forbidden)
        monkeypatch.setattr(Device, "alloc", forbidden)
        x.write(values(1))
        graph.compute()
        np.testing.assert_allclose(hidden.numpy(), by_numpy(values(1)), rtol=2e-4)
        # each gets two tensors, at most 384 bytes, after a record of 296 and 17 more; a graph has that record for each node
        for before, backend in zip(sent, (a, b), strict=True):
            assert backend.client._stream.sent - before < 4 * 296 + 2 * 4 * WIDTH * ROWS + 1024


def test_an_input_is_copied_once_to_each_backend() -> None:
    with servers(2) as (a, b), ggml_rpc_ref.Scheduler([a, b, here()]) as scheduler:
        graph, x, _ = network(scheduler, lambda name: (a, b)[int(name[4]) % 2])  # six splits, by turns
        x.write(values(1))
        explained = scheduler.explain(graph)
        assert len(explained.splits) == LAYERS
        assert [row.name for split in explained.splits for row in split.inputs].count("shared") == 2
        # a layer's first node has no weights and stays with the layer before, so the next one takes its result and the residual
        assert explained.copied == 2 * 4 * WIDTH + 4 * WIDTH * ROWS * (1 + 2 * (LAYERS - 1))


def test_what_a_version_lacks_is_computed_elsewhere() -> None:
    """The split of SWIGLU_CLAMP, which came after 3.6.1: the server of 3.6.1 does what is before and after it."""
    with (
        servers(1, proto="3.6.1") as (old,),
        servers(1, proto="8.0.0") as (new,),
        ggml_rpc_ref.Scheduler([old, new, here()]) as scheduler,
    ):
        weight = scheduler.weights({"w": np.eye(8, dtype=np.float32)}, lambda name: old)["w"]
        graph = scheduler.graph()
        x = graph.input("F32", (8, 2), "x")
        first = graph.mul_mat(weight, x, name="first")
        glu = graph.op("GLU", [first, first], params={"kind": "SWIGLU_CLAMP", "limit": 1.0}, name="clamped")
        last = graph.mul_mat(weight, glu, name="last")
        x.write(np.arange(16, dtype=np.float32).reshape(2, 8))
        where = [(split.backend, [node.name for node in split.nodes]) for split in scheduler.explain(graph).splits]
        assert where == [(old.name, ["first"]), (new.name, ["clamped"]), (old.name, ["last"])]
        graph.compute()
        assert last.numpy().shape == (2, 8)


def test_independent_splits_run_at_the_same_time() -> None:
    with servers(3) as (a, b, c), ggml_rpc_ref.Scheduler([a, b, c, here()]) as scheduler:
        given = {name: np.full((8, 8), number, np.float32) for number, name in enumerate("abc", 1)}
        weights = scheduler.weights(given, lambda name: {"a": a, "b": b, "c": c}[name])
        graph = scheduler.graph()
        x = graph.input("F32", (8, 2), "x")
        left, right = graph.mul_mat(weights["a"], x), graph.mul_mat(weights["b"], x)
        both = graph.add(graph.mul_mat(weights["c"], left), right)
        x.write(np.ones((2, 8), np.float32))
        explained = scheduler.explain(graph)
        assert [split.backend for split in explained.splits] == [a.name, b.name, c.name]
        assert explained.parallel
        for _ in range(3):
            graph.compute()
            np.testing.assert_array_equal(both.numpy(), np.full((2, 8), 3 * 8 * 8 + 16, np.float32))
        chain, y, _ = network(scheduler, [1, 1, 1])
        y.write(values(1))
        assert not scheduler.explain(chain).parallel


def meeting(of: str, devices: list[Device], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the first call of a method on each of these devices wait until it has been called on all of them."""
    barrier, real, came = threading.Barrier(len(devices)), getattr(Device, of), set[int]()

    def met(self: Device, *arguments: Any) -> Any:
        if self in devices and id(self) not in came:
            came.add(id(self))
            barrier.wait(60)
        return real(self, *arguments)

    monkeypatch.setattr(Device, of, met)


def test_two_servers_compute_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither gets an answer before the other has been asked; a third one needs what both have computed."""
    with servers(3) as (a, b, c), ggml_rpc_ref.Scheduler([a, b, c, here()]) as scheduler:
        places = dict(zip("abc", (a, b, c), strict=True))
        weights = scheduler.weights(dict.fromkeys(places, np.eye(8, dtype=np.float32)), lambda name: places[name])
        graph = scheduler.graph()
        x = graph.input("F32", (8, 2), "x")
        left, right = graph.mul_mat(weights["a"], x), graph.mul_mat(weights["b"], x)
        both = graph.add(graph.mul_mat(weights["c"], left), right)
        x.write(np.ones((2, 8), np.float32))
        meeting("compute", [a, b], monkeypatch)
        graph.compute()
        np.testing.assert_array_equal(both.numpy(), np.full((2, 8), 2, np.float32))


def test_two_servers_get_weights_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with servers(2) as (a, b), ggml_rpc_ref.Scheduler([a, b, here()]) as scheduler:
        meeting("write", [a, b], monkeypatch)
        weights = scheduler.weights({n: np.eye(8, dtype=np.float32) for n in "ab"}, lambda name: a if name == "a" else b)
        np.testing.assert_array_equal(weights["b"].numpy(), np.eye(8))


def test_a_state_stays_on_its_server_from_graph_to_graph() -> None:
    """A cache of rows, written by one graph and read by the next, as a KV cache is."""
    with servers(2) as (a, b), ggml_rpc_ref.Scheduler([a, b, here()]) as scheduler:
        cache = scheduler.state("F32", (4, 6), "cache", on=b)
        graph = scheduler.graph()
        rows, at = graph.input("F32", (4, 1), "rows"), graph.input("I64", (1,), "at")
        written = graph.set_rows(rows, at, cache)
        seen = graph.cont(graph.view(written, 4, 3, nb=(4, 16, 96, 96)), name="seen")
        for row in range(3):
            rows.write(np.full((1, 4), row + 1, np.float32))
            at.write(np.array([row], np.int64))
            graph.compute()
        np.testing.assert_array_equal(seen.numpy()[:, 0], [1, 2, 3])
        assert [split.backend for split in scheduler.explain(graph).splits] == [b.name]
        np.testing.assert_array_equal(cache.numpy()[:, 0], [1, 2, 3, 0, 0, 0])


def test_operators_and_arrays_are_scheduled_too() -> None:
    with servers(2) as (a, b), ggml_rpc_ref.Scheduler([a, b, here()]) as scheduler:
        left, right = a.tensor(np.ones((2, 8), np.float32)), b.tensor(np.full((2, 8), 2, np.float32))
        graph = scheduler.graph()
        total = graph.add(left, right)
        total = graph.add(total, np.ones((2, 8), np.float32))
        graph.compute()
        np.testing.assert_array_equal(total.numpy(), np.full((2, 8), 4))


def test_memory_is_used_again_and_results_are_not_lost_by_it() -> None:
    with servers(1) as (a,), ggml_rpc_ref.Scheduler([a, here()]) as scheduler:
        graph, x, hidden = network(scheduler, [1])
        x.write(values(1))
        graph.compute()
        tensor = 4 * WIDTH * ROWS
        assert scheduler.explain(graph).memory[a.name] < 8 * tensor  # of 36 results
        before = hidden.numpy()
        middle = graph.nodes[1]
        with pytest.raises(Misuse, match=r"the memory of 'normed-0' has been used again: say graph.output\(normed-0\)"):
            middle.numpy()
        graph.output(middle)
        graph.compute()
        np.testing.assert_array_equal(hidden.numpy(), before)
        rows = values(1)
        normed = rows / np.sqrt((rows**2).mean(1, keepdims=True) + 1e-6) * arrays()["blk.0.scale"]
        np.testing.assert_allclose(middle.numpy(), normed, rtol=1e-5)


def test_a_result_of_an_earlier_graph_is_refused_not_wrong() -> None:
    with ggml_rpc_ref.Scheduler([here()]) as scheduler:
        first, second = scheduler.graph(), scheduler.graph()
        one, two = first.add(np.ones((1, 4), np.float32), np.ones((1, 4), np.float32)), second.scale(np.ones((1, 4), np.float32), 5)
        first.compute()
        second.compute()
        np.testing.assert_array_equal(two.numpy(), [[5] * 4])
        with pytest.raises(Misuse, match="not of the graph that was computed last"):
            one.numpy()


WRONG: dict[str, tuple[Callable[[ggml_rpc_ref.Scheduler], object], str]] = {
    "no list of backends": (lambda s: ggml_rpc_ref.Scheduler(s.backends[0]), "backends = <device"),  # type: ignore[arg-type]
    "a list of weights": (lambda s: s.weights([np.ones(4)]), "weights of list: give a mapping"),  # type: ignore[arg-type]
    "a name that is a number": (lambda s: s.weights({3: np.ones(4)}), "name = 3"),  # type: ignore[dict-item]
    "a weight of bool": (lambda s: s.weights({"w": np.ones(4, bool)}), "no ggml type holds bool, of which the weight w is"),
    "a split of texts": (lambda s: s.weights(arrays(), ["x"]), r"split = \['x'\]: its proportions must be numbers"),  # type: ignore[list-item]
    "a split of 10^400": (lambda s: s.weights(arrays(), [10**400]), "its proportions must be numbers"),
    "a split by names": (lambda s: s.weights(arrays(), {"w": 1}), "split = {'w': 1}: give proportions"),  # type: ignore[arg-type]
    "an output that is none": (lambda s: s.graph().output(None), "None is not a node"),  # type: ignore[arg-type]
    "a graph that is none": (lambda s: s.compute(None), "None is not a graph of this scheduler"),  # type: ignore[arg-type]
    "a device's graph": (lambda s: s.explain(s.backends[0].graph()), "<graph of 0 nodes .* is not a graph of"),  # type: ignore[arg-type]
    "a server that is none": (lambda s: s.without(None), "endpoint = None: it must be a text"),  # type: ignore[arg-type]
    "an input without data": (lambda s: s.graph().input("F32", (4,), "x").numpy(), "the input 'x' has no data yet"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_named(name: str) -> None:
    act, sentence = WRONG[name]
    with servers(1) as backends, ggml_rpc_ref.Scheduler([*backends, here()]) as scheduler:
        with pytest.raises(Misuse, match=sentence):
            act(scheduler)
        assert repr(scheduler) == f"<scheduler of {backends[0].name}, oracle>"


def test_a_split_may_be_an_array() -> None:
    with servers(2) as backends, ggml_rpc_ref.Scheduler([*backends, here()]) as scheduler:
        placed = scheduler.weights({"blk.0.w": np.ones(4, np.float32)}, np.array([0, 1]))["blk.0.w"].buffer
        assert isinstance(placed, Placed)
        assert placed.backend is backends[1]


def test_a_graph_belongs_to_its_scheduler() -> None:
    """Its plan names the backends of the scheduler that made it."""
    with servers(1) as (a,), ggml_rpc_ref.Scheduler([a, here()]) as one, ggml_rpc_ref.Scheduler([here()]) as other:
        graph = one.graph()
        x = graph.input("F32", (4,), "x")
        y = graph.sqr(x)
        x.write(np.full(4, 3, np.float32))
        for act in (other.compute, other.plan, other.explain):
            with pytest.raises(Misuse, match="is not a graph of this scheduler"):
                act(graph)
        one.compute(graph)
        assert y.numpy().tolist() == [9] * 4


def test_a_closed_scheduler_says_so() -> None:
    scheduler = ggml_rpc_ref.Scheduler([here()])
    graph = scheduler.graph()
    scheduler.close()
    scheduler.close()
    for act in (lambda: scheduler.weights(arrays()), lambda: scheduler.compute(graph), lambda: scheduler.explain(graph)):
        with pytest.raises(Misuse, match="this scheduler has been closed: make another"):
            act()
    assert repr(scheduler) == "<scheduler of oracle, closed>"


def test_an_expression_without_data_is_computed_once_it_has_some() -> None:
    with ggml_rpc_ref.Scheduler([here()]) as scheduler:
        x = scheduler.graph().input("F32", (4,), "x")
        total = (x + 1) * 3
        with pytest.raises(Misuse, match="the input x has no data yet"):
            total.numpy()
        x.write(np.ones(4, np.float32))
        assert total.numpy().tolist() == [6] * 4


def test_connections_end_with_the_scheduler() -> None:
    """At once, not when Python looks for circles of objects: a genuine server of 3.6.1 serves one client at a time."""
    with ggml_rpc_ref.Server(memory=2**24) as server:

        def used() -> None:
            with ggml_rpc_ref.Scheduler([ggml_rpc_ref.rpc_init(server.endpoint), here()]) as scheduler:
                graph, x, _ = network(scheduler, [1])
                x.write(values(1))
                graph.compute()
                assert server.connections == 1

        gc.disable()
        try:
            used()
            for _ in range(500):
                if server.connections == 0:
                    break
                threading.Event().wait(0.01)
            assert server.connections == 0
        finally:
            gc.enable()


def test_explanations_are_text_json_and_dot() -> None:
    with servers(2) as (a, b), ggml_rpc_ref.Scheduler([a, b, here()]) as scheduler:
        graph, x, _ = network(scheduler, [2, 1])
        x.write(values(1))
        explained = scheduler.explain(graph)
        assert f"copy hidden-4: {4 * WIDTH * ROWS} bytes, through this machine, from {a.name}" in str(explained)
        assert "MUL_MAT made-0: its weights lie there" in str(explained)
        read = json.loads(explained.to_json())
        assert [split["backend"] for split in read["splits"]] == [a.name, b.name]
        assert read["copied"] == explained.copied
        assert f's0 -> s1 [label="hidden-4, {4 * WIDTH * ROWS} bytes"];' in explained.to_dot()


def test_an_arrow_comes_from_the_split_that_computed_it() -> None:
    """Most nodes of a graph have no name of their own, and are called as their op: here one in each of six splits."""
    with servers(2) as (a, b), ggml_rpc_ref.Scheduler([a, b, here()]) as scheduler:
        graph, x, _ = network(scheduler, lambda name: (a, b)[int(name[4]) % 2])
        x.write(values(1))
        explained = scheduler.explain(graph)
        rows = [(row.name, row.split, number) for number, split in enumerate(explained.splits) for row in split.inputs]
        assert [row for row in rows if row[0] == "rms_norm"] == [("rms_norm", number, number + 1) for number in range(LAYERS - 1)]
        assert {row[1] for row in rows if row[0] in ("x", "shared")} == {None}
        arrows = re.findall(r"(s\d) -> (s\d)", explained.to_dot())
        assert sorted(arrows) == sorted(2 * [(f"s{number}", f"s{number + 1}") for number in range(LAYERS - 1)])


def test_an_arrow_of_a_view_comes_from_what_it_shows() -> None:
    """A cache that one server writes and another reads: the view is no more than a place in it."""
    with servers(2) as (a, b), ggml_rpc_ref.Scheduler([a, b, here()]) as scheduler:
        cache = scheduler.state("F32", (4, 6), "cache", on=a)
        weight = scheduler.weights({"w": np.eye(4, dtype=np.float32)}, lambda name: b)["w"]
        graph = scheduler.graph()
        rows, at = graph.input("F32", (4, 1), "rows"), graph.input("I64", (1,), "at")
        seen = graph.view(graph.set_rows(rows, at, cache), 4, 3, nb=(4, 16, 96, 96), name="seen")
        graph.mul_mat(weight, seen)
        rows.write(np.ones((1, 4), np.float32))
        at.write(np.zeros(1, np.int64))
        assert [(row.name, row.split) for row in scheduler.explain(graph).splits[1].inputs] == [("seen", 0)]


def test_memory_of_two_backends_of_one_kind_is_added() -> None:
    one, two = here(), here()
    with ggml_rpc_ref.Scheduler([one, two]) as scheduler:
        weights = scheduler.weights({n: np.eye(8, dtype=np.float32) for n in "ab"}, lambda name: one if name == "a" else two)
        graph = scheduler.graph()
        x = graph.input("F32", (8, 1), "x")
        graph.mul_mat(weights["b"], graph.mul_mat(weights["a"], x))
        x.write(np.ones((1, 8), np.float32))
        # on each a row of 8 floats that comes in, and one that comes out
        assert scheduler.explain(graph).memory == {"oracle": 4 * 8 * 4}


# ------------------------------------------------------------------------------------------------------------ what it refuses


def test_backends_that_do_not_fit() -> None:
    with servers(1) as (a,):
        with pytest.raises(Misuse, match="the last backend must be one of this machine"):
            ggml_rpc_ref.Scheduler([a])
        with pytest.raises(Misuse, match=r"RPC0\[127.0.0.1:\d+\] is listed twice"):
            ggml_rpc_ref.Scheduler([a, a, here()])
        other_name = a.client.endpoint.replace("127.0.0.1", "localhost")
        with pytest.raises(Misuse, match=r"localhost:\d+ is the same server as 127.0.0.1:\d+: list it once"):
            ggml_rpc_ref.Scheduler([a, ggml_rpc_ref.rpc_init(other_name), here()])
        with (
            ggml_rpc_ref.Scheduler([a, here()]) as scheduler,
            pytest.raises(Misuse, match="is the same server as"),
        ):
            scheduler.add(ggml_rpc_ref.rpc_init(other_name))
        with pytest.raises(Misuse, match="18 backends: a scheduler takes at most 16 beside"):
            ggml_rpc_ref.Scheduler([here() for _ in range(18)])


@pytest.mark.parametrize(
    ("split", "sentence"),
    [
        ([1, 1, 1, 1], "4 proportions do not fit 2 servers' devices"),
        ([1], "1 proportions do not fit"),
        ([0, 0], "each must be 0 or more, and one of them more than 0"),
        ([-1, 2], "each must be 0 or more"),
        ([float("nan"), 1], "each must be 0 or more"),
        ("half", "give proportions, 'memory', or a function"),
        (lambda name: None, "the split puts w on None"),
    ],
)
def test_splits_that_do_not_fit(split: Any, sentence: str) -> None:
    with servers(2) as (a, b), ggml_rpc_ref.Scheduler([a, b, here()]) as scheduler:
        free = a.memory().free, b.memory().free
        with pytest.raises(Misuse, match=sentence):
            scheduler.weights({"w": np.ones((2, 2), np.float32)}, split)
        assert (a.memory().free, b.memory().free) == free


def test_too_little_memory_says_what_does_not_fit_before_anything_is_sent() -> None:
    with servers(2) as (a, b), ggml_rpc_ref.Scheduler([a, b, here()]) as scheduler:
        large = np.zeros((2**11, 2**11), np.float32)  # 16 MiB each, of 64 MiB
        free = a.memory().free
        with pytest.raises(Misuse, match=r"67108864 bytes free and needs 83886080, 16777216 too many: blk.4.w do not fit"):
            scheduler.weights({f"blk.{i}.w": large for i in range(5)}, lambda name: a)
        both = r"blk.4.w do not fit; RPC0.* 67108864 bytes free .* 50331648 too many: blk.9.w, blk.10.w, blk.11.w do not fit"
        with pytest.raises(Misuse, match=both):  # more than all servers have together: each is named
            scheduler.weights(
                {f"blk.{i}.w": large for i in range(12)}, lambda name: a if len(name) == 7 and int(name[4]) < 5 else b
            )
        assert (a.memory().free, b.memory().free) == (free, free)


def test_a_node_that_nothing_can_compute() -> None:
    with ggml_rpc_ref.Scheduler([here()]) as scheduler:
        graph = scheduler.graph()
        x = graph.input("F32", (4,), "x")
        graph.add(x, x)
        with pytest.raises(Misuse, match="the input x has no data yet"):
            graph.compute()


# -------------------------------------------------------------------------------------------------------------- its parts


def test_proportions_mean_what_tensor_split_means() -> None:
    """Layers and, as one more, what follows them, in order: with 3,1 of 8 layers the first 7 and the last 2."""
    names = [f"blk.{i}.w" for i in range(8)] + ["output_norm.weight"]
    where = by_split([3, 1], [here(), here(), here()], names)
    assert [where(name) for name in names] == [0] * 7 + [1] * 2


def test_memory_of_tensors_that_live_at_the_same_time_never_overlaps() -> None:
    random = np.random.default_rng(seeded(7))
    begins = np.sort(random.integers(0, 100, 300))
    needs = [Need(i, int(random.integers(1, 500)), int(b), int(b + random.integers(0, 20))) for i, b in enumerate(begins)]
    offsets, size = lay_out(needs, 32)
    assert size < sum(need.size for need in needs) / 3
    for one in needs:
        assert offsets[one.key] % 32 == 0
        assert offsets[one.key] + one.size <= size
        for other in needs:
            if one.key < other.key and one.begins <= other.ends and other.begins <= one.ends:
                apart = offsets[one.key] + one.size <= offsets[other.key] or offsets[other.key] + other.size <= offsets[one.key]
                assert apart, (one, other)
