"""What the genuine client does in each recorded session. Runs in the genuine build's own Python, started by record_sessions.py.

    python -m vectors.tools.session_scenarios NAME LIBRARIES PORT [ARGUMENT]...

Everything is asked for through upstream's public functions, so that each byte that goes over the wire is the client library's own.
Tensors get their memory from ggml's allocator, as llama.cpp's do. Contents are small multiples of 1/16, the same in every run.
"""

from __future__ import annotations

import ctypes
import importlib
import runpy
import struct
import sys
from collections.abc import Callable
from ctypes import c_float, c_int, c_int64, c_size_t, c_uint8, c_void_p
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vectors.tools.record_frames import InitParams, call, devices, load, scheduler

F32, F16, Q4_K, I32, I64 = 0, 1, 12, 26, 27
OVER_THRESHOLD = 10 * 2**20 + 4096
"""Bytes: more than that go by their hash first (HASH_THRESHOLD in ggml-rpc.cpp)."""


class Remote:
    """A device of a server, as the genuine client sees it."""

    def __init__(self, port: int, device: int = 0) -> None:
        self.ggml, self.device = load(sys.argv[2]), device
        self._device = devices(self.ggml, port)[device]
        self.kind, self.backend = self._device.kind(), self._device.backend()

    def memory(self) -> None:
        """Ask how much memory the device has."""
        self._device.memory()

    def buffer(self, size: int) -> c_void_p:
        """Ask for a buffer; a null pointer where the server has no room."""
        return c_void_p(call(self.ggml, "ggml_backend_buft_alloc_buffer", c_void_p, self.kind, c_size_t(size)))

    def free(self, buffer: c_void_p) -> None:
        """Give a buffer back."""
        call(self.ggml, "ggml_backend_buffer_free", None, buffer)

    def clear(self, buffer: c_void_p, value: int) -> None:
        """Set every byte of a buffer."""
        call(self.ggml, "ggml_backend_buffer_clear", None, buffer, c_uint8(value))

    def compute(self, graph: c_void_p) -> None:
        """Compute a graph."""
        assert call(self.ggml, "ggml_backend_graph_compute", c_int, self.backend, graph) == 0

    def runner(self, graph: c_void_p) -> Callable[[], None]:
        """Return what computes a graph, so that the client knows it again where it goes by uids, which a scheduler gives."""
        if not hasattr(self.ggml, "ggml_graph_next_uid"):
            return lambda: self.compute(graph)
        own = scheduler(self.ggml, self.backend, self.kind)

        def run() -> None:
            assert call(self.ggml, "ggml_backend_sched_graph_compute", c_int, own, graph) == 0

        return run


class Scene:
    """Tensors that belong together."""

    def __init__(self, remote: Remote) -> None:
        self.remote, self.ggml = remote, remote.ggml
        self.context = c_void_p(call(self.ggml, "ggml_init", c_void_p, InitParams(2**20, None, True)))

    def leaf(self, name: str, kind: int, *ne: int) -> c_void_p:
        """Return a tensor to be written."""
        dimensions = (c_int64 * len(ne))(*ne)
        return self._named(
            name, call(self.ggml, "ggml_new_tensor", c_void_p, self.context, c_int(kind), c_int(len(ne)), dimensions)
        )

    def op(self, name: str, function: str, *arguments: Any) -> c_void_p:
        """Return what one of ggml's constructors makes of its arguments."""
        return self._named(name, call(self.ggml, f"ggml_{function}", c_void_p, self.context, *arguments))

    def _named(self, name: str, tensor: int) -> c_void_p:
        call(self.ggml, "ggml_set_name", c_void_p, c_void_p(tensor), name.encode())
        return c_void_p(tensor)

    def place(self) -> c_void_p:
        """Give every tensor its memory, in one buffer, which is returned."""
        allocate = "ggml_backend_alloc_ctx_tensors_from_buft"
        return c_void_p(call(self.ggml, allocate, c_void_p, self.context, self.remote.kind))

    def graph(self, *ends: c_void_p) -> c_void_p:
        """Return a graph that computes these."""
        made = c_void_p(call(self.ggml, "ggml_new_graph", c_void_p, self.context))
        for end in ends:
            call(self.ggml, "ggml_build_forward_expand", None, made, end)
        return made

    def write(self, tensor: c_void_p, data: bytes, offset: int = 0) -> None:
        """Send data."""
        call(self.ggml, "ggml_backend_tensor_set", None, tensor, data, c_size_t(offset), c_size_t(len(data)))

    def read(self, tensor: c_void_p, size: int, offset: int = 0) -> bytes:
        """Ask for data."""
        data = ctypes.create_string_buffer(size)
        call(self.ggml, "ggml_backend_tensor_get", None, tensor, data, c_size_t(offset), c_size_t(size))
        return data.raw


