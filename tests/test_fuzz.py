"""The fuzzer: its sessions are good until a mutation, its judge sees what sabotaged servers do, and ours shows it nothing."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from threading import Timer

import numpy as np
import pytest

from ggml_rpc_ref.commands.main import main
from ggml_rpc_ref.errors import Damaged, Misuse, Violation
from ggml_rpc_ref.fuzz import (
    MUTATIONS,
    Began,
    Campaign,
    Count,
    Ended,
    Find,
    Found,
    Generator,
    Kind,
    Options,
    Progressed,
    Session,
    Store,
    engine,
    mutate,
)
from ggml_rpc_ref.fuzz.converse import End, Heard, Speaker
from ggml_rpc_ref.fuzz.engine import hashes_kept
from ggml_rpc_ref.fuzz.finds import as_json, script_of, steps_of
from ggml_rpc_ref.fuzz.inside import Inside
from ggml_rpc_ref.fuzz.introduce import introduce
from ggml_rpc_ref.fuzz.jobs import Merged
from ggml_rpc_ref.fuzz.judge import against, replies_of, suspicions
from ggml_rpc_ref.fuzz.marks import marks, restored
from ggml_rpc_ref.fuzz.mutations.table import put
from ggml_rpc_ref.fuzz.numbers import differs
from ggml_rpc_ref.fuzz.packet import Packet, address, handle, joined, meaning
from ggml_rpc_ref.fuzz.page import page
from ggml_rpc_ref.fuzz.parts import Part, catalogue
from ggml_rpc_ref.fuzz.plan import Due, Plan, plan_from_start, plan_of, sentinel
from ggml_rpc_ref.fuzz.replay import Player, load
from ggml_rpc_ref.fuzz.reproduce import Reproducer, smaller
from ggml_rpc_ref.fuzz.session import PER_CONNECTION, Buffer, Note, Peer, Step
from ggml_rpc_ref.fuzz.watch import Usage, Watched
from ggml_rpc_ref.golden import play, verify
from ggml_rpc_ref.net.stream import free_port, parse_endpoint
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server import handlers
from ggml_rpc_ref.server.tensor_cache import THRESHOLD
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.messages import (
    FLAG_COMPUTE,
    BufferClear,
    CommAllreduce,
    CommInit,
    CopyTensor,
    DeviceCount,
    FreeBuffer,
    GetAlignment,
    GetDeviceMemory,
    GetDeviceMemoryReply,
    GetTensor,
    GraphRecompute,
    Hello,
    RpcTensor,
    SetTensor,
    SetTensorHash,
)
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.versions import DEFAULT, NEWEST, PROFILES, Version
from tests.support.command import run_command
from tests.support.sabotage import SABOTAGES, InProcess, Sabotage
from tests.support.versions import HELLO_0, answers, says, serving

SPOKEN = [version for version in PROFILES if op_table(version)]


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(devices=2)


@pytest.fixture(scope="module")
def inside() -> Inside:
    return Inside(devices=2)


# ------------------------------------------------------------------------------------------------------------- packets


def test_a_made_up_number_stands_for_the_servers() -> None:
    tensor = RpcTensor(id=1, buffer=handle(3), data=address(3, 4096))
    packet = Packet.of(GetTensor(tensor=tensor, offset=0, size=8))
    # rpc_tensor of 3.6.1: buffer at 12, data at 220; 9 bytes of head before
    assert [(p.at, p.buffer, p.delta) for p in packet.places] == [(9 + 12, 3, 0), (9 + 220, 3, 4096)]
    sent = packet.rendered({3: (0x1111, 0x70000000)})
    assert struct.unpack_from("<Q", sent, 21) == (0x1111,)
    assert struct.unpack_from("<Q", sent, 229) == (0x70001000,)


def test_a_number_moved_out_of_its_window_is_nobodys() -> None:
    assert meaning(address(1, -64)) == (1, 1, -64)
    assert meaning(address(1) + 2**60) is None
    assert meaning(0) is None


def test_numbers_of_a_graph_are_found_in_every_version() -> None:
    for version in SPOKEN:
        tensors = np.zeros(2, codec.layout(RpcTensor, version))
        tensors["buffer"], tensors["data"] = handle(1), address(1)
        packet = Packet.of(Graph(0, np.array([7], "<u8"), tensors), version)
        sent = packet.rendered({1: (0xAAAA, 0xBBBB)})
        assert sent.count(struct.pack("<Q", 0xAAAA)) == sent.count(struct.pack("<Q", 0xBBBB)) == 2, version


@pytest.mark.parametrize("notes", [[], [Note("CPY", "changed", "for the test")]])
@pytest.mark.parametrize(("meets", "found"), [(False, True), (True, False)])
def test_a_copy_of_bytes_is_judged_unless_other_results_are_among_them(meets: bool, found: bool, notes: list[Note]) -> None:
    """A result over the copy's source is right within a tolerance, and its bytes may be others, in a changed session or not."""
    numbers = {name: number for number, name in enumerate(op_table(DEFAULT))}
    tensors = np.zeros(4, codec.layout(RpcTensor, DEFAULT))
    tensors["id"], tensors["ne"], tensors["flags"] = [1, 2, 3, 4], 1, FLAG_COMPUTE
    tensors["op"] = [0, numbers["CPY"], 0, numbers["SQR"]]
    tensors["type"] = [BY_NAME[name].number for name in ("I8", "I8", "F32", "F32")]
    tensors["data"] = [address(1), address(1, 64), address(1, 128), address(1, 0 if meets else 192)]
    tensors["ne"][:, 0], tensors["src"][[1, 3], 0] = [16, 16, 4, 4], [1, 3]
    for dim in range(4):
        tensors["nb"][:, dim] = [1, 1, 4, 4] if dim == 0 else 16
    read = GetTensor(tensor=RpcTensor(data=address(1), ne=(256, 1, 1, 1)), offset=0, size=256)
    steps = [Step(0, Graph(0, np.array([2, 4], "<u8"), tensors)), Step(0, read)]
    wanted, got = bytes(256), bytearray(256)
    got[70] = 1
    session = Session("test", steps=steps, notes=notes)
    assert ("node CPY" in differs(session, steps[1], wanted, bytes(got))) is found


