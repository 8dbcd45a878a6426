"""The real pycuda on a stand-in for NVIDIA's driver (driver.cpp): what backends/cuda/driver.py runs on where there is no GPU.

    stand_in = StandIn(compiled())     # from now on this process has one, by the name libcuda.so.1
    stand_in.set("ORDER", "early")
    subprocess.run(command, env=environment(folder))

The machine code that our compiler's cache holds is PTX text here, which a real driver would take as well.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ggml_rpc_ref.backends.cuda import compiler
from tests.support.gpu import HERE, kept
from tests.support.gpu.ptx import FLAGS, text

ORDERS = ("late", "early", "7", "8")
"""When the stand-in does what streams were given: as late as it may, at once, or drawn."""


def headers() -> Path | None:
    """Return the folder of CUDA's headers that nvcc belongs to; None: there is none."""
    nvcc = compiler.nvcc()
    homes = [Path(nvcc).resolve().parents[1]] if nvcc else []
    folders = [home / "include" for home in (*homes, Path("/usr/local/cuda"))]
    return next((folder for folder in folders if (folder / "cuda.h").exists()), None)


def lacking() -> str:
    """Return what is not on this machine to run pycuda on the stand-in; nothing where all is there."""
    if find_spec("pycuda") is None:
        return "pycuda is not installed"
    if compiler.nvcc() is None or headers() is None:
        return "CUDA's compiler and headers are not here"
    return "" if shutil.which("g++") else "g++ is not here"


def compile_driver(to: Path) -> Path:
    """Compile the stand-in and the interpreter of PTX into a library.

    Raises:
        CalledProcessError: where g++ refuses them.
    """
    interpreter = to.with_suffix(".o")
    flags = [flag for flag in FLAGS if flag != "-shared"]
    included = ["-include", str(HERE / "emulated.h"), f"-I{HERE}", "-c", str(HERE / "ptx.cpp")]
    subprocess.run(["g++", *flags, *included, "-o", str(interpreter)], check=True)
    linked = ["-shared", "-Wl,-soname,libcuda.so.1", "-Wl,-z,defs", "-pthread", "-o", str(to)]
    # some of what pycuda calls is deprecated, and written here all the same
    warnings = ["-Wall", "-Wextra", "-Wno-deprecated-declarations", "-Werror"]
    source = [str(HERE / "driver.cpp"), str(interpreter)]
    subprocess.run(
        ["g++", "-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", *warnings, f"-I{headers()}", *source, *linked], check=True
    )
    interpreter.unlink()
    return to


@cache
def compiled() -> Path:
    """Return the stand-in as a library, compiled once for each state of its sources."""
    return kept([*HERE.glob("*.h"), *HERE.glob("*.cpp"), Path(__file__)], "libcuda.so.1", compile_driver)


def fill_cache(capability: int) -> None:
    """Put PTX text where `compiler.cubins` looks for machine code."""
    folder = compiler.folder(capability)
    folder.mkdir(parents=True, exist_ok=True)

    def fill(op: str) -> None:
        (folder / f"{op}-{compiler.digest(op)}.cubin").write_bytes(text(op, capability))

    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        list(threads.map(fill, compiler.ops()))


def environment(folder: Path, **settings: object) -> dict[str, str]:
    """Return the environment of a process that has the stand-in for its driver.

    Args:
        folder: gets a link to it by its name.
        settings: of the stand-in (driver.cpp), in small letters.
    """
    (link := folder / "libcuda.so.1").unlink(missing_ok=True)
    link.symlink_to(compiled())
    given = {f"STANDIN_{name.upper()}": str(value) for name, value in settings.items()}
    # a process that is started elsewhere finds what this one has found
    paths = os.pathsep.join(filter(None, sys.path))
    return os.environ | {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": paths} | given


class StandIn:
    """The stand-in in this process.

    Args:
        path: the library. It is found by its name from now on.
    """

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        self._library.standin_count.restype = ctypes.c_long

    def set(self, name: str, value: object) -> None:
        """Change a setting (driver.cpp lists them); None: as the process was told when it began."""
        self._library.standin_set(name.encode(), None if value is None else str(value).encode())

    def count(self, what: str) -> int:
        """Return how many there are of something in the process, or how often a function was called.

        Args:
            what: "contexts", "streams", "modules", "allocations", "pinned" (ranges), "graphs", "executables"; "current", of the
                contexts those of this thread; or a function's name in cuda.h.
        """
        return int(self._library.standin_count(what.encode()))

    def fail(self, function: str, code: int) -> None:
        """Have the next call of a function answer with an error."""
        self._library.standin_fail(function.encode(), code)
