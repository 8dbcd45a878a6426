"""Cases are chosen by id, level, tag, command, op, type and version, and explained by any of these names."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from ggml_rpc_ref.conformance import CASES, select, show, tags, topics
from ggml_rpc_ref.errors import Misuse
from tests.support.command import run_command

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("pattern", "there", "not_there"),
    [
        ("level:SHOULD", "data.empty/set-at-end", "data.copy/same-buffer"),
        ("tag:may-crash", "data.copy-fits/into-end", "data.copy/same-buffer"),
        ("tag:slow", "graph.deep/chain-of-300000", "graph.computes/add"),
        ("tag:buffer", "buffer.clear/0", "data.copy/same-buffer"),
        ("command:COPY_TENSOR", "tensor.type-known/copy-tensor-src-255", "data.partial/set-all"),
        ("op:MUL_MAT", "graph.computes/mul-mat-q8-0", "graph.computes/add"),
        ("op:mul_mat", "graph.shape/mul-mat-inner", "graph.index/mul-mat-id-count"),
        ("type:Q4_0", "graph.computes/mul-mat-q4-0", "graph.computes/mul-mat-q8-0"),
        ("type:IQ2_XXS", "data.round-trip/type-iq2-xxs", "data.round-trip/type-iq2-xs"),
        ("version:3.6.1", "graph.recompute/same-data", ""),
    ],
)
def test_a_kind_and_a_word_choose(pattern: str, there: str, not_there: str) -> None:
    chosen = {case.id for case in select([pattern])}
    assert there in chosen
    assert not_there not in chosen


def test_skip_takes_away() -> None:
    kept = select(["graph.computes", "data.copy"], ["tag:data", "op:ADD"])
    assert {case.rule.id for case in kept} == {"graph.computes"}
    assert "graph.computes/add" not in {case.id for case in kept}
    assert len(select(skip=["level:MUST"])) == len(select(["level:SHOULD"]))


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("colour:red", "there is level, tag, version, command, op, type"),
        ("op:NO_SUCH", "no case and no rule matches 'op:NO_SUCH'"),
        ("version:9.9.9", "known are 1.0.0"),
        ("version:nine", "is not a version"),
    ],
)
def test_what_can_not_be_chosen_is_a_sentence(pattern: str, said: str) -> None:
    with pytest.raises(Misuse, match=said):
        select([pattern])


def test_ids_alone_make_no_op_of_a_word() -> None:
    """ "set" is a word of ids of SET_TENSOR and the name of an op."""
    assert topics(CASES["data.partial/set-all"]) == {"command": {"SET_TENSOR"}, "op": frozenset(), "type": frozenset()}
    assert tags(CASES["graph.deep/chain-of-300000"]) == ["graph", "may-crash", "slow"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SET_TENSOR", ["SET_TENSOR (command 6, from 1.0.0 on)", "    offset  u64", "  no reply"]),
        ("rpc_cmd_hello", ["HELLO (command 14", "    no fields: the payload is empty", "    major"]),
        ("BUFFER_CLEAR", ["  reply: empty, a size of 0"]),
        ("MUL_MAT", ["MUL_MAT (op ", "--only op:MUL_MAT`"]),
        ("GGML_TYPE_Q4_K", ["Q4_K (ggml_type 12, from 1.0.0 on)", "  144 bytes for 256 elements, 4.5 bits an element"]),
        ("F32", ["  4 bytes an element"]),
    ],
)
def test_show_explains_commands_ops_and_types(name: str, said: list[str]) -> None:
    lines = list(show(name))
    for part in said:
        assert any(line.startswith(part) or part in line for line in lines), (part, lines)
    assert any(line.startswith("    ") and "/" in line for line in lines)  # some case


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return run_command(*words)


def test_the_command_cases() -> None:
    listed = json.loads(command("cases", "list", "--only", "op:ARGMAX", "--json").stdout)["cases"]
    assert [(row["id"], row["ops"], row["tags"]) for row in listed] == [
        ("graph.op-supported/argmax", ["ARGMAX"], ["graph", "may-crash"]),
        ("graph.shape/of-argmax", ["ARGMAX"], ["graph", "may-crash"]),
    ]
    counted = command("cases", "coverage").stdout.splitlines()
    # one rule binds clients: no case on a server judges it
    assert counted[-1].startswith("MUST ")
    assert "graph.computes (MUST)" in "".join(counted)
    assert command("cases", "show", "Q4_K").stdout.startswith("Q4_K (ggml_type 12")
