"""Both ends of a conversation wired to each other in memory: order, the queue of replies, data that bypass the buffer.

What each message looks like, and that it may be cut anywhere, is test_codec.py's; here are sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ggml_rpc_ref.errors import Misuse, Violation
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.connection import NEED_DATA, Connection, Data, DataBegins, DataEnds, Reply, Request, Role
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.spec.messages import (
    AllocBuffer,
    AllocBufferReply,
    BufferClear,
    DeviceCount,
    DeviceCountReply,
    Empty,
    FreeBuffer,
    GetDeviceMemory,
    GetDeviceMemoryReply,
    GetTensor,
    GetTensorReply,
    GraphCompute,
    GraphComputeReply,
    GraphRecompute,
    Hello,
    HelloReply,
    RpcTensor,
    SetTensor,
)
from ggml_rpc_ref.spec.versions import DEFAULT, Version

TENSOR = RpcTensor(id=1, name=b"t".ljust(64, b"\0"))
WELCOME = HelloReply(major=3, minor=6, patch=1)


class Pair:
    """A client and a server whose wire is a function call."""

    def __init__(self, version: Version = DEFAULT) -> None:
        self.client, self.server = Connection(Role.CLIENT, version), Connection(Role.SERVER, version)

    def ask(self, *requests: Any) -> list[Any]:
        """Send requests; return the events of the server."""
        self.server.receive(b"".join(self.client.send(request) for request in requests))
        return drain(self.server)

    def answer(self, *replies: Any) -> list[Any]:
        """Send replies; return the events of the client."""
        self.client.receive(b"".join(self.server.send(reply) for reply in replies))
        return drain(self.client)


def drain(connection: Connection) -> list[Any]:
    events = []
    while (event := connection.next_event()) is not NEED_DATA:
        events.append(event)
    return events


@pytest.fixture
def pair() -> Pair:
    """Both ends after HELLO."""
    pair = Pair()
    assert pair.ask(Hello()) == [Request(Hello())]
    assert pair.answer(WELCOME) == [Reply(WELCOME, Hello())]
    return pair


def violation(connection: Connection, data: bytes) -> Violation:
    connection.receive(data)
    with pytest.raises(Violation) as caught:
        drain(connection)
    return caught.value


# ----------------------------------------------------------------------------------------------------------------- HELLO


@pytest.mark.parametrize("first", [0, 1, 6, 10, 13, 15, 16, 17, 71, 255])
def test_a_server_turns_away_whoever_does_not_say_hello(first: int) -> None:
    """By the first byte alone: 71 is the G of an HTTP request."""
    assert violation(Connection(Role.SERVER), bytes([first])).rule == "session.hello-first"


def test_a_second_hello_is_refused_by_its_first_byte(pair: Pair) -> None:
    assert violation(pair.server, b"\x0e").rule == "session.hello-once"


@pytest.mark.parametrize("number", [17, 18, 99, 255])
def test_unknown_commands_are_refused_by_their_first_byte(pair: Pair, number: int) -> None:
    refused = violation(pair.server, bytes([number]))
    assert (refused.rule, refused.value) == ("frame.command-known", number)


def test_commands_of_later_versions_are_known_there() -> None:
    pair = Pair(Version(5, 0, 0))
    pair.ask(Hello())
    pair.server.receive(b"\x11")
    assert drain(pair.server) == []


def test_a_client_says_hello_first_and_once() -> None:
    client = Connection(Role.CLIENT)
    with pytest.raises(Misuse, match="HELLO is the first"):
        client.send(DeviceCount())
    client.send(Hello())
    with pytest.raises(Misuse, match="HELLO is the first"):
        client.send(Hello())


def test_an_unsent_request_does_not_open_the_conversation() -> None:
    client = Connection(Role.CLIENT)
    with pytest.raises(Misuse):
        client.send(DeviceCount())
    assert client.idle
    assert client.send(Hello()) == b"\x0e" + bytes(8)


# ---------------------------------------------------------------------------------------------------- replies in order


def test_requests_in_one_piece_are_answered_in_their_order(pair: Pair) -> None:
    requests = [DeviceCount(), AllocBuffer(size=1), GraphRecompute(device=0), GetDeviceMemory(), FreeBuffer(remote_ptr=3)]
    assert pair.ask(*requests) == [Request(request) for request in requests]
    replies = [
        DeviceCountReply(device_count=2),
        AllocBufferReply(remote_ptr=5, remote_size=1),
        GetDeviceMemoryReply(free_mem=7, total_mem=8),
        Empty(),
    ]
    answered = [request for request in requests if not isinstance(request, GraphRecompute)]
    assert pair.answer(*replies) == [Reply(reply, request) for reply, request in zip(replies, answered, strict=True)]
    assert pair.client.idle
    assert pair.server.idle


def test_a_server_sends_the_reply_that_is_due_or_none(pair: Pair) -> None:
    with pytest.raises(Misuse, match="not the reply that is due"):
        pair.server.send(Empty())
    pair.ask(DeviceCount(), FreeBuffer(remote_ptr=1))
    with pytest.raises(Misuse, match="not the reply that is due"):
        pair.server.send(Empty())
    pair.answer(DeviceCountReply(device_count=1))
    with pytest.raises(Misuse, match="not the reply that is due"):
        pair.server.send(DeviceCountReply(device_count=1))
    pair.answer(Empty())
    assert pair.client.idle


def test_a_reply_that_nobody_asked_for_is_a_violation(pair: Pair) -> None:
    assert violation(pair.client, bytes(8)).rule == "frame.reply-presence"


def test_a_version_that_answers_graphs(pair: Pair) -> None:
    old = Pair(Version(3, 0, 0))
    old.ask(Hello())
    old.answer(HelloReply(major=3, minor=0, patch=0))
    (event,) = old.ask(GraphCompute(nodes=(), tensors=()))
    assert isinstance(event.message, Graph)
    assert old.answer(GraphComputeReply(result=0)) == [Reply(GraphComputeReply(result=0), GraphCompute(nodes=(), tensors=()))]
    pair.ask(GraphCompute(nodes=(), tensors=()))
    assert pair.server.order.waiting == 0


def test_idle_means_that_nothing_has_begun_and_nothing_is_owed(pair: Pair) -> None:
    assert pair.server.idle
    pair.server.receive(b"\x0f")
    assert not pair.server.idle
    pair.server.receive(bytes(8))
    drain(pair.server)
    assert not pair.server.idle  # it owes the reply
    pair.server.send(DeviceCountReply(device_count=1))
    assert pair.server.idle


def test_after_a_violation_the_connection_is_over(pair: Pair) -> None:
    refused = violation(pair.server, b"\x0f" + b"\x01" + bytes(7) + b"\x0f" + bytes(8))
    assert violation(pair.server, b"\x0f" + bytes(8)) is refused


def test_wanted_is_what_is_missing(pair: Pair) -> None:
    assert pair.server.wanted == 9
    pair.server.receive(b"\x05" + b"\x09" + bytes(5))
    drain(pair.server)
    assert pair.server.wanted == 2
    pair.server.receive(bytes(2))
    drain(pair.server)
    assert pair.server.wanted == 9
    pair.server.receive(bytes(4))
    drain(pair.server)
    assert pair.server.wanted == 5
    pair.client.send(BufferClear(remote_ptr=1, value=1))
    assert pair.client.wanted == 8


# ------------------------------------------------------------------------------------------------------------------ data


def set_tensor(data: bytes) -> bytes:
    return codec.encode_request(SetTensor(tensor=TENSOR, offset=4, data=data))


BEGIN = SetTensor(tensor=TENSOR, offset=4)


def test_data_through_the_buffer(pair: Pair) -> None:
    frame = set_tensor(b"abcdef")
    pair.server.receive(frame[:-4])
    assert drain(pair.server) == [DataBegins(BEGIN, 6), Data(b"ab")]
    pair.server.receive(frame[-4:] + b"\x0f" + bytes(8))
    assert drain(pair.server) == [Data(b"cdef"), DataEnds(BEGIN), Request(DeviceCount())]


def test_data_received_straight_to_where_they_belong(pair: Pair) -> None:
    pair.server.receive(set_tensor(b"abcdef")[:-4])
    assert pair.server.next_event() == DataBegins(BEGIN, 6)
    place = bytearray(6)
    assert pair.server.take_data(memoryview(place)) == 2
    assert pair.server.data_left == 4
    place[2:4] = b"cd"
    pair.server.data_placed(2)
    assert pair.server.next_event() is NEED_DATA
    pair.server.data_placed(2)
    assert pair.server.next_event() == DataEnds(BEGIN)
    assert place[:4] == b"abcd"
    pair.server.receive(b"\x0f" + bytes(8))
    assert drain(pair.server) == [Request(DeviceCount())]


def test_take_data_leaves_the_next_request_alone(pair: Pair) -> None:
    pair.server.receive(set_tensor(b"abcdef") + b"\x0f" + bytes(8))
    assert isinstance(pair.server.next_event(), DataBegins)
    place = bytearray(100)
    assert pair.server.take_data(memoryview(place)[:4]) == 4
    assert pair.server.take_data(memoryview(place)[4:]) == 2
    assert place[:7] == b"abcdef\0"
    assert drain(pair.server) == [DataEnds(BEGIN), Request(DeviceCount())]


def test_data_placed_says_no_to_what_can_not_be(pair: Pair) -> None:
    with pytest.raises(Misuse):
        pair.server.data_placed(1)  # no data awaited
    pair.server.receive(set_tensor(b"abcdef")[:-4])
    pair.server.next_event()
    with pytest.raises(Misuse):
        pair.server.data_placed(1)  # two earlier bytes wait in the buffer
    pair.server.take_data(memoryview(bytearray(2)))
    with pytest.raises(Misuse):
        pair.server.data_placed(5)  # more than is left
    pair.server.data_placed(4)
    assert pair.server.next_event() == DataEnds(BEGIN)


def test_no_data_at_all(pair: Pair) -> None:
    pair.server.receive(set_tensor(b""))
    assert drain(pair.server) == [DataBegins(BEGIN, 0), DataEnds(BEGIN)]


def test_a_client_sends_data_from_where_they_lie(pair: Pair) -> None:
    head = pair.client.send_with_data(BEGIN, 6)
    pair.server.receive(head + b"abcdef")
    assert drain(pair.server) == [DataBegins(BEGIN, 6), Data(b"abcdef"), DataEnds(BEGIN)]


REQUEST = GetTensor(tensor=TENSOR, offset=4, size=6)


def in_one(server: Connection) -> bytes:
    return server.send(GetTensorReply(data=b"abcdef"))


def head_first(server: Connection) -> bytes:
    return server.send_with_data(GetTensorReply(data=b""), 6) + b"abcdef"


@pytest.mark.parametrize("send", [in_one, head_first])
def test_get_tensor_both_ways(pair: Pair, send: Callable[[Connection], bytes]) -> None:
    assert pair.ask(REQUEST, DeviceCount()) == [Request(REQUEST), Request(DeviceCount())]
    pair.client.receive(send(pair.server))
    assert drain(pair.client) == [DataBegins(REQUEST, 6), Data(b"abcdef"), DataEnds(REQUEST)]
    assert pair.answer(DeviceCountReply(device_count=1)) == [Reply(DeviceCountReply(device_count=1), DeviceCount())]


def test_a_get_tensor_reply_of_another_size_is_refused_by_its_head(pair: Pair) -> None:
    for size in (5, 7, 2**64 - 1):
        client = Connection(Role.CLIENT)
        client.send(Hello())
        client.receive(codec.encode_reply(WELCOME))
        drain(client)
        client.send(REQUEST)
        refused = violation(client, size.to_bytes(8, "little"))
        assert (refused.rule, refused.value) == ("frame.reply-presence", size)


# ---------------------------------------------------------------------------------------------------------------- graphs


@pytest.mark.parametrize("version", [Version(1, 0, 0), DEFAULT, Version(8, 0, 0)], ids=str)
def test_a_graph_of_arrays_arrives_as_it_was(version: Version) -> None:
    pair = Pair(version)
    pair.ask(Hello())
    records = np.zeros(2, codec.layout(RpcTensor, version))
    records["id"] = (3, 4)
    has_device, has_uid = version >= (3, 0, 0), version >= (8, 0, 0)
    graph = Graph(9 if has_device else 0, np.array([4, 3], np.uint64), records, 2**63 if has_uid else 0)
    pair.server.receive(pair.client.send_graph(graph))
    (event,) = drain(pair.server)
    assert event.message.message(version) == graph.message(version)
    assert (event.message.device, event.message.uid) == (graph.device, graph.uid)
    assert list(event.message.tensors["id"]) == [3, 4]


def test_only_a_client_sends_graphs(pair: Pair) -> None:
    with pytest.raises(Misuse):
        pair.server.send_graph(Graph(0, np.zeros(0, np.uint64), np.zeros(0, codec.layout(RpcTensor))))


def test_a_graph_too_large_for_this_server() -> None:
    server = Connection(Role.SERVER, max_graph_size=1000)
    server.receive(codec.encode_request(Hello()) + b"\x0a" + (1001).to_bytes(8, "little"))
    assert server.next_event() == Request(Hello())
    with pytest.raises(Violation) as caught:
        server.next_event()
    assert caught.value.rule == "frame.size-bounded"


def test_a_large_payload_is_handed_over_not_copied() -> None:
    """A copy of 29 MB, the graph of 100,000 tensors, would keep every other connection waiting. What follows stays in order."""
    pair, message = Pair(), GraphCompute(nodes=(), tensors=tuple(RpcTensor(id=n + 1) for n in range(1000)))
    pair.ask(Hello())
    pair.answer(WELCOME)
    pair.server.receive(pair.client.send(message) + pair.client.send(DeviceCount()))
    held = pair.server._buffer
    event = pair.server.next_event()
    assert isinstance(event, Request)
    assert np.shares_memory(event.message.tensors, np.frombuffer(held, np.uint8))
    assert event.message.tensors["id"].tolist() == list(range(1, 1001))
    assert pair.server.next_event() == Request(DeviceCount())
