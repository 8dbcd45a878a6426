"""The fuzzer's other sides: lies to clients, strategies for Hypothesis, seeds for other fuzzers, and our own readers of files."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from ggml_rpc_ref.commands.readers import READERS, SAMPLES
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.fuzz import ourselves
from ggml_rpc_ref.fuzz import strategies as rpc
from ggml_rpc_ref.fuzz.clients import Behaviour, fuzz_client, write
from ggml_rpc_ref.fuzz.corpus import chosen_by, dictionary
from ggml_rpc_ref.fuzz.corpus import write as write_corpus
from ggml_rpc_ref.fuzz.generate import Generator
from ggml_rpc_ref.fuzz.inside import Inside, Line
from ggml_rpc_ref.fuzz.liar import LIES, Lie, all_lies, answered, parse_lie
from ggml_rpc_ref.fuzz.ourselves import Ourselves, Sums, damaged, defect_of
from ggml_rpc_ref.fuzz.packet import encoded
from ggml_rpc_ref.fuzz.plan import plan_of
from ggml_rpc_ref.fuzz.session import Session
from ggml_rpc_ref.fuzz.variants import LONGEST, variants
from ggml_rpc_ref.fuzz.watch import Watched
from ggml_rpc_ref.models.gguf_file import ModelFile
from ggml_rpc_ref.net.stream import open_stream
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server import handlers, memory
from ggml_rpc_ref.spec.messages import BufferClear, Hello, Message, RpcTensor, SetTensor
from ggml_rpc_ref.spec.versions import DEFAULT, Version
from tests.support.sabotage import InProcess

CLIENT = """
import sys, numpy as np, ggml_rpc_ref
with ggml_rpc_ref.connect(sys.argv[1], timeout=3) as client:
    device = client.devices[0]
    device.memory()
    print(np.asarray(device.tensor(np.ones((2, 4), np.float32)) @ device.tensor(np.ones((3, 4), np.float32)).T))
"""
SCRIPTS = {
    "dies": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "hangs": "import time; time.sleep(60)",
    "raises": "raise KeyError('x')",
    "never talks": "pass",
}


def run(script: str, lies: list[Lie], timeout: float = 20.0) -> list[Behaviour]:
    return list(fuzz_client([sys.executable, "-c", script, "{endpoint}"], 60.0, lies=lies, timeout=timeout))


# -------------------------------------------------------------------------------------------------------------- clients


@pytest.mark.parametrize(
    ("script", "result"), [("dies", "crash"), ("hangs", "untold"), ("raises", "traceback"), ("never talks", "untold")]
)
def test_how_a_client_ends_is_seen(script: str, result: str) -> None:
    (found,) = run(SCRIPTS[script], [Lie("size-huge", "HELLO")], timeout=2.0)
    assert found.result == result
    assert found.is_find is (result in ("crash", "traceback"))
    if script == "dies":
        assert found.how.startswith(signal.SIGSEGV.name)


def test_our_client_bears_lies(capfd: pytest.CaptureFixture[str]) -> None:
    """Some of them, each in a process of its own; `fuzz-client` tells all."""
    told = [Lie("size-huge", "GET_ALIGNMENT"), Lie("all-ones", "ALLOC_BUFFER"), Lie("cut", "GET_TENSOR")]
    guarded = CLIENT.replace("\nwith", "\ntry:\n  with").replace("\n    ", "\n      ") + (
        "\nexcept (ggml_rpc_ref.Violation, ConnectionError, TimeoutError) as error: sys.exit(str(error))\n"
    )
    for found in run(guarded, told, timeout=90.0):
        assert found.result == "ended", found
    capfd.readouterr()


def test_a_lie_is_written_as_it_is_read(tmp_path: Path) -> None:
    lies = all_lies()
    assert [parse_lie(str(lie)) for lie in lies] == lies
    assert len(lies) == len(answered()) * (len(LIES) + 2)
    with pytest.raises(Misuse, match="is not a lie"):
        parse_lie("white@HELLO#1")
    with pytest.raises(Misuse, match="where it is to connect"):
        next(iter(fuzz_client(["true"], 1.0)))
    path = write(tmp_path, Behaviour(lies[0], "crash", "SIGSEGV"), ["client", "{endpoint}"])
    assert json.loads(path.read_text())["lie"] == str(lies[0])


def test_lies_change_what_they_say_they_change() -> None:
    honest = codec.REPLY_HEAD.pack(16) + bytes(range(16))
    told = {name: lie(honest, Random(1)) for name, lie in LIES.items()}
    assert told["size-huge"] == (2**63).to_bytes(8, "little") + honest[8:]
    assert told["all-ones"] == honest[:8] + b"\xff" * 16
    assert told["twice"] == honest * 2
    assert len({*told.values(), honest}) == len(LIES) + 1, "two lies are the same, or one is honest"


# ---------------------------------------------------------------------------------------------------------- strategies

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@QUICK
@given(st.data(), rpc.versions())
def test_messages_of_a_version_are_well_framed(data: st.DataObject, version: Version) -> None:
    message: Message = data.draw(rpc.messages(version))
    sent = codec.encode_request(message, version)
    assert codec.decode(type(message), sent[9:], version) == message


@QUICK
@given(rpc.sessions(devices=2))
def test_sessions_are_well_formed(session: Session) -> None:
    assert all(said.violation is None and said.crash is None for said in Inside(devices=2).have(session))


@QUICK
@given(rpc.mutated_sessions(), rpc.graphs(ops=["ADD", "MUL_MAT"]))
def test_mutated_sessions_are_no_defect_of_ours(session: Session, graph: Graph) -> None:
    assert all(said.crash is None for said in Inside().have(session))
    assert len(graph.nodes) >= 1


class Ours(rpc.ServerMachine):
    """Our own server, in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.session = handlers.Session(Inside().host)
        self.line = Line(self.session, DEFAULT)

    def exchange(self, data: bytes) -> bytes:
        before = len(self.line.said.answers)
        self.line.receive(data)
        assert self.line.said.violation is None
        return b"".join(answer.reply for answer in self.line.said.answers[before:])

    def teardown(self) -> None:
        self.session.close()


