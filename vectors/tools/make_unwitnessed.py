"""Write the vectors of protocol 1.0.0: frames and conversations laid out by hand, since no package holds a build of it.

    python -m vectors.tools.make_unwitnessed [DIRECTORY]

1.0.0 was llama.cpp's for seven days, 2025-04-18 (#12955) to 2025-04-25 (#12943). Its layouts are those of 2.0.0, whose genuine
build was recorded; the one difference, that SET_TENSOR has an empty reply, is from those two pull requests. The bytes are laid out
with `struct`, without any code of ggml_rpc_ref: the offsets stand here a second time so that a mistake in the tables shows.

`frames.json` has every request and reply with all fields different and high bits set, which no server would take; `sessions/` has
conversations that a server of 1.0.0 must be able to hold.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from vectors.tools.malformed.case import NAME
from vectors.tools.malformed.protocol import (
    COMMANDS,
    HELLO,
    Q8_0,
    Request,
    Step,
    Tensor,
    address,
    at_least,
    copy_tensor,
    end,
    f32,
    free,
    handle,
    hear,
    i32,
    init_tensor,
    on_buffer,
    read,
    say,
    set_tensor,
    set_tensor_hash,
    tensor,
    u32,
    u64,
)

OUT: Final = Path(__file__).resolve().parents[1] / "handmade" / "1.0.0"
TOOL: Final = "vectors/tools/make_unwitnessed.py"
WHY: Final = "no package of any index holds a build of protocol 1.0.0"
SOURCES: Final = "llama.cpp #12955 (HELLO, 1.0.0) and #12943 (2.0.0), and the recorded bytes of 2.0.0, whose layouts are the same"
ADD, MUL_MAT, UNARY, NEG = 2, 27, 74, 2
"""Numbers of ops, and of the kind of UNARY, in the enums of April 2025."""

# ------------------------------------------------------------------------------------------------------------ frames


class Numbers:
    """Gives numbers that are all different, the highest bit set."""

    def __init__(self) -> None:
        self.given = 0

    def next(self, size: int) -> int:
        """Return a number of so many bytes that was not given before."""
        self.given += 1
        return int.from_bytes(
            bytes((self.given * 37 + at * 11 + 5) % 128 + (128 if at == size - 1 else 0) for at in range(size)), "little"
        )


def signed(number: int) -> int:
    """Return a u32 as the i32 of the same bits."""
    return number - 2**32 if number >= 2**31 else number


def record(numbers: Numbers) -> tuple[dict[str, Any], bytes]:
    """Return a tensor record's fields, all different, and its 296 bytes."""
    take = numbers.next
    fields: dict[str, Any] = {
        "id": take(8), "type": take(4), "buffer": take(8), "ne": [take(4) for _ in range(4)], "nb": [take(4) for _ in range(4)],
        "op": take(4), "op_params": [signed(take(4)) for _ in range(16)], "flags": signed(take(4)),
        "src": [take(8) for _ in range(10)],
        "view_src": take(8), "view_offs": take(8), "data": take(8), "name": bytes(range(1, 65)).hex(), "padding": "f1f2f3f4",
    }  # fmt: skip
    flat = [
        part
        for name, value in fields.items()
        if name not in ("name", "padding")
        for part in (value if isinstance(value, list) else [value])
    ]
    return fields, struct.pack("<QIQ4I4II16ii10QQQQ", *flat) + bytes.fromhex(fields["name"] + fields["padding"])


def frame(command: str, fields: dict[str, Any], payload: bytes, reply: tuple[dict[str, Any], bytes] = ({}, b"")) -> dict[str, Any]:
    """Return a frame as the file has it; every request of 1.0.0 has a reply, an empty one where there is nothing to say."""
    answer = {"payload": reply[1].hex(), "fields": reply[0]}
    return {"command": command, "number": COMMANDS[command], "payload": payload.hex(), "fields": fields, "reply": answer}


def frames() -> list[dict[str, Any]]:
    """Return every request of 1.0.0 with its reply."""
    return [*server_frames(Numbers()), *buffer_frames(Numbers()), *tensor_frames(Numbers()), graph_frame(Numbers())]


def server_frames(numbers: Numbers) -> Iterable[dict[str, Any]]:
    """Yield what is asked of a server; no request names a device, which came with 3.0.0."""
    a, b, c, d = (numbers.next(8) for _ in range(4))
    yield frame("HELLO", {}, b"", ({"major": 1, "minor": 0, "patch": 0}, bytes([1, 0, 0])))
    yield frame("GET_ALIGNMENT", {}, b"", ({"alignment": a}, u64(a)))
    yield frame("GET_MAX_SIZE", {}, b"", ({"max_size": b}, u64(b)))
    yield frame("GET_DEVICE_MEMORY", {}, b"", ({"free_mem": c, "total_mem": d}, u64(c, d)))


