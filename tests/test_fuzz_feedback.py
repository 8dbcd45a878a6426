"""What the fuzzer begins with and learns from: conversations that exist already, edges of a server's code, sanitizers' reports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ggml_rpc_ref import upstream
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.fuzz import Campaign, Generator, Options, preload
from ggml_rpc_ref.fuzz.choose import Chooser
from ggml_rpc_ref.fuzz.corpus import write as write_corpus
from ggml_rpc_ref.fuzz.edges import BITS, VARIABLE, Edges
from ggml_rpc_ref.fuzz.finds import Find, as_json, text_of
from ggml_rpc_ref.fuzz.inside import Inside
from ggml_rpc_ref.fuzz.judge import Kind
from ggml_rpc_ref.fuzz.seeds import sessions_of
from ggml_rpc_ref.fuzz.session import Buffer, Session
from ggml_rpc_ref.fuzz.watch import Watched
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.spec.messages import AllocBuffer
from ggml_rpc_ref.spec.versions import DEFAULT, V8_0_0
from ggml_rpc_ref.upstream import instruments
from tests.support.requirements import compiler
from tests.support.sabotage import InProcess

VECTORS = Path(__file__).parents[1] / "vectors"
SESSIONS = VECTORS / "upstream-3.6.1-llama-cpp-python-0.3.20" / "sessions"


def bytes_of(session: Session) -> bytes:
    """What is said beside allocations, which a seed has at its beginning."""
    return b"".join(step.packet(DEFAULT).template for step in session.steps if not isinstance(step.message, Buffer))


# ---------------------------------------------------------------------------------------------------------------- seeds


@pytest.mark.parametrize("name", ["buffers", "mul-mat-q4-k", "recompute", "views", "indices"])
def test_what_the_genuine_client_said_can_be_said_to_ours(name: str) -> None:
    """Recorded on the genuine server, whose handles and addresses ours does not know."""
    recorded, written = (sessions_of([SESSIONS / f"{name}.{form}"], DEFAULT) for form in ("recording", "json"))
    assert list(map(bytes_of, recorded)) == list(map(bytes_of, written)) != []
    inside = Inside()
    graphs = 0
    for session in recorded:
        assert not any(isinstance(step.message, AllocBuffer) and step.message.size < 2**24 for step in session.steps)
        for said in inside.have(session):
            assert said.violation is None, (session.seed, said.violation)
            assert len(said.answers) == len(session.steps) + 1
            graphs += sum(isinstance(answer.request, Graph) for answer in said.answers)
    assert graphs or name == "buffers"


def test_finds_and_corpora_are_seeds(tmp_path: Path) -> None:
    session = Generator().session(7, "MUL_MAT")
    find = tmp_path / "find.json"
    find.write_text(text_of(as_json(Find(Kind.CRASH, ("x",), "it dies", "", [session]))))
    (again,) = sessions_of([find], DEFAULT)
    assert [buffer.size for buffer in again.buffers] == [buffer.size for buffer in session.all_buffers]
    assert bytes_of(again).startswith(bytes_of(session))  # then a find has the sentinel
    write_corpus(tmp_path / "corpus", 3)
    made = Generator(clients=1)
    for number in range(3):
        parts = sessions_of([tmp_path / "corpus" / f"{number:05}.raw"], DEFAULT)
        session = made.session(f"0/{number}", made.names[number] if number % 2 else "")
        assert b"".join(map(bytes_of, parts)).startswith(bytes_of(session))
        assert parts[0].buffers == session.all_buffers


def test_malformed_vectors_are_seeds() -> None:
    found = sessions_of([VECTORS / "handmade" / "malformed"], DEFAULT)
    assert len(found) > 100
    assert any(step.mutated for session in found for step in session.steps)


def test_what_is_no_seed_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="there is no such file"):
        sessions_of([tmp_path / "none"], DEFAULT)
    (tmp_path / "x.json").write_text("[" * 9000)
    (tmp_path / "y.json").write_text('{"protocol": "3.6.1", "id": 3, "about": 4, "steps": [{"connection": 1, "send": ["zz"]}]}')
    (tmp_path / "z.raw").write_bytes(b"\x0e" + b"\xff" * 200)
    with pytest.raises(Misuse, match=r"no conversation of protocol 3\.6\.1"):
        sessions_of([tmp_path], DEFAULT)
    with pytest.raises(Misuse, match=r"no conversation of protocol 8\.0\.0"):
        sessions_of([SESSIONS / "views.json"], V8_0_0)


def test_a_campaign_begins_with_its_seeds(tmp_path: Path) -> None:
    path = str(SESSIONS / "mul-mat-f32.recording")
    wanted = {session.seed for session in sessions_of([Path(path)], DEFAULT)}
    campaign = Campaign(Watched(lambda: InProcess(tmp_path), spares=0), Options(max_time=20, max_messages=5, seeds=(path,)))
    list(campaign.run())
    assert campaign.count.sessions
    assert {session.seed for session in campaign._recent} <= wanted


# ---------------------------------------------------------------------------------------------------------------- edges

BRANCHES = "int f(int n) { int s = 0; for (int i = 0; i < n; i++) s += i % 3 ? i : -i; return n > 100 ? s : -s; }"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small library with what `upstream install --coverage` links into each of its own."""
    root = tmp_path_factory.mktemp("coverage")
    compiler("cc")
    (root / "f.c").write_text(BRANCHES)
    for command in (
        instruments.compile_command(root),
        ["cc", "-O0", "-fPIC", "-shared", "-fsanitize-coverage=trace-pc", "f.c", instruments.OBJECT, "-o", "libf.so"],
    ):
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
    return root / "libf.so"


