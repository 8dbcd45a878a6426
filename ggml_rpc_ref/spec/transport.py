"""What lies between the protocol and TCP."""

from __future__ import annotations

from typing import Final

DEFAULT_PORT: Final = 50052
"""TCP port of an rpc-server, and of an endpoint written without a port (rpc-server.cpp of 3.6.1)."""
