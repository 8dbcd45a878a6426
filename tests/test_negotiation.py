"""Which version two ends speak: what HELLO settles, and what would break where it settles nothing."""

from __future__ import annotations

import socket

import pytest

from ggml_rpc_ref import connect
from ggml_rpc_ref.client.probe import probe
from ggml_rpc_ref.errors import Unsupported, Violation
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.protocol.negotiation import agree, breaks, forms, of_form
from ggml_rpc_ref.spec.messages import HelloReply
from ggml_rpc_ref.spec.versions import V3_6_1, V4_0_0, V8_0_0, Version
from tests.support.versions import HELLO_0, HELLO_24, answers, reply, says, serving

COUNT_1 = reply(b"\x01\0\0\0")
OLD, NEW = HELLO_0[:9], HELLO_24[:9]


CLOSED = "HELLO has 0 bytes in 3.6.1 and 24 in 4.0.0: the server closes the connection and no version is exchanged"


def closes(sock: socket.socket) -> None:
    sock.recv(9)


def version(text: str) -> Version:
    return Version.parse(text)


# ------------------------------------------------------------------------------------------------------------- the rules


def test_the_forms_of_hello() -> None:
    assert forms() == (V8_0_0, V3_6_1)
    assert of_form(0) == (version("1.0.0"), V3_6_1)
    assert of_form(24) == (V4_0_0, V8_0_0)
    assert of_form(3) is None


@pytest.mark.parametrize(
    ("said", "form", "own", "spoken"),
    [
        ("8.0.0", V8_0_0, None, "8.0.0"),
        ("5.1.0", V8_0_0, None, "5.1.0"),
        ("1.0.0", V3_6_1, None, "1.0.0"),
        ("4.0.9", V8_0_0, None, "4.0.3"),  # a patch renumbers ops and changes no layout
        ("3.5.0", V3_6_1, "3.6.1", "3.6.1"),  # a client of llama.cpp has no other layouts than its own
        ("5.0.0", V8_0_0, "5.1.0", "5.1.0"),
    ],
)
def test_what_is_agreed_on(said: str, form: Version, own: str | None, spoken: str) -> None:
    major, minor, patch = version(said)
    agreed = agree(HelloReply(major=major, minor=minor, patch=patch), form, own and version(own))
    assert (str(agreed.announced), str(agreed.version)) == (said, spoken)


@pytest.mark.parametrize(
    ("said", "form", "own", "sentence"),
    [
        ("9.2.0", V8_0_0, None, r"it speaks protocol 9\.2\.0, and this program 1\.0\.0, 2\.0\.0, .*, 8\.0\.0"),
        ("3.8.0", V3_6_1, None, r"it speaks protocol 3\.8\.0, and this program"),
        ("0.9.0", V3_6_1, None, r"it speaks protocol 0\.9\.0, and this program"),
        (
            "5.1.0",
            V8_0_0,
            "5.0.0",
            r"it speaks protocol 5\.1\.0 \(llama\.cpp b10499 .*\), this client 5\.0\.0 \(llama\.cpp b10178 to b10488\), and .*"
            r" minor version not above its own$",
        ),
        (
            "6.0.0",
            V8_0_0,
            "5.1.0",
            r"6\.0\.0 .*, this client 5\.1\.0 .*: otherwise the client waits for ever for the reply to FREE_BUFFER",
        ),
        ("4.0.3", V8_0_0, "8.0.0", r"otherwise the server closes the connection at SET_TENSOR|otherwise the reply to FREE_BUFFER"),
    ],
)
def test_what_can_not_be_agreed_on(said: str, form: Version, own: str | None, sentence: str) -> None:
    major, minor, patch = version(said)
    with pytest.raises(Unsupported, match=sentence):
        agree(HelloReply(major=major, minor=minor, patch=patch), form, own and version(own))


@pytest.mark.parametrize(("said", "form"), [((4, 0, 0), V3_6_1), ((3, 6, 1), V8_0_0), ((8, 0, 0), V3_6_1)])
def test_a_version_whose_hello_has_another_form_is_a_violation(said: tuple[int, int, int], form: Version) -> None:
    major, minor, patch = said
    with pytest.raises(Violation, match=r"it answered a HELLO of \d+ bytes, and HELLO of \d\.0\.0|\d\.6\.1 has") as caught:
        agree(HelloReply(major=major, minor=minor, patch=patch), form)
    assert caught.value.rule == "session.hello-version"


@pytest.mark.parametrize(
    ("client", "server", "harms"),
    [
        ("3.6.1", "3.6.1", []),
        ("5.1.0", "5.0.0", []),
        ("3.6.1", "4.0.0", [CLOSED]),
        ("3.6.1", "3.6.0", ["the server computes other ops: 11 of 96 have other numbers, the first 85, GATED_DELTA_NET and UNARY"]),
        (
            "3.6.0",
            "3.5.0",
            ["the server closes the connection at GET_ALLOC_SIZE, of 3260 bytes in 3.6.0 and 300 bytes in 3.5.0"],
        ),
        (
            "3.5.0",
            "3.0.0",
            [
                "the reply to GRAPH_COMPUTE, which 3.0.0 gives and 3.5.0 does not read, is taken for the next one",
                "the server closes the connection at GRAPH_RECOMPUTE, which 3.0.0 does not have",
                "the server computes other ops: 79 of 95 have other numbers, the first 16, CUMSUM and MEAN",
            ],
        ),
        (
            "4.0.1",
            "4.0.0",
            ["the server computes other ops: 42 of 97 have other numbers, the first 55, COL2IM_1D and CONV_2D"],
        ),
    ],
)  # fmt: skip
def test_what_a_mismatch_breaks(client: str, server: str, harms: list[str]) -> None:
    """Numbers from facts/protocol.md: GET_ALLOC_SIZE 300 and 3260 bytes, COL2IM_1D inserted at 55, CUMSUM at 16, …"""
    assert list(breaks(version(client), version(server))) == harms


