"""Stock clients of several versions run a real model on our server and say what they say on their own: `pytest -m models`.

Each needs its build with llama.cpp's library (`ggml-rpc-ref upstream install 7.0.0 --llama`), 2 GB of disk for the model in F32,
and a few minutes. test_model.py has 3.6.1 in more detail; vectors/README.md has what was measured.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from ggml_rpc_ref import upstream
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.server import Server
from tests.support import tiny_models
from tests.support.gemma import distances, unpack

pytestmark = [pytest.mark.models, pytest.mark.upstream]
PROMPT, STEPS, TOP = "The capital of France is", 12, 64


@pytest.fixture(scope="module")
def unpacked(gemma_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with every weight in F32: 1.1 GB."""
    path = tmp_path_factory.mktemp("model") / "gemma-3-270m-f32.gguf"
    unpack(gemma_model, path)
    return path


@pytest.mark.parametrize("version", ["2.0.0", "3.6.1", "4.0.0", "5.0.0", "7.0.0", "8.0.0"])
def test_the_client_says_what_it_says_on_its_own_server(version: str, unpacked: Path) -> None:
    needs_llama(version)
    with upstream.server(version) as server:
        genuine = generate(version, server.endpoint, unpacked)
    with Server(make_host("native", proto=version)) as own:
        ours = generate(version, own.endpoint, unpacked)
    print(f"{version}: {sum(distances(genuine, ours)) / (2 * STEPS):.4f} on average, {max(distances(genuine, ours)):.4f} at most")
    assert ours.tokens == genuine.tokens
    assert len(ours.tokens) == STEPS
    assert max(distances(genuine, ours)) < 0.2


def generate(version: str, endpoint: str, model: Path) -> upstream.Generation:
    return upstream.generate(version, rpc=endpoint, model=model, prompt=PROMPT, n_predict=STEPS, top=TOP)


SPLIT = "8.0.0"
"""The version whose clients can split a model's tensors."""


@pytest.mark.parametrize("whose", ["both-ours", "first-ours", "second-ours"])
def test_tensors_split_over_two_servers(whose: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A random transformer: with Gemma 3 the client aborts on two genuine servers already (vectors/README.md)."""
    needs_llama(SPLIT)
    caplog.set_level("INFO")
    model = tmp_path / "llama.gguf"
    tiny_models.write("llama", model)
    with upstream.server(SPLIT) as first, upstream.server(SPLIT) as second:
        genuine = split_over(model, first.endpoint, second.endpoint)
    with contextlib.ExitStack() as servers:
        both = [
            servers.enter_context(
                upstream.server(SPLIT) if whose.startswith(theirs) else Server(make_host("native", proto=SPLIT))
            ).endpoint
            for theirs in ("second", "first")
        ]
        ours = split_over(model, *both)
    print(f"{whose}: {max(distances(genuine, ours)):.4f} at most")
    assert ours.tokens == genuine.tokens
    assert len(ours.tokens) == STEPS
    assert max(distances(genuine, ours)) < 0.05
    met = {line for line in caplog.messages if line.startswith("met ")}
    assert len(met) == (2 if whose == "both-ours" else 1), caplog.messages


def split_over(model: Path, *endpoints: str) -> upstream.Generation:
    return upstream.generate(
        SPLIT, rpc=endpoints, model=model, prompt=[1, 2, 3], n_predict=STEPS, top=TOP, n_ctx=64, split="tensor", timeout=120.0
    )


def needs_llama(version: str) -> None:
    if version not in [build.protocol for build in upstream.installed() if build.runs_models]:
        pytest.skip(f"needs the genuine build of {version} with llama: ggml-rpc-ref upstream install {version} --llama")
