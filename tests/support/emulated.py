"""The kernels for 64-bit ARM, compiled by a cross-compiler and run in an emulator: `computing.c` has the other side.

Debian has both: gcc-aarch64-linux-gnu and qemu-user-static. What is tried so is which bytes the kernels compute, not how fast.
"""

from __future__ import annotations

import os
import runpy
import shutil
import struct
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from cffi import FFI

from ggml_rpc_ref.backends import Run, Step, apart, disturbed, in_turn, never, written_tensors
from ggml_rpc_ref.backends.changes import CHANGES
from ggml_rpc_ref.backends.native.geometry import described
from ggml_rpc_ref.ops.op import MAX_SRC, Node
from ggml_rpc_ref.tensor import Tensor
from tests.support.guarded import Place

ROOT = Path(__file__).parents[2]
HERE = Path("ggml_rpc_ref/backends/native")
COMPILER = shutil.which("aarch64-linux-gnu-gcc")
EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
BUILD = runpy.run_path(str(ROOT / HERE / "build.py"))
VARIANTS: dict[str, list[str]] = BUILD["AARCH64"]
COMMON = "common"
STRICT = ["-Wall", "-Wextra", "-Werror", "-O1"]
"""-O1 takes half of the time of -O3."""
NOT_SUPPORTED, DONE, BAD_INDEX = -2, 0, 2
PLACES = {Place.END: 0, Place.BEGIN: 1, Place.ODD: 2}


