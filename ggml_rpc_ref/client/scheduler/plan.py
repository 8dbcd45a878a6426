"""A scheduled graph made ready: which split computes what on which backend, in what memory, and what is copied before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ggml_rpc_ref.client.channel import Channel
from ggml_rpc_ref.client.devices import PADDED_TO, Device
from ggml_rpc_ref.client.graph import SIZED_BY_THE_SERVER
from ggml_rpc_ref.client.scheduler.assign import Assigned, Indexed, assign, index
from ggml_rpc_ref.client.scheduler.layout import Need, lay_out
from ggml_rpc_ref.client.scheduler.leaves import Placed
from ggml_rpc_ref.client.scheduler.lost import Guard
from ggml_rpc_ref.client.scheduler.splits import Split, cut
from ggml_rpc_ref.client.tensors import RemoteTensor
from ggml_rpc_ref.spec.messages import FLAG_COMPUTE


@dataclass(slots=True)
class Plan:
    """How a graph is computed on several backends.

    Attributes:
        graph: the graph as numbers.
        where: backend of each tensor.
        splits: in the order of execution.
        backends: by number.
        stays: nodes whose memory no other node gets, so that they can be read afterwards.
        parallel: whether splits of different connections can be computed at the same time.
        there: for each backend the tensors that it has of the graph's, by number.
        offsets: for each backend where in its compute buffer a tensor lies.
        sizes: bytes of each backend's compute buffer.
    """

    graph: Indexed
    where: Assigned
    splits: list[Split]
    backends: Sequence[Device]
    stays: frozenset[int]
    parallel: bool = False
    there: list[dict[int, RemoteTensor]] = field(default_factory=list)
    offsets: list[dict[int, int]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def home(self, tensor: int) -> int:
        """Return the backend that a tensor's memory is on."""
        return self.where.backend[self.graph.owner[tensor]]

    def on(self, backend: int, tensor: int) -> RemoteTensor:
        """Return a tensor as it is on a backend: a leaf, a node, a copy, or a view of one of them."""
        there = self.there[backend]
        if tensor not in there:
            there[tensor] = self._made(backend, tensor)
        return there[tensor]

    def _made(self, backend: int, tensor: int) -> RemoteTensor:
        wanted, at, owner = self.graph.tensors[tensor], self.graph.at, self.graph.owner[tensor]
        if isinstance(wanted.buffer, Placed):
            return wanted.buffer.tensor
        shown = None if owner == tensor else self.on(backend, owner)
        return RemoteTensor(  # not dataclasses.replace, which takes longer than all else here together
            self.backends[backend],
            wanted.dtype,
            wanted.ne,
            wanted.nb,
            wanted.ndim,
            wanted.name,
            op=wanted.op,
            op_params=wanted.op_params,
            src=tuple([None if source is None else self.on(backend, at[source.id]) for source in wanted.src]),
            view_src=None if shown is None else shown.owner,
            view_offs=0 if shown is None else wanted.view_offs + shown.view_offs,
            flags=wanted.flags | FLAG_COMPUTE,
            computed=True,
        )

    def _blank(self, backend: int, like: RemoteTensor) -> RemoteTensor:
        return RemoteTensor(self.backends[backend], like.dtype, like.ne, like.nb, like.ndim, like.name)

    def copy_on(self, backend: int, tensor: int) -> None:
        """Have a copy of a tensor on a backend that reads it."""
        self.there[backend][tensor] = self._blank(backend, self.graph.tensors[tensor])


def make_plan(
    nodes: Sequence[RemoteTensor], backends: Sequence[Device], channels: Sequence[Channel], kept: Sequence[RemoteTensor] = ()
) -> Plan:
    """Assign nodes, cut splits, and note what is handed from one to another.

    Args:
        nodes: in the order of execution.
        backends: by preference.
        channels: the connection of each.
        kept: nodes whose results shall stay, beside those that no other node reads.

    Raises:
        Misuse: as `assign`.
    """
    graph = index(nodes, backends)
    where = assign(graph, backends)
    plan = Plan(graph, where, cut(graph, where), backends, _staying(graph, kept))
    plan.there = [{} for _ in backends]
    safe = _note_exports(plan, channels)
    plan.parallel = safe and _has_independent_splits(plan, channels)
    return plan


def _staying(graph: Indexed, kept: Sequence[RemoteTensor]) -> frozenset[int]:
    read = {source for sources in graph.src for source in sources}
    wanted = {graph.at[tensor.id] for tensor in kept if tensor.id in graph.at}
    return frozenset(graph.owner[node] for node in range(graph.n) if node not in read or node in wanted)


