"""A new version with new bulk messages is rows and nothing else: a toy version is spoken, followed and decoded."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pytest

from ggml_rpc_ref.decode import Options, decode_file
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.files.recording import Direction, LeftOut, Recorder, read
from ggml_rpc_ref.protocol.connection import NEED_DATA, Connection, Data, DataBegins, DataEnds, Reply, Request, Role
from ggml_rpc_ref.proxy.follow import Exchange, Follower, describe
from ggml_rpc_ref.spec import messages as m
from ggml_rpc_ref.spec.versions import PROFILES, V8_0_0, Version
from ggml_rpc_ref.spec.wire import U8, U64, Tail

TOY = Version(9, 1, 2)
UP, DOWN = Direction.TO_SERVER, Direction.TO_CLIENT


@m.record
class PeekReply:
    """The bytes asked for."""

    data: Annotated[bytes, Tail(), "rows of columns bytes"]


@m.record
class Peek:
    """Read bytes."""

    rows: Annotated[int, U64, "number of rows"]
    columns: Annotated[int, U8, "bytes of a row"]


@m.record
class PokeReply:
    """Whether the bytes were written."""

    result: Annotated[int, U8, "1: written"]


@m.record
class Poke:
    """Write bytes."""

    place: Annotated[int, U64, "where"]
    data: Annotated[bytes, Tail(), "the bytes"] = b""


ROWS = [
    m.Request(Peek, 200, "PEEK", TOY, ((TOY, PeekReply),), ("rows", "columns")),
    m.Request(Poke, 201, "POKE", TOY, ((TOY, PokeReply),)),
]


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two rows in the table of messages, one in that of versions; afterwards they are gone."""
    monkeypatch.setitem(PROFILES, TOY, replace(PROFILES[V8_0_0], version=TOY))
    for row in ROWS:
        monkeypatch.setitem(m.REQUESTS, row.cls, row)
    m.by_number.cache_clear()
    yield
    monkeypatch.undo()
    m.by_number.cache_clear()


TALK = [
    (UP, bytes([14]) + struct.pack("<Q", 24) + bytes(24)),
    (DOWN, struct.pack("<Q", 28) + bytes([9, 1, 2]) + bytes(25)),
    (UP, bytes([201]) + struct.pack("<QQ", 13, 77) + b"hello"),
    (DOWN, struct.pack("<Q", 1) + b"\1"),
    (UP, bytes([200]) + struct.pack("<QQB", 9, 2, 3)),
    (DOWN, struct.pack("<Q", 6) + b"abcdef"),
]
"""HELLO, POKE and PEEK with their replies, laid out by hand."""


def events_of(connection: Connection, data: bytes) -> list[Any]:
    connection.receive(data)
    events = []
    while (event := connection.next_event()) is not NEED_DATA:
        events.append(event)
    return events


def test_a_connection_speaks_them() -> None:
    client, server = Connection(Role.CLIENT, TOY), Connection(Role.SERVER, TOY)
    hello, welcome, poke, poked, peek, peeked = (data for _, data in TALK)
    assert client.send(m.Hello()) == hello
    assert events_of(server, hello) == [Request(m.Hello())]
    assert server.send(m.HelloReply(major=9, minor=1, patch=2)) == welcome
    assert len(events_of(client, welcome)) == 1

    written = Poke(place=77)
    assert client.send_with_data(written, 5) + b"hello" == poke
    assert events_of(server, poke) == [DataBegins(written, 5), Data(b"hello"), DataEnds(written)]
    assert server.send(PokeReply(result=1)) == poked
    assert events_of(client, poked) == [Reply(PokeReply(result=1), written)]

    asked = Peek(rows=2, columns=3)
    assert client.send(asked) == peek
    assert events_of(server, peek) == [Request(asked)]
    assert server.send_with_data(PeekReply(data=b""), 6) + b"abcdef" == peeked
    assert events_of(client, peeked) == [DataBegins(asked, 6), Data(b"abcdef"), DataEnds(asked)]
    assert client.idle
    assert server.idle


@pytest.mark.parametrize("step", [1, 10_000], ids=["byte-by-byte", "whole"])
def test_the_proxy_follows_them(tmp_path: Path, step: int) -> None:
    told: list[Exchange] = []
    with Recorder(tmp_path / "r", leave_out_over=4) as recorder:
        follower = Follower(1, recorder, told.append)
        for direction, data in TALK:
            for at in range(0, len(data), step):
                follower.feed(direction, memoryview(data)[at : at + step])
    assert follower.violation is None
    assert [describe(exchange).partition(" in ")[0] for exchange in told[1:]] == [
        "#1 POKE place=77 (13 B) → result=1 (1 B)",
        "#1 PEEK rows=2 columns=3 (9 B) → data (6 B)",
    ]
    assert [chunk.left_out for chunk in read(tmp_path / "r") if chunk.left_out] == [
        LeftOut(5, 0xA430D84680AABD0B),  # FNV-1a 64 of b"hello", as published with the algorithm
        LeftOut(6, 0xD80BDA3FBE244A0A),  # of b"abcdef"
    ]


def test_they_are_decoded(tmp_path: Path) -> None:
    with Recorder(tmp_path / "r") as recorder:
        for direction, data in TALK:
            recorder.write(direction, 1, data)
    decoded = decode_file(tmp_path / "r", Options())
    assert decoded.faults == []
    assert [message.name for message in decoded.messages] == [
        "HELLO", "HELLO reply", "POKE", "POKE reply", "PEEK", "PEEK reply",
    ]  # fmt: skip
    poke, peek, peeked = decoded.messages[2], decoded.messages[4], decoded.messages[5]
    assert (poke.value("place"), bytes(poke.value("data"))) == (77, b"hello")
    assert (peek.value("rows"), peek.value("columns")) == (2, 3)
    assert bytes(peeked.value("data")) == b"abcdef"


def test_a_reply_of_another_size_is_refused_everywhere(tmp_path: Path) -> None:
    wrong = struct.pack("<Q", 7)
    client = Connection(Role.CLIENT, TOY)
    client.send(m.Hello())
    events_of(client, TALK[1][1])
    client.send(Peek(rows=2, columns=3))
    with pytest.raises(Violation, match="6 bytes were asked for"):
        events_of(client, wrong)

    follower = Follower(1)
    with Recorder(tmp_path / "r") as recorder:
        for direction, data in [*TALK[:5], (DOWN, wrong)]:
            follower.feed(direction, memoryview(data))
            recorder.write(direction, 1, data)
    assert follower.violation is not None
    assert follower.violation.rule == "frame.reply-presence"
    assert [fault.rule for fault in decode_file(tmp_path / "r", Options()).faults] == ["frame.reply-presence"]
