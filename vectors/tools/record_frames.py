"""Record what the genuine 3.6.1 client and server say to each other, byte for byte: the witness for the codec.

    python -m vectors.tools.record_frames

A forwarder that keeps every byte stands between two processes of the genuine build (~/.cache/ggml-rpc-ref/upstream/3.6.1): its
server, and `client()` below, which drives its client library through ctypes so that each of the 17 commands is sent at least once.
Both directions are then cut into frames and read with `struct`, by layouts written by hand, here and nowhere
else: nothing in this file may come from ggml_rpc_ref's codec or tables. The result is
vectors/upstream-3.6.1-llama-cpp-python-0.3.20/frames.json. Addresses and handles in it differ from one recording to the next.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import platform
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_bool, c_float, c_int, c_int64, c_size_t, c_uint8, c_void_p
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
OUT = HERE.parents[1] / "upstream-3.6.1-llama-cpp-python-0.3.20" / "frames.json"
LARGE = 10 * 2**20 + 4096
"""Bytes: above upstream's threshold for SET_TENSOR_HASH."""
SHOWN = 64
"""Bytes of data that a record shows where they are many; the rest is told by size, recipe and hash."""
RECIPE = "byte i is i % 251"


def recipe(size: int) -> bytes:
    """Return the large tensor's bytes."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


# --- the genuine client: runs in the genuine build's own Python -----------------------------------------------------------

F32, F16, Q8_0, I32 = 0, 1, 8, 26


def client(port: int) -> None:
    """Drive the genuine client so that it sends every command."""
    library = Library()
    ggml, rpc = library.base, library.rpc
    version, commit = (call(ggml, name, ctypes.c_char_p).decode() for name in ("ggml_version", "ggml_commit"))
    print(f"ggml {version} ({commit}), built on the machine that recorded: {platform.machine()}")
    registry = call(rpc, "ggml_backend_rpc_add_server", c_void_p, b"127.0.0.1:%d" % port)
    for device in (0, 1):
        handle = call(ggml, "ggml_backend_reg_dev_get", c_void_p, c_void_p(registry), c_size_t(device))
        free, total = c_size_t(), c_size_t()
        call(ggml, "ggml_backend_dev_memory", None, c_void_p(handle), ctypes.byref(free), ctypes.byref(total))
        kind = c_void_p(call(ggml, "ggml_backend_dev_buffer_type", c_void_p, c_void_p(handle)))
    # from here on everything is on device 1, so that the field differs from its neighbours
    backend = c_void_p(call(ggml, "ggml_backend_dev_init", c_void_p, c_void_p(handle), None))
    small = Space(ggml, kind, 2**16)
    call(ggml, "ggml_backend_buffer_clear", None, small.buffer, c_uint8(0xA5))
    computing(Maker(ggml, small), backend, kind)
    copying(Maker(ggml, small))
    large = Space(ggml, kind, 2 * LARGE)
    hashing(Maker(ggml, large))
    refused = call(ggml, "ggml_backend_buft_alloc_buffer", c_void_p, kind, c_size_t(2**62))
    assert not refused
    for space in (large, small):
        call(ggml, "ggml_backend_buffer_free", None, space.buffer)


class Library:
    """The ggml libraries of this Python's llama_cpp."""

    def __init__(self) -> None:
        directory = next(Path(sys.prefix).glob("lib/python3*/site-packages/llama_cpp/lib"))
        self.base, self.cpu, self.rpc = (
            ctypes.CDLL(str(directory / f"libggml-{part}.so"), mode=ctypes.RTLD_GLOBAL) for part in ("base", "cpu", "rpc")
        )