def _note_exports(plan: Plan, channels: Sequence[Channel]) -> bool:
    """Note what each split hands to splits on other connections; return whether splits may be computed at the same time.

    They may not where a split reads a weight or a state of another connection that no earlier split hands over: a later one might
    write there meanwhile.
    """
    safe, latest = True, dict[int, int]()  # by connection
    for number, split in enumerate(plan.splits):
        for tensor in split.inputs:
            channel = channels[plan.home(tensor)]
            if plan.graph.is_input(tensor) or channel is channels[split.backend]:
                continue
            # after the latest split there, which is the maker's or a later one
            if id(channel) not in latest:
                safe = False
                continue
            maker = split.makers[tensor] = latest[id(channel)]
            if tensor not in plan.splits[maker].exports:
                plan.splits[maker].exports.append(tensor)
        latest[id(channels[split.backend])] = number
    return safe


def _has_independent_splits(plan: Plan, channels: Sequence[Channel]) -> bool:
    """Whether a split needs nothing of one before it that is on another connection."""
    needs: list[int] = []  # for each split the splits that must be done before, as bits
    latest: dict[int, int] = {}
    independent = False
    for number, split in enumerate(plan.splits):
        channel = id(channels[split.backend])
        before = [*split.makers.values(), *(latest[c] for c in (channel,) if c in latest)]
        needs.append(0)
        for earlier in before:
            needs[number] |= needs[earlier] | 1 << earlier
        independent = independent or needs[number] != (1 << number) - 1
        latest[channel] = number
    return independent


# --------------------------------------------------------------------------------------------------------------- memory


def place(plan: Plan, guard: Guard) -> None:
    """Make the tensors on each backend, and lay out its compute buffer.

    Raises:
        What the guard makes of a server that is gone: servers are asked for sizes.
    """
    for split in plan.splits:
        for tensor in (*split.inputs, *split.written):
            if not plan.graph.is_input(tensor):
                plan.on(plan.home(tensor), tensor)
            plan.copy_on(split.backend, tensor)
        for node in range(split.first, split.last):
            if not plan.graph.is_view[node]:
                plan.on(split.backend, node)
    laid_out = []
    for backend, device in enumerate(plan.backends):
        with guard(device):
            needs = sorted(_needs(plan, backend), key=lambda need: need.begins)
            laid_out.append(lay_out(needs, device.alignment) if needs else ({}, 0))
    # only now: a plan with some of its sizes would be taken for one that has all
    plan.offsets, plan.sizes = [offsets for offsets, _ in laid_out], [size for _, size in laid_out]


def _needs(plan: Plan, backend: int) -> Iterator[Need]:
    """Yield what the tensors of a backend need: its nodes, and its copies."""
    ends, sized, graph = _ends(plan, backend), dict[int, int](), plan.graph
    copies = {t: split.first for split in plan.splits if split.backend == backend for t in (*split.inputs, *split.written)}
    for tensor, made in plan.there[backend].items():
        if made.view_src is not None or made.buffer is not None:
            continue
        is_copy = tensor in copies
        kind = -tensor - 1 if is_copy or tensor >= graph.n else graph.alike[tensor]
        if kind not in sized:
            asked = made.op in SIZED_BY_THE_SERVER or is_padded(made)
            sized[kind] = plan.backends[backend].alloc_size(made) if asked else made.nbytes
        begins = copies[tensor] if is_copy else tensor
        last = graph.n if not is_copy and tensor in plan.stays else ends.get(tensor, begins)
        yield Need(tensor, sized[kind], begins, last)


def is_padded(tensor: RemoteTensor) -> bool:
    """Whether a server may want to initialise the padding of a tensor's rows, as `Device.place` has it."""
    return tensor.dtype.is_quantised and tensor.ne[0] % PADDED_TO != 0


def _ends(plan: Plan, backend: int) -> dict[int, int]:
    """Return for tensors on a backend the last node at which their memory is needed."""
    graph, ends, there = plan.graph, dict[int, int](), plan.there[backend]
    for split in plan.splits:  # in the order of execution, so that what is noted last counts
        for tensor in split.inputs:  # read there when this split begins
            if plan.home(tensor) == backend:
                ends[graph.owner[tensor]] = split.first
        if split.backend != backend:
            continue
        for node in range(split.first, split.last):
            if graph.is_view[node]:
                continue
            for source in (*graph.src[node], graph.owner[node]):
                held = there.get(source)
                # a copy is memory of its own, also of a view
                ends[source if held is not None and held.view_src is None else graph.owner[source]] = node
    return ends
