"""Transport capabilities: both known layouts are told apart as far as that can be done, shown, and never taken up."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from ggml_rpc_ref import connect, upstream
from ggml_rpc_ref.client.probe import probe
from ggml_rpc_ref.decode.words import word
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.server import Server
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


# ------------------------------------------------------------------------------------------------- with genuine ends


@contextlib.contextmanager
def offering(server: str, caps: bytes) -> Iterator[tuple[str, list[bytes], list[bytes]]]:
    """Stand between clients and a server, with these capabilities in place of those in the client's HELLO.

    Yields the endpoint, and what clients and server have offered.
    """
    theirs, answered = [], []
    host, _, port = server.rpartition(":")

    def forward(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def meet(client: socket.socket) -> None:
        with client, socket.create_connection((host, int(port))) as onward:
            hello = client.recv(len(HELLO_24), socket.MSG_WAITALL)
            theirs.append(hello[-24:])
            onward.sendall(hello[:-24] + caps)
            answer = onward.recv(36, socket.MSG_WAITALL)
            answered.append(answer[-24:])
            client.sendall(answer)
            thread = threading.Thread(target=forward, args=(client, onward))
            thread.start()
            forward(onward, client)
            thread.join()

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=meet, args=listener.accept()[:1], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", theirs, answered


@pytest.mark.parametrize("raw", [ROCE, THUNDERBOLT], ids=["linux", "apple"])
def test_a_genuine_client_for_which_rdma_is_offered_gets_zeros_from_us_and_stays_on_tcp(
    raw: bytes, newest_build: upstream.Build
) -> None:
    with (
        Server(make_host("oracle", memory=2**26, proto=newest_build.protocol)) as own,
        offering(own.endpoint, raw) as (endpoint, offered, answered),
    ):
        assert upstream.trial(newest_build, endpoint) == ("works", "", "")
    # that of the build itself, which has no RDMA, in each of its connections
    assert set(offered) == {bytes(24)}
    assert set(answered) == {bytes(24)}


def test_a_genuine_server_without_rdma_answers_zeros_whatever_is_offered(newest_build: upstream.Build) -> None:
    with (
        upstream.server(newest_build.name, threads=1) as server,
        offering(server.endpoint, ROCE) as (endpoint, offered, answered),
        connect(endpoint) as client,
    ):
        assert client.server_caps == bytes(24)
        assert client.devices[0].memory().total > 0
    assert (set(offered), set(answered)) == ({bytes(24)}, {bytes(24)})
