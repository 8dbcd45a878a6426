"""Who may import whom, read from the source with `ast`: the import rules of the design.

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
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.support.each import each

PACKAGE = Path(__file__).parent.parent / "ggml_rpc_ref"
FILES = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in PACKAGE.rglob("*.py")}

FOUNDATION = {"spec", "errors"}
ARITHMETIC = FOUNDATION | {"tensor", "blocks", "ops", "stopping"}
PROTOCOL = FOUNDATION | {"protocol"}

MAY_IMPORT: dict[str, set[str]] = {
    "spec": set(),
    "errors": set(),
    # how a long computation is stopped: what blocks, ops and backends pass between their parts
    "stopping": set(),
    # another program's cluster, for fuzzing and judging on many machines
    "cluster": {"errors"},
    "protocol": FOUNDATION,
    "files": PROTOCOL,
    "net": PROTOCOL,
    "blocks": FOUNDATION | {"stopping"},
    "tensor": FOUNDATION | {"blocks"},
    "ops": FOUNDATION | {"tensor", "blocks", "stopping"},
    "backends": ARITHMETIC,
    "server": ARITHMETIC | PROTOCOL | {"backends", "net"},
    "client": ARITHMETIC | PROTOCOL | {"net"},
    # where the two meet: this machine's backends answer a client's requests as a server does, without a wire between them. The
    # client itself, scheduler included, stays free of both server and backends, so that it can be used without either
    "this_machine": ARITHMETIC | PROTOCOL | {"net", "client", "server", "backends"},
    # an example over the client alone: where it computes is the caller's to say
    "models": ARITHMETIC | PROTOCOL | {"client", "files"},
    "proxy": PROTOCOL | {"files", "net"},
    # the suite that judges a server shares no code with our server but the tables and the protocol
    "conformance": ARITHMETIC | PROTOCOL | {"net", "cluster"},
    # it judges by our own server in its process, which the suite must not
    "fuzz": ARITHMETIC | PROTOCOL | {"files", "net", "conformance", "server", "backends", "decode", "cluster"},
    "golden": ARITHMETIC | PROTOCOL | {"files", "conformance", "net", "decode"},
    "decode": PROTOCOL | {"files", "ops"},
    "upstream": FOUNDATION,
    # SPEC.md describes ops and block types by their rows and docstrings, and lists the cases that test each rule; the client's
    # named methods follow from the ops' rows and the client's constructors
    "derive": FOUNDATION | {"protocol", "ops", "blocks", "backends", "conformance", "client"},
}
"""What each room may import of ours; a room is a module or package of the top level."""

ALSO: dict[str, set[str]] = {"conformance/clients/player": {"server", "backends"}}
"""What single files may import besides: clients are judged by a server that is played to them, and it is our own."""

OUTSIDE: dict[str, set[str]] = {
    "typer": {"commands"},
    "rich": {"commands"},
    "scapy": {"decode/pcap"},
    "gguf": {"files/gguf"},
    "jsonschema_rs": {"golden/schemas"},
    "cffi": {"backends/native"},
    "setuptools": {"backends/native/build_backend"},
    "pycuda": {"backends/cuda"},
    "jinja2": {"conformance/html"},
    "pytest": {"pytest_plugin"},
    "hypothesis": {"fuzz/strategies"},
    "dask": {"cluster"},
}
"""What of other people's each file or folder may import; beside numpy, which all may but spec and errors."""
SOCKETS = {"net", "upstream"}
FREE = {"commands", "__init__", "__main__", "pytest_plugin"}


def room_of(module: str) -> str:
    """The room that a file belongs to: "ops/rms_norm" to "ops"."""
    return module.split("/")[0]


def lies_in(module: str, door: str) -> bool:
    """Whether a file is the one named, or lies in the folder named."""
    return module == door or module.startswith(f"{door}/")


@cache
def parsed(path: Path) -> ast.Module:
    """The source of a file, which several rules walk through."""
    return ast.parse(path.read_text())


@cache
def imports(module: str) -> frozenset[str]:
    """Every module that a file imports, with dots as slashes and ours without the package's name."""
    found: set[str] = set()
    for node in ast.walk(parsed(FILES[module])):
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
    for node in ast.walk(parsed(FILES[module])):
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


def test_the_top_level_is_the_one_that_was_agreed() -> None:
    """DESIGN's list: six names that the client fixed, three texts, and hidden folders; a setup.py, for one, has no place there."""
    names = subprocess.run(["git", "ls-files"], cwd=PACKAGE.parent, capture_output=True, text=True, check=True).stdout.split("\n")
    seen = {name.split("/")[0] for name in names if name and not name.startswith(".")}
    assert seen == {
        *["pyproject.toml", "ggml_rpc_ref", "vectors", "tests", "bench", "SPEC.md", "README.md", "LICENSE", "CHANGELOG.md"]
    }


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


