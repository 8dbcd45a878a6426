"""The genuine client doing everything that it can do with a server, or with two; a script for the interpreter that runs a build.

    python -I genuine_client.py LIBRARIES MEMSET_TENSOR|- ENDPOINT [ENDPOINT2]

Compares what comes back, ends with 0 where all of it is right, and with 1 and a sentence where not, or where the client gives up a
server. Mostly the client ends its own process where it does not like what it hears, as llama.cpp does. A second server gets tensors
of its own, and a tensor is copied there and back.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import c_bool, c_float, c_int, c_int64, c_size_t, c_uint8, c_uint32, c_void_p
from pathlib import Path
from typing import Any

F32, Q8_0 = 0, 8
WEIGHTS = 1
"""GGML_BACKEND_BUFFER_USAGE_WEIGHTS: from 7.0.0 on only data of such buffers are asked for by their hash."""
LARGE = 10 * 2**20 + 4
"""Bytes: so many are preceded by their hash."""
COUNTS_DEVICES = "ggml_backend_rpc_add_server"
"""The function that came together with several devices of a server."""
GETS_ROWS = "ggml_backend_tensor_get_2d"
"""The function by which rows are read."""
SETS_BYTES = "MEMSET_TENSOR"
"""The word for a build whose client has this message: the function is in every build, and aborts where the client has not."""


class InitParams(ctypes.Structure):
    """ggml_init_params."""

    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


class Libraries:
    """The libraries of a build."""

    def __init__(self, directory: str) -> None:
        suffix = ".dylib" if sys.platform == "darwin" else ".so"
        paths = [Path(directory) / f"libggml{part}{suffix}" for part in ("-base", "-cpu", "-rpc", "")]
        self._libraries = [ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL) for path in paths if path.exists()]

    def has(self, name: str) -> bool:
        """Whether the build has a function."""
        return any(hasattr(library, name) for library in self._libraries)

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        """Call a function of whichever library has it."""
        found = next(getattr(library, name) for library in self._libraries if hasattr(library, name))
        found.restype = result
        return found(*arguments)

    def pointer(self, name: str, *arguments: Any) -> c_void_p:
        """Call a function that returns a pointer, and give up where that is null."""
        found = self.call(name, c_void_p, *arguments)
        if not found:
            give_up(f"{name} returned null")
        return c_void_p(found)


class Device:
    """One device of a server."""

    def __init__(self, libraries: Libraries, endpoint: str, number: int, *, sets_bytes: bool) -> None:
        self.lib, self.endpoint, self._number, self._sets_bytes = libraries, endpoint.encode(), c_uint32(number), sets_bytes
        # until DEVICE_COUNT came there is no second argument, and one too many does no harm
        self._type = libraries.pointer("ggml_backend_rpc_buffer_type", self.endpoint, self._number)
        self.backend = libraries.pointer("ggml_backend_rpc_init", self.endpoint, self._number)

    def memory(self) -> None:
        """Ask for the memory."""
        free, total = c_size_t(), c_size_t()
        where = (self.endpoint, self._number) if self.lib.has(COUNTS_DEVICES) else (self.endpoint,)
        self.lib.call("ggml_backend_rpc_get_device_memory", None, *where, ctypes.byref(free), ctypes.byref(total))

    def context(self) -> c_void_p:
        """Return a context for tensors without data."""
        return self.lib.pointer("ggml_init", InitParams(2**20, None, True))

    def tensor(self, context: c_void_p, type: int, *ne: int) -> c_void_p:
        """Make a matrix."""
        return self.lib.pointer("ggml_new_tensor_2d", context, c_int(type), *map(c_int64, ne))

    def place(self, context: c_void_p, usage: int = 0) -> c_void_p:
        """Give a context's tensors a buffer."""
        buffer = self.lib.pointer("ggml_backend_alloc_ctx_tensors_from_buft", context, self._type)
        if usage:
            self.lib.call("ggml_backend_buffer_set_usage", None, buffer, c_int(usage))
        return buffer

    def write(self, tensor: c_void_p, values: list[float]) -> None:
        """Write F32."""
        data = (c_float * len(values))(*values)
        self.lib.call("ggml_backend_tensor_set", None, tensor, data, c_size_t(0), c_size_t(4 * len(values)))

    def read(self, tensor: c_void_p, count: int) -> list[float]:
        """Read F32."""
        data = (c_float * count)()
        self.lib.call("ggml_backend_tensor_get", None, tensor, data, c_size_t(0), c_size_t(4 * count))
        return list(data)

    # ------------------------------------------------------------------------------------------------------------ steps

    def compute(self) -> None:
        """Compute ops from both ends of the op table, with a view among them, three times, and something else in between."""
        context = self.context()
        left = self.tensor(context, F32, 3, 2)
        twice = self.lib.pointer("ggml_add", context, left, left)
        product = self.lib.pointer("ggml_mul_mat", context, left, left)
        turned = self.lib.pointer("ggml_reshape_2d", context, twice, c_int64(2), c_int64(3))
        minus = self.lib.pointer("ggml_neg", context, turned)
        other = self.lib.pointer("ggml_sqr", context, left)
        graphs = [self.graph(context, nodes) for nodes in ((product, minus), (other,))]
        buffer = self.place(context)
        for turn in range(3):
            values = [float(number + turn) for number in range(6)]
            self.write(left, values)
            self.run(graphs[0])
            rows = values[:3], values[3:]
            dots = [sum(x * y for x, y in zip(a, b, strict=True)) for a in rows for b in rows]
            expect(self.read(twice, 6), [2 * value for value in values], "ADD")
            expect(self.read(product, 4), dots, "MUL_MAT")
            expect(self.read(minus, 6), [-2 * value for value in values], "NEG")
            if turn == 1:  # so that the first graph is not the one that was sent last when it is computed again
                self.run(graphs[1])
                expect(self.read(other, 6), [value * value for value in values], "SQR")
            self.run(graphs[0])
            expect(self.read(twice, 6), [2 * value for value in values], "ADD, computed again")
        self.free(context, buffer)

    def graph(self, context: c_void_p, nodes: tuple[c_void_p, ...]) -> c_void_p:
        """Return a graph of what these nodes need."""
        graph = self.lib.pointer("ggml_new_graph", context)
        for node in nodes:
            self.lib.call("ggml_build_forward_expand", None, graph, node)
        return graph

    def run(self, graph: c_void_p) -> None:
        """Compute a graph."""
        status = self.lib.call("ggml_backend_graph_compute", c_int, self.backend, graph)
        if status != 0:
            give_up(f"ggml_backend_graph_compute returned {status}")

    def schedule(self) -> None:
        """Compute a graph by a scheduler, as llama.cpp does: it gives graphs the uids by which later clients know them again."""
        context, leaf = self.context(), self.context()
        cpu = self.lib.pointer("ggml_backend_cpu_init")
        left = self.tensor(leaf, F32, 4, 1)
        buffer = self.place(leaf, WEIGHTS)
        total = self.lib.pointer("ggml_add", context, left, left)
        self.lib.call("ggml_set_output", None, total)
        graph = self.graph(context, (total,))
        backends = (c_void_p * 2)(self.backend.value, cpu.value)
        scheduler = self.lib.pointer("ggml_backend_sched_new", backends, None, c_int(2), c_size_t(64), c_bool(False), c_bool(False))
        for turn in range(3):
            values = [float(number + turn) for number in range(4)]
            self.write(left, values)
            status = self.lib.call("ggml_backend_sched_graph_compute", c_int, scheduler, graph)
            if status != 0:
                give_up(f"ggml_backend_sched_graph_compute returned {status}")
            expect(self.read(total, 4), [2 * value for value in values], "what the scheduler computed")
        self.lib.call("ggml_backend_sched_free", None, scheduler)
        self.lib.call("ggml_backend_free", None, cpu)
        self.free(leaf, buffer)
        self.lib.call("ggml_free", None, context)

    def move(self) -> None:
        """Write, copy, set, and clear; with rows that are padded on some devices, whose size the client asks for."""
        context = self.context()
        source, target = (self.tensor(context, F32, 6, 4) for _ in range(2))
        self.tensor(context, Q8_0, 96, 2)
        buffer = self.place(context)
        values = [float(number) for number in range(24)]
        self.write(source, values)
        self.lib.call("ggml_backend_tensor_copy", None, source, target)
        expect(self.read(target, 24), values, "a copy")
        if self._sets_bytes:
            self.lib.call("ggml_backend_tensor_memset", None, target, c_uint8(0), c_size_t(8), c_size_t(8))
            expect(self.read(target, 4), [0.0, 1.0, 0.0, 0.0], "a tensor of which bytes were set")
        self.lib.call("ggml_backend_buffer_clear", None, buffer, c_uint8(0))
        expect(self.read(source, 24), [0.0] * 24, "a buffer that was cleared")
        self.free(context, buffer)

    def rows(self) -> None:
        """Write and read rows, in builds that have functions for it."""
        if not self.lib.has(GETS_ROWS):
            return
        context = self.context()
        tensor = self.tensor(context, F32, 3, 2)
        buffer = self.place(context)
        self.write(tensor, [0.0] * 6)
        data, got = (c_float * 2)(5.0, 6.0), (c_float * 2)()
        shape = c_size_t(0), c_size_t(4), c_size_t(2), c_size_t(12), c_size_t(4)
        self.lib.call("ggml_backend_tensor_set_2d", None, tensor, data, *shape)
        expect(self.read(tensor, 6), [5.0, 0.0, 0.0, 6.0, 0.0, 0.0], "rows that were written")
        self.lib.call("ggml_backend_tensor_get_2d", None, tensor, got, *shape)
        expect(list(got), [5.0, 6.0], "rows that were read")
        self.free(context, buffer)

    def upload(self) -> None:
        """Write more than 10 MiB at once, as weights."""
        context = self.context()
        tensor = self.tensor(context, F32, LARGE // 4, 1)
        buffer = self.place(context, WEIGHTS)
        data = ctypes.create_string_buffer(b"ggml" * 16, LARGE)
        self.lib.call("ggml_backend_tensor_set", None, tensor, data, c_size_t(0), c_size_t(LARGE))
        got = ctypes.create_string_buffer(LARGE)
        self.lib.call("ggml_backend_tensor_get", None, tensor, got, c_size_t(0), c_size_t(LARGE))
        if got.raw != data.raw:
            give_up("an upload of more than 10 MiB came back otherwise")
        self.free(context, buffer)

    def exchange(self, other: Device) -> None:
        """Copy a tensor to another device and use it there."""
        contexts = self.context(), other.context()
        source, target = self.tensor(contexts[0], F32, 4, 1), other.tensor(contexts[1], F32, 4, 1)
        twice = self.lib.pointer("ggml_add", contexts[1], target, target)
        graph = other.graph(contexts[1], (twice,))
        buffers = self.place(contexts[0]), other.place(contexts[1])
        self.write(source, [1.0, 2.0, 3.0, 4.0])
        self.lib.call("ggml_backend_tensor_copy", None, source, target)
        other.run(graph)
        expect(other.read(twice, 4), [2.0, 4.0, 6.0, 8.0], "what another device made of a tensor")
        for context, buffer in zip(contexts, buffers, strict=True):
            self.free(context, buffer)

    def free(self, context: c_void_p, buffer: c_void_p) -> None:
        """Free a buffer and the tensors in it."""
        self.lib.call("ggml_backend_buffer_free", None, buffer)
        self.lib.call("ggml_free", None, context)


def add_up(devices: list[Device]) -> None:
    """Have two servers add up their halves of a sum, in builds that can."""
    lib = devices[0].lib
    names = ("init", "allreduce_tensor", "free")
    registry = lib.pointer("ggml_backend_rpc_reg")
    found = [
        lib.call("ggml_backend_reg_get_proc_address", c_void_p, registry, f"ggml_backend_comm_{name}".encode()) for name in names
    ]
    if not all(found):
        return
    init = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_size_t)(found[0])
    reduce = ctypes.CFUNCTYPE(c_bool, c_void_p, c_void_p)(found[1])
    end = ctypes.CFUNCTYPE(None, c_void_p)(found[2])
    halves, contexts, buffers = (c_void_p * 2)(), [device.context() for device in devices], []
    for number, (device, context) in enumerate(zip(devices, contexts, strict=True)):
        left = device.tensor(context, F32, 4, 1)
        half = lib.pointer("ggml_add", context, left, left)
        graph = device.graph(context, (half,))
        buffers.append(device.place(context))
        device.write(left, [1.0 + number, 2.0, 3.0, 4.0])
        device.run(graph)
        halves[number] = half.value
    pair = init((c_void_p * 2)(*(device.backend.value for device in devices)), 2)
    if pair is None:
        # what llama.cpp does then: it fetches both halves and adds them itself
        total = [a + b for a, b in zip(*(device.read(c_void_p(halves[n]), 4) for n, device in enumerate(devices)), strict=True)]
        expect(total, [6.0, 8.0, 12.0, 16.0], "a sum of two halves")
    else:
        if not reduce(pair, halves):
            give_up("ggml_backend_comm_allreduce_tensor returned false")
        for number, device in enumerate(devices):
            expect(device.read(c_void_p(halves[number]), 4), [6.0, 8.0, 12.0, 16.0], "what two servers added up")
        end(pair)
    for device, context, buffer in zip(devices, contexts, buffers, strict=True):
        device.free(context, buffer)


