"""What lies between the protocol and TCP."""

from __future__ import annotations

from typing import Final

from ggml_rpc_ref.spec.versions import V6_0_0

DEFAULT_PORT: Final = 50052
"""TCP port of an rpc-server, and of an endpoint written without a port (rpc-server.cpp of 3.6.1)."""

MAX_SERVERS: Final = 16
"""Servers that one process uses: GGML_RPC_MAX_SERVERS of ggml-rpc.h. Upstream's client does not count them, but its schedulers take
at most 16 backends (GGML_SCHED_MAX_BACKENDS) and its models at most 16 devices (llama_max_devices)."""

QUEUE_SINCE: Final = V6_0_0
"""From this version on upstream's client has a queue of requests for each server, and says of its devices that they compute
asynchronously and have events (ggml_backend_rpc_device_get_props); neither is seen on the wire."""
