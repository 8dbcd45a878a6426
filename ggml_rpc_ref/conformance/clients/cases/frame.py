"""Section "frame" for clients: sizes of requests; replies that are short, long, late, cut up or missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ggml_rpc_ref.conformance.clients.bench import Bench, asked_again, require_failure, require_right
from ggml_rpc_ref.conformance.clients.case import client_case
from ggml_rpc_ref.conformance.clients.refused import require_none
from ggml_rpc_ref.conformance.clients.script import EACH_BYTE, EVERY, Alter, Change, End, Script, fault
from ggml_rpc_ref.conformance.marks import payload_since
from ggml_rpc_ref.conformance.verdict import Broken, require
from ggml_rpc_ref.spec.messages import NO_REPLY, REQUESTS, Empty, Hello, Request
from ggml_rpc_ref.spec.versions import PROFILES, Version

SIZE: Final = 8
"""Bytes of a reply's size."""
LATE: Final = 1.0
"""Seconds: longer than any machine between the two takes, shorter than any time-out that leaves graphs time."""


def _words(row: Request) -> str:
    return row.name.lower().replace("_", "-")


def _answered(row: Request) -> list[Version]:
    return [version for version in PROFILES if version >= row.since and row.reply(version) is not NO_REPLY]


def _until(row: Request) -> Version | None:
    """Return the first version that does not answer it any more."""
    return next((version for version in PROFILES if version > _answered(row)[-1]), None)


ANSWERED: Final = {_words(row): row for row in REQUESTS.values() if _answered(row)}
"""Requests that some version answers."""
WITH_PAYLOAD: Final = {words: row for words, row in ANSWERED.items() if row.reply(_answered(row)[0]) is not Empty}
"""Requests whose reply has a payload."""
UNANSWERED: Final = {_words(row): row for row in REQUESTS.values() if row.reply(max(PROFILES)) is NO_REPLY}
"""Requests that some version does not answer."""


def _unanswered_since(row: Request) -> Version:
    return next(version for version in PROFILES if version >= row.since and row.reply(version) is NO_REPLY)


def _since(row: Request) -> Version:
    return _answered(row)[0]


# ---------------------------------------------------------------------------------------------------------------- requests


@client_case("frame.requests/honest")
def requests_are_right(bench: Bench) -> None:
    """Every request to an honest server has a command of the version and just the size that its fields have."""
    require_none("frame.requests", [bench.honest()])


@client_case("frame.complete/ends-between-messages")
def ends_between_messages(bench: Bench) -> None:
    """Every connection to an honest server ends after a whole message, never within one."""
    cut = [talk for talk in bench.honest().conversations if talk.is_cut]
    require(not cut, "whole messages", f"{len(cut)} connections ended within one")


# ----------------------------------------------------------------------------------------------------------- other sizes


def _sized(size: int, payload: Callable[[bytes], bytes]) -> Alter:
    return lambda reply: (size % 2**64).to_bytes(SIZE, "little") + payload(reply[SIZE:])


def _one_less(reply: bytes) -> bytes:
    return (len(reply) - SIZE - 1).to_bytes(SIZE, "little") + reply[SIZE:-1]


def _one_more(reply: bytes) -> bytes:
    return (len(reply) - SIZE + 1).to_bytes(SIZE, "little") + reply[SIZE:] + b"\0"


@client_case("frame.reply-checked/{}-one-less", each=WITH_PAYLOAD, since=_since, until=_until)
def one_less(bench: Bench, row: Request) -> None:
    """The reply to {} is a byte short, and its size says so: nothing more on this connection, and an error."""
    require_failure(bench.run(fault(row.name, _one_less)), row.name)


@client_case("frame.reply-checked/{}-one-more", each=ANSWERED, since=_since, until=_until)
def one_more(bench: Bench, row: Request) -> None:
    """The reply to {} has a byte more, and its size says so: nothing more on this connection, and an error."""
    require_failure(bench.run(fault(row.name, _one_more)), row.name)


@client_case("frame.reply-checked/{}-empty", each=WITH_PAYLOAD, since=_since, until=_until)
def empty(bench: Bench, row: Request) -> None:
    """The reply to {} is empty, a size of 0 alone: nothing more on this connection, and an error."""
    require_failure(bench.run(fault(row.name, _sized(0, lambda _: b""))), row.name)


@client_case("frame.reply-checked/{}-2-63", each=ANSWERED, since=_since, until=_until)
def huge(bench: Bench, row: Request) -> None:
    """The reply to {} claims to have 2^63 bytes: nothing is waited for or allocated, and the client ends with an error."""
    require_failure(bench.run(fault(row.name, _sized(2**63, lambda payload: payload))), row.name)