class Forgetful(Ours):
    """The same server, but the last byte that is read is wrong."""

    def exchange(self, data: bytes) -> bytes:
        reply = super().exchange(data)
        return reply[:-1] + bytes([reply[-1] ^ 1]) if data[0] == 8 and len(reply) > 8 else reply


def test_the_machine_holds_a_server_to_its_bytes() -> None:
    quick = settings(max_examples=8, stateful_step_count=12, deadline=None, database=None)
    run_state_machine_as_test(Ours, settings=quick)  # type: ignore[no-untyped-call]
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Forgetful, settings=quick)  # type: ignore[no-untyped-call]


# -------------------------------------------------------------------------------------------------------------- corpora


def test_seeds_for_other_fuzzers_are_conversations(tmp_path: Path) -> None:
    assert write_corpus(tmp_path, 4) == 5
    for path in tmp_path.glob("*.raw"):
        data = path.read_bytes()
        hello = codec.encode_request(Hello())
        assert data.startswith(hello)
        plan = plan_of(data[len(hello) :])
        assert plan.dues
        assert (plan.rule, plan.is_cut) == ("", False)
    lines = list(dictionary())
    assert 'set_tensor="\\x06\\x30\\x01\\x00\\x00\\x00\\x00\\x00\\x00"' in lines  # 296 + 8 bytes
    assert 'type_f16="\\x01\\x00\\x00\\x00"' in lines


class Counting:
    """In place of `secrets`: a server that gives every connection the same handles and addresses."""

    count = 0

    def randbits(self, bits: int) -> int:
        self.count = 0 if bits == 44 else self.count + 1  # 44: the addresses of a new connection
        return self.count


def test_a_corpus_made_with_a_server_is_answered_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "secrets", Counting())
    server = InProcess(tmp_path / "cache")
    server.start()
    try:
        write_corpus(tmp_path / "made up", 2)
        write_corpus(tmp_path / "chosen", 6, chosen=chosen_by(Watched(lambda: server, spares=0), DEFAULT))
        for path in sorted(tmp_path.glob("*/*.raw")):
            data = path.read_bytes()
            with open_stream(*server.endpoint) as stream:
                stream.send(data)
                stream.finish_sending()
                answered = len(stream.wait_closed(10.0).leftover)
            # HELLO's reply has 11 bytes; a corpus without a server ends at the first handle
            whole = 11 + plan_of(data[9:]).size
            assert answered == whole if path.parent.name == "chosen" else 11 < answered < whole, path
    finally:
        server.stop()


# ------------------------------------------------------------------------------------------------------------ ourselves


def test_our_own_code_bears_damaged_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ourselves, "FILES", 0.8)
    own = Ourselves(seed="files")
    assert [str(defect) for defect in own.run(1.5)] == []
    assert own.sums.files > 0


