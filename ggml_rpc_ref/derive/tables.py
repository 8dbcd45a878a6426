"""The tables of messages, sizes, types, numbers and rules, derived from `spec`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import assert_never

from ggml_rpc_ref.blocks import CAN_DEQUANTISE, CAN_QUANTISE
from ggml_rpc_ref.conformance import CASES
from ggml_rpc_ref.conformance.clients.cases import CLIENT_CASES
from ggml_rpc_ref.derive.markdown import escape, table
from ggml_rpc_ref.ops.op import INTERMEDIATE
from ggml_rpc_ref.ops.shared.matmul import VEC_DOT_TYPE
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.dtypes import DEAD_NUMBERS, DTYPES, type_count
from ggml_rpc_ref.spec.files import FILE_RULES
from ggml_rpc_ref.spec.messages import (
    REQUESTS,
    Empty,
    Field,
    Hello,
    NoReply,
    Reply,
    Request,
    RpcTensor,
    all_fields,
    command_name,
    fields,
)
from ggml_rpc_ref.spec.observed import observed
from ggml_rpc_ref.spec.opcodes import OPS_DRIFTED, kinds, op_table
from ggml_rpc_ref.spec.rules import RULES, Rule
from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES, Version
from ggml_rpc_ref.spec.wire import Array, Chars, Counted, Int, Record, Tail, Wire

FIRST = min(PROFILES)
"""The oldest version: what it has already needs no mark."""

# ---------------------------------------------------------------------------------------------------------- messages


def wire_name(wire: Wire, count: str = "") -> str:
    """Return a wire type as the tables write it, e.g. "u32[4]"."""
    match wire:
        case Int():
            return f"{'i' if wire.signed else 'u'}{8 * wire.width}"
        case Chars():
            return f"u8[{wire.length}]"
        case Record():
            return "[RpcTensor](#rpctensor)" if wire.cls is RpcTensor else wire.cls.__name__
        case Array():
            return (
                f"{wire_name(wire.of)} × {wire.length}" if isinstance(wire.of, Record) else f"{wire_name(wire.of)}[{wire.length}]"
            )
        case Counted():
            return f"{wire_name(wire.of)} × {count}" if isinstance(wire.of, Record) else f"{wire_name(wire.of)}[{count}]"
        case Tail():
            return "u8[]"
        case _:
            assert_never(wire)


def layout(cls: type, version: Version = DEFAULT) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield a record's rows: offset, size, field, type, meaning; a count has a row of its own before the field it counts."""
    at, more = 0, ""
    for field in fields(cls, version):
        wire, name = field.wire, f"`{field.name}`"
        if isinstance(wire, Tail):
            yield f"{at}{more}", "the rest", name, wire_name(wire), escape(field.doc)
        elif isinstance(wire, Counted):
            count, each = f"n_{field.name}", codec.wire_size(wire.of, version)
            yield f"{at}{more}", "4", f"`{count}`", "u32", f"how many `{field.name}` follow"
            yield f"{at + 4}{more}", f"{each}·{count}", name, wire_name(wire, count), escape(field.doc)
            at, more = at + 4, f"{more} + {each}·{count}"
        else:
            yield f"{at}{more}", str(codec.wire_size(wire, version)), name, wire_name(wire), escape(field.doc)
            at += codec.wire_size(wire, version)


def record(cls: type) -> str:
    """Return the table of a record's fields."""
    rows = table(("Offset", "Size", "Field", "Type", "Meaning"), layout(cls))
    return f"{rows}\n\n{_history(all_fields(cls))}".rstrip()


def message(cls: type) -> str:
    """Return the description of a command: its request, its reply, and the differences of other versions."""
    row = REQUESTS[cls]
    version = max(row.since, DEFAULT)
    since = f", since {row.since}" if row.since > FIRST else ""
    parts = [
        f"Command {row.number}{since}. {escape(cls.__doc__ or '')}",
        _layout_of(cls, "Request", version),
        _reply_of(row, version),
    ]
    return "\n\n".join([*parts, _history(all_fields(cls), row)]).rstrip()


def _layout_of(cls: type, what: str, version: Version) -> str:
    rows = list(layout(cls, version))
    if not rows:
        return f"**{what}**: no payload; the size is 0."
    return f"**{what}**, {size_of(cls, version)}:\n\n" + table(("Offset", "Size", "Field", "Type", "Meaning"), rows)


