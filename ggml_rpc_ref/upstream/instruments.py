"""Builds that tell more of themselves than the plain one: of the same source, beside it, ggml alone, slower, for the fuzzer.

- sanitize: AddressSanitizer and UndefinedBehaviorSanitizer; what they report ends the server.
- coverage: which edges between basic blocks were taken goes to the file that $GGML_RPC_REF_COVERAGE names (`coverage.c`).

gcc has trace-pc but no trace-pc-guard, clang has both: trace-pc serves for either.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("coverage.c")
OBJECT: Final = "coverage.o"
RUNTIME: Final = "runtime"
"""The file in a build's directory that names the library to load before all others; absent where there is none."""
RUNTIMES: Final = ("libasan.so", f"libclang_rt.asan-{platform.machine()}.so")
"""AddressSanitizer's library, by gcc's name and by clang's."""
SLOWLY: Final = "-O1 -DNDEBUG -g1 -fno-omit-frame-pointer"
"""With -O3 an instrumented build takes several times as long to compile; -g1 has functions and lines for the stacks."""
SANITIZERS: Final = "-fsanitize=address,undefined -fno-sanitize=alignment -fno-sanitize-recover=undefined"
"""ggml reads blocks at any address on purpose, as x86 and ARM allow: alignment is left out."""
OPTIONS: Final = {
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1:max_allocation_size_mb=4096:"
    "handle_abort=2:handle_segv=2:handle_sigbus=2:handle_sigfpe=2:handle_sigill=2",
    "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1",
}
"""Every death is reported with its stack (2: no handler of others may prevent it); a refused allocation is none."""
TUNABLES: Final = "GLIBC_TUNABLES"
STATIC_TLS: Final = "glibc.rtld.optional_static_tls=1048576"
"""What `coverage.c` counts with lies in static thread-local storage, and with it all that its library has of that: 67,073 bytes in
libggml-cpu where it is built for AMX. For libraries that are loaded later glibc keeps 512, and then it "cannot allocate memory in
static TLS block"."""


class Instrument(StrEnum):
    """What a build is compiled with."""

    SANITIZE = "sanitize"
    COVERAGE = "coverage"


def cmake_options(instrument: Instrument, root: Path) -> list[str]:
    """Return what cmake is told for an instrument."""
    flags, linked = SANITIZERS, SANITIZERS
    if instrument is Instrument.COVERAGE:
        flags, linked = "-fsanitize-coverage=trace-pc", str(root / OBJECT)
    return [
        *(f"-DCMAKE_{language}_FLAGS={flags}" for language in ("C", "CXX")),
        *(f"-DCMAKE_{language}_FLAGS_RELEASE={SLOWLY}" for language in ("C", "CXX")),
        *(f"-DCMAKE_{kind}_LINKER_FLAGS={linked}" for kind in ("SHARED", "MODULE", "EXE")),
    ]


def compile_command(root: Path) -> list[str]:
    """Return the command that compiles what a build with coverage is linked with."""
    return [*_compiler(), "-O2", "-fPIC", "-c", str(SOURCE), "-o", str(root / OBJECT)]


def note_runtime(root: Path) -> None:
    """Write down which library a sanitized build needs to be loaded first: Python is not compiled with it."""
    for name in RUNTIMES:
        asked = subprocess.run([*_compiler(), f"-print-file-name={name}"], capture_output=True, text=True, check=False)
        found = Path(asked.stdout.strip())
        if found.is_absolute() and found.exists():
            (root / RUNTIME).write_text(f"{found.resolve()}\n")
            return


def environment(instrument: Instrument | None, root: Path, given: dict[str, str]) -> dict[str, str]:
    """Return the environment of a build's server.

    Args:
        instrument: what it is compiled with.
        root: its directory.
        given: the environment that a plain build would get.
    """
    if instrument is Instrument.COVERAGE:
        return given | {TUNABLES: ":".join(filter(None, (given.get(TUNABLES), STATIC_TLS)))}
    if instrument is None:
        return given
    runtime = root / RUNTIME
    first = [runtime.read_text().strip()] if runtime.exists() else []
    preload = " ".join([*first, *given.get("LD_PRELOAD", "").split()])
    return OPTIONS | given | ({"LD_PRELOAD": preload} if preload else {})


def allow_shadow(instrument: Instrument | None) -> None:
    """Let this process, and what it becomes, have the terabytes of address space of AddressSanitizer's shadow."""
    if instrument is Instrument.SANITIZE:
        import resource  # here, as Windows has none, and everything else can be imported there

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _compiler() -> Sequence[str]:
    return os.environ.get("CC", "cc").split()
