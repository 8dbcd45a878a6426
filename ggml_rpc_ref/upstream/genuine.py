"""The script that runs inside a genuine build, in that build's own Python: llama.cpp's RPC server, or a client that generates text.

Our own Python never imports this file; `rpc_server.py` and `rpc_client.py` execute it. It may use only the standard library and the
build's numpy and llama_cpp, and imports nothing of ours. Facts: ggml-rpc.h of each release, and runs of it.

    python -I genuine.py serve '{"protocol": "3.6.1", "host": …}'     serves until it is ended
    python -I genuine.py generate < request.json                      prints one JSON object
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from ctypes import c_char_p, c_int, c_size_t, c_void_p
from pathlib import Path
from typing import Any, NoReturn

REFUSED = 64
"""Exit status of a request that could not be met; the last line of standard error then says why. `process.py` has the same number:
this file can't be imported there, nor import it."""

CPU_DEVICE = 0
"""GGML_BACKEND_DEVICE_TYPE_CPU of ggml-backend.h."""

ALL_LAYERS = 999
NO_VOCABULARY = 0
"""LLAMA_VOCAB_TYPE_NONE of llama.h."""


def refuse(sentence: str) -> NoReturn:
    """End the process with one sentence for the caller to pass on."""
    sys.stdout.flush()
    print(sentence, file=sys.stderr, flush=True)
    # not sys.exit, which would end only the thread that calls it: `announce` runs in one, beside a server that never returns
    os._exit(REFUSED)


# --- the libraries --------------------------------------------------------------------------------------------------------


class Ggml:
    """The four ggml libraries of this environment.

    They must be loaded before llama_cpp is imported: the wheel holds each library as several files rather than links, and
    those that llama_cpp pulls in first would be loaded a second time from here, with registries of their own.
    """

    def __init__(self) -> None:
        found = importlib.util.find_spec("llama_cpp")
        if found is None or found.origin is None:
            refuse("this Python has no llama_cpp")
        directory = Path(found.origin).parent / "lib"
        suffix = ".dylib" if sys.platform == "darwin" else ".so"
        self.base, self.cpu, self.rpc, self.ggml = (
            ctypes.CDLL(str(directory / f"libggml{part}{suffix}"), mode=ctypes.RTLD_GLOBAL)
            for part in ("-base", "-cpu", "-rpc", "")
        )


def function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    """Return a C function with its types declared; without them ctypes truncates 64-bit handles to int."""
    found = getattr(library, name)
    found.restype, found.argtypes = result, arguments
    return found


# --- the server -----------------------------------------------------------------------------------------------------------


def serve(request: dict[str, Any]) -> NoReturn:
    """Run the server; announce on standard output when it answers, and with which protocol version."""
    # Python's own handler of SIGINT would run only when the C function returns, which it never does.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Python ignores SIGPIPE; rpc-server does not, so a client that is gone when it is answered ends it (main of rpc-server.cpp).
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    host, port = request["host"], claim_port(request["host"], request["port"])
    major = int(request["protocol"].split(".")[0])
    ggml = Ggml()
    if request["owned"]:
        threading.Thread(target=end_with_owner, daemon=True).start()
    threading.Thread(target=announce, args=(host, port, major), daemon=True).start()
    cache_dir = request["cache_dir"].encode() if request["cache_dir"] else None
    start = start_single if major < 3 else start_several
    start(ggml, f"{host}:{port}".encode(), cache_dir, request["threads"], request["devices"])
    refuse(f"llama.cpp's server returned: it can't serve {host}:{port}")