# ------------------------------------------------------------------------------------------------------------ the client


def test_the_newest_form_is_tried_first() -> None:
    with serving(answers(HELLO_24, says(7, 0, 0))) as (endpoint, heads), connect(endpoint) as client:
        assert (str(client.server_version), str(client.version)) == ("7.0.0", "7.0.0")
    assert heads == [NEW]


@pytest.mark.parametrize("script", [closes, answers(HELLO_24, says(3, 5, 0))], ids=["closes", "answers-in-the-old-form"])
def test_the_older_form_is_tried_on_a_new_connection(script: object) -> None:
    with serving(script, answers(HELLO_0, says(3, 5, 0))) as (endpoint, heads), connect(endpoint) as client:  # type: ignore[arg-type]
        assert (str(client.server_version), str(client.version)) == ("3.5.0", "3.5.0")
    assert heads == [NEW, OLD]


@pytest.mark.parametrize(("own", "head"), [("3.6.1", OLD), ("5.1.0", NEW)])
def test_as_a_version_only_its_form_is_tried(own: str, head: bytes) -> None:
    with serving(closes) as (endpoint, heads), pytest.raises(ConnectionError, match=r"a server of .* does so"):
        connect(endpoint, proto=own)
    assert heads == [head]


def test_a_server_that_answers_no_hello() -> None:
    sentence = (
        r"it answers no form of HELLO, neither one of 24 bytes \(4\.0\.0 to 8\.0\.0\) nor one of 0 bytes \(1\.0\.0 to 3\.6\.1\)"
    )
    with serving(closes, closes) as (endpoint, heads), pytest.raises(ConnectionError, match=sentence):
        connect(endpoint)
    assert heads == [NEW, OLD]


def test_a_server_that_changes_its_mind_is_a_violation() -> None:
    """It takes HELLO as 4.0.0 has it, and then says 3.6.1."""
    sentence, script = (
        r"version is 3\.6\.1; it answered a HELLO of 24 bytes",
        answers(HELLO_24, reply(bytes([3, 6, 1]) + bytes(25))),
    )
    with serving(script) as (endpoint, _), pytest.raises(Violation, match=sentence) as caught:
        connect(endpoint)
    assert caught.value.rule == "session.hello-version"


def test_an_unknown_major_version() -> None:
    sentence = r"HELLO to 127\S+: it speaks protocol 200\.2\.0, and this program 1\.0\.0, "
    with serving(answers(HELLO_24, says(200, 2, 0))) as (endpoint, _), pytest.raises(Unsupported, match=sentence):
        connect(endpoint)


def test_of_an_unknown_patch_no_graph_is_sent() -> None:
    """Its ops may have other numbers."""
    with serving(answers(HELLO_24, says(4, 0, 9), COUNT_1)) as (endpoint, _), connect(endpoint) as client:
        graph = Graph.decode(bytes(12))
        with pytest.raises(
            Unsupported, match=r"protocol 4\.0\.9 is none of upstream's known here, and its ops may have other numbers"
        ):
            client.devices[0].compute(graph)


# ------------------------------------------------------------------------------------------------------------- the probe


def test_the_probe_negotiates() -> None:
    device = [reply(bytes(16)), reply(b"\x20" + bytes(7)), reply(b"\xff" * 8)]
    with serving(closes, answers(HELLO_0, says(3, 0, 0), COUNT_1, *device)) as (endpoint, _):
        report = probe(endpoint, 5)
    assert (report.protocol, report.device_count, report.error) == ("3.0.0", 1, None)
    # before 3.0.0 nobody can ask for the number of devices, and there is one
    with serving(closes, answers(HELLO_0, says(2, 0, 0), *device)) as (endpoint, _):
        report = probe(endpoint, 5)
    assert (report.protocol, report.device_count, report.error) == ("2.0.0", 1, None)


def test_the_probe_as_a_version() -> None:
    with serving(answers(HELLO_24, says(5, 1, 0))) as (endpoint, heads):
        report = probe(endpoint, 5, version("5.0.0"))
    assert (report.protocol, heads) == ("5.1.0", [NEW])
    assert report.error is not None
    assert "it speaks protocol 5.1.0 (llama.cpp b10499 to b10635), this client 5.0.0 (llama.cpp" in report.error


def test_the_probe_of_a_version_that_nobody_knows() -> None:
    with serving(answers(HELLO_24, says(9, 2, 0))) as (endpoint, _):
        report = probe(endpoint, 5)
    assert report.protocol == "9.2.0"
    assert report.error is not None
    assert report.error.startswith(f"HELLO to {endpoint}: it speaks protocol 9.2.0, and this program 1.0.0, ")
