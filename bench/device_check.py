"""Check the CUDA backend on a machine with a GPU, in under five minutes: is everything right, and how fast is it?

    python bench/device_check.py                       a table, and device_check.json
    python bench/device_check.py --device cuda:1 --seconds 120 --json here.json
    python bench/device_check.py --pack FOLDER         a folder to carry to a machine without a network
    python bench/device_check.py --compile             compile every kernel for each architecture; say what each takes
    python bench/device_check.py --install FOLDER      pycuda for this Python, to put on PYTHONPATH, also where there is no GPU

Every part is one row of the table: right, wrong, or not done and why. The exit code is 1 where something is wrong.
`--pack` needs CUDA's headers, a C++ compiler, a network, and the Python of the other machine (`--python`), to build pycuda for it;
the folder's RUN says what to do there.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HERE))  # run as a script, with the package beside it rather than installed

from ggml_rpc_ref import upstream  # noqa: E402
from ggml_rpc_ref.backends import DeviceFault, Step, never  # noqa: E402
from ggml_rpc_ref.backends.cuda import compiler  # noqa: E402
from ggml_rpc_ref.backends.cuda.backend import Cuda  # noqa: E402
from ggml_rpc_ref.backends.cuda.device import Launch  # noqa: E402
from ggml_rpc_ref.backends.cuda.geometry import GEOMETRY  # noqa: E402
from ggml_rpc_ref.backends.cuda.memory import PIECE  # noqa: E402
from ggml_rpc_ref.errors import Misuse  # noqa: E402
from ggml_rpc_ref.ops import ops_of  # noqa: E402
from ggml_rpc_ref.ops.cases import cases_of, recipes  # noqa: E402
from ggml_rpc_ref.ops.cases.case import Case, Operand  # noqa: E402
from ggml_rpc_ref.ops.op import Node  # noqa: E402
from ggml_rpc_ref.ops.tolerance import Tolerance  # noqa: E402
from ggml_rpc_ref.spec.versions import DEFAULT, NEWEST, V2_0_0, V4_0_0, Version  # noqa: E402
from tests.support.gpu.judge import free, judge, kernels_of, moved  # noqa: E402

PYCUDA = "pycuda==2026.1"
NEEDED = ("pytools", "platformdirs", "mako", "markupsafe", "typing-extensions", "siphash24")
"""What pycuda imports."""


@dataclass
class Row:
    """One line of the table.

    Attributes:
        part: what was checked or measured.
        state: "right", "wrong", "measured", or "not done".
        text: how much of it, in words; for what was not done, why.
        seconds: how long it took.
        figures: the numbers, for JSON.
    """

    part: str
    state: str
    text: str
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)


Part = Callable[[Cuda, float], Row]
"""Gets the backend and the seconds that it may take."""


# ---------------------------------------------------------------------------------------------------------------- right


def node_of(name: str, case: Case, version: Version = DEFAULT) -> Node:
    op = ops_of(version)[name]
    return op.check(*recipes.build(name, case), op.pack(case.params))


def cases_with_elements(name: str) -> Iterator[tuple[Case, Version]]:
    """Yield the cases of an op that compute something; those that other versions have with one of them."""
    known = set()
    for version in (DEFAULT, NEWEST, V2_0_0, V4_0_0):
        for case in cases_of(name, version):
            if case.id not in known and 0 not in case.dst.quad:
                yield case, version
            known.add(case.id)


def vectors(backend: Cuda, seconds: float) -> Row:
    """Every op vector's input against the oracle."""
    found = ((name, case, version) for name in sorted(backend.KERNELS) for case, version in cases_with_elements(name))
    nodes = ((f"{name} {case.id}", node_of(name, case, version), case.tolerance) for name, case, version in found)
    return judged("op vectors", backend, nodes, seconds)


def shapes(backend: Cuda, seconds: float) -> Row:
    """Random shapes against the oracle, for as long as there is time."""
    rng = np.random.default_rng(0)
    return judged("random shapes", backend, (draw(rng, number) for number in range(4000)), seconds)


def tiles(backend: Cuda, seconds: float) -> Row:
    """Random products of many rows as a device computes them whose wgmma is not trusted."""
    rng = np.random.default_rng(2)
    nodes = ((f"MUL_MAT number {number}", node_of("MUL_MAT", product(rng)), None) for number in range(100))
    return judged("products by mma.sync", without_wgmma(backend), nodes, seconds)


