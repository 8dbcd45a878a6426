"""A stock llama.cpp runs models of twelve architectures on our server, and the logits are the genuine server's.

The weights are F32, so upstream rounds no activations to 8 bits. Both servers keep keys and values in F16, so that the last bit of
a float32 sum can move one by a part in 2000. Upstream's flash attention moreover rounds queries and sums in F16, and its GELU comes
from a table in F16: `upstream-cpu` does the same, `oracle` and `native` do not. Without attention only the order of float32 sums is
left.

A distance is the greatest difference of any of the 300 logits of the 8 steps, as a share of the logits' root mean square. The
bounds are about four times the greatest distance measured on x86-64 with AVX-512:

    llama 5.2e-3 oracle, 3.8e-4 upstream-cpu    gemma2 2.5e-3, 9.6e-4    bloom 1.8e-3, 8.5e-4
    qwen3moe 5.0e-3, 9.2e-4                     gpt-oss 3.0e-3, 6.9e-4   qwen3next 7.0e-4, 1.4e-4
    qwen2vl 3.8e-3, 4.1e-4                      gemma3 (seven layers) 4.6e-3, 1.7e-3
    mamba 4.8e-6, mamba2 2.7e-6, rwkv6 3.6e-6, rwkv7 2.5e-6 with both

`native` was measured on AVX2, at the oracle's distances: llama 5.2e-3, qwen3moe 4.9e-3, mamba 2.8e-6. It computes every step.

The tied output matrix makes gemma2 repeat the prompt's last token; its 300 logits change from step to step all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from ggml_rpc_ref import upstream
from ggml_rpc_ref.backends import Backend
from ggml_rpc_ref.backends.native import unavailable
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.memory import Memory
from ggml_rpc_ref.server.plan import Plan, make_plan
from ggml_rpc_ref.server.server import Server
from ggml_rpc_ref.spec.versions import Version
from tests.support import tiny_models

PROMPT = [int(token) for token in np.random.default_rng(1).integers(0, tiny_models.VOCABULARY, 20)]
STEPS = 8
WITH_ATTENTION = {"oracle": 2e-2, "native": 2e-2, "upstream-cpu": 4e-3}
WITHOUT = {"oracle": 2e-5, "native": 2e-5, "upstream-cpu": 2e-5}


@dataclass(frozen=True)
class Row:
    """What an architecture's graph is made of, and how near the logits must come.

    `layer` counts the ops that make the architecture what it is, per graph: each must run here for each of its layers. `others`
    are all other ops of the graph; nothing else may be in it, so that no layer can have stayed on the client unseen.
    """

    layer: dict[str, int]
    others: str
    bounds: dict[str, float]


ROWS = {
    "llama": Row(
        {"FLASH_ATTN_EXT": 2, "ROPE": 4, "SET_ROWS": 4, "GLU": 2, "MUL_MAT": 15},
        "RMS_NORM MUL CPY ADD GET_ROWS",
        WITH_ATTENTION,
    ),
    "qwen2vl": Row(
        {"FLASH_ATTN_EXT": 2, "ROPE": 4, "SET_ROWS": 4, "GLU": 2, "MUL_MAT": 15, "ADD": 10},
        "RMS_NORM MUL CPY GET_ROWS",
        WITH_ATTENTION,
    ),
    "gemma2": Row(
        {"FLASH_ATTN_EXT": 2, "ROPE": 4, "SET_ROWS": 4, "GLU": 2, "MUL_MAT": 15, "UNARY": 1, "CPY": 2},
        "SCALE RMS_NORM MUL ADD GET_ROWS",
        WITH_ATTENTION,
    ),
    "gemma3": Row(
        {"FLASH_ATTN_EXT": 7, "ROPE": 14, "SET_ROWS": 14, "GLU": 7, "MUL_MAT": 50, "CPY": 2},
        "SCALE RMS_NORM MUL ADD GET_ROWS",
        WITH_ATTENTION,
    ),
    "bloom": Row(
        {"FLASH_ATTN_EXT": 2, "SET_ROWS": 4, "NORM": 6, "UNARY": 2, "MUL_MAT": 9},
        "MUL ADD CPY GET_ROWS",
        WITH_ATTENTION,
    ),
    "qwen3moe": Row(
        {"FLASH_ATTN_EXT": 2, "ROPE": 4, "MUL_MAT_ID": 6, "ARGSORT": 2, "SOFT_MAX": 2, "GLU": 2},
        "SUM_ROWS CLAMP DIV RMS_NORM MUL MUL_MAT SET_ROWS CPY ADD GET_ROWS",
        WITH_ATTENTION,
    ),
    "gpt-oss": Row(
        {"FLASH_ATTN_EXT": 2, "ROPE": 4, "MUL_MAT_ID": 6, "ADD_ID": 6, "ARGSORT": 2, "SOFT_MAX": 2, "GLU": 2, "CPY": 2},
        "RMS_NORM MUL MUL_MAT ADD SET_ROWS GET_ROWS",
        WITH_ATTENTION,
    ),
    "mamba": Row(
        {"SSM_CONV": 2, "SSM_SCAN": 2, "CONCAT": 2, "UNARY": 2, "GLU": 2},
        "SCALE GET_ROWS RMS_NORM MUL MUL_MAT CPY ADD CONT",
        WITHOUT,
    ),
    "mamba2": Row(
        {"SSM_CONV": 2, "SSM_SCAN": 2, "CONCAT": 2, "UNARY": 2, "GLU": 2},
        "SCALE GET_ROWS RMS_NORM MUL MUL_MAT CPY ADD CONT",
        WITHOUT,
    ),
    "rwkv6": Row(
        {"RWKV_WKV6": 2, "NORM": 8, "SUB": 4, "SQR": 2, "UNARY": 16, "CONCAT": 6},
        "SCALE GET_ROWS MUL ADD MUL_MAT CONT CPY",
        WITHOUT,
    ),
    "rwkv7": Row(
        {"RWKV_WKV7": 2, "L2_NORM": 2, "NORM": 8, "REPEAT": 2, "SUM_ROWS": 2, "SQR": 2, "CONCAT": 6},
        "SCALE GET_ROWS MUL ADD SUB MUL_MAT UNARY CPY",
        WITHOUT,
    ),
    "qwen3next": Row(
        {"GATED_DELTA_NET": 1, "SSM_CONV": 1, "L2_NORM": 2, "FLASH_ATTN_EXT": 1, "ROPE": 2, "MUL_MAT_ID": 6},
        "ARGSORT REPEAT RMS_NORM MUL SCALE GET_ROWS MUL_MAT CONCAT CPY UNARY CONT ADD SOFT_MAX SUM_ROWS CLAMP DIV GLU SET_ROWS",
        WITH_ATTENTION,
    ),
}


@pytest.fixture(scope="module")
def genuine_server(upstream_build: upstream.Build) -> Iterator[upstream.Server]:
    with upstream.server(upstream_build.protocol) as server:
        yield server


def generate(endpoint: str, model: Path, tokens: tuple[int, ...] | None = None) -> upstream.Generation:
    everything = tiny_models.VOCABULARY
    return upstream.generate(
        "3.6.1", rpc=endpoint, model=model, prompt=PROMPT, n_predict=STEPS, tokens=tokens, top=everything, n_ctx=64
    )


def generate_here(device: str, model: Path, tokens: tuple[int, ...]) -> tuple[upstream.Generation, list[Counter[str]], set[str]]:
    """What our server makes of it, the ops of each graph that it was sent (one sent again is not counted), and by whom."""
    graphs: list[Counter[str]] = []
    computed_by: set[str] = set()

    def remember(graph: Graph, memory: Memory, backend: Backend, version: Version) -> Plan:
        plan = make_plan(graph, memory, backend, version)
        graphs.append(Counter(step.node.op.name for step in plan.steps))
        computed_by.update(plan.ops_by_backend())
        return plan

    with Server(replace(make_host(device), make_plan=remember)) as server:
        return generate(server.endpoint, model, tokens), graphs, computed_by


def logits(said: upstream.Generation) -> np.ndarray:
    """The logits of each step in the tokens' order."""
    return np.array([[logit for _, logit in sorted(step)] for step in said.top])


