"""Record whole conversations between a genuine client and server: the witness of how the protocol is spoken.

    .venv/bin/python -m vectors.tools.record_sessions                          # every session of 3.6.1
    .venv/bin/python -m vectors.tools.record_sessions views indices            # these only
    .venv/bin/python -m vectors.tools.record_sessions --build 8.0.0            # the sessions of another version

Our proxy stands between two processes of the genuine build, the server and a client, and changes no byte. The client is
`session_scenarios.py`, or llama.cpp that loads a model and continues a prompt. Two files are written for each session:
`<id>.recording`, every byte as it passed but for data that the session leaves out, and `<id>.json`, what `ggml-rpc-ref vectors
record` makes of it. Sessions of llama.cpp need the packages of the extra `test` (gguf) and, for Gemma 3 270M, the model
(`ggml-rpc-ref upstream model`).

A second recording gives the same JSON but for `bindings`, `provenance` and what is not compared ("any"). The proxy's port is always
the same, 50052, since llama.cpp names tensors by it ("RPC0[127.0.0.1:50052]#embd#0").

Two conversations at the same time can't be recorded: the genuine server serves one client at a time.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggml_rpc_ref import upstream
from ggml_rpc_ref.files.conversation import Exactly, Omitted, from_json
from ggml_rpc_ref.files.recording import Recorder
from ggml_rpc_ref.golden import omitted
from ggml_rpc_ref.golden.session import Labels, make
from ggml_rpc_ref.golden.symboliser import NMSE
from ggml_rpc_ref.net.stream import parse_endpoint
from ggml_rpc_ref.protocol.fnv import fnv1a
from ggml_rpc_ref.proxy.proxy import Proxy
from tests.support import tiny_models

HERE = Path(__file__).resolve()
VECTORS = HERE.parents[1]
PORT = 50052
TINY_PROMPT = [7, 191, 23, 250, 4, 118]
"""Tokens of the tiny model, which has no vocabulary."""


Play = Callable[[upstream.Build, str, Recorder], None]


@dataclass(frozen=True)
class Session:
    """What is recorded.

    Attributes:
        about: what it shows.
        play: has the client speak, through the proxy's endpoint; gets the recorder as well.
        devices: how many the server has.
        cached: whether the server keeps a cache, empty when it starts.
        leave_out: data parts above so many bytes are left out.
        nmse: limit for computed numbers.
    """

    about: str
    play: Play
    devices: int = 1
    cached: bool = False
    leave_out: int | None = None
    nmse: float = NMSE


def scenarios(*names: str) -> Play:
    """Have the genuine client play scenarios, each in a process of its own."""

    def play(build: upstream.Build, endpoint: str, _: Recorder) -> None:
        for name in names:
            with client(build, endpoint, name):
                pass

    return play


@contextmanager
def client(build: upstream.Build, endpoint: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a scenario with the genuine build's libraries; it must exit with status 0."""
    name, *others = map(str, arguments)
    command = [str(build.python), "-E", "-s", "-m", "vectors.tools.session_scenarios", name, str(build.libraries)]
    command += [endpoint.rpartition(":")[2], *others]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            command,
            cwd=HERE.parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=upstream.process.environment(),
        ) as process,
    ):
        yield process
        process.communicate(timeout=300)
        log.seek(0)
        assert process.returncode == 0, log.read()[-2000:]


def tiny(build: upstream.Build, endpoint: str, _: Recorder) -> None:
    """Have llama.cpp load a model of 2 layers with random weights, and generate."""
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "tiny.gguf"
        tiny_models.write("llama", model)
        upstream.generate(build.name, rpc=endpoint, prompt=TINY_PROMPT, n_predict=4, model=model, n_ctx=64)


def gemma(build: upstream.Build, endpoint: str, recorder: Recorder) -> None:
    """Have llama.cpp load Gemma 3 270M and generate.

    The server chooses the tokens (llama_set_sampler), so that no logits are sent, which are 1 MiB each time. The best two lie 2.4
    apart at least in each of the four steps, more than rounding moves them (tests/test_model.py). Inputs are kept, only weights are
    left out.
    """
    with client(build, endpoint, "gemma", upstream.find_model(), "A B C D E", 4) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loaded\n"
        time.sleep(0.5)  # the last weights have no reply: let the proxy take note of them
        recorder.leave_out_over = None


def check_left_out(content: Any) -> None:
    """See that what was left out are the model's tensors, and nothing else; and that nothing of them was kept."""
    model = omitted.Files([upstream.find_model()])
    for step in from_json(content).steps:
        for piece in step.pieces:
            assert not isinstance(piece, Omitted) or piece in model, piece
        if step.command == "SET_TENSOR" and isinstance(step.pieces[-1], Exactly):
            data = step.pieces[-1].data[76:]  # behind the address come name, padding and offset
            assert len(data) < 300 or Omitted(len(data), fnv1a(data)) not in model, "a weight was kept"


