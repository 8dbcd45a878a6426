"""The script that runs a genuine build, in a process of its own: llama.cpp's RPC server, or a client that generates text.

Nothing imports this file; `rpc_server.py` and `rpc_client.py` execute it, in the build's own Python where it has one. It may use
only the standard library, numpy and the build's llama_cpp, and imports nothing of ours. Facts: ggml-rpc.h of each release, and
runs of it.

    python -I genuine.py serve '{"libraries": "/…/lib", "start": "devices", "host": …}'     serves until it is ended
    python -I genuine.py generate < request.json                      prints one JSON object
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from ctypes import c_bool, c_float, c_int, c_size_t, c_void_p
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
    """The ggml libraries of a build, of which `library` finds every function: it depends on the others.

    In an environment of llama-cpp-python they must be loaded before llama_cpp is imported, each one by itself: the wheel holds each
    library as several files rather than links, and those that llama_cpp pulls in first would be loaded a second time from here,
    with registries of their own.
    """

    def __init__(self, directory: str) -> None:
        suffix = ".dylib" if sys.platform == "darwin" else ".so"
        paths = [Path(directory) / f"libggml{part}{suffix}" for part in ("-base", "-cpu", "-rpc", "")]
        # ik_llama.cpp has but one
        loaded = [ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL) for path in paths if path.exists()]
        if not loaded:
            refuse(f"{directory} has no libraries of ggml")
        self.library = loaded[-1]

    def has(self, name: str) -> bool:
        """Whether there is a function of this name."""
        return hasattr(self.library, name)

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        """Call a function whose result has the type given; arguments bring theirs."""
        found = getattr(self.library, name)
        found.restype = result
        return found(*arguments)


# --- the server -----------------------------------------------------------------------------------------------------------


def serve(request: dict[str, Any]) -> NoReturn:
    """Run the server; announce on standard output when it answers, and with which protocol version."""
    # ik_llama.cpp runs a debugger when it aborts, for seconds, where it finds one
    os.environ["PATH"] = os.devnull
    # Python's own handler of SIGINT would run only when the C function returns, which it never does.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Python ignores SIGPIPE; rpc-server does not, so a client that is gone when it is answered ends it (main of rpc-server.cpp).
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    host, port = request["host"], claim_port(request["host"], request["port"])
    ggml = Ggml(request["libraries"])
    if request["owned"]:
        threading.Thread(target=end_with_owner, daemon=True).start()
    threading.Thread(target=announce, args=(host, port, request["hello"]), daemon=True).start()
    cache_dir = request["cache_dir"].encode() if request["cache_dir"] else None
    start = STARTS[request["start"]]
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
    # not sys.exit, which would end this thread alone: the main thread is in the server's function and does not return
    os._exit(0)


def announce(host: str, port: int, hello: int) -> None:
    """Wait until the server answers HELLO, then print the line that `rpc_server.py` waits for."""
    address = ("127.0.0.1" if host == "0.0.0.0" else host, port)
    while True:
        try:
            with socket.create_connection(address, timeout=10) as connection:
                version = say_hello(connection, hello)
            break
        except ConnectionRefusedError:
            time.sleep(0.01)
    print(f"ready {host}:{port} protocol {version}", flush=True)


def say_hello(connection: socket.socket, size: int) -> str:
    """Send HELLO (command 14; since 4.0.0 with capabilities, here none) of that size and return the version replied."""
    connection.sendall(struct.pack("<BQ", 14, size) + bytes(size))
    reply = b""
    while len(reply) < 11:
        received = connection.recv(11 - len(reply))
        if not received:
            refuse("llama.cpp's server closed the connection at HELLO")
        reply += received
    return ".".join(str(number) for number in reply[8:])


START = "ggml_backend_rpc_start_server"
SIZES = ctypes.POINTER(c_size_t)


def cpu_device(ggml: Ggml) -> c_void_p:
    """Return the CPU device."""
    return c_void_p(ggml.call("ggml_backend_dev_by_type", c_void_p, c_int(CPU_DEVICE)))


def memory(ggml: Ggml) -> tuple[c_size_t, c_size_t]:
    """Return what the CPU has free and in all, as rpc-server reports it where it must say."""
    free, total = c_size_t(), c_size_t()
    ggml.call("ggml_backend_dev_memory", None, cpu_device(ggml), ctypes.byref(free), ctypes.byref(total))
    return free, total


def start_devices(ggml: Ggml, endpoint: bytes, cache_dir: bytes | None, threads: int, devices: int) -> None:
    """Call the server function of today, with a list of devices: `devices` times the CPU."""
    listed = (c_void_p * devices)(*[cpu_device(ggml)] * devices)
    ggml.call(START, None, endpoint, cache_dir, c_size_t(threads), c_size_t(devices), listed)


def start_memory(ggml: Ggml, endpoint: bytes, cache_dir: bytes | None, threads: int, devices: int) -> None:
    """Call the first one with a list of devices, which wants each one's memory as well."""
    listed = (c_void_p * devices)(*[cpu_device(ggml)] * devices)
    sizes = [(c_size_t * devices)(*[size] * devices) for size in memory(ggml)]
    ggml.call(START, None, endpoint, cache_dir, c_size_t(threads), c_size_t(devices), listed, *sizes)


