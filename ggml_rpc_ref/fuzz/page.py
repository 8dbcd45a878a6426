"""A campaign as one HTML page without any other file: finds with their bytes explained, growth over time, what was reached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, Final

from ggml_rpc_ref.errors import Misuse, Violation
from ggml_rpc_ref.fuzz.events import Began, Count
from ggml_rpc_ref.fuzz.finds import Find
from ggml_rpc_ref.fuzz.marks import marks, told
from ggml_rpc_ref.fuzz.packet import meaning
from ggml_rpc_ref.fuzz.plan import HEAD
from ggml_rpc_ref.fuzz.session import Session, Step
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import Graph, graph_nodes_offset
from ggml_rpc_ref.spec.dtypes import BY_NUMBER
from ggml_rpc_ref.spec.messages import RpcTensor, SetTensor, fields
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.versions import Version

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 72em; padding: 0 1em; color: #222; background: #fff }
table { border-collapse: collapse; margin: .5em 0 } td, th { padding: .15em .8em .15em 0; text-align: left; vertical-align: top }
td.n { text-align: right } code, pre { font: 13px/1.4 ui-monospace, monospace }
pre { overflow-x: auto; background: #f6f6f6; padding: .6em }
details { border-top: 1px solid #ddd; padding: .4em 0 } summary { cursor: pointer } b.changed { background: #ffe08a }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd } pre { background: #222 } b.changed { color: #222 } }
"""
SHOWN: Final = 24
"""Rows of a message's fields, and tensors of a graph, that are shown."""


def page(began: Began | None, count: Count, finds: Sequence[Find]) -> str:
    """Return the page."""
    target = began.target if began else "the target"
    version = f", protocol {began.version}" if began else ""
    head = f"<title>fuzz: {escape(target)}</title><meta charset=utf-8><style>{_STYLE}</style>"
    parts = [
        f"<h1>{escape(target)}{version}</h1>",
        f"<p>{count.messages} messages in {count.sessions} sessions and {count.seconds:.0f} s: {count.rate:.0f} a second. "
        f"{count.deaths} deaths, {len(finds)} finds.</p>",
        growth(finds, count.seconds),
        curve("outcomes", [(seconds, states) for seconds, _, states, _ in count.growth]),
        curve("edges of the server's code", [(seconds, edges) for seconds, _, _, edges in count.growth]) if count.edges else "",
        _summary(finds),
        "<h2>Finds</h2>",
        *[_find(find) for find in finds],
        "<h2>Reached</h2>",
        _bars("Commands", count.commands),
        _bars("Ops", count.ops),
        _bars("What the model says of the sessions it was asked about", count.verdicts),
    ]
    return f"<!doctype html><html lang=en>{head}<body>{''.join(parts)}</body></html>\n"


def growth(finds: Sequence[Find], seconds: float) -> str:
    """Return a drawing of how many finds there were at each time."""
    times = sorted(find.seconds for find in finds)
    if not times:
        return "<p>Nothing was found.</p>"
    across, up = 600 / max(seconds, times[-1], 1.0), 160 / len(times)
    points, last = ["0,170"], 0
    for number, moment in enumerate(times, 1):
        points += [f"{moment * across:.0f},{170 - last * up:.0f}", f"{moment * across:.0f},{170 - number * up:.0f}"]
        last = number
    points.append(f"600,{170 - last * up:.0f}")
    line = f'<polyline fill="none" stroke="currentColor" stroke-width="2" points="{" ".join(points)}"/>'
    words = f"{len(times)} finds; the first after {times[0]:.1f} s, half of them after {times[len(times) // 2]:.1f} s"
    return f'<svg viewBox="0 0 640 180" width="640" role="img" aria-label="{words}">{line}</svg><p>{words}.</p>'


def curve(what: str, points: Sequence[tuple[float, int]]) -> str:
    """Return a drawing of how many of something there were at each time; nothing where there were none."""
    if not points or not points[-1][1]:
        return ""
    across, up = 600 / max(points[-1][0], 1.0), 160 / max(number for _, number in points)
    drawn = " ".join(f"{seconds * across:.0f},{170 - number * up:.0f}" for seconds, number in [(0.0, 0), *points])
    half = next(seconds for seconds, number in points if 2 * number >= points[-1][1])
    words = f"{points[-1][1]} {what}, half of them after {half:.1f} s"
    line = f'<polyline fill="none" stroke="currentColor" stroke-width="2" points="{drawn}"/>'
    return f'<svg viewBox="0 0 640 180" width="640" role="img" aria-label="{words}">{line}</svg><p>{words}.</p>'


def _summary(finds: Sequence[Find]) -> str:
    rows = "".join(f"<tr><td>{escape(kind)}<td class=n>{n}" for kind, n in Counter(find.kind.value for find in finds).most_common())
    return f"<table>{rows}</table>"


