"""Our server in every protocol version, over real sockets, by bytes that our codec and tables have no part in (`raw_client`)."""

from __future__ import annotations

import logging
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.protocol.fnv import definition
from ggml_rpc_ref.server import stored_graphs, tensor_cache
from ggml_rpc_ref.server.host import make_host, spoken
from ggml_rpc_ref.server.in_process import Server as OwnServer
from ggml_rpc_ref.server.server import Server
from tests.support.raw_client import (
    ALIGNMENT,
    ALLOC,
    ALLOC_SIZE,
    CLEAR,
    COMPUTE,
    COUNT,
    FACTS,
    FREE,
    GET_2D,
    HASH,
    HELLO,
    I8,
    INIT,
    MEMSET,
    RECOMPUTE,
    SET_2D,
    Client,
    connected,
    floats,
    frame,
    refusals,
    tensor,
)


@contextmanager
def served(version: str, caplog: pytest.LogCaptureFixture, *, cache: Path | None = None) -> Iterator[Client]:
    caplog.set_level(logging.INFO, "ggml_rpc_ref")
    with (
        Server(make_host(memory=2**24, proto=version, cache_dir=cache)) as server,
        connected(server.endpoint, FACTS[version]) as client,
    ):
        yield client
    assert "internal error" not in caplog.text


# -------------------------------------------------------------------------------------------------------- every version


@pytest.mark.parametrize("version", FACTS)
def test_a_session(version: str, caplog: pytest.LogCaptureFixture) -> None:
    """HELLO to FREE_BUFFER, with a graph whose op has another number in most versions; nothing comes that is not a reply."""
    facts = FACTS[version]
    with served(version, caplog) as client:
        assert client.greeting == bytes(map(int, version.split("."))) + bytes(25 if facts.hello else 0)
        if facts.device:
            assert client.ask(frame(COUNT)) == struct.pack("<I", 1)
        buffer, base = client.alloc(256)
        source = tensor(buffer, base, 4, id=7)
        client.write(source, floats(1, -2, 3, 0.5))
        result = tensor(buffer, base + 64, 4, id=9, op=facts.unary, kind=2, src=7)  # kind 2 is NEG in every version
        client.compute([source, result], [9], uid=5)
        assert client.read(result, 16) == floats(-1, 2, -3, -0.5)
        if facts.commands > RECOMPUTE:
            client.write(source, floats(8), offset=4)
            client.recompute(uid=5)
            assert client.read(result, 16) == floats(-1, -8, -3, -0.5)
        else:
            client.in_step()
        client.tell(frame(INIT, source), answered=facts.acknowledged)
        sources = bytes(2960) if facts.sources else b""
        assert client.ask(frame(ALLOC_SIZE, client.on() + source + sources)) == struct.pack("<Q", 16)
        if facts.commands > MEMSET:
            client.tell(frame(MEMSET, source + struct.pack("<QQB", 3, 6, 0xAB)), answered=facts.acknowledged)
            before = floats(1, 8, 3, 0.5)
            assert client.read(source, 16) == before[:3] + b"\xab" * 6 + before[9:]
        client.tell(frame(CLEAR, struct.pack("<QB", buffer, 0x5A)), answered=facts.acknowledged)
        assert client.read(source, 16) == b"\x5a" * 16
        client.tell(frame(FREE, struct.pack("<Q", buffer)), answered=facts.acknowledged)
        client.in_step()


@pytest.mark.parametrize("version", FACTS)
def test_commands_and_sizes_of_other_versions_are_refused(version: str, caplog: pytest.LogCaptureFixture) -> None:
    facts = FACTS[version]
    with served(version, caplog) as client:
        client.send(frame(facts.commands))
        assert client.closed()
    with served(version, caplog) as client:
        client.send(frame(ALIGNMENT, b"" if facts.device else bytes(4)))
        assert client.closed()
    with served(version, caplog) as client:
        client.send(frame(ALLOC_SIZE, client.on() + tensor(0, 0, 4) + (b"" if facts.sources else bytes(2960))))
        assert client.closed()
    assert "frame.command-known" in caplog.text
    assert caplog.text.count("frame.size-fixed") == 2


