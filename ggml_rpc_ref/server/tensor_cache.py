"""The tensor cache: data of large uploads on disk, by hash, so that a client need not send a model twice.

Directory, file names and contents are those of llama.cpp's `rpc-server -c`, so that both can share them: a file is named by the
16 lower-case hex digits of the FNV-1a 64 hash of its bytes, and holds nothing but these bytes. Unlike there, a file appears whole
(it is written under another name and renamed), is served only if its bytes still have its hash, and the least recently used files
make room for new ones (SEC-39, SEC-40; llama.cpp #28789: 1.4 TB in a day, truncated files served as complete).

FNV-1a does not protect against intent: bytes with a given hash are made in 0.03 s (issue 9). Whoever may upload can therefore put
bytes of his own under another's hash before the other uploads, and whoever knows a hash can have what lies under it. Two things
limit that. Where an upload differs from the file of its hash, neither is kept from then on. And a cache can be divided by client
address (`for_client`), so that a client meets only what came from its own.

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
from typing import NamedTuple

from ggml_rpc_ref.protocol.fnv import Fnv1a, fnv1a

try:
    import fcntl
except ImportError:  # not on this system: servers there don't keep the limit together
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

THRESHOLD = 10 * 2**20
"""Bytes: only larger data are kept (HASH_THRESHOLD in ggml-rpc.cpp); a client never asks for smaller ones."""
DEFAULT_LIMIT = 32 * 2**30
"""Bytes that all files of the directory together may have unless said otherwise."""
CHUNK = 2**20
"""Bytes read at once."""
CLIENTS = "clients"
"""The directory in which a cache divided by client has its parts; rpc-server's files have other names."""
MOST_DISPUTED = 10_000
"""Hashes remembered as having had two contents."""
ABANDONED = 3600.0
"""Seconds without a write after which an unfinished file is considered left behind by a server that died."""