def _bars(title: str, counts: Counter[str]) -> str:
    rows = "".join(f"<tr><td><code>{escape(name)}</code><td class=n>{number}" for name, number in counts.most_common())
    return f"<details><summary>{escape(title)}: {len(counts)}</summary><table>{rows}</table></details>"


def _find(find: Find) -> str:
    again, tries = find.reproduced
    changed = "".join(
        f"<li><code>{escape(n.mutation)}</code> on {escape(n.target)}: {escape(n.what)}" for s in find.sessions for n in s.notes
    )
    stack = "".join(f"<li><code>{escape(frame)}</code>" for frame in (find.death.frames[:12] if find.death else ()))
    rule = f" <code>{escape(find.rule)}</code>" if find.rule else ""
    bytes_ = "".join(_session(session) for session in find.sessions)
    return (
        f"<details><summary><b>{escape(find.kind.value)}</b>{rule} {escape(find.about)}</summary>"
        f"<p><code>{escape(find.id)}</code>: after {find.seconds:.1f} s and {find.messages} messages; {again} of {tries} times; "
        f"{find.steps} messages, {find.steps_before} before it was made smaller; seen {find.seen} times.</p>"
        f"<ul>{changed}</ul>{f'<p>Stack:</p><ol>{stack}</ol>' if stack else ''}{bytes_}</details>"
    )


def _session(session: Session) -> str:
    return f"<pre>{chr(10).join(_step(step, session.version) for step in session.steps)}</pre>"


def _step(step: Step, version: Version) -> str:
    """Return a message with its fields; the changed ones first, or all of it marked where it is new or of another length."""
    head, found = f"{step.connection + 1}: {escape(step.label(version))}", marks(step, version)
    changed = "".join(f"\n  <b class=changed>{escape(told(mark, step, version))}</b>" for mark in found[:SHOWN])
    head = f"<b class=changed>{head}</b>" if step.mutated and not found else head
    return f"{head}{changed}\n{escape(chr(10).join(explained(step, version)))}"


def explained(step: Step, version: Version) -> Iterator[str]:
    """Yield the fields of what a step sends, with their offsets, a line each; bytes where it is not a message."""
    data = step.packet(version).template
    if isinstance(step.message, Graph):
        yield from _graph(step.message, version)
        return
    try:
        message = codec.decode(type(step.message), data[HEAD:], version)
    except (Violation, Misuse, AttributeError, TypeError):
        yield f"  {data[:96].hex()}{'…' if len(data) > 96 else ''} ({len(data)} bytes)"
        return
    at = HEAD
    for row in fields(type(message), version):
        value: Any = getattr(message, row.name)
        yield f"  {at:6} {row.name} = {_value(value)}"
        at += codec.wire_size(row.wire, version)
    if isinstance(message, SetTensor):
        yield f"         {len(message.data)} bytes of data"


def _graph(graph: Graph, version: Version) -> Iterator[str]:
    yield f"  {HEAD:6} device = {graph.device}, uid = {graph.uid}, nodes = {[hex(i) for i in graph.nodes.tolist()[:8]]}"
    table, first = op_table(version), HEAD + graph_nodes_offset(version) + 8 * len(graph.nodes) + 4
    for number, record in enumerate(graph.tensors[:SHOWN]):
        op, kind = int(record["op"]), BY_NUMBER.get(int(record["type"]))
        at = first + number * codec.minimum_size(RpcTensor, version)
        src = [hex(i) for i in record["src"].tolist() if i]
        words = [f"id {int(record['id']):#x}", kind.name if kind else f"type {int(record['type'])}", f"ne {record['ne'].tolist()}"]
        words += [f"nb {record['nb'].tolist()}", f"data {_number(int(record['data']))}", f"buffer {_number(int(record['buffer']))}"]
        if op:
            params = record["op_params"].tolist()
            words += [
                table[op] if op < len(table) else f"op {op}",
                f"op_params {params}",
                f"flags {int(record['flags'])}",
                f"src {src}",
            ]
        if record["view_src"]:
            words.append(f"view_src {int(record['view_src']):#x} + {int(record['view_offs'])}")
        yield f"  {at:6} " + ", ".join(words)


def _value(value: Any) -> str:
    if isinstance(value, RpcTensor):
        kind = BY_NUMBER.get(value.type)
        layout = f"{kind.name if kind else value.type} ne {list(value.ne)} nb {list(value.nb)}"
        return f"{layout} at {_number(value.data)} in {_number(value.buffer)}"
    if isinstance(value, bytes):
        return f"{value[:16].hex()}{'…' if len(value) > 16 else ''} ({len(value)} bytes)"
    if isinstance(value, tuple):
        return f"{len(value)} entries"
    return _number(value)


def _number(number: int) -> str:
    known = meaning(number)
    if known is None:
        return str(number) if number < 2**20 else hex(number)
    return f"buffer{known[1]}.{'base' if known[0] else 'handle'}{known[2]:+d}"
