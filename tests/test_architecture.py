"""Who may import whom, read from the source with `ast`: the drawing in the code's own words.

spec  <-  errors  <-  protocol  <-  files, net  <-  client, proxy, conformance
  ^                      ^
  |                      +-- server (validate, plan, handlers)  <-  commands
  +-- tensor  <-  blocks, ops  <-  backends  <-  server
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ggml_rpc_ref"
FILES = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in PACKAGE.rglob("*.py")}

FOUNDATION = {"spec", "errors"}
ARITHMETIC = FOUNDATION | {"tensor", "blocks", "ops"}
PROTOCOL = FOUNDATION | {"protocol"}

MAY_IMPORT: dict[str, set[str]] = {
    "spec": set(),
    "errors": set(),
    "protocol": FOUNDATION,
    "files": PROTOCOL,
    "net": PROTOCOL,
    "blocks": FOUNDATION,
    "tensor": FOUNDATION | {"blocks"},
    "ops": FOUNDATION | {"tensor", "blocks"},
    "backends": ARITHMETIC,
    "server": ARITHMETIC | PROTOCOL | {"backends", "net"},
    "client": ARITHMETIC | PROTOCOL | {"net"},
    "proxy": PROTOCOL | {"files", "net"},
    # the suite that judges a server shares no code with our server but the tables and the protocol
    "conformance": ARITHMETIC | PROTOCOL | {"net"},
    "golden": ARITHMETIC | PROTOCOL | {"files", "conformance", "net", "decode"},
    "decode": PROTOCOL | {"files", "ops"},
    "upstream": FOUNDATION,
    # SPEC.md describes ops and block types by their rows and docstrings, and lists the cases that test each rule
    "derive": FOUNDATION | {"protocol", "ops", "blocks", "backends", "conformance"},
}
"""What each room may import of ours; a room is a module or package of the top level."""

OUTSIDE: dict[str, set[str]] = {
    "typer": {"commands"},
    "rich": {"commands"},
    "scapy": {"decode"},
    "gguf": {"golden"},
    "cffi": {"backends/native"},
    "pycuda": {"backends/cuda"},
    "hypothesis": {"derive", "fuzz"},
}
SOCKETS = {"net", "upstream", "server/server", "proxy/proxy"}
FREE = {"commands", "__init__", "__main__"}


def room_of(module: str) -> str:
    """The room that a file belongs to: "ops/rms_norm" to "ops"."""
    return module.split("/")[0]


@cache
def imports(module: str) -> frozenset[str]:
    """Every module that a file imports, with dots as slashes and ours without the package's name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute here"
            name = node.module or ""
            found |= {f"{name}.{alias.name}" for alias in node.names} if name == "ggml_rpc_ref" else {name}
    return frozenset(name.replace(".", "/") for name in found)


def ours(module: str) -> set[str]:
    return {name.removeprefix("ggml_rpc_ref/") for name in imports(module) if name.startswith("ggml_rpc_ref/")}


def target(name: str) -> str:
    """The file that an imported name lies in: "ops" to "ops/__init__", "errors" to itself."""
    return name if name in FILES else f"{name}/__init__"


def edges(module: str) -> frozenset[str]:
    """The files that a file imports, those under TYPE_CHECKING and inside functions included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import name`: name may be a file of the package, or something that its __init__ holds
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [m if _path(m) in FILES or f"{_path(m)}/__init__" in FILES else node.module for m in members]
        else:
            continue
        found |= {target(_path(name)) for name in names if name.startswith("ggml_rpc_ref.")}
    return frozenset(found - {module})


def _path(name: str) -> str:
    return name.removeprefix("ggml_rpc_ref.").replace(".", "/")


def circles() -> list[list[str]]:
    """Every set of two or more files that import each other, directly or on a detour."""
    graph = {module: edges(module) for module in FILES}
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen, waiting = set[str](), [start]
        while waiting:
            for following in graph.get(waiting.pop(), frozenset()) - seen:
                seen.add(following)
                waiting.append(following)
        reached[start] = seen
    both = {module: frozenset(other for other in seen if module in reached[other]) for module, seen in reached.items()}
    return sorted(sorted(members) for members in set(both.values()) if members)


def test_no_files_import_each_other() -> None:
    assert circles() == []


def test_a_circle_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself: one import is for the type checker only, the other inside a function."""
    (tmp_path / "one.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ggml_rpc_ref.ops.two import Two\n"
    )
    (tmp_path / "two.py").write_text("def f():\n    from ggml_rpc_ref.ops import one\n")
    monkeypatch.setitem(FILES, "ops/one", tmp_path / "one.py")
    monkeypatch.setitem(FILES, "ops/two", tmp_path / "two.py")
    assert circles() == [["ops/one", "ops/two"]]


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_of_ours_follow_the_drawing(module: str) -> None:
    room = room_of(module)
    if room in FREE:
        return
    assert room in MAY_IMPORT, f"{module}: say in MAY_IMPORT what {room} may import"
    strays = {name for name in ours(module) if room_of(name) not in MAY_IMPORT[room] | {room}}
    assert not strays, f"{module} must not import {sorted(strays)}"


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_from_outside_have_one_door_each(module: str) -> None:
    outside = {name.split("/")[0] for name in imports(module)} - sys.stdlib_module_names - {"ggml_rpc_ref", "__future__"}
    allowed = {"numpy"} | {name for name, doors in OUTSIDE.items() if room_of(module) in doors}
    assert outside <= allowed, f"{module} must not import {sorted(outside - allowed)}"
    if room_of(module) in ("spec", "errors"):
        assert not outside, f"{module}: spec and errors need the standard library only"


