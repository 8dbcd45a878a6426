"""The golden vectors' own rules, the check of them, and the consumers in vectors/README.md, run as they stand there."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ggml_rpc_ref import golden as vectors
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.golden import play, schemas
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.server import Server
from tests.support import requirements
from tests.support.command import run_command

HERE = Path(__file__).parent.parent / "vectors"
UPSTREAM = HERE / "upstream-3.6.1-llama-cpp-python-0.3.20"
ONE_OF_EACH = {
    "frames": "frames.json", "enums": "enums.json", "layout": "layout.json", "ops": "ops/set_rows.json",
    "blocks": "blocks/Q8_K.json", "block_inputs": "blocks/inputs.json", "sessions": "sessions/parts.json",
    "observed": "observed.json",
}  # fmt: skip


def test_every_vector_follows_its_rules() -> None:
    assert vectors.verify(HERE) == []


def test_no_id_has_vanished_with_its_line() -> None:
    """The lint sees an id vanish that ids.txt still has; who takes both away meets this number, which only ever grows."""
    assert len((HERE / "ids.txt").read_text().splitlines()) == 9083


def test_every_file_has_a_kind() -> None:
    known = {path for _, path in vectors.files(HERE)}
    assert set(HERE.glob("**/*.json")) - set(HERE.glob("schema/*")) == known
    assert {path.stem for path in (HERE / "schema").glob("*.json")} == set(vectors.KINDS)


@pytest.mark.parametrize("kind", list(vectors.KINDS))
def test_a_file_alone_is_of_its_kind(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = next(path for found, path in vectors.files(HERE) if found == kind)
    assert list(vectors.files(path)) == [(kind, path)]
    assert vectors.verify(path) == []
    monkeypatch.chdir(path.parent)  # also by its bare name
    assert list(vectors.files(Path(path.name))) == [(kind, Path(path.name))]


def test_the_size_in_git_is_bounded() -> None:
    caches = {"__pycache__", ".mypy_cache", ".ruff_cache"}  # of tools that were run there; git ignores them
    files = [path for path in HERE.rglob("*") if path.is_file() and not caches & set(path.parts)]
    assert sum(path.stat().st_size for path in files) < 40 * 10**6


@pytest.mark.parametrize("kind", list(vectors.KINDS))
def test_schemas_are_schemas_and_describe_every_field(kind: str) -> None:
    schema = vectors.load(HERE / "schema" / f"{kind}.json")
    jsonschema.Draft202012Validator.check_schema(schema)
    closed = [part for part in walk(schema) if part.get("type") == "object" and "properties" in part]
    assert closed
    assert all("additionalProperties" in part for part in closed), "unknown fields are refused"


def walk(value: Any) -> list[dict[str, Any]]:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return ([value] if isinstance(value, dict) else []) + [part for entry in below for part in walk(entry)]


# ---------------------------------------------------------------------------------------------------------- seeing it bite


def change(path: str, value: Any) -> Callable[[Any], None]:
    """Return what sets a path like "cases.0.id" of a JSON value."""

    def apply(content: Any) -> None:
        *way, last = path.split(".")
        for step in way:
            content = content[int(step) if isinstance(content, list) else step]
        content[int(last) if isinstance(content, list) else last] = value

    return apply


SPOILT = [
    ("frames", "connections.0.frames.0.extra", 1),
    ("frames", "connections.0.frames.0.payload", "0"),
    ("frames", "connections.0.frames.0.command", "HALLO"),
    ("frames", "connections.0.frames.0.number", 13),
    ("frames", "connections.0.frames.0.reply", None),
    ("frames", "connections.0.frames.0.reply.fields.minor", -1),
    ("frames", "connections.0.frames.0.sha256", "x"),
    ("frames", "connections", []),
    ("enums", "ops.1", "NONE"),
    ("enums", "types.0.quantised", 1),
    ("enums", "schema_version", 2),
    ("layout", "structures.Tensor.size", "296"),
    ("layout", "structures.Tensor.fields.id.width", 8),
    ("ops", "cases.0.op_params", "00"),
    ("ops", "cases.0.src.0.ne", [1, 2, 3]),
    ("ops", "cases.0.src.0", 1),
    ("ops", "cases.0.expected", {}),
    ("ops", "cases.0.expected.dest", "AAAA"),
    ("ops", "cases.1.src.0.payload", {"at": 0}),
    ("ops", "cases.1.src.0.payload", {"at": -1, "size": 1}),
    ("ops", "cases.0.tolerance", {"rtol": 0}),
    ("ops", "tolerance.atol", True),
    ("blocks", "dequantise.0.blocks", "!"),
    ("blocks", "bytes_per_block", 0),
    ("blocks", "quantise.0.case", None),
    ("block_inputs", "bulk.sha256", "00"),
    ("observed", "protocol", "3.6"),
    ("observed", "build", ""),
    ("observed", "rules", {}),
    ("observed", "rules.frame-x", ""),
    ("observed", "rules.Frame", "closes"),
    ("observed", "extra", 1),
    ("sessions", "id", "Parts"),
    ("sessions", "protocol", "3.6"),
    ("sessions", "provenance.sha256", "00"),
    ("sessions", "bindings.buf0", {"by": "nobody"}),
    ("sessions", "steps", []),
    ("sessions", "steps.0.connection", 0),
    ("sessions", "steps.0.send", ["0"]),
    ("sessions", "steps.0.receive", ["00"]),
    ("sessions", "steps.0.send.0", {"any": "00"}),
    ("sessions", "steps.0.send.0", {"repeat": "00", "times": 0}),
    ("sessions", "steps.0.connection", 1.0),  # an integer in the words of JSON Schema
    ("sessions", "steps.1.receive.0", {"at_least": 1, "width": 2}),
    ("sessions", "steps.1.receive.0", {"values": "00000000", "type": "I32", "nmse": 0}),
    ("sessions", "steps.1.receive.0", "${Buf0}"),
]


@pytest.mark.parametrize(("kind", "path", "value"), SPOILT, ids=[f"{kind}: {path}={value}" for kind, path, value in SPOILT])
def test_schemas_see_what_is_wrong(kind: str, path: str, value: Any) -> None:
    content = vectors.load(UPSTREAM / ONE_OF_EACH[kind])
    assert not list(schemas.faults(kind, content))
    change(path, value)(content)
    assert list(schemas.faults(kind, content))


def test_a_schemas_sentences_are_short_and_plain() -> None:
    content = vectors.load(UPSTREAM / "frames.json")
    content["\x1b[2J"] = 1
    content["connections"] = "\x1b[2J" * 10**5
    found = list(schemas.faults("frames", content))
    assert len(found) == 2
    assert all(sentence.isprintable() and len(sentence) < 200 for sentence in found), found


def test_an_interrupt_is_no_fault_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library makes a fault of whatever our keyword raises, and Ctrl-C may come while it is asked."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(schemas._AsWritten, "validate", interrupted)
    kind, content = "frames", json.loads((UPSTREAM / "frames.json").read_text())
    with pytest.raises(KeyboardInterrupt):
        list(schemas.faults(kind, content))


def test_the_package_carries_the_schemas_and_observations() -> None:
    """As files: where a link is a text file with a path in it, or is not unpacked, the package would be without them."""
    package = Path(schemas.__file__).parents[1]
    originals = {package / "golden" / "schema" / path.name: path for path in (HERE / "schema").iterdir()}
    originals |= {
        package / "spec" / "observed" / f"{path.parent.name}.json": path for path in HERE.glob("upstream-*/observed.json")
    }
    for copy, original in originals.items():
        assert copy.read_bytes() == original.read_bytes()
    there = [path for folder in ("golden/schema", "spec/observed") for path in (package / folder).glob("*.json")]
    assert set(there) == set(originals)
    assert not [path for path in package.rglob("*") if path.is_symlink()]


def test_without_jsonschema_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    schemas._validator.cache_clear()
    with pytest.raises(Misuse, match=r"not installed here: pip install 'ggml-rpc-ref\[vectors\]'"):
        vectors.verify(HERE)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A directory with one file of each kind, in order."""
    for name in ONE_OF_EACH.values():
        target = tmp_path / UPSTREAM.name / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(UPSTREAM / name, target)
    for name in ("ops/set_rows.inputs", "sessions/parts.recording"):
        shutil.copy(UPSTREAM / name, tmp_path / UPSTREAM.name / name)
    flags = vectors.load(HERE / "flags.json")
    flags["flags"] = {"several-connections": flags["flags"]["several-connections"]}
    (tmp_path / "flags.json").write_text(vectors.canonical("flags", flags))
    (tmp_path / "ids.txt").write_text("".join(f"{line}\n" for line in vectors.list_ids(tmp_path)))
    assert vectors.verify(tmp_path) == []
    return tmp_path