def run_branches(library: Path, n: int, edges: Edges | None) -> None:
    program = f"import ctypes; ctypes.CDLL({str(library)!r}).f({n})"
    environ = os.environ | ({VARIABLE: str(edges.path)} if edges else {})
    subprocess.run([sys.executable, "-c", program], env=environ, timeout=60, check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="coverage.c is for Linux")
def test_edges_are_counted_across_processes(library: Path, tmp_path: Path) -> None:
    assert f"#define EDGE_BITS {BITS} " in instruments.SOURCE.read_text()
    run_branches(library, 3, None)  # nobody asks
    edges, other = Edges(tmp_path / "edges"), Edges(tmp_path / "other")
    assert (edges.count, edges.taken) == (0, 0)
    run_branches(library, 0, edges)
    none = edges.count
    assert none > 0
    run_branches(library, 2, edges)
    some = edges.count
    assert some > none  # the loop's
    run_branches(library, 2, edges)
    assert edges.count == some  # where a library lies in memory makes no difference
    run_branches(library, 200, edges)
    assert edges.count > some
    run_branches(library, 200, other)
    assert other.taken | edges.taken == edges.taken
    assert edges.taken.bit_count() == edges.count


@pytest.mark.skipif(sys.platform != "linux", reason="coverage.c is for Linux")
def test_a_library_with_much_thread_local_storage_can_be_loaded(library: Path, tmp_path: Path) -> None:
    """As libggml-cpu has it where it is built for AMX: a table of 64 KiB."""
    (tmp_path / "g.c").write_text("__thread char table[67000]; int g(int n) { return table[n] = 7; }")
    line = ["cc", "-fPIC", "-shared", "-fsanitize-coverage=trace-pc", "g.c", library.parent / instruments.OBJECT, "-o", "libg.so"]
    subprocess.run(line, cwd=tmp_path, timeout=60, check=True)
    program = [sys.executable, "-c", f"import ctypes; print(ctypes.CDLL({str(tmp_path / 'libg.so')!r}).g(3))"]
    given = {"PATH": "/usr/bin:/bin", instruments.TUNABLES: "glibc.malloc.check=0"}
    bare = subprocess.run(program, env=given, capture_output=True, text=True, timeout=60, check=False)
    assert "static TLS" in bare.stderr
    where = instruments.environment(upstream.Instrument.COVERAGE, tmp_path, given)
    assert subprocess.run(program, env=where, capture_output=True, text=True, timeout=60, check=True).stdout == "7\n"


