"""What a server or a client under test printed, as lines that a report can show."""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 200
"""Characters of a line that are shown."""

_PATH = re.compile(r"(?<!\S)\S*/(?=[^/\s]+:\d+: )")
"""The directories before a source file's name and line, as in an assertion's message: paths of the machine that built it."""
_UNPRINTABLE = re.compile(r"[^ -~\u00a0-\uffff]")


def shown_lines(text: str) -> list[str]:
    """Return the lines of what was printed, without directories, what no terminal shows, and empty lines; long ones end in "…"."""
    # the directories first: what is left of the line is what somebody wants to read
    lines = (_PATH.sub("", _UNPRINTABLE.sub("", line)).rstrip() for line in text.splitlines())
    return [line if len(line) <= LONGEST else line[:LONGEST] + "…" for line in lines if line.strip()]
