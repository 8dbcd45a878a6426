"""Genuine llama.cpp builds that lie in the cache directory, by protocol version.

A build is what cmake made of the source in a package (`by_cmake`), or a virtual environment with llama-cpp-python compiled with its
RPC backend (`by_pip`). It counts as installed when its marker file exists; `builder` writes the marker last, after a trial start,
so that an interrupted build is never taken for a finished one.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from ggml_rpc_ref.errors import Misuse, Unsupported
from ggml_rpc_ref.spec.packages import Package
from ggml_rpc_ref.upstream import by_cmake
from ggml_rpc_ref.upstream.instruments import Instrument
from ggml_rpc_ref.upstream.process import cache_home, python_of
from ggml_rpc_ref.upstream.releases import RELEASES, Release, package_of, release

MARKER = "ggml-rpc-ref.json"
RPC_LIBRARY = "libggml-rpc.*"

_COMPILED_FOR = ("sse", "ssse", "avx", "amx", "fma", "f16c", "bmi", "gfni", "vaes", "asimd", "sve", "i8mm", "bf16", "fphp")
"""Prefixes of the instruction sets that compilers use, on x86 and ARM."""


@dataclass(frozen=True, slots=True)
class Build:
    """A genuine build that can be run.

    Attributes:
        name: what it was installed by: its protocol version, or a fork's name.
        package: the package that it was built from.
        root: its directory.
        python: the interpreter that runs it: that of its environment, or ours.
        libraries: the directory of libggml-base, -cpu, -rpc and libggml, and of libllama where it is there.
        instrument: what it is compiled with; None: nothing, as its package has it.
    """

    name: str
    package: Package
    root: Path
    python: Path
    libraries: Path
    instrument: Instrument | None = None

    @property
    def protocol(self) -> str:
        """The protocol version that it speaks."""
        return str(self.package.speaks)

    @property
    def runs_models(self) -> bool:
        """Whether it has llama.cpp's own library, which `generate` needs."""
        return by_cmake.has_llama(self.root) or (self.package.environment and self.instrument is None)


def cache_dir(name: str | None = None, instrument: Instrument | None = None) -> Path:
    """Return the directory of all builds, or of the build of that name; neither need exist."""
    root = cache_home() / "upstream"
    return root if name is None else root / (name if instrument is None else f"{name}-{instrument}")


def install_command(name: str, instrument: Instrument | None = None) -> str:
    """Return the command that installs a build, for sentences about a missing one."""
    return f"`ggml-rpc-ref upstream install {name}{f' --{instrument}' if instrument else ''}`"


def find(name: str, instrument: Instrument | None = None) -> Build:
    """Return the installed build of a protocol version, or of a fork; the plain one, or one with an instrument.

    Raises:
        Misuse: where there is none that can be run here; the sentence names the command that installs it.
        Unsupported: for a version that no package holds.
    """
    row = release(name)
    package_of(row)
    root, command = cache_dir(name, instrument), install_command(name, instrument)
    if not root.exists():
        what = f"no llama.cpp of protocol {name} is" if name == row.protocol else f"the fork {name} of llama.cpp is not"
        raise Misuse(f"{what} installed here{f' with {instrument}' if instrument else ''}: run {command}")
    made_for = read_marker(root)
    if made_for is None:
        raise Misuse(f"the build in {root} was never finished: run {command}")
    if not fits_this_processor(made_for):
        raise Misuse(f"the build in {root} was made for another processor: run {command}")
    build = build_at(root, row, instrument)
    if build is None:
        raise Misuse(f"the build in {root} is incomplete: run {command}")
    return build


def listing() -> list[tuple[Release, Build | None]]:
    """Return every row of `RELEASES`, with its build, or None where no build can be run here."""
    return [(row, _find_or_none(row)) for row in RELEASES.values()]


def instrumented(name: str) -> list[Instrument]:
    """Return with which instruments a version or fork is installed here."""
    return [instrument for instrument in Instrument if read_marker(cache_dir(name, instrument)) is not None]


def installed() -> list[Build]:
    """Return the builds that can be run here, oldest protocol first."""
    return [build for _, build in listing() if build is not None]


def _find_or_none(row: Release) -> Build | None:
    try:
        return find(row.name)
    except (Misuse, Unsupported):
        return None


def build_at(root: Path, row: Release, instrument: Instrument | None = None) -> Build | None:
    """Return the build in `root`, marked or not, or None where a part is missing or belongs to another package."""
    package = package_of(row)
    if package.environment and instrument is None:
        libraries = next(root.glob(f"lib/python3*/site-packages/llama_cpp/lib/{RPC_LIBRARY}"), None)
        described = next(root.glob(f"lib/python3*/site-packages/llama_cpp_python-{package.version}.dist-info"), None)
        python, ours = python_of(root), described is not None
    else:
        libraries = next(by_cmake.libraries(root).glob("libggml.*"), None)
        python, ours = Path(sys.executable), by_cmake.package_at(root) == str(package)
    # exists() follows the link to the Python that made the environment, which may have been removed since.
    if libraries is None or not ours or not python.exists():
        return None
    return Build(row.name, package, root, python, libraries.parent, instrument)


def write_marker(build: Build) -> None:
    """Mark a build as installed; the file is written whole or not at all."""
    facts = {
        "schema_version": 1,
        "protocol": build.protocol,
        "package": build.package.name,
        "version": build.package.version,
        "instruction_sets": sorted(instruction_sets()),
    }
    draft = build.root / f"{MARKER}.new"
    draft.write_text(json.dumps(facts) + "\n")
    draft.replace(build.root / MARKER)


def read_marker(root: Path) -> set[str] | None:
    """Return the instruction sets that a marked build was made for, or None where the marker is missing or not ours."""
    try:
        return set(json.loads((root / MARKER).read_text())["instruction_sets"])
    # TypeError: JSON, but not an object
    except (OSError, ValueError, KeyError, TypeError):
        return None


def fits_this_processor(made_for: set[str]) -> bool:
    """Whether this machine's processor has all the instruction sets that a build was made for."""
    return made_for <= instruction_sets()


def instruction_sets() -> set[str]:
    """Return the instruction sets of this machine's processor, by Linux's names; empty where the system does not tell.

    ggml is compiled for the processor it is built on (GGML_NATIVE), and a cache directory may be moved to another machine.
    """
    try:
        described = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", described, re.MULTILINE)
    return {name for name in found[1].split() if name.startswith(_COMPILED_FOR)} if found else set()