def _reply_of(row: Request, version: Version) -> str:
    reply = row.reply(version)
    if isinstance(reply, NoReply):
        return "**Reply**: none. The server writes nothing, the client reads nothing."
    if reply is Empty:
        return "**Reply**: empty: eight zero bytes, which are a size of 0."
    return _layout_of(reply, "Reply", version)


def _history(known: Sequence[Field], row: Request | None = None) -> str:
    """Return the differences of other versions in words."""
    replies = row.replies if row is not None else ()
    answers = all_fields(replies[-1][1]) if replies and isinstance(replies[-1][1], type) and replies[-1][1] is not Empty else ()
    marks = [mark for field in known for mark in _marks(field, row)]
    marks += [f"in the reply {mark}" for field in answers for mark in _marks(field, row)]
    if len(replies) > 1:
        marks.append("reply " + ", ".join(f"{_reply_name(reply)} since {since}" for since, reply in replies))
    return f"Other versions: {'; '.join(marks)}." if marks else ""


def _marks(field: Field, row: Request | None) -> Iterator[str]:
    if field.since > (FIRST if row is None else row.since):
        yield f"`{field.name}` ({wire_name(field.wire)}: {escape(field.doc)}) since {field.since}"
    if field.until is not None:
        yield f"`{field.name}` until {field.until}, not included"


def _reply_name(reply: Reply) -> str:
    if isinstance(reply, NoReply):
        return "none"
    return "empty" if reply is Empty else f"of {size_of(reply, DEFAULT)}"


def size_of(cls: type, version: Version) -> str:
    """Return a record's size in words, e.g. "12 + 8·n_nodes + 296·n_tensors bytes"."""
    terms = [str(codec.minimum_size(cls, version))]
    for field in fields(cls, version):
        if isinstance(field.wire, Counted):
            terms.append(f"{codec.wire_size(field.wire.of, version)}·n_{field.name}")
        elif isinstance(field.wire, Tail):
            terms.append(f"the length of `{field.name}`")
    # the length of `data` is in bytes anyway
    return " + ".join(terms).removeprefix("0 + ") + (" byte" if terms == ["1"] else " bytes" if "data" not in terms[-1] else "")


def commands() -> str:
    """Return the table of commands: number, name, since when, sizes, reply."""
    rows = []
    for row in REQUESTS.values():
        name = command_name(row.cls)
        version = max(row.since, DEFAULT)
        rows.append((row.number, f"[{name}](#{name.lower()})", row.since, *_cells(row, version), escape(row.cls.__doc__ or "")))
    return table(("No.", "Command", "Since", "Request", "Reply", "What it does"), rows)


def _cells(row: Request, version: Version) -> tuple[str, str]:
    """Return the request and reply sizes as cells of a table."""
    if row.since > version:
        return "", ""
    reply = row.reply(version)
    if isinstance(reply, NoReply):
        answer = "none"
    elif not codec.is_fixed(reply, version):
        answer = "n"
    else:
        answer = "0" if reply is Empty else str(codec.minimum_size(reply, version))
    return f"{codec.minimum_size(row.cls, version)}{'' if codec.is_fixed(row.cls, version) else '+'}", answer


def sizes() -> str:
    """Return payload sizes, request / reply, by version; neighbouring versions that agree share a column."""
    columns = [(v, [" / ".join(_cells(row, v)).strip(" /") for row in REQUESTS.values()]) for v in PROFILES]
    head, cells = ["Command"], []
    for column, group in groupby(columns, lambda pair: pair[1]):
        span = [version for version, _ in group]
        head.append(str(span[0]) if len(span) == 1 else f"{span[0]} – {span[-1]}")
        cells.append(column)
    names = [f"{row.number} {command_name(row.cls)}" for row in REQUESTS.values()]
    return table(head, zip(names, *cells, strict=True))


def versions() -> str:
    """Return one row per protocol version."""
    rows = []
    for version, profile in PROFILES.items():
        hello = REQUESTS[Hello]
        ops = f"{_table_name(version)} ({len(op_table(version))})"
        name = f"**{version}**" if version == DEFAULT else str(version)
        hello_sizes = " / ".join(_cells(hello, version))
        proven = "yes" if profile.proven else ""
        rows.append((name, profile.date, profile.builds, profile.news, hello_sizes, ops, type_count(version), proven))
    head = ("Version", "Merged", "llama.cpp", "What it changed", "HELLO", "Op table (ops)", "First unknown type", "Recorded")
    drifted = "\n".join(f"- {version}: {escape(names)}" for version, names in OPS_DRIFTED.items())
    return f"{table(head, rows)}\n\nVersions whose builds have several op tables:\n\n{drifted}"