@pytest.mark.parametrize("version", ["2.0.0", "3.0.0", "3.5.0", "8.0.0"])
def test_a_kind_of_unary_has_the_number_of_the_version(version: str, caplog: pytest.LogCaptureFixture) -> None:
    facts = FACTS[version]
    assert facts.gelu_erf is not None
    with served(version, caplog) as client:
        buffer, base = client.alloc(64)
        source = tensor(buffer, base, 1, id=7)
        result = tensor(buffer, base + 32, 1, id=9, op=facts.unary, kind=facts.gelu_erf, src=7)
        client.write(source, floats(1))
        client.compute([source, result], [9])
        assert struct.unpack("<f", client.read(result, 4))[0] == pytest.approx(0.8413447, abs=1e-5)


@pytest.mark.parametrize(("version", "computed"), [("3.6.0", True), ("3.6.1", False), ("8.0.0", False)])
def test_flag_compute(version: str, computed: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Builds since 2026-01-19, in the time of 3.6.0, compute only nodes that have it."""
    with served(version, caplog) as client:
        buffer, base = client.alloc(64)
        source = tensor(buffer, base, 1, id=7)
        result = tensor(buffer, base + 32, 1, id=9, op=FACTS[version].unary, kind=2, src=7, flags=0)
        client.write(source, floats(4))
        client.compute([source, result], [9])
        assert client.read(result, 4) == (floats(-4) if computed else bytes(4))


@pytest.mark.parametrize("last", [b"\xff" * 4, b"\0\0\0\x80", b"\x01\0\0\0"], ids=["minus-one", "least", "one"])
def test_use_count_is_only_a_hint(last: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with served("5.1.0", caplog) as client:
        buffer, base = client.alloc(64)
        source = tensor(buffer, base, 1, id=7, last=last)
        result = tensor(buffer, base + 32, 1, id=9, op=91, kind=2, src=7, last=last)
        client.write(source, floats(4))
        client.compute([source, result], [9])
        assert client.read(result, 4) == floats(-4)


# ---------------------------------------------------------------------------------------------------------------- HELLO


@pytest.mark.parametrize(("hello", "version"), [(0, "3.6.1"), (24, "8.0.0")])
def test_the_size_of_hello_chooses(hello: int, version: str) -> None:
    with OwnServer(memory=2**20) as server, connected(server.endpoint, FACTS[version]) as client:
        assert len(client.greeting) == (28 if hello else 3)
        assert client.greeting[:3] == bytes(map(int, version.split(".")))
        buffer, base = client.alloc(64)
        client.write(tensor(buffer, base, 2), floats(1, 2))
        assert client.read(tensor(buffer, base, 2), 8) == floats(1, 2)


def test_two_clients_of_two_versions_at_once() -> None:
    with (
        OwnServer(memory=2**20, proto="auto:2.0.0,7.0.0") as server,
        connected(server.endpoint, FACTS["2.0.0"]) as old,
        connected(server.endpoint, FACTS["7.0.0"]) as new,
    ):
        assert (old.greeting[:3], new.greeting[:3]) == (b"\2\0\0", b"\7\0\0")
        for client in (old, new):
            buffer, base = client.alloc(64)
            client.write(tensor(buffer, base, 1), floats(3))
            client.tell(frame(FREE, struct.pack("<Q", buffer)), answered=client.facts.acknowledged)
            client.in_step()
        assert [state["protocol"] for state in server.state()["connections"]] == ["2.0.0", "7.0.0"]


@pytest.mark.parametrize("version", ["4.0.0", "8.0.0"])
def test_capabilities_are_ignored_and_none_are_offered(version: str) -> None:
    with OwnServer(memory=2**20, proto=version) as server:
        host, _, port = server.endpoint.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=20) as sock:
            client = Client(sock, FACTS[version])
            assert client.ask(frame(HELLO, bytes(range(1, 25)))) == bytes(map(int, version.split("."))) + bytes(25)
            client.in_step()


def log_of(caplog: pytest.LogCaptureFixture, proto: str, *sent: bytes) -> str:
    """The last line of the log after a client has sent this, waited for what comes, and left."""
    caplog.set_level(logging.INFO, "ggml_rpc_ref")
    with OwnServer(memory=2**20, proto=proto) as server:
        host, _, port = server.endpoint.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=20) as sock:
            for data in sent:
                sock.sendall(data)
                sock.recv(100)
        end = time.monotonic() + 10
        while server.connections and time.monotonic() < end:
            time.sleep(0.01)
    return caplog.messages[-1]


@pytest.mark.parametrize(
    ("proto", "size", "wanted"),
    [
        ("3.6.1", 24, ["protocol 3.6.1 has 0 bytes; clients of 4.0.0 to 8.0.0 send 24", "run `serve --proto auto:3.6.1,8.0.0`"]),
        ("7.0.0", 0, ["protocol 7.0.0 has 24 bytes; clients of 1.0.0 to 3.6.1 send 0", "run `serve --proto auto:7.0.0,3.6.1`"]),
        ("auto", 25, ["protocol 3.6.1 has 0 bytes, 8.0.0 has 24; no version known here sends 25"]),
    ],
)
def test_a_hello_of_another_size_is_refused_with_what_it_suggests(
    proto: str, size: int, wanted: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    line = log_of(caplog, proto, frame(HELLO, bytes(size)))
    assert "refused" in line
    assert refusals(caplog) == ["frame.size-fixed"]
    for words in wanted:
        assert words in line
    assert ("run `serve" in line) == (len(wanted) == 2)


@pytest.mark.parametrize(
    ("proto", "hello", "wanted"),
    [
        ("auto", 0, "with 3.5.0 (llama.cpp b7205), 3.0.0 (llama.cpp b6751 to b7041), 2.0.0 (llama.cpp b5218 to b6341), 1"),
        ("auto", 24, "with 7.0.0 (llama.cpp b10985 to b11434), 6.0.0 "),
        ("5.0.0", 24, "with 8.0.0 (llama.cpp b11548 to b11739), 7.0.0 "),
    ],
)  # fmt: skip
def test_a_client_that_leaves_after_hello_may_speak_another_version(
    proto: str, hello: int, wanted: str, caplog: pytest.LogCaptureFixture
) -> None:
    line = log_of(caplog, proto, frame(HELLO, bytes(hello)))
    assert "ended" in line
    assert "right after HELLO was answered with" in line
    assert "try `serve --proto`" in line
    assert wanted in line


def test_a_client_that_stays_gets_no_such_line(caplog: pytest.LogCaptureFixture) -> None:
    line = log_of(caplog, "3.6.1", frame(HELLO), frame(COUNT))
    assert "ended" in line
    assert "--proto" not in line


@pytest.mark.parametrize(
    ("proto", "versions"),
    [("auto", ["3.6.1", "8.0.0"]), ("7.0.0", ["7.0.0"]), ("auto:2.0.0,7.0.0", ["2.0.0", "7.0.0"]), ("auto:5.1.0", ["5.1.0"])],
)
def test_what_proto_names(proto: str, versions: list[str]) -> None:
    assert list(map(str, spoken(proto))) == versions


@pytest.mark.parametrize(
    ("proto", "words"),
    [("3.6", "'3.6' is not a version"), ("auto:", ""), ("auto:x", "'x' is not a version"), ("9.9.9", "known are 1.0.0, 2.0.0"),
     ("7.0.0,3.6.1", "is not a version"), ("auto:4.0.0,7.0.0", "can't choose between 4.0.0 and 7.0.0"), ("", "is not a version")],
)  # fmt: skip
def test_what_proto_does_not_name(proto: str, words: str) -> None:
    if proto == "auto:":
        assert list(map(str, spoken(proto))) == ["3.6.1", "8.0.0"]
        return
    with pytest.raises(Misuse, match=words) as caught:
        make_host(memory=2**20, proto=proto)
    assert str(caught.value).startswith("--proto")


# ---------------------------------------------------------------------------------------------------------------- bounds


def rows(where: bytes, offset: int, size: int, n_copies: int, stride: int) -> bytes:
    return where + struct.pack("<QQQQ", offset, size, n_copies, stride)


def put(where: bytes, offset: int, size: int, n_copies: int, stride: int, data: bytes) -> bytes:
    return frame(SET_2D, rows(where, offset, size, n_copies, stride) + data)


def test_rows_are_written_and_read(caplog: pytest.LogCaptureFixture) -> None:
    with served("8.0.0", caplog) as client:
        buffer, base = client.alloc(4096)
        matrix = tensor(buffer, base, 40, type=I8)
        client.send(frame(CLEAR, struct.pack("<QB", buffer, 0x11)))
        client.send(put(matrix, 2, 3, 4, 10, b"abcdefghijkl"))
        wanted = b"\x11\x11abc" + b"\x11" * 7 + b"def" + b"\x11" * 7 + b"ghi" + b"\x11" * 7 + b"jkl" + b"\x11" * 5
        assert client.read(matrix, 40) == wanted
        assert client.ask(frame(GET_2D, rows(matrix, 2, 3, 4, 10))) == b"abcdefghijkl"
        assert client.ask(frame(GET_2D, rows(matrix, 3, 1, 4, 10))) == b"behk"
        assert client.ask(frame(GET_2D, rows(matrix, 0, 40, 1, 2**64 - 1))) == wanted  # of a single row the stride says nothing
        client.send(put(matrix, 0, 4, 10, 4, bytes(range(40))))  # rows without gaps
        assert client.read(matrix, 40) == bytes(range(40))
        assert client.ask(frame(GET_2D, rows(matrix, 36, 2, 2, 2))) == bytes([36, 37, 38, 39])


def test_rows_that_overlap_are_written_in_order(caplog: pytest.LogCaptureFixture) -> None:
    with served("8.0.0", caplog) as client:
        buffer, base = client.alloc(64)
        line = tensor(buffer, base, 12, type=I8)
        client.send(put(line, 0, 4, 3, 2, b"aaaabbbbcccc"))
        assert client.read(line, 12) == b"aabbcccc" + bytes(4)
        client.send(put(line, 8, 4, 3, 0, b"ddddeeeeffff"))
        assert client.read(line, 12) == b"aabbccccffff"
        assert client.ask(frame(GET_2D, rows(line, 0, 4, 3, 2))) == b"aabbbbcccccc"[:4] + b"bbcc" + b"cccc"
        assert client.ask(frame(GET_2D, rows(line, 1, 2, 5, 0))) == b"ab" * 5


@pytest.mark.parametrize("size", [3, 70_000])
def test_many_rows_and_long_ones(size: int, caplog: pytest.LogCaptureFixture) -> None:
    """Both ways to move them: gathered in pieces, and each in place."""
    count, stride = (100_000, 7) if size == 3 else (40, 70_001)
    data = bytes(i * 31 % 251 for i in range(size)) * 2
    data = (data * (count * size // len(data) + 1))[: count * size]
    with served("8.0.0", caplog) as client:
        buffer, base = client.alloc(stride * count)
        whole = tensor(buffer, base, stride * count, type=I8)
        client.send(put(whole, 1, size, count, stride, data))
        got = client.read(whole, stride * count)
        assert b"".join(got[1 + i * stride : 1 + i * stride + size] for i in range(count)) == data
        assert set(got[::stride]) == {0}
        assert client.ask(frame(GET_2D, rows(whole, 1, size, count, stride))) == data


TOP = 2**64
BAD_ROWS = {
    "n-copies-0": ((0, 4, 0, 4), b"", "data.rows-none"),
    "size-0": ((0, 0, 3, 4), b"", "data.rows-none"),
    "past-the-tensor": ((0, 4, 3, 19), b"x" * 12, "data.rows-in-tensor"),
    "offset-past-the-tensor": ((41, 1, 1, 1), b"x", "data.rows-in-tensor"),
    "stride-2-64-less-1": ((4, 4, 2, TOP - 1), b"x" * 8, "data.rows-in-tensor"),
    "offset-2-64-less-4": ((TOP - 4, 4, 2, 8), b"x" * 8, "data.rows-in-tensor"),
    "wraps-to-0": ((0, 4, 2**32 + 1, 2**32), b"x" * 12, "data.rows-length data.rows-in-tensor"),
    "one-byte-short": ((0, 4, 3, 8), b"x" * 11, "data.rows-length"),
    "one-byte-more": ((0, 4, 3, 8), b"x" * 13, "data.rows-length"),
    "size-times-n-copies-2-64": ((0, 2**32, 2**32, 1), b"x" * 12, "data.rows-length data.rows-in-tensor"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_are_refused(case: str, caplog: pytest.LogCaptureFixture) -> None:
    numbers, data, rules = BAD_ROWS[case]
    with served("8.0.0", caplog) as client:
        buffer, base = client.alloc(64)
        client.send(put(tensor(buffer, base, 40, type=I8), *numbers, data))
        assert client.closed()
    assert refusals(caplog) in ([rule] for rule in rules.split())
    if "length" in rules and "in-tensor" not in rules:
        return
    with served("8.0.0", caplog) as client:
        buffer, base = client.alloc(64)
        client.send(frame(GET_2D, rows(tensor(buffer, base, 40, type=I8), *numbers)))
        assert client.closed()


def test_a_reply_of_overlapping_rows_has_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    with served("8.0.0", caplog) as client:
        buffer, base = client.alloc(64)
        client.send(frame(GET_2D, rows(tensor(buffer, base, 40, type=I8), 0, 32, 2**60, 0)))
        assert client.closed()
    assert refusals(caplog) == ["data.rows-bounded"]


@pytest.mark.parametrize("version", ["5.0.0", "8.0.0"])
@pytest.mark.parametrize("bad", [(0, 17), (16, 1), (17, 0), (TOP - 1, 2), (4, TOP - 2), (TOP - 8, 8)])
def test_memset_past_the_tensor_is_refused(version: str, bad: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    with served(version, caplog) as client:
        buffer, base = client.alloc(64)
        client.send(frame(MEMSET, tensor(buffer, base, 16, type=I8) + struct.pack("<QQB", *bad, 1)))
        assert client.closed()
    assert refusals(caplog) == ["data.memset-in-tensor"]


def test_memset_of_nothing_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with served("7.0.0", caplog) as client:
        buffer, base = client.alloc(64)
        client.send(frame(MEMSET, tensor(buffer, base, 16, type=I8) + struct.pack("<QQB", 16, 0, 1)))
        client.in_step()


# ----------------------------------------------------------------------------------------------------------------- cache


@pytest.mark.parametrize(
    ("version", "flag", "kept"), [("6.0.0", 0, True), ("7.0.0", 0, False), ("7.0.0", 1, True), ("8.0.0", 255, True)]
)
def test_the_cache_flag(
    version: str, flag: int, kept: bool, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_cache, "THRESHOLD", 100)
    data = bytes(range(200))
    with served(version, caplog, cache=tmp_path) as client:
        buffer, base = client.alloc(512)
        where = tensor(buffer, base, 200, type=I8)
        client.write(where, data, cache_flag=flag)
        assert client.read(where, 200) == data
        assert client.ask(frame(HASH, where + struct.pack("<QQ", 0, definition(data)))) == bytes([kept])


# ------------------------------------------------------------------------------------------------------------------ uids


def negate(client: Client, numbers: tuple[float, ...], uid: int, at: int = 0) -> tuple[bytes, bytes]:
    """Compute the negatives of numbers in a graph; return source and result."""
    if not client.received:
        client.received += struct.pack("<QQ", *client.alloc(2**16))
    buffer, base = struct.unpack("<QQ", client.received)
    source = tensor(buffer, base + 64 * at, len(numbers), id=7)
    result = tensor(buffer, base + 64 * at + 32, len(numbers), id=9, op=91, kind=2, src=7)
    client.write(source, floats(*numbers))
    client.compute([source, result], [9], uid=uid)
    return source, result


def test_graphs_are_computed_again_by_uid(caplog: pytest.LogCaptureFixture) -> None:
    with served("8.0.0", caplog) as client:
        first, one = negate(client, (1, 2), uid=2**63 + 5, at=0)
        second, two = negate(client, (3, 4), uid=6, at=1)
        negate(client, (5, 6), uid=0, at=2)  # not stored, and displaces nothing
        client.write(first, floats(7, 8))
        client.write(second, floats(9, 10))
        client.recompute(uid=2**63 + 5)
        assert (client.read(one, 8), client.read(two, 8)) == (floats(-7, -8), floats(-3, -4))
        client.recompute(uid=6)
        assert client.read(two, 8) == floats(-9, -10)
        _, three = negate(client, (1, 1), uid=6, at=3)  # another graph under a uid
        client.write(second, floats(0, 0))
        client.recompute(uid=6)
        assert (client.read(two, 8), client.read(three, 8)) == (floats(-9, -10), floats(-1, -1))


@pytest.mark.parametrize(("uid", "rule"), [(0, "graph.uid-zero"), (7, "graph.recompute-stored")])
def test_a_uid_without_a_graph_is_refused(uid: int, rule: str, caplog: pytest.LogCaptureFixture) -> None:
    with served("8.0.0", caplog) as client:
        negate(client, (1, 2), uid=0)
        negate(client, (1, 2), uid=6)
        client.recompute(uid=uid)
        assert client.closed()
    assert refusals(caplog) == [rule]


def test_the_1025th_uid_drops_the_others(caplog: pytest.LogCaptureFixture) -> None:
    with served("8.0.0", caplog) as client:
        for uid in range(1, 1025):
            negate(client, (uid,), uid=uid, at=uid % 2)
        client.recompute(uid=1)  # still there with 1,024
        client.in_step()
        negate(client, (3,), uid=1025)
        client.recompute(uid=1025)
        client.in_step()
        client.recompute(uid=1024)
        assert client.closed()
    assert refusals(caplog) == ["graph.recompute-stored"]


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device stores eight graphs; that it stores 1,024 is shown above."""
    monkeypatch.setattr(stored_graphs, "MAX_STORED_GRAPHS", 8)


@pytest.mark.usefixtures("eight")
def test_a_uid_of_a_full_store_drops_the_others_too(caplog: pytest.LogCaptureFixture) -> None:
    """A stock client counts so: what it sends in full is about to be stored anew."""
    with served("8.0.0", caplog) as client:
        for uid in range(1, 9):
            negate(client, (uid,), uid=uid)
        negate(client, (3,), uid=8)
        client.recompute(uid=8)
        client.in_step()
        client.recompute(uid=7)
        assert client.closed()


@pytest.mark.usefixtures("eight")
def test_a_uid_whose_graph_was_dropped_still_counts(caplog: pytest.LogCaptureFixture) -> None:
    """A client that does not know that its graph is gone counts it; if we did not, we would drop the rest later than it does."""
    with served("8.0.0", caplog) as client:
        other, base = client.alloc(128)
        source = tensor(other, base, 1, id=7)
        client.compute([source, tensor(other, base + 32, 1, id=9, op=91, kind=2, src=7)], [9], uid=1)
        for uid in range(2, 9):
            negate(client, (uid,), uid=uid)
        client.send(frame(FREE, struct.pack("<Q", other)))
        client.recompute(uid=8)  # uses the other buffer and stays
        client.in_step()
        negate(client, (3,), uid=9)  # the ninth, though one graph is gone
        client.recompute(uid=8)
        assert client.closed()


def test_a_graph_is_dropped_with_its_buffer(caplog: pytest.LogCaptureFixture) -> None:
    with served("8.0.0", caplog) as client:
        other, base = client.alloc(128)
        source = tensor(other, base, 1, id=7)
        client.compute([source, tensor(other, base + 32, 1, id=9, op=91, kind=2, src=7)], [9], uid=1)
        client.send(frame(FREE, struct.pack("<Q", other)))
        client.recompute(uid=1)
        assert client.closed()
    assert refusals(caplog) == ["graph.recompute-stored"]


# -------------------------------------------------------------------------------------------------------- changed minds


CHANGED = {
    # after HELLO in one version, a request as another version has it
    "hello-again": ("3.6.1", frame(HELLO, bytes(24)), "session.hello-once"),
    "hello-again-older": ("8.0.0", frame(HELLO), "session.hello-once"),
    "recompute-with-uid": ("3.6.1", frame(RECOMPUTE, bytes(12)), "frame.size-fixed"),
    "recompute-without-uid": ("8.0.0", frame(RECOMPUTE, bytes(4)), "frame.size-fixed"),
    "graph-with-uid": ("7.0.0", frame(COMPUTE, struct.pack("<IQIQI", 0, 5, 1, 9, 1) + tensor(0, 0, 4, id=9)), "graph.size-exact"),
    # of two nodes: one of a single node has the same bytes as one of 8.0.0 without nodes
    "graph-without-uid": (
        "8.0.0",
        frame(COMPUTE, struct.pack("<IIQQI", 0, 2, 8, 9, 1) + tensor(0, 0, 4, id=9)),
        "graph.size-exact",
    ),
    "alloc-without-device": ("3.0.0", frame(ALLOC, bytes(8)), "frame.size-fixed"),
    "memset": ("4.0.3", frame(MEMSET, bytes(313)), "frame.command-known"),
    "rows": ("7.0.0", frame(SET_2D, bytes(330)), "frame.command-known"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_a_peer_that_changes_its_version_is_refused(case: str, caplog: pytest.LogCaptureFixture) -> None:
    version, request, rule = CHANGED[case]
    with served(version, caplog) as client:
        client.send(request)
        assert client.closed()
    assert refusals(caplog) == [rule]


# ------------------------------------------------------------------------------------------------------ empty tensors


@pytest.mark.parametrize(("version", "accepted"), [("7.0.0", False), ("8.0.0", True)])
@pytest.mark.parametrize("address", [0, 1, 2**64 - 1])
def test_a_tensor_without_elements_may_lie_anywhere(
    version: str, accepted: bool, address: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The genuine 8.0.0 looks at no address of such a tensor; the versions before abort or, as we do, refuse."""
    with served(version, caplog) as client:
        buffer, base = client.alloc(64)
        source = tensor(buffer, base + 16, 4, id=7)
        empty = bytearray(tensor(buffer, address, 0, id=9, op=91, kind=2, src=7))
        empty[204:212] = struct.pack("<Q", 7)  # and a view of the source
        client.compute([source, bytes(empty)], [9])
        if accepted:
            client.in_step()
        else:
            assert client.closed()
    assert refusals(caplog) == ([] if accepted else ["tensor.in-buffer"])