def call(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    """Call a C function whose result has the type given; arguments bring theirs."""
    function = getattr(library, name)
    function.restype = result
    return function(*arguments)


class InitParams(ctypes.Structure):
    """ggml_init_params of ggml.h."""

    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


class Space:
    """A remote buffer that is filled from its start."""

    def __init__(self, ggml: ctypes.CDLL, kind: c_void_p, size: int) -> None:
        self.buffer = c_void_p(call(ggml, "ggml_backend_buft_alloc_buffer", c_void_p, kind, c_size_t(size)))
        self.next = call(ggml, "ggml_backend_buffer_get_base", c_void_p, self.buffer)


class Maker:
    """Makes tensors of the genuine library, named and placed."""

    def __init__(self, ggml: ctypes.CDLL, space: Space) -> None:
        self.ggml, self.space = ggml, space
        self.context = c_void_p(call(ggml, "ggml_init", c_void_p, InitParams(2**20, None, True)))

    def new(self, name: str, kind: int, *ne: int) -> c_void_p:
        """Return a leaf in the remote buffer."""
        return self.placed(name, self.elsewhere(name, kind, *ne))

    def elsewhere(self, name: str, kind: int, *ne: int) -> c_void_p:
        """Return a leaf that lies in no buffer."""
        made = call(self.ggml, "ggml_new_tensor", c_void_p, self.context, c_int(kind), c_int(len(ne)), (c_int64 * len(ne))(*ne))
        call(self.ggml, "ggml_set_name", c_void_p, c_void_p(made), name.encode())
        return c_void_p(made)

    def op(self, name: str, function: str, *arguments: Any) -> c_void_p:
        """Return a node in the remote buffer."""
        return self.placed(name, c_void_p(call(self.ggml, function, c_void_p, self.context, *arguments)))

    def view(self, name: str, function: str, *arguments: Any) -> c_void_p:
        """Return a view of a tensor that is in the remote buffer."""
        made = c_void_p(call(self.ggml, function, c_void_p, self.context, *arguments))
        call(self.ggml, "ggml_set_name", c_void_p, made, name.encode())
        call(self.ggml, "ggml_backend_view_init", c_int, made)
        return made

    def placed(self, name: str, tensor: c_void_p) -> c_void_p:
        """Name a tensor and give it room; the client sends INIT_TENSOR where upstream wants it."""
        call(self.ggml, "ggml_set_name", c_void_p, tensor, name.encode())
        call(self.ggml, "ggml_backend_tensor_alloc", c_int, self.space.buffer, tensor, c_void_p(self.space.next))
        size: int = call(self.ggml, "ggml_nbytes", c_size_t, tensor)
        self.space.next += -(-size // 64) * 64
        return tensor

    def write(self, tensor: c_void_p, data: bytes, offset: int = 0) -> None:
        """Send data."""
        call(self.ggml, "ggml_backend_tensor_set", None, tensor, data, c_size_t(offset), c_size_t(len(data)))

    def read(self, tensor: c_void_p, size: int, offset: int = 0) -> bytes:
        """Ask for data."""
        data = ctypes.create_string_buffer(size)
        call(self.ggml, "ggml_backend_tensor_get", None, tensor, data, c_size_t(offset), c_size_t(size))
        return data.raw


def floats(count: int, first: float = 0.5) -> bytes:
    """Return `count` different F32 values."""
    return struct.pack(f"<{count}f", *(first + index / 8 for index in range(count)))


def computing(make: Maker, backend: c_void_p, kind: c_void_p) -> None:
    """Build a graph with as many kinds of field as upstream's constructors give; compute it twice."""
    ggml = make.ggml
    weights = make.new("blk.7.ffn_down.weight", Q8_0, 96, 5)
    call(ggml, "ggml_backend_buft_get_alloc_size", c_size_t, kind, weights)
    make.write(weights, b"".join(struct.pack("<e32b", 2.0 ** (block - 9), *range(block - 16, block + 16)) for block in range(15)))
    x = make.new("a name that has sixty-three bytes, which is as long as they get", F32, 96, 3)
    call(ggml, "ggml_set_input", None, x)
    make.write(x, floats(96 * 3))
    wide = make.new("größer als ASCII", F32, 7, 4, 2)
    call(ggml, "ggml_set_param", None, wide)
    make.write(wide, floats(56, 3.0))
    window = make.view("window", "ggml_view_2d", wide, c_int64(5), c_int64(3), c_size_t(28), c_size_t(124))
    product = make.op("product", "ggml_mul_mat", weights, x)
    total = make.op("", "ggml_add", product, window)
    norm = make.op("norm", "ggml_rms_norm", total, c_float(1e-6))
    scaled = make.op("scaled", "ggml_scale_bias", norm, c_float(-2.5), c_float(0.125))
    flipped = make.view("flipped", "ggml_transpose", scaled)
    straight = make.op("straight", "ggml_cont", flipped)
    call(ggml, "ggml_set_output", None, straight)
    rotated, attended = attention(make)
    call(ggml, "ggml_backend_buft_get_alloc_size", c_size_t, kind, attended)
    elsewhere = make.elsewhere("elsewhere", F16, 9, 8, 7, 6)
    seen = c_void_p(call(ggml, "ggml_reshape_2d", c_void_p, make.context, elsewhere, c_int64(72), c_int64(42)))
    fresh, halves = make.new("fresh", F32, 4, 3), make.new("halves", F16, 4, 3)
    copied = make.view("copied", "ggml_cpy", fresh, halves)
    graph = c_void_p(call(ggml, "ggml_new_graph", c_void_p, make.context))
    for end in (straight, rotated, attended, seen, copied):
        call(ggml, "ggml_build_forward_expand", None, graph, end)
    for _ in range(2):  # GRAPH_COMPUTE, then GRAPH_RECOMPUTE
        status = call(ggml, "ggml_backend_graph_compute", c_int, backend, graph)
        assert status == 0
    make.read(straight, 60)
    make.read(attended, 128, 256)


def attention(make: Maker) -> tuple[c_void_p, c_void_p]:
    """Return ROPE and FLASH_ATTN_EXT nodes: the ones with the most parameters and sources."""
    positions, factors = make.new("positions", I32, 3), make.new("factors", F32, 8)
    make.write(positions, struct.pack("<3i", 0, 5, 2**30))
    make.write(factors, floats(8, 1.0))
    q = make.new("q", F32, 32, 2, 3)
    make.write(q, floats(192))
    rope = (c_int(16), c_int(2), c_int(8192), *map(c_float, (1e6, 0.25, 1.0, 1.5, 32.0, 2.0)))
    rotated = make.op("rotated", "ggml_rope_ext", q, positions, factors, *rope)
    heads = make.view("heads", "ggml_permute", rotated, c_int(0), c_int(2), c_int(1), c_int(3))
    k, v, mask = (make.new(name, F16, *ne) for name, ne in (("k", (32, 8, 2)), ("v", (32, 8, 2)), ("mask", (8, 3))))
    sinks = make.new("sinks", F32, 2)
    make.write(sinks, floats(2))
    for tensor, count in ((k, 512), (v, 512), (mask, 24)):
        make.write(tensor, struct.pack(f"<{count}e", *(index / 64 for index in range(count))))
    attended = make.op("attended", "ggml_flash_attn_ext", heads, k, v, mask, *map(c_float, (0.1768, 0.0, 30.0)))
    call(make.ggml, "ggml_flash_attn_ext_set_prec", None, attended, c_int(10))
    call(make.ggml, "ggml_flash_attn_ext_add_sinks", None, attended, sinks)
    return rotated, attended


def copying(make: Maker) -> None:
    """Copy one tensor into another of the same connection; write and read parts."""
    source, target = make.new("source", F32, 4, 3), make.new("target", F32, 4, 3)
    make.write(source, floats(12))
    make.write(source, floats(2, 100.0), 20)
    call(make.ggml, "ggml_backend_tensor_copy", None, source, target)
    assert make.read(target, 8, 20) == floats(2, 100.0)


def hashing(make: Maker) -> None:
    """Write the same large data twice: once the server lacks them, once it has them in its cache."""
    for name in ("first", "second"):
        make.write(make.new(name, F32, LARGE // 4), recipe(LARGE))


# --- the forwarder --------------------------------------------------------------------------------------------------------


@contextmanager
def recorder(server: tuple[str, int]) -> Iterator[tuple[int, list[tuple[bytearray, bytearray]]]]:
    """Forward connections to a server; give our port and, per connection, what the client and what the server has said."""
    said: list[tuple[bytearray, bytearray]] = []
    threads: list[threading.Thread] = []

    def forward(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
        while data := source.recv(2**16):
            kept += data
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                ours, _ = listener.accept()
            except OSError:
                return
            theirs = socket.create_connection(server)
            kept = (bytearray(), bytearray())
            said.append(kept)
            for arguments in ((ours, theirs, kept[0]), (theirs, ours, kept[1])):
                threads.append(threading.Thread(target=forward, args=arguments))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1], said
        for thread in threads:
            thread.join()


# --- cutting and reading --------------------------------------------------------------------------------------------------

TENSOR = struct.Struct("<QIQ4I4II16ii10QQQQ64s4s")
NAMES = (
    "ALLOC_BUFFER", "GET_ALIGNMENT", "GET_MAX_SIZE", "BUFFER_GET_BASE", "FREE_BUFFER", "BUFFER_CLEAR", "SET_TENSOR",
    "SET_TENSOR_HASH", "GET_TENSOR", "COPY_TENSOR", "GRAPH_COMPUTE", "GET_DEVICE_MEMORY", "INIT_TENSOR", "GET_ALLOC_SIZE", "HELLO",
    "DEVICE_COUNT", "GRAPH_RECOMPUTE",
)  # fmt: skip
UNANSWERED = {"SET_TENSOR", "GRAPH_COMPUTE", "GRAPH_RECOMPUTE"}
NUMBERS: dict[str, tuple[str, tuple[str, ...], str, tuple[str, ...]]] = {
    "ALLOC_BUFFER": ("<IQ", ("device", "size"), "<QQ", ("remote_ptr", "remote_size")),
    "GET_ALIGNMENT": ("<I", ("device",), "<Q", ("alignment",)),
    "GET_MAX_SIZE": ("<I", ("device",), "<Q", ("max_size",)),
    "BUFFER_GET_BASE": ("<Q", ("remote_ptr",), "<Q", ("base_ptr",)),
    "FREE_BUFFER": ("<Q", ("remote_ptr",), "<", ()),
    "BUFFER_CLEAR": ("<QB", ("remote_ptr", "value"), "<", ()),
    "SET_TENSOR_HASH": ("<296sQQ", ("tensor", "offset", "hash"), "<B", ("result",)),
    "GET_TENSOR": ("<296sQQ", ("tensor", "offset", "size"), "", ("data",)),
    "COPY_TENSOR": ("<296s296s", ("src", "dst"), "<B", ("result",)),
    "GET_DEVICE_MEMORY": ("<I", ("device",), "<QQ", ("free_mem", "total_mem")),
    "INIT_TENSOR": ("<296s", ("tensor",), "<", ()),
    "HELLO": ("<", (), "<BBB", ("major", "minor", "patch")),
    "DEVICE_COUNT": ("<", (), "<I", ("device_count",)),
    "GRAPH_RECOMPUTE": ("<I", ("device",), "<", ()),
    "GET_ALLOC_SIZE": ("", (), "<Q", ("alloc_size",)),
}
"""Layout and names of the request's fields, then of the reply's; what varies in length is read by hand below."""


def tensor(data: bytes) -> dict[str, Any]:
    """Read an rpc_tensor."""
    values = TENSOR.unpack(data)
    return {
        "id": values[0], "type": values[1], "buffer": values[2], "ne": values[3:7], "nb": values[7:11], "op": values[11],
        "op_params": values[12:28], "flags": values[28], "src": values[29:39], "view_src": values[39], "view_offs": values[40],
        "data": values[41], "name": values[42].hex(), "padding": values[43].hex(),
    }  # fmt: skip


def numbers(layout: str, names: tuple[str, ...], data: bytes) -> dict[str, Any]:
    """Read fields one after another; 296 bytes are a tensor."""
    values = struct.unpack(layout, data)
    return {name: tensor(value) if isinstance(value, bytes) else value for name, value in zip(names, values, strict=True)}


def request_fields(name: str, payload: bytes) -> dict[str, Any]:
    """Read a request's payload."""
    match name:
        case "SET_TENSOR":
            return numbers("<296sQ", ("tensor", "offset"), payload[:304]) | {"data": payload[304 : 304 + SHOWN].hex()}
        case "GET_ALLOC_SIZE":
            records = [tensor(payload[at : at + 296]) for at in range(4, 3260, 296)]
            return {"device": struct.unpack("<I", payload[:4])[0], "tensor": records[0], "srcs": records[1:]}
        case "GRAPH_COMPUTE":
            device, n_nodes = struct.unpack("<II", payload[:8])
            (n_tensors,) = struct.unpack_from("<I", payload, 8 + 8 * n_nodes)
            records = [tensor(payload[at : at + 296]) for at in range(12 + 8 * n_nodes, len(payload), 296)]
            assert len(records) == n_tensors
            return {"device": device, "nodes": struct.unpack_from(f"<{n_nodes}Q", payload, 8), "tensors": records}
    layout, names, _, _ = NUMBERS[name]
    return numbers(layout, names, payload)


def reply_fields(name: str, payload: bytes) -> dict[str, Any]:
    """Read a reply's payload."""
    if name == "GET_TENSOR":
        return {"data": payload[:SHOWN].hex()}
    _, _, layout, names = NUMBERS[name]
    return numbers(layout, names, payload)


def shown(payload: bytes) -> dict[str, Any]:
    """Describe a payload: in full, or where it is large by its first bytes, the recipe of the rest, and a hash of all."""
    if len(payload) < 2**16:
        return {"payload": payload.hex()}
    rest = len(payload) - 304
    assert payload[304:] == recipe(rest)
    return {
        "payload_start": payload[:304].hex(),
        "then": {"size": rest, "recipe": RECIPE},
        "sha256": hashlib.sha256(payload).hexdigest(),
    }


def frames(client_said: bytes, server_said: bytes) -> list[dict[str, Any]]:
    """Cut a connection into requests with their replies; every byte must be accounted for."""
    found, at, replied = [], 0, 0
    while at < len(client_said):
        number, size = struct.unpack_from("<BQ", client_said, at)
        name, payload = NAMES[number], client_said[at + 9 : at + 9 + size]
        assert len(payload) == size
        at += 9 + size
        frame = {"command": name, "number": number, **shown(payload), "fields": request_fields(name, payload), "reply": None}
        if name not in UNANSWERED:
            (size,) = struct.unpack_from("<Q", server_said, replied)
            answer = server_said[replied + 8 : replied + 8 + size]
            assert len(answer) == size
            replied += 8 + size
            frame["reply"] = {"payload": answer.hex(), "fields": reply_fields(name, answer)}
        found.append(frame)
    assert replied == len(server_said)
    return found


def main() -> None:
    """Record, cut, check that every command is there, write."""
    from ggml_rpc_ref import upstream  # runs the genuine server; nothing of it touches a byte of the recording

    build = upstream.find("3.6.1")
    with tempfile.TemporaryDirectory() as cache, upstream.server("3.6.1", threads=1, devices=2, cache_dir=Path(cache)) as server:
        host, _, port = server.endpoint.rpartition(":")
        with recorder((host, int(port))) as (ours, said):
            command = [str(build.python), "-I", str(HERE), "client", str(ours)]
            library = subprocess.run(command, check=True, timeout=120, stdout=subprocess.PIPE, text=True).stdout.strip()
    connections = [{"frames": frames(bytes(client_said), bytes(server_said))} for client_said, server_said in said]
    seen = [frame["command"] for connection in connections for frame in connection["frames"]]
    assert set(seen) == set(NAMES), set(NAMES) - set(seen)
    document = {
        "schema_version": 1,
        "protocol": "3.6.1",
        "package": "llama-cpp-python 0.3.20",
        "build": library,
        "recorded_by": "vectors/tools/record_frames.py",
        "bytes": "hexadecimal; names and padding too. Other fields as the program's own struct layouts read them.",
        "connections": connections,
    }
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).replace('{"command"', '\n{"command"')
    OUT.write_text(text + "\n")
    print(f"{OUT}: {len(text)} bytes, {len(connections)} connections, {len(seen)} requests")


if __name__ == "__main__":
    if sys.argv[1:2] == ["client"]:
        client(int(sys.argv[2]))
    else:
        main()
