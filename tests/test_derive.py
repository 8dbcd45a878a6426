"""SPEC.md's derived parts against the tables; the layouts against a C++ compiler (layout.json) and captured bytes (frames.json)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ggml_rpc_ref import derive
from ggml_rpc_ref.derive import markdown, operations, tables
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec import messages
from tests.support import requirements
from tests.support.command import run_command

ROOT = Path(__file__).parents[1]
SPEC = (ROOT / "SPEC.md").read_text(encoding="utf-8")
UPSTREAM = ROOT / "vectors" / "upstream-3.6.1-llama-cpp-python-0.3.20"
LAYOUT: dict[str, Any] = json.loads((UPSTREAM / "layout.json").read_text())["structures"]
FRAMES: list[dict[str, Any]] = [
    frame for connection in json.loads((UPSTREAM / "frames.json").read_text())["connections"] for frame in connection["frames"]
]
MARKS = re.findall(r"<!-- derived: (.+?) -->", SPEC)


# -------------------------------------------------------------------------------------------------------------- SPEC.md


def test_text_and_tables_agree() -> None:
    assert derive.outdated(SPEC) == [], "run `ggml-rpc-ref gen`"


def test_every_part_stands_in_the_text_once() -> None:
    assert Counter(MARKS) == Counter(list(derive.PARTS))
    assert SPEC.count("<!-- end -->") == len(MARKS)


def test_a_changed_table_is_seen_and_put_right_and_prose_is_left_alone() -> None:
    text = "before\n\n<!-- derived: glu numbers -->\n\n| 0 | REGLU |\n\n<!-- end -->\n\nafter"
    assert derive.outdated(text) == ["glu numbers"]
    right = derive.rewrite(text)
    assert derive.outdated(right) == []
    assert right.startswith("before\n\n<!-- derived: glu numbers -->\n\n| Number | Gate |\n")
    assert "| 3 | SWIGLU_OAI |" in right
    assert right.endswith("\n\n<!-- end -->\n\nafter")


def test_a_mark_that_names_nothing_is_refused() -> None:
    with pytest.raises(Misuse, match="'no such part' names no derived part"):
        derive.rewrite("<!-- derived: no such part -->\n<!-- end -->")


def gen(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return run_command("gen", *arguments, cwd=cwd)


def test_the_command_says_what_is_outdated_and_mends_it(tmp_path: Path) -> None:
    spec = tmp_path / "SPEC.md"
    spec.write_text("<!-- derived: unary numbers -->\n<!-- end -->\n")
    checked = gen("--check", str(spec))
    assert (checked.returncode, checked.stdout) == (1, "")
    assert "unary numbers" in checked.stderr
    assert "Traceback" not in checked.stderr
    assert gen(str(spec)).returncode == 0
    assert "| 21 | TRUNC |" in spec.read_text()
    assert gen("--check", str(spec)).returncode == 0


def test_copies_of_what_lies_in_vectors_are_compared_written_and_removed(tmp_path: Path) -> None:
    """In a copy of the package, hence in a process of its own: an original that changed, one that is new, one that is gone."""

    def gen(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ggml_rpc_ref", "gen", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    shutil.copytree(ROOT / "ggml_rpc_ref", tmp_path / "ggml_rpc_ref")
    schema, copies = tmp_path / "vectors" / "schema", tmp_path / "ggml_rpc_ref" / "golden" / "schema"
    shutil.copytree(ROOT / "vectors" / "schema", schema)
    for build in (ROOT / "vectors").glob("upstream-*/observed.json"):
        (tmp_path / "vectors" / build.parent.name).mkdir()
        shutil.copy(build, tmp_path / "vectors" / build.parent.name)
    (tmp_path / "SPEC.md").write_text("no derived parts\n")
    assert gen("--check").returncode == 0
    (schema / "flags.json").write_text("changed")
    (schema / "new.json").write_text("new")
    (schema / "ops.json").unlink()
    checked = gen("--check")
    assert (checked.returncode, "schema/flags.json is outdated" in checked.stderr) == (1, True)
    assert gen().returncode == 0
    assert {path.name: path.read_text() for path in copies.iterdir()} == {path.name: path.read_text() for path in schema.iterdir()}
    (copies / "ops.json").write_text("of nothing")
    checked = gen("--check")
    assert (checked.returncode, "ops.json is a copy of nothing" in checked.stderr) == (1, True)


def test_the_command_needs_the_file(tmp_path: Path) -> None:
    missing = gen("--check", cwd=tmp_path)
    assert (missing.returncode, "SPEC.md is not a file" in missing.stderr) == (2, True)


# ------------------------------------------------------------------------------------------------------------ witnesses


def class_of(structure: str) -> type:
    found: type = getattr(messages, "RpcTensor" if structure == "Tensor" else structure)
    return found


RECORDS = [name for name in LAYOUT if not name.endswith("Head")]


def test_the_compiler_was_asked_for_every_record_of_3_6_1() -> None:
    named = {class_of(name) for name in RECORDS}
    rows = messages.by_number().values()
    replies = {row.reply(messages.DEFAULT) for row in rows} - {messages.Empty, messages.NO_REPLY, messages.GetTensorReply}
    without_fields = {row.cls for row in rows if not messages.fields(row.cls)}
    assert named == {row.cls for row in rows} - without_fields | replies | {messages.RpcTensor}
    assert len(RECORDS) == 26


@pytest.mark.parametrize("name", RECORDS)
def test_tables_say_what_the_compiler_says(name: str) -> None:
    cls, witness = class_of(name), LAYOUT[name]["fields"]
    printed = {field.strip("`"): (offset, size) for offset, size, field, _, _ in tables.layout(cls)}
    assert list(printed) == list(witness)
    if codec.is_fixed(cls):
        expected = {field: (str(place["offset"]), str(place["size"])) for field, place in witness.items()}
        assert printed == expected
        assert codec.minimum_size(cls) == LAYOUT[name]["size"]


def test_tables_say_what_the_compiler_says_where_sizes_vary() -> None:
    """The structure has two nodes and three tensors."""
    place = {name: (row["offset"], row["size"]) for name, row in LAYOUT["GraphCompute"]["fields"].items()}
    printed = {}
    for offset, size, field, _, _ in tables.layout(messages.GraphCompute):
        numbers = [text.replace("·", "*").replace("n_nodes", "2").replace("n_tensors", "3") for text in (offset, size)]
        printed[field.strip("`")] = tuple(eval(number) for number in numbers)
    assert printed == place
    assert [row[0] for row in tables.layout(messages.SetTensor)] == ["0", "296", "304"]
    assert LAYOUT["SetTensor"]["fields"]["data"]["offset"] == 304


def read(structure: str, payload: bytes, at: int = 0) -> dict[str, Any]:
    """Read a record by the compiler's offsets: integers, lists of them, bytes as hexadecimal, records as dictionaries."""
    return {name: read_field(structure, name, payload, at) for name in LAYOUT[structure]["fields"]}


