"""What a scheduler has decided, for people and programs: the splits, where each node is and why, and what is copied."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from ggml_rpc_ref.client.scheduler.assign import REASONS
from ggml_rpc_ref.client.scheduler.plan import Plan
from ggml_rpc_ref.client.scheduler.splits import Split


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node: its name, its op, the backend, and why it is there; views compute nothing."""

    name: str
    op: str
    backend: str
    reason: str
    is_view: bool


@dataclass(frozen=True, slots=True)
class InputRow:
    """What is copied before a split: its name, bytes, from where, how, and the number of the split that computed it, if one did."""

    name: str
    size: int
    source: str
    how: str
    split: int | None


@dataclass(frozen=True, slots=True)
class SplitRow:
    """A split."""

    backend: str
    nodes: tuple[NodeRow, ...]
    inputs: tuple[InputRow, ...]

    @property
    def copied(self) -> int:
        """Bytes that are copied before it."""
        return sum(row.size for row in self.inputs)


@dataclass(frozen=True, slots=True)
class Explanation:
    """All splits of a graph, in the order of execution; printed, it is a text.

    Attributes:
        splits: see there.
        memory: for each backend the bytes of its compute buffer.
        parallel: whether splits of different servers run at the same time.
    """

    splits: tuple[SplitRow, ...]
    memory: dict[str, int]
    parallel: bool

    @property
    def copied(self) -> int:
        """Bytes that each computation copies."""
        return sum(split.copied for split in self.splits)

    def __str__(self) -> str:
        lines = []
        for number, split in enumerate(self.splits):
            count = sum(not node.is_view for node in split.nodes)
            lines.append(f"split {number}: {split.backend}, {count} nodes, {split.copied} bytes copied before it")
            lines += [f"  copy {row.name}: {row.size} bytes, {row.how} {row.source}" for row in split.inputs]
            lines += [f"  {node.op} {node.name}: {node.reason}" for node in split.nodes if not node.is_view]
        lines += [f"{backend}: {size} bytes to compute in" for backend, size in self.memory.items()]
        rest = "; servers compute at the same time" if self.parallel else ""
        return "\n".join([*lines, f"{len(self.splits)} splits, {self.copied} bytes copied in all{rest}"])

    def to_json(self) -> str:
        """Return one JSON object with these fields and `schema_version` 1."""
        return json.dumps({"schema_version": 1, **asdict(self), "copied": self.copied}, indent=2, ensure_ascii=False)

    def to_dot(self) -> str:
        """Return the splits as a graph in Graphviz's language: a box for each, an arrow for each tensor that is copied."""
        lines = ["digraph splits {", "  rankdir=LR; node [shape=box];"]
        for number, split in enumerate(self.splits):
            names = [f"{node.op} {node.name}" for node in split.nodes if not node.is_view]
            shown = names if len(names) <= 6 else [*names[:3], f"… {len(names) - 5} more", *names[-2:]]
            lines.append(f"  s{number} [label={_quoted(f'{number}: {split.backend}', *shown)}];")
            for row in split.inputs:
                origin = _quoted(row.source) if row.split is None else f"s{row.split}"
                lines.append(f"  {origin} -> s{number} [label={_quoted(f'{row.name}, {row.size} bytes')}];")
        return "\n".join([*lines, "}"])


def _quoted(*lines: str) -> str:
    return '"' + "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines) + '"'


def explanation(plan: Plan) -> Explanation:
    """Return what a plan says."""
    names = [backend.name for backend in plan.backends]
    memory = dict[str, int]()
    for name, size in zip(names, plan.sizes, strict=True):
        if size:
            memory[name] = memory.get(name, 0) + size  # two of this machine may be of one kind
    return Explanation(tuple(_split(plan, split, names) for split in plan.splits), memory, plan.parallel)


def _split(plan: Plan, split: Split, names: list[str]) -> SplitRow:
    nodes = [
        NodeRow(
            plan.graph.tensors[node].name,
            plan.graph.tensors[node].op,
            names[plan.where.backend[node]],
            REASONS[plan.where.reason[node]],
            plan.graph.is_view[node],
        )
        for node in range(split.first, split.last)
    ]
    return SplitRow(names[split.backend], tuple(nodes), tuple(_input(plan, split, tensor, names) for tensor in split.inputs))


def _input(plan: Plan, split: Split, tensor: int, names: list[str]) -> InputRow:
    wanted = plan.graph.tensors[tensor]
    home, there = plan.backends[plan.home(tensor)], plan.backends[split.backend]
    if plan.graph.is_input(tensor):
        how, source = "sent from", "the caller's array"
    else:
        how = "within the server, from" if home.client is there.client else "through this machine, from"
        source = names[plan.home(tensor)]
    return InputRow(wanted.name or f"an array {wanted.shape}", wanted.nbytes, source, how, _computed_in(plan, tensor))


def _computed_in(plan: Plan, tensor: int) -> int | None:
    """Return the number of the split that computes a tensor, or what a view shows; names do not say it: they repeat."""
    graph = plan.graph
    while tensor < graph.n and graph.is_view[tensor] and graph.src[tensor]:
        tensor = graph.src[tensor][0]
    if tensor >= graph.n:
        return None
    return next(number for number, split in enumerate(plan.splits) if split.first <= tensor < split.last)