@pytest.mark.parametrize("module", sorted(FILES))
def test_sockets_only_in_net(module: str) -> None:
    if not {room_of(module), module} & SOCKETS:
        assert not imports(module) & {"socket", "socketserver", "asyncio", "selectors"}, f"{module} must not open sockets"


def test_the_drawing_and_the_rooms_agree() -> None:
    rooms = {room_of(module) for module in FILES}
    assert rooms == set(MAY_IMPORT) | FREE
    assert set().union(*MAY_IMPORT.values()) <= rooms


@pytest.mark.parametrize("module", sorted(module for module in FILES if module.startswith("ops/")))
def test_ops_do_not_import_their_cases(module: str) -> None:
    if not module.startswith("ops/cases/"):
        cases = {name for name in ours(module) if name.startswith("ops/cases")}
        assert not cases, f"{module} must not import {sorted(cases)}"


def is_op(module: str) -> bool:
    """Whether a file is the page of an op, rather than something that the ops are made of."""
    return module.startswith("ops/") and module.count("/") == 1 and bool(re.search(r"^OPS? = ", FILES[module].read_text(), re.M))


def test_no_op_imports_another() -> None:
    """What several ops need is in ops/shared."""
    ops = {module for module in FILES if is_op(module)}
    assert len(ops) > 90
    for module in FILES:
        if module in ops or module.startswith("ops/shared/"):
            others = {name for name in ours(module) if name in ops or name == "ops"}
            assert not others, f"{module} must not import {sorted(others)}"


def test_a_server_does_not_load_the_cases() -> None:
    """What imports them by another way than an import statement is seen here."""
    modules = [module.replace("/", ".") for module in sorted(FILES) if room_of(module) == "server" or module == "commands/serve"]
    program = f"import importlib, sys\nfor name in {modules}:\n    importlib.import_module(f'ggml_rpc_ref.{{name}}')\n"
    program += "print(*(name for name in sys.modules if name.startswith('ggml_rpc_ref.ops.')))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "ggml_rpc_ref.ops.add" in loaded
    assert not [name for name in loaded if name.startswith("ggml_rpc_ref.ops.cases")]


def test_a_stray_import_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself, on a file that breaks it."""
    stray = tmp_path / "stray.py"
    stray.write_text("import socket\nimport typer\nfrom ggml_rpc_ref.server import executor\n")
    monkeypatch.setitem(FILES, "ops/stray", stray)
    for check in (test_imports_of_ours_follow_the_drawing, test_imports_from_outside_have_one_door_each, test_sockets_only_in_net):
        with pytest.raises(AssertionError, match="must not"):
            check("ops/stray")


# ------------------------------------------------------------------------------------------------------- facts in one place

VERSION_NAME = re.compile(r"V\d+_\d+_\d+$")
VERSION_TEXT = re.compile(r"\d+\.\d+\.\d+$")


def version_literals(source: str) -> list[str]:
    """Lines of a file that name a protocol version in code; what docstrings and comments say is for people."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name) | ast.alias(name=name) if VERSION_NAME.match(name):
                found.append(f"{node.lineno}: {name}")
            case ast.Constant(value=str(text)) if VERSION_TEXT.match(text):
                found.append(f"{node.lineno}: {text!r}")
            case ast.Call(func=ast.Name(id="Version"), args=[ast.Constant(), *_]):
                found.append(f"{node.lineno}: Version(…)")
    return found


@pytest.mark.parametrize("module", sorted(module for module in FILES if room_of(module) != "spec"))
def test_no_version_is_named_outside_spec(module: str) -> None:
    """What only some versions have is asked of the rows: `present`, `fields`, `op_table`, `kinds`, `types`, `layouts`."""
    assert version_literals(FILES[module].read_text()) == []


def test_a_named_version_is_seen() -> None:
    """The check itself; a package's version in a longer text is none."""
    source = """
from ggml_rpc_ref.spec.versions import V3_5_0, Version
if version >= V3_5_0 or version == Version(4, 0, 0) or str(version) == "3.6.1":
    "from 3.6.1 on"
"""
    assert sorted(version_literals(source)) == ["2: V3_5_0", "3: '3.6.1'", "3: V3_5_0", "3: Version(…)"]
