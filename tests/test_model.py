"""A stock llama.cpp runs a real model on our server: Gemma 3 270M, two prompts, 16 tokens each, beside the genuine server.

With the model's weights unpacked to F32 nothing is rounded on the way, and the two servers say the same, token for token.

As it comes, in Q4_K_M, greedy tokens of so small a model hang on rounding: upstream's CPU rounds the activations of each product to
8 bits, which moves a logit by 0.15 on average and 0.6 at most, and the two best may lie 0.008 apart. So tokens are compared step by
step on the genuine server's own text (each step sees the same tokens before it), and a step may differ only where the genuine
server's two best logits lie nearer together than that rounding reaches in this run. What the rounding does is measured, not
assumed: by the distance between two of our devices, of which one computes without it (oracle) and one with it (native). That
nothing but rounding is at work, test_model_nodes.py shows node by node.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import pytest

from ggml_rpc_ref import upstream
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.server import Server
from tests.support.gemma import distances, unpack

STEPS = 16
PROMPTS = {
    "short": "The capital of France is",
    "long": "The following is a long story about a river. " * 22 + "In the end, the river",
}
TOP = 64


Generations = dict[str, upstream.Generation]
"""A generation for each of PROMPTS."""


def generate(endpoint: str, model: Path, like: Generations | None = None) -> Generations:
    """Load the model once and continue every prompt, feeding what was said before where that is given."""
    runs = [(prompt, None if like is None else like[which].tokens) for which, prompt in PROMPTS.items()]
    said = upstream.generate_each("3.6.1", rpc=endpoint, model=model, runs=runs, n_predict=STEPS, top=TOP)
    return dict(zip(PROMPTS, said, strict=True))


@pytest.fixture(scope="module")
def endpoints() -> Iterator[dict[str, str]]:
    with Server(make_host("oracle")) as oracle, Server(make_host("native")) as rounding:
        yield {"oracle": oracle.endpoint, "native": rounding.endpoint}


@pytest.mark.upstream
def test_the_model_says_what_it_says_on_the_genuine_server(
    endpoints: dict[str, str], upstream_server: upstream.Server, gemma_model: Path
) -> None:
    genuine = generate(upstream_server.endpoint, gemma_model)
    assert len(genuine["long"].prompt_tokens) > 200
    ours = {name: generate(endpoint, gemma_model, genuine) for name, endpoint in endpoints.items()}
    for which, said in genuine.items():
        assert len(said.tokens) == STEPS
        compare(which, said, {name: generations[which] for name, generations in ours.items()})


def compare(which: str, genuine: upstream.Generation, ours: dict[str, upstream.Generation]) -> None:
    """Hold what our two devices said to the genuine server's tokens, as far as the rounding between the two lets tokens differ."""
    reach = max(distances(ours["oracle"], ours["native"]))
    usual = mean(distances(ours["oracle"], ours["native"]))
    assert reach < 1.5, f"{which}: the rounding of activations does not reach this far; something else is wrong"
    for name, said in ours.items():
        assert mean(distances(genuine, said)) < 2 * usual, f"{which}, {name}: further off than rounding explains"
        assert sum(a == b for a, b in zip(said.tokens, genuine.tokens, strict=True)) >= STEPS - 4
        for step, (chosen, wanted) in enumerate(zip(said.tokens, genuine.tokens, strict=True)):
            (_, best), (_, second) = genuine.top[step][:2]
            assert chosen == wanted or best - second < reach, f"{which}, {name}, step {step}: {chosen} is not {wanted}"


@pytest.fixture(scope="module")
def unpacked(gemma_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with every weight in F32: 1.1 GB."""
    path = tmp_path_factory.mktemp("model") / "gemma-3-270m-f32.gguf"
    unpack(gemma_model, path)
    return path


@pytest.mark.upstream
def test_without_rounding_it_says_the_same_token_for_token(
    endpoints: dict[str, str], upstream_server: upstream.Server, unpacked: Path
) -> None:
    genuine, ours = (generate(endpoint, unpacked) for endpoint in (upstream_server.endpoint, endpoints["oracle"]))
    for which, said in ours.items():
        assert said.tokens == genuine[which].tokens
        assert len(said.tokens) == STEPS
        assert max(distances(genuine[which], said)) < 0.2