def read_field(structure: str, name: str, payload: bytes, at: int) -> Any:
    place = LAYOUT[structure]["fields"][name]
    start, size = at + place["offset"], place["size"]
    if name in ("tensor", "src", "dst") and size == 296:
        return read("Tensor", payload, start)
    if name == "srcs":
        return [read("Tensor", payload, start + 296 * slot) for slot in range(10)]
    if name in ("name", "padding"):
        return payload[start : start + size].hex()
    width = {"ne": 4, "nb": 4, "op_params": 4, "src": 8}.get(name, size)
    signed = name in ("op_params", "flags")
    cells = range(start, start + size, width)
    numbers = [int.from_bytes(payload[cell : cell + width], "little", signed=signed) for cell in cells]
    return numbers if name in ("ne", "nb", "op_params", "src") else numbers[0]


WITHOUT_PAYLOAD = {"HELLO", "DEVICE_COUNT"}


@pytest.mark.parametrize("command", sorted({frame["command"] for frame in FRAMES}))
def test_captured_bytes_lie_where_the_compiler_says(command: str) -> None:
    """Requests of each kind: what stands at the offsets is what the recorder's client was told to send."""
    frames = [frame for frame in FRAMES if frame["command"] == command]
    name = "".join(word.capitalize() for word in command.split("_"))
    for frame in frames:
        payload, fields = bytes.fromhex(frame.get("payload", frame.get("payload_start", ""))), frame["fields"]
        if command == "GRAPH_COMPUTE":
            n_nodes, at = len(fields["nodes"]), 12 + 8 * len(fields["nodes"])
            assert int.from_bytes(payload[4:8], "little") == n_nodes
            tensors = [read("Tensor", payload, at + 296 * index) for index in range(len(fields["tensors"]))]
            assert tensors == fields["tensors"]
            assert len(payload) == at + 296 * len(tensors)
        elif command not in WITHOUT_PAYLOAD:
            known = {field: value for field, value in fields.items() if field != "data"}
            assert {field: read_field(name, field, payload, 0) for field in known} == known
            assert name == "SetTensor" or len(payload) == LAYOUT[name]["size"]
        if frame["reply"] and f"{name}Reply" in LAYOUT:
            assert read(f"{name}Reply", bytes.fromhex(frame["reply"]["payload"])) == frame["reply"]["fields"]


