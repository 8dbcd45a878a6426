"""The codec against the bytes that the genuine 3.6.1 client and server sent each other (vectors/upstream-3.6.1-*/frames.json).

The fields in that file were read by vectors/tools/record_frames.py with layouts of its own; no line of ours wrote them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ggml_rpc_ref.protocol import codec, fnv
from ggml_rpc_ref.protocol.connection import NEED_DATA, Connection, Data, DataBegins, DataEnds, Reply, Request, Role
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.spec import messages as m

FILE = Path(__file__).parents[1] / "vectors" / "upstream-3.6.1-llama-cpp-python-0.3.20" / "frames.json"
CONNECTIONS: list[list[dict[str, Any]]] = [connection["frames"] for connection in json.loads(FILE.read_text())["connections"]]
FRAMES = [frame for connection in CONNECTIONS for frame in connection]
BY_NUMBER = m.by_number()

frames = pytest.mark.parametrize(
    "frame", [pytest.param(frame, id=f"{index}-{frame['command']}") for index, frame in enumerate(FRAMES)]
)
answered = pytest.mark.parametrize(
    "frame", [pytest.param(frame, id=f"{index}-{frame['command']}") for index, frame in enumerate(FRAMES) if frame["reply"]]
)


def payload_of(frame: dict[str, Any]) -> bytes:
    """The payload as it was; large data are made again by their recipe and checked by their hash."""
    if "payload" in frame:
        return bytes.fromhex(frame["payload"])
    size = frame["then"]["size"]
    assert frame["then"]["recipe"] == "byte i is i % 251"
    payload = bytes.fromhex(frame["payload_start"]) + (bytes(range(251)) * (size // 251 + 1))[:size]
    assert hashlib.sha256(payload).hexdigest() == frame["sha256"]
    return payload


def tensor(fields: dict[str, Any]) -> m.RpcTensor:
    raw = {name: bytes.fromhex(fields[name]) for name in ("name", "padding") if name in fields}
    return m.RpcTensor(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()} | raw)


def value(field: Any) -> Any:
    """A recorded field as the codec's messages hold it."""
    match field:
        case {"id": _}:
            return tensor(field)
        case list():
            return tuple(value(entry) for entry in field)
        case str():
            return bytes.fromhex(field)
    return field


def message(cls: type, fields: dict[str, Any], data: bytes | None = None) -> Any:
    values = {name: value(field) for name, field in fields.items()}
    if data is not None:
        assert data.startswith(values["data"])
        values["data"] = data
    return cls(**values)


def request_of(frame: dict[str, Any], payload: bytes) -> Any:
    cls = BY_NUMBER[frame["number"]].cls
    return message(cls, frame["fields"], payload[304:] if cls is m.SetTensor else None)


def reply_of(frame: dict[str, Any]) -> Any:
    cls = BY_NUMBER[frame["number"]].reply(m.DEFAULT)
    assert isinstance(cls, type)
    payload = bytes.fromhex(frame["reply"]["payload"])
    return message(cls, frame["reply"]["fields"], payload if cls is m.GetTensorReply else None)


def test_each_of_the_17_commands_was_recorded() -> None:
    assert {frame["number"] for frame in FRAMES} == set(range(17))
    assert all(m.command_name(BY_NUMBER[frame["number"]].cls) == frame["command"] for frame in FRAMES)
    assert (len(CONNECTIONS), len(FRAMES)) == (6, 47)


@frames
def test_requests_are_read_as_recorded(frame: dict[str, Any]) -> None:
    payload = payload_of(frame)
    assert codec.decode(BY_NUMBER[frame["number"]].cls, payload) == request_of(frame, payload)


@frames
def test_requests_are_written_as_recorded(frame: dict[str, Any]) -> None:
    payload = payload_of(frame)
    assert codec.encode(request_of(frame, payload)) == payload


@answered
def test_replies_are_read_and_written_as_recorded(frame: dict[str, Any]) -> None:
    reply, payload = reply_of(frame), bytes.fromhex(frame["reply"]["payload"])
    assert codec.decode(type(reply), payload) == reply
    assert codec.encode(reply) == payload


@frames
def test_presence_of_replies_is_as_recorded(frame: dict[str, Any]) -> None:
    assert (BY_NUMBER[frame["number"]].reply(m.DEFAULT) is m.NO_REPLY) is (frame["reply"] is None)


def test_the_graph_as_arrays_is_as_recorded() -> None:
    (frame,) = (frame for frame in FRAMES if frame["command"] == "GRAPH_COMPUTE")
    payload, expected = payload_of(frame), frame["fields"]
    graph = Graph.decode(payload)
    assert (graph.device, graph.nodes.tolist()) == (expected["device"], expected["nodes"])
    for name in ("id", "type", "buffer", "ne", "nb", "op", "op_params", "flags", "src", "view_src", "view_offs", "data"):
        assert graph.tensors[name].tolist() == [record[name] for record in expected["tensors"]], name
    assert [name.hex() for name in graph.tensors["name"].tolist()] == [record["name"] for record in expected["tensors"]]
    assert graph.encode() == payload


def test_the_recorded_hash_is_ours() -> None:
    hashes = {frame["fields"]["hash"] for frame in FRAMES if frame["command"] == "SET_TENSOR_HASH"}
    (sent,) = (payload_of(frame)[304:] for frame in FRAMES if "then" in frame)
    assert hashes == {fnv.fnv1a(sent)}


def pieces(stream: bytes, size: int) -> list[bytes]:
    return [stream[at : at + size] for at in range(0, len(stream), size)]


@pytest.mark.parametrize("size", [1, 7, 4096], ids="pieces-of-{}".format)
@pytest.mark.parametrize("index", range(6))
def test_a_whole_conversation(index: int, size: int) -> None:
    """Both our ends, fed with the other's genuine bytes, say the genuine bytes; the one large SET_TENSOR left out."""
    said = [frame for frame in CONNECTIONS[index] if "payload" in frame]
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    for frame in said:
        payload = payload_of(frame)
        request = request_of(frame, payload)
        wire = bytes([frame["number"]]) + len(payload).to_bytes(8, "little") + payload
        assert client.send(request) == wire
        assert heard(server, pieces(wire, size)) == request
        if frame["reply"]:
            reply = bytes.fromhex(frame["reply"]["payload"])
            wire = len(reply).to_bytes(8, "little") + reply
            assert server.send(reply_of(frame)) == wire
            assert heard(client, pieces(wire, size)) == reply_of(frame)
    assert client.idle
    assert server.idle


def heard(connection: Connection, wire: list[bytes]) -> Any:
    events = []
    for piece in wire:
        connection.receive(piece)
        while (event := connection.next_event()) is not NEED_DATA:
            events.append(event)
    match events:
        case [Request(Graph() as graph)]:
            return graph.message()
        case [Request(what)] | [Reply(what, _)]:
            return what
        case [DataBegins(m.SetTensor() as what, _), *chunks, DataEnds()]:
            return m.SetTensor(tensor=what.tensor, offset=what.offset, data=joined(chunks))
        case [DataBegins(m.GetTensor(), _), *chunks, DataEnds()]:
            return m.GetTensorReply(data=joined(chunks))
    raise AssertionError(events)


def joined(events: list[Any]) -> bytes:
    return b"".join(event.chunk for event in events if isinstance(event, Data))