@pytest.mark.parametrize(("source", "at", "found"), [(64, 2, False), (64, 34, False), (64, 18, True), (128, 2, True)])
def test_a_result_that_was_copied_is_right_within_a_tolerance(source: int, at: int, found: bool) -> None:
    """Also where the copy was copied on; not the bytes beside it, nor a copy of what is no result."""
    numbers = {name: number for number, name in enumerate(op_table(DEFAULT))}
    tensors = np.zeros(2, codec.layout(RpcTensor, DEFAULT))
    tensors["id"], tensors["ne"], tensors["flags"], tensors["op"] = [1, 2], 1, FLAG_COMPUTE, [0, numbers["SQR"]]
    tensors["data"], tensors["ne"][:, 0], tensors["src"][1, 0] = [address(1, 128), address(1, 64)], 4, 1
    tensors["nb"] = [4, 16, 16, 16]
    wire = RpcTensor(id=9, type=BY_NAME["I8"].number, ne=(16, 1, 1, 1), nb=(1, 16, 16, 16), buffer=handle(1))
    places = [replace(wire, data=address(1, offset)) for offset in (source, 0, 32)]
    copies = [Step(0, CopyTensor(src=src, dst=dst)) for src, dst in pairwise(places)]
    read = Step(0, GetTensor(tensor=RpcTensor(data=address(1), ne=(256, 1, 1, 1)), offset=0, size=256))
    steps = [Step(0, Graph(0, np.array([2], "<u8"), tensors)), *copies, read]
    got = bytearray(256)
    got[at] = 1
    assert bool(differs(Session("test", steps=steps), read, bytes(256), bytes(got))) is found


def test_cut_and_changed_packets_keep_what_is_whole() -> None:
    packet = Packet.of(FreeBuffer(remote_ptr=handle(2)))
    assert packet.cut(0, 16).places == ()
    assert packet.with_bytes(0, b"\x05").places == packet.places
    assert joined([Packet(b"abc"), packet]).places[0].at == 12


# ---------------------------------------------------------------------------------------------------------- framing


def test_a_plan_says_what_is_answered() -> None:
    plan = plan_of(bytes.fromhex("0f 0000000000000000  01 0400000000000000 00000000".replace(" ", "")))
    assert [due.reply for due in plan.dues] == [12, 16]
    assert (plan.rule, plan.is_cut) == ("", False)


@pytest.mark.parametrize(
    ("data", "rule", "is_cut"),
    [
        ("ff", "frame.command-known", False),
        ("0e0000000000000000", "session.hello-once", False),
        ("0f0100000000000000", "frame.size-fixed", False),
        ("0a0300000000000000", "frame.size-minimum", False),
        ("0f00000000", "", True),
        ("06ffff000000000000aa", "", True),
    ],
)
def test_a_plan_ends_where_a_server_must_refuse(data: str, rule: str, is_cut: bool) -> None:
    plan = plan_of(bytes.fromhex("0f0000000000000000" + data))
    assert len(plan.dues) == 1
    assert (plan.rule, plan.is_cut) == (rule, is_cut)


def test_a_reply_as_long_as_it_asks_for() -> None:
    request = GetTensor(tensor=RpcTensor(id=1), offset=0, size=1000)
    (due,) = plan_of(codec.encode_request(request)).dues
    assert due.reply == 1008


# --------------------------------------------------------------------------------------------------- well-formed sessions


@pytest.mark.parametrize("version", SPOKEN, ids=str)
def test_a_session_of_any_seed_is_accepted_and_answered_right(version: Version) -> None:
    generator, inside = Generator(version, devices=2), Inside(version, devices=2)
    for seed in range(8 if version in (DEFAULT, SPOKEN[-1]) else 3):
        session = generator.session(f"{seed}/{version}")
        for connection, said in enumerate(inside.have(session)):
            steps = session.spoken(connection)
            assert said.violation is None, seed
            assert said.crash is None, seed
            assert len(said.answers) == len(steps) + 1  # and the sentinel
            for step, answer in zip(steps, said.answers, strict=False):
                if isinstance(step.expected, Part):
                    assert step.expected.wrong(answer.reply[8:]) == "", seed
                elif step.expected is not None:
                    assert answer.reply[8:] == step.expected, seed
    assert inside.is_clean


def test_every_op_can_be_asked_for(generator: Generator) -> None:
    without = {"MAP_CUSTOM1", "MAP_CUSTOM2", "MAP_CUSTOM3", "CUSTOM"}
    assert without.isdisjoint(generator.names)
    # SILU_BACK to GLU: what the version has and the oracle computes
    assert len(generator.names) == len({name for name, _ in catalogue()}) >= 90


def test_the_same_seed_makes_the_same_session(generator: Generator) -> None:
    one, two = (Generator(devices=2).session(5) for _ in range(2))
    assert [s.packet(DEFAULT) for s in one.steps] == [s.packet(DEFAULT) for s in two.steps]
    assert [s.packet(DEFAULT) for s in one.steps] != [s.packet(DEFAULT) for s in generator.session(6).steps]


def test_an_unknown_op_is_a_misuse() -> None:
    with pytest.raises(Misuse, match="NO_SUCH_OP"):
        Generator(ops=["NO_SUCH_OP"])


# ----------------------------------------------------------------------------------------------------------- mutations


@pytest.fixture(scope="module")
def newest() -> Generator:
    return Generator(NEWEST, devices=2)


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_a_mutation_changes_the_session_and_says_what(generator: Generator, newest: Generator, name: str) -> None:
    # what the default version lacks: uids, transports, sums
    made = newest if name in ("handle.uid", "frame.caps") or name.startswith("sum.") else generator
    rng = Random(name)
    for seed in range(400):
        session = made.session(f"{name}{seed}")
        before = said_in(session)
        note = mutate(rng, session, name)
        if note is None or said_in(session) == before:
            continue
        assert note.mutation == name
        assert note.target
        assert note.what
        assert session.notes == [note]
        return
    pytest.fail("it never changed anything")


@pytest.mark.parametrize("op", ["GET_ROWS", "SET_ROWS", "MUL_MAT_ID"])
def test_an_index_is_put_where_the_node_reads_it(generator: Generator, inside: Inside, op: str) -> None:
    rules = []
    for number in range(30):
        session = generator.session(f"index {number}", op)
        if note := mutate(Random(number), session, "contents.index"):
            assert note.target == op
            rules += [one.violation.rule for one in inside.have(session) if one.violation]
    # nothing else can be wrong, and only a few of the numbers happen to be right
    assert set(rules) == {"graph.index"}
    assert len(rules) > 10


