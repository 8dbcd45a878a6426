"""Who may import whom, read from the source with `ast`: the drawing in the code's own words.

spec  <-  errors  <-  codec  <-  connection  <-  net
  ^                     ^            ^
  |                     |            +---- conformance, fuzz      (never executor, handlers or net.server)
  +---- tensor <- blocks, ops  <-  backends  <-  executor  <-  handlers  <-  net.server
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ggml_rpc_ref"
FILES = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in PACKAGE.rglob("*.py")}

FOUNDATION = {"spec", "errors"}
ARITHMETIC = FOUNDATION | {"tensor", "blocks", "ops"}
PROTOCOL = FOUNDATION | {"codec", "connection"}

MAY_IMPORT: dict[str, set[str]] = {
    "spec": {"spec"},
    "errors": {"spec"},
    "codec": FOUNDATION,
    "fnv": FOUNDATION,
    "recording": FOUNDATION | {"fnv"},
    "connection": PROTOCOL,
    "blocks": FOUNDATION | {"blocks"},
    "tensor": FOUNDATION | {"blocks"},
    "ops": ARITHMETIC,
    "memory": ARITHMETIC,
    "backends": ARITHMETIC | {"backends"},
    "executor": ARITHMETIC | {"codec", "memory", "backends"},
    "tensor_cache": FOUNDATION | {"fnv"},
    "handlers": ARITHMETIC | PROTOCOL | {"memory", "backends", "executor", "fnv", "tensor_cache"},
    "graph": ARITHMETIC | PROTOCOL,
    "net/server": ARITHMETIC | PROTOCOL | {"memory", "backends", "handlers", "tensor_cache", "net/listening", "net/sockets"},
    "serve": ARITHMETIC | {"memory", "backends", "handlers", "tensor_cache", "net/server"},
    "net/sockets": FOUNDATION,
    "net/listening": FOUNDATION | {"net/sockets"},
    "net/stream": PROTOCOL,
    "net/client": ARITHMETIC | PROTOCOL | {"fnv", "graph", "net/stream", "net/devices"},
    "net/devices": ARITHMETIC | PROTOCOL | {"graph", "net/client"},
    "follow": PROTOCOL | {"recording"},
    "net/proxy": PROTOCOL | {"recording", "follow", "net/listening", "net/stream"},
    "proxying": PROTOCOL | {"recording", "serve", "net/proxy", "net/stream"},
    "probe": FOUNDATION | {"net/client", "net/stream"},
    "conformance": PROTOCOL | {"tensor", "ops", "blocks", "fnv", "conformance", "net/stream", "net/client"},
    "upstream": FOUNDATION | {"upstream"},
    "script": set(),
    "stdout": set(),
    "vectors": ARITHMETIC | PROTOCOL | {"script", "fnv", "recording", "conformance", "net/stream", "decode"},
    "decode": PROTOCOL | {"script", "stdout", "recording", "ops", "decode"},
    # SPEC.md describes ops and block types by their rows and docstrings, and lists the cases that test each rule
    "derive": FOUNDATION | {"codec", "ops", "blocks", "backends", "conformance"},
}
"""What each part may import of ours; a part is a module or package of the top level, or a module of net."""

OUTSIDE: dict[str, set[str]] = {
    "typer": {"cli", "cli_options", "cli_upstream", "cli_vectors"},
    "rich": {"cli", "conformance", "decode", "probe", "upstream"},
    "scapy": {"decode"},
    "gguf": {"vectors"},
    "cffi": {"backends"},
    "pycuda": {"backends"},
    "hypothesis": {"derive", "fuzz"},
}
SOCKETS = {"net/listening", "net/server", "net/proxy", "net/stream", "net/client", "upstream"}
FREE = {"cli", "cli_options", "cli_upstream", "cli_vectors", "__init__", "__main__"}


def part_of(module: str) -> str:
    """The part that a file belongs to: "ops/rms_norm" to "ops", "net/server" to itself."""
    pieces = module.split("/")
    return "/".join(pieces[:2]) if pieces[0] == "net" and len(pieces) > 1 else pieces[0]


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
            found |= {f"{name}.{alias.name}" for alias in node.names} if name in ("ggml_rpc_ref", "ggml_rpc_ref.net") else {name}
    return frozenset(name.replace(".", "/") for name in found)


def ours(module: str) -> set[str]:
    return {name.removeprefix("ggml_rpc_ref/") for name in imports(module) if name.startswith("ggml_rpc_ref/")}


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_of_ours_follow_the_drawing(module: str) -> None:
    part = part_of(module)
    if part in FREE or module == "net/__init__":
        return
    assert part in MAY_IMPORT, f"{module}: say in MAY_IMPORT what {part} may import"
    strays = {name for name in ours(module) if part_of(name) not in MAY_IMPORT[part] | {part}}
    assert not strays, f"{module} must not import {sorted(strays)}"


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_from_outside_have_one_door_each(module: str) -> None:
    outside = {name.split("/")[0] for name in imports(module)} - sys.stdlib_module_names - {"ggml_rpc_ref", "__future__"}
    allowed = {"numpy"} | {name for name, doors in OUTSIDE.items() if part_of(module) in doors}
    assert outside <= allowed, f"{module} must not import {sorted(outside - allowed)}"
    if part_of(module) in ("spec", "errors"):
        assert not outside, f"{module}: spec and errors need the standard library only"


@pytest.mark.parametrize("module", sorted(FILES))
def test_sockets_only_in_net(module: str) -> None:
    if part_of(module) not in SOCKETS | {"net/sockets"}:
        assert not imports(module) & {"socket", "socketserver", "asyncio", "selectors"}, f"{module} must not open sockets"


def test_the_map_names_no_part_that_is_gone() -> None:
    parts = {part_of(module) for module in FILES}
    assert parts >= {"spec", "errors", "codec", "connection", "ops", "executor"}


def test_a_stray_import_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself, on a file that breaks it."""
    stray = tmp_path / "stray.py"
    stray.write_text("import socket\nimport typer\nfrom ggml_rpc_ref import executor\n")
    monkeypatch.setitem(FILES, "ops/stray", stray)
    for check in (test_imports_of_ours_follow_the_drawing, test_imports_from_outside_have_one_door_each, test_sockets_only_in_net):
        with pytest.raises(AssertionError, match="must not"):
            check("ops/stray")
