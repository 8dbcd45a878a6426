"""ggml-rpc-ref: the reference for ggml's RPC protocol.

import ggml_rpc_ref

with ggml_rpc_ref.connect("127.0.0.1:50052") as client:
    print(client.devices[0].memory())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ggml_rpc_ref.errors import Misuse, Unsupported, Violation

if TYPE_CHECKING:
    from ggml_rpc_ref.client.client import connect

    __version__: str

__all__ = ["Misuse", "Unsupported", "Violation", "__version__", "connect"]


def __getattr__(name: str) -> Any:
    """Import what costs something only when it is asked for: `connect` needs numpy, `__version__` reads package metadata."""
    match name:
        case "connect":
            from ggml_rpc_ref.client.client import connect

            return connect
        case "__version__":
            from importlib.metadata import PackageNotFoundError, version

            try:
                return version("ggml-rpc-ref")
            except PackageNotFoundError:  # run from a source tree that is not installed
                return "0+source"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
