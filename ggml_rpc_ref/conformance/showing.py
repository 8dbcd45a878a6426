"""Explanations for `ggml-rpc-ref show`: of rules, cases, commands, ops and types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from inspect import getdoc

from ggml_rpc_ref.conformance.case import CASES, Case
from ggml_rpc_ref.conformance.choosing import touching
from ggml_rpc_ref.conformance.clients.cases import CLIENT_CASES
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.files import FILE_RULES
from ggml_rpc_ref.spec.messages import REQUESTS, Empty, NoReply, Reply, Request, fields
from ggml_rpc_ref.spec.observed import observed
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.rules import RULES
from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES, Version
from ggml_rpc_ref.spec.wire import Array, Chars, Counted, Int, Record, Tail, Wire

SHOWN = 12
"""Cases that an explanation of a command, op or type lists."""


def show(name: str) -> Iterator[str]:
    """Yield lines that explain a rule, a case and its rule, a command, an op, a type, or a rule of the files around the protocol.

    Raises:
        Misuse: for an unknown name.
    """
    upper = name.upper().removeprefix("RPC_CMD_").removeprefix("GGML_OP_").removeprefix("GGML_TYPE_")
    commands = {row.name: row for row in REQUESTS.values()}
    if name in FILE_RULES:
        yield from (name, f"  {FILE_RULES[name].sentence}", '  SPEC.md, chapter "Files around the protocol", describes the files')
    elif name in CASES or name in CLIENT_CASES or name in RULES:
        yield from _rule(name)
    elif upper in commands:
        yield from _command(commands[upper])
    elif upper in op_table(max(PROFILES)):
        yield from _op(upper)
    elif upper in BY_NAME:
        yield from _type(upper)
    else:
        elsewhere = "`ggml-rpc-ref cases list` lists them; a vector explains itself in its file"
        raise Misuse(f"no rule and no case has the id {name!r}, and no command, op or type that name; {elsewhere}")


def _rule(name: str) -> Iterator[str]:
    case = CASES.get(name) or CLIENT_CASES.get(name)
    rule = RULES[name] if case is None else case.rule
    if case is not None:
        yield from (name, f"  {case.doc}", "")
    yield f"{rule.id} ({rule.level})"
    yield f"  {rule.sentence}"
    ours, genuine = ("our client:", "genuine client:") if rule.binds == "client" else ("our server:", "genuine rpc-server:")
    yield f"  {ours:<20} {rule.outcome}"
    yield f"  {genuine:<20} {observed().rules.get(rule.id, f'{DEFAULT} is not bound by it')}"
    if case is None:
        both = (*CASES.values(), *CLIENT_CASES.values())
        yield from (f"  {case.id}  {case.doc}" for case in both if case.rule is rule)


# -------------------------------------------------------------------------------------------------------------- commands


def _command(row: Request) -> Iterator[str]:
    version = DEFAULT if row.since <= DEFAULT else row.since
    yield f"{row.name} (command {row.number}, from {row.since} on)"
    yield f"  {' '.join((getdoc(row.cls) or '').split())}"
    yield f"  request in {version}:"
    yield from _fields(row.cls, version)
    yield from _reply(row.reply(version), version)
    yield from _cases("command", row.name)


def _fields(cls: type, version: Version) -> Iterator[str]:
    there = fields(cls, version)
    width = max((len(field.name) for field in there), default=0)
    for field in there:
        yield f"    {field.name:<{width}}  {_wire(field.wire):<12} {field.doc}"
    if not there:
        yield "    no fields: the payload is empty"


def _wire(wire: Wire) -> str:
    match wire:
        case Int(size, signed):
            return f"{'i' if signed else 'u'}{8 * size}"
        case Chars(length):
            return f"{length} bytes"
        case Record(cls):
            return cls.__name__
        case Array(of, length):
            return f"{length} x {_wire(of)}"
        case Counted(of):
            return f"u32, {_wire(of)}s"
        case Tail():
            return "the rest"


def _reply(reply: Reply, version: Version) -> Iterator[str]:
    if isinstance(reply, NoReply):
        yield "  no reply"
    elif reply is Empty:
        yield "  reply: empty, a size of 0"
    else:
        yield "  reply:"
        yield from _fields(reply, version)


# --------------------------------------------------------------------------------------------------------- ops and types


def _op(name: str) -> Iterator[str]:
    versions = [version for version in PROFILES if name in op_table(version)]
    number = f"op {op_table(DEFAULT).index(name)} in {DEFAULT}, " if name in op_table(DEFAULT) else ""
    until = f" to {versions[-1]}" if versions[-1] != max(PROFILES) else " on"
    yield f"{name} ({number}from {versions[0]}{until})"
    try:
        doc = getdoc(import_module(f"ggml_rpc_ref.ops.{name.lower()}")) or ""
    except ModuleNotFoundError:
        doc = "This oracle does not compute it."
    yield from (f"  {line}".rstrip() for line in doc.splitlines())
    yield from _cases("op", name)


def _type(name: str) -> Iterator[str]:
    dtype = BY_NAME[name]
    yield f"{name} (ggml_type {dtype.number}, from {dtype.since} on)"
    if dtype.is_quantised:
        yield f"  {dtype.size} bytes for {dtype.block} elements, {8 * dtype.size / dtype.block:.4g} bits an element"
    else:
        yield f"  {dtype.size} byte{'s' * (dtype.size != 1)} an element"
    yield from _cases("type", name)


def _cases(kind: str, name: str) -> Iterator[str]:
    found = touching(kind, name)
    yield f"  {len(found)} cases name it: `ggml-rpc-ref conform --only {kind}:{name}`"
    yield from _listed(found[:SHOWN])


def _listed(cases: Iterable[Case]) -> Iterator[str]:
    yield from (f"    {case.id}  {case.doc}" for case in cases)