def values(count: int, first: int = 0) -> list[float]:
    """Return numbers between -2 and 2, multiples of 1/16."""
    return [((first + index) * 37 % 64 - 32) / 16 for index in range(count)]


def floats(count: int, first: int = 0) -> bytes:
    """Return them as F32."""
    return struct.pack(f"<{count}f", *values(count, first))


def q4_k(blocks: int) -> bytes:
    """Return that many blocks of Q4_K: scales around 1/64, every quant value."""
    scales = (struct.pack("<ee", (block % 5 + 1) / 256, (block % 3) / 256) for block in range(blocks))
    return b"".join(scale + bytes((block * 7 + at * 29) % 256 for at in range(140)) for block, scale in enumerate(scales))


# --- the scenarios --------------------------------------------------------------------------------------------------------


def questions(port: int) -> None:
    """Ask a server of one device what it has."""
    remote = Remote(port)
    remote.memory()
    for question in ("ggml_backend_buft_get_alignment", "ggml_backend_buft_get_max_size"):
        call(remote.ggml, question, c_size_t, remote.kind)
    remote.memory()


def buffers(port: int) -> None:
    """Two buffers, cleared, written, read, freed; one that is too large."""
    remote = Remote(port)
    scene = Scene(remote)
    tensor = scene.leaf("numbers", F32, 5, 3)
    placed = scene.place()
    remote.clear(placed, 0xA5)
    scene.read(tensor, 60)
    scene.write(tensor, floats(15))
    scene.read(tensor, 60)
    other = remote.buffer(100)
    assert not remote.buffer(2**62)
    remote.clear(other, 0)
    remote.free(other)
    remote.clear(placed, 0)
    scene.read(tensor, 60)
    remote.free(placed)


def product(port: int, kind: int, rows: int, n: int, data: bytes) -> None:
    """One MUL_MAT, its result read."""
    remote = Remote(port)
    scene = Scene(remote)
    weights, x = scene.leaf("weights", kind, n, rows), scene.leaf("x", F32, n, 3)
    result = scene.op("product", "mul_mat", weights, x)
    buffer = scene.place()
    scene.write(weights, data)
    scene.write(x, floats(n * 3, 5))
    remote.compute(scene.graph(result))
    scene.read(result, rows * 3 * 4)
    remote.free(buffer)


def recompute(port: int) -> None:
    """A graph, again on other inputs, another graph, the first one again, and again."""
    remote = Remote(port)
    scene = Scene(remote)
    a, b = scene.leaf("a", F32, 8, 2), scene.leaf("b", F32, 8, 2)
    total = scene.op("total", "add", a, b)
    first = scene.op("first", "soft_max", total)
    second = scene.op("second", "rms_norm", total, c_float(1e-5))
    buffer = scene.place()
    one, other = remote.runner(scene.graph(first)), remote.runner(scene.graph(second))
    for number, (run, result) in enumerate([(one, first), (one, first), (other, second), (one, first), (one, first)]):
        scene.write(a, floats(16, number))
        scene.write(b, floats(16, 3 * number + 1))
        run()
        scene.read(result, 64)
    remote.free(buffer)


