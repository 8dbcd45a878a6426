"""What the kernels are compiled from, as a number that the compiled modules carry; run without this package when they are made."""

from __future__ import annotations

import hashlib
from pathlib import Path


def fingerprint(directory: Path) -> str:
    """Return a digest of the kernels' sources and of how they are compiled, 16 hexadecimal digits.

    Args:
        directory: where `build.py`, `runtime.c`, `declared.h` and `kernels/` lie.
    """
    digest = hashlib.sha256()
    files = [directory / name for name in ("build.py", "runtime.c", "declared.h")]
    for path in (*files, *sorted((directory / "kernels").rglob("*.[ch]"))):
        digest.update(path.relative_to(directory).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
