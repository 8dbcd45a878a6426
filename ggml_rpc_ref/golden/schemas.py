"""The check of a vector file against the JSON Schema of its kind.

The schemas are this project's own, in vectors/schema/, of which `ggml-rpc-ref gen` keeps copies in this package. Those of a
directory that is checked are never read: a schema is a program of sorts, whose references may name files and addresses.
jsonschema-rs reads all vectors in 0.2 s; jsonschema, which is written in Python, took 7 s.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from ggml_rpc_ref.errors import Misuse

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError, Validator

LONGEST: Final = 120
"""Characters of a sentence about a value; the library quotes the whole value, which may be all of a file."""
AS_WRITTEN: Final = "asWritten"
"""Keyword beside every `"type": "integer"`: JSON Schema counts 1.0 as an integer, and `range` does not."""


class _AsWritten:
    """The keyword AS_WRITTEN."""

    def __init__(self, *_: object) -> None:
        """Take the parent schema, the keyword's value and its place, as the library gives them."""

    def validate(self, instance: object) -> None:
        """Refuse an integer that is written as 1.0.

        Raises:
            ValueError: where it is.
        """
        if isinstance(instance, float):
            raise ValueError(f'{instance!r} is not of type "integer"')


def _strict(schema: Any) -> Any:
    """Return a schema with AS_WRITTEN beside every integer."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    more = {AS_WRITTEN: True} if schema.get("type") == "integer" else {}
    return {name: _strict(part) for name, part in schema.items()} | more


@cache
def _validator(kind: str) -> Validator:
    try:
        from jsonschema_rs import validator_for
    except ImportError:
        raise Misuse("vectors are checked with jsonschema-rs, not installed here: pip install 'ggml-rpc-ref[vectors]'") from None
    schema = json.loads((resources.files("ggml_rpc_ref.golden") / "schema" / f"{kind}.json").read_text(encoding="utf-8"))
    return validator_for(_strict(schema), keywords={AS_WRITTEN: _AsWritten})


def require() -> None:
    """Raise Misuse where jsonschema-rs is not installed: once, before each file would be said to be at fault."""
    _validator("flags")


def faults(kind: str, content: Any) -> Iterator[str]:
    """Yield a sentence for each place where the content of a file does not follow the schema of its kind."""
    for error in _validator(kind).iter_errors(content):
        # the library takes whatever our keyword ends with for a fault of the file, Ctrl-C included
        if error.__cause__ is not None and not isinstance(error.__cause__, ValueError):
            raise error.__cause__
        yield _sentence(error)


def _sentence(error: ValidationError) -> str:
    half = LONGEST // 2
    text = error.message if len(error.message) <= LONGEST else f"{error.message[:half]} … {error.message[-half:]}"
    where = "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
    # a field's name may hold control characters, which a terminal would obey
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in f"{where}: {text}")
