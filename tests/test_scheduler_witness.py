"""The scheduler beside the genuine one: the same graphs over the same servers, at 3.6.1 and 8.0.0.

Compared are where each node is computed, the splits, what is copied before each, and the results: bit by bit where servers compute
all of it, within float32's rounding where this machine has a part: in one case llama.cpp's CPU backend, in the other ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ggml_rpc_ref
from ggml_rpc_ref import upstream
from ggml_rpc_ref.client.scheduler.graph import ScheduledGraph
from ggml_rpc_ref.client.tensors import RemoteTensor
from tests.support.seeds import seeded

SCRIPT = Path(__file__).parent / "support" / "genuine_scheduler.py"
WIDTH, ROWS = 16, 4
F32 = 4


@dataclass
class Leaf:
    """A tensor with data: on a backend, or written by the caller (backend None)."""

    name: str
    type: str
    data: Any
    backend: int | None = None
    weight: bool = False

    def row(self) -> dict[str, Any]:
        ne = self.data.shape[::-1]
        row = {"name": self.name, "type": self.type, "ne": ne, "backend": self.backend, "weight": self.weight}
        return row | {"data": self.data.tobytes().hex()}


@dataclass
class Described:
    """A graph, for both schedulers."""

    leaves: list[Leaf] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    def leaf(self, name: str, data: Any, backend: int | None = None, weight: bool = False) -> str:
        names = {"float32": "F32", "int64": "I64", "int32": "I32", "float16": "F16"}
        self.leaves.append(Leaf(name, names[str(data.dtype)], data, backend, weight))
        return name

    def node(self, op: str, src: list[str], *params: float) -> str:
        name = f"{op}-{len(self.nodes)}"
        self.nodes.append({"op": op, "src": src, "params": list(params), "name": name})
        return name


def array(random: np.random.Generator, *shape: int) -> Any:
    return random.standard_normal(shape, np.float32)


# ------------------------------------------------------------------------------------------------------------------ graphs


def layers(where: Callable[[int], int], count: int = 6) -> Described:
    """A network whose layers lie where the function says."""
    random, made = np.random.default_rng(seeded(1)), Described()
    hidden, shared = made.leaf("x", array(random, ROWS, WIDTH)), made.leaf("shared", array(random, 1, WIDTH))
    for layer in range(count):
        scale = made.leaf(f"scale-{layer}", array(random, 1, WIDTH), where(layer), True)
        weight = made.leaf(f"weight-{layer}", array(random, WIDTH, WIDTH) / 4, where(layer), True)
        normed = made.node("mul", [made.node("rms_norm", [hidden], 1e-6), scale])
        product = made.node("mul_mat", [weight, normed])
        halves = made.node("reshape", [product], WIDTH // 2, 2, ROWS)
        turned = made.node("cont", [made.node("permute", [halves], 1, 0, 2, 3)])
        flat = made.node("reshape", [turned], WIDTH, ROWS, 1)
        hidden = made.node("add", [made.node("add", [hidden, flat]), shared])
    made.outputs.append(hidden)
    return made


def cached(backends: int) -> Described:
    """Rows written into a state on each server and read back through views; an embedding on this machine."""
    random, made = np.random.default_rng(seeded(2)), Described()
    table = made.leaf("table", array(random, 32, WIDTH), backends, True)
    hidden = made.node("get_rows", [table, made.leaf("tokens", np.array([3, 1, 30, 7], np.int32))])
    at = made.leaf("at", np.array([2, 5, 3, 0], np.int64))
    for server in range(backends):
        cache = made.leaf(f"cache-{server}", np.zeros((8, WIDTH), np.float32), server)
        weight = made.leaf(f"weight-{server}", array(random, WIDTH, WIDTH) / 4, server, True)
        written = made.node("set_rows", [cache, made.node("mul_mat", [weight, hidden]), at])
        seen = made.node("view", [written], WIDTH, 6, WIDTH * F32, 0)
        hidden = made.node("mul_mat", [made.node("cont", [seen]), hidden])
        hidden = made.node("mul_mat", [made.leaf(f"back-{server}", array(random, WIDTH, 6) / 4, server, True), hidden])
    made.outputs.append(hidden)
    return made


def random_graph(seed: int, servers: int) -> Described:
    """A graph at random: weights anywhere, this machine included, sources from anywhere before."""
    random, made = np.random.default_rng(seeded(100 + seed)), Described()
    known = [made.leaf(f"x-{i}", array(random, ROWS, WIDTH)) for i in range(2)]
    made.leaf("state", array(random, ROWS, WIDTH), int(random.integers(servers)))
    known.append("state")
    for number in range(40):
        first, second = (known[int(i)] for i in random.integers(max(0, len(known) - 6), len(known), 2))
        match int(random.integers(8)):
            case 0 | 1:
                place = int(random.integers(servers + 1))
                weight = made.leaf(f"w-{number}", array(random, WIDTH, WIDTH) / 4, place, True)
                known.append(made.node("mul_mat", [weight, first]))
            case 2:
                place = int(random.integers(servers + 1))
                known.append(made.node("mul", [first, made.leaf(f"s-{number}", array(random, 1, WIDTH), place, True)]))
            case 3:
                known.append(made.node("add", [first, second]))
            case 4:
                known.append(made.node("rms_norm", [first], 1e-6))
            case 5:
                known.append(made.node("scale", [first], 0.5))
            case 6:
                turned = made.node("permute", [made.node("reshape", [first], ROWS, WIDTH, 1)], 1, 0, 2, 3)
                known.append(made.node("cont", [turned]))
            case 7:
                known.append(made.node("reshape", [made.node("reshape", [first], WIDTH * ROWS, 1, 1)], WIDTH, ROWS, 1))
    used = {source for node in made.nodes for source in node["src"]}
    made.outputs += [node["name"] for node in made.nodes if node["name"] not in used]
    # a reshaped result is read where its memory is; as an output of its own the two schedulers may keep it differently
    made.outputs = [name for name in made.outputs if not name.startswith("reshape")] or [made.node("scale", [known[-1]], 2.0)]
    return made


GRAPHS: dict[str, tuple[int, Callable[[], Described]]] = {
    "one server": (1, lambda: layers(lambda layer: 0)),
    "two halves": (2, lambda: layers(lambda layer: layer // 3)),
    "by turns": (3, lambda: layers(lambda layer: layer % 3)),
    "partly here": (2, lambda: layers(lambda layer: (0, 2, 1)[layer % 3])),
    "sixteen layers": (8, lambda: layers(lambda layer: layer // 2, 16)),
    "caches": (2, lambda: cached(2)),
}
RANDOM = range(8)


# --------------------------------------------------------------------------------------------------------------- schedulers


@dataclass
class Outcome:
    """What a scheduler did: the backend of each node that computes, the splits with their inputs, the results."""

    where: dict[str, int]
    splits: list[tuple[str, list[str]]]
    results: dict[str, bytes]


VIEWS = ("reshape", "permute", "view")
SPLIT = re.compile(r"## SPLIT #(\d+): (\S+) # (\d+) inputs(.*)")
COPIED = re.compile(r"\[(\S+) \(")


def genuine(build: upstream.Build, endpoints: list[str], described: Described) -> Outcome:
    used = {source for node in described.nodes for source in node["src"]}
    request = {
        "servers": [(endpoint, 0) for endpoint in endpoints],
        "leaves": [leaf.row() for leaf in described.leaves if leaf.backend is not None],
        "inputs": [leaf.row() for leaf in described.leaves if leaf.backend is None and leaf.name in used],
        "nodes": described.nodes,
        "outputs": described.outputs,
    }
    command = [str(build.python), "-I", str(SCRIPT), str(build.libraries)]
    done = subprocess.run(
        command, input=json.dumps(request), capture_output=True, text=True, timeout=120, env=os.environ | {"GGML_SCHED_DEBUG": "2"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("said ")).removeprefix("said "))
    shown: list[tuple[str, list[str]]] = []
    for number, backend, count, rest in SPLIT.findall(done.stderr + done.stdout):
        if number == "0":
            shown = []  # it is shown each time that the graph is split
        copied = COPIED.findall(rest)
        assert len(copied) == int(count), rest
        shown.append((backend, copied))
    assert len(shown) == said["splits"]
    where = {name: place for name, place in said["where"].items() if not name.startswith(VIEWS)}
    return Outcome(where, shown, {name: bytes.fromhex(data) for name, data in said["results"].items()})


def ours(endpoints: list[str], described: Described) -> Outcome:
    here = ggml_rpc_ref.local("oracle", memory=2**24)
    backends = [*map(ggml_rpc_ref.rpc_init, endpoints), here]
    with ggml_rpc_ref.Scheduler(backends) as scheduler:
        graph, tensors = scheduler.graph(), dict[str, RemoteTensor]()
        place = {leaf.name: backends[leaf.backend] for leaf in described.leaves if leaf.backend is not None}
        given = {leaf.name: leaf.data for leaf in described.leaves if leaf.weight}
        tensors |= scheduler.weights(given, lambda name: place[name])
        for leaf in described.leaves:
            if not leaf.weight:
                made = scheduler.state if leaf.backend is not None else graph.input
                on = {"on": place[leaf.name]} if leaf.backend is not None else {}
                tensors[leaf.name] = made(leaf.type, leaf.data.shape[::-1], leaf.name, **on)
                tensors[leaf.name].write(leaf.data)
        for node in described.nodes:
            tensors[node["name"]] = added(graph, node, [tensors[source] for source in node["src"]])
        for name in described.outputs:
            graph.output(tensors[name])
        graph.compute()
        explained, numbers = scheduler.explain(graph), {backend.name: number for number, backend in enumerate(backends)}
        where = {node.name: numbers[node.backend] for split in explained.splits for node in split.nodes if not node.is_view}
        splits = [
            ("CPU" if split.backend == here.name else split.backend, [row.name for row in split.inputs])
            for split in explained.splits
        ]
        results = {name: np.ascontiguousarray(tensors[name].numpy()).tobytes() for name in described.outputs}
    return Outcome(where, splits, results)


def added(graph: ScheduledGraph, node: dict[str, Any], src: list[RemoteTensor]) -> RemoteTensor:
    params, name = node["params"], node["name"]
    match node["op"]:
        case "rms_norm":
            return graph.rms_norm(src[0], eps=params[0], name=name)
        case "scale":
            return graph.scale(src[0], params[0], name=name)
        case "permute":
            return graph.permute(src[0], *params, name=name)
        case "reshape":
            return graph.reshape(src[0], *params, name=name)
        case "view":
            ne0, ne1, nb1, offset = params
            return graph.view(src[0], ne0, ne1, nb=(F32, nb1, nb1 * ne1, nb1 * ne1), offset=offset, name=name)
        case "set_rows":
            return graph.set_rows(src[1], src[2], src[0], name=name)
        case op:
            return graph.op(op, src, name=name)


@contextlib.contextmanager
def on_ours(version: str, count: int) -> Iterator[list[str]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(ggml_rpc_ref.Server(memory=2**24, proto=version)).endpoint for _ in range(count)]


@contextlib.contextmanager
def on_genuine(version: str, count: int) -> Iterator[list[str]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(upstream.server(version, threads=1)).endpoint for _ in range(count)]


# -------------------------------------------------------------------------------------------------------------------- tests


def compare(build: upstream.Build, endpoints: list[str], described: Described) -> None:
    theirs, mine = genuine(build, endpoints, described), ours(endpoints, described)
    assert mine.where == theirs.where
    assert [(backend, sorted(inputs)) for backend, inputs in mine.splits] == [(b, sorted(i)) for b, i in theirs.splits]
    for name, wanted in theirs.results.items():
        got = mine.results[name]
        if len(endpoints) in theirs.where.values():  # some of it is computed here, by two different CPU backends
            np.testing.assert_allclose(np.frombuffer(got, "<f4"), np.frombuffer(wanted, "<f4"), rtol=1e-4, atol=1e-4)
        else:
            assert got == wanted, name


@pytest.mark.parametrize("build", ["upstream_build", "newest_build"])
@pytest.mark.parametrize("which", GRAPHS)
def test_what_the_genuine_scheduler_does_on_our_servers(which: str, build: str, request: pytest.FixtureRequest) -> None:
    found, (count, make) = request.getfixturevalue(build), GRAPHS[which]
    with on_ours(found.protocol, count) as endpoints:
        compare(found, endpoints, make())


@pytest.mark.parametrize("seed", RANDOM)
def test_what_it_does_with_graphs_at_random(seed: int, newest_build: upstream.Build) -> None:
    """At 8.0.0 only: 3.6.1's client sends addresses of other servers' memory along, at which its own server leaves (FUN-01)."""
    with on_ours(newest_build.protocol, 3) as endpoints:
        compare(newest_build, endpoints, random_graph(seed, 3))


@pytest.mark.parametrize("build", ["upstream_build", "newest_build"])
def test_what_it_does_on_genuine_servers(build: str, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue(build)
    with on_genuine(found.protocol, 2) as endpoints:
        for which in ("two halves", "caches"):
            compare(found, endpoints, GRAPHS[which][1]())