@dataclass
class Objects:
    """What the compiler has made.

    Attributes:
        directory: where it lies.
        made: variant to the object files that are its own, by name; "common": those of all.
    """

    directory: Path
    made: dict[str, dict[str, Path]]

    def link(self, variant: str, instead: Mapping[str, Path] = MappingProxyType({}), name: str = "") -> Path:
        """Return a variant's program, with some object files in the place of those of the same names."""
        program = self.directory / f"{variant}{name}.program"
        objects = {**self.made[COMMON], **self.made[variant], **instead}
        _run(self.directory, COMPILER, "-static", *objects.values(), "-o", f"{program}.{os.getpid()}", "-lm", "-pthread")
        return Path(f"{program}.{os.getpid()}").rename(program)  # another process may be running one

    def sabotaged(self, variant: str, source: str, changed: str, right: str, wrong: str, directory: Path) -> Path:
        """Return a variant's program; a source in `kernels/shared` was compiled after a text of a file there was changed."""
        shutil.copytree(ROOT / HERE, directory / HERE, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        path = directory / HERE / "kernels" / "shared" / changed
        text = path.read_text()
        assert text.count(right) == 1, right
        path.write_text(text.replace(right, wrong))
        made = _compile(directory, [HERE / "kernels" / "shared" / source], VARIANTS[variant], directory)
        return self.link(variant, made, f"-{directory.name}")


def compile_all(directory: Path) -> Objects:
    """Compile all variants into a directory, or find what was compiled there; fail where the compiler has anything to say."""
    with chdir(ROOT):  # build.py has its paths from there
        sources, table = BUILD["sources"](), directory / "table.c"
        table.write_text(BUILD["table"]())
        own = list(filter(BUILD["needs_variants"], sources))
    common = [*(path for path in sources if path not in own), table, Path("tests/support/computing.c")]
    made = {}
    for variant, flags in {COMMON: [], **VARIANTS}.items():
        (directory / variant).mkdir(exist_ok=True)
        made[variant] = _compile(ROOT, common if variant == COMMON else own, flags, directory / variant)
    return Objects(directory, made)


def _compile(root: Path, sources: Iterable[Path], flags: Sequence[str], directory: Path) -> dict[str, Path]:
    """Compile sources, whose paths begin at `root`; return the object files by name."""

    def compile_one(source: Path) -> tuple[str, Path]:
        made = directory / f"{source.stem}.o"
        if not made.exists():
            _run(root, COMPILER, *BUILD["FLAGS"], *flags, *STRICT, "-c", source, "-o", made)
        return source.stem, made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(pool.map(compile_one, sources))


def _run(directory: Path, *command: Any) -> None:
    done = subprocess.run(list(map(str, command)), cwd=directory, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


class Emulated:
    """A backend whose kernels run in the emulator; as much of `Native` as the tests of kernels use.

    Args:
        program: what `Objects` has linked.
        place: where between untouchable pages tensors lie.
        packed: whether weights are packed, where they can be.
        cpu: the emulator's name of the processor.
    """

    name = "native"

    def __init__(self, program: Path, place: Place = Place.END, *, packed: bool = False, cpu: str = "max") -> None:
        assert EMULATOR is not None
        self.place, self.packed = place, packed
        command = [EMULATOR, "-cpu", cpu, str(program)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def close(self) -> int:
        """End the emulator; return its exit code."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(60)

    def supports(self, node: Node) -> bool:
        """Whether there is a kernel; see `Native`."""
        if not CHANGES.issuperset(node.op.changes) or disturbed(node):
            return False
        return self._ask(node, compute=False) != NOT_SUPPORTED

    def compile(self, steps: Sequence[Step]) -> Run:
        """Return a run that computes all steps in order."""
        return in_turn([(step.node, partial(self._compute, step.node)) for step in steps])

    def _compute(self, node: Node) -> None:
        outcome = self._ask(node, compute=True)
        if outcome == BAD_INDEX:
            in_turn([(node, apart(node, node.op.oracle))])(never)  # finds the same index, and raises
        assert outcome == DONE, f"{node.op.name}: outcome {outcome}"

    def _ask(self, node: Node, *, compute: bool) -> int:
        geometry = described(_declarations(), node)
        if geometry is None:
            return NOT_SUPPORTED
        tensors = [node.dst, *node.src, *[None] * (MAX_SRC - len(node.src))]
        written = {id(tensor.storage) for tensor in written_tensors(node)}
        spans = _spans(tensors) if compute else {}
        numbers = {identity: number for number, identity in enumerate(spans)}
        memories = [(len(data), identity in written) for identity, (data, _) in spans.items()]
        memories += [(0, False)] * (len(tensors) - len(memories))
        which = [-1 if tensor is None or not compute else numbers[id(tensor.storage)] for tensor in tensors]
        offsets = [0 if tensor is None or not compute else tensor.offset - spans[id(tensor.storage)][1] for tensor in tensors]
        head = [int(self.packed), PLACES[self.place], len(spans), *(number for memory in memories for number in memory)]
        told = [*head, *which, *offsets]
        parts = [bytes(_declarations().buffer(geometry)), struct.pack(f"<{len(told)}q", *told)]
        assert self.process.stdin is not None
        self.process.stdin.write(b"".join([*parts, *(data.tobytes() for data, _ in spans.values())]))
        self.process.stdin.flush()
        (outcome,) = struct.unpack("<q", self._read(8))
        for data, _ in spans.values():
            data[:] = np.frombuffer(self._read(len(data)), np.uint8)
        return int(outcome)

    def _read(self, size: int) -> bytes:
        assert self.process.stdout is not None
        found = self.process.stdout.read(size)
        assert len(found) == size, f"the emulated process ended with {self.process.wait(60)}"
        return found


@cache
def _declarations() -> FFI:
    """Return what C and Python know of each other, which is the same on both processors."""
    ffi = FFI()
    ffi.cdef((ROOT / HERE / "declared.h").read_text().partition("/* ---- what only the kernels see ---- */")[0])
    return ffi


def _spans(tensors: Sequence[Tensor | None]) -> dict[int, tuple[Any, int]]:
    """Return the bytes of each memory that tensors reach, by identity, and where those begin."""
    ends: dict[int, tuple[int, int, Any]] = {}
    for tensor in tensors:
        if tensor is not None:
            storage: Any = tensor.storage
            begin, end, _ = ends.get(id(storage), (tensor.offset, tensor.offset, storage))
            ends[id(storage)] = min(begin, tensor.offset), max(end, tensor.offset + tensor.nbytes), storage
    return {identity: (storage.data[begin:end], begin) for identity, (begin, end, storage) in ends.items()}
