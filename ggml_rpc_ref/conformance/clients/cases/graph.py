"""Section "graph" for clients: what graphs say, their order and flags, their status, and when they are computed again."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from ggml_rpc_ref.conformance.clients.bench import Bench
from ggml_rpc_ref.conformance.clients.case import client_case
from ggml_rpc_ref.conformance.clients.heard import Run, graphs
from ggml_rpc_ref.conformance.clients.refused import require_none
from ggml_rpc_ref.conformance.clients.script import answering
from ggml_rpc_ref.conformance.verdict import NotJudged, require
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.spec.messages import FLAG_COMPUTE
from ggml_rpc_ref.spec.opcodes import VIEW_OPS, op_table

FAILED: Final = {"aborted": 1, "failed": 255, "no-memory": 254}
"""The low byte of each ggml_status but success."""


@client_case("graph.valid/honest")
def graphs_are_valid(bench: Bench) -> None:
    """To an honest server every graph's ids, links, views, ops, types and shapes are such that it is taken."""
    run = bench.honest()
    require_none("graph.valid", [run])
    _require_graphs(run)


@client_case("graph.nodes-in-order/honest")
def nodes_in_order(bench: Bench) -> None:
    """In every graph of an honest run each node comes after the nodes that are its sources, or that it is a view of."""
    for graph in _require_graphs(bench.honest()):
        place = {int(id): number for number, id in enumerate(graph.nodes)}
        for record in graph.tensors:
            mine = place.get(int(record["id"]), -1)
            needs = [place.get(int(id), -1) for id in (*record["src"], record["view_src"])]
            late = [number for number in needs if number > mine >= 0]
            require(
                not late, "sources before what is made of them", f"node {mine} of a graph has node {max(late, default=0)} as source"
            )


@client_case("graph.flag-set/honest")
def flags_are_set(bench: Bench) -> None:
    """Every graph of an honest run that has nodes to compute has flag COMPUTE on some of them: without it nothing is computed."""
    views = [number for number, op in enumerate(op_table(bench.version)) if op in VIEW_OPS]
    for graph in _require_graphs(bench.honest()):
        nodes = graph.tensors[np.isin(graph.tensors["id"], graph.nodes)]
        computing = nodes[~np.isin(nodes["op"], views)]
        flagged = int(np.count_nonzero(computing["flags"] & FLAG_COMPUTE))
        require(not len(computing) or flagged > 0, "flag COMPUTE (16)", f"none of {len(computing)} nodes of a graph has it")


def _require_graphs(run: Run) -> list[Graph]:
    found = list(graphs(run))
    if not found:
        raise NotJudged("the client does not send GRAPH_COMPUTE")
    return found


# ------------------------------------------------------------------------------------------------------- how it ended


@client_case("graph.status/{}", each=FAILED)
def status_is_read(bench: Bench, status: int) -> None:
    """GRAPH_COMPUTE is answered with a status of failure ({}): the client says so, and does not take what is there for results."""
    run = bench.run(answering("GRAPH_COMPUTE", lambda _, honest: replace(honest, result=status)))
    require(run.ended.status != 0, "an error", f"the client ended well though its graphs had status {status}")


# ------------------------------------------------------------------------------------------------------------ once more


@client_case("graph.recompute-sent/honest")
def recomputes_what_is_stored(bench: Bench) -> None:
    """To an honest server every GRAPH_RECOMPUTE is for a graph that it still has by the rules."""
    run = bench.honest()
    require_none("graph.recompute-sent", [run])
    if "GRAPH_RECOMPUTE" not in run.commands():
        raise NotJudged("the client does not send GRAPH_RECOMPUTE")
