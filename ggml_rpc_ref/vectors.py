"""The lint over vectors/: every file against its JSON Schema, ids that are unique and never vanish, one way to write JSON.

The schemas in vectors/schema/ are the documentation of the files. They are checked by jsonschema where it is installed (extra
`test`), else by `structural`, which reads the keywords that our schemas use and refuses any other.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

from ggml_rpc_ref.errors import Misuse

KINDS: Final = {
    "frames": "upstream-*/frames.json",
    "enums": "upstream-*/enums.json",
    "layout": "upstream-*/layout.json",
    "ops": "upstream-*/ops/*.json",
    "blocks": "upstream-*/blocks/[A-Z]*.json",
    "block_inputs": "upstream-*/blocks/inputs.json",
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
        case "ops":
            return [case["id"] for case in content["cases"]]
        case "block_inputs":
            return [case["case"] for case in content["cases"]]
    return ["type", *(f"{part}/{case['case']}" for part in ("dequantise", "quantise") for case in content.get(part, ()))]


def canonical(kind: str, content: Any) -> str:
    """Return the text that a file with this content has; that of the recorders."""
    if kind == "frames":  # one line a message, since indented they fill 30,000 lines
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
        return text.replace('{"command"', '\n{"command"') + "\n"
    return json.dumps(content, indent=1) + "\n"


# ------------------------------------------------------------------------------------------------------------ verifying


def verify(directory: Path) -> list[str]:
    """Return what is wrong with the vectors, one sentence each; nothing where all is well."""
    faults: list[str] = []
    present: list[str] = []
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
            names = ids(kind, content)
            present += [f"{where} {name}" for name in names]
            faults += [f"{where}: the id {name!r} stands there twice" for name in dict.fromkeys(names) if names.count(name) > 1]
        if path.read_text(encoding="utf-8") != canonical(kind, content):
            faults.append(f"{where}: is not written as its recorder writes it (key order, spaces, escapes, last newline)")
    return faults + _vanished(directory, present)


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


DESCRIPTIONS: Final = frozenset({"$schema", "$defs", "title", "description"})
TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None),
}  # fmt: skip


def structural(content: Any, schema: Any, root: Any, at: str) -> Iterator[str]:
    """Check content against a schema of the keywords used here; yield a sentence for each fault.

    Args:
        content: any JSON value.
        schema: what it must follow.
        root: the whole schema, for its $defs.
        at: path of the content, "$" for all of it.

    Raises:
        Misuse: for a keyword that is not known here.
    """
    for keyword, value in schema.items():
        if keyword in DESCRIPTIONS or keyword in ("then", "minItems", "properties", "patternProperties"):
            continue  # the last four are looked at with another keyword
        if keyword not in _KEYWORDS:
            raise Misuse(f"the schema keyword {keyword!r} is not known to this check: install jsonschema")
        yield from _KEYWORDS[keyword](content, value, schema, root, at)
    if isinstance(content, dict) and "additionalProperties" not in schema:
        for name, rule in schema.get("properties", {}).items():
            if name in content:
                yield from structural(content[name], rule, root, f"{at}.{name}")


def _type(content: Any, value: Any, _: Any, __: Any, at: str) -> Iterator[str]:
    names = [value] if isinstance(value, str) else value
    if not any(isinstance(content, TYPES[name]) and not (isinstance(content, bool) and name != "boolean") for name in names):
        yield f"{at}: {str(content)[:40]!r} is not of type {' or '.join(names)}"


def _properties(content: Any, value: Any, schema: Any, root: Any, at: str) -> Iterator[str]:
    if not isinstance(content, dict):
        return
    for name, entry in content.items():
        rules = [rule for pattern, rule in schema.get("patternProperties", {}).items() if re.search(pattern, name)]
        rules += [schema["properties"][name]] if name in schema.get("properties", {}) else []
        if not rules and value is False:
            yield f"{at}: the field {name!r} is unknown"
        for rule in rules or ([value] if value is not False else []):
            yield from structural(entry, rule, root, f"{at}.{name}")


def _items(content: Any, value: Any, schema: Any, root: Any, at: str) -> Iterator[str]:
    if isinstance(content, list):
        for index, entry in enumerate(content):
            yield from structural(entry, value, root, f"{at}[{index}]")
        if len(content) < schema.get("minItems", 0):
            yield f"{at}: {len(content)} entries, at least {schema['minItems']} belong there"


def _one_of(content: Any, value: Any, _: Any, root: Any, at: str) -> Iterator[str]:
    if sum(not any(structural(content, rule, root, at)) for rule in value) != 1:
        yield f"{at}: follows not exactly one of {len(value)} alternatives"


def _any_of(content: Any, value: Any, _: Any, root: Any, at: str) -> Iterator[str]:
    if all(any(structural(content, rule, root, at)) for rule in value):
        yield f"{at}: follows none of {len(value)} alternatives"


def _all_of(content: Any, value: Any, _: Any, root: Any, at: str) -> Iterator[str]:
    for rule in value:
        yield from structural(content, rule, root, at)


def _if(content: Any, value: Any, schema: Any, root: Any, at: str) -> Iterator[str]:
    if not any(structural(content, value, root, at)):
        yield from structural(content, schema["then"], root, at)


def _ref(content: Any, value: Any, _: Any, root: Any, at: str) -> Iterator[str]:
    yield from structural(content, root["$defs"][value.removeprefix("#/$defs/")], root, at)


def _plain(is_wrong: Callable[[Any, Any], bool], sentence: str) -> Callable[..., Iterator[str]]:
    def check(content: Any, value: Any, _: Any, __: Any, at: str) -> Iterator[str]:
        if is_wrong(content, value):
            yield f"{at}: {str(content)[:40]!r} {sentence} {value!r}"

    return check


_KEYWORDS: Final[dict[str, Callable[..., Iterator[str]]]] = {
    "type": _type,
    "additionalProperties": _properties,
    "items": _items,
    "oneOf": _one_of,
    "anyOf": _any_of,
    "allOf": _all_of,
    "if": _if,
    "$ref": _ref,
    "const": _plain(lambda content, value: bool(content != value), "is not"),
    "enum": _plain(lambda content, value: content not in value, "is none of"),
    "pattern": _plain(lambda content, value: isinstance(content, str) and not re.search(value, content), "does not match"),
    "minimum": _plain(lambda content, value: isinstance(content, int | float) and content < value, "is below"),
    "maxItems": _plain(lambda content, value: isinstance(content, list) and len(content) > value, "has more entries than"),
    "minProperties": _plain(lambda content, value: isinstance(content, dict) and len(content) < value, "has fewer fields than"),
    "required": _plain(lambda content, value: isinstance(content, dict) and not set(value) <= set(content), "lacks some of"),
    "uniqueItems": _plain(lambda content, _: isinstance(content, list) and len({*map(str, content)}) < len(content), "repeats:"),
}
