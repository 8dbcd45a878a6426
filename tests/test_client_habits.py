"""What users of numpy expect of a client: arrays, `with`, memory that comes back, operators, named methods, a server at hand."""

from __future__ import annotations

import gc
import inspect
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import ggml_rpc_ref
from ggml_rpc_ref import derive, upstream
from ggml_rpc_ref.client import named_ops
from ggml_rpc_ref.client.client import Client
from ggml_rpc_ref.client.devices import Device
from ggml_rpc_ref.client.graph import Graph
from ggml_rpc_ref.client.named_ops import NamedOps
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.ops import ops_of
from ggml_rpc_ref.spec.opcodes import CUSTOM_OPS, KINDS
from ggml_rpc_ref.spec.versions import NEWEST

F32 = np.float32
MIB = 2**20
ROOT = Path(__file__).parents[1]


@pytest.fixture(params=["own", pytest.param("genuine", marks=pytest.mark.upstream)])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client of our server, then of the genuine one."""
    if request.param == "own":
        with ggml_rpc_ref.Server("oracle", memory=256 * MIB) as own, ggml_rpc_ref.connect(own.endpoint, timeout=20) as made:
            yield made
        return
    server: upstream.Server = request.getfixturevalue("upstream_server")
    with ggml_rpc_ref.connect(server.endpoint, timeout=20) as made:
        yield made


@pytest.fixture
def device(client: Client) -> Device:
    return client.devices[0]


@pytest.fixture
def two() -> Iterator[tuple[Device, Device]]:
    """Two devices of one server."""
    with ggml_rpc_ref.Server("oracle,oracle", memory=64 * MIB) as server, ggml_rpc_ref.connect(server.endpoint, timeout=20) as made:
        yield made.devices[0], made.devices[1]


X, Y = np.arange(12, dtype=F32).reshape(3, 4) - 5, np.linspace(-1, 2, 12, dtype=F32).reshape(3, 4)
W, B = np.linspace(-2, 1, 20, dtype=F32).reshape(5, 4), np.arange(5, dtype=F32)


def near(got: npt.ArrayLike, want: npt.NDArray[Any]) -> None:
    assert isinstance(got, np.ndarray)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


# -------------------------------------------------------------------------------------------------------------- arrays


def test_an_array_of_a_tensor(device: Device) -> None:
    tensor = device.tensor(X)
    assert np.asarray(tensor).tolist() == X.tolist()
    assert np.asarray(tensor, np.float64).dtype == np.float64
    assert np.array(tensor, copy=True).dtype == F32
    assert np.concatenate([tensor, tensor]).shape == (6, 4)  # type: ignore[call-overload]
    assert tensor.shape == X.shape
    with pytest.raises(ValueError, match="always a copy"):
        tensor.__array__(copy=False)


# ---------------------------------------------------------------------------------------------------- memory that comes back


def test_a_buffer_is_freed_at_the_end_of_its_with(two: tuple[Device, Device]) -> None:
    device, before = two[0], two[0].memory().free
    with device.alloc(20 * MIB) as buffer:
        assert device.memory().free == before - 20 * MIB
    assert device.memory().free == before
    with pytest.raises(Misuse, match="has been freed"):
        buffer.clear()
    with device.alloc(20 * MIB) as buffer:
        buffer.free()
    assert device.memory().free == before


def test_a_with_of_a_buffer_whose_connection_has_ended_is_quiet(two: tuple[Device, Device]) -> None:
    buffer = two[0].alloc(8)
    with buffer:
        two[0].client.close()


def test_dropped_tensors_and_graphs_give_their_memory_back(two: tuple[Device, Device]) -> None:
    device = two[0]
    before = device.memory().free
    tensor = device.tensor(np.zeros(5 * MIB, F32))
    view = device.graph().reshape(tensor, 5, MIB)
    assert device.memory().free == before - 20 * MIB
    del tensor
    assert device.memory().free == before - 20 * MIB  # the view lies in it
    del view
    assert device.memory().free == before
    graph = device.graph()
    kept = graph.scale(graph.scale(device.tensor(np.ones(MIB, F32)), 2.0), 3.0)
    graph.compute()
    assert device.memory().free == before - 12 * MIB
    del graph
    assert kept.numpy()[0] == 6
    del kept
    assert device.memory().free == before


def test_a_recomputed_graph_does_not_meet_a_buffer_freed_behind_its_back(two: tuple[Device, Device]) -> None:
    """A free drops stored graphs: one that a finalizer asked for must not come between looking and GRAPH_RECOMPUTE."""
    device = two[0]
    graph = device.graph()
    doubled = graph.scale(device.tensor(X), 2.0)
    graph.compute()
    for _ in range(3):
        dropped = device.tensor(Y)
        del dropped
        graph.compute()
        near(doubled.numpy(), 2 * X)


def test_a_loop_over_its_own_result_keeps_no_history(two: tuple[Device, Device]) -> None:
    device = two[0]
    tensor, before = device.tensor(np.ones(MIB, F32)), device.memory().free
    for _ in range(20):
        tensor = tensor + 1.0
        assert tensor.numpy()[0] > 1
    assert tensor.numpy().max() == 21
    assert device.memory().free >= before - 8 * MIB


def test_tensors_may_be_dropped_by_any_thread(two: tuple[Device, Device]) -> None:
    device = two[0]
    before, failures = device.memory().free, list[str]()

    def work(number: int) -> None:
        for size in range(1, 60):
            got = (device.tensor(np.full(size, number, F32)) + 1.0).numpy()
            if (got != number + 1).any():
                failures.append(f"thread {number}, size {size}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert not failures
    assert device.memory().free == before


def test_what_is_dropped_after_the_end_is_nobodys_concern() -> None:
    with ggml_rpc_ref.Server(memory=MIB) as server:
        with ggml_rpc_ref.connect(server.endpoint) as client:
            tensor = client.devices[0].tensor(X)
        del tensor
        with pytest.raises(ConnectionError, match="has been closed"):
            client.devices[0].memory()


# ----------------------------------------------------------------------------------------------------------- operators

T = Callable[[npt.NDArray[Any]], Any]
EXPRESSIONS: dict[str, Callable[[T], Any]] = {
    "x + y": lambda t: t(X) + t(Y),
    "x + array": lambda t: t(X) + Y,
    "array + x": lambda t: Y + t(X),
    "x + row": lambda t: t(X) + t(Y[0]),
    "row + x": lambda t: t(Y[0]) + t(X),
    "x + 1": lambda t: t(X) + 1,
    "0.5 + x": lambda t: 0.5 + t(X),
    "x + np.float32(2)": lambda t: t(X) + F32(2),
    "np.float32(2) + x": lambda t: F32(2) + t(X),
    "x - y": lambda t: t(X) - t(Y),
    "x - row": lambda t: t(X) - t(Y[0]),
    "row - x": lambda t: t(Y[0]) - t(X),
    "array - x": lambda t: Y - t(X),
    "x - 1": lambda t: t(X) - 1,
    "1 - x": lambda t: 1 - t(X),
    "x * y": lambda t: t(X) * t(Y),
    "row * x": lambda t: t(Y[0]) * t(X),
    "x * 2": lambda t: t(X) * 2,
    "2 * x": lambda t: 2 * t(X),
    "x / y": lambda t: t(X + 0.5) / t(Y + 4),
    "-x": lambda t: -t(X),
    "+x": lambda t: +t(X),
    "x @ w.T": lambda t: t(X) @ t(W).T,
    "x @ y.T @ x": lambda t: t(X) @ t(Y).T @ t(X),
    "x.T @ y": lambda t: t(X).T @ t(Y),
    "x @ w'": lambda t: t(X) @ t(np.ascontiguousarray(W.T)),
    "x @ array": lambda t: t(X) @ np.ascontiguousarray(W.T),
    "array @ x": lambda t: W[:, :3].copy() @ t(X),
    "x @ vector": lambda t: t(X) @ t(W[0]),
    "vector @ x": lambda t: t(B[:3]) @ t(X),
    "stacked": lambda t: t(np.stack([X, Y])) @ t(np.stack([X.T, Y.T]).copy()),
    "x.T + 1": lambda t: t(X).T + 1,
    "x.T * 2": lambda t: t(X).T * 2,
    "x @ w.T + b": lambda t: t(X) @ t(W).T + t(B),
    "again": lambda t: (lambda y: y * y - y)(t(X) + 1),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_operators_mean_what_numpys_mean(device: Device, name: str) -> None:
    near(np.asarray(EXPRESSIONS[name](device.tensor)), EXPRESSIONS[name](lambda array: array))


def test_operators_say_what_they_can_not(device: Device) -> None:
    x = device.tensor(X)
    for act in (lambda: x + "text", lambda: "text" - x, lambda: x @ 2, lambda: x * None, lambda: x @ {}):
        with pytest.raises(TypeError):
            act()  # type: ignore[no-untyped-call]
    with pytest.raises(Misuse, match=r"MUL_MAT is not possible: .*F32 \(4, 3\), F32 \(3, 4\)$"):
        _ = x @ device.tensor(X)
    with pytest.raises(Misuse, match=r"T of a tensor of shape \(2, 3, 4\)"):
        _ = device.tensor(np.zeros((2, 3, 4), F32)).T


def test_a_block_type_multiplies_from_the_right(device: Device) -> None:
    weights = np.linspace(-1, 1, 5 * 64, dtype=F32).reshape(5, 64)
    got = np.asarray(device.tensor(np.ones((2, 64), F32)) @ device.tensor(weights, "q8_0").T)
    assert np.abs(got - np.ones((2, 64), F32) @ weights.T).max() < 0.3
    quantised = device.tensor(weights, "q8_0", name="w")
    for act in (quantised.T.numpy, lambda: (quantised.T + 1).numpy(), lambda: device.tensor(weights) @ quantised):
        with pytest.raises(
            Misuse, match=r"w, transposed, is not made of whole blocks of Q8_0|not whole blocks of Q8_0|is not possible"
        ):
            act()
    assert quantised.numpy().shape == (5, 64)


def test_an_expression_is_computed_once_when_it_is_read(device: Device) -> None:
    x = device.tensor(X)
    y = x + 1
    x.write(Y)
    near(y.numpy(), Y + 1)
    x.write(X)
    near(y.numpy(), Y + 1)
    near((y * 2).numpy(), 2 * (Y + 1))


def test_a_graph_takes_expressions_in(device: Device) -> None:
    x = device.tensor(X)
    graph = device.graph()
    y = x + 1
    squared = graph.sqr(y * 2)
    graph.compute()
    near(squared.numpy(), (2 * (X + 1)) ** 2)
    near(y.numpy(), X + 1)
    x.write(Y)
    graph.compute()
    near(squared.numpy(), (2 * (Y + 1)) ** 2)
    near((squared + 1).numpy(), (2 * (Y + 1)) ** 2 + 1)


# ---------------------------------------------------------------------------------------------------------- named methods


def test_every_op_and_kind_has_a_method_with_words_for_people() -> None:
    by_hand = {"NONE", *KINDS, *CUSTOM_OPS}
    rows = ops_of(NEWEST)
    named = {name.lower() for name in rows if name not in by_hand} | {kind.lower() for op in KINDS for kind in rows[op].kinds}
    for name in named:
        method = getattr(Graph, name)
        assert len(inspect.getdoc(method) or "") > 20, name
        hints = inspect.get_annotations(method)
        parameters = [parameter for parameter in inspect.signature(method).parameters if parameter != "self"]
        assert set(parameters) | {"return"} == set(hints), name
    assert len(named) > 115
    assert {name for name, value in vars(NamedOps).items() if inspect.isfunction(value)} - {"op"} <= named


def test_the_methods_are_what_the_rows_say() -> None:
    assert Path(named_ops.__file__).read_text(encoding="utf-8") == derive.named_ops(), "run `ggml-rpc-ref gen`"


def test_gen_notices_methods_that_are_out_of_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from ggml_rpc_ref.commands.main import app

    stale, spec = tmp_path / "named_ops.py", tmp_path / "SPEC.md"
    stale.write_text("# nothing\n")
    spec.write_text("nothing derived\n")
    monkeypatch.setattr(named_ops, "__file__", str(stale))
    checked = CliRunner().invoke(app, ["gen", "--check", str(spec)])
    assert checked.exit_code == 1
    assert CliRunner().invoke(app, ["gen", str(spec)]).exit_code == 0
    assert stale.read_text() == derive.named_ops()
    assert CliRunner().invoke(app, ["gen", "--check", str(spec)]).exit_code == 0


TYPED = """
import numpy as np
import ggml_rpc_ref