def start_backend(ggml: Ggml, endpoint: bytes, cache_dir: bytes | None, threads: int, devices: int) -> None:
    """Call the first of all, with one backend and the memory to report."""
    if devices != 1:
        refuse("a server of this build has exactly one device")
    backend = c_void_p(ggml.call("ggml_backend_dev_init", c_void_p, cpu_device(ggml), None))
    ggml.call("ggml_backend_cpu_set_n_threads", None, backend, c_int(threads))
    ggml.call(START, None, backend, endpoint, cache_dir, *memory(ggml))


def start_ik(ggml: Ggml, endpoint: bytes, cache_dir: bytes | None, threads: int, devices: int) -> None:
    """Call ik_llama.cpp's, with a list of backends and the memory of each; it has no devices to ask for theirs."""
    backends = [ggml.call("ggml_backend_cpu_init", c_void_p) for _ in range(devices)]
    for backend in backends:
        ggml.call("ggml_backend_cpu_set_n_threads", None, c_void_p(backend), c_int(threads))
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    sizes = [(c_size_t * devices)(*[whole] * devices) for _ in ("free", "total")]
    ggml.call(START, None, endpoint, cache_dir, c_size_t(devices), (c_void_p * devices)(*backends), *sizes)


STARTS = {"devices": start_devices, "memory": start_memory, "backend": start_backend, "ik": start_ik}
"""How each build's server is started; the names are those of `Start` in spec/packages.py."""


# --- the client -----------------------------------------------------------------------------------------------------------


def generate(request: dict[str, Any]) -> dict[str, Any]:
    """Load a model once and continue each prompt in a context of its own, choosing the most likely token again and again.

    Returns `generations`, for each prompt the fields of `rpc_client.Generation`.
    """
    ggml = Ggml(request["libraries"])
    llama = Shimmed(request["libraries"]) if request["shim"] else Imported()
    llama.llama_backend_init()
    devices = [device for endpoint in request["rpc"] for device in remote_devices(ggml, endpoint)]
    model, load_ms = timed(lambda: load_model(llama, request["model"], devices, request["split"]))
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
        status = self._llama.decode(self._context, array, len(tokens))
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
    address = endpoint.encode()
    if not ggml.has("ggml_backend_rpc_add_server"):  # before 3.0.0
        device: int = ggml.call("ggml_backend_rpc_add_device", c_void_p, address)
        ggml.call("ggml_backend_device_register", None, c_void_p(device))
        return [device]
    registry = c_void_p(ggml.call("ggml_backend_rpc_add_server", c_void_p, address))
    if not registry:
        refuse(f"no RPC server with a compatible protocol version answers at {endpoint}")
    ggml.call("ggml_backend_register", None, registry)
    count = ggml.call("ggml_backend_reg_dev_count", c_size_t, registry)
    return [ggml.call("ggml_backend_reg_dev_get", c_void_p, registry, c_size_t(index)) for index in range(count)]


