"""ggml-rpc-ref: the reference for ggml's RPC protocol.

import ggml_rpc_ref

with ggml_rpc_ref.Server() as server, ggml_rpc_ref.connect(server.endpoint) as client:
    print(client.devices[0].memory())
"""

# Nothing is imported here: the installed command comes through this file before its door, __main__.py, can take Ctrl-C.
from __future__ import annotations

TYPE_CHECKING = False  # typing's own takes 10 ms; type checkers know the name
if TYPE_CHECKING:
    from typing import Any

    from ggml_rpc_ref.client.client import connect
    from ggml_rpc_ref.client.registry import (
        is_rpc,
        rpc_add_server,
        rpc_buffer_type,
        rpc_get_device_memory,
        rpc_init,
        rpc_reg,
        rpc_remove_server,
    )
    from ggml_rpc_ref.client.scheduler.lost import ServerLost
    from ggml_rpc_ref.client.scheduler.scheduler import Scheduler
    from ggml_rpc_ref.errors import Misuse, Unsupported, Violation
    from ggml_rpc_ref.server.in_process import Server
    from ggml_rpc_ref.this_machine.devices import devices, local
    from ggml_rpc_ref.this_machine.serving import rpc_start_server

    __version__: str

__all__ = [
    "Misuse",
    "Scheduler",
    "Server",
    "ServerLost",
    "Unsupported",
    "Violation",
    "__version__",
    "connect",
    "devices",
    "is_rpc",
    "local",
    "rpc_add_server",
    "rpc_buffer_type",
    "rpc_get_device_memory",
    "rpc_init",
    "rpc_reg",
    "rpc_remove_server",
    "rpc_start_server",
]

_FOUND_IN = {
    **dict.fromkeys(["Misuse", "Unsupported", "Violation"], "errors"),
    "connect": "client.client",
    **dict.fromkeys(
        ["is_rpc", "rpc_add_server", "rpc_buffer_type", "rpc_get_device_memory", "rpc_init", "rpc_reg", "rpc_remove_server"],
        "client.registry",
    ),
    "Scheduler": "client.scheduler.scheduler",
    "ServerLost": "client.scheduler.lost",
    "Server": "server.in_process",
    "devices": "this_machine.devices",
    "local": "this_machine.devices",
    "rpc_start_server": "this_machine.serving",
}
"""Public name to its module, which is imported when the name is asked for: most need numpy, and `import ggml_rpc_ref` does not."""


def __dir__() -> list[str]:
    """Name what `__getattr__` imports, too."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import what costs something only when it is asked for; `__version__` reads package metadata."""
    if name in _FOUND_IN:
        from importlib import import_module

        return getattr(import_module(f"ggml_rpc_ref.{_FOUND_IN[name]}"), name)
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("ggml-rpc-ref")
        except PackageNotFoundError:  # run from a source tree that is not installed
            return "0+source"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
