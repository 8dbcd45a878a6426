"""The tensor cache: data of large uploads on disk, by hash, so that a client need not send a model twice.

Directory, file names and contents are those of llama.cpp's `rpc-server -c`, so that both can share them: a file is named by the
16 lower-case hex digits of the FNV-1a 64 hash of its bytes, and holds nothing but these bytes. Unlike there, a file appears whole
(it is written under another name and renamed), is served only if its bytes still have its hash, and the least recently used files
make room for new ones (SEC-39, SEC-40; llama.cpp #28789: 1.4 TB in a day, truncated files served as complete).

A problem with the directory is never an error for a client: it is a miss and a line in the log. Files are read, not mapped: if
llama.cpp's rpc-server truncated a mapped file, SIGBUS would end our process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from ggml_rpc_ref.protocol.fnv import Fnv1a, fnv1a

log = logging.getLogger(__name__)

THRESHOLD = 10 * 2**20
"""Bytes: only larger data are kept (HASH_THRESHOLD in ggml-rpc.cpp); a client never asks for smaller ones."""
DEFAULT_LIMIT = 32 * 2**30
"""Bytes that all files of the directory together may have unless said otherwise."""
CHUNK = 2**20
"""Bytes read at once."""
ABANDONED = 3600.0
"""Seconds without a write after which an unfinished file is considered left behind by a server that died."""

_NAME = re.compile("[0-9a-f]{16}")
_UNFINISHED = re.compile(r"[0-9a-f]{16}\.[0-9a-f]+\.part")


def default_directory(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Return where llama.cpp's rpc-server keeps its tensor cache: below LLAMA_CACHE, or the user's cache directory.

    Source: fs_get_cache_directory in rpc-server.cpp of 3.6.1.
    """
    if environ.get("LLAMA_CACHE"):
        return Path(environ["LLAMA_CACHE"]) / "rpc"
    if platform == "darwin":
        return Path.home() / "Library" / "Caches" / "llama.cpp" / "rpc"
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "llama.cpp" / "rpc"


class _File(NamedTuple):
    """A file of the cache as a listing of the directory shows it."""

    path: Path
    size: int
    used: float


class TensorCache:
    """A directory of data by hash; any number of threads and servers may use one at the same time.

    Args:
        directory: where the files lie; made if it isn't there.
        limit: bytes that its files may have together.
    """

    def __init__(self, directory: Path, limit: int = DEFAULT_LIMIT) -> None:
        self.directory, self.limit, self._saving = directory, limit, Lock()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._remove_abandoned()
        except OSError as error:
            log.warning("the tensor cache %s can't be used: %s", directory, error.strerror)

    def path(self, digest: int) -> Path:
        """Return the name of the file for a hash."""
        return self.directory / f"{digest:016x}"

    def state(self) -> dict[str, object]:
        """Return where it is and how large, as `Server.state` has it."""
        return {"directory": str(self.directory), "limit": self.limit}

    # ------------------------------------------------------------------------------------------------------------- loading

    def load(self, digest: int, room: memoryview) -> int | None:
        """Copy the data with this hash to the beginning of `room`.

        Args:
            digest: FNV-1a 64 of the data.
            room: writable bytes; nothing is written unless all of the data fit and have the hash.

        Returns:
            The number of bytes copied. None if there are no such data, or if another program changed the file while it was read; in
            that case `room` may have been written to.
        """
        path = self.path(digest)
        try:
            with _open_regular(path) as file:
                return self._load(file, path, digest, room)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("the cached tensor %s can't be read: %s", path, error.strerror)
            return None

    def _load(self, file: FileIO, path: Path, digest: int, room: memoryview) -> int | None:
        before = os.fstat(file.fileno())
        if before.st_size > len(room):
            log.warning("the cached tensor %s has %d bytes where %d have room", path, before.st_size, len(room))
            return None
        if _hash(file) != digest:
            log.warning("the cached tensor %s has other contents than its name says; it is removed", path)
            path.unlink(missing_ok=True)
            return None
        size = _read(file, room[: before.st_size])
        # a newer time alone may only mean that another server has used the file
        touched = os.fstat(file.fileno()).st_mtime_ns != before.st_mtime_ns
        if size != before.st_size or (touched and fnv1a(room[:size]) != digest):
            log.warning("the cached tensor %s was changed while it was read", path)
            return None
        _touch(path)
        return size

    # -------------------------------------------------------------------------------------------------------------- saving

    def save(self, data: memoryview) -> None:
        """Keep data if they are over the threshold and fit under the limit."""
        if not THRESHOLD < len(data) <= self.limit:
            return
        path = self.path(fnv1a(data))
        try:
            if path.is_file() and path.stat().st_size == len(data):
                _touch(path)
                return
            self.directory.mkdir(parents=True, exist_ok=True)
            with self._saving:
                self._make_room(len(data))
            self._write(path, data)
        except OSError as error:
            log.warning("the tensor cache could not keep %s: %s", path, error.strerror)

    def _write(self, path: Path, data: memoryview) -> None:
        unfinished = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
        try:
            with unfinished.open("xb", buffering=0) as file:
                written = 0
                while written < len(data):
                    written += file.write(data[written:])
            unfinished.replace(path)
            log.debug("kept %d bytes as %s", len(data), path)
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------------------------ the limit

    def _files(self) -> Iterator[_File]:
        with os.scandir(self.directory) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # another server was faster
                    if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        found = entry.stat(follow_symlinks=False)
                        yield _File(Path(entry.path), found.st_size, found.st_mtime)

    def _make_room(self, size: int) -> None:
        """Remove files, the least recently used first, until `size` more bytes fit under the limit."""
        files = sorted(self._files(), key=lambda file: file.used)
        total = sum(file.size for file in files)
        for file in files:
            if total + size <= self.limit:
                return
            file.path.unlink(missing_ok=True)
            total -= file.size
            log.debug("removed %s from the tensor cache to make room", file.path)

    def _remove_abandoned(self) -> None:
        """Remove unfinished files of servers that died while writing."""
        for path in self.directory.iterdir():
            with contextlib.suppress(OSError):
                if _UNFINISHED.fullmatch(path.name) and time.time() - path.lstat().st_mtime > ABANDONED:
                    path.unlink()


def _open_regular(path: Path) -> FileIO:
    """Open a regular file; refuse symbolic links, and pipes, which would block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is not a regular file")
    return FileIO(descriptor)


def _touch(path: Path) -> None:
    """Mark a file as used just now, so that it is removed last; another server may have removed it in the meantime."""
    with contextlib.suppress(OSError):
        os.utime(path)


def _hash(file: FileIO) -> int:
    digest, chunk = Fnv1a(), memoryview(bytearray(CHUNK))
    while count := file.readinto(chunk):
        digest.update(chunk[:count])
    return digest.value


def _read(file: FileIO, room: memoryview) -> int:
    """Read from the beginning until `room` is full or the file ends; return how many bytes."""
    file.seek(0)
    size = 0
    while count := file.readinto(room[size : size + CHUNK]):
        size += count
    return size
