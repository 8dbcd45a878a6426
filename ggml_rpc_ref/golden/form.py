"""The one way in which the JSON of each kind of vector is written."""

from __future__ import annotations

import json
from typing import Any, Final

LINES: Final = {"frames": ['{"command"'], "sessions": ['{"connection"'], "malformed": ['{"connection"', '{"id"']}
"""Kinds of file that are written without indentation, to the objects that begin a line there."""


def canonical(kind: str, content: Any) -> str:
    """Return the text that a file with this content has; that of the recorders."""
    if kind in LINES:  # a message on one line, since indented they fill tens of thousands
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
        for start in LINES[kind]:
            text = text.replace(start, f"\n{start}")
        return text + "\n"
    return json.dumps(content, indent=1) + "\n"