def edit(path: Path, replace: Callable[[str], str]) -> None:
    text = path.read_text(encoding="utf-8")
    assert replace(text) != text
    path.write_text(replace(text), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "replace", "fault"),
    [
        ("ops/set_rows.json", lambda t: t.replace('"id": "f16"', '"id": "f32"', 1), "the id 'f32' occurs twice"),
        ("ops/set_rows.json", lambda t: t.replace('"id": "f16"', '"id": "f16-new"', 1), "set_rows.json f16' is gone"),
        ("ops/set_rows.json", lambda t: t.replace('"id": "f16"', '"id": "f16-new"', 1), "1 ids are new"),
        ("enums.json", lambda t: t + "\n", "is not written as its recorder writes it"),
        ("frames.json", lambda t: t.replace(",", ", ", 1), "is not written as its recorder writes it"),
        ("layout.json", lambda t: t[:-10], "layout.json at offset 5313 is damaged: JSON breaks off or is not JSON: Expecting"),
        ("blocks/Q8_K.json", lambda t: t.replace('"number"', '"nummer"', 1), "nummer"),
        ("observed.json", lambda t: t.replace('"frame.size-fixed"', '"frame.size-exact"'),
         "the rule 'frame.size-exact' does not exist"),
        ("observed.json", lambda t: t.replace('"frame.size-fixed"', '"frame.size-exact"'),
         "it does not say what the build does about 'frame.size-fixed'"),
        ("observed.json", lambda t: t.replace('"3.6.1"', '"3.6.2"'),
         "it is about protocol 3.6.2, its directory is upstream-3.6.1-"),
    ],
    ids=["twice", "gone", "new", "newline", "spaces", "truncated", "field", "no such rule", "rule left out", "other protocol"],
)  # fmt: skip
def test_faults_have_a_sentence(small: Path, file: str, replace: Callable[[str], str], fault: str) -> None:
    edit(small / UPSTREAM.name / file, replace)
    assert any(fault in sentence for sentence in vectors.verify(small))


