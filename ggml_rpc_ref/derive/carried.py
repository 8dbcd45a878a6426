"""What the package carries of vectors/: the schemas, and what each build was observed to do.

They belong to vectors/, which is read without the package; the package needs them where vectors/ is not. They are copies, and not
links: a checkout on a system without links, and many an archive, holds a text file with a path in place of one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

FOLDERS: Final = ("golden/schema", "spec/observed")
"""Where the copies lie in the package; nothing else there is JSON."""


def carried(vectors: Path) -> dict[str, str]:
    """Return the path in the package of each copy, and the text that it has to have.

    Args:
        vectors: the directory that has the originals.
    """
    schema, observed = FOLDERS
    originals = {f"{schema}/{path.name}": path for path in vectors.glob("schema/*.json")}
    originals |= {f"{observed}/{path.parent.name}.json": path for path in vectors.glob("upstream-*/observed.json")}
    return {place: path.read_text(encoding="utf-8") for place, path in sorted(originals.items())}


def superfluous(package: Path, wanted: dict[str, str]) -> list[Path]:
    """Return the copies in a package whose originals are gone."""
    there = (path for folder in FOLDERS for path in sorted((package / folder).glob("*.json")))
    return [path for path in there if path.relative_to(package).as_posix() not in wanted]
