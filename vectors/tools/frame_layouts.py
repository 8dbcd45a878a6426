"""Cuts what a genuine client and server said into frames and reads them, by layouts written by hand, here and nowhere else.

Nothing in this file may come from ggml_rpc_ref: what it reads is the witness for the codec and the tables there. A protocol is
three numbers; what differs between versions is written where it differs. Source: ggml-rpc.cpp of each version.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any

Protocol = tuple[int, int, int]

SHOWN = 64
"""Bytes of data that a record shows where they are many; the rest is told by size, recipe and hash."""
RECIPE = "byte i is i % 251"
TENSOR = 296


def recipe(size: int) -> bytes:
    """Return the large tensor's bytes."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def names(protocol: Protocol) -> tuple[str, ...]:
    """Return the commands of a protocol, by number."""
    found = [
        "ALLOC_BUFFER", "GET_ALIGNMENT", "GET_MAX_SIZE", "BUFFER_GET_BASE", "FREE_BUFFER", "BUFFER_CLEAR", "SET_TENSOR",
        "SET_TENSOR_HASH", "GET_TENSOR", "COPY_TENSOR", "GRAPH_COMPUTE", "GET_DEVICE_MEMORY", "INIT_TENSOR", "GET_ALLOC_SIZE",
        "HELLO",
    ]  # fmt: skip
    if protocol >= (3, 0, 0):
        found += ["DEVICE_COUNT"]
    if protocol >= (3, 5, 0):
        found += ["GRAPH_RECOMPUTE"]
    if protocol >= (5, 0, 0):
        found += ["MEMSET_TENSOR"]
    if protocol >= (8, 0, 0):
        found += ["SET_TENSOR_2D", "GET_TENSOR_2D", "COMM_INIT", "COMM_ALLREDUCE", "COMM_FREE"]
    return tuple(found)


def unanswered(protocol: Protocol) -> set[str]:
    """Return the commands that have no reply."""
    found = {"SET_TENSOR"}
    if protocol >= (3, 5, 0):
        found |= {"GRAPH_COMPUTE", "GRAPH_RECOMPUTE"}
    if protocol >= (6, 0, 0):
        found |= {"FREE_BUFFER", "BUFFER_CLEAR", "INIT_TENSOR", "MEMSET_TENSOR"}
    if protocol >= (8, 0, 0):
        found |= {"SET_TENSOR_2D", "COMM_ALLREDUCE", "COMM_FREE"}
    return found


def requests(protocol: Protocol) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return layout and names of the fields of each request, as far as they do not vary in length."""
    on, device = ("I", ("device",)) if protocol >= (3, 0, 0) else ("", ())
    uid, named = ("Q", ("uid",)) if protocol >= (8, 0, 0) else ("", ())
    kept, flag = ("B", ("cache_flag",)) if protocol >= (7, 0, 0) else ("", ())
    part = ("tensor", "offset", "size")
    return {
        "ALLOC_BUFFER": (f"<{on}Q", (*device, "size")),
        "GET_ALIGNMENT": (f"<{on}", device),
        "GET_MAX_SIZE": (f"<{on}", device),
        "BUFFER_GET_BASE": ("<Q", ("remote_ptr",)),
        "FREE_BUFFER": ("<Q", ("remote_ptr",)),
        "BUFFER_CLEAR": ("<QB", ("remote_ptr", "value")),
        "SET_TENSOR": (f"<296s{kept}Q", ("tensor", *flag, "offset")),
        "SET_TENSOR_HASH": ("<296sQQ", ("tensor", "offset", "hash")),
        "GET_TENSOR": ("<296sQQ", part),
        "COPY_TENSOR": ("<296s296s", ("src", "dst")),
        "GRAPH_COMPUTE": (f"<{on}{uid}I", (*device, *named, "n_nodes")),
        "GET_DEVICE_MEMORY": (f"<{on}", device),
        "INIT_TENSOR": ("<296s", ("tensor",)),
        "GET_ALLOC_SIZE": (f"<{on}296s", (*device, "tensor")),
        "HELLO": ("<24s", ("conn_caps",)) if protocol >= (4, 0, 0) else ("<", ()),
        "DEVICE_COUNT": ("<", ()),
        "GRAPH_RECOMPUTE": (f"<{on}{uid}", (*device, *named)),
        "MEMSET_TENSOR": ("<296sQQB", (*part, "value")),
        "SET_TENSOR_2D": ("<296sQQQQ", (*part, "n_copies", "stride")),
        "GET_TENSOR_2D": ("<296sQQQQ", (*part, "n_copies", "stride")),
        "COMM_INIT": ("<IIII64s", ("device", "rank", "world", "port", "host")),
        "COMM_ALLREDUCE": ("<I296s", ("device", "tensor")),
        "COMM_FREE": ("<I", ("device",)),
    }


def replies(protocol: Protocol) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return layout and names of the fields of each reply that has a fixed length."""
    version = ("major", "minor", "patch")
    return {
        "ALLOC_BUFFER": ("<QQ", ("remote_ptr", "remote_size")),
        "GET_ALIGNMENT": ("<Q", ("alignment",)),
        "GET_MAX_SIZE": ("<Q", ("max_size",)),
        "BUFFER_GET_BASE": ("<Q", ("base_ptr",)),
        "FREE_BUFFER": ("<", ()),
        "BUFFER_CLEAR": ("<", ()),
        "SET_TENSOR_HASH": ("<B", ("result",)),
        "COPY_TENSOR": ("<B", ("result",)),
        "GRAPH_COMPUTE": ("<B", ("result",)),
        "GET_DEVICE_MEMORY": ("<QQ", ("free_mem", "total_mem")),
        "INIT_TENSOR": ("<", ()),
        "GET_ALLOC_SIZE": ("<Q", ("alloc_size",)),
        "HELLO": ("<BBBB24s", (*version, "padding", "conn_caps")) if protocol >= (4, 0, 0) else ("<BBB", version),
        "DEVICE_COUNT": ("<I", ("device_count",)),
        "MEMSET_TENSOR": ("<", ()),
        "COMM_INIT": ("<B", ("ok",)),
    }