def test_mutations_bear_what_others_have_made(generator: Generator, newest: Generator) -> None:
    """A session that led to something new is changed again and again: frames without bytes, ids and lengths at their ends."""
    cut = Session("0", steps=[Step(0, Packet(b"")), Step(0, Packet(b"\xff" * 3))])
    for name in sorted(MUTATIONS):
        for seed in range(20):
            mutate(Random(seed), replace(cut, steps=list(cut.steps), notes=[]), name)
    rng = Random(21)
    for seed in range(300):
        session = rng.choice((generator, newest)).session(f"again/{seed}")
        for name in rng.choices(sorted(MUTATIONS), k=8):
            mutate(rng, session, name)
    session = generator.session("ends", "ADD")
    index = next(i for i, step in enumerate(session.steps) if isinstance(step.message, Graph))
    graph = session.steps[index].message
    assert isinstance(graph, Graph)
    graph.tensors["id"], graph.tensors["ne"][:, 0] = 2**64 - 1, 2**32 - 2
    graph.nodes[:] = 2**64 - 1
    for name in sorted(MUTATIONS):
        for seed in range(30):
            mutate(Random(seed), replace(session, steps=list(session.steps), notes=[]), name)


def said_in(session: Session) -> list[object]:
    """Return all that a session says and does."""
    steps = [(step.connection, step.packet(session.version)) for step in session.steps]
    return [steps, session.caps, session.short, session.peers, session.leaves, session.headless]


def test_no_mutation_of_our_own_server_is_a_defect(generator: Generator, inside: Inside) -> None:
    """A taste of `fuzz-ourselves`, which .ci/run has for two minutes: every exception but Violation is a fault of ours."""
    rng = Random(20)
    for seed in range(50):
        session = generator.session(f"own/{seed}", rng.choice(generator.names) if seed % 2 else "")
        mutate(rng, session, rng.choice(list(MUTATIONS)))
        for said in inside.have(session):
            assert said.crash is None, session.notes
        assert inside.is_clean, session.notes


# --------------------------------------------------------------------------------------------------------------- judging


def heard(requests: list[object], replies: bytes, end: End = End.DONE) -> Heard:
    data = b"".join(codec.encode_request(request) for request in requests)  # type: ignore[arg-type]
    return Heard(data, plan_of(data), replies, end)


ANSWER = bytes.fromhex("0800000000000000 2000000000000000".replace(" ", ""))


def test_replies_are_cut_by_the_plan() -> None:
    assert replies_of(heard([GetAlignment(), GetAlignment()], ANSWER * 2)) == ([ANSWER[8:]] * 2, None)


@pytest.mark.parametrize(
    ("replies", "kind", "rule"),
    [
        (ANSWER[:7], None, ""),
        (b"\x07" + ANSWER[1:], Kind.DESYNC, "frame.reply-presence"),
        (ANSWER * 2 + b"\0", Kind.UNASKED, "frame.reply-presence"),
    ],
)
def test_wrong_framing_is_seen(replies: bytes, kind: Kind | None, rule: str) -> None:
    _, broken = replies_of(heard([GetAlignment(), GetAlignment()], replies))
    assert (broken and broken.kind, broken.rule if broken else "") == (kind, rule)


def test_an_answer_to_what_must_be_refused_is_seen() -> None:
    data = codec.encode_request(GetAlignment()) + b"\xff"
    _, broken = replies_of(Heard(data, plan_of(data), ANSWER * 2, End.DONE))
    assert broken
    assert (broken.kind, broken.rule) == (Kind.ACCEPTED, "frame.command-known")


def test_a_good_session_that_is_refused_or_left_alone_is_a_find() -> None:
    session = Session("x", steps=[Step(0, GetAlignment())])
    for end, kind in ((End.CLOSED, Kind.REFUSED), (End.SILENT, Kind.HANG), (End.LOST, Kind.HANG)):
        assert [s.kind for s in suspicions(session, [heard([GetAlignment()], b"", end)])] == [kind]


def test_what_the_model_refuses_must_not_be_answered(inside: Inside) -> None:
    steps = [Step(0, GraphRecompute(device=0), mutated=True)]
    session = Session("x", buffers=(Buffer(0, 64),), steps=steps)
    data = codec.encode_request(GraphRecompute(device=0)) + codec.encode_request(sentinel())
    right = inside.have(session)
    accepted = Heard(data, plan_of(data), bytes.fromhex("040000000000000002000000"), End.DONE)
    (found,) = against(session, [accepted], right)
    assert (found.kind, found.rule) == (Kind.ACCEPTED, "graph.recompute-stored")
    assert list(against(session, [Heard(data, plan_of(data), b"", End.CLOSED)], right)) == []


# ------------------------------------------------------------------------------------------------- making finds smaller


def test_a_find_is_made_as_small_as_it_can_be() -> None:
    steps = [Step(0, BufferClear(remote_ptr=handle(0), value=n), mutated=n == 5) for n in range(12)]
    session = Session("x", buffers=(Buffer(0, 64), Buffer(1, 64)), steps=steps)

    def attempt(sessions: object) -> set[tuple[str, ...]]:
        (one,) = sessions  # type: ignore[misc]
        values = [step.message.value for step in one.steps]
        return {("it",)} if {2, 5} <= set(values) else set()

    (left,) = Reproducer(attempt, seconds=10).shrunk(("it",), [session])
    assert [step.message.value for step in left.steps if step.message.value in (2, 5)] == [2, 5]  # type: ignore[union-attr]
    assert len(left.buffers) == 1
    assert all(len(other.steps) <= len(session.steps) for other in smaller(session))


def test_the_session_that_did_it_is_found_among_the_last() -> None:
    sessions = [Session(str(n)) for n in range(8)]
    needed = {"3", "6"}

    def attempt(tried: object) -> set[tuple[str, ...]]:
        return {("it",)} if needed <= {session.seed for session in tried} else set()  # type: ignore[attr-defined]

    found = Reproducer(attempt).culprits(("it",), sessions)
    assert {session.seed for session in found} == needed
    needed = {"7"}
    assert [session.seed for session in Reproducer(attempt).culprits(("it",), sessions)] == ["7"]
    needed = {"none"}
    assert Reproducer(attempt).culprits(("it",), sessions) == []


