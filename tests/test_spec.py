"""The tables of `spec` against what the genuine 3.6.1 library says of itself (vectors/upstream-3.6.1-*/enums.json), and against
counts and insertion points transcribed from ggml.h for the other versions.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ggml_rpc_ref.spec import observed as package
from ggml_rpc_ref.spec.dtypes import BY_NUMBER, DEAD_NUMBERS, DTYPES, type_count, types
from ggml_rpc_ref.spec.observed import observed
from ggml_rpc_ref.spec.opcodes import CUSTOM_OPS, GGML_OP, KINDS, OPS_DRIFTED, VIEW_OPS, kinds, op_table
from ggml_rpc_ref.spec.packages import FORKS
from ggml_rpc_ref.spec.rules import RULES
from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES, Version, accepts, present

FILE = Path(__file__).parents[1] / "vectors" / "upstream-3.6.1-llama-cpp-python-0.3.20" / "enums.json"
GENUINE: dict[str, Any] = json.loads(FILE.read_text())
WITNESSES = [
    path
    for path in sorted(FILE.parents[1].glob("upstream-*/enums.json"))
    # test_witness.py looks at forks, whose tables are not upstream's
    if Version.parse(path.parent.name.split("-")[1]) in PROFILES
]


# ------------------------------------------------------------------------------------------------------------------- ops


@pytest.mark.parametrize("path", WITNESSES, ids=lambda path: path.parent.name)
def test_numbers_are_those_of_each_genuine_build(path: Path) -> None:
    genuine = json.loads(path.read_text())
    version = Version.parse(genuine["protocol"])
    assert list(op_table(version)) == genuine["ops"]
    assert list(kinds("UNARY", version)) == genuine["unary_ops"]
    assert list(kinds("GLU", version)) == genuine["glu_ops"]
    assert type_count(version) == len(genuine["types"])


def test_how_many_ops_and_kinds_3_6_1_has() -> None:
    assert (len(GENUINE["ops"]), len(GENUINE["unary_ops"]), len(GENUINE["glu_ops"])) == (96, 22, 6)


KINDS_OF_1_0_0 = ["ABS", "SGN", "NEG", "STEP", "TANH", "ELU", "RELU", "SIGMOID", "GELU", "GELU_QUICK", "SILU", "HARDSWISH",
                  "HARDSIGMOID", "EXP"]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "unary", "glu"),
    [
        ("1.0.0", KINDS_OF_1_0_0, []),
        ("3.0.0", [*KINDS_OF_1_0_0, "GELU_ERF", "XIELU"],
         ["REGLU", "GEGLU", "SWIGLU", "SWIGLU_OAI", "GEGLU_ERF", "GEGLU_QUICK"]),
        ("3.5.0", GENUINE["unary_ops"], GENUINE["glu_ops"]),
        ("5.1.0", GENUINE["unary_ops"], GENUINE["glu_ops"]),
        ("6.0.0", GENUINE["unary_ops"], [*GENUINE["glu_ops"], "SWIGLU_CLAMP"]),
        ("7.0.0", GENUINE["unary_ops"], [*GENUINE["glu_ops"], "SWIGLU_CLAMP"]),
    ],
)  # fmt: skip
def test_kinds_of_unary_and_glu_by_version(version: str, unary: list[str], glu: list[str]) -> None:
    assert list(kinds("UNARY", Version.parse(version))) == unary
    assert list(kinds("GLU", Version.parse(version))) == glu
    assert kinds("ADD", Version.parse(version)) == ()


@pytest.mark.parametrize(
    ("version", "count", "landmarks"),
    [
        ("1.0.0", 82, {"ADD1": 3, "MUL_MAT": 27, "ROPE": 45, "UNARY": 74, "OPT_STEP_ADAMW": 81}),
        ("3.0.0", 90, {"ADD_ID": 3, "SET_ROWS": 41, "IM2COL_3D": 53, "CONV_2D": 54, "CONV_3D": 55, "ROLL": 64, "OPT_STEP_SGD": 88,
                       "GLU": 89}),
        ("3.5.0", 95, {"CUMSUM": 16, "TOP_K": 69, "TRI": 71, "FILL": 72, "SOLVE_TRI": 84, "GLU": 94}),
        ("3.6.0", 95, {"CUMSUM": 16, "UNARY": 85, "GLU": 94}),
        ("3.6.1", 96, {"GATED_DELTA_NET": 85, "UNARY": 86, "GLU": 95, "CONV_2D": 55}),
        ("4.0.0", 96, {"GATED_DELTA_NET": 85, "UNARY": 86, "GLU": 95, "CONV_2D": 55}),
        ("4.0.1", 97, {"COL2IM_1D": 55, "CONV_2D": 56, "UNARY": 87, "GLU": 96}),
        ("4.0.2", 98, {"GATED_DELTA_NET": 86, "LIGHTNING_INDEXER": 87, "UNARY": 88, "GLU": 97}),
        ("4.0.3", 101, {"DSV4_HC_COMB": 88, "DSV4_HC_PRE": 89, "DSV4_HC_POST": 90, "UNARY": 91, "GLU": 100}),
        ("8.0.0", 101, {"DSV4_HC_COMB": 88, "DSV4_HC_PRE": 89, "DSV4_HC_POST": 90, "UNARY": 91, "GLU": 100}),
    ],
)  # fmt: skip
def test_op_tables_of_the_versions(version: str, count: int, landmarks: dict[str, int]) -> None:
    ops = op_table(Version.parse(version))
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
    before, after = op_table(Version.parse(older)), op_table(Version.parse(newer))
    assert [op for op in after if op not in inserted] == list(before)
    assert set(after) - set(before) == inserted


def test_named_groups_of_ops_are_ops() -> None:
    assert set(op_table()) >= CUSTOM_OPS | VIEW_OPS | set(KINDS)


def test_versions_whose_builds_number_ops_differently() -> None:
    """A name that is new in a version came while the one before was current; from 3.6.1 on a new name makes a new version."""
    names = {version: {row.name for row in GGML_OP if row.since == version} for version in PROFILES}
    assert list(OPS_DRIFTED) == [Version(2, 0, 0), Version(3, 0, 0), Version(3, 6, 0)]
    for version, newer in zip(OPS_DRIFTED, [Version(3, 0, 0), Version(3, 5, 0), Version(3, 6, 1)], strict=True):
        assert {word for word in re.findall(r"\w+", OPS_DRIFTED[version]) if word.isupper()} >= names[newer]
    assert {word for word in re.findall(r"\w+", OPS_DRIFTED[Version(2, 0, 0)]) if word.isupper()} >= names[Version(2, 0, 0)]


OPS_OF_2_0_0 = """
    NONE DUP ADD ADD_ID ADD1 ACC SUB MUL DIV SQR SQRT LOG SIN COS SUM SUM_ROWS MEAN ARGMAX COUNT_EQUAL REPEAT REPEAT_BACK CONCAT
    SILU_BACK NORM RMS_NORM RMS_NORM_BACK GROUP_NORM L2_NORM MUL_MAT MUL_MAT_ID OUT_PROD SCALE SET CPY CONT RESHAPE VIEW PERMUTE
    TRANSPOSE GET_ROWS GET_ROWS_BACK SET_ROWS DIAG DIAG_MASK_INF DIAG_MASK_ZERO SOFT_MAX SOFT_MAX_BACK ROPE ROPE_BACK CLAMP
    CONV_TRANSPOSE_1D IM2COL IM2COL_BACK CONV_2D CONV_2D_DW CONV_TRANSPOSE_2D POOL_1D POOL_2D POOL_2D_BACK UPSCALE PAD
    PAD_REFLECT_1D ROLL ARANGE TIMESTEP_EMBEDDING ARGSORT LEAKY_RELU FLASH_ATTN_EXT FLASH_ATTN_BACK SSM_CONV SSM_SCAN WIN_PART
    WIN_UNPART GET_REL_POS ADD_REL_POS RWKV_WKV6 GATED_LINEAR_ATTN RWKV_WKV7 UNARY MAP_CUSTOM1 MAP_CUSTOM2 MAP_CUSTOM3 CUSTOM
    CROSS_ENTROPY_LOSS CROSS_ENTROPY_LOSS_BACK OPT_STEP_ADAMW OPT_STEP_SGD GLU
