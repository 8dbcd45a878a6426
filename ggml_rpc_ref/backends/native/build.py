"""How the C kernels are compiled: run by setuptools (`cffi_modules` in build_backend.py), without this package and without numpy.

Each variant is a module of its own, made from the same sources with other instructions allowed; `native` picks one when it is
first used. A module that can't be compiled, for want of a compiler or of its flags, is left out, and the package installs without.

    python ggml_rpc_ref/backends/native/build.py avx2 DIRECTORY

compiles one variant, and `net/again.c`, with AddressSanitizer and UndefinedBehaviorSanitizer into a directory, and prints the
variables with which Python loads them in the place of the others: `.ci/sanitize` has a run of it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import runpy
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cffi import FFI

HERE = Path("ggml_rpc_ref/backends/native")
"""Setuptools runs this in the directory of pyproject.toml, and wants paths that are relative to it."""
KERNELS = HERE / "kernels"
COMMON = "ggml_rpc_ref_kernels"
"""Name of the library of what is compiled once for all variants."""
FLAGS = [
    "-std=gnu11",
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fvisibility=hidden",
    "-pthread",
    "-Wno-psabi",
    "-g0",
    f"-I{KERNELS / 'shared'}",
    f"-I{HERE}",
]
"""Floating-point sums are as written: quantising rounds like upstream bit by bit. What is fused says so (`vector.h`)."""

AVX2 = ["-mavx2", "-mfma", "-mf16c", "-mbmi2"]
AVX512 = [*AVX2, *(f"-mavx512{part}" for part in ("f", "bw", "dq", "vl", "vnni", "vbmi")), "-mprefer-vector-width=512"]
X86_64 = {"plain": [], "avx2": AVX2, "avx512": AVX512}
NEON = ["-DNEON"]
"""Every 64-bit ARM has NEON, and compilers say so always: what the kernels do with it by name waits for a word of ours."""
AARCH64 = {"plain": [], "neon": NEON, "dotprod": [*NEON, "-march=armv8.2-a+dotprod"]}
PROCESSORS = {"x86_64": X86_64, "AMD64": X86_64, "aarch64": AARCH64, "arm64": {"plain": [], "neon": NEON}}
"""Variant to compiler flags, by Python's name of the processor; `library.PROCESSORS` has the same names. "arm64" is macOS's, whose
compilers take what `dotprod` has for granted."""
VARIANTS: dict[str, list[str]] = PROCESSORS.get(platform.machine(), {"plain": []})


def kernel_names() -> list[str]:
    """Return the names of the files of kernels, which are the names of their ops in lower case."""
    return sorted(path.stem for path in KERNELS.glob("*.c"))


def needs_variants(source: Path) -> bool:
    """Whether a source, or a header that it includes, asks what instructions there are (`vector.h` does).

    The others are compiled once, with the processor's basic instructions, for all variants.
    """
    text = source.read_text(encoding="utf-8")
    headers = (path for path in (KERNELS / "shared" / name for name in re.findall(r'#include "(.*)"', text)) if path.exists())
    return "__AVX" in text or any(map(needs_variants, headers))


def table() -> str:
    """Return the C table of all kernels, and the digest of what they are made from."""
    names = kernel_names()
    declared = "".join(f"extern const struct kernel kernel_{name};\n" for name in names)
    entries = "".join(f"    &kernel_{name},\n" for name in names)
    listed = f"const struct kernel *const kernels[] = {{\n{entries}}};\nconst int kernel_count = {len(names)};\n"
    fingerprint = runpy.run_path(str(HERE / "sources.py"))["fingerprint"](HERE)
    made_from = f'const char *made_from(void) {{ return "{fingerprint}"; }}\n'
    return f'#include "kernel.h"\n{declared}{listed}{made_from}'


def sources() -> list[Path]:
    """Return all C sources but the tables."""
    return [HERE / "runtime.c", *sorted(KERNELS.glob("shared/*.c")), *(KERNELS / f"{name}.c" for name in kernel_names())]


def common() -> tuple[str, dict[str, Any]]:
    """Return setuptools' description of the library of what is compiled once."""
    once = [path.as_posix() for path in sources() if not needs_variants(path)]
    headers = [path.as_posix() for path in (*HERE.glob("*.h"), *KERNELS.rglob("*.h"))]
    return COMMON, {"sources": once, "cflags": FLAGS, "obj_deps": {"": headers}}