# ---------------------------------------------------------------------------------------------------------------- finds


def a_find(inside: Inside) -> Find:
    del inside
    steps = [
        Step(0, SetTensor(tensor=RpcTensor(id=1, type=24, buffer=handle(0), ne=(8, 1, 1, 1), nb=(1, 8, 8, 8), data=address(0)),
                          offset=0, data=b"12345678")),
        Step(0, GraphRecompute(device=0), mutated=True),
    ]  # fmt: skip
    return Find(Kind.ACCEPTED, ("accepted", "graph.recompute-stored", "x"), "it says yes", "graph.recompute-stored",
                [Session("7", buffers=(Buffer(0, 4096),), steps=steps)])  # fmt: skip


def test_a_find_is_written_down_as_a_conversation(inside: Inside, tmp_path: Path) -> None:
    content = as_json(a_find(inside))
    acts = [next(act for act in ("send", "receive", "refused", "close") if act in step) for step in content["steps"]]
    assert acts == ["send", "receive"] * 3 + ["send", "send", "send", "refused"]
    assert content["bindings"] == {"buf0.remote_ptr": {"by": "server"}, "buf0.base": {"by": "server"}}
    assert "${buf0.base}" in content["steps"][6]["send"]
    store = Store(tmp_path)
    store.add(a_find(inside))
    assert Store(tmp_path).known == {("accepted", "graph.recompute-stored", "x"): None}
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".py"]


def test_a_find_is_a_vector(inside: Inside, tmp_path: Path) -> None:
    find = a_find(inside)
    find.about += "\x1b[2J"  # a server's last words
    two = [
        Step(0, GetAlignment()),
        Step(0, FreeBuffer(remote_ptr=handle(PER_CONNECTION)), mutated=True),  # which connection 1 has not allocated yet
        Step(0, Packet(b""), mutated=True),
        Step(1, Packet(b"\xff\x00"), mutated=True),
    ]
    other = Find(Kind.HANG, ("hang", "", "x"), "it hangs", "",
                 [Session("8", buffers=(Buffer(0, 64), Buffer(PER_CONNECTION, 64)), steps=two)])  # fmt: skip
    store = Store(tmp_path)
    store.add(find)
    store.add(other)
    assert verify(tmp_path) == []
    assert verify(tmp_path / f"{find.id}.json") == []
    (tmp_path / f"{find.id}.json").write_text("{}\n")
    assert any("schema_version" in fault for fault in verify(tmp_path))
    assert [case.id for case in play.cases(tmp_path / f"{other.id}.json", {})] == [f"sessions/{other.id}"]


def test_the_fields_that_were_changed_are_marked(inside: Inside) -> None:
    session = Generator().session(3, "ADD")
    index = next(index for index, step in enumerate(session.steps) if isinstance(step.message, Graph))
    graph = session.steps[index].message
    assert isinstance(graph, Graph)
    tensors = graph.tensors.copy()
    tensors[1]["ne"][2], tensors[0]["type"] = 77, 39
    put(session, index, Graph(graph.device, graph.nodes, tensors, graph.uid))
    step = session.steps[index]
    # 9 bytes of head, device, nodes, their ids, tensors, and 296 bytes of a tensor with ne 20 bytes after its start (3.6.1)
    first = 9 + 4 + 4 + 8 * len(graph.nodes) + 4
    assert [(m.start, m.stop, m.field) for m in marks(step, DEFAULT)] == [
        (first + 8, first + 12, "tensors[0].type"),
        (first + 296 + 28, first + 296 + 32, "tensors[1].ne[2]"),
    ]
    data = step.packet(DEFAULT).template
    milder = [one.packet(DEFAULT).template for one in restored(step, DEFAULT)]
    assert [sum(a != b for a, b in zip(data, one, strict=True)) for one in milder] == [1, 1]
    find = Find(Kind.CRASH, ("x",), "it dies", "", [session])
    (one, two) = (row for row in as_json(find)["provenance"]["changed"] if "field" in row)
    assert two["what"] == f"tensors[1].ne[2] at byte {first + 296 + 28}: {graph.tensors[1]['ne'][2]} -> 77"
    assert f"# changed: {one['what']}" in script_of(as_json(find))