"""
"""enum ggml_op in the ggml.h of llama-cpp-python 0.3.16, written down by a script."""


def test_the_ops_of_2_0_0_are_those_of_its_package() -> None:
    assert list(op_table(Version(2, 0, 0))) == OPS_OF_2_0_0.split()
    assert kinds("UNARY", Version(2, 0, 0))[13:] == ("EXP", "GELU_ERF")
    assert kinds("GLU", Version(2, 0, 0)) == ("REGLU", "GEGLU", "SWIGLU", "SWIGLU_OAI", "GEGLU_ERF", "GEGLU_QUICK")


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
    assert [row["number"] for row in GENUINE["types"]] == list(range(type_count()))
    assert len(DTYPES) == len(BY_NUMBER) == 35
    assert len(DEAD_NUMBERS) == 8
    assert sorted({*BY_NUMBER, *DEAD_NUMBERS}) == list(range(43))


COUNTS = {"1.0.0": 39, "2.0.0": 40, "3.0.0": 40, "3.5.0": 40, "3.6.0": 40, "3.6.1": 41, "4.0.0": 42, "4.0.1": 42, "4.0.2": 43,
          "4.0.3": 43, "5.0.0": 43, "5.1.0": 43, "6.0.0": 43, "7.0.0": 43, "8.0.0": 43}  # fmt: skip
"""GGML_TYPE_COUNT in ggml.h of each version."""


def test_type_counts_of_the_versions() -> None:
    assert {str(version): type_count(version) for version in PROFILES} == COUNTS


@pytest.mark.parametrize("version", PROFILES, ids=str)
def test_types_of_a_version_are_below_its_count(version: Version) -> None:
    assert max(types(version)) < COUNTS[str(version)]
    assert all(present(version, dtype.since) for dtype in types(version).values())


# -------------------------------------------------------------------------------------------------------------- versions


def test_versions_are_in_order() -> None:
    assert list(PROFILES) == sorted(PROFILES)
    assert [profile.date for profile in PROFILES.values()] == sorted(profile.date for profile in PROFILES.values())
    assert len(PROFILES) == 15
    frames = {Version.parse(path.parent.name.split("-")[1]) for path in FILE.parents[1].glob("upstream-*/frames.json")}
    forks = {package.speaks for package in FORKS.values()}
    assert {version for version, profile in PROFILES.items() if profile.proven} == frames - forks
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
        assert section in ("frame", "session", "device", "buffer", "tensor", "data", "graph", "comm"), key
        assert words.replace("-", "").isalnum(), key
        assert key == rule.id
        assert rule.level in ("MUST", "SHOULD", "MAY")
        assert rule.sentence.endswith("."), key
        assert rule.outcome, key
        assert rule.since in PROFILES
        assert rule.until is None or rule.until in PROFILES


def test_rules_that_do_not_bind_every_version() -> None:
    marks = {id: (str(rule.since), rule.until and str(rule.until)) for id, rule in RULES.items()}
    assert {id: mark for id, mark in marks.items() if mark != ("1.0.0", None)} == {
        "device.index": ("3.0.0", None),
        "device.count": ("3.0.0", None),
        "session.caps": ("4.0.0", None),
        "tensor.empty-anywhere": ("8.0.0", None),
        "data.memset": ("5.0.0", None),
        "data.memset-in-tensor": ("5.0.0", None),
        "data.cache-flag": ("7.0.0", None),
        "data.cache-flag-set": ("7.0.0", None),
        **dict.fromkeys((id for id in RULES if id.startswith(("data.rows", "graph.uid", "comm."))), ("8.0.0", None)),
        "graph.flag-compute": ("3.6.1", None),
        "graph.recompute": ("3.5.0", "8.0.0"),
        "graph.recompute-stored": ("3.5.0", None),
        "graph.recompute-freed": ("3.5.0", None),
        "graph.use-count": ("5.1.0", None),
        "graph.recompute-uid": ("8.0.0", None),
        "session.speaks-older": ("3.5.0", None),
        "session.client-caps": ("4.0.0", None),
        "device.named": ("3.0.0", None),
        "tensor.uses-counted": ("5.1.0", None),
        "graph.flag-set": ("3.6.1", None),
        "graph.status": ("1.0.0", "3.5.0"),
        "graph.recompute-sent": ("3.5.0", None),
    }
    assert [str(version) for version in PROFILES if RULES["graph.recompute"].present(version)] == [
        "3.5.0", "3.6.0", "3.6.1", "4.0.0", "4.0.1", "4.0.2", "4.0.3", "5.0.0", "5.1.0", "6.0.0", "7.0.0",
    ]  # fmt: skip


def test_every_rule_says_what_the_genuine_build_does() -> None:
    genuine = observed()
    assert genuine.directory == FILE.parent.name
    assert (genuine.protocol, genuine.build) == (DEFAULT, "llama-cpp-python 0.3.20")
    assert list(genuine.rules) == [id for id, rule in RULES.items() if rule.present(DEFAULT)]
    assert genuine.rules["graph.op-custom"] == "calls the pointer (SEC-05)"


def test_the_newest_build_was_observed_too() -> None:
    genuine = observed(Version(8, 0, 0))
    assert genuine.build == "xllamacpp 2026.10.11549 (llama.cpp b11549)"
    assert list(genuine.rules) == [id for id, rule in RULES.items() if rule.present(Version(8, 0, 0))]
    assert genuine.rules["tensor.in-buffer"].startswith("closes; ")  # 3.6.1 aborts


def test_the_package_carries_what_was_observed() -> None:
    carried = {path.stem: path.read_bytes() for path in Path(package.__file__).parent.glob("*.json")}
    assert carried == {path.parent.name: path.read_bytes() for path in FILE.parents[1].glob("upstream-*/observed.json")}
    assert FILE.parent.name in carried


def test_a_build_that_nobody_observed() -> None:
    with pytest.raises(LookupError, match=r"protocol 1\.0\.0"):
        observed(Version(1, 0, 0))