def payload_operand(content: Any, number: int) -> Any:
    """The operand that has the payload of that number in an op's file."""
    operands = [o for case in content["cases"] for o in (case["dst"], *case["src"]) if o is not None and "payload" in o]
    return operands[number]


def without(field: str) -> Callable[[Any], None]:
    return lambda content: payload_operand(content, 0).pop(field)


def bytes_instead(content: Any) -> None:
    operand = payload_operand(content, 0)
    operand["bytes"] = base64.b64encode(b"12345678").decode()
    del operand["payload"]


def shorter(content: Any) -> None:
    case = content["cases"][0]
    (name,) = case["expected"]
    case["expected"][name] = base64.b64encode(zlib.compress(b"1234")).decode()


def elsewhere(content: Any) -> None:
    case = content["cases"][0]
    case["expected"] = {"src9": next(iter(case["expected"].values()))}


SPOILT_INPUTS: dict[str, tuple[Callable[[Any], None], Callable[[bytes], bytes], str]] = {
    "file truncated": (lambda _: None, lambda data: data[:-1], "but the file of inputs ends at"),
    "file longer": (lambda _: None, lambda data: data + b"x", "the payloads end at"),
    "a bit flipped": (lambda _: None, lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:], "zlib stream"),
    "no zlib": (lambda _: None, lambda data: bytes(2) + data[2:], "is not a zlib stream: "),
    "stream too short": (lambda c: change("payload.size", payload_operand(c, 0)["payload"]["size"] - 9)(payload_operand(c, 0)),
                         lambda data: data, "is a zlib stream that breaks off after"),
    "stream too long": (lambda c: change("payload.size", payload_operand(c, 0)["payload"]["size"] + 9)(payload_operand(c, 0)),
                        lambda data: data, "has 9 bytes after the end of its zlib stream"),
    "another stream": (lambda c: change("payload", payload_operand(c, 1)["payload"])(payload_operand(c, 0)),
                       lambda data: data, "has its payload at"),
    "other bytes": (lambda c: change("sha256", 64 * "0")(payload_operand(c, 0)),
                    lambda data: data, "does not match its sha256"),
    "other dimensions": (lambda c: change("ne.0", 5000)(payload_operand(c, 0)), lambda data: data, "its type, ne and nb make"),
    "fewer dimensions": (lambda c: change("ne.0", 1)(payload_operand(c, 0)), lambda data: data, "unpacks to more than the"),
    "neither bytes nor payload": (without("payload"), lambda data: data, "has neither bytes nor payload"),
    "other literal bytes": (bytes_instead, lambda data: data, "holds 8 bytes, its type, ne and nb make"),
    "a short result": (shorter, lambda data: data, "is expected to hold 4 bytes"),
    "a result elsewhere": (elsewhere, lambda data: data, "src9 is expected to change and owns no memory"),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILT_INPUTS)
