"""A GPU made of threads that runs what nvcc makes of the kernels, PTX text, one instruction after the other (ptx.h).

    gpu = Interpreted(capability=90)   # a Device, as `Emulated` is
    gpu.counts()["ldmatrix.sync.aligned.m8n8.x4.shared.b16"]

Where `Emulated` has g++ compile the kernels with twins in place of inline PTX, the inline PTX itself is run here.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ggml_rpc_ref.backends.cuda import compiler
from ggml_rpc_ref.backends.cuda.device import PREFIX, Launch
from tests.support.gpu import HERE, Emulated, Replayed, kept

FLAGS = [
    "-std=c++17", "-O2", "-ffp-contract=off", "-fno-math-errno", "-frounding-math", "-fPIC", "-shared", "-fvisibility=hidden",
    "-fno-strict-aliasing", "-Wno-unused-function",
]  # fmt: skip
UNLIKE_PTX = {"--cubin": "-ptx"}
"""What our compiler's flags have, and what nvcc is told in its place."""


def compile_interpreter(to: Path, source: Path = HERE / "ptx.cpp", more: Sequence[str] = ()) -> Path:
    """Compile the interpreter, or something that includes it, into a library.

    Raises:
        RuntimeError: with the compiler's words.
    """
    command = [
        "g++",
        *FLAGS,
        "-fno-strict-aliasing",
        "-Wno-unused-function",
        "-include",
        str(HERE / "emulated.h"),
        f"-I{HERE}",
        *more,
    ]
    done = subprocess.run([*command, str(source), "-o", str(to)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return to


@cache
def interpreter() -> Path:
    """Return the interpreter as a library, compiled once for each state of its sources."""
    sources = [*HERE.glob("*.h"), HERE / "ptx.cpp", Path(__file__)]
    return kept(sources, "interpreter.so", compile_interpreter)


@cache
def text(op: str, capability: int) -> bytes:
    """Return what nvcc makes of an op's kernels for a GPU, as PTX text; made once for each state of their sources."""
    architecture = compiler.architecture(capability)

    def make(to: Path) -> Path:
        flags = [UNLIKE_PTX.get(flag, flag) for flag in compiler.FLAGS]
        includes = [f"-I{path}" for path in compiler.INCLUDED]
        command = [compiler.nvcc() or "nvcc", *flags, f"-arch={architecture}", *includes]
        subprocess.run([*command, str(compiler.DIRECTORY / f"{op}.cu"), "-o", str(to)], check=True, capture_output=True)
        return to

    sources = [compiler.DIRECTORY / f"{op}.cu", *(path for folder in compiler.INCLUDED for path in sorted(folder.glob("*.*h")))]
    return kept(sources, f"{op}-{architecture}.ptx", make).read_bytes()


class Interpreted(Emulated):
    """A GPU made of threads that runs PTX text.

    Args:
        order, total, capability, processors: as for `Emulated`.
        texts: op to PTX text, in place of what nvcc makes of our kernels.
    """

    def __init__(
        self,
        order: int = 0,
        total: int = 2**30,
        capability: int = 90,
        processors: int = 4,
        texts: dict[str, bytes] | None = None,
    ) -> None:
        super().__init__(interpreter(), order, total, capability, processors)
        self.name, self._texts = "a GPU made of threads that runs PTX", texts or {}
        self._modules: dict[str, int] = {}
        for name in ("ptx_load", "ptx_find"):
            getattr(self._library, name).restype = ctypes.c_void_p
        self._library.ptx_launch.restype = self._library.ptx_opcode.restype = ctypes.c_char_p
        self._library.ptx_parameter_bytes.restype = ctypes.c_size_t

    def module(self, op: str) -> int:
        """Return the module of an op, read where it was not yet.

        Raises:
            RuntimeError: where its text can't be read.
        """
        if op not in self._modules:
            error = ctypes.create_string_buffer(400)
            module = self._library.ptx_load(self._texts.get(op) or text(op, self.capability), error, len(error))
            if not module:
                raise RuntimeError(f"{op}: {error.value.decode()}")
            self._modules[op] = module
        return self._modules[op]

    def counts(self) -> Counter[str]:
        """Return opcode to how often threads have run it, of all kernels."""
        found: Counter[str] = Counter()
        for module in self._modules.values():
            at, count = 0, ctypes.c_uint64()
            while opcode := self._library.ptx_opcode(ctypes.c_void_p(module), ctypes.c_size_t(at), ctypes.byref(count)):
                found[opcode.decode()] += count.value
                at += 1
        return found

    def record(self, launches: Sequence[Launch]) -> Replayed:
        self._alive()
        self.recordings += 1
        return Replayed(self, [(launch, self._function(launch)) for launch in launches])

    def _function(self, launch: Launch) -> ctypes.c_void_p:
        found = self._library.ptx_find(ctypes.c_void_p(self.module(launch.op)), (PREFIX + launch.kernel).encode())
        assert found, f"{launch.op} has no kernel {launch.kernel}"
        return ctypes.c_void_p(found)

    def run(self, launch: Launch, function: Any) -> None:
        assert self._library.ptx_parameter_bytes(function) == len(launch.argument), "parameters of another size"
        super().run(launch, function)

    @property
    def _start(self) -> Any:
        return self._library.ptx_launch

    def close(self) -> None:
        for module in self._modules.values():
            self._library.ptx_unload(ctypes.c_void_p(module))
        self._modules.clear()
        super().close()
