"""One graph over several servers and this machine.

    with Scheduler([rpc_init("10.0.0.1:50052"), rpc_init("10.0.0.2:50052"), local()]) as scheduler:
        weights = scheduler.weights({"blk.0.w": w0, "blk.1.w": w1}, split=[1, 1])
        graph = scheduler.graph()
        x = graph.input("F32", (64, 2))
        y = graph.mul_mat(weights["blk.1.w"], graph.mul_mat(weights["blk.0.w"], x))
        x.write(array)
        graph.compute()
        print(y.numpy(), scheduler.explain(graph))

Counterpart of ggml_backend_sched_new and its company, ggml-backend.h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np

from ggml_rpc_ref.client.channel import Channel
from ggml_rpc_ref.client.devices import Device
from ggml_rpc_ref.client.scheduler.explain import Explanation, explanation
from ggml_rpc_ref.client.scheduler.graph import Anywhere, ScheduledGraph
from ggml_rpc_ref.client.scheduler.leaves import Input, Placed, kept
from ggml_rpc_ref.client.scheduler.lost import ServerLost, guarded
from ggml_rpc_ref.client.scheduler.plan import Plan, make_plan, place
from ggml_rpc_ref.client.scheduler.run import Bound, Buffers, Running, bind
from ggml_rpc_ref.client.scheduler.splitting import MEMORY, Split, by_split
from ggml_rpc_ref.client.scheduler.weights import Uploaded, Wanted, Weight, upload
from ggml_rpc_ref.client.tensors import RemoteTensor
from ggml_rpc_ref.client.words import NUMPY_NAMES, DTypeLike, as_array, dtype_row, encoded_name
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.net.stream import parse_endpoint
from ggml_rpc_ref.spec.versions import NEWEST
from ggml_rpc_ref.tensor import Array

MOST_BACKENDS = 16 + 1
"""As many servers as a process may use, and this machine."""


class Scheduler:
    """Spreads graphs over backends: each node goes where its weights lie, else where its neighbours or sources are.

    Counterpart of ggml_backend_sched_new, ggml-backend.h.

    Args:
        backends: by preference, as `rpc_init` and `local` return them; the last is one of this machine, which has what the others
            can't compute, and the caller's data.
        timeout: seconds that one answer of a server may take; None: as each backend has it.

    Raises:
        Misuse: for a backend listed twice, a server under two names, more than 16 servers' devices, a last one that is not of this
            machine.

    Attributes:
        backends: as given, without those that were taken out.
    """

    def __init__(self, backends: Sequence[Device], *, timeout: float | None = None) -> None:
        if not isinstance(backends, Iterable):
            raise Misuse(f"backends = {backends!r}: it must be a list of what rpc_init and local return")
        self.backends = list(backends)
        _require_backends(self.backends)
        self._timeout = timeout
        self._guard = guarded(self._lost, self._ended)
        # held, so that a connection does not end between two buffers
        self._channels = [self._connected(backend) for backend in self.backends]
        _require_different_servers(self.backends, self._channels)
        remote = {backend.version for backend in self.backends if not backend.is_local}
        self._anywhere = Anywhere(self, remote.pop() if len(remote) == 1 else NEWEST)
        self._buffers, self._changes = Buffers(), 0
        self._leaves: list[RemoteTensor] = []  # weights and states
        self._computed: tuple[ScheduledGraph, Plan] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False

    def _connected(self, backend: Device) -> Channel:
        channel = backend.client
        if self._timeout is not None:
            channel.timeout = self._timeout
        return channel

    def __repr__(self) -> str:
        return f"<scheduler of {', '.join(backend.name for backend in self.backends)}{', closed' if self._closed else ''}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give all memory back; connections end with it unless something else holds them. It computes nothing any more."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self._computed, self._buffers, self._closed = None, Buffers(), True
        for leaf in self._leaves:
            leaf.buffer = None
        self._leaves, self._channels = [], []
        self._changes += 1

    # ------------------------------------------------------------------------------------------------ weights and states

    def weights(
        self,
        given: Mapping[str, Weight | Any],
        split: Split = MEMORY,
        *,
        reserve: Mapping[str, int] | None = None,
        progress: Uploaded = lambda device, name, size: None,
    ) -> dict[str, RemoteTensor]:
        """Upload weights, to all servers at the same time; nodes that use one are computed where it lies.

        Args:
            given: name to an array, or to a `Weight` in a file.
            split: which backend has which: proportions as llama.cpp's --tensor-split, one for each of `backends` with or without
                the last; "memory", by the free memory of the servers; or a function from the name to a backend.
            reserve: bytes that states will need beside a weight, by its name: counted when it is checked whether all fits.
            progress: called with backend, name and bytes for each weight that has arrived, from several threads.

        Raises:
            Misuse: before anything is sent, for proportions that do not fit, a type that a version lacks, too little memory.
            ServerLost: where a server goes meanwhile.
        """
        self._require_open()
        if not isinstance(given, Mapping):
            raise Misuse(f"weights of {type(given).__name__}: give a mapping from names to arrays")
        for name in given:
            encoded_name(name)
        chosen, states = self.choose(split, given), reserve or {}
        wanted = [self._wanted(name, value, chosen(name), states.get(name, 0)) for name, value in given.items()]
        # known before they have arrived, so that a server that goes meanwhile is said to have lost those that had
        before = len(self._leaves)
        self._leaves += [one.leaf for one in wanted]
        try:
            upload(wanted, self._guard, progress)
        except BaseException:
            del self._leaves[before:]
            raise
        self._changes += 1
        return {one.leaf.name: one.leaf for one in wanted}

    def choose(self, split: Split, names: Iterable[str]) -> Callable[[str], Device]:
        """Return which backend each of these weights goes to, by its name, before anything is sent.

        Raises:
            Misuse, ServerLost: as `weights`.
        """
        where = by_split(split, self.backends, names, self._guard)
        return lambda name: self.backends[where(name)]

    def _wanted(self, name: str, value: Any, device: Device, reserve: int) -> Wanted:
        if not isinstance(value, Weight):
            array = np.ascontiguousarray(as_array(value, f"the weight {name}"))
            if array.dtype not in NUMPY_NAMES:
                raise Misuse(f"no ggml type holds {array.dtype}, of which the weight {name} is: give float32, for instance")
            value = Weight(dtype_row(array.dtype, self._anywhere.version), array.shape[::-1], kept(array))
        leaf = self._anywhere.leaf(value.dtype, value.ne, name)
        return Wanted(leaf, device, Placed(leaf, weights=True, source=value.source), reserve)

    def state(self, dtype: DTypeLike, ne: Sequence[int], name: str = "", *, on: Device | RemoteTensor) -> RemoteTensor:
        """Return a tensor that begins as zeros and that graphs write into, a KV cache for instance.

        Args:
            dtype, ne: type, and dimensions in ggml's order.
            name: for people.
            on: the backend, or a weight beside which it lies.

        Raises:
            Misuse, ServerLost: as `weights`.
        """
        self._require_open()
        leaf = self._anywhere.leaf(dtype, ne, name)
        device = on
        if isinstance(on, RemoteTensor):
            if not isinstance(on.buffer, Placed):
                raise Misuse(f"{on.name or 'the tensor'} lies on no backend, so nothing can lie beside it")
            device = on.buffer.backend
        if not isinstance(device, Device) or device not in self.backends:
            raise Misuse(f"on = {on!r}: it must be one of the scheduler's backends, or a weight")
        upload([Wanted(leaf, device, Placed(leaf, state=True))], self._guard, lambda device, name, size: None)
        self._leaves.append(leaf)
        return leaf

    # ------------------------------------------------------------------------------------------------------------ graphs

    def graph(self) -> ScheduledGraph:
        """Return an empty graph, built as a device's; sources may be weights, inputs, arrays, and tensors of any backend."""
        return ScheduledGraph(self._anywhere)

    def plan(self, graph: ScheduledGraph) -> Plan:
        """Return where a graph's nodes are computed; kept until the graph grows or the backends change.

        Raises:
            Misuse: where a node can be computed nowhere, or an input has no data.
            ServerLost: where a server is known to be gone.
        """
        self._require_own(graph)
        key = (self._changes, len(graph.nodes), len(graph.kept))
        known = graph.plan
        if isinstance(known, _Known) and known.key == key:
            return known.plan
        for backend in self.backends:
            with self._guard(backend):
                _ = backend.version  # on which it hangs what it can compute
        plan = make_plan(graph.nodes, self.backends, self._channels, graph.kept)
        graph.plan = _Known(key, plan)
        return plan

    def compute(self, graph: ScheduledGraph) -> None:
        """Compute a graph; what has not changed since the last time is not planned or sent again.

        Raises:
            Misuse: as `plan`, and where a backend has no room or refuses.
            ServerLost: where a server goes; nothing of the graph counts as computed then.
        """
        self._require_own(graph)
        self._computed = None
        for node in graph.nodes:
            node.computed = False
        bound = self._bound(graph)
        Running(bound, self._channels, self._guard).run(self._threads() if bound.plan.parallel else None)
        for node in graph.nodes:
            node.computed = True
        self._computed = graph, bound.plan

    def _require_own(self, graph: ScheduledGraph) -> None:
        self._require_open()
        if not isinstance(graph, ScheduledGraph) or graph.device.owner is not self:
            raise Misuse(f"{graph!r} is not a graph of this scheduler: its graph() makes one")

    def _require_open(self) -> None:
        if self._closed:
            raise Misuse("this scheduler has been closed: make another")

    def _bound(self, graph: ScheduledGraph) -> Bound:
        plan, known = self.plan(graph), graph.plan
        assert isinstance(known, _Known)
        if known.bound is None or known.bound.generation != self._buffers.generation:
            for backend in self.backends:
                with self._guard(backend):
                    _ = backend.alignment, backend.max_size
            if not plan.sizes:
                place(plan, self._guard)
            self._buffers.fit(plan, self._guard)
            known.bound = bind(plan, self._buffers, self._guard)
        return known.bound

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(MOST_BACKENDS, "scheduler")
        return self._pool

    def write(self, tensor: RemoteTensor, data: Array, offset: int) -> None:
        """Write bytes, uint8, into a weight or a state.

        Raises:
            ServerLost: where its server is gone.
        """
        there = tensor.owner.buffer
        assert isinstance(there, Placed)
        with self._guard(there.backend):
            there.backend.write(there.tensor, data, tensor.view_offs + offset)

    def read(self, tensor: RemoteTensor, offset: int, size: int) -> Array:
        """Read bytes of a tensor, uint8: of an input, a weight, a state, or a result of the graph that was computed last.

        Raises:
            Misuse: for a result whose memory has been used for something else.
            ServerLost: where its server is gone.
        """
        match tensor.owner.buffer:
            case Input(data=data) if data is not None:
                return data[tensor.view_offs + offset : tensor.view_offs + offset + size].copy()
            case Input():
                raise Misuse(f"the input {tensor.name!r} has no data yet: write an array into it")
            case Placed(tensor=there):
                with self._guard(_device(there)):
                    return there.device.read(there, tensor.view_offs + offset, size)
        if self._computed is None or tensor.id not in self._computed[1].graph.at:
            raise Misuse(f"{tensor.name or 'the tensor'} is not of the graph that was computed last: compute its graph again")
        plan = self._computed[1]
        number = plan.graph.at[tensor.id]
        if plan.graph.owner[number] not in plan.stays:
            raise Misuse(f"the memory of {tensor.name!r} has been used again: say graph.output({tensor.name}) before compute")
        backend = plan.home(number)
        with self._guard(self.backends[backend]):
            return self.backends[backend].read(plan.on(backend, number), offset, size)

    def explain(self, graph: ScheduledGraph) -> Explanation:
        """Return the splits of a graph: which node is where and why, and what is copied; `str`, `to_json`, `to_dot` show it.

        Raises:
            Misuse, ServerLost: as `plan`.
        """
        plan = self.plan(graph)
        if not plan.sizes:
            place(plan, self._guard)
        return explanation(plan)

    # -------------------------------------------------------------------------------------------------- servers that come and go

    def without(self, server: str | Device, split: Split = MEMORY) -> Self:
        """Go on without a server: what lay there is uploaded again to the others, or to this machine where there is none.

        Weights come from their arrays and files; states begin as zeros, so what was computed into them must be computed again.
        Graphs stay as they are and are planned again.

        Args:
            server: its endpoint, or one of its devices; all its devices are taken out.
            split: which of the other backends has what lay there, as `weights` takes it.

        Raises:
            Misuse: where it is none of the scheduler's, the others have too little memory, or one of its tensors has no source.
            ServerLost: where another turns out to be gone, too: take both out, in any order.
        """
        where = server.client.endpoint if isinstance(server, Device) and server.is_local else _endpoint(server)
        gone = [backend for backend in self.backends if not backend.is_local and _endpoint(backend) == where]
        if not gone:
            raise Misuse(f"{where} is not a server of this scheduler: it has {', '.join(b.name for b in self.backends)}")
        staying = [backend for backend in self.backends if backend not in gone]
        moved = [leaf for leaf in self._leaves if isinstance(leaf.buffer, Placed) and leaf.buffer.backend in gone]
        self._upload_again(moved, staying, split)
        self._begin_again(staying)
        return self

    def _upload_again(self, leaves: Sequence[RemoteTensor], backends: Sequence[Device], split: Split) -> None:
        if isinstance(split, str) and split == MEMORY:  # another server that is known to be gone, too, has none
            backends = [backend for backend in backends if not self._ended(backend)]
        where = by_split(split, backends, [leaf.name for leaf in leaves], self._guard)
        wanted = []
        for leaf in leaves:
            placed = leaf.buffer
            assert isinstance(placed, Placed)
            device = backends[where(leaf.name)]
            wanted.append(Wanted(leaf, device, Placed(placed.tensor, placed.weights, placed.source, placed.state)))
        upload(wanted, self._guard, lambda device, name, size: None)

    def add(self, backend: Device) -> Self:
        """Add a backend before the last one, for instance a server that is back; weights stay where they are.

        Raises:
            Misuse: as for a new scheduler.
        """
        added = [*self.backends[:-1], backend, self.backends[-1]]
        _require_backends(added)
        self._begin_again(added)
        return self

    def _begin_again(self, backends: Sequence[Device]) -> None:
        # connections are kept, so that another server that is gone, too, can still be taken out
        held = {id(backend): channel for backend, channel in zip(self.backends, self._channels, strict=False)}
        channels = [held.get(id(backend)) or self._connected(backend) for backend in backends]
        _require_different_servers(backends, channels)
        self.backends, self._channels = list(backends), channels
        self._buffers, self._computed = Buffers(generation=self._buffers.generation + 1), None
        self._changes += 1

    def _ended(self, device: Device) -> str:
        ends = (channel.ended for backend, channel in zip(self.backends, self._channels, strict=False) if backend is device)
        return next(ends, "")

    def _lost(self, device: Device, error: Exception) -> ServerLost:
        endpoint, self._computed = _endpoint(device), None
        there = [leaf for leaf in self._leaves if isinstance(leaf.buffer, Placed) and _is_on(leaf.buffer.backend, endpoint)]
        states = any(isinstance(leaf.buffer, Placed) and leaf.buffer.state for leaf in there)
        size = sum(leaf.nbytes for leaf in there)
        return ServerLost(endpoint, [leaf.name for leaf in there], size, not states, error)