@pytest.mark.upstream
@pytest.mark.parametrize("architecture", tiny_models.MODELS)
def test_the_logits_are_the_genuine_servers(architecture: str, genuine_server: upstream.Server, tmp_path: Path) -> None:
    row, model = ROWS[architecture], tmp_path / f"{architecture}.gguf"
    tiny_models.write(architecture, model)
    assert model.stat().st_size < 2**20
    genuine = generate(genuine_server.endpoint, model)
    wanted = logits(genuine)
    assert wanted.shape == (STEPS, tiny_models.VOCABULARY)
    assert np.isfinite(wanted).all()
    scale = np.sqrt(np.mean(np.square(wanted)))
    for device, bound in row.bounds.items():
        if device == "native" and unavailable():
            continue
        said, graphs, computed_by = generate_here(device, model, genuine.tokens)
        assert device != "native" or computed_by == {"native"}, "a step was left to the oracle"
        clear = np.array([best - second > 2 * bound * scale for (_, best), (_, second), *_ in genuine.top])
        assert clear.any(), "every step is a near tie, so the tokens say nothing"
        distance = float(np.abs(logits(said) - wanted).max() / scale)
        assert distance < bound, f"{device}: {distance}"
        assert np.array_equal(np.array(said.tokens)[clear], np.array(genuine.tokens)[clear]), device
        # one graph for the prompt and one for a token, which is then computed again and again
        assert len(graphs) == 2
        for ops in graphs:
            assert {name: ops[name] for name in row.layer} == row.layer
        prompt, token = graphs
        assert set(prompt) == {*row.layer, *row.others.split()}
        assert set(prompt) - set(token) <= {"SCALE"}, "only the clearing of a state by SCALE is not needed again"
        assert set(token) <= set(prompt)