@client_case("frame.reply-checked/{}-2-64-less-1", each=ANSWERED, since=_since, until=_until)
def largest(bench: Bench, row: Request) -> None:
    """The reply to {} claims to have 2^64-1 bytes: nothing is waited for or allocated, and the client ends with an error."""
    require_failure(bench.run(fault(row.name, _sized(2**64 - 1, lambda payload: payload))), row.name)


# ------------------------------------------------------------------------------------------------------- missing replies


@client_case("frame.reply-missing/{}-closed", each=ANSWERED, since=_since, until=_until)
def closed(bench: Bench, row: Request) -> None:
    """The connection is closed where the reply to {} is due: an error, or the request again on another connection."""
    require_failure(bench.run(fault(row.name, lambda _: b"", End.FIN)), row.name)


@client_case("frame.reply-missing/{}-reset", each=ANSWERED, since=_since, until=_until)
def reset(bench: Bench, row: Request) -> None:
    """The connection is reset where the reply to {} is due: an error, or the request again on another connection."""
    require_failure(bench.run(fault(row.name, lambda _: b"", End.RESET)), row.name)


@client_case("frame.reply-missing/{}-within-size", each=ANSWERED, since=_since, until=_until)
def within_size(bench: Bench, row: Request) -> None:
    """The connection is closed after four bytes of the size of the reply to {}: an error, or the request again."""
    require_failure(bench.run(fault(row.name, lambda reply: reply[:4], End.FIN)), row.name)


@client_case("frame.reply-missing/{}-after-size", each=WITH_PAYLOAD, since=_since, until=_until)
def after_size(bench: Bench, row: Request) -> None:
    """The connection is closed after the size of the reply to {}, before its payload: an error, or the request again."""
    require_failure(bench.run(fault(row.name, lambda reply: reply[:SIZE], End.FIN)), row.name)


@client_case("frame.reply-missing/{}-last-byte", each=WITH_PAYLOAD, since=_since, until=_until)
def last_byte(bench: Bench, row: Request) -> None:
    """The connection is closed before the last byte of the reply to {}: an error, or the request again."""
    require_failure(bench.run(fault(row.name, lambda reply: reply[:-1], End.FIN)), row.name)


@client_case("frame.reply-missing/{}-refused", each=UNANSWERED, since=_unanswered_since)
def refused(bench: Bench, row: Request) -> None:
    """The connection is closed upon {}, which has no reply: the client notices where the next reply is due, and fails there."""
    run = bench.run(Script(changes=(Change(row.name, end=End.FIN),)))
    due = [asked for asked in run.after_fault() if REQUESTS[asked.cls].reply(run.version) is not NO_REPLY]
    if due and run.ended.status == 0 and not asked_again(run, due[0].command):
        raise Broken("an error, or the requests again", f"{due[0].command} was never answered, and the client ended well")


# -------------------------------------------------------------------------------------------------------- late and cut up


@client_case("frame.reply-late/{}", each=ANSWERED, since=_since, until=_until)
def late(bench: Bench, row: Request) -> None:
    """The first reply to {} comes a second late: the client waits, and gets through."""
    change = Change(row.name, delay=LATE)
    require_right(bench.run(Script(changes=(change,)), LATE), "a reply came late")


@client_case("frame.segmentation/each-byte-of-replies")
def each_byte(bench: Bench) -> None:
    """Every byte of every reply comes by itself, of data the first 64: the client gets through."""
    run = bench.run(Script(changes=(Change(number=EVERY, cut=EACH_BYTE),)), PATIENCE)
    require_right(run, "replies came byte by byte")


PATIENCE: Final = 30.0
"""Seconds more for a run in which every reply comes in pieces: a model's client asks thousands of times."""
PLACES: Final = {str(place): place for place in range(1, 36)}
"""Where replies are cut: the longest of fixed size, HELLO's since 4.0.0, has 36 bytes."""
LONGEST_BEFORE: Final = 24
"""Bytes of the longest reply of fixed size before."""


def _place_since(place: int) -> Version | None:
    return None if place < LONGEST_BEFORE else payload_since(Hello)


@client_case("frame.segmentation/replies-cut-after-{}", each=PLACES, since=_place_since)
def cut_after(bench: Bench, place: int) -> None:
    """Every reply that is longer comes in two pieces, the first of {} bytes: the client gets through."""
    run = bench.run(Script(changes=(Change(number=EVERY, cut=place),)), PATIENCE)
    require_right(run, f"replies came in two pieces, the first of {place} bytes")
