"""The graphs of GRAPH_COMPUTE messages, listed or drawn: `decode --graph text|dot`.

A tensor is named by its index in the message, %0, %1, …: its id is an address in the client's memory and tells nothing. The
arrays of `Graph` are what is read. A reference to an id that no tensor has is shown as "missing", since faulty graphs are the
ones worth looking at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from ggml_rpc_ref.decode import words
from ggml_rpc_ref.decode.model import Message
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.spec.messages import GraphCompute
from ggml_rpc_ref.spec.versions import Version


class View:
    """A graph as Python values.

    Args:
        graph: the message.
        version: the version by whose op table ops are named.
    """

    def __init__(self, graph: Graph, version: Version) -> None:
        self.device, self.version = graph.device, version
        self.nodes: list[int] = graph.nodes.tolist()
        names = graph.tensors.dtype.names or ()
        columns = [graph.tensors[name].tolist() for name in names]
        self.tensors: list[words.Values] = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        self.places: dict[int, int] = {}
        self.computed = set(self.nodes)
        for place, tensor in enumerate(self.tensors):
            self.places.setdefault(tensor["id"], place)

    @classmethod
    def of(cls, message: Message) -> View:
        """Return the graph of a complete GRAPH_COMPUTE."""
        return cls(Graph.decode(message.payload(), message.version), message.version)

    def label(self, id: int) -> str:
        """Return the name of a tensor in the listing."""
        return f"%{self.places[id]}" if id in self.places else f"missing {id:#x}"

    def op(self, tensor: words.Values) -> str:
        """Return the tensor's op, with the function's name for UNARY and GLU."""
        return words.full_op_name(tensor["op"], tensor["op_params"], self.version)

    def sources(self, tensor: words.Values) -> list[int]:
        """Return the ids of the sources, in the order of their slots; empty slots at the end left out."""
        ids: list[int] = list(tensor["src"])
        while ids and not ids[-1]:
            ids.pop()
        return ids


def is_whole(message: Message) -> bool:
    """Whether a message is a complete GRAPH_COMPUTE."""
    return message.cls is GraphCompute and message.fault is None


def as_text(view: View, title: str) -> Iterator[str]:
    """Yield a graph's lines: the nodes in the order of execution, then the tensors that are not computed."""
    yield f"{title}: device {view.device}, {len(view.nodes)} nodes, {len(view.tensors)} tensors"
    for number, id in enumerate(view.nodes):
        place = view.places.get(id)
        yield f"  {number:4}  " + (f"missing {id:#x}" if place is None else _node(view, place))
    rest = [place for place, tensor in enumerate(view.tensors) if tensor["id"] not in view.computed]
    if rest:
        yield "  not computed:"
    for place in rest:
        yield f"        {_node(view, place)}"


def _node(view: View, place: int) -> str:
    tensor = view.tensors[place]
    sources = ", ".join(view.label(id) if id else "-" for id in view.sources(tensor))
    params = words.params_text(tensor["op"], tensor["op_params"], view.version) if tensor["op"] else ""
    call = f"{view.op(tensor)}({', '.join(part for part in (sources, params) if part)})"
    shape = f"{words.type_name(tensor['type'])} {words.shape_text(tensor['ne'])}"
    seen = f"  view of {view.label(tensor['view_src'])} + {tensor['view_offs']}" if tensor["view_src"] else ""
    flags = f"  {words.flags_text(tensor['flags'])}" if tensor["flags"] else ""
    return f'%{place} = {call}  {shape}  "{words.text_of(tensor["name"])}"{seen}{flags}'


LAYOUT: Final = "rankdir=TB; splines=line; nslimit=2; nslimit1=2"
"""Attributes for Graphviz. With them, dot 2.43 lays out the first two graphs of Gemma 3 270M (728 nodes each) in seven seconds;
without them, and with each mask drawn only once, it had not finished after nine minutes."""


def as_dot(views: Iterable[tuple[str, View]]) -> Iterator[str]:
    """Yield the lines of one Graphviz file: a cluster for each graph, sources as arrows, dashed where they are viewed.

    A tensor that is not computed is drawn beside each node that uses it: a mask shared by all layers, drawn once, would pull the
    whole drawing together.
    """
    yield "digraph ggml_rpc {"
    yield f'  {LAYOUT}; node [shape=box, fontname="monospace", fontsize=10]; edge [fontsize=9];'
    for number, (title, view) in enumerate(views):
        yield f"  subgraph cluster_{number} {{"
        yield f'    label="{title}";'
        yield from (f"    {line}" for line in _dot_lines(view, f"g{number}_"))
        yield "  }"
    yield "}"


def _dot_lines(view: View, prefix: str) -> Iterator[str]:
    for id in dict.fromkeys(view.nodes):
        place = view.places.get(id)
        if place is None:
            yield f'"{prefix}missing {id:#x}" [label="missing {id:#x}"];'
            continue
        node = f"{prefix}{place}"
        yield _dot_node(view, place, node)
        for source, (slots, is_viewed) in _uses(view, view.tensors[place]).items():
            start, found = f"{prefix}{view.places.get(source)}", view.places.get(source)
            if source not in view.computed:
                start = f'"{node} {source:#x}"'
                yield _dot_node(view, found, start) if found is not None else f'{start} [label="missing {source:#x}"];'
            yield f'{start} -> {node} [label="{", ".join(slots)}"{", style=dashed" if is_viewed else ""}];'


def _uses(view: View, tensor: words.Values) -> dict[int, tuple[list[str], bool]]:
    """Return the ids that a tensor refers to; for each its slots as source, and whether the tensor is a view of it."""
    uses: dict[int, tuple[list[str], bool]] = {}
    for slot, id in enumerate(view.sources(tensor)):
        if id:
            uses.setdefault(id, ([], id == tensor["view_src"]))[0].append(str(slot))
    if tensor["view_src"]:
        uses.setdefault(tensor["view_src"], ([], True))[0].append(f"+{tensor['view_offs']}")
    return uses


def _dot_node(view: View, place: int, name: str) -> str:
    tensor = view.tensors[place]
    op = view.op(tensor) if tensor["op"] else ""
    shape = f"{words.type_name(tensor['type'])} {words.shape_text(tensor['ne'])}"
    label = "\\n".join(text for text in (f"%{place} {op}".strip(), shape, _dot_name(tensor["name"])) if text)
    return f'{name} [label="{label}"{"" if tensor["id"] in view.computed else ", style=rounded"}];'


def _dot_name(name: bytes) -> str:
    return words.text_of(name).replace("\\", "\\\\")