def builder(variant: str, *, alone: bool = False) -> FFI:
    """Return cffi's description of a variant's module.

    Args:
        variant: its name.
        alone: with what is compiled once for all; else setuptools links the library that has it.
    """
    ffi = FFI()
    declared = (HERE / "declared.h").read_text(encoding="utf-8")
    ffi.cdef(declared.partition("/* ---- what only the kernels see ---- */")[0])
    ffi.set_source(
        f"ggml_rpc_ref.backends.native._{variant}",
        table(),
        sources=[path.as_posix() for path in sources() if alone or needs_variants(path)],
        extra_compile_args=[*FLAGS, *VARIANTS[variant]],
        extra_link_args=["-pthread"],
        libraries=["m"] if sys.platform != "win32" else [],
        depends=[path.as_posix() for path in (*HERE.glob("*.h"), *KERNELS.rglob("*.h"))],
        optional=True,
    )
    return ffi


SANITIZED = ["-O1", "-g1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]


def sanitized(variant: str, directory: Path) -> dict[str, str]:
    """Compile a variant with sanitizers; return the environment that it is used with."""
    compiler = os.environ.get("CC", "cc").split()
    table, module = directory / f"_{variant}.c", directory / f"_{variant}.so"
    with contextlib.redirect_stdout(sys.stderr):  # cffi says what it writes
        builder(variant, alone=True).emit_c_code(str(table))
    flags = [*FLAGS, *VARIANTS[variant], "-fPIC", "-Iggml_rpc_ref/net", f"-I{sysconfig.get_paths()['include']}", *SANITIZED]

    def compile_one(source: Path) -> str:
        made = directory / f"{source.as_posix().replace('/', '-')}.o"
        subprocess.run([*compiler, *flags, "-c", str(source), "-o", str(made)], check=True)
        return str(made)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, [table, *sources()]))
    subprocess.run([*compiler, "-shared", *objects, "-o", str(module), "-pthread", "-lm", *SANITIZED], check=True)
    # what reads a peer's bytes in C, in the same way
    answering, answers = directory / "_again.c", directory / "_again.so"
    with contextlib.redirect_stdout(sys.stderr):
        again_builder().emit_c_code(str(answering))
    both = [compile_one(answering), compile_one(Path("ggml_rpc_ref/net/again.c"))]
    subprocess.run([*compiler, "-shared", *both, "-o", str(answers), *SANITIZED], check=True)
    runtime = subprocess.run([*compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "LD_PRELOAD": runtime,
        # Python and numpy keep what they have to the end; an allocation that is refused is for the caller to see
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "GGML_RPC_REF_NATIVE": str(module.resolve()),
        "GGML_RPC_REF_AGAIN": str(answers.resolve()),
    }


def hash_builder() -> FFI:
    """Return cffi's description of the module that hashes; it is no kernel, but built by the same compiler."""
    ffi, declared = FFI(), "uint64_t fnv1a(const uint8_t *data, int64_t size, uint64_t state);"
    ffi.cdef(declared)
    ffi.set_source(
        "ggml_rpc_ref.protocol._fnv",
        f"#include <stdint.h>\n{declared}",
        sources=["ggml_rpc_ref/protocol/fnv.c"],
        extra_compile_args=["-O3", "-g0"],
        optional=True,
    )
    return ffi


def again_builder() -> FFI:
    """Return cffi's description of the module that answers known requests; neither is it a kernel."""
    ffi, here = FFI(), Path("ggml_rpc_ref/net")
    ffi.cdef((here / "again.h").read_text(encoding="utf-8"))
    ffi.set_source(
        "ggml_rpc_ref.net._again",
        '#include <stdint.h>\n#include "again.h"',
        sources=["ggml_rpc_ref/net/again.c"],
        include_dirs=[here.as_posix()],
        extra_compile_args=["-O2", "-g0"],
        depends=["ggml_rpc_ref/net/again.h"],
        optional=True,
    )
    return ffi


fnv = hash_builder()
globals().update({variant: builder(variant) for variant in VARIANTS})  # each by its name, as `cffi_modules` wants it

if __name__ == "__main__":
    print("\n".join(f"{name}={value}" for name, value in sanitized(sys.argv[1], Path(sys.argv[2])).items()))