def buffer_frames(numbers: Numbers) -> Iterable[dict[str, Any]]:
    """Yield the requests that make, find, fill and free a buffer."""
    size, pointer, granted, base = (numbers.next(8) for _ in range(4))
    yield frame("ALLOC_BUFFER", {"size": size}, u64(size), ({"remote_ptr": pointer, "remote_size": granted}, u64(pointer, granted)))
    yield frame("BUFFER_GET_BASE", {"remote_ptr": pointer}, u64(pointer), ({"base_ptr": base}, u64(base)))
    yield frame("BUFFER_CLEAR", {"remote_ptr": pointer, "value": 0xC3}, u64(pointer) + b"\xc3")
    yield frame("FREE_BUFFER", {"remote_ptr": pointer}, u64(pointer))


def tensor_frames(numbers: Numbers) -> Iterable[dict[str, Any]]:
    """Yield the requests about one tensor, or two."""
    fields, data = record(numbers)
    other, other_data = record(numbers)
    offset, size, hash = (numbers.next(8) for _ in range(3))
    answer = bytes(range(200, 216))
    yield frame("SET_TENSOR", {"tensor": fields, "offset": offset, "data": answer.hex()}, data + u64(offset) + answer)
    yield frame(
        "SET_TENSOR_HASH", {"tensor": fields, "offset": offset, "hash": hash}, data + u64(offset, hash), ({"result": 1}, b"\1")
    )
    yield frame(
        "GET_TENSOR", {"tensor": fields, "offset": offset, "size": size}, data + u64(offset, size), ({"data": answer.hex()}, answer)
    )
    yield frame("COPY_TENSOR", {"src": fields, "dst": other}, data + other_data, ({"result": 1}, b"\1"))
    yield frame("INIT_TENSOR", {"tensor": fields}, data)
    yield frame("GET_ALLOC_SIZE", {"tensor": fields}, data, ({"alloc_size": size}, u64(size)))


def graph_frame(numbers: Numbers) -> dict[str, Any]:
    """Return a GRAPH_COMPUTE of three nodes and two tensors; its reply is the status that 3.5.0 took away."""
    nodes = [numbers.next(8) for _ in range(3)]
    records = [record(numbers) for _ in range(2)]
    payload = u32(3) + u64(*nodes) + u32(2) + b"".join(data for _, data in records)
    return frame(
        "GRAPH_COMPUTE", {"nodes": nodes, "tensors": [fields for fields, _ in records]}, payload, ({"result": 255}, b"\xff")
    )


# ------------------------------------------------------------------------------------------------------------ sessions


def hello(on: int = 1) -> list[Step]:
    """Return HELLO and its reply."""
    return [say(HELLO, on=on), hear("HELLO", bytes([1, 0, 0]), on=on)]


def buffer(name: str = "buf0", size: int = 4096) -> list[Step]:
    """Return what makes a buffer and asks where it is."""
    return [
        say(Request("ALLOC_BUFFER", [u64(size)])),
        hear("ALLOC_BUFFER", handle(name), at_least(size)),
        say(on_buffer("BUFFER_GET_BASE", handle(name))),
        hear("BUFFER_GET_BASE", address(name)),
    ]


def write(target: Tensor, data: bytes, offset: int = 0) -> list[Step]:
    """Return a SET_TENSOR and its empty reply, which no later version has."""
    return [say(set_tensor(target, data, offset)), hear("SET_TENSOR")]


def compute(nodes: Sequence[int], *tensors: Tensor) -> list[Step]:
    """Return a GRAPH_COMPUTE and its status, 0."""
    records = [piece for tensor in tensors for piece in tensor.pieces]
    request = Request("GRAPH_COMPUTE", [u32(len(nodes)), u64(*nodes), u32(len(tensors)), *records])
    return [say(request), hear("GRAPH_COMPUTE", b"\0")]


def devices() -> list[Step]:
    """Return what a client asks of a server before it uses it, each question on a connection of its own, as clients do."""
    questions = (("GET_ALIGNMENT", 8), ("GET_MAX_SIZE", 8), ("GET_DEVICE_MEMORY", 16))
    return [
        step
        for on, (command, size) in enumerate(questions, 1)
        for step in (*hello(on), say(Request(command, []), on=on), hear(command, {"any": "00" * size}, on=on), end(on))
    ]


def buffers() -> list[Step]:
    """Return two buffers, one cleared and read, and an allocation that can't be met."""
    line = tensor(64, (16,))
    return [
        *hello(), *buffer(), *buffer("buf1", 256),
        say(Request("ALLOC_BUFFER", [u64(2**63)])), hear("ALLOC_BUFFER", u64(0, 0)),
        say(on_buffer("BUFFER_CLEAR", handle("buf0"), b"\xa7")), hear("BUFFER_CLEAR"),
        *read(line, b"\xa7" * 64),
        *free("buf1"), *free("buf0"), end(),
    ]  # fmt: skip


