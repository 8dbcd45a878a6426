"""The tables and the codec against what each genuine build sent, and what a compiler said of its source (vectors/upstream-*).

One test a build and question, which looks at every frame: tests/test_frames.py, test_derive.py and test_spec.py do the same for the
default version in more detail. Nothing of ours wrote these files but the program that finds the builds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ggml_rpc_ref import upstream
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.negotiation import readable
from ggml_rpc_ref.spec import messages as m
from ggml_rpc_ref.spec.dtypes import BY_NUMBER, DEAD_NUMBERS, types
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.packages import FORKS, PACKAGES
from ggml_rpc_ref.spec.versions import DEFAULT, NEWEST, Version
from tests.test_frames import payload_of, value
from vectors.tools import record_frames

VECTORS = Path(__file__).parents[1] / "vectors"
BUILDS = {package.speaks: package for package in (*PACKAGES.values(), *FORKS.values())}
FOLDERS = {version: VECTORS / f"upstream-{version}-{package.name}-{package.version}" for version, package in BUILDS.items()}
versions = pytest.mark.parametrize("version", [v for v in FOLDERS if v != DEFAULT], ids=str)


def recorded(version: Version, name: str) -> Any:
    return json.loads((FOLDERS[version] / f"{name}.json").read_text())


def frames(version: Version) -> list[dict[str, Any]]:
    return [frame for connection in recorded(version, "frames")["connections"] for frame in connection["frames"]]


def test_every_build_that_can_be_installed_has_its_folder_and_no_other_has() -> None:
    assert set(VECTORS.glob("upstream-*")) == set(FOLDERS.values())


@versions
def test_a_recording_says_whose_it_is(version: Version) -> None:
    for name in ("frames", "enums", "layout"):
        assert recorded(version, name)["protocol"] == str(version)
    assert {recorded(version, name)["package"] for name in ("frames", "enums")} == {str(BUILDS[version])}


@versions
def test_every_command_of_a_version_was_recorded_and_no_other(version: Version) -> None:
    rows = m.by_number(version)
    assert {frame["number"] for frame in frames(version)} == set(rows)
    assert all(m.command_name(rows[frame["number"]].cls) == frame["command"] for frame in frames(version))


def message(cls: type, fields: dict[str, Any], rest: bytes | None) -> Any:
    values = {name: value(field) for name, field in fields.items()}
    if rest is not None:
        assert rest.startswith(values["data"])
        values["data"] = rest
    return cls(**values)


def behind_fields(cls: type, payload: bytes, version: Version) -> bytes | None:
    """The data that a message ends in."""
    return payload[codec.minimum_size(cls, version) :] if m.carries_data(cls) else None


@versions
def test_requests_are_read_and_written_as_recorded(version: Version) -> None:
    check_requests(frames(version), version)


def check_requests(rows: list[dict[str, Any]], version: Version) -> None:
    """Read and write each frame's request."""
    for frame in rows:
        cls, payload = m.by_number(version)[frame["number"]].cls, payload_of(frame)
        expected = message(cls, frame["fields"], behind_fields(cls, payload, version))
        assert codec.decode(cls, payload, version) == expected, frame["command"]
        assert codec.encode(expected, version) == payload, frame["command"]


@versions
def test_replies_are_read_and_written_and_missing_as_recorded(version: Version) -> None:
    check_replies(frames(version), version)


def check_replies(rows: list[dict[str, Any]], version: Version) -> None:
    """Read and write each frame's reply, or see that there is none."""
    for frame in rows:
        cls = m.by_number(version)[frame["number"]].reply(version)
        assert (cls is m.NO_REPLY) is (frame["reply"] is None), frame["command"]
        if frame["reply"]:
            assert isinstance(cls, type)
            payload = bytes.fromhex(frame["reply"]["payload"])
            expected = message(cls, frame["reply"]["fields"], behind_fields(cls, payload, version))
            assert codec.decode(cls, payload, version) == expected, frame["command"]
            assert codec.encode(expected, version) == payload, frame["command"]


@versions
def test_records_lie_as_a_compiler_lays_the_builds_own(version: Version) -> None:
    structures = recorded(version, "layout")["structures"]
    for name, structure in structures.items():
        cls = getattr(m, "RpcTensor" if name == "Tensor" else name)
        laid = codec.layout(cls, version)
        assert laid.itemsize == structure["size"], name
        places = {field: (place[1], place[0].itemsize) for field, place in (laid.fields or {}).items()}
        expected = {field: (place["offset"], place["size"]) for field, place in structure["fields"].items()}
        assert places == expected, name
    by_hand = {m.SetTensor, m.GraphCompute, m.SetTensor2d, m.GraphComputeReply}
    rows = m.by_number(version).values()
    records = {cls for row in rows for cls in (row.cls, row.reply(version)) if isinstance(cls, type) and m.fields(cls, version)}
    named = {getattr(m, "RpcTensor" if name == "Tensor" else name) for name in structures}
    assert records - named <= by_hand | {m.GetTensorReply, m.GetTensor2dReply}


@pytest.mark.parametrize("version", [v for v in PACKAGES if v != DEFAULT], ids=str)
def test_types_are_those_of_the_build(version: Version) -> None:
    said = recorded(version, "enums")["types"]
    for row in said:
        if row["block"] == 0:
            assert row["number"] in DEAD_NUMBERS
            continue
        dtype = BY_NUMBER[row["number"]]
        assert dtype.name.upper() == row["name"].upper()
        assert (dtype.block, dtype.size, dtype.is_quantised) == (row["block"], row["size"], row["quantised"])
    assert set(types(version)) == {row["number"] for row in said if row["block"]}


@pytest.mark.parametrize("fork", FORKS)
def test_a_fork_with_upstreams_layouts_numbers_ops_and_types_otherwise(fork: str) -> None:
    """So that its frames can be read, while nothing may be computed on it by upstream's numbers."""
    version = FORKS[fork].speaks
    read_as, said = readable(version), recorded(version, "enums")
    assert read_as is not None
    table = op_table(read_as)
    assert tuple(said["ops"][: len(table)]) != table
    assert {row["number"] for row in said["types"] if row["block"]} != set(types(read_as))


def shape(content: Any) -> Any:
    """What two recordings of the same build have in common: all but numbers and bytes, and how many there are."""
    match content:
        case dict():
            return {key: shape(entry) for key, entry in content.items()}
        case list():
            return [shape(entry) for entry in content]
        case str() if not content.isupper():  # no command
            return len(content)
    return content if isinstance(content, str) else type(content).__name__


def test_a_second_recording_of_the_newest_build_says_the_same(newest_build: upstream.Build, tmp_path: Path) -> None:
    record_frames.record(newest_build, tmp_path / "frames.json")
    again = json.loads((tmp_path / "frames.json").read_text())
    assert shape(again["connections"]) == shape(recorded(NEWEST, "frames")["connections"])
    uids = [frame["fields"]["uid"] for frame in frames(NEWEST) if frame["command"].startswith("GRAPH")]
    assert uids[0] == 0 < uids[1] == uids[2]
