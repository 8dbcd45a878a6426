"""A plan computed: copies to each split's backend, then its message, split after split or connection beside connection.

From one server to another everything passes through here: no version has a command that copies between servers. COMM_ALLREDUCE,
which joins two since 8.0.0, adds, and rounds large tensors to BF16 on its way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from ggml_rpc_ref.client.buffers import RemoteBuffer
from ggml_rpc_ref.client.channel import Channel
from ggml_rpc_ref.client.graph import Graph
from ggml_rpc_ref.client.scheduler.leaves import Input
from ggml_rpc_ref.client.scheduler.lost import Guard
from ggml_rpc_ref.client.scheduler.plan import Plan, is_padded
from ggml_rpc_ref.client.scheduler.splits import Split
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.protocol.graph import Graph as WireGraph
from ggml_rpc_ref.tensor import Array


@dataclass(slots=True)
class Buffers:
    """The compute buffers of all backends, used by one graph after another.

    Attributes:
        held: by number of the backend.
        generation: goes up when a buffer is replaced, so that addresses in messages are of no more use.
    """

    held: dict[int, RemoteBuffer] = field(default_factory=dict)
    generation: int = 0

    def fit(self, plan: Plan, guard: Guard) -> None:
        """Have buffers that are large enough for a plan.

        Raises:
            Misuse: where a backend has no room.
            What the guard makes of a server that is gone.
        """
        for backend, size in enumerate(plan.sizes):
            has = self.held.get(backend)
            if size == 0 or (has is not None and has.size >= size):
                continue
            device = plan.backends[backend]
            if size > device.max_size:
                raise Misuse(
                    f"{device.name} has no buffers of {size} bytes, which the graph needs there: at most {device.max_size}"
                )
            self.held.pop(backend, None)  # given back first: there may be no room for both
            self.generation += 1
            with guard(device):
                self.held[backend] = device.alloc(size)


@dataclass(slots=True)
class Bound:
    """A plan whose tensors have addresses.

    Attributes:
        plan: the plan.
        generation: that of the buffers they lie in.
        messages: for each split, what computes it.
    """

    plan: Plan
    generation: int
    messages: list[WireGraph]


def bind(plan: Plan, buffers: Buffers, guard: Guard) -> Bound:
    """Give a plan's tensors their addresses, and write the messages; servers are asked where buffers lie."""
    for backend, offsets in enumerate(plan.offsets):
        for tensor, offset in offsets.items():
            made = plan.there[backend][tensor]
            made.buffer, made.offset = buffers.held[backend], offset
            if is_padded(made):
                with guard(plan.backends[backend]):
                    plan.backends[backend].init_tensor(made)
    return Bound(plan, buffers.generation, [_message(plan, split, guard) for split in plan.splits])


def _message(plan: Plan, split: Split, guard: Guard) -> WireGraph:
    graph = Graph(plan.backends[split.backend])
    computed = [node for node in range(split.first, split.last) if not plan.graph.is_view[node]]
    graph.nodes = [plan.there[split.backend][node] for node in computed]
    with guard(plan.backends[split.backend]):
        return graph.encode()


class Running:
    """One computation of a plan.

    Args:
        bound: what to compute.
        channels: the connection of each backend.
        guard: what to do while a backend is asked for something.
    """

    def __init__(self, bound: Bound, channels: Sequence[Channel], guard: Guard) -> None:
        self._bound, self._plan, self._channels, self._guard = bound, bound.plan, channels, guard
        # by split and tensor: a state may be handed over again after it has changed
        splits = enumerate(self._plan.splits)
        self._exported: dict[tuple[int, int], Future[Array]] = {(n, t): Future() for n, split in splits for t in split.exports}

    def run(self, pool: ThreadPoolExecutor | None) -> None:
        """Compute every split: in order, or each connection's in order and the connections at the same time.

        Raises:
            What the guard makes of a server that is gone.
        """
        numbers = range(len(self._plan.splits))
        if pool is None:
            self._run_splits(numbers)
            return
        by_channel: dict[int, list[int]] = {}
        for number in numbers:
            by_channel.setdefault(id(self._channels[self._plan.splits[number].backend]), []).append(number)
        running = [pool.submit(self._run_splits, some) for some in by_channel.values()]
        # every thread is waited for: a split that still ran would write into memory that the next computation uses
        failures = [failure for one in running if (failure := one.exception()) is not None]
        if failures:
            raise next((f for f in failures if not isinstance(f, _Abandoned)), failures[0])

    def _run_splits(self, numbers: Sequence[int]) -> None:
        try:
            for number in numbers:
                self._split(number)
        except BaseException:
            # whoever waits for what will not come is told so
            for future in self._exported.values():
                with contextlib.suppress(Exception):
                    future.set_exception(_Abandoned())
            raise

    def _split(self, number: int) -> None:
        split = self._plan.splits[number]
        for tensor in (*split.inputs, *split.written):
            self._copy_input(tensor, split)
        device = self._plan.backends[split.backend]
        with self._guard(device):
            device.compute(self._bound.messages[number])
            for tensor in split.exports:
                # another device of the same server may be the one that has it
                home = self._plan.home(tensor)
                made = self._plan.on(home, tensor)
                self._exported[number, tensor].set_result(self._plan.backends[home].read(made, 0, made.nbytes))

    def _copy_input(self, tensor: int, split: Split) -> None:
        """Copy a tensor to a backend: from the caller's array, within one server, or from backend to backend through here."""
        plan, backend, device = self._plan, split.backend, self._plan.backends[split.backend]
        target = plan.there[backend][tensor]
        if plan.graph.is_input(tensor):
            data = _of_caller(plan, tensor)
        else:
            home = plan.home(tensor)
            source = plan.on(home, tensor)
            if self._channels[home] is self._channels[backend]:
                with self._guard(device):
                    if device.copy(source, target):
                        return
            if tensor in split.makers:
                data = self._exported[split.makers[tensor], tensor].result()
            else:
                with self._guard(plan.backends[home]):
                    data = plan.backends[home].read(source, 0, source.nbytes)
        with self._guard(device):
            device.write(target, data)


class _Abandoned(Exception):  # noqa: N818
    """Another connection's splits failed; their error is the one that counts."""


def _of_caller(plan: Plan, tensor: int) -> Array:
    wanted, owner = plan.graph.tensors[tensor], plan.graph.tensors[plan.graph.owner[tensor]]
    assert isinstance(owner.buffer, Input)
    assert owner.buffer.data is not None
    return owner.buffer.data[wanted.view_offs : wanted.view_offs + wanted.nbytes]
