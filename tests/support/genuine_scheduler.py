"""The genuine scheduler on a graph that a test describes; a script for the interpreter that runs a genuine build.

    python -I genuine_scheduler.py LIBRARIES < request.json

Prints one JSON object: for each node the number of its backend, the splits as GGML_SCHED_DEBUG shows them (they go to standard
error), and the results that were asked for. Imports nothing of ours.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from ctypes import c_bool, c_float, c_int, c_int64, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import Any

TYPES = {"F32": 0, "F16": 1, "I32": 26, "I64": 27}
ANY, WEIGHTS = 0, 1
"""GGML_BACKEND_BUFFER_USAGE_* of ggml-backend.h."""


class InitParams(ctypes.Structure):
    """ggml_init_params."""

    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


class Ggml:
    """The libraries of a build."""

    def __init__(self, directory: str) -> None:
        paths = [Path(directory) / f"libggml{part}.so" for part in ("-base", "-cpu", "-rpc", "")]
        self.libraries = [ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL) for path in paths]

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        """Call a function of whichever library has it."""
        found = next(getattr(library, name) for library in self.libraries if hasattr(library, name))
        found.restype = result
        return found(*arguments)

    def make(self, name: str, *arguments: Any) -> c_void_p:
        """Call a function that returns a handle."""
        made = self.call(name, c_void_p, *arguments)
        if not made:
            raise SystemExit(f"{name} returned nothing")
        return c_void_p(made)

    def context(self) -> c_void_p:
        """Make a context for tensors without memory."""
        return self.make("ggml_init", InitParams(2**24, None, True))

    def leaf(self, context: c_void_p, row: dict[str, Any]) -> c_void_p:
        """Make a leaf."""
        ne = [*row["ne"], 1, 1, 1][:4]
        made = self.make("ggml_new_tensor_4d", context, c_int(TYPES[row["type"]]), *map(c_int64, ne))
        self.call("ggml_set_name", c_void_p, made, row["name"].encode())
        return made

    def write(self, tensor: c_void_p, data: bytes) -> None:
        """Write a tensor's bytes."""
        self.call("ggml_backend_tensor_set", None, tensor, data, c_size_t(0), c_size_t(len(data)))

    def read(self, tensor: c_void_p) -> bytes:
        """Read a tensor's bytes."""
        data = ctypes.create_string_buffer(self.call("ggml_nbytes", c_size_t, tensor))
        self.call("ggml_backend_tensor_get", None, tensor, data, c_size_t(0), c_size_t(len(data)))
        return data.raw


def numbers(kind: Any) -> Any:
    """Return what passes a node's parameters as arguments of one type."""
    return lambda values: [kind(value) for value in values]


CONSTRUCTORS: dict[str, tuple[str, Any]] = {
    "mul_mat": ("ggml_mul_mat", numbers(c_int)),
    "add": ("ggml_add", numbers(c_int)),
    "mul": ("ggml_mul", numbers(c_int)),
    "silu": ("ggml_silu", numbers(c_int)),
    "cont": ("ggml_cont", numbers(c_int)),
    "get_rows": ("ggml_get_rows", numbers(c_int)),
    "set_rows": ("ggml_set_rows", numbers(c_int)),
    "rms_norm": ("ggml_rms_norm", numbers(c_float)),
    "scale": ("ggml_scale", numbers(c_float)),
    "permute": ("ggml_permute", numbers(c_int)),
    "reshape": ("ggml_reshape_3d", numbers(c_int64)),
    "view": ("ggml_view_2d", lambda v: [c_int64(v[0]), c_int64(v[1]), c_size_t(v[2]), c_size_t(v[3])]),
}
"""The name that a request uses, to ggml's constructor and how its parameters are passed after context and sources."""


def run(ggml: Ggml, request: dict[str, Any]) -> dict[str, Any]:
    """Build the graph, let the scheduler place and compute it, and say what it did."""
    backends = [ggml.make("ggml_backend_rpc_init", one.encode(), c_uint32(at)) for one, at in request["servers"]]
    backends.append(ggml.make("ggml_backend_cpu_init"))
    tensors: dict[str, c_void_p] = {}
    for number, backend in enumerate(backends):
        for usage in (WEIGHTS, ANY):
            rows = [row for row in request["leaves"] if row["backend"] == number and row["weight"] == (usage == WEIGHTS)]
            if not rows:
                continue
            context = ggml.context()
            tensors |= {row["name"]: ggml.leaf(context, row) for row in rows}
            buffer = ggml.make("ggml_backend_alloc_ctx_tensors", context, backend)
            ggml.call("ggml_backend_buffer_set_usage", None, buffer, c_int(usage))
            for row in rows:
                ggml.write(tensors[row["name"]], bytes.fromhex(row["data"]))
    context = ggml.context()
    for row in request["inputs"]:
        tensors[row["name"]] = ggml.leaf(context, row)
        ggml.call("ggml_set_input", None, tensors[row["name"]])
    graph = ggml.make("ggml_new_graph", context)
    for node in request["nodes"]:
        name, convert = CONSTRUCTORS[node["op"]]
        made = ggml.make(name, context, *[tensors[source] for source in node["src"]], *convert(node["params"]))
        ggml.call("ggml_set_name", c_void_p, made, node["name"].encode())
        tensors[node["name"]] = made
        if node["name"] in request["outputs"]:
            ggml.call("ggml_set_output", None, made)
        ggml.call("ggml_build_forward_expand", None, graph, made)
    listed = (c_void_p * len(backends))(*backends)
    sched = ggml.make("ggml_backend_sched_new", listed, None, c_int(len(backends)), c_size_t(2048), c_bool(False), c_bool(True))
    if not ggml.call("ggml_backend_sched_alloc_graph", c_bool, sched, graph):
        raise SystemExit("the graph could not be allocated")
    for row in request["inputs"]:
        ggml.write(tensors[row["name"]], bytes.fromhex(row["data"]))
    if ggml.call("ggml_backend_sched_graph_compute", c_int, sched, graph) != 0:
        raise SystemExit("the graph could not be computed")
    places = {backend.value: number for number, backend in enumerate(backends)}
    where = {
        node["name"]: places[ggml.call("ggml_backend_sched_get_tensor_backend", c_void_p, sched, tensors[node["name"]])]
        for node in request["nodes"]
    }
    results = {name: ggml.read(tensors[name]).hex() for name in request["outputs"]}
    return {"where": where, "splits": ggml.call("ggml_backend_sched_get_n_splits", c_int, sched), "results": results}


if __name__ == "__main__":
    said = run(Ggml(sys.argv[1]), json.load(sys.stdin))
    print("said", json.dumps(said), flush=True)
    os._exit(0)
