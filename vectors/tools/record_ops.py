"""Record what genuine llama.cpp servers compute for every case of every op: the witness under the oracle.

    .venv/bin/python -m vectors.tools.record_ops --spawn                    # every op, on a server of its own
    .venv/bin/python -m vectors.tools.record_ops --spawn RMS_NORM MUL       # these ops only
    .venv/bin/python -m vectors.tools.record_ops 127.0.0.1:50052 RMS_NORM   # on a server that runs already
    .venv/bin/python -m vectors.tools.record_ops --spawn --dry-run ADD      # compare with the oracle, write nothing
    .venv/bin/python -m vectors.tools.record_ops --spawn --new SUM          # the cases that its file lacks, the others as they are
    .venv/bin/python -m vectors.tools.record_ops --inputs                   # write the inputs of what is recorded, ask no server
    .venv/bin/python -m vectors.tools.record_ops --spawn --build 8.0.0      # what this build has and 3.6.1 has not
    .venv/bin/python -m vectors.tools.record_ops --spawn --build 8.0.0 --dry-run --every    # all that has a meaning in this build

Two files per op are written to the `ops/` of the build's directory (`op_wire.BUILDS`): `<op>.json`, and `<op>.inputs` with the
bytes of its longer operands, zlib streams one after the other. `--inputs` writes the second, and where each stream lies into the
first, whose results stay as they are; the recipes' bytes must have the recorded SHA-256. The last lines on stdout are a table of
the oracle's worst error per op against these results; the exit status is 1 if any case failed.

Independence: the inputs come from `ggml_rpc_ref.ops.cases.recipes`, the geometry from the op's cases; the wire client (`op_wire`)
is written out by hand from the protocol's layout and the expected bytes are what the server sent. The oracle runs only after them,
for the table.

A case is laid out in one server buffer as it lies in memory here: every operand's memory with its guard bytes, 64-byte aligned.
The whole buffer is read back. Memories that changed are recorded ("dst", and sources that the op updates); a byte that changed
outside of a tensor's elements is an error, and so is a server that dies.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops import ops_of
from ggml_rpc_ref.ops.cases import cases_of, recipes
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.compare import compare_tensors, element_bytes, worst_error
from ggml_rpc_ref.ops.op import Op
from ggml_rpc_ref.spec.op_changes import OP_CHANGES
from ggml_rpc_ref.spec.versions import Version
from ggml_rpc_ref.tensor import PlainStorage, Tensor
from vectors.tools.element_bounds import with_element_bounds
from vectors.tools.op_wire import BUILDS, COMPARED, Build, RemoteServer, ServerGone, SpawnedServer, Wire, tensor_record

I8, COMPUTE = 24, 16
ALIGNMENT = 64
ENCODING = (
    "expected: base64 of zlib of the bytes from the first to the last element of that operand's memory, after the node ran; "
    "memories not named did not change. Gaps between an input's elements are 0xA5 bytes."
)
LITERAL_BYTES = 256
"""Inputs up to this many bytes are written out beside their recipe, longer ones into the file of inputs."""


def cases_to_record(op: str, build: Build) -> tuple[Case, ...]:
    """Return the cases of an op that are recorded from a build: those of its version that no build before it in `BUILDS` has."""
    found = {case.id: case for case in cases_of(op, Version(*build.protocol))}
    for earlier in BUILDS.values():
        if earlier is build:
            break
        for case in cases_of(op, Version(*earlier.protocol)):
            found.pop(case.id, None)
    return tuple(found.values())


# --- a case on the server -----------------------------------------------------------------------------------------------


@dataclass
class Memories:
    """The distinct memories of a case, each named after the operand that owns it, and where each goes in the server's buffer."""

    names: list[str]
    data: list[np.ndarray[Any, np.dtype[np.uint8]]]
    starts: list[int]
    size: int

    @classmethod
    def of(cls, dst: Tensor, src: tuple[Tensor | None, ...]) -> Memories:
        """Collect them: sources by slot, then dst if it has memory of its own."""
        found = cls([], [], [], 0)
        named = [(f"src{slot}", tensor) for slot, tensor in enumerate(src) if tensor is not None]
        for name, tensor in [*named, ("dst", dst)]:
            assert isinstance(tensor.storage, PlainStorage)
            if not any(tensor.storage.data is data for data in found.data):
                found.names.append(name)
                found.data.append(tensor.storage.data)
                found.starts.append(found.size)
                found.size += -(-len(tensor.storage.data) // ALIGNMENT) * ALIGNMENT
        return found

    def address(self, tensor: Tensor) -> int:
        """Return the offset of a tensor's first byte in the server's buffer."""
        assert isinstance(tensor.storage, PlainStorage)
        index = next(index for index, data in enumerate(self.data) if tensor.storage.data is data)
        return self.starts[index] + tensor.offset

    def joined(self) -> bytes:
        """Return the bytes of the server's buffer."""
        image = bytearray(self.size)
        for start, data in zip(self.starts, self.data, strict=True):
            image[start : start + len(data)] = data.tobytes()
        return bytes(image)

    def split(self, image: bytes) -> dict[str, np.ndarray[Any, np.dtype[np.uint8]]]:
        """Return each memory's bytes out of the server's buffer."""
        return {
            name: np.frombuffer(image, np.uint8, len(data), start)
            for name, start, data in zip(self.names, self.starts, self.data, strict=True)
        }


def run_node(
    wire: Wire, op: str, op_params: bytes, dst: Tensor, src: tuple[Tensor | None, ...], alias: str = ""
) -> dict[str, np.ndarray[Any, np.dtype[np.uint8]]]:
    """Compute one node on the server and return every memory's bytes afterwards, by the name of its owner.

    Args:
        alias: "srcN" where dst is a view of that source, which a client says in view_src.
    """
    memories = Memories.of(dst, src)
    with wire.buffer(memories.size) as (pointer, base):
        size = memories.size
        everything = tensor_record(1, I8, pointer, (size, 1, 1, 1), (1, size, size, size), base)
        wire.write(everything, memories.joined())

        def record(number: int, tensor: Tensor, **node: Any) -> bytes:
            data = base + memories.address(tensor)
            return tensor_record(number, tensor.dtype.number, pointer, tensor.ne, tensor.nb, data, **node)

        numbers = tuple(0 if tensor is None else 100 + slot for slot, tensor in enumerate(src))
        tensors = [record(100 + slot, tensor) for slot, tensor in enumerate(src) if tensor is not None]
        view_src = 100 + int(alias.removeprefix("src")) if alias else 0
        tensors.append(
            record(99, dst, op=wire.build.number[op], op_params=op_params, flags=COMPUTE, src=numbers, view_src=view_src)
        )
        wire.compute(99, tensors)
        image = wire.read(everything, size)
    return memories.split(image)


# --- the files ----------------------------------------------------------------------------------------------------------


def encoded(data: bytes) -> str:
    """Return base64 of zlib of the bytes."""
    return base64.b64encode(zlib.compress(data, 9)).decode()


def described(operand: Operand | None, tensor: Tensor | None, label: str) -> dict[str, Any] | None:
    """Return the JSON object of an operand: geometry, recipe, and its input bytes or their hash."""
    if operand is None or tensor is None:
        return None
    entry: dict[str, Any] = {"type": operand.dtype, "ne": list(tensor.ne), "nb": list(tensor.nb), "offset": operand.offset}
    if operand.alias:
        return {**entry, "alias": operand.alias}
    data = tensor_bytes(tensor, tensor.storage.data)  # type: ignore[union-attr, arg-type]
    entry |= {"fill": operand.fill, "seed": f"crc32({label!r})", "sha256": hashlib.sha256(data).hexdigest()}
    if len(data) <= LITERAL_BYTES:
        entry["bytes"] = base64.b64encode(data).decode()
    return entry


def tensor_bytes(tensor: Tensor, memory: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """Return what lies between the guard bytes of the memory that a tensor owns."""
    return memory[recipes.GUARD : len(memory) - recipes.GUARD].tobytes()


def with_inputs(op: Op, document: dict[str, Any], build: Build = BUILDS["3.6.1"]) -> tuple[dict[str, Any], bytes]:
    """Return an op's JSON object with the places of its longer inputs, and the bytes of its file of inputs.

    What a dst holds is left out where the node was seen to change every element of it: it has no bearing on the result, and
    would be a third of all.

    Raises:
        ValueError: where the recipes give other bytes than were recorded.
    """
    cases, streams, end = [], [], 0
    for case, entry in zip(cases_to_record(op.name, build), document["cases"], strict=True):
        dst, src = recipes.build(op.name, case)
        operands = [entry["dst"], *entry["src"]]
        for number, tensor in enumerate((dst, *src)):
            if tensor is None or "sha256" not in operands[number]:
                continue
            data = tensor_bytes(tensor, tensor.storage.data)  # type: ignore[union-attr, arg-type]
            described = operands[number] | {"sha256": hashlib.sha256(data).hexdigest()}
            if described != operands[number]:
                raise ValueError(f"{op.name}-{entry['id']}: these are not the bytes that were recorded")
            if "bytes" in described or (number == 0 and is_overwritten(dst, entry["expected"])):
                continue
            streams.append(zlib.compress(data, 9))
            # the hash stays last: so a file gains lines and changes none
            sha256 = described.pop("sha256")
            operands[number] = described | {"payload": {"at": end, "size": len(streams[-1])}, "sha256": sha256}
            end += len(streams[-1])
        said = {key: value for key, value in entry.items() if key not in ("id", "since", "until")}
        cases.append({"id": entry["id"], **lifetime(case), **said, "dst": operands[0], "src": operands[1:]})
    return document | {"cases": cases}, b"".join(streams)


def is_overwritten(dst: Tensor, expected: dict[str, str]) -> bool:
    """Whether the node changed every element of a dst that has memory of its own."""
    guard = bytes(recipes.GUARD)
    memory = guard + zlib.decompress(base64.b64decode(expected["dst"])) + guard
    before, after = (element_words(t) for t in (dst, replace(dst, storage=PlainStorage(np.frombuffer(memory, np.uint8)))))
    return bool((before != after).any(axis=-1).all())


def element_words(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the bytes of each element, or of each block, along the last axis."""
    array = np.ascontiguousarray(tensor.array)
    return array if tensor.dtype.is_quantised else array[..., None].view(np.uint8)


def write(op: Op, document: dict[str, Any], build: Build) -> int:
    """Write the files of an op, and return their size."""
    document, streams = with_inputs(op, with_element_bounds(op, document, build.protocol), build)
    text = json.dumps(document, indent=1) + "\n"
    path = build.out / f"{op.name.lower()}.json"
    build.out.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if streams:
        path.with_suffix(".inputs").write_bytes(streams)
    else:
        path.with_suffix(".inputs").unlink(missing_ok=True)
    return len(text) + len(streams)


def add_inputs(names: list[str], build: Build) -> None:
    """Write the inputs of what is recorded already."""
    for name in names:
        path = build.out / f"{name.lower()}.json"
        if path.exists():
            print(f"{name:24} {write(_ops(build)[name], json.loads(path.read_text()), build):9} bytes")


def _ops(build: Build) -> dict[str, Op]:
    return ops_of(Version(*build.protocol))


def lifetime(case: Case) -> dict[str, str]:
    """Return the versions between which the op computes a case so, where a change is what brought or ended it."""
    began, ended = OP_CHANGES.get(case.since), OP_CHANGES.get(case.until)
    since = {"since": str(began.since)} if began else {}
    until = ended.since if ended else began.until if began else None
    return since | ({"until": str(until)} if until else {})


def record_case(wire: Wire, op: Op, case: Case) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, np.dtype[np.uint8]]]]:
    """Return the JSON object of a case, and the memories as the server left them.

    Raises:
        ServerGone: where the server died of it.
        ValueError: where the server changed bytes outside of the tensors' elements.
    """
    dst, src = recipes.build(op.name, case)
    op_params = op.pack(case.params)
    tensors = {f"src{slot}": tensor for slot, tensor in enumerate(src) if tensor is not None} | {"dst": dst}
    after = run_node(wire, op.name, op_params, dst, src, case.dst.alias)
    before = dict(zip(Memories.of(dst, src).names, Memories.of(dst, src).data, strict=True))
    owner = case.dst.alias or "dst"
    changed = [name for name in after if name != owner and not np.array_equal(after[name], before[name])]
    for name in (owner, *changed):
        allowed = element_bytes(dst if name == owner else tensors[name])
        outside = np.flatnonzero((after[name] != before[name]) & ~allowed)
        if outside.size:
            where = f"{outside.size} bytes of {name} outside of its elements, the first at {outside[0] - recipes.GUARD}"
            raise ValueError(f"the server changed {where}")
    expected = {name: encoded(tensor_bytes(tensors[name], after[name])) for name in (owner, *changed)}
    slots = enumerate(zip(case.src, src, strict=True))
    entry = {
        "id": case.id,
        **lifetime(case),
        "op_params": op_params.hex(),
        "dst": described(case.dst, dst, f"{op.name}/{case.id}/dst"),
        "src": [described(operand, tensor, f"{op.name}/{case.id}/{slot}") for slot, (operand, tensor) in slots],
        "expected": expected,
    }
    if case.tolerance is not None:
        entry["tolerance"] = asdict(case.tolerance)
    return entry, after


def oracle_errors(op: Op, case: Case, after: dict[str, np.ndarray[Any, np.dtype[np.uint8]]]) -> tuple[float, str]:
    """Return the oracle's worst error on a case (see `worst_error`), and why it is not good enough, or ""."""
    dst, src = recipes.build(op.name, case)
    try:
        node = op.check(dst, src, op.pack(case.params))
        if dst.nelements:
            op.oracle(node)
    except Violation as violation:
        return float("inf"), f"the oracle refuses: {violation}"
    owner = case.dst.alias or "dst"
    memories = Memories.of(dst, src)
    worst, complaint = 0.0, ""
    for name, mine in zip(memories.names, memories.data, strict=True):
        tensor = dst if name == owner else src[int(name.removeprefix("src"))]
        assert tensor is not None
        theirs = Tensor(tensor.dtype, tensor.ne, tensor.nb, PlainStorage(after[name]), tensor.offset)
        worst = max(worst, worst_error(theirs, tensor))
        if name != owner and np.array_equal(mine, after[name]):
            continue
        if mismatch := compare_tensors(theirs, tensor, case.tolerance or op.tolerance):
            complaint = f"{name}: {mismatch}"
    return worst, complaint


def processor() -> str:
    """Return this machine's model of processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "")


def provenance(command: str, build: Build) -> dict[str, str]:
    """Return where the recorded bytes come from."""
    return {
        "package": build.package,
        "server": "ggml_backend_rpc_start_server on the CPU device of that package, x86-64, built on the machine that ran it",
        "cpu": processor(),
        "how": "each case one GRAPH_COMPUTE of one node with flag COMPUTE; the whole buffer read back with GET_TENSOR",
        "command": command,
    }


def record_op(
    server: SpawnedServer | RemoteServer, op: Op, *, dry_run: bool, only_new: bool, every: bool, command: str
) -> tuple[int, float, list[str], int]:
    """Record an op; return the number of cases recorded, the oracle's worst error, the complaints, and the bytes written."""
    build = server.build
    path, document = build.out / f"{op.name.lower()}.json", new_document(op, command, build)
    cases = cases_of(op.name, Version(*build.protocol)) if every else cases_to_record(op.name, build)
    if only_new and path.exists():
        document = json.loads(path.read_text())
    known, worst, complaints = {entry["id"]: entry for entry in document["cases"]}, 0.0, []
    wanted = [case for case in cases if case.id not in known]
    if not wanted:
        return 0, 0.0, [], 0
    wire = server.connect()
    for case in wanted:
        try:
            entry, after = record_case(wire, op, case)
        except ServerGone:
            complaints.append(f"{op.name}-{case.id}: SERVER GONE: {server.last_words()}")
            wire.close()
            wire = server.connect()
            continue
        except (ValueError, Violation) as error:
            complaints.append(f"{op.name}-{case.id}: {error}")
            continue
        known[case.id] = entry if processor() == document["provenance"]["cpu"] else entry | {"cpu": processor()}
        distance, complaint = oracle_errors(op, case, after)
        worst = max(worst, distance)
        if complaint:
            complaints.append(f"{op.name}-{case.id}: {complaint}")
    wire.close()
    ids = [case.id for case in cases]
    if dry_run or not all(id in known for id in ids):
        return len(wanted), worst, complaints, 0
    return len(wanted), worst, complaints, write(op, document | {"cases": [known[id] for id in ids]}, build)


def new_document(op: Op, command: str, build: Build) -> dict[str, Any]:
    """Return the JSON object of an op of which nothing is recorded yet."""
    return {
        "schema_version": 1,
        "op": op.name,
        "provenance": provenance(command, build),
        "encoding": ENCODING,
        "tolerance": asdict(op.tolerance),
        "cases": [],
    }


def main() -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("where", nargs="*", metavar="HOST:PORT|OP", help="a running server first, then names of ops; none: all")
    parser.add_argument("--spawn", action="store_true", help="start the genuine server from the cached environment")
    parser.add_argument("--threads", type=int, default=1, help="threads of the spawned server (default 1)")
    parser.add_argument("--dry-run", action="store_true", help="compare with the oracle, write nothing")
    parser.add_argument("--new", action="store_true", help="record only cases that are not in the files yet")
    parser.add_argument("--inputs", action="store_true", help="write the inputs of what is recorded already, and ask no server")
    parser.add_argument("--build", choices=COMPARED, default="3.6.1", help="which build (default 3.6.1)")
    parser.add_argument("--every", action="store_true", help="also what another build's vectors have; with --dry-run")
    options = parser.parse_args()
    build = COMPARED[options.build]
    ops = _ops(build)
    names = list(options.where)
    server: SpawnedServer | RemoteServer
    address = names.pop(0) if names and ":" in names[0] else ""
    if not (address or options.spawn or options.inputs):
        parser.error("give HOST:PORT, --spawn or --inputs")
    if unknown := [name for name in names if name not in ops]:
        parser.error(f"unknown op {', '.join(unknown)}")
    if options.inputs:
        add_inputs(names or list(ops), build)
        return 0
    if options.every and not options.dry_run:
        parser.error("--every needs --dry-run")
    if options.build not in BUILDS and not options.dry_run:
        parser.error(f"{options.build} has no meaning of its own to record: compare it with --dry-run --every")
    if options.spawn:
        server = SpawnedServer(options.threads, build)
    else:
        host, _, port = address.rpartition(":")
        server = RemoteServer(host, int(port), build)
    spawned = f" --spawn --threads {options.threads}" if options.spawn else " HOST:PORT"
    command = "vectors/tools/record_ops.py" + f" --build {options.build}" * (options.build != "3.6.1") + spawned
    failures, rows = 0, []
    try:
        for name in names or ops:
            cases, worst, complaints, size = record_op(
                server, ops[name], dry_run=options.dry_run, only_new=options.new, every=options.every, command=command
            )
            failures += len(complaints)
            print(*complaints, sep="\n", end="\n" if complaints else "")
            rows.append((name, cases, worst, ops[name].tolerance, len(complaints), size))
    finally:
        server.close()
    print(f"{'op':24} {'cases':>5} {'worst error':>11} {'rtol':>8} {'atol':>8} {'failed':>6} {'bytes':>9}")
    for name, cases, worst, tolerance, failed, size in rows:
        print(f"{name:24} {cases:5} {worst:11.3g} {tolerance.rtol:8.1g} {tolerance.atol:8.1g} {failed:6} {size:9}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
