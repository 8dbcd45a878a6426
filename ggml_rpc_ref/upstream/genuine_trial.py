"""The genuine client in a short conversation with a server; a script for the interpreter that runs a genuine build.

    python -I genuine_trial.py LIBRARIES ENDPOINT

Prints each step as it begins, and "works" or "wrong numbers" at the end. Where the client does not like what it hears it ends its
process, as llama.cpp does; then the last line printed is the step at which it did.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import c_bool, c_float, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

F32, Q8_0 = 0, 8
VALUES = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


class InitParams(ctypes.Structure):
    """ggml_init_params."""

    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


class Client:
    """The libraries, and one device of a server."""

    def __init__(self, directory: str, endpoint: str) -> None:
        suffix = ".dylib" if sys.platform == "darwin" else ".so"
        paths = [Path(directory) / f"libggml{part}{suffix}" for part in ("-base", "-cpu", "-rpc", "")]
        self.libraries = [ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL) for path in paths if path.exists()]
        say("HELLO")
        # until DEVICE_COUNT came there is no second argument; the type of buffer is what makes every version connect
        where = endpoint.encode(), ctypes.c_uint32(0)
        if not self.call("ggml_backend_rpc_buffer_type", c_void_p, *where):
            say("refused")
            sys.exit(0)
        self.backend = self.call("ggml_backend_rpc_init", c_void_p, *where)

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        """Call a function of whichever library has it."""
        found = next(getattr(library, name) for library in self.libraries if hasattr(library, name))
        found.restype = result
        return found(*arguments)

    def tensor(self, context: Any, type: int, *ne: int) -> Any:
        """Make a matrix."""
        return c_void_p(self.call("ggml_new_tensor_2d", c_void_p, context, c_int(type), *map(c_int64, ne)))

    def write(self, tensor: Any, values: list[float]) -> None:
        """Write F32."""
        data = (c_float * len(values))(*values)
        self.call("ggml_backend_tensor_set", None, tensor, data, c_size_t(0), c_size_t(4 * len(values)))

    def read(self, tensor: Any, count: int) -> list[float]:
        """Read F32."""
        data = (c_float * count)()
        self.call("ggml_backend_tensor_get", None, tensor, data, c_size_t(0), c_size_t(4 * count))
        return list(data)

    def compute(self, context: Any, left: Any) -> bool:
        """Compute ops from both ends of the op table, twice; return whether the numbers are right."""
        twice = c_void_p(self.call("ggml_add", c_void_p, context, left, left))
        product = c_void_p(self.call("ggml_mul_mat", c_void_p, context, left, left))
        minus = c_void_p(self.call("ggml_neg", c_void_p, context, twice))
        graph = c_void_p(self.call("ggml_new_graph", c_void_p, context))
        for node in (twice, product, minus):
            self.call("ggml_build_forward_expand", None, graph, node)
        # rows of 96 are padded on some devices, so that the client asks for their size
        self.tensor(context, Q8_0, 96, 2)
        say("GET_ALLOC_SIZE")
        self.call("ggml_backend_alloc_ctx_tensors", c_void_p, context, c_void_p(self.backend))
        right = True
        for turn in range(2):
            values = [value + turn for value in VALUES]
            say("SET_TENSOR")
            self.write(left, values)
            say("GRAPH_COMPUTE" if turn == 0 else "GRAPH_RECOMPUTE")
            self.call("ggml_backend_graph_compute", c_int, c_void_p(self.backend), graph)
            rows = values[:3], values[3:]
            dots = [sum(x * y for x, y in zip(a, b, strict=True)) for a in rows for b in rows]
            wanted = ([2 * value for value in values], dots, [-2 * value for value in values])
            right = right and all(
                self.read(*it) == want for it, want in zip(((twice, 6), (product, 4), (minus, 6)), wanted, strict=True)
            )
        return right


def say(text: str) -> None:
    """Print a line at once: the process may end at any time."""
    print(text, flush=True)


def main(directory: str, endpoint: str) -> None:
    """Take every step."""
    client = Client(directory, endpoint)
    say("GET_DEVICE_MEMORY")
    context = c_void_p(client.call("ggml_init", c_void_p, InitParams(2**20, None, True)))
    left = client.tensor(context, F32, 3, 2)
    is_right = client.compute(context, left)
    say("works" if is_right else "wrong numbers")


if __name__ == "__main__":
    main(*sys.argv[1:])