def parts() -> list[Step]:
    """Return a tensor that is written and read in parts, offered by its hash, and copied."""
    source, target = tensor(0, (8,), id=0x101), tensor(512, (8,), id=0x102)
    data = f32(1, -2, 3, -4, 5, -6, 7, -8)
    return [
        *hello(), *buffer(),
        say(init_tensor(source)), hear("INIT_TENSOR"),
        say(Request("GET_ALLOC_SIZE", source.pieces)), hear("GET_ALLOC_SIZE", at_least(32)),
        say(set_tensor_hash(source)), hear("SET_TENSOR_HASH", b"\0"),
        *write(source, data), *write(source, f32(9), offset=8),
        *read(source, data[4:8] + f32(9), offset=4),
        say(copy_tensor(source, target)), hear("COPY_TENSOR", b"\1"),
        *read(target, data[:8] + f32(9) + data[12:]),
        *free("buf0"), end(),
    ]  # fmt: skip


def graphs() -> list[Step]:
    """Return two graphs of nodes without flags: the negative of a sum, twice, its operands changed between."""
    a, b = tensor(0, (4,), id=0x201), tensor(64, (4,), id=0x202)
    total = tensor(128, (4,), id=0x203, op=ADD, src=(0x201, 0x202))
    negative = tensor(192, (4,), id=0x204, op=UNARY, op_params=i32(NEG), src=(0x203,))
    work = compute([0x203, 0x204], a, b, total, negative)
    return [
        *hello(), *buffer(),
        *write(a, f32(1, 2, 3, 4)), *write(b, f32(0.5, 0.25, -1, 8)),
        *work, *read(negative, f32(-1.5, -2.25, -2, -12)),
        *write(a, f32(0, 0, 16, 32)),
        *work, *read(negative, f32(-0.5, -0.25, -15, -40)), *read(total, f32(0.5, 0.25, 15, 40)),
        *free("buf0"), end(),
    ]  # fmt: skip


def product() -> list[Step]:
    """Return products with small whole numbers, exact in any order of sums: a matrix of F32, and one of Q8_0 with scale 1."""
    matrix, quantised = tensor(0, (32, 2), id=0x301), tensor(512, (32, 2), Q8_0, id=0x302)
    vector = tensor(1024, (32,), id=0x303)
    of_f32 = tensor(1536, (2,), id=0x304, op=MUL_MAT, src=(0x301, 0x303))
    of_q8 = tensor(1600, (2,), id=0x305, op=MUL_MAT, src=(0x302, 0x303))
    first, second = [at % 5 - 2 for at in range(32)], [at % 3 for at in range(32)]
    block = b"\0\x3c"  # the scale, 1 in F16
    by = [127 if at < 4 else 0 for at in range(32)]  # 127 is the vector's largest, so that Q8_0 holds it exactly
    results = [float(sum(x * y for x, y in zip(row, by, strict=True))) for row in (first, second)]
    return [
        *hello(), *buffer(),
        *write(matrix, f32(*first, *second)),
        *write(quantised, block + struct.pack("<32b", *first) + block + struct.pack("<32b", *second)),
        *write(vector, f32(*by)),
        *compute([0x304, 0x305], matrix, quantised, vector, of_f32, of_q8),
        *read(of_f32, f32(*results)), *read(of_q8, f32(*results)),
        *free("buf0"), end(),
    ]  # fmt: skip


SESSIONS: Final = {
    "devices": (devices, "What a client asks of a server before it uses it.", ["several-connections"]),
    "buffers": (buffers, "Two buffers, one of them cleared and read, and an allocation that can't be met.", []),
    "parts": (parts, "A tensor written and read in parts, offered by its hash, and copied.", []),
    "graphs": (graphs, "A graph computed twice, whose nodes have no flags; each is answered with a status.", []),
    "products": (product, "Products of small whole numbers by F32 and Q8_0, which are exact.", []),
}
"""Id to what makes its steps, what it shows, and its flags."""


def session(id: str) -> dict[str, Any]:
    """Return a session as its file has it."""
    make, about, flags = SESSIONS[id]
    steps = make()
    names = dict.fromkeys(NAME.findall(str(steps)))
    return {
        "schema_version": 1,
        "id": id,
        "protocol": "1.0.0",
        "about": about,
        "flags": flags,
        "provenance": {"not_witnessed": WHY, "laid_out_by": TOOL, "sources": SOURCES},
        "bindings": {name: {"by": "server"} for name in names},
        "steps": steps,
    }


def text(content: dict[str, Any], start: str) -> str:
    """Return a file's text: a message, or a step, on a line of its own."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).replace(start, f"\n{start}") + "\n"


def main() -> None:
    """Write the frames and the sessions."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    (out / "sessions").mkdir(parents=True, exist_ok=True)
    head = {
        "schema_version": 1,
        "protocol": "1.0.0",
        "not_witnessed": f"{WHY}; made from {SOURCES}",
        "laid_out_by": TOOL,
        "bytes": "hexadecimal; names and padding too. Other fields as the program packed them.",
    }
    (out / "frames.json").write_text(text(head | {"connections": [{"frames": frames()}]}, '{"command"'), encoding="utf-8")
    for id in SESSIONS:
        (out / "sessions" / f"{id}.json").write_text(text(session(id), '{"connection"'), encoding="utf-8")


if __name__ == "__main__":
    main()