def judged(part: str, backend: Cuda, nodes: Iterator[tuple[str, Node, Tolerance | None]], seconds: float) -> Row:
    """Judge nodes until they or the time end."""
    begun, taken, left, wrong, cut = time.monotonic(), 0, 0, list[str](), False
    for what, node, tolerance in nodes:
        if time.monotonic() - begun > seconds:
            cut = True
            break
        try:
            if judge(backend, node, tolerance):
                taken += 1
            else:
                left += 1
        except (AssertionError, DeviceFault) as error:
            wrong.append(f"{what}: {error}")
    text = f"{taken} by kernels as the oracle has them, {left} left to the oracle" + (", then time was up" if cut else "")
    if wrong:
        text = f"{len(wrong)} wrong, the first: {wrong[0]}"
    figures = {"taken": taken, "left": left, "cut": cut, "wrong": wrong}
    return Row(part, "wrong" if wrong or not taken else "right", text, figures=figures)


def draw(rng: np.random.Generator, number: int) -> tuple[str, Node, None]:
    """Return a random node of an op that a model's graph is made of."""
    name = ["MUL_MAT", "MUL_MAT_ID", "FLASH_ATTN_EXT", "ADD", "RMS_NORM", "SOFT_MAX"][number % 6]
    return f"{name} number {number}", node_of(name, DRAWN[name](rng)), None


