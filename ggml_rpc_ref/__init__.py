"""ggml-rpc-ref: the reference for ggml's RPC protocol.

import ggml_rpc_ref

with ggml_rpc_ref.Server() as server, ggml_rpc_ref.connect(server.endpoint) as client:
    print(client.devices[0].memory())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ggml_rpc_ref.errors import Misuse, Unsupported, Violation

if TYPE_CHECKING:
    from ggml_rpc_ref.client.client import connect
    from ggml_rpc_ref.server.in_process import Server

    __version__: str

__all__ = ["Misuse", "Server", "Unsupported", "Violation", "__version__", "connect"]


def __dir__() -> list[str]:
    """Name what `__getattr__` imports, too."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import what costs something only when it is asked for: `connect` needs numpy, `__version__` reads package metadata."""
    match name:
        case "connect":
            from ggml_rpc_ref.client.client import connect

            return connect
        case "Server":
            from ggml_rpc_ref.server.in_process import Server

            return Server
        case "__version__":
            from importlib.metadata import PackageNotFoundError, version

            try:
                return version("ggml-rpc-ref")
            except PackageNotFoundError:  # run from a source tree that is not installed
                return "0+source"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