def claim_port(host: str, port: int) -> int:
    """Return a free port on `host`: the one asked for, or for 0 one that the kernel picks."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # as the server does (set_reuse_addr), so that a port that an earlier server has just left counts as free here too
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            refuse(f"can't listen on {host}:{port}: {error.strerror or error}")
        free: int = probe.getsockname()[1]
        return free


def end_with_owner() -> None:
    """End this process when the one that started it is gone: the kernel then closes our standard input."""
    while os.read(0, 1):
        pass
    os._exit(0)


def announce(host: str, port: int, major: int) -> None:
    """Wait until the server answers HELLO, then print the line that `rpc_server.py` waits for."""
    address = ("127.0.0.1" if host == "0.0.0.0" else host, port)
    while True:
        try:
            with socket.create_connection(address, timeout=10) as connection:
                version = say_hello(connection, major)
            break
        except ConnectionRefusedError:
            time.sleep(0.01)
    print(f"ready {host}:{port} protocol {version}", flush=True)


def say_hello(connection: socket.socket, major: int) -> str:
    """Send HELLO (command 14; since 4.0.0 with 24 bytes of capabilities, here none) and return the version replied."""
    payload = bytes(24 if major >= 4 else 0)
    connection.sendall(struct.pack("<BQ", 14, len(payload)) + payload)
    reply = b""
    while len(reply) < 11:
        received = connection.recv(11 - len(reply))
        if not received:
            refuse("llama.cpp's server closed the connection at HELLO")
        reply += received
    return ".".join(str(number) for number in reply[8:])


def start_several(ggml: Ggml, endpoint: bytes, cache_dir: bytes | None, threads: int, devices: int) -> None:
    """Call the server function as of 3.0.0, with a list of devices: `devices` times the CPU."""
    cpu = function(ggml.ggml, "ggml_backend_dev_by_type", c_void_p, c_int)(CPU_DEVICE)
    listed = (c_void_p * devices)(*[cpu] * devices)
    start = function(
        ggml.rpc, "ggml_backend_rpc_start_server", None, c_char_p, c_char_p, c_size_t, c_size_t, ctypes.POINTER(c_void_p)
    )
    start(endpoint, cache_dir, threads, devices, listed)


def start_single(ggml: Ggml, endpoint: bytes, cache_dir: bytes | None, threads: int, devices: int) -> None:
    """Call the server function from before 3.0.0, with one backend and the memory to report."""
    if devices != 1:
        refuse("a server of a protocol before 3.0.0 has exactly one device")
    cpu = function(ggml.ggml, "ggml_backend_dev_by_type", c_void_p, c_int)(CPU_DEVICE)
    backend = function(ggml.base, "ggml_backend_dev_init", c_void_p, c_void_p, c_char_p)(cpu, None)
    function(ggml.cpu, "ggml_backend_cpu_set_n_threads", None, c_void_p, c_int)(backend, threads)
    free, total = c_size_t(), c_size_t()
    sizes = ctypes.POINTER(c_size_t)
    function(ggml.base, "ggml_backend_dev_memory", None, c_void_p, sizes, sizes)(cpu, free, total)
    start = function(ggml.rpc, "ggml_backend_rpc_start_server", None, c_void_p, c_char_p, c_char_p, c_size_t, c_size_t)
    start(backend, endpoint, cache_dir, free, total)


# --- the client -----------------------------------------------------------------------------------------------------------


def generate(request: dict[str, Any]) -> dict[str, Any]:
    """Load a model once and continue each prompt in a context of its own, choosing the most likely token again and again.

    Returns `generations`, for each prompt the fields of `rpc_client.Generation`.
    """
    ggml = Ggml()
    llama = importlib.import_module("llama_cpp")
    # llama_cpp's own log handler drops everything but errors; llama.cpp's default prints it all, which explains failures.
    llama.llama_log_set(llama.llama_log_callback(), None)
    llama.llama_backend_init()
    devices = [device for endpoint in request["rpc"] for device in remote_devices(ggml, endpoint)]
    model, load_ms = timed(lambda: load_model(llama, request["model"], devices))
    said = [continue_prompt(llama, model, request | run) for run in request["runs"]]
    return {"generations": [one | {"timings": {"load_ms": load_ms, **one["timings"]}} for one in said]}


def continue_prompt(llama: Any, model: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Feed one prompt to a fresh context, choose tokens, and free the context."""
    vocabulary = llama.llama_model_get_vocab(model)
    prompt = tokenise(llama, vocabulary, request["prompt"])
    forced: list[int] | None = request["tokens"]
    n_predict = request["n_predict"] if forced is None else len(forced)
    if not 0 < len(prompt) <= request["n_ctx"] - n_predict:
        refuse(f"a prompt of {len(prompt)} tokens and {n_predict} more do not fit in a context of {request['n_ctx']}")
    if any(not 0 <= token < llama.llama_vocab_n_tokens(vocabulary) for token in prompt + (forced or [])):
        refuse(f"the model has only the tokens 0 to {llama.llama_vocab_n_tokens(vocabulary) - 1}")
    context, context_ms = timed(lambda: open_context(llama, model, request["n_ctx"], request["threads"]))
    steps = Steps(llama, context, vocabulary, request["top"])
    steps.take(prompt)
    while len(steps.tokens) < n_predict and (forced is not None or not steps.ended()):
        steps.take([steps.tokens[-1] if forced is None else forced[len(steps.tokens) - 1]])
    llama.llama_free(context)
    return {
        "prompt_tokens": prompt,
        "tokens": steps.tokens,
        "text": detokenise(llama, vocabulary, steps.tokens),
        "top": steps.top,
        "timings": {"context_ms": context_ms, "prompt_ms": steps.times[0], "token_ms": steps.times[1:]},
    }


