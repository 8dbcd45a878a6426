"""Forks are recognised by what they answer HELLO with, read where their layouts are known, and refused by name where not."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest

from ggml_rpc_ref import connect
from ggml_rpc_ref.client.probe import probe
from ggml_rpc_ref.decode import Options, decode_file
from ggml_rpc_ref.decode.words import op_name
from ggml_rpc_ref.errors import Unsupported, Violation
from ggml_rpc_ref.files.recording import Direction
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.protocol.negotiation import readable
from ggml_rpc_ref.protocol.order import Order
from ggml_rpc_ref.proxy.follow import Exchange, Follower
from ggml_rpc_ref.spec.dialects import DIALECTS, IK, IK_RECORDS, meanings, recognised
from ggml_rpc_ref.spec.versions import PROFILES, Version
from tests.support.versions import HELLO_0, HELLO_24, answers, reply, says, serving

COUNT_1 = reply(b"\x01\0\0\0")
DEVICE = (reply(bytes(16)), reply(b"\x20" + bytes(7)), reply(b"\xff" * 8))


@pytest.mark.parametrize(
    ("said", "name", "read_as"),
    [
        ("2.0.1", "ik_llama.cpp of June", "2.0.0"),
        ("3.5.1", "ik_llama.cpp of November", "3.5.0"),
        ("3.5.2", "ik_llama.cpp since", "3.5.0"),
        ("3.7.0", "mesh-llm", None),
        ("4.11.3", "a fork of qvac-fabric", None),
        ("5.2.7", "unslothai/llama.cpp", None),
        ("7.0.1", "a fork with GET_DEVICE_SUPPORTS_OP", None),
        ("9.1.0", "a fork with an all-reduce over a mesh", None),
        ("107.3.1", "qvac-fabric", None),
        ("108.0.0", "qvac-fabric", None),
    ],
)
def test_forks_that_hello_tells_apart(said: str, name: str, read_as: str | None) -> None:
    fork = recognised(Version.parse(said))
    assert fork is not None
    assert fork.name.startswith(name)
    read = readable(Version.parse(said))
    assert (None if read is None else str(read)) == read_as


def test_no_version_of_upstreams_is_taken_for_a_fork() -> None:
    assert [version for version in PROFILES if recognised(version)] == []
    assert recognised(Version(9, 2, 0)) is None
    # rows under upstream's numbers explain commands; they are not what HELLO tells
    assert [row.name for row in DIALECTS if row.hides] == [
        "a fork in the manner of qvac-fabric", "a private fork", "forks that batch or push tensors", "osito-k",
    ]  # fmt: skip


def test_what_a_command_means_elsewhere_is_said() -> None:
    assert list(meanings(23)) == ["SYNCHRONIZE in a fork in the manner of qvac-fabric"]
    assert list(meanings(20)) == ["GET_SNAPSHOT in forks that batch or push tensors"]
    assert list(meanings(16)) == []
    order = Order[None](Version(3, 6, 1), from_start=False)
    with pytest.raises(Violation, match=r"defines none of this number; it is REGISTER_PEER in mesh-llm; it is SET_TENSOR_BATCH, "):
        order.command(17)


def test_a_fork_of_unknown_layouts_is_refused_by_name() -> None:
    sentence = (
        r"it speaks protocol 9\.1\.0, as a fork with an all-reduce over a mesh does, which adds .*; this program speaks 1\.0\.0"
    )
    with serving(answers(HELLO_24, says(9, 1, 0))) as (endpoint, _):
        report = probe(endpoint, 5)
    assert (report.protocol, report.dialect) == ("9.1.0", "a fork with an all-reduce over a mesh")
    with serving(answers(HELLO_24, says(9, 1, 0))) as (endpoint, _), pytest.raises(Unsupported, match=sentence):
        connect(endpoint)


def of_records(size: int) -> object:
    """A server like ik_llama.cpp's whose tensor record has so many bytes; every other size of GET_ALLOC_SIZE it closes on."""
    payload = 4 + size * (17 if size == 376 else 1)

    def script(sock: socket.socket) -> None:
        if sock.recv(9, socket.MSG_WAITALL) != HELLO_0:
            return
        sock.sendall(says(3, 5, 2))
        head = sock.recv(9, socket.MSG_WAITALL)
        if head != b"\x0d" + payload.to_bytes(8, "little"):
            return
        got = sock.recv(payload, socket.MSG_WAITALL)
        # type F32; one element of four bytes, in fields of 32 or of 64 bits
        width = 8 if size == 376 else 4
        one, four = (n.to_bytes(width, "little") for n in (1, 4))
        if got[4 + 8 : 4 + 12] == bytes(4) and got[4 + 20 : 4 + 20 + 8 * width] == one * 4 + four * 4:
            sock.sendall(reply((4).to_bytes(8, "little")))

    return script