def test_faults_of_inputs_have_a_sentence(small: Path, what: str) -> None:
    spoil, damage, fault = SPOILT_INPUTS[what]
    path = small / UPSTREAM.name / "ops" / "set_rows.json"
    content = vectors.load(path)
    spoil(content)
    path.write_text(vectors.canonical("ops", content))
    inputs = path.with_suffix(".inputs")
    inputs.write_bytes(damage(inputs.read_bytes()))
    said = vectors.verify(small)
    assert any(fault in sentence for sentence in said), said
    assert all(sentence.startswith(f"{UPSTREAM.name}/ops/set_rows.json: ") for sentence in said)


def test_inputs_that_belong_to_nothing(small: Path) -> None:
    (small / UPSTREAM.name / "ops" / "mul.inputs").write_bytes(b"")
    assert vectors.verify(small) == [f"{UPSTREAM.name}/ops/mul.inputs belongs to no vector"]


def test_inputs_that_are_gone(small: Path) -> None:
    (small / UPSTREAM.name / "ops" / "set_rows.inputs").unlink()
    assert all("but the file of inputs ends at 0" in sentence for sentence in vectors.verify(small)[:-1])


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command("vectors", *arguments)


def json_text(text: str) -> Callable[[Path], Any]:
    return lambda directory: (directory / SESSION).write_text(text)


def session_with(path: str, value: Any) -> Callable[[Path], Any]:
    def harm(directory: Path) -> None:
        content = vectors.load(directory / SESSION)
        change(path, value)(content)
        (directory / SESSION).write_text(vectors.canonical("sessions", content))

    return harm


def op_with(path: str, value: Any) -> Callable[[Path], Any]:
    def harm(directory: Path) -> None:
        content = vectors.load(directory / OP)
        change(path, value)(content)
        (directory / OP).write_text(vectors.canonical("ops", content))

    return harm


def device_instead(directory: Path) -> None:
    (directory / SESSION).unlink()
    (directory / SESSION).symlink_to("/dev/null")  # not /dev/zero, which would fill the memory where this fails


SESSION, OP = f"{UPSTREAM.name}/sessions/parts.json", f"{UPSTREAM.name}/ops/set_rows.json"
STRANGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no JSON": (json_text("{"), "at offset 1 is damaged: JSON breaks off or is not JSON"),
    "brackets without end": (json_text("[" * 10**5), "JSON can't be read: RecursionError [vector.json]"),
    "digits without end": (json_text("9" * 10**5), "JSON can't be read: ValueError [vector.json]"),
    "not UTF-8": (lambda directory: (directory / SESSION).write_bytes(b'"\xff"'), "at offset 1 is damaged: JSON is not UTF-8"),
    "no object": (json_text("null"), 'is not of type "object"'),
    "a device": (device_instead, "it is not a file"),
    "a field": (session_with("id", 5), '$.id: 5 is not of type "string"'),
    "many bytes": (
        session_with("steps.0.send", [{"repeat": "00", "times": 10**12}]),
        "step 1 has 1e+12 bytes, more than 268435456",
    ),
    "nothing very often": (session_with("steps.0.send", [{"repeat": "", "times": 10**18}]), "is not a piece of a message"),
    "an offset of many digits": (session_with("steps.0.send", ["${buf0.base}+" + 5000 * "9"]), "can't be followed: ValueError"),
    "control characters": (session_with("about", "\x1b[2J"), "has control characters"),
    "odd bytes of numbers": (
        session_with("steps.1.receive", [{"values": "00", "type": "F32", "nmse": 1}]),
        "are not whole numbers of their",
    ),
    "a count that is no integer": (
        session_with("steps.0.send", [{"repeat": "00", "times": 2.0}]),
        "$.steps[0]: ",
    ),
    "an unknown type": (op_with("cases.0.dst.type", "F33"), "dst has the type 'F33', which is unknown"),
    "a huge operand": (op_with("cases.0.dst.ne", [2**31, 2**31, 1, 1]), "reaches over"),
    "an alias of nothing": (op_with("cases.0.src.0.alias", "src9"), "src0 has the alias 'src9', which owns no memory"),
    "beyond its memory": (op_with("cases.0.src.0.offset", 2**40), "src0 reaches beyond its memory"),
}


