"""Genuine llama.cpp at work: its RPC server as a subprocess, and its client generating text over RPC.

Both run `genuine.py` in the build's own Python, so that llama.cpp never shares a process with us: a failed assertion in it
ends its process and becomes one sentence here.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.upstream.builds import Build, find
from ggml_rpc_ref.upstream.environment import Failed
from ggml_rpc_ref.upstream.gemma import find_model
from ggml_rpc_ref.upstream.releases import DEFAULT

SCRIPT = Path(__file__).with_name("genuine.py")
REFUSED = 64
"""Exit status of `genuine.py` when its last line of standard error is a sentence for the caller."""

_READY = re.compile(r"^ready (\S+) protocol (\S+)$", re.MULTILINE)


# --- the server -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Server:
    """A genuine server that runs: where it listens, what it says it speaks, and its process.

    The process ends with the `with` block of `server`, or with the process that started it, however that ends.
    """

    endpoint: str
    protocol: str
    process: subprocess.Popen[bytes]
    log_file: Path

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def log(self) -> str:
        """Return what the server has printed so far; inside the `with` block only."""
        return self.log_file.read_text(errors="replace")


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a server is to run; `server` says what each means."""

    host: str = "127.0.0.1"
    port: int = 0
    threads: int | None = None
    devices: int = 1
    cache_dir: Path | None = None


def server(
    version: str = DEFAULT,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    threads: int | None = None,
    devices: int = 1,
    cache_dir: Path | None = None,
    timeout: float = 60.0,
) -> AbstractContextManager[Server]:
    """Run the genuine server of a protocol version for the length of a `with` block; port 0 picks a free one.

    It serves the CPU `devices` times, with `threads` threads (default: half the cores, as upstream's rpc-server), and keeps
    tensors over 10 MiB in `cache_dir` where one is given. Misuse where the version isn't installed; Failed where the server
    ends, or does not answer HELLO within `timeout` seconds.
    """
    return server_of(find(version), Wishes(host, port, threads, devices, cache_dir), timeout)


@contextmanager
def server_of(build: Build, wishes: Wishes, timeout: float = 60.0) -> Iterator[Server]:
    """Do the same with a build at hand, as `server` and the trial start of a new build do."""
    command = _serve_command(build, wishes, owned=True)
    with tempfile.TemporaryDirectory(prefix="ggml-rpc-ref-") as directory:
        log = Path(directory) / "server.log"
        # Our end of the pipe is never written to: its closing tells the server that we are gone.
        with (
            log.open("wb") as out,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out, env=_environ()) as process,
        ):
            try:
                yield _wait_until_ready(build, process, log, timeout)
            finally:
                _end(process)


def serve(
    version: str = DEFAULT,
    *,
    host: str = "127.0.0.1",
    port: int = 50052,
    threads: int | None = None,
    devices: int = 1,
    cache_dir: Path | None = None,
) -> NoReturn:
    """Become the genuine server, in the foreground, until a signal ends it.

    This process is replaced, so that signals, the exit status and the memory shown by the system are the server's own.
    """
    command = _serve_command(find(version), Wishes(host, port, threads, devices, cache_dir), owned=False)
    os.execve(command[0], command, _environ())


def _serve_command(build: Build, wishes: Wishes, *, owned: bool) -> list[str]:
    """Return the command that runs the server; an owned one ends when our end of its standard input closes."""
    if not 0 <= wishes.port <= 65535:
        raise Misuse(f"{wishes.port} is no port: give one from 1 to 65535, or 0 for a free one")
    if wishes.devices < 1:
        raise Misuse(f"a server can't have {wishes.devices} devices: give at least 1")
    request = asdict(wishes) | {
        "protocol": build.protocol,
        "threads": _threads(wishes.threads),
        "cache_dir": None if wishes.cache_dir is None else str(wishes.cache_dir),
        "owned": owned,
    }
    return [str(build.python), "-I", str(SCRIPT), "serve", json.dumps(request)]


