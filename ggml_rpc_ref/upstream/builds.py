"""Genuine llama.cpp builds that lie in the cache directory, by protocol version.

A build is a virtual environment with llama-cpp-python compiled with its RPC backend. It counts as installed when its marker file
exists; `builder` writes the marker last, after a trial start, so that an interrupted build is never taken for a finished one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from ggml_rpc_ref.errors import Misuse, Unsupported
from ggml_rpc_ref.upstream.process import cache_home, python_of
from ggml_rpc_ref.upstream.releases import PACKAGE, RELEASES, Release, release

MARKER = "ggml-rpc-ref.json"
RPC_LIBRARY = "libggml-rpc.*"

_COMPILED_FOR = ("sse", "ssse", "avx", "amx", "fma", "f16c", "bmi", "gfni", "vaes", "asimd", "sve", "i8mm", "bf16", "fphp")
"""Prefixes of the instruction sets that compilers use, on x86 and ARM."""


@dataclass(frozen=True, slots=True)
class Build:
    """A genuine build that can be run.

    Attributes:
        protocol: its protocol version.
        package_version: the version of llama-cpp-python.
        root: its virtual environment.
        python: the interpreter of that environment.
        libraries: the directory of libggml-base, -cpu, -rpc, libggml and libllama.
    """

    protocol: str
    package_version: str
    root: Path
    python: Path
    libraries: Path


def cache_dir(version: str | None = None) -> Path:
    """Return the directory of all builds, or of the build of a protocol version; neither need exist."""
    root = cache_home() / "upstream"
    return root if version is None else root / version


def install_command(version: str) -> str:
    """Return the command that installs a protocol version, for sentences about a missing build."""
    return f"`ggml-rpc-ref upstream install {version}`"


def find(version: str) -> Build:
    """Return the installed build of a protocol version.

    Raises:
        Misuse: where there is none that can be run here; the sentence names the command that installs it.
        Unsupported: for a version that no release speaks.
    """
    row = release(version)
    root = cache_dir(version)
    if not root.exists():
        raise Misuse(f"no llama.cpp of protocol {version} is installed here: run {install_command(version)}")
    made_for = read_marker(root)
    if made_for is None:
        raise Misuse(f"the build in {root} was never finished: run {install_command(version)}")
    if not fits_this_processor(made_for):
        raise Misuse(f"the build in {root} was made for another processor: run {install_command(version)}")
    build = build_at(root, row)
    if build is None:
        raise Misuse(f"the build in {root} is incomplete: run {install_command(version)}")
    return build


def listing() -> list[tuple[Release, Build | None]]:
    """Return every protocol version, oldest first, with its build, or None where no build can be run here."""
    return [(row, _find_or_none(row)) for row in RELEASES.values()]


def installed() -> list[Build]:
    """Return the builds that can be run here, oldest protocol first."""
    return [build for _, build in listing() if build is not None]


def _find_or_none(row: Release) -> Build | None:
    try:
        return find(row.protocol)
    except (Misuse, Unsupported):
        return None


def build_at(root: Path, row: Release) -> Build | None:
    """Return the build in `root`, marked or not, or None where a part is missing or belongs to another release."""
    libraries = next(root.glob(f"lib/python3*/site-packages/llama_cpp/lib/{RPC_LIBRARY}"), None)
    described = next(root.glob(f"lib/python3*/site-packages/llama_cpp_python-{row.package_version}.dist-info"), None)
    # exists() follows the link to the Python that made the environment, which may have been removed since.
    if libraries is None or described is None or not python_of(root).exists():
        return None
    assert row.package_version is not None
    return Build(row.protocol, row.package_version, root, python_of(root), libraries.parent)


def write_marker(build: Build) -> None:
    """Mark a build as installed; the file is written whole or not at all."""
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
