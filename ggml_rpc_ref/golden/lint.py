"""The lint of vectors/: every file follows its JSON Schema and its canonical form, and ids are unique and never vanish.

The schemas document the files, and `schemas` checks against them. What no schema can say is checked by `operands` (the memories of
the ops), `session` (the two forms of a session) and `semantics` (the rest).

A directory of vectors may come from a stranger: whatever is in it makes a fault with a sentence, nothing else.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ggml_rpc_ref.errors import Damaged, Misuse
from ggml_rpc_ref.golden import operands, schemas, semantics, session
from ggml_rpc_ref.golden.canonical import canonical

KINDS: Final = {
    "frames": ("upstream-*/frames.json", "handmade/*/frames.json"),
    "enums": ("upstream-*/enums.json",),
    "layout": ("upstream-*/layout.json",),
    "observed": ("upstream-*/observed.json",),
    "ops": ("upstream-*/ops/*.json",),
    "blocks": ("upstream-*/blocks/[A-Z]*.json",),
    "block_inputs": ("upstream-*/blocks/inputs.json",),
    "sessions": ("upstream-*/sessions/*.json", "handmade/*/sessions/*.json"),
    "malformed": ("handmade/malformed/**/*.json",),
    "flags": ("flags.json",),
}
"""Kind, which is also the name of its schema, to where its files lie."""
JSON, SCHEMA = "vector.json", "vector.schema"
"""Ids of the rules for files."""
IDS: Final = "ids.txt"
"""The list of every id that there has ever been, one "file id" a line; written by `vectors list`."""
MALFORMED: Final = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
"""What reading a file may raise that its schema allows, but that no program of this project writes."""


def files(directory: Path) -> Iterator[tuple[str, Path]]:
    """Yield the kind and path of every vector file, in a fixed order.

    Args:
        directory: that of the vectors; or one that the fuzzer has written finds to, or one file.

    Raises:
        Misuse: if there is none.
    """
    places = [(kind, pattern) for kind, patterns in KINDS.items() for pattern in patterns]
    if directory.is_file():
        # one that lies where no vectors do is a conversation, as the fuzzer and `vectors record` write them
        yield next((kind for kind, pattern in places if directory.resolve().match(pattern)), "sessions"), directory
        return
    found = [(kind, path) for kind, pattern in places for path in sorted(directory.glob(pattern))]
    found = found or [("sessions", path) for path in sorted(directory.glob("*.json"))]
    if not found:
        raise Misuse(f"{directory} holds no vectors; run this where vectors/ lies, or name the directory")
    yield from found


def list_ids(directory: Path) -> Iterator[str]:
    """Yield "file id" of every vector, in the order of the files.

    Raises:
        Misuse: if there is none, or if a file can't be read or is damaged.
    """
    for kind, path in files(directory):
        content = following(kind, path)
        with reading(path):
            yield from [f"{path.relative_to(directory) if path != directory else path.name} {name}" for name in ids(kind, content)]


def load(path: Path) -> Any:
    """Return a file's JSON.

    Raises:
        Damaged: if it is not JSON, with the offset of the error.
        Misuse: if it can't be read.
    """
    if path.exists() and not path.is_file():
        raise Misuse(f"can't read {path}: it is not a file")  # a device or a pipe may have no end
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misuse(f"can't read {path}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise Damaged(path, len(error.doc[: error.pos].encode()), "JSON", f"breaks off or is not JSON: {error.msg}", JSON) from None
    except UnicodeDecodeError as error:
        raise Damaged(path, error.start, "JSON", f"is not UTF-8: {error.reason}", JSON) from None
    except (RecursionError, ValueError) as error:  # endless brackets or digits
        raise Damaged(path, None, "JSON", f"can't be read: {type(error).__name__}", JSON) from None


def following(kind: str, path: Path) -> Any:
    """Return the JSON of a file that follows the schema of its kind.

    Raises:
        Damaged: if it does not, with the first fault.
        Misuse: if it can't be read.
    """
    content = load(path)
    with reading(path):
        for fault in schemas.faults(kind, content):
            raise Damaged(path, None, "JSON", f"has a fault: {fault}", SCHEMA)
    return content


def playable(kind: str, path: Path) -> Any:
    """Return the JSON of a file that follows its schema and whose conversations or operands make sense; raises as `following`."""
    content = following(kind, path)
    with reading(path):
        wrong = operands.faults(path, content) if kind == "ops" else semantics.conversations(kind, path.stem, content)
        for fault in wrong:
            raise Damaged(path, None, "JSON", f"has a fault: {fault}", SCHEMA)
    return content


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever malformed content raises into Damaged."""
    try:
        yield
    except MALFORMED as error:
        raise Damaged(path, None, "JSON", f"can't be followed: {type(error).__name__}: {str(error)[:80]}", SCHEMA) from None