class Steps:
    """The steps of one generation: the tokens chosen, the best logits of each step, and the time of each step in ms."""

    def __init__(self, llama: Any, context: Any, vocabulary: Any, top: int) -> None:
        self._numpy = importlib.import_module("numpy")
        self._llama, self._context, self._vocabulary, self._top = llama, context, vocabulary, top
        self._n_vocabulary = llama.llama_vocab_n_tokens(vocabulary)
        self.tokens: list[int] = []
        self.top: list[list[tuple[int, float]]] = []
        self.times: list[float] = []

    def take(self, tokens: list[int]) -> None:
        """Feed tokens and choose the next one greedily."""
        logits, elapsed = timed(lambda: self._logits_after(tokens))
        # stable: of equal logits the token of the lowest number comes first
        best = self._numpy.argsort(-logits, kind="stable")[: max(1, self._top)]
        self.tokens.append(int(best[0]))
        self.times.append(elapsed)
        if self._top:
            self.top.append([(int(token), float(logits[token])) for token in best])

    def ended(self) -> bool:
        """Whether the last token chosen ends the text."""
        return bool(self._llama.llama_vocab_is_eog(self._vocabulary, self.tokens[-1]))

    def _logits_after(self, tokens: list[int]) -> Any:
        array = (ctypes.c_int32 * len(tokens))(*tokens)  # kept in a variable: the batch only points to it
        status = self._llama.llama_decode(self._context, self._llama.llama_batch_get_one(array, len(tokens)))
        if status != 0:
            refuse(f"llama_decode failed with status {status}")
        # llama_decode may return early; asking for the logits waits for them, so that the whole step is timed.
        logits = self._llama.llama_get_logits_ith(self._context, -1)
        # a copy: the array is llama.cpp's, and the next step writes into it
        return self._numpy.ctypeslib.as_array(logits, (self._n_vocabulary,)).copy()


def timed(action: Any) -> tuple[Any, float]:
    """Return what `action` returns, and the milliseconds it took."""
    start = time.perf_counter()
    result = action()
    return result, (time.perf_counter() - start) * 1e3


