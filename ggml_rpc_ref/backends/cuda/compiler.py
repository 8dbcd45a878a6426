"""Kernels compiled by nvcc, once for each architecture and each state of their sources, kept in the user's cache.

cubins(90)      op to machine code for compute capability 9.0, compiled as far as the cache lacks it
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from ggml_rpc_ref.backends.cuda.device import OLDEST, PREFIX
from ggml_rpc_ref.errors import Misuse

log = logging.getLogger(__name__)

DIRECTORY: Final = Path(__file__).parent / "kernels"
"""Where the kernels lie."""
INCLUDED: Final = (DIRECTORY / "shared", DIRECTORY.parents[1] / "native" / "kernels" / "shared")
"""Where their headers lie; numbers and grids are those of the C kernels."""
FLAGS: Final = ("-std=c++17", "-O3", "-fmad=false", "--cubin")
"""Products and sums are fused only where the source says fmaf: quantising rounds like upstream, bit by bit."""
ARCHITECTURES: Final = (75, 80, 90)
"""Compute capabilities, times ten, that our tests compile for."""


def nvcc() -> str | None:
    """Return where CUDA's compiler is, by PATH, by CUDA_HOME, or where its installer puts it; None: nowhere."""
    homes = [os.environ.get("CUDA_HOME", ""), os.environ.get("CUDA_PATH", ""), "/usr/local/cuda"]
    return shutil.which("nvcc") or next(filter(None, (shutil.which("nvcc", path=f"{home}/bin") for home in homes if home)), None)


def architecture(capability: int) -> str:
    """Return what nvcc calls the machine code for a GPU; from Hopper on with the instructions that only this one has."""
    return f"sm_{capability}a" if capability >= 90 else f"sm_{capability}"


def ops() -> tuple[str, ...]:
    """Return the names of the files with kernels."""
    return tuple(sorted(path.stem for path in DIRECTORY.glob("*.cu")))


@cache
def digest(op: str) -> str:
    """Return what changes when the kernels of an op, or anything that they include, or the flags change."""
    headers = [path for folder in INCLUDED for path in sorted((*folder.glob("*.cuh"), *folder.glob("*.h")))]
    texts = [path.read_bytes() for path in (DIRECTORY / f"{op}.cu", *headers)]
    return hashlib.sha256(b"\0".join([*texts, " ".join(FLAGS).encode()])).hexdigest()[:16]


def folder(capability: int) -> Path:
    """Return where machine code for an architecture is kept."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    home = named if named.is_absolute() else Path.home() / ".cache"
    return home / "ggml-rpc-ref" / "cuda" / architecture(capability)


class Compiled(NamedTuple):
    """What nvcc made of a file.

    Attributes:
        code: machine code, a cubin.
        messages: what it said.
    """

    code: bytes
    messages: str


def compile_op(op: str, capability: int, flags: Iterable[str] = ()) -> Compiled:
    """Compile the kernels of an op.

    Raises:
        Misuse: where there is no compiler, or it refuses them; with its words.
    """
    compiler = nvcc()
    if compiler is None:
        raise Misuse("CUDA's compiler, nvcc, is not on PATH nor in CUDA_HOME")
    with TemporaryDirectory() as scratch:
        made = Path(scratch) / "kernels.cubin"
        includes = [f"-I{path}" for path in INCLUDED]
        source = str(DIRECTORY / f"{op}.cu")
        command = [compiler, *FLAGS, *flags, f"-arch={architecture(capability)}", *includes, source, "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Misuse(f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}")
        return Compiled(made.read_bytes(), done.stdout + done.stderr)


def cubins(capability: int) -> Mapping[str, bytes]:
    """Return op to machine code for a GPU.

    Raises:
        Misuse: where some are not in the cache and can't be compiled.
    """
    kept = {op: folder(capability) / f"{op}-{digest(op)}.cubin" for op in ops()}
    missing = [op for op, path in kept.items() if not path.exists()]
    if missing:
        log.info("compiling the kernels of %d ops for %s; it is done once", len(missing), architecture(capability))
        with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
            # list: what a thread raises is raised here
            list(threads.map(lambda op: _keep(kept[op], compile_op(op, capability).code), missing))
    return {op: path.read_bytes() for op, path in kept.items()}


def _keep(path: Path, code: bytes) -> None:
    """Write a file as a whole or not at all: another process may look for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(f".{os.getpid()}")
    written.write_bytes(code)
    written.replace(path)


def is_complete(capability: int) -> bool:
    """Whether the cache has the kernels of every op, so that no compiler is needed."""
    return all((folder(capability) / f"{op}-{digest(op)}.cubin").exists() for op in ops())


def unusable(capability: int) -> str:
    """Return why kernels can't be had for a GPU; nothing where they can."""
    if capability < OLDEST:
        return f"its compute capability is {capability / 10}, the kernels need {OLDEST / 10}"
    if nvcc() is None and not is_complete(capability):
        return "CUDA's compiler, nvcc, is not on PATH nor in CUDA_HOME"
    return ""


class Usage(NamedTuple):
    """What a kernel takes of a multiprocessor, as ptxas says it.

    Attributes:
        kernel: its name.
        registers: of a thread.
        stack: bytes of local memory of a thread.
        spills: bytes that are stored because registers ran out.
        shared: bytes of static shared memory of a block.
    """

    kernel: str
    registers: int
    stack: int
    spills: int
    shared: int


_ENTRY = re.compile(r"^ '(\w+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


def usage(op: str, capability: int) -> list[Usage]:
    """Return what each kernel of an op takes."""
    text = compile_op(op, capability, ("-Xptxas", "-v")).messages
    return [_usage(part) for part in text.split("Compiling entry function")[1:]]


def _usage(text: str) -> Usage:
    """Return what ptxas says of one kernel."""
    name, stack, used, shared = (pattern.search(text) for pattern in (_ENTRY, _STACK, _USED, _SHARED))
    if name is None or stack is None or used is None:
        raise Misuse(f"ptxas says something else than it used to: {text}")
    return Usage(name[1].removeprefix(PREFIX), int(used[1]), int(stack[1]), int(stack[2]), int(shared[1]) if shared else 0)