def views(port: int) -> None:
    """Views of views, permutations, copies made by a graph, a copy made by COPY_TENSOR."""
    remote = Remote(port)
    scene = Scene(remote)
    base = scene.leaf("base", F32, 6, 4, 2)
    window = scene.op("window", "view_3d", base, *map(c_int64, (4, 3, 2)), c_size_t(24), c_size_t(96), c_size_t(32))
    inner = scene.op("inner", "view_2d", window, c_int64(2), c_int64(3), c_size_t(24), c_size_t(8))
    turned = scene.op("turned", "permute", window, *map(c_int, (2, 0, 1, 3)))
    straight = scene.op("straight", "cont", turned)
    flat = scene.op("flat", "reshape_2d", straight, c_int64(6), c_int64(4))
    crossed = scene.op("crossed", "cont", scene.op("transposed", "transpose", flat))
    halves = scene.leaf("halves", F16, 2, 3)
    copied = scene.op("copied", "cpy", inner, halves)
    twin = scene.leaf("twin", F32, 6, 4, 2)
    into = scene.op("into", "view_2d", twin, c_int64(2), c_int64(3), c_size_t(24), c_size_t(100))
    placed = scene.op("placed", "cpy", inner, into)
    buffer = scene.place()
    scene.write(base, floats(48))
    call(remote.ggml, "ggml_backend_tensor_copy", None, base, twin)
    remote.compute(scene.graph(crossed, copied, placed))
    for tensor, size in ((straight, 96), (crossed, 96), (window, 136), (halves, 12), (twin, 192)):
        scene.read(tensor, size)
    remote.free(buffer)


def parts(port: int) -> None:
    """Tensors written and read in parts, among them bytes that nobody has written."""
    remote = Remote(port)
    scene = Scene(remote)
    one, two = scene.leaf("one", F32, 16), scene.leaf("two", F16, 7, 3)
    buffer = scene.place()
    scene.write(one, floats(4), 8)
    scene.write(one, floats(3, 9), 16)
    scene.read(one, 20, 8)
    scene.read(one, 64)
    scene.write(two, bytes(range(1, 43)))
    scene.write(two, b"\xfe", 41)
    scene.read(two, 1, 41)
    scene.read(two, 13, 14)
    remote.free(buffer)


def elsewhere(port: int) -> None:
    """A graph that has tensors which lie in no buffer of the server, and computes nothing of them."""
    remote = Remote(port)
    away, scene = Scene(remote), Scene(remote)
    seen = away.op("seen", "reshape_2d", away.leaf("away", F16, 9, 8), c_int64(12), c_int64(6))
    x = scene.leaf("x", F32, 10)
    squared = scene.op("squared", "sqr", x)
    buffer = scene.place()
    scene.write(x, floats(10))
    remote.compute(scene.graph(seen, squared))
    scene.read(squared, 40)
    remote.free(buffer)


def first_client(port: int) -> None:
    """Write, and leave without freeing anything."""
    scene = Scene(Remote(port))
    tensor = scene.leaf("mine", F32, 8)
    scene.place()
    scene.write(tensor, floats(8))
    scene.read(tensor, 32)


def second_client(port: int) -> None:
    """Do the same with other numbers, and compute."""
    remote = Remote(port)
    scene = Scene(remote)
    tensor = scene.leaf("mine", F32, 8)
    doubled = scene.op("doubled", "scale", tensor, c_float(2.0))
    buffer = scene.place()
    scene.write(tensor, floats(8, 20))
    remote.compute(scene.graph(doubled))
    scene.read(doubled, 32)
    remote.free(buffer)


def two_devices(port: int) -> None:
    """A graph on each of two devices, each with its own stored graph, and a tensor that goes from one to the other."""
    remotes = [Remote(port, device) for device in (0, 1)]
    scenes = [Scene(remote) for remote in remotes]
    inputs = [scene.leaf("x", F32, 4, 2) for scene in scenes]
    results = [
        scenes[0].op("squared", "sqr", inputs[0]),
        scenes[1].op("normed", "rms_norm", inputs[1], c_float(1e-6)),
    ]
    buffers = [scene.place() for scene in scenes]
    graphs = [scene.graph(result) for scene, result in zip(scenes, results, strict=True)]
    for remote in remotes:
        remote.memory()
    scenes[0].write(inputs[0], floats(8))
    remotes[0].compute(graphs[0])
    call(remotes[0].ggml, "ggml_backend_tensor_copy", None, results[0], inputs[1])
    remotes[1].compute(graphs[1])
    scenes[1].read(results[1], 32)
    scenes[0].write(inputs[0], floats(8, 30))
    for remote, graph in zip(remotes, graphs, strict=True):
        remote.compute(graph)  # GRAPH_RECOMPUTE on each
    for scene, result in zip(scenes, results, strict=True):
        scene.read(result, 32)
    for remote, buffer in zip(remotes, buffers, strict=True):
        remote.free(buffer)


