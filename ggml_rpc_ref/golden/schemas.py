"""The check of a vector file against the JSON Schema of its kind.

The schemas are this project's own, in vectors/schema/, of which `ggml-rpc-ref gen` keeps copies in this package. Those of a
directory that is checked are never read: a schema is a program of sorts, whose patterns may run for ever (`^(a+)+$`) and whose
references may name files and addresses. This is the one place that needs jsonschema.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from ggml_rpc_ref.errors import Misuse

if TYPE_CHECKING:
    from jsonschema import ValidationError

LONGEST: Final = 120
"""Characters of a sentence about a value; jsonschema quotes the whole value, which may be all of a file."""


def _is_integer(_: object, value: object) -> bool:
    """Whether a value is an integer as written: JSON Schema counts 1.0 as one, and `range` does not."""
    return isinstance(value, int) and not isinstance(value, bool)


@cache
def _validator(kind: str) -> Any:
    try:
        from jsonschema import Draft202012Validator, validators
        from referencing import Registry
    except ImportError:
        raise Misuse("vectors are checked with jsonschema, which is not installed: pip install 'ggml-rpc-ref[vectors]'") from None
    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer)
    schema = json.loads((resources.files("ggml_rpc_ref.golden") / "schema" / f"{kind}.json").read_text(encoding="utf-8"))
    # an empty registry fetches nothing
    return validators.extend(Draft202012Validator, type_checker=types)(schema, registry=Registry())


def require() -> None:
    """Raise Misuse where jsonschema is not installed: once, before each file would be said to be at fault."""
    _validator("flags")


def faults(kind: str, content: Any) -> Iterator[str]:
    """Yield a sentence for each place where the content of a file does not follow the schema of its kind.

    Raises:
        Misuse: where jsonschema is not installed.
    """
    yield from (_sentence(error) for error in _validator(kind).iter_errors(content))


def _sentence(error: ValidationError) -> str:
    half = LONGEST // 2
    text = error.message if len(error.message) <= LONGEST else f"{error.message[:half]} … {error.message[-half:]}"
    # a field's name may hold control characters, which a terminal would obey
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in f"{error.json_path}: {text}")
