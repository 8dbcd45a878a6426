"""The cases about clients, one file per section of `spec.rules`. Importing a file registers its cases."""

import ggml_rpc_ref.conformance.clients.cases.buffer as buffer
import ggml_rpc_ref.conformance.clients.cases.comm as comm
import ggml_rpc_ref.conformance.clients.cases.data as data
import ggml_rpc_ref.conformance.clients.cases.device as device
import ggml_rpc_ref.conformance.clients.cases.frame as frame
import ggml_rpc_ref.conformance.clients.cases.graph as graph
import ggml_rpc_ref.conformance.clients.cases.session as session
import ggml_rpc_ref.conformance.clients.cases.tensor as tensor
from ggml_rpc_ref.conformance.clients.case import CLIENT_CASES

SECTIONS = (frame, session, device, buffer, tensor, data, graph, comm)

__all__ = ["CLIENT_CASES", "SECTIONS"]