def tensor(data: bytes, protocol: Protocol) -> dict[str, Any]:
    """Read an rpc_tensor."""
    values = struct.unpack("<QIQ4I4II16ii10QQQQ64s4s", data)
    found = {
        "id": values[0], "type": values[1], "buffer": values[2], "ne": values[3:7], "nb": values[7:11], "op": values[11],
        "op_params": values[12:28], "flags": values[28], "src": values[29:39], "view_src": values[39], "view_offs": values[40],
        "data": values[41], "name": values[42].hex(),
    }  # fmt: skip
    if protocol >= (5, 1, 0):
        return found | {"use_count": int.from_bytes(values[43], "little", signed=True)}
    return found | {"padding": values[43].hex()}


def fixed(layout: str, fields: tuple[str, ...], data: bytes, protocol: Protocol) -> dict[str, Any]:
    """Read fields one after another; 296 bytes are a tensor, other bytes are shown in hexadecimal."""

    def shown(value: Any) -> Any:
        return value if not isinstance(value, bytes) else tensor(value, protocol) if len(value) == TENSOR else value.hex()

    return {name: shown(value) for name, value in zip(fields, struct.unpack(layout, data), strict=True)}


def tensors(data: bytes, protocol: Protocol) -> list[dict[str, Any]]:
    """Read rpc_tensors that lie one behind another."""
    return [tensor(data[at : at + TENSOR], protocol) for at in range(0, len(data), TENSOR)]


def request_fields(name: str, payload: bytes, protocol: Protocol) -> dict[str, Any]:
    """Read a request's payload."""
    layout, fields = requests(protocol)[name]
    begun = struct.calcsize(layout)
    found, rest = fixed(layout, fields, payload[:begun], protocol), payload[begun:]
    match name:
        case "SET_TENSOR" | "SET_TENSOR_2D":
            return found | {"data": rest[:SHOWN].hex()}
        case "GET_ALLOC_SIZE" if protocol >= (3, 6, 0):
            return found | {"srcs": tensors(rest, protocol)}
        case "GRAPH_COMPUTE":
            n_nodes = found.pop("n_nodes")
            *nodes, n_tensors = struct.unpack_from(f"<{n_nodes}QI", rest)
            records = tensors(rest[8 * n_nodes + 4 :], protocol)
            assert len(records) == n_tensors
            return found | {"nodes": nodes, "tensors": records}
    assert not rest, name
    return found


def reply_fields(name: str, payload: bytes, protocol: Protocol) -> dict[str, Any]:
    """Read a reply's payload."""
    if name in ("GET_TENSOR", "GET_TENSOR_2D"):
        return {"data": payload[:SHOWN].hex()}
    return fixed(*replies(protocol)[name], payload, protocol)


def shown(payload: bytes, protocol: Protocol) -> dict[str, Any]:
    """Describe a payload: in full, or where it is large by its first bytes, the recipe of the rest, and a hash of all."""
    if len(payload) < 2**16:
        return {"payload": payload.hex()}
    head = struct.calcsize(requests(protocol)["SET_TENSOR"][0])
    rest = len(payload) - head
    assert payload[head:] == recipe(rest)
    return {
        "payload_start": payload[:head].hex(),
        "then": {"size": rest, "recipe": RECIPE},
        "sha256": hashlib.sha256(payload).hexdigest(),
    }


def frames(client_said: bytes, server_said: bytes, protocol: Protocol) -> list[dict[str, Any]]:
    """Cut a connection into requests with their replies; every byte must be accounted for."""
    found, at, replied = [], 0, 0
    commands, silent = names(protocol), unanswered(protocol)
    while at < len(client_said):
        number, size = struct.unpack_from("<BQ", client_said, at)
        name, payload = commands[number], client_said[at + 9 : at + 9 + size]
        assert len(payload) == size
        at += 9 + size
        fields = request_fields(name, payload, protocol)
        frame = {"command": name, "number": number, **shown(payload, protocol), "fields": fields, "reply": None}
        if name not in silent:
            (size,) = struct.unpack_from("<Q", server_said, replied)
            answer = server_said[replied + 8 : replied + 8 + size]
            assert len(answer) == size
            replied += 8 + size
            frame["reply"] = {"payload": answer.hex(), "fields": reply_fields(name, answer, protocol)}
        found.append(frame)
    assert replied == len(server_said)
    return found