def one(rng: np.random.Generator, *choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def f32(*ne: int) -> Operand:
    return Operand("F32", ne)


def product(rng: np.random.Generator) -> Case:
    k, rows, columns = 256 * int(rng.integers(1, 9)), int(rng.integers(1, 300)), int(one(rng, 1, 2, 7, 8, 9, 63, 64, 65, 130))
    weights = one(
        rng, "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL"
    )
    return Case("", f32(rows, columns, 2), (Operand(weights, (k, rows)), f32(k, columns, 2)))


def experts(rng: np.random.Generator) -> Case:
    k, rows, count, used, tokens = 256 * int(rng.integers(1, 5)), *(int(n) for n in rng.integers(1, (100, 17, 5, 9)))
    chosen = Operand("I32", (used, tokens), fill=f"index:{count}")
    return Case(
        "",
        f32(rows, used, tokens),
        (Operand(one(rng, "F16", "Q8_0", "Q4_K", "Q6_K"), (k, rows, count)), f32(k, used, tokens), chosen),
    )


def attention(rng: np.random.Generator) -> Case:
    dk, keys, queries, shared, each = int(one(rng, 64, 128, 256)), *(int(n) for n in rng.integers(1, (700, 70, 4, 5)))
    kind = one(rng, "F16", "F32", "Q8_0")
    src = f32(dk, queries, shared * each), Operand(kind, (dk, keys, shared)), Operand(kind, (dk, keys, shared))
    params = {"scale": 0.1, "max_bias": 0.0, "logit_softcap": one(rng, 0.0, 30.0)}
    return Case("", f32(dk, shared * each, queries), (*src, Operand("F16", (keys, queries), fill="mask")), params)


def sum_of(rng: np.random.Generator) -> Case:
    ne = [int(n) for n in rng.integers(1, (5000, 40, 4, 3))]
    return Case("", f32(*ne), (f32(*ne), f32(*(n if rng.integers(2) else 1 for n in ne))))


def rows_of(params: dict[str, float]) -> Callable[[np.random.Generator], Case]:
    def draw_rows(rng: np.random.Generator) -> Case:
        ne = [int(n) for n in rng.integers(1, (9000, 40, 4))]
        return Case("", f32(*ne), (f32(*ne),), params)

    return draw_rows


DRAWN: dict[str, Callable[[np.random.Generator], Case]] = {
    "MUL_MAT": product,
    "MUL_MAT_ID": experts,
    "FLASH_ATTN_EXT": attention,
    "ADD": sum_of,
    "RMS_NORM": rows_of({"eps": 1e-6}),
    "SOFT_MAX": rows_of({"scale": 0.5, "max_bias": 0.0}),
}


def moving(backend: Cuda, _: float) -> Row:
    """Bytes through pinned memory and back, and copies over themselves."""
    size = 3 * PIECE + 4321
    data = np.random.default_rng(1).integers(0, 256, size, np.uint8)
    allocation = backend.memory.allocate(size)
    if allocation is None:
        return Row("transfers", "wrong", f"no room for {size} bytes")
    at = 0
    for room in allocation.receive(0, size):
        room[:] = data[at : at + len(room)].data
        at += len(room)
    same = b"".join(bytes(piece) for piece in allocation.pieces(0, size)) == data.tobytes()
    allocation.copy(1000, allocation, 0, 2 * PIECE)
    data[1000 : 1000 + 2 * PIECE] = data[: 2 * PIECE].copy()
    same &= bytes(allocation.download(0, size)) == data.tobytes()
    allocation.free()
    return Row("transfers", "right" if same else "wrong", f"{size} bytes there, over themselves, and back")


def fault(backend: Cuda, _: float) -> Row:
    """A kernel that touches address 0 ends its context, and a fresh one computes; the last of the checks that share a context."""
    device = backend.memory.device()
    log = logging.getLogger("ggml_rpc_ref")
    level, log.level = log.level, logging.CRITICAL
    try:
        with backend.memory.watched(device):
            recorded = device.record([Launch("add", "add", (1, 1, 1), 32, 0, bytes(GEOMETRY.itemsize))])
            recorded.start()
            recorded.wait()
        return Row("a kernel's fault", "wrong", "a kernel read address 0 and nothing was said")
    except DeviceFault as error:
        node = node_of("ADD", Case("", f32(8), (f32(8), f32(8))))
        try:
            computed = judge(backend, node)
        except (DeviceFault, AssertionError) as again:
            return Row("a kernel's fault", "wrong", f"seen ({error}), but no fresh context computes: {again}")
        return Row("a kernel's fault", "right" if computed else "wrong", f"seen ({error}); a fresh context computes")
    finally:
        log.level = level


def sanitizer(device: str) -> Part:
    """A sample of the vectors under compute-sanitizer's memcheck, in a process of its own."""

    def check(_: Cuda, seconds: float) -> Row:
        tool = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
        if tool is None:
            return Row("compute-sanitizer", "not done", "it is not on this machine")
        command = [tool, "--tool", "memcheck", "--error-exitcode", "9", sys.executable, __file__, "--device", device, "--sample"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return Row("compute-sanitizer", "not done", f"it did not end within {seconds:.0f} s")
        tail = (done.stdout + done.stderr).strip().splitlines()[-1:] or [""]
        if "not supported" in done.stdout + done.stderr:
            return Row("compute-sanitizer", "not done", f"it refuses this device: {tail[0]}")
        return Row("compute-sanitizer", "right" if done.returncode == 0 else "wrong", f"memcheck: {tail[0]}")

    return check


def sample(backend: Cuda) -> bool:
    """Compute one case of each op, for compute-sanitizer."""
    for name in sorted(backend.KERNELS):
        for case, version in islice(cases_with_elements(name), 2):
            judge(backend, node_of(name, case, version), case.tolerance)
    return True


def gemma(device: str) -> Part:
    """What a stock llama.cpp says on `serve -d cuda`, beside what it says on the oracle, where one is installed."""

    def check(_: Cuda, seconds: float) -> Row:
        from ggml_rpc_ref.server.host import make_host
        from ggml_rpc_ref.server.server import Server

        try:
            model = upstream.find_model()
            prompts = [("The capital of France is", None)]
            said = {}
            for name in ("oracle", device):
                with Server(make_host(name)) as server:
                    said[name] = upstream.generate_each(
                        "3.6.1", rpc=server.endpoint, model=model, runs=prompts, n_predict=16, top=8
                    )[0]
        except Exception as error:
            return Row("Gemma 3 270M", "not done", f"{type(error).__name__}: {error}")
        same = sum(a == b for a, b in zip(said["oracle"].tokens, said[device].tokens, strict=True))
        return Row("Gemma 3 270M", "measured", f"{same} of 16 greedy tokens as on the oracle", figures={"same": same})

    return check


# -------------------------------------------------------------------------------------------------------------- figures


def timed(backend: Cuda, node: Node, repeat: int, rounds: int) -> float:
    """Return the least seconds that one computation of a node took, of some recordings of many."""
    there = moved(node, backend)
    run = backend.compile([Step(there, backend.name)] * repeat)
    run(never)
    best = float("inf")
    for _ in range(rounds):
        begun = time.perf_counter()
        run(never)
        best = min(best, (time.perf_counter() - begun) / repeat)
    free(there)
    return best


def figures(scale: int = 1) -> Iterator[tuple[str, Part]]:
    """Yield what is measured; `scale` divides the sizes, for a trial without a GPU."""
    k, most = max(256, 4096 // scale), max(256, 8192 // scale)  # rows of Q4_K have whole blocks
    for rows in (1024, 14336, 65536):
        for weights in ("Q4_K", "Q5_0", "Q6_K", "Q8_0"):
            yield f"{weights} × vector, {k} × {rows // scale}", _vector(weights, k, rows // scale)
    for weights in ("F16", "BF16"):
        yield f"{weights} product, {8192 // scale}³", _square(weights, 8192 // scale)
    yield f"F16 product by mma.sync, {8192 // scale}³", lambda backend, _: _square("F16", 8192 // scale)(without_wgmma(backend), _)
    yield f"Q4_K product, {most}³", _square("Q4_K", most)
    yield f"attention over {32768 // scale} keys", _attention(32768 // scale, 2**30 // scale**2)
    yield f"attention of {512 // scale} queries over {4096 // scale}", _prompt(4096 // scale, 512 // scale)
    yield "upload", _upload


def _random(dtype: str, ne: tuple[int, ...]) -> Operand:
    return Operand(dtype, ne, fill="zeros" if dtype == "F16" else "bits" if dtype == "BF16" else "blocks")


def _vector(weights: str, k: int, rows: int) -> Part:
    def measure(backend: Cuda, _: float) -> Row:
        node = node_of("MUL_MAT", Case("", f32(rows), (_random(weights, (k, rows)), f32(k))))
        seconds = timed(backend, node, 100, 5)
        rate = node.source(0).nbytes / seconds
        cached = " (it fits a cache)" if node.source(0).nbytes < 2**26 else ""
        return Row("", "measured", f"{rate / 1e9:.0f} GB/s of weights{cached}", figures={"bytes_per_second": rate})

    return measure


def without_wgmma(backend: Cuda) -> Cuda:
    """Return the backend of the same device as it is where products by warpgroups are not trusted."""
    other = Cuda(backend.memory, backend.name)
    other._limits = replace(other._limits, wgmma=False)
    return other


def _square(weights: str, n: int) -> Part:
    """A product of two square matrices, src1's rounding to 16 bits included, beside cuBLAS with both of them in 16 bits already."""

    def measure(backend: Cuda, _: float) -> Row:
        node = node_of("MUL_MAT", Case("", f32(n, n), (_random(weights, (n, n)), Operand("F32", (n, n), fill="zeros"))))
        rate = 2 * n**3 / timed(backend, node, 2, 3)
        library = cublas(weights, n)
        beside = f", {rate / library:.2f} of cuBLAS in this run" if library else ""
        text = f"{rate / 1e12:.1f} TFLOP/s by {kernels_of(backend, node)[-1]}{beside}"
        return Row("", "measured", text, figures={"flops": rate, "cublas": library})

    return measure


def cublas(weights: str, n: int) -> float:
    """Return what cuBLAS computes in a second, by PyTorch; 0 where that is not here."""
    try:
        import torch
    except ImportError:
        return 0.0
    if not torch.cuda.is_available():
        return 0.0
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.float16 if weights == "F16" else torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(5):
            a @ b
        torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - begun) / 5)
    return 2 * n**3 / best


def copying_rate(backend: Cuda, size: int) -> float:
    """Return the bytes that the device's memory reads and writes in a second while it copies so many; the least time of three."""
    one, other = backend.memory.allocate(size), backend.memory.allocate(size)
    if one is None or other is None:
        raise MemoryError(f"no room for two times {size} bytes")
    best = float("inf")
    for _ in range(4):  # the first one warms up
        begun = time.perf_counter()
        one.copy(0, other, 0, size)
        best = min(best, time.perf_counter() - begun)
    one.free()
    other.free()
    return 2 * size / best


def attending(keys: int, queries: int) -> Node:
    """Return attention of 32 heads of 128 elements, four of which share keys and values."""
    dk, heads, shared = 128, 32, 8
    kv = Operand("F16", (dk, keys, shared), fill="zeros")
    src = f32(dk, queries, heads), kv, kv, Operand("F16", (keys, queries), fill="zeros")
    params = {"scale": 0.1, "max_bias": 0.0, "logit_softcap": 0.0}
    return node_of("FLASH_ATTN_EXT", Case("", f32(dk, heads, queries), src, params))


def _attention(keys: int, copied: int) -> Part:
    """A token's attention, beside what the device's memory is able to: reading and writing while it copies."""

    def measure(backend: Cuda, _: float) -> Row:
        node = attending(keys, 1)
        rate, most = 2 * node.source(1).nbytes / timed(backend, node, 10, 3), copying_rate(backend, copied)
        what = f"{rate / 1e9:.0f} GB/s of keys and values by {kernels_of(backend, node)[0]}"
        text = f"{what}, {rate / most:.2f} of a copy's rate in this run"
        return Row("", "measured", text, figures={"bytes_per_second": rate, "copying": most})

    return measure


def _prompt(keys: int, queries: int) -> Part:
    def measure(backend: Cuda, _: float) -> Row:
        node = attending(keys, queries)
        rate = 4 * queries * keys * 32 * 128 / timed(backend, node, 2, 3)
        text = f"{rate / 1e12:.1f} TFLOP/s by {kernels_of(backend, node)[0]}"
        return Row("", "measured", text, figures={"flops": rate})

    return measure


def _upload(backend: Cuda, _: float) -> Row:
    size = 64 * PIECE
    allocation = backend.memory.allocate(size)
    if allocation is None:
        return Row("", "not done", "no room")
    best = float("inf")
    for _ in range(3):
        begun = time.perf_counter()
        for _room in allocation.receive(0, size):
            pass
        best = min(best, time.perf_counter() - begun)
    allocation.free()
    return Row("", "measured", f"{size / best / 1e9:.1f} GB/s from pinned memory", figures={"bytes_per_second": size / best})


# ------------------------------------------------------------------------------------------------------------ the whole


def parts(device: str, scale: int = 1) -> Iterator[tuple[str, Part, float]]:
    """Yield each part with its share of the time."""
    yield "op vectors", vectors, 0.2
    yield "random shapes", shapes, 0.2
    yield "products by mma.sync", tiles, 0.02
    yield "transfers", moving, 0.02
    yield "Gemma 3 270M", gemma(device), 0.15
    yield "compute-sanitizer", sanitizer(device), 0.2
    for name, part in figures(scale):
        yield name, part, 0.01
    yield "a kernel's fault", fault, 0.02


def check(backend: Cuda, chosen: Sequence[tuple[str, Part, float]], seconds: float) -> Iterator[Row]:
    """Run parts; what one of them raises is its row, and the others go on."""
    end = time.monotonic() + seconds
    for name, part, share in chosen:
        begun = time.monotonic()
        if begun > end:
            row = Row(name, "not done", f"{seconds:.0f} s were over")
        else:
            try:
                row = part(backend, share * seconds)
            except Exception as error:
                row = Row(name, "wrong", f"{type(error).__name__}: {error}")
        row.part, row.seconds = name, round(time.monotonic() - begun, 2)
        yield row


def show(row: Row) -> None:
    print(f"{row.part:<36} {row.state:<9} {row.seconds:7.1f} s  {row.text[:300]}", flush=True)


def compile_all() -> list[Row]:
    """Compile every op's kernels for each architecture."""
    jobs = [(op, capability) for capability in compiler.ARCHITECTURES for op in compiler.ops()]

    def compiled(job: tuple[str, int]) -> Row:
        begun = time.monotonic()
        try:
            kernels = compiler.usage(*job)
        except Misuse as error:
            return Row(f"{job[0]} {compiler.architecture(job[1])}", "wrong", str(error))
        most, spilt = max(k.registers for k in kernels), sum(k.spills for k in kernels)
        shared = max(k.shared for k in kernels)
        text = f"{len(kernels)} kernels, at most {most} registers, {spilt} bytes spilt, at most {shared} shared"
        listed = {"kernels": [k._asdict() for k in kernels]}
        return Row(f"{job[0]} {compiler.architecture(job[1])}", "right", text, round(time.monotonic() - begun, 1), listed)

    rows = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        for row in threads.map(compiled, jobs):
            show(row)
            rows.append(row)
    return rows


RUN = """\
Unpacked on a machine with a GPU, nvcc and Python {version}, in this folder:

    python3 -m pip install --no-index --no-deps --target site wheels/*.whl
    PYTHONPATH=site python3 source/bench/device_check.py --json device_check.json
"""


def build_pycuda(python: str, wheels: Path, build: Path) -> None:
    """Build pycuda's wheel for another Python, without its CURAND, of which this backend has no use."""
    build.mkdir(exist_ok=True)
    # it links with the driver's library, which a machine without a GPU lacks: an empty one of its name will do
    library = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-x", "c", os.devnull, "-o", str(build / "libcuda.so")]
    subprocess.run(["gcc", *library], check=True)
    home = Path(os.environ.get("CUDA_HOME") or Path(compiler.nvcc() or "/usr/local/cuda/bin/nvcc").resolve().parents[1])
    root = home if (home / "include" / "cuda.h").exists() else Path("/usr/local/cuda")
    settings = f"CUDA_ENABLE_CURAND = False\nCUDA_ROOT = {str(root)!r}\nCUDA_INC_DIR = [{str(root / 'include')!r}]\n"
    settings += f"CUDADRV_LIB_DIR = [{str(build.resolve())!r}]\n"
    # its setup.py reads this file in the home directory
    (build / ".aksetup-defaults.py").write_text(settings)
    command = [python, "-m", "pip", "wheel", "--no-deps", "-w", str(wheels), PYCUDA]
    subprocess.run(command, env=os.environ | {"HOME": str(build.resolve())}, check=True)
    shutil.rmtree(build)


def install(folder: Path) -> None:
    """Build pycuda, and put it and what it needs into a folder; a half-finished one is no folder."""
    with TemporaryDirectory(dir=folder.parent) as scratch:
        wheels = Path(scratch) / "wheels"
        build_pycuda(sys.executable, wheels, Path(scratch) / "build")
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(Path(scratch) / "site")]
        subprocess.run([*command, *map(str, wheels.glob("*.whl")), *NEEDED], check=True)
        (Path(scratch) / "site").rename(folder)


def pack(folder: Path, python: str) -> None:
    """Make the folder to carry: the repository's files, and pycuda with what it needs as wheels for that Python."""
    wheels, source = folder / "wheels", folder / "source"
    wheels.mkdir(parents=True, exist_ok=True)
    files = subprocess.run(
        ["git", "ls-files", "ggml_rpc_ref", "tests/support", "tests/__init__.py", "bench"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in files.stdout.split():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        # a link to a folder of vectors/ becomes what it points to
        copy = shutil.copytree if (HERE / name).is_dir() else shutil.copy2
        copy(HERE / name, source / name)
    version = subprocess.run(
        [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True, check=True
    ).stdout.strip()
    build_pycuda(python, wheels, folder / "build")
    subprocess.run([python, "-m", "pip", "wheel", "--no-deps", "--only-binary", ":all:", "-w", str(wheels), *NEEDED], check=True)
    (folder / "RUN").write_text(RUN.format(version=version))
    print((folder / "RUN").read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=270.0, help="in all")
    parser.add_argument("--json", type=Path, default=Path("device_check.json"))
    parser.add_argument("--pack", type=Path, metavar="FOLDER")
    parser.add_argument("--python", default="python3.12", help="for --pack: the other machine's Python")
    parser.add_argument("--install", type=Path, metavar="FOLDER")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--sample", action="store_true", help="one case of each op and nothing else, for compute-sanitizer")
    options = parser.parse_args()
    if options.pack:
        pack(options.pack, options.python)
        return 0
    if options.install:
        install(options.install)
        return 0
    try:
        rows = compile_all() if options.compile else run(options)
    except Misuse as error:
        print(f"device_check: {error}", file=sys.stderr)
        return 2
    options.json.write_text(json.dumps({"machine": platform.platform(), "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    return 1 if any(row.state == "wrong" for row in rows) else 0


def run(options: argparse.Namespace) -> list[Row]:
    """Run all parts on a GPU."""
    from ggml_rpc_ref.backends.cuda import unavailable

    index = int(options.device.partition(":")[2] or 0)
    if reason := unavailable(index):
        raise Misuse(f"{options.device} can't be used: {reason}")
    begun = time.monotonic()
    backend = Cuda.on_device(index, options.device)
    first = Row("opening, compiling where needed", "right", backend.description, round(time.monotonic() - begun, 1))
    if options.sample:
        sample(backend)
        return [first]
    rows = [first]
    show(first)
    for row in check(backend, list(parts(options.device)), options.seconds - (time.monotonic() - begun)):
        show(row)
        rows.append(row)
    return rows


if __name__ == "__main__":
    sys.exit(main())
