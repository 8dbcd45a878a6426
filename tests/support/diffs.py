"""The diffs of our texts, which show how to add things, applied to a copy of the package."""

from __future__ import annotations

import re
from pathlib import Path


def apply(diff: str, root: Path) -> None:
    """Apply a diff whose hunks are found by their own lines: `@@` without numbers, each place there exactly once."""
    for part in re.split(r"^--- ", diff, flags=re.MULTILINE)[1:]:
        name, *hunks = re.split(r"^@@\n", part, flags=re.MULTILINE)
        name = name.split()[-1]
        if part.startswith("/dev/null"):
            (root / name).write_text(after(hunks[0]), encoding="utf-8")
            continue
        content = (root / name).read_text(encoding="utf-8")
        for hunk in hunks:
            assert content.count(before(hunk)) == 1, f"{name} does not have these lines, or has them twice:\n{before(hunk)}"
            content = content.replace(before(hunk), after(hunk))
        (root / name).write_text(content, encoding="utf-8")


def before(hunk: str) -> str:
    return "".join(line[1:] + "\n" for line in hunk.splitlines() if line[:1] in (" ", "-"))


def after(hunk: str) -> str:
    return "".join(line[1:] + "\n" for line in hunk.splitlines() if line[:1] in (" ", "+"))