@pytest.mark.parametrize("what", STRANGE)
def test_strangers_files_have_a_sentence_whoever_reads_them(small: Path, what: str) -> None:
    harm, words = STRANGE[what]
    harm(small)
    assert any(words in sentence for sentence in vectors.verify(small)), vectors.verify(small)
    with pytest.raises(Misuse, match=re.escape(words)):
        list(play.cases(small, {}))


STRANGERS_SCHEMAS = {
    "a pattern without end": {"properties": {"about": {"pattern": "^(.+)+$(?!.)(?=x)"}}},
    "nothing is allowed": False,
    "no schema": 5,
    "of itself": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
}


@pytest.mark.parametrize("what", STRANGERS_SCHEMAS)
def test_a_strangers_schemas_are_not_read(small: Path, what: str) -> None:
    (small / "schema").mkdir()
    for kind in vectors.KINDS:
        (small / "schema" / f"{kind}.json").write_text(json.dumps(STRANGERS_SCHEMAS[what]))
    assert vectors.verify(small) == []


def test_nothing_is_fetched_for_a_schema(small: Path) -> None:
    (small / "schema").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        elsewhere = json.dumps({"$ref": f"http://127.0.0.1:{listener.getsockname()[1]}/"})
        (small / "schema" / "sessions.json").write_text(elsewhere)
        assert vectors.verify(small) == []
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_damaged_vector_ends_the_commands_with_1(small: Path) -> None:
    json_text("{")(small)
    for arguments in (("list", str(small)), ("verify", str(small)), ("play", "--directory", str(small))):
        ran = command(*arguments)
        assert (ran.returncode, "parts.json at offset 1 is damaged" in ran.stderr, "Traceback" in ran.stderr) == (1, True, False)
    assert f"{UPSTREAM.name}/frames.json 0.0/HELLO" in command("list", str(small)).stdout, "what comes before is listed"


def test_a_list_of_ids_that_is_no_text(small: Path) -> None:
    (small / "ids.txt").write_bytes(b"\xff")
    assert any("can't be followed: UnicodeDecodeError" in sentence for sentence in vectors.verify(small))


def test_a_recording_that_is_none_and_has_no_end(small: Path) -> None:
    recording = small / UPSTREAM.name / "sessions" / "parts.recording"
    recording.unlink()
    os.mkfifo(recording)
    assert f"{SESSION}: the recording parts.recording is not there" in vectors.verify(small)


def test_no_vectors_at_all(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="holds no vectors"):
        vectors.verify(tmp_path)


@pytest.mark.parametrize(("spoil", "code", "words"), [(False, 0, "0 faults in 9 files"), (True, 1, "1 faults in 9 files")])
def test_the_command(small: Path, spoil: bool, code: int, words: str) -> None:
    if spoil:
        edit(small / UPSTREAM.name / "enums.json", lambda text: text + "\n")
    ran = command("verify", str(small))
    assert (ran.returncode, words in ran.stderr, "Traceback" in ran.stderr) == (code, True, False)


def test_the_command_lists_ids(small: Path) -> None:
    ran = command("list", str(small))
    assert (ran.returncode, ran.stdout) == (0, (small / "ids.txt").read_text())


# --------------------------------------------------------------------------------------------------------------- consumers


def block(language: str, number: int = 0) -> str:
    """Return the README's block of code in a language, the first or a later one."""
    return str(re.findall(rf"```{language}\n(.*?)```", (HERE / "README.md").read_text(encoding="utf-8"), re.S)[number])


def leaves(value: Any) -> int:
    """How many numbers and strings a JSON value holds."""
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 1 if below is None else sum(map(leaves, below))


def broken_frames(tmp_path: Path) -> Path:
    """A copy of the witness in which one tensor's data address is another."""
    shutil.copy(UPSTREAM / "layout.json", tmp_path)
    content = json.loads((UPSTREAM / "frames.json").read_text())
    frame = next(f for row in content["connections"] for f in row["frames"] if f["command"] == "SET_TENSOR")
    frame["fields"]["tensor"]["data"] += 1
    (tmp_path / "frames.json").write_text(vectors.canonical("frames", content))
    return tmp_path


