"""Data that vectors omit, found by size and hash in given files: the tensors of a GGUF, or a whole file of any other kind.

Only data of the right size are hashed, when they are first asked for.
"""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.files.conversation import Omitted
from ggml_rpc_ref.golden import gguf_tensors
from ggml_rpc_ref.protocol.fnv import fnv1a

GGUF_MAGIC: Final = b"GGUF"
LONGEST: Final = 120
"""Seconds that reading a GGUF may take; one with a vocabulary of 262,144 tokens takes 2."""


class Files(Mapping[Omitted, memoryview]):
    """The data in some files, by size and FNV-1a 64 hash.

    Args:
        paths: the files, read at once.
        otherwise: more files, read only for data that the others don't have: reading a GGUF's vocabulary takes seconds.

    Raises:
        Misuse: for a file that can't be read, or for a GGUF if the package gguf is missing.
    """

    def __init__(self, paths: Iterable[Path], otherwise: Iterable[Path] = ()) -> None:
        self._unknown: dict[int, list[memoryview]] = defaultdict(list)
        self._known: dict[Omitted, memoryview] = {}
        self._unread = list(otherwise)
        for path in paths:
            self._read(path)

    def _read(self, path: Path) -> None:
        for part in _parts(path):
            self._unknown[len(part)].append(part)

    def __getitem__(self, piece: Omitted) -> memoryview:
        """Return the data; KeyError if no file has them."""
        self._look_for(piece)
        while piece not in self._known and self._unread:
            self._read(self._unread.pop())
            self._look_for(piece)
        return self._known[piece]

    def _look_for(self, piece: Omitted) -> None:
        candidates = self._unknown.get(piece.size, [])
        while piece not in self._known and candidates:
            part = candidates.pop()
            self._known[Omitted(len(part), fnv1a(part))] = part

    def __iter__(self) -> Iterator[Omitted]:
        """Yield what was found so far."""
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def _parts(path: Path) -> Iterator[memoryview]:
    """Yield the tensors of a GGUF in file order, or the whole of another file."""
    try:
        with path.open("rb") as file:
            start = file.read(len(GGUF_MAGIC))
            whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) if start else memoryview(b"")
    except OSError as error:
        raise Misuse(f"can't read {path}: {error.strerror}") from None
    if start != GGUF_MAGIC:
        yield whole
        return
    for at, size in _tensors(path):
        yield whole[at : at + size]


def _tensors(path: Path) -> list[list[int]]:
    """Return offset and size of each tensor in a GGUF.

    The package gguf reads it in a process of its own with limits, since it may never finish reading a damaged file.
    """
    command = [sys.executable, "-m", "ggml_rpc_ref.golden.gguf_tensors", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise Misuse(f"{path} is not a complete GGUF: reading it did not end within {LONGEST} s") from None
    if done.returncode == gguf_tensors.MISSING:
        raise Misuse(f"{path} is a GGUF: `pip install 'ggml-rpc-ref[gguf]'` to read it")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["the reader died"])[-1]
        raise Misuse(f"{path} is not a complete GGUF: {reason[:200]}")
    found: list[list[int]] = json.loads(done.stdout)
    return found