_NAME = re.compile("[0-9a-f]{16}")
_ANY = re.compile(r"[0-9a-f]{16}(\.[0-9a-f]+\.part)?")
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
        limit: bytes that its files may have together, finished or not.
        per_client: whether each client address has a part of its own.
    """

    def __init__(self, directory: Path, limit: int = DEFAULT_LIMIT, *, per_client: bool = False) -> None:
        self.directory, self.limit, self.per_client = directory, limit, per_client
        self._whole = directory  # what the limit counts
        self._disputed: set[int] = set()  # hashes under which different bytes came; bounded by MOST_DISPUTED
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._remove_abandoned()
        except OSError as error:
            log.warning("the tensor cache %s can't be used: %s", directory, error.strerror)

    def for_client(self, address: str) -> TensorCache:
        """Return the cache that a client of this address uses: this one, or if it is divided the address's own part of it.

        A part is a directory below this one. The limit is one for all parts together. An IPv6 address stands for itself, not for
        its /64: all machines of a local network share that, and one could forge what another gets. A machine whose address
        changes (RFC 8981) uploads again.
        """
        if not self.per_client:
            return self
        name = "of-" + re.sub("[^0-9A-Za-z.]", "-", address)
        part = TensorCache(self.directory / CLIENTS / name, self.limit)
        part._whole, part._disputed = self.directory, self._disputed
        return part

    def path(self, digest: int) -> Path:
        """Return the name of the file for a hash."""
        return self.directory / f"{digest:016x}"

    def state(self) -> dict[str, object]:
        """Return where it is and how much it holds, as `Server.state` has it."""
        try:
            files = list(self._files())
        except OSError:
            files = []
        size = sum(file.size for file in files)
        return {
            "directory": str(self.directory),
            "per_client": self.per_client,
            "files": len(files),
            "size": size,
            "limit": self.limit,
        }

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
        # hashed before the copy, so the file is read twice: wrong bytes must not overwrite a tensor (data.hash-hit)
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
        digest = fnv1a(data)
        path = self.path(digest)
        try:
            if digest in self._disputed or self._has(path, digest, data):
                return
            unfinished = self._reserve(path, len(data))
            if unfinished is not None:
                self._write(unfinished, path, data)
        except OSError as error:
            log.warning("the tensor cache could not keep %s: %s", path, error.strerror)

    def _has(self, path: Path, digest: int, data: memoryview) -> bool:
        """Return whether these data are there already; if other data are there, they go and the hash is not used any more."""
        try:
            with _open_regular(path) as file:
                # byte by byte: equal hashes prove nothing (SEC-40)
                if _same(file, data):
                    _touch(path)
                    return True
                file.seek(0)
                # a file without its hash is only damaged: it goes, and the caller writes the data again
                forged = _hash(file) == digest
        except FileNotFoundError:
            return False
        if forged:
            log.warning("two uploads differ and have one hash, %016x: neither is kept, one of them is probably forged", digest)
            # a pair costs its maker 0.03 s, so the memory for them needs an end
            if len(self._disputed) < MOST_DISPUTED:
                self._disputed.add(digest)
        path.unlink(missing_ok=True)
        return forged

    def _reserve(self, path: Path, size: int) -> Path | None:
        """Make room, and an unfinished file that takes all of it; None where files that are being written leave too little.

        All servers on this directory do this one after another, so that together they stay under the limit.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
        # the unfinished file has its full size before the lock is let go: other servers count it, and the write needs no lock
        with _locked(self._whole):
            if not self._make_room(size):
                log.debug("no room in the tensor cache for %d bytes beside what is being written", size)
                return None
            with unfinished.open("xb", buffering=0) as file:
                try:
                    _claim(file, size)
                except OSError:
                    unfinished.unlink(missing_ok=True)
                    raise
        return unfinished

    def _write(self, unfinished: Path, path: Path, data: memoryview) -> None:
        try:
            with unfinished.open("r+b", buffering=0) as file:
                written = 0
                while written < len(data):
                    written += file.write(data[written:])
            # atomic within a directory; the unlink below then finds nothing, and after a failure takes the rest away
            unfinished.replace(path)
            log.debug("kept %d bytes as %s", len(data), path)
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------------------------ the limit

    def _files(self) -> Iterator[_File]:
        """Yield finished and unfinished files, those of all parts where the cache is divided."""
        for folder in (self._whole, *_folders(self._whole / CLIENTS)):
            with os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):  # another server was faster
                        if _ANY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                            found = entry.stat(follow_symlinks=False)
                            yield _File(Path(entry.path), found.st_size, found.st_mtime)

    def _make_room(self, size: int) -> bool:
        """Remove finished files, the least recently used first, until `size` more bytes fit; return whether they do."""
        files = sorted(self._files(), key=lambda file: file.used)
        total = sum(file.size for file in files)
        for file in files:
            if total + size <= self.limit:
                break
            # finished ones only: another server is writing the others
            if _NAME.fullmatch(file.path.name):
                file.path.unlink(missing_ok=True)
                total -= file.size
                log.debug("removed %s from the tensor cache to make room", file.path)
        return total + size <= self.limit

    def _remove_abandoned(self) -> None:
        """Remove unfinished files of servers that died while writing."""
        for folder in (self.directory, *_folders(self.directory / CLIENTS)):
            for path in folder.iterdir():
                with contextlib.suppress(OSError):
                    if _UNFINISHED.fullmatch(path.name) and time.time() - path.lstat().st_mtime > ABANDONED:
                        path.unlink()


def _folders(path: Path) -> list[Path]:
    """Return the directories in a directory; none where it isn't there."""
    try:
        with os.scandir(path) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold a lock on a directory that all servers use, also two threads of one; where the file system has none, go on without."""
    if fcntl is None:
        yield
        return
    # a descriptor of its own for each: flock is held by the open file, so it keeps threads of one process apart too
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _claim(file: FileIO, size: int) -> None:
    """Give a file its full size, on the disk too where the system can: a full disk shows before anything is written."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)


def _same(file: FileIO, data: memoryview) -> bool:
    """Return whether a file has exactly these bytes."""
    if os.fstat(file.fileno()).st_size != len(data):
        return False
    chunk, at = memoryview(bytearray(CHUNK)), 0
    while count := file.readinto(chunk):
        if chunk[:count] != data[at : at + count]:
            return False
        at += count
    return at == len(data)


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
        # the modification time, because many systems are mounted so that reading changes no time; `_File.used` is this one
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