def test_a_gguf_is_among_the_files_that_are_damaged(tmp_path: Path) -> None:
    suffix, content = SAMPLES["GGUF"]
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    READERS["run"](path)
    file = ModelFile(path)
    assert (file.architecture, list(file.weights), file.vocabulary is None) == ("gemma3", ["norm.weight", "out.weight"], False)
    # what fuzzing found: these were looked up without a question
    for missing in (b"tokenizer.ggml.scores", b"tokenizer.ggml.bos_token_id"):
        path.write_bytes(content.replace(missing, missing[:-1] + b"X"))
        with pytest.raises(Misuse, match="can't be read as a GGUF"):
            ModelFile(path)


def test_variants_change_numbers_of_messages_in_place() -> None:
    session = Generator().session("variants", "ADD")
    numbers = {buffer.number: (0x1000, 0x10000) for buffer in session.buffers}
    messages = [step.packet(session.version).rendered(numbers) for step in session.steps]
    heads = {(data[0], len(data)) for data in messages}
    messages.append(bytes.fromhex("06 8813000000000000") + bytes(5000))
    graph = next(data for data in messages if data[0] == 10)
    made = list(variants(Random(1), messages, session.version, 24_000))
    assert len(made) == 24_000
    assert {(data[0], len(data)) for data in made} == heads | {(6, LONGEST), (10, len(graph))}
    # of a graph: its counts, ids, and every number of its tensors, but nothing of the names between them
    changed = {at for data in made if data[0] == 10 for at, (old, new) in enumerate(zip(graph, data, strict=True)) if old != new}
    first = 9 + 4 + 4 + 8 + 4  # head, device, one node
    names = {first + 296 * tensor + at for tensor in range((len(graph) - first) // 296) for at in range(228, 296)}
    assert not changed & names
    assert {1, 9, 13, 17, 25, first, first + 227, first + 296} <= changed
    sizes = sum(data[1:9] != old for data in made if (old := (len(data) - 9).to_bytes(8, "little")))
    assert 1000 < sizes < 2500  # one in sixteen


def test_a_defect_that_a_variant_shows_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Ourselves(seed="1", readers={}, variants=200)
    own.chooser.names = []  # none of the sessions themselves has it
    clear = handlers.Session.handlers[BufferClear]

    def careless(session: handlers.Session, request: BufferClear) -> object:
        if request.remote_ptr == 0:
            raise IndexError("no such buffer")
        return clear(session, request)

    monkeypatch.setitem(handlers.Session.handlers, BufferClear, careless)
    found = next(own.run(60.0))
    assert found.key[0] == "IndexError"
    assert found.what.startswith("050900000000000000" + "00" * 8)
    assert 0 < own.sums.variants < own.sums.messages


def test_a_defect_of_ours_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> object:
        raise IndexError("a defect")

    monkeypatch.setattr(handlers.Session, "region", broken)
    defect = next(Ourselves(seed="1").run(3.0))
    assert defect.key[0] == "IndexError"


def test_memory_that_is_not_given_back_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers.Session, "close", lambda self: None)
    defect = next(Ourselves(seed="1").run(3.0))
    assert defect.key == ("not given back",)


def test_damage_is_small_and_sums_add_up(tmp_path: Path) -> None:
    data = bytes(200)
    assert len({damaged(Random(n), data) for n in range(40)}) > 30
    for _ in range(2):
        Sums(seconds=1.5, sessions=2, messages=30).add_to(tmp_path / "sums.json")
    assert json.loads((tmp_path / "sums.json").read_text())["messages"] == 60
    with pytest.raises(TypeError) as raised:
        codec.decode(Hello, 3)  # type: ignore[arg-type]
    assert defect_of(raised.value, "").key[1].startswith("codec.py:")


@QUICK
@given(st.data(), rpc.versions())
def test_messages_are_written_as_the_codec_writes_them(data: st.DataObject, version: Version) -> None:
    message: Message = data.draw(rpc.messages(version))
    assert encoded(message, version) == codec.encode(message, version)


def test_a_value_that_does_not_fit_is_a_misuse() -> None:
    with pytest.raises(Misuse, match="type = "):
        encoded(SetTensor(tensor=RpcTensor(type=2**32), offset=0))
    assert encoded(SetTensor(tensor=RpcTensor(ne=(1,), name=b"x" * 64), offset=3)) == codec.encode(
        SetTensor(tensor=RpcTensor(ne=(1,), name=b"x" * 64), offset=3)
    )
