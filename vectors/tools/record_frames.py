"""Record what a genuine client and server say to each other, byte for byte: the witness for the codec.

    python -m vectors.tools.record_frames [VERSION]...

A forwarder that keeps every byte stands between two processes of a genuine build, its server, and `client()` below, which drives
its client library through ctypes so that each command of the version is sent at least once (8.0.0's communicator needs two servers,
and so two forwarders). Both directions are then cut into frames and read by `frame_layouts`, whose layouts are written by hand:
nothing in either file may come from ggml_rpc_ref's codec or tables. The result is vectors/upstream-<version>-<build>/frames.json.
Addresses and handles in it differ from one recording to the next.
"""

from __future__ import annotations

import ctypes
import json
import platform
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from ctypes import c_bool, c_float, c_int, c_int64, c_size_t, c_uint8, c_void_p
from pathlib import Path
from typing import Any

LARGE = 10 * 2**20 + 4096
"""Bytes: above upstream's threshold for SET_TENSOR_HASH."""
ADDRESS = b"127.0.0.1:%d"


def pattern(size: int) -> bytes:
    """Return the large tensor's bytes; the same as `frame_layouts.recipe`, which can't be imported where this runs."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


# --- the genuine client: runs in a process of its own, with the genuine build's libraries ---------------------------------

F32, F16, Q8_0, I32 = 0, 1, 8, 26
CPU, WEIGHTS = 0, 1
"""GGML_BACKEND_DEVICE_TYPE_CPU, GGML_BACKEND_BUFFER_USAGE_WEIGHTS."""


def client(directory: str, protocol: tuple[int, ...], ports: list[int]) -> None:
    """Drive the genuine client so that it sends every command."""
    ggml = load(directory)
    # older releases do not say which they are
    functions = ("ggml_version", "ggml_commit")
    version, commit = (call(ggml, name, ctypes.c_char_p).decode() if hasattr(ggml, name) else "unknown" for name in functions)
    print(f"ggml {version} ({commit}), built on the machine that recorded: {platform.machine()}")
    for device in devices(ggml, ports[0]):
        device.memory()
        kind = device.kind()
    # from here on everything is on the last device, so that the field differs from its neighbours
    backend = device.backend()
    small = Space(ggml, kind, 2**16)
    call(ggml, "ggml_backend_buffer_clear", None, small.buffer, c_uint8(0xA5))
    computing(Maker(ggml, small), backend, kind, scheduled=protocol >= (4, 0, 0))
    copying(Maker(ggml, small))
    if protocol >= (5, 0, 0):
        setting(Maker(ggml, small))
    if protocol >= (8, 0, 0):
        striding(Maker(ggml, small))
        reducing(Maker(ggml, small), backend, ports)
    large = Space(ggml, kind, 2 * LARGE)
    # since 7.0.0 only what lies in a buffer of weights goes by its hash
    call(ggml, "ggml_backend_buffer_set_usage", None, large.buffer, c_int(WEIGHTS))
    hashing(Maker(ggml, large))
    refused = call(ggml, "ggml_backend_buft_alloc_buffer", c_void_p, kind, c_size_t(2**62))
    assert not refused
    for space in (large, small):
        call(ggml, "ggml_backend_buffer_free", None, space.buffer)
    # since 6.0.0 a thread sends what has no reply: a question that has one comes back when all that is out
    device.memory()


def load(directory: str) -> ctypes.CDLL:
    """Load the ggml libraries of a build and return the one in which every function is found: it depends on the others."""
    paths = [Path(directory) / f"libggml{part}.so" for part in ("-base", "-cpu", "-rpc", "")]
    # ik_llama.cpp has but one
    return [ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL) for path in paths if path.exists()][-1]


def has_devices(ggml: ctypes.CDLL) -> bool:
    """Whether a library has handles for devices; ik_llama.cpp, older than they are, names them by endpoint and index."""
    return hasattr(ggml, "ggml_backend_dev_init")


class Device:
    """A device of a server, through a handle or, where the library has none, by its endpoint and index."""

    def __init__(self, ggml: ctypes.CDLL, handle: c_void_p | None, *where: Any) -> None:
        self.ggml, self.handle, self._where = ggml, handle, where

    def memory(self) -> None:
        """Ask for its memory."""
        free, total = c_size_t(), c_size_t()
        name, where = ("rpc_get_device_memory", self._where) if self.handle is None else ("dev_memory", (self.handle,))
        call(self.ggml, f"ggml_backend_{name}", None, *where, ctypes.byref(free), ctypes.byref(total))

    def kind(self) -> c_void_p:
        """Return its type of buffer."""
        name, where = ("rpc_buffer_type", self._where) if self.handle is None else ("dev_buffer_type", (self.handle,))
        return c_void_p(call(self.ggml, f"ggml_backend_{name}", c_void_p, *where))

    def backend(self) -> c_void_p:
        """Return a backend on it."""
        name, where = ("rpc_init", self._where) if self.handle is None else ("dev_init", (self.handle, None))
        return c_void_p(call(self.ggml, f"ggml_backend_{name}", c_void_p, *where))


def devices(ggml: ctypes.CDLL, port: int) -> list[Device]:
    """Return the devices of a server."""
    address = ADDRESS % port
    if not has_devices(ggml):
        count = call(ggml, "ggml_backend_rpc_get_device_count", ctypes.c_uint32, address)
        return [Device(ggml, None, address, ctypes.c_uint32(index)) for index in range(count)]
    if not hasattr(ggml, "ggml_backend_rpc_add_server"):  # before 3.0.0
        return [Device(ggml, c_void_p(call(ggml, "ggml_backend_rpc_add_device", c_void_p, address)))]
    registry = c_void_p(call(ggml, "ggml_backend_rpc_add_server", c_void_p, address))
    count = call(ggml, "ggml_backend_reg_dev_count", c_size_t, registry)
    indices = map(c_size_t, range(count))
    return [Device(ggml, c_void_p(call(ggml, "ggml_backend_reg_dev_get", c_void_p, registry, index))) for index in indices]


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


def computing(make: Maker, backend: c_void_p, kind: c_void_p, *, scheduled: bool) -> None:
    """Build a graph with as many kinds of field as upstream's constructors give; compute it twice.

    Since 4.0.0 a client knows a graph again by its uid, which only the scheduler gives.
    """
    ggml = make.ggml
    weights = make.new("blk.7.ffn_down.weight", Q8_0, 96, 5)
    call(ggml, "ggml_backend_buft_get_alloc_size", c_size_t, kind, weights)
    make.write(weights, b"".join(struct.pack("<e32b", 2.0 ** (block - 9), *range(block - 16, block + 16)) for block in range(15)))
    x = make.new("a name that has sixty-three bytes, which is as long as they get", F32, 96, 3)
    call(ggml, "ggml_set_input", None, x)
    make.write(x, floats(96 * 3))
    wide = make.new("größer als ASCII", F32, 7, 4, 2)
    call(ggml, "ggml_set_param", None, *(() if has_devices(ggml) else (make.context,)), wide)
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
    ends = [straight, rotated, attended, copied]
    whole = graph(make, seen, *ends)
    for _ in range(1 if scheduled else 2):  # GRAPH_COMPUTE, then GRAPH_RECOMPUTE
        assert call(ggml, "ggml_backend_graph_compute", c_int, backend, whole) == 0
    if scheduled:
        # the scheduler wants every tensor to be somewhere
        known, where = graph(make, *ends), scheduler(ggml, backend, kind)
        for _ in range(2):
            assert call(ggml, "ggml_backend_sched_graph_compute", c_int, where, known) == 0
    make.read(straight, 60)
    make.read(attended, 128, 256)


def graph(make: Maker, *ends: c_void_p) -> c_void_p:
    """Return a graph that computes these."""
    made = c_void_p(call(make.ggml, "ggml_new_graph", c_void_p, make.context))
    for end in ends:
        call(make.ggml, "ggml_build_forward_expand", None, made, end)
    return made


def scheduler(ggml: ctypes.CDLL, backend: c_void_p, kind: c_void_p) -> c_void_p:
    """Return a scheduler over this backend and the CPU, which every scheduler wants."""
    cpu = c_void_p(call(ggml, "ggml_backend_init_by_type", c_void_p, c_int(CPU), None))
    kinds = (c_void_p * 2)(kind, call(ggml, "ggml_backend_get_default_buffer_type", c_void_p, cpu))
    backends, size = (c_void_p * 2)(backend, cpu), c_size_t(256)
    return c_void_p(call(ggml, "ggml_backend_sched_new", c_void_p, backends, kinds, c_int(2), size, c_bool(False), c_bool(False)))


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
    # older releases want a mask of 64 rows
    k, v, mask = (make.new(name, F16, *ne) for name, ne in (("k", (32, 8, 2)), ("v", (32, 8, 2)), ("mask", (8, 64))))
    sinks = make.new("sinks", F32, 2)
    make.write(sinks, floats(2))
    for tensor in (k, v, mask):
        make.write(tensor, struct.pack("<512e", *(index / 64 for index in range(512))))
    attended = make.op("attended", "ggml_flash_attn_ext", heads, k, v, mask, *map(c_float, (0.1768, 0.0, 30.0)))
    # GGML_PREC_F32
    call(make.ggml, "ggml_flash_attn_ext_set_prec", None, attended, c_int(10 if has_devices(make.ggml) else 1))
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
        make.write(make.new(name, F32, LARGE // 4), pattern(LARGE))


def setting(make: Maker) -> None:
    """Set a part of a tensor to one byte."""
    tensor = make.new("set", F32, 5, 3)
    make.write(tensor, floats(15))
    call(make.ggml, "ggml_backend_tensor_memset", None, tensor, c_uint8(0x5A), c_size_t(12), c_size_t(40))
    assert make.read(tensor, 44, 8) == floats(15)[8:12] + b"\x5a" * 40


def striding(make: Maker) -> None:
    """Write and read columns of a matrix."""
    tensor = make.new("columns", F32, 6, 4)
    make.write(tensor, bytes(96))
    # offset, size of a piece, pieces, stride of the tensor, stride of the data
    where = (c_size_t(8), c_size_t(12), c_size_t(3), c_size_t(24), c_size_t(16))
    call(make.ggml, "ggml_backend_tensor_set_2d", None, tensor, floats(12, 50.0), *where)
    read = ctypes.create_string_buffer(48)
    call(make.ggml, "ggml_backend_tensor_get_2d", None, tensor, read, *where)
    assert read.raw[16:28] == floats(12, 50.0)[16:28]


def reducing(make: Maker, backend: c_void_p, ports: list[int]) -> None:
    """Add up a tensor that each of two servers has."""
    ggml = make.ggml
    other = devices(ggml, ports[1])[0]
    kind = other.kind()
    remote, space = other.backend(), Space(ggml, kind, 2**12)
    registry = c_void_p(call(ggml, "ggml_backend_dev_backend_reg", c_void_p, other.handle))

    def function(name: bytes, result: Any) -> Any:
        found = call(ggml, "ggml_backend_reg_get_proc_address", c_void_p, registry, name)
        return ctypes.CFUNCTYPE(result, c_void_p, c_void_p)(found)

    pair = (c_void_p * 2)(backend, remote)
    communicator = function(b"ggml_backend_comm_init", c_void_p)(ctypes.addressof(pair), 2)
    assert communicator
    makers = (make, Maker(ggml, space))
    # what is reduced is the result of a graph: a client leaves to itself what has no flag COMPUTE
    summands = [each.op("summand", "ggml_abs", each.new("leaf", F32, 9, 2)) for each in makers]
    for number, each in enumerate(makers):
        graph(each, summands[number])
        each.write(summands[number], floats(18, 1.0 + number))
    listed = (c_void_p * 2)(*(tensor.value for tensor in summands))
    assert function(b"ggml_backend_comm_allreduce_tensor", c_bool)(communicator, ctypes.addressof(listed))
    for number, each in enumerate(makers):
        assert each.read(summands[number], 4) == struct.pack("<f", 3.0)
    function(b"ggml_backend_comm_free", None)(communicator, None)
    call(ggml, "ggml_backend_buffer_free", None, space.buffer)
    other.memory()


# --- the forwarder --------------------------------------------------------------------------------------------------------


@contextmanager
def recorder(server: tuple[str, int]) -> Iterator[tuple[int, list[tuple[bytearray, bytearray]]]]:
    """Forward connections to a server; give our port and, per connection, what the client and what the server has said."""
    said: list[tuple[bytearray, bytearray]] = []
    threads: list[threading.Thread] = []
    sockets: list[socket.socket] = []

    def forward(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
        # an end that exits may reset its connections; whether anything was lost shows when the frames are cut
        with suppress(ConnectionResetError):
            while data := source.recv(2**16):
                kept += data
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                ours, _ = listener.accept()
            except OSError:
                return
            theirs = socket.create_connection(server)
            sockets.extend((ours, theirs))
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
        for each in sockets:
            each.close()


def record(build: Any, out: Path) -> None:
    """Record, cut, check that every command is there, write."""
    from ggml_rpc_ref import upstream  # runs the genuine servers; nothing of it touches a byte of the recording
    from vectors.tools import builds, frame_layouts

    protocol = builds.protocol_of(build)
    ends, count = (2 if protocol >= (8, 0, 0) else 1), (2 if protocol >= (3, 0, 0) else 1)
    with ExitStack() as stack:
        ports, said = [], []
        for _ in range(ends):
            cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            server = stack.enter_context(upstream.server(build.name, threads=1, devices=count, cache_dir=cache))
            host, _, port = server.endpoint.rpartition(":")
            ours, heard = stack.enter_context(recorder((host, int(port))))
            ports.append(ours)
            said.append(heard)
        command = builds.command(build, __file__, "client", build.protocol, *ports)
        env = upstream.process.environment()
        library = subprocess.run(command, check=True, timeout=300, stdout=subprocess.PIPE, text=True, env=env).stdout.strip()
    connections = [{"frames": frame_layouts.frames(bytes(c), bytes(s), protocol)} for heard in said for c, s in heard]
    seen = [frame["command"] for connection in connections for frame in connection["frames"]]
    assert set(seen) == set(frame_layouts.names(protocol)), set(frame_layouts.names(protocol)) - set(seen)
    document = {
        **builds.head(build, __file__),
        "build": library,
        "bytes": "hexadecimal; names and padding too. Other fields as the program's own struct layouts read them.",
        "connections": connections,
    }
    order = ("schema_version", "protocol", "package", "build", "recorded_by", "bytes", "connections")
    text = json.dumps({name: document[name] for name in order}, separators=(",", ":"), ensure_ascii=False)
    out.parent.mkdir(exist_ok=True)
    out.write_text(text.replace('{"command"', '\n{"command"') + "\n")
    print(f"{out}: {len(text)} bytes, {len(connections)} connections, {len(seen)} requests")


def main() -> None:
    """Record each build asked for."""
    from vectors.tools import builds

    for build in builds.wanted(builds.arguments()):
        record(build, builds.folder(build) / "frames.json")


if __name__ == "__main__":
    if sys.argv[1:2] == ["client"]:
        client(sys.argv[2], tuple(map(int, sys.argv[3].split("."))), list(map(int, sys.argv[4:])))
    else:
        main()
