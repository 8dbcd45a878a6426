"""The command `run`."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ggml_rpc_ref.commands.options import LONGEST_TIMEOUT
from ggml_rpc_ref.errors import Misuse

if TYPE_CHECKING:
    from ggml_rpc_ref.client.devices import Device
    from ggml_rpc_ref.models.gguf_file import ModelFile


def run(
    model: Annotated[Path, typer.Argument(metavar="MODEL.gguf", help="A model of the architecture gemma3.", show_default=False)],
    prompt: Annotated[str, typer.Option(help="The text to continue.", show_default=False)],
    rpc: Annotated[str, typer.Option(metavar="HOST:PORT,…", help="Servers that share the layers; none: this machine alone.")] = "",
    tensor_split: Annotated[
        str, typer.Option(metavar="3,1", help="Proportions of the servers' devices. (default: by their free memory)")
    ] = "",
    n_predict: Annotated[int, typer.Option("-n", "--n-predict", min=1, help="Tokens to generate, at most.")] = 32,
    n_ctx: Annotated[int, typer.Option("-c", "--ctx-size", min=1, help="Tokens that prompt and continuation may have.")] = 1024,
    device: Annotated[str, typer.Option("-d", "--device", help="What computes on this machine, as `serve -d`.")] = "auto",
    threads: Annotated[int, typer.Option("-t", "--threads", min=0, help="Threads on this machine; 0: half the cores.")] = 0,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=LONGEST_TIMEOUT, metavar="SECONDS", help="How long one answer of a server may take.")
    ] = 60.0,
    explain: Annotated[bool, typer.Option("--explain", help="Show the splits of the last graph, on standard error.")] = False,
) -> None:
    """Run a model over several servers from Python, greedily: an example of the scheduler (models/gemma3.py)."""
    from ggml_rpc_ref.client.scheduler.lost import ServerLost
    from ggml_rpc_ref.client.scheduler.scheduler import Scheduler
    from ggml_rpc_ref.commands.parsing import distinct_endpoints, proportions
    from ggml_rpc_ref.models.gemma3 import Gemma3
    from ggml_rpc_ref.models.gguf_file import ModelFile
    from ggml_rpc_ref.this_machine.devices import local

    split = proportions(tensor_split) if tensor_split else "memory"
    file = ModelFile(model)
    if file.vocabulary is None:
        raise Misuse(f"{model} has no vocabulary of SentencePiece's kind, so a text can't be read as tokens")
    tokens = file.vocabulary.encode(prompt)
    if len(tokens) + n_predict > n_ctx:
        raise Misuse(f"a prompt of {len(tokens)} tokens and {n_predict} more do not fit in a context of {n_ctx}: give -c")
    endpoints = distinct_endpoints(rpc.split(",")) if rpc else []
    try:
        with Scheduler([*_devices(endpoints, timeout), local(device, threads=threads)]) as scheduler:
            made = Gemma3(scheduler, file, split, n_ctx, _progress(sum(_sizes(file))))
            begun = time.monotonic()
            _print_tokens(file, made.generate(tokens, n_predict))
            seconds = time.monotonic() - begun
            print(f"{made.position} tokens in {seconds:.1f} s", file=sys.stderr)
            if explain:
                print(made.explain(), file=sys.stderr)
    except ServerLost as lost:
        # here nobody goes on: the keys and values of what was said are gone with the server
        others = ",".join(endpoint for endpoint in endpoints if endpoint != lost.endpoint)
        raise ConnectionError(f"{lost.what}; run again {f'with --rpc {others}' if others else 'without --rpc'}") from lost


def _devices(endpoints: list[str], timeout: float) -> list[Device]:
    """Return every device of every server; all are asked before anything is sent to one."""
    from ggml_rpc_ref.client.device_info import count_devices
    from ggml_rpc_ref.client.registry import rpc_init

    firsts = [rpc_init(endpoint, timeout=timeout) for endpoint in endpoints]
    counts = [count_devices(first.client) for first in firsts]
    return [
        rpc_init(first.endpoint, index, timeout=timeout)
        for first, count in zip(firsts, counts, strict=True)
        for index in range(count)
    ]


def _sizes(file: ModelFile) -> list[int]:
    from ggml_rpc_ref.client.words import quad
    from ggml_rpc_ref.tensor import contiguous_nb, extent

    rows = [(weight.dtype, quad(weight.ne)) for weight in file.weights.values()]
    return [extent(dtype, ne, contiguous_nb(dtype, ne)) for dtype, ne in rows]


def _progress(total: int) -> Callable[[Device, str, int], None]:
    """Return what is called for each weight that has arrived: it prints a line for each tenth of all bytes."""
    lock, state = threading.Lock(), {"done": 0, "shown": 0}

    def progress(device: Device, name: str, size: int) -> None:
        with lock:
            state["done"] += size
            tenth = min(10, state["done"] * 10 // total)
            if tenth > state["shown"]:
                state["shown"] = tenth
                print(f"upload: {state['done'] / 2**20:.0f} MiB, {name} to {device.name}", file=sys.stderr, flush=True)

    return progress


def _print_tokens(file: ModelFile, tokens: Iterable[int]) -> None:
    """Print tokens as they come, whole characters only."""
    import codecs

    assert file.vocabulary is not None
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    try:
        for token in tokens:
            if token in file.vocabulary.ends:
                break
            print(decoder.decode(file.vocabulary.decode([token])), end="", flush=True)
    finally:  # what a failure says begins on a line of its own
        print(decoder.decode(b"", final=True))
