"""A wrong number in a graph of many nodes is traced to the node that made it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ggml_rpc_ref.conformance import CASES, Options, Verdict, run
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.spec.opcodes import op_table
from tests.support.sabotage import InProcess, Sabotage
from tests.support.sabotage.sessions import ChangesGraphs

ADD, SUB = (op_table().index(name) for name in ("ADD", "SUB"))


class SubtractsOnce(ChangesGraphs):
    """Computes SUB in place of the 37th ADD of a graph that has as many."""

    def changed(self, graph: Graph) -> Graph:
        if len(graph.nodes) < 37:
            return graph
        tensors = graph.tensors.copy()
        tensors["op"][np.flatnonzero(tensors["id"] == graph.nodes[36])] = SUB
        return Graph(graph.device, graph.nodes, tensors)


def test_the_first_wrong_node_is_named(tmp_path: Path) -> None:
    target = InProcess(tmp_path, Sabotage(session=SubtractsOnce))
    (result,) = run(target, [CASES["graph.computes/chain-of-100"]], Options(profile="")).results
    assert result.verdict is Verdict.FAIL
    assert "the first wrong node is node 37 of 100, ADD with ne (2, 1, 1, 1): " in result.actual


class Doubles(ChangesGraphs):
    """Doubles what SCALE multiplies with."""

    def changed(self, graph: Graph) -> Graph:
        tensors = graph.tensors.copy()
        rows = np.flatnonzero(tensors["op"] == op_table().index("SCALE"))
        for row in rows:
            params = tensors["op_params"][row].view(np.float32)
            params[0] *= 2
        return Graph(graph.device, graph.nodes, tensors)


@pytest.mark.parametrize("id", ["graph.computes/view-with-offset"])
def test_parameters_are_named_and_views_passed_over(id: str, tmp_path: Path) -> None:
    (result,) = run(InProcess(tmp_path, Sabotage(session=Doubles)), [CASES[id]], Options(profile="")).results
    assert result.verdict is Verdict.FAIL
    assert "the first wrong node is node 2 of 2, SCALE with ne (3, 1, 1, 1) and " in result.actual
    assert "element 0 to be 30; it is 60; 3 of 3 elements are wrong" in result.detail
    assert "all: [60, 80, 100] in place of [30, 40, 50]" in result.detail