def hash_cache(port: int) -> None:
    """Write the same large data twice: first the server lacks them, then it has them in its cache."""
    remote = Remote(port)
    scene = Scene(remote)
    one, two = (scene.leaf(name, F32, OVER_THRESHOLD // 4) for name in ("one", "two"))
    buffer = scene.place()
    remote.clear(buffer, 0xA5)
    for tensor in (one, two):
        scene.write(tensor, bytes(OVER_THRESHOLD))
        scene.read(tensor, 48)
        scene.read(tensor, 48, OVER_THRESHOLD - 48)
    remote.free(buffer)


def indices(port: int) -> None:
    """GET_ROWS, SET_ROWS and MUL_MAT_ID: what they compute depends on the contents of integer tensors."""
    remote = Remote(port)
    scene = Scene(remote)
    table, rows = scene.leaf("table", F32, 8, 6), scene.leaf("rows", I32, 3)
    taken = scene.op("taken", "get_rows", table, rows)
    cache, places = scene.leaf("cache", F16, 8, 5), scene.leaf("places", I64, 3)
    put = scene.op("put", "set_rows", cache, taken, places)
    experts, chosen = scene.leaf("experts", F32, 8, 4, 3), scene.leaf("chosen", I32, 2, 3)
    tokens = scene.op("tokens", "reshape_3d", taken, c_int64(8), c_int64(1), c_int64(3))
    mixed = scene.op("mixed", "mul_mat_id", experts, tokens, chosen)
    buffer = scene.place()
    remote.clear(buffer, 0)
    scene.write(table, floats(48))
    scene.write(experts, floats(96, 7))
    graph = scene.graph(put, mixed)
    for first in (0, 1):
        scene.write(rows, struct.pack("<3i", first, 5, 2))
        scene.write(places, struct.pack("<3q", 4, first, 2))
        scene.write(chosen, struct.pack("<6i", 0, 2, 1, first, 2, 1))
        remote.compute(graph)
        for tensor, size in ((taken, 96), (cache, 80), (mixed, 96)):
            scene.read(tensor, size)
    remote.free(buffer)


def gemma(port: int, model: str, prompt: str, count: int) -> None:
    """Load a model, all of it on the server, and have the server choose tokens: the best one each time."""
    # run as a file: importing it as a module of its package would import the package, whose needs this Python does not have
    genuine = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "ggml_rpc_ref" / "upstream" / "genuine.py")))
    ggml = genuine.Ggml(sys.argv[2])
    llama = importlib.import_module("llama_cpp")  # after the libraries that it needs: see genuine.py

    llama.llama_backend_init()
    loaded = genuine.load_model(genuine.Imported(), model, genuine.remote_devices(ggml, f"127.0.0.1:{port}"), 1)
    print("loaded", flush=True)
    sys.stdin.readline()
    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    for sampler in (llama.llama_sampler_init_top_k(1), llama.llama_sampler_init_dist(1)):
        llama.llama_sampler_chain_add(chain, sampler)
    parameters = llama.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = 64
    parameters.samplers = ctypes.pointer(llama.llama_sampler_seq_config(0, ctypes.cast(chain, c_void_p)))
    parameters.n_samplers = parameters.n_threads = parameters.n_threads_batch = 1
    context = llama.llama_init_from_model(loaded, parameters)
    tokens = genuine.tokenise(llama, llama.llama_model_get_vocab(loaded), prompt)
    for _ in range(count):
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        assert llama.llama_decode(context, llama.llama_batch_get_one(array, len(tokens))) == 0
        tokens = [llama.llama_get_sampled_token_ith(context, -1)]


SCENARIOS: dict[str, Callable[..., None]] = {
    "devices": questions,
    "buffers": buffers,
    "mul-mat-f32": lambda port: product(port, F32, 4, 16, floats(64)),
    "mul-mat-q4-k": lambda port: product(port, Q4_K, 4, 256, q4_k(4)),
    "recompute": recompute,
    "views": views,
    "parts": parts,
    "elsewhere": elsewhere,
    "first-client": first_client,
    "second-client": second_client,
    "two-devices": two_devices,
    "hash-cache": hash_cache,
    "indices": indices,
    "gemma": lambda port, model, prompt, count: gemma(port, model, prompt, int(count)),
}

if __name__ == "__main__":
    SCENARIOS[sys.argv[1]](int(sys.argv[3]), *sys.argv[4:])