def ids(kind: str, content: Any) -> list[str]:
    """Return the ids of the vectors in a file that follows its schema."""
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
        case "observed":
            return list(content["rules"])
        case "block_inputs":
            return [case["case"] for case in content["cases"]]
    return ["type", *(f"{part}/{case['case']}" for part in ("dequantise", "quantise") for case in content.get(part, ()))]


# ------------------------------------------------------------------------------------------------------------ verifying


SPECIAL: Final[dict[str, Callable[[Path, Any], Iterator[str]]]] = {
    "ops": operands.faults,
    "sessions": session.faults,
    "observed": semantics.observed,
}
"""Kind to the function that yields the faults in one of its files that no schema sees."""


def verify(directory: Path) -> list[str]:
    """Return what is wrong with the vectors, one sentence for each fault.

    Raises:
        Misuse: if there is none, or where jsonschema-rs is not installed.
    """
    schemas.require()
    loose = is_loose(directory)
    root = directory.parent if directory.is_file() else directory
    faults: list[str] = []
    present: list[str] = []
    contents: semantics.Contents = {}
    for kind, path in files(directory):
        where = str(path.relative_to(root))
        try:
            with reading(path):
                content = load(path)
                wrong = list(schemas.faults(kind, content))
                if not wrong:
                    names = ids(kind, content)
                    wrong = list(_beyond_schema(kind, path, content, names))
                    contents[where] = kind, content
                    present += [f"{where} {name}" for name in names]
                faults += [f"{where}: {fault}" for fault in wrong]
                if path.read_text(encoding="utf-8") != canonical(kind, content):
                    faults.append(f"{where}: is not written as its recorder writes it (key order, spaces, escapes, last newline)")
        except Misuse as error:
            faults.append(str(error))
    if loose:
        return faults
    faults += [
        f"{path.relative_to(directory)} belongs to no vector"
        for pattern in (f"upstream-*/ops/*{operands.SUFFIX}", f"upstream-*/sessions/*{session.SUFFIX}")
        for path in sorted(directory.glob(pattern))
        if not path.with_suffix(".json").exists()
    ]
    try:
        with reading(directory):
            faults += [*semantics.flags(contents), *_vanished(directory, present)]
    except Misuse as error:
        faults.append(str(error))
    return faults


def is_loose(directory: Path) -> bool:
    """Whether this is one file, or conversations lie there by themselves, as finds do: without a list of ids and flags."""
    return directory.is_file() or all(
        kind == "sessions" and path.parent in (directory, directory.parent) for kind, path in files(directory)
    )


def _beyond_schema(kind: str, path: Path, content: Any, names: list[str]) -> Iterator[str]:
    """Yield what is wrong with a file that follows its schema."""
    yield from (f"the id {name!r} occurs twice" for name, times in Counter(names).items() if times > 1)
    yield from SPECIAL[kind](path, content) if kind in SPECIAL else ()
    yield from semantics.conversations(kind, path.stem, content)


def _vanished(directory: Path, present: list[str]) -> list[str]:
    path = directory / IDS
    if not path.is_file():
        return [f"{path} is missing: write it with `ggml-rpc-ref vectors list`"]
    known = path.read_text(encoding="utf-8").splitlines()
    there = set(present)
    faults = [f"{IDS}: {line!r} is gone, and ids never change" for line in known if line not in there]
    new = there - set(known)
    if new:
        faults.append(f"{IDS}: {len(new)} ids are new, the first {min(new)!r}: run `ggml-rpc-ref vectors list > {path}`")
    return faults