def _wait_until_ready(build: Build, process: subprocess.Popen[bytes], log: Path, timeout: float) -> Server:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        status = process.poll()
        printed = log.read_text(errors="replace")
        if status is not None:
            raise Failed(_death(f"the genuine {build.protocol} server", status, printed))
        if ready := _READY.search(printed):
            return Server(ready[1], ready[2], process, log)
        time.sleep(0.01)
    raise Failed(f"the genuine {build.protocol} server did not answer HELLO within {timeout:g} s{_last_words(printed)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()


# --- the client -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds of each part: the model's load, the context, the whole prompt, and each token fed after it.

    Nothing is warmed up: the prompt's time holds the first transfer of the graph.
    """

    load_ms: float
    context_ms: float
    prompt_ms: float
    token_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Generation:
    """What a model said: at each step the token with the highest logit (of equal ones the lowest number).

    `top` holds for each of `tokens` the best (token, logit) pairs that it was chosen from, best first; empty unless asked for.
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
    timeout: float = 600.0,
) -> Generation:
    """Have a genuine client load a model onto RPC servers, all layers, and continue a prompt greedily.

    Args:
        version: protocol version of the client.
        rpc: endpoint "HOST:PORT" of a server, or several that share the layers; None computes on this machine's CPU.
        prompt: text, or tokens for a model without a vocabulary.
        n_predict: tokens to choose; fewer where the model ends its text.
        model: a GGUF file; by default Gemma 3 270M, which `model()` fetches.
        tokens: a continuation to feed in place of the tokens chosen (teacher forcing), so that two servers' logits can be
            compared step by step; it sets the number of steps, and the result's `tokens` are still those chosen.
        top: how many of the best logits to report for each step.
        n_ctx: room for prompt and continuation, in tokens.
        threads: the client's own, for what it computes itself; default half the cores.
        timeout: seconds until the client is ended.

    Failed where the client can't do it or dies, as llama.cpp does when a server closes a connection.
    """
    build = find(version)
    if n_predict < 1 or top < 0:
        raise Misuse(f"{n_predict} tokens with {top} logits each can't be generated: give at least 1 and 0")
    request = {
        "rpc": [] if rpc is None else [rpc] if isinstance(rpc, str) else list(rpc),
        "model": str(find_model() if model is None else model),
        "prompt": prompt if isinstance(prompt, str) else list(prompt),
        "n_predict": n_predict,
        "tokens": None if tokens is None else list(tokens),
        "top": top,
        "n_ctx": n_ctx,
        "threads": _threads(threads),
    }
    reply = _run_client(build, json.dumps(request), timeout)
    timings = reply["timings"]
    return Generation(
        protocol=version,
        prompt_tokens=tuple(reply["prompt_tokens"]),
        tokens=tuple(reply["tokens"]),
        text=reply["text"],
        top=tuple(tuple((token, logit) for token, logit in step) for step in reply["top"]),
        timings=Timings(**timings | {"token_ms": tuple(timings["token_ms"])}),
    )


def _run_client(build: Build, request: str, timeout: float) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [str(build.python), "-I", str(SCRIPT), "generate"],
            input=request,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=_environ(),
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"the genuine {build.protocol} client was not done after {timeout:g} s, and was ended") from None
    if done.returncode != 0:
        raise Failed(_death(f"the genuine {build.protocol} client", done.returncode, done.stderr))
    reply: dict[str, Any] = json.loads(done.stdout)
    return reply


# --- what both need -------------------------------------------------------------------------------------------------------


def _threads(wanted: int | None) -> int:
    """Return a number of threads: half the cores where none is asked for, as upstream's rpc-server."""
    if wanted is None:
        return max(1, (os.cpu_count() or 1) // 2)
    if wanted < 1:
        raise Misuse(f"{wanted} threads can't compute: give at least 1")
    return wanted


def _environ() -> dict[str, str]:
    """Return our environment, less what would load another llama.cpp, and with aborts that print no stack traces."""
    kept = {name: value for name, value in os.environ.items() if name != "LLAMA_CPP_LIB_PATH"}
    return kept | {"GGML_NO_BACKTRACE": "1"}


def _death(who: str, status: int, printed: str) -> str:
    """Say in one sentence how a process of the genuine library ended."""
    if status == REFUSED:
        return printed.rstrip().rpartition("\n")[2]
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
    return f"{who} {how}{_last_words(printed)}"


def _last_words(printed: str) -> str:
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    return f"; its last words: {' | '.join(lines[-3:])}" if lines else " without a word"