SESSIONS = {
    "devices": Session(
        "What a client asks before all else: devices, memory, alignment, the largest buffer.", scenarios("devices")
    ),
    "buffers": Session("Buffers allocated, cleared, written, read and freed; one that is too large.", scenarios("buffers")),
    "mul-mat-f32": Session("One product of F32 matrices.", scenarios("mul-mat-f32")),
    "mul-mat-q4-k": Session("One product with weights in Q4_K: with GET_ALLOC_SIZE and INIT_TENSOR.", scenarios("mul-mat-q4-k")),
    "recompute": Session(
        "A graph computed, computed again on other inputs, and another graph in between.", scenarios("recompute"), nmse=1e-7
    ),
    "views": Session("Views, permutations, copies by a graph and by COPY_TENSOR.", scenarios("views"), nmse=1e-7),
    "parts": Session("Tensors written and read in parts.", scenarios("parts"), nmse=1e-7),
    "elsewhere": Session("A graph with tensors that lie in no buffer of the server.", scenarios("elsewhere"), nmse=1e-7),
    "two-clients": Session(
        "A client leaves without freeing its buffers, and another one comes.", scenarios("first-client", "second-client"), nmse=1e-7
    ),
    "two-devices": Session(
        "A graph on each of two devices, and a tensor copied between them.", scenarios("two-devices"), devices=2, nmse=1e-7
    ),
    "hash-cache": Session(
        "Data over 10 MiB, all zero, uploaded once and then found in the server's cache.", scenarios("hash-cache"), cached=True,
        leave_out=2**20,
    ),
    "indices": Session("GET_ROWS, SET_ROWS and MUL_MAT_ID with indices in tensors.", scenarios("indices")),
    "tiny-llama": Session("llama.cpp loads a transformer of 2 layers, in full, and generates 4 tokens.", tiny),
    "gemma-3-270m": Session(
        "llama.cpp loads Gemma 3 270M in Q4_K_M and has the server choose 4 tokens; the weights are left out.", gemma,
        leave_out=300,
    ),
}  # fmt: skip
"""Limits for computed numbers are those of test-backend-ops of the 3.6.1 release: 5e-4 where there are products, else 1e-7.
Measured on our own server: 2.5e-5 for mul-mat-q4-k, 4.9e-7 for tiny-llama, 6e-15 or nothing for the others."""


OTHERS = ("devices", "buffers", "parts", "mul-mat-q4-k", "recompute", "views", "indices")
"""The sessions of versions other than 3.6.1: the small ones, in which every request that a plain client sends occurs."""


def folder(build: upstream.Build) -> Path:
    """Return the directory of a build's sessions."""
    return VECTORS / f"upstream-{build.protocol}-{build.package.name}-{build.package.version}" / "sessions"


def record(build: upstream.Build, id: str, session: Session) -> None:
    """Record one session and write both forms."""
    path = folder(build) / f"{id}.recording"
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory())) if session.cached else None
        server = stack.enter_context(upstream.server(build.name, threads=1, devices=session.devices, cache_dir=cache))
        told = {"endpoint": server.endpoint, "protocol": build.protocol, "tool": HERE.name}
        writer = Recorder(path, **told, leave_out_over=session.leave_out)
        recorder = stack.enter_context(writer)
        proxy = stack.enter_context(Proxy(parse_endpoint(server.endpoint), port=PORT, recorder=recorder))
        session.play(build, proxy.endpoint, recorder)
        while proxy.connections:  # the client is gone; what it said last is still on its way
            time.sleep(0.01)
    made = make(path, labels(build, id, session))
    assert not made.faults, made.faults
    assert not made.notes, made.notes
    if session.play is gemma:
        check_left_out(made.content)
    path.with_suffix(".json").write_text(made.text, encoding="utf-8")
    sizes = [file.stat().st_size for file in (path, path.with_suffix(".json"))]
    print(f"{id}: {len(made.content['steps'])} steps, {sizes[0]:,} and {sizes[1]:,} bytes")


def labels(build: upstream.Build, id: str, session: Session) -> Labels:
    """Return what the recording does not contain: its id, purpose, client, server, processor and command."""
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    return Labels(
        id=id,
        about=session.about,
        client=f"{build.package}, driven by vectors/tools/{HERE.name}",
        server=f"{build.package}, 1 thread, devices: {session.devices} x CPU, cache: {'yes' if session.cached else 'no'}",
        cpu=cpu,
        command=f"vectors/tools/{HERE.name} --build {build.name} {id}",
        nmse=session.nmse,
    )


def main() -> None:
    """Record the sessions named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--build", default="3.6.1", help="a version that is installed")
    parser.add_argument("id", nargs="*", help="sessions; default: all, of other versions than 3.6.1 the small ones")
    given = parser.parse_args()
    for id in given.id or (SESSIONS if given.build == "3.6.1" else OTHERS):
        record(upstream.find(given.build), id, SESSIONS[id])


if __name__ == "__main__":
    main()