def imports_of_ours_follow_the_drawing(module: str) -> None:
    room = room_of(module)
    if room in FREE:
        return
    assert room in MAY_IMPORT, f"{module}: say in MAY_IMPORT what {room} may import"
    allowed = MAY_IMPORT[room] | {room} | ALSO.get(module, set())
    strays = {name for name in ours(module) if room_of(name) not in allowed}
    assert not strays, f"{module} must not import {sorted(strays)}"


def test_only_what_tries_clients_plays_a_server() -> None:
    """The cases that judge servers must not come near it, as it is our own."""
    users = {module for module in FILES if "conformance/clients/player" in edges(module)}
    assert users == {"conformance/clients/bench", "conformance/clients/scripted", "fuzz/liar"}


def imports_from_outside_have_one_door_each(module: str) -> None:
    outside = {name.split("/")[0] for name in imports(module)} - sys.stdlib_module_names - {"ggml_rpc_ref", "__future__"}
    allowed = {"numpy"} | {name for name, doors in OUTSIDE.items() if any(lies_in(module, door) for door in doors)}
    assert outside <= allowed, f"{module} must not import {sorted(outside - allowed)}"
    if room_of(module) in ("spec", "errors"):
        assert not outside, f"{module}: spec and errors need the standard library only"


def test_the_door_of_a_package_is_a_folder_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one file may import its neighbours may not."""
    (tmp_path / "stray.py").write_text("import cffi\nimport hypothesis\n")
    for module in ("backends/native/stray", "backends/oracle_too", "fuzz/generators"):
        monkeypatch.setitem(FILES, module, tmp_path / "stray.py")
    for module, strays in (
        ("backends/native/stray", "hypothesis"),
        ("backends/oracle_too", "cffi', 'hypothesis"),
        ("fuzz/generators", "cffi', 'hypothesis"),
    ):
        with pytest.raises(AssertionError, match=re.escape(f"must not import ['{strays}']")):
            imports_from_outside_have_one_door_each(module)


def sockets_only_in_net(module: str) -> None:
    if not {room_of(module), module} & SOCKETS:
        assert not imports(module) & {"socket", "socketserver", "asyncio", "selectors"}, f"{module} must not open sockets"


def test_the_drawing_and_the_rooms_agree() -> None:
    rooms = {room_of(module) for module in FILES}
    assert rooms == set(MAY_IMPORT) | FREE
    assert set().union(*MAY_IMPORT.values()) <= rooms


def ops_do_not_import_their_cases(module: str) -> None:
    if module.startswith("ops/") and not module.startswith("ops/cases/"):
        cases = {name for name in ours(module) if name.startswith("ops/cases")}
        assert not cases, f"{module} must not import {sorted(cases)}"


WITH_CODEC = {"conformance/cases/frame", "conformance/cases/graph", "conformance/cases/session"}
"""Cases that cut up or change what the codec writes. All others say what they ask as messages, or as literal bytes."""


def cases_do_without_the_codec(module: str) -> None:
    """A case that sends bytes of its own must not take them from the code that reads them on our side."""
    used = {name for name in edges(module) if lies_in(name, "protocol")} if module.startswith("conformance/cases/") else set()
    assert module in WITH_CODEC or not used, f"{module} must not import {sorted(used)}"


def what_runs_in_a_genuine_build_is_not_imported(module: str) -> None:
    """upstream/genuine.py runs in another Python, with llama_cpp and without this package."""
    assert "upstream/genuine" not in edges(module), f"{module} must not import upstream/genuine"
    if module == "upstream/genuine":
        assert not ours(module), f"{module} must not import {sorted(ours(module))}"


TOOLS = PACKAGE.parent / "vectors" / "tools"
WRITERS = {path.relative_to(TOOLS).with_suffix("").as_posix(): path for path in TOOLS.rglob("*.py")}
MAY_USE: dict[str, set[str]] = {
    "op_wire": set(),
    "record_blocks": set(),
    "builds": {"ggml_rpc_ref"},  # `from ggml_rpc_ref import upstream`
    "frame_layouts": set(),
    "record_enums": set(),
    "record_frames": {"ggml_rpc_ref"},
    "record_layout": set(),
    "make_malformed": set(),
    "make_unwitnessed": set(),
    "session_scenarios": set(),
}
"""What of this package the tools may use that write the witness; those not named here record by other means, which they say."""


def packages_of(path: Path) -> set[str]:
    """Every package and module of ours that a tool names in an import."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return {name for name in found if name.split(".")[0] == "ggml_rpc_ref"}


