"""Transport capabilities: both known layouts are told apart as far as that can be done, shown, and never taken up."""

from __future__ import annotations

import pytest

from ggml_rpc_ref import connect
from ggml_rpc_ref.client.probe import probe
from ggml_rpc_ref.decode.words import word
from ggml_rpc_ref.spec.caps import APPLE, LINUX, describe, layout
from ggml_rpc_ref.spec.versions import Version
from tests.support.versions import HELLO_24, answers, reply, serving

ROCE = bytes.fromhex("a1020080 a1020000 00000000000000000000ffffc0a80102")
"""qpn 0x800002a1, its low 24 bits as psn, the GID of 192.168.1.2."""
THUNDERBOLT = bytes.fromhex("a1020000 0500 0000 fe80000000000000aabbccfffeddeeff")
"""qpn 673, lid 5, a link-local GID."""


@pytest.mark.parametrize(
    ("raw", "kind", "words"),
    [
        (bytes(24), None, "TCP only"),
        (ROCE, LINUX, "RDMA of Linux (RoCE or InfiniBand): qpn 2147484321, psn 673, gid ::ffff:c0a8:102"),
        (THUNDERBOLT, APPLE, "RDMA of Apple: qpn 673, lid 5, gid fe80::aabb:ccff:fedd:eeff"),
        (b"\xff" * 24, None, "unknown transport"),
    ],
    ids=["none", "linux", "apple", "noise"],
)
def test_layouts(raw: bytes, kind: object, words: str) -> None:
    assert layout(raw) is kind
    assert describe(raw) == words
    assert word("conn_caps", raw, Version(4, 0, 0)) == words


@pytest.mark.parametrize("raw", [ROCE, THUNDERBOLT, b"\xff" * 24], ids=["linux", "apple", "noise"])
def test_a_client_stays_on_tcp_whatever_the_server_offers(raw: bytes) -> None:
    welcome = reply(bytes([4, 0, 3, 0]) + raw)
    with serving(answers(HELLO_24, welcome, reply(b"\x01\0\0\0"))) as (endpoint, _), connect(endpoint) as client:
        assert len(client.devices) == 1
        assert client.server_caps == raw
    device = (reply(bytes(16)), reply(b"\x20" + bytes(7)), reply(b"\xff" * 8))
    with serving(answers(HELLO_24, welcome, reply(b"\x01\0\0\0"), *device)) as (endpoint, _):
        report = probe(endpoint, 5)
    assert report.error is None
    assert report.transport == describe(raw)
    assert f"protocol 4.0.3 (llama.cpp b10054 to b10173), offers {describe(raw)}, 1 device" in report.text()