class _Known:
    """What is kept of a graph: its plan, for which state of graph and scheduler, and its addresses."""

    __slots__ = ("bound", "key", "plan")

    def __init__(self, key: tuple[int, int, int], plan: Plan) -> None:
        self.key, self.plan = key, plan
        self.bound: Bound | None = None


def _require_backends(backends: Sequence[Device]) -> None:
    for backend in backends:
        if not isinstance(backend, Device):
            raise Misuse(f"{backend!r} is not a backend: rpc_init and local return some")
    if not backends or not backends[-1].is_local:
        raise Misuse("the last backend must be one of this machine: add ggml_rpc_ref.local()")
    listed = [id(b) if b.is_local else (_endpoint(b), b.index) for b in backends]
    twice = next((backend for at, backend in enumerate(backends) if listed[at] in listed[:at]), None)
    if twice is not None:
        raise Misuse(f"{twice.name} is listed twice")
    if len(backends) > MOST_BACKENDS:
        raise Misuse(f"{len(backends)} backends: a scheduler takes at most {MOST_BACKENDS - 1} beside this machine")


def _require_different_servers(backends: Sequence[Device], channels: Sequence[Channel]) -> None:
    """Refuse a server that is listed under two names: what is free there would be counted twice."""
    known: dict[str, str] = {}
    for backend, channel in zip(backends, channels, strict=True):
        if not backend.is_local:
            first = known.setdefault(channel.peer, _endpoint(backend))
            if first != _endpoint(backend):
                raise Misuse(f"{_endpoint(backend)} is the same server as {first}: list it once")


def _device(tensor: RemoteTensor) -> Device:
    assert isinstance(tensor.device, Device)
    return tensor.device


def _endpoint(server: str | Device) -> str:
    """Return a server's endpoint without asking it anything: it may be gone."""
    if not isinstance(server, Device):
        return str(parse_endpoint(server))
    return str(getattr(server, "endpoint", "") or server.client.endpoint)


def _is_on(device: Device, endpoint: str) -> bool:
    return not device.is_local and _endpoint(device) == endpoint
