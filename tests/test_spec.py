"""The tables of `spec` against what the genuine 3.6.1 library says of itself (vectors/upstream-3.6.1-*/enums.json), and against
counts and insertion points transcribed from ggml.h for the other versions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ggml_rpc_ref.spec.dtypes import BY_NUMBER, DEAD_NUMBERS, DTYPES, TYPE_COUNT_3_6_1
from ggml_rpc_ref.spec.opcodes import CUSTOM_OPS, GLU_OPS, OP_TABLES, UNARY_OPS, VIEW_OPS
from ggml_rpc_ref.spec.rules import RULES
from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES, Version, accepts

FILE = Path(__file__).parents[1] / "vectors" / "upstream-3.6.1-llama-cpp-python-0.3.20" / "enums.json"
GENUINE: dict[str, Any] = json.loads(FILE.read_text())


# ------------------------------------------------------------------------------------------------------------------- ops


def test_op_numbers_are_the_genuine_ones() -> None:
    assert list(OP_TABLES["3.6.1"]) == GENUINE["ops"]
    assert len(GENUINE["ops"]) == 96


def test_sub_op_numbers_are_the_genuine_ones() -> None:
    assert list(UNARY_OPS) == GENUINE["unary_ops"]
    assert list(GLU_OPS) == GENUINE["glu_ops"]
    assert (len(UNARY_OPS), len(GLU_OPS)) == (22, 6)


@pytest.mark.parametrize(
    ("table", "count", "landmarks"),
    [
        ("1.0.0", 82, {"ADD1": 3, "MUL_MAT": 27, "ROPE": 45, "UNARY": 74, "OPT_STEP_ADAMW": 81}),
        ("3.0.0", 90, {"ADD_ID": 3, "SET_ROWS": 41, "IM2COL_3D": 53, "CONV_2D": 54, "CONV_3D": 55, "ROLL": 64, "OPT_STEP_SGD": 88,
                       "GLU": 89}),
        ("3.5.0", 95, {"CUMSUM": 16, "TOP_K": 69, "TRI": 71, "FILL": 72, "SOLVE_TRI": 84, "GLU": 94}),
        ("3.6.1", 96, {"GATED_DELTA_NET": 85, "UNARY": 86, "GLU": 95, "CONV_2D": 55}),
        ("4.0.1", 97, {"COL2IM_1D": 55, "CONV_2D": 56, "UNARY": 87, "GLU": 96}),
        ("4.0.2", 98, {"GATED_DELTA_NET": 86, "LIGHTNING_INDEXER": 87, "UNARY": 88, "GLU": 97}),
        ("4.0.3", 101, {"DSV4_HC_COMB": 88, "DSV4_HC_PRE": 89, "DSV4_HC_POST": 90, "UNARY": 91, "GLU": 100}),
    ],
)  # fmt: skip
def test_op_tables_of_the_versions(table: str, count: int, landmarks: dict[str, int]) -> None:
    ops = OP_TABLES[table]
    assert len(ops) == len(set(ops)) == count
    assert {name: ops.index(name) for name in landmarks} == landmarks


@pytest.mark.parametrize(
    ("older", "newer", "inserted"),
    [
        ("1.0.0", "3.0.0", {"ADD_ID", "SET_ROWS", "IM2COL_3D", "CONV_2D", "CONV_3D", "ROLL", "OPT_STEP_SGD", "GLU"}),
        ("3.0.0", "3.5.0", {"CUMSUM", "TOP_K", "TRI", "FILL", "SOLVE_TRI"}),
        ("3.5.0", "3.6.1", {"GATED_DELTA_NET"}),
        ("3.6.1", "4.0.1", {"COL2IM_1D"}),
        ("4.0.1", "4.0.2", {"LIGHTNING_INDEXER"}),
        ("4.0.2", "4.0.3", {"DSV4_HC_COMB", "DSV4_HC_PRE", "DSV4_HC_POST"}),
    ],
)
def test_ops_were_only_ever_inserted(older: str, newer: str, inserted: set[str]) -> None:
    assert [op for op in OP_TABLES[newer] if op not in inserted] == list(OP_TABLES[older])
    assert set(OP_TABLES[newer]) - set(OP_TABLES[older]) == inserted


def test_named_groups_of_ops_are_ops() -> None:
    assert set(OP_TABLES["3.6.1"]) >= CUSTOM_OPS | VIEW_OPS


# ----------------------------------------------------------------------------------------------------------------- types


@pytest.mark.parametrize("row", GENUINE["types"], ids=lambda row: f"{row['number']}-{row['name'].split(' ')[0]}")
def test_types_are_the_genuine_ones(row: dict[str, Any]) -> None:
    if row["block"] == 0:
        assert row["number"] in DEAD_NUMBERS
        assert row["number"] not in BY_NUMBER
        return
    dtype = BY_NUMBER[row["number"]]
    assert dtype.name.upper() == row["name"].upper()
    assert (dtype.block, dtype.size, dtype.is_quantised) == (row["block"], row["size"], row["quantised"])


def test_how_many_types_there_are() -> None:
    assert [row["number"] for row in GENUINE["types"]] == list(range(TYPE_COUNT_3_6_1))
    assert len(DTYPES) == len(BY_NUMBER) == 35
    assert len(DEAD_NUMBERS) == 8
    assert sorted({*BY_NUMBER, *DEAD_NUMBERS}) == list(range(43))


@pytest.mark.parametrize("version", PROFILES, ids=str)
def test_types_of_a_version_are_below_its_count(version: Version) -> None:
    known = {dtype.number for dtype in DTYPES if Version.parse(dtype.since) <= version}
    assert max(known) < PROFILES[version].type_count


# -------------------------------------------------------------------------------------------------------------- versions


def test_versions_are_in_order_and_name_op_tables() -> None:
    assert list(PROFILES) == sorted(PROFILES)
    assert [profile.date for profile in PROFILES.values()] == sorted(profile.date for profile in PROFILES.values())
    assert len(PROFILES) == 15
    assert {profile.ops for profile in PROFILES.values()} - {""} == set(OP_TABLES)
    assert [version for version, profile in PROFILES.items() if profile.proven] == [DEFAULT]
    assert str(DEFAULT) == "3.6.1"


@pytest.mark.parametrize(
    ("server", "accepted"),
    [("3.6.1", True), ("3.6.0", True), ("3.6.255", True), ("3.5.0", True), ("3.0.9", True), ("3.7.0", False), ("2.6.1", False),
     ("4.0.0", False), ("0.0.0", False), ("255.255.255", False)],
)  # fmt: skip
def test_which_servers_a_3_6_1_client_accepts(server: str, accepted: bool) -> None:
    assert accepts(DEFAULT, Version.parse(server)) is accepted


@pytest.mark.parametrize("text", ["", "3", "3.6", "3.6.1.0", "3.6.256", "-3.6.1", "3.6.x", " 3.6.1", "3..1", "٣.6.1", "3.6.1\n"])
def test_texts_that_are_no_version(text: str) -> None:
    with pytest.raises(ValueError, match="is not a version"):
        Version.parse(text)


# ----------------------------------------------------------------------------------------------------------------- rules


def test_rules_are_complete_sentences_with_permanent_ids() -> None:
    for key, rule in RULES.items():
        section, _, words = key.partition(".")
        assert section in ("frame", "session", "device", "buffer", "tensor", "data", "graph"), key
        assert words.replace("-", "").isalnum(), key
        assert key == rule.id
        assert rule.level in ("MUST", "SHOULD", "MAY")
        assert rule.sentence.endswith("."), key
        assert rule.outcome, key
        assert rule.observed, key
