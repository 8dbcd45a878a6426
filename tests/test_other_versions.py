"""Genuine builds of 2.0.0 and 7.0.0 talk through the proxy: followed, recorded, and decoded to what their client says it got."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ggml_rpc_ref import decode, upstream
from ggml_rpc_ref.decode import Options
from ggml_rpc_ref.files.recording import Recorder
from ggml_rpc_ref.net.stream import parse_endpoint
from ggml_rpc_ref.proxy.proxy import Proxy
from ggml_rpc_ref.spec.versions import Version
from tests.support import tiny_models

STEPS = 3
GRAPHS = {
    "2.0.0": {"GRAPH_COMPUTE": STEPS, "GRAPH_COMPUTE reply": STEPS},
    "7.0.0": {"GRAPH_COMPUTE": 2, "GRAPH_RECOMPUTE": STEPS - 2},
}
"""Until 3.5.0 each graph is sent whole and answered; later the one of each further token is the last one again."""


@pytest.mark.upstream
@pytest.mark.parametrize("version", GRAPHS)
def test_a_genuine_conversation_is_decoded(version: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if version not in [build.protocol for build in upstream.installed() if build.runs_models]:
        pytest.skip(f"needs the genuine build of {version} with llama: ggml-rpc-ref upstream install {version} --llama")
    model, path = tmp_path / "llama.gguf", tmp_path / "talk.recording"
    tiny_models.write("llama", model)
    with (
        upstream.server(version) as server,
        Recorder(path, leave_out_over=2000) as recorder,
        Proxy(parse_endpoint(server.endpoint), recorder=recorder) as proxy,
    ):
        everything = tiny_models.VOCABULARY
        said = upstream.generate(
            version, rpc=proxy.endpoint, model=model, prompt=[1, 2, 3], n_predict=STEPS, top=everything, n_ctx=64
        )
    assert not [record.message for record in caplog.records if "can't be followed" in record.message]
    decoded = decode.decode_file(path, Options())
    assert decoded.faults == []
    assert {message.version for message in decoded.messages} == {Version.parse(version)}
    found = Counter(message.name for message in decoded.messages if "GRAPH" in message.name)
    assert found == GRAPHS[version]
    check_logits(decoded, said)
    check_uploads(decoded)


def check_logits(decoded: decode.Decoded, said: upstream.Generation) -> None:
    """The first 16 logits of each step, as they are read back, are those that the client reports."""
    size = 4 * tiny_models.VOCABULARY
    replies = [message for message in decoded.messages if message.name == "GET_TENSOR reply" and message.payload_size == size]
    read = [np.frombuffer(bytes(message.payload()), "<f4")[:16] for message in replies]
    wanted = [[logit for _, logit in sorted(step)][:16] for step in said.top]
    np.testing.assert_allclose(read, wanted, rtol=1e-6)


def check_uploads(decoded: decode.Decoded) -> None:
    """What SET_TENSOR writes fills the tensor to its last byte, for each weight; so no field stands between where none was read."""
    ends = set()
    for message in decoded.messages:
        if message.name == "SET_TENSOR":
            tensor = {item.name: item.value for item in message.read()[0].children}
            offset, data = message.read()[-2:]
            ends.add(offset.value + data.size - tensor["nb"][3] * tensor["ne"][3])
    assert ends == {0}