def test_the_script_of_a_find_plays_it(inside: Inside, tmp_path: Path) -> None:
    script = tmp_path / "find.py"
    script.write_text(script_of(as_json(a_find(inside))))
    # the conversation aside, which begins with STEPS
    before, after = script.read_text().split("STEPS = [\n")
    assert len((before + after.partition("\n]\n")[2]).splitlines()) < 30
    bare = subprocess.run([sys.executable, "-I", str(script)], capture_output=True, text=True, check=False)
    assert (bare.returncode, "HOST PORT" in bare.stderr, "Traceback" in bare.stderr) == (1, True, False)
    target = InProcess(tmp_path / "cache", SABOTAGES["graph.recompute-stored"])
    right = InProcess(tmp_path / "cache2")
    try:
        for server, words in ((target, "NOT refused"), (right, "refused")):
            server.start()
            done = subprocess.run(
                [sys.executable, "-I", str(script), *map(str, server.endpoint)],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            assert done.stdout.startswith(words), done
    finally:
        target.stop()
        right.stop()


# ------------------------------------------------------------------------------------------------------------ campaigns


def finds_on(server: InProcess, **options: object) -> list[Find]:
    chosen = replace(Options(max_time=8.0, always_model=True, shrink=0.0, tries=1), **options)  # type: ignore[arg-type]
    found: list[Find] = []
    for event in Campaign(Watched(lambda: server, spares=0), chosen).run():
        if isinstance(event, Found):
            found.append(event.find)
            break
    return found


SEEN_BY = {
    "graph.node-unique": ("links.nodes",),
    "data.offset-wrap": ("range.wrap",),
    "graph.computes": ("order.repeat",),
    "graph.cost": ("geometry.wide",),
    "frame.size-fixed": ("frame.size",),
    "session.hello-once": ("frame.hello",),
    "session.hello-first": ("frame.headless",),
    "frame.command-known": ("frame.command",),
    "buffer.alloc-fails": ("range.alloc",),
    "frame.complete": ("frame.stop",),
    "session.frees": ("order.stale",),
}
"""Some rules, each with the mutation that shows a server breaking it; `fuzz` itself tries all on all (bench/ has the times)."""


def test_data_that_an_earlier_session_uploaded_are_found_and_that_is_right(tmp_path: Path) -> None:
    """Also where that session was not compared with the model, and where this one's upload has been changed into something else."""
    server = InProcess(tmp_path)
    campaign = Campaign(Watched(lambda: server, spares=0), Options(max_time=60.0))
    events = campaign.run()
    next(events)
    session = campaign.generator.session("x", "hashed")
    large = [step for step in session.steps if isinstance(step.message, SetTensor) and len(step.message.data) > 10 * 2**20]
    asks = [step for step in session.steps if isinstance(step.message, SetTensorHash)]
    assert len(large) == len(asks) == 1
    without = [step for step in session.steps if step not in large]
    after = replace(session, steps=without, notes=[Note("order.leave", "SET_TENSOR", "left out")])
    assert {found.rule for found in campaign._have(after, model=True).suspicions} == set()  # nobody has it yet
    assert {found.rule for found in campaign._have(session).suspicions} == set()
    assert {found.rule for found in campaign._have(after, model=True).suspicions} == set()
    campaign._kept.clear()
    assert {found.rule for found in campaign._have(after, model=True).suspicions} == {"data.hash-miss"}  # as far as it knows
    events.close()


@pytest.mark.parametrize(("version", "flag", "kept"), [("8.0.0", 0, False), ("8.0.0", 1, True), ("6.0.0", 0, True)])
def test_what_a_server_is_told_not_to_keep_is_not_expected_later(version: str, flag: int, kept: bool) -> None:
    upload = SetTensor(tensor=RpcTensor(), offset=0, data=bytes(THRESHOLD + 1), cache_flag=flag)
    steps = [Step(0, upload), Step(0, SetTensorHash(tensor=RpcTensor(), offset=0, hash=7))]
    assert hashes_kept(Session("x", Version.parse(version), steps=steps)) == ({7} if kept else set())


OF = {"graph.computes": "MUL_MAT", "graph.cost": "CONV_2D"}
"""The op that shows it, where that is not ADD."""


@pytest.mark.parametrize("rule", SEEN_BY)
def test_a_server_that_breaks_a_rule_is_found_out(tmp_path: Path, rule: str) -> None:
    ops = (OF.get(rule, "ADD"),)
    (find, *_) = finds_on(InProcess(tmp_path, SABOTAGES[rule]), mutations=SEEN_BY[rule], ops=ops)
    # that it leaves out what costs much is seen by its numbers
    assert find.rule == ("graph.computes" if rule == "graph.cost" else rule)


def sum_session(leaves: bool) -> Session:
    """Return a session in which two servers add [1, 2] and [10, 20]; the one that we play may leave before it has said all."""
    tensor = RpcTensor(id=1, type=0, buffer=handle(0), ne=(2, 1, 1, 1), nb=(4, 8, 8, 8), data=address(0))
    port = free_port()
    steps = [
        Step(0, CommInit(device=0, rank=1, world=2, port=port, host=b"127.0.0.1"), b"\1"),
        Step(0, SetTensor(tensor=tensor, offset=0, data=struct.pack("<2f", 1, 2))),
        Step(0, CommAllreduce(device=0, tensor=tensor)),
        Step(0, GetTensor(tensor=tensor, offset=0, size=8), struct.pack("<2f", 11, 22)),
    ]
    says = bytes(24) + struct.pack("<2f", 10, 20)
    return Session("x", NEWEST, (Buffer(0, 4096),), steps, peers=(Peer(port, 1, says[:28] if leaves else says, leaves),))


@pytest.mark.parametrize("late", [False, True])
def test_a_server_may_have_more_memory_than_the_model(tmp_path: Path, late: bool) -> None:
    """What the model says of a buffer that it could not give is nothing."""
    first, second = Buffer(0, 100 * 2**20), Buffer(1, 100 * 2**20)
    steps = [*[Step(0, second)] * late, Step(0, BufferClear(remote_ptr=handle(1), value=0))]
    session = Session("x", DEFAULT, buffers=(first,) if late else (first, second), steps=steps)
    said = Inside(devices=1).have(session)
    assert [one.violation.rule for one in said if one.violation] == ["buffer.known"]
    server = InProcess(tmp_path)
    server.start()
    heard = Speaker(server.endpoint, 10.0).have(session)
    assert [one.end for one in heard] == [End.DONE]
    assert list(against(session, heard, said)) == []
    server.stop()


@pytest.mark.parametrize("leaves", [False, True])
def test_the_other_server_of_a_sum_is_played(tmp_path: Path, leaves: bool) -> None:
    server = InProcess(tmp_path, Sabotage(version=NEWEST))
    server.start()
    try:
        session = sum_session(leaves)
        heard = Speaker(server.endpoint, 10.0, one_client=False).have(session)
        (right,) = Inside(NEWEST, devices=2).have(session)
        assert (heard[0].end, right.violation and right.violation.rule) == (
            (End.CLOSED, "comm.peer-lost") if leaves else (End.DONE, None)
        )
        assert list(against(session, heard, [right])) == []
        if not leaves:
            assert list(suspicions(session, heard)) == []
    finally:
        server.stop()


def test_a_buffer_is_allocated_on_the_way(tmp_path: Path) -> None:
    read = GetTensor(tensor=RpcTensor(id=1, type=24, buffer=handle(40), ne=(64, 1, 1, 1), nb=(1, 64, 64, 64), data=address(40)),
                     offset=0, size=64)  # fmt: skip
    session = Session("x", steps=[Step(0, GetAlignment()), Step(0, Buffer(40, 64)), Step(0, read, bytes(64))])
    for sabotage, end in ((None, End.DONE), (SABOTAGES["buffer.alloc-size"], End.DONE)):
        server = InProcess(tmp_path, sabotage)
        server.start()
        try:
            (heard,) = Speaker(server.endpoint, 10.0, one_client=False).have(session)
            assert heard.end is end
            assert list(suspicions(session, [heard])) == []
        finally:
            server.stop()
    (said,) = Inside().have(session)
    assert [answer.reply[8:] for answer in said.answers[1:2]] == [bytes(64)]
    acts = [(step.connection, step.act, step.command) for step in steps_of([session])]
    assert acts[4:8] == [(1, "send", "ALLOC_BUFFER"), (1, "receive", "ALLOC_BUFFER"), (1, "send", "BUFFER_GET_BASE"),
                         (1, "receive", "BUFFER_GET_BASE")]  # fmt: skip


def test_a_server_that_waits_for_what_it_must_refuse_is_seen(tmp_path: Path) -> None:
    tensor = RpcTensor(id=1, type=24, buffer=handle(0), ne=(64, 1, 1, 1), nb=(1, 64, 64, 64), data=address(0))
    whole = Packet.of(SetTensor(tensor=tensor, offset=0, data=bytes(64)))
    steps = [Step(0, whole.with_bytes(1, (2**30).to_bytes(8, "little")), mutated=True)]
    session = Session("x", buffers=(Buffer(0, 4096),), steps=steps, notes=[Note("frame.size", "SET_TENSOR", "x")])
    for sabotage, waits in ((None, False), (SABOTAGES["frame.size-bounded"], True)):
        server = InProcess(tmp_path, sabotage)
        server.start()
        try:
            heard = Speaker(server.endpoint, 10.0, one_client=False).have(session, [True])
            found = [(one.kind, one.rule, one.subject) for one in suspicions(session, heard)]
            assert found == ([(Kind.WAITS, "frame.size-bounded", "SET_TENSOR")] if waits else [])
        finally:
            server.stop()


def test_our_own_server_shows_nothing(tmp_path: Path) -> None:
    assert finds_on(InProcess(tmp_path), max_time=2.0) == []


def test_a_server_that_can_not_be_reached_is_one_sentence() -> None:
    from ggml_rpc_ref.conformance.target import Given
    from ggml_rpc_ref.net.stream import Endpoint, free_port

    gone = Watched(lambda: Given(Endpoint("127.0.0.1", free_port())), spares=0)
    with pytest.raises(ConnectionError, match="can't connect"):
        list(Campaign(gone).run())


def test_a_server_of_an_unknown_version_is_one_sentence_with_ours() -> None:
    sentence = r"127\S+ speaks protocol 200\.2\.0, and this program 1\.0\.0, "
    with serving(answers(HELLO_0, says(200, 2, 0))) as (endpoint, _), pytest.raises(ConnectionError, match=sentence):
        introduce(parse_endpoint(endpoint), 5.0)


def test_the_command_says_what_it_found(tmp_path: Path) -> None:
    done = run_command("fuzz", "--max-time", 0.3, "--json", "--finds", tmp_path / "finds")
    assert done.returncode == 0, done
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[0]["event"] == "began"
    assert events[-1]["event"] == "ended"
    assert events[-1]["messages"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["192.0.2.1:5"], "--i-own-this-target permits it"),
        (["--only", "NOPE"], "no op and no mutation is called 'NOPE'"),
        (["--profile", "slow"], "there are quick, ci, night"),
        (["127.0.0.1:1", "--spawn", "x {port}"], "not both"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ggml-rpc-ref", "fuzz", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_speaking_to_a_server_costs_few_round_trips(tmp_path: Path, generator: Generator) -> None:
    server = InProcess(tmp_path)
    server.start()
    try:
        session = generator.session(3)
        (found, *_) = Speaker(server.endpoint, 10.0, one_client=False).have(session)
        assert found.end is End.DONE
        assert list(suspicions(session, [found])) == []
    finally:
        server.stop()


def test_a_violation_is_not_a_defect(inside: Inside) -> None:
    session = Session("x", steps=[Step(0, FreeBuffer(remote_ptr=5))])
    (said,) = inside.have(session)
    assert isinstance(said.violation, Violation)
    assert said.violation.rule == "buffer.known"


def test_a_find_can_be_played_again(inside: Inside, tmp_path: Path) -> None:
    store = Store(tmp_path / "finds")
    store.add(a_find(inside))
    written = load(store.directory / f"{a_find(inside).id}.json")  # type: ignore[operator]
    broken = InProcess(tmp_path / "cache", SABOTAGES["graph.recompute-stored"])
    right = InProcess(tmp_path / "cache2")
    try:
        for server in (broken, right):
            server.start()
        (difference,) = Player(broken.endpoint).play(written.script)
        assert difference.startswith("step 10: it was to be refused, but was answered")
        assert Player(right.endpoint).play(written.script) == []
    finally:
        broken.stop()
        right.stop()


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", '{"provenance": {"kind": "crash"}}', '{"steps": 3, "provenance": {}, "id": "x", "about": "y"}', "[" * 9000],
)
def test_a_file_that_is_no_find_is_damaged(tmp_path: Path, content: str) -> None:
    path = tmp_path / "find.json"
    path.write_text(content)
    with pytest.raises(Damaged, match="find is none that can be played"):
        load(path)


def test_a_wrong_number_is_written_with_the_right_one(inside: Inside) -> None:
    sessions = [Generator().session(seed, "SQR") for seed in range(8)]  # some of them on contiguous F32
    find = Find(Kind.WRONG, ("wrong", "graph.computes", "SQR"), "it is wrong", "graph.computes", sessions)
    pieces = [piece for step in as_json(find)["steps"] for piece in step.get("receive", ()) if isinstance(piece, dict)]
    assert any("values" in piece for piece in pieces)


def test_several_workers_are_one_campaign() -> None:
    merged = Merged(Store(), 2)
    find = Find(Kind.CRASH, ("crash", "SIGSEGV", "f"), "it dies", "", [])
    one, two = Count(seconds=2, messages=10, deaths=1), Count(seconds=3, messages=5)
    events = [
        (0, Began("x", DEFAULT, 1, True)), (1, Began("x", DEFAULT, 1, True)), (0, Found(find)), (1, Found(replace(find, seen=4))),
        (0, Progressed(one, 1)), (1, Progressed(two, 1)), (0, Ended(one)),
    ]  # fmt: skip
    seen = [event for number, event in events for event in merged.take(number, event)]
    assert [type(event) for event in seen] == [Began, Found, Progressed, Progressed]
    assert merged.store.known[find.key] is find
    assert find.seen == 5
    assert (merged.count.messages, merged.count.seconds, merged.count.deaths) == (15, 3, 1)
    merged.gone({1})
    assert not merged.running
    assert merged.why == "worker 1 died"


def test_a_worker_that_was_told_to_end_has_not_died() -> None:
    """It may not have begun yet, and then has nothing to say."""
    merged = Merged(Store(), 2)
    merged.is_interrupted = True
    merged.gone({0, 1})
    assert not merged.running
    assert merged.why == ""


def test_the_page_explains_the_bytes(inside: Inside) -> None:
    find = replace(a_find(inside), seconds=3.5)
    find.sessions[0].notes.append(Note("order.recompute", "GRAPH_RECOMPUTE", "of <device> 0"))
    text = page(Began("a <server>", DEFAULT, 1, True), Count(seconds=7, messages=100), [find])
    assert "a &lt;server&gt;" in text
    assert "of &lt;device&gt; 0" in text
    assert "I8 ne [8, 1, 1, 1] nb [1, 8, 8, 8] at buffer0.base+0 in buffer0.handle+0" in text
    assert "<script" not in text


def test_a_session_without_hello_must_be_refused(inside: Inside) -> None:
    session = Session("x", steps=[Step(0, GetAlignment(), mutated=True)], headless=True)
    (said,) = inside.have(session)
    assert said.violation is not None
    assert said.violation.rule == "session.hello-first"
    _, broken = replies_of(Heard(b"\x01", Plan((), "session.hello-first"), ANSWER, End.DONE))
    assert broken
    assert (broken.kind, broken.rule) == (Kind.ACCEPTED, "session.hello-first")


@pytest.mark.parametrize(
    ("data", "plan"),
    [
        ("", Plan((), "session.hello-first")),
        ("01", Plan((), "session.hello-first")),
        ("0e", Plan((), is_cut=True)),
        ("0e 0100000000000000 00", Plan((), "frame.size-fixed")),
        ("0e 0000000000000000", Plan((Due(0, Hello, 11),))),
        ("0e 0000000000000000 0f 0000000000000000", Plan((Due(0, Hello, 11), Due(9, DeviceCount, 12)))),
        ("0e 0000000000000000 0e", Plan((Due(0, Hello, 11),), "session.hello-once")),
    ],
)
def test_a_session_may_begin_with_a_hello_of_its_own(data: str, plan: Plan) -> None:
    assert plan_from_start(bytes.fromhex(data)) == plan


def test_a_number_of_no_buffer_stays_made_up(inside: Inside) -> None:
    find = replace(a_find(inside), sessions=[Session("7", steps=[Step(0, FreeBuffer(remote_ptr=handle(5)), mutated=True)])])
    content = as_json(find)
    assert content["bindings"] == {}
    assert content["steps"][2]["send"] == ["040800000000000000" + handle(5).to_bytes(8, "little").hex()]


def test_what_a_fresh_buffer_holds_is_its_own_rule() -> None:
    def read(buffer: int) -> GetTensor:
        return GetTensor(tensor=RpcTensor(id=1, buffer=handle(buffer), data=address(buffer)), offset=0, size=4)

    steps = [Step(0, BufferClear(remote_ptr=handle(0), value=0)), Step(0, read(1), bytes(4)), Step(0, read(0), bytes(4))]
    session = Session("x", buffers=(Buffer(0, 64), Buffer(1, 64)), steps=steps)
    data = b"".join(step.packet(DEFAULT).template for step in steps)
    replies = bytes(8) + 2 * (b"\4" + bytes(7) + b"\1\0\0\0")
    found = list(suspicions(session, [Heard(data, plan_of(data), replies, End.DONE)]))
    assert [(one.kind, one.rule) for one in found] == [(Kind.WRONG, "buffer.clean"), (Kind.WRONG, "data.round-trip")]


def test_what_answers_late_after_much_was_sent_does_not_hang(tmp_path: Path) -> None:
    class Slow(handlers.Session):
        def handle(self, message: object) -> object:
            if isinstance(message, BufferClear):
                time.sleep(1.5)
            return super().handle(message)

    def ends(size: int) -> list[End]:
        tensor = RpcTensor(
            id=1, ne=(size, 1, 1, 1), nb=(1, size, size, size), type=BY_NAME["I8"].number, buffer=handle(0), data=address(0)
        )
        said = SetTensor(tensor=tensor, offset=0, data=bytes(size)), BufferClear(remote_ptr=handle(0), value=0)
        steps = [Step(0, message) for message in said]
        return [one.end for one in speaker.have(Session("x", DEFAULT, buffers=(Buffer(0, size),), steps=steps))]

    server = InProcess(tmp_path, Sabotage(session=Slow))
    server.start()
    speaker = Speaker(server.endpoint, timeout=0.5)
    assert (ends(4), ends(3 * 2**20)) == ([End.SILENT], [End.DONE])
    server.stop()


@pytest.mark.parametrize(
    ("share", "takes", "end"), [(1.0, 1.0, End.DONE), (0.0, 1.5, End.SILENT), (10.0, 1.5, End.SILENT)],
    ids=["computes", "stands still", "computes for too long"],
)  # fmt: skip
@pytest.mark.parametrize("is_answered", [True, False], ids=["an answer", "the end"])
def test_a_server_that_is_seen_to_compute_is_waited_for(
    tmp_path: Path, share: float, takes: float, end: End, is_answered: bool
) -> None:
    class Slow(handlers.Session):
        def handle(self, message: object) -> object:
            if isinstance(message, BufferClear | Graph):
                time.sleep(takes)
            return super().handle(message)

    server = InProcess(tmp_path, Sabotage(session=Slow))
    server.start()
    speaker = Speaker(server.endpoint, timeout=0.3, worked=lambda: share * time.monotonic())
    graph = Step(0, Graph(0, np.zeros(0, "<u8"), np.zeros(0, codec.layout(RpcTensor, DEFAULT))))
    steps = [Step(0, BufferClear(remote_ptr=handle(0), value=0))] if is_answered else [graph, graph]
    # what is cut off is never handled: the connection ends once all before it is
    session = Session("x", DEFAULT, buffers=(Buffer(0, 64),), steps=steps, short=0 if is_answered else 1)
    assert [one.end for one in speaker.have(session)] == [end]
    server.stop()


@pytest.mark.parametrize("comes", [False, True])
def test_a_server_that_waits_for_another_one_does_not_hang(tmp_path: Path, comes: bool) -> None:
    """Rank 0 waits for half a minute; a peer that leaves before it has said what it offers is none."""
    port = free_port()
    peers = (Peer(port, 0, bytes(8), leaves=True),) if comes else ()
    steps = [Step(0, CommInit(device=0, rank=0, world=2, port=port, host=b""))]
    server = InProcess(tmp_path, Sabotage(version=NEWEST))
    server.start()
    (heard,) = Speaker(server.endpoint, timeout=0.5).have(Session("x", NEWEST, steps=steps, peers=peers))
    assert heard.end is End.WAITED
    server.wait_until_left()  # it has seen the reset
    server.stop()


@pytest.mark.parametrize(("load", "found"), [(0.0, {Kind.HANG}), (100.0, set())])
def test_on_a_busy_machine_a_slow_server_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: float, found: set[Kind]
) -> None:
    class Slow(handlers.Session):
        def handle(self, message: object) -> object:
            if isinstance(message, BufferClear):
                time.sleep(1.0)
            return super().handle(message)

    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    server = InProcess(tmp_path, Sabotage(session=Slow))
    options = Options(timeout=0.3, max_time=60.0, max_messages=40, plain=True, ops=("ADD",), shrink=0.0, tries=1)
    events = Campaign(Watched(lambda: server, spares=0), options).run()
    assert {event.find.kind for event in events if isinstance(event, Found)} == found


def test_memory_that_stays_taken_is_found(tmp_path: Path) -> None:
    class Leaky(handlers.Session):
        def close(self) -> None:
            """Keep everything."""

    (find,) = finds_on(InProcess(tmp_path, Sabotage(session=Leaky)), plain=True, ops=("ADD",))
    assert (find.kind, find.rule) == (Kind.LEAK, "session.frees")


class Small(InProcess):
    """A server of little memory; each of its connections gives back late what it had, or never."""

    restartable = True
    starts = 0

    def __init__(self, cache: Path, memory: int, seconds: float) -> None:
        class Late(handlers.Session):
            def handle(self, message: object) -> object:
                # so that its memory is not counted by what it says
                return (
                    GetDeviceMemoryReply(free_mem=2**30, total_mem=2**30)
                    if isinstance(message, GetDeviceMemory)
                    else super().handle(message)
                )

            def close(self) -> None:
                if seconds:
                    Timer(seconds, super().close).start()
                else:
                    super().close()

        self._cache, self._late, self._memory = cache, Sabotage(session=Late), memory
        super().__init__(cache, self._late, memory=memory)

    def start(self) -> None:
        """Begin to listen, with all memory free."""
        if self.starts:
            self.stop()
            super().__init__(self._cache, self._late, memory=self._memory)
        self.starts += 1
        super().start()


@pytest.mark.parametrize(
    ("memory", "seconds", "found"),
    [(2**14, 0.0, 0), (2**17, 0.3, 0), (2**17, 3600.0, 1)],
    ids=["less than a session wants", "given back late", "given back never"],
)
def test_what_lacks_memory_is_not_accused_of_it_but_of_keeping_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int, seconds: float, found: int
) -> None:
    monkeypatch.setattr(engine, "SETTLING", 5.0)
    server = Small(tmp_path, memory, seconds)
    options = Options(max_time=30.0, max_messages=600, plain=True, ops=("ADD",), shrink=0.0, tries=1)
    campaign = Campaign(Watched(lambda: server, spares=0), options)
    finds = [event.find for event in campaign.run() if isinstance(event, Found)]
    assert [(find.kind, find.rule) for find in finds] == [(Kind.LEAK, "session.frees")] * found
    # it had been refused memory, or this proves nothing
    assert any("no room" in state for state in campaign.count.states)


