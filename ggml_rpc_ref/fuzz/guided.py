"""Readers of files under libFuzzer, which sees the branches that Python takes (atheris, of the extra `fuzz`; this is its door).

    for defect in run("ggml_rpc_ref.commands.readers", 60.0): ...

libFuzzer never gives its process back, and what it is to see must be imported under its eyes: so this file is also run as a script,
by its path, in a process of its own, and imports nothing of ours before atheris.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ggml_rpc_ref.fuzz.ourselves import Defect

SEEN = [
    *(f"ggml_rpc_ref.{room}" for room in ("decode", "files", "golden", "protocol.codec", "protocol.connection", "protocol.order")),
    *(f"ggml_rpc_ref.conformance.{module}" for module in ("difference", "expect", "fleet")),
    *(f"ggml_rpc_ref.fuzz.{module}" for module in ("finds", "replay", "seeds")),
]
"""Modules whose branches are followed: those that read. To prepare all of ours takes longer than a run."""
DEFECTS = "defects.jsonl"
SEEDS = 6
"""Files of each kind that it begins with."""
HANGS = 20
"""Seconds that a file may take to be read."""
LONGEST = 2**16
"""Bytes of the largest file that is tried."""


def run(module: str, seconds: float, seed: str = "0") -> Iterator[Defect]:
    """Yield each defect of the readers, once the time is over.

    Args:
        module: has `READERS` and `SAMPLES`, as `Ourselves` takes them.
        seconds: how long.
        seed: of the first files.

    Raises:
        Misuse: where atheris is not installed.
    """
    from ggml_rpc_ref.errors import Misuse
    from ggml_rpc_ref.fuzz.ourselves import Defect

    if find_spec("atheris") is None:
        raise Misuse("--guided needs atheris, which has wheels for Linux on x86-64: pip install 'ggml-rpc-ref[fuzz]'")
    with tempfile.TemporaryDirectory(prefix="ggml-rpc-ref-fuzz-") as directory:
        # -P: the names of our modules (numbers, queue) must not stand for those of the standard library
        command = [sys.executable, "-P", str(Path(__file__)), module, str(max(1, round(seconds))), directory, seed]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, check=False)
        listed = Path(directory) / DEFECTS
        for line in listed.read_text(encoding="utf-8").splitlines() if listed.exists() else ():
            row = json.loads(line)
            yield Defect(tuple(row["key"]), row["words"], row["what"])
        said = done.stderr.strip().splitlines()
        if done.returncode:
            last = next((line for line in said if "ERROR: libFuzzer" in line), said[-1] if said else "")
            yield Defect(("reader died", last), f"the process that read ended with {done.returncode}: {last}", "no file is kept")


class Files:
    """Makes files of bytes: the first byte says of what kind, which decides the name's end; the rest is the content."""

    def __init__(self, module: Any, directory: Path, seed: str) -> None:
        ourselves = import_module("ggml_rpc_ref.fuzz.ourselves")
        self.own = ourselves.Ourselves(seed=seed, readers=module.READERS, samples=module.SAMPLES)
        self.kinds = sorted([*ourselves.WRITERS, *module.SAMPLES])
        self.suffixes = [(ourselves.WRITERS.get(kind) or module.SAMPLES[kind])[0] for kind in self.kinds]
        self.directory, self.rng, self.damaged = directory, Random(seed), ourselves.damaged

    def fresh(self, kind: int) -> bytes:
        """Return bytes that make a good file of a kind, given by its index."""
        written = self.own.written(self.own.chooser.next(), self.kinds[kind], self.directory / "seed")
        return bytes([kind]) + bytes(written.read_bytes())

    def placed(self, data: bytes) -> Path:
        """Write the file that bytes make."""
        path = self.directory / f"file{self.suffixes[data[0] % len(self.kinds)]}"
        path.write_bytes(data[1:])
        return path


def main(module: str, seconds: str, directory: str, seed: str) -> None:
    """Fuzz until the time is over; the process ends in it."""
    import atheris

    with atheris.instrument_imports(include=SEEN):
        files = Files(import_module(module), Path(directory), seed)
    corpus = files.directory / "corpus"
    corpus.mkdir()
    for number in range(SEEDS * len(files.kinds)):
        (corpus / str(number)).write_bytes(files.fresh(number % len(files.kinds))[:LONGEST])
    known = set()

    def one(data: bytes) -> None:
        if not data:
            return
        path = files.placed(data)
        for defect in files.own.read(path, f"{path.suffix} of {len(data) - 1} bytes: {data[1:33].hex()}…"):
            if defect.key not in known:
                known.add(defect.key)
                with (files.directory / DEFECTS).open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": defect.key, "words": defect.words, "what": defect.what}) + "\n")

    def changed(data: bytes, most: int, number: int) -> bytes:
        if not data or number % 8:
            return bytes(atheris.Mutate(data, most))
        return bytes(data[:1] + files.damaged(Random(number), data[1:]))[:most]

    arguments = [f"-max_total_time={seconds}", f"-timeout={HANGS}", f"-max_len={LONGEST}", "-rss_limit_mb=4096", str(corpus)]
    atheris.Setup([sys.argv[0], *arguments], one, custom_mutator=changed)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
