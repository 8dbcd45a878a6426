"""The genuine llama.cpp client generating text over RPC, as a subprocess that runs `genuine.py` in the build's own Python."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.upstream.builds import Build, find
from ggml_rpc_ref.upstream.gemma import find_model
from ggml_rpc_ref.upstream.process import SCRIPT, Failed, ending_of, environment, thread_count
from ggml_rpc_ref.upstream.releases import DEFAULT

SPLITS = {"layer": 1, "row": 2, "tensor": 3}
"""LLAMA_SPLIT_MODE_* of llama.h."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds of each part, without warm-up: the prompt's time includes the first transfer of the graph.

    Attributes:
        load_ms: loading the model.
        context_ms: making the context.
        prompt_ms: the whole prompt.
        token_ms: each token fed after it.
    """

    load_ms: float
    context_ms: float
    prompt_ms: float
    token_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Generation:
    """What a model generated greedily: at each step the token with the highest logit (of equal ones the lowest number).

    Attributes:
        protocol: version of the client.
        prompt_tokens: the prompt.
        tokens: the tokens chosen.
        text: the tokens as text.
        top: for each of `tokens` the best (token, logit) pairs, best first; empty unless asked for.
        timings: how long it took.
    """

    protocol: str
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    text: str
    top: tuple[tuple[tuple[int, float], ...], ...]
    timings: Timings

    def to_json(self) -> str:
        """Return one JSON object with these fields and `schema_version` 1."""
        return json.dumps({"schema_version": 1, **asdict(self)}, ensure_ascii=False)


def generate(
    version: str = DEFAULT,
    *,
    rpc: str | Sequence[str] | None,
    prompt: str | Sequence[int],
    n_predict: int = 32,
    model: Path | None = None,
    tokens: Sequence[int] | None = None,
    top: int = 0,
    n_ctx: int = 1024,
    threads: int | None = None,
    split: str = "layer",
    timeout: float = 600.0,
) -> Generation:
    """Have a genuine client load a model onto RPC servers, all layers, and continue a prompt greedily.

    Args:
        version: protocol version of the client.
        rpc: endpoint "HOST:PORT" of a server, or several that share the layers; None: computed on this machine's CPU.
        prompt: text, or tokens for a model without a vocabulary.
        n_predict: tokens to choose; fewer where the model ends its text.
        model: a GGUF file; by default Gemma 3 270M, which `model()` fetches.
        tokens: a continuation to feed in place of the tokens chosen (teacher forcing), so that two servers' logits can be
            compared step by step; it sets the number of steps, and the result's `tokens` are still those chosen.
        top: how many of the best logits to report for each step.
        n_ctx: room for prompt and continuation, in tokens.
        threads: threads for what the client computes itself. (default: half the cores)
        split: how several devices share the model, by llama.cpp's name: "layer" or, in newer releases, "tensor".
        timeout: seconds after which the client is killed.

    Raises:
        Misuse: where the version or the model is not installed.
        Failed: where the client can't do it or dies, as llama.cpp does when a server closes a connection.
    """
    runs = [(prompt, tokens)]
    (said,) = generate_each(
        version,
        rpc=rpc,
        runs=runs,
        n_predict=n_predict,
        model=model,
        top=top,
        n_ctx=n_ctx,
        threads=threads,
        split=split,
        timeout=timeout,
    )
    return said


def generate_each(
    version: str = DEFAULT,
    *,
    rpc: str | Sequence[str] | None,
    runs: Sequence[tuple[str | Sequence[int], Sequence[int] | None]],
    n_predict: int = 32,
    model: Path | None = None,
    top: int = 0,
    n_ctx: int = 1024,
    threads: int | None = None,
    split: str = "layer",
    timeout: float = 600.0,
) -> list[Generation]:
    """Have a genuine client load a model once and continue several prompts, each in a context of its own; see `generate`.

    Args:
        runs: for each prompt the prompt and the continuation to feed, or None where the tokens chosen are fed.
        timeout: seconds after which the client is killed, for all prompts together.

    Returns:
        One generation for each of `runs`, all with the same `load_ms`.

    Raises:
        Misuse: where the version or the model is not installed.
        Failed: where the client can't do it or dies.
    """
    build = find(version)
    if split not in SPLITS:
        raise Misuse(f"there is no split {split!r} of a model: give one of {', '.join(SPLITS)}")
    if n_predict < 1 or top < 0:
        raise Misuse(f"{n_predict} tokens with {top} logits each can't be generated: give at least 1 and 0")
    if not build.runs_models:
        raise Misuse(f"the build of {version} has no libllama, so it can't run a model: {install_llama(version)}")
    request = {
        "libraries": str(build.libraries),
        "shim": not build.package.environment,
        "split": SPLITS[split],
        "rpc": [] if rpc is None else [rpc] if isinstance(rpc, str) else list(rpc),
        "model": str(find_model() if model is None else model),
        "runs": [
            {"prompt": prompt if isinstance(prompt, str) else list(prompt), "tokens": None if tokens is None else list(tokens)}
            for prompt, tokens in runs
        ],
        "n_predict": n_predict,
        "top": top,
        "n_ctx": n_ctx,
        "threads": thread_count(threads),
    }
    reply = _run_client(build, json.dumps(request), timeout)
    return [_generation(version, said) for said in reply["generations"]]


def _generation(version: str, said: dict[str, Any]) -> Generation:
    timings = said["timings"]
    return Generation(
        protocol=version,
        prompt_tokens=tuple(said["prompt_tokens"]),
        tokens=tuple(said["tokens"]),
        text=said["text"],
        top=tuple(tuple((token, logit) for token, logit in step) for step in said["top"]),
        timings=Timings(**timings | {"token_ms": tuple(timings["token_ms"])}),
    )


def install_llama(name: str) -> str:
    """Return the half sentence about the command that adds llama.cpp's own library to a build."""
    return f"run `ggml-rpc-ref upstream install {name} --llama`"


def _run_client(build: Build, request: str, timeout: float) -> dict[str, Any]:
    try:
        done = subprocess.run(
            # -I: neither PYTHONPATH nor the script's directory is searched, so that nothing of ours can be imported there
            [str(build.python), "-I", str(SCRIPT), "generate"],
            input=request,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment(),
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"the genuine {build.protocol} client was not done after {timeout:g} s, and was ended") from None
    if done.returncode != 0:
        raise Failed(ending_of(f"the genuine {build.protocol} client", done.returncode, done.stderr))
    reply: dict[str, Any] = json.loads(done.stdout)
    return reply