def test_what_takes_new_edges_is_changed_further(tmp_path: Path) -> None:
    class Stub(Edges):
        """Edges of a server whose code has one for each op that it was asked for."""

        @property
        def count(self) -> int:
            return len(campaign.count.ops)

        @property
        def taken(self) -> int:
            return 2 ** len(campaign.count.ops) - 1

    kept = []
    for feedback in (True, False):
        options = Options(max_time=30, max_messages=150, ops=("ADD", "MUL"), mutations=("range.field",), feedback=feedback)
        watched = Watched(lambda: InProcess(tmp_path), spares=0, edges=Stub(tmp_path / "edges"))
        campaign = Campaign(watched, options)
        list(campaign.run())
        kept.append(len(campaign.chooser.corpus))
        assert campaign.count.edges.bit_count() == len(campaign.count.ops) > 0
    assert kept[0] > kept[1] == 0


# ----------------------------------------------------------------------------------------------------------- sanitizers

OVERFLOW = """
==71==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x502000000014 at pc 0x7f1 bp 0x7ff sp 0x7ff
READ of size 4 at 0x502000000014 thread T0
    #0 0x7f0 in __interceptor_memcpy ../../../../src/libsanitizer/sanitizer_common/sanitizer_common_interceptors.inc:827
    #1 0x7f1 in ggml_compute_forward_get_rows_f32 /x/ggml/src/ggml-cpu/ops.cpp:4612
    #2 0x7f2 in (anonymous namespace)::serve(int, char const*) /x/ggml/src/ggml-rpc/ggml-rpc.cpp:1200
    #3 0x7f3  (/lib/x86_64-linux-gnu/libffi.so.8+0x6e2d)
    #4 0x7f4 in _PyEval_EvalFrameDefault (/usr/local/bin/python3.11+0x1c3a)

0x502000000014 is located 0 bytes to the right of 4-byte region
allocated by thread T0 here:
    #0 0x7f9 in malloc ../../../../src/libsanitizer/asan/asan_malloc_linux.cpp:69
    #1 0x7fa in somebody_else /x/y.c:3
"""


@pytest.mark.parametrize(
    ("output", "place", "frames"),
    [
        (
            OVERFLOW,
            "heap-buffer-overflow in ggml_compute_forward_get_rows_f32",
            ("ggml_compute_forward_get_rows_f32", "(anonymous namespace)::serve(int, char const*)"),
        ),
        (
            "/x/ggml.c:12: GGML_ASSERT(a) failed\n" + OVERFLOW.replace("heap-buffer-overflow on", "ABRT on unknown"),
            "ggml.c:12",
            ("ggml_compute_forward_get_rows_f32", "(anonymous namespace)::serve(int, char const*)"),
        ),
        (
            "/x/ops.cpp:55:7: runtime error: shift exponent -3 is negative\n"
            "    #0 0x1 in f /x/ops.cpp:55\n    #1 0x2 in main /x/m.c:1\n",
            "ops.cpp:55: shift exponent # is negative",
            ("f", "main"),
        ),
        ("GGML_ASSERT\nggml-rpc-ref frame libggml.so+0x10 ggml_nbytes\n", "ggml_nbytes", ("ggml_nbytes",)),
    ],
    ids=["overflow", "assertion", "undefined", "none"],
)
def test_a_report_says_where(output: str, place: str, frames: tuple[str, ...]) -> None:
    assert preload.place(output) == place
    assert preload.frames(output) == frames


def test_last_words_are_the_reports_first() -> None:
    assert preload.last_words(OVERFLOW) == "ERROR: AddressSanitizer: heap-buffer-overflow"
    report = OVERFLOW.replace("heap-buffer-overflow on", "ABRT on unknown")
    said = f"/x/ggml.c:12: GGML_ASSERT(a) failed\nAddressSanitizer:DEADLYSIGNAL\n=====\n{report}"
    assert preload.last_words(said) == "ggml.c:12: GGML_ASSERT(a) failed"


def test_more_of_what_led_to_something_new() -> None:
    generator, begun = Generator(ops=["ADD"]), {True: 0, False: 0}
    for better in (True, False):
        chooser = Chooser(generator, "0")
        chooser.keep(generator.session(1, "ADD"))
        for _ in range(150):
            again = chooser.next().seed == "1"
            begun[better] += again
            chooser.had(is_new=again is better)
    assert begun[True] > 2 * begun[False] > 0
