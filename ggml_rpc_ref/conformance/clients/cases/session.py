"""Section "session" for clients: HELLO and versions, and what a server may do to a client."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from ggml_rpc_ref.conformance.clients.bench import Bench, require_right
from ggml_rpc_ref.conformance.clients.case import client_case
from ggml_rpc_ref.conformance.clients.heard import ABORTED, Run
from ggml_rpc_ref.conformance.clients.refused import require_none
from ggml_rpc_ref.conformance.clients.script import Answer, Change, End, Script, announcing, answering, fault
from ggml_rpc_ref.conformance.verdict import Broken, NotJudged, require
from ggml_rpc_ref.spec.messages import (
    CAPS_SIZE,
    REQUESTS,
    AllocBuffer,
    BufferGetBase,
    CopyTensor,
    DeviceCount,
    GetAlignment,
    GetAllocSize,
    GetDeviceMemory,
    GetMaxSize,
    GetTensor,
    GraphCompute,
    Hello,
    HelloReply,
    SetTensorHash,
    command_name,
)
from ggml_rpc_ref.spec.versions import PROFILES, Version

ALL_ONES: Final = 2**64 - 1
ZERO: Final = Version(*[0] * 3)
LARGEST: Final = Version(*[255] * 3)
"""The least and the largest that HELLO can say: no version of anything."""

# ----------------------------------------------------------------------------------------------------------------- HELLO


@client_case("session.says-hello/first-and-once")
def first_and_once(bench: Bench) -> None:
    """To an honest server every connection begins with HELLO, in the form of the version, and says it no second time."""
    run = bench.honest()
    require_none("session.says-hello", [run])
    silent = [talk for talk in run.conversations if not talk.asked and talk.violation is None]
    require(len(silent) < len(run.conversations), "HELLO", "no connection said anything")


@client_case("session.client-caps/zero")
def caps_are_zero(bench: Bench) -> None:
    """HELLO's conn_caps are zeros, unless the client offers a transport of its own."""
    offered = next((asked.message.conn_caps for asked in bench.honest().asked(Hello) if any(asked.message.conn_caps)), None)
    if offered is not None:
        raise NotJudged(f"the client offers a transport of its own: {offered.hex()}")


CAPS: Final = {"linux": bytes(range(1, CAPS_SIZE + 1)), "all-ones": b"\xff" * CAPS_SIZE}
"""What a server with RDMA sends: qpn, psn and gid of the layout of Linux, and any bytes."""


@client_case("session.client-caps/server-offers-{}", each=CAPS)
def caps_of_the_server(bench: Bench, caps: bytes) -> None:
    """The reply to HELLO offers RDMA ({}); a client that has none stays on TCP and gets through."""
    caps_are_zero(bench)

    def answer(_: Any, honest: HelloReply) -> HelloReply:
        return HelloReply(major=honest.major, minor=honest.minor, patch=honest.patch, conn_caps=caps)

    require_right(bench.run(answering("HELLO", answer)), "the server offered RDMA")


# -------------------------------------------------------------------------------------------------------------- versions


def _require_refusal(run: Run, version: Version) -> None:
    """Require that a client says nothing to a server of a version, and does not end as though it had served it."""
    said = [asked.command for talk in run.conversations for asked in talk.asked[1:]]
    require(not said, f"nothing after HELLO to a server of {version}", f"{', '.join(dict.fromkeys(said))} came")
    require(run.ended.status != 0, "an error that says so", "the client ended as though nothing had happened")


def _newest(version: Version) -> Version:
    """Return the newest known version of the same major number: a client that knows all of them may go on with each."""
    return max(known for known in PROFILES if known.major == version.major)


@client_case("session.version-accepted/higher-major")
def higher_major(bench: Bench) -> None:
    """HELLO is answered with a major version above every known one: the client says nothing more, and fails."""
    version = Version(max(PROFILES).major + 1, 0, 0)
    _require_refusal(bench.run(announcing(version)), version)


@client_case("session.version-accepted/higher-minor")
def higher_minor(bench: Bench) -> None:
    """HELLO is answered with the client's major version and a minor version above every known one: nothing more, and it fails."""
    newest = _newest(bench.version)
    version = Version(newest.major, newest.minor + 1, 0)
    _require_refusal(bench.run(announcing(version)), version)


@client_case("session.version-accepted/zero")
def version_zero(bench: Bench) -> None:
    """HELLO is answered with version 0.0.0: the client says nothing more, and fails."""
    _require_refusal(bench.run(announcing(ZERO)), ZERO)


@client_case("session.version-accepted/all-ones")
def version_all_ones(bench: Bench) -> None:
    """HELLO is answered with version 255.255.255: the client says nothing more, and fails."""
    _require_refusal(bench.run(announcing(LARGEST)), LARGEST)


