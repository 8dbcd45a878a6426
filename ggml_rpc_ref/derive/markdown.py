"""The Markdown of the derived parts: tables, escaped text, docstrings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; cells are Markdown already, except that "|" is escaped here."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def escape(text: str) -> str:
    """Return plain text escaped for Markdown; text between backticks is left alone."""
    parts = re.split(r"(`[^`]*`)", text)
    # of underscores only those at a word's edge are marks in GitHub's Markdown
    return "".join(part if part.startswith("`") else re.sub(r"[*<>\[\]\\]|(?<!\w)_|_(?!\w)", r"\\\g<0>", part) for part in parts)


def prose(docstring: str) -> str:
    """Return a docstring's body: each paragraph on one line, lines indented by four as a code block."""
    blocks = []
    for indented, group in groupby(docstring.split("\n"), lambda line: None if not line.strip() else line.startswith("    ")):
        lines = list(group)
        if indented:
            blocks.append("```text\n" + "\n".join(line[4:].rstrip() for line in lines) + "\n```")
        elif indented is not None:
            blocks.append(escape(" ".join(line.strip() for line in lines)))
    return "\n\n".join(blocks)
