"""The cases, one file per section of `spec.rules`. Importing a file registers its cases; this list makes that explicit."""

import ggml_rpc_ref.conformance.cases.buffer as buffer
import ggml_rpc_ref.conformance.cases.comm as comm
import ggml_rpc_ref.conformance.cases.data as data
import ggml_rpc_ref.conformance.cases.data_memset as data_memset
import ggml_rpc_ref.conformance.cases.data_rows as data_rows
import ggml_rpc_ref.conformance.cases.device as device
import ggml_rpc_ref.conformance.cases.frame as frame
import ggml_rpc_ref.conformance.cases.graph as graph
import ggml_rpc_ref.conformance.cases.graph_recompute as graph_recompute
import ggml_rpc_ref.conformance.cases.graph_results as graph_results
import ggml_rpc_ref.conformance.cases.graph_uid as graph_uid
import ggml_rpc_ref.conformance.cases.graph_unfit as graph_unfit
import ggml_rpc_ref.conformance.cases.graph_weights as graph_weights
import ggml_rpc_ref.conformance.cases.session as session
import ggml_rpc_ref.conformance.cases.tensor as tensor

SECTIONS = (
    frame, session, device, buffer, tensor, data, data_memset, data_rows, graph, graph_results, graph_unfit, graph_recompute,
    graph_uid, graph_weights, comm,
)  # fmt: skip
