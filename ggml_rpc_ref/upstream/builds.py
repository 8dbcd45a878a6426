"""Genuine llama.cpp builds by protocol version: found in the cache directory, or built there from the package index.

A build is a virtual environment with llama-cpp-python compiled with its RPC backend. It counts as installed when its marker
file exists; the marker is written last, after a trial start, so that a build that was interrupted is never taken for one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from ggml_rpc_ref.errors import Misuse, Unsupported
from ggml_rpc_ref.upstream.environment import (
    Failed,
    OnProgress,
    Progress,
    cache_home,
    ignore_progress,
    locked,
    make_venv,
    python_of,
    remove,
    run_logged,
)
from ggml_rpc_ref.upstream.releases import PACKAGE, RELEASES, Release, release

MARKER = "ggml-rpc-ref.json"
CMAKE_ARGS = "-DGGML_RPC=ON -DLLAVA_BUILD=OFF"
RPC_LIBRARY = "libggml-rpc.*"


@dataclass(frozen=True, slots=True)
class Build:
    """A genuine build that can be run: its protocol version, the package's version and where it lies.

    `python` is the interpreter of its environment, `libraries` the directory of libggml-base, -cpu, -rpc, libggml and libllama.
    """

    protocol: str
    package_version: str
    root: Path
    python: Path
    libraries: Path


def cache_dir(version: str | None = None) -> Path:
    """Return the directory that holds all builds, or the one of a protocol version; neither need exist."""
    root = cache_home() / "upstream"
    return root if version is None else root / version


def install_command(version: str) -> str:
    """Return the command that installs a protocol version, as the sentences about a missing one name it."""
    return f"`ggml-rpc-ref upstream install {version}`"


def find(version: str) -> Build:
    """Return the installed build of a protocol version; Misuse names the command that installs it where there is none."""
    row = release(version)
    root = cache_dir(version)
    if not root.exists():
        raise Misuse(f"no llama.cpp of protocol {version} is installed here: run {install_command(version)}")
    made_for = _read_mark(root)
    if made_for is None:
        raise Misuse(f"the build in {root} was never finished: run {install_command(version)}")
    if not made_for <= instruction_sets():
        raise Misuse(f"the build in {root} was made for another processor: run {install_command(version)}")
    build = _look_at(root, row)
    if build is None:
        raise Misuse(f"the build in {root} is no longer whole: run {install_command(version)}")
    return build


def listing() -> list[tuple[Release, Build | None]]:
    """Return every protocol version, oldest first, with the build that can be run here or None."""
    return [(row, _find_or_none(row)) for row in RELEASES.values()]


def installed() -> list[Build]:
    """Return the builds that can be run here, oldest protocol first."""
    return [build for _, build in listing() if build is not None]


def _find_or_none(row: Release) -> Build | None:
    try:
        return find(row.protocol)
    except (Misuse, Unsupported):
        return None


def install(version: str, on_progress: OnProgress = ignore_progress) -> Build:
    """Return the build of a protocol version, building it from the package index where there is none: 6 to 8 minutes on two cores.

    An environment that somebody else made in the same place is adopted when it starts and speaks that version. A second process
    that wants the same version waits for the first and finds its build. Misuse for a missing compiler, Failed (with the log's
    name) for a build that fails or that speaks another version.
    """
    row = release(version)
    root = cache_dir(version)
    clock = _Clock(on_progress)
    with locked(root.with_name(f"{version}.lock"), lambda: clock.tell("waiting for another process that builds it")):
        build = _look_at(root, row)
        if build is not None:
            clock.tell("checking")
            made_for = _read_mark(root)
            if made_for is None and _try(build) is None:
                _mark(build)
                return build
            if made_for is not None and made_for <= instruction_sets():
                return build
        check_compiler(version)
        remove(root)
        try:
            return _build(row, root, clock)
        except BaseException:
            remove(root)
            raise


def check_compiler(version: str) -> None:
    """Raise Misuse, with what to install, unless a C and a C++ compiler are there.

    cmake and ninja need not be: the package's build back end (scikit-build-core) has pip fetch those that are missing into the
    build's own environment, which was seen with 0.3.20 on a PATH that held neither.
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


def _look_at(root: Path, row: Release) -> Build | None:
    """Return the build at `root` by what lies there, or None where a part of it is missing or of another release."""
    libraries = next(root.glob(f"lib/python3*/site-packages/llama_cpp/lib/{RPC_LIBRARY}"), None)
    described = next(root.glob(f"lib/python3*/site-packages/llama_cpp_python-{row.package_version}.dist-info"), None)
    # exists() follows the link to the Python that made the environment, which may have been removed since.
    if libraries is None or described is None or not python_of(root).exists():
        return None
    assert row.package_version is not None
    return Build(row.protocol, row.package_version, root, python_of(root), libraries.parent)


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
    build = _look_at(root, row)
    fault = "its libraries are not where they should be" if build is None else _try(build)
    if build is None or fault is not None:
        raise Failed(f"{PACKAGE} {row.package_version} was built but can't be used: {fault}; see {log}")
    _mark(build)
    return build


def _try(build: Build) -> str | None:
    """Start the build's server, have it say HELLO, and return what is wrong, or None."""
    from ggml_rpc_ref.upstream.running import Wishes, server_of

    try:
        with server_of(build, Wishes(threads=1)) as trial:
            spoken = trial.protocol
    except Failed as failure:
        return str(failure)
    return None if spoken == build.protocol else f"it speaks protocol {spoken}, not {build.protocol}"


def _mark(build: Build) -> None:
    """Write the marker file, whole or not at all."""
    facts = {
        "schema_version": 1,
        "protocol": build.protocol,
        "package": PACKAGE,
        "version": build.package_version,
        "instruction_sets": sorted(instruction_sets()),
    }
    draft = build.root / f"{MARKER}.new"
    draft.write_text(json.dumps(facts) + "\n")
    draft.replace(build.root / MARKER)


def _read_mark(root: Path) -> set[str] | None:
    """Return the instruction sets a marked build was made for, or None where the marker is missing or not ours."""
    try:
        return set(json.loads((root / MARKER).read_text())["instruction_sets"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def instruction_sets() -> set[str]:
    """Return the instruction sets of this machine's processor by Linux's names; empty where the system doesn't tell.

    ggml is compiled for the processor it is built on (GGML_NATIVE), and a cache directory may outlive its machine.
    """
    try:
        described = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", described, re.MULTILINE)
    return {name for name in found[1].split() if name.startswith(_COMPILED_FOR)} if found else set()


_COMPILED_FOR = ("sse", "ssse", "avx", "amx", "fma", "f16c", "bmi", "gfni", "vaes", "asimd", "sve", "i8mm", "bf16", "fphp")
"""What names of instruction sets that compilers use begin with, on x86 and ARM."""

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
