"""Data that vectors omit, found again by size and hash in files that are given: a model's tensors in a GGUF, or a file as a whole.

The hashes are taken as they are asked for, and only of what has the size that is asked for.
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
"""Seconds that reading a GGUF may take; a vocabulary of 262,144 tokens took 8."""


class Files(Mapping[Omitted, memoryview]):
    """What is in some files, by size and FNV-1a 64 hash.

    Args:
        paths: the files, read at once.
        otherwise: more files, read when something is asked for that the others don't have: gguf takes seconds over a vocabulary.

    Raises:
        Misuse: for a file that can't be read, or a GGUF where the package gguf is missing.
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
        """Return the data; KeyError where no file has it."""
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
        """Yield what has been found so far."""
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def _parts(path: Path) -> Iterator[memoryview]:
    """Yield a GGUF's tensors as they lie there, or all of another file."""
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

    The package gguf reads it in a process of its own, within limits: of a damaged file it may read without end.
    """
    command = [sys.executable, "-m", "ggml_rpc_ref.golden.gguf_tensors", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise Misuse(f"{path} is no whole GGUF: reading it did not end within {LONGEST} s") from None
    if done.returncode == gguf_tensors.MISSING:
        raise Misuse(f"{path} is a GGUF: `pip install 'ggml-rpc-ref[gguf]'` to read it")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["the reader died"])[-1]
        raise Misuse(f"{path} is no whole GGUF: {reason[:200]}")
    found: list[list[int]] = json.loads(done.stdout)
    return found
