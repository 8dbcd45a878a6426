"""Temporary files: what can be read only once, or is compressed, is copied before it is decoded, since the readers map files."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from ggml_rpc_ref.decode.model import Fault
from ggml_rpc_ref.errors import Misuse

GZIP_MAGIC: Final = b"\x1f\x8b"
LARGEST: Final = 4 * 2**30
"""Bytes of the largest copy: a device without end, or a few kilobytes that unpack to terabytes, must not fill the disk."""
_CHUNK: Final = 2**20


def room() -> int:
    """Return how many bytes may be copied: at most half of what is free where temporary files lie."""
    return min(LARGEST, shutil.disk_usage(tempfile.gettempdir()).free // 2)


@contextmanager
def copied(stream: IO[bytes], name: str) -> Iterator[Path]:
    """Yield a copy of what a pipe or a device gives; it is removed afterwards.

    Raises:
        Misuse: where that is more than `room`.
    """
    with _copy() as (file, path):
        _fill(file, stream, f"{name} is a pipe or device with more than {{}}: save it to a file, and decode that")
        yield path


@contextmanager
def unpacked(path: Path) -> Iterator[tuple[Path, Fault | None]]:
    """Yield a gzip file's unpacked copy, as far as it can be unpacked, and what is wrong with it; remove the copy afterwards.

    Raises:
        Misuse: where it unpacks to more than `room`.
    """
    fault = None
    with _copy() as (file, copy):
        try:
            with gzip.open(path) as stream:
                _fill(file, stream, f"{path} unpacks to more than {{}}: unpack it where there is room, and decode that")
        except EOFError:
            fault = Fault("compressed data", "breaks off", "input.gzip", path.stat().st_size)
        except (gzip.BadGzipFile, zlib.error) as error:
            fault = Fault("compressed data", f"can't be unpacked: {error}", "input.gzip", 0)
        yield copy, fault


@contextmanager
def _copy() -> Iterator[tuple[IO[bytes], Path]]:
    with tempfile.NamedTemporaryFile(prefix="ggml-rpc-ref-") as file:
        yield file, Path(file.name)


def _fill(file: IO[bytes], stream: IO[bytes] | gzip.GzipFile, too_much: str) -> None:
    most, count = room(), 0
    try:
        while piece := stream.read(_CHUNK):
            count += len(piece)
            if count > most:
                raise Misuse(too_much.format(f"{most >> 20} MiB"))
            file.write(piece)
    finally:
        file.flush()