def remote_devices(ggml: Ggml, endpoint: str) -> list[int]:
    """Return the handles of all devices of the server at `endpoint`, registered with ggml."""
    if not hasattr(ggml.rpc, "ggml_backend_rpc_add_server"):  # before 3.0.0
        device = function(ggml.rpc, "ggml_backend_rpc_add_device", c_void_p, c_char_p)(endpoint.encode())
        function(ggml.ggml, "ggml_backend_device_register", None, c_void_p)(device)
        return [device]
    registry = function(ggml.rpc, "ggml_backend_rpc_add_server", c_void_p, c_char_p)(endpoint.encode())
    if not registry:
        refuse(f"no RPC server with a compatible protocol version answers at {endpoint}")
    function(ggml.ggml, "ggml_backend_register", None, c_void_p)(registry)
    count = function(ggml.base, "ggml_backend_reg_dev_count", c_size_t, c_void_p)(registry)
    get = function(ggml.base, "ggml_backend_reg_dev_get", c_void_p, c_void_p, c_size_t)
    return [get(registry, index) for index in range(count)]


def load_model(llama: Any, path: str, devices: list[int]) -> Any:
    """Load a GGUF file: all layers on the devices given, or on this machine's CPU where there are none."""
    parameters = llama.llama_model_default_params()
    # the list ends in NULL; the variable keeps it alive until the model is loaded
    listed = (c_void_p * (len(devices) + 1))(*devices, None)
    parameters.devices = ctypes.addressof(listed)
    parameters.n_gpu_layers = ALL_LAYERS if devices else 0
    # With extra buffer types a local run repacks the weights and uses other kernels than an RPC server, so the two could not be
    # compared; and the AMX kernels crash in a virtual machine that reports AMX but has no tiles (seen with 0.3.20).
    parameters.use_extra_bufts = False
    model = llama.llama_model_load_from_file(path.encode(), parameters)
    if not model:
        refuse(f"llama.cpp can't load the model {path}")
    return model


def open_context(llama: Any, model: Any, n_ctx: int, threads: int) -> Any:
    """Make a context of `n_ctx` tokens, all of which may come in one batch."""
    parameters = llama.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = n_ctx
    parameters.n_threads = parameters.n_threads_batch = threads
    context = llama.llama_init_from_model(model, parameters)
    if not context:
        refuse(f"llama.cpp can't make a context of {n_ctx} tokens")
    return context


def tokenise(llama: Any, vocabulary: Any, prompt: str | list[int]) -> list[int]:
    """Return the prompt's tokens, with the special ones that the model wants at the start; a list is returned unchanged."""
    if isinstance(prompt, list):
        return prompt
    if llama.llama_vocab_type(vocabulary) == NO_VOCABULARY:
        refuse("the model has no vocabulary: give the prompt as tokens")
    text = prompt.encode()
    room = len(text) + 8  # a token has at least one byte, except the special ones added at both ends
    tokens = (ctypes.c_int32 * room)()
    add_special = parse_special = True
    count = llama.llama_tokenize(vocabulary, text, len(text), tokens, room, add_special, parse_special)
    return list(tokens[:count])


def detokenise(llama: Any, vocabulary: Any, tokens: list[int]) -> str:
    """Return the text of tokens, special ones written out; the empty text for a model without a vocabulary."""
    if llama.llama_vocab_type(vocabulary) == NO_VOCABULARY:
        return ""
    piece = ctypes.create_string_buffer(1024)
    text = b""
    for token in tokens:
        length = llama.llama_token_to_piece(vocabulary, token, piece, len(piece), 0, True)
        text += piece.raw[: max(0, length)]
    # all at once: a character's bytes may be spread over several tokens
    return text.decode(errors="replace")


def main(arguments: list[str]) -> None:
    """Run the command that the first argument names."""
    match arguments:
        case ["serve", request]:
            serve(json.loads(request))
        case ["generate"]:
            # The libraries may print to standard output: give the reply a descriptor of its own and send theirs to standard error.
            with os.fdopen(os.dup(1), "w") as reply:
                os.dup2(2, 1)
                json.dump(generate(json.load(sys.stdin)), reply)
            os._exit(0)
        case _:
            refuse("usage: genuine.py serve REQUEST | generate < REQUEST")


if __name__ == "__main__":
    main(sys.argv[1:])
