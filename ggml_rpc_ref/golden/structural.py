"""A JSON Schema check of our own: it fetches nothing, and needs no package.

It knows the keywords that the schemas in vectors/schema/ use, and refuses any other: what it does not know it must not pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from ggml_rpc_ref.errors import Misuse

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
            raise Misuse(f"the schema keyword {keyword!r} is not known to this check")
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
