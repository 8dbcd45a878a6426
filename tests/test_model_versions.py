"""Stock clients of several versions run a real model on our server and say what they say on their own: `pytest -m models`.

Each needs its build with llama.cpp's library (`ggml-rpc-ref upstream install 7.0.0 --llama`), 2 GB of disk for the model in F32,
and a few minutes. test_model.py has 3.6.1 in more detail; vectors/README.md has what was measured.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ggml_rpc_ref import upstream
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.server import Server
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
    if version not in [build.protocol for build in upstream.installed() if build.runs_models]:
        pytest.skip(f"needs the genuine build of {version} with llama: ggml-rpc-ref upstream install {version} --llama")
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
