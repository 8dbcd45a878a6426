"""The lint over vectors/: every file against its JSON Schema, ids that are unique and never vanish, one way to write JSON.

The schemas in vectors/schema/ are the documentation of the files. They are checked by jsonschema where it is installed (extra
`test`), else by `structural`. What no schema can say: the memories of the ops, which `operands` reads, the two forms of a session,
which `session` compares, and what `meaning` knows.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.vectors import meaning, operands, session
from ggml_rpc_ref.vectors.form import canonical
from ggml_rpc_ref.vectors.structural import structural

KINDS: Final = {
    "frames": "upstream-*/frames.json",
    "enums": "upstream-*/enums.json",
    "layout": "upstream-*/layout.json",
    "ops": "upstream-*/ops/*.json",
    "blocks": "upstream-*/blocks/[A-Z]*.json",
    "block_inputs": "upstream-*/blocks/inputs.json",
    "sessions": "upstream-*/sessions/*.json",
    "malformed": "handmade/malformed/*.json",
    "flags": "flags.json",
}
"""Kind, which is also the name of its schema, to where its files lie."""
IDS: Final = "ids.txt"
"""The list of every id that there has ever been, one "file id" a line; written by `vectors list`."""


def files(directory: Path) -> Iterator[tuple[str, Path]]:
    """Yield the kind and path of every vector file, in a fixed order.

    Raises:
        Misuse: where there is none.
    """
    found = [(kind, path) for kind, pattern in KINDS.items() for path in sorted(directory.glob(pattern))]
    if not found:
        raise Misuse(f"{directory} holds no vectors; run this where vectors/ lies, or name the directory")
    yield from found


def list_ids(directory: Path) -> list[str]:
    """Return "file id" of every vector, in the order of the files.

    Raises:
        Misuse: where there is none, or a file can't be read.
    """
    return [f"{path.relative_to(directory)} {name}" for kind, path in files(directory) for name in ids(kind, load(path))]


def load(path: Path) -> Any:
    """Return a file's JSON.

    Raises:
        Misuse: for what is no JSON, with the place.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Misuse(f"{path}: {error}") from None


def ids(kind: str, content: Any) -> list[str]:
    """Return the ids of the vectors in a file that its schema allows."""
    match kind:
        case "frames":
            rows = enumerate(content["connections"])
            return [f"{at}.{n}/{frame['command']}" for at, row in rows for n, frame in enumerate(row["frames"])]
        case "enums":
            return [f"{key}/{index}" for key in ("ops", "unary_ops", "glu_ops", "types") for index in range(len(content[key]))]
        case "layout":
            return list(content["structures"])
        case "ops" | "malformed":
            return [case["id"] for case in content["cases"]]
        case "sessions":
            return [content["id"]]
        case "flags":
            return list(content["flags"])
        case "block_inputs":
            return [case["case"] for case in content["cases"]]
    return ["type", *(f"{part}/{case['case']}" for part in ("dequantise", "quantise") for case in content.get(part, ()))]


# ------------------------------------------------------------------------------------------------------------ verifying


SPECIAL: Final[dict[str, Callable[[Path, Any], Iterator[str]]]] = {"ops": operands.faults, "sessions": session.faults}
"""Kind to what yields a sentence for each fault in one of its files, beside what the schema says."""


def verify(directory: Path) -> list[str]:
    """Return what is wrong with the vectors, one sentence each; nothing where all is well."""
    faults: list[str] = []
    present: list[str] = []
    sound: dict[str, tuple[str, Any]] = {}
    for kind, path in files(directory):
        where = str(path.relative_to(directory))
        try:
            content = load(path)
        except Misuse as error:
            faults.append(str(error))
            continue
        wrong = list(_check(directory / "schema" / f"{kind}.json")(content))
        faults += [f"{where}: {fault}" for fault in wrong]
        if not wrong:
            sound[where] = kind, content
            names = ids(kind, content)
            present += [f"{where} {name}" for name in names]
            faults += [f"{where}: the id {name!r} stands there twice" for name in dict.fromkeys(names) if names.count(name) > 1]
            faults += [f"{where}: {fault}" for fault in SPECIAL[kind](path, content)] if kind in SPECIAL else []
        if path.read_text(encoding="utf-8") != canonical(kind, content):
            faults.append(f"{where}: is not written as its recorder writes it (key order, spaces, escapes, last newline)")
    faults += [
        f"{path.relative_to(directory)} belongs to no vector"
        for pattern in (f"upstream-*/ops/*{operands.SUFFIX}", f"upstream-*/sessions/*{session.SUFFIX}")
        for path in sorted(directory.glob(pattern))
        if not path.with_suffix(".json").exists()
    ]
    return faults + list(meaning.faults(sound)) + _vanished(directory, present)


def _vanished(directory: Path, present: list[str]) -> list[str]:
    path = directory / IDS
    if not path.is_file():
        return [f"{path} is missing: write it with `ggml-rpc-ref vectors list`"]
    known = path.read_text(encoding="utf-8").splitlines()
    there = set(present)
    faults = [f"{IDS}: {line!r} is there no more, and ids never change" for line in known if line not in there]
    new = there - set(known)
    if new:
        faults.append(f"{IDS}: {len(new)} ids are new, the first {min(new)!r}: run `ggml-rpc-ref vectors list > {path}`")
    return faults


Check = Callable[[Any], Iterator[str]]


@cache
def _check(schema: Path) -> Check:
    """Return what checks a file's content against a schema, yielding a sentence for each fault."""
    rules = load(schema)
    try:
        validator = importlib.import_module("jsonschema").Draft202012Validator(rules)  # Any, with or without its types
    except ImportError:
        return lambda content: structural(content, rules, rules, "$")
    return lambda content: (f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(content))
