"""A C header with the records, commands and numbers of one version: what a C program needs to speak the protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import takewhile

from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.dtypes import types
from ggml_rpc_ref.spec.messages import Empty, RpcTensor, by_number, command_name, fields
from ggml_rpc_ref.spec.opcodes import kinds, op_table
from ggml_rpc_ref.spec.versions import DEFAULT
from ggml_rpc_ref.spec.wire import Array, Chars, Int, Record, Wire

START = f"""\
/* ggml RPC {DEFAULT}: records, commands and numbers, in ggml's names. SPEC.md says what they mean.
   Written by `ggml-rpc-ref gen --header`. For little-endian hosts: a struct has the bytes of the wire. */
#pragma once
#include <assert.h>
#include <stdint.h>"""


def header() -> str:
    """Return the header's text, C11 and C++11. A record ends before its first field of variable size."""
    parts = [
        START,
        enum("RPC_CMD", ((command_name(row.cls), number) for number, row in sorted(by_number(DEFAULT).items()))),
        enum("GGML_TYPE", ((dtype.name, number) for number, dtype in types().items())),
        enum("GGML_OP", counted(op_table())),
        enum("GGML_UNARY_OP", counted(kinds("UNARY"))),
        enum("GGML_GLU_OP", counted(kinds("GLU"))),
        "#pragma pack(push, 1)",
        *_records(),
        "#pragma pack(pop)",
    ]
    return "\n\n".join(parts) + "\n"


def counted(names: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Return names with their places."""
    return ((name, number) for number, name in enumerate(names))


def enum(prefix: str, numbers: Iterable[tuple[str, int]]) -> str:
    """Return a C enum."""
    return f"enum {prefix.lower()} {{\n" + "".join(f"    {prefix}_{name} = {number},\n" for name, number in numbers) + "};"


def _records() -> Iterator[str]:
    yield from _struct("rpc_tensor", RpcTensor)
    for row in by_number(DEFAULT).values():
        name, reply = f"rpc_{command_name(row.cls).lower()}", row.reply(DEFAULT)
        yield from _struct(f"{name}_request", row.cls)
        if isinstance(reply, type) and reply is not Empty:
            yield from _struct(f"{name}_reply", reply)


def _struct(name: str, cls: type) -> Iterator[str]:
    """Yield a struct of the fields before the first one of variable size; nothing where there are none."""
    declared = ((_member(field.name, field.wire), field.doc) for field in fields(cls))
    members = "".join(f"    {member}; /* {doc} */\n" for member, doc in takewhile(lambda pair: pair[0], declared))
    check = f'\nstatic_assert(sizeof(struct {name}) == {codec.minimum_size(cls)}, "{name}");' if codec.is_fixed(cls) else ""
    if members:
        yield f"struct {name} {{\n{members}}};{check}"


def _member(name: str, wire: Wire) -> str:
    """Return a declaration; "" for what has no fixed size."""
    match wire:
        case Int():
            return f"{'' if wire.signed else 'u'}int{8 * wire.width}_t {name}"
        case Chars():
            return f"uint8_t {name}[{wire.length}]"
        case Record():
            # the only record that is part of others
            return f"struct rpc_tensor {name}"
        case Array():
            return f"{_member(name, wire.of)}[{wire.length}]"
        case _:
            return ""
