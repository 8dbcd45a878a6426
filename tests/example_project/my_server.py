"""The server of the example project: ours, with COPY_TENSOR missing and an empty SET_TENSOR refused where a flag says so."""

from __future__ import annotations

import signal
import sys

from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.backends.oracle import Oracle
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.server.handlers import Device, Host, Session
from ggml_rpc_ref.server.server import Server
from ggml_rpc_ref.server.session import Area, Upload
from ggml_rpc_ref.spec.messages import CopyTensor, CopyTensorReply


class MySession(Session):
    """Says that it has copied and has not; takes no empty data."""

    def handle(self, message: object) -> object:
        return CopyTensorReply(result=1) if isinstance(message, CopyTensor) else super().handle(message)

    def destination(self, message: Upload, size: int) -> Area:
        if not size:
            raise Violation("data.empty", "size", 0)
        return super().destination(message, size)


class MyServer(Server):
    """The server; with the word "good" it is in order."""

    session_type = Session if "good" in sys.argv else MySession


if __name__ == "__main__":
    with MyServer(Host([Device("mine", "numpy", Oracle(HostMemory(2**26)))]), "127.0.0.1", int(sys.argv[1])):
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