def test_the_consumer_in_python_is_short_runs_and_sees_a_fault(tmp_path: Path) -> None:
    script = tmp_path / "consumer.py"
    script.write_text(block("python", 2))
    assert len([line for line in block("python", 2).splitlines() if line.strip()]) < 40
    good = subprocess.run([sys.executable, "-I", str(script), str(UPSTREAM)], capture_output=True, text=True)
    assert good.returncode == 0, good.stderr
    frames = [f for row in vectors.load(UPSTREAM / "frames.json")["connections"] for f in row["frames"]]
    read = [f for f in frames if f["command"] != "GRAPH_COMPUTE" and "payload" in f]
    assert len(read) == len(frames) - 2
    assert int(good.stdout.split()[0]) == sum(leaves(side["fields"]) for f in read for side in (f, f["reply"]) if side)
    bad = subprocess.run([sys.executable, "-I", str(script), str(broken_frames(tmp_path))], capture_output=True, text=True)
    assert bad.returncode == 1
    assert "AssertionError: data:" in bad.stderr


def test_the_consumer_of_ops_is_short_runs_and_sees_a_fault(tmp_path: Path) -> None:
    script, ops = tmp_path / "consumer.py", tmp_path / "ops"
    script.write_text(block("python"))
    assert len([line for line in block("python").splitlines() if line.strip()]) < 40
    good = subprocess.run([sys.executable, "-I", str(script), str(UPSTREAM)], capture_output=True, text=True)
    cases = vectors.load(UPSTREAM / "ops" / "mul_mat.json")["cases"]
    plain = [case for case in cases if {operand["type"] for operand in case["src"]} == {"F32"} and "alias" not in case["dst"]]
    assert (good.returncode, good.stdout) == (0, f"{len(plain)} cases agree\n"), good.stderr
    assert len(plain) > 20
    ops.mkdir()
    content = vectors.load(UPSTREAM / "ops" / "mul_mat.json")
    case = next(case for case in content["cases"] if case["id"] == "f32-n5")
    case["expected"]["dst"] = other_numbers(case["expected"]["dst"])
    (ops / "mul_mat.json").write_text(vectors.canonical("ops", content))
    shutil.copy(UPSTREAM / "ops" / "mul_mat.inputs", ops)
    bad = subprocess.run([sys.executable, "-I", str(script), str(tmp_path)], capture_output=True, text=True)
    assert bad.returncode == 1
    assert re.fullmatch(r"AssertionError: f32-n5: \d+ elements are wrong", bad.stderr.splitlines()[-1])


def other_numbers(encoded: str) -> str:
    """A result whose first F32 is 1000 instead."""
    data = bytearray(zlib.decompress(base64.b64decode(encoded)))
    data[:4] = bytes.fromhex("00007a44")
    return base64.b64encode(zlib.compress(bytes(data))).decode()


def test_the_player_of_sessions_is_short_runs_and_sees_a_fault(tmp_path: Path) -> None:
    script, session = tmp_path / "player.py", tmp_path / "views.json"
    script.write_text(block("python", 1))
    assert len([line for line in block("python", 1).splitlines() if line.strip()]) < 40
    shutil.copy(UPSTREAM / "sessions" / "views.json", session)
    with Server(make_host("oracle,oracle", cache_dir=tmp_path / "cache")) as server:
        for path in (session, UPSTREAM / "sessions" / "hash-cache.json", UPSTREAM / "sessions" / "tiny-llama.json"):
            good = subprocess.run([sys.executable, "-I", script, path, server.endpoint], capture_output=True, text=True)
            assert (good.returncode, good.stdout) == (0, f"{len(vectors.load(path)['steps'])} steps taken\n"), good.stderr
        edit(session, lambda text: text.replace('"receive":["60000000000000000000', '"receive":["60000000000000000001', 1))
        bad = subprocess.run([sys.executable, "-I", script, session, server.endpoint], capture_output=True, text=True)
        assert (bad.returncode, "instead of 6000000000000000" in bad.stderr) == (1, True), bad.stderr


def test_the_consumer_in_c_runs_and_sees_a_fault(tmp_path: Path) -> None:
    compiler = requirements.compiler("gcc", "cc")
    source, program = tmp_path / "consumer.c", tmp_path / "consumer"
    source.write_text(block("c"))
    subprocess.run([compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", str(source), "-o", str(program)], check=True)
    good = subprocess.run([program, UPSTREAM / "frames.json"], capture_output=True, text=True)
    assert (good.returncode, good.stdout) == (0, "18 tensors agree\n"), good.stderr
    bad = subprocess.run([program, broken_frames(tmp_path) / "frames.json"], capture_output=True, text=True)
    assert bad.returncode == 1
    assert 'a tensor differs in: {"command":"SET_TENSOR"' in bad.stderr