class Imported:
    """llama.cpp's functions through the llama_cpp of this Python."""

    def __init__(self) -> None:
        self._module = importlib.import_module("llama_cpp")
        # llama_cpp's own log handler drops everything but errors; llama.cpp's default prints it all, which explains failures.
        self._module.llama_log_set(self._module.llama_log_callback(), None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def load(self, path: bytes, devices: Any, layers: int, split: int) -> Any:
        """Load a GGUF file; the same as `ref_llama_load` of llama_shim.c."""
        parameters = self._module.llama_model_default_params()
        parameters.devices = ctypes.addressof(devices)
        parameters.n_gpu_layers, parameters.split_mode = layers, split
        # With extra buffer types a local run repacks the weights and uses other kernels than an RPC server, so the two could not be
        # compared; and the AMX kernels crash in a virtual machine that reports AMX but has no tiles (seen with 0.3.20).
        parameters.use_extra_bufts = False
        return self._module.llama_model_load_from_file(path, parameters)

    def context(self, model: Any, n_ctx: int, threads: int) -> Any:
        """Make a context; the same as `ref_llama_context`."""
        parameters = self._module.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = n_ctx
        parameters.n_threads = parameters.n_threads_batch = threads
        return self._module.llama_init_from_model(model, parameters)

    def decode(self, context: Any, tokens: Any, count: int) -> int:
        """Feed tokens; the same as `ref_llama_decode`."""
        status: int = self._module.llama_decode(context, self._module.llama_batch_get_one(tokens, count))
        return status


class Shimmed:
    """llama.cpp's functions from the libraries of a build without llama_cpp; structures by value go through llama_shim.c."""

    RESULTS = {  # noqa: RUF012
        "llama_backend_init": None,
        "llama_model_get_vocab": c_void_p,
        "llama_get_logits_ith": ctypes.POINTER(c_float),
        "llama_vocab_is_eog": c_bool,
        "ref_llama_load": c_void_p,
        "ref_llama_context": c_void_p,
    }
    """Function to the type of its result, where that is not int."""

    def __init__(self, directory: str) -> None:
        suffix = ".dylib" if sys.platform == "darwin" else ".so"
        self._library = ctypes.CDLL(str(Path(directory) / f"libggml-rpc-ref-llama{suffix}"), mode=ctypes.RTLD_GLOBAL)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._library, name)
        found.restype = self.RESULTS.get(name, c_int)
        return lambda *arguments: found(*map(passed, arguments))

    def load(self, path: bytes, devices: Any, layers: int, split: int) -> Any:
        """Load a GGUF file."""
        return c_void_p(self.ref_llama_load(path, devices, layers, split))

    def context(self, model: Any, n_ctx: int, threads: int) -> Any:
        """Make a context."""
        return c_void_p(self.ref_llama_context(model, n_ctx, threads))

    def decode(self, context: Any, tokens: Any, count: int) -> int:
        """Feed tokens."""
        status: int = self.ref_llama_decode(context, tokens, count)
        return status


def passed(argument: Any) -> Any:
    """Return an argument as ctypes shall pass it: a large number is a pointer that a function returned."""
    return c_void_p(argument) if isinstance(argument, int) and argument > 2**31 else argument


def load_model(llama: Any, path: str, devices: list[int], split: int) -> Any:
    """Load a GGUF file: all layers on the devices given, or on this machine's CPU where there are none."""
    # the list ends in NULL; the variable keeps it alive until the model is loaded
    listed = (c_void_p * (len(devices) + 1))(*devices, None)
    model = llama.load(path.encode(), listed, ALL_LAYERS if devices else 0, split)
    if not model:
        refuse(f"llama.cpp can't load the model {path}")
    return model


def open_context(llama: Any, model: Any, n_ctx: int, threads: int) -> Any:
    """Make a context of `n_ctx` tokens, all of which may come in one batch."""
    context = llama.context(model, n_ctx, threads)
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
            # the reply is written: whether a build's libraries can clean up after themselves is not asked here (3.6.1's can)
            os._exit(0)
        case _:
            refuse("usage: genuine.py serve REQUEST | generate < REQUEST")


if __name__ == "__main__":
    main(sys.argv[1:])