client = ggml_rpc_ref.connect("x")
graph = client.devices[0].graph()
reveal_type(graph.rope(np.ones(4), [1], n_dims=4, mode="neox"))
reveal_type(graph.silu(graph.rms_norm(np.ones(4), 1e-5)) + 1)
reveal_type(ggml_rpc_ref.Server)
graph.rope(np.ones(4), [1], n_dim=4, mode="neox")
graph.scale(np.ones(4), "2")
"""


def test_a_type_checker_sees_the_methods(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text(TYPED)
    # by the project's settings and cache, which the check of the types has just filled: from nothing it takes 17 s
    command = [sys.executable, "-m", "mypy", str(tmp_path / "user.py")]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    revealed = re.findall(r'Revealed type is "(?:def .* -> )?([\w.]+)', said)
    assert [name.rpartition(".")[2] for name in revealed] == ["RemoteTensor", "RemoteTensor", "Server"], said
    assert 'Unexpected keyword argument "n_dim"' in said
    assert re.search(r'"scale".*incompatible type "str"', said)


def soft_max(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


IDS = np.array([2, 0, 2])
NAMED: dict[str, tuple[Callable[[Graph], Any], npt.NDArray[Any]]] = {
    "silu": (lambda g: g.silu(X), X / (1 + np.exp(-X))),
    "relu": (lambda g: g.relu(X), X.clip(0)),
    "tanh": (lambda g: g.tanh(X), np.tanh(X)),
    "rms_norm": (lambda g: g.rms_norm(X, 1e-3), X / np.sqrt((X**2).mean(-1, keepdims=True) + F32(1e-3))),
    "soft_max": (lambda g: g.soft_max(X, scale=0.5), soft_max(0.5 * X)),
    "sum_rows": (lambda g: g.sum_rows(X), X.sum(-1, keepdims=True)),
    "sum": (lambda g: g.sum(X), X.sum(keepdims=True).reshape(1)),
    "mean": (lambda g: g.mean(X), X.mean(-1, keepdims=True)),
    "argmax": (lambda g: g.argmax(X), X.argmax(-1)),
    "get_rows": (lambda g: g.get_rows(X, IDS), X[IDS]),
    "get_rows of a list": (lambda g: g.get_rows(X, [1, 1]), X[[1, 1]]),
    "concat": (lambda g: g.concat(X, Y, 1), np.concatenate([X, Y])),
    "repeat": (lambda g: g.repeat(X, ne=(8, 3)), np.tile(X, (1, 2))),
    "out_prod": (lambda g: g.out_prod(X, Y), Y.T @ X),
    "swiglu": (lambda g: g.swiglu(X, Y), X / (1 + np.exp(-X)) * Y),
    "pad": (lambda g: g.pad(X, padding=(0, 1, 0, 2, 0, 0, 0, 0)), np.pad(X, ((0, 2), (0, 1)))),
    "arange": (lambda g: g.arange(1, 7, 2), np.array([1, 3, 5])),
    "pool_1d": (lambda g: g.pool_1d(X, op="max", k0=2, s0=2, p0=0), X.reshape(3, 2, 2).max(-1)),
    "clamp": (lambda g: g.clamp(X, -1, 1), X.clip(-1, 1)),
    "diag": (lambda g: g.diag(X[:1]), np.diag(X[0])),
    "diag_mask_inf": (lambda g: g.soft_max(g.diag_mask_inf(X, n_past=0)), soft_max(np.where(np.tri(3, 4), X, -np.inf))),
    "transpose of an array": (lambda g: g.cont(g.transpose(X)), X.T),
    "permute of an array": (lambda g: g.cont(g.permute(X, 1, 0, 2, 3)), X.T),
    "reshape of an array": (lambda g: g.reshape(X, 6, 2), X.reshape(2, 6)),
    "view of an array": (lambda g: g.view(X, 2, 3, nb=(4, 16, 48, 48), offset=8), X[:, 2:]),
    "dimensions by a generator": (lambda g: g.repeat(X, ne=(n * 2 for n in (4, 3))), np.tile(X, (2, 2))),
    "mul_mat of arrays": (lambda g: g.mul_mat(W, X), X @ W.T),
    "flash_attn_ext": (
        lambda g: g.flash_attn_ext(X[None], Y.astype(np.float16)[None], Y.astype(np.float16)[None], scale=0.5),
        (soft_max(0.5 * X @ Y.astype(np.float16).astype(F32).T) @ Y.astype(np.float16).astype(F32))[:, None],
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_named_methods_compute_what_they_say(device: Device, name: str) -> None:
    build, want = NAMED[name]
    graph = device.graph()
    node = build(graph)
    graph.compute()
    got = node.numpy()
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=2e-3 if name == "flash_attn_ext" else 1e-5, atol=2e-3 if "flash" in name else 1e-6)


def test_set_rows_and_set_update_in_place(device: Device) -> None:
    into, graph = device.tensor(np.zeros((4, 4), F32)), device.graph()
    rows = graph.set_rows(X, np.array([3, 0, 1]), into)
    graph.compute()
    assert into.numpy().tolist() == rows.numpy().tolist() == [X[1].tolist(), X[2].tolist(), [0] * 4, X[0].tolist()]
    with pytest.raises(Misuse, match="SET_ROWS: neither sources nor parameters tell"):
        graph.set_rows(X, np.array([3, 0, 1]))


def test_a_step_of_an_optimiser_updates_the_weights(device: Device) -> None:
    """Whoever names ne and type as well: the result is the weights themselves."""
    settings = np.array([0.5, 0.0], F32)
    for given in ({}, {"ne": (4, 3), "dtype": "F32"}):
        weights, graph = device.tensor(X), device.graph()
        graph.op("OPT_STEP_SGD", [weights, Y, settings], **given)  # type: ignore[arg-type]
        graph.compute()
        near(weights.numpy(), X - 0.5 * Y)


# ------------------------------------------------------------------------------------------------- devices of one server


def test_a_graph_may_mix_devices_of_one_server(two: tuple[Device, Device]) -> None:
    one, other = two
    here, there = one.tensor(X), other.tensor(np.stack([Y, X]))
    graph = one.graph()
    slab = other.graph().view(there, 4, 3)
    results = [graph.add(here, slab), graph.mul(slab, here), graph.add(here, graph.view(there, 4, 3, offset=48))]
    graph.compute()
    for node, want in zip(results, (X + Y, X * Y, X + X), strict=True):
        assert node.device is one
        near(node.numpy(), want)
    there.write(np.stack([X, Y]))
    graph.compute()  # copied again, as it is now
    for node, want in zip(results, (X + X, X * X, X + Y), strict=True):
        near(node.numpy(), want)
    near((here + there.device.graph().view(there, 4, 3)).numpy(), X + X)
    near((here * (other.tensor(Y) + 1)).numpy(), X * (Y + 1))


def test_a_result_of_another_device_is_taken_once_it_is_there(two: tuple[Device, Device]) -> None:
    first, second = two[0].graph(), two[1].graph()
    doubled = first.scale(X, 2.0, name="doubled")
    tripled = second.scale(doubled, 3.0)
    with pytest.raises(Misuse, match="doubled has no memory yet: compute its graph first"):
        second.compute()
    first.compute()
    second.compute()
    near(tripled.numpy(), 6 * X)


def test_a_server_that_can_not_copy_between_devices_is_helped(two: tuple[Device, Device], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "copy", lambda *_: False)
    near((two[0].tensor(X) + two[1].tensor(Y)).numpy(), X + Y)


# ---------------------------------------------------------------------------------------------------------- at first sight


def test_a_server_in_this_process() -> None:
    with ggml_rpc_ref.Server("oracle,upstream-cpu", memory=MIB) as server:
        with ggml_rpc_ref.connect(server.endpoint) as client:
            assert [device.memory().total for device in client.devices] == [MIB, MIB]
        assert server.is_loopback
        endpoint = server.endpoint
    with pytest.raises(ConnectionError):
        ggml_rpc_ref.connect(endpoint)
    with pytest.raises(Misuse, match="nonsense"):
        ggml_rpc_ref.Server("nonsense")


def test_a_server_needs_no_with() -> None:
    """A notebook's cells have no room for one: what is begun in one is used in the next."""
    server = ggml_rpc_ref.Server(memory=MIB)
    assert repr(server) == f"<Server at {server.endpoint}>"
    with ggml_rpc_ref.connect(server.endpoint, connect_timeout=20) as client:
        assert client.devices[0].memory().total == MIB
    endpoint = server.endpoint
    server.close()
    server.close()
    assert (server.endpoint, repr(server)) == (endpoint, f"<Server at {endpoint}, ended>")
    with pytest.raises(ConnectionError):
        ggml_rpc_ref.connect(endpoint)
    with pytest.raises(Misuse, match="has ended: make another"), server:
        pass


EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("path", ["README.md", "ggml_rpc_ref/__init__.py", "ggml_rpc_ref/server/in_process.py"])
def test_examples_print_what_they_say(path: str) -> None:
    """Every example runs as it stands; what a line prints stands behind it."""
    text = (ROOT / path).read_text(encoding="utf-8")
    examples = EXAMPLE.findall(text) if path.endswith(".md") else [re.split(r'"""', text)[1].partition("\n\n")[2]]
    assert examples
    for example in examples:
        source = textwrap.dedent(example)
        source = source if "import ggml_rpc_ref" in source else f"import ggml_rpc_ref\n{source}"
        ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, ran.stderr
        promised = re.findall(r"print\(.*\)  # (.*)$", source, re.M)
        assert not promised or ran.stdout.splitlines() == promised