@pytest.mark.parametrize("tool", sorted(name for name in WRITERS if name in MAY_USE or name.startswith("malformed/")))
def test_the_witness_is_written_without_our_codec_and_tables(tool: str) -> None:
    strays = packages_of(WRITERS[tool]) - MAY_USE.get(tool, set())
    assert not strays, f"{tool} must not import {sorted(strays)}"


def test_every_tool_is_judged_or_says_what_it_uses() -> None:
    assert {name for name in WRITERS if "/" not in name} - set(MAY_USE) == {
        "element_bounds",
        "record_ops",
        "record_sessions",
        "worst_errors",
    }


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
    stray.write_text("import socket\nimport typer\nfrom ggml_rpc_ref.server import validate\n")
    monkeypatch.setitem(FILES, "ops/stray", stray)
    for check in (imports_of_ours_follow_the_drawing, imports_from_outside_have_one_door_each, sockets_only_in_net):
        with pytest.raises(AssertionError, match="must not"):
            check("ops/stray")


@pytest.mark.parametrize(
    ("module", "source", "check"),
    [
        ("ops/stray", "from ggml_rpc_ref.backends.oracle import Oracle\n", imports_of_ours_follow_the_drawing),
        ("conformance/stray", "from ggml_rpc_ref.server.handlers import Session\n", imports_of_ours_follow_the_drawing),
        ("spec/stray", "import numpy\n", imports_from_outside_have_one_door_each),
        ("conformance/cases/stray", "from ggml_rpc_ref.protocol import codec\n", cases_do_without_the_codec),
        ("upstream/stray", "from ggml_rpc_ref.upstream import genuine\n", what_runs_in_a_genuine_build_is_not_imported),
        ("ops/stray", "from ggml_rpc_ref.ops.cases import add\n", ops_do_not_import_their_cases),
    ],
)
def test_each_rule_sees_its_stray(
    module: str, source: str, check: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stray.py").write_text(source)
    monkeypatch.setitem(FILES, module, tmp_path / "stray.py")
    imports.cache_clear()
    try:
        with pytest.raises(AssertionError, match=r"must not|standard library"):
            check(module)
    finally:
        imports.cache_clear()


def test_a_tool_that_asks_our_tables_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stray.py").write_text("from ggml_rpc_ref.spec.messages import REQUESTS\n")
    monkeypatch.setitem(WRITERS, "malformed/stray", tmp_path / "stray.py")
    with pytest.raises(AssertionError, match="must not import"):
        test_the_witness_is_written_without_our_codec_and_tables("malformed/stray")


# ------------------------------------------------------------------------------------------------------- facts in one place

VERSION_NAME = re.compile(r"V\d+_\d+_\d+$")
VERSION_TEXT = re.compile(r"\d+\.\d+\.\d+$")


def version_literals(source: ast.Module) -> list[str]:
    """Lines of a file that name a protocol version in code; what docstrings and comments say is for people."""
    found = []
    for node in ast.walk(source):
        match node:
            case ast.Name(id=name) | ast.alias(name=name) if VERSION_NAME.match(name):
                found.append(f"{node.lineno}: {name}")
            case ast.Constant(value=str(text)) if VERSION_TEXT.match(text):
                found.append(f"{node.lineno}: {text!r}")
            case ast.Call(func=ast.Name(id="Version"), args=[ast.Constant(), *_]):
                found.append(f"{node.lineno}: Version(…)")
    return found


def no_version_is_named_outside_spec(module: str) -> None:
    """What only some versions have is asked of the rows: `present`, `fields`, `op_table`, `kinds`, `types`, `layouts`."""
    assert room_of(module) == "spec" or version_literals(parsed(FILES[module])) == []


@pytest.mark.parametrize(
    "rule",
    [
        imports_of_ours_follow_the_drawing,
        imports_from_outside_have_one_door_each,
        sockets_only_in_net,
        ops_do_not_import_their_cases,
        cases_do_without_the_codec,
        what_runs_in_a_genuine_build_is_not_imported,
        no_version_is_named_outside_spec,
    ],
    ids=lambda rule: rule.__name__,
)
def test_every_file_keeps_the_rule(rule: Callable[[str], None]) -> None:
    each(rule, ((module, (module,)) for module in sorted(FILES)))


def test_a_named_version_is_seen() -> None:
    """The check itself; a package's version in a longer text does not count."""
    source = """
from ggml_rpc_ref.spec.versions import V3_5_0, Version
if version >= V3_5_0 or version == Version(4, 0, 0) or str(version) == "3.6.1":
    "from 3.6.1 on"
"""
    assert sorted(version_literals(ast.parse(source))) == ["2: V3_5_0", "3: '3.6.1'", "3: V3_5_0", "3: Version(…)"]