@client_case("session.version-accepted/reply-awaited")
def hello_is_awaited(bench: Bench) -> None:
    """HELLO's reply comes half a second late: the client sends nothing before it, since the layouts depend on the version."""
    run = bench.run(Script(changes=(Change("HELLO", delay=0.5),)))
    for talk in run.conversations:
        early = [asked.command for asked in talk.asked[1:] if asked.at < talk.asked[0].replied]
        require(not early, "nothing before HELLO's reply", f"{', '.join(early)} came")


@client_case("session.speaks-older/older-minor")
def older_minor(bench: Bench) -> None:
    """A server of the client's major version and the next older minor one: the client stops, or speaks it and gets through."""
    version = bench.version
    older = [v for v in PROFILES if v.major == version.major and v.minor < version.minor]
    if not older:
        raise NotJudged(f"there is no older minor version than {version} with its major number")
    run = bench.run(Script(version=max(older)))
    if any(talk.goes_on for talk in run.conversations):
        require_right(run, f"the server speaks {run.version}")


# -------------------------------------------------------------------------------------------------- whatever is answered


def _but(**values: int) -> Answer:
    return lambda _, honest: replace(honest, **values)


STRANGE: Final[dict[type, dict[str, Answer]]] = {
    DeviceCount: {"0": _but(device_count=0), "2-32-less-1": _but(device_count=2**32 - 1)},
    GetAlignment: {
        "0": _but(alignment=0),
        "3": _but(alignment=3),
        "2-63": _but(alignment=2**63),
        "2-64-less-1": _but(alignment=ALL_ONES),
    },
    GetMaxSize: {"0": _but(max_size=0), "1": _but(max_size=1), "2-63": _but(max_size=2**63)},
    GetDeviceMemory: {
        "0-of-0": _but(free_mem=0, total_mem=0),
        "more-free-than-total": _but(free_mem=2**40, total_mem=2**30),
        "2-64-less-1": _but(free_mem=ALL_ONES, total_mem=ALL_ONES),
    },
    AllocBuffer: {
        "pointer-without-size": _but(remote_size=0),
        "size-without-pointer": _but(remote_ptr=0),
        "size-2-64-less-1": _but(remote_size=ALL_ONES),
    },
    BufferGetBase: {"0": _but(base_ptr=0), "odd": _but(base_ptr=0x7F0000000001), "2-64-less-1": _but(base_ptr=ALL_ONES)},
    GetAllocSize: {"0": _but(alloc_size=0), "2-63": _but(alloc_size=2**63), "2-64-less-1": _but(alloc_size=ALL_ONES)},
    SetTensorHash: {"255": _but(result=255)},
    CopyTensor: {"255": _but(result=255)},
}
"""Replies of the right form with values that no server gives."""
VALUES: Final = {
    f"{command_name(cls).lower().replace('_', '-')}-{words}": (cls, answer)
    for cls, rows in STRANGE.items()
    for words, answer in rows.items()
}


COSTLY: Final = 10.0
"""Seconds: stock clients make an object of each of 2^32 devices, and would fill a machine's memory."""


@client_case("session.unharmed/{}", each=VALUES, since=lambda value: REQUESTS[value[0]].since)
def strange_value(bench: Bench, value: tuple[type, Answer]) -> None:
    """A reply with a value that no server gives ({}): the client neither dies of a fault of memory nor waits for ever."""
    cls, answer = value
    bench.run(answering(command_name(cls), answer), most=COSTLY)  # which judges just that


# ---------------------------------------------------------------------------------------------------------- how it fails


def _require_lives(run: Run) -> None:
    if not run.ended.visible:
        raise NotJudged("how the client's process ends can't be seen")
    if run.ended.status == -ABORTED:
        raise Broken("an error that is told to the caller", run.ended.death)


def _no_payload(_: bytes) -> bytes:
    return bytes(8)


FAILURES: Final[dict[str, tuple[type, Script]]] = {
    "version-refused": (Hello, announcing(LARGEST)),
    "hello-closed": (Hello, fault("HELLO", lambda _: b"", End.FIN)),
    "device-count-empty": (DeviceCount, fault("DEVICE_COUNT", _no_payload)),
    "alloc-buffer-closed": (AllocBuffer, fault("ALLOC_BUFFER", lambda _: b"", End.FIN)),
    "buffer-get-base-empty": (BufferGetBase, fault("BUFFER_GET_BASE", _no_payload)),
    "get-tensor-cut-off": (GetTensor, fault("GET_TENSOR", lambda reply: reply[:-1], End.FIN)),
    "graph-compute-refused": (GraphCompute, Script(changes=(Change("GRAPH_COMPUTE", end=End.FIN),))),
}
"""Conversations that can't go on, by the request at which that shows first."""


@client_case("session.lives/{}", each=FAILURES, since=lambda row: REQUESTS[row[0]].since)
def lives(bench: Bench, row: tuple[type, Script]) -> None:
    """A conversation that can't go on ({}): the process is not ended by SIGABRT; it says so, or ends with an exit status."""
    _require_lives(bench.run(row[1]))