@pytest.mark.parametrize("size", IK_RECORDS)
def test_the_builds_of_ik_are_told_apart_by_their_record(size: int) -> None:
    first = [answers(HELLO_0, says(3, 5, 2)), answers(HELLO_0, says(3, 5, 2), COUNT_1, *DEVICE)]
    tries = [of_records(size)] * (IK_RECORDS.index(size) + 1)
    with serving(*first, *tries) as (endpoint, _):  # type: ignore[arg-type]
        report = probe(endpoint, 5)
    assert report.error is None
    assert report.dialect == f"{IK.name}, tensor records of {size} bytes"
    assert report.headline.endswith(f"protocol 3.5.2 ({report.dialect}), 1 device")


def test_a_fork_whose_layouts_are_known_is_spoken_to_but_computes_nothing() -> None:
    with serving(lambda sock: None, answers(HELLO_0, says(3, 5, 2), COUNT_1)) as (endpoint, _), connect(endpoint) as client:
        assert (str(client.server_version), str(client.version)) == ("3.5.2", "3.5.0")
        with pytest.raises(Unsupported, match=r"protocol 3\.5\.2 is none of upstream's known here"):
            client.devices[0].compute(Graph(0, np.zeros(0, "<u8"), Graph.decode(bytes(12)).tensors))


IK_SESSION = (
    Path(__file__).parents[1] / "vectors" / "upstream-3.5.2-ik-llama-cpp-python-0.1.5" / "sessions" / "mul-mat-q4-k.recording"
)


def test_what_a_genuine_fork_said_is_read_and_its_ops_are_not_named_by_upstreams_numbers() -> None:
    decoded = decode_file(IK_SESSION, Options())
    assert decoded.faults == []
    assert {str(message.version) for message in decoded.messages} == {"3.5.2"}
    (note,) = decoded.source.notes
    assert "ik_llama.cpp since January 2026 says so" in note
    assert note.endswith("read by the layouts of 3.5.0, and ops have numbers of its own, which are not named")
    # 27 is MUL_MAT in ik_llama.cpp (enums.json beside the session), GROUP_NORM in upstream's 3.5.0
    assert [op_name(number, decoded.messages[0].version) for number in (0, 27)] == ["NONE", "op 27"]


def follow(said: bytes) -> tuple[Follower, list[Exchange]]:
    told: list[Exchange] = []
    follower = Follower(1, tell=told.append)
    for direction, data in (
        (Direction.TO_SERVER, HELLO_0),
        (Direction.TO_CLIENT, said),
        (Direction.TO_SERVER, b"\x0f" + bytes(8)),
        (Direction.TO_CLIENT, COUNT_1),
    ):
        follower.feed(direction, memoryview(data))
    return follower, told


def test_the_proxy_follows_forks_of_known_layouts() -> None:
    follower, told = follow(says(3, 5, 2))
    assert follower.violation is None
    assert [str(exchange.version) for exchange in told] == ["3.6.1", "3.5.0"]
    follower, _ = follow(says(3, 7, 0))
    assert "mesh-llm says so, which moves tensors between servers; its messages can't be followed" in str(follower.violation)


def test_the_proxy_refuses_a_version_of_another_form() -> None:
    """HELLO of no bytes, answered with three: that was 4.0.0's."""
    follower, _ = follow(reply(bytes([4, 0, 0])))
    assert follower.violation is not None
    assert follower.violation.rule == "session.hello-version"