@pytest.mark.parametrize(("each", "kind"), [(Usage(seconds=2.0), Kind.SLOW), (Usage(now=2**30, peak=2**30), Kind.MEMORY)], ids=str)
def test_what_costs_too_much_is_found_where_it_took_its_time(tmp_path: Path, each: Usage, kind: Kind) -> None:
    used = Usage(now=1, peak=1)

    class Costly(handlers.Session):
        def handle(self, message: object) -> object:
            nonlocal used
            if isinstance(message, Graph):
                time.sleep(0.1)
                used = Usage(used.now + each.now, used.peak + each.peak, used.seconds + each.seconds)
            return super().handle(message)

    class Looking(Watched):
        def usage(self) -> Usage:
            return used

        def forget_peak(self) -> None:
            """Do nothing: what it uses is made up."""

    server = InProcess(tmp_path, Sabotage(session=Costly))
    options = Options(max_time=8.0, plain=True, ops=("ADD",), shrink=0.0, tries=1)
    found = (event.find for event in Campaign(Looking(lambda: server, spares=0), options).run() if isinstance(event, Found))
    assert next(found).kind is kind


class Restarted(InProcess):
    """A server that answers BUFFER_CLEAR too late, and whose devices have less memory each time that it is started again."""

    restartable = True
    starts = 0

    def __init__(self, cache: Path) -> None:
        class Late(handlers.Session):
            def handle(self, message: object) -> object:
                if isinstance(message, BufferClear):
                    time.sleep(0.4)
                return super().handle(message)

        self._cache, self._late = cache, Sabotage(session=Late)
        super().__init__(cache, self._late)

    def start(self) -> None:
        """Begin to listen, each time on another port."""
        if self.starts:
            self.stop()
            super().__init__(self._cache, self._late, memory=2**30 - self.starts * 2**20)
        self.starts += 1
        super().start()


def test_the_memory_of_a_server_started_again_is_not_missed(tmp_path: Path) -> None:
    server = Restarted(tmp_path)
    options = Options(max_time=20.0, max_messages=100, timeout=0.1, plain=True, ops=("ADD",), shrink=0.0, tries=1)
    events = list(Campaign(Watched(lambda: server, spares=0), options).run())
    assert server.starts > 1
    assert Kind.LEAK not in {event.find.kind for event in events if isinstance(event, Found)}