# ----------------------------------------------------------------------------------------------------------- numbers


def types() -> str:
    """Return one row per ggml_type, and the numbers that no longer name one."""
    rows = [
        (
            dtype.number,
            dtype.name,
            dtype.block,
            dtype.size,
            dtype.since,
            # the intermediate types are made for dot products: type_traits in ggml.c has no to_float for them
            "yes" if dtype in CAN_DEQUANTISE and dtype.name not in INTERMEDIATE else "",
            "yes" if dtype in CAN_QUANTISE else "",
            VEC_DOT_TYPE.get(dtype.name, ""),
        )
        for dtype in DTYPES
    ]
    head = ("Number", "Type", "Elements per block", "Bytes per block", "Since", "Read as F32", "Written from F32", "Partner")
    dead = "\n".join(f"- {number}: {reason}" for number, reason in DEAD_NUMBERS.items())
    return f"{table(head, rows)}\n\nNumbers that name no type any more:\n\n{dead}"


def op_numbers() -> str:
    """Return every op's number in every op table."""
    names = dict.fromkeys((*op_table(), *op_table(max(PROFILES))))
    others = [version for version in PROFILES if _table_name(version) == version != DEFAULT]

    def number(op: str, version: Version) -> str:
        ops = op_table(version)
        return str(ops.index(op)) if op in ops else ""

    rows = ((f"[{op}](#{_anchor(op)})", f"**{number(op, DEFAULT)}**", *(number(op, version) for version in others)) for op in names)
    # an op without a number here has left an empty bold cell
    return table(("Op", f"**{DEFAULT}**", *map(str, others)), rows).replace("****", "")


def _table_name(version: Version) -> Version:
    """Return the first version with the same op table, which the table is called by."""
    return next(older for older in PROFILES if op_table(older) == op_table(version))


def _anchor(op: str) -> str:
    return op.lower() if op in op_table() else "op-numbers"


def unary_numbers() -> str:
    """Return the numbers of UNARY's functions."""
    return table(("Number", "Function"), enumerate(kinds("UNARY")))


def glu_numbers() -> str:
    """Return the numbers of GLU's gates."""
    return table(("Number", "Gate"), enumerate(kinds("GLU")))


# ------------------------------------------------------------------------------------------------------------- rules


def rules(section: str) -> str:
    """Return a section's rules, and below them the conformance cases that test each."""
    rows = [rule for rule in RULES.values() if rule.id.partition(".")[0] == section]
    genuine = observed()
    head = ("Rule", "Level", "Sentence", "This reference", f"Genuine {genuine.protocol}, observed", "Cases")
    cells = (
        (_target(rule), rule.level, *map(escape, (_sentence(rule), rule.outcome, _observed(rule))), len(_words(rule)))
        for rule in rows
    )
    lists = "\n".join(f"- `{rule.id}/` {', '.join(_words(rule)) or 'none'}" for rule in rows)
    return f"{table(head, cells)}\n\n<details><summary>Cases by rule</summary>\n\n{lists}\n\n</details>"


def _sentence(rule: Rule) -> str:
    """Return a rule's sentence, with the versions that it binds where those are not all."""
    marks = [f"since {rule.since}"] if rule.since > FIRST else []
    marks += [f"until {rule.until}, not included"] if rule.until is not None else []
    return f"{rule.sentence} ({', '.join(marks)})" if marks else rule.sentence


def _observed(rule: Rule) -> str:
    """Return what the default version's build was observed to do, else what the newest observed one with the rule does."""
    if rule.id in observed().rules:
        return observed().rules[rule.id]
    for version in reversed(PROFILES):
        with suppress(LookupError):
            if rule.id in observed(version).rules:
                return f"{version}: {observed(version).rules[rule.id]}"
    return ""


def _target(rule: Rule) -> str:
    return f'<a id="{rule.id}"></a>`{rule.id}`'


def _words(rule: Rule) -> list[str]:
    """Return the ids of a rule's cases without the rule."""
    return [case.id.partition("/")[2] for case in (*CASES.values(), *CLIENT_CASES.values()) if case.rule is rule]


def rule_links() -> str:
    """Return the link definitions that make [rule.id] a link."""
    return "\n".join(f"[{id}]: #{id}" for id in RULES)


def file_rules() -> str:
    """Return the rules of the files around the protocol."""
    rows = ((f'<a id="{rule.id}"></a>`{rule.id}`', escape(rule.sentence)) for rule in FILE_RULES.values())
    return table(("Rule", "Sentence"), rows)