def expect(got: list[float], want: list[float], what: str) -> None:
    """Give up where numbers are wrong."""
    if got != want:
        give_up(f"{what} is {got[:4]}, not {want[:4]}")


def give_up(reason: str) -> None:
    """End with 1 and a sentence."""
    print(f"error: {reason}", file=sys.stderr, flush=True)
    sys.exit(1)


def main(directory: str, able: str, *endpoints: str) -> None:
    """Do everything that the build is able to do."""
    libraries = Libraries(directory)
    devices = []
    for endpoint in dict.fromkeys(endpoints):
        count = device_count(libraries, endpoint)
        devices += [Device(libraries, endpoint, number, sets_bytes=able == SETS_BYTES) for number in range(min(count, 4))]
    for device in devices:
        device.memory()
        device.compute()
        device.move()
        device.schedule()
        device.rows()
    devices[0].upload()
    if len({device.endpoint for device in devices}) == len(devices) == 2:
        add_up(devices)
    for other in devices[1:]:
        devices[0].exchange(other)
    for device in devices:
        libraries.call("ggml_backend_free", None, device.backend)
    print("everything was right", flush=True)


def device_count(libraries: Libraries, endpoint: str) -> int:
    """Ask how many devices a server has; one before they were counted."""
    if not libraries.has(COUNTS_DEVICES):
        return 1
    registry = libraries.pointer(COUNTS_DEVICES, endpoint.encode())
    count: int = libraries.call("ggml_backend_reg_dev_count", c_size_t, registry)
    if count == 0:
        give_up("the server has no device")
    return count


if __name__ == "__main__":
    main(*sys.argv[1:])