@pytest.mark.parametrize("compiler", [["gcc", "-std=c11", "-xc"], ["g++", "-std=c++17", "-xc++"]], ids=["c", "c++"])
def test_the_header_compiles_to_the_witness(compiler: list[str], tmp_path: Path) -> None:
    requirements.compiler(compiler[0])
    names = {"Tensor": "rpc_tensor"}
    checks = ["#include <stddef.h>", '#include "rpc.h"']
    for structure in RECORDS:
        snake = re.sub("(?<!^)(?=[A-Z])", "_", structure.removesuffix("Reply")).lower()
        name = names.get(structure, f"rpc_{snake}_{'reply' if structure.endswith('Reply') else 'request'}")
        rows = LAYOUT[structure]["fields"].items()
        fixed = [row for row in rows if structure != "GraphCompute" or row[0] == "device"]
        checks += [
            f'static_assert(offsetof(struct {name}, {field}) == {place["offset"]}, "{name}.{field}");'
            for field, place in fixed
            if (structure, field) != ("SetTensor", "data")
        ]
    assert len(checks) == 55
    checks += ['static_assert(RPC_CMD_GRAPH_RECOMPUTE == 16 && GGML_TYPE_NVFP4 == 40 && GGML_OP_GLU == 95, "numbers");', ""]
    (tmp_path / "rpc.h").write_text(derive.header())
    (tmp_path / "check.c").write_text("\n".join(checks))
    subprocess.run([*compiler, "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "check.c"], cwd=tmp_path, check=True)


# ----------------------------------------------------------------------------------------------------------- operations


def test_every_op_of_3_6_1_has_a_section_in_order() -> None:
    text = operations.operations()
    headings = re.findall(r"^### (\w+)\n\nOp (\d+)[:.]", text, re.MULTILINE)
    assert [int(number) for _, number in headings] == list(range(96))
    assert (headings[29][0], headings[86][0], headings[95][0]) == ("MUL_MAT", "UNARY", "GLU")


def test_as_many_cases_are_recorded_as_a_section_says() -> None:
    said = re.findall(r"^Witness: (\d+) cases in \[(\w+\.json)\]", operations.operations(), re.MULTILINE)
    recorded = {name: len(json.loads((UPSTREAM / "ops" / name).read_text())["cases"]) for _, name in said}
    assert {name: int(count) for count, name in said} == recorded
    assert len(said) == 92  # all but the four custom ops


def test_no_section_refers_readers_to_python() -> None:
    text = operations.operations() + operations.shared()
    assert re.findall(r"`[a-z_]+\.[A-Za-z_]+`|\b[a-z_]+\.py\b|`[A-Z_]{3,}`", text) == []


def test_types_are_named_in_groups() -> None:
    assert operations.type_names(("F16", "F32")) == "F32, F16"
    assert operations.type_names(operations.ANY) == "any type"
    assert operations.type_names(("F32", *operations.READABLE_BLOCKS, "Q8_1")) == "F32, Q8_1, readable block types"
    assert operations.type_names(("I32", *operations.WRITABLE_BLOCKS)) == "I32, writable block types"


def test_the_support_matrix_has_a_row_per_op_and_every_type() -> None:
    lines = operations.support_matrix().split("\n")
    assert len(lines) == 2 + 96
    head = re.split(r"<br>| \| ", lines[0])
    assert {"F32", "Q4_0", "NVFP4", "I64"} <= set(head)
    assert not {"Q1_0", "Q2_0"} & set(head)
    row = next(line for line in lines if line.startswith("| [GET_ROWS]"))
    cells = dict(zip(lines[0].split(" | "), row.split(" | "), strict=True))
    assert (cells["F32"], cells["F16"]) == ("0 d", "0")


def test_grids_are_ascending_and_complete() -> None:
    """As upstream lists them: ascending numbers, so that a wrong digit order would show."""
    lists = re.findall(r"```text\n(.*?)\n```", operations.grids(), re.DOTALL)
    numbers = [[int(word) for word in text.split()] for text in lists]
    assert [len(grid) for grid in numbers] == [256, 512, 1024, 256, 512, 2048]
    assert all(a < b for grid in numbers for a, b in pairwise(grid))
    assert numbers[0][:2] == [0, 2]  # iq2xxs_grid begins 0x0808080808080808, 0x080808080808082b


# ------------------------------------------------------------------------------------------------------------- markdown


@pytest.mark.parametrize(
    ("plain", "shown"),
    [
        ("r2*b2, r3*b3", r"r2\*b2, r3\*b3"),
        ("x < 0, _f16 and freq_base", r"x \< 0, \_f16 and freq_base"),
        ("`a*b` c*d", r"`a*b` c\*d"),
        ("src[0]", r"src\[0\]"),
    ],
)
def test_escape(plain: str, shown: str) -> None:
    assert markdown.escape(plain) == shown


def test_prose_joins_lines_and_keeps_what_is_indented() -> None:
    text = "A sentence\n+ 1 more.\n\n    dst = a * b\n      c\n\nEnd."
    assert markdown.prose(text) == "A sentence + 1 more.\n\n```text\ndst = a * b\n  c\n```\n\nEnd."


def test_table_keeps_bars_in_cells() -> None:
    assert markdown.table(("a", "b"), [("|x|", 1)]) == "| a | b |\n| --- | --- |\n| \\|x\\| | 1 |"
