"""Which version two ends speak: the forms of HELLO, what its answer means, and what goes wrong between two versions.

HELLO's request carries no version. Its size is the only thing that a server learns of its client, and each side closes on the
other form; so a client that wants to talk to any server tries one form, and after a closed connection the other. A client of
llama.cpp goes on in its own version if the server's is acceptable (`versions.accepts`) and has no other choice; ours by default
goes on in the server's.

Source: negotiate_hello, check_server_version and rpc_serve_client in ggml-rpc.cpp through its history.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from ggml_rpc_ref.errors import Unsupported, Violation
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.dialects import recognised
from ggml_rpc_ref.spec.messages import NO_REPLY, Hello, HelloReply, Reply, Request, by_number, carries_data
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.versions import PROFILES, Version, accepts, named


@cache
def forms() -> tuple[Version, ...]:
    """Return the newest version of each form of HELLO, the newest form first."""
    newest = {codec.minimum_size(Hello, version): version for version in PROFILES}
    return tuple(sorted(newest.values(), reverse=True))


def of_form(size: int) -> tuple[Version, Version] | None:
    """Return the first and the last version whose HELLO has this many bytes; None where no version's has."""
    found = [version for version in PROFILES if codec.minimum_size(Hello, version) == size]
    return (found[0], found[-1]) if found else None


def spoken() -> str:
    """Return the versions that we speak, in words."""
    return ", ".join(map(str, PROFILES))


class Agreed(NamedTuple):
    """What HELLO has settled.

    Attributes:
        announced: the server's version.
        version: the version whose layouts are spoken from here on.
    """

    announced: Version
    version: Version


def agree(reply: HelloReply, form: Version, own: Version | None = None) -> Agreed:
    """Return what a server's answer to HELLO settles.

    Args:
        reply: the answer.
        form: the version in whose form HELLO was sent.
        own: the version that the client keeps to, as a client of llama.cpp does; None: it goes on in the server's (`readable`).

    Raises:
        Violation: session.hello-version, where HELLO of the version that is announced has another form.
        Unsupported: where there is no version to go on in.
    """
    announced = Version(reply.major, reply.minor, reply.patch)
    nearest = _nearest(announced)
    size = codec.minimum_size(Hello, form)
    if nearest is not None and nearest.major == announced.major and codec.minimum_size(Hello, nearest) != size:
        detail = f"it answered a HELLO of {size} bytes, and HELLO of {announced} has {codec.minimum_size(Hello, nearest)}"
        raise Violation("session.hello-version", "version", announced, detail)
    if own is not None:
        if not accepts(own, announced):
            raise Unsupported(_refusal(own, announced))
        return Agreed(announced, own)
    version = readable(announced)
    if version is None:
        raise Unsupported(f"it {not_spoken(announced)}")
    return Agreed(announced, version)


def not_spoken(announced: Version) -> str:
    """Return half a sentence about a server whose version is none of ours, and about ours."""
    fork = recognised(announced)
    who = f", as {fork.name} does, which {fork.differs}; this program speaks" if fork else ", and this program"
    return f"speaks protocol {announced}{who} {spoken()}"


def readable(announced: Version) -> Version | None:
    """Return the known version by whose layouts the messages of another one can be read; None where there is none.

    A patch renumbers ops and changes no layout; and of some forks it is known whose layouts they have.
    """
    fork, nearest = recognised(announced), _nearest(announced)
    if fork is not None:
        return fork.layouts
    return nearest if nearest is not None and nearest[:2] == announced[:2] else None


def _nearest(version: Version) -> Version | None:
    """Return the newest known version that is not newer."""
    return max((known for known in PROFILES if known <= version), default=None)


def _refusal(own: Version, server: Version) -> str:
    known = server in PROFILES and own in PROFILES
    harm = next(breaks(own, server), "") if known else ""
    rule = "a client goes on only with its own major version and a minor version not above its own"
    return f"it speaks protocol {named(server)}, this client {named(own)}, and {rule}" + (f": otherwise {harm}" if harm else "")


# ------------------------------------------------------------------------------------------------ what a mismatch breaks


def breaks(client: Version, server: Version) -> Iterator[str]:
    """Yield what goes wrong where a client speaks one version and its server another, the gravest first; nothing: all is well.

    Derived from the tables: HELLO, commands that the server lacks, sizes, replies, and numbers of ops.
    """
    if codec.minimum_size(Hello, client) != codec.minimum_size(Hello, server):
        yield (
            f"HELLO has {codec.minimum_size(Hello, client)} bytes in {client} and {codec.minimum_size(Hello, server)} in {server}: "
            "the server closes the connection and no version is exchanged"
        )
        return
    theirs = by_number(server)
    for number, row in by_number(client).items():
        yield from _command_breaks(row, theirs.get(number), client, server)
    yield from _op_breaks(client, server)


def _command_breaks(row: Request, other: Request | None, client: Version, server: Version) -> Iterator[str]:
    if other is None:
        yield f"the server closes the connection at {row.name}, which {server} does not have"
        return
    mine, theirs = codec.minimum_size(row.cls, client), codec.minimum_size(row.cls, server)
    if mine != theirs:
        fixed = codec.is_fixed(row.cls, server)
        effect = "closes the connection" if fixed or mine < theirs else "reads its fields in the wrong places"
        yield f"the server {effect} at {row.name}, of {_size(row.cls, mine)} in {client} and {_size(row.cls, theirs)} in {server}"
    yield from _reply_breaks(row.name, row.reply(client), row.reply(server), client, server)


def _reply_breaks(name: str, wanted: Reply, given: Reply, client: Version, server: Version) -> Iterator[str]:
    if wanted is given:
        return
    if wanted is NO_REPLY:
        yield f"the reply to {name}, which {server} gives and {client} does not read, is taken for the next one"
    elif given is NO_REPLY:
        yield f"the client waits for ever for the reply to {name}, which {server} does not give"


def _op_breaks(client: Version, server: Version) -> Iterator[str]:
    mine, theirs = op_table(client), op_table(server)
    if not mine or not theirs or mine == theirs[: len(mine)]:
        return
    moved = [op for number, op in enumerate(mine) if number >= len(theirs) or theirs[number] != op]
    first = moved[0]
    number = mine.index(first)
    there = theirs[number] if number < len(theirs) else "no op"
    yield f"the server computes other ops: {len(moved)} of {len(mine)} have other numbers, the first {number}, {first} and {there}"


def _size(cls: type, size: int) -> str:
    return f"{'at least ' if carries_data(cls) or not codec.is_fixed(cls) else ''}{size} bytes"
