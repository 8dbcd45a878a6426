"""The canonical form of each kind of vector file: one content has one text, so that a diff shows only what changed."""

from __future__ import annotations

import json
from typing import Any, Final

LINES: Final = {"frames": ['{"command"'], "sessions": ['{"connection"'], "malformed": ['{"connection"', '{"id"']}
"""Kinds of file that are written without indentation, and the beginnings of the objects that start a line there."""


def canonical(kind: str, content: Any) -> str:
    """Return the text of a file with this content, as its recorder writes it."""
    if kind in LINES:  # one message a line: indented, a file would have tens of thousands of lines
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
        for start in LINES[kind]:
            text = text.replace(start, f"\n{start}")
        return text + "\n"
    return json.dumps(content, indent=1) + "\n"
